"""Worker processes of a DataLoader: each loads whole batches; they are handed out in the sampler's order."""

from __future__ import annotations

import multiprocessing
import queue
import traceback
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import TensorgradError
from ...ops.random import randint
from ...random import manual_seed

if TYPE_CHECKING:
    from .loader import DataLoader

__all__ = ["WorkerError", "WorkerInfo", "get_worker_info", "run_workers"]


class WorkerError(TensorgradError, RuntimeError):
    """Raised when a worker process failed, died, or took too long."""


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
    text: str


def _work(info: WorkerInfo, settings: tuple[Any, ...], tasks: Any, results: Any) -> None:
    """The worker's life: take (number, indices), put (number, batch), until told None."""
    from .dataset import IterableDataset
    from .loader import fetch, stream_batches

    collate, init, batch_size, drop_last = settings
    try:
        manual_seed(info.seed)
        _info.append(info)
        if init is not None:
            init(info.id)
        dataset = info.dataset
        stream = None
        if isinstance(dataset, IterableDataset):
            stream = stream_batches(dataset, batch_size, drop_last, collate)
    except Exception:  # noqa: BLE001 - whatever it is, it is raised again in the main process
        results.put((None, _Failure(traceback.format_exc())))
        return
    while (task := tasks.get()) is not None:
        number, indices = task
        try:
            batch = next(stream, _End()) if stream is not None else fetch(dataset, indices, collate)
        except Exception:  # noqa: BLE001 - likewise
            batch = _Failure(traceback.format_exc())
        results.put((number, batch))


class Pool:
    """The processes and their queues; ``close`` ends them."""

    def __init__(self, loader: DataLoader):
        context = loader.multiprocessing_context
        if not hasattr(context, "Process"):
            # not fork by default: it copies the locks of kernels' threads in whatever state they are
            context = multiprocessing.get_context(context or "spawn")
        seed = int(randint(0, 2**62, (), generator=loader.generator))
        count = loader.num_workers
        settings = (loader.collate_fn, loader.worker_init_fn, loader.batch_size, loader.drop_last)
        self.tasks = [context.Queue() for _ in range(count)]
        self.results = context.Queue()
        self.processes = []
        for i in range(count):
            info = WorkerInfo(i, count, seed + i, loader.dataset)
            process = context.Process(target=_work, args=(info, settings, self.tasks[i], self.results), daemon=True)
            process.start()
            self.processes.append(process)

    def get(self, timeout: float) -> tuple[Any, Any]:
        """The next finished batch. Raises WorkerError if a worker died, or after ``timeout`` seconds."""
        waited = 0.0
        while True:
            try:
                return self.results.get(timeout=1.0 if not timeout else min(1.0, timeout))
            except queue.Empty:
                waited += 1.0 if not timeout else min(1.0, timeout)
                dead = [p for p in self.processes if not p.is_alive()]
                if dead:
                    raise WorkerError(
                        f"DataLoader: worker process {dead[0].pid} died with exit code {dead[0].exitcode}."
                    ) from None
                if timeout and waited >= timeout:
                    raise WorkerError(f"DataLoader timed out after {timeout} seconds.") from None

    def close(self) -> None:
        for tasks in self.tasks:
            tasks.put(None)
        for process in self.processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
                process.join()
        for channel in (*self.tasks, self.results):
            channel.close()
            channel.join_thread()


def run_workers(loader: DataLoader, skip: int) -> Iterator[Any]:
    """The loader's batches, from batch ``skip`` on, in order."""
    from .dataset import IterableDataset

    stream = isinstance(loader.dataset, IterableDataset)
    pool = loader._pool if loader._pool is not None else Pool(loader)
    keep = loader.persistent_workers and not stream
    loader._pool = pool if keep else None
    finished = False
    try:
        if stream:
            yield from islice(_stream(loader, pool), skip, None)
        else:
            yield from _ordered(loader, pool, islice(iter(loader._indices()), skip, None))
        finished = True
    finally:
        if not keep or not finished:  # a pool left in mid-epoch still holds that epoch's batches
            pool.close()
            loader._pool = None


def _ordered(loader: DataLoader, pool: Pool, indices: Iterator[Any]) -> Iterator[Any]:
    """Batch k is worker ``k % workers``'s: which worker loads what does not depend on their speed."""
    assert loader.prefetch_factor is not None
    sent = 0

    def send() -> None:
        nonlocal sent
        for task in islice(indices, 1):
            pool.tasks[sent % len(pool.tasks)].put((sent, task))
            sent += 1

    for _ in range(loader.prefetch_factor * loader.num_workers):
        send()
    early: dict[int, Any] = {}
    handed_out = 0
    while handed_out < sent:
        while handed_out not in early:
            number, batch = pool.get(loader.timeout)
            if isinstance(batch, _Failure):
                raise WorkerError(f"DataLoader: a worker failed:\n{batch.text}")
            early[number] = batch
        send()
        yield early.pop(handed_out)
        handed_out += 1


def _stream(loader: DataLoader, pool: Pool) -> Iterator[Any]:
    """One batch of each worker in turn, until all have ended."""
    assert loader.prefetch_factor is not None
    workers = list(range(loader.num_workers))
    sent = dict.fromkeys(workers, 0)

    def send(worker: int) -> None:
        pool.tasks[worker].put(((worker, sent[worker]), None))
        sent[worker] += 1

    for worker in workers * loader.prefetch_factor:
        send(worker)
    early: dict[Any, Any] = {}
    turn = dict.fromkeys(workers, 0)
    while workers:
        for worker in list(workers):
            key = (worker, turn[worker])
            while key not in early:
                number, batch = pool.get(loader.timeout)
                if isinstance(batch, _Failure):
                    raise WorkerError(f"DataLoader: a worker failed:\n{batch.text}")
                early[number] = batch
            batch = early.pop(key)
            turn[worker] += 1
            if isinstance(batch, _End):
                workers.remove(worker)
                continue
            send(worker)
            yield batch
