"""``Signature``: a call's arguments as a program sees them.

Two calls with equal keys may be served by one program, if the facts behind it hold too. ``template`` says the same for
the check that is made in C before each replay.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

import numpy as np

from ..autograd.grad_mode import state as grad_state
from ..backends import registry
from ..core import native
from ..device import Device
from ..dispatch import local
from ..dtypes import get_default_dtype
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten, tree_unflatten

__all__ = ["PLAIN", "TENSOR", "Signature", "order_seen", "owner", "switched", "switches"]

TENSOR = object()  # among leaves: the next of the tensors
PLAIN = (int, float, complex, str, bytes, bool, type(None))


class Signature:
    """``leaves``: all arguments in order, containers opened, TENSOR for each tensor; ``tensors``: these, until
    ``forget``; ``others``: what is neither a tensor nor a plain value; ``key``: all that a program freezes;
    ``shapes``: of the tensors; ``trouble``: why no program may serve the call, if so.

    ``order``: names of arguments whose order the function sees."""

    __slots__ = ("flat", "key", "leaves", "names", "others", "positional", "shapes", "spec", "tensors", "trouble")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], order: tuple[str, ...] = ()):
        leaves, self.spec = tree_flatten((args, kwargs))
        self.positional, self.names = len(args), tuple(kwargs)
        self.flat = len(leaves) == len(args) + len(kwargs)
        self.tensors: list[Tensor] = []
        self.others: list[Any] = []
        self.trouble: str | None = None
        seen: dict[int, int] = {}
        parts: list[Any] = []
        attributes: list[Any] = []  # that somebody has given a tensor
        places: list[int | None] = []  # numbers of devices
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                array = leaf._data
                first = seen.setdefault(id(array), len(self.tensors))
                self.tensors.append(leaf)
                form = type(leaf), type(array), tuple(array.shape), tuple(array.strides), array.dtype
                parts.append((*form, leaf._tracked, leaf._inference, leaf._node is None, first))
                if form[1] is not np.ndarray:
                    places.append(local.plain.of(array).backend.place_of(array))
                if leaf.__dict__:
                    attributes.append((len(parts), *self._named(leaf.__dict__)))
            elif _is_plain(leaf):
                # -0.0 is another number than 0.0, and not-a-number is not itself
                parts.append((type(leaf), leaf.hex() if type(leaf) is float else repr(leaf)))
            elif (said := _said(leaf)) is not None:
                parts.append((type(leaf), said))
            else:
                if isinstance(leaf, np.ndarray):
                    self.trouble = "an argument is a NumPy array, whose elements no program can follow: pass a tensor"
                self.others.append(leaf)
                parts.append(("object", id(leaf)))
        self.leaves = [TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.shapes = [tuple(t._data.shape) for t in self.tensors]
        self.key = (self.spec, tuple(parts), switches(), tuple(attributes), order, tuple(_keys_in(self.spec)),
                    tuple(places))  # fmt: skip

    def _named(self, attributes: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        for name, value in attributes.items():
            if not _is_plain(value):
                self.others.append(value)
            found += (name, type(value), repr(value) if _is_plain(value) else id(value))
        return found

    def forget(self) -> None:
        """Hold the call's tensors no longer: a batch is not kept alive by the program that it was the first of."""
        self.tensors = []

    def template(self, owners: dict[int, None], same: list[Any]) -> tuple[Any, ...] | None:
        """For ``native.admits``; None where only the key can tell.

        ``owners``: identities of the arrays whose memory the program writes to; ``same``: by tensor, the array that it
        must be, or None.
        """
        if native is None or not self.flat or grad_state.casting or self.key[3] or len(self.key[4]) > 1:
            return None
        leaves: list[tuple[Any, ...]] = []
        parts = self.key[1]
        arrays = iter(same)
        for leaf, part in zip(self.leaves, parts, strict=True):
            if leaf is TENSOR:
                if part[1] is not np.ndarray:
                    return None
                leaves.append((*part, next(arrays)))
            else:
                leaves.append((leaf,) if _is_plain(leaf) else (leaf, None))
        door = local.doors[np.ndarray]
        return (self.positional, self.names, tuple(leaves), owners, grad_state.recording, grad_state.inference, door)

    def stand_ins(self, reached: dict[int, Any]) -> list[Tensor]:
        """For each tensor itself, or another in its place: a leaf for one with a history, so that what the function
        records ends at its arguments; one with an array of its own for a tensor that the function also reaches by
        itself (``reached``: arrays by identity), so that the two can be told apart."""
        made: dict[int, Tensor] = {}
        for t in self.tensors:
            history = t._node is not None and grad_state.recording
            if id(t) not in made and (history or (id(t._data) in reached and not t._tracked and t._base is None)):
                leaf = made[id(t)] = wrap(t._data[...] if id(t._data) in reached else t._data)
                leaf._tracked = t._tracked
                leaf._cell = t._version_cell()
                leaf._inference = t._inference
                leaf.__dict__.update(t.__dict__)
        return [made.get(id(t), t) for t in self.tensors]

    def outside(self, tensors: list[Tensor]) -> dict[int, tuple[int, Tensor]]:
        """By the identity of a stand-in, the number of the argument and the tensor with a history that it stands
        for."""
        if not grad_state.recording:
            return {}
        pairs = enumerate(zip(tensors, self.tensors, strict=True))
        return {id(ours): (i, t) for i, (ours, t) in pairs if ours is not t and t._node is not None}

    def stood(self, tensors: list[Tensor]) -> dict[int, tuple[int, Tensor, Tensor]]:
        """By the identity of a stand-in the number of the argument, itself, and the tensor that it stands for."""
        pairs = enumerate(zip(tensors, self.tensors, strict=True))
        return {id(ours): (i, ours, t) for i, (ours, t) in pairs if ours is not t}

    def changed(self, given: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """In words, whether a run with these tensors has changed a container among its arguments; None if not."""
        leaves, spec = tree_flatten((args, kwargs))
        tensors = iter(given)
        before = [next(tensors) if leaf is TENSOR else leaf for leaf in self.leaves]
        if spec == self.spec and len(leaves) == len(before) and all(map(_is, leaves, before)):
            return None
        return (
            "compile: the function changes a list or dict that it is given. A replay runs no Python and would leave it "
            "as it is. Return what is new, or give compile(..., fallback=True)."
        )

    def hand_back(self, given: list[Tensor], ours: Any, theirs: Any) -> None:
        """What a run with these tensors has done to its own containers is done to the caller's."""
        _copy_back(ours, theirs, {id(stand_in): t for stand_in, t in zip(given, self.tensors, strict=True)})

    def arguments(self, tensors: list[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) with these tensors."""
        given = iter(tensors)
        leaves = [next(given) if leaf is TENSOR else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return args, kwargs


def order_seen(names: Iterable[str], code: CodeType | None) -> tuple[str, ...]:
    """Of the names of arguments those whose order a function sees: that take their place in its ``**kwargs``. All of
    them where the function's code is not known."""
    if code is None:
        return tuple(names)
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return ()
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return tuple(name for name in names if name not in own)


def _keys_in(spec: Any) -> Iterator[Any]:
    """The keys of dicts that are no texts, with their types: 1, 1.0 and True are one key, and not the same."""
    if isinstance(spec.context, list):
        yield from ((type(key), repr(key)) for key in spec.context if type(key) in PLAIN and type(key) is not str)
    for part in spec.children:
        yield from _keys_in(part)


def _is_plain(what: Any) -> bool:
    """Whether it is what its value says: a subclass of the user's may have attributes."""
    return type(what) in PLAIN or (isinstance(what, np.generic) and isinstance(what, PLAIN))


def _said(what: Any) -> str | None:
    """What is all that there is to say of an object that can't change; None where its identity counts."""
    kind = type(what)
    if kind is Device:
        return str(what)
    held = (what.start, what.stop, what.step) if kind is slice or kind is range else what if kind is frozenset else None
    return None if held is None or not all(type(x) in PLAIN for x in held) else repr(what)


def _is(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, PLAIN) and type(a) is type(b) and (a == b or a != a))


def _copy_back(ours: Any, theirs: Any, real: dict[int, Any]) -> Any:
    """Their container with our elements, where these differ; what belongs in it for an element of ours."""
    if isinstance(ours, Tensor):
        return real.get(id(ours), ours)
    if type(ours) is not type(theirs):
        return ours
    if isinstance(ours, dict):
        found = {key: _copy_back(value, theirs.get(key), real) for key, value in ours.items()}
        if found.keys() != theirs.keys() or any(found[key] is not theirs[key] for key in found):
            theirs.clear()
            theirs.update(found)
    elif isinstance(ours, (list, tuple)):
        parts = [_copy_back(x, theirs[i] if i < len(theirs) else None, real) for i, x in enumerate(ours)]
        if isinstance(ours, list) and (len(parts) != len(theirs) or any(map(_differ, parts, theirs))):
            theirs[:] = parts
    else:
        return theirs if isinstance(ours, PLAIN) and ours == theirs else ours
    return theirs


def _differ(a: Any, b: Any) -> bool:
    return a is not b


def owner(array: Any) -> Any:
    """The array in whose memory an array lies."""
    base = getattr(array, "base", None)
    while base is not None:  # NumPy's as_strided puts objects of its own between two arrays
        if type(base) is type(array):
            array = base
        base = getattr(base, "base", None)
    return array


def switches() -> tuple[Any, ...]:
    """What of this thread's state a program depends on."""
    cast = ""
    if grad_state.casting:
        state = sys.modules["tensorgrad.amp.casting"].state
        cast = repr((state.enabled, state.dtypes, state.cache_enabled))
    door = id(local.doors.get(np.ndarray))
    return grad_state.recording, grad_state.inference, get_default_dtype().name, door, cast, registry.current_places()


def switched(before: tuple[Any, ...], *, heard: bool = False) -> str | None:
    """In words, which of ``switches`` a run has left otherwise than it was before; None if none. ``heard``: somebody is
    told of the calls now, by doors of his own."""
    recording, inference, dtype, door, cast, places = switches()
    for what, then, now in (
        ("whether gradients are recorded", before[0], recording),
        ("whether inference mode is on", before[1], inference),
        ("the default dtype", before[2], dtype),
        ("autocast", before[4] or "off", cast or "off"),
        ("the current device", before[5], places),
    ):
        if now != then:
            return f"{what} was {then} and is {now}"
    return None if heard or door == before[3] else "the backend is another one"
