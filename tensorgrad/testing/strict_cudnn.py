"""cuDNN of the stand-in: the part of ``nvidia-cudnn-frontend`` that is used, which sees addresses, dims and strides.

A graph is checked as the real one checks it: dims and strides of every tensor, sizes that follow from each other, the
order of calls. Execution reads and writes what lies at the addresses.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backends.cupy.cudnn import ALIGNMENT, Cudnn, Graph
from ..backends.generic.conv import ConvKernels, conv_outputs
from ..dtypes import numpy_dtype
from .strict_array import unwrapped
from .strict_cudnn_attention import StrictAttention
from .strict_memory import room_at
from .strict_stream import capturing, current, touch

__all__ = ["Frontend", "StrictCudnn"]

_WORKSPACE = 1024  # bytes; every graph asks for as many at least, so that somebody has to give them


class _Host(ConvKernels):
    xp = np


data_type = Enum("data_type", "FLOAT DOUBLE HALF BFLOAT16 NOT_SET")
heur_mode = Enum("heur_mode", "A B FALLBACK")
diagonal_alignment = Enum("diagonal_alignment", "TOP_LEFT BOTTOM_RIGHT")
numerical_note = Enum("numerical_note", "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION NONDETERMINISTIC")
_NAMES = {
    data_type.FLOAT: "float32", data_type.DOUBLE: "float64", data_type.HALF: "float16", data_type.BFLOAT16: "bfloat16"
}  # fmt: skip


class cudnnGraphNotSupportedError(RuntimeError):
    """What the frontend raises where there is no engine."""


class _Tensor:
    def __init__(self, dim: Sequence[int] = (), stride: Sequence[int] = (), kind: Any = data_type.NOT_SET):
        self.uid = 0  # until the graph is valid
        self.dim, self.stride = list(dim), list(stride)
        self.kind = kind
        self.output = False

    def get_uid(self) -> int:
        return self.uid

    def set_dim(self, dim: list[int]) -> _Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> _Tensor:
        self.stride = stride
        return self

    def set_output(self, output: bool) -> _Tensor:
        self.output = output
        return self

    def set_data_type(self, kind: Any) -> _Tensor:
        self.kind = kind
        return self

    def at(self, address: int) -> Any:
        """The NumPy array that lies there."""
        dtype = numpy_dtype(_NAMES[self.kind])
        extent = 1 + sum((size - 1) * step for size, step in zip(self.dim, self.stride, strict=True))
        flat = room_at(address, extent * dtype.itemsize).view(dtype)
        return as_strided(flat, self.dim, [step * dtype.itemsize for step in self.stride])


class _Convolution:
    """One convolution, perhaps with a bias behind it."""

    def __init__(self, kind: str, inputs: list[_Tensor], how: dict[str, Any]):
        self.kind, self.inputs, self.how = kind, inputs, how
        self.made = _Tensor()
        self.outputs = [self.made]

    def bias(self, bias: _Tensor) -> _Tensor:
        self.inputs.append(bias)
        self.outputs = [_Tensor()]
        return self.outputs[0]

    def check(self, kind: Any) -> None:
        how = self.how
        if any(tensor.kind is not kind for tensor in (*self.inputs, *self.outputs)):
            raise ValueError("tensors of several types")
        a, b, made = self.inputs[0].dim, self.inputs[1].dim, self.outputs[0].dim
        image, weight, slope = {
            "conv": (a, b, made), "input_grad": (made, b, a), "weight_grad": (a, made, b)
        }[self.kind]  # fmt: skip
        if {len(values) for values in how.values()} != {len(image) - 2} or set(how) != {
            "padding",
            "stride",
            "dilation",
        }:
            raise ValueError(f"{how} for {len(image)} dims")
        positions = conv_outputs(image[2:], weight[2:], how["stride"], how["padding"], how["dilation"])
        groups = image[1] // weight[1]
        if groups * weight[1] != image[1] or weight[0] % groups or slope != [image[0], weight[0], *positions]:
            raise ValueError(f"{self.kind}: {image}, {weight} and {slope} do not fit")
        if len(self.inputs) == 3 and self.inputs[2].dim != [1, weight[0], *(1,) * len(positions)]:
            raise ValueError(f"a bias of dim {self.inputs[2].dim}")
        self.groups = groups

    def workspace(self) -> int:
        return 0

    def compute(self, a: Any, b: Any, *rest: Any) -> None:
        *bias, out = rest
        host = _Host()
        given: dict[str, Any] = {**{name: tuple(value) for name, value in self.how.items()}, "groups": self.groups}
        exact = np.float64 if a.dtype.itemsize == 8 else np.float32
        a, b = a.astype(exact), b.astype(exact)
        if self.kind == "conv":
            out[...] = host.conv(a, b, bias[0].astype(exact).reshape(-1) if bias else None, **given)
        elif self.kind == "input_grad":
            out[...] = host.conv_input_grad(a, b, input_shape=out.shape, **given)
        else:
            out[...] = host.conv_weight_grad(b, a, weight_shape=out.shape, **given)


class pygraph:
    """One convolution or attention."""

    def __init__(self, *, io_data_type: Any, intermediate_data_type: Any, compute_data_type: Any, handle: int):
        double = io_data_type is data_type.DOUBLE
        if {intermediate_data_type, compute_data_type} != {data_type.DOUBLE if double else data_type.FLOAT}:
            raise ValueError("sums of this type are made in another")
        self.kind, self.handle = io_data_type, handle
        self.operands: list[_Tensor] = []
        self.work: _Convolution | StrictAttention | None = None
        self.most = 2**63
        self.done: list[str] = []

    def tensor(self, *, name: str, dim: list[int], stride: list[int], data_type: Any) -> _Tensor:
        if len(dim) != len(stride) or len(dim) not in (4, 5) or min(*dim, *stride) < 1:
            raise ValueError(f"{name}: a tensor of dim {dim}, stride {stride}")
        self.operands.append(_Tensor(dim, stride, data_type))
        return self.operands[-1]

    def _made(self, work: _Convolution | StrictAttention) -> list[_Tensor]:
        assert self.work is None
        self.work = work
        return work.outputs

    def conv_fprop(self, *, image: _Tensor, weight: _Tensor, **how: Any) -> _Tensor:
        return self._made(_Convolution("conv", [image, weight], how))[0]

    def conv_dgrad(self, *, loss: _Tensor, filter: _Tensor, **how: Any) -> _Tensor:
        return self._made(_Convolution("input_grad", [loss, filter], how))[0]

    def conv_wgrad(self, *, image: _Tensor, loss: _Tensor, **how: Any) -> _Tensor:
        return self._made(_Convolution("weight_grad", [image, loss], how))[0]

    def bias(self, *, input: _Tensor, bias: _Tensor) -> _Tensor:
        assert isinstance(self.work, _Convolution) and input is self.work.made
        return self.work.bias(bias)

    def sdpa(self, *, q: _Tensor, k: _Tensor, v: _Tensor, **how: Any) -> list[_Tensor]:
        return self._made(StrictAttention([q, k, v], [_Tensor(), _Tensor()], how))

    def sdpa_backward(
        self, *, q: _Tensor, k: _Tensor, v: _Tensor, o: _Tensor, dO: _Tensor, stats: _Tensor, **how: Any
    ) -> list[_Tensor]:
        return self._made(StrictAttention([q, k, v, o, dO, stats], [_Tensor(), _Tensor(), _Tensor()], how))

    def validate(self) -> None:
        assert self.work is not None and all(tensor.output for tensor in self.work.outputs)
        assert self.operands == self.work.inputs, "operands in another order, or without use"
        self.work.check(self.kind)
        for uid, tensor in enumerate([*self.work.inputs, *self.work.outputs], 1):
            tensor.uid = uid
        self.done.append("validate")

    def build_operation_graph(self) -> None:
        self._after("validate", "build_operation_graph")

    def create_execution_plans(self, modes: list[Any]) -> None:
        assert modes == [heur_mode.A, heur_mode.FALLBACK]
        self._after("build_operation_graph", "create_execution_plans")

    def deselect_numeric_notes(self, notes: list[Any]) -> None:
        assert self.done[-1] == "create_execution_plans"
        self.refused = set(notes)

    def deselect_workspace_greater_than(self, size: int) -> None:
        assert self.done[-1] == "create_execution_plans"
        self.most = size

    def check_support(self) -> None:
        self._after("create_execution_plans", "check_support")
        if self._workspace() > self.most:
            raise cudnnGraphNotSupportedError(f"Skipping plan since workspace violation. Requires {self._workspace()}")

    def _workspace(self) -> int:
        assert self.work is not None
        return _WORKSPACE + self.work.workspace()

    def build_plans(self) -> None:
        self._after("check_support", "build_plans")

    def get_workspace_size(self) -> int:
        assert self.done[-1] == "build_plans"
        return self._workspace()

    def _after(self, before: str, now: str) -> None:
        assert self.done[-1] == before, f"{now} after {self.done[-1]}"
        self.done.append(now)

    def execute(self, pointers: dict[int, int], workspace: int, handle: int) -> None:
        assert self.work is not None and self.done[-1] == "build_plans"
        tensors = [*self.work.inputs, *self.work.outputs]
        if set(pointers) != {tensor.uid for tensor in tensors} or not workspace:
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM: pointers of other tensors, or no workspace")
        if any(address % ALIGNMENT for address in pointers.values()):
            raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED: misaligned address")
        if _streams.get(handle) != current().ptr or handle != self.handle:
            raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED: another stream is the current one")
        arrays = [tensor.at(pointers[tensor.uid]) for tensor in tensors]
        room = room_at(workspace, self._workspace())
        graph = capturing()
        if graph is not None:
            graph.add(self._compute, (*arrays, room), {})
        else:
            self._compute(*arrays, room)

    def _compute(self, *arrays: Any) -> None:
        assert self.work is not None
        arrays[-1][:] = 0xFF
        self.work.compute(*arrays[:-1])


_streams: dict[int, int] = {}
_handles = itertools.count(0x200, 0x10)


class Frontend:
    """The module ``cudnn``."""

    data_type = data_type
    heur_mode = heur_mode
    diagonal_alignment = diagonal_alignment
    numerical_note = numerical_note
    cudnnGraphNotSupportedError = cudnnGraphNotSupportedError
    pygraph = pygraph

    @staticmethod
    def backend_version() -> int:
        return 91900

    @staticmethod
    def create_handle() -> int:
        handle = next(_handles)
        _streams[handle] = -1
        return handle

    @staticmethod
    def destroy_handle(handle: int) -> None:
        del _streams[handle]

    @staticmethod
    def set_stream(*, handle: int, stream: int) -> None:
        assert handle in _streams
        _streams[handle] = stream


class StrictCudnn(Cudnn):
    """The binding, on the emulation; graphs are told of the memory behind the addresses."""

    def __init__(self, xp: Any):
        super().__init__(xp, Frontend)

    def run(self, graph: Graph, operands: Sequence[Any], *results: Any) -> None:
        touch(*[unwrapped(x) for x in (*operands, *results)])
        super().run(graph, operands, *results)
