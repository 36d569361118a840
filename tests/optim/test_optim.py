"""Optimizers and schedules beside PyTorch's, step by step; state that goes out and comes back."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]
SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "maximize": True}),
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    ("AdamW", {"lr": 0.02, "maximize": True}),
]


def losses(lib, name, settings, steps=20):
    rng = np.random.default_rng(0)
    w = lib.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    b = lib.tensor(rng.standard_normal(3), requires_grad=True)
    x = lib.tensor(rng.standard_normal((8, 4)))
    optimizer = getattr(lib.optim, name)([w, b], **settings)
    schedule = lib.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((x @ w + b).tanh() ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen.append(loss.item())
    return seen, optimizer


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, settings", SETTINGS)
def test_twenty_steps_are_those_of_pytorch(name, settings, backend):
    torch = pytest.importorskip("torch")
    with tg.backend(backend):
        mine, _ = losses(tg, name, settings)
    theirs, _ = losses(torch, name, settings)
    np.testing.assert_allclose(mine, theirs, rtol=1e-9)


@pytest.mark.parametrize("name, settings", SETTINGS[1:])
def test_state_dict_continues_the_run(name, settings):
    def make():
        w = tg.tensor([1.0, -2.0], dtype=tg.float64, requires_grad=True)
        return w, getattr(tg.optim, name)([w], **settings)

    def step(w, optimizer):
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()

    w, optimizer = make()
    for _ in range(3):
        step(w, optimizer)
    again, other = make()
    with tg.no_grad():
        again.copy_(w)
    other.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        step(w, optimizer)
        step(again, other)
    assert again.tolist() == w.tolist()


def test_a_step_is_noticed_by_what_was_saved():
    w = tg.tensor([1.0], requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_clipping_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    results = []
    for lib in (tg, torch):
        p = lib.tensor([3.0, 4.0], requires_grad=True)
        (p * p).sum().backward()
        total = lib.nn.utils.clip_grad_norm_([p], 1.0)
        results.append((float(total), p.grad.tolist()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)


def test_bad_settings_are_refused():
    w = nn.Parameter(tg.ones(2))
    for make in (
        lambda: tg.optim.SGD([w], lr=-1.0),
        lambda: tg.optim.Adam([w], betas=(1.5, 0.9)),
        lambda: tg.optim.SGD([], lr=0.1),
    ):
        with pytest.raises(ValueError):
            make()
    with pytest.raises(TypeError):
        tg.optim.SGD(w, lr=0.1)
