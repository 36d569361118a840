"""Hooks on tensors and nodes: called when a gradient is ready."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ..dispatch import local
from ..errors import AutogradError
from ..tensor import Tensor, install

__all__ = ["Handle", "hooks_of", "register_hook"]


class Handle:
    """Returned by every ``register_*hook``; ``remove()`` takes the hook away, as does leaving a ``with`` block."""

    def __init__(self, hooks: list[Any], hook: Any):
        # an entry of its own, so that one function may be registered twice and removed once
        self._entry = hook
        self._hooks: list[Any] | None = hooks
        hooks.append(hook)

    def remove(self) -> None:
        """Take the hook away; doing so twice is harmless."""
        if self._hooks is not None:
            for i, hook in enumerate(self._hooks):
                if hook is self._entry:
                    del self._hooks[i]
                    break
            self._hooks = None

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def hooks_of(tensor: Tensor) -> list[Any]:
    """The list that ``register_hook`` adds to; a new one if there is none yet."""
    node = tensor.grad_fn
    found = tensor._hooks if node is None else (node.hooks or {}).get(tensor._slot)
    return [] if found is None else found


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Handle:
    """Call ``hook(grad)`` when this tensor's gradient is ready; a Tensor it returns takes the gradient's place.

    Raises AutogradError if the tensor does not require grad.
    """
    if not self._tracked:
        raise AutogradError("register_hook: this tensor does not require grad, so no gradient will reach it.")
    node = self.grad_fn
    if node is None:
        if self._hooks is None:
            self._hooks = []
        return Handle(self._hooks, hook)
    if node.hooks is None:
        node.hooks = {}
        node.watched = True
    return Handle(node.hooks.setdefault(self._slot, []), hook)


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> Handle:
    """Call ``hook(tensor)`` after ``backward`` has accumulated into this leaf's ``.grad``.

    Raises AutogradError for tensors that are no leaves or do not require grad.
    """
    if not self._tracked or self._node is not None:  # a view may find its history where it is asked
        raise AutogradError("register_post_accumulate_grad_hook: only leaf tensors that require grad have such hooks.")
    if self._post_hooks is None:
        self._post_hooks = []
    return Handle(self._post_hooks, hook)


def retain_grad(self: Tensor) -> None:
    """Let ``backward`` fill ``.grad`` of this tensor although it is no leaf.

    Raises AutogradError if it does not require grad.
    """
    if not self._tracked:
        raise AutogradError("retain_grad: this tensor does not require grad.")
    for ear in local.listeners:
        ear.retains(self)
    node = self.grad_fn
    if node is None:
        return
    if node.retained is None:
        node.retained = {}
        node.watched = True
    node.retained[self._slot] = weakref.ref(self)
    self._keeps_grad = True


def retains_grad(self: Tensor) -> bool:
    """Whether ``retain_grad`` was called of it, and it is no leaf."""
    for ear in local.listeners:
        ear.retains(self)
    return bool(self._keeps_grad)


install(register_hook)
install(register_post_accumulate_grad_hook)
install(retain_grad)
Tensor.retains_grad = property(retains_grad)  # type: ignore[attr-defined]
