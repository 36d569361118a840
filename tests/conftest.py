"""What every test starts from, and what none may leave behind."""

from __future__ import annotations

import gc
import os

# PyTorch's threads wait for each other by spinning: beside another test process that took up to six times what they
# compute. Read when its libraries are loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import config, dispatch
from tests.parity.translate import seed_pytorch


def settings() -> dict[str, Any]:
    """Settings made by calls, but those that are compared by their effect."""
    return {name: value for name, value in config._calls.items() if name not in ("backend", "num_threads")}


def restore_settings(before: dict[str, Any]) -> None:
    for name in settings().keys() - before.keys():
        config.unset(name)
    for name, value in before.items():
        config.set(name, value)


STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "grad mode": (tg.is_grad_enabled, tg.set_grad_enabled),
    "inference mode": (tg.is_inference_mode_enabled, lambda before: None),
    "default dtype": (tg.get_default_dtype, tg.set_default_dtype),
    "backend": (tg.get_backend, tg.set_backend),
    "listeners": (dispatch.listeners, lambda before: None),
    "threads": (tg.get_num_threads, tg.set_num_threads),
    "settings made by calls": (settings, restore_settings),
}
"""What a process has only one of: how to read it, and how to give it back so that the next test does not fail too."""


LONGEST = ("test_benchmarks.py", "test_jax_workloads.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long starts first: at the end one process would be left with it while the others wait."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


_file: Path | None = None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The collector leaves out what was there before the first test of a file.

    Each of its rounds walks 36,000 tests and their modules, half a second long, and so does ``gc.get_referrers``, which
    the compiler asks for an argument's history.
    """
    global _file
    if item.path != _file:
        _file = item.path
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Every test draws the same random numbers whoever ran before it, and fails if it leaves global state changed."""
    tg.manual_seed(0)
    if "torch" in sys.modules:
        seed_pytorch(sys.modules["torch"], 0)
    before = {name: read() for name, (read, _) in STATE.items()}
    threads = threading.active_count()
    yield
    leaked = []
    for name, (read, give_back) in STATE.items():
        after = read()
        if after != before[name]:
            leaked.append(f"{name}: {before[name]!r} became {after!r}")
            give_back(before[name])
    if threading.active_count() > threads:
        leaked.append(f"threads still running: {[t.name for t in threading.enumerate()]}")
    if leaked:
        pytest.fail("the test left global state changed; " + "; ".join(leaked), pytrace=False)
