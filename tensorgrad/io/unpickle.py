"""A reader of pickles that runs nothing: an interpreter of the opcodes with an allow-list of what may be built.

A pickle is a program. Python's own reader calls whatever the file names; this one looks every name up in a table that
the caller gives, builds only what stands there, and keeps the cost of reading in proportion to the file's length:
containers that are copied, keys that must be hashed and integers that must be parsed are all counted.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

from ..errors import TensorgradError

__all__ = ["CheckpointError", "TruncatedError", "Unpickler"]


class CheckpointError(TensorgradError, pickle.UnpicklingError, RuntimeError):
    """Raised for a checkpoint that is damaged, lies about its content, or asks for more than data."""


class TruncatedError(CheckpointError, EOFError):
    """Raised for a checkpoint that ends too early."""


_KEY_PARTS = 1000
_MARKS = 10000

# What damaged bytes make of honest code; each becomes a CheckpointError.
_DAMAGE = (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, struct.error)


class Unpickler:
    """Reads one pickle after another from ``content``.

    Args:
        content: the bytes of the file, or a memoryview of them.
        find: ``find(module, name)`` gives what a name stands for; raises CheckpointError for those not allowed.
        call: ``call(function, args, unpickler)`` builds an object from what ``find`` gave; raises likewise.
        new: ``new(cls, args, kwargs)`` makes an empty object of a class that ``find`` gave.
        build: ``build(object, state)`` gives an object its state.
        persistent: ``persistent(id)`` gives what is stored outside of the pickle.
        encoding, errors: how strings of Python 2 are decoded; ``encoding="bytes"`` keeps them.
    """

    def __init__(
        self,
        content: bytes | memoryview,
        *,
        find: Callable[[str, str], Any],
        call: Callable[[Any, tuple[Any, ...], Unpickler], Any],
        new: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
        build: Callable[[Any, Any], None],
        persistent: Callable[[Any], Any],
        encoding: str = "utf-8",
        errors: str = "strict",
    ):
        self.content = memoryview(content)
        self.position = 0
        self.find, self.call, self.new, self.build, self.persistent = find, call, new, build, persistent
        self.encoding, self.errors = encoding, errors
        self.budget = 65536 + 16 * len(self.content)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.outside = False

    def load(self) -> Any:
        """The object of the pickle at ``position``, which moves behind it.

        Raises: TruncatedError if the bytes end first; CheckpointError for anything else that is wrong.
        """
        self.stack, self.below, self.memo = [], [], {}
        content, opcodes, size = self.content, _OPCODES, len(self.content)
        try:
            while True:
                if self.position >= size:
                    raise TruncatedError("the pickle ends before its STOP: the file is empty or cut off.")
                code = content[self.position]
                self.position += 1
                if code == _STOP:
                    if self.below or len(self.stack) != 1:
                        raise CheckpointError("the pickle stops with other than one object on its stack.")
                    return self.stack.pop()
                step = opcodes.get(code)
                if step is None:
                    name = f"opcode {code:#04x} at byte {self.position - 1}"
                    raise CheckpointError(f"{name} is not one that a checkpoint needs; it is refused.")
                step(self)
        except TensorgradError:
            raise
        except _DAMAGE as error:
            if self.outside:
                raise
            raise CheckpointError(
                f"the pickle is damaged at byte {self.position - 1}: {type(error).__name__}: {error}"
            ) from None

    def spend(self, count: int) -> None:
        """Account for ``count`` elements that are copied. Raises CheckpointError when a file asks for far too many."""
        self.budget -= count
        if self.budget < 0:
            raise CheckpointError("the pickle copies its containers so often that it can only mean to fill the memory.")

    # --- reading

    def take(self, count: int) -> memoryview:
        start, end = self.position, self.position + count
        if count < 0 or end > len(self.content):
            raise TruncatedError(f"the pickle asks for {count} bytes where {len(self.content) - start} are left.")
        self.position = end
        return self.content[start:end]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """A text up to the next line feed; names are short, so that the search is too."""
        piece = bytes(self.content[self.position : self.position + 1024])
        end = piece.find(b"\n")
        if end < 0:
            raise CheckpointError("a name in the pickle has no end within 1024 bytes.")
        self.position += end + 1
        return piece[:end].decode("utf-8")

    def text(self, size: int) -> str:
        return str(self.take(size), "utf-8", "surrogatepass")

    def old_text(self, size: int) -> str | bytes:
        raw = bytes(self.take(size))
        return raw if self.encoding == "bytes" else raw.decode(self.encoding, self.errors)

    # --- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.below) > _MARKS:
            raise CheckpointError(f"the pickle nests its containers more than {_MARKS} deep.")
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self.memo[index])

    # --- containers

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise CheckpointError(f"the pickle sets items of a {type(target).__name__}; only a dict takes them.")
        if len(items) % 2:
            raise CheckpointError("the pickle gives a key without a value.")
        for i in range(0, len(items), 2):
            self.check_key(items[i])
            target[items[i]] = items[i + 1]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise CheckpointError(f"the pickle appends to a {type(target).__name__}; only a list takes that.")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise CheckpointError(f"the pickle adds elements to a {type(target).__name__}; only a set takes them.")
        for item in items:
            self.check_key(item)
            target.add(item)

    def check_key(self, key: Any) -> None:
        """Raises CheckpointError for a key whose hash could cost more than reading it: deep, shared or huge."""
        if isinstance(key, (str, bytes, float, bool)) or key is None:
            return
        waiting, seen = [key], 0
        while waiting:
            part = waiting.pop()
            seen += 1
            if isinstance(part, (tuple, frozenset)):
                waiting.extend(part)
            elif isinstance(part, int) and part.bit_length() > 64:
                raise CheckpointError("the pickle uses an integer of more than 64 bits as a key.")
            if seen + len(waiting) > _KEY_PARTS:
                raise CheckpointError(f"the pickle uses a key of more than {_KEY_PARTS} parts.")
        self.spend(seen - 1)

    # --- names and objects

    def global_(self) -> None:
        module = self.line()
        self.push(self.find(module, self.line()))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError("the pickle names something by other than text.")
        self.push(self.find(module, name))

    def reduce(self) -> None:
        args = self.stack.pop()
        self.push(self.call(self.stack.pop(), _arguments(args), self))

    def new_object(self) -> None:
        args = self.stack.pop()
        self.push(self.new(self.stack.pop(), _arguments(args), {}))

    def new_object_ex(self) -> None:
        kwargs, args = self.stack.pop(), self.stack.pop()
        if not isinstance(kwargs, dict):
            raise CheckpointError("the pickle gives keyword arguments that are no dict.")
        self.push(self.new(self.stack.pop(), _arguments(args), kwargs))

    def build_object(self) -> None:
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def stored(self) -> None:
        pid = self.stack.pop()
        self.outside = True  # errors from here on are the caller's: of map_location, or of its devices
        self.push(self.persistent(pid))
        self.outside = False

    def protocol(self) -> None:
        version = self.number(1)
        if version > 5:
            raise CheckpointError(f"pickle protocol {version} is not known; 5 is the newest.")


def _arguments(args: Any) -> tuple[Any, ...]:
    if not isinstance(args, tuple):
        raise CheckpointError(f"the pickle calls with a {type(args).__name__} where a tuple of arguments belongs.")
    return args


def _frozen(self: Unpickler) -> None:
    items = self.since_mark()
    for item in items:
        self.check_key(item)
    self.push(frozenset(items))


def _last(self: Unpickler, count: int) -> None:
    items = tuple(self.stack[-count:])
    if len(items) != count:
        raise CheckpointError(f"the pickle makes a tuple of {count} from {len(items)} objects.")
    self.stack[-count:] = [items]


def _dict(self: Unpickler) -> None:
    items = self.since_mark()
    self.push({})
    self.set_items(items)


def _pop(self: Unpickler) -> None:
    if self.stack:
        self.stack.pop()
    else:
        self.since_mark()


_STOP = ord(".")
_OPCODES: dict[int, Callable[[Unpickler], Any]] = {
    op[0]: step
    for op, step in {
        pickle.PROTO: Unpickler.protocol,
        pickle.FRAME: lambda self: self.take(8),
        pickle.MARK: Unpickler.mark,
        pickle.POP: _pop,
        pickle.POP_MARK: Unpickler.since_mark,
        pickle.DUP: lambda self: self.push(self.stack[-1]),
        pickle.NONE: lambda self: self.push(None),
        pickle.NEWTRUE: lambda self: self.push(True),
        pickle.NEWFALSE: lambda self: self.push(False),
        pickle.BININT: lambda self: self.push(int.from_bytes(self.take(4), "little", signed=True)),
        pickle.BININT1: lambda self: self.push(self.number(1)),
        pickle.BININT2: lambda self: self.push(self.number(2)),
        pickle.LONG1: lambda self: self.push(int.from_bytes(self.take(self.number(1)), "little", signed=True)),
        pickle.LONG4: lambda self: self.push(int.from_bytes(self.take(self.number(4)), "little", signed=True)),
        pickle.BINFLOAT: lambda self: self.push(struct.unpack(">d", self.take(8))[0]),
        pickle.SHORT_BINSTRING: lambda self: self.push(self.old_text(self.number(1))),
        pickle.BINSTRING: lambda self: self.push(self.old_text(self.number(4))),
        pickle.SHORT_BINUNICODE: lambda self: self.push(self.text(self.number(1))),
        pickle.BINUNICODE: lambda self: self.push(self.text(self.number(4))),
        pickle.BINUNICODE8: lambda self: self.push(self.text(self.number(8))),
        pickle.SHORT_BINBYTES: lambda self: self.push(bytes(self.take(self.number(1)))),
        pickle.BINBYTES: lambda self: self.push(bytes(self.take(self.number(4)))),
        pickle.BINBYTES8: lambda self: self.push(bytes(self.take(self.number(8)))),
        pickle.BYTEARRAY8: lambda self: self.push(bytearray(self.take(self.number(8)))),
        pickle.EMPTY_TUPLE: lambda self: self.push(()),
        pickle.TUPLE1: lambda self: _last(self, 1),
        pickle.TUPLE2: lambda self: _last(self, 2),
        pickle.TUPLE3: lambda self: _last(self, 3),
        pickle.TUPLE: lambda self: self.push(tuple(self.since_mark())),
        pickle.EMPTY_LIST: lambda self: self.push([]),
        pickle.LIST: lambda self: self.push(self.since_mark()),
        pickle.APPEND: lambda self: self.append([self.stack.pop()]),
        pickle.APPENDS: lambda self: self.append(self.since_mark()),
        pickle.EMPTY_DICT: lambda self: self.push({}),
        pickle.DICT: _dict,
        pickle.SETITEM: lambda self: self.set_items([self.stack.pop(), self.stack.pop()][::-1]),
        pickle.SETITEMS: lambda self: self.set_items(self.since_mark()),
        pickle.EMPTY_SET: lambda self: self.push(set()),
        pickle.ADDITEMS: lambda self: self.add(self.since_mark()),
        pickle.FROZENSET: _frozen,
        pickle.BINGET: lambda self: self.recall(self.number(1)),
        pickle.LONG_BINGET: lambda self: self.recall(self.number(4)),
        pickle.BINPUT: lambda self: self.remember(self.number(1)),
        pickle.LONG_BINPUT: lambda self: self.remember(self.number(4)),
        pickle.MEMOIZE: lambda self: self.remember(len(self.memo)),
        pickle.GLOBAL: Unpickler.global_,
        pickle.STACK_GLOBAL: Unpickler.stack_global,
        pickle.REDUCE: Unpickler.reduce,
        pickle.NEWOBJ: Unpickler.new_object,
        pickle.NEWOBJ_EX: Unpickler.new_object_ex,
        pickle.BUILD: Unpickler.build_object,
        pickle.BINPERSID: Unpickler.stored,
    }.items()
}
