"""Programs of arrays on ``cuda``, here a strict stand-in: Python replays them, with eager's results to the bit."""

from __future__ import annotations

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.nn import functional as F
from tensorgrad.testing.strict_backend import strict_cuda


def outcome(compiled):
    tg.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 3)
    ).to("cuda")
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step, whole = (tg.compile(step), tg.compile(model)) if compiled else (step, model)
    seen = []
    for i in range(5):
        tg.manual_seed(i)
        seen.append(step(tg.randn(8, 1, 8, 8, device="cuda"), tg.randint(0, 3, (8,), device="cuda")).item())
    for i in range(3):
        tg.manual_seed(i)
        x = tg.randn(8, 1, 8, 8, device="cuda", requires_grad=True)
        whole(x).square().sum().backward()
        seen.append(x.grad.tolist())
    counts = (step.stats()["captures"], whole.stats()["captures"]) if compiled else (2, 1)
    return seen, [p.tolist() for p in model.parameters()], counts


def test_a_step_and_a_model():
    with strict_cuda():
        assert outcome(True) == outcome(False)
