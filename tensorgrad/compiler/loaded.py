"""``load``: a function from a file that ``Program.save`` wrote.

``program_file`` checks the file, ``reader`` what it says; what does not fit raises FileError.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

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
from .executor import executor, in_python
from .form import Slot
from .program import Program
from .program_file import json_object, read_file
from .reader import WRONG, Leaf, Reader
from .signature import Signature

__all__ = ["Loaded", "load"]

_MOST_FORMS = 4  # of calls, that C is told of


def load(path: str | os.PathLike[str], *, backend: str | None = None) -> Loaded:
    """A function from a file that ``save`` wrote: it needs NumPy and this package, and none of the model's source.

    Args:
        path: the file.
        backend: who computes: "numpy", "cpp", ...; the backend in use by default. The program's state is copied to its
            device.
    Returns: a function of the arguments that the saved one took, tensors of the same shapes and dtypes among them; see
        ``Loaded``.
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
    try:
        arrays, text = read_file(name)
        reader = Reader(json_object(text), arrays, found)
        program = reader.program()
        with registry.backend(found.name):
            run = executor(program)
    except FileError as error:
        raise FileError(f"{name}: {error}") from None
    except WRONG as error:
        if isinstance(error, OSError):
            raise
        raise FileError(f"{name}: the program does not hold together: {type(error).__name__}: {error}") from None
    return Loaded(program, reader, run)


class Loaded:
    """A program from a file, called like the function that it was saved of; it records no gradients.

    ``program``: with ``explain`` and ``draw``. ``state``: its parameters, buffers and other tensors by name. They are
    its own: what a call changes (statistics of batch norm in training, a cache) it changes here, and so may you, in
    place.

    Strides are no matter: a call computes of its arguments' elements what the saved call does. What is written to must
    be contiguous.

    Calls raise TypeError for arguments of another structure, ShapeError and DTypeError for tensors of other shapes and
    dtypes than the saved program's, AutogradError for a tensor that requires grad, outside of ``no_grad()``.
    """

    def __init__(self, program: Program, reader: Reader, run: Callable[[list[Any]], list[Any]]):
        self.program = program
        self.state = reader.tensors
        self._reader = reader
        self._run = run
        self._takes, self._spec = tree_flatten(reader.takes)
        self._gives, self._result = tree_flatten(reader.gives)
        self._written = {v.root for call in program.calls for v in call.writes}
        self._changed = [i for i, v in enumerate(program.arguments) if v.root in self._written]
        self._changes = bool(self._changed) or any(leaf.form != "output" for leaf in self._gives if type(leaf) is Leaf)
        alone = self._result.is_leaf() and type(self._gives[0]) is Leaf
        self._alone = self._gives[0].number if alone else None
        self._usual: list[tuple[Any, ...]] = []  # for C: calls of the forms that were seen
        fact = "the default dtype", default_dtype, 0, default_dtype[0]
        self._facts = None if native is None else native.facts([], [fact], [])
        self._flat = not reader.takes[1] and all(type(x) is Slot for x in reader.takes[0])

    def __repr__(self) -> str:
        return f"<loaded program of {len(self.program.calls)} calls on {self._reader.backend.name}>"

    @property
    def __reached__(self) -> dict[int, Tensor]:
        """Every tensor that the program reads besides its arguments."""
        return self._reader.by_number

    def explain(self) -> str:
        """The program in words, to be printed."""
        return self.program.explain()

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a picture of the program; see ``Program.draw``."""
        self.program.draw(path)

    def manual_seed(self, seed: int) -> Loaded:
        """Seed the generators that the program draws from, which start as they were when it was saved. Returns it."""
        for generator in self._reader.generators:
            generator.manual_seed(seed)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for usual in self._usual:
            found = native.replay(usual, args, kwargs)
            if found is not NotImplemented:
                return found if self._alone is not None else self._made_of(found, [])
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a form that C doesn't know yet."""
        leaves: Any = args
        if not self._flat or kwargs or not all(isinstance(x, Tensor) for x in args) or len(args) != len(self._takes):
            leaves, spec = tree_flatten((args, kwargs))
            if spec != self._spec:
                raise TypeError(f"the loaded program takes arguments of the structure {self._spec}, got {spec}.")
        given: list[Any] = []
        tensors: list[Tensor] = []
        for leaf, wanted in zip(leaves, self._takes, strict=True):
            if type(wanted) is not Slot:
                if type(leaf) is not type(wanted) or (leaf != wanted and leaf == leaf):
                    raise TypeError(f"the loaded program was saved for the argument {wanted!r}, got {leaf!r}.")
                continue
            tensors.append(leaf)
            given.append(self._array(leaf, wanted.number))
        if get_default_dtype().name != self._reader.default_dtype:
            raise DTypeError(
                f"the loaded program was saved under the default dtype {self._reader.default_dtype}, which decides "
                f"what its numbers are; it is {get_default_dtype().name} now."
            )
        for i, first in enumerate(self._reader.same):
            if tensors[i]._data is not tensors[first]._data:
                raise TypeError(f"the loaded program was saved for calls whose tensors {first} and {i} are one.")
        backend = self._reader.backend
        if local.plain[backend.array_type] is backend.raw and not local.listeners:
            arrays = self._run(given)
            self._remember(args, kwargs, tensors, given)
        else:
            with registry.backend(backend.name):
                # whoever listens is told of each call
                arrays = in_python(self.program)(given) if local.listeners else self._run(given)
        for i in self._changed:
            tensors[i]._bump()
        return self._made_of(arrays, tensors)

    def _made_of(self, arrays: list[Any], tensors: list[Tensor]) -> Any:
        """The result, of the program's outputs and the arguments."""
        if self._result.is_leaf():
            return self._leaf(self._gives[0], arrays, tensors)
        return tree_unflatten([self._leaf(leaf, arrays, tensors) for leaf in self._gives], self._result)

    def _remember(self, args: Any, kwargs: Any, tensors: list[Tensor], given: list[Any]) -> None:
        """Leave further calls like this one to C, as a compiled function's: with arguments of the same form, under the
        same switches of this thread."""
        waiting = getattr(getattr(self._run, "shelf", None), "waiting", None)
        if waiting is None or self._changes or len(self._usual) == _MOST_FORMS:
            return
        if any(t._data is not array for t, array in zip(tensors, given, strict=True)):
            return
        if any(native.admits(usual[0], args, kwargs) for usual in self._usual):  # results of former calls are held
            return
        template = Signature(args, kwargs).template({}, [None] * len(tensors))
        if template is not None:
            self._usual.append((template, self._facts, [], [], [], waiting, [], [], [], self._alone, None))

    def _array(self, leaf: Any, number: int) -> Any:
        value = self.program.arguments[number]
        if not isinstance(leaf, Tensor):
            raise TypeError(f"the loaded program takes a Tensor as its tensor {number}, got {type(leaf).__name__}.")
        array = leaf._data
        if not isinstance(array, self._reader.backend.array_type):
            raise TypeError(
                f"the loaded program computes on {self._reader.backend.name}; its tensor {number} is a "
                f"{type(array).__name__}."
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
            if value.root in self._written:
                raise ShapeError(f"the loaded program writes to its tensor {number}, which must be contiguous.")
            array = local.doors.of(array).contiguous(array)
        return array

    def _leaf(self, leaf: Any, arrays: list[Any], tensors: list[Tensor]) -> Any:
        if type(leaf) is not Leaf:
            return leaf
        if leaf.form == "output":
            return wrap(arrays[leaf.number])
        made = tensors[leaf.number] if leaf.form == "argument" else self._reader.by_number[leaf.number]
        for op, attrs in leaf.chain:
            made = op(made, **attrs)
        return made
