"""Layers and functions on device ``cuda`` beside PyTorch's: on the same card where there is one, else the stand-in.

Values, gradients and gradients of gradients in float64 against PyTorch; float32 against float64. Without a GPU a part
of the rows runs, on the stand-in, against PyTorch on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import inputs_of
from tensorgrad.testing.strict_backend import strict_cuda
from tests.nn.rows import ROWS, name_of

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

HAS_GPU = registry.class_of("cupy").why_not() is None
THEIR_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Without a GPU these rows show that the tests can run; the same ops are tested on the CPU elsewhere.
EVERY = 1 if HAS_GPU else 9
# named as PyTorch's function, which takes other arguments (``polar`` no negative radius)
OTHERWISE = frozenset((
    "addcdiv", "addcmul", "cat", "count_nonzero", "gather", "index_add", "index_select", "masked_fill", "polar",
    "prelu", "prod", "scatter", "scatter_add", "stack",
))  # fmt: skip


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    with nullcontext() if HAS_GPU else strict_cuda():
        yield


def flat(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [part for item in result for part in flat(item)]
    return [] if result is None else [result]


def host(x: Any) -> Any:
    return None if x is None else x.numpy(force=True)


def weights(ns: Any, y: Any, seed: int, device: str) -> Any:
    values = np.random.default_rng(seed + sum(y.shape)).standard_normal(tuple(y.shape))
    return ns.tensor(values, dtype=y.dtype, device=device)


def real(x: Any) -> Any:
    return x.real if x.is_complex() else x


def three_orders(
    ns: Any, device: str, call: Callable[..., Any], inputs: list[Any], leaves: list[Any], order: int = 2
) -> list[list[Any]]:
    """Results, gradients of a weighted sum of them, gradients of a weighted sum of those, as host arrays."""
    results = [y for y in flat(call(*inputs)) if hasattr(y, "dtype")]
    live = [y for y in results if y.requires_grad]
    found: list[list[Any]] = [[host(y) for y in results], [], []]
    if not live or not leaves or not order:
        return found
    total = sum(real((y * weights(ns, y, i, device)).sum()) for i, y in enumerate(live))
    first = list(ns.autograd.grad(total, leaves, create_graph=order > 1, allow_unused=True))
    found[1] = [host(g) for g in first]
    again = [g for g in first if g is not None and g.requires_grad]
    if again and order > 1:
        total = sum(real((g * weights(ns, g, 9, device)).sum()) for g in again)
        found[2] = [host(g) for g in ns.autograd.grad(total, leaves, allow_unused=True)]
    return found


def assert_same(mine: list[list[Any]], theirs: list[list[Any]], rtol: float) -> None:
    for what, got, want in zip(("result", "gradient", "second gradient"), mine, theirs, strict=False):
        if what != "result" and not want:
            continue  # PyTorch has no derivative of some special functions, and need not compute one that is zero
        if not got and what != "result":
            assert not any(part is not None and np.any(part) for part in want), what
            continue
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            if g is None or w is None:
                some = w if g is None else g
                assert some is None or np.abs(some).max(initial=0) < 1e-12, f"{what} {i} is there on one side only"
                continue
            assert g.shape == w.shape, f"{what} {i}: {g.shape}, expected {w.shape}"
            scale = max(1.0, float(np.abs(w).max(initial=0.0))) if w.dtype.kind in "fc" else 0.0
            np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol * scale, err_msg=f"{what} {i}")


def as_far_as_they_go(run: Callable[[int], Any], order: int) -> tuple[Any, int]:
    """PyTorch's results, and the order of derivatives that it has for this."""
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return run(order), order
        except RuntimeError:
            if order == 0:
                raise
            order -= 1


# --- layers


def layer(row: Any, ns: Any, device: str, dtype: str, state: Any = None) -> Any:
    name, args, options, _ = row
    if args and name == "MSELoss":
        options, args = {"reduction": args[0]}, ()
    made = getattr(ns.nn, name)(*args, **options).to(getattr(ns, dtype))
    if state is not None:
        made.load_state_dict({key: ns.tensor(value) for key, value in state.items()})
    return made.to(device)


def run_layer(row: Any, ns: Any, device: str, dtype: str, state: Any, order: int) -> list[list[Any]]:
    made = layer(row, ns, device, dtype, state)
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape) for shape in row[3]]
    inputs = [ns.tensor(a, dtype=getattr(ns, dtype), device=device, requires_grad=True) for a in arrays]
    found = three_orders(ns, device, made, inputs, [*inputs, *made.parameters()], order)
    found[0] += [host(value) for value in made.state_dict().values()]
    return found


@pytest.mark.parametrize("row", ROWS[::EVERY], ids=name_of)
def test_layer(row: Any) -> None:
    state = {key: value.numpy() for key, value in layer(row, torch, "cpu", "float64").state_dict().items()}
    theirs, order = as_far_as_they_go(lambda order: run_layer(row, torch, THEIR_DEVICE, "float64", state, order), 2)
    mine = run_layer(row, tg, "cuda", "float64", state, order)
    assert_same(mine, theirs, 1e-7)
    narrow = run_layer(row, tg, "cuda", "float32", state, 1)
    assert_same(narrow[: 1 + min(order, 1)], theirs, 2e-4)
    with registry.backend("numpy"):
        assert_same(mine, run_layer(row, tg, "cpu", "float64", state, order), 1e-9)


# --- functions


def counterpart(name: str) -> Any:
    """PyTorch's function of that name."""
    for place in (torch, torch.special, torch.nn.functional):
        if callable(getattr(place, name, None)):
            return getattr(place, name)
    return None


def plain(case: conformance.Case) -> bool:
    """Whether PyTorch's function takes what the op takes: arrays alone, or ``dim`` and ``keepdim`` too."""
    return (
        counterpart(case.op.name) is not None
        and case.op.name not in OTHERWISE
        and set(case.sample.attrs) <= {"dim", "keepdim"}
        and all(isinstance(x, np.ndarray) for x in inputs_of(case.op.name, case.sample, "float64"))
    )


CASES = [case for case in conformance.cases() if plain(case)]


def run_op(case: conformance.Case, ns: Any, device: str, call: Callable[..., Any], dtype: str, order: int) -> Any:
    arrays = inputs_of(case.op.name, case.sample, dtype)
    inputs = [ns.tensor(np.ascontiguousarray(a).reshape(a.shape), device=device) for a in arrays]
    leaves = [x.requires_grad_() for x in inputs if x.is_floating_point() or x.is_complex()] if order else []
    return three_orders(ns, device, lambda *xs: call(*xs, **case.sample.attrs), inputs, leaves, order)


@pytest.mark.parametrize("case", CASES[:: 5 * EVERY if EVERY > 1 else 1], ids=str)
def test_function(case: conformance.Case) -> None:
    order = 2 if case.sample.smooth and getattr(case.op, "differentiable", True) else 0
    theirs, order = as_far_as_they_go(
        lambda order: run_op(case, torch, THEIR_DEVICE, counterpart(case.op.name), "float64", order), order
    )
    mine = run_op(case, tg, "cuda", case.op, "float64", order)
    assert_same(mine, theirs, 1e-5 if "bessel" in case.op.name else 1e-7)  # PyTorch's have seven digits
    mine = run_op(case, tg, "cuda", case.op, "float32", 0)
    theirs = run_op(case, torch, THEIR_DEVICE, counterpart(case.op.name), "float32", 0)
    factor = conformance.LOOSER.get(case.op.name, 1.0)
    assert_same(mine, theirs, 2e-5 * factor)
