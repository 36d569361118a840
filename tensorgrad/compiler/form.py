"""``Form``: how a program is called and what its caller gets, which a saved program needs besides its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dtypes import get_default_dtype
from ..utils._pytree import TreeSpec
from .signature import TENSOR

if TYPE_CHECKING:
    from .result import Result
    from .signature import Signature

__all__ = ["Form", "Slot"]


class Slot:
    """The place of a tensor among plain data."""

    __slots__ = ("number",)

    def __init__(self, number: int):
        self.number = number


class Form:
    """``leaves``, ``spec``: the arguments, with Slots for the tensors; ``same``: by tensor, the number of the first one
    of the same array; ``result``: what the function returns; ``outputs``: how many of the program's outputs that needs,
    None for all; ``trouble``: what a program from a file could not do, if so; ``family``: that of programs of other
    sizes, if there is one; ``raw``: the program as it was written, without what its backward pass wants of it."""

    def __init__(
        self, signature: Signature, result: Result, outputs: int | None, trouble: str | None, family: Any,
        raw: Any,
    ):  # fmt: skip
        self.leaves: list[Any] = []
        self.same: list[int] = []
        for leaf, part in zip(signature.leaves, signature.key[1], strict=True):
            if leaf is TENSOR:
                self.same.append(part[-1])
                leaf = Slot(len(self.same) - 1)
            self.leaves.append(leaf)
        self.spec: TreeSpec = signature.spec
        self.result = result
        self.outputs = outputs
        self.default_dtype = get_default_dtype().name
        self.trouble = trouble
        self.family = family
        self.raw = raw
