"""dynamic=True: two sizes of a batch make one program, and further sizes run no Python."""

from __future__ import annotations

import copy

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.nn import functional as F

BACKENDS = [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None]
SIZES = (16, 16, 16, 8, 8, 5, 7, 16, 2, 1, 1, 5, 33)


def network():
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * 36, 5)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_of_any_batch(backend):
    with tg.backend(backend):
        runs = []
        for compiled in (False, True):
            model = network()
            optimizer = tg.optim.Adam(model.parameters(), lr=1e-3)
            count = [0]

            def step(x, y, model=model, optimizer=optimizer):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                return loss

            f = tg.compile(step, dynamic=True) if compiled else step
            losses = []
            for n in SIZES:
                tg.manual_seed(n)
                losses.append(f(tg.randn(n, 1, 8, 8), tg.randint(0, 5, (n,))).item())
            runs.append((losses, [p.tolist() for p in model.parameters()]))
            del count
        assert runs[0] == runs[1]
        stats = f.stats()
        # the optimizer's first step, one program of 16, one of 8 that shows the family, one of 1 beside it
        assert stats["captures"] == 4 and stats["programs"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_and_its_gradients_of_any_batch(backend):
    with tg.backend(backend):
        model = network()
        other = copy.deepcopy(model)
        compiled = tg.compile(model, dynamic=True)
        for n in (16, 8, 5, 7, 16, 2, 33):
            tg.manual_seed(n)
            x = tg.randn(n, 1, 8, 8)
            tg.manual_seed(n)
            expected = other(x)
            tg.manual_seed(n)
            found = compiled(x)
            assert found.tolist() == expected.tolist()
            found.square().sum().backward()
            expected.square().sum().backward()
            for p, q in zip(model.parameters(), other.parameters(), strict=True):
                assert p.grad.tolist() == q.grad.tolist()
        assert compiled.stats()["captures"] == 2 and compiled.stats()["programs"] == 1


def test_what_follows_from_the_size_in_another_way_is_captured_for_each():
    f = tg.compile(lambda x: x * x.shape[0] ** 2, dynamic=True)
    for n in (3, 4, 5, 6):
        assert f(tg.ones(n)).tolist() == [float(n * n)] * n
    assert f.stats()["captures"] == 4


def test_without_it_every_size_is_a_program():
    f = tg.compile(lambda x: (x + 1).mean())
    for n in (3, 4, 5, 3, 4, 5):
        assert f(tg.ones(n)).item() == 2.0
    assert f.stats()["captures"] == 3 == f.stats()["programs"]
