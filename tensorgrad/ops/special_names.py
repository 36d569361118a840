"""Special functions that are also names of the package and methods of tensors; what they compute with is loaded by the
first call, so that importing the package stays fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError
from ..tensor import Tensor, install
from . import pointwise as pw
from .checks import integer
from .elementwise import Elementwise
from .inplace import deliver, write_into
from .signatures import require_tensor_arguments

__all__ = ["i0", "igamma", "igammac", "mvlgamma", "polygamma"]


def i0(input: Tensor, *, out: Any = None) -> Any:
    """The modified Bessel function of the first kind and order 0."""
    from ..special import bessel

    result = bessel.i0(input)
    return result if out is None else deliver("i0", result, out)


def i0_(self: Tensor) -> Tensor:
    """In-place form of ``i0``."""
    from ..special import bessel

    return write_into(bessel.i0, self, (self,), {})


def _incomplete(name: str, input: Any, other: Any) -> Elementwise:
    from ..special import gamma

    require_tensor_arguments(name, input=input, other=other)
    found: Elementwise = getattr(gamma, name)
    return found


def igamma(input: Tensor, other: Tensor, *, out: Any = None) -> Any:
    """The regularized lower incomplete gamma function ``P(input, other)``.

    Its derivative is known with respect to ``other`` alone; backward raises AutogradError for the first.
    """
    result = _incomplete("igamma", input, other)(input, other)
    return result if out is None else deliver("igamma", result, out)


def igamma_(self: Tensor, other: Tensor) -> Tensor:
    """In-place form of ``igamma``."""
    return write_into(_incomplete("igamma", self, other), self, (self, other), {})


def igammac(input: Tensor, other: Tensor, *, out: Any = None) -> Any:
    """The regularized upper incomplete gamma function ``Q(input, other) = 1 - P``.

    Its derivative is known with respect to ``other`` alone; backward raises AutogradError for the first.
    """
    result = _incomplete("igammac", input, other)(input, other)
    return result if out is None else deliver("igammac", result, out)


def igammac_(self: Tensor, other: Tensor) -> Tensor:
    """In-place form of ``igammac``."""
    return write_into(_incomplete("igammac", self, other), self, (self, other), {})


def _polygamma(n: Any) -> Elementwise:
    n = integer("polygamma", "the order n", n)
    if n < 0:
        raise ArgumentError(f"polygamma: the order must not be negative, got {n}.")
    if n == 0:
        return pw.digamma
    from ..special import gamma

    return gamma.polygamma(n)


def polygamma(n: int, input: Tensor, *, out: Any = None) -> Any:
    """The ``n``-th derivative of the digamma function. Raises ArgumentError for a negative ``n``."""
    require_tensor_arguments("polygamma", input=input)
    result = _polygamma(n)(input)
    return result if out is None else deliver("polygamma", result, out)


def polygamma_(self: Tensor, n: int) -> Tensor:
    """In-place form of ``polygamma``."""
    return write_into(_polygamma(n), self, (self,), {})


def _mvlgamma(p: Any) -> Elementwise:
    p = integer("mvlgamma", "p", p)
    if not 1 <= p <= 1024:  # a formula of as many terms
        raise ArgumentError(f"mvlgamma: p must be from 1 to 1024, got {p}.")
    from ..special import gamma

    return gamma.mvlgamma(p)


def mvlgamma(input: Tensor, p: int, *, out: Any = None) -> Any:
    """The logarithm of the gamma function in ``p`` dimensions. Raises ArgumentError unless 1 <= p <= 1024."""
    require_tensor_arguments("mvlgamma", input=input)
    result = _mvlgamma(p)(input)
    return result if out is None else deliver("mvlgamma", result, out)


def mvlgamma_(self: Tensor, p: int) -> Tensor:
    """In-place form of ``mvlgamma``."""
    return write_into(_mvlgamma(p), self, (self,), {})


_methods: tuple[Callable[..., Any], ...] = (
    i0, i0_, igamma, igamma_, igammac, igammac_, mvlgamma, mvlgamma_, polygamma_,
)  # fmt: skip
for _given in _methods:
    install(_given)
install(lambda self, n: polygamma(n, self), "polygamma")
