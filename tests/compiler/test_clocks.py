"""A clock is another in every call: a function that reads one is no program."""

from __future__ import annotations

import cProfile
import datetime
import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.errors import CompileError

x = tg.ones(2)
system = random.SystemRandom()
READS: dict[str, Callable[[], Any]] = {
    "time.perf_counter": lambda: time.perf_counter(),
    "time.time_ns": lambda: time.time_ns(),
    "time.monotonic": lambda: monotonic(),
    "datetime.now": lambda: datetime.datetime.now(),
    "datetime.today": lambda: datetime.date.today(),
    "os.urandom": lambda: os.urandom(4),
    "uuid.uuid4": lambda: uuid.uuid4(),
    "secrets.randbelow": lambda: secrets.randbelow(1 << 60),
    "secrets.token_hex": lambda: secrets.token_hex(),
    "the system's random numbers": lambda: secrets.choice(range(1 << 60)),
    "the system's random number": lambda: system.random(),
}


@pytest.mark.parametrize("name", READS)
def test_a_function_that_reads_one_is_refused_with_the_line(name: str) -> None:
    read = READS[name]

    @tg.compile
    def step(x: tg.Tensor) -> Any:
        return x * 2, read()

    with pytest.raises(CompileError, match=rf"it reads {name}s? at .*test_clocks.py:\d+ in <lambda>"):
        seen = [step(x)[1] for _ in range(10)]
        assert len(seen) == len(set(seen))  # pragma: no cover
    assert step.stats()["replays"] == 0


def test_each_call_reads_it_with_fallback() -> None:
    @tg.compile(fallback=True)
    def step(x: tg.Tensor) -> Any:
        return x * time.perf_counter_ns(), time.perf_counter_ns()

    seen = [step(x)[1] for _ in range(8)]
    assert len(set(seen)) == 8
    assert any("time.perf_counter_ns" in why for why in step.stats()["reasons"])


def test_clocks_of_others_and_their_names_do_no_harm() -> None:
    class Timer:
        time = 3.0

    timer = Timer()

    @tg.compile
    def step(x: tg.Tensor) -> tg.Tensor:
        return x * timer.time

    for _ in range(4):
        assert step(x).tolist() == [3.0, 3.0]
    assert step.stats()["replays"] == 3


def test_a_profiler_goes_on() -> None:
    seen: list[str] = []

    def profile(frame: Any, event: str, what: Any) -> None:
        seen.append(event)

    def step(x: tg.Tensor) -> Any:
        return x * 2, time.time()

    sys.setprofile(profile)
    try:
        tg.compile(step)(x)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    assert seen
    profiler = cProfile.Profile()
    with profiler:
        tg.compile(step)(x)
        sorted([3, 1, 2])
    assert sys.getprofile() is None
    assert any("sorted" in str(entry.code) for entry in profiler.getstats())
