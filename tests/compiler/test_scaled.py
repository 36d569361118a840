"""Training steps with a ``GradScaler`` as one program: eager's bits, through steps whose gradients are not finite."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.dispatch import unless
from tensorgrad.errors import CompileError
from tensorgrad.testing.strict_array import no_traffic, traffic
from tensorgrad.testing.strict_backend import strict_cuda
from tests.compiler.beside import BACKENDS, beside
from tests.compiler.test_optimizers import LONG, SETTINGS, label, model_for

F = nn.functional
INFINITE = frozenset((0, 1, 6, 7, 11, 17, 60, 61, 62, 150))  # steps that are skipped, the first two among them


def batches(count: int, size: int = 5, at: frozenset[int] = INFINITE) -> list[Any]:
    """Inputs, targets, and what makes the gradient infinite in some steps."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return tg.tensor(rng.normal(size=shape).astype(np.float32))

    return [(draw(size, 4), draw(size, 2), tg.tensor(float("inf") if i in at else 0.0)) for i in range(count)]


def loss_of(model: Any, x: Any, y: Any, poison: Any) -> Any:
    return F.mse_loss(model(x), y) + (model[0].weight.abs() * poison).sum()


def states(optimizer: Any) -> Any:
    return [[value for value in entry.values() if isinstance(value, tg.Tensor)] for entry in optimizer.state.values()]


def a_training(row: Any, steps: int, *, clip: bool, cast: bool = False, interval: int = 4) -> Callable[..., None]:
    name = row[0]

    def script(compiled: Any, show: Any) -> None:
        model = model_for(name)
        settings = {key: x.clone() if isinstance(x, tg.Tensor) else x for key, x in row[1].items()}
        optimizer = getattr(tg.optim, name)(model.parameters(), **settings)
        schedule = tg.optim.lr_scheduler.StepLR(optimizer, 10, 0.9)
        scaler = tg.amp.GradScaler("cpu", init_scale=3000.0, growth_interval=interval)

        @compiled
        def step(x: Any, y: Any, poison: Any) -> Any:
            optimizer.zero_grad()
            with tg.autocast("cpu", dtype=tg.bfloat16, enabled=cast):
                loss = loss_of(model, x, y, poison)
            scaler.scale(loss).backward()
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        for i, (x, y, poison) in enumerate(batches(steps)):
            show(step(x, y, poison), scaler.get_scale(), scaler.state_dict())
            if i % 7 == 3:
                show(list(model.parameters()), states(optimizer))
            schedule.step()
        show(list(model.parameters()), [p.grad for p in model.parameters()], states(optimizer))

    return script


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", SETTINGS, ids=label)
def test_bits_are_those_of_eager_runs(row: Any, backend: str) -> None:
    steps = 200 if row[0] in LONG else 24
    [one] = beside(a_training(row, steps, clip=row[0] != "Adam"), backend, exact=True)
    stats = one.stats()
    # two steps that show none of the optimizer's, one in which it makes its state if it has any, one that is written
    makes = 0 if row[0] == "SGD" and "momentum" not in row[1] else 1
    assert stats["replays"] == steps - 3 - makes and stats["eager"] == 2 and stats["captures"] == 1 + makes, stats


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("row", [("SGD", {"lr": 0.05, "momentum": 0.9}), *((n, {"lr": 0.01}) for n in LONG[1:])])
def test_with_autocast(row: Any, clip: bool, backend: str) -> None:
    [one] = beside(a_training(row, 200, clip=clip, cast=True), backend, exact=True)
    assert one.stats()["replays"] == 196
    assert "bf16" in one.explain() and "unless" in one.explain()


@pytest.mark.parametrize("backend", BACKENDS)
def test_clipping_within_the_step(backend: str) -> None:
    [one] = beside(a_training(("AdamW", {"lr": 0.01, "max_grad_norm": 0.1}), 60, clip=False), backend, exact=True)
    assert one.stats()["replays"] == 56


@pytest.mark.skipif("cpp" not in BACKENDS, reason="the C++ backend isn't built")
def test_bits_are_the_same_for_any_number_of_threads() -> None:
    seen: list[Any] = []
    before = tg.get_num_threads()
    try:
        for threads in (1, 2, 1):
            tg.set_num_threads(threads)
            shown: list[Any] = []
            with tg.backend("cpp"):
                tg.manual_seed(3)
                a_training(("Adam", {"lr": 0.01}), 30, clip=True)(tg.compile, lambda *x, into=shown: into.append(x))
            seen.append(repr(shown))
    finally:
        tg.set_num_threads(before)
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_parameters_and_large_ones(backend: str) -> None:
    """Where C++ takes parameters in pieces, and groups go along with each other."""

    def script(compiled: Any, show: Any) -> None:
        tg.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 500), nn.GELU(), nn.Linear(500, 400), nn.GELU(), nn.Linear(400, 2))
        groups = [{"params": model[0].parameters(), "lr": 0.02}, {"params": [*model[2].parameters()]},
                  {"params": model[4].parameters(), "weight_decay": 0.1}]  # fmt: skip
        optimizer = tg.optim.Adam(groups, lr=0.001)
        scaler = tg.amp.GradScaler("cpu", init_scale=64.0)

        @compiled
        def step(x: Any, y: Any, poison: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(model, x, y, poison)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        for x, y, poison in batches(9, at=frozenset((4, 6))):
            show(step(x, y, poison))
        show(list(model.parameters()), states(optimizer))

    [one] = beside(script, backend, exact=True)
    assert one.stats()["replays"] == 7
    assert "adam_ of 3 groups are one call" in " ".join(one.explain().split())


@pytest.mark.parametrize("backend", BACKENDS)
def test_optimizers_are_skipped_one_by_one(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        models = [model_for("SGD"), model_for("Adam"), model_for("SGD")]
        first = tg.optim.SGD(models[0].parameters(), lr=0.1, momentum=0.9)
        second = tg.optim.Adam([*models[1].parameters()], lr=0.01)
        third = tg.optim.NAdam(models[2].double().parameters(), lr=0.01)  # gradients of another dtype
        optimizers = [first, second, third]
        scaler = tg.amp.GradScaler("cpu", init_scale=16.0, growth_interval=3)

        @compiled
        def step(x: Any, y: Any, poisons: Any) -> Any:
            for one in optimizers:
                one.zero_grad()
            losses = [loss_of(m, x.to(m[0].weight.dtype), y.to(m[0].weight.dtype), p)
                      for m, p in zip(models, poisons, strict=True)]  # fmt: skip
            scaler.scale(losses[0] + losses[1] + losses[2].float()).backward()
            scaler.unscale_(second)
            for one in optimizers:
                scaler.step(one)
            scaler.update()
            return [loss.detach() for loss in losses]

        for i, (x, y, _) in enumerate(batches(40)):
            poisons = [tg.tensor(float("inf") if i % 9 in (4, 5) and i % 3 == k else 0.0) for k in range(3)]
            show(step(x, y, poisons), scaler.get_scale(), scaler._get_growth_tracker())
            show([list(m.parameters()) for m in models], [states(one) for one in optimizers])

    [one] = beside(script, backend, exact=True)
    assert one.stats()["replays"] >= 37, one.stats()
    assert one.explain().count("unless") == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_of_several_dtypes_stop_together(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        a = tg.ones(3, requires_grad=True)
        b = tg.ones(2, dtype=tg.float64, requires_grad=True)
        c = tg.ones(2, dtype=tg.bfloat16, requires_grad=True)
        optimizer = tg.optim.Adam([a, b, c], lr=0.1)
        scaler = tg.amp.GradScaler("cpu", init_scale=4.0)

        @compiled
        def step(x: Any) -> None:
            optimizer.zero_grad()
            scaler.scale((a * x[0]).sum() + (b * x[1]).sum().float() + (c * x[2]).sum().float()).backward()
            scaler.step(optimizer)
            scaler.update()

        for i in range(12):
            x = tg.tensor([1.0 + i, 2.0, 3.0])
            if i in (5, 7, 9):
                x[(i - 5) // 2] = float("inf")
            step(x)
            show(a, b, c, scaler.get_scale(), a.grad, b.grad, c.grad, states(optimizer))

    [one] = beside(script, backend, exact=True)
    assert one.stats()["replays"] == 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_accumulated_gradients(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = model_for("SGD")
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scaler = tg.amp.GradScaler("cpu", init_scale=128.0)

        @compiled
        def add(x: Any, y: Any, poison: Any) -> None:
            scaler.scale(loss_of(model, x, y, poison) / 2).backward()

        @compiled
        def finish() -> None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        for i, (x, y, poison) in enumerate(batches(40)):
            add(x, y, poison)
            if i % 2:
                finish()
                show(list(model.parameters()), scaler.get_scale())

    adds, finishes = sorted(beside(script, backend, exact=True), key=lambda one: -one.stats()["calls"])
    assert adds.stats()["replays"] >= 35 and finishes.stats()["replays"] >= 15


def trained(scaler: Any, compile: Callable[..., Any] = tg.compile, **options: Any) -> tuple[Any, Any, Any]:
    model = model_for("Adam")
    optimizer = tg.optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any, y: Any, poison: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model, x, y, poison)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return compile(step, **options), model, optimizer


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_scale_is_read_anew_and_can_be_set_between_calls(backend: str) -> None:
    with tg.backend(backend):
        scaler = tg.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        step, model, optimizer = trained(scaler)
        runs = iter(batches(99, at=frozenset()))
        for _ in range(3):
            step(*next(runs))
        assert scaler.get_scale() == 16.0 and scaler._get_growth_tracker() == 0
        step(*next(runs))
        state = scaler.state_dict()
        assert state["scale"] == 16.0 and state["_growth_tracker"] == 1
        assert step.stats()["replays"] == 2
        scaler.load_state_dict({**state, "scale": 512.0, "_growth_tracker": 2})
        step(*next(runs))
        assert scaler.get_scale() == 1024.0 and scaler._get_growth_tracker() == 0
        scaler.update(4.0)
        assert scaler.get_scale() == 4.0
        step(*next(runs))
        assert scaler.state_dict()["_growth_tracker"] == 1 and step.stats()["captures"] == 2
        before, count = [p.tolist() for p in model.parameters()], float(optimizer.state[model[0].weight]["step"])
        x, y, _ = next(runs)
        step(x, y, tg.tensor(float("inf")))
        assert scaler.get_scale() == 2.0 and scaler._get_growth_tracker() == 0
        assert [p.tolist() for p in model.parameters()] == before
        assert float(optimizer.state[model[0].weight]["step"]) == count
        assert not model[0].weight.grad.isfinite().all() and step.stats()["captures"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scaler_of_another_run_goes_on(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        scaler = tg.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        scaler.load_state_dict({**scaler.state_dict(), "scale": 32.0, "_growth_tracker": 2})
        step, model, _ = trained(scaler, compiled)
        for i, batch in enumerate(batches(20)):
            show(step(*batch), scaler.state_dict())
            if i == 10:
                scaler.load_state_dict({**scaler.state_dict(), "growth_interval": 2, "scale": 256.0})
        show(list(model.parameters()))

    beside(script, backend, exact=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_factors_are_noticed(backend: str) -> None:
    with tg.backend(backend):
        scaler = tg.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
        step, _, _ = trained(scaler)
        runs = iter(batches(99, at=frozenset()))
        for _ in range(3):
            step(*next(runs))
        assert scaler.get_scale() == 64.0
        scaler.set_growth_factor(4.0)
        step(*next(runs))
        assert scaler.get_scale() == 256.0
        scaler.set_growth_interval(2)
        step(*next(runs)), step(*next(runs))
        assert scaler.get_scale() == 1024.0
        scaler.set_backoff_factor(0.25)
        x, y, _ = next(runs)
        for _ in range(2):
            step(x, y, tg.tensor(float("inf")))
        assert scaler.get_scale() == 64.0
        assert step.stats()["captures"] == 4 and step.stats()["eager"] == 2  # a run that is skipped shows no program


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scale_that_would_be_infinite_does_not_grow(backend: str) -> None:
    with tg.backend(backend):
        largest = 2.0**127
        scaler = tg.amp.GradScaler("cpu", init_scale=largest, growth_interval=1)
        step, _, _ = trained(scaler)
        x = tg.zeros(5, 4)
        for _ in range(5):
            step(x, tg.zeros(5, 2), tg.tensor(0.0))
            scaler.update(largest)
        assert scaler.get_scale() == largest


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disabled_scaler_is_none(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        step, model, _ = trained(tg.amp.GradScaler("cpu", enabled=False), compiled)
        for batch in batches(12, at=frozenset()):
            show(step(*batch))
        show(list(model.parameters()))

    [one] = beside(script, backend, exact=True)
    assert one.stats()["replays"] == 10 and "unless" not in one.explain() and "amp_" not in one.explain()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_new_scale_within_the_step(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        weight = tg.ones(3, requires_grad=True)
        optimizer = tg.optim.SGD([weight], lr=0.1)
        scaler = tg.amp.GradScaler("cpu", init_scale=8.0)

        @compiled
        def step(x: Any, new: Any) -> None:
            optimizer.zero_grad()
            scaler.scale((weight * x).sum()).backward()
            scaler.step(optimizer)
            scaler.update(new)

        for i in range(8):
            step(tg.full((3,), float("inf") if i == 5 else 1.0), tg.tensor([3.0 + i]))
            show(weight, weight.grad, scaler.get_scale())

    [one] = beside(script, backend, exact=True)
    assert one.stats()["replays"] == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scale_that_is_far_too_large_at_first(backend: str) -> None:
    """Each of the first runs is skipped: the program is written when one is not, and nobody complains of waiting."""
    with tg.backend(backend), warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = tg.amp.GradScaler("cpu", init_scale=2.0**30)
        step, _, _ = trained(scaler)
        for i, (x, y, _) in enumerate(batches(40)):
            step(x, y, tg.tensor(float("inf") if i < 30 else 0.0))
        assert scaler.get_scale() == 1.0
        stats = step.stats()
        assert stats["eager"] == 30 and stats["captures"] == 2 and stats["replays"] == 8
        assert list(stats["reasons"]) == ["a gradient was not finite, so the call showed no step of the optimizer"]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_of_other_sizes(backend: str, dynamic: bool) -> None:
    def script(compiled: Any, show: Any) -> None:
        scaler = tg.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        model = model_for("Adam")
        optimizer = tg.optim.Adam(model.parameters(), lr=0.01)

        @compiled
        def step(x: Any, y: Any, poison: Any) -> Any:
            optimizer.zero_grad()
            loss = (model(x) - y).square().sum(1).mean() + (model[0].weight.abs() * poison).sum()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        for i, size in enumerate((6, 6, 6, 3, 3, 3, 4, 4, 6, 5, 5, 3)):
            x, y, _ = batches(1, size)[0]
            show(step(x + i, y, tg.tensor(float("inf") if i in (3, 9) else 0.0)), scaler.state_dict())
        show(list(model.parameters()), states(optimizer))

    [one] = beside(script, backend, exact=True, dynamic=dynamic)
    assert one.stats()["eager"] == (1 if dynamic else 2), one.stats()
    assert one.stats()["captures"] == (3 if dynamic else 5), one.stats()


class Signs(tg.optim.Optimizer):
    """An optimizer of the user's own, made of ops on tensors."""

    def __init__(self, params: Any, lr: float):
        super().__init__(params, {"lr": lr})
        for p in self.param_groups[0]["params"]:
            self.state[p]["mean"] = tg.zeros_like(p, requires_grad=False)

    @tg.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            mean = self.state[p]["mean"]
            mean.mul_(0.9).add_(p.grad, alpha=0.1)
            p.sub_(mean.sign() * self.param_groups[0]["lr"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimizer_of_ones_own(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = model_for("SGD")
        optimizer = Signs(model.parameters(), lr=0.01)
        scaler = tg.amp.GradScaler("cpu", init_scale=64.0)

        @compiled
        def step(x: Any, y: Any, poison: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(model, x, y, poison)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        for batch in batches(30):
            show(step(*batch), list(model.parameters()), states(optimizer), scaler.get_scale())

    [one] = beside(script, backend, exact=True)
    assert one.stats()["replays"] >= 25


class Careful(Signs):
    def step(self, closure: Any = None) -> None:
        if self.param_groups[0]["params"][0].grad.abs().max() < 1e9:  # Python reads a tensor
            super().step()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimizer_that_reads_is_refused_or_runs_as_it_is(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = model_for("SGD")
        optimizer = Careful(model.parameters(), lr=0.01)
        scaler = tg.amp.GradScaler("cpu", init_scale=64.0)

        @compiled
        def step(x: Any, y: Any, poison: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(model, x, y, poison)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        for batch in batches(12):
            show(step(*batch), list(model.parameters()), states(optimizer), scaler.get_scale())

    with pytest.raises(CompileError, match=r"Python reads a tensor.*at .*test_scaled.*fallback=True"):
        beside(script, backend)
    beside(script, backend, exact=True, fallback=True)


def test_what_a_step_makes_is_used_in_it_alone() -> None:
    class Leaking(Signs):
        def step(self, closure: Any = None) -> None:
            super().step()
            self.norm = self.param_groups[0]["params"][0].grad.abs().sum()

    class Clearing(Signs):
        def step(self, closure: Any = None) -> None:
            super().step()
            self.zero_grad()

    def run(kind: Any) -> None:
        weight = tg.ones(3, requires_grad=True)
        optimizer = kind([weight], lr=0.1)
        scaler = tg.amp.GradScaler("cpu", init_scale=8.0)

        @tg.compile
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            scaler.scale((weight * x).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            return optimizer.norm * 2 if kind is Leaking else None

        for _ in range(3):
            step(tg.ones(3))

    with pytest.raises(CompileError, match=r"step that may be left out at .*test_scaled.* is used behind it"):
        run(Leaking)
    with pytest.raises(CompileError, match=r"a gradient is set or forgotten at .*test_scaled.*Do it before the step"):
        run(Clearing)


def test_half_of_a_step_is_refused() -> None:
    """The stages of a scaler are Python's: a program can't leave one of them behind."""
    weight = tg.ones(3, requires_grad=True)
    optimizer = tg.optim.SGD([weight], lr=0.1)
    scaler = tg.amp.GradScaler("cpu", init_scale=8.0)

    @tg.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        scaler.scale((weight * x).sum()).backward()
        scaler.step(optimizer)

    with pytest.raises(CompileError, match=r"changes what it rests on: .*scaler\._progress"):
        for _ in range(4):
            step(tg.ones(3))
            scaler.update()


@pytest.mark.skipif("cpp" not in BACKENDS, reason="the C++ backend isn't built")
def test_explain_draw_and_save(tmp_path: Any) -> None:
    with tg.backend("cpp"):
        step, _, _ = trained(tg.amp.GradScaler("cpu", init_scale=8.0))
        for batch in batches(4, at=frozenset()):
            step(*batch)
        text = step.explain()
        flag = re.search(r"(%\d+) bool\[\] +amp_unscale_\(\[.*scaler\._scale\)", text)
        assert flag is not None, text
        after = text[text.index("amp_unscale_") :]
        order = [after.index(x) for x in (f"unless {flag[1]}:\n", "on the host:", "adam_(", "amp_update_scale_(")]
        assert order == sorted(order) and "through Python" not in text, text
        assert max(map(len, text.splitlines())) <= 120
        assert f"unless {flag[1]}:\n" in repr(step.programs[0])
        for name in ("step.svg", "step.dot"):
            step.draw(tmp_path / name)
            drawn = (tmp_path / name).read_text()
            assert "adam_" in drawn and f"unless {flag[1]}" in drawn and "amp_update_scale_" in drawn
        with pytest.raises(CompileError, match="What can be saved"):
            step.save(tmp_path / "step.tgp")


class OnCuda:
    """A training with a scaler; ``step(x, y, poison)`` is what is compiled."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).to("cuda")
        self.optimizers = self.made(list(self.model.parameters()))
        self.scaler = tg.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)  # the losses say where they are

    def made(self, parameters: list[Any]) -> list[Any]:
        return [tg.optim.Adam(parameters, lr=0.01)]

    def loss(self, x: Any, y: Any, poison: Any) -> Any:
        return loss_of(self.model, x, y, poison)

    def step(self, x: Any, y: Any, poison: Any) -> Any:
        for one in self.optimizers:
            one.zero_grad()
        loss = self.loss(x, y, poison)
        self.scaler.scale(loss).backward()
        for one in self.optimizers:
            self.scaler.unscale_(one)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for one in self.optimizers:
            self.scaler.step(one)
        self.scaler.update()
        return loss.detach()

    def kept(self) -> list[Any]:
        entries = [[x.tolist() for x in entry] for one in self.optimizers for entry in states(one)]
        return [self.scaler.state_dict(), [p.tolist() for p in self.model.parameters()], entries]


class ByMomentum(OnCuda):
    def made(self, parameters: list[Any]) -> list[Any]:
        return [tg.optim.SGD(parameters, lr=0.1, momentum=0.9)]


class ClippedByTheStep(OnCuda):
    def made(self, parameters: list[Any]) -> list[Any]:
        return [tg.optim.AdamW(parameters, lr=0.01, max_grad_norm=0.1)]


class TwoOptimizers(OnCuda):
    """The gradient of the first alone is infinite."""

    def made(self, parameters: list[Any]) -> list[Any]:
        return [tg.optim.Adam(parameters[:1], lr=0.01), tg.optim.AdamW(parameters[1:], lr=0.02)]


class TwoStepsInOne(OnCuda):
    """The second step counts on from the first, which may have been left out."""

    def step(self, x: Any, y: Any, poison: Any) -> Any:
        return super().step(x, y, poison) + super().step(x * 0.5, y, tg.zeros_like(poison))


class AStepBefore(OnCuda):
    """One that is always done counts before one that may be left out."""

    def step(self, x: Any, y: Any, poison: Any) -> Any:
        self.optimizers[0].zero_grad()
        self.loss(x, y, tg.zeros_like(poison)).backward()
        self.optimizers[0].step()
        return super().step(x, y, poison)


class Classified(OnCuda):
    def loss(self, x: Any, y: Any, poison: Any) -> Any:
        at = (y[:, 0] > 0).long()
        return F.cross_entropy(self.model(x), at) + (self.model[0].weight.abs() * poison).sum()


class BySlowerSteps(OnCuda):
    def made(self, parameters: list[Any]) -> list[Any]:
        return [tg.optim.RMSprop(parameters, lr=0.01)]


class ByRateOfTheDevice(OnCuda):
    def made(self, parameters: list[Any]) -> list[Any]:
        self.rate = tg.tensor(0.01, device="cuda")
        return [tg.optim.Adam(parameters, lr=self.rate)]


def run_on_cuda(kind: type[OnCuda], compiled: bool, steps: int = 20) -> tuple[list[Any], Any, OnCuda]:
    tg.manual_seed(0)
    training = kind()
    training.step(*(t.to("cuda") for t in batches(1, at=frozenset())[0]))  # the state is there from here on
    step = tg.compile(training.step) if compiled else training.step
    seen: list[Any] = []
    for i, batch in enumerate(batches(steps)):
        for one in training.optimizers:
            if not isinstance(one.param_groups[0]["lr"], tg.Tensor):
                one.param_groups[0]["lr"] = 0.02 / (1 + i)
        seen.append([step(*(t.to("cuda") for t in batch)).item(), training.kept()])
    return seen, step, training


@pytest.mark.parametrize(
    ("kind", "graphs", "between"),
    [
        (OnCuda, 1, 0),
        (ByMomentum, 1, 0),
        (ClippedByTheStep, 1, 0),
        (TwoOptimizers, 1, 0),
        (TwoStepsInOne, 2, 0),
        (AStepBefore, 1, 0),
        (Classified, 1, 0),
        (BySlowerSteps, 2, 1),
        (ByRateOfTheDevice, 2, 1),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else None,
)
def test_graphs_of_steps_that_may_be_left_out(kind: type[OnCuda], graphs: int, between: int) -> None:
    with strict_cuda():
        expected, *_ = run_on_cuda(kind, False)
        found, step, _ = run_on_cuda(kind, True)
        assert found == expected
        assert step.stats()["replays"] >= 14, step.stats()
        told = " ".join(line for runner in step.programs[0].runners for line in runner.told())
        assert f"CUDA graphs: {graphs}," in told and f"{between} calls run between them" in told, told
        assert ("the host reads whether it is done" in told) == bool(between) and "unless" in step.explain()


def test_graphs_wait_where_the_host_has_counted() -> None:
    with strict_cuda():
        given = [[t.to("cuda") for t in batch] for batch in batches(8)]
        _, step, training = run_on_cuda(ByMomentum, True)
        before = training.kept()
        with no_traffic():
            for batch in given:
                step(*batch)
        assert training.kept() != before
        _, step, training = run_on_cuda(OnCuda, True)
        for batch in given:
            before = traffic.downloads
            step(*batch)
            assert traffic.downloads == before + 1


def test_what_is_drawn_where_a_flag_decides_is_drawn_by_the_host() -> None:
    with strict_cuda():
        totals = [tg.zeros(3, device="cuda") for _ in range(2)]

        def f(x: Any, total: Any, stop: Any) -> Any:
            unless(stop, lambda: total.add_(tg.rand(3, device="cuda") * x))
            return (total * 2).relu() + tg.rand(3, device="cuda")

        step = tg.compile(f)
        for i in range(8):
            x, stop = tg.full((3,), float(i), device="cuda"), tg.tensor(i in (3, 4, 6), device="cuda")
            seen = []
            for one, total in zip((f, step), totals, strict=True):
                tg.manual_seed(i)
                seen.append([one(x, total, stop).tolist(), total.tolist(), tg.get_rng_state().tolist()])
            assert seen[0] == seen[1]
        told = " ".join(line for runner in step.programs[0].runners for line in runner.told())
        assert "unless (the host reads whether it is done)" in told, told


def test_a_failed_check_leaves_scale_and_step_as_they_were() -> None:
    class Picking(OnCuda):
        def loss(self, x: Any, y: Any, poison: Any) -> Any:
            return F.cross_entropy(self.model(x), y) + (self.model[0].weight.abs() * poison).sum()

    with strict_cuda():
        tg.manual_seed(0)
        training = Picking()
        step = tg.compile(training.step)
        x, y = tg.randn(4, 4, device="cuda"), tg.tensor([0, 1, 1, 0], device="cuda")
        for _ in range(6):
            step(x, y, tg.tensor(0.0, device="cuda"))
        told = " ".join(line for runner in step.programs[0].runners for line in runner.told())
        assert "CUDA graphs: 1," in told and "0 calls run between them" in told, told
        before = training.kept()
        for poison in (0.0, float("inf")):
            with pytest.raises(IndexError, match="cross_entropy: target 2"):
                step(x, y + 1, tg.tensor(poison, device="cuda"))
            assert training.kept() == before
        step(x, y, tg.tensor(float("inf"), device="cuda"))
        assert training.kept()[1:] == before[1:] and training.scaler.get_scale() == before[0]["scale"] / 2
        step(x, y, tg.tensor(0.0, device="cuda"))
        assert training.kept()[2][0][0] == before[2][0][0] + 1


def test_a_step_that_no_graph_can_hold_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with strict_cuda() as cuda:
        whole = cuda.raw.adam_

        def refusing(*inputs: Any, **attrs: Any) -> Any:
            if cuda.xp.cuda.get_current_stream().is_capturing():
                raise RuntimeError("adam_: operation not permitted when stream is capturing")
            return whole(*inputs, **attrs)

        monkeypatch.setitem(cuda.raw.__dict__, "adam_", refusing)
        expected, *_ = run_on_cuda(OnCuda, False)
        found, step, _ = run_on_cuda(OnCuda, True)
        told = " ".join(line for runner in step.programs[0].runners for line in runner.told())
    assert found == expected
    assert "CUDA graphs: 2," in told and "unless (the host reads whether it is done)" in told, told


@pytest.mark.parametrize("flag", ["bool on cpu", "bool on cuda", "float on cuda"])
def test_flags_that_kernels_can_read(flag: str) -> None:
    dtype, _, device = flag.split()

    def run(compiled: bool) -> tuple[list[Any], Any]:
        tg.manual_seed(0)
        model = nn.Linear(4, 2).to("cuda")
        optimizer = tg.optim.Adam(model.parameters(), lr=0.1)

        def step(x: Any, stop: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            unless(stop, optimizer.step)
            return loss.detach()

        f = tg.compile(step) if compiled else step
        seen = []
        for i in range(10):
            stop = tg.tensor(i in (4, 5, 8), dtype=getattr(tg, dtype), device=device)
            seen.append([f(tg.full((3, 4), 0.1 * i, device="cuda"), stop).item(), states(optimizer)[0][0].item()])
        return seen, f

    with strict_cuda():
        found, f = run(True)
        assert found == run(False)[0]
        told = " ".join(line for runner in f.programs[0].runners for line in runner.told())
        assert ("the host reads whether it is done" in told) == (flag != "bool on cuda"), told
