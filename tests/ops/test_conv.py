"""Convolutions against PyTorch, and what goes wrong said clearly."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import DTypeError, ShapeError
from tensorgrad.nn import functional as F

from .parity import compare, normal

SIZES, KERNEL = (7, 6, 5), (3, 2, 2)
FORWARD = [
    {}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"padding": "valid"}, {"padding": "same", "dilation": 2},
    {"stride": 2, "padding": 1, "dilation": 2}, {"groups": 2},
]  # fmt: skip
TRANSPOSED = [
    {}, {"stride": 2}, {"stride": 2, "padding": 1, "output_padding": 1}, {"dilation": 2}, {"groups": 2},
    {"dilation": 2, "output_padding": 1}, {"dilation": 3, "stride": 2, "padding": 1, "output_padding": 2, "groups": 2},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", FORWARD, ids=str)
def test_conv(dims, options):
    functional = pytest.importorskip("torch").nn.functional
    mine, theirs = getattr(F, f"conv{dims}d"), getattr(functional, f"conv{dims}d")
    weight = normal(6, 4 // options.get("groups", 1), *KERNEL[:dims])
    arrays = [normal(2, 4, *SIZES[:dims]), weight, normal(6)]
    compare(lambda *x: mine(*x, **options), lambda *x: theirs(*x, **options), arrays)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_conv_transpose(dims, options):
    functional = pytest.importorskip("torch").nn.functional
    mine, theirs = getattr(F, f"conv_transpose{dims}d"), getattr(functional, f"conv_transpose{dims}d")
    weight = normal(4, 6 // options.get("groups", 1), *KERNEL[:dims])
    arrays = [normal(2, 4, *SIZES[:dims]), weight, normal(6)]
    compare(lambda *x: mine(*x, **options), lambda *x: theirs(*x, **options), arrays)


def test_depthwise():
    functional = pytest.importorskip("torch").nn.functional
    arrays = [normal(2, 4, 6, 6), normal(8, 1, 3, 3), normal(8)]
    compare(lambda *x: F.conv2d(*x, groups=4), lambda *x: functional.conv2d(*x, groups=4), arrays)


@pytest.mark.parametrize(
    ("sizes", "kernel", "options"),
    [
        ((4, 6), (3, 6), {}), ((4, 6), (4, 3), {"padding": (0, 1)}), ((5, 7), (2, 3), {"stride": (2, 3)}),
        ((4, 6), (4, 2), {"groups": 2}), ((3, 4), (3, 4), {}), ((2, 6, 4), (2, 3, 4), {"stride": (1, 3, 2)}),
        ((4, 6), (4, 1), {"groups": 4}), ((6, 6), (2, 3), {"stride": (2, 1), "padding": (0, 1)}), ((1, 1), (1, 1), {}),
    ],
    ids=str,
)  # fmt: skip
def test_patches(sizes, kernel, options):
    """Windows side by side, or as long as an axis."""
    functional = pytest.importorskip("torch").nn.functional
    mine, theirs = getattr(F, f"conv{len(sizes)}d"), getattr(functional, f"conv{len(sizes)}d")
    arrays = [normal(3, 4, *sizes), normal(8, 4 // options.get("groups", 1), *kernel), normal(8)]
    compare(lambda *x: mine(*x, **options), lambda *x: theirs(*x, **options), arrays)


def test_a_single_image_needs_no_batch():
    functional = pytest.importorskip("torch").nn.functional
    compare(F.conv2d, functional.conv2d, [normal(3, 5, 5), normal(2, 3, 2, 2)])
    compare(F.conv_transpose2d, functional.conv_transpose2d, [normal(3, 5, 5), normal(3, 2, 2, 2)])


def test_pieces_of_a_large_batch_join():
    torch = pytest.importorskip("torch")
    x, w = normal(40, 8, 32, 32).astype(np.float32), normal(8, 8, 5, 5).astype(np.float32)
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), padding=2).numpy()
    with tg.backend("numpy"):
        got = F.conv2d(tg.tensor(x), tg.tensor(w), padding=2).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_errors():
    x, w = tg.ones(1, 3, 5, 5), tg.ones(2, 3, 3, 3)
    with pytest.raises(ShapeError, match=r"input has 4 channels, weight .* expects 3"):
        F.conv2d(tg.ones(1, 4, 5, 5), w)
    with pytest.raises(ShapeError, match="larger than the input"):
        F.conv2d(tg.ones(1, 3, 2, 2), w)
    with pytest.raises(ShapeError, match="expected 4 or 3 dimensions"):
        F.conv2d(tg.ones(5, 5), w)
    with pytest.raises(ShapeError, match="bias"):
        F.conv2d(x, w, tg.ones(3))
    with pytest.raises(ShapeError, match="2 groups"):
        F.conv2d(tg.ones(1, 4, 5, 5), tg.ones(3, 2, 3, 3), groups=2)
    with pytest.raises(ValueError, match="stride"):
        F.conv2d(x, w, stride=2, padding="same")
    with pytest.raises(ValueError, match="at least 1"):
        F.conv2d(x, w, stride=0)
    with pytest.raises(DTypeError, match="float64"):
        F.conv2d(x, w.double())
    with pytest.raises(DTypeError, match="bool"):
        F.conv2d(x.bool(), w.bool())
    with pytest.raises(ValueError, match="output_padding"):
        F.conv_transpose2d(x, tg.ones(3, 2, 3, 3), output_padding=1)


@pytest.mark.parametrize("function", (F.conv1d, F.conv_transpose1d))
@pytest.mark.parametrize("groups", (1.0, 2.5, True, "1", None))
def test_groups_are_an_integer(groups, function):
    with pytest.raises(TypeError, match="groups must be an integer"):
        function(tg.ones(1, 2, 5), tg.ones(2, 2, 3), groups=groups)
