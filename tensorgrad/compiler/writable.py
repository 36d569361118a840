"""``written``: the call of a kernel, written into a ``Sequence`` instead of being made.

What can be written is known where it is computed: a kernel of the extension hands its arithmetic to ``launch()``, which
keeps it while a sequence is written, and one that computes at once is stopped before it does (``MaybeRelease`` raises
NotWritten). So no list of names is kept here. Python is called where it is known to leave elements to such kernels:
what the backend says so of (``can_be_written``), and definitions, which see shapes and dtypes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..dispatch import OPS

__all__ = ["Part", "written"]

Part = tuple[int, int, list[int]]
"""Of a call in a definition: how many of the sequence's calls and allocations there are behind it, and the addresses of
its arrays."""

_Note = Callable[[list[Any]], None] | None
_RESHAPES_AS_VIEWS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def written(
    backend: Any, sequence: Any, op: Any, inputs: Any, attrs: dict[str, Any], parts: list[Part] | None = None
) -> tuple[Any, ...] | None:
    """The results of the backend's kernel of an op, which the sequence computes when it runs; None where it can't.

    ``parts`` receives the calls that the op's definition makes, if that is what is written."""
    calls, allocations = sequence.calls, sequence.allocations
    note = None if parts is None else partial(_note, sequence, parts)
    try:
        made = _call(backend, op, getattr(backend.raw, op.name), inputs, attrs, note)
        # who made memory and wrote no call has filled it in some other way
        if made is not None and (sequence.calls > calls or not sequence.bytes_from(allocations)):
            return made
    except (backend.c.NotWritten, _AsksForElements):
        pass
    sequence.rewind(calls, allocations)
    if parts is not None:
        parts.clear()
    return None


def _note(sequence: Any, parts: list[Part], arrays: list[Any]) -> None:
    parts.append((int(sequence.calls), int(sequence.allocations), [x.__array_interface__["data"][0] for x in arrays]))


def _call(
    backend: Any, op: Any, kernel: Any, inputs: Any, attrs: dict[str, Any], note: _Note = None
) -> tuple[Any, ...] | None:
    if op.view:
        return _view(backend, op, kernel, inputs, attrs)
    c = backend.c
    if isinstance(kernel, c.FloatsFirst):
        chosen = kernel.chosen(inputs[0])
        made = _call(backend, op, chosen, inputs, attrs, note)
        if made is not None or chosen is kernel.inherited:
            return made
        return _call(backend, op, kernel.inherited, inputs, attrs, note)
    try:
        if backend.can_be_written(kernel):
            made = kernel(*inputs, **attrs)
            if made is NotImplemented:
                return None
        elif isinstance(kernel, partial) and kernel.func is op.define:
            made = _defined(backend, op, inputs, attrs, note)
        else:
            return None
    except c.NotWritten as error:
        if error.args != ("defined",):
            raise
        made = _defined(backend, op, inputs, attrs, note)
    return made if type(made) is tuple else (made,)


# --- views


def _view(backend: Any, op: Any, kernel: Any, inputs: Any, attrs: dict[str, Any]) -> tuple[Any, ...] | None:
    """A view of a written array is an array at an address; nothing is left to do in a run."""
    x = inputs[0]
    if op.name == "reshape":
        return (_reshaped(backend, x, *inputs[1:], **attrs),)
    if op.name == "as_complex" and x.dtype.itemsize == 2:
        return None  # a copy: there are no complex numbers of two halves
    return (kernel(*inputs, **attrs),)


def _reshaped(backend: Any, x: Any, shape: Any) -> Any:
    try:
        if _RESHAPES_AS_VIEWS:
            return x.reshape(shape, copy=False)
        view = x.view()
        view.shape = shape
        return view
    except (AttributeError, ValueError):
        return backend.c.contiguous(x).reshape(shape)


# --- definitions


class _AsksForElements(Exception):
    """A definition wants more of an array than its form."""


class _Opaque:
    """An array as a definition may see it: its form. Whoever asks for elements can't be written."""

    __slots__ = ("array", "dtype", "ndim", "shape", "size")

    def __init__(self, array: Any):
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim
        self.size = array.size

    def __getattr__(self, name: str) -> Any:
        raise _AsksForElements(name)

    def _no_elements(self, *args: Any) -> Any:
        raise _AsksForElements("elements")

    __array__ = __bool__ = __float__ = __int__ = __index__ = __iter__ = __getitem__ = __len__ = _no_elements
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _no_elements
    __floordiv__ = __mod__ = __pow__ = __matmul__ = __neg__ = __abs__ = __invert__ = _no_elements
    __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __xor__ = _no_elements
    __array_ufunc__ = None


class _Written:
    """A door whose kernels are written: all of them, or NotWritten is raised."""

    def __init__(self, backend: Any, note: _Note):
        self.backend = backend
        self.note = note

    def __getattr__(self, name: str) -> Callable[..., Any]:
        backend, note = self.backend, self.note
        kernel, op = getattr(backend.raw, name), OPS[name]

        def call(*inputs: Any, **attrs: Any) -> Any:
            given = [_seen_through(x) for x in inputs]
            named = {key: _seen_through(x) for key, x in attrs.items()}
            made = _call(backend, op, kernel, given, named, note)
            if made is None:
                raise backend.c.NotWritten(f"{name} is not written")
            if note is not None:
                note([*_arrays_in(given), *_arrays_in(list(named.values())), *_arrays_in(made)])
            shown = tuple([_Opaque(x) if isinstance(x, np.ndarray) else x for x in made])
            return shown if len(shown) > 1 else shown[0]

        return call


def _seen_through(what: Any) -> Any:
    if type(what) is _Opaque:
        return what.array
    return type(what)(map(_seen_through, what)) if type(what) in (list, tuple) else what


def _opaque(what: Any) -> Any:
    if isinstance(what, np.ndarray):
        return _Opaque(what)
    return type(what)(map(_opaque, what)) if type(what) in (list, tuple) else what


def _arrays_in(what: Any) -> list[Any]:
    if isinstance(what, np.ndarray):
        return [what]
    return [x for part in what for x in _arrays_in(part)] if type(what) in (list, tuple) else []


def _defined(backend: Any, op: Any, inputs: Any, attrs: dict[str, Any], note: _Note) -> Any:
    """The results of an op's definition, in smaller ops."""
    door = _Written(backend, note)
    return _seen_through(op.define(door, *map(_opaque, inputs), **{key: _opaque(x) for key, x in attrs.items()}))
