"""What a run makes of a tensor's memory without an op: copies of whole objects, other dtypes, other strides; and what
modes it leaves."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import CompileError
from tensorgrad.utils._pytree import tree_flatten

BACKENDS = ["numpy", "cpp"]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request: pytest.FixtureRequest) -> Any:
    with tg.backend(request.param):
        yield request.param


def alike(function: Callable[..., Any], make: Callable[[], tg.Tensor], calls: int = 7) -> Any:
    """The compiled function gives what the function gives, of another tensor in each call."""
    step = tg.compile(function)
    for _ in range(calls):
        x = make()
        for a, b in zip(tree_flatten(step(x))[0], tree_flatten(function(x))[0], strict=True):
            assert a.stride() == b.stride() and a.requires_grad is b.requires_grad
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6)
    assert step.stats()["replays"] == calls - 1
    return step


def slices() -> tg.Tensor:
    return tg.randn(4, 6)[:, ::2]


def transposed() -> tg.Tensor:
    return tg.randn(6, 4).t()


COPIES: dict[str, Callable[[Any], Any]] = {
    "of an argument": copy.deepcopy,
    "of a result": lambda x: copy.deepcopy((x * 2).detach()),
    "in containers": lambda x: copy.deepcopy({"a": [x, (x,)]}),
    "changed in place": lambda x: (copy.deepcopy(x).add_(1), x * 1),
    "shallow": lambda x: (copy.copy(x) * 2, copy.copy(x * 1).add_(1)),
    "in another order": lambda x: copy.deepcopy(tg.randn(2, 3, 4).fill_(2).permute(2, 0, 1) * x.sum()),
}


@pytest.mark.parametrize("make", [lambda: tg.randn(3), slices, transposed], ids=["1d", "slices", "transposed"])
@pytest.mark.parametrize("name", COPIES)
def test_deep_copies_are_made_in_each_replay(name: str, make: Callable[[], tg.Tensor]) -> None:
    step = tg.compile(COPIES[name])
    for _ in range(5):
        x = make()
        made, expected = step(x), COPIES[name](x)
        for a, b in zip(tree_flatten(made)[0], tree_flatten(expected)[0], strict=True):
            assert tg.allclose(a, b)
    assert step.stats()["replays"] == 4


def test_a_model_is_copied_in_each_replay() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.BatchNorm1d(4), tg.nn.Linear(4, 1))

    def adapted(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        mine = copy.deepcopy(model)
        grads = tg.autograd.grad(mine(x).square().mean(), list(mine.parameters()))
        with tg.no_grad():
            for p, g in zip(mine.parameters(), grads, strict=True):
                p -= 0.1 * g
        return mine(y).square().mean()

    step = tg.compile(adapted)
    for _ in range(4):
        x, y = tg.randn(5, 3), tg.randn(5, 3)
        assert tg.allclose(step(x, y), adapted(x, y), rtol=1e-5)
        with tg.no_grad():
            model[0].weight.mul_(1.5)
    assert step.stats()["replays"] >= 2  # what a first run imports is looked for by the second


def test_a_deep_copy_has_the_gradient_of_each_replay() -> None:
    layer = tg.nn.Linear(3, 1)
    layer(tg.ones(1, 3)).sum().backward()

    def step(x: tg.Tensor) -> tg.Tensor:
        layer.weight.grad = None
        layer(x).sum().backward()
        return copy.deepcopy(layer.weight).grad * 1

    compiled = tg.compile(step)
    for _ in range(4):
        x = tg.randn(2, 3)
        assert tg.allclose(compiled(x)[0], x.sum(0))
    assert compiled.stats()["replays"] == 3


def test_pickling_is_refused() -> None:
    with pytest.raises(CompileError, match="reads a tensor"):
        tg.compile(lambda x: pickle.loads(pickle.dumps(x * 1)) + 1)(tg.ones(2))
    with pytest.raises(CompileError, match="reads a tensor"):
        tg.compile(lambda x: pickle.loads(pickle.dumps(x)))(tg.ones(2))
    copied = copy.copy(tg.ones(2, requires_grad=True))
    assert copied.requires_grad and copied.is_leaf


@pytest.mark.parametrize("make", [lambda: tg.randn(4, 6), slices, transposed], ids=["rows", "slices", "transposed"])
@pytest.mark.parametrize("name", ["argument", "result"])
def test_elements_of_another_dtype_are_refused(name: str, make: Callable[[], tg.Tensor]) -> None:
    def seen(x: tg.Tensor) -> Any:
        bits = (x if name == "argument" else x * 2).view(tg.int32)
        return bits

    with pytest.raises(CompileError, match=r"torch.float32 are seen as torch.int32 at .*test_past_the_door.py:\d+"):
        tg.compile(seen)(make())
    step = tg.compile(seen, fallback=True)
    for _ in range(4):
        x = make()
        assert tg.equal(step(x), seen(x))


def test_elements_of_the_state_are_seen_as_another_dtype() -> None:
    weight = tg.ones(3)
    step = tg.compile(lambda x: weight.view(tg.int32) + x)
    for value in (1.0, 2.0, 3.0):
        weight.fill_(value)
        assert step(tg.zeros(3, dtype=tg.int32)).tolist() == weight.view(tg.int32).tolist()
    assert step.stats()["replays"] == 2


STRIDED: dict[str, Callable[[Any], Any]] = {
    "of a formula": lambda x: (x * 2 + 1).exp().as_strided((4,), (1,)),
    "from a place on": lambda x: (x * 2).as_strided((3, 2), (2, 1), 1),
    "of a view": lambda x: (x * 2).t()[0].as_strided((3,), (1,)),
    "of booleans": lambda x: (x > 0).as_strided((4,), (1,)).float(),
    "changed in place": lambda x: [(y := x * 2), y.as_strided((4,), (1,)).zero_()][0].contiguous(),
}


@pytest.mark.parametrize("make", [transposed, slices, lambda: tg.randn(300, 400).t()], ids=["small", "slices", "large"])
@pytest.mark.parametrize("name", STRIDED)
def test_strides_of_what_follows_an_argument(name: str, make: Callable[[], tg.Tensor]) -> None:
    alike(STRIDED[name], make)


LEFT: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "grad mode": (
        lambda: tg.set_grad_enabled(False), lambda: tg.set_grad_enabled(True),
        "whether gradients are recorded was True and is False",
    ),
    "autocast": (
        lambda: tg.set_autocast_enabled("cpu", True), lambda: tg.set_autocast_enabled("cpu", False), "autocast was off",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_a_mode_that_a_function_leaves_is_not_forgotten(name: str) -> None:
    leave, put_back, words = LEFT[name]

    def told() -> Any:
        return tg.is_grad_enabled(), tg.is_autocast_enabled("cpu")

    def left(x: tg.Tensor) -> tg.Tensor:
        y = x * 2
        leave()
        return y + 1

    try:
        step = tg.compile(left)
        with pytest.raises(CompileError, match=words):
            for _ in range(4):
                put_back()
                assert step(tg.ones(2)).tolist() == [3.0, 3.0]
                now = told()
                put_back()
                assert now != told()
        assert step.stats()["replays"] == 0
        step = tg.compile(left, fallback=True)
        for _ in range(6):
            put_back()
            step(tg.ones(2))
            assert told() == now
    finally:
        put_back()


def test_a_result_of_inference_mode_is_one() -> None:
    def both(x: tg.Tensor) -> Any:
        with tg.inference_mode():
            a = x * 2
            b = a[0]
        with tg.inference_mode(False):
            c = x * 3
            d = c.t()
        return a, b, c, d, [a, x[0]], a.t(), x * 1, x

    def told(found: Any) -> list[bool]:
        return [t.is_inference() for t in tree_flatten(found)[0]]

    step, alone = tg.compile(both), tg.compile(tg.inference_mode()(lambda x: x * 2))
    for _ in range(4):
        x = tg.randn(3, 2)
        assert told(step(x)) == told(both(x)) == [True, True, False, False, True, False, True, False, False]
        with tg.inference_mode():
            x = tg.randn(3, 2)
            assert told(step(x)) == told(both(x))
        assert alone(x).is_inference()
    assert step.stats()["replays"] == 6 and alone.stats()["replays"] == 3
