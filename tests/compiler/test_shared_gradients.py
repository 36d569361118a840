"""Gradients that lie where something else does: slices of one buffer, a list that the function keeps, arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.compiler.apart import apart
from tests.compiler.beside import BACKENDS, beside


def network() -> tuple[list[Any], Any, Any]:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return list(model.parameters()), model, optimizer


def slices_of_a_buffer(compiled: Any, show: Any) -> None:
    parameters, model, optimizer = network()
    buffer = tg.zeros(sum(p.numel() for p in parameters))
    for p, part in zip(parameters, buffer.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view(p.shape)

    @compiled
    def step(x: Any) -> Any:
        buffer.zero_()
        model(x).square().mean().backward()
        buffer.mul_(0.5)
        optimizer.step()
        return buffer.norm()

    for _ in range(6):
        show(step(tg.randn(3, 4)), buffer, parameters)


def a_list_of_gradients(compiled: Any, show: Any) -> None:
    parameters, model, optimizer = network()
    model(tg.ones(3, 4)).sum().backward()
    grads = [p.grad for p in parameters]

    @compiled
    def step(x: Any) -> None:
        for g in grads:
            g.zero_()
        model(x).square().mean().backward()
        optimizer.step()

    for turn in range(8):
        if turn == 4:
            for p in parameters:
                p.grad = p.grad.clone()  # the list has others from here on
        if turn == 6:
            parameters[0].grad = None
        step(tg.randn(3, 4))
        show(parameters, grads, [p.grad for p in parameters])


def one_for_two(compiled: Any, show: Any) -> None:
    parameters, model, optimizer = network()

    @compiled
    def step(x: Any) -> None:
        optimizer.zero_grad(set_to_none=False)
        model(x).square().mean().backward()
        optimizer.step()

    for turn in range(8):
        if turn == 4:
            parameters[0].grad = parameters[2].grad
        if turn == 6:
            parameters[0].grad = parameters[2].grad.clone()
        step(tg.randn(3, 4))
        show(parameters, [p.grad for p in parameters])


def an_argument(compiled: Any, show: Any, now: Any = lambda turn: turn < 4) -> None:
    parameters, model, optimizer = network()
    model(tg.ones(3, 4)).sum().backward()

    @compiled
    def step(g: Any, x: Any) -> None:
        g.mul_(0.5)
        model(x).square().mean().backward()
        optimizer.step()

    for turn in range(8):
        step(parameters[0].grad if now(turn) else tg.ones(4, 4), tg.randn(3, 4))
        show(parameters, [p.grad for p in parameters])


def an_argument_later(compiled: Any, show: Any) -> None:
    an_argument(compiled, show, lambda turn: turn >= 4)


@pytest.mark.parametrize("script, replays", [
    (slices_of_a_buffer, 4), (a_list_of_gradients, 4), (one_for_two, 4), (an_argument, 0), (an_argument_later, 2),
])  # fmt: skip
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:compile. calls of .* run as they are")
def test_what_shares_memory_is_what_it_is_eagerly(script: Callable[..., None], replays: int, backend: str) -> None:
    [one] = beside(script, backend)
    assert one.stats()["replays"] >= replays, one.stats()


def test_the_gradient_of_an_argument_is_one_too() -> None:
    """Of which the function makes nothing: programs are used."""
    p = tg.ones(3, requires_grad=True)
    (p * 2).sum().backward()
    update = tg.compile(lambda p, g: p - 0.1 * g)
    with tg.no_grad():
        for _ in range(4):
            assert update(p, p.grad).tolist() == (p - 0.1 * p.grad).tolist()
    assert update.stats()["replays"] == 3


def test_which_arrays_lie_apart() -> None:
    x = tg.arange(24.0).reshape(4, 6)
    rows, columns = [x[i]._data for i in range(4)], [x[:, i]._data for i in range(2)]
    apart_from_all: frozenset[int] = frozenset()
    assert apart(rows, [], apart_from_all) and apart(rows[:2], rows[2:], apart_from_all)
    assert apart(rows[:1], columns[:0], apart_from_all) and apart([x[:0]._data], rows, apart_from_all)
    assert not apart([rows[0], rows[0]], [], apart_from_all)
    assert not apart([x[1:3]._data], rows[2:], apart_from_all) and not apart(rows[2:], [x[1:3]._data], apart_from_all)
    assert not apart([x.flip(0)._data, x._data[::-1]], [x._data], apart_from_all)
    assert apart([x.clone()._data], [x._data], apart_from_all)
    assert not apart(rows, [], frozenset([id(rows[0].base)]))
