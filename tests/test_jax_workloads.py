"""The JAX versions of the benchmarks compute what the networks they are compared with compute."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from benchmarks import workloads
from benchmarks.frameworks import number
from benchmarks.more_workloads import MORE

pytest.importorskip("jax")

from benchmarks import jax_workloads, more_jax_workloads


@pytest.mark.parametrize("name", [*jax_workloads.WORKLOADS, *more_jax_workloads.MORE])
def test_losses_of_two_steps_agree(name: str):
    """The second loss is that of updated parameters: gradients and optimizer are compared with it."""
    ours, theirs = workloads.build(name, tg), jax_workloads.build(name)
    ours.without_chance(tg)
    theirs.without_chance()
    for index in range(2):
        assert number(theirs.step(index)) == pytest.approx(number(ours.step(index)), rel=1e-4)


@pytest.mark.parametrize("name", ["mlp-deep", "vae", "bilstm", "encoder"])
def test_chance_differs_from_step_to_step_and_is_the_same_from_run_to_run(name: str):
    def drawn() -> list[float]:
        job = jax_workloads.build(name)
        job.batches = job.batches[:1]
        start = {n: p.copy() for n, p in job.params.items()}
        losses = []
        for index in range(2):
            job.params = {n: p.copy() for n, p in start.items()}  # a step takes its arguments for itself
            losses.append(number(job.step(index)))
        return losses

    first, second = drawn()
    assert first != second
    assert [first, second] == drawn()


def test_names_are_those_of_the_networks_compared_with():
    assert set(more_jax_workloads.MORE) <= set(MORE)


def test_a_workload_without_a_jax_version_is_named_with_those_that_have_one():
    with pytest.raises(LookupError, match=r"mobilenet has no JAX version; there are: tiny, .*pinn"):
        jax_workloads.build("mobilenet")
