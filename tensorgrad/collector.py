"""Python's collector of cycles, paused.

A collection in the midst of many small objects that all stay alive finds nothing and may take longer than the work
that makes them.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused"]

_guard = threading.Lock()
_pauses = 0  # blocks that run, of all threads
_collects = False  # whether the first of them has found the collector on


@contextmanager
def paused() -> Iterator[None]:
    """No collection starts by itself within the block; after the last of such blocks all is as the first has found it.

    ``gc.collect()`` works as ever.
    """
    global _pauses, _collects
    with _guard:
        if not _pauses:
            _collects = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _guard:
            _pauses -= 1
            if not _pauses and _collects:
                gc.enable()
