"""The usual call of a compiled function, which C makes: nobody can see what it uses again, and what it does not serve
is Python's."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.core import native
from tensorgrad.errors import AutogradError

BACKENDS = [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with tg.backend(request.param):
        yield request.param


def a_step(**options):
    """A model, and its step of SGD, compiled and past the first calls."""
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1, **options)

    @tg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = tg.ones(3, 4), tg.zeros(3, 1)
    for _ in range(4):
        step(x, y)
    assert step.replays >= 2
    return model, optimizer, step, (x, y)


def test_a_gradient_that_somebody_holds_stays_as_it_is():
    model, _, step, batch = a_step(momentum=0.9)
    held = [p.grad for p in model.parameters()]
    values = [g.numpy().copy() for g in held]
    for _ in range(3):
        step(*batch)
    for p, g, value in zip(model.parameters(), held, values, strict=True):
        assert p.grad is not g
        assert np.array_equal(g.numpy(), value)


@pytest.mark.parametrize(
    "touch",
    [
        lambda g: setattr(g, "note", 1), lambda g: g.requires_grad_(),
        lambda g: g.requires_grad_().register_hook(print), lambda g: g.zero_(), lambda g: g.grad_fn,
        lambda g: setattr(g, "grad", tg.zeros_like(g)),
    ],
    ids=["attribute", "requires_grad", "hook", "in place", "looked at", "gradient"],
)  # fmt: skip
def test_what_was_done_to_a_gradient_is_gone_with_it(touch):
    model, _, step, batch = a_step()
    for p in model.parameters():
        touch(p.grad)
    step(*batch)
    for p in model.parameters():
        g = p.grad
        assert (g.requires_grad, g.grad_fn, g.grad, g._version, vars(g)) == (False, None, None, 0, {})
        assert float(g.abs().sum()) > 0 or not p.ndim


def test_a_weak_reference_to_a_gradient_ends_with_the_next_step():
    model, _, step, batch = a_step()
    seen = [weakref.ref(p.grad) for p in model.parameters()]
    step(*batch)
    gc.collect()
    assert [one() for one in seen] == [None] * 4


def test_gradients_that_are_gone_are_made_anew():
    model, _, step, batch = a_step()
    first = next(model.parameters())
    first.grad = None
    step(*batch)
    assert first.grad.shape == first.shape


def test_results_of_a_freed_graph_say_so_in_each_call():
    _, _, step, batch = a_step()
    for _ in range(3):
        loss = step(*batch)
        assert loss.requires_grad
        with pytest.raises(AutogradError, match="second time"):
            loss.backward()


def test_an_error_of_the_first_entry_reaches_the_caller_and_the_next_call_is_served():
    table = tg.arange(5.0)
    look = tg.compile(lambda i: table[i] * 2)
    good = tg.tensor([1, 2])
    look(good), look(good)
    with pytest.raises(IndexError, match="7"):
        look(tg.tensor([1, 7]))
    assert look(good).tolist() == [2.0, 4.0]


def test_arguments_by_name_and_of_other_forms():
    compiled = tg.compile(lambda x, k=2, *, y: x * k + y)
    x, y = tg.ones(3), tg.arange(3.0)
    for _ in range(3):
        assert compiled(x, y=y).tolist() == [2.0, 3.0, 4.0]
        assert compiled(x, 3, y=y).tolist() == [3.0, 4.0, 5.0]
        assert compiled(y=y, x=x).tolist() == [2.0, 3.0, 4.0]
        assert compiled(tg.ones(2, 3), y=y).tolist() == [[2.0, 3.0, 4.0]] * 2
    assert (compiled.captures, compiled.replays) == (4, 8)
    with pytest.raises(TypeError):
        compiled(x)


def test_a_compiled_function_is_an_object_like_others():
    compiled = tg.compile(nn.functional.relu)
    assert weakref.ref(compiled)() is compiled
    again = pickle.loads(pickle.dumps(compiled))
    assert again(tg.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
    ring = tg.compile(lambda x: x + 1)
    ring.itself = ring  # a cycle, for the collector
    ring(tg.ones(2))
    seen = weakref.ref(ring)
    del ring
    gc.collect()
    assert seen() is None


def test_rates_are_read_anew_in_each_step():
    """lr, momentum, dampening and decay; the first step of a fresh buffer has no dampening."""
    runs = []
    for compiles in (False, True):
        tg.manual_seed(1)
        weight = nn.Parameter(tg.randn(5))
        optimizer = tg.optim.SGD([weight], lr=0.5, momentum=0.9, dampening=0.3, weight_decay=0.1)

        def step(x, weight=weight, optimizer=optimizer):
            optimizer.zero_grad()
            (weight * x).sum().backward()
            optimizer.step()

        run = tg.compile(step) if compiles else step
        losses = []
        for i in range(12):
            group = optimizer.param_groups[0]
            group["lr"] = 0.5 / (1 + i // 3)
            if i == 5:
                group["momentum"], group["weight_decay"] = 0.5, 0
            if i == 8:
                group["lr"] = tg.tensor(0.25)
            run(tg.arange(5.0))
            losses.append(weight.detach().numpy().copy())
        runs.append(losses)
    assert np.allclose(runs[0], runs[1], rtol=1e-6)


def test_a_subclass_brings_its_own_numbers():
    class Halved(tg.optim.SGD):
        def _refresh(self, group, bucket):
            super()._refresh(group, bucket)
            bucket.hyper[0] /= 2

    weights = []
    for kind, lr in ((Halved, 0.2), (tg.optim.SGD, 0.1)):
        weight = nn.Parameter(tg.ones(3))
        optimizer = kind([weight], lr=lr)
        for _ in range(3):
            optimizer.zero_grad()
            (weight * weight).sum().backward()
            optimizer.step()
        weights.append(weight.tolist())
    assert weights[0] == weights[1]


@pytest.mark.skipif(native is None, reason="the extension is not built")
@pytest.mark.parametrize(
    "args",
    [
        (np.zeros(2, np.float32), {}, ("lr",), False, "x"), (np.zeros(3), {}, ("lr",), False, "x"),
        (np.zeros((1, 2)), {}, ("lr",), False, "x"), (np.zeros(4)[::2], {}, ("lr",), False, "x"),
        ([0.0, 0.0], {}, ("lr",), False, "x"), (np.zeros(2), [], ("lr",), False, "x"), (np.zeros(2),),
    ],
    ids=["float32", "too long", "of two dimensions", "strided", "a list", "no settings", "too few"],
)  # fmt: skip
def test_numbers_go_to_an_array_that_has_room_for_them(args):
    with pytest.raises(TypeError):
        native.Numbers(*args)


@pytest.mark.skipif(native is None, reason="the extension is not built")
def test_numbers_that_are_none_raise():
    array = np.zeros(2)
    write = native.Numbers(array, {"lr": "fast"}, ("lr",), True, "SGD._refresh")
    with pytest.raises(TypeError):
        write()
    with pytest.raises(KeyError, match="lr"):
        native.Numbers(array, {}, ("lr",), True, "x")()
    with pytest.raises(TypeError, match=r"SGD\._refresh"):
        write(1)
