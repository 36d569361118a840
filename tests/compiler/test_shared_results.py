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


FUNCTIONS = [view, view_first, detached, twice, several, chained, views_alone, halves]


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
            assert changed(fast(x)) == changed(function(x))
        assert fast.stats()["replays"] == 3


@pytest.mark.parametrize(
    "function", [view, view_first, several, chained, views_alone, halves], ids=lambda f: f.__name__
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
