"""The list of branches that no test takes: a run that differs from it is told, either way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import branches
from tests.gpu.branches import Branch


def test_the_tests_that_it_runs_are_there() -> None:
    for name in branches.TESTS:
        assert (branches.ROOT / name.removeprefix("--ignore=")).exists(), name


PROGRAM = """
def sign(x):
    if x > 0:
        return 1
    for _ in range(x):
        x += 1
    return 0


def unused():
    return 2


sign(3), sign(0)
"""


def test_a_run_that_differs_from_the_list_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("coverage", reason="coverage.py is not installed: pip install 'tensorgrad[dev]'")
    folder, data = tmp_path / "package", tmp_path / "data"
    folder.mkdir()
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = ["coverage", "run", "--branch", f"--source={folder}", f"--data-file={data}", str(program)]
    subprocess.run([sys.executable, "-m", *command], check=True, cwd=tmp_path)
    monkeypatch.setattr(branches, "SOURCES", folder)
    listed = {
        Branch("program.py", "sign", "x += 1"): "needs a number below zero",
        Branch("program.py", "unused", "return 2"): "nobody calls it",
    }
    monkeypatch.setattr(branches, "LISTED", listed)
    assert branches.main(["--data", str(data)]) == 0
    assert capsys.readouterr().out == "2 not taken, 2 listed\n"
    del listed[Branch("program.py", "unused", "return 2")]
    listed[Branch("program.py", "sign", "return 1")] = "needs a positive number"
    assert branches.main(["--data", str(data)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "program.py: unused: never run: return 2",
        "listed, but taken: program.py: sign: never run: return 1",
    ]
    (folder / "other.py").write_text("x = 1\n")
    assert branches.main(["--data", str(data)]) == 1
    assert "other.py: module: never run: the whole file" in capsys.readouterr().out
