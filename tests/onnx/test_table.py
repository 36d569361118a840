"""The ops' own samples through ONNX: each agrees in onnxruntime, or is refused with a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.dispatch import OPS
from tensorgrad.onnx.sizes import OnnxExporterError
from tensorgrad.onnx.table import TABLE
from tensorgrad.ops.elementwise import Elementwise
from tensorgrad.tensor import Tensor, wrap
from tensorgrad.testing.draw import inputs_of

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

# asked for with their statistics, which the layers do not use and ONNX' operators do not give
_WITH_STATISTICS = {"layer_norm", "attention", "max_pool", "adaptive_max_pool"}
# onnxruntime's own: no NaN from a maximum, 0 for the mean of nothing
_OTHERWISE = {("mean", "empty")}
NAMES = sorted(
    name for name, op in OPS.items()
    if op.samples and (name in TABLE or (isinstance(op, Elementwise) and not op.derived)) and "backward" not in name
)  # fmt: skip


def outcome(op, sample):
    """ "refused", or "agrees"; fails otherwise."""
    given = [
        wrap(np.array(x, order="C")) if isinstance(x, np.ndarray) else x for x in inputs_of(op.name, sample, "float32")
    ]
    tensors = [x for x in given if isinstance(x, Tensor)]

    def call(*fresh):
        each = iter(fresh)
        return op(*[next(each) if isinstance(x, Tensor) else x for x in given], **sample.attrs)

    want = call(*tensors)
    file = io.BytesIO()
    try:
        tg.onnx.export(call, tuple(tensors), file)
    except OnnxExporterError as error:
        assert len(str(error)) > 20
        return "refused"
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    got = session.run(None, {one.name: x.numpy() for one, x in zip(session.get_inputs(), tensors, strict=True)})
    for a, b in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
        assert (a.dtype, a.shape) == (b.numpy().dtype, tuple(b.shape))
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-4)
    return "agrees"


@pytest.mark.parametrize("name", NAMES)
def test_samples_agree_or_are_refused(name):
    op = OPS[name]
    rows = [s for s in op.samples() if "nan" not in s.name and (name, s.name) not in _OTHERWISE]
    seen = {outcome(op, row) for row in rows}
    if name in TABLE and name not in _WITH_STATISTICS:
        assert "agrees" in seen
