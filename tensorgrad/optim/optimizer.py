"""``Optimizer``: groups of parameters with settings, their state, hooks, saving and loading.

Subclass it for an optimizer of your own: define ``step``. Those of this package update a whole group in one call; how
is told in ``plan``.
"""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np

from ..autograd.grad_mode import no_grad
from ..autograd.hooks import Handle
from ..core import native
from ..dispatch import grad_was_set, is_asked, local, region
from ..nn.module import zero_in_place
from ..ops.checks import real
from ..ops.storable import check_factor
from ..tensor import Tensor

__all__ = ["Optimizer", "register_optimizer_step_post_hook", "register_optimizer_step_pre_hook", "required"]

Group = dict[str, Any]
StateDict: TypeAlias = dict[str, Any]
ParamsT: TypeAlias = Iterable[Any]

_pre_hooks_of_all: list[Any] = []
_post_hooks_of_all: list[Any] = []


class _Required:
    """The default of a setting that every group must give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(optimizer, args, kwargs)`` before each step of every optimizer."""
    return Handle(_pre_hooks_of_all, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> Handle:
    """Call ``hook(optimizer, args, kwargs)`` after each step of every optimizer."""
    return Handle(_post_hooks_of_all, hook)


def _hooked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A subclass's ``step`` with the hooks called around it."""

    @functools.wraps(function)
    def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        if self._stepping:  # a subclass calls its parent's step: one step
            return function(self, *args, **kwargs)
        self._stepping = True
        try:
            if not (self.has_step_hooks() or local.listeners):
                return function(self, *args, **kwargs)
            self._told = self._told or bool(local.listeners)
            with region(f"Optimizer.step#{type(self).__name__}.step"):
                return _with_hooks(self, function, args, kwargs)
        finally:
            self._stepping = False

    step.hooked = True  # type: ignore[attr-defined]
    return step


def _with_hooks(self: Optimizer, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    args = (self, *args)
    for hook in (*_pre_hooks_of_all, *self._pre_hooks):
        changed = hook(self, args, kwargs)
        if changed is not None:
            if not (isinstance(changed, tuple) and len(changed) == 2):
                raise RuntimeError(
                    f"{type(self).__name__}.step: a pre-hook must return None or a tuple of (new_args, new_kwargs), "
                    f"but got {changed}."
                )
            args, kwargs = changed
    result = function(*args, **kwargs)
    for hook in (*self._post_hooks, *_post_hooks_of_all):
        hook(self, args, kwargs)
    return result


class Optimizer:
    """Base of all optimizers.

    Args:
        params: tensors, (name, tensor) pairs, or dicts with ``"params"`` and settings of their own (groups).
        defaults: settings of groups that do not give them.
    Raises: TypeError for a single Tensor; ValueError for no parameters at all.
    Example:
        >>> import tensorgrad as tg
        >>> class SignDescent(tg.optim.Optimizer):
        ...     def __init__(self, params, lr=0.1):
        ...         super().__init__(params, {"lr": lr})
        ...     @tg.no_grad()
        ...     def step(self, closure=None):
        ...         for group in self.param_groups:
        ...             for p in group["params"]:
        ...                 p.sub_(group["lr"] * p.grad.sign())
        >>> x = tg.tensor([1.0, -2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> SignDescent([x], lr=0.5).step()
        >>> x.tolist()
        [0.5, -1.5]
    """

    defaults: Group
    state: defaultdict[Any, Any]
    param_groups: list[Group]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        step = cls.__dict__.get("step")
        if step is not None and not getattr(step, "hooked", False):
            cls.step = _hooked(step)  # type: ignore[method-assign]

    def __new__(cls, *args: Any, **settings: Any) -> Any:
        self = super().__new__(cls)
        self._prepare()  # also one around another, which has no parameters for __init__, is stepped
        return self

    def __init__(self, params: Any, defaults: Group):
        self.defaults = defaults
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                f"{type(params).__name__}; pass [it]."
            )
        self.state = defaultdict(dict)
        self.param_groups = []
        if not isinstance(params, Iterable):
            raise TypeError(f"params argument given to the optimizer should be an iterable of Tensors, got {params!r}")
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _prepare(self) -> None:
        """What an optimizer has besides its settings and state, and what is not saved with it."""
        self._stepping = False
        self._opt_called = False
        self._told = False  # somebody has listened to a step: a program may go on with what the host counts
        for name in ("_pre_hooks", "_post_hooks", *_STATE_HOOKS):
            if name not in self.__dict__:
                setattr(self, name, [])

    _pre_hooks: list[Any]
    _post_hooks: list[Any]

    def add_param_group(self, param_group: Group) -> None:
        """Train more parameters: a dict with ``"params"`` and settings that differ from the defaults.

        Raises TypeError or ValueError for what is no leaf tensor, or is trained already.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        if "params" not in param_group:
            raise KeyError(f"a param_group needs its parameters under 'params', got the keys {sorted(param_group)}")
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in "
                "sets will change between runs. Please use a list instead."
            )
        if not isinstance(given, (Tensor, Iterable)):
            raise TypeError(f"the parameters of a param_group must be tensors, got {given!r}")
        members = [given] if isinstance(given, Tensor) else list(given)
        names = [member[0] for member in members if isinstance(member, tuple)]
        members = [member[1] if isinstance(member, tuple) else member for member in members]
        param_group["params"] = members
        if names:
            if len(names) != len(members):
                raise ValueError("all optimizer params should be with/without names. Some param names are missing")
            param_group["param_names"] = names
        for p in members:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if p._node is not None and not p._keeps_grad and not self.defaults.get("differentiable"):
                raise ValueError("can't optimize a non-leaf Tensor; pass the leaf it was computed from.")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            param_group.setdefault(name, default)
        for name in ("lr", "weight_decay"):
            for p in members:
                check_factor(f"optimizer: {name}", param_group.get(name), p.dtype)
        if len({id(p) for p in members}) != len(members):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; each is updated as often as it "
                "stands there. Pass it once.",
                UserWarning,
                stacklevel=3,
            )
        taken: set[int] = set()
        for group in self.param_groups:
            taken.update(id(p) for p in group["params"])
            if ("param_names" in param_group) != ("param_names" in group):
                what = "with names" if "param_names" in param_group else "without names"
                raise ValueError(
                    "all optimizer param groups should be with/without names. "
                    f"cannot add param group {what} to the optimizer"
                )
        if not taken.isdisjoint(id(p) for p in members):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(param_group)

    # --- stepping

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients (or, with False, set them to zero)."""
        for group in self.param_groups:
            params = group["params"]
            if native is not None and set_to_none and type(params) is list and not local.listeners:
                native.forget(params)
                continue
            for p in params:
                if p._grad is not None:
                    if set_to_none:
                        p._grad = None
                        grad_was_set(p)
                    else:
                        zero_in_place(p)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the loss anew (with gradients), called first.
        Returns: what the closure returned, None without one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define step(closure=None)")

    def has_step_hooks(self) -> bool:
        """Whether somebody is called before or after each step."""
        return bool(_pre_hooks_of_all or _post_hooks_of_all or self._pre_hooks or self._post_hooks)

    # --- saving and loading

    def form(self, group: Group) -> tuple[Any, ...]:
        """What of a group's settings decides which calls a step makes: a program of the step holds while it is equal.

        Of an optimizer that nothing is known about these are all settings.
        """
        return tuple((name, value) for name, value in group.items() if name != "params")

    def own_arrays(self) -> list[Any]:
        """Arrays that steps read or write besides parameters, gradients and state: an optimizer's own numbers."""
        return []

    def state_dict(self) -> StateDict:
        """{"state": {number: {name: value}}, "param_groups": [settings with "params": numbers]}, as PyTorch's.

        Parameters are numbered in the order of the groups. Tensors are those of the optimizer, not copies.
        """
        for ear in local.listeners:
            ear.copies_settings(self)
        for hook in self._state_dict_pre_hooks:
            hook(self)
        numbers: dict[int, int] = {}
        groups = []
        count = 0
        for group in self.param_groups:
            for i, p in enumerate(group["params"], count):
                numbers.setdefault(id(p), i)
            count += len(group["params"])
            settings = {key: value for key, value in group.items() if key != "params"}
            groups.append({**settings, "params": [numbers[id(p)] for p in group["params"]]})
        state = {(numbers[id(p)] if isinstance(p, Tensor) else p): value for p, value in self.state.items()}
        made: StateDict = {"state": state, "param_groups": groups}
        for hook in self._state_dict_post_hooks:
            made = _or(hook(self, made), made)
        return made

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Continue from a ``state_dict``, also one of PyTorch's; values are copied.

        Raises ValueError if it has other groups, or groups of other sizes.
        """
        if not isinstance(state_dict, dict):
            raise TypeError(f"load_state_dict: expected a dict, got {type(state_dict).__name__}")
        state_dict = state_dict.copy()
        for hook in self._load_state_dict_pre_hooks:
            state_dict = _or(hook(self, state_dict), state_dict)
        for name, kind in (("param_groups", list), ("state", dict)):
            if name not in state_dict:
                raise KeyError(f"the state dict of an optimizer has {name!r}, this one {sorted(map(str, state_dict))}")
            if not isinstance(state_dict[name], kind):
                found = type(state_dict[name]).__name__
                raise TypeError(f"load_state_dict: {name} must be a {kind.__name__}, got {found}")
        for i, group in enumerate(state_dict["param_groups"]):
            if not isinstance(group, dict) or "params" not in group:
                raise KeyError(f"group {i} of the state dict does not say which 'params' are its own: {group!r}")
        for key, value in state_dict["state"].items():
            if not isinstance(value, dict):
                raise TypeError(f"load_state_dict: the state of {key!r} must be a dict, got {value!r}")
        saved = [{**group} for group in state_dict["param_groups"]]
        if len(saved) != len(self.param_groups):
            raise ValueError(
                f"loaded state dict has a different number of parameter groups: {len(saved)}, the optimizer has "
                f"{len(self.param_groups)}."
            )
        params: dict[Any, Tensor] = {}
        for i, (theirs, ours) in enumerate(zip(saved, self.param_groups, strict=True)):
            if len(theirs["params"]) != len(ours["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                    f"group {i} has {len(theirs['params'])} parameters there and {len(ours['params'])} here."
                )
            params.update(zip(theirs["params"], ours["params"], strict=True))
        state: defaultdict[Any, Any] = defaultdict(dict)
        with no_grad():
            for key, value in state_dict["state"].items():
                if key in params:
                    state[params[key]] = _loaded(value, params[key])
                else:
                    state[key] = value
        groups = []
        for theirs, ours in zip(saved, self.param_groups, strict=True):
            settings = {key: _own(value) for key, value in theirs.items() if key != "params"}
            if "param_names" in ours:
                settings.setdefault("param_names", ours["param_names"])
            groups.append({**settings, "params": ours["params"]})
        self.__setstate__({"state": state, "param_groups": groups})
        for hook in self._load_state_dict_post_hooks:
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over state and groups: from a pickle (also PyTorch's), a copy, or ``load_state_dict``. A subclass may
        add settings that older groups lack."""
        self.__dict__.update(state)
        called = self.__dict__.get("_opt_called", False)
        self._prepare()
        self._opt_called = called
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    # --- hooks, text

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return other ``(args, kwargs)``."""
        return Handle(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return Handle(self._post_hooks, hook)

    _state_dict_pre_hooks: list[Any]
    _state_dict_post_hooks: list[Any]
    _load_state_dict_pre_hooks: list[Any]
    _load_state_dict_post_hooks: list[Any]

    def register_state_dict_pre_hook(self, hook: Callable[..., None], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer)`` before ``state_dict``."""
        return _register(self._state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer, state_dict)`` after ``state_dict``; it may return another."""
        return _register(self._state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer, state_dict)`` before ``load_state_dict``; it may return another."""
        return _register(self._load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None], prepend: bool = False) -> Handle:
        """Call ``hook(optimizer)`` after ``load_state_dict``."""
        return _register(self._load_state_dict_post_hooks, hook, prepend)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            for key in group:
                is_asked(f"optimizer.param_groups[{i}][{key!r}]", group, key)
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join(lines) + "\n)"


_STATE_HOOKS = (
    "_state_dict_pre_hooks", "_state_dict_post_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def _register(hooks: list[Any], hook: Callable[..., Any], prepend: bool) -> Handle:
    handle = Handle(hooks, hook)
    if prepend:
        hooks.insert(0, hooks.pop())
    return handle


def _or(result: Any, otherwise: Any) -> Any:
    return otherwise if result is None else result


def _loaded(value: Any, p: Tensor, key: Any = None) -> Any:
    """A copy of a saved value; tensors are kept as their parameter is, which may have been moved since. The count of
    steps keeps its dtype."""
    from ..nn.state import _as_tensor

    if isinstance(value, dict):
        return {name: _loaded(part, p, name) for name, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)([_loaded(part, p) for part in value])
    found = None if isinstance(value, (int, float, complex, str, bytes)) else _as_tensor(value)
    if found is None:
        return deepcopy(value)
    if key == "step":
        return found.clone()
    if p.dtype.is_floating_point or (p.dtype.is_complex and found.dtype.is_complex):
        return found.to(device=p.device, dtype=p.dtype, copy=True)
    return found.to(device=p.device, copy=True)


def _own(value: Any) -> Any:
    """A setting's copy; a foreign tensor (a learning rate) as ours."""
    from ..nn.state import _as_tensor

    if isinstance(value, Tensor) or not hasattr(value, "__dlpack__") or isinstance(value, np.ndarray):
        return deepcopy(value)
    return _as_tensor(value).clone()


def check_lr(lr: Any, text: str = "Invalid learning rate: {}") -> None:
    """Raises ValueError for a learning rate below zero, or a tensor of several."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not setting("lr", lr) >= 0.0:
        raise ValueError(text.format(lr))


def setting(name: str, value: Any) -> float:
    """A setting as a float: a number, or a tensor of one element. Raises TypeError for what is none."""
    one = value.item() if isinstance(value, Tensor) and value._data.size == 1 else value
    return real("optimizer", name, one)


def pair_of_settings(name: str, given: Any) -> tuple[Any, Any]:
    """Two settings. Raises TypeError for what is no pair."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"{name} must be two numbers, got {given!r}.")
    return given[0], given[1]


def check_settings(**settings: Any) -> None:
    """Raises ValueError for a setting below zero. PyTorch calls ``eps`` epsilon."""
    for name, value in settings.items():
        if not setting(name, value) >= 0.0:
            raise ValueError(f"Invalid {'epsilon' if name == 'eps' else name} value: {value}; it must be at least 0.")


def clips(limit: float | None) -> Group:
    """The setting ``max_grad_norm`` of a group, or none: without it groups have PyTorch's settings and no other.

    Raises ValueError for a norm to clip to that is no positive number.
    """
    if limit is None:
        return {}
    if not setting("max_grad_norm", limit) > 0.0:
        raise ValueError(f"Invalid max_grad_norm value: {limit}; it must be positive, or None for no clipping.")
    return {"max_grad_norm": limit}


def check_betas(betas: Any) -> None:
    """Raises ValueError unless both are in [0, 1)."""
    pair_of_settings("betas", betas)
    for i in range(2):
        if not 0.0 <= setting(f"betas[{i}]", betas[i]) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {betas[i]}; it must be in [0, 1).")
