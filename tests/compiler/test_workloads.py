"""The benchmarks' workloads, as they are and compiled, through changes that a seeded generator draws."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from benchmarks import data, more_workloads, workloads
from tests.compiler.beside import BACKENDS, beside

TURNS = 12


class Narrow:
    """The namespace with layers of an eighth of the width: the same calls on less."""

    def __init__(self, of: Any):
        self.of = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.of, name)
        if name == "nn":
            return Narrow(found)
        if name not in ("Linear", "Conv2d", "BatchNorm2d", "LSTM", "zeros"):
            return found
        return lambda *sizes, **options: found(*map(narrow, sizes), **options)


def narrow(size: Any) -> Any:
    if type(size) is not int or size < 32:
        return size
    return size // 8 if size < 1 << 16 else size >> 10


# what is cut from the batches, and whether their number may change
CUTS: dict[str, tuple[Callable[..., Any], Any, bool]] = {
    "tiny": (workloads.tiny, None, True),
    "mlp": (workloads.mlp, np.s_[:12, :98], True),
    "cnn": (workloads.cnn, np.s_[:6], True),
    "resnet18": (workloads.resnet18, np.s_[:3, :, :8, :8], True),
    "gpt": (lambda ns: small_gpt(layers=2, heads=2, width=32, context=12), None, False),
    "gpt-micro": (lambda ns: small_gpt(layers=1, heads=4, width=16, context=8), None, False),
    "lstm": (workloads.lstm, np.s_[:6, :8, :32], True),
    "chain": (workloads.chain, None, False),
    "autoencoder": (more_workloads.autoencoder, np.s_[:6, :98], True),
}
MORE = ("mlp-small", "mlp-deep", "logistic", "vae", "lenet", "lstm-small", "policy", "pinn", "factors")


def small_gpt(**sizes: int) -> Any:
    return workloads.gpt(tg, batch=3, vocabulary=40, **sizes)


def test_every_workload_is_here() -> None:
    assert workloads.WORKLOADS.keys() <= CUTS.keys()


def build(name: str) -> tuple[Any, bool]:
    """A job, and whether its batches may have any size."""
    if name in MORE:
        job, cut, resizes = more_workloads.MORE[name](tg), np.s_[:6], name != "pinn"
    else:
        make, cut, resizes = CUTS[name]
        job = make(tg if name == "tiny" else Narrow(tg))
    shapes = {key: tuple(value.shape) for key, value in job.model.state_dict().items()}
    job.model.load_state_dict({key: tg.tensor(value) for key, value in data.initial_state(shapes).items()})
    if cut is not None:
        parts = cut if isinstance(cut, tuple) else (cut,)
        job.batches = [tuple(x[parts[: x.ndim]].clone() for x in batch) for batch in job.batches]
    return job, resizes


class Life:
    """What happens to a job: in each turn something is drawn, and then a few steps are made."""

    def __init__(self, name: str, compiled: Callable[[Any], Any], show: Any):
        self.job, self.resizes = build(name)
        self.name = name
        self.show = show
        self.draw = np.random.default_rng(zlib.crc32(name.encode()))
        job = self.job

        def step(*batch: Any) -> Any:
            job.optimizer.zero_grad()
            loss = job.loss(*batch)
            loss.backward()
            job.optimizer.step()
            return loss.detach()

        self.step, self.loss = compiled(step), compiled(job.loss)
        self.schedule = tg.optim.lr_scheduler.ExponentialLR(self.job.optimizer, 0.9)
        self.number = 0
        self.size: int | None = None

    def batch(self) -> Any:
        self.number += 1
        found = self.job.batches[self.number % len(self.job.batches)]
        return tuple(x[: self.size] for x in found)

    def steps(self, count: int = 3) -> None:
        self.show([self.step(*self.batch()) for _ in range(count)])

    def end(self) -> None:
        self.show(list(self.job.model.parameters()), list(self.job.model.buffers()))

    # --- what may happen

    def another_size(self) -> None:
        if self.resizes:
            self.size = int(self.draw.integers(2, len(self.job.batches[0][0]) + 1))

    def another_rate(self) -> None:
        self.job.optimizer.param_groups[0]["lr"] *= 0.7

    def a_scheduled_rate(self) -> None:
        self.schedule.step()

    def eval_in_between(self) -> None:
        self.job.model.eval()
        modes = [tg.enable_grad] if self.name == "pinn" else [tg.no_grad, tg.inference_mode]  # a derivative is its loss
        with modes[int(self.draw.integers(len(modes)))]():
            self.show(self.loss(*self.batch()), self.loss(*self.batch()))
        self.job.model.train()

    def weights_loaded(self) -> None:
        state = self.job.model.state_dict()
        self.job.model.load_state_dict({key: v * 0.9 if v.is_floating_point() else v for key, v in state.items()})

    def a_parameter_replaced(self) -> None:
        parameters = list(self.job.model.parameters())
        p = parameters[int(self.draw.integers(len(parameters)))]
        p.data = p.data * 1.01

    def gradients_added_up(self) -> None:
        self.job.optimizer.zero_grad()
        for _ in range(3):
            loss = self.loss(*self.batch())
            loss.backward()
            self.show(loss)
        self.job.optimizer.step()

    def gradients_zeroed(self) -> None:
        self.job.optimizer.zero_grad(set_to_none=False)
        self.loss(*self.batch()).backward()
        self.job.optimizer.step()

    def other_threads(self) -> None:
        count = int(self.draw.integers(1, 3))
        if tg.get_backend() != "numpy":  # which has none of its own
            tg.set_num_threads(count)

    def autocast(self) -> None:
        for _ in range(2):
            with tg.autocast("cpu", dtype=tg.bfloat16):
                loss = self.loss(*self.batch())
            self.job.optimizer.zero_grad()
            loss.backward()
            self.show(loss)


EVENTS = (
    Life.another_size, Life.another_rate, Life.a_scheduled_rate, Life.eval_in_between, Life.weights_loaded,
    Life.a_parameter_replaced, Life.gradients_added_up, Life.gradients_zeroed, Life.other_threads, Life.autocast,
)  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*CUTS, *MORE])
def test_a_workload_trains_as_it_does_eagerly(name: str, backend: str) -> None:
    before = tg.get_num_threads()

    def script(compiled: Any, show: Any) -> None:
        life = Life(name, compiled, show)
        life.steps(4)
        events = [*EVENTS, *(EVENTS[i] for i in life.draw.integers(len(EVENTS), size=TURNS - len(EVENTS)))]
        for i in life.draw.permutation(len(events)):
            events[i](life)
            life.steps()
        life.end()

    try:
        found = [one.stats() for one in beside(script, backend)]
    finally:
        tg.set_num_threads(before)
    assert len(found) == 2 and not any(stats["eager"] for stats in found), found
    assert sum(stats["replays"] for stats in found) >= 20, found
