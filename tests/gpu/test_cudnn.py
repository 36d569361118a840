"""The binding to cuDNN: what it is asked for, how plans are kept, and that the real one has a plan for it.

Plans are made for a device that is described by numbers, which needs cuDNN (``pip install nvidia-cudnn-frontend==1.18.0
nvidia-cudnn-cu13 nvidia-cublas``) but no GPU.
"""

from __future__ import annotations

import gc
import json
import threading
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import cudnn as permissions
from tensorgrad.backends.cupy import conv_kernels
from tensorgrad.backends.cupy.cudnn import Convolution, Cudnn, build, load
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import BackendError
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_cudnn import Frontend, StrictCudnn
from tensorgrad.testing.strict_namespace import xp
from tensorgrad.testing.strict_stream import Stream

from .convolutions import LAYERS, TOLERANCE, Layer, random_layers

DTYPES = ("float32", "float64", "float16", "bfloat16")
H200 = {
    "deviceName": "NVIDIA H200", "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0, "multiProcessorCount": 132,
    "warpSize": 32, "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
    "maxRegistersPerSM": 65536, "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048,
    "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024,
    "l2CacheSize": 62914560, "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "totalGlobalMem": 150000000000,
    "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
}  # fmt: skip


class Asked(StrictCudnn):
    """The emulation; ``what`` it was asked to plan."""

    def __init__(self) -> None:
        super().__init__(xp)
        self.what: list[Convolution] = []

    def plan(self, what: Convolution) -> Any:
        self.what.append(what)
        return super().plan(what)


@pytest.fixture
def backend() -> StrictCupyBackend:
    made = StrictCupyBackend()
    made._cudnn = Asked()
    return made


def lying(x: Any, last: bool) -> Any:
    """The array with its channels last in memory."""
    if not last or x.ndim < 4:
        return StrictArray(x)
    return xp.moveaxis(StrictArray(np.ascontiguousarray(np.moveaxis(x, 1, -1))), -1, 1)


def three(backend: StrictCupyBackend, layer: Layer, dtype: str, last: bool = False) -> list[Any]:
    x, w, g = (lying(a, last) for a in layer.arrays(dtype))
    return [
        backend.raw.conv(x, w, None, **layer.how),
        backend.raw.conv_input_grad(g, w, input_shape=layer.image, **layer.how),
        backend.raw.conv_weight_grad(g, x, weight_shape=layer.weight, **layer.how),
    ]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results(dtype: str, last: bool, backend: StrictCupyBackend) -> None:
    layers = [*LAYERS, *random_layers(15, seed=3)]
    for layer in layers:
        for got, want in zip(three(backend, layer, dtype, last), layer.expected(dtype), strict=True):
            assert got.dtype == numpy_dtype(dtype)
            off = np.abs(got.get().astype(np.float64) - want).max()
            assert off <= TOLERANCE[dtype] * np.abs(want).max()
    assert len(backend._cudnn.what) == 3 * len(layers)  # type: ignore[union-attr]


def test_channels_stay_where_they_are(backend: StrictCupyBackend) -> None:
    y, gx, gw = three(backend, LAYERS[2], "float32", last=True)
    for result in (y, gx):
        assert not result.flags.c_contiguous and xp.moveaxis(result, 1, -1).flags.c_contiguous
    assert gw.flags.c_contiguous, "as the parameter lies"
    assert all(one.steps[1] == 1 for what in backend._cudnn.what for one in (*what.operands, what.result))  # type: ignore[union-attr]
    assert all(result.flags.c_contiguous for result in three(backend, LAYERS[2], "float32"))


def test_a_bias_is_added_within(backend: StrictCupyBackend) -> None:
    for layer in (LAYERS[0], LAYERS[2], LAYERS[8]):
        x, w, _ = layer.arrays("float32")
        b = np.arange(w.shape[0], dtype=np.float32)
        got = backend.raw.conv(StrictArray(x), StrictArray(w), StrictArray(b), **layer.how).get()
        want = layer.expected("float32")[0] + b.reshape(-1, *(1,) * (x.ndim - 2))
        assert np.allclose(got, want, atol=1e-4)
    assert [len(what.operands) for what in backend._cudnn.what] == [3, 3, 3]  # type: ignore[union-attr]


def test_arrays_that_lie_otherwise_are_copied(backend: StrictCupyBackend) -> None:
    layer = LAYERS[2]
    x, w, _ = layer.arrays("float32")
    want = layer.expected("float32")[0]
    room = np.zeros(x.size + 1, np.float32)
    room[1:] = x.reshape(-1)
    misaligned = StrictArray(room)[1:].reshape(x.shape)
    transposed = StrictArray(np.ascontiguousarray(x.swapaxes(2, 3))).swapaxes(2, 3)
    for odd in (misaligned, transposed):
        got = backend.raw.conv(odd, StrictArray(w), None, **layer.how)
        assert np.allclose(got.get(), want, atol=1e-4)
    g = xp.broadcast_to(StrictArray(np.ones((1,) * 4, np.float32)), layer.slope)  # of a sum
    got = backend.raw.conv_input_grad(g, StrictArray(w), input_shape=layer.image, **layer.how)
    assert got.shape == layer.image


def test_plans_are_made_once_for_each_shape_and_permission(
    backend: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Convolution] = []

    def watched(frontend: Any, what: Convolution, **where: Any) -> Any:
        made.append(what)
        return build(frontend, what, **where)

    monkeypatch.setattr("tensorgrad.backends.cupy.cudnn.build", watched)
    for _ in range(2):
        three(backend, LAYERS[2], "float32")
    assert [what.kind for what in made] == ["conv", "input_grad", "weight_grad"]
    three(backend, LAYERS[3], "float32")
    three(backend, LAYERS[2], "bfloat16")
    assert len(made) == 9
    with permissions.flags(enabled=True, allow_tf32=True):
        three(backend, LAYERS[2], "float32")
        assert [what.tf32 for what in made] == [False] * 9 + [True] * 3
        three(backend, LAYERS[2], "bfloat16")
        assert len(made) == 12, "which halves have no use for"


def test_float32_stays_float32_unless_somebody_permits_less(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Frontend.numerical_note
    strict = {notes.NONDETERMINISTIC, notes.REDUCED_PRECISION_REDUCTION, notes.DOWN_CONVERT_INPUTS, notes.TENSOR_CORE}
    refused: list[set[Any]] = []

    class Graph(Frontend.pygraph):
        def build_plans(self) -> None:
            super().build_plans()
            refused.append(self.refused)

    class Watched(Frontend):
        pygraph = Graph

    backend = StrictCupyBackend()
    assert not permissions.tf32_allowed()
    for dtype in ("float32", "float16", "float64"):
        backend._cudnn = Cudnn(xp, Watched)
        three(backend, LAYERS[2], dtype)
    assert refused == [strict] * 3 + [strict - {notes.TENSOR_CORE}] * 6
    monkeypatch.setattr(permissions, "fp32_precision", "tf32")
    three(backend, LAYERS[2], "float32")
    assert refused[9:] == [{notes.NONDETERMINISTIC, notes.REDUCED_PRECISION_REDUCTION}] * 3


def test_a_shape_without_a_plan_is_said_once_and_computed_by_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph(Frontend.pygraph):
        def check_support(self) -> None:
            raise Frontend.cudnnGraphNotSupportedError("No execution plans support the graph.")

    class Without(Frontend):
        pygraph = Graph

    backend, layer = StrictCupyBackend(), LAYERS[2]
    backend._cudnn = Cudnn(xp, Without)
    x, w, _ = map(StrictArray, layer.arrays("float32"))
    b = StrictArray(np.zeros(4, np.float32))
    with pytest.warns(UserWarning, match=r"cuDNN is not used for conv of \(2, 3, 6, 7\) and .* no plan") as seen:
        for _ in range(3):
            got = backend.raw.conv(x, w, b, **layer.how)
    assert len(seen) == 1
    assert np.allclose(got.get(), layer.expected("float32")[0], atol=1e-4)


def test_a_handle_for_each_thread(backend: StrictCupyBackend) -> None:
    def work() -> None:
        with Stream(non_blocking=True):
            three(backend, LAYERS[2], "float32")
        made.append(backend._cudnn._handle())  # type: ignore[union-attr]

    made: list[Any] = []
    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    work()
    assert len({handle.value for handle in made}) == 3
    assert all(len(handle.graphs) == 3 for handle in made)


def test_plans_live_as_long_as_a_graph_of_their_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[int] = []
    with strict_cuda():
        gc.collect()  # handles of other tests
        monkeypatch.setattr(Frontend, "destroy_handle", staticmethod(destroyed.append))
        w = tg.randn(4, 3, 3, 3, device="cuda")
        x = tg.randn(2, 3, 8, 8, device="cuda")
        f = tg.compile(lambda x: tg.nn.functional.conv2d(x, w).relu())

        def work(f: Any = f) -> None:
            for _ in range(3):
                f(x)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        gc.collect()
        assert "CUDA graphs: 1, of 2 calls" in f.programs[0].runners[0].told()[0]
        assert not destroyed, "the thread has ended, but its graph may hold kernels that were compiled for a plan"
        assert f(x).tolist() == tg.nn.functional.conv2d(x, w).relu().tolist()
        del f, work
        gc.collect()
        assert len(destroyed) == 1


def test_what_the_emulation_refuses(backend: StrictCupyBackend) -> None:
    cudnn = StrictCudnn(xp)
    layer = LAYERS[2]
    three(backend, layer, "float32")
    what = backend._cudnn.what[0]  # type: ignore[union-attr]
    graph = cudnn.plan(what)
    assert graph is not None
    x, w, g = map(StrictArray, layer.arrays("float32"))
    cudnn.run(graph, (x, w), g)
    with pytest.raises(BackendError, match=r"cuDNN failed in a convolution into \(2, 4, 6, 7\): .*BAD_PARAM"):
        cudnn.run(graph._replace(names=(1, 2, 9)), (x, w), g)
    flat = StrictArray(np.zeros(x.size + 1, np.float32))[1:].reshape(x.shape)
    with pytest.raises(BackendError, match="misaligned"):
        cudnn.run(graph, (flat, w), g)
    assert build(Frontend, what._replace(stride=(2, 2)), handle=0) is None


def test_a_failing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Frontend):
        @staticmethod
        def create_handle() -> int:
            raise RuntimeError("cudnnHandle Create failed")

    with pytest.raises(BackendError, match=r"cuDNN does not start \(cudnnHandle Create failed\)"):
        Cudnn(xp, Failing)
    monkeypatch.setattr(conv_kernels, "load", lambda: Failing)
    backend = StrictCupyBackend()
    del backend._cudnn
    with pytest.warns(UserWarning, match="cuDNN is not used: cuDNN does not start"):
        assert backend._cudnn is None


def test_questions_about_it() -> None:
    with strict_cuda():
        assert permissions.is_available() and permissions.version() == 91900
        x = tg.ones(2, device="cuda")
        assert permissions.is_acceptable(x) and not permissions.is_acceptable(x.long())
        assert not permissions.is_acceptable(tg.ones(2))
        with permissions.flags(enabled=False):
            assert not permissions.is_acceptable(x)


# --- the real library, where it is installed


@pytest.fixture(scope="module")
def frontend() -> Any:
    try:
        return load()
    except BackendError as error:
        pytest.skip(str(error))


def test_where_the_library_is_looked_for() -> None:
    try:
        found = load()
    except BackendError as error:
        assert "was not found" in str(error) and "\n" not in str(error)
    else:
        assert found.backend_version() >= 90000


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_there_is_a_plan(dtype: str, last: bool, frontend: Any, backend: StrictCupyBackend) -> None:
    device = frontend.create_device_properties(json.dumps(H200))
    for tf32 in (False, True)[: 1 + (dtype == "float32")]:
        with permissions.flags(enabled=True, allow_tf32=tf32):
            for layer in LAYERS:
                three(backend, layer, dtype, last)
                x, w, _ = (lying(a, last) for a in layer.arrays(dtype))
                b = StrictArray(np.zeros(w.shape[0], numpy_dtype(dtype)))
                backend.raw.conv(x, w, b, **layer.how)
    asked = backend._cudnn.what  # type: ignore[union-attr]
    without = [what for what in asked if build(frontend, what, device_property=device) is None]
    # a bias may be added behind
    assert [what for what in without if len(what.operands) == 2] == []
