"""Names that code asks objects for: ``x.name``, and ``getattr(x, "name")``.

A method that no code names, and that neither Python nor a library calls by itself, is never run; an attribute that none
names is never read. Where names are made while code runs (``getattr(x, name)``), nothing can be left out.
"""

from __future__ import annotations

import builtins
import dis
import functools
import itertools
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

__all__ = [
    "AS_TEXT", "NAMERS", "all_globals", "globals_in", "goes_through", "imports_in", "names_in", "names_of_getter",
    "reads_gradients", "reads_modules", "tells_apart", "texts_in",
]  # fmt: skip

_BY_NAME = frozenset(("getattr", "setattr", "delattr", "hasattr"))
_OF_ALL = frozenset(("vars", "__dict__", "__getattribute__", "getmembers", "asdict", "astuple"))
_MAKERS = frozenset(("eval", "exec"))
"""What may name anything, as a global; as an attribute it mostly is a method, such as a module's ``eval()``."""
_GETTERS = frozenset(("attrgetter", "methodcaller"))
_PROXIES = frozenset(("__getattr__", "__getattribute__", "__setattr__", "__delattr__"))
"""Methods that pass on a name which other code has named."""
_WHOLE = frozenset(("items", "values", "copy", "deepcopy", "dict"))
_MERGES = frozenset(("DICT_MERGE", "DICT_UPDATE"))
_NAMED = frozenset(("LOAD_NAME", "STORE_NAME", "DELETE_NAME"))
_CALLS = frozenset(("PRECALL",) if "PRECALL" in dis.opmap else ("CALL", "CALL_FUNCTION"))
"""Instructions before which nothing but the arguments lies above the function."""
_CALLED = _CALLS | {"CALL_METHOD"}
_ASIDE = frozenset(("PUSH_NULL", "KW_NAMES", "NOP"))
_BY_KEY = frozenset(("get", "pop", "setdefault", "__getitem__", "__setitem__", "__contains__"))
_ENDS = frozenset(("RAISE_VARARGS", "RETURN_VALUE", "STORE_FAST", "STORE_SUBSCR", "STORE_ATTR", "POP_TOP"))
_TEXTS = frozenset(("str", "repr", "format", "ascii"))
_MARKS_CALLS = sys.version_info >= (3, 11)
"""Whether an instruction that loads a global tells that it is to be called."""
AS_TEXT = frozenset(("__str__", "__repr__", "__format__"))
"""Methods that make a text of an object."""
NAMERS = (getattr, setattr, delattr, hasattr, vars, eval, exec, globals, operator.attrgetter, operator.methodcaller)
"""What asks for attributes or globals by names that may be made while code runs."""


def names_in(code: CodeType, *, new: bool = False) -> tuple[set[str], bool]:
    """The names, and whether there may be others that are made while the code runs.

    ``new``: the code's first argument is an object that is made just now: what it is given is not what others have.
    """
    names: set[str] = set()
    open_ended = False
    for part in _parts(code):
        names.update(part.co_names if not new or part is not code else _but_given(part))
        texts = {x for x in part.co_consts if type(x) is str and len(x) < 200}
        steps = _steps(part)
        if names & _GETTERS:
            asked = list(_given_to_getters(steps))
            names.update(word for text in asked if text is not None for word in text.split("."))
            open_ended = open_ended or None in asked
        names.update(_matched(steps))
        if _formats(steps) and "@pytest_ar" not in part.co_names:  # which makes words for an error
            names |= AS_TEXT
        of_all = not _OF_ALL.isdisjoint(part.co_names)
        open_ended = open_ended or not _MAKERS.isdisjoint(_globals(steps))
        if part.co_name in _PROXIES and of_all:
            names.update(texts)
            open_ended = open_ended or not _passes_on(steps, part.co_varnames[1:2])
        elif of_all:
            open_ended = True
        if _BY_NAME & set(part.co_names):
            asked = list(_asked_by_name(part, steps))
            names.update(name for name in asked if name is not None)
            open_ended = open_ended or None in asked
    return names, open_ended


def globals_in(code: CodeType) -> Iterator[str]:
    """The globals that code names: `optimizer.step` is none called `step`."""
    for part in _parts(code):
        yield from _globals(_steps(part))


def _globals(steps: Iterable[dis.Instruction]) -> Iterator[str]:
    return (step.argval for step in steps if "GLOBAL" in step.opname or step.opname in _NAMED)


def all_globals(code: CodeType) -> bool:
    """Whether code may read any global, by a name that it makes."""
    for part in _parts(code):
        steps = _steps(part)
        if not _MAKERS.isdisjoint(_globals(steps)):
            return True
        for at, step in enumerate(steps):
            if step.argval == "globals" and "GLOBAL" in step.opname:
                rest = [one for one in steps[at + 1 : at + 6] if one.opname not in (*_CALLS, *_ASIDE, "CALL")]
                if not _takes(rest, lambda one: one.opname == "LOAD_CONST"):
                    return True
    return False


def reads_modules(code: CodeType) -> bool:
    """Whether code may read ``sys.modules``, which is not called, as ``model.modules()`` is."""
    for part in _parts(code):
        for step in _steps(part) if "modules" in part.co_names else ():
            if step.argval == "modules" and step.opname != "LOAD_METHOD" and "NULL" not in step.argrepr:
                return True
    return False


def reads_gradients(code: CodeType) -> bool:
    """Whether code asks an object for its ``grad``, other than ``autograd.grad``."""
    for part in _parts(code):
        before = None
        for step in _steps(part) if "grad" in part.co_names else ():
            if step.argval == "grad" and step.opname in ("LOAD_ATTR", "LOAD_METHOD") and before != "autograd":
                return True
            before = step.argval
    return False


def tells_apart(code: CodeType, others: Mapping[str, Any]) -> bool:
    """Whether code asks if two objects are the same one, of which the second is no constant and no class, or for an
    ``id()``. ``others``: its globals."""
    for part in _parts(code):
        steps = _steps(part)
        if "id" in _globals(steps) or any(
            step.opname == "IS_OP" and not _is_class(steps[:at], others) for at, step in enumerate(steps)
        ):
            return True
    return False


def _is_class(steps: list[dis.Instruction], others: Mapping[str, Any]) -> bool:
    """Whether these end with the load of a constant or a class: ``Box``, ``x.__class__``, ``type(x)``."""
    last = steps[-1]
    if last.opname == "CALL" or last.opname in _CALLED:
        return any(step.argval == "type" and "GLOBAL" in step.opname for step in steps[-6:])
    if "GLOBAL" in last.opname:
        return isinstance(others.get(last.argval, vars(builtins).get(last.argval)), type)
    return last.opname == "LOAD_CONST" or last.argval == "__class__"


def imports_in(code: CodeType) -> Iterator[tuple[str, int]]:
    """The modules that code imports while it runs: (name, how many packages above its own)."""
    for part in _parts(code):
        before: list[Any] = []
        for step in _steps(part):
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
        not _WHOLE.isdisjoint(part.co_names) or any(s.opname in _MERGES for s in _steps(part)) for part in _parts(code)
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


@functools.lru_cache(maxsize=256)  # of a function's code they are asked six times in a row
def _steps(code: CodeType) -> list[dis.Instruction]:
    """The instructions of one code. Nobody changes the list."""
    return [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG")]


def _but_given(code: CodeType) -> Iterator[str]:
    """The names of code, but for those that are only attributes which its first argument is given."""
    before: Any = None
    for step in _steps(code):
        if step.opname == "STORE_ATTR":
            last = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
            if before.opname.startswith("LOAD_FAST") and last == code.co_varnames[0]:
                continue
        if isinstance(step.argval, str) and step.argval in code.co_names:
            yield step.argval
        before = step


def _given_to_getters(steps: list[dis.Instruction]) -> Iterator[str | None]:
    """The texts that ``attrgetter`` and ``methodcaller`` are called with, None for each that is no constant."""
    for at, step in enumerate(steps):
        if step.argval not in _GETTERS or not step.opname.startswith("LOAD"):
            continue
        given = at + 1
        while given < len(steps) and steps[given].opname in _ASIDE:
            given += 1
        first = given
        while given < len(steps) and steps[given].opname == "LOAD_CONST" and type(steps[given].argval) is str:
            yield steps[given].argval
            given += 1
        ends = given < len(steps) and (steps[given].opname in _CALLED or step.argval == "methodcaller")
        if given == first or not ends:
            yield None


def _matched(steps: list[dis.Instruction]) -> Iterator[str]:
    """The attributes that patterns such as ``case Point(x=0)`` ask for."""
    for before, step in itertools.pairwise(steps):
        if step.opname == "MATCH_CLASS":
            yield from before.argval
            if step.arg:
                yield "__match_args__"


def _formats(steps: list[dis.Instruction]) -> bool:
    """Whether code makes a text of an object, other than for the words of an error."""
    for at, step in enumerate(steps):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval == "format":
            return True
        if step.opname == "LOAD_GLOBAL" and step.argval in _TEXTS and (not _MARKS_CALLS or "NULL" in step.argrepr):
            return True
        if (
            step.opname.startswith("FORMAT_")
            or step.opname == "BINARY_MODULO"
            or (step.opname == "BINARY_OP" and step.argrepr == "%")
        ):
            behind = (one.opname for one in steps[at:] if one.opname in _ENDS or "JUMP" in one.opname)
            if next(behind, "") != "RAISE_VARARGS":
                return True
    return False


def _passes_on(steps: list[dis.Instruction], name: tuple[str, ...]) -> bool:
    """Whether a method of ``_PROXIES`` asks for the very name that it is given, or for names that it has as texts."""

    def loads(step: dis.Instruction) -> bool:
        last = step.argval[-1:] if isinstance(step.argval, tuple) else (step.argval,)
        return (step.opname.startswith("LOAD_FAST") and last == name) or (
            step.opname == "LOAD_CONST" and type(step.argval) is str
        )

    if any(step.opname == "STORE_FAST" and (step.argval,) == name for step in steps):
        return False
    for at, step in enumerate(steps):
        if step.argval not in _OF_ALL or not step.opname.startswith("LOAD"):
            continue
        rest = [one for one in steps[at + 1 : at + 9] if one.opname not in _ASIDE]
        calls = [i for i, one in enumerate(rest) if one.opname in _CALLED]
        if step.argval == "__getattribute__":
            good = bool(calls) and calls[0] > 0 and loads(rest[calls[0] - 1])
        elif step.argval == "vars":
            good = bool(calls) and _takes([one for one in rest[calls[0] + 1 :] if one.opname != "CALL"], loads)
        else:
            good = step.argval == "__dict__" and _takes(rest, loads)
        if not good:
            return False
    return True


def _takes(steps: list[dis.Instruction], loads: Callable[[dis.Instruction], bool]) -> bool:
    """Whether the first of these ask a dict that lies there for a key for which ``loads`` holds, or whether it has
    one."""
    if not steps:
        return False
    if steps[0].opname in ("LOAD_ATTR", "LOAD_METHOD") and steps[0].argval in _BY_KEY:
        return len(steps) > 1 and loads(steps[1])
    if len(steps) > 1 and loads(steps[0]):
        return steps[1].opname.endswith("_SUBSCR") or (steps[1].opname == "BINARY_OP" and steps[1].argrepr == "[]")
    return steps[0].opname == "CONTAINS_OP"


def _asked_by_name(code: CodeType, steps: list[dis.Instruction]) -> Iterator[str | None]:
    """The names in calls such as ``getattr(x, "name")``, None for each that is no constant."""
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
