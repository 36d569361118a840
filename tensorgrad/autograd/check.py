"""Checks a gradient against finite differences, in random directions.

A scalar ``u . f(x)`` is differentiated by the tape and by central differences along a random unit direction ``w``: one
comparison checks every entry of the Jacobian at once, at the cost of two evaluations; repeated with fresh directions.
Use float64: float32 leaves central differences three digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import AutogradError
from ..tensor import Tensor, wrap
from .differentiate import grad
from .grad_mode import enable_grad, no_grad

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(AutogradError):
    """Raised when the tape's gradient and the numerical one differ."""


def _host(x: Tensor) -> np.ndarray[Any, Any]:
    from ..backends import registry

    return registry.active(x._data).to_host(x._data)


def _like(x: Tensor, array: np.ndarray[Any, Any]) -> Tensor:
    from ..backends import registry

    return wrap(registry.active(x._data).from_host(np.asarray(array).astype(x._data.dtype), x.device.index))


def _outputs(given: Any) -> list[Tensor]:
    many = (given,) if isinstance(given, Tensor) else tuple(given)
    return [out for out in many if isinstance(out, Tensor) and out.dtype.category >= 2]


def _direction(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray[Any, Any]:
    values = rng.standard_normal(shape)
    return values + 1j * rng.standard_normal(shape) if kind == "c" else values


def gradcheck(
    func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
    raise_exception: bool = True, directions: int = 2, seed: int = 0,
) -> bool:  # fmt: skip
    """Whether the first derivatives of ``func`` at ``inputs`` agree with central differences.

    Args:
        func: takes the inputs, returns a Tensor or a tuple of Tensors.
        inputs: a tensor or a tuple; those that require grad are checked, and must be float64 or complex128.
        eps: the step of the differences.
        atol, rtol: absolute tolerance, and relative to the larger of the two.
        raise_exception: raise GradcheckError instead of returning False.
        directions, seed: how many random directions, and where they start.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x._tracked]
    if not checked:
        raise ValueError("gradcheck: no input requires grad.")
    for i in checked:
        if args[i].dtype.name not in ("float64", "complex128"):
            raise ValueError(f"gradcheck: input {i} is {args[i].dtype}; differences need float64 or complex128.")
    rng = np.random.default_rng(seed)
    for _ in range(directions):
        problem = _compare(func, args, checked, rng, eps, atol, rtol)
        if problem is not None:
            if raise_exception:
                raise GradcheckError(problem)
            return False
    return True


def _compare(
    func: Callable[..., Any], args: Sequence[Any], checked: list[int], rng: np.random.Generator, eps: float,
    atol: float, rtol: float,
) -> str | None:  # fmt: skip
    ways = {i: _direction(rng, tuple(args[i].shape), args[i]._data.dtype.kind) for i in checked}
    with enable_grad():
        outputs = _outputs(func(*args))
        if not outputs:
            raise ValueError("gradcheck: the function returned no floating-point tensor.")
        weights = [_direction(rng, tuple(out.shape), out._data.dtype.kind) for out in outputs]
        live = [(out, _like(out, w)) for out, w in zip(outputs, weights, strict=True) if out._tracked]
        if not live:
            found: Sequence[Any] = [None] * len(checked)
        else:
            found = grad([out for out, _ in live], [args[i] for i in checked], [w for _, w in live], allow_unused=True)
    analytic = 0.0
    for i, g in zip(checked, found, strict=True):
        if g is not None:
            if tuple(g.shape) != tuple(args[i].shape):
                return f"the gradient of input {i} has shape {tuple(g.shape)}, the input {tuple(args[i].shape)}"
            analytic += float(np.sum(np.real(np.conj(_host(g)) * ways[i])))

    def along(step: float) -> float:
        moved = list(args)
        for i in checked:
            moved[i] = _like(args[i], _host(args[i]) + step * ways[i])
        with no_grad():
            results = _outputs(func(*moved))
        return float(sum(np.sum(np.real(np.conj(w) * _host(out))) for out, w in zip(results, weights, strict=True)))

    numeric = (along(eps) - along(-eps)) / (2 * eps)
    if not np.isfinite(analytic) or abs(analytic - numeric) > atol + rtol * max(abs(analytic), abs(numeric)):
        return (
            f"gradcheck: along a random direction the tape gives {analytic:.10g}, central differences {numeric:.10g} "
            f"(atol {atol:g}, rtol {rtol:g})."
        )
    return None


def gradgradcheck(
    func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6, atol: float = 1e-5,
    rtol: float = 1e-3, raise_exception: bool = True, directions: int = 2, seed: int = 0,
) -> bool:  # fmt: skip
    """Whether the second derivatives agree with differences of the first: ``gradcheck`` of the vjp.

    ``grad_outputs`` are the seeds of the first derivative, random ones by default; they are checked too.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x._tracked]
    rng = np.random.default_rng(seed + 1)
    with enable_grad():
        outputs = [out for out in _outputs(func(*args)) if out._tracked]
    if not outputs:
        return True
    if grad_outputs is None:
        seeds = []
        for out in outputs:
            made = _like(out, _direction(rng, tuple(out.shape), out._data.dtype.kind))
            made.requires_grad = True
            seeds.append(made)
    else:
        seeds = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)

    def first(*both: Any) -> Any:
        moved, weights = both[: len(args)], both[len(args) :]
        with enable_grad():
            ready = []
            for i, x in enumerate(moved):
                if i in checked and not x._tracked:
                    x = x.detach()
                    x.requires_grad = True
                ready.append(x)
            results = [out for out in _outputs(func(*ready)) if out._tracked]
            found = grad(results, [ready[i] for i in checked], weights, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        first, (*args, *seeds), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
        directions=directions, seed=seed,
    )  # fmt: skip
