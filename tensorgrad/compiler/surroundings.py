"""What functions of Python's library tell of the process around a call: its working directory, how decimals are
rounded, which messages are logged.

Code that names one of these functions rests on what it tells, which is asked again before each replay.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["told_of"]

Told = Callable[[], tuple[Any, ...]]


def _directory() -> tuple[Any, ...]:
    try:
        return (os.getcwd(),)
    except FileNotFoundError:  # it was removed
        return ()


def _decimals() -> tuple[Any, ...]:
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return ()
    at = decimal.getcontext()
    return at.prec, at.rounding, at.Emin, at.Emax, at.capitals, at.clamp, repr(sorted(map(str, at.traps.items())))


def _loggers() -> tuple[Any, ...]:
    every = {"": logging.root, **logging.root.manager.loggerDict}
    found: list[Any] = [logging.root.manager.disable]
    for name, one in every.items():
        if isinstance(one, logging.Logger):
            found += (name, one.level, one.disabled, one.propagate, len(one.handlers))
    return tuple(found)


def _locale() -> tuple[Any, ...]:
    locale = sys.modules.get("locale")
    return () if locale is None else (locale.setlocale(locale.LC_ALL),)


def _thread() -> tuple[Any, ...]:
    return threading.get_ident(), threading.current_thread().name


def _temporary() -> tuple[Any, ...]:
    tempfile = sys.modules.get("tempfile")
    return () if tempfile is None else (tempfile.gettempdir(),)


def _processors() -> tuple[Any, ...]:
    asked = getattr(os, "sched_getaffinity", None)
    return () if asked is None else tuple(sorted(asked(0)))


_TOLD: tuple[tuple[str, Told, frozenset[str]], ...] = (
    ("the working directory", _directory, frozenset((
        "getcwd", "getcwdb", "cwd", "absolute", "resolve", "abspath", "realpath", "relpath", "samefile",
    ))),
    ("the context of decimals", _decimals, frozenset(("Decimal", "decimal", "getcontext", "localcontext"))),
    ("the levels of loggers", _loggers, frozenset(("getLogger",))),
    ("the locale", _locale, frozenset(("getlocale", "localeconv", "setlocale", "strcoll", "strxfrm"))),
    ("the thread", _thread, frozenset(("current_thread", "currentThread", "get_ident", "get_native_id"))),
    ("the number of threads", lambda: (threading.active_count(),), frozenset(("active_count", "activeCount"))),
    ("the processors", _processors, frozenset(("sched_getaffinity", "process_cpu_count"))),
    ("the time between threads", lambda: (sys.getswitchinterval(),), frozenset(("getswitchinterval",))),
    ("the limit of recursion", lambda: (sys.getrecursionlimit(),), frozenset(("getrecursionlimit",))),
    ("NumPy's treatment of errors", lambda: (repr(np.geterr()),), frozenset(("geterr",))),
    ("how NumPy prints", lambda: (repr(np.get_printoptions()),), frozenset((
        "get_printoptions", "array2string", "array_repr", "array_str",
    ))),
    ("the directory of temporary files", _temporary, frozenset(("gettempdir", "gettempdirb", "gettempprefix"))),
)  # fmt: skip


def told_of(names: set[str]) -> Iterator[tuple[str, Told]]:
    """(what it is in words, what tells it) of all that functions with these names tell."""
    for what, told, of in _TOLD:
        if names & of:
            yield what, told
