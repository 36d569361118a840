"""``compile``: a function whose runs are written down as programs, and ``torch.compiler``'s names.

Example:
    >>> import tensorgrad as tg
    >>> @tg.compile
    ... def f(x):
    ...     return (x * 2 + 1).sum()
    >>> f(tg.ones(3)).item(), f(tg.zeros(3)).item()
    (9.0, 3.0)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..dispatch import listeners
from ..errors import missing_from
from .number import Scalar, scalar

__all__ = ["Scalar", "allow_in_graph", "assume_constant_result", "compile", "cudagraph_mark_step_begin", "disable",
           "is_compiling", "is_dynamo_compiling", "is_exporting", "list_backends", "load", "reset", "scalar",
           "stats"]  # fmt: skip

_F = TypeVar("_F", bound=Callable[..., Any])
_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_BACKENDS = ("inductor", "tape")
_OPTIONS = ("limit",)


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = "tape",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    fallback: bool = False,
) -> Any:
    """A function, or a Module, that does the same faster: from its second call on it replays what the first one did.

    The first call runs ``model`` as it is, and every op that passes is written down: forward, backward, an optimizer's
    step. The program that results is made smaller, its memory is planned, and further calls with arguments of the same
    form run it without Python. A call runs as the first one did whenever something differs that a program rests on:
    shapes, dtypes and strides of tensors, values of other arguments, grad mode, whether modules train, and numbers and
    objects that the function reaches through its closure and its globals.

    Args:
        model: a function, a method, or a Module; without it ``compile`` is a decorator.
        fullgraph: True refuses ``fallback``; programs are always whole.
        dynamic: True: programs that differ in the size of a batch are one, which two sizes show; sizes between them run
            no Python, and one beyond them is run once to confirm it. None and False: a program for each shape.
        backend: "tape", or "inductor", which is what PyTorch calls its own.
        mode: one of PyTorch's; they mean the same here.
        options: {"limit": the most programs that are kept of one function, 8}.
        disable: return ``model`` as it is.
        fallback: what can't be captured runs as it is, instead of raising CompileError.
    Returns: what to call instead. It has ``programs``, ``forget()``, ``stats()``; of a Module it is one, with
    ``_orig_mod``.
    Raises: TypeError if ``model`` can't be called, or a switch is no bool; ValueError for an unknown mode, option or
        backend, or for options that exclude each other. Calls raise CompileError for what no program can do: Python
        reads a number that the function computes, a shape depends on data, the run changes what it rests on.
    Example:
        >>> import tensorgrad as tg
        >>> model = tg.nn.Linear(3, 1)
        >>> optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        >>> @tg.compile
        ... def step(x, y):
        ...     optimizer.zero_grad()
        ...     loss = tg.nn.functional.mse_loss(model(x), y)
        ...     loss.backward()
        ...     optimizer.step()
        ...     return loss
        >>> losses = [step(tg.ones(4, 3), tg.zeros(4, 1)).item() for _ in range(5)]
        >>> losses[4] < losses[0]
        True
    """
    if mode is not None and mode not in _MODES:
        raise ValueError(f"compile: mode must be one of {', '.join(_MODES)}, got {mode!r}.")
    if mode is not None and options is not None:
        raise ValueError("compile: give mode or options, not both.")
    if backend not in _BACKENDS:
        raise ValueError(f"compile: backend must be one of {', '.join(_BACKENDS)}, got {backend!r}.")
    for name, given in (("fullgraph", fullgraph), ("disable", disable), ("fallback", fallback)):
        if not isinstance(given, bool):
            raise TypeError(f"compile: {name} must be True or False, got {given!r}.")
    if not (dynamic is None or isinstance(dynamic, bool)):
        raise TypeError(f"compile: dynamic must be None, True or False, got {dynamic!r}.")
    if not (options is None or isinstance(options, dict)):
        raise TypeError(f"compile: options must be None or a dict, got {options!r}.")
    if fullgraph and fallback:
        raise ValueError("compile: fullgraph and fallback exclude each other.")
    for name in options or ():
        if name not in _OPTIONS:
            raise ValueError(f"compile: there is no option {name!r}; there is {', '.join(_OPTIONS)}.")
    limit = (options or {}).get("limit", 8)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"compile: the option limit must be a number from 1 on, got {limit!r}.")
    if model is None:
        return lambda wrapped: compile(
            wrapped, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, options=options, disable=disable,
            fallback=fallback,
        )  # fmt: skip
    if not callable(model):
        raise TypeError(f"compile: expected a Module or a function, got {type(model).__name__}.")
    if disable:
        return model
    from ..nn.module import Module
    from .compiled import Compiled
    from .module import CompiledModule

    if isinstance(model, (Compiled, CompiledModule)):
        return model
    if getattr(model, "_compile_disabled", False):
        return model
    if isinstance(model, Module):
        return CompiledModule(model, limit=limit, dynamic=bool(dynamic), fallback=fallback)
    return Compiled(model, limit=limit, dynamic=bool(dynamic), fallback=fallback)


def load(path: Any, *, backend: str | None = None) -> Any:
    """A function from a file that ``save`` wrote, without the source of what was saved; see ``compiler.loaded``.

    Args:
        path: the file.
        backend: who computes: "numpy", "cpp", ...; the backend in use by default.
    Returns: a function of the saved one's arguments; it has ``program``, ``state``, ``explain()``, ``draw(path)``.
    Raises: FileError for a file that is damaged, or none of this kind.
    """
    from .loaded import load as load_program

    return load_program(path, backend=backend)


def stats() -> dict[str, dict[str, Any]]:
    """Of every compiled function that is alive, by name: calls, captures, replays, programs, evicted, eager and why.

    Example:
        >>> import tensorgrad as tg
        >>> f = tg.compile(lambda x: x + 1)
        >>> _ = f(tg.ones(2)), f(tg.ones(2))
        >>> f.stats()["captures"], f.stats()["replays"]
        (1, 1)
    """
    from .compiled import everything

    found: dict[str, dict[str, Any]] = {}
    for one in list(everything):
        name = base = getattr(one.function, "__qualname__", type(one.function).__name__)
        number = 2
        while name in found:
            name, number = f"{base} ({number})", number + 1
        found[name] = one.stats()
    return found


def reset() -> None:
    """Drop every program of every compiled function; the next calls capture anew."""
    from .compiled import everything

    for one in list(everything):
        one.forget()


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """``fn``, which ``compile`` leaves as it is; a decorator when called without it. Within another compiled function
    it is a part of that one's programs."""
    if fn is None:
        return lambda wrapped: disable(wrapped, recursive, reason=reason)
    from .compiled import Compiled

    if isinstance(fn, Compiled):
        return fn.function
    try:
        fn._compile_disabled = True
    except AttributeError:  # a built-in or a bound method takes no attributes
        return lambda *args, **kwargs: fn(*args, **kwargs)
    return fn


def allow_in_graph(fn: _F) -> _F:
    """``fn`` itself: whatever it calls is captured."""
    return fn


def assume_constant_result(fn: _F) -> _F:
    """``fn`` itself: what Python computes while a program is written is constant in it."""
    return fn


def is_compiling() -> bool:
    """Whether a program is being written of what runs now in this thread."""
    from .trace import Trace

    return any(isinstance(one, Trace) for one in listeners())


def is_exporting() -> bool:
    """False: programs are saved after they were written, see ``Program.save``."""
    return False


is_dynamo_compiling = is_compiling


def cudagraph_mark_step_begin() -> None:
    """Nothing to mark: results that somebody holds are never overwritten."""


def list_backends(exclude_tags: Any = ("debug", "experimental")) -> list[str]:
    """What ``compile`` can be told as its backend."""
    return list(_BACKENDS)


__getattr__ = missing_from("torch.compiler")
