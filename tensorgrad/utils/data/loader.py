"""``DataLoader``: batches of a dataset, in the order of a sampler, in this process or by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from ...random import Generator, chosen
from .collate import default_collate, default_convert
from .dataset import IterableDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler
from .workers import run_workers

__all__ = ["DataLoader", "fetch"]


class _Forever:
    """The indices of a stream: there are none, it only goes on."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


def fetch(dataset: Any, indices: Any, collate: Callable[..., Any]) -> Any:
    """The batch (or, for a single index, the sample) at these indices."""
    if not isinstance(indices, (list, tuple)):
        return collate(dataset[indices])
    if collate is default_collate and hasattr(dataset, "batch"):
        return dataset.batch(indices)
    if hasattr(dataset, "__getitems__"):
        return collate(dataset.__getitems__(list(indices)))
    return collate([dataset[i] for i in indices])


class DataLoader:
    """Iterates over a dataset in batches.

    Args:
        dataset: samples by index, or an IterableDataset.
        batch_size: samples in a batch; None gives single samples.
        shuffle: visit the samples in a new random order each time.
        sampler, batch_sampler: an order of your own, of indices or of lists of indices.
        num_workers: processes that load batches ahead; 0 loads in this one.
        collate_fn: makes a batch of a list of samples; ``default_collate`` if None.
        pin_memory, pin_memory_device: permissions, which no backend needs: copies to a device do not block.
        drop_last: leave out a last batch that is shorter.
        timeout: seconds to wait for a worker; 0 waits for ever.
        worker_init_fn: called with the worker's number in each worker.
        multiprocessing_context: how workers are started ("spawn", "fork", or a context).
        generator: where the order comes from; the default generator if None.
        prefetch_factor: batches that each worker loads ahead (2 if None).
        persistent_workers: keep the workers' copies of the dataset between epochs.
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
        pin_memory_device: str = "",
    ):  # fmt: skip
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {num_workers}.")
        if num_workers == 0 and (prefetch_factor is not None or timeout or persistent_workers):
            raise ValueError("prefetch_factor, timeout and persistent_workers need num_workers > 0.")
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers else prefetch_factor
        self.persistent_workers = persistent_workers
        stream = isinstance(dataset, IterableDataset)
        if stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("DataLoader with IterableDataset: expected unspecified shuffle, sampler and batch_sampler")
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

    def _indices(self) -> Iterable[Any]:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            count = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self._indices())  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        self._epoch_start = chosen(self.generator).get_state()
        skip, self._skip = self._skip, 0
        batches: Iterator[Any]
        self._done = skip
        if isinstance(self.dataset, IterableDataset) and not self.num_workers:
            batches = islice(stream_batches(self.dataset, self.batch_size, self.drop_last, self.collate_fn), skip, None)
        elif not self.num_workers:
            # only the order is drawn for what is skipped, no sample is loaded
            batches = (fetch(self.dataset, i, self.collate_fn) for i in islice(self._indices(), skip, None))
        else:
            batches = run_workers(self, skip)
        for batch in batches:
            self._done += 1
            yield batch
        self._epoch_start = None
        self._done = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: the generator's state when the epoch began, and the batches handed out since."""
        return {"generator": self._epoch_start, "batches": self._done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next iteration continue from a ``state_dict`` (the generator goes back to the epoch's start)."""
        if state_dict["generator"] is not None:
            chosen(self.generator).set_state(state_dict["generator"])
        self._skip = int(state_dict["batches"])


def stream_batches(dataset: Any, batch_size: int | None, drop_last: bool, collate: Callable[..., Any]) -> Iterator[Any]:
    """The batches of an IterableDataset."""
    samples = iter(dataset)
    if batch_size is None:
        yield from map(collate, samples)
        return
    while batch := list(islice(samples, batch_size)):
        if len(batch) == batch_size or not drop_last:
            yield collate(batch)
