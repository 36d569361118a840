"""``torch.backends.cpu``: which instructions the C++ kernels use."""

from __future__ import annotations

__all__ = ["get_cpu_capability"]


def get_cpu_capability() -> str:
    """``AVX512``, ``AVX2``, or ``DEFAULT`` where the kernels are the baseline's or there are none."""
    from .cpp.backend import extension

    try:
        isa = str(extension().isa())
    except ImportError:
        return "DEFAULT"
    return {"amx": "AVX512", "avx512": "AVX512", "avx2": "AVX2"}.get(isa.lower(), "DEFAULT")
