"""``vmap``: a function of one sample, run once for all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..dispatch import OPS, local
from ..tensor import Tensor
from ..utils._pytree import TreeSpec, broadcast_prefix, tree_flatten, tree_unflatten
from .batched import Batched, Frame, batched_type, crossing
from .rules import refuse_randomness, stacked

__all__ = ["vmap"]


class _Guard:
    """A door of outside while a map runs: random draws are refused, shared or made for each sample; all else passes."""

    def __init__(self, door: Any):
        self.door = door
        self.backend = door.backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from .rules import _draws

        kernel: Callable[..., Any] = getattr(self.door, name)
        if _draws(OPS[name]):
            kernel = functools.partial(_draw, self, name, kernel)
        self.__dict__[name] = kernel
        return kernel


def _draw(guard: _Guard, name: str, kernel: Callable[..., Any], *inputs: Any, **attrs: Any) -> Any:
    """A draw whose arguments no map has touched."""
    frames = local.frames
    if not frames:
        return kernel(*inputs, **attrs)
    frame = frames[-1]
    refuse_randomness(frame)
    local.frames = frames[:-1]
    try:
        if frame.randomness == "same":
            return getattr(guard, name)(*inputs, **attrs)
        arrays = [x for x in inputs if hasattr(x, "dtype") and hasattr(type(x), "data")]
        if "shape" in attrs:
            attrs["shape"] = (frame.size, *attrs["shape"])
        elif not arrays:
            parts = [getattr(guard, name)(*inputs, **attrs) for _ in range(frame.size)]
            drawn = _stacked_again(parts)
            return batched_type(frame.level)(drawn, frame, True)
        inputs = tuple(
            guard.expand(x, shape=(frame.size, *x.shape)) if any(x is a for a in arrays) else x for x in inputs
        )
        result = getattr(guard, name)(*inputs, **attrs)
    finally:
        local.frames = frames
    cls = batched_type(frame.level)
    if isinstance(result, tuple):
        return tuple([cls(part, frame, True) for part in result])
    return cls(result, frame, True)


def _stacked_again(parts: list[Any]) -> Any:
    """Draws of each sample; those of outer maps stay mapped there."""
    return stacked(local.doors[type(parts[0])], parts)


class _Running:
    """``with _Running(frame):`` a map runs in this thread."""

    def __init__(self, frame: Frame):
        self.frame = frame

    def __enter__(self) -> Frame:
        self.before = local.frames
        local.frames = (*self.before, self.frame)
        local.refresh()
        return self.frame

    def __exit__(self, *error: Any) -> None:
        local.frames = self.before
        local.refresh()


def _guarded(door: Any) -> Any:
    """The guard of a door, made once."""
    found = door.__dict__.get("_guard")
    if found is None:
        found = door.__dict__["_guard"] = _Guard(door)
    return found


class _Frame(Frame):
    __slots__ = ()
    guard = staticmethod(_guarded)


def _is_axis(x: Any) -> bool:
    return x is None or (isinstance(x, int) and not isinstance(x, bool))


def _name_of(func: Any) -> str:
    return getattr(func, "__name__", None) or repr(func)


def _flat_inputs(func: Any, in_dims: Any, args: tuple[Any, ...]) -> tuple[list[Any], list[Any], TreeSpec, int]:
    """(leaves, their mapped axes, structure, number of samples). Raises ValueError as PyTorch does."""
    name = _name_of(func)
    if not isinstance(in_dims, (int, tuple, list)) or isinstance(in_dims, bool):
        raise ValueError(
            f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): expected `in_dims` to be int or a (potentially nested) "
            f"tuple matching the structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a "
            "function with no inputs. The latter is unsupported."
        )
    leaves, spec = tree_flatten(args)
    wanted = tuple(in_dims) if isinstance(in_dims, list) else in_dims
    axes = broadcast_prefix(wanted, args)
    if axes is None:
        raise ValueError(
            f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): in_dims is not compatible with the structure of "
            f"`inputs`. in_dims has structure {tree_flatten(in_dims)[1]} but inputs has structure {spec}."
        )
    size: int | None = None
    found: list[Any] = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if not _is_axis(axis):
            raise ValueError(
                f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={axis} for an input but in_dim must be "
                "either an integer dimension or None."
            )
        if axis is None:
            found.append(None)
            continue
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={axis} for an input but the input is of "
                f"type {type(leaf)}. We cannot vmap over non-Tensor arguments, please use None as the respective in_dim"
            )
        ndim = leaf.ndim
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={axis} for some input, but that input is "
                f"a Tensor of dimensionality {ndim} so expected in_dim to satisfy -{ndim} <= in_dim < {ndim}."
            )
        axis %= ndim
        found.append(axis)
        here = int(leaf._data.shape[axis])
        if size is not None and here != size:
            sizes = [int(x._data.shape[a]) for x, a in zip(leaves, found, strict=False) if a is not None]
            raise ValueError(
                "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
                f"{sizes} for the mapped dimension"
            )
        size = here
    if size is None:
        raise ValueError(
            f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): at least one input must be mapped: in_dims are all None."
        )
    return leaves, found, spec, size


def _outputs(func: Any, result: Any, out_dims: Any, frame: Frame) -> Any:
    """What the mapped function returned, with the mapped axis where ``out_dims`` wants it."""
    name = _name_of(func)
    leaves, spec = tree_flatten(result)
    given = tuple(out_dims) if isinstance(out_dims, list) and not isinstance(result, list) else out_dims
    if _is_axis(given):
        axes: list[Any] | None = [given] * len(leaves)
    elif isinstance(result, Tensor) and isinstance(given, tuple) and len(given) == 1:
        axes = list(given)
    else:
        axes = broadcast_prefix(given, result)
    if axes is None or not all(map(_is_axis, axes)):
        raise ValueError(
            f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with the structure of "
            f"`outputs`. out_dims has structure {tree_flatten(out_dims)[1]} but outputs has structure {spec}."
        )
    done: list[Any] = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if not isinstance(leaf, Tensor):
            if axis is None:
                done.append(leaf)
                continue
            raise ValueError(
                f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(leaf)}. Did you mean to set "
                "out_dims= to None for output?"
            )
        mine = isinstance(leaf._data, Batched) and leaf._data.frame is frame
        if axis is None:
            if mine and leaf._data.mapped:
                raise ValueError(
                    f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None; give the "
                    "dimension that the samples shall have in the result."
                )
            if mine:
                leaf = crossing.leave(leaf, frame=frame, axis=0)[0]
            done.append(leaf)
            continue
        rank = leaf._data.ndim + 1
        if not -rank <= axis < rank:
            raise IndexError(
                f"vmap({name}, ..., out_dims={out_dims}): Dimension out of range (expected to be in range of "
                f"[{-rank}, {rank - 1}], but got {axis})"
            )
        done.append(crossing.leave(leaf, frame=frame, axis=axis % rank))
    return tree_unflatten(done, spec)


def _run(
    func: Any, leaves: list[Any], axes: list[Any], spec: TreeSpec, size: int, out_dims: Any, randomness: str,
    kwargs: dict[str, Any],
) -> Any:  # fmt: skip
    first = next(x for x, axis in zip(leaves, axes, strict=True) if axis is not None)
    frame = _Frame(len(local.frames) + 1, size, randomness, type(first._data))
    batched_type(frame.level).door.home = frame.array_type
    with _Running(frame):
        inputs = [_entered(x, frame, axis) for x, axis in zip(leaves, axes, strict=True)]
        result = func(*tree_unflatten(inputs, spec), **kwargs)
        return _outputs(func, result, out_dims, frame)


def _entered(x: Any, frame: Frame, axis: Any) -> Any:
    if axis is None:
        return x
    inside = crossing.enter(x, frame=frame, axis=axis)
    if x._tracked:
        inside._data.frozen = True  # a write would not be recorded in the history outside
    else:
        inside._cell = x._version_cell()
    return inside


def vmap(
    func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """A function that maps ``func``, written for one sample, over a dimension of its inputs, in one go.

    Args:
        in_dims: the dimension to map over: an integer for all inputs, or nested as the inputs are, with None for
            those that all samples share.
        out_dims: where the mapped dimension goes in the outputs; nested as they are, or one for all.
        randomness: what random operations do: ``"error"`` raises, ``"different"`` draws for each sample, ``"same"``
            once for all.
        chunk_size: map over so many samples at a time, to use less memory; None for all at once.
    Returns: the mapped function. Nested containers of tensors go in and come out; keyword arguments are passed
        on as they are.
    Raises: ValueError for ``in_dims`` or ``out_dims`` that do not go with inputs or outputs; RuntimeError within
        ``func`` for what depends on the values of a sample: ``item()``, ``if``, ``nonzero``.
    Example:
        >>> import tensorgrad as tg
        >>> tg.vmap(tg.dot)(tg.ones(3, 5), tg.ones(3, 5)).tolist()
        [5.0, 5.0, 5.0]
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and not (isinstance(chunk_size, int) and chunk_size > 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func, assigned=("__name__", "__doc__", "__module__", "__qualname__"), updated=())
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, axes, spec, size = _flat_inputs(func, in_dims, args)

        def run(part: list[Any], count: int) -> Any:
            return _run(func, part, axes, spec, count, out_dims, randomness, kwargs)

        if chunk_size is None or size <= chunk_size:
            return run(leaves, size)
        return _chunked(run, leaves, axes, size, out_dims, chunk_size)

    return mapped


def _chunked(run: Callable[..., Any], leaves: list[Any], axes: list[Any], size: int, out_dims: Any, chunk: int) -> Any:
    """A piece of the samples at a time, joined along the mapped dimension."""
    from ..ops.join import cat
    from ..ops.shape import narrow

    pieces = []
    for start in range(0, size, chunk):
        count = min(chunk, size - start)
        part = [x if axis is None else narrow(x, axis, start, count) for x, axis in zip(leaves, axes, strict=True)]
        pieces.append(run(part, count))
    flat = [tree_flatten(piece) for piece in pieces]
    structure = flat[0][1]
    places = [out_dims] * structure.num_leaves if _is_axis(out_dims) else None
    if places is None:
        given = tuple(out_dims) if isinstance(out_dims, list) else out_dims
        if isinstance(given, tuple) and len(given) == 1 and structure.is_leaf():
            places = list(given)
        else:
            places = broadcast_prefix(given, pieces[0])
    assert places is not None
    joined = [
        parts[0] if place is None else cat(list(parts), place)
        for place, parts in zip(places, zip(*[leaves for leaves, _ in flat], strict=True), strict=True)
    ]
    return tree_unflatten(joined, structure)
