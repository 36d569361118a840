"""What distributions share: parameters broadcast to one shape, values computed when first asked for, logits and
probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Number
from typing import Any

import tensorgrad as tg

from ..autograd.grad_mode import enable_grad
from ..errors import DTypeError
from ..ops.checks import integer
from ..tensor import Size, Tensor

__all__ = [
    "broadcast_all", "clamp_probs", "euler_constant", "lazy_property", "logits_to_probs", "probs_to_logits",
    "tril_matrix_to_vec", "vec_to_tril_matrix",
]  # fmt: skip

euler_constant = 0.57721566490153286060


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape; numbers take dtype and device of the first tensor.

    Raises: ValueError for anything else.
    """
    if not all(isinstance(v, (Tensor, Number)) for v in values):
        raise ValueError("broadcast_all: all arguments must be numbers or Tensors.")
    like = next((v for v in values if isinstance(v, Tensor)), None)
    options: dict[str, Any] = {"dtype": tg.get_default_dtype()}
    if like is not None:
        options = {"dtype": like.dtype, "device": like.device}
    ready = [v if isinstance(v, Tensor) else tg.tensor(v, **options) for v in values]
    shape = ready[0]._data.shape
    if all(x._data.shape == shape for x in ready):
        return tuple(ready)
    return tg.broadcast_tensors(*ready)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities from logits: log odds of one event (``is_binary``), or of the events along the last dimension."""
    return tg.sigmoid(logits) if is_binary else tg.softmax(logits, -1)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept away from 0 and 1 by the dtype's rounding, so that logits are finite."""
    eps = eps_of(probs)
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The inverse of ``logits_to_probs``."""
    safe = clamp_probs(probs)
    return tg.log(safe) - tg.log1p(-safe) if is_binary else tg.log(safe)


class lazy_property:
    """A property computed once, when first read, with gradients recorded."""

    def __init__(self, wrapped: Callable[..., Any]):
        self.wrapped = wrapped
        functools.update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The lower triangles of matrices (..., n, n), up to diagonal ``diag``, row by row: (..., m)."""
    n = mat.shape[-1]
    if diag < -n or diag >= n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    return mat[(..., *_triangle(n, diag, mat))]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The inverse of ``tril_matrix_to_vec``; zeros above the triangle. Raises ValueError for an impossible length."""
    # m = n (n + 1) / 2 + n diag - diag (diag + 1) / 2 for diag <= 0, a quadratic equation in n
    length = vec.shape[-1]
    n = (-(1 + 2 * diag) + ((1 + 2 * diag) ** 2 + 8 * length + 4 * abs(diag) * (diag + 1)) ** 0.5) / 2
    if abs(n - round(n)) > 1e-8:
        raise ValueError(
            f"The size of last dimension is {length} which cannot be expressed as the lower triangular part."
        )
    n = round(n)
    mat = vec.new_zeros((*vec.shape[:-1], n, n))
    mat[(..., *_triangle(n, diag, vec))] = vec
    return mat


def _triangle(n: int, diag: int, like: Tensor) -> tuple[Tensor, Tensor]:
    pairs = [(i, j) for i in range(n) for j in range(n) if j <= i + diag]
    rows, columns = ([p[k] for p in pairs] for k in (0, 1))
    return (
        tg.tensor(rows, dtype=tg.int64, device=like.device),
        tg.tensor(columns, dtype=tg.int64, device=like.device),
    )


def sum_rightmost(value: Any, count: int) -> Any:
    """``value`` summed over its last ``count`` dimensions."""
    if count == 0:
        return value
    return value.reshape(*value.shape[: value.dim() - count], -1).sum(-1)


def as_size(shape: Any) -> Size:
    """A shape given as an integer or a sequence of them. Raises TypeError for anything else."""
    given = shape if hasattr(shape, "__iter__") and not isinstance(shape, str) else (shape,)
    # a size of a compiled program stays what it is: as a plain number it would hold for this size alone
    return Size([size if type(size) is not bool and isinstance(size, int) else _size(size) for size in given])


def _size(given: Any) -> int:
    return integer("a shape", "each size", given)


def batch_of(*given: Any, like: Tensor) -> Size:
    """The batch shape of broadcast parameters: that of numbers alone is ()."""
    return Size() if all(isinstance(g, Number) for g in given) else Size(like.shape)


_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def floating(x: Tensor) -> Tensor:
    """``x`` itself. Raises DTypeError unless it is floating point."""
    if x.dtype.name not in _EPS:
        raise DTypeError(f"the parameters of this distribution must be floating point, got {x.dtype}.")
    return x


def tiny_of(x: Tensor) -> float:
    """The smallest normal number of the dtype."""
    return {"float64": 2.2250738585072014e-308, "float16": 6.103515625e-05}.get(x.dtype.name, 1.1754943508222875e-38)


def eps_of(x: Tensor) -> float:
    """The distance from 1 to the next number of the dtype."""
    return _EPS[floating(x).dtype.name]
