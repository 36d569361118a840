"""``torch.jit``: nothing is compiled, so ``script`` and ``trace`` give back what they are given, with a warning.

A Module or function that runs eagerly gives the scripted one's results. Files of TorchScript can't be read or written.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from ..errors import TensorgradError, missing_from
from ..nn.module import Module

__all__ = [
    "Attribute", "Error", "Final", "ScriptFunction", "ScriptModule", "ScriptWarning", "TracerWarning", "annotate",
    "export", "fork", "freeze", "fuser", "ignore", "interface", "is_scripting", "is_tracing", "isinstance", "load",
    "optimize_for_inference", "optimized_execution", "save", "script", "script_if_tracing", "script_method", "trace",
    "trace_module", "unused", "wait",
]  # fmt: skip

_T = TypeVar("_T")
_isinstance = isinstance


class Error(TensorgradError, RuntimeError):
    """Raised for files of TorchScript, which tensorgrad neither reads nor writes."""


class ScriptWarning(Warning):
    """Given once by ``script``: what it returns runs eagerly."""


class TracerWarning(Warning):
    """Given once by ``trace``: what it returns runs eagerly."""


ScriptModule = Module
ScriptFunction = Callable[..., Any]


def script(obj: Any, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None) -> Any:
    """``obj`` itself, which runs eagerly. Warns so."""
    warnings.warn("jit.script: nothing is compiled; the program runs eagerly.", ScriptWarning, stacklevel=2)
    return obj


def trace(
    func: Any,
    example_inputs: Any = None,
    optimize: Any = None,
    check_trace: bool = True,
    check_inputs: Any = None,
    check_tolerance: float = 1e-5,
    strict: bool = True,
    *,
    example_kwarg_inputs: Any = None,
) -> Any:
    """``func`` itself, which runs eagerly, after one run on the example inputs. Warns so."""
    warnings.warn("jit.trace: nothing is recorded; the program runs eagerly.", TracerWarning, stacklevel=2)
    if example_kwarg_inputs is not None:
        func(**example_kwarg_inputs)
    elif example_inputs is not None:
        func(*(example_inputs if _isinstance(example_inputs, (tuple, list)) else (example_inputs,)))
    return func


def trace_module(mod: Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Module:
    """``mod`` itself, after one run of each method on its example inputs. Warns so."""
    warnings.warn("jit.trace_module: nothing is recorded; the program runs eagerly.", TracerWarning, stacklevel=2)
    for name, example in inputs.items():
        getattr(mod, name)(*(example if _isinstance(example, tuple) else (example,)))
    return mod


def script_if_tracing(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


_script_if_tracing = script_if_tracing


def _overload(fn: _T) -> _T:
    """``fn`` itself: a declaration for PyTorch's compiler."""
    return fn


_overload_method = _overload


def script_method(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def export(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def interface(obj: _T) -> _T:
    """``obj`` itself."""
    return obj


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """A decorator, or the function itself."""
    return drop if callable(drop) else (lambda fn: fn)


def unused(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def annotate(the_type: Any, the_value: _T) -> _T:
    """The value."""
    return the_value


def Attribute(value: _T, type: Any) -> _T:
    """The value."""
    return value


def isinstance(obj: Any, target_type: Any) -> bool:
    """Python's own, for plain types."""
    return _isinstance(obj, target_type)


def is_scripting() -> bool:
    """False."""
    return False


def is_tracing() -> bool:
    """False."""
    return False


def freeze(mod: Module, preserved_attrs: Any = None, optimize_numerics: bool = True) -> Module:
    """``mod`` itself. Raises RuntimeError in training mode, as PyTorch."""
    if mod.training:
        raise RuntimeError("freeze: the module is in training mode; call eval() first.")
    return mod


def optimize_for_inference(mod: Module, other_methods: Any = None) -> Module:
    """``mod`` in evaluation mode."""
    return mod.eval()


@contextmanager
def optimized_execution(should_optimize: bool) -> Iterator[None]:
    """A block in which nothing changes."""
    yield


@contextmanager
def fuser(name: str) -> Iterator[None]:
    """A block in which nothing changes."""
    yield


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of ``func``, computed here and now, for ``wait``."""
    return func(*args, **kwargs)


def wait(future: Any) -> Any:
    """What ``fork`` gave."""
    return future


def save(m: Any, f: Any, _extra_files: Any = None) -> None:
    """Raises Error: TorchScript files are not written. ``save(m.state_dict(), f)`` writes the weights."""
    raise Error("jit.save: TorchScript files are not written. Save the weights: torch.save(m.state_dict(), f).")


def load(f: Any, map_location: Any = None, _extra_files: Any = None, _restore_shapes: bool = False) -> Any:
    """Raises Error: TorchScript files are programs for PyTorch's interpreter."""
    raise Error(
        "jit.load: TorchScript files are not read. In PyTorch, save the weights alone "
        "(torch.save(m.state_dict(), f)) and load them into a Module here."
    )


__getattr__ = missing_from("torch.jit")
