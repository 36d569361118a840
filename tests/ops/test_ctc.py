"""CTC: its derivatives behind log_softmax, sequences that do not fit, lengths in every form."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.autograd.check import gradcheck, gradgradcheck
from tensorgrad.nn import functional as F

TARGETS = tg.tensor([[1, 1, 2], [3, 0, 0]])


def _loss(logits: tg.Tensor) -> tg.Tensor:
    return F.ctc_loss(logits.log_softmax(2), TARGETS, (6, 4), (3, 1), reduction="sum")


def test_derivatives_of_logits() -> None:
    logits = tg.randn(6, 2, 4, dtype=tg.float64, generator=tg.Generator().manual_seed(0)).requires_grad_()
    gradcheck(_loss, (logits,))
    gradgradcheck(_loss, (logits,))


def test_paths_are_counted() -> None:
    # two steps of even chances for 3 classes: "a" is said by a-, -a, aa
    logs = tg.full((2, 1, 3), math.log(1 / 3), dtype=tg.float64)
    assert F.ctc_loss(logs, tg.tensor([[1]]), (2,), (1,)).item() == pytest.approx(-math.log(3 / 9))
    assert F.ctc_loss(logs, tg.tensor([[1, 2]]), (2,), (2,), reduction="sum").item() == pytest.approx(-math.log(1 / 9))
    assert F.ctc_loss(logs, tg.zeros(1, 0).long(), (2,), (0,)).item() == pytest.approx(-math.log(1 / 9))


def test_what_can_not_be_said_in_time_costs_infinitely_or_nothing() -> None:
    logits = tg.randn(3, 2, 4, requires_grad=True)
    targets = tg.tensor([[1, 1, 1], [1, 2, 3]])
    losses = F.ctc_loss(logits.log_softmax(2), targets, (3, 3), (3, 3), reduction="none")
    assert math.isinf(losses[0].item())
    assert math.isfinite(losses[1].item())
    F.ctc_loss(logits.log_softmax(2), targets, (3, 3), (3, 3), zero_infinity=True).backward()
    assert not logits.grad[:, 0].any()
    assert bool(tg.isfinite(logits.grad).all())
    assert bool(logits.grad[:, 1].any())


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_no_gradient_reaches_what_lies_behind_the_end(backend: str) -> None:
    with tg.backend(backend):
        logs = tg.randn(4, 4, 3).log_softmax(2).requires_grad_()
        losses = F.ctc_loss(logs, tg.tensor([[1, 2]] * 4), (0, 2, 1, 0), (0, 2, 2, 1), reduction="none")
        assert losses.isinf().tolist() == [False, False, True, True]
        losses.backward(tg.ones(4))
        assert logs.grad.isnan().all(2).tolist() == [[False, False, True, False]] + [[False] * 4] * 3
        for sequence, length in enumerate((0, 2, 1, 0)):
            assert (logs.grad[length:, sequence] == 0).all()


def test_forms_of_targets_and_lengths() -> None:
    logs = tg.randn(6, 2, 4).log_softmax(2)
    want = F.ctc_loss(logs, TARGETS, (6, 4), (3, 1))
    assert tg.equal(F.ctc_loss(logs, tg.tensor([1, 1, 2, 3]), tg.tensor([6, 4]), tg.tensor([3, 1])), want)
    assert tg.equal(F.ctc_loss(logs, TARGETS, np.array([6, 4]), [3, 1]), want)
    single = F.ctc_loss(logs[:, 0], TARGETS[0], tg.tensor(6), tg.tensor(3))
    assert tg.allclose(single, F.ctc_loss(logs[:, :1], TARGETS[:1], (6,), (3,)))


def test_a_compiled_step_takes_other_lengths_and_refuses_wrong_ones() -> None:
    def loss(logits: tg.Tensor, targets: tg.Tensor, lengths: tg.Tensor) -> tg.Tensor:
        steps = tg.full((2,), 6, dtype=tg.int64)
        return F.ctc_loss(logits.log_softmax(2), targets, steps, lengths)

    compiled = tg.compile(loss)
    logits = tg.randn(6, 2, 4)
    for lengths in ([3, 1], [1, 2], [0, 3]):
        given = logits, tg.tensor([[1, 3, 2], [3, 1, 2]]), tg.tensor(lengths)
        assert tg.allclose(compiled(*given), loss(*given), rtol=1e-6)
    assert len(compiled.programs) == 1
    with pytest.raises(RuntimeError, match="target_lengths must be from 0 to 3, got 4"):
        compiled(logits, tg.tensor([[1, 3, 2], [3, 1, 2]]), tg.tensor([3, 4]))
    with pytest.raises(RuntimeError, match="label 4 is none of the 4 classes"):
        compiled(logits, tg.tensor([[1, 4, 2], [3, 1, 2]]), tg.tensor([3, 1]))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input_lengths": (7, 4)}, RuntimeError, "input_lengths"),
        ({"target_lengths": (3,)}, RuntimeError, "target_lengths"),
        ({"targets": tg.tensor([1, 1, 2, 3]), "target_lengths": (3,)}, RuntimeError, "target_lengths has 1 numbers"),
        ({"targets": tg.tensor([1, 1, 2])}, RuntimeError, "3 concatenated targets for lengths"),
        ({"targets": tg.tensor([[1, 1, 4], [3, 0, 0]])}, RuntimeError, "none of the 4 classes"),
        ({"targets": tg.tensor([[1.0]])}, RuntimeError, "integers"),
        ({"input_lengths": "ab"}, TypeError, "input_lengths must be a Tensor or a sequence of integers"),
        ({"input_lengths": (6.0, 4.0)}, TypeError, "input_lengths must be an integer, got 6.0"),
        ({"target_lengths": None}, TypeError, "target_lengths must be a Tensor or a sequence of integers"),
        ({"target_lengths": (True, 1)}, TypeError, "target_lengths must be an integer, got True"),
        ({"target_lengths": (2**70, 1)}, ValueError, "target_lengths must fit into 64 bits"),
        ({"blank": 4}, RuntimeError, "blank"),
        ({"reduction": "median"}, ValueError, "reduction"),
    ],
)
def test_errors(change: dict, error: type, words: str) -> None:
    given = {"targets": TARGETS, "input_lengths": (6, 4), "target_lengths": (3, 1)} | change
    with pytest.raises(error, match=words):
        F.ctc_loss(tg.randn(6, 2, 4).log_softmax(2), **given)
