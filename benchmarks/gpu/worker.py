"""One framework at one place in one process: ``python -m benchmarks.gpu.worker FRAMEWORK THREADS PLACE``."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.frameworks import FRAMEWORKS, Framework, load, number
from benchmarks.gpu import kernels, models
from benchmarks.gpu.place import PLACES, EventClock, HostClock, enter, made_on
from benchmarks.worker import serve
from benchmarks.workloads import Job, build, with_initial_state

__all__ = ["GpuWorker"]

BLOCK_SECONDS = 0.02  # of kernels; shorter ones are launched several times between two events
BLOCKS = 5
AHEAD = 80  # copies of 256 MB that the device is given first, so that it waits for no launch of a block


class GpuWorker:
    """Answers as ``benchmarks.worker.Worker`` does, with times by the device's clock."""

    def __init__(self, framework: Framework, threads: int, place: str) -> None:
        self.framework = framework
        self.ns = load(framework, threads)
        self.place = place
        self.device = enter(self.ns, place)
        self.clock: Any = EventClock(self.ns) if self.device == "cuda" else HostClock()
        self.job: Any = None
        self.index = 0
        self.call: Callable[[], Any] | None = None
        self.ahead: list[Any] | None = None

    def hello(self) -> dict[str, Any]:
        return {"device": self.device}

    def build(self, workload: str, toy: bool = False, size: dict[str, int] | None = None) -> dict[str, Any]:
        """Make the workload and take its first step, where compilers do their work."""
        with made_on(self.ns, self.device):
            self.job = self._made(workload, toy, size or {})
        if self.framework.compiled and self.framework.module == "tensorgrad":
            self.job.train = self.ns.compile(self.job.train)
        elif self.framework.compiled:
            self.job.loss = self.ns.compile(self.job.loss)
        self.index = 0
        answer = self.steps(1)
        return {"first_step_s": answer["times"][0], "loss": answer["losses"][0]}

    def _made(self, workload: str, toy: bool, size: dict[str, int]) -> Job:
        if workload not in models.MODELS:
            # both in strict float32: which of the two rounds is not to decide
            self.ns.backends.cudnn.allow_tf32 = self.ns.backends.cuda.matmul.allow_tf32 = False
            return build(workload, self.ns, toy)
        make, full, small = models.MODELS[workload]
        what = dataclasses.replace(small if toy else full, **size)
        return with_initial_state(make(self.ns, self.device, what), self.ns)

    def steps(self, count: int) -> dict[str, Any]:
        """Seconds of each of ``count`` steps, and their losses, which are fetched behind the last."""
        losses = []
        self.clock.mark()
        for _ in range(count):
            losses.append(self.job.step(self.index).detach())
            self.index += 1
            self.clock.mark()
        times = self.clock.seconds()
        return {"times": times, "losses": [number(loss) for loss in losses]}

    def rest(self) -> dict[str, Any]:
        """Give memory that is not in use back to the card: another process has its turn."""
        if self.device == "cuda":
            self.ns.cuda.empty_cache()
        return {}

    def memory(self) -> dict[str, Any]:
        peak = self.ns.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return {"peak_mb": peak / 2**20}

    def prepare_kernel(self, name: str, toy: bool = False) -> dict[str, Any]:
        """Make a row of ``benchmarks.gpu.kernels`` ready for ``kernel``."""
        self.call = None  # the last one's arrays go before the next one's come
        self.rest()
        row = kernels.ROWS[name]
        with made_on(self.ns, self.device):
            self.call = row.make(self.ns, toy)
            if self.ahead is None:
                self.ahead = [self.ns.zeros(1 << 26 if self.place == "cuda" else 1) for _ in range(2)]
        spent = min(self._block(1) for _ in range(3))
        self.count = max(1, min(200, int((0 if toy else BLOCK_SECONDS) / max(spent, 1e-6))))
        return {"bytes": row.bytes(toy), "flops": row.flops(toy)}

    def kernel(self) -> dict[str, Any]:
        """Seconds of a call: the median of blocks of calls."""
        return {"s": statistics.median(self._block(self.count) for _ in range(BLOCKS)) / self.count}

    def _block(self, count: int) -> float:
        assert self.call is not None and self.ahead is not None
        for _ in range(AHEAD if self.place == "cuda" else 1):
            self.ahead[0].copy_(self.ahead[1])
        self.clock.mark()
        for _ in range(count):
            self.call()
        self.clock.mark()
        return self.clock.seconds()[0]


def main() -> None:
    name, threads, place = sys.argv[1:4]
    if place not in PLACES:
        sys.exit(f"the places are {', '.join(PLACES)}; got {place!r}")
    serve(partial(GpuWorker, FRAMEWORKS[name], int(threads), place))


if __name__ == "__main__":
    main()
