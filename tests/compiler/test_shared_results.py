"""Results that share memory share it in replays, and in programs from files."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.backends import registry

CPP = pytest.param(
    "cpp", marks=pytest.mark.skipif(registry.class_of("cpp").why_not() is not None, reason="the extension is not built")
)


def view(x):
    y = x * 2
    return y, y[0]


def view_first(x):
    y = x * 2
    return y.t()[1], y


def detached(x):
    y = x * 2
    return y, y.detach()


def twice(x):
    y = x * 2
    return [y, y]


def several(x):
    y = x * 2
    return y.reshape(2, 6), y.t(), y


def chained(x):
    y = x * 2
    return y[1:].t(), y, y[1:]


def views_alone(x):
    y = x * 2
    return y[1:], y.reshape(-1)[2:], y.t()


def halves(x):
    return (x * 2).chunk(2, 1)


def of_the_argument(x):
    y = x * 2
    return x.detach()[1:], y, x.t()


FUNCTIONS = [view, view_first, detached, twice, several, chained, views_alone, halves, of_the_argument]


def changed(results):
    """What the results are after the first and the last were written to, and which of them are the same object."""
    results = list(results)
    results[0].add_(1)
    results[-1].mul_(3)
    return [r.tolist() for r in results], [[a is b for a in results] for b in results]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("backend", ["numpy", CPP])
def test_in_replays(function, backend):
    with tg.backend(backend):
        fast = tg.compile(function)
        for i in range(4):
            x = tg.arange(12.0).reshape(3, 4) + i
            assert changed(fast(x.clone())) == changed(function(x.clone()))
        assert fast.stats()["replays"] == 3


@pytest.mark.parametrize(
    "function", [view, view_first, several, chained, views_alone, halves, detached], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("backend", ["numpy", CPP])
def test_in_a_program_from_a_file(function, backend, tmp_path):
    with tg.backend(backend), tg.no_grad():
        x = tg.arange(12.0).reshape(3, 4)
        fast = tg.compile(function)
        fast(x)
        fast.programs[0].save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        for i in range(3):
            assert changed(loaded(x + i)) == changed(function(x + i))


# --- of a result with a history


def itself(x):
    y = x * 2
    return y, y.detach()


def detached_views(x):
    y = x.exp()
    return y.detach()[1], y, y.t().detach()


def without_grad(x):
    y = x * 2
    with tg.no_grad():
        return y.reshape(-1), y, y[1:]


def views_of_the_detached(x):
    y = x.exp().detach()
    return (x * 2).sum(), y[0], y[1:], y[:2].t()


def of_a_view(x):
    y = (x * 2)[1]
    return y, y.detach(), y[1:].detach()


def of_what_is_not_returned(x):
    y = x * 2
    return y.sum(), y.detach(), y[1].detach()


def twice_detached(x):
    y = x * 2
    z = y.detach()
    return [y, z, y, z, y.detach()]


def of_what_is_given(x):
    return x.detach(), (x * 2).sum(), x.detach()[1]


LIVE = [
    itself, detached_views, without_grad, views_of_the_detached, of_a_view, of_what_is_not_returned, twice_detached,
    of_what_is_given,
]  # fmt: skip


def seen(function, x, *, backward):
    """What the results, their gradients and their sharing are, after those without a history were written to."""
    results = list(function(x))
    live = [r for r in results if r.requires_grad]
    if backward:
        sum((r.square().sum() for r in live), start=tg.zeros(())).backward()
    with tg.no_grad():
        for r in results:
            if not r.requires_grad:
                r.reshape(-1)[0] += 1
    same = [[a is b for a in results] for b in results]
    return (
        [r.tolist() for r in results],
        [r.requires_grad for r in results],
        same,
        x.tolist(),
        None if x.grad is None else x.grad.tolist(),
    )


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("function", LIVE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("backend", ["numpy", CPP])
def test_of_a_result_with_a_history(function, backend, backward):
    with tg.backend(backend):
        fast = tg.compile(function)
        for i in range(4):
            ours, theirs = ((tg.arange(12.0).reshape(3, 4) / 12 + i).requires_grad_() for _ in range(2))
            assert seen(fast, ours, backward=backward) == seen(function, theirs, backward=backward)
        assert fast.stats()["replays"] == 3


@pytest.mark.parametrize("function", LIVE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("backend", ["numpy", CPP])
def test_of_a_result_with_a_history_in_a_file(function, backend, tmp_path):
    with tg.backend(backend):
        fast = tg.compile(function)
        fast((tg.arange(12.0).reshape(3, 4) / 12).requires_grad_())
        fast.programs[0].save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        for i in range(3):
            results = []
            for f in (loaded, function):
                x = tg.arange(12.0).reshape(3, 4) / 12 + i
                with tg.no_grad():
                    made = list(f(x))
                    for r in made:
                        r.reshape(-1)[:1] += 1
                results.append(([r.tolist() for r in made], x.tolist()))
            assert results[0] == results[1]


@pytest.mark.parametrize("backend", ["numpy", CPP])
@pytest.mark.parametrize("how", ["the result", "what is detached", "outside"])
def test_a_result_that_backward_reads_is_not_changed_in_silence(how, backend):
    """exp's gradient is its result: eager raises; a replay does, or has kept a copy."""

    def function(x):
        y = x.exp()
        return y, y.detach()

    with tg.backend(backend):
        fast = tg.compile(function)
        for turn in range(4):
            x = tg.zeros(3, requires_grad=True)
            y, z = fast(x)
            with tg.no_grad():
                {"the result": y, "what is detached": z, "outside": y.detach()}[how].mul_(2)
            try:
                y.sum().backward()
            except tg.errors.AutogradError as error:
                assert "changed in place" in str(error)
                continue
            assert turn > 0 and x.grad.tolist() == [1.0] * 3
