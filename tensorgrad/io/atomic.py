"""Writing files so that a crash leaves the old content or the new, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import TensorgradError

__all__ = ["FolderMissing", "atomic_file", "write_atomically"]


class FolderMissing(TensorgradError, RuntimeError, FileNotFoundError):
    """Raised when the folder of a file that is to be written does not exist."""


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file to write; when the block ends without an error, it is at ``path``, and on the disk.

    It is written under a temporary name in the same folder, then renamed. What is no regular file (a pipe, a device)
    is written as it is. Raises FolderMissing if there is no folder for it.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    if target.exists() and not target.is_file() and not target.is_dir():
        with open(target, "wb") as file:
            yield file
        return
    if not target.parent.is_dir():
        raise FolderMissing(f"{os.fspath(path)}: the folder {target.parent} does not exist; make it first.")
    if target.is_dir():
        raise IsADirectoryError(f"{os.fspath(path)} is a folder; give the name of a file.")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a checkpoint is as readable as any file the user writes
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk too
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` at once, or not at all; see ``atomic_file``."""
    with atomic_file(path) as file:
        file.write(content)
