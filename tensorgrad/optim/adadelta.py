"""Adadelta."""

from __future__ import annotations

from typing import Any

from .formula import Flags, FormulaOptimizer, Terms, fn
from .optimizer import Group, check_lr, check_settings, setting

__all__ = ["Adadelta"]


class Adadelta(FormulaOptimizer):
    """Steps along the gradient, scaled by the root mean squares of the steps and of the gradients so far.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: multiplies the step; a number or a tensor of one element.
        rho: how much of the two means each step keeps.
        eps: added under both roots.
        weight_decay: this share of the parameter is added to the gradient.
        maximize: climb instead of descending.
        foreach, capturable: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, square_avg, acc_delta.
    Source: Zeiler 2012.
    """

    numbers = ("lr", "rho", "rest", "eps", "weight_decay")

    def __init__(
        self, params: Any, lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0,
        foreach: bool | None = None, *, capturable: bool = False, maximize: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        if not 0.0 <= setting("rho", rho) <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}; it must be in [0, 1].")
        check_settings(eps=eps, weight_decay=weight_decay)
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("square_avg", "acc_delta")

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        return lr, group["rho"], 1 - group["rho"], group["eps"], group["weight_decay"]

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        g = terms.g
        terms.square_avg = terms.rho * terms.square_avg + terms.rest * g * g
        step = fn.sqrt(terms.acc_delta + terms.eps) / fn.sqrt(terms.square_avg + terms.eps) * g
        terms.acc_delta = terms.rho * terms.acc_delta + terms.rest * step * step
        terms.p = terms.p - terms.lr * step
