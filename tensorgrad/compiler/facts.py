"""``Facts``: what a program rests on, and whether it is still so: this dictionary holds this object under this key,
this tensor has this array, this container has so many entries.
"""

from __future__ import annotations

import array
import ctypes
import functools
import gc
import math
import mmap
import threading
import types
import weakref
from contextvars import Context, ContextVar
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..core import native
from ..tensor import Tensor

__all__ = ["BUFFERS", "PLAIN", "Facts", "Form", "elements", "get", "gone", "kept_by", "short", "state_of"]

PLAIN = (int, float, complex, str, bytes, bool, type(None))
BUFFERS: tuple[Any, ...] = (bytearray, memoryview, array.array, mmap.mmap, ctypes.c_int.__mro__[-2])
_TOLD = (types.FunctionType, functools.partial)
gone = NotImplemented  # what stands for nothing: also in C
_MOST = 10_000  # entries of a large array that are compared
_MOST_BYTES = 1 << 23  # of a NumPy array that is compared as a whole
_IN_PLACE = "copy_() would change the tensor that is there, and be repeated in replays"


class Form:
    """Settings of a group that decide which calls a step makes; those that a step reads anew may change."""

    def __init__(self, path: str, optimizer: Any, group: dict[str, Any]):
        self.path = path
        self.optimizer = optimizer
        self.group = group
        self.form = optimizer.form(group)
        self.settings = list(group.values())  # of the last time that the form was asked for

    def holds(self) -> bool:
        if not equal(self.optimizer.form(self.group), self.form):
            return False
        self.settings = list(self.group.values())
        return True


class Facts:
    """``facts``: (path, holder, key, value); ``sizes``: (path, container, its length); ``forms``: of optimizers;
    ``wholes``: (path, list or dict, the keys of a dict in their order, all entries of a large one, else none);
    ``data``: (path, tensor, array, whether it requires grad, hooks, others, how many attributes somebody has given it);
    ``copies``: (path, what has no keys to ask for, its elements); ``sources``: (name, generator that is not ours, its
    state); ``modules``: identities of attributes of modules, whose mode a run may set.

    ``packed``: for C, once all are known.
    """

    def __init__(self) -> None:
        self.facts: list[tuple[str, Any, Any, Any]] = []
        self.sizes: list[tuple[str, Any, int]] = []
        self.wholes: list[tuple[str, Any, tuple[Any, ...], tuple[Any, ...]]] = []
        self.forms: list[Form] = []
        self.data: list[tuple[str, Tensor, Any, bool, Any, Any, int]] = []
        self.copies: list[tuple[str, Any, Any]] = []
        self.sources: list[tuple[str, Any, str]] = []
        self.modules: set[int] = set()
        self.optimizer_paths: list[str] = []
        self.unloaded: list[tuple[str, dict[str, Any], set[str]]] = []  # of modules, names that may come at their use
        self.packed: Any = None

    def learn(self, facts: list[tuple[str, Any, Any, Any]], copies: list[tuple[str, Any, Any]]) -> None:
        """These are facts and copies too, which a run has come across."""
        if facts or copies:
            self.facts += facts
            self.copies += copies
            self.pack()

    def pack(self) -> None:
        """Hand the facts to C."""
        if native is not None:
            self.packed = native.facts(self.data, self.facts, self.sizes, self.wholes)

    def holds(self) -> bool:
        """Whether all facts hold."""
        if native is None:
            return self.changed() is None
        if not native.holds(self.packed, self.forms):
            return False
        return all(equal(elements(what), seen) for _, what, seen in self.copies)

    def moved(self) -> str | None:
        """In words, what a run has changed of all this, or drawn elsewhere; None if nothing. Modes of modules aside:
        a replay sets them too."""
        for name, source, before in self.sources:
            if repr(state_of(source)) != before:
                return f"it draws numbers from {name}, which would be the same ones in each replay"
        for form in self.forms:
            for (name, now), then in zip(form.group.items(), form.settings, strict=False):
                if now is not then and not equal(now, then):
                    return f"{form.path}[{name!r}] was {short(then)} and is {short(now)}"
        for path, attributes, names in self.unloaded:
            if not names.isdisjoint(attributes):
                return f"{path}.{min(names & attributes.keys())} was loaded"
        return self.changed(set_again=True)

    def modes(self) -> list[tuple[dict[str, Any], bool, bool]]:
        """Where modules train, or not, otherwise than a run has found: (attributes, before, now)."""
        found = {}
        for _, holder, key, value in self.facts:
            if self._is_mode(holder, key, value) and self._is_mode(holder, key, now := holder[key]) and now != value:
                found[id(holder)] = (holder, value, now)
        return list(found.values())

    def _is_mode(self, holder: Any, key: Any, value: Any) -> bool:
        return key == "training" and type(value) is bool and id(holder) in self.modules

    def is_of_optimizer(self, trouble: str) -> bool:
        """Whether what ``moved`` found is an optimizer's own state, which a step may make anew at any time."""
        return self.place_of(trouble) is not None

    def place_of(self, trouble: str) -> str | None:
        """Where ``moved`` found an optimizer's own state to be another; None if that is not what it found."""
        if not any(trouble.startswith(f"{path}.state") for path in self.optimizer_paths):
            return None
        return trouble.partition(" was ")[0].partition(" had ")[0]

    def replaced(self) -> list[tuple[str, Any, Any, Any, Any]]:
        """The facts that no longer hold, if nothing else has changed: (path, holder, key, what was there, what is)."""
        found = [(*fact, get(fact[1], fact[2])) for fact in self.facts]
        found = [fact for fact in found if fact[4] is not fact[3] and not equal(fact[4], fact[3])]
        found = [fact for fact in found if not all(self._is_mode(*fact[1:3], mode) for mode in fact[3:])]
        kept, self.facts = self.facts, []
        try:
            return found if self.moved() is None else []
        finally:
            self.facts = kept

    def changed(self, *, set_again: bool = False) -> str | None:
        """In words, the first fact that no longer holds; None if all do. ``set_again``: besides modes of modules."""
        for path, tensor, data, tracked, hooks, post_hooks, attributes in self.data:
            if tensor._data is not data:
                return f"{path} has other storage: its data is set anew ({_IN_PLACE})"
            if tensor._tracked is not tracked:
                return f"{path}.requires_grad was {tracked}"
            if tensor._hooks is not hooks or tensor._post_hooks is not post_hooks:
                return f"{path} has other hooks"
            if len(tensor.__dict__) != attributes:
                return f"{path} had {attributes} attributes of its own and has {len(tensor.__dict__)}"
        for path, holder, key, value in self.facts:
            now = get(holder, key)
            if now is not value and not equal(now, value):
                if set_again and self._is_mode(holder, key, value) and self._is_mode(holder, key, now):
                    continue
                return f"{path} was {short(value)} and is {_other(value, now)}"
        for path, holder, size in self.sizes:
            if len(holder) != size:
                return f"{path} had {size} entries and has {len(holder)}"
        for path, holder, keys, entries in self.wholes:
            if keys and not equal(tuple(holder), keys):
                return f"keys of {path} changed, or their order"
            if entries and not equal(tuple(holder.values() if keys else holder), entries):
                return f"entries of {path} changed"
        for path, what, seen in self.copies:
            if not equal(elements(what), seen):
                return f"elements of {path} changed"
        for form in self.forms:
            if not form.holds():
                return f"settings of {form.path} changed"
        return None


def state_of(source: Any) -> Any:
    """The state of a generator that is not ours."""
    if isinstance(source, np.random.Generator):
        return source.bit_generator.state
    if isinstance(source, np.random.BitGenerator):
        return source.state
    if source is np.random or isinstance(source, np.random.RandomState):
        kind, words, *rest = source.get_state()
        return kind, np.asarray(words).tobytes(), rest
    return hash(source.getstate())


def get(holder: Any, key: Any) -> Any:
    if isinstance(holder, types.CellType):
        try:
            return holder.cell_contents
        except ValueError:
            return gone
    if not isinstance(holder, (dict, list, tuple, types.MappingProxyType)):
        return getattr(holder, key, gone)
    try:
        return holder[key]
    except (KeyError, IndexError):
        return gone


def elements(what: Any) -> Any:
    """What a set, a deque, a mapping that is only shown, an array, a buffer or a context's variable holds, as a tuple
    to compare; of a large array a part. Of a weak reference whether there is something still; of a queue its length;
    of a thread's own object its attributes in this thread; what a function tells."""
    if isinstance(what, weakref.ref):
        return (what() is not None,)
    if isinstance(what, ContextVar):
        return (what.get(gone),)
    if isinstance(what, Context):
        return tuple(x for pair in what.items() for x in pair)
    if isinstance(what, SimpleQueue):
        return (what.qsize(),)
    if isinstance(what, weakref.finalize):
        return (what.alive,)
    if isinstance(what, threading.local):
        return tuple(x for name, value in sorted(vars(what).items()) for x in (name, value))
    if isinstance(what, functools._lru_cache_wrapper):
        asked = what.cache_info()
        return asked.misses, asked.currsize, *kept_by(what)
    if isinstance(what, _TOLD):
        return tuple(what())
    if isinstance(what, BUFFERS):
        try:
            what = np.frombuffer(what, np.uint8)
        except ValueError:  # it was released, or closed, or has gaps
            return (bytes(what) if isinstance(what, memoryview) and _is_there(what) else gone,)
    if isinstance(what, (np.ndarray, np.generic)):
        array = np.asarray(what)
        writable = array.flags.writeable
        if array.nbytes > _MOST_BYTES:
            array = array.reshape(-1)[:: array.size // _MOST]
        return array.shape, array.dtype.str, writable, tuple(array.flat) if array.dtype.hasobject else array.tobytes()
    if isinstance(what, types.MappingProxyType):
        return tuple(x for pair in what.items() for x in pair)
    return tuple(what)


def kept_by(cached: Any) -> list[Any]:
    """The results that a function with a cache keeps, and their keys, in whatever order they were used."""
    found: list[Any] = []
    for kept in gc.get_referents(cached):
        if type(kept) is not dict:
            found.append(kept)
        elif kept is not cached.__dict__:
            found += kept.values()  # the cache, where it grows without a limit
    ours = (type, types.FunctionType)
    return sorted((x for x in found if not isinstance(x, ours) and type(x).__name__ != "_lru_list_elem"), key=id)


def _is_there(view: memoryview) -> bool:
    """Whether a view was not released."""
    try:
        return view.nbytes >= 0
    except ValueError:
        return False


def equal(a: Any, b: Any) -> bool:
    """Whether two facts are the same number, text, or tuple of such."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    if isinstance(a, complex):
        return equal(a.real, b.real) and equal(a.imag, b.imag)
    if isinstance(a, PLAIN):
        return bool(a == b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(x is y or equal(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, types.MethodType) and bool(a == b)


def _other(before: Any, now: Any) -> str:
    """What is there now, told from what was there before."""
    if now is gone:
        return "gone"
    text = short(now)
    if text != short(before):
        return text
    if isinstance(now, Tensor):
        return f"another one of that shape: it is set anew ({_IN_PLACE})"
    return "another object that reads the same"


def short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
