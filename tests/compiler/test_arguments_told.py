"""Arguments that the function tells to require gradients, or not to, or to keep them, are told by replays as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from beside import BACKENDS

import tensorgrad as tg
from tensorgrad.errors import CompileError


def sign(x: tg.Tensor) -> Any:
    x.requires_grad_()
    (x * x).sum().backward()
    found: Any = x.grad
    return found.sign()


def by_attribute(x: tg.Tensor) -> tg.Tensor:
    x.requires_grad = True
    (x * x).sum().backward()
    return x * 2


def result_only(x: tg.Tensor) -> tg.Tensor:
    return x.requires_grad_() * x


def asked(x: tg.Tensor) -> tg.Tensor:
    x.requires_grad_()
    (found,) = tg.autograd.grad((x * x).sum(), x)
    return x + found


def frozen(x: tg.Tensor) -> tg.Tensor:
    return x.requires_grad_(False) * 2


@pytest.mark.parametrize("function", [sign, by_attribute, result_only, asked, frozen], ids=lambda f: f.__name__)
@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_requires_gradients_as_after_an_eager_call(
    function: Callable[[tg.Tensor], tg.Tensor], fallback: bool, backend: str
) -> None:
    with tg.backend(backend):
        step = tg.compile(function, fallback=fallback)
        for i in range(5):
            found = []
            for run in (function, step):
                x = tg.arange(1.0, 4.0) + i
                if function is frozen:
                    x.requires_grad_()
                y = run(x)
                if y.requires_grad:
                    y.sum().backward()
                gradient = None if x.grad is None else x.grad.tolist()
                found.append((y.tolist(), y.requires_grad, x.requires_grad, gradient))
            assert found[0] == found[1]
    assert step.stats()["replays"] >= 2


def keeps(x: tg.Tensor) -> tg.Tensor:
    x.retain_grad()
    return x * 2


def is_kept(x: tg.Tensor) -> Any:
    return x * 2, x.retains_grad  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [keeps, is_kept], ids=lambda f: f.__name__)
def test_keeping_the_gradient_of_what_was_computed_outside_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(CompileError, match=r"retain_grad\(\) or retains_grad of argument 0 at .*test_arguments_told"):
        tg.compile(function)(tg.ones(2, requires_grad=True) * 2)
    step = tg.compile(function, fallback=True)
    for _ in range(3):
        x = tg.ones(2, requires_grad=True) * 2
        if function is is_kept:
            x.retain_grad()
            assert step(x)[1] is True
        else:
            step(x).sum().backward()
            assert x.grad is not None and x.grad.tolist() == [2.0, 2.0]


def test_a_computed_argument_that_is_cut_off_is_refused() -> None:
    with pytest.raises(CompileError, match="takes requires_grad from its tensor argument 0"):
        tg.compile(lambda x: x.detach_() * 2)(tg.ones(2, requires_grad=True) * 2)


def test_what_a_call_that_raises_has_done_is_done():
    """The run that is written down takes stand-ins of what the function also reaches by itself."""
    kept = tg.ones(3)

    def fails(a, b, seen):
        a.sub_(b)
        seen.append(kept.sum())
        raise KeyError("no more")

    for function in (fails, tg.compile(fails), tg.compile(fails, fallback=True)):
        kept = tg.ones(3)
        b, seen = tg.ones(3, requires_grad=True), []
        with pytest.raises(KeyError):
            function(kept, b, seen)
        kept.sum().backward()
        assert b.grad.tolist() == [-1.0] * 3 and seen[0].item() == 0.0
