"""The workloads of ``more_workloads.py`` written for JAX, in the style of ``jax_workloads.py``.

This file has those of dense layers, tables and formulas; networks over time, of attention and over images have files
of their own. Numbers drawn within a step come from a key among the buffers, split at each step.

Without a version: mobilenet (depthwise convolutions are in convnext) and dcgan (two optimizers).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import data
from benchmarks.jax_images import bottleneck, cnn_wide, convnext, lenet, unet, vae_conv
from benchmarks.jax_sequences import bilstm, char_rnn, gru, lstm_small, rnn, seq2seq_gru
from benchmarks.jax_transformers import encoder, gpt_mid, llama, seq2seq, vit
from benchmarks.jax_workloads import (
    JaxJob,
    Params,
    adam,
    adam_state,
    batch_norm,
    batches,
    cross_entropy,
    dropout,
    linear,
    linear_shapes,
    next_key,
    norm_shapes,
    parameters,
    running,
    sgd,
    zeros,
)

Activation = Callable[[Any], Any]


def adagrad(lr: float, eps: float = 1e-10) -> Callable[..., tuple[Params, Any]]:
    """Duchi, Hazan and Singer 2011."""

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        state = {n: state[n] + g * g for n, g in grads.items()}
        return {n: p - lr * grads[n] / (jnp.sqrt(state[n]) + eps) for n, p in params.items()}, state

    return update


def binary_cross_entropy(logits: Any, target: Any) -> Any:
    """Of each element: -y log(sigmoid(x)) - (1 - y) log(1 - sigmoid(x)), where neither logarithm can overflow."""
    return jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def layer_shapes(prefix: str, *widths: int) -> dict[str, tuple[int, ...]]:
    """Linear layers of these widths, as in a Sequential with an activation behind each."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        shapes |= linear_shapes(f"{prefix}{2 * i}", inputs, outputs)
    return shapes


def layers(p: Params, prefix: str, count: int, x: Any, activation: Activation = jax.nn.relu) -> Any:
    """``count`` linear layers with the activation between them."""
    for i in range(count):
        x = linear(p, f"{prefix}{2 * i}", x)
        x = activation(x) if i < count - 1 else x
    return x


def mlp_small() -> JaxJob:
    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        return jnp.mean((layers(p, "", 3, x) - y) ** 2), buffers

    params = parameters(layer_shapes("", 64, 128, 128, 1))
    return JaxJob(params, loss, adam(1e-3), adam_state(params), batches(data.regression(32, 64)))


def mlp_wide() -> JaxJob:
    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        return cross_entropy(layers(p, "", 3, x), y), buffers

    params = parameters(layer_shapes("", 784, 2048, 2048, 10))
    return JaxJob(params, loss, sgd(0.01), {}, batches(data.rows(256, 784, 10)))


def mlp_deep() -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {}
    blocks, inputs = [(str(4 * i), str(4 * i + 1)) for i in range(6)], 100
    for first, norm in blocks:
        shapes |= linear_shapes(first, inputs, 256) | norm_shapes(norm, 256)
        inputs = 256
    shapes |= linear_shapes("24", 256, 10)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        new: Params = {}
        key = next_key(buffers, new)
        for i, (first, norm) in enumerate(blocks):
            x = jax.nn.silu(batch_norm(p, buffers, new, norm, linear(p, first, x)))
            x = dropout(None if key is None else jax.random.fold_in(key, i), x, 0.1)
        return cross_entropy(linear(p, "24", x), y), new

    params = parameters(shapes)
    buffers = running([norm for _, norm in blocks], shapes) | {"key": jax.random.key(0)}
    update = adam(1e-3, decay=0.01)
    return JaxJob(params, loss, update, adam_state(params), batches(data.rows(512, 100, 10)), buffers)


def logistic() -> JaxJob:
    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        return cross_entropy(x @ p["weight"].T + p["bias"], y), buffers

    params = parameters({"weight": (10, 784), "bias": (10,)})
    return JaxJob(params, loss, sgd(0.1), {}, batches(data.rows(64, 784, 10)))


def autoencoder() -> JaxJob:
    def loss(p: Params, buffers: Params, x: Any) -> Any:
        return jnp.mean((layers(p, "", 6, x) - x) ** 2), buffers

    params = parameters(layer_shapes("", 784, 256, 64, 16, 64, 256, 784))
    examples = [batch[:1] for batch in batches(data.rows(128, 784, 10))]
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples)


def vae() -> JaxJob:
    shapes = {
        **linear_shapes("hidden", 784, 400), **linear_shapes("mean", 400, 20), **linear_shapes("log_variance", 400, 20),
        **linear_shapes("up", 20, 400), **linear_shapes("out", 400, 784),
    }  # fmt: skip

    def loss(p: Params, buffers: Params, x: Any, *noise: Any) -> Any:
        new: Params = {}
        key = next_key(buffers, new)
        hidden = jax.nn.relu(linear(p, "hidden", x))
        mean, log_variance = linear(p, "mean", hidden), linear(p, "log_variance", hidden)
        drawn = noise[0] if key is None else jax.random.normal(key, mean.shape)
        z = mean + drawn * jnp.exp(0.5 * log_variance)
        logits = linear(p, "out", jax.nn.relu(linear(p, "up", z)))
        divergence = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance))
        return jnp.sum(binary_cross_entropy(logits, x)) + divergence, new

    params = parameters(shapes)
    examples = [(jax.nn.sigmoid(x),) for x, _ in batches(data.rows(128, 784, 10))]
    buffers = {"key": jax.random.key(0)}
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples, buffers, noise=(128, 20))


def _clicks(*, bags: bool) -> JaxJob:
    tables, rows, width = 8, 10_000, 16
    shapes = layer_shapes("bottom.", 13, 64, width) | {f"tables.{i}.weight": (rows, width) for i in range(tables)}
    shapes |= layer_shapes("top.", width + tables * (tables + 1) // 2, 64, 32, 1)
    first, second = np.tril_indices(tables + 1, -1)

    def loss(p: Params, buffers: Params, numbers: Any, ids: Any, y: Any) -> Any:
        x = jax.nn.relu(layers(p, "bottom.", 2, numbers))
        found = [p[f"tables.{i}.weight"][ids[:, i]] for i in range(tables)]
        if bags:
            found = [rows.sum(axis=1) for rows in found]
        together = jnp.stack([x, *found], axis=1)
        pairs = together @ together.swapaxes(1, 2)
        logits = layers(p, "top.", 3, jnp.concatenate([x, pairs[:, first, second]], axis=1))[:, 0]
        return jnp.mean(binary_cross_entropy(logits, y)), buffers

    params = parameters(shapes)
    examples = batches(data.clicks(256, 13, tables, rows, 5 if bags else 0))
    if bags:
        return JaxJob(params, loss, adagrad(0.01), zeros(params), examples)
    return JaxJob(params, loss, sgd(0.01), {}, examples)


def dlrm() -> JaxJob:
    return _clicks(bags=False)


def dlrm_bags() -> JaxJob:
    return _clicks(bags=True)


def factors() -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {
        "users.weight": (5000, 32), "items.weight": (2000, 32), "user_bias.weight": (5000, 1),
        "item_bias.weight": (2000, 1),
    }  # fmt: skip

    def loss(p: Params, buffers: Params, ids: Any, y: Any) -> Any:
        user, item = ids[:, 0], ids[:, 1]
        dot = jnp.sum(p["users.weight"][user] * p["items.weight"][item], axis=1)
        predicted = dot + p["user_bias.weight"][user, 0] + p["item_bias.weight"][item, 0]
        return jnp.mean((predicted - y) ** 2), buffers

    params = parameters(shapes)
    examples = [(ids, y) for _, ids, y in batches(data.clicks(1024, 1, 2, 2000, 0))]
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples)


def pinn() -> JaxJob:
    def u(p: Params, x: Any, t: Any) -> Any:
        return layers(p, "", 4, jnp.stack([x, t]), jnp.tanh)[0]

    u_x, u_t = jax.grad(u, 1), jax.grad(u, 2)
    u_xx = jax.grad(u_x, 1)

    def residual(p: Params, x: Any, t: Any) -> Any:
        return u_t(p, x, t) + u(p, x, t) * u_x(p, x, t) - 0.01 / math.pi * u_xx(p, x, t)

    def start(p: Params, x: Any) -> Any:
        return u(p, x, 0.0) + jnp.sin(math.pi * x)

    def loss(p: Params, buffers: Params, points: Any) -> Any:
        x, t = points[:, 0], points[:, 1]
        inside = jax.vmap(residual, (None, 0, 0))(p, x, t)
        return jnp.mean(inside**2) + jnp.mean(jax.vmap(start, (None, 0))(p, x) ** 2), buffers

    params = parameters(layer_shapes("", 2, 32, 32, 32, 1))
    examples = [batch[:1] for batch in batches(data.rows(1000, 2, 10))]
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples)


def graph() -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, outputs in (("first", 64), ("second", 10)):
        shapes |= linear_shapes(f"{name}.own", 64, outputs) | linear_shapes(f"{name}.others", 64, outputs, bias=False)

    def convolution(p: Params, name: str, x: Any, source: Any, target: Any) -> Any:
        y = linear(p, f"{name}.others", x)
        total = jax.ops.segment_sum(y[source], target, len(x))
        count = jax.ops.segment_sum(jnp.ones(len(source)), target, len(x))
        return linear(p, f"{name}.own", x) + total / jnp.maximum(count, 1)[:, None]

    def loss(p: Params, buffers: Params, x: Any, source: Any, target: Any, y: Any) -> Any:
        hidden = jax.nn.relu(convolution(p, "first", x, source, target))
        return cross_entropy(convolution(p, "second", hidden, source, target), y), buffers

    params = parameters(shapes)
    return JaxJob(params, loss, adam(0.01), adam_state(params), batches(data.graphs(5000, 40_000, 64, 10)))


def policy() -> JaxJob:
    shapes = layer_shapes("body.", 17, 64, 64) | linear_shapes("actor", 64, 10) | linear_shapes("critic", 64, 1)

    def loss(p: Params, buffers: Params, x: Any, action: Any) -> Any:
        hidden = jnp.tanh(layers(p, "body.", 2, x, jnp.tanh))
        log_p, value = jax.nn.log_softmax(linear(p, "actor", hidden)), linear(p, "critic", hidden)[:, 0]
        error = jnp.sum(x, axis=1) - value
        chosen = jnp.take_along_axis(log_p, action[:, None], axis=1)[:, 0]
        entropy = -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=1))
        size = jnp.abs(error)
        huber = jnp.mean(jnp.where(size < 1, 0.5 * error * error, size - 0.5))
        return -jnp.mean(jax.lax.stop_gradient(error) * chosen) + 0.5 * huber - 0.01 * entropy, buffers

    params = parameters(shapes)
    return JaxJob(params, loss, adam(3e-4), adam_state(params), batches(data.rows(256, 17, 10)))


def swish_chain() -> JaxJob:
    def loss(p: Params, buffers: Params) -> Any:
        x = p["x"]
        y = x * jax.nn.sigmoid(x) + 0.1 * jnp.log(1 + jnp.exp(-jnp.abs(x)))
        return jnp.mean(jnp.abs((y - jnp.mean(y)) / (jnp.std(y, ddof=1) + 1e-5))), buffers

    params = parameters({"x": (1 << 20,)})
    return JaxJob(params, loss, sgd(10.0, 0.9), zeros(params), [()])


MORE: dict[str, Callable[[], JaxJob]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        mlp_small, mlp_wide, mlp_deep, logistic, autoencoder, vae, dlrm, dlrm_bags, factors, pinn, graph, policy,
        swish_chain, char_rnn, gru, rnn, lstm_small, bilstm, seq2seq_gru, vit, gpt_mid, llama, seq2seq, encoder,
        lenet, cnn_wide, bottleneck, convnext, vae_conv, unet,
    )
}  # fmt: skip
