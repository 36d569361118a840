"""What is refused says what was asked, what was seen, and what would work."""

from __future__ import annotations

import itertools
import sys
import warnings
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import CompileError, DeviceError
from tensorgrad.testing.strict_backend import strict_cuda

host = tg.ones(2)


@pytest.mark.parametrize("function, words", [
    (lambda x, y: (x * 2).to("cuda"), r"shape \(2,\) on cpu is moved to cuda at .*test_words.py:\d+"),
    (lambda x, y: x.cuda() + y, "on cpu is moved to cuda"),
    (lambda x, y: (y * 2).cpu(), "on cuda:0 is moved to cpu"),
    (lambda x, y: host.to(y.device) + y, "on cpu is moved to cuda"),
    (lambda x, y: (y + 1).to(x.device), "moved to cpu"),
    (lambda x, y: x.add_(y.cpu()), r"Move the tensor before the call.*model.to\(...\)"),
])  # fmt: skip
def test_a_move_between_devices(function: Any, words: str) -> None:
    with strict_cuda():
        x, y = tg.ones(2), tg.ones(2, device="cuda")
        with pytest.raises(CompileError, match=words) as caught:
            tg.compile(function)(x, y)
        assert "where()" not in str(caught.value) and "neither among" not in str(caught.value)
        fallback = tg.compile(function, fallback=True)
        for _ in range(3):
            ours, theirs = tg.ones(2), tg.ones(2)
            assert fallback(ours, y).tolist() == function(theirs, y).tolist() and ours.tolist() == theirs.tolist()


def moved_in_the_middle(x: Any, y: Any) -> Any:
    a = (x * 2 + 1).tanh()
    b = a.to("cuda")
    c = (b + y).exp() * 2
    return c - 1


def test_what_stands_around_a_move_is_compiled() -> None:
    with strict_cuda():
        f = tg.compile(moved_in_the_middle, fallback=True)
        for i in range(5):
            x, y = tg.full((2,), float(i)), tg.ones(2, device="cuda")
            assert f(x, y).tolist() == moved_in_the_middle(x, y).tolist()
        [why] = f.stats()["python"].values()
        assert f.stats()["replays"] == 6 and why.endswith('in moved_in_the_middle: b = a.to("cuda")'), why


def test_numbers_become_tensors_of_a_device_within() -> None:
    with strict_cuda():
        f = tg.compile(lambda y: tg.tensor([1.0, 2.0], device="cuda") * y)
        for i in range(4):
            assert f(tg.full((2,), float(i), device="cuda")).tolist() == [i * 1.0, i * 2.0]
        assert f.stats()["replays"] == 3


def test_a_device_that_is_not_there() -> None:
    if tg.cuda.is_available():
        with pytest.raises(CompileError, match="is moved to cuda"):
            tg.compile(lambda x: x.to("cuda"))(tg.ones(2))
    else:
        with pytest.raises(DeviceError, match="'cuda' is not available"):
            tg.compile(lambda x: x.to("cuda"))(tg.ones(2))


@pytest.mark.parametrize("view", [
    lambda whole: whole[1:], lambda whole: whole.t(), lambda whole: whole[:, ::2], lambda whole: whole.view(-1)[3:],
])  # fmt: skip
def test_as_strided_of_a_view_that_is_an_argument(view: Any) -> None:
    whole = tg.arange(16.0).view(4, 4).clone()

    def f(x: Any) -> Any:
        return x.as_strided((2, 2), (2, 1), 1) * 2

    part = view(whole)
    with pytest.raises(CompileError) as caught:
        tg.compile(f)(part)
    text = str(caught.value)
    assert "as_strided at" in text and "test_words.py" in text and "argument 0" in text and "clone()" in text
    assert str(tuple(part.shape)) in text
    fallback = tg.compile(f, fallback=True)
    assert [fallback(part).tolist() for _ in range(3)] == [f(part).tolist()] * 3
    # what it says would work
    compiled, inside = tg.compile(f), tg.compile(lambda whole: f(view(whole)))
    for _ in range(3):
        assert compiled(part.clone()).tolist() == f(part.clone()).tolist()
        assert inside(whole).tolist() == f(part).tolist()
    assert compiled.stats()["replays"] == inside.stats()["replays"] == 2


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, 3)
        self.kept = nn.Parameter(tg.zeros(1, 3))

    def forward(self, x: Any) -> Any:
        y = self.cell(x)
        self.kept = nn.Parameter(y.detach())
        return y


seen: list[Any] = []
count = 0


def appends(x: Any) -> Any:
    y = x * 2
    seen.append(x.shape)  # here
    return y


def counts(x: Any) -> Any:
    def up() -> None:
        global count
        count += 1  # here

    up()
    return x + 1


def draws(x: Any) -> Any:
    import random

    return x * random.random()  # here


class Modes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        if x.ndim == 2:
            self.drop.p /= 2  # here
        return self.drop(x)


@pytest.mark.parametrize(
    "function, words",
    [
        (
            Cell(),
            r"f\.kept was a tensor of shape \(1, 3\) and is another one of that shape.*copy_\(\).*self\.kept = nn",
        ),
        (
            appends,
            r"seen had \d entries and has \d, at .*test_words\.py:\d+ in appends: seen\.append\(x\.shape\)  # here",
        ),
        (counts, r"count was \d and is \d, at .*test_words\.py:\d+ in up: count \+= 1  # here"),
        (draws, r"Python's random.*at .*in draws: return x \* random\.random\(\)  # here"),
        (Modes(), r"f\.drop\.p was .* in forward: self\.drop\.p /= 2  # here"),
    ],
    ids=["tensor", "list", "counter", "random", "attribute"],
)
def test_what_changes_what_it_rests_on_names_the_line(function: Any, words: str) -> None:
    f = tg.compile(function)
    with pytest.raises(CompileError, match=words):
        for _ in range(5):
            f(tg.ones(1, 2))
    assert sys.gettrace() is None or sys.gettrace().__module__ != "tensorgrad.compiler.changing"


def test_an_object_that_reads_the_same_is_told_apart() -> None:
    held = {"kind": frozenset((1, 2))}

    def function(x: Any) -> Any:
        held["kind"] = [len(held)]
        return x * 2

    f = tg.compile(function)
    with pytest.raises(CompileError, match=r"another object that reads the same, at .*held\[.kind.\]"):
        for _ in range(5):
            f(tg.ones(2))


def test_bincount_says_what_has_a_fixed_shape() -> None:
    n = tg.tensor([1, 0, 2, 1])
    with pytest.raises(CompileError, match=r"bincount.*one_hot\(x, n\)\.sum\(0\).*minlength is a least length"):
        tg.compile(lambda x: tg.bincount(x, minlength=3))(n)
    fixed = tg.compile(lambda x: nn.functional.one_hot(x, 3).sum(0))
    weights = tg.tensor([0.5, 1.0, 2.0, 4.0])
    weighted = tg.compile(lambda w, x: w @ nn.functional.one_hot(x, 3).float())
    for _ in range(3):
        assert fixed(n).tolist() == tg.bincount(n, minlength=3).tolist()
        assert weighted(weights, n).tolist() == tg.bincount(n, weights, minlength=3).tolist()


def yields(x: Any) -> Any:
    for i in range(3):
        yield x * i


async def awaited(x: Any) -> Any:
    return x


numbers = itertools.count()


@pytest.mark.parametrize(
    "function, argument, words",
    [
        (yields, tg.ones(2), r"returns a generator.*`yield`.*list or tuple"),
        (lambda x: (x * i for i in range(3)), tg.ones(2), r"returns a generator.*\[f\(x\) for x in xs\]"),
        (lambda x: map(tg.exp, [x]), tg.ones(2), r"returns an iterator \(map\).*list\(\.\.\.\)"),
        (lambda x: {"a": iter([x])}, tg.ones(2), r"returns an iterator \(list_iterator\)"),
        (sum, (t for t in [tg.ones(2)]), r"argument 0 is a generator.*take the next one outside"),
        (lambda x: next(x[1]), [1, iter([tg.ones(2)])], r"argument 0 is an iterator \(list_iterator\)"),
        (lambda x: x * next(numbers), tg.ones(2), r"numbers is an iterator \(count\)"),
    ],
    ids=["yield", "expression", "map", "iterator", "argument", "inner", "reached"],
)
def test_what_is_read_once_is_refused(function: Any, argument: Any, words: str) -> None:
    with pytest.raises(CompileError, match=words):
        tg.compile(function)(argument)


def test_a_coroutine_is_refused() -> None:
    with warnings.catch_warnings(), pytest.raises(CompileError, match=r"is a coroutine.*Compile a plain function"):
        warnings.simplefilter("ignore")
        tg.compile(awaited)(tg.ones(2))


def test_what_is_read_once_runs_as_it_is_with_fallback() -> None:
    f = tg.compile(lambda xs: sum(xs), fallback=True)
    for _ in range(3):
        assert f(t * 2 for t in [tg.ones(2), tg.ones(2)]).tolist() == [4.0, 4.0]
    for _ in range(3):
        assert f([tg.ones(2), tg.ones(2)]).tolist() == [2.0, 2.0]
    assert f.stats()["replays"] == 2
    g = tg.compile(yields, fallback=True)
    for _ in range(3):
        assert [t.tolist() for t in g(tg.ones(1))] == [[0.0], [1.0], [2.0]]


def test_generators_within_a_function_are_part_of_it() -> None:
    def function(x: Any) -> Any:
        return sum(yields(x)) + sum(t * 2 for t in yields(x))

    f = tg.compile(function)
    for i in range(3):
        assert f(tg.ones(2) + i).tolist() == function(tg.ones(2) + i).tolist()
    assert f.stats()["replays"] == 2
