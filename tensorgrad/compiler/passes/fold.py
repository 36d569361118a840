"""A convolution and what follows it become one call: a norm by running statistics, a residual, a ReLU.

Weights are not folded: the kernel computes scale and shift of the statistics anew in each run, and applies them to sums
that are still in registers. So nothing can be out of date, whoever changes a weight or a statistic, and how.

Sums are rounded in other places than one op after the other, so only a backend that says so (``folds_norms``) gets such
calls; without a norm the bits are the same there.
"""

from __future__ import annotations

import math
from typing import Any

from ...dispatch import OPS, local
from ..program import Action, Call, Program, Value
from .memory import Memory, rewritten

__all__ = ["run"]

_CONVS = frozenset(("conv", "conv_input_grad"))


class _Chain:
    """A convolution and the calls behind it that its kernel can do as well."""

    def __init__(self, at: int, call: Call, made: Value):
        self.call = call
        self.value = made  # what it gives so far
        self.steps = [at]
        self.read: list[tuple[int, Value]] = [(at, v) for v in call.reads()]
        transposed = call.op.name == "conv_input_grad"
        self.shape = call.attrs["input_shape"] if transposed else None
        self.bias = None if transposed else call.inputs[2]
        self.norm: tuple[Any, ...] = (None,) * 4
        self.eps = 0.0
        self.other: Value | None = None
        self.bounds: tuple[float, float] | None = None
        self.last = call

    @property
    def folded(self) -> bool:
        return len(self.steps) > 1

    def take(self, at: int, call: Call, views: dict[Value, Call]) -> bool:
        """Whether the call is one that the kernel can do next; then it is noted."""
        y = self.value
        if self.bounds is not None:
            return False
        out = call.attrs.get("out")
        if out is not None and out is not y:
            return False
        made = y if out is y else call.results[0] if len(call.results) == 1 else None
        if made is None or made.shape != y.shape or made.dtype != y.dtype or made.strides != y.strides:
            return False
        if made is not y and (call.writes or made.root is not made):
            return False
        name, inputs = call.op.name, call.inputs
        if set(call.attrs) - {"out"} != ({"eps"} if name == "batch_norm_eval" else set()):
            return False
        if name == "batch_norm_eval" and inputs[0] is y:
            if self.norm[2] is not None or self.other is not None or any(v is y for v in inputs[1:]):
                return False
            if any(v is not None and v.dtype != y.dtype for v in inputs[1:]):
                return False
            self.norm, self.eps = inputs[1:], call.attrs["eps"]
        elif name == "add" and len(inputs) == 2:
            other = inputs[1] if inputs[0] is y else inputs[0]
            if type(other) is not Value or other is y or other.root is y or other.dtype != y.dtype:
                return False
            source = _channels(other, y, views)
            if source is not None and self.bias is None and self.norm[2] is None and self.other is None:
                self.bias = other = source
            elif self.other is None and other.shape == y.shape and other.contiguous:
                self.other = other
            else:
                return False
            self.read.append((at, other))
        elif name == "relu" and len(inputs) == 1:
            self.bounds = 0.0, math.inf
        elif name == "hardtanh" and inputs[0] is y and all(type(b) in (int, float) for b in inputs[1:]):
            self.bounds = float(inputs[1]), float(inputs[2])
        else:
            return False
        self.read += [(at, v) for v in call.reads() if v is not y and v is not made and name != "add"]
        self.value = made
        self.steps.append(at)
        self.last = call
        return True

    def joined(self) -> Call:
        x, w = self.call.inputs[:2]
        how = {key: self.call.attrs[key] for key in ("stride", "padding", "dilation", "groups")}
        low, high = self.bounds or (-math.inf, math.inf)
        attrs = {"input_shape": self.shape, **how, "eps": self.eps, "clamps": self.bounds is not None, "low": low,
                 "high": high}  # fmt: skip
        inputs = (x, w, self.bias, *self.norm, self.other)
        last = self.last
        return Call(OPS["conv_norm"], self.call.kind, inputs, attrs, (self.value,), (), last.line, last.part)


def run(program: Program) -> Program:
    """The program with what follows convolutions done by them."""
    memory = Memory.of(program)
    readers = program.readers
    steps: list[Call | Action | None] = list(program.steps)
    views = {c.results[0]: c for c in program.calls if c.op.name == "reshape" and c.results[0] is not None}
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call) or step.op.name not in _CONVS or steps[at] is not step:
            continue
        if not local.plain[step.kind].backend.folds_norms:
            continue
        made = step.results[0]
        if (
            made is None
            or made.dtype.name not in ("float32", "float64")
            or made.root is not made
            or not made.contiguous
        ):
            continue
        if any(v.dtype != made.dtype for v in step.reads()):
            continue
        chain = _Chain(at, step, made)
        while (following := _next(program, readers, chain, memory)) is not None:
            if steps[following] is not program.steps[following]:
                break  # a sum of two convolutions: it is the first one's
            if not chain.take(following, program.steps[following], views):  # type: ignore[arg-type]
                break
        if not chain.folded:
            continue
        end = chain.steps[-1]
        for i in chain.steps:
            steps[i] = None
        steps[end] = chain.joined()
        names = [program.steps[i].op.name for i in chain.steps]  # type: ignore[union-attr]
        notes.append(
            f"{', '.join(names)} became conv_norm: {(len(names) - 1) * made.nbytes} bytes are not stored between"
        )
    if not notes:
        return program
    return rewritten(program, [s for s in steps if s is not None], "fold", notes)


def _next(program: Program, readers: dict[Value, set[int]], chain: _Chain, memory: Memory) -> int | None:
    """The step that follows, where nobody else reads what there is so far and what was read is still the same."""
    last = chain.steps[-1]
    later = sorted(i for i in readers.get(chain.value, ()) if i > last or i == -1)
    after = [i for i in later if i != -1]
    if not after:
        return None
    step = program.steps[after[0]]
    if not isinstance(step, Call):
        return None
    in_place = step.attrs.get("out") is chain.value
    if not in_place and len(later) > 1:
        return None
    if not all(memory.steady(v, i, after[0]) for i, v in chain.read):
        return None
    return after[0]


def _channels(other: Value, y: Value, views: dict[Value, Call]) -> Value | None:
    """The vector of channels that ``other`` is a view of, if it broadcasts as such."""
    shape = (y.shape[1], *(1,) * (len(y.shape) - 2))
    view = views.get(other)
    if other.shape not in (shape, (1, *shape)) or view is None:
        return None
    source: Value = view.inputs[0]
    return source if source.shape == (y.shape[1],) else None
