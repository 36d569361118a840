"""Draws the arrays that a sample describes: the same ones every time."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..dtypes import COMPLEX_OF, numpy_dtype
from ..ops.samples import Arg, Sample

__all__ = ["draw", "inputs_of"]

_GAP = 0.15  # how far elements stay from the values in `avoid`


def _values(arg: Arg, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if arg.kind == "b":
        return rng.random(arg.shape) < 0.5
    if arg.kind == "i":
        return rng.integers(int(np.ceil(arg.low)), int(np.floor(arg.high)) + 1, arg.shape)
    values = rng.uniform(arg.low, arg.high, arg.shape)
    for point in arg.avoid:
        near = np.abs(values - point) < _GAP
        values = np.where(near, point + np.where(values >= point, _GAP, -_GAP), values)
    if arg.kind == "c":
        return values + 1j * rng.uniform(arg.low, arg.high, arg.shape)
    return values


def _laid_out(array: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """The same elements in memory of another order."""
    if layout == "T" and array.ndim >= 2:
        return np.ascontiguousarray(np.swapaxes(array, -1, -2)).swapaxes(-1, -2)
    if layout == "step" and array.ndim >= 1:
        roomy = np.zeros((*array.shape[:-1], array.shape[-1] * 2), dtype=array.dtype)
        roomy[..., ::2] = array
        return roomy[..., ::2]
    if layout == "expand" and array.ndim >= 1 and array.shape[0] > 0:
        return np.broadcast_to(array[:1], array.shape)
    return array


def draw(arg: Arg, dtype: str, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """The array of one argument; floating kinds in ``dtype``."""
    values = np.asarray(arg.values).reshape(arg.shape) if arg.values is not None else _values(arg, rng)
    if arg.kind == "c":
        values = values.astype(COMPLEX_OF[dtype])
    elif arg.kind == "f":
        values = values.astype(numpy_dtype(dtype))
    elif arg.kind == "s":
        values = values.astype(numpy_dtype("float64" if dtype == "float64" else "float32"))
    elif arg.kind == "i":
        values = values.astype(np.int64)
    return _laid_out(np.asarray(values), arg.layout)


def inputs_of(op_name: str, sample: Sample, dtype: str) -> list[Any]:
    """The sample's inputs: arrays, and numbers and None as they stand."""
    rng = np.random.default_rng(zlib.crc32(f"{op_name}/{sample.name}".encode()))
    return [draw(arg, dtype, rng) if isinstance(arg, Arg) else arg for arg in sample.inputs]
