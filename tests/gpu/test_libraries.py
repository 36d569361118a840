"""Finding NVIDIA's libraries, and the errors that say what is missing: with C's library, which every machine has."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tensorgrad.backends.cupy import cublas, cublaslt, cudnn
from tensorgrad.errors import BackendError

# not the process itself, which has cuBLAS's functions once another test has loaded that
LIBRARY = ctypes.util.find_library("c")
LABS = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The libraries that were looked for. What is found is C's library."""
    names: list[str] = []

    def look(name: str) -> Any:
        names.append(name)
        return SimpleNamespace(abs_path=LIBRARY)

    pathfinder = ModuleType("cuda.pathfinder")
    pathfinder.load_nvidia_dynamic_lib = look  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    return names


def test_functions_are_those_of_the_library(found: list[str]) -> None:
    functions = cublas.load_functions("cublas", "cuBLAS", {"labs": LABS, "labs_64": LABS})
    assert functions["labs"](-3) == 3
    assert set(functions) == {"labs"}, "those for 64-bit sizes only where there are some"
    assert found == ["cublas"]


@pytest.mark.parametrize(
    ("load", "name", "spoken"), [(cublas.load, "cublas", "cuBLAS"), (cublaslt.load, "cublasLt", "cuBLASLt")]
)
def test_a_library_without_a_function_is_too_old(load: Any, name: str, spoken: str, found: list[str]) -> None:
    said = rf"the {spoken} at {re.escape(str(LIBRARY))} has no function {name}\w+; install one of CUDA 12"
    with pytest.raises(BackendError, match=said):
        load()
    assert found == [name]


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (cublas.load, r"cuBLAS was not found \(no such file\); install nvidia-cublas"),
        (cublaslt.load, r"cuBLASLt was not found \(no such file\); install nvidia-cublas"),
        (cudnn.load, r"cuDNN was not found \(no such file\)"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    load: Any, said: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(name: str) -> Any:
        raise RuntimeError("no such file\nlooked in many folders")

    monkeypatch.setattr(sys.modules["cuda.pathfinder"], "load_nvidia_dynamic_lib", look)
    with pytest.raises(BackendError, match=said) as error:
        load()
    assert "\n" not in str(error.value)


def test_the_frontend_of_cudnn_is_asked_for_its_version(found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    frontend = ModuleType("cudnn")
    monkeypatch.setitem(sys.modules, "cudnn", frontend)
    frontend.backend_version = lambda: 91900  # type: ignore[attr-defined]
    assert cudnn.load() is frontend
    assert found == ["cublasLt", "cudnn"]
    frontend.backend_version = lambda: 8907  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="cuDNN 8907 is too old: 9 or newer is needed"):
        cudnn.load()
