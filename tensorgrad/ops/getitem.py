"""``x[key]`` and ``x[key] = value``: what a key means, split into a view and integer positions in it.

Integers, slices, None and Ellipsis make a view. Tensors, lists and masks then pick positions in that view: masks as the
positions where they hold. So ``x[0, :, [1, 2]]`` is ``x[0][:, [1, 2]]``, as in PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.grad_mode import state as grad_state
from ..backends import registry
from ..dispatch import in_private, local
from ..dtypes import BY_NAME, numpy_dtype
from ..errors import DTypeError, IndexOutOfRange, ShapeError
from ..tensor import Tensor, install
from . import shape_core as core
from .create import as_operand, tensor
from .exchange import lies_on_gpu, shared
from .index import as_value, elsewhere, index_op, index_put_op, put_in_place
from .inplace import assign, at_level_of, check_writable, write_into
from .selected import Selection, goes_two_ways, put_back, selection

__all__ = ["fill", "fill_", "zero_"]

_WHOLE = slice(None)
_INT64, _UINT8 = numpy_dtype("int64"), numpy_dtype("uint8")


def checked_index(index: Any, size: int, dim: int) -> int:
    """``index`` counted from the front. Raises IndexOutOfRange outside of the dimension."""
    at = core.as_index(int(index) if isinstance(index, bool) else index)
    if at is None:
        raise TypeError(f"an index must be an integer, got {index!r}")
    if not -size <= at < size:
        raise IndexOutOfRange(f"index {at} is out of bounds for dimension {dim} with size {size}")
    return at + size if at < 0 else at


def checked_slice(part: slice, size: int) -> slice:
    """The slice with its bounds resolved. Raises ValueError for a step that is not positive."""
    for bound in (part.start, part.stop, part.step):
        if (
            bound is not None
            and type(bound) is not int
            and core.as_index(bound) is None
            and not isinstance(bound, bool)
        ):
            raise TypeError(f"the bounds of a slice must be integers or None, got {bound!r}.")
    if part.step is not None and part.step.__index__() <= 0:
        raise ValueError("slice step must be greater than zero; use flip() to reverse a dimension.")
    start, stop, step = part.indices(size)
    return slice(start, max(start, stop), step)


def __getitem__(self: Tensor, key: Any) -> Tensor:
    """The elements at ``key``: a view for integers, slices, None and Ellipsis; a copy for tensors, lists and masks."""
    if local.listeners and _is_mask_of(self, key) and not local.frames:
        for ear in local.listeners:
            if (picking := ear.selects(key)) is not None and not goes_two_ways(picking, self):
                return selection(self, key, lambda: _picked(self, key), picking)
    return _picked(self, key)


def _picked(self: Tensor, key: Any) -> Tensor:
    view = _view_at_places(self, key) if local.listeners else None
    basic, spec, indices = _resolved(self, key, view is not None)
    if not indices:
        return core.slice_(self, key=basic)
    x = self if _is_whole(basic) else core.slice_(self, key=basic)
    picked: Tensor = index_op(x, *indices, spec=spec)
    if not local.listeners or any(i._data.ndim or getattr(i._data, "mapped", False) for i in indices):
        return picked
    for ear in local.listeners:
        ear.stands_for(picked._data, x._data, None if view is None else view._data)
    return picked if view is None else view


def _view_at_places(x: Tensor, key: Any) -> Tensor | None:
    """The view that a key of integers makes, some of which are tensors, for the run that is listened to: what comes
    behind it may change what it shows. None where there are none of those, where the view has a history of its own,
    and where it lies otherwise than a copy."""
    parts = key if isinstance(key, tuple) else (key,)
    if not any(type(part) is Tensor and not part._data.ndim and part._data.dtype.kind in "iu" for part in parts):
        return None
    if local.frames or (x.requires_grad and grad_state.recording):
        return None
    basic, _, indices = in_private(lambda: _resolved(x, key))
    if indices:
        return None
    view: Tensor = in_private(lambda: core.slice_(x, key=basic))
    return view if view._data.flags.c_contiguous else None


def __setitem__(self: Tensor, key: Any, value: Any) -> None:
    """Write ``value``, a number or a tensor that broadcasts, where ``key`` points; recorded like any operation."""
    if isinstance(value, (list, tuple)):
        raise TypeError(f"can't assign a {type(value).__name__} to elements of a tensor; use tensor(...).")
    if _is_mask_of(self, key):
        if type(value) is Selection and put_back(self, key, value):
            return
        value = as_value("setitem", self, value)
        if value._data.size == 1:  # without asking how often the mask holds, which a compiled program can't
            from .selection import masked_fill_

            shape = (*key._data.shape, *(1,) * (self._data.ndim - key._data.ndim))
            masked_fill_(self, core.reshape(key, shape=shape), core.reshape(value, shape=()))
            return
    basic, spec, indices = _resolved(self, key)
    value = as_value("setitem", self, value)
    region = self if _is_whole(basic) else core.slice_(self, key=basic)
    if not indices:
        copy_(region, _without_leading_ones(value, region._data.ndim))
        return
    value = _without_leading_ones(value, region._data.ndim - len(spec) + max(i._data.ndim for i in indices))
    attrs = {"spec": spec, "accumulate": False}
    put_in_place(index_put_op, "index_put_into", region, (value, *indices), attrs)


def _is_mask_of(x: Tensor, key: Any) -> bool:
    """Whether a key is one mask of a tensor's first dimensions."""
    if type(key) is not Tensor or key._data.dtype.kind != "b" or not key._data.ndim or elsewhere(x._data, key._data):
        return False
    return bool(key._data.shape == x._data.shape[: key._data.ndim])


def _without_leading_ones(value: Tensor, ndim: int) -> Tensor:
    shape = tuple(value._data.shape)
    extra = max(len(shape) - ndim, 0)
    if not extra or any(size != 1 for size in shape[:extra]):
        return value
    return core.slice_(value, key=(0,) * extra)


def _is_whole(basic: tuple[Any, ...]) -> bool:
    return all(part is _WHOLE for part in basic)


def _resolved(x: Tensor, key: Any, shown: bool = True) -> tuple[tuple[Any, ...], tuple[int, ...], tuple[Tensor, ...]]:
    """(basic key, dimensions of the view it makes, index tensors for those). ``shown``: as ``Listener.keeps`` has it.

    Raises: IndexOutOfRange for integers out of bounds or too many of them; ShapeError for a mask of another shape;
        DTypeError for index tensors that do not count; TypeError for what can't be a key.
    """
    shape = x._data.shape
    if shape:  # the four commonest keys, without the ceremony
        if type(key) is int:
            return (checked_index(key, shape[0], 0),), (), ()
        if type(key) is slice:
            return (checked_slice(key, shape[0]),), (), ()
        if type(key) is Tensor and key._data.ndim and not elsewhere(x._data, key._data):
            mask = key._data
            if mask.dtype == _INT64:
                return (_WHOLE,), (0,), (key,)
            if mask.dtype.kind == "b" and mask.shape == shape[: mask.ndim]:
                from .search import nonzero

                dims = tuple(range(mask.ndim))
                return (_WHOLE,) * mask.ndim, dims, nonzero(key, as_tuple=True)
    parts = [_as_part(part, x, shown) for part in (key if isinstance(key, tuple) else (key,))]
    used = sum(_dims_taken(part) for part in parts)
    if used > len(shape):
        raise IndexOutOfRange(f"too many indices for tensor of dimension {len(shape)}: {used} were given.")
    if sum(part is Ellipsis for part in parts) > 1:
        raise IndexOutOfRange("an index can only have a single ellipsis ('...').")
    basic: list[Any] = []
    spec: list[int] = []
    indices: list[Tensor] = []
    dim = made = 0  # dimensions of x passed, dimensions of the view made
    for position, part in enumerate(parts):
        if part is Ellipsis:
            free = len(shape) - used
            basic += [_WHOLE] * free
            dim, made = dim + free, made + free
        elif part is None:
            basic.append(None)
            made += 1
        elif isinstance(part, bool):
            basic.append(None)
            spec.append(made)
            indices.append(_positions(x, [0] if part else []))
            made += 1
        elif isinstance(part, slice):
            whole = part.start is None and part.stop is None and part.step is None
            basic.append(_WHOLE if whole else checked_slice(part, shape[dim]))
            dim, made = dim + 1, made + 1
        elif isinstance(part, int):
            basic.append(checked_index(part, shape[dim], dim))
            dim += 1
        elif part._data.dtype.kind == "b":
            for index in _where_it_holds(part, shape, dim, position):
                basic.append(_WHOLE)
                spec.append(made)
                indices.append(index)
                dim, made = dim + 1, made + 1
        else:
            basic.append(_WHOLE)
            spec.append(made)
            indices.append(part)
            dim, made = dim + 1, made + 1
    if local.listeners and not _order_stays(spec, indices):
        fixed = [
            int(p) if isinstance(p, Tensor) and p._data.ndim == 0 and p._data.dtype.kind in "iu" else p for p in parts
        ]
        return _resolved(x, tuple(fixed))
    return tuple(basic), tuple(spec), tuple(indices)


def _order_stays(spec: list[int], indices: list[Tensor]) -> bool:
    """Whether dimensions come out as if the integers among the index tensors had been applied first."""
    numbers = [at for at, i in zip(spec, indices, strict=True) if i._data.ndim == 0 and i._data.dtype.kind != "b"]
    if not numbers or len(numbers) == len(spec) or spec[-1] - spec[0] == len(spec) - 1:
        return True
    left = [at - sum(n < at for n in numbers) for at in spec if at not in numbers]
    return left[0] == 0 or left[-1] - left[0] != len(left) - 1


def advanced(x: Tensor, key: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """(dimensions, index tensors) of a key of tensors and masks only."""
    if len(key) == 1 and x._data.ndim and type(key[0]) is Tensor and key[0]._data.ndim:
        _, spec, indices = _resolved(x, key[0])
        return spec, indices
    kept = tuple(core.reshape(k, shape=(1,)) if isinstance(k, Tensor) and k._data.ndim == 0 else k for k in key)
    basic, spec, indices = _resolved(x, tuple(_WHOLE if k is None else k for k in kept))
    if not _is_whole(basic) or not indices:
        raise TypeError("index_put: indices must be tensors (or None for a whole dimension), at least one of them.")
    if all(not k._data.ndim for k in key if isinstance(k, Tensor)):  # the one position makes no dimension
        indices = tuple([core.reshape(i, shape=()) for i in indices])
    return spec, indices


def _as_part(part: Any, x: Tensor, shown: bool) -> Any:
    """One part of a key as int, bool, slice, None, Ellipsis, or a tensor of int64 or bool on the device of ``x``."""
    if part is None or part is Ellipsis or isinstance(part, (bool, int, slice)):
        return part
    if isinstance(part, (np.ndarray, list, tuple, range)):
        given = list(part) if isinstance(part, range) else part
        part = tensor(given)
        if part._data.size == 0 and part._data.dtype.kind == "f" and not isinstance(given, np.ndarray):
            part = core.cast(part, dtype=_INT64)
    elif isinstance(part, np.bool_):
        return bool(part)
    elif not isinstance(part, Tensor):
        if hasattr(part, "__index__"):
            return int(part.__index__())
        if not lies_on_gpu(part):
            raise KeyDTypeError(
                "a tensor is indexed by integers, slices, None, ..., tensors, lists and masks, not "
                f"{type(part).__name__}."
            )
        part = shared(part)
    dtype = part._data.dtype
    if dtype.kind in "iu" and dtype != _UINT8:
        if part._data.ndim == 0:
            mapped = getattr(part._data, "mapped", False)  # an integer for each sample of a vmap
            if mapped or any(ear.keeps(part, shown) for ear in local.listeners):
                return part if dtype == _INT64 else core.cast(part, dtype=_INT64)
            return int(part)
        if dtype.itemsize < 4:
            raise KeyDTypeError(f"tensors used as indices must be int64, int32, uint8 or bool, not {dtype.name}.")
        part = part if dtype == _INT64 else core.cast(part, dtype=_INT64)
    elif dtype == _UINT8:
        warnings.warn("indexing with uint8 as a mask is deprecated; use bool", UserWarning, stacklevel=4)
        part = core.cast(part, dtype=numpy_dtype("bool"))
    elif dtype.kind != "b":
        raise KeyDTypeError(f"tensors used as indices must be int64, int32, uint8 or bool, got {BY_NAME[dtype.name]}.")
    if part._data.dtype.kind == "b" and part._data.ndim == 0:
        return bool(part)
    return part.to(x.device) if elsewhere(x._data, part._data) else part


def _dims_taken(part: Any) -> int:
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    if isinstance(part, Tensor) and part._data.dtype.kind == "b":
        return int(part._data.ndim)
    return 1


def _positions(x: Tensor, at: list[int]) -> Tensor:
    return tensor(at, dtype="int64", device=x.device)


def _where_it_holds(mask: Tensor, shape: tuple[int, ...], dim: int, position: int) -> Iterator[Tensor]:
    from .search import nonzero

    for i, size in enumerate(mask._data.shape):
        if size != shape[dim + i]:
            raise MaskError(
                f"the shape of the mask {list(mask.shape)} at index {position + i} does not match the shape of the "
                f"indexed tensor {list(shape)} at index {dim + i}."
            )
    yield from nonzero(mask, as_tuple=True)


class MaskError(ShapeError, IndexError):
    """A mask of another shape than what it masks; also an IndexError, as in PyTorch."""


class KeyDTypeError(DTypeError, IndexError):
    """A key of a dtype that does not count; also an IndexError, as in PyTorch."""


# --- writing whole tensors


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Write ``src``, broadcast and converted to this dtype and device, over the tensor.

    With ``non_blocking`` a copy between pinned memory and a GPU may still run when this returns, as work of the current
    stream. Raises: ShapeError if ``src`` does not broadcast to the shape.
    """
    value = as_operand("copy_", src)
    value = value if isinstance(value, Tensor) else as_value("copy_", self, value)
    if elsewhere(self._data, value._data):
        if non_blocking and _fetched(self, value):
            return self
        moved = value.to(self.device, non_blocking=non_blocking and self.device.type != "cpu")
        (value,) = at_level_of("copy_", self, (moved,))
    if grad_state.recording and (self._tracked or value._tracked):
        if self is value:
            return self
        return write_into(assign, self, (self, _safe(self, value)), {})
    check_writable("copy_", self, False)
    if value._data.ndim:
        assign.infer(self._data, value._data)
    source = _safe(self, value)._data
    local.doors[type(self._data)].copy_into(self._data, source)
    self._bump()
    return self


def _fetched(target: Tensor, value: Tensor) -> bool:
    """Whether the elements of a tensor on a GPU are on their way into this one, which is in pinned memory."""
    array, found = target._data, registry.active(value._data)
    if not found.is_pinned(array) or array.shape != value._data.shape or array.dtype != value._data.dtype:
        return False
    if local.listeners or (grad_state.recording and (target._tracked or value._tracked)):
        return False
    check_writable("copy_", target, False)
    found.to_host_async(value._data, array)
    target._bump()
    return True


def _safe(target: Tensor, value: Tensor) -> Tensor:
    """``value``, copied if it shares its storage with the target, so that it is read before the first write."""
    if value._cell is None or value._cell is not target._cell:
        return value
    return core.contiguous_copy(value)


def fill_(self: Tensor, value: Any) -> Tensor:
    """Fill the tensor with a number or a 0-d tensor. Raises ShapeError for a value of more dimensions."""
    filler = as_value("fill_", self, value)
    if filler._data.ndim:
        raise ShapeError(f"fill_: value must be a number or a 0-d tensor, got shape {tuple(filler.shape)}.")
    return copy_(self, filler)


def fill(input: Tensor, value: Any) -> Tensor:
    """A copy of ``input`` filled with a number or a 0-d tensor. Raises ShapeError for a value of more dimensions."""
    return fill_(core.contiguous_copy(input), value)


def zero_(self: Tensor) -> Tensor:
    """Fill the tensor with zeros."""
    return fill_(self, 0)


def __iter__(self: Tensor) -> Iterator[Tensor]:
    if self._data.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    from .join import unbind

    return iter(unbind(self, 0))


def __contains__(self: Tensor, element: Any) -> bool:
    from . import pointwise as pw

    return bool(pw.eq(self, element).any())


for _function in (__contains__, __getitem__, __iter__, __setitem__, copy_, fill_, zero_):
    install(_function)
