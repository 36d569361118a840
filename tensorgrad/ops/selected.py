"""``x[mask]`` while a program is written, whose shapes are fixed: what can be said of it for any number of elements.

How many elements a mask picks is known when it is there, so no program holds them. Yet ``x[mask] -= 1`` needs no such
array: Python picks elements, changes them and puts them back under the same mask, and of all of ``x`` that is
``where(mask, x - 1, x)``. A ``Selection`` is what Python has in its hands meanwhile. It goes through Python's operators
with numbers, with tensors that broadcast for any number of elements and with what the same mask picks elsewhere, and
can be put where its mask picks; its sum is that of the whole with zeros elsewhere, in another order, where a backend's
programs sum in orders of their own. Any other use, its shape included, asks for elements: it becomes the tensor that it
is in an ordinary run, whose arithmetic runs beside, and the program one of so many elements; or it is refused.

What the mask leaves out is computed as well, of ones: a division that nobody asked for is none by zero, and a gradient
that is zero there meets no infinite derivative.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..dispatch import Picking, local
from ..dtypes import BY_NAME, PYTHON_KEYS, key_of, result_name
from ..tensor import Tensor
from . import pointwise as pw
from . import reduce
from . import shape_core as core
from .index import same_dtype
from .inplace import write_into

__all__ = ["Selection", "goes_two_ways", "put_back", "selection", "settled"]

_REDUCED = ("sum", "mean")
_HARMLESS = frozenset(("__class__", "_selected", *_REDUCED))
_SUMMED = frozenset(("bool", "int32", "int64", "float32", "float64"))  # in which a sum is as exact as its result


class _Selected:
    """What is known of a selection.

    ``plain``: the tensor of an ordinary run. ``whole``: one that has the elements where the mask holds. ``seen``: at
    which versions this and the mask were looked at. ``picking``: to be told.
    """

    __slots__ = ("mask", "picking", "plain", "seen", "whole")

    def __init__(self, plain: Tensor, whole: Tensor, mask: Tensor, picking: Picking):
        self.plain = plain
        self.whole = whole
        self.mask = mask
        self.picking = picking
        self.seen = tuple((x, x._version) for x in (whole, mask))

    def holds(self) -> bool:
        """Whether what it was picked from, and by, are as they were."""
        return all(x._version == version for x, version in self.seen)

    def where_it_holds(self, x: Tensor, beside: Tensor) -> Tensor:
        """``x``, an operand beside another one, with ones where the mask doesn't hold."""
        if not x._data.ndim:
            if not (grad_state.recording and x._tracked) and x._data.dtype.kind not in "biu":
                return x
            # it has no say in the dtype, and as many dims as the whole has one
            x = x.to(BY_NAME[result_name((key_of(beside._data), key_of(x._data)))])
        return pw.where(self.under(), x, True if x._data.dtype.kind == "b" else 1)

    def is_by(self, mask: Tensor) -> bool:
        return mask is self.mask or any(ear.alike(self.mask, mask) for ear in local.listeners)

    def under(self) -> Tensor:
        """The mask with as many dims as the whole."""
        shape = tuple(self.mask._data.shape)
        missing = self.whole._data.ndim - len(shape)
        return core.reshape(self.mask, shape=(*shape, *(1,) * missing)) if missing else self.mask


class Selection(Tensor):
    """The elements that a mask picks, as long as nobody wants to see them."""

    _selected: _Selected
    _reduces = True  # its own way

    def __getattribute__(self, name: str) -> Any:
        if name not in _HARMLESS:
            _become_plain(self)
        return object.__getattribute__(self, name)


def selection(x: Tensor, mask: Tensor, pick: Callable[[], Tensor], picking: Picking) -> Selection:
    """What ``mask`` picks of ``x``, where ``pick()`` does so in an ordinary run."""
    return _made(picking.beside(pick), x, mask, picking)


def _made(plain: Tensor, whole: Tensor, mask: Tensor, picking: Picking) -> Selection:
    made = Selection.__new__(Selection)
    made._data = None  # so that nothing written in C finds an array
    made._selected = _Selected(plain, whole, mask, picking)
    for ear in local.listeners:
        ear.selected(made)
    return made


def settled(x: Tensor) -> Callable[[], None] | None:
    """Makes a selection that outlives the run the tensor that it is; what says that it is wanted, or None if it was
    none."""
    if type(x) is not Selection:
        return None
    say = functools.partial(x._selected.picking.wanted, x._selected.plain)
    _turn(x)
    return say


def _become_plain(x: Selection) -> None:
    x._selected.picking.wanted(x._selected.plain)
    _turn(x)


def _turn(x: Selection) -> None:
    selected = x._selected
    del x._selected
    x.__class__ = Tensor  # type: ignore[assignment]
    for name in ("_data", "_node", "_slot", "_tracked", "_cell", "_inference"):
        setattr(x, name, getattr(selected.plain, name))


def put_back(target: Tensor, mask: Tensor, value: Selection) -> bool:
    """Write a selection where ``mask``, a mask of the target, picks; False if that can't be said for any number."""
    selected = value._selected
    whole, k = selected.whole, mask._data.ndim
    if not selected.holds() or not selected.is_by(mask):
        return False
    if whole._data.ndim != target._data.ndim or whole._data.shape[k:] != target._data.shape[k:]:
        return False
    same_dtype("index_put", target._data, selected.plain._data)
    if whole is not target and whole._cell is not None and whole._cell is target._cell:
        whole = core.contiguous_copy(whole)  # it is read before the first write
    write_into(pw.where, target, (selected.under(), whole, target), {})
    return True


def goes_two_ways(picking: Picking, x: Any) -> bool:
    """Whether gradients of ``x`` might be added in another order than they must: they go through the whole where its
    elements are put back, and past it where they are wanted."""
    return picking.exact and grad_state.recording and isinstance(x, Tensor) and x._tracked


def _whole_of(x: Any, beside: _Selected) -> Any:
    """(in an ordinary run, where the mask holds): what an operand beside a selection is; None if nobody knows."""
    if type(x) is Selection:
        selected = x._selected
        fits = selected.holds() and beside.is_by(selected.mask) and selected.whole._data.ndim == beside.whole._data.ndim
        return (selected.plain, selected.whole) if fits else None
    if isinstance(x, Tensor):
        return (x, x) if x._data.ndim <= beside.whole._data.ndim - beside.mask._data.ndim else None
    return (x, x) if type(x) in PYTHON_KEYS else None


def _combined(function: Any, private: Any, mine: _Selected, others: tuple[Any, ...], reflected: bool) -> Any:
    """An operator's result (in an ordinary run, where the mask holds); None if that can't be said for any number of
    elements. In an ordinary run ``private`` is called, which may write into its first operand."""
    operands = [_whole_of(x, mine) for x in others]
    if not mine.holds() or None in operands or any(goes_two_ways(mine.picking, pair[0]) for pair in operands if pair):
        return None
    operands.insert(len(others) if reflected else 0, (mine.plain, mine.whole))
    plain = mine.picking.beside(lambda: private(*[x for x, _ in operands]))
    if not isinstance(plain, Tensor):
        return None
    return plain, function(*[mine.where_it_holds(x, mine.whole) if isinstance(x, Tensor) else x for _, x in operands])


def _reduced(selected: _Selected, name: str) -> Tensor | None:
    """The sum or the mean of all elements; None if that can't be said for any number of them."""
    array, mask = selected.whole._data, selected.mask._data
    if not selected.holds() or array.dtype.name not in _SUMMED or not array.size:
        return None
    if not selected.picking.sums or (name == "mean" and array.dtype.kind != "f"):
        return None
    total = reduce.sum(pw.where(selected.under(), selected.whole, False if array.dtype.kind == "b" else 0))
    if name == "sum":
        return total
    count = pw.mul(reduce.count_nonzero(selected.mask), array.size // mask.size)
    return pw.div(total, core.cast(count, dtype=array.dtype))


def _reduction(name: str) -> None:
    def method(self: Selection, *args: Any, **how: Any) -> Any:
        found = None if args or how else _reduced(self._selected, name)
        if found is None:
            _become_plain(self)
            return getattr(self, name)(*args, **how)
        return found

    setattr(Selection, name, method)


def _operator(name: str, before: str = "") -> None:
    function = getattr(operator, f"__{name}__")
    private = getattr(operator, f"__i{name}__") if before == "i" else function
    attribute = f"__{before}{name}__"

    def method(self: Selection, *others: Any) -> Any:
        mine = self._selected
        found = _combined(function, private, mine, others, before == "r")
        if found is None:
            _become_plain(self)
            return getattr(self, attribute)(*others)
        plain, whole = found
        if before != "i":
            return _made(plain, whole, mine.mask, mine.picking)
        if whole._data.dtype != plain._data.dtype:
            whole = core.cast(whole, dtype=plain._data.dtype)
        self._selected = _Selected(plain, whole, mine.mask, mine.picking)
        return self

    setattr(Selection, attribute, method)


for _name in _REDUCED:
    _reduction(_name)
for _name in ("neg", "pos", "abs", "invert"):
    _operator(_name)
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"):
    for _before in ("", "r", "i"):
        _operator(_name, _before)
