"""The user's object: an array of a backend, and its handle on the tape.

Only what every tensor *is* stands here: storage, place on the tape, versions, views. What a tensor can *do* is
installed from the op families (``ops/``) by ``install``, so an op is added in its own file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .autograd.grad_mode import state as grad_state
from .core import TensorCore
from .dispatch import grad_is_read, grad_was_set, local
from .dtypes import DType, of_array
from .errors import AutogradError, DTypeError, ShapeError

if TYPE_CHECKING:
    from .autograd.node import Node
    from .device import Device

__all__ = ["Tensor", "install", "view_of", "wrap"]


class Tensor(TensorCore):
    """A multi-dimensional array whose operations can be differentiated. Make one with ``tensorgrad.tensor``."""

    _data: Any
    _node: Node | None  # what recorded it; None for leaves
    _slot: int  # which output of that node it is
    _tracked: bool  # requires grad; of a view this may begin behind its back, where its base's history does
    _grad: Tensor | None
    _cell: list[int] | None  # changes in place, and times `data` was set; shared by all tensors on the same storage
    _base: Tensor | None  # the tensor whose storage this is a view of
    _chain: tuple[tuple[Any, dict[str, Any]], ...]  # view ops that lead from the base to this
    _changes: int  # how often the history of this base was rewritten by an in-place op
    _generation: int  # the base's _changes when this view's node was made
    _frozen_view: bool  # made under no_grad: its history does not follow the base's
    _hooks: list[Any] | None
    _post_hooks: list[Any] | None
    _inference: bool
    _keeps_grad: bool
    __array_priority__ = 1000

    if TYPE_CHECKING:
        # what the op families install, as far as a type checker must know it
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def __bool__(self) -> bool: ...
        def __int__(self) -> int: ...
        def __float__(self) -> float: ...
        def __index__(self) -> int: ...
        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, *args: Any, data: Any = None, device: Any = None):
        """As PyTorch's constructor: ``Tensor([1, 2])`` a copy in the default dtype, ``Tensor(2, 3)`` an uninitialized
        tensor of these sizes, ``Tensor(x)`` the same elements as the tensor ``x``."""
        from .dtypes import get_default_dtype
        from .ops.legacy import legacy_tensor

        given = args if data is None else (data,)
        first = given[0] if len(given) == 1 else None
        dtype = first.dtype if isinstance(first, Tensor) else get_default_dtype()
        self._data = legacy_tensor(type(self).__name__, given, dtype, device)._data

    @property
    def data(self) -> Tensor:
        """The same storage outside the tape; changes made through it are not seen by version checks."""
        return wrap(self._data)

    @data.setter
    def data(self, other: Tensor) -> None:
        if not isinstance(other, Tensor):
            raise TypeError(f"Tensor.data takes a Tensor, got {type(other).__name__}")
        self._data = other._data
        # Of a cell the first number counts changes in place, which would spoil what was saved; what has the tensor run
        # through a function again, in which these may be others too, looks at the sum.
        cell = self._version_cell()
        if len(cell) == 1:
            cell.append(0)
        cell[1] += 1

    @property
    def shape(self) -> Any:
        return Size(self._data.shape)

    @property
    def ndim(self) -> int:
        return int(self._data.ndim)

    @property
    def dtype(self) -> DType:
        return of_array(self._data.dtype)

    @property
    def device(self) -> Device:
        from .backends import registry

        return registry.device_of(self._data)

    @property
    def requires_grad(self) -> bool:
        return self._tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not value and self._node is not None:
            raise AutogradError(
                "requires_grad can be switched off on leaf tensors only; this one was computed. Use .detach()."
            )
        if value and self.dtype.category < 2:
            raise DTypeError(
                f"only floating point and complex tensors can require gradients, this one is {self.dtype}."
            )
        if value and self._inference:
            raise AutogradError("an inference tensor can't require grad; clone it outside of inference_mode.")
        if self._node is None:
            self._tracked = bool(value)

    @property
    def is_leaf(self) -> bool:
        return self.grad_fn is None

    @property
    def grad_fn(self) -> Node | None:
        """The node that recorded this tensor, None for leaves."""
        for ear in local.listeners:
            ear.history_read(self)
        if self._base is not None and self._generation != self._base._changes:
            self._follow_base()
        return self._node

    @property
    def grad(self) -> Tensor | None:
        """What ``backward`` accumulated here; None before."""
        if local.listeners:
            grad_is_read(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            if value._data.shape != self._data.shape:
                raise ShapeError(f"grad has shape {tuple(value.shape)}, its tensor {tuple(self.shape)}.")
            if value._data.dtype != self._data.dtype:
                raise DTypeError(
                    f"grad must have the tensor's dtype {self.dtype}, got {value.dtype}; convert it with "
                    f".to({self.dtype})."
                )
        self._grad = value
        if local.listeners:
            grad_was_set(self)

    @property
    def _version(self) -> int:
        """How often the storage was changed in place, as PyTorch counts it. Read only."""
        return self._version_cell()[0]

    def _version_cell(self) -> list[int]:
        cell = self._cell
        if cell is None:
            cell = self._cell = [0]
        return cell

    def _bump(self) -> None:
        """The storage was written to."""
        self._version_cell()[0] += 1

    def _follow_base(self) -> None:
        """The base's history was rewritten by an in-place op: find this view's place in the new one."""
        base = self._base
        assert base is not None
        if not base._tracked:
            self._generation = base._changes
            return
        if self._frozen_view:
            raise AutogradError(
                "a view made under no_grad is used after its base was changed in place with grad enabled; "
                "its history is unknown. Make the view again, or detach() it."
            )
        self._generation = base._changes
        again = base
        recording, grad_state.recording = grad_state.recording, True
        try:
            for op, attrs in self._chain:
                again = op(again, **attrs)
        finally:
            grad_state.recording = recording
        if again._data.shape != self._data.shape or again._data.strides != self._data.strides:
            raise AutogradError(
                "a view is used after its base was given another shape in place and then changed; make the view again."
            )
        self._node, self._slot, self._tracked = again._node, again._slot, again._tracked

    def _catch_up(self) -> bool:
        """Whether a view requires grad that was made before its base's history: it follows that, if calls are recorded.

        Asked by whoever reads ``_tracked`` of it, so that a base need not know its views.
        """
        base = self._base
        assert base is not None
        if not base._tracked or self._data.dtype.kind not in "fcV":
            self._generation = base._changes
            return False
        if grad_state.recording and not self._frozen_view:
            self._follow_base()
        return True

    def detach(self) -> Tensor:
        """The same storage without history; shares the version counter, so in-place changes are noticed."""
        out = _new(Tensor)
        out._data = self._data
        if self._inference:
            out._inference = True
        out._cell = self._version_cell()
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        for ear in local.listeners:
            ear.read(self)
        return self._parts()

    def __copy__(self) -> Tensor:
        make, parts, *attributes = self._parts()
        found: Tensor = make(*parts)
        vars(found).update(attributes[0] or {} if attributes else {})
        return found

    def _parts(self) -> Any:
        """What makes it, what of, and its attributes, as ``pickle`` wants them."""
        from .ops.create import rebuild

        attributes = {name: value for name, value in vars(self).items() if not name.startswith("_")}  # the user's
        return rebuild, (type(self), self._data, self._tracked, self.device.type), attributes or None

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise AutogradError("only leaf tensors can be deep-copied; detach() this one first.")
        found = memo.get(id(self))
        if found is None:
            found = type(self).__new__(type(self))
            found._data = self._copied()
            found._tracked = self._tracked
            for name, value in vars(self).items():
                if not name.startswith("_"):
                    setattr(found, name, value)
            if self.grad is not None:
                found._grad = self.grad.__deepcopy__(memo)
            memo[id(self)] = found
        return found

    def _copied(self) -> Any:
        """A copy of the array, whose memory runs through the dimensions in the same order."""
        if not local.listeners:
            return self._data.copy(order="K")
        from .ops.shape_core import copied

        steps = self._data.strides
        order = sorted(range(self._data.ndim), key=lambda i: -abs(steps[i]))
        return copied(self.detach(), tuple(order))._data

    __hash__ = object.__hash__  # by identity, as `==` compares elements


class Size(tuple[int, ...]):
    """A shape: a tuple that also knows its number of elements."""

    __slots__ = ()

    def numel(self) -> int:
        count = 1
        for size in self:
            count *= size
        return count

    def __add__(self, other: Any) -> Size:
        if not isinstance(other, tuple):
            return NotImplemented
        return Size(tuple.__add__(self, other))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple.__add__(tuple(other), self)) if isinstance(other, tuple) else NotImplemented

    def __mul__(self, times: Any) -> Size:
        return Size(tuple.__mul__(self, times))

    __rmul__ = __mul__

    def __getitem__(self, key: Any) -> Any:
        part = tuple.__getitem__(self, key)
        return Size(part) if isinstance(key, slice) else part

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"


_new = Tensor.__new__


def wrap(array: Any) -> Tensor:
    """A tensor on this array, outside the tape."""
    out = _new(Tensor)
    out._data = array
    if grad_state.inference:
        out._inference = True
    return out


def view_of(op: Any, source: Tensor, array: Any, attrs: dict[str, Any], track: bool) -> Tensor:
    """The result of a view op: it shares storage and version with its source, and follows the base's history."""
    out = _new(Tensor)
    out._data = array
    if source._inference:  # whose memory it is
        out._inference = True
    base = source if source._base is None else source._base
    out._base = base
    out._chain = (*source._chain, (op, attrs))
    out._cell = source._version_cell()
    out._generation = base._changes
    if track:
        if source._base is not None and source._generation != base._changes:
            source._follow_base()
        op.record((source,), [source._data], attrs, (out,), (array,))
    elif not grad_state.recording or source._frozen_view:
        out._frozen_view = True
    return out


def install(function: Callable[..., Any], *names: str) -> None:
    """Make a function of a tensor a method of Tensor, under its own name or the given ones."""
    for name in names or (function.__name__,):
        setattr(Tensor, name, function)
