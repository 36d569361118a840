"""Results that their readers compute themselves: which, that every bit stays, and what keeps them stored."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.compiler.fused import Fused
from tests.compiler.common import after, same_results, written


@pytest.fixture(params=["numpy", "cpp"])
def backend(request):
    with tg.backend(request.param):
        yield request.param


def x(*shape, dtype=tg.float32):
    tg.manual_seed(3)
    return tg.randn(*(shape or (40, 70)), dtype=dtype)


def doubled(t):
    t.mul_(2)
    return t


def left(program):
    return " ".join("F" if isinstance(call.op, Fused) else call.op.name for call in program.calls)


def prepared(function, t):
    program = written(function, t.clone())
    for name in ("constants", "duplicates", "dead", "formulas", "dead"):
        program = after(name, program)
    return program


def split(between):
    """A formula whose result another reads, apart because of what stands between."""

    def function(t):
        y = t * 2 + 1
        return (between(y, t) * y + t).cumsum(0)

    return function


@pytest.mark.parametrize(
    ("function", "inlined"),
    [
        (split(lambda y, t: y.sum(0)), False),  # a sum reads all of it
        (split(lambda y, t: (y * t).sum()), True),
        (split(lambda y, t: (y * t).sum(0)), True),
        (split(lambda y, t: (y.exp() * t).sum(1, keepdim=True)), True),
        (lambda t: (t.exp() * (t.exp() * t).sum() + t).cumsum(0), False),  # an exponential is worth its memory
        (
            lambda t: ((y := (t * 2).sqrt() / 3 / t / t / t) * (y * t).sum(0) + t).cumsum(0),
            False,
        ),  # many operations too
        (lambda t: ((y := t * 2 + t.t().cumsum(0).t()) * (y * t).sum(0) + 1).cumsum(0), False),  # two arrays for one
        (lambda t: ((y := t * 2 + t[0]) * (y * t).sum() + 1).cumsum(0), True),  # a small one beside it
        (lambda t: ((y := t * 2 + 1) * (y * t).sum() + doubled(t)).cumsum(0), False),  # t is another one by then
        (lambda t: ((y := t * 2 + 1) * (y * t).sum(), y.t() + 1), False),  # a view shows it
        (lambda t: ((y := t > 0) * (y * t).sum(0) + t).cumsum(0), False),  # no float
    ],
)
def test_what_readers_compute(backend, function, inlined):
    t = x(60, 60)
    program = prepared(function, t)
    made = after("inline", program)
    assert (made is not program) == inlined, program
    same_results(program, made, t)
    if inlined:
        assert "computed in" in made.notes[-1][1]


def test_what_is_no_longer_made_is_gone(backend):
    t = x(60, 60)
    program = prepared(split(lambda y, t: (y * t).sum()), t)
    made = after("inline", program)
    assert left(program) == "F sum F cumsum"
    stored = [v.nbytes for call in program.calls for v in call.results]
    kept = [v.nbytes for call in made.calls for v in call.results]
    assert sum(stored) - sum(kept) == t.numel() * 4
    (formula, _, reader, _) = made.calls
    assert formula.op.formula == "y = ((x0 * 2.0) + 1.0) * x0"
    assert reader.inputs[0] is program.arguments[0]


def test_a_result_of_the_same_formula_is_read_instead_of_computed(backend):
    def function(t):
        e = t.exp()
        f = e + 1
        return ((e * f).sum() * f / e).cumsum(0)

    t = x(60, 60)
    program = prepared(function, t)
    made = after("inline", program)
    same_results(program, made, t)
    assert sum(len(call.results) for call in made.calls) == sum(len(call.results) for call in program.calls) - 1
    assert "exp" not in made.calls[2].op.formula


@pytest.mark.parametrize("backend_name", ["numpy", "cpp"])
def test_what_is_left_lies_as_before(backend_name):
    """The operand that told how results lie went with the result that read it."""

    def function(t, u):
        y = t * 2 + 1
        z = u * 3 + u.exp()[:, :1] * t
        return ((y * t).sum() * y + t).cumsum(0), z, (u[:1] + u[:, :1]) * z.cumsum(1)

    with tg.backend(backend_name):
        t, u = x(60, 60).t(), x(60, 60)
        compiled = tg.compile(function)
        for _ in range(2):
            for a, b in zip(compiled(t, u), function(t, u), strict=True):
                assert a.stride() == b.stride() and a.numpy().tobytes() == b.numpy().tobytes()


def test_a_formula_that_asks_for_a_shape_alone_still_knows_it(backend):
    """The gradient of a rounded quotient is zeros of the shape of what came back, which came back through a flip."""

    def function(t):
        leaf = t.detach().requires_grad_()
        y = leaf // 2
        ones = t.new_ones(()).double().expand(t.shape).float()
        return y, *tg.autograd.grad(y, leaf, ones + (ones * y.exp2()).flip(1))

    t = x(200, 200)
    compiled = tg.compile(function)
    for _ in range(2):
        for a, b in zip(compiled(t), function(t), strict=True):
            assert a.shape == b.shape and tg.equal(a, b)


def test_chains_of_results(backend):
    def function(t):
        y = t * 2 + 1
        s = (y * t).sum()
        z = y * s + 1
        return (z * (z * t).sum() + t).cumsum(0)

    t = x(60, 60)
    program = prepared(function, t)
    made = after("inline", program)
    same_results(program, made, t)
    assert len(made.notes) - len(program.notes) == 2


@pytest.mark.parametrize("shape", [(64, 33), (5000,), (0, 4), (1, 1)])
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_a_step_with_a_norm_written_out_keeps_its_bits(backend, shape, dtype):
    w = x(*shape, dtype=dtype).requires_grad_()

    def step(t):
        y = w * t
        loss = ((y - y.mean()) / (y.std(correction=0) + 1e-5)).abs().mean() + (
            y - y.amax() if y.numel() else y
        ).exp().sum()
        w.grad = None
        loss.backward()
        return loss.detach(), w.grad

    t = x(*shape, dtype=dtype)
    compiled = tg.compile(step)
    for _ in range(3):
        for a, b in zip(compiled(t), step(t), strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()
