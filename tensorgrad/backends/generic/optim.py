"""Optimizer steps over ``xp``, one parameter after the other; half precision is updated in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .reduce import wide

Arrays = list[Any]


def _real_parts(arrays: Arrays) -> Arrays:
    """Complex arrays as two real views each: their real and imaginary parts are trained as numbers of their own."""
    parts = []
    for x in arrays:
        parts += [x.real, x.imag] if x.dtype.kind == "c" else [x]
    return parts


class OptimKernels:
    xp: Any

    def sgd_(self, params: Arrays, grads: Arrays, bufs: Arrays, *, hyper: Any, nesterov: bool, maximize: bool) -> None:
        lr, momentum, dampening, decay, first = map(float, hyper)
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            w, d = wide(p), wide(g)
            if maximize:
                d = -d
            if decay:
                d = d + decay * w
            if momentum:
                b = d if first else momentum * wide(bufs[i]) + (1 - dampening) * d
                bufs[i][...] = b
                d = d + momentum * b if nesterov else b
            p[...] = w - lr * d

    def adam_(
        self, params: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, max_exp_avg_sqs: Arrays, *,
        hyper: Any, decoupled: bool, maximize: bool, amsgrad: bool,
    ) -> None:  # fmt: skip
        xp = self.xp
        lr, beta1, beta2, eps, decay, step = map(float, hyper)
        rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
        columns = [_real_parts(x) for x in (params, grads, exp_avgs, exp_avg_sqs)]
        tops = _real_parts(max_exp_avg_sqs)
        for i, (p, g, mean, square) in enumerate(zip(*columns, strict=True)):
            w, d = wide(p), wide(g)
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

    def multi_norm(self, grads: Arrays, *, p: float) -> Any:
        xp = self.xp
        sizes = [xp.abs(wide(g)).astype(np.float64) for g in grads if g.size]
        if not sizes:
            return xp.zeros((), dtype=np.float64)
        if p == math.inf:
            return xp.asarray(xp.max(xp.stack([xp.max(s) for s in sizes])))
        total = xp.sum(xp.stack([xp.sum(s * s if p == 2 else s**p) for s in sizes]))
        return xp.asarray(xp.sqrt(total) if p == 2 else total ** (1 / p))

    def multi_scale_(self, grads: Arrays, factor: Any) -> None:
        for g in grads:
            g[...] = wide(g) * factor.astype(g.real.dtype if g.dtype.itemsize > 2 else np.float32)
