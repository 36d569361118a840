"""One position per element along a dimension: gather, and scatter back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dispatch import known
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from . import shape_core as core
from .calls import calls
from .elementwise import broadcast_shape
from .getitem import copy_
from .index import as_index, as_value, put_in_place, same_dtype
from .inplace import deliver, deliver_same
from .record import Spec, op
from .reduce import conjugate, require_tensor
from .samples import Arg, Sample, int_arg
from .shape import reshape as to_shape
from .shape_core import one_dim

__all__ = ["gather", "scatter", "scatter_add", "scatter_reduce", "take_along_dim"]


def _check_index(name: str, x: Any, index: Any, dim: int) -> None:
    if index.ndim != x.ndim:
        raise ShapeError(
            f"{name}: index must have the same number of dimensions as the tensor, got {index.ndim} and {x.ndim}."
        )
    if index.shape == x.shape:
        return
    for d, size in enumerate(index.shape):
        if d != dim and size > x.shape[d]:
            raise ShapeError(
                f"{name}: index has size {size} in dimension {d}, the tensor {x.shape[d]}; apart from dimension {dim} "
                "the index may not be larger."
            )


def _gather_infer(x: Any, index: Any, *, dim: int) -> Spec:
    _check_index("gather", x, index, dim)
    return Spec(tuple(index.shape), x.dtype)


gather_op = op(
    "gather",
    raises=True,
    infer=_gather_infer,
    rule=lambda F, g, x, index, *, needs, dim: (
        known(F).scatter_add(F.zeros_as(g, shape=tuple(x.shape)), index, g, dim=dim),
        None,
    ),
    keeps=("index",),
    samples=lambda: [
        Sample((Arg((3, 4)), int_arg((3, 2), 0, 1, 2, 2, 3, 0)), {"dim": 1}, name="rows"),
        Sample((Arg((3, 4), layout="T"), int_arg((2, 3), 0, 2, 2, 1, 0, 2)), {"dim": 0}, name="smaller-index"),
        Sample((Arg((3, 4)), int_arg((0, 4))), {"dim": 0}, name="nothing"),
        Sample((Arg((2,), layout="step"), int_arg((5,), 0, 1, 1, 1, 0)), {"dim": 0}, name="repeated"),
    ],
    checked=True,
    doc="``y[i, j, k] = x[i, index[i, j, k], k]`` for ``dim`` 1, and so for any.",
)


def _lift(*tensors: Any) -> tuple[Any, ...]:
    return tuple([core.reshape(x, shape=(1,)) if x._data.ndim == 0 else x for x in tensors])


@calls(gather_op, "x dim index")
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Any = None) -> Tensor:
    """Elements along ``dim``, one for each element of ``index``: ``y[i, j] = input[i, index[i, j]]`` for ``dim=1``.

    Args:
        index: int64 or int32, of as many dimensions as ``input`` and no larger than it apart from ``dim``.
        sparse_grad: must be False: gradients are dense.
    Raises: IndexOutOfRange for indices out of bounds (negative ones are); ShapeError for an index of a wrong shape.
    Example:
        >>> import tensorgrad as tg
        >>> tg.gather(tg.tensor([[1, 2], [3, 4]]), 1, tg.tensor([[1], [0]])).tolist()
        [[2], [3]]
    """
    if sparse_grad:
        raise TypeError("gather: sparse_grad=True is not supported; gradients are dense.")
    array = require_tensor("gather", input)
    if isinstance(out, Tensor) and out._data.dtype != array.dtype:
        raise DTypeError(f"gather: Expected out tensor to have dtype {input.dtype}, but got {out.dtype} instead.")
    at = one_dim("gather", dim, array.ndim)
    where = as_index("gather", index)
    if where._data.size == 0 and where._data.ndim != array.ndim:  # nothing is read, whatever the dimensions
        none = core.slice_(core.reshape(core.contiguous(input), shape=(array.size,)), key=(slice(0, 0, 1),))
        result = core.reshape(none, shape=tuple(where.shape))
    elif array.ndim and where._data.ndim:
        result = gather_op(input, where, dim=at)
    else:
        result = gather_op(*_lift(input, where), dim=at)
        if where._data.ndim == 0:
            result = core.reshape(result, shape=())
    return result if out is None else deliver("gather", result, out)


@calls(gather_op, "x sameindex dim")
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None, *, out: Any = None) -> Tensor:
    """Elements along ``dim`` at ``indices``, which broadcast against the other dimensions; None flattens first."""
    array = require_tensor("take_along_dim", input)
    where = as_index("take_along_dim", indices)
    if dim is None:
        return gather(to_shape(input, -1), 0, _wrapped(to_shape(where, -1), array.size), out=out)
    at = one_dim("take_along_dim", dim, array.ndim)
    if where._data.ndim != array.ndim:
        raise ShapeError(
            f"take_along_dim: input and indices must have the same number of dimensions, got {array.ndim} and "
            f"{where._data.ndim}."
        )
    others = broadcast_shape(
        "take_along_dim",
        *[tuple([1 if d == at else size for d, size in enumerate(x._data.shape)]) for x in (input, where)],
    )

    def grown(x: Tensor) -> Tensor:
        return core.expand(x, shape=(*others[:at], x._data.shape[at], *others[at + 1 :]))

    return gather(grown(input), at, _wrapped(grown(where), array.shape[at]), out=out)


def _wrapped(index: Tensor, size: int) -> Tensor:
    """Negative positions counted from the end."""
    return pw.where(pw.lt(index, 0), pw.add(index, size), index)


# --- scatter


def _scatter_infer(name: str) -> Any:
    def infer(x: Any, index: Any, src: Any, *, dim: int, reduce: str = "") -> Spec:
        _check_index(name, x, index, dim)
        if tuple(src.shape) != tuple(index.shape):
            raise ShapeError(f"{name}: source {tuple(src.shape)} and index {tuple(index.shape)} differ in shape.")
        same_dtype(name, x, src)
        return Spec(tuple(x.shape), x.dtype)

    return infer


def _scatter_rule(F: Any, g: Any, x: Any, index: Any, src: Any, *, needs: Any, dim: int) -> tuple[Any, ...]:
    to_x = to_src = None
    if needs[0]:
        to_x = known(F).scatter(g, index, F.zeros_as(g, shape=tuple(index.shape)), dim=dim)
    if needs[2]:
        to_src = known(F).gather(g, index, dim=dim)
    return to_x, None, to_src


def _scatter_samples() -> list[Sample]:
    return [
        Sample((Arg((3, 4)), int_arg((3, 2), 0, 1, 2, 3, 3, 0), Arg((3, 2))), {"dim": 1}, name="rows"),
        Sample((Arg((3, 4), layout="T"), int_arg((2, 3), 0, 2, 2, 1, 0, 1), Arg((2, 3))), {"dim": 0}, name="smaller"),
        Sample((Arg((3, 4)), int_arg((0, 4)), Arg((0, 4))), {"dim": 0}, name="nothing"),
    ]


def _add_samples() -> list[Sample]:
    repeated = Sample((Arg((3,)), int_arg((5,), 1, 1, 0, 1, 0), Arg((5,))), {"dim": 0}, name="repeated")
    return [*_scatter_samples(), repeated]


scatter_op = op(
    "scatter",
    raises=True,
    infer=_scatter_infer("scatter"),
    define=lambda F, x, index, src, *, dim: F.scatter_into(F.contiguous_copy(x), index, src, dim=dim),
    rule=_scatter_rule,
    keeps=("index",),
    samples=_scatter_samples,
    checked=True,
    doc="``x`` with ``src`` written where ``gather`` by ``index`` would read.",
)
scatter_into = op(
    "scatter_into", raises=True, infer=_scatter_infer("scatter"), doc="``scatter`` over the memory of ``x``."
)
scatter_add_op = op(
    "scatter_add",
    raises=True,
    infer=_scatter_infer("scatter_add"),
    define=lambda F, x, index, src, *, dim: F.scatter_add_into(F.contiguous_copy(x), index, src, dim=dim),
    rule=lambda F, g, x, index, src, *, needs, dim: (
        g if needs[0] else None,
        None,
        known(F).gather(g, index, dim=dim) if needs[2] else None,
    ),
    keeps=("index",),
    samples=_add_samples,
    checked=True,
    doc="``x`` with ``src`` added where ``gather`` by ``index`` would read, in the order of the elements.",
)
scatter_add_into = op(
    "scatter_add_into",
    raises=True,
    infer=_scatter_infer("scatter_add"),
    doc="``scatter_add`` over the memory of ``x``.",
)


def _reduce_rule(
    F: Any, g: Any, x: Any, index: Any, src: Any, *, y: Any, needs: Any, dim: int, reduce: str
) -> tuple[Any, ...]:
    """Extremes: those that tie share. Products: the product of all others, which is known from the product of what is
    not zero and the number of zeros."""
    if reduce == "prod":
        return _prod_rule(F, g, x, index, src, dim)
    of_known = known(F)
    hit_x, hit_src = F.eq(x, y), F.eq(src, of_known.gather(y, index, dim=dim))
    # counted in the gradient's dtype
    zeros = F.zeros_as(g, shape=tuple(x.shape))
    ones_src = F.where(hit_src, F.full_as(src, value=1.0), 0.0)
    count = of_known.scatter_add(F.where(hit_x, F.add(zeros, 1.0), 0.0), index, ones_src, dim=dim)
    share = F.div(g, count)
    return (
        F.where(hit_x, share, 0.0) if needs[0] else None,
        None,
        F.where(hit_src, of_known.gather(share, index, dim=dim), 0.0) if needs[2] else None,
    )


def _prod_rule(F: Any, g: Any, x: Any, index: Any, src: Any, dim: int) -> tuple[Any, ...]:
    """Each element receives the product of all others: of those that are not zero, ``rest`` over its own, times that of
    the zeros, which is zero itself but has derivatives. It is written as the elementary symmetric polynomial of their
    power sums (Newton's identities), as far as third derivatives reach."""
    of_known = known(F)
    zero_x, zero_src = F.eq(x, 0), F.eq(src, 0)
    safe_x, safe_src = F.where(zero_x, 1.0, x), F.where(zero_src, 1.0, src)
    rest = of_known.scatter_reduce(safe_x, index, safe_src, dim=dim, reduce="prod")

    def over_zeros(of_x: Any, of_src: Any) -> Any:
        return of_known.scatter_add(F.where(zero_x, of_x, 0.0), index, F.where(zero_src, of_src, 0.0), dim=dim)

    count = over_zeros(F.full_as(x, value=1.0), F.full_as(src, value=1.0))
    total, squares = over_zeros(x, src), over_zeros(F.mul(x, x), F.mul(src, src))

    def pairs(total: Any, squares: Any) -> Any:
        return F.mul(F.sub(F.mul(total, total), squares), 0.5)

    def by_count(count: Any, *products: Any) -> Any:
        chosen = F.full_as(count, value=0.0)
        for number, product in enumerate(products):
            chosen = F.where(F.eq(count, number), product, chosen)
        return chosen

    def others(facts: Sequence[Any], zero: Any, safe: Any, own: Any) -> Any:
        rest, count, total, squares = facts
        ones = F.full_as(total, value=1.0)
        among_zeros = by_count(count, ones, total, pairs(total, squares))
        less, less_squares = F.sub(total, own), F.sub(squares, F.mul(own, own))
        but_own = by_count(F.sub(count, 1), ones, less, pairs(less, less_squares))
        return conjugate(F, F.where(zero, F.mul(rest, but_own), F.mul(F.div(rest, safe), among_zeros)))

    facts = (rest, count, total, squares)
    at_src = [of_known.gather(part, index, dim=dim) for part in facts]
    return (
        F.mul(g, others(facts, zero_x, safe_x, x)),
        None,
        F.mul(of_known.gather(g, index, dim=dim), others(at_src, zero_src, safe_src, src)),
    )


def _zeros_sample() -> Sample:
    """One zero, two zeros and three among what meets."""
    start, more = Arg((4,), values=(0.0, 1.5, 0.0, 2.0)), Arg((7,), values=(2.0, 0.5, 0.0, 0.0, 0.0, -1.0, 1.5))
    return Sample((start, int_arg((7,), 0, 1, 1, 2, 2, 1, 3), more), {"dim": 0, "reduce": "prod"}, name="prod-zeros")


scatter_reduce_op = op(
    "scatter_reduce",
    raises=True,
    infer=_scatter_infer("scatter_reduce"),
    define=lambda F, x, index, src, *, dim, reduce: F.scatter_reduce_into(
        F.contiguous_copy(x), index, src, dim=dim, reduce=reduce
    ),
    rule=_reduce_rule,
    keeps=("x", "index", "src", "y"),
    samples=lambda: (
        [
            Sample(s.inputs, {**s.attrs, "reduce": how}, s.smooth, f"{how}-{s.name}")
            for how in ("prod", "amax", "amin")
            for s in _add_samples()
        ]
        + [_zeros_sample()]
    ),
    checked=True,
    doc="``x`` combined with ``src`` where ``gather`` by ``index`` would read; ``reduce``: prod, amax or amin.",
)
scatter_reduce_into = op(
    "scatter_reduce_into",
    raises=True,
    infer=_scatter_infer("scatter_reduce"),
    doc="``scatter_reduce`` over the memory of ``x``.",
)


def _source(name: str, input: Tensor, index: Tensor, src: Any) -> Tensor:
    """The source cut (or a number expanded) to the shape of the index."""
    if isinstance(src, Tensor) and src._data.shape == index._data.shape:
        return src
    shape = tuple(index._data.shape)
    if not isinstance(src, Tensor):
        return core.expand(as_value(name, input, src), shape=shape)
    have = tuple(src._data.shape)
    if len(have) != len(shape) or any(a > b for a, b in zip(shape, have, strict=True)):
        raise ShapeError(
            f"{name}: index of shape {shape} must have as many dimensions as the source {have} and be no larger."
        )
    return core.slice_(src, key=tuple([slice(0, size, 1) for size in shape]))


def _arguments(name: str, input: Any, dim: int, index: Any, src: Any) -> tuple[int, Any, Any, Any]:
    array = require_tensor(name, input)
    at = one_dim(name, dim, array.ndim)
    where = as_index(name, index)
    if src is None:
        raise TypeError(f"{name}: a source tensor or a value is missing.")
    if where._data.size == 0 and where._data.ndim != max(array.ndim, 1):  # nothing is written, whatever the dimensions
        input, where = core.reshape(input, shape=(array.size,)), core.reshape(where, shape=(0,))
        if isinstance(src, Tensor):
            src = core.slice_(core.reshape(src, shape=(src._data.size,)), key=(slice(0, 0, 1),))
        return 0, input, where, _source(name, input, where, src)
    if array.ndim == 0 or where._data.ndim == 0:
        lifted = _lift(input, where, *([src] if isinstance(src, Tensor) else []))
        input, where = lifted[:2]
        src = lifted[2] if isinstance(src, Tensor) else src
    return at, input, where, _source(name, input, where, src)


_WAYS = {"add": "sum", "multiply": "prod"}


def _scatter(name: str, target: Any, dim: int, index: Any, src: Any, how: str | None, in_place: bool) -> Tensor:
    at, x, where, source = _arguments(name, target, dim, index, src)
    attrs: dict[str, Any] = {"dim": at}
    record, into = {None: (scatter_op, "scatter_into"), "sum": (scatter_add_op, "scatter_add_into")}.get(
        how, (scatter_reduce_op, "scatter_reduce_into")
    )
    if record is scatter_reduce_op:
        attrs["reduce"] = how
    if in_place:
        put_in_place(record, into, x, (where, source), attrs)
        return target
    result = record(x, where, source, **attrs)
    return result if x is target else core.reshape(result, shape=tuple(target.shape))


def _way(reduce: str | None) -> str | None:
    if reduce is None:
        return None
    if not isinstance(reduce, str) or reduce not in _WAYS:
        raise ValueError(f"scatter: reduce must be 'add' or 'multiply', got {reduce!r}.")
    return _WAYS[reduce]


@calls(scatter_op, "x dim index like")
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None,
    out: Any = None,
) -> Tensor:  # fmt: skip
    """A copy of ``input`` with ``src`` (a tensor or a number) written at ``index`` along ``dim``.

    ``y[i, index[i, j]] = src[i, j]`` for ``dim=1``. Where an index repeats, one of the values stays.

    Args:
        index: int64 or int32, of as many dimensions as ``input``.
        src: a tensor at least as large as ``index``, in the dtype of ``input``; or a number, also as ``value=``.
        reduce: ``"add"`` or ``"multiply"`` combines with what is there instead.
    Raises: IndexOutOfRange for indices out of bounds, before anything is written; ShapeError for a wrong shape;
        DTypeError for a source of another dtype.
    """
    result = _scatter("scatter", input, dim, index, value if src is None else src, _way(reduce), False)
    return result if out is None else deliver_same("scatter", result, out)


@calls(scatter_op, "x dim index like", into="scatter_into")
def scatter_(
    self: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """In-place form of ``scatter``."""
    return _scatter("scatter_", self, dim, index, value if src is None else src, _way(reduce), True)


@calls(scatter_add_op, "x dim index like")
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor, *, out: Any = None) -> Tensor:
    """A copy of ``input`` with ``src`` added at ``index`` along ``dim``; repeats add up, in their order.

    Raises: as ``scatter``.
    """
    result = _scatter("scatter_add", input, dim, index, src, "sum", False)
    return result if out is None else deliver_same("scatter_add", result, out)


@calls(scatter_add_op, "x dim index like", into="scatter_add_into")
def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """In-place form of ``scatter_add``."""
    return _scatter("scatter_add_", self, dim, index, src, "sum", True)


_NEUTRAL = {"sum": 0, "mean": 0, "prod": 1}


@calls(scatter_reduce_op, "x dim index like prod|amax|amin")
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True, out: Any = None
) -> Tensor:
    """A copy of ``input`` combined with ``src`` at ``index`` along ``dim``.

    Args:
        reduce: ``"sum"``, ``"prod"``, ``"mean"``, ``"amax"`` or ``"amin"``.
        include_self: whether the elements of ``input`` take part; if not, they stay only where no index points.
    Raises: ArgumentError for another ``reduce``; else as ``scatter``.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise ArgumentError(f"scatter_reduce: reduce must be sum, prod, mean, amax or amin, got {reduce!r}.")
    start = input
    if not include_self:
        start = _scatter("scatter_reduce", input, dim, index, _neutral(input, reduce), None, False)
    how = "sum" if reduce == "mean" else reduce
    result = _scatter("scatter_reduce", start, dim, index, src, how, False)
    if reduce == "mean":
        one, where, shape = as_value("scatter_reduce", input, 1), *_counted(input, dim, index)
        start = core.expand(one if include_self else as_value("scatter_reduce", input, 0), shape=shape)
        count = scatter_add(start, dim, where, core.expand(one, shape=tuple(where.shape)))
        count = pw.clamp_min(count, 1)  # an element that nothing meets stays
        result = pw.div(result, count) if input._data.dtype.kind not in "iu" else pw.floor_divide(result, count)
    return result if out is None else deliver_same("scatter_reduce", result, out)


def _counted(input: Tensor, dim: int, index: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """``index`` and the shape of ``input``, of size 1 where the index was expanded: it counts the same all along."""
    shape, have = list(input.shape), tuple(index.shape)
    at = one_dim("scatter_reduce", dim, len(shape))
    for axis, step in enumerate(index._data.strides):
        if axis != at and step == 0 and have[axis] == shape[axis]:
            shape[axis] = 1
    if shape == list(input.shape):
        return index, tuple(shape)
    once = [size != whole for size, whole in zip(shape, input.shape, strict=True)]
    key = tuple([slice(0, 1 if narrow else size, 1) for narrow, size in zip(once, have, strict=True)])
    return core.slice_(index, key=key), tuple(shape)


def _neutral(input: Tensor, reduce: str) -> Any:
    """What changes nothing when combined: the start where the tensor's own elements do not take part."""
    if reduce in _NEUTRAL:
        return _NEUTRAL[reduce]
    import numpy as np

    require_tensor("scatter_reduce", input)
    name = input._data.dtype.name
    low = reduce == "amax"
    if input._data.dtype.kind in "fV":
        return -float("inf") if low else float("inf")
    if name == "bool":
        return not low
    info = np.iinfo(name)
    return int(info.min if low else info.max)


def scatter_reduce_(
    self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """In-place form of ``scatter_reduce``."""
    recorded = self._tracked or (isinstance(src, Tensor) and src._tracked)
    start = core.contiguous_copy(self) if recorded else self  # backward reads what is written over
    return copy_(self, scatter_reduce(start, dim, index, src, reduce, include_self=include_self))


for _function in (
    gather, scatter, scatter_, scatter_add, scatter_add_, scatter_reduce, scatter_reduce_, take_along_dim,
):  # fmt: skip
    install(_function)
