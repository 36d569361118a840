"""Single ops beside PyTorch's: rows of a name, the shapes of the inputs and a call on the namespace.

A new op to watch is a new row. Shapes are those of the training steps in ``workloads``, and small ones where the cost
of a call itself shows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    name: str
    shapes: tuple[Shape, ...]
    call: Callable[..., Any]  # call(ns, *tensors) -> one tensor
    whole: int = 0  # the last `whole` inputs are int64, below `below`
    below: int = 0
    backward: bool = True


def rows() -> list[Row]:
    big: Shape = (1 << 20,)
    image: Shape = (64, 32, 28, 28)
    text: Shape = (1024, 384)
    heads: Shape = (4, 6, 256, 64)

    def F(ns: Any) -> Any:
        return ns.nn.functional

    return [
        Row("add small", ((8,), (8,)), lambda ns, a, b: a + b),
        Row("mul small", ((32, 32), (32, 32)), lambda ns, a, b: a * b),
        Row("sum small", ((32, 32),), lambda ns, x: x.sum()),
        Row("matmul small", ((8, 32), (32, 32)), lambda ns, a, b: a @ b),
        Row("add", (big, big), lambda ns, a, b: a + b),
        Row("add row", ((1024, 1024), (1024,)), lambda ns, a, b: a + b),
        Row("add transposed", ((1024, 1024), (1024, 1024)), lambda ns, a, b: a + b.transpose(0, 1)),
        Row("mul number", (big,), lambda ns, x: x * 2.0),
        Row("exp", (big,), lambda ns, x: ns.exp(x)),
        Row("log of square", (big,), lambda ns, x: ns.log(x * x + 1.0)),
        Row("tanh", (big,), lambda ns, x: ns.tanh(x)),
        Row("sigmoid", (big,), lambda ns, x: ns.sigmoid(x)),
        Row("erf", (big,), lambda ns, x: ns.erf(x)),
        Row("sin", (big,), lambda ns, x: ns.sin(x)),
        Row("sqrt", (big,), lambda ns, x: ns.sqrt(x * x)),
        Row("relu", (big,), lambda ns, x: F(ns).relu(x)),
        Row("gelu", (big,), lambda ns, x: F(ns).gelu(x)),
        Row("gelu tanh", (big,), lambda ns, x: F(ns).gelu(x, approximate="tanh")),
        Row("silu", (big,), lambda ns, x: F(ns).silu(x)),
        Row("where", (big, big), lambda ns, a, b: ns.where(a > b, a, b)),
        Row("sum", (big,), lambda ns, x: x.sum()),
        Row("sum rows", ((1024, 1024),), lambda ns, x: x.sum(1)),
        Row("sum columns", ((1024, 1024),), lambda ns, x: x.sum(0)),
        Row("mean of channels", (image,), lambda ns, x: x.mean((0, 2, 3))),
        Row("amax rows", ((1024, 1024),), lambda ns, x: x.amax(1)),
        Row("var rows", ((1024, 1024),), lambda ns, x: x.var(1)),
        Row("argmax rows", ((1024, 1024),), lambda ns, x: x.argmax(1), backward=False),
        Row("logsumexp rows", ((1024, 1024),), lambda ns, x: x.logsumexp(1)),
        Row("cumsum rows", ((1024, 1024),), lambda ns, x: x.cumsum(1)),
        Row("contiguous of transposed", ((1024, 1024),), lambda ns, x: x.transpose(0, 1).contiguous()),
        Row("cat", ((512, 1024), (512, 1024)), lambda ns, a, b: ns.cat((a, b), 0)),
        Row("matmul 64", ((64, 64), (64, 64)), lambda ns, a, b: a @ b),
        Row("matmul 256", ((256, 256), (256, 256)), lambda ns, a, b: a @ b),
        Row("matmul 1024", ((1024, 1024), (1024, 1024)), lambda ns, a, b: a @ b),
        Row("matmul batched", ((24, 256, 64), (24, 64, 256)), lambda ns, a, b: a @ b),
        Row("linear mlp", ((128, 784), (512, 784), (512,)), lambda ns, x, w, b: F(ns).linear(x, w, b)),
        Row("linear gpt", (text, (1536, 384), (1536,)), lambda ns, x, w, b: F(ns).linear(x, w, b)),
        Row("softmax", ((1536, 256),), lambda ns, x: F(ns).softmax(x, dim=-1)),
        Row("log_softmax", (text,), lambda ns, x: F(ns).log_softmax(x, dim=-1)),
        Row("layer_norm", (text, (384,), (384,)), lambda ns, x, w, b: F(ns).layer_norm(x, (384,), w, b)),
        Row("batch_norm", (image, (32,), (32,)), lambda ns, x, w, b: F(ns).batch_norm(x, None, None, w, b, True)),
        Row("group_norm", (image, (32,), (32,)), lambda ns, x, w, b: F(ns).group_norm(x, 8, w, b)),
        Row("cross_entropy", (text, (1024,)), lambda ns, x, t: F(ns).cross_entropy(x, t), whole=1, below=384),
        Row("embedding", ((256, 384), (4, 256)), lambda ns, w, i: F(ns).embedding(i, w), whole=1, below=256),
        Row("index rows", ((1024, 384), (1024,)), lambda ns, x, i: x[i], whole=1, below=1024),
        Row("gather", ((1024, 384), (1024, 64)), lambda ns, x, i: x.gather(1, i), whole=1, below=384),
        Row(
            "conv2d 1-32", ((64, 1, 28, 28), (32, 1, 3, 3), (32,)), lambda ns, x, w, b: F(ns).conv2d(x, w, b, padding=1)
        ),
        Row(
            "conv2d 32-64",
            ((64, 32, 14, 14), (64, 32, 3, 3), (64,)),
            lambda ns, x, w, b: F(ns).conv2d(x, w, b, padding=1),
        ),
        Row("conv2d 256", ((16, 256, 8, 8), (256, 256, 3, 3)), lambda ns, x, w: F(ns).conv2d(x, w, padding=1)),
        Row("max_pool2d", (image,), lambda ns, x: F(ns).max_pool2d(x, 2)),
        Row("avg_pool2d", (image,), lambda ns, x: F(ns).avg_pool2d(x, 2)),
        Row(
            "attention causal",
            (heads, heads, heads),
            lambda ns, q, k, v: F(ns).scaled_dot_product_attention(q, k, v, is_causal=True),
        ),
        Row("sort rows", ((256, 1024),), lambda ns, x: x.sort(dim=1)[0]),
        Row("topk rows", ((256, 1024),), lambda ns, x: x.topk(8, dim=1)[0]),
    ]


def chain_of_adds(ns: Any, length: int = 1000) -> Callable[[], Any]:
    """A chain of small recorded ops, forward and backward: what the tape and the door cost, the kernel being next to
    nothing."""
    x = ns.tensor(np.ones(8, np.float32), requires_grad=True)
    one = ns.tensor(np.ones(8, np.float32))

    def call() -> Any:
        x.grad = None
        y = x
        for _ in range(length):
            y = y + one
        y.backward(one)

    return call


def prepare(name: str, ns: Any, backward: bool) -> tuple[Callable[[], Any], list[Shape]]:
    """A function of no arguments that runs the row once (with ``backward``: and its backward), and its shapes."""
    if name == "chain":
        return chain_of_adds(ns), [(8,)]
    row = next(row for row in rows() if row.name == name)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    first_whole = len(row.shapes) - row.whole
    tensors = []
    for position, shape in enumerate(row.shapes):
        if position >= first_whole:
            tensors.append(ns.tensor(random.integers(0, row.below, shape)))
        else:
            tensors.append(ns.tensor(random.standard_normal(shape, np.float32), requires_grad=backward))
    if not backward:
        return lambda: row.call(ns, *tensors), list(row.shapes)
    leaves = tensors[:first_whole]
    gradient = ns.tensor(np.ones(tuple(row.call(ns, *tensors).shape), np.float32))

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        row.call(ns, *tensors).backward(gradient)

    return call, list(row.shapes)
