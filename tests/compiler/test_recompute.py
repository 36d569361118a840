"""Formulas that are computed again where backward reads them: when, when not, and with which bits."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.compiler.passes import optimize, recompute
from tests.compiler.beside import BACKENDS, beside
from tests.compiler.common import after, names, run, same_results, written


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with tg.backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def small_programs_count(monkeypatch):
    """Programs of tests are small: as if they needed much memory, and most of their time were elsewhere."""
    monkeypatch.setattr(recompute, "_FROM", 0)
    monkeypatch.setattr(recompute, "_SHARE", 4)


def pressed(x, w):
    """``h`` waits for its second reader while a product of four times its size is in memory."""
    y = x @ w
    h = tg.tanh(y)
    first = h @ w
    large = tg.cat([first, first, first, first]) @ w
    small = large.sum(0)
    second = h @ w
    return small, second, y @ w


def tensors(size=192):
    tg.manual_seed(0)
    return tg.randn(size, size), tg.randn(size, size) / size**0.5


def test_a_formula_whose_operand_waits_as_well_is_computed_again():
    x, w = tensors()
    program = written(pressed, x, w)
    made = after("recompute", program)
    assert names(made).count("tanh") == 2
    assert "computed again where it is read" in dict(made.notes)["recompute"]
    again = [i for i, name in enumerate(names(made)) if name == "tanh"][1]
    assert made.steps[again].results[0] in made.steps[again + 1].reads()
    same_results(program, made, x, w)


def operand_dies(x, w):
    h = tg.tanh(x @ w)
    first = h @ w
    large = tg.cat([first, first, first, first]) @ w
    return large.sum(0), h @ w


def operand_changes(x, w):
    y = x @ w
    h = tg.tanh(y)
    first = h @ w
    y.mul_(2)
    large = tg.cat([first, first, first, first]) @ w
    return large.sum(0), h @ w, y


def viewed(x, w):
    y = x @ w
    h = tg.tanh(y)
    first = h @ w
    large = tg.cat([first, first, first, first]) @ w
    return large.sum(0), h.t() @ w, y @ w


def returned(x, w):
    y = x @ w
    h = tg.tanh(y)
    first = h @ w
    large = tg.cat([first, first, first, first]) @ w
    return large.sum(0), h, y @ w


def changed(x, w):
    y = x @ w
    h = tg.tanh(y)
    h.add_(1)
    first = h @ w
    large = tg.cat([first, first, first, first]) @ w
    return large.sum(0), h @ w, y @ w


def drawn(x, w):
    y = x @ w
    h = tg.bernoulli(tg.sigmoid(y))
    first = h @ w
    large = tg.cat([first, first, first, first]) @ w
    return large.sum(0), h @ w, y @ w


@pytest.mark.parametrize("f", [operand_dies, operand_changes, viewed, returned, changed])
def test_what_would_need_more_memory_or_have_other_elements_stays(f):
    program = written(f, *tensors())
    assert names(after("recompute", program)) == names(program)


def test_random_numbers_are_not_drawn_again():
    program = written(drawn, *tensors())
    made = after("recompute", program)
    assert names(made).count("bernoulli") == names(program).count("bernoulli")


def test_small_results_are_not_worth_a_call():
    program = written(pressed, *tensors(32))
    assert after("recompute", program) is program


def test_programs_that_fit_the_caches_keep_what_they_have(monkeypatch):
    monkeypatch.setattr(recompute, "_FROM", 1 << 25)
    program = written(pressed, *tensors())
    assert after("recompute", program) is program


def test_what_costs_too_much_is_kept(monkeypatch):
    monkeypatch.setattr(recompute, "_SHARE", 100)

    def f(x, w):
        y = x * w
        h = tg.tanh(y)
        return tg.cat([h, h, h, h]).sum(), h + w, y + x  # hardly any work but the formula

    program = written(f, *tensors(512))
    assert names(after("recompute", program)).count("tanh") == 1


def test_a_result_that_only_waits_is_computed_later():
    def f(x, w):
        y = x @ w
        h = tg.tanh(y)  # read by nobody before the large product is gone
        large = tg.cat([y, y, y, y]) @ w
        return large.sum(0), h @ w, y @ w

    x, w = tensors()
    program = written(f, x, w)
    made = after("recompute", program)
    assert names(made).count("tanh") == 1 and "moved to" in dict(made.notes)["recompute"]
    assert names(program).index("tanh") < names(program).index("cat")
    assert names(made).index("tanh") > names(made).index("sum")
    same_results(program, made, x, w)


def test_a_training_step_needs_less_and_has_the_same_bits(backend):
    def script(compiled, show):
        tg.manual_seed(1)
        layers = [tg.nn.Sequential(tg.nn.Linear(128, 256), tg.nn.Softplus(), tg.nn.Linear(256, 128)) for _ in range(3)]
        model = tg.nn.Sequential(*layers)
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x = tg.randn(512, 128)

        @compiled
        def step(x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(5):
            show(step(x))
        show(list(model.parameters()))

    [one] = beside(script, backend, exact=True)
    assert one.stats()["replays"] >= 3
    assert "softplus is computed again where it is read" in one.explain()


def test_after_all_passes_too():
    x, w = tensors()
    program = written(pressed, x, w)
    made = optimize(program)
    assert names(made).count("tanh") == 2
    for a, b in zip(run(program, x, w), run(made, x, w), strict=True):
        assert a.tobytes() == b.tobytes()
