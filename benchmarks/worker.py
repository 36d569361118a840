"""One framework in one process, commanded over pipes: ``python -m benchmarks.worker FRAMEWORK THREADS``.

A line of JSON in is a command, a line of JSON out its answer. The process lives as long as the measurement, so blocks
of steps of several frameworks can take turns: noise of the machine meets all of them alike.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.frameworks import FRAMEWORKS, Framework, limit_cores, load, memory_mb, number


class Worker:
    def __init__(self, framework: Framework, threads: int) -> None:
        self.framework = framework
        start = time.perf_counter()
        self.ns = load(framework, threads)
        self.import_s = time.perf_counter() - start
        self.job: Any = None
        self.index = 0
        self.call: Callable[[], Any] | None = None

    def hello(self) -> dict[str, Any]:
        return {"import_s": self.import_s, "rss_mb": memory_mb("VmRSS")}

    def build(self, workload: str, double: bool = False, chance: bool = True) -> dict[str, Any]:
        """Model, optimizer and batches; the time of the first step is told apart, compilers do their work there."""
        if self.framework.module == "jax":
            if double:
                raise ValueError("the JAX workloads are written in float32")
            from benchmarks import jax_workloads

            self.job = jax_workloads.build(workload)
        else:
            from benchmarks import workloads

            self.job = workloads.build(workload, self.ns)
            if double:
                self.job.double(self.ns)
            if not chance:
                self.job.without_chance(self.ns)
            if self.framework.compiled:
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

    def prepare_op(self, name: str, backward: bool) -> dict[str, Any]:
        """Make one op of the table ready for ``op``; answers with the shapes of its inputs."""
        from benchmarks import ops

        self.call, shapes = ops.prepare(name, self.ns, backward)
        self.call()
        return {"shapes": shapes}

    def prepare_conv(self, layer: dict[str, int], batch: int, kind: str) -> dict[str, Any]:
        """Make one convolution of ``benchmarks.conv`` ready for ``op``."""
        from benchmarks import conv

        self.call = None  # the last one's arrays die before the next one's are made
        self.call = conv.prepare(conv.Layer(**layer), batch, kind, self.ns)
        self.call()
        return {}

    def op(self, seconds: float) -> dict[str, Any]:
        """Seconds per call, best of what fits in ``seconds``: a single op is too short for medians of single calls."""
        assert self.call is not None
        count, spent = 1, 0.0
        while spent < seconds / 5:
            start = time.perf_counter()
            for _ in range(count):
                self.call()
            spent = time.perf_counter() - start
            per_call = spent / count
            count = max(count + 1, int(count * 2))
        count = max(1, int(seconds / 5 / per_call))
        times = []
        for _ in range(4 if per_call < seconds else 2):
            start = time.perf_counter()
            for _ in range(count):
                self.call()
            times.append((time.perf_counter() - start) / count)
        return {"s": min(times)}

    def memory(self) -> dict[str, Any]:
        return {"peak_mb": memory_mb("VmHWM")}


def main() -> None:
    framework, threads = FRAMEWORKS[sys.argv[1]], int(sys.argv[2])
    # What a library prints must not fall between the answers: keep the pipe, send prints to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    limit_cores(threads)
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if worker is None:
                worker = Worker(framework, threads)
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the answer; the others' measurement goes on
            text = str(error).strip().splitlines()
            answer = {"error": f"{type(error).__name__}: {text[0] if text else ''}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
