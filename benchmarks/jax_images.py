"""JAX versions of the workloads over images, NHWC. They belong to the table of ``more_jax_workloads.py``."""

from __future__ import annotations

import itertools
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
    batch_norm,
    batches,
    conv,
    cross_entropy,
    dropout,
    layer_norm,
    linear,
    linear_shapes,
    max_pool2,
    next_key,
    norm_shapes,
    parameters,
    running,
    sgd,
    zeros,
)

Shapes = dict[str, tuple[int, ...]]


def conv_shapes(name: str, inputs: int, outputs: int, kernel: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel)} | ({f"{name}.bias": (outputs,)} if bias else {})


def conv_transpose(p: Params, name: str, x: Any, stride: int, padding: int) -> Any:
    w = p[f"{name}.weight"]  # (H, W, outputs, inputs)
    pad = [(k - 1 - padding, k - 1 - padding) for k in w.shape[:2]]
    y = lax.conv_transpose(
        x, w, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"), transpose_kernel=True
    )
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def flat(x: Any) -> Any:
    """As PyTorch flattens (N, C, H, W): the weights behind it count channels first."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def average_pool2(x: Any) -> Any:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def lenet() -> JaxJob:
    shapes = conv_shapes("0", 1, 6, 5) | conv_shapes("3", 6, 16, 5)
    shapes |= linear_shapes("7", 400, 120) | linear_shapes("9", 120, 84) | linear_shapes("11", 84, 10)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        x = average_pool2(jnp.tanh(conv(p, "0", x)))
        x = flat(average_pool2(jnp.tanh(conv(p, "3", x, padding=0))))
        x = jnp.tanh(linear(p, "9", jnp.tanh(linear(p, "7", x))))
        return cross_entropy(linear(p, "11", x), y), buffers

    params = parameters(shapes)
    return JaxJob(params, loss, sgd(0.01, 0.9), zeros(params), batches(data.images(64, 1, 28)))


def cnn_wide() -> JaxJob:
    shapes: Shapes = {}
    stages = [[(str(first), str(first + 1)) for first in (start, start + 3)] for start in (0, 7, 14)]
    inputs = 3
    for stage, outputs in zip(stages, (64, 128, 256), strict=True):
        for first, norm in stage:
            shapes |= conv_shapes(first, inputs, outputs, 3) | norm_shapes(norm, outputs)
            inputs = outputs
    shapes |= linear_shapes("22", 256 * 4 * 4, 256) | linear_shapes("25", 256, 10)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        new: Params = {}
        key = next_key(buffers, new)
        for stage in stages:
            for first, norm in stage:
                x = jax.nn.relu(batch_norm(p, buffers, new, norm, conv(p, first, x)))
            x = max_pool2(x)
        x = dropout(key, jax.nn.relu(linear(p, "22", flat(x))), 0.5)
        return cross_entropy(linear(p, "25", x), y), new

    params = parameters(shapes)
    buffers = running([norm for _, norm in itertools.chain(*stages)], shapes) | {"key": jax.random.key(0)}
    return JaxJob(params, loss, sgd(0.001, 0.9), zeros(params), batches(data.images(16, 3, 32)), buffers)


def bottleneck() -> JaxJob:
    shapes: Shapes = conv_shapes("0", 3, 64, 3, bias=False) | norm_shapes("1", 64)
    norms, blocks, inputs = ["1"], [], 64
    for i, (width, stride) in enumerate(((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1))):
        b = str(3 + i)
        blocks.append((b, stride))
        for j, (ins, outs, kernel) in enumerate(((inputs, width, 1), (width, width, 3), (width, 4 * width, 1)), 1):
            shapes |= conv_shapes(f"{b}.conv{j}", ins, outs, kernel, bias=False) | norm_shapes(f"{b}.bn{j}", outs)
            norms.append(f"{b}.bn{j}")
        if inputs != 4 * width:
            shapes |= conv_shapes(f"{b}.shortcut.0", inputs, 4 * width, 1, bias=False)
            shapes |= norm_shapes(f"{b}.shortcut.1", 4 * width)
            norms.append(f"{b}.shortcut.1")
        inputs = 4 * width
    shapes |= linear_shapes("11", inputs, 10)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        new: Params = {}
        x = jax.nn.relu(batch_norm(p, buffers, new, "1", conv(p, "0", x)))
        for b, stride in blocks:
            z = jax.nn.relu(batch_norm(p, buffers, new, f"{b}.bn1", conv(p, f"{b}.conv1", x)))
            z = jax.nn.relu(batch_norm(p, buffers, new, f"{b}.bn2", conv(p, f"{b}.conv2", z, stride)))
            z = batch_norm(p, buffers, new, f"{b}.bn3", conv(p, f"{b}.conv3", z))
            if f"{b}.shortcut.0.weight" in p:
                x = batch_norm(p, buffers, new, f"{b}.shortcut.1", conv(p, f"{b}.shortcut.0", x, stride))
            x = jax.nn.relu(z + x)
        return cross_entropy(linear(p, "11", jnp.mean(x, axis=(1, 2))), y), new

    params = parameters(shapes)
    update, examples = sgd(0.01, 0.9, 1e-4), batches(data.images(8, 3, 32))
    return JaxJob(params, loss, update, zeros(params), examples, running(norms, shapes))


def convnext() -> JaxJob:
    width, blocks = 96, ("1", "2", "3")
    shapes: Shapes = conv_shapes("0", 3, width, 2)
    for b in blocks:
        shapes |= {f"{b}.scale": (width,), f"{b}.depthwise.weight": (width, 1, 7, 7), f"{b}.depthwise.bias": (width,)}
        shapes |= norm_shapes(f"{b}.norm", width) | linear_shapes(f"{b}.up", width, 4 * width)
        shapes |= linear_shapes(f"{b}.down", 4 * width, width)
    shapes |= norm_shapes("6", width) | linear_shapes("7", width, 10)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        x = conv(p, "0", x, stride=2, padding=0)
        for b in blocks:
            z = layer_norm(p, f"{b}.norm", conv(p, f"{b}.depthwise", x, groups=width))
            z = linear(p, f"{b}.down", jax.nn.gelu(linear(p, f"{b}.up", z), approximate=False))
            x = x + p[f"{b}.scale"] * z
        return cross_entropy(linear(p, "7", layer_norm(p, "6", jnp.mean(x, axis=(1, 2)))), y), buffers

    params = parameters(shapes)
    update = adam(1e-3, decay=0.05)
    return JaxJob(params, loss, update, adam_state(params), batches(data.images(8, 3, 32)))


def vae_conv() -> JaxJob:
    shapes: Shapes = conv_shapes("encode.0", 3, 32, 4) | conv_shapes("encode.2", 32, 64, 4)
    shapes |= linear_shapes("encode.5", 64 * 8 * 8, 128) | linear_shapes("decode.0", 64, 64 * 8 * 8)
    shapes |= {"decode.3.weight": (64, 32, 4, 4), "decode.3.bias": (32,)}  # inputs first where it is transposed
    shapes |= {"decode.5.weight": (32, 3, 4, 4), "decode.5.bias": (3,)}

    def loss(p: Params, buffers: Params, x: Any, *noise: Any) -> Any:
        new: Params = {}
        key = next_key(buffers, new)
        z = jax.nn.relu(conv(p, "encode.0", x, stride=2, padding=1))
        z = jax.nn.relu(conv(p, "encode.2", z, stride=2, padding=1))
        mean, log_variance = jnp.split(linear(p, "encode.5", flat(z)), 2, axis=1)
        drawn = noise[0] if key is None else jax.random.normal(key, mean.shape)
        z = jax.nn.relu(linear(p, "decode.0", mean + drawn * jnp.exp(0.5 * log_variance)))
        z = z.reshape(len(z), 64, 8, 8).transpose(0, 2, 3, 1)
        z = jax.nn.relu(conv_transpose(p, "decode.3", z, 2, 1))
        seen = jax.nn.sigmoid(conv_transpose(p, "decode.5", z, 2, 1))
        divergence = -0.5 * jnp.mean(jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance), axis=1))
        return jnp.sum((seen - x) ** 2) / len(x) + divergence, new

    params = parameters(shapes)
    examples = [(jax.nn.sigmoid(x),) for x, _ in batches(data.images(32, 3, 32))]
    buffers = {"key": jax.random.key(0)}
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples, buffers, noise=(32, 64))


def unet() -> JaxJob:
    doubles = {
        "down1": (3, 16), "down2": (16, 32), "bottom": (32, 64), "join2": (64, 32), "join1": (48, 16)
    }  # fmt: skip
    shapes: Shapes = {"up2.weight": (64, 32, 2, 2), "up2.bias": (32,)} | conv_shapes("head", 16, 1, 1)
    norms = []
    for name, (inputs, outputs) in doubles.items():
        shapes |= conv_shapes(f"{name}.0", inputs, outputs, 3) | norm_shapes(f"{name}.1", outputs)
        shapes |= conv_shapes(f"{name}.3", outputs, outputs, 3) | norm_shapes(f"{name}.4", outputs)
        norms += [f"{name}.1", f"{name}.4"]

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        new: Params = {}

        def double(name: str, x: Any) -> Any:
            x = jax.nn.relu(batch_norm(p, buffers, new, f"{name}.1", conv(p, f"{name}.0", x)))
            return jax.nn.relu(batch_norm(p, buffers, new, f"{name}.4", conv(p, f"{name}.3", x)))

        a = double("down1", x)
        b = double("down2", max_pool2(a))
        c = double("bottom", max_pool2(b))
        b = double("join2", jnp.concatenate([b, conv_transpose(p, "up2", c, 2, 0)], axis=-1))
        a = double("join1", jnp.concatenate([a, b.repeat(2, axis=1).repeat(2, axis=2)], axis=-1))
        logits = conv(p, "head", a)
        return jnp.mean(jnp.maximum(logits, 0) - logits * y + jnp.log1p(jnp.exp(-jnp.abs(logits)))), new

    params = parameters(shapes)
    examples = [(x, (x.mean(axis=-1, keepdims=True) > 0).astype(x.dtype)) for x, _ in batches(data.images(4, 3, 64))]
    return JaxJob(params, loss, adam(1e-3), adam_state(params), examples, running(norms, shapes))
