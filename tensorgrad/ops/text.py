"""How a tensor prints: PyTorch's layout, so that notebooks and logs compare line by line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import get_default_dtype
from ..tensor import Tensor, install
from .convert import host

__all__ = ["set_printoptions"]

_DEFAULT = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}
_PROFILES: dict[str, dict[str, Any]] = {
    "default": _DEFAULT,
    "short": {**_DEFAULT, "precision": 2, "edgeitems": 2},
    "full": {**_DEFAULT, "threshold": math.inf},
}
_options: dict[str, Any] = dict(_DEFAULT)


def set_printoptions(
    precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
    linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None,
) -> None:  # fmt: skip
    """How tensors print; None leaves a value as it is, but for ``sci_mode``, where it means: as the numbers ask for it.

    Args:
        precision: digits after the point.
        threshold: the number of elements above which a tensor is summarized.
        edgeitems: how many elements of each dimension a summary shows at each end.
        linewidth: columns of a line.
        profile: ``"default"``, ``"short"`` or ``"full"``: settings to start from.
        sci_mode: always (True) or never (False) use scientific notation.
    Raises: ValueError for another profile.
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, got {profile!r}.")
        _options.update(_PROFILES[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options.update({key: value for key, value in given.items() if value is not None})
    _options["sci_mode"] = sci_mode


# --- one number


class _Numbers:
    """How the numbers of a tensor are written: whole, fixed or scientific, and how wide. Chosen from those shown."""

    def __init__(self, shown: np.ndarray[Any, Any]):
        self.floats = shown.dtype.kind == "f"
        self.whole = True
        self.scientific = False
        self.width = 1
        values = shown.reshape(-1)
        if self.floats:
            values = values[np.isfinite(values) & (values != 0)]
            if values.size:
                self._choose(values)
        elif values.size:
            self.width = max(len(str(v)) for v in values.tolist())

    def _choose(self, values: np.ndarray[Any, Any]) -> None:
        sizes = np.abs(values).astype(np.float64)
        low, high = float(sizes.min()), float(sizes.max())
        with np.errstate(all="ignore"):
            wide = high / low > 1000.0 or high > 1.0e8
        self.whole = bool(np.all(values == np.ceil(values)))
        asked = _options["sci_mode"]
        self.scientific = asked if asked is not None else wide or (not self.whole and low < 1.0e-4)
        digits = _options["precision"]
        form = f".{digits}e" if self.scientific else ".0f" if self.whole else f".{digits}f"
        dot = 1 if self.whole and not self.scientific else 0
        self.width = max(len(format(v, form)) for v in values.tolist()) + dot

    def __call__(self, value: Any) -> str:
        if self.floats:
            if self.scientific:
                text = format(value, f"{self.width}.{_options['precision']}e")
            elif self.whole:
                text = f"{value:.0f}" + ("." if math.isfinite(value) else "")
            else:
                text = format(value, f".{_options['precision']}f")
        else:
            text = str(value)
        return text.rjust(self.width)


class _ComplexNumbers:
    """Real and imaginary part, each in a form of its own."""

    def __init__(self, shown: np.ndarray[Any, Any]):
        self.real, self.imag = _Numbers(shown.real), _Numbers(shown.imag)
        self.width = self.real.width + self.imag.width + 1

    def __call__(self, value: complex) -> str:
        imag = (self.imag(value.imag) + "j").lstrip()
        return self.real(value.real) + (imag if imag[0] in "+-" else "+" + imag)


# --- rows of numbers


def _summarized(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The elements that a summary shows: what the form of the numbers is chosen from."""
    edge = _options["edgeitems"]
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            array = np.take(array, [*range(edge), *range(size - edge, size)], axis=axis)
    return array


def _ends(size: int, summarize: bool) -> list[int | None]:
    """Which elements to show, None standing for those left out."""
    edge = _options["edgeitems"]
    if summarize and size > 2 * edge:
        return [*range(edge), None, *range(size - edge, size)]
    return list(range(size))


def _rows(array: np.ndarray[Any, Any], text: Callable[[Any], str], width: int, indent: int, summarize: bool) -> str:
    if array.ndim == 0:
        return text(array.item())
    picked = _ends(array.shape[0], summarize)
    if array.ndim > 1:
        parts = ["..." if i is None else _rows(array[i], text, width, indent + 1, summarize) for i in picked]
        return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"
    per_line = max(1, math.floor((_options["linewidth"] - indent) / (width + 2)))
    cells = [" ..." if i is None else text(array[i].item()) for i in picked]
    lines = [", ".join(cells[i : i + per_line]) for i in range(0, len(cells), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _body(array: np.ndarray[Any, Any], indent: int) -> str:
    summarize = array.size > _options["threshold"]
    if array.dtype.kind == "V":  # bfloat16 is no number that Python can format
        array = array.astype(np.float32)
    shown = _summarized(array) if summarize else array
    form: Any = _ComplexNumbers(shown) if array.dtype.kind == "c" else _Numbers(shown)
    return _rows(array, form, form.width, indent, summarize)


def _with_notes(body: str, notes: list[str], indent: int) -> str:
    """The notes behind the numbers, on a line of their own where the line is full."""
    last = len(body) - body.rfind("\n") + 1
    text = body
    for note in notes:
        if last + len(note) + 2 > _options["linewidth"]:
            text += ",\n" + " " * indent + note
            last = indent + len(note)
        else:
            text += ", " + note
            last += len(note) + 2
    return text + ")"


def __repr__(self: Tensor, *, tensor_contents: str | None = None) -> str:
    if hasattr(self._data, "mapped"):  # within vmap
        return repr(self._data)
    start = "tensor("
    default = get_default_dtype()
    notes = []
    place = self.device
    if place.type != "cpu":
        notes.append(f"device='{place}'")
    usual = (default, default.to_complex())
    dtype = self.dtype
    if self._data.size == 0:
        if self._data.ndim != 1:
            notes.append(f"size={tuple(self.shape)}")
        if dtype is not default:
            notes.append(f"dtype={dtype!r}")
        body = "[]"
    else:
        if dtype not in usual and dtype.name not in ("int64", "bool"):
            notes.append(f"dtype={dtype!r}")
        body = _body(host(self), len(start))
    node = self.grad_fn
    if node is not None:
        notes.append(f"grad_fn=<{node.name()}>")
    elif self._tracked:
        notes.append("requires_grad=True")
    return _with_notes(start + (tensor_contents or body), notes, len(start))


install(__repr__)
