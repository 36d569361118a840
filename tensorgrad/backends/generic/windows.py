"""Where the elements under a sliding window lie: shared by convolution and pooling.

A window is walked tap by tap: tap ``k`` of every window at once is one strided slice of the input, so a kernel loops
over the few taps and works on whole arrays. Taps that fall into the padding are left out by clipping the slices; no
padded copy is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product


def tap_slices(
    tap: int, size: int, outputs: int, stride: int, padding: int, dilation: int
) -> tuple[slice, slice] | None:
    """(output slice, input slice) along one axis: the windows whose tap lies inside the input, and what it reads.

    None if that holds for no window.
    """
    shift = tap * dilation - padding  # window o reads position o * stride + shift
    first = 0 if shift >= 0 else -(shift // stride)
    last = min(outputs - 1, (size - 1 - shift) // stride)
    if last < first:
        return None
    start = first * stride + shift
    return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)


def taps(
    kernel: tuple[int, ...],
    sizes: tuple[int, ...],
    outputs: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """(tap, output slices, input slices) of every tap that reads something."""
    along = [
        [(k, found) for k in range(count) if (found := tap_slices(k, n, o, s, p, d)) is not None]
        for count, n, o, s, p, d in zip(kernel, sizes, outputs, stride, padding, dilation, strict=True)
    ]
    for combination in product(*along):
        yield (
            tuple(k for k, _ in combination),
            tuple(found[0] for _, found in combination),
            tuple(found[1] for _, found in combination),
        )
