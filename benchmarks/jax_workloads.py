"""The same training steps written for JAX: pure functions under one ``jit``, parameters donated, images NHWC.

Parameters are dicts under the names PyTorch's ``state_dict`` uses, so every framework starts from the same weights and
``--check`` can compare losses. Optimizers are written out as in the papers, with PyTorch's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import data

Params = dict[str, Any]


@dataclass
class JaxJob:
    params: Params
    loss: Callable[..., Any]  # loss(params, *batch) -> scalar, or (scalar, new buffers) if `buffers`
    update: Callable[..., tuple[Params, Any]]  # update(params, grads, state) -> params, state
    state: Any
    batches: list[tuple[Any, ...]]
    buffers: Params = field(default_factory=dict)  # what a step changes beside parameters: statistics, "key" of chance
    noise: tuple[int, ...] = ()  # the shape of what the loss takes as its last argument where "key" is gone
    run: Any = None

    def __post_init__(self) -> None:
        def step(params: Params, buffers: Params, state: Any, *batch: Any) -> Any:
            (loss, new_buffers), grads = jax.value_and_grad(self.loss, has_aux=True)(params, buffers, *batch)
            params, state = self.update(params, grads, state)
            return params, new_buffers, state, loss

        self.run = jax.jit(step, donate_argnums=(0, 1, 2))

    def step(self, index: int) -> Any:
        batch = self.batches[index % len(self.batches)]
        self.params, self.buffers, self.state, loss = self.run(self.params, self.buffers, self.state, *batch)
        return jax.block_until_ready((self.params, loss))[1]

    def without_chance(self) -> None:
        """From here on no dropout and, for as many steps as there are batches, the noise all frameworks take."""
        self.buffers.pop("key", None)
        if self.noise:
            draw = data.Noise(jnp.asarray)
            self.batches = [(*batch, draw.array(self.noise)) for batch in self.batches]


def build(name: str) -> JaxJob:
    """The job of that name with the weights that every framework starts from."""
    from benchmarks.more_jax_workloads import MORE

    if name not in WORKLOADS and name not in MORE:
        raise LookupError(f"{name} has no JAX version; there are: {', '.join([*WORKLOADS, *MORE])}")
    return (WORKLOADS.get(name) or MORE[name])()


# Parameters and batches


def parameters(shapes: dict[str, tuple[int, ...]]) -> Params:
    """First values on the device; kernels (O, I, H, W) become (H, W, I, O)."""
    values = data.initial_state(shapes)
    return {n: jnp.asarray(v.transpose(2, 3, 1, 0) if v.ndim == 4 else v) for n, v in values.items()}


def batches(arrays: Sequence[tuple[np.ndarray, ...]]) -> list[tuple[Any, ...]]:
    def convert(array: np.ndarray) -> Any:
        array = array.astype(np.int32) if array.dtype == np.int64 else array
        return jnp.asarray(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)

    return [tuple(convert(array) for array in batch) for batch in arrays]


def linear_shapes(name: str, inputs: int, outputs: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


# Optimizers


def sgd(lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> Callable[..., tuple[Params, Any]]:
    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        if weight_decay:
            grads = {n: g + weight_decay * params[n] for n, g in grads.items()}
        if not momentum:
            return {n: p - lr * grads[n] for n, p in params.items()}, state
        state = {n: momentum * state[n] + g for n, g in grads.items()}
        return {n: p - lr * state[n] for n, p in params.items()}, state

    return update


def adam(
    lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, decay: float = 0.0
) -> Callable[..., tuple[Params, Any]]:
    """Kingma and Ba 2015; ``decay`` is decoupled (Loshchilov and Hutter 2019)."""

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        step, m, v = state
        step = step + 1
        m = {n: beta1 * m[n] + (1 - beta1) * g for n, g in grads.items()}
        v = {n: beta2 * v[n] + (1 - beta2) * g * g for n, g in grads.items()}
        rate, scale = lr / (1 - beta1**step), jnp.sqrt(1 - beta2**step)
        params = {n: p * (1 - lr * decay) - rate * m[n] / (jnp.sqrt(v[n]) / scale + eps) for n, p in params.items()}
        return params, (step, m, v)

    return update


def zeros(params: Params) -> Params:
    return {n: jnp.zeros_like(p) for n, p in params.items()}


def adam_state(params: Params) -> Any:
    return jnp.zeros((), jnp.float32), zeros(params), zeros(params)


# Layers


def linear(p: Params, name: str, x: Any) -> Any:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def cross_entropy(logits: Any, target: Any) -> Any:
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - picked)


def conv(p: Params, name: str, x: Any, stride: int = 1, padding: int | None = None, groups: int = 1) -> Any:
    w = p[f"{name}.weight"]
    pad = [(k // 2, k // 2) if padding is None else (padding, padding) for k in w.shape[:2]]
    y = lax.conv_general_dilated(
        x, w, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def batch_norm(p: Params, buffers: Params, new: Params, name: str, x: Any) -> Any:
    axes = tuple(range(x.ndim - 1))
    mean, var = jnp.mean(x, axis=axes), jnp.var(x, axis=axes)
    count = x.size // x.shape[-1]
    for key, value in (("running_mean", mean), ("running_var", var * count / (count - 1))):
        new[f"{name}.{key}"] = 0.9 * buffers[f"{name}.{key}"] + 0.1 * value
    return (x - mean) * lax.rsqrt(var + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def layer_norm(p: Params, name: str, x: Any) -> Any:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def max_pool2(x: Any) -> Any:
    # A maximum over a reshaped view: XLA's gradient of reduce_window is several times slower on the CPU.
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def next_key(buffers: Params, new: Params) -> Any:
    """A key for this step, the one for the next among the ``new`` buffers; None where nothing is drawn."""
    if "key" not in buffers:
        return None
    new["key"], key = jax.random.split(buffers["key"])
    return key


def dropout(key: Any, x: Any, rate: float) -> Any:
    return x if key is None else jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def running(names: list[str], shapes: dict[str, tuple[int, ...]]) -> Params:
    stats = {f"{n}.{key}": shapes[f"{n}.weight"] for n in names for key in ("running_mean", "running_var")}
    return parameters(stats)


# Workloads


def _mlp(sizes: tuple[int, ...], last: Callable[..., Any]) -> tuple[Params, Callable[..., Any]]:
    names = [str(2 * i) for i in range(len(sizes) - 1)]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, inputs, outputs in zip(names, sizes, sizes[1:], strict=False):
        shapes |= linear_shapes(name, inputs, outputs)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        for name in names[:-1]:
            x = jax.nn.relu(linear(p, name, x))
        return last(linear(p, names[-1], x), y), buffers

    return parameters(shapes), loss


def tiny() -> JaxJob:
    params, loss = _mlp((16, 32, 32, 1), lambda x, y: jnp.mean((x - y) ** 2))
    return JaxJob(params, loss, sgd(0.01, 0.9), zeros(params), batches(data.regression(8, 16)))


def mlp() -> JaxJob:
    params, loss = _mlp((784, 512, 256, 10), cross_entropy)
    return JaxJob(params, loss, adam(1e-4), adam_state(params), batches(data.rows(128, 784, 10)))


def cnn() -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {
        "0.weight": (32, 1, 3, 3), "0.bias": (32,), **norm_shapes("1", 32),
        "4.weight": (64, 32, 3, 3), "4.bias": (64,), **norm_shapes("5", 64),
        **linear_shapes("9", 64 * 7 * 7, 10),
    }  # fmt: skip

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        new: Params = {}
        for first, norm in (("0", "1"), ("4", "5")):
            x = max_pool2(jax.nn.relu(batch_norm(p, buffers, new, norm, conv(p, first, x))))
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # the weights' order: channels first
        return cross_entropy(linear(p, "9", x), y), new

    params = parameters(shapes)
    return JaxJob(
        params, loss, adam(1e-3), adam_state(params), batches(data.images(64, 1, 28)), running(["1", "5"], shapes)
    )


def resnet18() -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {"0.weight": (64, 3, 3, 3), **norm_shapes("1", 64)}
    norms, blocks, inputs = ["1"], [], 64
    for stage, outputs in enumerate((64, 128, 256, 512)):
        for half in range(2):
            name, stride = str(3 + 2 * stage + half), 2 if stage and not half else 1
            blocks.append((name, stride))
            shapes |= {f"{name}.conv1.weight": (outputs, inputs, 3, 3), **norm_shapes(f"{name}.bn1", outputs)}
            shapes |= {f"{name}.conv2.weight": (outputs, outputs, 3, 3), **norm_shapes(f"{name}.bn2", outputs)}
            norms += [f"{name}.bn1", f"{name}.bn2"]
            if stride != 1:
                shapes[f"{name}.shortcut.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= norm_shapes(f"{name}.shortcut.1", outputs)
                norms.append(f"{name}.shortcut.1")
            inputs = outputs
    shapes |= linear_shapes("13", 512, 10)

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        new: Params = {}
        x = jax.nn.relu(batch_norm(p, buffers, new, "1", conv(p, "0", x)))
        for name, stride in blocks:
            z = jax.nn.relu(batch_norm(p, buffers, new, f"{name}.bn1", conv(p, f"{name}.conv1", x, stride)))
            z = batch_norm(p, buffers, new, f"{name}.bn2", conv(p, f"{name}.conv2", z))
            if f"{name}.shortcut.0.weight" in p:
                x = batch_norm(p, buffers, new, f"{name}.shortcut.1", conv(p, f"{name}.shortcut.0", x, stride))
            x = jax.nn.relu(z + x)
        return cross_entropy(linear(p, "13", jnp.mean(x, axis=(1, 2))), y), new

    params = parameters(shapes)
    return JaxJob(
        params, loss, sgd(0.01, 0.9, 5e-4), zeros(params), batches(data.images(16, 3, 32)), running(norms, shapes)
    )


def gpt(
    *, layers: int = 6, heads: int = 6, width: int = 384, context: int = 256, batch: int = 4, vocabulary: int = 256
) -> JaxJob:
    shapes: dict[str, tuple[int, ...]] = {"tokens.weight": (vocabulary, width), "places.weight": (context, width)}
    for i in range(layers):
        b = f"blocks.{i}"
        shapes |= norm_shapes(f"{b}.ln1", width) | norm_shapes(f"{b}.ln2", width)
        shapes |= linear_shapes(f"{b}.qkv", width, 3 * width) | linear_shapes(f"{b}.proj", width, width)
        shapes |= linear_shapes(f"{b}.up", width, 4 * width) | linear_shapes(f"{b}.down", 4 * width, width)
    shapes |= norm_shapes("norm", width) | linear_shapes("head", width, vocabulary, bias=False)
    causal = np.tril(np.ones((context, context), bool))

    def block(p: Params, b: str, x: Any) -> Any:
        n, t, _ = x.shape
        qkv = linear(p, f"{b}.qkv", layer_norm(p, f"{b}.ln1", x)).reshape(n, t, 3, heads, width // heads)
        q, k, v = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        scores = jnp.where(causal, q @ k.swapaxes(-1, -2) / math.sqrt(width // heads), -jnp.inf)
        mixed = (jax.nn.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape(n, t, width)
        x = x + linear(p, f"{b}.proj", mixed)
        return x + linear(p, f"{b}.down", jax.nn.gelu(linear(p, f"{b}.up", layer_norm(p, f"{b}.ln2", x))))

    def loss(p: Params, buffers: Params, ids: Any, following: Any) -> Any:
        x = p["tokens.weight"][ids] + p["places.weight"]
        for i in range(layers):
            x = block(p, f"blocks.{i}", x)
        return cross_entropy(linear(p, "head", layer_norm(p, "norm", x)), following), buffers

    params = parameters(shapes)
    update = adam(3e-4, 0.9, 0.95, decay=0.1)
    return JaxJob(params, loss, update, adam_state(params), batches(data.tokens(batch, context, vocabulary)))


def gpt_micro() -> JaxJob:
    return gpt(layers=4, heads=4, width=128, context=64, batch=8)


def lstm() -> JaxJob:
    width = 256
    shapes = {
        "lstm.weight_ih_l0": (4 * width, width), "lstm.weight_hh_l0": (4 * width, width),
        "lstm.bias_ih_l0": (4 * width,), "lstm.bias_hh_l0": (4 * width,),
        **linear_shapes("head", width, 1),
    }  # fmt: skip

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        ahead = x.swapaxes(0, 1) @ p["lstm.weight_ih_l0"].T + p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]

        def cell(state: Any, gates: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(gates + h @ p["lstm.weight_hh_l0"].T, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        start = jnp.zeros((x.shape[0], width))
        (h, _), _ = lax.scan(cell, (start, start), ahead)
        return jnp.mean((linear(p, "head", h) - y) ** 2), buffers

    params = parameters(shapes)
    return JaxJob(params, loss, adam(1e-3), adam_state(params), batches(data.sequences(32, 64, 256)))


def chain() -> JaxJob:
    def loss(p: Params, buffers: Params) -> Any:
        x = p["x"]
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return jnp.mean(0.5 * x * (1.0 + jnp.tanh(inner))), buffers

    params = parameters({"x": (1 << 22,)})
    return JaxJob(params, loss, sgd(1000.0), {}, [()])


WORKLOADS: dict[str, Callable[[], JaxJob]] = {
    "tiny": tiny,
    "mlp": mlp,
    "cnn": cnn,
    "resnet18": resnet18,
    "gpt-micro": gpt_micro,
    "gpt": gpt,
    "lstm": lstm,
    "chain": chain,
}
