"""The same weights and the same batches for every framework, made by NumPy from names and shapes alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

BATCHES = 8  # cycled through, so that no model learns one batch by heart and computes with denormals ever after


def initial(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The first value of a parameter or buffer, by the name PyTorch's ``state_dict`` gives it.

    Matrices and kernels are normal with deviation ``1/sqrt(fan_in)``, scales and variances one, the rest zero.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) >= 2 or name == "x":
        random = np.random.default_rng(zlib.crc32(name.encode()))
        deviation = 1 / math.sqrt(math.prod(shape[1:]))
        return (random.standard_normal(shape) * deviation).astype(np.float32)
    one = name.endswith(("weight", "running_var"))
    return np.full(shape, 1.0 if one else 0.0, np.float32)


def initial_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: initial(name, shape) for name, shape in shapes.items()}


def images(batch: int, channels: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of images (N, C, H, W) and labels of ten classes."""
    random = np.random.default_rng(1)
    return [
        (random.standard_normal((batch, channels, size, size), np.float32), random.integers(0, 10, batch))
        for _ in range(BATCHES)
    ]


def rows(batch: int, width: int, classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(2)
    return [
        (random.standard_normal((batch, width), np.float32), random.integers(0, classes, batch)) for _ in range(BATCHES)
    ]


def regression(batch: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(3)
    xs = [random.standard_normal((batch, width), np.float32) for _ in range(BATCHES)]
    return [(x, np.sin(x.sum(axis=1, keepdims=True))) for x in xs]


def tokens(batch: int, context: int, vocabulary: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids and the ids that follow them, both (N, T)."""
    random = np.random.default_rng(4)
    texts = [random.integers(0, vocabulary, (batch, context + 1)) for _ in range(BATCHES)]
    return [(text[:, :-1].copy(), text[:, 1:].copy()) for text in texts]


def sequences(batch: int, steps: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(5)
    return [
        (random.standard_normal((batch, steps, width), np.float32), random.standard_normal((batch, 1), np.float32))
        for _ in range(BATCHES)
    ]


def texts(batch: int, length: int, vocabulary: int, classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids (N, T), zeros behind the end of each text, and a class."""
    random = np.random.default_rng(6)
    made = []
    for _ in range(BATCHES):
        ids = random.integers(1, vocabulary, (batch, length))
        ids[np.arange(length) >= random.integers(length // 2, length + 1, batch)[:, None]] = 0
        made.append((ids, random.integers(0, classes, batch)))
    return made


def clicks(batch: int, numbers: int, tables: int, rows: int, bag: int) -> list[tuple[np.ndarray, ...]]:
    """Numbers (N, numbers), ids (N, tables) or with a bag size (N, tables, bag), and 0 or 1 (N,)."""
    random = np.random.default_rng(7)
    shape = (batch, tables, bag) if bag else (batch, tables)
    return [
        (
            random.standard_normal((batch, numbers), np.float32),
            random.integers(0, rows, shape),
            random.integers(0, 2, batch).astype(np.float32),
        )
        for _ in range(BATCHES)
    ]


def graphs(nodes: int, edges: int, width: int, classes: int) -> list[tuple[np.ndarray, ...]]:
    """One graph with new features every time: features (nodes, width), from (edges,), to (edges,), class (nodes,)."""
    random = np.random.default_rng(8)
    source, target = random.integers(0, nodes, edges), random.integers(0, nodes, edges)
    return [
        (random.standard_normal((nodes, width), np.float32), source, target, random.integers(0, classes, nodes))
        for _ in range(BATCHES)
    ]


class Noise:
    """In place of ``randn_like``: the same numbers for every framework."""

    def __init__(self, tensor: Callable[[np.ndarray], Any]) -> None:
        self.tensor = tensor
        self.random = np.random.default_rng(9)

    def __call__(self, like: Any) -> Any:
        return self.array(tuple(like.shape)).to(like.dtype)

    def array(self, shape: tuple[int, ...]) -> Any:
        """The next numbers, as whatever ``tensor`` makes of them."""
        return self.tensor(self.random.standard_normal(shape, np.float32))
