"""Compiled functions that tell modules to train, or not to, as the steps of a script do: replays tell them too."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tests.compiler.beside import BACKENDS, beside

F = nn.functional
OPTIONS: list[dict[str, Any]] = [{}, {"fallback": True}, {"dynamic": True}]


def network() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))


def modes(model: Any) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_and_an_evaluation_by_turns(backend: str, options: Any) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = network()
        optimizer = tg.optim.Adam(model.parameters(), lr=1e-2)

        @compiled
        def train_step(x: Any, y: Any) -> Any:
            model.train()
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        @compiled
        def eval_step(x: Any, y: Any) -> Any:
            model.eval()
            with tg.no_grad():
                return F.mse_loss(model(x), y)

        for i in range(16):
            x, y = tg.randn((16, 16, 12, 10)[i % 4], 4), tg.randn((16, 16, 12, 10)[i % 4], 1)
            show(train_step(x, y), modes(model))
            if i % 3:
                show(eval_step(x, y), modes(model))
            if i % 5 == 4:
                show(eval_step(x, y), modes(model))

    for step in beside(script, backend, **options):
        stats = step.stats()
        assert stats["replays"] >= 5 and not stats["reasons"], stats


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mode_that_some_modules_keep(backend: str, options: Any) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = network(), nn.Dropout(0.5)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self.inner[1].eval()
            return self

        def forward(self, x: Any) -> Any:
            return self.outer(self.inner(x))

    def script(compiled: Any, show: Any) -> None:
        model = Frozen().train()

        @compiled
        def predict(x: Any, training: bool) -> Any:
            before = model.training
            model.train(training)
            found = model(x) + (1 if before else 0)
            return found.detach()

        for training in (True, False, False, True, True, False, True, False, False, True):
            show(predict(tg.randn(6, 4), training), modes(model))

    [predict] = beside(script, backend, **options)
    assert predict.stats()["programs"] == 4 and predict.stats()["replays"] == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_function_that_sets_the_mode(backend: str) -> None:
    """Its backward pass, once more differentiated, is that of a run in the mode it began with."""

    def script(compiled: Any, show: Any) -> None:
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Tanh(), nn.Linear(8, 1))

        @compiled
        def loss_of(x: Any) -> Any:
            scale = 2.0 if model.training else 3.0
            model.train(not model.training)
            return model(x).square().mean() * scale

        for _ in range(6):
            x = tg.randn(6, 4, requires_grad=True)
            loss = loss_of(x)
            [g] = tg.autograd.grad(loss, x, create_graph=True)
            show(loss, g, modes(model))
            g.square().sum().backward()
            show(x.grad, modes(model), *[p.grad for p in model.parameters()])

    [loss_of] = beside(script, backend)
    assert loss_of.stats()["replays"] == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_that_raises_has_set_the_mode(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = nn.Sequential(nn.Embedding(5, 3), nn.Dropout(0.5))

        @compiled
        def looked_up(index: Any) -> Any:
            model.eval()
            with tg.no_grad():
                return model(index)

        for i in range(4):
            model.train()
            show(looked_up(tg.tensor([i, 1])), modes(model))
        model.train()
        with pytest.raises(IndexError):
            looked_up(tg.tensor([7, 1]))
        show(modes(model))

    [looked_up] = beside(script, backend)
    assert looked_up.stats()["captures"] == 1


def test_what_else_changes_is_refused_as_before() -> None:
    model = network()
    model.calls = 0

    @tg.compile
    def counted(x: Any) -> Any:
        model.train(not model.training)
        model.calls += 1
        return model(x)

    with pytest.raises(tg.errors.CompileError, match=r"model\.calls was 2 and is 3"):
        for _ in range(3):
            counted(tg.ones(4, 4))


def test_eval_of_a_module_is_not_the_built_in() -> None:
    """Which may read any global, and any attribute of what is there."""
    model = network()
    unread = tg.ones(2)
    noted = {"unread": unread}

    @tg.compile
    def predict(x: Any) -> Any:
        model.eval()
        return model(x).detach()

    globals()["_unread"] = noted
    try:
        for _ in range(3):
            predict(tg.ones(4, 4))
            noted["unread"] = tg.ones(2)
        assert predict.stats()["captures"] == 2  # of a model that trains, and of one that does not
    finally:
        del globals()["_unread"]


@pytest.mark.parametrize(
    ("name", "given"),
    [("fullgraph", "yes"), ("fullgraph", None), ("disable", "no"), ("fallback", 1), ("dynamic", 1),
     ("dynamic", "auto"), ("options", ["limit"])],
)  # fmt: skip
def test_a_switch_that_is_none_says_what_is_valid(name, given):
    valid = "None or a dict" if name == "options" else "True or False"
    with pytest.raises(TypeError, match=f"compile: {name} must be .*{valid}, got"):
        tg.compile(**{name: given})
