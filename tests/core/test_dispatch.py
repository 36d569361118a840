"""The door: listeners of a few lines."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.dispatch import Listener, listeners, listening


class CountCalls(Listener):
    def __init__(self):
        self.calls = Counter()

    def after(self, op, inputs, attrs, outputs):
        self.calls[op.name] += 1


class TimeCalls(Listener):
    def __init__(self):
        self.seconds = Counter()

    def before(self, op, inputs, attrs):
        self.start = time.perf_counter()

    def after(self, op, inputs, attrs, outputs):
        self.seconds[op.name] += time.perf_counter() - self.start


class FirstNaN(Listener):
    culprit = None

    def after(self, op, inputs, attrs, outputs):
        if self.culprit is None and any(np.isnan(y).any() for y in outputs if y.dtype.kind == "f"):
            self.culprit = op.name


def test_a_listener_counts_forward_and_backward():
    x = tg.ones(3, requires_grad=True)
    with listening(CountCalls()) as seen:
        (x.exp() * 2).sum().backward()
    assert seen.calls["exp"] == 1 and seen.calls["sum"] == 1
    assert any("backward" in name for name in seen.calls)
    before = sum(seen.calls.values())
    x.exp()
    assert sum(seen.calls.values()) == before and not listeners()


def test_a_listener_times_calls():
    with listening(TimeCalls()) as clock:
        tg.ones(10).exp()
    assert clock.seconds["exp"] > 0


def test_a_listener_names_the_op_that_first_made_a_nan():
    with listening(FirstNaN()) as finder:
        (tg.tensor([-1.0]).log() * 2).exp()
    assert finder.culprit == "log"


def test_listeners_nest_and_leave_with_their_block():
    with listening(CountCalls()) as outer:
        with listening(CountCalls()) as inner:
            tg.ones(1).exp()
        tg.ones(1).exp()
    assert inner.calls["exp"] == 1 and outer.calls["exp"] == 2
    with pytest.raises(ZeroDivisionError), listening(CountCalls()):
        raise ZeroDivisionError
    assert not listeners()


def test_backends_switch_per_thread_and_by_call():
    assert tg.get_backend() in ("cpp", "numpy")
    with tg.backend("numpy"):
        assert tg.get_backend() == "numpy"
        with tg.backend("null"):
            assert tg.get_backend() == "null"
        assert tg.get_backend() == "numpy"
    with pytest.raises(RuntimeError, match="unknown backend 'fpga'"):
        tg.set_backend("fpga")
