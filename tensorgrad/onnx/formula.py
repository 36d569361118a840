"""Formulas as ONNX nodes: the typed program of an elementwise op, instruction by instruction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import PYTHON_KEYS, numpy_dtype, of_array
from .graph import Graph, Value
from .sizes import OnnxExporterError, Size

__all__ = ["formula"]

_DTYPES = {"bool": np.dtype(bool), "i64": np.dtype(np.int64), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}

_NODES = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg", "abs": "Abs", "min": "Min", "max": "Max",
    "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "exp": "Exp",
    "log": "Log", "sqrt": "Sqrt", "sigmoid": "Sigmoid", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin",
    "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "round": "Round",
    "isnan": "IsNaN", "isinf": "IsInf", "where": "Where", "sign": "Sign", "pow": "Pow",
}  # fmt: skip
_LOGIC = {
    ("and", "bool"): "And", ("or", "bool"): "Or", ("xor", "bool"): "Xor", ("not", "bool"): "Not",
    ("and", "i64"): "BitwiseAnd", ("or", "i64"): "BitwiseOr", ("xor", "i64"): "BitwiseXor",
    ("not", "i64"): "BitwiseNot",
}  # fmt: skip


# quotients and logarithms of what is left of 1 - erf(x): nothing, in float32, from x = 4 on
_CANCEL = ("erfcx", "log_ndtr")


def _key(x: Any) -> str:
    if isinstance(x, Value):
        return of_array(x.dtype).name + ("" if x.ndim else ":0")
    return "py:int" if isinstance(x, Size) else PYTHON_KEYS[type(x)]


def formula(graph: Graph, op: Any, inputs: tuple[Any, ...]) -> list[str]:
    """The names of the results of an elementwise op. Raises OnnxExporterError for functions that ONNX lacks."""
    if op.name == "relu" and inputs[0].dtype.kind == "f":
        return [graph.node("Relu", inputs[0])]
    if op.name.startswith(_CANCEL):
        raise OnnxExporterError(
            f"{op.name}: written with ONNX' Erf its digits cancel; compute it outside of the model."
        )
    program = op.specialize(tuple(map(_key, inputs)))
    names: list[str] = []
    reached: list[frozenset[int]] = []
    for code, kind, operands in program.code:
        if kind not in _DTYPES:
            raise OnnxExporterError(f"{op.name}: ONNX has no arithmetic of complex numbers.")
        dtype = _DTYPES[kind]
        if code == "load":
            given = inputs[operands[0]]
            own = isinstance(given, Value)
            names.append(graph.cast(given.name, given.dtype, dtype) if own else graph.number(given, dtype))
            reached.append(frozenset(operands if own else ()))
            continue
        if code == "const":
            names.append(graph.constant(operands[0], dtype))
            reached.append(frozenset())
            continue
        sources = operands[:1] if code == "wrap" else operands
        kinds = [_DTYPES[program.code[i][1]] for i in sources]
        reached.append(frozenset().union(*(reached[i] for i in sources)))
        if code == "wrap":
            narrow = graph.cast(names[operands[0]], dtype, numpy_dtype(operands[1]))
            names.append(graph.cast(narrow, numpy_dtype(operands[1]), dtype))
        elif code == "cast":
            names.append(graph.cast(names[operands[0]], kinds[0], dtype))
        else:
            names.append(_instruction(graph, op.name, code, kind, [names[i] for i in operands], dtype))
    arrays = {i for i, x in enumerate(inputs) if isinstance(x, Value)}
    results = []
    for (index, stored), (shape, _) in zip(program.outputs, graph.results, strict=True):
        name = graph.cast(names[index], _DTYPES[program.code[index][1]], numpy_dtype(stored))
        if reached[index] != arrays and not any(inputs[i].shape == shape for i in reached[index]):
            name = graph.node("Expand", name, graph.sizes(shape))  # a result that not every input takes part in
        results.append(name)
    return results


def _instruction(graph: Graph, op: str, code: str, kind: str, args: list[str], dtype: Any) -> str:
    node, const = graph.node, graph.constant
    if (code, kind) in _LOGIC:
        if kind == "i64" and graph.opset < 18:
            raise OnnxExporterError(f"{op}: bits of integers need opset 18 or later.")
        return node(_LOGIC[code, kind], *args)
    if code in _NODES:
        return node(_NODES[code], *args)
    if code == "ne":
        return node("Not", node("Equal", *args))
    if code == "isfinite":
        return node("Not", node("Or", node("IsNaN", *args), node("IsInf", *args)))
    if code == "rsqrt":
        return node("Reciprocal", node("Sqrt", *args))
    if code == "exp2":
        return node("Pow", const(2, dtype), *args)
    if code == "expm1":
        return node("Sub", node("Exp", *args), const(1, dtype))
    if code == "log1p":
        return node("Log", node("Add", *args, const(1, dtype)))
    if code in ("log2", "log10"):
        return node("Div", node("Log", *args), const(math.log(int(code[3:])), dtype))
    if code == "erfc":
        return node("Sub", const(1, dtype), node("Erf", *args))
    if code == "one_minus_square":
        return node("Sub", const(1, dtype), node("Mul", *args, *args))
    if code == "hypot":
        return _length(graph, args[0], args[1], dtype)
    if code in ("softplus", "normal_cdf", "gelu_slope", "gelu_tanh", "gelu_tanh_slope"):
        return _smooth(graph, code, args[0], dtype)
    if code == "trunc":
        return node("Mul", node("Sign", *args), node("Floor", node("Abs", *args)))
    if code == "fmod" and kind != "i64":
        return node("Mod", *args, fmod=1)
    if code == "atan2":
        y, x = args
        zero, turn = const(0, dtype), const(math.pi, dtype)
        flat = node("Atan", node("Div", y, x))
        left = node("Where", node("Less", y, zero), node("Sub", flat, turn), node("Add", flat, turn))
        upright = node("Mul", node("Sign", y), const(math.pi / 2, dtype))
        side = node("Where", node("Less", x, zero), left, flat)
        return node("Where", node("Equal", x, zero), upright, side)
    if code in ("idiv", "fmod"):  # by zero gives zero
        zero = const(0, dtype)
        none = node("Equal", args[1], zero)
        safe = node("Where", none, const(1, dtype), args[1])
        done = node("Div", args[0], safe) if code == "idiv" else node("Mod", args[0], safe, fmod=1)
        return node("Where", none, zero, done)
    raise OnnxExporterError(f"{op}: ONNX has no function {code!r}; write the model without it.")


def _length(graph: Graph, a: str, b: str, dtype: Any) -> str:
    """sqrt(a^2 + b^2) as the larger one times a root between 1 and sqrt(2): no square overflows."""
    node, const = graph.node, graph.constant
    sizes = node("Abs", a), node("Abs", b)
    large, small = node("Max", *sizes), node("Min", *sizes)
    ratio = node("Div", small, node("Where", node("Equal", large, const(0, dtype)), const(1, dtype), large))
    root = node("Sqrt", node("Add", const(1, dtype), node("Mul", ratio, ratio)))
    infinite = node("Or", node("IsInf", a), node("IsInf", b))
    return node("Where", infinite, const(math.inf, dtype), node("Mul", large, root))


def _smooth(graph: Graph, code: str, x: str, dtype: Any) -> str:
    """log(1 + exp(x)); the normal distribution function, and the derivative of x times it; the like by tanh."""
    node, const = graph.node, graph.constant
    if code == "softplus":
        return node("Softplus", x)
    if code.startswith("gelu_tanh"):
        linear, cubic = math.sqrt(8 / math.pi), math.sqrt(8 / math.pi) * 0.044715
        square = node("Mul", x, x)

        def scaled(c: float) -> str:
            return node("Mul", x, node("Add", const(linear, dtype), node("Mul", const(c, dtype), square)))

        gate = node("Sigmoid", scaled(cubic))
        if code == "gelu_tanh":
            return node("Mul", x, gate)
        steep = node("Mul", node("Sub", const(1, dtype), gate), scaled(3 * cubic))
        return node("Mul", gate, node("Add", const(1, dtype), steep))
    whole = node("Add", const(1, dtype), node("Erf", node("Mul", x, const(math.sqrt(0.5), dtype))))
    cdf = node("Mul", const(0.5, dtype), whole)
    if code == "normal_cdf":
        return cdf
    power = node("Exp", node("Mul", const(-0.5, dtype), node("Mul", x, x)))
    return node("Add", cdf, node("Mul", x, node("Mul", const(1 / math.sqrt(2 * math.pi), dtype), power)))
