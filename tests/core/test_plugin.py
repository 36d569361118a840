"""A backend from a separate package, found by its entry point: the op table passes on it."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.testing import conformance

PLUGIN = Path(__file__).parents[1] / "plugin"
CASES = list(conformance.cases())


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The plug-in's entry point as an installer would have registered it."""
    text = (PLUGIN / "pyproject.toml").read_text()
    name, value = (part.strip(' "') for part in text.splitlines()[-1].split("="))
    sys.path.insert(0, str(PLUGIN))
    point = EntryPoint(name=name, value=value, group="tensorgrad.backends")
    original = registry._from_entry_points
    registry._from_entry_points = lambda: {name: point}
    yield
    registry._from_entry_points = original
    registry._loaded.pop(name, None)
    sys.path.remove(str(PLUGIN))
    for door in [kind for kind in tg.dispatch.everywhere if kind.__name__ == "PlainArray"]:
        del tg.dispatch.everywhere[door]


def test_it_is_found_and_trains():
    assert "plain" in registry.names()
    registry.get("plain")
    x = tg.ones(3, device="plain", requires_grad=True)
    (x.exp() * 2).sum().backward()
    assert type(x.grad._data).__name__ == "PlainArray" and str(x.grad.device) == "plain"
    with pytest.raises(RuntimeError, match="lives on"):
        x + tg.ones(3)


def test_it_is_short():
    lines = (PLUGIN / "plainarray/__init__.py").read_text().splitlines()
    assert len(lines) < 60


@pytest.mark.parametrize("case", CASES, ids=str)
def test_op_table(case):
    registry.get("plain")
    for dtype in ("float32", "float16"):
        if conformance.applies(case, dtype):
            conformance.check_value(case, dtype, "plain")
    conformance.check_first_derivative(case, "plain")
