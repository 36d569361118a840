"""Running sums and their kin: cumsum, cumprod, cummax, cummin, logcumsumexp, differences."""

from __future__ import annotations

from typing import Any

from ..dispatch import known
from ..dtypes import as_dtype, numpy_dtype
from ..errors import DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from . import shape_core as core
from .calls import calls
from .checks import integer, np_dtype, require_optional
from .extremes import over_dim
from .getitem import copy_
from .inplace import deliver, deliver_same
from .record import Spec, op
from .reduce import (
    conjugate,
    delivered,
    dtype_to_reduce_in,
    is_complex,
    named,
    prepared,
    require_float,
    require_tensor,
    shifted,
)
from .samples import Arg, Sample
from .shape_core import one_dim

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp"]


def _infer(x: Any, *, dim: int) -> Spec:
    return Spec(tuple(x.shape), numpy_dtype("int64") if x.dtype.kind in "bui" else x.dtype)


def _samples(low: float = -2.0, high: float = 2.0, *extra: Sample) -> Any:
    return lambda: [
        Sample((Arg((3, 4), low, high),), {"dim": 1}, name="rows"),
        Sample((Arg((5, 2), low, high, layout="T"),), {"dim": 0}, name="columns"),
        Sample((Arg((2, 3, 2), low, high, layout="step"),), {"dim": 1}, name="middle"),
        Sample((Arg((0, 3), low, high),), {"dim": 0}, name="empty"),
        Sample((Arg((2, 0), low, high),), {"dim": 0}, name="no-rows"),
        *extra,
    ]


def reverse_sum(F: Any, g: Any, dim: int) -> Any:
    """Sums from each element to the end."""
    return F.flip(F.cumsum(F.flip(g, dims=(dim,)), dim=dim), dims=(dim,))


cumsum_op = op(
    "cumsum",
    infer=_infer,
    rule=lambda F, g, x, *, needs, dim: (reverse_sum(F, g, dim),),
    checked=True,
    samples=_samples(),
    doc="Sums up to and including each element along ``dim``; accumulated as ``sum``.",
)


# --- the linear recurrence: what the gradients of products are made of


def _reverse_recurrence(F: Any, a: Any, g: Any, dim: int) -> Any:
    """``r_k = g_k + conj(a_(k+1)) r_(k+1)``: the recurrence run from the end."""
    backwards = shifted(F, F.flip(conjugate(F, a), dims=(dim,)), dim, 0.0)
    return F.flip(F.linear_recurrence(backwards, F.flip(g, dims=(dim,)), dim=dim), dims=(dim,))


def _recurrence_rule(F: Any, g: Any, a: Any, b: Any, *, y: Any, needs: Any, dim: int) -> tuple[Any, ...]:
    to_b = _reverse_recurrence(F, a, g, dim)
    to_a = F.mul(to_b, conjugate(F, shifted(F, y, dim, 0.0))) if needs[0] else None
    return to_a, to_b


linear_recurrence = op(
    "linear_recurrence",
    infer=lambda a, b, *, dim: Spec(tuple(b.shape), b.dtype),
    rule=_recurrence_rule,
    keeps=("a", "y"),
    samples=lambda: [
        Sample((Arg((3, 5)), Arg((3, 5))), {"dim": 1}, name="rows"),
        Sample((Arg((4, 2), layout="T"), Arg((4, 2))), {"dim": 0}, name="columns"),
        Sample((Arg((4,), values=(1.0, 0.0, 2.0, 0.0)), Arg((4,))), {"dim": 0}, name="zeros"),
    ],
    doc="``h_t = a_t h_(t-1) + b_t`` along ``dim``, from ``h_(-1) = 0``.",
)


def _cumprod_rule(F: Any, g: Any, x: Any, *, y: Any, needs: Any, dim: int) -> tuple[Any, ...]:
    """``y_i`` is what came before ``x_k``, times it, times what came after: nothing is divided, so zeros are right."""
    before = conjugate(F, shifted(F, y, dim))
    return (F.mul(before, _reverse_recurrence(F, x, g, dim)),)


cumprod_op = op(
    "cumprod",
    infer=_infer,
    rule=_cumprod_rule,
    keeps=("x", "y"),
    checked=True,
    samples=_samples(0.5, 1.5, Sample((Arg((6,), values=(1.5, 0.0, 2.0, -1.0, 0.0, 3.0)),), {"dim": 0}, name="zeros")),
    doc="Products up to and including each element along ``dim``; gradients are right where elements are zero.",
)


def _running(record: Any, name: str, input: Any, dim: int, dtype: Any, out: Any) -> Tensor:
    dtype = dtype_to_reduce_in(dtype, out)
    return delivered(name, over_dim(record, name, prepared(name, input, dtype), dim), dtype, out)


@calls(cumsum_op, "x dim")
def cumsum(input: Tensor, dim: int, *, dtype: Any = None, out: Any = None) -> Tensor:
    """Sums up to and including each element along ``dim``; bool and integers in int64.

    Raises: DimError for a bad dim.
    Example:
        >>> import tensorgrad as tg
        >>> tg.tensor([1, 2, 3]).cumsum(0).tolist()
        [1, 3, 6]
    """
    return _running(cumsum_op, "cumsum", input, dim, dtype, out)


@calls(cumprod_op, "x dim")
def cumprod(input: Tensor, dim: int, *, dtype: Any = None, out: Any = None) -> Tensor:
    """Products up to and including each element along ``dim``; bool and integers in int64."""
    return _running(cumprod_op, "cumprod", input, dim, dtype, out)


def _own(name: str, self: Tensor, dtype: Any) -> Any:
    """The dtype asked for of an in-place form. Raises DTypeError unless it is the tensor's own."""
    if dtype is not None and as_dtype(dtype) is not self.dtype:
        raise DTypeError(f"{name}: a tensor of {self.dtype} can't take numbers of {as_dtype(dtype)} in place.")
    return dtype


def cumsum_(self: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """In-place form of ``cumsum``."""
    return copy_(self, cumsum(self, dim, dtype=_own("cumsum_", self, dtype)))


def cumprod_(self: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """In-place form of ``cumprod``."""
    return copy_(self, cumprod(core.contiguous_copy(self), dim, dtype=_own("cumprod_", self, dtype)))


# --- log space


def _log_infer(x: Any, *, dim: int) -> Spec:
    require_float("logcumsumexp", x.dtype)
    return Spec(tuple(x.shape), x.dtype)


def _log_rule(F: Any, g: Any, x: Any, *, y: Any, needs: Any, dim: int) -> tuple[Any, ...]:
    """``sum_(i>=k) g_i exp(x_k - y_i)``, summed in log space: for the positive and the negative part of a real ``g``,
    whose difference may cancel, so that single precision is summed in double."""
    if is_complex(x):
        logs = F.sub(F.log(g), conjugate(F, y))
        total = F.flip(F.logcumsumexp(F.flip(logs, dims=(dim,)), dim=dim), dims=(dim,))
        return (F.exp(F.add(total, conjugate(F, x))),)
    own, double = np_dtype(x), numpy_dtype("float64")
    if own != double:
        g, x, y = (F.cast(part, dtype=double) for part in (g, x, y))
    low = -float("inf")
    level = F.where(F.eq(y, low), 0.0, y)

    def part(sign: float) -> Any:
        size = F.mul(g, sign)
        some = F.gt(size, 0)
        logs = F.sub(F.where(some, F.log(F.where(some, size, 1.0)), low), level)
        total = F.flip(F.logcumsumexp(F.flip(logs, dims=(dim,)), dim=dim), dims=(dim,))
        return F.exp(F.add(total, x))

    to_x = F.sub(part(1.0), part(-1.0))
    return (to_x if own == double else F.cast(to_x, dtype=own),)


logcumsumexp_op = op(
    "logcumsumexp",
    infer=_log_infer,
    rule=_log_rule,
    keeps=("x", "y"),
    checked=True,
    samples=_samples(-5.0, 5.0, Sample((Arg((3, 4), kind="c"),), {"dim": 1}, name="complex")),
    doc="``log(cumsum(exp(x)))`` along ``dim`` without overflow.",
)


@calls(logcumsumexp_op, "x dim")
def logcumsumexp(input: Tensor, dim: int, *, out: Any = None) -> Tensor:
    """``log(cumsum(exp(input), dim))``, computed without overflow. Raises DTypeError for integers."""
    result = over_dim(logcumsumexp_op, "logcumsumexp", input, dim)
    return result if out is None else deliver_same("logcumsumexp", result, out)


def logcumsumexp_(self: Tensor, dim: int) -> Tensor:
    """In-place form of ``logcumsumexp``."""
    return copy_(self, logcumsumexp(core.contiguous_copy(self), dim))


# --- extremes


def _extreme_infer(name: str) -> Any:
    def infer(x: Any, *, dim: int) -> tuple[Spec, Spec]:
        if x.dtype.kind == "c":
            raise DTypeError(f"{name}: complex numbers have no order; use abs().")
        return Spec(tuple(x.shape), x.dtype), Spec(tuple(x.shape), numpy_dtype("int64"))

    return infer


cummax_op, cummin_op = (
    op(
        name,
        infer=_extreme_infer(name),
        rule=lambda F, g, x, *, indices, needs, dim: (
            known(F).scatter_add(F.zeros_as(g[0], shape=tuple(x.shape)), indices, g[0], dim=dim),
        ),
        keeps=("indices",),
        outputs=("values", "indices"),
        nondiff=("indices",),
        checked=True,
        samples=_samples(),
        doc=f"The {what} element so far along ``dim``, and where it was, the last of equals.",
    )
    for name, what in (("cummax", "largest"), ("cummin", "smallest"))
)
_Running = {name: named(name, "values indices") for name in ("cummax", "cummin")}


@calls(cummax_op, "x dim", returns=_Running["cummax"])
def cummax(input: Tensor, dim: int, *, out: Any = None) -> Any:
    """The named tuple (values, indices) of the largest element so far along ``dim``; NaN stays once it was met."""
    return _extreme("cummax", cummax_op, input, dim, out)


@calls(cummin_op, "x dim", returns=_Running["cummin"])
def cummin(input: Tensor, dim: int, *, out: Any = None) -> Any:
    """The named tuple (values, indices) of the smallest element so far along ``dim``; NaN stays once it was met."""
    return _extreme("cummin", cummin_op, input, dim, out)


def _extreme(name: str, record: Any, input: Tensor, dim: int, out: Any) -> Any:
    values, indices = over_dim(record, name, input, dim)
    if out is not None:
        values, indices = deliver_same(name, values, out[0]), deliver_same(name, indices, out[1])
    return _Running[name](values, indices)


# --- differences


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None, *,
    out: Any = None,
) -> Tensor:  # fmt: skip
    """Differences of neighbours along ``dim``, taken ``n`` times; ``prepend`` and ``append`` are joined on first.

    Bool elements are compared (``!=``). Raises: ShapeError for a 0-d tensor or ``n < 0``.
    """
    from .join import cat

    array = require_tensor("diff", input)
    n = integer("diff", "n", n)
    require_optional("diff", prepend=prepend, append=append)
    if array.ndim == 0 or n < 0:
        raise ShapeError(f"diff: needs at least one dimension and n >= 0, got {array.ndim} dimensions and n = {n}.")
    at = one_dim("diff", dim, array.ndim)
    if n == 0:
        copy = core.contiguous_copy(input)
        return copy if out is None else deliver("diff", copy, out)
    given = [part for part in (prepend, input, append) if part is not None]
    x = cat(given, at) if len(given) > 1 else input
    subtract = pw.ne if x._data.dtype.kind == "b" else pw.sub
    lead = (slice(None),) * at
    for _ in range(min(n, x._data.shape[at])):
        size = x._data.shape[at]
        later = core.slice_(x, key=(*lead, slice(min(1, size), size, 1)))
        earlier = core.slice_(x, key=(*lead, slice(0, max(size - 1, 0), 1)))
        x = subtract(later, earlier)
    return x if out is None else deliver("diff", x, out)


for _function in (cummax, cummin, cumprod, cumprod_, cumsum, cumsum_, diff, logcumsumexp, logcumsumexp_):
    install(_function)
