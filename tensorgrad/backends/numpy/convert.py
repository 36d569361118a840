"""Conversions between dtypes that give the same on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..generic.reduce import wide

__all__ = ["converted"]


def converted(xp: Any, x: Any, dtype: Any) -> Any:
    """``x`` as a fresh array of ``dtype``.

    Floats to integers truncate; NaN and what does not fit become the smallest int32, cut to narrower types, or the
    smallest int64: what the C++ kernels give. NumPy leaves it to the processor: x86 gives the same, Arm saturates.
    """
    if dtype.kind not in "iu" or x.dtype.kind not in "fV":
        return x.astype(dtype)
    through, least = (np.int64, -(2.0**63)) if dtype.itemsize == 8 else (np.int32, -(2.0**31))
    x = wide(x)
    return xp.where((x >= least) & (x < -least), x, least).astype(through).astype(dtype, copy=False)
