"""Adamax."""

from __future__ import annotations

from typing import Any

from .formula import Flags, FormulaOptimizer, Terms, fn
from .optimizer import Group, check_betas, check_lr, check_settings

__all__ = ["Adamax"]


class Adamax(FormulaOptimizer):
    """Steps along the running mean of the gradient, divided by a decaying maximum of its magnitude.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        betas: how much of the mean and of the maximum each step keeps.
        eps: added to the gradient's magnitude.
        weight_decay: this share of the parameter is added to the gradient.
        maximize: climb instead of descending.
        foreach, capturable: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, exp_avg, exp_inf.
    Source: Kingma and Ba 2015, section 7.1.
    """

    numbers = ("rate", "rest1", "beta2", "eps", "weight_decay")

    def __init__(
        self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        check_settings(eps=eps)
        check_betas(betas)
        check_settings(weight_decay=weight_decay)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_inf")

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        beta1, beta2 = group["betas"]
        return lr / (1 - beta1 ** float(scalars[0])), 1 - beta1, beta2, group["eps"], group["weight_decay"]

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        terms.exp_avg = terms.exp_avg + terms.rest1 * (terms.g - terms.exp_avg)
        terms.exp_inf = fn.maximum(terms.beta2 * terms.exp_inf, fn.abs(terms.g) + terms.eps)
        terms.p = terms.p - terms.rate * terms.exp_avg / terms.exp_inf
