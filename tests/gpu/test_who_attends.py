"""Attention in half precision on device ``cuda``, by cuDNN and by our kernels: on the GPU where there is one.

Against float64 on the CPU, from the same halves; the same bits in the next run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad.backends import cuda as switches

from .beside_cpu import cuda_here

TOLERANCE = {tg.float16: 2e-3, tg.bfloat16: 1.6e-2}  # of the largest element, or of 1
# samples, heads, heads of keys, queries, keys, width, width of values
SHAPES = [
    (2, 4, 4, 128, 128, 64, 64), (2, 6, 2, 77, 200, 64, 64), (1, 2, 2, 130, 320, 128, 128), (2, 2, 1, 50, 65, 40, 72),
    (1, 2, 2, 33, 40, 256, 256), (3, 2, 2, 1, 100, 64, 64), (1, 2, 2, 2, 128, 64, 64),
]  # fmt: skip


def drawn(shape: tuple[int, ...], dtype: Any) -> list[Any]:
    """q, k, v and a slope; heads cut from positions, as a projection leaves them."""
    samples, heads, shared, queries, keys, width, wide = shape
    tg.manual_seed(sum(shape))
    cut = (queries, heads, width), (keys, shared, width), (keys, shared, wide), (queries, heads, wide)
    return [tg.randn(samples, *sizes).to(dtype).transpose(1, 2) for sizes in cut]


def run(arrays: list[Any], device: str, dtype: Any, causal: bool, p: float = 0.0) -> list[Any]:
    q, k, v, g = (x.detach().to(device, dtype).requires_grad_() for x in arrays)
    tg.manual_seed(5)
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=causal, enable_gqa=True)
    return [x.detach().cpu().double().numpy() for x in (y, *tg.autograd.grad(y, (q, k, v), g))]


def compare(arrays: list[Any], causal: bool, cudnn: bool, begin: int = 0, p: float = 0.0) -> None:
    """All are finite and the same in two runs; from element ``begin`` of each width on, they are near the CPU's."""
    dtype = arrays[0].dtype
    with cuda_here(), switches.sdp_kernel(enable_cudnn=cudnn):
        got, again = (run(arrays, "cuda", dtype, causal, p) for _ in range(2))
        want = run(arrays, "cpu", tg.float64, causal, p)
    for one, other, exact in zip(got, again, want, strict=True):
        assert np.isfinite(one).all() and np.array_equal(one, other)
        one, exact = one[..., begin:], exact[..., begin:]
        assert np.abs(one - exact).max() <= 2 * TOLERANCE[dtype] * max(1.0, float(np.abs(exact).max()))


@pytest.mark.parametrize("cudnn", [True, False], ids=["cudnn", "ours"])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("dtype", [tg.bfloat16, tg.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_precision_beside_float64(shape: tuple[int, ...], dtype: Any, causal: bool, cudnn: bool) -> None:
    compare(drawn(shape, dtype), causal, cudnn)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("dtype", [tg.bfloat16, tg.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dropout_beside_float64(shape: tuple[int, ...], dtype: Any, causal: bool) -> None:
    """The masks are the CPU's, whether cuDNN is there or not."""
    compare(drawn(shape, dtype), causal, True, p=0.25)


@pytest.mark.parametrize("cudnn", [True, False], ids=["cudnn", "ours"])
@pytest.mark.parametrize("queries", [1, 2, 64, 96, 200])
@pytest.mark.parametrize("keys", [64, 100, 128, 192])
def test_scores_far_below_zero(queries: int, keys: int, cudnn: bool) -> None:
    """Log-sum-exps below -88.7: their exponentials overflow where a kernel does not mask what lies behind the keys."""
    q, k, v, g = drawn((1, 2, 2, queries, keys, 64, 64), tg.bfloat16)
    q, k = 0.1 * q, 0.1 * k
    q[..., 0], k[..., 0] = 1.0, -120 * math.sqrt(64)
    compare([q, k, v, g], False, cudnn, begin=1)  # ahead, the gradient in q is a difference of large numbers


@pytest.mark.parametrize("width", [8, 136])
def test_one_gradient_alone(width: int) -> None:
    """In keys and values of wide heads they are kernels of their own: what nobody asks for is not computed."""
    arrays = [x.float() for x in drawn((1, 1, 1, 3, 5, width, width), tg.float32)]
    found = []
    with cuda_here():
        for device, dtype in (("cuda", tg.float32), ("cpu", tg.float64)):
            *given, g = (x.to(device, dtype) for x in arrays)
            for i in range(3):
                live = [x.detach().requires_grad_(i == k) for k, x in enumerate(given)]
                found.append(tg.autograd.grad(F.scaled_dot_product_attention(*live), live[i], g)[0].cpu().double())
    for ours, exact in zip(found[:3], found[3:], strict=True):
        assert tg.allclose(ours, exact, rtol=0, atol=1e-5)
