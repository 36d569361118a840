"""Who runs a program: C++ where its backend computes, Python elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .program import Program

__all__ = ["executor"]


def executor(program: Program) -> Callable[[list[Any]], list[Any]]:
    """A function from arrays for the program's arguments to those of its outputs."""
    from .native import link

    program.linked = linked = link(program)
    return linked if linked is not None else in_python(program)


def in_python(program: Program) -> Callable[[list[Any]], list[Any]]:
    """The program as a Python function."""
    text, names = program.replay_source()
    space: dict[str, Any] = dict(names)
    exec(compile(text, "<tensorgrad program>", "exec"), space)  # noqa: S102 - our own text
    replay: Callable[[list[Any]], list[Any]] = space["replay"]
    return replay
