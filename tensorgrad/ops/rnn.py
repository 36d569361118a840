"""One step of the recurrent cells, each gate a term of one formula."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..expr import functions as fn
from .checks import require_float, require_same_dtype
from .elementwise import Elementwise, elementwise
from .record import Spec, op
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


def _backward(F: Any, formula: Elementwise, seeds: tuple[Any, ...], inputs: list[Any]) -> list[Any]:
    """The gradient in each of the formula's inputs, by its fused backward kernel."""
    needs = (True,) * len(inputs)
    plan = formula.plan(needs)
    assert plan.kernel is not None and not plan.uses_output
    results = getattr(F, plan.kernel.name)(*seeds, *(inputs[i] for i in plan.uses))
    return [results[part] for part in plan.parts]


def _lstm_infer(gates: Any, c: Any) -> tuple[Spec, Spec]:
    require_float("lstm_cell", gates)
    require_same_dtype("lstm_cell", gates, c=c)
    if gates.ndim != 2 or gates.shape != (c.shape[0], 4 * c.shape[-1]):
        raise ShapeError(f"lstm_cell: gates of shape {tuple(gates.shape)} do not fit a cell of {tuple(c.shape)}.")
    spec = Spec(tuple(c.shape), c.dtype)
    return spec, spec


def _lstm_rule(F: Any, g: Any, gates: Any, c: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    seeds = tuple(0.0 if part is None else part for part in g)
    *to_gates, to_c = _backward(F, lstm_gates, seeds, [*columns(F, gates, 4), c])
    return (F.cat(*to_gates, dim=1) if needs[0] else None), (to_c if needs[1] else None)


lstm_cell = op(
    "lstm_cell",
    infer=_lstm_infer,
    define=lambda F, gates, c: F.lstm_gates(*columns(F, gates, 4), c),
    rule=_lstm_rule,
    keeps=("gates", "c"),
    outputs=("h", "cell"),
    samples=lambda: [Sample((Arg((3, 8)), Arg((3, 2))), name="rows"), Sample((Arg((0, 8)), Arg((0, 2))), name="empty")],
    doc="(hidden, cell) after a step: gates (n, 4 h) holds input, forget, cell and output gate. "
    "Source: Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber, Cummins 2000.",
)


def _gru_infer(inputs: Any, hidden: Any, h: Any) -> Spec:
    require_float("gru_cell", inputs)
    require_same_dtype("gru_cell", inputs, hidden=hidden, h=h)
    expected = (h.shape[0], 3 * h.shape[-1])
    if inputs.shape != expected or hidden.shape != expected:
        raise ShapeError(
            f"gru_cell: gates of shapes {tuple(inputs.shape)} and {tuple(hidden.shape)} do not fit a state of "
            f"{tuple(h.shape)}."
        )
    return Spec(tuple(h.shape), h.dtype)


def _gru_rule(F: Any, g: Any, inputs: Any, hidden: Any, h: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    grads = _backward(F, gru_gates, (g,), [*columns(F, inputs, 3), *columns(F, hidden, 3), h])
    return (
        F.cat(*grads[:3], dim=1) if needs[0] else None,
        F.cat(*grads[3:6], dim=1) if needs[1] else None,
        grads[6] if needs[2] else None,
    )


gru_cell = op(
    "gru_cell",
    infer=_gru_infer,
    define=lambda F, inputs, hidden, h: F.gru_gates(*columns(F, inputs, 3), *columns(F, hidden, 3), h),
    rule=_gru_rule,
    keeps=("inputs", "hidden", "h"),
    samples=lambda: [Sample((Arg((3, 6)), Arg((3, 6)), Arg((3, 2))), name="rows")],
    doc="The hidden state after a step: inputs and hidden (n, 3 h) hold what reset, update and new gate receive from "
    "the input and from the state. Source: Cho et al. 2014.",
)
