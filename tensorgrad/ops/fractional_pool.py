"""Fractional max pooling: windows at random, nearly even distances, so that a size shrinks by any ratio."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..errors import ArgumentError, ShapeError
from ..random import Generator
from ..tensor import Tensor
from .checks import product, real, require_optional, require_tensors
from .conv import batched, per_axis, unbatched

__all__: list[str] = []  # users know them as functions of nn.functional


def _starts(sample: Any, size: int, window: int, outputs: int) -> Any:
    """Where the windows begin, (n, c, outputs): steps of ``(size - window) / (outputs - 1)``, rounded from a random
    phase; the last one ends with the input."""
    from .ranges import arange
    from .selection import where

    if outputs == 1:
        return sample.unsqueeze(-1).long() * 0 + (size - window)
    step = (size - window) / (outputs - 1)
    phase = sample.unsqueeze(-1)
    ramp = arange(outputs, dtype=sample.dtype, device=sample.device)
    starts = ((ramp + phase) * step).long() - (phase * step).long()
    return where(ramp == outputs - 1, size - window, starts)


def _places(starts: list[Any], kernel: tuple[int, ...], sizes: tuple[int, ...]) -> Any:
    """The flat places under each window, (n, c, windows, taps)."""
    from .ranges import arange

    dims = len(sizes)
    total: Any = None
    for axis, (begin, window, size) in enumerate(zip(starts, kernel, sizes, strict=True)):
        n, c, outputs = begin.shape
        along = begin.unsqueeze(-1) + arange(window, device=begin.device)
        windows = [1] * dims
        taps = [1] * dims
        windows[axis], taps[axis] = outputs, window
        along = along.reshape(n, c, *windows, *taps)
        total = along if total is None else total * size + along
    n, c = total.shape[:2]
    return total.reshape(n, c, product(total.shape[2 : 2 + dims]), product(total.shape[2 + dims :]))


def _pool(
    dims: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any, return_indices: bool,
    samples: Tensor | None, generator: Generator | None,
) -> Any:  # fmt: skip
    from .random import rand

    name = f"fractional_max_pool{dims}d"
    require_tensors(name, input=input)
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name}: output_size or output_ratio is needed.")
    x, added = batched(name, input, dims)
    kernel = per_axis(name, "kernel_size", kernel_size, dims, 1)
    sizes = tuple(x.shape[2:])
    if min(x.shape[1:]) < 1:
        raise ShapeError(f"{name}: only the batch may be empty, got shape {tuple(input.shape)}.")
    if output_size is None:
        ratios = tuple(output_ratio) if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * dims
        ratios = tuple([real(name, "output_ratio", r) for r in ratios])
        if len(ratios) != dims or not all(0 < r < 1 for r in ratios):
            raise ArgumentError(f"{name}: output_ratio must be one or {dims} numbers between 0 and 1, got {ratios}.")
        outputs = tuple(int(size * r) for size, r in zip(sizes, ratios, strict=True))
    else:
        outputs = per_axis(name, "output_size", output_size, dims, 1)
    for size, window, count in zip(sizes, kernel, outputs, strict=True):
        if count < 1 or count + window - 1 > size - (dims == 3):  # of volumes PyTorch asks for one more
            raise ArgumentError(f"{name}: {count} windows of {window} do not fit into a size of {size}.")
    n, c = x.shape[:2]
    require_optional(name, _random_samples=samples)
    if samples is None:
        samples = rand(n, c, dims, dtype="float64", device=x.device, generator=generator)
    elif samples._data.ndim != 3 or samples.shape[0] < n or tuple(samples.shape[1:]) != (c, dims):
        raise ShapeError(f"{name}: _random_samples must be {(n, c, dims)}, got {tuple(samples.shape)}.")
    with no_grad():
        order = range(dims) if dims == 3 else reversed(range(dims))  # of images, the first number is the column's
        drawn: Any = samples[:n]
        starts = [
            _starts(drawn[..., at], size, window, count)
            for at, size, window, count in zip(order, sizes, kernel, outputs, strict=True)
        ]
        places = _places(starts, kernel, sizes)
        flat: Any = x.reshape(n, c, product(sizes))
        seen = flat.gather(2, places.reshape(n, c, product(places.shape[2:]))).reshape(places.shape)
        indices = places.gather(3, seen.argmax(3, keepdim=True)).squeeze(3)
    plane: Any = x.reshape(n, c, product(sizes))
    values = plane.gather(2, indices)
    y = unbatched(values.reshape(n, c, *outputs), added)
    return (y, unbatched(indices.reshape(n, c, *outputs), added)) if return_indices else y


def fractional_max_pool2d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Tensor | None = None, *, generator: Generator | None = None,
) -> Any:  # fmt: skip
    """Maxima under windows at random places, so many that the output has a given size.

    Args:
        input: (n, c, h, w) or (c, h, w).
        kernel_size: of the windows, a number or (h, w).
        output_size, output_ratio: the output's size, or its ratio to the input's, between 0 and 1.
        return_indices: also return where in the plane each maximum was found.
        _random_samples: (n, c, 2) numbers from [0, 1) that place the windows; drawn if None.
    Raises: ArgumentError if the windows do not fit; ValueError without a size or ratio.
    Source: Graham 2014.
    """
    return _pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, generator)


def fractional_max_pool3d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Tensor | None = None, *, generator: Generator | None = None,
) -> Any:  # fmt: skip
    """``fractional_max_pool2d`` for volumes (n, c, d, h, w) or (c, d, h, w)."""
    return _pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, generator)
