"""Training steps of all frameworks at a place: built side by side, timed in turns.

Compilers take much longer than measurements do, and work on the CPU: processes are built several at a time, and once
all are ready nothing but the one whose turn it is runs.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks.gpu import kernels
from benchmarks.rounds import Measured, Process, WorkerError, ratio

__all__ = ["Options", "kernel_rows", "train"]

MODULE = "benchmarks.gpu.worker"
ROUNDS, TOY_ROUNDS = 5, 2
BLOCK_SECONDS = 0.3
LOSSES = 3


class Options:
    """What measurements have in common.

    Args:
        place: one of ``place.PLACES``.
        toy: sizes that run anywhere.
        size: changes of GPT-2's size, ``batch`` and ``context``.
        threads: of each process.
        at_once: processes that are built at the same time.
    """

    def __init__(self, place: str, toy: bool, size: dict[str, int], threads: int, at_once: int) -> None:
        self.place, self.toy, self.size = place, toy, size
        self.threads, self.at_once = threads, at_once
        self.rounds = TOY_ROUNDS if toy else ROUNDS
        self.block_seconds = 0.0 if toy else BLOCK_SECONDS

    def process(self, framework: str) -> Process:
        return Process(framework, self.threads, MODULE, self.place)


@contextmanager
def killed_at(end: float, processes: Sequence[Process]) -> Iterator[None]:
    """Within the block processes live until ``end`` (of ``time.monotonic``) at most."""
    timer = threading.Timer(max(0.0, end - time.monotonic()), _kill, [processes])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for process in processes:
            process.__exit__()


def _kill(processes: Sequence[Process]) -> None:
    for process in processes:
        process.kill()


def train(names: Sequence[str], frameworks: Sequence[str], options: Options, seconds: float) -> dict[str, Any]:
    """By workload: each framework's median step, how many times faster tensorgrad is, what was left out and why."""
    end = time.monotonic() + seconds
    jobs = {(name, framework): options.process(framework) for name in names for framework in frameworks}
    measured = {job: Measured(job[1]) for job in jobs}
    with killed_at(end, list(jobs.values())):

        def ready(job: tuple[str, str]) -> None:
            size = options.size if job[0].startswith("gpt2") else {}
            try:
                answer = jobs[job].ask("build", workload=job[0], toy=options.toy, size=size)
                measured[job].first_step_s = answer["first_step_s"]
                measured[job].losses = [answer["loss"], *jobs[job].ask("steps", count=LOSSES - 1)["losses"]]
                jobs[job].ask("rest")
            except WorkerError as error:
                measured[job].error = _words(error, end)

        with ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(ready, jobs))
        for name in names:
            mine = {framework: jobs[name, framework] for framework in frameworks}
            _in_turns(mine, {framework: measured[name, framework] for framework in frameworks}, options, end)
    return {name: _summary({f: measured[name, f] for f in frameworks}) for name in names}


def _in_turns(processes: dict[str, Process], measured: dict[str, Measured], options: Options, end: float) -> None:
    counts: dict[str, int] = {}
    for turn in range(1 + options.rounds):
        for framework, process in processes.items():
            result = measured[framework]
            if result.error is not None:
                continue
            try:
                if turn == 0:
                    step = min(process.ask("steps", count=3)["times"])
                    counts[framework] = max(3, min(500, int(options.block_seconds / max(step, 1e-6))))
                else:
                    # the first ones find memory that was given back, and are not counted
                    result.blocks.append(process.ask("steps", count=2 + counts[framework])["times"][2:])
                if turn == options.rounds:
                    result.peak_mb = process.ask("memory")["peak_mb"]
                process.ask("rest")
            except WorkerError as error:
                result.error = _words(error, end)


def _words(error: WorkerError, end: float) -> str:
    return "not run: its time was over" if time.monotonic() >= end else str(error)


def _summary(measured: dict[str, Measured]) -> dict[str, Any]:
    whole = {f: m for f, m in measured.items() if m.blocks}
    rounds = min((len(m.blocks) for m in whole.values()), default=0)
    for one in whole.values():
        one.blocks = one.blocks[:rounds]  # the last one may not have been everybody's
    ours = [f for f in whole if f.startswith("tensorgrad")]
    theirs = [f for f in whole if not f.startswith("tensorgrad")]
    return {
        "frameworks": {f: _numbers(m) if f in whole else {"error": m.error or "not run"} for f, m in measured.items()},
        "rounds": rounds,
        "times_faster": {f"{mine} than {other}": ratio(whole[other], whole[mine]) for mine in ours for other in theirs},
        "losses_apart": _apart([m.losses for m in whole.values()]),
    }


def _numbers(one: Measured) -> dict[str, Any]:
    return {
        "median_ms": one.median_s * 1e3,
        "steps": sum(map(len, one.blocks)),
        "first_step_s": one.first_step_s,
        "peak_mb": one.peak_mb,
        "losses": one.losses,
    }


def _apart(losses: Sequence[Sequence[float]]) -> float | None:
    """The largest relative distance between two frameworks' losses of the same step."""
    if len(losses) < 2:
        return None
    return max((max(step) - min(step)) / max(abs(min(step)), 1e-9) for step in zip(*losses, strict=True))


def kernel_rows(frameworks: Sequence[str], options: Options, seconds: float, names: Sequence[str]) -> dict[str, Any]:
    """Seconds of each row by framework, its share of the ceiling; the ceilings are the best that any framework has
    reached in this run."""
    end = time.monotonic() + seconds
    processes = [options.process(framework) for framework in frameworks]
    rows: dict[str, Any] = {}
    with killed_at(end, processes):
        for name in names:
            if time.monotonic() >= end:
                rows[name] = {"error": "not run: its time was over"}
                continue
            rows[name] = _row(name, processes, options.toy, end)
    return {"ceilings": _ceilings(rows), "rows": _with_shares(rows)}


def _row(name: str, processes: Sequence[Process], toy: bool, end: float) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": {}, "errors": {}}
    for process in processes:
        try:
            found.update(process.ask("prepare_kernel", name=name, toy=toy))
            found["seconds"][process.name] = statistics.median(process.ask("kernel")["s"] for _ in range(3))
            process.ask("rest")
        except WorkerError as error:
            found["errors"][process.name] = _words(error, end)
    return found


def _rate(row: dict[str, Any], framework: str) -> float:
    return float((row["bytes"] or row["flops"]) / row["seconds"][framework])


def _ceilings(rows: dict[str, Any]) -> dict[str, float]:
    """Bytes a second of a copy, FLOP/s of products."""
    return {
        name: max(_rate(rows[name], framework) for framework in rows[name]["seconds"])
        for name in kernels.CEILINGS
        if rows.get(name, {}).get("seconds")
    }


def _with_shares(rows: dict[str, Any]) -> dict[str, Any]:
    ceilings = _ceilings(rows)
    for name, row in rows.items():
        ceiling = ceilings.get(kernels.ROWS[name].of)
        if ceiling is not None and "seconds" in row:
            row["share"] = {framework: _rate(row, framework) / ceiling for framework in row["seconds"]}
    return rows
