"""Reductions: sum, prod, mean, variance, logsumexp, truth and counts. Extremes are in ``extremes.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backends.generic.reduce import elements_in, reduced_shape
from ..dtypes import BY_NAME, REAL_OF, as_dtype, get_default_dtype, numpy_dtype
from ..errors import DTypeError, ShapeError
from ..return_types import named as named
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .checks import flag, np_dtype, number, statistic_dtype
from .inplace import deliver, deliver_same
from .record import Spec, op
from .samples import Arg, Sample
from .shape_core import cast, dims_of, slice_

__all__ = [
    "all", "any", "count_nonzero", "logsumexp", "mean", "prod", "std", "std_mean", "sum",
    "var", "var_mean",
]  # fmt: skip

Dims = int | Sequence[int] | None


# --- what rules share


def spread(F: Any, g: Any, x: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """A reduced gradient expanded back over the reduced axes of ``x``."""
    return F.expand(with_dims(F, g, x, dim, keepdim), shape=tuple(x.shape))


def with_dims(F: Any, g: Any, x: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """A reduced value with the reduced axes of ``x`` back, of size 1, so that it broadcasts against ``x``."""
    if keepdim or not dim:
        return g
    return F.reshape(F.contiguous(g), shape=reduced_shape(tuple(x.shape), dim, True))


def real_dtype(dtype: Any) -> Any:
    """The dtype of the parts of complex elements; any other dtype itself."""
    return numpy_dtype(REAL_OF[dtype.name]) if dtype.kind == "c" else dtype


def is_complex(x: Any) -> bool:
    """Whether an array, Spec or Tensor holds complex numbers."""
    return bool(getattr(x, "_data", x).dtype.kind == "c")


def conjugate(F: Any, x: Any) -> Any:
    return F.conj(x) if is_complex(x) else x


def reduction_samples(
    low: float = -2.0,
    high: float = 2.0,
    *,
    empty: bool = True,
    smooth: bool = True,
    rough: tuple[str, ...] = (),
    **attrs: Any,
) -> Any:
    """Samples of a reduction over one dim, several, all; of 0-d, strided and zero-size arrays.

    ``rough`` names the samples at which there is no derivative.
    """

    def make() -> list[Sample]:
        def one(name: str, shape: tuple[int, ...], dim: tuple[int, ...], keepdim: bool, layout: str = "C") -> Sample:
            arg = Arg(shape, low, high, layout=layout)
            return Sample((arg,), {"dim": dim, "keepdim": keepdim, **attrs}, smooth and name not in rough, name)

        samples = [
            one("rows", (3, 4), (1,), False),
            one("columns-kept", (3, 4), (0,), True),
            one("all", (2, 3, 2), (0, 1, 2), False),
            one("outer", (2, 3, 4), (0, 2), False),
            one("transposed", (4, 5), (0,), False, "T"),
            one("strided", (3, 4), (1,), True, "step"),
            one("scalar", (), (), False),
            one("no-results", (0, 3), (1,), False),
            one("long", (3, 1000), (1,), False),
        ]
        return [*samples, one("empty", (0, 3), (0,), False)] if empty else samples

    return make


def require_tensor(name: str, x: Any) -> Any:
    """The array of a Tensor. Raises TypeError for anything else."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}; make one with tensorgrad.tensor(...).")
    return x._data


_TOO_MANY = 2**46  # elements; at a billion a second a day's work


def require_work(name: str, array: Any) -> None:
    """Raises ShapeError for an array, expanded beyond all memory, whose elements can't be gone through."""
    if array.size > _TOO_MANY:
        raise ShapeError(
            f"{name}: a tensor of shape {tuple(array.shape)} has {array.size} elements, too many to reduce."
        )


def collapsed(input: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, int]:
    """A huge expanded tensor with one element for those that repeat along ``dim``, and how often each one did."""
    array = input._data
    key, times = [], 1
    for d, (size, step) in enumerate(zip(array.shape, array.strides, strict=True)):
        repeats = size > 1 and step == 0 and d in dim
        key.append(slice(0, 1, 1) if repeats else slice(None))
        times *= size if repeats else 1
    return (slice_(input, key=tuple(key)), times) if times > 1 else (input, 1)


def require_float(name: str, dtype: Any) -> None:
    if dtype.kind in "bui":
        raise DTypeError(
            f"{name}: needs a floating point or complex tensor, got {BY_NAME[dtype.name]}. Convert with .float()."
        )


def prepared(name: str, input: Any, dtype: Any) -> Tensor:
    """``input`` in the dtype asked for."""
    array = require_tensor(name, input)
    if dtype is None:
        return input
    wanted = as_dtype(dtype).np
    return input if array.dtype == wanted else cast(input, dtype=wanted)


def dtype_to_reduce_in(dtype: Any, out: Any) -> Any:
    """The dtype asked for, or that of ``out``, in which PyTorch takes sums and products too."""
    return out.dtype if dtype is None and isinstance(out, Tensor) else dtype


def delivered(name: str, result: Tensor, dtype: Any, out: Any) -> Tensor:
    """The result in the dtype asked for (integers are summed in int64), or in ``out``."""
    if dtype is not None and result._data.dtype.name != (wanted := as_dtype(dtype)).name:
        result = cast(result, dtype=wanted.np)
    return result if out is None else deliver_same(name, result, out)


# --- sum and product


def _sum_infer(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Spec:
    dtype = x.dtype
    if dtype.kind in "bui":
        dtype = numpy_dtype("int64")
    return Spec(reduced_shape(x.shape, dim, keepdim), dtype)


sum_op = op(
    "sum",
    infer=_sum_infer,
    rule=lambda F, g, x, *, needs, dim, keepdim: (spread(F, g, x, dim, keepdim),),
    checked=True,
    samples=reduction_samples(),
    doc="The sum over ``dim``; bool and integers are summed in int64, float16 and bfloat16 in float32.",
)


def _reduces_itself(x: Any, dim: Any, keepdim: bool, *how: Any) -> bool:
    """Whether all of it is reduced of what is no array, such as what a mask picks in a program."""
    return getattr(type(x), "_reduces", False) and dim is None and not keepdim and how == (None, None)


@calls(sum_op, "x dims flag")
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None) -> Tensor:
    """The sum of the elements, over all dimensions or those in ``dim``.

    Bool and integers are summed in int64, float16 and bfloat16 in float32; the sum of nothing is 0.

    Args:
        dim: a dimension or several; None means all.
        keepdim: keep the reduced dimensions, with size 1.
        dtype: convert to this dtype first.
    Raises: DimError for a dim that is out of range or given twice.
    Example:
        >>> import tensorgrad as tg
        >>> tg.sum(tg.tensor([[1, 2], [3, 4]]), dim=0).tolist()
        [4, 6]
    """
    if _reduces_itself(input, dim, keepdim, dtype, out):
        return input.sum()
    dtype = dtype_to_reduce_in(dtype, out)
    x, keepdim = prepared("sum", input, dtype), flag("sum", "keepdim", keepdim)
    dims = dims_of("sum", dim, x._data.ndim)
    if x._data.size > _TOO_MANY:
        few, times = collapsed(x, dims)
        require_work("sum", few._data)
        result = pw.mul(sum_op(few, dim=dims, keepdim=keepdim), times)
    else:
        result = sum_op(x, dim=dims, keepdim=keepdim)
    return result if out is None and dtype is None else delivered("sum", result, dtype, out)


def _prod_rule(F: Any, g: Any, x: Any, *, needs: Any, dim: tuple[int, ...], keepdim: bool) -> tuple[Any, ...]:
    """Each element receives the product of all others: right whatever is zero, to any order."""
    shape = tuple(x.shape)
    order = (*(d for d in range(len(shape)) if d not in dim), *dim)
    moved = F.permute(x, dims=order)
    count = elements_in(shape, dim)
    row_shape = (*reduced_shape(shape, dim, False), count)
    rows = F.reshape(F.contiguous(moved), shape=row_shape)
    others = F.reshape(F.products_of_others(rows), shape=tuple(moved.shape))
    inverse = tuple(order.index(d) for d in range(len(shape)))
    return (F.mul(with_dims(F, g, x, dim, keepdim), conjugate(F, F.permute(others, dims=inverse))),)


def shifted(F: Any, x: Any, axis: int, value: float = 1.0) -> Any:
    """``x`` moved up by one along ``axis``, with ``value`` entering at the front."""
    size = x.shape[axis]
    if size == 0:
        return x
    lead = (slice(None),) * axis
    pads = ((0, 0),) * axis + ((1, 0),) + ((0, 0),) * (x.ndim - axis - 1)
    return F.pad(F.slice(x, key=(*lead, slice(0, size - 1, 1))), pads=pads, mode="constant", value=value)


def _products_of_others_define(F: Any, x: Any) -> Any:
    axis = x.ndim - 1
    before = F.cumprod(shifted(F, x, axis), dim=axis)
    after = F.flip(F.cumprod(shifted(F, F.flip(x, dims=(axis,)), axis), dim=axis), dims=(axis,))
    return F.contiguous(F.mul(before, after))


products_of_others = op(
    "products_of_others",
    infer=lambda x: Spec(tuple(x.shape), x.dtype),
    define=_products_of_others_define,
    samples=lambda: [
        Sample((Arg((3, 9), low=0.5, high=1.5),), name="rows"),
        Sample((Arg((2, 5, 1), low=0.5, high=1.5),), name="of one"),
        Sample((Arg((0, 3)),), name="empty"),
        Sample((Arg((2, 0)),), name="empty rows"),
    ],
    doc="For each element the product of all others of its row: of those before it by those after it.",
)


def _prod_samples() -> list[Sample]:
    zeros = (0.0, 1.5, -2.0, 1.0, 0.5, 2.0, 0.0, 3.0, 0.0)
    attrs = {"dim": (1,), "keepdim": False}
    return [*reduction_samples(0.5, 1.5)(), Sample((Arg((3, 3), values=zeros),), attrs, name="zeros")]


prod_op = op(
    "prod",
    infer=_sum_infer,
    rule=_prod_rule,
    keeps=("x",),
    checked=True,
    samples=_prod_samples,
    doc="The product over ``dim``; bool and integers in int64, float16 and bfloat16 in float32.",
)


@calls(prod_op, "x dims flag")
def prod(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None) -> Tensor:
    """The product of the elements, over all dimensions or those in ``dim``; the product of nothing is 1.

    Gradients are right where elements are zero. Integers are multiplied in int64.

    Raises: DimError for a dim that is out of range or given twice.
    """
    dtype = dtype_to_reduce_in(dtype, out)
    x, keepdim = prepared("prod", input, dtype), flag("prod", "keepdim", keepdim)
    require_work("prod", x._data)
    result = prod_op(x, dim=dims_of("prod", dim, x._data.ndim), keepdim=keepdim)
    return result if out is None and dtype is None else delivered("prod", result, dtype, out)


# --- mean and variance


def _mean_infer(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Spec:
    require_float("mean", x.dtype)
    return Spec(reduced_shape(tuple(x.shape), dim, keepdim), x.dtype)


def _mean_rule(F: Any, g: Any, x: Any, *, needs: Any, dim: tuple[int, ...], keepdim: bool) -> tuple[Any, ...]:
    count = elements_in(tuple(x.shape), dim)
    share = g if count <= 1 else F.div(g, float(count))  # of no elements nobody has a share
    return (spread(F, share, x, dim, keepdim),)


mean_op = op(
    "mean",
    infer=_mean_infer,
    rule=_mean_rule,
    checked=True,
    samples=reduction_samples(rough=("empty",)),
    doc="The mean over ``dim``, accumulated as ``sum``; NaN where there is nothing.",
)


@calls(mean_op, "x dims flag")
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None) -> Tensor:
    """The mean of the elements, over all dimensions or those in ``dim``; the mean of nothing is NaN.

    Raises: DTypeError for bool and integer tensors; DimError for a dim that is out of range or given twice.
    Example:
        >>> import tensorgrad as tg
        >>> tg.tensor([[1.0, 3.0], [2.0, 6.0]]).mean(1).tolist()
        [2.0, 4.0]
    """
    if _reduces_itself(input, dim, keepdim, dtype, out):
        return input.mean()
    x, keepdim = prepared("mean", input, dtype), flag("mean", "keepdim", keepdim)
    require_float("mean", x._data.dtype)
    if dtype is None and isinstance(out, Tensor) and out.dtype.category > 1:
        dtype, x = out.dtype, prepared("mean", input, out.dtype)
    dims = dims_of("mean", dim, x._data.ndim)
    if x._data.size > _TOO_MANY:
        x = collapsed(x, dims)[0]
        require_work("mean", x._data)
    result = mean_op(x, dim=dims, keepdim=keepdim)
    return result if out is None and dtype is None else delivered("mean", result, dtype, out)


def _var_infer(x: Any, *, dim: tuple[int, ...], correction: float, keepdim: bool) -> Spec:
    require_float("var", x.dtype)
    return Spec(reduced_shape(tuple(x.shape), dim, keepdim), real_dtype(x.dtype))


def _freedom(x: Any, dim: tuple[int, ...], correction: float) -> float:
    return max(elements_in(tuple(x.shape), dim) - correction, 0)


def _var_rule(
    F: Any, g: Any, x: Any, *, needs: Any, dim: tuple[int, ...], correction: float, keepdim: bool
) -> tuple[Any, ...]:
    freedom = _freedom(x, dim, correction)
    share = F.div(F.mul(g, 2.0), freedom) if freedom else F.mul(g, float("inf"))
    return (_away(F, share, x, dim, keepdim),)


def _away(F: Any, share: Any, x: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """How far each element is from the mean, times the share of its set."""
    return F.mul(with_dims(F, share, x, dim, keepdim), F.sub(x, F.mean(x, dim=dim, keepdim=True)))


var_op = op(
    "var",
    infer=_var_infer,
    rule=_var_rule,
    keeps=("x",),
    checked=True,
    samples=reduction_samples(rough=("empty", "scalar"), correction=1),
    doc="The sum of squared distances from the mean over ``n - correction``, in two passes.",
)


def _std_rule(
    F: Any, g: Any, x: Any, *, y: Any, needs: Any, dim: tuple[int, ...], correction: float, keepdim: bool
) -> tuple[Any, ...]:
    # at zero the slope is infinite; as in PyTorch nothing flows there
    # divided twice: the product of the divisors may leave the range of y's dtype
    share = F.where(F.eq(y, 0), 0.0, F.div(F.div(g, y), _freedom(x, dim, correction)))
    return (_away(F, share, x, dim, keepdim),)


def in_float32(F: Any, x: Any, compute: Any) -> Any:
    """``compute(x)``, in float32 for half precision: squares beyond its range may have a root within."""
    dtype = np_dtype(x)
    kept = statistic_dtype(dtype)
    return compute(x) if kept == dtype else F.cast(compute(F.cast(x, dtype=kept)), dtype=dtype)


std_op = op(
    "std",
    infer=_var_infer,
    define=lambda F, x, **how: in_float32(F, x, lambda x: F.sqrt(F.var(x, **how))),
    rule=_std_rule,
    keeps=("x", "y"),
    checked=True,
    samples=reduction_samples(rough=("empty", "scalar"), correction=1),
    doc="The square root of ``var``; its gradient is 0 where all elements are equal.",
)


def _spread_arguments(name: str, dim: Any, unbiased: bool | None, correction: float | None) -> tuple[Any, float]:
    """(dim, correction) from PyTorch's two generations of arguments: ``var(False)``, ``var(0, unbiased=False)``."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None:
        if correction is not None:
            raise TypeError(f"{name}: give unbiased or correction, not both.")
        return dim, int(number(name, "unbiased", unbiased))
    return dim, 1 if correction is None else number(name, "correction", correction)


def _spread(record: Any, input: Any, dim: Any, unbiased: Any, keepdim: bool, correction: Any, out: Any) -> Tensor:
    array = require_tensor(record.name, input)
    require_work(record.name, array)
    dim, correction = _spread_arguments(record.name, dim, unbiased, correction)
    dims = dims_of(record.name, dim, array.ndim)
    result = record(input, dim=dims, correction=correction, keepdim=flag(record.name, "keepdim", keepdim))
    return result if out is None else deliver(record.name, result, out)


@calls(var_op, "x dims - flag number=1")
def var(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None, out: Any = None,
) -> Tensor:  # fmt: skip
    """The variance over all dimensions or those in ``dim``: squared distances from the mean over ``n - correction``.

    Args:
        unbiased: the older way to say ``correction=1`` (True) or ``correction=0`` (False).
        correction: taken off the number of elements; 1 by default (Bessel). NaN or infinite where nothing is left.
    Raises: DTypeError for bool and integer tensors; DimError for a bad dim.
    Example:
        >>> import tensorgrad as tg
        >>> tg.tensor([1.0, 2.0, 3.0]).var().item()
        1.0
    """
    return _spread(var_op, input, dim, unbiased, keepdim, correction, out)


@calls(std_op, "x dims - flag number=1")
def std(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None, out: Any = None,
) -> Tensor:  # fmt: skip
    """The standard deviation, the square root of ``var``; its gradient is 0 where all elements are equal."""
    return _spread(std_op, input, dim, unbiased, keepdim, correction, out)


def var_mean(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``(var, mean)`` over all dimensions or those in ``dim``."""
    chosen = dim if not isinstance(dim, bool) else None
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, chosen, keepdim)


def std_mean(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``(std, mean)`` over all dimensions or those in ``dim``."""
    chosen = dim if not isinstance(dim, bool) else None
    return std(input, dim, unbiased, keepdim, correction=correction), mean(input, chosen, keepdim)


# --- log-sum-exp


def _logsumexp_infer(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Spec:
    require_float("logsumexp", x.dtype)
    return Spec(reduced_shape(tuple(x.shape), dim, keepdim), x.dtype)


def _logsumexp_define(F: Any, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    if 0 in [x.shape[d] for d in dim]:  # nothing has no largest element
        return F.log(F.sum(x, dim=dim, keepdim=keepdim))
    top = F.amax(F.real(x) if is_complex(x) else x, dim=dim, keepdim=True)
    top = F.where(F.isfinite(top), top, 0.0)
    total = F.sum(F.exp(F.sub(x, top)), dim=dim, keepdim=True)
    y = F.add(F.log(total), top)
    return F.reshape(y, shape=reduced_shape(tuple(x.shape), dim, keepdim))


def _logsumexp_rule(F: Any, g: Any, x: Any, *, y: Any, needs: Any, dim: Any, keepdim: bool) -> tuple[Any, ...]:
    share = F.exp(F.sub(x, with_dims(F, y, x, dim, keepdim)))
    return (F.mul(with_dims(F, g, x, dim, keepdim), conjugate(F, share)),)


logsumexp_op = op(
    "logsumexp",
    infer=_logsumexp_infer,
    define=_logsumexp_define,
    rule=_logsumexp_rule,
    keeps=("x", "y"),
    checked=True,
    samples=lambda: [
        *reduction_samples(-30.0, 30.0, empty=False)(),
        Sample((Arg((3, 4), kind="c"),), {"dim": (1,), "keepdim": False}, name="complex"),
    ],
    doc="``log(sum(exp(x)))`` over ``dim``, shifted by the maximum so that nothing overflows.",
)


@calls(logsumexp_op, "x dims flag", alike=True)  # integers are converted
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False, *, out: Any = None) -> Tensor:
    """``log(sum(exp(input)))`` over ``dim``, shifted by the maximum: ``m + log(sum(exp(x - m)))`` with ``m = max x``.

    Integers are converted to the default dtype; the result over nothing is -inf. Complex numbers are shifted by their
    largest real part.

    Raises: DimError for a bad dim.
    Source: Blanchard, Higham, Higham 2021.
    """
    array, keepdim = require_tensor("logsumexp", input), flag("logsumexp", "keepdim", keepdim)
    require_work("logsumexp", array)
    x = prepared("logsumexp", input, get_default_dtype()) if array.dtype.kind in "bui" else input
    result = logsumexp_op(x, dim=dims_of("logsumexp", dim, array.ndim), keepdim=keepdim)
    return result if out is None else deliver("logsumexp", result, out)


# --- truth and counts


def _truth_infer(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Spec:
    dtype = x.dtype if x.dtype.char == "B" else numpy_dtype("bool")
    return Spec(reduced_shape(tuple(x.shape), dim, keepdim), dtype)


any_op, all_op = (
    op(name, infer=_truth_infer, nondiff=("y",), checked=True, samples=reduction_samples(smooth=False), doc=doc)
    for name, doc in (("any", "Whether some element is not zero."), ("all", "Whether no element is zero."))
)
count_nonzero_op = op(
    "count_nonzero",
    infer=lambda x, *, dim, keepdim: Spec(reduced_shape(tuple(x.shape), dim, keepdim), numpy_dtype("int64")),
    nondiff=("y",),
    checked=True,
    samples=reduction_samples(smooth=False),
    doc="How many elements are not zero.",
)


def _dims_or_none(name: str, dim: Dims, ndim: int) -> tuple[int, ...]:
    """``dims_of``, but () means no dimension: of all reductions PyTorch's any and all alone take it so."""
    return () if isinstance(dim, (tuple, list)) and not dim else dims_of(name, dim, ndim)


@calls(any_op, "x dims flag")
def any(input: Tensor, dim: Dims = None, keepdim: bool = False, *, out: Any = None) -> Tensor:
    """Whether any element (over ``dim``) is not zero; NaN is not. False over nothing."""
    array, keepdim = require_tensor("any", input), flag("any", "keepdim", keepdim)
    require_work("any", array)
    result = any_op(input, dim=_dims_or_none("any", dim, array.ndim), keepdim=keepdim)
    return result if out is None else deliver_same("any", result, out)


@calls(all_op, "x dims flag")
def all(input: Tensor, dim: Dims = None, keepdim: bool = False, *, out: Any = None) -> Tensor:
    """Whether all elements (over ``dim``) are not zero. True over nothing."""
    array, keepdim = require_tensor("all", input), flag("all", "keepdim", keepdim)
    require_work("all", array)
    result = all_op(input, dim=_dims_or_none("all", dim, array.ndim), keepdim=keepdim)
    return result if out is None else deliver_same("all", result, out)


@calls(count_nonzero_op, "x dims", keepdim=False)
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements (over ``dim``) are not zero, in int64."""
    array = require_tensor("count_nonzero", input)
    require_work("count_nonzero", array)
    return count_nonzero_op(input, dim=dims_of("count_nonzero", dim, array.ndim), keepdim=False)


for _function in (all, any, count_nonzero, logsumexp, mean, prod, std, sum, var):
    install(_function)
