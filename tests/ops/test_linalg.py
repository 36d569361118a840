"""tensorgrad.linalg beyond the op table: derivatives where vectors have a free phase, failures, large matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.backends import registry
from tensorgrad.dispatch import Listener, listening
from tensorgrad.nn import functional as F
from tensorgrad.testing.strict_backend import strict_cuda

rng = np.random.default_rng(7)


def drawn(*shape, complex=True):
    values = rng.standard_normal(shape)
    if complex:
        values = values + 1j * rng.standard_normal(shape)
    return tg.tensor(values, requires_grad=True)


def hermitian(x):
    return x + x.mH


def positive(x):
    return x @ x.mH + 3 * tg.eye(x.shape[-1], dtype=x.dtype, device=x.device)


# name, function, shapes, whether to try complex numbers too
SMOOTH = [
    ("cholesky", lambda x: tg.linalg.cholesky(positive(x)), [(2, 3, 3)], True),
    ("cholesky upper", lambda x: tg.linalg.cholesky(positive(x), upper=True), [(3, 3)], True),
    ("cholesky_solve", lambda b, x: tg.cholesky_solve(b, tg.linalg.cholesky(positive(x))), [(3, 2), (3, 3)], True),
    ("cholesky_inverse", lambda x: tg.cholesky_inverse(tg.linalg.cholesky(positive(x))), [(3, 3)], True),
    ("eigh", lambda x: (tg.linalg.eigh(hermitian(x))[0], tg.linalg.eigh(hermitian(x))[1].abs()), [(3, 3)], True),
    ("eigvalsh", lambda x: tg.linalg.eigvalsh(hermitian(x), UPLO="U"), [(2, 3, 3)], True),
    ("eig", lambda x: (tg.linalg.eig(x)[0], tg.linalg.eig(x)[1].abs()), [(3, 3)], True),
    ("eigvals", lambda x: tg.linalg.eigvals(x), [(2, 3, 3)], True),
    ("svd", lambda x: [part.abs() for part in tg.linalg.svd(x, full_matrices=False)], [(2, 4, 3)], True),
    ("svd wide", lambda x: [part.abs() for part in tg.linalg.svd(x, full_matrices=False)], [(2, 3)], True),
    ("svd rebuilt", lambda x: (lambda u, s, v: (u * s.square()) @ v)(*tg.linalg.svd(x, False)), [(3, 3)], True),
    ("svd full", lambda x: tg.linalg.svd(x)[0][..., :2].abs(), [(4, 2)], False),
    ("pinv", lambda x: tg.linalg.pinv(x), [(2, 4, 2)], True),
    ("pinv hermitian", lambda x: tg.linalg.pinv(positive(x), hermitian=True), [(3, 3)], True),
    ("lstsq", lambda a, b: tg.linalg.lstsq(a, b).solution, [(4, 2), (4, 3)], True),
    ("lu", lambda x: tg.linalg.lu(x)[1:], [(2, 3, 4)], True),
    ("lu tall", lambda x: tg.linalg.lu(x)[1:], [(4, 2)], True),
    ("lu_solve", lambda x, b: tg.linalg.lu_solve(*tg.linalg.lu_factor(x), b), [(3, 3), (2, 3, 2)], True),
    (
        "lu_solve right adjoint",
        lambda x, b: tg.linalg.lu_solve(*tg.linalg.lu_factor(x), b, left=False, adjoint=True), [(3, 3), (2, 3)], True,
    ),
    ("solve right", lambda a, b: tg.linalg.solve(a, b, left=False), [(3, 3), (2, 2, 3)], True),
    ("solve vectors", lambda a, b: tg.linalg.solve(a, b), [(2, 3, 3), (2, 3)], True),
    (
        "solve_triangular right",
        lambda a, b: tg.linalg.solve_triangular(positive(a), b, upper=True, left=False), [(3, 3), (2, 3)], True,
    ),
    ("householder", lambda a, t: tg.linalg.householder_product(a, t), [(2, 4, 3), (2, 2)], True),
    ("ormqr", lambda a, t, c: tg.ormqr(a, t, c, transpose=True), [(4, 3), (3,), (4, 2)], True),
    ("ormqr right", lambda a, t, c: tg.ormqr(a, t, c, left=False), [(4, 3), (3,), (2, 4)], True),
    ("det", lambda x: tg.linalg.det(x), [(2, 3, 3)], True),
    ("slogdet", lambda x: tg.linalg.slogdet(x), [(3, 3)], True),
    ("logdet", lambda x: tg.logdet(positive(x)).real, [(3, 3)], True),
    ("matrix_power", lambda x: tg.linalg.matrix_power(x, -3), [(2, 2)], True),
    ("tensorinv", lambda x: tg.linalg.tensorinv(x, ind=1), [(4, 2, 2)], True),
    ("tensorsolve", lambda a, b: tg.linalg.tensorsolve(a, b, dims=(0,)), [(6, 3, 2), (3, 2)], True),
    ("multi_dot", lambda a, b, c: tg.linalg.multi_dot([a, b, c]), [(2,), (2, 3), (3, 2)], True),
    ("cond", lambda x: tg.linalg.cond(x, "fro"), [(3, 3)], True),
    ("nuclear", lambda x: tg.linalg.matrix_norm(x, "nuc", (0, 2)), [(3, 2, 4)], True),
    ("spectral", lambda x: tg.linalg.norm(x, 2, (0, 1)), [(3, 4)], True),
    ("cross", lambda a, b: tg.linalg.cross(a, b, dim=0), [(3, 2), (3, 1)], True),
    ("vecdot", lambda a, b: tg.linalg.vecdot(a, b, dim=0), [(3, 2), (3, 1)], True),
    ("vander", lambda x: tg.linalg.vander(x, N=4), [(2, 3)], True),
    ("cdist", lambda a, b: tg.cdist(a, b, p=1.5), [(2, 3, 2), (4, 2)], False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "shapes", "both"), SMOOTH, ids=[row[0] for row in SMOOTH])
def test_first_and_second_derivative(name, function, shapes, both):
    for complex in (False, True) if both else (False,):
        inputs = tuple(drawn(*shape, complex=complex) for shape in shapes)
        gradcheck(function, inputs)
        gradgradcheck(function, inputs)


def test_determinant_of_singular_matrices_has_two_derivatives():
    a = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))  # rank 1: even the cofactors vanish
    x = tg.tensor(a, requires_grad=True)
    (first,) = tg.autograd.grad(tg.linalg.det(x), x, create_graph=True)
    assert abs(first).max().item() < 1e-12
    gradgradcheck(tg.linalg.det, (x,))


# what fails: call, class, and a word of the message
FAILS = [
    (lambda: tg.linalg.inv(tg.zeros(2, 2)), tg.linalg.LinAlgError, "singular"),
    (lambda: tg.linalg.inv(tg.stack([tg.eye(2), tg.ones(2, 2)])), tg.linalg.LinAlgError, "Batch element 1"),
    (lambda: tg.linalg.solve(tg.ones(2, 2), tg.ones(2)), tg.linalg.LinAlgError, "singular"),
    (lambda: tg.linalg.cholesky(-tg.eye(2)), tg.linalg.LinAlgError, "order 1"),
    (lambda: tg.linalg.lu_factor(tg.zeros(2, 2)), tg.linalg.LinAlgError, "zero"),
    (lambda: tg.linalg.svd(tg.full((2, 2), float("nan"))), tg.linalg.LinAlgError, "NaN"),
    (lambda: tg.linalg.eig(tg.full((2, 2), float("nan"))), tg.linalg.LinAlgError, "NaN"),
    (lambda: tg.linalg.inv(tg.ones(2, 3)), RuntimeError, "square"),
    (lambda: tg.linalg.inv(tg.ones(2, 2, dtype=tg.int64)), RuntimeError, "float"),
    (lambda: tg.linalg.qr(tg.ones(2, 2).half()), RuntimeError, "float16"),
    (lambda: tg.linalg.solve(tg.eye(2), tg.ones(3)), RuntimeError, "Incompatible"),
    (lambda: tg.linalg.solve(tg.eye(2), tg.ones(2).double()), RuntimeError, "dtype"),
    (lambda: tg.linalg.lu(tg.eye(2), pivot=False), RuntimeError, "pivot"),
    (lambda: tg.linalg.svd(tg.eye(2), driver="gesvd"), RuntimeError, "driver"),
    (lambda: tg.linalg.matrix_norm(tg.eye(2), 3), RuntimeError, "Order"),
    (lambda: tg.linalg.norm(tg.ones(2, 2, 2), 2), RuntimeError, "1D or 2D"),
    (lambda: tg.cdist(tg.ones(2, 2), tg.ones(2, 3)), RuntimeError, "elements"),
    (lambda: tg.cdist(tg.ones(2, 2), tg.ones(2, 2), compute_mode="fast"), ValueError, "compute_mode"),
    (lambda: tg.linalg.qr(drawn(3, 2), mode="r").R.sum().abs().backward(), RuntimeError, "mode='r'"),
    (lambda: tg.linalg.qr(drawn(3, 2), mode="complete").R.sum().abs().backward(), RuntimeError, "complete"),
    (lambda: tg.linalg.eigh(hermitian(drawn(2, 2)))[1].imag.sum().backward(), RuntimeError, "phase"),
    (lambda: tg.linalg.svd(drawn(2, 2))[0].imag.sum().backward(), RuntimeError, "phase"),
    (lambda: tg.linalg.eig(drawn(2, 2))[1].imag.sum().backward(), RuntimeError, "phase"),
    (lambda: tg.geqrf(drawn(2, 2))[0].abs().sum().backward(), RuntimeError, "linalg.qr"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(FAILS)))
def test_failures_say_why(case):
    call, error, word = FAILS[case]
    with pytest.raises(error, match=word):
        call()


def test_info_names_each_matrix_and_leaves_the_others_alone():
    indefinite = tg.tensor([[[4.0, 2.0], [2.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]])
    L, info = tg.linalg.cholesky_ex(indefinite)
    assert info.tolist() == [0, 2, 1] and info.dtype is tg.int32
    assert L[0].tolist() == [[2.0, 0.0], [1.0, 1.0]]
    inverse, info = tg.linalg.inv_ex(tg.stack([2 * tg.eye(2), tg.ones(2, 2)]))
    assert info.tolist() == [0, 2] and inverse[0].tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert tg.linalg.lu_factor_ex(tg.zeros(3, 2, 2)).info.tolist() == [1, 1, 1]
    assert tg.linalg.cond(tg.ones(2, 2), 1).item() == float("inf")


@pytest.mark.parametrize("kind", ["float64", "complex128", "float32"])
def test_blocks(kind):
    """Sizes that take more than one block, in batches, with rows and columns left over."""
    loose = 1e-3 if kind == "float32" else 1e-10
    a = drawn(2, 83, 71, complex=kind == "complex128").detach().to(getattr(tg, kind))
    for x in (a, a.mT):
        P, L, U = tg.linalg.lu(x)
        assert abs(P @ L @ U - x).max() < loose and abs(L).max() <= 1.5
    square = a[:, :71]
    b = a[:, :71, :5]
    factors = tg.linalg.lu_factor(square)
    for adjoint in (False, True):
        x = tg.linalg.lu_solve(*factors, b, adjoint=adjoint)
        assert abs((square.mH if adjoint else square) @ x - b).max() < 10 * loose
    lower = square.tril() * 0.1 + tg.eye(71, dtype=a.dtype)
    assert abs(lower @ tg.linalg.solve_triangular(lower, b, upper=False) - b).max() < loose
    assert abs(lower.mT @ tg.linalg.solve_triangular(lower.mT, b, upper=True) - b).max() < loose
    reflectors, tau = tg.geqrf(a)
    Q = tg.linalg.householder_product(reflectors, tau)
    assert abs(Q @ reflectors[:, :71].triu() - a).max() < loose
    assert abs(tg.ormqr(reflectors, tau, a, transpose=True)[:, :71] - reflectors[:, :71].triu()).max() < 10 * loose


def test_exponential_of_small_and_large_matrices():
    w = tg.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=tg.float64)
    for angle in (1e-8, 0.3, 7.0, 300.0):
        got = tg.linalg.matrix_exp(w * angle)
        want = tg.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=tg.float64)
        assert abs(got - want).max() < 1e-11


def test_results_have_pytorchs_fields():
    a = tg.eye(3) * 2
    fields = {
        "svd": ("U", "S", "Vh"), "eigh": ("eigenvalues", "eigenvectors"), "eig": ("eigenvalues", "eigenvectors"),
        "qr": ("Q", "R"), "slogdet": ("sign", "logabsdet"), "lu": ("P", "L", "U"), "lu_factor": ("LU", "pivots"),
        "lu_factor_ex": ("LU", "pivots", "info"), "cholesky_ex": ("L", "info"), "inv_ex": ("inverse", "info"),
    }  # fmt: skip
    for name, expected in fields.items():
        assert getattr(tg.linalg, name)(a)._fields == expected
    assert tg.linalg.solve_ex(a, a)._fields == ("result", "info")
    assert tg.linalg.lstsq(a, a)._fields == ("solution", "residuals", "rank", "singular_values")
    assert a.svd()._fields == ("U", "S", "V") and a.det().item() == 8.0
    out = tg.empty(0)
    assert tg.linalg.inv(a, out=out) is out and out[0, 0].item() == 0.5


def test_low_rank():
    a = drawn(2, 20, 3).detach() @ drawn(2, 3, 15).detach()
    for x in (a, a.mT):
        U, S, V = tg.svd_lowrank(x, q=5)
        assert tuple(U.shape[1:]) == (x.shape[1], 5) and abs((U * S.unsqueeze(-2)) @ V.mH - x).max() < 1e-9
    U, S, V = tg.pca_lowrank(a.real, q=15)
    centered = a.real - a.real.mean(-2, keepdim=True)
    assert abs((U * S.unsqueeze(-2)) @ V.mH - centered).max() < 1e-9


@pytest.mark.parametrize(
    "shapes", [((70, 30), (40, 30)), ((2, 50, 9), (2, 100, 9)), ((300, 4), (2000, 4)), ((3, 70000), (1, 70000))]
)
@pytest.mark.parametrize("p", [0.0, 1.0, 1.5, 2.0, math.inf])
def test_distances_of_many_rows_come_by_stretches(shapes, p):
    rng = np.random.default_rng(0)
    a, b = (tg.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes)
    apart = a.detach().numpy()[..., :, None, :] - b.detach().numpy()[..., None, :, :]
    y = tg.cdist(a, b, p=p, compute_mode="donot_use_mm_for_euclid_dist")
    expected = (apart != 0).sum(-1) if p == 0 else np.linalg.norm(apart, p, -1)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12)
    g = rng.standard_normal(y.shape)
    (y * tg.tensor(g)).sum().backward()
    if p in (1.0, 2.0):
        shares = g[..., None] * (np.sign(apart) if p == 1 else apart / expected[..., None])
        np.testing.assert_allclose(a.grad.numpy(), shares.sum(-2), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(b.grad.numpy(), -shares.sum(-3), rtol=1e-9, atol=1e-9)


def test_the_gradient_of_distances_far_from_the_origin_has_their_digits():
    a = tg.tensor([[1e4, 1e4 + 1]], requires_grad=True)
    b = tg.tensor([[1e4 + 0.5, 1e4]], requires_grad=True)
    tg.cdist(a, b).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), [[-(0.2**0.5), 0.8**0.5]], rtol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), -a.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("batches", [((), (3,)), ((3,), ()), ((4, 1), (3,)), ((1,), (0,)), ((2, 3), (2, 3))])
def test_solve_ex_tells_of_each_matrix_once(batches):
    torch = pytest.importorskip("torch")
    of, by = batches
    for lib in (tg, torch):
        x, info = lib.linalg.solve_ex(lib.eye(2).expand(*of, 2, 2), lib.ones(*by, 2, 1))
        assert tuple(info.shape) == of and info.dtype is lib.int32 and not info.any()
        assert tuple(x.shape) == (*np.broadcast_shapes(of, by), 2, 1)


def test_svd_lowrank_has_no_more_values_than_there_are():
    a = tg.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 5.0]])
    U, S, V = tg.svd_lowrank(a, q=7, M=tg.ones(3))
    assert U.shape == (2, 2) and V.shape == (3, 2)
    assert abs((U * S) @ V.mT - (a - 1)).max() < 1e-5
    with pytest.raises(ValueError, match="must not be negative"):
        tg.svd_lowrank(a, q=-1)


def test_distances_at_zero_have_no_gradient():
    for p in (0.5, 1.0, 1.5, 2.0, 3.0, float("inf")):
        x = tg.tensor([[1.0, 2.0]], requires_grad=True)
        tg.cdist(x, tg.tensor([[1.0, 2.0]]), p=p).sum().backward()
        assert x.grad.tolist() == [[0.0, 0.0]], p


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_distances_of_all_pairs_of_rows(backend, p):
    if backend == "cpp" and registry.class_of("cpp").why_not() is not None:
        pytest.skip("needs the extension")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((7, 3))
    first, second = np.triu_indices(7, 1)
    apart = rows[first] - rows[second]
    with tg.backend(backend):
        x = tg.tensor(rows, requires_grad=True)
        expected = np.linalg.norm(apart, p, -1) if p >= 1 else (apart != 0).sum(-1)
        if p == 0.5:
            expected = np.sqrt(abs(apart)).sum(-1) ** 2
        np.testing.assert_allclose(F.pdist(x, p).detach().numpy(), expected, rtol=1e-12)
        np.testing.assert_allclose(tg.compile(lambda x: F.pdist(x, p))(x.detach()).numpy(), expected, rtol=1e-12)
        if p:
            assert gradcheck(lambda x: F.pdist(x, p), (x,)) and gradgradcheck(lambda x: F.pdist(x, p), (x,))
        twice = tg.tensor(np.repeat(rows[:1], 4, 0), requires_grad=True)
        F.pdist(twice, p).sum().backward()
        assert not twice.grad.numpy().any()
        for few in (0, 1):
            assert F.pdist(tg.ones(few, 3), p).shape == (0,)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
@pytest.mark.parametrize("equation", ["pgj,pgj->pg", "pgj,pgj->gp", "pgj,jpg->p", "pij,pij->p", "pgi,pij,pgj->pg"])
def test_einsum_of_many_short_dots_is_a_formula_and_a_sum(equation, dtype):
    """Not a product of matrices for each, but in half precision, where that rounds once."""
    size = {"p": 40, "g": 3, "i": 2, "j": 2}
    names, _, _ = equation.partition("->")
    tg.manual_seed(0)
    inputs = [(tg.randn(*[size[n] for n in labels]) * 3).to(getattr(tg, dtype)) for labels in names.split(",")]
    with listening(_Names()) as seen:
        result = tg.einsum(equation, *inputs)
    shares = [x.numpy().astype("float64") for x in inputs]
    assert result.dtype == inputs[0].dtype
    wanted = tg.tensor(np.einsum(equation, *shares))
    close(result.double(), wanted, 2e-3 if dtype == "float16" else 1e-5)
    if len(inputs) == 2:
        assert ("matmul" in seen.names) == (dtype in ("float16", "int64"))


def test_einsum_copies_no_operand_whose_labels_stand_together():
    """And its result lies in the order of the output, by the operand that the product takes first."""
    size = {"k": 3, "h": 4, "w": 5, "c": 2, "b": 6}
    tg.manual_seed(0)
    for equation in ("khw,kc->chw", "kc,khw->chw", "bkhw,bkc->bchw", "khw,kc->hwc", "khw,kc,cb->bhw"):
        names, _, output = equation.partition("->")
        inputs = [tg.randn(*[size[n] for n in labels], requires_grad=True) for labels in names.split(",")]
        with listening(_Names()) as seen:
            result = tg.einsum(equation, *inputs)
        assert "contiguous_copy" not in seen.names
        assert result.is_contiguous() or len(inputs) == 3
        close(result, tg.tensor(np.einsum(equation, *[x.detach().numpy() for x in inputs])), 1e-5)
        result.square().sum().backward()
        for x, labels in zip(inputs, names.split(","), strict=True):
            others = [(y.detach().numpy(), n) for y, n in zip(inputs, names.split(","), strict=True) if y is not x]
            arrays, rest = zip((2 * result.detach().numpy(), output), *others, strict=True)
            close(x.grad, tg.tensor(np.einsum(",".join(rest) + "->" + labels, *arrays)), 1e-5)


def close(got, wanted, part):
    assert (got - wanted).abs().max() <= part * wanted.abs().max()


class _Names(Listener):
    def __init__(self):
        self.names = set()

    def after(self, op, inputs, attrs, outputs):
        self.names.add(op.name)


def test_einsum_of_many_contracts_in_a_cheap_order():
    a, b, c = tg.ones(300, 2), tg.ones(2, 300), tg.ones(300, 2)
    assert (tg.einsum("ij,jk,kl->il", a, b, c) == 600).all()
    assert (tg.einsum(a, [0, 1], b, [1, 2], c, [2, 3], [0, 3]) == 600).all()
    assert tg.einsum("ij,jk,kl,lm->", a, b, c, b).item() == 300 * 2 * 300 * 2 * 300


def test_every_function_computes_on_a_device():
    """The same programs on the strict stand-in for CuPy, which refuses whatever would mix host and device."""

    def flat(result):
        return (result,) if isinstance(result, tg.Tensor) else tuple(result)

    with strict_cuda():
        for name, function, shapes, both in SMOOTH:
            inputs = [drawn(*shape, complex=both).detach() for shape in shapes]
            here = flat(function(*inputs))
            there = flat(function(*[x.to("cuda") for x in inputs]))
            for want, got in zip(here, there, strict=True):
                assert got.device.type == "cuda", name
                np.testing.assert_allclose(got.cpu().numpy(), want.numpy(), atol=1e-8, err_msg=name)
        spectrum = tg.stft(tg.ones(32, device="cuda"), 8, window=tg.hann_window(8, device="cuda"), return_complex=True)
        assert tg.istft(spectrum, 8, window=tg.hann_window(8, device="cuda")).device.type == "cuda"
        ill = tg.ones(2, 2, device="cuda")
        assert tg.linalg.matrix_rank(ill).item() == 1 and tg.linalg.cond(ill, "nuc").item() == float("inf")
        with pytest.raises(tg.linalg.LinAlgError):
            tg.linalg.cholesky(-ill)


def test_gradients_of_norms_do_not_overflow():
    for p in (1.5, 2.0, 3.0, 10.0):
        wide = tg.tensor([300.0, 400.0, 1000.0], dtype=tg.float64, requires_grad=True)
        half = wide.detach().half().requires_grad_()
        for x in (wide, half):
            tg.linalg.vector_norm(x, p).backward()
        np.testing.assert_allclose(half.grad.numpy().astype(float), wide.grad.numpy(), rtol=5e-3)


def test_the_power_zero_is_the_identity_whatever_the_matrix_holds():
    x = tg.tensor([[math.nan, 1.0], [math.inf, 2.0]], requires_grad=True)
    power = tg.linalg.matrix_power(x, 0)
    assert power.tolist() == [[1, 0], [0, 1]]
    power.sum().backward()
    assert x.grad.tolist() == [[0, 0], [0, 0]]
