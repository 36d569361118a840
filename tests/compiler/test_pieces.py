"""Formulas and an optimizer's step done a piece at a time: the same bits, for every setting and length."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tests.compiler.common import after, names, written

OPTIMIZERS = {
    "sgd": lambda p: tg.optim.SGD(p, lr=0.1),
    "momentum": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "adam": lambda p: tg.optim.Adam(p, lr=0.1, weight_decay=0.01),
    "amsgrad": lambda p: tg.optim.AdamW(p, lr=0.1, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(200001,), (16384 * 9,), (400, 500), (7,)])
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_a_step_behind_a_formula(name, shape, dtype):
    def training(compiled):
        tg.manual_seed(0)
        p = tg.randn(*shape, dtype=dtype, requires_grad=True)
        scale = tg.rand(*shape, dtype=dtype)
        optimizer = OPTIMIZERS[name]([p])

        def step():
            optimizer.zero_grad()
            loss = (p.tanh() * scale * p).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = Compiled(step) if compiled else step
        losses = []
        for i in range(5):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (i + 1)
            losses.append(run().item())
        return losses, p.detach().numpy(), p.grad.numpy(), run

    with tg.backend("cpp"):
        losses, p, g, run = training(True)
        assert run.captures < 5
        expected, q, h, _ = training(False)
    assert losses == expected
    assert np.array_equal(p, q) and np.array_equal(g, h)


def test_actions_move_before_formulas_alone():
    p = tg.ones(5, requires_grad=True)
    optimizer = tg.optim.SGD([p], lr=0.1)

    def step():
        optimizer.zero_grad()
        (p * p).sum(0).backward()
        optimizer.step()
        return p.grad

    step()
    program = written(step)
    made = after("actions", program)
    kinds = [type(s).__name__ for s in made.steps]
    before = [type(s).__name__ for s in program.steps]
    assert names(made) == names(program)
    assert kinds.index("Action") < before.index("Action")
    assert kinds[-1] == "Call" and made.calls[-1].op.name == "sgd_"
