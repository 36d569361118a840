"""The blocks that programs run in: one while nobody holds what it lent, others beside it, and nothing is
overwritten."""

from __future__ import annotations

import gc
import weakref

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.utils._pytree import tree_map

pytestmark = pytest.mark.skipif(registry.class_of("cpp").why_not() is not None, reason="the extension is not built")


@pytest.fixture(autouse=True)
def _cpp():
    with tg.backend("cpp"):
        yield


def training_step(width, **settings):
    """A model, and a step of SGD on it with these settings (without a rate, no step: the gradients alone), compiled."""
    model = nn.Linear(width, width)
    optimizer = tg.optim.SGD(model.parameters(), **settings) if settings else None

    def step(x):
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        return loss

    return model, tg.compile(step)


def falls(losses):
    return losses == sorted(losses, reverse=True) and len(set(losses)) == len(losses)


def test_a_training_step_needs_one_block():
    _, step = training_step(64, lr=0.01)
    losses = [step(tg.ones(8, 64)).detach() for _ in range(8)]  # kept, as a training loop does
    assert step.entries[0].run.shelf.made == 1
    assert falls([loss.item() for loss in losses])


def test_a_training_step_is_replayed_without_python(monkeypatch):
    model, step = training_step(64, lr=0.01, momentum=0.9)
    x = tg.ones(8, 64)
    losses = [step(x).item() for _ in range(3)]
    (entry,) = step.entries
    in_python = []
    replay = entry.replay
    monkeypatch.setattr(entry, "replay", lambda tensors: in_python.append(len(losses)) or replay(tensors))
    for _ in range(4):
        losses.append(step(x).item())
    assert in_python == []
    # somebody holds the gradients, which lie in the only block: the program runs in another, and loses none of them
    kept = [p.grad for p in model.parameters()]
    before = [g.tolist() for g in kept]
    losses += [step(x).item() for _ in range(3)]
    assert in_python == [7] and entry.run.shelf.made == 2
    assert [g.tolist() for g in kept] == before and all(p.grad is not None for p in model.parameters())
    assert falls(losses)


def test_large_results_that_are_kept_are_copied_in_the_end():
    f = tg.compile(lambda x: x * 2 + 1)
    kept = [f(tg.full((64, 64), float(i))) for i in range(8)]
    assert [k[0, 0].item() for k in kept] == [2.0 * i + 1 for i in range(8)]
    assert f.entries[0].run.shelf.made <= 2
    views = [f(tg.full((64, 64), float(i)))[3] for i in range(6)]
    assert [v[0].item() for v in views] == [2.0 * i + 1 for i in range(6)]
    arrays = [f(tg.full((64, 64), float(i))).numpy() for i in range(6)]
    assert [a[0, 0] for a in arrays] == [2.0 * i + 1 for i in range(6)]


def test_a_forward_pass_waits_for_its_backward_pass_beside_others():
    model = nn.Linear(64, 64)
    f = tg.compile(model)
    results = [f(tg.full((8, 64), float(i))) for i in range(4)]
    for i, y in enumerate(results):
        model.zero_grad()
        y.sum().backward()
        assert model.weight.grad[0, 0].item() == 8.0 * i
    del results, y
    made = f._compiled.entries[0].shelf.made
    for i in range(4):
        model.zero_grad()
        f(tg.full((8, 64), float(i))).sum().backward()
    assert f._compiled.entries[0].shelf.made == made <= 4


def test_gradients_are_handed_on_as_they_are():
    model = nn.Linear(64, 64)
    f = tg.compile(model)
    for _ in range(3):
        model.zero_grad()
        f(tg.ones(8, 64)).sum().backward()
    grad = model.weight.grad
    assert grad.numpy().base is not None and not isinstance(grad.numpy().base, type(grad.numpy()))
    f(tg.ones(8, 64)).sum().backward()  # added to what is there
    assert grad is model.weight.grad and grad[0, 0].item() == 16.0


def test_an_array_that_somebody_has_changed_is_lent_no_more():
    """Gradients are the same arrays in each step: one that was made read-only, and let go, stays with nobody."""
    model, step = training_step(4)
    x = tg.ones(2, 4)
    for _ in range(3):
        step(x)
    expected = model.weight.grad.tolist()
    model.weight.grad._data.setflags(write=False)
    for _ in range(3):
        step(x)
        assert model.weight.grad._data.flags.writeable
        model.weight.grad.mul_(2)
        assert model.weight.grad.tolist() == [[2 * g for g in row] for row in expected]


@pytest.mark.parametrize(
    "keep",
    (lambda g: g, lambda g: g._data, lambda g: g._data[1:], lambda g: g.detach()[1:]),
    ids=("tensor", "array", "view of the array", "view"),
)
def test_a_gradient_that_is_kept_is_not_overwritten(keep):
    model, step = training_step(4)
    for _ in range(4):
        step(tg.ones(2, 4))
    kept = keep(model.weight.grad)
    before = kept.tolist()
    for _ in range(3):
        step(tg.zeros(2, 4))
    assert kept.tolist() == before != model.weight.grad.tolist()


def test_results_in_containers_wait_for_no_collector():
    """They would hold their block until it runs: each call would copy its results into memory that is new each time."""
    x = tg.randn(64, 64)
    step = tg.compile(lambda: {"double": x * 2, "both": (x + 1, [x - 1])})
    gc.disable()
    try:
        for _ in range(6):
            step()
        assert step.entries[0].run.shelf.made == 1
        gone = weakref.ref(tree_map(lambda t: t.clone(), [x])[0])
        assert gone() is None
    finally:
        gc.enable()
