"""A busy neighbour: how much a training step slows while another process keeps one of the cores busy.

The spinning process is pinned to one of the cores that the frameworks may use, at their priority, and is stopped and
continued by signals, so that quiet and busy blocks of all frameworks take turns.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.rounds import Process, WorkerError

WORKLOADS = ("tiny", "mlp", "cnn", "gpt-micro", "lstm")
ROUNDS = 5
QUIET_SECONDS, BUSY_SECONDS = 0.15, 0.5  # busy blocks span many time slices of the system


@dataclass
class Slowed:
    """One framework on one workload: seconds of every step, with the core free and with the neighbour on it."""

    name: str
    quiet: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def slowdown(self) -> float:
        return statistics.median(self.busy) / statistics.median(self.quiet)

    @property
    def worst(self) -> float:
        """The 95th percentile of busy steps by the quiet median."""
        return sorted(self.busy)[int(0.95 * len(self.busy))] / statistics.median(self.quiet)


class Neighbour:
    """A process that spins on the last of the first ``threads`` cores, while ``busy``."""

    def __init__(self, threads: int) -> None:
        core = sorted(os.sched_getaffinity(0))[:threads][-1]
        code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
        self._process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.busy = False

    @property
    def busy(self) -> bool:
        return self._busy

    @busy.setter
    def busy(self, value: bool) -> None:
        self._process.send_signal(signal.SIGCONT if value else signal.SIGSTOP)
        self._busy = value
        time.sleep(0.02)

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *unused: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def measure(name: str, frameworks: Iterable[str], threads: int, rounds: int = ROUNDS) -> list[Slowed]:
    results = [Slowed(framework) for framework in frameworks]
    processes = {result.name: Process(result.name, threads) for result in results}
    try:
        with Neighbour(threads) as neighbour:
            for result in results:
                try:
                    processes[result.name].ask("build", workload=name)
                    processes[result.name].ask("steps", count=1000, seconds=QUIET_SECONDS)
                except WorkerError as error:
                    result.error = str(error)
            for _ in range(rounds):
                for neighbour.busy, seconds in ((False, QUIET_SECONDS), (True, BUSY_SECONDS)):
                    for result in results:
                        if result.error is None:
                            answer = processes[result.name].ask("steps", count=100_000, seconds=seconds)
                            (result.busy if neighbour.busy else result.quiet).extend(answer["times"])
    finally:
        for process in processes.values():
            process.__exit__()
    return results
