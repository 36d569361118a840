"""tensorgrad: tensors with gradients, on NumPy, C++ or CuPy kernels, with PyTorch's names and semantics.

Example:
    >>> import tensorgrad as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [2.0, 4.0]
"""

from __future__ import annotations

import builtins
import importlib
import math as _math
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING, Any

from . import dtypes as _dtypes
from ._version import __version__
from .autograd import differentiate as _differentiate
from .autograd import hooks as _hooks
from .autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .backends.registry import backend, get_backend, set_backend
from .device import Device as device
from .device import get_default_device, set_default_device
from .dtypes import (
    DType as dtype,
)
from .dtypes import (
    bfloat16,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    set_default_dtype,
    uint8,
)
from .errors import missing_name as _missing_name
from .interop import connect as _connect_others
from .layout import Layout as layout
from .layout import MemoryFormat as memory_format
from .layout import channels_last, channels_last_3d, contiguous_format, preserve_format, strided
from .ops import *  # noqa: F403 - every op family declares its public names in __all__
from .ops.elementwise import elementwise
from .ops.late import HOMES as _HOMES_OF_FAMILIES
from .tensor import Size, Tensor
from .threads import get_num_threads, memory_stats, set_num_threads
from .wiring import connect as _connect

_connect()
_connect_others()
del _connect, _connect_others, _differentiate, _hooks

bool = _dtypes.bool_
float, double, half = float32, float64, float16
int, long, short = int32, int64, int16
cfloat, cdouble = complex64, complex128
inf, nan, pi, e = _math.inf, _math.nan, _math.pi, _math.e
newaxis = None

_PRIVATE = frozenset(("__config__", "_custom_ops", "_dynamo", "_prims_common", "_utils"))

# Functions whose module is loaded when they are first named, so that importing the package stays fast; modules are
# found by their name alone.
_HOMES = {
    **dict.fromkeys(("_standard_gamma", "_standard_gamma_grad", "binomial", "poisson"), "ops.samplers"),
    **dict.fromkeys(("load", "save"), "serialization"),
    **dict.fromkeys(
        ("batch_norm", "constant_pad_nd", "embedding", "group_norm", "instance_norm", "layer_norm", "rms_norm"),
        "ops.layer_names",
    ),
    **dict.fromkeys(("channel_shuffle", "pixel_shuffle", "pixel_unshuffle"), "ops.pixel_shuffle"),
    **dict.fromkeys(
        (
            "autocast", "autocast_decrement_nesting", "autocast_increment_nesting", "clear_autocast_cache",
            "get_autocast_cpu_dtype", "get_autocast_dtype", "get_autocast_gpu_dtype", "is_autocast_cache_enabled",
            "is_autocast_cpu_enabled", "is_autocast_enabled", "set_autocast_cache_enabled", "set_autocast_cpu_dtype",
            "set_autocast_cpu_enabled", "set_autocast_dtype", "set_autocast_enabled", "set_autocast_gpu_dtype",
        ),
        "amp.autocast_mode",
    ),
    "GradScaler": "amp.grad_scaler",
    "_assert": "settings",
    "_check": "settings",
    "_check_type": "settings",
    "compile": "compiler",
    "scalar": "compiler",
    "get_device_module": "settings",
    "get_deterministic_debug_mode": "settings",
    "get_float32_matmul_precision": "settings",
    "get_num_interop_threads": "settings",
    "is_deterministic_algorithms_warn_only_enabled": "settings",
    "are_deterministic_algorithms_enabled": "settings",
    "is_warn_always_enabled": "settings",
    "set_default_tensor_type": "settings",
    "set_deterministic_debug_mode": "settings",
    "set_float32_matmul_precision": "settings",
    "set_flush_denormal": "settings",
    "set_num_interop_threads": "settings",
    "set_warn_always": "settings",
    "typename": "settings",
    "use_deterministic_algorithms": "settings",
    "vmap": "func",
    **dict.fromkeys(("finfo", "iinfo"), "limits"),
    **_HOMES_OF_FAMILIES,
}  # fmt: skip

if TYPE_CHECKING:
    from . import (
        autograd,
        backends,
        compiler,
        config,
        dispatch,
        errors,
        expr,
        func,
        nn,
        optim,
        random,
        special,
        testing,
        utils,
    )
    from . import fft as fft
    from . import linalg as linalg
    from .fft.short_time import *  # noqa: F403
    from .fft.windows import *  # noqa: F403
    from .func import vmap
    from .limits import finfo as finfo
    from .limits import iinfo as iinfo
    from .linalg.distances import *  # noqa: F403
    from .linalg.torch_names import *  # noqa: F403

    # `ops` collects its names at run time; a type checker must be told where they are
    from .ops.activation import *  # noqa: F403
    from .ops.arithmetic import *  # noqa: F403
    from .ops.attributes import *  # noqa: F403
    from .ops.calculus import *  # noqa: F403
    from .ops.combine import *  # noqa: F403
    from .ops.compare import *  # noqa: F403
    from .ops.conv import *  # noqa: F403
    from .ops.convert import *  # noqa: F403
    from .ops.create import *  # noqa: F403
    from .ops.diagonals import *  # noqa: F403
    from .ops.distance import *  # noqa: F403
    from .ops.dropout import *  # noqa: F403
    from .ops.einsum import *  # noqa: F403
    from .ops.exchange import *  # noqa: F403
    from .ops.extremes import *  # noqa: F403
    from .ops.gather import *  # noqa: F403
    from .ops.getitem import *  # noqa: F403
    from .ops.index import *  # noqa: F403
    from .ops.index_slices import *  # noqa: F403
    from .ops.join import *  # noqa: F403
    from .ops.legacy import *  # noqa: F403
    from .ops.like import *  # noqa: F403
    from .ops.matmul import *  # noqa: F403
    from .ops.nan_sum import *  # noqa: F403
    from .ops.pool import *  # noqa: F403
    from .ops.public import *  # noqa: F403
    from .ops.random import *  # noqa: F403
    from .ops.ranges import *  # noqa: F403
    from .ops.rearrange import *  # noqa: F403
    from .ops.reduce import *  # noqa: F403
    from .ops.reinterpret import *  # noqa: F403
    from .ops.scan import *  # noqa: F403
    from .ops.scattered_views import *  # noqa: F403
    from .ops.search import *  # noqa: F403
    from .ops.selection import *  # noqa: F403
    from .ops.shape import *  # noqa: F403
    from .ops.softmax import *  # noqa: F403
    from .ops.sort import *  # noqa: F403
    from .ops.statistics import *  # noqa: F403
    from .ops.storage import *  # noqa: F403
    from .ops.text import *  # noqa: F403
    from .ops.vector_norm import *  # noqa: F403


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
    if name.endswith("_") and not name.startswith("_") and name in vars(Tensor):  # relu_(x) for x.relu_()
        return vars(Tensor)[name]
    # the finder is asked only for names that a submodule could have
    if (not name.startswith("_") or name in _PRIVATE) and _find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(_missing_name(f"torch.{name}"))


def is_tensor(obj: Any) -> builtins.bool:
    """Whether ``obj`` is a Tensor."""
    return isinstance(obj, Tensor)


__all__ = [
    "Size",
    "Tensor",
    "__version__",
    "autograd",
    "backend",
    "backends",
    "bfloat16",
    "channels_last",
    "channels_last_3d",
    "compiler",
    "complex64",
    "complex128",
    "config",
    "contiguous_format",
    "device",
    "dispatch",
    "dtype",
    "elementwise",
    "enable_grad",
    "errors",
    "expr",
    "float16",
    "float32",
    "float64",
    "func",
    "get_backend",
    "get_default_device",
    "get_default_dtype",
    "get_num_threads",
    "inference_mode",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "is_tensor",
    "layout",
    "memory_format",
    "memory_stats",
    "nn",
    "no_grad",
    "optim",
    "preserve_format",
    "random",
    "set_backend",
    "set_default_device",
    "set_default_dtype",
    "set_grad_enabled",
    "set_num_threads",
    "special",
    "strided",
    "testing",
    "uint8",
    "utils",
    "vmap",
]  # fmt: skip
