"""What a compiled function computes by ``vmap``, and the gradients that pass through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.func import grad, hessian, jacrev, jvp, vmap
from tests.compiler.beside import BACKENDS


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request: pytest.FixtureRequest) -> Any:
    with tg.backend(request.param):
        yield request.param


Model = Callable[[tg.Tensor], tg.Tensor]


def jacobians(model: Model, x: tg.Tensor) -> Any:
    return vmap(jacrev(model))(x)


def hessians(model: Model, x: tg.Tensor) -> Any:
    return vmap(hessian(lambda x: model(x).sum()))(x)


def directions(model: Model, x: tg.Tensor) -> Any:
    return vmap(lambda x: jvp(model, (x,), (tg.ones(3),))[1])(x)


def by_pairs(model: Model, x: tg.Tensor) -> Any:
    return vmap(lambda y: vmap(grad(lambda x: (model(x) * y.sum()).sum()))(x))(x)


def leaves_by_hand(model: Model, x: tg.Tensor) -> Any:
    def norm(x: tg.Tensor) -> tg.Tensor:
        x = x.detach().requires_grad_()
        (g,) = tg.autograd.grad(model(x).sum(), x, create_graph=True)
        return g.norm()

    return vmap(norm)(x)


@pytest.mark.parametrize("through_x", (False, True))
@pytest.mark.parametrize("function", (jacobians, hessians, directions, by_pairs, leaves_by_hand))
def test_gradients_through_derivatives_of_each_sample(function: Callable[..., Any], through_x: bool) -> None:
    """The leaves that such a derivative makes for itself are gone with the map, and have no gradient."""
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    compiled = tg.compile(lambda x: function(model, x))
    for _ in range(3):
        x = tg.randn(2, 3, requires_grad=through_x)
        found = []
        for run in (lambda x: function(model, x), compiled):
            model.zero_grad()
            x.grad = None
            y = run(x).square().sum()
            y.backward()
            found.append([y.detach(), x.grad, *(p.grad for p in model.parameters())])
        for a, b in zip(*found, strict=True):
            assert (a is None) == (b is None)
            assert a is None or tg.allclose(a, b, atol=1e-5)
    assert compiled.stats()["replays"] == 2
