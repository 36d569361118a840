"""``Unless`` within a CUDA graph: its steps become the program's own, some of them guarded by its flag.

What an optimizer writes its kernels leave out themselves where the flag is set, on the device; what the host has
counted for it is taken back once the graph is done. What the steps compute besides is computed always, and read by them
alone.
"""

from __future__ import annotations

import numpy as np

from ...compiler.program import Action, Call, Program, Unless, Value
from .stretch import READS_WORDS

__all__ = ["opened"]


def opened(program: Program, kind: type) -> tuple[Program, dict[int, Value | None]]:
    """The program with each ``Unless`` opened where that can be done, and by step that came out of one: its flag, None
    for a step that may be done always. ``kind``: the backend's type of arrays."""
    steps: list[Call | Action] = []
    flags: dict[int, Value | None] = {}
    for step in program.steps:
        if not isinstance(step, Unless) or not _can_be_opened(step, kind):
            steps.append(step)
            continue
        for inner in step.steps:
            guarded = isinstance(inner, Action) or inner.op.name in READS_WORDS
            flags[len(steps)] = step.flag if guarded else None
            steps.append(inner)
    return Program(steps, program.arguments, program.outputs) if flags else program, flags


def _can_be_opened(step: Unless, kind: type) -> bool:
    if step.flag.dtype != np.bool_:
        return False  # kernels look at one byte
    made: set[Value] = set()
    counted: set[int] = set()
    for inner in step.steps:
        if isinstance(inner, Action):
            counts = set(map(id, inner.counts))
            if not counts or counts & counted or not inner.independent_of(kind):
                return False
            counted |= counts
            continue
        if isinstance(inner, Unless) or inner.kind is not kind or inner.draws:
            return False
        if inner.op.name not in READS_WORDS and not {v.root for v in inner.writes} <= made:
            return False
        made.update(v for v in inner.results if v is not None)
    return True
