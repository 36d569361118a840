"""Every program that the op table can produce, for the tests that compile and run them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tensorgrad.dispatch import OPS
from tensorgrad.errors import DTypeError
from tensorgrad.expr import Program
from tensorgrad.ops import load_all
from tensorgrad.ops.elementwise import Elementwise

__all__ = ["DTYPES", "all_programs", "formulas"]

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "bool", "complex64")

load_all()
OWN = dict(OPS)  # what the package defines, before tests make ops of their own: one of 35 inputs has 2^35 masks


# Inputs that are columns of one array, and so need a gradient together or not at all.
TOGETHER = {"lstm_gates": (4, 1), "gru_gates": (3, 3, 1)}


def masks(op: Elementwise) -> Iterator[tuple[bool, ...]]:
    """Every set of inputs that may need a gradient."""
    groups = TOGETHER.get(op.name, (1,) * len(op.inputs))
    for chosen in product((False, True), repeat=len(groups)):
        if any(chosen):
            yield tuple(needed for size, needed in zip(groups, chosen, strict=True) for _ in range(size))


def formulas() -> list[Elementwise]:
    """The forward formulas and their backward formulas for every set of inputs that may need a gradient."""
    found: dict[str, Elementwise] = {}
    for op in [op for op in OWN.values() if isinstance(op, Elementwise) and not op.derived]:
        found[op.name] = op
        for needs in masks(op):
            derived = op.plan(needs).kernel
            if derived is not None:
                found[derived.name] = derived
    return list(found.values())


def all_programs(dtype: str) -> Iterator[tuple[str, Program]]:
    """(op name, typed program) of every formula that is defined for ``dtype``, all inputs being arrays of it.

    Programs that differ in nothing but the name come once. Integers and bools have no gradients.
    """
    seen = set()
    for op in formulas():
        if op.derived and dtype in ("int64", "bool"):
            continue
        try:
            program = op.specialize((dtype,) * len(op.inputs))
        except DTypeError:
            continue
        if (program.code, program.outputs) not in seen:
            seen.add((program.code, program.outputs))
            yield op.name, program
