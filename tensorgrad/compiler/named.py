"""Names that code asks objects for: ``x.name``, and ``getattr(x, "name")``.

A method that no code names, and that neither Python nor a library calls by itself, is never run; an attribute that none
names is never read. Where names are made while code runs (``getattr(x, name)``), nothing can be left out.
"""

from __future__ import annotations

import dis
import operator
from collections.abc import Iterator
from types import CodeType
from typing import Any

__all__ = ["globals_in", "goes_through", "imports_in", "names_in", "names_of_getter", "texts_in"]

_BY_NAME = frozenset(("getattr", "setattr", "delattr", "hasattr"))
_OF_ALL = frozenset(("vars", "__dict__", "__getattribute__", "getmembers", "asdict", "astuple", "eval", "exec"))
_GETTERS = frozenset(("attrgetter", "methodcaller"))
_PROXIES = frozenset(("__getattr__", "__getattribute__", "__setattr__", "__delattr__"))
"""Methods that pass on a name which other code has named."""
_WHOLE = frozenset(("items", "values", "copy", "deepcopy", "dict"))
_MERGES = frozenset(("DICT_MERGE", "DICT_UPDATE"))
_NAMED = frozenset(("LOAD_NAME", "STORE_NAME", "DELETE_NAME"))
_CALLS = frozenset(("PRECALL",) if "PRECALL" in dis.opmap else ("CALL", "CALL_FUNCTION"))
"""Instructions before which nothing but the arguments lies above the function."""


def names_in(code: CodeType, *, new: bool = False) -> tuple[set[str], bool]:
    """The names, and whether there may be others that are made while the code runs.

    ``new``: the code's first argument is an object that is made just now: what it is given is not what others have.
    """
    names: set[str] = set()
    open_ended = False
    for part in _parts(code):
        names.update(part.co_names if not new or part is not code else _but_given(part))
        texts = {x for x in part.co_consts if type(x) is str and len(x) < 200}
        if names & _GETTERS:
            names.update(word for text in texts for word in text.split("."))
            open_ended = open_ended or not texts
        if part.co_name in _PROXIES and _OF_ALL & set(part.co_names):
            names.update(texts)
        elif _OF_ALL & set(part.co_names):
            open_ended = True
        if _BY_NAME & set(part.co_names):
            asked = list(_asked_by_name(part))
            names.update(name for name in asked if name is not None)
            open_ended = open_ended or None in asked
    return names, open_ended


def globals_in(code: CodeType) -> Iterator[str]:
    """The globals that code names: `optimizer.step` is none called `step`."""
    for part in _parts(code):
        for instruction in dis.get_instructions(part):
            if "GLOBAL" in instruction.opname or instruction.opname in _NAMED:
                yield instruction.argval


def imports_in(code: CodeType) -> Iterator[tuple[str, int]]:
    """The modules that code imports while it runs: (name, how many packages above its own)."""
    for part in _parts(code):
        before: list[Any] = []
        for step in dis.get_instructions(part):
            if step.opname == "IMPORT_NAME":
                yield step.argval, before[-2].argval if len(before) > 1 and type(before[-2].argval) is int else 0
            before.append(step)


def texts_in(code: CodeType) -> Iterator[str]:
    """The texts that code has as such: keys of dicts may be among them."""
    for part in _parts(code):
        yield from _texts(part.co_consts)


def goes_through(code: CodeType) -> bool:
    """Whether code may ask a dict for keys that it has not as texts: for all of them."""
    return any(
        not _WHOLE.isdisjoint(part.co_names) or any(s.opname in _MERGES for s in dis.get_instructions(part))
        for part in _parts(code)
    )


def names_of_getter(what: Any) -> set[str]:
    """The names that an ``attrgetter``, ``methodcaller`` or ``itemgetter`` asks for; empty for other objects."""
    if not isinstance(what, (operator.attrgetter, operator.methodcaller, operator.itemgetter)):
        return set()
    arguments: Any = what.__reduce__()[1]
    return {word for text in arguments if isinstance(text, str) for word in text.split(".")}


def _texts(constants: Any) -> Iterator[str]:
    for one in constants:
        if type(one) is str:
            yield one
        elif isinstance(one, (tuple, frozenset)):
            yield from _texts(one)


def _parts(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)


def _but_given(code: CodeType) -> Iterator[str]:
    """The names of code, but for those that are only attributes which its first argument is given."""
    before: Any = None
    for step in dis.get_instructions(code):
        if step.opname == "STORE_ATTR":
            last = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
            if before.opname.startswith("LOAD_FAST") and last == code.co_varnames[0]:
                continue
        if isinstance(step.argval, str) and step.argval in code.co_names:
            yield step.argval
        if step.opname not in ("CACHE", "EXTENDED_ARG"):
            before = step


def _asked_by_name(code: CodeType) -> Iterator[str | None]:
    """The names in calls such as ``getattr(x, "name")``, None for each that is no constant."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG")]
    for at, step in enumerate(steps):
        if step.argval in _BY_NAME and ("GLOBAL" in step.opname or "NAME" in step.opname):
            found = _second_argument(steps, at + 1)
            if found is not None and found.opname == "LOAD_CONST" and type(found.argval) is str:
                yield found.argval
            elif found is None or code.co_name not in _PROXIES or found.argval not in code.co_varnames[1:2]:
                yield None
        elif step.argval in _BY_NAME and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            yield None


def _second_argument(steps: list[dis.Instruction], at: int) -> dis.Instruction | None:
    """The one instruction that makes the second argument of the call whose function was loaded before ``at``; None if
    there is no such call, or more than one instruction."""
    depth = 0
    pushed: dict[int, int] = {}  # which instruction began what lies at a depth
    for i in range(at, len(steps)):
        step = steps[i]
        if step.opname in _CALLS and step.arg == depth:
            if depth < 2:
                return None
            alone = pushed[2] > pushed[1] and pushed.get(3, i) == pushed[2] + 1
            return steps[pushed[2]] if alone else None
        if "JUMP" in step.opname or step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            return None
        now = depth + dis.stack_effect(step.opcode, step.arg if step.opcode >= dis.HAVE_ARGUMENT else None)
        if now < depth:
            pushed = {k: j for k, j in pushed.items() if k <= now}
        for k in range(depth + 1, now + 1):
            pushed[k] = i
        depth = now
        if depth < 0:
            return None
    return None
