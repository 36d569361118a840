"""Every sample of every op, mapped: value, gradient and view behaviour are those of a loop over the samples."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.func.rules import _DYNAMIC
from tensorgrad.ops.elementwise import Elementwise
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import inputs_of

COUNT = 3


def plain(case):
    """Formulas share one rule: a sample of each will do; there are hundreds."""
    return not isinstance(case.op, Elementwise) or case.sample.name in ("matrix", "scalar", "broadcast", "row", "both")


CASES = [case for case in conformance.cases() if plain(case) and case.op.name not in _DYNAMIC]


def variants(op, position, array):
    """The array and others that are as valid: elements in another order, or scaled where their order matters."""
    # the ends of bags never fall, and the last is the number of indices
    if op.name in ("bag_rows", "summed_rows") and position == 2:
        return [np.minimum(array + i * (array > 0), array[-1]) for i in range(COUNT)]
    if array.dtype.kind in "fc" and array.ndim == 1:
        return [array * (1.0 - 0.05 * i) for i in range(COUNT)]
    return [np.roll(array.reshape(-1), i).reshape(array.shape) for i in range(COUNT)]


def choices(inputs):
    """Which arrays are mapped: all, and each alone."""
    arrays = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray)]
    return sorted({tuple(arrays), *((i,) for i in arrays)}, key=len, reverse=True)


def results_of(op, inputs, attrs):
    results = op(*inputs, **attrs)
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mapped_op_is_a_loop(case):
    op, attrs = case.op, case.sample.attrs
    drawn = inputs_of(op.name, case.sample, "float64")
    for chosen in choices(drawn):
        many = {i: variants(op, i, drawn[i]) for i in chosen}
        tensors, singles = [], []
        for i, x in enumerate(drawn):
            if i in many:
                stacked = np.stack(many[i], axis=-1 if i % 2 else 0)
                tensors.append(tg.tensor(stacked, requires_grad=stacked.dtype.kind in "fc"))
            else:
                tensors.append(tg.tensor(x, requires_grad=x.dtype.kind in "fc") if isinstance(x, np.ndarray) else x)
        where = tuple((-1 if i % 2 else 0) if i in many else None for i in range(len(drawn)))
        mapped = tg.vmap(lambda *xs: results_of(op, xs, attrs), in_dims=where, out_dims=0)
        if any(r is None for r in results_of(op, tensors_at(tensors, many, 0), attrs)):
            mapped = tg.vmap(lambda *xs: tuple(r for r in results_of(op, xs, attrs) if r is not None), in_dims=where)
        got = mapped(*tensors)
        for k in range(COUNT):
            singles.append([r for r in results_of(op, tensors_at(tensors, many, k), attrs) if r is not None])
        want = [tg.stack(list(parts)) for parts in zip(*singles, strict=True)]
        leaves = [x for x in tensors if isinstance(x, tg.Tensor) and x.requires_grad]
        for mine, reference in zip(got, want, strict=True):
            assert mine.dtype == reference.dtype
            assert mine.shape == reference.shape
            close(mine, reference)
            if leaves and reference.requires_grad and case.sample.smooth:
                seed = tg.tensor(np.cos(np.arange(mine.numel())).reshape(tuple(mine.shape))).to(mine.dtype)
                options = {"retain_graph": True, "allow_unused": True, "create_graph": True}
                first = tg.autograd.grad(mine, leaves, seed, **options)
                second = tg.autograd.grad(reference, leaves, seed, **options)
                for a, b in zip(first, second, strict=True):
                    close(*[tg.zeros(1) if g is None else g for g in (a, b)])


def tensors_at(tensors, many, k):
    return [x.select(-1 if i % 2 else 0, k) if i in many else x for i, x in enumerate(tensors)]


def close(a, b):
    np.testing.assert_allclose(
        np.broadcast_to(a.detach().numpy(), b.shape) if a.numel() == 1 else a.detach().numpy(),
        b.detach().numpy(), rtol=1e-9, atol=1e-10,
    )  # fmt: skip
