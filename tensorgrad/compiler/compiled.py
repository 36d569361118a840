"""``Compiled``: a function together with the programs written of its runs.

A call looks for a program whose conditions hold: the arguments' shapes, dtypes, strides and values, the switches of
this thread, and the facts about everything the function reaches. Without one the function runs as it is, and a program
is written of that run. What a program can't repeat (a number that Python counts up, say) is found by asking the facts
again after the run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

from .. import collector
from ..autograd.node import extras
from ..core import CompiledCore, native
from ..dispatch import listening, local
from ..errors import CompileError
from ..nn.hooks import everywhere as everywhere_hooked
from ..nn.module import Module
from .attributes import why_too_much
from .before import Before
from .carried import Carrying, places_in
from .changing import Changing
from .dynamic import is_for_all
from .entry import Entry
from .families import Expected, Families
from .histories import rejoined
from .once import why_not_given
from .pair import PairEntry, is_live
from .parts import Part, Rewritten, Tracked
from .program import Call, Program
from .reach import Reach
from .remade import PAUSE, Remade
from .signature import Signature, order_seen, switched
from .trace import Trace
from .tracked_sizes import SizesRead, untracked_in
from .unserved import tell_of_captures, tell_of_eager
from .whose import is_users

__all__ = ["Compiled", "everything"]

_SIZES = 16  # of a batch, that a program is kept for
_WORTH = 4  # calls that a program has to serve, or it was no use to write it
_RETURNS = 3  # of a form in a row, after which it gets a program where programs were no use
_OUTCOMES = 64  # if it has one, but Python reads other numbers each time: the lengths of sequences
_EVER_NEW = "its calls are of ever other forms, and programs would go before they were of use"
_READS = "Python reads what is computed"
_WATCHED = "mapped by vmap, watched, or a part of another program"
_HOOKED = "an argument whose gradient the function makes has hooks, which are Python's"
_SAME_ONE = "it may ask which one an argument is, and reaches that tensor by itself too"
_HANDLED = "a call of the program raised, which the function handles"
_SETTLED = 2  # of these, after which what is made in the first run only is there
_PATIENCE = 3  # runs that may change what they rest on, one after the other: an optimizer makes its state in the first

everything: weakref.WeakSet[Compiled] = weakref.WeakSet()
"""Every compiled function that is alive."""


class Compiled(CompiledCore):
    """Call it like the function it was made of.

    Args:
        function: what to compile.
        limit: how many programs are kept; the least recently used goes first. Where they go before they were of use,
            calls of further forms run as they are, until one form comes again and again.
        dynamic: programs that differ in the size of a batch are one.
        fallback: run as it is what can't be captured, instead of raising CompileError.

    ``part``: of another function's text, which this one is; see ``parts.py``.
    """

    def __init__(
        self, function: Callable[..., Any], *, limit: int = 8, dynamic: bool = False, fallback: bool = False
    ):  # fmt: skip
        self.function = function
        self.limit = limit
        self.dynamic = dynamic
        self._families = Families() if dynamic else None
        self.fallback = fallback
        self.entries: list[Entry] = []  # the most recently used first
        self.replays = self.captures = self.eager = self.evicted = 0
        self.reasons: dict[str, int] = {}  # why calls ran as they are, and how many
        self._refused: list[tuple[Any, str]] = []  # keys of signatures, why there is no program
        self._restless = 0
        self._remade = Remade()
        self._told = False  # of the captures that were of no use
        self._ever_new = False  # whether programs went before they were of use
        self._weighed = (0, 0)  # programs dropped, and calls served, when that was asked last
        self._returning: tuple[Any, int] = (None, 0)  # the form of the last call without a program, times in a row
        self._given_up: str | None = None  # why there will be no program
        self._raises = False  # then, instead of running as it is
        self._rewritten: Rewritten | None = None  # where Python runs some of the statements
        self._in_parts = 0  # calls that ran so
        self._carrying: tuple[Carrying, Compiled] | None = None  # where it leaves tensors for its next call
        self._carries = True  # unless there was no program for it so
        self._part: Part | None = None
        self._whole: types.CodeType | None = None  # of the function that this is a part of
        self._lock = threading.RLock()
        functools.update_wrapper(self, function, updated=())
        everything.add(self)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        return _rebuild, (self.function, self.limit, self.dynamic, self.fallback)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", None) or type(self.function).__qualname__
        return f"<compiled {name}, {len(self.entries)} programs>"

    def _served(self, *args: Any, **kwargs: Any) -> Any:
        """A call that the first entry, tried by C, has not served."""
        # templates fit no call while autocast is on, or while somebody listens or maps, who have doors of their own
        entries = self.entries  # another thread may forget them meanwhile
        answers: dict[Any, list[Any]] = {}
        for entry in entries:
            if entry.fast is not None:
                found = native.replay(entry.fast, args, kwargs)
                if found is not NotImplemented:
                    self.replays += 1
                    if entry is not entries[0]:
                        self._use(entry)
                    if found is None:
                        return self._replayed(entry, entry.tensors_of(args, kwargs), args, kwargs)
                    return found if entry.direct else entry.finished(found)
            if entry.admits(args, kwargs):
                tensors = entry.tensors_of(args, kwargs)
                if not entry.decides(tensors, answers):
                    continue
                if entry is not entries[0]:
                    self._use(entry)
                self.replays += 1
                return self._replayed(entry, tensors, args, kwargs)
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that C knows nothing of."""
        if local.frames or local.listeners or self._given_up is not None:
            if self._given_up is not None and self._raises:
                raise CompileError(self._given_up)
            why = self._given_up or _WATCHED
            return self._as_it_is(why, args, kwargs)
        if self._carrying is not None:
            carrying, compiled = self._carrying
            found = carrying.run(compiled, args, kwargs)
            if compiled._given_up is not None and self.fallback:  # but parts of the function may be programs
                self._carry_no_more(compiled, for_good=True)
            if found is not None:
                return found[0]
            if carrying.replaced:
                self._carry_no_more(compiled, for_good=False)  # the next run shows what is left now
            return self._as_it_is("what it has left for this call is gone", args, kwargs)
        if self._rewritten is not None:
            plain, owner = _plain(self.function)
            if plain is not self._rewritten.text.function:
                return self._as_it_is("it has hooks, or another forward, since it was written in parts", args, kwargs)
            self._in_parts += 1
            run = self._rewritten.run
            return run(*args, **kwargs) if owner is None else run(owner, *args, **kwargs)
        if extras.active and extras.on_finish:
            return self._as_it_is(
                "hooks of saved tensors, or anomaly mode, see each call that is recorded", args, kwargs
            )
        order = order_seen(kwargs, _code_of(self.function)) if len(kwargs) > 1 else ()
        signature = Signature(args, kwargs, order)
        if signature.trouble is not None:
            return self._as_it_is(signature.trouble, args, kwargs)
        entry = self._entry_for(signature)
        if entry is None:
            for key, why in self._refused:
                if key == signature.key:
                    return self._as_it_is(why, args, kwargs)
            remade = self._remade.passes()
            if remade is not None:
                return self._as_it_is(remade, args, kwargs)
            if self._ever_new and not self._returns(signature.key):
                return self._as_it_is(_EVER_NEW, args, kwargs)
            with self._lock:
                entry = self._entry_for(signature)  # another thread may have been faster
                expected: list[Expected] = []
                if entry is None and self._families is not None:
                    entry = self._families.entry_for(self.entries, signature)
                    if entry is not None:
                        self._keep(entry)
                    else:
                        expected = self._families.expected(self.entries, signature)
                if entry is None:
                    with collector.paused():  # nearly all that a capture makes stays
                        return self._capture(signature, args, kwargs, expected)
        if entry.overlapping(signature):
            return self._as_it_is("arguments share memory that the function writes to", args, kwargs)
        if entry.hooked(signature):
            return self._as_it_is(_HOOKED, args, kwargs)
        self._use(entry)
        self.replays += 1
        tensors = signature.tensors
        signature.forget()
        return self._replayed(entry, tensors, args, kwargs)

    def _replayed(self, entry: Entry, tensors: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A replay; or where it raises what the function itself would handle, a run, which does."""
        if not entry.handled:
            return entry.replay(tensors)
        found = entry.tried(tensors)
        if found is None:
            self.replays -= 1
            return self._as_it_is(_HANDLED, args, kwargs)
        return found[0]

    def _entry_for(self, signature: Signature) -> Entry | None:
        """The entry that serves a call."""
        answers: dict[Any, list[Any]] = {}
        for entry in list(self.entries):
            if entry.fits(signature) and entry.decides(signature.tensors, answers):
                return entry
        return None

    # --- what people see

    @property
    def programs(self) -> list[Program]:
        """Every program, those of the most recent call first, and of a function in parts by part."""
        parts = [] if self._rewritten is None else self._rewritten.parts
        own = [program for entry in list(self.entries) for program in entry.programs]
        if self._carrying is not None:
            own = [*self._carrying[1].programs, *own]
        return [*(program for part in parts for program in part.compiled.programs), *own]

    def explain(self) -> str:
        """The program of the most recent call in words, to be printed; of a function in parts all of their programs."""
        rewritten = self._rewritten
        if rewritten is None:
            return self._latest("explain").whole.explain()
        lines = ["in parts: a program each, but for statements where Python reads what is computed, or what can't be"]
        lines[0] += " captured:"
        lines += [f"  {where}: {why}" for where, why in rewritten.reasons().items()]
        name = os.path.basename(rewritten.text.function.__code__.co_filename)
        for part in rewritten.parts:
            last = max(s.end_lineno or s.lineno for s in part.statements)
            title = f"{name}:{part.line}" + (f"-{last}" if last > part.line else "")
            entries = part.compiled.entries
            told = entries[0].whole.explain() if entries else "  no program yet"
            lines += ["", f"{title}: ".ljust(120, "="), told]
        return "\n".join(lines)

    def draw(self, path: Any) -> None:
        """Write a picture of the program of the most recent call; see ``Program.draw``."""
        self._latest("draw").whole.draw(path)

    def save(self, path: Any) -> None:
        """Write the program of the most recent call to a file for ``tg.compiler.load``; see ``Program.save``."""
        if self._rewritten is not None:
            raise CompileError(
                "save: Python reads numbers within the function, and what it does with them is no program."
            )
        if self._carrying is not None:
            paths = ", ".join(place.path for place in self._carrying[0].places)
            raise CompileError(
                f"save: the function leaves tensors for its next call ({paths}), where no file has a place. Take them "
                "as arguments and return them, or keep them in buffers that are changed in place (copy_())."
            )
        self._latest("save").programs[0].save(path)

    def _latest(self, verb: str) -> Entry:
        if self._carrying is not None and self._carrying[1].entries:
            return self._carrying[1]._latest(verb)
        entries = self.entries
        for part in () if self._rewritten is None else self._rewritten.parts:
            entries = part.compiled.entries or entries
        if not entries:
            why = f" ({', '.join(self.reasons)})" if self.reasons else ""
            raise CompileError(f"{verb}: there is no program yet{why}; call the function first.")
        return entries[0]

    def forget(self) -> None:
        """Drop all programs."""
        with self._lock:
            self.entries = []
            self._refused = []
            self._restless = 0
            self._remade.settled()
            self._ever_new = False
            self._given_up = None
            self._raises = False
            self._rewritten = None
            self._carrying, self._carries = None, True

    def stats(self) -> dict[str, Any]:
        """Numbers of calls, captures, replays, programs that were dropped, calls that ran as they are and why.

        Of a function in parts the captures, replays and programs are those of all parts; ``python`` says which
        statements are none, and why.
        """
        calls = self.replays + self.captures + self.eager + self._in_parts
        count = len({id(entry.family or entry) for entry in self.entries})
        found: dict[str, Any] = {"calls": calls, "captures": self.captures, "replays": self.replays, "programs": count,
                 "evicted": self.evicted, "eager": self.eager, "reasons": dict(self.reasons)}  # fmt: skip
        if self._carrying is not None:
            for name, value in self._carrying[1].stats().items():
                found[name] = {**found[name], **value} if name == "reasons" else found[name] + value
        if self._rewritten is not None:
            for part in self._rewritten.known.values():
                for name, value in part.compiled.stats().items():
                    if name not in ("calls", "reasons"):
                        found[name] += value
            found["python"] = self._rewritten.reasons()
        return found

    # --- calls without a program

    def _as_it_is(self, why: str, args: Any, kwargs: Any) -> Any:
        self.eager += 1
        self._note(why)
        return self.function(*args, **kwargs)

    def _note(self, why: str) -> None:
        """One more call that no program could serve. It is said aloud where that goes on, unless it was asked for."""
        self.reasons[why] = self.reasons.get(why, 0) + 1
        known = self.fallback or why in (_WATCHED, _HANDLED) or (why is _EVER_NEW and self._told)
        if self.reasons[why] == (PAUSE + 1 if why is self._remade.why else _PATIENCE) and not known:
            tell_of_eager(self, why, why is _EVER_NEW)

    def _use(self, entry: Entry) -> None:
        """An entry is the most recently used one."""
        with self._lock:
            if entry in self.entries:  # no other thread has dropped it meanwhile
                self.entries = [entry, *(e for e in self.entries if e is not entry)]

    def _capture(self, signature: Signature, args: Any, kwargs: Any, expected: list[Expected]) -> Any:
        if self._part is not None and self._part.follow(args, self.replays):
            return self._as_it_is("a number that it is given is another one in each call", args, kwargs)
        roots = [("f", self.function), *((f"argument {i}", x) for i, x in enumerate(signature.others))]
        places = self.function.keys if isinstance(self.function, Carrying) else frozenset()
        texts = [x for x in signature.leaves if type(x) is str]
        reach = Reach(*roots, whole=self._whole, places=places, texts=texts)
        if reach.beyond is not None:
            why = why_too_much(reach.beyond)
            if not self.fallback:
                raise CompileError(why)
            self._leave(None, why)
            return self._as_it_is(why, args, kwargs)
        if reach.once is not None:
            why = why_not_given(*reach.once)
            if not self.fallback:
                raise CompileError(why)
            if not any(reach.once[1] is x for x in signature.others):
                self._leave(None, why)
            return self._as_it_is(why, args, kwargs)
        reached = {id(t._data): t for _, t in reach.tensors.values()}
        given = signature.stand_ins(reached)
        if reach.tells_apart and any(
            id(t._data) in reached and ours is not t for ours, t in zip(given, signature.tensors, strict=True)
        ):
            return self._as_it_is(_SAME_ONE, args, kwargs)
        before = Before(reach, signature, given)
        self.captures += 1
        if not self.replays and self.captures == 2 * self.limit and self.entries:
            self._told = True
            tell_of_captures(self)
        function, tracked = self.function, self._tracked()
        if tracked is not None:
            owner = _plain(function)[1]
            function = tracked.function if owner is None else types.MethodType(tracked.function, owner)
        trace = Trace(
            [t._data for t in given], before.grad_arrays(), splits=self.fallback,
            code=_code_of(function) if self.fallback else None, outside=signature.outside(given), reach=reach,
            stand_ins=signature.stood(given), above=Compiled._capture.__code__,
        )  # fmt: skip
        # the run that would be refused is watched for the line that words can name
        last = self._restless == _PATIENCE - 1 and not self.fallback
        left = functools.partial(switched, signature.key[2])

        def moved() -> str | None:
            return reach.moved() or left(heard=True)

        changing = Changing(moved, is_users) if last else contextlib.nullcontext()
        reading: Any = contextlib.nullcontext()
        if self.dynamic:
            trace.sizes_read = SizesRead(trace.made_here)
            reading = trace.sizes_read.reading()
        own_args, own_kwargs = args, kwargs
        if any(ours is not t for ours, t in zip(given, signature.tensors, strict=True)):
            own_args, own_kwargs = signature.arguments(given)
        entry = None
        try:
            with reach.watch() as watch, listening(trace), changing as change, reading:
                if tracked is not None:
                    changes = functools.partial(signature.changed, given, own_args, own_kwargs)
                    tracked.moved = lambda: watch.found or moved() or changes()
                result = function(*own_args, **own_kwargs)
                trace.settle()
        except BaseException:
            if own_args is not args:
                signature.hand_back(given, (own_args, own_kwargs), (args, kwargs))  # what it has done so far is done
            rejoined(None, before, given, signature.tensors, trace.standing.passes)
            raise
        if trace.sizes_read is not None and reach.reads_numbers_unseen:
            trace.sizes_read.give_up()
        reach.learn(trace.facts, trace.copies_seen)
        trouble = watch.found or reach.moved() or left()
        changed = signature.changed(given, own_args, own_kwargs)
        if changed is not None:
            if not self.fallback:
                raise CompileError(changed)
            signature.hand_back(given, (own_args, own_kwargs), (args, kwargs))
            trouble = trouble or changed
        if trace.postponed is not None:
            self.captures -= 1
            self.eager += 1
            self.reasons[trace.postponed] = self.reasons.get(trace.postponed, 0) + 1
            return rejoined(untracked_in(result), before, given, signature.tensors, trace.standing.passes)
        if trace.unsplit is not None:
            self._leave(trace.unsplit_at, trace.unsplit)
        elif self._part is not None and self._part.refuses(own_args, result, before.objects):
            trouble = None
        elif trouble is None:
            kind = PairEntry if is_live(result) else Entry
            try:
                entry = kind(self.function, reach, signature, given, trace, before, result)
            except CompileError as error:
                if not self.fallback:
                    raise
                self._leave(None, str(error))
        if entry is None:
            settling = not (self._restless or self._remade.count)  # what the first run makes may be there from then on
            if trouble is not None and trace.unsplit is None and not settling and self._cut(trace.read_at, _READS):
                trouble = None  # what has changed is Python's affair, if it came after the read
            place = None if trouble is None else reach.place_of(trouble)
            if trouble is not None and trace.unsplit is None and place is not None:
                why_not = self._remade.tells(place)
                if why_not is not None and self._cut(None if tracked is None else tracked.line, why_not):
                    self._remade.settled()
                elif why_not is not None and self._part is not None:
                    self._part.stays(why_not)
                elif why_not is not None:
                    self._remade.pause(why_not)
            elif trouble is not None and trace.unsplit is None:
                self._restless += 1
                if self._restless >= _SETTLED and self._carry(reach):
                    return rejoined(untracked_in(result), before, given, signature.tensors, trace.standing.passes)
                found = None if tracked is None else tracked.line
                why = f"it changes what a program would rest on: {trouble.removeprefix('compile: ')}"
                if found is not None and self._cut(found, why):
                    self._restless = 0
                elif self._restless >= _PATIENCE:
                    self._give_up(trouble, None if change is None else change.line)
            return rejoined(untracked_in(result), before, given, signature.tensors, trace.standing.passes)
        self._restless = 0
        self._remade.settled()
        if entry.hooked(signature):
            self._note(_HOOKED)
            return entry.first(signature)
        idle = not (trace.grads or reach.optimizers or any(isinstance(step, Call) for step in trace.steps))
        if self._part is not None and idle:
            self._part.stays("there is nothing to compute")
            return entry.first(signature)
        if self._families is not None:
            self.entries = self._families.join(self.entries, entry, expected, self)
        for other in self.entries:
            if is_for_all(other, entry):
                other.serve_all()
                return entry.first(signature)
        if entry.refuses is not None:
            unasked = entry.conditions is not None and entry.conditions.trouble is not None
            if unasked and self._cut(trace.read_at, _READS):
                return entry.first(signature)
            if len(self._refused) > self.limit:
                self._note(entry.refuses)  # of the forms that are forgotten each call will be captured again
            self._refused = [(signature.key, entry.refuses), *self._refused[: self.limit]]
            return entry.first(signature)
        self._keep(entry)
        return entry.first(signature)

    def _tracked(self) -> Tracked | None:
        """After a run that has changed what it rests on: a function that finds the statement which does."""
        if not self.fallback or not (self._restless or self._remade.count):
            return None
        if self._part is not None:
            return self._part.tracked()
        rewritten = self._new_text()
        return None if rewritten is None else Tracked(rewritten.text, rewritten.text.body, None)

    def _new_text(self) -> Rewritten | None:
        return Rewritten.of(_plain(self.function)[0], self._compiled_part)

    def _compiled_part(self, part: Part) -> Compiled:
        function = part.whole.text.part(part.names, part.body)
        made = Compiled(function, limit=self.limit, dynamic=self.dynamic, fallback=True)
        everything.discard(made)  # it is counted here
        made._whole = _code_of(self.function)
        made._part = part
        return made

    def _cut(self, line: int | None, why: str) -> bool:
        """The statement at that line is Python's from now on, if the others can be programs then."""
        if line is None:
            return False
        if self._part is not None:
            return self._part.whole.stay(line, why)
        rewritten = self._new_text()
        if rewritten is None or not rewritten.stay(line, why) or not rewritten.parts:
            return False
        self._rewritten = rewritten
        return True

    def _leave(self, line: int | None, why: str) -> None:
        """A statement, or all if none is known, can't be in a program."""
        if self._cut(line, why):
            return
        if self._part is not None:
            self._part.stays(why)
        else:
            self._given_up = why

    def _keep(self, entry: Entry) -> None:
        """One more entry; the least recently used goes where there are too many."""
        entry.ask_as(self.entries)
        groups: dict[int, int] = {}
        kept = []
        for one in (entry, *self.entries):
            group = id(one.family or one)
            if group in groups or len(groups) < self.limit:
                groups[group] = groups.get(group, 0) + 1
                if groups[group] <= _SIZES:
                    kept.append(one)
        self.evicted += 1 + len(self.entries) - len(kept)
        self.entries = kept
        dropped, served = self.evicted - self._weighed[0], self.replays - self._weighed[1]
        if dropped >= 2 * self.limit:
            self._ever_new = served < _WORTH * dropped
            self._weighed = self.evicted, self.replays

    def _returns(self, key: Any) -> bool:
        """Whether calls of this form have come in a row, others with a program aside."""
        known, times = self._returning
        times = times + 1 if known == key else 1
        most = _OUTCOMES if any(entry.signature.key == key for entry in self.entries) else _RETURNS
        self._returning = (key, times % most)
        return times >= most

    def _carry(self, reach: Reach) -> bool:
        """Whether all that a run has changed are tensors that it leaves for the next; they are handed on from now
        on."""
        places = places_in(reach) if self._carries and self._part is None else []
        if not places:
            return False
        carrying = Carrying(self.function, places)
        compiled = Compiled(carrying, limit=self.limit, dynamic=self.dynamic, fallback=self.fallback)
        everything.discard(compiled)  # it is counted here
        self._carrying = carrying, compiled
        self._restless = 0
        return True

    def _carry_no_more(self, compiled: Compiled, *, for_good: bool) -> None:
        """Nothing is handed on from now on, or until a run leaves something again; what was counted stays so."""
        self._carrying, self._carries = None, not for_good
        self.replays, self.captures = self.replays + compiled.replays, self.captures + compiled.captures
        self.eager, self.evicted = self.eager + compiled.eager, self.evicted + compiled.evicted
        for why, count in compiled.reasons.items():
            self.reasons[why] = self.reasons.get(why, 0) + count

    def _give_up(self, trouble: str, line: str | None) -> None:
        where = f", at {line}" if line else ""
        text = (
            f"compile: the function changes what it rests on: {trouble}{where}. A replay runs no Python and would not "
            "repeat that. Do it outside of the compiled function, or give compile(..., fallback=True)."
        )
        if self.fallback:
            self._leave(None, text)
            return
        self._given_up, self._raises = text, True
        raise CompileError(text)


def _plain(function: Any) -> tuple[Any, Any]:
    """The plain function that a call runs, and the object that it is given first, or None: of a method its own, of a
    module without hooks its ``forward``."""
    if isinstance(function, Module):
        own = type(function).__call__ is Module.__call__ and function._hooks is None and not everywhere_hooked
        forward = getattr(type(function), "forward", None) if "forward" not in vars(function) else None
        theirs = own and isinstance(forward, types.FunctionType) and is_users(forward.__module__)
        return (forward if theirs else None), function
    return getattr(function, "__func__", function), getattr(function, "__self__", None)


def _code_of(function: Any) -> Any:
    """The code of what a call runs; None if that isn't known."""
    return getattr(_plain(function)[0], "__code__", None)


def _rebuild(function: Callable[..., Any], limit: int, dynamic: bool, fallback: bool) -> Compiled:
    return Compiled(function, limit=limit, dynamic=dynamic, fallback=fallback)
