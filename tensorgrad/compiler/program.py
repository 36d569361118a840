"""A program: calls of ops over values, what they do to tensors that the user holds, and its replay in Python.

A value stands for an array. Those that were there before (parameters, buffers, an optimizer's state, the arguments)
come in from outside; calls make the others. Calls stand in the order in which they ran. One that writes into an array
says
so: it is a step that no pass may drop, or move across another call that touches the same memory.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from ..dispatch import Reads, local
from ..random import Generator
from .signature import owner

__all__ = ["UNASKED", "Action", "Call", "Program", "Tally", "Unless", "Value", "values_in"]

UNASKED = object()
"""A call's ``formula`` that nobody has asked for yet."""


class Value:
    """An array of the program.

    ``shape``, ``dtype``, ``strides`` (bytes): of the array. ``root``: the value whose memory it lies in, itself for one
    with memory of its own. ``array``: what it is in every replay, where that never changes (state, constants); None for
    arguments and for what a call makes. ``constant``: its elements never change either. ``name``: how prints call it.
    """

    __slots__ = ("_memory", "_steps", "array", "constant", "dtype", "name", "root", "shape", "strides")

    def __init__(self, name: str, array: Any, root: Value | None = None, *, fixed: bool = False):
        self.name = name
        self.shape = tuple(array.shape)
        self.dtype = array.dtype
        self.strides = tuple(array.strides)
        self.root = self if root is None else root
        self.array = array if fixed else None
        self.constant = False
        self._memory: Any = None
        self._steps: tuple[int, ...] | None = None

    @property
    def strides_in_items(self) -> tuple[int, ...]:
        """By axis, how many elements lie between two neighbours; 0 along axes of one element."""
        found = self._steps
        if found is None:
            size = int(self.dtype.itemsize)
            found = tuple([s // size if n != 1 else 0 for n, s in zip(self.shape, self.strides, strict=True)])
            self._steps = found
        return found

    @property
    def memory(self) -> Any:
        """What stands for the memory that it lies in, equal for values that may share elements: a number for what was
        there before."""
        found = self._memory
        if found is None:
            array = self.array if self.array is not None else self.root.array
            found = self._memory = self.root if array is None else id(owner(array))
        return found

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie one after the other in C's order."""
        if 0 in self.shape:
            return True
        step = int(self.dtype.itemsize)
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True

    @property
    def nbytes(self) -> int:
        count = int(self.dtype.itemsize)
        for size in self.shape:
            count *= size
        return count

    def __repr__(self) -> str:
        return self.name


class Call:
    """One call of an op: ``results = op(*inputs, **attrs)``, where Values stand for arrays, in lists and tuples too.

    ``results[i]`` is None for a result that nobody names: None itself, or one of the inputs. ``writes``: the values
    whose memory the call changes. ``kind``: the array type whose door is asked. ``line``: the user's line. ``part``:
    "forward", "backward" or "optimizer", where that is known. ``formula``: what ``formula_of`` has found of the call
    alone, ``UNASKED`` until then.
    """

    __slots__ = ("_draws", "_reads", "attrs", "formula", "inputs", "kind", "line", "op", "part", "results", "writes")

    def __init__(
        self, op: Any, kind: type, inputs: tuple[Any, ...], attrs: dict[str, Any], results: tuple[Value | None, ...],
        writes: tuple[Value, ...], line: Any, part: str | None = None,
    ):  # fmt: skip
        self.op = op
        self.kind = kind
        self.inputs = inputs
        self.attrs = attrs
        self.results = results
        self.writes = writes
        self.line = line
        self.part = part
        self.formula: Any = UNASKED
        self._reads: tuple[Value, ...] | None = None
        self._draws: bool | None = None

    def reads(self) -> Iterator[Value]:
        """Every value among the inputs and attributes."""
        if self._reads is None:
            self._reads = (*values_in(self.inputs), *values_in(list(self.attrs.values())))
        return iter(self._reads)

    @property
    def draws(self) -> bool:
        """Whether it takes numbers from a generator, which changes it."""
        if self._draws is None:
            self._draws = self._has_generator()
        return self._draws

    def _has_generator(self) -> bool:
        return any(_holds_generator(x) for x in (*self.inputs, *self.attrs.values()))

    def __repr__(self) -> str:
        made = ", ".join("_" if v is None else v.name for v in self.results)
        given = [repr(x) for x in self.inputs] + [f"{k}={v!r}" for k, v in self.attrs.items()]
        return f"{made} = {self.op.name}({', '.join(given)})"


class Action:
    """Something the host does at this place of the program: an optimizer counts its step, a generator is seeded.

    ``tensors``, ``counts``: ``reads`` and ``counts`` of ``dispatch.host``.
    """

    __slots__ = ("counts", "run", "tensors")

    def __init__(self, run: Callable[[], Any], reads: Reads | None = None, counts: tuple[Any, ...] = ()):
        self.run = run
        self.tensors = reads
        self.counts = counts

    def independent_of(self, kind: type) -> bool:
        """Whether it may be run before calls on arrays of this type that stand before it."""
        return self.tensors is not None and not any(isinstance(x._data, kind) for x in self.tensors())

    def __repr__(self) -> str:
        return f"host: {getattr(self.run, '__qualname__', self.run)}"


class Tally:
    """What the actions of a replay have counted for a call that is still to come: the next one that writes to state. If
    that raises, or what comes before it does, its step is none, and the next one has its number."""

    __slots__ = ("_counted",)

    def __init__(self) -> None:
        self._counted: list[tuple[Any, Any]] = []  # arrays, as they were

    def act(self, action: Action) -> None:
        self._counted += [(array, array.copy()) for array in action.counts]
        action.run()

    def settle(self) -> None:
        """The call has been made."""
        self._counted.clear()

    def take_back(self) -> None:
        for array, before in reversed(self._counted):
            array[...] = before
        self._counted.clear()


class Unless(Call):
    """Steps that a replay takes unless a flag is set, a bool value of one element: an optimizer's step, unless a
    gradient is infinite.

    To passes it is one call: it reads the flag, what others have made and the state that the ``steps`` read, and writes
    what they write. What they make themselves nobody else reads.
    """

    __slots__ = ("flag", "steps")

    def __init__(self, flag: Value, steps: list[Call | Action], line: Any, part: str | None = None):
        self.flag = flag
        self.steps = steps
        calls = [step for step in steps if isinstance(step, Call)]
        own = {v for call in calls for v in call.results if v is not None}
        read = [v for v in dict.fromkeys(v for call in calls for v in call.reads()) if v not in own]
        writes = dict.fromkeys(v for call in calls for v in call.writes if v.root not in own)
        given = [v for v in read if v.array is None]
        state = [v for v in read if v.array is not None]
        kind = next((call.kind for call in calls), type(flag.array))
        super().__init__(_UNLESS, kind, (flag, given, state), {}, (None,), tuple(writes), line, part)

    @property
    def acts(self) -> bool:
        """Whether the host does something among the steps."""
        return any(isinstance(step, Action) or (isinstance(step, Unless) and step.acts) for step in self.steps)

    def _has_generator(self) -> bool:
        return any(isinstance(step, Call) and step.draws for step in self.steps)

    def with_steps(self, steps: list[Call | Action], flag: Value | None = None) -> Unless:
        """The same with other steps."""
        return Unless(self.flag if flag is None else flag, steps, self.line, self.part)

    @property
    def body(self) -> Program:
        """The steps as a program of their own, of what they are given."""
        return Program(self.steps, self.inputs[1], [])

    def kernel(self) -> Callable[..., None]:
        """The call in Python: a function of the arrays in place of its inputs."""
        text, names, _ = self.body.replay_source()
        space: dict[str, Any] = dict(names)
        exec(compile(text, "<tensorgrad program>", "exec"), space)
        replay = space["replay"]

        def call(flag: Any, given: list[Any], state: list[Any]) -> None:
            if not flag:
                replay(given)

        return call

    def __repr__(self) -> str:
        body = textwrap.indent("\n".join(map(repr, self.steps)), "    ")
        return f"unless {self.flag.name}:\n{body}"


def _holds_generator(what: Any) -> bool:
    return isinstance(what, Generator) or (type(what) in (list, tuple) and any(map(_holds_generator, what)))


_UNLESS: Any = SimpleNamespace(name="unless", view=False, derived=False, define=None, sized_by_data=False)


def values_in(what: Any) -> Iterator[Value]:
    """The values in an input or attribute, nested in lists and tuples."""
    if type(what) is Value:
        yield what
    elif type(what) in (list, tuple):
        for part in what:
            yield from values_in(part)


class Program:
    """Calls and actions in order, from arguments to outputs.

    ``arguments``: values that each replay is given arrays for. ``outputs``: values whose arrays a replay returns.
    ``notes``: what passes have done, (the pass, in words). ``linked``: what runs it natively, if anything does.
    ``runners``: who runs it for its backend, if that has somebody; two for a pair.
    ``form``: how it is called, if it can be called by itself. ``foreign``: it comes from a file. ``memory``: the
    ``Memory`` of it, once a pass has asked. ``needed``: the most bytes of results that were needed at one time when it
    was captured, which passes leave as it is, but for what is made in pieces; ``eager``: with that. ``met``: by the
    first result of a call that is still made, the op and the bytes of results that were needed at its step.
    ``tight``: formulas were made of it that need more, and are made again.
    """

    def __init__(self, steps: list[Call | Action], arguments: list[Value], outputs: list[Value]):
        self.steps = steps
        self.arguments = arguments
        self.outputs = outputs
        self.notes: list[tuple[str, str]] = []
        self.linked: Any = None
        self.runners: list[Any] = []
        self.form: Any = None
        self.foreign = False
        self.memory: Any = None
        self.needed = 0
        self.eager = 0
        self.met: dict[Value, tuple[str, int]] = {}
        self.tight = False
        self._readers: dict[Value, set[int]] | None = None

    @property
    def strided(self) -> list[Value]:
        """Arguments whose strides the calls rest on: those that ``as_strided`` reads the memory of, and that are not
        contiguous. Where it reads the memory of a result that is not, these may be the strides of any of them. Copies
        are calls of their own, so that no other op asks."""
        calls = [call for call in self.all_calls if call.op.name == "as_strided"]
        read = {v.root for call in calls for v in call.reads()}
        if any(v.array is None and not v.contiguous for v in read.difference(self.arguments)):
            read.update(self.arguments)
        return [v for v in self.arguments if v.root in read and not v.contiguous]

    @property
    def readers(self) -> dict[Value, set[int]]:
        """By value: the steps that read it or a view of it; -1 for the program's end. It is made once for all who ask,
        so nobody changes it."""
        if self._readers is None:
            found: dict[Value, set[int]] = {}
            self._readers = found
            for at, step in enumerate(self.steps):
                if isinstance(step, Call):
                    for v in step.reads():
                        _note(found, v, at)
            for v in self.outputs:
                _note(found, v, -1)
        return self._readers

    def forget(self) -> None:
        """No pass asks any more: drop what was found for all of them."""
        self.memory = self._readers = None

    @property
    def calls(self) -> list[Call]:
        return [step for step in self.steps if isinstance(step, Call)]

    @property
    def all_calls(self) -> list[Call]:
        """The calls, with those of ``Unless`` in its place."""
        return [each for call in self.calls for each in (call.body.all_calls if isinstance(call, Unless) else (call,))]

    def __repr__(self) -> str:
        head = ", ".join(f"{v.name}: {v.dtype}{list(v.shape)}" for v in self.arguments)
        lines = [textwrap.indent(repr(step), "  ") for step in self.steps]
        return "\n".join([f"program({head})", *lines, f"  return {', '.join(v.name for v in self.outputs)}"])

    def explain(self) -> str:
        """The program in words, to be printed: see ``compiler.explain``."""
        from .explain import explain

        return explain(self)

    def draw(self, path: Any) -> None:
        """Write a picture of the program: an SVG, or a graph for Graphviz if the name ends in ``.dot``."""
        from .draw import draw

        draw(self, path)

    def save(self, path: Any) -> None:
        """Write the program to a file that ``tg.compiler.load`` makes a function of: see ``compiler.save``."""
        from .save import save

        save(self, path)

    def last_uses(self) -> dict[Value, int]:
        """The number of the step after which nobody needs a value; arguments and outputs are needed for ever."""
        last: dict[Value, int] = {}
        for at, step in enumerate(self.steps):
            if isinstance(step, Call):
                for v in (*step.reads(), *(r for r in step.results if r is not None)):
                    last[v] = at
        for v in (*self.arguments, *self.outputs):
            last.pop(v, None)
        return last

    def replay_source(self) -> tuple[str, dict[str, Any], dict[int, Call]]:
        """Python's text of a replay, and the names it uses: a function of a list of arrays. And the call that each line
        makes, if it makes one.

        Every value is a local name, dropped after its last use, so memory is held as long as in an eager run.
        """
        return _Writer(self).text()


def _note(readers: dict[Value, set[int]], value: Value, at: int) -> None:
    for v in (value,) if value.root is value else (value, value.root):
        known = readers.get(v)
        if known is None:
            readers[v] = {at}
        else:
            known.add(at)


def _single(result: Any) -> Any:
    return result[0] if type(result) is tuple else result


class _Writer:
    """Writes a program as Python."""

    def __init__(self, program: Program):
        self.program = program
        self.names: dict[str, Any] = {}
        self.known: dict[int, str] = {}
        self.values: dict[Value, str] = {}

    def constant(self, what: Any) -> str:
        """A name for an object of the program: a kernel, a fixed array, an attribute."""
        if what is None or type(what) in (bool, int) or (type(what) is str):
            return repr(what)
        if id(what) not in self.known:
            name = f"k{len(self.known)}"
            self.known[id(what)] = name
            self.names[name] = what
        return self.known[id(what)]

    def value(self, v: Value) -> str:
        if v.array is not None:
            return self.constant(v.array)
        return self.values.setdefault(v, f"v{len(self.values)}")

    def expression(self, what: Any) -> str:
        if type(what) is Value:
            return self.value(what)
        if type(what) in (list, tuple) and next(values_in(what), None) is not None:
            parts = ", ".join(map(self.expression, what))
            return f"[{parts}]" if type(what) is list else f"({parts},)"
        return self.constant(what)

    def text(self) -> tuple[str, dict[str, Any], dict[int, Call]]:
        program = self.program
        last = program.last_uses()
        given = "".join(f"{self.value(v)}, " for v in program.arguments)
        lines = [f"    {given}= given"] if given else []
        doors = local.doors
        calls: dict[int, Call] = {}
        counts = any(isinstance(step, Action) and step.counts for step in program.steps)
        pad = "        " if counts else "    "
        if counts:
            lines += [f"    tally = {self.constant(Tally)}()", "    try:"]
        for at, step in enumerate(program.steps):
            if isinstance(step, Action):
                done = f"tally.act({self.constant(step)})" if counts else f"{self.constant(step.run)}()"
                lines.append(f"{pad}{done}")
                continue
            calls[len(lines) + 2] = step  # lines count from 1, and the first is the function's head
            called = step.kernel() if isinstance(step, Unless) else getattr(doors[step.kind], step.op.name)
            kernel = self.constant(called)
            arguments = [self.expression(x) for x in step.inputs]
            arguments += [f"{name}={self.expression(x)}" for name, x in step.attrs.items()]
            call = f"{kernel}({', '.join(arguments)})"
            named = [v for v in step.results if v is not None]
            if not named:
                lines.append(f"{pad}{call}")
            elif len(step.results) == 1:
                # one of several kinds of results (the rows of an array of one row) is a tuple of one
                whole = f"{self.constant(_single)}({call})"
                lines.append(f"{pad}{self.value(named[0])} = {whole}")
            else:
                targets = ", ".join("_" if v is None else self.value(v) for v in step.results)
                lines.append(f"{pad}{targets} = {call}")
            if counts and step.writes:
                lines.append(f"{pad}tally.settle()")
            touched = dict.fromkeys((*step.reads(), *named))
            dead = [self.value(v) for v in touched if last.get(v) == at and v.array is None]
            if dead:
                lines.append(f"{pad}del {', '.join(dead)}")
        if counts:
            lines += ["    except BaseException:", "        tally.take_back()", "        raise"]
        lines.append(f"    return [{', '.join(self.value(v) for v in program.outputs)}]")
        return "\n".join(["def replay(given):", *lines, ""]), self.names, calls
