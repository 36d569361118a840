"""Multi-tensor SGD and Adam against the update rules written out in double, Adafactor and Muon against NumPy's; norms
and scaling for clipping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

import tensorgrad as tg
import tensorgrad._C as C
from tensorgrad.backends import registry
from tensorgrad.dtypes import numpy_dtype

SHAPES = [(3, 5), (), (0, 4), (17,), (40, 7, 3), (70_000,), (2, 2)]


def arrays(rng: np.random.Generator, dtype: str, layout: str) -> list[np.ndarray]:
    made = []
    for shape in SHAPES:
        values = rng.standard_normal(shape).astype(dtype)
        if layout == "strided":
            made.append(strided(rng, shape, dtype))
        else:
            made.append(np.asarray(values, order="F" if layout == "fortran" else "C"))
    return made


def sgd(p: Any, g: Any, b: Any, hyper: list[float], nesterov: bool, maximize: bool) -> tuple[Any, Any]:
    lr, momentum, dampening, decay, first = hyper
    g = (-g if maximize else g) + decay * p
    if momentum:
        b = g if first else momentum * b + (1 - dampening) * g
        g = g + momentum * b if nesterov else b
    return p - lr * g, b


def adam(p: Any, g: Any, m: Any, v: Any, top: Any, hyper: list[float], flags: dict[str, bool]) -> tuple[Any, ...]:
    lr, beta1, beta2, eps, decay, step = hyper
    g = -g if flags["maximize"] else g
    if flags["decoupled"]:
        p = p * (1 - lr * decay)
    else:
        g = g + decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    top = np.maximum(top, v)
    scale = np.sqrt(top if flags["amsgrad"] else v) / np.sqrt(1 - beta2**step) + eps
    return p - lr / (1 - beta1**step) * m / scale, m, v, top


@pytest.mark.parametrize("layout", ["plain", "fortran", "strided"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(momentum: float, maximize: bool, dtype: str, layout: str) -> None:
    rng = np.random.default_rng(0)
    params, bufs = arrays(rng, dtype, layout), arrays(rng, dtype, layout)
    expected = [(p.astype(np.float64), b.astype(np.float64)) for p, b in zip(params, bufs, strict=True)]
    for step in range(3):
        hyper = [0.1, momentum, 0.25 if step == 2 else 0.0, 0.01 * step, float(step == 0)]
        grads = arrays(rng, dtype, "plain")
        nesterov = bool(momentum) and step == 1
        C.sgd_(params, grads, bufs if momentum else [], np.array(hyper), nesterov, maximize)
        expected = [sgd(p, g.astype(np.float64), b, hyper, nesterov, maximize)
                    for (p, b), g in zip(expected, grads, strict=True)]  # fmt: skip
    rtol = 1e-5 if dtype == "float32" else 1e-13
    for (p, b), got_p, got_b in zip(expected, params, bufs, strict=True):
        np.testing.assert_allclose(got_p, p, rtol=rtol, atol=rtol)
        if momentum:
            np.testing.assert_allclose(got_b, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("layout", ["plain", "fortran", "strided"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_adam(maximize: bool, decoupled: bool, amsgrad: bool, dtype: str, layout: str) -> None:
    rng = np.random.default_rng(1)
    params = arrays(rng, dtype, layout)
    state = [[np.zeros_like(p) for p in params] for _ in range(3)]
    expected = [(p.astype(np.float64), *(0 * p.astype(np.float64) for _ in range(3))) for p in params]
    flags = {"decoupled": decoupled, "maximize": maximize, "amsgrad": amsgrad}
    for step in range(1, 5):
        hyper = [0.01 * step, 0.9, 0.99, 1e-8, 0.1, float(step)]
        grads = arrays(rng, dtype, "plain")
        C.adam_(params, grads, state[0], state[1], state[2] if amsgrad else [], np.array(hyper), **flags)
        expected = [adam(e[0], g.astype(np.float64), *e[1:], hyper, flags)
                    for e, g in zip(expected, grads, strict=True)]  # fmt: skip
    rtol = 2e-5 if dtype == "float32" else 1e-11
    for e, *got in zip(expected, params, *state, strict=True):
        for exact, array in zip(e[: 4 if amsgrad else 3], got, strict=False):
            np.testing.assert_allclose(array, exact, rtol=rtol, atol=rtol)


def assert_rounded(got: np.ndarray, exact: np.ndarray) -> None:
    """The nearest of 16 bits to what float32 found."""
    unit = 2.0**-11 if got.dtype == np.float16 else 2.0**-8
    smallest = 2.0**-25 if got.dtype == np.float16 else 0.0
    assert (np.abs(got.astype("float64") - exact) <= np.abs(exact) * (unit + 1e-5) + 1e-6 + smallest).all()


@pytest.mark.parametrize("layout", ["plain", "fortran", "strided"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("variant", [False, True])
def test_narrow_floats_are_updated_in_float_and_rounded_once(variant: bool, dtype: str, layout: str) -> None:
    dtype = numpy_dtype(dtype)
    rng = np.random.default_rng(3)
    params, moved = arrays(rng, dtype, layout), arrays(rng, dtype, layout)
    bufs, state = [np.zeros_like(p) for p in moved], [[np.zeros_like(p) for p in params] for _ in range(3)]
    flags = {"decoupled": not variant, "maximize": variant, "amsgrad": variant}
    for step in range(1, 4):
        grads = arrays(rng, dtype, "plain")
        lists = [params, grads, *state, moved, bufs]
        wide = [[x.astype("float64") for x in row] for row in zip(*lists, strict=True)]
        hyper = [0.05 * step, 0.75, 0.875, 1e-8, 0.125, float(step)]
        C.adam_(params, grads, state[0], state[1], state[2] if variant else [], np.array(hyper), **flags)
        rates = [0.1, 0.5 * variant, 0.25, 0.125, float(step == 1)]
        C.sgd_(moved, grads, bufs if variant else [], np.array(rates), variant, variant)
        for row, got in zip(wide, zip(*lists, strict=True), strict=True):
            p, g, m, v, top, q, b = row
            exact = [*adam(p, g, m, v, top, hyper, flags), *sgd(q, g, b, rates, variant, variant)]
            for x, e, used in zip((got[0], *got[2:]), exact, (True, True, True, variant, True, variant), strict=True):
                if used:
                    assert_rounded(x, e)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_floats_are_measured_and_scaled(dtype: str) -> None:
    dtype = numpy_dtype(dtype)
    grads = arrays(np.random.default_rng(4), dtype, "strided")
    flat = np.concatenate([g.ravel() for g in grads]).astype("float64")
    for p in (0.0, 1.0, 2.0, 3.0, np.inf, -np.inf):
        total = same_for_any_threads(lambda p=p: C.multi_norm(grads, p))
        np.testing.assert_allclose(total, np.linalg.norm(flat, p), rtol=1e-6)
    before = [g.astype("float32") for g in grads]
    C.multi_scale_(grads, 0.3)
    for g, b in zip(grads, before, strict=True):
        np.testing.assert_array_equal(g, (b * np.float32(0.3)).astype(dtype))
    assert not C.amp_unscale_(grads, np.asarray(4.0, "float32"))
    for g, b in zip(grads, before, strict=True):
        np.testing.assert_array_equal(g, ((b * np.float32(0.3)).astype(dtype).astype("float32") / 4).astype(dtype))
    for bad in (np.inf, -np.inf, np.nan):
        broken = [np.ones(3000, dtype), np.ones((), dtype)]
        broken[0][2999] = bad
        assert C.amp_unscale_(broken, np.asarray(2.0, "float32"))
        assert broken[1] == 0.5
    with np.errstate(over="ignore"):
        assert C.amp_unscale_([np.full(5, 3e4, dtype)], np.asarray(1e-36, "float32"))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("large", [False, True])
def test_norm_and_scale(large: bool, dtype: str, p: float) -> None:
    rng = np.random.default_rng(2)
    grads = [g for g in arrays(rng, dtype, "strided") if large or g.size < 10_000]
    flat = np.concatenate([g.ravel() for g in grads]).astype(np.float64)
    total = same_for_any_threads(lambda: C.multi_norm(grads, p))
    assert total.dtype == np.float64 and total.shape == ()
    np.testing.assert_allclose(total, np.linalg.norm(flat, p), rtol=1e-12 if p != 2 else 1e-7)
    before = [g.copy() for g in grads]
    C.multi_scale_(grads, np.asarray(0.5))
    C.multi_scale_(grads, 0.5)
    assert all(np.array_equal(g, b * b.dtype.type(0.25)) for g, b in zip(grads, before, strict=True))


def test_norm_of_nothing_and_of_nan() -> None:
    assert C.multi_norm([]) == 0 and C.multi_norm([np.zeros(0)]) == 0
    bad = np.ones(30, "float32")
    bad[7] = np.nan
    assert np.isnan(C.multi_norm([bad])) and np.isnan(C.multi_norm([bad], np.inf))
    assert C.multi_norm([np.full(4, 3e30, "float32")]) == pytest.approx(6e30)


def test_bad_input_changes_nothing() -> None:
    p, g, b = np.ones((2, 3), "float32"), np.ones((2, 3), "float32"), np.zeros((2, 3), "float32")
    hyper = np.array([0.1, 0.9, 0.0, 0.0, 0.0])
    cases: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (ValueError, r"grads\[1\] has shape", ([p, p.copy()], [g, g[:1]], [b, b.copy()], hyper)),
        (TypeError, r"grads\[0\] is float64, expected float32", ([p], [np.ones((2, 3))], [b], hyper)),
        (ValueError, "bufs has 0 arrays, params has 1", ([p], [g], [], hyper)),
        (ValueError, r"share memory", ([p, p], [g, g], [b, b.copy()], hyper)),
        (ValueError, r"params\[0\] and grads\[0\] share memory", ([p], [p], [b], hyper)),
        (ValueError, r"share memory", ([p], [g], [p[::-1]], hyper)),
        (ValueError, "expanded view", ([np.broadcast_to(p[:1, :1], (2, 3))], [g], [b], hyper)),
        (TypeError, "must be floating point, got int64", ([np.ones(3, "int64")], [g], [b], hyper)),
        (TypeError, "list of arrays", (p, [g], [b], hyper)),
        (ValueError, r"hyper has shape \(4,\), expected \(5,\)", ([p], [g], [b], hyper[:4])),
        (TypeError, "hyper is float32, expected float64", ([p], [g], [b], hyper.astype("float32"))),
    ]
    for error, words, arguments in cases:
        if "expanded" in words:
            arguments[0][0].flags.writeable = True
        with pytest.raises(error, match=words):
            C.sgd_(*arguments)
    frozen = p.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"params\[0\] is read-only"):
        C.sgd_([frozen], [g], [b], hyper)
    with pytest.raises(ValueError, match="counts from 1"):
        C.adam_([p], [g], [b], [b.copy()], [], np.array([0.1, 0.9, 0.99, 1e-8, 0.0, 0.0]))
    assert (p == 1).all() and (b == 0).all()


def test_interleaved_views_are_allowed() -> None:
    both, grads, bufs = np.ones((4, 2), "float32"), np.ones((4, 2), "float32"), np.zeros((4, 2), "float32")
    split = [[array[:, 0], array[:, 1]] for array in (both, grads, bufs)]
    C.sgd_(*split, np.array([0.5, 0.9, 0.0, 0.0, 1.0]))
    assert (both == 0.5).all() and (bufs == 1).all()


def test_same_bits_for_any_threads() -> None:
    rng = np.random.default_rng(3)
    start = [rng.standard_normal(n).astype("float32") for n in (50_000, 3, 20_000, 100_001)]
    grads = [rng.standard_normal(p.shape).astype("float32") for p in start]

    def run() -> list[np.ndarray]:
        params = [p.copy() for p in start]
        state = [[np.zeros_like(p) for p in params] for _ in range(2)]
        C.adam_(params, grads, *state, [], np.array([0.1, 0.9, 0.99, 1e-8, 0.0, 1.0]))
        return params + state[0] + state[1]

    same_for_any_threads(run)


FACTORED = [*SHAPES, (7, 1), (1, 9), (4, 0), (5, 4, 3, 3), (2, 600, 70), (3, 5000), (1, 2050), (700, 3), (300, 128)]


def factors(shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    if len(shape) < 2:
        return np.zeros(shape, dtype), None
    return np.zeros((*shape[:-1], 1), dtype), np.zeros((*shape[:-2], 1, shape[-1]), dtype)


def as_double(lists: list[list[Any]]) -> list[list[Any]]:
    return [[x if x is None else x.astype("float64") for x in xs] for xs in lists]


def numpy_adafactor(*lists: list[Any], **how: Any) -> None:
    registry.get("numpy").raw.adafactor_(*lists, **how)


@pytest.mark.parametrize("layout", ["plain", "fortran", "strided"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adafactor(dtype: str, layout: str) -> None:
    rng = np.random.default_rng(4)

    def drawn(shape: tuple[int, ...]) -> np.ndarray:
        if layout == "strided":
            return strided(rng, shape, dtype)
        return np.asarray(rng.standard_normal(shape).astype(dtype), order="F" if layout == "fortran" else "C")

    params = [drawn(shape) for shape in FACTORED]
    rows, cols = map(list, zip(*(factors(shape, dtype) for shape in FACTORED), strict=True))
    exact = as_double([params, rows, cols])
    for step in range(1, 4):
        grads = [np.asarray(drawn(shape) * 0.1**k) for k, shape in enumerate(FACTORED)]  # the last ones under eps
        hyper = np.array([0.1, step**-0.8, 1e-3, 0.5, 0.99])
        how = {"hyper": hyper, "clip": 1.0 + step % 2, "maximize": step == 2}
        before = [g.copy() for g in grads]
        C.adafactor_(params, grads, rows, cols, **how)
        assert all(np.array_equal(g, b) for g, b in zip(grads, before, strict=True))
        numpy_adafactor(exact[0], *as_double([grads]), *exact[1:], **how)
    rtol = 2e-5 if dtype == "float32" else 1e-12
    for got, expected in zip((params, rows, cols), exact, strict=True):
        for x, y in zip(got, expected, strict=True):
            if x is not None:
                np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * np.abs(y).max(initial=0))


@pytest.mark.parametrize("eps", [1e-7, 0.0])
def test_adafactor_of_what_is_not_finite_or_zero(eps: float) -> None:
    shapes = [(20, 3), (20, 3), (20, 3), (3, 20), (3, 20), (20,), (20,), (20,)]
    values = [0.0, np.nan, np.inf, np.nan, 0.0, 0.0, np.nan, 1e30]
    states = []
    for kernel in (C.adafactor_, numpy_adafactor):
        params = [np.ones(shape, "float32") for shape in shapes]
        rows, cols = map(list, zip(*(factors(shape, "float32") for shape in shapes), strict=True))
        grads = [np.full(shape, 0.5, "float32") for shape in shapes]
        for g, value in zip(grads, values, strict=True):
            g[1:2] = value
        grads[4][...] = 0
        with np.errstate(all="ignore"):
            kernel(params, grads, rows, cols, hyper=np.array([0.1, 1.0, eps, 1e-3, 1.0]), clip=1.0, maximize=False)
        states.append([*params, *rows, *(c for c in cols if c is not None)])
    for x, y in zip(*states, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_adafactor_checks_its_factors() -> None:
    def step(**other: Any) -> None:
        given = {"params": [np.ones((2, 3))], "grads": [np.ones((2, 3))], "rows": [np.ones((2, 1))],
                 "cols": [np.ones((1, 3))], "hyper": np.array([0.1, 1.0, 0.0, 1e-3, 1.0]), "clip": 1.0}  # fmt: skip
        C.adafactor_(**{**given, **other})

    step()
    shared = np.ones((2, 3))
    for error, words, other in [
        (ValueError, r"rows\[0\] has shape \(2, 3\), expected \(2, 1\)", {"rows": [np.ones((2, 3))]}),
        (ValueError, r"rows\[0\] has shape \(2, 1\), expected \(2, 3\)", {"cols": [None]}),
        (ValueError, r"cols\[0\] has shape \(3,\), expected \(1, 3\)", {"cols": [np.ones(3)]}),
        (ValueError, "cols has 0 arrays, params has 1", {"cols": []}),
        (ValueError, r"params\[0\] is no matrix", {key: [np.ones(3)] for key in ("params", "grads", "rows")}),
        (TypeError, r"cols\[0\] is float32, expected float64", {"cols": [np.ones((1, 3), "float32")]}),
        (TypeError, "list of arrays", {"cols": np.ones((1, 3))}),
        (ValueError, "share memory", {"params": [shared], "cols": [shared[:1]]}),
        (ValueError, r"hyper has shape \(4,\), expected \(5,\)", {"hyper": np.ones(4)}),
    ]:
        with pytest.raises(error, match=words):
            step(**other)
    assert (shared == 1).all()


def test_adafactor_has_the_same_bits_for_any_threads() -> None:
    rng = np.random.default_rng(5)
    shapes = [(300, 400), (70_000,), (90, 90), (2100, 40), (5000, 2, 3, 3), (3, 40_000), (50,)]
    start, grads = ([rng.standard_normal(shape).astype("float32") for shape in shapes] for _ in range(2))

    def run() -> list[np.ndarray]:
        params = [p.copy() for p in start]
        rows, cols = map(list, zip(*(factors(shape, "float32") for shape in shapes), strict=True))
        C.adafactor_(params, grads, rows, cols, np.array([0.1, 0.5, 1e-7, 1e-3, 0.99]), 1.0)
        return [*params, *rows, *(c for c in cols if c is not None)]

    same_for_any_threads(run)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adafactor_of_halves_is_numpys(dtype: str) -> None:
    def trained(backend: str) -> list[Any]:
        with tg.backend(backend):
            w, b = (tg.tensor(np.linspace(-1, 1, n)).to(getattr(tg, dtype)).requires_grad_() for n in (12, 3))
            parameters = [w.detach().reshape(4, 3).requires_grad_(), b]
            optimizer = tg.optim.Adafactor(parameters)
            for _ in range(2):
                for p in parameters:
                    p.grad = p.detach() * 0.5
                optimizer.step()
            return [p.tolist() for p in parameters]

    assert trained("cpp") == trained("numpy")


MATRICES = [(5, 7), (9, 4), (1, 9), (6, 1), (0, 4), (4, 0), (33, 47), (70, 33), (27, 1100), (130, 101)]
MUON = {"coefficients": (3.4445, -4.7750, 2.0315), "eps": 1e-7}


def numpy_muon(*lists: list[Any], **how: Any) -> None:
    registry.get("numpy").raw.muon_(*lists, **how)


@pytest.mark.parametrize("layout", ["plain", "fortran", "strided"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_muon(dtype: str, layout: str) -> None:
    rng = np.random.default_rng(6)

    def drawn(shape: tuple[int, ...]) -> np.ndarray:
        if layout == "strided":
            return strided(rng, shape, dtype)
        return np.asarray(rng.standard_normal(shape).astype(dtype), order="F" if layout == "fortran" else "C")

    params, grads, bufs = ([drawn(shape) for shape in MATRICES] for _ in range(3))
    expected = [[x.copy() for x in xs] for xs in (params, grads, bufs)]
    for steps, nesterov in ((0, True), (5, False), (3, True)):
        before = [p.copy() for p in params]
        hyper = np.array([0.9, 0.99, *(1 + 0.1 * k for k in range(len(params)))])
        how = {"hyper": hyper, "nesterov": nesterov, "steps": steps, **MUON}
        C.muon_(params, grads, bufs, **how)
        numpy_muon(*expected, **how)
        for got, want, start in zip(params, expected[0], before, strict=True):
            if got.size:
                # sums of another order are rounded to another of neighbouring numbers, here and there
                error, size = np.abs(got - want), np.abs(got - 0.99 * start)
                assert error.max() <= 2e-2 * size.max() and error.mean() <= 5e-3 * size.mean()
                want[...] = got
        for one, other in zip([*grads, *bufs], [*expected[1], *expected[2]], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (130, 90)])
@pytest.mark.parametrize("value", [0.0, 1e-30, np.nan, -np.inf, 1e30])
def test_muon_of_what_is_not_finite_or_small(value: float, shape: tuple[int, int]) -> None:
    seen = []
    for kernel in (C.muon_, numpy_muon):
        params, grads, bufs = ([np.full(shape, start, "float32")] for start in (1, 0, 0))
        grads[0][1, 2] = value
        with np.errstate(all="ignore"):
            kernel(params, grads, bufs, hyper=np.array([0.9, 1.0, 0.1]), nesterov=True, steps=5, **MUON)
        seen.append([*params, *bufs])
    for x, y in zip(*seen, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-3)


def test_muon_has_the_same_bits_for_any_threads() -> None:
    rng = np.random.default_rng(7)
    shapes = [(150, 600), (300, 130), (310, 310), *[(64, 40)] * 9, (3, 7000)]
    start, grads = ([rng.standard_normal(shape).astype("float32") for shape in shapes] for _ in range(2))

    def run() -> list[np.ndarray]:
        params, bufs = [p.copy() for p in start], [np.zeros_like(p) for p in start]
        hyper = np.array([0.9, 1.0, *[0.1] * len(shapes)])
        C.muon_(params, grads, bufs, hyper, True, MUON["coefficients"], 2, MUON["eps"])
        return [*params, *bufs]

    together = same_for_any_threads(run)
    for k in (0, 3):  # alone as among others
        p, buf = start[k].copy(), np.zeros_like(start[k])
        C.muon_([p], [grads[k]], [buf], np.array([0.9, 1.0, 0.1]), True, MUON["coefficients"], 2, MUON["eps"])
        assert p.tobytes() == together[k].tobytes()


def test_muon_checks_its_matrices() -> None:
    def step(**other: Any) -> None:
        given = {key: [np.ones((2, 3))] for key in ("params", "grads", "bufs")}
        given |= {"hyper": np.array([0.9, 1.0, 0.1]), "nesterov": True, "steps": 1, **MUON}
        C.muon_(**{**given, **other})

    step()
    shared = np.ones((2, 3))
    for error, words, other in [
        (ValueError, r"shape \(3,\), expected a matrix", {key: [np.ones(3)] for key in ("params", "grads", "bufs")}),
        (ValueError, r"bufs\[0\] has shape \(3, 2\), expected \(2, 3\)", {"bufs": [np.ones((3, 2))]}),
        (TypeError, r"grads\[0\] is float32, expected float64", {"grads": [np.ones((2, 3), "float32")]}),
        (ValueError, r"hyper has shape \(4,\), expected \(3,\)", {"hyper": np.ones(4)}),
        (ValueError, "coefficients are 2, expected 3", {"coefficients": (1.0, 2.0)}),
        (ValueError, "share memory", {"params": [shared], "bufs": [shared]}),
    ]:
        with pytest.raises(error, match=words):
            step(**other)
    assert (shared == 1).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_muon_of_halves_is_numpys(dtype: str) -> None:
    def trained(backend: str) -> Any:
        with tg.backend(backend):
            w = tg.tensor(np.linspace(-1, 1, 12).reshape(4, 3)).to(getattr(tg, dtype)).requires_grad_()
            optimizer = tg.optim.Muon([w], lr=0.1)
            for _ in range(2):
                w.grad = w.detach() * 0.5
                optimizer.step()
            return w.tolist()

    assert trained("cpp") == trained("numpy")
