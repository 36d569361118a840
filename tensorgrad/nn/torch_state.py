"""Whole modules that PyTorch pickled: its attributes become tensorgrad's."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..errors import TensorgradError

if TYPE_CHECKING:
    from .module import Module

__all__ = ["restore"]

_TABLES = {"_parameters": "parameter", "_buffers": "buffer", "_modules": "module"}
_HOOKS = (
    "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
_SWITCHES = ("_is_full_backward_hook", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
             "_forward_pre_hooks_with_kwargs", "_non_persistent_buffers_set")  # fmt: skip


def restore(module: Module, state: dict[str, Any]) -> None:
    """Give an empty module the state of PyTorch's module of its class: settings, members, whether it is training.

    Raises: TensorgradError if the module has hooks, whose signatures are PyTorch's own.
    """
    if any(state.get(name) for name in _HOOKS):
        raise TensorgradError(f"a pickled {type(module).__name__} has hooks of PyTorch; remove them before saving.")
    settings = {
        name: value for name, value in state.items() if name not in _TABLES and name not in (*_HOOKS, *_SWITCHES)
    }
    own = module.__dict__
    own.update(_made_anew(type(module), settings, state))
    own.update(settings)
    own["_kinds"], own["_unsaved"] = {}, set(state.get("_non_persistent_buffers_set", ()))
    for table, kind in _TABLES.items():
        for name, value in state[table].items():
            own["_kinds"][name] = kind
            own[name] = value


def _made_anew(cls: type[Module], settings: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a new module of one of our classes made with the same arguments: what PyTorch's lacks."""
    if not cls.__module__.startswith(f"{__package__}."):
        return {}
    arguments: dict[str, Any] = {}
    known = {**settings, **{name: value is not None for name, value in state["_parameters"].items()}}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            return {}
        if name in known:
            arguments[name] = known[name]
        elif parameter.default is parameter.empty:
            return {}
    return dict(vars(cls(**arguments)))
