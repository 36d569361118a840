"""Which calls reduce all of a value, or some axes of it: a formula that makes the value can do so on its way."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import NamedTuple

from ..fused import ATTRS, LETTERS
from ..program import Call, Value

__all__ = ["Reduced", "columns", "lies_in_matrices", "reduced"]


class Reduced(NamedTuple):
    """A letter of a formula's ``sums``, the number of axes (0: all), whether they are kept, and how many are behind."""

    letter: str
    axes: int
    keepdim: bool
    behind: int = 0


_LETTER = {name: letter for letter, name in LETTERS.items()} | {"sum_to": "s"}
_TOTALS = frozenset("sm")
_COLUMNS = frozenset("smxn")
_FEW = 8  # elements of a row: fewer have no maximum in a vector
_LONG = 16384  # a longer one is reduced in pieces, by several threads
_COMPILED = 256  # elements: fewer are no work for machine code
_NARROW = 16  # columns: fewer are summed faster side by side, from where they are stored


def reduced(call: Call, value: Value) -> Reduced | None:
    """How the call reduces all of the value, or its last axes, if a formula may do it instead; None if not."""
    found = _reduced(call, value)
    if found is None or found.behind:
        return None
    if not found.axes:
        return found if found.letter in _TOTALS else None
    length = prod(value.shape[len(value.shape) - found.axes :])
    least = 2 if found.letter in _TOTALS else _FEW + 1
    return found if found.axes < 10 and least <= length <= _LONG else None


def columns(call: Call, value: Value) -> Reduced | None:
    """The same of axes that others are behind: columns of matrices."""
    found = _reduced(call, value)
    if found is None or not 0 < found.behind < 10 or found.axes >= 10 or found.letter not in _COLUMNS:
        return None
    last = len(value.shape) - found.behind
    rows, width = prod(value.shape[last - found.axes : last]), prod(value.shape[last:])
    return found if rows > 1 and width >= _NARROW and prod(value.shape) >= _COMPILED else None


def lies_in_matrices(value: Value, shape: tuple[int, ...], how: Reduced) -> bool:
    """Whether the axes that are reduced, and those behind them, are one each of the value as it is broadcast to this
    shape, and columns lie side by side or are all the same."""
    missing = len(shape) - len(value.shape)
    steps = (0,) * missing + value.strides_in_items
    last = len(shape) - how.behind
    rows, wide = (
        [d for d in axes if shape[d] != 1] for axes in (range(last - how.axes, last), range(last, len(shape)))
    )
    joined = all(steps[a] == steps[b] * shape[b] for axes in (rows, wide) for a, b in pairwise(axes))
    return joined and steps[wide[-1]] in (0, 1)


def _reduced(call: Call, value: Value) -> Reduced | None:
    """How the call reduces axes of the value that stand side by side; of all of them to one number as no axes."""
    letter = _LETTER.get(call.op.name)
    made = call.results[0]
    if letter is None or call.writes or len(call.inputs) != 1 or call.inputs[0] is not value:
        return None
    if made is None or made.root is not made or made.dtype != value.dtype:
        return None
    ndim = len(value.shape)
    if call.op.name == "sum_to":
        keepdim = len(made.shape) == ndim
        shape = (1,) * (ndim - len(made.shape)) + made.shape
        dims = [d for d, (n, m) in enumerate(zip(shape, value.shape, strict=True)) if n != m]
        while keepdim and dims and dims[-1] + 1 < ndim and value.shape[dims[-1] + 1] == 1:
            dims.append(dims[-1] + 1)
        if not made.shape:
            dims, keepdim = list(range(ndim)), False
        elif not keepdim:
            dims = list(range(ndim - len(made.shape)))
            if made.shape != value.shape[len(dims) :]:
                return None
    else:
        attrs = dict(call.attrs)
        given, keepdim = attrs.pop("dim", None), attrs.pop("keepdim", None)
        if attrs != ATTRS.get(call.op.name, {}) or type(given) is not tuple or type(keepdim) is not bool:
            return None
        dims = sorted(d % ndim for d in given)
    if not dims or dims != list(range(dims[0], dims[0] + len(dims))):
        return None
    if len(dims) == ndim and not keepdim:
        return Reduced(letter, 0, False)
    return Reduced(letter, len(dims), keepdim, ndim - 1 - dims[-1]) if len(dims) < ndim else None
