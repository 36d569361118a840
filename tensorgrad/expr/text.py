"""A formula as a person would write it: no needless parentheses, and a name for what is used more than once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .lower import Program
from .node import Expr, _make, constant, symbol, topological

__all__ = ["readable", "readable_code"]

# operator and precedence, as in Python; powers bind to the right
_INFIX = {
    "eq": ("==", 1), "ne": ("!=", 1), "lt": ("<", 1), "le": ("<=", 1), "gt": (">", 1), "ge": (">=", 1), "or": ("|", 2),
    "xor": ("^", 3), "and": ("&", 4), "shl": ("<<", 5), "shr": (">>", 5), "add": ("+", 6), "sub": ("-", 6),
    "mul": ("*", 7), "div": ("/", 7), "floordiv": ("//", 7), "pow": ("**", 9),
}  # fmt: skip
_PREFIX = {"neg": ("-", 8), "not": ("~", 8)}
_ASSOCIATIVE = frozenset(("add", "mul", "and", "or", "xor"))
_ALONE = 10


def readable(results: Sequence[Expr], names: Sequence[str]) -> list[str]:
    """The lines of a formula: ``t1 = ...`` for each part that is used more than once, then one line for each result.

    ``names``: how its inputs are called.
    Example:
        >>> from tensorgrad.expr import symbol
        >>> x = symbol(0)
        >>> readable([(x * x + 1.0) * (x * x)], ["x"])
        ['t1 = x * x', '(t1 + 1) * t1']
    """
    uses = Counter(id(arg) for node in topological(results) for arg in node.args)
    uses.update(map(id, results))
    text: dict[Expr, tuple[str, int]] = {}
    lines: list[str] = []
    shared = 0
    for node in topological(results):
        written = _write(node, text, names)
        if node.args and uses[id(node)] > 1:
            shared += 1
            lines.append(f"t{shared} = {written[0]}")
            written = f"t{shared}", _ALONE
        text[node] = written
    return lines + [text[root][0] for root in results]


def readable_code(program: Program, names: Sequence[str]) -> list[str]:
    """The same of a typed program. Casts are shown by the name of what they make."""
    made: list[Expr] = []
    for op, kind, args in program.code:
        if op == "load":
            made.append(symbol(args[0]))
        elif op == "const":
            made.append(constant(args[0]))
        else:
            name = {"cast": kind, "wrap": args[-1], "idiv": "floordiv"}.get(op, op)
            made.append(_make(name, tuple(made[arg] for arg in (args[:1] if op == "wrap" else args))))
    return readable([made[at] for at, _ in program.outputs], names)


def _write(node: Expr, text: dict[Expr, tuple[str, int]], names: Sequence[str]) -> tuple[str, int]:
    """(the node as text, how tightly its outermost operator binds)."""
    if node.op == "load":
        return (names[node.value] if node.value < len(names) else f"x{node.value}"), _ALONE
    if node.op == "const":
        value = node.value
        shown = f"{value:.7g}" if type(value) is float else repr(value)
        return shown, 8 if shown.startswith("-") else _ALONE

    def within(arg: Expr, least: int) -> str:
        written, binds = text[arg]
        return written if binds >= least else f"({written})"

    if node.op in _INFIX:
        sign, binds = _INFIX[node.op]
        left, right = node.args
        after = binds if node.op in _ASSOCIATIVE and right.op == node.op else binds + 1
        if node.op == "pow":
            return f"{within(left, binds + 1)} {sign} {within(right, binds)}", binds
        return f"{within(left, binds + 1 if binds == 1 else binds)} {sign} {within(right, after)}", binds
    if node.op in _PREFIX:
        sign, binds = _PREFIX[node.op]
        return f"{sign}{within(node.args[0], binds)}", binds
    parts = [text[arg][0] for arg in node.args]
    if node.value is not None:
        parts.append(str(node.value))
    return f"{node.op}({', '.join(parts)})", _ALONE
