"""Passes: each takes a program and gives one that computes the same with less.

A pass is a function ``run(program) -> Program`` in a file of its own; it never changes the program that it is given,
nor its calls. What all of them keep: calls that write happen, in their order among all that touches the same memory;
random numbers are drawn by the same calls in the same order; outputs stay the values they are.

``show("duplicates", program)`` is a pass's text before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ... import collector
from ..program import Program
from .room import Room

__all__ = ["PASSES", "optimize", "show"]

PASSES = (
    "conditional",
    "views",
    "constants",
    "duplicates",
    "summed_rows",
    "dead",
    "fold",
    "norms",
    "norm_relu",
    "linear_activation",
    "pools",
    "tables",
    "negations",
    "renamed",
    "casts",
    "formulas",
    "ahead",
    "dead",
    "inline",
    "recompute",
    "column_sums",
    "reductions",
    "rolls",
    "overwrite",
    "actions",
    "groups",
)


def optimize(program: Program, names: tuple[str, ...] = PASSES) -> Program:
    """The program after all passes, or those of these names, with notes of what each has changed.

    If it needs more memory at one time than it was captured with, formulas are made again, ``tight`` ones. If it still
    does, rows are added up as they were written: bringing them together takes indices that an eager run has not.
    """
    with collector.paused():  # a collection in the midst of many small objects takes longer than all passes
        if not program.eager:
            room = Room(program, whole=True)
            program.eager, program.met = room.worst, room.by_result(program)
        needed = program.needed = program.needed or Room(program).worst
        made = _passed(program, names)
        if "formulas" in names and Room(made).worst > needed:
            program.tight = True
            made = _passed(program, names)
            if any(name == "summed_rows" for name, _ in made.notes) and Room(made).worst > needed:
                made = _passed(program, tuple([name for name in names if name != "summed_rows"]))
        made.met = {v: program.met[v] for call in made.calls for v in call.results if v in program.met}
    made.forget()
    program.forget()
    return made


def _passed(program: Program, names: tuple[str, ...]) -> Program:
    needed, eager, tight = program.needed, program.eager, program.tight
    for name in names:
        before, program = program, _RUNS[name](program)
        if program is not before:
            before.forget()
            program.needed, program.eager, program.tight = needed, eager, tight
    return program


def show(name: str, program: Program) -> tuple[str, str]:
    """The program's text before and after the pass of this name. Raises ValueError for an unknown name."""
    if name not in PASSES:
        raise ValueError(f"show: there is no pass {name!r}; they are {', '.join(PASSES)}.")
    return repr(program), repr(_RUNS[name](program))


# here, so that the first call of a compiled function doesn't wait for them
_RUNS: dict[str, Callable[[Program], Program]] = {name: import_module(f"{__name__}.{name}").run for name in PASSES}
