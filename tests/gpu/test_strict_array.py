"""The stand-in refuses what CuPy refuses, and the hand-written kernels do what their references say."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy.kernels import SOURCES
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.testing.strict_array import StrictArray, no_traffic, traffic
from tensorgrad.testing.strict_backend import REFERENCES
from tensorgrad.testing.strict_namespace import xp

from .host_compiler import compile_for_host


def device(*values: Any, dtype: Any = np.float32) -> StrictArray:
    return xp.asarray(np.array(values, dtype=dtype))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: np.asarray(x),
        lambda x: np.float32(x),
        lambda x: x + np.ones(3, np.float32),
        lambda x: np.ones(3, np.float32) + x,
        lambda x: x + np.array(1.0),
        lambda x: x + [1, 2, 3],
        lambda x: x.__iadd__(np.ones(3, np.float32)),
        lambda x: xp.add(x, np.ones(3)),
        lambda x: xp.concatenate([x, np.ones(3)]),
        lambda x: xp.sum([1.0, 2.0]),
        lambda x: xp.sum(np.ones(3)),
        lambda x: range(x[0]),
        lambda x: [1, 2, 3][x[0]],
        lambda x: xp.where(x > 0, x, np.zeros(3)),
        lambda x: xp.matmul(np.ones((3, 3)), x),
    ],
)
def test_nothing_converts_silently(convert: Any) -> None:
    with pytest.raises(TypeError):
        convert(device(1, 2, 3))


def test_the_ways_out_are_explicit_and_counted() -> None:
    x = device(1, 2, 3)
    before = traffic.downloads
    for host in (x.get(), xp.asnumpy(x)):
        assert type(host) is np.ndarray
        np.testing.assert_array_equal(host, [1, 2, 3])
    assert (float(x[0]), int(x[1]), bool(x[2]), x[2].item(), x.tolist()) == (1.0, 2, True, 3.0, [1.0, 2.0, 3.0])
    assert traffic.downloads == before + 7


def test_traffic_can_be_forbidden() -> None:
    x, mask = device(1, 2, 3), device(True, False, True, dtype=bool)
    with no_traffic():
        y = (x * 2 + 1).sum()
        for crossing in (
            lambda: float(y), lambda: x[mask], lambda: xp.nonzero(x), lambda: x[[0, 1]], lambda: xp.asarray([1.0]),
            lambda: x.__setitem__(slice(None), np.ones(3)),
        ):  # fmt: skip
            with pytest.raises(AssertionError, match="device"):
                crossing()
    assert float(y) == 15.0


def test_uploads_are_copies() -> None:
    host = np.zeros(3, np.float32)
    x = xp.asarray(host)
    x += 1
    assert not host.any()
    assert xp.asarray(x) is x


def test_results_are_arrays_of_the_device() -> None:
    x = device(1, 2, 3)
    for result in (x.sum(), x[1], xp.max(x), np.sum(x), xp.allclose(x, x), x @ x, x.mean(), xp.linalg.norm(x)):
        assert type(result) is StrictArray
        assert result.shape == ()
    assert xp.sum(x.reshape(1, 3), axis=(0,), keepdims=True).shape == (1, 3)
    assert (2 * x).dtype == np.float32
    assert (np.float64(2) * x).dtype == np.float64


def test_indices_out_of_range_wrap() -> None:
    x = device(10, 20, 30)
    at = device(0, 3, -4, dtype=np.int64)
    assert x[at].tolist() == xp.take(x, at).tolist() == xp.take_along_axis(x, at, 0).tolist() == [10.0, 10.0, 30.0]
    grid = xp.arange(6).reshape(2, 3)
    assert grid[None, ..., device(4, dtype=np.int64)].tolist() == [[[1], [4]]]
    with pytest.raises(IndexError):
        x[3]


def test_of_values_for_one_element_any_may_stay() -> None:
    seen = set()
    for _ in range(50):
        x = xp.zeros(2)
        x[device(0, 0, 1, dtype=np.int64)] = device(1, 2, 5)
        seen.add(tuple(x.tolist()))
    assert seen == {(1.0, 5.0), (2.0, 5.0)}


def test_accumulation_only_for_dtypes_with_atomics() -> None:
    x = xp.zeros(2, dtype=np.float32)
    xp.add.at(x, device(0, 0, dtype=np.int64), device(1, 2))
    assert x.tolist() == [3.0, 0.0]
    for dtype in ("int8", "bool", "bfloat16", "complex64"):
        with pytest.raises(TypeError, match="not supported"):
            xp.add.at(xp.zeros(2, dtype=numpy_dtype(dtype)), device(0, dtype=np.int64), 1)


def test_bfloat16_is_refused_where_there_is_no_kernel() -> None:
    x = xp.ones((2, 2), dtype=numpy_dtype("bfloat16"))
    assert (x @ x).dtype == x.dtype
    assert (x + x).dtype == x.dtype
    for refused in (
        lambda: xp.matmul(x[None], x), lambda: xp.einsum("ij,jk->ik", x, x), lambda: xp.sort(x), lambda: xp.cumsum(x),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            refused()


@pytest.mark.parametrize("name", ["errstate", "nditer", "frompyfunc", "vecdot", "block", "insert", "no_such_name"])
def test_what_cupy_lacks_is_missing(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(xp, name)


@pytest.mark.parametrize("name", ["ctypes", "getfield", "setflags", "resize", "to_device", "__index__"])
def test_attributes_that_device_arrays_lack(name: str) -> None:
    assert not hasattr(device(1), name)


def test_arguments_are_those_of_cupy() -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed: its signatures are unknown")
    x = device(1, 2)
    for call in (
        lambda: xp.sum(x, where=x > 1), lambda: xp.max(x, initial=0), lambda: xp.take(x, x, mode="clip"),
        lambda: xp.add(x, x, where=x > 1), lambda: xp.concatenate([x], no_such=1),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()


def test_in_place_views_and_copies() -> None:
    x = xp.arange(6.0).reshape(2, 3)
    view = x.T[1:]
    view *= 10
    assert x.tolist() == [[0, 10, 20], [3, 40, 50]]
    assert xp.may_share_memory(x, view)
    assert x.base is not None
    z = xp.zeros(2, dtype=np.complex64)
    z.real, z.imag = 1, device(2, 3)
    assert z.tolist() == [1 + 2j, 1 + 3j]
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.copy()):
        assert twin.tolist() == x.tolist()
        assert not xp.may_share_memory(x, twin)
    assert [row.tolist() for row in x] == x.tolist()


def test_philox_known_answer() -> None:
    # Random123's known answers for counter and key zero
    words = np.empty(4, np.uint32)
    REFERENCES["words"](4, 0, 0, None, words)
    assert [f"{word:08x}" for word in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


# ---- kernels of the .cu files against their references


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return dict(zip(RANDOM, compile_for_host(SOURCE.text(), *RANDOM), strict=True))


NOWHERE = np.uint64(0)
SOURCE = next(source for source in SOURCES if source.file == "random.cu")
RANDOM = SOURCE.names


@pytest.mark.parametrize("name", [name for name in RANDOM if name.partition("_")[0] in ("words", "uniform", "normal")])
@pytest.mark.parametrize("count", [1, 7, 1001])
def test_random_kernels(name: str, count: int, compiled: dict[str, Any]) -> None:
    dtype = np.dtype(np.uint32) if name == "words" else numpy_dtype(name.partition("_")[2])
    got, want = np.empty(count, dtype), np.empty(count, dtype)
    seed, offset = 2**63 + 12345, 2**40 + 7
    compiled[name]((2,), (64,), (np.int64(count), np.uint64(seed), np.uint64(offset), NOWHERE, got))
    REFERENCES[name](count, seed, offset, None, want)
    if name.startswith("normal"):
        digits = 1e-2 if dtype.itemsize == 2 else 2e-7  # of two libraries' log and cos
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=digits)
        assert np.mean(got == want) > 0.99
    else:
        np.testing.assert_array_equal(got, want)
    place = np.array([seed, offset], np.uint64)  # as a graph's kernels are told
    again = np.empty_like(got)
    compiled[name]((1,), (64,), (np.int64(count), np.uint64(1), np.uint64(2), place, again))
    np.testing.assert_array_equal(again, got)


def test_a_mask_is_drawn_again_from_its_place(compiled: dict[str, Any]) -> None:
    seed, offset, there = 2**63 + 5, 2**40 + 9, np.array([2**63 + 5, 2**40 + 9], np.uint64)
    places = np.empty((2, 2), np.int64)
    compiled["place"]((2,), (32,), (np.uint64(seed), np.uint64(offset), NOWHERE, places[0]))
    compiled["place"]((2,), (32,), (np.uint64(1), np.uint64(2), there, places[1]))
    assert places.view(np.uint64).tolist() == [there.tolist()] * 2
    x, drawn, again = np.ones(999, np.float32), np.empty(999, bool), np.empty(999, bool)
    numbers = (np.float32(0.3), np.float64(1 / 0.7))
    numbered = (np.int64(999), np.uint64(seed), np.uint64(offset), NOWHERE)
    compiled["dropout_float32"]((1,), (32,), (*numbered, *numbers, x, np.empty_like(x), drawn))
    compiled["stays"]((2,), (32,), (np.int64(999), places[0], np.float32(0.3), again))
    np.testing.assert_array_equal(again, drawn)


@pytest.mark.parametrize("name", [name for name in RANDOM if name.startswith("dropout")])
def test_dropout_kernels(name: str, compiled: dict[str, Any]) -> None:
    x = np.random.default_rng(0).normal(size=999).astype(numpy_dtype(name.partition("_")[2]))
    got, want = [(np.empty_like(x), np.empty(x.shape, bool)) for _ in range(2)]
    numbers = (np.float32(0.3), np.float64(1 / 0.7))
    compiled[name]((1,), (32,), (np.int64(x.size), np.uint64(5), np.uint64(9), NOWHERE, *numbers, x, *got))
    REFERENCES[name](x.size, 5, 9, None, *numbers, x, *want)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[0], want[0])
    assert 0.6 < got[1].mean() < 0.8
    again = np.empty_like(x), np.empty(x.shape, bool)
    place = np.array([5, 9], np.uint64)
    compiled[name]((1,), (32,), (np.int64(x.size), np.uint64(0), np.uint64(0), place, *numbers, x, *again))
    np.testing.assert_array_equal(again[1], got[1])
