"""Norms behind linear layers as formulas: which calls are left, that the numbers stay, that nothing is out of date."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.compiler.passes import PASSES, show
from tests.compiler.common import after, names, run, written
from tests.compiler.test_fold import settled


class Residual(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.linear, self.norm, self.in_place = nn.Linear(6, 6), nn.BatchNorm1d(6), in_place

    def forward(self, x):
        y = self.norm(self.linear(x))
        if self.in_place:
            y += x
            return tg.relu_(y)
        return (x + y).relu()


# (modules, features of the input, whether all behind the product is one formula)
CASES = [
    (lambda: [nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU()], 7, True),
    (lambda: [nn.Linear(7, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(inplace=True)], 7, True),
    (lambda: [nn.Linear(7, 9), nn.BatchNorm1d(9, affine=False), nn.GELU()], 7, True),
    (lambda: [nn.Linear(300, 33), nn.BatchNorm1d(33, eps=0.1)], 300, True),
    (lambda: [Residual(False)], 6, True),
    (lambda: [Residual(True)], 6, False),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 5, 200])
def test_calls_that_are_left(case, dtype, rows):
    make, features, whole = CASES[case]
    model = settled(*make()).to(getattr(tg, dtype))
    x = tg.randn(rows, features, dtype=getattr(tg, dtype))
    with tg.backend("cpp"), tg.inference_mode():
        program = written(model, x.clone())
        made = after("norms", program)
        assert "batch_norm_eval" in names(program) and "batch_norm_eval" not in names(made)
        joined = after("dead", after("formulas", made))
        left = [name for name in names(joined) if name not in ("reshape",)]
        assert (
            len([call for call in joined.calls if call.results[0] and len(call.results[0].shape) == 2]) == 2
            or not whole
        )
        assert left.index("linear") == 1  # scale and shift come before, so that nothing stands between
        (ours,), (theirs,) = run(joined, x), run(program, x)
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= (1e-5 if dtype == "float32" else 1e-13) * max(1, np.abs(theirs).max())
        (again,) = run(joined, x)
        assert again.tobytes() == ours.tobytes()
    with tg.backend("numpy"), tg.inference_mode():
        program = written(model, x.clone())
        assert after("norms", program) is program  # there every bit stays


def shown(layer, norm):
    def both(t):
        y = layer(t)
        return norm(y), y.sum()

    return both


def of_images(layer, norm):
    return lambda t: norm(layer(t).reshape(t.shape[0], 3, 3))


def mixed(layer, norm):
    return lambda t: norm.double()(layer(t).double())


def changed(layer, norm):
    def both(t):
        y = layer(t)
        norm.running_mean.add_(1)
        return norm(y)

    return both


@pytest.mark.parametrize(
    "function, features", [(shown, 9), (of_images, 3), (mixed, 9), (changed, 9)], ids=lambda x: str(x)[:20]
)
def test_what_is_something_else_stays(function, features):
    layer, norm = settled(nn.Linear(7, 9), nn.BatchNorm1d(features))
    with tg.backend("cpp"), tg.no_grad():
        program = written(function(layer, norm), tg.randn(4, 7))
        assert "batch_norm_eval" in names(after("norms", program))


def test_training_stays_as_it_is():
    model = nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU())
    with tg.backend("cpp"):
        program = written(model, tg.randn(4, 7))
        assert after("norms", program) is program


def test_a_result_that_is_written_over_later_is_right():
    layer, norm = settled(nn.Linear(7, 9), nn.BatchNorm1d(9))

    def function(t):
        y = norm(layer(t))
        z = y.relu_().sum()
        y.mul_(3.0)
        return z, y

    x = tg.randn(6, 7)
    with tg.backend("cpp"), tg.inference_mode():
        program = written(function, x)
        for ours, theirs in zip(run(after("norms", program), x), run(program, x), strict=True):
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_nothing_is_out_of_date():
    """Whoever changes a weight or a statistic, and how: the next call computes with it."""

    def make():
        return settled(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 9), nn.BatchNorm1d(9))

    model, other = make(), make()
    with tg.no_grad():
        for t in other.parameters():
            t.mul_(1.3)
    other = other.state_dict()
    norm, x = model[1], tg.randn(6, 7)

    def set_weight():
        norm.weight = nn.Parameter(tg.full((9,), 0.5))

    def set_statistic():
        norm.running_mean = tg.full((9,), 0.25)

    changes = [
        lambda: norm.running_var.mul_(3), lambda: norm.running_mean.numpy().__setitem__(2, 5.0),
        lambda: norm.weight.data.neg_(), lambda: norm.bias.detach().numpy().__iadd__(1.0), set_weight, set_statistic,
        lambda: model[0].weight.data.mul_(1.5), lambda: model.load_state_dict(other), lambda: setattr(norm, "eps", 0.5),
        lambda: model[4].running_var.copy_(tg.full((9,), 4.0)), lambda: (model.train(), model(x), model.eval()),
        lambda: model[3].bias.numpy(force=True).fill(3.0),
    ]  # fmt: skip
    with tg.backend("cpp"), tg.no_grad():
        compiled = tg.compile(model)
        compiled(x)
        before = model(x).numpy().copy()
        for change in changes:
            change()
            theirs = model(x).numpy()
            assert np.abs(theirs - before).max() > 1e-3
            before = theirs.copy()
            for _ in range(2):
                assert np.abs(compiled(x).numpy() - theirs).max() <= 1e-5 * np.abs(theirs).max()
        assert "batch_norm_eval" not in names(compiled.programs[0])
        assert "norms: batch_norm_eval of" in compiled.explain()


def test_it_goes_by_the_products_blocks():
    model = settled(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.SiLU())
    with tg.backend("cpp"), tg.inference_mode():
        compiled = tg.compile(model)
        for _ in range(2):
            compiled(tg.randn(64, 64))
        assert compiled.explain().count("in the blocks of linear") == 1


def test_before_and_after():
    model = settled(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
    with tg.backend("cpp"), tg.no_grad():
        before, now = show("norms", written(model, tg.ones(4, 2)))
    calls = [[line.split(" = ")[1].split("(")[0] for line in text.splitlines()[1:-1]] for text in (before, now)]
    assert calls[0][:2] == ["linear", "batch_norm_eval"]
    assert calls[1] == ["add", "rsqrt", "mul", "mul", "sub", "linear", "scale_shift", "relu"]
    assert PASSES.index("norms") < PASSES.index("formulas")
