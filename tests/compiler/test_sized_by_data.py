"""Results whose shape depends on elements are refused in a program, and ways around that are not."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.errors import CompileError

X = tg.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, -1.0]])
N = tg.tensor([1, 0, 2, 1])

SIZED = {
    "nonzero": lambda x, n: tg.nonzero(x),
    "nonzero-tuple": lambda x, n: tg.nonzero(x, as_tuple=True),
    "argwhere": lambda x, n: tg.argwhere(x),
    "where": lambda x, n: tg.where(x > 0),
    "masked_select": lambda x, n: tg.masked_select(x, x > 0),
    "mask": lambda x, n: x[x > 0],
    "mask-of-columns": lambda x, n: x[:, x[0] > 0],
    "masked_scatter": lambda x, n: tg.masked_scatter(x, x > 0, x),
    "unique": lambda x, n: tg.unique(n),
    "unique_consecutive": lambda x, n: tg.unique_consecutive(n),
    "bincount": lambda x, n: tg.bincount(n, minlength=9),
}


@pytest.mark.parametrize("name", SIZED)
def test_shapes_that_depend_on_elements_are_refused(name):
    with pytest.raises(CompileError, match=r"test_sized_by_data\.py"):
        Compiled(SIZED[name])(X, N)


FIXED = {
    "one_hot": lambda x, n: tg.nn.functional.one_hot(n, 5),
    "one_hot-counted": lambda x, n: tg.nn.functional.one_hot(n),  # what this package reads is asked again
    "repeat_interleave-counted": lambda x, n: tg.repeat_interleave(n, n, dim=0),
    "isin": lambda x, n: tg.isin(n, n[:2]),
    "histc": lambda x, n: tg.histc(x, 3),
    "where": lambda x, n: tg.where(x > 0, x, 0.0),
    "masked_fill": lambda x, n: x.masked_fill(x > 0, 2.0),
    "repeat_interleave": lambda x, n: tg.repeat_interleave(x, 2, dim=0),
    "set-where": lambda x, n: filled(x, x > 0, 7.0),
    "set-rows": lambda x, n: filled(x, x.sum(1) > 0, x[0, 1]),
}


def filled(x, mask, value):
    y = x.clone()
    y[mask] = value
    return y


@pytest.mark.parametrize("name", FIXED)
def test_those_that_do_not_are_captured(name):
    compiled = Compiled(FIXED[name])
    for x, n in ((X, N), (-X.flip(0), N.flip(0)), (X * 0, N)):
        assert compiled(x, n).tolist() == FIXED[name](x, n).tolist()
    assert compiled.captures == 1


def test_lengths_of_packed_sequences_are_asked_again():
    """Of many sequences, and in a training step whose backward pass is in the program."""
    rnn = tg.nn.LSTM(3, 5, batch_first=True)
    lengths = tg.arange(20, 0, -1)

    def step(x, lengths):
        rnn.zero_grad()
        packed = tg.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        loss = rnn(packed)[1][0].square().sum()
        loss.backward()
        return loss.detach()

    compiled = Compiled(step)
    for i in range(6):
        x, of = tg.randn(20, 20, 3), lengths if i < 4 else (lengths + 1) // 2
        expected = step(x, of)
        grads = [p.grad.clone() for p in rnn.parameters()]
        tg.testing.assert_close(compiled(x, of), expected)
        for p, g in zip(rnn.parameters(), grads, strict=True):
            tg.testing.assert_close(p.grad, g)
    assert compiled.captures <= 4


def test_what_is_too_long_to_be_asked_again_is_refused():
    pack = tg.nn.utils.rnn.pack_padded_sequence
    with pytest.raises(CompileError, match=r"reads a tensor that .* computes at .*test_sized_by_data\.py"):
        Compiled(lambda x, n: pack(x, n).data)(tg.zeros(1, 600, 1), tg.ones(600, dtype=tg.int64))
