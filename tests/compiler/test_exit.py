"""The interpreter ends while another thread is within a compiled call."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
import tensorgrad as tg
from tensorgrad import nn

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
optimizer = tg.optim.SGD(model.parameters(), lr=1e-4)

@tg.compile
def step(x):
    optimizer.zero_grad()
    loss = model(x).square().sum()
    loss.backward()
    optimizer.step()
    return loss.detach()

x = tg.randn(128, 64)

def loop():
    while True:
        step(x)

threading.Thread(target=loop, daemon=True).start()
"""


def test_a_thread_in_a_compiled_call_ends_with_the_interpreter():
    """Python ends it in the middle of C++, whose references are no longer anybody's to drop."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
