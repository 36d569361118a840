"""Sizes that remember where they come from: what Python computes with the size of a batch, and asks of it.

While a function runs that is compiled with ``dynamic=True``, ``x.shape`` holds ``TrackedInt``s: numbers as any other,
whose arithmetic is written down. What a condition was decided by (``if x.shape[0] > 8``) and what is rounded
(``x.shape[0] // 2``) is known afterwards, and a program of two sizes serves a third one only where Python would have
done the same; see ``size_conditions.py``.

A ``for`` over ``range(n)`` and an index or slice of a Python list read a number past its methods, and are not seen.
What they lead to shows where the program is compared with that of a further run; see ``Family.expected``.
"""

from __future__ import annotations

import math
import operator
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..autograd.node import inside, user_line
from ..ops.shape_core import one_dim
from ..tensor import Size, Tensor
from ..utils._pytree import tree_flatten, tree_unflatten
from .program import Value

__all__ = ["Number", "SizesRead", "TrackedFloat", "TrackedInt", "same_number", "untracked", "untracked_in"]

_MOST = 10_000  # numbers of one run: who computes with sizes in long loops has no program for all sizes


class Number(NamedTuple):
    """One number of a run: ``operate(*parts)``, where a part is (True, place among the numbers) or (False, what it is).

    A size that was read has no ``operate``; its parts are the value and the axis. ``value``: what it was in the run.
    ``line``: the user's line.
    """

    operate: Callable[..., Any] | None
    parts: tuple[Any, ...]
    value: Any
    line: Any


class SizesRead:
    """``numbers``: in the order in which Python has computed them, until ``close``; None if there were too many.

    Args:
        value_of: the Value of an array; None for what was there before the run, whose shape is a fact like others.
    """

    def __init__(self, value_of: Callable[[Any], Value | None]):
        self.value_of = value_of
        self.numbers: list[Number] | None = []
        self.open = True

    def give_up(self) -> None:
        """Nobody knows what was computed."""
        self.numbers = None

    def note(self, operate: Callable[..., Any] | None, parts: tuple[Any, ...], value: Any) -> int:
        if self.numbers is not None and len(self.numbers) >= _MOST:
            self.numbers = None
        if self.numbers is None:
            return -1
        self.numbers.append(Number(operate, parts, value, user_line(3)))
        return len(self.numbers) - 1

    def computed(self, operate: Callable[..., Any], given: tuple[Any, ...], value: Any) -> Any:
        """The result of an operation on numbers of which one at least is tracked."""
        parts = tuple([
            (True, x._place) if isinstance(x, _TRACKED) and x._read is self else (False, untracked(x)) for x in given
        ])  # fmt: skip
        place = self.note(operate, parts, value)
        if type(value) is int:
            return TrackedInt.of(value, self, place)
        return TrackedFloat.of(value, self, place) if type(value) is float else value

    def shape_of(self, array: Any) -> Any:
        value = self.value_of(array)
        if value is None:
            return Size(array.shape)
        return Size([TrackedInt.of(n, self, self.note(None, (value, i), n)) for i, n in enumerate(array.shape)])

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Tensors of this thread tell their sizes so."""
        outer = getattr(_here, "read", None)
        try:  # which may be interrupted anywhere
            _here.read = self
            _swap(self)
            yield
        finally:
            _here.read = outer
            self.open = False
            _swap(self)


class _Tracked:
    _read: SizesRead
    _place: int

    def __new__(cls, *args: Any) -> Any:
        return _BASES[cls](*args)  # who makes a number of another's type (``statistics``) has a plain one

    @classmethod
    def of(cls, value: Any, read: SizesRead, place: int) -> Any:
        made = _BASES[cls].__new__(cls, value)
        made._read, made._place = read, place
        return made

    def __reduce__(self) -> Any:
        return _BASES[type(self)], (untracked(self),)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **how: Any) -> Any:
        """NumPy's functions read the number itself."""
        if self._read.open and _by_user():
            for x in inputs:
                if isinstance(x, _TRACKED):
                    self._read.computed(same_number, (x,), untracked(x))
        return getattr(ufunc, method)(*map(untracked, inputs), **how)

    def conjugate(self) -> Any:
        return self

    @property
    def real(self) -> Any:
        return self


class TrackedInt(_Tracked, int):
    """A size, or a whole number that was computed of sizes."""

    @property
    def numerator(self) -> Any:
        return self


class TrackedFloat(_Tracked, float):
    """A fraction that was computed of sizes."""


_TRACKED = (TrackedInt, TrackedFloat)
_COMPARED = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)
_BASES: dict[type, Any] = {TrackedInt: int, TrackedFloat: float}


def untracked(x: Any) -> Any:
    """The plain number of a tracked one; all else as it is, tuples, lists and slices opened."""
    kind = type(x)
    if kind is TrackedInt:
        return int.__index__(x)
    if kind is TrackedFloat:
        return float.__pos__(x)
    if kind is tuple or kind is list:
        return kind(map(untracked, x))
    return slice(untracked(x.start), untracked(x.stop), untracked(x.step)) if kind is slice else x


def untracked_in(tree: Any) -> Any:
    """The same container if it has no tracked number, else one with plain ones."""
    leaves, spec = tree_flatten(tree)
    plain = [*map(untracked, leaves)]
    return tree if all(map(operator.is_, leaves, plain)) else tree_unflatten(plain, spec)


def same_number(x: Any) -> Any:
    """The operation behind what can only be told to be the same as it was: a number as a key, or as text."""
    return x


def _by_user() -> bool:
    """Whether the method that asks was called in the user's code. This package's own conversions make a number another
    type and nothing else."""
    return not inside[sys._getframe(2).f_code.co_filename]


def _operation(operate: Callable[..., Any], *, reflected: bool = False) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        read = self._read
        if any(not isinstance(x, (int, float, type(None))) for x in others):
            if read.open and not any(isinstance(x, Tensor) for x in others):
                read.computed(same_number, (self,), untracked(self))
            return NotImplemented
        given = (*others, self) if reflected else (self, *others)
        value = operate(*map(untracked, given))
        if not read.open or (operate in _COMPARED and _is_check(self, *others) and not _by_user()):
            return value
        return read.computed(operate, given, value)

    return method


def _is_check(number: Any, other: Any) -> bool:
    """Whether this package may only be comparing a size with the same one, of an array, which tells a plain number: the
    numbers that it treats apart are 0 and 1."""
    return not isinstance(other, _TRACKED) and type(other) is int and other > 1 and untracked(number) == other


def _reading(name: str, operate: Callable[..., Any], *, always: bool) -> Callable[..., Any]:
    """A method whose result is no number that could be tracked; in this package's own code it is no question."""

    def method(self: Any, *args: Any, **how: Any) -> Any:
        value = getattr(_BASES[type(self)], name)(self, *args, **how)
        if self._read.open and (always or _by_user()):
            self._read.computed(operate, (self,), operate(untracked(self)))
        return value

    return method


_TWO: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "divmod": divmod,
}  # fmt: skip
_BITS: dict[str, Callable[..., Any]] = {
    "lshift": operator.lshift, "rshift": operator.rshift, "and": operator.and_, "or": operator.or_,
    "xor": operator.xor,
}  # fmt: skip
_ORDERS: dict[str, Callable[..., Any]] = {
    "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
_ONE: dict[str, Callable[..., Any]] = {
    "neg": operator.neg, "pos": operator.pos, "abs": abs, "floor": math.floor, "ceil": math.ceil, "trunc": math.trunc,
    "round": round, "bool": bool,
}  # fmt: skip
_READ: dict[str, Callable[..., Any]] = {
    "__hash__": same_number, "__repr__": same_number, "__str__": same_number, "__format__": same_number, "__int__": int,
    "__float__": same_number, "__index__": same_number, "as_integer_ratio": same_number, "bit_length": same_number,
    "bit_count": same_number, "to_bytes": same_number, "is_integer": same_number, "hex": same_number,
}  # fmt: skip
for _kind in _TRACKED:
    for _name, _operate in {**_TWO, **(_BITS if _kind is TrackedInt else {})}.items():
        setattr(_kind, f"__{_name}__", _operation(_operate))
        setattr(_kind, f"__r{_name}__", _operation(_operate, reflected=True))
    for _name, _operate in {**_ORDERS, **_ONE, **({"invert": operator.invert} if _kind is TrackedInt else {})}.items():
        setattr(_kind, f"__{_name}__", _operation(_operate))
    for _name, _operate in _READ.items():
        _always = _operate is int and _kind is TrackedFloat  # which rounds
        if hasattr(_BASES[_kind], _name):
            setattr(_kind, _name, _reading(_name, _operate, always=_always))


# --- tensors that tell their sizes so

_here = threading.local()
_lock = threading.Lock()
_readers: list[SizesRead] = []
_plain: dict[str, Any] = {}


def _swap(reader: SizesRead) -> None:
    """Tensor's methods are others only while somebody reads: eager code pays nothing for them. One that was interrupted
    before it could say that it has ended is forgotten here."""
    with _lock:
        if not _plain:
            _plain.update({name: Tensor.__dict__[name] for name in _METHODS})
        _readers[:] = [one for one in (*_readers, reader) if one.open]
        for name, method in (_METHODS if _readers else _plain).items():
            if Tensor.__dict__[name] is not method:
                setattr(Tensor, name, method)


def _shape(self: Tensor) -> Any:
    read = getattr(_here, "read", None)
    return Size(self._data.shape) if read is None else read.shape_of(self._data)


def _size(self: Tensor, dim: int | None = None) -> Any:
    if getattr(_here, "read", None) is None or (dim is not None and not self._data.ndim):
        return _plain["size"](self, dim)
    if dim is None:
        return _shape(self)
    _plain["size"](self, dim)  # which raises where there is no such axis
    return _shape(self)[dim]


def _numel(self: Tensor) -> Any:
    return _shape(self).numel()


def _length(self: Tensor) -> int:
    """``len()`` gives a plain int, so that what is computed of it can't be followed."""
    read = getattr(_here, "read", None)
    length: int = _plain["__len__"](self)
    if read is not None and _by_user() and read.value_of(self._data) is not None:
        read.computed(same_number, (_shape(self)[0],), length)
    return length


def _bytes(self: Tensor) -> Any:
    return _shape(self).numel() * int(self._data.itemsize)


def _stride(self: Tensor, dim: int | None = None) -> Any:
    steps = _plain["stride"](self)
    read = getattr(_here, "read", None)
    if read is None:
        return steps if dim is None else _plain["stride"](self, dim)
    shape, told, step = _shape(self), list(steps), 1
    for axis in reversed(range(len(steps))):
        if step == steps[axis]:
            told[axis] = step
        elif _by_user():
            for n in shape:  # who knows how it follows from them
                if isinstance(n, TrackedInt):
                    read.computed(same_number, (n,), untracked(n))
        step = step * shape[axis]
    return tuple(told) if dim is None else told[one_dim("stride", dim, len(told))]


_METHODS = {
    "shape": property(_shape), "size": _size, "numel": _numel, "nelement": _numel, "__len__": _length,
    "nbytes": property(_bytes), "stride": _stride,
}  # fmt: skip
