"""What a function finds where nothing was, or in objects that are no dictionaries: another in the next call is noticed.

Each row makes (function of a tensor, what happens before call i); eager and compiled calls give the same.
"""

from __future__ import annotations

import array
import collections
import contextvars
import enum
import functools
import io
import mmap
import operator
import os
import pathlib
import types
import weakref

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.errors import CompileError


class Thing:
    """An object of a class of the user's."""


ROWS = []


def row(make):
    ROWS.append(pytest.param(make, id=make.__name__.replace("_", " ").strip()))
    return make


def setter(thing, name, first=2):
    """From call ``first`` on the attribute is the number of the call."""
    return lambda i: setattr(thing, name, float(i)) if i >= first else None


@row
def an_attribute_with_a_default():
    thing = Thing()
    return (lambda x: x * getattr(thing, "k", 1.0)), setter(thing, "k")


@row
def an_attribute_with_a_default_of_the_class():
    class Other:
        pass

    thing = Other()
    return (lambda x: x * getattr(thing, "k", 1.0)), setter(Other, "k")


@row
def an_attribute_that_is_missed():
    thing = Thing()

    def function(x):
        try:
            return x * thing.k
        except AttributeError:
            return x * 9

    return function, setter(thing, "k")


@row
def an_attribute_in_an_empty_slot():
    class Slots:
        __slots__ = ("k",)

    thing = Slots()
    return (lambda x: x * (thing.k if hasattr(thing, "k") else 5)), setter(thing, "k")


@row
def an_attribute_that_hides_the_bases():
    class Base:
        k = 1.0

    class Derived(Base):
        pass

    thing = Derived()
    return (lambda x: x * thing.k), setter(Derived, "k")


@row
def a_method_that_hides_the_bases():
    class Base:
        def work(self, x):
            return x

    class Derived(Base):
        pass

    thing = Derived()

    def happens(i):
        if i == 2:
            Derived.work = lambda self, x: x * 5

    return (lambda x: thing.work(x)), happens


@row
def a_forward_that_hides_the_bases():
    class Base(nn.Module):
        def forward(self, x):
            return x * 2

    class Derived(Base):
        pass

    def happens(i):
        if i == 2:
            Derived.forward = lambda self, x: x * 5

    return nn.Sequential(Derived(), nn.ReLU()), happens


@row
def a_global_that_is_missed():
    space = {"__name__": "somewhere", "__builtins__": __builtins__}
    exec("def function(x):\n    try:\n        return x * k\n    except NameError:\n        return x * 9", space)
    return space["function"], lambda i: space.update(k=float(i)) if i >= 2 else None


@row
def an_attribute_of_a_function():
    def helper(x):
        return x * getattr(helper, "k", 1.0)

    return helper, setter(helper, "k")


@row
def an_attribute_of_a_tensor():
    weight = tg.ones(3)
    return (lambda x: x * weight * getattr(weight, "k", 1.0)), setter(weight, "k")


@row
def an_attribute_of_a_parameter_that_was_there():
    weight = nn.Parameter(tg.ones(3))
    weight.k = 1.0
    return (lambda x: x * weight * weight.k), setter(weight, "k")


@row
def a_bytearray():
    data = bytearray(b"\x01")
    return (lambda x: x * data[0]), lambda i: data.__setitem__(0, i)


@row
def a_memoryview():
    data = bytearray(b"\x01")
    view = memoryview(data)
    return (lambda x: x * view[0]), lambda i: data.__setitem__(0, i)


@row
def an_array_of_numbers():
    data = array.array("d", [1.0, 2.0])
    return (lambda x: x * data[1]), lambda i: data.__setitem__(1, float(i))


@row
def a_mapped_memory():
    data = mmap.mmap(-1, 16)
    return (lambda x: x * data[0]), lambda i: data.__setitem__(0, i)


@row
def a_variable_of_a_context():
    variable = contextvars.ContextVar("variable", default=1.0)
    return (lambda x: x * variable.get()), lambda i: variable.set(float(i)) and None


@row
def what_a_variable_of_a_context_holds():
    variable = contextvars.ContextVar("variable")
    variable.set({"k": 1.0})
    return (lambda x: x * variable.get()["k"]), lambda i: variable.get().update(k=float(i))


@row
def what_a_weak_reference_shows():
    thing = Thing()
    thing.k = 1.0
    seen = weakref.ref(thing)
    return (lambda x, _=thing: x * seen().k), setter(thing, "k")


@row
def a_weak_reference_that_ends():
    things = [{1}, Thing()]
    seen = weakref.ref(things[1])
    found = [seen]
    del things[1]
    return (lambda x: x * (1 if found[0]() is None else 2)), None


@row
def what_a_weak_proxy_shows():
    class Other:
        k = 1.0

    thing = Other()
    seen = weakref.proxy(thing)
    return (lambda x, _=thing: x * seen.k), setter(Other, "k")


@row
def what_a_weak_set_holds():
    thing = Thing()
    thing.k = 1.0
    seen = weakref.WeakSet([thing])
    return (lambda x, _=thing: x * sum(one.k for one in seen)), setter(thing, "k")


@row
def what_a_dictionary_of_weak_values_holds():
    thing = Thing()
    thing.k = 1.0
    seen = weakref.WeakValueDictionary({"a": thing})
    return (lambda x, _=thing: x * seen["a"].k), setter(thing, "k")


@row
def what_a_dictionary_of_weak_keys_holds():
    thing = Thing()
    seen = weakref.WeakKeyDictionary({thing: 1.0})
    return (lambda x: x * seen[thing]), lambda i: seen.__setitem__(thing, float(i))


@row
def a_class_derived_of_the_librarys():
    class Settings(collections.UserDict):
        pass

    settings = Settings(k=1.0)
    return (lambda x: x * settings["k"]), lambda i: settings.__setitem__("k", float(i))


@row
def a_dictionary_that_makes_what_is_missing():
    numbers = [1.0]

    class Made(dict):
        def __missing__(self, key):
            return numbers[0]

    made = Made()
    return (lambda x: x * made["k"]), lambda i: numbers.__setitem__(0, float(i))


@row
def an_attribute_of_a_list():
    class Named(list):
        k = 1.0

    named = Named([2.0])
    return (lambda x: x * named[0] * named.k), setter(named, "k")


@row
def an_attribute_of_a_number():
    class Measured(int):
        pass

    number = Measured(3)
    number.k = 1.0
    return (lambda x: x * number * number.k), setter(number, "k")


@row
def an_attribute_of_a_text():
    class Named(str):
        pass

    text = Named("ab")
    text.k = 1.0
    return (lambda x: x * len(text) * text.k), setter(text, "k")


@row
def a_member_of_an_enumeration():
    class Kind(enum.IntEnum):
        A = 1
        B = 2

    thing = types.SimpleNamespace(kind=Kind.A)
    return (lambda x: x * thing.kind), lambda i: setattr(thing, "kind", Kind.B if i % 2 else Kind.A)


@row
def an_object_that_answers_for_every_name():
    class Open:
        def __init__(self):
            object.__setattr__(self, "data", {"k": 1.0})

        def __getattr__(self, name):
            return self.data[name]  # KeyError where others raise AttributeError

    thing = Open()
    return (lambda x: x * thing.k), lambda i: thing.data.update(k=float(i))


def outcomes(make, compiles):
    tg.manual_seed(0)
    function, happens = make()
    run = tg.compile(function) if compiles else function
    found = []
    for i in range(6):
        if happens is not None:
            happens(i)
        found.append(run(tg.arange(6.0).reshape(2, 3)).tolist())
    return found, run


@pytest.mark.parametrize("make", ROWS)
def test_what_a_function_finds_is_asked_anew(make):
    expected, _ = outcomes(make, False)
    found, compiled = outcomes(make, True)
    assert found == expected
    stats = compiled.stats() if hasattr(compiled, "stats") else compiled._compiled.stats()
    assert stats["captures"] and not stats["eager"]


@pytest.mark.parametrize(
    "make", [an_attribute_with_a_default, what_a_weak_set_holds, a_bytearray, a_class_derived_of_the_librarys]
)
def test_what_stays_is_served_by_one_program(make):
    function, _ = make()
    compiled = tg.compile(function)
    for _ in range(5):
        compiled(tg.ones(2, 3))
    assert (compiled.captures, compiled.replays) == (1, 4)


def test_whether_an_argument_has_a_gradient_is_asked_anew():
    def doubled(x):
        return x if x.grad is None else x * 2

    f = tg.compile(doubled)
    with tg.no_grad():
        for i in range(6):
            x = tg.ones(2, requires_grad=i % 2 == 0)
            if i in (2, 3):
                x.grad = tg.ones(2)
            assert f(x).tolist() == doubled(x).tolist()


def test_where_an_argument_begins_is_refused():
    base = tg.arange(8.0)
    for x in (base, base[3:5]):
        with pytest.raises(CompileError, match=r"storage_offset\(\) of an argument"):
            tg.compile(lambda x: x * x.storage_offset())(x)
        f = tg.compile(lambda x: x * x.storage_offset(), fallback=True)
        for y in (x, base[1:3], x):
            assert f(y).tolist() == (y * y.storage_offset()).tolist()
    own = base[2:4]
    assert tg.compile(lambda x: x * own.storage_offset())(tg.ones(1)).item() == 2.0


class Own(tg.optim.Optimizer):
    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.factor, self._calls = 1.0, 0

    @tg.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"] * self.factor)


def optimizers():
    p = tg.nn.Parameter(tg.ones(2))
    p.grad = tg.ones(2)
    return p, Own([p], 0.5), tg.optim.SGD([p], lr=0.5, momentum=0.5, dampening=0.25)


def lr_of(group):
    return group["lr"]


RATE = operator.itemgetter("lr")

SETTINGS = {
    "by key": lambda x, own, sgd, key: x * sgd.param_groups[0]["lr"],
    "by a function": lambda x, own, sgd, key: x * lr_of(sgd.param_groups[-1]),
    "by an argument": lambda x, own, sgd, key: x * sgd.param_groups[0][key],
    "by a getter": lambda x, own, sgd, key: x * RATE(sgd.param_groups[0]),
    "in a loop": lambda x, own, sgd, key: x * sum(v for g in sgd.param_groups for v in g.values() if type(v) is float),
    "unpacked": lambda x, own, sgd, key: x * {**sgd.param_groups[0], "a": 1}[key],
    "as a truth": lambda x, own, sgd, key: x if sgd.param_groups[0]["lr"] < 0.4 else -x,
    "returned": lambda x, own, sgd, key: x.new_tensor([sgd.param_groups[0]["lr"]]) * x[:1],
    "by getattr": lambda x, own, sgd, key: x * getattr(sgd, "param_" + "groups")[0][key],
    "defaults": lambda x, own, sgd, key: x * sgd.defaults["lr"],
    "an attribute": lambda x, own, sgd, key: x * sgd.factor,
    "an attribute of one's own": lambda x, own, sgd, key: x * own.factor,
    "one's own lr": lambda x, own, sgd, key: x * own.param_groups[0]["lr"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_read_of_an_optimizer_is_asked_anew(name):
    _, own, sgd = optimizers()
    sgd.factor = 1.0
    function = SETTINGS[name]
    key = "lr" if name in ("by an argument", "unpacked", "by getattr") else "none"  # others have it elsewhere
    mine = own if "own" in name else None  # whose code has keys too
    compiled = tg.compile(lambda x, key: function(x, mine, sgd, key))
    for i in range(6):
        if i % 2:
            for optimizer in (own, sgd):
                optimizer.factor = float(i)
                optimizer.defaults["lr"] = optimizer.param_groups[0]["lr"] = 1.0 / (i + 1)
        assert compiled(tg.ones(2), key).tolist() == function(tg.ones(2), mine, sgd, key).tolist()
    assert compiled.stats()["replays"] >= 2


class Counting(tg.optim.Optimizer):
    """Counts its steps in its state, as a number of Python's."""

    @tg.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            if not state:
                state["step"] = 0
            state["step"] += 1
            p.sub_(p.grad, alpha=0.1 * state["step"])


@pytest.mark.parametrize("fallback", [False, True])
def test_numbers_that_an_optimizer_s_state_counts_are_not_written_down(fallback):
    ends = []
    for wrap in (lambda step: step, lambda step: tg.compile(step, fallback=fallback)):
        p = tg.nn.Parameter(tg.ones(2))
        own = Counting([p], {})

        @wrap
        def step(x, p=p, own=own):
            own.zero_grad()
            (p * x).sum().backward()
            own.step()

        for i in range(6):
            step(tg.full((2,), float(i)))
        ends.append((p.tolist(), own.state[p]["step"]))
    assert ends[0] == ends[1]


def test_data_set_anew_is_refused_with_what_would_work():
    w = tg.nn.Parameter(tg.ones(2))

    def step(x):
        w.data = w.data * 0.5 + x
        return w.sum()

    step = tg.compile(step)
    with pytest.raises(CompileError, match=r"w has other storage: its data is set anew \(copy_\(\) would"):
        for _ in range(4):
            step(tg.ones(2))


class Around(tg.optim.Optimizer):
    """Steps another optimizer, and pulls the parameters back every second time; it has no parameters of its own."""

    def __init__(self, inner):
        self.inner, self.calls = inner, 0
        self.slow = [p.detach().clone() for p in inner.param_groups[0]["params"]]

    def step(self, closure=None):
        self.inner.step()
        self.calls += 1
        if self.calls % 2 == 0:
            for p, slow in zip(self.inner.param_groups[0]["params"], self.slow, strict=True):
                p.data.copy_(slow.lerp_(p.data, 0.5))

    def zero_grad(self, set_to_none=True):
        self.inner.zero_grad(set_to_none)


class AroundWithGroups(Around):
    param_groups = property(lambda self: self.inner.param_groups)
    state = property(lambda self: self.inner.state)


@pytest.mark.parametrize("kind", [Around, AroundWithGroups])
def test_an_optimizer_around_another_is_stepped_as_it_would_be(kind):
    ends = []
    for compiled in (False, True):
        p = tg.nn.Parameter(tg.ones(2))
        around = kind(tg.optim.SGD([p], lr=0.1, momentum=0.5))

        def step(x, p=p, around=around):
            around.zero_grad()
            (p * x).sum().backward()
            around.step()

        step = tg.compile(step, fallback=True) if compiled else step
        for i in range(8):
            step(tg.full((2,), float(i)))
        ends.append(p.tolist())
    assert ends[0] == ends[1]


def test_an_optimizer_s_first_step_is_no_reason_to_split_where_a_truth_was_read():
    w = tg.nn.Parameter(tg.ones(3))
    optimizer = tg.optim.Adam([w], lr=0.1)

    def step(x):
        x = x * 2 if (x > 0).any() else x
        optimizer.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    step = tg.compile(step, fallback=True)
    for sign in (1, 1, 1, -1, -1, 1, -1):
        step(tg.full((3,), float(sign)))
    stats = step.stats()
    assert "python" not in stats and stats["programs"] == 2 and stats["replays"] >= 4, stats


SOURCES = {
    "RandomState": (np.random.RandomState, lambda source: source.rand()),
    "BitGenerator": (np.random.PCG64, lambda source: source.random_raw() % 7),
}


@pytest.mark.parametrize("name", SOURCES)
def test_numbers_of_numpy_s_other_sources_are_drawn_in_each_call(name):
    make, draw = SOURCES[name]
    source, other = make(3), make(3)
    f = tg.compile(lambda x: x * draw(source), fallback=True)
    assert [f(tg.ones(1)).item() for _ in range(6)] == [(tg.ones(1) * draw(other)).item() for _ in range(6)]


def test_attributes_of_one_s_own_optimizer_are_asked_anew():
    p, own, _ = optimizers()
    step = tg.compile(lambda: own.step())
    for factor in (1.0, 1.0, 1.0, 2.0, 2.0, 4.0):
        own.factor = factor
        before = p.tolist()
        step()
        assert p.tolist() == [x - 0.5 * factor for x in before]
        own._calls += 1  # which no code reads
    assert step.stats()["replays"] == 3


def test_a_learning_rate_that_only_the_step_reads_is_no_fact():
    """The function names groups, and goes through dicts, but has no key of theirs but one."""
    p, _, sgd = optimizers()

    def step(x):
        sgd.zero_grad()
        loss = (p * x).sum()
        loss.backward()
        for group in sgd.param_groups:
            tg.nn.utils.clip_grad_norm_(group["params"], 1.0)
        sgd.step()
        return loss.detach()

    step = tg.compile(step)
    for i in range(6):
        sgd.param_groups[0]["lr"] = 0.1 * i
        step(tg.ones(2))
    assert step.stats()["replays"] == 4


def test_an_optimizer_s_state_dict_is_no_part_of_a_program():
    _, _, sgd = optimizers()
    with pytest.raises(CompileError, match=r"state_dict\(\) of a SGD at .*test_looked_at\.py"):
        tg.compile(lambda x: x * sgd.state_dict()["param_groups"][0]["lr"])(tg.ones(1))
    f = tg.compile(lambda x: x * sgd.state_dict()["param_groups"][0]["lr"], fallback=True)
    for lr in (0.5, 0.25, 1.0):
        sgd.param_groups[0]["lr"] = lr
        assert f(tg.ones(1)).item() == lr


def test_attributes_of_arguments_are_part_of_the_call():
    compiled = tg.compile(lambda x: x * getattr(x, "k", 1.0))
    for i in range(8):
        x = tg.ones(3)
        if i % 4:
            x.k = float(i % 4)
        assert compiled(x).tolist() == [float(i % 4 or 1)] * 3
    assert (compiled.captures, compiled.replays) == (4, 4)
    shared = [1.0]
    for i in range(3):
        x = tg.ones(3)
        x.k = shared
        shared[0] = float(i)
        if i:
            found = tg.compile(lambda x: x * x.k[0])(x)
            assert found.tolist() == [float(i)] * 3


def test_an_attribute_that_a_tensor_of_the_arguments_holds():
    compiled = tg.compile(lambda x: x * x.scale)
    scale = tg.ones(3)
    for i in range(4):
        x = tg.ones(3)
        x.scale = scale
        scale.fill_(float(i))
        assert compiled(x).tolist() == [float(i)] * 3


def read_all(path):
    with open(path) as file:
        return float(file.read())


READERS = {
    "open": read_all,
    "read_text": lambda path: float(pathlib.Path(path).read_text()),
    "read_bytes": lambda path: float(pathlib.Path(path).read_bytes()),
    "numpy.loadtxt": lambda path: float(np.loadtxt(path)),
    "numpy.fromfile": lambda path: float(np.fromfile(path, sep=" ")[0]),
    "exists": lambda path: float(os.path.exists(path)),
    "is_file": lambda path: float(pathlib.Path(path).is_file()),
    "getsize": lambda path: float(os.path.getsize(path)),
    "listdir": lambda path: float(len(os.listdir(os.path.dirname(path)))),
    "glob": lambda path: float(len(list(pathlib.Path(path).parent.glob("*")))),
}


@pytest.mark.parametrize("name", READERS)
def test_files_are_refused_with_the_line(name, tmp_path):
    path = str(tmp_path / "number")
    pathlib.Path(path).write_text("3")
    read = READERS[name]
    compiled = tg.compile(lambda x: x * read(path))
    with pytest.raises(CompileError, match=r"it reads .*file|it reads a directory") as raised:
        for i in range(4):
            pathlib.Path(path).write_text("33" * (i + 1))
            assert compiled(tg.ones(2)).tolist() == [read(path)] * 2
    assert "test_looked_at.py" in str(raised.value)


@pytest.mark.parametrize("name", READERS)
def test_files_are_read_anew_with_fallback(name, tmp_path):
    path = str(tmp_path / "number")
    read = READERS[name]

    def function(x):
        k = read(path)
        return x * k

    compiled = tg.compile(function, fallback=True)
    for i in range(5):
        pathlib.Path(path).write_text("3" * (i + 1))
        assert compiled(tg.ones(2)).tolist() == [read(path)] * 2


def test_what_is_read_of_a_text_in_memory_is_refused():
    text = io.StringIO("1\n2\n3\n4\n5\n")
    compiled = tg.compile(lambda x: x * float(text.readline()))
    with pytest.raises(CompileError, match="text is an open file"):
        for i in range(4):
            assert compiled(tg.ones(1)).item() == i + 1


def test_saved_tensors_are_read_anew_or_refused(tmp_path):
    path = tmp_path / "weights"
    compiled = tg.compile(lambda x: x * tg.load(path))
    with pytest.raises(CompileError):
        for i in range(4):
            tg.save(tg.full((2,), float(i)), path)
            assert compiled(tg.ones(2)).tolist() == [float(i)] * 2


def test_modules_may_be_imported_within():
    def function(x):
        import colorsys

        open_ = functools.partial(max, 2.0)
        return x * open_(colorsys.ONE_THIRD)

    function.open = None  # a name that is watched
    compiled = tg.compile(function)
    for _ in range(3):
        assert compiled(tg.ones(1)).item() == 2.0


def test_counters_on_functions_and_in_globals_are_python_with_fallback():
    def function(x):
        function.n = getattr(function, "n", 0) + 1
        return x * function.n

    compiled = tg.compile(function, fallback=True)
    assert [compiled(tg.ones(1)).item() for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    space = {"__name__": "somewhere", "__builtins__": __builtins__}
    exec("def count(x):\n    global n\n    n = globals().get('n', 0) + 1\n    return x * n", space)
    compiled = tg.compile(space["count"], fallback=True)
    assert [compiled(tg.ones(1)).item() for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def bags(offsets):
    return nn.functional.embedding_bag(offsets, tg.ones(4, 2), offsets)


@pytest.mark.parametrize(
    ("function", "good", "bad", "kind"),
    [
        (tg.linalg.inv, tg.eye(2), tg.zeros(2, 2), tg.linalg.LinAlgError),
        (lambda a: tg.linalg.solve(a, tg.ones(2, 1)), tg.eye(2), tg.zeros(2, 2), tg.linalg.LinAlgError),
        (tg.linalg.cholesky, tg.eye(2), -tg.eye(2), tg.linalg.LinAlgError),
        (tg.linalg.lu_factor, tg.eye(2), tg.zeros(2, 2), tg.linalg.LinAlgError),
        (tg.func.vmap(tg.linalg.inv), tg.ones(3, 1, 1), tg.zeros(3, 1, 1), tg.linalg.LinAlgError),
        (lambda i: tg.zeros(4).index_copy(0, i, tg.ones(2)), tg.tensor([0, 1]), tg.tensor([0, -1]), IndexError),
        (
            lambda i: tg.ones(4).index_reduce(0, i, tg.ones(2), "prod"),
            tg.tensor([0, 1]),
            tg.tensor([0, -4]),
            IndexError,
        ),
        (bags, tg.tensor([0, 2]), tg.tensor([1, 2]), RuntimeError),
        (bags, tg.tensor([0, 2]), tg.tensor([0, 3]), RuntimeError),
    ],
    ids=["inv", "solve", "cholesky", "lu_factor", "inv of samples", "index_copy", "index_reduce", "first", "bags"],
)
@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_what_elements_must_be_is_asked_in_each_call(backend, function, good, bad, kind):
    if backend == "cpp" and registry.class_of("cpp").why_not() is not None:
        pytest.skip("the extension is not built")
    with tg.backend(backend):
        compiled = tg.compile(function)
        with pytest.raises(kind) as eager:
            function(bad)
        for _ in range(2):
            compiled(good), compiled(good)
            with pytest.raises(kind) as raised:
                compiled(bad)
            assert str(raised.value).startswith(str(eager.value))
        with pytest.raises(kind):
            tg.compile(lambda x: (function(x), x)[1])(bad)  # nobody reads the result
        assert (compiled._compiled if hasattr(compiled, "_compiled") else compiled).replays >= 2
