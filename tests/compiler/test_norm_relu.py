"""ReLUs behind batch norms are done by the norms, in both directions: which are, and that the bits stay."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tests.compiler.common import after, names, run, same_results, written

F = nn.functional


def both(x, w, b, g, in_place=False):
    """A norm of a batch with its ReLU, and the gradients behind them."""
    x, w, b = (t.detach().requires_grad_() for t in (x, w, b))
    y = F.batch_norm(x, None, None, w, b, training=True)
    z = F.relu(y, inplace=in_place)
    return [z, *tg.autograd.grad(z, [x, w, b], g)]


def operands(dtype, shape):
    generator = tg.Generator().manual_seed(sum(shape))
    channels = shape[1]
    x, g = (tg.randn(shape, dtype=dtype, generator=generator) for _ in range(2))
    return (
        x,
        tg.randn(channels, dtype=dtype, generator=generator),
        tg.randn(channels, dtype=dtype, generator=generator),
        g,
    )


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
@pytest.mark.parametrize(
    "shape", [(5, 3), (64, 40), (3, 4, 6, 5), (2, 3, 40, 41), (9, 12, 16, 16), (33, 9, 1)], ids=str
)
def test_both_directions_and_their_bits(shape, dtype, in_place):
    def function(*tensors):
        return both(*tensors, in_place=in_place)

    tensors = operands(dtype, shape)
    with tg.backend("cpp"):
        program = written(function, *tensors)
        made = after("norm_relu", program)
        left = names(made)
        assert "batch_norm_relu" in left and "batch_norm_relu_backward" in left
        assert not {"relu", "batch_norm", "batch_norm_backward", "relu_backward0"} & set(left)
        same_results(made, program, *tensors)
    with tg.backend("numpy"):
        program = written(function, *tensors)
        assert after("norm_relu", program) is program


def test_nan_infinities_and_zeros_keep_their_bits():
    x = tg.randn(6, 3, 4, 4, generator=tg.Generator().manual_seed(0))
    x[0, 0, 0, 0], x[1, 1, 0, 0] = float("nan"), float("inf")
    w, b = tg.tensor([1.0, 1.0, 0.0]), tg.tensor([0.0, 0.0, -0.0])
    g = tg.ones(6, 3, 4, 4)
    with tg.backend("cpp"):
        program = written(both, x, w, b, g)
        made = after("norm_relu", program)
        assert "batch_norm_relu" in names(made)
        for ours, theirs in zip(run(made, x, w, b, g), run(program, x, w, b, g), strict=True):
            assert np.array_equal(np.isnan(ours), np.isnan(theirs))
            assert np.where(np.isnan(ours), 0, ours).tobytes() == np.where(np.isnan(theirs), 0, theirs).tobytes()


def shows_the_norm(x, w, b, g):
    y = F.batch_norm(x, None, None, w, b, training=True)
    return [y, F.relu(y)]


def reads_the_norm_twice(x, w, b, g):
    y = F.batch_norm(x, None, None, w, b, training=True)
    return [F.relu(y) + y]


def other_activation(x, w, b, g):
    return [F.gelu(F.batch_norm(x, None, None, w, b, training=True))]


def reads_it_ahead_of_an_activation_in_place(x, w, b, g):
    y = F.batch_norm(x, None, None, w, b, training=True)
    before = y.sum()
    return [F.relu(y, inplace=True), before]


@pytest.mark.parametrize(
    "function", [shows_the_norm, reads_the_norm_twice, other_activation, reads_it_ahead_of_an_activation_in_place]
)
def test_what_somebody_else_reads_stays(function):
    tensors = operands(tg.float32, (3, 4, 5, 5))
    with tg.backend("cpp"):
        program = written(function, *tensors)
        assert after("norm_relu", program) is program


def overwrites_what_backward_reads(x, w, b, g):
    x, w, b = (t.detach().requires_grad_() for t in (x, w, b))
    z = F.relu(F.batch_norm(x, None, None, w, b, training=True))
    gate = z.detach() * 1
    (to_x,) = tg.autograd.grad(z, [x], g)
    return [to_x + gate, F.relu(to_x)]


def gradient_with_another_reader(x, w, b, g):
    x, w, b = (t.detach().requires_grad_() for t in (x, w, b))
    y = F.batch_norm(x, None, None, w, b, training=True)
    return [*tg.autograd.grad(F.relu(y), [x, y], g)]


@pytest.mark.parametrize("function", [overwrites_what_backward_reads, gradient_with_another_reader])
def test_the_ends_of_what_is_joined(function):
    tensors = operands(tg.float32, (3, 4, 5, 5))
    with tg.backend("cpp"):
        program = written(function, *tensors)
        made = after("norm_relu", program)
        assert ("batch_norm_relu_backward" in names(made)) == (function is overwrites_what_backward_reads)
        same_results(made, program, *tensors)


@pytest.mark.parametrize("in_place", [False, True])
def test_training_gives_eager_s_bits(in_place):
    def trained(compiled):
        tg.manual_seed(3)
        model = nn.ModuleList(
            [nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)]
        )
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x):
            optimizer.zero_grad()
            y = F.relu(model[1](model[0](x)), inplace=in_place)
            loss = F.relu(model[3](model[2](y)), inplace=in_place).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        play = tg.compile(step) if compiled else step
        losses = [float(play(tg.randn(4, 2, 9, 8))) for _ in range(12)]
        return losses, [v._data.tobytes() for v in model.state_dict().values()], play

    with tg.backend("cpp"):
        losses, state, _ = trained(False)
        again, their_state, play = trained(True)
        assert losses == again and state == their_state
        assert play.explain().count("batch_norm_relu_backward(") == 2
