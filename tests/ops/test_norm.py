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
