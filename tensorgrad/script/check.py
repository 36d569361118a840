"""``tensorgrad check``: which names of torch a program uses that tensorgrad does not have, from its source alone.

The program is read, never run. Names are followed through imports (``import torch.nn as nn``, ``from torch import
optim``) and attribute chains; a method call on a value whose type is unknown counts when its name is a method of
PyTorch's Tensor that ours lacks.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import TensorgradError
from .tensor_methods import MISSING_METHODS

__all__ = ["Report", "Use", "check", "uses_of"]


@dataclass(frozen=True)
class Use:
    """One place where a program names something: ``torch.nn.Linear`` at a line of a file."""

    path: str
    line: int
    name: str


@dataclass
class Report:
    """What ``check`` found: the uses of missing names, files that are not Python, and how much was read."""

    missing: list[Use] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    files: int = 0
    names: int = 0

    def lines(self) -> Iterator[str]:
        """The report as ``tensorgrad check`` prints it."""
        for use in self.missing:
            yield f"{use.path}:{use.line}: tensorgrad has no {use.name}"
        yield from self.unreadable
        files = "1 file" if self.files == 1 else f"{self.files} files"
        lacking = len({use.name for use in self.missing})
        verdict = f"{lacking} of them missing (see docs/differences.md)" if lacking else "all of them there"
        yield f"{files}, {self.names} names of torch used, {verdict}"


def check(paths: Sequence[Path]) -> Report:
    """Read scripts and folders of scripts. Raises TensorgradError for a path that does not exist."""
    report = Report()
    names: set[str] = set()
    for path in paths:
        if not path.exists():
            raise TensorgradError(f"{path}: no such file or folder")
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            report.files += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # an invalid escape in somebody's string is not our affair
                    uses = list(uses_of(file.read_bytes(), str(file)))
            except (SyntaxError, ValueError, RecursionError, OSError) as error:
                report.unreadable.append(f"{file}: can't be read: {error}")
                continue
            for use in uses:
                names.add(use.name)
                if not exists(use.name):
                    report.missing.append(use)
    report.names = len(names)
    return report


def uses_of(source: bytes | str, path: str = "<string>") -> Iterator[Use]:
    """Every use of a name of torch in the source, in order of lines. Raises SyntaxError if it is not Python."""
    visitor = _Visitor(path)
    visitor.visit(ast.parse(source, path))
    return iter(sorted(visitor.uses, key=lambda use: (use.line, use.name)))


class _Visitor(ast.NodeVisitor):
    """Follows what the file's imports call torch; scopes are not told apart, which errs on the side of reporting."""

    def __init__(self, path: str):
        self.path = path
        self.known: dict[str, str] = {}  # a local name: what of torch it stands for
        self.uses: list[Use] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.partition(".")[0] == "torch":
                self.known[alias.asname or "torch"] = alias.name if alias.asname else "torch"
                self._use(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or not node.module or node.module.partition(".")[0] != "torch":
            return
        for alias in node.names:
            if alias.name == "*":
                self._use(node, node.module)
                continue
            full = f"{node.module}.{alias.name}"
            self.known[alias.asname or alias.name] = full
            self._use(node, full)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = self._chain(node)
        if chain is not None:
            self._use(node, chain)
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in MISSING_METHODS and self._chain(function) is None:
            self._use(node, f"torch.Tensor.{function.attr}")
        self.generic_visit(node)

    def _chain(self, node: ast.expr) -> str | None:
        """``torch.nn.functional.relu`` for the expression ``F.relu``; None if it does not start at torch."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.known:
            return None
        return ".".join((self.known[node.id], *reversed(parts)))

    def _use(self, node: ast.stmt | ast.expr, name: str) -> None:
        self.uses.append(Use(self.path, node.lineno, name))


@cache
def exists(name: str) -> bool:
    """Whether tensorgrad has a dotted name of torch; what lies behind a value (``torch.pi.real``) is Python's."""
    import tensorgrad

    found: Any = tensorgrad
    path = "tensorgrad"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if hasattr(found, part):
            found = getattr(found, part)
            if not (inspect.ismodule(found) or inspect.isclass(found)):
                return True
            continue
        if not inspect.ismodule(found):
            return False
        try:
            found = importlib.import_module(path)
        except ImportError:
            return False
    return True
