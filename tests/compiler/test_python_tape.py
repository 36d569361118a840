"""Compiled functions under the setting ``tape = "python"``, as where the extension is not built."""

from __future__ import annotations

import os
import subprocess
import sys

_CODE = """
import tensorgrad as tg
from tensorgrad import core

assert core.native is None
model = tg.nn.Linear(3, 1)
optimizer = tg.optim.Adam(model.parameters(), lr=0.01)


def step(x):
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss


x = tg.ones(4, 3)
x.note = "of the user's"
assert vars(x) == {"note": "of the user's"} and vars(model.weight) == {}
doubled = tg.compile(lambda x: x * 2)
for number in range(6):
    assert doubled(tg.full((3,), float(number))).tolist() == [2.0 * number] * 3
assert doubled.stats()["captures"] == 1, doubled.stats()
compiled = tg.compile(step)
losses = [compiled(tg.full((4, 3), float(number))).item() for number in range(8)]
assert compiled.stats()["captures"] == 2 and compiled.stats()["replays"] == 6, compiled.stats()
"""


def test_a_program_serves_other_tensors() -> None:
    """Fields of a tensor that are kept in Python are none of the attributes that a program rests on."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE], env={**os.environ, "TENSORGRAD_TAPE": "python"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
