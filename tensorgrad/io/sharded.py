"""Tensors in several safetensors files, and the index ``model.safetensors.index.json`` that says which is where."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..tensor import Tensor
from .atomic import write_atomically
from .safetensors import FileError, safe_open, save_file, total_bytes

__all__ = ["load_sharded", "save_sharded"]

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MAX_INDEX = 256 * 2**20


def _bytes(size: int | str) -> int:
    if isinstance(size, int) and size > 0:
        return size
    found = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(size))
    if found is None or found[2].upper() not in _UNITS or not int(found[1]):
        raise ValueError(f"save_sharded: max_shard_size {size!r} is no number of bytes, like 10**9 or '5GB'.")
    return int(found[1]) * _UNITS[found[2].upper()]


def save_sharded(
    tensors: Mapping[str, Tensor],
    folder: str | os.PathLike[str],
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write tensors to files of at most ``max_shard_size`` bytes of elements (or one tensor) each, and the index last.

    A model that fits one file gets ``model.safetensors`` and no index. Returns: the files, in order.
    Raises: as ``save_file``; ValueError for a size that is none.
    """
    limit = _bytes(max_shard_size)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = total_bytes([tensor])
        if shards[-1] and filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    place = Path(folder)
    if len(shards) == 1:
        save_file(shards[0], place / _SINGLE, metadata)
        return [place / _SINGLE]
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, place / name, metadata)
    index = {
        "metadata": {"total_size": total_bytes(tensors.values())},
        "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
    }
    write_atomically(place / _INDEX, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode())
    return [place / name for name in names] + [place / _INDEX]


def load_sharded(folder: str | os.PathLike[str], device: Any = "cpu", *, mmap: bool = True) -> dict[str, Tensor]:
    """The tensors that the index in a folder (or at a path) names, or those of its ``model.safetensors``.

    Raises: FileNotFoundError; FileError for an index that is none, names files outside of its folder, or tensors that
        their files lack; as ``load_file`` for each of them.
    """
    path = Path(folder)
    if path.is_dir():
        path = path / _INDEX if (path / _INDEX).exists() else path / _SINGLE
    if path.suffix == ".safetensors":
        with safe_open(path, device=device, mmap=mmap) as file:
            return {name: file.get_tensor(name) for name in file}
    weights = _weight_map(path)
    open_files = {
        name: safe_open(path.parent / name, device=device, mmap=mmap) for name in sorted(set(weights.values()))
    }
    return {key: open_files[name].get_tensor(key) for key, name in weights.items()}


def _weight_map(path: Path) -> dict[str, str]:
    if path.stat().st_size > _MAX_INDEX:
        raise FileError(f"{path}: an index of more than {_MAX_INDEX} bytes is none.")
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not a readable index: {error}") from None
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise FileError(f"{path}: not an index: it has no weight_map from names to files.")
    for name in set(weights.values()):
        if not name.endswith(".safetensors") or name != Path(name).name or "\\" in name:
            raise FileError(f"{path}: the index names {name!r}, which is no safetensors file beside it.")
    return weights
