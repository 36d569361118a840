"""ASGD: gradient descent that averages its way."""

from __future__ import annotations

from typing import Any

from .formula import Flags, FormulaOptimizer, Terms, fn
from .optimizer import Group, check_lr, check_settings, setting

__all__ = ["ASGD"]


class ASGD(FormulaOptimizer):
    """Gradient descent with a falling rate; the state's ``ax`` is the mean of the parameters from step ``t0`` on.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the first rate; a number or a tensor of one element.
        lambd: the parameters' decay, in units of the rate.
        alpha: the power with which the rate falls.
        t0: where averaging begins.
        weight_decay: this share of the parameter is added to the gradient.
        maximize: climb instead of descending.
        foreach, capturable: accepted for PyTorch's sake; they change nothing here.
        differentiable: record the step, so that gradients flow through it.
    State: step, eta, mu, ax.
    Source: Polyak and Juditsky 1992.
    """

    numbers = ("rate", "shrink", "share", "weight_decay")
    scalars = ("step", "eta", "mu")

    def __init__(
        self, params: Any, lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
        weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        check_settings(weight_decay=weight_decay)
        for name, value in (("lambd", lambd), ("alpha", alpha), ("t0", t0)):
            setting(name, value)
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("ax",)

    def _first_scalars(self, group: Group) -> tuple[float, ...]:
        return 0.0, float(group["lr"]), 1.0

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        step, eta, mu = map(float, scalars)
        lr, lambd, alpha = float(lr), float(group["lambd"]), float(group["alpha"])
        slowed = 1 + lambd * lr * step
        if slowed < 0 and not alpha.is_integer():
            raise ValueError(
                f"ASGD: the rate is divided by (1 + lambd * lr * step)**alpha, which is no real number with lambd "
                f"{group['lambd']}, lr {lr}, step {step:g} and alpha {alpha}."
            )
        scalars[1] = lr / slowed**alpha
        scalars[2] = 1 / max(1, step - float(group["t0"]))
        return eta, 1 - lambd * eta, mu, group["weight_decay"]

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """See the class."""
        terms.p = terms.p * terms.shrink - terms.rate * terms.g
        terms.ax = fn.where(terms.share >= 1, terms.p, terms.ax + terms.share * (terms.p - terms.ax))
