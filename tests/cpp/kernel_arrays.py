"""Arrays in every layout, and what holds for every kernel: same bits for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tensorgrad._C as C


def strided(rng: np.random.Generator, shape: Sequence[int], dtype: str, scale: float = 3.0) -> np.ndarray:
    """Random values of this shape with axes permuted, skipped over, reversed or, at times, unaligned."""
    order = rng.permutation(len(shape))
    steps = [int(rng.choice([1, 1, 2, -1, -2])) for _ in shape]
    full = [shape[axis] * abs(step) for axis, step in zip(order, steps, strict=True)]
    values = np.asarray(rng.standard_normal(full) * scale)
    if np.dtype(dtype).kind in "iu":  # through int64: NumPy leaves negative floats to unsigned to the processor
        values = values.astype(np.int64)
    values = np.asarray(values > 0) if dtype == "bool" else values.astype(dtype)
    if rng.random() < 0.2:
        raw = np.empty(values.nbytes + 1, np.uint8)
        moved = raw[1:].view(dtype).reshape(values.shape)
        moved[...] = values
        values = moved
    view = values[tuple(slice(None, None, step) for step in steps)].transpose(np.argsort(order))
    assert view.shape == tuple(shape)
    return np.asarray(view)


def shapes(rng: np.random.Generator, count: int, least: int = 0, most: int = 4, zeros: bool = True) -> list[list[int]]:
    sizes = [1, 2, 3, 5, 7, 17, 40]
    made = []
    for trial in range(count):
        choices = [0, *sizes] if zeros and trial % 5 == 0 else sizes
        made.append([int(rng.choice(choices)) for _ in range(int(rng.integers(least, most + 1)))])
    return made


def bits(result: Any) -> list[bytes]:
    return [np.asarray(part).tobytes() for part in (result if isinstance(result, tuple | list) else (result,))]


def same_for_any_threads(run: Callable[[], Any]) -> Any:
    """Runs on 1, 2 and 8 threads, twice on the last, and returns the result that all must agree on."""
    before = C.num_threads()
    seen = []
    try:
        for count in (1, 2, 8, 8):
            C.set_num_threads(count)
            seen.append(bits(run()))
    finally:
        C.set_num_threads(before)
    assert all(other == seen[0] for other in seen[1:]), "the bits depend on the number of threads"
    return run()
