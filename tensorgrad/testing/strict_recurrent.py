"""What the kernels of ``recurrent.cu`` compute, on NumPy arrays; a number in an array's place is the null pointer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["RECURRENT_REFERENCES"]


def _sigmoid(x: Any) -> Any:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _given(x: Any) -> bool:
    return isinstance(x, np.ndarray)


def _wide(x: Any) -> Any:
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _shares(gates: Any, sums: Any, bias_ih: Any, bias_hh: Any) -> tuple[Any, Any]:
    """The input's share of the gates, and the state's."""
    own = _wide(gates)
    back = np.zeros_like(own)
    for one in (sums, bias_hh):
        if _given(one):
            back = back + _wide(one)
    return (own + _wide(bias_ih) if _given(bias_ih) else own.copy()), back


def _lstm(
    rows: int,
    hidden: int,
    gates: Any,
    sums: Any,
    bias_ih: Any,
    bias_hh: Any,
    cell: Any,
    cells: Any,
    out: Any,
    state: Any,
) -> None:
    own, back = _shares(gates, sums, bias_ih, bias_hh)
    i, f, g, o = np.split(own + back, 4, axis=1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    cell[:rows] = f * cell[:rows] + i * g
    out[...] = o * np.tanh(cell[:rows])
    if _given(state):
        state[:rows] = out
    if _given(cells):
        cells[...] = cell[:rows]
        gates[...] = np.concatenate([i, f, g, o], axis=1)


def _gru(
    rows: int, hidden: int, gates: Any, sums: Any, bias_ih: Any, bias_hh: Any, cells: Any, out: Any, h: Any, state: Any
) -> None:
    own, back = _shares(gates, sums, bias_ih, bias_hh)
    (r, z, n), (h_r, h_z, h_n) = np.split(own, 3, axis=1), np.split(back, 3, axis=1)
    r, z = _sigmoid(r + h_r), _sigmoid(z + h_z)
    n = np.tanh(n + r * h_n)
    h[:rows] = out[...] = (1 - z) * n + z * h[:rows]
    if _given(state):
        state[:rows] = out
    if _given(cells):
        cells[...] = h_n
        gates[...] = np.concatenate([r, z, n], axis=1)


def _plain(
    rows: int, hidden: int, relu: int, gates: Any, sums: Any, bias_ih: Any, bias_hh: Any, out: Any, state: Any
) -> None:
    own, back = _shares(gates, sums, bias_ih, bias_hh)
    state[:rows] = out[...] = np.maximum(own + back, 0) if relu else np.tanh(own + back)


def _arriving(rows: int, fed_rows: int, like: Any, seed: Any, fed: Any, carry: Any) -> Any:
    dh = carry[:rows].copy() if _given(carry) else np.zeros_like(_wide(like))
    if fed_rows:
        dh[:fed_rows] += _wide(fed[:fed_rows])
    return dh + _wide(seed) if _given(seed) else dh


def _earlier(rows: int, before_rows: int, like: Any, before: Any, start: Any) -> Any:
    found = _wide(start[:rows]).copy() if _given(start) else np.zeros_like(_wide(like))
    if before_rows:
        found[:before_rows] = before[:before_rows]
    return found


def _lstm_back(
    rows: int, hidden: int, fed_rows: int, before_rows: int, gates: Any, cells: Any, before: Any, start: Any, seed: Any,
    fed: Any, carry: Any, to_cell: Any, slopes: Any,
) -> None:  # fmt: skip
    dh = _arriving(rows, fed_rows, cells, seed, fed, carry)
    i, f, g, o = np.split(_wide(gates), 4, axis=1)
    t = np.tanh(_wide(cells))
    d = to_cell[:rows] + dh * o * (1 - t * t)
    to_cell[:rows] = d * f
    earlier = _earlier(rows, before_rows, cells, before, start)
    parts = d * g * i * (1 - i), d * earlier * f * (1 - f), d * i * (1 - g * g), dh * t * o * (1 - o)
    slopes[...] = np.concatenate(parts, axis=1)
    if _given(carry):
        carry[:rows] = 0


def _gru_back(
    rows: int, hidden: int, fed_rows: int, before_rows: int, gates: Any, cells: Any, before: Any, start: Any, seed: Any,
    fed: Any, carry: Any, to_x: Any, to_h: Any,
) -> None:  # fmt: skip
    dh = _arriving(rows, fed_rows, cells, seed, fed, carry)
    r, z, n = np.split(_wide(gates), 3, axis=1)
    dn = dh * (1 - z) * (1 - n * n)
    dz = dh * (_earlier(rows, before_rows, cells, before, start) - n) * z * (1 - z)
    dr = dn * _wide(cells) * r * (1 - r)
    to_x[...] = np.concatenate([dr, dz, dn], axis=1)
    to_h[...] = np.concatenate([dr, dz, dn * r], axis=1)
    carry[:rows] = dh * z


def _plain_back(
    rows: int, hidden: int, relu: int, fed_rows: int, out: Any, seed: Any, fed: Any, carry: Any, slopes: Any
) -> None:
    dh = _arriving(rows, fed_rows, out, seed, fed, carry)
    h = _wide(out)
    slopes[...] = np.where(h > 0, dh, 0) if relu else dh * (1 - h * h)
    carry[:rows] = 0


_BY_KIND: dict[str, Callable[..., None]] = {
    "lstm": _lstm, "gru": _gru, "plain": _plain, "lstmback": _lstm_back, "gruback": _gru_back, "plainback": _plain_back,
}  # fmt: skip
RECURRENT_REFERENCES = {
    f"{k}_{dtype}": f for k, f in _BY_KIND.items() for dtype in ("float16", "bfloat16", "float32", "float64")
}
