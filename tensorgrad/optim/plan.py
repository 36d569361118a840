"""Steps that update a whole group of parameters in one call.

For each group a plan says which parameters one call of the update op serves (a *bucket*: same dtype, same device, as
many steps behind them) and where their state lies. Plans are made when first needed and again when something they rest
on has changed; an ordinary step only collects arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, ClassVar

import numpy as np

from ..autograd.grad_mode import enable_grad, no_grad
from ..autograd.grad_mode import state as grad_state
from ..backends import registry
from ..core import native
from ..dispatch import host, local
from ..dtypes import get_default_dtype
from ..errors import AutogradError, DeviceError, DTypeError
from ..ops.create import full, zeros_like
from ..ops.storable import check_factor
from ..tensor import Tensor, wrap
from .optimizer import Group, Optimizer, StateDict, setting

__all__ = ["Bucket", "PlannedOptimizer", "write_numbers"]


def _write_numbers(array: Any, *numbers: Any) -> None:
    array[:] = numbers


write_numbers: Callable[..., None] = _write_numbers if native is None else native.write_numbers
"""The elements of a float64 array become these numbers: a step does so each time, and NumPy takes as long for one."""


def _check_rate(rate: Any, bucket: Bucket) -> None:
    """Raises TypeError for a learning rate, put into a group later, that is no number, DTypeError for one beyond the
    parameters' dtype. A tensor is read when the step is made."""
    if not isinstance(rate, Tensor):
        check_factor("optimizer: lr", setting("lr", rate), bucket.params[0].dtype)


class Bucket:
    """Parameters that one call updates.

    ``scalars``: the numbers of their state (the count of steps first), shared by all; ``hyper``: the float64 numbers
    that the kernel reads; ``refresh`` brings both up to date for the coming step, and ``reads`` gives the tensors that
    it reads. ``fresh``: there was no state. ``done``: the count of steps, where the device counts those that it does
    not leave out.
    """

    __slots__ = ("cells", "done", "dtype", "fresh", "hyper", "kind", "params", "reads", "refresh", "scalars", "states")

    refresh: Callable[[], None]
    reads: Callable[[], list[Tensor]]

    def __init__(self, params: list[Tensor], states: list[dict[str, Any]], scalars: Any, hyper: Any, fresh: bool):
        self.params = params
        self.states = states
        self.scalars = scalars
        self.hyper = hyper
        self.fresh = fresh
        self.dtype = params[0]._data.dtype
        self.kind = type(params[0]._data)
        self.cells = [p._version_cell() for p in params]
        self.done: Tensor | None = None

    def count_on_device(self) -> Any:
        """Where the device counts steps from now on, without dimensions."""
        if self.done is None:
            self.done = full((), float(self.scalars[0]), dtype="float32", device=self.params[0].device)
            for state in self.states:
                state["step"] = self.done
        return self.done._data

    def count_on_host(self) -> None:
        """Let ``scalars`` count again; waits for the device if that has counted."""
        if self.done is not None:
            self.scalars[0], self.done = float(self.done), None
            for state in self.states:
                state["step"] = wrap(self.scalars[:1].reshape(()))

    def arrays(self) -> tuple[list[Any], list[Any]] | None:
        """The parameters' and the gradients' arrays; None if they are no longer what the bucket was made for."""
        dtype, kind = self.dtype, self.kind
        if native is not None:
            found: tuple[list[Any], list[Any]] | None = native.collect(self.params, kind, dtype)
            return found
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

    __slots__ = ("buckets", "count", "group", "idle", "layout", "members", "state")

    def __init__(self, group: Group, state: Any, layout: Any, buckets: list[Bucket], idle: list[Tensor]):
        self.group = group
        self.members = tuple(group["params"])
        self.state = state
        self.count = len(state)
        self.layout = layout
        self.buckets = buckets
        self.idle = idle

    def fits(self, group: Group, state: Any, layout: Any) -> bool:
        members, params = self.members, group["params"]
        if self.group is not group or self.state is not state or self.layout != layout:
            return False
        if len(members) != len(params) or self.count > len(state) or not all(map(is_, members, params)):
            return False
        return not self.idle or all(p._grad is None for p in self.idle)


class PlannedOptimizer(Optimizer):
    """An optimizer of this package.

    A subclass gives ``hyper_size`` and ``scalars``, and defines ``_layout``, ``_refresh`` and ``_update``;
    ``_differentiable`` where it can be recorded.
    """

    hyper_size: ClassVar[int]
    op: ClassVar[str] = "update_"  # what ``_update`` calls
    scalars: ClassVar[tuple[str, ...]] = ("step",)  # numbers of a parameter's state, in the state's order
    # settings that ``_refresh`` reads anew for every step, and nothing else reads but ``_layout`` and ``_flags``
    live: ClassVar[frozenset[str]] = frozenset((
        "alpha", "beta2_decay", "betas", "dampening", "eps", "etas", "initial_lr", "lambd", "lr", "lr_decay",
        "max_lr", "min_lr", "momentum", "momentum_decay", "rho", "step_sizes", "t0", "weight_decay",
    ))  # fmt: skip

    def __init__(self, params: Any, defaults: Group):
        self._plans: dict[int, Plan] = {}
        self._loaded: dict[tuple[int, ...], Any] = {}  # by a bucket's parameters, the numbers that were loaded for them
        self._scales: dict[tuple[float, Any], Any] = {}
        self._unless: dict[str, Any] = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plans, self._unless, self._loaded = {}, {}, {}
        for value in self.state.values():
            for name in self.scalars if isinstance(value, dict) else ():
                if name in value and not isinstance(value[name], Tensor):  # how they were once saved
                    value[name] = wrap(np.array(value[name], dtype=scalar_dtype()))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the loss anew (with gradients), called first.
        Returns: what the closure returned, None without one.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if local.unsettled is not None and self._guarded_step():
            return loss
        self._scales = self._clipping()
        for i, group in enumerate(self.param_groups):
            if group.get("differentiable"):
                self._step_recorded(group)
            else:
                self._step_group(i, group)
        return loss

    def step_unless(self, flag: Tensor) -> bool:
        """``step()``, which changes nothing where ``flag``, a bool on the parameters' device, is set. Nobody waits for
        that: the kernels read it, and count the steps.

        Returns: False, where nothing was done, if the kernels can't; if somebody besides them would have to know (who
            listens, hooks, a step of a subclass's own); and for a step that makes state, which one left out does not.
        """
        ready = self._ready_to_leave_out(flag)
        if ready is None:
            return False
        if local.unsettled is not None:
            failed = local.unsettled.failed_check()
            if failed is None or wrap(failed).device != flag.device:
                return False
            flag = flag if failed is flag._data else wrap(failed) | flag
        self._scales = self._clipping()
        try:
            for group, bucket, arrays in ready:
                self._unless = {"stop": flag._data}
                if self.scalars:
                    self._unless["done"] = bucket.count_on_device()
                self._run(group, bucket, arrays)
        finally:
            self._unless = {}
        return True

    def _guarded_step(self) -> bool:
        """A step that the device leaves out if indices were out of range; False if the host has found that they were
        not, by waiting."""
        backend = local.unsettled
        failed = backend.failed_check()
        if failed is not None and self.step_unless(wrap(failed)):
            return True
        backend.settle()
        return False

    def _ready_to_leave_out(self, flag: Tensor) -> list[tuple[Group, Bucket, Any]] | None:
        if (
            self._told
            or local.listeners
            or self.has_step_hooks()
            or self.op not in registry.active(flag._data).leaves_out
        ):
            return None
        if type(self).step is not PlannedOptimizer.step or "step" in self.__dict__:
            return None
        ready = []
        for i, group in enumerate(self.param_groups):
            plan = self._plans.get(i)
            if plan is None or group.get("differentiable") or not plan.fits(group, self.state, self._layout(group)):
                return None
            for bucket in plan.buckets:
                arrays = bucket.arrays()
                if arrays is None or bucket.fresh or bucket.params[0].device != flag.device:
                    return None
                ready.append((group, bucket, arrays))
        return ready

    def _clipping(self) -> dict[tuple[float, Any], Any]:
        """``max_grad_norm`` and a device to the factor, 0-d and there, of the gradients of such groups, applied as the
        step reads them.

        One norm, that of all gradients of such groups together. It is computed and used where the gradients are, by
        recorded ops: a replayed step clips by its own norm.
        """
        clipped = [group for group in self.param_groups if group.get("max_grad_norm") is not None]
        if not clipped:
            return {}
        grads = [p._grad for group in clipped for p in group["params"] if p._grad is not None]
        if not grads:
            return {}
        if any(group.get("differentiable") for group in clipped):
            raise ValueError(
                f"{type(self).__name__}: max_grad_norm and differentiable exclude each other; clip by "
                "nn.utils.clip_grad_norm_ before the step."
            )
        from ..nn.utils.clip_grad import clipping_factor, get_total_norm

        total = get_total_norm(grads)
        factors = {limit: clipping_factor(limit, total) for limit in {float(g["max_grad_norm"]) for g in clipped}}
        devices = {grad.device for grad in grads}
        return {(limit, device): x.to(device)._data for limit, x in factors.items() for device in devices}

    def _keywords(self, group: Group, bucket: Bucket) -> dict[str, Any]:
        """What an update op that clips and can be left out is given for that, where there is something."""
        limit = group.get("max_grad_norm")
        if limit is None or not self._scales:
            return self._unless
        return {**self._unless, "scale": self._scales[float(limit), bucket.params[0].device]}

    def _step_group(self, i: int, group: Group) -> None:
        plan = self._plans.get(i)
        layout = self._layout(group)
        ready = None
        if plan is not None and plan.fits(group, self.state, layout):
            if len(plan.buckets) == 1:
                bucket = plan.buckets[0]
                arrays = bucket.arrays()
                if arrays is not None:
                    return self._run(group, bucket, arrays)
            ready = [bucket.arrays() for bucket in plan.buckets]
        if plan is None or ready is None or None in ready:
            self._count_on_host()
            params = group["params"]
            once = list({id(p): p for p in params}.values())
            if len(once) < len(params):
                self._plans.pop(i, None)
                return self._step_repeated(group, layout, once)
            plan = self._plans[i] = self._make_plan(group, layout, params)
            ready = [bucket.arrays() for bucket in plan.buckets]
        for bucket, arrays in zip(plan.buckets, ready, strict=True):
            self._run(group, bucket, arrays)

    def _run(self, group: Group, bucket: Bucket, arrays: Any) -> None:
        if bucket.done is not None and not self._unless:
            bucket.count_on_host()
        rate = group["lr"]
        if type(rate) is not float or not -1e38 < rate < 1e38:
            _check_rate(rate, bucket)
        before = bucket.scalars.copy()
        try:
            host(bucket.refresh, bucket.reads, (bucket.scalars,))
            self._update(local.doors[bucket.kind], group, bucket, *arrays)
        except Exception:  # there was no memory for it: it is no step, and the next one has its number
            bucket.scalars[...] = before
            raise
        bucket.fresh = False
        if native is not None:
            native.bump(bucket.cells)
            return
        for cell in bucket.cells:
            cell[0] += 1

    def _step_repeated(self, group: Group, layout: Any, once: list[Tensor]) -> None:
        """A group in which a parameter stands several times: every time is a step of its own."""
        left = list(group["params"])
        while left:
            now = [p for p in once if any(p is q for q in left)]
            for p in now:
                del left[next(i for i, q in enumerate(left) if q is p)]
            for bucket in self._make_plan(group, layout, now).buckets:
                self._run(group, bucket, bucket.arrays())

    def _count_on_host(self) -> None:
        for plan in self._plans.values():
            for bucket in plan.buckets:
                bucket.count_on_host()

    def state_dict(self) -> dict[str, Any]:
        self._count_on_host()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        self._count_on_host()
        return super().__getstate__()

    def own_arrays(self) -> list[Any]:
        return [x for plan in self._plans.values() for bucket in plan.buckets for x in (bucket.hyper, bucket.scalars)]

    def form(self, group: Group) -> tuple[Any, ...]:
        frozen = [(name, value) for name, value in group.items() if name != "params" and name not in self.live]
        # a setting that lies on a device is read where the step stands, and not before
        waits = any(not isinstance(x._data, np.ndarray) for x in _tensors_of(group))
        return self._layout(group), waits, *frozen

    def _layout(self, group: Group) -> tuple[str, ...]:
        """The names of the state tensors that the group's settings ask for."""
        raise NotImplementedError(f"{type(self).__name__} must define _layout(group)")

    def _layout_of(self, p: Tensor, layout: tuple[str, ...]) -> tuple[str, ...]:
        """Those of them that this parameter has."""
        return layout

    def _hyper_size(self, count: int) -> int:
        """How many numbers the kernel reads for so many parameters."""
        return self.hyper_size

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        """Count a step in ``bucket.scalars`` and write the numbers of the coming step to ``bucket.hyper``."""
        raise NotImplementedError(f"{type(self).__name__} must define _refresh(group, bucket)")

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        """Call the update op."""
        raise NotImplementedError(f"{type(self).__name__} must define _update(door, group, bucket, params, grads)")

    def _differentiable(
        self, group: Group, p: Tensor, g: Tensor, states: list[Tensor], scalars: Any, fresh: bool
    ) -> tuple[Tensor, ...]:
        """The parameter and the state after a step, computed by recorded ops; counts the step in ``scalars``."""
        raise ValueError(f"{type(self).__name__}: differentiable=True is not supported.")

    def _first(self, name: str, group: Group, p: Tensor) -> Tensor:
        """A state tensor before the first step."""
        return zeros_like(p)

    def _first_scalars(self, group: Group) -> tuple[float, ...]:
        """The numbers of a state before the first step."""
        return (0.0,) * len(self.scalars)

    def _step_recorded(self, group: Group) -> None:
        """A step that can itself be differentiated: by the gradients, the state, the parameters and the rate."""
        layout = self._layout(group)
        for p in group["params"]:
            if p._grad is None:
                continue
            self._check_gradient(p)
            if p.dtype.is_complex:
                raise DTypeError(f"{type(self).__name__}: differentiable=True takes real parameters only.")
            known = self.state.get(p) or {}
            fresh = any(known.get(name) is None for name in layout) if layout else not known
            numbers = self._scalars_of(group, known)
            scalars = np.array(numbers, dtype=scalar_dtype())
            with no_grad():
                states = [known[n] if known.get(n) is not None else self._first(n, group, p) for n in layout]
            if grad_state.recording:
                p_before, before = p.clone(), [x.clone() for x in states]
            else:
                p_before, before = p, states
            after = self._differentiable(group, p_before, p._grad, before, scalars, fresh)
            p.copy_(after[0])
            if self.scalars or layout:
                found = self.state[p]
                for name, number in zip(self.scalars, scalars, strict=True):
                    found[name] = wrap(np.array(number))
                found.update(zip(layout, after[1:], strict=True))

    # --- plans

    def _scalars_of(self, group: Group, state: dict[str, Any]) -> tuple[float, ...]:
        first = self._first_scalars(group) if self.scalars else ()
        return tuple(
            self._number(state[name]) if state.get(name) is not None else value
            for name, value in zip(self.scalars, first, strict=True)
        )

    def _number(self, value: Any) -> float:
        """A number of the state. One that was loaded is read past who listens: the next step counts by its memory, so
        that a program rests on no value of it."""
        if self._loaded and isinstance(value, Tensor):
            base = getattr(value._data, "base", None)
            if any(base is scalars for scalars in self._loaded.values()):
                return float(value._data)
        return float(value)

    def _make_plan(self, group: Group, layout: tuple[str, ...], params: list[Tensor]) -> Plan:
        gathered: dict[Any, list[Tensor]] = {}
        idle = []
        for p in params:
            state = self.state.get(p) or {}
            done = self._scalars_of(group, state)
            if p._grad is None:
                if state:
                    for name, value in zip(self.scalars, done, strict=True):  # no longer counted with the others
                        state[name] = wrap(np.array(value, dtype=scalar_dtype()))
                idle.append(p)
                continue
            self._check_gradient(p)
            names = self._layout_of(p, layout)
            fresh = not state or any(state.get(name) is None for name in names)
            key = (type(p._data), p._data.dtype, str(p.device), names, done, fresh)
            gathered.setdefault(key, []).append(p)
        buckets = [self._make_bucket(group, found, *key[3:]) for key, found in gathered.items()]
        return Plan(group, self.state, layout, buckets, idle)

    def _make_bucket(
        self, group: Group, params: list[Tensor], layout: tuple[str, ...], done: tuple[float, ...], fresh: bool
    ) -> Bucket:
        scalars = self._counted_together(params, done)
        counted = scalars is not None
        if scalars is None:
            for p in params:
                for name in self.scalars:
                    value = (self.state.get(p) or {}).get(name)
                    if isinstance(value, Tensor):
                        float(value)  # which is told to who listens
            scalars = np.array(done, dtype=scalar_dtype())
        states = []
        for p in params:
            # SGD without momentum has no state at all
            state = self.state[p] if layout or self.scalars else {}
            if not counted:
                self._count_by(state, scalars)
            for name in layout:
                if state.get(name) is None:
                    state[name] = self._first(name, group, p)
                self._check_state(name, state[name], p)
            states.append(state)
        bucket = Bucket(params, states, scalars, np.zeros(self._hyper_size(len(params))), fresh)
        bucket.refresh = self._refreshing(group, bucket)
        bucket.reads = lambda: _tensors_of(group)
        return bucket

    def _count_by(self, state: dict[str, Any], scalars: Any) -> None:
        """Make the state's step the very number that counts: no bookkeeping per parameter."""
        for i, name in enumerate(self.scalars):
            state[name] = wrap(scalars[i : i + 1].reshape(()))

    def _counted_together(self, params: list[Tensor], done: tuple[float, ...]) -> Any:
        """The numbers that ``load_state_dict`` has made for just these parameters, if they have them still."""
        scalars = self._loaded.pop(tuple(map(id, params)), None)
        if scalars is None or tuple(scalars) != done:
            return None
        mine = all(self.state[p][name]._data.base is scalars for p in params for name in self.scalars)
        return scalars if mine else None

    def load_state_dict(self, state_dict: StateDict) -> None:
        buckets = [bucket.params for plan in self._plans.values() for bucket in plan.buckets]
        groups = {id(p): i for i, group in enumerate(self.param_groups) for p in group["params"]}
        super().load_state_dict(state_dict)
        self._loaded = {}
        if not self.scalars:
            return
        # the next step counts here, so that a program can be written of it: else it would set the numbers anew
        for params in buckets:
            states = [self.state.get(p) or {} for p in params]
            if not all(id(p) in groups for p in params):
                continue
            numbers = {self._scalars_of(self.param_groups[groups[id(p)]], self.state.get(p) or {}) for p in params}
            if all(states) and len(numbers) == 1:
                scalars = np.array(numbers.pop(), dtype=scalar_dtype())
                for state in states:
                    self._count_by(state, scalars)
                self._loaded[tuple(map(id, params))] = scalars

    def _refreshing(self, group: Group, bucket: Bucket) -> Callable[[], None]:
        """What brings a bucket's numbers up to date."""
        return lambda: self._refresh(group, bucket)

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
        if not isinstance(value, Tensor) or tuple(value.shape) != self._state_shape(name, p):
            raise AutogradError(f"{where} of shape {tuple(p.shape)} does not fit: {value!r}.")
        if value._data.dtype != p._data.dtype or type(value._data) is not type(p._data):
            raise DTypeError(
                f"{where} is {value.dtype} on {value.device}, the parameter is {p.dtype} on {p.device} now. "
                "Move the model before the optimizer's first step, or load the state again with load_state_dict."
            )

    def _state_shape(self, name: str, p: Tensor) -> tuple[int, ...]:
        return tuple(p.shape)


def _tensors_of(group: Group) -> list[Tensor]:
    """Settings that are tensors, a rate say."""
    found = []
    for name, value in group.items():
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value) is tuple and name != "params":
            found += [x for x in value if isinstance(x, Tensor)]
    return found


def scalar_dtype() -> Any:
    """In which numbers of the state are kept, as in PyTorch."""
    return np.float64 if get_default_dtype().name == "float64" else np.float32
