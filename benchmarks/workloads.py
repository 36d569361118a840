"""The training steps, each written once in PyTorch's style: the same text runs on ``torch`` and on ``tensorgrad``.

A workload is a function of the namespace ``ns`` (the module ``torch`` or ``tensorgrad``) that returns a ``Job``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import data

Batch = tuple[Any, ...]


@dataclass
class Job:
    model: Any
    optimizer: Any
    loss: Callable[..., Any]  # loss(*batch), a scalar
    batches: list[Batch]

    def __post_init__(self) -> None:
        self.train: Callable[..., Any] = self._train  # or what a compiler has made of it

    def step(self, index: int) -> Any:
        """One training step on batch ``index``; returns the loss before the update."""
        return self.train(*self.batches[index % len(self.batches)])

    def _train(self, *batch: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss(*batch)
        loss.backward()
        self.optimizer.step()
        return loss

    def double(self, ns: Any) -> None:
        """From here on in float64: from the same float32 values, but without float32's rounding."""
        self.model.to(ns.float64)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # what it made at once (Adagrad) follows
        self.batches = [
            tuple(x.to(ns.float64) if x.is_floating_point() else x for x in batch) for batch in self.batches
        ]

    def without_chance(self, ns: Any) -> None:
        """From here on no dropout and noise that is the same for every framework: losses can be compared."""
        for module in self.model.modules():
            if isinstance(module, ns.nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "dropout", None), float):  # attention, LSTM
                module.dropout = 0.0
            if hasattr(module, "draw"):
                module.draw = data.Noise(ns.tensor)


def build(name: str, ns: Any, toy: bool = False) -> Job:
    """The job of that name with the weights that every framework starts from. ``toy``: small, where it has such a
    form."""
    from benchmarks.more_workloads import MORE

    make = (TOYS.get(name) if toy else None) or WORKLOADS.get(name) or MORE[name]
    return with_initial_state(make(ns), ns)


def with_initial_state(job: Job, ns: Any) -> Job:
    """The job with the weights that every framework starts from."""
    shapes = {key: tuple(value.shape) for key, value in job.model.state_dict().items()}
    job.model.load_state_dict({key: ns.tensor(value) for key, value in data.initial_state(shapes).items()})
    return job


def on(ns: Any, batches: Sequence[tuple[Any, ...]]) -> list[Batch]:
    return [tuple(ns.tensor(array) for array in batch) for batch in batches]


def tiny(ns: Any) -> Job:
    """MLP 16-32-32-1, batch 8, SGD with momentum: what one small op costs."""
    nn = ns.nn
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = ns.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return Job(model, optimizer, lambda x, y: nn.functional.mse_loss(model(x), y), on(ns, data.regression(8, 16)))


def mlp(ns: Any) -> Job:
    """MLP 784-512-256-10, batch 128, Adam: matrix products and the optimizer."""
    nn = ns.nn
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-4)
    batches = on(ns, data.rows(128, 784, 10))
    return Job(model, optimizer, lambda x, y: nn.functional.cross_entropy(model(x), y), batches)


def cnn(ns: Any, *, batch: int = 64) -> Job:
    """Two convolutions (32, 64) with batch norm and max pool on 1x28x28, batch 64, Adam."""
    nn = ns.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 10),
    )  # fmt: skip
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    batches = on(ns, data.images(batch, 1, 28))
    return Job(model, optimizer, lambda x, y: nn.functional.cross_entropy(model(x), y), batches)


def resnet18(ns: Any, *, batch: int = 16, width: int = 64) -> Job:
    """ResNet-18 in its CIFAR form (3x3 stem, no first pool) on 3x32x32, batch 16, SGD with momentum and decay."""
    nn, F = ns.nn, ns.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    blocks, inputs = [], width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        blocks += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10),
    )  # fmt: skip
    optimizer = ns.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return Job(model, optimizer, lambda x, y: F.cross_entropy(model(x), y), on(ns, data.images(batch, 3, 32)))


def gpt(
    ns: Any,
    *,
    layers: int = 6,
    heads: int = 6,
    width: int = 384,
    context: int = 256,
    batch: int = 4,
    vocabulary: int = 256,
) -> Job:
    """A decoder-only transformer: pre-norm, causal attention, MLP of four widths with tanh-GELU, AdamW."""
    nn, F = ns.nn, ns.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            qkv = self.qkv(self.ln1(x)).reshape(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
            x = x + self.proj(mixed.transpose(1, 2).reshape(n, t, width))
            return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, ids: Any) -> Any:
            return self.head(self.norm(self.blocks(self.tokens(ids) + self.places(places))))

    places = ns.arange(context)
    model = Model()
    optimizer = ns.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def loss(ids: Any, following: Any) -> Any:
        return F.cross_entropy(model(ids).reshape(batch * context, vocabulary), following.reshape(batch * context))

    return Job(model, optimizer, loss, on(ns, data.tokens(batch, context, vocabulary)))


def gpt_micro(ns: Any) -> Job:
    """The same with 4 layers, 4 heads, width 128, context 64, batch 8."""
    return gpt(ns, layers=4, heads=4, width=128, context=64, batch=8)


def lstm(ns: Any, *, batch: int = 32, steps: int = 64, width: int = 256) -> Job:
    """One LSTM layer of width 256 over 64 steps, batch 32, Adam."""
    nn = ns.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(width, width, batch_first=True), nn.Linear(width, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    model = Model()
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    batches = on(ns, data.sequences(batch, steps, width))
    return Job(model, optimizer, lambda x, y: nn.functional.mse_loss(model(x), y), batches)


def chain(ns: Any, *, elements: int = 1 << 22) -> Job:
    """tanh-GELU written out on a vector of 4 M parameters, SGD: memory traffic of elementwise ops."""
    nn = ns.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(ns.zeros(elements))

        def forward(self) -> Any:
            x = self.x
            return (0.5 * x * (1.0 + ns.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))).mean()

    model = Model()
    return Job(model, ns.optim.SGD(model.parameters(), lr=1000.0), model, [()])


WORKLOADS: dict[str, Callable[[Any], Job]] = {
    "tiny": tiny,
    "mlp": mlp,
    "cnn": cnn,
    "resnet18": resnet18,
    "gpt-micro": gpt_micro,
    "gpt": gpt,
    "lstm": lstm,
    "chain": chain,
}

_TOY_GPT = partial(gpt, layers=2, heads=2, width=32, context=16, batch=2)

TOYS: dict[str, Callable[[Any], Job]] = {
    "cnn": partial(cnn, batch=2),
    "resnet18": partial(resnet18, batch=2, width=8),
    "gpt-micro": _TOY_GPT,
    "gpt": _TOY_GPT,
    "lstm": partial(lstm, batch=2, steps=5, width=16),
    "chain": partial(chain, elements=1 << 12),
}
"""The same text at sizes whose times mean nothing; who is not here is small enough."""
