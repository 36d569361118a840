"""``Unless``: steps of a program that a flag leaves out, and what passes may do around and within them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler.passes import PASSES, optimize
from tensorgrad.compiler.program import Unless
from tensorgrad.dispatch import unless
from tests.compiler.beside import BACKENDS
from tests.compiler.common import after, names, same_results, written

SET, CLEAR = True, False


def flag(value: bool) -> tg.Tensor:
    return tg.tensor(value)


def the_step(program: Any) -> Unless:
    [step] = [step for step in program.steps if isinstance(step, Unless)]
    return step


def test_passes_see_one_call_that_reads_and_writes() -> None:
    def f(x: Any, total: Any, stop: Any) -> Any:
        y = x * 2
        unless(stop, lambda: total.add_(y.sum() + 1))
        return y + 3

    program = written(f, tg.ones(3), tg.zeros(()), flag(CLEAR))
    assert names(program) == ["mul", "unless", "add"]
    step = the_step(program)
    _, total, stop = program.arguments
    assert step.flag is stop and set(step.reads()) == {stop, total, program.calls[0].results[0]}
    assert step.writes == (total,) and [call.op.name for call in step.body.calls] == ["sum", "add", "add"]
    assert len(program.all_calls) == 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stop", [SET, CLEAR])
def test_it_is_done_or_left_out(backend: str, stop: bool) -> None:
    def f(x: Any, total: Any, stop: Any) -> Any:
        unless(stop, lambda: total.add_(x.sum()))
        return total * 1

    with tg.backend(backend):
        program = written(f, tg.ones(3), tg.zeros(()), flag(CLEAR))
        same_results(program, optimize(program), tg.ones(3), tg.ones(()), flag(stop))
        step = tg.compile(f)
        for value, expected in ((CLEAR, 3.0), (SET, 3.0), (CLEAR, 6.0), (stop, 6.0 if stop else 9.0)):
            if value is CLEAR and expected == 3.0:
                total = tg.zeros(())
            assert step(tg.ones(3), total, flag(value)).item() == expected
        assert step.stats()["replays"] == 3


def test_what_is_computed_sometimes_serves_nobody_else() -> None:
    def f(x: Any, total: Any, stop: Any) -> Any:
        unless(stop, lambda: total.copy_(x.exp().sum()))
        return x.exp()

    program = written(f, tg.ones(3), tg.zeros(()), flag(CLEAR))
    kept = after("duplicates", program)
    assert names(kept) == ["unless", "exp"]
    fused = optimize(program)
    assert "exp" in names(fused)
    for stop in (SET, CLEAR):
        same_results(program, fused, tg.ones(3), tg.zeros(()), flag(stop))


def test_what_only_such_steps_read_is_not_dead() -> None:
    def f(x: Any, total: Any, stop: Any) -> Any:
        y = x.exp()
        unless(stop, lambda: total.copy_(y.sum()))
        return x + 1

    program = written(f, tg.ones(3), tg.zeros(()), flag(CLEAR))
    assert names(after("dead", program)) == ["exp", "unless", "add"]


def test_the_steps_go_through_all_passes() -> None:
    def f(x: Any, total: Any, stop: Any) -> Any:
        def act() -> None:
            y = (x * 2 + 1).tanh()
            (x * 2).exp()  # nobody reads it
            total.add_(y)

        unless(stop, act)
        return x

    program = written(f, tg.ones(3), tg.zeros(3), flag(CLEAR))
    small = after("conditional", program)
    inner = the_step(small).body
    assert len(inner.calls) == 2 and inner.calls[0].op.name.startswith("fused")
    assert {name for name, _ in small.notes} == {"dead", "duplicates", "formulas"} and "conditional" in PASSES
    for stop in (SET, CLEAR):
        same_results(program, small, tg.ones(3), tg.ones(3), flag(stop))


def test_a_formula_does_not_wait_for_the_end_of_such_steps() -> None:
    """One whose operand they change must stand before them."""

    def f(x: Any, total: Any, stop: Any) -> Any:
        y = total * 2
        unless(stop, lambda: total.add_(x))
        return y + x, y * x

    program = written(f, tg.ones(3), tg.ones(3), flag(CLEAR))
    for stop in (SET, CLEAR):
        same_results(program, optimize(program), tg.ones(3), tg.ones(3), flag(stop))


def a_function(seed: int) -> Callable[..., Any]:
    """One of many functions of two inputs, two tensors that it changes, and two flags."""

    def f(x: Any, y: Any, s: Any, t: Any, first: Any, second: Any) -> Any:
        draw = random.Random(seed)
        known = [x, y, s, t]

        def compute() -> Any:
            a, b = draw.choice(known), draw.choice(known)
            kind = draw.randrange(7)
            ways = [
                lambda: a * b, lambda: a + b, lambda: a.tanh(), lambda: a - 2, lambda: a.sum(1, keepdim=True) + b,
                lambda: (a.reshape(6, 4).t() @ b.reshape(6, 4)).mean() + a, lambda: a.sum() * b,
            ]  # fmt: skip
            return ways[kind]()

        def change() -> None:
            draw.choice([s, t]).mul_(0.5).add_(compute().tanh())

        def some() -> None:
            for _ in range(draw.randrange(1, 4)):
                known.append(compute())

        def act() -> None:
            before = len(known)
            for _ in range(draw.randrange(1, 3)):
                some()
                change()
            del known[before:]

        kinds = [draw.choice(["some", "change", "act", "act"]) for _ in range(6)]
        for kind in kinds:
            if kind == "act":
                flagged = draw.choice([first, second])
                ahead = random.Random(draw.random())  # as many numbers are drawn, whether it is done or not
                kept, known_before = draw, list(known)
                draw = ahead
                unless(flagged, act)
                draw = kept
                known[:] = known_before
            else:
                (some if kind == "some" else change)()
        return known[-1].sum(), known[-2] * 1

    return f


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(25))
def test_programs_by_chance(seed: int, backend: str) -> None:
    with tg.backend(backend):
        f = a_function(seed)
        rng = np.random.default_rng(seed)
        fast = tg.compile(f)
        mine = [tg.tensor(rng.normal(size=(4, 6)).astype(np.float32)) for _ in range(2)]
        theirs = [t.clone() for t in mine]
        for i in range(10):
            x, y = (tg.tensor(rng.normal(size=(4, 6)).astype(np.float32)) for _ in range(2))
            flags = [flag(i > 0 and bool(rng.integers(2))) for _ in range(2)]
            got, want = fast(x, y, *mine, *flags), f(x, y, *theirs, *flags)
            for a, b in zip((*got, *mine), (*want, *theirs), strict=True):
                assert a.numpy().tobytes() == b.numpy().tobytes()
        assert fast.stats()["replays"] == 9


def test_listeners_are_told() -> None:
    class Ear(tg.dispatch.Listener):
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def enter_unless(self, flag: Any, is_set: bool) -> None:
            self.heard.append(is_set)

        def leave_unless(self) -> None:
            self.heard.append("left")

        def read(self, tensor: Any) -> None:
            self.heard.append("read")

    with tg.dispatch.listening(Ear()) as ear:
        assert unless(flag(SET), lambda: 1) is None
        assert unless(flag(CLEAR), lambda: 1) == 1
        with pytest.raises(ZeroDivisionError):
            unless(flag(CLEAR), lambda: 1 / 0)
    assert ear.heard == [True, "left", False, "left", False, "left"]
    assert unless(flag(SET), lambda: 1) is None and unless(flag(CLEAR), lambda: 1) == 1
