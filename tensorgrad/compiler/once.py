"""Generators, iterators, coroutines, open files: their code runs, or their elements are taken, when somebody asks, and
once. No program can repeat that, neither of what a function is given nor of what it returns."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

__all__ = ["is_once", "why_not_given", "why_not_returned"]

_MODULES = ("builtins", "itertools")  # of iterators that keep their place where nobody sees it


def is_once(what: Any) -> bool:
    """Whether its elements, or its result, can be had once only."""
    if isinstance(what, (GeneratorType, AsyncGeneratorType, CoroutineType)):
        return True
    if isinstance(what, io.IOBase):  # one that is only written to tells what has been done
        return not what.closed and what.readable() and (not what.writable() or _may_be_read_on(what))
    return isinstance(what, Iterator) and type(what).__module__ in _MODULES


def _may_be_read_on(file: io.IOBase) -> bool:
    """Whether a file that may be written to as well has something behind its place."""
    try:
        place = file.tell()
        if not isinstance(file, (io.StringIO, io.BytesIO)):
            return place < os.fstat(file.fileno()).st_size
        end = file.seek(0, io.SEEK_END)
        file.seek(place)
    except OSError:  # somebody goes through its lines, or it has no place
        return True
    return place < end


def why_not_given(path: str, what: Any) -> str:
    """Why no program rests on it."""
    return (
        f"compile: {path} is {_name(what)}, whose elements are other ones in each call: what one call takes is gone. A "
        "replay runs no Python and would take none. Pass a list or tuple of the elements, or take the next one outside "
        "and pass that."
    )


def why_not_returned(what: Any) -> str:
    """Why no replay makes it anew."""
    if isinstance(what, CoroutineType):
        return (
            "compile: the function is a coroutine (async def), whose body runs when it is awaited, after the call. "
            "Compile a plain function (def) of what it computes, and call that within the coroutine."
        )
    if isinstance(what, (GeneratorType, AsyncGeneratorType)):
        return (
            "compile: the function returns a generator (of `yield`, or of an expression such as (f(x) for x in xs)), "
            "whose body runs when somebody asks for its elements, after the call. A program holds what runs within the "
            "call: return them as a list or tuple, [f(x) for x in xs], or compile what makes one element and yield "
            "outside."
        )
    return (
        f"compile: the function returns {_name(what)}, which gives its elements after the call, and once. Return them "
        "as a list or tuple: list(...)."
    )


def _name(what: Any) -> str:
    if isinstance(what, (GeneratorType, AsyncGeneratorType)):
        return "a generator"
    if isinstance(what, CoroutineType):
        return "a coroutine"
    if isinstance(what, io.IOBase):
        return "an open file"
    return f"an iterator ({type(what).__name__})"
