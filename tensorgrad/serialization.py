"""``save`` and ``load``: files that PyTorch reads, and PyTorch's files, with no PyTorch here.

By default nothing in a file is run: ``load`` interprets the pickle itself and builds only tensors, containers, numbers
and what ``add_safe_globals`` allowed (``tensorgrad.io.unpickle`` and ``allowed``). Only ``weights_only=False`` lets a
file name any function, as Python's own pickle does: for files whose maker you trust.
"""

from __future__ import annotations

import importlib
import io as _io
import mmap as _mmap
import os
import pickle
import struct
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

from .errors import missing_from
from .io import allowed
from .io.archive import Archive, write_archive
from .io.atomic import atomic_file
from .io.pickler import TensorPickler
from .io.storage import Storage, StorageType, host_elements, restore_location
from .io.unpickle import CheckpointError, TruncatedError, Unpickler

__all__ = [
    "CheckpointError", "add_safe_globals", "clear_safe_globals", "get_safe_globals",
    "get_unsafe_globals_in_checkpoint", "load", "remove_safe_globals", "safe_globals", "save",
]  # fmt: skip

_MAGIC = 0x1950A86A20F9469CFC6C  # PyTorch's mark of its stream format
_VERSION = 1001
_DEFAULT_PROTOCOL = 2
_SIZE = struct.Struct("<q")


# --- what may be built


def add_safe_globals(safe_globals: Iterable[Any]) -> None:
    """Let ``load(..., weights_only=True)`` call these functions and make objects of these classes.

    Args:
        safe_globals: functions and classes, or pairs (function or class, the dotted name that files give it).
    Raises: TypeError for anything else.
    """
    for entry in safe_globals:
        target, name = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, None)
        if not callable(target) or not isinstance(name, (str, type(None))):
            raise TypeError(f"add_safe_globals: expected functions, classes or (one, name) pairs, got {entry!r}.")
        allowed.SAFE[name or allowed.qualified_name(target)] = target


def get_safe_globals() -> list[Any]:
    """What ``add_safe_globals`` added."""
    return [
        target if name == allowed.qualified_name(target) else (target, name) for name, target in allowed.SAFE.items()
    ]


def remove_safe_globals(safe_globals: Iterable[Any]) -> None:
    """Take back what ``add_safe_globals`` added."""
    for entry in safe_globals:
        target, name = entry if isinstance(entry, tuple) else (entry, None)
        allowed.SAFE.pop(name or allowed.qualified_name(target), None)


def clear_safe_globals() -> None:
    """Take back everything that ``add_safe_globals`` added."""
    allowed.SAFE.clear()


class safe_globals:
    """``with safe_globals([MyClass]): load(f)`` allows the classes within the block."""

    def __init__(self, safe_globals: Iterable[Any]):
        self._added = list(safe_globals)

    def __enter__(self) -> None:
        self._before = dict(allowed.SAFE)
        add_safe_globals(self._added)

    def __exit__(self, *error: Any) -> None:
        allowed.SAFE.clear()
        allowed.SAFE.update(self._before)


# --- saving


def save(
    obj: object,
    f: str | os.PathLike[str] | IO[bytes],
    pickle_module: Any = pickle,
    pickle_protocol: int = _DEFAULT_PROTOCOL,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Write an object to a file that ``load`` and ``torch.load`` read.

    Tensors that are views of the same memory are written once and share it again when loaded. Objects of classes,
    whole modules among them, are written by their class's name: to read them takes that class and
    ``load(..., weights_only=False)``; state dicts need neither. A file at a path is replaced at once, or not at all.

    Args:
        obj: tensors, and containers, numbers, texts, dtypes, devices, generators, modules ... that hold them.
        f: a path, or a binary file object.
        pickle_module: Python's ``pickle``; others are refused.
        pickle_protocol: 2 for files that PyTorch reads with ``weights_only``.
        _use_new_zipfile_serialization: False writes the stream that PyTorch wrote before 1.6.
        _disable_byteorder_record: leave out the word about the byte order.
    Raises: FolderMissing if the path's folder does not exist; ValueError for another pickle module or protocol;
        pickle.PicklingError or TypeError for objects that can't be pickled.
    Example:
        >>> import io
        >>> import tensorgrad as tg
        >>> file = io.BytesIO()
        >>> tg.save({"weight": tg.ones(2)}, file)
        >>> _ = file.seek(0)
        >>> tg.load(file)["weight"].tolist()
        [1.0, 1.0]
    """
    if pickle_module is not pickle:
        raise ValueError("save: pickle_module must be Python's pickle.")
    if not isinstance(pickle_protocol, int) or not 2 <= pickle_protocol <= pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"save: pickle_protocol must be 2 to {pickle.HIGHEST_PROTOCOL}, got {pickle_protocol!r}.")
    buffer = _io.BytesIO()
    pickler = TensorPickler(buffer, pickle_protocol, legacy=not _use_new_zipfile_serialization)
    pickler.dump(obj)
    content = buffer.getvalue()
    with _opened(f) as file:
        if _use_new_zipfile_serialization:
            write_archive(file, content, pickler.storages.items(), not _disable_byteorder_record)
        else:
            _write_stream(file, content, pickler.storages, pickle_protocol)


def _opened(f: Any) -> AbstractContextManager[IO[bytes]]:
    if isinstance(f, (str, os.PathLike)):
        return atomic_file(f)
    if not hasattr(f, "write"):
        raise AttributeError(f"save: expected a path or a binary file object, got {type(f).__name__}.")
    return nullcontext(f)


def _write_stream(file: IO[bytes], content: bytes, storages: dict[str, Any], protocol: int) -> None:
    facts = {
        "protocol_version": _VERSION,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    for part in (_MAGIC, _VERSION, facts):
        pickle.dump(part, file, protocol)
    file.write(content)
    pickle.dump(sorted(storages), file, protocol)
    for key in sorted(storages):
        flat = storages[key]
        little = flat if flat.dtype.kind == "V" else flat.astype(flat.dtype.newbyteorder("<"), copy=False)
        file.write(_SIZE.pack(flat.size))
        file.write(little.view("u1"))


# --- loading


def load(
    f: str | os.PathLike[str] | IO[bytes],
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
) -> Any:
    """The object in a file that ``save`` or ``torch.save`` wrote; no PyTorch is needed.

    Args:
        f: a path, or a seekable binary file object.
        map_location: where tensors go: a device or its name, a dict from the file's places to others, or a function
            ``f(storage, location)`` that returns the storage, moved or not, or None; the file's own places by default.
        pickle_module: None or Python's ``pickle``; others are refused.
        weights_only: True (and the default): nothing in the file is run; what is not on the allow-list or in
            ``add_safe_globals`` raises. False: **the file may run any code**; use it only if you trust whoever made it.
            Names of PyTorch's classes then stand for tensorgrad's. The environment changes it as in PyTorch:
            ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` makes False the default, ``TORCH_FORCE_WEIGHTS_ONLY_LOAD=1`` makes
            every call one with True.
        mmap: map a zip file at a path into memory: elements are read when first used, and writing to a tensor copies.
        encoding, errors: how texts of Python 2 are decoded.
    Raises: FileNotFoundError; CheckpointError (a pickle.UnpicklingError and a RuntimeError) for a damaged file, one
        that names what is not allowed, or one that lies about its content; DeviceError for a device that is not here;
        DTypeError for dtypes that only PyTorch has.
    """
    if pickle_module is not None and pickle_module is not pickle:
        raise ValueError("load: pickle_module must be Python's pickle, or None.")
    if weights_only not in (None, True, False):
        raise TypeError(f"load: weights_only must be a bool, got {weights_only!r}.")
    return _from(f, _How(map_location, _data_alone(weights_only), encoding, errors), mmap)


def _data_alone(weights_only: bool | None) -> bool:
    """Whether nothing of a file may run: what the call says, and what the environment says of all calls."""
    always, by_default = (
        os.environ.get(name, "0") in ("1", "y", "yes", "true")
        for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    )
    if always and by_default:
        raise CheckpointError(
            "load: only one of TORCH_FORCE_WEIGHTS_ONLY_LOAD and TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD may be set."
        )
    return always or (not by_default if weights_only is None else weights_only)


def load_storage(f: IO[bytes]) -> Storage:
    """The bare storage that a file holds: what pickles of PyTorch's tensors are made of."""
    found = _from(f, _How(None, True, "utf-8", "strict", bare=True), False)
    if not isinstance(found, Storage):
        raise CheckpointError("the bytes hold no storage.")
    return found


def get_unsafe_globals_in_checkpoint(f: str | os.PathLike[str] | IO[bytes]) -> list[str]:
    """The names in a file that ``load(f, weights_only=True)`` refuses, sorted; nothing of it is run or built."""
    names: set[str] = set()

    def note(module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in allowed.SAFE and allowed.find_known(module, name) is None:
            names.add(full)
        return full

    _from(f, _Names(note), False)
    return sorted(names)


def _from(f: Any, how: _How, mmap: bool | None) -> Any:
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            return _load(file, how, bool(mmap), True)
    if not all(hasattr(f, name) for name in ("read", "seek", "tell")):
        raise AttributeError(
            f"load: expected a path or a seekable binary file, got {type(f).__name__}; read it into an io.BytesIO."
        )
    if mmap:
        raise ValueError("load: f must be a path in order to use mmap=True.")
    return _load(f, how, False, False)


class _How:
    """What ``load`` was asked."""

    def __init__(self, map_location: Any, weights_only: bool, encoding: str, errors: str, bare: bool = False):
        self.bare = bare  # whether a storage without a tensor is an answer
        self.map_location = map_location
        self.weights_only = weights_only
        self.encoding = encoding
        self.errors = errors

    def reader(self, content: Any, persistent: Callable[[Any], Any]) -> Any:
        """Something with ``load()`` and ``position`` that reads pickles."""
        if self.weights_only:
            return Unpickler(
                content, find=allowed.find, call=allowed.call, new=allowed.new, build=allowed.build,
                persistent=persistent, encoding=self.encoding, errors=self.errors,
            )  # fmt: skip
        return _Trusting(content, persistent, self.encoding, self.errors)


class _NamesAlone(Unpickler):
    """Objects stay empty: what is put into them would need what they are."""

    def set_items(self, items: list[Any]) -> None:
        pass

    def append(self, items: list[Any]) -> None:
        pass

    def add(self, items: list[Any]) -> None:
        pass


class _Names(_How):
    """Reads for the names alone: what they stand for is not built."""

    def __init__(self, note: Callable[[str, str], Any]):
        super().__init__("cpu", True, "utf-8", "strict", bare=True)
        self.note = note

    def reader(self, content: Any, persistent: Callable[[Any], Any]) -> Any:
        return _NamesAlone(
            content, find=self.note, call=lambda function, args, reader: {}, new=lambda cls, args, kwargs: {},
            build=lambda obj, state: None, persistent=lambda pid: None,
        )  # fmt: skip


class _Trusting:
    """Python's own reader, for files that may run code."""

    def __init__(self, content: Any, persistent: Callable[[Any], Any], encoding: str, errors: str):
        self.file = _io.BytesIO(content)
        self.encoding, self.errors = encoding, errors
        self.persistent = persistent

    @property
    def position(self) -> int:
        return self.file.tell()

    @position.setter
    def position(self, value: int) -> None:
        self.file.seek(value)

    def load(self) -> Any:
        reader = _NamesOfTorch(self.file, encoding=self.encoding, errors=self.errors)
        reader.persistent = self.persistent
        try:
            return reader.load()
        except EOFError as error:
            raise TruncatedError(f"the pickle ends too early: {error}") from None


class _NamesOfTorch(pickle.Unpickler):
    persistent: Callable[[Any], Any]

    def persistent_load(self, pid: Any) -> Any:
        return self.persistent(pid)

    def find_class(self, module: str, name: str) -> Any:
        found = allowed.find_known(module, name) if module.partition(".")[0] == "torch" else None
        if found is not None:
            return found
        full = f"{module}.{name}"
        if full in allowed.SAFE:
            return allowed.SAFE[full]
        if module.partition(".")[0] != "torch":
            return super().find_class(module, name)
        return _counterpart(module, name)


_RENAMED = {"NonDynamicallyQuantizableLinear": "Linear"}  # PyTorch's classes that differ in nothing that is here


def _counterpart(module: str, name: str) -> Any:
    """What tensorgrad has under a name of PyTorch, whose modules lie deeper: nn.modules.linear.Linear is nn.Linear."""
    name = _RENAMED.get(name, name)
    parts = module.split(".")[1:]
    while True:
        path = ".".join((__package__, *parts))
        try:
            place = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise
        else:
            found: Any = place
            for attribute in name.split("."):
                found = getattr(found, attribute, None)
            if found is not None:
                return found
        if not parts:
            raise CheckpointError(f"the file needs {module}.{name}, which tensorgrad does not have.")
        parts.pop()


def _load(file: IO[bytes], how: _How, mapped: bool, real: bool) -> Any:
    begin = file.tell()
    first = file.read(4)
    file.seek(begin)
    if first == b"PK\x03\x04":
        return _load_archive(file, how, mapped)
    if mapped:
        raise CheckpointError("mmap=True reads zip archives only; this file is none. Save it again, or leave mmap out.")
    if not first:
        raise TruncatedError("Ran out of input: the file is empty.")
    if real:
        content: Any = _mmap.mmap(file.fileno(), 0, access=_mmap.ACCESS_READ)
        view = memoryview(content)
    else:
        view = memoryview(file.read())
    return _load_stream(view, how)


def _parsed(pid: Any, legacy: bool) -> tuple[Any, str, str, int]:
    """(dtype, key, location, number of elements) of a storage. Raises CheckpointError for what is none."""
    if not isinstance(pid, tuple) or len(pid) != (6 if legacy else 5) or pid[0] != "storage":
        kind = pid[0] if isinstance(pid, tuple) and pid and isinstance(pid[0], str) else type(pid).__name__
        raise CheckpointError(f"the pickle refers to a {kind} outside of it; only storages are read.")
    kind, key, location, count = pid[1:5]
    if not isinstance(kind, StorageType):
        raise CheckpointError("a storage's type is none; untyped storages hold dtypes that tensorgrad does not have.")
    if not isinstance(key, str) or not isinstance(location, str) or type(count) is not int or not 0 <= count < 2**62:
        raise CheckpointError("a storage's key, location or number of elements is none.")
    return kind.dtype, key, location, count


class _Storages:
    """The storages of one file, made when the pickle first refers to them."""

    def __init__(self, how: _How, legacy: bool):
        self.how = how
        self.legacy = legacy
        self.found: dict[str, Storage] = {}

    def __call__(self, pid: Any) -> Storage:
        dtype, key, location, count = _parsed(pid, self.legacy)
        if self.legacy and pid[5] is not None:
            raise CheckpointError(
                "the file has views of storages as PyTorch wrote them before 0.4; save it anew there."
            )
        storage = self.found.get(key)
        if storage is None:
            storage = self.found[key] = Storage(dtype, count, location)
            restore_location(storage, self.how.map_location)
            self.fetch(key, storage)
        elif storage.dtype is not dtype or storage.size() != count:
            raise CheckpointError(f"storage {key!r} is of two dtypes or sizes.")
        return storage

    def fetch(self, key: str, storage: Storage) -> None:
        raise NotImplementedError

    def check_used(self) -> None:
        if not self.how.bare and not all(storage.used for storage in self.found.values()):
            raise CheckpointError("the file has a bare storage; tensorgrad has tensors only. Save a tensor of it.")


class _Records(_Storages):
    def __init__(self, how: _How, archive: Archive):
        super().__init__(how, legacy=False)
        self.archive = archive

    def fetch(self, key: str, storage: Storage) -> None:
        storage.fill(self.archive.elements(key, storage.dtype, storage.size()))


def _load_archive(file: IO[bytes], how: _How, mapped: bool) -> Any:
    archive = Archive(file, mapped)
    storages = _Records(how, archive)
    result = how.reader(archive.read("data.pkl"), storages).load()
    storages.check_used()
    return result


class _Pending(_Storages):
    """Storages whose elements follow the pickle: memory is set aside, and never more than the file can fill."""

    def __init__(self, how: _How, left: int):
        super().__init__(how, legacy=True)
        self.left = left

    def fetch(self, key: str, storage: Storage) -> None:
        self.left -= storage.nbytes()
        if self.left < 0:
            raise TruncatedError(f"storage {key!r} of {storage.nbytes()} bytes is more than the file has left.")
        storage.array = host_elements(bytearray(storage.nbytes()), storage.dtype, storage.size(), "little")


def _load_stream(content: memoryview, how: _How) -> Any:
    """The format before PyTorch 1.6: a mark, a version, facts, the object, the keys of its storages, their elements."""
    reader = Unpickler(
        content, find=_no_names, call=allowed.call, new=allowed.new, build=allowed.build, persistent=_no_storages
    )
    if bytes(content[257:262]) == b"ustar":
        raise CheckpointError("the file is a tar archive as PyTorch wrote them before 0.1.10; save it anew there.")
    if content[0] != pickle.PROTO[0] or reader.load() != _MAGIC:
        raise CheckpointError("the file is neither a zip archive nor a stream that torch.save wrote.")
    version, facts = reader.load(), reader.load()
    if version != _VERSION:
        raise CheckpointError(f"the file's version is {version!r}; {_VERSION} is known.")
    if not isinstance(facts, dict) or facts.get("little_endian", True) is not True:
        raise CheckpointError(
            "the file was written on a big-endian machine, in a format that is read as little-endian."
        )
    begin = reader.position
    pending = _Pending(how, len(content) - begin)
    result, position = _read_at(how, content, begin, pending)
    reader.position = position
    keys = reader.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise CheckpointError("the file's list of storages is none.")
    if isinstance(how, _Names):
        return result
    if set(keys) != set(pending.found):
        raise CheckpointError("the file's list of storages is not that of its tensors.")
    pending.check_used()
    position = reader.position
    for key in keys:
        storage = pending.found[key]
        end = position + _SIZE.size + storage.nbytes()
        if end > len(content):
            raise TruncatedError(f"the file ends before the elements of storage {key!r}.")
        (count,) = _SIZE.unpack_from(content, position)
        if count != storage.size():
            raise CheckpointError(f"storage {key!r} has {count} elements where its tensors say {storage.size()}.")
        elements = host_elements(content[position + _SIZE.size : end], storage.dtype, count, "little")
        if storage.size():
            storage.array[...] = elements
        position = end
    if all(storage.device.type == "cpu" and not storage.read_early for storage in pending.found.values()):
        return result
    # Tensors were made before their elements were read. Now that these are here, make the tensors again.
    for storage in pending.found.values():
        storage.fill(storage.array)
    return _read_at(how, content, begin, pending)[0]


def _read_at(how: _How, content: memoryview, position: int, persistent: Callable[[Any], Any]) -> tuple[Any, int]:
    reader = how.reader(content, persistent)
    reader.position = position
    return reader.load(), reader.position


def _no_names(module: str, name: str) -> Any:
    raise CheckpointError(f"the head of the file names {module}.{name}; it holds numbers and texts only.")


def _no_storages(pid: Any) -> Any:
    raise CheckpointError("the head of the file refers to storages.")


__getattr__ = missing_from("torch.serialization")
