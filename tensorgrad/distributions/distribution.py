"""``Distribution``: the base of all, with what shapes, validation, expansion and printing have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..ops.checks import everywhere
from ..tensor import Size, Tensor
from . import constraints
from .utils import as_size, lazy_property

__all__ = ["Distribution"]


class Distribution:
    """A probability distribution for each element of ``batch_shape``, over events of ``event_shape``.

    A subclass names its parameters and what they must satisfy in ``arg_constraints``, sets them as attributes, and
    defines ``rsample`` (or ``sample``), ``log_prob`` and its moments. ``expand`` and ``repr`` follow from the names.

    Args:
        validate_args: whether parameters and values are checked; by default what ``set_default_validate_args`` says.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = __debug__
    arg_constraints: ClassVar[dict[str, Any]]
    support: Any

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions made from now on check their arguments. Raises ValueError for no bool."""
        if value not in (True, False):
            raise ValueError(f"set_default_validate_args: expected True or False, got {value!r}")
        Distribution._validate_args = value

    def __init__(self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None):
        self._batch_shape = Size(batch_shape)
        self._event_shape = Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()
        super().__init__()

    def _check_parameters(self) -> None:
        for name, constraint in getattr(self, "arg_constraints", {}).items():
            if constraints.is_dependent(constraint):
                continue
            if name not in self.__dict__ and isinstance(getattr(type(self), name, None), lazy_property):
                continue
            value = getattr(self, name)
            if not everywhere(constraint.check(value)):
                raise ValueError(
                    f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
                    f"{self!r} to satisfy the constraint {constraint!r}, but found invalid values:\n{value}"
                )

    @property
    def batch_shape(self) -> Size:
        """The shape over which parameters are batched."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one sample."""
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no mean")

    @property
    def mode(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not implement mode")

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no variance")

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The distribution with parameters expanded to ``batch_shape``, without copies."""
        new = self._like(_instance)
        shape = as_size(batch_shape)
        for name, constraint in self.arg_constraints.items():
            value = self.__dict__.get(name)
            if isinstance(value, Tensor):
                rank = constraint.event_dim
                setattr(new, name, value.expand((*shape, *value.shape[value.dim() - rank :])))
        new._batch_shape = shape
        return new

    def _like(self, instance: Any) -> Any:
        """A copy of this distribution, without values that were computed from its parameters."""
        new = type(self).__new__(type(self)) if instance is None else instance
        for name, value in self.__dict__.items():
            lazy = isinstance(getattr(type(self), name, None), lazy_property)
            if not lazy or name in self._given():
                new.__dict__[name] = value
        return new

    def _given(self) -> tuple[str, ...]:
        """Names of the lazy parameters that were passed in."""
        return ()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Samples (sample_shape + batch_shape + event_shape), without history."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples through which gradients flow to the parameters. Raises NotImplementedError where there are none."""
        raise NotImplementedError(f"{type(self).__name__} has no reparameterized samples (has_rsample is False)")

    def sample_n(self, n: int) -> Tensor:
        """``n`` samples: ``sample((n,))``."""
        return self.sample(Size((n,)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, at ``value``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of what is at most ``value``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement icdf")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a distribution over finitely many, along a new first dimension."""
        raise NotImplementedError(f"{type(self).__name__} has no finite support to enumerate")

    def entropy(self) -> Tensor:
        """The entropy, in nats: one for each element of the batch."""
        raise NotImplementedError(f"{type(self).__name__} does not implement entropy")

    def perplexity(self) -> Tensor:
        """``exp(entropy)``."""
        return tg.exp(self.entropy())

    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        return Size((*as_size(sample_shape), *self._batch_shape, *self._event_shape))

    def _validate_sample(self, value: Any) -> None:
        """Raises ValueError unless ``value`` is a tensor in the support, of a shape that broadcasts."""
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        start = value.dim() - len(self._event_shape)
        if start < 0 or tuple(value.shape[start:]) != tuple(self._event_shape):
            raise ValueError(
                f"The right-most size of value must match event_shape: {value.size()} vs {self._event_shape}."
            )
        expected = self._batch_shape + self._event_shape
        for i, j in zip(reversed(value.shape), reversed(expected), strict=False):
            if i != 1 and j != 1 and i != j:
                raise ValueError(
                    f"Value is not broadcastable with batch_shape+event_shape: {value.size()} vs {Size(expected)}."
                )
        try:
            support = self.support
        except NotImplementedError:
            return
        if not everywhere(support.check(value)):
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within the "
                f"support ({support!r}) of the distribution {self!r}, but found invalid values:\n{value}"
            )

    def __repr__(self) -> str:
        shown = []
        for name in self.arg_constraints:
            value = self.__dict__.get(name)
            if isinstance(value, Tensor):
                shown.append(f"{name}: {value if value.numel() == 1 else value.size()}")
        return f"{type(self).__name__}({', '.join(shown)})"
