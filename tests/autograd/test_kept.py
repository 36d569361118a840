"""What a recorded call keeps of its inputs: what the gradients that it will be asked for read, and no more."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad.dispatch import OPS
from tensorgrad.ops.formula_loss import ReducedFormula

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


NORMS = {
    "layer_norm": lambda x, w: F.layer_norm(x, (4,), w),
    "rms_norm": lambda x, w: F.rms_norm(x, (4,), w),
    "batch_norm": lambda x, w: F.batch_norm(x, None, None, w, training=True),
    "group_norm": lambda x, w: F.group_norm(x, 2, w),
    "instance_norm": lambda x, w: F.instance_norm(x, weight=w),
}
LOSSES = {
    "kl_div": lambda a, b: F.kl_div(a, b, reduction="batchmean"),
    "kl_div of logarithms": lambda a, b: F.kl_div(a, b, reduction="sum", log_target=True),
    "poisson_nll_loss": lambda a, b: F.poisson_nll_loss(b, a),
    "poisson_nll_loss of rates": lambda a, b: F.poisson_nll_loss(b, a, log_input=False),
    "binary_cross_entropy": lambda a, b: F.binary_cross_entropy(b, a),
    "binary_cross_entropy_with_logits": lambda a, b: F.binary_cross_entropy_with_logits(b, a),
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


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_may_lose_the_input_whose_own_gradient_alone_does_not_read_it(name):
    generator = np.random.default_rng(0)
    values = generator.uniform(0.2, 0.8, (2, 3, 4))
    found = []
    for lost in (False, True):
        a, b = tg.tensor(values[0], requires_grad=True), tg.tensor(values[1])
        loss = LOSSES[name](a, b)
        if lost:
            changed(a)
        loss.backward()
        found.append(a.grad.tolist())
    assert found[0] == found[1]
    a, b = tg.tensor(values[0], requires_grad=True), tg.tensor(values[1])
    loss = LOSSES[name](a, b)
    changed(b)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_losses_keep_what_their_gradients_read():
    losses = [op for op in list(OPS.values()) if isinstance(op, ReducedFormula)]
    assert len(losses) > 8
    for loss in losses:
        for needs in itertools.product((False, True), repeat=len(loss.inputs)):
            plan = loss.summand.plan(needs)
            read = range(len(needs)) if plan.uses_output else plan.uses
            assert all(loss.keeps_input(i, needs) for i in read), (loss.name, needs)


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_may_lose_the_weight_where_only_its_own_gradient_is_asked_for(name):
    generator = np.random.default_rng(0)
    for needs in ((False, True), (True, False), (True, True)):
        x = tg.tensor(generator.normal(size=(3, 4, 4)), requires_grad=needs[0])
        w = tg.tensor(generator.normal(size=4), requires_grad=needs[1])
        expected = tg.autograd.grad(NORMS[name](x, w).square().sum(), w) if needs[1] else None
        y = NORMS[name](x, w).square().sum()
        changed(w)
        if needs[0]:
            with pytest.raises(RuntimeError, match="changed in place"):
                y.backward()
        else:
            assert tg.equal(tg.autograd.grad(y, w)[0], expected[0])


def test_ldexp_keeps_no_input_for_its_dtype():
    x = tg.tensor([1.0, 3.0], requires_grad=True)
    h = x * 1
    y = tg.ldexp(h, tg.tensor([2, -1]))
    h.zero_()
    y.sum().backward()
    assert x.grad.tolist() == [4.0, 0.5]
