"""Recurrent layers on device ``cuda``: the kernels' text on the CPU, beside the definition in float64."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends import registry
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.ops.rnn_sequence import rnn_sequence, rnn_sequence_backward
from tensorgrad.testing.strict_array import StrictArray, no_traffic
from tensorgrad.testing.strict_backend import StrictCupyBackend

from .host_compiler import COMPILER
from .host_kernels import StrictHostKernels

pytestmark = pytest.mark.skipif(shutil.which(COMPILER or "") is None, reason="no C++ compiler to run kernels with")

KINDS = ("lstm", "gru", "plain", "lstmback", "gruback", "plainback")
COMPILED = tuple(f"{kind}_{dtype}" for kind in KINDS for dtype in ("float32", "float64"))
DIGITS = {"float32": 3e-6, "float64": 1e-13, "bfloat16": 3e-2}
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
# mode, sizes of the steps (two numbers: steps and batch, not packed), inputs, hidden, options
CASES: list[tuple[str, Any, int, int, dict[str, Any]]] = [
    ("LSTM", (4, 3), 3, 8, {}),
    ("LSTM", (3, 2), 5, 7, {"reverse": True, "start": False}),
    ("LSTM", ((4, 3, 3, 1),), 2, 4, {}),
    ("LSTM", ((4, 2, 1),), 2, 5, {"reverse": True, "start": False}),
    ("LSTM", ((3, 2, 0),), 4, 8, {"reverse": True, "state": 3}),
    ("LSTM", (3, 2), 4, 6, {"state": 4, "bias": False}),
    ("GRU", (4, 3), 3, 8, {"bias": False}),
    ("GRU", (3, 2), 5, 7, {"reverse": True, "start": False}),
    ("GRU", ((4, 3, 3, 1),), 2, 4, {"start": False}),
    ("GRU", ((4, 2, 1),), 2, 5, {"reverse": True}),
    ("RNN_TANH", (3, 40), 3, 12, {"start": False}),
    ("RNN_TANH", ((4, 2, 1),), 2, 5, {"reverse": True}),
    ("RNN_RELU", ((5, 5, 2),), 2, 8, {}),
    ("LSTM", (1, 3), 4, 8, {}),
    ("GRU", (1, 3), 4, 8, {"start": False}),
]


def drawn(
    mode: str, shape: Any, inputs: int, hidden: int, dtype: str, *, reverse: bool = False, start: bool = True,
    state: int = 0, bias: bool = True,
) -> tuple[list[Any], dict[str, Any], list[Any]]:  # fmt: skip
    """The op's inputs, its attributes and the gradients of its first three results, on the host."""
    rng = np.random.default_rng(3)
    packed, width = len(shape) == 1, state or hidden
    batch = shape[0][0] if packed else shape[1]
    leading = (sum(shape[0]),) if packed else shape

    def draw(*size: int) -> Any:
        return (rng.uniform(-1, 1, size) / np.sqrt(size[-1])).astype(numpy_dtype(dtype))

    rows = GATES[mode] * hidden
    given = [
        draw(*leading, inputs), draw(batch, width) if start else None,
        draw(batch, hidden) if start and mode == "LSTM" else None, draw(rows, inputs), draw(rows, width),
        draw(rows) if bias else None, draw(rows) if bias else None, draw(width, hidden) if state else None,
    ]  # fmt: skip
    seeds = [draw(*leading, width), draw(batch, width), draw(batch, hidden) if mode == "LSTM" else None]
    return given, {"mode": mode, "reverse": reverse, "sizes": shape[0] if packed else None}, seeds


def run(backend: Any, given: list[Any], attrs: dict[str, Any], seeds: list[Any], *, defined: bool) -> list[Any]:
    """out, h_n, c_n and the gradients, by the backend's kernels or by the definition on it."""
    forward, backward = rnn_sequence, rnn_sequence_backward
    needs = tuple(x is not None for x in given)
    if defined:
        results = forward.define(backend.raw, *given, keep=True, **attrs)
        grads = backward.define(backend.raw, *seeds, *given, results[0], *results[3:], needs=needs, **attrs)
        return [*results[:3], *grads]
    with no_traffic():
        results = backend.rnn_sequence(*given, keep=True, **attrs)
        grads = backend.rnn_sequence_backward(*seeds, *given, results[0], *results[3:], needs=needs, **attrs)
        again = backend.rnn_sequence(*given, keep=False, **attrs)
    assert again[3] is None and again[4] is None
    same = [np.array_equal(a.get(), b.get()) for a, b in zip(again[:3], results[:3], strict=True) if a is not None]
    assert all(same)
    return [*results[:3], *grads]


def on_device(backend: StrictCupyBackend, arrays: list[Any]) -> list[Any]:
    return [None if x is None else backend.from_host(x) for x in arrays]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[3]}".replace(" ", ""))
def test_beside_the_definition(case: Any, dtype: str) -> None:
    mode, shape, inputs, hidden, how = case
    given, attrs, seeds = drawn(mode, shape, inputs, hidden, dtype, **how)
    exact = [[None if x is None else x.astype(np.float64) for x in some] for some in (given, seeds)]
    with registry.backend("numpy"):
        want = run(registry.get("numpy"), exact[0], attrs, exact[1], defined=True)
    found = []
    for grid in (1, 3):
        backend = StrictCupyBackend()
        backend._kernels = kernels = StrictHostKernels(*COMPILED)
        kernels.grid = grid
        there = on_device(backend, given), on_device(backend, seeds)
        found.append(run(backend, there[0], attrs, there[1], defined=False))
        steps = sum(1 for size in shape[0] if size) if len(shape) == 1 else shape[0]
        assert len(kernels.launched) == 3 * steps, "one kernel a step, forward (twice) and backward"
    for got, other, exact_result in zip(*found, want, strict=True):
        assert (got is None) == (exact_result is None)
        if got is None:
            continue
        assert got.dtype == numpy_dtype(dtype)
        values = got.get().astype(np.float64)
        np.testing.assert_allclose(values, exact_result, rtol=DIGITS[dtype], atol=DIGITS[dtype])
        assert np.array_equal(values, other.get().astype(np.float64)), "the bits depend on the grid"


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN_TANH"])
def test_only_what_is_asked_for(mode: str) -> None:
    given, attrs, seeds = drawn(mode, (3, 2), 2, 4, "float64")
    backend = StrictCupyBackend()
    there, back = on_device(backend, given), on_device(backend, seeds)
    results = backend.rnn_sequence(*there, keep=True, **attrs)
    every = tuple(x is not None for x in given)
    whole = backend.rnn_sequence_backward(*back, *there, results[0], *results[3:], needs=every, **attrs)
    for i in range(7):
        needs = tuple(i == j and every[j] for j in range(8))
        some = backend.rnn_sequence_backward(*back, *there, results[0], *results[3:], needs=needs, **attrs)
        assert all(one is None for j, one in enumerate(some) if j != i)
        assert (some[i] is None) == (whole[i] is None)
        assert some[i] is None or np.array_equal(some[i].get(), whole[i].get())
    # no gradient of some results, and results that nobody asked to keep
    first = (True, *(False,) * 7)
    alone = backend.rnn_sequence_backward(None, back[1], None, *there, results[0], *results[3:], needs=first, **attrs)
    assert alone[0] is not None and all(one is None for one in alone[1:])
    lost = backend.rnn_sequence_backward(*back, *there, results[0], None, None, needs=every, **attrs)
    for a, b in zip(lost, whole, strict=True):
        assert (a is None and b is None) or np.allclose(a.get(), b.get(), rtol=1e-10, atol=1e-12)


def test_inputs_are_not_changed_and_may_lie_anyhow() -> None:
    given, attrs, seeds = drawn("GRU", (3, 4), 5, 8, "float32")
    backend = StrictCupyBackend()
    there = on_device(backend, given)
    odd = [None if x is None else StrictArray(np.asfortranarray(x._host)) for x in there]
    before = [None if x is None else x.get() for x in there]
    back = [None if x is None else StrictArray(np.asfortranarray(x)) for x in seeds]
    straight = run(backend, there, attrs, on_device(backend, seeds), defined=False)
    for a, b in zip(straight, run(backend, odd, attrs, back, defined=False), strict=True):
        assert a is None or np.allclose(a.get(), b.get(), rtol=1e-5, atol=1e-6)
    assert all(x is None or np.array_equal(x.get(), y) for x, y in zip(there, before, strict=True))
