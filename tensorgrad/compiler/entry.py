"""``Entry``: one program of a function, when it holds, and what a replay does besides: gradients, versions, results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten, tree_unflatten
from .executor import executor
from .reach import Reach
from .trace import Trace

if TYPE_CHECKING:
    from .compiled import Before, Signature

__all__ = ["Entry"]


class Entry:
    """A program without a graph behind it: a whole training step, or a run that records nothing.

    ``program``: its calls. ``grads``: leaves whose gradient a replay sets, with the number of the output; None: forgets.
    """

    def __init__(
        self, function: Callable[..., Any], reach: Reach, signature: Signature, given: list[Tensor], trace: Trace,
        before: Before, result: Any,
    ):  # fmt: skip
        self.function = function
        self.reach = reach
        self.signature = signature
        outputs: list[Any] = []

        def slot(array: Any) -> int:
            outputs.append(array)
            return len(outputs) - 1

        self.result = Result(result, before, slot)
        self.returned = result
        moved = before.written()
        own = {id(t._version_cell()) for t in given}
        self.cells = [cell for cell in moved if id(cell) not in own]
        self.bumped = [i for i, t in enumerate(given) if any(t._version_cell() is cell for cell in moved)]
        self.grads: list[tuple[Tensor | int, int | None]] = []
        self.expect_none: list[Tensor | int] = []
        self.accumulated = [(leaf, form(leaf._grad._data)) for leaf in trace.accumulated]
        added = {id(leaf) for leaf in trace.accumulated}
        for leaf, found in trace.grads.values():
            who = before.arguments.get(id(leaf), leaf)
            if found is None:
                self.grads.append((who, None))
            elif found is not before.grads.get(id(leaf)):
                self.grads.append((who, slot(found._data)))
            if id(leaf) not in trace.cleared and id(leaf) not in added:
                self.expect_none.append(who)
        paths = {id(t._data): path for path, t in reach.tensors.values()}
        for value, array in trace.state.items():
            value.name = paths.get(id(array), value.name)
        self.program = trace.program(outputs)
        self.run = executor(self.program)
        self.given = given

    def first(self, signature: Signature) -> Any:
        """The result of the run that the program was written of."""
        for who, at in self.grads:
            if type(who) is int:
                signature.tensors[who]._grad = None if at is None else self.given[who]._grad
        result = self.result.of_run(self.returned, signature.tensors)
        self.returned = self.given = None  # type: ignore[assignment]
        return result

    def holds(self) -> bool:
        """Whether a replay would do what a run does now."""
        for leaf in self.expect_none:
            if type(leaf) is not int and leaf._grad is not None:
                return False
        for leaf, expected in self.accumulated:
            if leaf._grad is None or form(leaf._grad._data) != expected:
                return False
        return self.reach.holds()

    def replay(self, signature: Signature) -> Any:
        tensors = signature.tensors
        given = [t._data for t in tensors]
        for leaf, _ in self.accumulated:
            assert leaf._grad is not None
            given.append(leaf._grad._data)
            leaf._grad._bump()
        arrays = self.run(given)
        for cell in self.cells:
            cell[0] += 1
        for i in self.bumped:
            tensors[i]._bump()
        for who, at in self.grads:
            leaf = tensors[who] if type(who) is int else who
            leaf._grad = None if at is None else wrap(arrays[at])
        return self.result.build(arrays, tensors)


class Result:
    """What the function returned, to be made again from a program's outputs.

    ``made``: (position among the leaves, number of the output) of tensors that the program makes.
    """

    def __init__(self, result: Any, before: Before, slot: Callable[[Any], int]):
        self.leaves, self.spec = tree_flatten(result)
        self.made: list[tuple[int, int]] = []
        self.passed: list[tuple[int, int]] = []
        for at, leaf in enumerate(self.leaves):
            if not isinstance(leaf, Tensor):
                continue
            if id(leaf) in before.arguments:
                self.passed.append((at, before.arguments[id(leaf)]))
            elif id(leaf) not in before.tensors:
                self.made.append((at, slot(leaf._data)))
        for at, _ in (*self.made, *self.passed):
            self.leaves[at] = None
        self.alone = self.spec.is_leaf() and len(self.made) == 1

    def of_run(self, result: Any, tensors: list[Tensor]) -> Any:
        """The run's own result, with the arguments themselves where it has their stand-ins."""
        if not self.passed:
            return result
        leaves = tree_flatten(result)[0]
        for at, i in self.passed:
            leaves[at] = tensors[i]
        return tree_unflatten(leaves, self.spec)

    def build(self, arrays: list[Any], tensors: list[Tensor]) -> Any:
        if self.alone:
            return wrap(arrays[self.made[0][1]])
        leaves = list(self.leaves)
        for at, number in self.made:
            leaves[at] = wrap(arrays[number])
        for at, i in self.passed:
            leaves[at] = tensors[i]
        return tree_unflatten(leaves, self.spec)


def form(array: Any) -> Any:
    return type(array), array.shape, array.strides, array.dtype
