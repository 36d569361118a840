"""Training steps of all frameworks at a place: built side by side, timed in turns.

Compilers take much longer than measurements do, and work on the CPU: processes are built several at a time, and what is
not ready when the time for that is over is left out. Then nothing but the one whose turn it is runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks.frameworks import FRAMEWORKS
from benchmarks.rounds import Measured, Process, WorkerError, ratio

__all__ = ["Options", "ended", "limited", "train"]

MODULE = "benchmarks.gpu.worker"
ROUNDS, TOY_ROUNDS = 5, 2
BLOCK_SECONDS = 0.3
MEASURING = 0.4  # at most this share of the time is for measuring, the rest for building
STUCK = 20.0  # seconds after which an answer of a process that is ready is not waited for
LOSSES = 3

Job = tuple[str, str]  # workload, framework


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
        # left alone, each of torch.compile's processes starts as many compilers as the machine has cores
        extra = {"TORCHINDUCTOR_COMPILE_THREADS": str(self.threads)}
        return Process(framework, self.threads, MODULE, self.place, extra=extra)


@contextmanager
def ended(processes: Sequence[Process]) -> Iterator[None]:
    """No process is left behind the block, nor what it holds on the device. More may be added within it."""
    try:
        yield
    finally:
        for process in processes:  # nothing there is worth waiting for, one after the other
            process.kill()
        for process in processes:
            process.__exit__()


@contextmanager
def limited(process: Process, seconds: float) -> Iterator[None]:
    """A process that has not answered within ``seconds`` is killed: what hangs on the device answers nobody."""
    over = threading.Event()

    def kill() -> None:
        over.set()
        process.kill()

    timer = threading.Timer(max(0.0, seconds), kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    except WorkerError as error:
        if over.is_set():
            raise WorkerError(f"no answer within {seconds:.0f} s, ended") from error
        raise
    finally:
        timer.cancel()


def train(
    names: Sequence[str],
    frameworks: Sequence[str],
    options: Options,
    seconds: float,
    note: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """By workload: each framework's median step, how many times faster tensorgrad is, what was left out and why.

    ``note`` is called with what there is after each workload.
    """
    end = time.monotonic() + seconds
    jobs = {(name, framework): Measured(framework) for name in names for framework in frameworks}
    # a turn also waits for the pipe and for memory that comes back, so not all of its time is a block's
    turn = MEASURING * seconds / (1.5 * (1 + options.rounds) * max(1, len(jobs)))
    result: dict[str, Any] = {}
    started: list[Process] = []
    with ended(started):
        processes = _built(jobs, options, (1 - MEASURING) * seconds, started)
        for i, name in enumerate(names):
            until = time.monotonic() + (end - time.monotonic()) / (len(names) - i)
            measured = {framework: jobs[name, framework] for framework in frameworks}
            mine = {  # without those whose turn to be built never came
                framework: processes[name, framework] for framework in frameworks if (name, framework) in processes
            }
            _in_turns(mine, measured, options.rounds, min(turn, options.block_seconds), until)
            result[name] = _summary(measured)
            if note is not None:
                note(result)
    return result


def _built(jobs: dict[Job, Measured], options: Options, seconds: float, started: list[Process]) -> dict[Job, Process]:
    """A process for each job that its time was enough for, which has taken the first steps if the job has no error.
    ``started`` gets all of them."""
    start = time.monotonic()
    waiting, lock, over = set(jobs), threading.Lock(), threading.Event()
    processes: dict[Job, Process] = {}

    def make(job: Job) -> None:
        with lock:
            if over.is_set():
                jobs[job].error = f"not run: others took the {seconds:.0f} s for building"
                return
            processes[job] = options.process(job[1])
            started.append(processes[job])
        size = options.size if job[0].startswith("gpt2") else {}
        try:
            answer = processes[job].ask("build", workload=job[0], toy=options.toy, size=size)
            jobs[job].first_step_s = answer["first_step_s"]
            jobs[job].losses = [answer["loss"], *processes[job].ask("steps", count=LOSSES - 1)["losses"]]
            processes[job].ask("rest")
        except WorkerError as error:
            if jobs[job].error is None:
                jobs[job].error = str(error)
        with lock:
            waiting.discard(job)

    def stop() -> None:
        over.set()
        with lock:
            for job in waiting & processes.keys():
                jobs[job].error = f"not ready after {time.monotonic() - start:.0f} s, ended: its time was over"
                processes[job].kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    # Compilers may not keep the others waiting, nor the others the compilers.
    slow = [job for job in jobs if FRAMEWORKS[job[1]].compiled and FRAMEWORKS[job[1]].module == "torch"]
    fast = [job for job in jobs if job not in slow]
    half = max(1, options.at_once // 2)
    with ThreadPoolExecutor(half) as compilers, ThreadPoolExecutor(half) as pool:
        for waited in [*(compilers.submit(make, job) for job in slow), *(pool.submit(make, job) for job in fast)]:
            waited.result()
    # Each fits the device, but perhaps not all first steps at once: now the others are at rest.
    for job in jobs:
        if "out of memory" in (jobs[job].error or "").lower() and not over.is_set():
            processes[job].kill()
            with lock:
                waiting.add(job)
            jobs[job].error = None
            make(job)
    timer.cancel()
    return processes


def _in_turns(
    processes: dict[str, Process], measured: dict[str, Measured], rounds: int, block_seconds: float, until: float
) -> None:
    """Blocks of steps, round by round; rounds that come after ``until`` are left out, but for the first."""
    counts: dict[str, int] = {}
    for turn in range(1 + rounds):
        if turn > 1 and time.monotonic() > until:
            break
        for framework, process in processes.items():
            result = measured[framework]
            if result.error is not None:
                continue
            try:
                with limited(process, STUCK):
                    if turn == 0:
                        step = min(process.ask("steps", count=3)["times"])
                        counts[framework] = max(3, min(500, int(block_seconds / max(step, 1e-6))))
                    else:
                        # the first ones find memory that was given back, and are not counted
                        result.blocks.append(process.ask("steps", count=2 + counts[framework])["times"][2:])
                    result.peak_mb = process.ask("memory")["peak_mb"]
                    process.ask("rest")
            except WorkerError as error:
                result.error = str(error)


def _summary(measured: dict[str, Measured]) -> dict[str, Any]:
    whole = {f: m for f, m in measured.items() if m.blocks and m.error is None}
    rounds = min((len(m.blocks) for m in whole.values()), default=0)
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
