"""CuPy's memory pool: what it holds, how much it may, and what happens when a device is full."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from .capture import held_by_graphs
from .transfers import Held

__all__ = ["CupyMemory"]

Result = TypeVar("Result")


class CupyMemory:
    """The questions of ``tensorgrad.cuda``, answered by the pool; all numbers are bytes."""

    xp: Any
    _held: Held
    on: Callable[[int | None], Any]
    _peaks: dict[int, tuple[int, int]] | None = None  # by device: the most in use, and the most that the pool held
    _noting: Any = None

    def device_memory(self, index: int) -> dict[str, int]:
        """What the pool and CUDA graphs hold. Peaks are counted from the first question on, in all threads: CuPy keeps
        none, and its hooks see the allocations of one thread."""
        self._watch_peaks()
        assert self._peaks is not None
        with self.on(index):
            used, total, peak_used, peak_total = self._note_peaks(self._peaks)
        return {"allocated": used, "reserved": total, "peak_allocated": peak_used, "peak_reserved": peak_total}

    def reset_peak_memory(self, index: int) -> None:
        self._watch_peaks()
        assert self._peaks is not None
        self._peaks.pop(index, None)

    def device_memory_info(self, index: int) -> tuple[int, int]:
        with self.on(index):
            free, total = self.xp.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def empty_cache(self) -> None:
        self._held.release()
        pool = self.xp.get_default_memory_pool()
        for index in range(self.xp.cuda.runtime.getDeviceCount()):
            with self.on(index):
                pool.free_all_blocks()

    def limit_memory(self, fraction: float, index: int) -> None:
        """Let the pool hold no more than this share of the device's memory."""
        with self.on(index):
            self.xp.get_default_memory_pool().set_limit(fraction=fraction)

    def memory_limit(self, index: int) -> int:
        """The most that the pool may hold; 0 for no limit but the device's."""
        with self.on(index):
            return int(self.xp.get_default_memory_pool().get_limit())

    def _watch_peaks(self) -> None:
        if self._peaks is None:
            self._noting = threading.RLock()  # a collection of garbage may allocate while it is held
            self._peaks = {}

    def _note_peaks(self, peaks: dict[int, tuple[int, int]]) -> tuple[int, int, int, int]:
        """What the pool holds on the current device, in use and at all, with what graphs work in, which nobody else may
        have; and the most that both were."""
        index, pool = int(self.xp.cuda.runtime.getDevice()), self.xp.get_default_memory_pool()
        with self._noting:
            graphs = held_by_graphs(index)
            used, total = int(pool.used_bytes()) + graphs, int(pool.total_bytes()) + graphs
            peak_used, peak_total = peaks.get(index, (0, 0))
            peaks[index] = max(used, peak_used), max(total, peak_total)
            return used, total, *peaks[index]

    # ---- a full device

    def _watch_allocations(self) -> None:
        """Let the pool's answer to a full device be ours: give back what nobody has and ask again, then raise an error
        that says what can be done. An allocator that the program has chosen itself stays."""
        pool = self.xp.get_default_memory_pool()
        if self.xp.cuda.get_allocator() == pool.malloc:
            self.xp.cuda.set_allocator(self._allocator(pool.malloc, self.xp.cuda.memory.OutOfMemoryError))

    def _allocator(self, malloc: Callable[[int], Any], full: type[BaseException]) -> Callable[[int], Any]:
        """Nearly every op asks it: what it needs is at hand."""

        def allocate(size: int) -> Any:
            given = None
            with suppress(full):  # what the attempt has made dies with its error, here
                given = malloc(size)
            if given is None:
                given = self._allocate_again(size)
            if self._peaks is not None:
                self._note_peaks(self._peaks)
            return given

        return allocate

    def _allocate_again(self, size: int) -> Any:
        pool = self.xp.get_default_memory_pool()
        full = self.xp.cuda.memory.OutOfMemoryError
        self._give_back()
        try:
            return pool.malloc(size)
        except full as error:
            reason = error
        raise self._out_of_memory(full)(self._what_helps(size)) from reason

    def _give_back(self) -> None:
        """Give the device what the pool keeps and nobody has."""
        self._held.release()
        gc.collect()  # cycles may hold arrays
        self.xp.get_default_memory_pool().free_all_blocks()

    def with_room(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives, which takes memory from a pool of its own. Where the device is full it is begun once
        more after the default pool gave back what nobody has; that is not done in its midst, where a stream may be
        captured."""
        try:
            return work()
        except self.xp.cuda.memory.OutOfMemoryError:
            pass  # what the attempt has made dies with its error, here
        self._give_back()
        return work()

    def _what_helps(self, size: int) -> str:
        index = int(self.xp.cuda.Device().id)
        pool = self.xp.get_default_memory_pool()
        used, limit = int(pool.used_bytes()), int(pool.get_limit())
        free, total = map(int, self.xp.cuda.runtime.memGetInfo())
        graphs = held_by_graphs(index)
        others = total - free - int(pool.total_bytes()) - graphs
        compiled = f"CUDA graphs of compiled functions {_shown(graphs)}, " if graphs else ""
        bound = f", and tensors may hold {_shown(limit)} (set_per_process_memory_fraction)" if limit else ""
        return (
            f"cuda:{index} is out of memory: {_shown(size)} were asked for; tensors hold {_shown(used)}, {compiled}"
            f"{_shown(max(0, others))} belong to others, {_shown(free)} of {_shown(total)} are free{bound}. The cache "
            "was emptied and that was not enough. Make the batch smaller, delete tensors that are not needed any more "
            "(a loss that is kept keeps its whole graph: use loss.item()), or use a 16-bit dtype (tg.autocast)."
        )

    def _out_of_memory(self, full: type) -> Any:
        """An error that programs catch as PyTorch's or as CuPy's."""
        from ...cuda.memory import OutOfMemoryError

        return type(
            "OutOfMemoryError", (OutOfMemoryError, full), {"__init__": MemoryError.__init__, "__reduce__": _plain}
        )


def _plain(error: MemoryError) -> Any:
    from ...cuda.memory import OutOfMemoryError

    return OutOfMemoryError, error.args


def _shown(size: int) -> str:
    for unit, bytes_in in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= bytes_in:
            return f"{size / bytes_in:.2f} {unit}"
    return f"{size} bytes"
