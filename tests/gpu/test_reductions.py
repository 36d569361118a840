"""The kernels of reductions on the CPU, by the backend's own Python: against NumPy, and the same bits for any grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy import reduce_kernels
from tensorgrad.backends.cupy.reduce_kernels import CupyReductions, walk_over
from tensorgrad.backends.generic.reduce import ReduceKernels
from tensorgrad.dtypes import numpy_dtype

from .host_kernels import HostKernels

COMPILED = (
    "sum_rows_float32", "sum_rows_float64", "sum_rows_bfloat16", "sum_rows_complex64", "sum_rows_integer",
    "squares_rows_float32", "product_rows_float32", "product_rows_integer", "count_rows_truth", "extreme_rows_float16",
    "extreme_rows_integer", "squares_rows_complex64", "squares_rows_complex128", "product_rows_complex64",
    "sum_rows_complex128", "extreme_rows_sizes64", "extreme_rows_sizes128", "place_rows_float32",
    "place_rows_integer", "logsumexp_rows_float32",
)  # fmt: skip
# (shape, dim): rows of every width, columns by packs and one by one, sets in runs, axes that lie too far apart, parts
# that are merged: of one row, whose length is no multiple of 16 bytes, of columns, of runs
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((3, 1, 4), (1,)), ((5, 7), (1,)), ((9, 64), (1,)), ((3, 2500), (1,)), ((300, 12), (0,)), ((2, 50, 7), (1,)),
    ((4, 3, 2, 8), (0, 2)), ((3, 5, 2, 12), (0, 3)), ((2, 3, 2, 3, 2), (0, 2, 4)), ((12289,), (0,)),
    ((2, 4096, 3), (1,)), ((9000, 8), (0,)), ((60, 2, 200), (0, 2)),
]  # fmt: skip


class HostReductions(CupyReductions):
    xp = np

    def __init__(self) -> None:
        self._kernels = HostKernels(*COMPILED)


class Reference(ReduceKernels):
    xp = np


@pytest.fixture(scope="module")
def reductions() -> HostReductions:
    return HostReductions()


def elements(shape: tuple[int, ...], dtype: str) -> Any:
    x = np.random.default_rng(0).normal(size=shape) * 4
    return (x + 1j * x[::-1]).astype(dtype) if dtype.startswith("complex") else x.astype(numpy_dtype(dtype))


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    *(("sum", dtype, {}) for dtype in ("float32", "float64", "bfloat16", "complex64", "int8", "bool")),
    ("mean", "float32", {}), ("mean", "complex64", {}), ("prod", "float32", {}), ("prod", "int32", {}),
    ("prod", "complex64", {}), ("var", "complex64", {"correction": 1}), ("std", "complex64", {"correction": 0}),
    ("any", "complex64", {}), ("all", "complex128", {}), ("count_nonzero", "complex64", {}),
    ("var", "float32", {"correction": 1}), ("std", "float32", {"correction": 0.5}), ("amax", "float16", {}),
    ("amin", "float16", {}), ("amax", "int16", {}), ("amin", "uint8", {}), ("amax", "bool", {}),
    ("any", "float32", {}), ("all", "uint8", {}), ("count_nonzero", "bfloat16", {}), ("count_nonzero", "int64", {}),
    ("logsumexp", "float32", {}),
]  # fmt: skip


def wide_reference(name: str, x: Any, **how: Any) -> Any:
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64 if x.dtype.kind in "fV" else x.dtype)
    if name == "std":
        return np.sqrt(Reference().var(wide, **how))
    return getattr(Reference(), name)(wide, **how)


def agrees(got: Any, want: Any, scale: float) -> bool:
    """Whether it is the reference rounded to the result's dtype, up to ``scale`` of its last digits."""
    if got.dtype.kind in "bui":
        return bool(np.array_equal(got, want))
    digits = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 2e-16}.get(got.dtype.name, 1.2e-7)
    return bool(np.allclose(got.astype(want.dtype), want, rtol=digits, atol=digits * scale, equal_nan=True))


@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_reductions(shape: tuple[int, ...], dim: tuple[int, ...], reductions: HostReductions) -> None:
    for name, dtype, how in CALLS:
        x = elements(shape, dtype)
        if name == "prod":
            near_one = x / np.abs(x) if dtype == "complex64" else np.exp(x / 40)
            x = np.where(np.abs(x) > 1, x, 1).astype(x.dtype) if dtype == "int32" else near_one
        if name in ("any", "all", "count_nonzero") and dtype.startswith("complex"):
            x = np.where(np.arange(x.size).reshape(x.shape) % 3, x.imag * 1j, 0).astype(x.dtype)  # also one part only
        launched = len(reductions._kernels.launched)
        got = getattr(reductions, name)(x, dim=dim, keepdim=False, **how)
        assert len(reductions._kernels.launched) > launched, f"{name} of {dtype} went another way"
        want = wide_reference(name, x, dim=dim, keepdim=False, **how)
        of_a_set = float(np.abs(x.astype(np.complex64)).sum()) / want.size
        scale = {"mean": 4.0, "var": 40.0, "std": 8.0, "logsumexp": 8.0}.get(name, of_a_set)
        assert got.shape == want.shape
        if name == "prod" and dtype != "int32":  # each factor brings an error of its own
            got, want, scale = (
                got / want.astype(x.dtype),
                np.ones_like(want),
                4 + x.size / want.size / (20 if dtype == "float32" else 5),
            )
        assert agrees(got, want, scale), (name, dtype)


@pytest.mark.parametrize("name", ["max_dim", "min_dim"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_places(name: str, dtype: str, reductions: HostReductions) -> None:
    for shape, dim in SHAPES:
        if len(dim) > 1:
            continue
        x = elements(shape, dtype).round()  # so that the largest is met more than once
        if dtype == "float32" and x.size > 100:
            x.flat[x.size // 3] = x.flat[x.size // 2] = np.nan
            x.flat[-1] = np.inf
        for got, want in zip(
            getattr(reductions, name)(x, dim=dim[0], keepdim=True),
            getattr(Reference(), name)(x, dim=dim[0], keepdim=True), strict=True,
        ):  # fmt: skip
            assert np.array_equal(got, want, equal_nan=dtype == "float32"), (shape, dim)
    flat = elements((5, 6, 7), dtype).transpose(2, 0, 1)
    assert reductions.argmax(flat, dim=None, keepdim=False) == flat.argmax()


@pytest.mark.parametrize(
    ("shape", "dim"), [((12289,), (0,)), ((9000, 8), (0,)), ((60, 2, 200), (0, 2)), ((40, 9), (1,))]
)
def test_bits_do_not_depend_on_the_grid(
    shape: tuple[int, ...], dim: tuple[int, ...], reductions: HostReductions
) -> None:
    x = elements(shape, "float32")
    found = []
    for grid in (1, 2, 5):
        reductions._kernels.grid = grid
        found.append([getattr(reductions, name)(x, dim=dim, keepdim=False) for name in ("sum", "logsumexp")])
    reductions._kernels.grid = 2
    assert all(np.array_equal(a, b) for others in found for a, b in zip(found[0], others, strict=True))
    memory = np.zeros(x.size + 1, np.float32)
    moved = memory[1:].reshape(shape)  # begins where no 16 bytes begin
    moved[...] = x
    assert np.array_equal(reductions.sum(moved, dim=dim, keepdim=False), found[0][0])


def test_a_float_sum_is_right_to_its_last_digit(reductions: HostReductions) -> None:
    x = np.random.default_rng(1).uniform(size=(100_000,)).astype(np.float32)
    for shape in ((100_000,), (100_000, 1), (1000, 100)):
        got = reductions.sum(x.reshape(shape), dim=(0,), keepdim=False)
        want = x.reshape(shape).astype(np.float64).sum(axis=0)
        assert np.allclose(got, want, rtol=1.2e-7, atol=0)


def test_infinities_and_nan(reductions: HostReductions) -> None:
    inf, nan = np.inf, np.nan
    rows = [[1, inf, 2], [inf, -inf, 1], [-inf, -inf, -inf], [nan, 1, inf], [3e38, 3e38, -3e38], [inf, inf, 1]]
    for repeat in (1, 40):
        x = np.tile(np.array(rows, np.float32), (1, repeat))
        for name in ("sum", "logsumexp"):
            for layout in (x, np.ascontiguousarray(x.T)):
                dim = (1,) if layout is x else (0,)
                with np.errstate(all="ignore"):
                    want = getattr(Reference(), name)(layout, dim=dim, keepdim=False)
                got = getattr(reductions, name)(layout, dim=dim, keepdim=False)
                keep = (
                    [0, 1, 2, 3, 5] if name == "sum" else slice(None)
                )  # whether 6e38 - 3e38 is met is a tree's choice
                assert np.allclose(got[keep], want[keep], rtol=1e-6, equal_nan=True), (name, got, want)


@pytest.mark.parametrize("ord", [1.0, 2.0, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
def test_norms(ord: float, dtype: str, reductions: HostReductions) -> None:
    x = elements((3, 5, 7), dtype).transpose(1, 0, 2)
    if abs(ord) == np.inf and dtype == "float32":
        x = x.astype(np.float16)
    launched = len(reductions._kernels.launched)
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    got = reductions.vector_norm(x, ord=ord, dim=(1, 2), keepdim=False)
    want = np.linalg.norm(wide.reshape(5, -1), ord, axis=1)
    assert len(reductions._kernels.launched) == launched + 1, "it went another way"
    assert got.dtype == x.real.dtype
    assert np.allclose(got, want, rtol={"float32": 2e-7, "float64": 1e-15}.get(got.dtype.name, 1e-3))
    got = reductions.vector_norm(x.reshape(-1, 1), ord=ord, dim=(0,), keepdim=True)  # a column
    assert np.allclose(got, np.linalg.norm(wide.reshape(-1), ord), rtol=1e-3 if x.dtype == np.float16 else 3e-7)


def test_the_variance_of_complex128(reductions: HostReductions) -> None:
    x = elements((40, 9), "complex128")
    for dim in (0, 1):
        got = reductions.var(x, dim=(dim,), correction=1, keepdim=False)
        assert got.dtype == np.float64
        assert np.allclose(got, x.var(axis=dim, ddof=1), rtol=1e-14, atol=0)


def test_a_norm_of_complex_numbers_with_a_nan_or_an_infinity(reductions: HostReductions) -> None:
    x = np.array([[1, complex(np.nan, 2), 3], [1j, complex(np.inf, 1), 2]], np.complex64)
    for ord in (1.0, 2.0, np.inf, -np.inf):
        got = reductions.vector_norm(x, ord=ord, dim=(1,), keepdim=False)
        assert np.array_equal(got, [np.nan, 1 if ord < 0 else np.inf], equal_nan=True)


def test_a_transposed_array_is_read_where_it_lies(reductions: HostReductions, monkeypatch: pytest.MonkeyPatch) -> None:
    x = elements((6, 40), "float32")
    monkeypatch.setattr(np, "ascontiguousarray", lambda *_: pytest.fail("copied"))
    assert np.allclose(reductions.sum(x.T, dim=(0,), keepdim=False), x.sum(axis=1), rtol=1e-5, atol=1e-5)
    assert np.allclose(reductions.sum(x.T, dim=(1,), keepdim=False), x.sum(axis=0), rtol=1e-5, atol=1e-5)


def test_walks_take_every_element_once() -> None:
    for shape, dim in SHAPES:
        walk = walk_over(shape, dim)
        if walk is None:
            continue
        chunk, parts = walk.numbers[4:6] if walk.kind == "rows" else walk.numbers[3:5]
        length = int(np.prod([shape[d] for d in dim]))
        assert chunk * parts >= length > chunk * (parts - 1)
        assert walk.states == (0 if parts == 1 else parts * int(np.prod(shape)) // length)
    large = walk_over((1 << 28,), (0,))
    assert large is not None
    assert large.numbers[5] == reduce_kernels._PARTS


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_means_of_integers_are_divided(dtype: str) -> None:
    x = np.arange(40).reshape(5, 8).astype(dtype)
    got = HostReductions().mean(x, dim=(0, 1), keepdim=False)
    assert got.dtype == np.dtype(dtype) and int(got) == 19  # 19.5, as the CPU writes it
