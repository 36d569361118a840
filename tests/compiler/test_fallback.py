"""fallback=True: truths that Python reads split a function, other reads let it run as it is."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.errors import CompileError


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
