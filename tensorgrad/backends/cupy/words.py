"""Numbers of the host that kernels read from device memory: rates, addresses, places in random streams.

They travel as arguments of a launch, which the driver copies when it is made. Within a CUDA graph a launch repeats its
arguments for ever; so what a captured call reads is noted, and written anew right before each launch of the graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...random import Generator
from .kernels import Kernels

__all__ = ["MOST_WORDS", "CapturedGenerator", "NotedWords", "bits", "device_words", "noting", "put_words"]

MOST_WORDS = 480  # of one launch: kWords of words.cu
_ARGUMENT = np.dtype([("w", np.uint64, (MOST_WORDS,))])

Words = np.ndarray[Any, Any]


def bits(numbers: Any) -> Words:
    """Floating-point numbers as words: the bits of doubles."""
    return np.asarray(numbers, np.float64).view(np.uint64)


def put_words(kernels: Kernels, words: Words, to: Any) -> None:
    """Write words (uint64) to the device array ``to`` of as many, on the current stream."""
    for first in range(0, len(words), MOST_WORDS):
        some = words[first : first + MOST_WORDS]
        argument = np.zeros((), _ARGUMENT)
        argument["w"][: len(some)] = some
        kernels.launch("putwords", len(some), len(some), to[first : first + len(some)], argument)


class NotedWords:
    """The words that the calls of a graph read.

    Args:
        xp: the array namespace.
        live, fixed: device arrays for words that may change from replay to replay, and that never do; the latter of
            memory that no graph uses for anything else. Without them each call's words have their own, for a trial.
    """

    def __init__(self, xp: Any, live: Any = None, fixed: Any = None):
        self.xp = xp
        self.counts = {True: 0, False: 0}
        self.rooms = {True: live, False: fixed}
        self.reads: list[Callable[[], Words]] = []  # with actions, which give none, in the program's order
        self.constants: list[Words] = []
        self.counted: list[tuple[Any, Any, set[int]]] = []  # in the last launch: arrays, as they were, their guards

    def _placed(self, count: int, live: bool) -> Any:
        first = self.counts[live]
        self.counts[live] = first + count
        room = self.rooms[live]
        return self.xp.empty((count,), dtype=np.uint64) if room is None else room[first : first + count]

    def live(self, count: int, read: Callable[[], Words]) -> Any:
        """Where the words are that ``read`` gives before each launch."""
        self.reads.append(read)
        return self._placed(count, True)

    def fixed(self, words: Words) -> Any:
        """Where these words are, in every launch."""
        self.constants.append(words)
        return self._placed(len(words), False)

    def act(self, run: Callable[[], Any], counts: tuple[Any, ...], guards: set[int]) -> None:
        """Something that the host does before each launch: after reads that were noted before, and before others.
        ``counts``: see ``dispatch.host``; ``guards``: numbers of flags that leave out what it counts."""

        def acted() -> Words:
            self.counted += [(array, array.copy(), guards) for array in counts]
            run()
            return _NO_WORDS

        self.reads.append(acted)

    def take_back(self, flags: set[int] | None = None) -> None:
        """Let the last launch's actions, or those that one of these flags guards, have counted nothing."""
        for array, before, guards in reversed(self.counted):
            if flags is None or guards & flags:
                array[...] = before

    def settle(self, kernels: Kernels) -> None:
        """Write the words that never change: once, when the capture is over."""
        if self.constants:
            put_words(kernels, np.concatenate(self.constants), self.rooms[False])
            self.constants = []

    def refresh(self, kernels: Kernels) -> None:
        """Read the others and write them: before each launch. If that fails, no step has been counted."""
        if not self.reads:
            return
        self.counted = []
        try:
            put_words(kernels, np.concatenate([read() for read in self.reads]), self.rooms[True])
        except BaseException:
            self.take_back()
            raise


_NO_WORDS = np.empty((0,), np.uint64)


class _Current(threading.local):
    noted: NotedWords | None = None


_current = _Current()


def noted() -> NotedWords | None:
    """What notes the words that are read, while a call of this thread is captured into a program's graph."""
    return _current.noted


@contextmanager
def noting(words: NotedWords) -> Iterator[NotedWords]:
    """Within the block, in this thread, kernels note which words they read."""
    before, _current.noted = _current.noted, words
    try:
        yield words
    finally:
        _current.noted = before


def device_words(xp: Any, kernels: Kernels, count: int, read: Callable[[], Words]) -> Any:
    """A device array of the words that ``read`` gives: now, or before each launch of the graph that is captured."""
    if _current.noted is not None:
        return _current.noted.live(count, read)
    to = xp.empty((count,), dtype=np.uint64)
    put_words(kernels, read(), to)
    return to


class CapturedGenerator:
    """Stands for a generator while a call is captured: the graph's kernels find seed and offset in device memory, where
    each launch finds the next ones."""

    def __init__(self, generator: Generator):
        self.generator = generator

    def take(self, count: int = 1) -> tuple[int, int]:
        """Refused: a kernel that asks on the host would draw the same numbers in every launch."""
        raise RuntimeError("it draws random numbers by a kernel that is given their place by the host")

    def place(self, count: int) -> Any:
        """A device array of seed and offset of the next draw, of ``count`` elements."""
        words = noted()
        if words is None:
            raise RuntimeError("a captured generator was used outside of the capture")
        return words.live(2, lambda: np.array(self.generator.take(count), np.uint64))
