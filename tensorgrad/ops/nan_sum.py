"""Sums and means that leave NaN out."""

from __future__ import annotations

from typing import Any

from ..expr import functions as fn
from ..tensor import Tensor, install
from . import pointwise as pw
from .elementwise import elementwise
from .formula_loss import ReducedFormula
from .inplace import check_fits_dtype, deliver
from .reduce import Dims, dtype_to_reduce_in, prepared, require_float, require_tensor, sum
from .samples import Arg, Sample

__all__ = ["nanmean", "nansum"]

without_nan = elementwise(
    lambda x: fn.where(fn.isnan(x), 0.0, x),
    name="without_nan",
    samples=lambda: [Sample((Arg((2, 3), layout=layout),), name=layout) for layout in ("C", "T")],
    doc="``x`` with NaN taken as 0.",
)
nansum_all = ReducedFormula(
    "nansum_all",
    without_nan,
    lambda: [Sample((Arg((3, 4), layout=layout),), {"reduction": "sum"}, name=layout) for layout in ("C", "T")],
)


def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None) -> Tensor:
    """``sum`` with NaN taken as 0."""
    if dtype is None and isinstance(out, Tensor):
        check_fits_dtype("nansum", out, require_tensor("nansum", input).dtype)  # NaN is no integer
    dtype = dtype_to_reduce_in(dtype, out)
    x = prepared("nansum", input, dtype)
    if x._data.dtype.kind not in "bui":
        if dim is None and not keepdim and out is None and x._data.ndim:
            return nansum_all(x, reduction="sum")
        x = without_nan(x)
    return sum(x, dim, keepdim, dtype=dtype, out=out)


def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None) -> Tensor:
    """``mean`` over the elements that are not NaN; NaN where there is none."""
    x = prepared("nanmean", input, dtype)
    require_float("nanmean", x._data.dtype)
    count = sum(pw.logical_not(pw.isnan(x)), dim, keepdim)
    result = pw.div(nansum(x, dim, keepdim), count)
    return result if out is None else deliver("nanmean", result, out)


for _function in (nanmean, nansum):
    install(_function)
