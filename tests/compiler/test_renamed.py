"""Formulas over what calls have made become values of their own; what others may see is written where it lies."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tests.compiler.common import after, names, run, same_results, written

A, B = tg.randn(5, 4), tg.randn(5, 4)


def filled(a, b):
    x = a + b
    x[x > 0] = 0.5
    return x * b


def chained(a, b):
    x = a @ b.T
    x.mul_(2).sub_(a[:, :1])
    y = x.exp()
    x.clamp_(0, 1)
    return x, y, x.sum()


def over_a_copy(a, b):
    x = a.clone()
    x.add_(b)
    return x.relu_()


def seen_later(a, b):
    x = a * b
    x.neg_()
    v = x[1:]
    return v + 1, x.T


@pytest.mark.parametrize("function", [filled, chained, over_a_copy, seen_later])
def test_values_of_their_own(function):
    program = written(function, A, B)
    made = after("renamed", program)
    assert not any("out" in call.attrs for call in made.calls) and names(made) == names(program)
    assert made.outputs == program.outputs
    same_results(program, made, A, B)


def of_an_argument(a, b):
    a.add_(b)
    return a * 2


def under_a_view(a, b):
    x = a * 2
    v = x[1:]
    x.add_(b)
    return v + 1


def of_a_part(a, b):
    x = a * 2
    x[1:].add_(b[1:])
    x.add_(b)  # after a part was written
    return x


def narrower(a, b):
    x = (a * 2).half()
    x.add_(b)
    return x


def turned(a, b):
    x = a + b
    x.add_(b.T.contiguous().T)
    return x


@pytest.mark.parametrize("function", [of_an_argument, under_a_view, of_a_part, narrower])
def test_what_others_see_is_written_where_it_lies(function):
    program = written(function, A, B)
    assert after("renamed", program) is program


def test_layouts():
    program = written(turned, A, B)
    same_results(program, after("renamed", program), A, B)
    assert run(program, A, B)[0].flags.c_contiguous


def test_it_is_merged():
    """Also in what is kept for the backward pass, and the step after it."""
    w = tg.randn(4, requires_grad=True)

    def step(x, y):
        w.grad = None
        h = x * w
        h.mul_(y).add_(1)
        h[h < 0] *= 0.1
        (h * y).sum().backward()
        w.grad.mul_(0.5)
        with tg.no_grad():
            w.sub_(w.grad)
        return h.detach()

    compiled = tg.compile(step)
    for i in range(4):
        x, y = tg.randn(6, 4), tg.randn(6, 4)
        before = w.detach().clone()
        got = compiled(x, y), w.detach().clone(), w.grad.clone()
        with tg.no_grad():
            w.copy_(before)
        expected = step(x, y), w.detach(), w.grad
        for a, b in zip(got, expected, strict=True):
            assert tg.allclose(a, b, rtol=1e-6), i
    assert "makes a value of its own" in compiled.explain()
