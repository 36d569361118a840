"""Compiled training steps as one CUDA graph each: what the host does in their midst it does before the launch, and the
numbers are those of eager steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.compiler.program import Action
from tensorgrad.nn import functional as F
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda

STEPS = 30


@pytest.fixture(autouse=True)
def cuda() -> Iterator[StrictCupyBackend]:
    with strict_cuda() as backend:
        yield backend


def told(compiled: Any) -> str:
    return "\n".join(line for runner in compiled.programs[0].runners for line in runner.told())


class Training:
    """A model with its optimizers; ``step(x, y)`` is what is compiled."""

    dropout = 0.0
    clip: float | None = None

    def __init__(self) -> None:
        self.model = nn.Sequential(
            nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Dropout(self.dropout), nn.Linear(8, 2)
        ).to("cuda")
        self.optimizers = self.made(list(self.model.parameters()))

    def made(self, parameters: list[Any]) -> list[Any]:
        return [optim.AdamW(parameters, lr=0.05)]

    def draw(self) -> tuple[Any, Any]:
        return tg.randn(4, 6, device="cuda"), tg.randn(4, 2, device="cuda")

    def loss(self, x: Any, y: Any) -> Any:
        loss = F.mse_loss(self.model(x), y)
        loss.backward()
        return loss

    def step(self, x: Any, y: Any) -> Any:
        for one in self.optimizers:
            one.zero_grad()
        loss = self.loss(x, y)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for one in self.optimizers:
            one.step()
        return loss

    def between(self, i: int) -> None:
        for k, one in enumerate(self.optimizers):
            one.param_groups[0]["lr"] = 0.05 / (1 + i + k)


class WithDropout(Training):
    dropout = 0.3


class Clipped(Training):
    clip = 0.1


class ClippedByTheStep(Training):
    def made(self, parameters: list[Any]) -> list[Any]:
        return [optim.AdamW(parameters, lr=0.05, max_grad_norm=0.1)]


class Momentum(WithDropout):
    clip = 0.5

    def made(self, parameters: list[Any]) -> list[Any]:
        return [optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True)]


class TwoOptimizers(WithDropout):
    def made(self, parameters: list[Any]) -> list[Any]:
        return [optim.SGD(parameters[:2], lr=0.05, momentum=0.9), optim.AdamW(parameters[2:], lr=0.02)]


class TwoOfAKind(Training):
    def made(self, parameters: list[Any]) -> list[Any]:
        return [optim.AdamW(parameters[::2], lr=0.05), optim.AdamW(parameters[1::2], lr=0.02)]


class TwoStepsInOne(Training):
    """The second step needs the first one's count, its own, and the parameters between."""

    def step(self, x: Any, y: Any) -> Any:
        return super().step(x, y) + super().step(x * 0.5, y)


class TwoMicroBatches(WithDropout):
    def loss(self, x: Any, y: Any) -> Any:
        total = tg.zeros((), device="cuda")
        for some, theirs in zip(x.chunk(2), y.chunk(2), strict=True):
            loss = F.mse_loss(self.model(some), theirs) / 2
            loss.backward()
            total = total + loss.detach()
        return total


class Seeded(WithDropout):
    """A generator is seeded, drawn from, and seeded again within the step."""

    def step(self, x: Any, y: Any) -> Any:
        tg.manual_seed(3)
        first = super().step(x + tg.randn(4, 6, device="cuda"), y)
        tg.manual_seed(3)
        return first + super().step(x + tg.randn(4, 6, device="cuda"), y)


class RateOfTheHost(Training):
    """The rate is a tensor on the CPU."""

    def made(self, parameters: list[Any]) -> list[Any]:
        self.rate = tg.tensor(0.05)
        return [optim.AdamW(parameters, lr=self.rate)]

    def between(self, i: int) -> None:
        self.rate.fill_(0.05 / (1 + i))


ONE = [
    Training, WithDropout, Clipped, ClippedByTheStep, Momentum, TwoOptimizers, TwoOfAKind, TwoStepsInOne,
    TwoMicroBatches, Seeded, RateOfTheHost,
]  # fmt: skip


def run(kind: type[Training], compiled: bool, steps: int = STEPS) -> tuple[list[Any], Any]:
    tg.manual_seed(0)
    training = kind()
    step = tg.compile(training.step) if compiled else training.step
    seen: list[Any] = []
    for i in range(steps):
        tg.manual_seed(i)
        training.between(i)
        loss = step(*training.draw())
        seen.append([loss.item(), *counts(training), tg.get_rng_state().tolist()])
    seen.append([p.tolist() for p in training.model.parameters()])
    return seen, step


def counts(training: Training) -> list[float]:
    return [float(state["step"]) for one in training.optimizers for state in one.state.values() if "step" in state]


def beside_eager(kind: type[Training]) -> Any:
    found, step = run(kind, True)
    assert found == run(kind, False)[0]
    assert step.stats()["replays"] >= STEPS - 4
    return step


@pytest.mark.parametrize("kind", ONE, ids=lambda kind: kind.__name__)
def test_a_step_is_one_graph(kind: type[Training]) -> None:
    step = beside_eager(kind)
    assert "CUDA graphs: 1," in told(step) and "0 calls run between them" in told(step), told(step)
    [graph] = [piece for piece in step.programs[0].runners[0].pieces.steps if not isinstance(piece, Action)]
    assert graph.calls == len(step.programs[0].calls)
    assert "CUDA graphs: 1," in step.explain()


def test_gradients_that_add_up_and_a_step_of_their_own() -> None:
    """Two micro-batches and a step, as two programs."""

    def trained(compiled: bool) -> tuple[list[Any], list[Any]]:
        tg.manual_seed(0)
        training = WithDropout()
        [optimizer] = training.optimizers

        def finish() -> None:
            nn.utils.clip_grad_norm_(training.model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()

        add, end = (tg.compile(f) if compiled else f for f in (training.loss, finish))
        seen = []
        for i in range(2 * STEPS):
            tg.manual_seed(i)
            training.between(i)
            seen.append(add(tg.randn(4, 6, device="cuda"), tg.randn(4, 2, device="cuda")).item())
            if i % 2:
                end()
                seen.append([counts(training), [p.tolist() for p in training.model.parameters()]])
        return seen, [add, end]

    found, programs = trained(True)
    assert found == trained(False)[0]
    for one in programs:
        assert "CUDA graphs: 1," in told(one) and "0 calls run between them" in told(one), told(one)


def test_a_rate_that_the_step_changes_is_read_where_the_step_stands() -> None:
    class Decaying(Training):
        def made(self, parameters: list[Any]) -> list[Any]:
            self.rate = tg.tensor(0.05, device="cuda")
            return [optim.AdamW(parameters, lr=self.rate)]

        def step(self, x: Any, y: Any) -> Any:
            self.rate.mul_(0.9)
            return super().step(x, y)

        def between(self, i: int) -> None:
            """The rate is the step's."""

    assert "CUDA graphs: 2," in told(beside_eager(Decaying))


def test_a_rate_that_becomes_one_of_the_device() -> None:
    """A program that was made for numbers of the host isn't taken for those of a tensor that it changes."""

    class Later(Training):
        def __init__(self) -> None:
            super().__init__()
            self.rate = tg.tensor(0.05, device="cuda")

        def step(self, x: Any, y: Any) -> Any:
            self.rate.mul_(0.5)
            return super().step(x, y)

        def between(self, i: int) -> None:
            if i % 10 == 0:
                self.rate.fill_(0.05)
            self.optimizers[0].param_groups[0]["lr"] = self.rate if i // 10 % 2 else 0.01 * i

    step = beside_eager(Later)
    assert step.stats()["programs"] == 2, step.stats()


def test_a_state_that_is_read_between_two_steps() -> None:
    class Reading(Training):
        def step(self, x: Any, y: Any) -> Any:
            super().step(x, y)
            state = self.optimizers[0].state[self.model[0].weight]
            before = state["step"] * 1
            super().step(x, y)
            return before * 100 + state["step"]

    found, _ = run(Reading, True)
    assert found == run(Reading, False)[0]
    assert found[5][0] == 100 * 11 + 12


def test_an_action_among_calls_that_compute_nothing() -> None:
    """A stretch that makes views alone is no graph; what the host does there is done nonetheless."""

    def f(x: Any) -> Any:
        rows = x.t()
        tg.manual_seed(5)
        ordered = rows[0].sort()[0]
        return ordered * tg.rand(3, device="cuda")

    step = tg.compile(f)
    for i in range(4):
        x = tg.randn(3, 2, device="cuda", generator=tg.Generator().manual_seed(i))
        tg.manual_seed(i)
        assert step(x).tolist() == f(x).tolist()
    assert "CUDA graphs: 1," in told(step), told(step)


class Hesitant(TwoOfAKind):
    """Fails now and then, as the second optimizer's numbers are written."""

    def between(self, i: int) -> None:
        super().between(i)
        self.optimizers[1].param_groups[0]["weight_decay"] = 0.01


def test_numbers_that_cannot_be_read_leave_no_step_counted() -> None:
    tg.manual_seed(0)
    training = Hesitant()
    step = tg.compile(training.step)
    x, y = tg.randn(4, 6, device="cuda"), tg.randn(4, 2, device="cuda")
    for i in range(5):
        training.between(i)
        step(x, y)
    before = [counts(training), [p.tolist() for p in training.model.parameters()]]
    assert before[0] == [5.0] * 6
    training.optimizers[1].param_groups[0]["lr"] = "fast"
    with pytest.raises(ValueError, match="could not convert string to float"):
        step(x, y)
    assert [counts(training), [p.tolist() for p in training.model.parameters()]] == before
    training.between(5)
    step(x, y)
    assert counts(training) == [6.0] * 6


# --- checks of indices


class Classifying(WithDropout):
    """Two checks, of tokens and of targets, are looked at when the one graph is done."""

    clip = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6).to("cuda")
        self.optimizers += self.made(list(self.table.parameters()))

    def loss(self, tokens: Any, y: Any) -> Any:
        loss = F.cross_entropy(self.model(self.table(tokens)), y)
        loss.backward()
        return loss

    def draw(self) -> tuple[Any, Any]:
        return tg.randint(0, 5, (4,), device="cuda"), tg.randint(0, 2, (4,), device="cuda")


class ClassifyingByMomentum(Classifying):
    made = Momentum.made


class ClassifyingTwice(Classifying):
    """The checks of the second half come after the first step, which they do not undo."""

    def step(self, x: Any, y: Any) -> Any:
        return super().step(x, y * 0) + super().step(x, y)


class ClassifyingBySlowerSteps(Classifying):
    """An optimizer whose numbers are the host's counts behind the checks, in no graph."""

    def made(self, parameters: list[Any]) -> list[Any]:
        return [optim.RMSprop(parameters, lr=0.01)]


@pytest.mark.parametrize(
    ("kind", "graphs", "between"),
    [
        (Classifying, 1, 0),
        (ClassifyingByMomentum, 1, 0),
        (ClassifyingTwice, 2, 0),
        (ClassifyingBySlowerSteps, 1, 2),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else None,
)
def test_steps_that_check_indices(kind: type[Training], graphs: int, between: int) -> None:
    step = beside_eager(kind)
    assert f"CUDA graphs: {graphs}," in told(step) and f"{between} calls run between them" in told(step), told(step)


@pytest.mark.parametrize("kind", [Classifying, ClassifyingByMomentum, ClassifyingBySlowerSteps])
def test_a_failed_check_leaves_no_step_counted_and_none_done(kind: type[Training]) -> None:
    tg.manual_seed(0)
    trainings = [kind(), kind()]
    trainings[1].model.load_state_dict(trainings[0].model.state_dict())
    trainings[1].table.load_state_dict(trainings[0].table.state_dict())
    step = tg.compile(trainings[0].step)
    steps = step, trainings[1].step
    for i in range(12):
        seen: list[Any] = []
        for training, one in zip(trainings, steps, strict=True):
            tg.manual_seed(i)
            training.between(i)
            tokens, y = training.draw()
            before = kept(training)
            if i in (5, 8):
                with pytest.raises(IndexError, match="embedding: index 7" if i == 5 else "cross_entropy: target 2"):
                    one(*((tokens * 0 + 7, y) if i == 5 else (tokens, y * 0 + 2)))
                assert kept(training) == before
            else:
                seen.append(one(tokens, y).item())
            seen.append(kept(training))
        assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
    assert step.stats()["replays"] >= 7
    if counts(trainings[0]):
        assert set(counts(trainings[0])) == {10.0}


def test_a_check_behind_a_step_does_not_undo_it() -> None:
    tg.manual_seed(0)
    training = ClassifyingTwice()
    step = tg.compile(training.step)
    for _ in range(4):
        step(*training.draw())
    assert set(counts(training)) == {8.0}
    tokens, y = training.draw()
    before = kept(training)
    with pytest.raises(IndexError, match="cross_entropy: target 2"):
        step(tokens, y * 0 + 2)
    assert set(counts(training)) == {9.0} and kept(training)[1] != before[1]
    step(tokens, y)
    assert set(counts(training)) == {11.0}


def kept(training: Training) -> list[Any]:
    """What a step changes."""
    states = [
        [x.tolist() for x in state.values() if isinstance(x, tg.Tensor)]
        for one in training.optimizers for state in one.state.values()
    ]  # fmt: skip
    return [
        counts(training),
        [p.tolist() for one in training.optimizers for p in one.param_groups[0]["params"]],
        states,
    ]
