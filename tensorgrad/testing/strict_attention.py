"""What the kernels of attention.cu compute, on NumPy arrays that lie as their struct says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backends.generic.attention import AttentionKernels
from ..backends.generic.random import RandomKernels
from ..backends.generic.reduce import wide
from ..backends.generic.shape import ShapeKernels

__all__ = ["ATTENTION"]


class _Host(AttentionKernels, RandomKernels, ShapeKernels):
    xp = np


def _found(layout: Any, name: str, x: Any) -> Any:
    """q, k, v, g or the mask as the kernels find it: three axes of the batch, that of the heads which a block of keys
    goes through, then a matrix."""
    if name == "mask":
        if not layout["mask_kind"]:
            return None
        matrix: tuple[int, ...] = (layout["queries"], layout["keys"])
        steps = [int(step) * x.itemsize for step in layout["mask"]]
    else:
        matrix = (layout["queries" if name in "qg" else "keys"], layout["width" if name in "qk" else "value_width"])
        steps = [*[int(step) * x.itemsize for step in layout[name]], x.itemsize]
    shared = 0 if name in "kv" else int(layout[f"{name}_head"]) * x.itemsize
    return as_strided(x, (*layout["batch"], layout["heads"], *matrix), [*steps[:3], shared, *steps[3:]])


def _how(layout: Any) -> dict[str, Any]:
    return {"causal": bool(layout["causal"]), "scale": float(layout["scale"])}


def _stays(layout: Any, seed: Any, offset: Any, weights: Any) -> Any:
    """What dropout multiplies the weights by, those numbers being drawn there in the order of the scores."""
    if not layout["dropped"]:
        return weights.dtype.type(1)
    place = np.array([int(seed) % 2**64, int(offset) % 2**64], np.uint64).view(np.int64)
    mask = _Host().dropout_mask(place, shape=weights.shape, p=float(layout["dropped"]))
    return np.where(mask, weights.dtype.type(layout["kept"]), weights.dtype.type(0))


def _forward(
    layout: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, seed: Any, offset: Any, source: Any, place: Any
) -> None:
    q, k, v, mask = (_found(layout, name, x) for name, x in zip(("q", "k", "v", "mask"), (q, k, v, mask), strict=True))
    host = _Host()
    made, log_sum = host.attention(q, k, v, mask, **_how(layout))
    if layout["dropped"]:
        if isinstance(source, np.ndarray):
            seed, offset = source.tolist()
        place[...] = np.array([int(seed) % 2**64, int(offset) % 2**64], np.uint64).view(np.int64)
        weights = host._weights(host._scores(q, k, mask, **_how(layout)), log_sum)
        stays = _stays(layout, seed, offset, weights)
        made = host._mixed(np.where(stays == 0, 0, weights * stays), v).astype(q.dtype)
    out[...], lse[...] = made.reshape(out.shape), log_sum.reshape(lse.shape)


def _delta(layout: Any, g: Any, out: Any, delta: Any) -> None:
    slope = wide(_found(layout, "g", g))
    delta[...] = (slope * wide(out).reshape(slope.shape)).sum(axis=-1).reshape(delta.shape)


def _backward(
    needs: tuple[bool, ...], layout: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, lse: Any, delta: Any, place: Any
) -> tuple[Any, ...]:
    arrays = {name: _found(layout, name, x) for name, x in {"g": g, "q": q, "k": k, "v": v, "mask": mask}.items()}
    host, how = _Host(), _how(layout)
    rows = arrays["q"].shape[:-1]
    weights = host._weights(host._scores(arrays["q"], arrays["k"], arrays["mask"], **how), lse.reshape(rows))
    seed, offset = place.tolist() if layout["dropped"] else (0, 0)
    stays = _stays(layout, seed, offset, weights)
    slope = host._product(wide(arrays["g"]), wide(arrays["v"]).swapaxes(-1, -2))
    slope = np.where(stays == 0, 0, slope * stays) - delta.reshape(*rows, 1)
    slope = slope * weights * np.float32(how["scale"])
    kept = np.where(stays == 0, 0, weights * stays)
    return (
        host._product(slope, wide(arrays["k"])) if needs[0] else None,
        host._product(slope.swapaxes(-1, -2), wide(arrays["q"])).sum(axis=3) if needs[1] else None,
        host._product(kept.swapaxes(-1, -2), wide(arrays["g"])).sum(axis=3) if needs[2] else None,
    )


def _backward_of_queries(*arguments: Any) -> None:
    *given, to_q = arguments
    made, _, _ = _backward((True, False, False), *given)
    to_q[...] = made.reshape(to_q.shape).astype(to_q.dtype)


def _backward_of_keys(*arguments: Any) -> None:
    *given, to_k, to_v = arguments
    needs = [isinstance(x, np.ndarray) for x in (to_k, to_v)]
    for to, made in zip((to_k, to_v), _backward((False, *needs), *given)[1:], strict=True):
        if made is not None:
            to[...] = made.reshape(to.shape).astype(to.dtype)


ATTENTION: dict[str, Callable[..., None]] = {
    "attentiondelta": _delta,
    **{
        f"{prefix}{kind}": reference
        for prefix in ("attention", "dropped")
        for kind, reference in {
            "forward": _forward, "query": _backward_of_queries, "key": _backward_of_keys, "value": _backward_of_keys,
        }.items()
    },
}  # fmt: skip
