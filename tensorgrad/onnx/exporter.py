"""``torch.onnx.export``: a module's forward pass as an ONNX file.

The model is run, and what passes the door is written down in ONNX' operators. Where axes may vary it is run at several
sizes; what differs between the runs must be explained by the sizes, or the export is refused (``sizes.py``).
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from ..autograd.grad_mode import no_grad
from ..errors import require_extra
from ..io.atomic import atomic_file
from . import recurrent  # noqa: F401 - its translations enter the table
from .call import Call, flat, recorded
from .graph import Graph
from .sizes import OnnxExporterError
from .writer import Writer

__all__ = ["ONNXProgram", "export"]

_LEAST_OPSET, _LAST_OPSET, _DEFAULT_OPSET = 17, 21, 18
_MOST_BYTES = 2**31 - 2**20  # a protobuf message holds no more
_EVAL, _PRESERVE, _TRAINING = range(3)


class ONNXProgram:
    """An exported model. ``model_proto`` is the protobuf message."""

    def __init__(self, model_proto: Any):
        self.model_proto = model_proto

    def save(self, destination: str | os.PathLike[str] | IO[bytes], *, external_data: bool = True) -> None:
        """Write the model to a path, at once or not at all, or to a binary file.

        Weights of 2 GB or more go to a file beside it, ``<name>.data``; with ``external_data=False`` that raises
        OnnxExporterError.
        """
        size = self.model_proto.ByteSize()
        if size > _MOST_BYTES:
            if not external_data or not isinstance(destination, (str, os.PathLike)):
                raise OnnxExporterError(f"a model of {size} bytes needs external_data=True and a path.")
            name = os.path.basename(os.fspath(destination)) + ".data"
            require_extra("onnx", "onnx").save_model(
                self.model_proto, os.fspath(destination), save_as_external_data=True, location=name
            )
            return
        content = self.model_proto.SerializeToString()
        if isinstance(destination, (str, os.PathLike)):
            with atomic_file(destination) as file:
                file.write(content)
        else:
            destination.write(content)

    def __repr__(self) -> str:
        graph = self.model_proto.graph
        return f"ONNXProgram({len(graph.node)} nodes, {len(graph.initializer)} initializers)"


def export(
    model: Any,
    args: Any = (),
    f: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    verbose: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamo: bool = True,
    external_data: bool = True,
    dynamic_shapes: Any = None,
    verify: bool = False,
    export_params: bool = True,
    keep_initializers_as_inputs: bool = False,
    dynamic_axes: Mapping[str, Any] | None = None,
    training: Any = _EVAL,
    do_constant_folding: bool = True,
) -> ONNXProgram:
    """Write a model's forward pass as an ONNX graph.

    Control flow in Python is that of the run. LSTM, GRU and RNN are single operators; on packed sequences, with a
    projection or in another dtype than float32 they are written step by step, for the length they were given.

    Args:
        model: a Module, or any function of tensors; evaluated in evaluation mode, and left as it was.
        args: its inputs, a Tensor or a tuple of Tensors and other values (which become part of the model).
        f: a path or binary file to write to; None to only return the program.
        kwargs: inputs by keyword.
        verbose: print the graph.
        input_names, output_names: names in the graph; those of ``forward``'s parameters, and ``output_0`` ... .
        opset_version: 17 to 21; 18 by default. For an older one a warning is given and 17 is written, as PyTorch does.
        dynamo: PyTorch's choice between two exporters; there is one here, which serves for both.
        external_data: whether weights of 2 GB or more may go to a file beside ``f``.
        dynamic_shapes: the axes that may vary, by parameter or position: ``{"x": {0: "batch"}}``.
        verify: run the result in onnxruntime and compare.
        export_params, keep_initializers_as_inputs: only the defaults: the weights are part of the model.
        dynamic_axes: the axes that may vary, by name in the graph: ``{"input": {0: "batch"}}`` or ``{"input": [0]}``.
        training: ``TrainingMode.EVAL``, or PRESERVE to leave each module in the mode it is in.
        do_constant_folding: write what does not depend on the inputs as numbers instead of nodes.
    Returns: the program; its ``model_proto`` is the message, ``save`` writes it.
    Raises: OnnxExporterError (a RuntimeError) for an op that ONNX lacks, naming it, or a dependence on sizes that can't
        be written; MissingExtra without the package ``onnx``; ValueError for options that are not supported.
    """
    onnx = require_extra("onnx", "onnx")
    _check_options(opset_version, export_params, keep_initializers_as_inputs, training)
    call = Call(model, args, kwargs or {}, input_names)
    axes = call.dynamic_axes(dynamic_axes, dynamic_shapes)
    with _mode_of(model, int(training)), no_grad():
        sizes, traces, results = recorded(call, axes)
        graph = Graph(max(opset_version or _DEFAULT_OPSET, _LEAST_OPSET))
        proto = Writer(
            graph, call, axes, sizes, traces, results, output_names, dynamic_axes, do_constant_folding
        ).proto()
        program = ONNXProgram(proto)
        if verify:
            _verify(program, call)
    if program.model_proto.ByteSize() <= _MOST_BYTES:
        onnx.checker.check_model(proto, full_check=True)
    if verbose:
        print(onnx.printer.to_text(proto) if hasattr(onnx, "printer") else proto)
    if f is not None:
        program.save(f, external_data=external_data)
    return program


def _check_options(opset: int | None, export_params: bool, inputs_too: bool, training: Any) -> None:
    if opset is not None and not 1 <= opset <= _LAST_OPSET:
        raise ValueError(f"onnx.export: opset_version must be {_LEAST_OPSET} to {_LAST_OPSET}, got {opset}.")
    if opset is not None and opset < _LEAST_OPSET:
        warnings.warn(
            f"onnx.export: opset {opset} is older than what is written here; the model is of opset {_LEAST_OPSET}.",
            stacklevel=3,
        )
    if not export_params or inputs_too:
        raise ValueError("onnx.export: the weights are always part of the model, and no inputs of it.")
    if int(training) not in (_EVAL, _PRESERVE):
        raise ValueError("onnx.export: models are exported in evaluation mode, or in the mode they are in (PRESERVE).")


@contextmanager
def _mode_of(model: Any, training: int) -> Iterator[None]:
    modules = list(model.modules()) if hasattr(model, "modules") else []
    before = [module.training for module in modules]
    if training == _EVAL and modules:
        model.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode


def _verify(program: ONNXProgram, call: Call) -> None:
    """Raises OnnxExporterError if onnxruntime computes something else from the example inputs."""
    runtime = require_extra("onnxruntime", "onnx")
    buffer = io.BytesIO()
    program.save(buffer)
    session = runtime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    feed = {name: x.detach().cpu().numpy() for name, x in zip(call.names, call.tensors, strict=True)}
    known = {one.name for one in session.get_inputs()}
    got = session.run(None, {name: x for name, x in feed.items() if name in known})
    want = flat(call([x._data for x in call.tensors]))
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if not np.allclose(a, b.detach().cpu().numpy(), rtol=1e-3, atol=1e-4, equal_nan=True):
            raise OnnxExporterError(f"onnx.export(verify=True): output {i} differs in onnxruntime.")
