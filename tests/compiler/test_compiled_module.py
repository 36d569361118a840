"""A compiled Module as a Module: hooks, attributes."""

from __future__ import annotations

import copy

import pytest

import tensorgrad as tg


def test_hooks_of_a_compiled_module_run_around_each_call() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.ReLU())
    fast = tg.compile(model)
    seen: list[str] = []

    def before(module, args):
        seen.append("before" if module is fast else "of another")

    def after(module, args, result):
        seen.append("after")
        return result * 2

    def backward(module, grads, of_results):
        seen.append("backward")

    handles = [
        fast.register_forward_pre_hook(before), fast.register_forward_hook(after),
        fast.register_full_backward_hook(backward),
    ]  # fmt: skip
    x = tg.randn(2, 3, requires_grad=True)
    for _ in range(4):
        result = fast(x)
        assert tg.equal(result, model(x) * 2)
        result.sum().backward()
    assert seen == ["before", "after", "backward"] * 4 and fast.stats()["replays"] == 3
    copied = copy.deepcopy(fast)
    assert tg.equal(copied(x), result)
    for handle in handles:
        handle.remove()
    assert tg.equal(fast(x), model(x)) and tg.equal(copied(x), result)


def test_attributes_of_a_compiled_module_are_the_modules_own() -> None:
    class Scaled(tg.nn.Module):
        def forward(self, x):
            return x * getattr(self, "factor", 1.0)

    model = Scaled()
    fast = tg.compile(model)
    x = tg.randn(2, 3)
    assert tg.equal(fast(x), x)
    fast.factor = 3.0
    assert model.factor == 3.0 and [tg.equal(fast(x), x * 3) for _ in range(2)] == [True, True]
    del fast.factor
    assert not hasattr(model, "factor")
    with pytest.raises(AttributeError, match="factor"):
        del fast.factor
