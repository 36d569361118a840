"""A recurrent layer in one direction over whole sequences, as one op: forward and backward."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..errors import ShapeError
from .checks import np_dtype, require_float, require_same_dtype, reshaped, statistic_dtype, swapped
from .norm import fitted
from .record import Spec, op
from .rnn import columns, gradients_of, gru_gates, lstm_gates
from .samples import Arg, Sample

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
"""How many blocks of ``hidden_size`` rows the weights of each kind have."""

Sizes = tuple[int, ...] | None


def _infer(
    x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, *, mode: str, reverse: bool,
    sizes: Sizes, keep: bool,
) -> tuple[Spec | None, ...]:  # fmt: skip
    require_float("rnn_sequence", x)
    require_same_dtype("rnn_sequence", x, h0=h0, c0=c0, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh, w_hr=w_hr)
    if x.ndim != (3 if sizes is None else 2) or (x.shape[0] == 0 if sizes is None else not sizes):
        raise ShapeError(
            f"rnn_sequence: expected an input of (steps, batch, features), at least one step, or with sizes of "
            f"(rows, features); got {tuple(x.shape)} and sizes {sizes}."
        )
    if sizes is not None and (sum(sizes) != x.shape[0] or sizes[-1] < 0 or list(sizes) != sorted(sizes, reverse=True)):
        raise ShapeError(f"rnn_sequence: {x.shape[0]} rows can't be steps of {sizes} rows; sizes must fall.")
    gates, inputs = GATES[mode], x.shape[-1]
    batch = x.shape[1] if sizes is None else sizes[0]
    width, state = w_ih.shape[0] // gates, w_hh.shape[1]
    wide = gates * width
    expected = {
        "h0": (h0, (batch, state)), "c0": (c0, (batch, width)), "w_ih": (w_ih, (wide, inputs)),
        "w_hh": (w_hh, (wide, state)), "b_ih": (b_ih, (wide,)), "b_hh": (b_hh, (wide,)),
        "w_hr": (w_hr, (state, width)),
    }  # fmt: skip
    for name, (given, shape) in expected.items():
        if given is not None and tuple(given.shape) != shape:
            raise ShapeError(f"rnn_sequence: {name} has shape {tuple(given.shape)}, expected {shape}.")
    if (state != width if w_hr is None else mode != "LSTM") or not width:
        raise ShapeError(f"rnn_sequence: {width} units of {mode} can't have a state of width {state}.")
    keeps = keep and gates > 1
    return (
        Spec((*x.shape[:-1], state), x.dtype),
        Spec((batch, state), x.dtype),
        Spec((batch, width), x.dtype) if mode == "LSTM" else None,
        Spec((_rows(x, sizes), wide), x.dtype) if keeps else None,
        Spec((_rows(x, sizes), width), x.dtype) if keeps else None,
    )


def _rows(x: Any, sizes: Sizes) -> Any:
    return x.shape[0] * x.shape[1] if sizes is None else x.shape[0]


# --- the meaning, step by step


def rows_of(F: Any, x: Any, first: Any, last: Any) -> Any:
    return x if first == 0 and last == x.shape[0] else F.slice(x, key=(slice(first, last),))


class _Carried:
    """What is handed from step to step, for the sequences that take part in each.

    A sequence whose first step comes later joins with its row of ``start``; one that has ended leaves its row behind.
    """

    def __init__(self, F: Any, start: Any):
        self.F = F
        self.start = start
        self.now: Any = None
        self.left: list[Any] = []

    def at(self, n: Any) -> Any:
        """That of the ``n`` sequences of the next step."""
        F = self.F
        if self.now is None:
            self.now = rows_of(F, self.start, 0, n)
        have = self.now.shape[0]
        if n > have:
            self.now = F.cat(self.now, rows_of(F, self.start, have, n), dim=0)
        elif n < have:
            self.left.append(rows_of(F, self.now, n, have))
            self.now = rows_of(F, self.now, 0, n)
        return self.now

    def whole(self) -> Any:
        """That of all sequences, each after its last step."""
        return self.F.cat(self.now, *reversed(self.left), dim=0) if self.left else self.now


class _Walk:
    """The steps in the order they are taken, with the rows of each."""

    def __init__(self, F: Any, x: Any, sizes: Sizes, reverse: bool):
        self.F = F
        self.steps = x.shape[0] if sizes is None else len(sizes)
        self.sizes = sizes
        self.ends = None if sizes is None else list(accumulate(sizes))
        self.batch = x.shape[1] if sizes is None else sizes[0]
        self.order = range(self.steps - 1, -1, -1) if reverse else range(self.steps)

    def size(self, t: int) -> Any:
        return self.batch if self.sizes is None else self.sizes[t]

    def take(self, x: Any, t: int) -> Any:
        """The rows of step t."""
        if self.ends is None or self.sizes is None:
            return self.F.slice(x, key=(t,))
        return rows_of(self.F, x, self.ends[t] - self.sizes[t], self.ends[t])

    def join(self, parts: dict[int, Any]) -> Any:
        """All steps' rows, of (steps, batch, width) or packed."""
        F = self.F
        rows = [parts[t] for t in range(self.steps)]
        if self.sizes is None:
            rows = [F.reshape(F.contiguous(row), shape=(1, *row.shape)) for row in rows]
        return F.cat(*rows, dim=0)


def _flat(F: Any, x: Any) -> Any:
    """All rows of (steps, batch, width) as one matrix."""
    return reshaped(F, x, (x.shape[0] * x.shape[1], x.shape[2])) if x.ndim == 3 else x


def _start(F: Any, given: Any, like: Any, n: Any, width: Any, dtype: Any) -> Any:
    return F.zeros_as(like, shape=(n, width)) if given is None else fitted(F, given, dtype)


class _Forward:
    """The forward pass in smaller ops, in float32 for half precision; ``steps``: what backward reads of each step."""

    def __init__(
        self, F: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, *,
        mode: str, reverse: bool, sizes: Sizes,
    ):  # fmt: skip
        self.F = F
        dtype = statistic_dtype(np_dtype(x))
        self.x, self.w_ih, self.w_hh, b_ih, b_hh, self.w_hr = (
            None if one is None else fitted(F, one, dtype) for one in (x, w_ih, w_hh, b_ih, b_hh, w_hr)
        )
        self.walk = walk = _Walk(F, x, sizes, reverse)
        state, width = w_hh.shape[1], w_ih.shape[0] // GATES[mode]
        gates = F.linear(self.x, self.w_ih, b_ih)
        h = _Carried(F, _start(F, h0, self.x, walk.batch, state, dtype))
        c = _Carried(F, _start(F, c0, self.x, walk.batch, width, dtype)) if mode == "LSTM" else None
        self.steps: dict[int, tuple[Any, ...]] = {}
        outputs: dict[int, Any] = {}
        for t in walk.order:
            before, share = h.at(walk.size(t)), walk.take(gates, t)
            hidden = F.linear(before, self.w_hh, b_hh)
            if c is not None:
                cell, total = c.at(walk.size(t)), F.add(share, hidden)
                wide, c.now = F.lstm_gates(*columns(F, total, 4), cell)
                h.now = wide if w_hr is None else F.linear(wide, self.w_hr, None)
                self.steps[t] = before, total, cell, wide
            elif mode == "GRU":
                h.now = F.gru_gates(*columns(F, share, 3), *columns(F, hidden, 3), before)
                self.steps[t] = before, share, hidden
            else:
                total = F.add(share, hidden)
                h.now = F.tanh(total) if mode == "RNN_TANH" else F.relu(total)
                self.steps[t] = before, h.now
            outputs[t] = h.now
        self.results = walk.join(outputs), h.whole(), None if c is None else c.whole()

    def kept(self, mode: str) -> tuple[Any, Any]:
        """All rows of the activated gates, and of the cells (LSTM) or the new gate's share of the state (GRU)."""
        F = self.F
        gates: dict[int, Any] = {}
        cells: dict[int, Any] = {}
        parts: tuple[Any, ...]
        for t, step in self.steps.items():
            if mode == "LSTM":
                i, f, g, o = columns(F, step[1], 4)
                parts = F.sigmoid(i), F.sigmoid(f), F.tanh(g), F.sigmoid(o)
                cells[t] = F.add(F.mul(parts[1], step[2]), F.mul(parts[0], parts[2]))
            else:
                (r, z, n), (h_r, h_z, cells[t]) = columns(F, step[1], 3), columns(F, step[2], 3)
                reset = F.sigmoid(F.add(r, h_r))
                parts = reset, F.sigmoid(F.add(z, h_z)), F.tanh(F.add(n, F.mul(reset, cells[t])))
            gates[t] = F.cat(*parts, dim=1)
        return _flat(F, self.walk.join(gates)), _flat(F, self.walk.join(cells))


def _define(F: Any, x: Any, *inputs: Any, mode: str, reverse: bool, sizes: Sizes, keep: bool) -> tuple[Any, ...]:
    dtype = np_dtype(x)
    forward = _Forward(F, x, *inputs, mode=mode, reverse=reverse, sizes=sizes)
    results = (None if one is None else fitted(F, one, dtype) for one in forward.results)
    if not keep or GATES[mode] == 1:
        return (*results, None, None)
    gates, cells = forward.kept(mode)
    return (*results, fitted(F, gates, dtype), fitted(F, cells, dtype))


def _rule(
    F: Any, g: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, *,
    needs: tuple[bool, ...], out: Any, gates: Any, cells: Any, mode: str, reverse: bool, sizes: Sizes, keep: bool,
) -> tuple[Any, ...]:  # fmt: skip
    inputs = (*g[:3], x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, out, gates, cells)
    attrs: dict[str, Any] = {"mode": mode, "reverse": reverse, "sizes": sizes, "needs": needs}
    if gates is None and GATES[mode] > 1:  # called with keep=False
        return _backward_define(F, *inputs, **attrs)
    result: tuple[Any, ...] = F.rnn_sequence_backward(*inputs, **attrs)
    return result


def _samples() -> list[Sample]:
    made = []
    for name, mode, changed in (
        ("lstm", "LSTM", {}),
        ("lstm without start", "LSTM", {"start": False}),
        ("lstm reversed", "LSTM", {"reverse": True}),
        ("lstm packed", "LSTM", {"sizes": (3, 2, 2)}),
        ("lstm packed, reversed", "LSTM", {"sizes": (3, 3, 1), "reverse": True}),
        ("lstm with projection", "LSTM", {"state": 2, "sizes": (2, 1)}),
        ("lstm, one step", "LSTM", {"sizes": (2,), "keep": False}),
        ("gru", "GRU", {"reverse": True}),
        ("gru packed", "GRU", {"sizes": (3, 2, 2)}),
        ("gru packed, reversed", "GRU", {"sizes": (3, 1), "reverse": True, "bias": False}),
        ("tanh", "RNN_TANH", {"bias": False, "start": False}),
        ("tanh packed, reversed", "RNN_TANH", {"sizes": (3, 1), "reverse": True}),
        ("relu", "RNN_RELU", {"shift": 20.0}),
        ("empty", "LSTM", {"batch": 0}),
    ):
        made.append(_sample(name, mode, **changed))
    return made


def _sample(
    name: str, mode: str, *, start: bool = True, bias: bool = True, reverse: bool = False, sizes: Sizes = None,
    state: int = 0, keep: bool = True, batch: int = 2, shift: float = 0.0,
) -> Sample:  # fmt: skip
    width, inputs, gates = 3, 2, GATES[mode]
    n = batch if sizes is None else sizes[0]
    x = (3, n, inputs) if sizes is None else (sum(sizes), inputs)
    biases = Arg((gates * width,), shift - 1.0, shift + 1.0)  # relu stays away from its corner
    return Sample(
        (
            Arg(x, layout="T"),
            Arg((n, state or width), -1.0, 1.0) if start else None,
            Arg((n, width)) if start and mode == "LSTM" else None,
            Arg((gates * width, inputs), -1.0, 1.0),
            Arg((gates * width, state or width), -0.5, 0.5, layout="T"),
            biases if bias else None,
            biases if bias else None,
            Arg((state, width), -1.0, 1.0) if state else None,
        ),
        {"mode": mode, "reverse": reverse, "sizes": sizes, "keep": keep},
        name=name,
    )


rnn_sequence = op(
    "rnn_sequence",
    infer=_infer,
    define=_define,
    rule=_rule,
    keeps=("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "out", "gates", "cells"),
    outputs=("out", "h_n", "c_n", "gates", "cells"),
    nondiff=("gates", "cells"),
    samples=_samples,
    doc="""All steps of a recurrent layer in one direction.

    x (steps, batch, inputs), or packed rows (rows, inputs) of which ``sizes[t]``, falling, belong to step t; h0 (batch,
    state), c0 (batch, hidden) of LSTM, None for zeros; w_ih (gates * hidden, inputs), w_hh (gates * hidden, state),
    biases (gates * hidden,) or None; w_hr (state, hidden), LSTM's projection, or None, when state is hidden. ``mode``:
    a key of GATES; ``reverse``: from the last step to the first; ``keep``: whether backward will be asked for. Returns
    out, the final states (c_n of LSTM, else None), and what backward reads besides: of LSTM the activated gates and the
    cells, of GRU the activated gates and the new gate's share of the state, in x's dtype. Half precision computes in
    float32.""",
)


# --- backward


def _backward_infer(
    g_out: Any, g_h: Any, g_c: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    out: Any, gates: Any, cells: Any, *, mode: str, reverse: bool, sizes: Sizes, needs: tuple[bool, ...],
) -> tuple[Spec | None, ...]:  # fmt: skip
    inputs = (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr)
    return tuple(
        Spec(tuple(one.shape), one.dtype) if needed and one is not None else None
        for one, needed in zip(inputs, needs, strict=True)
    )


def _backward_define(
    F: Any, g_out: Any, g_h: Any, g_c: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
    w_hr: Any, out: Any, gates: Any, cells: Any, *, mode: str, reverse: bool, sizes: Sizes, needs: tuple[bool, ...],
) -> tuple[Any, ...]:  # fmt: skip
    """Through the steps that forward took, computed anew: so the gradients are functions of the inputs alone."""
    inputs = (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr)
    forward = _Forward(F, *inputs, mode=mode, reverse=reverse, sizes=sizes)
    walk, dtype = forward.walk, np_dtype(forward.x)
    state, width = w_hh.shape[1], w_ih.shape[0] // GATES[mode]
    dh = _Carried(F, _start(F, g_h, forward.x, walk.batch, state, dtype))
    dc = _Carried(F, _start(F, g_c, forward.x, walk.batch, width, dtype)) if mode == "LSTM" else None
    if g_out is not None:
        g_out = fitted(F, g_out, dtype)
    to_x: dict[int, Any] = {}  # gradients to the gates, by step: to the input's share of them,
    to_h: dict[int, Any] = {}  # to the state's,
    to_r: dict[int, Any] = {}  # and to what is projected
    for t in reversed(walk.order):
        step, g = forward.steps[t], dh.at(walk.size(t))
        if g_out is not None:
            g = F.add(g, walk.take(g_out, t))
        if dc is not None:
            to_r[t] = g
            if w_hr is not None:
                g = F.matmul(g, forward.w_hr)
            *parts, dc.now = gradients_of(F, lstm_gates, (g, dc.at(walk.size(t))), [*columns(F, step[1], 4), step[2]])
            to_x[t] = to_h[t] = F.cat(*parts, dim=1)
        elif mode == "GRU":
            parts = gradients_of(F, gru_gates, (g,), [*columns(F, step[1], 3), *columns(F, step[2], 3), step[0]])
            to_x[t], to_h[t] = F.cat(*parts[:3], dim=1), F.cat(*parts[3:6], dim=1)
        elif mode == "RNN_TANH":
            to_x[t] = to_h[t] = F.mul(g, F.sub(1.0, F.mul(step[1], step[1])))
        else:
            to_x[t] = to_h[t] = F.where(F.gt(step[1], 0.0), g, 0.0)
        dh.now = F.matmul(to_h[t], forward.w_hh)
        if mode == "GRU":
            dh.now = F.add(dh.now, parts[6])
    slopes, fed = walk.join(to_x), _flat(F, walk.join(to_h)) if needs[4] or needs[6] else None
    rows = _flat(F, slopes)
    before = _flat(F, walk.join({t: step[0] for t, step in forward.steps.items()})) if needs[4] else None
    grads = (
        F.matmul(slopes, forward.w_ih) if needs[0] else None,
        dh.whole() if needs[1] else None,
        dc.whole() if needs[2] and dc is not None else None,
        F.matmul(swapped(F, rows), _flat(F, forward.x)) if needs[3] else None,
        F.matmul(swapped(F, fed), before) if needs[4] else None,
        F.sum(rows, dim=(0,), keepdim=False) if needs[5] else None,
        F.sum(fed, dim=(0,), keepdim=False) if needs[6] else None,
        _to_projection(F, walk, to_r, forward.steps) if needs[7] else None,
    )
    return tuple(
        None if grad is None or one is None else fitted(F, grad, np_dtype(one))
        for grad, one in zip(grads, inputs, strict=True)
    )


def _to_projection(F: Any, walk: _Walk, slopes: dict[int, Any], steps: dict[int, tuple[Any, ...]]) -> Any:
    wide = _flat(F, walk.join({t: step[3] for t, step in steps.items()}))
    return F.matmul(swapped(F, _flat(F, walk.join(slopes))), wide)


rnn_sequence_backward = op(
    "rnn_sequence_backward",
    infer=_backward_infer,
    define=_backward_define,
    outputs=("gx", "gh0", "gc0", "gw_ih", "gw_hh", "gb_ih", "gb_hh", "gw_hr"),
    doc="The gradients of ``rnn_sequence``'s inputs that are needed, from those of its first three results.",
)


def sequence(
    mode: str, x: Any, h0: Any, c0: Any, weights: tuple[Any, ...], *, reverse: bool = False, sizes: Sizes = None
) -> tuple[Any, Any, Any]:
    """(out, h_n, c_n) of ``rnn_sequence`` on Tensors; ``weights``: (w_ih, w_hh, b_ih, b_hh, w_hr)."""
    inputs = (x, h0, c0, *weights)
    keep = grad_state.recording and any(one is not None and one._tracked for one in inputs)
    out, h_n, c_n, _, _ = rnn_sequence(*inputs, mode=mode, reverse=reverse, sizes=sizes, keep=keep)
    return out, h_n, c_n
