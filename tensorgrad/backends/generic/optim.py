"""Optimizer steps over ``xp``, one parameter after the other; half precision is updated in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dtypes import numpy_dtype
from .reduce import wide

Arrays = list[Any]


def _scaled(g: Any, scale: Any) -> Any:
    """The gradient as it is calculated with: wide, and times ``scale``, a 0-d array, if there is one."""
    d = wide(g)
    if scale is None:
        return d
    with np.errstate(invalid="ignore"):  # an infinite norm makes the gradients NaN, as clipping before the step does
        return d * scale.astype(d.real.dtype)


def _real_parts(arrays: Arrays) -> Arrays:
    """Complex arrays as two real views each: their real and imaginary parts are trained as numbers of their own."""
    parts = []
    for x in arrays:
        parts += [x.real, x.imag] if x.dtype.kind == "c" else [x]
    return parts


def _in_turn(step: Any, lists: tuple[Arrays, ...], *, counts: Any, hypers: Any, scales: Any, **how: Any) -> None:
    """One group's step after the other."""
    at = 0
    for count, hyper, scale in zip(counts, hypers, scales, strict=True):
        step(*(one[at : at + count] for one in lists), hyper=hyper, scale=scale, **how)
        at += count


class OptimKernels:
    xp: Any
    raw: Any

    def update_(self, params: Arrays, grads: Arrays, *states: Arrays, hyper: Any, formula: Any) -> None:
        kernel = getattr(self.raw, formula.name)
        numbers = list(map(float, hyper))
        for p, g, *state in zip(*map(_real_parts, (params, grads, *states)), strict=True):
            kernel(p, g, *state, *numbers, out=(p, *state) if state else p)

    def adafactor_(
        self, params: Arrays, grads: Arrays, rows: Arrays, cols: Arrays, *, hyper: Any, clip: float, maximize: bool
    ) -> None:
        xp = self.xp
        rho, rest, eps1, eps2, shrink = map(float, hyper)
        for p, g, row, col in zip(params, grads, rows, cols, strict=True):
            if not p.size:
                continue
            w, d = wide(p), wide(g)
            if maximize:
                d = -d
            rms = xp.sqrt(xp.mean(w * w))
            rate = xp.maximum(rms, xp.asarray(eps2, dtype=rms.dtype)) * rho
            if shrink != 1:
                w = w * shrink
            square = d * d
            if col is None:
                moment = wide(row) + rest * (square - wide(row))
                row[...] = moment
            else:
                r = wide(row) + rest * (xp.mean(square, axis=-1, keepdims=True) - wide(row))
                c = wide(col) + rest * (xp.mean(square, axis=-2, keepdims=True) - wide(col))
                row[...], col[...] = r, c
                scale = xp.mean(r, axis=-2, keepdims=True)
                moment = r * c / xp.maximum(scale, xp.asarray(eps1, dtype=scale.dtype))
            update = d / xp.sqrt(xp.maximum(moment, xp.asarray(eps1 * eps1, dtype=moment.dtype)))
            size = xp.sqrt(xp.mean(update * update)) / clip
            p[...] = w - (rate / xp.maximum(size, xp.asarray(1, dtype=size.dtype))) * update

    def muon_(
        self, params: Arrays, grads: Arrays, bufs: Arrays, *, hyper: Any, nesterov: bool,
        coefficients: tuple[float, ...], steps: int, eps: float,
    ) -> None:  # fmt: skip
        momentum, shrink = float(hyper[0]), float(hyper[1])
        for p, g, buf, rate in zip(params, grads, bufs, map(float, hyper[2:]), strict=True):
            w, d, b = wide(p), wide(g), wide(buf)
            b = b + (1 - momentum) * (d - b)
            buf[...] = b
            direction = d + momentum * (b - d) if nesterov else b
            p[...] = w * shrink - rate * wide(self.orthogonal(direction, coefficients, steps, eps)).astype(w.dtype)

    def orthogonal(self, x: Any, coefficients: tuple[float, ...], steps: int, eps: float) -> Any:
        """The nearest semi-orthogonal matrix, roughly: odd polynomials of the matrix, in bfloat16, that push its
        singular values towards one."""
        xp, F = self.xp, self.raw
        a, b, c = coefficients
        half = numpy_dtype("bfloat16")
        tall = x.shape[0] > x.shape[1]
        y = wide(F.cast(x.T if tall else x, dtype=half))
        norm = wide(xp.sqrt(xp.sum(y * y)).astype(half))
        y = (y / xp.maximum(norm, xp.asarray(eps, dtype=norm.dtype))).astype(half)
        for _ in range(steps):
            gram = F.matmul(y, y.T)
            factor = (b * wide(gram) + c * xp.matmul(wide(gram), wide(gram))).astype(half)
            y = (a * wide(y) + xp.matmul(wide(factor), wide(y))).astype(half)
        return y.T if tall else y

    def sgd_(
        self, params: Arrays, grads: Arrays, bufs: Arrays, *, hyper: Any, nesterov: bool, maximize: bool,
        scale: Any = None,
    ) -> None:  # fmt: skip
        lr, momentum, dampening, decay, first = map(float, hyper)
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            w, d = wide(p), _scaled(g, scale)
            if maximize:
                d = -d
            if decay:
                d = d + decay * w
            if momentum:
                b = d if first else momentum * wide(bufs[i]) + (1 - dampening) * d
                bufs[i][...] = b
                d = d + momentum * b if nesterov else b
            p[...] = w - lr * d

    def grouped_sgd_(self, *lists: Arrays, **how: Any) -> None:
        _in_turn(self.raw.sgd_, lists, **how)

    def grouped_adam_(self, *lists: Arrays, **how: Any) -> None:
        _in_turn(self.raw.adam_, lists, **how)

    def adam_(
        self, params: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, max_exp_avg_sqs: Arrays, *,
        hyper: Any, decoupled: bool, maximize: bool, amsgrad: bool, scale: Any = None,
    ) -> None:  # fmt: skip
        xp = self.xp
        lr, beta1, beta2, eps, decay, step = map(float, hyper)
        rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
        columns = [_real_parts(x) for x in (params, grads, exp_avgs, exp_avg_sqs)]
        tops = _real_parts(max_exp_avg_sqs)
        for i, (p, g, mean, square) in enumerate(zip(*columns, strict=True)):
            w, d = wide(p), _scaled(g, scale)
            if maximize:
                d = -d
            if decay and decoupled:
                w = w * (1 - lr * decay)
            elif decay:
                d = d + decay * w
            m = wide(mean) + (1 - beta1) * (d - wide(mean))
            v = beta2 * wide(square) + (1 - beta2) * (d * d)
            mean[...] = m
            square[...] = v
            if amsgrad:
                v = xp.maximum(wide(tops[i]), v)
                tops[i][...] = v
            p[...] = w - rate * (m / (xp.sqrt(v) / root + eps))

    def _in_a_row(self, numbers: list[Any]) -> Any:
        """Arrays without dimensions as one with one."""
        return self.xp.stack(numbers)

    def multi_norm(self, grads: Arrays, *, p: float) -> Any:
        xp = self.xp
        sizes = [xp.abs(wide(g)).astype(np.float64) for g in grads if g.size]
        if not sizes:
            return xp.zeros((), dtype=np.float64)
        if p == math.inf:
            return xp.asarray(xp.max(self._in_a_row([xp.max(s) for s in sizes])))
        total = xp.sum(self._in_a_row([xp.sum(s * s if p == 2 else s**p) for s in sizes]))
        return xp.asarray(xp.sqrt(total) if p == 2 else total ** (1 / p))

    def multi_scale_(self, grads: Arrays, factor: Any) -> None:
        for g in grads:
            g[...] = _scaled(g, factor)

    def amp_unscale_(self, grads: Arrays, scale: Any) -> Any:
        xp = self.xp
        found = xp.zeros((), dtype=bool)
        with np.errstate(all="ignore"):  # what overflows is found
            factor = 1 / scale.astype(np.float64)
            for g in _real_parts(grads):
                x = wide(g)
                g[...] = x * factor.astype(x.dtype)
                found |= ~xp.isfinite(wide(g)).all()
        return found

    def amp_update_scale_(
        self, scale: Any, found: Arrays, tracker: Any, *, growth_factor: float, backoff_factor: float,
        growth_interval: int,
    ) -> None:  # fmt: skip
        xp = self.xp
        bad = found[0]
        for other in found[1:]:
            bad = bad | other
        with np.errstate(over="ignore"):
            grown, shrunk = (scale * np.float32(factor) for factor in (growth_factor, backoff_factor))
        count = tracker + np.int32(1)
        due = count == growth_interval
        scale[...] = xp.where(bad, shrunk, xp.where(due & xp.isfinite(grown), grown, scale))
        tracker[...] = count * ~(bad | due)
