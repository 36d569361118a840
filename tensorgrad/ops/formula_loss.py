"""Losses that are a formula per element and a sum or mean: one op forward, one fused formula backward."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .checks import check_reduction, np_dtype, product
from .elementwise import Elementwise, broadcast_shape, fit
from .record import Op, Spec, bits_of


def _alike(inputs: tuple[Any, ...], shape: Any, dtype: Any) -> bool:
    """Whether nothing is to be broadcast or promoted among arrays of one shape and dtype, and Python floats."""
    for x in inputs:  # noqa: SIM110 - a generator's frame costs more than the loop
        if type(x) is not float and (x.dtype is not dtype or x.shape != shape):
            return False
    return True


class ReducedFormula(Op):
    """The sum or mean of an elementwise formula: ``reduced(*inputs, reduction="mean")``.

    Its backward is the formula's own fused backward kernel, handed a 0-d gradient that broadcasts: the loss per element
    is never differentiated through memory.

    Args:
        reads: of inputs that the gradients of some inputs alone read, the names of those, as ``Op`` takes them.
    """

    def __init__(
        self, name: str, formula: Elementwise, samples: Any = None, reads: dict[str, tuple[str, ...]] | None = None
    ):
        self.summand = formula
        super().__init__(name, infer=self._infer, define=self._define, rule=self._rule, samples=samples,
                         doc=f"The mean or sum of ``{formula.formula}``.")  # fmt: skip
        self.inputs = formula.inputs
        self.kept_inputs = bits_of(formula.inputs, formula.inputs, reads or {}, ())

    def _infer(self, *inputs: Any, reduction: str) -> Spec:
        first = inputs[0]
        shape, dtype = first.shape, first.dtype
        if dtype.kind == "f" and _alike(inputs, shape, dtype):
            return Spec((), dtype)  # the usual case, without the formula's whole typing
        spec: Spec = self.summand.infer(*inputs)
        return Spec((), spec.dtype)

    def _define(self, F: Any, *inputs: Any, reduction: str) -> Any:
        y = getattr(F, self.summand.name)(*inputs)
        reduce = F.mean if reduction == "mean" else F.sum
        return reduce(y, dim=tuple(range(y.ndim)), keepdim=False)

    def _rule(self, F: Any, g: Any, *inputs: Any, needs: tuple[bool, ...], reduction: str) -> tuple[Any, ...]:
        formula = self.summand
        plan = formula.plan(needs)
        first = inputs[0]
        alike = _alike(inputs, first.shape, first.dtype)
        shape = first.shape if alike else broadcast_shape(self.name, *(x.shape for x in inputs if hasattr(x, "shape")))
        if reduction == "mean":
            g = F.div(g, float(max(1, product(shape))))
        results: Any = ()
        if plan.kernel is not None:
            outputs = (getattr(F, formula.name)(*inputs),) if plan.uses_output else ()
            results = getattr(F, plan.kernel.name)(g, *(inputs[i] for i in plan.uses), *outputs)
            results = results if isinstance(results, tuple) else (results,)
        grads: list[Any] = []
        for x, part in zip(inputs, plan.parts, strict=True):
            if part is None:
                grads.append(None)
                continue
            found = g if part == "g" else results[part]
            if tuple(found.shape) != shape:
                found = F.expand(found, shape=shape)  # a formula that does not read every input
            grads.append(found if alike else fit(F, found, tuple(x.shape), np_dtype(x)))
        return tuple(grads)


def reduced(formula: Elementwise, whole: ReducedFormula, reduction: str, *inputs: Any) -> Tensor:
    """The formula's loss under a reduction. Raises ValueError for an unknown one."""
    if reduction == "none":
        return formula(*inputs)
    check_reduction(whole.name, reduction)
    return whole(*inputs, reduction=reduction)
