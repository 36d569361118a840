"""The file of a saved program: a safetensors file, any tool for which shows the arrays, with the program's text in its
metadata, and one checksum (SHA-256) of both.

The file is an opponent when it is read: every length, offset, shape and dtype is checked before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any

import numpy as np

from ..dtypes import BY_NAME, numpy_dtype, of_array
from ..io.atomic import atomic_file
from ..io.safetensors import CODES, FileError
from .plain import expect, whole

__all__ = ["CODE_OF", "MOST", "json_object", "read_file", "shape_from", "write_file"]

FORMAT = "tensorgrad.program"
VERSION = 3
# a program of version 1 serves the sizes that it was saved of; 2 has fewer forms of numbers that follow from a size
_KNOWN = ("1", "2", "3")
CODE_OF = {name: code for code, name in CODES.items()}
"""The format's codes by names of dtypes."""
MOST = 1 << 20
"""Calls, and arrays, of a file at most."""

_LONGEST_HEADER = 1 << 28
_MOST_DIMS = 64


def write_file(path: str | os.PathLike[str], arrays: dict[str, np.ndarray[Any, Any]], text: str) -> None:
    """A safetensors file of these arrays, the program's text in its metadata."""
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    entries: dict[str, Any] = {}
    at = 0
    digest = hashlib.sha256(text.encode())
    for name in order:
        array = arrays[name]
        entries[name] = {
            "dtype": CODE_OF[of_array(array.dtype).name], "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }  # fmt: skip
        at += array.nbytes
        digest.update(json.dumps([name, entries[name]]).encode())
        digest.update(_raw(array))
    about = {"format": FORMAT, "version": str(VERSION), "program": text, "checksum": digest.hexdigest()}
    header = json.dumps({"__metadata__": about, **entries}, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + 8) % 64)
    with atomic_file(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            file.write(_raw(arrays[name]))


def _raw(array: Any) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read_file(name: str) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    """(the arrays, the program's text), after the checksum of both."""
    size = os.stat(name).st_size
    with open(name, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        fits = size >= 8 and 2 <= length <= min(size - 8, _LONGEST_HEADER)
        expect(fits, "not a saved program: the header's length is wrong")
        header = _of_bytes(file.read(length))
        about = header.pop("__metadata__", None)
        expect(type(about) is dict and about.get("format") == FORMAT, "not a saved program")
        expect(
            about.get("version") in _KNOWN,
            f"of version {about.get('version')!r:.20}; this tensorgrad reads the versions {', '.join(_KNOWN)}. Save "
            "it anew with this one, or load it with the one that saved it",
        )
        text, checksum = about.get("program"), about.get("checksum")
        expect(type(text) is str and type(checksum) is str, "the program or its checksum is missing")
        expect(len(header) <= MOST, "too many arrays")
        order = _checked_order(header, size - 8 - length)
        assert type(text) is str
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
        arrays = {}
        for key in order:
            entry = header[key]
            array = np.empty(tuple(entry["shape"]), numpy_dtype(CODES[entry["dtype"]]))
            raw = array.reshape(-1).view(np.uint8)
            expect(not raw.nbytes or file.readinto(raw.data) == raw.nbytes, "the file ends early")
            digest.update(json.dumps([key, entry]).encode())
            digest.update(raw.data)
            expect(entry["dtype"] != "BOOL" or not raw.size or raw.max() <= 1, f"{key!r}: bools that are none")
            arrays[key] = array
    expect(digest.hexdigest() == checksum, "the checksum is wrong: the file was changed, or damaged on its way")
    return arrays, text


def _checked_order(header: dict[str, Any], size: int) -> list[str]:
    """The arrays' names as they follow each other; together they fill the rest of the file."""
    at = 0
    for key, entry in header.items():
        keys = {"dtype", "shape", "data_offsets"}
        expect(type(entry) is dict and entry.keys() == keys, f"{key!r:.60}: no array is described")
        expect(type(entry["dtype"]) is str and entry["dtype"] in CODES, f"{key!r:.60}: an unknown dtype")
        shape_from(entry["shape"])
        ends = entry["data_offsets"]
        expect(type(ends) is list and len(ends) == 2, f"{key!r:.60}: no place is given")
        whole(ends[0], size + 1, "a place")
        whole(ends[1], size + 1, "a place")
        expect(
            math.prod(entry["shape"]) * BY_NAME[CODES[entry["dtype"]]].itemsize == ends[1] - ends[0],
            f"{key!r:.60}: the shape has another number of bytes",
        )
    order = sorted(header, key=lambda key: (header[key]["data_offsets"], key))
    for key in order:
        begin, end = header[key]["data_offsets"]
        expect(begin == at, f"{key!r:.60}: arrays overlap, or leave a gap")
        at = end
    expect(at == size, "the arrays do not fill the file")
    return order


def _of_bytes(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise FileError("not a saved program: the header is no text") from None
    return json_object(text)


def json_object(text: str) -> dict[str, Any]:
    """The object that a text is, without what JSON leaves open."""
    try:
        found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"not a saved program: {error}") from None
    expect(type(found) is dict, "not a saved program: no JSON object")
    return found


def _no_constant(name: str) -> Any:
    raise FileError(f"{name} in JSON")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    expect(len(made) == len(pairs), "a key occurs twice")
    return made


def shape_from(written: Any) -> tuple[int, ...]:
    """A shape that a file names."""
    expect(type(written) is list and len(written) <= _MOST_DIMS, "a shape was expected")
    return tuple(whole(n, 1 << 48, "a size") for n in written)
