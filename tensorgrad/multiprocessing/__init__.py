"""``torch.multiprocessing``: Python's ``multiprocessing``, whose pickling tensors take part in, and ``spawn``.

Tensors are sent as copies, but for those that ``share_memory_()`` moved: what one process writes to them, all see.
"""

from __future__ import annotations

import multiprocessing as _multiprocessing
from collections.abc import Callable
from multiprocessing import *  # noqa: F403
from typing import Any

__all__ = [*_multiprocessing.__all__, "get_all_sharing_strategies", "get_sharing_strategy", "set_sharing_strategy",
           "spawn"]  # fmt: skip


def get_all_sharing_strategies() -> set[str]:
    """How tensors reach another process: by copy."""
    return {"copy"}


def get_sharing_strategy() -> str:
    """``"copy"``."""
    return "copy"


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepts PyTorch's two names, between which results do not differ. Raises ValueError for others."""
    if new_strategy not in ("copy", "file_descriptor", "file_system"):
        raise ValueError(f"set_sharing_strategy: unknown strategy {new_strategy!r}.")


def spawn(
    fn: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True, daemon: bool = False,
    start_method: str = "spawn",
) -> Any:  # fmt: skip
    """Run ``fn(i, *args)`` in ``nprocs`` processes. Returns None after joining them, else the list of processes.

    Raises RuntimeError, naming the process, if one of them fails.
    """
    context = _multiprocessing.get_context(start_method)
    processes = [context.Process(target=fn, args=(i, *args), daemon=daemon) for i in range(nprocs)]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    if not join:
        return processes
    for i, process in enumerate(processes):
        process.join()
        if process.exitcode:
            for other in processes:
                other.terminate()
            raise RuntimeError(f"spawn: process {i} ended with exit code {process.exitcode}.")
    return None
