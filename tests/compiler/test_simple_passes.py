"""Dead and duplicate calls, constants, views: what goes, and what has to stay."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tests.compiler.common import after, names, same_results, written


@pytest.fixture(params=["numpy", "cpp"])
def backend(request):
    with tg.backend(request.param):
        yield request.param


def x(*shape):
    tg.manual_seed(3)
    return tg.randn(*(shape or (4, 6)))


def doubled(t):
    t.mul_(2)
    return t


def drawn(t):
    tg.rand(3)
    return t + tg.rand(3, 1).sum()


# (pass, function, argument, names of the calls that are left)
CASES = [
    ("dead", lambda t: (t.exp(), t.sin())[1], (), ["sin"]),
    ("dead", lambda t: (t.exp().reshape(-1), t.sin())[1], (), ["sin"]),
    ("dead", lambda t: (doubled(t).cos(), t + 1)[1], (), ["mul", "add"]),
    ("dead", drawn, (3, 1), ["random_uniform", "random_uniform", "sum", "add"]),
    ("duplicates", lambda t: t.exp() + t.exp(), (), ["exp", "add"]),
    ("duplicates", lambda t: (t.exp(), t.exp()), (), ["exp", "exp"]),  # two outputs are two arrays
    ("duplicates", lambda t: (t.sum(), t.sum(), t.sum() + 1), (), ["sum", "contiguous_copy", "add"]),
    ("duplicates", lambda t: (t.sum(1), t.sum(1)), (6, 4), ["sum", "sum"]),  # a quarter is not much less
    ("duplicates", lambda t: (t.sum(), doubled(t).sum()), (), ["sum", "mul", "sum"]),
    ("duplicates", lambda t: (t.max(0), t.max(0)), (40, 2), ["max_dim", "max_dim"]),
    ("duplicates", lambda t: t.exp() + doubled(t).exp(), (), ["exp", "mul", "exp", "add"]),
    ("duplicates", lambda t: t.exp().mul_(2) + t.exp(), (), ["exp", "mul", "exp", "add"]),
    ("duplicates", lambda t: t * 0.0 + t * -0.0, (), ["mul", "mul", "add"]),
    ("duplicates", lambda t: t * 1 + t * True, (), ["mul", "mul", "add"]),
    ("duplicates", lambda t: t.sum(0) - t.sum(1).sum(0) + t.sum(0), (), ["sum", "sum", "sum", "sub", "add"]),
    ("duplicates", lambda t: t.sum(1) - t.sum(1, keepdim=True), (), ["sum", "reshape", "sub"]),
    (
        "duplicates",
        lambda t: t.std((0, 1), keepdim=True) + t.std((0, 1)) + t.std(0),
        (),
        ["std", "reshape", "add", "std", "add"],
    ),
    ("duplicates", lambda t: (t.sum(1) * 1, t.sum(1, keepdim=True)), (), ["sum", "mul", "sum"]),
    ("duplicates", lambda t: t.amax(1) + doubled(t).amax(1, keepdim=True), (), ["amax", "mul", "amax", "add"]),
    ("duplicates", lambda t: tg.rand(4, 6) + tg.rand(4, 6) + t, (), ["random_uniform"] * 2 + ["add"] * 2),
    ("constants", lambda t: t * (tg.full((6,), 3) * 2), (), ["mul"]),
    ("constants", lambda t: t + tg.full((6,), 2.0).exp(), (), ["add"]),
    ("constants", lambda t: (t.sin(), tg.ones(6) + 1), (), ["sin", "add"]),  # an output is the caller's
    ("constants", lambda t: t + doubled(tg.ones(6)), (), ["full", "mul", "add"]),
    ("constants", lambda t: t + tg.zeros(1 << 13, 1, 1), (), ["full", "add"]),
    ("views", lambda t: t.reshape(24).reshape(2, 12).exp(), (), ["reshape", "reshape", "exp"]),
    ("views", lambda t: t.reshape(24).reshape(4, 6).exp(), (), ["reshape", "exp"]),
    ("views", lambda t: t.permute(0, 1).expand(4, 6).exp(), (), ["exp"]),
    ("views", lambda t: t.t().reshape(24).reshape(4, 6), (), ["permute", "contiguous_copy", "reshape", "reshape"]),
    ("views", lambda t: t[1:3][0:2].exp(), (), ["slice", "slice", "exp"]),
    ("views", lambda t: t.reshape(4, 6), (), ["reshape"]),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_calls_that_are_left(backend, case):
    name, function, shape, left = CASES[case]
    t = x(*shape)
    program = written(function, t.clone())
    made = after(name, program)
    assert names(made) == left, program
    if not any("random" in n for n in left):
        same_results(program, made, t)


# of a linear layer's three gradients: what is read, what is asked for
ASKED = {
    "input": (lambda x, w, b: (x,), (True, False, False)),
    "weight": (lambda x, w, b: (w,), (False, True, True)),  # a bias's sums are those of its weight's product
    "bias": (lambda x, w, b: (b.exp(),), (False, True, True)),
    "view": (lambda x, w, b: (x[0].exp(),), (True, False, False)),
    "changed": (lambda x, w, b: (x, w.mul_(2).sum())[:1], (True, True, True)),
    "all": (lambda x, w, b: (x, w + b[:, None]), (True, True, True)),
}


@pytest.mark.parametrize("name", ASKED)
def test_gradients_that_nobody_reads_are_not_asked_for(backend, name):
    read, asked = ASKED[name]
    weight, bias = tg.randn(200, 6, requires_grad=True), tg.randn(200, requires_grad=True)

    def gradients(x):
        x = x.detach().requires_grad_()
        return read(*tg.autograd.grad(tg.nn.functional.linear(x, weight, bias).sin().sum(), (x, weight, bias)))

    t = x(70, 6)
    program = written(gradients, t)
    made = after("dead", program)
    assert [call.attrs["needs"] for call in made.steps if call.op.name == "linear_backward"] == [asked]
    same_results(program, made, t)


LAYERS = {
    "linear": (lambda: tg.nn.Linear(40, 70), (130, 40)),
    "layer_norm": (lambda: tg.nn.LayerNorm(40), (130, 40)),
    "rms_norm": (lambda: tg.nn.RMSNorm(40), (130, 40)),
    "batch_norm": (lambda: tg.nn.BatchNorm1d(40), (130, 40)),
    "batch_norm-images": (lambda: tg.nn.BatchNorm2d(8), (9, 8, 7, 5)),
    "batch_norm-eval": (lambda: tg.nn.BatchNorm2d(8).eval(), (9, 8, 7, 5)),
    "batch_norm-relu": (lambda: tg.nn.Sequential(tg.nn.BatchNorm2d(8), tg.nn.ReLU()), (9, 8, 7, 5)),
    "group_norm": (lambda: tg.nn.GroupNorm(2, 8), (9, 8, 7, 5)),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_apart_have_the_bits_of_those_together(backend, name, first):
    layer, shape = LAYERS[name]
    layer = layer()

    def some(x):
        x = x.detach().requires_grad_()
        grads = tg.autograd.grad(layer(x).sin().sum(), (x, *layer.parameters()))
        return grads[:1] if first else grads[1:]

    compiled = Compiled(some)
    for seed in range(3):
        tg.manual_seed(seed)
        t = tg.randn(*shape)
        for ours, theirs in zip(compiled(t), some(t), strict=True):
            assert ours.tolist() == theirs.tolist()
    assert "which nobody reads" in compiled.explain()


def test_the_same_constants_are_one(backend):
    def function(t):
        first, second, third = tg.zeros(6, 1) * 2 - 1, tg.zeros(6, 1) * 2 - 1, tg.zeros(6, 1, dtype=tg.float64) * 2 - 1
        return (first + t).exp() * (second + t).exp() * (third + t).exp()

    program = written(function, x(6, 4))
    made = after("duplicates", after("constants", program))
    assert names(made).count("exp") == 2 and names(program).count("exp") == 3
    same_results(program, made, x(6, 4))


def test_state_is_no_constant(backend):
    weight = tg.ones(6)
    program = written(lambda t: t * (weight * 2), x())
    assert after("constants", program) is program


def test_unknown_pass_is_refused():
    from tensorgrad.compiler.passes import show

    with pytest.raises(ValueError, match="duplicates"):
        show("nothing", written(lambda t: t + 1, x()))
