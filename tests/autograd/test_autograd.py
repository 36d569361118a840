"""autograd's functions: Function, functional, gradcheck, anomaly, saved-tensor hooks, checkpoint."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.autograd import functional
from tensorgrad.utils.checkpoint import checkpoint, checkpoint_sequential


def leaf(values):
    return tg.tensor(values, dtype=tg.float64, requires_grad=True)


class Cube(tg.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 3 * x * x * grad


def test_function_first_and_second_derivative():
    x = leaf([1.5, -0.5])
    assert tg.autograd.gradcheck(Cube.apply, x)
    assert tg.autograd.gradgradcheck(Cube.apply, x)


def test_function_context():
    seen = {}

    class Both(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x, y, power):
            ctx.power = power
            ctx.save_for_backward(x, y)
            largest = (x > y).long()
            ctx.mark_non_differentiable(largest)
            return x * y, largest

        @staticmethod
        def backward(ctx, grad, _):
            seen["needs"] = ctx.needs_input_grad
            _, y = ctx.saved_tensors
            return grad * y * ctx.power, None, None

    x, y = leaf([2.0]), tg.tensor([3.0], dtype=tg.float64)
    product, largest = Both.apply(x, y, 10)
    assert not largest.requires_grad
    product.backward()
    assert x.grad.tolist() == [30.0] and seen["needs"] == (True, False, False)
    with pytest.raises(RuntimeError, match="second time"):
        product.backward()


def test_function_with_setup_context_and_unused_output():
    class Split(tg.autograd.Function):
        @staticmethod
        def forward(x):
            return x * 2, x * 3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx, a, b):
            assert b is None
            return a * 2

    x = leaf([1.0])
    Split.apply(x)[0].backward()
    assert x.grad.tolist() == [2.0]


def test_function_leaves_no_cycle():
    x = leaf([1.0])
    gc.disable()
    try:
        y = Cube.apply(x)
        node = weakref.ref(y.grad_fn)
        y.backward()
        del y
        assert node() is None
    finally:
        gc.enable()


def test_once_differentiable_refuses_the_second_derivative():
    class Square(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @tg.autograd.once_differentiable
        def backward(ctx, grad):
            return grad * 2 * ctx.saved_tensors[0]

    x = leaf(3.0)
    (slope,) = tg.autograd.grad(Square.apply(x), x, create_graph=True)
    assert slope.item() == 6.0
    with pytest.raises(RuntimeError, match="once_differentiable"):
        tg.autograd.grad(slope, x)


def test_derivatives_are_those_of_the_elements_that_a_call_has_read():
    class Cubed(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 3 * x * x

    calls = (lambda x: x * x * x, lambda x: x**3, lambda x: tg.einsum("i,i,i->i", x, x, x), Cubed.apply)
    for call in calls:
        for before in (True, False):
            x = leaf([2.0, 3.0])
            y = call(x).sum()
            if before:
                x.data = tg.tensor([5.0, 7.0], dtype=tg.float64)
            (slope,) = tg.autograd.grad(y, x, create_graph=True)
            x.data = tg.tensor([8.0, 9.0], dtype=tg.float64)
            (bend,) = tg.autograd.grad(slope.sum(), x, create_graph=True)
            (third,) = tg.autograd.grad(bend.sum(), x)
            assert (slope.tolist(), bend.tolist(), third.tolist()) == ([12.0, 27.0], [12.0, 18.0], [6.0, 6.0])


def test_derivatives_of_any_order_read_what_a_hook_unpacks():
    x = leaf([2.0, 3.0])
    with tg.autograd.graph.saved_tensors_hooks(lambda t: t * 10, lambda t: t):
        y = (x * x).sum()
    (slope,) = tg.autograd.grad(y, x, create_graph=True)
    assert slope.tolist() == [40.0, 60.0]
    assert tg.autograd.grad(slope.sum(), x)[0].tolist() == [2.0, 2.0]


def test_function_with_wrong_number_of_gradients():
    class Wrong(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, grad):
            return grad

    with pytest.raises(RuntimeError, match="returned 1 gradients, forward took 2"):
        Wrong.apply(leaf(1.0), leaf(1.0)).backward()


def test_functional_against_closed_forms():
    a = tg.tensor([[2.0, 1.0], [0.5, 3.0]], dtype=tg.float64)
    x = tg.tensor([1.0, -2.0], dtype=tg.float64)

    def quadratic(v):
        return (v * (a @ v)).sum()

    both = a + a.t()
    np.testing.assert_allclose(functional.hessian(quadratic, x).tolist(), both.tolist())
    np.testing.assert_allclose(functional.jacobian(lambda v: a @ v, x).tolist(), a.tolist())
    v = tg.tensor([0.5, 2.0], dtype=tg.float64)
    np.testing.assert_allclose(functional.vjp(lambda t: a @ t, x, v)[1].tolist(), (a.t() @ v).tolist())
    np.testing.assert_allclose(functional.jvp(lambda t: a @ t, x, v)[1].tolist(), (a @ v).tolist())
    for product in (functional.hvp, functional.vhp):
        np.testing.assert_allclose(product(quadratic, x, v)[1].tolist(), (both @ v).tolist())


def test_functional_with_several_inputs_and_strict():
    x, y = tg.tensor([1.0, 2.0]), tg.tensor([3.0])
    rows = functional.jacobian(lambda a, b: a * b, (x, y))
    assert rows[0].tolist() == [[3.0, 0.0], [0.0, 3.0]] and rows[1].tolist() == [[1.0], [2.0]]
    with pytest.raises(RuntimeError, match="strict"):
        functional.jacobian(lambda a, b: a * 2, (x, y), strict=True)


def test_gradcheck_finds_a_wrong_gradient():
    class Wrong(Cube):
        @staticmethod
        def backward(ctx, grad):
            return 3.01 * ctx.saved_tensors[0] ** 2 * grad

    x = leaf([1.0, 2.0])
    assert tg.autograd.gradcheck(Wrong.apply, x, raise_exception=False) is False
    with pytest.raises(RuntimeError, match="central differences"):
        tg.autograd.gradcheck(Wrong.apply, x)
    with pytest.raises(ValueError, match="float64"):
        tg.autograd.gradcheck(Cube.apply, tg.ones(1, requires_grad=True))


def test_anomaly_names_the_line_that_made_the_nan():
    x = leaf([0.0, 1.0])
    with tg.autograd.detect_anomaly():
        root = (x * 1.0).sqrt()  # the root of the trouble
        loss = (root * tg.tensor([0.0, 1.0], dtype=tg.float64)).sum()
        with pytest.raises(RuntimeError, match=r"SqrtBackward0 gave NaN.*test_autograd\.py:\d+.*root of the trouble"):
            loss.backward()
    assert not tg.autograd.is_anomaly_enabled()


def test_saved_tensors_hooks_pack_and_unpack():
    packed = []

    def pack(tensor):
        packed.append(tuple(tensor.shape))
        return tensor.numpy().copy()

    x = leaf([2.0, 3.0])
    with tg.autograd.graph.saved_tensors_hooks(pack, tg.from_numpy):
        y = (x.exp() * x).sum()
    y.backward()
    assert packed
    np.testing.assert_allclose(x.grad.tolist(), [np.exp(2) * 3, np.exp(3) * 4])
    with tg.autograd.graph.save_on_cpu():
        z = (x * x).sum()
    z.backward()


def test_checkpoint_gives_the_gradients_of_a_plain_call():
    w = leaf([[0.3, -0.2], [0.1, 0.4]])
    x = leaf([1.0, 2.0])

    def block(t):
        return (w @ t).tanh() * t

    runs = []

    def counted(t):
        runs.append(1)
        return block(t)

    plain = tg.autograd.grad(block(x).sum(), [w, x])
    saved = tg.autograd.grad(checkpoint(counted, x, use_reentrant=False).sum(), [w, x])
    assert len(runs) == 2
    for a, b in zip(plain, saved, strict=True):
        assert a.tolist() == b.tolist()
    assert tg.autograd.gradgradcheck(lambda t: checkpoint(block, t), x)
    out = checkpoint_sequential([block, block, block], 2, x)
    np.testing.assert_allclose(out.tolist(), block(block(block(x))).tolist())


def test_checkpoint_draws_the_same_random_numbers_again():
    x = leaf(np.ones(1000))
    tg.manual_seed(3)
    y = checkpoint(lambda t: tg.nn.functional.dropout(t, 0.5) * t, x)
    y.sum().backward()
    # d/dt (m t * t) = 2 m t: the mask of the second run must be that of the first
    np.testing.assert_allclose(x.grad.tolist(), (2 * y).tolist())


def test_checkpoint_refuses_changed_arguments_and_other_operations():
    x = leaf([1.0])
    y = x * 1.0
    out = checkpoint(lambda t: t.exp() * t, y)
    y.add_(1.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        out.backward()
    flips = iter([True, False])
    out = checkpoint(lambda t: t.exp().sin() * t if next(flips) else t * 2.0, x)
    with pytest.raises(RuntimeError, match="same operations"):
        out.backward()


def test_checkpointing_takes_the_options_of_pytorch():
    from contextlib import contextmanager

    from tensorgrad.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential

    seen = []

    @contextmanager
    def noted(what):
        seen.append(what)
        yield

    x = tg.randn(3, requires_grad=True)
    plain = (x.exp() * 2).sin().sum()
    (want,) = tg.autograd.grad(plain, x)
    for options in (
        {"use_reentrant": True}, {"use_reentrant": False, "context_fn": lambda: (noted("first"), noted("second"))},
        {"determinism_check": "none", "preserve_rng_state": False, "early_stop": False},
    ):  # fmt: skip
        out = checkpoint(lambda t, scale: (t.exp() * scale).sin(), x, scale=2, **options)
        assert tg.autograd.grad(out.sum(), x)[0].tolist() == want.tolist()
    assert seen == ["first", "second"]
    decorated = checkpoint(use_reentrant=False)(lambda t, scale=2: (t.exp() * scale).sin())
    assert tg.autograd.grad(decorated(x, scale=2).sum(), x)[0].tolist() == want.tolist()
    chain = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.Tanh(), tg.nn.Linear(3, 2))
    got = tg.autograd.grad(checkpoint_sequential(chain, 2, x, use_reentrant=False).sum(), chain.parameters())
    assert [g.tolist() for g in got] == [g.tolist() for g in tg.autograd.grad(chain(x).sum(), chain.parameters())]
    with pytest.raises(ValueError, match="Unexpected keyword"):
        checkpoint_sequential(chain, 2, x, colour=1)
    for bad in ({"debug": True}, {"determinism_check": "some"}):
        with pytest.raises(ValueError):
            checkpoint(lambda t: t, x, **bad)
    shapes = iter([3, 2])
    out = checkpoint(lambda t: (t[: next(shapes)] ** 2).exp().sum(), x)
    with pytest.raises(CheckpointError, match="different metadata"):
        out.backward()


def test_gradcheck_sees_what_pytorch_s_sees():
    x = tg.rand(3, dtype=tg.float64, requires_grad=True)
    assert tg.autograd.gradcheck(lambda a: (a.sin(), a * 2), x, check_grad_dtypes=True, check_batched_grad=True)
    assert tg.autograd.gradgradcheck(lambda a: a**3, x, gen_non_contig_grad_outputs=True, check_batched_grad=True)
    calls = []

    class Unsteady(tg.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            return a * 2

        @staticmethod
        def backward(ctx, g):
            calls.append(1)
            return g * 2 + 1e-9 * len(calls)

    assert not tg.autograd.gradcheck(Unsteady.apply, x, raise_exception=False)
    assert tg.autograd.gradcheck(Unsteady.apply, x, nondet_tol=1e-6, fast_mode=True)
    for wrong in ({"check_forward_ad": True}, {"check_backward_ad": False}, {"masked": True}):
        with pytest.raises(ValueError):
            tg.autograd.gradcheck(tg.sin, x, **wrong)
