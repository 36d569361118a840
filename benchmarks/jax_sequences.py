"""JAX versions of the workloads over time: a ``lax.scan`` for each layer and direction, inputs multiplied ahead of it.

They belong to the table of ``more_jax_workloads.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import data
from benchmarks.jax_workloads import (
    JaxJob,
    Params,
    adam,
    adam_state,
    batches,
    cross_entropy,
    dropout,
    linear,
    linear_shapes,
    next_key,
    parameters,
)

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def rnn_shapes(name: str, kind: str, inputs: int, width: int, suffix: str = "_l0") -> dict[str, tuple[int, ...]]:
    gates = GATES[kind] * width
    return {
        f"{name}.weight_ih{suffix}": (gates, inputs), f"{name}.weight_hh{suffix}": (gates, width),
        f"{name}.bias_ih{suffix}": (gates,), f"{name}.bias_hh{suffix}": (gates,),
    }  # fmt: skip


def lstm_cell(state: Any, ahead: Any, weight: Any, bias: Any) -> Any:
    h, c = state
    i, f, g, o = jnp.split(ahead + h @ weight.T + bias, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru_cell(h: Any, ahead: Any, weight: Any, bias: Any) -> Any:
    reset, update, new = jnp.split(ahead, 3, axis=-1)
    own_reset, own_update, own_new = jnp.split(h @ weight.T + bias, 3, axis=-1)
    update = jax.nn.sigmoid(update + own_update)
    new = jnp.tanh(new + jax.nn.sigmoid(reset + own_reset) * own_new)
    h = (1 - update) * new + update * h
    return h, h


def rnn_cell(h: Any, ahead: Any, weight: Any, bias: Any) -> Any:
    h = jnp.tanh(ahead + h @ weight.T + bias)
    return h, h


CELLS: dict[str, Callable[..., Any]] = {"LSTM": lstm_cell, "GRU": gru_cell, "RNN": rnn_cell}


def recurrent(p: Params, name: str, kind: str, x: Any, suffix: str = "_l0", reverse: bool = False) -> tuple[Any, Any]:
    """One layer over x (T, N, inputs): the states of all steps and the last one."""
    ahead = x @ p[f"{name}.weight_ih{suffix}"].T + p[f"{name}.bias_ih{suffix}"]
    weight, bias = p[f"{name}.weight_hh{suffix}"], p[f"{name}.bias_hh{suffix}"]
    start = jnp.zeros((x.shape[1], weight.shape[1]))

    def step(state: Any, inputs: Any) -> Any:
        return CELLS[kind](state, inputs, weight, bias)

    last, states = lax.scan(step, (start, start) if kind == "LSTM" else start, ahead, reverse=reverse)
    return states, last[0] if kind == "LSTM" else last


def clipped(update: Callable[..., Any], norm: float = 1.0) -> Callable[..., tuple[Params, Any]]:
    """``update`` with gradients scaled down to a norm of at most ``norm``, as PyTorch's clip_grad_norm_ does."""

    def clip(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        total = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
        scale = jnp.minimum(norm / (total + 1e-6), 1.0)
        return update(params, {n: g * scale for n, g in grads.items()}, state)

    return clip


def char_rnn() -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {"characters.weight": (96, 64)}
    shapes |= rnn_shapes("lstm", "LSTM", 64, 256) | rnn_shapes("lstm", "LSTM", 256, 256, "_l1")
    shapes |= linear_shapes("head", 256, 96)

    def loss(p: Params, buffers: Params, ids: Any, following: Any) -> Any:
        x = p["characters.weight"][ids.T]
        for suffix in ("_l0", "_l1"):
            x, _ = recurrent(p, "lstm", "LSTM", x, suffix)
        return cross_entropy(linear(p, "head", x), following.T), buffers

    params = parameters(shapes)
    return JaxJob(params, loss, clipped(adam(2e-3)), adam_state(params), batches(data.tokens(32, 64, 96)))


def _sequence_to_one(kind: str, inputs: int, hidden: int, layers: int, steps: int, batch: int) -> JaxJob:
    shapes = linear_shapes("head", hidden, 1)
    for layer in range(layers):
        shapes |= rnn_shapes("rnn", kind, hidden if layer else inputs, hidden, f"_l{layer}")

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        x = x.swapaxes(0, 1)
        for layer in range(layers):
            x, last = recurrent(p, "rnn", kind, x, f"_l{layer}")
        return jnp.mean((linear(p, "head", last) - y) ** 2), buffers

    params = parameters(shapes)
    return JaxJob(params, loss, adam(1e-3), adam_state(params), batches(data.sequences(batch, steps, inputs)))


def gru() -> JaxJob:
    return _sequence_to_one("GRU", 64, 128, 2, 50, 32)


def rnn() -> JaxJob:
    return _sequence_to_one("RNN", 8, 64, 1, 100, 16)


def lstm_small() -> JaxJob:
    return _sequence_to_one("LSTM", 16, 64, 1, 30, 64)


def bilstm() -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {"tokens.weight": (5000, 128), **linear_shapes("head", 256, 10)}
    for layer in range(2):
        for direction in ("", "_reverse"):
            shapes |= rnn_shapes("lstm", "LSTM", 256 if layer else 128, 128, f"_l{layer}{direction}")

    def loss(p: Params, buffers: Params, ids: Any, y: Any) -> Any:
        new: Params = {}
        key = next_key(buffers, new)
        # The vector of padding is read and not learned.
        table = p["tokens.weight"]
        table = jnp.concatenate([lax.stop_gradient(table[:1]), table[1:]])
        x = table[ids.T]
        for layer in range(2):
            there, last = recurrent(p, "lstm", "LSTM", x, f"_l{layer}")
            back, first = recurrent(p, "lstm", "LSTM", x, f"_l{layer}_reverse", reverse=True)
            x = jnp.concatenate([there, back], axis=-1)
            x = dropout(key, x, 0.2) if layer == 0 else x
        return cross_entropy(linear(p, "head", jnp.concatenate([last, first], axis=1)), y), new

    params = parameters(shapes)
    examples = batches(data.texts(32, 64, 5000, 10))
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples, {"key": jax.random.key(0)})


def seq2seq_gru() -> JaxJob:
    width, vocabulary, length = 128, 200, 12
    shapes: dict[str, tuple[int, ...]] = {"source.weight": (vocabulary, width), "target.weight": (vocabulary, width)}
    shapes |= rnn_shapes("encoder", "GRU", width, width) | rnn_shapes("cell", "GRU", 2 * width, width, "")
    shapes |= linear_shapes("query", width, width) | linear_shapes("head", width, vocabulary)

    def loss(p: Params, buffers: Params, source: Any, target: Any, following: Any) -> Any:
        seen, state = recurrent(p, "encoder", "GRU", p["source.weight"][source.T])

        def step(state: Any, word: Any) -> Any:
            weights = jax.nn.softmax(jnp.einsum("tnd,nd->nt", seen, linear(p, "query", state)), axis=1)
            found = jnp.einsum("nt,tnd->nd", weights, seen)
            ahead = jnp.concatenate([word, found], axis=1) @ p["cell.weight_ih"].T + p["cell.bias_ih"]
            return gru_cell(state, ahead, p["cell.weight_hh"], p["cell.bias_hh"])

        _, states = lax.scan(step, state, p["target.weight"][target.T])
        return cross_entropy(linear(p, "head", states), following.T), buffers

    params = parameters(shapes)
    examples = [(ids[:, ::-1], ids, following) for ids, following in batches(data.tokens(32, length, vocabulary))]
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples)
