"""Steps with a ``GradScaler`` on device ``cuda``, call by call: the device leaves out what is not finite."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.testing.strict_array import no_traffic
from tensorgrad.testing.strict_backend import strict_cuda

INFINITE = (0, 1, 4, 5, 8)
USUAL = [
    ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    ("Adam", {"lr": 0.1, "amsgrad": True}), ("AdamW", {"lr": 0.1, "max_grad_norm": 0.5}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def cuda() -> Iterator[Any]:
    with registry.backend("numpy"), strict_cuda(devices=2) as backend:
        yield backend


class Training:
    """Parameters and their optimizer, and one step after the other, some of which are not finite."""

    def __init__(self, device: str, name: str, settings: dict[str, Any], kind: Any = None):
        tg.manual_seed(0)
        self.params = [nn.Parameter(tg.rand(shape).to(device)) for shape in ((3, 4), (5,), (2,))]
        groups = [{"params": self.params[:2]}, {"params": self.params[2:], "lr": 0.05}]
        self.optimizer = (kind or getattr(tg.optim, name))(groups, **settings)
        self.scaler = tg.amp.GradScaler(device.partition(":")[0], init_scale=256.0, growth_interval=2)
        # made beforehand: nothing crosses to the device in a step
        self.poison = [tg.tensor(float("inf") if i in INFINITE else 1.0).to(device) for i in range(16)]
        self.at = 0

    def step(self, *args: Any) -> None:
        self.optimizer.zero_grad()
        loss = sum((p * p).sum() for p in self.params)
        self.scaler.scale(loss * self.poison[self.at]).backward()
        self.scaler.step(self.optimizer, *args)
        self.scaler.update()
        self.at += 1

    def counts(self) -> list[float]:
        return [float(state["step"]) for state in self.optimizer.state.values() if "step" in state]

    def shown(self) -> list[Any]:
        states = [x for p in self.params for x in self.optimizer.state[p].values() if isinstance(x, tg.Tensor)]
        return [x.detach().cpu().tolist() for x in (*self.params, *states)] + [self.scaler.get_scale(), self.counts()]


def trained(device: str, row: Any, between: Callable[[Training, int], Any] = lambda training, i: None) -> Training:
    training = Training(device, *row)
    for i in range(12):
        between(training, i)
        training.step()
    return training


def same(got: Training, want: Training) -> None:
    for a, b in zip(got.shown(), want.shown(), strict=True):
        assert tg.allclose(tg.tensor(a), tg.tensor(b), rtol=1e-5)


@pytest.mark.parametrize("row", USUAL, ids=str)
def test_no_step_waits_once_there_is_state(row: Any) -> None:
    training = Training("cuda", *row)
    for _ in range(3):
        training.step()  # two that are left out, and the first one that is done
    with no_traffic():
        for _ in range(9):
            training.step()
    expected = trained("cpu", row)
    same(training, expected)
    assert expected.counts() == ([7.0] * 3 if row[0] != "SGD" else [])


@pytest.mark.parametrize("row", USUAL[2:3], ids=str)
@pytest.mark.parametrize("what", ["state_dict", "load_state_dict", "deepcopy", "by itself", "frozen"])
def test_whoever_looks_finds_the_steps_that_were_done(what: str, row: Any) -> None:
    def between(training: Training, i: int) -> None:
        optimizer = training.optimizer
        if i not in (6, 9):
            return
        if what == "state_dict":
            kept = optimizer.state_dict()["state"].values()
            assert all(state["step"].device.type == "cpu" for state in kept)
            assert [float(state["step"]) for state in kept] == [{6: 2.0, 9: 4.0}[i]] * 3
        elif what == "load_state_dict":
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        elif what == "deepcopy":
            twin = copy.deepcopy(optimizer)
            for p in (p for group in twin.param_groups for p in group["params"]):
                p.grad = tg.ones_like(p)
            twin.step()
            assert [float(state["step"]) - 1 for state in twin.state.values()] == training.counts()
        elif what == "by itself":
            for p in training.params:
                p.grad = tg.ones_like(p)
            optimizer.step()
        else:
            training.params[0].requires_grad_(i == 9)

    same(trained("cuda:1", row, between), trained("cpu", row, between))


class OwnStep(tg.optim.Adam):
    taken = 0

    def step(self, closure: Any = None) -> Any:
        self.taken += 1
        return super().step(closure)


def test_whoever_must_know_of_a_step_is_told_by_the_host() -> None:
    row = ("Adam", {"lr": 0.1})
    expected = trained("cpu", row)
    seen: list[int] = []

    def counted(*args: Any) -> None:
        seen.append(1)

    hooked = trained("cuda", row, lambda t, i: i or t.optimizer.register_step_post_hook(counted))
    own = Training("cuda", *row, kind=OwnStep)
    listened = Training("cuda", *row)
    closed = Training("cuda", *row)
    for _ in range(12):
        own.step()
        closed.step(lambda: None)
    with tg.profiler.profile():
        for _ in range(12):
            listened.step()
    assert len(seen) == own.optimizer.taken == 7
    for training in (hooked, own, listened, closed):
        same(training, expected)
    same(trained("cuda", ("RMSprop", {"lr": 0.1})), trained("cpu", ("RMSprop", {"lr": 0.1})))


def test_the_flag_of_another_device_is_read_by_the_host() -> None:
    trainings = []
    for devices in (("cuda:0", "cuda:1"), ("cpu", "cpu")):
        training = Training(devices[0], "Adam", {"lr": 0.1})
        training.params[2].data = training.params[2].data.to(devices[1])
        for i in range(12):
            training.optimizer.zero_grad()
            loss = sum((p * p).sum().to(devices[0]) for p in training.params)
            training.scaler.scale(loss * training.poison[i]).backward()
            training.scaler.step(training.optimizer)
            training.scaler.update()
        trainings.append(training)
    same(*trainings)


@pytest.mark.parametrize("row", USUAL[2:3], ids=str)
def test_a_program_goes_on_where_the_device_has_counted(row: Any) -> None:
    trainings = []
    for device in ("cuda", "cpu"):
        training = Training(device, *row)

        def step(poison: Any, training: Training = training) -> None:
            training.optimizer.zero_grad()
            loss = sum((p * p).sum() for p in training.params)
            training.scaler.scale(loss * poison).backward()
            training.scaler.step(training.optimizer)
            training.scaler.update()

        compiled = tg.compile(step) if device == "cuda" else step
        for i, poison in enumerate(training.poison):
            (step if i in (0, 1, 2, 3, 10, 13) else compiled)(poison)
        trainings.append(training)
        if device == "cuda":
            assert compiled.stats()["replays"] >= 4, compiled.stats()
    same(*trainings)
