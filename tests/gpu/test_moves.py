"""Copies and conversions: the kernels of move.cu on the CPU by the backend's own Python, and which of them is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends.cupy.kernels import SOURCES
from tensorgrad.backends.cupy.move_kernels import CupyMoves, move
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import ShapeError
from tensorgrad.testing.strict_backend import strict_cuda

from .host_kernels import HostKernels

KERNELS = next(source.names for source in SOURCES if source.file == "move.cu")
DTYPES = ("int8", "bfloat16", "float32", "complex64", "complex128")


class HostMoves(CupyMoves):
    xp = np

    def __init__(self) -> None:
        self._kernels = self.host = HostKernels(*KERNELS)

    def _address(self, x: Any) -> int:
        return int(x.ctypes.data)


@pytest.fixture(scope="module")
def moves() -> HostMoves:
    return HostMoves()


def elements(shape: tuple[int, ...], dtype: str) -> Any:
    drawn = np.random.default_rng(sum(shape)).integers(-100, 100, shape)
    return drawn.astype(numpy_dtype(dtype))


# by what is to be copied: the kernel that it takes for float32
VIEWS: dict[str, tuple[Any, str]] = {
    "a matrix turned": (lambda: elements((70, 131), "int8").T, "turn_4"),
    "the last two axes": (lambda: elements((2, 3, 40, 33), "int8").transpose(0, 1, 3, 2), "turn_4"),
    "first and last": (lambda: elements((33, 3, 65), "int8").transpose(2, 1, 0), "turn_4"),
    "channels last": (lambda: elements((2, 20, 5, 7), "int8").transpose(0, 2, 3, 1), "turn_4"),
    "columns of a turned part": (lambda: elements((70, 131), "int8")[3:41, 5:91].T, "turn_4"),
    "heads": (lambda: elements((2, 5, 3, 8), "int8").transpose(0, 2, 1, 3), "move_16"),
    "odd heads": (lambda: elements((2, 5, 3, 7), "int8").transpose(0, 2, 1, 3), "move_4"),
    "pairs": (lambda: elements((4, 5, 10), "int8")[:, 1:, 2:8], "move_8"),
    "few rows turned": (lambda: elements((5, 131), "int8").T, "move_4"),
    "steps": (lambda: elements((40, 40), "int8")[::2, ::3], "move_4"),
    "backwards": (lambda: elements((40, 40), "int8")[::-1, ::-1], "move_4"),
    "one row for all": (lambda: np.broadcast_to(elements((1, 40), "int8"), (9, 40)), "move_16"),
    "one column for all": (lambda: np.broadcast_to(elements((40, 1), "int8"), (40, 33)), "move_4"),
    "one element": (lambda: np.broadcast_to(elements((1, 1), "int8"), (4, 4)), "move_4"),
}


def like(view: Any, dtype: str) -> Any:
    """The view's elements in another dtype, lying in the same way."""
    whole = view if view.base is None else view.base
    while whole.base is not None:
        whole = whole.base
    item, made = numpy_dtype(dtype).itemsize, whole.astype(numpy_dtype(dtype))
    first = (view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) * item
    return np.ndarray(view.shape, made.dtype, made, first, tuple(step * item for step in view.strides))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VIEWS)
def test_copies_are_dense_and_have_the_same_bits(name: str, dtype: str, moves: HostMoves) -> None:
    x = like(VIEWS[name][0](), dtype)
    made = moves.contiguous_copy(x)
    assert made.flags.c_contiguous and made.dtype == x.dtype and made.tobytes() == x.tobytes()
    if dtype == "float32" and moves._address(x) % 16 == 0:
        assert moves.host.launched[-1] == VIEWS[name][1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VIEWS)
def test_what_is_written_over_a_part_leaves_the_rest(name: str, dtype: str, moves: HostMoves) -> None:
    x = like(VIEWS[name][0](), dtype)
    for lay in (lambda a: a[1:-1], lambda a: a[..., 2:-1], lambda a: a[::2], lambda a: np.swapaxes(a, 0, -1)):
        target = lay(np.zeros((*[n + 3 for n in x.shape[:-1]], 2 * x.shape[-1] + 3), x.dtype))
        target = target[tuple(slice(0, min(m, n)) for m, n in zip(target.shape, x.shape, strict=True))]
        part = x[tuple(slice(0, n) for n in target.shape)]
        whole = target if target.base is None else target.base
        want = part.tobytes()
        assert moves.copy_into(target, part) is target
        assert target.tobytes() == want
        assert np.count_nonzero(whole) == np.count_nonzero(part)


def test_whatever_lies_wherever(moves: HostMoves) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(rng.integers(1, 40, rng.integers(1, 5)).tolist())
        dtype = DTYPES[rng.integers(len(DTYPES))]
        whole = elements(tuple(n * 2 for n in shape), dtype) if np.prod(shape) < 20_000 else elements(shape, dtype)
        x = whole.transpose(rng.permutation(len(shape)))
        x = x[tuple(slice(int(rng.integers(0, 2)), None, int(rng.choice((1, 1, 2, -1)))) for _ in shape)]
        if not x.size:
            continue
        turn = rng.permutation(x.ndim)
        target = np.empty([x.shape[i] for i in turn], x.dtype).transpose(np.argsort(turn))
        moves.copy_into(target, x)
        assert target.tobytes() == x.tobytes(), (x.shape, x.strides, target.strides)


def test_what_the_kernels_do_not_take_is_left_to_cupy() -> None:
    assert move((2,) * 9, tuple(4**k for k in range(9)), tuple(4**k for k in reversed(range(9))), 1, 16) is None
    assert move((2, 2), (10, 5), (8, 4), 4, 16) is None  # steps of no whole elements


def test_too_many_axes_and_no_elements(moves: HostMoves) -> None:
    x = np.arange(3**9, dtype=np.int16).reshape((3,) * 9)[:, ::2, :, ::2, :, ::2, :, ::2, :]
    target = np.zeros_like(x).T
    before = len(moves.host.launched)
    assert moves.contiguous_copy(x.T).tobytes() == x.T.tobytes()
    assert moves.copy_into(target, x.T).tobytes() == x.T.tobytes()
    assert moves.copy_into(np.zeros((0, 3)), np.zeros((1, 3))).shape == (0, 3)
    assert moves.copy_into(x, x[:, ::-1]) is x  # of one memory
    assert len(moves.host.launched) == before


def test_sizes_of_more_than_2_to_the_31_elements_keep_their_steps() -> None:
    side = 70_000
    found = move((side, side), (2, 2 * side), (2 * side, 2), 2, 16)
    assert found is not None and found.name == "turn_2" and found.sides == (side, side, side, side)
    tall = move((side, side), (4 * side, 2), (2 * side, 2), 2, 16)
    assert tall is not None and (tall.name, tall.count, tall.threads) == ("move_16", side * side // 8, side * side // 8)
    assert tall.way["from"][:2].tolist() == [2 * side // 8, 1]


LAYS = (lambda a: a, lambda a: a.transpose(0, 2), lambda a: a[:, ::2], lambda a: a[2:2], lambda a: a[1, 2, 3])
FLOATS = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("source", (*FLOATS, "bool", "uint8", "int8", "int16", "int32", "int64"))
def test_conversions_round_once_and_keep_how_an_array_lies(source: str, target: str) -> None:
    if source == target:
        return  # nothing is converted
    x = np.random.default_rng(0).normal(size=(6, 5, 4)) * (10_000 if "float16" in (source, target) else 70_000)
    x = x.astype(numpy_dtype(source)) if source in FLOATS else (x % 100 * 1e7).astype(np.int64).astype(source)
    with strict_cuda(), np.errstate(over="ignore"):
        there = tg.tensor(x, device="cuda")
        for lay in LAYS:
            got = lay(there).to(getattr(tg, target))
            # of a view's elements: NumPy's order "K", which rounds once
            want = lay(tg.tensor(x))._data.astype(numpy_dtype(target))
            assert got.stride() == tuple(step // want.itemsize for step in want.strides) or want.size == 0
            assert got.cpu().numpy(force=True).tobytes() == want.tobytes()


def test_no_element_lies_across_the_multiples_of_its_size() -> None:
    """Kernels read a complex number, or whatever else there is, at once: what begins in its midst ends the process."""
    whole = tg.arange(9.0).reshape(9)
    with strict_cuda():
        x = whole.cuda()
        shared = tg.from_dlpack(x[1:])  # whose base is not known
        for odd in (x[1:], shared):
            with pytest.raises(ShapeError, match="view_as_complex: Tensor must have a storage_offset divisible by 2"):
                tg.view_as_complex(odd.reshape(4, 2))
            for dtype in (tg.complex64, tg.float64, tg.int64):
                with pytest.raises(ShapeError, match=r"must be divisible by 2 to view float32 as \w+64"):
                    odd.view(dtype)
            assert odd.view(tg.uint8).shape == (32,) and odd.view(tg.int32).shape == (8,)
        with pytest.raises(ShapeError, match="divisible by 2"):
            tg.func.vmap(lambda row: tg.view_as_complex(row[1:].reshape(1, 2)))(x.reshape(3, 3))
        assert tg.view_as_complex(x[2:8].reshape(3, 2)).tolist() == [2 + 3j, 4 + 5j, 6 + 7j]
        assert x[2:8].view(tg.complex64).tolist() == [2 + 3j, 4 + 5j, 6 + 7j]
        assert tg.view_as_complex(x[9:].reshape(0, 2)).shape == (0,) and x[9:].view(tg.complex64).shape == (0,)
