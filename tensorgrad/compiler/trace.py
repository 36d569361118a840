"""One ordinary run, written down: what passes the door becomes calls over values instead of arrays."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any

import numpy as np

from ..autograd.node import describe_line, user_line
from ..device import _default as default_device
from ..dispatch import OPS, Picking, Reads, local
from ..errors import CompileError
from ..ops.convert import address_of
from ..ops.selected import settled
from .facts import elements, get
from .handlers import is_handled, unsettled
from .known import arrays_in, is_array
from .passes import duplicates
from .program import Action, Call, Program, Unless, Value, values_in
from .refusing import Refusing
from .signature import owner
from .standing import StandIns
from .tentative import Refused, Tentative
from .tracked_sizes import SizesRead, untracked
from .users_line import at_users_line, is_users_call, line_in

__all__ = ["Trace"]

_SHORT = 64  # bytes of what Python may read as a condition,
_SIZES = 4096  # of lengths and counts that this package reads, as those of packed sequences,
_MASK = 1 << 20  # and of what decides how large a result is, as a mask does


class Trace(Refusing):
    """A listener that writes a program while a function runs.

    Args:
        arguments: arrays that later replays are given anew.
        splits: where Python reads truths or integers, note them as conditions of the program, instead of raising.
        grads: tensors by the identities of their gradients' arrays: one that the run reads is an argument as well.
        code: of the function that runs; ``read_at`` is its line where Python first reads what the run computes.
        outside: arguments that stand for tensors with a history, by identity: (number, the tensor).
        reach: what the function reaches.
        stand_ins: (number, what stands for an argument, the argument), by identity of the stand-in.
        above: the code that runs the function.

    An array that no call has made and that is no argument was there before: it belongs to the program's state and is
    used where it lies.
    """

    def __init__(
        self, arguments: list[Any], grads: dict[int, Any], *, splits: bool = False, code: CodeType | None = None,
        outside: dict[int, tuple[int, Any]] | None = None, reach: Any = None,
        stand_ins: dict[int, tuple[int, Any, Any]] | None = None, above: CodeType | None = None,
    ):  # fmt: skip
        super().__init__(arguments, splits, code, reach)
        self.place: tuple[Any, int] | None = None  # the backend that computes, and the number of its device
        self.place_told = False  # whether arrays that a replay is given, or finds, tell it
        for array in arguments:
            apart = self._lies_apart(array, given=True)
            if apart is not None:
                self.refused, self.unsplit = (None, apart) if splits else (apart, None)
        self.standing = StandIns(self, outside or {}, stand_ins or {}, reach)
        self.state: dict[Value, Any] = {}
        self.grads: dict[int, tuple[Any, Any]] = {}
        self.cleared: set[int] = set()
        self.asked: set[int] = set()  # whose gradients Python has seen as they were before
        self.number = 0
        self.of_host: set[Value] = set()  # what actions fill
        self.sizes_read: SizesRead | None = None
        self.read_at: int | None = None
        self.line_read: tuple[CodeType, int] | None = None  # the user's, of the last that is a condition
        self.conditions: list[tuple[Value, bytes, int]] = []  # what Python has read, and after which step
        self.grads_before = grads
        self.accumulated: list[Any] = []
        self.constants: set[Value] = set()  # what is made anew of a constant
        self.changed: set[Any] = set()  # memory that some call has written to
        self.copies: dict[Value, tuple[Any, str]] = {}  # in place of views: the memory that they would show, and where
        self.stale: set[Value] = set()  # of these: what they would show has changed
        self.parts = ["forward"]  # the part of the program that runs, and those around it
        self.unless: list[tuple[Value, list[Call | Action], Any]] = []  # flags, the steps before, the user's lines
        self.inner: dict[Value, Any] = {}  # what was made where a flag decides, and the line of that
        self.postponed: str | None = None  # why another run has to be waited for
        self.facts: list[tuple[str, Any, Any, Any]] = []  # what Python has seen that is no tensor, as ``Facts`` has it
        self.copies_seen: list[tuple[str, Any, Any]] = []
        self.selections: list[weakref.ref[Any]] = []
        self.tentative = Tentative(self)
        self.above = above
        self.handled = False  # whether an error that a call may raise would be handled by the user's code
        self.handled_late = False  # and behind what can't be taken back
        self._reached: dict[int, Any] | None = None  # tensors that the function reaches, by identities of their arrays

    # --- where it computes

    def _lies_apart(self, array: Any, *, given: bool) -> str | None:
        """Why there is no program, if an array lies on another device than others before. ``given``: whether a replay
        has it too."""
        if type(array) is np.ndarray:
            return None
        backend = getattr(local.plain.of(array), "backend", None)
        if backend is None or (place := backend.place_of(array)) is None:
            return None
        self.place_told = self.place_told or given
        if self.place is None:
            self.place = backend, place
        if self.place == (backend, place):
            return None
        a, b = (f"{backend.device_type}:{number}" for number in sorted((place, self.place[1])))
        return (
            f"compile: tensors on {a} and on {b} are used{at_users_line(3)}. A program computes on one device. Compile "
            "a function for each device, or give compile(..., fallback=True)."
        )

    def _made_elsewhere(self) -> str | None:
        """Why there is no program, if replays would make tensors on the current device, and the run has not."""
        if self.place is None or self.place_told or self.place[0].current_place() == self.place[1]:
            return None
        device = f"{self.place[0].device_type}:{self.place[1]}"
        return (
            f"compile: tensors are made on {device}, which is not the current device, and no tensor that was there "
            "before tells a replay so. Pass one as an argument, make the device the current one (with "
            "tg.cuda.device(...)), or give compile(..., fallback=True)."
        )

    # --- values

    def value_of(self, array: Any) -> Value:
        """The value of an array; one that is not known was there before the run."""
        found = self.values.get(id(array))
        if found is None and id(array) in self.grads_before:
            self.accumulated.append((self.grads_before[id(array)], array))
            found = self._enter(array, Value(f"grad{len(self.accumulated)}", array))
            self.arguments.append(found)
        elif found is None:
            root = self._root(array)
            if root is not None and root.array is None:
                if not self._is_reached(array):
                    return self._cut(array)
                root = None  # it was there before, in the memory of an argument of this call
            apart = self._lies_apart(array, given=True)
            if apart is not None:
                self.refuse(apart)
            found = Value(f"state{len(self.state)}", array, root, fixed=True)
            self.state[found] = array  # which keeps it alive, so its identity stays its own
            self.values[id(array)] = found
        if self.inner and found.root in self.inner:
            line = self.inner[found.root]
            where = f" at {describe_line(line)}" if line else ""
            self.refuse(
                f"compile: what is made within a step that may be left out{where} (an optimizer's, where a gradient is "
                "infinite) is used behind it, where it might not be there. Make it before the step, or keep it in a "
                "tensor that was there before, and change that in place."
            )
        return found

    def _is_reached(self, array: Any) -> bool:
        if self._reached is None:
            tensors = () if self.reach is None else [t for _, t in self.reach.tensors.values()]
            self._reached = {id(t._data): t for t in tensors}
        found = self._reached.get(id(array))
        return found is not None and found._data is array

    def _cut(self, array: Any) -> Value:
        """The value of a view that was made past the door (by the engine, of a gradient's place)."""
        base = array.base
        while id(base) not in self.values:
            base = base.base
        item = array.dtype.itemsize
        if array.dtype != base.dtype:
            self.refuse(f"compile: elements of {base.dtype} are seen as {array.dtype}, which no program can follow.")
            self.number += 1
            return self._enter(array, Value(f"%{self.number}", array))
        start = address_of(array) - address_of(base)
        attrs = {
            "size": tuple(array.shape), "stride": tuple(step // item for step in array.strides),
            "offset": start // item,
            "within": tuple(step // item for step in base.strides),
        }  # fmt: skip
        whole = self.values[id(base)]
        # where a flag decides, a view of what was made before is not for these steps alone
        steps = self.steps
        for _, outer, _ in self.unless:
            if any(whole.root in getattr(step, "results", ()) for step in outer) or whole.root in self.arguments:
                steps = outer
                break
        self.number += 1
        made = self._enter(array, Value(f"%{self.number}", array, whole.root))
        steps.append(Call(OPS["as_strided"], type(array), (whole,), attrs, (made,), (), user_line(3), self.parts[-1]))
        return made

    def _root_by_input(self, array: Any, inputs: list[Any]) -> Value | None:
        """The value whose memory a result lies in, where one of the arrays of the inputs is a view itself: NumPy then
        knows the owner alone."""
        if getattr(array, "base", None) is None:
            return None
        whole = owner(array)
        return next((self.value_of(x).root for x in inputs if owner(x) is whole), None)

    def _values(self, what: Any, arrays: list[Any], read: list[Value]) -> Any:
        """Arrays replaced by their values, in lists and tuples too. Both are noted in these lists."""
        if type(what) in (list, tuple):
            return type(what)([self._values(part, arrays, read) for part in what])
        if not is_array(what):
            return untracked(what)
        found = self.value_of(what)
        arrays.append(what)
        read.append(found)
        return found

    # --- what the door tells

    def after(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        line = user_line(3)
        if op.sized_by_data and self._is_settled(inputs) and all(map(_is_packed, outputs)):
            for array in outputs:
                if array is not None:
                    self.made(array, None)
            return
        if op.sized_by_data:
            self.refuse(self._sized_by_data(f"{op.name}'s result", line, op.fixed))
        arrays: list[Any] = []
        read: list[Value] = []
        given = self._values(inputs, arrays, read)
        of_inputs = list(arrays)
        named = {key: self._values(value, arrays, read) for key, value in attrs.items()}
        there = set(map(id, arrays))
        writes = tuple(dict.fromkeys(_written(op.name, given, named)))
        if self.copies:
            self._check_copies(read, writes)
        self.changed.update(v.memory for v in writes)
        results: list[Value | None] = []
        for array in outputs:
            if not is_array(array) or id(array) in there:
                results.append(None)
                continue
            self.number += 1
            # where arguments lie in one memory, a view is one of its input: NumPy knows the owner alone
            root = self._root_by_input(array, of_inputs[:1]) if op.view else None
            root = root or self._root(array) or self._root_by_input(array, of_inputs)
            results.append(self._enter(array, Value(f"%{self.number}", array, root)))
        if op.raises and not self.handled_late and is_handled(self.above):
            self.handled = True
            before = [step for _, outer, _ in self.unless for step in outer] + self.steps
            self.handled_late = bool(self.unless) or unsettled(before, self.arguments)
        if not of_inputs:
            self.asks("the default device", default_device, "place")
            apart = self._lies_apart(outputs[0], given=False)
            if apart is not None:
                self.refuse(apart)
        kind = type(of_inputs[0] if of_inputs else outputs[0])
        self.steps.append(Call(op, kind, given, named, tuple(results), writes, line, self.parts[-1]))

    def raised(self, op: Any) -> None:
        # where the function goes on, it has gone a way that it goes for such operands only
        self.postponed = f"{op.name} raised in a run, which handled it"

    def counts(self, x: Any) -> bool:
        return not (self._leaves_counting() or self._is_settled((x._data,)))

    def _leaves_counting(self) -> bool:
        """Whether a shape that depends on data is left to Python, or to another program for each size of a batch."""
        return bool(self.splits or self.unless or self.sizes_read is not None)

    def selects(self, mask: Any) -> Picking | None:
        if self._is_settled((mask._data,)):
            return None
        if not self._leaves_counting():
            own = local.plain[type(mask._data)].backend.sums_formulas  # whose programs sum in orders of their own
            self.tentative.exact, self.tentative.sums = not own, own
            return self.tentative
        why = self._sized_by_data("x[mask]", user_line(3), None)
        at = None if self.code is None else line_in(self.code)
        return Refused(lambda: self.refuse(why, at))

    def _sized_by_data(self, what: str, line: Any, fixed: str | None) -> str:
        where = f" at {describe_line(line)}" if line else ""
        instead = fixed or "a form of fixed shape (where(), masked_fill(), a weighted sum)"
        if self.sizes_read is not None and fixed is None:
            return (
                f"compile: the shape of {what}{where} depends on the data, and with dynamic=True only the size of a "
                f"batch may be another. Use {instead}, or leave dynamic=True out: then there is a program for each "
                "number of elements."
            )
        return (
            f"compile: the shape of {what}{where} depends on the data, and a program has fixed shapes. Use {instead}; "
            "leave this part out of the compiled function, or give compile(..., fallback=True). A mask that is the "
            "same in each call may be kept as a tensor of booleans or integers where the function reaches it, by a "
            "closure, a global or an attribute."
        )

    def selected(self, selection: Any) -> None:
        self.selections.append(weakref.ref(selection))

    def alike(self, mask: Any, other: Any) -> bool:
        if self.unless:
            return False
        both = self.value_of(mask._data), self.value_of(other._data)
        probe = Call(OPS["logical_and"], type(mask._data), both, {}, (Value("probe", mask._data),), (), None)
        read = duplicates.run(Program([*self.steps, probe], self.arguments, [])).calls[-1].inputs
        return read[0] is read[1]

    def _is_settled(self, inputs: tuple[Any, ...]) -> bool:
        """Whether all elements that a call reads are as they were before the run: constants, or booleans and integers
        of the state, which then must be the same in the next call."""
        found = [(self.value_of(array), array) for array in arrays_in(inputs)]
        for v, _ in found:
            if v in self.of_host or v.memory in self.changed:
                return False
            state = v.root.array is not None and v.dtype.kind in "biu" and v.nbytes <= _MASK
            if not (state or v.root in self.constants or v.root.constant):
                return False
        known = {id(v.array) for v, _, _ in self.conditions}
        for v, array in found:
            if v.root.array is not None and not v.root.constant and id(array) not in known:
                self.conditions.append((_in_state(v, array), _bytes_of(array), 0))
        return True

    def host(self, action: Callable[[], Any], reads: Reads | None, counts: tuple[Any, ...]) -> None:
        self.steps.append(Action(action, reads, counts))

    def enter(self, name: str) -> None:
        """A named region begins; of interest are the backward pass and an optimizer's step."""
        kind = "optimizer" if name.startswith("Optimizer.step#") else name
        self.parts.append(kind if kind in ("backward", "optimizer") else self.parts[-1])

    def leave(self, name: str) -> None:
        self.parts.pop()

    def enter_unless(self, flag: Any, is_set: bool) -> None:
        """What follows is done unless the flag is set, now and in each replay."""
        self.unless.append((self.value_of(flag._data), self.steps, user_line(3)))
        self.steps = []
        if is_set:  # the run doesn't show what is done otherwise
            self.postponed = "a gradient was not finite, so the call showed no step of the optimizer"

    def leave_unless(self) -> None:
        flag, outer, line = self.unless.pop()
        steps, self.steps = self.steps, outer
        self.inner.update((v, line) for v in _made_by(steps))
        if steps:
            self.steps.append(Unless(flag, steps, line, "optimizer"))

    def grad(self, tensor: Any) -> None:
        """A tensor's gradient was set or forgotten."""
        if self.unless:
            where = at_users_line(3)
            self.refuse(
                f"compile: a gradient is set or forgotten{where} within a step that may be left out (an optimizer's, "
                "where another gradient is infinite). Do it before the step or behind it."
            )
        if tensor._grad is None and id(tensor) not in self.grads:
            self.cleared.add(id(tensor))
        self.grads[id(tensor)] = tensor, tensor._grad

    def grad_read(self, tensor: Any) -> None:
        """Python may go another way where there is a gradient than where there is none."""
        if id(tensor) not in self.grads:
            self.asked.add(id(tensor))

    def made(self, array: Any, source: Any) -> None:
        """An array was made of Python's numbers, which are constant like all of them, or of another library's array."""
        foreign = hasattr(source, "__dlpack__") or hasattr(source, "__cuda_array_interface__")
        if foreign and is_users_call(_MAKERS):
            where = at_users_line(3)
            kind = "a NumPy array" if isinstance(source, np.ndarray) else f"another library's {type(source).__name__}"
            self.refuse(
                f"compile: a tensor is made of {kind}{where}. A replay runs no Python, so it would hold the elements "
                "of the first call for ever. Make the tensor outside and pass it as an argument, or keep it where the "
                "function reaches it."
            )
        flags = getattr(array, "flags", None)  # none of a mapped one
        if flags is None or not flags.c_contiguous:
            return
        # whoever gets it may write to it: each replay makes it anew
        apart = self._lies_apart(array, given=True)
        if apart is not None:
            self.refuse(apart)
        kept = array.copy()
        pristine = Value(f"constant{self.number}", kept, fixed=True)
        pristine.constant = True
        self.number += 1
        made = self._enter(array, Value(f"%{self.number}", array))
        self.state[pristine] = kept
        self.constants.add(made)
        self.steps.append(Call(OPS["contiguous_copy"], type(array), (pristine,), {}, (made,), (), user_line(3),
                               self.parts[-1]))  # fmt: skip

    def keeps(self, index: Any, shown: bool) -> bool:
        """A position in a key stays a tensor: it may be another one in the next replay. But a run that goes on as it
        is, where no program can be written of it, must not have a copy in place of a view."""
        return shown or not self.splits

    def stands_for(self, array: Any, base: Any, view: Any) -> None:
        """A copy of what a position shows, which would be a view if Python had read the position."""
        line = user_line(3)
        copy = self.value_of(array)
        self.copies[copy] = self.value_of(base).memory, describe_line(line) if line else "?"
        if view is not None:
            self._enter(view, copy)

    def _check_copies(self, read: list[Value], writes: tuple[Value, ...]) -> None:
        """Refuses where a copy and a view would differ."""
        for v in writes:
            if v.root in self.copies:
                self.refuse(
                    f"compile: what was picked at {self.copies[v.root][1]} is written to. The position is a tensor, so "
                    "in a program it is a copy and no view; write x[position] = value instead."
                )
        for v in read:
            if v.root in self.stale and v not in writes:
                self.refuse(
                    f"compile: what was picked at {self.copies[v.root][1]} is read after the tensor that it shows was "
                    "written to. The position is a tensor, so in a program it is a copy and no view; pick it again, or "
                    "add .clone() if the old elements are meant."
                )
        changed = {v.memory for v in writes}
        self.stale.update(v for v, (owner, _) in self.copies.items() if owner in changed)

    def filled(self, array: Any) -> None:
        """An array that an action fills in each replay: whoever reads it on the host belongs to an action too."""
        self.of_host.add(self.value_of(array))

    def read(self, tensor: Any) -> None:
        """A tensor's elements are about to be read by Python."""
        value = self.value_of(tensor._data)
        ours = not is_users_call(_READERS)  # a check or a size within this package, not the user's `if`
        if value.root.constant or (value in self.of_host and ours):
            return
        where = at_users_line(3)
        computed = value.root.array is None or value in self.of_host
        splits = self.splits or ours
        most = _SIZES if ours and value.dtype.kind in "biu" else _SHORT
        if not computed and value.memory not in self.changed:
            # it was there before: what the next call finds there must be the same
            if value.nbytes > most:
                self.refuse(
                    f"compile: Python reads a tensor of shape {value.shape}{where}, whose elements the next call may "
                    "find changed. A replay runs no Python. Use ops on the tensor, read it outside of the compiled "
                    "function, or pass a list of numbers if they are the same in each call."
                )
                return
            self.conditions.append((_in_state(value, tensor._data), _bytes_of(tensor._data), 0))
            return
        if self.read_at is None and self.code is not None:
            self.read_at = line_in(self.code)
        if self.unless and splits:
            self.refuse(f"compile: Python reads what is computed{where} within a step that may be left out")
            return
        if splits and (ours or value.dtype.kind in "biu") and value.nbytes <= most:
            self.conditions.append((value, _bytes_of(tensor._data), len(self.steps)))
            self.line_read = user_line(3)
            return
        self.refuse(
            f"compile: Python reads a tensor that the compiled function {'computes' if computed else 'changes'}"
            f"{where}: item(), numpy(), tolist(), print, if or while. A replay runs no Python. Return the tensor and "
            "read it outside, use where() instead of `if`, or give compile(..., fallback=True). Where it is a place, "
            "let it stay a tensor: x[:, position], x[:, position] = y, index_select(), index_copy_()."
        )

    def place_read(self, tensor: Any) -> None:
        if self.value_of(tensor._data).root in self.arguments:
            where = at_users_line(3)
            self.refuse(
                f"compile: storage_offset() of an argument is read{where}, which may be another view in the next call. "
                "Pass the number beside it, or give compile(..., fallback=True)."
            )

    def asks(self, path: str, holder: Any, key: Any) -> None:
        if key is None:
            self.copies_seen.append((path, holder, elements(holder)))
        elif not any(holder is known and key == name for _, known, name, _ in self.facts):
            self.facts.append((path, holder, key, get(holder, key)))

    def rewrites(self, tensor: Any) -> None:
        self.standing.rewrites(tensor)

    def differentiates(self, roots: Any, inputs: Any, retain: bool, accumulate: bool) -> tuple[Any, Any]:
        return self.standing.differentiates(roots, inputs, retain, accumulate)

    # --- the end

    def settle(self) -> None:
        """The run is over: what a mask has picked, and was returned or left somewhere, is there for all to see."""
        elsewhere = self._made_elsewhere()
        if elsewhere is not None:
            self.refuse(elsewhere)
        if self.refused is not None:
            raise CompileError(self.refused)
        left = [selection for found in self.selections if (selection := found()) is not None]
        for say in [settled(selection) for selection in left]:
            if say is not None:
                say()
        self.steps, self.conditions = self.tentative.settle(self.steps, self.conditions)

    def check_returned(self, arrays: list[Any]) -> None:
        """Raises CompileError for a copy that stands for a view of what was there before, or is returned too."""
        found = [v for array in arrays if (v := self.values.get(id(array))) is not None]
        seen = {v.memory for v in (*self.arguments, *found) if v.root not in self.copies}
        if any(v in self.of_host for v in found):
            raise CompileError(
                "compile: the state of a generator is returned (get_state(), get_rng_state()), which each call fills "
                "anew at one place. Call it outside of the compiled function."
            )
        for v in found:
            owner, where = self.copies.get(v.root, (None, ""))
            if owner is not None and (type(owner) is int or owner in seen):
                raise CompileError(
                    f"compile: what was picked at {where} is returned. The position is a tensor, so in a program it is "
                    "a copy and no view of the tensor that it was picked from; return x[position].clone()."
                )

    def program(self, outputs: list[Any]) -> Program:
        """The program that computes these arrays."""
        self.check_returned(outputs)
        return Program(self.steps, self.arguments, [self.value_of(array) for array in outputs])


def _made_by(steps: list[Call | Action]) -> Any:
    """What steps make, those within an ``Unless`` too."""
    for step in steps:
        if isinstance(step, Unless):
            yield from _made_by(step.steps)
        elif isinstance(step, Call):
            yield from (v for v in step.results if v is not None)


def _in_state(value: Value, array: Any) -> Value:
    """The value of an array that lies in the state, for what is asked before the program runs: a view that a call of
    it makes is not there yet."""
    return value if value.array is not None else Value(value.name, array, value.root, fixed=True)


def _is_packed(array: Any) -> bool:
    flags = getattr(array, "flags", None)
    return array is None or (flags is not None and bool(flags.c_contiguous))


def _bytes_of(array: Any) -> bytes:
    return (np.array(array) if isinstance(array, np.ndarray) else np.array(array.get())).tobytes()


_MAKERS = ("dispatch.py", "create.py", "exchange.py")
_READERS = ("dispatch.py", "convert.py", "exchange.py", "tensor.py", "attributes.py", "text.py")


def _written(name: str, inputs: tuple[Any, ...], attrs: dict[str, Any], parts: Callable[[Any], Any] = values_in) -> Any:
    """The values whose memory a call changes, by the names of ops and attributes that write; the arrays, if these are
    the ``parts`` of what it is given."""
    if attrs.get("out") is not None:
        yield from parts(attrs["out"])
    if name.endswith("_into"):
        yield from parts(inputs[0])
    elif name.endswith("_"):  # parameters and states of an optimizer; second come gradients, or a factor
        yield from parts([x for i, x in enumerate(inputs) if i != 1])
