"""The C++ kernels built for the best instruction set that this processor has (the setting ``cpu`` asks for less)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import ModuleType

from . import config

_NEEDED = {
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
    "baseline": (),
}


def _load() -> tuple[str, list[str], ModuleType]:
    from . import _cpu

    have = _cpu.features()
    wanted = config.get("cpu")
    names = list(_NEEDED)
    if wanted not in ("auto", "amx"):
        names = names[names.index(wanted) :]
    for name in names:
        path = Path(_cpu.__file__).with_name(Path(_cpu.__file__).name.replace("_cpu", f"_C_{name}", 1))
        if all(feature in have for feature in _NEEDED[name]) and path.exists():
            try:
                # for all to see: the bindings, which serve every instruction set, find their kernels so
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise ImportError(f"the C++ kernels did not load: {error}") from None
            from . import _C_bindings

            if name == "avx512" and wanted != name and _C_bindings.use_amx(True):
                name = "amx"  # the same library: tiles are used where they were asked for
            return name, have, _C_bindings
    raise ImportError("no build of the C++ kernels fits this processor")


def _blas_library() -> str:
    import scipy_openblas32

    folder = Path(scipy_openblas32.get_lib_dir())
    for pattern in ("lib*openblas*.so", "lib*openblas*.dylib", "*openblas*.dll"):
        for path in sorted(folder.glob(pattern)):
            return str(path)
    raise ImportError(f"scipy-openblas32 is installed, but no library was found in {folder}")


def _load_blas() -> None:
    """Load OpenBLAS with one thread: left to itself it starts its own while it loads, which spin for 100 ms."""
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        _module.blas_load(_blas_library())
    finally:
        if before is None:
            del os.environ["OPENBLAS_NUM_THREADS"]
        else:
            os.environ["OPENBLAS_NUM_THREADS"] = before


_isa, _features, _module = _load()
_load_blas()
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("__")})


def isa() -> str:
    """The instruction set of the kernels: baseline, avx2, avx512, or amx, which is avx512 with tiles."""
    return _isa


def cpu_features() -> list[str]:
    """The instruction sets that the processor has."""
    return list(_features)
