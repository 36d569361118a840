"""Checkpointing: forget a function's intermediate results and compute them again in backward."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

from ..autograd.grad_mode import enable_grad
from ..autograd.grad_mode import state as grad_state
from ..autograd.saved import saved_tensors_hooks
from ..errors import AutogradError
from ..tensor import Tensor

__all__ = ["checkpoint", "checkpoint_sequential"]


class _Segment:
    """One checkpointed call: what it saved is forgotten, and computed again when backward first asks for it."""

    def __init__(self, run: Callable[..., Any], args: tuple[Any, ...], rng: Any):
        self.run = run
        self.args = args
        self.rng = rng
        self.versions = [(a._version_cell(), a._version_cell()[0]) for a in args if isinstance(a, Tensor)]
        amp = sys.modules.get("tensorgrad.amp.casting")  # who never used it has no settings of it
        self.autocast: Any = nullcontext if amp is None else partial(amp.as_then, amp.snapshot())
        self.count = 0
        self.found: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> int:
        self.count += 1
        return self.count - 1

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

        with saved_tensors_hooks(keep, lambda kept: kept), enable_grad(), _randomness(self.rng), self.autocast():
            self.run(*self.args)
        if len(found) != self.count:
            raise AutogradError(
                f"checkpoint: the function saved {self.count} tensors in forward and {len(found)} when run again; "
                "it must do the same operations both times."
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


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool = False,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args)``, keeping only ``args`` for backward and computing the rest again there.

    Parameters that the function closes over receive gradients, and second derivatives work.

    Args:
        function: must do the same operations when run again.
        use_reentrant: only False is supported: PyTorch's older form loses gradients that this one keeps.
        preserve_rng_state: draw the same random numbers in the second run.
    Returns: what ``function`` returned.
    Raises: ValueError for ``use_reentrant=True``. Backward raises AutogradError if the second run saves other tensors,
        or an argument was changed in place.
    Example:
        >>> import tensorgrad as tg
        >>> from tensorgrad.utils.checkpoint import checkpoint
        >>> x = tg.tensor(0.5, requires_grad=True)
        >>> checkpoint(lambda t: (t.exp() + 1).log(), x).backward()
    """
    from .. import random

    if use_reentrant:
        raise ValueError("checkpoint: use_reentrant=True is not supported; use_reentrant=False does all it does.")
    run = (lambda *given: function(*given, **kwargs)) if kwargs else function
    if not grad_state.recording:
        return run(*args)
    segment = _Segment(run, args, random.get_rng_state() if preserve_rng_state else None)
    with saved_tensors_hooks(segment.pack, segment.unpack):
        return run(*args)


def checkpoint_sequential(functions: Sequence[Callable[..., Any]], segments: int, input: Tensor, **options: Any) -> Any:
    """A chain of functions run in ``segments`` parts, each checkpointed."""
    chain = list(functions)
    if not 1 <= segments <= len(chain):
        raise ValueError(f"checkpoint_sequential: segments must be between 1 and {len(chain)}, got {segments}.")
    size = len(chain) // segments
    bounds = [*(i * size for i in range(segments)), len(chain)]

    def part(first: int, last: int) -> Callable[..., Any]:
        def run(x: Any) -> Any:
            for function in chain[first:last]:
                x = function(x)
            return x

        return run

    for first, last in pairwise(bounds):
        input = checkpoint(part(first, last), input, **options)
    return input


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
