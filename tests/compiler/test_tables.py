"""Gradients of several lookups of one table: rows added to the first, what keeps a table of its own, the numbers."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tests.compiler.common import after, names, written

F = tg.nn.functional
I, J, K = tg.tensor([3, 1, 3, 0]), tg.tensor([[1, 1], [4, 3]]), tg.tensor([2, 3])


def lookups(w, *indices):
    return sum(F.embedding(i, w).pow(2).sum() for i in indices)


# (the loss of a table, how many sums there are of its gradients, how many of them are rows that are added)
CASES = [
    (lambda w: lookups(w, I, J), 1, 1),
    (lambda w: lookups(w, I, J, K), 2, 2),
    (lambda w: lookups(w, I) + (w @ w.T).tanh().sum(), 2, 1),  # onto what a product made
    (lambda w: lookups(w, I) + F.embedding(J, w, padding_idx=1).exp().sum(), 1, 1),  # the padded one comes first
    (lambda w: F.embedding(I, w, padding_idx=0).exp().sum() + F.embedding(J, w, padding_idx=1).exp().sum(), 1, 0),
    (lambda w: lookups(w.half(), I, J), 1, 0),  # summed in float32, rounded once
    (lambda w: lookups(w, I.int(), J.int()), 1, 1),
]


def step(loss):
    def run(w):
        return tg.autograd.grad(loss(w), w)[0]

    return run


@pytest.mark.parametrize("case", range(len(CASES)))
def test_rows_are_added_to_the_table_that_there_is(case):
    loss, sums, rows = CASES[case]
    w = tg.randn(5, 3, generator=tg.Generator().manual_seed(1)).requires_grad_()
    with tg.backend("cpp"):
        program = written(step(loss), w)
        tables = [call for call in program.calls if call.op.name == "add" and call.results[0].shape == (5, 3)]
        assert len(tables) == sums, program
        made = after("tables", program)
        assert names(made).count("index_add_into") == rows, made
        assert names(made).count("embedding_backward") == names(program).count("embedding_backward") - rows
        compiled = tg.compile(step(loss))
        first, again = compiled(w).clone(), compiled(w)
        assert tg.equal(first, again)
        assert tg.allclose(first, step(loss)(w), rtol=1e-5)
    with tg.backend("numpy"):
        program = written(step(loss), w)
        assert after("tables", program) is program  # its bits are an eager step's


def test_a_table_that_is_read_elsewhere_stays_as_it_is():
    def run(w):
        a = tg.autograd.grad(lookups(w, I), w)[0]
        b = tg.autograd.grad(lookups(w, J), w)[0]
        return a + b, a.exp(), b.exp()

    w = tg.randn(5, 3, requires_grad=True)
    with tg.backend("cpp"):
        program = written(run, w)
        assert after("tables", program) is program


def test_a_table_is_not_added_to_itself():
    def run(w):
        g = tg.autograd.grad(lookups(w, I), w)[0]
        return g + g

    w = tg.randn(5, 3, requires_grad=True)
    with tg.backend("cpp"):
        program = written(run, w)
        assert after("tables", program) is program
        assert tg.equal(tg.compile(run)(w), run(w))
