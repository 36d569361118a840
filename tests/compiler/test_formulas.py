"""Fused formulas: which calls become one, that every bit stays, and what keeps calls apart."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.compiler.fused import Fused
from tensorgrad.compiler.passes.room import Room
from tests.compiler.common import after, gradient, names, reduced_by_formulas, run, same_results, written


@pytest.fixture(params=["numpy", "cpp"])
def backend(request):
    with tg.backend(request.param):
        yield request.param


def x(*shape, dtype=tg.float32):
    tg.manual_seed(3)
    return tg.randn(*(shape or (5, 7)), dtype=dtype)


def gelu(t):
    return (0.5 * t * (1.0 + tg.tanh(0.7978845608 * (t + 0.044715 * t * t * t)))).mean()


def doubled(t):
    t.mul_(2)
    return t


def slope_of_a_number(t):
    """A number's gradient is a sum to its shape, which has no dimensions."""
    number = t[0, 0].detach().requires_grad_()
    (t.exp() * number).sin().sum().backward()
    return number.grad


# (function, argument, names of the calls that are left, F for a fused one)
CASES = [
    (lambda t: (t * 2 + 1).tanh(), x, "F"),
    (gradient(gelu), x, "F mean"),
    (gradient(lambda t: ((t.exp() + 1).log() * t.sigmoid()).sum()), x, "F sum"),
    (lambda t: (t * 2).matmul((t + 1).t()), x, "F permute matmul"),  # horizontally: both read t
    (lambda t: ((t * 2).cumsum(0) + 1, t * 3), x, "mul cumsum add mul"),
    (lambda t: (t - t.mean(1, keepdim=True)) * 2, x, "mean F"),
    (lambda t: t.sum() + (t * 2).sum() * 3, x, "sum mul sum F"),
    (lambda t: (t * 2 + t[0]) * t[:, :1], x, "slice slice F"),
    (lambda t: (t[0] + 1) * (t * 2), x, "slice add F"),
    (lambda t: t.double() * 2 + t, x, "F"),
    (lambda t: (t > 0).float() * t, x, "F"),
    (lambda t: tg.where(t > 0, t, -t).sqrt(), x, "F"),
    (lambda t: ((t * 100).int() + 200).to(tg.int8) * 3, x, "mul cast add cast mul"),
    (lambda t: (t * 3 + 7) * -5, lambda: tg.arange(35).reshape(5, 7).to(tg.int16) * 900, "F"),
    (lambda t: t * 2 * 3 + 1, lambda: x(dtype=tg.bfloat16), "mul mul add"),
    (lambda t: t.t() * 2 + t.t(), lambda: x(6, 6), "permute F"),
    (lambda t: t * 2 + doubled(t), x, "mul mul add"),
    (lambda t: (t * 2).add_(t.exp()) * 3, x, "mul exp add mul"),
    (lambda t: (t * tg.full((5, 7), 0.3)).exp(), x, "F"),
    (lambda t: (t * 0.1).exp() + 0.1, lambda: x(dtype=tg.float64), "F"),
    (lambda t: (t * 2 + 1).reshape(35) * 2, x, "F reshape mul"),
    (lambda t: (t * (1 + 2j)).abs() + 1, x, "F"),
    (lambda t: t.relu() + tg.rand(5, 7) * 0, x, "random_uniform F"),
    (lambda t: t.sum().reshape(1).exp() * 2, x, "sum reshape F"),  # a number with a dimension
    (lambda t: (t.sin() + 1, t.sin() * 2, t.cos()), x, "F"),
]

# what a few numbers are made of waits for them, and what is only summed moves up
CASES += [
    (lambda t: ((t.exp().sum() * 2 + 1).sqrt(), t.exp() * 3), x, "F sum F"),
    (lambda t: (t.exp().sum().reshape(1, 1) + 1, t.exp() * 3), x, "F sum reshape add"),
    (lambda t: (t.exp() * (t.exp().sum() + 1), t.exp() * 3), x, "exp sum add F"),
    (lambda t: ((t.exp().sum() + t[0].cos().sum()), t.exp() * 3), x, "exp sum slice cos sum add mul"),
    (lambda t: ((t * 2).sum() + doubled(t)[0, 0], t * 3), x, "mul sum mul slice add mul"),
    (lambda t: ((s := (t * 2 + 1)) * s.mean(), (s * s).sum()), x, "F mean mul sum"),
]

# of nothing but broadcast operands: results lie in C's order if none of those tells of another
CASES += [
    (lambda t: ((t[:, None] - t[None]) * 2).exp(), x, "slice slice F"),
    (lambda t: (d := t[:, None] - t[None]) * d + 1, x, "slice slice F"),
    (lambda t: (t[0] + t[:, :1]) * t.sum(), x, "slice slice sum F"),
    (lambda t: (t.sum() + t[:1, :1].expand(5, 7)) * 2, x, "sum slice expand F"),
    (lambda t: (t.sum().expand(5, 7) * t.mean()) * 2, x, "sum expand mean mul mul"),  # numbers have no such shape
    (lambda t: (t.sum().expand(5, 7) * t[0]) * t[:, :1], x, "sum slice slice F"),
    (lambda t: (t[:, None] - t.t()[None]) * 2, lambda: x(6, 6), "slice permute slice sub mul"),
    (lambda t: (t[0] + t[:, :1]) * t.t().contiguous().t(), x, "slice slice add permute contiguous_copy permute mul"),
]

# of parts of larger arrays, which lie as no result does: in C's order if all of them tell of it
CASES += [
    (lambda t: t[:, :3] * t[:, 3:6] - t[:, 1:4] * 2, x, "slice slice slice F"),
    (lambda t: (t[:, 1:] - t[:, :-1]).abs() * t[1, 1:], lambda: x(6, 6), "slice slice slice F"),
    (lambda t: (t[::2, None, :3] + t[None, :3, 3:6]) * t[:3, :1], x, "slice slice slice F"),
    (lambda t: t[:, :5] * 2 + t.t()[:5], lambda: x(5, 7), "slice mul permute slice add"),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_calls_that_are_left(backend, case):
    function, make, left = CASES[case]
    t = make()
    program = written(function, t.clone())
    made = after("formulas", after("duplicates", after("constants", program)))
    made = after("dead", made)
    said = " ".join("F" if isinstance(call.op, Fused) else call.op.name for call in made.calls)
    if backend == "numpy" and left == "permute F":  # there results lie in C's order, whatever the operands do
        left = "permute mul add"
    assert said == left, program
    if "random_uniform" not in left:
        same_results(program, made, t)


# (function, argument, names of the calls that are left where formulas are summed, how often it is summed)
SUMMED = [
    (lambda t: (t * 2 + 1).tanh().mean(), x, "F"),
    (lambda t: ((t * t).sum(), t * t), x, "F"),
    (gradient(gelu), x, "F"),
    (gradient(lambda t: ((t.exp() + 1).log() * t.sigmoid()).sum()), x, "F"),
    (lambda t: (t * 2).sum(0).mean(), x, "mul sum mean"),
    (lambda t: (t.exp() * 2).sum(), lambda: x(70000), "F"),
    (lambda t: (t.exp() * t[0]).mean(), lambda: x(1000, 333), "slice F"),
    (lambda t: (t.exp() * t[:, :1]).mean(), lambda: x(1000, 333), "slice F"),
    (lambda t: (t.exp() * t[0]).mean(), lambda: x(150, 1100), "slice F"),
    (lambda t: (t.exp() * 2).sum(), lambda: x(200001, dtype=tg.float64), "F"),
    (lambda t: ((t.exp() * 2).sum(), (t + 1).mean()), lambda: x(200001), "F"),
    (lambda t: (t * 2 + 1).sum(), lambda: x(0, 3), "F"),
    (lambda t: (t * 2 + 1).mean(), lambda: x(1, 1), "F"),
    (lambda t: (t.t() * 2 + 1).sum(), lambda: x(40, 50), "permute F sum"),
    (lambda t: (t > 0).sum(), x, "gt sum"),
    (lambda t: (t * 2 + 1).sum(), lambda: x(64, dtype=tg.bfloat16), "mul add sum"),
    (lambda t: (t * 2 + 1).sum(dim=(0, 1), keepdim=True), x, "F sum"),
    (lambda t: slope_of_a_number(t), x, "slice F"),
]


@pytest.mark.parametrize("case", range(len(SUMMED)))
def test_sums_are_taken_by_formulas(case):
    function, make, left = SUMMED[case]
    reduced_by_formulas(function, make(), left)


def test_source_of_a_fused_formula(backend):
    program = after("formulas", written(lambda t: (t * 2 + 1).tanh() * (t * 2), x()))
    (call,) = program.calls
    assert call.op.formula == "t2 = x0 * 2.0\ny = tanh((t2 + 1.0)) * t2"
    assert call.op.parts == ("mul", "add", "tanh", "mul", "mul")


@pytest.mark.parametrize("shape", [(1, 1), (5, 7)])
def test_a_number_seen_with_dimensions_is_a_number(backend, shape):
    def function(t):
        s = t.sum()
        seen = s.reshape(1, 1)
        return (t - s) * (t - (seen if shape == (1, 1) else seen.expand(shape)))

    program = written(function, x())
    made = after("formulas", after("duplicates", program))
    same_results(program, made, x())
    call = made.calls[-1]
    assert [v.shape for v in call.inputs] == [(5, 7), ()]
    assert call.op.formula == "t2 = x0 - x1\ny = t2 * t2"


def test_equal_formulas_are_one_op_and_are_forgotten(backend):
    import gc

    from tensorgrad.dispatch import PASSING

    one, two = (after("formulas", written(lambda t: t * 2 + 0.123, x())) for _ in range(2))
    assert one.calls[0].op is two.calls[0].op
    name = one.calls[0].op.name
    run(one, x())
    assert name in PASSING
    del one, two
    gc.collect()  # the program and what runs it
    gc.collect()  # the op, which that had
    assert name not in PASSING


def test_signed_zeros_stay_apart(backend):
    plus, minus = (after("formulas", written(lambda t, c=c: (t * c) + c, x())) for c in (0.0, -0.0))
    assert plus.calls[0].op is not minus.calls[0].op


def test_a_view_of_an_inner_value_keeps_it(backend):
    program = written(lambda t: ((t * 2).reshape(35), (t * 2 + 1) * 3), x())
    made = after("formulas", program)
    same_results(program, made, x())
    assert "reshape" in names(made)


ONE = {
    "both": lambda t: ((t * tg.full((1,), 2.0)).square() + 1,),
    "constants": lambda t: (tg.arange(1).float().square() - 2, t.sum()),
    "in a sum": lambda t: ((tg.arange(1).float() + 1).square().sum() + t.sum(), tg.arange(1).float() * 3),
    "of more dims": lambda t: ((t + tg.ones(1, 1)).exp() * 3,),
    "chosen": lambda t: (tg.where(tg.arange(1) > 1, t, tg.arange(1).float()) + 1,),
}


@pytest.mark.parametrize("name", ONE)
def test_a_constant_of_one_element_keeps_its_dims(backend, name):
    """It is a number of the formula, and others have no dims to tell of."""
    compiled = tg.compile(ONE[name])
    for value in (1.5, 2.5, 3.5):
        found, expected = compiled(tg.tensor(value)), ONE[name](tg.tensor(value))
        assert [t.shape for t in found] == [t.shape for t in expected]
        assert all(tg.allclose(a, b) for a, b in zip(found, expected, strict=True))


def steps_of_one_weight(x, w):
    """At each step a gradient of the weight, as large as it, is made and added to the others."""
    total = tg.zeros(1)
    for i in range(x.shape[0]):
        h = tg.tanh(x[i] @ w)
        total = total + (h * h).sum()
    return tg.autograd.grad(total, w)[0]


def test_gradients_of_one_weight_do_not_wait_for_the_last(backend):
    x, w = tg.randn(12, 4, 64), tg.randn(64, 64, requires_grad=True)
    program = written(steps_of_one_weight, x, w)
    made = after("formulas", program)
    same_results(program, made, x, w)
    assert any(isinstance(call.op, Fused) for call in made.calls)
    assert _at_once(made) <= _at_once(program)


def _at_once(program):
    """The most bytes of results that are needed at one step."""
    return Room(program).most


@pytest.mark.parametrize("dtype", (tg.int8, tg.uint8, tg.int16, tg.int32))
@pytest.mark.parametrize(
    "first",
    [
        lambda t: t & 2**40 - 1, lambda t: t & -(2**63), lambda t: t | 2**31 + 255, lambda t: 2**33 ^ t,
        lambda t: 2**33 + 2**31 >> t, lambda t: tg.bitwise_right_shift(-(2**40) - 129, t), lambda t: t % 2**40,
        lambda t: tg.remainder(2**40 + 7, t | 1), lambda t: t // 2**40, lambda t: (2**40 + 5) // (t | 1),
    ],
)  # fmt: skip
def test_a_number_too_large_for_an_integer_dtype_is_cut_within_a_formula_too(first, dtype, backend):
    """The next call read what was not yet cut: int8 & 2**40 gave 0, and 2**40 to what was computed of it."""
    t = tg.tensor([[-3, -1, 0, 1], [2, 7, 31, 100]]).to(dtype)

    def f(t):
        y = first(t)
        return y.float(), y * 0.5, y < 0, y.clamp(-2, 5), tg.where(y > 3, y, 1), y.long() + 1

    compiled = tg.compile(f)
    for _ in range(3):
        for got, want in zip(compiled(t), f(t), strict=True):
            assert got.dtype == want.dtype and got.tolist() == want.tolist()
    assert compiled.stats()["replays"] == 2
