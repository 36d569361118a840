"""``tensorgrad info``: complete with the extension and without it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tensorgrad
from tensorgrad import cli, config
from tensorgrad.backends import registry


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


def without_extension(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorgrad._C", None)  # what Python does for a module that can't be imported


def test_info_without_extension_gives_the_note_of_the_build(capsys, monkeypatch, tmp_path):
    without_extension(monkeypatch)
    note = tmp_path / "_build_note.txt"
    note.write_text("no C++ compiler was found:\n  c++ is not on the path\n")
    monkeypatch.setattr(cli, "BUILD_NOTE", note)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    assert "extension   not there: no C++ compiler was found: c++ is not on the path" in info(capsys)


def test_info_without_extension_and_without_note_says_how_to_build(capsys, monkeypatch, tmp_path):
    without_extension(monkeypatch)
    monkeypatch.setattr(cli, "BUILD_NOTE", tmp_path / "nothing")
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    line = next(line for line in info(capsys).splitlines() if line.startswith("extension"))
    assert "not built" in line
    assert "pip install" in line


def test_info_with_an_extension_that_does_not_load_says_why(capsys, monkeypatch, tmp_path):
    without_extension(monkeypatch)
    (tmp_path / "_C.cpython-xyz.so").touch()
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    assert "built but does not load" in info(capsys)


def test_an_invalid_setting_is_told_in_one_line(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(config.PREFIX)}
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
