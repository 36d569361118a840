"""``torch.distributed``: training on several processes is not there yet; a program of one process runs as it is.

``is_available()`` is False, and what asks only for the size of the world is answered for one process. Starting a group
of more raises and says so.
"""

from __future__ import annotations

import os
from typing import Any

from ..errors import BackendError, missing_from

__all__ = [
    "ReduceOp", "all_reduce", "barrier", "broadcast", "destroy_process_group", "get_backend", "get_rank",
    "get_world_size", "init_process_group", "is_available", "is_initialized", "is_torchelastic_launched",
]  # fmt: skip

_started = [False]


class ReduceOp:
    """The names of reductions."""

    SUM, AVG, PRODUCT, MIN, MAX = "sum", "avg", "product", "min", "max"


def is_available() -> bool:
    """False: there is no communication between processes."""
    return False


def is_initialized() -> bool:
    """Whether ``init_process_group`` was called for a group of one."""
    return _started[0]


def is_torchelastic_launched() -> bool:
    """Whether a launcher of PyTorch started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: Any = None,
    world_size: int = -1,
    rank: int = -1,
    store: Any = None,
    group_name: str = "",
    pg_options: Any = None,
    device_id: Any = None,
) -> None:
    """Start a group of one process. Raises BackendError for more: there is no communication between processes."""
    size = world_size if world_size >= 0 else int(os.environ.get("WORLD_SIZE", "1"))
    if size != 1:
        raise BackendError(
            f"init_process_group: {size} processes were asked for, and tensorgrad has no communication between "
            "processes. Run the program as one process."
        )
    _started[0] = True


def destroy_process_group(group: Any = None) -> None:
    """End the group of one."""
    _started[0] = False


def _need_group(name: str) -> None:
    if not _started[0]:
        raise ValueError(f"{name}: the default process group was not initialized; call init_process_group first.")


def get_rank(group: Any = None) -> int:
    """0. Raises ValueError before ``init_process_group``."""
    _need_group("get_rank")
    return 0


def get_world_size(group: Any = None) -> int:
    """1. Raises ValueError before ``init_process_group``."""
    _need_group("get_world_size")
    return 1


def get_backend(group: Any = None) -> str:
    """``"single"``: a group of one needs no backend. Raises ValueError before ``init_process_group``."""
    _need_group("get_backend")
    return "single"


def barrier(group: Any = None, async_op: bool = False, device_ids: Any = None) -> None:
    """Nobody to wait for. Raises ValueError before ``init_process_group``."""
    _need_group("barrier")


def all_reduce(tensor: Any, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> None:
    """The sum over one process: ``tensor`` stays as it is. Raises ValueError before ``init_process_group``."""
    _need_group("all_reduce")


def broadcast(tensor: Any, src: int = 0, group: Any = None, async_op: bool = False) -> None:
    """From one process to itself. Raises ValueError before ``init_process_group``, and for another source than 0."""
    _need_group("broadcast")
    if src != 0:
        raise ValueError(f"broadcast: there is one process, of rank 0; got src={src}.")


__getattr__ = missing_from("torch.distributed")
