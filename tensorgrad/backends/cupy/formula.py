"""Formulas on CuPy arrays: the callable behind every elementwise op."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ...dtypes import BY_NAME, PYTHON_KEYS, get_default_dtype, key_of
from ...expr import Program
from .launch import Launcher, Prepared

__all__ = ["CupyFormula"]


# (key of an array, key of a 0-d array) by dtype: asking a NumPy dtype for its name takes longer than all the rest
_keys: dict[Any, tuple[str, str]] = {}


def _key(operand: Any) -> str:
    number = PYTHON_KEYS.get(type(operand))
    if number is not None:
        return number
    dtype = operand.dtype
    found = _keys.get(dtype)
    if found is None:
        name = dtype.name
        if name not in BY_NAME:
            return key_of(operand)
        found = _keys[dtype] = (name, name + ":0")
    return found[0] if operand.shape else found[1]


@lru_cache(maxsize=4096)
def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(*shapes))


class CupyFormula:
    """``f(*arrays_and_numbers, out=None)``: evaluates a formula with one kernel launch.

    Args:
        name: what errors call it.
        specialize: gives the typed program for operand keys (``"float32"``, ``"float32:0"``, ``"py:int"``).
        launcher: who compiles and launches.
    """

    def __init__(self, name: str, specialize: Callable[[tuple[str, ...]], Program], launcher: Launcher):
        self.name = name
        self.specialize = specialize
        self.launcher = launcher
        self.xp = launcher.xp
        self.prepared: dict[tuple[str, ...], Prepared] = {}  # by the default dtype and the operands' keys

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """The results for these operands: one array, or a tuple of them, of the broadcast shape.

        ``out``: an array or a tuple of arrays of that shape to write to (converted to their dtype); they may share
        memory with the inputs. Raises ValueError for shapes that don't broadcast or an ``out`` that can't be written.
        """
        keys = tuple([_key(x) for x in args])
        at = (get_default_dtype().name, *keys)
        prepared = self.prepared.get(at)
        if prepared is None:
            prepared = self.prepared[at] = Prepared(self.specialize(keys))
        arrays = [args[k] for k in prepared.arrays]
        shape = arrays[0].shape if arrays else ()
        for x in arrays[1:]:
            if x.shape != shape:
                shape = self.broadcast(arrays)
                break
        targets = self.targets(prepared, arrays, shape, out)
        if 0 not in shape:
            self.launcher.evaluate(prepared, args, targets, shape)
        if out is not None:
            wanted = out if type(out) is tuple else (out,)
            for target, result in zip(wanted, targets, strict=True):
                if target is not result:
                    target[...] = _converted(result, target.dtype)
            return out
        return targets[0] if len(targets) == 1 else tuple(targets)

    def broadcast(self, arrays: list[Any]) -> tuple[int, ...]:
        try:
            return _broadcast(*[x.shape for x in arrays])
        except ValueError:
            listed = " and ".join(str(x.shape) for x in arrays)
            raise ValueError(f"{self.name}: shapes {listed} do not broadcast") from None

    def targets(self, prepared: Prepared, arrays: list[Any], shape: tuple[int, ...], out: Any) -> list[Any]:
        """The arrays that the kernel writes: those given where it may, fresh ones otherwise."""
        dtypes = prepared.dtypes
        if out is None:
            empty = self.xp.empty
            return [empty(shape, dtype) for dtype in dtypes]
        wanted = out if type(out) is tuple else (out,)
        if len(wanted) != len(dtypes):
            raise ValueError(f"{self.name}: it has {len(dtypes)} results, out gives room for {len(wanted)}")
        targets: list[Any] = []
        for target, dtype in zip(wanted, dtypes, strict=True):
            if target.shape != shape:
                raise ValueError(f"{self.name}: out has shape {target.shape}, the result {shape}")
            # steps of arrays without elements mean nothing; other libraries give 0
            if target.size and any(step == 0 and size > 1 for step, size in zip(target.strides, shape, strict=True)):
                raise ValueError(f"{self.name}: out is an expanded view; several results would share one element")
            direct = target.dtype == dtype and not any(self.disturbs(target, x) for x in arrays)
            targets.append(target if direct else self.xp.empty(shape, dtype=dtype))
        return targets

    def disturbs(self, target: Any, x: Any) -> bool:
        """Whether writing ``target`` element by element could change elements of ``x`` that are still to be read."""
        if not self.xp.may_share_memory(target, x):
            return False
        # the same elements in the same places: each is read by the thread that writes it, before it does
        same_place = self.launcher.pointer(target) == self.launcher.pointer(x)
        return not (same_place and target.shape == x.shape and target.strides == x.strides and target.dtype == x.dtype)


def _converted(result: Any, dtype: Any) -> Any:
    if result.dtype == dtype:
        return result
    if result.dtype.kind == "c" and dtype.kind not in "cb":
        result = result.real
    return result.astype(dtype)
