"""Adagrad."""

from __future__ import annotations

from typing import Any

from ..ops.create import full_like
from ..tensor import Tensor
from .formula import Flags, FormulaOptimizer, Terms, fn
from .fused import check_fused
from .optimizer import Group, check_lr, check_settings

__all__ = ["Adagrad"]


class Adagrad(FormulaOptimizer):
    """Steps along the gradient divided by the root of the sum of its squares so far.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        lr_decay: the rate of step t is ``lr / (1 + (t - 1) lr_decay)``.
        weight_decay: this share of the parameter is added to the gradient.
        initial_accumulator_value: where the sum starts.
        eps: added to the root.
        maximize: climb instead of descending.
        foreach, fused: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, sum; from the beginning.
    Source: Duchi, Hazan, Singer 2011.
    """

    numbers = ("rate", "eps", "weight_decay")

    def __init__(
        self, params: Any, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ):  # fmt: skip
        check_lr(lr)
        check_settings(
            lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value, eps=eps
        )
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused,
        })  # fmt: skip
        check_fused(fused, foreach, differentiable)
        for group in self.param_groups:
            for params_of_one_kind in {id(p): [p] for p in group["params"]}.values():
                self._make_bucket(group, params_of_one_kind, ("sum",), (0.0,), True)

    def share_memory(self) -> None:
        """Move the sums to memory that worker processes share."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("sum",)

    def _first(self, name: str, group: Group, p: Tensor) -> Tensor:
        start = self.defaults["initial_accumulator_value"]
        return full_like(p, complex(start, start) if p.dtype.is_complex else start)

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        return lr / (1 + (float(scalars[0]) - 1) * group["lr_decay"]), group["eps"], group["weight_decay"]

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        terms.sum = terms.sum + terms.g * terms.g
        terms.p = terms.p - terms.rate * terms.g / (fn.sqrt(terms.sum) + terms.eps)
