"""Copies with the elements elsewhere: flip, roll, rearrange, repeat, pad, meshgrid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dtypes import of_array
from ..errors import DimError, DTypeError, ShapeError
from ..tensor import Tensor, install
from . import shape_core as core
from .calls import calls
from .checks import integer, number
from .record import Spec, op
from .reduce import require_tensor
from .samples import Arg, Sample
from .shape import integers, narrow, transpose
from .shape import reshape as to_shape
from .shape_core import dims_of, one_dim, require_addressable
from .storable import as_stored, check_storable

__all__ = [
    "flip", "fliplr", "flipud", "meshgrid", "narrow_copy", "pad", "repeat_interleave", "roll", "rot90", "tile",
]  # fmt: skip


def _same(x: Any, **attrs: Any) -> Spec:
    return Spec(tuple(x.shape), x.dtype)


flip_op = op(
    "flip",
    infer=_same,
    rule=lambda F, g, x, *, needs, dims: (F.flip(g, dims=dims),),
    samples=lambda: [
        Sample((Arg((3, 4)),), {"dims": (0,)}, name="rows"),
        Sample((Arg((2, 3, 2), layout="T"),), {"dims": (0, 2)}, name="two"),
        Sample((Arg(()),), {"dims": ()}, name="scalar"),
        Sample((Arg((0, 2)),), {"dims": (1,)}, name="empty"),
    ],
    checked=True,
    doc="The elements in reverse order along ``dims``.",
)


@calls(flip_op, "x *dims")
def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A copy with the order reversed along ``dims``. Raises DimError for dims out of range or given twice."""
    asked = integers("flip", args if dims is None else (dims,))
    ndim = require_tensor("flip", input).ndim
    return flip_op(input, dims=dims_of("flip", asked, ndim) if asked else ())


def fliplr(input: Tensor) -> Tensor:
    """``flip`` along dimension 1."""
    if require_tensor("fliplr", input).ndim < 2:
        raise DimError(f"fliplr: Input must be >= 2-d, got {input._data.ndim} dimensions.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """``flip`` along dimension 0."""
    if require_tensor("flipud", input).ndim < 1:
        raise DimError("flipud: Input must be >= 1-d, got 0 dimensions.")
    return flip(input, 0)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """A copy rotated by ``k`` quarter turns from the first towards the second of ``dims``."""
    ndim = require_tensor("rot90", input).ndim
    if not isinstance(dims, (tuple, list)):
        raise TypeError(f"rot90: dims must be two integers, got {dims!r}.")
    if len(dims) != 2 or ndim < 2:
        raise DimError(
            f"rot90: expected total rotation dims == 2 and total dims >= 2, but got {len(dims)} dims of {ndim}."
        )
    a, b = dims_of("rot90", tuple(dims), ndim)
    turns = integer("rot90", "k", k) % 4
    if turns == 0:
        return core.contiguous_copy(input)
    if turns == 2:
        return flip_op(input, dims=(a, b))
    return flip_op(transpose(input, a, b), dims=(a,)) if turns == 1 else transpose(flip_op(input, dims=(a,)), a, b)


def narrow_copy(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """``narrow``, copied."""
    return core.contiguous_copy(narrow(input, dim, start, length))


roll_op = op(
    "roll",
    infer=_same,
    rule=lambda F, g, x, *, needs, shifts, dims: (F.roll(g, shifts=tuple([-s for s in shifts]), dims=dims),),
    samples=lambda: [
        Sample((Arg((3, 4)),), {"shifts": (1,), "dims": (1,)}, name="one"),
        Sample((Arg((3, 4), layout="T"),), {"shifts": (-2, 5), "dims": (0, 1)}, name="two"),
        Sample((Arg((0, 3)),), {"shifts": (2,), "dims": (0,)}, name="empty"),
    ],
    checked=True,
    doc="The elements moved by ``shifts`` along ``dims``; what leaves at one end enters at the other.",
)


@calls(roll_op, "x ints along")
def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """A copy with the elements moved by ``shifts`` along ``dims``, round the ends; without dims, when flattened.

    Raises: ShapeError if ``shifts`` and ``dims`` differ in length; DimError for a bad dim.
    """
    array = require_tensor("roll", input)
    by = tuple([integer("roll", "shifts", n) for n in integers("roll", (shifts,))])
    if not by:
        raise ShapeError("roll: `shifts` required, got none.")
    if dims is None or (isinstance(dims, (tuple, list)) and not dims):
        if len(by) != 1:
            raise ShapeError(f"roll: without dims one shift is expected, got {by}.")
        if array.ndim == 1:
            return roll_op(input, shifts=by, dims=(0,))
        flat = roll_op(to_shape(input, -1), shifts=by, dims=(0,))
        return core.reshape(flat, shape=tuple(array.shape))
    along = tuple([one_dim("roll", d, array.ndim) for d in integers("roll", (dims,))])
    if len(by) != len(along):
        raise ShapeError(f"roll: shifts {by} and dims {along} must have the same length.")
    return roll_op(input, shifts=by, dims=along)


# --- reshaped, permuted, repeated, and copied so


def _rearrange_infer(x: Any, *, split: Any, order: Any, spread: Any, shape: tuple[int, ...]) -> Spec:
    fits = (
        sorted(order) == list(range(len(split)))
        and len(spread) == len(order)
        and min((*split, *spread), default=0) >= 0
    )
    if (
        not fits
        or core.size_of(split) != core.size_of(x.shape)
        or core.size_of(spread) != core.size_of(shape)
        or any(split[d] not in (1, size) for d, size in zip(order, spread, strict=True))
    ):
        raise ShapeError(
            f"rearrange: shape {tuple(x.shape)} can't be split into {split}, in order {order}, spread to {spread} "
            f"and put as {shape}."
        )
    return Spec(shape, x.dtype)


def _rearrange_rule(
    F: Any, g: Any, x: Any, *, needs: Any, split: Any, order: Any, spread: Any, shape: Any
) -> tuple[Any, ...]:
    ordered = tuple([split[d] for d in order])
    if ordered != spread:
        g = F.sum_to(F.reshape(g, shape=spread), shape=ordered)
    back = [0] * len(order)
    for position, d in enumerate(order):
        back[d] = position
    if tuple(back) == tuple(range(len(back))):
        return (F.reshape(g, shape=tuple(x.shape)),)
    return (F.rearrange(g, split=ordered, order=tuple(back), spread=tuple(split), shape=tuple(x.shape)),)


def _rearrangements() -> list[Sample]:
    def one(name: str, x: Arg, split: Any, order: Any, spread: Any, shape: Any) -> Sample:
        return Sample((x,), {"split": split, "order": order, "spread": spread, "shape": shape}, name=name)

    return [
        one("pixels", Arg((4, 2, 3)), (2, 2, 2, 3), (2, 0, 3, 1), (2, 2, 3, 2), (4, 6)),
        one("repeated", Arg((2, 3), layout="T"), (1, 2, 1, 3), (0, 1, 2, 3), (2, 2, 2, 3), (4, 6)),
        one("both", Arg((2, 3)), (2, 1, 3), (2, 1, 0), (3, 2, 2), (3, 4)),
        one("scalar", Arg(()), (1,), (0,), (3,), (3,)),
        one("empty", Arg((0, 3)), (0, 3), (1, 0), (3, 0), (3, 0)),
        one("none", Arg((2, 1)), (2, 1), (0, 1), (2, 0), (2, 0)),
    ]


rearrange = op(
    "rearrange",
    infer=_rearrange_infer,
    define=lambda F, x, *, split, order, spread, shape: F.reshape(
        F.contiguous_copy(F.expand(F.permute(F.reshape(x, shape=split), dims=order), shape=spread)), shape=shape
    ),
    rule=_rearrange_rule,
    samples=_rearrangements,
    checked=True,
    doc="The elements reshaped to ``split``, its dimensions in ``order``, those of size 1 repeated to ``spread``.",
)

# --- repeating


def repeat(self: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """The tensor repeated ``sizes[d]`` times along each dimension; more sizes than dimensions add new ones in front.

    Raises: ShapeError for fewer sizes than dimensions, or negative ones.
    """
    times = tuple([integer("repeat", "sizes", n) for n in integers("repeat", sizes if repeats is None else (repeats,))])
    have = tuple(self._data.shape)
    if len(times) < len(have) or min(times, default=0) < 0:
        raise ShapeError(
            f"repeat: {times} must name at least {len(have)} sizes, none negative, for a tensor of shape {have}."
        )
    have = (1,) * (len(times) - len(have)) + have
    apart = tuple([part for size in have for part in (1, size)])
    spread = tuple([part for pair in zip(times, have, strict=True) for part in pair])
    result = tuple([n * size for n, size in zip(times, have, strict=True)])
    require_addressable("repeat", result)
    return rearrange(self, split=apart, order=tuple(range(len(apart))), spread=spread, shape=result)


def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """``repeat``, with ones put in front where ``dims`` has fewer sizes than the tensor dimensions."""
    times = integers("tile", args if dims is None else (dims,))
    lead = require_tensor("tile", input).ndim - len(times)
    return repeat(input, (1,) * lead + times)


def repeat_interleave(input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each slice along ``dim`` repeated ``repeats`` times in a row: a number, or one for each slice.

    Without ``dim`` the tensor is flattened. ``output_size`` is the size of the result, if the caller knows it.

    Raises: ShapeError for repeats that are negative or of another length.
    """
    array = require_tensor("repeat_interleave", input)
    x = to_shape(input, -1) if dim is None or array.ndim == 0 else input
    at = 0 if dim is None else one_dim("repeat_interleave", dim, array.ndim)
    size = x._data.shape[at]
    if isinstance(repeats, Tensor) and repeats._data.size == 1:
        repeats = repeats.item()
    if not isinstance(repeats, Tensor):
        times = integer("repeat_interleave", "repeats", repeats)
        if times < 0:
            raise ShapeError(f"repeat_interleave: repeats must not be negative, got {times}.")
        shape = tuple(x._data.shape)
        if output_size is not None and output_size != size * times:
            raise ShapeError(f"repeat_interleave: output_size is {output_size}, but {size} times {times} are repeated.")
        before, after = shape[: at + 1], shape[at + 1 :]
        return rearrange(
            x, split=(*before, 1, *after), order=tuple(range(len(shape) + 1)), spread=(*before, times, *after),
            shape=(*shape[:at], size * times, *after),
        )  # fmt: skip
    from .index import as_index
    from .index_slices import index_select
    from .search import searchsorted

    counts: Any = as_index("repeat_interleave", repeats)
    if counts._data.shape != (size,):
        raise ShapeError(f"repeat_interleave: repeats must have shape ({size},), got {tuple(counts.shape)}.")
    if size and int(counts.min()) < 0:
        raise ShapeError("repeat_interleave: repeats must not be negative.")
    ends = counts.cumsum(0)
    total = int(ends[-1]) if size else 0
    if output_size is not None and output_size != total:
        raise ShapeError(f"repeat_interleave: output_size is {output_size}, but the repeats add up to {total}.")
    from .ranges import arange

    places = searchsorted(ends, arange(total, device=x.device), right=True)
    return index_select(x, at, places)


# --- padding

_MODES = ("constant", "reflect", "replicate", "circular")


def _pad_infer(x: Any, *, pads: tuple[tuple[int, int], ...], mode: str, value: float) -> Spec:
    if value != 0:
        check_storable("pad", value, of_array(x.dtype))
    shape = []
    for d, (size, (before, after)) in enumerate(zip(x.shape, pads, strict=True)):
        most = {"reflect": size - 1, "circular": size}.get(mode, before + after)
        if max(before, after) > max(most, 0) or (mode == "replicate" and size == 0 and before + after):
            raise ShapeError(
                f"pad: {mode} padding of {(before, after)} is too much for dimension {d} of size {size}: at most "
                f"{max(most, 0) if mode != 'replicate' else 0} can be added at each end."
            )
        shape.append(before + size + after)
    require_addressable("pad", tuple(shape))
    return Spec(tuple(shape), x.dtype)


def _pad_rule(F: Any, g: Any, x: Any, *, needs: Any, pads: Any, mode: str, value: float) -> tuple[Any, ...]:
    """The gradient of what was padded on is added where its value came from."""
    shape = tuple(x.shape)
    if mode == "constant":
        key = tuple([slice(before, before + size, 1) for size, (before, _) in zip(shape, pads, strict=True)])
        return (F.slice(g, key=key),)
    return (F.pad_backward(g, shape=shape, pads=pads, mode=mode),)


def _pad_backward_define(F: Any, g: Any, *, shape: tuple[int, ...], pads: Any, mode: str) -> Any:
    for d, (before, after) in enumerate(pads):
        if before or after:
            g = _folded(F, g, d, shape[d], before, after, mode)
    return g


def _folded(F: Any, g: Any, d: int, size: int, before: int, after: int, mode: str) -> Any:
    lead = (slice(None),) * d

    def part(start: int, end: int) -> Any:
        return F.slice(g, key=(*lead, slice(start, end, 1)))

    def placed(piece: Any, start: int, count: int) -> Any:
        around = ((0, 0),) * d + ((start, size - start - count),) + ((0, 0),) * (g.ndim - d - 1)
        return F.pad(piece, pads=around, mode="constant", value=0.0)

    total = part(before, before + size)
    for piece_from, count, reflect_to, edge, around_to in (
        (0, before, 1, 0, size - before),
        (before + size, after, size - 1 - after, size - 1, 0),
    ):
        if not count:
            continue
        piece = part(piece_from, piece_from + count)
        if mode == "reflect":
            piece = placed(F.flip(piece, dims=(d,)), reflect_to, count)
        elif mode == "replicate":
            piece = placed(F.sum(piece, dim=(d,), keepdim=True), edge, 1)
        else:
            piece = placed(piece, around_to, count)
        total = F.add(total, piece)
    return total


pad_backward = op(
    "pad_backward",
    infer=lambda g, *, shape, pads, mode: Spec(shape, g.dtype),
    define=_pad_backward_define,
    samples=lambda: [
        Sample((Arg((5, 7)),), {"shape": (3, 4), "pads": ((0, 2), (2, 1)), "mode": mode}, name=mode)
        for mode in _MODES[1:]
    ],
    checked=True,
    doc="The gradient of a padded tensor, what was padded on added where its value came from. Not for constants.",
)


def _pad_samples() -> list[Sample]:
    samples = []
    for mode in _MODES:
        for name, shape, pads, layout in (
            ("ends", (5,), ((2, 1),), "C"),
            ("image", (2, 4, 3), ((0, 0), (1, 3), (2, 0)), "T"),
            ("nothing", (2, 3), ((0, 0), (0, 0)), "C"),
        ):
            attrs = {"pads": pads, "mode": mode, "value": 0.5 if mode == "constant" else 0.0}
            samples.append(Sample((Arg(shape, layout=layout),), attrs, name=f"{mode}-{name}"))
    return samples


pad_op = op(
    "pad",
    infer=_pad_infer,
    rule=_pad_rule,
    samples=_pad_samples,
    checked=True,
    doc="Each dimension grown by ``pads``: with a value, reflected, with its edge, or round the ends.",
)


@calls(pad_op, "x pads:pads constant|reflect|replicate|circular number=0.0")
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Grow the last dimensions: ``pad`` is (before, after) of the last one, then of the one before it, and so on.

    Args:
        mode: ``"constant"`` fills with ``value`` (0 by default; negative sizes cut off), ``"reflect"`` mirrors without
            repeating the edge, ``"replicate"`` repeats the edge, ``"circular"`` goes round.
    Raises: ShapeError for an odd number of sizes, more than the tensor has, or more than the mode allows;
        NotImplementedError for another mode; ValueError for a ``value`` where it has no meaning.
    Example:
        >>> import tensorgrad as tg
        >>> tg.pad(tg.tensor([1, 2, 3]), (2, 1), "reflect").tolist()
        [3, 2, 1, 2, 3, 2]
    """
    shape = tuple(require_tensor("pad", input).shape)
    sizes = integers("pad", (pad,))
    if len(sizes) % 2 or len(sizes) // 2 > len(shape):
        raise ShapeError(f"pad: {sizes} must be pairs, at most one for each of the {len(shape)} dimensions.")
    if mode not in _MODES:
        raise NotImplementedError(f"pad: mode must be one of {', '.join(_MODES)}; got {mode!r}.")
    if mode != "constant" and value:
        raise ValueError(f"pad: value is for mode 'constant', not {mode!r}.")
    pads = [(0, 0)] * len(shape)
    for i in range(len(sizes) // 2):
        pads[len(shape) - 1 - i] = (sizes[2 * i], sizes[2 * i + 1])
    x = input
    if min(sizes, default=0) < 0:
        cut = []
        kept: list[Any] = [slice(None)] * len(shape)
        for d, (before, after) in enumerate(pads):
            if mode == "reflect" and (before < 0 < after or after < 0 < before):
                # what one end mirrors may be what the other cuts off, so that the cut comes last
                if shape[d] + before + after < 1:
                    raise ShapeError(f"pad: {(before, after)} leaves nothing of dimension {d} of size {shape[d]}.")
                kept[d] = slice(max(-before, 0), shape[d] + max(before, after) - max(-after, 0), 1)
                cut.append(slice(None))
                continue
            start, end = max(-before, 0), shape[d] - max(-after, 0)
            if start >= end and mode == "replicate" and shape[d]:
                # nothing is left but the edge, which is repeated
                total = shape[d] + before + after
                if total < 1:
                    raise ShapeError(f"pad: {(before, after)} leaves nothing of dimension {d} of size {shape[d]}.")
                start, end = (shape[d] - 1, shape[d]) if before < 0 else (0, 1)
                pads[d] = (0, total - 1) if before < 0 else (total - 1, 0)
            if start > end:
                raise ShapeError(f"pad: {(before, after)} cuts more off than dimension {d} of size {shape[d]} has.")
            cut.append(slice(start, end, 1))
        x = core.slice_(input, key=tuple(cut))
        pads = [(max(before, 0), max(after, 0)) for before, after in pads]
        if kept != [slice(None)] * len(shape):
            return core.slice_(pad_op(x, pads=tuple(pads), mode=mode, value=0.0), key=tuple(kept))
    fill = 0.0 if value is None else number("pad", "value", value) if not isinstance(value, complex) else value
    if fill:
        check_storable("pad", fill, input.dtype)
        fill = as_stored(fill, input.dtype.np)
    return pad_op(x, pads=tuple(pads), mode=mode, value=fill)


# --- grids


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of a grid: for vectors of sizes n1, n2, ... one (n1, n2, ...) view each.

    ``indexing="xy"`` swaps the first two dimensions of the results.

    Raises: ShapeError for tensors of more than one dimension, or none; DTypeError for several dtypes; ValueError for
        another ``indexing``.
    """
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if not given:
        raise ShapeError("meshgrid: expects a non-empty list of tensors.")
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: indexing must be 'ij' or 'xy', got {indexing!r}.")
    for x in given:
        if require_tensor("meshgrid", x).ndim > 1:
            raise ShapeError(f"meshgrid: expected vectors or 0-d tensors, got shape {tuple(x.shape)}.")
    if len({x.dtype for x in given}) > 1:
        raise DTypeError(f"meshgrid: expects all tensors to have the same dtype, got {[x.dtype for x in given]}.")
    vectors = [to_shape(x, -1) for x in given]
    swap = indexing == "xy" and len(vectors) > 1
    if swap:
        vectors[:2] = vectors[1], vectors[0]
    shape = tuple([x._data.shape[0] for x in vectors])
    grids = []
    for d, x in enumerate(vectors):
        column = core.reshape(x, shape=(1,) * d + (shape[d],) + (1,) * (len(shape) - d - 1))
        grids.append(core.expand(column, shape=shape))
    if swap:
        grids[:2] = grids[1], grids[0]
    return tuple(grids)


for _function in (flip, fliplr, flipud, narrow_copy, repeat, repeat_interleave, roll, rot90, tile):
    install(_function)
