"""Tensors that a function leaves for its next call, ``self.h = cell(x, self.h)``, are handed on by replays."""

from __future__ import annotations

import copy

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import CompileError
from tests.compiler.beside import BACKENDS


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with tg.backend(request.param):
        yield request.param


class Recurrent(nn.Module):
    """``how``: the state keeps its history, is detached, or is what is returned itself."""

    def __init__(self, how="detached"):
        super().__init__()
        tg.manual_seed(0)
        self.cell, self.out, self.how = nn.GRUCell(3, 4), nn.Linear(4, 2), how
        self.h = None

    def forward(self, x):
        h = self.cell(x, tg.zeros(x.shape[0], 4) if self.h is None else self.h)
        self.h = h if self.how != "detached" else h.detach()
        return self.h if self.how == "returned" else self.out(h)


def beside(make, run, turns=8):
    """What an eager and a compiled run show, call by call."""
    shown = []
    for compiled in (False, True):
        model = make()
        f = tg.compile(model) if compiled else model
        shown.append([run(f, model, i) for i in range(turns)])
    assert shown[0] == shown[1]
    return f


def rows(i, n=2):
    return tg.arange(3.0 * n).reshape(n, 3) * (i + 1) / 7


@pytest.mark.parametrize("how", ["detached", "returned", "kept"])
def test_a_state_without_gradients(how):
    def run(f, model, i):
        with tg.no_grad():
            y = f(rows(i))
        return y.tolist(), model.h.tolist(), y is model.h, model.h.requires_grad

    stats = beside(lambda: Recurrent(how), run).stats()
    assert stats["replays"] >= 4 and stats["captures"] <= 4 and stats["eager"] == 0


class Layers(nn.Module):
    """A state of tensors in a tuple, of tuples where there are several layers; ``seen``: the whole sequence at once."""

    def __init__(self, count=1, *, seen=False):
        super().__init__()
        tg.manual_seed(0)
        self.cells = nn.ModuleList(nn.LSTMCell(3 if i == 0 else 4, 4) for i in range(count))
        self.whole = nn.LSTM(3, 4) if seen else None
        self.state = None

    def forward(self, x):
        if self.whole is not None:
            y, (h, c) = self.whole(x.unsqueeze(0), self.state)
            self.state = (h.detach(), c.detach())
            return y.square().sum()
        made = []
        for i, cell in enumerate(self.cells):
            h, c = cell(x, None if self.state is None else self.state[i] if len(self.cells) > 1 else self.state)
            made.append((h.detach(), c.detach()))
            x = h
        self.state = tuple(made) if len(made) > 1 else made[0]
        return x.square().sum()

    def told(self):
        parts = self.state if isinstance(self.state[0], tuple) else (self.state,)
        return type(self.state) is tuple, [[t.tolist() for t in part] for part in parts]


@pytest.mark.parametrize("make", [Layers, lambda: Layers(2), lambda: Layers(seen=True)], ids=["one", "two", "whole"])
def test_a_state_in_a_tuple(make):
    def run(f, model, i):
        if i == 6:
            model.state = None
        if i == 10:  # as a user may keep it
            model.state = [*model.state] if model.whole is None else (model.state[0] * 2, model.state[0])
        model.zero_grad()
        y = f(rows(i))
        y.backward()
        return y.item(), model.told(), [p.grad is None or p.grad.tolist() for p in model.parameters()]

    stats = beside(make, run, 16).stats()
    assert stats["replays"] >= 6 and stats["captures"] <= 7


def test_a_step_through_a_detached_state():
    def run(f, model, i):
        model.zero_grad()
        y = f(rows(i))
        y.square().sum().backward()
        return y.tolist(), model.h.tolist(), model.h.requires_grad, [p.grad.tolist() for p in model.parameters()]

    assert beside(Recurrent, run).stats()["replays"] >= 4


@pytest.mark.parametrize("how", ["kept", "returned"])
def test_backward_goes_through_time(how):
    """Three calls, a pass through all of them, and the state is cut off its history."""

    def run(f, model, i):
        model.zero_grad()
        loss = sum(f(rows(i + k)).square().sum() for k in range(3))
        live = model.h.grad_fn is not None
        loss.backward()
        shown = loss.item(), live, [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
        model.h = model.h.detach()
        return shown, model.h.tolist()

    assert beside(lambda: Recurrent(how), run).stats()["replays"] >= 12


def test_a_state_that_is_set_between_calls():
    def run(f, model, i):
        if i == 4:
            model.h = tg.ones(2, 4)
        if i == 6:
            model.h = None
        if i == 8:
            model.h.mul_(0.5)
        with tg.no_grad():
            y = f(rows(i, 2 if i < 10 else 3)) if i != 10 else None
        if i == 10:
            model.h = tg.ones(3, 4)
        return None if y is None else y.tolist(), model.h.tolist()

    assert beside(Recurrent, run, 14).stats()["replays"] >= 6


def test_buffers_lists_globals_and_closures():
    class Averages(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", tg.zeros(3))
            self.last = [tg.zeros(3), tg.zeros(3)]

        def forward(self, x):
            with tg.no_grad():
                self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
                self.last[0], self.last[1] = self.last[1], x.sum(0)
            return x - self.mean + self.last[0]

    def run(f, model, i):
        state = {name: value.tolist() for name, value in model.state_dict().items()}
        return f(rows(i)).tolist(), model.mean.tolist(), [t.tolist() for t in model.last], state

    assert beside(Averages, run).stats()["replays"] == 5

    results = []
    for compiled in (False, True):
        total = tg.zeros(3)

        def running(x):
            nonlocal total
            total = total + x.sum(0)
            return total * 2

        f = tg.compile(running) if compiled else running
        results.append([(f(rows(i)).tolist(), total.tolist()) for i in range(7)])
    assert results[0] == results[1] and f.stats()["replays"] == 4


def test_one_tensor_in_two_places_stays_one():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.x = tg.zeros(3), tg.zeros(3), tg.zeros(2, 3)

        def forward(self, x):
            self.x = x
            self.a = self.b = (self.a + x.sum(0)).detach()
            return self.a

    def run(f, model, i):
        x = rows(i)
        y = f(x)
        y.add_(1)
        return y is model.a, model.a is model.b, model.x is x, model.b.tolist()

    assert beside(Both, run).stats()["replays"] >= 4


def test_a_state_that_is_changed_now_and_then():
    class Every(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = tg.zeros(3)

        def forward(self, x, keep):
            if keep:
                self.h = self.h + x
            return self.h * 2

    def run(f, model, i):
        before = model.h
        y = f(tg.ones(3) * i, i < 4 or i % 2 == 0)
        return y.tolist(), model.h.tolist(), model.h is before

    assert beside(Every, run, 12).stats()["replays"] >= 5


def test_a_step_with_its_optimizer():
    results = []
    for compiled in (False, True):
        model = Recurrent()
        optimizer = tg.optim.Adam(model.parameters(), lr=0.01)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        f = tg.compile(step) if compiled else step
        results.append([(f(rows(i)).item(), model.h.tolist()) for i in range(9)])
        results[-1].append([p.tolist() for p in model.parameters()])
    assert results[0] == results[1] and f.stats()["replays"] >= 4


def test_any_batch():
    ours, model = Recurrent(), Recurrent()
    f = tg.compile(ours, dynamic=True)
    for n in (4, 4, 4, 3, 6, 5, 7, 9):
        ours.h = model.h = tg.ones(n, 4)
        with tg.no_grad():
            assert f(rows(1, n)).tolist() == model(rows(1, n)).tolist()
            assert ours.h.tolist() == model.h.tolist()
    assert f.stats()["captures"] == 7 and f.stats()["replays"] == 1  # of 5, between 3 and 6


def test_what_raises_leaves_the_state_of_an_eager_run():
    class Failing(Recurrent):
        def forward(self, x):
            y = super().forward(x)
            if x.shape[0] == 3:
                raise ValueError("three rows")
            return y

    def run(f, model, i):
        try:
            if i == 4:
                model.h = tg.ones(3, 4)
            y = f(rows(i, 3 if i == 4 else 2))
        except ValueError:
            shown = model.h.tolist()
            model.h = tg.zeros(2, 4)
            return shown
        return y.tolist(), model.h.tolist()

    assert beside(Failing, run, 9).stats()["replays"] >= 4


def test_second_derivatives_leave_the_state_alone():
    def run(f, model, i):
        x = rows(i).requires_grad_()
        y = f(x)
        kept = model.h
        (g,) = tg.autograd.grad(y.square().sum(), x, create_graph=True)
        (gg,) = tg.autograd.grad(g.square().sum(), x)
        return y.tolist(), g.tolist(), gg.tolist(), model.h is kept, model.h.tolist()

    assert beside(Recurrent, run).stats()["replays"] >= 4


def test_what_people_see(tmp_path):
    model = Recurrent()
    f = tg.compile(model)
    with tg.no_grad():
        for i in range(5):
            f(rows(i))
    assert "arguments: arg0" in f.explain() and len(f.programs) >= 1
    with pytest.raises(CompileError, match=r"leaves tensors for its next call \(f\.h\).*copy_"):
        f.save(tmp_path / "f.tgp")
    assert copy.deepcopy(model).h.tolist() == model.h.tolist()
    f.forget()
    assert f.programs == []
    with tg.no_grad():
        for i in range(5):
            f(rows(i))
    assert f.stats()["replays"] >= 1


def test_a_number_beside_the_state_is_refused_as_before():
    class Counting(Recurrent):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) * self.calls

    f = tg.compile(Counting())
    with pytest.raises(CompileError, match=r"changes what it rests on"):
        for i in range(5):
            f(rows(i))


def test_what_is_handed_on_is_in_programs_with_fallback_too():
    def script(wrap):
        model, shown = Recurrent(), []
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

        @wrap
        def step(x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        for i in range(8):
            shown.append((step(rows(i)).item(), model.h.tolist()))
        return shown, step

    expected, _ = script(lambda step: step)
    shown, step = script(lambda step: tg.compile(step, fallback=True))
    assert shown == expected
    assert step.stats()["replays"] >= 4 and step.stats()["eager"] == 0, step.stats()


def test_with_fallback_what_is_handed_on_gives_way_to_parts_where_a_number_is_read():
    def script(wrap):
        seen, shown = {"last": tg.zeros(()), "calls": 0.0}, []

        @wrap
        def step(x, reads):
            total = (x * 2).sum() + seen["last"]
            seen["last"] = total.detach() * 0.5
            if reads:
                seen["calls"] += total.item()
            y = total * 3
            return y

        for i in range(12):
            shown.append((step(rows(i), i > 5).item(), seen["last"].item(), seen["calls"]))
        return shown, step

    expected, _ = script(lambda step: step)
    shown, step = script(lambda step: tg.compile(step, fallback=True))
    assert shown == expected
    assert step.stats()["calls"] == 12, step.stats()


@pytest.mark.parametrize("fallback", [False, True])
def test_a_parameter_that_takes_the_place_of_what_was_left(fallback):
    """As pruning does when it is made permanent."""

    def script(wrap):
        layer, shown = tg.nn.Linear(3, 2), []
        tg.nn.utils.prune.random_unstructured(layer, "weight", 0.5)
        optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)

        @wrap
        def step(x):
            optimizer.zero_grad()
            loss = layer(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        for i in range(24):
            if i == 8:
                tg.nn.utils.prune.remove(layer, "weight")
            shown.append(step(tg.ones(4, 3) * i).item())
        return shown, step

    tg.manual_seed(0)
    expected, _ = script(lambda step: step)
    tg.manual_seed(0)
    shown, step = script(lambda step: tg.compile(step, fallback=fallback))
    assert shown == pytest.approx(expected, rel=1e-5)
    assert step.stats()["replays"] >= 14, step.stats()
