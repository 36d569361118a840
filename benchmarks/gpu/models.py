"""The two networks that GPUs are measured by, each written once in PyTorch's style: GPT-2 124M and ResNet-50."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import data
from benchmarks.workloads import Job, on

__all__ = ["MODELS", "Gpt2", "ResNet50", "gpt2", "resnet50"]


@dataclass(frozen=True)
class Gpt2:
    """GPT-2 124M: 12 layers of 12 heads, the vocabulary padded to a multiple of 128."""

    batch: int = 16
    context: int = 1024
    layers: int = 12
    heads: int = 12
    width: int = 768
    vocabulary: int = 50_304

    def flops(self) -> float:
        """Of a training step: 6 for each parameter and token, and 12 * layers * width * context a token for attention
        (nanoGPT's formula, which counts a causal mask as if it were none)."""
        inside = self.layers * 12 * self.width**2 + self.vocabulary * self.width
        return self.batch * self.context * (6.0 * inside + 12.0 * self.layers * self.width * self.context)


@dataclass(frozen=True)
class ResNet50:
    """ResNet-50: stages of bottlenecks behind a 7x7 stem."""

    batch: int = 64
    size: int = 224
    stages: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    classes: int = 1000
    half: bool = True  # autocast to bfloat16, else float32 with TF32 permitted


def gpt2(ns: Any, device: str, what: Gpt2) -> Job:
    """Training of GPT-2 in bfloat16 by autocast, with PyTorch's fused attention and AdamW; no dropout."""
    nn, F = ns.nn, ns.nn.functional
    width, heads = what.width, what.heads

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            q, k, v = self.qkv(self.ln1(x)).split(width, dim=2)
            q, k, v = (y.view(n, t, heads, width // heads).transpose(1, 2) for y in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(mixed.transpose(1, 2).reshape(n, t, width))
            return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(what.vocabulary, width), nn.Embedding(what.context, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(what.layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, what.vocabulary, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Any) -> Any:
            return self.head(self.norm(self.blocks(self.tokens(ids) + self.places(places))))

    places = ns.arange(what.context)
    model = Model()
    optimizer = ns.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def loss(ids: Any, following: Any) -> Any:
        with ns.autocast(device, dtype=ns.bfloat16):
            return F.cross_entropy(model(ids).view(-1, what.vocabulary), following.view(-1))

    return Job(model, optimizer, loss, on(ns, data.tokens(what.batch, what.context, what.vocabulary)))


def resnet50(ns: Any, device: str, what: ResNet50) -> Job:
    """Training of ResNet-50 with momentum and decay."""
    nn, F = ns.nn, ns.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != 4 * width:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * width)
                )

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)))
            y = F.relu(self.bn2(self.conv2(y)))
            return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))

    blocks, inputs = [], what.width
    for stage, count in enumerate(what.stages):
        for i in range(count):
            width = what.width * 2**stage
            blocks.append(Block(inputs, width, 2 if stage and i == 0 else 1))
            inputs = 4 * width
    model = nn.Sequential(
        nn.Conv2d(3, what.width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(what.width), nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(inputs, what.classes),
    )  # fmt: skip
    optimizer = ns.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def loss(x: Any, y: Any) -> Any:
        with ns.autocast(device, dtype=ns.bfloat16, enabled=what.half):
            return F.cross_entropy(model(x), y)

    ns.backends.cudnn.allow_tf32 = ns.backends.cuda.matmul.allow_tf32 = not what.half
    return Job(model, optimizer, loss, on(ns, data.images(what.batch, 3, what.size)))


_TOY_GPT2 = Gpt2(batch=2, context=16, layers=2, heads=2, width=32, vocabulary=128)
_TOY_RESNET = ResNet50(batch=2, size=32, stages=(1, 1, 1, 1), width=8, classes=10)

MODELS: dict[str, tuple[Callable[[Any, str, Any], Job], Any, Any]] = {
    "gpt2-bf16": (gpt2, Gpt2(), _TOY_GPT2),
    "resnet50-bf16": (resnet50, ResNet50(), _TOY_RESNET),
    "resnet50-tf32": (resnet50, ResNet50(half=False), replace(_TOY_RESNET, half=False)),
}
"""By name: what builds it, its size, and a toy of it."""
