"""Connectionist temporal classification: the loss of a label sequence that is not aligned with its input.

The labels are stretched with blanks: ``- a - b -``. ``alpha[s]`` is the logarithm of the probability of all paths that
are at state ``s``; a step stays, moves on by one state, or skips a blank between two unlike labels. All sequences and
states are worked on at once, one step in time after the other. Source: Graves, Fernandez, Gomez, Schmidhuber 2006.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import recorded
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import check_reduction, integer, np_dtype, require_float, require_tensors, reshaped, statistic_dtype
from .norm import fitted
from .record import Spec, op
from .required import require
from .samples import Arg, Sample

__all__: list[str] = []  # users know it as a function of nn.functional

# the logarithm of a probability of zero: finite, so that differences of two have a derivative
_NEVER = -1e30


def _infer(x: Any, labels: Any, skips: Any, lengths: Any, last: Any) -> Spec:
    return Spec((x.shape[1],), x.dtype)


def _scores(F: Any, x: Any, labels: Any) -> list[Any]:
    """For each step the scores of the states' labels, (n, states)."""
    steps = x.shape[0]
    spread = F.expand(F.reshape(labels, shape=(1, *labels.shape)), shape=(steps, *labels.shape))
    every = F.gather(x, spread, dim=2)
    return [F.slice(every, key=(t,)) for t in range(steps)]


def _shifted(F: Any, x: Any, by: int) -> Any:
    """The states moved by ``by``; nothing comes from beyond the ends."""
    states = x.shape[1]
    key = (slice(None), slice(0, states - by, 1)) if by > 0 else (slice(None), slice(-by, states, 1))
    pads = ((0, 0), (by, 0) if by > 0 else (0, -by))
    return F.pad(F.slice(x, key=key), pads=pads, mode="constant", value=_NEVER)


def _sum3(F: Any, a: Any, b: Any, c: Any) -> Any:
    return F.logaddexp(F.logaddexp(a, b), c)


def _alphas(F: Any, x: Any, labels: Any, skips: Any, lengths: Any) -> list[Any]:
    """After each step, the states' log-probabilities; those of a sequence that has ended stay as they are."""
    steps, n, _ = x.shape
    states = labels.shape[1]
    scores = _scores(F, x, labels)
    start = F.pad(F.slice(scores[0], key=(slice(None), slice(0, min(2, states), 1))),
                  pads=((0, 0), (0, max(states - 2, 0))), mode="constant", value=_NEVER)  # fmt: skip
    alpha = F.where(F.gt(reshaped(F, lengths, (n, 1)), 0), start, _NEVER)
    found = [alpha]
    for t in range(1, steps):
        over = F.where(skips, _shifted(F, alpha, 2), _NEVER) if states > 2 else F.full_as(alpha, value=_NEVER)
        moved = _sum3(F, alpha, _shifted(F, alpha, 1), over) if states > 1 else alpha
        alpha = F.where(F.gt(reshaped(F, lengths, (n, 1)), t), F.add(moved, scores[t]), alpha)
        found.append(alpha)
    return found


def _total(F: Any, alpha: Any, last: Any) -> Any:
    """The log-probability of ending in the last state (the last blank) or the one before (the last label)."""
    n = alpha.shape[0]
    column = reshaped(F, last, (n, 1))
    at_blank = F.gather(alpha, column, dim=1)
    before = F.gather(alpha, F.where(F.gt(column, 0), F.sub(column, 1), 0), dim=1)
    before = F.where(F.gt(column, 0), before, _NEVER)
    return reshaped(F, F.logaddexp(at_blank, before), (n,))


def _define(F: Any, x: Any, labels: Any, skips: Any, lengths: Any, last: Any) -> Any:
    dtype = np_dtype(x)
    x = fitted(F, x, statistic_dtype(dtype))
    n = x.shape[1]
    none = F.logical_and(F.eq(lengths, 0), F.eq(last, 0))  # nothing said in no time: certain
    total = F.where(none, 0.0, _total(F, _alphas(F, x, labels, skips, lengths)[-1], last)) if n else _empty(F, x)
    loss = F.where(F.lt(total, _NEVER / 2), float("inf"), F.neg(total))
    return fitted(F, loss, dtype)


def _empty(F: Any, x: Any) -> Any:
    return F.zeros_as(x, shape=(0,))


def _rule(F: Any, g: Any, x: Any, labels: Any, skips: Any, lengths: Any, last: Any, *, needs: Any) -> tuple[Any, ...]:
    return F.ctc_backward(g, x, labels, skips, lengths, last), None, None, None, None


def _samples() -> list[Sample]:
    # two sequences: "1 1 2" in 6 steps and "2" in 4, blank 0; logarithms of 3 classes
    labels = Arg((2, 7), kind="i", values=(0, 1, 0, 1, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0))
    skips = Arg((2, 7), kind="b", values=(*(False,) * 5, True, False, *(False,) * 7))
    lengths, last = Arg((2,), kind="i", values=(6, 4)), Arg((2,), kind="i", values=(6, 2))
    return [Sample((Arg((6, 2, 3), -2.0, -0.2), labels, skips, lengths, last), name="two")]


ctc = op(
    "ctc",
    raises=True,
    infer=_infer,
    define=_define,
    rule=_rule,
    keeps=("x", "labels", "skips", "lengths", "last"),
    samples=_samples,
    doc="Minus the log of the sum over all alignments of the product of their probabilities, for each sequence.",
)


def _backward_define(F: Any, g: Any, x: Any, labels: Any, skips: Any, lengths: Any, last: Any) -> Any:
    dtype = np_dtype(x)
    x, g = fitted(F, x, statistic_dtype(dtype)), fitted(F, g, statistic_dtype(dtype))
    steps, n, classes = x.shape
    if not n:
        return F.zeros_as(x, shape=tuple(x.shape))
    states = labels.shape[1]
    alphas = _alphas(F, x, labels, skips, lengths)
    scores = _scores(F, x, labels)
    column, ends = reshaped(F, lengths, (n, 1)), reshaped(F, last, (n, 1))
    total = reshaped(F, _total(F, alphas[-1], last), (n, 1))
    # beta: the paths from a state on to the end, without the state's own step
    ramp = F.sub(F.cumsum(F.full_as(labels, value=1), dim=1), 1)
    at_end = F.logical_or(F.eq(ramp, ends), F.eq(ramp, F.sub(ends, 1)))
    final = F.where(at_end, F.zeros_as(x, shape=(n, states)), _NEVER)
    beta = final
    jumps = F.pad(F.slice(skips, key=(slice(None), slice(2, states, 1))), pads=((0, 0), (0, 2)), mode="constant",
                  value=0) if states > 2 else None  # fmt: skip
    shares: list[Any] = [None] * steps
    for t in reversed(range(steps)):
        share = F.exp(F.sub(F.add(alphas[t], beta), total))
        shares[t] = F.reshape(F.where(F.gt(column, t), share, 0.0), shape=(1, n, states))
        ahead = F.add(beta, scores[t])
        over = F.where(jumps, _shifted(F, ahead, -2), _NEVER) if states > 2 else F.full_as(ahead, value=_NEVER)
        moved = _sum3(F, ahead, _shifted(F, ahead, -1), over) if states > 1 else ahead
        beta = F.where(F.gt(column, t), moved, final)
    spread = F.expand(F.reshape(labels, shape=(1, n, states)), shape=(steps, n, states))
    by_class = F.scatter_add(F.zeros_as(x, shape=(steps, n, classes)), spread, F.cat(*shares, dim=0), dim=2)
    out = F.neg(F.mul(by_class, reshaped(F, g, (1, n, 1))))
    # of a sequence that can't be said there is no gradient, unless none is asked for; behind its end it is 0
    never = F.logical_and(F.lt(total, _NEVER / 2), F.ne(reshaped(F, g, (n, 1)), 0.0))
    during = F.cat(*[F.reshape(F.logical_and(never, F.gt(column, t)), shape=(1, n, 1)) for t in range(steps)], dim=0)
    return fitted(F, F.where(during, float("nan"), out), dtype)


ctc_backward = op(
    "ctc_backward",
    raises=True,
    infer=lambda g, x, labels, skips, lengths, last: Spec(tuple(x.shape), x.dtype),
    define=_backward_define,
    samples=lambda: [Sample((Arg((2,)), *_samples()[0].inputs), name="two")],
    doc="The gradient of ``ctc``: minus the probability that each class is being said, given the labels.",
)


def _lengths(label: str, given: Any, n: int, device: Any) -> Tensor:
    """int64 (n,), on the device."""
    from .create import from_numpy

    row = given if isinstance(given, Tensor) else from_numpy(np.asarray(given, dtype=np.int64))
    if row.numel() != n:
        raise ShapeError(f"ctc_loss: {label} has {row.numel()} numbers for a batch of {n}.")
    return row.reshape(n).to(device).long()


def _given_lengths(label: str, given: Any) -> Any:
    """The lengths as a tensor of integers, or a list of them."""
    if isinstance(given, Tensor):
        if given.dtype.category != 1:
            raise DTypeError(f"ctc_loss: {label} must be integers, got {given.dtype}.")
        return given
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"ctc_loss: {label} must be a Tensor or a sequence of integers, got {given!r}.")
    return [integer("ctc_loss", label, length) for length in given]


def _rows(targets: Tensor, given: Any, n: int) -> Tensor:
    """The labels of each sequence in a row of its own, and something behind them. Of labels that are all in one row the
    lengths are read on the host: the result's shape depends on them."""
    if targets._data.ndim == 2 and targets.shape[0] == n:
        return targets
    if targets._data.ndim != 1:
        raise ShapeError(
            f"ctc_loss: targets of shape {tuple(targets.shape)} for a batch of {n}; expected ({n}, the most labels), "
            "or all of them in one row."
        )
    from .create import from_numpy

    lengths = np.asarray(given.tolist() if isinstance(given, Tensor) else given, dtype=np.int64).reshape(n)
    if lengths.min(initial=0) < 0 or lengths.sum() != targets.numel():
        raise ShapeError(f"ctc_loss: {targets.numel()} concatenated targets for lengths {lengths.tolist()}.")
    within = np.arange(lengths.max(initial=0)) < lengths[:, None]
    places = np.zeros(within.shape, dtype=np.int64)
    places[within] = np.arange(lengths.sum())
    if not places.size:
        return targets[:0].reshape(1, 0).expand(n, 0)
    found: Tensor = targets[from_numpy(places).to(targets.device)]
    return found


def _stretched(rows: Tensor, said: Tensor, classes: int, blank: int) -> tuple[Tensor, Tensor]:
    """Labels between blanks, (n, 2 s + 1), and whether a state may be reached from the one before the blank ahead."""
    from .create import full_like
    from .join import stack
    from .ranges import arange
    from .rearrange import pad

    n, s = rows.shape
    here: Any = pw.lt(arange(s, device=rows.device), said.reshape(n, 1))
    labels = pw.where(here, rows.long(), 0)
    require(labels, 0, classes - 1, "argument", f"ctc_loss: label {{value}} is none of the {classes} classes.")
    labels = pw.where(here, labels, blank)
    labels = pad(stack([full_like(labels, blank), labels], dim=2).reshape(n, 2 * s), (0, 1), value=blank)
    before = pad(labels, (2, 0), value=blank)[:, : 2 * s + 1]
    states = arange(2 * s + 1, device=rows.device)
    unlike: Any = pw.logical_and(pw.ne(labels, blank), pw.ne(labels, before))
    return labels, pw.logical_and(unlike, pw.ge(states, 2))


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """The loss of labels whose places in the input are not known.

    Args:
        log_probs: (t, n, c) logarithms of probabilities, as of ``log_softmax``; or (t, c).
        targets: integers (n, s), or all labels in one row; none of them the blank.
        input_lengths, target_lengths: integers (n,), tensors or sequences.
        blank: the class that stands for "no label".
        reduction: "mean" divides each loss by its target's length before the mean over the batch.
        zero_infinity: losses of targets that do not fit into their input, and their gradients, are zero.
    Returns: a number, or (n,) without reduction.
    Raises: ShapeError, DTypeError; ArgumentError for lengths that are too long, or a blank or label that is no class.
    Source: Graves, Fernandez, Gomez, Schmidhuber 2006.
    """
    require_tensors("ctc_loss", log_probs=log_probs, targets=targets)
    check_reduction("ctc_loss", reduction)
    require_float("ctc_loss", log_probs._data)
    if targets.dtype.category != 1:
        raise DTypeError(f"ctc_loss: targets must be integers, got {targets.dtype}.")
    if log_probs._data.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss: expected log_probs (t, n, c) or (t, c), got shape {tuple(log_probs.shape)}.")
    single = log_probs._data.ndim == 2
    x = log_probs.unsqueeze(1) if single else log_probs
    steps, n, classes = x.shape
    if not 0 <= blank < classes:
        raise ArgumentError(f"ctc_loss: blank must be one of the {classes} classes, got {blank}.")
    if single:
        input_lengths, target_lengths = _row(input_lengths), _row(target_lengths)
        targets = targets.reshape(1, -1)
    input_lengths = _given_lengths("input_lengths", input_lengths)
    target_lengths = _given_lengths("target_lengths", target_lengths)
    if not steps:
        raise ShapeError("ctc_loss: log_probs has no time steps.")
    inside = _lengths("input_lengths", input_lengths, n, x.device)
    said = _lengths("target_lengths", target_lengths, n, x.device)
    rows = _rows(targets, target_lengths, n).to(x.device)
    for label, lengths, most in (("input_lengths", inside, steps), ("target_lengths", said, rows.shape[1])):
        require(lengths, 0, most, "argument", f"ctc_loss: {label} must be from 0 to {most}, got {{value}}.")
    labels, skips = _stretched(rows, said, classes, blank)
    losses: Any = ctc(x, labels, skips, inside, 2 * said)
    losses = _normalized(losses, x, inside)
    if zero_infinity:
        losses = pw.where(pw.eq(losses, float("inf")), 0.0, losses)
    if reduction == "none":
        return losses.reshape(()) if single else losses
    if reduction == "sum":
        return losses.sum()
    counts = pw.clamp_min(said, 1)
    return pw.div(losses, recorded.cast(counts, dtype=losses._data.dtype)).mean()


def _row(value: Any) -> Any:
    return [value] if isinstance(value, int) else value.reshape(-1) if isinstance(value, Tensor) else value


def _normalized(losses: Tensor, x: Tensor, lengths: Tensor) -> Tensor:
    """The losses plus the sum of the probabilities, less its value: nothing but a gradient.

    The gradient of log-probabilities is then that of the logits behind them, as PyTorch gives it: each class's
    probability less its share, of which ``log_softmax`` changes nothing.
    """
    if not x._tracked:
        return losses
    from .ranges import arange

    steps = x.shape[0]
    running: Any = pw.lt(arange(steps, device=x.device).reshape(steps, 1), lengths)
    mass: Any = pw.where(running.unsqueeze(2), pw.exp(x), 0.0).sum((0, 2))
    return pw.add(losses, pw.sub(mass, mass.detach()))
