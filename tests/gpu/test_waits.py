"""What waits for the device in an eager step, and what asks the driver: as little as can be."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import functional as F
from tensorgrad.testing.strict_array import no_traffic
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda


def test_backward_does_not_look_at_indices_again() -> None:
    with strict_cuda():
        table, head = nn.Embedding(10, 4, device="cuda"), nn.Linear(4, 5, device="cuda")
        ids, classes = tg.tensor([1, 9, 0], device="cuda"), tg.tensor([4, 0, 2], device="cuda")
        for reduction in ("mean", "sum"):
            loss = F.cross_entropy(head(table(ids)), classes, reduction=reduction)
            with no_traffic():
                loss.backward()
        for wrong in ([1, 10, 0], [1, -1, 0]):
            with pytest.raises(IndexError):
                table(tg.tensor(wrong, device="cuda"))
        with pytest.raises(IndexError):
            F.cross_entropy(head(table(ids)), tg.tensor([4, 0, 5], device="cuda"))


def test_autocast_asks_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def described(self: StrictCupyBackend) -> str:
        raise AssertionError("a device's properties take milliseconds")

    with strict_cuda():
        monkeypatch.setattr(StrictCupyBackend, "describe", described)
        assert tg.cuda.is_available()
        with tg.autocast("cuda", dtype=tg.bfloat16):
            assert (tg.ones(2, 2, device="cuda") @ tg.ones(2, 2, device="cuda")).dtype == tg.bfloat16
