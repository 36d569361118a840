"""Elementwise ops: a formula is the whole definition.

From the formula come the forward kernel on every backend, a fused backward kernel for each set of inputs that need a
gradient, derivatives of any order (the backward kernel is a formula again), dtype promotion and broadcasting.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.grad_mode import state as grad_state
from ..autograd.node import FREED, Node, inside, user_line
from ..core import PlanCore, native
from ..dispatch import OPS, Raw, everywhere, local
from ..dtypes import PYTHON_KEYS, get_default_dtype, key_of, numpy_dtype
from ..errors import ArgumentError, DTypeError, ShapeError
from ..expr import Expr, Program, lower, source, substitute, symbol, symbols, vector_jacobian
from ..expr.functions import cast
from ..expr.node import topological
from ..tensor import Tensor, view_of, wrap
from .record import Op, Spec, check_devices, entry_of, on_one_level

__all__ = ["Elementwise", "broadcast_shape", "elementwise", "fit"]

_NUMBERS = frozenset(PYTHON_KEYS)
_NO_ATTRS: dict[str, Any] = {}
_DIVISIONS = frozenset(("floordiv", "fmod", "truncdiv"))
_new = Tensor.__new__
_new_node = Node.__new__


class Plan(PlanCore):
    """How to differentiate with respect to some of the inputs, ``wrt``.

    ``uses``: the inputs to keep, ``uses_all`` whether that is every one; ``uses_output``: whether the (only) output is
    kept instead of what it came from; ``kernel``: the fused backward op, None when every gradient is ``g`` itself;
    ``parts[i]``: where input i's gradient comes from: None (nowhere), ``"g"``, or the kernel's result number.
    """

    __slots__ = ()

    def __init__(
        self,
        kernel: Elementwise | None,
        wrt: tuple[int, ...],
        uses: tuple[int, ...],
        uses_all: bool,
        uses_output: bool,
        parts: tuple[Any, ...],
    ):
        self.kernel = kernel
        self.wrt = wrt
        self.uses = uses
        self.uses_all = uses_all
        self.uses_output = uses_output
        self.parts = parts


class Elementwise(Op):
    """An op given by a scalar formula; call it on Tensors and Python numbers, or on expressions inside a formula.

    Example:
        >>> import tensorgrad as tg
        >>> softsign = tg.elementwise(lambda x: x / (1 + tg.abs(x)), name="my_softsign")
        >>> softsign(tg.tensor([1.0, -3.0])).tolist()
        [0.5, -0.75]
    """

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        results: tuple[Expr, ...],
        *,
        vjp: Callable[..., Any] | None = None,
        samples: Callable[[], Any] | None = None,
        doc: str | None = None,
        derived: bool = False,
    ):
        self.name = name
        self.inputs = inputs
        self.results = results
        self.vjp = vjp
        self.outputs = ("y",) if len(results) == 1 else tuple(f"y{i}" for i in range(len(results)))
        self.nondiff = frozenset[int]()
        self.samples = samples
        self.__doc__ = doc
        self.define = None
        self.derived = derived
        self.own = False  # whether it is this package's
        self.entry = entry_of(True)
        self._plans: dict[int, Plan] = {}  # by the bits of the inputs that get a gradient
        self._programs: dict[tuple[str, ...], Program] = {}  # by the default dtype and the operands' keys
        OPS[name] = self

    @property
    def formula(self) -> str:
        """The formula as readable text."""
        return ", ".join(source(result, self.inputs) for result in self.results)

    @property
    def primitives(self) -> frozenset[str]:
        """The names of the operations that the formula is made of."""
        return frozenset(node.op for node in topological(self.results))

    @functools.cached_property
    def raises(self) -> bool:
        """Whether it divides, which integers can't be by zero."""
        return not self.primitives.isdisjoint(_DIVISIONS)

    def specialize(self, keys: tuple[str, ...]) -> Program:
        """The typed program for operands of these keys (``"float32"``, ``"float32:0"``, ``"py:int"``)."""
        at = (get_default_dtype().name, *keys)
        found = self._programs.get(at)
        if found is None:
            found = lower(self.results, keys, name=self.name)
            if self.own and {name for _, name in found.outputs} == {at[0]}:
                found = self._widened(found, at[0], keys)
            self._programs[at] = found
        return found

    def _widened(self, program: Program, dtype: str, keys: tuple[str, ...]) -> Program:
        """The program for operands of which none is floating point but numbers: these are converted ahead of the
        formula, in which integers would wrap."""
        whole = [i for i, key in enumerate(keys) if key.lstrip("u").startswith("int")]
        if not whole or not all(key.startswith(("bool", "py:")) for i, key in enumerate(keys) if i not in whole):
            return program
        wide = {i: cast(symbol(i), dtype) if i in whole else symbol(i) for i in range(len(keys))}
        return lower(substitute(self.results, wide), keys, name=self.name)

    def floating(self, keys: tuple[str, ...]) -> bool:
        """Whether a result for these operands can have a gradient."""
        return any(name[0] in "fbc" and name != "bool" for _, name in self.specialize(keys).outputs)

    def infer(self, *arrays: Any) -> Any:
        """Spec of each result; raises DTypeError or ShapeError."""
        program = self.specialize(tuple(map(key_of, arrays)))
        shapes = [a.shape for a in arrays if hasattr(a, "shape")]
        shape = shapes[0] if shapes else ()
        for other in shapes:
            if other != shape:
                shape = broadcast_shape(self.name, *shapes)
                break
        outputs = program.outputs
        if len(outputs) == 1:
            return Spec(shape, numpy_dtype(outputs[0][1]))
        return tuple([Spec(shape, numpy_dtype(name)) for _, name in outputs])

    def call(self, *inputs: Any) -> Any:
        track = False
        kind: Any = None
        arrays = []
        for x in inputs:
            if isinstance(x, Tensor):
                array = x._data
                if kind is None:
                    kind = type(array)
                elif type(array) is not kind:
                    met = on_one_level(self.name, inputs, numbers=True)
                    if met is not inputs:
                        return self(*met)
                if x._tracked:
                    track = True
                arrays.append(array)
            elif type(x) in _NUMBERS:
                arrays.append(x)
            else:
                return self.on_others(inputs)
        if kind is None:
            return self.on_others(inputs)
        try:
            out = getattr(local.doors[kind], self.name)(*arrays)
        except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise self.explained(error, inputs, arrays) from None
        if type(out) is tuple:
            results = tuple([wrap(part) for part in out])
            if track and grad_state.recording and self.floating(tuple(map(key_of, arrays))):
                self.record(inputs, arrays, _NO_ATTRS, results, out)
            return results
        result = _new(Tensor)
        result._data = out
        if track and grad_state.recording and out.dtype.kind in "fcV":
            self.record_one(inputs, arrays, result, out)
        if grad_state.inference:
            result._inference = True
        return result

    def into(self, target: Tensor, *inputs: Any) -> Tensor:
        """Run with the result written over ``target``'s memory: what in-place forms are made of."""
        from .inplace import write_into

        return write_into(self, target, inputs, {})

    def on_others(self, inputs: tuple[Any, ...]) -> Any:
        """Expressions are inlined; NumPy numbers and lists become tensors; anything else is refused."""
        if any(isinstance(x, Expr) for x in inputs):
            from ..expr.node import as_expr

            self.check_count(inputs)
            parts = substitute(self.results, dict(enumerate(map(as_expr, inputs))))
            return parts[0] if len(parts) == 1 else tuple(parts)
        from .create import as_operand

        self.check_count(inputs)
        ready = tuple(as_operand(self.name, x) for x in inputs)
        if not any(isinstance(x, Tensor) for x in ready):
            raise TypeError(f"{self.name}: at least one argument must be a Tensor, got {', '.join(map(repr, inputs))}")
        return self(*ready)

    def check_count(self, inputs: tuple[Any, ...]) -> None:
        if len(inputs) != len(self.inputs):
            raise TypeError(
                f"{self.name} takes {len(self.inputs)} arguments ({', '.join(self.inputs)}), got {len(inputs)}"
            )

    def explained(self, error: Exception, inputs: tuple[Any, ...], arrays: list[Any]) -> Exception:
        """The error in the words of the op, where it was the inputs' fault."""
        self.check_count(inputs)
        check_devices(self.name, inputs)
        self.infer(*arrays)
        if isinstance(error, OverflowError):
            if "int64" in str(error):
                return DTypeError(
                    f"{self.name}: {error}, in which integer tensors compute. Convert the tensor: x.double()."
                )
            return ArgumentError(f"{self.name}: a number is beyond the range of float64; {error}.")
        return error

    def record(
        self, inputs: tuple[Any, ...], arrays: list[Any], attrs: dict[str, Any], results: tuple[Any, ...], out: Any
    ) -> Node:
        node = self.record_one(inputs, arrays, results[0], out[0])
        if len(results) > 1:
            node.count = len(results)
            for i, result in enumerate(results):
                result._node, result._tracked, result._slot = node, True, i
        return node

    def record_one(self, inputs: tuple[Any, ...], arrays: list[Any], result: Tensor, out: Any) -> Node:
        """Write the call on the tape. Every small op passes here, so its loops are unrolled where that is cheaper."""
        node = _new_node(Node)
        node.op = self
        edges: list[Any] = []
        node.edges = edges
        needs = 0  # bit i: input i gets a gradient
        bit = 1
        for x in inputs:
            if isinstance(x, Tensor) and x._tracked:
                if x._base is None and not x._slot:
                    made = x._node
                    edges.append(x if made is None else made)
                else:
                    node.link(edges, x, len(inputs))
                needs |= bit
            else:
                edges.append(None)
            bit += bit
        plan = self._plans.get(needs)
        if plan is None:
            plan = self.plan(node.needs)
        node.plan = plan
        if plan.uses or plan.uses_output:
            if plan.uses:
                node.saved = tuple(arrays) if plan.uses_all else tuple([arrays[i] for i in plan.uses])
                for i in plan.uses:
                    x = inputs[i]
                    if isinstance(x, Tensor):
                        node.watch(x)
            if plan.uses_output:
                node.saved_outputs = (out,)
                node.watch(result)
            node.line = user_line(self.entry)
        # what must be undone in backward: broadcasting, and a cast to the common dtype
        shape, dtype = out.shape, out.dtype
        for i in plan.wrt:
            array = arrays[i]
            if array.shape != shape or (array.dtype is not dtype and array.dtype != dtype):
                node.extra = tuple([(arrays[k].shape, arrays[k].dtype) for k in plan.wrt])
                break
        result._node = node
        result._tracked = True
        if grad_state.extras:
            node.finish()
        return node

    @property
    def kept_outputs(self) -> tuple[tuple[int, str], ...]:  # type: ignore[override]
        return ((0, "y"),)

    def saved_positions(self, node: Node) -> tuple[int, ...]:
        uses: tuple[int, ...] = node.plan.uses
        return uses

    def differentiate(self, F: Any, node: Node, g: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Any:
        plan = node.plan
        if grad_state.lead is not None:
            plan, inputs, outputs = self.asked_plan(node, inputs, outputs)
        results: Any = ()
        if plan.kernel is not None:
            seeds = (g,) if node.count == 1 else tuple([0.0 if part is None else part for part in g])
            results = getattr(F, plan.kernel.name)(*seeds, *inputs, *outputs)
            if type(results) is not tuple:
                results = (results,)
        grads: list[Any] = []
        for part in plan.parts:
            grads.append(part if part is None else g if part == "g" else results[part])
        if node.extra is not None:
            for i, want in zip(node.plan.wrt, node.extra, strict=True):
                if grads[i] is not None:
                    grads[i] = fit(F, grads[i], *want)
        return grads

    def asked_plan(self, node: Node, inputs: Any, outputs: Any) -> tuple[Plan, Any, Any]:
        """The plan of what this pass asks for alone and what it reads, if that was saved; else the node's own."""
        whole: Plan = node.plan
        plan = self.plan(node.asked)
        if plan.uses_output > whole.uses_output or not set(plan.uses) <= set(whole.uses):
            return whole, inputs, outputs
        return plan, tuple([inputs[whole.uses.index(i)] for i in plan.uses]), outputs if plan.uses_output else ()

    def keeps_input(self, position: int, needs: tuple[bool, ...]) -> bool:
        return position in self.plan(needs).uses

    def plan(self, needs: tuple[bool, ...]) -> Plan:
        """The fused backward op for these inputs, made once."""
        mask = sum(1 << i for i, needed in enumerate(needs) if needed)
        found = self._plans.get(mask)
        if found is None:
            found = self._plans[mask] = self._make_plan(tuple(i for i, needed in enumerate(needs) if needed))
        return found

    def _make_plan(self, wrt: tuple[int, ...]) -> Plan:
        count, outs = len(self.inputs), len(self.results)
        g_at, y_at = count, count + outs  # symbols: inputs, then the seeds, then the output
        seeds = [symbol(g_at + k) for k in range(outs)]
        if self.vjp is not None:
            given = self.vjp(seeds[0], symbol(y_at), *map(symbol, range(count)))
            given = given if isinstance(given, tuple) else (given,)
            grads: list[Expr | None] = [given[i] for i in wrt]
        else:
            grads = vector_jacobian(self.results, seeds, wrt)
            grads = self._through_output(grads, y_at)
        distinct: list[Expr] = []
        parts: list[Any] = [None] * count
        for i, grad in zip(wrt, grads, strict=True):
            if grad is None:
                continue
            if outs == 1 and grad is seeds[0]:
                parts[i] = "g"
                continue
            if grad not in distinct:
                distinct.append(grad)
            parts[i] = distinct.index(grad)
        used = symbols(distinct)
        uses = tuple(i for i in range(count) if i in used)
        uses_output = y_at in used
        kernel = None
        if distinct:
            reads = [*range(g_at, g_at + outs), *uses, *([y_at] if uses_output else [])]
            moved = substitute(distinct, {old: symbol(new) for new, old in enumerate(reads)} | _absent(used, reads))
            names = (*(f"g{k}" for k in range(outs)), *(self.inputs[i] for i in uses), *(["y"] if uses_output else []))
            mask = "".join(str(i) for i in wrt)
            kernel = Elementwise(f"{self.name}_backward{mask}", names, tuple(moved), derived=True)
        return Plan(kernel, wrt, uses, len(uses) == count, uses_output, tuple(parts))

    def _through_output(self, grads: list[Expr | None], y_at: int) -> list[Expr | None]:
        """Prefer the saved output (exp, tanh, sqrt, ...) where it replaces every input: one array kept, and nothing
        computed twice."""
        if len(self.results) != 1:
            return grads
        present = [grad for grad in grads if grad is not None]
        through = _replace_node(present, self.results[0], symbol(y_at))
        inputs = set(range(len(self.inputs)))
        if present and symbols(present) & inputs and not symbols(through) & inputs:
            back = iter(through)
            return [None if grad is None else next(back) for grad in grads]
        return grads


def _absent(used: set[int], reads: list[int]) -> dict[int, Expr]:
    return {old: symbol(old) for old in used if old not in reads}


def _replace_node(roots: list[Expr], target: Expr, by: Expr) -> list[Expr]:
    from ..expr.node import rebuild, with_operands

    if target.op in ("load", "const"):
        return roots

    def replace(node: Expr, args: tuple[Expr, ...]) -> Expr:
        if node is target:
            return by
        return node if not args else with_operands(node, args)

    return rebuild(roots, replace)


def fit(F: Any, g: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Undo broadcasting and promotion: ``g`` summed to ``shape`` and cast to ``dtype``."""
    if tuple(g.shape) != shape:
        g = F.sum_to(g, shape=shape)
    have = g._data.dtype if isinstance(g, Tensor) else g.dtype
    return g if have == dtype else F.cast(g, dtype=dtype)


def broadcast_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that all broadcast to. Raises ShapeError, naming the op and the axis."""
    if len(shapes) == 2 and shapes[0] == shapes[1]:
        return tuple(shapes[0])
    result: list[int] = []
    for shape in shapes:
        if len(shape) > len(result):
            result[:0] = shape[: len(shape) - len(result)]
        start = len(result) - len(shape)
        for axis, size in enumerate(shape, start):
            if result[axis] == 1:
                result[axis] = size
            elif size not in (1, result[axis]):
                listed = " and ".join(str(tuple(s)) for s in shapes)
                raise ShapeError(
                    f"{name}: shapes {listed} do not broadcast: sizes {result[axis]} and {size} meet at axis "
                    f"{axis - len(result)}; they must be equal, or one of them 1."
                )
    return tuple(result)


def elementwise(
    formula: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    vjp: Callable[..., Any] | None = None,
    samples: Callable[[], Any] | None = None,
    doc: str | None = None,
) -> Any:
    """Make an op of a scalar formula: fused forward and backward kernels on every backend, derivatives of any order.

    Args:
        formula: a function of one expression per input, returning one (or a tuple of) expressions; it may use
            arithmetic, comparisons, Python numbers and any elementwise function of tensorgrad.
        name: the op's name; the function's own by default.
        vjp: ``vjp(g, y, *inputs)`` returning what each input receives when the output ``y`` receives ``g``, in the same
            language, where the symbolic derivative is ill-conditioned or would keep more alive than it must.
    Returns: an ``Elementwise`` op; usable as a decorator.
    Raises: TypeError if the formula can't be traced (it used ``if`` on an element, say); ValueError if an op of that
        name exists.
    Example:
        >>> import tensorgrad as tg
        >>> @tg.elementwise
        ... def cubic(x, a):
        ...     return a * x**3
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
        >>> cubic(x, 2.0).sum().backward()
        >>> x.grad.tolist()
        [6.0, 24.0]
    """
    if formula is None:
        return lambda given: elementwise(given, name=name, vjp=vjp, samples=samples, doc=doc)
    chosen = name or formula.__name__
    if chosen == "<lambda>":
        raise ValueError("elementwise: a lambda has no name; pass name='...'.")
    if chosen in OPS:
        raise ValueError(f"elementwise: an op named {chosen!r} exists already; pass another name='...'.")
    if not hasattr(formula, "__code__"):
        raise TypeError(f"elementwise: the formula must be a Python function, got {formula!r}")
    inputs = formula.__code__.co_varnames[: formula.__code__.co_argcount]
    from ..expr.node import as_expr

    results = formula(*map(symbol, range(len(inputs))))
    results = results if isinstance(results, tuple) else (results,)
    made = Elementwise(
        chosen, inputs, tuple(map(as_expr, results)), vjp=vjp, samples=samples, doc=doc or formula.__doc__
    )
    made.own = formula.__module__.partition(".")[0] == __name__.partition(".")[0]
    made.entry = entry_of(inside[formula.__code__.co_filename])
    return made


def dtype_of_result(op: Elementwise, *arrays: Any) -> np.dtype[Any]:
    """The dtype that an op gives for these operands. Raises DTypeError where it is not defined."""
    program = op.specialize(tuple(map(key_of, arrays)))
    if len(program.outputs) != 1:
        raise DTypeError(f"{op.name} has {len(program.outputs)} results")
    return numpy_dtype(program.outputs[0][1])


if native is None:
    Op.__call__, Elementwise.__call__ = Op.call, Elementwise.call  # type: ignore[method-assign, assignment]
else:
    native.register(
        tensor=Tensor, node=Node, spec=Spec, everywhere=everywhere, raw=Raw, inside=inside, freed=FREED, fit=fit,
        view_of=view_of, op_call=Op.call, op_record=Op.record, op_differentiate=Op.differentiate,
        formula_call=Elementwise.call, formula_record=Elementwise.record_one,
        formula_differentiate=Elementwise.differentiate,
    )  # fmt: skip
