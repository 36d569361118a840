"""What the kernels of attention.cu compute, on NumPy arrays that lie as their struct says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backends.generic.attention import AttentionKernels
from ..backends.generic.reduce import wide
from ..backends.generic.shape import ShapeKernels

__all__ = ["ATTENTION"]


class _Host(AttentionKernels, ShapeKernels):
    xp = np


def _found(layout: Any, name: str, x: Any) -> Any:
    """q, k, v, g or the mask as the kernels find it: three axes of the batch, then a matrix."""
    if name == "mask":
        if not layout["mask_kind"]:
            return None
        matrix: tuple[int, ...] = (layout["queries"], layout["keys"])
        steps = [int(step) * x.itemsize for step in layout["mask"]]
    else:
        matrix = (layout["queries" if name in "qg" else "keys"], layout["width" if name in "qk" else "value_width"])
        steps = [*[int(step) * x.itemsize for step in layout[name]], x.itemsize]
    return as_strided(x, (*layout["batch"], *matrix), steps)


def _how(layout: Any) -> dict[str, Any]:
    return {"causal": bool(layout["causal"]), "scale": float(layout["scale"])}


def _forward(layout: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any) -> None:
    q, k, v, mask = (_found(layout, name, x) for name, x in zip(("q", "k", "v", "mask"), (q, k, v, mask), strict=True))
    made, log_sum = _Host().attention(q, k, v, mask, **_how(layout))
    out[...], lse[...] = made.reshape(out.shape), log_sum.reshape(lse.shape)


def _delta(layout: Any, g: Any, out: Any, delta: Any) -> None:
    slope = wide(_found(layout, "g", g))
    delta[...] = (slope * wide(out).reshape(slope.shape)).sum(axis=-1).reshape(delta.shape)


def _backward(
    needs: tuple[bool, ...], layout: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, lse: Any, delta: Any
) -> tuple[Any, ...]:
    arrays = {name: _found(layout, name, x) for name, x in {"g": g, "q": q, "k": k, "v": v, "mask": mask}.items()}
    host, how = _Host(), _how(layout)
    rows = arrays["q"].shape[:-1]
    weights = host._weights(host._scores(arrays["q"], arrays["k"], arrays["mask"], **how), lse.reshape(rows))
    slope = host._product(wide(arrays["g"]), wide(arrays["v"]).swapaxes(-1, -2)) - delta.reshape(*rows, 1)
    slope = slope * weights * np.float32(how["scale"])
    return (
        host._product(slope, wide(arrays["k"])) if needs[0] else None,
        host._product(slope.swapaxes(-1, -2), wide(arrays["q"])) if needs[1] else None,
        host._product(weights.swapaxes(-1, -2), wide(arrays["g"])) if needs[2] else None,
    )


def _backward_of_queries(*arguments: Any) -> None:
    *given, to_q = arguments
    made, _, _ = _backward((True, False, False), *given)
    to_q[...] = made.reshape(to_q.shape).astype(to_q.dtype)


def _backward_of_keys(*arguments: Any) -> None:
    *given, to_k, to_v = arguments
    _, made_k, made_v = _backward((False, True, True), *given)
    to_k[...], to_v[...] = made_k.reshape(to_k.shape).astype(to_k.dtype), made_v.reshape(to_v.shape).astype(to_v.dtype)


ATTENTION: dict[str, Callable[..., None]] = {
    "attention": _forward,
    "attentiondelta": _delta,
    "attentionquery": _backward_of_queries,
    "attentionkey": _backward_of_keys,
}
