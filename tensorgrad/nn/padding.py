"""Padding layers: a border around the last dimensions."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..ops.checks import integer, integers_of
from ..ops.rearrange import pad
from ..tensor import Tensor
from .module import Module

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    """``padding``: one width for all sides, or before and after each dimension, the last dimension first."""

    dims: int
    mode: str
    value: float = 0.0

    def __init__(self, padding: Any) -> None:
        super().__init__()
        name = type(self).__name__
        several = integers_of(name, padding)
        self.padding = (integer(name, "padding", padding),) * (2 * self.dims) if several is None else several
        if len(self.padding) != 2 * self.dims:
            raise ValueError(f"{name} needs 1 or {2 * self.dims} widths, got {padding!r}.")

    def forward(self, input: Tensor) -> Tensor:
        if self.mode == "circular" and input.ndim not in (self.dims + 1, self.dims + 2):
            raise ShapeError(f"expected {self.dims + 1}D or {self.dims + 2}D input (got {input.ndim}D input)")
        if self.mode == "constant":
            return pad(input, self.padding, self.mode, self.value)
        return pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _Constant(_Pad):
    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


def _family(base: type[_Pad], kind: str, dims: int, doc: str, mode: str | None = None) -> type[_Pad]:
    body: dict[str, Any] = {"dims": dims, "__doc__": doc, "__module__": __name__}
    if mode is not None:
        body["mode"] = mode
    return type(f"{kind}{dims}d", (base,), body)


ZeroPad1d, ZeroPad2d, ZeroPad3d = (
    _family(_Pad, "ZeroPad", n, f"Zeros around the last {n} dimensions.", "constant") for n in (1, 2, 3)
)
ConstantPad1d, ConstantPad2d, ConstantPad3d = (
    _family(_Constant, "ConstantPad", n, f"``value`` around the last {n} dimensions.") for n in (1, 2, 3)
)
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (
    _family(_Pad, "ReflectionPad", n, f"The last {n} dimensions mirrored at their borders.", "reflect")
    for n in (1, 2, 3)
)
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (
    _family(_Pad, "ReplicationPad", n, f"The border of the last {n} dimensions repeated.", "replicate")
    for n in (1, 2, 3)
)
CircularPad1d, CircularPad2d, CircularPad3d = (
    _family(_Pad, "CircularPad", n, f"The last {n} dimensions continued periodically.", "circular") for n in (1, 2, 3)
)
