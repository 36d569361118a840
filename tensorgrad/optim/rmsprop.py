"""RMSprop."""

from __future__ import annotations

from typing import Any

from .formula import Flags, FormulaOptimizer, Terms, fn
from .optimizer import Group, check_lr, check_settings

__all__ = ["RMSprop"]


class RMSprop(FormulaOptimizer):
    """Steps along the gradient divided by the root of the running mean of its square.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        alpha: how much of the mean each step keeps.
        eps: added to the root.
        weight_decay: this share of the parameter is added to the gradient.
        momentum: how much of the last step each step keeps.
        centered: divide by the standard deviation instead.
        maximize: climb instead of descending.
        foreach, capturable: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, square_avg, momentum_buffer with momentum, grad_avg if centered.
    Source: Hinton, lecture notes of 2012; centered: Graves 2013.
    """

    numbers = ("lr", "alpha", "rest", "eps", "weight_decay", "momentum")

    def __init__(
        self, params: Any, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
        momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        check_settings(eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        momentum = ("momentum_buffer",) if group["momentum"] > 0 else ()
        return ("square_avg", *momentum, *(("grad_avg",) if group["centered"] else ()))

    def _flags(self, group: Group) -> Flags:
        return {"centered": bool(group["centered"]), "momentum": group["momentum"] > 0}

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        alpha = group["alpha"]
        return lr, alpha, 1 - alpha, group["eps"], group["weight_decay"], group["momentum"]

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        g = terms.g
        square = terms.square_avg = terms.alpha * terms.square_avg + terms.rest * g * g
        if flags["centered"]:
            terms.grad_avg = terms.grad_avg + terms.rest * (g - terms.grad_avg)
            square = square - terms.grad_avg * terms.grad_avg
        step = g / (fn.sqrt(square) + terms.eps)
        if flags["momentum"]:
            step = terms.momentum_buffer = terms.momentum * terms.momentum_buffer + step
        terms.p = terms.p - terms.lr * step
