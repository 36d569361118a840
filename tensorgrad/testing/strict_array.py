"""A stand-in for ``cupy.ndarray`` over NumPy, as strict as CuPy: what runs on it needs no implicit conversion.

It exists so that code for device ``cuda`` can be tested on a machine without one. Arithmetic is NumPy's; what is copied
from CuPy is everything that such code may stumble over:

- nothing converts silently: ``numpy.asarray(x)`` and ``numpy_array + x`` raise TypeError, also for 0-d arrays; the ways
  out are ``x.get()`` and ``xp.asnumpy(x)``;
- reductions and full indexing give 0-d arrays, never NumPy scalars, and an array is no index (``range(x)`` raises);
- an index out of range is not noticed: it wraps. Kernels must check bounds themselves;
- assigning to the same element twice leaves *one* of the values: here a randomly chosen one;
- bfloat16 is refused by what CuPy has no kernel for;
- work on an array of another device than the current one raises AssertionError; views and ``copy()``, which brings it
  to the current device, do not mind.

Every access that makes the host wait for the device, or copies to it, is counted (``traffic``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .strict_devices import StrictDevice, on_current_device, state
from .strict_memory import MemoryPointer, is_pinned
from .strict_stream import current, issue, later, refuse

__all__ = ["StrictArray", "StrictDevice", "Traffic", "by_address", "no_traffic", "traffic", "unwrapped", "wrapped"]


class Traffic:
    """Counts what crosses between host and device: ``downloads`` make the host wait, ``uploads`` copy host data."""

    def __init__(self) -> None:
        self.downloads = 0
        self.uploads = 0
        self.forbidden = False

    def download(self, what: str) -> None:
        refuse(what)
        self.downloads += 1
        if self.forbidden:
            raise AssertionError(f"{what} makes the host wait for the device")

    def upload(self, what: str) -> None:
        refuse(what)
        self.uploads += 1
        if self.forbidden:
            raise AssertionError(f"{what} copies host memory to the device")


traffic = Traffic()


@contextmanager
def no_traffic() -> Iterator[Traffic]:
    """Within the block, whatever crosses between host and device raises AssertionError."""
    before, traffic.forbidden = traffic.forbidden, True
    try:
        yield traffic
    finally:
        traffic.forbidden = before


class _Flags:
    """``array.flags``: the few that CuPy has."""

    def __init__(self, flags: Any):
        self.c_contiguous: bool = flags.c_contiguous
        self.f_contiguous: bool = flags.f_contiguous
        self.owndata: bool = flags.owndata
        self.forc: bool = flags.forc
        self.fnc: bool = flags.fnc


_random_winner = np.random.default_rng(0)


class StrictArray(NDArrayOperatorsMixin):
    """Elements that NumPy holds in ``_host``, reachable only as on a device; see the module's text."""

    __slots__ = ("__weakref__", "_base", "_device", "_host")
    __array_priority__ = 100

    def __init__(self, host: np.ndarray[Any, Any], base: StrictArray | None = None):
        self._host = host
        self._base = base
        self._device: int = state.device if base is None else base._device

    def _view(self, host: np.ndarray[Any, Any]) -> StrictArray:
        return StrictArray(host, self if self._base is None else self._base)

    def _here(self, what: str) -> np.ndarray[Any, Any]:
        """Its elements, for work on the current device."""
        on_current_device(what, self._device)
        return self._host

    # ---- what it is

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: _Flags(self._host.flags))
    T = property(lambda self: self._view(self._host.T))
    mT = property(lambda self: self._view(np.swapaxes(self._host, -1, -2)))
    device = property(lambda self: StrictDevice(self._device))
    data = property(lambda self: MemoryPointer(_Place(self), 0))
    base = property(lambda self: self._base)  # the owner of the memory, of a view of a view too

    @property
    def real(self) -> StrictArray:
        return wrapped(issue(np.real, self._host), self)

    @real.setter
    def real(self, value: Any) -> None:
        issue(_set_real, self._here("real"), unwrapped(value), writes=True)

    @property
    def imag(self) -> StrictArray:
        return wrapped(issue(np.imag, self._host), self)

    @imag.setter
    def imag(self, value: Any) -> None:
        issue(_set_imag, self._here("imag"), unwrapped(value), writes=True)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[StrictArray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    __hash__ = None  # type: ignore[assignment]

    # ---- the ways to the host

    def get(self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True) -> np.ndarray[Any, Any]:
        if blocking or not is_pinned(out):
            traffic.download("get()")
        else:
            refuse("get()")
        with self.device:
            stream = current() if stream is None else stream
            host = self._host.copy(order) if out is None else out
            if out is not None and (out.dtype != self.dtype or out.shape != self.shape or not out.flags.forc):
                raise ValueError(f"get() needs a dense {self.dtype} {self.shape}, got {out.dtype} {out.shape}")
            if blocking or not is_pinned(out):
                stream.finish()
                host[...] = self._host
            else:
                later(stream, _copy, host, self._host)
        return host

    def set(self, arr: np.ndarray[Any, Any], stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("only a NumPy array can be set to an array on the device")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"set() needs {self.dtype} {self.shape}, got {arr.dtype} {arr.shape}")
        if not self._host.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        host = self._here("set()")
        if is_pinned(arr) and arr.flags.c_contiguous and host.flags.c_contiguous:
            refuse("set()")
            later(current() if stream is None else stream, _copy, host, arr)
            return
        traffic.upload("set()")
        current().finish()
        host[...] = arr

    def _finished(self) -> np.ndarray[Any, Any]:
        """Its elements, when the current stream of its device has done what it was given."""
        current(self._device).finish()
        return self._host

    def _number(self, kind: Any) -> Any:
        traffic.download(f"{kind.__name__}() of an array")
        return kind(self._finished())

    def __float__(self) -> float:
        return self._number(float)

    def __int__(self) -> int:
        return self._number(int)

    def __bool__(self) -> bool:
        return self._number(bool)

    def __complex__(self) -> complex:
        return self._number(complex)

    def item(self, *args: int) -> Any:
        traffic.download("item()")
        return self._finished().item(*args)

    def tolist(self) -> Any:
        traffic.download("tolist()")
        return self._finished().tolist()

    def __repr__(self) -> str:
        return repr(self._host)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    # ---- the ways to other libraries

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        from .strict_exchange import capsule

        return capsule(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        from .strict_exchange import interface

        return interface(self)

    # ---- copies and views

    def __copy__(self) -> StrictArray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> StrictArray:
        return self.copy()

    def __reduce__(self) -> Any:
        return StrictArray, (self._finished(),)

    def copy(self, order: Any = "C") -> StrictArray:
        current(self._device).finish()
        return StrictArray(issue(np.array, self._host, order=order))  # on the current device, wherever this one lies

    def astype(
        self, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> StrictArray:
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported")
        cast = issue(_cast, self._here("astype()"), dtype, order, copy)
        return self if cast is self._host else StrictArray(cast)

    def view(self, dtype: Any = None) -> StrictArray:
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    def reshape(self, *shape: Any, order: Any = "C") -> StrictArray:
        made = wrapped(issue(_reshaped, self._host, shape, order), self)
        if made._base is None and made is not self:
            on_current_device("reshape()", self._device)  # a copy
        return made

    def transpose(self, *axes: Any) -> StrictArray:
        return self._view(self._host.transpose(*axes))

    def fill(self, value: Any) -> None:
        issue(_fill, self._here("fill()"), self._assignable(value), writes=True)

    # ---- indexing

    def __getitem__(self, key: Any) -> StrictArray:
        key = self._key(key)
        host = self._here("indexing") if any(isinstance(part, np.ndarray) for part in _tuple(key)) else self._host
        return wrapped(issue(_picked, host, key), self)

    def __setitem__(self, key: Any, value: Any) -> None:
        value = self._assignable(value)
        issue(_put, self._here("assignment"), self._key(key), value, writes=True)

    def _key(self, key: Any) -> Any:
        parts = []
        for part in _tuple(key):
            if isinstance(part, StrictArray):
                if part.dtype.kind == "b":
                    traffic.download("indexing with a mask")
                part = part._here("indexing")
            elif isinstance(part, (np.ndarray, list)):
                traffic.upload("indexing with host data")
                part = np.asarray(part)
            parts.append(part)
        return tuple(parts) if isinstance(key, tuple) else parts[0]

    def _assignable(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            traffic.upload("assigning host data")
            return value
        return unwrapped(value)

    # ---- operators and NumPy functions

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from .strict_namespace import xp

        function = getattr(xp, ufunc.__name__)
        out = kwargs.get("out")
        if isinstance(out, tuple) and len(out) == 1:
            kwargs["out"] = out[0]
        return (function if method == "__call__" else getattr(function, method))(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from .strict_namespace import xp

        where: Any = xp
        for part in function.__module__.split(".")[1:]:
            where = getattr(where, part)
        return getattr(where, function.__name__)(*args, **kwargs)


class _Place:
    """The memory of an array, from where its elements begin."""

    def __init__(self, array: StrictArray):
        self.ptr = array._host.ctypes.data
        self.device_id = array._device
        self.owner = array._host  # who has the place has the memory
        if array.size:
            by_address[self.ptr] = array


by_address: WeakValueDictionary[int, StrictArray] = WeakValueDictionary()
"""Arrays whose address somebody was told."""


def _copy(target: Any, source: Any) -> None:
    target[...] = source


def _set_real(host: Any, value: Any) -> None:
    host.real = value


def _set_imag(host: Any, value: Any) -> None:
    host.imag = value


def _cast(host: Any, dtype: Any, order: Any, copy: bool) -> Any:
    return host.astype(dtype, order=order, copy=copy)


def _reshaped(host: Any, shape: Any, order: Any) -> Any:
    return host.reshape(*shape, order=order)


def _fill(host: Any, value: Any) -> None:
    host.fill(value)


def _picked(host: Any, key: Any) -> Any:
    found = host[_wrapping(key, host.shape)]
    return found if isinstance(found, np.ndarray) else host[(*_tuple(key), Ellipsis)]


def _put(host: Any, key: Any, value: Any) -> None:
    key = _wrapping(key, host.shape)
    if not any(isinstance(part, np.ndarray) and part.dtype.kind in "iu" for part in _tuple(key)):
        host[key] = value
        return
    # an undefined order: where an element is named twice, which value stays is drawn
    places = np.arange(host.size).reshape(host.shape)[key]
    values = np.broadcast_to(np.asarray(value), places.shape)
    order = _random_winner.permutation(places.size)
    chosen = np.unravel_index(places.ravel()[order], host.shape)
    host[chosen] = values.reshape(-1)[order]


def _method(name: str) -> Any:
    def method(self: StrictArray, *args: Any, **kwargs: Any) -> Any:
        from .strict_namespace import xp

        return getattr(xp, name)(self, *args, **kwargs)

    method.__name__ = name
    return method


for _name in (
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "choose", "clip", "compress", "conj", "conjugate",
    "cumprod", "cumsum", "diagonal", "dot", "max", "mean", "min", "nonzero", "prod", "ptp", "ravel", "repeat", "round",
    "searchsorted", "squeeze", "std", "sum", "swapaxes", "take", "trace", "var",
):  # fmt: skip
    setattr(StrictArray, _name, _method(_name))


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _wrapping(key: Any, shape: tuple[int, ...]) -> Any:
    """The key with integer arrays taken modulo the length of their axis, as CuPy's kernels do."""
    parts = _tuple(key)
    used = sum(
        part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1
        for part in parts
        if part is not None and part is not Ellipsis
    )
    axis = 0
    wrapping = []
    for part in parts:
        if part is Ellipsis:
            axis += len(shape) - used
        elif isinstance(part, np.ndarray) and part.dtype.kind == "b":
            axis += part.ndim
        elif part is not None:
            if isinstance(part, np.ndarray) and part.dtype.kind in "iu" and axis < len(shape) and shape[axis]:
                part = part % shape[axis]
            axis += 1
        wrapping.append(part)
    return tuple(wrapping) if isinstance(key, tuple) else wrapping[0]


def unwrapped(value: Any) -> Any:
    """The NumPy side of what a device function may be given; raises TypeError for host arrays, as CuPy does."""
    if isinstance(value, StrictArray):
        return value._here("a function")
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (list, tuple)):
        return type(value)(map(unwrapped, value))
    return value


def wrapped(value: Any, *given: Any) -> Any:
    """Results as device arrays, NumPy scalars as 0-d ones; what lies in the memory of a given one is its view."""
    if isinstance(value, np.ndarray):
        for x in given:
            if isinstance(x, StrictArray) and value.size and np.may_share_memory(x._host, value):
                return x._view(value)
        return StrictArray(value)
    if isinstance(value, np.generic):
        return StrictArray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(wrapped(part, *given) for part in value)  # CuPy's several results are plain tuples
    if isinstance(value, list):
        return [wrapped(part, *given) for part in value]
    return value
