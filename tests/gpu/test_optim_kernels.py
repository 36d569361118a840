"""Optimizer steps on device ``cuda``: compared with the textbook in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from tensorgrad.testing.strict_backend import StrictCupyBackend

FLAGS = (False, True)


def sgd(p: Any, g: Any, b: Any, hyper: list[float], nesterov: bool, maximize: bool) -> tuple[Any, Any]:
    lr, momentum, dampening, decay, first = hyper
    d = (-g if maximize else g) + decay * p
    if not momentum:
        return p - lr * d, b
    b = d if first else momentum * b + (1 - dampening) * d
    return p - lr * (d + momentum * b if nesterov else b), b


def adam(
    p: Any, g: Any, m: Any, v: Any, top: Any, hyper: list[float], decoupled: bool, maximize: bool, amsgrad: bool
) -> Any:
    lr, beta1, beta2, eps, decay, step = hyper
    d = -g if maximize else g
    if decoupled:
        p = p * (1 - lr * decay)
    else:
        d = d + decay * p
    m, v = beta1 * m + (1 - beta1) * d, beta2 * v + (1 - beta2) * d * d
    top = np.maximum(top, v)
    below = np.sqrt((top if amsgrad else v) / (1 - beta2**step)) + eps
    return p - lr * m / (1 - beta1**step) / below, m, v, top


def draws(seed: int, count: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for _ in range(count) for shape in ((3, 4), (5,))]


@pytest.mark.parametrize("maximize", FLAGS)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd(decay: float, momentum: float, nesterov: bool, maximize: bool) -> None:
    backend = StrictCupyBackend()
    want = [[p, np.full_like(p, np.nan)] for p in draws(0, 1)]  # a fresh buffer is not read
    params = [backend.from_host(p) for p, _ in want]
    bufs = [backend.from_host(b) for _, b in want]
    for step in range(3):
        hyper = [0.1 * (step + 1), momentum, 0.25, decay, float(step == 0)]
        grads = draws(step + 1, 1)
        scale = [None, np.array(0.5), np.array(3.0)][step]
        backend.sgd_(params, [backend.from_host(g) for g in grads], bufs if momentum else [], hyper=np.array(hyper),
                     nesterov=nesterov, maximize=maximize,
                     scale=None if scale is None else backend.from_host(scale))  # fmt: skip
        grads = grads if scale is None else [g * scale for g in grads]
        want = [list(sgd(p, g, b, hyper, nesterov, maximize)) for (p, b), g in zip(want, grads, strict=True)]
    for p, b, (exact_p, exact_b) in zip(params, bufs, want, strict=True):
        np.testing.assert_allclose(p.get(), exact_p, rtol=1e-12)
        np.testing.assert_allclose(b.get(), exact_b, rtol=1e-12)


@pytest.mark.parametrize(("decoupled", "maximize", "amsgrad"), list(product(FLAGS, repeat=3)))
@pytest.mark.parametrize("beta1", [0.9, 0.3])
def test_adam(beta1: float, decoupled: bool, maximize: bool, amsgrad: bool) -> None:
    backend = StrictCupyBackend()
    want: list[Any] = [(p, *[np.zeros_like(p)] * 3) for p in draws(0, 1)]
    columns = [[backend.from_host(row[k]) for row in want] for k in range(4)]
    for step in range(1, 5):
        hyper = [0.01 * step, beta1, 0.99, 1e-8, 0.1, float(step)]
        grads = draws(step, 1)
        backend.adam_(columns[0], [backend.from_host(g) for g in grads], columns[1], columns[2],
                      columns[3] if amsgrad else [], hyper=np.array(hyper), decoupled=decoupled, maximize=maximize,
                      amsgrad=amsgrad, scale=backend.from_host(np.array(0.25)) if step > 1 else None)  # fmt: skip
        grads = [g * 0.25 for g in grads] if step > 1 else grads
        want = [
            adam(p, g, *state, hyper, decoupled, maximize, amsgrad) for (p, *state), g in zip(want, grads, strict=True)
        ]
    for k, column in enumerate(columns[: 4 if amsgrad else 3]):
        for got, row in zip(column, want, strict=True):
            np.testing.assert_allclose(got.get(), row[k], rtol=1e-10, atol=1e-14)
