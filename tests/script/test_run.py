"""``tensorgrad run``: programs that name torch, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tensorgrad as tg
from tensorgrad.script.run import run

ROOT = Path(tg.__file__).parents[1]


def program(tmp_path: Path, text: str, *arguments: str, module: bool = False) -> subprocess.CompletedProcess[str]:
    """What a program does under ``tensorgrad run``."""
    path = tmp_path / "program.py"
    path.write_text(text)
    command = [sys.executable, "-m", "tensorgrad", "run", *(["-m", "program"] if module else [str(path)]), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)


NAMES = """
import sys
import torch, torch.nn as nn, torch.nn.functional as F, torch.utils.data as data
from torch import optim, Tensor
from torch.nn import Linear
from torch.optim import lr_scheduler
from torch.nn.modules.conv import _ConvNd
from helper import double

assert "tensorgrad" in torch.__version__ and torch.__version__ > "2"
assert torch.nn is nn and nn.functional is F and nn.Linear is Linear and issubclass(nn.Conv2d, _ConvNd)
assert sys.argv[1:] == ["--lr", "0.1"], sys.argv
assert __name__ == "__main__" and sys.modules["__main__"].Net is Net if "Net" in globals() else True

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Linear(2, 1)
    def forward(self, x):
        return F.relu(self.layer(x))

import pickle
net = pickle.loads(pickle.dumps(Net()))
assert isinstance(net, Net) and isinstance(net(double(torch.ones(1, 2))), Tensor)

said = []
for ask in (lambda: torch.frobnicate, lambda: F.frobnicate, lambda: nn.Frobnicate, lambda: torch.linalg.frobnicate,
            lambda: torch.cuda.frobnicate, lambda: torch.optim.lr_scheduler.frobnicate,
            lambda: torch.ops.torchvision.nms(1), lambda: torch.ones(1).to_sparse()):
    try:
        ask()
    except AttributeError as error:
        said.append(str(error))
for statement in ("import torch.frobnicate", "from torch.nn import Frobnicate", "from torch import frobnicate"):
    try:
        exec(statement)
    except ModuleNotFoundError as error:
        said.append(str(error))
print("\\n".join(said))

import subprocess
subprocess.run([sys.executable, "-c", "import torch.nn; print('child', torch.__version__)"], check=True)
"""


def test_names(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import torch\ndef double(x):\n    return torch.add(x, x)\n")
    done = program(tmp_path, NAMES, "--lr", "0.1")
    assert done.returncode == 0, done.stderr
    asked = ["frobnicate", "nn.functional.frobnicate", "nn.Frobnicate", "linalg.frobnicate", "cuda.frobnicate",
             "optim.lr_scheduler.frobnicate", "ops.torchvision.nms", "Tensor.to_sparse", "frobnicate", "nn.Frobnicate",
             "frobnicate"]  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:-1] == [f"tensorgrad has no torch.{name} (see docs/differences.md)" for name in asked]
    assert lines[-1].startswith("child 2.") and "tensorgrad" in lines[-1]


SPAWNS = """
import torch, torch.multiprocessing as mp
from torch import nn

def work(rank, model):
    with torch.no_grad():
        model.weight.fill_(rank + 1)
    print("child", torch.__version__, flush=True)

if __name__ == "__main__":
    model = nn.Linear(1, 1).share_memory()
    mp.spawn(work, args=(model,), nprocs=1)
    print(model.weight.item())
"""


def test_spawned_processes_find_tensorgrad_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "torch.py").write_text("raise RuntimeError('PyTorch was imported')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    done = program(tmp_path, SPAWNS)
    assert done.returncode == 0, done.stderr
    child, weight = done.stdout.splitlines()
    assert child.startswith("child 2.") and child.endswith("tensorgrad") and weight == "1.0"


def test_a_missing_name_is_raised_where_it_is_asked_for(tmp_path: Path) -> None:
    done = program(tmp_path, "import torch\nx = torch.ones(2)\nprint(x.sum().item())\ntorch.frobnicate(x)\n")
    assert done.returncode == 1 and done.stdout == "2.0\n"
    assert 'program.py", line 4' in done.stderr
    assert done.stderr.endswith("AttributeError: tensorgrad has no torch.frobnicate (see docs/differences.md)\n")


def test_module_and_exit_status(tmp_path: Path) -> None:
    done = program(
        tmp_path, "import sys, torch\nprint(torch.ones(1).item(), sys.argv[1])\nsys.exit(3)", "x", module=True
    )
    assert (done.returncode, done.stdout) == (3, "1.0 x\n"), done.stderr


def test_no_such_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "tensorgrad", "run", str(tmp_path / "none.py")], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 1 and done.stderr.strip().endswith("none.py: no such file")


def test_pytorch_in_the_same_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        __file__ = "/elsewhere/torch/__init__.py"

    monkeypatch.setitem(sys.modules, "torch", Other)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="PyTorch is imported already"):
        run("program.py")
