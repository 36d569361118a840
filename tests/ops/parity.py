"""Agreement with PyTorch in float64: values, gradients, and gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.autograd import grad

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape)


def between(*shape: int, low: float = 0.1, high: float = 0.9) -> np.ndarray[Any, Any]:
    return rng.uniform(low, high, shape)


def compare(
    mine: Callable[..., Any], theirs: Callable[..., Any], arrays: Sequence[Any], *, wrt: Sequence[int] | None = None,
    second: bool = True, atol: float = 1e-9,
) -> None:  # fmt: skip
    """Raises AssertionError unless both functions agree at ``arrays``, and so do their derivatives.

    Args:
        wrt: which inputs to differentiate; by default all that are floating-point arrays.
        second: also compare the derivative of the squared gradients, in the inputs and in what flows into the outputs.
    """
    torch = pytest.importorskip("torch")
    is_array = [isinstance(a, np.ndarray) for a in arrays]
    if wrt is None:
        wrt = [i for i, a in enumerate(arrays) if is_array[i] and a.dtype.kind == "f"]
    xs = [tg.tensor(a, requires_grad=i in wrt) if is_array[i] else a for i, a in enumerate(arrays)]
    us = [torch.tensor(a, requires_grad=i in wrt) if is_array[i] else a for i, a in enumerate(arrays)]
    ys, vs = _many(mine(*xs)), _many(theirs(*us))
    assert len(ys) == len(vs)
    for y, v in zip(ys, vs, strict=True):
        assert str(y.dtype).rpartition(".")[2] == str(v.dtype).rpartition(".")[2]
        _close(y, v, "value", atol)
    live = [k for k, v in enumerate(vs) if v.requires_grad]
    if not wrt or not live:
        return
    seeds = [normal(*vs[k].shape) for k in live]
    mine_seeds = [tg.tensor(s, dtype=ys[k].dtype, requires_grad=True) for k, s in zip(live, seeds, strict=True)]
    their_seeds = [torch.tensor(s, dtype=vs[k].dtype, requires_grad=True) for k, s in zip(live, seeds, strict=True)]
    total = sum((ys[k] * s).sum() for k, s in zip(live, mine_seeds, strict=True))
    their_total = sum((vs[k] * s).sum() for k, s in zip(live, their_seeds, strict=True))
    inputs, their_inputs = [xs[i] for i in wrt], [us[i] for i in wrt]
    raw = grad(total, inputs, retain_graph=True, allow_unused=True)
    their_grads = torch.autograd.grad(their_total, their_inputs, create_graph=True, allow_unused=True)
    for g, h in zip(raw, their_grads, strict=True):
        _close(g, h, "gradient", atol)
    if not second:
        return
    recorded = grad(total, inputs, create_graph=True, allow_unused=True)
    weights = [normal(*u.shape) for u in their_inputs]
    pairs = [(g, h, w) for g, h, w in zip(recorded, their_grads, weights, strict=True) if h is not None]
    square = sum((g * g * tg.tensor(w)).sum() for g, _, w in pairs)
    their_square = sum((h * h * torch.tensor(w)).sum() for _, h, w in pairs)
    again = grad(square, [*inputs, *mine_seeds], allow_unused=True)
    their_again = torch.autograd.grad(their_square, [*their_inputs, *their_seeds], allow_unused=True)
    for g, h in zip(again, their_again, strict=True):
        _close(g, h, "second gradient", 1e-7)


def _many(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _close(mine: Any, theirs: Any, what: str, atol: float) -> None:
    """None stands for zeros: whether an unused path is recorded is each framework's own affair."""
    if mine is None or theirs is None:
        for side in (mine, theirs):
            assert side is None or not np.any(side.numpy(force=True)), f"{what}: zero on one side only"
        return
    a, b = mine.numpy(force=True), theirs.numpy(force=True)
    assert a.shape == b.shape, f"{what}: shape {a.shape}, PyTorch's {b.shape}"
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=atol, err_msg=what)
