"""Tensors in other processes: what ``share_memory_`` moved is the same memory there, the rest is copied."""

from __future__ import annotations

import os
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import multiprocessing

METHODS = [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()]


def write(model: tg.nn.Module, row: tg.Tensor, plain: tg.Tensor, end: Any) -> None:
    with tg.no_grad():
        model.weight.add_(1)
        row.fill_(7)
        plain.fill_(7)
    end.send((type(model.weight).__name__, model.weight.requires_grad, model.tied is model.weight, row))
    end.recv()  # until the row has arrived


@pytest.mark.skipif(os.name == "nt", reason="descriptors can't be sent")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
def test_shared_memory_reaches_another_process(method: str) -> None:
    context = multiprocessing.get_context(method)
    model = tg.nn.Linear(2, 2, bias=False)
    model.tied = model.weight
    model.share_memory()
    before = model.weight.detach().clone()
    rows, plain, empty = tg.zeros(3, 2).share_memory_(), tg.zeros(2), tg.zeros(0).share_memory_()
    assert rows.is_shared() and rows[1].is_shared() and empty.is_shared() and not plain.is_shared()
    ours, theirs = context.Pipe()

    process = context.Process(target=write, args=(model, rows[1], plain, theirs))
    process.start()
    assert ours.poll(60)
    kind, tracked, tied, row = ours.recv()
    ours.send(None)
    process.join(60)
    ours.close(), theirs.close()

    assert process.exitcode == 0 and (kind, tracked, tied) == ("Parameter", True, True)
    assert model.weight.tolist() == (before + 1).tolist()
    assert rows.tolist() == [[0, 0], [7, 7], [0, 0]] and plain.tolist() == [0, 0]
    row.zero_()  # sent back, and still the same memory
    assert rows.tolist() == [[0, 0]] * 3


def test_views_are_not_moved() -> None:
    with pytest.raises(RuntimeError, match="view"):
        tg.ones(3)[1:].share_memory_()
