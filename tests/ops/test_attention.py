"""Attention against PyTorch's written-out form."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import DTypeError, ShapeError
from tensorgrad.nn import functional as F
from tensorgrad.random import Generator

from .parity import compare, normal

ALLOWED = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]], dtype=bool)
CASES = {
    "plain": ([(2, 3, 4), (2, 5, 4), (2, 5, 3)], None, {}),
    "no batch": ([(3, 4), (5, 4), (5, 3)], None, {"scale": 0.3}),
    "heads": ([(2, 2, 4, 4), (2, 2, 4, 4), (2, 2, 4, 3)], None, {"is_causal": True}),
    "five dimensions": ([(2, 1, 2, 3, 4), (2, 1, 2, 5, 4), (2, 1, 2, 5, 3)], None, {}),
    "causal, more keys": ([(2, 3, 4), (2, 5, 4), (2, 5, 3)], None, {"is_causal": True}),
    "added mask": ([(2, 3, 4), (2, 5, 4), (2, 5, 3)], normal(3, 5), {}),
    "broadcast mask": ([(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3)], normal(2, 1, 1, 5), {}),
    "a row that looks nowhere": ([(2, 3, 4), (2, 5, 4), (2, 5, 3)], ALLOWED, {}),
    "shared heads": ([(2, 4, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3)], None, {"enable_gqa": True}),
    "shared heads, masks": ([(2, 6, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3)], normal(6, 3, 5), {"enable_gqa": True}),
    "shared heads, causal": ([(6, 4, 4), (1, 4, 4), (1, 4, 3)], None, {"enable_gqa": True, "is_causal": True}),
    "broadcast batch": ([(2, 1, 3, 4), (4, 5, 4), (1, 5, 3)], None, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_attention(name):
    torch = pytest.importorskip("torch")
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shapes, mask, options = CASES[name]
    arrays = [normal(*shape) for shape in shapes] + ([] if mask is None else [mask])
    theirs = torch.nn.functional.scaled_dot_product_attention
    with sdpa_kernel(SDPBackend.MATH):
        compare(lambda *x: F.scaled_dot_product_attention(*x, **options), lambda *x: theirs(*x, **options), arrays)


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 5), (2, 3, 5)])
def test_gradient_of_an_added_mask(shape, backend):
    """Kernels against definitions: those of plain backward against those that are recorded."""
    with tg.backend(backend):
        arrays = [normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 3), normal(*shape)]
        inputs = [tg.tensor(a, requires_grad=True) for a in arrays]
        out = F.scaled_dot_product_attention(*inputs)
        plain = tg.autograd.grad(out.square().sum(), inputs, retain_graph=True)
        recorded = tg.autograd.grad(out.square().sum(), inputs, create_graph=True)
    for g, h in zip(plain, recorded, strict=True):
        np.testing.assert_allclose(g.numpy(), h.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_a_row_with_an_infinite_score_has_no_mean(backend):
    with tg.backend(backend):
        x, mask = tg.zeros(2, 3), tg.tensor([[float("inf"), 0.0], [0.0, 0.0]])
        out = F.scaled_dot_product_attention(x, x, x, mask)
    assert out[0].isnan().all() and out[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("dtype", [tg.float32, tg.bfloat16])
def test_heads_that_share_keys_attend_as_with_copies(dtype, backend):
    with tg.backend(backend):
        q, k, v = (tg.randn(2, heads, 7, 8, dtype=dtype, requires_grad=True) for heads in (6, 2, 2))
        for options in ({}, {"is_causal": True}, {"dropout_p": 0.5}):
            outs = []
            for keys, values in ((k, v), (k.repeat_interleave(3, 1), v.repeat_interleave(3, 1))):
                tg.manual_seed(0)
                shared = {"enable_gqa": keys is k}
                out = F.scaled_dot_product_attention(q, keys, values, **options, **shared).float()
                outs.append([out, *tg.autograd.grad(out.square().sum(), (q, k, v))])
            for got, want in zip(*outs, strict=True):
                assert got.shape == want.shape
                close = 1e-5 if dtype is tg.float32 else 3e-2
                assert (got.float() - want.float()).abs().max().item() <= close * max(1.0, want.abs().max().item())


def test_dropout_keeps_the_expectation():
    q, k, v = tg.zeros(1, 1, 4), tg.zeros(1, 4000, 4), tg.ones(1, 4000, 2)
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25, generator=Generator())
    assert abs(out.mean().item() - 1) < 0.05
    assert F.scaled_dot_product_attention(q, k, v, dropout_p=1.0).abs().max().item() == 0


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("kind", ["bool", "added"])
def test_a_row_of_nan_is_none_that_looks_nowhere(kind, backend):
    with tg.backend(backend):
        q, k, v = (tg.randn(3, 4, requires_grad=True) for _ in range(3))
        x = q.detach().clone()
        x[1] = float("nan")
        x.requires_grad_()
        mask = tg.tensor([[True] * 3, [True] * 3, [False] * 3])
        if kind == "added":
            mask = tg.where(mask, 0.0, -float("inf"))
        out = F.scaled_dot_product_attention(x, k, v, mask, dropout_p=0.3)
        assert out[0].isfinite().all() and out[1].isnan().all() and out[2].tolist() == [0, 0, 0, 0]
        [grad] = tg.autograd.grad(out.sum(), [x])
        assert grad[0].isfinite().all() and grad[1].isnan().all() and grad[2].tolist() == [0, 0, 0, 0]
        none = F.scaled_dot_product_attention(q, k[:0], v[:0], mask[:, :0], dropout_p=0.3)
        assert none.tolist() == [[0.0] * 4] * 3


def test_errors():
    x = tg.ones(2, 3, 4)
    with pytest.raises(ValueError, match="not both"):
        F.scaled_dot_product_attention(x, x, x, tg.ones(3, 3), is_causal=True)
    with pytest.raises(ShapeError, match="same width"):
        F.scaled_dot_product_attention(x, tg.ones(2, 3, 5), x)
    with pytest.raises(ShapeError, match=r"does not broadcast|do not broadcast"):
        F.scaled_dot_product_attention(x, x, x, tg.ones(2, 2))
    for heads in (3, 4):
        with pytest.raises(ShapeError, match="may have a multiple of the others' heads"):
            F.scaled_dot_product_attention(x[None], tg.ones(1, heads, 3, 4), tg.ones(1, heads, 3, 4), enable_gqa=True)
    with pytest.raises(ShapeError, match=r"at least 3 dimensions \(heads, length, width\), got \(3, 4\)"):
        F.scaled_dot_product_attention(x[0], x[0], x[0], enable_gqa=True)
    with pytest.raises(DTypeError, match="mask must be bool"):
        F.scaled_dot_product_attention(x, x, x, tg.ones(3, 3).double())
    with pytest.raises(ShapeError, match="at least 2 dimensions"):
        F.scaled_dot_product_attention(tg.ones(3), x, x)
