"""Elementwise functions beyond the op table: in-place forms, what numbers and dtypes they take, edge values."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg

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
