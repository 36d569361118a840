"""Wrong input gives a clear exception; the process lives and the tensors are unchanged."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional as F

X = (2, 3)

CASES = {
    "shapes do not broadcast": (lambda x: x + tg.ones(2, 4), RuntimeError, "do not broadcast"),
    "matmul sizes": (lambda x: x @ tg.ones(4, 2), RuntimeError, "matmul"),
    "linear features": (lambda x: F.linear(x, tg.ones(5, 7)), RuntimeError, "expects 7"),
    "dtype of an integer formula": (lambda x: x & 1, RuntimeError, "bitwise_and"),
    "index out of range": (lambda x: x[5], IndexError, "out of bounds"),
    "gather out of range": (lambda x: x.gather(1, tg.tensor([[9]])), IndexError, "9"),
    "embedding out of range": (lambda x: F.embedding(tg.tensor([7]), x), IndexError, "7"),
    "target out of range": (lambda x: F.cross_entropy(x, tg.tensor([0, 3])), IndexError, "3"),
    "target of nll_loss": (lambda x: F.nll_loss(x, tg.tensor([0, 3])), IndexError, "nll_loss.*3"),
    "view of no shape": (lambda x: tg.ones(1).view(), TypeError, "missing"),
    "reshape to no shape": (lambda x: tg.ones(1).reshape(), TypeError, "missing"),
    "dim out of range": (lambda x: x.sum(dim=4), IndexError, "out of range"),
    "dim twice": (lambda x: x.sum(dim=(0, 0)), (IndexError, RuntimeError), "twice"),
    "impossible reshape": (lambda x: x.reshape(4, 2), RuntimeError, "reshape"),
    "channels": (lambda x: F.conv2d(tg.ones(1, 3, 4, 4), tg.ones(2, 4, 3, 3)), RuntimeError, "channels"),
    "kernel too large": (lambda x: F.conv2d(tg.ones(1, 1, 2, 2), tg.ones(1, 1, 5, 5)), RuntimeError, "kernel"),
    "pool padding": (lambda x: F.max_pool2d(tg.ones(1, 1, 4, 4), 2, padding=2), RuntimeError, "pad"),
    "huge size": (lambda x: tg.zeros(2**40, 2**40), RuntimeError, "elements"),
    "too much memory": (lambda x: tg.empty(2**50), MemoryError, "memory|alloc"),
    "negative size": (lambda x: tg.zeros(-1), RuntimeError, "negative"),
    "ragged": (lambda x: tg.tensor([[1.0], [1.0, 2.0]]), ValueError, "ragged"),
    "not a number": (lambda x: tg.tensor(["a"]), TypeError, "numbers"),
    "not a tensor": (lambda x: tg.exp("a"), TypeError, "exp"),
    "partly overlapping write": (lambda x: x.view(-1)[1:].add_(x.view(-1)[:-1]), RuntimeError, "shares part"),
    "expanded write": (lambda x: x[:, :1].expand(2, 3).mul_(2), RuntimeError, "expanded"),
    "unfolded write": (lambda x: x.view(-1).unfold(0, 3, 1).add_(1), RuntimeError, "unfolded"),
    "input larger than the product": (lambda x: tg.addmm(tg.ones(2, 1, 1), x, x.t()), RuntimeError, "broadcast"),
    "number beyond an integer dtype": (lambda x: tg.tensor([1, 300], dtype=tg.int8), RuntimeError, "300"),
    "number beyond int64": (lambda x: tg.tensor([5]) > 2**63, RuntimeError, "9223372036854775808 does not fit int64"),
    "NaN as an integer": (lambda x: tg.full((2,), float("nan"), dtype=tg.int64), RuntimeError, "nan"),
    "complex as real": (lambda x: tg.tensor([1j], dtype=tg.float32), TypeError, "complex"),
    "fill beyond an integer dtype": (
        lambda x: tg.zeros(2, dtype=tg.int8).masked_fill(tg.ones(2).bool(), 300),
        RuntimeError,
        "300",
    ),
    "bound beyond an integer dtype": (lambda x: tg.zeros(2, dtype=tg.int8).clamp(min=300), RuntimeError, "300"),
    "choice beyond an integer dtype": (
        lambda x: tg.where(tg.ones(2).bool(), tg.zeros(2, dtype=tg.int8), 300),
        RuntimeError,
        "300",
    ),
    "fraction of integers": (
        lambda x: tg.addr(x.long(), x.long()[:, 0], x.long()[0], beta=0.5),
        RuntimeError,
        "integers",
    ),
    "index of two dimensions": (lambda x: x.index_add_(0, tg.tensor([[0], [1]]), x.clone()), IndexError, "one dim"),
    "unknown dtype": (lambda x: x.to("float8"), (RuntimeError, TypeError), "float8"),
    "bad p": (lambda x: F.dropout(x, 1.5), ValueError, "1.5"),
    "integer to negative power": (lambda x: tg.ones(2, dtype=tg.int64) ** -1, RuntimeError, "negative"),
    "softmax of integers": (lambda x: tg.ones(2, dtype=tg.int64).softmax(0), RuntimeError, "float"),
    "boolean mask of a wrong shape": (lambda x: x[tg.ones(5, dtype=tg.bool)], IndexError, "mask|shape"),
    "negative step": (lambda x: x[::-1], ValueError, "step"),
    "a fraction as a size": (lambda x: x.unfold(0, 1.5, 1), TypeError, "1.5"),
    "a fraction as a count": (lambda x: x.repeat_interleave(1.5), TypeError, "1.5"),
    "a histogram of integers": (lambda x: tg.histc(x.long(), 3, 0, 4), RuntimeError, "histc.*int64"),
    "a fraction as a number of bins": (lambda x: tg.histc(x, 1.5), TypeError, "1.5"),
    "a fraction as a diagonal": (lambda x: x.tril(0.5), TypeError, "0.5"),
    "a fraction as a power": (lambda x: tg.linalg.matrix_power(tg.ones(2, 2), 1.5), TypeError, "1.5"),
    "a fraction as a number of groups": (lambda x: F.group_norm(x, 1.5), TypeError, "1.5"),
    "a number as bias": (lambda x: F.conv2d(tg.ones(1, 1, 4, 4), tg.ones(1, 1, 2, 2), 1), TypeError, "bias"),
    "a number as weight": (lambda x: F.batch_norm(x, None, None, 1.0, training=True), TypeError, "weight"),
    "running statistics of a wrong size": (
        lambda x: F.batch_norm(x, tg.zeros(1), tg.ones(3), training=True),
        RuntimeError,
        "running_mean",
    ),
    "a stride beyond any size": (
        lambda x: F.conv2d(tg.ones(1, 1, 4, 4), tg.ones(1, 1, 2, 2), stride=2**62),
        RuntimeError,
        "stride",
    ),
    "nothing left to pad": (lambda x: F.pad(x, (0, -4), "replicate"), RuntimeError, "leaves nothing"),
    "inner products of unequal rows": (lambda x: tg.inner(tg.ones(1), x), RuntimeError, "equal"),
    "an index of two dimensions": (lambda x: x.index_select(0, tg.zeros(1, 1).long()), IndexError, "one dim"),
    "a negative deviation": (lambda x: tg.normal(tg.zeros(2), tg.tensor([1.0, -1.0])), RuntimeError, "negative"),
    "pivots that are no rows": (
        lambda x: tg.linalg.lu_solve(tg.eye(2), tg.tensor([3, 0]).int(), tg.ones(2, 1)),
        RuntimeError,
        "pivots",
    ),
    "the middle of no integers": (lambda x: x.long()[:0].median(), RuntimeError, "empty"),
    "numbers beyond int64": (lambda x: tg.logspace(1, 99, 3, dtype=tg.int64), RuntimeError, "do not fit"),
    "weights of classes in two dimensions": (
        lambda x: F.cross_entropy(x, x.softmax(1), weight=tg.ones(1, 3)),
        RuntimeError,
        "weight",
    ),
    "a sorter of a wrong size": (
        lambda x: tg.searchsorted(x, x, sorter=tg.zeros(2, 4, dtype=tg.int64)),
        RuntimeError,
        "sorter",
    ),
    "like another, on a device without a name": (lambda x: tg.zeros_like(x, device=""), RuntimeError, "device"),
    "a pool of no channels": (lambda x: F.adaptive_max_pool1d(tg.ones(2, 0, 7), 3), RuntimeError, "empty"),
    "a fraction as a size to resize to": (lambda x: F.interpolate(x[None], size=1.5), TypeError, "1.5"),
    "windows without a step": (lambda x: F.unfold(tg.ones(1, 1, 5, 5), 2, stride=0), RuntimeError, "stride"),
    "a device without a name": (lambda x: tg.zeros(2, device=""), RuntimeError, "device"),
    "padding beyond an integer dtype": (
        lambda x: F.pad(x.long(), (1, 1), value=2**63),
        RuntimeError,
        "9223372036854775808",
    ),
    "padding that is NaN": (lambda x: F.pad(x.char(), (1, 1), value=float("nan")), RuntimeError, "nan"),
    "padding that is no number": (lambda x: F.pad(x, (1, 1), value="a"), TypeError, "pad: value.*'a'"),
    "in-place number beyond int64": (
        lambda x: x.long().add_(2**63),
        RuntimeError,
        "add: the number 9223372036854775808",
    ),
    "in-place comparison beyond int64": (lambda x: x.long().gt_(2**64), RuntimeError, "gt: the number"),
    "in-place number beyond float64": (lambda x: x.clone().mul_(10**400), RuntimeError, "mul: .*beyond the range"),
    "number beyond float64": (lambda x: x * 10**400, RuntimeError, "mul: .*beyond the range of float64"),
    "filled with a number beyond float64": (lambda x: tg.full((2,), 10**400, dtype=tg.float32), RuntimeError, "beyond"),
    "a slope beyond float64": (lambda x: F.leaky_relu(x, 10**400), RuntimeError, "negative_slope"),
    "data beyond int64": (lambda x: tg.tensor([1, 2**63]), ValueError, "9223372036854775808 does not fit int64"),
    "a number beyond int64 to look for": (lambda x: tg.isin(x.long(), 2**63), RuntimeError, "does not fit int64"),
    "threshold beyond an integer dtype": (lambda x: F.threshold(x.char(), 300, 1), RuntimeError, "threshold: 300"),
    "threshold of bools": (lambda x: F.threshold(x > 1, 0, 1), RuntimeError, "bool"),
    "floats added to integers in place": (
        lambda x: x.long().addr_(x[:, 0], x[0]),
        RuntimeError,
        "addr_: the result is torch.float32",
    ),
    "a product of floats in place of integers": (
        lambda x: tg.ones(2, 2).long().addmm_(tg.ones(2, 2), tg.ones(2, 2)),
        RuntimeError,
        "addmm.*dtype",
    ),
    "an array as a dim": (lambda x: x.cumsum(np.array([0, 1])), TypeError, "cumsum: dim must be an integer"),
    "a fraction as a dim": (lambda x: x.cumsum(tg.tensor(0.5)), TypeError, "cumsum: dim must be an integer"),
    "a bool tensor as a dim": (lambda x: x.cumsum(tg.tensor(True)), TypeError, "cumsum: dim must be an integer"),
    "an array as a size": (lambda x: tg.ones(2, np.array([1, 2])), TypeError, "ones: a shape is made of integers"),
    "a fraction as a shape": (lambda x: tg.ones(1.5), TypeError, "ones: a shape is made of integers"),
    "nothing as a shape": (lambda x: tg.ones(None), TypeError, "ones: a shape is made of integers"),
    "a fraction as a number of chunks": (lambda x: x.chunk(tg.tensor(1.5)), TypeError, "chunks must be an integer"),
    "more chunks of nothing than memory holds": (lambda x: x[:0].chunk(2**62), RuntimeError, "chunks"),
    "a word as a number of pieces": (lambda x: x.split("a"), TypeError, "split: split_size"),
    "more points of a window than memory holds": (lambda x: tg.signal.windows.hann(2**63 - 1), ValueError, "window"),
    "a number joined on": (lambda x: tg.diff(x, 0, prepend=3), TypeError, "prepend must be a Tensor"),
    "a size of normal numbers beside a tensor": (lambda x: tg.normal(x, 1.0, (4, 5)), TypeError, "size"),
    "a fraction as a divisor": (
        lambda x: F.avg_pool1d(x[None], 2) + F.avg_pool2d(x[None], 2, divisor_override=1.5),
        TypeError,
        "divisor_override must be an integer",
    ),
    "a fraction as a class to ignore": (
        lambda x: F.cross_entropy(x, tg.tensor([0, 1]), ignore_index=None),
        TypeError,
        "ignore_index",
    ),
    "a number as a mask": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=3),
        TypeError,
        "attn_mask must be a Tensor or None",
    ),
    "a word as an order": (lambda x: tg.dist(x, x, "a"), TypeError, "order of norm, got 'a'"),
    "a fraction as a size of channels": (
        lambda x: F.local_response_norm(x[None], 1.5),
        TypeError,
        "size must be an integer",
    ),
    "an order beyond 64 bits": (lambda x: tg.polygamma(2**70, x), ValueError, "order n must fit into 64 bits"),
    "a word as a bound": (lambda x: F.hardtanh(x, "a"), TypeError, "min_val must be a number"),
    "a list as a norm": (lambda x: tg.fft.fft(x, norm=["ortho"]), RuntimeError, "normalization mode"),
    "more elements than can be addressed": (lambda x: tg.empty(2**60), RuntimeError, "more than can be addressed"),
    "new elements beyond what can be addressed": (lambda x: x.new_empty(2**62), RuntimeError, "can be addressed"),
    "no elements of larger sizes than can be addressed": (
        lambda x: tg.zeros(2**40, 0, 2**40),
        RuntimeError,
        "no elements",
    ),
    "a diagonal beyond what can be addressed": (
        lambda x: tg.diag_embed(x, 2**62),
        RuntimeError,
        "diag_embed.*can be addressed",
    ),
    "an identity beyond what can be addressed": (lambda x: tg.eye(2**40), RuntimeError, "can be addressed"),
    "a fraction as an offset": (
        lambda x: x.as_strided((2,), (1,), 1.5),
        TypeError,
        "storage_offset must be an integer",
    ),
    "NaN as an offset": (lambda x: x.as_strided((2,), (1,), float("nan")), TypeError, "storage_offset"),
    "a fraction as a number of powers": (lambda x: tg.linalg.vander(x[0], N=2.5), TypeError, "N must be an integer"),
    "a word as decimals": (lambda x: x.round(decimals="a"), TypeError, "decimals must be an integer"),
    "a fraction as a number of elements to combine": (lambda x: tg.combinations(x[0], 1.5), TypeError, "r must be"),
    "a word as a tolerance": (lambda x: tg.isclose(x, x, rtol="a"), TypeError, "rtol must be a number"),
    "a word as a rank's tolerance": (lambda x: tg.linalg.matrix_rank(x, atol="a"), TypeError, "atol must be a number"),
    "an infinite step": (lambda x: tg.arange(0, 5, float("inf"), dtype=tg.int64), RuntimeError, "inf"),
    "more steps than can be counted": (lambda x: tg.arange(0.0, 1.0, 1e-320), RuntimeError, "more steps"),
    "a complex range": (lambda x: tg.arange(1j, 2, 1), RuntimeError, "complex"),
    "no dims to rotate": (lambda x: x.rot90(1, None), TypeError, "dims"),
    "a dimension of none to split": (lambda x: tg.ones(()).unflatten(0, (1, 1)), IndexError, "no dimensions"),
    "slices of no dimensions": (lambda x: tg.ones(()).slice_scatter(tg.ones(())), IndexError, "no dimensions"),
    "a fraction as a bound of a slice": (lambda x: x[0:1.5], TypeError, "bounds of a slice"),
    "an array as an index": (lambda x: x.select(0, np.array([0, 1])), TypeError, "index"),
    "a spacing of zero": (lambda x: tg.gradient(x, spacing=0.0), RuntimeError, "spacing must not be zero"),
    "infinity among integers": (
        lambda x: tg.addcmul(x.long(), x.long(), x.long(), value=float("inf")),
        RuntimeError,
        "addcmul: inf",
    ),
    "a fraction of integers by a tensor": (
        lambda x: tg.addmm(tg.ones(2, 2).long(), tg.ones(2, 2).long(), tg.ones(2, 2).long(), beta=float("nan")),
        RuntimeError,
        "nan",
    ),
    "an array as a factor": (
        lambda x: tg.addmm(tg.ones(2, 2), tg.ones(2, 2), tg.ones(2, 2), alpha=np.ones(2)),
        TypeError,
        "alpha",
    ),
    "a list as a rounding": (lambda x: tg.div(x, x, rounding_mode=["floor"]), RuntimeError, "rounding_mode"),
    "an infinite scale": (
        lambda x: F.interpolate(x[None], scale_factor=float("inf")),
        RuntimeError,
        "scale_factor inf",
    ),
    "a word as a scale": (lambda x: F.interpolate(x[None], scale_factor="a"), TypeError, "scale_factor"),
    "a list as a mode": (lambda x: F.interpolate(x[None], 3, mode=["nearest"]), NotImplementedError, "mode"),
    "a number as a bias of a layer": (lambda x: F.linear(x, tg.ones(4, 3), 2), TypeError, "bias must be a Tensor"),
    "a word as epsilon": (
        lambda x: F.batch_norm(x, None, None, training=True, eps="a"),
        TypeError,
        "eps must be a num",
    ),
    "a word as a bend": (lambda x: F.smooth_l1_loss(x, x, beta="a"), TypeError, "beta must be a number"),
    "one tensor for two results": (lambda x: tg.sort(x, out=x.clone()), TypeError, "out must be two Tensors"),
    "pairs of dimensions in words": (lambda x: tg.tensordot(x, x, "ab"), RuntimeError, "tensordot: dims"),
    "strides that are none": (lambda x: tg.empty_strided((2,), None), TypeError, "stride"),
    "scattered from nothing": (
        lambda x: tg.scatter_reduce(None, 0, tg.tensor([0]), x[0], "amin", include_self=False),
        TypeError,
        "scatter",
    ),
    "a word to fill with": (lambda x: tg.full_like(x, "a"), TypeError, "full_like"),
    "an array to fill with": (lambda x: tg.full((2,), np.ones(2)), TypeError, "one number"),
    "a fraction as a factor of a picture": (lambda x: F.pixel_shuffle(tg.ones(1, 4, 2, 2), 2.5), TypeError, "2.5"),
    "a fraction as a bound of integers": (lambda x: tg.randint(0, 9.5, (2,)), TypeError, "randint: high"),
    "a word as a deviation": (lambda x: x.normal_(0.0, "a"), TypeError, "std must be a number"),
    "a word as a length": (
        lambda x: F.embedding(tg.tensor([0]), x, max_norm="a"),
        TypeError,
        "max_norm must be a number",
    ),
    "a word as a probability": (lambda x: F.dropout(x, "a"), TypeError, "p must be a number"),
    "a word as a distance": (lambda x: tg.trapezoid(x, dx="a"), TypeError, "dx must be a number"),
    "no heads": (
        lambda x: F.multi_head_attention_forward(
            *[tg.ones(2, 1, 4)] * 3, 4, 0, tg.ones(12, 4), None, None, None, False, 0.0, tg.ones(4, 4), None
        ),
        AssertionError,
        "num_heads 0",
    ),
    "a bound beyond a floating dtype": (lambda x: tg.clamp(x, max=1e300), RuntimeError, "clamp: .*without overflow"),
    "a bound beyond half precision": (lambda x: x.half().clamp_min_(100000), RuntimeError, "float16 without overflow"),
    "a floating bound of integers": (lambda x: tg.clamp_max(x.long(), 1e300), RuntimeError, "without overflow"),
    "padding beyond a floating dtype": (lambda x: F.pad(x, (1, 1), value=1e300), RuntimeError, "without overflow"),
    "padding beyond half precision": (lambda x: F.pad(x.half(), (1, 1), value=1e5), RuntimeError, "without overflow"),
    "a fill beyond a floating dtype": (lambda x: x.masked_fill(x > 1, -1e39), RuntimeError, "without overflow"),
    "a fill beyond half precision": (lambda x: x.half().masked_fill_(x > 1, -1e9), RuntimeError, "without overflow"),
    "full of what half precision lacks": (
        lambda x: tg.full((2,), 65519.0, dtype=tg.float16),
        RuntimeError,
        "without overflow",
    ),
    "a choice beyond a floating dtype": (lambda x: tg.where(x > 1, x, 1e39), RuntimeError, "without overflow"),
    "a factor beyond a floating dtype": (lambda x: tg.add(x, x, alpha=1e39), RuntimeError, "without overflow"),
    "a factor of a product beyond a floating dtype": (
        lambda x: tg.addmm(x, x, tg.ones(3, 3), beta=1e39),
        RuntimeError,
        "beta: .*without overflow",
    ),
    "a factor of products beyond a floating dtype": (
        lambda x: tg.addcmul(x, x, x, value=1e39),
        RuntimeError,
        "without overflow",
    ),
    "a weight beyond a floating dtype": (lambda x: tg.lerp(x, x, 1e39), RuntimeError, "without overflow"),
    "a slope beyond a floating dtype": (lambda x: F.leaky_relu(x, 1e39), RuntimeError, "without overflow"),
    "a limit beyond a floating dtype": (lambda x: F.softshrink(x, 1e39), RuntimeError, "without overflow"),
    "a limit of integers to shrink": (lambda x: F.hardshrink(x.long(), 0.5), RuntimeError, "hardshrink: .*float"),
    "a value beyond a floating dtype": (lambda x: F.threshold(x, 0.0, 1e39), RuntimeError, "without overflow"),
    "an end beyond a floating dtype": (lambda x: tg.linspace(0, 1e39, 3), RuntimeError, "without overflow"),
    "a word as a base": (lambda x: tg.logspace(0, 1, 3, base="a"), TypeError, "base must be a number"),
    "projections of too few rows": (
        lambda x: F.multi_head_attention_forward(
            *[tg.ones(2, 1, 4)] * 3, 4, 2, tg.ones(11, 4), None, None, None, False, 0.0, tg.ones(4, 4), None
        ),
        RuntimeError,
        r"in_proj_weight has shape \(11, 4\), inputs of 4 features need \(12, 4\)",
    ),
    "attention to nothing": (
        lambda x: F.multi_head_attention_forward(
            None, x, x, 4, 2, tg.ones(12, 4), None, None, None, False, 0.0, tg.ones(4, 4), None
        ),
        TypeError,
        "query must be a Tensor",
    ),
    "a fraction as a rank": (lambda x: tg.svd_lowrank(x, q=1.5), TypeError, "q must be an integer"),
    "a word as a number of components": (lambda x: tg.pca_lowrank(x, q="a"), TypeError, "q must be an integer"),
    "a number as an order of memory": (lambda x: tg.empty_permuted((2,), 0), TypeError, "physical_layout must be"),
    "a fraction in an order of memory": (
        lambda x: tg.empty_permuted((2,), (0.5,)),
        TypeError,
        "physical_layout is made of integers",
    ),
    "one tensor for three results": (lambda x: tg.linalg.lu(x, out=x.clone()), TypeError, "tuple of 3 Tensors"),
    "two results into three tensors": (lambda x: tg.lu(x, out=(x, x, x)), TypeError, "tuple of 2 Tensors"),
    "mantissas and exponents into a word": (lambda x: tg.frexp(x, out="ab"), TypeError, "out must be two Tensors"),
    "exponents as fractions": (
        lambda x: tg.frexp(x, out=(tg.empty(2, 3), tg.empty(2, 3))),
        RuntimeError,
        "exponent to have",
    ),
    "read-only memory": (lambda x: tg.from_numpy(_read_only()).add_(1), RuntimeError, "read-only"),
}


def _read_only():
    array = np.ones(2)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name):
    action, error, text = CASES[name]
    x = tg.arange(6.0).reshape(X)
    with pytest.raises(error, match=text):
        action(x)
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_numbers_of_other_kinds_are_taken_where_they_are_numbers():
    x = tg.ones(1, 1, 8, 8)
    assert F.avg_pool2d(x, np.int64(2), np.int64(2)).shape == F.max_pool2d(x, 2, np.int64(2)).shape == (1, 1, 4, 4)
    assert F.local_response_norm(x[0], np.int64(1)).shape == (1, 8, 8)
    assert tg.polygamma(np.int64(1), tg.ones(1)).item() == tg.polygamma(1, tg.ones(1)).item()
    assert tg.tensor(2**63, dtype=tg.float64).item() == tg.tensor([0.5, 2**63])[1].item() == 2.0**63
    assert x.sum(tg.tensor(3)).shape == (1, 1, 8) and x.chunk(tg.tensor(2), np.int64(2))[1].shape == (1, 1, 4, 8)


def test_a_triangle_s_places_where_the_rest_of_the_matrix_is_large():
    """The sums of sizes wrapped, and the triangles were empty."""
    assert tg.tril_indices(20, 2**63 - 1, -7).shape == (2, 91)
    assert tg.triu_indices(2**63 - 1, 21, -7).shape == (2, 378)
    for row, col in ((0, 0), (0, 3), (3, 0), (1, 4), (4, 2), (3, 3)):
        for offset in range(-5, 6):
            assert (tg.tril_indices(row, col, offset).numpy() == np.stack(np.tril_indices(row, offset, col))).all()
            assert (tg.triu_indices(row, col, offset).numpy() == np.stack(np.triu_indices(row, offset, col))).all()


def test_numbers_of_numpy_as_dims():
    x = tg.ones(2, 1, 3)
    assert x.squeeze(np.int64(1)).shape == (2, 3) and tg.aminmax(x, dim=np.int64(2)).min.shape == (2, 1)
    assert tg.ones(1).round(decimals=2**31).isnan().all() and tg.combinations(tg.ones(2), 2**40).numel() == 0


def test_threshold_keeps_integers():
    x = tg.tensor([-1, 0, 1, 5])
    found = F.threshold(x, 0.9, 1000.7)
    assert found.dtype is tg.int64 and found.tolist() == [1000, 1000, 1, 5]
    assert F.threshold(x.clamp(min=0).byte(), 1, -1).tolist() == [255, 255, 255, 5]


def test_nan_and_infinity_pass_through():
    x = tg.tensor([float("nan"), float("inf"), -float("inf"), 0.0])
    assert np.isnan(x.max().item()) and np.isnan(x.relu()[0].item()) and x.relu()[1].item() == float("inf")
    assert np.isnan(F.threshold(x, 0.0, 1.0)[0].item())
    assert np.isnan(tg.tensor([[float("nan"), 1.0]]).softmax(1).numpy()).all()
    assert tg.tensor([-float("inf"), 0.0]).softmax(0).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("backend", [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None])
@pytest.mark.parametrize(
    "action",
    [
        lambda: tg.zeros(2**33, 4096),
        lambda: tg.ones(1).expand(2**33, 4096) + 1,
        lambda: tg.ones(2**23, 1) * tg.ones(2**22),
        lambda: tg.tile(tg.ones(1), (2**33, 4096)),
        lambda: tg.nn.functional.pad(tg.ones(1, 4096), (0, 0, 0, 2**33 - 1)),
        lambda: tg.compile(lambda x: x.expand(2**33, 4096) * 2)(tg.ones(1)),
    ],
)
def test_too_little_memory_is_said_in_words(action, backend):
    with tg.backend(backend), pytest.raises(MemoryError, match=r"allocate .*shape \(\d+, \d+.* and d.*type float32"):
        action()


@pytest.mark.parametrize(
    "action",
    [
        lambda n: tg.roll(tg.ones(3), n),
        lambda n: tg.roll(tg.ones(3, 3), (1, -n), (0, 1)),
        lambda n: tg.ones(3).repeat(n),
        lambda n: tg.ones(0, 4).repeat(1, n // 4),
        lambda n: tg.tile(tg.ones(3), (n,)),
        lambda n: tg.nn.functional.pad(tg.ones(3), (n, 0)),
        lambda n: tg.arange(n),
        lambda n: tg.arange(-n, 0),
        lambda n: tg.arange(0, 10, n),
        lambda n: tg.arange(float(n)),
        lambda n: tg.arange(0, 1, float("nan")),
        lambda n: tg.arange(0, 1, 1e-300),
        lambda n: tg.range(0, float(n)),
        lambda n: tg.zeros(0, n),
    ],
)
def test_numbers_beyond_64_bits_are_refused_in_words(action):
    with pytest.raises(TensorgradError, match=r"must fit into 64 bits|can be addressed|unsupported range") as caught:
        action(2**66)
    assert isinstance(caught.value, ValueError)


def test_errors_carry_the_users_line():
    x = tg.ones(2)
    with pytest.raises(RuntimeError) as caught:
        x + tg.ones(3)
    assert caught.traceback[0].path.name == "test_bad_input.py"


def test_the_package_loads_without_extras_and_without_its_extension():
    """NumPy alone: bfloat16's package, the kernels and the tape's C are all missed only when they are needed."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['ml_dtypes', 'tensorgrad._tape', 'tensorgrad._cpu']))\n"
        "import tensorgrad as tg\n"
        "x = tg.ones(3, requires_grad=True); (x * x).sum().backward(); print(x.grad.tolist())\n"
        "try: x.bfloat16()\n"
        "except ImportError as error: print('pip install' in str(error))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout.split("\n")[:2] == ["[2.0, 2.0, 2.0]", "True"], ran.stderr
