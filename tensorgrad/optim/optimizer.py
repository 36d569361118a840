"""``Optimizer``: groups of parameters, their state, and steps that update a whole group in one call.

For each group a plan says which parameters one call of the update op serves (a *bucket*: same dtype, same device, as
many steps behind them) and where their state lies. Plans are made when first needed and again when something they rest
on has changed; an ordinary step only collects arrays.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from ..autograd.grad_mode import enable_grad, no_grad
from ..autograd.hooks import Handle
from ..dispatch import host, local
from ..errors import AutogradError, DeviceError, DTypeError
from ..nn.module import zero_in_place
from ..ops.create import zeros_like
from ..tensor import Tensor, wrap

__all__ = ["Bucket", "Optimizer"]

Group = dict[str, Any]


class Bucket:
    """Parameters that one call updates.

    ``hyper``: the float64 numbers that the kernel reads; ``refresh`` brings them up to date for the coming step.
    """

    __slots__ = ("cells", "dtype", "fresh", "hyper", "kind", "params", "refresh", "states")

    refresh: Callable[[], None]

    def __init__(self, params: list[Tensor], states: list[dict[str, Any]], hyper: Any, fresh: bool):
        self.params = params
        self.states = states
        self.hyper = hyper
        self.fresh = fresh
        self.dtype = params[0]._data.dtype
        self.kind = type(params[0]._data)
        self.cells = [p._version_cell() for p in params]

    def arrays(self) -> tuple[list[Any], list[Any]] | None:
        """The parameters' and the gradients' arrays; None if they are no longer what the bucket was made for."""
        dtype, kind = self.dtype, self.kind
        params, grads = [], []
        for p in self.params:
            g = p._grad
            if g is None:
                return None
            a, d = p._data, g._data
            if type(a) is not kind or type(d) is not kind:
                return None
            if (a.dtype is not dtype and a.dtype != dtype) or (d.dtype is not dtype and d.dtype != dtype):
                return None
            params.append(a)
            grads.append(d)
        return params, grads

    def state(self, name: str) -> list[Any]:
        return [state[name]._data for state in self.states]


class Plan:
    """The buckets of a group, and what they rest on."""

    __slots__ = ("buckets", "count", "group", "idle", "layout", "state")

    def __init__(self, group: Group, state: Any, layout: Any, buckets: list[Bucket], idle: list[Tensor]):
        self.group = group
        self.count = len(group["params"])
        self.state = state
        self.layout = layout
        self.buckets = buckets
        self.idle = idle

    def fits(self, group: Group, state: Any, layout: Any) -> bool:
        if self.group is not group or self.count != len(group["params"]) or self.state is not state:
            return False
        return self.layout == layout and all(p._grad is None for p in self.idle)


class Optimizer:
    """Base of all optimizers.

    A subclass names the ``slots`` of its state and the length of ``hyper``, and defines ``_layout``, ``_refresh`` and
    ``_update``.

    Args:
        params: tensors, (name, tensor) pairs, or dicts with ``"params"`` and settings of their own (groups).
        defaults: settings of groups that do not give them.
    """

    hyper_size: ClassVar[int]
    step_at: ClassVar[int | None] = None  # which number of hyper counts the steps

    def __init__(self, params: Any, defaults: Group):
        if isinstance(params, Tensor):
            raise TypeError(
                f"{type(self).__name__}: params must be an iterable of Tensors or dicts, got one Tensor; pass [it]."
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[Group] = []
        self._plans: list[Plan | None] = []
        self._pre_hooks: list[Any] = []
        self._post_hooks: list[Any] = []
        self._step_count = 0
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: Group) -> None:
        """Train more parameters: a dict with ``"params"`` and settings that differ from the defaults.

        Raises TypeError or ValueError for what is no leaf tensor, or is trained already.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections; a set has no order.")
        members = [given] if isinstance(given, Tensor) else list(given)
        group: Group = {**param_group, "params": []}
        if any(isinstance(member, tuple) for member in members):
            group["param_names"] = [name for name, _ in members]
            members = [tensor for _, tensor in members]
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        for p in members:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if p._node is not None:
                raise ValueError("can't optimize a non-leaf Tensor; pass the leaf it was computed from.")
            if id(p) in taken:
                raise ValueError("some parameters appear in more than one parameter group, or twice in one")
            taken.add(id(p))
        group["params"] = members
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        self._check_group(group)
        self.param_groups.append(group)
        self._plans.append(None)

    def _check_group(self, group: Group) -> None:
        """Raises ValueError for settings that make no sense."""

    # --- stepping

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients (or, with False, set them to zero)."""
        for group in self.param_groups:
            for p in group["params"]:
                if p._grad is not None:
                    if set_to_none:
                        p._grad = None
                    else:
                        zero_in_place(p)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the loss anew (with gradients), called first.
        Returns: what the closure returned, None without one.
        """
        for hook in self._pre_hooks:
            hook(self, (closure,), {})
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for i, group in enumerate(self.param_groups):
            self._step_group(i, group)
        self._step_count += 1
        for hook in self._post_hooks:
            hook(self, (closure,), {})
        return loss

    def _step_group(self, i: int, group: Group) -> None:
        plan = self._plans[i]
        layout = self._layout(group)
        ready = None
        if plan is not None and plan.fits(group, self.state, layout):
            ready = [bucket.arrays() for bucket in plan.buckets]
        if plan is None or ready is None or None in ready:
            plan = self._plans[i] = self._make_plan(group, layout)
            ready = [bucket.arrays() for bucket in plan.buckets]
        for bucket, arrays in zip(plan.buckets, ready, strict=True):
            assert arrays is not None
            host(bucket.refresh)
            self._update(local.doors[bucket.kind], group, bucket, *arrays)
            for cell in bucket.cells:
                cell[0] += 1

    def _layout(self, group: Group) -> Any:
        """The names of the state tensors that the group's settings ask for."""
        raise TypeError(f"{type(self).__name__} must define _layout(group)")

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        """Write the numbers of the coming step to ``bucket.hyper``."""
        raise TypeError(f"{type(self).__name__} must define _refresh(group, bucket)")

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        """Call the update op."""
        raise TypeError(f"{type(self).__name__} must define _update(door, group, bucket, params, grads)")

    # --- plans

    def _make_plan(self, group: Group, slots: tuple[str, ...]) -> Plan:
        gathered: dict[Any, list[Tensor]] = {}
        idle = []
        for p in group["params"]:
            state = self.state.get(p)
            done = 0.0 if not state or self.step_at is None else float(state["step"])
            if state and self.step_at is not None:
                state["step"] = wrap(np.array(done))  # no longer counted with the others
            if p._grad is None:
                idle.append(p)
                continue
            self._check_gradient(p)
            fresh = not state or any(state.get(name) is None for name in slots)
            key = (type(p._data), p._data.dtype, str(p.device), done, fresh)
            gathered.setdefault(key, []).append(p)
        buckets = [self._make_bucket(group, slots, params, *key[3:]) for key, params in gathered.items()]
        return Plan(group, self.state, slots, buckets, idle)

    def _make_bucket(
        self, group: Group, slots: tuple[str, ...], params: list[Tensor], done: float, fresh: bool
    ) -> Bucket:
        hyper = np.zeros(self.hyper_size)
        states = []
        for p in params:
            # SGD without momentum has no state at all
            state = self.state[p] if slots or self.step_at is not None else {}
            if self.step_at is not None:
                hyper[self.step_at] = done
                # the state's step is the very number that counts: no bookkeeping per parameter
                state["step"] = wrap(hyper[self.step_at : self.step_at + 1].reshape(()))
            for name in slots:
                if state.get(name) is None:
                    state[name] = zeros_like(p)
                self._check_state(name, state[name], p)
            states.append(state)
        bucket = Bucket(params, states, hyper, fresh)
        bucket.refresh = lambda: self._refresh(group, bucket)
        return bucket

    def _check_gradient(self, p: Tensor) -> None:
        grad = p._grad
        assert grad is not None
        if grad._data.dtype != p._data.dtype:
            raise DTypeError(
                f"{type(self).__name__}: a parameter of {p.dtype} has a gradient of {grad.dtype}. "
                "Convert it: p.grad = p.grad.to(p.dtype)."
            )
        if type(grad._data) is not type(p._data):
            raise DeviceError(f"{type(self).__name__}: a parameter on {p.device} has a gradient on {grad.device}.")
        if p._data.dtype.kind not in "fcV":
            raise DTypeError(f"{type(self).__name__}: a parameter is {p.dtype}; only floating point can be trained.")

    def _check_state(self, name: str, value: Any, p: Tensor) -> None:
        where = f"{type(self).__name__}: the state {name!r} of a parameter"
        if not isinstance(value, Tensor) or tuple(value.shape) != tuple(p.shape):
            raise AutogradError(f"{where} of shape {tuple(p.shape)} does not fit: {value!r}.")
        if value._data.dtype != p._data.dtype or type(value._data) is not type(p._data):
            raise DTypeError(
                f"{where} is {value.dtype} on {value.device}, the parameter is {p.dtype} on {p.device} now. "
                "Move the model before the optimizer's first step, or load the state again with load_state_dict."
            )

    # --- saving and loading

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: {name: value}}, "param_groups": [settings with "params": numbers]}, as PyTorch's.

        Parameters are numbered in the order of the groups. Tensors are those of the optimizer, not copies.
        """
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            settings = {key: value for key, value in group.items() if key != "params"}
            groups.append({**settings, "params": [numbers[id(p)] for p in group["params"]]})
        state = {numbers[id(p)]: dict(value) for p, value in self.state.items() if value}
        return {"state": {n: state[n] for n in sorted(state)}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a ``state_dict``, also one of PyTorch's; values are copied.

        Raises ValueError if it has other groups, or groups of other sizes.
        """
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError(
                f"loaded state dict has {len(saved)} parameter groups, the optimizer {len(self.param_groups)}"
            )
        for i, (theirs, ours) in enumerate(zip(saved, self.param_groups, strict=True)):
            if len(theirs["params"]) != len(ours["params"]):
                raise ValueError(
                    f"loaded state dict has {len(theirs['params'])} parameters in group {i}, "
                    f"the optimizer {len(ours['params'])}"
                )
        params: dict[Any, Tensor] = {}
        groups = []
        for theirs, ours in zip(saved, self.param_groups, strict=True):
            params.update(zip(theirs["params"], ours["params"], strict=True))
            settings = {key: copy.deepcopy(value) for key, value in theirs.items() if key != "params"}
            groups.append({**settings, "params": ours["params"]})
        self.state = defaultdict(dict)
        for number, values in state_dict["state"].items():
            p = params[number]
            self.state[p] = {name: self._loaded(name, value, p) for name, value in values.items()}
        self.param_groups = groups
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)
        self._plans = [None] * len(groups)

    def _loaded(self, name: str, value: Any, p: Tensor) -> Any:
        from ..nn.state import _as_tensor

        if name == "step":
            return wrap(np.array(float(value)))
        found = _as_tensor(value)
        if found is None:
            return copy.deepcopy(value)
        with no_grad():
            # state is kept as its parameter is: the model may have been moved since
            if found.dtype.is_floating_point or found.dtype.is_complex:
                return found.to(device=p.device, dtype=p.dtype, copy=True)
            return found.to(device=p.device, copy=True)

    # --- hooks, text, pickling

    def register_step_pre_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` before each step."""
        return Handle(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., None]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return Handle(self._post_hooks, hook)

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(vars(self))
        kept["_plans"] = [None] * len(self.param_groups)
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_plans" in state:
            self.__dict__.update(state)
            return
        # Pickled by PyTorch: its settings and tensors are taken over, the rest is as in a new optimizer.
        type(self).__init__(self, state["param_groups"])  # type: ignore[call-arg]
        self.defaults.update(state["defaults"])
        for p, values in state["state"].items():
            self.state[p] = {name: self._loaded(name, value, p) for name, value in values.items()}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key not in ("params", "param_names")]
        return "\n".join(lines) + "\n)"


def check_rates(name: str, group: Group, **least: float) -> None:
    """Raises ValueError for settings that are negative; called with names and the number they must reach."""
    for key, bound in least.items():
        value = group[key]
        if not float(value) >= bound:
            raise ValueError(f"{name}: invalid {key}: {value}; it must be at least {bound:g}.")


def parameters_of(params: Any) -> Iterable[Tensor]:
    """The tensors of a list, or the only one."""
    return [params] if isinstance(params, Tensor) else list(params)
