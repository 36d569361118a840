"""Worker processes of a DataLoader: each loads whole batches; they are handed out in the sampler's order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import random as python_random
import select
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from itertools import islice
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import TensorgradError
from ...ops.random import randint
from ...random import manual_seed
from ...threads import set_num_threads
from . import transport

if TYPE_CHECKING:
    from .dataloader import DataLoader

__all__ = ["WorkerError", "WorkerInfo", "get_worker_info", "run_workers"]

PATIENCE = 5.0
"""Seconds after which a closing pool ends its workers by force."""


class WorkerError(TensorgradError, RuntimeError):
    """Raised when a worker process died or took too long."""


class _Superseded(WorkerError):
    """Another iteration took over the workers."""


class WorkerInfo(NamedTuple):
    """What ``get_worker_info`` tells within a worker."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: list[WorkerInfo] = []


def get_worker_info() -> WorkerInfo | None:
    """Which worker this process is, None in the main process: a stream uses it to yield its own share."""
    return _info[-1] if _info else None


class _End(NamedTuple):
    """A stream's worker has nothing more."""


class _Failure(NamedTuple):
    """An exception in a worker: its class, if that can be sent, and its traceback as text."""

    kind: Any
    text: str

    @classmethod
    def of(cls, error: BaseException, worker: int) -> _Failure:
        name = type(error).__name__
        text = f"Caught {name} in DataLoader worker process {worker}.\nOriginal {traceback.format_exc()}"
        return cls(type(error), text)

    def again(self) -> BaseException:
        """The exception to raise here: of the same class where a message makes one."""
        kind: Any = self.kind if isinstance(self.kind, type) else RuntimeError
        if issubclass(kind, KeyError):  # would show its text by repr, in one line
            kind = _Missing
        try:
            return kind(self.text)
        except Exception:  # noqa: BLE001 - a class whose constructor wants something else
            return RuntimeError(self.text)


class _Missing(KeyError):
    def __str__(self) -> str:
        return str(self.args[0])


_Missing.__name__ = _Missing.__qualname__ = "KeyError"


def _work(info: WorkerInfo, settings: tuple[Any, ...], tasks: Any, results: Any, done: Any) -> None:
    """The worker's life: take (epoch, number, indices), put (epoch, number, batch), until told None."""
    # an interrupt from the terminal reaches every process; the main one raises it and ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(info, settings, tasks, results, done)


def _serve(info: WorkerInfo, settings: tuple[Any, ...], tasks: Any, results: Any, done: Any) -> None:
    from .dataloader import fetch, stream_batches
    from .dataset import IterableDataset

    collate, init, batch_size, drop_last, batched = settings
    broken: Any = None
    parent = os.getppid()
    try:
        set_num_threads(1)
        python_random.seed(info.seed)
        np.random.seed(info.seed % 2**32)
        manual_seed(info.seed)
        _info.append(info)
        if init is not None:
            init(info.id)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again in the main process
        broken = _Failure.of(error, info.id)
    dataset, stream, epoch = info.dataset, None, -1
    while not done.is_set():
        if not tasks.poll(1.0):
            if os.getppid() != parent:
                os._exit(1)  # nobody reads what is still to be written
            continue
        task = tasks.recv()
        if task is None or done.is_set():
            return
        now, number, indices = task
        batch: Any = broken
        try:
            if broken is None and isinstance(dataset, IterableDataset):
                if now != epoch:
                    stream, epoch = stream_batches(dataset, batch_size, drop_last, collate), now
                assert stream is not None
                batch = next(stream, _End())
            elif broken is None:
                batch = fetch(dataset, indices, collate, batched)
            if not isinstance(batch, (_End, _Failure)):
                batch = transport.pack(batch)
        except Exception as error:  # noqa: BLE001 - likewise
            batch = _Failure.of(error, info.id)
        results.put((now, number, _sendable(batch)))


def _sendable(batch: Any) -> Any:
    """A failure whose class can't be pickled (it is local to a function, say) as a plain one."""
    if isinstance(batch, _Failure):
        try:
            pickle.dumps(batch.kind)
        except Exception:  # noqa: BLE001 - any reason is reason enough
            return batch._replace(kind=None)
    return batch


class Pool:
    """The processes and their queues; ``close`` ends them."""

    def __init__(self, loader: DataLoader):
        context: Any = loader.multiprocessing_context or multiprocessing.get_context()
        resource_tracker.ensure_running()  # one for all, so that what a worker shares may be freed here
        seed = int(randint(0, 2**62, (), generator=loader.generator))
        count = loader.num_workers
        batched = loader.batch_sampler is not None
        settings = (loader.collate_fn, loader.worker_init_fn, loader.batch_size, loader.drop_last, batched)
        self.tasks: list[Any] = []  # where each worker is written to
        self.results = context.Queue()
        self.done = context.Event()
        self.processes: list[Any] = []
        self.epoch = -1
        self.closed = False
        for i in range(count):
            info = WorkerInfo(i, count, seed + i, loader.dataset)
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(info, settings, reader, self.results, self.done), daemon=True)
            with warnings.catch_warnings():
                # Python warns of threads in a process that forks; ours are made anew in the child
                warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)
                process.start()
            reader.close()  # so that a write to a worker that died fails
            self.tasks.append(writer)
            self.processes.append(process)

    def begin(self) -> int:
        """A new epoch: what workers still send of older ones is dropped."""
        self.epoch += 1
        return self.epoch

    def put(self, worker: int, task: Any) -> None:
        """Give a worker a task. One that has died is noticed when its result is waited for."""
        with contextlib.suppress(BrokenPipeError):
            self.tasks[worker].send(task)

    def get(self, epoch: int, timeout: float) -> tuple[Any, Any]:
        """The next finished batch: (number, batch). Raises WorkerError if a worker died, or after ``timeout``
        seconds."""
        until = time.monotonic() + timeout
        while True:
            if epoch != self.epoch or self.closed:
                raise _Superseded(
                    "DataLoader: another iteration over this loader has begun; with persistent_workers=True its "
                    "workers serve one at a time."
                )
            try:
                wait = 1.0 if not timeout else max(0.01, min(1.0, until - time.monotonic()))
                sent, number, batch = self.results.get(timeout=wait)
            except queue.Empty:
                dead = [p for p in self.processes if not p.is_alive()]
                if dead:
                    pids = ", ".join(str(p.pid) for p in dead)
                    raise WorkerError(
                        f"DataLoader worker (pid(s) {pids}) exited unexpectedly with exit code {dead[0].exitcode}. "
                        "Its own messages, above, may say why; num_workers=0 shows the error where it happens."
                    ) from None
                if timeout and time.monotonic() >= until:
                    raise WorkerError(f"DataLoader timed out after {timeout} seconds") from None
                continue
            if sent != epoch:
                transport.discard(batch)
            elif isinstance(batch, transport.Parcel):
                return number, transport.unpack(batch)
            else:
                return number, batch

    def close(self) -> None:
        """End the workers and free what they have sent; doing so twice is harmless."""
        if self.closed:
            return
        self.closed = True
        self.done.set()
        for writer in self.tasks:
            # wakes a worker that waits; one with a full pipe does not, and writing to it could take for ever
            if os.name == "nt" or select.select([], [writer], [], 0)[1]:
                with contextlib.suppress(OSError):
                    writer.send(None)
        until = time.monotonic() + PATIENCE
        while any(p.is_alive() for p in self.processes) and time.monotonic() < until:
            self._drain(0.02)  # a worker ends when what it wrote has been read
        for process in self.processes:
            if process.is_alive():
                process.terminate()
            process.join()
        if all(p.exitcode == 0 for p in self.processes):  # one that was killed may have left half a message
            self._drain(0)
        for channel in (*self.tasks, self.results):
            channel.close()

    def __del__(self) -> None:
        if hasattr(self, "processes"):
            self.close()

    def _drain(self, wait: float) -> None:
        try:
            while True:
                transport.discard(self.results.get(timeout=wait)[2] if wait else self.results.get_nowait()[2])
        except (queue.Empty, OSError, EOFError):
            return


def run_workers(loader: DataLoader, pool: Pool, epoch: int, skip: int) -> Iterator[Any]:
    """The loader's batches, from batch ``skip`` on, in order."""
    from .dataset import IterableDataset

    try:
        if isinstance(loader.dataset, IterableDataset):
            yield from islice(_stream(loader, pool, epoch), skip, None)
        else:
            yield from _ordered(loader, pool, epoch, islice(iter(loader._indices()), skip, None))
    except (GeneratorExit, _Superseded):
        raise
    except BaseException:
        if loader._pool is pool:  # nobody knows what state its workers are in
            loader._pool = None
            pool.close()
        raise
    finally:
        if loader._pool is not pool:
            pool.close()


def _checked(batch: Any) -> Any:
    """The batch; raises the worker's exception if that is what came."""
    if isinstance(batch, _Failure):
        raise batch.again()
    return batch


def _ordered(loader: DataLoader, pool: Pool, epoch: int, indices: Iterator[Any]) -> Iterator[Any]:
    """Batch k is worker ``k % workers``'s: which worker loads what does not depend on their speed."""
    assert loader.prefetch_factor is not None
    sent = 0

    def send() -> None:
        nonlocal sent
        for task in islice(indices, 1):
            pool.put(sent % len(pool.tasks), (epoch, sent, task))
            sent += 1

    for _ in range(loader.prefetch_factor * loader.num_workers):
        send()
    early: dict[int, Any] = {}
    handed_out = 0
    while handed_out < sent:
        while handed_out not in early:
            number, batch = pool.get(epoch, loader.timeout)
            early[handed_out if not loader.in_order else number] = batch
        send()
        yield _checked(early.pop(handed_out))
        handed_out += 1


def _stream(loader: DataLoader, pool: Pool, epoch: int) -> Iterator[Any]:
    """One batch of each worker in turn, until all have ended."""
    assert loader.prefetch_factor is not None
    workers = list(range(loader.num_workers))
    sent = dict.fromkeys(workers, 0)

    def send(worker: int) -> None:
        pool.put(worker, (epoch, (worker, sent[worker]), None))
        sent[worker] += 1

    for worker in workers * loader.prefetch_factor:
        send(worker)
    early: dict[Any, Any] = {}
    turn = dict.fromkeys(workers, 0)
    while workers:
        for worker in list(workers):
            key = (worker, turn[worker])
            while key not in early:
                number, batch = pool.get(epoch, loader.timeout)
                early[number] = batch
            batch = _checked(early.pop(key))
            turn[worker] += 1
            if isinstance(batch, _End):
                workers.remove(worker)
                continue
            send(worker)
            yield batch
