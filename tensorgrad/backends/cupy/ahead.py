"""What can be compiled before it is needed: the ``.cu`` files, and the formulas of the op table.

A formula's kernel is compiled when it is first used, for its operands' dtypes and layout. Ahead of that come those that
most programs need: forward and backward for every set of inputs that may need a gradient (of more than six inputs: for
each by itself and for all), on dense arrays of one dtype; formulas of two operands also with a Python number as the
second. CuPy keeps what it compiles in a folder (``CUPY_CACHE_DIR``), from which later processes load it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from typing import Any

from ...errors import DTypeError
from ...expr import Program
from ...ops.elementwise import Elementwise
from .kernels import SOURCES, Kernels
from .launch import Launcher, dense_layout
from .move_kernels import cast_program, casts
from .printer import kernel, unit

__all__ = ["COMMON", "compilations", "formulas", "programs", "with_numbers"]

COMMON = ("float32", "float16", "bfloat16", "int64", "bool")
"""The dtypes whose formulas are compiled when none is named."""

# inputs that are columns of one array, and so need a gradient together or not at all
_TOGETHER = {"lstm_gates": (4, 1), "gru_gates": (3, 3, 1)}

# the sets of inputs double with each: of more than these, a program needs a few that cannot be guessed
_EVERY_SET = 6


def _masks(op: Elementwise) -> Iterator[tuple[bool, ...]]:
    """Every set of inputs that may need a gradient; of many inputs each by itself, and all."""
    groups = _TOGETHER.get(op.name, (1,) * len(op.inputs))
    count = len(groups)
    every: Iterable[tuple[bool, ...]] = product((False, True), repeat=count)
    if count > _EVERY_SET:
        every = [*(tuple(i == alone for i in range(count)) for alone in range(count)), (True,) * count]
    for chosen in every:
        if any(chosen):
            yield tuple(needed for size, needed in zip(groups, chosen, strict=True) for _ in range(size))


def formulas(ops: Iterable[Any]) -> list[Elementwise]:
    """The forward formulas among these ops, and their backward formulas for every set of inputs."""
    found: dict[str, Elementwise] = {}
    for op in [op for op in ops if isinstance(op, Elementwise) and not op.derived]:
        found[op.name] = op
        for needs in _masks(op):
            derived = op.plan(needs).kernel
            if derived is not None:
                found[derived.name] = derived
    return list(found.values())


def programs(ops: Iterable[Any], dtype: str) -> Iterator[tuple[str, Program]]:
    """(op name, typed program) of every formula that is defined for ``dtype``, all inputs being arrays of it.

    Programs that differ in nothing but the name come once. Integers and bools have no gradients.
    """
    seen = set()
    for op in formulas(ops):
        if op.derived and dtype in ("int64", "bool"):
            continue
        try:
            program = op.specialize((dtype,) * len(op.inputs))
        except DTypeError:
            continue
        if (program.code, program.outputs) not in seen:
            seen.add((program.code, program.outputs))
            yield op.name, program


def with_numbers(ops: Iterable[Any], dtype: str) -> Iterator[tuple[str, Program]]:
    """The formulas of two operands, the second being a Python number, as in ``x * 2``."""
    number = {"int64": "py:int", "bool": "py:bool"}.get(dtype, "py:float")
    for op in ops:
        if isinstance(op, Elementwise) and not op.derived and len(op.inputs) == 2:
            try:
                yield op.name, op.specialize((dtype, number))
            except DTypeError:
                continue


def compilations(
    ops: Iterable[Any], dtypes: Iterable[str], kernels: Kernels, launcher: Launcher
) -> list[tuple[str, Callable[[], Any]]]:
    """(what, a call that compiles it) for every file and formula; each text once, and as the launcher will print it."""
    ops = list(ops)
    found: list[tuple[str, Callable[[], Any]]] = []
    for source in SOURCES:
        # as they are asked for: where a file has many instances, each by itself
        parts = [source.part(*names) for _, names in source.instances] or [source]
        found += [(f"{part.names[0]} of {part.file}", partial(kernels.compile, part)) for part in parts]
    seen, dtypes = set(), list(dtypes)
    for dtype in dtypes:
        to_others = [
            ("cast", cast_program(other, (dtype,))) for other in dtypes if other != dtype and casts(dtype, other)
        ]
        for name, program in (*programs(ops, dtype), *with_numbers(ops, dtype), *to_others):
            text = unit([program], [kernel(program, dense_layout(program), "formula")])
            if text not in seen:
                seen.add(text)
                found.append((f"{name} of {dtype}", partial(_compile, launcher, text)))
    return found


def _compile(launcher: Launcher, text: str) -> None:
    launcher.compile(text, "formula").compile()  # type: ignore[attr-defined]
