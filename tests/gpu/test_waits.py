"""What waits for the device in an eager step, and what asks the driver: as little as can be."""

from __future__ import annotations

from collections.abc import Callable

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


def rows(at: tg.Tensor) -> tg.Tensor:
    return at[:, None].expand(3, 2)


def zeros() -> tg.Tensor:
    return tg.zeros(3, 2, device="cuda")


INDEXED: dict[str, Callable[[tg.Tensor, tg.Tensor], tg.Tensor]] = {
    "index": lambda x, at: x[at],
    "index_select": lambda x, at: x.index_select(0, at),
    "gather": lambda x, at: x.gather(0, rows(at)),
    "scatter": lambda x, at: zeros().scatter(0, rows(at), x),
    "scatter_add": lambda x, at: zeros().scatter_add(0, rows(at), x),
    "amax": lambda x, at: zeros().scatter_reduce(0, rows(at), x, "amax"),
    "prod": lambda x, at: (zeros() + 2).scatter_reduce(0, rows(at), x, "prod"),
    "index_add": lambda x, at: zeros().index_add(0, at, x),
    "index_copy": lambda x, at: zeros().index_copy(0, at, x),
    "index_put": lambda x, at: zeros().index_put((at,), x),
    "accumulate": lambda x, at: zeros().index_put((at,), x, accumulate=True),
    "take": lambda x, at: x.take(at),
    "embedding": lambda x, at: F.embedding(at, x),
    "embedding_bag": lambda x, at: F.embedding_bag(at[None], x),
    "nll_loss": lambda x, at: F.nll_loss(x, at % 2),
    "max": lambda x, at: x.max(0)[0],
    "sort": lambda x, at: x.sort(0)[0],
    "topk": lambda x, at: x.topk(2, 0)[0],
    "median": lambda x, at: x.median(0)[0],
    "cummax": lambda x, at: x.cummax(0)[0],
    "max_pool": lambda x, at: F.max_pool2d(x.expand(1, 1, 3, 2), 2, 1) + F.adaptive_max_pool2d(x[None, None], (2, 1)),
    "max_unpool": lambda x, at: F.max_unpool1d(x[None, None, :, 0], at[None, None], 2),
}


@pytest.mark.parametrize("name", INDEXED)
def test_gradients_do_not_look_at_indices_that_forward_has_looked_at(name: str) -> None:
    found = []
    for looks in (True, False):
        with strict_cuda():
            at = tg.tensor([0, 2, 1]).to("cuda")
            x = tg.tensor([[1.0, -2.0], [3.0, 0.5], [2.0, 4.0]]).to("cuda").requires_grad_()
            loss = INDEXED[name](x, at).square().sum()
            if looks:  # by ops, as for further derivatives
                x.grad = tg.autograd.grad(loss, x, create_graph=True)[0].detach()
            else:
                with no_traffic():
                    loss.backward()
            assert x.grad is not None
            found.append(x.grad.tolist())
    assert found[0] == found[1]
