"""What a typed program may hold: each operation's types, for programs that come from outside."""

from __future__ import annotations

from typing import Any

from ..dtypes import BY_NAME
from ..errors import DTypeError
from .lower import COMPUTE_TYPE, Program
from .node import PRIMITIVES

__all__ = ["check", "known_key"]

_REAL, _COMPLEX = ("f32", "f64"), ("c64", "c128")
_PART = {"c64": "f32", "c128": "f64"}
_PAIR = {"f32": "c64", "f64": "c128"}
_PYTHON = {"bool": bool, "i64": int, "f32": float, "f64": float, "c64": complex, "c128": complex}
_INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
_COUNT = {**PRIMITIVES, "idiv": 2, "polygamma": 2}

# the kinds that an operation's operands may be of, all of one; most give their own kind
_KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "sub", "mul", "neg", "pow", "abs"), ("i64", *_REAL, *_COMPLEX)),
    **dict.fromkeys(
        ("div", "exp", "log", "log2", "log10", "sqrt", "rsqrt", "sigmoid", "sin", "cos", "tan", "asin", "acos", "atan",
         "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
        (*_REAL, *_COMPLEX),
    ),
    **dict.fromkeys(
        ("exp2", "expm1", "log1p", "erf", "erfc", "erfinv", "lgamma", "digamma", "polygamma", "atan2", "hypot",
         "igamma", "igammac", "zeta", "floor", "ceil", "trunc", "round", "softplus", "normal_cdf", "gelu_slope",
         "gelu_tanh", "gelu_tanh_slope", "one_minus_square"),
        _REAL,
    ),
    **dict.fromkeys(("min", "max", "fmod", "sign"), ("i64", *_REAL)),
    **dict.fromkeys(("and", "or", "xor", "not"), ("bool", "i64")),
    **dict.fromkeys(("shl", "shr", "idiv"), ("i64",)),
    **dict.fromkeys(("eq", "ne"), ("bool", "i64", *_REAL, *_COMPLEX)),
    **dict.fromkeys(("lt", "le", "gt", "ge"), ("bool", "i64", *_REAL)),
    **dict.fromkeys(("isnan", "isinf", "isfinite"), (*_REAL, *_COMPLEX)),
    **dict.fromkeys(("conj", "real", "imag", "angle"), _COMPLEX),
    "complex": _REAL,
}  # fmt: skip
_TO_BOOL = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"))
_TO_PART = frozenset(("real", "imag", "angle"))


def check(program: Program) -> None:
    """Raises DTypeError unless every instruction is one that lowering emits: a known one, of values before it, in their
    types."""
    kinds: list[str] = []
    for at, (op, kind, args) in enumerate(program.code):
        if type(args) is not tuple or _kind_of(op, args, kinds, program.inputs, kind) != kind:
            raise DTypeError(f"a formula's instruction {at}, {op!r:.40}.{kind!r:.10}, is of no known form")
        kinds.append(kind)
    for output in program.outputs:
        if len(output) != 2 or not _is_value(output[0], kinds) or COMPUTE_TYPE.get(output[1]) != kinds[output[0]]:
            raise DTypeError(f"a formula's result {output!r:.60} is of no known form")
    if not program.outputs:
        raise DTypeError("a formula has no results")


def _kind_of(op: Any, args: tuple[Any, ...], kinds: list[str], inputs: tuple[str, ...], said: Any) -> str | None:
    """The kind of an instruction's value; None for an instruction that can't be."""
    if op == "load":
        if len(args) != 1 or type(args[0]) is not int or not 0 <= args[0] < len(inputs):
            return None
        return COMPUTE_TYPE.get(inputs[args[0]].removesuffix(":0"))
    if op == "const":
        fits = len(args) == 1 and said in _PYTHON and type(args[0]) is _PYTHON[said]
        return said if fits and (said != "i64" or -(1 << 63) <= args[0] < 1 << 63) else None
    if op == "wrap":
        fits = len(args) == 2 and _is_value(args[0], kinds) and kinds[args[0]] == "i64" and args[1] in _INTEGERS
        return "i64" if fits else None
    if not all(_is_value(arg, kinds) for arg in args):
        return None
    given = [kinds[arg] for arg in args]
    if op == "cast":
        return said if len(given) == 1 and said in _PYTHON and said in COMPUTE_TYPE.values() else None
    if op == "where":
        return given[1] if len(given) == 3 and given[0] == "bool" and given[1] == given[2] else None
    if op not in _KINDS or len(given) != _COUNT[op] or len(set(given)) != 1 or given[0] not in _KINDS[op]:
        return None
    if op in _TO_BOOL:
        return "bool"
    if op in _TO_PART or (op == "abs" and given[0] in _PART):
        return _PART[given[0]]
    return _PAIR[given[0]] if op == "complex" else given[0]


def _is_value(arg: Any, kinds: list[str]) -> bool:
    return type(arg) is int and 0 <= arg < len(kinds)


def known_key(key: Any) -> bool:
    """Whether it describes an operand: ``"float32"``, or ``"float32:0"`` for one without dimensions."""
    return type(key) is str and key.removesuffix(":0") in BY_NAME
