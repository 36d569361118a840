"""Clipping gradients, by their total norm or element by element."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from ...autograd.grad_mode import no_grad
from ...dispatch import local
from ...dtypes import promote_types
from ...errors import AutogradError
from ...ops import pointwise as pw
from ...ops.checks import real
from ...ops.join import stack
from ...ops.vector_norm import norm
from ...tensor import Tensor, wrap

__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]

Tensors = Tensor | Iterable[Tensor]


def _listed(tensors: Tensors) -> list[Tensor]:
    if isinstance(tensors, Tensor):
        return [tensors]
    if not isinstance(tensors, Iterable):
        raise TypeError(f"expected a Tensor or an iterable of Tensors, got {tensors!r}.")
    found = list(tensors)
    for x in found:
        if not isinstance(x, Tensor):
            raise TypeError(f"expected Tensors, got {x!r} among them.")
    return found


def _gradients(parameters: Tensors) -> list[Tensor]:
    return [p._grad for p in _listed(parameters) if p._grad is not None]


def _by_kind(tensors: list[Tensor]) -> list[tuple[Any, list[Any]]]:
    """Arrays that one kernel call takes, of one type, dtype and device, and the device."""
    groups: dict[Any, list[Any]] = {}
    for x in tensors:
        groups.setdefault((type(x._data), x._data.dtype, x.device), []).append(x._data)
    return [(device, arrays) for (_, _, device), arrays in groups.items()]


def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The norm of the norms of all tensors, 0-d: from order 1 on that of all their elements together.

    Args:
        norm_type: any number, inf or -inf; sums are made in float64.
        foreach: a hint that changes nothing: norms of one dtype are computed in one call already.
    Raises: AutogradError if it is not finite and ``error_if_nonfinite``.
    """
    order = real("get_total_norm", "norm_type", norm_type)
    given = _listed(tensors)
    if not given:
        from ...ops.create import zeros

        return zeros(())
    with no_grad():
        if order >= 1:
            norms: list[Any] = [wrap(local.doors[type(a[0])].multi_norm(a, p=order)) for _, a in _by_kind(given)]
            total = norms[0]
            for one in norms[1:]:
                one = one.to(total.device)
                total = pw.maximum(total, one) if order == float("inf") else (total**order + one**order) ** (1 / order)
        else:
            total = norm(stack([norm(x, order).to(given[0].device).double() for x in given]), order)
        dtype = given[0].dtype
        for x in given[1:]:
            dtype = promote_types(dtype, x.dtype)
        total = total.to(dtype.to_real())
    if error_if_nonfinite and not bool(pw.isfinite(total)):
        raise AutogradError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite ({float(total)}), so "
            "it cannot be clipped. Set `error_if_nonfinite=False` to scale by it anyway."
        )
    return total


def clipping_factor(max_norm: float, total_norm: Tensor) -> Any:
    """By what gradients of that norm are multiplied: also where it is 1, for no number is read back from the device."""
    if isinstance(max_norm, Tensor) and max_norm._data.size == 1:
        max_norm = max_norm.item()
    with no_grad():
        return pw.minimum(pw.div(real("clip_grad_norm_", "max_norm", max_norm), pw.add(total_norm, 1e-6)), 1.0)


def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale the gradients by ``max_norm / total_norm`` where that is below one, in place.

    ``foreach``: a hint that changes nothing: gradients of one dtype are scaled in one call already.
    """
    grads = _gradients(parameters)
    with no_grad():
        factor = clipping_factor(max_norm, total_norm)
        for device, arrays in _by_kind(grads):
            local.doors[type(arrays[0])].multi_scale_(arrays, factor.to(device)._data)
        for grad in grads:
            grad._bump()


def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale all gradients, in place, so that their norm together is at most ``max_norm``.

    Args:
        norm_type: any number; infinity for the largest magnitude.
        foreach: a hint that changes nothing: gradients of one dtype are scaled in one call already.
    Returns: the total norm before.
    Source: Pascanu, Mikolov, Bengio 2013.
    Example:
        >>> import tensorgrad as tg
        >>> x = tg.zeros(2, requires_grad=True)
        >>> x.grad = tg.tensor([3.0, 4.0])
        >>> float(tg.nn.utils.clip_grad_norm_([x], 1.0))
        5.0
    """
    members = _listed(parameters)
    if not members and isinstance(parameters, Iterator):
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=2)
    total = get_total_norm(_gradients(members), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(members, max_norm, total)
    return total


def clip_grad_norm(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """The older name of ``clip_grad_norm_``."""
    warnings.warn(
        "`nn.utils.clip_grad_norm` is now deprecated in favor of `nn.utils.clip_grad_norm_`.",
        FutureWarning,
        stacklevel=2,
    )
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place. ``foreach``: accepted as a hint."""
    bound = real("clip_grad_value_", "clip_value", clip_value)
    with no_grad():
        for grad in _gradients(parameters):
            grad.clamp_(-bound, bound)
