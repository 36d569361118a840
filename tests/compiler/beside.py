"""A script run twice, as it is and with its functions compiled: what both show must be the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.compiler.compiled import Compiled, everything
from tensorgrad.utils._pytree import tree_flatten

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]

Script = Callable[[Callable[..., Any], Any], Any]


class Shown:
    """What a script shows: copies at once, and what the same objects hold at the end."""

    def __init__(self, held: bool):
        self.held = held
        self.seen: list[Any] = []  # (whether other sums' order would do, copies)
        self.objects: list[Any] = []

    def __call__(self, *things: Any, near: bool = False) -> None:
        leaves = tree_flatten(things)[0]
        self.seen.append((near, [_copy(leaf) for leaf in leaves]))
        if self.held:
            self.objects.append((near, leaves))

    def all(self) -> list[Any]:
        return [*self.seen, *((near, [_copy(leaf) for leaf in leaves]) for near, leaves in self.objects)]


def _copy(leaf: Any) -> Any:
    if isinstance(leaf, tg.Tensor):
        state = (leaf.requires_grad, leaf.is_leaf, leaf.dtype, tuple(leaf.shape))
        array = leaf.detach()
        if array.dtype in (tg.bfloat16, tg.float16):
            array = array.float()
        return state, np.array(array.numpy(), copy=True)
    return leaf


def beside(
    script: Script, backend: str, *, held: bool = False, exact: bool | None = None, **options: Any
) -> list[Compiled]:
    """Run ``script(compiled, show)`` both ways and compare; the compiled functions that it made.

    ``compiled(f)`` is ``f`` or ``tg.compile(f)``. ``held``: what is shown is kept, and compared once more at the end.
    ``exact``: whether bits must be equal; by default on numpy, and 1e-5 of the largest element elsewhere.
    """
    if exact is None:
        exact = backend == "numpy"
    with tg.backend(backend):
        tg.manual_seed(3)
        eager = Shown(held)
        script(lambda f: f, eager)
        tg.manual_seed(3)
        made: list[Any] = []
        fast = Shown(held)
        before = set(everything)

        def compiled(f: Any) -> Any:
            made.append(tg.compile(f, **options))
            return made[-1]

        script(compiled, fast)
        found = [one for one in everything if one not in before]
        compare(fast.all(), eager.all(), exact)
    return found


def compare(fast: list[Any], eager: list[Any], exact: bool, rtol: float = 1e-5) -> None:
    assert len(fast) == len(eager)
    for k, ((_, now), (near, then)) in enumerate(zip(fast, eager, strict=True)):
        assert len(now) == len(then), f"shown {k}"
        for i, (a, b) in enumerate(zip(now, then, strict=True)):
            where = f"shown {k}, part {i} of {len(then)}"
            if not isinstance(b, tuple):
                assert type(a) is type(b) and (a == b or a != a), f"{where}: {a!r}, eager {b!r}"
                continue
            assert isinstance(a, tuple), f"{where}: {a!r}, eager {b!r}"
            assert a[0] == b[0], f"{where}: {a[0]}, eager {b[0]}"
            if a[1].tobytes() == b[1].tobytes():
                continue
            assert not exact or near, f"{where}: {a[1]!r}, eager {b[1]!r}"
            if b[1].size:
                real = b[1][np.isfinite(b[1])] if b[1].dtype.kind in "fc" else b[1]
                size = float(np.abs(real).max()) if real.size and b[1].dtype.kind in "fc" else 0.0
                np.testing.assert_allclose(a[1], b[1], rtol=rtol, atol=rtol * size, err_msg=where)
