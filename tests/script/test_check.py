"""``tensorgrad check``: what a program's source says about the names it will miss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorgrad.cli import main
from tensorgrad.script.check import check, uses_of

SOURCE = """
import torch
import torch.nn as nn, torch.utils.frob
from torch import optim as o, frobnicate
from torch.nn import functional as F
import numpy as np
from .torch import mine

def f(x: torch.Tensor):
    y = F.relu(x) + F.frobnicate(x)
    np.frobnicate(torch.cuda.frob().item())
    return o.SGD([y], lr=torch.pi), nn.Linear(1, 2).frobnicate(), y.to_sparse(), torch.float32.is_signed
"""


def test_uses() -> None:
    seen = {use.name: use.line for use in uses_of(SOURCE)}
    assert seen["torch.nn.functional.relu"] == 10 and seen["torch.optim.SGD"] == 12 and seen["torch.Tensor"] == 9
    assert "torch.mine" not in seen and not any("np" in name for name in seen)


def test_missing_names_are_listed_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "program.py"
    path.write_text(SOURCE)
    assert main(["check", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == [
        f"{path}:{line}: tensorgrad has no torch.{name}"
        for line, name in (
            (3, "utils.frob"), (4, "frobnicate"), (10, "nn.functional.frobnicate"), (11, "cuda.frob"),
            (12, "Tensor.to_sparse"),
        )
    ]  # fmt: skip
    assert lines[-1].startswith("1 file, ") and "5 of them missing" in lines[-1]


def test_a_whole_program_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "good.py").write_text("import torch\nprint(torch.ones(2).sum().item())\n")
    (tmp_path / "bad.py").write_text("def (:\n")
    assert main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "bad.py: can't be read" in out and out.endswith("2 files, 2 names of torch used, all of them there\n")


def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_missing_methods_are_missing() -> None:
    """The list of Tensor methods that we lack, beside PyTorch's and ours."""
    torch = pytest.importorskip("torch")
    import tensorgrad as tg
    from tensorgrad.script.tensor_methods import MISSING_METHODS

    lacking = {n for n in dir(torch.Tensor) if not n.startswith("_") and not hasattr(tg.Tensor, n)}
    assert lacking == MISSING_METHODS


def test_report_of_nothing() -> None:
    assert list(check([]).lines()) == ["0 files, 0 names of torch used, all of them there"]
