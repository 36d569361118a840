"""Derivatives of functions: vjp, jvp, jacobian, hessian, and products with them.

Each takes a function of tensors and the point (a tensor or a tuple of tensors) and works in reverse mode; ``jvp`` is
the derivative of a vjp with respect to its seed, so it needs no rules of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import AutogradError, ShapeError
from ..tensor import Tensor
from .differentiate import grad
from .grad_mode import enable_grad

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Point = Tensor | tuple[Tensor, ...]


def _point(name: str, inputs: Any, create_graph: bool) -> tuple[bool, tuple[Tensor, ...]]:
    """Inputs to differentiate at: fresh leaves, or (under create_graph) tensors still tied to the caller's graph."""
    single = isinstance(inputs, Tensor)
    many = (inputs,) if single else tuple(inputs)
    ready = []
    for x in many:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: inputs must be Tensors, got {type(x).__name__}")
        if create_graph and x._tracked:
            ready.append(x.view_as(x))
        else:
            fresh = x.detach()
            fresh.requires_grad = True
            ready.append(fresh)
    return single, tuple(ready)


def _outputs(name: str, given: Any) -> tuple[bool, tuple[Tensor, ...]]:
    single = isinstance(given, Tensor)
    many = (given,) if single else tuple(given)
    for out in many:
        if not isinstance(out, Tensor):
            raise TypeError(f"{name}: the function must return Tensors, got {type(out).__name__}")
    return single, many


def _vectors(name: str, given: Any, like: tuple[Tensor, ...], what: str) -> tuple[Tensor, ...]:
    if given is None:
        if len(like) == 1 and like[0].numel() == 1:
            return (_ones(like[0]),)
        raise AutogradError(f"{name}: v may be left out only for a single {what} of one element.")
    many = (given,) if isinstance(given, Tensor) else tuple(given)
    if len(many) != len(like):
        raise AutogradError(f"{name}: v has {len(many)} tensors, there are {len(like)} {what}s.")
    for v, x in zip(many, like, strict=True):
        if tuple(v.shape) != tuple(x.shape):
            raise ShapeError(f"{name}: v has shape {tuple(v.shape)}, its {what} {tuple(x.shape)}.")
    return many


def _ones(x: Tensor) -> Tensor:
    from ..ops.create import ones_like

    return ones_like(x)


def _zeros(x: Tensor) -> Tensor:
    from ..ops.create import zeros_like

    return zeros_like(x)


def _pack(single: bool, tensors: Any) -> Any:
    return tensors[0] if single else tuple(tensors)


def _finish(tensors: Any, create_graph: bool) -> tuple[Tensor, ...]:
    return tuple(tensors) if create_graph else tuple(t.detach() for t in tensors)


def _grads(
    name: str, outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...], v: Any, create: bool, strict: bool
) -> tuple[Tensor, ...]:
    """Reverse-mode gradients with zeros for what did not contribute (an error under ``strict``)."""
    pairs = [(out, seed) for out, seed in zip(outputs, v, strict=True) if out._tracked]
    if len(pairs) < len(outputs) and strict:
        raise AutogradError(f"{name}: an output does not depend on the inputs, which strict=True forbids.")
    if not pairs:
        return tuple(map(_zeros, inputs))
    found = grad(
        [out for out, _ in pairs], inputs, [seed for _, seed in pairs], retain_graph=True, create_graph=create,
        allow_unused=True,
    )  # fmt: skip
    if strict and any(g is None for g in found):
        raise AutogradError(f"{name}: an output does not depend on one of the inputs, which strict=True forbids.")
    return tuple(_zeros(x) if g is None else g for g, x in zip(found, inputs, strict=True))


def vjp(
    func: Callable[..., Any], inputs: Point, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(inputs), v^T J): the product of ``v`` (shaped as the outputs) with the Jacobian.

    Raises AutogradError if ``v`` is missing for outputs of more than one element, or (strict) for no dependence.
    """
    with enable_grad():
        single_in, xs = _point("vjp", inputs, create_graph)
        single_out, ys = _outputs("vjp", func(*xs))
        seeds = _vectors("vjp", v, ys, "output")
        found = _grads("vjp", ys, xs, seeds, create_graph, strict)
    return _pack(single_out, _finish(ys, create_graph)), _pack(single_in, _finish(found, create_graph))


def jvp(
    func: Callable[..., Any], inputs: Point, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(inputs), J v): the derivative of the outputs in direction ``v`` (shaped as the inputs)."""
    with enable_grad():
        _, xs = _point("jvp", inputs, create_graph)
        direction = _vectors("jvp", v, xs, "input")
        single_out, ys = _outputs("jvp", func(*xs))
        # g(u) = u^T J is linear in u; its derivative in direction v is J v
        dummies = []
        for y in ys:
            dummy = _zeros(y)
            dummy.requires_grad = True
            dummies.append(dummy)
        products = _grads("jvp", ys, xs, dummies, True, strict)
        found = _grads("jvp", products, tuple(dummies), direction, create_graph, False)
    return _pack(single_out, _finish(ys, create_graph)), _pack(single_out, _finish(found, create_graph))


def jacobian(
    func: Callable[..., Any], inputs: Point, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Jacobian: for each output and input a tensor of shape ``output.shape + input.shape``.

    Args:
        vectorize: compute all rows (in reverse mode) or columns at once, by ``vmap``, instead of one after another.
        strategy: ``"reverse-mode"``, or (with ``vectorize``) ``"forward-mode"``.
    Tuples of outputs or inputs give (nested) tuples. Raises RuntimeError for ``strict`` with ``vectorize`` or forward
    mode, which can't tell zeros from no dependence.
    """
    if strategy not in ("forward-mode", "reverse-mode"):
        raise ValueError(f'jacobian: expected strategy to be "forward-mode" or "reverse-mode", got {strategy!r}.')
    if strategy == "forward-mode" and create_graph:
        raise NotImplementedError("jacobian: strategy='forward-mode' can't be combined with create_graph=True.")
    if strict and (vectorize or strategy == "forward-mode"):
        raise AutogradError("jacobian: strict=True can't be combined with vectorize=True or forward mode.")
    if strategy == "forward-mode" and not vectorize:
        raise AutogradError("jacobian: strategy='forward-mode' needs vectorize=True.")
    if vectorize:
        return _vectorized(func, inputs, create_graph, strategy)
    from ..ops.join import stack

    with enable_grad():
        single_in, xs = _point("jacobian", inputs, create_graph)
        single_out, ys = _outputs("jacobian", func(*xs))
        rows_of_outputs = []
        for y in ys:
            rows: list[list[Tensor]] = [[] for _ in xs]
            flat = y.reshape(-1)
            for i in range(y.numel()):
                found = _grads("jacobian", (flat[i],), xs, (_ones(flat[i]),), create_graph, strict)
                for column, g in zip(rows, found, strict=True):
                    column.append(g)
            blocks = []
            for column, x in zip(rows, xs, strict=True):
                shape = tuple(y.shape) + tuple(x.shape)
                blocks.append(stack(column).reshape(shape) if column else _zeros(x).new_zeros(shape))
            rows_of_outputs.append(_pack(single_in, _finish(blocks, create_graph)))
    return _pack(single_out, rows_of_outputs)


def _vectorized(func: Callable[..., Any], inputs: Any, create_graph: bool, strategy: str) -> Any:
    """The Jacobian by ``tensorgrad.func``."""
    from ..func import jacfwd, jacrev

    single_in = isinstance(inputs, Tensor)
    transform = jacrev if strategy == "reverse-mode" else jacfwd
    single_out = True

    def listed(*xs: Tensor) -> tuple[Tensor, ...]:
        nonlocal single_out
        single_out, ys = _outputs("jacobian", func(*xs))
        return ys

    with enable_grad():
        _, xs = _point("jacobian", inputs, create_graph)
        given = xs if create_graph else tuple(x.detach() for x in xs)
        rows = transform(listed, argnums=tuple(range(len(given))))(*given)
    finished = [_pack(single_in, _finish(row, create_graph)) for row in rows]
    return _pack(single_out, finished)


def _scalar(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*xs: Tensor) -> Tensor:
        out = func(*xs)
        if not isinstance(out, Tensor) or out.numel() != 1:
            raise AutogradError(f"{name}: the function must return a Tensor with a single element.")
        return out.reshape(())

    return checked


def hessian(
    func: Callable[..., Any], inputs: Point, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Hessian of a scalar function: for inputs i and j a tensor of shape ``input_i.shape + input_j.shape``.

    ``vectorize`` and ``outer_jacobian_strategy`` are those of ``jacobian``.
    """
    scalar = _scalar("hessian", func)
    single = isinstance(inputs, Tensor)

    def gradient(*xs: Tensor) -> Any:
        y = scalar(*xs)
        return _pack(single, _grads("hessian", (y,), xs, (_ones(y),), True, strict))

    return jacobian(
        gradient, inputs, create_graph=create_graph, strict=False, vectorize=vectorize,
        strategy=outer_jacobian_strategy,
    )  # fmt: skip


def vhp(
    func: Callable[..., Any], inputs: Point, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(inputs), v^T H): the product of ``v`` (shaped as the inputs) with the Hessian of a scalar function."""
    scalar = _scalar("vhp", func)
    with enable_grad():
        single, xs = _point("vhp", inputs, create_graph)
        direction = _vectors("vhp", v, xs, "input")
        y = scalar(*xs)
        slopes = _grads("vhp", (y,), xs, (_ones(y),), True, strict)
        found = _grads("vhp", slopes, xs, direction, create_graph, strict)
    return _finish((y,), create_graph)[0], _pack(single, _finish(found, create_graph))


def hvp(
    func: Callable[..., Any], inputs: Point, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(inputs), H v), which for the symmetric Hessian is ``vhp``."""
    return vhp(func, inputs, v, create_graph, strict)
