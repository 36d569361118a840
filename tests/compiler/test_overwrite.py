"""Scatters that write where their operand lies: which do, that the bits stay, and what keeps the copy."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tests.compiler.common import after, names, same_results, written


@pytest.fixture(params=["numpy", "cpp"])
def backend(request):
    with tg.backend(request.param):
        yield request.param


def x(*shape):
    tg.manual_seed(3)
    return tg.randn(*(shape or (6, 5)))


PLACES = (tg.arange(30) * 7 % 5).reshape(6, 5)


def doubled(t):
    t.mul_(2)
    return t


# (function, names of the calls that are left; ``into`` for those that write where their operand lies)
CASES = [
    (lambda t, i: (t * 2).scatter(1, i, t.exp()) + 1, "mul exp into add"),
    (lambda t, i: (t * 2).scatter_add(1, i, t) + 1, "mul into add"),
    (lambda t, i: (t * 2).scatter_reduce(1, i, t, "amax") + 1, "mul into add"),
    (lambda t, i: (t * 2).index_add(0, i[:, 0], t) + 1, "mul slice into add"),
    (lambda t, i: (t * 2).index_put((i[:, 0],), t) + 1, "mul slice into add"),
    (lambda t, i: tg.zeros(6, 5).scatter_add(1, i, t) + 1, "full into add"),
    (lambda t, i: (t * 2).scatter_add(1, i, t).scatter_add(1, i, t.exp()) + 1, "mul into exp into add"),
    (lambda t, i: (t * 2).scatter_add(1, i, t).t() + 1, "mul into permute add"),
    (lambda t, i: t.scatter_add(1, i, t) + 1, "scatter_add add"),  # the argument is the caller's
    (lambda t, i: (t * 2).scatter_add(1, i, t), "mul scatter_add"),  # so is what it gets
    (lambda t, i: (y := t * 2).scatter_add(1, i, t) + y, "mul scatter_add add"),  # read afterwards
    (lambda t, i: (y := t * 2).t().sum() + y.scatter_add(1, i, t), "mul permute sum scatter_add add"),  # and before
    (lambda t, i: (t * 2).scatter_add(1, i, t)[:, :3].exp(), "mul into slice exp"),
    (lambda t, i: (y := t * 2).scatter_add(1, i, y) + 1, "mul scatter_add add"),  # it reads what it would write
    (lambda t, i: (t * 2).t().scatter_add(0, i.t(), t.t()) + 1, "mul permute permute permute scatter_add add"),
    (lambda t, i: doubled(t * 2).scatter_add(1, i, t) + 1, "mul mul scatter_add add"),  # it was written to before
    (lambda t, i: doubled((t * 2).scatter_add(1, i, t)) + 1, "mul scatter_add mul add"),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_what_writes_where_its_operand_lies(backend, case):
    function, left = CASES[case]
    t = x()
    program = written(function, t, PLACES)
    made = after("overwrite", program)
    assert " ".join("into" if name.endswith("_into") else name for name in names(made)) == left, program
    same_results(program, made, t, PLACES)


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64, tg.bfloat16, tg.int32])
def test_other_dtypes(backend, dtype):
    def function(t, i):
        return (t * 2).scatter_add(1, i, t) * 3

    t = (x() * 10).to(dtype)
    program = written(function, t, PLACES)
    made = after("overwrite", program)
    assert made is not program
    same_results(program, made, t, PLACES)


def test_gradients_of_picks_over_several_replays(backend):
    def step(t, i):
        leaf = (t * 1).requires_grad_()
        y = leaf * 2
        loss = (y.gather(1, i) ** 2).sum() + y.max(1)[0].exp().sum() + y[i[:, 0]].cos().sum()
        loss.backward()
        return loss.detach(), leaf.grad

    compiled = tg.compile(step)
    places = tg.arange(300 * 40).reshape(300, 40) * 7 % 40
    for k in range(4):
        t = x(300, 40) + k
        for a, b in zip(compiled(t, places), step(t, places), strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()
    assert " ".join(compiled.explain().split()).count("writes where its operand lies") == 3


def test_backward_twice_through_a_compiled_loss(backend):
    compiled = tg.compile(lambda t, i: ((t * 2).gather(1, i) ** 2).sum() + (t * 3).max(1)[0].sum())
    t = x().requires_grad_()
    compiled(t, PLACES).backward()
    once = t.grad.clone()
    t.grad = None
    loss = compiled(t, PLACES)
    loss.backward(retain_graph=True)
    loss.backward()
    assert t.grad.numpy().tobytes() == (once + once).numpy().tobytes()


def test_an_index_outside_is_an_error_of_the_replay_and_harms_nothing(backend):
    compiled = tg.compile(lambda t, i: (t * 2).scatter_add(1, i, t) * 1)
    t = x()
    expected = compiled(t, PLACES).numpy().tobytes()
    with pytest.raises(IndexError):
        compiled(t, PLACES + 5)
    assert compiled(t, PLACES).numpy().tobytes() == expected
