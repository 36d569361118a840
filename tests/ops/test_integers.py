"""Integers near the ends of their range: what wraps, wraps as in PyTorch, and what is computed in floats does not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.dispatch import OPS
from tensorgrad.errors import DTypeError
from tensorgrad.ops import load_all
from tensorgrad.ops.elementwise import Elementwise

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]
KINDS = ("int8", "uint8", "int16", "int32", "int64")


def ends(kind):
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    values = {least, least + 1, most - 1, most, most // 2 + 1, 0, 1, 2, 3, 13, 100} | (
        {-1, -2, -100} if least else set()
    )
    return sorted(values)


load_all()
FORMULAS = [op for op in OPS.values() if isinstance(op, Elementwise) and op.own and len(op.inputs) < 4]


@pytest.mark.parametrize("backend", BACKENDS)
def test_formulas_that_give_floats_take_integers_as_floats(backend):
    """``abs(x)`` and ``x * x`` within a formula wrapped: i0e(-128) of int8 was 1.4e35."""
    wrong = set()
    with tg.backend(backend), np.errstate(all="ignore"):
        for op, kind in itertools.product(FORMULAS, KINDS):
            columns = zip(*itertools.product(ends(kind), repeat=len(op.inputs)), strict=True)
            inputs = [tg.from_numpy(np.array(column, kind)) for column in columns]
            try:
                spec = op.infer(*[x._data for x in inputs])
            except DTypeError:
                continue
            if getattr(spec, "dtype", None) == np.float32:
                got, want = op(*inputs), op(*[x.float() for x in inputs])
                if not np.allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-6, equal_nan=True):
                    wrong.add(f"{op.name} of {kind}")
    assert not wrong


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_integers_beside_torch(kind, backend):
    torch = pytest.importorskip("torch")
    values = ends(kind)
    pairs = np.array(list(itertools.product(values, values)), kind).T.copy()
    calls = (
        lambda lib, x, y: lib.isclose(x, y),
        lambda lib, x, y: lib.isclose(x, y, rtol=0.25, atol=2.5),
        lambda lib, x, y: lib.isclose(x, y, rtol=0, atol=0),
        lambda lib, x, y: lib.copysign(x, y),
        lambda lib, x, y: lib.tensordot(x.reshape(1, 1, -1), y.reshape(1, -1, 1)[:, :2], ([0, 1], [0, 1])),
    )
    with tg.backend(backend):
        for call in calls:
            got = call(tg, *map(tg.from_numpy, pairs))
            want = call(torch, *map(torch.from_numpy, pairs))
            assert str(got.dtype) == str(want.dtype)
            np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_a_multiple_wraps_as_a_whole():
    assert tg.lcm(tg.tensor([127], dtype=tg.int8), tg.tensor([64], dtype=tg.int8)).item() == -64  # 8128


def test_losses_of_integers_say_what_to_do():
    x = tg.tensor([100, -100], dtype=tg.int8)
    for reduction in ("mean", "sum", "none"):
        with pytest.raises(DTypeError, match=r"mse_loss.*int8"):
            tg.nn.functional.mse_loss(x, x, reduction=reduction)
    with pytest.raises(DTypeError, match=r"l1_loss.*int8"):
        tg.nn.functional.l1_loss(x, x)
    assert tg.nn.functional.l1_loss(x, x, reduction="sum").item() == 0


@pytest.mark.parametrize("given", [2.5, float("inf"), True])
def test_counts_that_are_no_integers_are_refused(given):
    x = tg.arange(6.0).reshape(2, 3)
    calls = (
        lambda n: tg.rot90(x, n), lambda n: tg.diff(x, n), tg.randperm, tg.fft.fftfreq, tg.fft.rfftfreq,
        lambda n: tg.linspace(0, 1, n), lambda n: tg.logspace(0, 1, n), tg.signal.windows.hann,
        lambda n: tg.nn.functional.one_hot(tg.tensor([1]), n),
        tg.hamming_window, tg.hann_window, tg.bartlett_window, tg.blackman_window, tg.kaiser_window,
    )  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError, match="must be an integer"):
            call(given)
        with pytest.raises(ValueError, match="must fit into 64 bits"):
            call(2**64)


@pytest.mark.parametrize("name", ["fft2", "ifft2", "rfft2", "irfft2", "hfft2", "ihfft2"])
def test_transforms_of_two_dims_want_two(name):
    with pytest.raises(TypeError, match=f"{name}: dim must be two integers"):
        getattr(tg.fft, name)(tg.ones(2, 2), dim=None)
