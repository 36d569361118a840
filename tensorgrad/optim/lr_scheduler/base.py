"""``LRScheduler``, the base of the schedules."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...ops.checks import number
from ...tensor import Tensor
from ..optimizer import Optimizer

__all__ = ["LRScheduler"]

Rates = list[Any]  # floats; Tensors where the optimizer's rates are

EPOCH_WARNING = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. Please use "
    "`scheduler.step()` to step the scheduler: with an epoch, the closed form of the schedule is used where it has one."
)


class LRScheduler:
    """Base of the schedules. A schedule of your own defines ``get_lr``.

    Args:
        optimizer: whose groups are scheduled.
        last_epoch: how many steps are behind the schedule; -1 starts anew, other values need ``initial_lr`` in every
            group (as an earlier schedule left it there).
    Raises: TypeError if ``optimizer`` is none; KeyError where ``initial_lr`` is missing.
    Example:
        >>> import tensorgrad as tg
        >>> class Halving(tg.optim.lr_scheduler.LRScheduler):
        ...     def get_lr(self):
        ...         return [base * 0.5**self.last_epoch for base in self.base_lrs]
        >>> optimizer = tg.optim.SGD([tg.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = Halving(optimizer)
        >>> optimizer.step(); schedule.step()
        >>> schedule.get_last_lr()
        [0.5]
    """

    _get_lr_called_within_step: bool = False
    _is_initial: bool = False
    _last_lr: Rates
    _step_count: int

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with "
                    "last_epoch >= 0. Load the optimizer's state dict first, or start anew with last_epoch=-1."
                )
        self.base_lrs: Rates = values_of(optimizer, "initial_lr")
        self.last_epoch: Any = last_epoch
        optimizer.__dict__["_scheduled_step"] = optimizer.__dict__.get("step")
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> Rates:
        """The rates at ``last_epoch``, computed from the present ones. Only ``step`` calls it."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    def get_last_lr(self) -> Rates:
        """The rates that the schedule set last."""
        return self._last_lr

    def step(self, epoch: Any = None) -> None:
        """Go on by one, or (deprecated) to ``epoch``; to be called after the optimizer's step."""
        if self._step_count == 1:
            self._check_order()
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _check_order(self) -> None:
        optimizer = self.optimizer
        if optimizer.__dict__.get("step") is not optimizer.__dict__.get("_scheduled_step"):
            warnings.warn(
                "Seems like `optimizer.step()` has been overridden after learning rate scheduler initialization. "
                "Please, make sure to call `optimizer.step()` before `lr_scheduler.step()`.",
                UserWarning,
                stacklevel=3,
            )
        elif not optimizer._opt_called:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. You should call them in the "
                "opposite order: `optimizer.step()` before `lr_scheduler.step()`. Otherwise the first rate of the "
                "schedule is skipped.",
                UserWarning,
                stacklevel=3,
            )

    def _update_lr(self, epoch: Any = None) -> None:
        closed = getattr(self, "_get_closed_form_lr", None)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        with self._within_step():
            rates = self.get_lr() if epoch is None or closed is None else closed()
        self._set(rates)

    def _set(self, rates: Rates) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_value(group, "lr", rate)
        self._last_lr = self._present()

    @contextmanager
    def _within_step(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _present(self) -> Rates:
        return values_of(self.optimizer, "lr")

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a ``state_dict``. The rates themselves stand in the optimizer's."""
        vars(self).update(state_dict)


def check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def warn_outside_step(schedule: LRScheduler) -> None:
    """What ``get_lr`` says to those who ask it for the last rate."""
    if not schedule._get_lr_called_within_step:
        warnings.warn(
            "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
            UserWarning,
            stacklevel=3,
        )


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def values_of(optimizer: Optimizer, key: str) -> list[Any]:
    """The setting of every group; tensors are copied, so that nobody changes them from outside."""
    return [copied(group[key]) for group in optimizer.param_groups]


def set_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Write a setting; a tensor keeps its identity, so that whoever holds it sees the change."""
    if isinstance(group[key], Tensor):
        group[key].data.fill_(float(value))
    else:
        group[key] = value


def check_numbers(schedule: str, **given: Any) -> None:
    """Raises TypeError for a setting that is no number."""
    for name, value in given.items():
        number(schedule, name, value)


def check_not_zero(schedule: str, **given: Any) -> None:
    """Raises TypeError for what is no number, ValueError for a divisor that is 0."""
    check_numbers(schedule, **given)
    for name, value in given.items():
        if value == 0:
            raise ValueError(f"{schedule}: {name} must not be 0.")


def one_per_group(name: str, optimizer: Optimizer, given: Any) -> list[Any]:
    """A number for every group. Raises TypeError for what is none, ValueError for a list of another length."""
    check_optimizer(optimizer)
    count = len(optimizer.param_groups)
    for value in given if isinstance(given, (list, tuple)) else (given,):
        check_numbers("schedule", **{name: value})
    if not isinstance(given, (list, tuple)):
        return [copied(given) for _ in range(count)]
    if len(given) != count:
        raise ValueError(
            f"{name} must have the same length as optimizer.param_groups. {name} has {len(given)} values, "
            f"param_groups has {count}."
        )
    return [copied(value) for value in given]


def attributes_of(function: Any) -> dict[str, Any] | None:
    """What is saved of a user's function: the attributes of an object, nothing of a plain function."""
    return None if isinstance(function, types.FunctionType) else dict(vars(function))


def has_momentum(optimizer: Optimizer) -> bool:
    """Whether the optimizer's momentum is called beta1. Raises ValueError if it has none."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")
    return "betas" in optimizer.defaults


def set_momentum(group: dict[str, Any], value: Any, is_beta1: bool) -> None:
    if is_beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value
