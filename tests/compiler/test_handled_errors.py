"""Errors that the function itself handles: a replay runs no Python, and still does what a run does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tensorgrad as tg

pytestmark = pytest.mark.filterwarnings("ignore:compile. calls of .* run as they are")
table = tg.nn.Embedding(4, 3)
good, bad = tg.tensor([1, 2]), tg.tensor([1, 9])


def looked_up(i: Any) -> Any:
    return table(i) * 2


def in_a_try(i: Any) -> Any:
    try:
        return looked_up(i)
    except IndexError:
        return tg.zeros(2, 3)


def in_a_bare_try(i: Any) -> Any:
    try:
        return looked_up(i)
    except:  # noqa: E722
        return tg.zeros(2, 3)


def in_suppress(i: Any) -> Any:
    found = tg.zeros(2, 3)
    with contextlib.suppress(IndexError):
        found = looked_up(i)
    return found


class Taking:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return kind is not None and issubclass(kind, IndexError)


def in_a_class(i: Any) -> Any:
    found = tg.zeros(2, 3)
    with tg.no_grad(), Taking():
        found = looked_up(i)
    return found


@contextlib.contextmanager
def taking() -> Iterator[None]:
    try:
        yield
    except IndexError:
        return


def in_a_generator(i: Any) -> Any:
    found = tg.zeros(2, 3)
    with taking():
        found = looked_up(i)
    return found


def in_a_try_around_a_finally(i: Any) -> Any:
    try:
        try:
            return looked_up(i)
        finally:
            i.detach()
    except IndexError:
        return tg.zeros(2, 3)


ALL = [in_a_try, in_a_bare_try, in_suppress, in_a_class, in_a_generator, in_a_try_around_a_finally]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("function", ALL, ids=lambda f: f.__name__)
def test_a_replay_that_raises_is_a_run(function: Callable[[Any], Any], graph: bool) -> None:
    compiled = tg.compile(function)
    with contextlib.nullcontext() if graph else tg.no_grad():
        for i in (good, good, bad, good, bad):
            assert tg.equal(compiled(i), function(i))
    found = compiled.stats()
    assert found["captures"] == 1 and found["replays"] == 2 and found["eager"] == 2


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.__name__)
def test_no_program_is_written_of_a_run_that_went_on_after_an_error(function: Callable[[Any], Any]) -> None:
    compiled = tg.compile(function)
    for i in (bad, bad, good, good, bad, good):
        assert tg.equal(compiled(i), function(i))
    assert compiled.stats()["replays"] == 2


@pytest.mark.parametrize("op, wrong", [
    (lambda x: tg.fmod(tg.full((2, 2), 7), x.long()), tg.zeros(2, 2)),
    (lambda x: tg.linalg.svdvals(x), tg.full((2, 2), float("nan"))),
    (lambda x: tg.nn.functional.embedding_bag(x.long(), tg.ones(4, 3)), tg.full((2, 2), 9.0)),
    (lambda x: tg.linalg.cholesky(x), -tg.eye(2)),
], ids=["fmod", "svdvals", "embedding_bag", "cholesky"])  # fmt: skip
def test_whatever_raises_for_what_it_is_given_is_handled(op: Callable[[Any], Any], wrong: Any) -> None:
    def tried(x: Any) -> Any:
        try:
            return op(x)
        except (RuntimeError, IndexError):
            return tg.zeros(2, 2)

    compiled = tg.compile(tried)
    right = tg.eye(2) + 1
    for x in (right, right, right, wrong, right, wrong):
        assert tg.equal(compiled(x), tried(x))
    assert compiled.stats()["replays"] >= 2 and compiled.stats()["eager"] == 2


def test_behind_a_draw_calls_run_as_they_are() -> None:
    def dropped(i: Any) -> Any:
        x = tg.nn.functional.dropout(tg.ones(2, 3))
        try:
            return x * table(i)
        except IndexError:
            return x

    compiled = tg.compile(dropped)
    for i in (good, bad, good):
        tg.manual_seed(3)
        found, state = compiled(i), tg.get_rng_state()
        tg.manual_seed(3)
        assert tg.equal(found, dropped(i)) and tg.equal(state, tg.get_rng_state())
    assert any("could not be taken back" in why for why in compiled.stats()["reasons"])


def test_gradients_are_as_before_where_a_replay_raises() -> None:
    layer = tg.nn.Linear(3, 1)
    optimizer = tg.optim.Adam([*layer.parameters(), *table.parameters()], lr=0.01)
    optimizer.zero_grad()

    def step(i: Any) -> Any:
        try:
            found = layer(table(i)).sum()
        except IndexError:
            return tg.tensor(-1.0)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        return found

    compiled = tg.compile(step)
    for _ in range(4):
        compiled(good)
    kept = layer.weight.grad
    assert kept is not None
    weight, grad, steps = layer.weight.clone(), kept.clone(), optimizer.state_dict()["state"][0]["step"]
    assert compiled(bad).item() == -1.0
    assert layer.weight.grad is not None and tg.equal(layer.weight.grad, grad) and tg.equal(layer.weight, weight)
    assert optimizer.state_dict()["state"][0]["step"] == steps
    assert compiled.stats()["replays"] == 2


def test_what_is_refused_is_told_where_the_function_handles_every_error() -> None:
    def chosen(x: Any) -> Any:
        try:
            return x * 2 if x.sum() > 0 else x
        except RuntimeError:
            return x * 0

    with pytest.raises(tg.errors.CompileError, match="Python reads a tensor"):
        tg.compile(chosen)(tg.ones(2))
    fallback = tg.compile(chosen, fallback=True)
    for _ in range(3):
        assert fallback(tg.ones(2)).tolist() == [2.0, 2.0]


def test_blocks_that_let_errors_pass_cost_nothing() -> None:
    def scaled(i: Any) -> Any:
        x = tg.nn.functional.dropout(tg.ones(2, 3))
        with contextlib.nullcontext(), tg.enable_grad():
            return x * table(i)

    compiled = tg.compile(scaled)
    for _ in range(3):
        compiled(good)
    assert compiled.stats()["replays"] == 2
    with pytest.raises(IndexError):
        compiled(bad)
