"""Which kernels can be written into a ``Sequence``."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

from ..backends.cpp.backend import extension

__all__ = ["writable"]

_WRITTEN = frozenset((
    "adam_", "all", "full_as", "full", "zeros_as", "empty_as", "cast", "cat", "stack", "contiguous", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "cross_entropy", "cross_entropy_backward",
    "cummax", "cummin", "cumprod", "cumsum", "dot", "linear", "linear_backward", "linear_recurrence", "log_softmax",
    "log_softmax_backward", "logcumsumexp", "logsumexp", "matmul", "max_dim", "mean", "min_dim", "multi_norm",
    "multi_scale_", "mv", "nll_loss", "nll_loss_backward", "prod", "products_of_others", "sgd_", "softmax",
    "softmax_backward", "std", "sum", "var", "vector_norm",
))  # fmt: skip
_VIEWS = frozenset(("reshape", "permute", "expand", "slice", "as_strided"))
_METHODS = frozenset(("sgd_", "adam_", "multi_norm", "multi_scale_", "sum_to"))


def writable(kernel: Any, inputs: Any) -> bool:
    """Whether a kernel can be written into a sequence: it is the extension's, or Python that calls such alone."""
    c = extension()
    if isinstance(kernel, c.Formula):
        return True
    if isinstance(kernel, MethodType):
        return kernel.__name__ in _METHODS
    if isinstance(kernel, partial):
        return False
    if isinstance(kernel, c.FloatsFirst) and inputs[0].dtype.char in "fdeV":
        kernel = kernel.native
    name = getattr(kernel, "__name__", "")
    return getattr(c, name, None) is kernel and name in _WRITTEN
