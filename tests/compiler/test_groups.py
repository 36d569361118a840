"""Updates of several groups in one call."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tests.compiler.beside import BACKENDS, beside

nn, F = tg.nn, tg.nn.functional


def two_groups(model: Any, **more: Any) -> list[dict[str, Any]]:
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": weights, "weight_decay": 0.1}, {"params": biases, "lr": 0.02, **more}]


def training(make: Any, steps: int = 12) -> Any:
    def script(compiled: Any, show: Any) -> None:
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizers = make(model)
        x, y = tg.randn(6, 4), tg.randn(6, 2)

        @compiled
        def step(x: Any, y: Any) -> Any:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            return loss.detach()

        for i in range(steps):
            if i == steps // 2:
                optimizers[0].param_groups[0]["lr"] *= 0.5
                optimizers[-1].param_groups[-1]["weight_decay"] = 0.01
            show(step(x, y))
        show(list(model.parameters()))

    return script


def layers(model: Any) -> list[Any]:
    return [model[0], model[2], model[4]]


# what makes the optimizers, the calls that are left of their steps
ROWS = {
    "adamw": (lambda m: [tg.optim.AdamW(two_groups(m), lr=0.01)], ["grouped_adam_"]),
    "adam amsgrad": (lambda m: [tg.optim.Adam(two_groups(m), lr=0.01, amsgrad=True)], ["grouped_adam_"]),
    "sgd": (lambda m: [tg.optim.SGD(two_groups(m), lr=0.1)], ["grouped_sgd_"]),
    "sgd momentum": (lambda m: [tg.optim.SGD(two_groups(m), lr=0.1, momentum=0.9, nesterov=True)], ["grouped_sgd_"]),
    "three groups": (
        lambda m: [tg.optim.Adam([{"params": list(one.parameters()), "lr": 0.01 * (1 + i)} for i, one in
                                  enumerate(layers(m))])],
        ["grouped_adam_"],
    ),
    "two optimizers": (
        lambda m: [tg.optim.SGD(m[0].parameters(), lr=0.1), tg.optim.SGD([*m[2].parameters(), *m[4].parameters()],
                                                                        lr=0.2)],
        ["grouped_sgd_"],
    ),
    "clipped": (lambda m: [tg.optim.AdamW(two_groups(m), lr=0.01, max_grad_norm=0.5)], ["grouped_adam_"]),
    "of one group the factor": (
        lambda m: [tg.optim.AdamW(two_groups(m, max_grad_norm=0.1), lr=0.01)], ["grouped_adam_"]),
    "other flags": (
        lambda m: [tg.optim.SGD(two_groups(m, nesterov=True), lr=0.1, momentum=0.9)], ["sgd_", "sgd_"]),
    "momentum in one": (lambda m: [tg.optim.SGD(two_groups(m, momentum=0.9), lr=0.1)], ["sgd_", "sgd_"]),
    "other optimizers": (
        lambda m: [tg.optim.SGD(m[0].parameters(), lr=0.1), tg.optim.Adam(m[2].parameters(), lr=0.01)],
        ["sgd_", "adam_"],
    ),
    "the same twice": (
        lambda m: [tg.optim.SGD(m.parameters(), lr=0.1), tg.optim.SGD(m.parameters(), lr=0.2)], ["sgd_", "sgd_"]),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ROWS)
def test_updates_of_groups_are_one_call_with_the_same_bits(name: str, backend: str) -> None:
    make, expected = ROWS[name]
    [one] = beside(training(make), backend, exact=True)
    assert one.stats()["replays"] >= 9, one.stats()
    steps = [call.op.name for call in one.programs[0].calls if call.part == "optimizer"]
    assert [name for name in steps if name.endswith(("sgd_", "adam_"))] == expected
    assert ("groups are one call" in one.explain()) == any("grouped" in name for name in expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_of_two_dtypes_are_two_calls(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        a, b, c = (nn.Linear(3, 3) for _ in range(3))
        b.double()
        optimizer = tg.optim.SGD([{"params": list(m.parameters())} for m in (a, b, c)], lr=0.1)
        x = tg.randn(2, 3)

        @compiled
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (a(x).square().mean() + b(x.double()).square().mean() + c(x).square().mean()).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        for _ in range(5):
            show(step(x))

    [one] = beside(script, backend, exact=True)
    names = [call.op.name for call in one.programs[0].calls if call.part == "optimizer"]
    assert names.count("sgd_") == 3


@pytest.mark.skipif("cpp" not in BACKENDS, reason="the C++ backend isn't built")
def test_kernels_say_what_does_not_fit() -> None:
    with tg.backend("cpp") as backend:
        c = tg.backends.registry.on_device("cpu").c
        arrays = [tg.zeros(3).numpy() for _ in range(6)]
        hyper = tg.zeros(5, dtype=tg.float64).numpy()
        how = {"scales": [None, None], "nesterov": False, "maximize": False}
        del backend
        with pytest.raises(ValueError, match="counts add up to 3"):
            c.grouped_sgd_(arrays[:2], arrays[2:4], [], counts=[1, 2], hypers=[hyper, hyper], **how)
        with pytest.raises(ValueError, match="of one length"):
            c.grouped_sgd_(arrays[:2], arrays[2:4], [], counts=[1, 1], hypers=[hyper], **how)
        with pytest.raises(ValueError, match="is negative"):
            c.grouped_sgd_(arrays[:2], arrays[2:4], [], counts=[3, -1], hypers=[hyper, hyper], **how)
