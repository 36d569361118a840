"""Batching rules of layers: samples join the batch where weights are shared, and become groups where they are not."""

from __future__ import annotations

from typing import Any

from .batched import aligned
from .rules import every, rule


def _fold(F: Any, x: Any) -> Any:
    """(n, N, ...) as (n N, ...)."""
    n, batch = x.shape[:2]
    return F.reshape(F.contiguous(x), shape=(n * batch, *x.shape[2:]))


def _unfold(F: Any, x: Any, n: int) -> Any:
    return F.reshape(F.contiguous(x), shape=(n, x.shape[0] // n if n else 0, *x.shape[1:]))


def _folded(name: str, data: int, shaped: tuple[str, ...] = ()) -> None:
    """The first ``data`` inputs have the batch first; samples join it if the other inputs are shared."""

    def run(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, **attrs: Any) -> Any:
        if any(mapped[data:]):
            return _fallback(name, door, F, n, xs, mapped, attrs)
        inputs = [_fold(F, x) for x in every(F, n, xs[:data], mapped[:data])]
        for key in shaped:
            attrs[key] = (n * attrs[key][0], *attrs[key][1:])
        result = getattr(F, name)(*inputs, *xs[data:], **attrs)
        if isinstance(result, tuple):
            return tuple([None if part is None else _unfold(F, part, n) for part in result])
        return _unfold(F, result, n)

    rule(name)(run)


def _fallback(name: str, door: Any, F: Any, n: int, xs: list[Any], mapped: Any, attrs: dict[str, Any]) -> Any:
    """The definition through the batched door, or sample by sample."""
    from ..dispatch import OPS
    from .batched import Frame
    from .rules import looped, through

    op = OPS[name]
    define = op.define
    if define is None:
        return looped(op, F, n, xs, mapped, attrs)
    frame = Frame(door.cls.level, n, "error", door.home)  # inner to this call: nothing of it is seen outside
    return through(door, n, lambda D, *inputs: define(D, *inputs, **attrs), xs, mapped, frame)


_folded("max_pool", 1)
_folded("max_pool_backward", 2, ("input_shape",))
_folded("avg_pool", 1)
_folded("avg_pool_backward", 1, ("input_shape",))
_folded("adaptive_avg_pool", 1)
_folded("adaptive_avg_pool_backward", 1, ("input_shape",))
_folded("adaptive_max_pool", 1)
_folded("unfold_windows", 1)
_folded("fold_windows", 1)
_folded("resize", 1)
_folded("resize_backward", 1)
_folded("group_norm", 1)
_folded("batch_norm_eval", 1)


# --- convolution


def _channels(F: Any, x: Any) -> Any:
    """(n, N, c, ...) as (N, n c, ...): samples beside each other as groups of channels."""
    n, batch, c = x.shape[:3]
    moved = F.permute(x, dims=(1, 0, *range(2, len(x.shape))))
    return F.reshape(F.contiguous(moved), shape=(batch, n * c, *x.shape[3:]))


def _apart(F: Any, y: Any, n: int) -> Any:
    """(N, n c, ...) as (n, N, c, ...)."""
    batch, joined = y.shape[:2]
    split = F.reshape(F.contiguous(y), shape=(batch, n, joined // n, *y.shape[2:]))
    return F.permute(split, dims=(1, 0, *range(2, len(split.shape))))


@rule("conv")
def _conv(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, groups: int, **how: Any) -> Any:
    (x, w, b), (map_x, map_w, map_b) = xs, mapped
    if not n:
        return _fallback("conv", door, F, n, xs, mapped, {"groups": groups, **how})
    if not map_w:
        inner = None if map_b else b
        y = _unfold(F, F.conv(_fold(F, x), w, inner, groups=groups, **how), n) if map_x else None
        if y is None:  # only the bias differs
            y = F.slice(F.conv(x, w, None, groups=groups, **how), key=(None,))
        if map_b:
            y = F.add(y, F.slice(b, key=(slice(None), None, slice(None), *(None,) * (len(w.shape) - 2))))
        return y
    x = every(F, n, [x], (map_x,))[0]
    bias = None if b is None else F.reshape(F.contiguous(every(F, n, [b], (map_b,))[0]), shape=(n * w.shape[1],))
    return _apart(F, F.conv(_channels(F, x), _fold(F, w), bias, groups=n * groups, **how), n)


@rule("conv_input_grad")
def _conv_input_grad(
    door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, input_shape: Any, groups: int, **how: Any
) -> Any:
    (g, w), (map_g, map_w) = xs, mapped
    batch, c = input_shape[:2]
    if not map_w:
        wide = (n * batch, *input_shape[1:])
        return _unfold(F, F.conv_input_grad(_fold(F, g), w, input_shape=wide, groups=groups, **how), n)
    g = every(F, n, [g], (map_g,))[0]
    wide = (batch, n * c, *input_shape[2:])
    y = F.conv_input_grad(_channels(F, g), _fold(F, w), input_shape=wide, groups=n * groups, **how)
    return _apart(F, y, n)


@rule("conv_weight_grad")
def _conv_weight_grad(
    door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, weight_shape: Any, groups: int, **how: Any
) -> Any:
    g, x = every(F, n, xs, mapped)
    wide = (n * weight_shape[0], *weight_shape[1:])
    y = F.conv_weight_grad(_channels(F, g), _channels(F, x), weight_shape=wide, groups=n * groups, **how)
    return _unfold(F, y, n)


# --- what works on trailing dimensions


@rule("linear")
def _linear(door: Any, F: Any, n: int, xs: list[Any], mapped: Any) -> Any:
    if mapped[1] or mapped[2]:
        return _fallback("linear", door, F, n, xs, mapped, {})
    return F.linear(*xs)


@rule("linear_backward")
def _linear_backward(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, needs: Any) -> Any:
    if mapped[2] or needs[1] or needs[2]:
        return _fallback("linear_backward", door, F, n, xs, mapped, {"needs": needs})
    return F.linear_backward(*every(F, n, xs[:2], mapped[:2]), xs[2], needs=needs)


def _rows(name: str, data: int) -> None:
    """Norms over the last dimensions: nothing changes if the parameters are shared and need no gradient."""

    def run(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, **attrs: Any) -> Any:
        if any(mapped[data:]) or any(attrs.get("needs", ())[1:]):
            return _fallback(name, door, F, n, xs, mapped, attrs)
        return getattr(F, name)(*every(F, n, xs[:data], mapped[:data]), *xs[data:], **attrs)

    rule(name)(run)


_rows("layer_norm", 1)
_rows("layer_norm_backward", 4)
_rows("rms_norm", 1)
_rows("rms_norm_backward", 3)


@rule("attention")
def _attention(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, **how: Any) -> Any:
    q, k, v = every(F, n, xs[:3], mapped[:3])
    return F.attention(q, k, v, aligned(F, xs[3], len(q.shape) - 1) if mapped[3] else xs[3], **how)


@rule("attention_backward")
def _attention_backward(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, needs: Any, **how: Any) -> Any:
    if needs[3]:
        return _fallback("attention_backward", door, F, n, xs, mapped, {"needs": needs, **how})
    g, q, k, v, _, out, lse = every(F, n, xs, mapped)
    mask = aligned(F, xs[4], len(q.shape) - 1) if mapped[4] else xs[4]
    return F.attention_backward(g, q, k, v, mask, out, lse, needs=needs, **how)
