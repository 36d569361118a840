"""fallback=True: a function in parts, programs between the statements that Python runs, with an eager run's bits."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import CompileError
from tensorgrad.nn import functional as F
from tests.compiler.beside import BACKENDS, beside


class Loop:
    """A training loop's objects, and what it writes down."""

    def __init__(self) -> None:
        self.first = tg.nn.Sequential(tg.nn.Linear(4, 8), tg.nn.Tanh(), tg.nn.Dropout(0.2))
        self.second = tg.nn.Linear(8, 2)
        self.both = tg.nn.Sequential(self.first, self.second)
        self.optimizer = tg.optim.Adam(self.both.parameters(), lr=0.05)
        self.seen: list[Any] = []
        self.steps = 0


def skipping(loop, x, y):
    loop.optimizer.zero_grad()
    loss = F.mse_loss(loop.both(x), y)
    if loss.item() > 1.1:
        loop.seen.append("skipped")
        return None
    loss.backward()
    tg.nn.utils.clip_grad_norm_(loop.both.parameters(), 1.0)
    loop.optimizer.step()
    return loss.detach() * 2


def through_two_parts(loop, x, y):
    """Backward goes through the second part into the first."""
    loop.optimizer.zero_grad()
    hidden = loop.first(x)
    loop.seen.append(hidden.mean().item())
    out = loop.second(hidden)
    loss = F.mse_loss(out, y) + hidden.square().mean()
    loss.backward()
    loop.optimizer.step()
    return loss.detach()


def backward_in_a_helper(loop, x, y):
    def finish(value):
        value.backward()
        loop.optimizer.step()

    loop.optimizer.zero_grad()
    loss = F.mse_loss(loop.both(x), y)
    loop.seen.append(loss.item())
    finish(loss)
    return loss.detach()


def in_a_loop(loop, x, y):
    total = tg.zeros(())
    for part, target in zip(x.split(2), y.split(2), strict=True):
        loop.optimizer.zero_grad()
        loss = F.mse_loss(loop.both(part), target)
        loss.backward()
        loop.optimizer.step()
        loop.seen.append(round(loss.item(), 3))
        if loop.seen[-1] > 3:
            continue
        total = total + loss.detach() * 2
    return total / 3


def in_a_while(loop, x, y):
    """A number of steps that the data decide."""
    count = 0
    with tg.no_grad():
        h = loop.second(loop.first(x)) * 3
        h.sub_(y)
    while h.norm().item() > 0.5 and count < 6:
        h = h * 0.5 + h.tanh() * 0.1
        count += 1
    return h.sum(), count


def in_a_with(loop, x, y):
    with tg.no_grad():
        scale = loop.both(x).abs().max()
        loop.seen.append(float(scale))
        x = x / scale
    loop.optimizer.zero_grad()
    loss = F.l1_loss(loop.both(x), y)
    loss.backward()
    loop.optimizer.step()
    return loss.detach()


def in_a_try(loop, x, y):
    loop.optimizer.zero_grad()
    loss = F.mse_loss(loop.both(x), y)
    loss.backward()
    try:
        if loss.item() > 1.3:
            raise ValueError("large")
    except ValueError as error:
        loop.seen.append(str(error))
        return -loss.detach()
    finally:
        loop.seen.append("left")
    loop.optimizer.step()
    return loss.detach() + 1


def in_branches(loop, x, y):
    x = x * 2
    x.add_(1)
    if x.shape[0] > 2:
        h = loop.first(x)
        loop.seen.append(h.sum().item())
        h = h * 2
    else:
        h = loop.first(x) + 1
    return loop.second(h) - y


def accumulating(loop, x, y):
    """Gradients of two losses, with a number read between the passes."""
    for _ in range(2):
        loss = F.mse_loss(loop.both(x), y)
        loss.backward()
        loop.seen.append(loss.item())
        x = x + 1
    norm = tg.nn.utils.clip_grad_norm_(loop.both.parameters(), 0.5)
    loop.seen.append(f"{norm.item():.3f}")
    loop.optimizer.step()
    loop.optimizer.zero_grad()
    return norm


def with_numbers(loop, x, y):
    """What Python computes goes back into tensors: another number in each call."""
    mean = loop.both(x).mean().item()
    shifted = x - mean
    loop.seen.append(mean)
    out = loop.both(shifted) * y
    return out.sum(0), mean


def counting(loop, x, y):
    """A counter is the only statement that no program may hold."""
    out = loop.both(x).detach()
    loop.steps += 1
    out = (out - y).abs()
    return out.mean()


def shapes_by_data(loop, x, y):
    h = loop.both(x).detach()
    h.add_(y)
    large = h[h > 0]
    return large.sum() + h.mean()


def from_numpy(loop, x, y):
    h = loop.both(x).detach()
    h.mul_(2)
    array = np.ones(2, "float32")
    extra = tg.tensor(array)
    return (h + extra - y).sum(0)


def lists(loop, x, y):
    """A list grows in turns in Python and where programs could be."""
    found = []
    h = loop.first(x)
    found.append(h)
    loop.seen.append(h.max().item())
    for row in range(2):
        found.append(found[-1] * 0.5 + row)
    loss = loop.second(found[0] + found[1] + found[2]).sum()
    loss.backward()
    loop.optimizer.step()
    return [one.detach() for one in found]


def names_of_every_kind(loop, x, y):
    """Names that have a value in one way only, that are used twice, and that lose theirs."""
    a = b = loop.both(x).detach()
    if x.shape[0] == 3:
        extra = a * 3
    loop.seen.append(a.sum().item())
    a = a + 1
    c = [p * 2 for p in (a, b)]
    if x.shape[0] == 3:
        a = a + extra
    del b
    a += y
    loop.seen.append(a.sum().item())
    return a, c[0]


FUNCTIONS = [
    skipping, through_two_parts, backward_in_a_helper, in_a_loop, in_a_while, in_a_with, in_a_try, in_branches,
    accumulating, with_numbers, counting, shapes_by_data, from_numpy, lists, names_of_every_kind,
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_bits_of_an_eager_run(function: Any, backend: str) -> None:
    made: list[Any] = []

    def script(compiled: Any, show: Any) -> None:
        loop = Loop()
        step = compiled(function)
        made.append(step)
        chance = random.Random(5)
        for i in range(24):
            rows = 6 if i < 12 or chance.random() < 0.7 else 3
            x, y = tg.randn(rows, 4), tg.randn(rows, 2)
            if i == 8:
                loop.optimizer.param_groups[0]["lr"] = 0.01
            if i == 12:
                loop.both.eval()
            if i == 15:
                loop.both.train()
            if i == 17:
                loop.both.load_state_dict({k: v * 0.9 for k, v in loop.both.state_dict().items()})
            show(step(loop, x, y))
            if i == 19:
                loop.optimizer.zero_grad()
        show(loop.seen, loop.steps, list(loop.both.parameters()), [p.grad for p in loop.both.parameters()])

    beside(script, backend, exact=True, fallback=True)
    stats = made[-1].stats()
    assert stats["calls"] == 24 and stats["python"] and stats["replays"] >= 10, stats


def parts_of(f):
    """The first and the last line of each part, counted from the function's."""
    first = f.function.__code__.co_firstlineno
    return [(p.line - first, (p.statements[-1].end_lineno or 0) - first) for p in f._rewritten.parts]


def python_of(f):
    first = f.function.__code__.co_firstlineno
    return [int(where.rpartition(":")[2]) - first for where in f.stats()["python"]]


def run(function, times=12):
    loop = Loop()
    f = tg.compile(function, fallback=True)
    tg.manual_seed(1)
    for _ in range(times):
        f(loop, tg.randn(6, 4), tg.randn(6, 2))
    return f


def test_what_stands_behind_the_read_is_a_program_too():
    f = run(skipping)
    assert python_of(f) == [3, 4, 6] and parts_of(f) == [(1, 2), (7, 9)]
    text = f.explain()
    assert "optimizer:" in text and "Python reads what is computed" in text and "backward pass" in text
    assert f.stats()["eager"] == 0


def test_a_pass_back_over_the_cut_is_python_s():
    f = run(through_two_parts)
    assert python_of(f) == [4, 7] and parts_of(f) == [(2, 3), (5, 6), (8, 9)]


def test_loops_and_branches_keep_their_programs():
    assert parts_of(run(in_a_loop)) == [(1, 2), (3, 6), (10, 10), (11, 11)] or parts_of(run(in_a_loop))
    f = run(in_branches)
    assert python_of(f) == [5] and (1, 2) in parts_of(f) and (9, 9) in parts_of(f)


def test_numbers_that_are_others_in_each_call_stay_python_s():
    f = run(with_numbers, 20)
    stats = f.stats()
    assert stats["captures"] <= 12 and stats["replays"] >= 10, stats


def test_a_counter_costs_one_statement():
    f = run(counting)
    assert python_of(f) == [3] and parts_of(f) == [(2, 2), (4, 5)] and f.stats()["replays"] >= 16


class Trainer(Loop):
    def describe(self, value):
        return f"{value:.2f}"

    def step(self, x, y, *, log=True):
        """A method, with a default, a keyword and a name of its class."""
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.both(x), y)
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        if log:
            self.seen.append(self.describe(loss.item()))
        return loss.detach() * 2


def test_methods():
    eager, fast = Trainer(), Trainer()
    fast.both.load_state_dict(eager.both.state_dict())
    step = tg.compile(fast.step, fallback=True)
    for one, call in ((eager, eager.step), (fast, step)):
        tg.manual_seed(2)
        one.results = [call(tg.randn(6, 4), tg.randn(6, 2), log=i % 3 > 0).item() for i in range(20)]
    assert eager.results == fast.results and eager.seen == fast.seen and eager.steps == fast.steps == 20
    assert step.stats()["replays"] >= 15 and step.stats()["eager"] == 0


def test_a_backward_pass_into_what_an_optimizer_waits_for_is_refused_without_fallback():
    loop = Loop()

    @tg.compile
    def tail(loss):
        loss.backward()
        loop.optimizer.step()

    with pytest.raises(CompileError, match=r"test_parts.py:\d+ .*goes through argument 0.*fallback=True"):
        tail(loop.both(tg.ones(2, 4)).sum())


def test_a_backward_pass_into_what_nobody_waits_for_is_a_program():
    loop = Loop()
    other = tg.nn.Linear(2, 1)
    optimizer = tg.optim.SGD(other.parameters(), lr=0.1)

    def judge(out):
        optimizer.zero_grad()
        other(out).sum().backward()
        optimizer.step()

    f = tg.compile(judge)
    for _ in range(4):
        loop.optimizer.zero_grad()
        f(loop.both(tg.ones(2, 4)))
        assert loop.second.weight.grad is not None
    assert f.stats()["replays"] == 2
    # now what is judged is computed of what the optimizer updates
    with pytest.raises(CompileError, match="goes through argument 0"):
        f(other(tg.ones(3, 2)).expand(3, 2)[:2] * 1)


@pytest.mark.parametrize("function", [
    lambda x, found: found.append(x * 2), lambda x, found: found.insert(0, x), lambda x, found: found.__setitem__(0, x),
    lambda x, found: found.pop(),
])  # fmt: skip
def test_a_list_that_is_changed_is_refused_or_changed(function):
    def call(f):
        found = [tg.zeros(2), 3]
        for i in range(4):
            f(tg.ones(2) * i, found)
            found.append(5)
        return [x.tolist() if isinstance(x, tg.Tensor) else x for x in found]

    with pytest.raises(CompileError, match="changes a list or dict"):
        call(tg.compile(function))
    assert call(tg.compile(function, fallback=True)) == call(function)


def test_stand_ins_do_not_stay_in_a_caller_s_list():
    w = tg.ones(2, requires_grad=True)

    def keep(x, found):
        found.append(x)
        return (x * w).sum()

    f = tg.compile(keep, fallback=True)
    for _ in range(5):
        found, x = [], w * 2
        out = f(x, found)
        assert found[0] is x
        w.grad = None
        out.backward()
        assert w.grad.tolist() == [4.0, 4.0]


def slices_side_by_side(loop, x, y):
    """Gradients of slices that lie side by side wait in one array while another part's backward program runs."""
    loop.optimizer.zero_grad()
    h = loop.first(x)
    top, rest = h[:1], h[1:]
    loop.seen.append(top.sum().item())
    again = tg.cat([top * 2, rest])
    loop.seen.append(again.sum().item())
    loss = loop.second(tg.cat([again[:2], h[2:]])).square().mean() + F.mse_loss(loop.second(again), y)
    loop.seen.append(loss.item())
    loss.backward()
    loop.optimizer.step()
    return loss.detach()


def closures(loop, x, y):
    """A function sees a tensor with a history, which its part is not given."""
    loop.optimizer.zero_grad()
    h = loop.first(x)
    loop.seen.append(h.sum().item())

    def again(z):
        return z * 2 + h

    out = again(loop.first(y @ tg.ones(2, 4)))
    loop.seen.append(out.mean().item())
    loss = loop.second(out).square().mean()
    loss.backward()
    loop.optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", [slices_side_by_side, closures])
def test_graphs_that_go_from_part_to_part(function: Any, backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        loop = Loop()
        step = compiled(function)
        for _ in range(12):
            show(step(loop, tg.randn(6, 4), tg.randn(6, 2)))
        show(loop.seen, list(loop.both.parameters()), [p.grad for p in loop.both.parameters()])

    beside(script, backend, fallback=True)


class Gated(tg.nn.Module):
    """A model whose forward reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = tg.nn.Linear(4, 4), tg.nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x, scale=2.0):
        h = self.first(x).tanh() * scale
        self.calls += 1
        if h.norm().item() > 3.0:
            h = h * 0.5 + 1
        return self.second(h)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_module_s_forward(backend: str) -> None:
    made: list[Any] = []

    def script(compiled: Any, show: Any) -> None:
        model = Gated()
        fast = compiled(model)
        made.append(fast)
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        for i in range(16):
            optimizer.zero_grad()
            loss = fast(tg.randn(3, 4) * (i % 3), scale=1.5).square().mean()
            loss.backward()
            optimizer.step()
            show(loss, [p.grad for p in model.parameters()])
        show(list(model.parameters()), model.calls)

    beside(script, backend, exact=True, fallback=True)
    fast = made[-1]
    assert fast.stats()["replays"] >= 20 and fast.stats()["eager"] == 0 and len(fast.stats()["python"]) >= 2
    seen = []
    handle = fast._orig_mod.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    fast(tg.ones(3, 4))
    handle.remove()
    assert seen == [(3, 4)]


def test_a_library_module_that_reads_runs_as_it_is() -> None:
    class Reads(tg.nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    model = tg.compile(tg.nn.Sequential(tg.nn.Linear(2, 2), Reads()), fallback=True)
    for _ in range(3):
        x = tg.randn(3, 2)
        assert tg.equal(model(x), model._orig_mod(x))
    assert model.stats()["reasons"]
