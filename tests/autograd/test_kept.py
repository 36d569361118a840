"""What a recorded call keeps of its inputs: what the gradients that it will be asked for read, and no more."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import tensorgrad as tg
import tensorgrad.nn.functional as F

PRODUCTS = {
    "mm": (tg.mm, (3, 4), (4, 2)),
    "a batch by one": (tg.matmul, (2, 3, 4), (4, 2)),
    "bmm": (tg.bmm, (2, 3, 4), (2, 4, 2)),
    "mv": (tg.mv, (3, 4), (4,)),
    "dot": (tg.dot, (4,), (4,)),
    "einsum": (lambda a, b: tg.einsum("bij,bj->bi", a, b), (2, 3, 4), (2, 4)),
    "linear": (F.linear, (5, 3), (4, 3)),
    "linear of a vector": (F.linear, (3,), (4, 3)),
    "linear of a batch": (lambda x, w: F.linear(x, w, tg.ones(4, dtype=tg.float64)), (2, 5, 3), (4, 3)),
    "conv": (F.conv1d, (2, 3, 7), (4, 3, 3)),
    "conv_transpose": (F.conv_transpose1d, (2, 3, 7), (3, 4, 3)),
    "addcmul": (lambda a, b: tg.addcmul(tg.ones(3, dtype=tg.float64), a, b, value=2), (3,), (3,)),
}


def two(name, needs):
    generator = np.random.default_rng(0)
    call, *shapes = PRODUCTS[name]
    a, b = [
        tg.tensor(generator.uniform(0.5, 1, shape), requires_grad=needed)
        for shape, needed in zip(shapes, needs, strict=True)
    ]
    return call, a, b


def changed(x):
    with tg.no_grad():
        x.mul_(3.0)


@pytest.mark.parametrize("first", (True, False), ids=("first", "second"))
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_factor_whose_partner_has_no_gradient_may_change(name, first):
    call, a, b = two(name, (first, not first))
    mine, other = (a, b) if first else (b, a)
    y = call(a, b)
    (expected,) = tg.autograd.grad(y.sum(), mine, retain_graph=True)
    changed(mine)  # its gradient is made of the other
    assert tg.autograd.grad(y.sum(), mine, retain_graph=True)[0].equal(expected)
    seed = tg.ones_like(y).requires_grad_()  # and a derivative of that
    (grad,) = tg.autograd.grad(y, mine, seed, create_graph=True)
    assert grad.equal(expected) and tg.autograd.grad(grad.sum(), seed)[0].shape == y.shape
    changed(other)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


@pytest.mark.parametrize("name", PRODUCTS)
def test_factors_that_both_have_a_gradient_may_not(name):
    for which in (0, 1):
        call, *both = two(name, (True, True))
        y = call(*both)
        changed(both[which])
        with pytest.raises(RuntimeError, match="changed in place"):
            y.sum().backward()


@pytest.mark.parametrize("call", (tg.addcmul, tg.addcdiv))
def test_an_addend_is_not_read(call):
    x, a, b = (tg.full((3,), 2.0, requires_grad=True) for _ in range(3))
    y = call(x, a, b)
    changed(x)
    y.sum().backward()
    assert x.grad.tolist() == [1.0] * 3 and a.grad.tolist() == [2.0 if call is tg.addcmul else 0.5] * 3


def test_what_no_gradient_reads_is_freed():
    x = tg.ones(4, 3, requires_grad=True)
    hidden = x * 2.0
    gone = weakref.ref(hidden._data)
    y = F.linear(hidden, tg.ones(2, 3), tg.ones(2, requires_grad=True))
    del hidden
    assert gone() is None
    y.sum().backward()
    assert x.grad.tolist() == [[4.0] * 3] * 4
