"""What a function reads of the process around it, and of this package's switches, is asked before each replay."""

from __future__ import annotations

import decimal
import logging
import os
import pathlib
import random
import sys
import threading
import time
from collections.abc import Callable
from os import getcwd as where_we_are
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import CompileError

log = logging.getLogger("tests.compiler.surroundings")
mine = threading.local()
mine.value = 1
optimizer = tg.optim.SGD([tg.nn.Parameter(tg.ones(2))], lr=0.1)
generator = tg.Generator().manual_seed(3)


def switched(name: str, *values: Any) -> Callable[[Any], None]:
    """Call the function of this package with one of two values."""
    return lambda other: getattr(tg, name)(values[other])


def threads(other: bool) -> None:
    tg.config.set("num_threads", 3) if other else tg.config.unset("num_threads")


def directory(other: bool) -> None:
    os.chdir("/" if other else START)


def arguments(other: bool) -> None:
    sys.argv.append("more") if other else sys.argv.remove("more")


def of_user(other: bool) -> None:
    os.environ["HOME"] = "/elsewhere" if other else HOME


START, HOME = os.getcwd(), os.environ.get("HOME", "/")
READS: dict[str, tuple[Callable[[], Any], Callable[[bool], Any]]] = {
    "threads": (lambda: tg.get_num_threads(), threads),
    "a setting": (lambda: tg.config.get("num_threads"), threads),
    "a seed": (lambda: generator.initial_seed(), lambda other: generator.manual_seed(4 if other else 3)),
    "a generator": (lambda: repr(generator), lambda other: generator.manual_seed(4 if other else 3)),
    "determinism": (
        lambda: tg.are_deterministic_algorithms_enabled(), switched("use_deterministic_algorithms", False, True),
    ),
    "precision": (
        lambda: tg.get_float32_matmul_precision(), switched("set_float32_matmul_precision", "highest", "high"),
    ),
    "a switch of cuDNN": (
        lambda: tg.backends.cudnn.benchmark, lambda other: setattr(tg.backends.cudnn, "benchmark", other),
    ),
    "a switch of products": (
        lambda: tg.backends.cuda.matmul.allow_tf32,
        lambda other: setattr(tg.backends.cuda.matmul, "allow_tf32", other),
    ),
    "a permission": (
        lambda: tg.backends.cuda.flash_sdp_enabled(), lambda other: tg.backends.cuda.enable_flash_sdp(not other),
    ),
    "autocast's dtype": (
        lambda: str(tg.get_autocast_dtype("cpu")),
        lambda other: tg.set_autocast_dtype("cpu", tg.float16 if other else tg.bfloat16),
    ),
    "an optimizer in words": (
        lambda: f"{optimizer}", lambda other: optimizer.param_groups[0].update(lr=0.2 if other else 0.1),
    ),
    "an optimizer's own state": (
        lambda: repr(optimizer.__getstate__()["param_groups"][0]["lr"]),
        lambda other: optimizer.param_groups[0].update(lr=0.2 if other else 0.1),
    ),
    "the working directory": (lambda: os.getcwd(), directory),
    "the directory under another name": (lambda: where_we_are(), directory),
    "the directory by a path": (lambda: str(pathlib.Path("a").absolute()), directory),
    "the environment by a path": (lambda: os.path.expanduser("~"), of_user),
    "arguments of the command": (lambda: len(sys.argv), arguments),
    "a logger": (lambda: log.isEnabledFor(10), lambda other: log.setLevel(5 if other else 30)),
    "a logger by its name": (
        lambda: logging.getLogger("tests.compiler.surroundings").level, lambda other: log.setLevel(5 if other else 30),
    ),
    "decimals": (
        lambda: str(decimal.Decimal(1) / 3), lambda other: setattr(decimal.getcontext(), "prec", 5 if other else 28),
    ),
    "NumPy's errors": (lambda: np.geterr()["under"], lambda other: np.seterr(under="print" if other else "ignore")),
    "a thread's own": (lambda: mine.value, lambda other: setattr(mine, "value", 2 if other else 1)),
    "a random state": (lambda: random.getstate()[1][:2], lambda other: random.seed(5 if other else 6)),
    "a global by its name": (
        lambda: globals().get("later", 0), lambda other: globals().update(later=3) if other else globals().pop("later"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_it_is_asked_anew(name: str) -> None:
    read, switch = READS[name]

    @tg.compile
    def step(x: tg.Tensor) -> Any:
        return x * 2, repr(read())

    if name == "a random state":
        switch(False)
    x = tg.ones(2)
    seen = [step(x)[1] for _ in range(4)]
    switch(True)
    try:
        seen += [step(x)[1] for _ in range(2)]
        assert seen == [seen[0]] * 4 + [repr(read())] * 2 and seen[0] != seen[-1]
    finally:
        switch(False)
    assert step(x)[1] == seen[0]
    assert step.stats()["replays"] >= 4


def test_a_switch_that_the_function_sets_is_set_by_replays() -> None:
    @tg.compile
    def step(x: tg.Tensor) -> tg.Tensor:
        tg.use_deterministic_algorithms(True)
        return x * 2

    try:
        for _ in range(3):
            tg.use_deterministic_algorithms(False)
            step(tg.ones(2))
            assert tg.are_deterministic_algorithms_enabled()
    finally:
        tg.use_deterministic_algorithms(False)
    assert step.stats()["replays"] == 2


def test_another_dtype_of_autocast_is_another_program() -> None:
    w = tg.ones(2, 2)

    @tg.compile
    def step(x: tg.Tensor) -> tg.Tensor:
        with tg.autocast("cpu"):
            return x @ w

    x = tg.ones(2, 2)
    try:
        assert [step(x).dtype for _ in range(3)] == [tg.bfloat16] * 3
        tg.set_autocast_dtype("cpu", tg.float16)
        assert [step(x).dtype for _ in range(3)] == [tg.float16] * 3
    finally:
        tg.set_autocast_dtype("cpu", tg.bfloat16)
    assert step(x).dtype == tg.bfloat16


def test_each_thread_has_its_own() -> None:
    @tg.compile
    def step(x: tg.Tensor) -> Any:
        return x * mine.value

    x = tg.ones(1)
    assert [step(x).item() for _ in range(3)] == [1.0] * 3
    found: list[float] = []

    def run() -> None:
        mine.value = 7
        found.extend(step(x).item() for _ in range(2))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [7.0, 7.0] and step(x).item() == 1.0


CLOCKS: dict[str, Callable[[], Any]] = {
    "time.localtime": lambda: time.localtime(),
    "time.strftime": lambda: time.strftime("%S"),
    "time.clock_gettime": lambda: time.clock_gettime(0),
    "the system's random numbers": lambda: random.Random().random(),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_what_is_another_in_each_call_is_refused(name: str) -> None:
    read = CLOCKS[name]
    step = tg.compile(lambda x: (x * 2, read()))
    with pytest.raises(CompileError, match=rf"it reads {name} at .*test_surroundings.py:\d+ in <lambda>"):
        for _ in range(5):
            step(tg.ones(2))


def test_random_numbers_from_a_seed_of_ones_own_are_those() -> None:
    step = tg.compile(lambda x: x * random.Random(3).random())
    assert len({step(tg.ones(1)).item() for _ in range(4)}) == 1
    assert step.stats()["replays"] == 3


def test_a_state_of_random_numbers_is_kept_and_not_looked_at() -> None:
    @tg.compile
    def step(x: tg.Tensor) -> Any:
        return x, tg.get_rng_state().tolist()

    with pytest.raises(CompileError, match=r"Python reads a tensor that the compiled function computes at .*test_surr"):
        step(tg.ones(2))


weight = tg.nn.Parameter(tg.ones(2))


@pytest.mark.parametrize("kind", ["argument", "view", "computed", "storage"])
def test_where_elements_lie_is_refused(kind: str) -> None:
    reads: dict[str, Callable[[tg.Tensor], int]] = {
        "argument": lambda x: x.data_ptr(), "view": lambda x: x[1:].data_ptr(),
        "computed": lambda x: (x + 1).data_ptr(), "storage": lambda x: x.untyped_storage().data_ptr(),
    }  # fmt: skip
    read = reads[kind]
    with pytest.raises(CompileError, match=r"data_ptr\(\) is read at .*test_surroundings.py:\d+"):
        tg.compile(lambda x: (x * 2, read(x)))(tg.ones(3))
    step = tg.compile(lambda x: (x * 2, read(x)), fallback=True)
    for _ in range(4):
        x = tg.ones(3)
        assert kind == "computed" or step(x)[1] == read(x)


def test_where_a_parameter_lies_is_asked_anew() -> None:
    step = tg.compile(lambda x: (x * weight, weight.data_ptr()))
    with tg.no_grad():
        seen = [step(tg.ones(2))[1] for _ in range(3)]
        assert seen == [weight.data_ptr()] * 3
        before, weight.data = weight.data, tg.zeros(2)
        assert step(tg.ones(2))[1] == weight.data_ptr() != seen[0]
        weight.data = before
    assert step.stats()["replays"] == 2


def test_tensors_are_told_apart_within_a_step() -> None:
    @tg.compile
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        return x + 1 if x.is_set_to(y) else x - y

    x, y = tg.ones(2), tg.ones(2)
    assert [step(x, y).tolist(), step(x, x).tolist(), step(x, y).tolist(), step(y, y).tolist()] == [
        [0.0, 0.0], [2.0, 2.0], [0.0, 0.0], [2.0, 2.0],
    ]  # fmt: skip
