"""What a saved program is made of besides arrays: numbers, texts, containers and formulas, as JSON and back.

Reading trusts nothing: what is not one of the forms below raises FileError, and so do numbers, texts and formulas
beyond what programs have.

========================  =============================================
JSON                      means
========================  =============================================
null, true, 1, 0.5, "x"   themselves; a float is written with a point
[...]                     a list
{"tuple": [...]}          a tuple
{"named": ["topk", ...]}  what the function of that name returns
{"dict": [[k, v], ...]}   a dict
{"float": "nan"}          a number that JSON lacks
{"complex": [re, im]}     a complex number
{"slice": [a, b, c]}      a slice
{"ellipsis": true}        ``...``
{"dtype": "float32"}      a dtype of arrays
{"scalar": ["int64", 3]}  a NumPy number
{"value": 7}              others: what the reader or writer is told
========================  =============================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import return_types
from ..dtypes import BY_NAME, numpy_dtype, of_array
from ..errors import CompileError, DTypeError
from ..expr import Program as Typed
from ..expr.node import PRIMITIVES, Expr, call, constant, symbol, topological
from ..expr.typed import check, known_key
from ..io.safetensors import FileError

__all__ = [
    "expect",
    "formula_from",
    "formula_to",
    "from_json",
    "one_line",
    "to_json",
    "typed_from",
    "typed_to",
    "whole",
]

_DEEPEST = 32
_LONGEST = 1 << 20  # of a list, and of a text
_MOST_NODES = 1 << 16  # of a formula
_INT = 1 << 63
_LONGEST_TEXT = 300  # of an error
_CONTAINERS = frozenset(("tuple", "named", "slice", "complex", "dict", "scalar"))


def to_json(what: Any, others: Callable[[Any], Any]) -> Any:
    """The JSON of plain data; ``others(x)`` gives that of anything else, or raises."""
    if what is None or type(what) in (bool, str):
        return what
    if type(what) is int:
        if not -_INT <= what < _INT:
            raise CompileError(f"save: the number {what} has more than 64 bits.")
        return what
    if type(what) is float:
        return what if math.isfinite(what) else {"float": repr(what)}
    if type(what) is complex:
        return {"complex": [to_json(what.real, others), to_json(what.imag, others)]}
    if type(what) is list:
        return [to_json(part, others) for part in what]
    if isinstance(what, tuple) and not hasattr(what, "_fields"):
        return {"tuple": [to_json(part, others) for part in what]}
    if isinstance(what, tuple) and _named(type(what).__name__) is type(what):
        return {"named": [type(what).__name__, *(to_json(part, others) for part in what)]}
    if type(what) is dict:
        return {"dict": [[to_json(key, others), to_json(part, others)] for key, part in what.items()]}
    if type(what) is slice:
        return {"slice": [to_json(x, others) for x in (what.start, what.stop, what.step)]}
    if what is Ellipsis:
        return {"ellipsis": True}
    if isinstance(what, np.dtype):
        return {"dtype": of_array(what).name}
    if isinstance(what, np.generic):
        return {"scalar": [of_array(what.dtype).name, to_json(what.item(), others)]}
    return others(what)


def from_json(what: Any, others: dict[str, Callable[[Any], Any]], depth: int = 0) -> Any:
    """Plain data from its JSON; ``others``: how to read further forms, by their keys."""
    expect(depth < _DEEPEST, "data is nested too deeply")
    if what is None or type(what) in (bool, float):
        return what
    if type(what) is int:
        expect(-_INT <= what < _INT, f"the number {str(what)[:20]}... has more than 64 bits")
        return what
    if type(what) is str:
        expect(len(what) <= _LONGEST, "a text is too long")
        return what
    if type(what) is list:
        expect(len(what) <= _LONGEST, "a list is too long")
        return [from_json(part, others, depth + 1) for part in what]
    expect(type(what) is dict and len(what) == 1, "data of an unknown form")
    ((form, content),) = what.items()
    if form in others:
        return others[form](content)
    if form == "float":
        expect(content in ("nan", "inf", "-inf"), f"{form}: an unknown number")
        return float(content)
    if form == "ellipsis":
        return Ellipsis
    if form == "dtype":
        return dtype_from(content)
    expect(form in _CONTAINERS, f"data of the unknown form {form[:40]!r}")
    expect(type(content) is list, f"{form}: no list")
    parts = from_json(content, others, depth + 1)
    if form == "tuple":
        return tuple(parts)
    if form == "named":
        kind = _named(parts[0]) if parts and type(parts[0]) is str else None
        expect(kind is not None and len(kind._fields) == len(parts) - 1, "named: no results of a known function")
        assert kind is not None
        return kind(*parts[1:])
    if form == "slice":
        expect(
            len(parts) == 3 and all(x is None or type(x) is int for x in parts), "slice: three numbers were expected"
        )
        return slice(*parts)
    if form == "complex":
        expect(len(parts) == 2 and all(type(x) is float for x in parts), "complex: two numbers were expected")
        return complex(*parts)
    if form == "dict":
        pairs = [tuple(pair) for pair in parts if type(pair) is list and len(pair) == 2]
        expect(len(pairs) == len(parts), "dict: pairs were expected")
        expect(all(type(key) in (str, int, float, bool) for key, _ in pairs), "dict: a key of an unknown kind")
        made = dict(pairs)
        expect(len(made) == len(pairs), "dict: a key occurs twice")
        return made
    expect(len(parts) == 2, "scalar: a dtype and a number were expected")
    dtype, number = dtype_from(parts[0]), parts[1]
    expect(type(number) in (bool, int, float, complex), "scalar: a number was expected")
    try:
        return dtype.type(number)
    except (TypeError, ValueError, OverflowError):
        raise FileError(f"scalar: {number!r} is no {dtype.name}") from None


def _named(name: str) -> Any:
    """The class of what a function with several results returns, by the function's name; None if there is none."""
    kind = vars(return_types).get(name)
    return kind if getattr(kind, "__module__", None) == return_types.__name__ and hasattr(kind, "_fields") else None


def dtype_from(name: Any) -> np.dtype[Any]:
    """The dtype of a name in a file."""
    expect(type(name) is str and name in BY_NAME, f"an unknown dtype {name!r:.40}")
    return numpy_dtype(name)


def expect(condition: Any, complaint: str) -> None:
    """Raises FileError unless the condition holds."""
    if not condition:
        raise FileError(complaint)


def one_line(error: Exception) -> str:
    """What an error says, in one line that is not too long: some show the arrays that they were given."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def whole(number: Any, below: int, what: str) -> int:
    """A number from 0 on and below a bound."""
    if type(number) is not int or not 0 <= number < below:
        raise FileError(f"{what}: a whole number from 0 to {below - 1} was expected, got {number!r:.40}")
    return number


# --- formulas: [[op, operand, ..., value], ...] where operands are numbers of earlier nodes


def formula_to(results: tuple[Expr, ...]) -> dict[str, Any]:
    """The JSON of a formula."""
    number: dict[Expr, int] = {}
    nodes: list[Any] = []
    for node in topological(results):
        operands: list[Any] = [number[arg] for arg in node.args]
        if node.op in ("load", "const") or node.value is not None:
            operands.append(to_json(node.value, _refuse))
        number[node] = len(nodes)
        nodes.append([node.op, *operands])
    return {"nodes": nodes, "results": [number[root] for root in results]}


def formula_from(written: Any, inputs: int) -> tuple[Expr, ...]:
    """A formula of that many inputs."""
    expect(type(written) is dict and {"nodes", "results"} <= written.keys(), "a formula without nodes or results")
    rows, ends = written["nodes"], written["results"]
    expect(type(rows) is list and 0 < len(rows) <= _MOST_NODES, "a formula of no nodes, or of too many")
    expect(type(ends) is list and 0 < len(ends) <= 64, "a formula of no results, or of too many")
    nodes: list[Expr] = []
    for row in rows:
        expect(type(row) is list and row and type(row[0]) is str, "a formula's node of an unknown form")
        nodes.append(_node(row[0], row[1:], nodes, inputs))
    return tuple(nodes[whole(end, len(nodes), "a formula's result")] for end in ends)


def _node(op: str, operands: list[Any], nodes: list[Expr], inputs: int) -> Expr:
    if op == "load":
        expect(len(operands) == 1, "load: one number was expected")
        return symbol(whole(operands[0], inputs, "a formula's input"))
    if op == "const":
        expect(len(operands) == 1, "const: one number was expected")
        value = from_json(operands[0], {})
        expect(type(value) in (bool, int, float, complex), "const: a number was expected")
        return constant(value)
    count = PRIMITIVES.get(op)
    expect(count is not None, f"a formula's unknown operation {op[:40]!r}")
    assert count is not None
    value = None
    if op in ("cast", "polygamma"):
        expect(len(operands) == count + 1, f"{op}: an operand and a value were expected")
        value = operands.pop()
        known = type(value) is str and value in BY_NAME if op == "cast" else type(value) is int and 0 <= value <= 64
        expect(known, f"{op}: {value!r:.40} is not possible")
    expect(len(operands) == count, f"{op}: {count} operands were expected")
    args = [nodes[whole(at, len(nodes), "a formula's operand")] for at in operands]
    return call(op, *args, value=value)


def _refuse(what: Any) -> Any:
    raise CompileError(f"save: a formula holds {what!r}, which is no number.")


# --- typed formulas: [[op, kind, operand, ...], ...]


def typed_to(program: Typed) -> dict[str, Any]:
    """The JSON of a typed formula."""
    code = [[op, kind, *(to_json(arg, _refuse) for arg in args)] for op, kind, args in program.code]
    return {"keys": list(program.inputs), "code": code, "outputs": [list(output) for output in program.outputs]}


def typed_from(written: Any) -> Typed:
    """A typed formula, after a check of every instruction."""
    expect(type(written) is dict and {"keys", "code", "outputs"} <= written.keys(), "no typed formula")
    keys, rows, ends = written["keys"], written["code"], written["outputs"]
    expect(type(keys) is list and len(keys) <= 4096 and all(map(known_key, keys)), "a formula's operands")
    expect(type(rows) is list and 0 < len(rows) <= _MOST_NODES, "a formula of no instructions, or of too many")
    expect(type(ends) is list and 0 < len(ends) <= 64, "a formula of no results, or of too many")
    expect(all(type(row) is list and len(row) >= 3 and type(row[0]) is str for row in rows), "a formula's instruction")
    expect(all(type(end) is list and len(end) == 2 and type(end[1]) is str for end in ends), "a formula's result")
    code = tuple((row[0], row[1], tuple(from_json(arg, {}) for arg in row[2:])) for row in rows)
    program = Typed(code, tuple((at, name) for at, name in ends), tuple(keys))
    try:
        check(program)
    except (DTypeError, TypeError) as error:
        raise FileError(str(error)) from None
    return program
