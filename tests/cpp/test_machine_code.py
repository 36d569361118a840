"""Formulas compiled to machine code against the same formulas as loops: bit for bit, NaN for NaN."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

from tensorgrad import config
from tensorgrad.backends import registry
from tensorgrad.expr import Program

C = pytest.importorskip("tensorgrad._C")

STORED = {"bool": "bool", "i64": "int64", "f32": "float32", "f64": "float64"}
FLOATS = ("f32", "f64")
UNARY = ("neg", "abs", "sign", "floor", "ceil", "trunc", "round", "sqrt", "rsqrt", "one_minus_square")
BINARY = ("add", "sub", "mul", "div", "min", "max")
TESTS = ("eq", "ne", "lt", "le", "gt", "ge")
EACH = (*UNARY, *BINARY, *TESTS, "isnan", "isinf", "isfinite", "where", "and", "or", "xor", "not", "number", "truth")
LOOPS = ("exp", "tanh", "log1p")  # stay loops, between what is compiled
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -3e38, 1e-20, 1e7]

needs_compiler = pytest.mark.skipif(not C.writes_machine_code(), reason="no machine code on this processor or system")


def formula(program: Program) -> Any:
    return C.Formula("test", lambda keys: (program.code, program.outputs))


def numbers(kind: str, n: int | tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "bool":
        return np.asarray(rng.random(n) < 0.5)
    drawn = np.asarray(rng.standard_normal(n) * 3)
    return np.where(rng.random(n) < 0.3, rng.choice(EDGES, n), drawn).astype(STORED[kind])


def both_ways(program: Program, *args: Any, **how: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The results of loops, and of machine code."""
    found = []
    for compiled in (False, True):
        C.set_machine_code(compiled)
        try:
            made = formula(program)(*args, **how)
        finally:
            C.set_machine_code(True)
        found.append(list(made) if isinstance(made, tuple) else [made])
    return found[0], found[1]


def check(program: Program, *args: Any, **how: Any) -> None:
    for loops, code in zip(*both_ways(program, *args, **how), strict=True):
        assert loops.dtype == code.dtype
        assert loops.shape == code.shape
        if loops.dtype.kind != "f":
            np.testing.assert_array_equal(loops, code)
            continue
        nan = np.isnan(loops)
        np.testing.assert_array_equal(nan, np.isnan(code))
        unsigned = f"u{loops.dtype.itemsize}"
        np.testing.assert_array_equal(np.where(nan, 0, loops).view(unsigned), np.where(nan, 0, code).view(unsigned))


class Drawn:
    """A random program: what it reads, does and gives."""

    def __init__(self, rng: np.random.Generator, steps: int, kinds: tuple[str, ...], constants: bool = True):
        self.rng = rng
        self.code: list[Any] = []
        self.types: list[str] = []
        self.inputs = [str(rng.choice(["bool", *kinds, *kinds])) for _ in range(int(rng.integers(1, 5)))] + list(kinds)
        for i, kind in enumerate(self.inputs):
            self.add("load", kind, i)
        if constants:
            for kind in kinds:
                self.add("const", kind, float(rng.choice([0.5, -2.0, 0.0, 3.25])))
        for _ in range(steps):
            self.step(str(rng.choice(kinds)))
        made = [i for i, (op, *_) in enumerate(self.code) if op not in ("load", "const")]
        count = int(rng.integers(1, min(5, len(made)) + 1))
        last = [made[-1], *(int(rng.choice(made)) for _ in range(count - 1))]
        self.outputs = tuple((i, STORED[self.types[i]]) for i in dict.fromkeys(last))

    def add(self, op: str, kind: str, *operands: Any) -> int:
        self.code.append((op, kind, operands))
        self.types.append(kind)
        return len(self.code) - 1

    def some(self, kind: str) -> int:
        found = [i for i, known in enumerate(self.types) if known == kind]
        if not found:  # a truth value to begin with
            return self.add("isnan", "bool", self.some("f32" if "f32" in self.types else "f64"))
        late = found[-6:] if self.rng.random() < 0.7 else found
        return int(self.rng.choice(late))

    def step(self, kind: str) -> None:
        rng = self.rng
        draw = rng.random()
        if draw < 0.45:
            self.add(str(rng.choice(BINARY)), kind, self.some(kind), self.some(kind))
        elif draw < 0.65:
            self.add(str(rng.choice(UNARY)), kind, self.some(kind))
        elif draw < 0.75:
            self.add(str(rng.choice(TESTS)), "bool", self.some(kind), self.some(kind))
        elif draw < 0.85:
            self.add("where", kind, self.some("bool"), self.some(kind), self.some(kind))
        elif draw < 0.89:
            self.add(str(rng.choice(("and", "or", "xor", "eq", "ne"))), "bool", self.some("bool"), self.some("bool"))
        elif draw < 0.91:
            self.add("not", "bool", self.some("bool"))
        elif draw < 0.93:
            self.add("cast", kind, self.some(str(rng.choice(("bool", kind)))))
        elif draw < 0.95:
            self.add("cast", "bool", self.some(kind))
        elif draw < 0.97:
            self.add(str(rng.choice(LOOPS)), kind, self.some(kind))
        else:
            other = "f64" if kind == "f32" and "f64" in self.types else kind
            self.add("cast", other, self.some(kind))

    def program(self) -> Program:
        return Program(tuple(self.code), self.outputs, tuple(STORED[kind] for kind in self.inputs))


@needs_compiler
@pytest.mark.parametrize("seed", range(150))
def test_random_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = (("f32",), ("f64",), ("f32", "f64"))[seed % 3]
    drawn = Drawn(rng, int(rng.integers(2, 60)), kinds)
    n = int(rng.choice([256, 257, 263, 300, 1000, 4099]))
    check(drawn.program(), *(numbers(kind, n, seed + i) for i, kind in enumerate(drawn.inputs)))


@needs_compiler
@pytest.mark.parametrize("seed", range(100))
def test_random_rows(seed: int) -> None:
    """Rows of 16 elements and more that code goes over: of views, every other one, values for each, axes in between."""
    rng = np.random.default_rng(2000 + seed)
    kind = str(rng.choice(FLOATS))
    drawn = Drawn(rng, int(rng.integers(1, 20)), (kind,))
    columns = int(rng.choice([16, 17, 33, 64, 100, 255, 500, 2048]))
    shape = (int(rng.integers(1, 4)), -(-5000 // columns), columns)
    args: list[Any] = []
    for i, kind in enumerate(drawn.inputs):
        a, b, c = shape
        lies = rng.integers(7)
        if lies == 0:
            args.append(numbers(kind, (a, b, c + 5), seed + i)[:, :, 3 : c + 3])
        elif lies == 1:
            args.append(numbers(kind, (a, 2 * b, c), seed + i)[:, ::2])
        elif lies == 2:
            args.append(numbers(kind, (a, b, 1), seed + i))
        elif lies == 3:
            args.append(numbers(kind, (a, 1, c), seed + i))
        elif lies == 4:
            args.append(numbers(kind, (b, a, c), seed + i).transpose(1, 0, 2)[:, ::-1])
        elif lies == 5:
            args.append(numbers(kind, (c,), seed + i))
        else:
            args.append(numbers(kind, shape, seed + i))
    check(drawn.program(), *args)


@needs_compiler
@pytest.mark.parametrize("seed", range(150))
def test_random_layouts(seed: int) -> None:
    """Rows, values for each row and for all, transposed and unaligned arrays, 0-d arrays and Python numbers."""
    rng = np.random.default_rng(1000 + seed)
    drawn = Drawn(rng, int(rng.integers(2, 30)), (str(rng.choice(FLOATS)),))
    rows, columns = int(rng.integers(1, 9)), int(rng.choice([64, 255, 256, 259, 300, 1031]))
    args: list[Any] = []
    for i, kind in enumerate(drawn.inputs):
        shape = [(rows, columns), (rows, 1), (1, columns), (columns,), ()][int(rng.integers(0, 5))]
        whole = i == len(drawn.inputs) - 1
        if whole or rng.random() < 0.3:
            args.append(strided(rng, (rows, columns), STORED[kind]))
        elif rng.random() < 0.1 and kind != "bool":
            args.append(float(rng.standard_normal()))
        else:
            args.append(numbers(kind, shape, seed + i))
    check(drawn.program(), *args)


@needs_compiler
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("n", range(250, 276))
def test_every_length_of_the_last_vector(kind: str, n: int) -> None:
    """Beyond the end nothing is written: the results lie in the middle of an array."""
    code = (("load", kind, (0,)), ("load", "bool", (1,)), ("mul", kind, (0, 0)), ("where", kind, (1, 2, 0)),
            ("lt", "bool", (3, 0)))  # fmt: skip
    x, truth = numbers(kind, n, 1), numbers("bool", n, 2)
    with np.errstate(all="ignore"):
        chosen = np.where(truth, x * x, x)
        smaller = chosen < x
    for outputs, expected in ((((3, STORED[kind]),), [chosen]), (((3, STORED[kind]), (4, "bool")), [chosen, smaller])):
        around = [np.zeros(n + 40, each.dtype) for each in expected]
        inside = [each[20 : 20 + n] for each in around]
        for each in around:
            each[:] = 77
        formula(Program(code, outputs, (STORED[kind], "bool")))(
            x, truth, out=tuple(inside) if len(inside) > 1 else inside[0]
        )
        for got, wanted, full in zip(inside, expected, around, strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert (full[:20] == full.dtype.type(77)).all()
            assert (full[20 + n :] == full.dtype.type(77)).all()
    plain = (("load", kind, (0,)), ("mul", kind, (0, 0)), ("sub", kind, (1, 0)), ("abs", kind, (2,)))  # no bytes
    full = np.full(n + 40, 77, STORED[kind])
    formula(Program(plain, ((3, STORED[kind]),), (STORED[kind],)))(x, out=full[20 : 20 + n])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(full[20 : 20 + n], np.abs(x * x - x))
    assert (full[:20] == 77).all()
    assert (full[20 + n :] == 77).all()


@needs_compiler
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("op", EACH)
def test_each_operation(op: str, kind: str) -> None:
    """On every pair of edges, beside another operation, without which it stays a loop."""
    grid = np.repeat(np.array(EDGES), len(EDGES)), np.tile(np.array(EDGES), len(EDGES))
    a, b = (np.resize(each, 600).astype(STORED[kind]) for each in grid)
    loads = [("load", kind, (0,)), ("load", kind, (1,)), ("lt", "bool", (0, 1)), ("gt", "bool", (0, 1))]
    if op in UNARY:
        step: Any = (op, kind, (0,))
    elif op in BINARY:
        step = (op, kind, (0, 1))
    elif op in TESTS:
        step = (op, "bool", (0, 1))
    elif op.startswith("is"):
        step = (op, "bool", (0,))
    elif op == "where":
        step = (op, kind, (2, 0, 1))
    elif op == "number":
        step = ("cast", kind, (2,))
    elif op == "truth":
        step = ("cast", "bool", (0,))
    else:
        step = (op, "bool", (2,) if op == "not" else (2, 3))
    check(Program((*loads, step), ((4, STORED[step[1]]), (2, "bool"), (3, "bool")), (STORED[kind],) * 2), a, b)


@needs_compiler
@pytest.mark.parametrize("kind", FLOATS)
def test_joined_loops(kind: str) -> None:
    """What two operations have as one loop: all pairs of arithmetic, a clamp, leaky choices, lerp."""
    args = [numbers(kind, 900, seed) for seed in range(3)]
    loads = [("load", kind, (i,)) for i in range(3)]
    for first in ("add", "sub", "mul"):
        for second in ("add", "sub", "mul"):
            for operands in ((3, 2), (2, 3)):
                code = (*loads, (first, kind, (0, 1)), (second, kind, operands), ("neg", kind, (4,)))
                check(Program(code, ((5, STORED[kind]),), (STORED[kind],) * 3), *args)
    clamp = (*loads, ("max", kind, (0, 1)), ("min", kind, (3, 2)), ("neg", kind, (4,)))
    leaky = (*loads, ("gt", "bool", (0, 1)), ("where", kind, (3, 0, 2)), ("neg", kind, (4,)))
    relu = (*loads, ("gt", "bool", (0, 1)), ("where", kind, (3, 2, 1)), ("neg", kind, (4,)))
    for code in (clamp, leaky, relu):
        check(Program(code, ((5, STORED[kind]),), (STORED[kind],) * 3), *args)
    lerp = (*loads, ("const", kind, (0.5,)), ("const", kind, (1.0,)), ("abs", kind, (2,)), ("lt", "bool", (5, 3)),
            ("where", kind, (6, 0, 1)), ("sub", kind, (2, 4)), ("where", kind, (6, 2, 8)), ("sub", kind, (1, 0)),
            ("mul", kind, (9, 10)), ("add", kind, (7, 11)), ("neg", kind, (12,)))  # fmt: skip
    check(Program(lerp, ((13, STORED[kind]),), (STORED[kind],) * 3), *args)


@needs_compiler
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("count", [8, 15, 16, 40, 63, 70])
def test_more_values_than_registers(kind: str, count: int) -> None:
    """All arrays are read before the first is read again: values go to the frame, arrays share a base register."""
    code: list[Any] = [("load", kind, (i,)) for i in range(count)]
    code += [("mul", kind, (i, (i + 1) % count)) for i in range(count)]
    total = count
    for i in range(count):
        code.append(("add", kind, (total, count + (7 * i) % count)))
        total = len(code) - 1
        code.append(("sub", kind, (total, i)))
        total = len(code) - 1
    args = [numbers(kind, 520, seed) for seed in range(count)]
    outputs = ((total, STORED[kind]), (count + 3, STORED[kind]))
    check(Program(tuple(code), outputs, (STORED[kind],) * count), *args)


@needs_compiler
def test_many_constants() -> None:
    code: list[Any] = [("load", "f32", (0,))]
    for i in range(40):
        code.append(("const", "f32", (i + 0.5,)))
        code.append(("mul" if i % 2 else "add", "f32", (len(code) - 2 if i else 0, len(code) - 1)))
        code.append(("sub", "f32", (len(code) - 2, len(code) - 1)))
    check(Program(tuple(code), ((len(code) - 1, "float32"),), ("float32",)), numbers("f32", 700, 3))


@needs_compiler
@pytest.mark.parametrize("kind", FLOATS)
def test_a_result_where_an_operand_lies(kind: str) -> None:
    code = (("load", kind, (0,)), ("load", kind, (1,)), ("mul", kind, (0, 0)), ("sub", kind, (2, 1)),
            ("max", kind, (3, 0)))  # fmt: skip
    program = Program(code, ((4, STORED[kind]),), (STORED[kind],) * 2)
    for n in (256, 301):
        x, y = numbers(kind, n, 5), numbers(kind, n, 6)
        (expected,), _ = both_ways(program, x, y)
        for target in (0, 1):
            args = [x.copy(), y.copy()]
            formula(program)(*args, out=args[target])
            np.testing.assert_array_equal(args[target], expected)


@needs_compiler
def test_sums_do_not_change() -> None:
    code = (("load", "f32", (0,)), ("load", "f32", (1,)), ("sub", "f32", (0, 1)), ("mul", "f32", (2, 2)))
    program = Program(code, ((3, "float32"),), ("float32",) * 2)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(100_003).astype(np.float32) for _ in range(2))
    for reduction in ("sum", "mean"):
        (loops,), (code_,) = both_ways(program, x, y, reduction=reduction)
        assert loops.tobytes() == code_.tobytes()


@needs_compiler
def test_same_bits_for_any_threads() -> None:
    code = (("load", "f32", (0,)), ("load", "f32", (1,)), ("div", "f32", (0, 1)), ("mul", "f32", (2, 0)))
    made = formula(Program(code, ((3, "float32"),), ("float32",) * 2))
    x, y = numbers("f32", 300_001, 1), numbers("f32", 300_001, 2)
    same_for_any_threads(lambda: made(x, y))


@needs_compiler
def test_threads_compile_one_formula_at_once() -> None:
    code = (("load", "f32", (0,)), ("load", "f32", (1,)), ("div", "f32", (0, 1)), ("mul", "f32", (2, 0)))
    program = Program(code, ((3, "float32"),), ("float32",) * 2)
    x, rows = numbers("f32", (40, 300), 1), numbers("f32", (40, 1), 2)
    wide = np.broadcast_to(rows, x.shape).copy()
    (expected,), _ = both_ways(program, x, rows)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            made = formula(program)
            for got in pool.map(lambda k, made=made: made(x, rows if k % 2 else wide), range(16)):
                np.testing.assert_array_equal(got, expected)


@needs_compiler
def test_more_kinds_of_rows_than_are_compiled() -> None:
    """Each set of operands that are one value for each row is code of its own, up to a number of them."""
    count = 5
    code: list[Any] = [("load", "f32", (i,)) for i in range(count)]
    for i in range(1, count):
        code.append(("mul" if i % 2 else "sub", "f32", (len(code) - 1 if i > 1 else 0, i)))
    program = Program(tuple(code), ((len(code) - 1, "float32"),), ("float32",) * count)
    made = formula(program)
    for mask in range(2**count - 1):
        args = [numbers("f32", (6, 1) if mask >> i & 1 else (6, 300), i) for i in range(count)]
        (expected,), _ = both_ways(program, *args)
        np.testing.assert_array_equal(made(*args), expected)


def test_the_setting_turns_it_off() -> None:
    backend = registry.get("cpp")
    before = C.writes_machine_code()
    try:
        config.set("machine_code", False)
        assert not C.writes_machine_code()
        assert backend.describe().endswith("formulas as loops")
        config.set("machine_code", True)
        assert C.writes_machine_code() == before
    finally:
        config.unset("machine_code")
    assert C.writes_machine_code() == before


def test_the_environment_turns_it_off() -> None:
    text = "import tensorgrad as tg; import tensorgrad._C as C; tg.ones(2); print(C.writes_machine_code())"
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "TENSORGRAD_MACHINE_CODE": "0"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
