"""Attention's kernels on the CPU: tensor cores lane by lane, tiles that threads share, against float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends import registry
from tensorgrad.backends.cupy import attention_kernels
from tensorgrad.backends.cupy.attention_kernels import CupyAttention, _apart
from tensorgrad.backends.cupy.kernels import SOURCES, Kernels, _word
from tensorgrad.backends.cupy.random_kernels import CupyRandomKernels
from tensorgrad.backends.generic.attention import AttentionKernels
from tensorgrad.backends.generic.reduce import ReduceKernels
from tensorgrad.backends.generic.shape import ShapeKernels
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.random import Generator

from .fenced import Fenced
from .host_compiler import compile_for_host

SOURCE = next(source for source in SOURCES if source.file == "attention.cu")
DIGITS = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


class HostKernels(Kernels):
    """The kernels that g++ makes, on a grid that leaves some blocks more than one turn."""

    blocks = 3
    defines: tuple[str, ...] = ()

    def launch(self, name: str, threads: int, *arguments: Any, block: int = 256) -> None:
        values = [_word(x) if isinstance(x, int) else x for x in arguments]
        unit, family = name.partition("_")[2], "dropped" if name.startswith("dropped") else "attention"
        kernel = _compiled(family, unit, self.defines)[name]
        kernel((min(-(-threads // block), self.blocks),), (block,), tuple(values))


@cache
def _compiled(family: str, unit: str, defines: tuple[str, ...]) -> dict[str, Any]:
    source = SOURCE.part(*[name for name in SOURCE.names if name.startswith(family) and name.endswith(unit)])
    return dict(zip(source.names, compile_for_host(source.text(), *source.names, defines=defines), strict=True))


class Host(CupyAttention, CupyRandomKernels, ShapeKernels, ReduceKernels):  # type: ignore[misc]
    """The backend's attention without cuDNN, with NumPy's arrays in CuPy's place."""

    xp = np
    _cudnn = None

    def __init__(self) -> None:
        self._kernels = HostKernels(np)


class Reference(AttentionKernels, ShapeKernels, ReduceKernels):  # type: ignore[misc]
    xp = np


def drawn(shape: tuple[int, ...], dtype: str, rng: Any) -> Any:
    return rng.normal(size=shape).astype(numpy_dtype(dtype))


def check(
    dtype: str, q: Any, k: Any, v: Any, g: Any, mask: Any = None, *, causal: bool = False, scale: float | None = None
) -> None:
    how = {"causal": causal, "scale": q.shape[-1] ** -0.5 if scale is None else scale}
    host, needs = Host(), (True, True, True, False)
    wide = [x.astype(np.float64) for x in (q, k, v, g)]
    far = mask if mask is None or mask.dtype == bool else mask.astype(np.float64)
    out, lse = host.attention(q, k, v, mask, **how)
    want, want_lse = Reference().attention(*wide[:3], far, **how)
    close(out, want, DIGITS[dtype], "out")
    close(lse, want_lse, 2e-6 if dtype == "float32" else 1e-5, "lse")
    got = host.attention_backward(g, q, k, v, mask, out, lse, **how, needs=needs)
    slopes = Reference().attention_backward(wide[3], *wide[:3], far, want, want_lse, **how, needs=needs)
    for name, one, other in zip(("q", "k", "v"), got, slopes, strict=False):
        close(one, other, 2 * DIGITS[dtype], f"the gradient in {name}")


def close(got: Any, want: Any, digits: float, what: str) -> None:
    assert got.shape == want.shape, what
    got = got.astype(np.float64)
    assert np.array_equal(np.isfinite(got), np.isfinite(want)), what
    finite = np.isfinite(want)
    size = max(1.0, float(np.abs(want[finite]).max(initial=0)))
    assert float(np.abs(got[finite] - want[finite]).max(initial=0)) <= digits * size, what
    assert np.array_equal(got[~finite], want[~finite], equal_nan=True), what


# (batch, queries, keys, width, width of values): less than a tile, just tiles, more; widths that fill a part
SHAPES = [((1,), 70, 90, 64, 64), ((), 5, 3, 7, 3), ((2, 1), 64, 128, 40, 64)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_attention_and_its_gradients(dtype: str, shape: Any, causal: bool) -> None:
    batch, queries, keys, width, value_width = shape
    rng = np.random.default_rng(width)
    q, k = drawn((*batch, queries, width), dtype, rng), drawn((*batch, keys, width), dtype, rng)
    v, g = drawn((*batch, keys, value_width), dtype, rng), drawn((*batch, queries, value_width), dtype, rng)
    check(dtype, q, k, v, g, causal=causal)


def inputs(batch: tuple[int, ...], queries: int, keys: int, width: int, dtype: str, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [drawn((*batch, length, width), dtype, rng) for length in (queries, keys, keys, queries)]


@pytest.mark.parametrize("width", [128, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_wide_heads(dtype: str, width: int) -> None:
    check(dtype, *inputs((1,), 33, 70, width, dtype), causal=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_widths_between_those_of_kernels(dtype: str) -> None:
    """Kernels of the widest heads keep some columns of rows in registers and others in tiles: either may be missing."""
    rng = np.random.default_rng(9)
    for width, value_width in ((24, 200), (130, 17)):
        q, k = drawn((2, 35, width), dtype, rng), drawn((2, 41, width), dtype, rng)
        v, g = drawn((2, 41, value_width), dtype, rng), drawn((2, 35, value_width), dtype, rng)
        check(dtype, q, k, v, g, rng.random((35, 41)) < 0.7)


# ---- dropout


def check_dropout(
    dtype: str, q: Any, k: Any, v: Any, g: Any, mask: Any = None, *, causal: bool = False, p: float = 0.3
) -> None:
    """Against the ops that it is made of, in float64 on the CPU: the same numbers are drawn."""
    how = {"causal": causal, "scale": q.shape[-1] ** -0.5, "p": p}
    needs, exact = (True, True, True, False), registry.get("numpy").raw
    generators = [Generator().manual_seed(2**63 + 11) for _ in range(2)]
    wide = [x.astype(np.float64) for x in (q, k, v, g)]
    for draw in range(2):
        out, lse, place = Host().attention_dropout(q, k, v, mask, **how, generator=generators[0])
        want, want_lse, want_place = exact.attention_dropout(*wide[:3], mask, **how, generator=generators[1])
        assert place.tolist() == want_place.tolist() == [11 - 2**63, draw]
    assert generators[0].take() == generators[1].take() == (2**63 + 11, 2)
    close(out, want, 2 * DIGITS[dtype], "out")
    close(lse, want_lse, 2e-6 if dtype == "float32" else 1e-5, "lse")
    got = Host().attention_dropout_backward(g, q, k, v, mask, out, lse, place, **how, needs=needs)
    slopes = exact.attention_dropout_backward(wide[3], *wide[:3], mask, want, want_lse, place, **how, needs=needs)
    for name, one, other in zip(("q", "k", "v"), got, slopes, strict=False):
        close(one, other, 4 * DIGITS[dtype], f"the gradient in {name}")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape", [((3,), 70, 90, 64), ((), 5, 3, 7), ((2, 2), 64, 130, 40), ((1,), 33, 70, 128)], ids=str
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dropout_draws_the_masks_of_the_cpu(dtype: str, shape: Any, causal: bool) -> None:
    batch, queries, keys, width = shape
    check_dropout(dtype, *inputs(batch, queries, keys, width, dtype), causal=causal)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dropout_in_the_widest_heads(dtype: str) -> None:
    check_dropout(dtype, *inputs((2,), 37, 41, 200, dtype), causal=True)


@pytest.mark.parametrize("enough", [1, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dropout_where_heads_share_keys(dtype: str, enough: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_kernels, "_ENOUGH_BLOCKS", enough)
    rng = np.random.default_rng(11)
    q, g = drawn((2, 6, 20, 16), dtype, rng), drawn((2, 6, 20, 16), dtype, rng)
    k, v = drawn((2, 2, 31, 16), dtype, rng), drawn((2, 2, 31, 16), dtype, rng)
    check_dropout(dtype, q, k, v, g, rng.random((6, 1, 31)) < 0.8)


def test_all_or_hardly_any_weights_are_dropped() -> None:
    q, k, v, g = inputs((1,), 20, 30, 16, "float32")
    for p in (1.0, 1e-9, 0.999):
        check_dropout("float32", q, k, v, g, p=p)


def test_the_place_may_be_in_device_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = inputs((1,), 20, 30, 16, "bfloat16")
    how = {"causal": False, "scale": 0.25, "p": 0.4}
    want = Host().attention_dropout(q, k, v, None, **how, generator=Generator().manual_seed(9))
    there = (1, 2, np.array([9, 0], np.uint64))  # as a graph's kernels are told; the other numbers are not looked at
    monkeypatch.setattr(Host, "_place", lambda self, count, generator: there)
    got = Host().attention_dropout(q, k, v, None, **how, generator=None)
    for one, other in zip(got, want, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("mask", [(2, 2, 20, 40), (2, 1, 40), (20, 1), (2, 1, 1, 40)], ids=str)
@pytest.mark.parametrize("kind", ["bool", "float32"])
def test_masks_that_broadcast(kind: str, mask: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    given = rng.random(mask) < 0.7 if kind == "bool" else drawn(mask, kind, rng)
    check("float32", *inputs((2, 2), 20, 40, 8, "float32"), given, causal=mask == (20, 1))


def test_queries_that_look_nowhere_and_infinite_scores() -> None:
    q, k, v, g = inputs((), 70, 80, 16, "bfloat16")
    mask = np.ones((70, 80), bool)
    mask[[0, 15, 69]] = False
    mask[3, :64] = mask[4, 1:] = False  # nothing in the first tile; nothing behind the first key
    check("bfloat16", q, k, v, g, mask)
    added = np.where(mask, 0, -np.inf).astype(numpy_dtype("bfloat16"))
    check("bfloat16", q, k, v, g, added)
    for bad in (np.inf, np.nan):
        added[7, 70] = bad
        out, lse = Host().attention(q, k, v, added, causal=False, scale=0.25)
        assert np.isnan(out[7].astype(np.float32)).all() and np.isfinite(out[8].astype(np.float32)).all()
        assert np.array_equal(lse[7], np.float32(bad), equal_nan=True)


def test_arrays_stay_where_they_lie() -> None:
    rng = np.random.default_rng(5)
    packed = drawn((1, 20, 3, 4, 16), "bfloat16", rng)  # (batch, length, which, heads, width)
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    g = drawn((1, 20, 4, 16), "bfloat16", rng).swapaxes(1, 2)
    assert all(x is y for x, y in zip(Host()._laid_out((q, k, v, g), None)[0], (q, k, v, g), strict=True))
    check("bfloat16", q, k, v, g, causal=True)
    # from an odd offset, backwards, with heads shared by groups of queries: a step of 0
    odd = drawn((1, 4, 21, 17), "bfloat16", rng)[:, :, :0:-1, 1:]
    shared = np.broadcast_to(drawn((1, 2, 1, 20, 16), "bfloat16", rng), (1, 2, 2, 20, 16))
    check("bfloat16", odd.reshape(1, 2, 2, 20, 16), shared, shared, g.reshape(1, 2, 2, 20, 16))
    # more axes than three that no step leads over, and elements that do not lie side by side
    many = drawn((2, 2, 2, 2, 16, 12), "float32", rng).transpose(3, 1, 0, 2, 5, 4)
    check("float32", many, many, many, many, np.ones((2, 1, 2, 1, 12, 1), bool))


@pytest.mark.parametrize("enough", [1, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_heads_share_keys_where_they_lie(dtype: str, enough: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are summed over them within the kernel, or made for each and added up."""
    monkeypatch.setattr(attention_kernels, "_ENOUGH_BLOCKS", enough)
    rng = np.random.default_rng(7)
    packed = drawn((2, 70, 8, 16), dtype, rng)  # (batch, length, 4 heads of queries, 2 of keys, 2 of values; width)
    q, k, v = (packed[:, :, at:end].swapaxes(1, 2) for at, end in ((0, 4), (4, 6), (6, 8)))
    views, _ = _apart(np, (q, k, v), None)
    assert all(np.shares_memory(x, packed) for x in views)
    g = drawn((2, 4, 70, 16), dtype, rng)
    check(dtype, q, k, v, g, causal=True)
    check(dtype, q[:, :, :50], k[:, :1], v[:, :1], g[:, :, :50])
    for shape in ((70, 70), (2, 1, 1, 70), (4, 1, 70), (2, 4, 70, 70)):
        check(dtype, q, k, v, g, rng.random(shape) < 0.8)


def test_bits_depend_neither_on_the_grid_nor_on_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, g = inputs((2,), 70, 80, 16, "bfloat16")
    seen = []
    for blocks in (1, 100):
        monkeypatch.setattr(HostKernels, "blocks", blocks)
        out, lse = Host().attention(q, k, v, None, causal=True, scale=0.25)
        needs = (True, True, True, False)
        grads = Host().attention_backward(g, q, k, v, None, out, lse, causal=True, scale=0.25, needs=needs)
        seen.append([x.tobytes() for x in (out, lse, *grads[:3])])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("length", [1, 7, 63, 65, 129])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_arrays_that_end_where_their_memory_does(dtype: str, length: int) -> None:
    """Reading or writing beside them stops the process; the last thread of a block going first finds the same."""
    rng = np.random.default_rng(length)
    for width, value_width in ((8, 8), (9, 64), (length, 200)):
        q, k = (drawn((2, n, width), dtype, rng) for n in (length, 70))
        v, g = drawn((2, 70, value_width), dtype, rng), drawn((2, length, value_width), dtype, rng)
        mask = drawn((length, 70), dtype, rng)
        found = []
        for at_end, defines in ((True, ()), (False, ("TG_BACKWARDS",))):
            host, xp = Host(), Fenced(at_end)
            host.xp, host._kernels.defines = xp, defines
            slope, *given = [xp.copy(x) for x in (g, q, k, v, mask)]
            out, lse = host.attention(*given, causal=False, scale=0.3)
            needs = (True, True, True, False)
            slopes = host.attention_backward(slope, *given, out, lse, causal=False, scale=0.3, needs=needs)
            found.append([x.tobytes() for x in (out, lse, *slopes[:3])])
        assert found[0] == found[1]
        check(dtype, q, k, v, g, mask, scale=0.3)


def test_only_what_is_needed_is_given() -> None:
    q, k, v, g = inputs((1,), 5, 6, 8, "float32")
    mask = np.zeros((5, 6), np.float32)
    out, lse = Host().attention(q, k, v, mask, causal=False, scale=0.3)
    for needs in ((True, False, False, True), (False, True, False, False), (False, False, True, False)):
        got = Host().attention_backward(g, q, k, v, mask, out, lse, causal=False, scale=0.3, needs=needs)
        want = Reference().attention_backward(g, q, k, v, mask, out, lse, causal=False, scale=0.3, needs=needs)
        for needed, one, other in zip(needs, got, want, strict=True):
            assert (one is not None) == needed
            if needed:
                close(one, other, 4e-6, "a gradient")


def test_devices_without_these_tensor_cores_shuffle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostKernels, "defines", ("TG_WITHOUT_TENSOR_CORES",))
    q, k, v, _ = inputs((), 20, 30, 16, "float16")
    out, lse = Host().attention(q, k, v, None, causal=True, scale=0.25)
    want, want_lse = Reference().attention(q, k, v, None, causal=True, scale=0.25)
    close(out, want, DIGITS["float16"], "out")
    close(lse, want_lse, 1e-5, "lse")
