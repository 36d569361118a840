"""``Entry``: one program of a function, when it holds, and what a replay does besides: gradients, versions, results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..autograd.node import describe_line
from ..core import native
from ..errors import CompileError, TensorgradError
from ..nn.parameter import Parameter
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_leaves
from .apart import apart
from .conditions import Conditions
from .executor import executor
from .form import Form
from .histories import broken, check_passes, send_on
from .passes import optimize
from .program import Call, Program
from .reach import Reach
from .result import Result
from .signature import Signature, owner
from .trace import Trace

if TYPE_CHECKING:
    from .before import Before

__all__ = ["Entry"]

_LATE = (
    "a call that may raise for what its operands hold stands in a try, behind random draws or changes of what was "
    "there before: a replay that raised could not be taken back"
)
_OF_KERNELS = (TensorgradError, ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
_SHARED = "a gradient that the function adds to shares memory with another, or with what else the function uses"


class Entry:
    """A program without a graph behind it: a whole training step, or a run that records nothing.

    ``programs``: what it runs. ``grads``: leaves whose gradient a replay sets, with the number of the output; None:
    forgets. ``count``: how many of the first program's outputs are results, None: all.
    """

    count: int | None = None

    def __init__(
        self, function: Callable[..., Any], reach: Reach, signature: Signature, given: list[Tensor], trace: Trace,
        before: Before, result: Any,
    ):  # fmt: skip
        self.function = function
        self.family: Any = None  # of programs that differ in the size of a batch alone
        self.sizes_read = trace.sizes_read
        self.reach = reach
        self.given = given
        outputs: list[Any] = []

        def slot(array: Any) -> int:
            outputs.append(array)
            return len(outputs) - 1

        before.check_histories(given)
        self.turned = before.turned(given, signature.tensors)
        self.modes = reach.modes()
        check_passes(trace.standing.passes)
        self.passes = trace.standing.passes
        # arguments through whose histories a pass goes on
        self.gone_through = frozenset().union(*(each.reached for each in self.passes if not each.ends))
        trace.check_returned([leaf._data for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        self.result = Result(result, before, slot, trace.ways())
        self.shown = len(outputs)
        self.returned = result
        moved = before.written()
        own = {id(t._version_cell()) for t in given}
        self.cells = [cell for cell in moved if id(cell) not in own]
        self.bumped = [i for i, t in enumerate(given) if any(t._version_cell() is cell for cell in moved)]
        # leaves, or numbers of arguments, to whose gradients the run has added
        self.accumulated: list[tuple[Tensor | int, Any]] = [
            (before.arguments.get(id(leaf), leaf), form(array)) for leaf, array in trace.accumulated
        ]
        self.expect_none: list[Tensor] = []
        self.expect_some: list[Tensor] = []
        self.to_arguments: list[tuple[int, int | None]] = []
        self.leaves: list[Tensor] = []
        self.numbers: list[int | None] = []
        self.forgotten: list[Tensor] = []
        added = {id(leaf) for leaf, _ in trace.accumulated}
        for leaf, found in trace.grads.values():
            at = before.arguments.get(id(leaf))
            number = None
            if id(leaf) not in before.tensors:
                if self.result.has(leaf):
                    raise CompileError(
                        "compile: the function returns a tensor that it makes, with a gradient. Return the gradient "
                        "beside it."
                    )
                continue  # nobody sees it any more
            if found is not None:
                if found is before.grads.get(id(leaf)):
                    continue  # written in place
                number = slot(found._data)
            if at is not None:
                self.to_arguments.append((at, number))
            else:
                self.leaves.append(leaf)
                self.numbers.append(number)
                had = before.grads[id(leaf)] is not None
                if id(leaf) in trace.cleared:
                    self.forgotten.append(leaf)
                    if had and id(leaf) not in trace.asked:
                        continue  # the run would have been the same without
                if id(leaf) not in added:
                    # what came before may have left out a step because there was none
                    (self.expect_some if had else self.expect_none).append(leaf)
        # of arguments, whether there was a gradient when Python asked
        self.seen_grads = [(i, before.grads[id(t)] is not None) for i, t in enumerate(given) if id(t) in trace.asked]
        # it may have left out what has no gradient, or done more for what has one
        looked_at = before.known if reach.looks_at_gradients else reach.parameters
        known = {*map(id, self.leaves), *added, *before.arguments}
        for t in looked_at:
            may_have = t._tracked or t._grad is not None or isinstance(t, Parameter)  # a frozen one may be given one
            if id(t) not in known and t._node is None and may_have:
                known.add(id(t))
                (self.expect_none if before.grads[id(t)] is None else self.expect_some).append(t)
        paths = {id(t._data): path for path, t in reach.tensors.values()}
        for value, array in trace.state.items():
            value.name = paths.get(id(array), value.name).removeprefix("f.")
        _check_owners(reach, before, trace, given)
        self.tied = before.tied(trace)
        # why no other call may be served
        self.refuses = before.shared(trace, reach.parameters)
        self.handled = trace.handled
        if trace.handled_late:
            self.refuses = _LATE
        # the memory of the state, which gradients that the program adds to must not lie in
        self.there = frozenset(id(owner(array)) for array in trace.state.values()) if self.accumulated else frozenset()
        states = {id(t._data) for t in before.known}
        self.conditions = Conditions(trace) if trace.conditions else None
        if self.conditions is not None and self.conditions.trouble is not None:
            self.refuses = self.conditions.trouble
        self.known = before.known
        self.heard = before.heard()
        self.writes_arguments = False
        self.placed = trace.place is not None  # on one of several devices, of which C knows nothing
        self.raw = self._written(trace, outputs)
        del self.known, self.heard
        before.forget_hooks(given)
        self.link(self.raw)
        # what the program writes to must not be an argument's memory too, unless it is that very argument
        touched = [array for value, array in trace.state.items() if value.root in self.written]
        self.owners = dict.fromkeys(id(owner(array)) for array in touched)
        self.lies = frozenset(id(owner(array)) for array in trace.state.values())
        self.same = [
            t._data if given[i] is t and id(t._data) in states else None for i, t in enumerate(signature.tensors)
        ]
        if any(id(owner(t._data)) in self.owners for t in signature.tensors):
            self.refuses = "an argument lies in memory that the function also changes by itself"
        if not self._lie_apart(signature.tensors):
            self.refuses = _SHARED
        if reach.tells_apart:  # a run may see that an argument is a tensor that it also reaches by itself
            self.owners.update((id(owner(t._data)), None) for _, t in reach.tensors.values())
        self._stamp(signature)

    def _stamp(self, signature: Signature) -> None:
        """Serve calls of this signature."""
        self.signature = signature
        # whether arguments overlap, or have gradients, is asked in Python
        of_arguments = any(isinstance(x, int) for x, _ in self.accumulated)
        of_arguments = of_arguments or bool(self.turned)
        in_python = bool(self.placed or self.writes_arguments or self.to_arguments or self.seen_grads or of_arguments)
        self.template = None if in_python else signature.template(self.owners, self.same)
        self.tensors_only = signature.flat and len(signature.shapes) == len(signature.leaves)
        self.fast = self._packed()
        self.direct = self.result.alone  # what ``native.replay`` gives is the result
        trouble, raw = self._unsavable(), self.raw[0]
        self.programs[0].form = Form(signature, self.result, self.count, trouble, self.family, raw)

    def serve_all(self) -> None:
        """Serve calls with other arguments of the same form than those that the entry is bound to."""
        self.same = [None] * len(self.same)
        self._stamp(self.signature)

    def _packed(self) -> tuple[Any, ...] | None:
        """What ``native.replay`` wants to know; None where calls need more than it does."""
        waiting = self._waiting()
        plain = not (self.accumulated or self.bumped or self.conditions or self.result.passed or self.result.views)
        plain = plain and not (self.result.grads or self.tied or self.modes or self.handled)
        if self.template is None or waiting is None or not plain or self.expect_some or self.reach.copies:
            return None
        alone = gone = None
        if self.result.alone:
            at, alone, _ = self.result.made[0]
            gone = self.result.freed.get(at)
        return (
            self.template, self.reach.packed, self.reach.forms, self.expect_none, self.forgotten, waiting, self.cells,
            self.leaves, self.numbers, alone, gone, self._packed_pair(),
        )  # fmt: skip

    def _waiting(self) -> Any:
        """The list of instances that nobody runs now; None if there are none."""
        return getattr(getattr(self.run, "shelf", None), "waiting", None)

    def _packed_pair(self) -> Any:
        """What a node that C makes behind the results holds; None if there is none."""

    def finished(self, found: Any) -> Any:
        """The result, of what ``native.replay`` has found, where that is not the result itself."""
        return self.result.build(found, [])

    @property
    def whole(self) -> Program:
        """All that a replay runs, as one program."""
        return self.programs[0]

    def _unsavable(self) -> str | None:
        """What a program from a file could not do."""
        if self.leaves or self.to_arguments or self.accumulated:
            return "the program leaves gradients in `.grad` of tensors that only its source knows"
        if self.turned:
            return "it tells an argument to require gradients, or not to"
        if self.result.grads:
            return "it returns the gradient of a tensor that only its source knows"
        if self.signature.others:
            return f"an argument is an object of class {type(self.signature.others[0]).__name__}"
        if self.conditions is not None:
            return (
                "the program goes one way of several, by a truth or a mask that is read of its tensors (`if`, x[mask], "
                "nonzero()), and a file holds one: choose by where() or masked_fill(), or read them outside"
            )
        if any(same is not None for same in self.same):
            return "an argument is a tensor that the function also reaches by itself"
        return None

    def _written(self, trace: Trace, outputs: list[Any]) -> list[Program]:
        """The programs of the run, as they were written."""
        return [trace.program(outputs)]

    def link(self, raw: list[Program]) -> None:
        """Make what runs these programs."""
        self._note_writes(raw[0])
        self.programs = [optimize(raw[0])]
        self.run = executor(self.programs[0], self.shown)

    def _note_writes(self, program: Program) -> None:
        self.written = {v.root for call in program.calls for v in call.writes}
        self.writes_arguments = any(v.root in self.written for v in program.arguments)

    def first(self, signature: Signature) -> Any:
        """The result of the run that the program was written of."""
        self._first_gradients(signature)
        result = self.result.of_run(self.returned, signature.tensors)
        signature.forget()
        self.returned, self.given, self.result.roots = None, [], {}
        return result

    def _first_gradients(self, signature: Signature) -> None:
        """Send on what arrived at the arguments' stand-ins."""
        theirs = [at for at, _ in self.to_arguments if self.given[at] is not signature.tensors[at]]
        arrived = [(at, signature.tensors[at], self.given[at]._grad) for at in theirs]
        send_on([(at, t, grad) for at, t, grad in arrived if grad is not None], self.passes)

    def admits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call may be served by this entry, as far as C can tell; False may also be a shape of its own."""
        return self.template is not None and native.admits(self.template, args, kwargs) and self.holds()

    def overlapping(self, signature: Signature) -> bool:
        """Whether arguments that the program writes to share memory, or lie in what it reaches by itself."""
        if not self.writes_arguments:
            return False
        owners = [id(owner(t._data)) for t in {id(t._data): t for t in signature.tensors}.values()]
        return len(set(owners)) < len(owners) or not self.lies.isdisjoint(owners)

    def hooked(self, signature: Signature) -> bool:
        """Whether an argument, a leaf whose gradient the function itself makes, has hooks: these are Python."""
        made = {at for at, _ in self.to_arguments} | {who for who, _ in self.accumulated if isinstance(who, int)}
        return any(signature.tensors[at]._hooks or signature.tensors[at]._post_hooks for at in made)

    def decides(self, tensors: list[Tensor], answers: dict[Any, list[Any]]) -> bool:
        """Whether Python would take the way that it took when the program was written, and gradients that the program
        adds to lie in memory of their own. ``answers``: as ``Conditions`` has them."""
        if self.accumulated and not self._lie_apart(tensors):
            return False
        return self.conditions is None or self.conditions.met(self._arguments(tensors), answers)

    def ask_as(self, others: list[Entry]) -> None:
        """Ask by the programs of other entries, where these ask the same."""
        for other in others:
            if self.conditions is not None and other.conditions is not None and self._adds_as(other):
                self.conditions.ask_as(other.conditions)

    def _adds_as(self, other: Entry) -> bool:
        mine, theirs = ([x if isinstance(x, int) else id(x) for x, _ in e.accumulated] for e in (self, other))
        return mine == theirs

    def _lie_apart(self, tensors: list[Tensor]) -> bool:
        return apart([g._data for g in self._added_to(tensors)], [t._data for t in tensors], self.there)

    def _turn(self, tensors: list[Tensor]) -> None:
        """Tell arguments to require gradients, or not to, and modules to train, or not to, as the run has."""
        for i, on in self.turned:
            tensors[i].requires_grad = on
        for attributes, _, left in self.modes:
            attributes["training"] = left

    @contextlib.contextmanager
    def as_before(self) -> Iterator[None]:
        """A block with the modes that the run has found, if modules are in those that it has left; behind it they are
        as they are now, whatever runs in it."""
        now = [attributes["training"] for attributes, _, _ in self.modes]
        if now == [left for _, _, left in self.modes]:
            for attributes, before, _ in self.modes:
                attributes["training"] = before
        try:
            yield
        finally:
            for (attributes, _, _), mode in zip(self.modes, now, strict=True):
                attributes["training"] = mode

    def _arguments(self, tensors: list[Tensor]) -> list[Any]:
        """The arrays that the program is given."""
        return [*(t._data for t in tensors), *(g._data for g in self._added_to(tensors))]

    def _added_to(self, tensors: list[Tensor]) -> list[Tensor]:
        """The gradients that the program adds to."""
        found = [(tensors[who] if isinstance(who, int) else who)._grad for who, _ in self.accumulated]
        return [g for g in found if g is not None]

    def tensors_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call that ``admits`` accepts, in the order of the first call."""
        if not kwargs:
            return list(args) if self.tensors_only else [x for x in args if isinstance(x, Tensor)]
        found = (*args, *(kwargs[name] for name in self.signature.names))
        return [x for x in found if isinstance(x, Tensor)]

    def fits(self, signature: Signature) -> bool:
        """The same in Python, for every kind of arguments."""
        if signature.key != self.signature.key:
            return False
        added = {who for who, _ in self.accumulated if isinstance(who, int)}
        if any(signature.tensors[at]._grad is not None for at, _ in self.to_arguments if at not in added):
            return False
        if any((signature.tensors[at]._grad is not None) != had for at, had in self.seen_grads):
            return False
        for who, expected in self.accumulated:
            if isinstance(who, int) and not _has_gradient(signature.tensors[who], expected):
                return False
        histories = [t for at, _ in self.to_arguments if (t := signature.tensors[at])._node is not None]
        if histories and self.reach.waits_for(histories):
            return False
        if any(broken(signature.tensors[at].grad_fn) is not None for at in self.gone_through):
            return False  # a run raises where its pass is, and does nothing of what comes behind
        for t, same in zip(signature.tensors, self.same, strict=True):
            if t._data is not same if same is not None else id(owner(t._data)) in self.owners:
                return False
        return self.holds()

    def holds(self) -> bool:
        """Whether a replay would do what a run does now."""
        for leaf in self.expect_none:
            if leaf._grad is not None:
                return False
        for leaf in self.expect_some:
            if leaf._grad is None:
                return False
        for who, expected in self.accumulated:
            if not isinstance(who, int) and not _has_gradient(who, expected):
                return False
        for who, array in self.tied:
            if who._grad is None or who._grad._data is not array:
                return False
        return self.reach.holds()

    def replay(self, tensors: list[Tensor]) -> Any:
        """The program's results for these arguments, and its effects."""
        given = self._arguments(tensors)
        self._turn(tensors)
        for g in self._added_to(tensors):
            g._bump()
        for leaf in self.forgotten:
            leaf._grad = None
        arrays = self.run(given)
        self._settle(tensors, arrays)
        return self.result.build(arrays, tensors)

    def tried(self, tensors: list[Tensor]) -> tuple[Any] | None:
        """The result of a replay, in a tuple; None if it raises, and then all is as it was before."""
        grads = [(leaf, leaf._grad) for leaf in self.forgotten]
        turned = [(tensors[i], tensors[i].requires_grad) for i, _ in self.turned]
        modes = [(attributes, attributes["training"]) for attributes, _, _ in self.modes]
        try:
            return (self.replay(tensors),)
        except _OF_KERNELS:  # the run that follows raises it again, where the function doesn't handle it
            for leaf, grad in grads:
                leaf._grad = grad
            for t, on in turned:
                t.requires_grad = on
            for attributes, training in modes:
                attributes["training"] = training
            return None

    def _settle(self, tensors: list[Tensor], arrays: list[Any]) -> None:
        """Count the changes of what the program has written to, and give leaves their gradients."""
        if native is not None:
            native.bump(self.cells)
        else:
            for cell in self.cells:
                cell[0] += 1
        for i in self.bumped:
            tensors[i]._bump()
        grant(self.leaves, self.numbers, arrays)
        arrived = []
        for at, number in self.to_arguments:
            leaf = tensors[at]
            if leaf._node is None:
                grant([leaf], [number], arrays)
            elif number is not None:
                arrived.append((at, leaf, wrap(arrays[number])))
        if arrived:
            send_on(arrived, self.passes)


def _check_owners(reach: Reach, before: Before, trace: Trace, given: list[Tensor]) -> None:
    """Raises CompileError for a tensor that the run has read, and that nobody here knows the way to: where it was,
    another may be in the next call."""
    known = {id(owner(t._data)) for t in before.known}
    for optimizer in reach.optimizers:
        known |= {id(owner(array)) for array in optimizer.own_arrays()}
    for value, array in trace.state.items():
        if not value.constant and value not in trace.of_host and id(owner(array)) not in known:
            reader = next((s for s in trace.steps if isinstance(s, Call) and value in s.reads() and s.line), None)
            where = f" at {describe_line(reader.line)}" if reader is not None else ""
            beyond = next((i for i, t in enumerate(given) if owner(t._data) is owner(array)), None)
            if beyond is not None and reader is not None and not any(t._data is array for t in given):
                raise CompileError(
                    f"compile: {reader.op.name}{where} looks at memory of shape {value.shape} that argument {beyond}, "
                    f"of shape {tuple(given[beyond].shape)}, is a view of; a program is given the argument alone. Pass "
                    "the tensor that owns the memory and take the view within the function, or pass argument.clone() "
                    "if its own elements are enough."
                )
            raise CompileError(
                f"compile: the function reads a tensor of shape {value.shape}{where} that is found neither among its "
                "arguments nor by its closure, its globals and the attributes of what is there. Pass it as an "
                "argument, or "
                "keep it as an attribute of a module."
            )


def grant(leaves: list[Tensor], numbers: list[int | None], arrays: list[Any]) -> None:
    """The leaves' gradients become these arrays."""
    if native is not None:
        native.grant(leaves, numbers, arrays)
        return
    for leaf, number in zip(leaves, numbers, strict=True):
        leaf._grad = None if number is None else wrap(arrays[number])


def _has_gradient(leaf: Tensor, expected: Any) -> bool:
    return leaf._grad is not None and form(leaf._grad._data) == expected


def form(array: Any) -> Any:
    return type(array), array.shape, array.strides, array.dtype
