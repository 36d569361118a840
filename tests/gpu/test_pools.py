"""The kernels of pools on the CPU, by the backend's own Python, against the generic ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy.pool_kernels import CupyPools
from tensorgrad.backends.generic.pool import PoolKernels
from tensorgrad.dtypes import numpy_dtype

from .host_kernels import HostKernels


class HostPools(CupyPools):
    xp = np

    def __init__(self) -> None:
        self._kernels = HostKernels("maxpool_float32", "maxpool_bfloat16")

    def check_index(self, *_: Any) -> None:
        """Indices are right here, or meant to be wrong."""


class Reference(PoolKernels):
    xp = np


@pytest.fixture(scope="module")
def pools() -> HostPools:
    return HostPools()


def elements(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    x = np.random.default_rng(seed).normal(size=shape) * 3
    return x.round(1 if dtype == "float32" else 0).astype(numpy_dtype(dtype))  # so that some are equal


def close(got: Any, want: Any) -> bool:
    digits = 1e-6 if got.dtype == np.float32 else 8e-3
    return got.dtype == want.dtype and np.allclose(
        got.astype(np.float32), want.astype(np.float32), rtol=digits, atol=digits, equal_nan=True
    )


WINDOWS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 17), {"kernel": (3,), "stride": (2,), "padding": (1,)}),
    ((2, 2, 9, 8), {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 0)}),
    ((1, 3, 8, 7), {"kernel": (3, 3), "stride": (1, 2), "padding": (1, 1), "ceil_mode": True}),
    ((2, 2, 6, 7), {"kernel": (2, 3), "stride": (3, 3), "padding": (0, 1), "ceil_mode": True}),
    ((1, 2, 4, 5, 6), {"kernel": (2, 2, 3), "stride": (2, 1, 2), "padding": (1, 0, 1)}),
]
DILATED = ((1, 2, 7, 6), {"kernel": (2, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (3, 2)})
COVERING: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3, 7), (3,)), ((2, 2, 6, 5), (4, 2)), ((1, 2, 3, 2), (5, 4)), ((3, 2, 5, 5), (1, 1)),
    ((1, 2, 3, 4, 5), (2, 3, 2)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "window"), [*WINDOWS, DILATED], ids=str)
def test_largest(shape: tuple[int, ...], window: dict[str, Any], dtype: str, pools: HostPools) -> None:
    how = {"dilation": (1,) * len(window["kernel"]), "ceil_mode": False} | window
    x = elements(shape, dtype)
    x.reshape(-1)[::17] = np.nan
    x[0, 0] = -np.inf
    got, want = pools.max_pool(x, **how), Reference().max_pool(x, **how)
    assert close(got[0], want[0]) and np.array_equal(got[1], want[1])
    assert got[0].tobytes() == pools.max_pool_values(x, **how).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "outputs"), COVERING, ids=str)
def test_windows_that_cover(shape: tuple[int, ...], outputs: tuple[int, ...], dtype: str, pools: HostPools) -> None:
    x = elements(shape, dtype)
    assert close(pools.adaptive_avg_pool(x, output_size=outputs), Reference().adaptive_avg_pool(x, output_size=outputs))
    g = elements((*shape[:2], *outputs), dtype, 1)
    got = pools.adaptive_avg_pool_backward(g, input_shape=shape)
    assert close(got, Reference().adaptive_avg_pool_backward(g, input_shape=shape))
    x.reshape(-1)[::13] = np.nan
    got, want = pools.adaptive_max_pool(x, output_size=outputs), Reference().adaptive_max_pool(x, output_size=outputs)
    assert close(got[0], want[0]) and np.array_equal(got[1], want[1])
    assert got[0].tobytes() == pools.adaptive_max_pool_values(x, output_size=outputs).tobytes()


@pytest.mark.parametrize("counting", [(True, None), (False, None), (True, 5)], ids=str)
@pytest.mark.parametrize(("shape", "window"), WINDOWS, ids=str)
def test_means(
    shape: tuple[int, ...], window: dict[str, Any], counting: tuple[bool, int | None], pools: HostPools
) -> None:
    how = {"ceil_mode": False, "count_include_pad": counting[0], "divisor_override": counting[1]} | window
    for dtype in ("float32", "bfloat16"):
        x = elements(shape, dtype)
        got, want = pools.avg_pool(x, **how), Reference().avg_pool(x, **how)
        assert close(got, want)
        g = elements(want.shape, dtype, 1)
        got = pools.avg_pool_backward(g, input_shape=shape, **how)
        assert close(got, Reference().avg_pool_backward(g, input_shape=shape, **how))


def summed(g: Any, places: Any, shape: tuple[int, ...]) -> Any:
    total = np.zeros((shape[0] * shape[1], int(np.prod(shape[2:]))), np.float32)
    for plane, (slopes, at) in enumerate(zip(g.reshape(len(total), -1), places.reshape(len(total), -1), strict=True)):
        for slope, place in zip(slopes, at, strict=True):
            if 0 <= place < total.shape[1]:
                total[plane, place] += np.float32(slope)
    return total.reshape(shape).astype(g.dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "window"), [*WINDOWS, DILATED], ids=str)
def test_places_get_their_sums_in_order(
    shape: tuple[int, ...], window: dict[str, Any], dtype: str, pools: HostPools
) -> None:
    how = {"dilation": (1,) * len(window["kernel"]), "ceil_mode": False} | window
    told = sum((how[key] for key in ("kernel", "stride", "padding", "dilation")), ())
    x = elements(shape, dtype).round(-1)  # many are equal, and are found by several windows
    places = Reference().max_pool(x, **how)[1]
    given = np.where(places % 11 == 3, -1, places)  # as of windows between whose taps nothing lies
    g = elements(places.shape, dtype, 1)
    found = []
    for grid in (1, 3):
        pools._kernels.grid = grid
        found.append(pools.max_pool_backward(g, given, input_shape=shape, window=told))
    pools._kernels.grid = 2
    assert found[0].tobytes() == found[1].tobytes() == summed(g, given, shape).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "outputs"), COVERING, ids=str)
def test_places_of_windows_that_cover(
    shape: tuple[int, ...], outputs: tuple[int, ...], dtype: str, pools: HostPools
) -> None:
    places = Reference().adaptive_max_pool(elements(shape, dtype).round(-1), output_size=outputs)[1]
    g = elements(places.shape, dtype, 1)
    got = pools.max_pool_backward(g, places, input_shape=shape, window=())
    assert got.tobytes() == summed(g, places, shape).tobytes()
