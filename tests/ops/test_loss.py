"""Losses, embeddings and softmax against PyTorch, and what goes wrong said clearly."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import DTypeError, IndexOutOfRange, ShapeError
from tensorgrad.nn import functional as F

from .beside_torch import same
from .parity import between, compare, normal

REDUCTIONS = ("mean", "sum", "none")
SIGNS = np.array([1.0, -1.0, 1.0, 1.0, -1.0])


def both(name, **options):
    functional = pytest.importorskip("torch").nn.functional
    mine, theirs = getattr(F, name), getattr(functional, name)
    return (lambda *x: mine(*x, **options)), (lambda *x: theirs(*x, **options))


ELEMENTWISE = [
    ("mse_loss", {}, [normal(3, 4), normal(3, 4)], None),
    ("l1_loss", {}, [normal(3, 4), normal(3, 4)], None),
    ("smooth_l1_loss", {"beta": 0.4}, [normal(3, 4), normal(3, 4)], None),
    ("huber_loss", {"delta": 0.7}, [normal(3, 4), normal(3, 4)], None),
    ("binary_cross_entropy", {}, [between(3, 4), between(3, 4), between(4)], [0, 1]),
    ("kl_div", {}, [normal(3, 4), between(3, 4)], None),
    ("kl_div", {"log_target": True}, [normal(3, 4), normal(3, 4)], None),
    ("poisson_nll_loss", {}, [between(3, 4), between(3, 4, high=4.0)], [0]),
    ("poisson_nll_loss", {"log_input": False, "full": True}, [between(3, 4), between(3, 4, high=4.0)], [0]),
    ("gaussian_nll_loss", {"full": True}, [normal(3, 4), normal(3, 4), between(3, 4)], None),
    ("gaussian_nll_loss", {}, [normal(3, 4), normal(3, 4), between(3)], None),
    ("soft_margin_loss", {}, [normal(5), SIGNS], [0]),
    ("hinge_embedding_loss", {}, [normal(5), SIGNS], [0]),
    ("margin_ranking_loss", {"margin": 0.1}, [normal(5), normal(5), SIGNS], [0, 1]),
    ("cosine_embedding_loss", {"margin": 0.1}, [normal(5, 3), normal(5, 3), SIGNS], [0, 1]),
    ("triplet_margin_loss", {"swap": True}, [normal(5, 3), normal(5, 3), normal(5, 3)], None),
]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda c: f"{c[0]}-{c[1]}")
def test_elementwise(case, reduction):
    name, options, arrays, wrt = case
    compare(*both(name, reduction=reduction, **options), arrays, wrt=wrt)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_logits_with_weights(reduction):
    functional = pytest.importorskip("torch").nn.functional

    def run(lib):
        return lambda x, t, w, p: lib.binary_cross_entropy_with_logits(x, t, w, reduction=reduction, pos_weight=p)

    compare(run(F), run(functional), [normal(3, 4), between(3, 4), between(4), between(4)], wrt=[0, 1])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 4, 3), (2, 4, 3, 2)])
def test_cross_entropy(shape, smoothing, reduction):
    target = np.random.default_rng(1).integers(0, 4, shape[:1] + shape[2:] if len(shape) > 1 else ())
    target = np.asarray(target)
    if target.size > 2:
        target.reshape(-1)[1] = -100
    options = {"reduction": reduction, "label_smoothing": smoothing}
    compare(*both("cross_entropy", **options), [normal(*shape), target])
    compare(*both("cross_entropy", **options), [normal(*shape), target, between(4)], wrt=[0])
    compare(*both("cross_entropy", **options), [normal(*shape), between(*shape), between(4)], wrt=[0, 1])
    compare(*both("nll_loss", reduction=reduction), [normal(*shape), target, between(4)], wrt=[0])


def test_extremes():
    assert F.cross_entropy(tg.tensor([[1e4, 0.0, -1e4]]), tg.tensor([1])).item() == 1e4
    assert F.binary_cross_entropy_with_logits(tg.tensor([-1e4]), tg.tensor([1.0])).item() == 1e4
    assert F.binary_cross_entropy(tg.tensor([0.0]), tg.tensor([1.0])).item() == 100
    assert np.isnan(F.cross_entropy(tg.ones(2, 3), tg.tensor([-100, -100])).item())
    no_classes = tg.ones(2, 0)
    assert F.cross_entropy(no_classes, no_classes, label_smoothing=0.1, reduction="sum").item() == 0


def test_softmax():
    for name in ("softmax", "log_softmax", "softmin"):
        compare(*both(name, dim=1), [normal(3, 4, 2)])
        compare(*both(name, dim=0), [np.asarray(0.3)])


def test_embedding():
    functional = pytest.importorskip("torch").nn.functional
    index = np.array([[1, 2], [2, 0]])
    for padding in (None, 2):
        compare(
            lambda w, i, p=padding: F.embedding(i, w, padding_idx=p),
            lambda w, i, p=padding: functional.embedding(i, w, padding_idx=p),
            [normal(4, 3), index],
        )
    weight = tg.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]])
    F.embedding(tg.tensor([0, 1]), weight, max_norm=1.0)
    np.testing.assert_allclose(weight.numpy(), [[0.6, 0.8], [0.3, 0.4], [6, 8]], rtol=1e-6)
    assert F.one_hot(tg.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_errors():
    x = tg.ones(2, 3)
    with pytest.raises(IndexOutOfRange, match="3"):
        F.cross_entropy(x, tg.tensor([0, 3]))
    with pytest.raises(IndexOutOfRange):
        F.nll_loss(x, tg.tensor([0, -1]))
    with pytest.raises(ShapeError, match="needs class indices of shape"):
        F.cross_entropy(x, tg.tensor([0]))
    with pytest.raises(DTypeError, match="int64"):
        F.cross_entropy(x, tg.tensor([0, 1], dtype=tg.int32))
    with pytest.raises(ValueError, match="reduction"):
        F.mse_loss(x, x, reduction="avg")
    with pytest.warns(UserWarning, match="target size"):
        F.mse_loss(x, tg.ones(3))
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.binary_cross_entropy(x * 2, x)
    with pytest.raises(IndexOutOfRange):
        F.embedding(tg.tensor([5]), x)
    with pytest.raises(DTypeError, match="integers"):
        F.embedding(tg.tensor([1.0]), x)
    with pytest.raises(ValueError, match="dense"):
        F.embedding(tg.tensor([1]), x, sparse=True)
    with pytest.raises(IndexError, match="out of range"):
        F.softmax(x, dim=2)
    with pytest.raises(DTypeError, match="floating"):
        F.softmax(x.long(), dim=1)


@pytest.mark.parametrize(
    ("shapes", "dtypes"),
    [
        (((300, 257), (300, 257)), ("float32", "float32")),
        (((300, 257), (257,)), ("float32", "float64")),
        (((300, 257), (300, 1)), ("float64", "float64")),
        (((9000,), (1,)), ("float16", "float16")),
        (((0, 4), (4,)), ("float32", "float32")),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_sums_of_formulas(shapes, dtypes, transposed):
    """What is summed block by block is what the definition gives, whatever has to be gathered or broadcast first."""
    arrays = [normal(*shape).astype(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    if transposed and len(shapes[0]) == 2 and shapes[0] == shapes[1]:
        arrays = [arrays[0].T, np.ascontiguousarray(arrays[1].T)]
    a, b = map(tg.tensor, arrays)
    wide = [x.astype(np.float64) for x in arrays]
    with np.errstate(all="ignore"):
        expected = ((wide[0] - wide[1]) ** 2).mean() if wide[0].size else np.nan
    with pytest.warns(UserWarning) if a.shape != b.shape else nullcontext():
        found = F.mse_loss(a, b)
    assert found.dtype == tg.promote_types(a.dtype, b.dtype)
    np.testing.assert_allclose(found.item(), expected, rtol=2e-3 if "float16" in dtypes else 1e-6)


@pytest.mark.parametrize("inner", [3, 16, 70, 200, 300])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss"])
def test_losses_of_matrices_cut_out_of_wider_ones(name: str, inner: int) -> None:
    """Nothing is stored: the sum is taken of blocks whose operands lie apart, or come again."""
    rng = np.random.default_rng(0)
    wide, again = rng.standard_normal((2, 5, 90, inner + 4)), rng.standard_normal((90, inner))
    for dtype in ("float32", "float64"):
        x, y = (tg.tensor(array.astype(dtype))[..., :inner] for array in wide)
        for target in (y, y[:1].expand(5, 90, inner), tg.tensor(again.astype(dtype)).expand(5, 90, inner)):
            apart = np.abs(x.numpy().astype("float64") - target.numpy().astype("float64"))
            expected = {
                "mse_loss": apart**2,
                "l1_loss": apart,
                "smooth_l1_loss": np.where(apart < 1, 0.5 * apart**2, apart - 0.5),
            }[name].mean()
            np.testing.assert_allclose(getattr(F, name)(x, target).item(), expected, rtol=1e-6)


def test_a_hinge_at_its_corner_passes_the_gradient_as_pytorch_does():
    ones = tg.ones(2)
    calls = {
        "margin ranking": (lambda x: F.margin_ranking_loss(x, ones, ones, reduction="none"), [1.0, 3.0], [-1.0, 0.0]),
        "hinge embedding": (lambda x: F.hinge_embedding_loss(x, -ones, reduction="none"), [1.0, 3.0], [-1.0, 0.0]),
        "cosine embedding": (
            lambda x: F.cosine_embedding_loss(x, tg.tensor([0.0, 1.0]), tg.tensor(-1.0)), [1.0, 0.0], [0.0, 1.0],
        ),
        "triplet margin": (
            lambda x: F.triplet_margin_loss(x[None], ones[None], ones[None] * 5, margin=2.0**0.5 * 2, eps=0.0),
            [2.0, 2.0], [2.0**0.5, 2.0**0.5],
        ),
    }  # fmt: skip
    for name, (call, at, expected) in calls.items():
        x = tg.tensor(at, requires_grad=True)
        call(x).sum().backward()
        np.testing.assert_allclose(x.grad.tolist(), expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
@pytest.mark.parametrize("reduction", ("none", "mean"))
@pytest.mark.parametrize("weighted", (False, True))
def test_cross_entropy_of_equal_large_logits(weighted, reduction, backend):
    """The logarithm of a sum has no room beside such logits: it is not lost, nor are probabilities doubled."""

    def loss(lib, x, t):
        weight = lib.tensor([0.5, 2.0]) if weighted else None
        return [lib.nn.functional.cross_entropy(x, t, weight, reduction=reduction)]

    x = np.array([[3e38, 3e38], [-3e38, -3e38], [1e9, 1e9], [3e38, -3e38]], np.float32)
    with tg.backend(backend):
        same(loss, x, np.array([0, 1, 1, 0]), order=1, rtol=1e-6)


@pytest.mark.parametrize("reduction", ("none", "mean", "sum"))
def test_one_class_of_one_dimension(reduction):
    one, first = np.ones(1), np.zeros(1, np.int64)
    same(lambda lib, x, t: [lib.nn.functional.nll_loss(x, t, reduction=reduction)], one, first, order=1)
    with pytest.raises(ShapeError, match="class indices"):
        F.nll_loss(tg.ones(3), tg.zeros(3, dtype=tg.int64))


@pytest.mark.parametrize("name", ("cross_entropy", "nll_loss"))
@pytest.mark.parametrize("weighted", (False, True))
def test_second_derivatives_where_every_row_is_ignored(weighted, name):
    """The mean of no rows is NaN; the gradient of its inputs is 0, whether or not it is differentiated again."""

    def loss(lib, x, t):
        weight = lib.tensor([0.5, 2.0], dtype=lib.float64) if weighted else None
        return [getattr(lib.nn.functional, name)(x * x, t, weight, ignore_index=0)]

    same(loss, np.array([[0.3, -1.2], [1.0, 2.0]]), np.array([0, 0]))


def test_cosine_similarity_of_vectors_whose_squares_are_infinite():
    torch = pytest.importorskip("torch")
    for scale in (1e18, 1e20, 1e30):
        found = []
        for lib in (tg, torch):
            a = lib.tensor([[scale, 2 * scale]], requires_grad=True)
            b = lib.tensor([[scale, -scale]], requires_grad=True)
            y = lib.nn.functional.cosine_similarity(a, b)
            y.sum().backward()
            found.append([x.detach().numpy() for x in (y, a.grad, b.grad)])
        for mine, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-25)


def test_cosine_embedding_loss_of_short_vectors():
    """What is added to the squared lengths is 1e-12 for every dtype: 1e-7 made 0.92 of the first one."""
    x = normal(3, 4) * 1e-4
    target = np.array([1.0, -1.0, 1.0])
    mine, theirs = both("cosine_embedding_loss")
    compare(mine, theirs, [x, x[::-1].copy(), target], wrt=[0, 1])
    a = tg.tensor([[1e-4, 0.0]])
    assert F.cosine_embedding_loss(a, a, tg.ones(1)).item() < 1e-3


def test_gaussian_nll_loss_counts_what_broadcasts():
    full = F.gaussian_nll_loss(tg.zeros(5, 1), tg.zeros(3), tg.ones(5), full=True, reduction="sum")
    assert full.item() == pytest.approx(15 * 0.5 * np.log(2 * np.pi), rel=1e-6)


def test_rows_of_an_infinite_norm_are_shortened():
    """Whether a row is used was asked by a product of its norm with 0, which of an infinite norm is NaN."""
    weight = tg.tensor([[8.0, 3.0], [0.5, 0.5]])
    assert F.embedding(tg.tensor([0, 1]), weight, max_norm=1.0, norm_type=100.0).abs().max().item() <= 1
