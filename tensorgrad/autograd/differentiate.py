"""``backward`` and ``grad``: the user's side of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dispatch import local
from ..errors import AutogradError, ShapeError
from ..ops.record import on_one_level
from ..tensor import Tensor, install, wrap
from . import engine

__all__ = ["backward", "grad"]

Tensors = Tensor | Sequence[Tensor]


def _as_tuple(name: str, given: Any) -> tuple[Tensor, ...]:
    many = (given,) if isinstance(given, Tensor) else tuple(given)
    for one in many:
        if not isinstance(one, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(one).__name__}")
    return many


def _seeds(name: str, roots: tuple[Tensor, ...], given: Any, create: bool) -> list[Any]:
    if given is None:
        gradients: tuple[Any, ...] = (None,) * len(roots)
    else:
        gradients = (given,) if isinstance(given, Tensor) else tuple(given)
    if len(gradients) != len(roots):
        raise AutogradError(f"{name}: {len(roots)} tensors but {len(gradients)} gradients were given.")
    seeds: list[Any] = []
    for root, gradient in zip(roots, gradients, strict=True):
        if not root._tracked and root.grad_fn is None:
            raise AutogradError(
                f"{name}: element of shape {tuple(root.shape)} does not require grad and does not have a grad_fn. "
                "Was it computed from tensors with requires_grad=True, outside of no_grad?"
            )
        if gradient is None:
            if root._data.size != 1:
                raise AutogradError(
                    f"{name}: grad can be implicitly created only for scalar outputs; this one has shape "
                    f"{tuple(root.shape)}. Reduce it, or pass gradient= of that shape."
                )
            door = local.doors[type(root._data)]
            seed = wrap(door.full_as(root._data, value=1))
        elif not isinstance(gradient, Tensor):
            raise TypeError(f"{name}: gradient must be a Tensor or None, got {type(gradient).__name__}")
        elif gradient._data.shape != root._data.shape:
            raise ShapeError(f"{name}: the gradient has shape {tuple(gradient.shape)}, the tensor {tuple(root.shape)}.")
        else:
            seed = gradient if gradient._data.dtype == root._data.dtype else gradient.to(root.dtype)
        seeds.append(seed)
    if local.frames and len(seeds) > 1:
        seeds = list(on_one_level(name, tuple(seeds)))  # gradients that meet on the way are of one level of vmap
    return seeds if create else [seed._data for seed in seeds]


def backward(
    tensors: Tensors,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Accumulate into ``.grad`` of the leaves the gradients of ``tensors``, seeded with ``grad_tensors``.

    Args:
        tensors: what to differentiate; scalars need no seed.
        grad_tensors: per tensor the gradient it receives (its shape), or None.
        retain_graph: keep saved tensors for another backward; defaults to ``create_graph``.
        create_graph: record the pass itself, so that the gradients can be differentiated.
        inputs: accumulate into these tensors only.
    Raises: AutogradError if a tensor has no history, was freed by an earlier pass, or something saved was changed.
    """
    if grad_tensors is None and inputs is None and not create_graph and isinstance(tensors, Tensor):
        if engine.from_loss(tensors, bool(retain_graph)):
            return
        data = tensors._data
        if tensors._node is not None and tensors._base is None and data.size == 1:  # a loss: nothing to check or choose
            seed = local.doors[type(data)].full_as(data, value=1)
            engine.run((tensors,), (seed,), inputs=None, retain=bool(retain_graph), create=False, accumulate=True)
            return
    roots = _as_tuple("backward", tensors)
    wanted = None if inputs is None else _as_tuple("backward", inputs)
    if wanted is not None and not wanted:
        raise AutogradError("backward: inputs must not be empty.")
    for x in wanted or ():
        if not x._tracked:
            raise AutogradError("backward: one of the inputs does not require grad.")
    engine.run(
        roots,
        _seeds("backward", roots, grad_tensors, create_graph),
        inputs=wanted,
        retain=create_graph if retain_graph is None else retain_graph,
        create=create_graph,
        accumulate=True,
    )


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, without touching any ``.grad``.

    Args:
        outputs, inputs: tensors; inputs may be leaves or intermediate results.
        grad_outputs: per output the gradient it receives, or None for scalars.
        retain_graph, create_graph: as for ``backward``.
        only_inputs: True; gradients of other leaves are accumulated by ``backward`` alone.
        allow_unused: give None for inputs that did not contribute instead of raising.
        is_grads_batched: the gradients in ``grad_outputs`` have a dimension more in front, over which the pass is
            mapped (``vmap``); the results have it too.
        materialize_grads: give zeros for them.
    Raises: AutogradError as ``backward``, and for an unused input.
    Example:
        >>> import tensorgrad as tg
        >>> x = tg.tensor(3.0, requires_grad=True)
        >>> (dy,) = tg.autograd.grad(x**3, x, create_graph=True)
        >>> tg.autograd.grad(dy, x)[0].item()
        18.0
    """
    if not only_inputs:
        raise ValueError("grad: only_inputs=False is not supported; backward() accumulates into all leaves.")
    if is_grads_batched:
        return _batched(outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused, materialize_grads)
    roots = _as_tuple("grad", outputs)
    wanted = _as_tuple("grad", inputs)
    if materialize_grads and allow_unused is False:
        raise ValueError("grad: allow_unused must not be False when materialize_grads is True.")
    for x in wanted:
        if not x._tracked:
            raise AutogradError("grad: one of the inputs does not require grad.")
    found = engine.run(
        roots,
        _seeds("grad", roots, grad_outputs, create_graph),
        inputs=wanted,
        retain=create_graph if retain_graph is None else retain_graph,
        create=create_graph,
        accumulate=False,
    )
    results: list[Tensor | None] = []
    for x, g in zip(wanted, found, strict=True):
        if g is None:
            if materialize_grads:
                results.append(wrap(local.doors[type(x._data)].full_as(x._data, value=0)))
                continue
            if not allow_unused:
                raise AutogradError(
                    f"grad: an input of shape {tuple(x.shape)} was not used to compute the outputs. "
                    "Pass allow_unused=True to get None for it."
                )
            results.append(None)
        else:
            results.append(g if isinstance(g, Tensor) else wrap(g))
    return tuple(results)


def _batched(outputs: Tensors, inputs: Tensors, grad_outputs: Any, *options: Any) -> tuple[Tensor | None, ...]:
    """``grad`` mapped over the leading dimension of ``grad_outputs``."""
    from ..func import vmap

    roots = _as_tuple("grad", outputs)
    given = (grad_outputs,) * len(roots) if grad_outputs is None or isinstance(grad_outputs, Tensor) else grad_outputs
    seeds = tuple(given)
    if all(seed is None for seed in seeds):
        raise AutogradError("grad: is_grads_batched=True needs grad_outputs with a leading dimension.")
    retain, create, unused, materialize = options
    absent: list[bool] = []

    def pull(*batch: Tensor) -> tuple[Tensor, ...]:
        rest = iter(batch)
        each = [None if seed is None else next(rest) for seed in seeds]
        found = grad(
            outputs, inputs, each, retain_graph=retain, create_graph=create, allow_unused=unused,
            materialize_grads=materialize,
        )  # fmt: skip
        absent.extend(g is None for g in found)
        return tuple(g for g in found if g is not None)

    found = iter(vmap(pull)(*[seed for seed in seeds if seed is not None]))
    return tuple(None if missing else next(found) for missing in absent)


def _method(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Accumulate the gradient of this tensor into the leaves it came from; see ``autograd.backward``."""
    backward(self, None if gradient is None else (gradient,), retain_graph, create_graph, inputs)


install(_method, "backward")
