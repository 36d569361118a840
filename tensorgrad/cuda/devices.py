"""Which CUDA devices there are and which is current."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..backends import registry
from ..device import Device, as_device
from ..errors import BackendError, DeviceError
from ..tensor import Tensor

__all__ = [
    "DeviceProperties", "backend", "can_device_access_peer", "current_device", "device", "device_count", "device_of",
    "get_arch_list", "get_device_capability", "get_device_name", "get_device_properties", "index_of", "init",
    "ipc_collect", "is_available", "is_bf16_supported", "is_initialized", "is_tf32_supported", "set_device",
    "synchronize",
]  # fmt: skip


def backend() -> Any:
    """Who computes on CUDA devices. Raises DeviceError, with the reason, if nobody can."""
    try:
        return registry.on_device("cuda")
    except BackendError as error:
        raise DeviceError(str(error)) from None


def is_available() -> bool:
    """Whether tensors can be made on ``cuda`` here: a device, its driver and the ``cuda`` extra are all there."""
    if registry.is_loaded("cuda"):  # else drivers are asked, which takes milliseconds; autocast asks in every step
        return True
    return any(device == "cuda" and available for _, device, available, _ in registry.status())


def device_count() -> int:
    """The number of CUDA devices that can be used; 0 without any."""
    return int(backend().device_count()) if is_available() else 0


def init() -> None:
    """Load the backend. Raises DeviceError, with the reason, if no CUDA device can be used."""
    backend()


def is_initialized() -> bool:
    """Whether a backend for CUDA devices has been loaded."""
    return registry.is_loaded("cuda")


def index_of(device: Any = None) -> int:
    """The number of a device given as PyTorch takes it: None for the current one, a number, a name or a Device.

    Raises DeviceError if there is no such device, ValueError for a device that is not CUDA's.
    """
    found = backend()
    if device is None:
        return int(found.current_device())
    place = as_device(device)
    if place.type != "cuda":
        raise ValueError(f"expected a cuda device, got {str(place)!r}.")
    if place.index is None:
        return int(found.current_device())
    if not 0 <= place.index < found.device_count():
        raise DeviceError(f"device {str(place)!r} does not exist; there are {found.device_count()}.")
    return place.index


def current_device() -> int:
    """The number of the device on which ``device="cuda"`` makes tensors in this thread."""
    return index_of()


def set_device(device: Any) -> None:
    """Make ``device`` the current one of this thread; a negative number changes nothing."""
    if isinstance(device, int) and device < 0:
        return
    backend().set_device(index_of(device))


class device:
    """``with cuda.device(1):`` makes that device the current one within the block; a negative number does nothing."""

    def __init__(self, device: Any):
        self.idx = device if isinstance(device, int) and device < 0 else index_of(device)
        self._block: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        if self.idx >= 0:
            self._block = backend().on(self.idx)
            self._block.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._block is not None:
            self._block.__exit__(*error)


class device_of(device):
    """The device of a tensor as the current one; a tensor on the CPU changes nothing."""

    def __init__(self, obj: Tensor):
        place = obj.device
        super().__init__(place if place.type == "cuda" else -1)


@dataclass(frozen=True)
class DeviceProperties:
    """What a device can do; memory in bytes."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    max_threads_per_multi_processor: int
    L2_cache_size: int


def get_device_properties(device: Any = None) -> DeviceProperties:
    """What a device can do. Raises DeviceError without a CUDA device."""
    return DeviceProperties(**backend().device_properties(index_of(device)))


def get_device_name(device: Any = None) -> str:
    """The name of a device, e.g. ``NVIDIA H100 80GB HBM3``."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability, e.g. ``(9, 0)``."""
    found = get_device_properties(device)
    return found.major, found.minor


def get_arch_list() -> list[str]:
    """The architectures that kernels can be made for: they are compiled for the devices that are here."""
    return sorted({"sm_{}{}".format(*get_device_capability(i)) for i in range(device_count())})


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether bfloat16 tensors can be computed with: natively from capability 8.0, emulated below."""
    return is_available() and (including_emulation or get_device_capability() >= (8, 0))


def is_tf32_supported() -> bool:
    """Whether the current device has TF32 units: from capability 8.0."""
    return is_available() and get_device_capability() >= (8, 0)


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether one device can read the other's memory directly."""
    return bool(backend().can_access_peer(index_of(device), index_of(peer_device)))


def ipc_collect() -> None:
    """Nothing: memory is not shared between processes. Raises DeviceError without a CUDA device."""
    init()


def synchronize(device: Any = None) -> None:
    """Wait until everything launched on the device is done. Raises DeviceError without a CUDA device."""
    index = index_of(device)
    backend().synchronize(index)


def place(index: int) -> Device:
    """The device of that number."""
    return Device("cuda", index)
