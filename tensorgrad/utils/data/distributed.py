"""``DistributedSampler``: each process of several visits its own share of a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ... import distributed
from ...ops.checks import integer
from ...ops.random import randperm
from ...random import Generator
from .sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Every ``num_replicas``-th index of an order that all processes draw alike.

    Args:
        num_replicas: how many processes there are; those of ``torch.distributed`` if None.
        rank: which of them this is.
        shuffle: draw the order anew each epoch, from ``seed`` and ``set_epoch``.
        drop_last: leave out what does not divide evenly; otherwise the first indices are visited again.
    Raises: ValueError for a rank that is none of them.
    Example:
        >>> list(DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False))
        [1, 3, 0]
    """

    def __init__(
        self, dataset: Any, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
        seed: int = 0, drop_last: bool = False,
    ):  # fmt: skip
        count = distributed.get_world_size() if num_replicas is None else num_replicas
        mine = distributed.get_rank() if rank is None else rank
        count = integer("DistributedSampler", "num_replicas", count)
        mine = integer("DistributedSampler", "rank", mine)
        seed = integer("DistributedSampler", "seed", seed)
        if not 0 <= mine < count:
            raise ValueError(f"Invalid rank {mine}, rank should be in the interval [0, {count - 1}]")
        self.dataset = dataset
        self.num_replicas = count
        self.rank = mine
        self.epoch = 0
        self.drop_last = drop_last
        size = len(dataset)
        self.num_samples = size // count if drop_last else math.ceil(size / count)
        self.total_size = self.num_samples * count
        self.shuffle = shuffle
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        if self.shuffle:
            drawn: Any = randperm(size, generator=Generator().manual_seed(self.seed + self.epoch))
            order = drawn.tolist()
        else:
            order = list(range(size))
        if size:
            order = (order * math.ceil(self.total_size / size))[: self.total_size]
        return iter(order[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Of which epoch the next order is."""
        self.epoch = epoch
