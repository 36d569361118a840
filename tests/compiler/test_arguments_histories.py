"""Backward passes of a compiled function through what an argument was computed of go as they do eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from beside import BACKENDS

import tensorgrad as tg
from tensorgrad.errors import AutogradError, CompileError


def twice(h: tg.Tensor) -> None:
    (h * 2).sum().backward()
    (h * 3).sum().backward()


def kept(h: tg.Tensor) -> None:
    (h * 2).sum().backward(retain_graph=True)
    (h * 3).sum().backward()


def one_of_two(a: tg.Tensor, b: tg.Tensor) -> None:
    a.sum().backward()
    b.sum().backward()


def both(a: tg.Tensor, b: tg.Tensor) -> None:
    (a + b).sum().backward()


def kept_for_later(h: tg.Tensor) -> tg.Tensor:
    (h + 1).sum().backward(retain_graph=True)
    return h * 2


def up_to_it(h: tg.Tensor) -> None:
    (h * 3).sum().backward(inputs=[h])


def square(w: tg.Tensor) -> tuple[tg.Tensor, ...]:
    return (w * w,)


def double(w: tg.Tensor) -> tuple[tg.Tensor, ...]:
    return (w + w,)


def two(w: tg.Tensor) -> tuple[tg.Tensor, ...]:
    h = w * w
    return h * 2, h * 3


ROWS: list[tuple[Callable[..., Any], Callable[[tg.Tensor], tuple[tg.Tensor, ...]], Any]] = [
    (twice, square, AutogradError),
    (twice, double, [10.0, 10.0]),
    (kept, square, [30.0, 30.0]),
    (one_of_two, two, AutogradError),
    (both, two, [30.0, 30.0]),
    (kept_for_later, square, [18.0, 18.0]),
    (up_to_it, square, None),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0].__name__}-{row[1].__name__}")
@pytest.mark.parametrize("how", ["eager", "compiled", "fallback"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_goes_on_or_raises_alike(row: Any, how: str, backend: str) -> None:
    function, computed, expected = row
    with tg.backend(backend):
        step = function if how == "eager" else tg.compile(function, fallback=how == "fallback")
        for _ in range(3):
            w = tg.full((2,), 3.0, requires_grad=True)
            given = computed(w)
            if expected is AutogradError:
                with pytest.raises(AutogradError, match="a second time"):
                    step(*given)
                continue
            result = step(*given)
            if result is not None:
                result.sum().backward()
            assert (None if w.grad is None else w.grad.tolist()) == expected
            if expected is None:
                assert given[0].grad.tolist() == [3.0, 3.0]


def test_a_gradient_of_both_is_refused() -> None:
    @tg.compile
    def step(h: tg.Tensor) -> None:
        (h * 3).sum().backward(inputs=[h])
        (h * 2).sum().backward()

    with pytest.raises(CompileError, match="one backward pass ends at an argument"):
        step(tg.ones(2, requires_grad=True) * 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fallback", [False, True])
def test_a_pass_to_a_history_that_is_freed_raises_before_what_comes_behind(backend: str, fallback: bool) -> None:
    with tg.backend(backend):
        count = tg.zeros(1)
        told: list[str] = []

        def step(h: tg.Tensor) -> None:
            count.add_(1)
            (h * 2).sum().backward()
            count.add_(10)

        def caught(h: tg.Tensor) -> tg.Tensor:
            try:
                (h * 2).sum().backward()
            except AutogradError:
                return h.detach() + 1
            return h.detach() * 2

        compiled, forgiving = (tg.compile(f, fallback=fallback) for f in (step, caught))
        for freed in (True, False, False, True, True, False):
            w = tg.ones(2, requires_grad=True)
            h = w * w
            if freed:
                h.sum().backward()
            before = count.item()
            try:
                compiled(h)
            except AutogradError:
                told.append("raised")
            assert count.item() - before == (1 if freed else 11)
            if not freed:
                assert w.grad is not None and w.grad.tolist() == [4.0, 4.0]
        assert told == ["raised"] * 3 and compiled.stats()["replays"] == 2
        for freed in (True, False, False, True):
            h = tg.ones(2, requires_grad=True) * 3
            if freed:
                h.sum().backward()
            assert forgiving(h).tolist() == ([4.0, 4.0] if freed else [6.0, 6.0])
