"""What the documentation shows runs: the blocks of a page in order, and the examples in the compiler's docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import tensorgrad.compiler

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["arrays.md", "compile.md", "elementwise.md", "index.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S))
    assert blocks
    space = {"__name__": "__main__"}
    for block in blocks:
        above = "\n" * (text[: block.start()].count("\n") + 1)  # so that a traceback names the page's line
        exec(compile(above + block.group(1), str(DOCS / page), "exec"), space)


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(tensorgrad.compiler.__path__)] + ["__init__"])
def test_examples_of_the_compiler_run(name):
    module = tensorgrad.compiler if name == "__init__" else importlib.import_module(f"tensorgrad.compiler.{name}")
    # as a user runs them: what this package defines itself is not walked for what it may change
    found = doctest.testmod(module, extraglobs={"__name__": "__main__"}, optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
