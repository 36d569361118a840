"""The von Mises distribution, on the circle."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..ops.checks import everywhere
from ..special import bessel
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .utils import broadcast_all, lazy_property

__all__ = ["VonMises"]


class VonMises(Distribution):
    """Von Mises with direction ``loc`` (an angle) and ``concentration``: density proportional to
    ``exp(concentration * cos(x - loc))``."""

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real
    has_rsample = False

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        k = self.concentration
        # i0e(k) = exp(-k) I0(k), so that nothing overflows
        return k * (tg.cos(value - self.loc) - 1) - math.log(2 * math.pi) - tg.log(bessel.i0e(k))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """By rejection from a wrapped Cauchy distribution. Source: Best and Fisher 1979."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            k = self.concentration.double()
            tau = 1 + (1 + 4 * k * k).sqrt()
            rho = (tau - (2 * tau).sqrt()) / (2 * k)
            exact = (1 + rho * rho) / (2 * rho)
            r = tg.where(k < 1e-5, 1 / k + k, exact).expand(shape)  # where the formula cancels
            k = k.expand(shape)
            out = tg.zeros(shape, dtype=tg.float64, device=k.device)
            done = tg.zeros(shape, dtype=tg.bool, device=k.device)
            while not everywhere(done):
                u = tg.rand((3, *shape), dtype=tg.float64, device=k.device)
                z = tg.cos(math.pi * u[0])
                f = (1 + r * z) / (r + z)
                c = k * (r - f)
                accepted = ((c * (2 - c) - u[1]) > 0) | ((c / u[1]).log() + 1 - c >= 0)
                angle = (u[2] - 0.5).sign() * f.clamp(min=-1, max=1).acos()
                out = tg.where(accepted & ~done, angle, out)
                done = done | accepted
            x = out + self.loc.double()
            wrapped = tg.remainder(x + math.pi, 2 * math.pi) - math.pi
            return wrapped.to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """The direction (the circular mean)."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:
        """The circular variance ``1 - I1(k) / I0(k)``."""
        return 1 - bessel.i1e(self.concentration) / bessel.i0e(self.concentration)
