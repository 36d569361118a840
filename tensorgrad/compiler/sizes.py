"""How a number follows from the size of a batch, as data: what ``dynamic=True`` reads off two programs, and what a file
says in place of numbers.

``{"batch size": ["times", 4]}`` is four times the size. There are five forms, and a file can have no other:

============  ======================  ===============================================
form          for the size n          where it comes from
============  ======================  ===============================================
"times", k    k * n                   shapes, strides, numbers of elements
"plus", k     k + n                   ends of slices, windows along the batch
"share", x    x / n                   means
"each", x     x * n, a float          sums of counts
"unbiased"    k * n / (k * n - 1)     a variance
============  ======================  ===============================================
"""

from __future__ import annotations

import json
from typing import Any

from ..io.safetensors import FileError
from .plain import expect, whole

__all__ = ["KEY", "Unlike", "at_size", "follows", "merged", "number_at", "same_but_names", "size_of", "text_of"]

KEY = "batch size"  # no attribute of an op can have this name
_MOST = 1 << 48
_LARGEST = 1e300
_NAMES = ("name", "line")  # of values and lines of source: nothing rests on them


class Unlike(Exception):
    """Two numbers, or two programs, of which nobody knows how they follow from the size."""


def follows(a: int | float, b: int | float, sizes: tuple[int, int]) -> tuple[str, int | float] | None:
    """The form of a number that is ``a`` for the first size and ``b`` for the second; None if it has none."""
    first, second = sizes
    if type(a) is int and type(b) is int:
        if a % first == 0 and a // first * second == b:
            return "times", a // first
        return ("plus", a - first) if a - first == b - second else None
    if type(a) is not float or type(b) is not float or not max(abs(a), abs(b)) < _LARGEST / first:
        return None
    share = round(a * first)
    if share and share / first == a and share / second == b:
        return "share", share
    each = a / first
    if each.is_integer() and each * second == b:
        return "each", each
    if a > 1.0:  # n / (n - 1), which makes a variance unbiased
        count = round(a / (a - 1.0))
        if count % first == 0:
            per = count // first
            if all(number_at("unbiased", per, n) == x for n, x in zip(sizes, (a, b), strict=True)):
                return "unbiased", per
    return None


def number_at(form: str, k: int | float, size: int) -> int | float:
    """The number of a form for a size."""
    if form == "times":
        return k * size
    if form == "plus":
        return k + size
    if form == "share":
        return k / size
    if form == "each":
        return float(k) * size
    return k * size / (k * size - 1)


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
    expect(form in ("times", "plus"), "a size of a shape was expected")
    if form == "plus":
        return number - int(k)
    return number // int(k) if k and number % int(k) == 0 else None


def text_of(written: dict[str, Any]) -> str:
    """A number of a shape in words."""
    form, k = _checked(written)
    if form == "times":
        return "n" if k == 1 else f"{k} * n"
    return f"n + {k}" if k >= 0 else f"n - {-k}"


def _checked(written: dict[str, Any]) -> tuple[str, int | float]:
    parts = written[KEY]
    fits = len(written) == 1 and type(parts) is list and len(parts) == 2 and type(parts[0]) is str
    expect(fits, "a number that follows from the batch size was expected")
    form, k = parts
    if form in ("times", "unbiased"):
        sign = -1 if type(k) is int and k < 0 and form == "times" else 1
        whole(k * sign if type(k) is int else k, _MOST, form)
    elif form in ("plus", "share"):
        expect(type(k) is int and abs(k) < _MOST, f"{form}: a number was expected")
    elif form == "each":
        expect(type(k) is float and abs(k) < _LARGEST, f"{form}: a number was expected")
    else:
        raise FileError(f"a number that follows from the batch size in the unknown way {form[:40]!r}")
    return form, k
