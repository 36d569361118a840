"""Statistics of samples: covariance, quantiles, modes, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dtypes import of_array
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from . import shape_core as core
from .calls import calls
from .checks import integer, real, require_outs
from .extremes import dim_record, over_dim
from .gather import gather
from .inplace import deliver, deliver_same
from .ranges import linspace
from .record import Spec, op
from .reduce import named, require_tensor
from .samples import Arg, Sample
from .search import bincount, searchsorted
from .shape import movedim, reshape
from .shape_core import one_dim, size_of
from .sort import sort

__all__ = ["corrcoef", "cov", "histc", "histogram", "mode", "nanquantile", "quantile"]

_Mode = named("mode", "values indices")
_Histogram = named("histogram", "hist bin_edges")


# --- covariance


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """The covariance matrix of variables in rows, observed in columns; a vector is one variable.

    Args:
        correction: taken off the number of observations; 1 by default (Bessel).
        fweights: how often each observation occurs, integers.
        aweights: how much each observation counts.
    Raises: ShapeError for more than two dimensions or weights of another length; DTypeError for bool tensors and
        weights of the wrong kind; ArgumentError for negative weights.
    """
    correction = integer("cov", "correction", correction)
    x, weights, total, squares = _observations(input, fweights, aweights)
    count: Any = x._data.shape[1] if weights is None else total
    weighted = x if weights is None else pw.mul(x, weights)
    summed = weighted.sum(1, keepdim=True)
    mean = pw.div(summed, count)
    if weights is None or aweights is None or correction == 0:
        norm: Any = count - correction
    else:
        norm = count - pw.div(pw.mul(squares, correction), count)
    size = float(norm)
    if size <= 0:
        import warnings

        warnings.warn("cov(): degrees of freedom is <= 0", UserWarning, stacklevel=2)
        norm = 0
    away = pw.sub(x, mean)
    across = away if weights is None else pw.mul(away, weights)
    across = across.t().conj() if x._data.dtype.kind == "c" else across.t()
    products: Any = pw.div(away @ across, norm)
    return products.squeeze()


def _observations(input: Any, fweights: Any, aweights: Any) -> tuple[Any, Any, Any, Any]:
    """(variables in rows, weights or None, their sum, the sum of weights times ``aweights``)."""
    array = require_tensor("cov", input)
    if array.ndim > 2:
        raise ShapeError(f"cov: expected input to have two or fewer dimensions, got {array.ndim}.")
    if array.dtype.kind == "b":
        raise DTypeError("cov: bool dtype is not supported for input.")
    x: Any = input if array.ndim == 2 else reshape(input, 1, size_of(array.shape))
    count = x._data.shape[1]
    for name, weights, kinds in (("fweights", fweights, "iu"), ("aweights", aweights, "fV")):
        if weights is None:
            continue
        if require_tensor("cov", weights).ndim > 1 or weights._data.size != count:
            raise ShapeError(
                f"cov: expected {name} to have one or fewer dimensions and the same numel as there are input "
                f"observations, got shape {tuple(weights.shape)} for {count} observations."
            )
        if weights._data.dtype.kind not in kinds:
            wanted = "an integral" if kinds == "iu" else "a floating-point"
            raise DTypeError(f"cov: expected {name} to have {wanted} dtype, got {weights.dtype}.")
        if count and bool((weights < 0).any()):
            raise ArgumentError(f"cov: {name} cannot be negative.")
    if fweights is None and aweights is None:
        return x, None, None, None
    both: Any = aweights if fweights is None else fweights if aweights is None else fweights * aweights
    total = both.sum()
    if float(total) == 0:
        raise ArgumentError("cov: expected fweights and aweights to have a sum that is not zero.")
    return x, both, total, None if aweights is None else (both * aweights).sum()


def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables in rows, observed in columns: the covariance over both deviations.

    Raises: ShapeError for more than two dimensions.
    """
    if require_tensor("corrcoef", input).ndim > 2:
        raise ShapeError(f"corrcoef: expected input to have two or fewer dimensions, got {input._data.ndim}.")
    c: Any = cov(input)
    if c._data.ndim == 0:
        return pw.div(c, c)
    deviation: Any = pw.sqrt(c.diagonal().real)
    c = pw.div(pw.div(c, deviation.unsqueeze(1)), deviation.unsqueeze(0))
    if c._data.dtype.kind == "c":
        return pw.complex_(c.real.clamp(-1, 1), c.imag.clamp(-1, 1))
    return c.clamp(-1, 1)


# --- quantiles

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear",
    out: Any = None,
) -> Tensor:  # fmt: skip
    """The q-th quantiles of the elements, over all or along ``dim``; NaN where there is a NaN.

    Args:
        q: a number or a tensor (0-d or a vector) of probabilities; a vector becomes the first dimension.
        interpolation: between the two elements that a quantile falls between: ``"linear"``, ``"lower"``,
            ``"higher"``, ``"midpoint"`` or ``"nearest"``.
    Raises: DTypeError unless float32 or float64, and for ``q`` of another dtype; ArgumentError for probabilities
        outside of [0, 1], no elements, or another interpolation.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, out, skip_nan=False)


def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear",
    out: Any = None,
) -> Tensor:  # fmt: skip
    """``quantile`` of the elements that are not NaN; NaN where there is none."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, out, skip_nan=True)


def _quantile(
    name: str, input: Any, q: Any, dim: Any, keepdim: bool, interpolation: str, out: Any, *, skip_nan: bool
) -> Tensor:
    array = require_tensor(name, input)
    if array.dtype.name not in ("float32", "float64"):
        raise DTypeError(f"{name}: quantile() input tensor must be either float or double dtype, got {input.dtype}.")
    if array.size == 0:
        raise ArgumentError(f"{name}: quantile() input tensor must be non-empty.")
    if interpolation not in _INTERPOLATIONS:
        raise ArgumentError(
            f"{name}: quantile() interpolation must be one of {', '.join(_INTERPOLATIONS)}, but got {interpolation!r}."
        )
    probabilities = _probabilities(name, input, q)
    at = 0 if dim is None else one_dim(name, dim, array.ndim)
    x: Any = reshape(input, -1) if dim is None or array.ndim == 0 else movedim(input, at, -1)
    ordered: Any = sort(x, -1).values
    last = x._data.shape[-1] - 1
    missing: Any = pw.isnan(ordered)
    q_row: Any = reshape(probabilities, (1,) * (x._data.ndim - 1) + (-1,))
    if skip_nan:
        numbers: Any = pw.logical_not(missing).sum(-1, keepdim=True)
        rank: Any = pw.clamp_min(pw.mul(q_row, pw.sub(numbers, 1).to(ordered.dtype)), 0)
    else:
        rank = pw.where(missing.any(-1, True), float(last), pw.mul(q_row, float(last)))
    if interpolation == "lower":
        rank = pw.floor(rank)
    elif interpolation == "higher":
        rank = pw.ceil(rank)
    elif interpolation == "nearest":
        rank = pw.round(rank)
    shape = (*x._data.shape[:-1], probabilities._data.size)
    rank = rank.expand(shape)
    below = pw.floor(rank).long()
    result: Any = gather(ordered, -1, below)
    if interpolation in ("linear", "midpoint"):
        weight: Any = pw.sub(rank, below) if interpolation == "linear" else core.full_as(rank, value=0.5)
        result = pw.lerp(result, gather(ordered, -1, pw.ceil(rank).long()), weight)
    result = movedim(result, -1, 0)
    if keepdim:
        sizes = (1,) * array.ndim if dim is None else (*result.shape[1 : at + 1], 1, *result.shape[at + 1 :])
        result = reshape(result, (result.shape[0], *(sizes if array.ndim else ())))
    elif array.ndim == 0 and dim is not None:
        result = reshape(result, (result.shape[0],))
    if probabilities._data.ndim == 0:
        result = result.squeeze(0)
    return result if out is None else deliver_same(name, result, out)


def _probabilities(name: str, input: Tensor, q: Any) -> Tensor:
    from .create import tensor

    if not isinstance(q, Tensor):
        if not isinstance(q, (int, float)) or isinstance(q, bool):
            raise TypeError(f"{name}: q must be a number or a tensor, got {type(q).__name__}.")
        q = tensor(real(name, "q", q), dtype=input.dtype, device=input.device)
    if q._data.ndim > 1:
        raise ShapeError(f"{name}: quantile() q must be a scalar or 1D tensor, got shape {tuple(q.shape)}.")
    if q._data.dtype != input._data.dtype:
        raise DTypeError(f"{name}: quantile() q tensor must be same dtype as the input tensor, got {q.dtype}.")
    if q._data.size and not bool(((q >= 0) & (q <= 1)).all()):
        raise ArgumentError(f"{name}: quantile() q values must be in the range [0, 1], got {q.detach().tolist()}.")
    return q


# --- the most frequent

mode_dim = dim_record(
    "mode_dim", "mode", "The most frequent element along ``dim``, the smallest of equally frequent ones, and where."
)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """The named tuple (values, indices) of the most frequent element along ``dim``, the smallest of equally frequent.

    Raises: DimError for a bad dim or one of size 0; DTypeError for complex tensors.
    """
    values, indices = over_dim(mode_dim, "mode", input, dim, keepdim=keepdim)
    if out is not None:
        require_outs("mode", out)
        values, indices = deliver_same("mode", values, out[0]), deliver_same("mode", indices, out[1])
    return _Mode(values, indices)


# --- histograms


def _range(name: str, x: Tensor, low: float, high: float, grow: float) -> tuple[float, float]:
    """The outer edges: those given, or the smallest and the largest element where both are equal."""
    if low == high and x._data.size:
        low, high = float(x.min()), float(x.max())
    if not (-float("inf") < low < float("inf") and -float("inf") < high < float("inf")):
        raise ArgumentError(f"{name}: range of [{low}, {high}] is not finite.")
    if low > high:
        raise ArgumentError(f"{name}: max must be larger than min, got [{low}, {high}].")
    return (low - grow, high + grow) if low == high else (low, high)


def _require_real(name: str, x: Any) -> Any:
    array = require_tensor(name, x)
    _check_real(name, array.dtype)
    return array


def _check_real(name: str, dtype: Any) -> None:
    if dtype.kind not in "fV":
        raise DTypeError(f'{name}: "{name}" is not implemented for {of_array(dtype)}; convert with .float().')


def _histc_infer(x: Any, *, bins: int, low: float, high: float) -> Spec:
    _check_real("histc", x.dtype)
    return Spec((bins,), x.dtype)


histc_op = op(
    "histc",
    raises=True,
    infer=_histc_infer,
    nondiff=("y",),
    checked=True,
    samples=lambda: [
        Sample((Arg((30,)),), {"bins": 7, "low": -1.0, "high": 1.5}, False, "some outside"),
        Sample((Arg((30,)),), {"bins": 6, "low": 0.0, "high": 0.0}, False, "all"),
    ],
    doc="How many elements fall into each of ``bins`` equal intervals from ``low`` to ``high``; where these are equal, "
    "from the smallest to the largest element.",
)


@calls(histc_op, "x int real:low real:high")
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0, *, out: Any = None) -> Tensor:
    """How many elements fall into each of ``bins`` equal intervals from ``min`` to ``max``, in the input's dtype.

    If both are equal, the smallest and largest element are taken; elements outside, and NaN, are not counted.

    Raises: DTypeError for integers, as PyTorch on the CPU; ArgumentError for no bins or a range that is not one.
    """
    _require_real("histc", input)
    count = integer("histc", "bins", bins)
    if count <= 0:
        raise ArgumentError(f"histc: bins must be > 0, got {bins}.")
    low, high = real("histc", "min", min), real("histc", "max", max)
    try:
        result = histc_op(input, bins=count, low=low, high=high)
    except ValueError:  # what is wrong with the range; of no elements, 0 to 1
        low, high = _range("histc", input.detach(), low, high, 1.0)
        result = histc_op(input, bins=count, low=low, high=high)
    return result if out is None else deliver_same("histc", result, out)


def histogram(
    input: Tensor, bins: Any, *, range: Sequence[float] | None = None, weight: Tensor | None = None,
    density: bool = False, out: Any = None,
) -> Any:  # fmt: skip
    """The named tuple (hist, bin_edges): how many elements, or how much weight, fall between neighbouring edges.

    Args:
        bins: a number of equal bins, or the edges themselves, rising.
        range: (lowest, highest) edge; by default the smallest and largest element.
        density: divide by the total and by the widths of the bins, so that the integral is 1.
    Raises: DTypeError for integers and for edges or weights of another dtype; ArgumentError for a bad number or range.
    """
    array = _require_real("histogram", input)
    if weight is not None:
        if require_tensor("histogram", weight).shape != array.shape:
            raise ShapeError(
                f"histogram: if weight tensor is provided it should have the same shape as the input tensor, got "
                f"{tuple(weight.shape)} and {tuple(input.shape)}."
            )
        if weight._data.dtype != array.dtype:
            raise DTypeError(f"histogram: weight and input must have one dtype, got {weight.dtype} and {input.dtype}.")
    x: Any = reshape(input, -1).detach()
    if isinstance(bins, Tensor):
        if bins._data.ndim != 1 or bins._data.size < 1:
            raise ShapeError(f"histogram: bins tensor should have one dimension, got shape {tuple(bins.shape)}.")
        if bins._data.dtype != array.dtype:
            raise DTypeError(f"histogram: bins and input must have one dtype, got {bins.dtype} and {input.dtype}.")
        if range is not None:
            raise TypeError("histogram: give a range with a number of bins, not with their edges.")
        edges: Any = bins
    else:
        number = integer("histogram", "bins", bins)
        if number <= 0:
            raise ArgumentError(f"histogram: bins must be > 0, got {bins}.")
        low, high = (0.0, 0.0) if range is None else (float(range[0]), float(range[1]))
        if range is None and x._data.size == 0:
            low, high = 0.0, 1.0
        if range is not None and low == high:
            low, high = low - 0.5, high + 0.5
        low, high = _range("histogram", x, low, high, 0.5)
        edges = linspace(low, high, number + 1, dtype=input.dtype, device=input.device)
    count = edges._data.shape[0] - 1
    inside: Any = (x >= edges[0]) & (x <= edges[-1])
    places: Any = (searchsorted(edges, x[inside], right=True) - 1).clamp(max=max(count - 1, 0))
    parts = None if weight is None else reshape(weight, -1).detach()[inside]
    hist: Any = core.cast(bincount(places, parts, minlength=count), dtype=array.dtype)[:count]
    if density:
        hist = hist / hist.sum() / (edges[1:] - edges[:-1])
    if out is not None:
        hist, edges = deliver("histogram", hist, out[0]), deliver("histogram", edges, out[1])
    return _Histogram(hist, edges)


for _function in (corrcoef, cov, histc, histogram, mode, nanquantile, quantile):
    install(_function)
