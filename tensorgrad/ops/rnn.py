"""The recurrent cells as formulas; ``rnn_sequence`` walks them over steps."""

from __future__ import annotations

from typing import Any

from ..expr import functions as fn
from .elementwise import Elementwise, elementwise
from .samples import Arg, Sample


def _lstm(i: Any, f: Any, g: Any, o: Any, c: Any) -> Any:
    cell = fn.sigmoid(f) * c + fn.sigmoid(i) * fn.tanh(g)
    return fn.sigmoid(o) * fn.tanh(cell), cell


def _gru(reset: Any, update: Any, new: Any, h_reset: Any, h_update: Any, h_new: Any, h: Any) -> Any:
    r, z = fn.sigmoid(reset + h_reset), fn.sigmoid(update + h_update)
    n = fn.tanh(new + r * h_new)
    return (1 - z) * n + z * h


lstm_gates = elementwise(
    _lstm,
    name="lstm_gates",
    samples=lambda: [Sample(tuple(Arg((3, 4)) for _ in range(5)), name="rows")],
    doc="(hidden, cell) of the four gates' inputs and the old cell.",
)
gru_gates = elementwise(
    _gru,
    name="gru_gates",
    samples=lambda: [Sample(tuple(Arg((3, 4)) for _ in range(7)), name="rows")],
    doc="The new hidden state of the gates' two inputs each, and the old.",
)


def columns(F: Any, x: Any, count: int) -> list[Any]:
    """``x`` (n, count * h) cut in ``count`` blocks of columns."""
    width = x.shape[1] // count
    return [F.slice(x, key=(slice(None), slice(k * width, (k + 1) * width))) for k in range(count)]


def gradients_of(F: Any, formula: Elementwise, seeds: tuple[Any, ...], inputs: list[Any]) -> list[Any]:
    """The gradient in each of the formula's inputs, by its fused backward kernel."""
    needs = (True,) * len(inputs)
    plan = formula.plan(needs)
    assert plan.kernel is not None and not plan.uses_output
    results = getattr(F, plan.kernel.name)(*seeds, *(inputs[i] for i in plan.uses))
    return [results[part] for part in plan.parts]
