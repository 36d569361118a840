"""``Function``: a user's own operation, with a hand-written backward."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from ..dispatch import local
from ..errors import AutogradError
from ..tensor import Tensor, wrap
from .grad_mode import enable_grad, no_grad
from .grad_mode import state as grad_state
from .node import Node
from .saved import input_of

__all__ = ["Function", "FunctionContext", "once_differentiable"]


class FunctionContext:
    """What a Function's forward leaves for its backward: saved tensors, and any attribute it sets."""

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        self._to_save: tuple[Any, ...] = ()
        self._nondiff: tuple[int, ...] = ()
        self._dirty: tuple[int, ...] = ()
        self._materialize = True
        self._node: Any = None  # a weak reference: the node holds this context
        self._places: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (inputs, outputs or intermediates) for backward, where ``saved_tensors`` gives them back."""
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(f"save_for_backward: expected Tensors or None, got {type(tensor).__name__}")
        self._to_save = tensors

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """These outputs get no gradient: indices, masks."""
        self._nondiff = tuple(map(id, outputs))

    def mark_dirty(self, *inputs: Tensor) -> None:
        """These inputs were changed in place by forward; each must also be returned as an output."""
        self._dirty = tuple(map(id, inputs))

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward sees zeros (True, the default) or None for outputs that received no gradient."""
        self._materialize = bool(value)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The saved tensors, standing where they stood on the tape.

        Raises AutogradError if they were freed by an earlier backward, or changed in place since.
        """
        if self._node is None:
            return self._to_save
        node = self._node()
        if node is None:
            raise AutogradError("saved_tensors: the graph this context belongs to is gone.")
        node.check()
        return _restore(node, self._places)


def _restore(node: Node, places: tuple[Any, ...]) -> tuple[Any, ...]:
    saved = node.packed.unpack(node)[0] if node.packed is not None else node.saved
    result: list[Any] = []
    for array, (kind, where) in zip(saved, places, strict=True):
        if kind == "none":
            result.append(None)
            continue
        if kind == "input":
            result.append(input_of(node, where, array))
            continue
        again = wrap(array)
        if kind == "output":
            again._node, again._slot, again._tracked = node, where, True
        result.append(again)
    return tuple(result)


class _FunctionOp:
    """What a node of a user's Function shows the engine in place of an op record."""

    nondiff: frozenset[int] = frozenset()
    opaque = True  # it fetches what it saved itself
    kept_outputs: tuple[Any, ...] = ()

    def __init__(self, function: type[Function], ctx: FunctionContext, templates: tuple[Any, ...]):
        self.name = function.__name__
        self.function = function
        self.ctx = ctx
        self.templates = templates  # (shape, dtype, array type) of each output, to make zeros from

    def differentiate(self, F: Any, node: Node, g: Any, inputs: Any, outputs: Any) -> Any:
        live = grad_state.recording
        parts = (g,) if node.count == 1 else g
        seeds: list[Any] = []
        for part, like in zip(parts, self.templates, strict=True):
            if part is None:
                seeds.append(_zeros(like) if self.ctx._materialize else None)
            else:
                seeds.append(part if isinstance(part, Tensor) else wrap(part))
        given = self.function.backward(self.ctx, *seeds)
        grads = given if isinstance(given, tuple) else (given,)
        if len(grads) > len(node.edges) and all(extra is None for extra in grads[len(node.edges) :]):
            grads = grads[: len(node.edges)]
        if len(grads) != len(node.edges):
            raise AutogradError(
                f"{self.name}.backward returned {len(grads)} gradients, forward took {len(node.edges)} arguments; "
                "return one per argument, None for those without."
            )
        for one in grads:
            if one is not None and not isinstance(one, Tensor):
                raise TypeError(f"{self.name}.backward returned {type(one).__name__}; expected Tensors or None.")
        return grads if live else tuple(None if one is None else one._data for one in grads)


def _zeros(like: tuple[Any, ...]) -> Tensor:
    shape, dtype, array_type = like
    return wrap(local.doors[array_type].full(shape=shape, value=0, dtype=dtype))


class Function:
    """Base of user-defined operations: give it static methods ``forward`` and ``backward``, and call ``apply``.

    ``forward(ctx, *args)`` computes on detached tensors; ``backward(ctx, *grad_outputs)`` returns one gradient per
    argument. With ``setup_context(ctx, inputs, output)`` defined, forward takes no ctx. If backward is written in
    tensorgrad's operations it can be differentiated again; otherwise decorate it with ``once_differentiable``.

    Within ``vmap`` forward and backward run on mapped tensors, as any code does. A Function that can't (it leaves for
    NumPy, say) defines ``vmap(info, in_dims, *args)``: it gets tensors with the samples along the dimensions
    ``in_dims`` (None for shared ones), and returns (outputs, out_dims).

    Example:
        >>> import tensorgrad as tg
        >>> class Cube(tg.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x * x
        ...     @staticmethod
        ...     def backward(ctx, grad):
        ...         (x,) = ctx.saved_tensors
        ...         return 3 * x * x * grad
        >>> x = tg.tensor(2.0, requires_grad=True)
        >>> Cube.apply(x).backward()
        >>> x.grad.item()
        12.0
    """

    setup_context: Any = None
    vmap: Any = None
    generate_vmap_rule: bool = False

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("a Function needs a static method forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise TypeError("a Function needs a static method backward(ctx, *grad_outputs) to be differentiated")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward and record it. Raises TypeError if it returns anything but Tensors (or None) when recording."""
        if cls.vmap is not None and local.frames:
            if cls.generate_vmap_rule:
                raise AutogradError(f"{cls.__name__} defines vmap and sets generate_vmap_rule=True; choose one.")
            from ..func.user_functions import mapped_by_its_own_rule

            mapped = mapped_by_its_own_rule(cls, args)
            if mapped is not None:
                return mapped
        ctx = FunctionContext()
        tracked = grad_state.recording and any(isinstance(a, Tensor) and a._tracked for a in args)
        ctx.needs_input_grad = tuple(bool(isinstance(a, Tensor) and a._tracked) for a in args)
        with no_grad():
            if cls.setup_context is None:
                result = cls.forward(ctx, *args)
            else:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
        if not tracked:
            return result
        single = not isinstance(result, tuple)
        outputs = (result,) if single else result
        if not all(isinstance(out, Tensor) for out in outputs):
            raise TypeError(f"{cls.__name__}.forward must return Tensors, got {[type(o).__name__ for o in outputs]}")
        recorded = _record(cls, ctx, args, outputs)
        return recorded[0] if single else recorded


def _record(
    cls: type[Function], ctx: FunctionContext, args: tuple[Any, ...], outputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    templates = tuple((tuple(out._data.shape), out._data.dtype, type(out._data)) for out in outputs)
    op = _FunctionOp(cls, ctx, templates)
    node = Node(op, {}, len(outputs))
    edges: list[Any] = []
    for a in args:
        if isinstance(a, Tensor) and a._tracked:
            node.link(edges, a, len(args))
        else:
            edges.append(None)
    node.edges = edges
    inputs_by_id = {id(a): i for i, a in enumerate(args) if isinstance(a, Tensor)}
    results = []
    slots = {}
    for slot, out in enumerate(outputs):
        mine = out
        if id(out) in inputs_by_id and id(out) not in ctx._dirty:
            mine = wrap(out._data)  # an input handed through is another tensor on the tape
            mine._cell = out._version_cell()
        if id(out) in ctx._dirty:
            out._bump()
        slots[id(out)] = slot
        results.append(mine)
    places: list[Any] = []
    arrays: list[Any] = []
    for tensor in ctx._to_save:
        if tensor is None:
            places.append(("none", None))
            arrays.append(None)
            continue
        arrays.append(tensor._data)
        if id(tensor) in inputs_by_id:
            places.append(("input", inputs_by_id[id(tensor)]))
        elif id(tensor) in slots:
            places.append(("output", slots[id(tensor)]))
        else:
            places.append(("constant", None))
        node.watch(tensor)
    node.saved = tuple(arrays)
    node.note_line()
    ctx._places, ctx._to_save = tuple(places), ()
    for slot, (given, mine) in enumerate(zip(outputs, results, strict=True)):
        if id(given) in ctx._nondiff or mine.dtype.category < 2:
            continue
        mine._node, mine._slot, mine._tracked = node, slot, True
    ctx._node = weakref.ref(node)
    if grad_state.extras:
        node.finish()
    return tuple(results)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a Function's backward that is not itself differentiable: a second derivative through it raises."""

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Any) -> Any:
        seen = (*grads, *ctx.saved_tensors) if grad_state.recording else ()
        live = [t for t in seen if isinstance(t, Tensor) and t._tracked]
        with no_grad():
            result = backward(ctx, *grads)
        if not live:
            return result
        many = result if isinstance(result, tuple) else (result,)

        class Refuse(Function):
            @staticmethod
            def forward(ctx: Any, *parts: Any) -> Any:
                return tuple(wrap(part._data) for part in parts[len(live) :])

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> Any:
                raise AutogradError(
                    "a backward marked once_differentiable was differentiated a second time; "
                    "write it in tensorgrad's operations and drop the mark."
                )

        with enable_grad():
            present = [part for part in many if part is not None]
            guarded = Refuse.apply(*live, *present)
        guarded = guarded if isinstance(guarded, tuple) else (guarded,)
        back = iter(guarded)
        return tuple(None if part is None else next(back) for part in many)

    return once
