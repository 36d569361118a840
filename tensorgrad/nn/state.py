"""State dicts: a module's parameters and persistent buffers by dotted name, in PyTorch's layout and order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..autograd.grad_mode import no_grad
from ..autograd.hooks import Handle
from ..errors import TensorgradError
from ..tensor import Tensor
from .parameter import Parameter

if TYPE_CHECKING:
    from .module import Module

__all__ = ["IncompatibleKeys", "StateDict", "StateDictError"]

_EXTRA = "_extra_state"


class StateDictError(TensorgradError, RuntimeError):
    """Raised when a state dict does not fit the module it is loaded into."""


class StateDict(OrderedDict[str, Any]):
    """What ``Module.state_dict`` returns: names to values, with the version of each module in ``_metadata``."""

    _metadata: OrderedDict[str, dict[str, Any]]


class IncompatibleKeys(NamedTuple):
    """Names that the module has and the state dict lacks, and the other way round."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


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

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Parameters and persistent buffers by dotted name; the tensors share memory with the module's.

        Args:
            destination: a dict to add to; a new one by default.
            prefix: put before every name.
            keep_vars: give the parameters themselves rather than detached tensors.
        """
        if destination is None:
            destination = StateDict()
            destination._metadata = OrderedDict()
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = {"version": self._version}
        for hook in self._hooks_of("state_dict_pre"):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._members("module"):
            if child is not None:
                child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._hooks_of("state_dict_post"):
            hook(self, destination, prefix, {"version": self._version})
        return destination

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add what the module itself holds, without its submodules."""
        for name, value in self._members("parameter", "buffer"):
            if value is not None and name not in self._unsaved:
                destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra_state("get_extra_state"):
            destination[prefix + _EXTRA] = self.get_extra_state()

    # --- loading

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
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
        state = StateDict(state_dict)
        metadata = getattr(state_dict, "_metadata", None)
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        _load(self, state, "", metadata, assign, strict, missing, unexpected, errors)  # type: ignore[arg-type]
        found = IncompatibleKeys(missing, unexpected)
        for hook in self._hooks_of("load_state_dict_post"):
            hook(self, found)
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
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, current in self._members("parameter", "buffer"):
            if current is None or name in self._unsaved:
                continue
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
                continue
            problem = self._load_member(name, current, key, state_dict[key], assign)
            if problem is not None:
                error_msgs.append(problem)
        key = prefix + _EXTRA
        if self._has_extra_state("set_extra_state"):
            if key in state_dict:
                self.set_extra_state(state_dict[key])
            else:
                missing_keys.append(key)
        elif key in state_dict:
            unexpected_keys.append(key)
        if strict:
            known = {name for name, value in self._members("parameter", "buffer") if name not in self._unsaved
                     and value is not None} | {name for name, _ in self._members("module")} | {_EXTRA}  # fmt: skip
            for key in state_dict:
                if key.startswith(prefix) and key[len(prefix) :].split(".", 1)[0] not in known:
                    unexpected_keys.append(key)

    def _load_member(self, name: str, current: Tensor, key: str, given: Any, assign: bool) -> str | None:
        """Take one value; returns what is wrong with it, None if nothing."""
        value = _as_tensor(given)
        if value is None:
            return (
                f'While copying the parameter named "{key}", expected a Tensor or array in the checkpoint, '
                f"got {type(given).__name__}."
            )
        if tuple(value.shape) != tuple(current.shape):
            if tuple(current.shape) == () and tuple(value.shape) == (1,):  # how scalars were once saved
                value = value.reshape(())
            else:
                return (
                    f"size mismatch for {key}: copying a param with shape {value.shape!r} from checkpoint, "
                    f"the shape in current model is {current.shape!r}."
                )
        if not assign:
            with no_grad():
                current.copy_(value.to(current.device))
            return None
        if isinstance(current, Parameter):
            if isinstance(value, Parameter):
                value.requires_grad = current.requires_grad
            else:
                value = Parameter(value, requires_grad=current.requires_grad)
        self.__dict__[name] = value
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
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after the module is saved."""
        return self._add_state_hook("state_dict_post", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)`` before
        the module takes its values."""
        return self._add_state_hook("load_state_dict_pre", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, incompatible_keys)`` after loading; it may empty the lists in place."""
        return self._add_state_hook("load_state_dict_post", hook)


def _load(
    module: Module,
    state: StateDict,
    prefix: str,
    metadata: Any,
    assign: bool,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    local = {} if metadata is None else dict(metadata.get(prefix[:-1], {}))
    if assign:
        local["assign_to_params_buffers"] = True
    for hook in module._hooks_of("load_state_dict_pre"):
        hook(module, state, prefix, local, strict, missing, unexpected, errors)
    module._load_from_state_dict(state, prefix, local, strict, missing, unexpected, errors)
    for name, child in module._members("module"):
        if child is not None:
            _load(child, state, f"{prefix}{name}.", metadata, assign, strict, missing, unexpected, errors)


def _as_tensor(given: Any) -> Any:
    """A Tensor on the value's memory; None if it is nothing of that kind."""
    import numpy as np

    from ..ops.convert import from_dlpack
    from ..ops.create import from_numpy

    if isinstance(given, Tensor):
        return given
    if isinstance(given, np.ndarray):
        return from_numpy(given)
    if hasattr(given, "__dlpack__"):
        return from_dlpack(given.detach() if hasattr(given, "detach") else given)
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
