"""The backend of device ``cuda``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

from ...errors import BackendError, DeviceError
from ..base import Backend
from .attention_kernels import CupyAttention
from .checks import CupyChecks
from .conv_kernels import CupyConvolutions
from .dense_kernels import CupyProducts
from .devices import CupyDevices
from .formula import CupyFormula
from .index_kernels import CupyIndexing
from .kernels import Kernels
from .launch import Launcher
from .loss_kernels import CupyLosses
from .memory import CupyMemory
from .move_kernels import CupyMoves
from .norm_kernels import CupyNorms
from .optim_kernels import CupyOptimizers
from .pool_kernels import CupyPools
from .random_kernels import CupyRandomKernels
from .recurrent_kernels import CupyRecurrent
from .reduce_kernels import CupyReductions
from .row_kernels import CupySoftmax
from .summed_rows_kernels import CupySummedRows
from .transfers import CupyTransfers, Held

__all__ = ["CupyBackend"]

_INSTALL = "pip install 'tensorgrad[cuda]' (or 'tensorgrad[cuda12]' for a CUDA 12 driver)"


def _cupy() -> Any:
    # CuPy takes bfloat16 only if ml_dtypes was imported before it
    if find_spec("ml_dtypes") is not None:
        import_module("ml_dtypes")
    return import_module("cupy")


class CupyBackend(
    CupyMoves,
    CupyProducts,
    CupyChecks,
    CupyIndexing,
    CupySummedRows,
    CupyConvolutions,
    CupyReductions,
    CupyPools,
    CupySoftmax,
    CupyAttention,
    CupyNorms,
    CupyLosses,
    CupyRandomKernels,
    CupyOptimizers,
    CupyRecurrent,
    CupyDevices,
    CupyMemory,
    CupyTransfers,
    Backend,
):
    """CuPy arrays; formulas as printed CUDA C; what CuPy lacks or does otherwise, as kernels of our own."""

    name: ClassVar[str] = "cupy"
    device_type: ClassVar[str] = "cuda"
    groups_rows: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.xp = _cupy()
        self.array_type = self.xp.ndarray
        self._launcher = Launcher(self.xp)
        self._kernels = Kernels(self.xp)
        self._tables = {}
        self._held = Held()
        self._count = self.xp.cuda.runtime.getDeviceCount()
        self._watch_allocations()

    @classmethod
    def why_not(cls) -> str | None:
        if find_spec("cupy") is None:
            return f"the package cupy is not installed; {_INSTALL}"
        try:
            cupy = _cupy()
        except ImportError as error:
            return f"cupy does not import ({error}); {_INSTALL}"
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except (cupy.cuda.runtime.CUDARuntimeError, ImportError, RuntimeError) as error:
            return f"no usable CUDA driver ({error}); install NVIDIA's driver and run nvidia-smi to check it"
        return None if count else "the CUDA driver sees no device; check nvidia-smi and CUDA_VISIBLE_DEVICES"

    def describe(self) -> str:
        properties = self.xp.cuda.runtime.getDeviceProperties(0)
        devices = "1 device" if self._count == 1 else f"{self._count} devices"
        return f"CuPy {self.xp.__version__}, {devices}: {properties['name'].decode()}"

    # ---- devices

    def device_count(self) -> int:
        return self._count

    def device_index(self, array: Any) -> int | None:
        return array.device.id

    def current_place(self) -> int | None:
        return None if self._count == 1 else self.current_device()

    # ---- kernels

    def program_runner(self, program: Any, in_python: Callable[[Any], Callable[[list[Any]], list[Any]]]) -> Any:
        from .graph import GraphProgram

        return GraphProgram(self, program, in_python(program))

    def ahead(self, dtypes: tuple[str, ...], index: int | None = None) -> list[tuple[str, Callable[[], Any]]]:
        from ...dispatch import OPS
        from ...ops import load_all
        from .ahead import COMMON, compilations

        def on_device(name: str, compile: Callable[[], Any]) -> None:
            with self.on(at):  # whose architecture it is compiled for
                try:
                    compile()
                except self.xp.cuda.compiler.CompileException as error:
                    raise BackendError(f"{name} does not compile for device {at}: {error}; {_INSTALL}") from None

        load_all()
        at = self.current_device() if index is None else index
        found = compilations(OPS.values(), dtypes or COMMON, self._kernels, self._launcher)
        return [(name, partial(on_device, name, compile)) for name, compile in found]

    def formula_kernel(self, op: Any) -> Callable[..., Any]:
        return CupyFormula(op.name, op.specialize, self._launcher)

    def kernel(self, op: Any) -> Callable[..., Any]:
        found = super().kernel(op)
        return found if self._count == 1 else self._on_device_of_inputs(op.name, found)

    def _on_device_of_inputs(self, name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """``kernel`` run on the device that holds its arrays: CuPy launches on the thread's current device, whatever it
        is given."""
        device = self.xp.cuda.Device
        array_type: Any = self.array_type

        def there(*inputs: Any, **attrs: Any) -> Any:
            places = {x.device.id for x in _within(inputs) if isinstance(x, array_type)}
            if not places:
                return kernel(*inputs, **attrs)
            if len(places) > 1:
                a, b, *_ = (f"cuda:{index}" for index in sorted(places))
                raise DeviceError(f"{name}: one input lives on {a}, another on {b}. Move one: x = x.to({a!r}).")
            with device(places.pop()):
                return kernel(*inputs, **attrs)

        return there


def _within(inputs: Any) -> Iterator[Any]:
    """The operands, those in lists too."""
    for x in inputs:
        if isinstance(x, (list, tuple)):
            yield from _within(x)
        else:
            yield x
