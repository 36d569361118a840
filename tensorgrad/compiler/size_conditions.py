"""``SizeConditions``: for which sizes of a batch Python does what it did when two programs were written."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from ..autograd.node import describe_line
from .program import Value
from .sizes import Unlike
from .tracked_sizes import SizesRead

__all__ = ["SizeConditions"]

_ORDERS = (operator.lt, operator.le, operator.gt, operator.ge)
_EQUAL = (operator.eq, operator.ne, bool)
_LEAST = 2  # a size of 1 is in no family
_FAR = 1 << 60


class _Affine(NamedTuple):
    """``times * n + more``, two ints."""

    times: int
    more: int


class _Known(NamedTuple):
    """The same for all sizes."""

    value: Any


class _Fraction(NamedTuple):
    """``c * (k * n + m)`` or ``c / (k * n + m)``: what two sizes show of it is true of all."""


_Form = _Affine | _Known | _Fraction


class SizeConditions:
    """``hold(size)``: whether every question gets the answer that it got, and every number that does not follow from
    the size in a way that two sizes show is the number that it was.

    Args:
        read: the sizes that Python has read in a run.
        sizes: those of two runs, this one's the second.
        shape_of: by value and size the shape. Raises Unlike where nobody knows it.
    Raises: Unlike if the run of the first size must have gone another way.
    """

    def __init__(self, read: SizesRead, sizes: tuple[int, int], shape_of: Callable[[Value, int], tuple[int, ...]]):
        if read.numbers is None:
            raise Unlike("too many numbers are computed of sizes")
        self.numbers = read.numbers
        self.forms: list[_Form] = []
        self.asked: list[int] = []  # places of what must be again what it was
        for place, number in enumerate(self.numbers):
            if number.operate is None:
                value, axis = number.parts
                first, second = (shape_of(value, size)[axis] for size in sizes)
                times, rest = divmod(second - first, sizes[1] - sizes[0])
                if rest or second != number.value:
                    raise Unlike(f"nobody knows how {number.value} follows from the size")
                self.forms.append(_Affine(times, first - times * sizes[0]) if times else _Known(number.value))
                continue
            form = _form(number.operate, [self._part(part) for part in number.parts], number.value)
            if form is None:
                self.asked.append(place)
                form = _Known(number.value)
            self.forms.append(form)
        for size in sizes:
            if not self.hold(size):
                raise Unlike(self.text)

    def _part(self, part: tuple[bool, Any]) -> _Form:
        return self.forms[part[1]] if part[0] else _Known(part[1])

    def hold(self, size: int) -> bool:
        if not self.asked:
            return True
        found: list[Any] = []
        for number, form in zip(self.numbers[: self.asked[-1] + 1], self.forms, strict=False):
            if number.operate is None:
                found.append(form.times * size + form.more if isinstance(form, _Affine) else number.value)
                continue
            try:
                found.append(number.operate(*(found[x] if at else x for at, x in number.parts)))
            except (ArithmeticError, ValueError):
                return False
        return all(_same(found[place], self.numbers[place].value) for place in self.asked)

    @property
    def text(self) -> str:
        """Where Python's way depends on the size, in words; the first such place."""
        if not self.asked:
            return ""
        line = self.numbers[self.asked[0]].line
        return f"Python's way depends on the size{f' at {describe_line(line)}' if line else ''}"


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _form(operate: Callable[..., Any], parts: list[_Form], value: Any) -> _Form | None:
    """How a number follows from the size; None if it must be asked again for each."""
    if all(isinstance(part, _Known) for part in parts):
        return _Known(value)
    if operate in _ORDERS or operate in _EQUAL:
        return _Known(value) if _always(operate, parts) else None
    given = [_whole(part) for part in parts]
    if all(x is not None for x in given) and type(value) is int:
        found = _affine(operate, given)
        if found is not None:
            return found if found.times else _Known(value)
    if operate is operator.neg and isinstance(parts[0], _Fraction):
        return parts[0]
    if len(parts) == 2 and type(value) is float and operate in (operator.mul, operator.truediv):
        known = [part.value for part in parts if isinstance(part, _Known)]
        if len(known) == 1 and known[0]:
            return _Fraction()
    return None


def _whole(part: _Form) -> Any:
    if isinstance(part, _Known):
        return _Affine(0, int(part.value)) if type(part.value) in (int, bool) else None
    return part if isinstance(part, _Affine) else None


def _affine(operate: Callable[..., Any], given: list[Any]) -> _Affine | None:
    a, b = given if len(given) == 2 else (given[0], None)
    if b is None:
        sign = {operator.neg: -1, operator.pos: 1}.get(operate)
        return None if sign is None else _Affine(sign * a.times, sign * a.more)
    if operate is operator.add:
        return _Affine(a.times + b.times, a.more + b.more)
    if operate is operator.sub:
        return _Affine(a.times - b.times, a.more - b.more)
    if operate is operator.mul and not (a.times and b.times):
        return _Affine(a.times * b.more + b.times * a.more, a.more * b.more)
    return None


def _always(operate: Callable[..., Any], parts: list[_Form]) -> bool:
    """Whether all sizes from two on give a comparison the same answer."""
    given = [_whole(part) for part in parts]
    if None in given:
        return False
    apart = given[0] if operate is bool else _affine(operator.sub, given)
    if apart is None:
        return False
    if operate in _EQUAL:
        return not apart.times or -apart.more % apart.times != 0 or -apart.more // apart.times < _LEAST
    return operate(_LEAST * apart.times + apart.more, 0) is operate(_FAR * apart.times + apart.more, 0)
