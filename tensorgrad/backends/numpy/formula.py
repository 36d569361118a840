"""Formulas on NumPy-like arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...dtypes import key_of
from ...expr import Program
from .convert import converted
from .evaluate import evaluate

__all__ = ["NumpyFormula"]


class NumpyFormula:
    """``f(*arrays_and_numbers, out=None)``: evaluates a formula, specialized per operand dtypes."""

    def __init__(self, name: str, specialize: Callable[[tuple[str, ...]], Program], xp: Any):
        self.name = name
        self.specialize = specialize
        self.xp = xp

    def __call__(self, *args: Any, out: Any = None) -> Any:
        program = self.specialize(tuple(map(key_of, args)))
        results = evaluate(program, args, self.xp)
        if out is not None:
            targets = out if isinstance(out, tuple) else (out,)
            for target, result in zip(targets, results, strict=True):
                if target.shape != result.shape:
                    raise ValueError(f"{self.name}: out has shape {target.shape}, the result {result.shape}")
                if result.dtype.kind == "c" and target.dtype.kind != "c":
                    result = result.real
                target[...] = converted(self.xp, result, target.dtype)
            return out
        return results[0] if len(results) == 1 else results
