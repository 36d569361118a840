"""Device ``cuda`` without a GPU: the CuPy backend's Python on strict arrays, kernels by their meaning.

Formulas are lowered and laid out as for the device, then evaluated by NumPy instead of launched; the kernels written
by hand have a reference each in ``REFERENCES``. So the op tests and whole programs run the code that a GPU would run,
up to the launch; what kernels compute is tested where they are compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backends import registry
from ..backends.base import Backend
from ..backends.cupy import capture
from ..backends.cupy.backend import CupyBackend
from ..backends.cupy.kernels import SOURCES, Kernels
from ..backends.cupy.launch import Launcher, Prepared, walk
from ..backends.cupy.transfers import Held
from ..backends.generic.conv import ConvKernels
from ..backends.generic.random import RandomKernels, philox_words
from ..backends.generic.softmax import SoftmaxKernels
from ..backends.numpy.evaluate import evaluate
from ..dispatch import everywhere, local, using
from .strict_array import StrictArray, unwrapped
from .strict_attention import ATTENTION
from .strict_cublas import StrictCublas
from .strict_cublaslt import StrictCublasLt
from .strict_cudnn import StrictCudnn
from .strict_devices import equipped, machine
from .strict_index import accumulation, moving, sorting
from .strict_memory import start_anew
from .strict_namespace import xp
from .strict_norms import LOSS_REFERENCES, NORM_REFERENCES
from .strict_optim import OPTIM_REFERENCES
from .strict_pools import pooling
from .strict_recurrent import RECURRENT_REFERENCES
from .strict_reductions import reduction
from .strict_stream import issue, touch
from .strict_summed_rows import SUMMED_ROWS

__all__ = ["REFERENCES", "StrictCupyBackend", "strict_cuda"]


class _Stream:
    """A generator at a known place."""

    def __init__(self, seed: int, offset: int):
        self.place = int(seed) % 2**64, int(offset) % 2**64

    def take(self, count: int = 1) -> tuple[int, int]:
        return self.place


class _Host(RandomKernels):
    xp = np


class _HostSoftmax(SoftmaxKernels):
    xp = np


def _at(seed: int, offset: int, place: Any) -> tuple[int, int]:
    """Seed and offset: in device memory, if a place is given."""
    return tuple(place.tolist()) if isinstance(place, np.ndarray) else (seed, offset)


def _words(count: int, seed: int, offset: int, place: Any, out: Any) -> None:
    out[...] = philox_words(np, *_at(seed, offset, place), 0, -(-count // 4))[:count].reshape(out.shape)


def _place(seed: int, offset: int, place: Any, out: Any) -> None:
    out[...] = np.array([int(x) % 2**64 for x in _at(seed, offset, place)], np.uint64).view(np.int64)


def _stays(count: int, place: Any, p: Any, mask: Any) -> None:
    mask[...] = _Host().dropout_mask(place, shape=mask.shape, p=float(p))


def _uniform(count: int, seed: int, offset: int, place: Any, out: Any) -> None:
    out[...] = _Host().random_uniform(shape=out.shape, dtype=out.dtype, generator=_Stream(*_at(seed, offset, place)))


def _normal(count: int, seed: int, offset: int, place: Any, out: Any) -> None:
    out[...] = _Host().random_normal(shape=out.shape, dtype=out.dtype, generator=_Stream(*_at(seed, offset, place)))


def _dropout(
    count: int, seed: int, offset: int, place: Any, p: Any, scale: Any, x: Any, y: Any, mask: Any
) -> None:  # fmt: skip
    mask[...] = _Host().dropout(x, p=float(p), generator=_Stream(*_at(seed, offset, place)))[1]
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    y[...] = (wide * np.where(mask, scale, 0).astype(wide.dtype)).astype(y.dtype)


def _softmax_of(name: str) -> Callable[..., None]:
    def reference(rows: int, length: int, *arrays: Any) -> None:
        *operands, out = [x.reshape(rows, length) for x in arrays]
        out[...] = getattr(_HostSoftmax(), name)(*operands, dim=1)

    return reference


class _HostConv(ConvKernels):
    xp = np


def _triples(windows: tuple[Any, ...]) -> list[tuple[int, ...]]:
    """Sizes of what is read, kernel, positions, stride, padding, dilation: arguments of the kernels of conv.cu."""
    numbers = [int(x) for x in windows]
    return [tuple(numbers[i : i + 3]) for i in range(0, 18, 3)]


def _unfold_of(back: bool) -> Callable[..., None]:
    def reference(*arguments: Any) -> None:
        sizes, kernel, positions, stride, padding, dilation = _triples(arguments[:18])
        samples, channels, by_sample, by_row, first, count, x, columns = arguments[18:]
        source = x.reshape(samples, channels, *sizes)
        taps, item = int(np.prod(kernel)), columns.itemsize
        steps = (by_sample * item, taps * by_row * item, by_row * item, item)
        rows = as_strided(columns.reshape(-1), (samples, channels, taps, count), steps)
        for tap, place in enumerate(np.ndindex(*kernel)):
            read, inside = [], []
            for size, made, k, s, p, d in zip(sizes, positions, place, stride, padding, dilation, strict=True):
                at = np.arange(made) + p - k * d if back else np.arange(made) * s - p + k * d
                inside.append((at % s == 0 if back else True) & (at >= 0) & ((at // s if back else at) < size))
                read.append(np.where(inside[-1], at // s if back else at, 0))
            found = source[(slice(None), slice(None), *np.ix_(*read))]
            all_inside = inside[0][:, None, None] & inside[1][:, None] & inside[2]
            seen = np.where(all_inside, found, np.zeros((), x.dtype))
            rows[:, :, tap] = seen.reshape(samples, channels, -1)[..., first : first + count]

    return reference


def _direct_of(kind: str) -> Callable[..., None]:
    def reference(*arguments: Any) -> None:
        sizes, kernel, positions, stride, padding, dilation = _triples(arguments[:18])
        samples, groups, read, made, a, b, out = arguments[18:]
        how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        inputs, outputs = (samples, groups * read, *sizes), (samples, groups * made, *positions)
        host = _HostConv()
        if kind == "weight":
            shape = (groups * made, read, *kernel)
            got = host.conv_weight_grad(a.reshape(outputs), b.reshape(inputs), weight_shape=shape, **how)
        elif kind == "back":
            weight = b.reshape(groups * read, made, *kernel)
            got = host.conv_input_grad(a.reshape(inputs), weight, input_shape=outputs, **how)
        else:
            got = host.conv(a.reshape(inputs), b.reshape(groups * made, read, *kernel), None, **how)
        out[...] = got.reshape(out.shape)

    return reference


def _moved(count: int, way: Any, *sides_and_arrays: Any) -> None:
    *_, x, out = sides_and_arrays
    out[...] = x


_BY_KIND: dict[str, Callable[..., None]] = {
    "move": _moved,
    "turn": _moved,
    "words": _words,
    "place": _place,
    "stays": _stays,
    "uniform": _uniform,
    "normal": _normal,
    "dropout": _dropout,
    "softmax": _softmax_of("softmax"),
    "logsoftmax": _softmax_of("log_softmax"),
    "softmaxgrad": _softmax_of("softmax_backward"),
    "logsoftmaxgrad": _softmax_of("log_softmax_backward"),
    "unfold": _unfold_of(back=False),
    "unfoldback": _unfold_of(back=True),
    "direct": _direct_of("forward"),
    "directback": _direct_of("back"),
    "directweight": _direct_of("weight"),
    **ATTENTION,
    **NORM_REFERENCES,
    **LOSS_REFERENCES,
    **SUMMED_ROWS,
}
_BY_FILE: dict[str, Callable[[str], Callable[..., None]]] = {
    "reduce.cu": reduction,
    "sort.cu": sorting,
    "accumulate.cu": accumulation,
    "index.cu": moving,
    "pool.cu": pooling,
}


_BY_NAME = {**OPTIM_REFERENCES, **RECURRENT_REFERENCES}


def _reference(file: str, name: str) -> Callable[..., None]:
    if file in _BY_FILE:
        return _BY_FILE[file](name)
    return _BY_NAME.get(name) or _BY_KIND[name.partition("_")[0]]


REFERENCES = {name: _reference(source.file, name) for source in SOURCES for name in source.names}
"""What each kernel of the ``.cu`` files computes, on NumPy arrays."""


class _ReferenceKernels(Kernels):
    def launch(self, name: str, threads: int, *arguments: Any, block: int = 256) -> None:
        if name not in REFERENCES:
            raise TypeError(f"there is no CUDA kernel {name!r}")
        # a launch copies its arguments
        arguments = tuple([x.copy()[()] if isinstance(x, np.ndarray) and x.dtype.names else x for x in arguments])
        told = any(isinstance(x, np.void) for x in arguments)  # by a struct, how arrays lie
        for x in arguments:
            if not isinstance(x, (int, np.generic, StrictArray)):
                raise TypeError(f"{name}: Unsupported type {type(x)}")
            if isinstance(x, StrictArray) and not told and not x.flags.c_contiguous:
                raise AssertionError(f"{name}: a kernel sees memory, not strides; this array is not dense")
        if threads:
            issue(REFERENCES[name], *[unwrapped(x) for x in arguments], writes=True)


_walk = lru_cache(maxsize=4096)(walk)


class _EvaluatingLauncher(Launcher):
    def evaluate(self, prepared: Prepared, args: Sequence[Any], outputs: Sequence[Any], shape: tuple[int, ...]) -> None:
        arrays = [*[args[k] for k in prepared.arrays], *outputs]
        _walk(shape, tuple([(a.shape, a.strides, a.dtype.itemsize) for a in arrays]), prepared.most_packed)
        host = [unwrapped(x) for x in args]
        issue(_evaluate, prepared.program, host, [unwrapped(out) for out in outputs], writes=True)


def _evaluate(program: Any, args: Sequence[Any], outputs: Sequence[Any]) -> None:
    for out, result in zip(outputs, evaluate(program, args), strict=True):
        out[...] = result


class StrictCupyBackend(CupyBackend):
    """The CuPy backend with the strict namespace in CuPy's place."""

    def __init__(self) -> None:
        Backend.__init__(self)
        self.xp = xp
        self.array_type = StrictArray
        self._launcher = _EvaluatingLauncher(xp)
        self._kernels = _ReferenceKernels(xp)
        self._tables = {}
        self._held = Held()
        self._watch_allocations()
        self._count = machine.count
        self._cublas = StrictCublas(xp)
        self._cublaslt = StrictCublasLt(self._cublas)
        self._cudnn = StrictCudnn(xp)

    def _table(self, lists: Sequence[list[Any]], groups: Sequence[int]) -> tuple[Any, int]:
        touch(*[unwrapped(x) for one in lists for x in one])  # a graph is told of the memory behind the addresses
        return super()._table(lists, groups)

    @classmethod
    def why_not(cls) -> str | None:
        return None

    def describe(self) -> str:
        return "a strict stand-in over NumPy, for tests"


@contextmanager
def strict_cuda(devices: int = 1, memory: int | None = None) -> Iterator[StrictCupyBackend]:
    """Within the block, in this thread, device ``cuda`` exists and is computed by the stand-in.

    Args:
        devices: how many there are.
        memory: bytes of each; arrays then lie in the default memory pool, which counts them and runs out. None: as many
            as the process can have, which nobody counts.
    Example:
        >>> import tensorgrad as tg
        >>> with strict_cuda():
        ...     (tg.tensor([1.0, 2.0], device="cuda") * 2).tolist()
        [2.0, 4.0]
    """
    before, rooms = registry._loaded.get("cupy"), capture._rooms
    with equipped(devices, memory):
        start_anew()
        capture._rooms = WeakSet()  # graphs of other stand-ins are on none of these devices
        backend = StrictCupyBackend()
        registry._loaded["cupy"] = backend
        try:
            with using(backend):
                yield backend
        finally:
            local.unsettled = None
            everywhere.pop(StrictArray, None)
            if before is None:
                registry._loaded.pop("cupy", None)
            else:
                registry._loaded["cupy"] = before
            capture._rooms = rooms
            start_anew()
