"""The kernels written by hand, in ``.cu`` files beside this one: a table that builds them and feeds the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .printer import source_file

__all__ = ["SOURCES", "Kernels", "Source"]

_BLOCK = 256
_MOST_BLOCKS = 1 << 16


@dataclass(frozen=True)
class Source:
    """A ``.cu`` file: what it needs before it, and the kernels in it."""

    file: str
    includes: tuple[str, ...]
    names: tuple[str, ...]

    def text(self) -> str:
        """The complete translation unit."""
        headers = "#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n"
        return headers + "\n".join(source_file(name) for name in (*self.includes, self.file))


_FLOATS = ("float16", "bfloat16", "float32", "float64")
_NUMBERS = ("uint8", "int8", "int16", "int32", "int64", *_FLOATS, "complex64", "complex128")

SOURCES = (
    Source(
        "random.cu",
        ("core.cuh", "philox.cuh"),
        ("words", *(f"{kind}_{dtype}" for kind in ("uniform", "normal", "dropout") for dtype in _FLOATS)),
    ),
    Source(
        "softmax.cu",
        ("core.cuh", "rows.cuh"),
        tuple(
            f"{kind}_{group}_{dtype}"
            for kind in ("softmax", "logsoftmax", "softmaxgrad", "logsoftmaxgrad")
            for group in ("warp", "block")
            for dtype in _FLOATS
        ),
    ),
    Source(
        "conv.cu",
        ("core.cuh", "rows.cuh"),
        tuple(
            f"{kind}_{dtype}"
            for kind in ("unfold", "unfoldback", "direct", "directback", "directweight")
            for dtype in _FLOATS
        ),
    ),
    Source("accumulate.cu", ("core.cuh", "complex.cuh"), tuple(f"accumulate_{dtype}" for dtype in _NUMBERS)),
)


class Kernels:
    """Finds a kernel by name, compiles its file at first use, launches it over a number of threads."""

    def __init__(self, xp: Any):
        self.xp = xp
        self.found: dict[str, Any] = {}

    def compile(self, source: Source) -> dict[str, Any]:
        """The file's kernels by name, each ``k(grid, block, arguments)``."""
        module = self.xp.RawModule(code=source.text())
        return {name: module.get_function(name) for name in source.names}

    def launch(self, name: str, threads: int, *arguments: Any) -> None:
        """Run ``name`` with at least ``threads`` threads (the kernels go round if there are fewer blocks).

        Python ints are passed as 64-bit integers; floats must come as NumPy scalars of the kernel's type. Raises
        TypeError for a name that no file defines, e.g. for a dtype without such a kernel.
        """
        kernel = self.found.get(name)
        if kernel is None:
            source = next((source for source in SOURCES if name in source.names), None)
            if source is None:
                raise TypeError(f"there is no CUDA kernel {name!r}; the kernels are {', '.join(_names())}")
            self.found.update(self.compile(source))
            kernel = self.found[name]
        if threads:
            blocks = min(-(-threads // _BLOCK), _MOST_BLOCKS)
            kernel((blocks,), (_BLOCK,), tuple([_word(x) if isinstance(x, int) else x for x in arguments]))


def _names() -> list[str]:
    return [name for source in SOURCES for name in source.names]


def _word(value: int) -> Any:
    return np.int64((value + 2**63) % 2**64 - 2**63)
