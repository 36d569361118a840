"""Distances between the rows of two matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..ops.checks import reshaped, swapped
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..ops.vector_norm import order_of
from ..tensor import Tensor
from .algebra import batch_of, column

__all__ = ["cdist"]

_ROOM = 1 << 16  # elements of the differences that a kernel holds at a time: they stay in the cache
_STRETCHES = 32  # the most of these that the definition has calls of their own for
_BY_PRODUCT = 25  # more rows than this, on either side, and the Euclidean distance is made of a matrix product


def _chunks(a: Any, b: Any) -> Iterator[slice]:
    """Stretches of the rows of ``a``; they depend on shapes alone."""
    each = max(math.prod(b.shape), 1)
    step = max(_ROOM // each, 1)
    for start in range(0, a.shape[-2], step):
        yield slice(start, min(start + step, a.shape[-2]))


def _kernel(xp: Any, a: Any, b: Any, *, p: float, product: bool) -> Any:
    if a.shape[-1] == 0:
        return xp.zeros((*a.shape[:-1], b.shape[-2]), dtype=a.dtype)
    if product:
        squares = (a * a).sum(axis=-1)[..., :, None] + (b * b).sum(axis=-1)[..., None, :]
        squares = squares - 2 * xp.matmul(a, b.swapaxes(-1, -2))
        return xp.sqrt(xp.maximum(squares, xp.zeros_like(squares)))
    y = xp.empty((*a.shape[:-1], b.shape[-2]), dtype=a.dtype)
    for rows in _chunks(a, b):
        size = abs(a[..., rows, None, :] - b[..., None, :, :])
        if p == 0:
            part = (size != 0).sum(axis=-1)
        elif p == 1:
            part = size.sum(axis=-1)
        elif p == 2:
            part = xp.sqrt((size * size).sum(axis=-1))
        elif math.isinf(p):
            part = size.max(axis=-1)
        else:
            part = (size**p).sum(axis=-1) ** (1 / p)
        y[..., rows, :] = part.astype(a.dtype, copy=False)
    return y


def in_few_stretches(a: Any, b: Any) -> bool:
    """Whether the definition takes few enough calls, one behind the other, for what the kernel over NumPy holds."""
    step = max(_ROOM // max(math.prod(b.shape), 1), 1)
    return math.prod(b.shape) <= _ROOM and a.shape[-2] <= _STRETCHES * step


def _by_stretches(F: Any, a: Any, b: Any, make: Callable[[slice | None], Any]) -> Any:
    """``make`` of the rows of ``a``, by stretches of them where the differences are many."""
    stretches = list(_chunks(a, b))
    if len(stretches) < 2 or not in_few_stretches(a, b):
        return make(None)
    return F.cat(*[make(rows) for rows in stretches], dim=len(a.shape) - 2)


def _rows(F: Any, x: Any, rows: slice | None) -> Any:
    if rows is None:
        return x
    return F.slice(x, key=(*(slice(None),) * (len(x.shape) - 2), slice(rows.start, rows.stop, 1), slice(None)))


def _define(F: Any, a: Any, b: Any, *, p: float, product: bool) -> Any:
    last = (len(a.shape) - 1,)
    if product:
        squares = F.sum(F.mul(a, a), dim=last, keepdim=True), F.sum(F.mul(b, b), dim=last, keepdim=True)
        mixed = F.mul(F.matmul(a, swapped(F, b)), 2.0)
        return F.sqrt(F.maximum(F.sub(F.add(squares[0], swapped(F, squares[1])), mixed), 0.0))
    if a.shape[-1] == 0:
        return F.zeros_as(a, shape=(*a.shape[:-1], b.shape[-2]))
    return _by_stretches(F, a, b, lambda rows: _of_rows(F, _rows(F, a, rows), b, p))


def _of_rows(F: Any, a: Any, b: Any, p: float) -> Any:
    size, over = F.abs(F.sub(_spread(F, a, 2), _spread(F, b, 3))), (len(a.shape),)
    if math.isinf(p):
        return F.amax(size, dim=over, keepdim=False)
    if p == 0:
        return F.sum(F.where(F.ne(size, 0), F.add(F.mul(size, 0.0), 1.0), 0.0), dim=over, keepdim=False)
    if p == 1:
        return F.sum(size, dim=over, keepdim=False)
    if p == 2:
        return F.sqrt(F.sum(F.mul(size, size), dim=over, keepdim=False))
    return F.pow(F.sum(F.pow(size, p), dim=over, keepdim=False), 1 / p)


def _rule(F: Any, g: Any, a: Any, b: Any, *, y: Any, needs: Any, p: float, product: bool) -> tuple[Any, ...]:
    how = {"p": p, "product": product}
    to_a = F.cdist_backward(g, a, b, y, **how) if needs[0] else None
    to_b = F.cdist_backward(swapped(F, g), b, a, swapped(F, y), **how) if needs[1] else None
    return to_a, to_b


def _infer(a: Any, b: Any, **attrs: Any) -> Spec:
    return Spec((*a.shape[:-1], b.shape[-2]), a.dtype)


_POWERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)


def _samples() -> list[Sample]:
    pair = Arg((2, 3, 2), kind="s"), Arg((2, 4, 2), 2.5, 4.0, kind="s")
    samples = [Sample(pair, {"p": p, "product": False}, name=f"p{p:g}") for p in _POWERS]
    return [
        *samples,
        Sample(pair, {"p": 2.0, "product": True}, name="product"),
        Sample((Arg((0, 2), kind="s"), Arg((3, 2), kind="s")), {"p": 2.0, "product": False}, name="no rows"),
        Sample((Arg((2, 0), kind="s"), Arg((3, 0), kind="s")), {"p": 3.0, "product": False}, name="no columns"),
    ]


cdist_op = op(
    "cdist",
    infer=_infer,
    define=_define,
    rule=_rule,
    keeps=("a", "b", "y"),
    kernel=_kernel,
    samples=_samples,
    doc="The p-norm distance of each row of ``a`` to each of ``b``, of one batch.",
)


def _backward_define(F: Any, g: Any, a: Any, b: Any, y: Any, *, p: float, product: bool) -> Any:
    """Nothing flows where the distance is 0, nor through an element that is equal where ``p < 1``."""
    if p == 0:
        return F.zeros_as(a, shape=tuple(a.shape))
    if product:
        weight = F.div(F.where(F.eq(y, 0), 0.0, g), F.where(F.eq(y, 0), 1.0, y))
        total = F.sum(weight, dim=(g.ndim - 1,), keepdim=True)
        return F.sub(F.mul(a, total), F.matmul(weight, b))
    return _by_stretches(
        F, a, b, lambda rows: _backward_of_rows(F, _rows(F, g, rows), _rows(F, a, rows), b, _rows(F, y, rows), p)
    )


def _backward_of_rows(F: Any, g: Any, a: Any, b: Any, y: Any, p: float) -> Any:
    away = F.sub(_spread(F, a, 2), _spread(F, b, 3))
    weight = column(F, g)
    if p == 2:
        share = F.div(away, F.where(F.eq(column(F, y), 0), 1.0, column(F, y)))
        return F.sum(F.mul(weight, share), dim=(g.ndim - 1,), keepdim=False)
    if p != 1:
        far = column(F, y)
        if math.isinf(p):
            weight = F.where(F.eq(F.abs(away), far), weight, 0.0)
        else:
            apart = F.ne(away, 0)
            share = F.div(F.where(apart, F.abs(away), 1.0), F.where(F.eq(far, 0), 1.0, far))
            weight = F.mul(weight, F.where(apart, F.pow(share, p - 1.0), 0.0))
    return F.sum(F.mul(weight, F.sign(away)), dim=(g.ndim - 1,), keepdim=False)


def _spread(F: Any, x: Any, back: int) -> Any:
    """``x`` (..., n, m) as (..., n, 1, m) for ``back`` 2, (..., 1, n, m) for 3."""
    shape = tuple(x.shape)
    at = len(shape) + 1 - back
    return reshaped(F, x, (*shape[:at], 1, *shape[at:]))


def _backward_kernel(xp: Any, g: Any, a: Any, b: Any, y: Any, *, p: float, product: bool) -> Any:
    if p == 0 or b.shape[-2] == 0 or a.size == 0:
        return xp.zeros_like(a)
    one = xp.ones((), dtype=a.dtype)
    nothing = xp.zeros((), dtype=a.dtype)
    with np.errstate(all="ignore"):
        if product:
            weight = xp.where(y == 0, nothing, g) / xp.where(y == 0, one, y)
            return a * weight.sum(axis=-1, keepdims=True) - xp.matmul(weight, b)
        out = xp.empty_like(a)
        for rows in _chunks(a, b):
            away = a[..., rows, None, :] - b[..., None, :, :]
            weight = g[..., rows, :, None]
            if p == 2:
                far = y[..., rows, :, None]
                out[..., rows, :] = (weight * (away / xp.where(far == 0, one, far))).sum(axis=-2)
                continue
            if p != 1:
                far = y[..., rows, :, None]
                if math.isinf(p):
                    weight = xp.where(abs(away) == far, weight, nothing)
                else:
                    share = xp.where(away == 0, one, abs(away)) / xp.where(far == 0, one, far)
                    weight = weight * xp.where(away == 0, nothing, share ** (p - 1))
            out[..., rows, :] = (weight * xp.sign(away)).sum(axis=-2)
    return out


cdist_backward = op(
    "cdist_backward",
    infer=lambda g, a, b, y, *, p, product: Spec(tuple(a.shape), a.dtype),
    define=_backward_define,
    kernel=_backward_kernel,
    samples=lambda: [
        Sample(
            (Arg((2, 3, 4), kind="s"), Arg((2, 3, 2), kind="s"), Arg((2, 4, 2), 2.5, 4.0, kind="s"),
             Arg((2, 3, 4), 3.0, 6.0, kind="s")),
            {"p": p, "product": product}, p != 0, name=f"p{p:g}{' product' if product else ''}",
        )
        for p, product in [*((p, False) for p in _POWERS), (2.0, True)]
    ],
    doc="The gradient of ``cdist`` that flows to ``a``.",
)  # fmt: skip

_MODES = {
    "use_mm_for_euclid_dist_if_necessary": None, "use_mm_for_euclid_dist": True, "donot_use_mm_for_euclid_dist": False,
}  # fmt: skip


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distance of each row of ``x1`` to each row of ``x2``.

    Args:
        x1, x2: (..., n, m) and (..., k, m), floating point; batches broadcast.
        p: from 0 (how many elements differ) to inf.
        compute_mode: whether Euclidean distances are made of a matrix product, which is faster and loses the digits
            that cancel: ``"use_mm_for_euclid_dist"``, ``"donot_use_mm_for_euclid_dist"``, or, by default, if there are
            more than 25 rows.
    Returns: (..., n, k).
    Raises: ShapeError if the sizes do not fit; DTypeError for other dtypes; ValueError for another mode or p.
    Example:
        >>> import tensorgrad as tg
        >>> tg.cdist(tg.tensor([[0.0, 0.0]]), tg.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [[5.0, 1.0]]
    """
    for label, x in (("x1", x1), ("x2", x2)):
        if not isinstance(x, Tensor):
            raise TypeError(f"cdist: {label} must be a Tensor, got {type(x).__name__}.")
        if x.dtype.name not in ("float32", "float64"):
            raise DTypeError(f"cdist: only float32 and float64 are supported, {label} is {x.dtype}.")
        if x._data.ndim < 2:
            raise ShapeError(f"cdist: {label} must have at least two dimensions, got shape {tuple(x.shape)}.")
    if x1.dtype != x2.dtype:
        raise DTypeError(f"cdist: expected one dtype, got {x1.dtype} and {x2.dtype}.")
    if x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(f"cdist: rows have {x1.shape[-1]} and {x2.shape[-1]} elements; they must be equal.")
    if compute_mode not in _MODES:
        raise ValueError(f"cdist: {compute_mode!r} is not a valid value for compute_mode: {sorted(_MODES)}.")
    p = order_of(p, x1._data.dtype)
    if not p >= 0:
        raise ShapeError(f"cdist: only p from 0 to inf is supported, got {p}.")
    a, b = batch_of("cdist", x1, x2)
    many = max(a.shape[-2], b.shape[-2]) > _BY_PRODUCT
    chosen = _MODES[compute_mode]
    product = p == 2 and (many if chosen is None else chosen)
    return cdist_op(a, b, p=float(p), product=bool(product))
