"""Calls that run as they are, where nobody has asked for that: a warning says so once, at the user's line."""

import warnings

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.compiler.compiled import Compiled


def told(call, times=12):
    """The warnings of some calls; each is of this file."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(times):
            call()
    assert all(w.filename == __file__ for w in seen)
    return [str(w.message) for w in seen]


def packed(x, lengths):
    lengths.add_(0)
    return nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False).data * 2


def overlapping():
    memory = tg.ones(4)
    step = tg.compile(lambda x, y: x.mul_(2) + y)
    step(tg.ones(3), tg.ones(3))
    return step, lambda: step(memory[:3], memory[1:])


def hooked():
    x = tg.ones(2, requires_grad=True)
    x.register_hook(lambda g: g * 2)

    def step(x):
        x.grad = None
        (x * x).sum().backward()

    step = tg.compile(step)
    return step, lambda: step(x)


def of_saved():
    step, x = tg.compile(lambda x: x * 2), tg.ones(2)

    def call():
        with tg.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            step(x)

    return step, call


def of_lengths():
    step, lengths = tg.compile(packed), tg.tensor([3, 1])
    return step, lambda: step(tg.ones(3, 2, 1), lengths)


def of_array():
    step, array = tg.compile(lambda x: tg.tensor(x) * 2), np.ones(2)
    return step, lambda: step(array)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (overlapping, "arguments share memory that the function writes to"),
        (hooked, "has hooks, which are Python's"),
        (of_saved, "hooks of saved tensors"),
        (of_lengths, "before Python reads what it computes at .*pack_padded_sequence"),
        (of_array, "an argument is a NumPy array"),
    ],
)
def test_calls_that_go_on_to_run_as_they_are_are_told_of_once(made, why):
    step, call = made()
    found = told(call)
    assert len(found) == 1
    with pytest.warns(UserWarning, match=rf"calls of <compiled .*run as they are.*{why}"):
        warnings.warn(found[0], stacklevel=1)
    assert sum(step.stats()["reasons"].values()) >= 10


def test_forms_beyond_those_that_are_known_to_be_refused_are_told_of():
    step = Compiled(packed, limit=1)
    calls = iter(range(2, 9))
    found = told(lambda: step(tg.ones(3, n := next(calls), 1), tg.full((n,), 2)), 7)
    assert len(found) == 1
    assert "it changes something" in found[0]


def test_a_place_that_is_gone_is_told_of():
    class Reader:
        h = tg.zeros(2)

        def step(self, x):
            self.h = self.__dict__.get("h", x) + x
            return self.h

    reader = Reader()
    reader.h = tg.zeros(2)
    step = tg.compile(reader.step)
    assert told(lambda: step(tg.ones(2)), 6) == []

    def call():
        del reader.h
        step(tg.ones(2))

    assert ["what it has left for this call is gone" in text for text in told(call)] == [True]


def test_what_was_asked_for_and_what_passes_is_not_told_of():
    lengths = tg.tensor([3, 1])
    step = tg.compile(packed, fallback=True)
    assert told(lambda: step(tg.ones(3, 2, 1), lengths)) == []
    double = tg.compile(lambda x: x * 2)
    assert told(lambda: tg.vmap(double)(tg.ones(2, 2))) == []
    step, call = of_lengths()
    assert told(call, 2) == []  # as of the first steps of a run
    model = tg.compile(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()))
    optimizer = tg.optim.Adam(model.parameters())

    def both():
        model.train()
        model(tg.ones(3, 2)).sum().backward()
        optimizer.step()
        model.eval()
        model(tg.ones(3, 2))

    assert told(both) == []


def of_lbfgs(how, compiled):
    model, x = nn.Linear(3, 1), tg.arange(12.0).reshape(4, 3) / 6
    with tg.no_grad():
        for p in model.parameters():
            p.fill_(0.1)
    optimizer = tg.optim.LBFGS(model.parameters(), max_iter=3, line_search_fn=how)

    def closure():
        optimizer.zero_grad()
        loss = ((model(x) - x.exp().sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        return loss

    def step():
        return optimizer.step(closure)

    return (tg.compile(step) if compiled else step), model


@pytest.mark.parametrize("how", [None, "strong_wolfe"])
def test_an_optimizer_that_makes_its_state_anew_in_each_step_runs_as_it_is(how):
    step, model = of_lbfgs(how, True)
    eager, expected = of_lbfgs(how, False)
    found = told(step, 40)
    for _ in range(40):
        eager()
    assert len(found) == 1 and "run as they are" in found[0]
    assert "an optimizer makes optimizer.state[0][" in found[0]
    stats = step.stats()
    assert (stats["captures"], stats["eager"]) == (6, 34)
    assert list(stats["reasons"].values()) == [34]
    assert [p.tolist() for p in model.parameters()] == [p.tolist() for p in expected.parameters()]
    step.forget()
    step()
    assert step.stats()["captures"] == 7


def test_a_step_that_no_longer_makes_its_state_anew_has_programs():
    """Where another head has gradients, Adam's numbers lie elsewhere."""
    heads = [nn.Linear(2, 1) for _ in range(6)]
    optimizer = tg.optim.Adam([p for head in heads for p in head.parameters()])

    def step(x, i):
        optimizer.zero_grad()
        heads[i](x).sum().backward()
        optimizer.step()

    step = tg.compile(step)
    assert told(lambda: [step(tg.ones(1, 2), i) for i in (*range(6), *([0] * 12), *([1] * 4))], 1) == []
    stats = step.stats()
    assert (stats["eager"], stats["captures"], stats["replays"]) == (8, 7, 7)


def test_a_function_in_parts_leaves_such_a_step_to_python():
    step, model = of_lbfgs(None, False)
    eager, expected = of_lbfgs(None, False)
    seen = tg.zeros(3)

    def whole(x):
        y = (x * 2).sin()
        step()
        z = (y + 1).cos()
        seen.add_(z)
        return z * 3

    whole = tg.compile(whole, fallback=True)
    x = tg.ones(3)
    assert told(lambda: whole(x)) == []
    for _ in range(12):
        eager()
    assert [p.tolist() for p in model.parameters()] == [p.tolist() for p in expected.parameters()]
    assert whole.stats()["replays"] >= 8


def test_masks_that_pick_ever_other_numbers_are_told_of():
    step = Compiled(lambda x, mask: x[mask].prod(), limit=2)
    counts = iter(range(1, 99))
    found = told(lambda: step(tg.ones(100), tg.arange(100) < next(counts)))
    assert len(found) == 1 and "a mask picks another number" in found[0] and "masked_fill()" in found[0]
    step = Compiled(step.function, limit=2)
    counts = iter([3, 3, *range(4, 40)])
    found = told(lambda: step(tg.ones(100), tg.arange(100) < next(counts)))
    assert len(found) == 1 and "ever other forms" in found[0] and "masked_fill()" in found[0]
