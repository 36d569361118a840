"""Kernels of conv.cu, run on the CPU, and the convolutions made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends import cudnn as permissions
from tensorgrad.backends.cupy import conv_kernels
from tensorgrad.backends.cupy.kernels import SOURCES, Kernels
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import BackendError
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import REFERENCES, StrictCupyBackend

from .convolutions import LAYERS, TOLERANCE, Host, Layer, random_layers
from .host_compiler import compile_for_host

SOURCE = next(source for source in SOURCES if source.file == "conv.cu")
DTYPES = ("float32", "float64", "float16", "bfloat16")
BY_TEXT = ("_float32", "_bfloat16")


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    names = [name for name in SOURCE.names if name.endswith(BY_TEXT)]
    text = SOURCE.text()
    for line in ("EACH(float64, double)", "EACH(float16, __half)"):  # which differ in their conversions only
        assert line in text
        text = text.replace(line, "")
    return dict(zip(names, compile_for_host(text, *names), strict=True))


class TextKernels(Kernels):
    """Kernels of conv.cu by their text; a small grid, which goes round."""

    def __init__(self, compiled: dict[str, Any], grid: int):
        super().__init__(np)
        self.compiled, self.grid, self.used = compiled, grid, set[str]()

    def launch(self, name: str, threads: int, *arguments: Any) -> None:
        self.used.add(name)
        host = [x._host if isinstance(x, StrictArray) else np.int64(x) if isinstance(x, int) else x for x in arguments]
        self.compiled[name]((self.grid,), (64,), tuple(host))


@pytest.fixture
def backend() -> StrictCupyBackend:
    made = StrictCupyBackend()
    made._cudnn = None  # type: ignore[assignment]
    return made


def results(backend: StrictCupyBackend, layer: Layer, dtype: str) -> list[Any]:
    x, w, g = map(StrictArray, layer.arrays(dtype))
    return [
        backend.raw.conv(x, w, None, **layer.how).get(),
        backend.raw.conv_input_grad(g, w, input_shape=layer.image, **layer.how).get(),
        backend.raw.conv_weight_grad(g, x, weight_shape=layer.weight, **layer.how).get(),
    ]


def assert_right(got: list[Any], layer: Layer, dtype: str) -> None:
    for mine, want in zip(got, layer.expected(dtype), strict=True):
        assert mine.dtype == numpy_dtype(dtype) and mine.shape == want.shape
        off = np.abs(mine.astype(np.float64) - want).max()
        assert off <= TOLERANCE[dtype] * np.abs(want).max()


@pytest.mark.parametrize("dtype", [name[1:] for name in BY_TEXT])
def test_kernels_by_their_text(
    dtype: str, backend: StrictCupyBackend, compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = set()
    for room in (conv_kernels._COLUMNS, 2000):  # the second makes tiles of a sample, or of a few
        monkeypatch.setattr(conv_kernels, "_COLUMNS", room)
        for layer in LAYERS:
            got = []
            for grid in (1, 3)[: 2 if room > 2000 else 1]:
                backend._kernels = TextKernels(compiled, grid)
                got.append(results(backend, layer, dtype))
                used |= backend._kernels.used
            assert_right(got[0], layer, dtype)
            for a, b in zip(got[0], got[-1], strict=True):
                assert np.array_equal(a, b), "the bits depend on the grid"
    wide = {"unfold_float32"} if numpy_dtype(dtype).itemsize == 2 else set()  # sums of several tiles
    assert used == {name for name in SOURCE.names if name.endswith(f"_{dtype}")} | wide


def test_kernels_on_any_geometry(
    backend: StrictCupyBackend, compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend._kernels = TextKernels(compiled, 2)
    for i, layer in enumerate(random_layers(30, seed=1)):
        monkeypatch.setattr(conv_kernels, "_COLUMNS", (128 << 20, 500)[i % 2])
        monkeypatch.setattr(conv_kernels, "_THIN", (8, 0)[i // 2 % 2])
        assert_right(results(backend, layer, "float32"), layer, "float32")


def test_an_unaligned_row_of_columns(compiled: dict[str, Any]) -> None:
    layer = LAYERS[3]
    x, _, _ = layer.arrays("float32")
    windows = conv_kernels._windows(x.shape[2:], (1, 1), (5, 4), layer.how)
    for offset in (0, 1):
        room, want = np.full(x.size + 4, np.nan, np.float32), np.empty(x.size, np.float32)
        arguments = [3, 16, 16 * 20, 20, 0, 20, x]
        compiled["unfold_float32"]((1,), (64,), (*windows, *map(np.int64, arguments[:-1]), x, room[offset:]))
        REFERENCES["unfold_float32"](*windows, *arguments, want)
        assert np.array_equal(room[offset : offset + x.size], want)
        assert np.isnan(room[offset + x.size :]).all() and np.isnan(room[:offset]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_references(dtype: str, backend: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, layer in enumerate([*LAYERS, *random_layers(10, seed=2)]):
        monkeypatch.setattr(conv_kernels, "_COLUMNS", (128 << 20, 1000)[i % 2])
        assert_right(results(backend, layer, dtype), layer, dtype)


def test_tiles_cover_everything_once() -> None:
    def covered(*arguments: int) -> Iterator[tuple[int, int]]:
        for (at, end), (first, last) in conv_kernels._tiles(*arguments):
            yield from ((n, p) for n in range(at, end) for p in range(first, last))

    for samples, by_position, positions in ((3, 1, 4), (5, 40 << 20, 3), (4, 1 << 30, 2), (70, 2 << 20, 1)):
        want = [(n, p) for n in range(samples) for p in range(positions)]
        assert sorted(covered(samples, by_position, positions)) == want


def test_a_bias_and_other_types(backend: StrictCupyBackend) -> None:
    layer = LAYERS[2]
    x, w, _ = layer.arrays("float32")
    b = np.arange(4, dtype=np.float32)
    got = backend.raw.conv(*map(StrictArray, (x, w, b)), **layer.how).get()
    assert np.allclose(got, layer.expected("float32")[0] + b.reshape(4, 1, 1), atol=1e-4)
    for dtype in (np.int64, np.complex64):  # by the generic kernels
        a, c = (np.round(y * 3).astype(dtype) for y in (x, w))
        got = backend.raw.conv(StrictArray(a), StrictArray(c), None, **layer.how).get()
        assert got.dtype == dtype
        assert np.allclose(got, Host().conv(a, c, None, **layer.how))


def test_without_the_library_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise BackendError("cuDNN was not found (No such file); pip install 'tensorgrad[cuda]' brings it.")

    monkeypatch.setattr(conv_kernels, "load", missing)
    backend = StrictCupyBackend()
    del backend._cudnn
    x, w, _ = map(StrictArray, LAYERS[2].arrays("float32"))
    with pytest.warns(
        UserWarning, match=r"^cuDNN is not used: .*pip install 'tensorgrad\[cuda\]'.*own kernels"
    ) as seen:
        for _ in range(3):
            backend.raw.conv(x, w, None, **LAYERS[2].how)
    assert len(seen) == 1 and "\n" not in str(seen[0].message)


def test_the_switch_chooses_our_kernels() -> None:
    backend = StrictCupyBackend()
    asked = []
    backend._cudnn.plan = lambda what: asked.append(what)  # type: ignore[method-assign, assignment, func-returns-value]
    x, w, _ = map(StrictArray, LAYERS[2].arrays("float32"))
    want = backend.raw.conv(x, w, None, **LAYERS[2].how).get()
    assert len(asked) == 1
    with permissions.flags(enabled=False):
        got = backend.raw.conv(x, w, None, **LAYERS[2].how).get()
    assert len(asked) == 1 and np.array_equal(got, want)
