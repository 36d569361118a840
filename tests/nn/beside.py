"""Comparing two lists of results, ours and PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np


def flat(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [part for item in result for part in flat(item)]
    return [] if result is None else [result]


def close(ours: list[Any], theirs: list[Any], rtol: float = 1e-9, atol: float = 1e-9) -> None:
    """Same number, dtypes, shapes and values."""
    assert len(ours) == len(theirs)
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if b is None or a is None:
            assert a is None and b is None, f"result {k}"
            continue
        a, b = a.detach().numpy(), b.detach().numpy()
        assert a.dtype == b.dtype, f"result {k}: {a.dtype}, PyTorch has {b.dtype}"
        assert a.shape == b.shape, f"result {k}: {a.shape}, PyTorch has {b.shape}"
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=f"result {k}")
