"""``scalar``: a number that compiled functions read anew in each call."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..ops.create import tensor
from ..tensor import Tensor

__all__ = ["Scalar", "scalar"]


class Scalar(Tensor):
    """A 0-d tensor made by ``scalar``."""

    def set(self, value: Any) -> Scalar:
        """Let it be another number from now on: also in programs that were written before. Returns the scalar."""
        with no_grad():
            self.fill_(value)
        return self

    def __repr__(self, **kwargs: Any) -> str:
        return f"scalar({self.item()!r}, dtype={self.dtype})"


def scalar(value: float, *, dtype: Any = None, device: Any = None) -> Scalar:
    """A number that compiled functions read anew in each call, where a Python number would be frozen.

    In arithmetic it acts as any 0-d tensor: beside tensors with dimensions of the same kind it doesn't widen the
    result.

    Args:
        value: a number.
        dtype: by default that of ``tensor(value)``.
        device: where it lies.
    Example:
        >>> import tensorgrad as tg
        >>> scale = tg.scalar(2.0)
        >>> f = tg.compile(lambda x: x * scale)
        >>> f(tg.ones(1)).item(), f(tg.ones(1)).item()
        (2.0, 2.0)
        >>> _ = scale.set(5.0)
        >>> f(tg.ones(1)).item()
        5.0
    """
    made: Any = Scalar.__new__(Scalar)
    made._data = tensor(value, dtype=dtype, device=device)._data
    return made
