"""Recurrent layers over whole sequences: the inputs' products of all steps at once, then for each step one product and
one kernel that does the rest of the cell; backward alike, from the last step to the first.

What is handed from step to step lies in one array of all sequences, which the kernels change in place. Of a packed
batch, in which sequences end (or join, in reverse), a step has the first rows of it; the others keep what they have.

Half precision is multiplied as it is, with sums in float32 that are rounded; the kernels compute in float32. What goes
from step to step past the products stays in float32 (cells, GRU's own share of its state, and their gradients), so that
it is not rounded at each step; what is kept of them for backward is half precision, which costs the gradients nothing
beyond the rounding of what they are products of.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from ...dispatch import OPS
from ...ops.checks import statistic_dtype
from ..generic.matmul import MatmulKernels
from ..generic.reduce import wide
from .kernels import Kernels
from .names import NAMES

__all__ = ["CupyRecurrent"]

_NOTHING = np.uint64(0)  # the null pointer
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_PACK = 16  # bytes of neighbouring units that a thread takes, where rows are of whole packs


class _Steps:
    """How many rows each step has, where they are, and in which order the steps are taken."""

    def __init__(self, x: Any, sizes: tuple[int, ...] | None, reverse: bool):
        self.sizes = (x.shape[1],) * x.shape[0] if sizes is None else sizes
        self.first = [0, *accumulate(self.sizes)]
        self.order = [t for t in range(len(self.sizes)) if self.sizes[t]]
        if reverse:
            self.order.reverse()
        self.reverse = reverse
        self.rows = self.first[-1]
        self.batch = self.sizes[0]
        self.even = self.sizes[-1] == self.batch

    def of(self, x: Any, t: int) -> Any:
        """The rows of a step."""
        return x[self.first[t] : self.first[t + 1]]

    def size(self, k: int) -> int:
        """How many rows the step at a place of the order has: none before the first and after the last."""
        return self.sizes[self.order[k]] if 0 <= k < len(self.order) else 0


class CupyRecurrent(MatmulKernels):
    raw: Any
    _kernels: Kernels

    def _rows_of_steps(self, x: Any, rows: int) -> Any:
        """(rows, features), dense."""
        return self.xp.ascontiguousarray(x).reshape(rows, x.shape[-1])

    def _start_of_steps(self, given: Any, shape: tuple[int, int], dtype: Any) -> Any:
        """An array of its own with these elements, or zeros."""
        return self.xp.zeros(shape, dtype=dtype) if given is None else given.astype(dtype, order="C")

    def _by_definition(self, name: str, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """The op by its definition."""
        define: Any = OPS[name].define
        made: tuple[Any, ...] = define(self.raw, *inputs, **attrs)
        return made

    def _run_cell(self, kind: str, dtype: Any, rows: int, hidden: int, *arguments: Any) -> None:
        """Launch a kernel over units; None is the null pointer."""
        ready = [_NOTHING if x is None else x for x in arguments]
        units = 1 if hidden * dtype.itemsize % _PACK else _PACK // dtype.itemsize
        self._kernels.launch(f"{kind}_{NAMES[dtype]}", rows * hidden // units, rows, hidden, *ready)

    def rnn_sequence(
        self, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, *, mode: str,
        reverse: bool, sizes: tuple[int, ...] | None, keep: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        steps = _Steps(x, sizes, reverse)
        if not steps.rows:
            how = {"mode": mode, "reverse": reverse, "sizes": sizes, "keep": keep}
            return self._by_definition("rnn_sequence", x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, **how)
        xp, dtype, compute = self.xp, x.dtype, statistic_dtype(x.dtype)
        state, hidden = w_hh.shape[1], w_ih.shape[0] // _GATES[mode]
        back = w_hh.T
        gates = self._product(self._rows_of_steps(x, steps.rows), w_ih.T)
        biases = [None if b is None else xp.ascontiguousarray(b) for b in (b_ih, b_hh)]
        h = self._start_of_steps(h0, (steps.batch, state), dtype)
        c = self._start_of_steps(c0, (steps.batch, hidden), compute) if mode == "LSTM" else None
        apart = mode == "GRU" and compute != dtype  # the state that is carried on is not the one that is multiplied
        carried = h.astype(compute) if apart else h
        out = xp.empty((steps.rows, state), dtype=dtype)
        keeps = keep and _GATES[mode] > 1
        cells = xp.empty((steps.rows, hidden), dtype=dtype) if keeps else None
        for k, t in enumerate(steps.order):
            n = steps.sizes[t]
            sums = None if k == 0 and h0 is None else self._product(h[:n], back)
            kept = None if cells is None else steps.of(cells, t)
            given, to = (steps.of(gates, t), sums, *biases), steps.of(out, t)
            if mode == "GRU":
                self._run_cell("gru", dtype, n, hidden, *given, kept, to, carried, h if apart else None)
            elif mode != "LSTM":
                self._run_cell("plain", dtype, n, hidden, int(mode == "RNN_RELU"), *given, to, h)
            elif w_hr is None:
                self._run_cell("lstm", dtype, n, hidden, *given, c, kept, to, h)
            else:
                whole = xp.empty((n, hidden), dtype=dtype)
                self._run_cell("lstm", dtype, n, hidden, *given, c, kept, whole, None)
                to[...] = self._product(whole, w_hr.T)
                h[:n] = to
        if c is not None:
            c = c.astype(dtype, copy=False)
        return out.reshape(*x.shape[:-1], state), h, c, gates if keeps else None, cells

    def rnn_sequence_backward(
        self, g_out: Any, g_h: Any, g_c: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
        w_hr: Any, out: Any, gates: Any, cells: Any, *, mode: str, reverse: bool, sizes: tuple[int, ...] | None,
        needs: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        steps = _Steps(x, sizes, reverse)
        inputs = (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr)
        if not steps.rows or (gates is None and _GATES[mode] > 1):
            how = {"mode": mode, "reverse": reverse, "sizes": sizes, "needs": needs}
            return self._by_definition("rnn_sequence_backward", g_out, g_h, g_c, *inputs, out, gates, cells, **how)
        walk = _Backward(self, steps, mode, inputs, self._rows_of_steps(out, steps.rows), gates, cells)
        grads = walk.run(g_out, g_h, g_c, needs)
        return tuple(
            None if grad is None or one is None else grad.astype(one.dtype, copy=False).reshape(one.shape)
            for grad, one in zip(grads, inputs, strict=True)
        )


class _Backward:
    """The walk back over the steps. ``inputs``: the op's; ``out``, ``gates``, ``cells``: its results, by rows."""

    def __init__(
        self,
        kernels: CupyRecurrent,
        steps: _Steps,
        mode: str,
        inputs: tuple[Any, ...],
        out: Any,
        gates: Any,
        cells: Any,
    ):
        self.kernels = kernels
        self.xp = kernels.xp
        self.steps = steps
        self.mode = mode
        x, h0, c0, w_ih, w_hh, _, _, w_hr = inputs
        self.x, self.w_ih, self.w_hh, self.w_hr = x, w_ih, w_hh, w_hr
        self.h0 = h0
        self.out = out
        self.gates = gates
        self.cells = cells
        self.dtype = out.dtype
        self.compute = statistic_dtype(out.dtype)
        self.state, self.hidden = self.w_hh.shape[1], self.w_ih.shape[0] // _GATES[mode]
        self.width = _GATES[mode] * self.hidden
        rows = steps.rows
        self.to_x = self.xp.empty((rows, self.width), dtype=self.dtype)  # slopes of the input's share of the gates
        # and of the state's, where those differ
        self.to_h = self.xp.empty((rows, self.width), dtype=self.dtype) if mode == "GRU" else self.to_x
        self.to_r = None if self.w_hr is None else self.xp.empty((rows, self.state), dtype=self.dtype)
        starts = c0 if mode == "LSTM" else h0
        self.starts = None if starts is None else self.xp.ascontiguousarray(starts)

    def run(self, g_out: Any, g_h: Any, g_c: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        kernels, steps, product = self.kernels, self.steps, self.kernels._product
        seeds = None if g_out is None else kernels._rows_of_steps(g_out, steps.rows)
        carry = kernels._start_of_steps(g_h, (steps.batch, self.state), self.compute)
        to_cell = (
            kernels._start_of_steps(g_c, (steps.batch, self.hidden), self.compute) if self.mode == "LSTM" else None
        )
        to_start = self.xp.empty((steps.batch, self.state), dtype=self.compute) if needs[1] else None
        fed = None
        for k in reversed(range(len(steps.order))):
            t, before = steps.order[k], steps.size(k - 1)
            n = steps.sizes[t]
            seed = None if seeds is None else steps.of(seeds, t)
            self.step(k, seed, fed, carry, to_cell)
            if k == 0 and to_start is None:
                break
            fed = product(steps.of(self.to_h, t), self.w_hh)
            if to_start is not None and n > before:  # sequences that start here
                to_start[before:n] = wide(fed[before:]) + carry[before:n]
        return (
            product(self.to_x, self.w_ih) if needs[0] else None,
            to_start,
            to_cell if needs[2] else None,
            product(self.to_x.T, kernels._rows_of_steps(self.x, steps.rows)) if needs[3] else None,
            product(self.to_h.T, self.before()) if needs[4] else None,
            self.sum(self.to_x) if needs[5] else None,
            self.sum(self.to_h) if needs[6] else None,
            product(self.to_r.T, self.unprojected()) if needs[7] and self.to_r is not None else None,
        )

    def step(self, k: int, seed: Any, fed: Any, carry: Any, to_cell: Any) -> None:
        """The slopes at a place of the order, of what arrives: see ``arriving`` of recurrent.cu."""
        steps, t, n = self.steps, self.steps.order[k], self.steps.size(k)
        fed_rows, before_rows = (min(n, steps.size(k + 1)), min(n, steps.size(k - 1)))
        to_x, to_h = steps.of(self.to_x, t), steps.of(self.to_h, t)
        if self.mode in ("RNN_TANH", "RNN_RELU"):
            relu = int(self.mode == "RNN_RELU")
            self.cell("plainback", n, relu, fed_rows, steps.of(self.out, t), seed, fed, carry, to_x)
            return
        carried = self.cells if self.mode == "LSTM" else self.out  # what the cell had before
        before = steps.of(carried, steps.order[k - 1]) if before_rows else None
        given = steps.of(self.gates, t), steps.of(self.cells, t), before, self.starts
        if self.mode == "GRU":
            self.cell("gruback", n, fed_rows, before_rows, *given, seed, fed, carry, to_x, to_h)
        elif self.to_r is None:
            self.cell("lstmback", n, fed_rows, before_rows, *given, seed, fed, carry, to_cell, to_x)
        else:
            arrived = carry[:n].copy()
            carry[:n] = 0
            if fed_rows:
                arrived[:fed_rows] += wide(fed[:fed_rows])
            if seed is not None:
                arrived += wide(seed)
            projected = steps.of(self.to_r, t)
            projected[...] = arrived
            whole = self.kernels._product(projected, self.w_hr)
            self.cell("lstmback", n, n, before_rows, *given, None, whole, None, to_cell, to_x)

    def cell(self, kind: str, rows: int, *arguments: Any) -> None:
        self.kernels._run_cell(kind, self.dtype, rows, self.hidden, *arguments)

    def before(self) -> Any:
        """(rows, state): the state that each row was computed from."""
        steps = self.steps
        made = self.xp.empty((steps.rows, self.state), dtype=self.dtype)
        start = self.xp.zeros((steps.batch, self.state), dtype=self.dtype) if self.h0 is None else self.h0
        if steps.even:  # one step on, the outputs themselves
            n = steps.batch
            if steps.reverse:
                made[:-n], made[-n:] = self.out[n:], start
            else:
                made[n:], made[:n] = self.out[:-n], start
            return made
        for k, t in enumerate(steps.order):
            n, had = steps.sizes[t], min(steps.sizes[t], steps.size(k - 1))
            to = steps.of(made, t)
            if had:
                to[:had] = steps.of(self.out, steps.order[k - 1])[:had]
            if n > had:
                to[had:] = start[had:n]
        return made

    def sum(self, x: Any) -> Any:
        return self.kernels.raw.sum(x, dim=(0,), keepdim=False)

    def unprojected(self) -> Any:
        """(rows, hidden): the states before their projection, which forward did not keep."""
        states = wide(self.gates[:, 3 * self.hidden :]) * self.xp.tanh(wide(self.cells))
        return states.astype(self.dtype, copy=False)
