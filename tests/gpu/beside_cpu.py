"""What the same code computes on device ``cuda`` and on the CPU: on the GPU where there is one, else the stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.testing.strict_backend import strict_cuda
from tensorgrad.utils._pytree import tree_flatten

__all__ = ["TOLERANCE", "Shown", "assert_near", "cuda_here", "on_both"]

# Of the largest element of an array, or of 1 where all are smaller: sums in another order, and functions of CUDA's.
TOLERANCE = {tg.float64: 1e-11, tg.float32: 5e-5}


@contextmanager
def cuda_here() -> Iterator[None]:
    """Device ``cuda`` beside NumPy's."""
    with registry.backend("numpy"), strict_cuda() if registry.class_of("cupy").why_not() is not None else nullcontext():
        yield


def assert_near(got: Sequence[Any], want: Sequence[Any], rtol: float, where: str = "") -> None:
    """The same structure: floating point of arrays near, all else equal."""
    assert len(got) == len(want), where
    for place, (a, b) in enumerate(zip(got, want, strict=True)):
        at = f"{where}[{place}]"
        if isinstance(b, (list, tuple)):
            assert_near(a, b, rtol, at)
        elif isinstance(b, np.ndarray):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), at
            scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0.0))) if b.dtype.kind in "fc" else 0.0
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=at)
        else:
            assert a == b, at


class Shown:
    """Copies on the host of what is shown, as it was when it was shown."""

    def __init__(self, device: str):
        self.device = device
        self.seen: list[Any] = []

    def __call__(self, *things: Any) -> None:
        self.seen.append([self.copy(leaf) for leaf in tree_flatten(things)[0]])

    def copy(self, leaf: Any) -> Any:
        if not isinstance(leaf, tg.Tensor):
            return leaf
        assert leaf.device.type == self.device, f"a result is on {leaf.device}"
        return np.array(leaf.detach().cpu().numpy(), copy=True)


def on_both(script: Callable[[str, Any, Shown], None], dtypes: Iterable[Any] = tuple(TOLERANCE)) -> None:
    """What ``script(device, dtype, show)`` shows must not depend on the device, but for ``TOLERANCE``."""
    with cuda_here():
        for dtype in dtypes:
            mine, theirs = Shown("cuda"), Shown("cpu")
            script("cuda", dtype, mine)
            script("cpu", dtype, theirs)
            assert theirs.seen, "nothing was shown"
            assert_near(mine.seen, theirs.seen, TOLERANCE[dtype])
