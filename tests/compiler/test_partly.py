"""Backward through some results of a compiled function alone: as if the others had never been computed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import tensorgrad as tg
from tests.compiler.beside import BACKENDS, beside


class Heads:
    def __init__(self, count: int, drop: float) -> None:
        self.trunk = tg.nn.Sequential(tg.nn.Linear(4, 6), tg.nn.Tanh(), tg.nn.Dropout(drop))
        self.heads = tg.nn.ModuleList([tg.nn.Linear(6, 3) for _ in range(count)])
        self.all = tg.nn.ModuleList([self.trunk, self.heads])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("drop", (0.0, 0.3))
@pytest.mark.parametrize("count", (2, 3, 4))
def test_each_choice_of_results(count: int, drop: float, backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        one = Heads(count, drop)

        @compiled
        def f(x: Any) -> Any:
            h = one.trunk(x)
            return tuple(head(h).tanh() for head in one.heads)

        for size in range(1, count + 1):
            for slots in itertools.combinations(range(count), size):
                if drop and count > 3 and 1 < size < count:
                    continue  # no second run draws the same numbers: held below
                x = tg.randn(5, 4, requires_grad=True)
                outs = f(x)
                sum((outs[i] * (i + 1)).sum() for i in slots).backward()
                show([p.grad for p in one.all.parameters()], x.grad, [p.grad is None for p in one.all.parameters()])
                one.all.zero_grad()

    [f] = beside(script, backend, exact=True)
    assert f.stats()["captures"] == 1 and f.stats()["replays"] >= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_no_program_was_written_for(backend: str) -> None:
    """Four results with dropout, two of them used: others' parameters have no gradient all the same."""
    with tg.backend(backend):
        one = Heads(4, 0.5)
        f = tg.compile(lambda x: tuple(head(one.trunk(x)) for head in one.heads))
        for _ in range(3):
            one.all.zero_grad()
            outs = f(tg.ones(2, 4))
            (outs[1].sum() + outs[3].sum()).backward()
            assert [head.weight.grad is None for head in one.heads] == [True, False, True, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_times_infinity_is_not_asked_for(backend: str) -> None:
    with tg.backend(backend):
        f = tg.compile(lambda x: (x * 2, x.sqrt()))
        for _ in range(3):
            x = tg.zeros(3, requires_grad=True)
            f(x)[0].sum().backward()
            assert x.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_sizes_of_a_family(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        w = tg.ones(4, requires_grad=True)
        v = tg.ones(4, requires_grad=True)
        f = compiled(lambda x: ((x * w).tanh(), (x * v).exp()))
        for size in (8, 3, 5, 7, 6):
            for slot in (0, 1):
                w.grad = v.grad = None
                f(tg.randn(size, 4))[slot].sum().backward()
                show(w.grad, v.grad)

    [f] = beside(script, backend, exact=True, dynamic=True)
    assert f.stats()["captures"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_that_share_nothing_are_apart(backend: str) -> None:
    """A pass through one frees nothing of the other, and a change of what the other needs is none of its affairs."""

    def script(compiled: Any, show: Any) -> None:
        a, b = tg.nn.Linear(4, 3), tg.nn.Linear(4, 3)

        @compiled
        def f(x: Any) -> Any:
            h = a(x).tanh()
            return h.sum(), b(x).exp(), (h * 2).mean()

        for i in range(6):
            x = tg.randn(2, 4, requires_grad=i % 2 == 0)
            one, two, three = f(x)
            (one + three).backward()
            if i == 4:
                with tg.no_grad():
                    a.weight.mul_(0.5)
            two.sum().backward()
            show(a.weight.grad, b.weight.grad, x.grad)
            with pytest.raises(tg.errors.AutogradError):
                three.backward()
            with pytest.raises(tg.errors.AutogradError):
                two.sum().backward()

    [f] = beside(script, backend, exact=True)
    assert f.stats()["captures"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_that_is_stale_when_it_is_returned(backend: str) -> None:
    """An optimizer has changed what the graph needs: whoever goes through it hears of that, as in an eager run."""

    def script(compiled: Any, show: Any) -> None:
        a, b = tg.nn.Linear(4, 3), tg.nn.Linear(3, 3)
        optimizer = tg.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)

        @compiled
        def f(x: Any) -> Any:
            h = a(x).tanh()
            b(h).sum().backward()
            again = b(a(x).tanh())
            optimizer.step()
            optimizer.zero_grad()
            return h, again

        for _ in range(4):
            h, again = f(tg.ones(2, 4))
            show(h, again)
            with pytest.raises(tg.errors.AutogradError, match="changed in place since"):
                again.sum().backward()
            with pytest.raises(tg.errors.AutogradError, match="freed"):
                h.sum().backward()

    beside(script, backend, exact=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", (False, True))
def test_a_result_that_another_one_was_computed_of(dynamic: bool, backend: str) -> None:
    """Its whole gradient is seen by nobody: what comes from the other passes within the program."""
    with tg.backend(backend):
        model = tg.nn.Linear(3, 3)

        def function(x: Any) -> Any:
            h = model(x)
            return h, (h * h).sum(1), x * 2

        compiled = tg.compile(function, dynamic=dynamic)

        def results(size: int) -> Any:
            return compiled(tg.ones(size, 3, requires_grad=True))

        for size in (2, 3, 4, 4, 5):
            h, of_h, apart = results(size)
            h.register_hook(lambda g: g * 0.5)
            with pytest.raises(tg.errors.CompileError, match="has a hook"):
                of_h.sum().backward()
            h, of_h, apart = results(size)
            h.retain_grad()
            with pytest.raises(tg.errors.CompileError, match="retains its gradient"):
                (of_h.sum() + h.sum()).backward()
            h, of_h, apart = results(size)
            for loss in (of_h.sum(), of_h.sum() + h.sum()):
                with pytest.raises(tg.errors.CompileError, match="is an input of this pass"):
                    tg.autograd.grad(loss, h, retain_graph=True, allow_unused=True)
            of_h.register_hook(lambda g: g * 0.5)
            handle = h.register_hook(lambda g: g * 0)
            handle.remove()
            model.zero_grad()
            of_h.sum().backward()
            found = model.weight.grad
            model.zero_grad()
            (function(tg.ones(size, 3))[1].sum() * 0.5).backward()
            tg.testing.assert_close(found, model.weight.grad)
            h, of_h, apart = results(size)  # from the result itself alone, all is seen, as it is apart from the others
            assert tg.autograd.grad(h.sum(), h, retain_graph=True)[0].tolist() == [[1.0] * 3] * size
            h.retain_grad()
            apart.retain_grad()
            (h.sum() + apart.sum()).backward()
            assert h.grad.tolist() == [[1.0] * 3] * size and apart.grad.tolist() == [[1.0] * 3] * size
        assert compiled.stats()["replays"] > 0


@pytest.mark.parametrize("name", BACKENDS)
def test_a_result_that_is_looked_at_beside_a_derivative_of_the_function_is_refused(name: str) -> None:
    """Of y = exp(x), dy/dx is y itself in an eager run."""

    def passes(function: Any, look: Any) -> Any:
        x = tg.tensor([0.5, -1.0], requires_grad=True)
        y = function(x)
        look(y)
        (slope,) = tg.autograd.grad((y * y).sum(), x, create_graph=True)
        (slope * slope + y).sum().backward()
        return x.grad

    with tg.backend(name):
        compiled = tg.compile(lambda x: x.exp())
        expected = passes(tg.exp, lambda y: None)
        for _ in range(3):
            tg.testing.assert_close(passes(compiled, lambda y: None), expected)
            for look in (lambda y: y.retain_grad(), lambda y: y.register_hook(lambda g: g * 2)):
                with pytest.raises(tg.errors.CompileError, match="a derivative of the function was taken"):
                    passes(compiled, look)
        x = tg.tensor([0.5, -1.0], requires_grad=True)
        y = compiled(x)
        (slope,) = tg.autograd.grad((y * y).sum(), x, create_graph=True)
        with pytest.raises(tg.errors.CompileError, match="is an input of this pass"):
            tg.autograd.grad((slope + y).sum(), y)
