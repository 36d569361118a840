"""What elements must be, as an op: an eager call and every replay of a compiled program ask for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, IndexOutOfRange, LinAlgError
from ..tensor import Tensor, wrap
from .record import Spec, op
from .samples import Sample, int_arg

__all__ = ["require"]

KINDS: dict[str, type[Exception]] = {"index": IndexOutOfRange, "linalg": LinAlgError, "argument": ArgumentError}


def _infer(x: Any, *, low: int, high: int, kind: str, text: str) -> Spec:
    return Spec((), np.dtype(np.int32))


def between(xp: Any, x: Any, *, low: int, high: int, kind: str, text: str) -> Any:
    """The kernel of ``require_between``."""
    elements = x if isinstance(x, np.ndarray) else x.get()
    wrong = ((elements < low) | (elements > high)).reshape(-1)
    if wrong.any():
        at = int(wrong.argmax())
        where = f"(Batch element {at}): " if elements.ndim else ""
        raise KINDS[kind](text.format(value=int(elements.reshape(-1)[at]), where=where))
    return xp.zeros((), dtype=np.int32)


require_between = op(
    "require_between",
    infer=_infer,
    demands=True,
    kernel=between,
    samples=lambda: [
        Sample((int_arg((3,), 0, 2, 1),), {"low": 0, "high": 2, "kind": "index", "text": "{value}"}, smooth=False,
               name="within"),
        Sample((int_arg((0,)),), {"low": 0, "high": 0, "kind": "linalg", "text": "{value}"}, smooth=False,
               name="nothing"),
    ],
    doc="Raises the error of that kind for an element outside of [low, high]; its text may name {value} and {where}.",
)  # fmt: skip


def require(x: Tensor, low: int, high: int, kind: str, text: str) -> None:
    """Raises IndexOutOfRange (``kind`` "index"), LinAlgError ("linalg") or ArgumentError ("argument") if an element of
    an integer tensor lies outside of [low, high]. ``text``: of the error, with {value} for the first such element and
    {where} for its place in a batch. Asks all samples while ``vmap`` runs.
    """
    array: Any = x._data
    while hasattr(array, "mapped"):
        array = array.value
    require_between(x if array is x._data else wrap(array), low=low, high=high, kind=kind, text=text)
