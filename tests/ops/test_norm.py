"""Normalizations against PyTorch, running statistics included."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import DTypeError, ShapeError
from tensorgrad.nn import functional as F

from .beside_torch import same
from .parity import between, compare, normal


def functional():
    return pytest.importorskip("torch").nn.functional


def test_layer_norm():
    arrays = [normal(3, 4, 2), normal(4, 2), normal(4, 2)]
    theirs = functional().layer_norm
    compare(lambda x, w, b: F.layer_norm(x, (4, 2), w, b), lambda x, w, b: theirs(x, (4, 2), w, b), arrays)
    compare(lambda x: F.layer_norm(x, 5), lambda x: theirs(x, (5,)), [normal(3, 5)])


def test_rms_norm():
    theirs = functional().rms_norm
    compare(lambda x, w: F.rms_norm(x, (4,), w), lambda x, w: theirs(x, (4,), w), [normal(3, 4), normal(4)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 2)])
def test_batch_norm_and_its_running_statistics(shape, training):
    def run(lib):
        def function(x, w, b, mean, var):
            mean, var = mean.detach().clone(), var.detach().clone()
            return lib.batch_norm(x, mean, var, w, b, training, 0.2), mean, var

        return function

    arrays = [normal(*shape), normal(3), normal(3), normal(3), between(3)]
    compare(run(F), run(functional()), arrays, wrt=[0, 1, 2])


def test_group_norm_and_instance_norm():
    def run(lib):
        def function(x, w, b, mean, var):
            mean, var = mean.detach().clone(), var.detach().clone()
            return lib.instance_norm(x, mean, var, w, b, True, 0.2), lib.group_norm(x, 2, w, b), mean, var

        return function

    arrays = [normal(2, 4, 3, 2), normal(4), normal(4), normal(4), between(4)]
    compare(run(F), run(functional()), arrays, wrt=[0, 1, 2])


@pytest.mark.parametrize("size", [2, 3])
def test_local_response_norm(size):
    options = {"size": size, "k": 2.0, "alpha": 0.1}
    arrays = [normal(2, 4, 3, 2)]
    theirs = functional().local_response_norm
    compare(lambda x: F.local_response_norm(x, **options), lambda x: theirs(x, **options), arrays)


def test_statistics_of_half_precision_are_float32():
    x = (tg.randn(64, 3, generator=tg.random.Generator()) + 100).half()
    mean, var = tg.zeros(3), tg.ones(3)
    y = F.batch_norm(x, mean, var, training=True, momentum=1.0)
    assert y.dtype is tg.float16 and mean.dtype is tg.float32
    assert (mean - x.float().mean(0)).abs().max().item() < 1e-3


def test_errors():
    with pytest.raises(ShapeError, match="more than 1 value per channel"):
        F.batch_norm(tg.ones(1, 3), None, None, training=True)
    with pytest.raises(ValueError, match="outside of training"):
        F.batch_norm(tg.ones(2, 3), None, None)
    with pytest.raises(ShapeError, match="does not end in normalized_shape"):
        F.layer_norm(tg.ones(2, 3), (4,))
    with pytest.raises(ShapeError, match="groups"):
        F.group_norm(tg.ones(2, 3, 4), 2)
    with pytest.raises(DTypeError, match="floating"):
        F.layer_norm(tg.ones(2, 3).long(), 3)


@pytest.mark.parametrize("shape", ((2, 0), (0, 0, 3), (2, 0, 3), (2, 4, 0), (0, 4, 0)), ids=str)
def test_group_norm_of_nothing(shape):
    c = np.ones(shape[1])
    same(lambda lib, x: [lib.nn.functional.group_norm(x, 2)], np.zeros(shape), order=1)
    same(lambda lib, x, w, b: [lib.nn.functional.group_norm(x, 1, w, b)], np.zeros(shape), c, c, order=0)
    w = tg.ones(shape[1], requires_grad=True)
    F.group_norm(tg.zeros(shape), 1, w).sum().backward()
    assert w.grad.tolist() == [0.0] * shape[1]  # PyTorch's is NaN where there are no positions
    with pytest.raises(ShapeError, match="split"):
        F.group_norm(tg.zeros(2, 4, 0), 3)


LARGE = {
    "layer_norm": lambda m, x: m.nn.functional.layer_norm(x, x.shape[-1:]),
    "rms_norm": lambda m, x: m.nn.functional.rms_norm(x, x.shape[-1:]),
    "group_norm": lambda m, x: m.nn.functional.group_norm(x[:, :, None], 1),
    "instance_norm": lambda m, x: m.nn.functional.instance_norm(x[None]),
    "batch_norm": lambda m, x: m.nn.functional.batch_norm(x, None, None, training=True),
    "batch_norm of planes": lambda m, x: m.nn.functional.batch_norm(x[None], None, None, training=True),
    "std": lambda m, x: x.std(-1),
    "std of columns": lambda m, x: x.std(0),
    "var": lambda m, x: x.var(-1),
    "var of columns": lambda m, x: x.var(0),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("columns", [4, 6, 20, 64, 300, 3000])
@pytest.mark.parametrize("size", [1e18, 1e20, 1e30, 1e38])
@pytest.mark.parametrize("name", LARGE)
def test_values_whose_squares_leave_the_range_of_float32(name, size, columns, compiled):
    """Statistics of them are summed in float64: the sums of float32 are infinite, and the results were zeros or NaN."""
    values = np.clip(np.random.default_rng(3).standard_normal((4, columns)), -1.6, 1.6) * size
    seed = None

    def run(dtype):
        nonlocal seed
        x = tg.tensor(values, dtype=dtype, requires_grad=True)
        function = tg.compile(lambda x: LARGE[name](tg, x)) if compiled else lambda x: LARGE[name](tg, x)
        y = function(x)
        seed = np.random.default_rng(4).standard_normal(tuple(y.shape)) if seed is None else seed
        y.backward(tg.tensor(seed, dtype=dtype))
        return y.detach().double().numpy(), x.grad.double().numpy()

    (y, g), (wanted, slope) = run(tg.float32), run(tg.float64)
    with np.errstate(over="ignore"):
        wanted = wanted.astype(np.float32)
    np.testing.assert_allclose(y, wanted, rtol=2e-4, atol=2e-4 * min(np.abs(wanted).max(), 1e38))
    if size < 1e38:  # where the gradient is no denormal number
        np.testing.assert_allclose(g, slope, rtol=2e-3, atol=2e-3 * np.abs(slope).max())


def test_a_row_with_an_infinite_element():
    x = tg.tensor([[1.0, np.inf, 2.0], [1.0, 2.0, 4.0]])
    assert np.isnan(F.layer_norm(x, (3,))[0].numpy()).all() and np.isfinite(F.layer_norm(x, (3,))[1].numpy()).all()
    assert F.rms_norm(x, (3,))[0].isnan().tolist() == [False, True, False]
    assert x.std(1).isnan().tolist() == [True, False] and x.mean(1)[0].item() == np.inf


def test_the_gradient_of_std_in_half_precision():
    x = tg.tensor(np.linspace(-2000, 2000, 300), dtype=tg.float16, requires_grad=True)
    x.std().backward()
    wanted = x.detach().double().requires_grad_()
    wanted.std().backward()
    np.testing.assert_allclose(x.grad.double().numpy(), wanted.grad.numpy(), rtol=1e-2, atol=1e-6)
