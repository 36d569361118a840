"""What the kernels of norms and of cross-entropy compute, on NumPy arrays: their references on the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["LOSS_REFERENCES", "NORM_REFERENCES"]


def _wide(x: Any) -> Any:
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _given(x: Any) -> bool:
    """Whether it is an array; a null pointer is passed as 0."""
    return not isinstance(x, int)


def _factor(w: Any, otherwise: float = 1.0) -> Any:
    return _wide(w) if _given(w) else otherwise


def _put(to: Any, values: Any) -> None:
    if _given(to):
        to[...] = np.asarray(values).astype(to.dtype).reshape(to.shape)


def _pieces(count: int, parts: int, per_part: int) -> list[slice]:
    return [slice(part * per_part, min(count, (part + 1) * per_part)) for part in range(parts)]


# --- rows


def _row_norm(
    block: Any, rows: int, length: int, eps: Any, is_wide: Any, x: Any, w: Any, b: Any, y: Any, means: Any, rstds: Any
) -> None:
    values = _wide(x).reshape(rows, length)
    mean = values.mean(1, keepdims=True) if _given(means) else values.dtype.type(0)
    apart = values - mean
    rstd = 1 / np.sqrt((apart * apart).mean(1, keepdims=True) + eps)
    if _given(means):
        _put(means, mean)
    _put(rstds, rstd)
    weight = _factor(w).reshape(-1) if _given(w) else 1
    _put(y, apart * rstd * weight + (_wide(b).reshape(-1) if _given(b) else 0))


def _row_norm_backward(
    block: Any, rows: int, length: int, is_wide: Any, g: Any, x: Any, means: Any, rstds: Any, w: Any, gx: Any
) -> None:
    rstd, mean = rstds.reshape(rows, 1), means.reshape(rows, 1) if _given(means) else 0
    normal = (_wide(x).reshape(rows, length) - mean) * rstd
    inner = _wide(g).reshape(rows, length) * (_wide(w).reshape(-1) if _given(w) else 1)
    middle = inner.mean(1, keepdims=True) if _given(means) else 0
    _put(gx, (inner - middle - normal * (inner * normal).mean(1, keepdims=True)) * rstd)


# --- columns


def _passing(slope: Any, values: Any, means: Any, rstds: Any, is_wide: Any, w: Any, shifts: Any) -> Any:
    """Of the gradient of the (count, channels) ``values``, what passes the ReLU behind their norm."""
    return np.where((values - means) * (rstds * _factor(w)) + shifts > 0, slope, slope.dtype.type(0))


def _column_sums(
    rows: int, length: int, parts: int, per_part: int, by_column: Any, g: Any, x: Any, means: Any, rstds: Any,
    along: Any, plain: Any, *relu: Any,
) -> None:  # fmt: skip
    shape = (1, length) if by_column else (rows, 1)
    slope = _wide(g).reshape(rows, length)
    if relu:
        slope = _passing(slope, _wide(x).reshape(rows, length), means, rstds, *relu)
    normal = _wide(x).reshape(rows, length) - (means.reshape(shape) if _given(means) else 0)
    normal = normal * rstds.reshape(shape)
    pieces = _pieces(rows, parts, per_part)
    _put(along, [(slope[piece] * normal[piece]).sum(0) for piece in pieces])
    _put(plain, [slope[piece].sum(0) for piece in pieces])


def _column_totals(parts: int, length: int, along: Any, plain: Any, to_along: Any, to_plain: Any) -> None:
    for source, to in ((along, to_along), (plain, to_plain)):
        if _given(source):
            _put(to, source.reshape(parts, length).sum(0))


def _moments(values: Any, pivots: Any, pieces: list[slice], means: Any, squares: Any) -> None:
    """Of the (count, channels) ``values``, in parts."""
    apart = values - pivots
    _put(means, [apart[piece].mean(0) for piece in pieces])
    _put(squares, [((apart[piece] - apart[piece].mean(0)) ** 2).sum(0) for piece in pieces])


def _column_stats(rows: int, length: int, parts: int, per_part: int, x: Any, means: Any, squares: Any) -> None:
    values = _wide(x).reshape(rows, length)
    _moments(values, values[0], _pieces(rows, parts, per_part), means, squares)


# --- channels


def _by_channel(x: Any, batch: int, channels: int, plane: int) -> Any:
    """(batch * plane, channels)."""
    return _wide(x).reshape(batch, channels, plane).transpose(0, 2, 1).reshape(batch * plane, channels)


def _channel_stats(
    block: Any, batch: int, channels: int, plane: int, parts: int, per_part: int, x: Any, means: Any, squares: Any
) -> None:
    values = _by_channel(x, batch, channels, plane)
    _moments(values, values[0], _pieces(batch * plane, parts, per_part), means, squares)


def _statistics(
    count: int, channels: int, plane: int, parts: int, per_part: int, eps: Any, x: Any, part_means: Any,
    squares: Any, means: Any, rstds: Any, variances: Any, is_wide: Any, b: Any, shifts: Any,
) -> None:  # fmt: skip
    pivots = _wide(x).reshape(-1)[: channels * plane : plane]
    sizes = np.array([piece.stop - piece.start for piece in _pieces(count, parts, per_part)])
    sizes = sizes.astype(part_means.dtype)[:, None]
    mean = (part_means * sizes).sum(0) / count
    variance = (squares + (part_means - mean) ** 2 * sizes).sum(0) / count
    _put(means, pivots + mean)
    _put(rstds, 1 / np.sqrt(variance + eps))
    _put(variances, variance)
    _put(shifts, _wide(b) if _given(b) else np.zeros_like(variance))


def _statistic(values: Any, batch: int, channels: int, per: int) -> Any:
    """A statistic in the shape (batch, channels, 1) or one that broadcasts to it."""
    return np.repeat(values, per).reshape(batch, channels, 1) if per else values.reshape(1, channels, 1)


def _channel_norm(
    batch: int, channels: int, plane: int, per: int, is_wide: Any, x: Any, means: Any, rstds: Any, w: Any, b: Any,
    y: Any,
) -> None:  # fmt: skip
    mean, rstd = (_statistic(s, batch, channels, per) for s in (means, rstds))
    weight, bias = (_wide(p).reshape(1, channels, 1) if _given(p) else None for p in (w, b))
    scale = rstd if weight is None else rstd * weight
    values = (_wide(x).reshape(batch, channels, plane) - mean) * scale
    _put(y, values if bias is None else values + bias)


def _channel_sums(
    block: Any, batch: int, channels: int, plane: int, parts: int, per_part: int, per: int, g: Any, x: Any,
    means: Any, rstds: Any, along: Any, plain: Any, *relu: Any,
) -> None:  # fmt: skip
    slope, values = (_by_channel(a, batch, channels, plane) for a in (g, x))
    if relu:
        slope = _passing(slope, values, means, rstds, *relu)
    normal = (values - np.repeat(means, per)) * np.repeat(rstds, per)
    pieces = _pieces(batch * plane, parts, per_part)
    _put(along, [(slope[piece] * normal[piece]).sum(0) for piece in pieces])
    _put(plain, [slope[piece].sum(0) for piece in pieces])


def _group_sums(
    groups: int, per: int, channels: int, is_wide: Any, w: Any, along: Any, plain: Any, group_along: Any,
    group_plain: Any,
) -> None:  # fmt: skip
    for source, to in ((along, group_along), (plain, group_plain)):
        weighted = source.reshape(-1, channels) * _factor(w)
        _put(to, weighted.reshape(groups, per).sum(1))


def _channel_norm_backward(
    batch: int, channels: int, plane: int, per: int, is_wide: Any, g: Any, x: Any, means: Any, rstds: Any, w: Any,
    along: Any, plain: Any, gx: Any, shifts: Any = None,
) -> None:  # fmt: skip
    mean, rstd, products, sums = (_statistic(s, batch, channels, per) for s in (means, rstds, along, plain))
    weight = _wide(w).reshape(1, channels, 1) if _given(w) else mean.dtype.type(1)
    count = mean.dtype.type((per or batch) * plane)
    slope, values = (_wide(a).reshape(batch, channels, plane) for a in (g, x))
    if shifts is not None:
        passes = (values - mean) * (rstd * weight) + shifts.reshape(1, channels, 1) > 0
        slope = np.where(passes, slope, slope.dtype.type(0))
    slope = slope * weight if per else slope
    inner = slope - sums / count - (values - mean) * rstd * (products / count)
    _put(gx, inner * rstd * (1 if per else weight))


def _channel_norm_relu(*arguments: Any) -> None:
    _channel_norm(*arguments)
    y = arguments[-1]
    _put(y, np.maximum(_wide(y), 0))


def _given_stats(
    channels: int, is_wide: Any, eps: Any, means: Any, variances: Any, to_means: Any, to_rstds: Any
) -> None:
    _put(to_means, _wide(means))
    _put(to_rstds, 1 / np.sqrt(_wide(variances) + eps))


def _given_norm(
    batch: int, channels: int, plane: int, is_wide: Any, wide_given: Any, eps: Any, x: Any, means: Any, variances: Any,
    w: Any, b: Any, y: Any,
) -> None:  # fmt: skip
    rstds = 1 / np.sqrt(_wide(variances) + eps)
    _channel_norm(batch, channels, plane, 0, is_wide, x, _wide(means), rstds, w, b, y)


def _given_norm_backward(
    batch: int, channels: int, plane: int, is_wide: Any, wide_given: Any, eps: Any, g: Any, variances: Any, w: Any,
    gx: Any,
) -> None:  # fmt: skip
    scale = _factor(w) / np.sqrt(_wide(variances) + eps)
    _put(gx, _wide(g).reshape(batch, channels, plane) * scale.reshape(1, channels, 1))


# --- cross-entropy


def _counted(target: Any, classes: int, ignore: int) -> tuple[Any, Any]:
    """(which rows count, their class, 0 for the others)."""
    counts = (target != ignore) & (target >= 0) & (target < classes)
    return counts, np.where(counts, target, 0)


def _cross_entropy(
    block: Any, rows: int, classes: int, ignore: int, smoothing: Any, x: Any, target: Any, w: Any, rounded: Any,
    loss: Any, lses: Any,
) -> None:  # fmt: skip
    values = _wide(x).reshape(rows, classes)
    counts, index = _counted(target, classes, ignore)
    weights = np.broadcast_to(_factor(w), (classes,)).astype(values.dtype)
    with np.errstate(all="ignore"):
        top = values.max(1, keepdims=True)
        lse = np.log(np.exp(values - top).sum(1, keepdims=True)) + top
        losses = (lse[:, 0] - values[np.arange(rows), index]) * weights[index]
        if smoothing:  # else only the weights of targets count
            losses = losses * (1 - smoothing) + ((lse - values) * weights).sum(1) * (smoothing / classes)
    losses = np.where(counts, losses, values.dtype.type(0))
    for to, result in ((lses, lse), (loss, losses), (rounded, losses)):
        _put(to, result)


def _loss_parts(
    rows: int, classes: int, ignore: int, parts: int, per_part: int, target: Any, w: Any, loss: Any, losses: Any,
    weights: Any, wrong: Any,
) -> None:  # fmt: skip
    counts, index = _counted(target, classes, ignore)
    factor = np.where(counts, np.broadcast_to(_factor(w), (classes,))[index], 0)
    pieces = _pieces(rows, parts, per_part)
    _put(losses, [loss[piece][counts[piece]].sum() if _given(loss) else 0 for piece in pieces])
    _put(weights, [factor[piece].sum() for piece in pieces])
    _put(wrong, [((target != ignore) & ~counts)[piece].sum() for piece in pieces])


def _loss_total(
    parts: int, mean: Any, losses: Any, weights: Any, wrong: Any, loss: Any, divisor: Any, any_wrong: Any
) -> None:
    with np.errstate(all="ignore"):
        _put(loss, losses.sum() / weights.sum() if mean else losses.sum())
    _put(divisor, weights.sum() if mean else 1)
    _put(any_wrong, wrong.sum() != 0)


def _cross_entropy_backward(
    block: Any, rows: int, classes: int, ignore: int, smoothing: Any, by_row: Any, g: Any, x: Any, target: Any,
    w: Any, lses: Any, divisor: Any, gx: Any,
) -> None:  # fmt: skip
    counts, index = _counted(target, classes, ignore)
    weights = np.broadcast_to(_factor(w), (classes,)).astype(lses.dtype)
    with np.errstate(all="ignore"):
        scale = np.where(counts, _wide(g) / divisor, 0).astype(lses.dtype)[:, None]
        share = np.exp(_wide(x).reshape(rows, classes) - lses[:, None])
        hard, soft = scale * (1 - smoothing) * weights[index][:, None], scale * (smoothing / classes)
        out = share * (hard + soft * weights.sum()) - soft * weights if smoothing else share * hard
        out[np.arange(rows), index] -= hard[:, 0]
    _put(gx, np.where(counts[:, None], out, 0))


NORM_REFERENCES: dict[str, Callable[..., None]] = {
    "rownorm": _row_norm,
    "rownormgrad": _row_norm_backward,
    "columnsums": _column_sums,
    "columnsumsrelu": _column_sums,
    "columntotals": _column_totals,
    "columnstats": _column_stats,
    "channelstats": _channel_stats,
    "statistics": _statistics,
    "channelnorm": _channel_norm,
    "channelnormrelu": _channel_norm_relu,
    "channelsums": _channel_sums,
    "channelsumsrelu": _channel_sums,
    "groupsums": _group_sums,
    "channelnormgrad": _channel_norm_backward,
    "channelnormgradrelu": _channel_norm_backward,
    "givenstats": _given_stats,
    "givennorm": _given_norm,
    "givennormgrad": _given_norm_backward,
}
LOSS_REFERENCES: dict[str, Callable[..., None]] = {
    "crossentropy": _cross_entropy,
    "lossparts": _loss_parts,
    "losstotal": _loss_total,
    "crossentropygrad": _cross_entropy_backward,
}
