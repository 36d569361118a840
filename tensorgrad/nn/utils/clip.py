"""Clipping gradients, by their total norm or element by element."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...autograd.grad_mode import no_grad
from ...dispatch import local
from ...errors import AutogradError
from ...ops import pointwise as pw
from ...tensor import Tensor, wrap

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]

Tensors = Tensor | Iterable[Tensor]


def _listed(tensors: Tensors) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _gradients(parameters: Tensors) -> list[Tensor]:
    return [p._grad for p in _listed(parameters) if p._grad is not None]


def _by_kind(tensors: list[Tensor]) -> list[list[Any]]:
    """Arrays that one kernel call takes: of one type and dtype."""
    groups: dict[Any, list[Any]] = {}
    for x in tensors:
        groups.setdefault((type(x._data), x._data.dtype), []).append(x._data)
    return list(groups.values())


def get_total_norm(tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """The norm of all elements of all tensors together, 0-d, in the dtype of the first (summed in float64).

    Raises AutogradError if it is not finite and ``error_if_nonfinite``; ValueError for a norm below 1.
    """
    order = float(norm_type)
    if not order >= 1:
        raise ValueError(f"norm_type must be a number from 1 on, or infinity; got {norm_type!r}.")
    given = _listed(tensors)
    if not given:
        from ...ops.create import zeros

        return zeros(())
    with no_grad():
        norms: list[Any] = [wrap(local.doors[type(a[0])].multi_norm(a, p=order)) for a in _by_kind(given)]
        total = norms[0]
        for norm in norms[1:]:
            norm = norm.to(total.device)
            total = pw.maximum(total, norm) if order == float("inf") else (total**order + norm**order) ** (1 / order)
        first = given[0].dtype
        total = total.to(first.to_real())
    if error_if_nonfinite and not bool(pw.isfinite(total)):
        raise AutogradError(
            f"the total norm of order {norm_type} is not finite ({float(total)}), so the gradients can't be clipped. "
            "Pass error_if_nonfinite=False to scale by it anyway."
        )
    return total


def clip_grads_with_norm_(parameters: Tensors, max_norm: float, total_norm: Tensor) -> None:
    """Scale the gradients by ``max_norm / total_norm`` where that is below one, in place."""
    grads = _gradients(parameters)
    with no_grad():
        # always multiplied, also by 1: no number is read back from the device
        factor: Any = pw.minimum(pw.div(float(max_norm), pw.add(total_norm, 1e-6)), 1.0)
        for arrays in _by_kind(grads):
            local.doors[type(arrays[0])].multi_scale_(arrays, factor._data)
        for grad in grads:
            grad._bump()


def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale all gradients, in place, so that their norm together is at most ``max_norm``.

    Args:
        norm_type: from 1 on; infinity for the largest magnitude.
        foreach: accepted for PyTorch's sake: all gradients are scaled in one call already.
    Returns: the total norm before.
    Example:
        >>> import tensorgrad as tg
        >>> x = tg.zeros(2, requires_grad=True)
        >>> x.grad = tg.tensor([3.0, 4.0])
        >>> float(tg.nn.utils.clip_grad_norm_([x], 1.0))
        5.0
    Source: Pascanu, Mikolov, Bengio 2013.
    """
    members = _listed(parameters)
    total = get_total_norm(_gradients(members), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(members, max_norm, total)
    return total


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place. ``foreach``: accepted as a hint."""
    bound = float(clip_value)
    with no_grad():
        for grad in _gradients(parameters):
            grad.clamp_(-bound, bound)
