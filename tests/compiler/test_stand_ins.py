"""What a run has done to an argument that another tensor stood for, where no program was written of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.errors import CompileError

ACTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "changes it": lambda a, v, kept: a.mul_(v),
    "changes a view": lambda a, v, kept: a[:2].mul_(v[:2]),
    "keeps it": lambda a, v, kept: kept.list.append(a),
    "keeps it in a dict": lambda a, v, kept: kept.dict.update(a=a),
    "keeps it in a deque": lambda a, v, kept: kept.deque.append(a),
    "keeps it as an attribute": lambda a, v, kept: setattr(kept, "a", a),
    "keeps a view, then changes it": lambda a, v, kept: (kept.list.append(a.view(3)), a.add_(1)),
    "gives it data": lambda a, v, kept: setattr(a, "data", tg.full((3,), 5.0)),
    "gives it a shape": lambda a, v, kept: a.unsqueeze_(0),
    "gives it a gradient": lambda a, v, kept: setattr(a, "grad", tg.ones(3)),
    "gives it an attribute": lambda a, v, kept: setattr(a, "name_of_it", 3),
    "reads an attribute": lambda a, v, kept: kept.list.append(v * a.factor),
    "cuts it off": lambda a, v, kept: a.detach_(),
    "lets it require grad": lambda a, v, kept: a.requires_grad_(),
    "hooks": lambda a, v, kept: (a.requires_grad_(), a.register_hook(lambda g: g * 2)),
}

CASES = [(action, kind) for action in ACTIONS for kind in ("detached", "computed")]
# which is refused in the middle, and what Python has done by then is done twice
CASES.remove(("keeps a view, then changes it", "computed"))


def seen(action: str, kind: str, end: str, compile: Callable[..., Any]) -> list[Any]:
    v = tg.full((3,), 2.0, requires_grad=True)
    kept = SimpleNamespace(list=[], dict={}, deque=deque(), a=None)
    reached = tg.ones(3)
    a = {"detached": reached.detach(), "computed": v * 2}[kind]
    a.factor = 2.0

    def function(a: Any) -> None:
        total = reached.sum()
        ACTIONS[action](a, v, kept)
        if end == "raises":
            raise KeyError("no more")
        kept.list.append(total.item() + float(reached[0].item() > 0))

    outer = a[:1]
    try:
        compile(function)(a)
    except KeyError:
        kept.list.append("raised")
    tensors = [t for t in (*kept.list, *kept.dict.values(), *kept.deque, kept.a) if isinstance(t, tg.Tensor)]
    told = [(t.tolist(), t.requires_grad, t is a) for t in (a, outer, reached, *tensors)]
    told += [
        a.grad is None,
        v.grad is None,
        getattr(a, "name_of_it", None),
        [x for x in kept.list if not isinstance(x, tg.Tensor)],
    ]
    total = a.sum() * 2 + outer.sum() + (v * reached).sum()
    for t in tensors:
        total = total + t.sum()
    total.backward()
    return [*told, v.grad.tolist(), a.grad.tolist() if a.is_leaf and a.grad is not None else None]


@pytest.mark.parametrize("end", ["reads", "raises"])
@pytest.mark.parametrize(("action", "kind"), CASES)
def test_is_done_to_the_argument(action: str, kind: str, end: str) -> None:
    expected = seen(action, kind, end, lambda f: f)
    assert seen(action, kind, end, lambda f: tg.compile(f, fallback=True)) == expected


def test_an_attribute_for_an_argument_is_refused() -> None:
    def function(a: Any) -> Any:
        a.name_of_it = 3
        return a * 2

    with pytest.raises(CompileError, match="gives its tensor argument 0 an attribute"):
        tg.compile(function)(tg.ones(2))
    loose = tg.compile(function, fallback=True)
    for x in (tg.ones(2), tg.ones(2), tg.ones(2, requires_grad=True) * 2):
        loose(x)
        assert x.name_of_it == 3


REFUSED: dict[str, Callable[[tg.Tensor], Any]] = {
    "written to": lambda a: a.mul_(2),
    "a view written to": lambda a: a[0].mul_(2),
    "asked": lambda a: a.grad_fn is not None and not a.is_leaf,
    "retained": lambda a: a.retain_grad(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_midway_is_not_run_again(what: str) -> None:
    def run(compile_it: bool) -> Any:
        log: list[str] = []
        count = tg.zeros(1)
        found = []

        def f(a: tg.Tensor, rest: tg.Tensor) -> tg.Tensor:
            log.append("begun")
            count.add_(1)
            before = (a * 3).sum()
            view = a[1:]
            REFUSED[what](a)
            (a * rest).sum().backward(retain_graph=True)
            return before + (a * a * rest).sum() + view.sum()

        called = tg.compile(f, fallback=True) if compile_it else f
        for i in range(4):
            w = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
            a = w * (i + 1)
            called(a, tg.tensor([2.0, 1.0, 1.0])).backward(retain_graph=True)
            (a * 5).sum().backward()
            assert w.grad is not None
            grad = a.grad.tolist() if a.retains_grad else None
            found.append((w.grad.tolist(), a.tolist(), grad, list(log), count.item()))
        return found

    assert run(True) == run(False)


@pytest.mark.parametrize("fallback", [False, True])
def test_an_argument_that_is_reached_too_has_one_history(fallback: bool) -> None:
    def run(compile_it: bool) -> Any:
        buf = tg.ones(2)

        def f(a: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
            a.add_(w)
            return (buf * a).sum() + (buf[1:] * 3).sum()

        called = tg.compile(f, fallback=fallback) if compile_it else f
        w = tg.tensor([1.0, 2.0], requires_grad=True)
        called(buf, w).backward()
        assert w.grad is not None
        return w.grad.tolist(), buf.tolist(), buf.requires_grad

    if fallback:
        assert run(True) == run(False)
    else:
        with pytest.raises(CompileError, match="also reaches by itself, is changed in place"):
            run(True)
