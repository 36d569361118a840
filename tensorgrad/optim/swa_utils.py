"""Averages of a model's weights: stochastic weight averaging and exponential moving averages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

from ..autograd.grad_mode import no_grad
from ..nn.module import Module
from ..nn.norm import _BatchNorm
from ..ops.create import tensor
from ..tensor import Tensor
from .lr_scheduler.base import LRScheduler, Rates, one_per_group, warn_outside_step
from .optimizer import Optimizer, setting

__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
    "update_bn",
]  # fmt: skip

Tensors = list[Tensor]


def _check_decay(decay: float) -> None:
    if not 0.0 <= setting("decay", decay) <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """``average, new, count -> decay average + (1 - decay) new``, for ``AveragedModel(avg_fn=...)``.

    Raises ValueError for a decay outside of [0, 1].
    """
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Tensors, Tensors, Any], None]:
    """As ``get_ema_avg_fn``, in place on lists of tensors, for ``AveragedModel(multi_avg_fn=...)``."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param_list: Tensors, current_param_list: Tensors, _: Any) -> None:
        for average, new in zip(ema_param_list, current_param_list, strict=True):
            average.copy_(average * decay + new * (1 - decay))

    return ema_update


def get_swa_avg_fn() -> Callable[[Tensor, Tensor, Any], Tensor]:
    """``average, new, count -> average + (new - average) / (count + 1)``: the mean of all so far."""

    @no_grad()
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


def get_swa_multi_avg_fn() -> Callable[[Tensors, Tensors, Any], None]:
    """As ``get_swa_avg_fn``, in place on lists of tensors."""

    @no_grad()
    def swa_update(averaged_param_list: Tensors, current_param_list: Tensors, num_averaged: Any) -> None:
        for average, new in zip(averaged_param_list, current_param_list, strict=True):
            average.copy_(average + (new - average) / (num_averaged + 1))

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's, taken at each ``update_parameters``.

    Args:
        model: what is copied.
        device: where the copy lives; where the model does if None.
        avg_fn: ``f(average, new, count) -> average``; the mean of all if None.
        multi_avg_fn: ``f(averages, news, count)``, in place on lists of tensors.
        use_buffers: average the buffers too, which are copied otherwise.
    Raises: AssertionError if both functions are given.
    Example:
        >>> import tensorgrad as tg
        >>> from tensorgrad.optim.swa_utils import AveragedModel, get_ema_avg_fn
        >>> model = tg.nn.Linear(2, 1)
        >>> average = AveragedModel(model, avg_fn=get_ema_avg_fn(0.9))
        >>> average.update_parameters(model)
        >>> int(average.n_averaged)
        1
    Source: Izmailov and others 2018; Polyak and Juditsky 1992.
    """

    n_averaged: Tensor

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Callable[..., Tensor] | None = None,
        multi_avg_fn: Callable[..., None] | None = None, use_buffers: bool = False,
    ):  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the model's parameters into the average; the first time, they are the average."""
        mine, theirs = (
            chain(m.parameters(), m.buffers()) if self.use_buffers else m.parameters() for m in (self.module, model)
        )
        pairs = [(a.detach(), b.detach().to(a.device)) for a, b in zip(mine, theirs, strict=True)]
        with no_grad():
            if self.n_averaged == 0:  # a truth, and not the number, is what a compiled step rests on
                for average, new in pairs:
                    average.copy_(new)
            elif self.avg_fn is not None:
                for average, new in pairs:
                    average.copy_(self.avg_fn(average, new, self.n_averaged.to(average.device)))
            else:
                self._update_lists(pairs)
            if not self.use_buffers:
                for kept, new in zip(self.module.buffers(), model.buffers(), strict=True):
                    kept.detach().copy_(new.detach().to(kept.device))
            self.n_averaged += 1

    def _update_lists(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        alike: dict[Any, list[tuple[Tensor, Tensor]]] = {}
        for pair in pairs:
            alike.setdefault((str(pair[0].device), pair[0].dtype), []).append(pair)
        update = self.multi_avg_fn or get_swa_multi_avg_fn()
        for members in alike.values():
            averages, news = map(list, zip(*members, strict=True))
            update(averages, news, self.n_averaged.to(averages[0].device))


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Set the running statistics of the model's batch norms to those of the loader's data, in one pass.

    Args:
        loader: batches; of a list or tuple, the first entry is the model's input.
        device: where batches are moved to.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for batch in loader:
        if isinstance(batch, (list, tuple)):
            batch = batch[0]
        model(batch if device is None else batch.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """From the present rate to ``swa_lr`` in ``anneal_epochs`` steps, and constant from there on.

    Args:
        swa_lr: the final rate; a number, or one per group.
        anneal_strategy: "cos" or "linear".
    Raises: ValueError for another strategy, or a negative or fractional number of steps.
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10, anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ):  # fmt: skip
        for rate, group in zip(one_per_group("swa_lr", optimizer, swa_lr), optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def anneal_func(self, t: float) -> float:
        """How much of the way is behind at share ``t`` of the steps."""
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def _way(self, step: int) -> float:
        return self.anneal_func(max(0, min(1, step / max(1, self.anneal_epochs))))

    def get_lr(self) -> Rates:
        warn_outside_step(self)
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._way(step - 1), self._way(step)
        rates = []
        for group in self.optimizer.param_groups:
            rate, end = group["lr"], group["swa_lr"]
            start = end if before == 1 else (rate - before * end) / (1 - before)
            rates.append(end * now + start * (1 - now))
        return rates
