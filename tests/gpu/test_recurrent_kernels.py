"""Recurrent layers on device ``cuda``: the kernels' text on the CPU, beside the definition in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.ops.rnn_sequence import rnn_sequence, rnn_sequence_backward
from tensorgrad.testing.strict_array import StrictArray, no_traffic
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda

from .host_kernels import StrictHostKernels

KINDS = ("lstm", "gru", "plain", "lstmback", "gruback", "plainback")
COMPILED = tuple(f"{kind}_{dtype}" for kind in KINDS for dtype in ("float16", "bfloat16", "float32", "float64"))
# of the largest element; of half precision three of its roundings: of the products, the gates and the result
DIGITS = {"float32": 3e-6, "float64": 1e-13, "float16": 1.5e-3, "bfloat16": 1.2e-2}
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


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
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
        np.testing.assert_allclose(values, exact_result, rtol=0, atol=DIGITS[dtype] * np.abs(exact_result).max())
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", [CASES[0], CASES[4], CASES[8], CASES[11]], ids=lambda case: case[0])
def test_half_precision_is_multiplied_and_kept_as_it_is(case: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, shape, inputs, hidden, how = case
    given, attrs, seeds = drawn(mode, shape, inputs, hidden, dtype, **how)
    backend = StrictCupyBackend()
    multiplied: list[str] = []
    product = backend._product
    monkeypatch.setattr(
        backend, "_product", lambda a, b: multiplied.extend((a.dtype.name, b.dtype.name)) or product(a, b)
    )
    there, back = on_device(backend, given), on_device(backend, seeds)
    results = backend.rnn_sequence(*there, keep=True, **attrs)
    needs = tuple(x is not None for x in given)
    grads = backend.rnn_sequence_backward(*back, *there, results[0], *results[3:], needs=needs, **attrs)
    assert multiplied and set(multiplied) == {dtype}
    made = [x for x in (*results, *grads) if x is not None]
    assert {x.dtype.name for x in made} == {dtype}
    assert (results[3] is None) == (results[4] is None) == mode.startswith("RNN")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mode", ["LSTM", "GRU"])
def test_what_is_handed_on_past_the_products_is_not_rounded_at_each_step(mode: str, dtype: str) -> None:
    """Long memories: a step changes a state by less than half of its last place, and many steps change it."""
    steps, hidden = 900, 8
    name = numpy_dtype(dtype)
    x = np.zeros((steps, 1, 1), name)
    gates = GATES[mode]
    bias = np.zeros(gates * hidden, name)
    bias[hidden : 2 * hidden] = 7.0  # of LSTM the forget gate, of GRU the update gate: 0.9991 stays
    bias[2 * hidden : 3 * hidden] = 2.0  # what comes in
    if mode == "LSTM":
        bias[:hidden] = -7.0
    given = [x, None, None, np.zeros((gates * hidden, 1), name), np.zeros((gates * hidden, hidden), name), bias]
    given += [None, None]
    attrs: dict[str, Any] = {"mode": mode, "reverse": False, "sizes": None}
    exact = [None if one is None else one.astype(np.float64) for one in given]
    with registry.backend("numpy"):
        want = rnn_sequence.define(registry.get("numpy").raw, *exact, keep=False, **attrs)
    backend = StrictCupyBackend()
    backend._kernels = StrictHostKernels(*COMPILED)
    found = backend.rnn_sequence(*on_device(backend, given), keep=False, **attrs)
    for got, expected in zip(found[:3], want[:3], strict=True):
        if got is not None:
            np.testing.assert_allclose(got.get().astype(np.float64), expected, rtol=DIGITS[dtype])


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN"])
def test_gradients_of_gradients_in_half_precision(mode: str) -> None:
    """Those of the definition, which goes through the steps in float32."""

    def second(device: str, dtype: Any) -> list[Any]:
        tg.manual_seed(5)
        layer = getattr(tg.nn, mode)(3, 8).to(dtype).to(tg.float64 if device == "cpu" else dtype).to(device)
        x = tg.linspace(-1, 1, 4 * 2 * 3).reshape(4, 2, 3).to(dtype).to(next(layer.parameters()).dtype).to(device)
        x.requires_grad_()
        (g,) = tg.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        made = tg.autograd.grad(g.square().sum(), [x, *layer.parameters()])
        return [g.detach().double().cpu().numpy(), *[one.double().cpu().numpy() for one in made]]

    with strict_cuda():
        found = second("cuda", tg.bfloat16)
    for got, expected in zip(found, second("cpu", tg.bfloat16), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-2 * np.abs(expected).max())


def test_autocast_multiplies_in_half_precision() -> None:
    with strict_cuda():
        layer = tg.nn.LSTM(4, 8, 2, bidirectional=True).to("cuda")
        x = tg.linspace(-1, 1, 5 * 2 * 4, device="cuda").reshape(5, 2, 4)
        with tg.autocast("cuda", dtype=tg.bfloat16):
            out, (h, c) = layer(x)
        assert out.dtype == h.dtype == c.dtype == tg.bfloat16
        out.float().square().sum().backward()
        halves = [p.grad for p in layer.parameters()]
        assert all(g.dtype == tg.float32 for g in halves)
        layer.zero_grad()
        whole = layer(x)[0]
        whole.square().sum().backward()
        assert (out.float() - whole).abs().max() < 1e-2
        for got, p in zip(halves, layer.parameters(), strict=True):
            assert (got - p.grad).abs().max() < 2e-2 * p.grad.abs().max()


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
