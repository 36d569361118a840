"""Recurrent layers as ONNX' own operators. What those lack (packed batches, projections, other dtypes than float32) is
taken apart by the op's definition, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Graph, Value
from .table import ONLY_IF, translates

_KINDS = {"LSTM": "LSTM", "GRU": "GRU", "RNN_TANH": "RNN", "RNN_RELU": "RNN"}
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
"""ONNX' order of the gates: input, output, forget, cell; update, reset, new."""


def _fits(inputs: tuple[Any, ...], attrs: dict[str, Any]) -> bool:
    return attrs["sizes"] is None and inputs[7] is None and inputs[0].dtype == np.float32 and not attrs["keep"]


ONLY_IF["rnn_sequence"] = _fits


def _gates(g: Graph, x: Value, mode: str) -> Value:
    """The rows of a weight in ONNX' order."""
    if mode not in _ORDER:
        return x
    gates = np.arange(x.shape[0]).reshape(len(_ORDER[mode]), -1)
    places = gates[list(_ORDER[mode])].reshape(-1)
    known = g.initializers.get(x.name)
    name = g.node("Gather", x, g.constant(places), axis=0) if known is None else g.initializer(known[places], x.name)
    return Value(name, x.shape, x.dtype)


def _stacked(g: Graph, *parts: Value) -> str:
    """With an axis for the direction; biases one after the other."""
    known = [g.initializers[part.name] for part in parts if part.name in g.initializers]
    if len(known) == len(parts):
        return g.initializer(np.concatenate(known)[None], parts[0].name)
    joined = parts[0].name if len(parts) == 1 else g.node("Concat", *parts, axis=0)
    return g.node("Unsqueeze", joined, g.constant([0]))


@translates("rnn_sequence")
def _rnn_sequence(
    g: Graph, x: Value, h0: Value | None, c0: Value | None, w_ih: Value, w_hh: Value, b_ih: Value | None,
    b_hh: Value | None, w_hr: None, *, mode: str, reverse: bool, sizes: None, keep: bool,
) -> tuple[str | None, ...]:  # fmt: skip
    first, then = _gates(g, w_ih, mode), _gates(g, w_hh, mode)
    both = None
    if b_ih is not None or b_hh is not None:
        zeros = Value(g.constant(np.zeros(w_ih.shape[0], x.dtype), x.dtype), (w_ih.shape[0],), x.dtype)
        both = _stacked(g, *[_gates(g, zeros if b is None else b, mode) for b in (b_ih, b_hh)])
    start = [None if part is None else g.node("Unsqueeze", part, g.constant([0])) for part in (h0, c0)]
    results = g.node(
        _KINDS[mode], x, _stacked(g, first), _stacked(g, then), both, None,
        *(start if mode == "LSTM" else start[:1]), count=3 if mode == "LSTM" else 2, hidden_size=w_hh.shape[1],
        direction="reverse" if reverse else None, linear_before_reset=1 if mode == "GRU" else None,
        activations=["Relu"] if mode == "RNN_RELU" else None,
    )  # fmt: skip
    out = g.node("Squeeze", results[0], g.constant([1]))
    finals = [g.node("Squeeze", result, g.constant([0])) for result in results[1:]]
    return (out, *finals, None, None) if mode == "LSTM" else (out, *finals, None, None, None)
