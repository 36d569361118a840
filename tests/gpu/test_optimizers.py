"""Every optimizer on device ``cuda``, beside the same on the CPU.

The rows are those of the compiler's tests, which fail if an optimizer has none.
"""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import functional as F
from tests.compiler.test_optimizers import SETTINGS, batches, label, model_for
from tests.gpu.beside_cpu import TOLERANCE, on_both

ROWS = [*SETTINGS, ("LBFGS", {"max_iter": 4}), ("LBFGS", {"max_iter": 4, "line_search_fn": "strong_wolfe"})]


def a_training(row: Any, device: str, dtype: Any, show: Any) -> None:
    """Losses, parameters and state through what a training script does between steps."""
    name, settings = row
    model = model_for(name).to(device, dtype)
    parameters = list(model.parameters())
    optimizer = getattr(tg.optim, name)(parameters, **settings)
    data = iter([(x.to(device, dtype), y.to(device, dtype)) for x, y in batches(12)])

    def turn(clip: bool = False) -> None:
        x, y = next(data)

        def closure() -> Any:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(parameters, 0.1)
            return loss

        show(optimizer.step(closure), parameters)

    turn()
    turn()
    optimizer.param_groups[0]["lr"] = 0.02
    turn()
    turn(clip=True)
    saved = optimizer.state_dict()
    turn()
    optimizer.load_state_dict(saved)
    turn()
    if name != "LBFGS":  # which sees all of its parameters as one vector
        parameters[0].requires_grad_(False)
        turn()
        parameters[0].requires_grad_(True)
    turn()
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, tg.Tensor)]
    assert all(value.device.type == device for value in state if value.ndim)
    show([value.to(device) for value in state])  # counts of steps may be the host's


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_an_optimizer_steps_as_on_the_cpu(row: Any) -> None:
    # LBFGS divides differences of gradients: what float32 rounds away is soon all that is left
    dtypes = (tg.float64,) if row[0] == "LBFGS" else tuple(TOLERANCE)
    on_both(lambda device, dtype, show: a_training(row, device, dtype, show), dtypes)
