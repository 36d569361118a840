"""PyTorch's own configurations of optimizers and their errors (see ``optiminfo``)."""

from __future__ import annotations

import importlib.util
import os

import pytest

import tensorgrad as tg

from . import optiminfo

NAMES = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam",
    "RMSprop", "Rprop", "SGD",
)  # fmt: skip


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("expecttest") is None,
    reason="PyTorch and expecttest are needed for PyTorch's optimizer table",
)
@pytest.mark.parametrize("name", NAMES)
def test_optimizer(name: str) -> None:
    (info,) = [one for one in optiminfo.database() if one.name == name]
    lines = list(optiminfo.report(info, every="TENSORGRAD_PARITY_SAMPLES" in os.environ))
    assert not lines, "\n".join(lines[:20])


def test_sparse_adam_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="no sparse tensors"):
        tg.optim.SparseAdam([tg.zeros(2, requires_grad=True)])
