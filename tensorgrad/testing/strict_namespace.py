"""``xp``: NumPy's functions on strict arrays, as far as CuPy has them, refused where CuPy refuses.

Where CuPy is installed (it imports without a GPU), every name is looked up there and every call is bound to the real
function's signature, so an argument that only NumPy knows is found out on any machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from . import strict_memory, strict_stream
from .strict_array import StrictArray, traffic, unwrapped, wrapped
from .strict_devices import StrictDevice, machine, properties, state
from .strict_exchange import from_dlpack, from_interface, pointer_attributes
from .strict_memory import POISON, is_pinned, placed
from .strict_stream import capturing, current, issue, later, refuse

__all__ = ["xp"]

# NumPy's names that CuPy 14 lacks, for machines without CuPy
_MISSING = frozenset((
    "asmatrix", "block", "bmat", "char", "ctypeslib", "datetime64", "einsum_path", "emath", "errstate", "frompyfunc",
    "geomspace", "geterr", "histogram_bin_edges", "insert", "isnat", "longdouble", "ma", "matrix", "matvec", "memmap",
    "nanpercentile", "nanquantile", "ndenumerate", "nditer", "nested_iters", "rec", "seterr", "spacing", "strings",
    "timedelta64", "unstack", "vecdot", "vecmat",
))  # fmt: skip
# take no device array: shapes, numbers, or host data that is copied to the device
_CREATE = frozenset((
    "arange", "array", "asarray", "ascontiguousarray", "asanyarray", "asfortranarray", "empty", "eye", "from_dlpack",
    "frombuffer", "full", "identity", "indices", "linspace", "logspace", "ones", "tri", "zeros",
))  # fmt: skip
_FROM_HOST = frozenset(("array", "asarray", "ascontiguousarray", "asanyarray", "asfortranarray"))
_SEQUENCES = frozenset((
    "broadcast_arrays", "column_stack", "concat", "concatenate", "dstack", "hstack", "ix_", "lexsort", "meshgrid",
    "select", "stack", "vstack",
))  # fmt: skip
_UNSET = frozenset(("empty", "empty_like"))  # hold what nobody should read
# of types and shapes only: no array is read
_ABOUT = frozenset((
    "broadcast_shapes", "can_cast", "dtype", "finfo", "iinfo", "isdtype", "isscalar", "issubdtype", "min_scalar_type",
    "ndim", "promote_types", "result_type", "shape", "size", "may_share_memory", "shares_memory", "iscomplexobj",
    "isrealobj",
))  # fmt: skip
_WRITING = frozenset(("copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"))
_WAITING = frozenset(("nonzero", "flatnonzero", "argwhere", "unique", "bincount", "extract", "compress"))
# through cuBLAS or cuSOLVER, which CuPy does not call while a stream is captured
_BY_CUBLAS = frozenset(("dot", "einsum", "inner", "outer", "tensordot", "vdot", "kron"))
_JOINS = frozenset(("concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack"))
_MOST_JOINED = 8
# wait for the device at their end
_SORTS = frozenset(("argpartition", "argsort", "lexsort", "partition", "sort"))
# no kernel for bfloat16 (CuPy 14.2)
_NO_BFLOAT16 = frozenset((
    "argmax", "argmin", "argpartition", "argsort", "bincount", "convolve", "correlate", "cumprod", "cumsum", "einsum",
    "interp", "lexsort", "partition", "searchsorted", "sort", "tensordot", "unique", "inner", "outer", "vdot",
))  # fmt: skip
_UFUNC_OPTIONS = frozenset(("out", "dtype", "casting"))
_SCATTER = {"add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"}
_SCATTER_DTYPES = frozenset(("int32", "int64", "uint32", "uint64", "float16", "float32", "float64"))


def _real_cupy() -> Any:
    if find_spec("cupy") is None:
        return None
    import cupy

    return cupy


def _is_bfloat16(x: Any) -> bool:
    return isinstance(x, StrictArray) and x.dtype.name == "bfloat16"


def _flat(args: Any) -> list[Any]:
    found = []
    for x in args:
        found += _flat(x) if isinstance(x, (list, tuple)) else [x]
    return found


class _Ufunc:
    """A NumPy ufunc that takes device arrays and numbers only."""

    def __init__(self, name: str, ufunc: np.ufunc, real: Any):
        self.__name__ = name
        self.ufunc = ufunc
        self.real = real

    def check(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for x in inputs:
            if not isinstance(x, (StrictArray, int, float, complex, np.generic)):
                raise TypeError(f"{self.__name__}: Unsupported type {type(x)}")
        if not any(isinstance(x, StrictArray) for x in (*inputs, kwargs.get("out"))):
            traffic.upload(f"{self.__name__} of numbers")
        unknown = kwargs.keys() - _UFUNC_OPTIONS
        if unknown:
            raise TypeError(f"{self.__name__}: Wrong arguments {sorted(unknown)}")
        if any(map(_is_bfloat16, inputs)) and self.real is not None and not any("E" in t for t in self.real.types):
            raise TypeError(f"{self.__name__}: no kernel for bfloat16")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        self.check(inputs, kwargs)
        out = kwargs.pop("out", None)
        if out is not None:
            kwargs["out"] = unwrapped(out)
        result = issue(self.ufunc, *map(unwrapped, inputs), writes=out is not None, **kwargs)
        return out if out is not None else wrapped(result)

    def at(self, target: StrictArray, indices: Any, *values: Any) -> None:
        if self.__name__ not in _SCATTER or target.dtype.name not in _SCATTER_DTYPES:
            raise TypeError(f"{self.__name__}.at: not supported for {target.dtype}")
        key = target._key(indices)
        issue(self.ufunc.at, unwrapped(target), key, *map(unwrapped, values), writes=True)

    def reduce(
        self, array: StrictArray, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        if _is_bfloat16(array):
            raise TypeError(f"{self.__name__}.reduce: no kernel for bfloat16")
        return _into(out, self.ufunc.reduce, unwrapped(array), axis, dtype, unwrapped(out), keepdims=keepdims)

    def accumulate(self, array: StrictArray, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"{self.__name__}.accumulate is not supported")
        return _into(out, self.ufunc.accumulate, unwrapped(array), axis, dtype, unwrapped(out))

    def outer(self, a: StrictArray, b: StrictArray) -> Any:
        return self(a.reshape(a.shape + (1,) * b.ndim), b)

    def reduceat(self, array: StrictArray, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.__name__ != "add":
            raise NotImplementedError(f"{self.__name__}.reduceat is not supported")
        return _into(out, self.ufunc.reduceat, unwrapped(array), unwrapped(indices), axis, dtype, unwrapped(out))


def _into(out: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of NumPy's function, which is ``out`` if that is given."""
    result = issue(function, *args, writes=out is not None, **kwargs)
    return out if out is not None else wrapped(result)


class _Function:
    """A NumPy function that takes device arrays only."""

    def __init__(self, name: str, function: Callable[..., Any], real: Any, by_cusolver: bool = False):
        self.__name__ = name
        self.function = function
        self.by_cusolver = by_cusolver
        self.forms: set[tuple[Any, ...]] = set()  # how many operands, and names: of calls that the signature takes
        try:
            self.signature = None if real is None else inspect.signature(real)
        except ValueError:  # compiled without a signature
            self.signature = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__
        form = (len(args), *kwargs)
        if self.signature is not None and form not in self.forms:
            self.signature.bind(*args, **kwargs)
            self.forms.add(form)
        arrays = _flat((*args, *kwargs.values()))
        if name in _FROM_HOST and not isinstance(args[0], StrictArray) and hasattr(args[0], "__cuda_array_interface__"):
            args = (from_interface(args[0]), *args[1:])
        if name in _FROM_HOST:
            blocking = kwargs.pop("blocking", False)
            if not isinstance(args[0], StrictArray):
                if is_pinned(args[0]) and not blocking and args[0].flags.c_contiguous and not args[1:] and not kwargs:
                    return _copied_later(args[0])
                traffic.upload(f"{name}() of host data")
                if isinstance(args[0], (list, tuple)) and any(isinstance(x, StrictArray) for x in arrays):
                    return wrapped(placed(self.function(unwrapped(args[0]), *args[1:], **kwargs)))
                return wrapped(
                    placed(np.array(self.function(*args, **kwargs)))
                )  # a copy: the device's memory is its own
        elif name in _ABOUT:
            return self.function(*map(_bare, args), **kwargs)
        elif name not in _CREATE and name not in _SEQUENCES and args and not isinstance(args[0], (StrictArray, str)):
            raise TypeError(f"{name}: the first argument must be a device array, got {type(args[0])}")
        if name in _NO_BFLOAT16 and any(map(_is_bfloat16, arrays)):
            raise TypeError(f"{name}: no kernel for bfloat16")
        if name in _WAITING or (name == "where" and len(args) == 1):
            traffic.download(f"{name}()")
        if name in _SORTS:
            refuse(f"{name}()")
        if (name in _BY_CUBLAS or self.by_cusolver) and capturing() is not None:
            raise NotImplementedError(f"{name}: calling cuBLAS API during stream capture is currently unsupported")
        if name in _JOINS and len(args[0]) > _MOST_JOINED:
            refuse(f"{name}() of more than {_MOST_JOINED} arrays, whose addresses are copied to the device")
        writes = kwargs.get("out") is not None or name in _WRITING
        held = {key: unwrapped(value) for key, value in kwargs.items()}
        result = issue(self.function, *unwrapped(args), writes=writes, **held)
        if isinstance(result, bool):
            return StrictArray(np.asarray(result))  # allclose and its like
        if name in _UNSET:
            issue(_spoilt, result, writes=True)
        if kwargs.get("out") is not None:
            return kwargs["out"]
        for x in args:
            if isinstance(x, StrictArray) and x._host is result:
                return x
        return wrapped(result, *arrays)


def _spoilt(host: Any) -> None:
    if host.size:
        host[...] = np.frombuffer(bytes([POISON]) * host.itemsize, host.dtype)[0]


def _bare(value: Any) -> Any:
    """As ``unwrapped``, for questions about arrays, wherever they lie."""
    return value._host if isinstance(value, StrictArray) else unwrapped(value)


def _copied_later(pinned: np.ndarray[Any, Any]) -> StrictArray:
    """CuPy does not wait for a copy out of page-locked memory unless it is told to."""
    refuse("asarray()")
    made = placed(np.empty(pinned.shape, pinned.dtype))
    _spoilt(made)
    later(current(), _fill_from, made, pinned)
    return StrictArray(made)


def _fill_from(target: Any, source: Any) -> None:
    target[...] = source


def _asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    return a.get(order=order, out=out) if isinstance(a, StrictArray) else np.asarray(a, order=order)  # type: ignore[call-overload]


def _matmul(a: Any, b: Any, out: Any = None, **kwargs: Any) -> Any:
    for x in (a, b):
        if not isinstance(x, StrictArray):
            raise TypeError(f"matmul: Unsupported type {type(x)}")
    if kwargs:
        raise TypeError(f"matmul: Wrong arguments {sorted(kwargs)}")
    if capturing() is not None:
        raise NotImplementedError("matmul: calling cuBLAS API during stream capture is currently unsupported")
    if _is_bfloat16(a) or _is_bfloat16(b):
        if max(a.ndim, b.ndim) > 2:
            raise TypeError("data type 'E' not understood")
        result = (unwrapped(a).astype(np.float32) @ unwrapped(b).astype(np.float32)).astype(a.dtype)
        if out is not None:
            out._host[...] = result
            return out
        return wrapped(result)
    if (a.dtype.kind == "b" and b.dtype.kind == "b") or a.ndim == 0 or b.ndim == 0:
        return wrapped(np.matmul(unwrapped(a), unwrapped(b)))
    with np.errstate(all="ignore"):
        result = np.matmul(unwrapped(a), unwrapped(b), out=None if out is None else out._host)
    return out if out is not None else wrapped(result)


def _take(a: StrictArray, indices: Any, axis: int | None = None, out: Any = None) -> Any:
    return _into(out, np.take, unwrapped(a), unwrapped(indices), axis, unwrapped(out), mode="wrap")


def _take_along_axis(a: StrictArray, indices: StrictArray, axis: int | None) -> Any:
    return wrapped(issue(_along, unwrapped(a), unwrapped(indices), axis))


def _along(host: Any, at: Any, axis: int | None) -> Any:
    length = host.size if axis is None else host.shape[axis]
    return np.take_along_axis(host, at % max(length, 1), axis)


def _where(condition: Any, *choices: Any) -> Any:
    if not isinstance(condition, StrictArray):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    if not choices:
        traffic.download("where() of one argument")
    for x in choices:
        if isinstance(x, (np.ndarray, list, tuple)):
            raise TypeError(f"where: Unsupported type {type(x)}")
    return wrapped(issue(_chosen, unwrapped(condition), *map(unwrapped, choices)))


def _chosen(condition: Any, *choices: Any) -> Any:
    result = np.where(condition, *choices)
    # CuPy 14.2 has no loop for bfloat16 here and takes the next one that fits
    return result.astype(np.float32) if result.dtype.name == "bfloat16" else result


def _diagonal(a: StrictArray, offset: int = 0, axis1: int = 0, axis2: int = 1) -> StrictArray:
    view = np.diagonal(a._host, offset, axis1, axis2)
    view.flags.writeable = True  # CuPy knows no read-only arrays
    return wrapped(view, a)


class _Runtime:
    """``xp.cuda.runtime``."""

    CUDARuntimeError = RuntimeError

    pointerGetAttributes = staticmethod(pointer_attributes)

    @staticmethod
    def getDevice() -> int:
        return state.device

    @staticmethod
    def setDevice(device: int) -> None:
        state.device = device  # which may have been unplugged since, unlike a real one

    @staticmethod
    def getDeviceCount() -> int:
        return machine.count

    @staticmethod
    def getDeviceProperties(device: int) -> dict[str, Any]:
        return properties(device)

    @staticmethod
    def deviceCanAccessPeer(device: int, peer_device: int) -> bool:
        return device != peer_device and StrictDevice(device).id + StrictDevice(peer_device).id >= 0

    @staticmethod
    def memGetInfo() -> tuple[int, int]:
        total = machine.memory or 1 << 40
        return total - machine.used[state.device], total


class _Cuda:
    """``xp.cuda``, as far as it is used."""

    Device = StrictDevice
    Event = strict_stream.Event
    ExternalStream = strict_stream.ExternalStream
    Graph = strict_stream.Graph
    Memory = strict_memory.Memory
    MemoryPointer = strict_memory.MemoryPointer
    MemoryPool = strict_memory.MemoryPool
    PinnedMemoryPointer = strict_memory.PinnedMemoryPointer
    Stream = strict_stream.Stream
    alloc = staticmethod(strict_memory.alloc)
    alloc_pinned_memory = staticmethod(strict_memory.alloc_pinned_memory)
    get_allocator = staticmethod(strict_memory.get_allocator)
    get_elapsed_time = staticmethod(strict_stream.get_elapsed_time)
    memory = strict_memory
    runtime = _Runtime
    set_allocator = staticmethod(strict_memory.set_allocator)
    using_allocator = staticmethod(strict_memory.using_allocator)

    @staticmethod
    def get_current_stream(device_id: int = -1) -> Any:
        return strict_stream.current(None if device_id == -1 else device_id)


_OWN: dict[str, Any] = {
    "cuda": _Cuda, "from_dlpack": from_dlpack, "get_default_memory_pool": strict_memory.default_pool,
    "ndarray": StrictArray, "asnumpy": _asnumpy, "matmul": _matmul, "take": _take, "where": _where,
    "take_along_axis": _take_along_axis, "diagonal": _diagonal,
}  # fmt: skip


class Namespace:
    """NumPy's names on strict arrays; AttributeError for what CuPy does not have."""

    def __init__(self, path: str, numpy: Any, cupy: Any):
        self.__name__ = path
        self._numpy = numpy
        self._cupy = cupy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._numpy is np and name in _OWN:
            found = _OWN[name]
        else:
            found = self._adapted(name)
        self.__dict__[name] = found
        return found

    def _adapted(self, name: str) -> Any:
        if name in _MISSING or (self._cupy is not None and not hasattr(self._cupy, name)):
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        real = None if self._cupy is None else getattr(self._cupy, name)
        value = getattr(self._numpy, name)
        if isinstance(value, np.ufunc):
            return _Ufunc(name, value, real)
        if inspect.ismodule(value):
            return Namespace(f"{self.__name__}.{name}", value, real)
        if isinstance(value, type) or not callable(value):
            return value
        return _Function(name, value, real, self.__name__.endswith(".linalg"))

    def __repr__(self) -> str:
        return f"<strict namespace {self.__name__}>"


xp = Namespace("strict", np, _real_cupy())
