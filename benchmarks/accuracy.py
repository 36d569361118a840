"""How far float32 results lie from those in float64, in units in the last place (ulp), beside PyTorch's.

Elementwise functions see every 8,191st float32 there is: both signs, denormals, huge numbers, infinities and NaN. An
ulp is that of the exact result. Everything else sees random numbers, and an ulp is that of the exact result or of the
root mean square of all results, whichever is larger: where a sum cancels, no float32 sum has digits left.

The reference is PyTorch in float64 on the very same float32 inputs, or tensorgrad in float64 where it is not installed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

FAMILIES = (
    "elementwise", "activation", "reduction", "softmax", "scan", "gemm", "conv", "norm", "pool", "attention", "loss",
    "rnn", "optimizer",
)  # fmt: skip
STEP = 8191  # a prime, so that mantissas of every kind come up
LARGEST = float(np.finfo(np.float32).max)
SLACK = 1.02  # two programs that round differently differ by as much at the edge of a sample


@dataclass(frozen=True)
class Row:
    family: str
    name: str
    call: Callable[..., Any]  # call(ns, *tensors) -> a tensor or several
    inputs: tuple[np.ndarray, ...]
    backward: bool = False  # the gradients of all inputs count too
    elementwise: bool = False
    exact: Callable[..., Any] | None = None  # for the reference, where `call` loses its digits in float64 too


@dataclass
class Error:
    """Of one framework on one row: the largest and the mean, in ulp; infinite where a NaN or infinity is wrong."""

    most: float
    mean: float


def every_float() -> np.ndarray:
    bits = np.arange(0, 1 << 32, STEP, dtype=np.uint64).astype(np.uint32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 2.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38]
    return np.concatenate([bits.view(np.float32), np.array(special, np.float32)])


def rows() -> list[Row]:
    return [*_elementwise(), *_reductions(), *_networks(), *_optimizers()]


def _normal(name: str, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)


def _exact_gelu(ns: Any, x: Any) -> Any:
    return x * 0.5 * ns.erfc(x * -math.sqrt(0.5))


def _exact_tanh_gelu(ns: Any, x: Any) -> Any:
    steep = math.sqrt(8 / math.pi)
    return x * ns.sigmoid(x * (steep + steep * 0.044715 * x * x))


def _elementwise() -> Iterable[Row]:
    everywhere = every_float()
    names = (
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tan",
        "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "sigmoid",
        "lgamma", "digamma", "square",
    )  # fmt: skip
    for name in names:
        yield Row("elementwise", name, lambda ns, x, name=name: getattr(ns, name)(x), (everywhere,), elementwise=True)
    for name in ("relu", "gelu", "silu", "softplus", "mish", "elu", "selu", "logsigmoid", "hardswish", "tanhshrink"):
        call = lambda ns, x, name=name: getattr(ns.nn.functional, name)(x)  # noqa: E731
        exact = _exact_gelu if name == "gelu" else None
        yield Row("activation", name, call, (everywhere,), elementwise=True, exact=exact)
    tanh_gelu = lambda ns, x: ns.nn.functional.gelu(x, approximate="tanh")  # noqa: E731
    yield Row("activation", "gelu tanh", tanh_gelu, (everywhere,), elementwise=True, exact=_exact_tanh_gelu)
    moderate = np.random.default_rng(0).uniform(-12, 12, 200_000).astype(np.float32)
    for name in ("gelu", "silu", "softplus", "mish", "elu", "selu", "logsigmoid", "sigmoid", "tanh"):
        call = lambda ns, x, name=name: getattr(ns.nn.functional, name)(x)  # noqa: E731
        yield Row("activation", f"{name} + backward", call, (moderate,), backward=True)
    random = np.random.default_rng(1)
    a, b = (everywhere[random.permutation(len(everywhere))] for _ in range(2))
    yield Row("elementwise", "div", lambda ns, a, b: a / b, (a, b), elementwise=True)
    yield Row("elementwise", "atan2", lambda ns, a, b: ns.atan2(a, b), (a, b), elementwise=True)
    yield Row("elementwise", "hypot", lambda ns, a, b: ns.hypot(a, b), (a, b), elementwise=True)
    base = np.exp(random.uniform(-20, 20, 200_000)).astype(np.float32)
    power = random.uniform(-4, 4, 200_000).astype(np.float32)
    yield Row("elementwise", "pow", lambda ns, a, b: ns.pow(a, b), (base, power), elementwise=True)
    yield Row("elementwise", "pow 3", lambda ns, a: a**3, (everywhere,), elementwise=True)


def _along_rows(name: str) -> Callable[..., Any]:
    return lambda ns, x: getattr(ns, name)(x, dim=1)


def _reductions() -> Iterable[Row]:
    (long,) = _normal("long", (1 << 20,))
    (matrix,) = _normal("matrix", (512, 1000))
    far = matrix + np.float32(1000)  # a mean a thousand deviations away
    uneven = (long[:65536] * np.exp(long[65536:131072] * 3)).astype(np.float32)
    for name in ("sum", "mean", "std", "var"):
        for where, data in (("all", long), ("uneven", uneven)):
            yield Row("reduction", f"{name} {where}", lambda ns, x, name=name: getattr(ns, name)(x), (data,), True)
        for dim in (0, 1):
            call = lambda ns, x, name=name, dim=dim: getattr(ns, name)(x, dim=dim)  # noqa: E731
            yield Row("reduction", f"{name} dim {dim}", call, (matrix,), True)
        yield Row("reduction", f"{name} far from 0", _along_rows(name), (far,), name != "sum")
    yield Row("reduction", "norm", lambda ns, x: ns.linalg.vector_norm(x), (long,), True)
    yield Row("reduction", "prod", lambda ns, x: ns.prod(1 + 0.01 * x, 1), (matrix,), True)
    for dim in (0, 1):
        yield Row("softmax", f"logsumexp dim {dim}", lambda ns, x, d=dim: ns.logsumexp(3 * x, d), (matrix,), True)
        yield Row("softmax", f"softmax dim {dim}", lambda ns, x, d=dim: ns.softmax(3 * x, d), (matrix,), True)
        yield Row("softmax", f"log_softmax dim {dim}", lambda ns, x, d=dim: ns.log_softmax(3 * x, d), (matrix,), True)
        for name in ("cumsum", "cumprod", "logcumsumexp"):
            (x,) = _normal("scan", (64, 64))
            value = (1 + 0.1 * x).astype(np.float32) if name == "cumprod" else x
            call = lambda ns, x, name=name, d=dim: getattr(ns, name)(x, d)  # noqa: E731
            yield Row("scan", f"{name} dim {dim}", call, (value,), True)
    yield Row("scan", "cumsum long", lambda ns, x: ns.cumsum(x, 0), (long[:200_000],), True)


def _networks() -> Iterable[Row]:
    def F(ns: Any) -> Any:
        return ns.nn.functional

    for m, k, n in ((8, 32, 32), (64, 64, 64), (128, 784, 512), (512, 2048, 64), (1, 4096, 128)):
        a, b = _normal(f"matmul {m} {k} {n}", (m, k), (k, n))
        yield Row("gemm", f"matmul {m}x{k}x{n}", lambda ns, a, b: a @ b, (a, b), True)
    x, w, b = _normal("linear", (256, 300), (200, 300), (200,))
    yield Row("gemm", "linear", lambda ns, x, w, b: F(ns).linear(x, w, b), (x, w, b), True)
    yield Row("gemm", "linear relu", lambda ns, x, w, b: F(ns).relu(F(ns).linear(x, w, b)), (x, w, b), True)
    a, b = _normal("bmm", (24, 50, 32), (24, 32, 60))
    yield Row("gemm", "bmm", lambda ns, a, b: ns.bmm(a, b), (a, b), True)
    shapes = {
        "conv 1x1": ((4, 64, 14, 14), (96, 64, 1, 1), {}),
        "conv 3x3": ((4, 64, 14, 14), (64, 64, 3, 3), {"padding": 1}),
        "conv 3x3 stride 2": ((4, 32, 28, 28), (64, 32, 3, 3), {"padding": 1, "stride": 2}),
        "conv 5x5": ((4, 8, 28, 28), (16, 8, 5, 5), {}),
        "depthwise": ((4, 64, 14, 14), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    }
    for name, (inputs, weight, options) in shapes.items():
        call = lambda ns, x, w, options=options: F(ns).conv2d(x, w, **options)  # noqa: E731
        yield Row("conv", name, call, _normal(name, inputs, weight), True)
    up = lambda ns, x, w: F(ns).conv_transpose2d(x, w, stride=2, padding=1)  # noqa: E731
    yield Row("conv", "transposed 4x4", up, _normal("transposed", (4, 64, 8, 8), (64, 32, 4, 4)), True)
    image, scale, shift = _normal("norm", (8, 32, 14, 14), (32,), (32,))
    for name, data in (("", image), (" far from 0", image + np.float32(100))):
        batch = lambda ns, x, w, b: F(ns).batch_norm(x, None, None, w, b, True)  # noqa: E731
        yield Row("norm", f"batch_norm{name}", batch, (data, scale, shift), True)
        group = lambda ns, x, w, b: F(ns).group_norm(x, 4, w, b)  # noqa: E731
        yield Row("norm", f"group_norm{name}", group, (data, scale, shift), True)
        text = data.reshape(-1, 196)[:, :192].copy()
        weights = _normal("layer", (192,), (192,))
        layer = lambda ns, x, w, b: F(ns).layer_norm(x, (192,), w, b)  # noqa: E731
        yield Row("norm", f"layer_norm{name}", layer, (text, *weights), True)
        rms = lambda ns, x, w: F(ns).rms_norm(x, (192,), w)  # noqa: E731
        yield Row("norm", f"rms_norm{name}", rms, (text, weights[0]), True)
    yield Row("pool", "avg_pool2d", lambda ns, x: F(ns).avg_pool2d(x, 3, 2), (image,), True)
    yield Row("pool", "adaptive_avg_pool2d", lambda ns, x: F(ns).adaptive_avg_pool2d(x, 1), (image,), True)
    heads = _normal("attention", *[(2, 4, 128, 32)] * 3)
    for causal in (False, True):
        attend = lambda ns, q, k, v, c=causal: F(ns).scaled_dot_product_attention(q, k, v, is_causal=c)  # noqa: E731
        yield Row("attention", "causal" if causal else "full", attend, heads, True)
    logits, other = _normal("loss", (256, 100), (256, 100))
    target = np.random.default_rng(2).integers(0, 100, 256)
    yield Row("loss", "cross_entropy", lambda ns, x, y: F(ns).cross_entropy(4 * x, y), (logits, target), True)
    yield Row("loss", "mse_loss", lambda ns, x, y: F(ns).mse_loss(x, y), (logits, other), True)
    yield Row("loss", "smooth_l1_loss", lambda ns, x, y: F(ns).smooth_l1_loss(x, y), (logits, other), True)
    bce = lambda ns, x, y: F(ns).binary_cross_entropy_with_logits(4 * x, ns.sigmoid(y))  # noqa: E731
    yield Row("loss", "bce with logits", bce, (logits, other), True)
    kl = lambda ns, x, y: F(ns).kl_div(ns.log_softmax(x, 1), ns.softmax(y, 1), reduction="batchmean")  # noqa: E731
    yield Row("loss", "kl_div", kl, (logits, other), True)
    sequence = _normal("rnn", (8, 20, 32))
    for kind, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        rows = gates * 48
        weights = tuple(w / np.float32(6) for w in _normal(kind, (rows, 32), (rows, 48), (rows,), (rows,)))
        yield Row("rnn", kind, _recurrent(kind), (*sequence, *weights), True)


def _recurrent(kind: str) -> Callable[..., Any]:
    def call(ns: Any, x: Any, *weights: Any) -> Any:
        layer = getattr(ns.nn, kind)(32, 48, batch_first=True).to(x.dtype)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return ns.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))[0]

    return call


def _optimizers() -> Iterable[Row]:
    options: dict[str, dict[str, Any]] = {
        "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        "Adam": {"lr": 0.01},
        "AdamW": {"lr": 0.01, "weight_decay": 0.1},
        "RMSprop": {"lr": 0.01},
        "Adagrad": {"lr": 0.1},
    }
    for name, kinds in options.items():

        def call(ns: Any, x: Any, *gradients: Any, name: str = name, kinds: dict[str, Any] = kinds) -> Any:
            parameter = ns.nn.Parameter(x.detach().clone())
            optimizer = getattr(ns.optim, name)([parameter], **kinds)
            for gradient in gradients:
                parameter.grad = gradient.clone()
                optimizer.step()
            return parameter.detach()

        yield Row("optimizer", f"{name}, 10 steps", call, _normal(name, *[(10_000,)] * 11))


def results(row: Row, ns: Any, double: bool) -> list[np.ndarray]:
    """All results, and with ``backward`` the gradients of a random weighting of them."""
    tensors = []
    for array in row.inputs:
        floating = array.dtype.kind == "f"
        tensor = ns.tensor(array.astype(np.float64) if double and floating else array)
        tensors.append(tensor.requires_grad_() if row.backward and floating else tensor)
    out = (row.exact if double and row.exact else row.call)(ns, *tensors)
    found = list(out) if isinstance(out, tuple) else [out]
    if row.backward:
        random = np.random.default_rng(3)
        seeds = [random.standard_normal(tuple(x.shape)).astype(np.float32) for x in found]
        live = [tensor for tensor in tensors if tensor.requires_grad]
        given = [ns.tensor(seed.astype(np.float64) if double else seed) for seed in seeds]
        found += ns.autograd.grad(found, live, given)
    return [np.asarray(x.detach().numpy()) for x in found]


def error(got: Iterable[np.ndarray], exact: Iterable[np.ndarray], elementwise: bool) -> Error:
    most, total, count = 0.0, 0.0, 0
    for mine, reference in zip(got, exact, strict=True):
        if mine.size == 0:
            continue
        with np.errstate(all="ignore"):
            rounded = reference.astype(np.float32)
            size = np.abs(reference)
            if not elementwise:
                size = np.maximum(size, math.sqrt(float(np.mean(np.square(reference)))))
            finite = np.isfinite(rounded) & np.isfinite(mine)
            ulp = np.spacing(np.where(finite, size, 1.0).astype(np.float32)).astype(np.float64)
            same = (mine == rounded) | (np.isnan(mine) & np.isnan(rounded))
            at_the_end = np.abs(size - LARGEST) < 1e-6 * LARGEST  # the largest number or infinity: one ulp apart
            off = np.where(finite, np.abs(mine.astype(np.float64) - reference) / ulp, np.where(at_the_end, 1.0, np.inf))
            off = np.where(same & ~finite, 0.0, off)
        most = max(most, float(off.max()))
        total, count = total + float(off[np.isfinite(off)].sum()), count + off.size
    return Error(most, total / max(count, 1))


def measure(row: Row, frameworks: dict[str, Any], reference: Any) -> dict[str, Error]:
    exact = results(row, reference, True)
    return {name: error(results(row, ns, False), exact, row.elementwise) for name, ns in frameworks.items()}


def worse(row: Row, ours: Error, peer: Error) -> bool:
    """Whether a peer's results are clearly nearer. Half an ulp is what rounding alone costs; the largest of a few sums'
    errors is chance, so there the mean must be larger too."""
    if ours.most <= max(0.51, peer.most * SLACK):
        return False
    return row.elementwise or ours.mean > peer.mean * 1.05
