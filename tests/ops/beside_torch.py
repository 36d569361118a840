"""The same call on tensorgrad and on PyTorch: values, dtypes, first and second derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

torch: Any = pytest.importorskip("torch")


def host(x: Any) -> np.ndarray[Any, Any]:
    return x.numpy(force=True)


def flat(results: Any) -> list[Any]:
    if isinstance(results, (tuple, list)):
        return [part for result in results for part in flat(result)]
    return [results]


def dtype_name(x: Any) -> str:
    return str(x.dtype).rpartition(".")[2]


def run(lib: Any, call: Callable[..., Any], arrays: list[np.ndarray[Any, Any]], order: int) -> Any:
    """(outputs, gradients of a weighted sum of them, gradients of a weighted sum of those)."""
    inputs = [lib.from_numpy(a.copy()) for a in arrays]
    live = [x.requires_grad_() for x in inputs if x.is_floating_point() or x.is_complex()] if order else []
    outputs = flat(call(lib, *inputs))
    results: list[list[Any]] = [outputs, [], []]
    if not order or not live:
        return results
    wanted = [y for y in outputs if hasattr(y, "requires_grad") and y.requires_grad]
    first = list(lib.autograd.grad(wanted, live, [weights(lib, y, 1) for y in wanted], create_graph=order > 1,
                                   allow_unused=True))  # fmt: skip
    results[1] = first
    again = [g for g in first if g is not None and g.requires_grad] if order > 1 else []
    if again:
        results[2] = list(lib.autograd.grad(again, live, [weights(lib, g, 2) for g in again], allow_unused=True))
    return results


def weights(lib: Any, y: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed + sum(y.shape))
    values = rng.standard_normal(tuple(y.shape))
    if dtype_name(y).startswith("complex"):
        values = values + 1j * rng.standard_normal(tuple(y.shape))
    return lib.from_numpy(np.asarray(values).astype(dtype_name(y)))


def same(call: Callable[..., Any], *arrays: Any, order: int = 2, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Raises AssertionError unless both libraries agree in everything."""
    ready = [np.asarray(a) for a in arrays]
    mine = run(tg, call, ready, order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = run(torch, call, ready, order)
    for what, got, want in zip(("output", "gradient", "second derivative"), mine, theirs, strict=True):
        if len(got) != len(want) and not any(host(part).any() for part in (*got, *want) if part is not None):
            continue  # a derivative that is zero need not be computed
        assert len(got) == len(want), f"{len(got)} {what}s, PyTorch has {len(want)}"
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            if g is None or w is None:
                some = w if g is None else g
                assert some is None or not host(some).any(), f"{what} {i}: {g} against {w}"
                continue
            if not hasattr(w, "dtype"):
                assert g == w, f"{what} {i}: {g} against {w}"
                continue
            assert dtype_name(g) == dtype_name(w), f"{what} {i}: {g.dtype}, PyTorch has {w.dtype}"
            assert tuple(g.shape) == tuple(w.shape), f"{what} {i}: {tuple(g.shape)}, PyTorch has {tuple(w.shape)}"
            np.testing.assert_allclose(host(g), host(w), rtol=rtol, atol=atol, err_msg=f"{what} {i}")


def same_error(call: Callable[..., Any], *arrays: Any) -> None:
    """Raises AssertionError unless both refuse, ours with an exception that theirs is caught by."""
    ready = [np.asarray(a) for a in arrays]
    with pytest.raises(Exception) as theirs:  # whatever PyTorch raises is the reference
        call(torch, *[torch.from_numpy(a.copy()) for a in ready])
    with pytest.raises(type(theirs.value)):
        call(tg, *[tg.from_numpy(a.copy()) for a in ready])
