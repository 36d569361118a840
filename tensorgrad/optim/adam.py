"""Adam, and AdamW with its decoupled weight decay."""

from __future__ import annotations

from typing import Any

from .optimizer import Bucket, Group, Optimizer, check_rates

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Steps along the running mean of the gradient, divided by the root of the running mean of its square.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        betas: how much of the two means each step keeps.
        eps: added to the root.
        weight_decay: this share of the parameter is added to the gradient (``lr`` times it subtracted from the
            parameter, if ``decoupled_weight_decay``).
        amsgrad: divide by the largest mean square seen.
        maximize: climb instead of descending.
        foreach, capturable, fused: accepted for PyTorch's sake: every step is one fused call that can be captured.
        differentiable: only False: a step is not recorded.
    State: step, exp_avg, exp_avg_sq, and max_exp_avg_sq with amsgrad.
    Source: Kingma and Ba 2015; amsgrad: Reddi, Kale, Kumar 2018.
    """

    hyper_size = 6
    step_at = 5

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):  # fmt: skip
        if differentiable:
            name = type(self).__name__
            raise ValueError(f"{name}: differentiable=True is not supported; write the update with tensor operations.")
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _check_group(self, group: Group) -> None:
        check_rates(type(self).__name__, group, lr=0, eps=0, weight_decay=0)
        for i, beta in enumerate(group["betas"]):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}; it must be in [0, 1).")

    def _layout(self, group: Group) -> tuple[str, ...]:
        return _WITH_MAX if group["amsgrad"] else _MOMENTS

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        hyper = bucket.hyper
        hyper[0] = float(group["lr"])
        hyper[1], hyper[2] = group["betas"]
        hyper[3] = group["eps"]
        hyper[4] = group["weight_decay"]
        hyper[5] += 1

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        amsgrad = group["amsgrad"]
        door.adam_(
            params, grads, bucket.state("exp_avg"), bucket.state("exp_avg_sq"),
            bucket.state("max_exp_avg_sq") if amsgrad else [], hyper=bucket.hyper,
            decoupled=group["decoupled_weight_decay"], maximize=group["maximize"], amsgrad=amsgrad,
        )  # fmt: skip


class AdamW(Adam):
    """Adam whose weight decay acts on the parameters directly: ``p *= 1 - lr weight_decay``. See ``Adam``.

    Source: Loshchilov and Hutter 2019.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
    ):  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip


_MOMENTS = ("exp_avg", "exp_avg_sq")
_WITH_MAX = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
