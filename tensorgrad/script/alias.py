"""``import torch`` finds tensorgrad: a finder on ``sys.meta_path``, for this process only.

``torch`` itself becomes a small module that asks tensorgrad for every name and says so when there is none;
``torch.nn`` and all other submodules *are* tensorgrad's, so that a class has one identity however it was imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import missing_from, missing_name
from ..tensor import Tensor
from .tensor_methods import MISSING_METHODS
from .torch_c import Core
from .torch_ops import Ops

__all__ = ["PATH", "VERSION", "install", "installed"]

PATH = Path(__file__).with_name("path")
"""A folder that holds a package ``torch``: put on PYTHONPATH, it does in a child what ``install`` does here."""

VERSION = "2.13.0+tensorgrad"
"""What ``torch.__version__`` says: the PyTorch whose names and semantics these are, and who they really belong to."""


class _Torch(types.ModuleType):
    """The module ``torch``. What it once gave stays in its dict, so that a name is looked up the slow way once."""

    def __getattr__(self, name: str) -> Any:
        import tensorgrad

        try:
            value = getattr(tensorgrad, name)
        except AttributeError:
            if name.startswith("__"):
                raise AttributeError(f"module 'torch' has no attribute {name!r}") from None
            raise AttributeError(missing_name(f"torch.{name}")) from None
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        import tensorgrad

        return sorted({*self.__dict__, *dir(tensorgrad)})


class _Loader(importlib.abc.Loader):
    """Puts the module that exists already, or is made here, where the import statement looks for it."""

    def __init__(self, found: types.ModuleType):
        self.found = found

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        assert module.__spec__ is not None
        sys.modules[module.__spec__.name] = self.found


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch" and not fullname.startswith("torch."):
            return None
        if fullname == "torch":
            found: types.ModuleType = _torch()
        else:
            ours = "tensorgrad" + fullname[len("torch") :]
            try:
                found = importlib.import_module(ours)
            except ModuleNotFoundError as error:
                if error.name is None or not (ours + ".").startswith(error.name + "."):
                    raise  # a module of ours that misses something else
                # under another name in `from torch import x`, or the statement would put its own words here
                name = ours if _asked_by_from() else fullname
                raise ModuleNotFoundError(missing_name(fullname), name=name) from None
        return importlib.machinery.ModuleSpec(fullname, _Loader(found), is_package=True)


class _Last(importlib.abc.MetaPathFinder):
    """Asked when nobody has the module: ``from torch.nn import Missing`` ends here, and names what it asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        name = fullname.rpartition(".")[2]
        if fullname.startswith("tensorgrad.") and not name.startswith("_") and _asked_by_from():
            # under a name that is not the one looked for, or the import statement would put its own words here
            missing = "torch" + fullname[len("tensorgrad") :]
            raise ModuleNotFoundError(missing_name(missing), name=missing)
        return None


def _asked_by_from() -> bool:
    """Whether ``from package import name`` looks for the name as a submodule, in a file that is not tensorgrad's."""
    frame: types.FrameType | None = sys._getframe(2)
    seen = False
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        seen = seen or frame.f_code.co_name == "_handle_fromlist"
        frame = frame.f_back
    return seen and frame is not None and not str(frame.f_globals.get("__name__", "")).startswith("tensorgrad")


class _Ours(importlib.abc.MetaPathFinder):
    """Sees tensorgrad's modules being imported: those that answer to unknown names in Python's words get ours."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("tensorgrad."):
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is not None and isinstance(found.loader, importlib.machinery.SourceFileLoader):
            run = found.loader.exec_module

            def run_and_name(module: types.ModuleType) -> None:
                run(module)
                _name_what_is_missing(module)

            found.loader.exec_module = run_and_name  # type: ignore[method-assign]
        return found


def _name_what_is_missing(module: types.ModuleType) -> None:
    if "__getattr__" not in module.__dict__ and not module.__name__.startswith("tensorgrad.script"):
        module.__dict__["__getattr__"] = missing_from("torch" + module.__name__[len("tensorgrad") :])


class _MissingMethod:
    """A method of PyTorch's Tensor that ours lacks: asking for it says so, and ``hasattr`` is False."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(missing_name(f"torch.Tensor.{self.name}"))


def _torch() -> types.ModuleType:
    module = _Torch("torch", "tensorgrad under PyTorch's name: see tensorgrad.script.alias.")
    module.__dict__["__version__"] = VERSION
    module.__spec__ = importlib.machinery.ModuleSpec("torch", None, is_package=True)
    module.__path__ = []
    # not tensorgrad.ops and tensorgrad._C, which are something else
    module.__dict__.update(ops=Ops(), _C=Core())
    module.__file__ = importlib.import_module("tensorgrad").__file__
    return module


def installed() -> bool:
    """Whether ``import torch`` finds tensorgrad in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def install() -> None:
    """Let ``import torch`` and its submodules find tensorgrad from here on.

    Raises RuntimeError if PyTorch itself was imported before: two libraries can't share one name.
    """
    if installed():
        return
    loaded = sys.modules.get("torch")
    if loaded is not None and Path(str(loaded.__file__)).parent != PATH / "torch":
        raise RuntimeError("PyTorch is imported already; tensorgrad can't take its name. Start a new process.")
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        del sys.modules[name]
    # For packages that look up the version of torch in its metadata, and for processes started by "spawn", which get
    # this list: an installed PyTorch must come behind it.
    if str(PATH) not in sys.path:
        sys.path.insert(0, str(PATH))
    sys.meta_path[:0] = [_Finder(), _Ours()]
    sys.meta_path.append(_Last())
    for name, module in list(sys.modules.items()):
        if name.startswith("tensorgrad."):
            _name_what_is_missing(module)
    for name in MISSING_METHODS:
        setattr(Tensor, name, _MissingMethod(name))
    importlib.import_module("torch")
