"""Memory that processes share: forked ones inherit it, others are sent its file descriptor and map it too."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from multiprocessing import reduction
from typing import Any

import numpy as np

from ..errors import TensorgradError
from ..ops.storage import owners

__all__ = ["Block", "shared_copy"]


class Block(mmap.mmap):
    """Memory of a file that has no name; freed when no process has it open or mapped."""

    fd: int

    def __new__(cls, fd: int, size: int) -> Block:
        self = super().__new__(cls, fd, size)
        self.fd = fd
        weakref.finalize(self, os.close, fd)
        return self


def _new_block(nbytes: int) -> mmap.mmap:
    size = max(nbytes, 1)  # an empty file can't be mapped
    if os.name == "nt":  # has no descriptors to send; see send()
        return mmap.mmap(-1, size)
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tensorgrad")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return Block(fd, size)


def shared_copy(array: np.ndarray[Any, Any], kind: type) -> np.ndarray[Any, Any]:
    """The array's values in shared memory; from now on tensors of this class are sent so that they share it."""
    reduction.ForkingPickler.register(kind, send)
    copy: np.ndarray[Any, Any] = np.ndarray(array.shape, array.dtype, buffer=_new_block(array.nbytes))
    copy[...] = array
    return copy


def send(tensor: Any) -> tuple[Any, ...]:
    """How ``multiprocessing`` pickles a tensor: by where it lies in shared memory, else as any pickle does.

    Raises TensorgradError for shared memory where it can't be sent: a copy would be a silent change of meaning.
    """
    rebuild, (kind, array, *rest), attributes = tensor.__reduce_ex__(2)
    for owner in owners(array):
        if isinstance(owner, Block):
            return rebuild, (kind, _Sent(owner, array), *rest), attributes
        if isinstance(owner, mmap.mmap) and os.name == "nt":
            raise TensorgradError("memory of share_memory_() can't be sent to another process on Windows.")
    return rebuild, (kind, array, *rest), attributes


class _Sent:
    """An array on its way: unpickling this gives the array."""

    def __init__(self, block: Block, array: np.ndarray[Any, Any]):
        self.block, self.array = block, array

    def __reduce__(self) -> tuple[Any, ...]:
        array, start = self.array, np.frombuffer(self.block, np.uint8)
        offset = array.__array_interface__["data"][0] - start.__array_interface__["data"][0]
        handle = reduction.DupFd(self.block.fd)
        return _attach, (handle, len(self.block), array.dtype, array.shape, array.strides, offset)


def _attach(handle: Any, size: int, dtype: Any, shape: Any, strides: Any, offset: int) -> np.ndarray[Any, Any]:
    from ..nn.parameter import Buffer, Parameter
    from ..tensor import Tensor

    for kind in (Tensor, Parameter, Buffer):  # to be sent on
        reduction.ForkingPickler.register(kind, send)
    return np.ndarray(shape, dtype, buffer=Block(handle.detach(), size), offset=offset, strides=strides)
