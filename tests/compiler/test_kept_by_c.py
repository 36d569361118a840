"""What objects keep where no attribute shows it: queues, contexts, defaults, a built-in that is replaced; and which
tensor an argument is."""

from __future__ import annotations

import builtins
import collections
import contextvars
import functools
import io
import operator
import os
import queue
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler.named import tells_apart
from tensorgrad.errors import CompileError

pytestmark = pytest.mark.filterwarnings("ignore:compile. calls of .* run as they are")
x = tg.tensor([1.0, 2.0, 3.0])
Row = tuple[Callable[[], Any], Callable[[], Any]]


class Thing:
    pass


def what_makes_a_default() -> Row:
    kept: collections.defaultdict[str, float] = collections.defaultdict(lambda: 2.0)

    def read() -> float:
        value = kept["k"]
        del kept["k"]
        return value

    return read, functools.partial(setattr, kept, "default_factory", lambda: 5.0)


def what_makes_a_default_rests_on() -> Row:
    number = [2.0]
    kept: collections.defaultdict[str, float] = collections.defaultdict(lambda: number[0])

    def read() -> float:
        value = kept["k"]
        del kept["k"]
        return value

    return read, functools.partial(number.__setitem__, 0, 5.0)


def a_variable_in_a_context_of_ones_own() -> Row:
    number = contextvars.ContextVar("number", default=1.0)
    context = contextvars.copy_context()
    return lambda: context.run(number.get), lambda: context.run(number.set, 3.0)


def how_long_a_queue_is() -> Row:
    kept: queue.SimpleQueue[float] = queue.SimpleQueue()
    return lambda: 1.0 + kept.qsize(), lambda: kept.put(2.0)


def whether_an_object_is_gone() -> Row:
    kept = [Thing()]
    end = weakref.finalize(kept[0], int)
    return lambda: 1.0 if end.alive else 2.0, kept.clear


def a_key_of_a_comparison() -> Row:
    sign = [1]
    key = functools.cmp_to_key(lambda a, b: (a - b) * sign[0])
    return lambda: float(min([1, 2], key=key)), functools.partial(sign.__setitem__, 0, -1)


def whether_an_array_may_be_written() -> Row:
    array = np.ones(3)
    return lambda: 2.0 if array.flags.writeable else 1.0, lambda: array.setflags(write=False)


@pytest.mark.parametrize(
    "make", [
        what_makes_a_default, what_makes_a_default_rests_on, a_variable_in_a_context_of_ones_own, how_long_a_queue_is,
        whether_an_object_is_gone, a_key_of_a_comparison, whether_an_array_may_be_written,
    ],
)  # fmt: skip
def test_it_is_asked_anew(make: Callable[[], Row]) -> None:
    read, change = make()
    step = tg.compile(lambda x: x * read())
    for _ in range(4):
        assert tg.equal(step(x), x * read())
    assert step.stats()["replays"] >= 2
    before = read()
    change()
    assert read() != before
    for _ in range(3):
        assert tg.equal(step(x), x * read())


@pytest.mark.parametrize("owner", [builtins, tg], ids=["a built-in", "an op"])
def test_a_function_that_is_replaced_for_a_while(owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @tg.compile
    def step(x: Any) -> Any:
        return tg.sin(x) * pow(2.0, 1.0)

    def other(*of: Any) -> Any:
        return of[0] * 7

    name = "pow" if owner is builtins else "sin"
    for _ in range(3):
        assert tg.allclose(step(x), x.sin() * 2.0)
    monkeypatch.setattr(owner, name, other)
    assert tg.allclose(step(x), x.sin() * 14.0 if owner is builtins else x * 14)
    monkeypatch.undo()
    assert tg.allclose(step(x), x.sin() * 2.0)
    assert step.stats()["captures"] == 2


def words_of(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout


PIPE = os.pipe()
TEXT = io.StringIO("some text")
TEXT.seek(0, io.SEEK_END)
READS: dict[str, Callable[[], Any]] = {
    "a file": lambda: TEXT.tell(),
    "a file ": lambda: os.write(PIPE[1], b"a") + len(os.read(PIPE[0], 1)),
    "the result of another program": lambda: len(words_of([sys.executable, "-S", "-c", ""])),
    "os.umask": lambda: os.umask(0o22) and 0,
}


@pytest.mark.parametrize("name", READS)
def test_what_may_be_another_in_each_call_is_refused(name: str) -> None:
    read = READS[name]
    step = tg.compile(lambda x: x * read())
    with pytest.raises(CompileError, match=rf"it reads {name.strip()} at .*test_kept_by_c.py:\d+"):
        for _ in range(5):
            step(x)
    step = tg.compile(lambda x: x * (1.0 + TEXT.tell()), fallback=True)
    for at in range(6):
        TEXT.seek(at)
        assert tg.equal(step(x), x * (1.0 + at))


@pytest.mark.parametrize("kind", ["text", "bytes", "file"])
def test_lines_that_a_file_still_has(kind: str, tmp_path: Any) -> None:
    lines = "\n".join("123456789")
    path = tmp_path / "lines"
    path.write_text(lines)
    with open(path, "r+") as opened:
        given: Any = {"text": io.StringIO(lines), "bytes": io.BytesIO(lines.encode()), "file": opened}[kind]

        def step(x: Any) -> Any:
            for line in given:
                return x * float(line)

        with pytest.raises(CompileError, match="is an open file"):
            tg.compile(step)(x)
        taken = tg.compile(step, fallback=True)
        for i in range(5):
            assert tg.equal(taken(x), x * (1.0 + i))


def test_a_file_that_is_written_to_does_no_harm() -> None:
    told = io.StringIO()

    @tg.compile
    def step(x: Any) -> Any:
        print("written", file=told)
        return x * 2

    for _ in range(4):
        assert tg.equal(step(x), x * 2)
    assert step.stats()["replays"] == 3 and told.getvalue() == "written\n"


def is_it(kept: Any) -> Callable[[Any], Any]:
    return lambda x: x * (2.0 if x is kept else 1.0)


def is_it_among(kept: Any) -> Callable[[Any], Any]:
    every = [tg.zeros(3), kept]
    return lambda x: x * (2.0 if any(x is y for y in every) else 1.0)


def is_it_a_key(kept: Any) -> Callable[[Any], Any]:
    every = {kept: 2.0}
    return lambda x: x * every.get(x, 1.0)


def is_it_in_a_set(kept: Any) -> Callable[[Any], Any]:
    every = {kept}
    return lambda x: x * (2.0 if x in every else 1.0)


def is_it_by_a_function(kept: Any) -> Callable[[Any], Any]:
    return lambda x: x * (2.0 if operator.is_(x, kept) else 1.0)


def is_it_by_its_number(kept: Any) -> Callable[[Any], Any]:
    return lambda x: x * (2.0 if id(x) == id(kept) else 1.0)


@pytest.mark.parametrize("options", [{}, {"fallback": True}, {"dynamic": True}], ids=str)
@pytest.mark.parametrize("tracked", [False, True], ids=["a tensor", "a parameter"])
@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize(
    "make", [is_it, is_it_among, is_it_a_key, is_it_in_a_set, is_it_by_a_function, is_it_by_its_number]
)
def test_an_argument_that_the_function_knows_by_itself(make: Any, first: bool, tracked: bool, options: Any) -> None:
    kept, other = (tg.nn.Parameter(x.clone(), requires_grad=tracked) for _ in range(2))
    function = make(kept)
    step = tg.compile(function, **options)
    for i in range(8):
        given = kept if (i in (0, 1, 4, 7)) == first else other
        assert tg.equal(step(given), function(given)), i
    assert step.stats()["replays"] >= 2


def test_questions_that_no_tensor_answers() -> None:
    def harmless(a: Any, b: Any) -> Any:
        return a is None, type(a) is type(b), a.__class__ is b.__class__, type(a) is Thing, a is int

    def asks(a: Any, b: Any) -> Any:
        return [a is each for each in b]

    assert not tells_apart(harmless.__code__, globals())
    assert tells_apart(asks.__code__, globals())
