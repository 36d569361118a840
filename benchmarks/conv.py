"""Every convolution of ResNet-18, ResNet-50 and MobileNetV2 (224 x 224), one by one: forward, gradient to the input,
gradient to the weight.

The layers are read off the three architectures; a shape that occurs several times is measured once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BATCHES = (1, 16, 64)
KINDS = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True)
class Layer:
    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: int  # of the input, which is square
    groups: int = 1

    def __str__(self) -> str:
        what = f"{self.inputs}-{self.outputs}" if self.groups == 1 else f"{self.inputs} depthwise"
        return f"{what} {self.kernel}x{self.kernel}{f' /{self.stride}' if self.stride > 1 else ''} @{self.size}"

    def flops(self) -> int:
        """Of one image, by the definition."""
        plane = (-(-self.size // self.stride)) ** 2
        return 2 * plane * self.outputs * (self.inputs // self.groups) * self.kernel**2


def resnet(bottleneck: bool, depths: tuple[int, ...]) -> list[Layer]:
    layers = [Layer(3, 64, 7, 2, 224)]
    inputs, size = 64, 56
    for stage, depth in enumerate(depths):
        width = 64 << stage
        outputs = 4 * width if bottleneck else width
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = size // stride
            if bottleneck:
                layers += [Layer(inputs, width, 1, 1, size), Layer(width, width, 3, stride, size)]
                layers.append(Layer(width, outputs, 1, 1, inner))
            else:
                layers += [Layer(inputs, width, 3, stride, size), Layer(width, outputs, 3, 1, inner)]
            if stride != 1 or inputs != outputs:
                layers.append(Layer(inputs, outputs, 1, stride, size))
            inputs, size = outputs, inner
    return layers


def mobilenet_v2() -> list[Layer]:
    layers = [Layer(3, 32, 3, 2, 224)]
    inputs, size = 32, 112
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, outputs, depth, first in rows:
        for block in range(depth):
            stride = first if block == 0 else 1
            width = inputs * expansion
            if expansion > 1:
                layers.append(Layer(inputs, width, 1, 1, size))
            layers.append(Layer(width, width, 3, stride, size, width))
            size //= stride
            layers.append(Layer(width, outputs, 1, 1, size))
            inputs = outputs
    return [*layers, Layer(320, 1280, 1, 1, 7)]


MODELS: dict[str, Callable[[], list[Layer]]] = {
    "resnet18": lambda: resnet(False, (2, 2, 2, 2)),
    "resnet50": lambda: resnet(True, (3, 4, 6, 3)),
    "mobilenet_v2": mobilenet_v2,
    # One of each kind of kernel, for a look in a minute.
    "quick": lambda: [
        Layer(3, 64, 7, 2, 224), Layer(64, 64, 3, 1, 56), Layer(512, 512, 3, 1, 7), Layer(128, 256, 3, 2, 28),
        Layer(256, 64, 1, 1, 56), Layer(512, 2048, 1, 1, 7), Layer(256, 512, 1, 2, 56), Layer(144, 144, 3, 1, 56, 144),
        Layer(144, 144, 3, 2, 56, 144),
    ],
}  # fmt: skip


def distinct(models: list[str]) -> list[Layer]:
    return list(dict.fromkeys(layer for model in models for layer in MODELS[model]()))


def prepare(layer: Layer, batch: int, kind: str, ns: Any) -> Callable[[], Any]:
    """A function of no arguments that computes the layer, or one of its gradients, once."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        # what is drawn is repeated: a hundred million normal numbers would take longer than the measurement
        return ns.tensor(np.resize(random.standard_normal(1 << 16, np.float32), shape))

    x = normal(batch, layer.inputs, layer.size, layer.size)
    w = normal(layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
    x.requires_grad, w.requires_grad = kind == KINDS[1], kind == KINDS[2]

    def forward() -> Any:
        return ns.nn.functional.conv2d(x, w, None, layer.stride, layer.kernel // 2, 1, layer.groups)

    y = forward()
    if kind == KINDS[0]:
        return forward
    gradient = normal(*y.shape)
    leaf = x if kind == KINDS[1] else w
    return lambda: ns.autograd.grad(y, leaf, gradient, retain_graph=True)


def jobs(models: list[str], batches: list[int]) -> list[tuple[Layer, int, str]]:
    return [(layer, batch, kind) for batch in batches for layer in distinct(models) for kind in KINDS]


def command(job: tuple[Layer, int, str]) -> dict[str, Any]:
    """A job as what a worker's ``prepare_conv`` is told."""
    layer, batch, kind = job
    return {"layer": asdict(layer), "batch": batch, "kind": kind}
