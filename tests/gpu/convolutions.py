"""Convolutions that the tests of cuDNN's binding and of the kernels of our own share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorgrad.backends.generic.conv import ConvKernels, conv_outputs
from tensorgrad.dtypes import numpy_dtype

TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-3, "bfloat16": 2e-2}  # of the largest element


class Host(ConvKernels):
    xp = np


@dataclass(frozen=True)
class Layer:
    """A convolution of images of some shape by a weight."""

    image: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def how(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def slope(self) -> tuple[int, ...]:
        outputs = conv_outputs(self.image[2:], self.weight[2:], self.stride, self.padding, self.dilation)
        return (self.image[0], self.weight[0], *outputs)

    def arrays(self, dtype: str, seed: int = 0) -> tuple[Any, Any, Any]:
        """Image, weight, slope."""
        random = np.random.default_rng(seed)
        shapes = self.image, self.weight, self.slope
        image, weight, slope = (random.normal(size=shape).astype(numpy_dtype(dtype)) for shape in shapes)
        return image, weight, slope

    def expected(self, dtype: str) -> tuple[Any, Any, Any]:
        """Result, gradient in the image, gradient in the weight, in float64."""
        x, w, g = (a.astype(np.float64) for a in self.arrays(dtype))
        host = Host()
        return (
            host.conv(x, w, None, **self.how),
            host.conv_input_grad(g, w, input_shape=self.image, **self.how),
            host.conv_weight_grad(g, x, weight_shape=self.weight, **self.how),
        )


LAYERS = [
    Layer((2, 3, 9), (5, 3, 3), (2,), (1,), (1,)),
    Layer((2, 4, 8), (6, 2, 2), (1,), (3,), (2,), 2),
    Layer((2, 3, 6, 7), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1)),
    Layer((3, 16, 5, 4), (24, 16, 1, 1), (1, 1), (0, 0), (1, 1)),
    Layer((2, 3, 11, 8), (4, 3, 7, 2), (2, 3), (3, 0), (1, 2)),
    Layer((1, 2, 7, 6), (3, 2, 2, 2), (3, 2), (0, 1), (1, 1)),  # rows at the end that no window reads
    Layer((2, 6, 5, 6), (12, 1, 3, 3), (1, 2), (1, 1), (1, 1), 6),
    Layer((1, 20, 4, 4), (18, 10, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    Layer((2, 2, 4, 3, 5), (3, 2, 2, 2, 2), (1, 2, 1), (1, 0, 1), (1, 1, 2)),
    Layer((1, 4, 4, 5, 3), (4, 1, 3, 1, 2), (1, 1, 2), (2, 0, 1), (1, 1, 1), 4),
]


def random_layers(count: int, seed: int) -> Iterator[Layer]:
    """Convolutions of any number of axes, among them windows that mostly read padding."""
    random = np.random.default_rng(seed)
    while count:
        axes, groups = int(random.integers(1, 4)), int(random.choice([1, 1, 2, 3]))
        image, kernel, stride, padding, dilation = (
            tuple(random.integers(low, high, axes).tolist()) for low, high in ((1, 8), (1, 4), (1, 4), (0, 4), (1, 3))
        )
        outputs = conv_outputs(image, kernel, stride, padding, dilation)
        if min(outputs) >= 1:
            read, made = random.integers(1, 5, 2).tolist()
            weight = (groups * made, read, *kernel)
            yield Layer((int(random.integers(1, 4)), groups * read, *image), weight, stride, padding, dilation, groups)
            count -= 1
