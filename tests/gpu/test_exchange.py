"""Memory shared with CuPy and others on device ``cuda``: DLPack, ``__cuda_array_interface__``, streams and devices."""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.dispatch import everywhere
from tensorgrad.dtypes import BY_NAME, numpy_dtype
from tensorgrad.errors import AutogradError, CompileError, DTypeError, ShapeError
from tensorgrad.testing.strict_array import StrictArray, no_traffic
from tensorgrad.testing.strict_backend import strict_cuda
from tensorgrad.testing.strict_devices import StrictDevice, equipped
from tensorgrad.testing.strict_namespace import xp


@pytest.fixture
def cuda() -> Iterator[Any]:
    with registry.backend("numpy"), strict_cuda(devices=2) as backend:
        yield backend


class Foreign:
    """Another library's array on a GPU, which tells of its memory by ``__cuda_array_interface__`` alone."""

    def __init__(self, array: Any, **instead: Any):
        self.array = array
        self.instead = instead

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__cuda_array_interface__, **self.instead}


SHARING = {
    "as_tensor": tg.as_tensor, "asarray": tg.asarray, "from_dlpack": tg.from_dlpack,
    "foreign": lambda x: tg.as_tensor(Foreign(x)), "through DLPack": lambda x: tg.from_dlpack(tg.from_dlpack(x)),
}  # fmt: skip


@pytest.mark.parametrize("way", SHARING)
def test_arrays_share_their_memory(way: str, cuda: Any) -> None:
    array = xp.arange(6.0).reshape(2, 3)
    with no_traffic() if way != "foreign" else cuda.on(None):
        x = SHARING[way](array)
        array[0, 0] = 5.0
        x[1, 2] = 7.0
    assert str(x.device) == "cuda:0" and x.dtype == tg.float64
    assert x.tolist() == array.tolist() == [[5.0, 1.0, 2.0], [3.0, 4.0, 7.0]]


@pytest.mark.parametrize("way", ["as_tensor", "foreign", "through DLPack"])
def test_views_are_shared_where_they_lie(way: str, cuda: Any) -> None:
    array = xp.arange(12.0).reshape(3, 4)
    host = np.arange(12.0).reshape(3, 4)
    for key in (slice(None), (slice(None, None, -1), slice(1, None, 2)), slice(1, 1), (1, 2)):
        view = array[key].T
        x = SHARING[way](view)
        assert not view.size or x._data.strides == view.strides
        x.add_(1.0)
        host[key] += 1.0
    assert array.tolist() == host.tolist()


def test_tensor_copies(cuda: Any) -> None:
    array = xp.arange(3.0)
    for given in (array, Foreign(array)):
        x = tg.tensor(given, dtype=tg.float32, requires_grad=True)
        assert x.is_leaf and x.dtype == tg.float32 and str(x.device) == "cuda:0"
        x.detach().add_(1.0)
        assert array.tolist() == [0.0, 1.0, 2.0] and tg.tensor(given, device="cpu").device.type == "cpu"
    assert tg.as_tensor(array, dtype=tg.float32).dtype == tg.float32
    assert tg.as_tensor(array, device="cpu").tolist() == [0.0, 1.0, 2.0]
    with tg.device("cpu"):  # a default device
        assert tg.as_tensor(array).device.type == tg.tensor(Foreign(array)).device.type == "cpu"
    copy = tg.from_dlpack(array, copy=True)
    copy.zero_()
    assert array.tolist() == [0.0, 1.0, 2.0] and tg.from_dlpack(array, device="cpu").device.type == "cpu"
    with pytest.raises(ValueError, match="copy=False forbids"):
        tg.from_dlpack(array, device="cpu", copy=False)


def test_arrays_are_operands_indices_and_values(cuda: Any) -> None:
    w = tg.tensor([1.0, 2.0, 3.0], device="cuda", requires_grad=True)
    data, at = xp.arange(3.0).astype(np.float32), xp.asarray(np.array([2, 0]))
    (w * data + data)[at].sum().backward()
    assert w.grad is not None and w.grad.tolist() == [0.0, 0.0, 2.0]
    with tg.no_grad():
        w[at] = xp.asarray(np.array([5.0, 6.0], np.float32))
    assert w.tolist() == [6.0, 2.0, 5.0]


def test_cupy_reads_tensors_where_they_are(cuda: Any) -> None:
    for x in (tg.arange(6.0, device="cuda").reshape(2, 3), tg.arange(6.0, device="cuda").reshape(2, 3).T):
        for take in (xp.asarray, xp.from_dlpack):
            with no_traffic():
                array = take(x)
            array += 1.0
            assert array.strides == x._data.strides
        assert x.sum().item() == 15.0 + 12.0
        kept, x = xp.asarray(x), None
        assert kept.sum().item() == 27.0  # the memory lives as long as somebody reads it


def test_the_interface_is_pytorchs(cuda: Any) -> None:
    x = tg.zeros(2, 3, device="cuda")
    pointer = x.data_ptr()
    assert x.__cuda_array_interface__ == {
        "shape": (2, 3), "typestr": "<f4", "strides": None, "data": (pointer, False), "version": 2,
    }  # fmt: skip
    assert x.T.__cuda_array_interface__["strides"] == (4, 12)
    assert x[:0].__cuda_array_interface__["data"] == (0, False)
    assert not hasattr(tg.zeros(2), "__cuda_array_interface__")
    with pytest.raises(AttributeError, match=r"lives on cpu; copy it with tensor\.cuda\(\)"):
        tg.zeros(2).__cuda_array_interface__  # noqa: B018
    w = x.requires_grad_()
    for take in (xp.asarray, xp.from_dlpack):
        with pytest.raises(AutogradError, match=r"requires grad; export tensor\.detach\(\)"):
            take(w)
        take(w.detach())
    with pytest.raises(BufferError):
        w.__dlpack__()


@pytest.mark.parametrize("name", BY_NAME)
def test_dtypes(name: str, cuda: Any) -> None:
    array = xp.asarray(np.arange(4).astype(numpy_dtype(name)))
    x = tg.as_tensor(array)
    assert x.dtype == BY_NAME[name] and xp.from_dlpack(x).dtype == array.dtype
    assert tg.from_dlpack(Dlpack(array)).tolist() == x.tolist()
    if name != "bfloat16":
        assert xp.asarray(x).dtype == tg.as_tensor(Foreign(array))._data.dtype == array.dtype
        return
    with pytest.raises(DTypeError, match=r"no name for torch\.bfloat16; use cupy\.from_dlpack"):
        xp.asarray(x)
    with pytest.raises(DTypeError, match="hand bfloat16 over by DLPack"):
        tg.as_tensor(Foreign(array))


class Dlpack:
    """Another library's array that speaks DLPack, as old libraries do."""

    def __init__(self, array: Any):
        self.array = array
        self.streams: list[Any] = []

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_what_cannot_be_shared_is_said_in_a_line(cuda: Any) -> None:
    array = xp.arange(3.0)
    for given in (array.astype(np.uint32), Dlpack(array.astype(np.uint32)), Foreign(array.astype(np.uint32))):
        with pytest.raises(DTypeError, match=r"uint32.* is not supported"):
            tg.as_tensor(given)
    with pytest.raises(TypeError, match=r"expected a numpy\.ndarray, got .*\.StrictArray; use as_tensor"):
        tg.from_numpy(array)
    with pytest.raises(TypeError, match="read-only"):
        tg.as_tensor(Foreign(array, data=(array.data.ptr, True)))
    for read in (np.asarray, np.from_dlpack):  # a host library
        with pytest.raises((TypeError, RuntimeError, BufferError)):
            read(tg.as_tensor(array))
    with pytest.raises(tg.errors.ArgumentError, match="has no streams; got stream=1"):
        tg.zeros(2).__dlpack__(stream=1)
    assert np.from_dlpack(tg.zeros(2)).tolist() == [0.0, 0.0]


def test_the_first_array_brings_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._OWN, "cupy", "tensorgrad.testing.strict_backend:StrictCupyBackend")
    monkeypatch.setattr(registry, "_loaded", {k: v for k, v in registry._loaded.items() if k != "cupy"})
    with equipped(1, None):
        try:
            for share in (tg.as_tensor, tg.tensor, tg.from_dlpack, tg.asarray, lambda x: tg.as_tensor(Foreign(x))):
                registry._loaded.pop("cupy", None)
                everywhere.pop(StrictArray, None)
                x = share(xp.arange(3.0))
                assert str(x.device) == "cuda:0" and (x * 2).tolist() == [0.0, 2.0, 4.0]
        finally:
            everywhere.pop(StrictArray, None)


def test_arrays_stay_on_their_device(cuda: Any) -> None:
    with StrictDevice(1):
        array = xp.arange(3.0)
    for given in (array, Foreign(array), Dlpack(array)):
        x = tg.as_tensor(given)
        assert str(x.device) == "cuda:1" and x.data_ptr() == array.data.ptr
        x.add_(1.0)
    shared = xp.from_dlpack(x)
    assert shared.device.id == 1 and shared.get().tolist() == [3.0, 4.0, 5.0]
    with pytest.raises(BufferError, match="unsupported device"):
        x.__dlpack__(dl_device=(2, 0))
    empty = tg.as_tensor(Foreign(xp.empty((0, 2))))
    assert str(empty.device) == "cuda:0" and tuple(empty.shape) == (0, 2)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_the_consumers_stream_waits_for_the_tensors(device: str, cuda: Any) -> None:
    pinned = tg.tensor([1.0, 2.0]).pin_memory()
    x = pinned.to(device, non_blocking=True)  # the stand-in does this as late as it may
    side = tg.cuda.Stream(device)
    with no_traffic():
        held = x.__dlpack__(stream=side.cuda_stream)
        assert not side.query() and np.isnan(x._data._host).all()
        side._native.finish()  # what the consumer's kernels see
    assert x._data._host.tolist() == [1.0, 2.0] and held is not None

    y = pinned.to(device, non_blocking=True)
    y.__dlpack__(stream=-1)  # no order is asked for
    side._native.finish()
    assert np.isnan(y._data._host).all()
    with pytest.raises(ValueError, match="valid stream"):
        y.__dlpack__(stream=0)


def test_the_producer_is_told_the_current_stream_of_its_device(cuda: Any) -> None:
    given = Dlpack(xp.arange(3.0))
    side = tg.cuda.Stream()
    tg.from_dlpack(given)
    with tg.cuda.stream(side):
        tg.from_dlpack(given)
    assert given.streams == [1, side.cuda_stream]


def test_elements_that_lie_across_multiples_of_their_size_are_refused(cuda: Any) -> None:
    array = xp.arange(12, dtype=np.float32)
    with pytest.raises(ShapeError, match=r"elements of float32 .* lie across multiples of their size, 4 bytes"):
        tg.as_tensor(Foreign(array, shape=(3,), strides=(6,)))
    assert tg.as_tensor(Foreign(array, shape=(1, 2), strides=(6, 8))).tolist() == [[0.0, 2.0]]
    bent = StrictArray(np.arange(12, dtype=np.uint8)[1:9].view(np.float32))
    for share in (tg.as_tensor, tg.from_dlpack):
        with pytest.raises(ShapeError, match="lie across"):
            share(bent)


def test_memory_of_others_is_given_back(cuda: Any) -> None:
    host = np.arange(3.0)
    given = StrictArray(host)
    x = tg.from_dlpack(Dlpack(given))
    y = x[1:].clone()
    holds = weakref.ref(host)
    del host, given
    assert holds() is not None and x.tolist() == [0.0, 1.0, 2.0]
    del x
    assert holds() is None and y.tolist() == [1.0, 2.0]


def test_writes_from_outside_are_not_seen_by_the_tape(cuda: Any) -> None:
    array = xp.arange(3.0)
    x = tg.as_tensor(array).requires_grad_()
    loss = (x * x).sum()
    array[0] = 7.0  # as with NumPy's arrays
    loss.backward()
    assert x.grad is not None and x.grad.tolist() == [14.0, 2.0, 4.0]
    loss = (x * x).sum()
    with tg.no_grad():
        tg.as_tensor(x).add_(1.0)
    with pytest.raises(AutogradError, match="in place"):
        loss.backward()


def test_programs_do_not_freeze_what_is_shared(cuda: Any) -> None:
    array = xp.arange(3.0)

    @tg.compile
    def takes(x: tg.Tensor) -> tg.Tensor:
        return x + tg.as_tensor(array)

    with pytest.raises(CompileError, match="another library's StrictArray"):
        takes(tg.zeros(3, device="cuda", dtype=tg.float64))
    for give in (lambda x: (x * 2).__cuda_array_interface__["data"], lambda x: (x * 2).__dlpack__()):
        with pytest.raises(CompileError, match=r"test_exchange\.py"):
            tg.compile(give)(tg.zeros(3, device="cuda"))


def test_what_the_documentation_shows_of_cupy_runs(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", xp)
    text = (Path(__file__).parents[2] / "docs" / "arrays.md").read_text(encoding="utf-8")
    space: dict[str, Any] = {}
    for block in re.findall(r"^```py\n(.*?)^```$", text, re.M | re.S):
        exec(block, space)
    assert space["x"].tolist() == space["data"].tolist() == (np.linspace(0, 1, 5) * 0.9).tolist()
