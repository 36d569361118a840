"""Arguments that PyTorch refuses and that could be taken for something else: broadcast, wrapped, cut off or ignored."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry

torch: Any = pytest.importorskip("torch")

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]


def functional(t: Any) -> Any:
    return t.nn.functional


REFUSED: dict[str, Any] = {
    # --- shapes that would broadcast
    "a target that makes the loss larger": lambda t: functional(t).soft_margin_loss(t.ones(5, 1), t.ones(10)),
    "a weight that makes the loss larger": lambda t: functional(t).binary_cross_entropy_with_logits(
        t.ones(2, 2), t.ones(2, 2), t.ones(3, 2, 2)
    ),
    "factors that make the loss larger": lambda t: functional(t).binary_cross_entropy_with_logits(
        t.ones(2, 2), t.ones(2, 2), pos_weight=t.ones(3, 2, 2)
    ),
    "a weight of probabilities": lambda t: functional(t).binary_cross_entropy(
        t.ones(2, 2), t.ones(2, 2), t.ones(3, 2, 2)
    ),
    "ranks of several dimensions": lambda t: functional(t).margin_ranking_loss(t.ones(5), t.ones(5), t.ones(1, 5)),
    "triplets of several dimensions": lambda t: functional(t).triplet_margin_loss(
        t.ones(3, 2), t.ones(2), t.ones(3, 2)
    ),
    "pairs of several dimensions": lambda t: functional(t).cosine_embedding_loss(t.ones(5, 2), t.ones(2), t.ones(5)),
    "classes of a number": lambda t: functional(t).multilabel_soft_margin_loss(t.tensor(1.0), t.tensor(1.0)),
    "an input of more dimensions": lambda t: t.addr(t.ones(1, 2, 2), t.ones(2), t.ones(2)),
    "a bias for one output": lambda t: functional(t).linear(t.ones(2, 3), t.ones(3), t.ones(2)),
    "more shifts than dims": lambda t: t.roll(t.arange(4), (1, 2, 3), (0,)),
    "no shifts": lambda t: t.roll(t.ones(2, 2), (), 1),
    "a weight of another size": lambda t: functional(t).rms_norm(
        t.ones(1, dtype=t.complex64), (1,), t.ones(2, dtype=t.complex64)
    ),
    "slopes in a matrix": lambda t: functional(t).prelu(t.ones(3), t.ones(1, 1)),
    "a kernel of nothing": lambda t: functional(t).conv_transpose1d(t.ones(1, 2, 3), t.ones(2, 2, 0)),
    "keys of another size": lambda t: functional(t).multi_head_attention_forward(
        *[t.ones(2, 1, 4)] * 3, 4, 2, t.ones(12, 4), t.ones(12), t.ones(1, 1, 4), t.ones(1, 1, 1), False, 0.0,
        t.ones(4, 4), t.ones(4),
    ),
    "a window that goes backwards": lambda t: functional(t).unfold(t.ones(1, 4, 6, 6), 2, dilation=-2),
    "a window of nothing": lambda t: functional(t).unfold(t.ones(1, 4, 6, 6), 0),
    "a window without its border": lambda t: functional(t).unfold(t.ones(1, 4, 6, 6), 2, padding=-2),
    "channels of a matrix": lambda t: t.nn.Softmax2d()(t.ones(2, 3)),
    "factors of other classes": lambda t: functional(t).multi_margin_loss(
        t.ones(2, 4), t.tensor([0, 1]), weight=t.ones(3)
    ),
    "a group of one": lambda t: functional(t).group_norm(t.ones(1, 2), 2),
    "matrices that a 1 would fit": lambda t: t.addbmm(t.ones(2, 2), t.ones(3, 2, 1), t.ones(3, 5, 2)),
    "truth values that would broadcast": lambda t: t.addr(
        t.ones(5, 2, dtype=t.bool), t.ones(5, dtype=t.bool), t.ones(1, dtype=t.bool)
    ),
    # --- dtypes that would be promoted or cut off
    "slopes of another dtype": lambda t: functional(t).prelu(t.ones(3), t.ones(1, dtype=t.float64)),
    "a bias of another dtype": lambda t: functional(t).bilinear(
        t.ones(2, 3), t.ones(2, 3), t.ones(1, 3, 3), t.ones(1, dtype=t.float64)
    ),
    "sums in another dtype in place": lambda t: t.ones(2).cumsum_(0, dtype=t.int64),
    "products in another dtype in place": lambda t: t.ones(2).cumprod_(0, dtype=t.float64),
    "a complex beta": lambda t: t.addmm(t.ones(2, 2), t.ones(2, 2), t.ones(2, 2), beta=1j),
    "a complex alpha": lambda t: t.baddbmm(t.ones(1, 2, 2), t.ones(1, 2, 2), t.ones(1, 2, 2), alpha=1j),
    "a complex beta of an outer product": lambda t: t.addr(t.ones(2, 2), t.ones(2), t.ones(2), beta=1j),
    "the sign of complex numbers in place": lambda t: t.ones(2, dtype=t.complex64).sign_(),
    "relu of truth values": lambda t: functional(t).relu(t.tensor([True])),
    "a grid of two dtypes": lambda t: t.meshgrid(t.ones(2), t.ones(2, dtype=t.int64)),
    "random truth values up to 10": lambda t: t.randint(0, 10, (5,), dtype=t.bool),
    "random bytes up to 300": lambda t: t.empty(5, dtype=t.int8).random_(0, 300),
    "random bytes below -128": lambda t: t.empty(5, dtype=t.int8).random_(-300, 0),
    "random numbers beyond half": lambda t: t.randint(0, 100000, (5,), dtype=t.float16),
    "random complex integers": lambda t: t.randint(0, 2, (5,), dtype=t.complex64),
    "random truth values like": lambda t: t.randint_like(t.ones(3), 0, 10, dtype=t.bool),
    "the smooth loss of complex numbers": lambda t: functional(t).smooth_l1_loss(
        t.ones(2, dtype=t.complex64), t.ones(2)
    ),
    "Huber's loss of complex numbers": lambda t: functional(t).huber_loss(t.ones(2), t.ones(2, dtype=t.complex64)),
    "factors of another dtype": lambda t: functional(t).multi_margin_loss(
        t.ones(2, 3), t.tensor([0, 1]), weight=t.ones(3, dtype=t.float64)
    ),
    # --- what would be ignored
    "targets that are no probabilities": lambda t: functional(t).binary_cross_entropy(t.ones(2), t.ones(2) * 2),
    "pivots of nothing": lambda t: t.lu_unpack(t.ones(4, 5), t.zeros(4, dtype=t.int32)),
    "more targets than lengths": lambda t: functional(t).ctc_loss(
        t.zeros(5, 2, 3), t.ones(7, dtype=t.int64), t.tensor([5, 5]), t.tensor([2, 3])
    ),
    "-1 points": lambda t: t.fft.hfft(t.ones(4), -1),
    "a size that repeats do not give": lambda t: t.repeat_interleave(t.ones(4), t.tensor([0]), 0, output_size=6),
    "one running statistic": lambda t: functional(t).instance_norm(t.ones(2, 3, 4), t.ones(3)),
    "one running statistic of a batch": lambda t: functional(t).batch_norm(
        t.ones(2, 3, 4), t.ones(3), None, training=True
    ),
    "a dim of a number": lambda t: t.tensor(1.0).flatten(1),
    "a grid of nothing": lambda t: t.meshgrid([]),
    "no bins": lambda t: t.histc(t.ones(3), 0, 0, 1),
    "bins from above": lambda t: t.histc(t.ones(3), 3, 1.5, 0),
    "bins from NaN": lambda t: t.histc(t.ones(3), 3, math.nan, 1),
    "the integral of a number": lambda t: t.trapezoid(t.tensor(1.0)),
    "a delta of NaN": lambda t: functional(t).huber_loss(t.ones(2), t.ones(2), delta=math.nan),
    "unique numbers along no dim": lambda t: t.unique(t.tensor(1), dim=0),
    "unique neighbours along no dim": lambda t: t.unique_consecutive(t.tensor(1), dim=0),
    "a repeated dim of a system": lambda t: t.linalg.tensorsolve(t.ones(3, 4, 4, 3), t.ones(3, 4), dims=(0, 2, 2)),
    # --- what is of no kind that could be meant
    "a word as keepdim": lambda t: t.sum(t.ones(2, 2), 0, keepdim="a"),
    "a fraction as keepdim": lambda t: t.var(t.ones(2, 2), 0, keepdim=1.5),
    "None as keepdim": lambda t: t.amax(t.ones(2, 2), 0, keepdim=None),
    "None as keepdim of a maximum": lambda t: t.max(t.ones(2, 2), 0, keepdim=None),
    "a word as unbiased": lambda t: t.std(t.ones(2, 2), 0, unbiased="a"),
    "a fraction as a length": lambda t: t.ones(3).narrow(0, 0, 1.5),
    "a word as a start": lambda t: t.ones(3).narrow(0, "a", 1),
    "a pair as a transform's length": lambda t: t.stft(t.ones(10), (4, 4), return_complex=True),
    "a fraction as a shape": lambda t: functional(t).layer_norm(t.ones(3), 3.5),
    "a number as weights": lambda t: functional(t).layer_norm(t.ones(3), (3,), 1),
    "infinity as an integer": lambda t: t.linspace(-math.inf, 3, 5, dtype=t.int64),
    "a filled number": lambda t: t.masked_fill(1, t.tensor(True), 10),
    "random like a number": lambda t: t.randn_like(2.5),
    "a word as a bound": lambda t: functional(t).rrelu(t.ones(2), 0.0, "a"),
    "a word as samples": lambda t: t.multinomial(t.ones(3), "a"),
    "a pair as padding": lambda t: functional(t).embedding(t.tensor([1]), t.ones(2, 2), (1,)),
    "None as what is ignored": lambda t: functional(t).nll_loss(t.ones(1, 3), t.tensor([0]), ignore_index=None),
    "a word as class weights": lambda t: functional(t).nll_loss(t.ones(1, 3), t.tensor([0]), "a"),
    "a list as ind": lambda t: t.linalg.tensorinv(t.ones(2, 2), []),
    "None as matrices": lambda t: t.linalg.multi_dot(None),
    "a slope of NaN": lambda t: functional(t).rrelu(t.ones(2), 0.1, math.nan, training=True),
    "a word as a form of rates": lambda t: functional(t).poisson_nll_loss(t.ones(2), t.ones(2), "a"),
    "a pair of heads": lambda t: t.nn.MultiheadAttention(4, (1, 2)),
    "a fraction of a layer": lambda t: t.nn.Transformer(4, 2, 0.5, 1, 4),
    "a number through an activation": lambda t: t.nn.TransformerEncoderLayer(4, 2, 4, activation=3)(t.ones(3, 4)),
    "a word as a first slope": lambda t: t.nn.PReLU(1, "a"),
    "a word as a margin": lambda t: t.nn.TripletMarginLoss("a"),
    "a list through a cell": lambda t: t.nn.RNNCell(2, 2)([1.0, 2.0]),
    "a number as a state": lambda t: t.nn.RNN(2, 2)(t.ones(3, 2), 2.5),
    "a number through a Transformer": lambda t: t.nn.Transformer(4, 2, 1, 1, 4)(2.5, t.ones(3, 4)),
    "half precision in frames": lambda t: t.stft(t.ones(32, dtype=t.float16), 4, return_complex=True),
    "a list as a way to scatter": lambda t: t.scatter(t.ones(3), 0, t.tensor([0]), t.ones(1), reduce=["add"]),
    "rows of truth": lambda t: t.multinomial(False, 4),
    "a word as probabilities": lambda t: t.bernoulli("a"),
    "reflectors of a number": lambda t: t.ormqr(t.ones(2, 2), t.tensor(0.0), t.ones(2, 2)),
    "a pair as pivots": lambda t: t.lu_unpack(t.ones(2, 2), (1, 2)),
    "a word in a window": lambda t: t.signal.windows.general_cosine(3, a=["a", 0.5]),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, backend):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError)):
            REFUSED[name](torch)
    with tg.backend(backend), pytest.raises((RuntimeError, ValueError, TypeError, IndexError)) as mine:
        REFUSED[name](tg)
    where = mine.traceback[-1]
    assert "tensorgrad" in str(where.path) and str(where.statement).lstrip().startswith("raise"), where


SAME: dict[str, Any] = {
    "a number as dim beside keepdim": lambda t: list(t.max(t.tensor([[1.0, 2.0], [3.0, 4.0]]), t.tensor(1), True)),
    "no dims to squeeze": lambda t: [t.ones(1, 2).squeeze([]), t.ones(1, 2).squeeze(())],
    "an outer product in float64": lambda t: t.addr(
        t.zeros(1, 2, dtype=t.float64), t.tensor([1 / 3]), t.tensor([1 / 3, 1 / 7])
    ),
    "matrices of one dtype and a number": lambda t: t.block_diag(
        t.tensor(2.0, dtype=t.float64), t.ones(1, 2, dtype=t.complex64)
    ),
    "log1p of large complex numbers": lambda t: t.log1p(t.tensor([1e20 + 1e20j, -1e25, 1e30j, 1e-20j, -1 + 1e-30j])),
    "log1p of complex doubles": lambda t: t.log1p(t.tensor([1e200 + 1e200j, -1e205, 3 + 4j], dtype=t.complex128)),
    "integers and a margin": lambda t: functional(t).margin_ranking_loss(
        t.tensor([1, 2]), t.tensor([3, 4]), t.tensor([1, -1]), margin=2, reduction="sum"
    ),
    "classes that broadcast": lambda t: functional(t).multilabel_soft_margin_loss(t.ones(5), t.ones(2, 5)),
    "complex numbers of no pairs": lambda t: [
        t.view_as_complex(t.zeros(0, 2)), t.rand_like(t.zeros(0, 2, dtype=t.complex64)),
        t.zeros(0, dtype=t.complex64).normal_(),
    ],
    "pools of no images": lambda t: [
        functional(t).fractional_max_pool2d(t.zeros(0, 3, 9, 9), 3, 2),
        functional(t).fractional_max_pool3d(t.zeros(0, 3, 9, 9, 9), 3, 2),
    ],
    "a large number as truth": lambda t: t.full_like(t.tensor([True]), 2**63),
    "differences of truth values and numbers": lambda t: t.diff(
        t.tensor([True, False, True]), append=t.tensor([2.5])
    ),
    "a tensor as a transform's length": lambda t: t.stft(t.arange(32.0), t.tensor(8), return_complex=True),
    "delta as a tensor": lambda t: functional(t).huber_loss(t.ones(2), t.zeros(2), delta=t.tensor(0.5)),
    "a NumPy number as a dim to roll along": lambda t: t.roll(t.arange(6).reshape(2, 3), 1, np.int64(1)),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SAME)
def test_same(name, backend):
    with warnings.catch_warnings():  # PyTorch's, of which each process has some once
        warnings.simplefilter("ignore")
        theirs = SAME[name](torch)
    with tg.backend(backend):
        mine = SAME[name](tg)
    for got, expected in zip(*(x if isinstance(x, list) else [x] for x in (mine, theirs)), strict=True):
        assert str(got.dtype).rpartition(".")[2] == str(expected.dtype).rpartition(".")[2]
        assert tuple(got.shape) == tuple(expected.shape)
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_distances_of_an_order_beyond_all_powers(backend):
    """They are the largest difference; PyTorch's norms agree, and so does its cdist."""
    with tg.backend(backend):
        assert tg.cdist(tg.tensor([[1.0, 2.0]]), tg.tensor([[3.0, 14.0]]), 1e50).item() == 12.0
