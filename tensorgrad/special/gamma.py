"""Functions around the gamma function: its incomplete integrals, zeta, entropy and products with logarithms."""

from __future__ import annotations

import math
from typing import Any

from ..errors import AutogradError
from ..expr import functions as fn
from ..expr import symbol
from ..ops.elementwise import Elementwise, elementwise
from ..ops.samples import binary, unary


class _InSecondOnly(Elementwise):
    """A function of two whose derivative in the first is not known here, nor in PyTorch."""

    def differentiate(self, F: Any, node: Any, g: Any, inputs: Any, outputs: Any) -> Any:
        if node.asked[0]:
            raise AutogradError(
                f"{self.name}: the derivative with respect to {self.inputs[0]!r} is not implemented; detach() it."
            )
        return super().differentiate(F, node, g, inputs, outputs)

    def _make_plan(self, wrt: tuple[int, ...]) -> Any:
        return super()._make_plan(tuple(i for i in wrt if i))


def _in_second_only(primitive: Any, name: str, second: tuple[float, float], doc: str) -> Elementwise:
    results = (primitive(symbol(0), symbol(1)),)
    samples = binary(input=(1.5, 4), other=second, smooth=False, few=True)
    return _InSecondOnly(name, ("input", "other"), results, samples=samples, doc=doc)


igamma = _in_second_only(
    fn.igamma, "igamma", (0.3, 6), "The regularized lower incomplete gamma function ``P(input, other)``."
)
igammac = _in_second_only(
    fn.igammac, "igammac", (0.3, 6), "The regularized upper incomplete gamma function ``Q(input, other) = 1 - P``."
)
zeta = _in_second_only(
    fn.zeta, "zeta", (0.4, 20), "The Hurwitz zeta function: the sum of ``(other + k)**-input`` over k = 0, 1, 2, ..."
)


def _xlog1py(a: Any, b: Any) -> Any:
    b = fn.alike(b, a)
    return fn.where(fn.eq(a, 0) & ~fn.isnan(b), 0.0, a * fn.log1p(b))


xlog1py = elementwise(
    _xlog1py,
    name="xlog1py",
    vjp=lambda g, y, a, b: (
        g * fn.where(fn.eq(a, 0) & fn.le(b, -1), 0.0, fn.log1p(fn.alike(b, g))), g * (a / (fn.alike(b, g) + 1))
    ),
    samples=binary(input=(0.3, 2), other=(-0.5, 2), few=True),
    doc="``input * log1p(other)``, and 0 where ``input`` is 0.",
)  # fmt: skip


def _entr(x: Any) -> Any:
    x = fn.alike(x, 1.0)  # an unsigned integer has no negative
    return fn.where(fn.gt(x, 0) | fn.isnan(x), -x * fn.log(x), fn.where(fn.eq(x, 0), 0.0, -math.inf))


entr = elementwise(
    _entr,
    name="entr",
    vjp=lambda g, y, x: (g * (-fn.log(x) - 1),),
    samples=unary(0.1, 3, few=True),
    doc="The entropy ``-x log(x)``; 0 at 0, negative infinity below.",
)  # fmt: skip

_by_number: dict[str, Elementwise] = {}


def polygamma(order: int) -> Elementwise:
    """The record of the ``order``-th derivative of digamma; each is made once."""
    return _made(f"polygamma_{order}", lambda input: fn.polygamma(order, input))


def mvlgamma(p: int) -> Elementwise:
    """The record of the logarithm of the gamma function in ``p`` dimensions (Muirhead 1982, 2.1.12)."""

    def formula(input: Any) -> Any:
        total = fn.lgamma(input) + p * (p - 1) / 4 * math.log(math.pi)
        for j in range(1, p):
            total = total + fn.lgamma(input - j / 2)
        return total

    return _made(f"mvlgamma_{p}", formula)


def _made(name: str, formula: Any) -> Elementwise:
    found = _by_number.get(name)
    if found is None:
        found = _by_number[name] = elementwise(formula, name=name)
        found.derived = True  # one of a family; the table samples two of it
    return found


for _record, _low in ((polygamma(2), 0.4), (mvlgamma(3), 1.4)):
    _record.samples = unary(_low, 4, few=True)
