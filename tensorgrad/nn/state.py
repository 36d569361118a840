"""State dicts: a module's parameters and persistent buffers by dotted name, in PyTorch's layout and order."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..autograd.grad_mode import no_grad
from ..autograd.hooks import Handle
from ..errors import TensorgradError
from ..tensor import Tensor
from .parameter import Parameter, is_lazy

if TYPE_CHECKING:
    from .module import Module

__all__ = ["StateDictError"]

_EXTRA = "_extra_state"


class StateDictError(TensorgradError, RuntimeError):
    """Raised when a state dict does not fit the module it is loaded into."""


class _IncompatibleKeys(NamedTuple):
    """Names that the module has and the state dict lacks, and the other way round."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class StateMixin:
    """The part of Module that saves and loads."""

    _version: int = 1
    _kinds: dict[str, str]
    _unsaved: set[str]
    _state_hooks: dict[str, list[Callable[..., Any]]] | None = None

    def get_extra_state(self) -> Any:
        """Override, together with ``set_extra_state``, to put more than tensors into the state dict."""
        raise NotImplementedError(f"{type(self).__name__} has no extra state")

    def set_extra_state(self, state: Any) -> None:
        """Override to take what ``get_extra_state`` returned."""
        raise NotImplementedError(f"{type(self).__name__} has no extra state")

    def _has_extra_state(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(StateMixin, method)

    def _members(self, *kinds: str) -> list[tuple[str, Any]]:
        own = self.__dict__
        return [(name, own[name]) for kind in kinds for name, k in self._kinds.items() if k == kind]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickling: our own attributes, or those of a module that PyTorch pickled."""
        if "_kinds" not in state and "_parameters" in state:
            from .torch_state import restore

            restore(self, state)  # type: ignore[arg-type]
        else:
            self.__dict__.update(state)

    # --- saving

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Parameters and persistent buffers by dotted name; the tensors share memory with the module's.

        Args:
            destination: a dict to add to; a new one by default.
            prefix: put before every name.
            keep_vars: give the parameters themselves rather than detached tensors.
        Returns: an OrderedDict, whose ``_metadata`` holds the version of each module.
        """
        if args:
            warnings.warn(
                "Positional args are being deprecated, use kwargs instead: state_dict(destination=..., prefix=...).",
                FutureWarning,
                stacklevel=2,
            )
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and not prefix else prefix
            keep_vars = args[2] if len(args) > 2 and not keep_vars else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local
        for hook in self._hooks_of("state_dict_pre"):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._members("module"):
            if child is not None:
                child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._hooks_of("state_dict"):
            replaced = hook(self, destination, prefix, local)
            destination = destination if replaced is None else replaced
        for hook in self._hooks_of("state_dict_post"):
            if hook(self, destination, prefix, local) is not None:
                raise StateDictError("state_dict post-hook must return None")
        return destination

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add what the module itself holds, without its submodules."""
        for name, value in self._members("parameter", "buffer"):
            if value is not None and name not in self._unsaved:
                destination[prefix + name] = value if keep_vars or is_lazy(value) else value.detach()
        if self._has_extra_state("get_extra_state"):
            destination[prefix + _EXTRA] = self.get_extra_state()

    # --- loading

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copy values into parameters and buffers by name.

        Args:
            state_dict: names to tensors (NumPy arrays and other libraries' tensors on the CPU will do).
            strict: raise if a name is missing or not known.
            assign: put the tensors themselves in place, instead of copying their elements.
        Returns: (missing_keys, unexpected_keys).
        Raises: StateDictError (a RuntimeError) listing every name and shape that does not fit; values that do fit have
            been loaded by then. TypeError if ``state_dict`` is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        state: dict[str, Any] = OrderedDict(state_dict)
        metadata = getattr(state_dict, "_metadata", None)
        if metadata is not None:
            state._metadata = metadata  # type: ignore[attr-defined]
        found = _IncompatibleKeys([], [])
        missing, unexpected = found
        errors: list[str] = []
        _load(self, state, "", metadata, assign, found, errors)  # type: ignore[arg-type]
        if strict:
            if unexpected:
                errors.insert(0, f"Unexpected key(s) in state_dict: {_listed(unexpected)}. ")
            if missing:
                errors.insert(0, f"Missing key(s) in state_dict: {_listed(missing)}. ")
        if errors:
            name = type(self).__name__
            raise StateDictError("Error(s) in loading state_dict for {}:\n\t{}".format(name, "\n\t".join(errors)))
        return found

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take what the module itself holds, without its submodules; override to translate older names."""
        for hook in self._hooks_of("load_state_dict_pre"):
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        assign = local_metadata.get("assign_to_params_buffers", False)
        own = {n: value for n, value in self._members("parameter", "buffer") if value is not None}
        own = {n: value for n, value in own.items() if n not in self._unsaved}
        for name, current in own.items():
            key = prefix + name
            if key in state_dict:
                problem = self._load_member(name, current, key, state_dict[key], assign)
                if problem is not None:
                    error_msgs.append(problem)
            elif strict:
                missing_keys.append(key)
        key = prefix + _EXTRA
        if self._has_extra_state("set_extra_state"):
            if key in state_dict:
                self.set_extra_state(state_dict[key])
            elif strict:
                missing_keys.append(key)
        elif strict and key in state_dict:
            unexpected_keys.append(key)
        if strict:
            children = {name for name, _ in self._members("module")}
            for key in state_dict:
                if key.startswith(prefix) and key != prefix + _EXTRA:
                    name, dot, _ = key[len(prefix) :].partition(".")
                    if name not in (children if dot else own):
                        unexpected_keys.append(key)

    def _load_member(self, name: str, current: Any, key: str, given: Any, assign: bool) -> str | None:
        """Take one value; returns what is wrong with it, None if nothing."""
        value = _as_tensor(given)
        if value is None:
            return (
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from '
                f"checkpoint but received {type(given)}"
            )
        if is_lazy(current):
            if is_lazy(value):
                return None
            if not assign:
                current.materialize(value.shape, dtype=current.dtype, device=current.device)
        elif is_lazy(value):
            return (
                f'While copying the parameter named "{key}": it has no values in the checkpoint, which was saved '
                "before the lazy module's first forward."
            )
        elif tuple(value.shape) != tuple(current.shape):
            if current.ndim == 0 and value.ndim == 1 and value.shape[0]:  # how scalars were once saved
                value = value[0]
            else:
                return (
                    f"size mismatch for {key}: copying a param with shape {value.shape!r} from checkpoint, "
                    f"the shape in current model is {current.shape!r}."
                )
        if not assign:
            try:
                with no_grad():
                    current.copy_(value.to(current.device))
            except (RuntimeError, TypeError, ValueError) as error:
                return (
                    f'While copying the parameter named "{key}", whose dimensions in the model are {current.shape!r} '
                    f"and whose dimensions in the checkpoint are {value.shape!r}, an exception occurred : {error.args}."
                )
            return None
        if isinstance(current, Parameter):
            if isinstance(value, Parameter):
                value.requires_grad_(current.requires_grad)
            else:
                value = Parameter(value, requires_grad=current.requires_grad)
        setattr(self, name, value)
        return None

    # --- hooks

    def _hooks_of(self, when: str) -> list[Callable[..., Any]]:
        return [] if self._state_hooks is None else list(self._state_hooks.get(when, ()))

    def _add_state_hook(self, when: str, hook: Callable[..., Any]) -> Handle:
        if self._state_hooks is None:
            self.__dict__["_state_hooks"] = {}
        assert self._state_hooks is not None
        return Handle(self._state_hooks.setdefault(when, []), hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, prefix, keep_vars)`` before the module is saved."""
        return self._add_state_hook("state_dict_pre", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after the module is saved, to change the dict in
        place."""
        return self._add_state_hook("state_dict_post", hook)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> Handle:
        """As ``register_state_dict_post_hook``, but what the hook returns, unless None, takes the dict's place."""
        return self._add_state_hook("state_dict", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)`` before
        the module takes its values."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(self, hook: Callable[..., Any], with_module: bool = False) -> Handle:
        """As ``register_load_state_dict_pre_hook``; the hook gets the module only if ``with_module``."""
        return self._add_state_hook("load_state_dict_pre", _WithModule(self, hook) if with_module else hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, incompatible_keys)`` after the module and what is below it were loaded; it may empty the
        lists in place, and returns None."""
        return self._add_state_hook("load_state_dict_post", hook)


class _WithModule:
    """A hook with the module it is called with: an object, so that a copy of the module gets a hook of its own."""

    def __init__(self, module: StateMixin, hook: Callable[..., Any]):
        self.module = module
        self.hook = hook

    def __call__(self, *args: Any) -> Any:
        return self.hook(self.module, *args)


def _load(
    module: Module,
    state: dict[str, Any],
    prefix: str,
    metadata: Any,
    assign: bool,
    found: _IncompatibleKeys,
    errors: list[str],
) -> None:
    """Load one module and what is below it. A child is shown its own keys alone."""
    local = {} if metadata is None else dict(metadata.get(prefix[:-1], {}))
    if assign:
        local["assign_to_params_buffers"] = True
    # always asked strictly: whether a wrong name is an error is decided at the end
    module._load_from_state_dict(state, prefix, local, True, found.missing_keys, found.unexpected_keys, errors)
    for name, child in module._members("module"):
        if child is not None:
            below = f"{prefix}{name}."
            _load(
                child, {k: v for k, v in state.items() if k.startswith(below)}, below, metadata, assign, found, errors
            )
    for hook in module._hooks_of("load_state_dict_post"):
        if hook(module, found) is not None:
            raise StateDictError(
                "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new values; "
                "change the lists of incompatible_keys in place."
            )


def _as_tensor(given: Any) -> Any:
    """A Tensor on the value's memory; None if it is nothing of that kind."""
    import numpy as np

    from ..ops.create import from_numpy
    from ..ops.exchange import from_dlpack

    if isinstance(given, Tensor):
        return given
    if isinstance(given, np.ndarray):
        return from_numpy(given)
    if hasattr(given, "__dlpack__"):
        return from_dlpack(given.detach() if hasattr(given, "detach") else given)
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
