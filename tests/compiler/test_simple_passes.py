"""Dead and duplicate calls, constants, views: what goes, and what has to stay."""

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


def test_state_is_no_constant(backend):
    weight = tg.ones(6)
    program = written(lambda t: t * (weight * 2), x())
    assert after("constants", program) is program


def test_unknown_pass_is_refused():
    from tensorgrad.compiler.passes import show

    with pytest.raises(ValueError, match="duplicates"):
        show("nothing", written(lambda t: t + 1, x()))
