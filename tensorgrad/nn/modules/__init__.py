"""The layers under the paths of PyTorch's files: ``from tensorgrad.nn.modules.batchnorm import _BatchNorm``.

The files of ``nn`` are cut otherwise, so there are no such files: each path is a module that looks its names up where
they live. A class has one identity, wherever it was imported from.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

# PyTorch's file -> ours that hold its names
_PATHS = {
    "activation": ("activation", "attention"),
    "adaptive": ("adaptive",),
    "batchnorm": ("norm",),
    "channelshuffle": ("pixel_shuffle",),
    "container": ("containers",),
    "conv": ("conv",),
    "distance": ("distance",),
    "dropout": ("dropout",),
    "flatten": ("linear",),
    "fold": ("fold",),
    "instancenorm": ("norm",),
    "lazy": ("lazy",),
    "linear": ("linear", "attention"),
    "loss": ("loss",),
    "module": ("module", "hooks", "state"),
    "normalization": ("norm",),
    "padding": ("padding",),
    "pixelshuffle": ("pixel_shuffle",),
    "pooling": ("pool",),
    "rnn": ("recurrent", "recurrent_cells"),
    "sparse": ("embedding",),
    "transformer": ("transformer",),
    "upsampling": ("upsampling",),
    "utils": ("modules._tuples",),
}
# base classes that have other names here
_NAMES = {
    "_AdaptiveAvgPoolNd": "_AdaptiveAvg", "_AdaptiveMaxPoolNd": "_AdaptiveMax", "_AvgPoolNd": "_AvgPool",
    "_ConstantPadNd": "_Constant", "_ConvNd": "_Conv", "_ConvTransposeNd": "_Transposed", "_DropoutNd": "_Dropout",
    "_MaxPoolNd": "_MaxPool", "_NormBase": "_Tracking", "_get_activation_fn": "_activation", "_get_clones": "_clones",
    "_generate_square_subsequent_mask": "_causal_mask",
}  # fmt: skip


class _Path(types.ModuleType):
    """One of PyTorch's files: its names are looked up in ours, then in ``nn``."""

    def __getattr__(self, name: str) -> Any:
        path = self.__name__.rpartition(".")[2]
        for home in _PATHS[path]:
            try:
                module = importlib.import_module(f"tensorgrad.nn.{home}")
            except ModuleNotFoundError as error:
                if error.name != f"tensorgrad.nn.{home}":
                    raise
                continue  # its layers are found in nn, if there are any
            for spelling in (name, _NAMES.get(name, name)):
                if spelling in module.__dict__:
                    value = self.__dict__[name] = module.__dict__[spelling]
                    return value
        if name.startswith("_"):
            raise AttributeError(f"tensorgrad has no torch.nn.modules.{path}.{name} (see docs/differences.md)")
        nn = importlib.import_module("tensorgrad.nn")
        if name in ("Tensor", "Parameter", "F", "init"):  # what these files themselves import
            return {"Tensor": nn.module.Tensor, "Parameter": nn.Parameter, "F": nn.functional, "init": nn.init}[name]
        return getattr(nn, name)


for _path in _PATHS:
    _made = _Path(f"{__name__}.{_path}", f"tensorgrad.nn under the path of PyTorch's nn/modules/{_path}.py.")
    sys.modules[_made.__name__] = globals()[_path] = _made
del _path, _made


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"tensorgrad has no torch.nn.modules.{name} (see docs/differences.md)")
    return getattr(importlib.import_module("tensorgrad.nn"), name)


def __dir__() -> list[str]:
    return sorted({*_PATHS, *dir(importlib.import_module("tensorgrad.nn"))})
