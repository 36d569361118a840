"""rnn_sequence's kernels beside its definition, over the edges of their tiles, and their bits."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.ops.rnn_sequence import rnn_sequence

pytestmark = pytest.mark.skipif(registry.class_of("cpp").why_not() is not None, reason="needs the cpp backend")

# mode, sizes of the steps (a number: of all, not packed), inputs, hidden, options
CASES = (
    ("LSTM", (4, 1), 3, 5, {}),
    ("LSTM", (3, 2), 5, 16, {"reverse": True}),
    ("LSTM", (5, 3), 2, 17, {"start": False}),
    ("LSTM", (3, 35), 7, 33, {"start": False, "reverse": True}),
    ("LSTM", (3, 17), 9, 20, {"state": 11}),
    ("LSTM", ((40, 33, 20, 5, 1),), 4, 9, {}),
    ("LSTM", ((19, 19, 2),), 4, 9, {"reverse": True, "start": False}),
    ("LSTM", ((19, 18, 2),), 4, 30, {"reverse": True, "state": 6}),
    ("LSTM", (3, 2), 4, 300, {}),  # units dealt out step by step
    ("LSTM", (1, 6), 4, 10, {}),
    ("GRU", (4, 1), 3, 5, {"bias": False}),
    ("GRU", (3, 35), 7, 33, {"reverse": True}),
    ("GRU", ((40, 33, 20, 5, 1),), 4, 9, {"start": False}),
    ("GRU", ((19, 18, 2),), 4, 40, {"reverse": True}),
    ("GRU", (3, 2), 4, 300, {"start": False}),
    ("GRU", (1, 6), 4, 10, {"start": False}),
    ("RNN_TANH", (4, 2), 3, 70, {}),
    ("RNN_TANH", ((19, 18, 2),), 4, 9, {"reverse": True}),
    ("RNN_RELU", (3, 18), 6, 40, {"start": False}),
    ("RNN_RELU", (1, 3), 6, 4, {}),
    # rows and units fill the tiles, so that the input is multiplied beside the state
    ("LSTM", (3, 32), 260, 64, {"start": False}),
    ("LSTM", ((34, 32, 32, 30),), 5, 93, {"reverse": True, "start": False}),
    ("LSTM", (3, 16), 9, 32, {"state": 11}),
    ("GRU", (3, 16), 7, 64, {"start": False}),
    ("GRU", ((33, 32, 31),), 5, 96, {"reverse": True, "bias": False}),
    ("RNN_TANH", (3, 16), 1, 128, {"start": False}),
    ("RNN_RELU", ((32, 32, 32, 30),), 6, 62, {"reverse": True}),
)


def arrays(mode, shape, inputs, hidden, dtype, *, reverse=False, start=True, state=None, bias=True):
    """The op's inputs and attributes, seeds of its three results, and everything for the backward op."""
    rng = np.random.default_rng(5)
    gates = {"LSTM": 4, "GRU": 3}.get(mode, 1)
    packed = len(shape) == 1
    batch = shape[0][0] if packed else shape[1]
    leading = (sum(shape[0]),) if packed else shape
    width = state or hidden

    def draw(*size):
        # float32's values in every dtype but the halves, whose own they are
        values = rng.uniform(-1, 1, size) / np.sqrt(size[-1])
        return tg.tensor(values.astype(np.float32)).to(getattr(tg, dtype))

    given = [
        draw(*leading, inputs), draw(batch, width) if start else None,
        draw(batch, hidden) if start and mode == "LSTM" else None, draw(gates * hidden, inputs),
        draw(gates * hidden, width), draw(gates * hidden) if bias else None, draw(gates * hidden) if bias else None,
        draw(width, hidden) if state else None,
    ]  # fmt: skip
    seeds = [draw(*leading, width), draw(batch, width), draw(batch, hidden) if mode == "LSTM" else None]
    return given, {"mode": mode, "reverse": reverse, "sizes": shape[0] if packed else None}, seeds


def run(given, attrs, seeds, keep=True):
    """Results and gradients, as host arrays."""
    given = [x if x is None else x.detach().requires_grad_(keep) for x in given]
    results = rnn_sequence(*given, **attrs, keep=keep)[:3]
    flat = [x for x in results if x is not None]
    if keep:
        leaves = [x for x in given if x is not None]
        flat += tg.autograd.grad(flat, leaves, [x for x in seeds if x is not None])
    return [np.asarray(x.detach().float().numpy() if x.dtype in (tg.bfloat16, tg.float16) else x.detach().numpy())
            for x in flat]  # fmt: skip


@pytest.mark.parametrize("dtype", ("float32", "float64", "bfloat16"))
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[3]}".replace(" ", ""))
def test_kernels_beside_the_definition(case, dtype):
    mode, shape, inputs, hidden, how = case
    given, attrs, seeds = arrays(mode, shape, inputs, hidden, dtype, **how)
    with registry.backend("cpp"):
        got = run(given, attrs, seeds)
        again = run(given, attrs, seeds)
        bare = run(given, attrs, seeds, keep=False)
    with registry.backend("numpy"):
        wide = [[x if x is None else x.double() for x in some] for some in (given, seeds)]
        want = run(wide[0], attrs, wide[1])
    tolerance = {"float32": 3e-6, "float64": 1e-13, "bfloat16": 1e-2}[dtype]
    for mine, repeated, reference in zip(got, again, want, strict=True):
        assert mine.tobytes() == repeated.tobytes()
        np.testing.assert_allclose(mine, reference, rtol=0, atol=tolerance * max(1e-3, np.abs(reference).max()))
    assert [x.tobytes() for x in bare] == [x.tobytes() for x in got[: len(bare)]]


@pytest.mark.parametrize("shape", ((6, 2), (4, 40), (3, 48), ((40, 33, 5),)), ids=str)
@pytest.mark.parametrize("mode", ("LSTM", "GRU", "RNN_TANH"))
def test_bits_for_any_number_of_threads(mode, shape):
    given, attrs, seeds = arrays(mode, shape, 64, 300, "float32")
    before, found = tg.get_num_threads(), []
    with registry.backend("cpp"):
        try:
            for threads in (1, 2, 8):
                tg.set_num_threads(threads)
                found.append([x.tobytes() for x in run(given, attrs, seeds)])
        finally:
            tg.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_inference_keeps_nothing():
    with registry.backend("cpp"), tg.no_grad():
        layer, x = tg.nn.LSTM(8, 256), tg.randn(300, 4, 8)
        before = tg.memory_stats()["in_use"]
        out, state = layer(x)
        added = tg.memory_stats()["in_use"] - before
    assert added <= 6 * sum(x.numel() for x in (out, *state))  # of 4 bytes; the gates would be four times as many
