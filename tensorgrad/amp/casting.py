"""Where autocast listens: at the records of the ops it knows.

A record that autocast knows is of a class mixed with ``_Casting`` from the first time autocast is enabled in the
process: its call casts the tensors among its inputs, by recorded casts, and then is the call of any record. Programs
that never enable autocast have plain records and pay nothing; ``dispatch`` and the tape know nothing of it. While a
record runs, autocast is off: what an op's definition computes is the op's own affair.

The lists are those of PyTorch's CPU autocast, by record: one record serves convolutions of every rank, say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..dispatch import OPS
from ..dtypes import DType, bfloat16, float16, float32, float64
from ..ops.precision import widen
from ..tensor import Tensor

__all__ = ["LOWER", "WIDER", "state", "watch"]


USUAL = {"cpu": bfloat16}
"""What autocast lowers to where nobody has said otherwise, besides float16."""


class State(threading.local):
    """This thread's settings, by device type, and the casts of parameters made so far."""

    def __init__(self) -> None:
        self.enabled: dict[str, bool] = {}
        self.dtypes: dict[str, DType] = dict(USUAL)
        self.cache_enabled = True
        self.nesting = 0
        self.cache: dict[Any, tuple[Any, Tensor]] = {}
        self.on = False  # whether any device type is enabled and no known record is running

    def refresh(self) -> None:
        self.on = any(self.enabled.values())
        usual = self.cache_enabled and all(self.dtype(where) is USUAL.get(where, float16) for where in self.dtypes)
        grad_state.casting = self.on or not usual

    def dtype(self, device_type: str) -> DType:
        return self.dtypes.get(device_type, float16)


state = State()

LOWER = frozenset((
    "attention", "attention_dropout", "conv", "conv_input_grad", "conv_weight_grad", "linear", "matmul", "mv", "prelu",
    "rnn_sequence",
))  # fmt: skip
"""Records whose inputs are cast to autocast's dtype."""


def _three_axes(inputs: tuple[Any, ...], attrs: dict[str, Any]) -> bool:
    """Pooling in three dimensions; in one and two it runs in the dtype it is given."""
    return len(attrs.get("kernel", attrs.get("kernel_size", attrs.get("sizes", attrs.get("output_size", ()))))) == 3


def _not_constant(inputs: tuple[Any, ...], attrs: dict[str, Any]) -> bool:
    return attrs.get("mode", "constant") in ("reflect", "replicate")


_LOSSES = (
    "absolute_difference", "binary_cross_entropy", "binary_cross_entropy_with_logits", "binary_entropy",
    "cross_entropy", "ctc", "huber", "huber_loss", "kl_div", "kl_div_log", "kl_log_pointwise", "kl_pointwise",
    "l1_loss", "logit_entropy", "mse_loss", "poisson_log", "poisson_nll", "poisson_nll_log", "poisson_rate",
    "smooth_l1", "smooth_l1_loss", "squared_difference",
)  # fmt: skip
_OTHERS = ("grid_sample", "max_unpool", "polar", "prod")
WIDER: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], bool] | None] = {
    **dict.fromkeys((*_LOSSES, *_OTHERS)), "adaptive_avg_pool": _three_axes, "adaptive_max_pool": _three_axes,
    "avg_pool": _three_axes, "max_pool": _three_axes, "pad": _not_constant,
}  # fmt: skip
"""Records whose half-precision inputs are cast to float32, some of them only if the function here says so."""


def lowered(x: Any) -> Any:
    """A tensor of autocast's dtype, where that is enabled on its device; casts of parameters are kept."""
    if not isinstance(x, Tensor):
        return x
    have = x.dtype
    if not have.is_floating_point or have is float64:
        return x
    where = x.device.type
    if not state.enabled.get(where):
        return x
    wanted = state.dtype(where)
    if have is wanted:
        return x
    leaf = x._node is None and x._tracked and x._base is None and have is float32
    if not (leaf and state.cache_enabled):
        return x.to(wanted)
    # a cast made without recording has no gradient; one made before the parameter was changed is old
    key = (id(x), wanted.name, grad_state.recording)
    stamp = (x._data, x._version_cell()[0])
    kept = state.cache.get(key)
    if kept is not None and kept[0][0] is stamp[0] and kept[0][1] == stamp[1]:
        return kept[1]
    cast = x.to(wanted)
    state.cache[key] = (stamp, cast)
    return cast


def widened(x: Any) -> Any:
    """A half-precision tensor in float32, where autocast is enabled on its device."""
    if state.on and isinstance(x, Tensor) and x.dtype in (float16, bfloat16) and state.enabled.get(x.device.type):
        return x.to(float32)
    return x


def snapshot() -> tuple[Any, ...]:
    """This thread's settings, for ``as_then``."""
    return dict(state.enabled), dict(state.dtypes), state.cache_enabled


@contextmanager
def as_then(settings: tuple[Any, ...]) -> Iterator[None]:
    """The settings of a ``snapshot`` within the block; what was cast meanwhile is not kept."""
    before, cache = snapshot(), state.cache
    state.cache = {}
    try:
        state.enabled, state.dtypes, state.cache_enabled = settings
        state.refresh()
        yield
    finally:
        state.enabled, state.dtypes, state.cache_enabled = before
        state.cache = cache
        state.refresh()


def _cast(name: str, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[Any, ...]:
    if name in LOWER:
        return tuple(map(lowered, inputs))
    applies = WIDER[name]
    return tuple(map(widened, inputs)) if applies is None or applies(inputs, attrs) else inputs


class _Casting:
    """What a record's class is mixed with: a call that casts the inputs while autocast is on."""

    name: str

    def __call__(self, *inputs: Any, **attrs: Any) -> Any:
        plain: Any = super()
        if not state.on:
            return plain.__call__(*inputs, **attrs)
        inputs = _cast(self.name, inputs, attrs)
        state.on = False
        try:
            return plain.__call__(*inputs, **attrs)
        finally:
            state.on = True


_casting: dict[type, type] = {}


def watch() -> None:
    """Make the known records casting ones; again where a family was loaded since."""
    if widened not in widen:
        widen.append(widened)
    for name in (*LOWER, *WIDER):
        op = OPS.get(name)
        if op is None or isinstance(op, _Casting):
            continue
        kind = type(op)
        if kind not in _casting:
            _casting[kind] = type(f"Casting{kind.__name__}", (_Casting, kind), {})
        op.__class__ = _casting[kind]
