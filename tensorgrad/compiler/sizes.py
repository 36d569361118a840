"""How a number follows from the size of a batch, as data: what ``dynamic=True`` reads off two programs, and what a file
says in place of numbers.

``{"batch size": ["times", 4]}`` is four times the size. There are seven forms, and a file can have no other:

===================  ======================  ==================================================
form                 for the size n          where it comes from
===================  ======================  ==================================================
"times", k           k * n                   shapes, strides, numbers of elements
"plus", k            k + n                   ends of slices, windows along the batch
"affine", [k, m]     k * n + m               degrees of freedom, ends of slices of what is flat;
                                             also two floats, for a float
"share", x           x / n                   means
"over", x            1 / (x * n)             means over several columns
"each", x            x * n, a float          sums of counts
"unbiased", k        k * n / (k * n - 1)     a variance
===================  ======================  ==================================================
"""

from __future__ import annotations

import json
import math
from typing import Any

from ..io.safetensors import FileError
from .plain import expect, whole

__all__ = ["KEY", "Unlike", "at_size", "follows", "merged", "number_at", "same_but_names", "size_of", "text_of"]

KEY = "batch size"  # no attribute of an op can have this name
_MOST = 1 << 48
_LARGEST = 1e300
_FURTHEST = 2  # from a multiple of the size: what is further off may be a square, n * (n - 1) / 2 or the like
_PARTS = 4  # of one, that the factor below a fraction is counted in: 2 / (3 * n) is 1 / (1.5 * n)
_NAMES = ("name", "line")  # of values and lines of source: nothing rests on them


class Unlike(Exception):
    """Two numbers, or two programs, of which nobody knows how they follow from the size."""


def follows(a: int | float, b: int | float, sizes: tuple[int, int]) -> tuple[str, Any] | None:
    """The form of a number that is ``a`` for the first size and ``b`` for the second; None if it has none."""
    first, second = sizes
    k: Any
    if first == second:
        return None
    if type(a) is int and type(b) is int:
        if a % first == 0 and a // first * second == b:
            return "times", a // first
        if a - first == b - second:
            return "plus", a - first
        k, rest = divmod(a - b, first - second)
        return ("affine", [k, a - k * first]) if rest == 0 and abs(a - k * first) <= _FURTHEST else None
    if type(a) is not float or type(b) is not float or not max(abs(a), abs(b)) < _LARGEST / first:
        return None
    if a.is_integer() and b.is_integer() and max(abs(a), abs(b)) < _MOST:
        form, k = follows(int(a), int(b), sizes) or ("none", None)
        if form == "times":
            return "each", float(k)
        if form != "none":
            slope, more = (1, k) if form == "plus" else k
            return "affine", [float(slope), float(more)]
    share = round(a * first)
    if share and share / first == a and share / second == b:
        return "share", share
    factor = round(_PARTS / (a * first)) / _PARTS if abs(a) * first > 1 / _MOST else 0.0
    if factor and _is_over(factor, a, first) and _is_over(factor, b, second):
        return ("over", factor) if _is_told(factor, sizes) else None
    if a > 1.0:  # n / (n - 1), which makes a variance unbiased
        count = round(a / (a - 1.0))
        if count % first == 0:
            per = count // first
            if all(number_at("unbiased", per, n) == x for n, x in zip(sizes, (a, b), strict=True)):
                return "unbiased", per
    return None


def _is_over(factor: float, number: float, size: int) -> bool:
    return 1.0 / (factor * size) == number


def _is_told(factor: float, sizes: tuple[int, int]) -> bool:
    """Whether these sizes tell ``1 / (factor * n)`` from ``1 / factor / n`` and from ``1 / n / factor``, which are
    rounded twice: for other sizes they may be other numbers."""
    if math.frexp(factor)[0] in (0.5, -0.5):
        return True  # a power of two is divided by without being rounded
    return all(
        any(other(n) != 1.0 / (factor * n) for n in sizes)
        for other in (lambda n: 1.0 / factor / n, lambda n: 1.0 / n / factor)
    )


def number_at(form: str, k: Any, size: int) -> int | float:
    """The number of a form for a size."""
    found: int | float
    if form == "times":
        found = k * size
    elif form == "plus":
        found = k + size
    elif form == "affine":
        found = k[0] * size + k[1]
    elif form == "share":
        found = k / size
    elif form == "over":
        found = 1.0 / (k * size)
    elif form == "each":
        found = float(k) * size
    else:
        found = k * size / (k * size - 1)
    return found


def merged(a: Any, b: Any, sizes: tuple[int, int], key: Any = None) -> Any:
    """The JSON of which two, of programs of these sizes, are cases. Raises Unlike if nobody knows it."""
    if type(a) is not type(b):
        raise Unlike(f"{key}: {a!r:.60} and {b!r:.60}")
    if type(a) is dict:
        if a.keys() != b.keys():
            raise Unlike(f"{key}: {list(a)!r:.60} and {list(b)!r:.60}")
        return {name: merged(x, b[name], sizes, name) for name, x in a.items()}
    if type(a) is list:
        if len(a) != len(b):
            raise Unlike(f"{key}: {len(a)} and {len(b)} of them")
        return [merged(x, y, sizes, key) for x, y in zip(a, b, strict=True)]
    if a == b and repr(a) == repr(b):
        return a
    if type(a) is str and key in _NAMES:
        return a
    found = follows(a, b, sizes) if type(a) in (int, float) else None
    if found is None:
        raise Unlike(f"{key}: {a!r:.60} and {b!r:.60}")
    return {KEY: list(found)}


def at_size(written: Any, size: int) -> Any:
    """The JSON of one size, of that of all. Raises FileError for what is none of the forms."""
    if type(written) is list:
        return [at_size(x, size) for x in written]
    if type(written) is not dict:
        return written
    if KEY not in written:
        return {name: at_size(x, size) for name, x in written.items()}
    form, k = _checked(written)
    count = k * size if form == "unbiased" else 2
    expect(count > 1, f"{form}: there is no such number for the size {size}")
    return number_at(form, k, size)


def same_but_names(a: Any, b: Any) -> bool:
    """Whether two programs' JSON says the same, whatever values are called."""
    try:
        return json.dumps(merged(a, b, (1, 1))) == json.dumps(a)
    except Unlike:
        return False


def size_of(written: Any, number: int) -> int | None:
    """The size for which a number of a shape is this one, where the shape has a form for it; None if there is none."""
    form, k = _checked(written)
    whole_number = form in ("times", "plus") or (form == "affine" and type(k[0]) is int)
    expect(whole_number, "a size of a shape was expected")
    if form == "plus":
        return number - int(k)
    k, more = k if form == "affine" else (k, 0)
    return (number - more) // k if k and (number - more) % k == 0 else None


def text_of(written: dict[str, Any]) -> str:
    """A number of a shape in words."""
    form, k = _checked(written)
    if form == "times":
        return "n" if k == 1 else f"{k} * n"
    times, more = (f"{k[0]} * n", k[1]) if form == "affine" else ("n", k)
    return f"{times} + {more}" if more >= 0 else f"{times} - {-more}"


def _checked(written: dict[str, Any]) -> tuple[str, Any]:
    parts = written[KEY]
    fits = len(written) == 1 and type(parts) is list and len(parts) == 2 and type(parts[0]) is str
    expect(fits, "a number that follows from the batch size was expected")
    form, k = parts
    if form in ("times", "unbiased"):
        sign = -1 if type(k) is int and k < 0 and form == "times" else 1
        whole(k * sign if type(k) is int else k, _MOST, form)
    elif form in ("plus", "share"):
        expect(type(k) is int and abs(k) < _MOST, f"{form}: a number was expected")
    elif form == "affine":
        fits = type(k) is list and [type(x) for x in k] in ([int, int], [float, float])
        fits = fits and all(abs(x) < _MOST for x in k)
        expect(fits, f"{form}: two numbers were expected")
    elif form == "over":
        expect(type(k) is float and 1 / _PARTS <= abs(k) < _MOST, f"{form}: a number was expected")
    elif form == "each":
        expect(type(k) is float and abs(k) < _LARGEST, f"{form}: a number was expected")
    else:
        raise FileError(f"a number that follows from the batch size in the unknown way {form[:40]!r}")
    return form, k
