"""Which calls reduce all of a value, or its last axes: a formula that makes the value can do so on its way."""

from __future__ import annotations

from math import prod

from ..fused import ATTRS, LETTERS
from ..program import Call, Value

__all__ = ["Reduced", "reduced"]

Reduced = tuple[str, int, bool]  # a letter of a formula's ``sums``, the number of axes (0: all), whether they are kept

_LETTER = {name: letter for letter, name in LETTERS.items()} | {"sum_to": "s"}
_TOTALS = frozenset("sm")
_FEW = 8  # elements of a row: fewer have no maximum in a vector
_LONG = 16384  # a longer one is reduced in pieces, by several threads


def reduced(call: Call, value: Value) -> Reduced | None:
    """How the call reduces the value, if a formula may do it instead; None if not."""
    letter = _LETTER.get(call.op.name)
    made = call.results[0]
    if letter is None or call.writes or len(call.inputs) != 1 or call.inputs[0] is not value:
        return None
    if made is None or made.root is not made or made.dtype != value.dtype:
        return None
    ndim = len(value.shape)
    if call.op.name == "sum_to":
        if not made.shape:
            return letter, 0, False
        axes, keepdim = _ones_behind(made.shape), True
        if len(made.shape) != ndim or made.shape[: ndim - axes] != value.shape[: ndim - axes]:
            return None
    else:
        meant = ATTRS.get(call.op.name, {})
        attrs = dict(call.attrs)
        dims, keepdim = attrs.pop("dim", None), attrs.pop("keepdim", None)
        if attrs != meant or type(dims) is not tuple or type(keepdim) is not bool:
            return None
        axes = len(dims)
        if sorted(d % ndim for d in dims) != list(range(ndim - axes, ndim)):
            return None
        if axes == ndim and letter in _TOTALS and not keepdim:
            return letter, 0, False
    length = prod(value.shape[ndim - axes :])
    least = 2 if letter in _TOTALS else _FEW + 1
    return (letter, axes, keepdim) if 0 < axes < ndim and axes < 10 and least <= length <= _LONG else None


def _ones_behind(shape: tuple[int, ...]) -> int:
    return next((i for i, n in enumerate(reversed(shape)) if n != 1), len(shape))
