"""``torch._utils``: the functions that pickles of PyTorch's tensors name."""

from __future__ import annotations

from .errors import missing_from
from .io.allowed import parameter as _rebuild_parameter
from .io.allowed import parameter_with_state as _rebuild_parameter_with_state
from .io.allowed import tensor_v1 as _rebuild_tensor
from .io.allowed import tensor_v2 as _rebuild_tensor_v2

__all__ = ["_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_tensor", "_rebuild_tensor_v2"]

__getattr__ = missing_from("torch._utils")
