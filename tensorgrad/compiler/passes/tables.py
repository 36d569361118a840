"""Gradients of one table from several lookups are added up where the first of them lies.

Each was a table of zeros with some rows added to it, and adding two of them read and wrote all rows again: the rows of
the second now go onto the first. (Word vectors of 5000 x 100: a step is 1.1 to 1.2 times as fast.) The sums of rows
that both name are rounded in another order, so only backends whose programs need not have an eager step's bits
(``groups_rows``) get this.
"""

from __future__ import annotations

from types import SimpleNamespace

from ...dispatch import OPS, local
from ..program import Action, Call, Program, Value
from .memory import Memory, rewritten

__all__ = ["run"]

_SUMMED = ("float32", "float64")  # narrower types are added up in float32, and rounded once


def run(program: Program) -> Program:
    """The program with rows added to a table's gradient in place of a second table and a sum."""
    makers = {
        v: (at, step)
        for at, step in enumerate(program.steps)
        if isinstance(step, Call)
        for v in step.results
        if v is not None
    }
    if not any(step.op.name == "embedding_backward" for _, step in makers.values()):
        return program
    memory, readers = Memory.of(program), program.readers
    steps: list[list[Call | Action]] = [[step] for step in program.steps]
    notes: list[str] = []
    for at in range(len(program.steps) - 1, -1, -1):  # the last sum first: its name goes to the first table
        step = program.steps[at]
        if not isinstance(step, Call) or step.op.name != "add" or step.attrs:
            continue
        pair = sorted((v for v in step.inputs if v in makers), key=lambda v: makers[v][0])
        found = [
            (base, rows)
            for base, rows in ((pair, pair[::-1]) if len(pair) == 2 else ())
            if base is not rows and readers[base] == readers[rows] == {at} and not memory.written(base)
            if _fits(step, makers[base][1], makers[rows][1], base, rows)
        ]
        if not found:
            continue
        base, rows = found[0]  # the first to be made, if it may be
        first, (where, lookup) = makers[base][0], makers[rows]
        g, index = lookup.inputs
        if not (memory.steady(g, where, at) and memory.steady(index, where, at)):
            continue
        (now,) = steps[at]  # its result may have another name by now
        total = now.results[0] if isinstance(now, Call) else None
        if total is None:
            continue
        steps[first] = [_renamed(call, base, total) for call in steps[first]]
        steps[where] = []
        steps[at] = _added(step, total, g, index)
        notes.append(f"rows are added to a gradient of the table: {rows.nbytes} bytes are not filled and added")
    return rewritten(program, [one for each in steps for one in each], "tables", notes) if notes else program


def _fits(step: Call, maker: Call, lookup: Call, base: Value, rows: Value) -> bool:
    made = step.results[0]
    if (
        made is None
        or lookup.op.name != "embedding_backward"
        or lookup.attrs.get("padding_idx") is not None
        or maker.op.view
    ):
        return False
    if not step.part == maker.part == lookup.part:
        return False  # a backward pass may run again on what the forward pass made
    if not local.plain[step.kind].backend.groups_rows or made.dtype.name not in _SUMMED:
        return False
    if any(v.root is not v or v.shape != made.shape or v.dtype != made.dtype for v in (made, base, rows)):
        return False
    g, index = lookup.inputs
    return base.contiguous and g.contiguous and index.contiguous and index.dtype.name == "int64" and bool(g.shape[-1])


def _renamed(step: Call | Action, value: Value, name: Value) -> Call | Action:
    """The call, with a result that goes by another name."""
    if not isinstance(step, Call):
        return step
    results = tuple([name if v is value else v for v in step.results])
    return Call(step.op, step.kind, step.inputs, step.attrs, results, step.writes, step.line, step.part)


def _added(step: Call, total: Value, g: Value, index: Value) -> list[Call | Action]:
    calls: list[Call | Action] = []
    item, width = int(g.dtype.itemsize), int(g.shape[-1])
    count = g.nbytes // (item * width)
    flat = []
    for value, shape, strides in (
        (index, (count,), (int(index.dtype.itemsize),)), (g, (count, width), (width * item, item)),
    ):  # fmt: skip
        if value.shape == shape:
            flat.append(value)
            continue
        view = Value(f"{value.name}_rows", SimpleNamespace(shape=shape, dtype=value.dtype, strides=strides), value.root)
        calls.append(Call(OPS["reshape"], step.kind, (value,), {"shape": shape}, (view,), (), step.line, step.part))
        flat.append(view)
    inputs = (total, *flat)
    calls.append(Call(OPS["index_add_into"], step.kind, inputs, {"dim": 0}, (None,), (total,), step.line, step.part))
    return calls
