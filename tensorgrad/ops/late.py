"""Functions of families that are loaded when first named: ``tensorgrad.svd``, ``Tensor.svd``.

Here stands only where they live; the methods are as thin as can be, and load their family when called.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..tensor import Tensor

_PACKAGE = __name__.rpartition(".ops")[0]
_LINALG = (
    "chain_matmul", "cholesky", "cholesky_inverse", "cholesky_solve", "cross", "det", "dist", "geqrf", "inverse",
    "logdet", "lu", "lu_solve", "lu_unpack", "matrix_exp", "matrix_power", "orgqr", "ormqr", "pca_lowrank", "pinverse",
    "qr", "slogdet", "svd", "svd_lowrank", "triangular_solve",
)  # fmt: skip
_NO_METHOD = frozenset(
    ("bartlett_window", "blackman_window", "cdist", "chain_matmul", "hamming_window", "hann_window", "kaiser_window",
     "lu_unpack", "pca_lowrank", "svd_lowrank")
)  # fmt: skip

HOMES = {
    **dict.fromkeys(_LINALG, "linalg.torch_names"),
    "cdist": "linalg.distances",
    **dict.fromkeys(("istft", "stft"), "fft.short_time"),
    **dict.fromkeys(
        ("bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"), "fft.windows"
    ),
}
"""The module, below the package, of each function."""


def _method(name: str, home: str) -> Any:
    def method(self: Tensor, *args: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(f"{_PACKAGE}.{home}"), name)(self, *args, **options)

    method.__name__ = name
    method.__doc__ = f"See ``tensorgrad.{name}``."
    return method


for _name, _home in HOMES.items():
    if _name not in _NO_METHOD:
        setattr(Tensor, _name, _method(_name, _home))
