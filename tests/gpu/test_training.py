"""A training run on device ``cuda``: the same losses as on the CPU, and nothing hidden that crosses over."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.backends import registry
from tensorgrad.testing.strict_array import traffic
from tensorgrad.testing.strict_backend import strict_cuda


def network() -> Any:
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25),
        nn.Linear(64, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3),
    )  # fmt: skip


def losses(device: str, make: Any, steps: int = 5) -> list[float]:
    model = network().to(device)
    optimizer = make(model.parameters())
    rng = np.random.default_rng(0)
    seen = []
    for step in range(steps):
        x = tg.tensor(rng.normal(size=(6, 1, 8, 8)).astype(np.float32)).to(device)
        target = tg.tensor(rng.integers(0, 3, 6)).to(device)
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.step()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4),
        lambda parameters: optim.AdamW(parameters, lr=0.01),
        lambda parameters: optim.RMSprop(parameters, lr=0.01, momentum=0.9, centered=True, weight_decay=1e-4),
        lambda parameters: optim.RAdam(parameters, lr=0.01),
        lambda parameters: optim.Adafactor(parameters, lr=0.01, weight_decay=0.1),
        lambda parameters: optim.Muon([p for p in parameters if p.ndim == 2], lr=0.01),
    ],
    ids=["sgd", "adamw", "rmsprop", "radam", "adafactor", "muon"],
)
def test_the_losses_are_those_of_the_cpu(make: Any) -> None:
    with registry.backend("numpy"):
        want = losses("cpu", make)
    with registry.backend("numpy"), strict_cuda() if registry.class_of("cupy").why_not() is not None else nullcontext():
        got = losses("cuda", make)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert want[-1] != want[0]


def test_a_step_without_indices_never_waits_for_the_device() -> None:
    with registry.backend("numpy"), strict_cuda():
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 1)).to("cuda")
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        x, y = tg.randn(4, 8, device="cuda"), tg.randn(4, 1, device="cuda")
        for step in range(3):
            before = traffic.downloads
            loss = ((model(x) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert traffic.downloads == before or step == 0, "a step fetched something from the device"
