"""Adafactor: a second moment that takes a row and a column per matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError
from ..ops.create import zeros
from ..tensor import Tensor
from .optimizer import Group, check_lr, pair_of_settings, setting
from .plan import Bucket, PlannedOptimizer

__all__ = ["Adafactor"]


class Adafactor(PlannedOptimizer):
    """Steps along the gradient divided by the root of its mean square, which is kept as an outer product.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the largest relative step; a number or a tensor of one element. Step t moves by ``min(lr, 1/sqrt(t))``
            times the parameter's own root mean square.
        beta2_decay: step t keeps ``1 - t**beta2_decay`` of the mean square.
        eps: the least second moment (None for the dtype's machine epsilon), and the least size of a parameter.
        d: no update's root mean square is larger than this.
        weight_decay: ``lr`` times this share is subtracted from the parameter.
        foreach: accepted for PyTorch's sake; it changes nothing here.
        maximize: climb instead of descending.
    State: step, row_var and col_var; variance for vectors.
    Raises: DTypeError (in ``step``) for complex parameters.
    Source: Shazeer and Stern 2018.
    """

    hyper_size = 5

    def __init__(
        self, params: Any, lr: Any = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *,
        foreach: bool | None = None, maximize: bool = False,
    ):  # fmt: skip
        check_lr(lr, "Learning rate should be >= 0 but is: {}")
        if not setting("beta2_decay", beta2_decay) <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        eps1, eps2 = pair_of_settings("eps", eps)
        if eps1 is not None and not setting("epsilon1", eps1) >= 0.0:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps1}")
        if not setting("epsilon2", eps2) >= 0.0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps2}")
        if not setting("d", d) >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not setting("weight_decay", weight_decay) >= 0.0:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize,
        })  # fmt: skip

    def _layout(self, group: Group) -> tuple[str, ...]:
        return ("row_var", "col_var", "variance")

    def _layout_of(self, p: Tensor, layout: tuple[str, ...]) -> tuple[str, ...]:
        return layout[:2] if p.ndim > 1 else layout[2:]

    def _state_shape(self, name: str, p: Tensor) -> tuple[int, ...]:
        shape = tuple(p.shape)
        if name == "row_var":
            return (*shape[:-1], 1)
        return (*shape[:-2], 1, shape[-1]) if name == "col_var" else shape

    def _first(self, name: str, group: Group, p: Tensor) -> Tensor:
        return zeros(self._state_shape(name, p), dtype=p.dtype, device=p.device)

    def _check_gradient(self, p: Tensor) -> None:
        if p.dtype.is_complex:
            raise DTypeError("Adafactor does not support complex parameters")
        super()._check_gradient(p)

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        bucket.scalars[0] += 1
        step, lr, (eps1, eps2) = float(bucket.scalars[0]), float(group["lr"]), group["eps"]
        if eps1 is None:
            eps1 = _BFLOAT16_EPS if bucket.dtype.name == "bfloat16" else float(np.finfo(bucket.dtype).eps)
        rho = min(lr, 1 / step**0.5)
        decay = group["weight_decay"]  # where that is 0, an infinite rate is none for the parameters
        kept = 1 - lr * decay if decay else 1.0
        bucket.hyper[:] = rho, step ** group["beta2_decay"], eps1, eps2, kept

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        factored = "row_var" in bucket.states[0]
        rows = bucket.state("row_var" if factored else "variance")
        cols = bucket.state("col_var") if factored else [None] * len(rows)
        door.adafactor_(
            params, grads, rows, cols, hyper=bucket.hyper, clip=float(group["d"]), maximize=group["maximize"]
        )


_BFLOAT16_EPS = 2.0**-7
