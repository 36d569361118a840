"""Sums of a formula's results down columns, taken by the formula in registers: when, and that they are right."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tests.compiler.common import machine_code, reduced_by_formulas, same_for_any_threads


def x(*shape, dtype=tg.float32):
    tg.manual_seed(3)
    return tg.randn(*shape, dtype=dtype)


# (function, argument, names of the calls that are left)
COLUMNS = [
    (lambda t: (t * 2 + 1).sum(0), lambda: x(50, 40), "F"),
    (lambda t: ((t * 2).mean(0, keepdim=True), (t * t - 1).sum(0, keepdim=True)), lambda: x(300, 40), "F"),
    (lambda t: ((t - t[:, :1]) * 2).sum(1), lambda: x(6, 70, 20), "slice F"),
    (lambda t: (t * t * t[0, 0]).mean((0, 1)), lambda: x(20, 30, 50), "slice F"),
    (lambda t: (t * t * t[0]).mean((0, 1)), lambda: x(20, 30, 50), "slice F mean"),  # its rows are not one axis
    (lambda t: (t * t * 3).sum((1, 2)), lambda: x(3, 20, 30, 50), "F"),
    (lambda t: (t - t.transpose(1, 2)).abs().sum(1), lambda: x(3, 40, 40), "permute F sum"),  # one lies across
    (lambda t: (t * 2 + 1).sum(0), lambda: x(1, 50), "F sum"),
    (lambda t: (t * 2).exp().sum(0), lambda: x(50, 40), "F sum"),  # no machine code for all of it
    (lambda t: (t * 2 + 1).sum(0), lambda: x(50, 40, dtype=tg.float64), "F sum"),
    (lambda t: ((t * 2 + 1).amax(0), (t * 3).sum(0), (t - 1).amin(0)), lambda: x(5000, 40), "F"),
    (lambda t: (t * 2 + 1).norm(dim=0), lambda: x(50, 40), "F vector_norm"),
    (lambda t: t.masked_fill(t[..., :1] > 0, float("-inf")).amax(1), lambda: x(6, 70, 20), "slice gt F"),
    (lambda t: ((t * 2 + 1).sum(0), (t * 3 + 1).sum(1)), lambda: x(50, 40), "F F sum"),
    (lambda t: ((t * 2 + 1).sum(0), t * 3 + 1), lambda: x(50, 40), "F F"),
    (lambda t: ((y := t * 2 + 1).sum(0), y * t[0]), lambda: x(50, 40), "slice F F"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(COLUMNS)))
def test_columns_are_summed_by_formulas(case):
    function, make, left = COLUMNS[case]
    reduced_by_formulas(function, make(), left, "column_sums")


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 200),
        (63, 17),
        (64, 1030),
        (65, 32),
        (700, 90),
        (5000, 20),
        (3, 20, 16),
        (40, 7, 33),
        (2, 300, 24),
        (2, 3, 66, 40),
    ],
)
def test_sums_of_columns_in_registers(shape, count):
    """And extremes. Of few rows and many, in one task and in several; with numbers, what there is for each row, each
    column, or each matrix, in steps or as it lies."""
    tg.manual_seed(count)
    x, y, steps = tg.randn(*shape), tg.randn(*shape[:-2], 1, shape[-1]), tg.randn(shape[-2], 2 * shape[-1])[:, ::2]
    rows, one = tg.randn(*shape[:-1], 1), tg.rand(())
    wide = tg.randn(*shape[:-1], shape[-1] + 5)
    x[..., 1, shape[-1] // 2] = float("inf")

    def sums(x, y, rows, one, wide, steps):
        made = [(x * (k + 1) - y).abs() * rows + one for k in range(count)]
        return (
            *[m.sum(-2) for m in made],
            *[(m * wide[..., 5:]).mean(-2, keepdim=True) for m in made[::2]],
            (rows * y * wide[..., :-5]).sum(-2) * 2,
            (x.clamp(-1, 1) + steps).sum(-2),
            (x * rows).amax(-2),
            (x * y).amin(-2, keepdim=True),
        )

    inputs = x, y, rows, one, wide, steps
    with tg.no_grad(), tg.backend("cpp"), machine_code(True):
        expected = [t.numpy() for t in sums(*[t.double() for t in inputs])]
        compiled = tg.compile(sums)
        found = same_for_any_threads(compiled, *inputs)
        assert "dim=-2" in compiled.explain()
    for made, exact in zip(found, expected, strict=True):
        finite = np.isfinite(exact)
        assert (np.isnan(made) == np.isnan(exact)).all() and (np.isinf(made) == np.isinf(exact)).all()
        np.testing.assert_allclose(made[finite], exact[finite], rtol=1e-5, atol=2e-6 * np.abs(exact[finite]).max())


def test_gradients_of_what_is_broadcast_along_rows_are_summed_by_formulas():
    def loss(x, scale, shift):
        return ((x * scale + shift) ** 2).mean()

    with tg.backend("cpp"):
        x, parameters = tg.randn(60, 40), [tg.randn(40).requires_grad_() for _ in range(2)]
        compiled = tg.compile(lambda x: tg.autograd.grad(loss(x, *parameters), parameters))
        for made, exact in zip(
            [compiled(x) for _ in range(3)][-1],
            tg.autograd.grad(
                loss(x.double(), *(doubles := [p.detach().double().requires_grad_() for p in parameters])), doubles
            ),
            strict=True,
        ):
            np.testing.assert_allclose(made.numpy(), exact.numpy(), rtol=1e-5, atol=1e-6)
        assert "sum_to" in compiled.explain() and "taken by" in compiled.explain()


def test_sums_of_columns_with_a_number_that_lies_in_an_array_of_no_dimensions():
    """Behind other sums, whose rows have gone by the same steps on."""

    def sums(x, one):
        return (x * one).sum(0)

    with tg.no_grad(), tg.backend("cpp"), machine_code(True):
        for n in (40, 3000, 41):
            x, one = tg.randn(n, 32), tg.randn(n, 32)
            for given in (one, one[0], one[:, :1], tg.tensor(2.5)):
                compiled = tg.compile(sums)
                made = [compiled(x, given) for _ in range(3)][-1]
                np.testing.assert_allclose(made.numpy(), sums(x.double(), given.double()).numpy(), rtol=1e-5, atol=1e-4)
