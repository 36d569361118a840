"""Tensors that a Module registers when they are assigned to it: parameters, which are trained, and buffers."""

from __future__ import annotations

from typing import Any

from ..dtypes import get_default_dtype
from ..errors import DTypeError, UninitializedError
from ..tensor import Tensor

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]


class Parameter(Tensor):
    """A leaf tensor that a Module counts among its parameters.

    Args:
        data: a tensor, whose memory is shared; None for an empty one.
        requires_grad: whether it is trained.
    Raises: TypeError if ``data`` is no Tensor; DTypeError if it requires grad and is not floating or complex.
    Example:
        >>> import tensorgrad as tg
        >>> tg.nn.Parameter(tg.zeros(2)).requires_grad
        True
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True):
        self._data = _storage("Parameter", data)
        if requires_grad:
            if self.dtype.category < 2:
                raise DTypeError(
                    "Only Tensors of floating point and complex dtype can require gradients, this one is "
                    f"{self.dtype}; pass requires_grad=False, or a floating-point tensor."
                )
            self._tracked = True

    def __repr__(self) -> str:
        return f"Parameter containing:\n{Tensor.__repr__(self)}"


class Buffer(Tensor):
    """A tensor that a Module counts among its buffers: part of its state, not trained.

    Args:
        data: a tensor, whose memory is shared; None for an empty one.
        persistent: whether it stands in the state dict.
    """

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True):
        self._data = _storage("Buffer", data)
        self.persistent = persistent


def _storage(name: str, data: Any) -> Any:
    if data is None:
        from ..ops.create import empty

        return empty(0)._data
    if not isinstance(data, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(data).__name__}; make one with tensorgrad.tensor(...).")
    return data._data


class _Uninitialized(Tensor):
    """A dtype, a device and no values yet: what lazy layers hold until they have seen an input."""

    cls_to_become: type[Tensor] = Tensor

    def __init__(self, requires_grad: bool, device: Any, dtype: Any):
        from ..dtypes import as_dtype
        from ..ops.create import empty

        self._tracked = bool(requires_grad)
        self._place = empty(0, device=device).device
        self._kind = get_default_dtype() if dtype is None else as_dtype(dtype)

    @property
    def _data(self) -> Any:
        raise UninitializedError(
            "Attempted to use an uninitialized parameter or buffer: it has no shape and no values yet. Call `forward` "
            "of the lazy module with a dummy batch first, or materialize(shape)."
        )

    @property
    def shape(self) -> Any:
        raise UninitializedError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually happens in "
            "`load_state_dict` when trying to load an uninitialized parameter into an initialized one. Call `forward` "
            "to initialize the parameters before accessing their attributes."
        )

    @property
    def dtype(self) -> Any:
        return self._kind

    @property
    def device(self) -> Any:
        return self._place

    @property
    def data(self) -> Any:
        return self

    @data.setter
    def data(self, other: Any) -> None:
        self._kind, self._place = other.dtype, other.device

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become an ordinary parameter or buffer of this shape, whose values are not set."""
        from ..ops.create import empty

        values = empty(tuple(shape), device=device or self._place, dtype=dtype or self._kind)
        del self._place, self._kind
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        self._data = values._data  # type: ignore[misc]

    def to(self, *args: Any, device: Any = None, dtype: Any = None, **rest: Any) -> Any:
        """The same with another dtype or device."""
        from ..ops.convert import _parse_to

        place, kind = _parse_to(args, device, dtype)
        return self._like(place or self._place, kind or self._kind)

    def _like(self, device: Any, dtype: Any) -> Any:
        made = type(self).__new__(type(self))
        _Uninitialized.__init__(made, self._tracked, device, dtype)
        return made

    def detach(self) -> Any:
        return self

    def is_floating_point(self) -> bool:
        return bool(self._kind.is_floating_point)

    def is_complex(self) -> bool:
        return bool(self._kind.is_complex)

    def float(self) -> Any:
        return self.to(dtype="float32")

    def double(self) -> Any:
        return self.to(dtype="float64")

    def half(self) -> Any:
        return self.to(dtype="float16")

    def bfloat16(self) -> Any:
        return self.to(dtype="bfloat16")

    def share_memory_(self) -> Any:
        raise UninitializedError(
            "Can't share memory on an uninitialized parameter or buffer. Call `forward` to initialize it first."
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        found = memo.get(id(self))
        if found is None:
            found = memo[id(self)] = self._like(self._place, self._kind)
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._parts()

    def _parts(self) -> Any:
        return _again, (type(self), self._tracked, str(self._place), self._kind)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _again(cls: Any, requires_grad: bool, device: str, dtype: Any) -> Any:
    made = cls.__new__(cls)
    _Uninitialized.__init__(made, requires_grad, device, dtype)
    return made


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape is not known yet; ``materialize(shape)`` makes it a ``Parameter``.

    Args:
        requires_grad: whether it will be trained.
        device, dtype: of the parameter to be.
    """

    cls_to_become = Parameter

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None):
        _Uninitialized.__init__(self, requires_grad, device, dtype)


class UninitializedBuffer(_Uninitialized):
    """A buffer whose shape is not known yet; ``materialize(shape)`` makes it a ``Tensor``."""

    persistent = True

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True):
        super().__init__(requires_grad, device, dtype)
        self.persistent = persistent


def is_lazy(param: Any) -> bool:
    """Whether a parameter or buffer has no shape yet."""
    return isinstance(param, _Uninitialized)
