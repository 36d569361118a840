"""Updates of many parameters at once, in place: what optimizers and gradient clipping pass through the door.

Inputs are lists of arrays, one entry per parameter. ``hyper`` is a small float64 array on the host that the kernel
reads when it runs, so a replayed program sees today's learning rate and step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from .record import Spec, op

Arrays = list[Any]


def _check(name: str, params: Arrays, **others: Arrays) -> None:
    """Raises ShapeError or DTypeError unless the lists match ``params`` entry by entry (empty ones are not used)."""
    for i, p in enumerate(params):
        if p.dtype.kind not in "fc" and p.dtype.name != "bfloat16":
            raise DTypeError(f"{name}: parameter {i} is {p.dtype.name}; only floating point can be trained.")
    for label, arrays in others.items():
        if arrays and len(arrays) != len(params):
            raise ShapeError(f"{name}: {len(params)} parameters, but {len(arrays)} {label}.")
        for i, (p, x) in enumerate(zip(params, arrays, strict=False)):
            if tuple(x.shape) != tuple(p.shape):
                raise ShapeError(f"{name}: {label}[{i}] has shape {tuple(x.shape)}, its parameter {tuple(p.shape)}.")
            if x.dtype != p.dtype:
                raise DTypeError(f"{name}: {label}[{i}] is {x.dtype.name}, its parameter {p.dtype.name}.")


def _check_scale(name: str, scale: Any) -> None:
    if scale is not None and tuple(scale.shape):
        raise ShapeError(f"{name}: the factor of all gradients must be 0-d, got shape {tuple(scale.shape)}.")


def _sgd_infer(
    params: Arrays, grads: Arrays, bufs: Arrays, *, hyper: Any = None, nesterov: bool = False, maximize: bool = False,
    scale: Any = None,
) -> None:  # fmt: skip
    _check("sgd_", params, grads=grads, bufs=bufs)
    _check_scale("sgd_", scale)


def _adam_infer(
    params: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, max_exp_avg_sqs: Arrays, *, hyper: Any = None,
    decoupled: bool = False, maximize: bool = False, amsgrad: bool = False, scale: Any = None,
) -> None:  # fmt: skip
    _check_scale("adam_", scale)
    _check("adam_", params, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs, max_exp_avg_sqs=max_exp_avg_sqs)


def _check_groups(name: str, params: Arrays, counts: tuple[int, ...], hypers: Arrays, scales: list[Any]) -> None:
    if len(hypers) != len(counts) or len(scales) != len(counts) or sum(counts) != len(params):
        raise ShapeError(
            f"{name}: {len(params)} parameters in groups of {tuple(counts)}, with {len(hypers)} hypers and "
            f"{len(scales)} scales."
        )
    for scale in scales:
        _check_scale(name, scale)


def _grouped_sgd_infer(
    params: Arrays, grads: Arrays, bufs: Arrays, *, counts: tuple[int, ...], hypers: Arrays, scales: list[Any],
    nesterov: bool = False, maximize: bool = False,
) -> None:  # fmt: skip
    _check_groups("grouped_sgd_", params, counts, hypers, scales)
    _check("grouped_sgd_", params, grads=grads, bufs=bufs)


def _grouped_adam_infer(
    params: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, max_exp_avg_sqs: Arrays, *,
    counts: tuple[int, ...], hypers: Arrays, scales: list[Any], decoupled: bool = False, maximize: bool = False,
    amsgrad: bool = False,
) -> None:  # fmt: skip
    name = "grouped_adam_"
    _check_groups(name, params, counts, hypers, scales)
    _check(name, params, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs, max_exp_avg_sqs=max_exp_avg_sqs)


def _update_infer(params: Arrays, grads: Arrays, *states: Arrays, hyper: Any, formula: Any) -> None:
    _check("update_", params, grads=grads, **{f"states[{i}]": state for i, state in enumerate(states)})


def _adafactor_infer(
    params: Arrays, grads: Arrays, rows: Arrays, cols: Arrays, *, hyper: Any, clip: float, maximize: bool
) -> None:
    _check("adafactor_", params, grads=grads)


def _muon_infer(
    params: Arrays, grads: Arrays, bufs: Arrays, *, hyper: Any, nesterov: bool, coefficients: tuple[float, ...],
    steps: int, eps: float,
) -> None:  # fmt: skip
    _check("muon_", params, grads=grads, bufs=bufs)


def _norm_infer(grads: Arrays, *, p: float) -> Spec:
    return Spec((), np.dtype(np.float64))


def _scale_infer(grads: Arrays, factor: Any) -> None:
    _check_scale("multi_scale_", factor)


def _unscale_infer(grads: Arrays, scale: Any) -> Spec:
    _check_scale("amp_unscale_", scale)
    return Spec((), np.dtype(np.bool_))


def _update_scale_infer(
    scale: Any, found: Arrays, tracker: Any, *, growth_factor: float, backoff_factor: float, growth_interval: int
) -> None:
    flags = [("found", flag, "bool") for flag in found]
    for name, x, dtype in (("scale", scale, "float32"), ("tracker", tracker, "int32"), *flags):
        if tuple(x.shape) or x.dtype.name != dtype:
            raise ShapeError(
                f"amp_update_scale_: {name} must be 0-d {dtype}, got {x.dtype.name} of shape {tuple(x.shape)}."
            )


sgd_ = op(
    "sgd_",
    infer=_sgd_infer,
    doc="""A step of gradient descent, in place.

    ``d = g + weight_decay p``; ``b = momentum b + (1 - dampening) d`` (``b = d`` where first);
    ``p -= lr (d + momentum b if nesterov else b)``. hyper: lr, momentum, dampening, weight_decay, first.
    ``g`` is the gradient times ``scale``, a 0-d array, where one is given.
    Source: Polyak 1964; Nesterov 1983; Sutskever, Martens, Dahl, Hinton 2013.""",
)
adam_ = op(
    "adam_",
    infer=_adam_infer,
    doc="""A step of Adam, in place; of AdamW if ``decoupled``.

    ``m += (1 - beta1) (d - m)``; ``v = beta2 v + (1 - beta2) d**2``;
    ``p -= lr / (1 - beta1**step) m / (sqrt(v) / sqrt(1 - beta2**step) + eps)``, with ``d = g + weight_decay p``, or
    ``p *= 1 - lr weight_decay`` before, if decoupled. hyper: lr, beta1, beta2, eps, weight_decay, step (from 1).
    ``g`` is the gradient times ``scale``, a 0-d array, where one is given.
    Source: Kingma and Ba 2015; Loshchilov and Hutter 2019; amsgrad: Reddi, Kale, Kumar 2018.""",
)
grouped_sgd_ = op(
    "grouped_sgd_",
    infer=_grouped_sgd_infer,
    doc="""Steps of ``sgd_`` for several groups at once: lists are the groups' lists, one behind the other, ``counts``
    tells how many are of each, ``hypers`` and ``scales`` have one entry (None: no factor) for each.""",
)
grouped_adam_ = op(
    "grouped_adam_",
    infer=_grouped_adam_infer,
    doc="""Steps of ``adam_`` for several groups at once, as ``grouped_sgd_`` has them.""",
)
update_ = op(
    "update_",
    infer=_update_infer,
    doc="""A step of an elementwise optimizer, in place: ``p, *state = formula(p, g, *state, *hyper)`` for each
    parameter. Complex parameters are trained as pairs of real numbers.""",
)
adafactor_ = op(
    "adafactor_",
    infer=_adafactor_infer,
    doc="""A step of Adafactor, in place. ``rows[i]`` and ``cols[i]`` are the factors of a matrix's second moment;
    ``cols[i]`` is None for a vector, whose moment is not factored. hyper: rho, 1 - beta2, eps1, eps2, 1 - lr decay.
    Source: Shazeer and Stern 2018.""",
)
muon_ = op(
    "muon_",
    infer=_muon_infer,
    doc="""A step of Muon, in place: along the momentum, made nearly orthogonal by Newton-Schulz iterations in
    bfloat16. hyper: momentum, 1 - lr decay, then the adjusted rate of each parameter.
    Source: Jordan 2024; Liu and others 2025.""",
)
multi_norm = op(
    "multi_norm",
    infer=_norm_infer,
    doc="The p-norm of all elements of all arrays together, as a 0-d float64 array.",
)
multi_scale_ = op("multi_scale_", infer=_scale_infer, doc="Multiply all arrays by a 0-d array, in place.")
amp_unscale_ = op(
    "amp_unscale_",
    infer=_unscale_infer,
    doc="""Divide all arrays by the scale of a loss, a 0-d array, in place; whether an element is infinite or NaN then,
    as a 0-d bool array.""",
)
amp_update_scale_ = op(
    "amp_update_scale_",
    infer=_update_scale_infer,
    doc="""The scale of a loss and the count of finite steps behind it, 0-d arrays of float32 and int32, after one more
    step, in place. Where one of ``found``, 0-d bool arrays, is set: the scale times ``backoff_factor``, the count zero.
    Otherwise one more step; after ``growth_interval`` of them the count is zero again, and the scale grows by
    ``growth_factor`` if it stays finite.
    Source: Micikevicius and others 2018.""",
)
