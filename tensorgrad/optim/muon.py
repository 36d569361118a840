"""Muon: momentum whose matrix is made orthogonal."""

from __future__ import annotations

import math
from typing import Any

from ..errors import DTypeError
from ..ops.checks import integer
from ..tensor import Tensor
from .optimizer import Group, check_lr, setting
from .plan import Bucket, PlannedOptimizer

__all__ = ["Muon"]

_ADJUST = ("original", "match_rms_adamw", "spectral_unclamped")


class Muon(PlannedOptimizer):
    """Steps along the nearest (semi-)orthogonal matrix to the momentum. For the matrices of hidden layers; give
    vectors, embeddings and the last layer to another optimizer.

    Args:
        params: matrices, (name, matrix) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        weight_decay: ``lr`` times this share is subtracted from the parameter.
        momentum: how much of the running mean of the gradient each step keeps.
        nesterov: step along the mean of the gradient and the momentum.
        ns_coefficients, ns_steps: of the Newton-Schulz iteration, which is run in bfloat16.
        eps: the least norm that the momentum is divided by.
        adjust_lr_fn: how the rate depends on the matrix's shape (A, B): "original" (the default) multiplies it by
            ``sqrt(max(1, A/B))``, "match_rms_adamw" by ``0.2 sqrt(max(A, B))``, "spectral_unclamped" by ``sqrt(A/B)``.
    State: momentum_buffer.
    Raises: ValueError for parameters that are not matrices; DTypeError (in ``step``) for complex ones.
    Source: Jordan 2024; Liu and others 2025; Bernstein 2025.
    """

    scalars = ()
    live = PlannedOptimizer.live - {"eps"}  # which the call is given, not its array of numbers

    def __init__(
        self, params: Any, lr: Any = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95, nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315), eps: float = 1e-7,
        ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ):  # fmt: skip
        check_lr(lr, "Learning rate should be >= 0 but is: {}")
        if not setting("momentum", momentum) >= 0.0:
            raise ValueError(f"momentum should be >= 0 but is: {momentum}")
        if not setting("weight_decay", weight_decay) >= 0.0:
            raise ValueError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn is not None and adjust_lr_fn not in _ADJUST:
            raise ValueError(
                f"Adjust learning rate function {adjust_lr_fn} is not supported; it must be one of {_ADJUST}."
            )
        setting("eps", eps)
        if integer("Muon", "ns_steps", ns_steps) >= 100:
            raise ValueError("Number of steps must be less than 100 for computational efficiency")
        if not isinstance(ns_coefficients, (tuple, list)) or len(ns_coefficients) != 3:
            raise ValueError(f"Coefficients must be a tuple of exactly 3 values, got {ns_coefficients!r}")
        for i, coefficient in enumerate(ns_coefficients):
            setting(f"ns_coefficients[{i}]", coefficient)
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
        })  # fmt: skip

    def add_param_group(self, param_group: Group) -> None:
        """See ``Optimizer``. Raises ValueError for parameters that are not matrices."""
        super().add_param_group(param_group)
        for p in param_group["params"]:
            if p.ndim != 2:
                self.param_groups.pop()
                raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {p.shape}")

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def _hyper_size(self, count: int) -> int:
        return 2 + count

    def _check_gradient(self, p: Tensor) -> None:
        if p.dtype.is_complex:
            raise DTypeError("Muon does not support complex parameters")
        super()._check_gradient(p)

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        lr = float(group["lr"])
        bucket.hyper[0], bucket.hyper[1] = group["momentum"], 1 - lr * group["weight_decay"]
        bucket.hyper[2:] = [lr * _adjusted(group["adjust_lr_fn"], *p.shape) for p in bucket.params]

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        door.muon_(
            params, grads, bucket.state("momentum_buffer"), hyper=bucket.hyper, nesterov=group["nesterov"],
            coefficients=tuple(group["ns_coefficients"]), steps=group["ns_steps"], eps=group["eps"],
        )  # fmt: skip


def _adjusted(how: str | None, rows: int, columns: int) -> float:
    if how == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    ratio = rows / columns
    return math.sqrt(ratio if how == "spectral_unclamped" else max(1.0, ratio))
