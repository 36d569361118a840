"""``load``: a function from a file that ``Program.save`` wrote.

``program_file`` checks the file, ``reader`` what it says; what does not fit raises FileError.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from ..autograd.grad_mode import state as grad_state
from ..backends import registry
from ..core import native
from ..dispatch import local
from ..dtypes import _default as default_dtype
from ..dtypes import get_default_dtype, of_array
from ..errors import AutogradError, DTypeError, ShapeError
from ..io.safetensors import FileError
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten, tree_unflatten
from .apart import apart
from .executor import executor, in_python
from .form import Slot
from .plain import expect, one_line, whole
from .program import Program
from .program_file import json_object, read_file
from .reader import WRONG, Leaf, Reader
from .signature import Signature, owner
from .sizes import KEY, at_size, size_of, text_of

__all__ = ["Loaded", "load"]

_MOST_FORMS = 4  # of calls, that C is told of
_MOST_SIZES = 16  # of a batch, that a program is kept for
_T = TypeVar("_T")


def load(path: str | os.PathLike[str], *, backend: str | None = None) -> Loaded:
    """A function from a file that ``save`` wrote: it needs NumPy and this package, and none of the model's source.

    Args:
        path: the file.
        backend: who computes: "numpy", "cpp", ...; the backend in use by default. The program's state is copied to its
            device.
    Returns: a function of the arguments that the saved one took, tensors of the same shapes and dtypes among them (but
        for the size of a batch, where that was saved for any); see ``Loaded``.
    Raises: FileNotFoundError; FileError (a ValueError) for a file that is damaged, is not such a file, or is of a
        version that this one doesn't know; BackendError for a backend that can't run here.
    Example:
        >>> import tempfile
        >>> import tensorgrad as tg
        >>> model = tg.compile(tg.nn.Linear(3, 1))
        >>> with tg.inference_mode():
        ...     y = model(tg.ones(2, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.tgp")
        ...     again = tg.compiler.load(f"{folder}/model.tgp")
        >>> bool((again(tg.ones(2, 3)) == y).all())
        True
    """
    found = registry.get(backend) if backend is not None else local.plain[np.ndarray].backend
    name = os.fspath(path)
    arrays, text = _in_file(name, lambda: read_file(name))
    return _in_file(name, lambda: Loaded(name, json_object(text), arrays, found))


def _in_file(name: str, what: Callable[[], _T]) -> _T:
    """What a function gives; what raises there is the file's doing, and FileError."""
    try:
        return what()
    except FileError as error:
        raise FileError(f"{name}: {error}") from None
    except WRONG as error:
        if isinstance(error, OSError):
            raise
        raise FileError(
            f"{name}: the program does not hold together: {type(error).__name__}: {one_line(error)}"
        ) from None


class _Named:
    """What a tensor is in words about a call."""

    def __repr__(self) -> str:
        return "Tensor"


def _in_words(leaves: list[Any], spec: Any) -> str:
    """A call's arguments as it would be written."""
    args, kwargs = tree_unflatten([_Named() if isinstance(x, (Tensor, Slot)) else x for x in leaves], spec)
    return f"({', '.join([*(f'{x!r:.200}' for x in args), *(f'{key}={x!r:.200}' for key, x in kwargs.items())])})"


class _Served:
    """A loaded program for one size of the batch, or for the only one."""

    def __init__(self, program: Program, reader: Reader, run: Callable[[list[Any]], list[Any]]):
        self.program = program
        self.run = run
        self.takes, self.spec = tree_flatten(reader.takes)
        self.gives, self.result = tree_flatten(reader.gives)
        self.same = reader.same
        self.written = {v.root for call in program.calls for v in call.writes}
        self.changed = [i for i, v in enumerate(program.arguments) if v.root in self.written]
        self.state = [t for number, t in reader.by_number.items() if reader.values[number].root in self.written]
        self.near = [t._data for t in (reader.by_number.values() if self.changed else self.state)]
        self.lies = {id(owner(array)) for array in self.near}
        leaves = [leaf for leaf in self.gives if type(leaf) is Leaf]
        self.changes = bool(self.written) or any(leaf.form != "output" or leaf.chain for leaf in leaves)
        alone = self.result.is_leaf() and len(leaves) == 1 and not leaves[0].chain
        self.alone = self.gives[0].number if alone else None
        self.usual: list[tuple[Any, ...]] = []  # for C: calls of the forms that were seen
        self.flat = not reader.takes[1] and all(type(x) is Slot for x in reader.takes[0])

    def entangled(self, tensors: list[Tensor]) -> bool:
        """Whether what the program writes to lies in memory of an argument that the saved call had elsewhere."""
        own = {i: t._data for i, t in enumerate(tensors) if self.same[i] == i}
        owners = {id(owner(array)) for array in own.values()}
        if len(owners) == len(own) and owners.isdisjoint(self.lies):
            return False
        written = [own.pop(i) for i in self.changed if i in own]
        state = [t._data for t in self.state]
        clear = apart(written, [*own.values(), *self.near], frozenset())
        return not (clear and all(apart([x], state, frozenset()) for x in own.values()))


class Loaded:
    """A program from a file, called like the function that it was saved of; it records no gradients.

    ``program``: with ``explain`` and ``draw``, that of the last batch size. ``sizes``: the least size of the batch that
    it serves, like every larger one; None for a program of one size. ``state``: its parameters, buffers and other
    tensors by name. They are its own: what a call changes (statistics of batch norm in training, a cache) it changes
    here, and so may you, in place.

    Strides are no matter: a call computes of its arguments' elements what the saved call does. What is written to must
    be contiguous.

    Calls raise TypeError for arguments of another structure, ShapeError and DTypeError for tensors of other shapes and
    dtypes than the saved program's, AutogradError for a tensor that requires grad, outside of ``no_grad()``. What a
    call of the program raises, as of an index beyond a table, says which one it is: its number, as ``explain`` counts,
    its operands' shapes, and the line that it was written down of.
    """

    def __init__(self, name: str, written: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]], backend: Any):
        self._name = name
        self._text = written
        self._arrays = arrays
        self._backend = backend
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        fact = "the default dtype", default_dtype, 0, default_dtype[0]
        self._facts = None if native is None else native.facts([], [fact], [], [])
        # by size of the batch, the most recently used last
        self._served: OrderedDict[int | None, _Served] = OrderedDict()
        self.sizes: int | None = None
        size = None
        batch = written.get("batch")
        if batch is not None:
            fits = type(batch) is dict and batch.keys() == {"saved", "least"}
            expect(fits, "what is said of the batch sizes is of an unknown form")
            self.sizes = whole(batch["least"], 3, "the least batch size")
            size = whole(batch["saved"], 1 << 48, "the batch size")
            expect(1 <= self.sizes <= size, "the least batch size: at least 1 was expected, and no more than was saved")
            self._find_size()
        self._last = self._of_size(size)

    def _find_size(self) -> None:
        """Where a call's arguments show the size of the batch."""
        entries = self._text.get("arguments")
        expect(type(entries) is list, "arguments: a list was expected")
        for number, entry in enumerate(entries):  # type: ignore[arg-type]
            shape = entry.get("shape") if type(entry) is dict else None
            for axis, n in enumerate(shape if type(shape) is list else ()):
                if type(n) is dict and KEY in n:
                    self._shows: tuple[int, int, dict[str, Any]] = number, axis, n
                    size_of(n, 1)
                    return
        raise FileError("no argument has a size that follows from the batch's")

    def _of_size(self, size: int | None) -> _Served:
        """What serves calls of a size of the batch."""
        found = self._served.get(size)
        if found is not None:
            with suppress(KeyError):  # another thread has dropped it meanwhile
                self._served.move_to_end(size)
            return found
        with self._lock:
            found = self._served.get(size)
            if found is None:
                fixed = ("state", "generators", "batch", "default_dtype", "same", "outputs")
                written = self._text
                if size is not None:
                    written = {key: x if key in fixed else at_size(x, size) for key, x in written.items()}
                reader = Reader(written, self._arrays, self._backend, self._reader)
                program = reader.program()
                if self.sizes is not None:
                    program.notes.append(("dynamic", f"any size of the batch from {self.sizes} on; this is of {size}"))
                with registry.backend(self._backend.name):
                    run = executor(program)
                found = _Served(program, reader, run)
                if self._reader is None:
                    self._reader = reader
                    self._arrays = {} if size is None else self._arrays
                while len(self._served) >= _MOST_SIZES:
                    self._served.popitem(last=False)
                self._served[size] = found
        return found

    def __repr__(self) -> str:
        return f"<loaded program of {len(self.program.calls)} calls on {self._backend.name}>"

    @property
    def program(self) -> Program:
        """The program of the last call."""
        return self._last.program

    @property
    def state(self) -> dict[str, Tensor]:
        return self._known.tensors

    @property
    def _known(self) -> Reader:
        assert self._reader is not None
        return self._reader

    @property
    def __reached__(self) -> dict[int, Tensor]:
        """Every tensor that the program reads besides its arguments."""
        return self._known.by_number

    def explain(self) -> str:
        """The program in words, to be printed."""
        return _in_file(self._name, self.program.explain)

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a picture of the program; see ``Program.draw``."""
        _in_file(self._name, lambda: self.program.draw(path))

    def manual_seed(self, seed: int) -> Loaded:
        """Seed the generators that the program draws from, which start as they were when it was saved. Returns it."""
        for generator in self._known.generators:
            generator.manual_seed(seed)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for served in (self._last, *self._served.values()) if len(self._served) > 1 else (self._last,):
            for usual in served.usual:
                found = native.replay(usual, args, kwargs)
                if found is not NotImplemented:
                    self._last = served
                    return found if served.alone is not None else self._made_of(served, found, [])
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a form that C doesn't know yet."""
        served = self._last
        leaves: Any = args
        if not served.flat or kwargs or not all(isinstance(x, Tensor) for x in args) or len(args) != len(served.takes):
            leaves, spec = tree_flatten((args, kwargs))
            if spec != served.spec:
                raise TypeError(
                    f"the loaded program takes arguments of the structure {_in_words(served.takes, served.spec)}, got "
                    f"{_in_words(leaves, spec)}."
                )
        if self.sizes is not None:
            served = self._for(leaves)
        given: list[Any] = []
        tensors: list[Tensor] = []
        for leaf, wanted in zip(leaves, served.takes, strict=True):
            if type(wanted) is not Slot:
                if type(leaf) is not type(wanted) or (leaf != wanted and leaf == leaf):
                    raise TypeError(f"the loaded program was saved for the argument {wanted!r}, got {leaf!r}.")
                continue
            tensors.append(leaf)
            given.append(self._array(served, leaf, wanted.number))
        if get_default_dtype().name != self._known.default_dtype:
            raise DTypeError(
                f"the loaded program was saved under the default dtype {self._known.default_dtype}, which decides "
                f"what its numbers are; it is {get_default_dtype().name} now."
            )
        for i, first in enumerate(served.same):
            if tensors[i]._data is not tensors[first]._data:
                raise TypeError(f"the loaded program was saved for calls whose tensors {first} and {i} are one.")
        if served.written and served.entangled(tensors):
            raise TypeError(
                "the loaded program writes to memory that two of its tensors share, or one with its state, where those "
                "of the saved call lay apart. Pass copies: x.clone()."
            )
        backend = self._backend
        if local.plain[backend.array_type] is backend.raw and not local.listeners:
            arrays = served.run(given)
            self._remember(served, args, kwargs, tensors, given)
        else:
            with registry.backend(backend.name):
                # whoever listens is told of each call
                arrays = in_python(served.program)(given) if local.listeners else served.run(given)
        for t in (*(tensors[i] for i in served.changed), *served.state):
            t._bump()
        self._last = served
        return self._made_of(served, arrays, tensors)

    def _for(self, leaves: list[Any]) -> _Served:
        """What serves a call, by the size that its arguments show."""
        number, axis, form = self._shows
        tensors = [leaf for leaf, slot in zip(leaves, self._last.takes, strict=True) if type(slot) is Slot]
        shown = tensors[number]
        if not isinstance(shown, Tensor):
            raise TypeError(f"the loaded program takes a Tensor as its tensor {number}, got {type(shown).__name__}.")
        shape = tuple(shown._data.shape)
        assert self.sizes is not None
        size = size_of(form, shape[axis]) if axis < len(shape) else None
        wanted = self._shape_text(number)
        if size is None:
            raise ShapeError(f"the loaded program takes shape {wanted} as its tensor {number}, got {shape}.")
        if size < self.sizes:
            less = "" if self.sizes == 1 else (
                " Fill it up with rows that you leave out of the result, or save the program after a call of that size "
                "as well."
            )  # fmt: skip
            raise ShapeError(
                f"the loaded program serves any batch size n from {self.sizes} on, and takes shape {wanted} as its "
                f"tensor {number}; got {shape}, where n is {size}.{less}"
            )
        for i, t in enumerate(tensors):  # before a program is made of a size that only one of them has
            entry = self._text["arguments"][i]["shape"]
            if isinstance(t, Tensor) and tuple(t._data.shape) != tuple(at_size(entry, size)):
                raise ShapeError(
                    f"the loaded program takes shape {self._shape_text(i)} as its tensor {i}, got "
                    f"{tuple(t._data.shape)}; n is {size}, by its tensor {number}."
                )
        try:
            return self._of_size(size)
        except WRONG as error:
            raise ShapeError(
                f"{self._name}: the program can't be of the batch size {size}: {error}. It was saved of the size "
                f"{self._text['batch']['saved']}."
            ) from None

    def _shape_text(self, number: int) -> str:
        """The shape of an argument, for every size of the batch."""
        shape = self._text["arguments"][number]["shape"]
        parts = [f"{n}" if type(n) is int else text_of(n) for n in shape]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def _made_of(self, served: _Served, arrays: list[Any], tensors: list[Tensor]) -> Any:
        """The result, of the program's outputs and the arguments."""
        if served.result.is_leaf():
            return self._leaf(served.gives[0], arrays, tensors)
        return tree_unflatten([self._leaf(leaf, arrays, tensors) for leaf in served.gives], served.result)

    def _remember(self, served: _Served, args: Any, kwargs: Any, tensors: list[Tensor], given: list[Any]) -> None:
        """Leave further calls like this one to C, as a compiled function's: with arguments of the same form, under the
        same switches of this thread."""
        waiting = getattr(getattr(served.run, "shelf", None), "waiting", None)
        if waiting is None or served.changes or len(served.usual) == _MOST_FORMS:
            return
        if any(t._data is not array for t, array in zip(tensors, given, strict=True)):
            return
        if any(native.admits(usual[0], args, kwargs) for usual in served.usual):  # results of former calls are held
            return
        template = Signature(args, kwargs).template({}, [None] * len(tensors))
        if template is not None:
            served.usual.append((template, self._facts, [], [], [], waiting, [], [], [], served.alone, None, None))

    def _array(self, served: _Served, leaf: Any, number: int) -> Any:
        value = served.program.arguments[number]
        if not isinstance(leaf, Tensor):
            raise TypeError(f"the loaded program takes a Tensor as its tensor {number}, got {type(leaf).__name__}.")
        array = leaf._data
        if not isinstance(array, self._backend.array_type):
            raise TypeError(
                f"the loaded program computes on {self._backend.name}; its tensor {number} is a {type(array).__name__}."
            )
        if leaf._tracked and grad_state.recording:
            raise AutogradError(
                f"the loaded program records no gradients, and its tensor {number} requires grad. Call it under "
                "no_grad(), or with x.detach()."
            )
        if tuple(array.shape) != value.shape:
            raise ShapeError(
                f"the loaded program takes shape {value.shape} as its tensor {number}, got {tuple(array.shape)}."
            )
        if array.dtype != value.dtype:
            raise DTypeError(
                f"the loaded program takes {of_array(value.dtype)} as its tensor {number}, got {of_array(array.dtype)}."
            )
        if not array.flags.c_contiguous:
            if value.root in served.written:
                raise ShapeError(f"the loaded program writes to its tensor {number}, which must be contiguous.")
            array = local.doors.of(array).contiguous(array)
        return array

    def _leaf(self, leaf: Any, arrays: list[Any], tensors: list[Tensor]) -> Any:
        if type(leaf) is not Leaf:
            return leaf
        if leaf.form == "output":
            made = wrap(arrays[leaf.number])
        else:
            made = tensors[leaf.number] if leaf.form == "argument" else self._known.by_number[leaf.number]
        for op, attrs in leaf.chain:
            made = op(made, **attrs)
        return made
