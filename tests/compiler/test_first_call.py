"""What the first call of a compiled function does besides the run."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import tensorgrad as tg
from tensorgrad import nn

model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
optimizer = tg.optim.Adam(model.parameters())

def step(x):
    optimizer.zero_grad()
    loss = model(x).square().sum()
    loss.backward()
    optimizer.step()
    return loss

x = tg.randn(2, 4)
step(x)
fast = tg.compile(step)
before = set(sys.modules)
fast(x)
assert fast.stats()["captures"] == 1
print(*(set(sys.modules) - before))
"""


def test_nothing_is_imported_in_it():
    """Importing the passes took as long as all of them together."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
