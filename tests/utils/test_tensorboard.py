"""``SummaryWriter``: our tensors and figures reach tensorboardX; one clear line where it is missing."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.utils.tensorboard import SummaryWriter


def test_what_is_written_can_be_read(tmp_path):
    pytest.importorskip("tensorboardX")
    threads = threading.active_count()
    with SummaryWriter(tmp_path, flush_secs=1) as writer:
        assert writer.log_dir == str(tmp_path) == writer.get_logdir()
        for step in range(3):
            writer.add_scalar("loss", tg.tensor(0.5 * step, requires_grad=True), step)
        writer.add_scalars("both", {"a": tg.tensor(1.0), "b": 2}, 0)
        writer.add_histogram("weights", tg.randn(100).bfloat16(), 0)
        writer.add_image("image", tg.rand(3, 8, 8), 0)
        writer.add_images("images", tg.rand(2, 3, 8, 8))
        writer.add_text("text", "**bold**")
        writer.add_pr_curve("pr", tg.tensor([0, 1, 1]), tg.tensor([0.2, 0.6, 0.9]))
        writer.add_embedding(tg.randn(4, 3), metadata=["a", "b", "c", "d"])
        writer.add_hparams({"lr": 0.1, "name": "x"}, {"accuracy": tg.tensor(0.9)}, run_name="one")
        writer.add_mesh("mesh", tg.rand(1, 4, 3))
        figure = pytest.importorskip("matplotlib.figure").Figure()
        figure.subplots().plot([1, 2])
        writer.add_figure("figure", figure, close=False)
        with pytest.raises(ValueError, match="add_graph is not supported"):
            writer.add_graph(tg.nn.Linear(1, 1))
    until = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.05)  # its queues' threads end a little after it is closed
    written = b"".join(p.read_bytes() for p in tmp_path.glob("events.out.tfevents.*"))
    for tag in (b"loss", b"weights", b"image", b"text", b"figure", b"mesh"):
        assert tag in written
    assert written.count(np.float32(0.5).tobytes()) >= 1


def test_its_absence_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'tensorgrad\[tensorboard\]'"):
        SummaryWriter()
