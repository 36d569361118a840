"""Recurrent layers over whole sequences: the inputs' products of all steps at once, then for each step one product and
one kernel that does the rest of the cell; backward alike, from the last step to the first.

What is handed from step to step lies in one array of all sequences, which the kernels change in place. Of a packed
batch, in which sequences end (or join, in reverse), a step has the first rows of it; the others keep what they have.
Half precision is computed in float32.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from ...dispatch import OPS
from ..generic.matmul import MatmulKernels
from ..generic.reduce import wide
from .kernels import Kernels

__all__ = ["CupyRecurrent"]

_NOTHING = np.uint64(0)  # the null pointer
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_THREAD = 4  # units that a thread takes, at most: as many float32 as 16 bytes hold


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
        """(rows, features), dense and wide."""
        return self.xp.ascontiguousarray(wide(x)).reshape(rows, x.shape[-1])

    def _start_of_steps(self, given: Any, shape: tuple[int, int], dtype: Any) -> Any:
        """An array of its own with these elements, or zeros."""
        return self.xp.zeros(shape, dtype=dtype) if given is None else given.astype(dtype, order="C")

    def _by_definition(self, name: str, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """The op by its definition."""
        define: Any = OPS[name].define
        made: tuple[Any, ...] = define(self.raw, *inputs, **attrs)
        return made

    def _run_cell(self, name: str, rows: int, hidden: int, *arguments: Any) -> None:
        """Launch a kernel over units; None is the null pointer."""
        ready = [_NOTHING if x is None else x for x in arguments]
        self._kernels.launch(name, -(-rows * hidden // _THREAD), rows, hidden, *ready)

    def rnn_sequence(
        self, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, *, mode: str,
        reverse: bool, sizes: tuple[int, ...] | None, keep: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        steps = _Steps(x, sizes, reverse)
        if not steps.rows:
            how = {"mode": mode, "reverse": reverse, "sizes": sizes, "keep": keep}
            return self._by_definition("rnn_sequence", x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr, **how)
        xp, dtype = self.xp, x.dtype
        state, hidden = w_hh.shape[1], w_ih.shape[0] // _GATES[mode]
        flat, back = self._rows_of_steps(x, steps.rows), wide(w_hh).T
        compute = flat.dtype
        gates = self._product(flat, wide(w_ih).T)
        biases = [None if b is None else xp.ascontiguousarray(wide(b)) for b in (b_ih, b_hh)]
        h = self._start_of_steps(h0, (steps.batch, state), compute)
        c = self._start_of_steps(c0, (steps.batch, hidden), compute) if mode == "LSTM" else None
        out = xp.empty((steps.rows, state), dtype=compute)
        cells = xp.empty((steps.rows, hidden), dtype=compute) if keep and _GATES[mode] > 1 else None
        for k, t in enumerate(steps.order):
            n = steps.sizes[t]
            sums = None if k == 0 and h0 is None else self._product(h[:n], back)
            kept = None if cells is None else steps.of(cells, t)
            given, to = (steps.of(gates, t), sums, *biases), steps.of(out, t)
            if mode == "GRU":
                self._run_cell(f"gru_{compute.name}", n, hidden, *given, kept, to, h)
            elif mode != "LSTM":
                self._run_cell(f"plain_{compute.name}", n, hidden, int(mode == "RNN_RELU"), *given, to, h)
            elif w_hr is None:
                self._run_cell(f"lstm_{compute.name}", n, hidden, *given, c, kept, to, h)
            else:
                whole = xp.empty((n, hidden), dtype=compute)
                self._run_cell(f"lstm_{compute.name}", n, hidden, *given, c, kept, whole, None)
                to[...] = self._product(whole, wide(w_hr).T)
                h[:n] = to
        out = out.reshape(*x.shape[:-1], state)
        results = [one if one is None else one.astype(dtype, copy=False) for one in (out, h, c)]
        return (*results, None if cells is None else gates, cells)

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
        self.x, self.w_ih, self.w_hh = wide(x), wide(w_ih), wide(w_hh)
        self.h0, self.c0, self.w_hr = (None if one is None else wide(one) for one in (h0, c0, w_hr))
        self.out = out
        self.gates = gates
        self.cells = cells
        self.compute = out.dtype
        self.state, self.hidden = self.w_hh.shape[1], self.w_ih.shape[0] // _GATES[mode]
        self.width = _GATES[mode] * self.hidden
        rows = steps.rows
        self.to_x = self.xp.empty((rows, self.width), dtype=self.compute)  # slopes of the input's share of the gates
        # and of the state's, where those differ
        self.to_h = self.xp.empty((rows, self.width), dtype=self.compute) if mode == "GRU" else self.to_x
        self.to_r = None if self.w_hr is None else self.xp.empty((rows, self.state), dtype=self.compute)
        starts = self.c0 if mode == "LSTM" else self.h0
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
                to_start[before:n] = fed[before:] + carry[before:n]
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
        steps, cell, name = self.steps, self.kernels._run_cell, self.compute.name
        t, n = steps.order[k], steps.size(k)
        fed_rows, before_rows = (min(n, steps.size(k + 1)), min(n, steps.size(k - 1)))
        to_x, to_h = steps.of(self.to_x, t), steps.of(self.to_h, t)
        if self.mode in ("RNN_TANH", "RNN_RELU"):
            relu = int(self.mode == "RNN_RELU")
            cell(f"plainback_{name}", n, self.hidden, relu, fed_rows, steps.of(self.out, t), seed, fed, carry, to_x)
            return
        carried = self.cells if self.mode == "LSTM" else self.out  # what the cell had before
        before = steps.of(carried, steps.order[k - 1]) if before_rows else None
        given = steps.of(self.gates, t), steps.of(self.cells, t), before, self.starts
        if self.mode == "GRU":
            cell(f"gruback_{name}", n, self.hidden, fed_rows, before_rows, *given, seed, fed, carry, to_x, to_h)
        elif self.to_r is None:
            cell(f"lstmback_{name}", n, self.hidden, fed_rows, before_rows, *given, seed, fed, carry, to_cell, to_x)
        else:
            arrived = steps.of(self.to_r, t)
            arrived[...] = carry[:n]
            carry[:n] = 0
            if fed_rows:
                arrived[:fed_rows] += fed[:fed_rows]
            if seed is not None:
                arrived += seed
            whole = self.kernels._product(arrived, self.w_hr)
            cell(f"lstmback_{name}", n, self.hidden, n, before_rows, *given, None, whole, None, to_cell, to_x)

    def before(self) -> Any:
        """(rows, state): the state that each row was computed from."""
        steps = self.steps
        made = self.xp.empty((steps.rows, self.state), dtype=self.compute)
        start = self.xp.zeros((steps.batch, self.state), dtype=self.compute) if self.h0 is None else self.h0
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
        return self.gates[:, 3 * self.hidden :] * self.xp.tanh(self.cells)
