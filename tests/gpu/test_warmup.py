"""``tensorgrad warmup``: what is compiled ahead is what programs ask for later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tensorgrad import cli
from tensorgrad.backends.cupy import ahead
from tensorgrad.backends.cupy.backend import CupyBackend
from tensorgrad.backends.cupy.kernels import SOURCES, Kernels
from tensorgrad.backends.cupy.launch import Launcher, Prepared
from tensorgrad.dtypes import BY_NAME
from tensorgrad.errors import BackendError
from tensorgrad.ops.elementwise import elementwise
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda

from .programs import OWN


class Compiler:
    """The part of CuPy that compiles: notes what, and on which device."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.names: list[str] = []
        self.current = threading.local()
        self.devices: set[int] = set()
        self.broken = ""
        self.cuda = type("cuda", (), {"compiler": type("compiler", (), {"CompileException": OSError})})

    def noted(self, text: str) -> None:
        if self.broken and self.broken in text:
            raise OSError("no such header")
        self.texts.append(text)
        self.devices.add(self.current.device)

    def RawKernel(self, text: str, name: str) -> Any:
        assert f" {name}(" in text
        return type("RawKernel", (), {"compile": lambda kernel: self.noted(text)})()

    def RawModule(self, *, code: str) -> Any:
        def get_function(module: Any, name: str) -> str:
            if not module.compiled:
                self.noted(code)
                module.compiled = True
            self.names.append(name)
            return name

        return type("RawModule", (), {"get_function": get_function, "compiled": False})()


class Backend(StrictCupyBackend):
    def __init__(self, compiler: Compiler):
        super().__init__()
        self.compiler = compiler
        self._kernels, self._launcher = Kernels(compiler), Launcher(compiler)
        self.xp = compiler

    @contextmanager
    def on(self, index: int | None) -> Iterator[None]:  # type: ignore[override]
        self.compiler.current.device = index
        yield
        self.compiler.current.device = None

    def current_device(self) -> int:
        return 0


def test_every_file_and_formula_is_compiled_once_on_the_device(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    compiler = Compiler()
    with strict_cuda():
        monkeypatch.setattr("tensorgrad.backends.registry.on_device", lambda place: Backend(compiler))
        assert cli.main(["warmup", "cuda:0", "--dtype", "bool"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"cuda:0: {len(compiler.texts)} kernels compiled or found in ")
    assert sorted(compiler.names) == sorted(name for source in SOURCES for name in source.names)
    assert len(compiler.texts) == len(set(compiler.texts)) > len(SOURCES) + 10
    assert compiler.devices == {0}


def test_what_does_not_compile_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    compiler = Compiler()
    compiler.broken = "rankedkeys"
    with strict_cuda():
        monkeypatch.setattr("tensorgrad.backends.registry.on_device", lambda place: Backend(compiler))
        assert cli.main(["warmup", "cuda", "--dtype", "bool"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "tensorgrad warmup: rankedkeys of sort.cu does not compile for device 0: no such header; pip install"
    )
    assert said.count("\n") == 1


def test_a_formula_of_many_inputs_is_derived_for_each_and_for_all() -> None:
    names = [f"x{i}" for i in range(35)]
    many = elementwise(eval(f"lambda {', '.join(names)}: {' * '.join(names)}"), name="many_of_test_warmup")
    assert len(ahead.formulas([many])) == 1 + 35 + 1
    assert len(ahead.formulas([OWN["where"]])) == 1 + 6  # every set but that of the condition alone


def test_the_texts_are_those_that_programs_ask_for() -> None:
    compiler = Compiler()
    ops = [OWN[name] for name in ("mul", "gelu", "sigmoid", "where")]
    jobs = ahead.compilations(ops, ["float32", "bfloat16"], Kernels(compiler), Launcher(compiler))
    compiler.current.device = 0
    for _, compile in jobs:
        compile()
    asked = Compiler()
    launcher = Launcher(asked)
    asked.current.device = 0
    room = np.zeros(4096, np.uint8)
    aligned = room[-room.ctypes.data % 512 :]
    for dtype in ("float32", "bfloat16"):
        for name, keys in (("mul", 2), ("gelu", 1), ("sigmoid", 1), ("mul", 1)):
            given = (dtype,) * keys + ("py:float",) * (len(OWN[name].inputs) - keys)  # type: ignore[attr-defined]
            program = OWN[name].specialize(given)  # type: ignore[attr-defined]
            array = StrictArray(aligned[: 512 * BY_NAME[dtype].itemsize].view(BY_NAME[dtype].np))
            prepared = Prepared(program)
            arrays = [array] * (keys + len(program.outputs))
            launcher.plan(prepared, arrays, (512,), [prepared.most_packed])[1].compile()  # type: ignore[attr-defined]
    assert len(asked.texts) == 8
    assert set(asked.texts) <= set(compiler.texts)


def test_without_a_device_one_line_says_why(capsys: Any) -> None:
    if CupyBackend.why_not() is None:
        pytest.skip("there is a GPU here")
    assert cli.main(["warmup", "cuda"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tensorgrad warmup: device 'cuda' is not available: ")
    assert said.count("\n") == 1
    assert cli.main(["warmup", "cuda", "--dtype", "float3"]) == 1
    assert "dtype 'float3' is not supported" in capsys.readouterr().err


def test_kernels_that_are_built_with_the_package_need_none(capsys: Any) -> None:
    assert cli.main(["warmup", "cpu"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_progress_bar_needs_rich_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(cli._shown(iter([1, 2]), 2, "x")) == [1, 2]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(cli._shown(iter([1, 2]), 2, "x")) == [1, 2]


def test_the_failure_of_a_kernel_is_a_backend_error() -> None:
    compiler = Compiler()
    compiler.broken = "__global__"
    name, compile = Backend(compiler).ahead(("bool",), 0)[0]
    with pytest.raises(BackendError, match=name):
        compile()
