"""One framework in one process, commanded over pipes: ``python -m benchmarks.worker FRAMEWORK THREADS``.

A line of JSON in is a command, a line of JSON out its answer. The process lives as long as the measurement, so blocks
of steps of several frameworks can take turns: noise of the machine meets all of them alike.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.frameworks import FRAMEWORKS, Framework, limit_cores, load, memory_mb, number

BLOCK_SECONDS = 0.008
BLOCKS = 3


class Worker:
    def __init__(self, framework: Framework, threads: int) -> None:
        self.framework = framework
        start = time.perf_counter()
        self.ns = load(framework, threads)
        self.import_s = time.perf_counter() - start
        self.job: Any = None
        self.index = 0
        self.call: Callable[[], Any] | None = None
        self.count = 1

    def hello(self) -> dict[str, Any]:
        return {"import_s": self.import_s, "rss_mb": memory_mb("VmRSS")}

    def build(self, workload: str, double: bool = False, chance: bool = True) -> dict[str, Any]:
        """Model, optimizer and batches; the time of the first step is told apart, compilers do their work there."""
        self.job = None  # the last one's tensors go before new ones come
        if self.framework.module == "jax":
            if double:
                raise ValueError("the JAX workloads are written in float32")
            from benchmarks import jax_workloads

            self.job = jax_workloads.build(workload)
            if not chance:
                self.job.without_chance()
        else:
            from benchmarks import workloads

            self.job = workloads.build(workload, self.ns)
            if double:
                self.job.double(self.ns)
            if not chance:
                self.job.without_chance(self.ns)
            if self.framework.compiled and self.framework.module == "tensorgrad":
                self.job.train = self.ns.compile(self.job.train)
            elif self.framework.compiled:
                self.job.loss = self.ns.compile(self.job.loss)
                self.job.optimizer.step = self.ns.compile(self.job.optimizer.step)
        self.index = 0
        start = time.perf_counter()
        loss = self._step()
        return {"first_step_s": time.perf_counter() - start, "loss": number(loss)}

    def steps(self, count: int, seconds: float = math.inf) -> dict[str, Any]:
        """Run ``count`` steps, or until ``seconds`` have passed; the seconds of each, and the losses."""
        times: list[float] = []
        losses = []
        end = time.perf_counter() + seconds
        for _ in range(count):
            if times and time.perf_counter() > end:
                break
            start = time.perf_counter()
            loss = self._step()
            times.append(time.perf_counter() - start)
            losses.append(loss)
        return {"times": times, "losses": [number(loss) for loss in losses]}

    def _step(self) -> Any:
        loss = self.job.step(self.index)
        self.index += 1
        # Losses are kept until the end of a block: without the graph behind them.
        return loss.detach() if hasattr(loss, "detach") else loss

    def prepare_op(self, name: str, size: int, backward: bool) -> dict[str, Any]:
        """Make one op of the table ready for ``op``; answers with the shapes of its inputs."""
        from benchmarks import ops

        self.call = None  # the last op's tensors go before new ones come
        self.call, shapes = ops.prepare(name, self.ns, size, backward)
        self._calibrate()
        return {"shapes": shapes}

    def _calibrate(self) -> None:
        """How many calls make a block. The first call does what later ones find done, and is not counted: taken for the
        rest it made blocks of one call each, which measure how long cores take to wake."""
        self._block(1)
        count = 1
        while (spent := self._block(count)) < BLOCK_SECONDS / 4:
            count = max(count + 1, min(4 * count, int(count * BLOCK_SECONDS / max(spent, 1e-7))))
        self.count = max(1, int(count * BLOCK_SECONDS / spent))

    def prepare_conv(self, layer: dict[str, int], batch: int, kind: str) -> dict[str, Any]:
        """Make one convolution of ``benchmarks.conv`` ready for ``op``."""
        from benchmarks import conv

        self.call = None  # the last one's arrays die before the next one's are made
        self.call = conv.prepare(conv.Layer(**layer), batch, kind, self.ns)
        self._calibrate()
        return {}

    def op(self) -> dict[str, Any]:
        """Seconds per call: the median of blocks of calls, a small op being too short for the clock. The first block
        wakes the cores up and is not counted, unless one call is longer than all of that."""
        blocks = [self._block(self.count)]
        if blocks[0] < 4 * BLOCK_SECONDS:
            blocks = [self._block(self.count) for _ in range(BLOCKS)]
        return {"s": statistics.median(blocks) / self.count}

    def _block(self, count: int) -> float:
        assert self.call is not None
        call = self.call
        start = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - start

    def memory(self) -> dict[str, Any]:
        return {"peak_mb": memory_mb("VmHWM")}


def serve(make: Callable[[], Any]) -> None:
    """Answer commands by the methods of what ``make`` makes at the first one."""
    # What a library prints must not fall between the answers: keep the pipe, send prints to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if worker is None:
                worker = make()
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the answer; the others' measurement goes on
            # compilers say in the first line who failed, and why in a later one
            text = " ".join(part.strip() for part in str(error).strip().splitlines()[:4] if part.strip())
            answer = {"error": f"{type(error).__name__}: {text[:400]}"}
        answers.write(json.dumps(answer) + "\n")


def main() -> None:
    framework, threads = FRAMEWORKS[sys.argv[1]], int(sys.argv[2])
    limit_cores(threads)
    serve(partial(Worker, framework, threads))


if __name__ == "__main__":
    main()
