"""JAX versions of the workloads of attention. They belong to the table of ``more_jax_workloads.py``."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import data
from benchmarks.jax_workloads import (
    JaxJob,
    Params,
    adam,
    adam_state,
    batches,
    conv,
    cross_entropy,
    dropout,
    gpt,
    layer_norm,
    linear,
    linear_shapes,
    next_key,
    norm_shapes,
    parameters,
)

Shapes = dict[str, tuple[int, ...]]


def gpt_mid() -> JaxJob:
    return gpt(layers=4, heads=8, width=256, context=128, batch=8, vocabulary=1000)


def attention(q: Any, k: Any, v: Any, allowed: Any = None, key: Any = None) -> Any:
    """Heads lie in the second place: (N, heads, T, width of a head)."""
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if allowed is not None:
        scores = jnp.where(allowed, scores, -jnp.inf)
    return dropout(key, jax.nn.softmax(scores, axis=-1), 0.1) @ v


def split_heads(x: Any, heads: int) -> Any:
    n, t, width = x.shape
    return x.reshape(n, t, heads, width // heads).transpose(0, 2, 1, 3)


def join_heads(x: Any) -> Any:
    n, heads, t, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(n, t, heads * width)


def multihead_shapes(name: str, width: int) -> Shapes:
    """The parameters of ``nn.MultiheadAttention``."""
    packed: Shapes = {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
    return packed | linear_shapes(f"{name}.out_proj", width, width)


def multihead(p: Params, name: str, heads: int, x: Any, seen: Any = None, allowed: Any = None, key: Any = None) -> Any:
    """``x`` attends to itself, or to ``seen``."""
    weight, bias = p[f"{name}.in_proj_weight"], p[f"{name}.in_proj_bias"]
    if seen is None:
        q, k, v = jnp.split(x @ weight.T + bias, 3, axis=-1)
    else:
        width = x.shape[-1]
        q = x @ weight[:width].T + bias[:width]
        k, v = jnp.split(seen @ weight[width:].T + bias[width:], 2, axis=-1)
    q, k, v = (split_heads(y, heads) for y in (q, k, v))
    mixed = attention(q, k, v, allowed, key)
    return linear(p, f"{name}.out_proj", join_heads(mixed))


def vit() -> JaxJob:
    width, heads, blocks = 192, 3, 6
    shapes: Shapes = {"token": (1, 1, width), "places": (1, 65, width)}
    shapes |= {"patches.weight": (width, 3, 4, 4), "patches.bias": (width,)}
    for i in range(blocks):
        b = f"blocks.{i}"
        shapes |= norm_shapes(f"{b}.norm1", width) | norm_shapes(f"{b}.norm2", width)
        shapes |= multihead_shapes(f"{b}.attention", width)
        shapes |= linear_shapes(f"{b}.mlp.0", width, 4 * width) | linear_shapes(f"{b}.mlp.2", 4 * width, width)
    shapes |= norm_shapes("norm", width) | linear_shapes("head", width, 10)

    def block(p: Params, b: str, x: Any) -> Any:
        x = x + multihead(p, f"{b}.attention", heads, layer_norm(p, f"{b}.norm1", x))
        hidden = jax.nn.gelu(linear(p, f"{b}.mlp.0", layer_norm(p, f"{b}.norm2", x)), approximate=False)
        return x + linear(p, f"{b}.mlp.2", hidden)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        x = conv(p, "patches", x, stride=4, padding=0)
        x = x.reshape(len(x), -1, width)
        x = jnp.concatenate([jnp.broadcast_to(p["token"], (len(x), 1, width)), x], axis=1) + p["places"]
        for i in range(blocks):
            x = block(p, f"blocks.{i}", x)
        return cross_entropy(linear(p, "head", layer_norm(p, "norm", x[:, 0])), y), buffers

    params = parameters(shapes)
    update = adam(1e-3, decay=0.05)
    return JaxJob(params, loss, update, adam_state(params), batches(data.images(16, 3, 32)))


def llama() -> JaxJob:
    width, heads, context, vocabulary, blocks = 192, 6, 96, 512, 4
    half = width // heads // 2
    angles = np.arange(context, dtype=np.float32)[:, None] * 10000.0 ** (-np.arange(half, dtype=np.float32) / half)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    causal = np.tril(np.ones((context, context), bool))
    shapes: Shapes = {"0.weight": (vocabulary, width)}
    for i in range(1, blocks + 1):
        shapes |= {f"{i}.norm1.weight": (width,), f"{i}.norm2.weight": (width,)}
        for name in "qkvo":
            shapes |= linear_shapes(f"{i}.{name}", width, width, bias=False)
        shapes |= linear_shapes(f"{i}.gate", width, 512, bias=False) | linear_shapes(f"{i}.up", width, 512, bias=False)
        shapes |= linear_shapes(f"{i}.down", 512, width, bias=False)
    shapes |= {"5.weight": (width,)} | linear_shapes("6", width, vocabulary, bias=False)

    def norm(p: Params, name: str, x: Any) -> Any:
        return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * p[f"{name}.weight"]

    def rotate(x: Any) -> Any:
        a, b = x[..., :half], x[..., half:]
        return jnp.concatenate([a * cosines - b * sines, a * sines + b * cosines], axis=-1)

    def block(p: Params, b: str, x: Any) -> Any:
        y = norm(p, f"{b}.norm1", x)
        q, k, v = (split_heads(linear(p, f"{b}.{name}", y), heads) for name in "qkv")
        x = x + linear(p, f"{b}.o", join_heads(attention(rotate(q), rotate(k), v, causal)))
        y = norm(p, f"{b}.norm2", x)
        return x + linear(p, f"{b}.down", jax.nn.silu(linear(p, f"{b}.gate", y)) * linear(p, f"{b}.up", y))

    def loss(p: Params, buffers: Params, ids: Any, following: Any) -> Any:
        x = p["0.weight"][ids]
        for i in range(1, blocks + 1):
            x = block(p, str(i), x)
        return cross_entropy(linear(p, "6", norm(p, "5", x)), following), buffers

    params = parameters(shapes)
    update = adam(3e-4, 0.9, 0.95, decay=0.1)
    return JaxJob(params, loss, update, adam_state(params), batches(data.tokens(8, context, vocabulary)))


def layer_shapes(name: str, width: int, wide: int, crossing: bool = False) -> Shapes:
    """The parameters of ``nn.TransformerEncoderLayer``, with ``crossing`` of ``nn.TransformerDecoderLayer``."""
    shapes = multihead_shapes(f"{name}.self_attn", width)
    shapes |= linear_shapes(f"{name}.linear1", width, wide) | linear_shapes(f"{name}.linear2", wide, width)
    shapes |= norm_shapes(f"{name}.norm1", width) | norm_shapes(f"{name}.norm2", width)
    if crossing:
        shapes |= multihead_shapes(f"{name}.multihead_attn", width) | norm_shapes(f"{name}.norm3", width)
    return shapes


def layer(
    p: Params, name: str, heads: int, x: Any, key: Any, *, activation: Any, allowed: Any = None, seen: Any = None
) -> Any:
    """Norms stand behind the sums; dropout of 0.1 on weights, hidden numbers and branches."""
    keys = [None] * 6 if key is None else list(jax.random.split(key, 6))
    x = layer_norm(
        p,
        f"{name}.norm1",
        x + dropout(keys[0], multihead(p, f"{name}.self_attn", heads, x, None, allowed, keys[1]), 0.1),
    )
    if seen is not None:
        crossed = multihead(p, f"{name}.multihead_attn", heads, x, seen, None, keys[2])
        x = layer_norm(p, f"{name}.norm2", x + dropout(keys[3], crossed, 0.1))
    hidden = dropout(keys[4], activation(linear(p, f"{name}.linear1", x)), 0.1)
    last = "norm2" if seen is None else "norm3"
    return layer_norm(p, f"{name}.{last}", x + dropout(keys[5], linear(p, f"{name}.linear2", hidden), 0.1))


def _layer_key(key: Any, i: int) -> Any:
    return None if key is None else jax.random.fold_in(key, i)


def seq2seq() -> JaxJob:
    width, length, vocabulary = 128, 32, 500
    shapes: Shapes = {"source.weight": (vocabulary, width), "target.weight": (vocabulary, width)}
    shapes |= {"places.weight": (length, width)} | linear_shapes("head", width, vocabulary)
    for i in range(2):
        shapes |= layer_shapes(f"transformer.encoder.layers.{i}", width, 512)
        shapes |= layer_shapes(f"transformer.decoder.layers.{i}", width, 512, crossing=True)
    shapes |= norm_shapes("transformer.encoder.norm", width) | norm_shapes("transformer.decoder.norm", width)
    causal = np.tril(np.ones((length, length), bool))

    def loss(p: Params, buffers: Params, source: Any, target: Any, following: Any) -> Any:
        new: Params = {}
        key, relu = next_key(buffers, new), jax.nn.relu
        x = p["source.weight"][source] * math.sqrt(width) + p["places.weight"]
        y = p["target.weight"][target] * math.sqrt(width) + p["places.weight"]
        for i in range(2):
            x = layer(p, f"transformer.encoder.layers.{i}", 4, x, _layer_key(key, i), activation=relu)
        x = layer_norm(p, "transformer.encoder.norm", x)
        for i in range(2):
            name = f"transformer.decoder.layers.{i}"
            y = layer(p, name, 4, y, _layer_key(key, 2 + i), activation=relu, allowed=causal, seen=x)
        return cross_entropy(linear(p, "head", layer_norm(p, "transformer.decoder.norm", y)), following), new

    params = parameters(shapes)
    examples = [(ids[:, ::-1], ids, following) for ids, following in batches(data.tokens(16, length, vocabulary))]
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples, {"key": jax.random.key(0)})


def encoder() -> JaxJob:
    shapes: Shapes = {"tokens.weight": (1000, 128), "places.weight": (64, 128), **linear_shapes("head", 128, 10)}
    for i in range(3):
        shapes |= layer_shapes(f"encoder.layers.{i}", 128, 512)

    def gelu(x: Any) -> Any:
        return jax.nn.gelu(x, approximate=False)

    def loss(p: Params, buffers: Params, ids: Any, y: Any) -> Any:
        new: Params = {}
        key = next_key(buffers, new)
        table, real = p["tokens.weight"], ids != 0
        # The vector of padding is read and not learned.
        x = jnp.concatenate([lax.stop_gradient(table[:1]), table[1:]])[ids] + p["places.weight"]
        for i in range(3):
            name = f"encoder.layers.{i}"
            x = layer(p, name, 4, x, _layer_key(key, i), activation=gelu, allowed=real[:, None, None, :])
        kept = real[..., None].astype(x.dtype)
        return cross_entropy(linear(p, "head", jnp.sum(x * kept, axis=1) / jnp.sum(kept, axis=1)), y), new

    params = parameters(shapes)
    examples, update = batches(data.texts(16, 64, 1000, 10)), adam(5e-4, decay=0.01)
    return JaxJob(params, loss, update, adam_state(params), examples, {"key": jax.random.key(0)})
