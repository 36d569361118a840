"""The recorder replays a whole training step of the digits network with the losses of eager: forward, backward, AdamW
with a changing rate, fresh dropout masks and batch-norm statistics, on new batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.compiler.record import record
from tensorgrad.nn import functional as F


class Network(nn.Module):
    """The digits network in small: convolutions, batch norm, pooling, dropout."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(64, 10))

    def forward(self, x):
        return self.head(self.features(x))


class Training:
    def __init__(self, model, images, labels):
        self.model, self.images, self.labels = model, images, labels
        self.optimizer = tg.optim.AdamW(model.parameters(), lr=1e-2)
        self.schedule = tg.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=100)

    def step(self):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        labels = rng.integers(0, 10, 16)
        images = rng.standard_normal((16, 1, 8, 8)).astype(np.float32) + labels[:, None, None, None] / 5
        yield tg.from_numpy(images.astype(np.float32)), tg.from_numpy(labels)


@pytest.mark.parametrize("backend", [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None])
def test_a_replayed_training_step_has_the_losses_of_eager(backend):
    with tg.backend(backend):
        tg.manual_seed(0)
        model = Network()
        images, labels = tg.zeros(16, 1, 8, 8), tg.zeros(16, dtype=tg.int64)
        eager = Training(model, images.clone(), labels.clone())
        replayed = Training(copy.deepcopy(model), images, labels)
        given = list(batches(100))
        for training in (eager, replayed):
            # the first step makes the optimizer's state; what it allocates is there when the second is recorded
            training.images.copy_(given[0][0])
            training.labels.copy_(given[0][1])
            tg.manual_seed(1)
            training.step()

        tg.manual_seed(2)
        expected = []
        for x, y in given:
            eager.images.copy_(x)
            eager.labels.copy_(y)
            expected.append(eager.step().item())
            eager.schedule.step()

        tg.manual_seed(2)
        got = []
        recording = None
        for x, y in given:
            images.copy_(x)
            labels.copy_(y)
            if recording is None:
                loss, recording = record(replayed.step)
            else:
                loss = recording.replay()
            got.append(loss.item())
            replayed.schedule.step()

        assert got == expected, "a replay computes the very same numbers"
        assert expected[-1] < expected[0]
        for (name, mine), other in zip(
            replayed.model.state_dict().items(), eager.model.state_dict().values(), strict=True
        ):
            assert mine.tolist() == other.tolist(), name
