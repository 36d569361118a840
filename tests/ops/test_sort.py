"""Sorting and searching beside PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg

from .beside_torch import same, same_error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 6))
EQUALS = np.array([[2.0, 1.0, 2.0, 1.0, 0.0, 2.0]])
NAN = np.array([1.0, np.nan, -np.inf, np.inf, 0.0, np.nan])


@pytest.mark.parametrize("descending", (False, True))
def test_sort(descending):
    same(lambda lib, x: [*x.sort(descending=descending), *lib.sort(x, 0, descending), x.argsort(0, descending)], X)
    same(lambda lib, x: [*lib.sort(x, stable=True, descending=descending)], EQUALS, order=1)
    same(lambda lib, x: [*lib.sort(x, stable=True, descending=descending)], NAN, order=0)
    same(lambda lib, x: x.msort(), X)


@pytest.mark.parametrize("dtype", ("bool", "uint8", "int64", "float16", "float32"))
def test_dtypes(dtype):
    same(lambda lib, x: [*lib.sort(x, stable=True), *lib.sort(x, stable=True, descending=True)],
         (X * 2).astype(np.int8).astype(dtype), order=0)  # fmt: skip


def test_topk():
    same(lambda lib, x: [*x.topk(2), *x.topk(3, 0, largest=False), *lib.topk(x, 6), *x.topk(0)], X)
    same(lambda lib, x: x.topk(2).values, NAN, order=0)


def test_0_d_and_empty():
    same(lambda lib, x: [*x.sort(), *x.topk(1), *x.kthvalue(1)], np.array(3.0))
    same(lambda lib, x: [*x.sort(0), *x.sort(1), *x.topk(0, 0)], np.zeros((0, 3)), order=0)


def test_results_have_names():
    found = tg.tensor([3.0, 1.0, 2.0]).topk(2)
    assert found.values.tolist() == [3, 2]
    assert found.indices.tolist() == [0, 2]


def test_searchsorted():
    bounds = np.array([-1.0, 0.0, 0.0, 1.0, 2.0])
    same(lambda lib, b, x: [lib.searchsorted(b, x), lib.searchsorted(b, x, right=True), lib.bucketize(x, b),
                            lib.searchsorted(b, x, side="right", out_int32=True), lib.searchsorted(b, 0.0),
                            lib.bucketize(x, b, right=True)], bounds, X, order=0)  # fmt: skip
    rows = np.sort(RNG.standard_normal((3, 7)), axis=1)
    same(lambda lib, b, x: lib.searchsorted(b, x), rows, X, order=0)
    same(lambda lib, b, x: lib.searchsorted(b, x), bounds, NAN, order=0)
    same(lambda lib, b, x: lib.searchsorted(b[:0], x), bounds, X, order=0)
    same(lambda lib, b, x: lib.searchsorted(b, x), np.array([1, 3, 5]), np.array([0, 3, 9]), order=0)


def test_unique():
    x = np.array([[2, 1, 2], [0, 1, 0], [2, 1, 2]])
    same(lambda lib, x: [x.unique(), *x.unique(return_inverse=True, return_counts=True),
                         *lib.unique(x, dim=0, return_inverse=True, return_counts=True), lib.unique(x, dim=1)],
         x, order=0)  # fmt: skip
    y = np.array([1, 1, 2, 2, 2, 1, 3])
    same(lambda lib, y: [*lib.unique_consecutive(y, return_inverse=True, return_counts=True), y[:0].unique()],
         y, order=0)  # fmt: skip
    rows = np.array([[1, 1], [1, 1], [2, 0]])
    same(lambda lib, y: lib.unique_consecutive(y, dim=0, return_counts=True), rows, order=0)


@pytest.mark.parametrize(
    "call",
    (
        lambda lib, x: x.topk(7), lambda lib, x: x.sort(2), lambda lib, x: x.kthvalue(0), lambda lib, x: x.topk(-1),
        lambda lib, x: lib.searchsorted(x, x[:2]), lambda lib, x: lib.bucketize(x, x),
    ),
)  # fmt: skip
def test_refused(call):
    same_error(call, X)


def test_agreement():
    y = X + 1e-9
    same(lambda lib, x, y: [lib.equal(x, x), lib.equal(x, y), lib.equal(x, y[0]), lib.allclose(x, y), x.isclose(y),
                            lib.allclose(x, y, 0, 0), x.allclose(x * 2)], X, y, order=0)  # fmt: skip
    same(lambda lib, x: [x.isclose(x), x.isclose(x, equal_nan=True), x.isclose(-x)], NAN, order=0)
    same_error(lambda lib, x: x.isclose(x.float()), X)


def test_new_tensors_take_after_another():
    same(lambda lib, x: [x.new_zeros(2, 3), x.new_ones((2,)), x.new_full((2,), 5), x.new_tensor([1, 2]),
                         x.new_zeros(1, dtype=lib.int32)], X.astype(np.float32), order=0)  # fmt: skip
