"""What ``tensorgrad.cuda`` asks of the backend: devices, streams and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .transfers import Held

__all__ = ["CupyDevices"]


class CupyDevices:
    """The questions, answered by CuPy."""

    xp: Any
    settle: Callable[[], None]
    _held: Held

    def current_device(self) -> int:
        return int(self.xp.cuda.Device().id)

    def set_device(self, index: int) -> None:
        self.xp.cuda.Device(index).use()

    def synchronize(self, index: int) -> None:
        self.xp.cuda.Device(index).synchronize()
        self._held.release()
        self.settle()

    def can_access_peer(self, index: int, peer: int) -> bool:
        return bool(self.xp.cuda.runtime.deviceCanAccessPeer(index, peer))

    def device_properties(self, index: int) -> dict[str, Any]:
        found = self.xp.cuda.runtime.getDeviceProperties(index)
        return {
            "name": found["name"].decode(),
            "major": int(found["major"]),
            "minor": int(found["minor"]),
            "total_memory": int(found["totalGlobalMem"]),
            "multi_processor_count": int(found["multiProcessorCount"]),
            "warp_size": int(found["warpSize"]),
            "max_threads_per_multi_processor": int(found["maxThreadsPerMultiProcessor"]),
            "L2_cache_size": int(found["l2CacheSize"]),
        }

    # ---- streams and events

    def new_stream(self, index: int, priority: int) -> Any:
        with self.xp.cuda.Device(index):
            return self.xp.cuda.Stream(non_blocking=True, priority=priority)

    def external_stream(self, pointer: int, index: int) -> Any:
        """A stream that another library made and owns."""
        return self.xp.cuda.ExternalStream(pointer, index)

    def current_stream(self, index: int) -> Any:
        return self.xp.cuda.get_current_stream(index)

    def default_stream(self, index: int) -> Any:
        return self.xp.cuda.Stream.null

    def new_event(self, index: int, *, timing: bool, blocking: bool) -> Any:
        with self.xp.cuda.Device(index):
            return self.xp.cuda.Event(block=blocking, disable_timing=not timing)

    def elapsed_time(self, start: Any, end: Any) -> float:
        return float(self.xp.cuda.get_elapsed_time(start, end))
