"""``torch.jit.annotations``: types of arguments, some of which may be one value or a list of that many."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple, Union  # noqa: UP035 - the names are what is asked for

from ..errors import missing_from

__all__ = ["BroadcastingList1", "BroadcastingList2", "BroadcastingList3", "Dict", "List", "Optional", "Tuple", "Union"]


class _Broadcasting:
    """``BroadcastingList2[int]``: an int or a list of two; a note for readers."""

    def __getitem__(self, kind: Any) -> Any:
        return kind


BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = _Broadcasting()

__getattr__ = missing_from("torch.jit.annotations")
