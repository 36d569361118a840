"""What printed kernels compute, on the CPU: the same source through g++, against the NumPy evaluator."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends.cupy import launch
from tensorgrad.backends.cupy.formula import CupyFormula
from tensorgrad.backends.cupy.printer import Layout, kernel, unit
from tensorgrad.backends.numpy.evaluate import evaluate
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.expr import Program, lower, symbol
from tensorgrad.expr import functions as fn
from tensorgrad.expr.node import PRIMITIVES

from .host_compiler import HostLauncher, compile_for_host

RNG = np.random.default_rng(7)
FLOATS = ("f32", "f64")
REAL = (
    "add", "sub", "mul", "div", "fmod", "pow", "min", "max", "atan2", "neg", "abs", "sign", "floor", "ceil", "trunc",
    "round", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sigmoid", "sin", "cos", "tan",
    "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "lgamma",
    "digamma", "hypot", "one_minus_square", "zeta", "igamma", "igammac",
    "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "complex",
)  # fmt: skip
COMPLEX = (
    "add", "sub", "mul", "div", "pow", "neg", "abs", "exp", "log", "log2", "log10", "sqrt", "rsqrt", "sigmoid", "sin",
    "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "conj", "real", "imag",
    "angle", "eq", "ne", "isnan", "isinf", "isfinite",
)  # fmt: skip
INTEGERS = (
    "add", "sub", "mul", "neg", "abs", "fmod", "idiv", "pow", "min", "max", "eq", "ne", "lt", "le", "gt", "ge", "and",
    "or", "xor", "not", "shl", "shr", "sign",
)  # fmt: skip
BOOLS = (
    "and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge",
)  # fmt: skip
DTYPE = {"f32": "float32", "f64": "float64", "i64": "int64", "bool": "bool", "c64": "complex64", "c128": "complex128"}
RESULT = {"eq": "bool", "ne": "bool", "lt": "bool", "le": "bool", "gt": "bool", "ge": "bool", "isnan": "bool",
          "isinf": "bool", "isfinite": "bool"}  # fmt: skip
TO_REAL = {"c64": "f32", "c128": "f64"}


def one_op(op: str, kind: str) -> Program:
    """The program that loads the operands and applies one primitive."""
    count = {"idiv": 2}.get(op) or PRIMITIVES[op]
    result = RESULT.get(op, kind)
    if op in ("abs", "real", "imag", "angle") and kind in TO_REAL:
        result = TO_REAL[kind]
    if op == "complex":
        result = {"f32": "c64", "f64": "c128"}[kind]
    code = [("load", kind, (k,)) for k in range(count)] + [(op, result, tuple(range(count)))]
    return Program(tuple(code), ((count, DTYPE[result]),), (DTYPE[kind],) * count)


def operands(op: str, kind: str, count: int) -> list[np.ndarray[Any, Any]]:
    dtype = numpy_dtype(DTYPE[kind])
    if kind == "bool":
        values = np.array([False, True])
    elif kind == "i64":
        values = np.array([0, 1, -1, 2, 3, -3, 7, 63, 64, 65, -64, 10**9, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1])
        if op in ("shl", "shr"):  # NumPy leaves negative counts undefined
            return [np.repeat(values, 5), np.tile(np.array([0, 1, 5, 63, 64]), values.size)]
        if op == "pow":
            values = values[:12]
    elif kind in FLOATS:
        special = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -2.5, 3.0, 10.0, -100.0, 1e-20, 700.0, -750.0, 1e30]
        special += [-1e30, math.inf, -math.inf, math.nan]
        values = np.array([*special, *RNG.normal(size=40) * 3, *RNG.uniform(-1, 1, 20)])
    else:
        # NumPy's own power has no digits left at 1e10
        parts = np.array([0.0, 0.3, -0.7, 1.0, -1.0, 2.5, -8.0, 1e-10, 2.0 if op == "pow" else 1e10])
        values = (parts[:, None] + 1j * parts).ravel()
        values = np.concatenate([values, RNG.normal(size=40) + 1j * RNG.normal(size=40)])
    values = values.astype(dtype)
    if count == 1:
        return [values]
    return [np.repeat(values, values.size), np.tile(values, values.size)]


def close(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], digits: float) -> np.ndarray[Any, Any]:
    """Elementwise agreement, infinities and NaN included."""
    if got.dtype.kind == "c":
        size = np.abs(want)
        finite = np.isfinite(got) & np.isfinite(want)
        near = np.abs(got - want) <= digits * (size + np.finfo(got.dtype).tiny)
        return np.where(finite, near, ~np.isfinite(got) & ~np.isfinite(want))
    if got.dtype.kind != "f":
        return got == want
    near = np.abs(got - want) <= digits * np.abs(want) + np.finfo(got.dtype).tiny * 4
    return np.where(np.isfinite(want) & np.isfinite(got), near, (got == want) | (np.isnan(got) & np.isnan(want)))


CASES = [(op, kind) for kind in FLOATS for op in REAL]
CASES += [(op, kind) for kind in ("c64", "c128") for op in COMPLEX]
CASES += [(op, "i64") for op in INTEGERS] + [(op, "bool") for op in BOOLS]


@pytest.fixture(scope="module")
def kernels() -> dict[tuple[str, str], Any]:
    """All cases in one unit: compiling is what takes the time."""
    programs = [one_op(op, kind) for op, kind in CASES]
    names = [f"{op}_{kind}" for op, kind in CASES]
    texts = [
        kernel(program, Layout(("dense",) * (len(program.inputs) + 1)), name)
        for program, name in zip(programs, names, strict=True)
    ]
    return dict(zip(CASES, compile_for_host(unit(programs, texts), *names), strict=True))


@pytest.mark.parametrize(("op", "kind"), CASES, ids=lambda x: x)
def test_primitive(op: str, kind: str, kernels: dict[tuple[str, str], Any]) -> None:
    program = one_op(op, kind)
    given = operands(op, kind, len(program.inputs))
    out = np.empty(given[0].shape, numpy_dtype(program.outputs[0][1]))
    kernels[op, kind]((2,), (32,), (np.uint32(out.size), *given, out))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (op, kind) == ("pow", "c64"):  # NumPy computes it in single precision and loses half the digits
            want = evaluate(one_op(op, "c128"), [x.astype(np.complex128) for x in given])[0].astype(np.complex64)
        else:
            want = evaluate(program, given)[0]
        single = kind in ("f32", "c64")
        digits = (3e-6 if kind == "c64" else 1e-6) if single else 2e-13
        good = close(out, want, digits)
    bad = np.flatnonzero(~good)
    assert not bad.size, (
        "; ".join(f"{op}({', '.join(repr(x[i]) for x in given)}) = {out[i]!r}, not {want[i]!r}" for i in bad[:6])
        + f" ({bad.size} of {out.size})"
    )


STORED = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
          "complex128")  # fmt: skip


def test_conversions_between_all_storage_types() -> None:
    pairs = [(a, b) for a in STORED for b in STORED]
    programs = [lower([fn.cast(symbol(0), b)], (a,)) for a, b in pairs]
    names = [f"cast_{a}_{b}" for a, b in pairs]
    texts = [kernel(p, Layout(("dense", "dense")), name) for p, name in zip(programs, names, strict=True)]
    values = np.array([0, 1, -1, 2.5, -2.5, 300, -70000, 1e-3, 3e9, 65504])
    for (a, _), program, run in zip(pairs, programs, compile_for_host(unit(programs, texts), *names), strict=True):
        given = np.array([0, 1, 5, 127, 200, 0, 3, 4, 5, 6]) if a == "uint8" else values
        with np.errstate(all="ignore"):
            x = given.astype(np.int64).astype(numpy_dtype(a)) if "int" in a else given.astype(numpy_dtype(a))
            want = evaluate(program, [x])[0]
        out = np.empty(x.shape, want.dtype)
        run((1,), (32,), (np.uint32(x.size), x, out))
        assert out.tobytes() == want.tobytes(), (program, out, want)


def test_polygamma_and_digamma_far_to_the_left_and_close_to_poles() -> None:
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed: exact values are missing")
    orders = range(1, 6)
    programs = [lower([fn.polygamma(n, symbol(0))], ("float64",)) for n in orders]
    programs.append(lower([fn.digamma(symbol(0))], ("float64",)))
    names = [*(f"polygamma{n}" for n in orders), "digamma"]
    texts = [kernel(p, Layout(("dense", "dense")), name) for p, name in zip(programs, names, strict=True)]
    x = np.array([0.01, 0.3, 0.5, 1.0, 1.4616, 3.7, 12.5, 1e3, 1e8, -0.25, -0.5001, -3.3, -20.75, -1000.4, -1e-9])
    for n, run in zip((*orders, 0), compile_for_host(unit(programs, texts), *names), strict=True):
        out = np.empty_like(x)
        run((1,), (16,), (np.uint32(x.size), x, out))
        with mpmath.workdps(40):
            want = np.array([float(mpmath.polygamma(n, mpmath.mpf(float(v)))) for v in x])
        assert np.all(np.abs(out - want) <= 2e-13 * np.maximum(np.abs(want), 1e-2)), (n, out, want)


# ---- the callable: layouts, numbers, out=


@pytest.fixture
def launcher() -> HostLauncher:
    return HostLauncher()


def formula(launcher: HostLauncher, *results: Any, name: str = "f") -> CupyFormula:
    return CupyFormula(name, lambda keys: lower(results, keys, name=name), launcher)


X, Y = symbol(0), symbol(1)


def draw(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return RNG.normal(size=shape).astype(numpy_dtype(dtype))


@pytest.mark.parametrize(
    ("a", "b", "operands"),
    [
        (draw(5, 7), draw(5, 7), ("dense", "dense", "dense")),
        (draw(5, 7), draw(), ("dense", "single", "dense")),
        (draw(5, 7), draw(1, 1), ("dense", "single", "dense")),
        (draw(5, 7), draw(7), ("dense", "strided", "dense")),
        (draw(5, 1), draw(7), ("strided", "strided", "dense")),
        (draw(7, 5).T, draw(7, 5).T, ("strided", "strided", "dense")),
        (draw(9, 7)[::-2], draw(5, 14)[:, ::2], ("strided", "strided", "dense")),
        (draw(4, 1, 3)[:, 0], draw(3), ("dense", "strided", "dense")),
        (draw(2, 1, 2, 1, 2, 1, 2, 1, 3), draw(1, 2, 1, 2, 1, 2, 1, 2, 1), ("strided", "strided", "dense")),
        (draw(1), draw(1, 1), ("single", "single", "single")),
        (draw(1001)[1:], draw(1000), ("dense", "dense", "dense")),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "x".join(map(str, x.shape)),
)
def test_layouts(a: Any, b: Any, operands: Any, launcher: HostLauncher) -> None:
    f = formula(launcher, X * Y + X)
    got = f(a, b)
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, a * b + a, rtol=1e-6)
    (prepared,) = f.prepared.values()
    (layout,) = prepared.kernels
    assert layout.operands == operands
    aligned = not any(x.ctypes.data % 16 for x in (a, b, got))
    assert (layout.vector > 1) == ("strided" not in operands and got.size > 1 and aligned)


def test_one_kernel_serves_every_shape_and_every_number(launcher: HostLauncher) -> None:
    f = formula(launcher, X * Y)
    for shape in ((4, 6), (40, 60), (3, 5, 7)):
        x = draw(*shape)
        for number in (2.5, -1.0):
            np.testing.assert_allclose(f(x.swapaxes(0, 1), number), x.swapaxes(0, 1) * np.float32(number))
    assert len(launcher.compiled) == 2  # of two axes and of three


def test_walks_are_forgotten_when_they_are_many(launcher: HostLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_MOST_WALKS", 2)
    f = formula(launcher, X * 2)
    for n in (3, 4, 5, 3, 4):
        np.testing.assert_array_equal(f(np.ones(n)), 2)
    [prepared] = f.prepared.values()
    assert len(prepared.walks) <= 2 and len(launcher.compiled) == 1, "kernels stay"


@pytest.mark.parametrize("number", [True, 3, -(2**63), 2**63 - 1, 0.1, 2 + 1j], ids=repr)
@pytest.mark.parametrize("dtype", ["int32", "float64", "complex64"])
def test_python_numbers(number: Any, dtype: str, launcher: HostLauncher) -> None:
    x = np.arange(6).astype(dtype)
    f = formula(launcher, X + Y)
    got = f(x, number)
    program = f.specialize((dtype, "py:" + type(number).__name__))
    want = evaluate(program, [x, number])[0]
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_within_a_formula(dtype: str, launcher: HostLauncher) -> None:
    x = (draw(5) + 1j * draw(5)).astype(dtype)
    got = formula(launcher, X * 2 + (0.1 - 3j))(x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, x * 2 + (0.1 - 3j), rtol=1e-6 if dtype == "complex64" else 1e-15)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
def test_empty_and_0d(shape: tuple[int, ...], launcher: HostLauncher) -> None:
    x = draw(*shape)
    got = formula(launcher, X * 2)(np.asarray(x))
    assert isinstance(got, np.ndarray)
    assert got.shape == shape
    np.testing.assert_array_equal(got, x * 2)


def test_several_results(launcher: HostLauncher) -> None:
    a, b = draw(6, 5), draw(5)
    total, larger = formula(launcher, X + Y, fn.gt(X, Y))(a, b)
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(larger, a > b)
    assert larger.dtype == bool


def test_out_in_place_converted_and_overlapping(launcher: HostLauncher) -> None:
    f = formula(launcher, X + Y)
    x = draw(8, 8)
    want = x + x.T
    out = x.copy()
    assert f(out, out.T, out=out) is out  # the transpose is read where the result is written
    np.testing.assert_array_equal(out, want)
    y = x.copy()
    f(y, 1.0, out=y)
    np.testing.assert_array_equal(y, x + 1)
    wide = np.empty((8, 8), np.float64)
    f(x, 1.0, out=wide)
    np.testing.assert_array_equal(wide, (x + 1).astype(np.float64))
    strided = np.zeros((8, 16), np.float32)
    f(x, x, out=strided[:, ::2])
    np.testing.assert_array_equal(strided[:, ::2], x + x)
    assert not strided[:, 1::2].any()
    shifted = np.arange(10, dtype=np.float32)
    f(shifted[:-1], 1.0, out=shifted[1:])
    np.testing.assert_array_equal(shifted, [0, *range(1, 10)])


def test_what_is_refused(launcher: HostLauncher) -> None:
    f = formula(launcher, X + Y, name="add")
    with pytest.raises(ValueError, match=r"add: shapes \(2,\) and \(3,\)"):
        f(draw(2), draw(3))
    with pytest.raises(ValueError, match=r"out has shape \(4,\), the result \(3,\)"):
        f(draw(3), 1.0, out=draw(4))
    with pytest.raises(ValueError, match="expanded view"):
        f(draw(3), 1.0, out=np.broadcast_to(draw(1), (3,)))
    with pytest.raises(ValueError, match="1 results, out gives room for 2"):
        f(draw(3), 1.0, out=(draw(3), draw(3)))


def test_kernels_follow_a_change_of_the_default_dtype(launcher: HostLauncher) -> None:
    f = formula(launcher, fn.exp(X))
    x = np.arange(3)
    assert f(x).dtype == np.float32
    tg.set_default_dtype(tg.float64)
    try:
        assert f(x).dtype == np.float64
    finally:
        tg.set_default_dtype(tg.float32)
    assert f(x).dtype == np.float32
