"""Rprop: steps that know only the gradient's sign."""

from __future__ import annotations

from typing import Any

from ..ops.create import full_like
from ..tensor import Tensor
from .formula import Flags, FormulaOptimizer, Terms, fn
from .optimizer import Group, check_lr, pair_of_settings, setting

__all__ = ["Rprop"]


class Rprop(FormulaOptimizer):
    """Each element has a step size of its own, which grows while its gradient keeps its sign and shrinks when not.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the first step size; a number or a tensor of one element.
        etas: by how much a step size shrinks and grows.
        step_sizes: the smallest and the largest.
        maximize: climb instead of descending.
        foreach, capturable: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, prev (the last gradient, zero where a step was not taken), step_size.
    Source: Riedmiller and Braun 1993.
    """

    numbers = ("down", "up", "least", "most")

    def __init__(
        self, params: Any, lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        down, up = pair_of_settings("etas", etas)
        for i, size in enumerate(pair_of_settings("step_sizes", step_sizes)):
            setting(f"step_sizes[{i}]", size)
        if not 0.0 < setting("etas[0]", down) < 1.0 < setting("etas[1]", up):
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}; expected 0 < etas[0] < 1 < etas[1].")
        super().__init__(params, {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("prev", "step_size")

    def _first(self, name: str, group: Group, p: Tensor) -> Tensor:
        if name == "prev":
            return super()._first(name, group, p)
        lr = setting("lr", group["lr"])
        return full_like(p, complex(lr, lr) if p.dtype.is_complex else lr)

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        return (*group["etas"], *group["step_sizes"])

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        turn = terms.g * terms.prev
        size = terms.step_size * fn.where(turn > 0, terms.up, fn.where(turn < 0, terms.down, 1.0))
        terms.step_size = fn.minimum(fn.maximum(size, terms.least), terms.most)
        terms.prev = fn.where(turn < 0, 0.0, terms.g)
        way = fn.where(fn.isnan(terms.prev), 0.0, fn.sign(terms.prev))
        terms.p = terms.p - way * terms.step_size
