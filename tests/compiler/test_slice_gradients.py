"""Gradients of several slices of one tensor, added up: eager's bits, the signs of zeros among them, whoever asks."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]


def disjoint(x, w):
    a, b = x[:2], x[3:]
    return tg.cat([a * w, b * w[:1]])


def overlapping(x, w):
    return x[:3] * w[0] + x[1:4] * w[1] + x[2:5] * w[0]


def of_a_leaf_and_of_what_was_computed(x, w):
    h = x * 2
    return tg.cat([h[:2] * w, x[1:3] * w, h[4:] * w[:1], x[:1] * w[1]])


def a_slice_beside_the_whole(x, w):
    return tg.cat([(x * w[0])[:5], x[1:3] * w, x[4:] * w[0]])


def a_slice_before_the_whole(x, w):
    a = x[1:3] * w
    return tg.cat([a, x * w[1]])


def parts(x, w):
    q, k, v = (x * w[1])[:, None].expand(5, 3).reshape(5, 3).unbind(1)
    return q * w[0] + k * v


def chunks(x, w):
    a, _, c = (x * w[0]).chunk(3)
    return tg.cat([c * w[0], a * w])


def permuted(x, w):
    m = (x * 1.5).reshape(5, 1).expand(5, 4).contiguous().permute(1, 0)
    return m[0] * w[0] + m[2] * w[1]


def with_steps(x, w):
    return tg.cat([x[::2] * w[0], x[1::2] * w, x[-1:] * w[0]])


def a_slice_of_a_slice(x, w):
    a = x[1:]
    return tg.cat([a[:2] * w, a[1:3] * w, x[:2] * w[0]])


def two_results(x, w):
    h = x * w[0]
    return h[:2] * w, h[2:4] * w


FUNCTIONS = (
    disjoint, overlapping, of_a_leaf_and_of_what_was_computed, a_slice_beside_the_whole, a_slice_before_the_whole,
    parts, chunks, permuted, with_steps, a_slice_of_a_slice, two_results,
)  # fmt: skip


def inputs(dtype):
    """x, w, and what results are weighed with: zeros of either sign among it."""
    x = tg.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=dtype, requires_grad=True)
    w = tg.tensor([-1.0, 1.0], dtype=dtype, requires_grad=True)
    return x, w, tg.tensor([0.0, -0.0, 2.0] * 4, dtype=dtype)


def weighted(results, z):
    return sum((y * z[: y.shape[0]]).sum() for y in (results if isinstance(results, tuple) else (results,)))


def bits(tensors):
    return [np.asarray(t.detach().numpy()).tobytes() for t in tensors]


@pytest.mark.parametrize("dtype", (tg.float32, tg.float64), ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_pair_adds_gradients_of_slices_as_eager_does(function, backend, dtype):
    with tg.backend(backend):
        x, w, z = inputs(dtype)
        weighted(function(x, w), z).backward()
        want = bits([x.grad, w.grad])
        forms = {
            "model": (tg.compile(lambda x, w, z: function(x, w)), weighted),
            "loss": (tg.compile(lambda x, w, z: weighted(function(x, w), z)), lambda loss, z: loss),
        }
        for name, (f, then) in forms.items():
            for call in range(4):
                x, w, z = inputs(dtype)
                then(f(x, w, z), z).backward()
                assert bits([x.grad, w.grad]) == want, (name, call)
        assert [f.stats()["captures"] for f, _ in forms.values()] == [1, 1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_grad_gives_the_bits_of_backward(function, backend):
    """Of all leaves, of one alone, and of what was computed between."""
    with tg.backend(backend):
        x, w, z = inputs(tg.float32)
        weighted(function(x, w), z).backward()
        want = bits([x.grad, w.grad])
        assert bits(tg.autograd.grad(weighted(function(x, w), z), (x, w))) == want
        assert bits(tg.autograd.grad(weighted(function(x, w), z), (w, x)))[::-1] == want
        assert bits(tg.autograd.grad(weighted(function(x, w), z), (x,))) == want[:1]
        assert bits(tg.autograd.grad(weighted(function(x, w), z), (w,))) == want[1:]
        assert x.grad is not None and bits([x.grad, w.grad]) == want  # which grad() leaves alone
        inner = x * 1
        got = tg.autograd.grad(weighted(function(inner, w), z), (inner, x, w))
        inner = x * 1
        inner.retain_grad()
        x.grad = w.grad = None
        weighted(function(inner, w), z).backward()
        assert bits(got) == bits([inner.grad, x.grad, w.grad])


@pytest.mark.parametrize("backend", BACKENDS)
def test_grad_visits_what_leads_to_its_inputs_alone(backend):
    with tg.backend(backend):
        x, w, _ = inputs(tg.float32)
        seen = []
        a, b = x * 2, w.exp()
        a.register_hook(lambda g: seen.append("a"))
        b.register_hook(lambda g: seen.append("b"))
        y = (a[:2] * b).sum() + a[3]
        (got,) = tg.autograd.grad(y, (w,), retain_graph=True)
        assert seen == ["b"] and got is not None
        got = tg.autograd.grad(y, (a, x), retain_graph=True)
        assert seen == ["b", "a"] and got[1].tolist() == [2 * g for g in got[0].tolist()]
        with pytest.raises(tg.errors.AutogradError):
            tg.autograd.grad(y, (tg.ones(2, requires_grad=True),))


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_of_no_elements(backend):
    """They lie where others have elements, which nobody is to take for shared memory."""
    with tg.backend(backend):
        f = tg.compile(lambda x, g: tg.autograd.grad(tg.diff(x), x, g))
        for _ in range(2):
            (got,) = f(tg.ones(13, 30, 1, requires_grad=True), tg.ones(13, 30, 0))
            assert got.tolist() == tg.zeros(13, 30, 1).tolist()
