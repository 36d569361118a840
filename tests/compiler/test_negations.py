"""Sums of what was negated: which are taken below the sign, what keeps the sign where it is, the numbers."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tests.compiler.common import after, names, written

X = tg.randn(150, 200, generator=tg.Generator().manual_seed(1))
R = tg.randn(200, generator=tg.Generator().manual_seed(2)) + 3


def grads(loss):
    def run(x, r):
        return tg.autograd.grad(loss(x, r), (x, r))

    return run


# (loss of a matrix and a row, sums that lose their sign)
CASES = [
    (lambda x, r: (x - r).tanh().sum(), 1),
    (lambda x, r: (x - r.mean()).pow(2).sum() + r.sum(), 1),  # of all elements
    (lambda x, r: (x / r).exp().sum(), 1),
    (lambda x, r: ((x - r) / r).sin().sum(), 2),
    (lambda x, r: (r - x).tanh().sum(), 0),  # the matrix has the sign, and is wanted
    (lambda x, r: (x + r).tanh().sum(), 0),
    (lambda x, r: (x[:20] - r).tanh().sum() + x.sum(), 0),  # too little
    (lambda x, r: (x.half() - r.half()).tanh().float().sum(), 0),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_negated(case, dtype):
    loss, count = CASES[case]
    x, r = (t.clone().to(getattr(tg, dtype)).requires_grad_() for t in (X, R))
    with tg.backend("cpp"):
        program = written(grads(loss), x, r)
        made = after("negations", program)
        assert names(made).count("neg") - names(program).count("neg") == count, made
        if not count:
            assert made is program
        compiled = tg.compile(grads(loss))
        first = [g.clone() for g in compiled(x, r)]
        for got, again, expected in zip(first, compiled(x, r), grads(loss)(x, r), strict=True):
            assert tg.equal(got, again)
            assert tg.allclose(got, expected, rtol=1e-5, atol=1e-4)
    with tg.backend("numpy"):
        program = written(grads(loss), x, r)
        assert after("negations", program) is program  # whose zeros have their signs


def test_what_is_read_elsewhere_keeps_its_sign():
    def read_twice(x):
        y = -x
        return y.sum(dim=0), y * 2

    def returned(x):
        y = -x
        return y.sum(dim=0), y

    def seen_through_a_view(x):
        y = -x
        return y.sum(dim=0), y.t().exp()

    with tg.backend("cpp"):
        for run in (read_twice, returned, seen_through_a_view):
            program = written(run, X)
            assert after("negations", program) is program
        made = after("negations", written(lambda x: (-x).sum(dim=0), X))
        assert names(made) == ["sum", "neg"]


def test_what_changes_in_between_is_negated_before():
    def run(x):
        y = -x
        x.add_(1)
        return y.sum(dim=0)

    with tg.backend("cpp"):
        program = written(run, X.clone())
        assert after("negations", program) is program
        compiled = tg.compile(run)
        for _ in range(3):
            assert tg.allclose(compiled(X.clone()), -X.sum(dim=0), rtol=1e-5, atol=1e-4)


def test_integers_and_other_sums_stay():
    with tg.backend("cpp"):
        whole = (X * 10).to(tg.int64).repeat(3, 1)
        for run in (lambda x: (-x).sum(dim=0), lambda x: (-x).amax(dim=0)):
            program = written(run, whole)
            assert after("negations", program) is program
        program = written(lambda x: (-x).sum(dim=0, dtype=tg.float64), X)
        assert after("negations", program) is program
