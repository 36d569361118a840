"""Pools whose places nobody reads."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tests.compiler.beside import BACKENDS
from tests.compiler.common import after, names, same_results, written


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with tg.backend(request.param):
        yield request.param


def odd(*shape):
    """Numbers among which are infinities, zeros of both signs and a NaN."""
    tg.manual_seed(2)
    x = tg.randn(*shape)
    flat = x.reshape(-1)
    flat[::7], flat[3::11], flat[5::13] = 0.0, -0.0, float("-inf")
    flat[17] = float("nan")
    return x


POOLS = [
    (nn.MaxPool2d(2), (2, 3, 9, 21)), (nn.MaxPool2d(3, 1, 1), (2, 3, 9, 21)), (nn.MaxPool2d(3, 2, 1), (2, 3, 9, 37)),
    (nn.MaxPool2d((2, 3), 3, ceil_mode=True), (2, 2, 10, 20)), (nn.MaxPool2d(2, 1, dilation=2), (1, 2, 9, 18)),
    (nn.MaxPool1d(4), (2, 3, 41)), (nn.MaxPool3d(2), (1, 2, 4, 6, 8)), (nn.AdaptiveMaxPool2d(3), (2, 3, 7, 11)),
    (nn.AdaptiveMaxPool1d(4), (2, 3, 11)),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(POOLS)))
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_maxima_alone_have_the_same_bits(case, dtype):
    pool, shape = POOLS[case]
    x = odd(*shape).to(getattr(tg, dtype))
    with tg.inference_mode():
        program = written(pool, x)
        made = after("pools", program)
    pools = [name for name in names(made) if "pool" in name]
    assert pools == [name + "_values" for name in names(program) if "pool" in name] and len(pools) == 1
    assert "gives no places" in dict(made.notes)["pools"]
    same_results(program, made, x)


def test_places_that_somebody_reads_stay():
    x = odd(2, 3, 8, 8)
    program = written(nn.MaxPool2d(2, return_indices=True), x)
    assert after("pools", program) is program

    def there_and_back(x):
        values, at = tg.nn.functional.max_pool2d(x, 2, return_indices=True)
        return tg.nn.functional.max_unpool2d(values, at, 2)

    program = written(there_and_back, x)
    assert after("pools", program) is program


def test_training_keeps_them_and_inference_does_not(backend):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    x = tg.randn(2, 3, 8, 8)
    compiled = tg.compile(model)
    compiled(x).sum().backward()
    with tg.inference_mode():
        for _ in range(3):
            assert np.array_equal(compiled(x).numpy(), model(x).numpy())
    texts = [program.explain() for program in compiled.programs]
    assert "max_pool_values" in texts[0] and "gives no places" in texts[0]
    assert any("max_pool_backward" in text for text in texts)
