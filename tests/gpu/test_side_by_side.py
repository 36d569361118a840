"""Gradients of slices on a device: written to their places, as on the CPU (tests/autograd/test_tape.py)."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.autograd import engine
from tensorgrad.profiler import profile
from tensorgrad.testing.strict_backend import strict_cuda
from tests.autograd.test_tape import SIDE_BY_SIDE, gradient_of_slices

needs_tape = pytest.mark.skipif(engine.native is None, reason="the C++ tape asks for it")


@pytest.mark.parametrize("hooked", (False, True))
@pytest.mark.parametrize("shape", ((4, 3, 6), (4, 40, 60)))
@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_gradients_of_slices_lie_side_by_side(name: str, shape: tuple[int, ...], hooked: bool) -> None:
    with strict_cuda():
        found = gradient_of_slices(name, shape, hooked, device="cuda")
    assert found == gradient_of_slices(name, shape, hooked, create_graph=True)


def counts(key: Any) -> dict[str, int]:
    with strict_cuda():
        x = tg.ones(4, 48, device="cuda", requires_grad=True)
        parts = key(x * 2.0)
        loss = sum(((i + 1.0) * part).sum() for i, part in enumerate(parts))
        with profile() as seen:
            loss.backward()
        found = {row.key: row.count for row in seen.key_averages()}
    return {name: found.get(name, 0) for name in ("empty_as", "zeros_as", "copy_into", "slice_backward", "add")}


@needs_tape
def test_nothing_is_filled_or_added_where_slices_cover_all_and_only_gaps_are_filled() -> None:
    whole = {"empty_as": 1, "zeros_as": 0, "copy_into": 3, "slice_backward": 0, "add": 0}
    assert counts(lambda y: y.split(16, dim=1)) == whole
    assert counts(lambda y: (y[:, 32:], y[:, :16])) == whole | {"zeros_as": 1}
    # what the rule says: a part of few rows, steps, parts of two axes
    for key in (lambda y: (y[:, :2],), lambda y: (y[:, ::2],), lambda y: (y[1:3, 2:40],), lambda y: (y[:2, :1],)):
        assert counts(key) == dict.fromkeys(whole, 0) | {"slice_backward": 1}
