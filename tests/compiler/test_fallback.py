"""fallback=True: truths that Python reads split a function, other reads let it run as it is."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.compiler.parts import Rewritten
from tensorgrad.errors import CompileError
from tests.compiler.beside import BACKENDS, beside


def sign(x):
    return x * 2 if x.sum() > 0 else -x


def halved(x):
    while x.norm() > 1:
        x = x * 0.5
    return x


def counted(x):
    return x + int((x > 0).sum())


def scaled(x):
    return x * x.sum().item()


@pytest.mark.parametrize("function, values, programs", [
    (sign, (1, 1, -1, -1, 1, -1), 2), (halved, (1, 8, -1, 9, 8, 1), 3), (counted, (1, -1, 1, -1), 2),
])  # fmt: skip
def test_a_program_for_each_outcome(function, values, programs):
    f = tg.compile(function, fallback=True)
    for value in values:
        x = tg.ones(2) * value
        assert f(x).tolist() == function(x).tolist()
    stats = f.stats()
    assert stats["captures"] == stats["programs"] <= programs and stats["eager"] == 0
    assert stats["replays"] == len(values) - stats["captures"]
    with pytest.raises(CompileError, match=f"in {function.__name__}"):
        tg.compile(function)(tg.ones(2))


@pytest.mark.parametrize("fallback", [False, True])
def test_a_truth_that_is_read_of_a_view_of_the_state(fallback):
    flags = tg.tensor([True, False, True])
    f = tg.compile(lambda x: x * 2 if flags[1:][1] else x * 3, fallback=fallback)
    for factor in (2.0, 2.0, 3.0, 3.0, 2.0):
        flags.fill_(factor == 2.0)
        assert f(tg.ones(2)).tolist() == [factor] * 2
    assert f.stats()["captures"] == 2 and f.stats()["replays"] == 3


def test_gradients_go_the_way_that_was_taken():
    f = tg.compile(sign, fallback=True)
    for value, slope in ((1, 2), (-1, -1), (1, 2), (-1, -1)):
        x = (tg.ones(2) * value).requires_grad_()
        f(x).sum().backward()
        assert x.grad.tolist() == [slope, slope]


def test_numbers_that_are_read_let_the_function_run_as_it_is():
    f = tg.compile(scaled, fallback=True)
    for value in (1, 2, 3):
        assert f(tg.ones(2) * value).tolist() == [2.0 * value * value] * 2
    assert f.stats()["captures"] == 1 and f.stats()["eager"] == 2 and "reads" in next(iter(f.stats()["reasons"]))


def test_changes_before_a_read_are_made_once():
    total = tg.zeros(1)

    def f(x):
        total.add_(x)
        return total * 2 if total > 1.5 else total * 3

    f = tg.compile(f, fallback=True)
    assert [f(tg.ones(1)).item() for _ in range(4)] == [3.0, 4.0, 6.0, 8.0] and total.item() == 4.0


# --- cut where numbers are read


class Loop:
    """A training loop's objects, and what it writes down."""

    def __init__(self) -> None:
        self.model = tg.nn.Sequential(tg.nn.Linear(4, 8), tg.nn.Tanh(), tg.nn.Linear(8, 2))
        self.optimizer = tg.optim.Adam(self.model.parameters(), lr=0.05)
        self.losses: list[Any] = []
        self.skipped = 0


def returned(loop, x, y):
    loop.optimizer.zero_grad()
    loss = tg.nn.functional.mse_loss(loop.model(x), y)
    loss.backward()
    loop.optimizer.step()
    return loss.item()


def appended(loop, x, y):
    """A docstring is no statement of the function."""
    loop.optimizer.zero_grad()
    out = loop.model(x)
    loss = tg.nn.functional.mse_loss(out, y)
    loss.backward()
    loop.optimizer.step()
    loop.losses.append(loss.item())
    return loss.detach(), {"largest": float(out.max()), "mean": loop.losses[-1] / 2}


def printed(loop, x, y, every=3):
    loop.optimizer.zero_grad()
    loss = tg.nn.functional.mse_loss(loop.model(x), y)
    loss.backward()
    loop.optimizer.step()
    value = loss.item()
    if len(loop.losses) % every == 0:
        loop.losses.append(f"{value:.4f}")
    else:
        loop.losses.append(math.sqrt(value))
    return value


def steered(loop, x, y):
    loop.optimizer.zero_grad()
    loss = tg.nn.functional.mse_loss(loop.model(x), y)
    if loss.item() > 1.2:  # what follows is Python's, the backward pass through the program's graph among it
        loop.skipped += 1
        return None
    loss.backward()
    loop.optimizer.step()
    return loss.item()


def checked_after(loop, x, y):
    loop.optimizer.zero_grad()
    loss = tg.nn.functional.mse_loss(loop.model(x), y)
    loss.backward()
    norm = tg.nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
    loop.optimizer.step()
    if norm > 0.5:  # a truth, but the step was made before
        loop.skipped += 1
    return loss.detach()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", [returned, appended, printed, steered, checked_after])
def test_a_training_step_is_a_program_up_to_the_read(function: Any, backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        loop = Loop()

        @compiled
        def step(x: Any, y: Any) -> Any:
            return function(loop, x, y)

        both = compiled(function)
        for i in range(10):
            x, y = tg.randn(6, 4), tg.randn(6, 2)
            if i == 6:
                loop.optimizer.param_groups[0]["lr"] = 0.01
            show(both(loop, x, y))
        show(loop.losses, loop.skipped, list(loop.model.parameters()), [p.grad for p in loop.model.parameters()])
        del step

    whole, both = sorted(beside(script, backend, exact=True, fallback=True), key=lambda one: one.stats()["calls"])
    stats = both.stats()
    assert stats["calls"] == 10 and stats["replays"] >= 7 and stats["eager"] == 0, stats
    assert whole.stats()["calls"] == 0
    text = both.explain()
    assert "where Python reads what is computed" in text.splitlines()[0] and "test_fallback.py:" in text
    assert "optimizer:" in text and stats["python"], text
    with pytest.raises(CompileError, match="Python reads numbers within"):
        both.save("never.tgp")


def test_a_step_of_a_closure_and_of_a_method():
    loop = Loop()
    x, y = tg.randn(6, 4), tg.randn(6, 2)
    seen = []

    @tg.compile(fallback=True)
    def step(x, y):
        loop.optimizer.zero_grad()
        loss = tg.nn.functional.mse_loss(loop.model(x), y)
        loss.backward()
        loop.optimizer.step()
        seen.append(loss.item())

    class Trainer:
        def __init__(self) -> None:
            self.loop, self.seen = Loop(), []

        def step(self, x, *, y):
            self.loop.optimizer.zero_grad()
            loss = tg.nn.functional.mse_loss(self.loop.model(x), y)
            loss.backward()
            self.loop.optimizer.step()
            self.seen.append(loss.item())
            return self

    trainer = Trainer()
    method = tg.compile(trainer.step, fallback=True)
    for _ in range(6):
        assert step(x, y) is None
        assert method(x, y=y) is trainer
    assert len(seen) == len(trainer.seen) == 6 and seen == sorted(seen, reverse=True)
    assert trainer.seen == sorted(trainer.seen, reverse=True) and len(set(trainer.seen)) == 6
    for one in (step, method):
        assert one.stats()["replays"] >= 3 and one.stats()["eager"] == 0


def test_objects_that_a_replay_would_make_anew_are_not_handed_over():
    """The list is an alias of one that lives on: it has to be that one in every call."""
    kept: list[float] = []
    weight = tg.ones(3)

    @tg.compile(fallback=True)
    def step(x):
        into = kept
        weight.add_(x)
        total = weight.sum()
        into.append(total.item())
        return len(into)

    assert [step(tg.ones(3)) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert kept == [6.0, 9.0, 12.0, 15.0, 18.0] and step.stats()["replays"] >= 3


def early(x):
    x.add_(1)
    if x.shape[0] > 3:
        return x.sum()
    return x.sum().item()


def conditional(x):
    if x.shape[0] > 3:
        scale = 2
    x.add_(1)
    return x.sum().item() * (scale if x.shape[0] > 3 else 1)


def deleted(x):
    y = x.add_(1) * 2
    z = y
    del y
    y = z
    return y.sum().item()


def captured(x):
    y = x.add_(1)
    z = lambda: y  # noqa: E731 - it sees the name, not the value
    y = y * 3 + x.sum().item()
    return z()


def looks(x):
    x.add_(1)
    return x.sum().item() + len(locals())


def generated(x):
    x.add_(1)
    yield x.sum().item()


def rewritten_at_item(function):
    """The function in parts, but for the statement that calls ``item()``."""
    lines, first = inspect.getsourcelines(function)
    [line] = [first + i for i, text in enumerate(lines) if ".item()" in text]
    rewritten = Rewritten.of(function, lambda part: None)
    if rewritten is not None:
        assert rewritten.stay(line, "it reads")
    return rewritten


@pytest.mark.parametrize("function, lines", [
    (early, [[1], [3]]), (conditional, [[3]]), (deleted, [[1]]), (captured, [[4]]), (looks, None), (generated, None),
    (scaled, []),
])  # fmt: skip
def test_which_statements_are_parts(function, lines):
    rewritten = rewritten_at_item(function)
    first = function.__code__.co_firstlineno
    assert (rewritten and [[s.lineno - first for s in part.statements] for part in rewritten.parts]) == lines


@pytest.mark.parametrize("what", [len, Loop, Loop().model])
def test_only_functions_are_written_in_parts(what):
    assert Rewritten.of(what, lambda part: None) is None


@pytest.mark.parametrize("function", [early, conditional, deleted, captured, looks])
def test_functions_that_are_not_cut_run_as_they_are(function):
    compiled = tg.compile(function, fallback=True)
    for size in (2, 5, 2, 2):
        ours, theirs = tg.ones(size), tg.ones(size)
        a, b = compiled(ours), function(theirs)
        assert (a.tolist() if isinstance(a, tg.Tensor) else a) == (b.tolist() if isinstance(b, tg.Tensor) else b)
        assert ours.tolist() == theirs.tolist()


def defaults(x, *more, scale=2.0, **names):
    """Arguments of every kind."""
    x.add_(scale)
    y = x * len(more)
    return y.sum().item(), more, scale, names


def test_arguments_of_every_kind_reach_the_second_half():
    f = tg.compile(defaults, fallback=True)
    for _ in range(4):
        x, y = tg.zeros(2), tg.zeros(2)
        assert f(x, 1, 2, scale=3.0, last="z") == defaults(y, 1, 2, scale=3.0, last="z")
        assert f(x, 1) == defaults(y, 1)
    assert f.stats()["replays"] >= 4
    [part] = rewritten_at_item(defaults).parts
    assert part.names == ["more", "scale", "x"] and part.gives == ["y"]


def test_forget_drops_the_halves_too():
    loop = Loop()
    f = tg.compile(returned, fallback=True)
    x, y = tg.randn(6, 4), tg.randn(6, 2)
    for _ in range(3):
        f(loop, x, y)
    assert f.programs
    f.forget()
    assert not f.programs and f.stats()["programs"] == 0
    assert isinstance(f(loop, x, y), float)


def picked_then_changed(y, at):
    part = y[at]
    y[at] += 1
    return part * 1, y * 1


def picked_and_changed(y, at):
    part = y[:, at]
    part.add_(1)
    return part.clone(), y * 1


def picked_and_returned(y, at):
    part = y[at]
    y.mul_(2)
    return part, y * 1


def picked_of_what_is_computed(y, at):
    part = (z := y * _FACTOR)[at]
    z.mul_(2)
    return ((part * part).sum() * 1, *tg.autograd.grad((part * part).sum() + z.sum(), _FACTOR))


_FACTOR = tg.full((4, 3), 2.0, requires_grad=True)


@pytest.mark.parametrize("function", [
    picked_then_changed, picked_and_changed, picked_and_returned, picked_of_what_is_computed,
])  # fmt: skip
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_goes_on_has_views_where_a_program_would_have_copies(function, backend):
    with tg.backend(backend):
        f = tg.compile(function, fallback=True)
        for at in (2, 0, 2, 1):
            y, z = (tg.arange(12.0).reshape(4, 3) for _ in range(2))
            for ours, theirs in zip(f(y, tg.tensor(at)), function(z, tg.tensor(at)), strict=True):
                assert ours.tolist() == theirs.tolist()
            assert y.tolist() == z.tolist()
        with pytest.raises(CompileError, match="a copy and no view"):
            tg.compile(function)(y, tg.tensor(at))


def both(x, at):
    h = x * 2
    return h, h[at]


def test_what_is_picked_is_not_returned_beside_what_it_is_a_view_of():
    x = tg.arange(6.0).reshape(3, 2)
    with pytest.raises(CompileError, match=r"picked at .* in both: return h, h\[at\] is returned"):
        tg.compile(both)(x, tg.tensor(1))
    f = tg.compile(both, fallback=True)
    for at in (1, 2, 0):
        whole, part = f(x, tg.tensor(at))
        whole.zero_()
        assert part.tolist() == [0.0, 0.0]
