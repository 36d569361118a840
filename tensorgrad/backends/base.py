"""The contract of a backend: little is needed, everything else may be given.

A backend needs a ``name``, a ``device_type``, an array namespace ``xp`` that follows NumPy's API with its
``array_type``, and transfers from and to the host. With that alone every op works, through the generic kernels of
``backends.generic`` and the definitions of the ops. A method named as an op is its kernel on this backend.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..device import Device
from ..dispatch import Raw
from ..errors import ArgumentError, BackendError
from .generic.attention import AttentionKernels
from .generic.conv import ConvKernels
from .generic.embedding import EmbeddingKernels
from .generic.fold import FoldKernels
from .generic.index import IndexKernels
from .generic.loss import LossKernels
from .generic.matmul import MatmulKernels
from .generic.norm import NormKernels
from .generic.numeric import NumericKernels
from .generic.optim import OptimKernels
from .generic.pool import PoolKernels
from .generic.random import RandomKernels
from .generic.reduce import ReduceKernels
from .generic.resize import ResizeKernels
from .generic.samplers import SamplerKernels
from .generic.scan import ScanKernels
from .generic.shape import ShapeKernels
from .generic.shape_more import MoreShapeKernels
from .generic.softmax import SoftmaxKernels
from .generic.sort import SortKernels

if TYPE_CHECKING:
    from ..ops.elementwise import Elementwise
    from ..ops.record import Op

__all__ = ["Backend"]


_CPU = Device("cpu")


class Backend(
    ShapeKernels, MoreShapeKernels, ReduceKernels, ScanKernels, IndexKernels, SortKernels, MatmulKernels, ConvKernels,
    PoolKernels, SoftmaxKernels, NormKernels, LossKernels, EmbeddingKernels, AttentionKernels, RandomKernels,
    OptimKernels, FoldKernels, ResizeKernels, SamplerKernels, NumericKernels,
):  # fmt: skip
    """Who computes. Subclass it, fill in the four facts, register the class (``tensorgrad.backends`` entry point)."""

    name: ClassVar[str]
    device_type: ClassVar[str] = "cpu"
    writes_programs: ClassVar[bool] = False  # whether its kernels' calls can be written into a ``c.Sequence``
    folds_norms: ClassVar[bool] = False  # whether it has a kernel for conv_norm
    groups_rows: ClassVar[bool] = False  # whether it has kernels for grouped_rows and summed_rows
    # ops whose kernels take ``into``: for each result the array that it is written to, or None
    places: ClassVar[frozenset[str]] = frozenset()
    # ops whose kernels take ``stop``, a bool on the device: where it is set they do nothing. That of ``adam_`` takes
    # ``done`` too, a float32 on the device: how many steps were taken; it counts this one if it is
    leaves_out: ClassVar[frozenset[str]] = frozenset()
    sums_formulas: ClassVar[bool] = False  # whether formula_kernel sees to an op's ``sums``
    rolls_operands: ClassVar[bool] = False  # whether formula_kernel sees to an op's ``rolls``
    xp: Any
    array_type: type

    def __init__(self) -> None:
        self.raw = Raw(self)

    def sums_columns(self, formula: Any) -> bool:
        """Whether formula_kernel sees to sums of axes that others are behind, of float32 results of this formula."""
        return False

    def can_be_written(self, kernel: Any) -> bool:
        """Where the backend ``writes_programs``: whether a kernel leaves all arithmetic to what a ``c.Sequence`` keeps,
        or says that it can't."""
        return False

    def fuses_activation(self, activation: str, dtype: str, features: int, *, keeps: bool) -> bool:
        """Whether it has a kernel for such a ``linear_activation``, to so many features, that does all in one pass."""
        return False

    def trusting(self, raw: Raw) -> Any:
        """The kernels of ``raw``, for indices that are known to be right."""
        return raw

    def attends_with_dropout(self, q: Any, k: Any, v: Any) -> bool:
        """Whether it has kernels for ``attention_dropout`` of these arrays, which keep no scores."""
        return False

    @classmethod
    def why_not(cls) -> str | None:
        """None if the backend can run here, else one line that says why not and what would help."""
        return None

    def describe(self) -> str:
        """One line for ``tensorgrad info``."""
        return ""

    def device_count(self) -> int:
        return 1

    def device_index(self, array: Any) -> int | None:
        """The number of the device that holds ``array``; None where there is only one."""
        return None

    def place_of(self, array: Any) -> int | None:
        """``device_index``, and None where there is only one device: what tells arrays of a type apart."""
        return self.device_index(array) if self.device_count() > 1 else None

    def current_place(self) -> int | None:
        """The number of this thread's current device; None where there is only one."""
        return None

    def device_of(self, array: Any) -> Device:
        """Where ``array`` lives."""
        index = self.device_index(array)
        return _CPU if index is None and self.device_type == "cpu" else Device(self.device_type, index)

    def from_host(self, array: np.ndarray[Any, Any], index: int | None = None) -> Any:
        """A host array on this backend's device; may share memory where they are the same."""
        return array

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """The array on the host; may share memory where they are the same."""
        return array

    def pinned(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A copy of a host array in memory from which copies to this backend's device are fast."""
        raise BackendError(f"backend {self.name!r} computes in host memory, which needs no pinning.")

    def is_pinned(self, array: Any) -> bool:
        """Whether a host array lies in such memory."""
        return False

    def from_host_async(self, array: np.ndarray[Any, Any], index: int | None = None) -> Any:
        """As ``from_host``; the copy may still run, as work of the current stream, if the source is pinned."""
        return self.from_host(array, index)

    def to_host_async(self, array: Any, out: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """As ``to_host``, into ``out`` if that is given; the copy may still run if the target is pinned, as a fresh one
        is where there is such memory."""
        host = self.to_host(array)
        if out is None:
            return host
        out[...] = host
        return out

    def to_device(self, array: Any, index: int | None) -> Any:
        """The array on another of this backend's devices; on the current one for None."""
        return self.from_host(self.to_host(array), index)

    def settle(self) -> None:
        """Raise the error of the first check of elements that has failed and that nobody has looked at; see
        ``Local.unsettled``."""

    def failed_check(self) -> Any:
        """Whether there is such a one, as an array without dimensions on the current device; None if that is not known
        there."""
        return None

    def from_dlpack(self, source: Any) -> Any:
        """An array on the memory of an object that speaks DLPack, on this backend's device."""
        return self.xp.from_dlpack(source)

    def to_dlpack(self, array: Any, *, stream: Any, **options: Any) -> Any:
        """A DLPack capsule of the array, for a consumer that works on ``stream``."""
        if stream not in (None, -1):
            raise ArgumentError(f"__dlpack__: backend {self.name!r} has no streams; got stream={stream}, pass None.")
        return array.__dlpack__(**options)

    def from_cuda_array(self, source: Any) -> Any:
        """An array on the memory that an object tells of by ``__cuda_array_interface__``."""
        return self.xp.asarray(source)

    def record_stream(self, array: Any, stream: Any) -> None:
        """Keep the array's memory, once nobody has it, until the stream has done its work."""
        raise BackendError(f"backend {self.name!r} has no streams.")

    def on(self, index: int | None) -> AbstractContextManager[Any]:
        """Arrays made within the block lie on the device of that number; on the current one for None."""
        return nullcontext()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.xp.empty(shape, dtype=dtype)

    def set_num_threads(self, count: int) -> None:
        """How many threads kernels may use. Raises BackendError where the backend has no threads to set."""
        if count != 1:
            raise BackendError(f"backend {self.name!r} has no threads of its own to set; num_threads must be 1.")

    def num_threads(self) -> int:
        return 1

    def default_threads(self) -> int:
        """How many it uses when nobody asks for a number: as many as the process may run on."""
        return 1

    def memory_stats(self) -> dict[str, int]:
        """Bytes the backend's allocator holds; empty where it has none of its own."""
        return {}

    def formula_kernel(self, op: Elementwise) -> Callable[..., Any]:
        """A callable ``f(*arrays_and_numbers, out=None)`` that evaluates the op's formula on this backend."""
        from .numpy.formula import NumpyFormula

        return NumpyFormula(op.name, op.specialize, self.xp)

    def ahead(self, dtypes: tuple[str, ...], index: int | None = None) -> list[tuple[str, Callable[[], Any]]]:
        """What can be compiled before it is needed, for the device of that number (the current one for None): (name, a
        call that compiles it, from any thread). ``dtypes`` names those whose formulas count; none: the common ones."""
        return []

    def program_runner(self, program: Any, in_python: Callable[[Any], Callable[[list[Any]], list[Any]]]) -> Any:
        """Who runs a program of this backend's calls faster than ``in_python(program)``: a callable like that, from
        arguments to outputs, whose ``told()`` are lines for ``explain()``. None: nobody."""
        return None

    def kernel(self, op: Op) -> Callable[..., Any]:
        """The fastest way to run ``op`` here: a method of its name, its formula, or its definition."""
        method = getattr(self, op.name, None) if op.name not in _NOT_KERNELS else None
        if method is not None:
            return method
        if hasattr(op, "specialize"):
            return self.formula_kernel(op)  # type: ignore[arg-type]
        if op.kernel is not None:
            return partial(op.kernel, self.xp)
        if op.define is None:
            raise BackendError(f"backend {self.name!r} has no kernel for {op.name}, and the op has no definition.")
        return partial(op.define, self.raw)


# attributes of a backend that are not kernels, whatever an op may be called
_NOT_KERNELS = frozenset(
    ("name", "device_type", "xp", "array_type", "raw", "why_not", "describe", "device_count", "device_index",
     "device_of", "place_of", "current_place",
     "settle", "failed_check", "from_dlpack", "to_dlpack", "from_cuda_array",
     "from_host", "to_host", "from_host_async", "to_host_async", "to_device", "is_pinned", "record_stream", "on",
     "pinned", "formula_kernel", "kernel", "set_num_threads", "default_threads",
     "num_threads", "memory_stats", "empty", "program_runner", "can_be_written", "ahead")
)  # fmt: skip
