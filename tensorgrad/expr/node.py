"""Scalar expressions: the nodes that a formula builds.

A formula is a Python function of ``Expr``; calling it on symbols yields a graph of the nodes below, untyped. Types
enter when the graph is lowered for given input dtypes (``lower.py``). Equal nodes are the same object, so common
subexpressions are shared by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakValueDictionary

Scalar = bool | int | float | complex

# name -> number of operands. `load` and `const` are leaves; `cast` carries its dtype as value, `polygamma` its order.
# `floordiv` and `truncdiv` depend on the operands' type and are spelled out by the lowering.
PRIMITIVES: dict[str, int] = {
    **dict.fromkeys(
        ("add", "sub", "mul", "div", "fmod", "floordiv", "truncdiv", "pow", "min", "max", "atan2", "complex"), 2
    ),
    **dict.fromkeys(("hypot", "igamma", "igammac", "zeta"), 2),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "shl", "shr"), 2),
    **dict.fromkeys(("neg", "abs", "not", "sign", "floor", "ceil", "trunc", "round"), 1),
    **dict.fromkeys(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sigmoid"), 1),
    **dict.fromkeys(("softplus", "normal_cdf", "gelu_slope", "gelu_tanh", "gelu_tanh_slope"), 1),
    "one_minus_square": 1,
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"), 1),
    **dict.fromkeys(("asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "lgamma", "digamma", "polygamma"), 1),
    **dict.fromkeys(("isnan", "isinf", "isfinite", "conj", "real", "imag", "angle", "cast"), 1),
    "where": 3,
}


class Expr:
    """One node: an operation on other nodes, a symbol (``load``) or a number (``const``)."""

    __slots__ = ("__weakref__", "args", "op", "value")

    op: str
    args: tuple[Expr, ...]
    value: Any

    def __add__(self, other: Any) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: Any) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: Any) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: Any) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: Any) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: Any) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: Any) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: Any) -> Expr:
        return call("div", other, self)

    def __pow__(self, other: Any) -> Expr:
        return call("pow", self, other)

    def __rpow__(self, other: Any) -> Expr:
        return call("pow", other, self)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __abs__(self) -> Expr:
        return call("abs", self)

    def __lt__(self, other: Any) -> Expr:
        return call("lt", self, other)

    def __le__(self, other: Any) -> Expr:
        return call("le", self, other)

    def __gt__(self, other: Any) -> Expr:
        return call("gt", self, other)

    def __ge__(self, other: Any) -> Expr:
        return call("ge", self, other)

    def __and__(self, other: Any) -> Expr:
        return call("and", self, other)

    def __or__(self, other: Any) -> Expr:
        return call("or", self, other)

    def __xor__(self, other: Any) -> Expr:
        return call("xor", self, other)

    def __invert__(self) -> Expr:
        return call("not", self)

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula has no truth value: it is written once for all elements. Use where(condition, a, b) "
            "instead of `if`, & and | instead of `and` and `or`, eq(a, b) instead of ==."
        )

    def __repr__(self) -> str:
        return source(self)


_interned: WeakValueDictionary[tuple[Any, ...], Expr] = WeakValueDictionary()


def _make(op: str, args: tuple[Expr, ...], value: Any = None) -> Expr:
    # repr() keeps -0.0 apart from 0.0 and True from 1, and makes NaN equal to itself
    key = (op, tuple(map(id, args)), type(value), repr(value))
    found = _interned.get(key)
    if found is None:
        found = Expr.__new__(Expr)
        found.op, found.args, found.value = op, args, value
        _interned[key] = found
    return found


def symbol(index: int) -> Expr:
    """The formula's input number ``index``."""
    return _make("load", (), index)


def constant(value: Scalar) -> Expr:
    """A number; like any Python number it never widens what it meets."""
    return _make("const", (), value)


def as_expr(value: Any) -> Expr:
    if isinstance(value, Expr):
        return value
    if isinstance(value, (bool, int, float, complex)):
        return constant(value)
    raise TypeError(f"a formula works on expressions and Python numbers, got {type(value).__name__}: {value!r}")


def call(op: str, *args: Any, value: Any = None) -> Expr:
    """The node ``op(*args)``; Python numbers become constants. Raises TypeError for unknown ops and operands."""
    if PRIMITIVES.get(op) != len(args):
        raise TypeError(f"formula primitive {op!r} does not take {len(args)} operands")
    return _make(op, tuple(map(as_expr, args)), value)


def topological(roots: Iterable[Expr]) -> list[Expr]:
    """Every node below ``roots``, operands first, each once. Iterative: formulas may be deep."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))
    return order


def symbols(roots: Iterable[Expr]) -> set[int]:
    """Indices of the inputs that the expressions read."""
    return {node.value for node in topological(roots) if node.op == "load"}


def with_operands(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """The node's operation on other operands."""
    return _make(node.op, args, node.value)


def rebuild(roots: Iterable[Expr], replace: Callable[[Expr, tuple[Expr, ...]], Expr]) -> list[Expr]:
    """Copies of the expressions in which each node is what ``replace(node, new_operands)`` returns."""
    roots = list(roots)
    new: dict[Expr, Expr] = {}
    for node in topological(roots):
        new[node] = replace(node, tuple(new[arg] for arg in node.args))
    return [new[root] for root in roots]


def substitute(roots: Iterable[Expr], by_index: dict[int, Expr]) -> list[Expr]:
    """The expressions with input ``i`` replaced by ``by_index[i]``."""

    def put(node: Expr, args: tuple[Expr, ...]) -> Expr:
        if node.op == "load":
            return by_index[node.value]
        return with_operands(node, args)

    return rebuild(roots, put)


INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "pow": "**",
    "and": "&",
    "or": "|",
    "xor": "^",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
}


def source(root: Expr, names: tuple[str, ...] = ()) -> str:
    """The expression as readable text; inputs are called ``x0, x1, ...`` unless names are given."""
    text: dict[Expr, str] = {}
    for node in topological([root]):
        args = [text[arg] for arg in node.args]
        if node.op == "load":
            text[node] = names[node.value] if node.value < len(names) else f"x{node.value}"
        elif node.op == "const":
            text[node] = repr(node.value)
        elif node.op in INFIX:
            text[node] = f"({args[0]} {INFIX[node.op]} {args[1]})"
        else:
            if node.value is not None:
                args.append(str(node.value))
            text[node] = f"{node.op}({', '.join(args)})"
    return text[root]
