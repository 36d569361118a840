"""``torch.storage``: the memory behind tensors, and what pickles of PyTorch's tensors call."""

from __future__ import annotations

import io
from typing import Any

from .errors import missing_from
from .ops.storage import TypedStorage, UntypedStorage

__all__ = ["TypedStorage", "UntypedStorage", "_load_from_bytes"]


def _load_from_bytes(b: bytes) -> Any:
    """The storage that ``pickle.dumps`` of a tensor of PyTorch holds, for ``_utils._rebuild_tensor_v2`` to view.

    Nothing in it is run. Raises CheckpointError for other bytes.
    """
    from .serialization import load_storage

    return load_storage(io.BytesIO(b))


__getattr__ = missing_from("torch.storage")
