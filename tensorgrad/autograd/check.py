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
    raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False, check_batched_grad: bool = False, check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False, check_backward_ad: bool = True, fast_mode: bool = False, masked: bool | None = None,
    directions: int = 2, seed: int = 0,
) -> bool:  # fmt: skip
    """Whether the first derivatives of ``func`` at ``inputs`` agree with central differences.

    Args:
        func: takes the inputs, returns a Tensor or a tuple of Tensors.
        inputs: a tensor or a tuple; those that require grad are checked, and must be float64 or complex128.
        eps: the step of the differences.
        atol, rtol: absolute tolerance, and relative to the larger of the two.
        raise_exception: raise GradcheckError instead of returning False.
        nondet_tol: how far two backward passes may differ.
        check_undefined_grad: also run backward from each of several outputs alone.
        check_grad_dtypes: gradients must have the dtypes of their inputs.
        check_batched_grad: gradients for several seeds at once (``vmap``) must be those for each.
        fast_mode: one random direction instead of several.
        directions, seed: how many random directions, and where they start.
        check_forward_ad, check_batched_forward_grad, masked: there is no forward mode and nothing sparse to check;
            ValueError when asked for, and for ``check_backward_ad=False``.
    """
    _refuse("gradcheck", check_forward_ad=check_forward_ad, check_batched_forward_grad=check_batched_forward_grad,
            masked=masked)  # fmt: skip
    if not check_backward_ad:
        raise ValueError("gradcheck: check_backward_ad=False leaves nothing to check.")
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x._tracked]
    if not checked:
        raise ValueError("gradcheck: no input requires grad.")
    for i in checked:
        if args[i].dtype.name not in ("float64", "complex128"):
            raise ValueError(f"gradcheck: input {i} is {args[i].dtype}; differences need float64 or complex128.")
    rng = np.random.default_rng(seed)
    problems = [_compare(func, args, checked, rng, eps, atol, rtol) for _ in range(1 if fast_mode else directions)]
    wanted = (nondet_tol, check_undefined_grad, check_grad_dtypes, check_batched_grad)
    for problem in (*problems, _check_passes(func, args, checked, rng, atol, rtol, *wanted)):
        if problem is not None:
            if raise_exception:
                raise GradcheckError(problem)
            return False
    return True


def _refuse(name: str, **asked: Any) -> None:
    for argument, value in asked.items():
        if value:
            raise ValueError(f"{name}: {argument}={value} is not supported; derivatives are of reverse mode and dense.")


def _check_passes(
    func: Callable[..., Any], args: Sequence[Any], checked: list[int], rng: np.random.Generator, atol: float,
    rtol: float, nondet_tol: float, undefined: bool, dtypes: bool, batched: bool,
) -> str | None:  # fmt: skip
    """What is wrong with backward passes themselves: repeated, from one output alone, mapped over seeds."""
    wrt = [args[i] for i in checked]
    with enable_grad():
        outputs = [out for out in _outputs(func(*args)) if out._tracked]
    if not outputs:
        return None
    seeds = [_like(out, _direction(rng, tuple(out.shape), out._data.dtype.kind)) for out in outputs]
    first = grad(outputs, wrt, seeds, retain_graph=True, allow_unused=True)
    again = grad(outputs, wrt, seeds, retain_graph=True, allow_unused=True)
    for i, g, h in zip(checked, first, again, strict=True):
        if (g is None) != (h is None):
            return f"gradcheck: backward is not reproducible: the gradient of input {i} is there one time in two."
        if g is None or h is None:
            continue
        if np.abs(_host(g) - _host(h)).max(initial=0.0) > nondet_tol:
            return f"gradcheck: backward is not reproducible: gradients of input {i} differ by more than {nondet_tol}."
        if dtypes and g.dtype is not args[i].dtype:
            return f"gradcheck: the gradient of input {i} is {g.dtype}, the input {args[i].dtype}."
    if undefined and len(outputs) > 1:
        for out, seed in zip(outputs, seeds, strict=True):
            grad([out], wrt, [seed], retain_graph=True, allow_unused=True)
    if batched:
        doubled = [_like(out, np.stack([_host(s), 2 * _host(s)])) for out, s in zip(outputs, seeds, strict=True)]
        mapped = grad(outputs, wrt, doubled, retain_graph=True, allow_unused=True, is_grads_batched=True)
        for i, g, h in zip(checked, first, mapped, strict=True):
            if h is None or g is None:
                continue
            if not np.allclose(_host(h), np.stack([_host(g), 2 * _host(g)]), rtol=rtol, atol=atol):
                return f"gradcheck: the gradient of input {i} for several seeds at once is not that for each."
    return None


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
    rtol: float = 1e-3, gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
    nondet_tol: float = 0.0, check_undefined_grad: bool = True, check_grad_dtypes: bool = False,
    check_batched_grad: bool = False, check_fwd_over_rev: bool = False, check_rev_over_rev: bool = True,
    fast_mode: bool = False, masked: bool = False, directions: int = 2, seed: int = 0,
) -> bool:  # fmt: skip
    """Whether the second derivatives agree with differences of the first: ``gradcheck`` of the vjp.

    ``grad_outputs`` are the seeds of the first derivative, random ones by default (with strides that are not row-major
    for ``gen_non_contig_grad_outputs``); they are checked too. The other arguments are those of ``gradcheck``.
    """
    _refuse("gradgradcheck", check_fwd_over_rev=check_fwd_over_rev, masked=masked)
    if not check_rev_over_rev:
        raise ValueError("gradgradcheck: check_rev_over_rev=False leaves nothing to check.")
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
            values = _direction(rng, tuple(out.shape), out._data.dtype.kind)
            if gen_non_contig_grad_outputs and out.ndim:
                made = _like(out, np.repeat(values, 2, axis=-1))[..., ::2].detach()
            else:
                made = _like(out, values)
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
        first, (*args, *seeds), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad, fast_mode=fast_mode, directions=directions, seed=seed,
    )  # fmt: skip
