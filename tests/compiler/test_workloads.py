"""The benchmarks' light workloads, as they are and compiled: a few steps, with changes between them."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from benchmarks import workloads
from tests.compiler.beside import BACKENDS, beside

LIGHT = ("tiny", "mlp-small", "logistic")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LIGHT)
def test_a_workload_trains_as_it_does_eagerly(name: str, backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        job = workloads.build(name, tg)
        step = compiled(lambda *batch: _step(job, batch))
        for index in range(9):
            if index == 4:
                job.optimizer.param_groups[0]["lr"] *= 0.5
            if index == 6:
                job.model.load_state_dict({key: value * 0.9 for key, value in job.model.state_dict().items()})
            show(step(*job.batches[index % len(job.batches)]))
        show(list(job.model.parameters()))

    [one] = beside(script, backend)
    assert one.stats()["replays"] >= 5 and not one.stats()["eager"], one.stats()


def _step(job: Any, batch: Any) -> Any:
    job.optimizer.zero_grad()
    loss = job.loss(*batch)
    loss.backward()
    job.optimizer.step()
    return loss.detach()
