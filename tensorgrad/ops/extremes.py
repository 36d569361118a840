"""Largest and smallest elements, where they are, and the middle one."""

from __future__ import annotations

from typing import Any

from ..backends.generic.reduce import reduced_shape
from ..dispatch import known
from ..dtypes import numpy_dtype
from ..errors import DimError, DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .checks import flag, integer, product, require_outs
from .inplace import deliver, deliver_same
from .record import Spec, op
from .reduce import Dims, named, reduction_samples, require_tensor, require_work, with_dims
from .samples import Arg, Sample
from .shape_core import dims_of, one_dim, reshape

__all__ = [
    "amax", "amin", "aminmax", "argmax", "argmin", "kthvalue", "max", "median", "min", "nanmedian",
]  # fmt: skip

_ValuesOf = {name: named(name, "values indices") for name in ("max", "min", "median", "nanmedian", "kthvalue")}
_MinMax = named("aminmax", "min max")


def _require_elements(name: str, x: Any, dim: tuple[int, ...]) -> None:
    if x.dtype.kind == "c":
        raise DTypeError(f"{name}: complex numbers have no order; use abs().")
    for d in dim:
        if x.shape[d] == 0:
            raise DimError(f"{name}: dim {d} of shape {tuple(x.shape)} has size 0, and there is no {name} of nothing.")


def _require_some(name: str, input: Any) -> Any:
    array = require_tensor(name, input)
    if array.size == 0:
        raise ShapeError(f"{name}: no elements in a tensor of shape {tuple(array.shape)}. Give a dim of nonzero size.")
    return array


# --- over any dims, the gradient shared by ties


def _amax_infer(name: str) -> Any:
    def infer(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Spec:
        _require_elements(name, x, dim)
        return Spec(reduced_shape(tuple(x.shape), dim, keepdim), x.dtype)

    return infer


def _shared_rule(F: Any, g: Any, x: Any, *, y: Any, needs: Any, dim: Any, keepdim: bool) -> tuple[Any, ...]:
    hit = F.equal_or_both_nan(x, with_dims(F, y, x, dim, keepdim))
    count = F.sum(hit, dim=dim, keepdim=True)
    return (F.div(F.mul(with_dims(F, g, x, dim, keepdim), hit), count),)


amax_op, amin_op = (
    op(
        name,
        infer=_amax_infer(name),
        rule=_shared_rule,
        keeps=("x", "y"),
        checked=True,
        samples=reduction_samples(empty=False),
        doc=f"The {what} element over ``dim``; NaN if there is one. Ties, NaNs too, share the gradient evenly.",
    )
    for name, what in (("amax", "largest"), ("amin", "smallest"))
)


@calls(amax_op, "x dims flag")
def amax(input: Tensor, dim: Dims = (), keepdim: bool = False, *, out: Any = None) -> Tensor:
    """The largest element, over all dimensions or those in ``dim``; elements that tie share the gradient evenly.

    Raises: DimError if a dim has size 0 or is out of range; ShapeError for no elements and no dim; DTypeError for
        complex tensors.
    """
    return _extreme(amax_op, input, dim, keepdim, out)


@calls(amin_op, "x dims flag")
def amin(input: Tensor, dim: Dims = (), keepdim: bool = False, *, out: Any = None) -> Tensor:
    """The smallest element, over all dimensions or those in ``dim``; otherwise as ``amax``."""
    return _extreme(amin_op, input, dim, keepdim, out)


def _extreme(record: Any, input: Any, dim: Any, keepdim: bool, out: Any) -> Tensor:
    if dim is None or (isinstance(dim, tuple) and not dim):
        array = _require_some(record.name, input)
    else:
        array = require_tensor(record.name, input)
    require_work(record.name, array)
    keepdim = flag(record.name, "keepdim", keepdim)
    result = record(input, dim=dims_of(record.name, dim, array.ndim), keepdim=keepdim)
    return result if out is None else deliver_same(record.name, result, out)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False, out: Any = None) -> Any:
    """The named tuple ``(min, max)`` over all dimensions or ``dim``."""
    low, high = amin(input, dim, keepdim), amax(input, dim, keepdim)
    if dim is None and keepdim:
        low, high = reshape(low, shape=(1,) * input._data.ndim), reshape(high, shape=(1,) * input._data.ndim)
    if out is not None:
        require_outs("aminmax", out)
        for given in out:
            if given._data.dtype != input._data.dtype:
                raise DTypeError(f"aminmax: Expected out tensor to have dtype {input.dtype}, but got {given.dtype}.")
        low, high = deliver("aminmax", low, out[0]), deliver("aminmax", high, out[1])
    return _MinMax(low, high)


# --- over one dim, with where it was


def place(F: Any, g: Any, indices: Any, x: Any, dim: int, keepdim: bool) -> Any:
    """Zeros in the shape of ``x`` with ``g`` where ``indices`` point along ``dim``."""
    g, indices = with_dims(F, g, x, (dim,), keepdim), with_dims(F, indices, x, (dim,), keepdim)
    return known(F).scatter(F.zeros_as(g, shape=tuple(x.shape)), indices, g, dim=dim)


def _dim_infer(name: str) -> Any:
    def infer(x: Any, *, dim: int, keepdim: bool) -> tuple[Spec, Spec]:
        _require_elements(name, x, (dim,))
        shape = reduced_shape(tuple(x.shape), (dim,), keepdim)
        return Spec(shape, x.dtype), Spec(shape, numpy_dtype("int64"))

    return infer


def _dim_rule(F: Any, g: Any, x: Any, *, indices: Any, needs: Any, dim: int, keepdim: bool) -> tuple[Any, ...]:
    return (place(F, g[0], indices, x, dim, keepdim),)


def _dim_samples() -> list[Sample]:
    nan = float("nan")
    return [
        Sample((Arg((3, 4)),), {"dim": 1, "keepdim": False}, name="rows"),
        Sample((Arg((3, 4)),), {"dim": 0, "keepdim": True}, name="columns-kept"),
        Sample((Arg((2, 3, 5), layout="T"),), {"dim": 1, "keepdim": False}, name="transposed"),
        Sample((Arg((4, 3), layout="step"),), {"dim": 0, "keepdim": False}, name="strided"),
        Sample((Arg((0, 3)),), {"dim": 1, "keepdim": False}, name="no-results"),
        Sample((Arg((2, 3), values=(1.0, nan, 2.0, -1.0, 0.5, 0.0)),), {"dim": 1, "keepdim": False}, False, "nan"),
    ]


def dim_record(record: str, name: str, doc: str) -> Any:
    """An op that picks one element along a dim: its value, and where it is."""
    return op(
        record,
        infer=_dim_infer(name),
        rule=_dim_rule,
        keeps=("indices",),
        outputs=("values", "indices"),
        nondiff=("indices",),
        checked=True,
        samples=_dim_samples,
        doc=doc,
    )


max_dim_op, min_dim_op, median_dim_op, nanmedian_dim_op = (
    dim_record(record, name, doc)
    for record, name, doc in (
        ("max_dim", "max", "The largest element along ``dim`` and where it is, the first of equals."),
        ("min_dim", "min", "The smallest element along ``dim`` and where it is, the first of equals."),
        ("median_dim", "median", "The lower of the middle elements along ``dim`` and where it is; NaN if any is."),
        ("nanmedian_dim", "nanmedian", "The lower of the middle elements that are not NaN, and where it is."),
    )
)


def over_dim(record: Any, name: str, input: Tensor, dim: int, **attrs: Any) -> Any:
    """A record of one dim on tensors that may be 0-d, which count as having one element along dim 0."""
    array = require_tensor(name, input)
    require_work(name, array)
    at = one_dim(name, dim, array.ndim)
    if "keepdim" in attrs:
        attrs["keepdim"] = flag(name, "keepdim", attrs["keepdim"])
    if array.ndim:
        return record(input, dim=at, **attrs)
    results = record(reshape(input, shape=(1,)), dim=0, **attrs)
    if isinstance(results, tuple):
        return tuple(reshape(part, shape=()) for part in results)
    return reshape(results, shape=())


def with_indices(name: str, record: Any, input: Tensor, dim: int, out: Any = None, **attrs: Any) -> Any:
    """The named tuple (values, indices) of a record over one dim."""
    values, indices = over_dim(record, name, input, dim, **attrs)
    if out is not None:
        require_outs(name, out)
        values, indices = deliver_same(name, values, out[0]), deliver_same(name, indices, out[1])
    return _ValuesOf[name](values, indices)


def _max_or_min(
    name: str, records: tuple[Any, Any, Any], input: Any, dim: Any, keepdim: bool, other: Any, out: Any
) -> Any:
    over_all, over_one, pairwise = records
    if isinstance(dim, Tensor) and not keepdim:  # with ``keepdim`` a number, as in PyTorch
        dim, other = None, dim
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
    if other is not None:
        require_tensor(name, other)
        result = pairwise(input, other)
    elif dim is None:
        array = _require_some(name, input)
        require_work(name, array)
        result = over_all(input, dim=tuple(range(array.ndim)), keepdim=False)
    else:
        return with_indices(name, over_one, input, dim, out, keepdim=keepdim)
    return result if out is None else deliver(name, result, out)


@calls(max_dim_op, "x dim flag", returns=_ValuesOf["max"])
@calls(amax_op, "x all:dim -:keepdim=False")
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None) -> Any:
    """The largest element, three ways.

    ``max(x)``: of all, a 0-d tensor (ties share the gradient). ``max(x, dim, keepdim)``: along one dim, a named tuple
    ``(values, indices)``; the gradient goes to the element at ``indices``. ``max(x, y)``: of two tensors, elementwise.
    NaN wins over every number.

    Raises: ShapeError for no elements, DimError for a dim of size 0 or out of range, DTypeError for complex tensors.
    Example:
        >>> import tensorgrad as tg
        >>> values, indices = tg.tensor([[1.0, 5.0], [4.0, 2.0]]).max(dim=1)
        >>> values.tolist(), indices.tolist()
        ([5.0, 4.0], [1, 0])
    """
    return _max_or_min("max", (amax_op, max_dim_op, pw.maximum), input, dim, keepdim, other, out)


@calls(min_dim_op, "x dim flag", returns=_ValuesOf["min"])
@calls(amin_op, "x all:dim -:keepdim=False")
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None) -> Any:
    """The smallest element, in the three ways of ``max``."""
    return _max_or_min("min", (amin_op, min_dim_op, pw.minimum), input, dim, keepdim, other, out)


def _arg_infer(name: str) -> Any:
    def infer(x: Any, *, dim: int | None, keepdim: bool) -> Spec:
        dims = tuple(range(x.ndim)) if dim is None else (dim,)
        _require_elements(name, x, dims)
        return Spec(reduced_shape(tuple(x.shape), dims, keepdim), numpy_dtype("int64"))

    return infer


def _arg_samples() -> list[Sample]:
    flat = Sample((Arg((3, 4)),), {"dim": None, "keepdim": False}, False, "flat")
    kept = Sample((Arg((3, 4), layout="T"),), {"dim": None, "keepdim": True}, False, "flat-kept")
    return [Sample(s.inputs, s.attrs, False, s.name) for s in _dim_samples()] + [flat, kept]


argmax_op, argmin_op = (
    op(name, infer=_arg_infer(name), nondiff=("y",), checked=True, samples=_arg_samples, doc=doc)
    for name, doc in (
        ("argmax", "Where the largest element is along ``dim``, or in the flattened tensor."),
        ("argmin", "Where the smallest element is along ``dim``, or in the flattened tensor."),
    )
)


@calls(argmax_op, "x dim flag")
@calls(argmax_op, "x -:dim=None flag")
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Tensor:
    """Where the largest element is along ``dim``, or in the flattened tensor; the first of equals, NaN before numbers.

    Raises: ShapeError for no elements, DimError for a dim of size 0 or out of range, DTypeError for complex tensors.
    """
    return _position(argmax_op, input, dim, keepdim, out)


@calls(argmin_op, "x dim flag")
@calls(argmin_op, "x -:dim=None flag")
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Tensor:
    """Where the smallest element is; otherwise as ``argmax``."""
    return _position(argmin_op, input, dim, keepdim, out)


def _position(record: Any, input: Any, dim: Any, keepdim: bool, out: Any) -> Tensor:
    if dim is None:
        if require_tensor(record.name, input).size == 0:
            raise DimError(f"{record.name}: a tensor of shape {tuple(input.shape)} has no elements.")
        result = record(input, dim=None, keepdim=keepdim)
    else:
        result = over_dim(record, record.name, input, dim, keepdim=keepdim)
    return result if out is None else deliver_same(record.name, result, out)


# --- the middle


def _of_all_infer(name: str) -> Any:
    def infer(x: Any) -> Spec:
        _require_elements(name, x, tuple(range(x.ndim)))
        return Spec((), x.dtype)

    return infer


def _of_all_define(over_dim: str) -> Any:
    def define(F: Any, x: Any) -> Any:
        return getattr(F, over_dim)(F.reshape(x, shape=(product(x.shape),)), dim=0, keepdim=False)[0]

    return define


def _of_all_rule(F: Any, g: Any, x: Any, *, y: Any, needs: Any) -> tuple[Any, ...]:
    return _shared_rule(F, g, x, y=y, needs=needs, dim=tuple(range(len(x.shape))), keepdim=False)


median_all_op, nanmedian_all_op = (
    op(
        f"{name}_all",
        infer=_of_all_infer(name),
        define=_of_all_define(f"{name}_dim"),
        rule=_of_all_rule,
        keeps=("x", "y"),
        samples=lambda: [
            Sample((Arg((3, 4)),), {}, name="matrix"),
            Sample((Arg((2, 3, 5), layout="T"),), {}, name="transposed"),
            Sample((Arg((5,), layout="step"),), {}, name="strided"),
            Sample((Arg(()),), {}, name="0-d"),
        ],
        doc=f"The lower of the middle elements{rest}. Those that equal it share the gradient evenly.",
    )
    for name, rest in (("median", "; NaN if any is"), ("nanmedian", " that are not NaN"))
)


@calls(median_dim_op, "x dim flag", returns=_ValuesOf["median"])
def median(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """The lower of the middle elements: of all as a 0-d tensor, or along ``dim`` as a named tuple (values, indices).

    NaN if there is one among them; ``nanmedian`` leaves NaN out.
    """
    return _middle("median", median_dim_op, median_all_op, input, dim, keepdim, out)


@calls(nanmedian_dim_op, "x dim flag", returns=_ValuesOf["nanmedian"])
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """``median`` of the elements that are not NaN; NaN where there is none."""
    return _middle("nanmedian", nanmedian_dim_op, nanmedian_all_op, input, dim, keepdim, out)


def _middle(name: str, record: Any, over_all: Any, input: Any, dim: Any, keepdim: bool, out: Any) -> Any:
    if dim is not None:
        return with_indices(name, record, input, dim, out, keepdim=keepdim)
    array = require_tensor(name, input)
    if array.size == 0:
        if array.dtype.kind in "biu":
            raise ShapeError(f"{name}: no element of {input.dtype} stands for the middle of an empty tensor.")
        result: Any = pw.mul(input.sum(), float("nan"))
    else:
        result = over_all(input)
    return result if out is None else deliver(name, result, out)


def _kth_infer(x: Any, *, k: int, dim: int, keepdim: bool) -> tuple[Spec, Spec]:
    _require_elements("kthvalue", x, (dim,))
    if not 1 <= k <= x.shape[dim]:
        raise ShapeError(f"kthvalue: k must be from 1 to {x.shape[dim]}, the size of dim {dim}; got {k}.")
    shape = reduced_shape(tuple(x.shape), (dim,), keepdim)
    return Spec(shape, x.dtype), Spec(shape, numpy_dtype("int64"))


kthvalue_op = op(
    "kthvalue",
    infer=_kth_infer,
    rule=lambda F, g, x, *, indices, needs, k, dim, keepdim: (place(F, g[0], indices, x, dim, keepdim),),
    keeps=("indices",),
    outputs=("values", "indices"),
    nondiff=("indices",),
    checked=True,
    samples=lambda: [Sample(s.inputs, {**s.attrs, "k": 2}, s.smooth, s.name) for s in _dim_samples()],
    doc="The k-th smallest element along ``dim`` (1 is the smallest) and where it is.",
)


@calls(kthvalue_op, "x int dim flag", returns=_ValuesOf["kthvalue"])
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """The k-th smallest element along ``dim`` (1 is the smallest, NaN counts as largest), and where it is.

    Raises: ShapeError if ``k`` is not from 1 to the dim's size; DimError for a bad dim.
    """
    return with_indices("kthvalue", kthvalue_op, input, dim, out, k=integer("kthvalue", "k", k), keepdim=keepdim)


for _function in (amax, amin, aminmax, argmax, argmin, kthvalue, max, median, min, nanmedian):
    install(_function)
