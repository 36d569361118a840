"""Lowering: a formula and its input dtypes become a typed program that any backend can evaluate.

Types come from PyTorch's promotion rules applied node by node, as if the formula were run op by op; so a fused formula
has the dtype of its unfused spelling. What is computed in (a *compute type*) is wider than what is stored: float16 and
bfloat16 compute in f32, every integer in i64 (narrow integers are wrapped after each operation that can overflow).
Python numbers compute among themselves as in Python, in f64, and take the type of the first tensor that they meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..dtypes import BY_NAME, COMPLEX_OF, REAL_OF, get_default_dtype, python_number_dtype, result_name
from ..errors import DTypeError
from . import functions as fn
from .node import Expr, rebuild, source, topological, with_operands

Instruction = tuple[str, str, tuple[Any, ...]]

COMPUTE_TYPE = {
    "bool": "bool",
    **dict.fromkeys(("uint8", "int8", "int16", "int32", "int64"), "i64"),
    **dict.fromkeys(("float16", "bfloat16", "float32"), "f32"),
    "float64": "f64",
    "complex64": "c64",
    "complex128": "c128",
}
_PYTHON_TYPE = {"py:bool": "bool", "py:int": "int64", "py:float": "float64", "py:complex": "complex128"}
_FLOATING = frozenset((
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sigmoid", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "lgamma", "digamma",
    "polygamma", "div", "atan2", "hypot", "angle", "igamma", "igammac", "zeta", "softplus", "normal_cdf", "gelu_slope",
    "gelu_tanh", "gelu_tanh_slope", "one_minus_square",
))  # fmt: skip
_REAL_ONLY = frozenset((
    "erf", "erfc", "erfinv", "lgamma", "digamma", "polygamma", "atan2", "hypot", "fmod", "floordiv",
    "truncdiv", "floor", "ceil", "trunc", "round", "igamma", "igammac", "zeta", "min", "max", "lt", "le", "gt", "ge",
    "softplus", "normal_cdf", "gelu_slope", "gelu_tanh", "gelu_tanh_slope",
))  # fmt: skip
_COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
_INTEGERS_ONLY = frozenset(("and", "or", "xor", "shl", "shr"))
_CAN_OVERFLOW = frozenset(("add", "sub", "mul", "neg", "abs", "pow", "shl", "idiv", "not"))
_ROUNDING = frozenset(("floor", "ceil", "trunc", "round"))


@dataclass(frozen=True)
class Program:
    """Instructions in SSA order: instruction ``i`` is ``(op, compute type, operands)`` and defines value ``i``."""

    code: tuple[Instruction, ...]
    outputs: tuple[tuple[int, str], ...]
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"%{i} = {op}.{kind}({', '.join(map(str, args))})" for i, (op, kind, args) in enumerate(self.code)]
        return "\n".join([*lines, *(f"return %{value} as {name}" for value, name in self.outputs)])


@dataclass(frozen=True)
class _Value:
    """What lowering knows of a node: where its value is and which operand it is in further promotion."""

    index: int
    key: str

    @property
    def name(self) -> str:
        """The dtype it is computed as."""
        return _PYTHON_TYPE[self.key] if self.key.startswith("py:") else self.key.removesuffix(":0")

    @property
    def stored(self) -> str:
        """The dtype it has as a result."""
        return python_number_dtype(self.key) if self.key.startswith("py:") else self.name


class _Lowering:
    def __init__(self, op_name: str, keys: Sequence[str]):
        self.op_name = op_name
        self.keys = keys
        self.code: list[Instruction] = []
        self.numbers: list[bool] = []  # which values are made of Python numbers alone
        self.known: dict[Instruction, int] = {}

    def emit(self, op: str, kind: str, *args: Any) -> int:
        # repr keeps -0.0 apart from 0.0, which are equal as dictionary keys
        instruction = (op, kind, args)
        key = (op, kind, tuple(map(repr, args)))
        index = self.known.get(key)
        if index is None:
            index = self.known[key] = len(self.code)
            self.code.append(instruction)
            self.numbers.append(self._is_number(op, args))
        return index

    def _is_number(self, op: str, args: tuple[Any, ...]) -> bool:
        if op == "load":
            return self.keys[args[0]].startswith("py:")
        return op == "const" or all(self.numbers[arg] for arg in (args[:1] if op == "wrap" else args))

    def convert(self, value: _Value, name: str) -> int:
        return self.cast(value.index, value.name, name)

    def cast(self, index: int, have: str, want: str) -> int:
        source_type, target = COMPUTE_TYPE[have], COMPUTE_TYPE[want]
        op, _, args = self.code[index]
        if op == "const" and source_type != target:
            return self.const(args[0], target)
        if op == "load" and self.keys[args[0]].startswith("py:") and BY_NAME[want].category >= BY_NAME[have].category:
            # straight from the Python number: by way of float32, 0.1 would reach a float64 tensor with 8 digits
            return self.emit("load", target, args[0])
        if op == "where" and source_type != target and self.numbers[args[1]] and self.numbers[args[2]]:
            # a choice between two numbers: convert those, once, and not what is chosen for every element
            return self.emit("where", target, args[0], *[self.cast(arg, have, want) for arg in args[1:]])
        if source_type != target:
            index = self.emit("cast", target, index)
        if target == "i64" and want not in ("int64", have) and have != "bool":
            index = self.emit("wrap", "i64", index, want)
        return index

    def const(self, value: Any, kind: str) -> int:
        if kind == "bool":
            value = bool(value)
        elif kind == "i64":
            value = int(value.real if isinstance(value, complex) else value)
        elif kind in ("f32", "f64"):
            value = float(value.real if isinstance(value, complex) else value)
        else:
            value = complex(value)
        return self.emit("const", kind, value)

    def fail(self, op: str, seen: str, remedy: str) -> DTypeError:
        return DTypeError(f"{self.op_name}: {op} is not defined for {seen}. {remedy}")

    def node(self, node: Expr, args: list[_Value]) -> _Value:
        op = node.op
        if op == "load":
            key = self.keys[node.value]
            return _Value(self.emit("load", COMPUTE_TYPE[_Value(0, key).name], node.value), key)
        if op == "const":
            key = "py:" + type(node.value).__name__
            return _Value(self.const(node.value, COMPUTE_TYPE[_PYTHON_TYPE[key]]), key)
        if op == "cast":
            rank = ":0" if args[0].key.endswith(":0") or args[0].key.startswith("py:") else ""
            return _Value(self.convert(args[0], node.value), node.value + rank)
        if op == "where":
            name, key = self.promote(args[1:])
            condition = self.convert(args[0], "bool")
            parts = [self.convert(arg, name) for arg in args[1:]]
            if self.code[condition][0] == "const":
                return _Value(parts[0 if self.code[condition][2][0] else 1], key)
            chosen = self.emit("where", COMPUTE_TYPE[name], condition, *parts)
            return _Value(self.wrapped(chosen, name, parts, False), key)
        name, key = self.promote(args)
        category = BY_NAME[name].category
        if op in _FLOATING and category < 2:
            if key.startswith("py:"):
                name, key = "float64", "py:float"
            else:
                name = get_default_dtype().name
                key = name + self.rank_of(args)
            category = 2
        if op in _REAL_ONLY and category == 3:
            raise self.fail(op, f"complex numbers ({name})", "Work on .real and .imag, or on abs().")
        if op in _INTEGERS_ONLY and category >= 2:
            raise self.fail(op, name, "Convert to an integer or bool dtype first.")
        return self.operation(op, node, args, name, key)

    def operation(self, op: str, node: Expr, args: list[_Value], name: str, key: str) -> _Value:
        kind = COMPUTE_TYPE[name]
        values = [self.convert(arg, name) for arg in args]
        if op in _COMPARISONS:
            return _Value(self.emit(op, "bool", *values), "bool" + self.rank_of(args))
        if op in ("isnan", "isinf", "isfinite"):
            if kind in ("bool", "i64"):
                return _Value(self.const(op == "isfinite", "bool"), "bool" + self.rank_of(args))
            return _Value(self.emit(op, "bool", *values), "bool" + self.rank_of(args))
        if op in ("conj", "real", "imag", "angle", "complex") or (op == "abs" and kind in ("c64", "c128")):
            return self.complex_part(op, args, values, name, key)
        if kind == "bool":
            return self.on_bools(op, args, values, key)
        if kind == "i64":
            if op in _ROUNDING:
                return _Value(values[0], key)
            if op in ("floordiv", "truncdiv"):
                return self.integer_division(op, values, name, key)
        elif op == "not":
            raise self.fail(op, name, "Convert to an integer or bool dtype first.")
        elif op == "truncdiv":
            return _Value(self.emit("trunc", kind, self.emit("div", kind, *values)), key)
        elif op == "floordiv":
            return self.floating_floor_division(values, kind, key)
        elif op == "sign" and kind in ("c64", "c128"):
            return self.complex_sign(values[0], name, key)
        elif op in ("exp2", "expm1", "log1p") and kind in ("c64", "c128"):
            return _Value(self.complex_exponential(op, values[0], kind), key)
        elif op == "one_minus_square" and kind in ("c64", "c128"):
            square = self.emit("mul", kind, values[0], values[0])
            return _Value(self.emit("sub", kind, self.const(1.0, kind), square), key)
        if op == "polygamma":
            values.insert(0, self.const(float(node.value), kind))
        result = self.emit(op, kind, *values)
        return _Value(self.wrapped(result, name, values, op in _CAN_OVERFLOW), key)

    def wrapped(self, result: int, name: str, values: list[int], overflows: bool) -> int:
        """A result as its integer dtype holds it: it may be beyond that where ``overflows``, or where a Python number
        is among the operands, which are as large as they were given."""
        if COMPUTE_TYPE[name] == "i64" and name != "int64" and (overflows or any(map(self.is_given, values))):
            return self.emit("wrap", "i64", result, name)
        return result

    def is_given(self, value: int) -> bool:
        op, _, args = self.code[value]
        return op == "load" and self.keys[args[0]].startswith("py:")

    def complex_part(self, op: str, args: list[_Value], values: list[int], name: str, key: str) -> _Value:
        kind = COMPUTE_TYPE[name]
        rank = self.rank_of(args)
        if op == "complex":
            if name not in COMPLEX_OF:
                raise self.fail(op, name, "The two parts must be real floating point.")
            made = "py:complex" if key.startswith("py:") else COMPLEX_OF[name] + rank
            return _Value(self.emit(op, COMPUTE_TYPE[COMPLEX_OF[name]], *values), made)
        if kind in ("c64", "c128"):
            if op == "conj":
                return _Value(self.emit("conj", kind, *values), key)
            real = REAL_OF[name]
            made = "py:float" if key.startswith("py:") else real + rank
            return _Value(self.emit(op, COMPUTE_TYPE[real], *values), made)
        if op in ("conj", "real"):
            return _Value(values[0], key)
        if op == "angle":  # pi for negative numbers, 0 for positive ones, NaN for NaN
            negative = self.emit("lt", "bool", values[0], self.const(0.0, kind))
            flat = self.emit("where", kind, negative, self.const(3.141592653589793, kind), self.const(0.0, kind))
            nan = self.emit("isnan", "bool", values[0])
            return _Value(self.emit("where", kind, nan, values[0], flat), key)
        return _Value(self.const(0, kind), key)

    def complex_sign(self, value: int, name: str, key: str) -> _Value:
        """z / |z|, and 0 at 0."""
        kind, real = COMPUTE_TYPE[name], COMPUTE_TYPE[REAL_OF[name]]
        size = self.emit("abs", real, value)
        at_zero = self.emit("eq", "bool", size, self.const(0.0, real))
        size = self.emit("where", real, at_zero, self.const(1.0, real), size)
        return _Value(self.emit("div", kind, value, self.emit("cast", kind, size)), key)

    def complex_exponential(self, op: str, value: int, kind: str) -> int:
        """exp2, expm1 and log1p from the two parts, which keeps the digits near zero."""
        if op == "exp2":
            return self.emit("exp", kind, self.emit("mul", kind, value, self.const(math.log(2), kind)))
        real = "f32" if kind == "c64" else "f64"

        def emit(op: str, *args: int) -> int:
            return self.emit(op, real, *args)

        x, y = emit("real", value), emit("imag", value)
        one, two, half = (self.const(number, real) for number in (1.0, 2.0, 0.5))
        if op == "expm1":  # e**x cos y - 1 = expm1(x) cos y - 2 sin(y / 2)**2
            sine = emit("sin", emit("mul", y, half))
            turned = emit("mul", two, emit("mul", sine, sine))
            shrunk = emit("sub", emit("mul", emit("expm1", x), emit("cos", y)), turned)
            return self.emit("complex", kind, shrunk, emit("mul", emit("exp", x), emit("sin", y)))
        # |1 + z|**2 = 1 + x (x + 2) + y**2
        excess = emit("add", emit("mul", x, emit("add", x, two)), emit("mul", y, y))
        # farther from 1 the squares may leave the range, and near 0 they cancel
        above = self.emit("gt", "bool", excess, self.const(-0.5, real))
        near = self.emit("and", "bool", above, self.emit("lt", "bool", excess, one))
        far = emit("log", emit("hypot", emit("add", one, x), y))
        size = emit("where", near, emit("mul", half, emit("log1p", excess)), far)
        return self.emit("complex", kind, size, emit("atan2", y, emit("add", one, x)))

    def on_bools(self, op: str, args: list[_Value], values: list[int], key: str) -> _Value:
        same = {"add": "or", "mul": "and", "max": "or", "min": "and"}.get(op, op)
        if same in ("and", "or", "xor", "not"):
            return _Value(self.emit(same, "bool", *values), key)
        if op in ("abs", "sign"):
            return _Value(values[0], key)
        if op in ("pow", "fmod", "floordiv", "truncdiv", "shl", "shr"):
            raise self.fail(op, "bool", "Convert to an integer dtype first.")
        raise self.fail(op, "bool", "Use the logical operators ~, ^, & and |.")

    def integer_division(self, op: str, values: list[int], name: str, key: str) -> _Value:
        quotient = self.emit("idiv", "i64", *values)
        if op == "floordiv":
            zero = self.const(0, "i64")
            rest = self.emit("fmod", "i64", *values)
            signs_differ = self.emit(
                "xor", "bool", self.emit("lt", "bool", rest, zero), self.emit("lt", "bool", values[1], zero)
            )
            below = self.emit("and", "bool", self.emit("ne", "bool", rest, zero), signs_differ)
            down = self.emit("sub", "i64", quotient, self.const(1, "i64"))
            quotient = self.emit("where", "i64", below, down, quotient)
        if name != "int64":
            quotient = self.emit("wrap", "i64", quotient, name)
        return _Value(quotient, key)

    def floating_floor_division(self, values: list[int], kind: str, key: str) -> _Value:
        # From the exact remainder, as Python does: floor(a / b) alone is off by one where a / b rounds up.
        a, b = values
        zero, one = self.const(0.0, kind), self.const(1.0, kind)
        rest = self.emit("fmod", kind, a, b)
        quotient = self.emit("div", kind, self.emit("sub", kind, a, rest), b)
        signs_differ = self.emit("xor", "bool", self.emit("lt", "bool", rest, zero), self.emit("lt", "bool", b, zero))
        below = self.emit("and", "bool", self.emit("ne", "bool", rest, zero), signs_differ)
        quotient = self.emit("where", kind, below, self.emit("sub", kind, quotient, one), quotient)
        whole = self.emit("round", kind, quotient)
        by_zero = self.emit("eq", "bool", b, zero)
        return _Value(self.emit("where", kind, by_zero, self.emit("div", kind, a, b), whole), key)

    @staticmethod
    def rank_of(args: list[_Value]) -> str:
        if any(not arg.key.startswith("py:") and not arg.key.endswith(":0") for arg in args):
            return ""
        return ":0"

    def promote(self, args: list[_Value]) -> tuple[str, str]:
        if len(args) == 1:
            return args[0].name, args[0].key
        keys = tuple(arg.key for arg in args)
        name = result_name(keys)
        if all(key.startswith("py:") for key in keys):
            key = "py:" + ("bool", "int", "float", "complex")[BY_NAME[name].category]
            return _PYTHON_TYPE[key], key
        return name, name + self.rank_of(args)


def _powers_spelled_out(roots: Sequence[Expr]) -> list[Expr]:
    """Small constant powers as products and roots: exact to an ulp and many times faster than pow()."""

    def replace(node: Expr, args: tuple[Expr, ...]) -> Expr:
        if node.op == "pow" and args[1].op == "const":
            power, x = args[1].value, args[0]
            if type(power) in (int, float):
                if power == 2:
                    return _keep_dtype(x * x, power)
                if power == 3:
                    return _keep_dtype(x * x * x, power)
                if type(power) is float and power == 0.5:
                    return fn.sqrt(x)
                if type(power) is float and power == -0.5:
                    return fn.rsqrt(x)
                if power == 1:
                    return _keep_dtype(x, power)
        return with_operands(node, args)

    return rebuild(roots, replace)


def _keep_dtype(product: Expr, power: Any) -> Expr:
    # int_tensor ** 2.0 is floating; multiplying by 1.0 would cost a pass, so promote by where's type instead
    return product if type(power) is int else fn.where(True, product, float(power))


def lower(
    outputs: Sequence[Expr], keys: Sequence[str], *, name: str = "formula", store: Sequence[str | None] | None = None
) -> Program:
    """The typed program of a formula for inputs described by promotion keys.

    Args:
        outputs: the formula's results.
        keys: one per input: ``"float32"``, ``"float32:0"`` (0-d), ``"py:float"`` (a Python number).
        name: the op to name in errors.
        store: dtype to store each output in; None keeps what promotion gives.
    Raises: DTypeError where an operation is not defined for its operands' dtypes.
    """
    roots = _powers_spelled_out(outputs)
    work = _Lowering(name, keys)
    values: dict[Expr, _Value] = {}
    for node in topological(roots):
        values[node] = work.node(node, [values[arg] for arg in node.args])
    results: list[tuple[int, str]] = []
    for position, root in enumerate(roots):
        value = values[root]
        wanted = (store[position] if store else None) or value.stored
        index = value.index
        if COMPUTE_TYPE[wanted] != COMPUTE_TYPE[value.name]:
            index = work.cast(index, value.name, wanted)
        results.append((index, wanted))
    return without_dead_code(work.code, results, tuple(keys))


def without_dead_code(code: list[Instruction], results: list[tuple[int, str]], keys: tuple[str, ...]) -> Program:
    """The program of these instructions, without those that no result needs."""
    alive = {index for index, _ in results}
    for index in range(len(code) - 1, -1, -1):
        op, _, args = code[index]
        if index in alive and op not in ("load", "const"):
            alive.update(args[:1] if op == "wrap" else args)
    new: dict[int, int] = {}
    kept: list[Instruction] = []
    for index, (op, kind, args) in enumerate(code):
        if index in alive:
            if op == "wrap":
                args = (new[args[0]], args[1])
            elif op not in ("load", "const"):
                args = tuple(new[arg] for arg in args)
            new[index] = len(kept)
            kept.append((op, kind, args))
    return Program(tuple(kept), tuple((new[index], name) for index, name in results), keys)


def describe(outputs: Sequence[Expr]) -> str:
    """The formula as readable text."""
    return ", ".join(source(root) for root in outputs)
