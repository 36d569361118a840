"""What users catch. Every error of the library is a ``TensorgradError``, and also the built-in exception that
PyTorch raises in the same place, so ``except RuntimeError`` around a wrong shape keeps working."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from typing import Any


class TensorgradError(Exception):
    """The base of every error that tensorgrad raises on purpose."""


class ShapeError(TensorgradError, RuntimeError, ValueError):
    """Raised when shapes do not fit each other, or a shape is impossible (negative, too large)."""


class DTypeError(TensorgradError, NotImplementedError, TypeError):
    """Raised when an op does not take a dtype, or inputs' dtypes do not go together. It is also the RuntimeError that
    PyTorch raises, of the class NotImplementedError where a kernel lacks the dtype."""


class InputDTypeError(DTypeError, ValueError):
    """Raised when a layer's input does not have the dtype of its weights."""


class ArgumentError(TensorgradError, RuntimeError, ValueError):
    """Raised when a number is outside of what a function takes."""


class DivisionByZero(TensorgradError, RuntimeError, ZeroDivisionError):
    """Raised when integers are divided by zero on the CPU."""


class DimError(TensorgradError, IndexError, RuntimeError):
    """Raised when a dimension is out of range for the tensor's rank, or given twice: an IndexError in some places of
    PyTorch, a RuntimeError in others."""


class IndexOutOfRange(TensorgradError, IndexError, RuntimeError):
    """Raised when an index points outside the dimension it indexes: an IndexError in some places of PyTorch, a
    RuntimeError in others."""


class AttentionError(ShapeError, AssertionError):
    """Raised when arguments of multi-head attention do not go together; PyTorch asserts there."""


class DeviceError(TensorgradError, RuntimeError):
    """Raised when inputs live on different devices, or a device does not exist here."""


class BackendError(TensorgradError, RuntimeError):
    """Raised when a backend is unknown, can't be loaded, or can't compute what was asked."""


class ConfigError(TensorgradError, ValueError):
    """Raised for an unknown setting, or a value that a setting does not take."""


class UninitializedError(TensorgradError, RuntimeError, ValueError):
    """Raised when a lazy parameter is used before it has a shape."""


class AutogradError(TensorgradError, RuntimeError):
    """Raised when a gradient can't be computed: freed graph, changed saved tensor, no grad required."""


class ExportError(AutogradError, BufferError):
    """Raised when a tensor can't be handed to another library by DLPack as it is."""


class CompileError(TensorgradError, RuntimeError):
    """Raised when a function can't become a program: it reads a number that it computes, or does what no replay
    repeats."""


class LinAlgError(TensorgradError, RuntimeError):
    """Raised when a factorization or an inverse does not exist, or an iteration does not converge: a singular matrix,
    one that is not positive definite, NaN in the input."""


class MissingExtra(TensorgradError, ImportError):
    """Raised when a feature needs an optional package that is not installed."""


def require_extra(module: str, extra: str) -> types.ModuleType:
    """Import an optional module, or say which extra brings it.

    Args:
        module: the module's dotted name, e.g. ``"ml_dtypes"``.
        extra: the extra of tensorgrad that installs it, e.g. ``"bfloat16"``.
    Returns: the imported module.
    Raises: MissingExtra, one line with the install command, if the module is not installed. An installed module that
        fails on its own import raises its own error: hiding that would send the user to reinstall in vain.
    Example:
        >>> require_extra("numpy", "test").__name__
        'numpy'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise MissingExtra(
            f"{module} is not installed; it comes with an extra: pip install 'tensorgrad[{extra}]'", name=module
        ) from None


def missing_name(name: str) -> str:
    """What is said of a name of PyTorch that tensorgrad does not have."""
    return f"tensorgrad has no {name} (see docs/differences.md)"


def missing_from(namespace: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that names what was asked for: ``missing_from("torch.nn.functional")``."""

    def __getattr__(name: str) -> Any:
        raise AttributeError(missing_name(f"{namespace}.{name}"))

    return __getattr__
