"""Single ops beside PyTorch's: a row per op, times sizes of 100 to 10,000,000 elements, forward and with backward.

A row is a name, how the inputs follow from the size, and a call on the namespace. Rows of one size of their own (layers
of the workloads) stand at the end. A new op to watch is a new row.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SIZES = (100, 10_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Input:
    """One input: ``kind`` is float (normal), positive (0.5 to 1.5), whole (int64 below ``below``) or truth (bool)."""

    shape: tuple[int, ...]
    kind: str = "float"
    below: int = 2

    def draw(self, random: np.random.Generator) -> np.ndarray:
        if self.kind == "whole":
            return random.integers(0, self.below, self.shape)
        if self.kind == "truth":
            return random.integers(0, 2, self.shape).astype(bool)
        if self.kind == "positive":
            return random.random(self.shape, np.float32) + np.float32(0.5)
        return random.standard_normal(self.shape, np.float32)


@dataclass(frozen=True)
class Row:
    """``inputs(n)`` are those for about n elements; a row with ``fixed`` has one size only, and is asked with n = 0."""

    name: str
    inputs: Callable[[int], tuple[Input, ...]]
    call: Callable[..., Any]  # call(ns, *tensors) -> one tensor
    backward: bool = True
    fixed: bool = False


def rows() -> list[Row]:
    return [*_pointwise(), *_reductions(), *_index(), *_movement(), *_layers(), *_fixed()]


# --- inputs


def flat(n: int) -> tuple[Input, ...]:
    return (Input((n,)),)


def two(n: int) -> tuple[Input, ...]:
    return (Input((n,)), Input((n,)))


def three(n: int) -> tuple[Input, ...]:
    return (Input((n,)), Input((n,)), Input((n,)))


def positive(n: int) -> tuple[Input, ...]:
    return (Input((n,), "positive"),)


def whole(n: int) -> tuple[Input, ...]:
    return (Input((n,), "whole", max(10, n // 10)),)


def square(n: int) -> tuple[Input, ...]:
    return (Input((math.isqrt(n), math.isqrt(n))),)


def squares(n: int) -> tuple[Input, ...]:
    return square(n) * 2


def cube(n: int) -> tuple[Input, ...]:
    side = max(2, round(n ** (1 / 3)))
    return (Input((side, side, side)),)


def batches(n: int) -> tuple[Input, ...]:
    """Square matrices of at most 64 rows."""
    side = min(64, math.isqrt(n // 4))
    count = n // (side * side)
    return (Input((count, side, side)), Input((count, side, side)))


def features(n: int) -> tuple[Input, ...]:
    """Rows as wide as layers are: at most 512."""
    width = min(512, math.isqrt(n))
    return (Input((n // width, width)),)


def layer(n: int) -> tuple[Input, ...]:
    (x,) = features(n)
    width = x.shape[1]
    return (x, Input((width, width)), Input((width,)))


def normalized(n: int) -> tuple[Input, ...]:
    (x,) = features(n)
    return (x, Input(x.shape[1:]), Input(x.shape[1:]))


def classes(n: int) -> tuple[Input, ...]:
    (x,) = features(n)
    return (x, Input(x.shape[:1], "whole", x.shape[1]))


def image(n: int) -> tuple[Input, ...]:
    channels = 4 if n < 1000 else 16 if n < 100_000 else 64
    side = min(56, math.isqrt(n // channels))
    return (Input((max(1, n // (channels * side * side)), channels, side, side)),)


def image_and_filter(n: int) -> tuple[Input, ...]:
    (x,) = image(n)
    channels = x.shape[1]
    return (x, Input((channels, channels, 3, 3)), Input((channels,)))


def image_and_channels(n: int) -> tuple[Input, ...]:
    (x,) = image(n)
    return (x, Input(x.shape[1:2]), Input(x.shape[1:2]))


def grid(n: int) -> tuple[Input, ...]:
    (x,) = image(n)
    return (x, Input((x.shape[0], *x.shape[2:], 2)))


def table(n: int) -> tuple[Input, ...]:
    """A table of n / 4 numbers in rows of 64 (fewer when small), and as many indices as make n."""
    width = 64 if n >= 10_000 else 10
    return (Input((max(1, n // (4 * width)), width)), Input((n // width,), "whole", max(1, n // (4 * width))))


def added(n: int) -> tuple[Input, ...]:
    weight, index = table(n)
    return (weight, index, Input((*index.shape, weight.shape[1])))


def bags(n: int) -> tuple[Input, ...]:
    weight, index = table(n)
    return (weight, Input((max(1, index.shape[0] // 10), 10), "whole", weight.shape[0]))


def gathered(n: int) -> tuple[Input, ...]:
    (x,) = square(n)
    return (x, Input(x.shape, "whole", x.shape[1]))


def scattered(n: int) -> tuple[Input, ...]:
    x, index = gathered(n)
    return (x, index, x)


def scattered_flat(n: int) -> tuple[Input, ...]:
    return (Input((n,)), Input((n,), "whole", n), Input((n,)))


def masked(n: int) -> tuple[Input, ...]:
    return (Input((n,)), Input((n,), "truth"))


def searched(n: int) -> tuple[Input, ...]:
    return (Input((max(2, math.isqrt(n)),)), Input((n,)))


def of_shapes(*inputs: Input | tuple[int, ...]) -> Callable[[int], tuple[Input, ...]]:
    made = tuple(x if isinstance(x, Input) else Input(x) for x in inputs)
    return lambda n: made


# --- rows


def F(ns: Any) -> Any:
    return ns.nn.functional


def _pointwise() -> list[Row]:
    return [
        Row("add", two, lambda ns, a, b: a + b),
        Row("sub", two, lambda ns, a, b: a - b),
        Row("mul", two, lambda ns, a, b: a * b),
        Row("div", two, lambda ns, a, b: a / b),
        Row("add number", flat, lambda ns, x: x + 1.0),
        Row("mul number", flat, lambda ns, x: x * 2.0),
        Row("add row", lambda n: (*square(n), Input(square(n)[0].shape[1:])), lambda ns, a, b: a + b),
        Row("add transposed", squares, lambda ns, a, b: a + b.transpose(0, 1)),
        Row("outer", lambda n: flat(math.isqrt(n)) * 2, lambda ns, a, b: ns.outer(a, b)),
        Row("neg", flat, lambda ns, x: -x),
        Row("abs", flat, lambda ns, x: x.abs()),
        Row("exp", flat, lambda ns, x: x.exp()),
        Row("log", positive, lambda ns, x: x.log()),
        Row("sqrt", positive, lambda ns, x: x.sqrt()),
        Row("rsqrt", positive, lambda ns, x: x.rsqrt()),
        Row("square", flat, lambda ns, x: x**2),
        Row("pow", positive, lambda ns, x: x**2.5),
        Row("fmod", two, lambda ns, a, b: ns.fmod(a, b)),
        Row("remainder", two, lambda ns, a, b: ns.remainder(a, b)),
        Row("sin", flat, lambda ns, x: x.sin()),
        Row("tanh", flat, lambda ns, x: x.tanh()),
        Row("sigmoid", flat, lambda ns, x: x.sigmoid()),
        Row("erf", flat, lambda ns, x: x.erf()),
        Row("relu", flat, lambda ns, x: F(ns).relu(x)),
        Row("leaky_relu", flat, lambda ns, x: F(ns).leaky_relu(x, 0.1)),
        Row("gelu", flat, lambda ns, x: F(ns).gelu(x)),
        Row("gelu tanh", flat, lambda ns, x: F(ns).gelu(x, approximate="tanh")),
        Row("silu", flat, lambda ns, x: F(ns).silu(x)),
        Row("softplus", flat, lambda ns, x: F(ns).softplus(x)),
        Row("clamp", flat, lambda ns, x: x.clamp(-1, 1)),
        Row("maximum", two, lambda ns, a, b: ns.maximum(a, b)),
        Row("where", lambda n: (*masked(n)[1:], *two(n)), lambda ns, c, a, b: ns.where(c, a, b)),
        Row("lerp", two, lambda ns, a, b: ns.lerp(a, b, 0.3)),
        Row("addcmul", three, lambda ns, a, b, c: ns.addcmul(a, b, c, value=0.5)),
        Row("greater", two, lambda ns, a, b: a > b, backward=False),
        Row("equal elements", two, lambda ns, a, b: a == b, backward=False),
        Row("logical_and", lambda n: masked(n)[1:] * 2, lambda ns, a, b: a & b, backward=False),
        Row("isnan", flat, lambda ns, x: ns.isnan(x), backward=False),
        Row("to float64", flat, lambda ns, x: x.double()),
        Row("to bfloat16", flat, lambda ns, x: x.to(ns.bfloat16)),
    ]


def _reductions() -> list[Row]:
    return [
        Row("sum", flat, lambda ns, x: x.sum()),
        Row("sum rows", square, lambda ns, x: x.sum(1)),
        Row("sum columns", square, lambda ns, x: x.sum(0)),
        Row("sum middle", cube, lambda ns, x: x.sum(1)),
        Row("sum transposed", square, lambda ns, x: x.t().sum(1)),
        Row("mean", flat, lambda ns, x: x.mean()),
        Row("mean of channels", image, lambda ns, x: x.mean((0, 2, 3))),
        Row("nansum", flat, lambda ns, x: x.nansum()),
        Row("aminmax", flat, lambda ns, x: ns.aminmax(x)[0], backward=False),
        Row("max", flat, lambda ns, x: x.max()),
        Row("max rows", square, lambda ns, x: x.max(1)[0]),
        Row("amax rows", square, lambda ns, x: x.amax(1)),
        Row("amin columns", square, lambda ns, x: x.amin(0)),
        Row("var", flat, lambda ns, x: x.var()),
        Row("std rows", square, lambda ns, x: x.std(1)),
        Row("norm", flat, lambda ns, x: x.norm()),
        Row("linalg.norm rows", square, lambda ns, x: ns.linalg.norm(x, dim=1)),
        Row("prod rows", lambda n: (Input(square(n)[0].shape, "positive"),), lambda ns, x: x.prod(1)),
        Row("argmax", flat, lambda ns, x: x.argmax(), backward=False),
        Row("argmax rows", square, lambda ns, x: x.argmax(1), backward=False),
        Row("argmin columns", square, lambda ns, x: x.argmin(0), backward=False),
        Row("any", lambda n: masked(n)[1:], lambda ns, x: x.any(), backward=False),
        Row("all rows", square, lambda ns, x: (x > -9).all(1), backward=False),
        Row("count_nonzero", flat, lambda ns, x: ns.count_nonzero(x), backward=False),
        Row("logsumexp", square, lambda ns, x: x.logsumexp(1)),
        Row("cumsum", flat, lambda ns, x: x.cumsum(0)),
        Row("cumsum rows", square, lambda ns, x: x.cumsum(1)),
        Row("cumsum columns", square, lambda ns, x: x.cumsum(0)),
        Row("cumprod rows", lambda n: (Input(square(n)[0].shape, "positive"),), lambda ns, x: x.cumprod(1)),
        Row("logcumsumexp rows", square, lambda ns, x: x.logcumsumexp(1)),
        Row("cummax rows", square, lambda ns, x: x.cummax(1)[0]),
        Row("dot", two, lambda ns, a, b: a @ b),
    ]


def _index() -> list[Row]:
    return [
        Row("sort", flat, lambda ns, x: x.sort()[0]),
        Row("sort rows", square, lambda ns, x: x.sort(1)[0]),
        Row("sort columns", square, lambda ns, x: x.sort(0)[0]),
        Row("argsort", flat, lambda ns, x: x.argsort(), backward=False),
        Row("sort integers", whole, lambda ns, x: x.sort()[0], backward=False),
        Row("topk", flat, lambda ns, x: x.topk(10)[0]),
        Row("topk rows", square, lambda ns, x: x.topk(5, 1)[0]),
        Row("kthvalue rows", square, lambda ns, x: x.kthvalue(3, 1)[0]),
        Row("median", flat, lambda ns, x: x.median()),
        Row("median rows", square, lambda ns, x: x.median(1)[0]),
        Row("unique", whole, lambda ns, x: x.unique(), backward=False),
        Row("bincount", whole, lambda ns, x: x.bincount(), backward=False),
        Row("histc", flat, lambda ns, x: x.histc(100), backward=False),
        Row("searchsorted", searched, lambda ns, s, x: ns.searchsorted(s.sort()[0], x), backward=False),
        Row("one_hot", lambda n: (Input((n // 10,), "whole", 10),), lambda ns, x: F(ns).one_hot(x, 10), backward=False),
        Row("gather rows", gathered, lambda ns, x, i: x.gather(1, i)),
        Row("gather columns", gathered, lambda ns, x, i: x.gather(0, i)),
        Row("scatter rows", scattered, lambda ns, x, i, s: x.scatter(1, i, s)),
        Row("scatter_add", scattered_flat, lambda ns, x, i, s: x.scatter_add(0, i, s)),
        Row("scatter_add rows", scattered, lambda ns, x, i, s: x.scatter_add(1, i, s)),
        Row("scatter_add columns", scattered, lambda ns, x, i, s: x.scatter_add(0, i, s)),
        Row("scatter_reduce amax", scattered_flat, lambda ns, x, i, s: x.scatter_reduce(0, i, s, "amax")),
        Row("take", lambda n: scattered_flat(n)[:2], lambda ns, x, i: x.take(i)),
        Row("index_select", table, lambda ns, x, i: x.index_select(0, i)),
        Row("index_add", added, lambda ns, x, i, s: x.index_add(0, i, s)),
        Row("index rows", table, lambda ns, x, i: x[i]),
        Row("index_put", added, lambda ns, x, i, s: x.index_put((i,), s)),
        Row("index_put add", added, lambda ns, x, i, s: x.index_put((i,), s, accumulate=True)),
        Row("embedding", table, lambda ns, w, i: F(ns).embedding(i, w)),
        Row("embedding_bag", bags, lambda ns, w, i: F(ns).embedding_bag(i, w)),
        Row("masked_fill", masked, lambda ns, x, m: x.masked_fill(m, 0.0)),
        Row(
            "masked_scatter",
            lambda n: (*masked(n), Input((n,))),
            lambda ns, x, m, s: x.masked_scatter(m, s),
        ),
        Row("masked_select", masked, lambda ns, x, m: x.masked_select(m)),
        Row("boolean mask", masked, lambda ns, x, m: x[m]),
        Row("nonzero", lambda n: masked(n)[1:], lambda ns, m: m.nonzero(), backward=False),
    ]


def _movement() -> list[Row]:
    def thrice(n: int) -> tuple[Input, ...]:
        return square(n) * 3

    return [
        Row("clone", flat, lambda ns, x: x.clone()),
        Row("transposed contiguous", square, lambda ns, x: x.t().contiguous()),
        Row("permuted contiguous", cube, lambda ns, x: x.permute(2, 0, 1).contiguous()),
        Row("permuted inner", cube, lambda ns, x: x.permute(1, 0, 2).contiguous()),
        Row("strided contiguous", square, lambda ns, x: x[:, ::2].contiguous()),
        Row("expand contiguous", lambda n: flat(math.isqrt(n)), lambda ns, x: x.expand(len(x), len(x)).contiguous()),
        Row("cat", thrice, lambda ns, a, b, c: ns.cat((a, b, c), 0)),
        Row("cat columns", thrice, lambda ns, a, b, c: ns.cat((a, b, c), 1)),
        Row("stack", thrice, lambda ns, a, b, c: ns.stack((a, b, c))),
        Row("stack last", thrice, lambda ns, a, b, c: ns.stack((a, b, c), -1)),
        Row("chunk and sum", square, lambda ns, x: sum(x[: len(x) // 2 * 2].chunk(2, 0))),
        Row("split columns", square, lambda ns, x: ns.cat(x.split(7, 1)[:3], 1)),
        Row("diff", square, lambda ns, x: x.diff()),
        Row("hstack", squares, lambda ns, a, b: ns.hstack((a, b))),
        Row("flip", square, lambda ns, x: x.flip(1)),
        Row("flip rows", square, lambda ns, x: x.flip(0)),
        Row("roll", square, lambda ns, x: x.roll(3, 1)),
        Row("repeat", square, lambda ns, x: x.repeat(2, 2)),
        Row("repeat_interleave", flat, lambda ns, x: x.repeat_interleave(3)),
        Row("pad", square, lambda ns, x: F(ns).pad(x, (1, 1, 1, 1))),
        Row("pad reflect", image, lambda ns, x: F(ns).pad(x, (1, 1, 1, 1), "reflect")),
        Row("triu", square, lambda ns, x: x.triu()),
        Row("diagonal", square, lambda ns, x: x.diagonal().clone()),
        Row("slice", square, lambda ns, x: x[1:-1, 1:-1].clone()),
        Row("pixel_shuffle", image, lambda ns, x: F(ns).pixel_shuffle(x, 2)),
        Row("unfold", image, lambda ns, x: F(ns).unfold(x, 3, padding=1)),
        Row("interpolate bilinear", image, lambda ns, x: F(ns).interpolate(x, scale_factor=2, mode="bilinear")),
        Row("interpolate nearest", image, lambda ns, x: F(ns).interpolate(x, scale_factor=2)),
        Row("grid_sample", grid, lambda ns, x, g: F(ns).grid_sample(x, g, align_corners=False)),
        Row("rand", flat, lambda ns, x: ns.rand(x.shape), backward=False),
        Row("randn", flat, lambda ns, x: ns.randn(x.shape), backward=False),
        Row("randint", flat, lambda ns, x: ns.randint(10, x.shape), backward=False),
        Row("randperm", flat, lambda ns, x: ns.randperm(len(x)), backward=False),
        Row("linspace", flat, lambda ns, x: ns.linspace(0, 1, len(x)), backward=False),
        Row("eye", square, lambda ns, x: ns.eye(len(x)), backward=False),
        Row("zeros", flat, lambda ns, x: ns.zeros(x.shape), backward=False),
        Row("arange", flat, lambda ns, x: ns.arange(len(x)), backward=False),
    ]


def _layers() -> list[Row]:
    return [
        Row("matmul", squares, lambda ns, a, b: a @ b),
        Row("matmul transposed", squares, lambda ns, a, b: a @ b.t()),
        Row("addmm", lambda n: square(n) * 3, lambda ns, c, a, b: ns.addmm(c, a, b)),
        Row("bmm", batches, lambda ns, a, b: ns.bmm(a, b)),
        Row("einsum", batches, lambda ns, a, b: ns.einsum("bij,bkj->bik", a, b)),
        Row("linear", layer, lambda ns, x, w, b: F(ns).linear(x, w, b)),
        Row("softmax", features, lambda ns, x: F(ns).softmax(x, dim=-1)),
        Row("log_softmax", features, lambda ns, x: F(ns).log_softmax(x, dim=-1)),
        Row("layer_norm", normalized, lambda ns, x, w, b: F(ns).layer_norm(x, x.shape[1:], w, b)),
        Row("rms_norm", lambda n: normalized(n)[:2], lambda ns, x, w: F(ns).rms_norm(x, x.shape[1:], w)),
        Row("batch_norm", image_and_channels, lambda ns, x, w, b: F(ns).batch_norm(x, None, None, w, b, True)),
        Row("group_norm", image_and_channels, lambda ns, x, w, b: F(ns).group_norm(x, 4, w, b)),
        Row("cross_entropy", classes, lambda ns, x, t: F(ns).cross_entropy(x, t)),
        Row("mse_loss", two, lambda ns, a, b: F(ns).mse_loss(a, b)),
        Row("l1_loss", two, lambda ns, a, b: F(ns).l1_loss(a, b)),
        Row(
            "binary_cross_entropy",
            lambda n: (Input((n,)), Input((n,), "positive")),
            lambda ns, x, t: F(ns).binary_cross_entropy_with_logits(x, (t - 0.5).detach()),
        ),
        Row("dropout", flat, lambda ns, x: F(ns).dropout(x, 0.1)),
        Row("conv2d", image_and_filter, lambda ns, x, w, b: F(ns).conv2d(x, w, b, padding=1)),
        Row("max_pool2d", image, lambda ns, x: F(ns).max_pool2d(x, 2)),
        Row("max_pool2d padded", image, lambda ns, x: F(ns).max_pool2d(x, 3, 2, 1)),
        Row("avg_pool2d", image, lambda ns, x: F(ns).avg_pool2d(x, 2)),
    ]


def _fixed() -> list[Row]:
    text = (1024, 384)
    heads = (4, 6, 256, 64)
    given: list[tuple[str, Callable[[int], tuple[Input, ...]], Callable[..., Any]]] = [
        ("matmul 64", of_shapes((64, 64), (64, 64)), lambda ns, a, b: a @ b),
        ("matmul 256", of_shapes((256, 256), (256, 256)), lambda ns, a, b: a @ b),
        ("matmul 1024", of_shapes((1024, 1024), (1024, 1024)), lambda ns, a, b: a @ b),
        ("matmul batched", of_shapes((24, 256, 64), (24, 64, 256)), lambda ns, a, b: a @ b),
        ("linear mlp", of_shapes((128, 784), (512, 784), (512,)), lambda ns, x, w, b: F(ns).linear(x, w, b)),
        ("linear gpt", of_shapes(text, (1536, 384), (1536,)), lambda ns, x, w, b: F(ns).linear(x, w, b)),
        (
            "conv2d 1-32",
            of_shapes((64, 1, 28, 28), (32, 1, 3, 3), (32,)),
            lambda ns, x, w, b: F(ns).conv2d(x, w, b, padding=1),
        ),
        (
            "conv2d 32-64",
            of_shapes((64, 32, 14, 14), (64, 32, 3, 3), (64,)),
            lambda ns, x, w, b: F(ns).conv2d(x, w, b, padding=1),
        ),
        ("conv2d 256", of_shapes((16, 256, 8, 8), (256, 256, 3, 3)), lambda ns, x, w: F(ns).conv2d(x, w, padding=1)),
        (
            "attention causal",
            of_shapes(heads, heads, heads),
            lambda ns, q, k, v: F(ns).scaled_dot_product_attention(q, k, v, is_causal=True),
        ),
        ("cdist", of_shapes((512, 32), (512, 32)), lambda ns, a, b: ns.cdist(a, b)),
        (
            "ctc_loss",
            of_shapes((100, 16, 40), Input((16, 20), "whole", 39)),
            lambda ns, x, t: F(ns).ctc_loss(x.log_softmax(2), t + 1, (100,) * 16, (20,) * 16),
        ),
    ]
    return [Row(name, inputs, call, fixed=True) for name, inputs, call in given]


# --- running


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


def prepare(name: str, ns: Any, size: int, backward: bool) -> tuple[Callable[[], Any], list[tuple[int, ...]]]:
    """A function of no arguments that runs the row once (with ``backward``: and its backward), and its shapes."""
    if name == "chain":
        return chain_of_adds(ns), [(8,)]
    row = next(row for row in rows() if row.name == name)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    inputs = row.inputs(size)
    floats = [x.kind in ("float", "positive") for x in inputs]
    tensors = [
        ns.tensor(x.draw(random), requires_grad=True) if backward and floating else ns.tensor(x.draw(random))
        for x, floating in zip(inputs, floats, strict=True)
    ]
    shapes = [x.shape for x in inputs]
    if not backward:
        return lambda: row.call(ns, *tensors), shapes
    leaves = [x for x, floating in zip(tensors, floats, strict=True) if floating]
    result = row.call(ns, *tensors)
    gradient = ns.ones_like(result.detach())
    del result

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        row.call(ns, *tensors).backward(gradient)

    return call, shapes
