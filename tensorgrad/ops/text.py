"""How a tensor prints: PyTorch's layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import get_default_dtype
from ..tensor import Tensor, install
from .convert import host

__all__ = ["set_printoptions"]

_options = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80}


def set_printoptions(
    precision: int | None = None, threshold: int | None = None, edgeitems: int | None = None,
    linewidth: int | None = None,
) -> None:  # fmt: skip
    """How many digits, elements and columns tensors print with; None leaves a value as it is."""
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options.update({key: value for key, value in given.items() if value is not None})


def _float_text(values: np.ndarray[Any, Any]) -> Any:
    """A formatter for finite floats: all whole, scientific, or fixed with the chosen digits."""
    finite = values[np.isfinite(values)].astype(np.float64)
    digits = _options["precision"]
    magnitude = np.abs(finite[finite != 0])
    if finite.size and np.all(finite == np.rint(finite)) and (not magnitude.size or magnitude.max() < 1e8):
        return lambda v: f"{v:.0f}." if np.isfinite(v) else str(float(v))
    wide = magnitude.size and (
        magnitude.max() / magnitude.min() > 1000.0 or magnitude.max() > 1e8 or magnitude.min() < 1e-4
    )
    kind = "e" if wide else "f"
    return lambda v: f"{v:.{digits}{kind}}" if np.isfinite(v) else str(float(v))


def _format(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind in "fV":
        return _float_text(array.astype(np.float64))
    if array.dtype.kind == "c":
        real, imag = _float_text(array.real), _float_text(np.abs(array.imag))
        return lambda v: f"{real(v.real)}{'-' if v.imag < 0 else '+'}{imag(abs(v.imag))}j"
    return str


def _rows(array: np.ndarray[Any, Any], text: Any, width: int, indent: int, summarize: bool) -> str:
    edge = _options["edgeitems"]
    if array.ndim == 0:
        return str(text(array[()]))
    cut = summarize and array.shape[0] > 2 * edge
    picked = [*range(edge), None, *range(array.shape[0] - edge, array.shape[0])] if cut else range(array.shape[0])
    if array.ndim == 1:
        per_line = max(1, (_options["linewidth"] - indent) // max(1, width + 2))
        cells = ["..." if i is None else text(array[i]).rjust(width) for i in picked]
        lines = [", ".join(cells[i : i + per_line]) for i in range(0, len(cells), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    parts = ["..." if i is None else _rows(array[i], text, width, indent + 1, summarize) for i in picked]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _shown(array: np.ndarray[Any, Any], summarize: bool) -> np.ndarray[Any, Any]:
    """The elements that will be printed: what the format is chosen from."""
    edge = _options["edgeitems"]
    if summarize:
        for axis, size in enumerate(array.shape):
            if size > 2 * edge:
                array = np.take(array, [*range(edge), *range(size - edge, size)], axis=axis)
    return array


def __repr__(self: Tensor) -> str:
    if hasattr(self._data, "mapped"):  # within vmap
        return repr(self._data)
    array = host(self)
    summarize = array.size > _options["threshold"]
    if array.size == 0:
        body = "[]" if array.ndim == 1 else f"[], size={tuple(array.shape)}"
    else:
        shown = _shown(array, summarize)
        text = _format(shown)
        flat = shown.reshape(-1)
        # NaN and infinities do not widen whole numbers' columns, as in PyTorch
        finite = flat[np.isfinite(flat.astype(np.complex128))] if flat.dtype.kind in "fcV" else flat
        width = max((len(text(v)) for v in (finite if finite.size else flat)), default=0)
        body = _rows(array, text, width, len("tensor("), summarize)
    notes = []
    if self.device.type != "cpu":
        notes.append(f"device='{self.device}'")
    usual = (get_default_dtype().name, "int64", "bool") + (("complex64",) if get_default_dtype().itemsize == 4 else ())
    if array.dtype.name not in usual or (array.size == 0 and array.dtype.name != get_default_dtype().name):
        notes.append(f"dtype={self.dtype!r}")
    node = self.grad_fn
    if node is not None:
        notes.append(f"grad_fn={node!r}")
    elif self._tracked:
        notes.append("requires_grad=True")
    name = "Parameter containing:\n" if getattr(self, "_is_param", False) else ""
    return f"{name}tensor({', '.join([body, *notes])})"


install(__repr__)
