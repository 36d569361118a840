"""What the kernels of ``optim.cu`` and ``words.cu`` compute, on NumPy: tables of addresses, as on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..backends.cupy.optim_kernels import CHUNK
from ..dtypes import numpy_dtype
from .strict_memory import room_at

__all__ = ["OPTIM_REFERENCES"]


class _Table:
    """The arrays of a table of so many lists."""

    def __init__(self, words: Any, lists: int, arrays: int, dtype: str):
        numbers = words.tolist()
        self.rows = [numbers[i * arrays : (i + 1) * arrays] for i in range(lists)]
        rest = numbers[lists * arrays :]
        self.firsts, self.lengths = rest[: arrays + 1], rest[arrays + 1 : 2 * arrays + 1]
        self.groups = rest[2 * arrays + 1 : 3 * arrays + 1]
        self.dtype = numpy_dtype(dtype)

    def columns(self) -> Iterator[tuple[int, int, list[Any]]]:
        """(the first chunk, the group, the lists' arrays) of each place."""
        size = self.dtype.itemsize
        for k, (first, length, group) in enumerate(zip(self.firsts[:-1], self.lengths, self.groups, strict=True)):
            yield first, group, [room_at(row[k], length * size).view(self.dtype) for row in self.rows] if length else []


def _wide(x: Any) -> Any:
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x.copy()


def _direction(g: Any, address: int, climbs: bool) -> Any:
    d = _wide(g)
    if address:
        d = d * room_at(address, 8).view(np.float64)[0].astype(d.dtype)
    return -d if climbs else d


def _stopped(address: Any) -> bool:
    return bool(address) and bool(room_at(int(address), 1)[0])


def _sgd(dtype: str, lists: int, arrays: int, flags: int, table: Any, numbers: Any) -> None:
    for _, group, column in _Table(table, lists, arrays, dtype).columns():
        if not column:
            continue
        own = numbers[group * 7 : group * 7 + 7]
        if _stopped(own[6]):
            continue
        lr, keep, take, decay, first = own[:5].view(np.float64).tolist()
        p, d = _wide(column[0]), _direction(column[1], int(own[5]), bool(flags & 2))
        if decay:
            d = d + decay * p
        if lists == 3 and keep:
            b = d if first else keep * _wide(column[2]) + take * d
            column[2][...] = b.astype(column[2].dtype)
            d = d + keep * b if flags & 1 else b
        column[0][...] = (p - lr * d).astype(p.dtype).astype(column[0].dtype)


def _adam(dtype: str, lists: int, arrays: int, flags: int, table: Any, numbers: Any) -> None:
    for _, group, column in _Table(table, lists, arrays, dtype).columns():
        if not column:
            continue
        own = numbers[group * 10 : group * 10 + 10]
        if _stopped(own[9]):
            continue
        rate, decay, keep1, take1, keep2, take2, eps, root = own[:8].view(np.float64).tolist()
        p, m, v = (_wide(column[i]) for i in (0, 2, 3))
        d = _direction(column[1], int(own[8]), bool(flags & 2))
        if flags & 1:
            p = p * decay
        elif decay:
            d = d + decay * p
        m = m + take1 * (d - m) if take1 < 0.5 else d - keep1 * (d - m)
        v = keep2 * v + take2 * (d * d)
        results = {2: m, 3: v}
        if lists == 5:
            v = results[4] = np.maximum(_wide(column[4]), v)
        results[0] = p - rate * (m / (np.sqrt(v) / root + eps))
        for i, x in results.items():
            column[i][...] = x.astype(column[i].dtype)


def _count_step(numbers: Any, done: Any) -> None:
    if _stopped(numbers[9]):
        return
    done += 1
    step, told = float(done), numbers.view(np.float64)
    told[0] /= 1 - float(told[2]) ** step
    told[7] = math.sqrt(1 - float(told[4]) ** step)


def _scale(dtype: str, arrays: int, table: Any, factor: Any) -> None:
    for _, _, column in _Table(table, 1, arrays, dtype).columns():
        for x in column:
            x[...] = (_wide(x) * factor.astype(_wide(x[:0]).dtype)).astype(x.dtype)


def _unscale(dtype: str, arrays: int, table: Any, factor: Any, found: Any) -> None:
    _scale(dtype, arrays, table, np.asarray(1 / factor))
    for _, _, column in _Table(table, 1, arrays, dtype).columns():
        for x in column:
            if not np.isfinite(_wide(x)).all():
                found[...] = True


def _joined(kind: str, x: Any) -> Any:
    return x.max(initial=0.0) if kind == "largest" else (x * x).sum()


def _parts(kind: str, dtype: str, arrays: int, table: Any, parts: Any) -> None:
    for first, _, column in _Table(table, 1, arrays, dtype).columns():
        for x in column:
            sizes = np.abs(_wide(x).astype(np.float64))
            for at in range(0, len(sizes), CHUNK):
                parts[first + at // CHUNK] = _joined(kind, sizes[at : at + CHUNK])


def _total(kind: str, count: int, parts: Any, to: Any) -> None:
    to[...] = parts.max(initial=0.0) if kind == "largest" else np.sqrt(parts.sum())


def _put_words(count: int, to: Any, words: Any) -> None:
    to[:count] = words["w"][:count]


def _references() -> dict[str, Callable[..., None]]:
    found: dict[str, Callable[..., None]] = {"putwords": _put_words, "countstep": _count_step}
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        for name, step, lists in (
            ("sgd_plain", _sgd, 2), ("sgd_momentum", _sgd, 3), ("adam_plain", _adam, 4), ("adam_amsgrad", _adam, 5),
        ):  # fmt: skip
            found[f"{name}_{dtype}"] = partial(step, dtype, lists)
        found[f"scale_{dtype}"] = partial(_scale, dtype)
        found[f"unscale_{dtype}"] = partial(_unscale, dtype)
        for kind in ("squares", "largest"):
            found[f"normparts_{kind}_{dtype}"] = partial(_parts, kind, dtype)
    for kind in ("squares", "largest"):
        found[f"normtotal_{kind}"] = partial(_total, kind)
    return found


OPTIM_REFERENCES = _references()
