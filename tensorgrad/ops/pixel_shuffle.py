"""Channels turned into pixels, pixels into channels, and channels dealt out among groups."""

from __future__ import annotations

from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from .checks import integer, require_tensors
from .rearrange import rearrange

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


def _lead(name: str, x: Tensor, factor: int, label: str) -> tuple[int, ...]:
    require_tensors(name, input=x)
    if x._data.ndim < 3:
        raise ShapeError(f"{name}: expected at least 3 dimensions (..., c, h, w), got shape {tuple(x.shape)}.")
    if factor <= 0:
        raise ArgumentError(f"{name}: {label} must be positive, got {factor}.")
    return tuple(x._data.shape[:-3])


def _rearranged(x: Tensor, split: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    result: Tensor = rearrange(x, split=split, order=order, spread=tuple([split[d] for d in order]), shape=shape)
    return result


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., c r^2, h, w) as (..., c, h r, w r): each group of r^2 channels becomes the pixels of a square.

    Raises: ShapeError if the channels are no multiple of r^2.
    Source: Shi et al. 2016.
    """
    r = integer("pixel_shuffle", "upscale_factor", upscale_factor)
    lead = _lead("pixel_shuffle", input, r, "upscale_factor")
    c, h, w = input._data.shape[-3:]
    if c % (r * r):
        raise ShapeError(f"pixel_shuffle: {c} channels are not a multiple of upscale_factor ** 2 = {r * r}.")
    n = len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return _rearranged(input, (*lead, c // (r * r), r, r, h, w), order, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., c, h r, w r) as (..., c r^2, h, w): the inverse of ``pixel_shuffle``.

    Raises: ShapeError if the sizes are no multiples of r.
    """
    r = integer("pixel_unshuffle", "downscale_factor", downscale_factor)
    lead = _lead("pixel_unshuffle", input, r, "downscale_factor")
    c, h, w = input._data.shape[-3:]
    if h % r or w % r:
        raise ShapeError(f"pixel_unshuffle: sizes {(h, w)} are not multiples of downscale_factor {r}.")
    n = len(lead)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return _rearranged(input, (*lead, c, h // r, r, w // r, r), order, (*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels (dimension 1) in another order: first the first of each of ``groups``, then the second of each.

    Raises: ShapeError if the channels are no multiple of ``groups``.
    Source: Zhang, Zhou, Lin, Sun 2018.
    """
    require_tensors("channel_shuffle", input=input)
    if input._data.ndim < 3:
        raise ShapeError(f"channel_shuffle: expected at least 3 dimensions (n, c, ...), got {tuple(input.shape)}.")
    groups = integer("channel_shuffle", "groups", groups)
    if groups <= 0:
        raise ArgumentError(f"channel_shuffle: groups must be positive, got {groups}.")
    n, c, *rest = input._data.shape
    if c % groups:
        raise ShapeError(f"channel_shuffle: {c} channels are not a multiple of {groups} groups.")
    order = (0, 2, 1, *range(3, 3 + len(rest)))
    return _rearranged(input, (n, groups, c // groups, *rest), order, (n, c, *rest))
