"""Sums, extremes and others along rows of a formula's results, taken by the formula: when, and that every bit stays."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tests.compiler.common import (
    after,
    gradient,
    machine_code,
    reduced_by_formulas,
    same_for_any_threads,
    within_rounding,
    written,
)  # fmt: skip


def x(*shape, dtype=tg.float32):
    tg.manual_seed(3)
    return tg.randn(*shape, dtype=dtype)


# (function, argument, names of the calls that are left where rows of formulas are reduced)
ROWS = [
    (lambda t: (t * 2 + 1).sum(1), lambda: x(50, 9), "F"),
    (lambda t: (t * 2 + 1).mean(-1, keepdim=True), lambda: x(50, 700), "F"),
    (lambda t: (t * t).sum((1, 2)), lambda: x(6, 5, 3), "F"),
    (lambda t: (t[:, None] - t[None]).square().sum(-1), lambda: x(60, 8), "slice slice F"),
    (lambda t: ((t * 2).amax(1), (t + 1).amin(1), (t - 1).exp().logsumexp(1)), lambda: x(333, 300), "F"),
    (lambda t: ((t * 2).norm(dim=1), (t * 2).abs().mean(1)), lambda: x(200, 77), "F"),
    (lambda t: ((t * t[0]).sum(1), (t + t[:, :1]).mean(1), t * t), lambda: x(90, 310), "slice slice F"),
    (lambda t: ((t.exp() * 2).sum(1), t.exp().amax(1)), lambda: x(40, 16384, dtype=tg.float64), "F"),
    (lambda t: (t * t[:3].repeat(20, 1)).sum(1), lambda: x(60, 90), "slice rearrange F"),
    (gradient(lambda t: (t.exp() * 2).square().mean(1).log().sum()), lambda: x(50, 40), "F F reshape expand F"),
    (lambda t: (t * 2 + 1).sum(1), lambda: x(0, 9), "F"),
    (lambda t: (t * 2 + 1).sum(0), lambda: x(50, 9), "F sum"),  # these are not rows, or too short or too long
    (lambda t: (t * 2 + 1).amax(1), lambda: x(50, 8), "F amax"),
    (lambda t: (t * 2 + 1).sum(1), lambda: x(50, 1), "F sum"),
    (lambda t: (t * 2 + 1).sum(1), lambda: x(2, 16385), "F sum"),
    (lambda t: (t * 2 + 1).norm(1, dim=1), lambda: x(50, 9), "F vector_norm"),
    (lambda t: ((y := t * 2 + 1).sum(1), y), lambda: x(50, 9), "F sum"),  # it is stored anyway
    (lambda t: ((t * 2 + 1).sum(2), (t * 3 + 1).sum((1, 2))), lambda: x(5, 9, 9), "F sum"),  # of one kind of row alone
    (lambda t: ((t * 2 + 1).sum(1), (t * 3 + 1).sum()), lambda: x(50, 9), "F sum"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(ROWS)))
def test_rows_are_reduced_by_formulas(case):
    function, make, left = ROWS[case]
    reduced_by_formulas(function, make(), left)


@pytest.mark.parametrize("compiled_formulas", [False, True])
def test_reduced_rows_have_the_bits_of_stored_ones(compiled_formulas):
    rng = np.random.default_rng(0)
    kinds = ("sum", "mean", "amax", "amin", "logsumexp", "norm")

    def function(t, u, v, asked, dims, keepdim):
        made = [(t * u - v) * (i + 0.5) for i in range(len(asked))]
        return [getattr(m, kind)(dim=dims, keepdim=keepdim) for m, kind in zip(made, asked, strict=True)]

    with machine_code(compiled_formulas), tg.backend("cpp"), tg.no_grad():
        for _ in range(40):
            shape = [int(n) for n in rng.integers(1, 40, rng.integers(2, 4))]
            if rng.random() < 0.3:
                shape[-1] = int(rng.integers(200, 2000))
            dtype = rng.choice(["float32", "float64"])
            given = [rng.standard_normal([n if rng.random() < 0.5 else 1 for n in shape]) for _ in range(2)]
            tensors = [tg.tensor(a.astype(dtype)) for a in (rng.standard_normal(shape), *given)]
            asked = [str(k) for k in rng.choice(kinds, rng.integers(1, 4))]
            dims = tuple(range(int(rng.integers(1, len(shape))), len(shape)))
            arguments = *tensors, asked, dims, bool(rng.integers(2))
            expected = function(*arguments)
            compiled = tg.compile(function)
            for _ in range(2):
                for kind, a, b in zip(asked, compiled(*arguments), expected, strict=True):
                    within_rounding(a, b)
                    in_registers = compiled_formulas and kind in ("sum", "mean")
                    assert in_registers or a.numpy().tobytes() == b.numpy().tobytes(), (shape, arguments[3:])


def test_rows_that_get_too_long_or_too_short_are_reduced_all_the_same():
    """A program for any size is made with some size."""
    with tg.backend("cpp"), tg.no_grad():
        compiled = tg.compile(lambda t: ((t.t() * 2 + 1).amax(1), (t.t().exp() * 3).sum(1)), dynamic=True)
        plain = tg.compile(lambda t: ((t * 2 + 1).amax(1), (t.exp() * 3).sum(1)))
        for n in (40, 5, 1, 20000, 33):
            t = tg.randn(n, 6)
            for made, given in ((compiled, t), (plain, t.t().contiguous())):
                for a, b in zip(made(given), made.__wrapped__(given), strict=True):
                    assert a.numpy().tobytes() == b.numpy().tobytes()


def test_source_of_a_formula_that_reduces_rows():
    with tg.backend("cpp"):
        program = after("formulas", written(lambda t: ((t * 2).mean(1), (t + 1).amax(1), t * 2), x(5, 9)))
        (call,) = after("reductions", program).calls
        assert call.op.formula == "t2 = x0 * 2.0\ny0 = t2\ny1 = mean(t2, dim=-1)\ny2 = amax(x0 + 1.0, dim=-1)"


@pytest.mark.parametrize("inner", (64, 100, 256, 300, 1000))
@pytest.mark.parametrize("dtype", (tg.float32, tg.float64), ids=str)
def test_rows_of_matrices_follow_each_other_by_the_same_steps(inner, dtype):
    tg.manual_seed(0)
    x, one, other = tg.randn(5, 31, inner, dtype=dtype), tg.randn(5, 31, 1, dtype=dtype), tg.randn(31, 1, dtype=dtype)
    few, row = tg.randn(5, 1, 1, dtype=dtype), tg.randn(inner, dtype=dtype)
    wide = tg.randn(5, 40, inner + 3, dtype=dtype)

    def rows(x, one, other, few, row, wide):
        part = wide[:, 9:, 3:]
        y = (x - one) * other + few * row
        return y, x * one, (y * part).sum(-1), (part - one).amax((-1,), keepdim=True), (x * other + one).abs().sqrt()

    inputs = (x, one, other, few, row, wide)
    with tg.no_grad(), tg.backend("numpy"):
        expected = [t.numpy() for t in rows(*[t.double() for t in inputs])]
    with tg.no_grad(), tg.backend("cpp"):
        compiled = tg.compile(rows)
        for made, eager in zip(compiled(*inputs), rows(*inputs), strict=True):  # an ordinary run
            assert made.numpy().tobytes() == eager.numpy().tobytes()
        first = [t.numpy().copy() for t in compiled(*inputs)]
        threads = tg.get_num_threads()
        try:
            for n in (1, 3):
                tg.set_num_threads(n)
                for made, eager, before in zip(compiled(*inputs), rows(*inputs), first, strict=True):
                    assert made.numpy().tobytes() == before.tobytes()
                    within_rounding(made, eager)
        finally:
            tg.set_num_threads(threads)
    for made, exact in zip(first, expected, strict=True):
        np.testing.assert_allclose(made, exact, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize("length", [17, 24, 63, 64, 200, 1024, 1025, 3001, 16384])
def test_sums_of_rows_in_registers(count, length):
    """Of as many results as there are registers for and more, with a last vector that is not full, in which 1 / 0 and
    others are nobody's; of whole rows, parts of longer ones, every other row, and what there is one of for each or
    all."""
    tg.manual_seed(length)
    n = max(3, 60_000 // length)
    x, wide, row, one = tg.rand(n, length) + 0.5, tg.rand(2 * n, length + 5), tg.rand(length), tg.rand(n, 1)
    x[n // 2, length // 2] = float("nan")

    def sums(x, wide, row, one):
        part = wide[::2, 3 : length + 3]
        made = [(x + 1) * (part + k) + row * one for k in range(count)]
        means = [(m + 1 / (row + 0.5)).mean(-1) for m in made[1::3]]
        return *means, *[(m / x).sum(-1, keepdim=True) for m in (*made[::3], *made[2::3])], made[0] * 2

    inputs = x, wide, row, one
    with tg.no_grad(), tg.backend("cpp"), machine_code(True):
        expected = [t.numpy() for t in sums(*[t.double() for t in inputs])]
        compiled = tg.compile(sums)
        first = same_for_any_threads(compiled, *inputs)
        assert "taken by" in compiled.explain()
    for made, exact in zip(first, expected, strict=True):
        assert (np.isnan(made) == np.isnan(exact)).all()
        np.testing.assert_allclose(made, exact, rtol=3e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "shape", [(40, 64, 3), (7, 16, 64), (33, 1030, 2), (3, 5, 50, 17), (2, 3, 21, 9), (300, 37, 12)]
)
def test_sums_over_a_short_axis_of_what_is_broadcast_along_the_one_before(shape, count):
    """Of pairs, by whole vectors of the second of them and what is left: what varies along these lies turned,
    transposed, in steps, or as it is, with a value for each pair, each of the first or all, and numbers."""
    tg.manual_seed(count)
    *outer, first, second, length = (1, *shape)
    a, b = tg.randn(*outer, first, 1, length), tg.randn(*outer[1:], second, length)
    steps, turned = tg.randn(second, 2 * length)[:, ::2], tg.randn(length, second).t()
    pairs, across = tg.rand(first, second, 1), tg.rand(second, first).t()[..., None]
    row, one = tg.randn(length), tg.rand(())
    b[..., second // 2, 0] = float("nan")

    def sums(a, b, steps, turned, pairs, across, row, one):
        b = b[..., None, :, :] if b.dim() > 2 else b
        made = [(a - b * (k + 1)) * pairs for k in range(count)]
        lengths = [(m * m).sum(-1) for m in made]
        others = [(m.abs() + row * one + steps).mean(-1, keepdim=True) for m in made[::2]]
        return *lengths, *others, ((a > turned) * across).sum(-1), (a * turned).sum(-1).sqrt().amax(-1)

    inputs = a, b, steps, turned, pairs, across, row, one
    with tg.no_grad(), tg.backend("cpp"), machine_code(True):
        expected = [t.numpy() for t in sums(*[t.double() for t in inputs])]
        found = same_for_any_threads(tg.compile(sums), *inputs)
    for made, exact in zip(found, expected, strict=True):
        assert (np.isnan(made) == np.isnan(exact)).all()
        np.testing.assert_allclose(made, exact, rtol=1e-5, atol=1e-5)
