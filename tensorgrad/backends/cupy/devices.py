"""What ``tensorgrad.cuda`` asks of the backend: devices, memory, streams and events."""

from __future__ import annotations

from typing import Any

__all__ = ["CupyDevices"]


class CupyDevices:
    """The questions, answered by CuPy; all numbers of memory are bytes."""

    xp: Any
    _peaks: dict[int, tuple[int, int]] | None = None
    _hook: Any = None

    def current_device(self) -> int:
        return int(self.xp.cuda.Device().id)

    def set_device(self, index: int) -> None:
        self.xp.cuda.Device(index).use()

    def synchronize(self, index: int) -> None:
        self.xp.cuda.Device(index).synchronize()

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

    # ---- memory

    def device_memory(self, index: int) -> dict[str, int]:
        """What the pool holds. Peaks are counted from the first question on: CuPy keeps none, a hook does."""
        self._watch_peaks()
        with self.xp.cuda.Device(index):
            pool = self.xp.get_default_memory_pool()
            used, total = int(pool.used_bytes()), int(pool.total_bytes())
        peaks = self._peaks
        assert peaks is not None
        peak_used, peak_total = peaks.get(index, (0, 0))
        peaks[index] = max(used, peak_used), max(total, peak_total)
        return {
            "allocated": used,
            "reserved": total,
            "peak_allocated": peaks[index][0],
            "peak_reserved": peaks[index][1],
        }

    def reset_peak_memory(self, index: int) -> None:
        self._watch_peaks()
        assert self._peaks is not None
        self._peaks.pop(index, None)

    def device_memory_info(self, index: int) -> tuple[int, int]:
        with self.xp.cuda.Device(index):
            free, total = self.xp.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def empty_cache(self) -> None:
        self.xp.get_default_memory_pool().free_all_blocks()

    def _watch_peaks(self) -> None:
        if self._hook is not None:
            return
        peaks: dict[int, tuple[int, int]] = {}
        pool = self.xp.get_default_memory_pool()

        class Peaks(self.xp.cuda.MemoryHook):  # type: ignore[name-defined]
            name = "tensorgrad peaks"

            def malloc_postprocess(self, device_id: int, size: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
                used, total = peaks.get(device_id, (0, 0))
                peaks[device_id] = max(used, int(pool.used_bytes())), max(total, int(pool.total_bytes()))

        self._peaks = peaks
        self._hook = Peaks()
        self._hook.__enter__()

    # ---- streams and events

    def new_stream(self, index: int, priority: int) -> Any:
        with self.xp.cuda.Device(index):
            return self.xp.cuda.Stream(non_blocking=True, priority=priority)

    def current_stream(self, index: int) -> Any:
        with self.xp.cuda.Device(index):
            return self.xp.cuda.get_current_stream()

    def default_stream(self, index: int) -> Any:
        return self.xp.cuda.Stream.null

    def new_event(self, *, timing: bool, blocking: bool) -> Any:
        return self.xp.cuda.Event(block=blocking, disable_timing=not timing)

    def elapsed_time(self, start: Any, end: Any) -> float:
        return float(self.xp.cuda.get_elapsed_time(start, end))
