"""Formulas and an optimizer's step done a piece at a time: the same bits, for every setting and length."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.compiler.program import Program
from tests.compiler.common import after, machine_code, names, within_rounding, written

OPTIMIZERS = {
    "sgd": lambda p: tg.optim.SGD(p, lr=0.1),
    "momentum": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "adam": lambda p: tg.optim.Adam(p, lr=0.1, weight_decay=0.01),
    "amsgrad": lambda p: tg.optim.AdamW(p, lr=0.1, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(200001,), (16384 * 9,), (400, 500), (7,)])
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_a_step_behind_a_formula(name, shape, dtype):
    def training(compiled):
        tg.manual_seed(0)
        p = tg.randn(*shape, dtype=dtype, requires_grad=True)
        scale = tg.rand(*shape, dtype=dtype)
        optimizer = OPTIMIZERS[name]([p])

        def step():
            optimizer.zero_grad()
            loss = (p.tanh() * scale * p).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = Compiled(step) if compiled else step
        losses = []
        for i in range(5):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (i + 1)
            losses.append(run().item())
        return losses, p.detach().numpy(), p.grad.numpy(), run

    with tg.backend("cpp"):
        losses, p, g, run = training(True)
        assert run.captures < 5
        expected, q, h, _ = training(False)
    assert losses == expected
    assert np.array_equal(p, q) and np.array_equal(g, h)


def test_actions_move_before_formulas_alone():
    p = tg.ones(5, requires_grad=True)
    optimizer = tg.optim.SGD([p], lr=0.1)

    def step():
        optimizer.zero_grad()
        (p * p).sum(0).backward()
        optimizer.step()
        return p.grad

    step()
    program = written(step)
    made = after("actions", program)
    kinds = [type(s).__name__ for s in made.steps]
    before = [type(s).__name__ for s in program.steps]
    assert names(made) == names(program)
    assert kinds.index("Action") < before.index("Action")
    assert kinds[-1] == "Call" and made.calls[-1].op.name == "sgd_"


def together(program: Program) -> list[list[str]]:
    """The groups of calls that the C++ side does a piece at a time."""
    return [[call.op.name for call in group] for group in program.linked.in_pieces]


def alike(function, *tensors):
    """The compiled function's results have the bits of the function's own, but for sums that machine code takes of
    rows; its program, run.

    The tensors are state and no arguments, which would be copied: of much to copy a program is made in Python.
    """
    with tg.backend("cpp"), tg.no_grad():
        for code in (False, True):
            with machine_code(code):
                compiled = Compiled(lambda: function(*tensors))
                for _ in range(3):
                    made = compiled()
                    expected = function(*tensors)
                    made = made if isinstance(made, tuple) else (made,)
                    expected = expected if isinstance(expected, tuple) else (expected,)
                    for a, b in zip(made, expected, strict=True):
                        within_rounding(a, b)
                        assert code or a.numpy().tobytes() == b.numpy().tobytes()
                assert compiled.stats()["replays"] >= 1
        return compiled.programs[0]


def layer_norm(x):
    return tg.nn.functional.layer_norm(x, (x.shape[-1],), x[0], x[1])


ROWS = {
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "layer_norm": layer_norm,
    "rms_norm": lambda x: tg.nn.functional.rms_norm(x, (x.shape[-1],)),
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "amax": lambda x: x.amax(-1),
    "var": lambda x: x.var(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
}
COLUMNS = {"sum": lambda x: x.sum(0), "mean": lambda x: x.mean(0)}
SHAPES = [(1003, 384), (400, 1000), (20, 12345), (3001, 65), (2, 100_000), (16_000, 9)]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_rows_behind_a_formula(name, shape, dtype):
    tg.manual_seed(0)
    x, y = tg.randn(*shape, dtype=dtype), tg.randn(*shape, dtype=dtype)
    program = alike(lambda x, y: ROWS[name](x * 2 + y), x, y)
    kept = alike(lambda x, y: (z := x * 2 + y, ROWS[name](z)), x, y)  # the formula's result is wanted as well
    # a row kernel with parameters among the formula's elements can't begin before they are there
    apart = name == "layer_norm" or (name in ("sum", "mean", "amax", "var", "logsumexp") and shape[1] > 16384)
    taken = name in ("sum", "mean", "amax", "logsumexp") and not apart  # by the formula, whose result is not stored
    assert (f"{name} is taken by" in program.explain()) == taken
    for each in (program, kept):
        alone = apart or (each is program and taken)
        assert (len(together(each)) == 0) if alone else (len(together(each)[0]) == 2)
        assert ("a piece at a time" in each.explain()) != alone


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("shape", [(1003, 384), (400, 1000), (3001, 65), (9001, 64), (100, 12345)], ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_columns_behind_a_formula(name, shape, dtype):
    tg.manual_seed(0)
    x, y = tg.randn(*shape, dtype=dtype), tg.randn(*shape, dtype=dtype)
    program = alike(lambda x, y: COLUMNS[name]((x * 0.2 + y).exp()), x, y)  # machine code takes what has no exp itself
    narrow, wide = shape[1] <= 64, shape[1] > 2000
    assert len(together(program)) == (0 if narrow or wide else 1)


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(64, 128, 64), (40, 70, 300), (30, 100, 40), (16, 16, 16), (3, 2000, 300)], ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_columns_of_matrices_behind_a_formula(name, shape, dtype):
    tg.manual_seed(0)
    x, w = tg.randn(*shape, dtype=dtype), tg.rand(*shape[:2], 1, dtype=dtype)
    program = alike(lambda x, w: getattr((x * w).exp() + x, name)(1, keepdim=True), x, w)
    # of small matrices several are folded side by side, of large ones parts
    alone = shape[1] * shape[2] <= 4096 or shape[1] == 2000
    assert [len(group) for group in together(program)] == ([] if alone else [2])


def test_a_row_kernel_between_formulas():
    tg.manual_seed(0)
    x, y, w, b = tg.randn(8, 100, 384), tg.randn(8, 100, 384), tg.randn(384), tg.randn(384)

    def block(x, y, w, b):
        z = x + y
        n = tg.nn.functional.layer_norm(z, (384,), w, b)
        return z, n * 0.5 + z, (n * n).sum()

    program = alike(block, x, y, w, b)
    assert [len(group) for group in together(program)] == [3]
    program = alike(lambda x, y: (z := x - y, (z.softmax(-1) * y).var(-1)), x, y)
    assert [len(group) for group in together(program)] == [4]


def test_operands_that_are_broadcast_go_along():
    tg.manual_seed(0)
    x, row, column = tg.randn(500, 384), tg.randn(384), tg.randn(500, 1)
    program = alike(lambda x, row, column: (x * row + column).softmax(-1) - row, x, row, column)
    assert [len(group) for group in together(program)] == [3]
    # what is broadcast along rows is there for a piece's rows
    program = alike(lambda x, row, column: x - (x * row).var(-1, keepdim=True), x, row, column)
    assert [len(group) for group in together(program)] == [3]
    # what is broadcast over all rows is not there when the first piece needs it
    program = alike(lambda x, row, column: x - (x * row).exp().mean(0), x, row, column)
    assert [names_[-1] for names_ in together(program)] == ["mean"]


BY_ROWS = {
    "rms": lambda x, y: x * ((x * x).mean(-1, keepdim=True) + 1e-6).rsqrt() * y[0],
    "unit": lambda x, y: (x + y) / (x + y).pow(2).sum(-1, keepdim=True).sqrt(),
    "softmax": lambda x, y: (e := (x - x.amax(-1, keepdim=True)).exp()) / e.sum(-1, keepdim=True),
    "variance": lambda x, y: ((c := x - x.mean(-1, keepdim=True)) / (c.square().mean(-1, keepdim=True) + 1).sqrt(), c),
    "rows with rows": lambda x, y: (m := x.amax(-1) * 2 - y.sum(-1), (x * m[:, None]).sum(-1), m.exp()),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_ROWS)
@pytest.mark.parametrize("shape", [(1003, 384), (400, 1000), (20, 12345), (3001, 65), (16_000, 9), (5000, 64)], ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_what_rows_have_one_of_goes_with_them(name, shape, dtype):
    tg.manual_seed(0)
    x, y = tg.randn(*shape, dtype=dtype), tg.randn(*shape, dtype=dtype)
    program = alike(BY_ROWS[name], x, y)
    if name in ("rms", "unit", "softmax"):  # of others what is near would need more memory than an eager run
        assert [len(group) for group in together(program)] == [4 if name == "softmax" else 3]
    if name == "softmax":  # over what the sum of its rows has read
        assert "div of" in program.explain().partition("memory: ")[2]


def test_rows_that_share_nothing_of_their_elements_stay_apart():
    tg.manual_seed(0)
    x, centers = tg.randn(2000, 10), tg.randn(13, 10)

    def nearest(x, centers):
        apart = x[:, None] - centers
        weights = (-apart.square().sum(-1)).softmax(-1)
        return (weights[:, :, None] * apart).sum(0)

    groups = together(alike(nearest, x, centers))
    assert groups[-1][-1] == "sum" and max(map(len, groups)) == 2


def test_several_axes_of_rows_go_along():
    tg.manual_seed(0)
    x, y = tg.randn(60, 50, 8, 9), tg.randn(60, 50)
    program = alike(lambda x, y: x / (x * x).sum((-2, -1), keepdim=True).sqrt() * y[:, :, None, None], x, y)
    assert [len(group) for group in together(program)] == [3]
    # each of these values is for rows that are not one run
    program = alike(lambda x, y: x - (x * y[:, :, None, None]).mean((0, 2, 3), keepdim=True), x, y)
    assert not together(program)


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_gradients_of_layer_norm_before_a_formula(needs):
    tg.manual_seed(0)
    wide, weights = needs
    x = tg.randn(700, 384, requires_grad=wide)
    norm = tg.nn.LayerNorm(384)
    for p in norm.parameters():
        p.requires_grad_(weights)
    g = tg.randn(700, 384)

    def run(compiled):
        def step():
            found = tg.autograd.grad(norm(x), [t for t in (x, *norm.parameters()) if t.requires_grad], g * 2)
            return [each * 3 + 1 for each in found]

        step = Compiled(step) if compiled else step
        for _ in range(3):
            made = step()
        return made, step

    with tg.backend("cpp"):
        made, step = run(True)
        expected, _ = run(False)
        for a, b in zip(made, expected, strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()
        groups = [group for group in together(step.programs[0]) if "layer_norm_backward" in group]
        assert [len(group) for group in groups] == [3 if wide else 2]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_does_not_show(threads):
    tg.manual_seed(0)
    x, y = tg.randn(1003, 384), tg.randn(1003, 384)
    before = tg.get_num_threads()

    def function(x, y):
        return (x * y).softmax(-1), (x + y).exp().sum(0), (x - y).mean()

    with tg.backend("cpp"):
        expected = function(x, y)
        try:
            tg.set_num_threads(threads)
            compiled = Compiled(lambda: function(x, y))
            for _ in range(3):
                made = compiled()
        finally:
            tg.set_num_threads(before)
    for a, b in zip(made, expected, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


ROLLS = {
    "neighbours": lambda x: x.roll(1, 1) + x.roll(-1, 1) + x.roll(1, 2) + x.roll(-1, 2) - 4 * x,
    "far": lambda x: x.roll(30, 2) * x.roll(3, 0) - x.roll(-9, 1),
    "several axes": lambda x: x.roll((1, -1), (1, 2)) + x.roll((2, 3, 5), (0, 1, 2)) * x,
    "none": lambda x: x.roll(0, 1) - x.roll(64, 2) + x.roll(1),
}


@pytest.mark.parametrize("name", ROLLS)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_rolls_before_a_formula(name, dtype):
    tg.manual_seed(0)
    x = tg.randn(4, 192, 21, dtype=dtype)
    program = alike(lambda x: ROLLS[name](x).tanh(), x)
    kinds = [call.op.name for call in program.calls]
    assert 0 < kinds.count("roll") < 3  # short rows that are rolled; the formula reads others where they lie
    assert [len(group) for group in together(program)] == [1 + kinds.count("roll")]


def test_no_result_lies_where_rolls_still_read():
    def smooth(x):
        for _ in range(4):
            x = (x + x.roll(1, 0) + x.roll(-1, 1)) * 0.3
        return x

    tg.manual_seed(0)
    program = alike(smooth, tg.randn(450, 20))
    assert [len(group) for group in together(program)] == [2] * 4


def test_few_rows_are_shared_between_threads():
    tg.manual_seed(0)
    x, y = tg.randn(100, 120), tg.randn(120)
    program = alike(lambda x, y: ((x - y) / 0.1).var(1), x, y)
    assert [len(group) for group in together(program)] == [2]
    # one thread would take all of a sum of so few columns
    assert not together(alike(lambda x, y: ((x - y) / 0.1).sum(0), x, y))


def test_a_place_that_is_taken_over_joins_nothing():
    """What is written where something has just died gains nothing of being done with it, and is free for its reader."""
    tg.manual_seed(0)
    x, g, norm = tg.randn(700, 384), tg.randn(700, 384), tg.nn.LayerNorm(384)

    def step():
        return tg.autograd.grad(norm(x), list(norm.parameters()), g * 2)  # the norm's result is read by nobody

    with tg.backend("cpp"):
        fast = Compiled(step)
        for _ in range(3):
            fast()
    assert together(fast.programs[0]) == [["mul", "layer_norm_backward"]]
