"""Passes to some inputs of a compiled function: its program backward makes what they ask for and no more."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.compiler import pair
from tensorgrad.dispatch import Listener, listening
from tests.compiler.beside import BACKENDS, beside

WIDE = 64  # of a batch of so many: more than it takes to be worth a program


class Net(tg.nn.Module):
    def __init__(self, size: int = WIDE, drop: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = tg.nn.Linear(size, size), tg.nn.Linear(size, size)
        self.norm, self.drop = tg.nn.LayerNorm(size), tg.nn.Dropout(drop)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return self.second(self.drop(self.norm(self.first(x)).tanh())).sin()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that somebody is asked to run alone."""
    made: list[Any] = []
    executor = pair.executor

    def noted(program: Any, *rest: Any) -> Any:
        made.append(program)
        return executor(program, *rest)

    monkeypatch.setattr(pair, "executor", noted)
    return made


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", (8, WIDE))
def test_each_choice_of_inputs(size: int, backend: str, programs: list[Any]) -> None:
    def script(compiled: Any, show: Any) -> None:
        net = Net(size)
        f = compiled(net)
        first, *others = net.parameters()
        for _ in range(2):
            x = tg.randn(size, size, requires_grad=True)
            for wanted in ([x], [x, first], [first], others, [x, first, *others], [x]):
                y = f(x)
                show(tg.autograd.grad(y.sum(), wanted, retain_graph=True))
                show(tg.autograd.grad((y * y).sum(), wanted))  # the same node once more, as it was kept
        f(x).sum().backward(inputs=[x])
        show(x.grad, [p.grad is None for p in net.parameters()])

    [f] = beside(script, backend)
    (entry,) = f.entries
    every = len(entry.targets)
    assert {sum(asked) for asked in entry.asked} == ({1, 2, every - 2} if size == WIDE else set())
    products = [[c.attrs["needs"] for c in p.all_calls if c.op.name == "linear_backward"] for p in programs]
    assert ([(True, False, False)] * 2 in products) == (size == WIDE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_run_that_was_written_down_keeps_other_values(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        net = Net()
        f = compiled(net)
        xs = [tg.randn(WIDE, WIDE, requires_grad=True) for _ in range(3)]
        ys = [f(x) for x in xs]
        for x, y in reversed(list(zip(xs, ys, strict=True))):
            show(tg.autograd.grad(y.sum(), x, retain_graph=True), tg.autograd.grad(y.sum(), x))

    [f] = beside(script, backend)
    assert len(f.entries[0].asked) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_more_programs_than_that(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "_MOST_ASKED", 2)

    def script(compiled: Any, show: Any) -> None:
        net = Net()
        f = compiled(net)
        for _ in range(2):
            for p in net.parameters():
                show(tg.autograd.grad(f(tg.ones(WIDE, WIDE)).sum(), p))

    [f] = beside(script, backend)
    assert len(f.entries[0].asked) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_that_of_the_run(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        net = Net(drop=0.5)
        f = compiled(net)
        for _ in range(3):
            x = tg.randn(WIDE, WIDE, requires_grad=True)
            y = f(x)
            for wanted in ([x], [x, *net.parameters()], [x]):
                show(tg.autograd.grad(y.sum(), wanted, retain_graph=True))

    [f] = beside(script, backend)
    assert f.entries[0].asked


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_sizes_of_a_family(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        net = Net()
        f = compiled(lambda x: net(x))
        for size in (WIDE, 96, 80, 72):
            for _ in range(2):
                x = tg.randn(size, WIDE, requires_grad=True)
                show(tg.autograd.grad(f(x).sum(), x))

    [f] = beside(script, backend, dynamic=True)
    assert f.stats()["captures"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_input_without_a_gradient(backend: str) -> None:
    class Second(tg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            return x * w

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2, None

    def script(compiled: Any, show: Any) -> None:
        layer = tg.nn.Linear(WIDE, WIDE)
        f = compiled(lambda x, w: Second.apply(layer(x), w))
        for _ in range(3):
            x, w = tg.randn(WIDE, WIDE, requires_grad=True), tg.randn(WIDE, requires_grad=True)
            y = f(x, w).sum()
            for wanted in ([w], [x, w], [x]):
                show(tg.autograd.grad(y, wanted, retain_graph=True, allow_unused=True))

    beside(script, backend)


class _Needs(Listener):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def after(self, op: Any, inputs: Any, attrs: Any, outputs: Any) -> None:
        if op.name == "layer_norm_backward":
            self.seen.append(attrs["needs"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_of_the_function_itself_is_asked_for_the_same(backend: str) -> None:
    """Under create_graph, under vmap, and for some of many results that no program was written for."""

    def script(compiled: Any, show: Any) -> None:
        net = Net(8)
        f = compiled(net)
        for _ in range(2):
            x = tg.randn(4, 8, requires_grad=True)
            net.norm.weight.register_hook(lambda g: g * 3)
            (slope,) = tg.autograd.grad(f(x).sum(), x, create_graph=True)
            slope.square().sum().backward()
            show(slope, x.grad, [p.grad for p in net.parameters()], near=True)
            y, seen = f(x), _Needs()
            with listening(seen):
                show(tg.autograd.grad(y, x, tg.ones(2, 4, 8), is_grads_batched=True), near=True)
            show(all(needs == (True, False, False) for needs in seen.seen))

    beside(script, backend)
