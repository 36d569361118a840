"""Gradients of slices of one array that lie side by side, put where they belong as they come.

The C++ tape does this itself for NumPy's arrays (csrc/tape/side_by_side.h says why); what lies on a device has other
arrays, for which it asks here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .node import Node

__all__ = ["SideBySide"]

_LONGEST = 1 << 16  # positions along the axis, of which each has a byte
_SHARE = 16  # of the axis, that the first slice has at least: a few of many leave it mostly zeros


class _Half(NamedTuple):
    array: Any  # that of `pending`
    door: Any
    axis: int
    covered: bytearray  # one for each position along the axis


class SideBySide:
    """A pass's arrays of which some elements mean nothing yet, by the node whose gradient they are."""

    def __init__(self) -> None:
        self.halves: dict[Node, _Half] = {}

    def take(self, pending: dict[Node, Any], door: Any, node: Node, g: Any) -> int:
        """Take the gradient ``g`` of ``node``, a slice: 2 where it is the first to arrive for the node that was sliced,
        1 where others were there, 0 where the rule must say it. ``pending``: what has arrived for each node."""
        edge = node.edges[0]
        if type(edge) is not Node or edge.count != 1 or hasattr(type(g), "door"):
            return 0
        half, total = self.halves.get(edge), pending.get(edge)
        if (half is None) != (total is None):
            return 0
        key, shape = node.attrs["key"], node.saved[0].shape
        at = _stretch(key, shape)
        if half is None:
            if at is None:
                return 0
            axis, start, stop = at
            size = shape[axis]
            if size > _LONGEST or (stop - start) * _SHARE < size or stop - start == size:
                return 0
            array = _place(door, edge, g, shape)
            door.copy_into(door.slice(array, key=key), g)
            covered = bytearray(size)
            covered[start:stop] = b"\1" * (stop - start)
            pending[edge] = array
            self.halves[edge] = _Half(array, door, axis, covered)
            return 2
        covered = half.covered
        if (
            at is None or at[0] != half.axis or total is not half.array or total.dtype != g.dtype
            or any(covered[at[1] : at[2]])
        ):  # fmt: skip
            self.finish(edge)
            return 0
        door.copy_into(door.slice(total, key=key), g)
        covered[at[1] : at[2]] = b"\1" * (at[2] - at[1])
        return 1

    def finish(self, node: Node) -> bool:
        """Before anybody else reads what has arrived for ``node``: zeros where nothing was written. Whether there are
        others like it."""
        half = self.halves.pop(node, None)
        if half is not None:
            _fill_gaps(half)
        return bool(self.halves)

    def finish_all(self) -> None:
        while self.halves:
            _fill_gaps(self.halves.popitem()[1])


def _stretch(key: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(axis, start, stop) of a key that takes neighbours along one axis and everything of the others; None for
    others."""
    found = (0, 0, shape[0]) if shape else None
    if found is None or len(key) > len(shape):
        return None
    parted = False
    for axis, (part, size) in enumerate(zip(key, shape, strict=False)):
        if type(part) is int:
            start, stop = part, part + 1
        elif type(part) is slice:
            start, stop, step = part.indices(size)
            if step != 1:
                return None
        else:
            return None
        if not 0 <= start < stop <= size:
            return None
        if (start, stop) == (0, size):
            continue
        if parted:
            return None
        parted, found = True, (axis, start, stop)
    return found


def _place(door: Any, edge: Node, g: Any, shape: tuple[int, ...]) -> Any:
    """An array of ``shape``, laid out as the source's, or it would be copied once more, where the node permutes."""
    dims = edge.attrs["dims"] if edge.op.name == "permute" else None
    if dims is None:
        return door.empty_as(g, shape=tuple(shape))
    sizes = [0] * len(shape)
    for size, dim in zip(shape, dims, strict=True):
        sizes[dim] = size
    return door.permute(door.empty_as(g, shape=tuple(sizes)), dims=dims)


def _fill_gaps(half: _Half) -> None:
    array, door, axis, covered = half
    stop = 0
    while (start := covered.find(0, stop)) >= 0:
        stop = covered.find(1, start)
        stop = len(covered) if stop < 0 else stop
        gap = door.slice(array, key=(slice(None),) * axis + (slice(start, stop, 1),))
        door.copy_into(gap, door.zeros_as(gap, shape=tuple(gap.shape)))
