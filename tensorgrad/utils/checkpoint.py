"""Checkpointing: forget a function's intermediate results and compute them again in backward."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any

from ..autograd.grad_mode import enable_grad
from ..autograd.grad_mode import state as grad_state
from ..autograd.saved import saved_tensors_hooks
from ..errors import AutogradError
from ..tensor import Tensor

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential"]


class CheckpointError(AutogradError):
    """Raised in backward when running a checkpointed function again gives other tensors than the first time."""


class _Segment:
    """One checkpointed call: what it saved is forgotten, and computed again when backward first asks for it."""

    def __init__(self, run: Callable[..., Any], args: tuple[Any, ...], rng: Any, around: Any, compares: bool):
        self.run = run
        self.args = args
        self.rng = rng
        self.around = around  # a context of the user's for the second run
        self.compares = compares
        self.versions = [(a._version_cell(), a._version_cell()[0]) for a in args if isinstance(a, Tensor)]
        amp = sys.modules.get("tensorgrad.amp.casting")  # who never used it has no settings of it
        self.autocast: Any = nullcontext if amp is None else partial(amp.as_then, amp.snapshot())
        self.kinds: list[Any] = []
        self.found: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> int:
        self.kinds.append((tuple(tensor.shape), tensor.dtype, str(tensor.device)))
        return len(self.kinds) - 1

    def unpack(self, index: int) -> Tensor:
        if index not in self.found:
            self.recompute()
        return self.found.pop(index)

    def recompute(self) -> None:
        for cell, seen in self.versions:
            if cell[0] != seen:
                raise AutogradError(
                    "checkpoint: an argument was changed in place between forward and backward, so running the "
                    "function again would give other values. Pass a clone."
                )
        found: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            found[len(found)] = tensor
            return tensor

        keeping = saved_tensors_hooks(keep, lambda kept: kept)
        with keeping, enable_grad(), _randomness(self.rng), self.autocast(), self.around:
            self.run(*self.args)
        if len(found) != len(self.kinds):
            raise CheckpointError(
                f"checkpoint: A different number of tensors was saved during the original forward ({len(self.kinds)}) "
                f"and recomputation ({len(found)}); the function must do the same operations both times."
            )
        for i, kind in enumerate(self.kinds if self.compares else ()):
            again = (tuple(found[i].shape), found[i].dtype, str(found[i].device))
            if again != kind:
                raise CheckpointError(
                    f"checkpoint: Recomputed values have different metadata than during the forward pass: tensor {i} "
                    f"was {kind}, and {again} when the function ran again."
                )
        self.found = found


class _randomness:
    """Replays the default generator from a remembered state, and leaves it where it was."""

    def __init__(self, state: Any):
        self.state = state

    def __enter__(self) -> None:
        from .. import random

        self.before = random.get_rng_state()
        if self.state is not None:
            random.set_rng_state(self.state)

    def __exit__(self, *error: Any) -> None:
        from .. import random

        random.set_rng_state(self.before)


def _nothing() -> tuple[Any, Any]:
    return nullcontext(), nullcontext()


def checkpoint(
    function: Callable[..., Any] | None = None, *args: Any, use_reentrant: bool | None = None,
    preserve_rng_state: bool = True, context_fn: Callable[[], tuple[Any, Any]] = _nothing,
    determinism_check: str = "default", debug: bool = False, early_stop: bool = True, **kwargs: Any,
) -> Any:  # fmt: skip
    """``function(*args, **kwargs)``, keeping only the arguments for backward and computing the rest again there.

    Parameters that the function closes over receive gradients, and second derivatives work.

    Args:
        function: must do the same operations when run again; None gives a decorator.
        use_reentrant: accepted for PyTorch's sake: its older form (True) gives the same gradients where it gives any,
            and both are run alike here.
        preserve_rng_state: draw the same random numbers in the second run.
        context_fn: returns two context managers, one for each run.
        determinism_check: "default" compares shapes and dtypes of what both runs save; "none" only how many there are.
        early_stop: accepted as a hint; the second run goes to the function's end.
    Returns: what ``function`` returned.
    Raises: ValueError for ``debug=True``, which is not supported, or an unknown ``determinism_check``. Backward raises
        CheckpointError if the second run saves other tensors, AutogradError if an argument was changed in place.
    Example:
        >>> import tensorgrad as tg
        >>> from tensorgrad.utils.checkpoint import checkpoint
        >>> x = tg.tensor(0.5, requires_grad=True)
        >>> checkpoint(lambda t: (t.exp() + 1).log(), x, use_reentrant=False).backward()
    Source: Griewank and Walther 2000; Chen, Xu, Zhang, Guestrin 2016.
    """
    from .. import random

    if debug:
        raise ValueError("checkpoint: debug=True is not supported; the error names what differs.")
    if determinism_check not in ("default", "none"):
        raise ValueError(f"checkpoint: determinism_check must be 'default' or 'none', got {determinism_check!r}.")
    options = {"preserve_rng_state": preserve_rng_state, "context_fn": context_fn,
               "determinism_check": determinism_check}  # fmt: skip
    if function is None:

        def decorate(chosen: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(chosen)
            def checkpointed(*given: Any, **named: Any) -> Any:
                return checkpoint(partial(chosen, **named), *given, **options)  # type: ignore[arg-type]

            return checkpointed

        return decorate
    run = partial(function, **kwargs) if kwargs else function
    first, second = context_fn()
    if not grad_state.recording:
        with first:
            return run(*args)
    rng = random.get_rng_state() if preserve_rng_state else None
    segment = _Segment(run, args, rng, second, determinism_check == "default")
    with saved_tensors_hooks(segment.pack, segment.unpack), first:
        return run(*args)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """A chain of functions, or an ``nn.Sequential``, run in ``segments`` parts, each but the last checkpointed.

    Args:
        use_reentrant, preserve_rng_state: as in ``checkpoint``.
    Raises: ValueError for other keywords, or segments that are none.
    """
    options = {"preserve_rng_state": kwargs.pop("preserve_rng_state", True)}
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    chain = list(functions.children() if hasattr(functions, "children") else functions)
    if not 1 <= segments <= len(chain):
        raise ValueError(f"checkpoint_sequential: segments must be between 1 and {len(chain)}, got {segments}.")
    size = len(chain) // segments

    def part(first: int, last: int) -> Callable[..., Any]:
        def run(x: Any) -> Any:
            for function in chain[first:last]:
                x = function(x)
            return x

        return run

    for k in range(segments - 1):
        input = checkpoint(part(k * size, (k + 1) * size), input, **options)
    return part((segments - 1) * size, len(chain))(input)


def get_device_states(*args: Any) -> tuple[list[int], list[Tensor]]:
    """(numbers of CUDA devices among the arguments, the generator's state once for each), for ``set_device_states``.

    One generator serves all devices here.
    """
    from .. import random

    found = {x.device.index or 0 for x in args if isinstance(x, Tensor) and x.device.type == "cuda"}
    devices = sorted(found)
    return devices, [random.get_rng_state() for _ in devices]


def set_device_states(devices: Sequence[int], states: Sequence[Tensor], *, device_type: str | None = None) -> None:
    """Continue from the states that ``get_device_states`` gave."""
    from .. import random

    for _, state in zip(devices, states, strict=True):
        random.set_rng_state(state)
