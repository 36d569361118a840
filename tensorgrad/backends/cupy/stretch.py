"""Stretches of a program's calls that are captured together, and their replays.

Checks of elements within a stretch are open until its graph is done: whether one has failed is a flag on the device,
which kernels of optimizers read; what the host counted for them is taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.failures import placed
from ...compiler.program import Action, Call, Program, Value
from ...random import Generator
from .accumulate_kernels import sharing_order
from .checks import noted_checks
from .kernels import Kernels
from .optim_kernels import CupyOptimizers
from .words import CapturedGenerator, NotedWords, noting

if TYPE_CHECKING:
    from .graph import GraphProgram

__all__ = ["READS_WORDS", "Launch", "Stretch", "arrays_of", "captured"]

READS_WORDS = CupyOptimizers.leaves_out
"""Calls whose kernels read their numbers from device memory, and a flag that leaves them out."""


class Launch:
    """A stretch of calls as a graph, of a program. ``writes``: whether to what was there before; ``flags``: by check
    that they make of elements, whether it failed, and by which steps are left out that the host has counted, in an
    array on the device; ``checks``: what raises then, and the call. ``words``: numbers of the host that it reads."""

    def __init__(self, graph: Any, stretch: Stretch, program: Program):
        calls = [step for step in stretch.calls if isinstance(step, Call)]
        self.graph = graph
        self.calls = len(calls)
        state = {v.root for call in calls for v in call.writes}
        self.writes = any(v.array is not None or v in program.arguments for v in state)
        self.flags = stretch.flags
        self.checks = stretch.checks
        self.words = stretch.words
        self.program = program

    def launch(self, kernels: Kernels, stream: Any) -> None:
        """Write the numbers that it reads and launch the graph. If that fails, no step has been counted."""
        self.words.refresh(kernels)
        try:
            self.graph.launch(stream)
        except BaseException:
            self.words.take_back()
            raise

    def check(self) -> None:
        """Wait for the graph, take back counts of steps that were left out, and raise the error of the first check that
        failed."""
        found = self.flags.get().tolist()
        if any(found):
            self.words.take_back({number for number, is_set in enumerate(found) if is_set})
        for failed, (complain, call) in zip(found, self.checks, strict=False):
            if failed:
                try:
                    complain()
                except Exception as error:  # noqa: BLE001 - it is raised, and says where
                    raise placed(error, call, self.program) from None


class Stretch:
    """Calls to be captured together, with what the host does among them. ``works``: whether they did anything but make
    views."""

    def __init__(
        self, whole: GraphProgram, first: int, end: int, places: dict[Value, Any], shared: set[Value], fixed: Any
    ):
        self.whole = whole
        self.steps = range(first, end)
        self.calls = whole.program.steps[first:end]
        self.places = places
        self.shared = shared
        self.works = False
        # flags are asked for by the host where it has counted
        counted = [at for at in self.steps if any(array.size for array in _counts(whole.program.steps[at]))]
        flags = dict.fromkeys(whole.flags[at] for at in counted if at in whole.flags)
        checks = sum(whole.checks[at] for at in self.steps)
        self.flags = whole.backend.xp.empty((checks + len(flags),), dtype=np.bool_)
        self.checks: list[tuple[Callable[[], None], Call]] = []
        self.numbers = {flag: checks + i for i, flag in enumerate(flags)}
        # by flag and how many checks were made before: whether it is set, or one of them has failed
        self.stops: dict[tuple[Value | None, int], Any] = {}
        live = whole.backend.xp.empty((sum(whole.words[at][0] for at in self.steps),), dtype=np.uint64)
        self.words = NotedWords(whole.backend.xp, live, fixed)
        self.orders = self._orders()

    def _orders(self) -> dict[int, tuple[list[Any], int]]:
        """By step that adds up at places: what keeps these in order for all that add up at the same, and the last of
        these steps."""
        same: dict[Any, list[int]] = {}
        groups: list[list[int]] = []
        for at, call in zip(self.steps, self.calls, strict=True):
            if isinstance(call, Action):
                continue
            key = _places(call)
            if key is not None:
                if key not in same:
                    same[key] = []
                    groups.append(same[key])
                same[key].append(at)
            if call.writes:
                memory = {v.memory for v in call.writes}
                same = {key: found for key, found in same.items() if memory.isdisjoint([v.memory for v in key[1]])}
        found: dict[int, tuple[list[Any], int]] = {}
        for group in groups:
            if len(group) > 1:
                found.update(dict.fromkeys(group, ([], group[-1])))
        return found

    def run(self) -> None:
        whole, places = self.whole, self.places
        shares = whole.backend.xp.may_share_memory
        for at in self.steps:
            call, kernel = whole.program.steps[at], whole.kernels[at]
            flag = whole.flags.get(at)
            if isinstance(call, Action):
                self._act(call, flag)
                continue
            assert kernel is not None
            inputs = captured(arrays_of(call.inputs, places, {}))
            attrs = captured({name: arrays_of(x, places, {}) for name, x in call.attrs.items()})
            before: list[tuple[Any, Any]] = []
            if call.op.name in READS_WORDS:
                attrs["stop"] = self._stop(flag)
            elif self.checks:
                state = [arrays_of(v, places, {}) for v in call.writes if v.root.array is not None]
                before = [(array, array.copy()) for array in state]
            order, last = self.orders.get(at, (None, at))
            with noted_checks() as checks, noting(self.words), sharing_order(order):
                made = kernel(*inputs, **attrs)
            if order and at == last:
                order.clear()
            for array, kept in before:
                array[...] = whole.backend.xp.where(self._stop(None), kept, array)
            for wrong, complain in checks:
                number = len(self.checks)
                self.flags[number : number + 1] = wrong
                self.checks.append((complain, call))  # which keeps what it would look at
            results = made if type(made) is tuple else (made,)
            new = {v: array for v, array in zip(call.results, results, strict=True) if v is not None}
            views = call.op.view and all(shares(array, inputs[0]) for array in new.values())
            self.works = self.works or bool(call.writes) or not views
            places.update(new)
            # what is freed here may be used again by the next call
            del inputs, attrs, made, results, new, checks, before
            for v in whole.last[at]:
                if v not in self.shared:
                    places.pop(v, None)

    def _act(self, action: Action, flag: Value | None) -> None:
        guards = set(range(len(self.checks)))
        number = self.numbers.get(flag)
        if number is not None:
            self.flags[number : number + 1] = arrays_of(flag, self.places, {})
            guards.add(number)
        self.words.act(action.run, action.counts, guards)

    def _stop(self, flag: Value | None) -> Any:
        """Where the device finds whether a step is left out; None if it never is."""
        key = flag, len(self.checks)
        if key not in self.stops:
            stop = None if flag is None else arrays_of(flag, self.places, {})
            if self.checks:
                failed = self.flags[: len(self.checks)].any()
                stop = failed if stop is None else failed | stop
            self.stops[key] = stop
        return self.stops[key]


def _counts(step: Call | Action) -> tuple[Any, ...]:
    return step.counts if isinstance(step, Action) else ()


def _places(call: Call) -> tuple[str, tuple[Value, ...], Any] | None:
    """What decides at which places a call adds up, the values among it second; None for other calls."""
    name, inputs, attrs = call.op.name.removesuffix("_into"), call.inputs, call.attrs
    if name == "embedding_backward":
        return "rows", inputs[1:2], (attrs["num_embeddings"], attrs["padding_idx"])
    if name == "index_add":
        return "rows", inputs[1:2], (inputs[0].shape[attrs["dim"]], None)
    if name == "index_put":
        return name, inputs[2:], tuple([inputs[0].shape[dim] for dim in attrs["spec"]])
    if name == "scatter_add":
        return name, inputs[1:2], (inputs[0].shape, attrs["dim"])
    return None


def arrays_of(what: Any, found: dict[Value, Any], places: dict[Value, Any]) -> Any:
    """Values replaced by their arrays, in lists and tuples too."""
    if type(what) is Value:
        if what.array is not None:
            return what.array
        return found[what] if what in found else places[what]
    if type(what) in (list, tuple):
        return type(what)(arrays_of(part, found, places) for part in what)
    return what


def captured(what: Any) -> Any:
    """Inputs or attributes of a call that is captured: generators are not asked on the host."""
    if isinstance(what, dict):
        return {name: captured(x) for name, x in what.items()}
    if isinstance(what, tuple):
        return tuple(map(captured, what))
    return CapturedGenerator(what) if isinstance(what, Generator) else what
