"""Tensors by name in safetensors files, written atomically. Needs the package ``safetensors``.

The format holds nothing that could run: a header in JSON, then the elements. Its length, offsets, shapes and dtypes are
checked by the package before anything is read. Files are mapped into memory: elements are read when they are first
used, and a tensor that is written to becomes a copy, page by page, which never reaches the file.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..dtypes import BY_NAME
from ..errors import TensorgradError, require_extra
from ..ops.convert import host
from ..ops.create import from_numpy
from ..tensor import Tensor
from .atomic import write_atomically

__all__ = [
    "FileError", "load", "load_file", "load_metadata", "load_model", "safe_open", "save", "save_file", "save_model",
]  # fmt: skip

CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
"""Names of dtypes by the format's codes."""

_STORABLE = frozenset(CODES.values())


class FileError(TensorgradError, ValueError):
    """Raised for a file that is damaged, or is no file of this format."""


# --- writing


def save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of the file that ``save_file`` writes."""
    package = require_extra("safetensors.numpy", "safetensors")
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"save_file: expected names and Tensors, got {name!r}: {type(tensor).__name__}.")
        array = np.ascontiguousarray(host(tensor))
        if array.dtype.name not in _STORABLE:
            raise FileError(f"save_file: {name!r} is {array.dtype.name}, which safetensors can't store.")
        arrays[name] = array.reshape(tuple(tensor.shape))
    texts = None if metadata is None else {str(key): _text(key, value) for key, value in metadata.items()}
    return package.save(arrays, metadata=texts)


def save_file(
    tensors: Mapping[str, Tensor], filename: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors (of any device and layout) and texts to a file; an existing one is replaced at once, or not at all.

    Args:
        tensors: names to tensors. Tensors that share memory are written each in full.
        metadata: names to texts.
    Raises: MissingExtra without the package; TypeError for other values; FileError for a dtype that the format lacks.
    """
    write_atomically(filename, save(tensors, metadata))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"save_file: metadata {key!r} must be a str, got {type(value).__name__}.")
    return value


# --- reading


class safe_open:
    """A file whose tensors are read one by one.

    Args:
        filename: its path.
        framework: ``"pt"`` or ``"tensorgrad"``: tensors of this library.
        device: where tensors go.
        mmap: share the file's memory; False reads copies.
    Raises: MissingExtra without the package; FileNotFoundError; FileError for a damaged file.
    Example: ``with safe_open("model.safetensors") as f: weight = f.get_tensor("weight")``
    """

    def __init__(
        self, filename: str | os.PathLike[str], framework: str = "pt", device: Any = "cpu", *, mmap: bool = True
    ):
        if framework not in ("pt", "tensorgrad"):
            raise ValueError(f"safe_open: framework {framework!r} is another library's; use 'pt' or 'tensorgrad'.")
        self.filename = os.fspath(filename)
        self.device = device
        self._copy = not mmap
        self._memory, self._start = _mapped(self.filename)
        self._entries = _header(self._memory, self._start, self.filename)
        self._metadata = self._entries.pop("__metadata__", None)

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing to do: the mapping lives as long as a tensor uses it."""

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._entries)

    def offset_keys(self) -> list[str]:
        """The names of the tensors, as they follow each other in the file."""
        return sorted(self._entries, key=lambda name: self._entries[name]["data_offsets"])

    def metadata(self) -> dict[str, str] | None:
        """The texts of the file, None if it has none."""
        return self._metadata

    def get_tensor(self, name: str) -> Tensor:
        """One tensor. Raises FileError for a name or dtype that is not there."""
        entry = self._entries.get(name)
        if entry is None:
            raise FileError(f"{self.filename}: there is no tensor {name!r}.")
        made: Any = from_numpy(self._array(name, entry))
        return made.to(self.device)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def _array(self, name: str, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if code not in CODES:
            raise FileError(
                f"{self.filename}: {name!r} has dtype {code}, which tensorgrad does not store; save it as one of "
                f"{', '.join(CODES)}."
            )
        dtype = BY_NAME[CODES[code]]
        count = math.prod(shape)
        if count * dtype.itemsize != end - begin or self._start + end > len(self._memory) or begin < 0:
            raise FileError(f"{self.filename}: {name!r} reaches outside of the file, or has bytes of another shape.")
        raw = np.frombuffer(self._memory, np.uint8, end - begin, self._start + begin)
        if self._copy or raw.ctypes.data % max(dtype.itemsize, 1):
            raw = raw.copy()
        if code == "BOOL" and count and raw.max() > 1:
            raise FileError(f"{self.filename}: {name!r} is of bools, but has bytes that are none.")
        return raw.view(dtype.np).reshape(shape)


def _mapped(filename: str) -> tuple[Any, int]:
    """(the file in memory, where its elements begin), after the package has checked the header."""
    package = require_extra("safetensors", "safetensors")
    with open(filename, "rb") as file:
        try:
            with package.safe_open(filename, framework="numpy"):
                pass
        except package.SafetensorError as error:
            raise FileError(f"{filename}: not a readable safetensors file: {error}") from None
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return memory, 8 + int.from_bytes(memory[:8], "little")


def _header(memory: Any, start: int, filename: str) -> dict[str, Any]:
    """What the file holds, by name; the package has checked the shape of it."""
    try:
        found: dict[str, Any] = json.loads(memory[8:start])
    except ValueError as error:
        raise FileError(f"{filename}: not a readable safetensors file: {error}") from None
    return found


def load_file(filename: str | os.PathLike[str], device: Any = "cpu", *, mmap: bool = True) -> dict[str, Tensor]:
    """The tensors of a file, by name, sorted.

    Args:
        filename: its path.
        device: where they go.
        mmap: share the file's memory, until written to; False reads copies.
    Raises: MissingExtra without the package; FileNotFoundError; FileError for a damaged file, or a dtype that
        tensorgrad does not have, e.g. 8-bit floats.
    """
    with safe_open(filename, device=device, mmap=mmap) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict


def load(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file's content. Raises as ``load_file`` does."""
    package = require_extra("safetensors", "safetensors")
    try:
        package.deserialize(data)
    except package.SafetensorError as error:
        raise FileError(f"not readable as safetensors: {error}") from None
    content = object.__new__(safe_open)
    content.filename, content.device, content._copy = "the given bytes", "cpu", True
    content._memory, content._start = data, 8 + int.from_bytes(data[:8], "little")
    content._entries = _header(data, content._start, content.filename)
    content._entries.pop("__metadata__", None)
    return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no dict


def load_metadata(filename: str | os.PathLike[str]) -> dict[str, str]:
    """The texts of a file, without reading its tensors. Raises as ``load_file`` does."""
    return dict(safe_open(filename).metadata() or {})


# --- modules


def _shared(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names whose tensors are the same array as that of an earlier name, to that name."""
    first: dict[int, str] = {}
    found = {}
    for name in sorted(state):
        array = id(state[name]._data)
        if array in first:
            found[name] = first[array]
        else:
            first[array] = name
    return found


def save_model(model: Any, filename: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write a module's state dict; parameters that are shared (tied) are written once, under the first of their names.

    Args:
        model: a Module.
        filename: the path.
        metadata: texts to add. The names that were left out stand there too, as ``safetensors.torch.save_model`` puts
            them.
    """
    state = model.state_dict()
    twice = _shared(state)
    kept = {name: tensor for name, tensor in state.items() if name not in twice}
    save_file(kept, filename, {**(metadata or {}), **twice} or None)


def load_model(
    model: Any, filename: str | os.PathLike[str], strict: bool = True, device: Any = "cpu"
) -> tuple[list[str], list[str]]:
    """Load what ``save_model`` (or ``safetensors.torch.save_model``) wrote into a module.

    Returns: (missing names, unexpected names), which are empty where ``strict``.
    Raises: StateDictError (a RuntimeError) if ``strict`` and names are missing or not known, or shapes do not fit.
    """
    state = load_file(filename, device)
    twice = _shared(model.state_dict())
    groups: dict[str, list[str]] = {}
    for name, first in twice.items():
        groups.setdefault(first, [first]).append(name)
    for names in groups.values():
        present = [name for name in names if name in state]
        state.update({name: state[present[0]] for name in names if present})
    return model.load_state_dict(state, strict=strict)


def total_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(int(tensor.numel()) * tensor.dtype.itemsize for tensor in tensors)
