"""The backend's families of hand-written kernels on NumPy arrays, with g++ in NVRTC's place."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backends.cupy.kernels import SOURCES, Kernels

from .host_compiler import compile_for_host

__all__ = ["HostKernels"]

_BLOCK = 256


class HostKernels(Kernels):
    """Compiles these kernels at once, and launches them on as many blocks as ``grid`` says, whatever there is to do."""

    def __init__(self, *names: str) -> None:
        super().__init__(np)
        self.grid = 2
        self.launched: list[str] = []
        for source in SOURCES:
            wanted = [name for name in names if name in source.names]
            if wanted:
                part = source.part(*wanted)
                self.found.update(zip(part.names, compile_for_host(part.text(), *part.names), strict=True))

    def launch(self, name: str, threads: int, *arguments: Any) -> None:
        self.launched.append(name)
        for x in arguments:
            assert not isinstance(x, np.ndarray) or x.flags.c_contiguous, f"{name} sees memory, not strides"
        if threads:
            ready = tuple([np.int64(x) if isinstance(x, int) else x for x in arguments])
            self.found[name]((self.grid,), (_BLOCK,), ready)
