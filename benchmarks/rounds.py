"""Taking turns: every framework runs a block of steps, then the next, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.frameworks import FRAMEWORKS, environment

ROOT = Path(__file__).resolve().parent.parent
BLOCK_SECONDS = 0.25
ROUNDS = 9


class WorkerError(RuntimeError):
    """A worker answered with an error, or died."""


class Process:
    """A worker process and the pipe to it. ``extra``: more of its environment."""

    def __init__(
        self,
        name: str,
        threads: int,
        module: str = "benchmarks.worker",
        *arguments: str,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        # what it says on stderr: the end of it is told if it dies
        self._words = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, name, str(threads), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True, cwd=ROOT,
            env=environment(FRAMEWORKS[name], threads) | dict(extra or {}),
        )  # fmt: skip

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it is gone, or was closed
            line = ""
        if not line.endswith("\n"):
            raise WorkerError(f"the process ended with code {self._process.wait()}{self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        if self._words.closed:
            return ""
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 2000))
        said = [line.strip() for line in self._words.read().splitlines() if line.strip()]
        return f": {said[-1][:300]}" if said else ""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process at once; whoever waits for its answer gets a WorkerError."""
        self._process.kill()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *unused: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._words.close()


@dataclass
class Measured:
    """One framework on one workload. ``blocks`` holds the seconds of every step, round by round."""

    name: str
    blocks: list[list[float]] = field(default_factory=list)
    first_step_s: float = 0.0
    import_mb: float = 0.0
    peak_mb: float = 0.0
    losses: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def median_s(self) -> float:
        return statistics.median(time for block in self.blocks for time in block)


def ratio(peer: Measured, ours: Measured) -> float:
    """How many times faster we are: the median over rounds of the ratios of block medians."""
    return statistics.median(
        statistics.median(theirs) / statistics.median(mine)
        for theirs, mine in zip(peer.blocks, ours.blocks, strict=True)
    )


def workload(name: str, frameworks: Iterable[str], threads: int, steps: int | None = None) -> list[Measured]:
    """Measure one workload on all frameworks; with ``steps`` each runs that many, else as many as fit in the time."""
    results = {framework: Measured(framework) for framework in frameworks}
    processes: dict[str, Process] = {}
    try:
        counts: dict[str, int] = {}
        for framework, result in results.items():
            process = processes[framework] = Process(framework, threads)
            with _noting(result):
                result.import_mb = process.ask("hello")["rss_mb"]
                result.first_step_s = process.ask("build", workload=name)["first_step_s"]
                warm = process.ask("steps", count=4)["times"]
                warm = process.ask("steps", count=max(1, min(50, int(BLOCK_SECONDS / min(warm)))))["times"]
                fitting = max(1, min(1000, int(BLOCK_SECONDS / statistics.median(warm))))
                counts[framework] = fitting if steps is None else max(1, steps // ROUNDS)
        for _ in range(ROUNDS if steps is None else min(ROUNDS, steps)):
            for framework, result in results.items():
                if result.error is None:
                    time.sleep(0.02)  # let the last one's spinning threads go to sleep
                    with _noting(result):
                        result.blocks.append(processes[framework].ask("steps", count=counts[framework])["times"])
        for framework, result in results.items():
            if result.error is None:
                with _noting(result):
                    result.peak_mb = processes[framework].ask("memory")["peak_mb"]
    finally:
        for process in processes.values():
            process.__exit__()
    return list(results.values())


def losses(
    names: Iterable[str], frameworks: Iterable[str], threads: int, steps: int = 5, double: bool = False
) -> dict[str, list[Measured]]:
    """The first losses of each framework from the same weights and batches, by workload. One process of a framework
    runs them one after the other, and a new one takes over where it has died."""
    results: dict[str, list[Measured]] = {name: [] for name in names}
    for framework in frameworks:
        process = Process(framework, threads)
        try:
            for name, measured in results.items():
                if not process.alive:
                    process.__exit__()
                    process = Process(framework, threads)
                result = Measured(framework)
                with _noting(result):
                    first = process.ask("build", workload=name, double=double, chance=False)["loss"]
                    result.losses = [first, *process.ask("steps", count=steps - 1)["losses"]]
                measured.append(result)
        finally:
            process.__exit__()
    return results


TURNS = 5


def in_turn(
    frameworks: Iterable[str], threads: int, jobs: Iterable[Any], prepare: Callable[[Process, Any], dict[str, Any]]
) -> Iterable[tuple[Any, dict[str, dict[str, Any]]]]:
    """For each job: prepare it on every framework, then time it turn by turn; "s" holds the seconds of each turn."""
    processes = [Process(framework, threads) for framework in frameworks]
    try:
        for job in jobs:
            answers: dict[str, dict[str, Any]] = {process.name: {"s": []} for process in processes}
            for turn in range(1 + TURNS):
                for process in processes:
                    answer = answers[process.name]
                    if "error" in answer:
                        continue
                    try:
                        if turn == 0:
                            answer.update(prepare(process, job))
                        else:
                            answer["s"].append(process.ask("op")["s"])
                    except WorkerError as error:
                        answer["error"] = str(error)
            yield job, answers
    finally:
        for process in processes:
            process.__exit__()


def ratio_of_turns(peer: list[float], ours: list[float]) -> float:
    """How many times faster we are: the median over turns of the ratios."""
    return statistics.median(theirs / mine for theirs, mine in zip(peer, ours, strict=True))


class _noting:
    """Turn a WorkerError into the result's error: one framework's failure must not end the others' measurement."""

    def __init__(self, result: Measured) -> None:
        self.result = result

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, WorkerError):
            self.result.error = str(error)
            return True
        return False
