"""Every program that the op table can produce, for the tests that compile and run them."""

from __future__ import annotations

from collections.abc import Iterator

from tensorgrad.backends.cupy import ahead
from tensorgrad.dispatch import OPS
from tensorgrad.expr import Program
from tensorgrad.ops import load_all
from tensorgrad.ops.elementwise import Elementwise

__all__ = ["DTYPES", "OWN", "all_programs", "formulas"]

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "bool", "complex64")

load_all()
OWN = dict(OPS)  # what the package defines, before tests make ops of their own


def formulas() -> list[Elementwise]:
    """The forward formulas and their backward formulas for every set of inputs that may need a gradient."""
    return ahead.formulas(OWN.values())


def all_programs(dtype: str) -> Iterator[tuple[str, Program]]:
    """(op name, typed program) of every formula that is defined for ``dtype``, all inputs being arrays of it."""
    return ahead.programs(OWN.values(), dtype)
