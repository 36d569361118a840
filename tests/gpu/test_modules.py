"""Every module of ``tensorgrad.nn`` on device ``cuda``, beside the same on the CPU.

The rows are those of the compiler's tests, which fail if a module has none.
"""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.backends import cudnn as permissions
from tests.compiler.test_matrix import EVERY, Case, label, total
from tests.gpu.beside_cpu import on_both


def a_life(row: Any, device: str, dtype: Any, show: Any) -> None:
    """Two steps, an evaluation, and gradients of gradients: results, gradients, and state after each."""
    tg.manual_seed(0)
    case = Case(row)
    module = case.module
    if isinstance(row[0], str) and row[0].startswith("Lazy"):
        module(*case.draw())
    module.to(device, dtype)

    def drawn() -> list[Any]:
        return [x.detach().to(device).requires_grad_(x.requires_grad) for x in case.draw(dtype=dtype)]

    def turn() -> None:
        x = drawn()
        y = module(*x)
        loss = total(y)
        if isinstance(loss, tg.Tensor):
            loss.backward()
        show(y, case.grads(*x), case.state())

    tg.manual_seed(1)
    turn()
    turn()  # gradients of parameters add up, running statistics move on
    module.eval()
    turn()
    module.train()
    x = drawn()
    wanted = [t for t in (*x, *module.parameters()) if t.requires_grad]
    loss = total(module(*x))
    if isinstance(loss, tg.Tensor) and wanted:
        first = tg.autograd.grad(loss, wanted, create_graph=True, allow_unused=True)
        squares = sum((g * g).sum() for g in first if g is not None and g.requires_grad)
        second = tg.autograd.grad(squares, wanted, allow_unused=True) if isinstance(squares, tg.Tensor) else ()
        show(first, second)


@pytest.mark.parametrize("row", EVERY, ids=label)
def test_a_module_computes_what_it_computes_on_the_cpu(row: Any) -> None:
    on_both(lambda device, dtype, show: a_life(row, device, dtype, show))


@pytest.mark.parametrize("row", [row for row in EVERY if "Conv" in str(row[0])], ids=label)
def test_convolutions_without_cudnn(row: Any) -> None:
    with permissions.flags(enabled=False):
        on_both(lambda device, dtype, show: a_life(row, device, dtype, show))
