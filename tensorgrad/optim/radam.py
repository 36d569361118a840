"""RAdam: Adam with a rectified variance."""

from __future__ import annotations

from typing import Any

from .formula import Flags, FormulaOptimizer, Terms, fn
from .optimizer import Group, check_betas, check_lr, check_settings

__all__ = ["RAdam"]


class RAdam(FormulaOptimizer):
    """Adam that divides by the mean square only once enough steps have made it reliable.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        betas, eps: as in ``Adam``.
        weight_decay: this share of the parameter is added to the gradient (``lr`` times it subtracted from the
            parameter, if ``decoupled_weight_decay``).
        maximize: climb instead of descending.
        foreach, capturable: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, exp_avg, exp_avg_sq.
    Source: Liu and others 2020.
    """

    numbers = ("rate", "rectified", "rest1", "beta2", "rest2", "eps", "weight_decay", "shrink")

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        check_settings(eps=eps)
        check_betas(betas)
        check_settings(weight_decay=weight_decay)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _flags(self, group: Group) -> Flags:
        decoupled = bool(group["decoupled_weight_decay"])
        return {"decoupled": decoupled, "decay": group["weight_decay"] != 0 and not decoupled}

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        step, decay = float(scalars[0]), group["weight_decay"]
        beta1, beta2 = group["betas"]
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * beta2**step / (1 - beta2**step)
        rectified = 0.0  # not to be trusted yet
        if length > 5.0:
            share = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
            rectified = (share * (1 - beta2**step)) ** 0.5
        rate = lr / (1 - beta1**step)
        return rate, rectified, 1 - beta1, beta2, 1 - beta2, group["eps"], decay, 1 - lr * decay

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        g = terms.g
        if flags["decoupled"]:
            terms.p = terms.p * terms.shrink
        terms.exp_avg = terms.exp_avg + terms.rest1 * (g - terms.exp_avg)
        terms.exp_avg_sq = terms.beta2 * terms.exp_avg_sq + terms.rest2 * g * g
        scale = fn.where(terms.rectified > 0, terms.rectified / (fn.sqrt(terms.exp_avg_sq) + terms.eps), 1.0)
        terms.p = terms.p - terms.rate * terms.exp_avg * scale
