"""``tensorgrad info``: complete with the extension and without it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tensorgrad
from tensorgrad import cli, config
from tensorgrad.backends import registry
from tensorgrad.backends.cpp import backend


def info(capsys) -> str:
    assert cli.main(["info"]) == 0
    return capsys.readouterr().out


def test_info_names_version_backends_and_every_setting_with_its_source(capsys):
    out = info(capsys)
    assert tensorgrad.__version__ in out
    for name in registry.names():
        assert f"\n{name} " in out
    lines = out.splitlines()
    for row in config.table():
        line = next(line for line in lines if line.startswith(row.name + " ") and row.env in line)
        assert row.source in line


def test_columns_start_below_each_other():
    lines = cli._columns([("a", "bbb", "c"), ("aaaa", "b", "c")])
    assert lines == ["a     bbb  c", "aaaa  b    c"]


def test_info_without_the_extension_says_why_in_one_line(capsys, monkeypatch):
    def missing() -> None:
        raise ImportError("the extension was not built: no C++ compiler was found")

    monkeypatch.setattr(backend, "extension", missing)
    line = next(line for line in info(capsys).splitlines() if line.startswith("kernels"))
    assert line.endswith("none: the extension was not built: no C++ compiler was found")


def test_info_with_the_extension_names_instruction_set_threads_and_blas(capsys):
    if backend.CppBackend.why_not() is not None:
        pytest.skip(f"no C++ kernels here: {backend.CppBackend.why_not()}")
    lines = dict(line.split(maxsplit=1) for line in info(capsys).splitlines()[:10] if line)
    assert lines["kernels"] == f"C++ for {backend.extension().isa()}"
    assert int(lines["threads"]) == tensorgrad.get_num_threads()
    assert "OpenBLAS" in lines["blas"]


def test_an_invalid_setting_is_told_in_one_line(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(config.PREFIX)}
    environment["PYTHONPATH"] = os.path.dirname(os.path.dirname(tensorgrad.__file__))  # installed or not
    done = subprocess.run(
        [sys.executable, "-m", "tensorgrad", "info"],
        cwd=tmp_path, env={**environment, "TENSORGRAD_BACKEND": "nonsense"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("tensorgrad info: backend can't be 'nonsense' (from environment TENSORGRAD_BACKEND)")
    assert done.stderr.count("\n") == 1


def test_no_command_prints_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
    assert "command" in capsys.readouterr().err
