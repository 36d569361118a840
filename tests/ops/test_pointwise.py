"""Elementwise functions beyond the op table: in-place forms, what numbers and dtypes they take, edge values."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends.numpy.evaluate import evaluate
from tensorgrad.expr import functions as fn
from tensorgrad.expr import lower, symbol

KEEP_SELF = {
    "mul": (0.7,), "div": (1.3,), "pow": (1.7,), "atan2": (0.4,), "fmod": (0.3,), "remainder": (0.3,),
    "lerp": (0.2, 0.3), "addcmul": (0.4, 0.6), "clamp": (0.2, 0.9), "xlogy": (0.8,), "sin": (), "log": (),
    "clamp_min": (0.6,),
}  # fmt: skip


@pytest.mark.parametrize("name", KEEP_SELF)
def test_in_place_gives_the_gradients_of_the_plain_form(name):
    """Also where the derivative reads the value that was overwritten."""
    grads = []
    for form in (name, name + "_"):
        leaf = tg.tensor([0.4, 0.75, 1.3], dtype=tg.float64, requires_grad=True)
        others = [tg.tensor([v, v + 0.1, v + 0.2], dtype=tg.float64, requires_grad=True) for v in KEEP_SELF[name]]
        result = getattr(leaf * 1.0, form)(*others)
        first = tg.autograd.grad(result.square().sum(), [leaf, *others], create_graph=True)
        second = tg.autograd.grad(sum(g.square().sum() for g in first), [leaf, *others])
        grads.append([g.tolist() for g in (*first, *second)])
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-12)


def test_in_place_on_a_view_keeps_the_old_value_too():
    x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    w = tg.tensor([5.0, 7.0], requires_grad=True)
    y = x * 1.0
    y[1:].mul_(w)
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 5.0, 7.0]
    assert w.grad.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_neighbours_of_a_number(dtype):
    kind = getattr(tg, dtype)
    x = tg.tensor([1.0, -1.0, 0.0, 2.0, 0.0], dtype=kind)
    eps, tiny = tg.finfo(kind).eps, float(tg.nextafter(x[2], x[0]))
    up = tg.nextafter(x, tg.full_like(x, float("inf"))).double()
    assert up.tolist() == [1.0 + eps, -1.0 + eps / 2, tiny, 2.0 + 2 * eps, tiny]
    assert 0 < tiny < tg.finfo(kind).tiny
    assert float(tg.nextafter(x[4], x[1])) == -tiny
    assert tg.nextafter(x[0], x[0]).shape == ()
    assert bool(tg.nextafter(x[0], tg.tensor(float("nan"), dtype=kind)).isnan())


def test_a_factor_multiplies_in_the_results_dtype():
    """Three times 250 is no uint8, and a float64 result has no digits of float32's product."""
    wide, narrow = tg.tensor([3, 3]), tg.tensor([250, 6], dtype=tg.uint8)
    assert tg.add(wide, narrow, alpha=-3).tolist() == [-747, -15]
    assert tg.sub(wide, narrow, alpha=-3).tolist() == [753, 21]
    one, few = tg.ones(2, dtype=tg.float64), tg.tensor([0.1, 0.7])
    exact = few.double()
    assert tg.add(one, few, alpha=0.3).tolist() == (one + 0.3 * exact).tolist()
    assert tg.sub(one, few, alpha=0.3).tolist() == (one - 0.3 * exact).tolist()
    assert tg.addcmul(one, few, few, value=0.3).tolist() == (one + 0.3 * exact * exact).tolist()
    assert tg.addcdiv(one, few, few + 2, value=0.3).tolist() == (one + 0.3 * (exact / (few + 2).double())).tolist()


# value and argument: digits of the tail, limits, edges; exact values by mpmath
EXACT = [
    ("ndtri", 1e-300, -37.0470962993612), ("log_ndtr", -40.0, -804.6084420137538),
    ("log_ndtr", 9.0, -1.1285884059538405e-19), ("erfcx", 30.0, 0.01879588886141675),
    ("erfcx", -2.0, 108.94090438997797), ("i0", 20.0, 43558282.559553534), ("i1e", 100.0, 0.03974415302513025),
    ("bessel_j0", 2.404825557695773, -6.10876525973673e-17), ("bessel_j1", 30.0, -0.11875106261662294),
    ("bessel_y0", 0.5, -0.44451873350670656), ("bessel_y1", 12.0, -0.05709921826089652),
    ("modified_bessel_k0", 0.1, 2.4270690247020164), ("scaled_modified_bessel_k1", 30.0, 0.2316541293777118),
    ("entr", 0.5, 0.34657359027997264),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x", "want"), EXACT)
def test_special_functions_keep_their_digits(name, x, want):
    got = float(getattr(tg.special, name)(tg.tensor(x, dtype=tg.float64)))
    assert abs(got - want) <= 2e-13 * abs(want)


@pytest.mark.parametrize(("name", "a", "x", "want"), [
    ("igamma", 0.5, 0.1, 0.345279153981423), ("igammac", 1e-06, 0.3, 9.056768136855656e-07),
    ("igammac", 3.0, 40.0, 3.572865928700226e-15), ("igamma", 1000.0, 900.0, 0.0005499022657117829),
    ("zeta", 3.0, -1.5, 0.1181020258208637), ("zeta", 2.0, 1.0, 1.6449340668482264),
])  # fmt: skip
def test_special_functions_of_two(name, a, x, want):
    got = float(getattr(tg.special, {"igamma": "gammainc", "igammac": "gammaincc"}.get(name, name))(
        tg.tensor(a, dtype=tg.float64), tg.tensor(x, dtype=tg.float64)
    ))  # fmt: skip
    assert abs(got - want) <= 1e-13 * abs(want)


def test_softplus_is_its_argument_where_beta_would_carry_it_beyond_the_largest_number():
    x = tg.tensor([1e38, 3.0], requires_grad=True)
    y = tg.nn.functional.softplus(x, beta=100.0)
    y.sum().backward()
    assert y.tolist() == x.tolist() and x.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("power", [2, 3, 4, 5, 6, 7, -1, -2, -3, 0.5, -0.5, 4.0, -2.0, 1.5])
def test_powers_by_a_number(power, backend):
    """Some are products and roots: with the values, derivatives and edges of the others."""
    with tg.backend(backend):
        for dtype in (tg.float64, tg.float32, tg.float16, tg.complex128):
            close = {"rtol": 16 * float(tg.finfo(dtype).eps)}
            x = tg.tensor([0.3, 1.0, 1.7, 2.6], dtype=dtype) * (0.6 + 0.8j if dtype.is_complex else 1)
            at = x.numpy().astype(complex if dtype.is_complex else float)
            leaf = x.detach().requires_grad_()
            y = leaf**power
            assert y.dtype is dtype
            np.testing.assert_allclose(y.detach().numpy(), at**power, **close)
            if dtype is not tg.float16:
                (first,) = tg.autograd.grad(y.sum() if not dtype.is_complex else y.real.sum(), leaf, create_graph=True)
                np.testing.assert_allclose(first.detach().numpy(), np.conj(power * at ** (power - 1)), **close)
                (second,) = tg.autograd.grad(first.real.sum() if dtype.is_complex else first.sum(), leaf)
                np.testing.assert_allclose(
                    second.numpy(), np.conj(power * (power - 1) * at ** (power - 2)), atol=1e-6, **close
                )  # fmt: skip
        edges = [0.0, -0.0, np.inf, -np.inf, np.nan, -1.5, 3e19, 1e-20, -1e30]
        with np.errstate(all="ignore"):
            expected = np.float32(edges) ** np.float32(power)
            if power == 0.5:
                expected[[1, 3]] = -0.0, np.nan  # as a root
            if power == -0.5:
                expected[[1, 3]] = -np.inf, np.nan
        np.testing.assert_allclose((tg.tensor(edges) ** power).numpy(), expected, rtol=1e-6)


def test_integers_to_whole_powers_stay_exact():
    x = tg.tensor([3, -7, 46341, 0], dtype=tg.int64)
    for power in (2, 3, 4, 5, 6):
        assert (x**power).tolist() == (x.numpy() ** power).tolist()
    assert (tg.tensor([100_000], dtype=tg.int32) ** 2.0).tolist() == [1e10]
    with pytest.raises(tg.errors.DTypeError, match="negative integer powers"):
        x**-2


def test_an_inverse_square_is_one_operation():
    x = tg.tensor([0.5, -2.0, 1e-25, 1e25, np.inf], requires_grad=True)
    node = (x**-2).grad_fn
    assert [read is x for read, _ in node.next_functions] == [True] and "PowBackward0" in repr(node)
    np.testing.assert_array_equal((x.detach() ** -2).numpy(), np.float32([4, 0.25, np.inf, 0, 0]))


@pytest.mark.parametrize("power", [4, 5, 6, -1, -2, -0.5])
def test_a_compiled_power_has_the_bits_of_the_plain_one(power):
    with tg.backend("numpy"):
        x = tg.rand(1000) + 0.5
        compiled = tg.compile(lambda x: (x**power).sum())
        for _ in range(3):
            a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
            compiled(a).backward()
            (b**power).sum().backward()
            assert (compiled(x) == (x**power).sum()).item() and a.grad.equal(b.grad)


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_gradients_at_the_ends_of_what_a_function_is_defined_for(backend):
    inf, nan = np.inf, np.nan
    with tg.backend(backend):
        y, x = [tg.tensor([0.0, -0.0, 0.0, 3.0], requires_grad=True) for _ in range(2)]
        tg.atan2(y, x).sum().backward()
        np.testing.assert_allclose(y.grad.tolist(), [0, 0, 0, 1 / 6], rtol=1e-6)
        np.testing.assert_allclose(x.grad.tolist(), [0, 0, 0, -1 / 6], rtol=1e-6)
        x = tg.tensor([-0.1, 0.0, 0.5, 1.0, 1.5, inf, nan], requires_grad=True)
        tg.logit(x).sum().backward()
        assert x.grad.isnan().tolist() == [True, False, False, False, True, True, True]
        assert x.grad[1:4].tolist() == [inf, 4.0, inf]
        x, w = tg.tensor([inf, 2.0, -3.0], requires_grad=True), tg.tensor([0.25], requires_grad=True)
        tg.nn.functional.prelu(x, w).sum().backward()
        assert x.grad.tolist() == [1.0, 1.0, 0.25] and w.grad.tolist() == [-3.0]


@pytest.mark.parametrize(
    "call",
    (
        lambda x: x.mul_(None), lambda x: x.bitwise_and_(None), lambda x: x.clamp_max_(None),
        lambda x: x.float_power(None), lambda x: x.float_power_([]), lambda x: x.type_as(0), lambda x: tg.floor_(5),
        lambda x: tg.add(x, 1, alpha="two"), lambda x: tg.sub(x, 1, alpha=[2]), lambda x: tg.linalg.tensorsolve(x, 1),
        lambda x: tg.linalg.tensorinv(1), lambda x: tg.nn.functional.embedding_bag(x.long(), x, tg.int64),
        lambda x: tg.nn.functional.binary_cross_entropy_with_logits(x, x, 2),
    ),
)  # fmt: skip
def test_what_is_no_tensor_is_a_type_error(call):
    with pytest.raises(TypeError, match="Tensor"):
        call(tg.ones(2, 2))


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_second_derivatives_of_a_power_of_zero_are_zero(backend):
    with tg.backend(backend):
        for exponent in (0, 0.0, tg.tensor(0), tg.tensor([0.0, 0.0, 0.0])):
            x = tg.tensor([0.0, -2.0, 3.0], requires_grad=True)
            (first,) = tg.autograd.grad((x**exponent).sum(), x, create_graph=True)
            (second,) = tg.autograd.grad(first.sum(), x)
            assert first.tolist() == second.tolist() == [0, 0, 0]


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_a_bound_gets_no_gradient_where_nothing_compares(backend):
    with tg.backend(backend):
        for name in ("min", "max"):
            x = tg.tensor([math.nan, 1.0, math.nan, 1.0], requires_grad=True)
            bound = tg.tensor([1.0, math.nan, math.nan, 1.0], requires_grad=True)
            tg.clamp(x, **{name: bound}).sum().backward()
            assert x.grad.tolist() == [0, 0, 0, 1]
            assert bound.grad.tolist() == [0, 0, 0, 0]


def test_the_gradient_of_a_step_function_is_there_and_zero():
    def divided(mode):
        return lambda x: tg.div(x, tg.tensor([2.0, -0.5]), rounding_mode=mode)

    steps = (tg.floor, tg.ceil, tg.trunc, tg.round, tg.sign, divided("floor"), divided("trunc"))
    for step in (*steps, lambda x: tg.copysign(tg.tensor([1.0, 2.0]), x)):
        for call in (step, *[tg.compile(step)] * 3):
            x = tg.tensor([1.5, -2.5], requires_grad=True)
            (grad,) = tg.autograd.grad(call(x), x, tg.tensor([np.inf, 1.0]))
            assert grad.tolist() == [0.0, 0.0]
    a, b = tg.ones(2, 3, requires_grad=True), tg.ones(3, dtype=tg.float64, requires_grad=True)
    tg.div(a, b, rounding_mode="floor").sum().backward()
    assert a.grad.equal(tg.zeros(2, 3)) and b.grad.equal(tg.zeros(3, dtype=tg.float64))


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_polygamma_left_of_all_poles(backend):
    """Minus infinity counts as a pole, as every number does that is too far left to lie between poles."""
    for dtype in (tg.float32, tg.float64):
        with tg.backend(backend):
            x = tg.tensor([-float("inf"), -1e30, -2.0, float("nan")], dtype=dtype)
            for order in (2, 3):
                expected = [(-1.0) ** (order + 1) * float("inf")] * 3
                found = tg.polygamma(order, x).tolist()
                assert found[:3] == expected
                assert found[3] != found[3]


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
@pytest.mark.parametrize("divisor", (1, 2, 64, 2**62, 3, -1, -64, -(2**63)))
def test_integers_divide_as_pythons(divisor, backend):
    numbers = [-(2**63), -(2**62) - 1, -65, -64, -63, -1, 0, 1, 63, 64, 65, 2**63 - 1]
    kept = numbers[1:] if divisor == -1 else numbers  # the first has no opposite
    with tg.backend(backend):
        x = tg.tensor(kept)
        for by in (divisor, tg.full((len(kept),), divisor, dtype=tg.int64)):
            assert (x // by).tolist() == [n // divisor for n in kept]
            assert (x % by).tolist() == [n % divisor for n in kept]
            assert tg.fmod(x, by).tolist() == [(abs(n) % abs(divisor)) * (1 if n > 0 else -1) for n in kept]
            assert tg.div(x, by, rounding_mode="trunc").tolist() == [
                abs(n) // abs(divisor) * (1 if (n < 0) == (divisor < 0) else -1) for n in kept
            ]


def test_what_numpy_computes_for_a_formula_is_nobody_elses():
    """What was computed is handed on as it lies, unless it is an input, a result already, a view or a scalar."""
    x, z = np.ones((3, 4), np.float32), np.ones((3, 4), np.complex64)
    given, total = symbol(0), symbol(0) + 1.0

    def results(*roots, of=x):
        return evaluate(lower(list(roots), (str(of.dtype),), name="f"), (of,))

    made = [
        *results(given),
        *results(total, total),
        *results(given, fn.cast(given, "float32")),
        *results(total, of=x.T),
        *results(fn.real(given), fn.imag(given), of=z),
        *results(total, of=x[:1, :1].reshape(())),
    ]
    for array in made:
        assert type(array) is np.ndarray and array.flags.c_contiguous and array.flags.writeable
        assert array.base is None and array.dtype == np.float32
    everything = [x, z, *made]
    for at, one in enumerate(everything):
        assert not any(np.shares_memory(one, other) for other in everything[:at])
