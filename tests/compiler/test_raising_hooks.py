"""A hook that raises stops a backward pass: other leaves have the gradients that an eager run leaves them with."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tests.compiler.beside import BACKENDS


class Raised(Exception):
    pass


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.scale = nn.Linear(3, 3), nn.Linear(3, 3), nn.Parameter(tg.ones(3))

    def forward(self, x):
        h = self.second(self.first(x).tanh() * self.scale)
        return self.first(h) + self.scale  # weights are used twice


def grads_of(kind, which, post, compiled):
    tg.manual_seed(0)
    model = Net()
    parameters = list(model.parameters())
    state = {"raises": False}

    def hook(_):
        if state["raises"]:
            raise Raised

    chosen = parameters[which]
    (chosen.register_post_accumulate_grad_hook if post else chosen.register_hook)(hook)

    def loss_of(x):
        return model(x).square().sum()

    def step(x):
        model.zero_grad()
        loss = loss_of(x)
        loss.backward()
        return loss

    network = tg.compile(model) if compiled and kind == "model" else model
    loss_of_it = tg.compile(loss_of) if compiled and kind == "loss" else loss_of

    def outside(x):
        model.zero_grad()
        (network(x).square().sum() if kind == "model" else loss_of_it(x)).backward()

    run = tg.compile(step) if compiled and kind == "step" else step if kind == "step" else outside
    seen = []
    for i in range(5):
        state["raises"] = i == 3
        try:
            run(tg.full((2, 3), float(i + 1)))
        except Raised:
            seen.append("raised")
        seen.append([None if p.grad is None else p.grad.tolist() for p in parameters])
    assert seen.count("raised") == 1
    return seen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("kind", ["step", "loss", "model"])
def test_leaves_have_the_gradients_of_an_eager_run(kind, which, post, backend):
    with tg.backend(backend):
        assert grads_of(kind, which, post, True) == grads_of(kind, which, post, False)
