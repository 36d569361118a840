"""Samples: the calls of an op that the test tables run, described without any arrays.

A sample names shapes and ranges of its inputs; ``testing`` draws the numbers. Points where a derivative jumps are
named in ``avoid`` and the draws keep away from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Arg", "Sample", "binary", "int_arg", "unary"]


@dataclass(frozen=True)
class Arg:
    """One array input: its shape, range, and layout.

    Args:
        shape: of the array.
        low, high: the range that elements are drawn from, uniformly.
        avoid: values that no element comes near.
        kind: ``"f"`` the dtype under test, ``"c"`` its complex form, ``"i"`` int64, ``"b"`` bool,
            ``"s"`` a statistic's dtype: float32 where the one under test is narrower.
        layout: ``"C"``, ``"T"`` (transposed memory), ``"step"`` (every second element), ``"expand"`` (stride 0).
        values: elements given outright, for indices; overrides the range.
    """

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    avoid: tuple[float, ...] = ()
    kind: str = "f"
    layout: str = "C"
    values: Any = None


def int_arg(shape: tuple[int, ...], *values: int) -> Arg:
    """An input of int64 with these elements."""
    return Arg(shape, kind="i", values=values)


@dataclass(frozen=True)
class Sample:
    """One call: the inputs (``Arg``, Python numbers or None) and the canonical attributes.

    ``smooth``: derivatives exist and are checked. ``name`` tells the sample apart from its siblings.
    """

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True
    name: str = ""


_SHAPES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("matrix", (3, 4), "C"),
    ("scalar", (), "C"),
    ("empty", (0, 3), "C"),
    ("transposed", (3, 5), "T"),
    ("strided", (2, 3), "step"),
)


def unary(
    low: float = -2.0,
    high: float = 2.0,
    *,
    avoid: tuple[float, ...] = (),
    extra: tuple[float, ...] = (),
    smooth: bool = True,
    kinds: str = "f",
    few: bool = False,
) -> Callable[[], list[Sample]]:
    """Samples of a function of one array (and ``extra`` numbers), drawn from ``low`` to ``high``.

    ``few``: two layouts only, where a formula is long and what it does with layouts is seen in others.
    """

    def make() -> list[Sample]:
        return [
            Sample((Arg(shape, low, high, avoid, kinds, layout), *extra), {}, smooth and kinds != "i", name)
            for name, shape, layout in (_SHAPES[::4] if few else _SHAPES)
        ]

    return make


_PAIRS: tuple[tuple[str, tuple[int, ...], tuple[int, ...], str], ...] = (
    ("same", (3, 4), (3, 4), "C"),
    ("row", (3, 4), (4,), "C"),
    ("column", (3, 1), (1, 4), "C"),
    ("zero-d", (2, 3), (), "C"),
    ("empty", (0, 3), (1, 3), "C"),
    ("transposed", (3, 5), (3, 5), "T"),
)


def binary(
    *,
    input: tuple[float, float] = (-2.0, 2.0),
    other: tuple[float, float] = (-2.0, 2.0),
    third: tuple[float, float] = (-2.0, 2.0),
    count: int | None = None,
    avoid: tuple[float, ...] = (),
    smooth: bool = True,
    kinds: str = "f",
    mask_first: bool = False,
    mask_second: bool = False,
    few: bool = False,
) -> Callable[[], list[Sample]]:
    """Samples of a function of two arrays or more, with every kind of broadcasting; two kinds only if ``few``."""
    ranges = [input, other, third, third]
    total = count or (3 if (third != (-2.0, 2.0) or mask_first or mask_second) else 2)

    def make() -> list[Sample]:
        samples = []
        for name, a, b, layout in _PAIRS[1:5:2] if few else _PAIRS:
            args = [Arg(a if i == 0 else b, *ranges[i], avoid, kinds, layout if i < 2 else "C") for i in range(total)]
            if mask_first or mask_second:
                at = 0 if mask_first else 1
                args[at] = Arg(args[at].shape, kind="b")
            samples.append(Sample(tuple(args), {}, smooth and kinds != "i", name))
        return samples

    return make
