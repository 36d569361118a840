"""``tensorgrad run script.py [args]``: an unmodified PyTorch program, computed by tensorgrad."""

from __future__ import annotations

import os
import runpy
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from ..errors import TensorgradError
from . import alias

__all__ = ["run"]


def run(target: str, arguments: Sequence[str] = (), *, module: bool = False) -> None:
    """Run a script, or with ``module`` what ``python -m target`` would run, as ``__main__``.

    For this process and its children ``import torch`` finds tensorgrad. What the program raises comes out as it is,
    SystemExit too. Raises TensorgradError if there is no such file.
    """
    alias.install()
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(alias.PATH) + (os.pathsep + earlier if earlier else "")
    if module:
        sys.argv = [target, *arguments]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(target, run_name="__main__", alter_sys=True)
        return
    path = Path(target)
    if path.is_dir():
        path = path / "__main__.py"
    if not path.is_file():
        raise TensorgradError(f"{target}: no such file")
    sys.argv = [target, *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    # as the interpreter runs a script: the module stays in sys.modules, for pickle and for worker processes
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    exec(compile(path.read_bytes(), str(path), "exec"), main.__dict__)
