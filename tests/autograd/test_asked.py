"""A pass to requested inputs makes the gradients on the way to them and no others."""

from __future__ import annotations

import threading
from functools import cache

import pytest

import tensorgrad as tg
from tensorgrad.autograd import engine
from tensorgrad.dispatch import Listener, listening
from tensorgrad.expr import functions as fn
from tensorgrad.ops.elementwise import Elementwise, elementwise
from tensorgrad.testing import conformance
from tensorgrad.utils.checkpoint import checkpoint


@cache
def turned():
    return elementwise(lambda a, b: fn.exp(a + fn.sin(b)), name="turned_of_test_asked")


class _Seen(Listener):
    def __init__(self, *names):
        self.names = names
        self.calls = []

    def after(self, op, inputs, attrs, outputs):
        if not self.names or op.name in self.names:
            self.calls.append((op.name, attrs.get("needs")))


@pytest.fixture(params=["native", "python"])
def tape(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(engine, "native", None)


@pytest.mark.parametrize("hooked", [False, True])  # hooks are Python's, the usual node is visited in C
@pytest.mark.parametrize("create", [False, True])
def test_gradient_in_the_input_takes_no_products_for_weights(create, hooked):
    model = tg.nn.Sequential(tg.nn.Linear(3, 5), tg.nn.Tanh(), tg.nn.Linear(5, 2))
    x = tg.randn(4, 3, requires_grad=True)
    hidden, seen = model[0](x), _Seen("linear_backward", "matmul")
    if hooked:
        hidden.register_hook(lambda g: None)
    loss = model[2](model[1](hidden)).sum()
    with listening(seen):
        (only,) = tg.autograd.grad(loss, x, create_graph=create, retain_graph=True)
    # what is to be differentiated again is recorded in smaller ops: one product for each layer
    assert seen.calls == [("matmul", None) if create else ("linear_backward", (True, False, False))] * 2
    loss.backward(retain_graph=True)  # and a pass to all leaves makes them all
    assert (x.grad == only).all() and all(p.grad is not None for p in model.parameters())


def test_a_pass_within_a_pass_has_requests_of_its_own():
    layer = tg.nn.Linear(3, 3)
    x = tg.randn(4, 3, requires_grad=True)
    plain = tg.autograd.grad(layer(layer(x)).sin().sum(), x)[0]

    class Within(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return layer(x)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with tg.enable_grad():
                again = x.detach().requires_grad_()
                layer.zero_grad()
                (layer(again) * g).sum().backward()
            assert layer.weight.grad is not None and layer.bias.grad is not None
            return again.grad

    assert tg.allclose(tg.autograd.grad(layer(Within.apply(x)).sin().sum(), x)[0], plain)
    inner = checkpoint(layer, x, use_reentrant=False)
    assert tg.allclose(tg.autograd.grad(layer(inner).sin().sum(), x)[0], plain)


def test_a_formula_makes_what_is_asked_for_alone(tape):
    x, w = tg.randn(4, 3, requires_grad=True), tg.randn(3, requires_grad=True)
    y, seen = (x * w + w).sin(), _Seen()
    seed = tg.ones(4, 3)
    with listening(seen):
        (only,) = tg.autograd.grad(y, x, seed, retain_graph=True)
    assert [name for name, _ in seen.calls] == ["sin_backward0", "mul_backward0"]
    both = tg.autograd.grad(y, (x, w), seed, retain_graph=True)
    (other,) = tg.autograd.grad(y, w, seed)
    assert only.equal(both[0]) and other.equal(both[1]) and other.shape == w.shape


def test_a_formula_whose_one_gradient_reads_what_is_not_kept(tape):
    """That of ``a`` alone would be had from the output; with that of ``b``, which reads ``b``, no output is kept."""
    op = turned()
    assert op.plan((True, False)).uses_output and not op.plan((True, True)).uses_output
    a, b = tg.randn(3, requires_grad=True), tg.randn(2, 3, requires_grad=True)
    y = op(a, b)
    want = tg.autograd.grad(y, (a, b), tg.ones(2, 3), retain_graph=True)
    for x, g in zip((a, b), want, strict=True):
        assert tg.autograd.grad(y, x, tg.ones(2, 3), retain_graph=True)[0].equal(g)


def test_each_gradient_alone_is_what_it_is_among_all():
    samples = {case.op.name: case for case in conformance.cases() if not isinstance(case.op, Elementwise)}
    seen = 0
    for case in samples.values():
        ready = conformance._differentiable(case, tg.get_backend())
        if ready is None:
            continue
        leaves = [x for x in ready[1] if isinstance(x, tg.Tensor) and x.requires_grad]
        outs = [y for y in ready[0](*ready[1]) if y.requires_grad] if len(leaves) > 1 else []
        if not outs:
            continue
        seeds = [tg.arange(y.numel(), dtype=tg.float64).cos().reshape(y.shape).to(y.dtype) for y in outs]
        options = {"retain_graph": True, "allow_unused": True}
        want = tg.autograd.grad(outs, leaves, seeds, **options)
        for x, g in zip(leaves, want, strict=True):
            (alone,) = tg.autograd.grad(outs, [x], seeds, **options)
            assert (g is None) == (alone is None), case
            assert g is None or tg.allclose(alone, g, rtol=1e-11, atol=1e-12), case
        seen += 1
    assert seen > 40


def test_a_derivative_that_nobody_knows_is_missed_where_it_is_asked_for(tape):
    a, x = tg.rand(3, requires_grad=True), tg.rand(3, requires_grad=True)
    y = tg.special.gammainc(a, x).sum()
    slope = (x.log() * (a - 1) - x - tg.lgamma(a)).exp()
    assert tg.allclose(tg.autograd.grad(y, x, retain_graph=True)[0], slope)
    for asked in (a, (x, a)):
        with pytest.raises(tg.errors.AutogradError, match="derivative with respect to 'input' is not implemented"):
            tg.autograd.grad(y, asked, retain_graph=True)


def test_hooks_of_nodes_see_none_for_what_is_not_asked(tape):
    layer, x, seen = tg.nn.Linear(3, 2), tg.randn(4, 3, requires_grad=True), []
    y = layer(x)
    y.grad_fn.register_hook(lambda grads, _: seen.append([g is None for g in grads]))
    for p in layer.parameters():
        p.register_hook(lambda g: seen.append("a leaf that is not asked for"))
    tg.autograd.grad(y.sum(), x, retain_graph=True)
    y.sum().backward(inputs=[x, layer.bias], retain_graph=True)
    assert seen == [[False, True, True], [False, True, False], "a leaf that is not asked for"]
    assert layer.weight.grad is None and layer.bias.grad is not None


def test_a_function_is_told_what_requires_a_gradient(tape):
    seen = []

    class Both(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            return x * w

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.needs_input_grad)
            return g, g

    x, w = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    tg.autograd.grad(Both.apply(x, w).sum(), x)
    assert seen == [(True, True)]  # as in PyTorch
    assert w.grad is None


def test_a_nan_that_nobody_asks_for_is_no_anomaly(tape):
    x, y = tg.zeros(2, requires_grad=True), tg.ones(2, requires_grad=True)
    with tg.autograd.detect_anomaly():
        loss = tg.hypot(y * 0, x * y).sum()  # 0 / 0 in both
        with pytest.raises(tg.errors.AutogradError, match="gave NaN"):
            tg.autograd.grad(loss, y, retain_graph=True)
        power = (x**y).sum()  # y x**(y - 1) is 1, x**y log(x) is NaN where that is no 0
        assert tg.autograd.grad(power, x)[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("create", [False, True])
def test_nothing_of_a_pass_that_failed_is_left(tape, create):
    layer, x = tg.nn.Linear(3, 3), tg.randn(4, 3, requires_grad=True)
    hidden = layer(x)
    handle = hidden.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tg.autograd.grad(layer(hidden).sum(), x, create_graph=create)
    handle.remove()
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("where", ["here", "another thread"])
def test_passes_within_hooks_of_passes(tape, where):
    """Each asks for its own, and the one around it goes on asking for what it did."""
    outer, inner = tg.nn.Linear(3, 3), tg.nn.Linear(3, 3)
    x = tg.randn(4, 3, requires_grad=True)
    seen = _Seen("linear_backward")

    def run(call):
        if where == "here":
            with tg.enable_grad():
                call()
        else:
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

    def all_of_inner():
        inner(tg.ones(2, 3, requires_grad=True)).sum().backward()

    def one_of_inner():
        z = tg.ones(2, 3, requires_grad=True)
        tg.autograd.grad(inner(z).sum(), z)

    def some(within):
        hidden = outer(x)
        hidden.register_hook(lambda g: run(within))
        return outer(hidden).sum()

    with listening(seen):
        tg.autograd.grad(some(all_of_inner), x)
    assert all(p.grad is not None for p in inner.parameters())
    x_alone, every = (True, False, False), (True, True, True)
    heard = [needs for _, needs in seen.calls]
    assert heard == ([x_alone, every, x_alone] if where == "here" else [x_alone, x_alone])
    some(one_of_inner).backward()
    assert all(p.grad is not None for p in outer.parameters()) and x.grad is not None


def test_what_hooks_packed_serves_a_pass_to_some(tape):
    layer, x = tg.nn.Linear(3, 2), tg.randn(4, 3, requires_grad=True)
    want = tg.autograd.grad(layer(x).sin().sum(), x)[0]
    with tg.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), tg.from_numpy):
        y = layer(x).sin()
    assert tg.autograd.grad(y.sum(), x)[0].equal(want)


def test_batches_of_gradients_ask_for_the_same(tape):
    layer, x = tg.nn.Linear(3, 2), tg.randn(4, 3, requires_grad=True)
    y, seeds = layer(x), tg.randn(5, 4, 2)
    (got,) = tg.autograd.grad(y, x, seeds, is_grads_batched=True, retain_graph=True)
    for seed, one in zip(seeds, got, strict=True):
        assert tg.allclose(one, tg.autograd.grad(y, x, seed, retain_graph=True)[0])
