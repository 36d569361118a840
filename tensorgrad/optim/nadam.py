"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from typing import Any

from .formula import Flags, FormulaOptimizer, Terms, fn
from .optimizer import Group, check_betas, check_lr, check_settings

__all__ = ["NAdam"]


class NAdam(FormulaOptimizer):
    """Adam that looks one step of the momentum ahead.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        betas, eps: as in ``Adam``.
        weight_decay: this share of the parameter is added to the gradient (``lr`` times it subtracted from the
            parameter, if ``decoupled_weight_decay``).
        momentum_decay: how fast the momentum of step t rises to ``betas[0]``.
        maximize: climb instead of descending.
        foreach, capturable: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, mu_product, exp_avg, exp_avg_sq.
    Source: Dozat 2016.
    """

    numbers = ("along_g", "along_mean", "rest1", "beta2", "rest2", "square_rate", "eps", "weight_decay", "shrink")
    scalars = ("step", "mu_product")

    def __init__(
        self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        check_settings(eps=eps)
        check_betas(betas)
        check_settings(weight_decay=weight_decay, momentum_decay=momentum_decay)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _first_scalars(self, group: Group) -> tuple[float, ...]:
        return 0.0, 1.0

    def _flags(self, group: Group) -> Flags:
        decoupled = bool(group["decoupled_weight_decay"])
        return {"decoupled": decoupled, "decay": group["weight_decay"] != 0 and not decoupled}

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        step, decay = float(scalars[0]), group["weight_decay"]
        beta1, beta2 = group["betas"]
        now = beta1 * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))
        then = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * group["momentum_decay"]))
        scalars[1] *= now
        product = float(scalars[1])
        along_g, along_mean = lr * (1.0 - now) / (1.0 - product), lr * then / (1.0 - product * then)
        square_rate = 1 / (1 - beta2**step)
        return along_g, along_mean, 1 - beta1, beta2, 1 - beta2, square_rate, group["eps"], decay, 1 - lr * decay

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        g = terms.g
        if flags["decoupled"]:
            terms.p = terms.p * terms.shrink
        terms.exp_avg = terms.exp_avg + terms.rest1 * (g - terms.exp_avg)
        terms.exp_avg_sq = terms.beta2 * terms.exp_avg_sq + terms.rest2 * g * g
        root = fn.sqrt(terms.exp_avg_sq * terms.square_rate) + terms.eps
        terms.p = terms.p - (terms.along_g * g + terms.along_mean * terms.exp_avg) / root
