"""Gamma, Poisson and binomial draws: records and functions, loaded when first named."""

from __future__ import annotations

from typing import Any

from ..errors import AutogradError, ShapeError
from ..random import Generator, chosen
from ..tensor import Tensor
from .checks import everywhere, require_float, require_same_dtype, require_tensors
from .elementwise import broadcast_shape
from .record import Spec, op

__all__ = ["_standard_gamma", "_standard_gamma_grad", "binomial", "poisson"]


def _like(name: str) -> Any:
    def infer(x: Any, *, generator: Any) -> Spec:
        require_float(name, x)
        return Spec(tuple(x.shape), x.dtype)

    return infer


def _grad_infer(alpha: Any, sample: Any) -> Spec:
    require_float("_standard_gamma_grad", alpha)
    require_same_dtype("_standard_gamma_grad", alpha, output=sample)
    if tuple(alpha.shape) != tuple(sample.shape):
        raise ShapeError(
            f"_standard_gamma_grad: shapes {tuple(alpha.shape)} and {tuple(sample.shape)} differ; expand one of them."
        )
    return Spec(tuple(alpha.shape), alpha.dtype)


def _no_second_derivative(*args: Any, **named: Any) -> Any:
    raise AutogradError("the derivative of a gamma sample in its shape is not implemented a second time.")


standard_gamma_grad = op(
    "standard_gamma_grad",
    infer=_grad_infer,
    rule=_no_second_derivative,
    doc="The derivative of a gamma sample in its shape parameter, at fixed randomness.",
)
standard_gamma = op(
    "standard_gamma",
    infer=_like("_standard_gamma"),
    rule=lambda F, g, x, *, needs, y, generator: (F.mul(g, F.standard_gamma_grad(x, y)),),
    keeps=("x", "y"),
    doc="Gamma numbers with rate 1.",
)
poisson_op = op(
    "poisson",
    infer=_like("poisson"),
    rule=lambda F, g, x, *, needs, generator: (F.mul(g, 0.0),),
    doc="Poisson numbers; a draw that takes steps has derivative zero.",
)


def _binomial_infer(count: Any, prob: Any, *, generator: Any) -> Spec:
    require_float("binomial", prob)
    require_same_dtype("binomial", prob, count=count)
    return Spec(broadcast_shape("binomial", count.shape, prob.shape), prob.dtype)


binomial_op = op(
    "binomial",
    infer=_binomial_infer,
    rule=lambda F, g, count, prob, *, needs, generator: tuple(
        F.sum_to(F.mul(g, 0.0), shape=tuple(x.shape)) if needed else None
        for x, needed in zip((count, prob), needs, strict=True)
    ),
    doc="Numbers of successes; a draw that takes steps has derivative zero.",
)


def _standard_gamma(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma numbers with the shapes ``input`` and rate 1, differentiable in ``input`` (implicit reparameterization).

    Source: Marsaglia and Tsang 2000; Figurnov, Mohamed, Mnih 2018.
    """
    require_tensors("_standard_gamma", input=input)
    result: Tensor = standard_gamma(input, generator=chosen(generator))
    return result


def _standard_gamma_grad(input: Tensor, output: Tensor) -> Tensor:
    """The derivative of the gamma sample ``output`` in its shape ``input``, at a fixed value of the distribution
    function."""
    require_tensors("_standard_gamma_grad", input=input, output=output)
    result: Tensor = standard_gamma_grad(input, output)
    return result


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the rates ``input``, in its dtype.

    Raises: RuntimeError for a negative rate; DTypeError for integers.
    Source: inversion below a rate of 10, transformed rejection (Hoermann 1993) above.
    Example:
        >>> import tensorgrad as tg
        >>> tg.poisson(tg.zeros(3)).tolist()
        [0.0, 0.0, 0.0]
    """
    require_tensors("poisson", input=input)
    require_float("poisson", input._data)
    if not everywhere(input.detach() >= 0):
        raise AutogradError("poisson: expected rates that are not negative.")
    result: Tensor = poisson_op(input, generator=chosen(generator))
    return result


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of ``count`` trials succeed, each with probability ``prob``; the two broadcast and share a dtype.

    NaN where ``count`` is negative or ``prob`` is none. Source: inversion below a mean of 10, transformed rejection
    (Hoermann 1993) above.
    """
    require_tensors("binomial", count=count, prob=prob)
    result: Tensor = binomial_op(count, prob, generator=chosen(generator))
    return result
