"""Norms and cross-entropy on device ``cuda``: the backend's Python with its very kernels, run on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy import loss_kernels, norm_kernels, row_kernels
from tensorgrad.backends.cupy.kernels import SOURCES, Kernels
from tensorgrad.backends.cupy.printer import source_file
from tensorgrad.backends.generic.loss import LossKernels
from tensorgrad.backends.generic.norm import NormKernels
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import IndexOutOfRange
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend

from .host_compiler import compile_for_host

FILES = [s for s in SOURCES if s.file.startswith("norm_") or s.file == "cross_entropy.cu"]
DIGITS = {"float32": 1.2e-6, "float64": 3e-15, "float16": 1e-3, "bfloat16": 8e-3}
EPS = 1e-5
ALL = (True, True, True)
_THREADS = 64  # of a block: two warps


class HostKernels(Kernels):
    """The kernels compiled for the CPU, on the arrays behind the stand-in's; few blocks, so that they go round."""

    def __init__(self, found: dict[str, Any], blocks: int = 3):
        super().__init__(None)
        self.found, self.blocks = found, blocks

    def launch(self, name: str, threads: int, *arguments: Any) -> None:
        def passed(x: Any) -> Any:
            if isinstance(x, StrictArray):
                assert x.flags.c_contiguous and x.data.ptr % 16 == 0
                return x._host
            return np.int64(x) if isinstance(x, int) else x

        self.found[name]((self.blocks,), (_THREADS,), tuple(map(passed, arguments)))


class Host(NormKernels, LossKernels):
    """The generic kernels, in float64: the truth."""

    xp = np


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    includes = dict.fromkeys(name for source in FILES for name in source.includes)
    lines = [line + "\n" for source in FILES for line, _ in source.instances]
    text = "\n".join([*map(source_file, includes), *(source_file(source.file) for source in FILES), *lines])
    names = [name for source in FILES for name in source.names]
    return dict(zip(names, compile_for_host(text, *names), strict=True))


def backend_of(found: dict[str, Any], blocks: int = 3) -> StrictCupyBackend:
    made = StrictCupyBackend()
    made._kernels = HostKernels(found, blocks)
    return made


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block a row, and several parts, also where there is little to add up."""
    monkeypatch.setattr(row_kernels, "_FOR_A_WARP", 128)
    monkeypatch.setattr(norm_kernels, "_LEAST_OF_A_PART", 1024)
    monkeypatch.setattr(loss_kernels, "_PART", 40)


@pytest.fixture
def backend(found: dict[str, Any]) -> StrictCupyBackend:
    return backend_of(found)


def drawn(seed: int, shape: tuple[int, ...], dtype: str, mean: float = 0.0) -> Any:
    return (np.random.default_rng(seed).normal(size=shape) + mean).astype(numpy_dtype(dtype))


def on_device(x: Any) -> Any:
    return StrictArray(x.copy()) if isinstance(x, np.ndarray) else x


def run(backend: StrictCupyBackend, op: str, inputs: tuple[Any, ...], **attrs: Any) -> tuple[Any, ...]:
    made = getattr(backend, op)(*map(on_device, inputs), **attrs)
    return tuple(x if x is None else x.get() for x in (made if isinstance(made, tuple) else (made,)))


def check(backend: StrictCupyBackend, op: str, inputs: tuple[Any, ...], size: float = 1.0, **attrs: Any) -> Any:
    """Compares what the kernels make with the generic kernel's in float64, where statistics are given also those."""
    got = run(backend, op, inputs, **attrs)
    wide = [x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind in "fV" else x for x in inputs]
    with np.errstate(all="ignore"):
        made = getattr(Host(), op)(*wide, **attrs)
    for mine, truth in zip(got, made if isinstance(made, tuple) else (made,), strict=True):
        assert (mine is None) == (truth is None)
        if truth is None:
            continue
        digits = DIGITS[{2: "float16", 4: "float32", 8: "float64"}[mine.dtype.itemsize]]
        digits = DIGITS["bfloat16"] if mine.dtype.name == "bfloat16" else digits
        limit = size * digits * max(1.0, float(np.abs(truth[np.isfinite(truth)]).max(initial=0)))
        assert mine.shape == truth.shape
        np.testing.assert_allclose(mine.astype(np.float64), truth, rtol=digits * size, atol=limit)
    return got


# a warp's rows in packs and more of them than groups, of odd length; a block's
ROWS = [("float32", (37, 24)), ("float32", (3, 7)), ("float32", (2, 150)), ("float32", (2, 152))]
ROWS += [(dtype, shape) for dtype in ("float64", "float16", "bfloat16") for shape in ((20, 40), (3, 7))]
# columns of odd number and in packs; planes of odd size, in packs, in several parts
CHANNELS = [("float32", s) for s in ((40, 6), (40, 8), (2, 3, 7, 5), (3, 2, 8, 4), (2, 1, 40, 30), (9, 12, 1, 1))]
CHANNELS += [
    (dtype, shape) for dtype in ("float64", "float16", "bfloat16") for shape in ((20, 16), (3, 4, 5), (2, 2, 16))
]


@pytest.mark.parametrize(("dtype", "shape"), ROWS, ids=str)
def test_norms_of_rows(dtype: str, shape: tuple[int, int], backend: StrictCupyBackend) -> None:
    x, g = drawn(0, shape, dtype, 0.5), drawn(1, shape, dtype)
    kept = "float32" if dtype == "bfloat16" else dtype  # parameters may be wider than the data
    w, b = drawn(2, shape[1:], kept), drawn(3, shape[1:], kept)
    _, mean, rstd = check(backend, "layer_norm", (x, w, b), 4, ndim=1, eps=EPS)
    check(backend, "layer_norm_backward", (g, x, mean, rstd, w), 16, ndim=1, needs=ALL)
    _, rstd = check(backend, "rms_norm", (x, w), 4, ndim=1, eps=EPS)
    check(backend, "rms_norm_backward", (g, x, rstd, w), 16, ndim=1, needs=(True, True))


def test_norms_of_rows_without_parameters_and_of_several_axes(backend: StrictCupyBackend) -> None:
    x, g, w = drawn(0, (5, 3, 4), "float32"), drawn(1, (5, 3, 4), "float32"), drawn(2, (3, 4), "float32")
    _, mean, rstd = check(backend, "layer_norm", (x, None, None), 4, ndim=2, eps=EPS)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        check(backend, "layer_norm_backward", (g, x, mean, rstd, None), 16, ndim=2, needs=needs)
    check(backend, "layer_norm", (x, None, w), 4, ndim=2, eps=EPS)
    check(backend, "rms_norm", (x, None), 4, ndim=3, eps=EPS)


def test_parameters_of_two_kinds_go_to_the_generic_kernel(backend: StrictCupyBackend) -> None:
    x, w, b = drawn(0, (3, 8), "float16"), drawn(1, (8,), "float32"), drawn(2, (8,), "float16")
    check(backend, "layer_norm", (x, w, b), 4, ndim=1, eps=EPS)
    check(backend, "batch_norm", (x, w, b), 4, eps=EPS)


@pytest.mark.parametrize(("dtype", "shape"), CHANNELS, ids=str)
def test_norms_of_channels(dtype: str, shape: tuple[int, ...], backend: StrictCupyBackend) -> None:
    x, g = drawn(0, shape, dtype, 0.5), drawn(1, shape, dtype)
    kept = "float32" if dtype == "bfloat16" else dtype
    w, b = drawn(2, shape[1:2], kept), drawn(3, shape[1:2], kept)
    _, mean, rstd, _ = check(backend, "batch_norm", (x, w, b), 4, eps=EPS)
    check(backend, "batch_norm_backward", (g, x, mean, rstd, w), 16, needs=ALL)
    for groups in {1, shape[1], 2 - shape[1] % 2}:
        if len(shape) == 2 and groups == shape[1]:
            continue  # a group of one element has no variance
        _, mean, rstd = check(backend, "group_norm", (x, w, b), 4, groups=groups, eps=EPS)
        check(backend, "group_norm_backward", (g, x, mean, rstd, w), 16, groups=groups, needs=ALL)


def test_norms_of_channels_without_parameters(backend: StrictCupyBackend) -> None:
    x, g = drawn(0, (2, 4, 6), "float32"), drawn(1, (2, 4, 6), "float32")
    _, mean, rstd, _ = check(backend, "batch_norm", (x, None, None), 4, eps=EPS)
    check(backend, "batch_norm_backward", (g, x, mean, rstd, None), 16, needs=(True, False, False))
    _, mean, rstd = check(backend, "group_norm", (x, None, None), 4, groups=2, eps=EPS)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        check(backend, "group_norm_backward", (g, x, mean, rstd, None), 16, groups=2, needs=needs)


def channel_parameters(channels: int, dtype: str) -> Any:
    """Weight, bias, mean and variance, the last two of the other kind of storage if there is one."""
    kept, given = ("float32", dtype) if dtype == "bfloat16" else (dtype, "float32" if dtype == "float16" else dtype)
    w, b, mean = (drawn(seed, (channels,), kept if seed < 4 else given) for seed in (2, 3, 4))
    return w, b, mean, (np.abs(drawn(5, (channels,), "float32")) + 0.5).astype(numpy_dtype(given))


def apart_from_zero(x: Any, w: Any, b: Any) -> Any:
    """x with nothing whose batch norm rounding could move to the other side of zero."""
    wide, column = x.astype(np.float64), (-1, *(1,) * (x.ndim - 2))
    axes = (0, *range(2, x.ndim))
    y = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + EPS)
    y = y if w is None else y * w.astype(np.float64).reshape(column)
    y = y if b is None else y + b.astype(np.float64).reshape(column)
    return np.abs(y) > 1e-2


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("dtype", "shape"), CHANNELS, ids=str)
def test_batch_norm_and_relu(dtype: str, shape: tuple[int, ...], affine: bool, backend: StrictCupyBackend) -> None:
    x, g = drawn(0, shape, dtype, 0.5), drawn(1, shape, dtype)
    w, b = channel_parameters(shape[1], dtype)[:2] if affine else (None, None)
    y, mean, rstd, variance, shift = run(backend, "batch_norm_relu", (x, w, b), eps=EPS)
    before, *statistics = run(backend, "batch_norm", (x, w, b), eps=EPS)
    assert np.array_equal(y.astype(np.float64), np.maximum(before.astype(np.float64), 0))
    assert all(np.array_equal(*pair) for pair in zip((mean, rstd, variance), statistics, strict=True))
    assert shift.dtype == mean.dtype and np.array_equal(shift, np.zeros(shape[1]) if b is None else b)
    # what nearly is zero gets no gradient: the reference may take it for positive
    g = np.where(apart_from_zero(x, w, b), g, np.zeros((), g.dtype)).astype(g.dtype)
    for needs in (ALL, (False, True, False), (True, False, True)):
        found = run(backend, "batch_norm_relu_backward", (g, x, mean, rstd, w, shift), needs=needs)
        passed = np.where(before.astype(np.float32) > 0, g, np.zeros((), g.dtype)).astype(g.dtype)
        want = run(backend, "batch_norm_backward", (passed, x, mean, rstd, w), needs=needs)
        assert [p is None for p in found] == [not needed for needed in needs]
        assert all(a is b or a.tobytes() == b.tobytes() for a, b in zip(found, want, strict=True))


def test_relu_of_a_norm_keeps_nan_and_passes_nothing_there(backend: StrictCupyBackend) -> None:
    x, g = drawn(0, (4, 3, 5), "float32"), drawn(1, (4, 3, 5), "float32")
    x[1, 2, 3] = np.nan
    y, mean, rstd, _, shift = run(backend, "batch_norm_relu", (x, None, None), eps=EPS)
    assert np.isnan(y[:, 2]).all() and (y[:, :2] >= 0).all()
    *_, gw, gb = run(backend, "batch_norm_relu_backward", (g, x, mean, rstd, None, shift), needs=(False, True, True))
    assert gb[2] == 0 and np.isnan(gw[2]) and np.isfinite(gw[:2]).all()


def given_in_float64(x: Any, w: Any, b: Any, mean: Any, var: Any, g: Any) -> tuple[Any, ...]:
    """y and the gradients in x, w, b, mean and var, in float64."""
    x, w, b, mean, var, g = (None if p is None else p.astype(np.float64) for p in (x, w, b, mean, var, g))
    column, axes = (-1, *(1,) * (x.ndim - 2)), (0, *range(2, x.ndim))
    rstd, weight = 1 / np.sqrt(var + EPS), np.ones_like(var) if w is None else w
    apart = x - mean.reshape(column)
    y = apart * (rstd * weight).reshape(column) + (0 if b is None else b.reshape(column))
    along, plain = (g * apart).sum(axes), g.sum(axes)
    to_x = g * (rstd * weight).reshape(column)
    return y, to_x, along * rstd, plain, -plain * rstd * weight, along * weight * rstd**3 * -0.5


def near(got: Any, truth: Any, size: float) -> None:
    digits = DIGITS[got.dtype.name]
    limit = size * digits * max(1.0, float(np.abs(truth).max()))
    np.testing.assert_allclose(got.astype(np.float64), truth, rtol=digits * size, atol=limit)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("dtype", "shape"), CHANNELS, ids=str)
def test_batch_norm_by_given_statistics(
    dtype: str, shape: tuple[int, ...], affine: bool, backend: StrictCupyBackend
) -> None:
    x, g = drawn(0, shape, dtype, 0.5), drawn(1, shape, dtype)
    w, b, mean, var = channel_parameters(shape[1], dtype)
    if not affine:
        w = b = None
    y, *grads = given_in_float64(x, w, b, mean, var, g)
    near(run(backend, "batch_norm_eval", (x, w, b, mean, var), eps=EPS)[0], y, 4)
    for needs in ((True,) * 5, (True, *(False,) * 4), (False, True, True, False, False), (False,) * 3 + (True, True)):
        found = run(backend, "batch_norm_eval_backward", (g, x, w, mean, var), eps=EPS, needs=needs)
        assert [p is None for p in found] == [not needed for needed in needs]
        stored = (x.dtype, *(x.dtype if w is None else w.dtype,) * 2, mean.dtype, var.dtype)
        for mine, truth, kind in zip(found, grads, stored, strict=True):
            if mine is not None:
                assert mine.dtype == kind and mine.shape == truth.shape
                near(mine, truth, 16)


def test_definitions_norm_nothing_and_by_parameters_of_two_kinds() -> None:
    backend = StrictCupyBackend()  # the definitions' kernels are other files'
    w = drawn(2, (3,), "float32")
    for shape in ((0, 3), (0, 3, 4), (2, 3, 0)):
        x = np.zeros(shape, np.float32)
        found = run(backend, "batch_norm_eval_backward", (x, x, w, w, w * w), eps=EPS, needs=(True,) * 5)
        assert found[0].shape == shape and all((p == 0).all() for p in found)
        assert run(backend, "batch_norm_eval", (x, w, w, w, w * w), eps=EPS)[0].shape == shape
        found = run(backend, "batch_norm_relu_backward", (x, x, w, w * w, w, w), needs=(False, True, True))
        assert found[0] is None and all((p == 0).all() for p in found[1:])
    x, g = drawn(0, (4, 3, 5), "float16"), drawn(1, (4, 3, 5), "float16")
    half = w.astype(np.float16)
    y, *grads = given_in_float64(x, w, half, half, w * w, g)
    near(run(backend, "batch_norm_eval", (x, w, half, half, w * w), eps=EPS)[0], y, 4)
    found = run(backend, "batch_norm_eval_backward", (g, x, w, half, w * w), eps=EPS, needs=(True,) * 5)
    for mine, truth in zip(found, grads, strict=True):
        near(mine, truth, 16)
    y, *_, shift = run(backend, "batch_norm_relu", (x, w, half), eps=EPS)
    near(y, np.maximum(Host().batch_norm(*(p.astype(np.float64) for p in (x, w, half)), eps=EPS)[0], 0), 4)
    assert shift.dtype == np.float32 and np.array_equal(shift, half.astype(np.float32))


@pytest.mark.parametrize("spike", [False, True])
def test_a_mean_far_from_zero_costs_no_digits(spike: bool, backend: StrictCupyBackend) -> None:
    def data(shape: tuple[int, ...]) -> Any:
        x = drawn(0, shape, "float32", 1e4)
        if spike:  # the first element, which others are measured from
            x.reshape(shape[0], -1)[:, 0] += 3000
        return x

    for shape in ((2, 150), (3, 64)):
        x = data(shape)
        _, mean, rstd = run(backend, "layer_norm", (x, None, None), ndim=1, eps=0.0)
        wide = x.astype(np.float64)
        np.testing.assert_allclose(mean[:, 0], wide.mean(1), rtol=1.2e-7)
        np.testing.assert_allclose(rstd[:, 0], 1 / wide.std(1), rtol=4e-7)
    for shape in ((64, 3), (64, 8), (2, 2, 40, 40), (3, 2, 7)):
        x = data(shape)
        _, mean, rstd, variance = run(backend, "batch_norm", (x, None, None), eps=0.0)
        wide = np.moveaxis(x.astype(np.float64), 1, 0).reshape(shape[1], -1)
        np.testing.assert_allclose(mean, wide.mean(1), rtol=1.2e-7)
        np.testing.assert_allclose(variance, wide.var(1), rtol=8e-7)
        np.testing.assert_allclose(rstd, 1 / wide.std(1), rtol=4e-7)
    constant = np.full((4, 70), 1e4 + 0.1, "float32")
    y, mean, rstd = run(backend, "layer_norm", (constant, None, None), ndim=1, eps=EPS)
    assert np.abs(y).max() < 1e-3 and (mean == constant[0, 0]).all()
    np.testing.assert_allclose(rstd, 1 / np.sqrt(EPS), rtol=1e-6)


def every_op(backend: StrictCupyBackend) -> list[Any]:
    x, g = drawn(0, (6, 8, 12), "float32"), drawn(1, (6, 8, 12), "float32")
    w, rows = drawn(2, (8,), "float32"), drawn(3, (12,), "float32")
    made = [*run(backend, "layer_norm", (x, rows, rows), ndim=1, eps=EPS)]
    made += run(backend, "layer_norm_backward", (g, x, *made[1:3], rows), ndim=1, needs=ALL)
    y, mean, rstd, variance = run(backend, "batch_norm", (x, w, w), eps=EPS)
    made += [y, mean, rstd, variance, *run(backend, "batch_norm_backward", (g, x, mean, rstd, w), needs=ALL)]
    y, mean, rstd = run(backend, "group_norm", (x, w, w), groups=2, eps=EPS)
    made += [y, mean, rstd, *run(backend, "group_norm_backward", (g, x, mean, rstd, w), groups=2, needs=ALL)]
    y, mean, rstd, variance = run(backend, "batch_norm", (x[:, :, 0], w, w), eps=EPS)
    made += [y, mean, *run(backend, "batch_norm_backward", (g[:, :, 0], x[:, :, 0], mean, rstd, w), needs=ALL)]
    for data, slope in ((x, g), (x[:, :, 0], g[:, :, 0])):
        y, mean, rstd, variance, shift = run(backend, "batch_norm_relu", (data, w, w), eps=EPS)
        made += [y, *run(backend, "batch_norm_relu_backward", (slope, data, mean, rstd, w, shift), needs=ALL)]
        made += run(backend, "batch_norm_eval", (data, w, w, mean, variance), eps=EPS)
        given = (slope, data, w, mean, variance)
        made += run(backend, "batch_norm_eval_backward", given, eps=EPS, needs=(True,) * 5)
    how = {"ignore_index": 1, "reduction": "mean", "label_smoothing": 0.1}
    logits, target = x.reshape(96, 6), np.arange(96) % 6
    made += (loss := run(backend, "cross_entropy", (logits, target, w[:6]), **how))
    made += run(backend, "cross_entropy_backward", (loss[0], logits, target, w[:6], loss[1]), **how)
    return made


def test_bits_depend_neither_on_the_grid_nor_on_where_arrays_begin(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = every_op(backend_of(found, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, every_op(backend_of(found, 4)), strict=True))

    def shifted(x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        memory = np.zeros(x.nbytes + x.itemsize, np.uint8)[x.itemsize :]
        memory.view(x.dtype)[...] = x.reshape(-1)
        return StrictArray(memory.view(x.dtype).reshape(x.shape))

    monkeypatch.setitem(globals(), "on_device", shifted)
    assert all(np.array_equal(a, b) for a, b in zip(first, every_op(backend_of(found, 2)), strict=True))


# --- cross-entropy

LOGITS = [
    ("float32", (3, 1)),
    ("float32", (5, 7)),
    ("float32", (100, 8)),
    ("float32", (2, 150)),
    ("float32", (2, 152)),
]
LOGITS += [(dtype, shape) for dtype in ("float64", "float16", "bfloat16") for shape in ((5, 7), (9, 24))]


def how(reduction: str, label_smoothing: float = 0.0, ignore_index: int = -100) -> dict[str, Any]:
    return {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": ignore_index}


@pytest.mark.parametrize(("dtype", "shape"), LOGITS, ids=str)
def test_cross_entropy(dtype: str, shape: tuple[int, int], backend: StrictCupyBackend) -> None:
    x, weight = drawn(0, shape, dtype) * 3, np.abs(drawn(1, shape[1:], dtype)) + 1
    target = np.random.default_rng(2).integers(0, shape[1], shape[0])
    target[0] = -100
    for attrs, w in (
        (how("mean"), None), (how("sum", 0.2), weight), (how("none"), weight), (how("mean", 0.1), weight),
        (how("none", 0.3), None), (how("mean", 0.0, int(target[1])), None),
    ):  # fmt: skip
        chosen = np.where(target == -100, attrs["ignore_index"], target)
        loss, lse = check(backend, "cross_entropy", (x, chosen, w), 4, **attrs)
        g = np.asarray(drawn(3, loss.shape, dtype), x.dtype)
        check(backend, "cross_entropy_backward", (g, x, chosen, w, lse), 8, **attrs)


def test_a_class_that_is_not_there_raises(backend: StrictCupyBackend) -> None:
    x = drawn(0, (50, 4), "float32")
    lse = np.log(np.exp(x).sum(1))
    for wrong in (4, -1, 2**40, -(2**40)):
        target = np.arange(50) % 4
        target[45] = wrong
        for reduction in ("mean", "none"):
            g = np.ones(50 if reduction == "none" else (), np.float32)
            with pytest.raises(IndexOutOfRange, match=f"target {wrong} is out of bounds for 4 classes"):
                run(backend, "cross_entropy", (x, target, None), **how(reduction))
            # backward comes after forward has found no such class; were there one, its row would not count
            made, left_out = (
                run(backend, "cross_entropy_backward", (g, x, chosen, None, lse), **how(reduction))[0]
                for chosen in (target, np.where(np.arange(50) == 45, -100, target))
            )
            assert not made[45].any() and np.array_equal(made, left_out)


def test_rows_that_do_not_count_may_hold_anything(backend: StrictCupyBackend) -> None:
    x = drawn(0, (6, 40), "float32")
    x[0, :], x[1, 3], x[2, 3], x[3, 5], x[4, :] = -np.inf, np.inf, np.nan, -np.inf, 1e30
    target = np.array([-100, -100, -100, 1, 2, 3])
    loss, lse = run(backend, "cross_entropy", (x, target, None), **how("mean"))
    assert np.isclose(loss, Host().cross_entropy(x[3:].astype(np.float64), target[3:], None, **how("mean"))[0])
    (gx,) = run(backend, "cross_entropy_backward", (np.float32(1).reshape(()), x, target, None, lse), **how("mean"))
    assert (gx[:3] == 0).all() and np.isfinite(gx).all() and gx[3, 5] == 0
    # beside logits of 1e30 the stored logarithm has no room for that of 40
    assert np.allclose(gx[4], (np.full(40, 1 / 40) - np.eye(40)[2]) / 3)
    target[:3] = 0
    loss, lse = run(backend, "cross_entropy", (x, target, None), **how("none"))
    assert np.isnan(loss[:3]).all() and np.isfinite(loss[3:]).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_weights_of_classes_that_no_row_has_do_not_count(bad: float, backend: StrictCupyBackend) -> None:
    x, w, target = drawn(0, (3, 4), "float32"), np.array([1, 2, bad, 0.5], np.float32), np.array([0, 3, 1])
    for any_backend in (backend, StrictCupyBackend()):
        for reduction in ("mean", "sum", "none"):
            loss, lse = run(any_backend, "cross_entropy", (x, target, w), **how(reduction))
            (gx,) = run(any_backend, "cross_entropy_backward", (loss, x, target, w, lse), **how(reduction))
            assert np.isfinite(loss).all() and np.isfinite(gx).all()
            smoothed = run(any_backend, "cross_entropy", (x, target, w), **how(reduction, 0.1))[0]
            assert not np.isfinite(smoothed).any()


def test_no_row_that_counts(backend: StrictCupyBackend) -> None:
    x, target = drawn(0, (3, 4), "float32"), np.full(3, -100)
    loss, lse = run(backend, "cross_entropy", (x, target, None), **how("mean"))
    (gx,) = run(backend, "cross_entropy_backward", (np.ones((), np.float32), x, target, None, lse), **how("mean"))
    assert np.isnan(loss) and (gx == 0).all()
    assert run(backend, "cross_entropy", (x, target, None), **how("sum"))[0] == 0
