"""State that hides in wrappers, caches, classes and modules: compiled calls find what eager ones find.

Each row makes (function of a tensor, what happens before call i).
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from beside import BACKENDS

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import CompileError

Row = tuple[Callable[[Any], Any], Callable[[int], Any]]
ROWS: list[Any] = []


def row(make: Callable[[], Row]) -> Callable[[], Row]:
    ROWS.append(pytest.param(make, id=make.__name__.replace("_", " ")))
    return make


def at(call: int, change: Callable[[], Any]) -> Callable[[int], Any]:
    """What happens before one of the calls."""
    return lambda i: change() if i == call else None


@row
def a_proxy_that_asks_its_own_dictionary() -> Row:
    class Proxy:
        def __init__(self) -> None:
            self.kept = {"k": 2.0}

        def __getattr__(self, name: str) -> Any:
            return self.__dict__["kept"][name]

    thing = Proxy()
    return (lambda x: x * thing.k), at(3, lambda: thing.kept.update(k=5.0))


@row
def a_class_that_answers_for_another_name() -> Row:
    class Thing:
        k = 1.0

        def __getattribute__(self, name: str) -> Any:
            return object.__getattribute__(self, "other" if name == "k" else name)

    thing: Any = Thing()
    thing.other = 3.0
    return (lambda x: x * thing.k), at(3, lambda: setattr(thing, "other", 4.0))


def cached(limit: int | None, reset: bool) -> Row:
    state = [2.0]

    @functools.lru_cache(limit)
    def kept(n: int) -> float:
        return state[0] * n

    def happens(i: int) -> None:
        if i == 3:
            state[0] = 9.0
        if i == 5 and reset:
            kept.cache_clear()

    return (lambda x: x * kept(2)), happens


ROWS += [
    pytest.param(functools.partial(cached, limit, reset), id=f"a cache of {limit}, {'' if reset else 'not '}cleared")
    for limit in (None, 8)
    for reset in (False, True)
]


@row
def a_tensor_in_a_cache() -> Row:
    @functools.lru_cache
    def kept(n: int) -> tg.Tensor:
        return tg.ones(n) * 2

    def happens(i: int) -> None:
        if i == 4:
            kept(3).mul_(3)
        if i == 6:
            kept.cache_clear()

    return (lambda x: x * kept(3)), happens


@row
def a_function_with_a_way_for_each_class() -> Row:
    @functools.singledispatch
    def way(a: Any) -> float:
        return 1.0

    return (lambda x: x * way(2)), at(4, lambda: way.register(int, lambda a: 5.0))


@row
def defaults_by_name_that_are_replaced() -> Row:
    def scaled(x: tg.Tensor, *, k: float = 2.0) -> tg.Tensor:
        return x * k

    return (lambda x: scaled(x)), at(3, lambda: setattr(scaled, "__kwdefaults__", {"k": 4.0}))


@row
def an_object_of_another_class() -> Row:
    class One:
        def way(self, x: Any) -> Any:
            return x * 2

    class Two:
        def way(self, x: Any) -> Any:
            return x * 3

    thing: Any = One()
    return (lambda x: thing.way(x)), at(3, lambda: setattr(thing, "__class__", Two))


@row
def a_module_of_another_class() -> Row:
    class One(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2

    class Two(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 3

    thing = One()
    return nn.Sequential(thing), at(3, lambda: setattr(thing, "__class__", Two))


@row
def a_module_of_this_package_of_another_class() -> Row:
    model = nn.Sequential(nn.SiLU(), nn.Softplus())
    return (lambda x: model(x)), at(3, lambda: setattr(model[0], "__class__", nn.Tanh))


@row
def a_class_of_other_bases() -> Row:
    class One:
        k = 2.0

    class Two:
        k = 7.0

    class Thing(One):
        pass

    thing = Thing()
    return (lambda x: x * thing.k), at(3, lambda: setattr(Thing, "__bases__", (Two,)))


@row
def a_number_of_c() -> Row:
    number = ctypes.c_double(2.0)
    return (lambda x: x * number.value), at(3, lambda: setattr(number, "value", 3.0))


@row
def numbers_of_c() -> Row:
    numbers = (ctypes.c_double * 2)(2.0, 1.0)
    return (lambda x: x * numbers[0]), at(3, lambda: numbers.__setitem__(0, 3.0))


def module(name: str) -> Any:
    made: Any = types.ModuleType(name)
    made.k = 2.0
    exec("def scaled(x): return x * k", made.__dict__)
    sys.modules[name] = made
    return made


@row
def a_module_that_is_imported_within() -> Row:
    made = module("of_user_one")

    def step(x: Any) -> Any:
        import of_user_one

        return of_user_one.scaled(x) * of_user_one.k

    return step, at(3, lambda: setattr(made, "k", 3.0))


@row
def a_name_that_is_imported_within() -> Row:
    made = module("of_user_two")

    def step(x: Any) -> Any:
        from of_user_two import k

        return x * k

    return step, at(3, lambda: setattr(made, "k", 3.0))


@row
def a_function_of_the_library_that_is_replaced() -> Row:
    real = math.floor

    def happens(i: int) -> None:
        if i == 3:
            math.floor = lambda x: 9
        if i == 5:
            math.floor = real

    return (lambda x: x * math.floor(2.5)), happens


@row
def an_object_that_nobody_else_keeps() -> Row:
    class Thing:
        k = 2.0

    kept = [Thing()]
    there = weakref.ref(kept[0])

    def happens(i: int) -> None:
        if i == 3:
            kept[0].k = 3.0
        if i == 5:
            kept.clear()

    return (lambda x: x * (there().k if there() is not None else 9.0)), happens


@row
def tensors_that_are_keys() -> Row:
    a, b = tg.ones(3), tg.ones(3) * 2
    kept = {a: 2.0, b: 3.0}

    def happens(i: int) -> None:
        if i == 3:
            kept[a] = 5.0
        if i == 5:
            a.mul_(2)

    return (lambda x: x * kept[a] + sum(k * v for k, v in kept.items())), happens


@row
def zeros_of_complex_numbers() -> Row:
    kept = [complex(0.0, -0.0)]
    return (lambda x: x * kept[0]), at(3, lambda: kept.__setitem__(0, complex(-0.0, 0.0)))


def outcomes(make: Callable[[], Row], compiles: bool) -> tuple[list[Any], Any]:
    function, happens = make()
    run = tg.compile(function) if compiles else function
    found = []
    for i in range(8):
        happens(i)
        found.append(repr(run(tg.arange(3.0) + 1).tolist()))
    return found, run


@pytest.mark.parametrize("make", ROWS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_found_as_eagerly(make: Callable[[], Row], backend: str) -> None:
    with tg.backend(backend):
        expected, _ = outcomes(make, False)
        found, compiled = outcomes(make, True)
    assert found == expected
    stats = compiled.stats() if hasattr(compiled, "stats") else compiled._compiled.stats()
    assert stats["replays"] >= 2


def test_the_order_of_names_is_seen_where_they_are_taken_as_one() -> None:
    def step(**given: Any) -> Any:
        first, second = given.values()
        return first * 2 - second

    compiled = tg.compile(step)
    a, b = tg.ones(2), tg.ones(2) * 3
    for _ in range(3):
        assert compiled(a=a, b=b).tolist() == [-1.0, -1.0]
        assert compiled(b=b, a=a).tolist() == [5.0, 5.0]
    assert compiled.stats()["captures"] == 2
    named = tg.compile(lambda x, y: x - y)
    for _ in range(2):
        assert named(x=a, y=b).tolist() == named(y=b, x=a).tolist() == [-2.0, -2.0]
    assert named.stats()["captures"] == 1


def test_keys_that_are_equal_and_not_the_same() -> None:
    step = tg.compile(lambda x, keys: (x * 2, [type(key).__name__ for key in keys]))
    for _ in range(2):
        for key, name in ((True, "bool"), (1, "int"), (1.0, "float")):
            assert step(tg.ones(1), {key: 3})[1] == [name]
    assert step.stats()["captures"] == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_of_complex_arguments(backend: str) -> None:
    def step(x: Any, k: complex) -> Any:
        return x * k

    with tg.backend(backend):
        compiled = tg.compile(step)
        for k in (complex(0.0, -0.0), complex(-0.0, 0.0), complex(0.0, 0.0)) * 2:
            assert repr(compiled(tg.ones(1), k).tolist()) == repr(step(tg.ones(1), k).tolist())


def changes_shape(x: Any) -> Any:
    x.unsqueeze_(0)
    return x * 2


def changes_storage(x: Any) -> Any:
    x.data = x.data * 2
    return x + 1


@pytest.mark.parametrize("function", [changes_shape, changes_storage])
def test_an_argument_that_becomes_another_is_refused_or_python(function: Callable[[Any], Any]) -> None:
    with pytest.raises(CompileError, match="gives its tensor argument 0 another"):
        tg.compile(function)(tg.ones(3))
    step = tg.compile(function, fallback=True)
    for _ in range(3):
        x, y = tg.ones(3), tg.ones(3)
        assert step(x).tolist() == function(y).tolist()
        assert (x.shape, x.tolist(), x.requires_grad) == (y.shape, y.tolist(), y.requires_grad)


LOOKS: dict[str, Callable[[Any], Any]] = {
    "is_leaf": lambda x: x.is_leaf, "grad_fn": lambda x: x.grad_fn is None,
    "the size": lambda x: x.untyped_storage().nbytes(),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_what_an_argument_is_outside_is_refused_or_python(name: str) -> None:
    look = LOOKS[name]
    given = (tg.ones(4, requires_grad=True) * 2) if name != "the size" else tg.ones(4)[:2]
    with pytest.raises(CompileError, match=rf"compile: .*{name}.* is read at .*test_hidden_state.py:\d+"):
        tg.compile(lambda x: x.detach() * look(x))(given)
    step = tg.compile(lambda x: x.detach() * look(x), fallback=True)
    for _ in range(3):
        assert step(given).tolist() == (given.detach() * look(given)).tolist()


@pytest.mark.filterwarnings("ignore:compile. calls of .* run as they are")
def test_hooks_of_saved_tensors_are_asked_in_each_call() -> None:
    w = tg.ones(3, requires_grad=True)
    step = tg.compile(lambda x: (x * w).square().sum())

    def gradient() -> Any:
        w.grad = None
        step(tg.ones(3)).backward()
        return w.grad.tolist()

    for _ in range(3):
        with tg.autograd.graph.saved_tensors_hooks(lambda t: t * 2, lambda t: t):
            assert gradient() == [8.0, 8.0, 8.0]
    assert [gradient() for _ in range(3)] == [[2.0, 2.0, 2.0]] * 3
    assert step.stats()["replays"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_that_a_frozen_parameter_is_given(backend: str) -> None:
    """``zero_grad`` forgets it, and a step that goes over gradients finds it."""
    with tg.backend(backend):
        a, b = tg.nn.Parameter(tg.ones(2)), tg.nn.Parameter(tg.ones(2), requires_grad=False)
        optimizer = tg.optim.SGD([a, b], lr=0.5)

        @tg.compile
        def step(x: Any) -> None:
            optimizer.zero_grad()
            (a * x).sum().backward()
            optimizer.step()

        for _ in range(3):
            step(tg.ones(2))
        b.grad = tg.ones(2)
        step(tg.ones(2))
        assert b.grad is None and b.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["hook", "function"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_python_rests_on_in_a_backward_pass_must_stay_until_then(kind: str, backend: str) -> None:
    factor = [2.0]
    w = tg.ones(3, requires_grad=True)

    class Scaled(tg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * factor[0]

    @tg.compile
    def step(x: Any) -> Any:
        y = x * w
        if kind == "function":
            return Scaled.apply(y)
        y.register_hook(lambda g: g * factor[0])
        return y * 3

    def gradient() -> Any:
        w.grad = None
        step(tg.ones(3)).sum().backward()
        return w.grad.tolist()[0]

    by = 1.0 if kind == "function" else 3.0
    with tg.backend(backend):
        assert [gradient() for _ in range(3)] == [2.0 * by] * 3
        factor[0] = 5.0
        assert [gradient() for _ in range(3)] == [5.0 * by] * 3
        assert step.stats()["replays"] == 4
        for _ in range(2):
            y = step(tg.ones(3)).sum()
            factor[0] += 1.0
            with pytest.raises(CompileError, match=r"between a compiled function and its backward pass, .*was [56]"):
                y.backward()
