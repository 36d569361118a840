"""Products of matrices: every form against PyTorch, and what goes wrong said clearly."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import DTypeError, ShapeError
from tensorgrad.nn import functional as F
from tensorgrad.profiler import profile

from .parity import compare, normal

SHAPES = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)),
    ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 2)),
]  # fmt: skip
EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("ij->ji", (2, 3)), ("ij->", (2, 3)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 2)), ("i,j->ij", (2,), (3,)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("i,i", (3,), (3,)),
    ("ba,cb", (2, 3), (4, 2)), ("...", (2, 3)), ("iij->j", (3, 3, 2)), ("bn,anm,bm->ba", (2, 3), (5, 3, 4), (2, 4)),
    ("ij,ij->ij", (2, 3), (1, 3)), ("i...,i...->...", (2, 3), (2, 1)), ("ab,cd->ac", (2, 3), (4, 5)),
    ("...i->...", (2, 3, 4)), ("iji,j->i", (2, 3, 2), (3,)), ("bhd,bmd->bhmd", (2, 3, 4), (2, 5, 4)),
    ("bi,bj->jbi", (2, 3), (2, 4)), ("i,j,k->kij", (2,), (3,), (4,)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matmul(left, right):
    torch = pytest.importorskip("torch")
    compare(tg.matmul, torch.matmul, [normal(*left), normal(*right)])


@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda e: e[0])
def test_einsum(equation):
    torch = pytest.importorskip("torch")
    text, *shapes = equation
    arrays = [normal(*shape) for shape in shapes]
    compare(lambda *x: tg.einsum(text, *x), lambda *x: torch.einsum(text, *x), arrays)


def test_einsum_reads_views_where_they_lie():
    heads = tg.randn(2, 5, 3, 4, 6)  # (batch, places, one of three, heads, width)
    queries, keys, values = heads.permute(2, 0, 3, 1, 4)
    with profile() as seen:
        scores = tg.einsum("bhqd,bhkd->bhqk", queries, keys)
        mixed = tg.einsum("bhqk,bhkd->bhqd", scores, values)
        summed = tg.einsum("bhnd,bhne->bhde", keys, values)
    assert {row.key for row in seen.key_averages()} <= {"matmul", "permute", "transpose"}
    q, k, v = (one.numpy().astype("float64") for one in (queries, keys, values))
    expected = q @ k.swapaxes(2, 3)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mixed.numpy(), expected @ v, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(summed.numpy(), k.swapaxes(2, 3) @ v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((6, 2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5))],
)
def test_gradients_lie_as_their_operands(left, right, backend):
    with tg.backend(backend):
        for turned in ((False, True), (True, False), (True, True)):
            operands, plain = [], []
            for shape, is_turned in zip((left, right), turned, strict=True):
                x = tg.randn(*shape[:-2], *(shape[:-3:-1] if is_turned else shape[-2:]), dtype=tg.float64)
                operands.append((x.transpose(-1, -2) if is_turned else x).requires_grad_())
                plain.append(operands[-1].detach().clone(memory_format=tg.contiguous_format).requires_grad_())
            weights = tg.randn(*(operands[0] @ operands[1]).shape, dtype=tg.float64)
            found = tg.autograd.grad(((operands[0] @ operands[1]) * weights).sum(), operands)
            expected = tg.autograd.grad(((plain[0] @ plain[1]) * weights).sum(), plain)
            for x, gradient, same in zip(operands, found, expected, strict=True):
                if x.ndim == weights.ndim:  # where none is summed over what was broadcast
                    assert gradient.stride()[-2:] == x.stride()[-2:]
                np.testing.assert_allclose(gradient.numpy(), same.numpy(), rtol=1e-12, atol=1e-12)


def test_a_product_without_a_sum_lies_in_the_order_of_the_output():
    assert tg.einsum("bhd,bmd->bhmd", tg.ones(2, 3, 4), tg.ones(2, 5, 4)).is_contiguous()
    assert tg.einsum("ij,jk,il->lkji", tg.ones(2, 3), tg.ones(3, 4), tg.ones(2, 5)).is_contiguous()


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("bmm", [(2, 3, 4), (2, 4, 2)], {}), ("mv", [(2, 3), (3,)], {}), ("outer", [(3,), (2,)], {}),
        ("inner", [(2, 3), (4, 3)], {}), ("kron", [(2, 3), (4,)], {}), ("addmv", [(2,), (2, 3), (3,)], {}),
        ("addmm", [(4,), (2, 3), (3, 4)], {"beta": 0.5, "alpha": 2.0}), ("addr", [(2, 3), (2,), (3,)], {}),
        ("baddbmm", [(5, 2, 4), (5, 2, 3), (5, 3, 4)], {"beta": 0.5, "alpha": 2.0}),
        ("addbmm", [(2, 4), (5, 2, 3), (5, 3, 4)], {}),
        ("tensordot", [(2, 3, 4), (4, 2, 5)], {"dims": ([0, 2], [1, 0])}),
    ],
)  # fmt: skip
def test_relatives(name, shapes, options):
    torch = pytest.importorskip("torch")
    mine, theirs = getattr(tg, name), getattr(torch, name)
    compare(lambda *x: mine(*x, **options), lambda *x: theirs(*x, **options), [normal(*s) for s in shapes])


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (0, 3)])
def test_linear(shape):
    functional = pytest.importorskip("torch").nn.functional
    compare(F.linear, functional.linear, [normal(*shape), normal(5, 3), normal(5)])
    compare(F.linear, functional.linear, [normal(*shape), normal(5, 3)])


ROWS = {
    "expanded": ((3,), lambda x: x.expand(5, 3)),
    "expanded inside": ((4, 3), lambda x: x[:, None].expand(4, 5, 3)),
    "overlapping": ((9,), lambda x: x.unfold(0, 3, 1)),
    "wide apart": ((5, 8), lambda x: x[:, ::3]),
}


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("name", ROWS)
def test_linear_of_rows_that_blas_cannot_read(name, backend):
    functional = pytest.importorskip("torch").nn.functional
    shape, rows = ROWS[name]
    with tg.backend(backend):
        compare(lambda x, w: F.linear(rows(x), w), lambda x, w: functional.linear(rows(x), w),
                [normal(*shape), normal(4, 3)])  # fmt: skip


def test_linear_of_reversed_rows():
    x, w = normal(4, 3), normal(5, 3)
    got = F.linear(tg.from_numpy(x[::-1]), tg.from_numpy(w[::-1]))
    np.testing.assert_allclose(got.numpy(), x[::-1] @ w[::-1].T)


def test_complex_products_conjugate_their_gradients():
    torch = pytest.importorskip("torch")

    def mine(a, b):
        z = tg.complex(a, b) @ tg.complex(b, a)
        return tg.real(z) * tg.imag(z)

    def theirs(a, b):
        z = torch.complex(a, b) @ torch.complex(b, a)
        return z.real * z.imag

    compare(mine, theirs, [normal(3, 3), normal(3, 3)])


def test_integers_multiply_exactly():
    big = 2**40
    assert (tg.tensor([[big, 1]]) @ tg.tensor([[big], [1]])).item() == 2**80 % 2**64 + 1
    small = tg.tensor([[100, 100]], dtype=tg.int8) @ tg.tensor([[2], [2]], dtype=tg.int8)
    assert small.item() == (400 + 128) % 256 - 128


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16])
def test_half_precision_sums_in_float32(dtype):
    # 4096 ones: summed in bfloat16 they would stop at 256, in float16 at 2048
    ones = tg.ones(1, 4096, dtype=dtype)
    assert (ones @ ones.T).item() == 4096
    assert F.linear(ones, ones).item() == 4096


def test_beta_zero_does_not_read_the_input():
    nan = tg.full((2, 2), float("nan"))
    assert tg.addmm(nan, tg.eye(2), tg.eye(2), beta=0).tolist() == [[1, 0], [0, 1]]


def test_errors():
    with pytest.raises(ShapeError, match=r"\(2, 3\) has 3 columns, \(4, 2\) has 4 rows"):
        tg.ones(2, 3) @ tg.ones(4, 2)
    with pytest.raises(ShapeError, match="at least one dimension"):
        tg.matmul(tg.tensor(1.0), tg.ones(2))
    with pytest.raises(DTypeError, match="float64"):
        tg.ones(2, 2) @ tg.ones(2, 2, dtype=tg.float64)
    with pytest.raises(ShapeError, match="input has 3 features, weight \\(5, 4\\) expects 4"):
        F.linear(tg.ones(2, 3), tg.ones(5, 4))
    with pytest.raises(ShapeError, match="bias has shape"):
        F.linear(tg.ones(2, 4), tg.ones(5, 4), tg.ones(4))
    with pytest.raises(TypeError, match="must be a Tensor"):
        tg.matmul(tg.ones(2, 2), 3.0)
    with pytest.raises(ShapeError, match="label 'j'"):
        tg.einsum("ij,jk", tg.ones(2, 3), tg.ones(4, 5))
    with pytest.raises(ValueError, match="no operand has"):
        tg.einsum("ij->k", tg.ones(2, 3))
    with pytest.raises(ValueError, match="2 operands"):
        tg.einsum("i,i", tg.ones(2))
    with pytest.raises(ShapeError, match="2-d"):
        tg.mm(tg.ones(2), tg.ones(2, 2))


def test_out_is_written():
    out = tg.empty(2, 2)
    assert tg.matmul(tg.eye(2), tg.ones(2, 2), out=out) is out
    np.testing.assert_array_equal(out.numpy(), np.ones((2, 2)))
