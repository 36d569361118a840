"""Tensors by name in safetensors files, written atomically. Needs the package ``safetensors``.

The format holds nothing that could run: a header in JSON, then the elements. Its length, offsets, shapes and dtypes are
checked by the package before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..dtypes import BY_NAME
from ..errors import TensorgradError, require_extra
from ..ops.convert import host
from ..ops.create import from_numpy
from ..tensor import Tensor
from .atomic import write_atomically

__all__ = ["FileError", "load_file", "load_metadata", "save_file"]

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
_STORABLE = frozenset(_CODES.values())


class FileError(TensorgradError, ValueError):
    """Raised for a file that is damaged, or is no file of this format."""


def save_file(
    tensors: Mapping[str, Tensor], filename: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors (of any device and layout) and texts to a file; an existing one is replaced at once, or not at all.

    Args:
        tensors: names to tensors. Tensors that share memory are written each in full.
        metadata: names to texts.
    Raises: MissingExtra without the package; TypeError for other values; FileError for a dtype that the format lacks.
    """
    save = require_extra("safetensors.numpy", "examples").save
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"save_file: expected names and Tensors, got {name!r}: {type(tensor).__name__}.")
        array = np.ascontiguousarray(host(tensor))
        if array.dtype.name not in _STORABLE:
            raise FileError(f"save_file: {name!r} is {array.dtype.name}, which safetensors can't store.")
        arrays[name] = array.reshape(tuple(tensor.shape))
    texts = None if metadata is None else {str(key): _text(key, value) for key, value in metadata.items()}
    write_atomically(filename, save(arrays, metadata=texts))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"save_file: metadata {key!r} must be a str, got {type(value).__name__}.")
    return value


def load_file(filename: str | os.PathLike[str], device: Any = "cpu") -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Raises: MissingExtra without the package; FileNotFoundError; FileError for a damaged file.
    """
    with open(filename, "rb") as file:
        content = file.read()
    return _parse(content, filename, device)


def _parse(content: bytes, filename: Any, device: Any) -> dict[str, Tensor]:
    package = require_extra("safetensors", "examples")
    try:
        entries = package.deserialize(content)
    except package.SafetensorError as error:
        raise FileError(f"{os.fspath(filename)}: not a readable safetensors file: {error}") from None
    found = {}
    for name, entry in sorted(entries, key=lambda item: item[0]):  # the package gives them in any order
        code = entry["dtype"]
        if code not in _CODES:
            raise FileError(f"{os.fspath(filename)}: {name!r} has dtype {code}, which tensorgrad does not store.")
        array = np.frombuffer(entry["data"], dtype=BY_NAME[_CODES[code]].np).reshape(entry["shape"]).copy()
        tensor: Any = from_numpy(array)
        found[name] = tensor.to(device)
    return found


def load_metadata(filename: str | os.PathLike[str]) -> dict[str, str]:
    """The texts of a file, without reading its tensors. Raises as ``load_file`` does."""
    package = require_extra("safetensors", "examples")
    try:
        with package.safe_open(os.fspath(filename), framework="numpy") as file:
            return dict(file.metadata() or {})
    except package.SafetensorError as error:
        raise FileError(f"{os.fspath(filename)}: not a readable safetensors file: {error}") from None
