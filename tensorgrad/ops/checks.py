"""What the infer functions of the op families check alike, and small helpers over ``F`` that they share."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..autograd.grad_mode import state as grad_state
from ..dispatch import recorded
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from .shape_core import as_index

FLOAT32 = np.dtype(np.float32)


def np_dtype(x: Any) -> np.dtype[Any]:
    """The NumPy dtype of an array or of a Tensor's array: rules and definitions meet both."""
    return x._data.dtype if isinstance(x, Tensor) else x.dtype


def is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def statistic_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which statistics of such elements are kept: float32 for half precision."""
    return FLOAT32 if dtype.itemsize == 2 else dtype


def require_float(name: str, x: Any, *, complex: bool = False) -> None:
    """Raises DTypeError unless ``x`` is floating point (or complex, where that is allowed)."""
    dtype = x.dtype
    if not (dtype.kind == "f" or (complex and dtype.kind == "c") or dtype.name == "bfloat16"):
        raise DTypeError(f"{name}: expected a floating-point tensor, got {dtype.name}. Convert it with .float().")


def require_same_dtype(name: str, first: Any, **others: Any) -> None:
    """Raises DTypeError unless the others (None is skipped) have the dtype of ``first``."""
    dtype = first.dtype
    for label, other in others.items():
        if other is not None and other.dtype is not dtype and other.dtype != dtype:
            raise DTypeError(
                f"{name}: expected the same dtype everywhere, got {dtype.name} and {label} of {other.dtype.name}. "
                f"Convert one: {label} = {label}.to(x.dtype)."
            )


def require_one_dtype(name: str, first: Any, **others: Any) -> None:
    """``require_same_dtype``, but within autocast, which brings them to one."""
    if not grad_state.casting:
        require_same_dtype(name, first, **others)


def require_tensors(name: str, **given: Any) -> None:
    """Raises TypeError unless every argument is a Tensor."""
    for label, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: {label} must be a Tensor, got {type(x).__name__}.")


def require_optional(name: str, **given: Any) -> None:
    """Raises TypeError unless every argument is a Tensor or None."""
    for label, x in given.items():
        if x is not None and not isinstance(x, Tensor):
            raise TypeError(f"{name}: {label} must be a Tensor or None, got {type(x).__name__}.")


def require_outs(name: str, out: Any) -> None:
    """Raises TypeError unless ``out`` is two Tensors."""
    if not isinstance(out, (tuple, list)) or len(out) != 2 or not all(isinstance(x, Tensor) for x in out):
        raise TypeError(f"{name}: out must be two Tensors, got {out!r}.")


def integer(name: str, label: str, given: Any, end: int = 2**63) -> int:
    """``given`` as an integer. Raises TypeError for what is none, as True; ArgumentError beyond 64 bits, and from
    ``end`` on."""
    whole = as_index(given)
    if whole is None:
        raise TypeError(f"{name}: {label} must be an integer, got {given!r}.")
    if not -(2**63) <= whole < end:
        raise ArgumentError(f"{name}: {label} must fit into 64 bits, got {whole}.")
    return whole


def integers_of(name: str, given: Any) -> tuple[int, ...] | None:
    """The integers of a sequence or another iterable; None for what is none. Raises TypeError for other elements."""
    if isinstance(given, str) or not hasattr(given, "__iter__") or not getattr(given, "ndim", 1):
        return None
    return tuple([integer(name, "each number", one) for one in given])


def number(name: str, label: str, given: Any) -> Any:
    """``given`` as a real Python number: from NumPy's numbers and tensors without dimensions too. Raises TypeError for
    what is none, ArgumentError for an integer beyond the range of float64."""
    if type(given) is float or (type(given) is int and abs(given) < 2**1023):
        return given
    if isinstance(given, Tensor) and not given._data.ndim:
        given = given.item()
    if isinstance(given, np.generic) or (isinstance(given, np.ndarray) and not given.ndim):
        given = given.item()
    if not isinstance(given, (int, float)):
        raise TypeError(f"{name}: {label} must be a number, got {given!r}.")
    if isinstance(given, int) and abs(given) >= 2**1023:
        raise ArgumentError(f"{name}: {label} is beyond the range of float64.")
    return given


def flag(name: str, label: str, given: Any) -> bool:
    """``given`` as a truth value: NumPy's, and 0 and 1, too. Raises TypeError for what is none."""
    if given is True or given is False:
        return bool(given)
    if not isinstance(given, (int, np.integer, np.bool_)) or given not in (0, 1):
        raise TypeError(f"{name}: {label} must be a bool, got {given!r}.")
    return bool(given)


def real(name: str, label: str, given: Any) -> float:
    """``number`` as a float."""
    return float(number(name, label, given))


def require_within(name: str, input: Any, **others: Any) -> None:
    """Raises ShapeError for another tensor (None is skipped) that makes the input's shape larger as it broadcasts."""
    shape = tuple(input.shape)
    for label, other in others.items():
        if other is None:
            continue
        ends = shape[len(shape) - len(other.shape) :] if len(other.shape) <= len(shape) else ()
        if len(ends) != len(other.shape) or any(o not in (1, n) for o, n in zip(other.shape, ends, strict=True)):
            raise ShapeError(
                f"{name}: {label} of shape {tuple(other.shape)} does not broadcast to the input's {shape}."
            )


def require_vector(name: str, label: str, x: Any, size: int) -> None:
    """Raises ShapeError unless ``x`` is None or has shape ``(size,)``."""
    if x is not None and tuple(x.shape) != (size,):
        raise ShapeError(f"{name}: {label} has shape {tuple(x.shape)}, expected ({size},).")


def everywhere(condition: Tensor) -> bool:
    """Whether a bool tensor is True at every element, and in every sample of a ``vmap``. Waits for the device."""
    shape = condition._data.shape
    found = recorded.all(condition, dim=tuple(range(len(shape))), keepdim=False)._data
    if not hasattr(found, "mapped"):
        return bool(found)
    while hasattr(found, "mapped"):
        found = found.value
    return bool(found.all())


def product(sizes: Any) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def reshaped(F: Any, x: Any, shape: tuple[int, ...]) -> Any:
    """``x`` in another shape, copied first if its memory does not allow a view."""
    return x if tuple(x.shape) == shape else F.reshape(F.contiguous(x), shape=shape)


def shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``reshape`` of a user's tensor: a view that shares its version where possible, else of a copy."""
    if x._data.shape == shape:
        return x
    source = x if x._data.flags.c_contiguous else recorded.contiguous_copy(x)
    return recorded.reshape(source, shape=shape)


def swapped(F: Any, x: Any) -> Any:
    """``x`` with its last two dimensions exchanged."""
    n = x.ndim
    return F.permute(x, dims=(*range(n - 2), n - 1, n - 2))


def conjugate(F: Any, x: Any) -> Any:
    """``x`` itself if it is real: what the rule of a product multiplies the gradient with."""
    return F.conj(x) if np_dtype(x).kind == "c" else x


def legacy_reduction(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """The reduction that the older arguments ask for, if they are given; warns that they are old."""
    if size_average is None and reduce is None:
        return reduction
    asked = "none" if reduce is not None and not reduce else "mean" if size_average is None or size_average else "sum"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction={asked!r} instead.", stacklevel=3
    )
    return asked


def check_reduction(name: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}.")
