"""The rows of ``benchmarks.gpu.kernels`` by all frameworks, each as a share of what the card was seen to reach."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.gpu import kernels
from benchmarks.gpu.training import Options, ended, limited
from benchmarks.rounds import Process, WorkerError

__all__ = ["kernel_rows"]

TURNS = 3
SLOWEST = 30.0  # seconds for one answer: the first one loads a framework and compiles
RESTARTS = 4  # of one framework: each costs seconds, and who fails everywhere must not take the others' time


def kernel_rows(
    frameworks: Sequence[str],
    options: Options,
    seconds: float,
    names: Sequence[str],
    note: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Seconds of each row by framework, its share of the ceiling; the ceilings are the best that any framework has
    reached in this run. ``note`` is called with what there is after each row."""
    end = time.monotonic() + seconds
    rows: dict[str, Any] = {}
    restarts = dict.fromkeys(frameworks, 0)
    processes = {framework: options.process(framework) for framework in frameworks}
    started = list(processes.values())
    with ended(started):
        for name in names:
            if time.monotonic() >= end:
                rows[name] = {"error": "not run: its time was over"}
                continue
            rows[name] = _row(name, processes, options.toy, end)
            for framework in rows[name]["errors"]:
                # An error of the device stays with its process: later rows are not to fail of this one.
                if restarts[framework] < RESTARTS:
                    restarts[framework] += 1
                    processes[framework].kill()
                    processes[framework] = options.process(framework)
                    started.append(processes[framework])
            if note is not None:
                note(_with_shares(rows))
    return _with_shares(rows)


def _row(name: str, processes: dict[str, Process], toy: bool, end: float) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": {}, "errors": {}}
    taken: dict[str, list[float]] = {framework: [] for framework in processes}
    for turn in range(1 + TURNS):
        for framework, process in processes.items():
            if framework in found["errors"]:
                continue
            try:
                with limited(process, min(SLOWEST, max(1.0, end - time.monotonic()))):
                    if turn == 0:
                        found.update(process.ask("prepare_kernel", name=name, toy=toy))
                    else:
                        taken[framework].append(process.ask("kernel")["s"])
            except WorkerError as error:
                found["errors"][framework] = str(error)
    found["seconds"] = {f: statistics.median(taken[f]) for f in processes if f not in found["errors"]}
    return found


def _rate(row: dict[str, Any], framework: str) -> float:
    return float((row["bytes"] or row["flops"]) / row["seconds"][framework])


def _with_shares(rows: dict[str, Any]) -> dict[str, Any]:
    """The rows and the ceilings: bytes a second of a copy, FLOP/s of products."""
    ceilings = {
        name: max(_rate(rows[name], framework) for framework in rows[name]["seconds"])
        for name in kernels.CEILINGS
        if rows.get(name, {}).get("seconds")
    }
    for name, row in rows.items():
        ceiling = ceilings.get(kernels.ROWS[name].of)
        if ceiling is not None and "seconds" in row:
            row["share"] = {framework: _rate(row, framework) / ceiling for framework in row["seconds"]}
    return {"ceilings": ceilings, "rows": rows}
