"""PyTorch's zip archives: a pickle, the storages' bytes as records beside it, and a word about the byte order.

A zip file from outside lies where it can: every entry's place is checked against the file and against the others, and
what compressed entries expand to is bounded, before anything is allocated.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from ..dtypes import DType
from .storage import host_elements
from .unpickle import CheckpointError, TruncatedError

__all__ = ["Archive", "write_archive"]

_ALIGNMENT = 64
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_INFLATED = 256 * 2**20  # what compressed records may expand to in any case,
_INFLATED_PER_BYTE = 64  # and for each byte of the file
_INFLATED_PICKLE = 4 * 2**20  # a byte of a pickle can make an object of 200
_BAD_ZIP = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError, IndexError, KeyError, AttributeError, TypeError, OSError,
)  # fmt: skip
"""What the zip reader raises for damaged files, besides the error it is meant to."""


class Archive:
    """A checkpoint in a zip file, opened for reading.

    Args:
        file: a seekable binary file.
        mapped: map the file into memory and share it (copied where it is written to) instead of reading.
    Raises: CheckpointError for a damaged archive, or one that is no checkpoint.
    """

    def __init__(self, file: IO[bytes], mapped: bool = False):
        self.file = file
        file.seek(0, 2)
        self.file_size = file.tell()
        try:
            self.zip = zipfile.ZipFile(file)
            self.entries = self._checked()
        except CheckpointError:
            raise
        except _BAD_ZIP as error:
            raise CheckpointError(f"not a readable zip archive: {error}") from None
        pickles = [name for name in self.entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError("the zip archive is no checkpoint: it must have one folder with a data.pkl.")
        self.prefix = pickles[0][: -len("data.pkl")]
        pickled = self.entries[pickles[0]][0]
        if pickled.compress_type != zipfile.ZIP_STORED and pickled.file_size > max(
            _INFLATED_PICKLE, _INFLATED_PER_BYTE * self.file_size
        ):
            raise CheckpointError(
                f"the archive's pickle would expand to {pickled.file_size} bytes, more than one needs."
            )
        if f"{self.prefix}constants.pkl" in self.entries:
            raise CheckpointError(
                "the file is a TorchScript archive, a program of PyTorch's own; save the module's state_dict() instead."
            )
        order = self.read("byteorder") if f"{self.prefix}byteorder" in self.entries else b"little"
        if order not in (b"little", b"big"):
            raise CheckpointError(f"the archive's byte order is {order[:20]!r}; expected little or big.")
        self.byteorder = order.decode()
        self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if mapped else None

    def _checked(self) -> dict[str, tuple[zipfile.ZipInfo, int]]:
        """Entries by name with the place of their data, after a look at each entry's own header."""
        entries: dict[str, tuple[zipfile.ZipInfo, int]] = {}
        places = []
        inflated = 0
        for info in self.zip.infolist():
            if info.filename in entries:
                raise CheckpointError(f"the archive has two records named {info.filename!r}.")
            if info.flag_bits & 0x1:
                raise CheckpointError("the archive is encrypted.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CheckpointError(f"the record {info.filename!r} is compressed in a way that is not read here.")
            if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
                raise CheckpointError(f"the record {info.filename!r} is not compressed but has two sizes.")
            self.file.seek(info.header_offset)
            header = self.file.read(_LOCAL_HEADER.size)
            if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
                raise CheckpointError(f"the record {info.filename!r} is not where the archive says.")
            name_size, extra_size = _LOCAL_HEADER.unpack(header)[-2:]
            start = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size
            places.append((info.header_offset, start + info.compress_size))
            entries[info.filename] = info, start
            if info.compress_type != zipfile.ZIP_STORED:
                inflated += info.file_size
        places.sort()
        ends = [begin for begin, _ in places[1:]] + [self.zip.start_dir]
        if any(end > limit for (_, end), limit in zip(places, ends, strict=True)):
            raise CheckpointError("records of the archive overlap, or reach beyond its end.")
        if inflated > max(_INFLATED, _INFLATED_PER_BYTE * self.file_size):
            raise CheckpointError(
                f"the archive of {self.file_size} bytes would expand to {inflated}; unzip it and store it uncompressed "
                "if that is meant."
            )
        return entries

    def _entry(self, name: str) -> tuple[zipfile.ZipInfo, int]:
        found = self.entries.get(self.prefix + name)
        if found is None:
            raise CheckpointError(f"the archive lacks the record {name!r}.")
        return found

    def read(self, name: str) -> bytes:
        """The bytes of a record."""
        return self._read_into(self._entry(name)[0], None)

    def _read_into(self, info: zipfile.ZipInfo, target: Any) -> Any:
        try:
            with self.zip.open(info) as record:
                if target is None:
                    return record.read()
                view = memoryview(target)
                done = 0
                while done < len(view):
                    got = record.readinto(view[done:])  # type: ignore[attr-defined]
                    if not got:
                        raise TruncatedError(f"the record {info.filename!r} ends after {done} of {len(view)} bytes.")
                    done += got
                if record.read(1):
                    raise CheckpointError(f"the record {info.filename!r} is longer than it says.")
        except CheckpointError:
            raise
        except _BAD_ZIP as error:
            raise CheckpointError(f"the record {info.filename!r} can't be read: {error}") from None
        return target

    def _read_stored(self, info: zipfile.ZipInfo, start: int, target: Any) -> None:
        """As ``_read_into``, past the zip reader, which copies everything twice."""
        self.file.seek(start)
        view = memoryview(target)
        done = 0
        while done < len(view):
            if hasattr(self.file, "readinto"):
                got = self.file.readinto(view[done:])
            else:
                piece = self.file.read(len(view) - done)
                got = len(piece)
                view[done : done + got] = piece
            if not got:
                raise TruncatedError(f"the record {info.filename!r} ends after {done} of {len(view)} bytes.")
            done += got
        if zlib.crc32(view) != info.CRC:
            raise CheckpointError(f"the record {info.filename!r} is damaged: its CRC-32 is another.")

    def elements(self, key: str, dtype: DType, count: int) -> np.ndarray[Any, Any]:
        """The elements of a storage. Raises CheckpointError if the record does not hold just as many."""
        info, start = self._entry(f"data/{key}")
        if info.file_size != count * dtype.itemsize:
            raise CheckpointError(
                f"storage {key!r} should hold {count} elements of {dtype.name}, {count * dtype.itemsize} bytes; its "
                f"record has {info.file_size}."
            )
        raw: Any
        if self.memory is not None and info.compress_type == zipfile.ZIP_STORED:
            raw = memoryview(self.memory)[start : start + info.file_size]
        else:
            raw = np.empty(info.file_size, np.uint8)
            if info.compress_type == zipfile.ZIP_STORED:
                self._read_stored(info, start, raw)
            else:
                self._read_into(info, raw)
        return host_elements(raw, dtype, count, self.byteorder)


def write_archive(file: IO[bytes], pickled: bytes, storages: Iterable[tuple[str, Any]], byteorder: bool = True) -> None:
    """Write a checkpoint: the pickle, and the storages' flat host arrays by key, each at a multiple of 64 bytes."""
    with zipfile.ZipFile(file, "w") as archive:

        def record(name: str, content: Any) -> None:
            info = zipfile.ZipInfo(f"archive/{name}")
            view = memoryview(content).cast("B") if len(content) else memoryview(b"")
            info.file_size = len(view)
            wide = info.file_size * 1.05 > zipfile.ZIP64_LIMIT  # the rule by which zipfile writes a longer header
            begin = file.tell() + _LOCAL_HEADER.size + len(info.filename) + (20 if wide else 0) + 4
            padding = -begin % _ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
            with archive.open(info, "w") as target:
                target.write(view)

        record("data.pkl", pickled)
        record(".format_version", b"1")
        record(".storage_alignment", str(_ALIGNMENT).encode())
        if byteorder:
            record("byteorder", sys.byteorder.encode())
        for key, flat in storages:
            record(f"data/{key}", flat.view(np.uint8))
        record("version", b"3\n")
