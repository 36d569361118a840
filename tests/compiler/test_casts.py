"""Integers that formulas cast again and again: which are cast once, what keeps them as they are, the numbers."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tests.compiler.common import after, names, written

X = tg.randn(6, 40, generator=tg.Generator().manual_seed(1))
LENGTHS = tg.tensor([[1], [5], [3], [40], [2], [7]])


def casts(program):
    return names(program).count("cast")


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("whole", ["int64", "int32", "uint8"])
def test_lengths_of_rows_are_cast_once(backend, dtype, whole):
    def run(x, n):
        return x / (n + 1), x * (n + 1)

    with tg.backend(backend):
        x, n = X.to(getattr(tg, dtype)), LENGTHS.to(getattr(tg, whole))
        program = written(run, x, n)
        made = after("casts", program)
        assert casts(made) == casts(program) + 2  # n + 1 is there twice until duplicates are gone
        assert casts(after("casts", after("duplicates", program))) == casts(program) + 1
        compiled = tg.compile(run)
        compiled(x, n)
        for got, expected in zip(compiled(x, n), run(x, n), strict=True):
            assert tg.equal(got, expected)


def test_ties_that_share_a_gradient():
    def run(x):
        return tg.autograd.grad(x.amax(dim=1).pow(2).sum(), x)[0]

    x = tg.tensor([[1.0, 2.0, 2.0, 0.0, -1.0, 2.0, 0.5, 1.5, 0.0, 1.0]] * 3).requires_grad_()
    program = written(run, x)
    assert casts(after("casts", program)) == casts(program) + 1
    compiled = tg.compile(run)
    compiled(x)
    assert tg.equal(compiled(x), run(x))


@pytest.mark.parametrize(
    "run",
    [
        lambda x, n: x.half() / (n + 1),  # with the cast it would be float32
        lambda x, n: (x * 3).to(tg.int64) + (n + 1),  # stays whole
        lambda x, n: x.exp() / (x > 0).sum(),  # one number: the formula casts it once
        lambda x, n: x[:, :4] / (n + 1),  # hardly again
        lambda x, n: tg.where(n + 1 > 3, x, 0.0),  # compared as it is
    ],
)
def test_what_stays(run):
    program = written(run, X, LENGTHS)
    assert after("casts", program) is program
    compiled = tg.compile(run)
    compiled(X, LENGTHS)
    assert tg.equal(compiled(X, LENGTHS), run(X, LENGTHS))


@pytest.mark.parametrize(
    "run",
    [
        lambda x, n: tg.where(x > 0, n, x.half()).exp() + x,
        lambda x, n: tg.hypot(n[:0].int(), x[:0]) + n[:0].sigmoid(),
    ],
)
def test_passes_see_what_they_have_made_when_a_program_is_saved(run, tmp_path):
    compiled = tg.compile(run)
    for _ in range(2):
        expected = compiled(X, LENGTHS)
    compiled.save(tmp_path / "casts.tgp")
    assert tg.equal(tg.compiler.load(tmp_path / "casts.tgp")(X, LENGTHS), expected)


def test_numbers_that_change_in_between():
    def run(x, n):
        m = n + 1
        y = x / m
        m.add_(1)
        return y, x / m

    program = written(run, X, LENGTHS)
    assert after("casts", program) is program
    compiled = tg.compile(run)
    compiled(X, LENGTHS)
    for got, expected in zip(compiled(X, LENGTHS), run(X, LENGTHS), strict=True):
        assert tg.equal(got, expected)
