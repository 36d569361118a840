"""Python's operators on tensors, with their reflected and in-place forms."""

from __future__ import annotations

from typing import Any

from ..core import native
from ..dtypes import PYTHON_KEYS
from ..tensor import Tensor, install
from . import pointwise as pw
from .arithmetic import pow as checked_pow
from .arithmetic import pow_
from .calls import calls
from .elementwise import Elementwise
from .public import positive
from .signatures import require_tensor_arguments

_NUMBERS = frozenset(PYTHON_KEYS)


def _is_operand(x: Any) -> bool:
    return isinstance(x, Tensor) or type(x) in _NUMBERS or hasattr(x, "dtype") or isinstance(x, (bool, int, float))


def _operator(name: str, op: Elementwise, *, reflected: bool = True, inplace: bool = True) -> None:
    def forward(self: Tensor, other: Any) -> Any:
        if type(other) in _NUMBERS or isinstance(other, Tensor) or _is_operand(other):
            return op(self, other)
        return NotImplemented

    def backward(self: Tensor, other: Any) -> Any:
        if not isinstance(self, Tensor):
            require_tensor_arguments(f"__r{name}__", self=self)
        return op(other, self) if _is_operand(other) else NotImplemented

    def in_place(self: Tensor, other: Any) -> Any:
        return op.into(self, self, other) if _is_operand(other) else NotImplemented

    install(forward if native is None else native.Operator(op, forward, False), f"__{name}__")
    if reflected:
        install(backward if native is None else native.Operator(op, backward, True), f"__r{name}__")
    if inplace:
        install(calls(op, "x operand", alike=True, into=True)(in_place), f"__i{name}__")


for _name, _op in {
    "add": pw.add,
    "sub": pw.sub,
    "mul": pw.mul,
    "truediv": pw.div,
    "floordiv": pw.floor_divide,
    "mod": pw.remainder,
    "pow": pw.pow,
    "and": pw.bitwise_and,
    "or": pw.bitwise_or,
    "xor": pw.bitwise_xor,
    "lshift": pw.bitwise_left_shift,
    "rshift": pw.bitwise_right_shift,
}.items():
    _operator(_name, _op)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _operator(_name, getattr(pw, _name), reflected=False, inplace=False)

# what Python 2 called division; PyTorch has kept the names
for _kept in ("__div__", "__rdiv__", "__idiv__"):
    install(getattr(Tensor, _kept.replace("div", "truediv")), _kept)

install(lambda self: pw.neg(self), "__neg__")
install(lambda self: positive(self), "__pos__")
install(lambda self: pw.abs(self), "__abs__")
install(lambda self: pw.bitwise_not(self), "__invert__")
install(lambda self, other: checked_pow(self, other) if _is_operand(other) else NotImplemented, "__pow__")
install(lambda self, other: pow_(self, other) if _is_operand(other) else NotImplemented, "__ipow__")
