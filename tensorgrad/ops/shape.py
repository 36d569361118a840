"""Shapes and views: the same elements seen otherwise.

Views by diagonal are in ``diagonals.py``, by sliding window in ``sliding.py``; what copies elements about is in
``rearrange.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..dispatch import local
from ..dtypes import DType
from ..errors import AutogradError, DimError, IndexOutOfRange, ShapeError
from ..layout import contiguous_format, dense_order, follows, preserve_format
from ..tensor import Size, Tensor, install
from . import pointwise as pw
from . import shape_core as core
from .checks import integer
from .reduce import require_tensor
from .shape_core import dims_of, one_dim, size_of

__all__ = [
    "adjoint",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "clone",
    "contiguous",
    "flatten",
    "is_nonzero",
    "moveaxis",
    "movedim",
    "narrow",
    "numel",
    "permute",
    "ravel",
    "reshape",
    "select",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unflatten",
    "unsqueeze",
]  # fmt: skip


def integers(name: str, given: Any) -> tuple[int, ...]:
    """A tuple of integers from ``f(2, 3)`` or ``f((2, 3))``. Raises TypeError for anything else."""
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = given[0]
    out = []
    for part in given:
        if type(part) is int:
            out.append(part)
            continue
        whole = core.as_index(part)
        if whole is None:
            raise TypeError(f"{name}: expected integers, got {part!r}.")
        out.append(whole)
    return tuple(out)


def inferred(name: str, count: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with its -1 replaced by what makes ``count`` elements. Raises ShapeError where nothing does."""
    holes = shape.count(-1)
    if holes > 1:
        raise ShapeError(f"{name}: only one dimension can be inferred, shape {shape} asks for {holes}.")
    if min(shape, default=0) < -1:
        raise ShapeError(f"{name}: shape {shape} has a negative size.")
    if not holes:
        if size_of(shape) != count:
            raise ShapeError(f"{name}: shape {shape} is invalid for input of size {count}.")
        return shape
    known = -size_of(shape)
    if known == 0:
        if count == 0:
            raise ShapeError(
                f"{name}: the size to infer in shape {shape} is ambiguous for a tensor of 0 elements; name it."
            )
        raise ShapeError(f"{name}: shape {shape} is invalid for input of size {count}.")
    if count % known:
        raise ShapeError(f"{name}: shape {shape} is invalid for input of size {count}.")
    return tuple([count // known if size == -1 else size for size in shape])


def viewable(array: Any, shape: tuple[int, ...]) -> bool:
    """Whether the array's memory can be seen in ``shape`` without a copy.

    Dimensions that lie in memory as one are merged into blocks; every block must be cut up by sizes of the new shape.
    """
    if array.flags.c_contiguous or array.size == 0:
        return True
    blocks: list[list[int]] = []  # [elements, bytes between neighbours]
    for size, stride in zip(array.shape, array.strides, strict=True):
        if size == 1:
            continue
        if blocks and blocks[-1][1] == size * stride:
            blocks[-1][0] *= size
            blocks[-1][1] = stride
        else:
            blocks.append([size, stride])
    wanted = [size for size in shape if size != 1]
    for size, _ in blocks:
        while size > 1:
            if not wanted or size % wanted[0]:
                return False
            size //= wanted.pop(0)
    return True


def _to_shape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not viewable(x._data, shape):
        x = core.contiguous_copy(x)
    return core.reshape(x, shape=shape)


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The elements in another shape: a view where the memory allows it, else a copy.

    One size may be -1: it is inferred from the others.

    Raises: ShapeError if the number of elements differs, or the -1 is ambiguous.
    Example:
        >>> import tensorgrad as tg
        >>> tg.arange(6).reshape(2, -1).tolist()
        [[0, 1, 2], [3, 4, 5]]
    """
    array = require_tensor("reshape", input)
    if not args and shape is None:
        raise TypeError('reshape() missing 1 required argument: "shape"; () stands for no dimensions.')
    return _to_shape(input, inferred("reshape", array.size, integers("reshape", args if shape is None else (shape,))))


def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """``reshape`` to the shape of ``other``."""
    return reshape(self, tuple(require_tensor("reshape_as", other).shape))


def view(self: Tensor, *shape: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """The same memory in another shape, never a copy; or, ``x.view(tg.int32)``, read as another dtype.

    Raises: ShapeError if the memory's layout does not allow it (``reshape`` copies then) or the number of elements
        differs.
    """
    if len(shape) == 1 and (isinstance(shape[0], (DType, type))):
        dtype, shape = shape[0], ()
    if dtype is not None:
        from .reinterpret import view_as_dtype

        return view_as_dtype(self, dtype)
    if not shape and size is None:
        raise TypeError('view() missing 1 required argument: "size", or a dtype; () stands for no dimensions.')
    sizes = inferred("view", self._data.size, integers("view", shape if size is None else (size,)))
    if not viewable(self._data, sizes):
        raise ShapeError(
            f"view: view size {sizes} is not compatible with the tensor's size {tuple(self.shape)} and stride "
            f"{stride(self)} (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return core.reshape(self, shape=sizes)


def view_as(self: Tensor, other: Tensor) -> Tensor:
    """``view`` in the shape of ``other``."""
    return view(self, tuple(require_tensor("view_as", other).shape))


def ravel(input: Tensor) -> Tensor:
    """The elements in one dimension: a view where possible."""
    return reshape(input, -1)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from ``start_dim`` to ``end_dim`` (included) merged into one: a view where possible.

    Raises: DimError for dims out of range, ShapeError for dims in the wrong order.
    """
    shape = tuple(require_tensor("flatten", input).shape)
    first, last = one_dim("flatten", start_dim, len(shape)), one_dim("flatten", end_dim, len(shape))
    if not shape:
        return _to_shape(input, (1,))
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}.")
    if first == last:
        return input
    return _to_shape(input, (*shape[:first], size_of(shape[first : last + 1]), *shape[last + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension ``dim`` split into ``sizes``, one of which may be -1. Raises ShapeError if they do not multiply up."""
    shape = tuple(require_tensor("unflatten", input).shape)
    at = one_dim("unflatten", dim, len(shape))
    if not shape:
        raise DimError("unflatten: a tensor of no dimensions has none to split.")
    parts = inferred("unflatten", shape[at], integers("unflatten", (sizes,)))
    return _to_shape(input, (*shape[:at], *parts, *shape[at + 1 :]))


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """A view without the dimensions of size 1: all of them, or those in ``dim`` (others there stay as they are)."""
    shape = tuple(require_tensor("squeeze", input).shape)
    dims = (
        tuple(range(len(shape)))
        if dim is None
        else ()
        if isinstance(dim, (tuple, list)) and not dim
        else dims_of("squeeze", dim, len(shape))
    )
    return core.reshape(input, shape=tuple([size for i, size in enumerate(shape) if size != 1 or i not in dims]))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a dimension of size 1 inserted at ``dim``. Raises DimError out of range."""
    shape = tuple(require_tensor("unsqueeze", input).shape)
    at = one_dim("unsqueeze", dim, len(shape) + 1)
    return core.reshape(input, shape=(*shape[:at], 1, *shape[at:]))


def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A view with the dimensions in another order. Raises ShapeError if ``dims`` is not a permutation of them."""
    ndim = require_tensor("permute", input).ndim
    asked = integers("permute", args if dims is None else (dims,))
    order = tuple([one_dim("permute", d, ndim) for d in asked])
    if sorted(order) != list(range(ndim)):
        raise ShapeError(f"permute: {asked} is not a permutation of the {ndim} dimensions of the tensor.")
    return core.permute(input, dims=order)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions swapped."""
    ndim = require_tensor("transpose", input).ndim
    a, b = one_dim("transpose", dim0, ndim), one_dim("transpose", dim1, ndim)
    order = list(range(ndim))
    if ndim:
        order[a], order[b] = b, a
    return core.permute(input, dims=tuple(order))


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; tensors of fewer dimensions as they are. Raises ShapeError for more than two."""
    ndim = require_tensor("t", input).ndim
    if ndim > 2:
        raise ShapeError(f"t: expected at most 2 dimensions, got {ndim}; use .mT for batches of matrices.")
    return core.permute(input, dims=tuple(reversed(range(ndim))))


def _matrix_transpose(self: Tensor) -> Tensor:
    """Batches of matrices, each transposed: a view with the last two dimensions swapped."""
    if self._data.ndim < 2:
        raise DimError(f"mT: expected at least 2 dimensions, got {self._data.ndim}.")
    return transpose(self, -2, -1)


def _conjugate_transpose(self: Tensor) -> Tensor:
    """A matrix transposed and conjugated; a 0-d tensor conjugated."""
    if self._data.ndim not in (0, 2):
        raise DimError(
            f"H: tensor.H is only supported on matrices (2-D tensors), got {self._data.ndim} dimensions. For batches "
            "of matrices use .mH."
        )
    return pw.conj(t(self)) if self._data.dtype.kind == "c" else t(self)


def _all_reversed(self: Tensor) -> Tensor:
    """A view with the dimensions reversed."""
    return core.permute(self, dims=tuple(reversed(range(self._data.ndim))))


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """A view with the dimensions ``source`` moved to ``destination``, the others in their order.

    Raises: DimError for dims out of range or given twice, ShapeError if the two differ in length.
    """
    ndim = require_tensor("movedim", input).ndim
    given, wanted = integers("movedim", (source,)), integers("movedim", (destination,))
    if len(given) != len(wanted):
        raise ShapeError(f"movedim: {len(given)} source dims but {len(wanted)} destinations.")
    if not given:
        return core.permute(input, dims=tuple(range(ndim)))
    start, end = dims_of("movedim", given, ndim), dims_of("movedim", wanted, ndim)
    others = iter(d for d in range(ndim) if d not in start)
    placed = dict(zip(end, start, strict=True))
    order = tuple([placed[i] if i in placed else next(others) for i in range(ndim)])
    return core.permute(input, dims=order)


def expand(self: Tensor, *sizes: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """A view in which dimensions of size 1 are repeated without a copy; -1 keeps a size, new dimensions go in front.

    ``implicit`` marks expansions that broadcasting made; it changes nothing.

    Raises: ShapeError if a size other than 1 would change.
    """
    return _expanded("expand", self, integers("expand", sizes if size is None else (size,)))


def _expanded(name: str, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    have = tuple(x._data.shape)
    lead = len(sizes) - len(have)
    if lead < 0:
        raise ShapeError(
            f"{name}: {len(sizes)} sizes were given for a tensor of {len(have)} dimensions {have}; give them all."
        )
    shape = []
    for i, size in enumerate(sizes):
        if size == -1:
            if i < lead:
                raise ShapeError(f"{name}: -1 is not allowed in a leading, new dimension of {sizes}.")
            size = have[i - lead]
        elif size < 0:
            raise ShapeError(f"{name}: sizes {sizes} have a negative size.")
        shape.append(size)
    return core.expand(x, shape=tuple(shape))


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """``expand`` to the shape of ``other``."""
    return _expanded("expand_as", self, tuple(require_tensor("expand_as", other).shape))


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """A view of ``input`` repeated to ``size`` by broadcasting. Raises ShapeError where sizes do not go together."""
    require_tensor("broadcast_to", input)
    return _expanded("broadcast_to", input, integers("broadcast_to", (size,)))


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of the tensors, broadcast to their common shape. Raises ShapeError if there is none."""
    from .elementwise import broadcast_shape

    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    shape = broadcast_shape("broadcast_tensors", *(tuple(require_tensor("broadcast_tensors", x).shape) for x in given))
    return tuple([core.expand(x, shape=shape) for x in given])


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at ``index`` along ``dim``, a view without that dimension.

    Raises: IndexOutOfRange for an index outside the dimension; DimError for a bad dim.
    """
    from .getitem import checked_index

    shape = tuple(require_tensor("select", input).shape)
    if not shape:
        raise DimError("select: a 0-d tensor has no dimension to select from.")
    at = one_dim("select", dim, len(shape))
    return core.slice_(input, key=(slice(None),) * at + (checked_index(index, shape[at], at),))


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """A view of ``length`` slices from ``start``, an integer or a 0-d integer tensor, along ``dim``.

    Raises: IndexOutOfRange for a start outside the dimension, ShapeError if the slices reach outside of it.
    """
    shape = tuple(require_tensor("narrow", input).shape)
    if not shape:
        raise DimError("narrow: narrow() cannot be applied to a 0-dim tensor.")
    at = one_dim("narrow", dim, len(shape))
    size = shape[at]
    if isinstance(start, Tensor) and (start._data.ndim or start._data.dtype.kind not in "iu"):
        raise ShapeError("narrow: start must be an 0-dim integral Tensor.")
    start, length = integer("narrow", "start", start), integer("narrow", "length", length)
    if not -size <= start <= size:
        raise IndexOutOfRange(
            f"narrow: start out of range (expected to be in range of [{-size}, {size}], got {start})."
        )
    first = start + size if start < 0 else start
    if length < 0:
        raise ShapeError(f"narrow: narrow(): length must be non-negative, got {length}.")
    if first > size - length:
        raise ShapeError(f"narrow: start ({start}) + length ({length}) exceeds dimension size ({size}) of dim {at}.")
    return core.slice_(input, key=(slice(None),) * at + (slice(first, first + length, 1),))


# --- copies


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy in fresh memory, through which gradients flow; row-major, unless a ``memory_format`` says otherwise."""
    order = dense_order("clone", require_tensor("clone", input), memory_format)
    return core.copied(input, order)


def contiguous(input: Tensor, memory_format: Any = contiguous_format) -> Tensor:
    """The tensor itself if its elements lie in memory in row-major order (or that of the format), else such a copy."""
    array = require_tensor("contiguous", input)
    if memory_format is contiguous_format:
        return input if array.flags.c_contiguous else core.contiguous_copy(input)
    if memory_format is preserve_format:
        raise ShapeError("contiguous: preserve_format is no order to bring elements into; use contiguous_format.")
    order = dense_order("contiguous", array, memory_format)
    return input if follows(array, memory_format) else core.copied(input, order)


# --- what a tensor's shape and memory are


def numel(input: Tensor) -> int:
    """The number of elements."""
    return int(require_tensor("numel", input).size)


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not zero. Raises RuntimeError if there is not exactly one."""
    require_tensor("is_nonzero", input)
    return bool(input)


def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one dimension. Raises DimError out of range."""
    shape = self._data.shape
    if dim is None:
        return Size(shape)
    if not shape:
        raise DimError("size: a 0-d tensor has no dimensions.")
    return int(shape[one_dim("size", dim, len(shape))])


def stride(self: Tensor, dim: int | None = None) -> Any:
    """How many elements apart neighbours along each dimension (or along ``dim``) lie in memory."""
    steps = tuple([s // self._data.itemsize for s in self._data.strides])
    return steps if dim is None else steps[one_dim("stride", dim, len(steps))]


def is_contiguous(self: Tensor, memory_format: Any = contiguous_format) -> bool:
    """Whether the elements lie in memory in row-major order, or in that of the format."""
    return follows(self._data, memory_format)


def storage_offset(self: Tensor) -> int:
    """How many elements after the first one of its base a view begins."""
    for ear in local.listeners:
        ear.place_read(self)
    return offset_of(self)


def offset_of(x: Tensor) -> int:
    """``storage_offset``, of which nobody is told: for ops, whose calls are announced."""
    from .convert import address_of  # which needs this module

    if x._base is None:
        return 0
    return (address_of(x._data) - address_of(x._base._data)) // int(x._data.itemsize)


def __len__(self: Tensor) -> int:
    if self._data.ndim == 0:
        raise TypeError("len() of a 0-d tensor")
    return int(self._data.shape[0])


def _at_least(name: str, tensors: Any, grow: Any) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tensors[0]
        return tuple([grow(x, require_tensor(name, x).ndim) for x in tensors])
    grown = tuple([grow(x, require_tensor(name, x).ndim) for x in tensors])
    return grown[0] if len(grown) == 1 else grown


def atleast_1d(*tensors: Any) -> Any:
    """Views with at least one dimension: 0-d tensors become (1,)."""
    return _at_least("atleast_1d", tensors, lambda x, ndim: x if ndim else unsqueeze(x, 0))


def atleast_2d(*tensors: Any) -> Any:
    """Views with at least two dimensions: (n,) becomes (1, n)."""
    return _at_least("atleast_2d", tensors, lambda x, ndim: x if ndim > 1 else unsqueeze(atleast_1d(x), 0))


def atleast_3d(*tensors: Any) -> Any:
    """Views with at least three dimensions: (n,) becomes (1, n, 1), (n, m) becomes (n, m, 1)."""
    return _at_least("atleast_3d", tensors, lambda x, ndim: x if ndim > 2 else unsqueeze(atleast_2d(x), -1))


swapaxes = swapdims = transpose
moveaxis = movedim


def _adjoint(self: Tensor) -> Tensor:
    """Batches of matrices, each transposed and conjugated."""
    if self._data.ndim == 0:
        return self
    if self._data.ndim == 1:
        raise DimError("mH: tensor.mH is only supported on matrices or batches of matrices, got one dimension.")
    turned = transpose(self, -2, -1)
    return pw.conj(turned) if self._data.dtype.kind == "c" else turned


def adjoint(input: Tensor) -> Tensor:
    """Batches of matrices, each transposed and conjugated. Raises DimError for fewer than two dimensions."""
    require_tensor("adjoint", input)
    return _adjoint(input)


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that all of these broadcast to; an integer counts as a shape of one dimension.

    Raises: ShapeError where there is none, or for a negative size.
    """
    from .elementwise import broadcast_shape

    given = [(shape,) if isinstance(shape, int) else integers("broadcast_shapes", (shape,)) for shape in shapes]
    for shape in given:
        if min(shape, default=0) < 0:
            raise ShapeError(f"broadcast_shapes: Trying to create tensor with negative dimension: {shape}.")
    return Size(broadcast_shape("broadcast_shapes", *given))


def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sum over the dimensions along which ``size`` broadcasts to the tensor's shape.

    Raises: ShapeError if it does not broadcast to it.
    """
    shape, have = integers("sum_to_size", size), tuple(self._data.shape)
    lead = len(have) - len(shape)
    if lead < 0 or any(n not in (1, have[lead + i]) for i, n in enumerate(shape)):
        raise ShapeError(f"sum_to_size: size {shape} is not expandable to size {have}.")
    if not shape or any(n != have[lead + i] for i, n in enumerate(shape)) or lead:
        from .reduce import sum as total

        first = total(self, tuple(range(lead))) if lead else total(self) if not shape else self
        ones = tuple([i for i, n in enumerate(shape) if n == 1 and have[lead + i] != 1])
        return total(first, ones, True) if ones else first
    return self


# --- in place: the tensor itself takes another shape


def become(name: str, x: Tensor, view: Tensor) -> Tensor:
    """Make ``x`` what its ``view`` is: the same memory, seen in another shape."""
    if grad_state.recording and x._tracked:
        for ear in local.listeners:
            ear.rewrites(x if x._base is None else x._base)
    base = x if x._base is None else x._base
    if grad_state.recording and x._tracked and base._tracked and base._node is None:
        raise AutogradError(
            f"{name}: a leaf Variable that requires grad is being used in an in-place operation; use the function "
            "that makes a view, or detach() the tensor."
        )
    x._data = view._data
    if view._tracked:
        x._node, x._slot, x._tracked = view._node, view._slot, True
    if x._base is not None:
        x._chain, x._generation = view._chain, view._generation
    else:
        x._changes += 1
    x._bump()
    return x


def _installed_in_place(function: Any, *names: str) -> None:
    def in_place(self: Tensor, *args: Any, **named: Any) -> Tensor:
        return become(names[0], self, function(self, *args, **named))

    in_place.__name__ = names[0]
    in_place.__doc__ = f"In-place form of ``{function.__name__}``: the tensor itself takes the other shape."
    install(in_place, *names)


for _function in (
    __len__, clone, contiguous, expand, expand_as, flatten, is_contiguous, is_nonzero, movedim, narrow, numel, permute,
    adjoint, broadcast_to, ravel, reshape, reshape_as, select, size, squeeze, storage_offset, stride, sum_to_size, t,
    transpose, unflatten, unsqueeze, view, view_as,
):  # fmt: skip
    install(_function)
install(movedim, "moveaxis")
_installed_in_place(squeeze, "squeeze_")
_installed_in_place(unsqueeze, "unsqueeze_")
_installed_in_place(t, "t_")
_installed_in_place(transpose, "transpose_", "swapaxes_", "swapdims_")
install(transpose, "swapaxes", "swapdims")
install(numel, "nelement")
install(lambda self: int(self._data.ndim), "dim", "ndimension")
install(lambda self: int(self._data.itemsize), "element_size")
for _name, _property in {
    "T": _all_reversed, "mT": _matrix_transpose, "mH": _adjoint, "H": _conjugate_transpose,
    "nbytes": lambda self: int(self._data.size) * int(self._data.itemsize),
    "itemsize": lambda self: int(self._data.itemsize),
}.items():  # fmt: skip
    setattr(Tensor, _name, property(_property))
