"""Numbers in ranges, and the positions of triangles."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import registry
from ..device import where
from ..dispatch import local, was_made
from ..dtypes import BY_NAME, DType, as_dtype, get_default_dtype
from ..errors import ArgumentError, DTypeError, ShapeError
from ..expr import functions as fn
from ..layout import check_layout
from ..tensor import Tensor, wrap
from .checks import integer, real
from .create import finish, to_device
from .elementwise import Elementwise, elementwise
from .shape_core import require_addressable
from .storable import check_storable

__all__ = ["arange", "eye", "linspace", "logspace", "range", "tril_indices", "triu_indices"]


def _made(
    name: str, values: Any, dtype: DType, layout: Any, device: Any, requires_grad: bool, pin_memory: bool,
    out: Tensor | None,
) -> Tensor:  # fmt: skip
    """Host numbers as a tensor of the dtype, or in ``out``. Raises DTypeError for numbers beyond an integer dtype."""
    check_layout(name, layout)
    given = np.asarray(values)
    if dtype.category == 1 and given.dtype.kind == "f" and given.size:
        limits = np.iinfo(dtype.np)
        if not (limits.min <= given.min() and given.max() < float(limits.max) + 1):
            raise DTypeError(f"{name}: the numbers from {given.min()} to {given.max()} do not fit {dtype}.")
    placed = to_device(given.astype(dtype.np, copy=False), out.device if device is None and out is not None else device)
    was_made(placed, values)
    if out is not None:
        from .inplace import deliver

        result = deliver(name, wrap(placed), out)
        return result.requires_grad_() if requires_grad else result
    return finish(wrap(placed).pin_memory()._data if pin_memory else placed, requires_grad)


def _number(name: str, value: Any) -> Any:
    """A Python number from a number or a tensor of no dimensions."""
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim:
            raise ShapeError(f"{name}: only supports 0-dimensional start and end tensors, got {tuple(value.shape)}.")
        return value.item()
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, (bool, int, float, complex)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}: {value!r}.")
    return value


def _dtype_for(dtype: Any, out: Tensor | None, default: DType) -> DType:
    return as_dtype(dtype) if dtype is not None else default if out is None else out.dtype


def arange(
    *bounds: Any, start: Any = None, end: Any = None, step: Any = None, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers from ``start`` to ``end`` (excluded) in steps: ``arange(4)``, ``arange(1, 4)``, ``arange(0, 1, 0.1)``.

    Integers give int64, floats the default dtype. With an integer ``dtype`` the start and the step are cut to
    integers, as in PyTorch.

    Raises: ArgumentError (a RuntimeError and ValueError) for a step of zero, or one that leads away from ``end``.
    Example:
        >>> import tensorgrad as tg
        >>> tg.arange(1, 2.5, 0.5).tolist()
        [1.0, 1.5, 2.0]
    """
    plain = start is None and end is None and step is None and dtype is None and out is None
    if plain and len(bounds) == 1 and type(bounds[0]) is int and 0 <= bounds[0] < _EXACT:  # the usual call
        return _counted(0, 1, bounds[0], BY_NAME["int64"], layout, device, requires_grad, pin_memory)
    first, last, by = _bounds("arange", bounds, start, end, step)
    floats = any(isinstance(v, float) for v in (first, last, by))
    chosen = _dtype_for(dtype, out, get_default_dtype() if floats else BY_NAME["int64"])
    _check_range("arange", first, last, by)
    if chosen.category == 3:
        raise DTypeError(f"arange: complex numbers have no order; got dtype {chosen}.")
    if chosen.name == "int64":  # cut before they are counted, in other integer dtypes after that
        if by in (float("inf"), -float("inf")):
            raise ArgumentError(f"arange: unsupported range: {first} -> {last} in steps of {by}.")
        first, last, by = int(first), int(last), int(by)
        integer("arange", "step", by)
        if by == 0:
            raise ArgumentError("arange: step must be nonzero; it is cut to the integer 0 for dtype int64.")
    if all(isinstance(v, int) for v in (first, last, by)):
        first, last, by = int(first), int(last), int(by)
        count = max(0, -(-(last - first) // by))
    else:
        steps = np.ceil((last - first) / by)
        if not steps < 2.0**63:
            raise ArgumentError(f"arange: from {first} to {last} there are more steps of {by} than can be addressed.")
        count = max(0, int(steps))
    require_addressable("arange", (count,))
    if chosen.category < 2:
        for bound in (first, by):
            check_storable("arange", bound, chosen)
        first, by = int(first), int(by)
    if out is None and isinstance(first, int) and isinstance(by, int) and max(abs(first), abs(last)) < _EXACT:
        return _counted(first, by, count, chosen, layout, device, requires_grad, pin_memory)
    exact = np.arange(count)
    if isinstance(first, float) or isinstance(by, float):
        exact = exact.astype(np.float64)
    if first != 0 or by != 1:
        exact = first + exact * by
    return _made("arange", exact, chosen, layout, device, requires_grad, pin_memory, out)


_EXACT = 1 << 62


def _counted(
    first: int, by: int, count: int, dtype: DType, layout: Any, device: Any, requires_grad: bool, pin_memory: bool
) -> Tensor:
    """Whole numbers in steps, made on the device; calls as any other, so that a program of any size can hold them."""
    check_layout("arange", layout)
    place = where(device)
    found = registry.on_device(place)
    with found.on(place.index):
        door = local.doors[found.array_type]
        array = door.ramp(first=first, by=by, count=count)
        if dtype.name != "int64":
            array = door.cast(array, dtype=dtype.np)
    return finish(wrap(array).pin_memory()._data if pin_memory else array, requires_grad)


def _bounds(name: str, bounds: tuple[Any, ...], start: Any, end: Any, step: Any) -> tuple[Any, Any, Any]:
    """(start, end, step) as Python numbers, from what was given in order and by name."""
    order = ("end",) if len(bounds) == 1 and end is None else ("start", "end", "step")
    if len(bounds) > len(order):
        raise TypeError(f"{name}: takes start, end and step, got {len(bounds)} positional arguments.")
    given = dict(zip(order, bounds, strict=False))
    for key, value in (("start", start), ("end", end), ("step", step)):
        if value is not None:
            if key in given:
                raise TypeError(f"{name}: {key} was given twice.")
            given[key] = value
    if "end" not in given:
        raise TypeError(f"{name}: the argument end is missing.")
    parts = given.get("start", 0), given["end"], given.get("step", 1)
    first, last, by = (_number(name, part) for part in parts)
    for key, value in (("start", first), ("end", last), ("step", by)):
        if isinstance(value, int):
            integer(name, key, int(value))
    return first, last, by


def _check_range(name: str, first: Any, last: Any, by: Any) -> None:
    if complex in (type(first), type(last), type(by)):
        raise DTypeError(f"{name}: complex numbers have no order; got {first} to {last} in steps of {by}.")
    if by == 0:
        raise ArgumentError(f"{name}: step must be nonzero.")
    if not (np.isfinite(first) and np.isfinite(last)) or by != by:
        raise ArgumentError(f"{name}: unsupported range: {first} -> {last} in steps of {by}.")
    if (last - first) * by < 0:
        raise ArgumentError(
            f"{name}: upper bound and lower bound inconsistent with step sign: step {by} does not lead from {first} "
            f"to {last}."
        )


def range(
    *bounds: Any, start: Any = None, end: Any = None, step: Any = None, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers from ``start`` to ``end``, which is included, in the default dtype; ``arange`` is what Python means."""
    first, last, by = _bounds("range", bounds, start, end, step)
    _check_range("range", first, last, by)
    chosen = _dtype_for(dtype, out, get_default_dtype())
    count = int((last - first) / by) + 1
    require_addressable("range", (count,))
    return _made("range", first + np.arange(count) * by, chosen, layout, device, requires_grad, False, out)


def _spaced(name: str, start: Any, end: Any, steps: Any, dtype: DType) -> np.ndarray[Any, Any]:
    """The numbers of ``linspace`` before they are cut to the dtype: the second half is counted from the end, so that
    both ends are exact."""
    count = integer(name, "steps", steps)
    if count < 0:
        raise ArgumentError(f"{name}: number of steps must be non-negative, got {count}.")
    if dtype.category < 2 and not (name == "logspace" and count == 1):
        for bound in (start, end):
            check_storable(name, bound, dtype)
        start, end = int(start), int(end)
    for bound in (start, end):
        check_storable(name, bound, dtype)
    kind = np.complex128 if dtype.category == 3 else np.float64
    first, last = kind(start), kind(end)
    if count == 1:
        return np.full(1, first)
    step = (last - first) / max(count - 1, 1)
    if count >= _MANY and dtype.category == 2 and np.isfinite(step):
        door = local.doors[np.ndarray]
        at = door.ramp(first=0, by=1, count=count)
        kernel = getattr(door, _SPACED[dtype.name].name)
        made: np.ndarray[Any, Any] = kernel(at, float(first), float(last), float(step), count // 2, count - 1)
        return made
    at = np.arange(count)
    return np.where(at < count // 2, first + step * at, last - step * (count - 1 - at))


_MANY = 1024  # numbers from which on a kernel, in memory that was used before, is faster than NumPy


def _spaced_formula(name: str) -> Elementwise:
    """Number ``at`` of those of ``_spaced``, in float64, stored as the dtype of that name."""

    def formula(at: Any, first: Any, last: Any, step: Any, half: Any, most: Any) -> Any:
        place, back = fn.cast(at, "float64"), fn.cast(most - at, "float64")
        return fn.cast(fn.where(at < half, first + step * place, last - step * back), name)

    op: Elementwise = elementwise(formula, name=f"linspace_{name}", doc="The numbers of ``linspace``.")
    op.derived = True
    return op


_SPACED = {name: _spaced_formula(name) for name, dtype in BY_NAME.items() if dtype.category == 2}


def _spaced_dtype(name: str, dtype: Any, out: Tensor | None, *ends: Any) -> DType:
    complex_ends = any(isinstance(v, complex) for v in ends)
    default = get_default_dtype().to_complex() if complex_ends else get_default_dtype()
    chosen = _dtype_for(dtype, out, default)
    if complex_ends and chosen.category < 3:
        raise DTypeError(f"{name}: complex ends need a complex dtype, got {chosen}.")
    return chosen


def linspace(
    start: Any, end: Any, steps: int, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """``steps`` numbers evenly spaced from ``start`` to ``end``, both included; the ends may be 0-d tensors."""
    ends = _number("linspace", start), _number("linspace", end)
    chosen = _spaced_dtype("linspace", dtype, out, *ends)
    values = _spaced("linspace", *ends, steps, chosen)
    return _made("linspace", values, chosen, layout, device, requires_grad, pin_memory, out)


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """``base`` to the powers evenly spaced from ``start`` to ``end``, both included."""
    ends = _number("logspace", start), _number("logspace", end)
    chosen = _spaced_dtype("logspace", dtype, out, *ends)
    base = real("logspace", "base", base)
    powers = _spaced("logspace", *ends, steps, chosen)
    with np.errstate(all="ignore"):
        values = np.power(powers.dtype.type(base), powers)
    return _made("logspace", values, chosen, layout, device, requires_grad, pin_memory, out)


def eye(
    n: int, m: int | None = None, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """The (n, m) matrix with ones on the diagonal. Raises ArgumentError for negative sizes."""
    rows = integer("eye", "n", n)
    columns = rows if m is None else integer("eye", "m", m)
    for letter, size in (("n", rows), ("m", columns)):
        if size < 0:
            raise ArgumentError(f"eye: {letter} must be greater or equal to 0, got {size}.")
    require_addressable("eye", (rows, columns))
    chosen = _dtype_for(dtype, out, get_default_dtype())
    values = local.doors[np.ndarray].full(shape=(rows, columns), value=0, dtype=chosen.np)
    values.reshape(-1)[: columns * min(rows, columns) : columns + 1] = 1
    return _made("eye", values, chosen, layout, device, requires_grad, pin_memory, out)


def _triangle(name: str, row: int, col: int, offset: int, dtype: Any, device: Any, layout: Any, lower: bool) -> Tensor:
    row, col = integer(name, "row", row), integer(name, "col", col)
    offset = integer(name, "offset", offset)
    if row < 0 or col < 0:
        raise ArgumentError(f"{name}: row and col must be non-negative, got {row} and {col}.")
    chosen = as_dtype(dtype)
    if chosen.name not in ("int64", "int32"):
        raise DTypeError(f'{name}: "{name}" is not implemented for {chosen}; positions are int64 or int32.')
    offset = max(-row, min(offset, col))
    first, last = (max(0, -offset), row) if lower else (0, min(row, col - offset))
    require_addressable(name, (max(last - first, 0),))
    rows = np.arange(first, last if col else first)
    starts = np.zeros_like(rows) if lower else np.clip(rows + offset, 0, col)
    counts = np.clip(rows + offset + 1, 0, col) if lower else col - starts
    ends = np.cumsum(counts)
    columns = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts + counts - ends, counts)
    return _made(name, np.stack([np.repeat(rows, counts), columns]), chosen, layout, device, False, False, None)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = BY_NAME["int64"], device: Any = None, layout: Any = None
) -> Tensor:
    """The positions of the lower triangle of a (row, col) matrix: (2, n), rows first, in row-major order."""
    return _triangle("tril_indices", row, col, offset, dtype, device, layout, True)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = BY_NAME["int64"], device: Any = None, layout: Any = None
) -> Tensor:
    """The positions of the upper triangle of a (row, col) matrix: (2, n), rows first, in row-major order."""
    return _triangle("triu_indices", row, col, offset, dtype, device, layout, False)
