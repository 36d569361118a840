"""Clocks, the system's random numbers and files: what a function reads there may be another value in every call, and a
replay would repeat that of the first.

Nothing tells afterwards that they were read. So where a function's code has one of their names, what its own code calls
is watched while it is captured.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import date
from types import FrameType
from typing import Any

import numpy as np

from ..autograd.node import describe_line

__all__ = ["watching"]

_READ = {
    **{getattr(time, name): f"time.{name}" for name in (
        "time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time",
        "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns", "localtime", "gmtime",
        "ctime", "asctime", "strftime",
    ) if hasattr(time, name)},
    os.urandom: "os.urandom", os.times: "os.times", os.umask: "os.umask",
    **({os.getloadavg: "os.getloadavg"} if hasattr(os, "getloadavg") else {}),
}  # fmt: skip
_DATES = frozenset(("now", "utcnow", "today"))
_WRITTEN_IN_PYTHON = {
    **{f.__code__: f"uuid.{f.__name__}" for f in (uuid.uuid1, uuid.uuid4)},
    **{f.__code__: f"secrets.{f.__name__}" for f in (
        secrets.randbelow, secrets.token_bytes, secrets.token_hex, secrets.token_urlsafe,
    )},
    **{f.__code__: "the system's random numbers" for f in (
        random.SystemRandom.random, random.SystemRandom.getrandbits, random.SystemRandom.randbytes,
    )},
    subprocess.Popen.__init__.__code__: "the result of another program",
    random.Random.__init__.__code__: "the system's random numbers",  # unless it is given a seed
}  # fmt: skip
_FRAMES = frozenset(("f_locals", "f_back", "f_lineno"))
"""What code asks of the frames of its callers."""
_BETWEEN = frozenset(
    ("random", "secrets", "inspect", "subprocess", "os")
)  # modules whose functions ask for them in the user's place
_PROGRAM = "the result of another program"
_FILES: dict[Any, str] = {
    io.open: "a file", os.open: "a file", os.stat: "the state of a file", os.lstat: "the state of a file",
    os.access: "the state of a file", os.listdir: "a directory", os.scandir: "a directory", np.fromfile: "a file",
    builtins.input: "the input", os.read: "a file", os.readlink: "the state of a file", os.system: _PROGRAM,
}  # fmt: skip
_OF_FILES = frozenset(("read", "read1", "readinto", "readline", "readlines", "getvalue", "getbuffer", "tell"))
_FILE_NAMES = frozenset((
    "open", "read_text", "read_bytes", "load", "loadtxt", "genfromtxt", "fromfile", "memmap", "exists", "is_file",
    "is_dir", "isfile", "isdir", "getsize", "getmtime", "stat", "lstat", "access", "listdir", "scandir", "iterdir",
    "glob", "rglob", "walk", "input", "readlink", "which", "system", "popen", "run", "call", "check_call",
    "check_output", "Popen", "getoutput", "getstatusoutput", *_OF_FILES,
))  # fmt: skip
_OWN_READERS = ("tensorgrad.serialization", "tensorgrad.io", "tensorgrad.utils.data", "tensorgrad.hub")
_WHILE_IMPORTING = ("importlib", "linecache", "tokenize", "traceback", "inspect", "warnings", "zipimport", "pkgutil")
"""Modules that look at files of code by themselves."""

_NAMES = frozenset((
    *(name.partition(".")[2] for name in (*_READ.values(), *_WRITTEN_IN_PYTHON.values())), *_DATES,
    *(name for name in dir(random.SystemRandom) if not name.startswith("_")), "randbits", "Random", "RandomState",
    *_FILE_NAMES,
))  # fmt: skip


def watching(names: set[str], is_users: Callable[[str | None], bool]) -> Watch:
    """A block to run code with these names in; calls in modules for which ``is_users`` holds are seen."""
    frames = bool(names & _FRAMES)
    return Watch(is_users if frames or names & _NAMES else None, frames)


class Watch:
    """``found``: in words, what was read first within the block; None if nothing.

    A profiler that is set already goes on when the block ends, and sees nothing of it.
    """

    def __init__(self, is_users: Callable[[str | None], bool] | None, frames: bool):
        self.found: str | None = None
        self._is_users = is_users
        self._frames = frames
        self._before: Any = None

    def __enter__(self) -> Watch:
        if self._is_users is not None:
            self._before = sys.getprofile()
            sys.setprofile(self._see)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_users is None:
            return
        sys.setprofile(None)
        if hasattr(self._before, "enable"):  # cProfile's is no function
            self._before.enable()
        else:
            sys.setprofile(self._before)

    def _see(self, frame: FrameType, event: str, what: Any) -> None:
        if event == "c_call":
            name = _READ.get(what)
            if name is None and what.__name__ in _DATES and _is_date(what):
                name = f"datetime.{what.__name__}"
            if name is None and self._frames and what is sys._getframe:
                name = "the frames of its callers"
            if name is None and (file := _file_read_by(what)) is not None:
                self._note_file(file, frame)
            caller: FrameType | None = frame
        elif event == "call":
            name, caller = _WRITTEN_IN_PYTHON.get(frame.f_code), frame.f_back
            if frame.f_code is random.Random.__init__.__code__ and frame.f_locals["x"] is not None:
                name = None
        else:
            return
        while name is not None and caller is not None and caller.f_globals.get("__name__") in _BETWEEN:
            caller = caller.f_back
        if name is None or self.found is not None or caller is None or self._is_users is None:
            return
        if self._is_users(caller.f_globals.get("__name__")):
            line = describe_line((caller.f_code, caller.f_lasti))
            self.found = f"it reads {name} at {line}, which would stand still in replays"

    def _note_file(self, name: str, frame: FrameType) -> None:
        """Note the user's line, unless Python or this package has looked for code there."""
        caller: FrameType | None = frame
        while caller is not None and self._is_users is not None and not self._is_users(module := _module_of(caller)):
            ours = module.startswith("tensorgrad") and not module.startswith(_OWN_READERS)
            if ours or module.startswith(_WHILE_IMPORTING):
                return
            caller = caller.f_back
        if caller is not None and self.found is None:
            line = describe_line((caller.f_code, caller.f_lasti))
            self.found = f"it reads {name} at {line}, which replays would not do again"


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__") or "")


def _file_read_by(what: Any) -> str | None:
    """What a function that is not Python reads there, in words."""
    name = _FILES.get(what)
    if name is None and what.__name__ in _OF_FILES and isinstance(getattr(what, "__self__", None), io.IOBase):
        return "a file"
    return name


def _is_date(method: Any) -> bool:
    kind = getattr(method, "__self__", None)
    return isinstance(kind, type) and issubclass(kind, date)
