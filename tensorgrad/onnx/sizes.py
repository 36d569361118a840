"""Sizes that depend on the input's: polynomials in the dynamic axes, found by running a model at several sizes.

An axis that may vary gets a name. Every number that a recording holds (a shape, where a slice ends) is seen once for
each choice of sizes; if a polynomial with at most one factor of each name explains all that was seen, it stands for the
number from then on. What no such polynomial explains is refused: a wrong guess would be a wrong model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..errors import TensorgradError

__all__ = ["OnnxExporterError", "Size", "Sizes"]


class OnnxExporterError(TensorgradError, RuntimeError):
    """Raised when a model can't be written as an ONNX graph; says which op or size is the reason."""


class Size:
    """A sum of terms: coefficients by the names that are multiplied, ``{("batch",): 2, (): 1}`` for 2 batch + 1."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[tuple[str, ...], int]):
        self.terms = terms

    @property
    def name(self) -> str | None:
        """The name of the axis that it is, None if it is computed from some."""
        if len(self.terms) == 1:
            ((names, factor),) = self.terms.items()
            if factor == 1 and len(names) == 1:
                return names[0]
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.terms.items())))

    def __repr__(self) -> str:
        return " + ".join("*".join(([str(k)] if k != 1 or not names else []) + list(names)) for names, k in
                          sorted(self.terms.items(), key=lambda term: (-len(term[0]), term[0])))  # fmt: skip


class Sizes:
    """Which sizes a model is run at, and what explains the numbers that were seen.

    Args:
        base: the dynamic axes by name, with three sizes each: two to solve for coefficients, one to check them.
    """

    def __init__(self, base: dict[str, tuple[int, int, int]]):
        self.names = tuple(base)
        if len(base) > 3:
            raise OnnxExporterError(f"there are {len(base)} dynamic axes {self.names}; at most 3 are supported.")
        self.monomials = [part for n in range(len(base) + 1) for part in combinations(self.names, n)]
        self.runs = [{name: base[name][name in varied] for name in self.names} for varied in self.monomials]
        if self.names:
            self.runs.append({name: base[name][2] for name in self.names})
        matrix = [[self._value(names, run) for names in self.monomials] for run in self.runs]
        self._matrix = np.array(matrix, dtype=object)
        self._inverse = np.linalg.inv(np.array(matrix[: len(self.monomials)], dtype=np.float64))

    @staticmethod
    def _value(names: tuple[str, ...], run: dict[str, int]) -> int:
        product = 1
        for name in names:
            product *= run[name]
        return product

    def explain(self, seen: Sequence[Any], what: str) -> Any:
        """The number itself if it is the same in every run, else the Size that gives all. Raises OnnxExporterError."""
        first = seen[0]
        if all(type(value) is type(first) and (value == first or value != value) for value in seen):
            return first
        if all(type(value) is int for value in seen):
            solved = self._inverse @ np.array(seen[: len(self.monomials)], dtype=np.float64)
            terms = {names: round(k) for names, k in zip(self.monomials, solved, strict=True) if round(k)}
            factors = np.array([terms.get(names, 0) for names in self.monomials], dtype=object)
            if list(self._matrix @ factors) == list(seen):
                return Size(terms)
        raise OnnxExporterError(
            f"{what} depends on the sizes of {', '.join(self.names)} in a way that no sum of products explains: "
            f"{list(seen)} at {self.runs}. Export with fixed sizes, or compute it from x.shape by +, - and *."
        )
