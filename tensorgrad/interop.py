"""What other packages must be told of tensorgrad's tensors: einops finds the library of a tensor in a list of its own.

Nothing is imported for it: when the program imports einops, before or after tensorgrad, the list gets one entry.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

__all__ = ["connect"]

_LIST = "einops._backends"


class _WhenImported(importlib.abc.MetaPathFinder):
    """Sees ``einops._backends`` being imported and adds to it once it is there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _LIST:
            return None
        sys.meta_path.remove(self)
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            run = found.loader.exec_module

            def run_and_add(module: types.ModuleType) -> None:
                run(module)
                _add_backend(module)

            found.loader.exec_module = run_and_add  # type: ignore[method-assign]
        return found


def connect() -> None:
    """Called once, by the package."""
    loaded = sys.modules.get(_LIST)
    if loaded is not None:
        _add_backend(loaded)
    else:
        sys.meta_path.insert(0, _WhenImported())


def _add_backend(module: types.ModuleType) -> None:
    import tensorgrad as tg

    class TensorgradBackend(module.AbstractBackend):  # type: ignore[name-defined]
        """einops' operations on tensorgrad's tensors; einops finds it among the subclasses of its base."""

        framework_name = "tensorgrad"

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, tg.Tensor)

        def from_numpy(self, x: Any) -> Any:
            made = tg.from_numpy(x)
            return made.requires_grad_() if made.is_floating_point() else made

        def to_numpy(self, x: Any) -> Any:
            return x.numpy(force=True)

        def arange(self, start: int, stop: int) -> Any:
            return tg.arange(start, stop, dtype=tg.int64)

        def reduce(self, x: Any, operation: str, reduced_axes: Any) -> Any:
            axes = tuple(reduced_axes)
            if operation in ("min", "max"):
                return getattr(tg, f"a{operation}")(x, dim=axes)
            if operation in ("sum", "mean"):
                return getattr(tg, operation)(x, dim=axes)
            if operation not in ("any", "all", "prod"):
                raise ValueError(f"einops reduction {operation!r} is not known.")
            for axis in sorted(axes, reverse=True):
                x = getattr(tg, operation)(x, dim=axis)
            return x

        def transpose(self, x: Any, axes: Any) -> Any:
            return x.permute(tuple(axes))

        def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
            return tg.stack(tensors)

        def add_axes(self, x: Any, n_axes: int, pos2len: dict[int, int]) -> Any:
            sizes = [-1] * n_axes
            for position, length in pos2len.items():
                x = x.unsqueeze(position)
                sizes[position] = length
            return x.expand(sizes)

        def add_axis(self, x: Any, new_position: int) -> Any:
            return x.unsqueeze(new_position)

        def tile(self, x: Any, repeats: Any) -> Any:
            return x.repeat(tuple(repeats))

        def concat(self, tensors: Any, axis: int) -> Any:
            return tg.cat(tuple(tensors), dim=axis)

        def is_float_type(self, x: Any) -> bool:
            return bool(x.is_floating_point())

        def einsum(self, pattern: str, *x: Any) -> Any:
            return tg.einsum(pattern, *x)

    # einops keeps classes alive through their base alone
    module._tensorgrad_backend = TensorgradBackend  # type: ignore[attr-defined]
