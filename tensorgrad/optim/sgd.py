"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core import native
from ..tensor import Tensor
from .fused import check_fused
from .optimizer import Group, check_lr, check_settings, clips, setting
from .plan import Bucket, PlannedOptimizer, write_numbers

__all__ = ["SGD"]


class SGD(PlannedOptimizer):
    """``d = g + weight_decay p``; ``b = momentum b + (1 - dampening) d``; ``p -= lr b``.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        nesterov: step along ``d + momentum b`` instead of ``b``.
        maximize: climb instead of descending.
        foreach, fused: accepted for PyTorch's sake: every step is one fused call for all parameters already.
        differentiable: record the step, so that gradients flow through it.
        max_grad_norm: clip: use the gradients as if ``nn.utils.clip_grad_norm_`` had scaled those of all parameters to
            this total norm. They are scaled as the step reads them, and stay what they are; not in PyTorch.
    State: momentum_buffer, where momentum is not zero.
    Example:
        >>> import tensorgrad as tg
        >>> x = tg.tensor([1.0], requires_grad=True)
        >>> optimizer = tg.optim.SGD([x], lr=0.5)
        >>> (x * x).sum().backward()
        >>> optimizer.step()
        >>> x.tolist()
        [0.0]
    Source: Polyak 1964; Nesterov 1983; Sutskever, Martens, Dahl, Hinton 2013.
    """

    op = "sgd_"
    hyper_size = 5
    scalars = ()

    def __init__(
        self, params: Any, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
        fused: bool | None = None, max_grad_norm: float | None = None,
    ):  # fmt: skip
        check_lr(lr)
        check_settings(momentum=momentum, weight_decay=weight_decay)
        setting("dampening", dampening)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable,
            "fused": fused, **clips(max_grad_norm),
        })  # fmt: skip
        check_fused(fused, foreach, differentiable)

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        rate, momentum, dampening = float(group["lr"]), group["momentum"], group["dampening"]
        write_numbers(bucket.hyper, rate, momentum, dampening, group["weight_decay"], bucket.fresh)
        bucket.fresh = False

    def _refreshing(self, group: Group, bucket: Bucket) -> Callable[[], None]:
        if native is None or type(self)._refresh is not SGD._refresh:
            return super()._refreshing(group, bucket)
        names = ("lr", "momentum", "dampening", "weight_decay")
        refreshing: Callable[[], None] = native.Numbers(bucket.hyper, group, names, bucket.fresh, "SGD._refresh")
        return refreshing

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        bufs = bucket.state("momentum_buffer") if group["momentum"] else []
        door.sgd_(params, grads, bufs, hyper=bucket.hyper, nesterov=group["nesterov"], maximize=group["maximize"],
                  **self._keywords(group, bucket))  # fmt: skip

    def _differentiable(
        self, group: Group, p: Tensor, g: Tensor, states: list[Tensor], scalars: Any, fresh: bool
    ) -> tuple[Tensor, ...]:
        momentum, decay, lr = group["momentum"], group["weight_decay"], group["lr"]
        d = -g if group["maximize"] else g
        if decay:
            d = d + decay * p
        if not momentum:
            return (p - lr * d,)
        b = d if fresh else momentum * states[0] + (1 - group["dampening"]) * d
        return p - lr * (d + momentum * b if group["nesterov"] else b), b
