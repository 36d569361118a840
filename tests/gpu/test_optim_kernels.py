"""Optimizer steps on device ``cuda``: compared with the textbook in float64, and the kernels' text with the generic
ones."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy.words import NotedWords, noting
from tensorgrad.backends.generic.optim import OptimKernels
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend

from .host_kernels import StrictHostKernels

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


# --- the kernels' text


class Generic(OptimKernels):
    xp = np

    @property
    def raw(self) -> Any:
        return self


STEPS = ("sgd_plain", "sgd_momentum", "adam_plain", "adam_amsgrad")
SCALES = ("scale", "normparts_squares", "normparts_largest")
COMPILED = (
    "putwords", "countstep", "normtotal_squares", "normtotal_largest",
    *(f"{name}_{dtype}" for name in STEPS for dtype in ("float32", "bfloat16")),
    *(f"{name}_{dtype}" for name in ("sgd_momentum", "adam_amsgrad") for dtype in ("float64", "float16")),
    *(f"{name}_{dtype}" for name in SCALES for dtype in ("float32", "float64", "float16", "bfloat16")),
)  # fmt: skip


def host_kernels(blocks: int) -> StrictHostKernels:
    kernels = StrictHostKernels(*COMPILED)
    kernels.grid = blocks
    return kernels


DIGITS = {"float32": 3e-7, "float64": 1e-15, "float16": 1e-3, "bfloat16": 8e-3}
# nothing, one number, less and more than a pack, several chunks
SHAPES = ((0, 3), (), (3, 5), (2, 4), (2, 2500), (4096 * 2 + 7,))


def arrays(dtype: str, seed: int, positive: bool = False) -> list[Any]:
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(size=shape) for shape in SHAPES]
    if dtype.startswith("complex"):
        drawn = [x + 1j * rng.normal(size=x.shape) for x in drawn]
    return [np.array(abs(x) if positive else x).astype(numpy_dtype(dtype)) for x in drawn]


def placed(backend: StrictCupyBackend, host: list[Any], odd: bool) -> list[Any]:
    """Device arrays; some of them not aligned to 16 bytes, or in columns' order."""
    made = []
    for i, x in enumerate(host):
        if odd and i == 2:
            x = np.asfortranarray(x)
        elif odd and i == 5:
            x = np.concatenate([x[:1], x])[1:]
        made.append(StrictArray(x.copy(order="K") if not odd or i != 5 else x))
    return made


def close(got: list[Any], want: list[Any], dtype: str) -> None:
    for a, b in zip(got, want, strict=True):
        a, b = (x if x.dtype.kind in "fc" and x.dtype.itemsize > 2 else x.astype(np.float64) for x in (a.get(), b))
        np.testing.assert_allclose(a, b, rtol=4 * DIGITS[dtype], atol=4 * DIGITS[dtype])


def steps(name: str, dtype: str, blocks: int, odd: bool, **how: bool) -> tuple[list[Any], list[Any], StrictHostKernels]:
    """(what the kernels make of all lists, what the generic ones do) in two steps of two groups."""
    backend = StrictCupyBackend()
    backend._kernels = host_kernels(blocks)
    lists = [arrays(dtype, 0), arrays(dtype, 1), arrays(dtype, 2), arrays(dtype, 3, positive=True), arrays(dtype, 4)]
    if name == "sgd_":
        momentum = how.pop("momentum")
        lists = lists[: 3 if momentum else 2]
        hypers = [[0.1, 0.9 * momentum, 0.0, 0.01, 0.0], [0.05, 0.5 * momentum, 0.25, 0.0, 1.0]]
    else:
        lists = lists if how["amsgrad"] else lists[:4]
        hypers = [[0.1, 0.9, 0.99, 1e-8, 0.1, 3.0], [0.05, 0.3, 0.95, 1e-6, 0.0, 1.0]]
    lists = [*lists, *[[]] * ((3 if name == "sgd_" else 5) - len(lists))]
    mine = [placed(backend, one, odd and i != 1) for i, one in enumerate(lists)]
    scale = np.array(0.5, np.float32)
    generic = getattr(Generic(), name)
    for _ in range(2):
        getattr(backend, f"grouped_{name}")(
            *mine, counts=(4, 2), hypers=list(map(np.array, hypers)), scales=[None, StrictArray(scale)], **how
        )
        generic(*[one[:4] for one in lists], hyper=hypers[0], **how)
        generic(*[one[4:] for one in lists], hyper=hypers[1], scale=scale, **how)
    return [x for one in mine for x in one], [x for one in lists for x in one], backend._kernels


@pytest.mark.parametrize("maximize", FLAGS)
@pytest.mark.parametrize(("momentum", "nesterov"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_text_of_sgd(dtype: str, momentum: bool, nesterov: bool, maximize: bool) -> None:
    how = {"momentum": momentum, "nesterov": nesterov, "maximize": maximize}
    got, want, kernels = steps("sgd_", dtype, 2, nesterov, **how)
    close(got, want, dtype)
    name = f"sgd_{'momentum' if momentum else 'plain'}_{dtype}"
    assert [kernel for kernel in kernels.launched if kernel != "putwords"] == [name, name]
    if not nesterov:
        assert kernels.launched == ["putwords", "putwords", name, "putwords", name], "a table is written once"
    again, _, _ = steps("sgd_", dtype, 5, nesterov, **how)
    assert all(np.array_equal(a.get(), b.get(), equal_nan=True) for a, b in zip(got, again, strict=True))


@pytest.mark.parametrize(("decoupled", "maximize", "amsgrad"), list(product(FLAGS, repeat=3)))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_text_of_adam(dtype: str, decoupled: bool, maximize: bool, amsgrad: bool) -> None:
    how = {"decoupled": decoupled, "maximize": maximize, "amsgrad": amsgrad}
    got, want, kernels = steps("adam_", dtype, 2, amsgrad, **how)
    close(got, want, dtype)
    assert sum(name.startswith("adam_") for name in kernels.launched) == 2
    again, _, _ = steps("adam_", dtype, 5, amsgrad, **how)
    assert all(np.array_equal(a.get(), b.get()) for a, b in zip(got, again, strict=True))


@pytest.mark.parametrize("dtype", ["float64", "float16", "complex64"])
def test_the_text_in_other_dtypes(dtype: str) -> None:
    plain = {"complex64": "float32"}.get(dtype, dtype)
    close(*steps("sgd_", dtype, 3, False, momentum=True, nesterov=True, maximize=False)[:2], plain)
    close(*steps("adam_", dtype, 3, True, decoupled=False, maximize=True, amsgrad=not dtype.startswith("c"))[:2], plain)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64"])
def test_norms_and_scales(dtype: str) -> None:
    backend, other, plain = StrictCupyBackend(), StrictCupyBackend(), {"complex64": "float32"}.get(dtype, dtype)
    backend._kernels, other._kernels = host_kernels(2), host_kernels(5)
    grads = arrays(dtype, 0)
    for p in (2.0, math.inf) if plain == dtype else (2.0,):
        got = backend.multi_norm(placed(backend, grads, True), p=p)
        np.testing.assert_allclose(got.get(), Generic().multi_norm(grads, p=p), rtol=1e-8)
        assert got.get() == other.multi_norm(placed(backend, grads, False), p=p).get(), "the bits depend on the grid"
        spoilt = placed(backend, grads, False)
        spoilt[4][1, 3] = math.nan
        assert np.isnan(backend.multi_norm(spoilt, p=p).get())
    assert any(name.startswith("normtotal") for name in backend._kernels.launched)
    factor = np.array(3.0, np.float32)
    mine = placed(backend, grads, True)
    backend.multi_scale_(mine, StrictArray(factor))
    found = backend.amp_unscale_(mine, StrictArray(np.array(7.0, np.float32)))
    Generic().multi_scale_(grads, factor)
    assert not Generic().amp_unscale_(grads, np.array(7.0, np.float32)) and not found.get()
    close(mine, grads, plain)
    mine[5][8000:8001] = math.inf
    assert backend.amp_unscale_(mine, StrictArray(np.array(2.0, np.float32))).get()


def test_what_is_not_dense_is_left_to_the_generic_kernels() -> None:
    backend = StrictCupyBackend()
    host = [np.arange(12.0).reshape(3, 4), np.ones((3, 4)), np.ones(5)]
    params = [StrictArray(np.repeat(x, 2, axis=-1))[..., ::2] for x in host]
    params[1] = StrictArray(host[1].copy())
    grads = [StrictArray(np.full(1, 2.0))[np.zeros(x.shape, int) * 0].reshape(x.shape) for x in host]
    backend.sgd_(params, grads, [], hyper=np.array([0.5, 0, 0, 0, 0]), nesterov=False, maximize=False)
    for p, x in zip(params, host, strict=True):
        np.testing.assert_allclose(p.get(), x - 1)
    assert backend.amp_unscale_(params, StrictArray(np.array(0.5))).get() == np.False_
    np.testing.assert_allclose(params[0].get(), 2 * (host[0] - 1))


def test_a_table_is_written_again_where_arrays_have_moved() -> None:
    backend = StrictCupyBackend()
    params = [StrictArray(np.ones(3)) for _ in range(2)]
    for seed in range(3):
        grads = [StrictArray(np.full(3, float(seed))) for _ in params]  # each step's lie elsewhere
        backend.sgd_(params, grads, [], hyper=np.array([1.0, 0, 0, 0, 0]), nesterov=False, maximize=False)
        params = [p.copy() for p in params] if seed == 1 else params
    for p in params:
        np.testing.assert_allclose(p.get(), -2.0)


@pytest.mark.parametrize("name", ["sgd_plain", "sgd_momentum", "adam_plain", "adam_amsgrad"])
@pytest.mark.parametrize("text", [False, True], ids=["reference", "text"])
def test_nothing_is_done_where_a_flag_on_the_device_is_set(name: str, text: bool) -> None:
    backend = StrictCupyBackend()
    if text:
        backend._kernels = host_kernels(2)
    kind, variant = name.split("_")
    count = {"plain": 2, "momentum": 3} if kind == "sgd" else {"plain": 4, "amsgrad": 5}
    host = [arrays("float32", i, positive=i > 2) for i in range(count[variant])]
    lists = [[StrictArray(x.copy()) for x in one] for one in host]
    lists += [[]] * ((3 if kind == "sgd" else 5) - len(lists))
    hyper = np.array([0.1, 0.9 * (variant == "momentum"), 0.0, 0.01, 0.0] if kind == "sgd"
                     else [0.1, 0.9, 0.99, 1e-8, 0.1, 3.0])  # fmt: skip
    how = {"nesterov": False} if kind == "sgd" else {"decoupled": True, "amsgrad": variant == "amsgrad"}
    for stop in (True, False):
        flag = StrictArray(np.array(stop))
        getattr(backend, f"{kind}_")(*lists, hyper=hyper, maximize=False, stop=flag, **how)
        same = [np.array_equal(a.get(), b) for one, was in zip(lists, host, strict=False)
                for a, b in zip(one, was, strict=True) if b.size]  # fmt: skip
        assert all(same) if stop else not any(same[: len(SHAPES) - 1]), "all of it or nothing"


@pytest.mark.parametrize("text", [False, True], ids=["reference", "text"])
@pytest.mark.parametrize("dense", [True, False])
def test_the_device_counts_the_steps_that_it_does_not_leave_out(dense: bool, text: bool) -> None:
    backend, plain = StrictCupyBackend(), StrictCupyBackend()
    if text:
        backend._kernels = host_kernels(2)
    done = StrictArray(np.array(2.0, np.float32))
    taken = 2
    rows = [[StrictArray(abs(x.astype(np.float32))) for x in draws(0, 4)] for _ in range(2)]
    odd = [x if dense else StrictArray(np.repeat(x.get(), 2, axis=-1))[..., ::2] for x in rows[0]]
    for i, stop in enumerate((False, True, False, False, True)):
        taken += not stop
        # the host's count is of no account
        for one, own, step, how in (
            (backend, odd, 100.0, {"stop": StrictArray(np.array(stop)), "done": done}), (plain, rows[1], taken, {})
        ):  # fmt: skip
            if stop and not how:
                continue
            columns = [own[k : k + 2] for k in range(0, 8, 2)]
            hyper = np.array([0.1 / (i + 1), 0.9, 0.99, 1e-8, 0.1, step])
            one.adam_(*columns, [], hyper=hyper, maximize=False, decoupled=True, amsgrad=False, **how)
        assert float(done) == taken
    for a, b in zip(odd, rows[1], strict=True):
        np.testing.assert_allclose(a.get(), b.get(), rtol=3e-7)


def test_what_is_not_dense_is_left_out_by_the_host() -> None:
    backend = StrictCupyBackend()
    p, g = (StrictArray(np.ones((3, 4)))[:, ::2] for _ in range(2))
    for stop in (True, False):
        backend.sgd_([p], [g], [], hyper=np.array([0.5, 0, 0, 0, 0]), nesterov=False, maximize=False,
                     stop=StrictArray(np.array(stop)))  # fmt: skip
        assert (p.get() == (1.0 if stop else 0.5)).all()
    with noting(NotedWords(backend.xp)), pytest.raises(RuntimeError, match="arrays that are not dense"):
        backend.sgd_([p], [g], [], hyper=np.zeros(5), nesterov=False, maximize=False)
