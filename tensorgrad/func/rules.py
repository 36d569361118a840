"""How each op is computed for all samples at once.

A rule is ``rule(door, F, frame, xs, mapped, attrs)``: ``xs`` are the inputs of the level below, of which those marked
``mapped`` have the samples along axis 0; ``F`` is the door of that level. It returns arrays (n, *result). Most ops need
no rule of their own: formulas align dimensions, ops with a definition run it through the batched door, ops that work
along dimensions have them counted one further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dispatch import local
from ..ops.record import Op, Spec, specs_of
from .batched import UnmappedTarget, VmapError, aligned, expanded

__all__ = ["RULES", "rule_for"]

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
"""Rules by the name of the op; those of a module that defines ops lazily may be added by it."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    def keep(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return keep


def rule_for(op: Op) -> Rule:
    """How to compute ``op`` on mapped inputs."""
    from . import rules_index, rules_layers, rules_linalg  # noqa: F401 - they register theirs

    found = RULES.get(op.name)
    if found is not None:
        return lambda door, F, frame, xs, mapped, attrs: found(door, F, frame.size, xs, mapped, **attrs)
    if hasattr(op, "specialize"):
        return lambda door, F, frame, xs, mapped, attrs: _formula(op, F, xs, mapped, attrs)
    if _draws(op):
        return lambda door, F, frame, xs, mapped, attrs: drawn(op, F, frame, xs, mapped, attrs)
    if op.name in _DYNAMIC:
        raise VmapError(
            f"vmap: {op.name} gives a shape that depends on the elements, which may differ between samples. Use an "
            "operation of fixed shape, e.g. where or masked_fill."
        )
    if op.define is not None:
        return lambda door, F, frame, xs, mapped, attrs: _definition(op, door, F, frame, xs, mapped, attrs)
    return lambda door, F, frame, xs, mapped, attrs: looped(op, F, frame.size, xs, mapped, attrs)


_DYNAMIC = frozenset(("nonzero", "unique", "bincount"))


def every(F: Any, n: int, xs: list[Any], mapped: tuple[bool, ...]) -> list[Any]:
    """All arrays mapped: those that the samples share are expanded, without a copy."""
    return [x if m or not _is_array(x) else expanded(F, x, n) for x, m in zip(xs, mapped, strict=True)]


def aligned_every(F: Any, xs: list[Any], mapped: tuple[bool, ...]) -> list[Any]:
    """Arrays that broadcast as those of one sample do."""
    rank = max(len(x.shape) - m if _is_array(x) else 0 for x, m in zip(xs, mapped, strict=True))
    return [aligned(F, x, rank) if m else x for x, m in zip(xs, mapped, strict=True)]


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(type(x), "data")


def through(
    door: Any, n: int, function: Callable[..., Any], xs: list[Any], mapped: tuple[bool, ...], frame: Any
) -> Any:
    """``function(door, *inputs)`` on inputs of the batched level, and its results as arrays of the level below."""
    cls = door.cls
    inputs = [cls(x, frame, True) if m else x for x, m in zip(xs, mapped, strict=True)]
    result = function(door, *inputs)

    def inner(part: Any) -> Any:
        if part is None:
            return None
        if type(part) is cls:
            return part.value if part.mapped else expanded(local.doors[type(part.value)], part.value, n)
        return expanded(local.doors[type(part)], part, n)

    return tuple(map(inner, result)) if isinstance(result, tuple) else inner(result)


# --- formulas, definitions, loops


def _formula(op: Any, F: Any, xs: list[Any], mapped: tuple[bool, ...], attrs: dict[str, Any]) -> Any:
    ranks = [len(x.shape) - m if _is_array(x) else 0 for x, m in zip(xs, mapped, strict=True)]
    rank = max(ranks)
    ready = [aligned(F, x, rank) if m else x for x, m in zip(xs, mapped, strict=True)]
    if rank:
        ready = [
            _as_scalar(F, x, xs, ranks) if m and not r else x for x, m, r in zip(ready, mapped, ranks, strict=True)
        ]
    out = attrs.get("out")
    if out is not None:
        # what shares the output's memory without being it is read before the first write
        ready = [x if x is out or not _is_array(x) or not _may_overlap(x, out) else F.contiguous_copy(x) for x in ready]
    return getattr(F, op.name)(*ready, **attrs)


def _may_overlap(x: Any, out: Any) -> bool:
    import numpy as np

    while not isinstance(x, np.ndarray) and hasattr(x, "value"):
        x = x.value
    while not isinstance(out, np.ndarray) and hasattr(out, "value"):
        out = out.value
    if isinstance(x, np.ndarray) and isinstance(out, np.ndarray):
        return bool(np.may_share_memory(x, out))
    return type(x) is type(out)


def _as_scalar(F: Any, x: Any, xs: list[Any], ranks: list[int]) -> Any:
    """One number per sample does not decide the dtype beside tensors with dimensions, as a 0-d tensor does not: it is
    converted to theirs if it is of the same kind."""
    widest = [y.dtype for y, r in zip(xs, ranks, strict=True) if r]
    kind = {"V": "f"}.get(x.dtype.kind, x.dtype.kind)
    for dtype in widest:
        theirs = {"V": "f"}.get(dtype.kind, dtype.kind)
        if theirs == kind or (theirs in "iu" and kind in "iu"):
            others = max((d for d in widest if {"V": "f"}.get(d.kind, d.kind) == theirs), key=lambda d: d.itemsize)
            return x if x.dtype == others else F.cast(x, dtype=others)
    if kind == "f" and any(d.kind == "c" for d in widest):
        import numpy as np

        single = all(d.name == "complex64" for d in widest if d.kind == "c")
        real = np.dtype(np.float32 if single else np.float64)
        return x if x.dtype == real else F.cast(x, dtype=real)
    return x


_WRITES = frozenset(
    ("assign", "view_scatter", "index_put", "index_add", "scatter", "scatter_add", "scatter_reduce", "slice_backward")
)


def _definition(
    op: Op, door: Any, F: Any, frame: Any, xs: list[Any], mapped: tuple[bool, ...], attrs: dict[str, Any]
) -> Any:
    if op.name in _WRITES and not mapped[0]:  # the copy that the definition writes into must hold all samples
        xs, mapped = [expanded(F, xs[0], frame.size), *xs[1:]], (True, *mapped[1:])
    define: Any = op.define
    try:
        return through(door, frame.size, lambda D, *inputs: define(D, *inputs, **attrs), xs, mapped, frame)
    except UnmappedTarget:
        return looped(op, F, frame.size, xs, mapped, attrs)


def looped(op: Op, F: Any, n: int, xs: list[Any], mapped: tuple[bool, ...], attrs: dict[str, Any]) -> Any:
    """Sample by sample: right for any op."""
    if n == 0:
        specs = [Spec(tuple(x.shape[1:]), x.dtype) if m else x for x, m in zip(xs, mapped, strict=True)]
        some = next(x for x in xs if _is_array(x))
        empty = tuple(
            None if s is None else F.cast(F.zeros_as(some, shape=(0, *s.shape)), dtype=s.dtype)
            for s in specs_of(op.infer(*specs, **attrs))
        )
        return empty if len(empty) > 1 else empty[0]
    results = []
    kernel = getattr(F, op.name)
    for i in range(n):
        mine = [F.slice(x, key=(i,)) if m else x for x, m in zip(xs, mapped, strict=True)]
        results.append(kernel(*mine, **attrs))
    if isinstance(results[0], tuple):
        return tuple([None if part[0] is None else stacked(F, part) for part in zip(*results, strict=True)])
    return stacked(F, results)


def stacked(F: Any, parts: Any) -> Any:
    """(n, *shape) from n arrays."""
    door = local.doors[type(parts[0])]
    return door.cat(*[door.slice(part, key=(None,)) for part in parts], dim=0)


# --- randomness


def _draws(op: Op) -> bool:
    code = getattr(op.infer, "__code__", None)
    return code is not None and "generator" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def refuse_randomness(frame: Any) -> None:
    """Raises VmapError unless the map was told what to do about randomness."""
    if frame.randomness == "error":
        raise VmapError(
            "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' "
            "randomness flags on vmap or perform the randomness operation out of vmap"
        )


def drawn(op: Op, F: Any, frame: Any, xs: list[Any], mapped: tuple[bool, ...], attrs: dict[str, Any]) -> Any:
    """A draw whose parameters are mapped: of its own for each sample, or with the same numbers for all."""
    refuse_randomness(frame)
    n = frame.size
    before = local.frames
    local.frames = before[:-1]  # the draw itself belongs to the maps around this one
    try:
        if frame.randomness == "different":
            rank = max(len(x.shape) - m for x, m in zip(xs, mapped, strict=True) if _is_array(x))
            full = [aligned(F, x, rank) if _is_array(x) else x for x in every(F, n, xs, mapped)]
            return getattr(F, op.name)(*full, **attrs)
        generator = attrs["generator"]
        state = generator.get_state()
        results = []
        for i in range(n):
            generator.set_state(state)
            mine = [F.slice(x, key=(i,)) if m else x for x, m in zip(xs, mapped, strict=True)]
            results.append(getattr(F, op.name)(*mine, **attrs))
    finally:
        local.frames = before
    if isinstance(results[0], tuple):
        return tuple(stacked(F, part) for part in zip(*results, strict=True))
    return stacked(F, results)


# --- dimensions counted one further


def _tuple_dims(name: str) -> Rule:
    def along(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: Any, **attrs: Any) -> Any:
        return getattr(F, name)(*every(F, n, xs, mapped), dim=tuple([d + 1 for d in dim]), **attrs)

    return along


for _name in (
    "sum", "prod", "mean", "var", "std", "logsumexp", "any", "all", "count_nonzero", "amax", "amin", "vector_norm",
):  # fmt: skip
    RULES[_name] = _tuple_dims(_name)


def _one_dim(name: str) -> Rule:
    def along(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: Any, **attrs: Any) -> Any:
        full = every(F, n, xs, mapped)
        if dim is not None and all(len(x.shape) > 1 for x in full if _is_array(x)):
            return getattr(F, name)(*full, dim=dim + 1, **attrs)
        # 0-d samples, or the flattened sample: along one dimension that holds it all
        keepdim = attrs.pop("keepdim", None)
        shapes = [tuple(x.shape) for x in full]
        flat = [F.reshape(F.contiguous(x), shape=(n, _count(s[1:]))) for x, s in zip(full, shapes, strict=True)]
        if keepdim is None:
            result = getattr(F, name)(*flat, dim=1, **attrs)
            shape = shapes[0]
        else:
            result = getattr(F, name)(*flat, dim=1, keepdim=False, **attrs)
            shape = (n, *(1,) * (len(shapes[0]) - 1)) if keepdim else (n,)
        if isinstance(result, tuple):
            return tuple([F.reshape(part, shape=shape) for part in result])
        return F.reshape(result, shape=shape)

    return along


for _name in (
    "softmax", "log_softmax", "softmax_backward", "log_softmax_backward", "cumsum", "cumprod", "logcumsumexp",
    "cummax", "cummin", "sort", "topk", "kthvalue", "max_dim", "min_dim", "median_dim", "nanmedian_dim", "argmax",
    "argmin", "mode_dim", "linear_recurrence", "cat",
):  # fmt: skip
    RULES[_name] = _one_dim(_name)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


@rule("flip")
def _flip(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dims: Any) -> Any:
    return F.flip(xs[0], dims=tuple([d + 1 for d in dims]))


@rule("roll")
def _roll(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shifts: Any, dims: Any) -> Any:
    return F.roll(xs[0], shifts=shifts, dims=tuple([d + 1 for d in dims]))


@rule("pad")
def _pad(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, pads: Any, mode: str, value: float) -> Any:
    return F.pad(xs[0], pads=((0, 0), *pads), mode=mode, value=value)


def _last_two(name: str) -> Rule:
    return lambda door, F, n, xs, mapped, **attrs: getattr(F, name)(xs[0], **attrs)


for _name in (
    "tril", "triu", "contiguous", "contiguous_copy", "cast", "full_as", "real_part", "imag_part", "as_real",
    "as_complex",
):  # fmt: skip
    RULES[_name] = _last_two(_name)  # whose meaning does not count dimensions from the front


# --- views


@rule("reshape")
def _reshape(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shape: Any) -> Any:
    return F.reshape(xs[0], shape=(n, *shape))


@rule("permute")
def _permute(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dims: Any) -> Any:
    return F.permute(xs[0], dims=(0, *(d + 1 for d in dims)))


@rule("expand")
def _expand(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shape: Any) -> Any:
    return F.expand(aligned(F, xs[0], len(shape)), shape=(n, *shape))


@rule("slice")
def _slice(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, key: Any) -> Any:
    return F.slice(xs[0], key=(slice(None), *key))


@rule("unfold_dim")
def _unfold(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int, **how: Any) -> Any:
    return F.unfold_dim(xs[0], dim=dim + 1, **how)


@rule("diagonal")
def _diagonal(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, offset: int, dim1: int, dim2: int) -> Any:
    return F.diagonal(xs[0], offset=offset, dim1=dim1 + 1, dim2=dim2 + 1)


@rule("as_strided")
def _as_strided(
    door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, size: Any, stride: Any, offset: int, within: Any
) -> Any:
    x = xs[0]
    steps = tuple([step // x.dtype.itemsize for step in x.strides])
    if steps[1:] != within:
        x = F.contiguous(x)
        steps = tuple([step // x.dtype.itemsize for step in x.strides])
    return F.as_strided(x, size=(n, *size), stride=(steps[0], *stride), offset=offset, within=(steps[0], *within))


# --- their adjoints, whose attributes are shapes


@rule("unfold_dim_backward")
def _unfold_backward(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shape: Any, dim: int, **how: Any) -> Any:
    return F.unfold_dim_backward(xs[0], shape=(n, *shape), dim=dim + 1, **how)


@rule("diagonal_backward")
def _diagonal_backward(
    door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shape: Any, offset: int, dim1: int, dim2: int
) -> Any:
    return F.diagonal_backward(xs[0], shape=(n, *shape), offset=offset, dim1=dim1 + 1, dim2=dim2 + 1)


@rule("slice_backward")
def _slice_backward(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shape: Any, key: Any) -> Any:
    return F.slice_backward(xs[0], shape=(n, *shape), key=(slice(None), *key))


@rule("zeros_as")
def _zeros_as(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shape: Any) -> Any:
    return F.zeros_as(xs[0], shape=(n, *shape))


@rule("sum_to")
def _sum_to(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, shape: Any) -> Any:
    have = tuple(xs[0].shape)
    lead = len(have) - 1 - len(shape)
    summed = F.sum_to(xs[0], shape=(n, *(1,) * lead, *shape)) if have != (n, *shape) else xs[0]
    return F.reshape(F.contiguous(summed), shape=(n, *shape)) if lead else summed


@rule("standard_gamma_grad")
def _standard_gamma_grad(door: Any, F: Any, n: int, xs: list[Any], mapped: Any) -> Any:
    return F.standard_gamma_grad(*every(F, n, xs, mapped))


# --- products


@rule("matmul")
def _matmul(door: Any, F: Any, n: int, xs: list[Any], mapped: Any) -> Any:
    (a, b), (map_a, map_b) = xs, mapped
    if map_a and not map_b and len(b.shape) == 2:
        return F.matmul(a, b)
    rank = max(len(a.shape) - map_a, len(b.shape) - map_b)
    return F.matmul(aligned(F, a, rank) if map_a else a, aligned(F, b, rank) if map_b else b)
