"""Single operations, large enough that the card's memory or its arithmetic is the limit: what share of it they reach.

``bytes`` counts what has to move, each input and output once, whatever a kernel reads again; ``flops`` what a product
needs. The ceilings are measured in the same run: a copy within the device, and a large matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

__all__ = ["CEILINGS", "ROWS", "Row"]

_ELEMENTS = 1 << 26  # 256 MB of float32
_WIDTH = 1024  # of rows
_TOY = 1 << 12
_TOY_WIDTH = 64


@dataclass(frozen=True)
class Row:
    """``make(ns, toy)``: a callable that does the work once. ``bytes(toy)``, ``flops(toy)``: what that takes.

    ``of``: the ceiling that it is compared with, "copy" or the name of a product.
    """

    make: Callable[[Any, bool], Callable[[], Any]]
    bytes: Callable[[bool], float]
    flops: Callable[[bool], float]
    of: str


def _nothing(toy: bool) -> float:
    return 0.0


def _shape(toy: bool) -> tuple[int, int]:
    elements, width = (_TOY, _TOY_WIDTH) if toy else (_ELEMENTS, _WIDTH)
    return elements // width, width


# --- limited by memory


def _over_rows(work: Callable[..., Any], dtype: str, inputs: int, touched: float) -> Row:
    """``work(ns, *inputs)`` on matrices of rows; ``touched``: how many such matrices are read or written."""

    def make(ns: Any, toy: bool) -> Callable[[], Any]:
        arrays = [ns.randn(*_shape(toy), dtype=ns.float32).to(getattr(ns, dtype)) for _ in range(inputs)]
        return partial(_without_grad, ns, work, arrays)

    def moved(toy: bool) -> float:
        rows, width = _shape(toy)
        return touched * rows * width * (2 if dtype == "bfloat16" else 4)

    return Row(make, moved, _nothing, "copy")


def _without_grad(ns: Any, work: Callable[..., Any], arrays: list[Any]) -> Any:
    with ns.no_grad():
        return work(ns, *arrays)


def _copy(ns: Any, x: Any, y: Any) -> Any:
    return y.copy_(x)


def _add(ns: Any, x: Any, y: Any) -> Any:
    return x + y


def _gelu(ns: Any, x: Any) -> Any:
    return ns.nn.functional.gelu(x)


def _softmax(ns: Any, x: Any) -> Any:
    return ns.softmax(x, dim=-1)


def _layer_norm(ns: Any, x: Any) -> Any:
    return ns.nn.functional.layer_norm(x, x.shape[-1:])


def _rms_norm(ns: Any, x: Any) -> Any:
    return ns.nn.functional.rms_norm(x, x.shape[-1:])


def _dropout(ns: Any, x: Any) -> Any:
    return ns.nn.functional.dropout(x, 0.1)


def _sum(ns: Any, x: Any) -> Any:
    return x.sum()


def _sum_rows(ns: Any, x: Any) -> Any:
    return x.sum(dim=-1)


def _sum_columns(ns: Any, x: Any) -> Any:
    return x.sum(dim=0)


def _transposed(ns: Any, x: Any) -> Any:
    return x.t().contiguous()


def _backward(ns: Any, forward: Callable[..., Any], x: Any, g: Any) -> Any:
    x.grad = None
    forward(ns, x).backward(g)


def _with_backward(forward: Callable[..., Any], dtype: str, touched: float) -> Row:
    """Forward and backward of an op over rows."""

    def make(ns: Any, toy: bool) -> Callable[[], Any]:
        x, g = (ns.randn(*_shape(toy)).to(getattr(ns, dtype)) for _ in range(2))
        return partial(_backward, ns, forward, x.requires_grad_(), g)

    def moved(toy: bool) -> float:
        rows, width = _shape(toy)
        return touched * rows * width * (2 if dtype == "bfloat16" else 4)

    return Row(make, moved, _nothing, "copy")


def _cross_entropy(dtype: str) -> Row:
    def make(ns: Any, toy: bool) -> Callable[[], Any]:
        rows, width = _shape(toy)
        x = ns.randn(rows, width).to(getattr(ns, dtype)).requires_grad_()
        y = ns.randint(0, width, (rows,))

        def step() -> None:
            x.grad = None
            ns.nn.functional.cross_entropy(x, y).backward()

        return step

    def moved(toy: bool) -> float:
        rows, width = _shape(toy)
        return 3.0 * rows * width * (2 if dtype == "bfloat16" else 4)  # read twice, written once

    return Row(make, moved, _nothing, "copy")


def _adamw() -> Row:
    def make(ns: Any, toy: bool) -> Callable[[], Any]:
        rows, width = _shape(toy)
        parameters = [ns.nn.Parameter(ns.randn(rows // 8, width)) for _ in range(8)]
        for parameter in parameters:
            parameter.grad = ns.randn(rows // 8, width)
        return ns.optim.AdamW(parameters, lr=1e-3, fused=True).step

    def moved(toy: bool) -> float:
        rows, width = _shape(toy)
        return 7.0 * rows * width * 4  # reads parameter, gradient and two moments, writes all but the gradient

    return Row(make, moved, _nothing, "copy")


# --- limited by arithmetic


def _matmul(dtype: str, tf32: bool = False) -> Row:
    def side(toy: bool) -> int:
        return 64 if toy else 8192

    def make(ns: Any, toy: bool) -> Callable[[], Any]:
        ns.backends.cuda.matmul.allow_tf32 = tf32
        n = side(toy)
        a, b = (ns.randn(n, n).to(getattr(ns, dtype)) for _ in range(2))
        return partial(_without_grad, ns, _product, [a, b])

    def flops(toy: bool) -> float:
        return 2.0 * side(toy) ** 3

    return Row(make, _nothing, flops, f"matmul {'tf32' if tf32 else dtype}")


def _product(ns: Any, a: Any, b: Any) -> Any:
    return a @ b


def _conv(dtype: str, tf32: bool, backward: bool) -> Row:
    """A 3x3 convolution of 256 channels on 28x28, batch 64."""

    def sizes(toy: bool) -> tuple[int, int, int]:
        return (2, 8, 6) if toy else (64, 256, 28)

    def make(ns: Any, toy: bool) -> Callable[[], Any]:
        ns.backends.cudnn.allow_tf32 = tf32
        n, c, size = sizes(toy)
        x = ns.randn(n, c, size, size).to(getattr(ns, dtype)).requires_grad_(backward)
        w = ns.randn(c, c, 3, 3).to(getattr(ns, dtype)).requires_grad_(backward)
        g = ns.randn(n, c, size, size).to(getattr(ns, dtype))

        def step() -> None:
            x.grad = w.grad = None
            y = ns.nn.functional.conv2d(x, w, padding=1)
            if backward:
                y.backward(g)

        return step

    def flops(toy: bool) -> float:
        n, c, size = sizes(toy)
        return (3.0 if backward else 1.0) * 2.0 * n * size**2 * c**2 * 9

    return Row(make, _nothing, flops, f"matmul {'tf32' if tf32 else dtype}")


def _attention(backward: bool, cudnn: bool = True) -> Row:
    """Causal attention of 12 heads of 64 over 1,024 positions, batch 16, in bfloat16. ``cudnn``: whether cuDNN may."""

    def sizes(toy: bool) -> tuple[int, int, int, int]:
        return (1, 2, 16, 8) if toy else (16, 12, 1024, 64)

    def make(ns: Any, toy: bool) -> Callable[[], Any]:
        shape = sizes(toy)
        q, k, v, g = (ns.randn(*shape).to(ns.bfloat16) for _ in range(4))
        for x in (q, k, v):
            x.requires_grad_(backward)

        def step() -> None:
            q.grad = k.grad = v.grad = None
            ns.backends.cuda.enable_cudnn_sdp(cudnn)
            y = ns.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            if backward:
                y.backward(g)
            ns.backends.cuda.enable_cudnn_sdp(True)

        return step

    def flops(toy: bool) -> float:
        n, heads, t, width = sizes(toy)
        return (3.5 if backward else 1.0) * 2.0 * n * heads * t**2 * width  # half of the matrix is masked

    return Row(make, _nothing, flops, "matmul bfloat16")


ROWS: dict[str, Row] = {
    "copy": _over_rows(_copy, "float32", 2, 2),
    "matmul bfloat16": _matmul("bfloat16"),
    "matmul float16": _matmul("float16"),
    "matmul tf32": _matmul("float32", tf32=True),
    "matmul float32": _matmul("float32"),
    **{
        f"{name} {dtype}": _over_rows(work, dtype, inputs, touched)
        for dtype in ("float32", "bfloat16")
        for name, work, inputs, touched in (
            ("add", _add, 2, 3.0), ("gelu", _gelu, 1, 2.0), ("softmax", _softmax, 1, 2.0),
            ("layer_norm", _layer_norm, 1, 2.0), ("rms_norm", _rms_norm, 1, 2.0), ("dropout", _dropout, 1, 2.0),
            ("sum", _sum, 1, 1.0), ("sum of rows", _sum_rows, 1, 1.0), ("sum of columns", _sum_columns, 1, 1.0),
            ("transposed copy", _transposed, 1, 2.0),
        )
    },
    "gelu + backward bfloat16": _with_backward(_gelu, "bfloat16", 5.0),
    "softmax + backward bfloat16": _with_backward(_softmax, "bfloat16", 5.0),
    "layer_norm + backward bfloat16": _with_backward(_layer_norm, "bfloat16", 5.0),
    "cross_entropy + backward float32": _cross_entropy("float32"),
    "cross_entropy + backward bfloat16": _cross_entropy("bfloat16"),
    "adamw float32": _adamw(),
    "conv bfloat16": _conv("bfloat16", tf32=False, backward=False),
    "conv + backward bfloat16": _conv("bfloat16", tf32=False, backward=True),
    "conv tf32": _conv("float32", tf32=True, backward=False),
    "conv float32": _conv("float32", tf32=False, backward=False),
    "attention bfloat16": _attention(backward=False),
    "attention + backward bfloat16": _attention(backward=True),
    "attention without cudnn bfloat16": _attention(backward=False, cudnn=False),
    "attention without cudnn + backward bfloat16": _attention(backward=True, cudnn=False),
}  # fmt: skip
"""By name; the ceilings come first."""

CEILINGS = ("copy", "matmul bfloat16", "matmul float16", "matmul tf32", "matmul float32")
