"""``Compiled``: a function together with the programs written of its runs.

A call looks for a program whose conditions hold: the arguments' shapes, dtypes, strides and values, the switches of this
thread, and the facts about everything the function reaches. Without one the function runs as it is, and a program is
written of that run. What a program can't repeat (a number that Python counts up, say) is found by asking the facts again
after the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..dispatch import listening, local
from ..dtypes import get_default_dtype
from ..errors import CompileError
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten
from .entry import Entry
from .pair import PairEntry, is_live
from .reach import Reach
from .trace import Trace

__all__ = ["Compiled", "Signature"]

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
        self.entries: list[Entry] = []  # the most recently used first
        self.calls = self.captures = self.eager = 0
        self._restless = 0
        self._given_up = False
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if local.frames or local.listeners or self._given_up:  # mapped, watched, or part of a program being written
            self.eager += 1
            return self.function(*args, **kwargs)
        signature = Signature(args, kwargs)
        for at, entry in enumerate(self.entries):
            if entry.signature.key == signature.key and entry.holds():
                if at:
                    self.entries.insert(0, self.entries.pop(at))
                return entry.replay(signature)
        with self._lock:
            return self._capture(signature)

    def forget(self) -> None:
        """Drop all programs."""
        self.entries.clear()

    def _capture(self, signature: Signature) -> Any:
        self.captures += 1
        roots = [("f", self.function), *((f"argument {i}", x) for i, x in enumerate(signature.others))]
        reach = Reach(*roots)
        given = signature.stand_ins()
        before = Before(reach, signature, given)
        trace = Trace([t._data for t in given], before.grad_arrays())
        args, kwargs = signature.arguments(given)
        try:
            with listening(trace):
                result = self.function(*args, **kwargs)
        except CompileError:
            if not self.fallback:
                raise
            self._given_up = True
            # what ran so far has run: only a function without effects can be run again
            if trace.has_effects():
                raise
            return self.function(*signature.arguments(signature.tensors)[0], **signature.arguments(signature.tensors)[1])
        kind = PairEntry if is_live(result) else Entry
        entry = kind(self.function, reach, signature, given, trace, before, result)
        trouble = reach.changed()
        if trouble is None:
            self._restless = 0
            self.entries.insert(0, entry)
            del self.entries[self.limit :]
        else:
            self._restless += 1
            if self._restless >= _PATIENCE:
                if not self.fallback:
                    raise CompileError(
                        f"compile: the function changes what it rests on: {trouble}. A replay runs no Python and would "
                        "not repeat that. Do it outside of the compiled function, or give compile(..., fallback=True)."
                    )
                self._given_up = True
        return entry.first(signature)


class Signature:
    """A call's arguments: its tensors in order, the other objects, and a key of all that a program freezes."""

    __slots__ = ("key", "leaves", "others", "spec", "tensors")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.leaves, self.spec = tree_flatten((args, kwargs))
        self.tensors: list[Tensor] = []
        self.others: list[Any] = []
        seen: dict[int, int] = {}
        parts: list[Any] = []
        for leaf in self.leaves:
            if isinstance(leaf, Tensor):
                array = leaf._data
                first = seen.setdefault(id(array), len(self.tensors))
                self.tensors.append(leaf)
                parts.append((type(leaf), type(array), array.shape, array.strides, array.dtype, leaf._tracked,
                              leaf._inference, first))  # fmt: skip
            elif isinstance(leaf, _PLAIN):
                parts.append((type(leaf), leaf))
            else:
                self.others.append(leaf)
                parts.append(("object", id(leaf)))
        self.key = (self.spec, tuple(parts), _switches())

    def stand_ins(self) -> list[Tensor]:
        """For each tensor itself, or, where its gradients are recorded, a leaf in its place: so that what the function
        records ends at its arguments."""
        if not grad_state.recording:
            return list(self.tensors)
        made: dict[int, Tensor] = {}
        for t in self.tensors:
            if t._tracked and id(t) not in made:
                leaf = made[id(t)] = wrap(t._data)
                leaf._tracked = True
                leaf._version = t._version_cell()
        return [made.get(id(t), t) for t in self.tensors]

    def arguments(self, tensors: list[Tensor]) -> Any:
        """(args, kwargs) with these tensors."""
        given = iter(tensors)
        return self.spec_of([next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves])

    def spec_of(self, leaves: list[Any]) -> Any:
        from ..utils._pytree import tree_unflatten

        return tree_unflatten(leaves, self.spec)


class Before:
    """What the tensors in reach were like before the run."""

    def __init__(self, reach: Reach, signature: Signature, given: list[Tensor]):
        self.arguments = {id(t): i for i, t in enumerate(given)}
        self.known = [t for _, t in reach.tensors.values()]
        self.cells = {id(t._version_cell()): (t._version_cell(), t._version_cell()[0]) for t in self.known + given}
        self.grads = {id(t): t._grad for t in self.known + given}
        self.tensors = {id(t): t for t in self.known + given}

    def grad_arrays(self) -> dict[int, Tensor]:
        """The tensors by the identities of their gradients' arrays."""
        return {id(g._data): self.tensors[key] for key, g in self.grads.items() if g is not None}

    def written(self) -> list[list[int]]:
        """Version counters that have moved since."""
        return [cell for cell, seen in self.cells.values() if cell[0] != seen]


def _switches() -> Any:
    """What of this thread's state a program depends on."""
    return grad_state.recording, grad_state.inference, get_default_dtype().name, id(local.plain)
