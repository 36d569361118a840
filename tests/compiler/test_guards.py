"""What a program rests on may change between calls: then the change is seen, whatever the way the function knows it
by."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tests.compiler.beside import BACKENDS, beside

F = nn.functional
SCRIPTS: dict[str, Callable[[Any, Any], Any]] = {}

scale = 2.0
table = {"a": 1.0, "b": [1, 2, {"c": 3.0}]}
weight = tg.ones(3)


def script(f: Any) -> Any:
    SCRIPTS[f.__name__] = f
    return f


def x_of(i: int) -> Any:
    return tg.tensor([1.0, 2.0, 3.0 + i])


def thrice(f: Any, show: Any) -> None:
    for i in range(3):
        show(f(x_of(i)))


# --- numbers and containers


@script
def a_number_in_a_closure(compiled: Any, show: Any) -> None:
    by = 2.0
    f = compiled(lambda x: x * by)
    thrice(f, show)
    by = 3.0
    thrice(f, show)
    by = 2.0
    thrice(f, show)
    by = -0.0
    g = compiled(lambda x: x / by)
    thrice(g, show)
    by = 0.0
    thrice(g, show)
    by = float("nan")
    thrice(g, show)
    thrice(g, show)
    by = 2
    thrice(f, show)
    by = True
    thrice(f, show)


@script
def a_number_in_a_global(compiled: Any, show: Any) -> None:
    global scale
    f = compiled(lambda x: x * scale)
    for scale in (2.0, 3.0, 2.0, 2):  # noqa: B007 - the global is what counts
        thrice(f, show)


@script
def a_number_deep_in_a_global(compiled: Any, show: Any) -> None:
    f = compiled(lambda x: x * table["a"] + table["b"][2]["c"])
    thrice(f, show)
    table["b"][2]["c"] = 4.0
    thrice(f, show)
    table["b"][2] = {"c": 3.0}
    thrice(f, show)
    table["a"] = 7.0
    thrice(f, show)
    table["a"] = 1.0
    thrice(f, show)


@script
def the_length_of_a_list(compiled: Any, show: Any) -> None:
    parts = [1.0, 2.0]
    keys = {"a": 1.0}
    some: set[float] = {1.0}
    queue = collections.deque([1.0])
    f = compiled(lambda x: x * sum(parts) + sum(keys.values()) + sum(some) + sum(queue))
    thrice(f, show)
    for change in (lambda: parts.append(3.0), lambda: keys.update(b=2.0), lambda: some.add(5.0), lambda:
    queue.append(2.0),
                   lambda: (some.clear(), some.add(9.0), some.add(1.0)), lambda: queue.rotate(1)):  # fmt: skip
        change()
        thrice(f, show)


@script
def a_set_and_a_deque_of_the_same_size(compiled: Any, show: Any) -> None:
    some = {1.0}
    queue = collections.deque([1.0])
    f = compiled(lambda x: x * sum(some) + queue[0])
    thrice(f, show)
    some.clear()
    some.add(2.0)
    thrice(f, show)
    queue[0] = 5.0
    thrice(f, show)


@script
def a_list_of_tensors_and_modules(compiled: Any, show: Any) -> None:
    tg.manual_seed(0)
    layers = [nn.Linear(3, 3), nn.Linear(3, 3)]

    def run(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    f = compiled(run)
    thrice(f, show)
    layers.reverse()
    thrice(f, show)
    layers.append(nn.ReLU())
    thrice(f, show)
    del layers[0]
    thrice(f, show)
    layers[0] = nn.Linear(3, 3)
    thrice(f, show)


@script
def numpys_numbers(compiled: Any, show: Any) -> None:
    by = np.float32(2.0)
    f = compiled(lambda x: x * float(by))
    thrice(f, show)
    by = np.float32(3.0)
    thrice(f, show)
    g = compiled(lambda x, s: x * float(s))
    for s in (np.float64(1.5), np.float64(2.5), np.float64(1.5), np.int64(3)):
        show(g(x_of(0), s), g(x_of(1), s))


@script
def an_array_of_numpy_in_a_closure(compiled: Any, show: Any) -> None:
    sizes = np.array([2.0, 3.0])
    f = compiled(lambda x: x * float(sizes[0]))
    thrice(f, show)
    sizes[0] = 5.0
    thrice(f, show)


# --- objects


@dataclasses.dataclass
class Settings:
    by: float = 2.0
    inner: Any = None


class Kind(enum.Enum):
    ADD = 1
    MUL = 2


class Base:
    shared = 2.0

    def __init__(self) -> None:
        self.by = 2.0
        self.kind = Kind.ADD
        self.weight = tg.ones(3)

    @property
    def doubled(self) -> float:
        return self.by * 2

    def inherited(self, x: Any) -> Any:
        return x * self.by

    @staticmethod
    def fixed(x: Any) -> Any:
        return x + Base.shared

    @classmethod
    def of_class(cls, x: Any) -> Any:
        return x + cls.shared


class User(Base):
    def __call__(self, x: Any) -> Any:
        y = self.inherited(x) + self.doubled + self.shared
        y = y + 1 if self.kind is Kind.ADD else y * 3
        return self.fixed(y) * self.of_class(x) * self.weight


@script
def attributes_of_a_users_object(compiled: Any, show: Any) -> None:
    user = User()
    for f in (compiled(lambda x: user(x)), compiled(user), compiled(user.inherited)):
        thrice(f, show)
        user.by = 3.0
        thrice(f, show)
        user.kind = Kind.MUL
        thrice(f, show)
        Base.shared = 5.0
        thrice(f, show)
        user.shared = 6.0
        thrice(f, show)
        del user.shared
        Base.shared = 2.0
        thrice(f, show)
        user.weight = tg.ones(3) * 2
        thrice(f, show)
        user.weight.mul_(2)
        thrice(f, show)
        user.by, user.kind = 2.0, Kind.ADD


class Slotted:
    __slots__ = ("by", "weight")

    def __init__(self) -> None:
        self.by = 2.0
        self.weight = tg.ones(3)


@script
def slots(compiled: Any, show: Any) -> None:
    s = Slotted()
    f = compiled(lambda x: x * s.by * s.weight)
    thrice(f, show)
    s.by = 3.0
    thrice(f, show)
    s.weight = tg.ones(3) * 2
    thrice(f, show)


@script
def settings_of_many_kinds(compiled: Any, show: Any) -> None:
    pair = collections.namedtuple("pair", "by inner")
    for make in (Settings, argparse.Namespace, types.SimpleNamespace):
        s = make(by=2.0, inner=make(by=1.0, inner=[1, 2]))
        f = compiled(lambda x, s=s: x * s.by + s.inner.by + s.inner.inner[1])
        thrice(f, show)
        s.by = 3.0
        thrice(f, show)
        s.inner.by = 3.0
        thrice(f, show)
        s.inner.inner[1] = 7
        thrice(f, show)
        s.inner = make(by=0.5, inner=[1, 1])
        thrice(f, show)
        g = compiled(lambda x, s: x * s.by + s.inner.by)
        show(g(x_of(0), s), g(x_of(1), s))
        s.by = 9.0
        show(g(x_of(0), s), g(x_of(1), s))
        t = make(by=4.0, inner=s.inner)
        show(g(x_of(0), t), g(x_of(1), t), g(x_of(1), s))
    p = pair(2.0, 3.0)
    f = compiled(lambda x: x * p.by)
    thrice(f, show)
    p = pair(4.0, 3.0)
    thrice(f, show)


class Sub(dict):
    pass


@script
def odd_containers(compiled: Any, show: Any) -> None:
    a, b = collections.OrderedDict(by=2.0), collections.defaultdict(float, by=2.0)
    c, d, e = Sub(by=2.0), types.MappingProxyType(a), collections.ChainMap({"by": 2.0})
    f = compiled(lambda x: x * a["by"] * b["by"] * c["by"] * d["by"] * e["by"])
    thrice(f, show)
    for one in (a, b, c, e):
        one["by"] = 3.0
        thrice(f, show)


@script
def an_iterator_made_inside(compiled: Any, show: Any) -> None:
    def parts() -> Any:
        yield 1.0
        yield scale

    f = compiled(lambda x: sum(x * p for p in parts()))
    thrice(f, show)
    global_scale(5.0)
    thrice(f, show)
    global_scale(2.0)
    thrice(f, show)


def global_scale(value: float) -> None:
    global scale
    scale = value


# --- functions


def helper(x: Any, by: float = 2.0, *, plus: float = 1.0) -> Any:
    return x * by + plus


@script
def defaults_and_other_functions(compiled: Any, show: Any) -> None:
    f = compiled(lambda x: helper(x))
    thrice(f, show)
    helper.__defaults__ = (3.0,)
    thrice(f, show)
    helper.__kwdefaults__["plus"] = 5.0
    thrice(f, show)
    helper.__defaults__, helper.__kwdefaults__["plus"] = (2.0,), 1.0
    thrice(f, show)
    g = compiled(helper)
    show(g(x_of(0)), g(x_of(1), 3.0), g(x_of(1), by=3.0), g(x_of(2), plus=2.0), g(x_of(0)), g(by=1.0, x=x_of(2)))
    code = helper.__code__
    helper.__code__ = (lambda x, by=2.0, *, plus=1.0: x - by).__code__
    thrice(f, show)
    helper.__code__ = code
    thrice(f, show)


@script
def partials_and_nested_functions(compiled: Any, show: Any) -> None:
    inner = {"by": 2.0}

    def outer(x: Any) -> Any:
        def nested(y: Any) -> Any:
            return y * inner["by"]

        return functools.reduce(lambda a, b: a + b, [nested(x), nested(x * 2)])

    f, g = compiled(functools.partial(helper, by=4.0)), compiled(outer)
    thrice(f, show)
    thrice(g, show)
    inner["by"] = 5.0
    thrice(g, show)
    p = functools.partial(helper, by=4.0)
    h = compiled(lambda x: p(x))
    thrice(h, show)
    p = functools.partial(helper, by=5.0)
    thrice(h, show)


@script
def recursion_and_a_compiled_function_within(compiled: Any, show: Any) -> None:
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else power(x * scale, n - 1)

    f = compiled(power)
    show([f(x_of(i), n) for n in (0, 2, 3, 2) for i in range(2)])
    g = compiled(lambda x: f(x, 2) + 1)
    thrice(g, show)
    global_scale(3.0)
    thrice(g, show)
    global_scale(2.0)
    thrice(g, show)
    steps = {"n": 0}

    def count(x: Any) -> Any:
        return count_again(x) if steps["n"] else x

    count_again = compiled(lambda x: x + steps["n"])
    f = compiled(count)
    for n in (0, 1, 2, 0):
        steps["n"] = n
        thrice(f, show)


# --- modules


class Net(nn.Module):
    by: float = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)
        self.act: Any = nn.ReLU()
        self.flag = True
        self.last: Any = None

    def forward(self, x: Any) -> Any:
        y = self.drop(self.act(self.a(x)))
        return self.b(y) * self.by if self.flag else self.b(y)


@script
def a_module_through_its_changes(compiled: Any, show: Any) -> None:
    tg.manual_seed(0)
    net = Net()
    f = compiled(net)
    other = nn.Linear(4, 3)
    hook: list[Any] = []
    changes = [
        net.eval, net.train,
        lambda: setattr(net, "flag", False), lambda: setattr(net, "by", 3.0), lambda: delattr(net, "by"),
        lambda: setattr(net.drop, "p", 0.1), lambda: setattr(net, "act", nn.Tanh()),
        lambda: setattr(net, "b", other), lambda: net.a.weight.data.mul_(2), lambda: net.a.requires_grad_(False),
        lambda: net.requires_grad_(True), lambda: hook.append(net.a.register_forward_hook(lambda m, i, o: o * 2)),
        lambda: hook.pop().remove(), lambda: hook.append(net.register_forward_pre_hook(lambda m, i: (i[0] + 1,))),
        lambda: hook.pop().remove(), lambda: net.a.register_parameter("bias", None),
        lambda: setattr(net, "drop", nn.Identity()), lambda: setattr(Net, "by", 4.0), lambda: setattr(Net, "by", 2.0),
    ]  # fmt: skip
    for change in (lambda: None, *changes):
        change()
        for i in range(3):
            net.zero_grad()
            x = x_of(i).requires_grad_()
            y = f(x)
            y.sum().backward()
            show(y, x.grad, [p.grad for p in net.parameters()])


@script
def hooks_of_tensors(compiled: Any, show: Any) -> None:
    w = tg.ones(3, requires_grad=True)

    @compiled
    def step(x: Any) -> Any:
        loss = (x * w).sum()
        loss.backward()
        return loss.detach()

    for change in (lambda: None, lambda: w.register_hook(lambda g: g * 2)):
        change()
        for i in range(3):
            w.grad = None
            show(step(x_of(i)), w.grad)


def with_and_without_a_gradient(make: Callable[[Any, Any], Any]) -> Any:
    """A script of calls between which the gradient of ``w`` that the last one left is forgotten at times."""

    def script(compiled: Any, show: Any) -> None:
        w = tg.ones(3, requires_grad=True)
        step = compiled(make(w, tg.optim.SGD([w], lr=0.1, momentum=0.9)))
        for i in range(10):
            show(step(x_of(i)).detach(), w.grad, w.detach())
            if i in (2, 3, 6):
                w.grad = None

    script.__name__ = make.__name__
    SCRIPTS[make.__name__] = script
    return make


@with_and_without_a_gradient
def a_step_before_the_gradient_is_forgotten(w: Any, optimizer: Any) -> Any:
    def train(x: Any) -> Any:
        optimizer.step()
        w.grad = None
        loss = (w * x).sum()
        loss.backward()
        return loss

    return train


@with_and_without_a_gradient
def a_gradient_that_is_looked_for_and_forgotten(w: Any, optimizer: Any) -> Any:
    def train(x: Any) -> Any:
        had = sum(1.0 for p in [w] if p.grad is not None)
        optimizer.zero_grad()
        loss = (w * x).sum() + had
        loss.backward()
        return loss

    return train


@with_and_without_a_gradient
def a_gradient_that_is_found_by_another_name(w: Any, optimizer: Any) -> Any:
    name = "gr" + "ad"

    def train(x: Any) -> Any:
        had = 0.0 if getattr(w, name) is None else 1.0
        w.grad = None
        loss = (w * x).sum() + had
        loss.backward()
        return loss

    return train


@with_and_without_a_gradient
def a_gradient_that_is_put_there(w: Any, optimizer: Any) -> Any:
    def train(x: Any) -> Any:
        loss = (w * x).sum()
        w.grad = x * 2
        optimizer.step()
        return loss

    return train


@with_and_without_a_gradient
def a_gradient_that_is_put_where_one_was(w: Any, optimizer: Any) -> Any:
    def train(x: Any) -> Any:
        old = w.grad
        w.grad = x * 2
        return (w * x).sum() if old is None else (w * x).sum() + 1

    return train


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_puts_gradients_there_is_replayed(backend: str) -> None:
    """What was there before the first call is none, and a gradient from then on: two programs."""
    w = tg.ones(3, requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1)

    @tg.compile
    def train(x: Any) -> Any:
        w.grad = x * 2
        optimizer.step()
        return w.sum()

    with tg.backend(backend):
        for i in range(8):
            train(x_of(i))
    assert train.stats()["captures"] == 2 and train.stats()["replays"] == 6


# --- switches


@script
def the_switches_of_a_thread(compiled: Any, show: Any) -> None:
    w = tg.ones(3, requires_grad=True)
    f = compiled(lambda x: x * w)
    g = compiled(lambda x: tg.ones(3) * 3 + x)
    m = compiled(lambda x: x.reshape(1, 3) @ x.reshape(3, 1))
    for switch in (tg.enable_grad, tg.no_grad, tg.inference_mode, tg.enable_grad):
        with switch():
            thrice(f, show)
    for dtype in (tg.float64, tg.float32):
        tg.set_default_dtype(dtype)
        thrice(g, show)
    for _ in range(2):
        with tg.autocast("cpu", dtype=tg.bfloat16):
            thrice(m, show)
        thrice(m, show)
    for backend in ("numpy", tg.get_backend()):
        with tg.backend(backend):
            thrice(f, show)
    with tg.no_grad():
        h = compiled(lambda x: x * w)
        thrice(h, show)
    thrice(h, show)


@script
def grad_mode_inside(compiled: Any, show: Any) -> None:
    w = tg.ones(3, requires_grad=True)

    @compiled
    def f(x: Any) -> Any:
        with tg.no_grad():
            a = x * w
        with tg.enable_grad():
            b = x * w
        return a, b, (a * b).detach()

    for switch in (tg.enable_grad, tg.no_grad):
        with switch():
            thrice(f, show)


@script
def functions_of_functions(compiled: Any, show: Any) -> None:
    f = compiled(lambda x: (x * x).sum())
    thrice(f, show)
    thrice(tg.func.grad(f), show)
    thrice(tg.func.vmap(compiled(lambda x: x * 2)), show)
    thrice(compiled(tg.func.grad(lambda x: (x * x * x).sum())), show)
    thrice(compiled(tg.func.vmap(lambda x: x * x)), show)
    thrice(f, show)


@script
def tg_scalar(compiled: Any, show: Any) -> None:
    s = tg.scalar(2.0)
    f = compiled(lambda x: x * s)
    thrice(f, show)
    s.set(3.0)
    thrice(f, show)
    g = compiled(lambda x, s: x * s)
    show(g(x_of(0), s), g(x_of(1), s), g(x_of(1), tg.scalar(4.0)), g(x_of(1), tg.scalar(5.0)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_change_is_seen(name: str, backend: str) -> None:
    beside(SCRIPTS[name], backend)
