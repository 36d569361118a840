"""Convolutions that do what follows them: which calls are one, that the numbers stay, that nothing is out of date."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.compiler.executor import executor
from tests.compiler.common import after, names, run, same_results, written


def settled(*modules):
    """The modules in evaluation, with statistics that are not those of a new layer."""
    tg.manual_seed(5)
    model = nn.Sequential(*modules)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            with tg.no_grad():
                for t, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.3, 2)):
                    t.uniform_(low, high)
                if module.weight is not None:
                    module.weight.uniform_(-2, 2)
                    module.bias.uniform_(-1, 1)
    return model.eval()


class Residual(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.conv, self.norm, self.in_place = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), in_place

    def forward(self, x):
        y = self.norm(self.conv(x))
        if self.in_place:
            y += x
            return tg.relu_(y)
        return (x + y).relu()


def conv(*sizes, dims=2, **options):
    return getattr(nn, f"Conv{dims}d")(*sizes, **options)


# (modules, shape of the input, names of the calls that are left)
FOLDED = [
    (lambda: [conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()], (2, 3, 7, 6), "conv_norm"),
    (lambda: [conv(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)], (2, 3, 7, 6), "conv_norm"),
    (lambda: [conv(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8, affine=False)], (2, 3, 9, 8), "conv_norm"),
    (lambda: [conv(20, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU6()], (4, 20, 16, 18), "conv_norm"),  # Winograd
    (lambda: [conv(20, 37, 1), nn.BatchNorm2d(37), nn.ReLU6()], (3, 20, 9, 7), "conv_norm"),  # panels of several images
    (lambda: [conv(20, 37, 1, stride=2, groups=1), nn.BatchNorm2d(37)], (2, 20, 33, 34), "conv_norm"),
    (lambda: [conv(300, 70, 1), nn.BatchNorm2d(70), nn.ReLU()], (2, 300, 24, 24), "conv_norm"),  # stretches of terms
    (lambda: [conv(9, 9, 3, padding=1, groups=9), nn.BatchNorm2d(9), nn.ReLU6()], (2, 9, 12, 11), "conv_norm"),
    (lambda: [conv(6, 12, 3, stride=2, groups=6), nn.BatchNorm2d(12)], (2, 6, 12, 11), "conv_norm"),
    (lambda: [conv(8, 3, 5, padding=2), nn.BatchNorm2d(3), nn.ReLU()], (2, 8, 20, 20), "conv_norm"),  # few targets
    (lambda: [conv(3, 16, 4, stride=4), nn.BatchNorm2d(16)], (2, 3, 16, 16), "conv_norm"),  # patches
    (lambda: [conv(24, 10, 1), nn.BatchNorm2d(10), nn.ReLU()], (5, 24, 1, 1), "conv_norm"),  # a product
    (lambda: [conv(8, 12, 3, groups=4, dilation=2), nn.BatchNorm2d(12), nn.ReLU()], (2, 8, 9, 9), "conv_norm"),
    (lambda: [conv(3, 5, 3, dims=1), nn.BatchNorm1d(5), nn.ReLU()], (2, 3, 15), "conv_norm"),
    (lambda: [conv(3, 5, 3, dims=3), nn.BatchNorm3d(5), nn.ReLU()], (2, 3, 5, 6, 4), "conv_norm"),
    (lambda: [nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU()], (2, 4, 5, 6), "conv_norm"),
    (lambda: [nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False), nn.BatchNorm2d(6)], (2, 4, 5, 6), "conv_norm"),
    (lambda: [Residual(True)], (2, 6, 9, 8), "conv_norm"),
    (lambda: [Residual(False)], (2, 6, 9, 8), "conv_norm"),
    (lambda: [conv(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh()], (2, 3, 7, 6), "conv_norm tanh"),
    (lambda: [nn.BatchNorm2d(3), conv(3, 4, 3)], (2, 3, 7, 6), "batch_norm_eval conv"),
    (lambda: [conv(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)], (2, 3, 7, 6), "conv_norm batch_norm_eval"),
]


@pytest.mark.parametrize("case", range(len(FOLDED)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_calls_that_are_left(case, dtype):
    make, shape, left = FOLDED[case]
    model = settled(*make()).to(getattr(tg, dtype))
    x = tg.randn(*shape, dtype=getattr(tg, dtype))
    with tg.backend("cpp"), tg.inference_mode():
        program = written(model, x.clone())
        made = after("dead", after("fold", program))
        assert " ".join(names(made)) == left, program
        (ours,), (theirs,) = run(made, x), run(program, x)
        assert ours.dtype == theirs.dtype
        limit = 1e-5 if dtype == "float32" else 1e-13
        assert np.abs(ours - theirs).max() <= limit * np.abs(theirs).max()
        (again,) = run(made, x)
        assert again.tobytes() == ours.tobytes()
    with tg.backend("numpy"), tg.inference_mode():
        program = written(model, x.clone())
        assert after("fold", program) is program  # there every bit stays
        (plain,) = run(made, x)  # a program of the one runs on the other
        assert np.abs(ours - plain).max() <= 2 * limit * np.abs(theirs).max()


def test_a_relu_alone_keeps_every_bit():
    with tg.backend("cpp"), tg.no_grad():
        for layer in (conv(20, 24, 3, padding=1), conv(5, 7, 1), conv(9, 9, 3, groups=9), conv(3, 8, 3, stride=2)):
            x = tg.randn(3, layer.in_channels, 17, 15)
            program = written(lambda t, layer=layer: layer(t).relu(), x)
            made = after("fold", program)
            assert names(made) == ["conv_norm"]
            same_results(program, made, x)


def kept(layer, norm):
    def both(t):
        y = layer(t)
        return norm(y), y.sum()

    return both


def overwritten(layer, norm):
    def both(t):
        y = layer(t)
        t.zero_()
        return norm(y)

    return both


def changed_between(layer, norm):
    def both(t):
        y = norm(layer(t))
        norm.running_mean.add_(1)
        return y.relu(), norm(layer(t))

    return both


def shown(layer, norm):
    def both(t):
        y = layer(t)
        z = y.reshape(-1)
        return norm(y).relu_(), z

    return both


@pytest.mark.parametrize("function", [kept, overwritten, shown])
def test_what_is_read_elsewhere_stays(function):
    layer, norm = settled(conv(3, 4, 3), nn.BatchNorm2d(4))
    with tg.backend("cpp"), tg.no_grad():
        program = written(function(layer, norm), tg.randn(2, 3, 6, 6))
        assert "batch_norm_eval" in names(after("fold", program))


def test_statistics_that_change_between():
    layer, norm = settled(conv(3, 4, 3), nn.BatchNorm2d(4))
    with tg.backend("cpp"), tg.no_grad():
        x = tg.randn(2, 3, 6, 6)
        program = written(changed_between(layer, norm), x)
        made = after("fold", program)
        norm.running_mean.zero_()
        ours = run(made, x)
        norm.running_mean.zero_()
        for a, b in zip(ours, run(program, x), strict=True):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_training_stays_as_it_is():
    model = nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    with tg.backend("cpp"):
        program = written(model, tg.randn(2, 3, 6, 6))
        assert after("fold", program) is program and "batch_norm_relu" in names(program)


def test_nothing_is_out_of_date():
    """Whoever changes a weight or a statistic, and how: the next call computes with it."""
    model = settled(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, 3, groups=8), nn.BatchNorm2d(8))
    norm, x = model[1], tg.randn(2, 3, 9, 9)
    other = settled(
        conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, 3, groups=8), nn.BatchNorm2d(8)
    ).state_dict()

    def set_weight():
        norm.weight = nn.Parameter(tg.full((8,), 0.5))

    changes = [
        lambda: norm.running_var.mul_(3), lambda: norm.running_mean.numpy().__setitem__(2, 5.0),
        lambda: norm.weight.data.neg_(), lambda: norm.bias.detach().numpy().__iadd__(1.0), set_weight,
        lambda: model[0].weight.data.mul_(1.5), lambda: model.load_state_dict(other), lambda: setattr(norm, "eps", 0.5),
        lambda: model[4].running_var.copy_(tg.full((8,), 4.0)), lambda: (model.train(), model(x), model.eval()),
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
        assert names(compiled.programs[0]) == ["conv_norm", "conv_norm"]


def test_before_and_after():
    from tensorgrad.compiler.passes import show

    model = settled(conv(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    with tg.backend("cpp"), tg.no_grad():
        before, now = show("fold", written(model, tg.ones(1, 1, 3, 3)))
    assert [line.split(" = ")[1].split("(")[0] for line in before.splitlines()[1:-1]] == [
        "conv",
        "batch_norm_eval",
        "relu",
    ]
    (call,) = now.splitlines()[1:-1]
    assert "conv_norm" in call and "clamps=True, low=0.0, high=inf" in call


def test_a_program_runs_from_its_executor():
    model = settled(conv(3, 4, 3), nn.BatchNorm2d(4))
    with tg.backend("cpp"), tg.no_grad():
        x = tg.randn(2, 3, 6, 6)
        program = after("fold", written(model, x))
        runs = executor(program)
        first = np.array(runs([x._data])[0])
        model[1].running_mean.add_(1)
        assert np.abs(np.array(runs([x._data])[0]) - first).max() > 0.1


@pytest.mark.parametrize("training", [False, True])
def test_a_sum_of_two_convolutions_is_the_first_ones(training):
    tg.manual_seed(0)
    one, other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def f(x):
        y = (one(x) + other(x)).relu()
        return (y + one(x * 2) + other(x * 3)).sum()

    def slopes(function):
        x = tg.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8).requires_grad_(training)
        y = function(x)
        if not training:
            return [y.item()]
        y.backward()
        return [y.item(), x.grad]

    compiled = tg.compile(f)
    for _ in range(3):
        for found, expected in zip(slopes(compiled), slopes(f), strict=True):
            tg.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
