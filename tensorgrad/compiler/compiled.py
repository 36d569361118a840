"""``Compiled``: a function together with the programs written of its runs.

A call looks for a program whose conditions hold: the arguments' shapes, dtypes, strides and values, the switches of this
thread, and the facts about everything the function reaches. Without one the function runs as it is, and a program is
written of that run. What a program can't repeat (a number that Python counts up, say) is found by asking the facts again
after the run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..autograd.node import FREED
from ..dispatch import listening, local
from ..dtypes import get_default_dtype
from ..errors import CompileError
from ..tensor import Tensor, wrap
from .program import Call, Program
from .reach import Reach
from .trace import Trace

__all__ = ["Compiled", "Entry"]

_PLAIN = (int, float, complex, str, bytes, bool, type(None))
_PATIENCE = 3  # runs that may change what they rest on, one after the other: an optimizer makes its state in the first


class Compiled:
    """Call it like the function it was made of.

    Args:
        function: what to compile.
        limit: how many programs are kept; the least recently used goes first.
        fallback: run as it is what can't be captured, instead of raising CompileError.
    """

    def __init__(self, function: Callable[..., Any], *, limit: int = 8, fallback: bool = False):
        self.function = function
        self.limit = limit
        self.fallback = fallback
        self.entries: OrderedDict[Any, list[Entry]] = OrderedDict()
        self.calls = self.captures = self.eager = 0
        self._restless = 0
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if local.frames or local.listeners:  # mapped, watched, or part of a program that is being written
            self.eager += 1
            return self.function(*args, **kwargs)
        signature = Signature(args, kwargs)
        key = (signature.key, _switches())
        for entry in self.entries.get(key, ()):
            if entry.holds(signature):
                return entry.replay(signature)
        return self._capture(key, signature, args, kwargs)

    def _capture(self, key: Any, signature: Signature, args: Any, kwargs: Any) -> Any:
        with self._lock:
            self.captures += 1
            reach = Reach(("f", self.function), *[(f"argument {i}", x) for i, x in enumerate(signature.others)])
            before = _Before(reach, signature)
            trace = Trace([t._data for t in signature.tensors], before.grad_arrays())
            with listening(trace):
                result = self.function(*args, **kwargs)
            trouble = reach.changed()
            if trouble is not None:
                self._restless += 1
                if self._restless >= _PATIENCE and not self.fallback:
                    raise CompileError(
                        f"compile: the function changes what it rests on: {trouble}. A replay runs no Python and would "
                        "not repeat that. Do it outside of the compiled function, or give compile(..., fallback=True)."
                    )
                return result
            self._restless = 0
            entry = Entry(reach, signature, trace, before, result)
            self.entries.setdefault(key, []).insert(0, entry)
            return result


class Signature:
    """A call's arguments: its tensors in order, the other objects, and a key of all that a program freezes."""

    __slots__ = ("key", "others", "tensors")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.tensors: list[Tensor] = []
        self.others: list[Any] = []
        self.key = (self._key(args), self._key(kwargs), self._aliases())

    def _key(self, what: Any) -> Any:
        if isinstance(what, Tensor):
            self.tensors.append(what)
            array = what._data
            return type(what), type(array), array.shape, array.strides, array.dtype, what._tracked, what._inference
        if isinstance(what, (list, tuple)):
            return type(what), *map(self._key, what)
        if isinstance(what, dict):
            return dict, *[(k, self._key(v)) for k, v in what.items()]
        if isinstance(what, _PLAIN):
            return type(what), what
        self.others.append(what)
        return "object", id(what)

    def _aliases(self) -> tuple[int, ...]:
        """Which tensors are the very same array as one before."""
        seen: dict[int, int] = {}
        return tuple([seen.setdefault(id(t._data), i) for i, t in enumerate(self.tensors)])


class _Before:
    """What the tensors in reach were like before the run."""

    def __init__(self, reach: Reach, signature: Signature):
        self.arguments = {id(t): i for i, t in enumerate(signature.tensors)}
        self.tensors = [t for _, t in reach.tensors.values()] + signature.tensors
        self.versions = [t._version_cell()[0] for t in self.tensors]
        self.grads = {id(t): t._grad for t in self.tensors}

    def grad_arrays(self) -> dict[int, Tensor]:
        """The tensors by the identities of their gradients' arrays."""
        return {id(t._grad._data): t for t in self.tensors if t._grad is not None}


class Entry:
    """A program, when it holds, and what it does besides: gradients, versions, results."""

    def __init__(self, reach: Reach, signature: Signature, trace: Trace, before: _Before, result: Any):
        self.reach = reach
        self.others = signature.others  # alive, so that their identities stay theirs
        outputs: list[Any] = []

        def slot(array: Any) -> int:
            outputs.append(array)
            return len(outputs) - 1

        self.bumped = [t._version_cell() for t, seen in zip(before.tensors, before.versions, strict=True)
                       if t._version_cell()[0] != seen and id(t) not in before.arguments]  # fmt: skip
        self.bumped = list({id(cell): cell for cell in self.bumped}.values())
        self.bumped_arguments = [i for i, t in enumerate(signature.tensors)
                                 if t._version_cell()[0] != before.versions[len(before.tensors) - len(signature.tensors) + i]]  # fmt: skip
        self.grads: list[tuple[Tensor, int | None]] = []
        self.accumulated = [(leaf, _form(leaf._grad._data)) for leaf in trace.accumulated]
        added = {id(leaf) for leaf in trace.accumulated}
        self.expect_none: list[Tensor] = []
        for leaf, found in trace.grads.values():
            old = before.grads.get(id(leaf))
            if found is None:
                self.grads.append((leaf, None))
            elif found is not old:
                self.grads.append((leaf, slot(found._data)))
            if id(leaf) not in trace.cleared and id(leaf) not in added:
                self.expect_none.append(leaf)
        self.result = _Result(result, before.arguments, {id(t) for t in before.tensors}, slot)
        self.program = trace.program(outputs)
        from .native import link

        self.replay_program: Any = link(self.program) or compiled_source(self.program)

    def holds(self, signature: Signature) -> bool:
        for leaf in self.expect_none:
            if leaf._grad is not None:
                return False
        for leaf, form in self.accumulated:
            if leaf._grad is None or _form(leaf._grad._data) != form:
                return False
        return self.reach.changed() is None

    def replay(self, signature: Signature) -> Any:
        given = [t._data for t in signature.tensors]
        for leaf, _ in self.accumulated:
            assert leaf._grad is not None
            given.append(leaf._grad._data)
            leaf._grad._bump()
        arrays = self.replay_program(given)
        for cell in self.bumped:
            cell[0] += 1
        for i in self.bumped_arguments:
            signature.tensors[i]._bump()
        for leaf, at in self.grads:
            leaf._grad = None if at is None else wrap(arrays[at])
        return self.result.build(arrays, signature.tensors)


class _Result:
    """What the function returned, to be made again: nested lists, tuples and dictionaries of tensors and other things."""

    def __init__(self, result: Any, arguments: dict[int, int], known: set[int], slot: Callable[[Any], int]):
        self.build = self._builder(result, arguments, known, slot)

    def _builder(self, what: Any, arguments: dict[int, int], known: set[int], slot: Any) -> Callable[[Any, Any], Any]:
        if isinstance(what, Tensor):
            if id(what) in arguments:
                i = arguments[id(what)]
                return lambda arrays, tensors: tensors[i]
            if id(what) in known:
                return lambda arrays, tensors: what
            at = slot(what._data)
            return lambda arrays, tensors: wrap(arrays[at])
        if type(what) in (list, tuple):
            parts = [self._builder(part, arguments, known, slot) for part in what]
            kind = type(what)
            return lambda arrays, tensors: kind([part(arrays, tensors) for part in parts])
        if type(what) is dict:
            items = {key: self._builder(value, arguments, known, slot) for key, value in what.items()}
            return lambda arrays, tensors: {key: part(arrays, tensors) for key, part in items.items()}
        return lambda arrays, tensors: what


def compiled_source(program: Program) -> Callable[[list[Any]], list[Any]]:
    """The program as a Python function."""
    text, names = program.replay_source()
    space: dict[str, Any] = dict(names)
    exec(compile(text, "<tensorgrad program>", "exec"), space)  # noqa: S102 - our own text
    replay: Callable[[list[Any]], list[Any]] = space["replay"]
    return replay


def _form(array: Any) -> Any:
    return type(array), array.shape, array.strides, array.dtype


def _switches() -> Any:
    """What of this thread's state a program depends on."""
    return grad_state.recording, grad_state.inference, get_default_dtype().name, id(local.plain)


def live(result: Any) -> bool:
    """Whether a result carries a graph that a backward pass can still go through."""
    if isinstance(result, Tensor):
        node = result._node
        return node is not None and node.saved is not FREED
    if isinstance(result, (list, tuple)):
        return any(map(live, result))
    return isinstance(result, dict) and any(map(live, result.values()))


_ = Call
