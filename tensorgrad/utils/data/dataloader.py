"""``DataLoader``: batches of a dataset, in the order of a sampler, in this process or by workers."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

from ...ops.checks import integer, number
from ...random import Generator, chosen
from ...tensor import Tensor
from .collate import default_collate, default_convert
from .dataset import IterableDataset, Subset, TensorDataset
from .pinning import PinnedAhead, pin_memory, pinner
from .sampler import BatchSampler, RandomSampler, SequentialSampler
from .workers import Pool, get_worker_info, run_workers

__all__ = ["DataLoader", "default_collate", "default_convert", "fetch", "get_worker_info"]

T = TypeVar("T", covariant=True)


class _Forever:
    """The indices of a stream: there are none, it only goes on."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


def fetch(dataset: Any, indices: Any, collate: Callable[..., Any], batched: bool) -> Any:
    """The batch at these indices; unless ``batched``, the sample at this index."""
    if not batched:
        return collate(dataset[indices])
    if collate is default_collate:
        batch = _gathered(dataset, indices)
        if batch is not None:
            return batch
    if callable(getattr(dataset, "__getitems__", None)):
        return collate(dataset.__getitems__(indices))
    return collate([dataset[i] for i in indices])


def _gathered(dataset: Any, indices: Any) -> Any:
    """What collating these samples would give, in one gather per tensor; None for a dataset that is more than tensors
    side by side."""
    while type(dataset) is Subset:
        chosen_rows = dataset.indices
        indices = [chosen_rows[i] for i in indices]
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset or not all(isinstance(x, Tensor) for x in dataset.tensors):
        return None
    return [x[list(indices)] for x in dataset.tensors]


class DataLoader(Generic[T]):
    """Iterates over a dataset in batches.

    Args:
        dataset: samples by index, or an IterableDataset.
        batch_size: samples in a batch; None gives single samples.
        shuffle: visit the samples in a new random order each time.
        sampler, batch_sampler: an order of your own, of indices or of lists of indices.
        num_workers: processes that load batches ahead; 0 loads in this one.
        collate_fn: makes a batch of a list of samples; ``default_collate`` if None.
        pin_memory: give batches out in page-locked memory, so that ``x.to("cuda", non_blocking=True)`` does not wait;
            with workers a thread pins them ahead. A batch of a class of your own is asked for its ``pin_memory()``.
            Without a CUDA device a warning says so, and nothing is pinned.
        pin_memory_device: the device that they are for; by default the current CUDA device.
        drop_last: leave out a last batch that is shorter.
        timeout: seconds to wait for a worker; 0 waits for ever.
        worker_init_fn: called with the worker's number in each worker.
        multiprocessing_context: how workers are started ("fork", "spawn", "forkserver", or a context); by default as
            Python starts processes on this system, which on Linux is a fork of this one.
        generator: where the order comes from; the default generator if None.
        prefetch_factor: batches that each worker loads ahead (2 if None).
        persistent_workers: keep the workers, and their copies of the dataset, between epochs.
        in_order: hand out batches in the sampler's order; False hands them out as workers finish them.
    A worker's exception is raised here, in its class and with the worker's traceback. Raises WorkerError, a
    RuntimeError, if a worker died or ``timeout`` has passed.

    ``state_dict()`` says where in the epoch the loader is; one with the same arguments continues there after
    ``load_state_dict``.

    Example:
        >>> import tensorgrad as tg
        >>> from tensorgrad.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(tg.arange(5)), batch_size=2)
        >>> [x.tolist() for x, in loader]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, dataset: Any, batch_size: int | None = 1, shuffle: bool | None = None, sampler: Any = None,
        batch_sampler: Any = None, num_workers: int = 0, collate_fn: Callable[..., Any] | None = None,
        pin_memory: bool = False, drop_last: bool = False, timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None, multiprocessing_context: Any = None,
        generator: Generator | None = None, *, prefetch_factor: int | None = None, persistent_workers: bool = False,
        pin_memory_device: str = "", in_order: bool = True,
    ):  # fmt: skip
        num_workers = integer("DataLoader", "num_workers", num_workers)
        timeout = number("DataLoader", "timeout", timeout)
        for label, given in (("sampler", sampler), ("batch_sampler", batch_sampler)):
            if given is not None and not (hasattr(given, "__iter__") or hasattr(given, "__getitem__")):
                raise TypeError(f"DataLoader: {label} must be iterable, got {given!r}.")
        for label, given in (("collate_fn", collate_fn), ("worker_init_fn", worker_init_fn)):
            if given is not None and not callable(given):
                raise TypeError(f"DataLoader: {label} must be callable, got {given!r}.")
        if prefetch_factor is not None:
            prefetch_factor = integer("DataLoader", "prefetch_factor", prefetch_factor)
        if num_workers < 0:
            raise ValueError(
                "num_workers option should be non-negative; use num_workers=0 to disable multiprocessing. "
                f"Got {num_workers}."
            )
        if not timeout >= 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError("prefetch_factor option needs num_workers > 0: without workers nothing is loaded ahead.")
        if prefetch_factor is not None and prefetch_factor < 1:
            raise ValueError(f"prefetch_factor option should be positive, got {prefetch_factor}.")
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        if timeout and num_workers == 0:
            raise ValueError("timeout option needs num_workers > 0: without workers nobody is waited for.")
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = _context(multiprocessing_context, num_workers)
        self.generator = generator
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers else prefetch_factor
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        stream = isinstance(dataset, IterableDataset)
        for option, given in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
            if stream and given is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified {option} option, but got {option}={given}"
                )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, drop_last"
                )
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None disables auto-batching and is mutually exclusive with drop_last")
        if sampler is None:
            if stream:
                sampler = _Forever()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn
        self._skip = 0
        self._epoch_start: Any = None
        self._done = 0
        self._pool: Any = None
        if num_workers > _processors():
            warnings.warn(
                f"This DataLoader will create {num_workers} worker processes in total. Our suggested max number of "
                f"worker in current system is {_processors()}. Lower num_workers to avoid slowness.",
                UserWarning,
                stacklevel=2,
            )
        self._made = True

    _made = False

    def __setattr__(self, name: str, value: Any) -> None:
        if self._made and name in _FIXED:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}

    def _indices(self) -> Iterable[Any]:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            count = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self._indices())  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[T]:
        return _Batches(self)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: the generator's state when the epoch began, and the batches handed out since."""
        return {"generator": self._epoch_start, "batches": self._done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next iteration continue from a ``state_dict`` (the generator goes back to the epoch's start)."""
        if state_dict["generator"] is not None:
            chosen(self.generator).set_state(state_dict["generator"])
        self._skip = int(state_dict["batches"])


class _Batches(Iterator[Any]):
    """One pass over a loader. Workers start when it is made."""

    def __init__(self, loader: DataLoader[Any]):
        self.loader = loader
        loader._epoch_start = chosen(loader.generator).get_state()
        skip, loader._skip = loader._skip, 0
        loader._done = skip
        stream = isinstance(loader.dataset, IterableDataset)
        self.batches: Iterator[Any]
        pin = pinner(loader.pin_memory, loader.pin_memory_device)
        if loader.num_workers:
            pool = loader._pool or Pool(loader)
            if loader.persistent_workers:
                loader._pool = pool
            self.batches = run_workers(loader, pool, pool.begin(), skip)
            self.pool = pool
            if pin is not None:
                self.batches = self.pinned = PinnedAhead(self.batches, pin)
        elif stream:
            batches = stream_batches(loader.dataset, loader.batch_size, loader.drop_last, loader.collate_fn)
            self.batches = islice(batches, skip, None)
        else:
            # only the order is drawn for what is skipped, no sample is loaded
            indices = islice(loader._indices(), skip, None)
            batched = loader.batch_sampler is not None
            self.batches = (fetch(loader.dataset, i, loader.collate_fn, batched) for i in indices)
        if pin is not None and not loader.num_workers:
            self.batches = (pin_memory(batch, pin) for batch in self.batches)

    pool: Any = None
    pinned: PinnedAhead | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self.loader)

    def __next__(self) -> Any:
        loader = self.loader
        try:
            batch = next(self.batches)
        except StopIteration:
            loader._epoch_start = None
            loader._done = 0
            raise
        loader._done += 1
        return batch

    def __del__(self) -> None:
        # the generator ends its workers when it ends; one that never began has to be helped
        if self.pool is not None and self.loader._pool is not self.pool:
            if self.pinned is not None:
                self.pinned.stop.set()
            self.pool.close()
        if self.pinned is not None:
            self.pinned.close()


_FIXED = frozenset(("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"))


def _context(given: Any, num_workers: int) -> Any:
    if given is None:
        return None
    if num_workers == 0:
        raise ValueError("multiprocessing_context can only be used with multi-process loading (num_workers > 0)")
    if isinstance(given, str):
        known = multiprocessing.get_all_start_methods()
        if given not in known:
            raise ValueError(
                f"multiprocessing_context option should specify a valid start method in {known!r}, but got "
                f"multiprocessing_context={given!r}"
            )
        return multiprocessing.get_context(given)
    if not isinstance(given, BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string specifying the start method, "
            f"but got multiprocessing_context={given}"
        )
    return given


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stream_batches(dataset: Any, batch_size: int | None, drop_last: bool, collate: Callable[..., Any]) -> Iterator[Any]:
    """The batches of an IterableDataset."""
    samples = iter(dataset)
    if batch_size is None:
        yield from map(collate, samples)
        return
    while batch := list(islice(samples, batch_size)):
        if len(batch) == batch_size or not drop_last:
            yield collate(batch)
