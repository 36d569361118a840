"""``GradScaler``: losses are scaled so that float16 gradients do not vanish, and gradients are scaled back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from enum import Enum
from typing import Any, ClassVar

from ..autograd.grad_mode import no_grad
from ..dispatch import local, unless
from ..errors import AutogradError
from ..ops.checks import integer, number
from ..ops.create import full
from ..optim.plan import PlannedOptimizer
from ..tensor import Tensor, wrap

__all__ = ["GradScaler", "OptState"]


class OptState(Enum):
    """How far an optimizer is since the last ``update``."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


class _Progress:
    def __init__(self) -> None:
        self.stage = OptState.READY
        self.found_inf: Tensor | None = None  # 0-d bool, on the scale's device


class GradScaler:
    """Scales losses, unscales gradients, skips steps whose gradients are not finite, and adapts the scale.

    The scale, the count of finite steps and whether a gradient is infinite stay on the device. On ``cuda`` the kernels
    of SGD, Adam and AdamW find the last of these there, and Adam's steps are counted there: no step waits but the first
    and those with hooks. Other optimizers' steps wait. In a program of ``tg.compile`` it is asked in each replay, or
    found on the device.

    Args:
        device: where the losses are: "cuda" or "cpu".
        init_scale: the first scale.
        growth_factor: multiplies the scale after ``growth_interval`` finite steps in a row.
        backoff_factor: multiplies it after a step that was not finite.
        enabled: False makes ``scale``, ``unscale_`` and ``update`` do nothing, and ``step`` the optimizer's.
    Raises: AssertionError for a growth factor not above 1, or a backoff factor not below. Warns and is disabled for
        "cuda" where there is none.
    Example:
        >>> import tensorgrad as tg
        >>> x = tg.ones(2, requires_grad=True)
        >>> optimizer = tg.optim.SGD([x], lr=0.5)
        >>> scaler = tg.amp.GradScaler("cpu", init_scale=1024.0)
        >>> scaler.scale((x * x).sum()).backward()
        >>> scaler.step(optimizer); scaler.update()
        >>> x.tolist(), scaler.get_scale()
        ([0.0, 0.0], 1024.0)
    Source: Micikevicius and others 2018.
    """

    # read when the first loss is scaled, and not again
    unguarded: ClassVar[frozenset[str]] = frozenset(("_init_scale", "_init_growth_tracker"))

    def __init__(
        self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ):  # fmt: skip
        self._device = device
        if enabled and device == "cuda" and not _cuda():
            warnings.warn("GradScaler is enabled, but CUDA is not available. Disabling.", UserWarning, stacklevel=2)
            enabled = False
        self._enabled = enabled
        if not enabled:
            return
        init_scale = number("GradScaler", "init_scale", init_scale)
        growth_factor = number("GradScaler", "growth_factor", growth_factor)
        backoff_factor = number("GradScaler", "backoff_factor", backoff_factor)
        growth_interval = integer("GradScaler", "growth_interval", growth_interval, 2**31)
        if not growth_factor > 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if not backoff_factor < 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._init_scale = init_scale
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._init_growth_tracker = 0
        self._scale: Tensor | None = None
        self._growth_tracker: Tensor | None = None
        self._progress: dict[int, _Progress] = {}

    def _started(self, what: str) -> Tensor:
        if self._scale is None:
            raise AssertionError(
                f"Attempted {what} but _scale is None. This may indicate your script did not use scaler.scale(loss or "
                "outputs) earlier in the iteration."
            )
        return self._scale

    def scale(self, outputs: Any) -> Any:
        """A tensor, or all tensors in lists and tuples, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            if self._scale is None:
                self._scale = full((), self._init_scale, dtype="float32", device=outputs.device)
                self._growth_tracker = full((), self._init_growth_tracker, dtype="int32", device=outputs.device)
            return outputs * self._scale.to(outputs.device)
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def _of(self, optimizer: Any) -> _Progress:
        return self._progress.setdefault(id(optimizer), _Progress())

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, before clipping them, say.

        Raises: AutogradError if that was done since the last ``update``; ValueError for float16 gradients.
        """
        if not self._enabled:
            return
        scale = self._started("unscale_")
        progress = self._of(optimizer)
        if progress.stage is OptState.UNSCALED:
            raise AutogradError("unscale_() has already been called on this optimizer since the last update().")
        if progress.stage is OptState.STEPPED:
            raise AutogradError("unscale_() is being called after step().")
        grads = {id(p): p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        if any(grad.dtype.name == "float16" for grad in grads.values()):
            raise ValueError("Attempting to unscale FP16 gradients.")
        with no_grad():
            progress.found_inf = _unscaled(list(grads.values()), scale)
        progress.stage = OptState.UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """The optimizer's step, unless a gradient is infinite or NaN. Unscales first where that was not done.

        Returns: what the optimizer's step returns; None where it was skipped.
        Raises: AutogradError for a closure, or a second step before ``update``.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise AutogradError("Closure use is not currently supported if GradScaler is enabled.")
        self._started("step")
        progress = self._of(optimizer)
        if progress.stage is OptState.STEPPED:
            raise AutogradError("step() has already been called since the last update().")
        if progress.stage is OptState.READY:
            self.unscale_(optimizer)
        if progress.found_inf is None:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        usual = isinstance(optimizer, PlannedOptimizer) and not (args or kwargs)
        if usual and optimizer.step_unless(progress.found_inf):
            result = None
        else:
            result = unless(progress.found_inf, lambda: optimizer.step(*args, **kwargs))
        optimizer._opt_called = True  # a schedule may go on where the step was skipped: it was tried
        progress.stage = OptState.STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to what the steps since the last ``update`` found, or set it.

        Raises: AssertionError if there was no step, or ``new_scale`` is neither a float nor a tensor of one element.
        """
        if not self._enabled:
            return
        scale = self._started("update")
        assert self._growth_tracker is not None
        if isinstance(new_scale, Tensor):
            if new_scale.numel() != 1 or new_scale.requires_grad:
                raise AssertionError(
                    "new_scale should be a float or a 1-element float tensor with requires_grad=False."
                )
            scale.copy_(new_scale.reshape(()))
        elif new_scale is not None:
            scale.fill_(float(new_scale))
        else:
            found = [p.found_inf for p in self._progress.values() if p.found_inf is not None]
            if not found:
                raise AssertionError("No inf checks were recorded prior to update.")
            local.doors[type(scale._data)].amp_update_scale_(
                scale._data, [flag._data for flag in found], self._growth_tracker._data,
                growth_factor=float(self._growth_factor), backoff_factor=float(self._backoff_factor),
                growth_interval=int(self._growth_interval),
            )  # fmt: skip
            scale._bump()
            self._growth_tracker._bump()
        self._progress.clear()

    def get_scale(self) -> float:
        """The scale; 1 if disabled."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else float(self._scale)

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Let the scale grow by another factor."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the scale shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Let the scale shrink by another factor."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many finite steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Let the scale grow after another number of finite steps."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return self._init_growth_tracker if self._growth_tracker is None else int(self._growth_tracker)

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The scale, the factors, and how many finite steps are behind; empty if disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(), "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval, "_growth_tracker": self._get_growth_tracker(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a ``state_dict``. Raises AutogradError for that of a disabled one."""
        if not self._enabled:
            return
        if not state_dict:
            raise AutogradError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._init_scale = state_dict["scale"]
        if self._scale is not None:
            self._scale.fill_(self._init_scale)
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._growth_tracker is not None:
            self._growth_tracker.fill_(self._init_growth_tracker)


def _unscaled(grads: list[Tensor], scale: Tensor) -> Tensor | None:
    """Divide gradients by the scale; whether one of them is not finite then, None if there are none."""
    alike: dict[Any, list[Tensor]] = {}
    for grad in grads:
        alike.setdefault((type(grad._data), grad._data.dtype, str(grad.device)), []).append(grad)
    found: Tensor | None = None
    for some in alike.values():
        factor = scale.to(some[0].device)
        flag = wrap(local.doors[type(factor._data)].amp_unscale_([grad._data for grad in some], factor._data))
        for grad in some:
            grad._bump()
        flag = flag.to(scale.device)
        found = flag if found is None else found | flag
    return found


def _cuda() -> bool:
    from .. import cuda

    return cuda.is_available()
