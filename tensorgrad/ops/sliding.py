"""A window that slides along a dimension, as a view, and its adjoint."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..tensor import Tensor, install
from .calls import calls
from .checks import integer
from .record import Spec, op
from .samples import Arg, Sample
from .shape import select, unsqueeze
from .shape_core import one_dim

__all__: list[str] = []  # users know the method


def _unfold_infer(x: Any, *, dim: int, size: int, step: int) -> Spec:
    shape = tuple(x.shape)
    if step <= 0:
        raise ShapeError(f"unfold: step is {step} but must be > 0.")
    if not 0 <= size <= shape[dim]:
        raise ShapeError(f"unfold: maximum size for tensor at dimension {dim} is {shape[dim]} but size is {size}.")
    return Spec((*shape[:dim], (shape[dim] - size) // step + 1, *shape[dim + 1 :], size), x.dtype)


unfold_dim = op(
    "unfold_dim",
    infer=_unfold_infer,
    rule=lambda F, g, x, *, needs, dim, size, step: (
        F.unfold_dim_backward(g, shape=tuple(x.shape), dim=dim, size=size, step=step),
    ),
    view=True,
    samples=lambda: [
        Sample((Arg((7,)),), {"dim": 0, "size": 3, "step": 2}, name="vector"),
        Sample((Arg((2, 5, 3)),), {"dim": 1, "size": 2, "step": 1}, name="middle"),
        Sample((Arg((2, 5), layout="T"),), {"dim": 1, "size": 5, "step": 3}, name="whole"),
        Sample((Arg((0, 4)),), {"dim": 1, "size": 2, "step": 2}, name="empty"),
    ],
    doc="Windows of ``size`` elements along ``dim``, every ``step``; the window is the last dimension.",
)
unfold_dim_backward = op(
    "unfold_dim_backward",
    infer=lambda g, *, shape, dim, size, step: Spec(shape, g.dtype),
    rule=lambda F, gg, g, *, needs, shape, dim, size, step: (F.unfold_dim(gg, dim=dim, size=size, step=step),),
    samples=lambda: [Sample((Arg((2, 3, 3)),), {"shape": (2, 7), "dim": 1, "size": 3, "step": 2}, name="overlap")],
    doc="Windows added up where they overlap: the adjoint of ``unfold_dim``.",
)


@calls(unfold_dim, "x dim:dim int int")
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of all windows of ``size`` elements along ``dimension``, every ``step``; windows are the last dimension.

    Raises: ShapeError for a window larger than the dimension, or a step that is not positive.
    """
    at = one_dim("unfold", dimension, self._data.ndim)
    how = {"size": integer("unfold", "size", size), "step": integer("unfold", "step", step)}
    if self._data.ndim:
        return unfold_dim(self, dim=at, **how)
    return select(unfold_dim(unsqueeze(self, 0), dim=0, **how), 0, 0)


install(unfold)
