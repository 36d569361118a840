"""The backend's families of hand-written kernels on NumPy arrays, with g++ in NVRTC's place."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tensorgrad.backends.cupy.kernels import SOURCES, Kernels, Source
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import REFERENCES
from tensorgrad.testing.strict_stream import issue

from .host_compiler import HostKernel, compile_for_host

__all__ = ["HostKernels", "StrictHostKernels"]

_BLOCK = 256


@cache
def _kernels(part: Source) -> dict[str, HostKernel]:
    return dict(zip(part.names, compile_for_host(part.text(), *part.names), strict=True))


def _compiled(names: tuple[str, ...]) -> dict[str, HostKernel]:
    found: dict[str, HostKernel] = {}
    for source in SOURCES:
        wanted = [name for name in names if name in source.names]
        if wanted:
            found.update(_kernels(source.part(*wanted)))
    return found


class HostKernels(Kernels):
    """Compiles these kernels at once, and launches them on as many blocks as ``grid`` says, whatever there is to do."""

    def __init__(self, *names: str) -> None:
        super().__init__(np)
        self.grid = 2
        self.launched: list[str] = []
        self.found.update(_compiled(names))

    def launch(self, name: str, threads: int, *arguments: Any) -> None:
        self.launched.append(name)
        told = any(isinstance(x, np.ndarray) and x.dtype.names for x in arguments)  # by a struct, how arrays lie
        for x in arguments:
            assert told or not isinstance(x, np.ndarray) or x.flags.c_contiguous, f"{name} sees memory, not strides"
        if threads:
            ready = tuple([np.int64(x) if isinstance(x, int) else x for x in arguments])
            self.found[name]((self.grid,), (_BLOCK,), ready)


class StrictHostKernels(HostKernels):
    """The same on the arrays of the stand-in, in whose graphs they can be captured. Kernels that were not asked for are
    their references."""

    def launch(self, name: str, threads: int, *arguments: Any) -> None:
        # a launch copies its arguments
        ready = [x.copy()[()] if isinstance(x, np.ndarray) and x.dtype.names else x for x in arguments]
        host = [x._host if isinstance(x, StrictArray) else x for x in ready]
        if name in self.found:
            issue(super().launch, name, threads, *host, writes=True)
        elif threads:
            issue(REFERENCES[name], *host, writes=True)
