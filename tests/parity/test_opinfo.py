"""PyTorch's own sample inputs and error inputs, operator by operator (see ``opinfo``)."""

from __future__ import annotations

import importlib.util
import os

import pytest

from . import opinfo
from .expected import OPERATORS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("expecttest") is None,
    reason="PyTorch and expecttest are needed for PyTorch's operator table",
)

LIMIT = int(os.environ.get("TENSORGRAD_PARITY_SAMPLES", "6"))
"""Samples of each operator, form and dtype; the whole table takes long, so CI runs every n-th of it."""


@pytest.fixture(scope="module")
def table() -> dict[str, list[opinfo.Entry]]:
    found: dict[str, list[opinfo.Entry]] = {}
    for info in opinfo.database():
        found.setdefault(info.name, []).append(opinfo.Entry(info))
    return found


def test_pytorch_takes_settings_after_its_tables_were_read(table: dict[str, list[opinfo.Entry]]) -> None:
    assert table and not opinfo.with_torch().backends.flags_frozen()


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(table: dict[str, list[opinfo.Entry]], name: str) -> None:
    lines = [
        line
        for entry in table[name]
        for line in (
            *opinfo.differences(entry, ["float64", "float32", "int64"], LIMIT),
            *opinfo.error_differences(entry),
        )
    ]
    assert not lines, "\n".join(lines[:20])
