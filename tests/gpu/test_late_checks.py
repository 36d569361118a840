"""Indices on device ``cuda`` that are looked at later: nobody waits for them, and no number of a wrong one is seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import config, nn
from tensorgrad.backends import registry
from tensorgrad.errors import IndexOutOfRange, LinAlgError
from tensorgrad.nn import functional as F
from tensorgrad.testing.strict_array import no_traffic
from tensorgrad.testing.strict_backend import strict_cuda
from tensorgrad.testing.strict_namespace import xp


@pytest.fixture(autouse=True)
def cuda() -> Iterator[Any]:
    with registry.backend("numpy"), strict_cuda(devices=2) as backend:
        config.set("cuda_checks", "later")
        try:
            yield backend
            backend.settle()
        finally:
            config.unset("cuda_checks")


def on(device: str, *numbers: int) -> tg.Tensor:
    return tg.tensor(numbers).to(device)


CALLS: dict[str, Callable[[tg.Tensor, tg.Tensor], tg.Tensor]] = {
    "embedding": lambda x, at: F.embedding(at, x),
    "index": lambda x, at: x[at],
    "gather": lambda x, at: x.gather(0, at[:, None].expand(3, 2)),
    "index_put": lambda x, at: x.clone().index_put((at,), tg.ones_like(x[:1])),
    "index_add": lambda x, at: tg.zeros_like(x).index_add(0, at, x),
    "cross_entropy": lambda x, at: F.cross_entropy(x.T.expand(3, 2, 3)[..., 0], at.clamp_min(0) % 4),
    "one_hot": lambda x, at: F.one_hot(at, 3),
    "index_copy": lambda x, at: x.clone().index_copy(0, at, x),
    "index_fill": lambda x, at: x.clone().index_fill_(0, at, 1.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_error_comes_before_its_numbers_do(name: str) -> None:
    call = CALLS[name]
    x, good, bad = tg.arange(6.0).reshape(3, 2).cuda(), on("cuda", 0, 1, 1), on("cuda", 0, 3, 7)
    with no_traffic():
        right, wrong = call(x, good), call(x, bad)
    with pytest.raises(IndexOutOfRange, match=r"\(at .*test_late_checks\.py:\d+ in <lambda>") as told:
        wrong.tolist()
    assert name in str(told.value)
    assert right.tolist() == call(x.cpu(), good.cpu()).tolist()  # it is told once, and all goes on


WAITS: dict[str, Callable[[tg.Tensor], Any]] = {
    "item": lambda y: y.sum().item(), "bool": lambda y: bool((y > 0).all()), "cpu": lambda y: y.cpu(),
    "print": str, "synchronize": lambda y: tg.cuda.synchronize(),
    "stream": lambda y: tg.cuda.current_stream().synchronize(),
    "event": lambda y: tg.cuda.current_stream().record_event().synchronize(),
    "asarray": xp.asarray, "from_dlpack": xp.from_dlpack,
}  # fmt: skip


@pytest.mark.parametrize("wait", WAITS)
def test_whoever_waits_is_told(wait: str) -> None:
    y = tg.arange(3.0, device="cuda")[on("cuda", 0, 1, 5)]
    with pytest.raises(IndexOutOfRange, match=re.escape("index 5 is out of bounds for dimension 0 with size 3")):
        WAITS[wait](y)
    WAITS[wait](y)


def test_the_first_error_is_told_on_whatever_stream_and_device() -> None:
    side = tg.cuda.Stream("cuda:1")
    x = tg.arange(3.0).to("cuda:1")
    at = on("cuda:1", 4)
    tg.arange(3.0, device="cuda")[on("cuda", 0)]
    with tg.cuda.stream(side):
        x[at]
    tg.arange(3.0, device="cuda")[on("cuda", 9)]
    with pytest.raises(IndexOutOfRange, match="index 4"):
        tg.ones(1, device="cuda").item()


def test_indices_that_were_changed_since_are_told_without_their_numbers() -> None:
    at = on("cuda", 0, 5)
    tg.arange(3.0, device="cuda")[at]
    at.zero_()
    with pytest.raises(IndexOutOfRange, match="in a tensor that has been changed since"):
        tg.cuda.synchronize()


def test_matrices_that_have_no_factor_are_told_as_well() -> None:
    tg.linalg.cholesky(tg.tensor([[-1.0]], device="cuda"))
    with pytest.raises(LinAlgError, match=r"not positive-definite.* \(at .*test_late_checks"):
        tg.cuda.synchronize()


def test_what_is_kept_for_messages_has_an_end(cuda: Any) -> None:
    x, at = tg.arange(3.0, device="cuda"), on("cuda", 0, 1)
    with no_traffic():
        for _ in range(64):
            x[at]
    assert len(cuda._open.checks) == 64
    x[at]
    assert len(cuda._open.checks) == 1


def a_model(device: str, name: str) -> tuple[Any, Any, Any]:
    tg.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)).to(device)
    return model, getattr(tg.optim, name)(model.parameters(), lr=0.1), tg.amp.GradScaler("cuda", init_scale=64.0)


@pytest.mark.parametrize(("name", "scaled"), [("AdamW", False), ("AdamW", True), ("SGD", True), ("RMSprop", False)])
def test_a_training_goes_on_without_waiting_and_wrong_indices_train_nothing(name: str, scaled: bool) -> None:
    model, optimizer, scaler = a_model("cuda", name)
    good, bad, y = on("cuda", 0, 1, 4), on("cuda", 0, 1, 9), on("cuda", 0, 2, 1)

    def step(at: tg.Tensor) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(at), y)
        if scaled:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            optimizer.step()

    step(good)  # makes the state
    if name == "RMSprop":
        before = [p.tolist() for p in model.parameters()]
        with pytest.raises(IndexOutOfRange, match="index 9"):
            step(bad)  # whose kernels know of no flag: the host waits, before anything is written
    else:
        with no_traffic():
            step(good)
        before = [p.tolist() for p in model.parameters()]
        with no_traffic():
            step(bad)
            step(good)  # left out as well: the error has not been seen
        with pytest.raises(IndexOutOfRange, match="index 9"):
            tg.cuda.synchronize()
    assert [p.tolist() for p in model.parameters()] == before
    step(good)
    assert [p.tolist() for p in model.parameters()] != before
    counts = [float(state["step"]) for state in optimizer.state.values() if "step" in state]
    assert set(counts) <= {2.0 if name == "RMSprop" else 3.0}


def test_programs_start_when_all_is_known() -> None:
    x, total = tg.arange(3.0, device="cuda"), tg.zeros(3, device="cuda")

    @tg.compile
    def add(y: tg.Tensor) -> None:
        total.add_(y)

    for _ in range(4):
        add(x[on("cuda", 2, 1, 0)])
    with pytest.raises(IndexOutOfRange, match="index 8"):
        add(x[on("cuda", 2, 1, 8)])
    assert total.tolist() == [8.0, 4.0, 0.0]
    checks = tg.compile(lambda at: x[at].sum())
    for _ in range(3):
        checks(on("cuda", 1, 2))
    with pytest.raises(IndexOutOfRange, match="index 6"):
        checks(on("cuda", 1, 6))

    @tg.compile
    def scatter(at: tg.Tensor) -> None:
        total.index_add_(0, x[at].long(), tg.ones(3, device="cuda"))

    for at in ((0, 1, 1), (1, 1, 1), (1, 2, 7), (2, 2, 2)):
        before = total.tolist()
        if 7 in at:
            with pytest.raises(IndexOutOfRange, match="index 7"):
                scatter(on("cuda", *at))
            assert total.tolist() == before
        else:
            scatter(on("cuda", *at))


def test_checks_are_looked_at_at_once_unless_somebody_asks(cuda: Any) -> None:
    config.unset("cuda_checks")
    with pytest.raises(IndexOutOfRange, match="index 5"):
        tg.arange(3.0, device="cuda")[on("cuda", 5)]
    assert not cuda._open.checks
