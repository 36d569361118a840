"""The backend of device ``cuda``: why it can't run, and which device a kernel runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.backends.cupy import backend as cupy_backend
from tensorgrad.backends.cupy.backend import CupyBackend
from tensorgrad.backends.cupy.kernels import SOURCES, Kernels
from tensorgrad.backends.cupy.launch import Launcher, dense_layout
from tensorgrad.backends.cupy.printer import kernel, numbers, source_file, unit
from tensorgrad.errors import BackendError, DeviceError
from tensorgrad.expr import lower, symbol
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import REFERENCES, strict_cuda
from tensorgrad.testing.strict_namespace import xp


class _Cuda:
    """``cupy`` with a driver that answers as it is told."""

    class cuda:
        class runtime:
            CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), {})
            answer: Any = 0

            @classmethod
            def getDeviceCount(cls) -> int:
                if isinstance(cls.answer, Exception):
                    raise cls.answer
                return cls.answer  # type: ignore[no-any-return]


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_backend, "find_spec", lambda name: None)
    reason = CupyBackend.why_not()
    assert reason is not None
    assert "pip install 'tensorgrad[cuda]'" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("answer", "said"), [(_Cuda.cuda.runtime.CUDARuntimeError("too old"), "too old"), (0, "sees no device"), (2, None)]
)
def test_a_missing_driver_and_missing_devices(answer: Any, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_backend, "find_spec", lambda name: object())
    monkeypatch.setattr(cupy_backend, "_cupy", lambda: _Cuda)
    monkeypatch.setattr(_Cuda.cuda.runtime, "answer", answer)
    reason = CupyBackend.why_not()
    assert (reason is None) if said is None else (said in str(reason) and "\n" not in str(reason))


def test_a_package_that_does_not_import_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []

    def load(name: str) -> Any:
        imported.append(name)
        if name == "cupy":
            raise ImportError("libcudart.so.13: no such file")

    monkeypatch.setattr(cupy_backend, "import_module", load)
    monkeypatch.setattr(cupy_backend, "find_spec", lambda name: object())
    reason = str(CupyBackend.why_not())
    assert "cupy does not import (libcudart.so.13: no such file); pip install" in reason
    assert imported == ["ml_dtypes", "cupy"], "CuPy takes bfloat16 only if ml_dtypes was imported before it"
    monkeypatch.setattr(cupy_backend, "find_spec", lambda name: object() if name == "cupy" else None)
    assert CupyBackend.why_not() == reason and imported[2:] == ["cupy"]


def test_a_backend_is_made_of_cupy_and_launches_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[tuple[Any, ...]] = []
    modules: list[str] = []

    class RawModule:
        def __init__(self, *, code: str):
            modules.append(code)

        def get_function(self, name: str) -> Any:
            return lambda grid, block, arguments: launches.append((name, grid, block, arguments))

    with strict_cuda(devices=2):
        monkeypatch.setattr(xp, "RawModule", RawModule, raising=False)
        monkeypatch.setattr(xp, "__version__", "14.2.0", raising=False)
        monkeypatch.setattr(cupy_backend, "_cupy", lambda: xp)
        backend = CupyBackend()
        assert backend.device_count() == 2 and backend.array_type is StrictArray
        assert backend.describe() == "CuPy 14.2.0, 2 devices: strict stand-in"
        backend._kernels.launch("uniform_float32", 1000, 7, -1, np.float32(0.5))
        backend._kernels.launch("uniform_float32", 1 << 40, 2**64 - 1, block=32)
        backend._kernels.launch("normal_float32", 0)
    (name, grid, block, arguments), (_, large, narrow, (word,)) = launches
    assert (name, grid, block) == ("uniform_float32", (4,), (256,)) and arguments == (7, -1, 0.5)
    assert [type(x) for x in arguments] == [np.int64, np.int64, np.float32]
    assert large[0] < 1 << 31 and narrow == (32,) and word == -1 and type(word) is np.int64
    assert len(modules) == 1 and "__global__" in modules[0], "a text is compiled once, for all that it defines"


def test_without_a_device_the_user_is_told_why() -> None:
    if CupyBackend.why_not() is None:
        pytest.skip("there is a GPU here")
    with pytest.raises(DeviceError, match=r"device 'cuda' is not available: .*can't run here"):
        registry.on_device("cuda")
    with pytest.raises(BackendError, match="can't run here"):
        registry.get("cupy")


def test_the_stand_in_leaves_nothing_behind() -> None:
    before = dict(registry._loaded)
    with strict_cuda() as backend:
        assert registry.on_device("cuda") is backend
        assert registry.get_backend("cuda") == "cupy"
    assert registry._loaded == before


def test_arrays_are_made_on_the_device_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[int | None] = []
    made: list[int | None] = []

    @contextmanager
    def on(index: int | None) -> Iterator[None]:
        current.append(index)
        yield
        current.pop()

    with strict_cuda() as backend:
        monkeypatch.setattr(backend, "on", on)
        for name in ("random_uniform", "random_normal", "random_integers", "random_permutation", "full"):
            kernel = getattr(backend.raw, name)

            def seen(*inputs: Any, _kernel: Any = kernel, **attrs: Any) -> Any:
                made.append(current[-1] if current else -1)
                return _kernel(*inputs, **attrs)

            monkeypatch.setitem(backend.raw.__dict__, name, seen)
        for make in (
            lambda: tg.rand(2, device="cuda:0"),
            lambda: tg.randn(2, device="cuda:0"),
            lambda: tg.randint(5, (2,), device="cuda:0"),
            lambda: tg.randperm(3, device="cuda:0"),
            lambda: tg.zeros(2, device="cuda:0"),
            lambda: tg.ones_like(tg.zeros(2, device="cuda:0")),
        ):
            make()
        assert made == [0] * 7
        tg.rand(2, device="cuda")
        assert made[7:] == [-1], "on the current device, which stays what it is"


def test_cupy_takes_the_kernels_without_a_driver() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'tensorgrad[cuda]'")
    program = lower([symbol(0) * symbol(1)], ("float32", "py:float"))
    text = unit([program], [kernel(program, dense_layout(program), "formula")])
    assert isinstance(Launcher(cupy).compile(text, "formula"), cupy.RawKernel)


def test_numbers_are_passed_in_every_type_they_are_used_in() -> None:
    program = lower([symbol(0) * symbol(2), symbol(1) * symbol(2)], ("float32", "float64", "py:float"))
    assert set(numbers(program)) == {(2, "f32"), (2, "f64")}


def test_every_kernel_has_a_reference_and_a_source() -> None:
    for source in SOURCES:
        assert source.text().count("__global__") >= 1
        assert all(name in REFERENCES for name in source.names)
    assert "namespace tg" in source_file("core.cuh")
    with pytest.raises(TypeError, match="no CUDA kernel 'accumulate_bool'"):
        Kernels(None).launch("accumulate_bool", 1)
