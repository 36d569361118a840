"""What is refused says what was asked, what was seen, and what would work."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.errors import CompileError, DeviceError
from tensorgrad.testing.strict_backend import strict_cuda

host = tg.ones(2)


@pytest.mark.parametrize("function, words", [
    (lambda x, y: (x * 2).to("cuda"), r"shape \(2,\) on cpu is moved to cuda at .*test_words.py:\d+"),
    (lambda x, y: x.cuda() + y, "on cpu is moved to cuda"),
    (lambda x, y: (y * 2).cpu(), "on cuda:0 is moved to cpu"),
    (lambda x, y: host.to(y.device) + y, "on cpu is moved to cuda"),
    (lambda x, y: (y + 1).to(x.device), "moved to cpu"),
    (lambda x, y: x.add_(y.cpu()), r"Move the tensor before the call.*model.to\(...\)"),
])  # fmt: skip
def test_a_move_between_devices(function: Any, words: str) -> None:
    with strict_cuda():
        x, y = tg.ones(2), tg.ones(2, device="cuda")
        with pytest.raises(CompileError, match=words) as caught:
            tg.compile(function)(x, y)
        assert "where()" not in str(caught.value) and "neither among" not in str(caught.value)
        fallback = tg.compile(function, fallback=True)
        for _ in range(3):
            ours, theirs = tg.ones(2), tg.ones(2)
            assert fallback(ours, y).tolist() == function(theirs, y).tolist() and ours.tolist() == theirs.tolist()


def moved_in_the_middle(x: Any, y: Any) -> Any:
    a = (x * 2 + 1).tanh()
    b = a.to("cuda")
    c = (b + y).exp() * 2
    return c - 1


def test_what_stands_around_a_move_is_compiled() -> None:
    with strict_cuda():
        f = tg.compile(moved_in_the_middle, fallback=True)
        for i in range(5):
            x, y = tg.full((2,), float(i)), tg.ones(2, device="cuda")
            assert f(x, y).tolist() == moved_in_the_middle(x, y).tolist()
        [why] = f.stats()["python"].values()
        assert f.stats()["replays"] == 6 and why.endswith('in moved_in_the_middle: b = a.to("cuda")'), why


def test_numbers_become_tensors_of_a_device_within() -> None:
    with strict_cuda():
        f = tg.compile(lambda y: tg.tensor([1.0, 2.0], device="cuda") * y)
        for i in range(4):
            assert f(tg.full((2,), float(i), device="cuda")).tolist() == [i * 1.0, i * 2.0]
        assert f.stats()["replays"] == 3


def test_a_device_that_is_not_there() -> None:
    if tg.cuda.is_available():
        with pytest.raises(CompileError, match="is moved to cuda"):
            tg.compile(lambda x: x.to("cuda"))(tg.ones(2))
    else:
        with pytest.raises(DeviceError, match="'cuda' is not available"):
            tg.compile(lambda x: x.to("cuda"))(tg.ones(2))


@pytest.mark.parametrize("view", [
    lambda whole: whole[1:], lambda whole: whole.t(), lambda whole: whole[:, ::2], lambda whole: whole.view(-1)[3:],
])  # fmt: skip
def test_as_strided_of_a_view_that_is_an_argument(view: Any) -> None:
    whole = tg.arange(16.0).view(4, 4).clone()

    def f(x: Any) -> Any:
        return x.as_strided((2, 2), (2, 1), 1) * 2

    part = view(whole)
    with pytest.raises(CompileError) as caught:
        tg.compile(f)(part)
    text = str(caught.value)
    assert "as_strided at" in text and "test_words.py" in text and "argument 0" in text and "clone()" in text
    assert str(tuple(part.shape)) in text
    fallback = tg.compile(f, fallback=True)
    assert [fallback(part).tolist() for _ in range(3)] == [f(part).tolist()] * 3
    # what it says would work
    compiled, inside = tg.compile(f), tg.compile(lambda whole: f(view(whole)))
    for _ in range(3):
        assert compiled(part.clone()).tolist() == f(part.clone()).tolist()
        assert inside(whole).tolist() == f(part).tolist()
    assert compiled.stats()["replays"] == inside.stats()["replays"] == 2
