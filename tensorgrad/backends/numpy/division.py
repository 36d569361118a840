"""Integer division by zero, which is refused where the quotient is at hand: on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import DivisionByZero

__all__ = ["DIVISIONS", "checked"]

DIVISIONS = frozenset(("floor_divide", "fmod", "remainder", "trunc_divide"))
_INTEGERS = frozenset((bool, int))


def checked(name: str, kernel: Callable[..., Any], refuse_zeros: Callable[[Any, str], None]) -> Callable[..., Any]:
    """The kernel of a division that raises DivisionByZero before integers are divided by zero.

    ``refuse_zeros(divisor, text)`` raises it for an array with a zero.
    """
    text = f"{name}: ZeroDivisionError: integers can't be divided by zero."

    def divide(a: Any, b: Any, **to: Any) -> Any:
        if type(b) in _INTEGERS:
            if b == 0 and (type(a) in _INTEGERS or (a.dtype.kind in "iub" and a.size)):
                raise DivisionByZero(text)
        elif type(b) is not float and type(b) is not complex and b.dtype.kind in "iub":
            integers = type(a) in _INTEGERS or (hasattr(a, "dtype") and a.dtype.kind in "iub")
            if integers and (type(a) in _INTEGERS or a.size):
                refuse_zeros(b, text)
        return kernel(a, b, **to)

    divide.native = kernel  # type: ignore[attr-defined]
    return divide
