"""What a function reads past the names in its own code: through methods of C, in another order, of a class's making."""

from __future__ import annotations

import abc
import collections
import ctypes
import dataclasses
import enum
import functools
import importlib
import inspect
import itertools
import math
import operator
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler import whose
from tensorgrad.compiler.named import names_in
from tensorgrad.errors import CompileError

Change = Callable[[], Any]


class Box:
    pass


def box(**attributes: Any) -> Any:
    made = Box()
    vars(made).update(attributes)
    return made


def times_in_order(values: Any) -> Callable[[Any], Any]:
    def f(x):
        for v in values():
            x = x * v + 1
        return x

    return f


def the_order_of_a_dict():
    d = {"a": 2.0, "b": 3.0}
    return times_in_order(d.values), lambda: d.update(a=d.pop("a"))


def the_order_of_an_ordered_dict():
    d = collections.OrderedDict(a=2.0, b=3.0)
    return times_in_order(lambda: d.values()), lambda: d.move_to_end("a")


def the_order_of_modules():
    layers = tg.nn.ModuleDict({"a": tg.nn.Linear(3, 3), "b": tg.nn.Linear(3, 3)})

    def f(x):
        for layer in layers.values():
            x = layer(x)
        return x.detach()

    return f, lambda: layers.update({"a": layers.pop("a")})


def an_element_of_a_long_list():
    many = [2.0] * 20_000
    return lambda x: x * many[15_000], lambda: many.__setitem__(15_000, 5.0)


def an_entry_of_a_large_dict():
    many = dict.fromkeys(range(20_000), 2.0)
    return lambda x: x * many[15_000], lambda: many.update({15_000: 5.0})


def an_element_of_a_large_array():
    many = np.ones(300_000)
    return lambda x: x * float(many[7]), lambda: many.__setitem__(7, 5.0)


def a_list_in_an_array_of_objects():
    held = np.array([[2.0], None], dtype=object)
    held[0] = [2.0]
    return lambda x: x * held[0][0], lambda: held[0].__setitem__(0, 5.0)


def the_mask_of_an_array():
    masked = np.ma.array([2.0, 3.0], mask=[False, False])
    return lambda x: x * float(masked.sum()), lambda: masked.mask.__setitem__(0, True)


def a_polynomial():
    p = np.poly1d([1.0, 2.0])
    return lambda x: x * float(p(2)), lambda: p.__setitem__(0, 7.0)


def a_function_for_elements():
    b = box(k=2.0)
    each = np.vectorize(lambda v: v * b.k)
    return lambda x: x * float(each(2.0)), lambda: setattr(b, "k", 5.0)


def a_view_of_a_dict():
    d = {"a": 2.0}
    values = d.values()
    return lambda x: x * sum(values), lambda: d.update(a=5.0)


def what_a_pointer_shows():
    number = ctypes.c_double(2.0)
    pointer = ctypes.pointer(number)
    return lambda x: x * pointer.contents.value, lambda: setattr(number, "value", 5.0)


def a_method_of_a_dict():
    d = {"k": 2.0}
    ask = d.get
    return lambda x: x * ask("k"), lambda: d.update(k=5.0)


def a_method_that_python_calls():
    held = [2.0]
    ask = held.__getitem__
    return lambda x: x * ask(0), lambda: held.__setitem__(0, 5.0)


def a_function_that_passes_for_a_library_s():
    b = box(k=2.0)

    def scaled(f):
        @functools.wraps(f)
        def inner(x):
            return f(x) * b.k

        return inner

    root, relu = scaled(math.sqrt), scaled(tg.relu)
    return lambda x: relu(x) * root(4.0), lambda: setattr(b, "k", 5.0)


def a_class_of_exec():
    space: dict[str, Any] = {}
    exec("k = 2.0\nclass A:\n    def m(self, x):\n        return x * k", space)
    made = space["A"]()
    return lambda x: made.m(x), lambda: space.update(k=5.0)


def a_class_of_a_library_s_function():
    b = box(k=2.0)
    made = dataclasses.make_dataclass("Made", [("a", float, 1.0)], namespace={"m": lambda self, x: x * b.k * self.a})()
    return lambda x: made.m(x), lambda: setattr(b, "k", 5.0)


def a_global_by_a_name_that_is_made():
    space: dict[str, Any] = {"scale_1": 2.0}
    exec("n = 1\ndef f(x):\n    return x * globals()[f'scale_{n}']", space)
    return space["f"], lambda: space.update(scale_1=5.0)


def a_global_of_an_expression():
    space: dict[str, Any] = {"scale_1": 2.0}
    exec("n = 1\ndef f(x):\n    return x * eval(f'scale_{n}')", space)
    return space["f"], lambda: space.update(scale_1=5.0)


def a_global_of_an_expression_elsewhere(how: str) -> Any:
    def make() -> Any:
        space: dict[str, Any] = {"scale_1": 2.0, "ours": box(eval=eval)}
        exec(f"import builtins as b\nn, run = 1, eval\ndef f(x):\n    {how}\n    return x * e(f'scale_{{n}}')", space)
        return space["f"], lambda: space.update(scale_1=5.0)

    make.__name__ = how
    return make


def an_attribute_by_an_expression_of_a_proxy():
    known = box(scale_1=2.0)
    space: dict[str, Any] = {"known": known, "box": Box}
    exec("class Proxy(box):\n    def __getattr__(self, name):\n        return eval(f'known.{name}_{1}')", space)
    proxy = space["Proxy"]()
    return lambda x: x * proxy.scale, lambda: setattr(known, "scale_1", 5.0)


def known_by_name(scale: float) -> None:
    made: Any = types.ModuleType("known_by_name")
    made.scale = scale
    sys.modules["known_by_name"] = made


def a_module_by_its_name():
    known_by_name(2.0)

    def f(x):
        both: tuple[Any, ...] = importlib.import_module("known_by_name"), sys.modules["known_by_name"]
        return x * both[0].scale * both[1].scale

    return f, lambda: setattr(sys.modules["known_by_name"], "scale", 5.0)


def another_module_by_its_name():
    known_by_name(2.0)
    return lambda x: x * sys.modules["known_by_name"].scale, lambda: known_by_name(5.0)


def another_module_that_is_imported():
    known_by_name(2.0)
    space: dict[str, Any] = {}
    exec("def f(x):\n    import known_by_name\n    return x * known_by_name.scale", space)
    return space["f"], lambda: known_by_name(5.0)


def whether_there_is_a_module():
    sys.modules.pop("known_by_name", None)
    return lambda x: x * 3 if "known_by_name" in sys.modules else x, lambda: known_by_name(5.0)


def whether_a_module_can_be_imported():
    sys.modules.pop("known_by_name", None)
    lines = "try:", "    import known_by_name", "except ImportError:", "    return x", "return x * 3"
    space: dict[str, Any] = {}
    exec("\n    ".join(("def f(x):", *lines)), space)
    return space["f"], lambda: known_by_name(5.0)


def what_a_module_is_asked_for():
    held = {"scale": 2.0}
    made: Any = types.ModuleType("asks")
    made.__getattr__ = lambda name: held[name]
    return lambda x: x * made.scale, lambda: held.update(scale=5.0)


def what_a_class_of_modules_is_asked_for():
    held = {"scale": 2.0}

    class Asks(types.ModuleType):
        def __getattr__(self, name):
            return held[name]

    made: Any = Asks("asks")
    return lambda x: x * made.scale, lambda: held.update(scale=5.0)


def a_slot_of_its_class_s_own():
    class A:
        __slots__ = ("__k",)

        def __init__(self):
            self.set(2.0)

        def set(self, k):
            self.__k = k

        def get(self):
            return self.__k

    a = A()
    return lambda x: x * a.get(), lambda: a.set(5.0)


def an_attribute_by_another_name_of_getattr():
    b, ask, name = box(k=2.0), getattr, "k"
    return lambda x: x * ask(b, name), lambda: setattr(b, "k", 5.0)


def an_attribute_by_a_partial_function():
    ask = functools.partial(getattr, b := box(k=2.0), "k")
    return lambda x: x * ask(), lambda: setattr(b, "k", 5.0)


def an_attribute_by_a_getter_of_a_name():
    b, name = box(k=2.0), "k"

    def f(x):
        """Its words are no names."""
        return x * operator.attrgetter(name)(b)

    return f, lambda: setattr(b, "k", 5.0)


def an_attribute_of_a_pattern():
    b = box(mode="a")

    def f(x):
        match b:
            case Box(mode="a"):
                return x * 2
        return x

    return f, lambda: setattr(b, "mode", "b")


def an_attribute_of_a_pattern_without_names():
    class Pair:
        __match_args__ = ("first", "second")

    p: Any = Pair()
    p.first, p.second = 2.0, 3.0

    def f(x):
        match p:
            case Pair(a, b):
                return x * a * b
        return x

    return f, lambda: setattr(p, "second", 5.0)


def an_attribute_by_a_name_that_a_proxy_makes():
    class Proxy:
        def __getattr__(self, name):
            return self.__dict__["_" + name]

    p: Any = Proxy()
    p._k = 2.0
    return lambda x: x * p.k, lambda: setattr(p, "_k", 5.0)


def what_an_object_reads_as():
    class Named:
        def __init__(self):
            self.steps = 2

        def __str__(self):
            return str(self.steps)

    n = Named()
    return lambda x: x * float(f"{n}"), lambda: setattr(n, "steps", 5)


def what_members_of_an_enum_hold():
    make: Any = enum.Enum
    Held = make("Held", {"A": [1.0], "B": [2.0]})
    return lambda x: x * sum(one.value[0] for one in Held), lambda: Held.A.value.__setitem__(0, 5.0)


def subclasses():
    class Base:
        scale = 2.0

    made = [type("First", (Base,), {})]

    def every():
        return sum(each.scale for each in Base.__subclasses__())

    return lambda x: x * every(), lambda: made.append(type("Second", (Base,), {}))


def a_class_that_enters_an_abstract_one():
    class Abstract(abc.ABC):
        @abc.abstractmethod
        def needed(self):
            pass

    class A:
        pass

    a = A()
    return lambda x: x * 2 if isinstance(a, Abstract) else x, lambda: Abstract.register(A)


ROWS: tuple[Callable[[], Any], ...] = (
    the_order_of_a_dict, the_order_of_an_ordered_dict, the_order_of_modules, an_element_of_a_long_list,
    an_entry_of_a_large_dict, an_element_of_a_large_array, a_list_in_an_array_of_objects, the_mask_of_an_array,
    a_polynomial, a_function_for_elements, a_view_of_a_dict, what_a_pointer_shows, a_method_of_a_dict,
    a_method_that_python_calls, a_function_that_passes_for_a_library_s, a_class_of_exec,
    a_class_of_a_library_s_function, a_global_by_a_name_that_is_made, a_global_of_an_expression, a_module_by_its_name,
    another_module_by_its_name, another_module_that_is_imported, whether_there_is_a_module,
    whether_a_module_can_be_imported,
    an_attribute_by_an_expression_of_a_proxy,
    *map(a_global_of_an_expression_elsewhere, (
        "e = run", "e = b.eval", "e = ours.eval", "import builtins; e = builtins.eval",
        "from builtins import eval as e", "e = __import__('builtins').eval",
    )),
    what_a_module_is_asked_for, what_a_class_of_modules_is_asked_for, a_slot_of_its_class_s_own,
    an_attribute_by_another_name_of_getattr, an_attribute_by_a_partial_function, an_attribute_by_a_getter_of_a_name,
    an_attribute_of_a_pattern, an_attribute_of_a_pattern_without_names, an_attribute_by_a_name_that_a_proxy_makes,
    what_an_object_reads_as, what_members_of_an_enum_hold, subclasses, a_class_that_enters_an_abstract_one,
)  # fmt: skip


@pytest.fixture(autouse=True)
def modules_as_they_were():
    yield
    sys.modules.pop("known_by_name", None)


@pytest.mark.parametrize("make", ROWS, ids=lambda make: make.__name__)
def test_it_is_asked_anew(make: Callable[[], Any]) -> None:
    function, change = make()
    compiled = tg.compile(function)
    x = tg.tensor([1.0, 2.0, 3.0])
    before = function(x)
    for _ in range(4):
        assert tg.equal(compiled(x), before)
    assert compiled.stats()["replays"] >= 2
    change()
    after = function(x)
    assert not tg.equal(after, before)
    for _ in range(2):
        assert tg.equal(compiled(x), after)


def numbers_of_a_generator():
    draw = random.Random(3).random
    return lambda x: x * draw()


def the_next_number():
    count = itertools.count().__next__
    return lambda x: x * count()


def what_is_taken():
    take = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].pop
    return lambda x: x * take()


def what_is_noted():
    noted: list[int] = []
    note = noted.append

    def f(x):
        note(1)
        return x

    return f


def names_of_the_caller():
    def f(x):
        frame: Any = inspect.currentframe()
        return x * len(frame.f_back.f_locals)

    return f


@pytest.mark.parametrize(
    "make", (numbers_of_a_generator, the_next_number, what_is_taken, what_is_noted, names_of_the_caller),
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_what_is_another_in_each_call_is_refused(make: Callable[[], Any]) -> None:
    compiled = tg.compile(make())
    with pytest.raises(CompileError, match="replay"):
        for _ in range(5):
            compiled(tg.ones(3))


def test_names_that_a_proxy_passes_on() -> None:
    class Proxy:
        def __getattr__(self, name):
            if name in self.__dict__:
                return self.__dict__["inner"][name]
            return object.__getattribute__(self, name)

        def __setattr__(self, name, value):
            self.__dict__[name] = value
            vars(self)[name] = value

    methods: tuple[Any, ...] = (Proxy.__getattr__, Proxy.__setattr__)
    for method in methods:
        assert not names_in(method.__code__)[1]


def test_the_words_of_an_error_read_no_object() -> None:
    def f(x):
        if x is None:
            raise ValueError(f"expected a tensor, got {x}")
        return x

    assert "__str__" not in names_in(f.__code__)[0]


def test_what_may_become_another_beyond_names_is_python_s_own_business() -> None:
    b = box(seen=0)

    class Named:
        def __repr__(self):
            b.seen += 1
            return "named"

    n = Named()
    compiled = tg.compile(lambda x: x * 2 if n is not None else x)
    for _ in range(4):
        compiled(tg.ones(3))
    assert compiled.stats()["replays"] == 3 and b.seen == 0


def test_a_file_with_the_name_of_a_library_s_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profile.py").write_text("scale = 2.0\ndef scaled(x):\n    return x * scale\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "profile", raising=False)
    monkeypatch.setattr(whose, "_KNOWN", {})
    theirs: Any = importlib.import_module("profile")
    compiled = tg.compile(theirs.scaled)
    for scale in (2.0, 2.0, 5.0, 5.0):
        theirs.scale = scale
        assert compiled(tg.ones(1)).item() == scale
    monkeypatch.delitem(sys.modules, "profile")


def test_a_list_that_was_there_is_returned_itself() -> None:
    noted, by_name = [1.0], {"k": [2.0]}

    def f(x):
        return x * noted[0], noted, [by_name["k"]], {"made": [x + 1]}

    compiled = tg.compile(f)
    for call in range(4):
        product, first, (second,), made = compiled(tg.ones(2))
        assert first is noted and second is by_name["k"] and product.tolist() == [1.0, 1.0]
        made["made"].append(call)
    assert compiled.stats()["replays"] == 3
    first.append(3.0)
    assert compiled(tg.ones(2))[1] == [1.0, 3.0]


def test_another_forward_of_a_class_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = tg.compile(tg.nn.Sequential(tg.nn.Identity(), tg.nn.Identity()))
    for _ in range(3):
        assert compiled(tg.ones(2)).tolist() == [1.0, 1.0]
    b = box(k=2.0)
    monkeypatch.setattr(tg.nn.Identity, "forward", lambda self, x: x * b.k)
    for _ in range(3):
        assert compiled(tg.ones(2)).tolist() == [4.0, 4.0]
    b.k = 3.0
    assert compiled(tg.ones(2)).tolist() == [9.0, 9.0]


@pytest.mark.parametrize("options", ({}, {"fallback": True}), ids=str)
def test_sizes_that_are_returned_are_plain_numbers(options: dict[str, Any]) -> None:
    noted: list[int] = []

    def f(x):
        noted.append(1)  # what no program rests on
        return x * 2, {"rows": x.shape[0]}

    compiled = tg.compile(f, dynamic=True, **options)
    for size in (3, 4):
        assert type(compiled(tg.ones(size))[1]["rows"]) is int


def test_the_history_of_a_tensor_that_is_reached() -> None:
    p, q = tg.nn.Parameter(tg.ones(3)), tg.nn.Parameter(tg.full((3,), 2.0))
    w = p * 2
    compiled = tg.compile(lambda x: (x * w).sum())
    for change in (False, False, False, True, False):
        if change:
            w.mul_(q)
        p.grad = q.grad = None
        compiled(tg.ones(3)).backward(retain_graph=True)
    assert compiled.stats()["replays"] >= 2
    assert p.grad is not None and p.grad.tolist() == [4.0] * 3
    assert q.grad is not None and q.grad.tolist() == [2.0] * 3


def test_a_lazy_layer_is_compiled_once_it_has_a_shape() -> None:
    layers = tg.nn.Sequential(tg.nn.LazyLinear(3), tg.nn.ReLU(), tg.nn.LazyLinear(2))
    compiled = tg.compile(layers)
    x = tg.ones(4, 5)
    for _ in range(4):
        assert tg.equal(compiled(x), layers(x))
    assert compiled.stats()["replays"] == 2


@dataclasses.dataclass
class Settings:
    scale: float = 2.0


def test_words_of_a_dataclass_rest_on_its_fields_alone():
    """Its ``__repr__`` is wrapped by one that keeps a set of what it runs for, which nobody has to ask for again."""
    settings = Settings()

    @tg.compile
    def f(x):
        return x * (float(f"{settings}".split("=")[1][:-1]) % 5)

    x = tg.ones(3)
    assert f(x).tolist() == [2.0] * 3
    assert [entry.reach.copies for entry in f.entries] == [[]]
    settings.scale = 3.0
    assert f(x).tolist() == [3.0] * 3


def test_texts_are_names_of_modules_only_where_code_asks_for_modules(monkeypatch):
    """A loop over ``model.modules()`` asks for none, so that no module is gone through that a text happens to name."""
    big = types.ModuleType("a_module_that_a_text_names")
    big.named = 2.0
    monkeypatch.setitem(sys.modules, big.__name__, big)
    model, kinds = tg.nn.Sequential(tg.nn.ReLU()), {"a_module_that_a_text_names": 3.0}

    @tg.compile
    def by_method(x):
        return x * sum(kinds.values()) * len([None for _ in model.modules()])

    @tg.compile
    def by_table(x):
        return x * sys.modules["a_module_that_a_text_names"].named

    assert by_method(tg.ones(1)).item() == 6.0 and by_table(tg.ones(1)).item() == 2.0
    big.named = 5.0
    assert by_method(tg.ones(1)).item() == 6.0 and by_table(tg.ones(1)).item() == 5.0
    assert [by_method.stats()["captures"], by_table.stats()["captures"]] == [1, 2]
    (entry,) = by_method.entries
    assert id(big) not in entry.reach.seen
