"""Runs CUDA sources on the CPU: the same text through g++ with a shim, launched thread after thread."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.backends.cupy.launch import Launcher

COMPILER = shutil.which("g++") or shutil.which("clang++")
_HERE = Path(__file__).parent


class HostKernel:
    def __init__(self, entry: Any):
        self.entry = entry

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        cells = []  # where each argument's value lies, as the CUDA driver wants it
        for value in arguments:
            if isinstance(value, np.ndarray) and not value.dtype.names:  # structs are passed by value
                value = np.uint64(value.ctypes.data)
            assert isinstance(value, (np.generic, np.ndarray)), (
                f"a kernel argument of type {type(value).__name__} has no fixed size"
            )
            cells.append(np.array(value))
        pointers = (ctypes.c_void_p * len(cells))(*[cell.ctypes.data for cell in cells])
        self.entry(grid[0], block[0], pointers)


def compile_for_host(source: str, *names: str, defines: tuple[str, ...] = ()) -> list[HostKernel]:
    """Callables for the kernels of a CUDA source, with CuPy's calling convention."""
    entries = "\n".join(
        f'extern "C" void run_{name}(unsigned g, unsigned b, void** a) {{ run_all({name}, g, b, a); }}'
        for name in names
    )
    source = "\n".join(line for line in source.splitlines() if not line.startswith("#include <cuda_"))
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder, "unit.cpp"), Path(folder, "unit.so")
        text.write_text(f'#include "cuda_shim.h"\n{source}\n{entries}\n', encoding="utf-8")
        assert COMPILER is not None, "kernels are run by way of a C++ compiler: install g++ or clang++"
        given = [f"-D{name}" for name in defines]
        if re.search(r"__sync|__shfl|__ballot", source):
            given.append("-DTG_FIBERS")
            given.append("-U_FORTIFY_SOURCE")  # longjmp goes to other stacks
        done = subprocess.run(
            [COMPILER, *given, "-std=c++17", "-O1", "-ffp-contract=off", "-w", "-shared", "-fPIC", f"-I{_HERE}", text,
             "-o", library],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[:4000]
        loaded = ctypes.CDLL(str(library))
    return [HostKernel(getattr(loaded, f"run_{name}")) for name in names]


class HostLauncher(Launcher):
    """The package's launcher on NumPy arrays, with g++ in NVRTC's place."""

    def __init__(self) -> None:
        super().__init__(np)
        self.compiled: list[str] = []

    def compile(self, source: str, name: str) -> Any:
        self.compiled.append(source)
        return compile_for_host(source, name)[0]

    def pointer(self, array: Any) -> int:
        return array.ctypes.data  # type: ignore[no-any-return]
