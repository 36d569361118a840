"""cuDNN, through ``nvidia-cudnn-frontend``: graphs of one convolution or attention, planned once and kept.

What is computed where is a ``Convolution`` here or an ``Attention`` of cudnn_attention.py, a key made of shapes,
strides and permissions, which ``build`` turns into a graph of the frontend with a plan. ``Cudnn`` keeps plans and runs
them on the current stream.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from ...errors import BackendError
from .cublas import ended
from .names import NAMES

__all__ = [
    "ALIGNMENT",
    "INSTALL",
    "TYPES",
    "Convolution",
    "Cudnn",
    "Graph",
    "Operand",
    "build",
    "choose",
    "load",
    "planned",
]

INSTALL = "pip install 'tensorgrad[cuda]' brings it (for a CUDA 12 driver 'tensorgrad[cuda12]')"
ALIGNMENT = 16  # bytes: what plans take for granted of every array
_MOST_WORKSPACE = 1 << 30  # bytes of one plan
TYPES = {"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT", "float64": "DOUBLE"}


class Operand(NamedTuple):
    """An array as cuDNN sees it. ``steps``: elements from one to the next, by axis, however they lie. Axes are n, c and
    two or three of space in a convolution; samples, heads, positions and width in attention."""

    shape: tuple[int, ...]
    steps: tuple[int, ...]


class Convolution(NamedTuple):
    """All that a plan depends on.

    ``kind``: "conv" of (image, weight) or (image, weight, bias), "input_grad" of (slope, weight), "weight_grad" of
    (image, slope). ``tf32``: whether float32 may be rounded to TF32 before it is multiplied.
    """

    kind: str
    dtype: str
    operands: tuple[Operand, ...]
    result: Operand
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    tf32: bool

    def build(self, frontend: Any, **where: Any) -> Graph | None:
        return build(frontend, self, **where)

    def lacking(self) -> str | None:
        if len(self.operands) == 3:
            return None  # without the bias, which can be added behind it, there may well be one
        shapes = " and ".join(str(one.shape) for one in self.operands)
        return f"{self.kind} of {shapes} in {self.dtype}"


def load() -> Any:
    """The frontend, with the libraries that it wants. Raises BackendError, in one line, where something is missing."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        # The frontend ends the process where it does not find these: they are looked for before it is asked.
        for name in ("cublasLt", "cudnn"):
            load_nvidia_dynamic_lib(name)
        frontend = import_module("cudnn")
        version = int(frontend.backend_version())
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(f"cuDNN was not found ({reason}); {INSTALL}.") from error
    if version < 90000:
        raise BackendError(f"cuDNN {version} is too old: 9 or newer is needed; {INSTALL}.")
    return frontend


class Graph(NamedTuple):
    """A graph with its plan. ``names``: by which the operands and the results are given to ``execute``."""

    graph: Any
    names: tuple[int, ...]
    workspace: int
    doing: str  # for messages


class _Planned(Protocol):
    """All that a plan depends on: hashable."""

    def build(self, frontend: Any, **where: Any) -> Graph | None:
        """Find a plan; None if cuDNN has none. ``where``: the device, as of ``build``."""

    def lacking(self) -> str | None:
        """What there is no plan for, in words, or None if nobody has to know."""


def build(frontend: Any, what: Convolution, **where: Any) -> Graph | None:
    """Find a plan; None if cuDNN has none for this.

    Args:
        where: the device to plan for, ``handle=`` or ``device_property=`` of the frontend's.
    """
    kind = getattr(frontend.data_type, TYPES[what.dtype])
    compute = frontend.data_type.DOUBLE if what.dtype == "float64" else frontend.data_type.FLOAT
    graph = frontend.pygraph(io_data_type=kind, intermediate_data_type=compute, compute_data_type=compute, **where)
    operands = [
        graph.tensor(name=f"operand{i}", dim=list(one.shape), stride=list(one.steps), data_type=kind)
        for i, one in enumerate(what.operands)
    ]
    how = {"padding": list(what.padding), "stride": list(what.stride), "dilation": list(what.dilation)}
    if what.kind == "conv":
        result = graph.conv_fprop(image=operands[0], weight=operands[1], **how)
        if len(operands) == 3:
            result = graph.bias(input=result, bias=operands[2])
    elif what.kind == "input_grad":
        result = graph.conv_dgrad(loss=operands[0], filter=operands[1], **how)
    else:
        result = graph.conv_wgrad(image=operands[0], loss=operands[1], **how)
    result.set_dim(list(what.result.shape)).set_stride(list(what.result.steps))
    result.set_output(True).set_data_type(kind)
    return planned(frontend, graph, (*operands, result), _unwanted(frontend.numerical_note, what), "a convolution")


def planned(frontend: Any, graph: Any, tensors: Sequence[Any], unwanted: list[Any], doing: str) -> Graph | None:
    """The graph with the plan that cuDNN's heuristics prefer; None if there is none.

    Args:
        tensors: operands, then results.
        unwanted: numerical notes that a plan must not have.
    """
    try:
        choose(frontend, graph, unwanted)
        graph.build_plans()
    except (frontend.cudnnGraphNotSupportedError, RuntimeError, ValueError):
        return None
    names = tuple([tensor.get_uid() for tensor in tensors])
    return Graph(graph, names, int(graph.get_workspace_size()), doing)


def choose(frontend: Any, graph: Any, unwanted: list[Any]) -> None:
    """Look for plans, and choose one that can be built. Raises one of several errors where there is none."""
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([frontend.heur_mode.A, frontend.heur_mode.FALLBACK])
    graph.deselect_numeric_notes(unwanted)
    graph.deselect_workspace_greater_than(_MOST_WORKSPACE)
    graph.check_support()


def _unwanted(notes: Any, what: Convolution) -> list[Any]:
    """What no plan may do: other bits in the next run, sums in less than float32, factors in less than their type."""
    unwanted = [notes.NONDETERMINISTIC, notes.REDUCED_PRECISION_REDUCTION]
    if not (what.dtype == "float32" and what.tf32):
        unwanted.append(notes.DOWN_CONVERT_INPUTS)
        if what.dtype == "float32":
            unwanted.append(notes.TENSOR_CORE)
    return unwanted


class _Handle:
    """A handle of this thread and device, and the plans that were made with it."""

    def __init__(self, runtime: Any, frontend: Any):
        self.runtime = runtime
        self.device = runtime.getDevice()
        self.frontend = frontend
        try:
            self.value = frontend.create_handle()
        except RuntimeError as error:
            raise BackendError(f"cuDNN does not start ({error}); nvidia-smi tells whether its driver does.") from error
        self.graphs: dict[_Planned, Graph | None] = {}

    def __del__(self) -> None:
        # at the end of the process the driver may be gone before this is
        if not sys.is_finalizing() and hasattr(self, "value"):
            ended(self.runtime, self.device, self._destroy)

    def _destroy(self) -> None:
        self.graphs.clear()
        self.frontend.destroy_handle(self.value)


class Cudnn:
    """Plans, and running them on device arrays, asynchronously on the current stream.

    Args:
        xp: CuPy.
        frontend: what ``load`` gives.
    """

    def __init__(self, xp: Any, frontend: Any):
        self.xp = xp
        self.frontend = frontend
        self.local = threading.local()
        self.said: set[_Planned] = set()
        self._handle()  # raises BackendError where cuDNN does not start

    def takes(self, dtype: Any) -> bool:
        return NAMES[dtype] in TYPES

    def plan(self, what: _Planned) -> Graph | None:
        """The plan that this thread and device has, made at the first question; None, and once a line, if there is
        none."""
        handle = self._handle()
        if what in handle.graphs:
            return handle.graphs[what]
        found = handle.graphs[what] = what.build(self.frontend, handle=handle.value)
        lacking = what.lacking() if found is None and what not in self.said else None
        if lacking is not None:
            self.said.add(what)
            warnings.warn(
                f"cuDNN is not used for {lacking}: it has no plan for it. tensorgrad's own kernels compute it.",
                stacklevel=2,
            )
        return found

    def run(self, graph: Graph, operands: Sequence[Any], *results: Any) -> None:
        """Run a plan of ``plan`` into ``results``, on the current stream; it works in memory of the current
        allocator."""
        xp, handle = self.xp, self._handle()
        self.frontend.set_stream(handle=handle.value, stream=xp.cuda.get_current_stream().ptr)
        room = xp.cuda.alloc(max(graph.workspace, 1))
        arrays = (*operands, *results)
        pointers = {name: int(x.data.ptr) for name, x in zip(graph.names, arrays, strict=True)}
        try:
            graph.graph.execute(pointers, int(room.ptr), handle=handle.value)
        except RuntimeError as error:
            raise BackendError(f"cuDNN failed in {graph.doing} into {tuple(results[0].shape)}: {error}") from error

    def _handle(self) -> _Handle:
        handles: dict[int, _Handle] | None = getattr(self.local, "handles", None)
        if handles is None:
            handles = self.local.handles = {}
        device = self.xp.cuda.runtime.getDevice()
        found = handles.get(device)
        if found is None:
            found = handles[device] = _Handle(self.xp.cuda.runtime, self.frontend)
        return found

    def in_use(self) -> Any:
        """What this thread's plans for the current device live as long as; None where it has none. A CUDA graph may
        hold kernels that were compiled for a plan, so whoever captures one keeps this."""
        handles: dict[int, _Handle] = getattr(self.local, "handles", {})
        return handles.get(self.xp.cuda.runtime.getDevice())
