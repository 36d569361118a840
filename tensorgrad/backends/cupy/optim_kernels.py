"""Optimizer steps as formulas: one kernel a parameter, everything read and written once.

- SGD: ``d = g + decay p``; ``b = momentum b + (1 - dampening) d``; ``p -= lr (d + momentum b if nesterov else b)``
- Adam: ``m += (1 - beta1) (d - m)``; ``v = beta2 v + (1 - beta2) d^2``;
  ``p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)``

in PyTorch's order of operations (Kingma, Ba 2015; Loshchilov, Hutter 2019; Reddi, Kale, Kumar 2018). Rates are run-time
arguments of the kernels, so a schedule compiles nothing.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import count as count_up
from typing import Any

import numpy as np

from ...expr import Expr, Program, lower, symbol
from ...expr import functions as fn
from .formula import CupyFormula
from .launch import Launcher

__all__ = ["CupyOptimizers", "adam_formula", "sgd_formula"]

_DOUBLE = ("float64", "complex128")


def _direction(p: Expr, g: Expr, decay: Expr, decays: bool, maximize: bool, scale: Expr | None) -> Expr:
    d = g if scale is None else g * scale
    d = -d if maximize else d
    return d + decay * p if decays else d


def sgd_formula(*, momentum: bool, nesterov: bool, decays: bool, maximize: bool, scaled: bool) -> tuple[Expr, ...]:
    """New parameter (and momentum buffer) from p, g, lr, decay (, scale) (, b, momentum, 1 - dampening, first)."""
    given = map(symbol, count_up())
    p, g, lr, decay = (next(given) for _ in range(4))
    d = _direction(p, g, decay, decays, maximize, next(given) if scaled else None)
    if not momentum:
        return (p - lr * d,)
    b, keep, take, first = (next(given) for _ in range(4))
    moved = fn.where(first, d, keep * b + take * d)  # a fresh buffer holds nothing to be read
    return p - lr * (d + keep * moved if nesterov else moved), moved


def adam_formula(
    *, decays: bool, decoupled: bool, maximize: bool, amsgrad: bool, light: bool, scaled: bool
) -> tuple[Expr, ...]:
    """New p, m, v (and largest v) from p, g, m, v, rate, decay, beta1, 1 - beta1, beta2, 1 - beta2, eps, root (, scale)
    (, top).

    ``decay`` is the factor ``1 - lr * decay`` where it is decoupled. ``light``: which end of the interpolation between
    the old mean and the gradient is exact.
    """
    given = map(symbol, count_up())
    p, g, m, v, rate, decay, keep1, take1, keep2, take2, eps, root = (next(given) for _ in range(12))
    if decoupled and decays:
        p = p * decay
    d = _direction(p, g, decay, decays and not decoupled, maximize, next(given) if scaled else None)
    mean = m + take1 * (d - m) if light else d - keep1 * (d - m)
    square = keep2 * v + take2 * (d * d)
    largest = fn.maximum(next(given), square) if amsgrad else square
    step = rate * (mean / (fn.sqrt(largest) / root + eps))
    return (p - step, mean, square, largest) if amsgrad else (p - step, mean, square)


class CupyOptimizers:
    _launcher: Launcher
    _steps: dict[Any, CupyFormula]

    def _step(self, name: str, build: Any, **flags: bool) -> CupyFormula:
        key = (name, *flags.values())
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = CupyFormula(name, partial(_specialize, name, build(**flags)), self._launcher)
        return found

    def _in_a_row(self, numbers: list[Any]) -> Any:
        # stack() of many copies their addresses to the device, which no CUDA graph can hold
        row = self._launcher.xp.empty((len(numbers),), dtype=numbers[0].dtype)
        for i, number in enumerate(numbers):
            row[i] = number
        return row

    def sgd_(
        self, params: list[Any], grads: list[Any], bufs: list[Any], *, hyper: Any, nesterov: bool, maximize: bool,
        scale: Any = None,
    ) -> None:  # fmt: skip
        """``hyper``: lr, momentum, dampening, weight decay, whether the buffers are fresh; ``bufs`` may be empty."""
        lr, momentum, dampening, decay, first = map(float, hyper)
        moves = bool(bufs) and momentum != 0
        step = self._step("sgd_", sgd_formula, momentum=moves, nesterov=nesterov, decays=decay != 0, maximize=maximize,
                          scaled=scale is not None)  # fmt: skip
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            rates = (lr, decay, *_scale_for(g, scale))
            if moves:
                step(p, g, *rates, bufs[i], momentum, 1 - dampening, first != 0, out=(p, bufs[i]))
            else:
                step(p, g, *rates, out=p)

    def adam_(
        self, params: list[Any], grads: list[Any], exp_avgs: list[Any], exp_avg_sqs: list[Any],
        max_exp_avg_sqs: list[Any], *, hyper: Any, decoupled: bool, maximize: bool, amsgrad: bool,
        scale: Any = None,
    ) -> None:  # fmt: skip
        """``hyper``: lr, beta1, beta2, eps, weight decay, step (from 1); ``max_exp_avg_sqs`` may be empty."""
        lr, beta1, beta2, eps, decay, count = map(float, hyper)
        step = self._step("adam_", adam_formula, decays=decay != 0, decoupled=decoupled, maximize=maximize,
                          amsgrad=amsgrad, light=1 - beta1 < 0.5, scaled=scale is not None)  # fmt: skip
        rates = (lr / (1 - beta1**count), 1 - lr * decay if decoupled else decay, beta1, 1 - beta1, beta2, 1 - beta2,
                 eps, math.sqrt(1 - beta2**count))  # fmt: skip
        for i, (p, g, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs, strict=True)):
            given = (*rates, *_scale_for(g, scale))
            if amsgrad:
                top = max_exp_avg_sqs[i]
                step(p, g, m, v, *given, top, out=(p, m, v, top))
            else:
                step(p, g, m, v, *given, out=(p, m, v))


def _scale_for(g: Any, scale: Any) -> tuple[Any, ...]:
    """The factor of a gradient, which stays on the device, in the type that its formula computes in."""
    return () if scale is None else (scale.astype(np.float64 if g.dtype.name in _DOUBLE else np.float32),)


def _specialize(name: str, results: tuple[Expr, ...], keys: tuple[str, ...]) -> Program:
    return lower(results, keys, name=name)
