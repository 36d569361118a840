"""Hooks of modules: functions called around forward, and around the passing of gradients.

A module without hooks pays one attribute read for all of this.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from ..autograd.function import Function
from ..autograd.hooks import Handle as _ListHandle
from ..errors import AutogradError
from ..tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

__all__ = [
    "Handle", "HookView", "ModuleHooks", "register_module_backward_hook", "register_module_buffer_registration_hook",
    "register_module_forward_hook", "register_module_forward_pre_hook", "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook", "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]  # fmt: skip

everywhere: list[Hook] = []
"""Hooks called for every module, before its own."""

registrations: list[Hook] = []
"""Hooks called when any module gets a parameter, buffer or submodule."""

_numbers = itertools.count()


class Hook:
    """A user's function, when it is called, and how."""

    __slots__ = ("always_call", "function", "id", "when", "with_kwargs")

    def __init__(self, when: str, function: Callable[..., Any], with_kwargs: bool = False, always_call: bool = False):
        self.id = next(_numbers)
        self.when = when
        self.function = function
        self.with_kwargs = with_kwargs
        self.always_call = always_call


class Handle(_ListHandle):
    """Returned by every ``register_*hook``; ``remove()`` takes the hook away, as does leaving a ``with`` block."""

    def __init__(self, hooks: list[Any], hook: Hook, prepend: bool = False):
        super().__init__(hooks, hook)
        self.id = hook.id
        if prepend:
            hooks.insert(0, hooks.pop())


class ModuleHooks:
    """The hooks of one module, in the order in which they are called."""

    def __init__(self) -> None:
        self.all: list[Hook] = []

    def add(self, when: str, function: Callable[..., Any], prepend: bool = False, **how: bool) -> Handle:
        if not callable(function):
            raise TypeError(f"a hook must be callable, got {type(function).__name__}")
        return Handle(self.all, Hook(when, function, **how), prepend)


class HookView(MutableMapping[int, Callable[..., Any]]):
    """The functions of one kind that are registered with one module, by the ``id`` of their handles."""

    def __init__(self, module: Module, when: str):
        self._module = module
        self._when = when

    def _own(self) -> list[Hook]:
        hooks = self._module._hooks
        return [] if hooks is None else [hook for hook in hooks.all if hook.when == self._when]

    def __getitem__(self, key: int) -> Callable[..., Any]:
        for hook in self._own():
            if hook.id == key:
                return hook.function
        raise KeyError(key)

    def __setitem__(self, key: int, function: Callable[..., Any]) -> None:
        for hook in self._own():
            if hook.id == key:
                hook.function = function
                return
        hook = Hook(self._when, function)
        hook.id = key
        of(self._module).all.append(hook)

    def __delitem__(self, key: int) -> None:
        self[key]
        hooks = of(self._module)
        hooks.all[:] = [hook for hook in hooks.all if hook.id != key]

    def __iter__(self) -> Iterator[int]:
        return iter([hook.id for hook in self._own()])

    def __len__(self) -> int:
        return len(self._own())


def of(module: Module) -> ModuleHooks:
    if module._hooks is None:
        module.__dict__["_hooks"] = ModuleHooks()
    assert module._hooks is not None
    return module._hooks


def _hooks_for(module: Module, when: str) -> list[Hook]:
    own = [] if module._hooks is None else module._hooks.all
    return [hook for hook in (*everywhere, *own) if hook.when == when]


def call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``module.forward`` with all its hooks."""
    for hook in _hooks_for(module, "before"):
        args, kwargs = _before(hook, module, args, kwargs)
    watch = _Gradients.of(module)
    if watch is not None:
        args = watch.inputs(args)
    pending = _hooks_for(module, "after")
    try:
        result = module.forward(*args, **kwargs)
        while pending:
            hook = pending.pop(0)
            replaced = (
                hook.function(module, args, kwargs, result) if hook.with_kwargs else hook.function(module, args, result)
            )
            if replaced is not None:
                result = replaced
    except BaseException:
        for hook in pending:
            if hook.always_call:
                hook.function(module, args, kwargs, None) if hook.with_kwargs else hook.function(module, args, None)
        raise
    return result if watch is None else watch.outputs(result)


def _before(hook: Hook, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    if hook.with_kwargs:
        replaced = hook.function(module, args, kwargs)
        if replaced is None:
            return args, kwargs
        if isinstance(replaced, tuple) and len(replaced) == 2:
            return replaced
        raise TypeError(
            f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), got {type(replaced).__name__}."
        )
    replaced = hook.function(module, args)
    if replaced is None:
        return args, kwargs
    return (replaced if isinstance(replaced, tuple) else (replaced,)), kwargs


class _Gradients:
    """Sees the gradients of one call's outputs and inputs, at two identity operations around forward."""

    def __init__(self, module: Module, before: list[Hook], after: list[Hook]):
        self.module = module
        self.before = before
        self.after = after
        self.grad_output: tuple[Any, ...] | None = None
        self.watches_input = False
        self.count = 0

    @classmethod
    def of(cls, module: Module) -> _Gradients | None:
        before, after = _hooks_for(module, "backward_before"), _hooks_for(module, "backward_after")
        return cls(module, before, after) if before or after else None

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.count = len(args)
        positions = [i for i, x in enumerate(args) if isinstance(x, Tensor)]
        self.watches_input = bool(self.after) and any(args[i].requires_grad for i in positions)
        if not self.watches_input:
            return args
        seen = _passing(_Pass.apply(self.at_inputs, len(args), positions, *(args[i] for i in positions)))
        swapped = dict(zip(positions, seen, strict=True))
        return tuple(swapped.get(i, x) for i, x in enumerate(args))

    def outputs(self, result: Any) -> Any:
        parts = result if isinstance(result, tuple) else (result,)
        positions = [i for i, x in enumerate(parts) if isinstance(x, Tensor)]
        if not any(parts[i].requires_grad for i in positions):
            return result
        seen = _passing(_Pass.apply(self.at_outputs, len(parts), positions, *(parts[i] for i in positions)))
        swapped = dict(zip(positions, seen, strict=True))
        if not isinstance(result, tuple):
            return swapped[0]
        values = [swapped.get(i, x) for i, x in enumerate(parts)]
        return type(result)(*values) if hasattr(result, "_fields") else tuple(values)

    def at_outputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.before:
            grads = _replaced("full backward pre-hook", hook.function(self.module, grads), grads)
        self.grad_output = grads
        if not self.watches_input:
            # no input needs a gradient, so nothing will be seen there: the hook learns of the outputs alone
            for hook in self.after:
                given = hook.function(self.module, (None,) * self.count, grads)
                if given is not None and not (isinstance(given, tuple) and all(part is None for part in given)):
                    raise AutogradError(
                        "Backward hook for Modules where no input requires gradient should always return None or None "
                        "for all gradients."
                    )
        return grads

    def at_inputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.after:
            grads = _replaced("full backward hook", hook.function(self.module, grads, self.grad_output), grads)
        return grads


def _replaced(kind: str, given: Any, grads: tuple[Any, ...]) -> tuple[Any, ...]:
    if given is None:
        return grads
    given = given if isinstance(given, tuple) else (given,)
    if len(given) != len(grads):
        raise ValueError(f"{kind} returned {len(given)} gradients, expected {len(grads)}.")
    return given


def _passing(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


class _Pass(Function):
    """The identity, whose gradients pass ``observe`` (as many as ``count``, None where there is no tensor)."""

    @staticmethod
    def forward(
        ctx: Any, observe: Callable[..., Any], count: int, positions: list[int], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.observe, ctx.count, ctx.positions = observe, count, positions
        ctx.set_materialize_grads(False)
        seen = tuple(x.view_as(x) for x in tensors)
        ctx.mark_non_differentiable(*(new for new, x in zip(seen, tensors, strict=True) if not x.requires_grad))
        return seen

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        full: list[Any] = [None] * ctx.count
        for i, grad in zip(ctx.positions, grads, strict=True):
            full[i] = grad
        seen = ctx.observe(tuple(full))
        return (None, None, None, *(seen[i] for i in ctx.positions))


def _register_everywhere(when: str, hook: Callable[..., Any], **how: bool) -> Handle:
    return Handle(everywhere, Hook(when, hook, **how))


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(module, args)`` before the forward of every module."""
    return _register_everywhere("before", hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> Handle:
    """Call ``hook(module, args, output)`` after the forward of every module."""
    return _register_everywhere("after", hook, with_kwargs=with_kwargs, always_call=always_call)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(module, grad_input, grad_output)`` after gradients passed any module."""
    return _register_everywhere("backward_after", hook)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(module, grad_output)`` before gradients pass any module."""
    return _register_everywhere("backward_before", hook)


def register_module_backward_hook(hook: Callable[..., Any]) -> Handle:
    """The older name of ``register_module_full_backward_hook``, and the same here."""
    return register_module_full_backward_hook(hook)


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(module, name, parameter)`` when any module registers one; what it returns takes its place."""
    return Handle(registrations, Hook("parameter", hook))


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(module, name, buffer)`` when any module registers one; what it returns takes its place."""
    return Handle(registrations, Hook("buffer", hook))


def register_module_module_registration_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(module, name, submodule)`` when any module registers one; what it returns takes its place."""
    return Handle(registrations, Hook("module", hook))
