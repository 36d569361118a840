"""Hooks and calls that raise on device ``cuda``: no capture stays open, and what follows is computed as ever."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.backends.cupy import words
from tensorgrad.backends.cupy.capture import lane_of
from tensorgrad.backends.cupy.checks import _noted
from tensorgrad.backends.cupy.words import noted
from tensorgrad.compiler.program import Call
from tensorgrad.testing import strict_memory, strict_stream
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda


class Raised(Exception):
    pass


class Stopped(BaseException):
    """As a KeyboardInterrupt: nobody may swallow it, whose class pytest would take for its own."""


@pytest.fixture(autouse=True)
def cuda() -> Iterator[StrictCupyBackend]:
    with strict_cuda() as backend:
        yield backend


def nothing_is_left(backend: StrictCupyBackend) -> None:
    """No stream is captured or current that was not before, and no thread notes or allocates as within a graph."""
    lane = lane_of(backend, 0)
    assert not lane.stream.is_capturing() and strict_stream.current() is strict_stream.Stream.null
    assert strict_stream.capturing() is None and strict_memory.chosen() is None
    assert _noted.checks is None and noted() is None and not backend._open.at_once
    assert gc.isenabled() and tg.is_grad_enabled() and not tg.is_autocast_enabled("cuda")
    assert lane.lock.acquire(blocking=False)
    lane.lock.release()


# --- hooks

PLACES = ("tensor", "leaf", "post", "pre_forward", "forward", "pre_backward", "backward", "all_forward", "around")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.between: Callable[[Any], Any] | None = None

    def forward(self, x: Any) -> Any:
        h = self.norm(self.first(x)).relu()
        if self.between is not None:
            h.register_hook(self.between)
        return self.last(h) + self.last(h * 2)  # so that gradients of the last one are added up


def trained(place: str, kind: str, raises_in: int, backend: StrictCupyBackend) -> list[Any]:
    """What eight steps give, in one of which a hook raises at a place."""
    tg.manual_seed(0)
    model = Net().to("cuda")
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    state = {"raises": False}

    def hook(*_: Any) -> None:
        if state["raises"]:
            raise Raised

    handle: Any = None
    if place == "tensor":
        model.between = hook
    elif place == "leaf":
        model.first.weight.register_hook(hook)
    elif place == "post":
        model.last.weight.register_post_accumulate_grad_hook(hook)
    elif place == "all_forward":
        handle = nn.modules.module.register_module_forward_hook(hook)
    elif place != "around":
        register = {
            "pre_forward": "register_forward_pre_hook", "forward": "register_forward_hook",
            "pre_backward": "register_full_backward_pre_hook", "backward": "register_full_backward_hook",
        }[place]  # fmt: skip
        getattr(model.last, register)(hook)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        with tg.autocast("cuda", dtype=tg.bfloat16):
            loss = network(x).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    network = tg.compile(model) if kind == "model" else model
    if place == "around":
        network.register_forward_hook(hook)
    run = tg.compile(step) if kind == "step" else step
    seen: list[Any] = []
    side = tg.cuda.Stream()
    try:
        for i in range(8):
            state["raises"] = i == raises_in
            x = tg.full((3, 4), 1.0, device="cuda") * tg.arange(3.0, device="cuda")[:, None] + float(i)
            try:
                with tg.cuda.stream(side):
                    seen.append(run(x).item())
            except Raised:
                seen.append("raised")
            nothing_is_left(backend)
            seen.append([None if p.grad is None else p.grad.tolist() for p in model.parameters()])
            seen.append([t.tolist() for t in (*model.parameters(), *model.buffers())])
            seen.append([s["step"].item() for s in optimizer.state.values()])
    finally:
        if handle is not None:
            handle.remove()
    assert seen.count("raised") == 1
    return seen


@pytest.mark.parametrize("raises_in", [0, 1, 5])
@pytest.mark.parametrize("place", PLACES)
def test_after_a_hook_has_raised_all_is_as_in_an_eager_run(place: str, raises_in: int, cuda: StrictCupyBackend) -> None:
    wanted = trained(place, "eager", raises_in, cuda)
    assert trained(place, "step", raises_in, cuda) == wanted
    assert trained(place, "model", raises_in, cuda) == wanted


# --- what fails while a program is captured or replayed


class Training:
    """A step of Adam with a draw, a product, a lookup and a sort between two graphs."""

    def __init__(self, compiled: bool):
        tg.manual_seed(0)
        self.table = nn.Embedding(5, 4).to("cuda")
        self.optimizer = optim.Adam(self.table.parameters(), lr=0.1)
        self.run = tg.compile(self.step) if compiled else self.step
        self.count = 0

    def step(self, at: Any) -> Any:
        self.optimizer.zero_grad()
        kept = nn.functional.dropout(self.table(at), 0.25)
        ordered = (kept * 2).sort(0)[0]
        loss = (ordered @ ordered.t()).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss

    def once(self) -> Any:
        self.count += 1
        tg.manual_seed(self.count)
        return self.run(tg.tensor([self.count % 5, 1, 4], device="cuda")).item()

    def state(self) -> list[Any]:
        states = self.optimizer.state.values()
        return [self.table.weight.tolist(), [[s[name].tolist() for name in sorted(s)] for s in states]]

    def again(self) -> None:
        """Draw as the last call did."""
        self.count -= 1


class Failing:
    """Raises instead of the call of this number, from now on."""

    def __init__(self, whole: Callable[..., Any], at: int, error: BaseException):
        self.whole, self.at, self.error, self.calls = whole, at, error, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return self.whole(*args, **kwargs)


def fails(training: Training, failing: Failing) -> bool:
    """Whether a step raises this error."""
    try:
        training.once()
    except type(failing.error):
        return True
    return False


def goes_on(ours: Training, eager: Training, backend: StrictCupyBackend) -> None:
    nothing_is_left(backend)
    for _ in range(3):
        assert ours.once() == eager.once() and ours.state() == eager.state()


ERRORS = [Raised("no"), Stopped("now"), MemoryError("full")]
errors = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


@errors
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("name", ["embedding", "dropout", "matmul", "adam_"])
def test_a_call_that_fails_in_the_first_replay(
    name: str, nth: int, error: BaseException, cuda: StrictCupyBackend
) -> None:
    """Its first run is the replay's own, the second is captured alone, the third is in a graph of the program."""
    ours, eager = Training(True), Training(False)
    for _ in range(2):
        assert ours.once() == eager.once()
    before = ours.state()
    runner = ours.run.programs[-1].runners[0]
    at = next(i for i, step in enumerate(runner.program.steps) if isinstance(step, Call) and step.op.name == name)
    runner.kernels[at] = failing = Failing(runner.kernels[at], nth, error)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        raised = fails(ours, failing)
    assert failing.calls >= nth
    assert raised == (nth == 1 or isinstance(error, Stopped))
    assert len(warned) == (nth == 3 and not raised)
    if raised and nth < 3 and (nth == 1 or name != "adam_"):
        assert ours.state() == before  # a step that was not done is not counted
        ours.again()
    else:  # what is captured is captured once the call has been run
        eager.once()
        assert ours.state() == eager.state()
    goes_on(ours, eager, cuda)
    says = runner.told()
    if nth == 3 and not raised:
        assert says[0].startswith(f"replayed in Python, call by call: capturing it failed ({type(error).__name__}: ")
    else:
        assert says[0].startswith("CUDA graphs: ")
        assert any(f"{name} ({type(error).__name__}: " in line for line in says) == (nth == 2 and not raised)


@errors
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("what", ["launch", "words", "ordinary"])
def test_what_fails_in_a_replay(
    what: str, nth: int, error: BaseException, cuda: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two graphs the second one takes the step."""
    ours, eager = Training(True), Training(False)
    for _ in range(4):
        assert ours.once() == eager.once()
    before = ours.state()
    pieces = ours.run.programs[-1].runners[0].pieces
    with monkeypatch.context() as patch:
        if what == "launch":
            failing = Failing(strict_stream.Graph.launch, nth, error)
            patch.setattr(strict_stream.Graph, "launch", lambda *args: failing(*args))
        elif what == "words":
            failing = Failing(words.put_words, nth, error)
            patch.setattr(words, "put_words", failing)
        else:
            failing = Failing(pieces.ordinary[0].kernel, 1, error)
            patch.setattr(pieces.ordinary[0], "kernel", failing)
        assert fails(ours, failing)
    assert ours.state() == before
    ours.again()
    goes_on(ours, eager, cuda)
    assert ours.run.programs[-1].runners[0].pieces is pieces
