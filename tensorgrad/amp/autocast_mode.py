"""``autocast``: regions in which ops choose the dtype they compute in; and what decorates functions for them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ..dtypes import DType, bfloat16, float16
from ..tensor import Tensor
from .casting import state, watch

__all__ = ["autocast", "autocast_decorator", "custom_bwd", "custom_fwd", "is_autocast_available"]

_DEVICES = frozenset(("cpu", "cuda", "hpu", "ipu", "maia", "mps", "mtia", "xla", "xpu"))


def is_autocast_available(device_type: str) -> bool:
    """Whether ``autocast`` takes this device type."""
    return device_type in _DEVICES


def _checked(device_type: Any) -> str:
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if device_type not in _DEVICES:
        raise RuntimeError(
            f"User specified an unsupported autocast device_type '{device_type}'; it must be one of {sorted(_DEVICES)}."
        )
    return device_type


class autocast:
    """Within the block, or a decorated function, matrix products, convolutions and attention take their inputs in
    ``dtype``, losses and some others take theirs in float32, and everything else computes in what it is given.

    Casts are recorded, so gradients arrive in the dtype of the parameters; run ``backward`` outside of the block.

    Args:
        device_type: "cpu" or "cuda": which tensors are cast.
        dtype: bfloat16 or float16; by default bfloat16 on the CPU and float16 elsewhere.
        enabled: False switches autocast off within the block.
        cache_enabled: keep the casts of parameters until the outermost block ends.
    Raises: ValueError or RuntimeError for a device type that is none. Warns and is disabled for another dtype, and for
        "cuda" where there is none.
    Example:
        >>> import tensorgrad as tg
        >>> layer = tg.nn.Linear(4, 2)
        >>> with tg.autocast("cpu"):
        ...     y = layer(tg.ones(3, 4))
        >>> y.dtype, layer.weight.dtype
        (torch.bfloat16, torch.float32)
    Source: Micikevicius and others 2018.
    """

    def __init__(
        self, device_type: str, dtype: DType | None = None, enabled: bool = True, cache_enabled: bool | None = None
    ):
        self.device = _checked(device_type)
        self.fast_dtype = state.dtype(device_type) if dtype is None else dtype
        self._cache_enabled = state.cache_enabled if cache_enabled is None else cache_enabled
        if enabled and device_type == "cuda" and not _cuda():
            warnings.warn("CUDA is not available. Disabling autocast.", UserWarning, stacklevel=2)
            enabled = False
        elif enabled and self.fast_dtype not in (bfloat16, float16):
            warnings.warn(
                f"In {device_type.upper()} autocast, but the target dtype is not supported. Disabling autocast. "
                f"{device_type.upper()} Autocast only supports dtypes of torch.bfloat16, torch.float16.",
                UserWarning,
                stacklevel=2,
            )
            enabled = False
        self._enabled = bool(enabled)
        self._before: list[tuple[Any, ...]] = []

    def __enter__(self) -> autocast:
        where = self.device
        self._before.append((state.enabled.get(where, False), state.dtypes.get(where), state.cache_enabled))
        state.nesting += 1
        state.dtypes[where] = self.fast_dtype
        state.cache_enabled = self._cache_enabled
        set_autocast_enabled(where, self._enabled)
        return self

    def __exit__(self, *error: Any) -> None:
        where = self.device
        enabled, dtype, state.cache_enabled = self._before.pop()
        if dtype is None:
            state.dtypes.pop(where, None)
        else:
            state.dtypes[where] = dtype
        state.nesting -= 1
        if state.nesting == 0:
            clear_autocast_cache()
        set_autocast_enabled(where, enabled)

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(func):
            raise TypeError(
                f"autocast()(func) requires a callable, but got {type(func).__name__}. Did you mean to use autocast as "
                "a context manager: `with autocast(...): output = model(input)`?"
            )
        return autocast_decorator(self, func)


def autocast_decorator(autocast_instance: autocast, func: Callable[..., Any]) -> Callable[..., Any]:
    """``func``, run within the region."""

    @functools.wraps(func)
    def decorate_autocast(*args: Any, **kwargs: Any) -> Any:
        with autocast_instance:
            return func(*args, **kwargs)

    return decorate_autocast


def _cuda() -> bool:
    from .. import cuda

    return cuda.is_available()


# --- functions written for autograd.Function


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: DType | None = None) -> Any:
    """Decorates ``forward`` of an ``autograd.Function``, for use within autocast regions.

    Args:
        cast_inputs: cast floating tensors among the arguments to this dtype and run with autocast off; None runs as the
            region says, in ``backward`` too (which ``custom_bwd`` decorates).
    """
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def decorate_fwd(*args: Any, **kwargs: Any) -> Any:
        on = is_autocast_enabled(device_type)
        args[0]._dtype = get_autocast_dtype(device_type)
        args[0]._fwd_used_autocast = on and cast_inputs is None
        if cast_inputs is None or not on:
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(*_cast(args, device_type, cast_inputs), **_cast(kwargs, device_type, cast_inputs))

    return decorate_fwd


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorates ``backward`` of an ``autograd.Function``: it runs with autocast as ``forward`` did."""
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def decorate_bwd(*args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, enabled=args[0]._fwd_used_autocast, dtype=args[0]._dtype):
            return bwd(*args, **kwargs)

    return decorate_bwd


def _cast(value: Any, device_type: str, dtype: DType) -> Any:
    if isinstance(value, Tensor):
        eligible = value.dtype.is_floating_point and value.dtype.name != "float64" and value.device.type == device_type
        return value.to(dtype) if eligible else value
    if isinstance(value, Mapping):
        return {key: _cast(part, device_type, dtype) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)([_cast(part, device_type, dtype) for part in value])
    return value


# --- the switches under torch's names


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast is enabled for this device type in this thread."""
    return state.enabled.get(_checked(device_type), False)


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Switch autocast for a device type in this thread; ``autocast`` does so for a block. Older programs give the
    switch alone, for "cuda"."""
    if enabled is None:
        device_type, enabled = "cuda", device_type
    if enabled:
        watch()
    state.enabled[_checked(device_type)] = bool(enabled)
    state.refresh()


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype that autocast lowers to on this device type."""
    return state.dtype(_checked(device_type))


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """Set the dtype that autocast lowers to on this device type, in this thread."""
    state.dtypes[_checked(device_type)] = dtype
    state.refresh()


def is_autocast_cache_enabled() -> bool:
    """Whether casts of parameters are kept within a region."""
    return state.cache_enabled


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Keep casts of parameters within regions, or make them each time."""
    state.cache_enabled = bool(enabled)
    state.refresh()


def clear_autocast_cache() -> None:
    """Forget the casts of parameters."""
    state.cache.clear()


def autocast_increment_nesting() -> int:
    """Enter a region by hand; returns how many this thread is in."""
    state.nesting += 1
    return state.nesting


def autocast_decrement_nesting() -> int:
    """Leave it; returns how many this thread is still in."""
    state.nesting -= 1
    return state.nesting


def is_autocast_cpu_enabled() -> bool:
    """``is_autocast_enabled("cpu")``."""
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """``set_autocast_enabled("cpu", enabled)``."""
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> DType:
    """``get_autocast_dtype("cpu")``."""
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: DType) -> None:
    """``set_autocast_dtype("cpu", dtype)``."""
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> DType:
    """``get_autocast_dtype("cuda")``."""
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: DType) -> None:
    """``set_autocast_dtype("cuda", dtype)``."""
    set_autocast_dtype("cuda", dtype)
