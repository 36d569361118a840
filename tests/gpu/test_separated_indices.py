"""Indices apart from each other, beside slices and masks, and arrays that are not dense: by kernels on the CPU, which
read and write where the elements lie, and by whole keys on device cuda."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends.cupy.kernels import SOURCES
from tensorgrad.backends.cupy.place_kernels import lying
from tensorgrad.errors import IndexOutOfRange

from .beside_cpu import Shown, on_both
from .host_kernels import HostKernels
from .test_indexing import HostIndexing, elements

COMPILED = (
    *(name for source in SOURCES if source.file in ("sort.cu", "index.cu") for name in source.names),
    "sumtiles_float32", "sumtiles_int64", "prodtiles_float32",
)  # fmt: skip


class Separated(HostIndexing):
    def __init__(self) -> None:
        self._kernels = HostKernels(*COMPILED)


@pytest.fixture(scope="module")
def indexing() -> Separated:
    return Separated()


def many_axes(dtype: str) -> Any:
    """Ten dimensions, of which no two neighbours are one axis."""
    return elements((2, 3) * 5, dtype).transpose(9, 8, 7, 6, 5, 4, 3, 2, 1, 0)


I, J = np.array([[1], [0], [-1]]), np.array([1, -2, 0, 1])
# (array, indices, their dimensions): neighbours and apart, of arrays that are dense, transposed, cut, turned around,
# expanded, and of more axes than kernels have
LAYOUTS: list[tuple[str, Callable[[str], Any], tuple[Any, ...], tuple[int, ...]]] = [
    ("dense", lambda d: elements((2, 5, 3), d), (I % 2, J), (0, 2)),
    ("middle", lambda d: elements((4, 2, 5, 3, 6), d), (I % 2, J), (1, 3)),
    ("transposed", lambda d: elements((3, 5, 2), d).T, (I % 2, J), (0, 2)),
    ("neighbours", lambda d: elements((3, 2, 4, 5), d).transpose(3, 1, 0, 2), (I % 2, J), (1, 2)),
    ("one", lambda d: elements((8, 4, 6), d).transpose(1, 0, 2)[:, ::3], (J,), (1,)),
    ("turned", lambda d: elements((4, 6, 8), d)[::-1, 1:5, ::-2], (J, J), (0, 2)),
    ("wide", lambda d: elements((6, 7, 32), d)[:, 2:5, 16:], (J,), (1,)),
    ("first", lambda d: elements((3, 4, 16), d)[:, :, ::4], (J,), (0,)),
    ("axes", many_axes, (I % 2, J % 2), (1, 5)),
    ("three", lambda d: elements((2, 3, 4, 5, 3), d).swapaxes(1, 3), (I % 2, J, J), (0, 2, 4)),
    ("five", lambda d: elements((3,) * 6, d), (J, I, J, J % 3, I % 2), (0, 1, 2, 4, 5)),
    ("spread", lambda d: elements((3, 4, 3), d), (elements((2, 1, 2, 1, 2, 1), "int64") % 3,
                                                  elements((1, 3, 1, 2, 1, 2), "int64") % 3), (0, 2)),
    ("strided", lambda d: elements((3, 4, 3), d), (elements((6, 4), "int64")[::2].T % 3,), (2,)),
]  # fmt: skip
CASES = pytest.mark.parametrize(("make", "indices", "dims"), [row[1:] for row in LAYOUTS], ids=[r[0] for r in LAYOUTS])


def key_of(indices: tuple[Any, ...], dims: tuple[int, ...], ndim: int) -> tuple[Any, ...]:
    return tuple(indices[dims.index(d)] if d in dims else slice(None) for d in range(ndim))


@CASES
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "complex128"])
def test_reading(make: Any, indices: Any, dims: Any, dtype: str, indexing: Separated) -> None:
    x = make(dtype)
    for grid in (1, 3):
        indexing._kernels.grid = grid
        got = indexing.index(x, *indices, spec=dims)
        assert np.array_equal(got, x[key_of(indices, dims, x.ndim)])
    indexing._kernels.grid = 2


@CASES
@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex128"])
def test_writing(make: Any, indices: Any, dims: Any, dtype: str, indexing: Separated) -> None:
    got, want = make(dtype), make(dtype)
    key = key_of(indices, dims, want.ndim)
    shape = want[key].shape
    value = elements(shape, dtype, 1)
    rows = np.arange(want.size).reshape(want.shape)[key].reshape(-1)
    flat = want.copy()  # dense: one element after another
    for at, x in zip(rows, value.reshape(-1), strict=True):
        flat.reshape(-1)[at] = x
    assert indexing.index_put_into(got, value, *indices, spec=dims, accumulate=False) is got
    assert np.array_equal(got, flat)
    want[key] = value.reshape(-1)[0]
    for number in (value.reshape(-1)[:1], value.reshape(-1)[0].reshape(())):
        got = make(dtype)
        indexing.index_put_into(got, number, *indices, spec=dims, accumulate=False)
        assert np.array_equal(got, want)


@CASES
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_adding(make: Any, indices: Any, dims: Any, dtype: str, indexing: Separated) -> None:
    got, want = make(dtype), make(dtype)
    key = key_of(indices, dims, want.ndim)
    value = elements(want[key].shape[-1:], dtype, 1)
    np.add.at(want, key, value)
    found = []
    for grid in (1, 4):
        indexing._kernels.grid = grid
        got = make(dtype)
        found.append(indexing.index_put_into(got, value, *indices, spec=dims, accumulate=True))
    indexing._kernels.grid = 2
    assert np.array_equal(found[0], found[1]), "the bits depend on the grid"
    assert np.allclose(found[0], want, rtol=1e-6, atol=1e-5)


def test_neither_what_is_read_nor_what_is_written_is_copied(
    indexing: Separated, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = elements((64, 6, 5, 16), "float32").transpose(2, 1, 0, 3)[:, :, ::2]
    value = elements((4, 6, 16), "float32", 1)
    copied: list[int] = []
    dense = np.ascontiguousarray

    def noting(array: Any) -> Any:
        made = dense(array)
        if made is not array:
            copied.append(made.size)
        return made

    monkeypatch.setattr(np, "ascontiguousarray", noting)
    indexing.index(x, J, J + 1, spec=(0, 2))
    indexing.index_put_into(x, value, J, J + 1, spec=(0, 2), accumulate=False)
    indexing.index_put_into(x, value, J, J + 1, spec=(0, 2), accumulate=True)
    indexing.gather(x, np.zeros((5, 6, 32, 16), np.int64), dim=1)
    indexing.index_select(x, J % 5, dim=0)
    assert not copied


def test_units_are_as_wide_as_what_lies_together() -> None:
    groups = ((), (0, 2), (1, 3))
    wide = lying((4, 3, 5, 8), (480, 160, 32, 4), 4, groups, 16)
    assert wide is not None and (wide.unit, wide.rows, wide.inner) == (16, 20, 6)
    apart = lying((4, 3, 5, 8), (960, 320, 64, 8), 4, groups, 16)
    assert apart is not None and (apart.unit, apart.inner) == (4, 24)
    odd = lying((4, 3, 5, 8), (504, 168, 36, 4), 4, groups, 16)
    assert odd is not None and odd.unit == 4
    assert lying((2,) * 10, tuple(2**i for i in range(10)), 1, ((), (0,), tuple(range(1, 10))), 16) is None


def test_an_index_that_is_the_same_everywhere_names_slices(indexing: Separated) -> None:
    x, line = elements((4, 9, 5), "float32"), np.array([3, 0, 3, 8, 3])
    index = np.broadcast_to(line[:, None], (4, 5, 5))
    src = elements((4, 5, 5), "float32", 1)
    launched = indexing._kernels.launched
    del launched[:]
    assert np.array_equal(indexing.gather(x, index, dim=1), x[:, line])
    got, want = x.copy(), x.copy()
    np.add.at(want, (slice(None), line), src)
    assert np.allclose(indexing.scatter_add_into(got, index, src, dim=1), want, rtol=1e-6)
    got, want = x.copy(), x.copy()
    for p, row in enumerate(line):
        want[:, row] = src[:, p]
    assert np.array_equal(indexing.scatter_into(got, index, src, dim=1), want)
    got, want = x.copy(), x.copy()
    np.multiply.at(want, (slice(None), line), src)
    assert np.allclose(indexing.scatter_reduce_into(got, index, src, dim=1, reduce="prod"), want, rtol=1e-6)
    assert "places" not in launched and "gather_4" not in launched
    smaller = index[:2, :, :3]
    got, want = x.copy(), x.copy()
    np.add.at(want[:2, :, :3], (slice(None), line), src[:2, :, :3])
    assert np.allclose(indexing.scatter_add_into(got, smaller, src[:2, :, :3], dim=1), want, rtol=1e-6)


@pytest.mark.parametrize("wrong", [(2, 0), (0, 3), (-3, 0), (0, -4)])
def test_what_is_out_of_range_is_refused_before_anything_is_written(
    wrong: tuple[int, int], indexing: Separated
) -> None:
    x = elements((2, 5, 3), "float32")
    i, j = np.array([1, wrong[0], 0]), np.array([0, wrong[1], 2])
    dim = 0 if wrong[0] not in (0, 1) else 2
    for accumulate in (True, False):
        got = x.copy()
        with pytest.raises(IndexOutOfRange, match=f"index_put: index .* out of bounds for dimension {dim}"):
            indexing.index_put_into(got, x[0, 0, 0].reshape(1), i, j, spec=(0, 2), accumulate=accumulate)
        assert np.array_equal(got, x)
    with pytest.raises(IndexOutOfRange, match=f"index: index .* out of bounds for dimension {dim}"):
        indexing.index(x, i, j, spec=(0, 2))


# --- whole keys


def keys(device: str) -> Iterator[Any]:
    """For shape (2, 3, 4, 3)."""

    def index(*at: int) -> tg.Tensor:
        return tg.tensor(at, device=device)

    def mask(*holds: Any) -> tg.Tensor:
        return tg.tensor(holds, device=device) != 0

    i, j = index(1, 0, -1, 1), index(2, 0, 2, 0)[:, None]
    yield i % 2, slice(None), j
    yield slice(None), i, slice(1, None), j
    yield 0, i, slice(None), j
    yield i % 2, None, j
    yield slice(None), mask(0, 1, 1)
    yield mask(1, 0), slice(None), slice(None, None, 2)
    yield mask([1, 0, 1], [0, 1, 1]), slice(None), i
    yield mask(1, 0), slice(None), mask(0, 0, 1, 0)
    yield slice(None), mask(1, 0, 1), slice(0, 3), index(2)
    yield ..., mask(0, 1, 1)
    yield slice(None), mask(0, 0, 0)


def test_keys_of_indices_masks_and_slices() -> None:
    def script(device: str, dtype: Any, show: Shown) -> None:
        lying: list[Callable[[Any], Any]] = [
            lambda x: x.clone(), lambda x: x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2),
            lambda x: tg.stack((x, x), dim=-1)[..., 1],
        ]  # fmt: skip
        start = (tg.arange(72, device=device).to(dtype) * 0.37).sin().reshape(2, 3, 4, 3)
        for key in keys(device):
            for laid in lying:
                x = laid(start).detach().requires_grad_()
                y = x[key]
                (gradient,) = tg.autograd.grad((y * y.detach().cos()).sum(), [x], create_graph=True)
                show(y.detach(), gradient.detach())
                for value in (tg.ones((), device=device, dtype=dtype), y.detach().cos(), y.detach()[:1].sin()):
                    if value.ndim and not value.numel():
                        continue
                    source = value.detach().requires_grad_()
                    made = laid(x * 1.0)
                    made[key] = source
                    show(made.detach(), *tg.autograd.grad((made * made).sum(), [x, source]))
                    unrecorded = laid(start)
                    unrecorded[key] = value
                    show(unrecorded)

    on_both(script)
