"""Seeds and streams: a generator is a 64-bit seed and a 64-bit offset, and nothing else.

Every draw takes the next offset, which names a stream of 2**64 blocks of four 32-bit words from Philox 4x32-10. The
numbers of a draw depend on the seed, the offset and the element's position alone: the same on every backend, for any
number of threads.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from .device import Device, as_device
from .dispatch import host, is_asked, local
from .errors import ShapeError
from .tensor import Tensor, wrap

__all__ = [
    "Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed",
    "set_rng_state",
]  # fmt: skip

_WORD = 2**64


class Generator:
    """A source of random numbers with a state of its own.

    Args:
        device: kept for PyTorch's sake; a generator's numbers are the same on every device.
    Example:
        >>> import tensorgrad as tg
        >>> a, b = tg.Generator().manual_seed(7), tg.Generator().manual_seed(7)
        >>> bool((tg.rand(3, generator=a) == tg.rand(3, generator=b)).all())
        True
    """

    def __init__(self, device: Any = "cpu"):
        self._device = as_device(device)
        self._lock = threading.Lock()
        # [seed, offset], always this array: kernels and programs read and advance it where it lies. An unseeded
        # generator of the user's own is reproducible, from PyTorch's seed.
        self._state = np.array((67280421310721, 0), np.uint64)

    @property
    def device(self) -> Device:
        return self._device

    def take(self, count: int = 1) -> tuple[int, int]:
        """(seed, offset) of the next draw, of ``count`` elements; the generator moves on by one stream.

        Raises ShapeError if a stream does not hold that many.
        """
        if count > 2**63:
            raise ShapeError(f"a draw of {count} elements is more than a stream holds.")
        with self._lock:
            seed, offset = self._state.tolist()
            self._state[1] = (offset + 1) % _WORD
            return seed, offset

    def manual_seed(self, seed: int) -> Generator:
        """Start anew from ``seed``, any integer of 64 bits (negative ones count from 2**64). Returns the generator.

        Raises ValueError outside of that range.
        """
        value = int(seed)
        if not -(2**63) <= value < _WORD:
            raise ValueError(f"manual_seed: expected an integer in [-2**63, 2**64), got {seed}.")
        host(lambda: self._start(value), _reads_nothing)
        return self

    def _start(self, seed: int) -> None:
        with self._lock:
            self._state[:] = seed % _WORD, 0

    def seed(self) -> int:
        """Start anew from a seed that the operating system gives, and return it."""
        host(lambda: self._start(int.from_bytes(os.urandom(8), "little") >> 1), _reads_nothing)
        return self.initial_seed()

    def initial_seed(self) -> int:
        """The seed that the generator started from."""
        is_asked("the seed of a generator", self._state[:1])
        return int(self._state[0])

    def get_state(self) -> Tensor:
        """The state as a uint8 tensor of 16 bytes: seed and offset, lowest byte first."""
        kept = np.empty(16, np.uint8)

        def keep() -> None:
            with self._lock:
                kept[:] = np.frombuffer(self._state.astype("<u8").tobytes(), dtype=np.uint8)

        for ear in local.listeners:
            ear.filled(kept)
        host(keep, _reads_nothing)
        return wrap(kept)

    def set_state(self, new_state: Tensor) -> Generator:
        """Continue from a state that ``get_state`` gave. Raises ShapeError or TypeError for anything else."""
        if not isinstance(new_state, Tensor) or new_state.dtype.name != "uint8":
            raise TypeError("set_state: expected a uint8 Tensor that get_state returned.")
        if tuple(new_state.shape) != (16,):
            raise ShapeError(f"set_state: a state has 16 bytes, got shape {tuple(new_state.shape)}.")
        for ear in local.listeners:
            ear.read(new_state)
        kept = new_state._data

        def put() -> None:
            with self._lock:
                self._state[:] = np.frombuffer(bytes(kept.tolist()), "<u8")

        host(put, lambda: [new_state])
        return self

    def clone_state(self) -> Generator:
        """A generator that will draw the same numbers from here on."""
        return Generator(self._device).set_state(self.get_state())

    def __repr__(self) -> str:
        is_asked("the state of a generator", self._state)
        seed, offset = self._state.tolist()
        return f"Generator(seed={seed}, offset={offset})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (str(self._device), *self._state.tolist())


def _reads_nothing() -> list[Tensor]:
    """What actions on generators read of tensors."""
    return []


def _rebuild(device: str, seed: int, offset: int) -> Generator:
    generator = Generator(device)
    generator._state[:] = seed, offset
    return generator


default_generator = Generator()
"""Draws for everybody who names no generator, on every device."""
default_generator.seed()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator: from here on the program's random numbers are reproducible, on every backend."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator with a number from the operating system, and return it."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator, for ``set_rng_state``."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Put the default generator back where it was."""
    default_generator.set_state(new_state)


class fork_rng:
    """Draws inside the block leave the default generator as it was before.

    Example:
        >>> import tensorgrad as tg
        >>> with tg.random.fork_rng():
        ...     _ = tg.rand(3)
    """

    def __init__(self, enabled: bool = True):
        self._enabled = enabled

    def __enter__(self) -> None:
        self._state = get_rng_state()

    def __exit__(self, *error: Any) -> None:
        if self._enabled:
            set_rng_state(self._state)


def chosen(generator: Generator | None) -> Generator:
    """The generator to draw from. Raises TypeError for something else."""
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise TypeError(f"generator must be a tensorgrad.Generator or None, got {type(generator).__name__}.")
    return generator
