"""Arguments in one memory, with each other or with what the function reaches: a program knows which is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from beside import BACKENDS

import tensorgrad as tg
from tensorgrad.utils._pytree import tree_flatten


def values(result: Any) -> list[Any]:
    return [t.tolist() for t in tree_flatten(result)[0] if t is not None]


def pair(kind: str) -> tuple[tg.Tensor, tg.Tensor]:
    t, other, rows = tg.tensor([[1.0, 2.0], [3.0, 4.0]]), tg.tensor([[5.0, 6.0], [7.0, 8.0]]), tg.arange(9.0)
    found: dict[str, tuple[tg.Tensor, tg.Tensor]] = {
        "apart": (t, other), "view": (t, t.view(2, 2)), "whole": (t.view(2, 2), t), "detached": (t, t.detach()),
        "overlap": (rows[:4].view(2, 2), rows[3:7].view(2, 2)), "transposed": (t, t.T),
    }  # fmt: skip
    return found[kind]


def writes_a_view(a: tg.Tensor, b: tg.Tensor) -> None:
    b.squeeze().add_(1)


def returns_views(a: tg.Tensor, b: tg.Tensor) -> Any:
    return b.reshape(-1), a[0], a + b


def writes_and_returns(a: tg.Tensor, b: tg.Tensor) -> Any:
    t = b[1]
    t.copy_(a[0])
    return t, a * 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", [writes_a_view, returns_views, writes_and_returns])
@pytest.mark.parametrize("first", ["view", "whole", "detached", "overlap"])
def test_arguments_in_one_memory(first: str, function: Callable[..., Any], backend: str) -> None:
    with tg.backend(backend):
        compiled = tg.compile(function)
        for kind in (first, "apart", "transposed", first, "apart", "apart"):
            theirs, ours = pair(kind), pair(kind)
            expected, found = function(*theirs), compiled(*ours)
            assert values(found) == values(expected) and values(ours) == values(theirs)
            for t in (*theirs, *ours):
                t.add_(10)  # in views of them as well
            assert values(found) == values(expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("given", ["whole", "view", "other"])
@pytest.mark.parametrize("reached", ["whole", "view"])
@pytest.mark.filterwarnings("ignore:compile. calls of .* run as they are")
def test_an_argument_in_the_memory_of_what_is_reached(reached: str, given: str, backend: str) -> None:
    def result(x: tg.Tensor, v: tg.Tensor, way: int) -> Any:
        if way == 0:
            return x.sum() + v.sum() * 2, x[0], v[0]
        if way == 1:
            v.add_(1)
            return x.sum()
        x.mul_(2)
        return v.sum(), x[0]

    with tg.backend(backend):
        for way in range(3):
            found = []
            for compile in (tg.compile, lambda f: f):
                data = tg.arange(12.0).reshape(6, 2).clone()
                v = data if reached == "whole" else data[:2]
                function = compile(lambda x, v=v, way=way: result(x, v, way))
                seen = []
                for i, kind in enumerate((given, given, "other", "view", "whole")):
                    x = {"whole": data, "view": data[2:4], "other": tg.full((6, 2), float(i))}[kind]
                    seen.append([values(function(x)), x.tolist(), data.tolist()])
                found.append(seen)
            assert found[0] == found[1]


def test_a_view_of_a_batch_whose_whole_is_reached() -> None:
    data = tg.arange(12.0).reshape(6, 2).clone()

    def function(x: tg.Tensor) -> Any:
        return x[0], x * 2 + data.sum()

    compiled = tg.compile(function)
    for i in (0, 2, 4, 1):
        assert values(compiled(data[i : i + 2])) == values(function(data[i : i + 2]))


@pytest.mark.filterwarnings("ignore:compile. calls of")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_argument_that_the_function_reaches_too_and_changes_by_another_view(backend: str) -> None:
    def made() -> Any:
        whole = tg.arange(12.0).reshape(3, 4)
        rows, diagonal = whole[1:], whole.diagonal()

        def step(x: tg.Tensor) -> tg.Tensor:
            diagonal.mul_(2)
            return x * 1 + rows.mean()

        return step, rows

    with tg.backend(backend):
        (step, rows), (expected, others) = made(), made()
        compiled = tg.compile(step)
        other = tg.ones(2, 4)
        for x, y in [(other, other)] * 3 + [(rows, others)] * 4 + [(other, other)] * 2:
            assert tg.allclose(compiled(x), expected(y))
        assert compiled.stats()["replays"] == 4 and compiled.stats()["eager"] == 3
