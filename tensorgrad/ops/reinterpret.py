"""The same memory seen otherwise: with other strides, as another dtype, as the parts of complex numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..dispatch import local
from ..dtypes import COMPLEX_OF, REAL_OF, as_dtype, numpy_dtype
from ..errors import DTypeError, ShapeError
from ..tensor import Tensor, install, wrap
from . import shape_core as core
from .checks import integer
from .convert import address_of
from .inplace import check_writable
from .record import Op, Spec, op
from .reduce import require_tensor
from .samples import Arg, Sample
from .shape import become, integers, offset_of
from .shape import stride as strides_of

__all__ = [
    "as_strided", "as_strided_", "as_strided_scatter", "imag", "real", "resize_as_", "resolve_conj", "resolve_neg",
    "view_as_complex", "view_as_real",
]  # fmt: skip


# --- any strides


def _reach(size: Sequence[int], stride: Sequence[int]) -> int:
    """How many elements of memory a tensor of these strides spans."""
    return 0 if 0 in size else 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))


class _AsStrided(Op):
    """A view of the *storage* of a tensor. Called with ``within``, the strides of what ``x`` is the storage of, the
    storage is the memory of ``x`` alone: so chains of views and derivatives run it."""

    def __call__(self, x: Tensor, *, size: Any, stride: Any, offset: int, within: Any = None) -> Tensor:
        root = x if x._base is None or within is not None else x._base
        if within is None:
            within = strides_of(root)
        elif strides_of(x) != within:
            root = x = core.contiguous(x)
        spanned = _reach(root._data.shape, within)
        needed = offset + _reach(size, stride) if 0 not in size else 0
        if needed > spanned:
            raise ShapeError(
                f"as_strided: size {size}, stride {stride} and storage offset {offset} require a storage of {needed} "
                f"elements and are out of bounds for storage of size {spanned}."
            )
        attrs = {"size": size, "stride": stride, "offset": offset, "within": within}
        array = local.doors[type(root._data)].as_strided(root._data, **attrs)
        out = wrap(array)
        out._inference = x._inference
        out._base = root if root._base is None else root._base
        out._chain = (*root._chain, (self, attrs))
        out._cell = x._version_cell()
        out._generation = out._base._changes
        if x._tracked and grad_state.recording:
            if x._base is not None and x._generation != x._base._changes:
                x._follow_base()
            origin = (tuple(x._data.shape), strides_of(x), 0 if root is x else offset_of(x))
            self.record((x,), [x._data], {**attrs, "origin": origin}, (out,), (array,))
        elif not grad_state.recording or x._frozen_view:
            out._frozen_view = True
        return out


def _strided_infer(x: Any, *, size: Any, stride: Any, offset: int, within: Any) -> Spec:
    return Spec(tuple(size), x.dtype)


def _overlaps(size: Any, stride: Any) -> bool:
    reach = 0
    for step, n in sorted((step, n) for step, n in zip(stride, size, strict=True) if n > 1):
        if step <= reach:
            return True
        reach += step * (n - 1)
    return False


def _strided_rule(
    F: Any, g: Any, x: Any, *, needs: Any, size: Any, stride: Any, offset: int, within: Any, origin: Any
) -> tuple[Any, ...]:
    """Gradients meet in the storage and are read where ``x`` lies; where ``x`` shows an element more than once, each
    showing gets an even share."""
    to_size, to_stride, to_offset = origin
    place = {"to_size": to_size, "to_stride": to_stride, "to_offset": to_offset}
    to_x = F.restride(g, size=size, stride=stride, offset=offset, **place)
    if _overlaps(to_size, to_stride):
        one = F.full_as(F.zeros_as(g, shape=()), value=1.0)
        shown = F.expand(one, shape=to_size)
        to_x = F.div(to_x, F.restride(shown, size=to_size, stride=to_stride, offset=to_offset, **place))
    return (to_x,)


as_strided_op = _AsStrided(
    "as_strided",
    infer=_strided_infer,
    rule=_strided_rule,
    view=True,
    samples=lambda: [
        Sample((Arg((3, 4)),), {"size": (2, 2), "stride": (5, 2), "offset": 1, "within": (4, 1)}, name="apart"),
        Sample((Arg((6,)),), {"size": (4, 3), "stride": (1, 1), "offset": 0, "within": (1,)}, name="windows"),
        Sample((Arg((2, 3)),), {"size": (), "stride": (), "offset": 4, "within": (3, 1)}, name="element"),
    ],
    doc="A view of the storage with the given size, strides and offset, in elements.",
)


def _restride_infer(
    g: Any, *, size: Any, stride: Any, offset: int, to_size: Any, to_stride: Any, to_offset: int
) -> Spec:
    return Spec(tuple(to_size), g.dtype)


restride = op(
    "restride",
    infer=_restride_infer,
    rule=lambda F, gg, g, *, needs, size, stride, offset, to_size, to_stride, to_offset: (
        F.restride(
            gg, size=to_size, stride=to_stride, offset=to_offset, to_size=size, to_stride=stride, to_offset=offset
        ),
    ),
    samples=lambda: [
        Sample(
            (Arg((4, 3)),),
            {"size": (4, 3), "stride": (1, 1), "offset": 1, "to_size": (3, 2), "to_stride": (2, 1), "to_offset": 0},
            name="overlap",
        ),
        Sample(
            (Arg((2,)),),
            {"size": (2,), "stride": (3,), "offset": 0, "to_size": (2, 2), "to_stride": (0, 1), "to_offset": 2},
            name="expanded",
        ),
    ],
    doc="Elements added into a storage at one set of strides and read from it at another: the adjoint of as_strided.",
)


def _geometry(name: str, x: Any, size: Any, stride: Any, storage_offset_: int | None) -> dict[str, Any]:
    require_tensor(name, x)
    sizes, steps = integers(name, (size,)), integers(name, (stride,))
    if len(sizes) != len(steps):
        raise ShapeError(f"{name}: mismatch in length of strides and shape: {sizes} and {steps}.")
    if min((*sizes, *steps), default=0) < 0:
        raise ShapeError(f"{name}: negative sizes or strides are not supported, got {sizes} and {steps}.")
    offset = offset_of(x) if storage_offset_ is None else integer(name, "storage_offset", storage_offset_)
    if offset < 0:
        raise ShapeError(f"{name}: the storage offset must not be negative, got {offset}.")
    return {"size": sizes, "stride": steps, "offset": offset}


def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the memory that ``input`` lies in, with any size, strides and offset (counted in elements).

    The offset is counted from the first element of the tensor that ``input`` is a view of; by default it is that of
    ``input``.

    Raises: ShapeError for a view that reaches out of that memory, and for negative sizes or strides.
    Example:
        >>> import tensorgrad as tg
        >>> tg.arange(6).as_strided((2, 3), (1, 2)).tolist()
        [[0, 2, 4], [1, 3, 5]]
    """
    return as_strided_op(input, **_geometry("as_strided", input, size, stride, storage_offset))


def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A copy of ``input`` with ``src`` written where ``as_strided`` would look.

    Raises: ShapeError as ``as_strided``, and for a ``src`` of another shape.
    """
    where = _geometry("as_strided_scatter", input, size, stride, storage_offset)
    if tuple(require_tensor("as_strided_scatter", src).shape) != where["size"]:
        raise ShapeError(f"as_strided_scatter: src has shape {tuple(src.shape)}, the view {where['size']}.")
    out = core.contiguous_copy(input)
    as_strided_op(out, **where).copy_(src)
    return out


# --- another dtype


def view_as_dtype(self: Tensor, dtype: Any) -> Tensor:
    """The memory read as another dtype; between dtypes of different sizes the last dimension grows or shrinks.

    Raises: ShapeError where the last dimension is not dense, or does not divide; nothing flows back through it.
    """
    wanted = as_dtype(dtype).np
    array = self._data
    if wanted == array.dtype:
        return core.reshape(self, shape=tuple(array.shape))
    if wanted.itemsize != array.itemsize:
        if array.ndim == 0:
            raise ShapeError(f"view: a 0-d tensor can't be viewed as {wanted.name}: the element sizes differ.")
        if array.strides[-1] != array.itemsize and array.shape[-1] > 1:
            raise ShapeError("view: the last dimension must be dense (stride 1) to view it in another element size.")
        if array.shape[-1] * array.itemsize % wanted.itemsize:
            raise ShapeError(
                f"view: self.size(-1) must be divisible by {wanted.itemsize // array.itemsize} to view "
                f"{array.dtype.name} as {wanted.name} (different element sizes), but got {array.shape[-1]}."
            )
        if any(step % wanted.itemsize for step in array.strides[:-1]):
            raise ShapeError(f"view: the strides do not divide by the size of {wanted.name}; make it contiguous.")
        if not _begins_within(self, int(wanted.itemsize)):
            raise ShapeError(
                f"view: self.storage_offset() must be divisible by {wanted.itemsize // array.itemsize} to view "
                f"{array.dtype.name} as {wanted.name} (different element sizes), but got {offset_of(self)}."
            )
    for ear in local.listeners:
        ear.seen_as(self, as_dtype(dtype))
    out = wrap(array.view(wanted))
    out._inference = self._inference
    out._cell = self._version_cell()
    return out


# --- the parts of complex numbers


def _real_spec(x: Any) -> Spec:
    return Spec(tuple(x.shape), numpy_dtype(REAL_OF[x.dtype.name]))


def _complex_samples() -> list[Sample]:
    return [
        Sample((Arg((3, 2), kind="c"),), name="matrix"),
        Sample((Arg((), kind="c"),), name="scalar"),
        Sample((Arg((2, 3), kind="c", layout="T"),), name="transposed"),
    ]


real_part = op(
    "real_part",
    infer=_real_spec,
    rule=lambda F, g, x, *, needs: (F.cast(g, dtype=x.dtype),),
    view=True,
    samples=_complex_samples,
    doc="The real parts of complex numbers, a view.",
)
imag_part = op(
    "imag_part",
    infer=_real_spec,
    rule=lambda F, g, x, *, needs: (F.mul(F.cast(g, dtype=x.dtype), 1j),),
    view=True,
    samples=_complex_samples,
    doc="The imaginary parts of complex numbers, a view.",
)
as_real = op(
    "as_real",
    infer=lambda x: Spec((*x.shape, 2), numpy_dtype(REAL_OF[x.dtype.name])),
    rule=lambda F, g, x, *, needs: (F.as_complex(F.contiguous(g)),),
    view=True,
    samples=_complex_samples,
    doc="Complex numbers as pairs of real ones in a last dimension, a view.",
)


def _complex_spec(x: Any) -> Spec:
    return Spec(tuple(x.shape[:-1]), numpy_dtype(COMPLEX_OF[x.dtype.name]))


as_complex = op(
    "as_complex",
    infer=_complex_spec,
    rule=lambda F, g, x, *, needs: (F.as_real(F.contiguous(g)),),
    view=True,
    samples=lambda: [
        Sample((Arg((3, 2), kind="f"),), name="vector"),
        Sample((Arg((2, 3, 2)),), name="matrix"),
        Sample((Arg((2,)),), name="scalar"),
    ],
    doc="Pairs of real numbers in the last dimension as complex ones, a view.",
)


def real(input: Tensor) -> Tensor:
    """The real part of complex numbers, a view: writing to it changes them. A real tensor is returned itself."""
    require_tensor("real", input)
    return real_part(input) if input._data.dtype.kind == "c" else input


def imag(input: Tensor) -> Tensor:
    """The imaginary part of complex numbers, a view. Raises DTypeError for a real tensor."""
    if require_tensor("imag", input).dtype.kind != "c":
        raise DTypeError(f"imag: imag is not implemented for tensors with non-complex dtypes, got {input.dtype}.")
    return imag_part(input)


def view_as_real(input: Tensor) -> Tensor:
    """Complex numbers as (..., 2) pairs of real and imaginary part, a view. Raises DTypeError for a real tensor."""
    if require_tensor("view_as_real", input).dtype.kind != "c":
        raise DTypeError(f"view_as_real: view_as_real is only supported for complex tensors, got {input.dtype}.")
    return as_real(input)


def view_as_complex(input: Tensor) -> Tensor:
    """(..., 2) pairs of real numbers as complex ones, a view.

    Raises: DTypeError unless float32 or float64; ShapeError unless the last dimension has size 2 and stride 1 and the
        other strides are even.
    """
    array = require_tensor("view_as_complex", input)
    if array.dtype.name not in ("float32", "float64"):
        raise DTypeError(
            f"view_as_complex: view_as_complex is only supported for float32 and float64, got {input.dtype}."
        )
    if array.ndim == 0 or array.shape[-1] != 2:
        raise ShapeError(f"view_as_complex: Tensor must have a last dimension of size 2, got {tuple(array.shape)}.")
    steps = strides_of(input)
    if steps[-1] != 1 and array.size:
        raise ShapeError("view_as_complex: Tensor must have a last dimension with stride 1.")
    if any(step % 2 and n > 1 for step, n in zip(steps[:-1], array.shape[:-1], strict=True)):
        raise ShapeError(
            f"view_as_complex: Tensor must have a stride divisible by 2 for all but the last dim: {steps}."
        )
    if not local.frames and not _begins_within(input, 2 * int(array.itemsize)):  # what is mapped lies elsewhere
        raise ShapeError("view_as_complex: Tensor must have a storage_offset divisible by 2.")
    return as_complex(input)


def _begins_within(x: Tensor, size: int) -> bool:
    """Whether x begins at a multiple of so many bytes of its storage; on a device also of its memory, of which kernels
    read no element that lies across."""
    item = int(x._data.itemsize)
    if item >= size or not x._data.size:
        return True
    return offset_of(x) * item % size == 0 and (x.device.type == "cpu" or address_of(x._data) % size == 0)


def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugates are computed at once, never put off."""
    require_tensor("resolve_conj", input)
    return input


def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: negatives are computed at once, never put off."""
    require_tensor("resolve_neg", input)
    return input


def _set_part(which: Any) -> Any:
    def write(self: Tensor, value: Any) -> None:
        which(self).copy_(value)

    return write


# --- the shape and the memory of a tensor replaced


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Give the tensor another shape; elements stay in memory order, new ones are whatever the memory held.

    Raises: ShapeError for a tensor that requires grad, or a negative size.
    """
    from .create import empty, shape_from

    shape = shape_from("resize_", sizes)
    if self._tracked:
        raise ShapeError("resize_: cannot resize variables that require grad.")
    check_writable("resize_", self, False)
    steps = _row_major(shape)
    root = self if self._base is None else self._base
    first = offset_of(self)
    if first + _reach(shape, steps) <= _reach(root._data.shape, strides_of(root)):
        fits = as_strided_op(self, size=shape, stride=steps, offset=first)
        self._data = fits._data
        if self._base is not None:
            self._chain = fits._chain
    else:
        more: Any = empty(shape, dtype=self.dtype, device=self.device)
        count = core.size_of(tuple(self.shape))
        flat = core.reshape(core.contiguous(self), shape=(count,))
        core.slice_(core.reshape(more, shape=(core.size_of(shape),)), key=(slice(0, count, 1),)).copy_(flat)
        self._data, self._base, self._chain = more._data, None, ()
    self._bump()
    if memory_format is not None:
        from .shape import clone

        self._data = clone(self, memory_format=memory_format)._data
    return self


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))


def as_strided_(self: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """In-place form of ``as_strided``: the tensor itself takes that size, strides and offset."""
    return become("as_strided_", self, as_strided(self, size, stride, storage_offset))


def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """``resize_`` to the shape of another tensor."""
    return resize_(self, tuple(require_tensor("resize_as_", the_template).shape), memory_format=memory_format)


def set_(self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Tensor:
    """Make the tensor see the memory of ``source``, with the given offset, size and strides if any; without a source
    it becomes empty."""
    if self._tracked:
        raise ShapeError("set_: cannot set the memory of a tensor that requires grad; use detach() first.")
    if source is None:
        from .create import empty

        source = empty((0,), dtype=self.dtype, device=self.device)
    elif not isinstance(source, Tensor):
        source = source.tensor
    if source.dtype is not self.dtype:
        raise DTypeError(f"set_: the source is {source.dtype}, the tensor {self.dtype}.")
    if size is not None:
        sizes = integers("set_", (size,))
        source = as_strided(source, sizes, _row_major(sizes) if stride is None else stride, storage_offset)
    self._data, self._base, self._chain = source._data, source._base, source._chain
    self._cell = source._version_cell()
    return self


for _function in (
    as_strided, as_strided_, as_strided_scatter, resize_, resize_as_, resolve_conj, resolve_neg, set_,
):  # fmt: skip
    install(_function)
for _name, _read in (("real", real), ("imag", imag)):
    setattr(Tensor, _name, property(_read, _set_part(_read)))
