"""A pair is made smaller as one program: slopes with their functions, cheap formulas again in backward. Bits stay."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.compiler.passes import recompute
from tensorgrad.nn import functional as F
from tests.compiler.beside import BACKENDS
from tests.compiler.common import names, within_rounding


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with tg.backend(request.param):
        yield request.param


def network(*, activation=nn.GELU, width=24):
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, 3))


def gradients(function, model, x, times=1):
    for p in model.parameters():
        p.grad = None
    x = x.clone().requires_grad_()
    y = function(x)
    for _ in range(times):
        (y * y).sum().backward(retain_graph=times > 1)
    return [y.tolist(), x.grad.tolist(), *(p.grad.tolist() for p in model.parameters())]


def notes(compiled, name):
    return [text for each, text in compiled.programs[0].notes if each == name]


@pytest.mark.parametrize("activation", [nn.GELU, lambda: nn.GELU(approximate="tanh"), nn.SiLU, nn.Mish])
def test_slopes_are_made_with_their_functions(activation):
    model = network(activation=activation)
    compiled = tg.compile(model)
    for seed in range(4):
        x = tg.randn(5, 8, generator=tg.Generator().manual_seed(seed))
        assert gradients(compiled, model, x) == gradients(model, model, x)
        assert gradients(compiled, model, x, times=2) == gradients(model, model, x, times=2)
    assert len(notes(compiled, "ahead")) == 2 and "prepares" in compiled.explain()
    first, second = compiled.programs
    wide = [call for call in first.calls if len(call.results) == 2]
    assert len(wide) == 2 and all(call.results[1] in second.arguments for call in wide)
    # the operand is not kept: nothing else of its shape is handed over
    assert not any(call.inputs[0] in second.arguments for call in wide)


def test_the_first_backward_pass_is_of_the_run_that_was_written():
    model = network()
    compiled = tg.compile(model)
    x = tg.randn(5, 8)
    y = compiled(x)
    kept = compiled(x)  # a replay, before backward has gone through the first run
    y.sum().backward()
    expected = [p.grad.tolist() for p in model.parameters()]
    model.zero_grad()
    kept.sum().backward()
    assert [p.grad.tolist() for p in model.parameters()] == expected
    model.zero_grad()
    model(x).sum().backward()
    assert [p.grad.tolist() for p in model.parameters()] == expected


def test_several_results_wait_for_backward_at_once():
    model = network()
    compiled = tg.compile(model)
    xs = [tg.randn(5, 8) for _ in range(5)]
    ours = [compiled(x) for x in xs]
    for x, y in zip(xs, ours, strict=True):
        model.zero_grad()
        y.sum().backward()
        found = [p.grad.tolist() for p in model.parameters()]
        model.zero_grad()
        model(x).sum().backward()
        assert found == [p.grad.tolist() for p in model.parameters()]


def test_without_backward_no_slopes_are_saved(tmp_path):
    model = network()
    compiled = tg.compile(model)
    x = tg.randn(5, 8)
    for _ in range(2):
        compiled(x)
    compiled.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    assert names(loaded.program) == ["linear", "gelu", "linear", "gelu", "linear"]
    assert loaded(x).tolist() == compiled(x).tolist()


def test_a_loss_function_of_any_batch():
    model = network(activation=nn.SiLU)

    def loss(x, y):
        return F.cross_entropy(model(x), y)

    compiled = tg.compile(loss, dynamic=True)
    for n in (9, 5, 6, 8):
        x, y = tg.randn(n, 8), tg.randint(0, 3, (n,))
        found = []
        for function in (loss, compiled):
            model.zero_grad()
            value = function(x, y)
            value.backward()
            found.append([value.item(), *(p.grad.tolist() for p in model.parameters())])
        assert found[0] == found[1]
    assert compiled.stats()["captures"] == 2 and len(notes(compiled, "ahead")) == 2


@pytest.fixture
def small_programs_count(monkeypatch):
    monkeypatch.setattr(recompute, "_FROM", 0)
    monkeypatch.setattr(recompute, "_SHARE", 4)
    monkeypatch.setattr(recompute, "_LEAST", 0)


def test_cheap_formulas_are_computed_again_in_backward(small_programs_count):
    def function(x, w, b):
        first = x @ w
        columns = tg.tanh(x + b).sum(0)  # backward reads it again, and x is there for the product's gradient
        large = tg.cat([first, first, first, first]) @ w
        return large.square().sum() + (columns * columns).sum()

    tg.manual_seed(0)
    x, w, b = tg.randn(96, 96), tg.randn(96, 96) / 10, tg.randn(96)
    compiled = tg.compile(function)
    for _ in range(3):
        found = []
        for f in (function, compiled):
            leaves = w.clone().requires_grad_(), b.clone().requires_grad_()
            value = f(x, *leaves)
            value.backward()
            found.append([value, *(t.grad for t in leaves)])
        for expected, made in zip(*found, strict=True):
            within_rounding(made, expected)
    assert any("where it is read" in text for text in notes(compiled, "recompute"))
    assert sum("tanh" in getattr(call.op, "formula", "") for call in compiled.programs[1].calls) == 1


def test_what_the_user_may_change_between_is_not_read_again(small_programs_count):
    """A scale of the state: eager keeps what was made of it, and so does the pair."""
    scale = tg.full((96, 96), 2.0)

    def function(x):
        h = tg.exp(x.detach() * 0.01 + scale)
        large = tg.cat([x, x, x, x])
        return (large @ x).sum() + (x * h).sum()

    compiled = tg.compile(function)
    found = []
    for f in (function, compiled, compiled, compiled):
        scale.fill_(2.0)
        x = (tg.arange(96.0 * 96).reshape(96, 96) / 9999).requires_grad_()
        value = f(x)
        scale.fill_(5.0)
        value.backward()
        found.append([value.item(), x.grad.tolist()])
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("times", [1, 3])
def test_an_argument_that_is_changed_between_raises(times, small_programs_count):
    def function(x, w):
        return (F.gelu(x) * w).sum()

    compiled = tg.compile(function)
    for _ in range(times):
        x, w = (tg.ones(4, 4, requires_grad=True) for _ in range(2))
        y = compiled(x, w)
        y.backward()
    y = compiled(x, w)
    with tg.no_grad():
        x.mul_(2)
    with pytest.raises(tg.errors.AutogradError, match=r"in place|in-place"):
        y.backward()


def test_backward_through_some_of_several_results():
    """Programs of their own serve it, and read what the pair has kept: such a pair stays as it is written."""
    model = network()

    def two(x):
        return model[:2](x), model(x).square()

    compiled = tg.compile(two)
    x = tg.randn(5, 8)
    for which in ((0,), (1,), (0, 1), (1,), (0, 1)):
        found = []
        for function in (two, compiled):
            model.zero_grad()
            results = function(x)
            sum(results[i].sum() for i in which).backward()
            found.append([None if p.grad is None else p.grad.tolist() for p in model.parameters()])
        assert found[0] == found[1]
    assert not notes(compiled, "ahead")
