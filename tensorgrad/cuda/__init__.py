"""``torch.cuda``'s questions, answered for this machine: which devices there are, what memory they hold.

Where no CUDA device can be used, ``is_available()`` is False, counts and memory are 0, and what needs a device raises
DeviceError with the reason. Nothing here is loaded by ``import tensorgrad``.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from .. import random as _random
from ..errors import missing_name
from .devices import (
    can_device_access_peer,
    current_device,
    device,
    device_count,
    device_of,
    get_arch_list,
    get_device_capability,
    get_device_name,
    get_device_properties,
    init,
    ipc_collect,
    is_available,
    is_bf16_supported,
    is_initialized,
    is_tf32_supported,
    set_device,
    synchronize,
)
from .memory import (
    OutOfMemoryError,
    empty_cache,
    get_per_process_memory_fraction,
    max_memory_allocated,
    max_memory_cached,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_cached,
    memory_reserved,
    memory_stats,
    memory_summary,
    reset_max_memory_allocated,
    reset_max_memory_cached,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
)
from .streams import (
    Event,
    ExternalStream,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    get_stream_from_external,
    set_stream,
    stream,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "Event", "ExternalStream", "OutOfMemoryError", "Stream", "StreamContext",
    "can_device_access_peer", "current_device", "current_stream",
    "default_stream", "device", "device_count", "device_of", "empty_cache", "get_arch_list", "get_device_capability",
    "get_device_name", "get_device_properties", "get_per_process_memory_fraction", "get_rng_state", "get_rng_state_all",
    "get_stream_from_external", "init", "initial_seed",
    "ipc_collect", "is_available", "is_bf16_supported", "is_initialized", "is_tf32_supported", "manual_seed",
    "manual_seed_all", "max_memory_allocated", "max_memory_cached", "max_memory_reserved", "mem_get_info",
    "memory_allocated", "memory_cached", "memory_reserved", "memory_stats", "memory_summary",
    "reset_max_memory_allocated", "reset_max_memory_cached", "reset_peak_memory_stats", "seed", "seed_all",
    "set_device", "set_per_process_memory_fraction", "set_rng_state", "set_rng_state_all", "set_stream", "stream",
    "synchronize",
]  # fmt: skip

_LAZY = ("amp", "devices", "memory", "streams")


def __getattr__(name: str) -> Any:
    if name in _LAZY and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    if name.endswith("Tensor"):
        from ..ops.legacy import CONSTRUCTORS, constructor

        if name in CONSTRUCTORS:  # torch.cuda.FloatTensor, kept so that it is one object
            return globals().setdefault(name, constructor(name, "cuda"))
    raise AttributeError(missing_name(f"torch.cuda.{name}"))


def manual_seed(seed: int) -> None:
    """Seed the generator that all devices draw from; without a CUDA device nothing happens, as in PyTorch."""
    if is_available():
        _random.manual_seed(seed)


manual_seed_all = manual_seed


def seed() -> None:
    """Seed the generator that all devices draw from with a number of the operating system."""
    if is_available():
        _random.seed()


seed_all = seed


def initial_seed() -> int:
    """The seed of the generator that all devices draw from."""
    return _random.initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of the generator that all devices draw from. Raises DeviceError without a CUDA device."""
    init()
    return _random.get_rng_state()


def get_rng_state_all() -> list[Tensor]:
    """The generator's state, once for each device; an empty list without one."""
    return [_random.get_rng_state() for _ in range(device_count())]


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Continue from a state of ``get_rng_state``. Raises DeviceError without a CUDA device."""
    init()
    _random.set_rng_state(new_state)


def set_rng_state_all(new_states: Any) -> None:
    """Continue from what ``get_rng_state_all`` gave."""
    for state in new_states:
        set_rng_state(state)
