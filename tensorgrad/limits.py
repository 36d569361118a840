"""What numbers a dtype holds: ``finfo`` of floating-point ones, ``iinfo`` of integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .dtypes import as_dtype, get_default_dtype

__all__ = ["finfo", "iinfo"]

_DIGITS = {"float16": 3, "bfloat16": 2, "float32": 6, "float64": 15}  # decimal, that every number keeps


class finfo:
    """Range and precision of a floating-point dtype; for a complex one, of its parts.

    Attributes: ``bits``, ``eps`` (from 1 to the next number), ``max``, ``min`` (the lowest), ``tiny`` and
    ``smallest_normal``, ``resolution``, ``dtype`` (its name).
    Raises: TypeError for integers.
    Example:
        >>> import tensorgrad as tg
        >>> tg.finfo(tg.float32).eps
        1.1920928955078125e-07
    """

    def __init__(self, type: Any = None):
        dtype = get_default_dtype() if type is None else as_dtype(type).to_real()
        if not dtype.is_floating_point:
            raise TypeError(f"finfo: {dtype} is not a floating-point dtype; see iinfo.")
        self.dtype = dtype.name
        self.bits = 8 * dtype.itemsize
        if dtype.name == "bfloat16":
            self.eps, self.max, self.tiny = 2.0**-7, (2 - 2.0**-7) * 2.0**127, 2.0**-126
        else:
            found = np.finfo(dtype.np)
            self.eps, self.max, self.tiny = float(found.eps), float(found.max), float(found.tiny)
        self.min = -self.max
        self.smallest_normal = self.tiny
        self.resolution = 10.0 ** -_DIGITS[dtype.name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, finfo) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        listed = ", ".join(f"{name}={getattr(self, name):g}" for name in names)
        return f"finfo({listed}, dtype={self.dtype})"


class iinfo:
    """Range of an integer dtype.

    Attributes: ``bits``, ``max``, ``min``, ``dtype`` (its name). Raises TypeError for other dtypes.
    Example:
        >>> import tensorgrad as tg
        >>> tg.iinfo(tg.uint8).max
        255
    """

    def __init__(self, type: Any):
        dtype = as_dtype(type)
        if dtype.category != 1:
            raise TypeError(f"iinfo: {dtype} is not an integer dtype; see finfo.")
        self.dtype = dtype.name
        self.bits = 8 * dtype.itemsize
        found = np.iinfo(dtype.np)
        self.min, self.max = int(found.min), int(found.max)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, iinfo) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
