"""C++ kernels on NumPy arrays."""

from __future__ import annotations

from ..numpy.backend import NumpyBackend

__all__ = ["CppBackend"]


class CppBackend(NumpyBackend):
    name = "cpp"

    @classmethod
    def why_not(cls) -> str | None:
        return "the extension is not built"
