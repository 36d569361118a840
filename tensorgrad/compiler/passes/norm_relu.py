"""A ReLU behind a batch norm is done by the norm's own kernel, and backward by that of its gradient, which finds again
from the norm's input what the ReLU let pass: both save a way through memory there and back.

The bits stay: results are rounded where they are stored, in float32 and float64 as they are computed. Only a backend
with kernels for it (``folds_norms``) gets such calls.
"""

from __future__ import annotations

from ...dispatch import OPS, local
from ..program import Action, Call, Program, Value
from .activations import activation_behind
from .memory import Memory, rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program with batch norms that end in their ReLU."""
    if not any(call.op.name == "batch_norm" for call in program.calls):
        return program
    memory = Memory.of(program)
    readers = program.readers
    steps: list[Call | Action | None] = list(program.steps)
    joined: dict[Value, tuple[int, int, Call, Value]] = {}  # by what the ReLU gives: norm and ReLU, the norm, its shift
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call):
            continue
        if step.op.name == "batch_norm":
            found = _relu_behind(program, at, readers)
            if found is None:
                continue
            relu, made = found
            y, mean, *statistics = step.results
            assert y is not None and mean is not None
            shift = Value(f"{mean.name}_shift", mean)
            results = (made, mean, *statistics, shift)
            steps[at] = Call(
                OPS["batch_norm_relu"], step.kind, step.inputs, step.attrs, results, (), step.line, step.part
            )
            steps[relu] = None
            joined[made] = at, relu, step, shift
            notes.append(f"batch_norm, relu became batch_norm_relu: {made.nbytes} bytes are not read and written again")
        elif step.op.name == "batch_norm_backward":
            gate = _relu_ahead(program, at, step, joined, memory, readers)
            if gate is None:
                continue
            where, made, g = gate
            inputs = (g, *step.inputs[1:], joined[made][-1])
            op = OPS["batch_norm_relu_backward"]
            steps[at] = Call(op, step.kind, inputs, step.attrs, step.results, (), step.line, step.part)
            steps[where] = None
            notes.append(f"relu_backward, batch_norm_backward became one: {g.nbytes} bytes are not stored between")
    if not notes:
        return program
    return rewritten(program, [s for s in steps if s is not None], "norm_relu", notes)


def _relu_behind(program: Program, at: int, readers: dict[Value, set[int]]) -> tuple[int, Value] | None:
    """The step that is the ReLU of what the norm gives, which nobody else reads before it is there, and its result."""
    norm = program.steps[at]
    assert isinstance(norm, Call)
    y = norm.results[0]
    if y is None or norm.results[1] is None or norm.writes or norm.attrs.keys() != {"eps"} or not _fits(norm):
        return None
    found = activation_behind(program, y, ("relu",), readers)
    return None if found is None or not found.alone else (found.at, found.made)


def _fits(norm: Call) -> bool:
    """Whether the backend has the kernel, and whether it rounds nothing that the two would round between them."""
    y = norm.results[0]
    assert y is not None
    if y.root is not y or not y.contiguous or y.dtype.name not in ("float32", "float64"):
        return False
    return all(v.dtype == y.dtype for v in norm.reads()) and bool(local.plain[norm.kind].backend.folds_norms)


def _relu_ahead(
    program: Program, at: int, step: Call, joined: dict[Value, tuple[int, int, Call, Value]], memory: Memory,
    readers: dict[Value, set[int]],
) -> tuple[int, Value, Value] | None:  # fmt: skip
    """The step that lets pass what a joined ReLU has, for this gradient of its norm alone; the ReLU's result, and the
    gradient that comes to it."""
    gated = step.inputs[0]
    if type(gated) is not Value or readers.get(gated) != {at}:
        return None
    where = next((i for i in range(at - 1, -1, -1) if _makes(program.steps[i], gated)), None)
    gate = None if where is None else program.steps[where]
    if where is None or not isinstance(gate, Call) or gate.op.name != "relu_backward0":
        return None
    if gate.attrs or gate.writes or len(gate.inputs) != 2:
        return None
    made = next((v for v in gate.inputs if v in joined), None)
    g = next((v for v in gate.inputs if v is not made), None)
    if made is None or type(g) is not Value or g.dtype != made.dtype or g.shape != made.shape:
        return None
    first, relu, norm, _ = joined[made]
    x, w, _ = norm.inputs
    _, mean, rstd, *_ = norm.results
    if step.inputs[1:] != (x, mean, rstd, w) or step.writes:
        return None
    kept = [v for v in (x, mean, rstd, w) if v is not None]
    steady = all(memory.steady(v, first, at) for v in kept)
    if not (steady and memory.steady(made, relu, where) and memory.steady(g, where, at)):
        return None
    return where, made, g


def _makes(step: Call | Action, value: Value) -> bool:
    return isinstance(step, Call) and any(v is value for v in step.results)
