"""A backend without arithmetic: results have the right shapes and dtypes, and no elements to speak of.

Every result is one element seen through strides of zero, so a network of any size runs in no memory: the tape, hooks,
capture and the optimizers are tested by themselves. Values are meaningless; writes go nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from ...ops.record import Op, Spec

__all__ = ["NullBackend"]


def _blank(spec: Spec) -> Any:
    return np.broadcast_to(np.zeros((), dtype=spec.dtype), tuple(spec.shape))


class NullBackend(NumpyBackend):
    name = "null"

    def describe(self) -> str:
        return "shapes and dtypes only, for tests"

    def kernel(self, op: Op) -> Callable[..., Any]:
        if op.name in _IN_PLACE:
            return lambda target, *others, **attrs: target
        infer = op.infer

        def shapes_only(*inputs: Any, out: Any = None, **attrs: Any) -> Any:
            specs = infer(*inputs, **attrs)
            if out is not None:
                return out
            if isinstance(specs, tuple):
                return tuple(None if spec is None else _blank(spec) for spec in specs)
            return _blank(specs)

        return shapes_only


# what writes into its first argument and returns it
_IN_PLACE = frozenset(("copy_into",))
