"""Formulas in C++ against the NumPy evaluator: every operation and type, every layout, any number of threads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, shapes, strided

from tensorgrad.backends.numpy.convert import converted
from tensorgrad.backends.numpy.evaluate import evaluate
from tensorgrad.dtypes import key_of, numpy_dtype
from tensorgrad.expr import Program, lower
from tensorgrad.expr import functions as fn
from tensorgrad.expr.node import symbol

C = pytest.importorskip("tensorgrad._C")

STORED = {"bool": "bool", "i64": "int64", "f32": "float32", "f64": "float64", "c64": "complex64", "c128": "complex128"}
REAL = {"c64": "f32", "c128": "f64"}
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
          "complex128")  # fmt: skip

FLOATS, COMPLEX, INTEGERS = ("f32", "f64"), ("c64", "c128"), ("bool", "i64")
EXACT_UNARY = {
    **dict.fromkeys(("neg", "abs", "sign"), ("i64", *FLOATS)),
    **dict.fromkeys(("floor", "ceil", "trunc", "round", "sqrt", "isnan", "isinf", "isfinite"), FLOATS),
    "not": INTEGERS, "conj": COMPLEX, "real": COMPLEX, "imag": COMPLEX,
}  # fmt: skip
EXACT_BINARY = {
    **dict.fromkeys(("add", "sub", "mul", "min", "max"), ("i64", *FLOATS)),
    **dict.fromkeys(("eq", "ne"), (*INTEGERS, *FLOATS, *COMPLEX)),
    **dict.fromkeys(("lt", "le", "gt", "ge"), (*INTEGERS, *FLOATS)),
    **dict.fromkeys(("and", "or", "xor"), INTEGERS),
    **dict.fromkeys(("shl", "shr", "idiv", "pow"), ("i64",)),
    "div": FLOATS, "fmod": ("i64", *FLOATS), "complex": FLOATS,
}  # fmt: skip
CLOSE_UNARY = {
    **dict.fromkeys(
        ("exp", "log", "log2", "log10", "rsqrt", "sigmoid", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
         "tanh", "asinh", "acosh", "atanh"), (*FLOATS, *COMPLEX),
    ),
    **dict.fromkeys(("exp2", "expm1", "log1p", "erf", "erfc", "erfinv", "lgamma", "digamma"), FLOATS),
    **dict.fromkeys(("softplus", "normal_cdf", "gelu_tanh", "gelu_tanh_slope", "one_minus_square"), FLOATS),
    **dict.fromkeys(("sqrt", "abs", "angle"), COMPLEX),
}  # fmt: skip
CLOSE_BINARY = {
    "atan2": FLOATS, "hypot": FLOATS, "pow": (*FLOATS, *COMPLEX),
    **dict.fromkeys(("add", "sub", "mul", "div"), COMPLEX),
}  # fmt: skip
TRUTHS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite")


def pairs(table: Mapping[str, Sequence[str]]) -> list[Any]:
    return [pytest.param(op, kind, id=f"{op}-{kind}") for op, kinds in table.items() for kind in kinds]


def result_type(op: str, kind: str) -> str:
    if op in TRUTHS:
        return "bool"
    if op in ("abs", "real", "imag", "angle"):
        return REAL.get(kind, kind)
    return {"f32": "c64", "f64": "c128"}[kind] if op == "complex" else kind


def one_operation(op: str, kind: str, operands: int) -> Program:
    """Loads, the operation, its result."""
    stored, made = STORED[kind], result_type(op, kind)
    loads = tuple(("load", kind, (i,)) for i in range(operands))
    return Program((*loads, (op, made, tuple(range(operands)))), ((operands, STORED[made]),), (stored,) * operands)


def native(program: Program) -> Any:
    return C.Formula("test", lambda keys: (program.code, program.outputs))


def values(kind: str, seed: int, n: int = 1300) -> np.ndarray:
    """Ordinary numbers, and every number that is not."""
    rng = np.random.default_rng(seed)
    if kind == "bool":
        return rng.random(n) < 0.5
    if kind == "i64":
        whole = rng.integers(-20, 20, n)
        whole[: n // 2] = rng.choice([0, 1, -1, 2, -2, 63, 64, 2**31, -(2**31), 2**63 - 1, -(2**63), 7, -7], n // 2)
        return rng.permutation(whole)
    dtype = np.dtype(STORED[kind])
    if kind in COMPLEX:
        part = REAL[kind]
        z = np.empty(n, dtype)
        z.real, z.imag = values(part, seed, n), values(part, seed + 100, n)
        mild = np.abs(z) < 50
        return np.where(mild, z, rng.standard_normal(n) + 1j * rng.standard_normal(n)).astype(dtype)
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    edges = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        np.inf,
        -np.inf,
        np.nan,
        tiny,
        -tiny,
        huge,
        -huge,
        1e-20,
        1e5,
        1e7,
        -3e9,
    ]
    drawn = (rng.standard_normal(n) * rng.choice([0.1, 1.0, 30.0], n)).astype(dtype)
    drawn[: n // 3] = rng.choice(edges, n // 3).astype(dtype)
    return rng.permutation(drawn)


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.dtype == numpy_dtype("bfloat16"):  # which NumPy's comparison does not know to have NaN
        got, expected = got.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_array_equal(got, expected)


def close(got: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    eps = np.finfo(got.dtype).eps
    np.testing.assert_allclose(got, expected, rtol=float(8 * eps * scale), atol=float(np.finfo(got.dtype).tiny))


@pytest.mark.parametrize(("op", "kind"), [*pairs(EXACT_UNARY), *pairs(EXACT_BINARY)])
def test_exact_operations(op: str, kind: str) -> None:
    operands = 2 if kind in EXACT_BINARY.get(op, ()) else 1
    program = one_operation(op, kind, operands)
    args = [values(kind, seed) for seed in range(operands)]
    if op == "pow":
        args[1] = np.abs(args[1] % 70) * np.sign(args[0])
    same(native(program)(*args), evaluate(program, args)[0])


@pytest.mark.parametrize(("op", "kind"), [*pairs(CLOSE_UNARY), *pairs(CLOSE_BINARY)])
def test_rounded_operations(op: str, kind: str) -> None:
    operands = 2 if kind in CLOSE_BINARY.get(op, ()) else 1
    program = one_operation(op, kind, operands)
    args = [values(kind, seed) for seed in range(operands)]
    if kind in COMPLEX:
        args = [np.where(np.isfinite(a) & (np.abs(a) > 1e-3), a, 1 + 2j).astype(a.dtype) for a in args]
        got, expected = native(program)(*args), evaluate(program, args)[0]
        assert got.dtype == expected.dtype
        wide = [a.astype(np.complex128) for a in args]
        finite = np.isfinite(evaluate(one_operation(op, "c128", operands), wide)[0])
        eps = np.finfo(got.dtype).eps
        # a complex result is good to its size, not to the size of its smaller part; powers lose what their logs grow
        usual = finite & np.isfinite(expected)
        error, size = np.abs(got[usual] - expected[usual]), np.abs(expected[usual])
        assert (error <= 400 * eps * size + np.finfo(got.dtype).tiny).all()
        return
    got, expected = native(program)(*args), evaluate(program, args)[0]
    # digamma and lgamma near their zeros, and digamma near its poles, are good to the size of their terms
    loose = 1e4 if op in ("digamma", "lgamma") and kind == "f64" else 1.0
    # doubles lose the digits of exp's argument, and the slope loses some near its zero
    if op == "gelu_tanh_slope" or (op, kind) == ("gelu_tanh", "f64"):
        loose = 100.0
    close(got, expected, loose)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("order", [1, 2, 5])
def test_polygamma(kind: str, order: int) -> None:
    code = (("const", kind, (float(order),)), ("load", kind, (0,)), ("polygamma", kind, (0, 1)))
    program = Program(code, ((2, STORED[kind]),), (STORED[kind],))
    x = np.array([0.1, 0.5, 1, 2.5, 30, 1e4, -0.5, -3.25, -20000.25, np.inf, np.nan, 0.0, -2.0], STORED[kind])
    close(native(program)(x), evaluate(program, [x])[0], 100)


@pytest.mark.parametrize("order", [171, 2**31, 3e9, 1e30])
def test_polygamma_of_orders_beyond_all_factorials(order: float) -> None:
    code = (("const", "f64", (float(order),)), ("load", "f64", (0,)), ("polygamma", "f64", (0, 1)))
    got = native(Program(code, ((2, "float64"),), ("float64",)))(np.array([0.5]))
    np.testing.assert_array_equal(got, [np.inf if order % 2 else -np.inf])


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("op", ["igamma", "igammac", "zeta"])
def test_incomplete_gamma_functions_and_zeta(op: str, kind: str) -> None:
    firsts = [0.0, 1e-6, 0.3, 1.0, 1.5, 3.0, 40.0, 200.0, 1e5, -1.0, math.inf, math.nan]
    seconds = [
        0.0,
        1e-7,
        0.2,
        0.5,
        1.0,
        1.2,
        3.0,
        41.0,
        190.0,
        99_000.0,
        -0.5,
        -1.5,
        -2000.25,
        -3.0,
        math.inf,
        math.nan,
    ]
    a, x = (each.ravel().astype(STORED[kind]) for each in np.meshgrid(firsts, seconds))
    program = one_operation(op, kind, 2)
    got = native(program)(a, x)
    close(got, evaluate(program, [a, x])[0], 500 if kind == "f64" else 1)
    same(native(program)(a[5:6], x[5:6]), got[5:6])


@pytest.mark.parametrize("op", ["lgamma", "digamma", "polygamma"])
def test_gamma_functions_do_not_see_their_neighbours(op: str) -> None:
    first = (("const", "f32", (3.0,)),) if op == "polygamma" else ()
    code = (*first, ("load", "f32", (0,)), (op, "f32", tuple(range(1 + len(first)))))
    call = native(Program(code, ((1 + len(first), "float32"),), ("float32",)))
    x = np.concatenate([np.linspace(-12, 12, 777), [-0.0, 0.0, np.inf, -np.inf, np.nan, 1e-45]]).astype(np.float32)
    whole = call(x)
    for some in (x >= 0, slice(5, None), slice(None, None, -1), slice(771, 772)):
        same(call(x[some]), whole[some])


@pytest.mark.parametrize("kind", STORED)
def test_where(kind: str) -> None:
    code = (("load", "bool", (0,)), ("load", kind, (1,)), ("load", kind, (2,)), ("where", kind, (0, 1, 2)))
    program = Program(code, ((3, STORED[kind]),), ("bool", STORED[kind], STORED[kind]))
    args = [values("bool", 0), values(kind, 1), values(kind, 2)]
    same(native(program)(*args), evaluate(program, args)[0])
    for mask in itertools.product((False, True), repeat=3):  # each operand as a number for the whole block
        some = [a.ravel()[0].reshape(()) if one else a for a, one in zip(args, mask, strict=True)]
        expected = np.broadcast_to(evaluate(program, some)[0], np.broadcast_shapes(*(a.shape for a in some)))
        same(native(program)(*some), expected)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "min", "max", "lt", "ge", "pow", "atan2"])
def test_one_operand_is_a_number(op: str) -> None:
    program = one_operation(op, "f32", 2)
    x = values("f32", 1)
    for args in ([x, np.float32(1.25).reshape(())], [np.float32(1.25).reshape(()), x]):
        close(native(program)(*args).astype(float), evaluate(program, args)[0].astype(float), 2e9)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_conversions(stored: str, target: str) -> None:
    program = lower([fn.cast(symbol(0), target)], (stored,))
    rng = np.random.default_rng(0)
    x = np.asarray(rng.standard_normal((9, 117)) * 100)
    x[0, :4] = (np.nan, np.inf, -np.inf, 1e30) if stored[0] in "fbc" and stored != "bool" else (0, 1, -1, 300)
    with np.errstate(all="ignore"):
        x = x.astype(numpy_dtype(stored))
        same(native(program)(x), evaluate(program, [x])[0])
        same(native(program)(x[::2, ::-3]), evaluate(program, [x[::2, ::-3]])[0])


@pytest.mark.parametrize("value", [True, 3, 2**70 + 5, -7, 2.5, -0.0, math.inf, 1 + 2j])
@pytest.mark.parametrize("kind", STORED)
def test_python_numbers(value: Any, kind: str) -> None:
    if kind == "i64" and (value == math.inf or isinstance(value, complex)):
        pytest.skip("has no integer")
    program = Program((("load", kind, (0,)),), ((0, STORED[kind]),), ("py",))
    if kind == "i64" and value == 2**70 + 5:
        for run in (native(program), lambda number: evaluate(program, [number])):
            with pytest.raises(OverflowError, match="does not fit int64"):
                run(value)
        return
    expected = evaluate(program, [value])[0]
    got = native(program)(value)
    assert got.shape == ()
    same(got, expected)
    assert np.array_equal(np.signbit(got.real), np.signbit(expected.real))


CHAIN: dict[str, tuple[int, Callable[..., Any]]] = {
    "add": (2, lambda a, b: a + b),
    "affine": (3, lambda a, b, c: a * b + c * 0.5 - a),
    "gelu": (2, lambda x, g: g * (0.5 * (1 + fn.tanh(0.8 * (x + 0.045 * x * x * x))))),
    "clamp": (3, lambda x, a, b: fn.where(x > a, fn.minimum(x, b), a)),
    "mixed": (3, lambda a, b, c: (fn.where(a > 0, b, 1) * c, fn.isnan(a), a + 1)),
}  # fmt: skip


def formula(name: str) -> tuple[Any, Callable[[Sequence[Any]], tuple[Any, ...]]]:
    count, function = CHAIN[name]
    outputs = function(*(symbol(i) for i in range(count)))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)

    def specialize(keys: tuple[str, ...]) -> Any:
        program = lower(outputs, keys)
        return program.code, program.outputs

    return C.Formula(name, specialize), lambda args: evaluate(lower(outputs, tuple(map(key_of, args))), args)


def agree(got: Any, expected: tuple[Any, ...]) -> None:
    for one, other in zip(got if isinstance(got, tuple) else (got,), expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype.kind in "biu":
            np.testing.assert_array_equal(one, other)
        else:
            eps = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-14}.get(one.dtype.name, 4e-6)
            np.testing.assert_allclose(one.astype(complex), other.astype(complex), rtol=eps, atol=eps)


@pytest.mark.parametrize("name", CHAIN)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int32", "uint8"])
def test_layouts_and_broadcasting(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    call, reference = formula(name)
    for shape in shapes(rng, 25):
        args: list[Any] = []
        for _ in range(CHAIN[name][0]):
            smaller = [1 if rng.random() < 0.3 else size for size in shape]
            smaller = smaller[int(rng.integers(0, len(shape) + 1)) :] if rng.random() < 0.3 else smaller
            args.append(strided(rng, smaller, str(numpy_dtype(dtype)), 3.0) if dtype != "bfloat16"
                        else strided(rng, smaller, "float32").astype(numpy_dtype(dtype)))  # fmt: skip
            if rng.random() < 0.1:
                args[-1] = 2
        if all(isinstance(a, int) for a in args):
            continue
        before = [np.array(a) for a in args]
        agree(call(*args), reference(args))
        for a, b in zip(args, before, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
@pytest.mark.parametrize("inner", [1, 2, 3, 5, 8, 13, 16, 40, 63, 130])
@pytest.mark.parametrize("outer", [(1, 3), (4, 1), (7, 30), (2, 200)])
def test_short_rows_that_come_again(outer: tuple[int, int], inner: int, dtype: str) -> None:
    """Operands repeated along the first, the middle and the last axis, and a matrix cut out of a wider one."""
    rng, (n, m) = np.random.default_rng(1), outer
    call, reference = formula("affine")
    whole = (3 * rng.standard_normal((n, m, inner + 3))).astype(dtype)
    repeated = [
        whole[:1, :, :inner].copy(),
        whole[:, :1, :inner].copy(),
        whole[:, :, :1].copy(),
        whole[:1, :, :1].copy(),
    ]
    for args in itertools.permutations([*repeated, whole[:, :, :inner]], 3):
        agree(call(*args), reference(args))
    matrix = whole[0, :, :inner].copy()  # one run that comes n times
    full = whole[:, :, :inner].copy()
    agree(call(matrix, full, matrix), reference((matrix, full, matrix)))
    spread = whole.reshape(-1)[: 3 * inner : 3]  # a row with gaps, again and again beside a matrix that is, and a row
    agree(call(spread, full, matrix), reference((spread, full, matrix)))
    agree(call(full, spread, matrix[:1]), reference((full, spread, matrix[:1])))


@pytest.mark.parametrize(
    ("layouts", "order"),
    [
        (((0, 1, 2), (0, 1, 2)), (0, 1, 2)),
        (((2, 0, 1), (2, 0, 1)), (2, 0, 1)),
        (((1, 0, 2), (0, 1, 2)), (1, 0, 2)),  # the first operand decides
        (((0, 1, 2), (1, 0, 2)), (0, 1, 2)),
        (((2,), (1, 2, 0)), (1, 2, 0)),  # where it can: a row tells no axes apart
    ],
)
def test_results_lie_as_their_operands(layouts: tuple[tuple[int, ...], ...], order: tuple[int, ...]) -> None:
    sizes, rng = (3, 4, 5), np.random.default_rng(0)

    def lying(order: tuple[int, ...]) -> np.ndarray:  # the axes from the outermost to the innermost in memory
        array = rng.standard_normal([sizes[axis] for axis in order]).astype("float32")
        return array.transpose(np.argsort(order)) if len(order) == len(sizes) else array

    a, b = (lying(layout) for layout in layouts)
    x, y = symbol(0), symbol(1)

    def specialize(keys: tuple[str, ...]) -> Any:
        program = lower((x * y, x > y), keys)
        return program.code, program.outputs

    for got, expected in zip(C.Formula("two", specialize)(a, b), (a * b, a > b), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert tuple(np.argsort([-step for step in got.strides])) == order
        assert got.transpose(order).flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_choices_and_bounds_in_one_loop(dtype: str) -> None:
    x, y, z = (symbol(i) for i in range(3))
    special = np.array([-np.inf, -1.5, -0.0, 0.0, 1.0, 2.5, np.inf, np.nan], dtype)
    args = [part.ravel() for part in np.meshgrid(special, special, special)]
    for made in (
        fn.where(x > y, x, z), fn.where(x > y, z, y), fn.where(x > 0, z, 0), fn.where(x > 0, z, 1),
        fn.where(x > y, z, x), fn.where(x > 1, x, 0.1 * x), fn.minimum(fn.maximum(x, y), z),
        fn.minimum(z, fn.maximum(x, y)), fn.minimum(fn.maximum(x, -1), 2), fn.where(x < 0, x, z),
    ):  # fmt: skip
        program = lower((made,), (dtype,) * 3)
        (expected,) = evaluate(program, args)
        np.testing.assert_array_equal(native(program)(*args), expected)


INTEGER_NAMES = ("uint8", "int8", "int16", "int32")
NARROW: dict[str, Callable[[Any, Any], Any]] = {
    "sums": lambda a, b: a * b - a + 100,
    "differences": lambda a, b: fn.abs(-a - b),
    "bounds": lambda a, b: fn.minimum(fn.maximum(a, b), 100) + fn.sign(b),
    "bits": lambda a, b: (a & b) ^ ~(a | 5),
    "choice": lambda a, b: fn.where(a > b, a, b * 3),
    "truth": lambda a, b: (a + b >= b) & fn.ne(a, 7),
    "large number": lambda a, b: fn.where(a < 100_000, a, b),  # no number of the narrow types
    "quotients": lambda a, b: fn.floor_divide(a, fn.maximum(b, 1)) + b,
    "floats": lambda a, b: (a * b) * 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("dtypes", [*itertools.product(INTEGER_NAMES, repeat=2), ("int8", "bool")], ids="-".join)
def test_narrow_integers(name: str, dtypes: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    results = (NARROW[name](symbol(0), symbol(1)),)
    if dtypes[1] == "bool" and name not in ("sums", "choice"):
        pytest.skip("bool has no such operation")
    args: list[Any] = []
    for dtype in dtypes:
        limits = np.iinfo(dtype) if dtype != "bool" else None
        low, high = (limits.min, limits.max + 1) if limits else (0, 2)
        args.append(rng.integers(low, high, 1000).astype(dtype))
    for given in (args, [args[0], args[1][3]], [args[0], 2], [args[0], np.array(args[1][5])]):
        program = lower(results, tuple(map(key_of, given)))
        agree(native(program)(*given), evaluate(program, given))


@pytest.mark.parametrize("rows", [(300, 700), (3, 100_000), (100_000, 3), (70_001,)])
def test_large_arrays_in_every_layout(rows: tuple[int, ...]) -> None:
    call, reference = formula("gelu")
    rng = np.random.default_rng(0)
    x = rng.standard_normal(rows).astype(np.float32)
    g = rng.standard_normal(rows).astype(np.float32)
    expected = reference([x, g])
    agree(call(x, g), expected)
    straight = np.array(call(x, g))
    for layout in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2], lambda a: a[::-1].copy()[::-1]):
        # the bits do not depend on where the blocks are, nor on the tails of vectors
        assert np.array_equal(call(layout(x), g), straight)
        assert np.array_equal(call(x, layout(g)), straight)
        assert np.array_equal(call(layout(x), layout(g)), straight)
    one_by_one = [call(a, b) for a, b in zip(x.ravel()[:200], g.ravel()[:200], strict=True)]
    assert np.array_equal(np.array(one_by_one), straight.ravel()[:200])


@pytest.mark.parametrize(
    "op", ["exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "expm1", "log1p", "exp2", "log2", "log10"]
)
@pytest.mark.parametrize("kind", FLOATS)
def test_bits_are_the_element_s_own(op: str, kind: str) -> None:
    call = native(one_operation(op, kind, 1))
    x = values(kind, 3, 777)
    whole = call(x)
    for start, stop in ((1, 777), (13, 14), (5, 37), (700, 777)):
        assert np.array_equal(call(x[start:stop].copy()), whole[start:stop], equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", [None, 0, 1, 2])
def test_loops_of_two_operations_round_twice(dtype: str, number: int | None) -> None:
    rng = np.random.default_rng(0)
    a, b, c = symbol(0), symbol(1), symbol(2)
    args = [rng.standard_normal(999).astype(dtype) for _ in range(3)]
    if number is not None:
        args[number] = np.asarray(args[number][0])
    plus, minus, times = (lambda x, y: x + y), (lambda x, y: x - y), (lambda x, y: x * y)
    for first, second in itertools.product((plus, minus, times), repeat=2):
        for root in (second(first(a, b), c), second(c, first(a, b)), second(first(a, b), first(b, c))):
            program = lower([root], tuple(map(key_of, args)))
            same(native(program)(*args), evaluate(program, args)[0])


def test_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((513, 401)).astype(np.float32) for _ in range(2))
    call, _ = formula("gelu")
    same_for_any_threads(lambda: call(x, g))
    same_for_any_threads(lambda: call(x.T, g.T))
    call, _ = formula("mixed")
    same_for_any_threads(lambda: call(x, g[:1], 2.0))


def test_zero_size_and_no_dimensions() -> None:
    call, reference = formula("affine")
    for args in (
        [np.empty((0, 3)), np.ones((1, 3)), 2],
        [np.float32(2).reshape(()), np.float32(3).reshape(()), 1.5],
        [np.ones(()), np.ones((2, 0)), np.ones((2, 1))],
        [np.ones((1, 1, 1)), 2.0, np.ones(())],
    ):
        agree(call(*args), reference(args))
    assert call(1, 2, 3.0).shape == ()
    assert isinstance(call(np.float64(1), np.ones(()), 2), np.ndarray)


def test_unaligned() -> None:
    call, reference = formula("affine")
    raw = np.zeros(8 * 1000 + 3, np.uint8)
    x = raw[3:].view(np.float64)
    x[:] = np.arange(1000)
    assert not x.flags.aligned
    y = np.linspace(0, 1, 1000)
    agree(call(x, y, y), reference([x, y, y]))
    out = np.zeros(8 * 1000 + 1, np.uint8)[1:].view(np.float64)
    assert call(y, x, y, out=out) is out
    agree(out, reference([y, x, y]))


def test_out() -> None:
    call, reference = formula("affine")
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((37, 91)) for _ in range(3))
    expected = reference([a, b, c])[0]
    for out in (
        np.empty((37, 91)),
        np.empty((91, 37)).T,
        np.empty((74, 182))[::2, ::-2],
        np.empty((37, 91), order="F"),
    ):
        assert call(a, b, c, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-14)
    for dtype in DTYPES:
        out = np.zeros((37, 91), numpy_dtype(dtype))
        call(a, b, c, out=(out,))
        np.testing.assert_array_equal(out, converted(np, call(a, b, c), numpy_dtype(dtype)))


def test_out_of_several_results() -> None:
    call, reference = formula("mixed")
    x = np.linspace(-1, 1, 3001).astype(np.float32)
    first, second, third = np.empty(3001, np.float64), np.empty(6002, bool)[::2], x
    expected = reference([x, x * 2, 3.0])
    made = (first, second, third)
    assert call(x, x * 2, 3.0, out=made) is made  # the third is the input itself, read by all
    for got, wanted in zip(made, expected, strict=True):
        np.testing.assert_allclose(got.astype(float), wanted.astype(float), rtol=1e-6)
    with pytest.raises(ValueError, match="out has 2 arrays, the results are 3"):
        call(x, x, 3.0, out=(first, second))


def test_out_over_an_input() -> None:
    call, reference = formula("affine")
    rng = np.random.default_rng(0)
    memory = rng.standard_normal(5000)
    b = rng.standard_normal(2500)
    for place, target in (
        (slice(0, 2500), slice(0, 2500)), (slice(0, 2500), slice(1, 2501)), (slice(1, 2501), slice(0, 2500)),
        (slice(2499, None, -1), slice(0, 2500)), (slice(0, 5000, 2), slice(0, 2500)),
        (slice(0, 5000, 2), slice(1, 5000, 2)),
    ):  # fmt: skip
        copy = memory.copy()
        a = copy[place]
        expected = reference([a.copy(), b, 2.0])[0]
        call(a, b, 2.0, out=copy[target])
        np.testing.assert_allclose(copy[target], expected, rtol=1e-14, atol=1e-14)
    square = rng.standard_normal((60, 60))
    expected = reference([square.T.copy(), square.copy(), 1])[0]
    call(square.T, square, 1, out=square)
    np.testing.assert_allclose(square, expected, rtol=1e-14, atol=1e-14)


def test_errors_say_what_was_seen() -> None:
    call, _ = formula("add")
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"add: shapes \(2, 3\), \(4,\) do not broadcast"):
        call(x, np.ones(4))
    with pytest.raises(TypeError, match=r"add: operand 1 must be a numpy\.ndarray or a Python number, got str"):
        call(x, "1")
    with pytest.raises(TypeError, match="dtype"):
        call(x, np.ones(3, np.uint32))
    with pytest.raises(TypeError, match="byte order"):
        call(x, np.ones(3, ">f8"))
    with pytest.raises(ValueError, match=r"add: out has shape \(3,\), the result has \(2, 3\)"):
        call(x, x, out=np.ones(3))
    frozen = np.ones((2, 3))
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        call(x, x, out=frozen)
    with pytest.raises(TypeError, match="unknown keyword 'where'"):
        call(x, x, where=x)
    with pytest.raises(TypeError, match="out must be"):
        call(x, x, out=[x])
    with pytest.raises(ValueError, match="no operation frobnicate"):
        native(Program((("load", "f64", (0,)), ("frobnicate", "f64", (0,))), ((1, "float64"),), ("float64",)))(x)
    with pytest.raises(ValueError, match="reads value 5"):
        native(Program((("load", "f64", (0,)), ("neg", "f64", (5,))), ((1, "float64"),), ("float64",)))(x)


def test_what_specialize_raises_arrives() -> None:
    def specialize(keys: tuple[str, ...]) -> Any:
        raise RuntimeError(f"asked for {keys}")

    with pytest.raises(RuntimeError, match=r"asked for \('float64', 'float32:0', 'py:bool', 'py:complex'\)"):
        C.Formula("f", specialize)(np.ones(2), np.float32(1), True, 1j)


def test_specialized_once_until_forgotten() -> None:
    asked = []

    def specialize(keys: tuple[str, ...]) -> Any:
        asked.append(keys)
        program = lower([symbol(0) + symbol(1)], keys)
        return program.code, program.outputs

    call = C.Formula("add", specialize)
    for _ in range(3):
        call(np.ones(2), np.ones(3, np.float32)[:1])
        call(np.ones(2), 1.0)
    assert asked == [("float64", "float32"), ("float64", "py:float")]
    C.forget_formulas()
    call(np.ones(2), 1.0)
    assert len(asked) == 3
    assert repr(call) == "Formula('add')"


def test_more_operands_than_fit_on_the_stack() -> None:
    symbols = [symbol(i) for i in range(40)]
    total = symbols[0]
    for each in symbols[1:]:
        total = total * 0.5 + each
    args = [np.full((3, 5), float(i))[:, : 5 if i % 2 else 1] for i in range(40)]
    program = lower([total], ("float64",) * 40)
    np.testing.assert_allclose(native(program)(*args), evaluate(program, args)[0], rtol=1e-14)


def every_float() -> np.ndarray:
    """A sample of all bit patterns of float32, and dense stretches where functions bend."""
    spread = (np.arange(0, 2**32, 9973, dtype=np.uint64)).astype(np.uint32).view(np.float32)
    dense = [np.linspace(-limit, limit, 60_001, dtype=np.float32) for limit in (0.01, 1.0, 4.0, 20.0, 110.0, 1e4)]
    near_one = (
        (np.float32(1).view(np.uint32) + np.arange(-40_000, 40_000).astype(np.int64)).astype(np.uint32).view(np.float32)
    )
    return np.concatenate([spread, *dense, near_one, near_one - np.float32(1)])


EXACT_IN_DOUBLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh,
    "erfc": lambda x: np.array([math.erfc(v) for v in x]),
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "normal_cdf": lambda x: 0.5 * np.array([math.erfc(v * -math.sqrt(0.5)) for v in x]),
    "gelu_tanh": lambda x: x * np.exp(-np.logaddexp(0, -x * (math.sqrt(8 / math.pi) * (1 + 0.044715 * x * x)))),
    "erf": lambda x: np.array([math.erf(v) for v in x]),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "lgamma": lambda x: evaluate(one_operation("lgamma", "f64", 1), [x])[0],
    "digamma": lambda x: evaluate(one_operation("digamma", "f64", 1), [x])[0],
}  # fmt: skip


# The others are computed in double; tan by the C library beyond 1e6. PyTorch: tanh 1.0, sigmoid 2.5 (and worse left of
# -88), softplus 1.5, gelu 9.9 and no digits left of -4, nor those of gelu_tanh.
ULPS = {"log": 0.9, "log1p": 0.9, "rsqrt": 1.5, "tan": 0.9, "sigmoid": 2.4, "tanh": 0.81, "softplus": 1.9,
        "normal_cdf": 6.5, "gelu_tanh": 6.5}  # fmt: skip


@pytest.mark.parametrize("op", EXACT_IN_DOUBLE)
def test_ulps_of_float32_functions(op: str) -> None:
    x = every_float()
    if op in ("erf", "erfc", "normal_cdf", "lgamma", "digamma"):
        x = x[::7]
    with np.errstate(all="ignore"):
        exact = EXACT_IN_DOUBLE[op](x.astype(np.float64))
        rounded = exact.astype(np.float32)
    got = native(one_operation(op, "f32", 1))(x)
    usual = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~usual], rounded[~usual])
    ulp = np.spacing(np.abs(rounded[usual])).astype(np.float64)
    errors = np.abs(got[usual].astype(np.float64) - exact[usual]) / ulp
    assert errors.max() <= ULPS.get(op, 0.57), f"{op}: {errors.max():.2f} ulp at {x[usual][errors.argmax()]!r}"
    zero = np.array([0.0, -0.0], np.float32)
    with np.errstate(all="ignore"):
        at_zero = EXACT_IN_DOUBLE[op](zero.astype(np.float64))
    signs = np.signbit(native(one_operation(op, "f32", 1))(zero)) | np.isnan(at_zero)  # a NaN's sign says nothing
    np.testing.assert_array_equal(signs, np.signbit(at_zero) | np.isnan(at_zero))


@pytest.mark.parametrize("beside", [np.nan, np.inf, -np.inf, -90.0, 88.5, 200.0, -104.5, -1e30])
def test_exp_of_usual_numbers_beside_others(beside: float) -> None:
    """Which take another way: of the others the bits stay, in vectors and at the end of an array."""
    x = np.linspace(-87, 87, 1003, dtype=np.float32)
    mixed = x.copy()
    mixed[::3] = beside
    alone, got = (native(one_operation("exp", "f32", 1))(each) for each in (x, mixed))
    usual = np.arange(len(x)) % 3 > 0
    np.testing.assert_array_equal(got[usual], alone[usual])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got[::3], np.exp(np.float64(mixed[::3])).astype(np.float32))


@pytest.mark.parametrize("op", ["exp", "expm1", "log", "log1p", "tanh", "sigmoid"])
def test_ulps_of_float64_functions(op: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(50_000) * scale for scale in (1e-300, 1e-5, 0.1, 1.0, 30.0, 400.0)])
    x = np.concatenate([x, np.abs(x), 1 + x[50_000:150_000] * 1e-3, 2.0 ** rng.uniform(-1074, 1023, 50_000)])
    exact_in_double = dict(EXACT_IN_DOUBLE, sigmoid=lambda v: np.where(v > 0, 1, np.exp(v)) / (1 + np.exp(-np.abs(v))))
    with np.errstate(all="ignore"):
        exact = exact_in_double[op](x)
    got = native(one_operation(op, "f64", 1))(x)
    usual = np.isfinite(exact)
    np.testing.assert_array_equal(got[~usual], exact[~usual])
    errors = np.abs(got[usual] - exact[usual]) / np.spacing(np.abs(exact[usual]))
    assert errors.max() <= 4.0, f"{op}: {errors.max():.2f} ulp at {x[usual][errors.argmax()]!r}"


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_expm1_of_blocks_that_are_zero_but_for_one(kind: str) -> None:
    """Of a block of zeros nothing is computed: what is none is found wherever it stands, zeros keep their sign."""
    run = native(one_operation("expm1", kind, 1))
    for n in (1, 5, 16, 33, 700):
        x = np.zeros(n, {"f32": "float32", "f64": "float64"}[kind])
        x[::3] = -0.0
        assert run(x).tobytes() == x.tobytes()
        for at in {0, n // 2, n - 1}:
            for value in (1e-30, -2.0, np.nan, np.inf):
                one = x.copy()
                one[at] = value
                expected = one.copy()
                expected[at] = np.expm1(value)
                got = run(one)
                np.testing.assert_allclose(got, expected, rtol=1e-6)
                assert (np.signbit(got) == np.signbit(expected))[expected == 0].all()


PACKED = ("sigmoid", "tanh", "softplus", "normal_cdf", "gelu_slope", "gelu_tanh", "gelu_tanh_slope")


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("op", PACKED)
def test_a_function_times_something_rounds_twice(op: str) -> None:
    """One loop for both: of arrays, numbers, values for each row, the function's own operand, and over an operand."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((3, 331)).astype(np.float32) * 4 for _ in range(2))
    x[0, :3] = np.nan, np.inf, -np.inf
    y[0, 3:6] = np.nan, np.inf, 0
    value = native(one_operation(op, "f32", 1))(x)
    for factor in (y, y[:, :1], y[1, 1], y[:, ::-1], np.asfortranarray(y)):
        for args in ((2, 1), (1, 2)):
            code = (("load", "f32", (0,)), ("load", "f32", (1,)), (op, "f32", (0,)), ("mul", "f32", args))
            product = native(Program(code, ((3, "float32"),), ("float32",) * 2))
            same(product(x, np.asarray(factor)), value * factor)
    own = native(
        Program((("load", "f32", (0,)), (op, "f32", (0,)), ("mul", "f32", (0, 1))), ((2, "float32"),), ("float32",))
    )
    same(own(x), value * x)
    both = (("load", "f32", (0,)), (op, "f32", (0,)), ("mul", "f32", (1, 0)), ("mul", "f32", (1, 1)))
    for got, expected in zip(
        native(Program(both, ((1, "float32"), (2, "float32"), (3, "float32")), ("float32",)))(x),
        (value, value * x, value * value),
        strict=True,
    ):
        same(got, expected)


@pytest.mark.parametrize("op", PACKED)
def test_the_ends_of_packed_functions(op: str) -> None:
    """Elements have the same bits wherever they are, also where results are written over an operand."""
    x, y = (np.random.default_rng(k).standard_normal(400).astype(np.float32) * 4 for k in range(2))
    alone = native(one_operation(op, "f32", 1))
    product = native(Program((("load", "f32", (0,)), ("load", "f32", (1,)), (op, "f32", (0,)), ("mul", "f32", (2, 1))),
                             ((3, "float32"),), ("float32",) * 2))  # fmt: skip
    value = np.concatenate([alone(x[i : i + 1]) for i in range(x.size)])
    for n in (2, 5, 8, 15, 16, 17, 33, 63, 64, 65, 100, 129, 191, 255, 400):
        same(alone(x[-n:]), value[-n:])
        same(product(x[-n:], y[-n:]), (value * y)[-n:])
        same(product(x[-n:], y[-1]), value[-n:] * y[-1])
        for over in range(2):
            here = [x[-n:].copy(), y[-n:].copy()]
            product(*here, out=here[over])
            same(here[over], (value * y)[-n:])
        here = [x[-n:].copy()]
        alone(here[0], out=here[0])
        same(here[0], value[-n:])


def test_loops_that_a_product_is_one_with() -> None:
    loads = {kind: (("load", kind, (0,)), ("load", kind, (1,))) for kind in ("f32", "f64")}

    def loops(kind: str, code: tuple[Any, ...], *results: int) -> int:
        stored = STORED[kind]
        program = native(Program((*loads[kind], *code), tuple((i, stored) for i in results), (stored,) * 2))
        x, y = (np.random.default_rng(k).standard_normal(300).astype(stored) for k in range(2))
        program(x, y)
        return program.loops

    def times(kind: str, first: int = 2, second: int = 1) -> tuple[Any, ...]:
        return ("mul", kind, (first, second))

    for op in set(PACKED) - {"tanh"}:  # which is no loop of packs without multiply-adds
        assert loops("f32", ((op, "f32", (0,)), times("f32")), 3) == 1
        assert loops("f32", ((op, "f32", (0,)), times("f32", 1, 2)), 3) == 1
        assert loops("f64", ((op, "f64", (0,)), times("f64")), 3) == 2
        assert loops("f32", ((op, "f32", (0,)), times("f32")), 2, 3) == 2
        assert loops("f32", ((op, "f32", (0,)), times("f32", 2, 2)), 3) == 2
    sum_of_product = (("sigmoid", "f32", (0,)), times("f32"), ("add", "f32", (3, 0)))
    assert loops("f32", sum_of_product, 4) == 2
    # twins share more than that
    for value, slope in (("normal_cdf", "gelu_slope"), ("gelu_tanh", "gelu_tanh_slope")):
        both = ((value, "f32", (0,)), (slope, "f32", (0,)), times("f32", 2, 0), times("f32", 3, 1))
        assert loops("f32", both, 4, 5) == 3


@pytest.mark.parametrize("columns", [64, 300, 1031])
def test_a_number_first_and_values_for_each_row(columns: int) -> None:
    """Operations without loops for one operand that is one value: the others may be one value for each row."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, columns)).astype(np.float32)
    rows = np.abs(rng.standard_normal((3, 1))).astype(np.float32) + 1
    each = np.broadcast_to(rows, x.shape)
    for truth in (True, False):
        where = native(Program(
            (("load", "bool", (0,)), ("load", "f32", (1,)), ("load", "f32", (2,)), ("where", "f32", (0, 1, 2))),
            ((3, "float32"),), ("bool", "float32", "float32"),
        ))  # fmt: skip
        same(where(np.array(truth), rows, x), np.where(truth, each, x))
        same(where(np.array(truth), x, rows), np.where(truth, x, each))
    for op in ("pow", "hypot", "atan2", "fmod"):
        loads = tuple(("load", "f32", (i,)) for i in range(3))
        of_rows = native(
            Program((*loads, (op, "f32", (0, 1)), ("add", "f32", (3, 2))), ((4, "float32"),), ("float32",) * 3)
        )
        same(of_rows(np.float32(1.7).reshape(()), rows, x), of_rows(np.float32(1.7).reshape(()), each.copy(), x))
