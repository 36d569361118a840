"""Derivatives as functions of functions: grad, vjp, jvp, jacrev, jacfwd, hessian, linearize.

All differentiate on the one tape there is. Inputs stand on it as fresh leaves (or, if something outside is recorded
through them, as views), so transforms nest: what an inner one records, an outer one differentiates again. Forward mode
is the derivative of a vjp in its seed, in which it is linear; so no op needs a rule of its own for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..autograd.differentiate import grad as _tape_grad
from ..autograd.grad_mode import enable_grad
from ..autograd.grad_mode import state as grad_state
from ..autograd.node import Node
from ..dispatch import local
from ..errors import AutogradError
from ..tensor import Tensor, wrap
from ..utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten
from .batched import lifted
from .mapping import vmap

__all__ = ["grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "vjp"]

Argnums = int | tuple[int, ...]


# --- the point and what depends on it


def _fresh(x: Tensor, outer: bool) -> Tensor:
    """``x`` as something to differentiate at: on the innermost level of ``vmap``, so that each sample has its own
    derivative; on the tape with what came before if that is recorded (``outer``)."""
    if local.frames:
        x = lifted(x, local.frames[-1])
    if outer and x._tracked:
        return x.view_as(x)
    fresh = x.detach()
    fresh._cell = None
    fresh.requires_grad = True
    return fresh


def _check_tensors(name: str, leaves: list[Any], what: str) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise AutogradError(f"{name}: expected {what} to contain only Tensors, got {type(leaf).__name__}.")


def _beyond(outputs: Any, point: list[Tensor]) -> bool:
    """Whether the outputs' history leads to anything but the point: whether results must be recorded themselves."""
    if any(x._node is not None for x in point):
        return True
    mine = {id(x) for x in point}
    seen: set[int] = set()
    stack: list[Any] = []
    for y in outputs:
        if isinstance(y, Tensor) and y._tracked:
            if y.grad_fn is None:
                if id(y) not in mine and not getattr(y, "_spent", False):
                    return True
            else:
                stack.append(y.grad_fn)
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for edge in node.edges:
            if edge is None:
                continue
            if type(edge) is Node:
                stack.append(edge)
            elif id(edge) not in mine and not getattr(edge, "_spent", False):
                return True
    return False


def _spend(leaves: list[Tensor]) -> None:
    """The transform that made these leaves is done: nobody can ask for their gradients any more."""
    for leaf in leaves:
        if leaf._node is None:
            leaf._spent = True  # type: ignore[attr-defined]


def _shown(tree: Any, keep: bool) -> Any:
    """Results as the caller sees them: without the history that ends at the point."""
    return tree if keep else tree_map_only(Tensor, lambda x: x.detach() if x._tracked else x, tree)


def _zeros(x: Tensor) -> Tensor:
    return wrap(local.doors[type(x._data)].full_as(x._data, value=0))


def _ones(x: Tensor) -> Tensor:
    return wrap(local.doors[type(x._data)].full_as(x._data, value=1))


def _gradients(
    outputs: list[Tensor], point: list[Tensor], seeds: list[Tensor], create: bool, strict: str | None = None
) -> list[Tensor]:
    """Reverse mode with zeros for what did not contribute (an error named ``strict`` if asked)."""
    live = [(y, v) for y, v in zip(outputs, seeds, strict=True) if y._tracked]
    found: tuple[Tensor | None, ...] = (None,) * len(point)
    if live and point:
        found = _tape_grad(
            [y for y, _ in live], point, [v for _, v in live], retain_graph=True, create_graph=create, allow_unused=True
        )
    if strict is not None and any(g is None for g in found):
        raise AutogradError(f"{strict}: an output does not depend on one of the inputs, which strict=True forbids.")
    return [_zeros(x) if g is None else g for g, x in zip(found, point, strict=True)]


def _with_aux(name: str, result: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        raise AutogradError(
            f"{name}: output of function f should be a tuple: (output, aux) if has_aux is True, got "
            f"{type(result).__name__}."
        )
    return result


def _chosen(name: str, argnums: Any, args: tuple[Any, ...]) -> tuple[int, ...]:
    """Positions of the arguments to differentiate. Raises RuntimeError as PyTorch does for impossible ones."""
    many = argnums if isinstance(argnums, tuple) else (argnums,)
    if not many:
        raise AutogradError(f"{name}: argnums must be non-empty, got argnums={argnums}")
    chosen = []
    for at in many:
        if isinstance(at, bool) or not isinstance(at, int):
            raise AutogradError(f"{name}: argnum must be int or Tuple[int], got: {type(at)}")
        if not -len(args) <= at < len(args):
            raise AutogradError(f"{name}: Got argnum={at}, but only {len(args)} positional inputs")
        chosen.append(at % len(args))
    if len(set(chosen)) != len(chosen):
        raise AutogradError(f"{name}: argnums elements must be unique, got {argnums}")
    return tuple(chosen)


class _Point:
    """Some arguments of a function replaced by fresh ones on the tape."""

    def __init__(self, name: str, argnums: Any, args: tuple[Any, ...], outer: bool):
        self.single = not isinstance(argnums, tuple)
        self.at = _chosen(name, argnums, args)
        chosen = tuple(args[i] for i in self.at)
        leaves, self.spec = tree_flatten(chosen[0] if self.single else chosen)
        _check_tensors(name, leaves, "the arguments to differentiate")
        self.leaves = [_fresh(x, outer) for x in leaves]
        fresh = tree_unflatten(self.leaves, self.spec)
        full = list(args)
        for i, value in zip(self.at, (fresh,) if self.single else fresh, strict=True):
            full[i] = value
        self.args = tuple(full)

    def packed(self, parts: list[Any]) -> Any:
        return tree_unflatten(parts, self.spec)


# --- scalars


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of ``func`` and its value: ``(gradient, value)``.

    With ``has_aux`` the value is ``(value, aux)``. See ``grad``.
    """

    @functools.wraps(func, assigned=("__name__", "__doc__", "__module__", "__qualname__"), updated=())
    def derivative(*args: Any, **kwargs: Any) -> Any:
        outer = grad_state.recording
        with enable_grad():
            point = _Point("grad", argnums, args, outer)
            y, aux = _with_aux("grad", func(*point.args, **kwargs), has_aux)
            if not isinstance(y, Tensor):
                raise AutogradError(f"grad: Expected f(*args) to return a Tensor, got {type(y).__name__}.")
            if y._data.ndim:
                raise AutogradError(
                    f"grad: Expected f(*args) to return a scalar tensor, got tensor with {y._data.ndim} dims. Maybe "
                    "you wanted to use the vjp or jacrev APIs instead?"
                )
            keep = outer and _beyond((y, *tree_flatten(aux)[0]), point.leaves)
            found = _gradients([y], point.leaves, [_ones(y)], keep)
            _spend(point.leaves)
        gradient = point.packed(found)
        value = _shown(y, keep)
        return (gradient, (value, _shown(aux, keep))) if has_aux else (gradient, value)

    return derivative


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of ``func``, which must return a 0-d tensor.

    Args:
        argnums: which positional arguments to differentiate; a tuple gives a tuple of gradients. An argument may be a
            nested container of tensors; so is its gradient then.
        has_aux: ``func`` returns ``(value, aux)``; the result is ``(gradient, aux)``.
    Raises: RuntimeError for an output that is not a 0-d tensor, or ``argnums`` that do not exist.
    Example:
        >>> import tensorgrad as tg
        >>> tg.func.grad(tg.func.grad(lambda x: x**3))(tg.tensor(2.0)).item()
        12.0
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func, assigned=("__name__", "__doc__", "__module__", "__qualname__"), updated=())
    def derivative(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return derivative


# --- products with the Jacobian


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``(output, vjp_fn)`` (and aux): ``vjp_fn(cotangents)`` gives the vector-Jacobian products, one per primal.

    ``cotangents`` have the structure and shapes of the output. The products come as a tuple, or alone for one primal.

    Raises: RuntimeError for cotangents that do not fit.
    Example:
        >>> import tensorgrad as tg
        >>> y, pull = tg.func.vjp(tg.sin, tg.zeros(2))
        >>> pull(tg.ones(2))[0].tolist()
        [1.0, 1.0]
    """
    outer = grad_state.recording
    with enable_grad():
        point = _Point("vjp", tuple(range(len(primals))), primals, outer)
        result, aux = _with_aux("vjp", func(*point.args), has_aux)
        outputs, spec = tree_flatten(result)
        _check_tensors("vjp", outputs, "f(*primals)")
        keep = outer and _beyond((*outputs, *tree_flatten(aux)[0]), point.leaves)
        _spend(point.leaves)

    def pull(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        seeds, given = tree_flatten(cotangents)
        _check_like("vjp", seeds, given, outputs, spec, "cotangents", "output")
        tracked = keep or any(v._tracked for v in seeds)
        create = (grad_state.recording and tracked) if create_graph is None else create_graph
        return point.packed(_gradients(outputs, point.leaves, seeds, create))

    return (_shown(result, keep), pull, _shown(aux, keep)) if has_aux else (_shown(result, keep), pull)


def _check_like(
    name: str, given: list[Any], given_spec: TreeSpec, like: list[Tensor], spec: TreeSpec, what: str, of: str
) -> None:
    if given_spec != spec:
        raise AutogradError(
            f"{name}: Expected pytree structure of {what} to be the same as that of the {of}: got {given_spec}, "
            f"expected {spec}"
        )
    _check_tensors(name, given, what)
    for v, x in zip(given, like, strict=True):
        if tuple(v.shape) != tuple(x.shape):
            raise AutogradError(f"{name}: {what} has shape {tuple(v.shape)}, its {of} {tuple(x.shape)}.")


class _Linear:
    """The linear function of seeds whose adjoint is the Jacobian-vector product: ``u -> u^T J`` at the point."""

    def __init__(self, outputs: list[Tensor], leaves: list[Tensor]):
        self.outputs = outputs
        self.at = [i for i, y in enumerate(outputs) if y._tracked]
        self.seeds = []
        for i in self.at:
            seed = _zeros(outputs[i])
            seed.requires_grad = True
            self.seeds.append(seed)
        _spend(self.seeds)
        self.products: tuple[Tensor | None, ...] = (None,) * len(leaves)
        if self.at:
            self.products = _tape_grad(
                [outputs[i] for i in self.at], leaves, self.seeds, create_graph=True, allow_unused=True
            )

    def push(self, tangents: list[Any], create: bool, strict: str | None = None) -> list[Tensor]:
        """J v: one tangent per output, zeros where it does not depend on the point. None stands for zeros."""
        live = [
            (p, v)
            for p, v in zip(self.products, tangents, strict=True)
            if p is not None and p._tracked and v is not None
        ]
        results: list[Any] = [None] * len(self.outputs)
        if live:
            found = _tape_grad(
                [p for p, _ in live], self.seeds, [v for _, v in live], retain_graph=True, create_graph=create,
                allow_unused=True,
            )  # fmt: skip
            for i, g in zip(self.at, found, strict=True):
                results[i] = g
        if strict is not None and any(g is None for g in results):
            raise AutogradError(f"{strict}: an output does not depend on the inputs, which strict=True forbids.")
        return [_zeros(y) if g is None else g for g, y in zip(results, self.outputs, strict=True)]


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """``(output, J v)`` (and aux): the derivative of ``func`` at ``primals`` in the direction ``tangents``.

    Args:
        primals, tangents: tuples of the same structure and shapes.
        strict: raise if an output does not depend on the primals instead of giving zeros.
    Raises: RuntimeError for arguments that are not tuples, or tangents that do not fit.
    Example:
        >>> import tensorgrad as tg
        >>> tg.func.jvp(lambda x: x * x, (tg.tensor(3.0),), (tg.tensor(1.0),))[1].item()
        6.0
    """
    if not isinstance(primals, tuple) or not primals:
        raise AutogradError("jvp: Expected primals to be a non-empty tuple. E.g. it should be (x,) instead of x")
    outer = grad_state.recording
    with enable_grad():
        point = _Point("jvp", tuple(range(len(primals))), primals, outer)
        directions, given = tree_flatten(tangents)
        _check_like("jvp", directions, given, point.leaves, point.spec, "tangents", "primals")
        result, aux = _with_aux("jvp", func(*point.args), has_aux)
        outputs, spec = tree_flatten(result)
        _check_tensors("jvp", outputs, "f(*primals)")
        keep = outer and (
            any(v._tracked for v in directions) or _beyond((*outputs, *tree_flatten(aux)[0]), point.leaves)
        )
        found = _Linear(outputs, point.leaves).push(directions, keep, "jvp" if strict else None)
        _spend(point.leaves)
    derivative = tree_unflatten(found, spec)
    return (_shown(result, keep), derivative, _shown(aux, keep)) if has_aux else (_shown(result, keep), derivative)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """``(output, jvp_fn)``: ``jvp_fn(*tangents)`` is the Jacobian-vector product at ``primals``, without running
    ``func`` again.

    Example:
        >>> import tensorgrad as tg
        >>> y, push = tg.func.linearize(tg.exp, tg.zeros(2))
        >>> push(tg.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    outer = grad_state.recording
    with enable_grad():
        point = _Point("linearize", tuple(range(len(primals))), primals, outer)
        result = func(*point.args)
        outputs, spec = tree_flatten(result)
        _check_tensors("linearize", outputs, "f(*primals)")
        keep = outer and _beyond(outputs, point.leaves)
        linear = _Linear(outputs, point.leaves)
        _spend(point.leaves)

    def push(*tangents: Any) -> Any:
        directions, given = tree_flatten(tuple(tangents))
        _check_like("linearize", directions, given, point.leaves, point.spec, "tangents", "primals")
        create = grad_state.recording and (keep or any(v._tracked for v in directions))
        return tree_unflatten(linear.push(directions, create), spec)

    return _shown(result, keep), push


# --- whole Jacobians


def _basis(x: Tensor) -> Tensor:
    """(n, *shape): a one at each of the n elements of ``x``."""
    from ..ops.ranges import eye

    count = int(x._data.size)
    return eye(count, dtype=x.dtype, device=x.device).reshape(count, *x.shape)


def jacrev(
    func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable[..., Any]:
    """A function that returns the Jacobian of ``func``, computed row by row (all at once) in reverse mode.

    Args:
        argnums, has_aux: as for ``grad``.
        chunk_size: how many rows are computed at a time; None for all.
    Returns: for each output, nested as the differentiated argument is, tensors of shape ``output.shape + input.shape``.
    Example:
        >>> import tensorgrad as tg
        >>> tg.func.jacrev(tg.sin)(tg.zeros(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_chunk("jacrev", chunk_size)

    @functools.wraps(func, assigned=("__name__", "__doc__", "__module__", "__qualname__"), updated=())
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        outer = grad_state.recording
        with enable_grad():
            point = _Point("jacrev", argnums, args, outer)
            result, aux = _with_aux("jacrev", func(*point.args, **kwargs), has_aux)
            outputs, spec = tree_flatten(result)
            _check_tensors("jacrev", outputs, "f(*args)")
            keep = outer and _beyond((*outputs, *tree_flatten(aux)[0]), point.leaves)
            blocks = []
            for y in outputs:
                rows = _rows(y, point.leaves, keep, chunk_size)
                blocks.append(
                    point.packed([row.reshape(*y.shape, *x.shape) for row, x in zip(rows, point.leaves, strict=True)])
                )
            _spend(point.leaves)
        jac = tree_unflatten(blocks, spec)
        return (jac, _shown(aux, keep)) if has_aux else jac

    return jacobian


def _check_chunk(name: str, chunk_size: Any) -> None:
    if chunk_size is not None and not (isinstance(chunk_size, int) and chunk_size > 0):
        raise ValueError(f"{name}: `chunk_size` should be greater than 0.")


def _rows(y: Tensor, point: list[Tensor], create: bool, chunk_size: int | None) -> list[Tensor]:
    """Per input the gradients of all elements of ``y``: (elements of y, *input.shape)."""
    if not y._data.size:
        return [_zeros(x).new_zeros((0, *x.shape)) for x in point]

    def pull(v: Tensor) -> Any:
        return tuple(_gradients([y], point, [v], create))

    return list(vmap(pull, chunk_size=chunk_size)(_basis(y)))


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error",
    chunk_size: int | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """A function that returns the Jacobian of ``func``, computed column by column (all at once) in forward mode.

    Cheaper than ``jacrev`` where there are more outputs than inputs. ``func`` runs once, outside of any map, so that
    ``randomness`` need only be valid. See ``jacrev``.
    """
    _check_chunk("jacfwd", chunk_size)
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")

    @functools.wraps(func, assigned=("__name__", "__doc__", "__module__", "__qualname__"), updated=())
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        outer = grad_state.recording
        with enable_grad():
            point = _Point("jacfwd", argnums, args, outer)
            result, aux = _with_aux("jacfwd", func(*point.args, **kwargs), has_aux)
            outputs, spec = tree_flatten(result)
            _check_tensors("jacfwd", outputs, "f(*args)")
            keep = outer and _beyond((*outputs, *tree_flatten(aux)[0]), point.leaves)
            linear = _Linear(outputs, point.leaves)
            columns = [_columns(linear, i, point.leaves, keep, chunk_size) for i in range(len(point.leaves))]
            blocks = [point.packed([column[k] for column in columns]) for k in range(len(outputs))]
            _spend(point.leaves)
        jac = tree_unflatten(blocks, spec)
        return (jac, _shown(aux, keep)) if has_aux else jac

    return jacobian


def _columns(linear: _Linear, at: int, point: list[Tensor], create: bool, chunk_size: int | None) -> list[Tensor]:
    """Per output the derivatives in all elements of one input: (*output.shape, *input.shape)."""
    x = point[at]
    if not x._data.size:
        return [_zeros(y).new_zeros((*y.shape, *x.shape)) for y in linear.outputs]

    def push(v: Tensor) -> Any:
        return tuple(linear.push([v if i == at else None for i in range(len(point))], create))

    found = vmap(push, out_dims=-1, chunk_size=chunk_size)(_basis(x))
    return [column.reshape(*y.shape, *x.shape) for column, y in zip(found, linear.outputs, strict=True)]


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that returns the Hessian of ``func``: ``jacfwd(jacrev(func, argnums), argnums)``.

    Example:
        >>> import tensorgrad as tg
        >>> tg.func.hessian(lambda x: (x**3).sum())(tg.tensor([1.0, 2.0])).tolist()
        [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacfwd(jacrev(func, argnums), argnums)
