"""A program in words: its calls with what they make and cost, the memory it needs, and what passes have done to it."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..autograd.node import line_number
from ..dtypes import of_array
from ..expr.node import Expr, rebuild, with_operands
from ..expr.text import readable, readable_code
from ..profiler.cost import flops, moved_bytes
from .program import Action, Call, Program, Unless, Value

__all__ = [
    "attrs_text", "call_text", "costs", "explain", "operand_text", "parts_of", "place_text", "scaled", "type_text",
]  # fmt: skip

_WIDTH = 120
_MADE, _ROOM, _COST = 25, 54, 7  # columns: results, the call, numbers
_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}
_UNSAID = frozenset(("needs", "out"))  # attributes that the results tell
_ORDER = ("forward", "backward", "optimizer")


def explain(program: Program) -> str:
    """The program as text of at most 120 columns.

    A row is a call: its results with their dtypes and shapes, the call itself (a fused formula is written out over its
    operands), floating-point operations, bytes read and written, and the line of the user's program that it comes from.
    A formula "in the blocks of" a product is computed of each block of rows as soon as it is there, by the same thread;
    what is "ahead of the blocks of" a product makes its rows right before they are multiplied, of a convolution its
    images right before they are read.
    """
    rows = _Rows(program)
    body: list[str] = []
    total_flops = total_bytes = 0
    for name, steps in _sections(program):
        lines = rows.all(steps)
        part = [costs(step) for step in steps if isinstance(step, Call)]
        part_flops, part_bytes = sum(c for c, _ in part), sum(m for _, m in part)
        title = f"{name}: {scaled(part_flops, 'FLOP')}, {scaled(part_bytes, 'B')} moved "
        body += ["", f"{title:-<{_WIDTH}}", *lines]
        total_flops += part_flops
        total_bytes += part_bytes
    calls = program.all_calls
    head = [
        f"program of {_count(len(calls), 'call')}",
        scaled(total_flops, "FLOP"),
        f"{scaled(total_bytes, 'B')} moved",
    ]
    linked = program.linked
    if linked is not None:
        head.append(f"arena {scaled(linked.nbytes, 'B')} ({scaled(linked.at_once, 'B')} of it needed at one time)")
    made = {v for call in calls for v in call.results if v is not None}
    head.append(f"all results {scaled(sum(v.nbytes for v in made if v.root is v), 'B')}")
    state = {v.root for call in calls for v in call.reads() if v.array is not None}
    lines = [", ".join(head)]
    lines += _wrapped("arguments: ", [f"{v.name} {type_text(v)}" for v in program.arguments])
    lines += [f"state: {_count(len(state), 'array')}, {scaled(sum(v.nbytes for v in state), 'B')}"]
    lines += ["", f"  {'result':{_MADE}} {'call':{_ROOM}} {'FLOP':>{_COST}} {'bytes':>{_COST}}  line"]
    lines += body
    lines += ["", *_wrapped("returns: ", [f"{v.name} {type_text(v)}" for v in program.outputs])]
    lines += _notes([*program.notes, *_memory(linked)])
    for text in (text for runner in program.runners for text in runner.told()):
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
    together = Counter(" + ".join(call.op.name for call in group) for group in getattr(linked, "in_pieces", ()))
    if together:
        lines += _wrapped("done together, a piece at a time: ", [f"{n} {names}" for names, n in together.most_common()])
    slow = Counter(call.op.name for call in rows.in_python)
    if slow:
        lines += _wrapped("through Python, one call at a time: ", [f"{n} {name}" for name, n in slow.most_common()])
    return "\n".join(line.rstrip() for line in lines)


class _Rows:
    """Writes calls as rows."""

    def __init__(self, program: Program):
        slow = set(map(id, getattr(program.linked, "python_calls", ())))
        self.ahead = getattr(program.linked, "ahead", {})
        self.behind = getattr(program.linked, "behind", {})
        self.copied = getattr(program.linked, "copied", {})
        self.in_python = [call for call in program.all_calls if id(call) in slow]
        self.slow = slow
        self.last = ""  # the place that was told last

    def all(self, steps: list[Call | Action], indent: str = "") -> list[str]:
        lines: list[str] = []
        for step in steps:
            if isinstance(step, Action):
                lines.append(f"  {'':{_MADE}} {indent}on the host: {_action_text(step)}")
            elif isinstance(step, Unless):
                lines += [f"  {'':{_MADE}} {indent}unless {step.flag.name}:", *self.all(step.steps, indent + "  ")]
            else:
                place = place_text(step)
                lines += self.of(step, *costs(step), "" if place == self.last else place, indent)
                self.last = place
        return lines

    def of(self, call: Call, cost: int, moved: int, place: str, indent: str = "") -> list[str]:
        made = [f"{v.name} {type_text(v)}" for v in call.results if v is not None]
        if not made:
            names = [v.name for v in call.writes]
            made = ["in place"] if len(names) > 1 else [f"into {names[0]}"] if names else ["(its input)"]
        text = call_text(call)
        wrap = textwrap.TextWrapper(_ROOM, initial_indent=indent, subsequent_indent=f"{indent}  ").wrap
        what = [piece for line in text for piece in wrap(line) or [""]]
        numbers = f"{scaled(cost) if cost else '':>{_COST}} {scaled(moved) if moved else '':>{_COST}}"
        place = f"{place} (Python)" if id(call) in self.slow else place
        if id(call) in self.ahead:
            what.append(f"  ahead of the blocks of {self.ahead[id(call)]}")
        if id(call) in self.behind:
            what.append(f"  in the blocks of {self.behind[id(call)]}")
        if id(call) in self.copied:
            what.append(f"  written there by {self.copied[id(call)]}")
        lines = []
        for i in range(max(len(made), len(what))):
            left = made[i] if i < len(made) else ""
            right = what[i] if i < len(what) else ""
            end = f" {numbers}  {place}" if i == 0 else ""
            if len(left) > _MADE:  # a long name has a line of its own
                lines.append(f"  {left}")
                left = ""
            lines.append(f"  {left:{_MADE}} {right:{_ROOM}}{end}")
        return lines


def place_text(call: Call) -> str:
    """The user's line that a call comes from, short; empty where it isn't known."""
    if call.line is None:
        return ""
    if type(call.line) is str:  # of a program from a file
        return call.line[-24:]
    name, number = line_number(call.line)
    return f"{os.path.basename(name)[-18:]}:{number}"


def costs(call: Call) -> tuple[int, int]:
    """(floating-point operations, bytes moved) of a call."""
    if isinstance(call, Unless):
        inner = [costs(step) for step in call.body.calls]
        return sum(c for c, _ in inner), sum(m for _, m in inner)
    made = [v for v in call.results if v is not None]
    if not made and not call.writes:
        return 0, 0  # it gave back its input
    given = call.op, call.inputs, call.attrs, call.results if made else call.writes
    return flops(*given), moved_bytes(*given)


def call_text(call: Call) -> list[str]:
    """The lines of a call: ``op(inputs, attributes)``, or the formula of a fused one over its operands."""
    inputs = [operand_text(x) for x in call.inputs]
    if getattr(call.op, "derived", False):
        typed = getattr(call.op, "program", None)
        if typed is not None:
            inputs = [call.op.read(i, words) for i, words in enumerate(inputs)]
        lines = readable(_for_types(call), inputs) if typed is None else readable_code(typed, inputs)
        for i, letter in enumerate(getattr(call.op, "letters", "")):
            if letter != ".":
                at = len(lines) - len(call.results) + i
                lines[at] = call.op.reduced(letter, lines[at])
        return [f"{call.op.name}: {lines[0]}"] if len(lines) == 1 else [f"{call.op.name}:", *(f"  {x}" for x in lines)]
    return [f"{call.op.name}({', '.join([*inputs, *attrs_text(call)])})"]


def attrs_text(call: Call) -> list[str]:
    """The attributes that say something."""
    return [f"{name}={operand_text(x)}" for name, x in call.attrs.items() if name not in _UNSAID and x is not None]


def parts_of(program: Program) -> list[str]:
    """The part of the program that each step belongs to: "forward", "backward" or "optimizer".

    A call of which nobody knows (a pass has made it) goes with what it reads. What changes gradients after the
    backward pass (clipping them, say) belongs to the optimizer.
    """
    part_of: dict[Value, str] = {}
    found: list[str] = []
    for step in program.steps:
        part = getattr(step, "part", None) or ""
        if isinstance(step, Call):
            read = {part_of.get(v.root, "forward") for v in step.reads()}
            changes = bool(step.writes) or step.op.name.startswith("multi_")
            if part == "forward" and ("optimizer" in read or ("backward" in read and changes)):
                part = "optimizer"
            part = part or next((p for p in reversed(_ORDER) if p in read), "forward")
            for v in (*step.results, *step.writes):
                if v is not None and (v.root.array is None or v.root not in part_of):
                    part_of[v] = part
        elif not part:
            part = "optimizer"
        found.append(part)
    return found


def _sections(program: Program) -> Iterable[tuple[str, list[Call | Action]]]:
    """Stretches of steps that belong to one part."""
    section: list[Call | Action] = []
    name = ""
    for step, part in zip(program.steps, parts_of(program), strict=True):
        if part != name and section:
            yield name, section
            section = []
        name = part
        section.append(step)
    if section:
        yield name, section


def type_text(v: Value) -> str:
    """``f32[8,16]``"""
    name = of_array(v.dtype).name
    for long, short in _SHORT.items():
        if name.startswith(long):
            name = short + name[len(long) :]
            break
    return f"{name}[{','.join(map(str, v.shape))}]"


def scaled(number: float, unit: str = "") -> str:
    """A number with three digits and a prefix: ``1.2 MB``, or ``1.2M`` without a unit."""
    prefixes = iter("kMGTP")
    prefix = ""
    while abs(number) >= 999.5 and prefix != "P":
        number, prefix = number / 1000, next(prefixes)
    digits = f"{number:.3g}"
    return f"{digits} {prefix}{unit}" if unit else f"{digits}{prefix}"


def _for_types(call: Call) -> list[Expr]:
    """The formula without what vanishes for real numbers."""
    if any(of_array(v.dtype).is_complex for v in call.reads()):
        return list(call.op.results)

    def replace(node: Expr, args: tuple[Expr, ...]) -> Expr:
        return args[0] if node.op in ("conj", "real") else with_operands(node, args)

    return rebuild(call.op.results, replace)


def operand_text(what: Any) -> str:
    """An input or attribute of a call, by name or value."""
    if type(what) is Value:
        return what.name
    if type(what) in (list, tuple) and len(what) > 2 and all(type(part) is Value for part in what):
        return f"[{what[0].name}, ... {len(what)}]"
    if type(what) is list:
        return f"[{', '.join(map(operand_text, what))}]"
    if type(what) is tuple:
        return f"({', '.join(map(operand_text, what))})"
    if type(what) is slice:
        ends = [operand_text(x) if x is not None else "" for x in (what.start, what.stop, what.step)]
        return ":".join(ends if what.step is not None else ends[:2])
    return f"{what:.7g}" if type(what) is float else str(what) if hasattr(what, "itemsize") else repr(what)


def _action_text(action: Action) -> str:
    return str(getattr(action.run, "__qualname__", action.run)).replace(".<locals>", "").replace(".<lambda>", "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _wrapped(title: str, parts: list[str], most: int = 12, width: int = _WIDTH) -> list[str]:
    if len(parts) > most:
        parts = [*parts[: most - 1], f"and {len(parts) - most + 1} more"]
    return textwrap.wrap(title + ", ".join(parts or ["nothing"]), width, subsequent_indent=" " * len(title))


def _memory(linked: Any) -> list[tuple[str, str]]:
    """What the plan of the block has done."""
    results = [] if linked is None else linked.in_place
    names = [f"{call.op.name} of {scaled(v.nbytes, 'B')} in place of an operand" for call, v in results]
    return [("memory", name) for name in names]


def _notes(notes: list[tuple[str, str]]) -> list[str]:
    """What passes have done: each pass once, with what it did most often first."""
    if not notes:
        return []
    lines = ["", "passes:"]
    for name in dict.fromkeys(name for name, _ in notes):
        told = Counter(text for who, text in notes if who == name)
        parts = [text if n == 1 else f"{n} x {text}" for text, n in told.most_common()]
        lines += ["  " + line for line in _wrapped(f"{name}: ", parts, 6, _WIDTH - 2)]
    return lines
