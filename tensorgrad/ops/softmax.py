"""Softmax, its logarithm, and their fused backward ops."""

from __future__ import annotations

from typing import Any

from ..dtypes import as_dtype
from ..random import Generator
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .checks import require_float, require_tensors
from .inplace import deliver_same
from .record import Spec, op
from .samples import Arg, Sample
from .shape_core import one_dim

__all__ = ["log_softmax", "softmax"]


def _infer(x: Any, *, dim: int) -> Any:
    if x.dtype.kind != "f":
        require_float("softmax", x)
    return x  # shape and dtype are the input's


def _samples() -> list[Sample]:
    return [
        Sample((Arg((3, 4)),), {"dim": 1}, name="rows"),
        Sample((Arg((3, 4), layout="T"),), {"dim": 0}, name="columns"),
        Sample((Arg((2, 3, 4), layout="step"),), {"dim": 1}, name="middle"),
        Sample((Arg((3, 4), -80.0, 80.0),), {"dim": 1}, name="wide range"),
        Sample((Arg((2, 1)),), {"dim": 1}, name="single"),
        Sample((Arg((3, 0)),), {"dim": 1}, name="empty rows"),
        Sample((Arg((0, 3)),), {"dim": 1}, name="no rows"),
        Sample((Arg(()),), {"dim": 0}, name="scalar"),
    ]


def _backward_samples() -> list[Sample]:
    return [
        Sample((Arg((3, 4)), Arg((3, 4), 0.1, 0.9)), {"dim": 1}, name="rows"),
        Sample((Arg((3, 4), layout="T"), Arg((3, 4), 0.1, 0.9)), {"dim": 0}, name="columns"),
        Sample((Arg((0, 4)), Arg((0, 4), 0.1, 0.9)), {"dim": 1}, name="empty"),
    ]


def _axes(x: Any, dim: int) -> tuple[int, ...]:
    return (dim,) if x.ndim else ()


def _softmax_define(F: Any, x: Any, *, dim: int) -> Any:
    e = F.exp(F.sub(x, F.amax(x, dim=_axes(x, dim), keepdim=True)))
    return F.div(e, F.sum(e, dim=_axes(x, dim), keepdim=True))


def _log_softmax_define(F: Any, x: Any, *, dim: int) -> Any:
    shifted = F.sub(x, F.amax(x, dim=_axes(x, dim), keepdim=True))
    return F.sub(shifted, F.log(F.sum(F.exp(shifted), dim=_axes(x, dim), keepdim=True)))


softmax_op = op(
    "softmax",
    infer=_infer,
    define=_softmax_define,
    rule=lambda F, g, x, *, y, needs, dim: (F.softmax_backward(g, y, dim=dim),),
    keeps=("y",),
    checked=True,
    samples=_samples,
    doc="Exponentials along ``dim``, scaled to sum to one.",
)
log_softmax_op = op(
    "log_softmax",
    infer=_infer,
    define=_log_softmax_define,
    rule=lambda F, g, x, *, y, needs, dim: (F.log_softmax_backward(g, y, dim=dim),),
    keeps=("y",),
    checked=True,
    samples=_samples,
    doc="The logarithm of ``softmax``, without its loss of digits.",
)


def _backward_infer(g: Any, y: Any, *, dim: int) -> Spec:
    return Spec(tuple(y.shape), y.dtype)


softmax_backward = op(
    "softmax_backward",
    infer=_backward_infer,
    define=lambda F, g, y, *, dim: F.mul(y, F.sub(g, F.sum(F.mul(g, y), dim=_axes(y, dim), keepdim=True))),
    samples=_backward_samples,
    doc="``y * (g - sum(g * y))``.",
)
log_softmax_backward = op(
    "log_softmax_backward",
    infer=_backward_infer,
    define=lambda F, g, y, *, dim: F.sub(g, F.mul(F.exp(y), F.sum(g, dim=_axes(y, dim), keepdim=True))),
    samples=_backward_samples,
    doc="``g - exp(y) * sum(g)``.",
)


def _prepared(name: str, x: Any, dim: Any, dtype: Any) -> tuple[Tensor, int]:
    if not isinstance(x, Tensor):
        require_tensors(name, input=x)
    if dtype is not None:
        x = x.to(as_dtype(dtype))
    if dim is None:
        # PyTorch's choice for a missing dim, kept for old code
        dim = 0 if x._data.ndim in (0, 1, 3) else 1
    return x, one_dim(name, dim, x._data.ndim)


@calls(softmax_op, "x dim")
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None, *, out: Any = None) -> Tensor:
    """Exponentials of ``input`` along ``dim``, scaled to sum to one.

    ``y_i = exp(x_i - m) / sum_j exp(x_j - m)`` with ``m = max_j x_j``, which changes nothing but the range.

    Args:
        input: (..., n, ...) floating point; float16 and bfloat16 are summed in float32.
        dim: the axis of length n; negative counts from the end. None picks 0 for 0, 1 and 3 dimensions, else 1.
        dtype: convert to it first.
    Returns: the shape and dtype of ``input``; a row of all ``-inf`` gives NaN.
    Raises: DimError if ``dim`` is out of range; DTypeError for integers (convert with ``.float()``).
    Example:
        >>> import tensorgrad as tg
        >>> tg.softmax(tg.tensor([0.0, 0.0]), dim=0).tolist()
        [0.5, 0.5]
    Source: Bridle 1990; shift by the maximum: Blanchard, Higham, Higham 2021.
    """
    x, axis = _prepared("softmax", input, dim, dtype)
    result = softmax_op(x, dim=axis)
    return result if out is None else deliver_same("softmax", result, out)


@calls(log_softmax_op, "x dim")
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None, *, out: Any = None) -> Tensor:
    """``x_i - log(sum_j exp(x_j))`` along ``dim``: the logarithm of ``softmax``, right where that underflows."""
    x, axis = _prepared("log_softmax", input, dim, dtype)
    result = log_softmax_op(x, dim=axis)
    return result if out is None else deliver_same("log_softmax", result, out)


def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """``softmax`` of ``-input``."""
    x, axis = _prepared("softmin", input, dim, dtype)
    return softmax_op(pw.neg(x), dim=axis)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """A sample of the categorical distribution of ``logits`` along ``dim``, smoothed so that it has a gradient.

    Args:
        logits: (..., n, ...) logarithms of probabilities, up to a constant.
        tau: the temperature; the smaller, the nearer to a one-hot vector.
        hard: a one-hot vector, with the gradient of the smooth one.
        eps: has no meaning any more; kept so that old calls work.
    Raises: DTypeError for integers.
    Source: Jang, Gu, Poole 2016; Maddison, Mnih, Teh 2016.
    """
    from .random import rand_like

    require_tensors("gumbel_softmax", logits=logits)
    require_float("gumbel_softmax", logits._data)
    uniform = rand_like(logits.detach(), generator=generator)
    # from (0, 1]: the logarithm of an exponential variable is finite
    noise = pw.neg(pw.log(pw.clamp_min(pw.neg(pw.log(pw.sub(1.0, uniform))), _smallest(logits))))
    soft: Any = softmax(pw.div(pw.add(logits, noise), tau), dim)
    if not hard:
        return soft
    index = soft.detach().argmax(dim, keepdim=True)
    one_hot = (soft.detach() * 0.0).scatter(dim, index, 1.0)
    return pw.add(pw.sub(one_hot, soft.detach()), soft)


def _smallest(x: Tensor) -> float:
    return 1e-7 if x._data.dtype.itemsize == 2 else 1e-30


install(softmax)
install(log_softmax)
