"""``autograd.Function`` within ``vmap``: a static method ``vmap`` of the user's own computes all samples at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..dispatch import local
from ..tensor import Tensor
from ..utils._pytree import broadcast_prefix, tree_flatten, tree_map, tree_unflatten
from .batched import Batched, VmapError, crossing

__all__ = ["VmapInfo", "mapped_by_its_own_rule"]


class VmapInfo(NamedTuple):
    """What a ``vmap`` method is told: the number of samples, and how randomness is to be treated."""

    batch_size: int
    randomness: str


def mapped_by_its_own_rule(cls: Any, args: tuple[Any, ...]) -> Any:
    """``cls.vmap(info, in_dims, *args)`` on tensors that show the samples along dimension 0.

    None if no argument is mapped by the innermost map. Raises VmapError unless it returns (outputs, out_dims).
    """
    frame = local.frames[-1]

    def mine(x: Any) -> bool:
        return isinstance(x, Tensor) and isinstance(x._data, Batched) and x._data.frame is frame

    leaves, spec = tree_flatten(args)
    if not any(map(mine, leaves)):
        return None
    shown = [crossing.leave(x, frame=frame, axis=0) if mine(x) else x for x in leaves]
    in_dims = tree_unflatten([0 if mine(x) else None for x in leaves], spec)
    before = local.frames
    local.frames = before[:-1]
    local.refresh()
    try:
        info = VmapInfo(frame.size, frame.randomness)
        result = cls.vmap(info, in_dims, *tree_unflatten(shown, spec))
    finally:
        local.frames = before
        local.refresh()
    if not (isinstance(result, tuple) and len(result) == 2):
        raise VmapError(f"{cls.__name__}.vmap must return (outputs, out_dims), got {type(result).__name__}.")
    outputs, out_dims = result
    axes = broadcast_prefix(out_dims, outputs)
    if axes is None:
        raise VmapError(f"{cls.__name__}.vmap: out_dims {out_dims} do not have the structure of the outputs.")
    rest = iter(axes)

    def entered(x: Any) -> Any:
        axis = next(rest)
        if axis is None or not isinstance(x, Tensor):
            return x
        return crossing.enter(x, frame=frame, axis=axis % x._data.ndim)

    return tree_map(entered, outputs)
