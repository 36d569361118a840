"""Sequences of different lengths: packing and recurrent layers over packed batches, beside PyTorch's."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

from .beside import close, flat

torch = pytest.importorskip("torch")

LENGTHS = {"sorted": [5, 3, 3, 1], "unsorted": [2, 5, 1, 3], "equal": [4, 4], "one": [3]}
LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"num_layers": 2, "bidirectional": True}),
    ("GRU", {"bidirectional": True, "bias": False}),
    ("GRU", {"num_layers": 2, "batch_first": True}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
]


@pytest.mark.parametrize("given", [False, True], ids=["no state", "state"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("kind", "options"), LAYERS, ids=str)
def test_packed(kind: str, options: dict[str, Any], lengths: str, given: bool) -> None:
    theirs = getattr(torch.nn, kind)(3, 4, **options).double()
    ours = getattr(tg.nn, kind)(3, 4, **options).double()
    ours.load_state_dict(theirs.state_dict())
    counts = LENGTHS[lengths]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(counts), max(counts), 3))
    parts = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    widths = (options.get("proj_size", 4), 4) if kind == "LSTM" else (4,)
    state = [rng.normal(size=(parts, len(counts), width)) for width in widths]
    results = []
    for ns, layer in ((tg, ours), (torch, theirs)):
        rnn = ns.nn.utils.rnn
        inputs = [ns.tensor(a, requires_grad=True) for a in (x, *(state if given else ()))]
        packed = rnn.pack_padded_sequence(inputs[0], counts, True, enforce_sorted=lengths != "unsorted")
        hx = None if not given else tuple(inputs[1:]) if kind == "LSTM" else inputs[1]
        out, final = layer(packed, hx)
        assert type(out) is rnn.PackedSequence
        padded, back = rnn.pad_packed_sequence(out, batch_first=True, padding_value=0.5)
        values = [padded, *flat(final)]
        total = sum((y * y.cos()).sum() for y in values)
        leaves = [*inputs, *layer.parameters()]
        grads = ns.autograd.grad(total, leaves, create_graph=True)
        second = ns.autograd.grad(sum((g * g).sum() for g in grads), leaves)
        results.append([*values, back, out.data, out.batch_sizes, *grads, *second])
    close(*results)


@pytest.mark.parametrize("kind", ["plain", "features", "integers"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_packing(kind: str, lengths: str) -> None:
    """Values, gradients and the fields of packed sequences."""
    counts, rng = LENGTHS[lengths], np.random.default_rng(0)
    shape = (max(counts), len(counts)) + ((2,) if kind == "features" else ())
    x = rng.integers(0, 9, shape) if kind == "integers" else rng.normal(size=shape)
    results = []
    for ns in (tg, torch):
        rnn = ns.nn.utils.rnn
        leaf = ns.tensor(x, requires_grad=kind != "integers")
        row: list[Any] = []
        packed = rnn.pack_padded_sequence(leaf, ns.tensor(counts), enforce_sorted=lengths != "unsorted")
        row += [part for part in packed if part is not None]
        row += rnn.unpack_sequence(packed)
        row += rnn.pad_packed_sequence(packed, padding_value=7, total_length=8)
        sequences = [leaf[:n, i] for i, n in enumerate(counts)]
        again = rnn.pack_sequence(sequences, enforce_sorted=lengths != "unsorted")
        row += [part for part in again if part is not None]
        for side in ("left", "right"):
            for first in (True, False):
                row.append(rnn.pad_sequence(sequences, first, 3.0, side))
        row += rnn.unpad_sequence(rnn.pad_sequence(sequences, True), ns.tensor(counts), True)
        row += [packed.to(ns.float32).data, packed.double().data, packed.cpu().data, packed.long().data]
        assert packed.cpu() is packed and not packed.is_cuda
        if kind != "integers":
            seen = [part for part in row if part.requires_grad]
            row += ns.autograd.grad(sum((y * y).sum() for y in seen), leaf)
        results.append(row)
    close(*results)


def test_packed_sequence_by_hand() -> None:
    with pytest.raises(RuntimeError, match="lengths of at most 3"):  # PyTorch makes an impossible sequence of it
        tg.nn.utils.rnn.pack_padded_sequence(tg.tensor(PADDED), [4, 3])
    data, sizes = tg.arange(3.0), tg.tensor([2, 1])
    for packed in (tg.nn.utils.rnn.PackedSequence(data, sizes), tg.nn.utils.rnn.PackedSequence((data, sizes))):
        assert packed.data is data and packed.batch_sizes is sizes and packed.unsorted_indices is None
    packed = tg.nn.utils.rnn.PackedSequence(data, sizes, tg.tensor([1, 0]))
    assert packed.unsorted_indices.tolist() == [1, 0]
    assert repr(packed).startswith("PackedSequence(data=tensor([0., 1., 2.]), batch_sizes=tensor([2, 1])")


PADDED = np.zeros((3, 2, 4))
ERRORS: list[tuple[str, Any]] = [
    ("not sorted", lambda ns: ns.nn.utils.rnn.pack_padded_sequence(ns.tensor(PADDED), [1, 3])),
    ("length 0", lambda ns: ns.nn.utils.rnn.pack_padded_sequence(ns.tensor(PADDED), [3, 0])),
    ("number of lengths", lambda ns: ns.nn.utils.rnn.pack_padded_sequence(ns.tensor(PADDED), [3])),
    ("unsorted list", lambda ns: ns.nn.utils.rnn.pack_sequence([ns.zeros(1), ns.zeros(2)])),
    ("empty list", lambda ns: ns.nn.utils.rnn.pad_sequence([])),
    ("padding side", lambda ns: ns.nn.utils.rnn.pad_sequence([ns.zeros(1)], padding_side="top")),
    ("total length", lambda ns: ns.nn.utils.rnn.pad_packed_sequence(
        ns.nn.utils.rnn.pack_sequence([ns.zeros(3)]), total_length=2)),
    ("rank", lambda ns: ns.nn.LSTM(4, 2)(ns.zeros(1, 3, 2, 4))),
    ("width", lambda ns: ns.nn.LSTM(4, 2)(ns.zeros(3, 2, 3))),
    ("dtype", lambda ns: ns.nn.GRU(4, 2)(ns.zeros(3, 2, 4, dtype=ns.float64))),
    ("state dtype", lambda ns: ns.nn.GRU(4, 2)(ns.zeros(3, 2, 4), ns.zeros(1, 2, 2, dtype=ns.float64))),
    ("cell's state dtype", lambda ns: ns.nn.GRUCell(4, 2)(ns.zeros(3, 4), ns.zeros(3, 2, dtype=ns.float64))),
    ("no steps", lambda ns: ns.nn.RNN(4, 2)(ns.zeros(0, 2, 4))),
    ("state rank", lambda ns: ns.nn.RNN(4, 2)(ns.zeros(3, 2, 4), ns.zeros(1, 2))),
    ("state rank, unbatched", lambda ns: ns.nn.GRU(4, 2)(ns.zeros(3, 4), ns.zeros(1, 1, 2))),
    ("state ranks", lambda ns: ns.nn.LSTM(4, 2)(ns.zeros(3, 2, 4), (ns.zeros(1, 2), ns.zeros(1, 2)))),
    ("state size", lambda ns: ns.nn.GRU(4, 2)(ns.zeros(3, 2, 4), ns.zeros(2, 2, 2))),
    ("hidden size", lambda ns: ns.nn.LSTM(4, 2)(ns.zeros(3, 2, 4), (ns.zeros(2, 2, 2), ns.zeros(1, 2, 2)))),
    ("cell size", lambda ns: ns.nn.LSTM(4, 2)(ns.zeros(3, 2, 4), (ns.zeros(1, 2, 2), ns.zeros(1, 2, 3)))),
    ("packed state", lambda ns: ns.nn.RNN(2, 2)(
        ns.nn.utils.rnn.pack_sequence([ns.zeros(3, 2)]), ns.zeros(1, 2, 2))),
    ("packed width", lambda ns: ns.nn.RNN(3, 2)(ns.nn.utils.rnn.pack_sequence([ns.zeros(3, 2)]))),
    ("cell rank", lambda ns: ns.nn.LSTMCell(4, 2)(ns.zeros(1, 3, 4))),
    ("cell width", lambda ns: ns.nn.GRUCell(4, 2)(ns.zeros(3, 3))),
    ("cell batch", lambda ns: ns.nn.RNNCell(4, 2)(ns.zeros(3, 4), ns.zeros(2, 2))),
    ("cell state", lambda ns: ns.nn.LSTMCell(4, 2)(ns.zeros(3, 4), (ns.zeros(3, 2), ns.zeros(3, 3)))),
    ("nonlinearity", lambda ns: ns.nn.RNN(4, 2, nonlinearity="gelu")),
    ("dropout", lambda ns: ns.nn.RNN(4, 2, dropout=1.5)),
    ("hidden_size", lambda ns: ns.nn.LSTM(4, 0)),
    ("hidden_size type", lambda ns: ns.nn.LSTM(4, 2.0)),
    ("bias type", lambda ns: ns.nn.LSTM(4, 2, bias=1)),
    ("proj_size", lambda ns: ns.nn.LSTM(4, 2, proj_size=2)),
    ("mode", lambda ns: ns.nn.RNNBase("SRU", 4, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call"), ERRORS, ids=[name for name, _ in ERRORS])
def test_errors(name: str, call: Any) -> None:
    """What PyTorch refuses is refused with a class that catches as PyTorch's does, and its first words."""
    with pytest.raises(Exception) as theirs:
        call(torch)
    with pytest.raises(theirs.type) as ours:
        call(tg)
    if name.endswith("state dtype"):
        return  # PyTorch speaks of its kernels there
    words = [w for w in str(theirs.value).replace("torch.", "").split() if w.isalpha()][:2]
    assert all(word.lower() in str(ours.value).lower() for word in words), (str(theirs.value), str(ours.value))


def test_recurrent_attributes() -> None:
    for kind, options in LAYERS:
        ours, theirs = getattr(tg.nn, kind)(3, 4, **options), getattr(torch.nn, kind)(3, 4, **options)
        assert ours._flat_weights_names == theirs._flat_weights_names
        assert [[tuple(w.shape) for w in ws] for ws in ours.all_weights] == [
            [tuple(w.shape) for w in ws] for ws in theirs.all_weights
        ]
        assert ours.mode == theirs.mode and ours.flatten_parameters() is None
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        tg.nn.LSTM(3, 4, dropout=0.5)


@pytest.mark.skipif(importlib.util.find_spec("tensorgrad.amp") is None, reason="there is no autocast yet")
def test_autocast() -> None:
    """Products are lowered and the state follows them."""
    for kind in ("RNN", "GRU", "LSTM"):
        layer, cell = getattr(tg.nn, kind)(3, 4, 2, bidirectional=True), getattr(tg.nn, f"{kind}Cell")(3, 4)
        x = tg.randn(5, 2, 3)
        plain, small = layer(x)[0], cell(x[0])
        with tg.autocast("cpu"):
            lowered, final = layer(x)
            packed, _ = layer(tg.nn.utils.rnn.pack_padded_sequence(x, [5, 3]))
            one = cell(x[0])
        for got, want in ((lowered, plain), (flat(one)[0], flat(small)[0])):
            assert got.dtype == tg.bfloat16 and float((got - want).abs().max()) < 0.05
        assert packed.data.dtype == tg.bfloat16 and flat(final)[0].dtype == tg.bfloat16
        lowered.sum().backward()
        assert layer.weight_hh_l0.grad.dtype == tg.float32
