"""PyTorch's process-wide switches. ``tensorgrad.config`` holds tensorgrad's own.

Kernels give the same bits run after run whatever is asked of them, so the switches for determinism are answered, and
nothing has to change.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

from .dispatch import host, is_asked
from .dtypes import BY_NAME, set_default_dtype

__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_deterministic_debug_mode",
    "get_device_module",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "is_deterministic_algorithms_warn_only_enabled",
    "is_warn_always_enabled",
    "set_default_tensor_type",
    "set_deterministic_debug_mode",
    "set_float32_matmul_precision",
    "set_flush_denormal",
    "set_num_interop_threads",
    "set_warn_always",
    "typename",
    "use_deterministic_algorithms",
]  # fmt: skip

_PRECISIONS = ("highest", "high", "medium")
_LEGACY = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16", "BFloat16Tensor": "bfloat16",
}  # fmt: skip
_MODES = ("default", "warn", "error")
_state: dict[str, Any] = {"mode": 0, "precision": "highest", "warn_always": False, "interop_threads": 1}


def _get(name: str) -> Any:
    is_asked(f"the switch {name!r}", _state, name)
    return _state[name]


def _put(name: str, value: Any) -> None:
    host(lambda: _state.__setitem__(name, value), _reads_nothing)


def _reads_nothing() -> list[Any]:
    """What switching reads of tensors."""
    return []


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for the same bits run after run, which tensorgrad gives anyway."""
    _put("mode", (1 if warn_only else 2) if mode else 0)


def are_deterministic_algorithms_enabled() -> bool:
    """What ``use_deterministic_algorithms`` was told."""
    return bool(_get("mode"))


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether it was told ``warn_only``."""
    return bool(_get("mode") == 1)


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """The same switch as a number or a word: 0 "default", 1 "warn", 2 "error". Raises RuntimeError for others."""
    if isinstance(debug_mode, str):
        if debug_mode not in _MODES:
            raise RuntimeError(
                f"set_deterministic_debug_mode: expected one of {', '.join(_MODES)}, got {debug_mode!r}."
            )
        debug_mode = _MODES.index(debug_mode)
    if debug_mode not in (0, 1, 2):
        raise RuntimeError(f"set_deterministic_debug_mode: expected 0, 1 or 2, got {debug_mode!r}.")
    _put("mode", debug_mode)


def get_deterministic_debug_mode() -> int:
    """0, 1 or 2."""
    return int(_get("mode"))


def set_float32_matmul_precision(precision: str) -> None:
    """Permit faster float32 products: "highest", "high" or "medium". All but the first let CUDA use TF32; elsewhere
    they are always computed in full float32.

    Raises RuntimeError for another word.
    """
    if precision not in _PRECISIONS:
        raise RuntimeError(
            f"set_float32_matmul_precision: expected one of {', '.join(_PRECISIONS)}, got {precision!r}."
        )
    _put("precision", precision)


def get_float32_matmul_precision() -> str:
    """What ``set_float32_matmul_precision`` was given."""
    return str(_get("precision"))


def may_round() -> bool:
    """Whether float32 products were given another precision than "highest"."""
    return bool(_state["precision"] != "highest")


def set_default_tensor_type(t: Any) -> None:
    """The old way to set the default dtype: ``"torch.DoubleTensor"`` or the class. Raises TypeError for others."""
    words = str(t if isinstance(t, str) else getattr(t, "__name__", t)).split(".")
    if words[-1] not in _LEGACY:
        raise TypeError(f"set_default_tensor_type: expected a floating point tensor type, got {t!r}.")
    set_default_dtype(BY_NAME[_LEGACY[words[-1]]])
    if "cuda" in words:
        from .device import set_default_device

        set_default_device("cuda")


def set_flush_denormal(mode: bool) -> bool:
    """False: the processor's treatment of subnormal numbers is left as it is."""
    return False


def set_num_interop_threads(count: int) -> None:
    """How many ops may run side by side: one. Raises ValueError below 1; a wish for more is answered by a warning."""
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"set_num_interop_threads: expected a number of threads from 1, got {count!r}.")
    if count > 1:
        warnings.warn("set_num_interop_threads: ops run one after the other; 1 is kept.", stacklevel=2)


def get_num_interop_threads() -> int:
    """1: ops run one after the other, each on ``get_num_threads()`` threads."""
    return 1


def set_warn_always(b: bool, /) -> None:
    """Whether warnings that are given once per process should be given always; Python's filters decide that here."""
    _put("warn_always", bool(b))


def is_warn_always_enabled() -> bool:
    """What ``set_warn_always`` was given."""
    return bool(_get("warn_always"))


def get_device_module(device: Any = None) -> types.ModuleType:
    """The module of a device type: ``torch.cuda`` for "cuda". Raises RuntimeError for a type that has none."""
    import importlib

    from .device import where

    kind = where(device).type
    if kind not in ("cuda", "mps", "xpu", "cpu"):
        raise RuntimeError(f"get_device_module: there is no module for device type {kind!r}.")
    return importlib.import_module(f"tensorgrad.{kind}")


def typename(obj: Any, /) -> str:
    """The full name of an object's type, ``torch.FloatTensor`` for tensors."""
    from .tensor import Tensor

    if isinstance(obj, Tensor):
        return str(obj.type())
    kind = obj if isinstance(obj, type) or hasattr(obj, "__qualname__") else type(obj)
    module = getattr(kind, "__module__", "") or ""
    name = getattr(kind, "__qualname__", str(kind))
    return name if module in ("", "builtins") else f"{module}.{name}"


def _assert(condition: Any, message: str) -> None:
    """Raises AssertionError unless the condition holds: what traced programs write for ``assert``."""
    assert condition, message


def _check(cond: bool, message: Callable[[], str] | None = None) -> None:
    """Raises RuntimeError unless ``cond``, with what ``message()`` says."""
    if not cond:
        raise RuntimeError("Expected cond to be True" if message is None else message())


def _check_type(cond: bool, message: Callable[[], str] | None = None) -> None:
    """Raises TypeError unless ``cond``, with what ``message()`` says."""
    if not cond:
        raise TypeError("Expected cond to be True" if message is None else message())
