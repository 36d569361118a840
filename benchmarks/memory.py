"""Memory of a training step, as it is and under ``tg.compile``: ``python -m benchmarks.memory [WORKLOAD ...]``.

Parameters, the optimizer's state and the other batches are there before and after and are not counted. What is: the
batch that the step is given, of which a program's block has a copy, and all that a step has in use at once beyond, as
the C++ backend's allocator sees it (not what small products keep on the stack). Gradients count on both sides: a step
makes them, and in a program they lie in its block.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from benchmarks.workloads import WORKLOADS, Job, build


def peaks(name: str) -> dict[str, int]:
    """Bytes: ``arena`` of the program, ``compiled``: the most in use in its replay, ``eager``: in the step as it is."""
    import tensorgrad as tg

    job = build(name, tg)
    eager = _peak(tg, job, 2)
    job.train = compiled_step = tg.compile(job.train)
    before = _at_rest(tg, job)
    compiled = _peak(tg, job, 3, before)
    program = compiled_step.programs[0]
    if not compiled_step.stats()["replays"] or program.linked is None:
        raise RuntimeError(f"{name}: the step was not replayed in C++")
    return {"arena": program.linked.nbytes, "compiled": compiled, "eager": eager}


def _at_rest(tg: Any, job: Job) -> int:
    """Bytes in use between two steps, gradients forgotten."""
    job.optimizer.zero_grad()
    gc.collect()
    in_use: int = tg.memory_stats()["in_use"]
    return in_use


def _peak(tg: Any, job: Job, steps: int, before: int | None = None) -> int:
    """The most that the last of some steps has in use, beyond what was there before."""
    from tensorgrad.backends import registry

    for i in range(steps):
        job.step(i)
    gc.collect()
    rest = _at_rest(tg, job)
    backend: Any = registry.on_device("cpu")
    backend.c.trim_memory()  # peaks are counted anew
    job.step(steps)
    most: int = tg.memory_stats()["peak_in_use"]
    given = sum(t.nbytes for t in job.batches[steps % len(job.batches)])
    return given + most - (rest if before is None else before)


def main() -> None:
    print(f"{'MB':12}{'arena':>9}{'compiled':>10}{'eager':>9}{'arena / eager':>15}")
    for name in sys.argv[1:] or WORKLOADS:
        found = peaks(name)
        arena, compiled, eager = (found[key] / 1e6 for key in ("arena", "compiled", "eager"))
        print(f"{name:12}{arena:9.3f}{compiled:10.3f}{eager:9.3f}{arena / eager:15.3f}", flush=True)


if __name__ == "__main__":
    main()
