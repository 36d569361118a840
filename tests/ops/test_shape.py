"""Shapes, views, joining and rearranging beside PyTorch: semantics, derivatives, shared memory, errors."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry

from .beside_torch import same, same_error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4))
M = RNG.standard_normal((3, 4))
V = RNG.standard_normal(6)

CALLS = {
    "reshape": lambda lib, x: [x.reshape(6, 4), x.reshape((4, -1)), x.transpose(0, 1).reshape(2, 12)],
    "view": lambda lib, x: [x.view(6, 4), x.view(2, 1, 12), x.transpose(0, 1).view(3, 2, 2, 2)],
    "flatten": lambda lib, x: [x.flatten(), x.flatten(1), x.flatten(0, 1), x.ravel(), x.permute(2, 0, 1).flatten(1)],
    "unflatten": lambda lib, x: [x.unflatten(2, (2, 2)), x.unflatten(-1, (-1, 1))],
    "squeeze": lambda lib, x: [x[:1].squeeze(), x[:1].squeeze(0), x.squeeze(1), x[:1].squeeze((0, 2))],
    "unsqueeze": lambda lib, x: [x.unsqueeze(0), x.unsqueeze(-1), x.unsqueeze(2)],
    "permute": lambda lib, x: [x.permute(2, 0, 1), x.permute((0, -1, 1)), x.transpose(0, 2), x.mT, x[0].T],
    "movedim": lambda lib, x: [x.movedim(0, 2), x.movedim((0, 1), (2, 0)), x.swapaxes(0, 1), lib.moveaxis(x, 2, 0)],
    "expand": lambda lib, x: [x[:, :1].expand(2, 5, 4), x[:1].expand(3, -1, -1), x.expand(2, 2, 3, 4),
                              lib.broadcast_to(x[:1], (2, 3, 4)), x[:, :1].expand_as(x)],
    "broadcast_tensors": lambda lib, x: lib.broadcast_tensors(x[:1], x[:, :1], x[0, 0]),
    "select": lambda lib, x: [x.select(1, -1), x.select(0, 1), x.narrow(2, 1, 2), x.narrow(-1, -2, 2)],
    "split": lambda lib, x: [x.split(2, 1), x.split([1, 0, 3], 2), lib.split(x, 5)],
    "chunk": lambda lib, x: [x.chunk(2, 2), x.chunk(3, 2), x.chunk(5), x.tensor_split(3, 2),
                            x.tensor_split((1, 3), -1)],
    "unbind": lambda lib, x: [x.unbind(1), lib.unbind(x)],
    "cat": lambda lib, x: [lib.cat([x, x[:, :1]], 1), lib.cat((x, x * 2), -1), lib.cat([x[0, 0, :0], x])],
    "stack": lambda lib, x: [lib.stack([x, x + 1]), lib.stack((x, x), -1), lib.hstack([x, x]), lib.vstack([x, x]),
                             lib.dstack([x[0], x[1]])],
    "diagonal": lambda lib, x: [x.diagonal(), x.diagonal(1, 1, 2), x.diagonal(-1, 2, 0), x.diagonal(9, 0, 1)],
    "diag_embed": lambda lib, x: [lib.diag_embed(x), lib.diag_embed(x[0], 1), lib.diag_embed(x[0], -1, 0, 2)],
    "diag": lambda lib, x: [x[0].diag(), x[0, 0].diag(1), lib.diag(x[0], -1), x[0].trace()],
    "triangles": lambda lib, x: [x.tril(), x.triu(1), x.tril(-1), x[0].triu(-2)],
    "flip": lambda lib, x: [x.flip(0), x.flip((1, 2)), x.fliplr(), x.flipud(), lib.rot90(x, 1, (1, 2)),
                           lib.rot90(x, 3)],
    "roll": lambda lib, x: [x.roll(1), x.roll(2, 1), x.roll((1, -1), (0, 2))],
    "repeat": lambda lib, x: [x.repeat(2, 1, 3), x.repeat(2, 1, 1, 1), x.tile((2,)), x.tile(2, 1, 1, 1)],
    "repeat_interleave": lambda lib, x: [x.repeat_interleave(2), x.repeat_interleave(2, 1),
                                         x.repeat_interleave(lib.tensor([0, 2, 1]), 1)],
    "unfold": lambda lib, x: [x.unfold(2, 2, 1), x.unfold(2, 2, 2), x.unfold(0, 1, 1), x.unfold(1, 3, 5)],
    "clone": lambda lib, x: [x.clone(), x.contiguous(), x.mT.contiguous()],
    "atleast": lambda lib, x: [lib.atleast_1d(x[0, 0, 0]), lib.atleast_2d(x[0, 0]), lib.atleast_3d(x[0])],
    "meshgrid": lambda lib, x: [lib.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
                                lib.meshgrid(x[0, 0], x[0, :, 0], indexing="xy")],
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_beside_pytorch(name):
    same(CALLS[name], X)


@pytest.mark.parametrize("name", ("reshape", "split", "cat", "flip", "roll", "repeat", "triangles", "stack"))
@pytest.mark.parametrize("dtype", ("bool", "uint8", "int32", "complex64"))
def test_dtypes(name, dtype):
    calls = {
        "stack": lambda lib, x: [lib.stack([x, x]), lib.hstack([x, x])],
        "cat": lambda lib, x: [lib.cat([x, x]), lib.cat([x, x.to(lib.float32) if not x.is_complex() else x])],
    }
    same(calls.get(name, CALLS[name]), (X > 0).astype(dtype), order=0)


def _pad(lib, x, *args):
    return lib.pad(x, *args) if lib is tg else lib.nn.functional.pad(x, *args)


@pytest.mark.parametrize("mode", ("constant", "reflect", "replicate", "circular"))
def test_pad(mode):
    same(lambda lib, x: [_pad(lib, x, (1, 2), mode), _pad(lib, x, (2, 1, 0, 2), mode)], X)


def test_pad_with_a_value_and_cutting():
    same(lambda lib, x: [_pad(lib, x, (1, -2), "constant", 7.5), _pad(lib, x, (-1, -1, 2, 0, -1, 0))], X)


@pytest.mark.parametrize("before", (-6, -2, -1, 2, 4))
@pytest.mark.parametrize("after", (-6, -2, 1, 3))
@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_reflection_mirrors_what_the_other_end_cuts_off(backend, before, after):
    x = np.arange(40.0).reshape(2, 4, 5)
    with tg.backend(backend):
        if 5 + before + after > 0:
            same(lambda lib, x: _pad(lib, x, (before, after, 1, -2), "reflect"), x)
        elif before > 0 or after > 0:
            same_error(lambda lib, x: _pad(lib, x, (before, after), "reflect"), x)


def test_promotion_in_cat():
    same(lambda lib, x, y: [lib.cat([x, y]), lib.stack([y, x])], np.arange(3), np.ones(3, np.float32), order=0)


def test_zero_sizes():
    same(lambda lib, x: [x.reshape(3, 0), x.reshape(0, -1, 3) if lib is None else x.flatten(), x.unfold(1, 2, 1),
                         x.chunk(3), x.split(2), x.t(), x.flip(0), x.repeat(2, 2), lib.cat([x, x])],
         np.zeros((0, 3)), order=0)  # fmt: skip


@pytest.mark.parametrize(
    "call",
    (
        lambda lib, x: x.reshape(5), lambda lib, x: x.reshape(-1, -1), lambda lib, x: x.reshape(-1, 5),
        lambda lib, x: x.mT.view(24), lambda lib, x: x.permute(0, 1), lambda lib, x: x.permute(0, 0, 1),
        lambda lib, x: x.transpose(0, 3), lambda lib, x: x.expand(3, 3, 4), lambda lib, x: x.expand(3, 4),
        lambda lib, x: x.unsqueeze(5), lambda lib, x: x.narrow(0, 1, 2), lambda lib, x: x.select(0, 2),
        lambda lib, x: lib.cat([]), lambda lib, x: lib.cat([x, x[0]]), lambda lib, x: lib.cat([x, x[:, :2]]),
        lambda lib, x: lib.cat([x[0, 0], x[0, 0, 0]]),
        lambda lib, x: lib.stack([x, x[0]]), lambda lib, x: x.split(0), lambda lib, x: x.split([1, 2]),
        lambda lib, x: x.chunk(0), lambda lib, x: x.unfold(0, 3, 1), lambda lib, x: x.flatten(2, 1),
        lambda lib, x: x.repeat(2), lambda lib, x: x.t(), lambda lib, x: x.trace(), lambda lib, x: x.diag(),
        lambda lib, x: x.diagonal(0, 1, 1), lambda lib, x: _pad(lib, x, (1,)),
        lambda lib, x: _pad(lib, x, (4, 0), "reflect"),
        lambda lib, x: _pad(lib, x, (5, 0), "circular"), lambda lib, x: x.roll((1, 2), 0),
        lambda lib, x: len(x[0, 0, 0]),
        lambda lib, x: lib.broadcast_tensors(x, x[:, :2]), lambda lib, x: x.unflatten(2, (3, -1)),
    ),
)  # fmt: skip
def test_refused(call):
    same_error(call, X)


def test_more_sections_than_memory_holds():
    with pytest.raises(RuntimeError, match="sections"):
        tg.hsplit(tg.zeros(0), 2**62)


@pytest.mark.parametrize(
    "call",
    (
        lambda x, n: x.diagonal(n), lambda x, n: tg.diagonal_scatter(x, x[0], n), lambda x, n: tg.diag(x, n),
        lambda x, n: tg.diag(x[0], n), lambda x, n: tg.diagflat(x, n), lambda x, n: tg.diag_embed(x, n),
        lambda x, n: x.topk(n), lambda x, n: x.kthvalue(n), lambda x, n: tg.histogram(x, n),
        lambda x, n: tg.histc(x, n), lambda x, n: tg.bincount(x[0].long(), minlength=n),
        lambda x, n: tg.fft.fft(x, n), lambda x, n: tg.fft.fftn(x, (n, 2)), lambda x, n: tg.fft.irfft2(x, (n, 2)),
    ),
)  # fmt: skip
def test_offsets_and_counts_are_integers_of_64_bits(call):
    x = tg.ones(2, 2)
    for given in (2.5, float("inf"), "a"):
        with pytest.raises(TypeError, match="integer"):
            call(x, given)
    for given in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match="64 bits"):
            call(x, given)


def test_views_share_memory():
    x = tg.zeros(4, 6)
    views = [x.view(24), x.t(), x[1:3, ::2], x.diagonal(), x.unfold(1, 3, 3), x.unsqueeze(0), x.narrow(1, 2, 2),
             *x.split(2), *x.unbind(1), x.reshape(2, 12), x.squeeze(), x.flatten(), x.expand(2, 4, 6)]  # fmt: skip
    x.fill_(3)
    assert all((view == 3).all() for view in views)
    x.diagonal().fill_(7)
    assert [x[i, i].item() for i in range(4)] == [7, 7, 7, 7]
    x.t()[5, :] = 1
    assert x[:, 5].tolist() == [1, 1, 1, 1]


def test_a_reshape_that_must_copy_does():
    x = tg.zeros(2, 3)
    y = x.t().reshape(6)
    y.fill_(1)
    assert not x.any()


def test_strides_and_offsets():
    def call(lib, x):
        views = [x, x.mT, x[1:, ::2], x[:, 0], x.permute(2, 0, 1), x.unsqueeze(1)]
        return [part for v in views for part in (
            tuple(v.stride()), v.is_contiguous(), v.storage_offset(), v.numel(), v.dim(), tuple(v.size()), v.size(-1),
            v.element_size(), v.nbytes, len(v), v.stride(0), v.nelement())]  # fmt: skip

    same(call, X, order=0)


def test_writing_through_views_under_grad():
    def call(lib, x):
        y = x * 1
        y.view(24)[3:7] *= 2
        y.transpose(0, 1)[1] = x[:, 0] * 3
        y[0].diagonal().fill_(5.0)
        y[1].unfold(1, 2, 2).mul_(x[0, :, :2].unsqueeze(1).detach())
        return y * y

    same(call, X)


def test_expanded_memory_is_not_written():
    with pytest.raises(RuntimeError, match=r"expanded.*clone"):
        tg.zeros(1, 3).expand(2, 3).fill_(1)
    x = tg.zeros(2, 3)
    x.expand(2, 3).fill_(1)  # nothing is shared: as in PyTorch
    assert x.all()


def test_fill_diagonal():
    same(lambda lib, x: (x * 1).fill_diagonal_(9.0), M)
    same(lambda lib, x: (x * 1).fill_diagonal_(9.0, wrap=True), RNG.standard_normal((7, 3)))
    same(lambda lib, x: (x * 1).fill_diagonal_(9.0, wrap=True), RNG.standard_normal((8, 3)))
    same(lambda lib, x: (x * 1).fill_diagonal_(9.0), RNG.standard_normal((2, 2, 2)))
    same(lambda lib, x: (x * 1).tril_(), M)
    same(lambda lib, x: (x * 1).triu_(1), M)


@pytest.mark.parametrize("given", [(5000,), (-7, 5000), (3, 20000, 4), (20000, -1, -3), (2**62, 2**62 + 5000)], ids=str)
@pytest.mark.parametrize("backend", [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None])
def test_a_long_arange_is_the_kernels(given, backend):
    with tg.backend(backend):
        assert tg.arange(*given).tolist() == list(range(*given))
