"""Finding where a NaN came from: ``detect_anomaly`` names the forward line behind a bad gradient."""

from __future__ import annotations

from typing import Any

from ..dispatch import local
from ..errors import AutogradError
from ..tensor import Tensor
from . import engine
from .node import Node, describe_line, extras, user_line

__all__ = ["detect_anomaly", "is_anomaly_enabled", "set_detect_anomaly"]

_depth = 0
_check_nan = True


def _note(node: Node) -> None:
    """Remember the forward line of every recorded call, also of those that save nothing."""
    if node.line is None:
        node.line = user_line(3)


def _check(node: Node, grads: Any) -> None:
    if not _check_nan:
        return
    for i, g in enumerate(grads):
        array = g._data if isinstance(g, Tensor) else g
        if array is None or not hasattr(array, "dtype") or array.dtype.kind not in "fcV":
            continue
        door = local.doors[type(array)]
        if bool(door.any(door.isnan(array), dim=tuple(range(array.ndim)), keepdim=False)):
            line = "; it was recorded outside of detect_anomaly" if node.line is None else ""
            at = "" if node.line is None else f" of the forward call at {describe_line(node.line)}"
            raise AutogradError(f"{node.name()} gave NaN as gradient of its input number {i}{at}{line}.")


class detect_anomaly:
    """Within the block, a backward pass that makes a NaN raises AutogradError naming the forward line behind it.

    Every recorded call notes its line, and every gradient is searched: for debugging only.

    Args:
        check_nan: search gradients for NaN; otherwise only errors in backward name the forward line.
    Example:
        >>> import tensorgrad as tg
        >>> x = tg.tensor(0.0, requires_grad=True)
        >>> with tg.autograd.detect_anomaly():
        ...     y = (x * 0).sqrt() * 0
        ...     try:
        ...         y.backward()
        ...     except RuntimeError as error:
        ...         print(str(error)[:18])
        SqrtBackward gave
    """

    def __init__(self, check_nan: bool = True):
        self.check_nan = check_nan

    def __enter__(self) -> detect_anomaly:
        global _check_nan
        self._before = _check_nan
        _switch(1)
        _check_nan = self.check_nan
        return self

    def __exit__(self, *error: Any) -> None:
        global _check_nan
        _check_nan = self._before
        _switch(-1)


class set_detect_anomaly(detect_anomaly):
    """Switches anomaly detection on or off at once; as a context manager, for the block."""

    def __init__(self, mode: bool, check_nan: bool = True):
        super().__init__(check_nan)
        global _check_nan
        self._was = (_depth > 0, _check_nan)
        _check_nan = check_nan
        _set(mode)

    def __enter__(self) -> set_detect_anomaly:
        return self

    def __exit__(self, *error: Any) -> None:
        global _check_nan
        enabled, _check_nan = self._was
        _set(enabled)


def _set(enabled: bool) -> None:
    _switch((1 if enabled else 0) - _depth)


def _switch(by: int) -> None:
    global _depth
    _depth += by
    hooks = [hook for hook in extras.on_finish if hook is not _note]
    extras.on_finish = (*hooks, _note) if _depth > 0 else tuple(hooks)
    extras.active = bool(extras.on_finish)
    engine.anomaly_check = _check if _depth > 0 else None


def is_anomaly_enabled() -> bool:
    """Whether backward searches for NaN."""
    return _depth > 0
