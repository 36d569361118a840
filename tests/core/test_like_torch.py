"""Short programs that lean on indexing, views, in-place writes, constructors and attributes, run on both libraries."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

torch: Any = pytest.importorskip("torch")


def written(t: Any, key: Any, value: Any) -> Any:
    x = t.arange(6.0).reshape(2, 3)
    x[key(x) if callable(key) else key] = value(x) if callable(value) else value
    return x


def recorded_writes(t: Any) -> Any:
    w, x = t.ones(3, requires_grad=True), t.zeros(2, 3)
    x[0] = w * 2
    x[1, 1:] = w[1:] * 3
    x[:, 0] *= 2
    (x**2).sum().backward()
    return w.grad, x.detach(), x.requires_grad


def views_of_results(t: Any) -> Any:
    w = t.arange(4.0, requires_grad=True)
    x = w * 1
    v = x.view(2, 2)
    v[0] += 1
    v.mul_(2)
    x[1:3].zero_()
    (x * t.arange(4.0)).sum().backward()
    return w.grad, x.detach(), v.detach()


def slice_that_requires_grad(t: Any) -> Any:
    x = t.zeros(4)
    s = x[1:3].requires_grad_()
    (s * t.tensor([1.0, 2.0])).sum().backward()
    x.data[0] = 5
    return s.grad, x.requires_grad, s.is_leaf, x


def strided(t: Any) -> Any:
    w = t.arange(12.0, requires_grad=True)
    x = w * 2
    y = x.as_strided((3, 2), (2, 3), 1)
    windows = x.as_strided((5, 4), (2, 1))
    ((y**2).sum() + (windows**3).sum()).backward()
    return w.grad, y, windows


def parts(t: Any) -> Any:
    z = t.tensor([1 + 2j, 3 - 1j])
    z.real[0], z.imag[1] = 7, -5
    w = t.tensor([1 + 2j, 3 - 1j], requires_grad=True)
    ((w.real * 3 + w.imag**2).sum() + (t.view_as_real(w) ** 2).sum()).backward()
    return z, w.grad, t.view_as_complex(t.arange(4.0).reshape(2, 2))


def reshaped_in_place(t: Any) -> Any:
    x = t.arange(6.0).reshape(1, 2, 3)
    w = t.ones(2, 1, requires_grad=True)
    y = (w * 2).squeeze_()
    (y * t.arange(2.0)).sum().backward()
    shapes = [x.squeeze_().shape, x.t_().shape, x.unsqueeze_(1).shape, x.transpose_(0, 1).shape, x.stride()]
    return shapes, w.grad, x, x.resize_(2), t.zeros(2).set_(x)


def reinterpreted(t: Any) -> Any:
    x = t.tensor([1.0, -2.0, 0.5])
    return x.view(t.int32), x.view(t.uint8).shape, t.arange(4, dtype=t.int16).view(t.int64), x.view(t.float16).dtype


def formats(t: Any) -> Any:
    x = t.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    y = x.contiguous(memory_format=t.channels_last)
    like = t.empty_like(x, memory_format=t.channels_last)
    return (
        y, y.stride(), y.is_contiguous(), y.is_contiguous(memory_format=t.channels_last), like.stride(),
        x.to(memory_format=t.channels_last).stride(), y.clone(memory_format=t.preserve_format).stride(),
        y.contiguous().stride(), t.empty(1, 2, 3, 4, memory_format=t.channels_last).stride(), x.layout == t.strided,
        t.empty_strided((2, 3), (1, 2)).stride(), t.empty_permuted((2, 3, 4), (1, 0, 2)).stride(),
    )  # fmt: skip


def bytes_of_storages(t: Any) -> Any:
    x, y = t.arange(3.0), t.ones(3)
    kept = x.untyped_storage().clone()
    x.untyped_storage().copy_(y.untyped_storage())
    seen = x.tolist(), x.untyped_storage().fill_(-1).tolist(), x.view(t.int32)
    x.untyped_storage()[3] = 1
    return seen, x.view(t.int32), kept.tolist(), y.untyped_storage().tolist()


def copies(t: Any) -> Any:
    x = t.arange(6.0).reshape(2, 3)
    again = pickle.loads(pickle.dumps(x.clone().requires_grad_()))
    return copy.deepcopy(x.t()).stride(), copy.copy(x), again.requires_grad, again.detach(), copy.deepcopy(t.int64)


def variables(t):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        made = t.autograd.Variable(t.ones(2), volatile=True)
    return made, isinstance(made, t.autograd.Variable), [str(one.message) for one in seen]


PROGRAMS: dict[str, Any] = {
    "variables": variables,
    "getitem": lambda t: [
        (x := t.arange(24).reshape(2, 3, 4))[0, ..., 1], x[:, [0, 2], 1:], x[..., None, 0], x[[0, 1], :, [1, 2]],
        x[[[0], [1]], [1, 2]], x[0, :, [1, 2]], x[None, 1, ..., -1], x[1:, ::2, [3, 0]],
        x[:, t.tensor([[0, 1], [2, 2]])],
        x[..., t.tensor(1), :], x[-1, -1, -1], x[2:].shape, x[()].shape, x[..., 0, None, :].shape,
    ],
    "masks": lambda t: [
        (x := t.arange(6).reshape(2, 3))[x % 2 == 0], x[t.tensor([True, False])], x[:, t.tensor([True, False, True])],
        x[t.tensor([True, True]), 1:], x[True].shape, x[False].shape, x[[True, False]], x[x > 9],
    ],
    "numpy-keys": lambda t: [
        (x := t.arange(6))[np.array([1, 2])], x[np.int64(2)], x[range(2, 4)], x[np.array([True, False] * 3)],
        x[t.tensor(2)], x[(t.tensor([1, 2]),)], x[t.tensor(1) : t.tensor(4)],
    ],
    "setitem": lambda t: [
        written(t, (0, slice(None)), 5.0), written(t, (slice(None), [0, 2]), t.tensor([[1.0], [2.0]])),
        written(t, lambda x: x > 2, -1.0), written(t, lambda x: x > 2, lambda x: x[x > 2] * 2),
        written(t, (..., 1), t.arange(2.0)), written(t, (None, 0), t.arange(3.0)),
        written(t, (t.tensor([0, 0, 1]), t.tensor([1, 1, 2])), t.tensor([7.0, 8.0, 9.0])),
        written(t, t.tensor([True, False]), 0), written(t, (1, slice(None, None, 2)), t.ones(1, 1, 2)),
        written(t, 0, True), written(t, slice(None), t.arange(3)),
    ],
    "recorded-writes": recorded_writes,
    "views-of-results": views_of_results,
    "slice-that-requires-grad": slice_that_requires_grad,
    "strided": strided,
    "parts": parts,
    "reshaped-in-place": reshaped_in_place,
    "reinterpreted": reinterpreted,
    "formats": formats,
    "copies": copies,
    "numpy-numbers": lambda t: [
        np.sin(t.arange(3.0)), np.float64(2) * t.arange(3.0), np.float32(2) * t.arange(3), t.arange(3) * np.int64(2),
        t.arange(3.0) + np.float64(1), np.asarray(t.arange(3)).sum(), np.add(t.arange(3.0), 1),
    ],
    "types": lambda t: [
        t.FloatTensor([1, 2]), t.LongTensor([1, 2]), t.FloatTensor(2, 3).shape, isinstance(t.zeros(2), t.FloatTensor),
        isinstance(t.zeros(2), t.LongTensor), t.ones(2).type(), t.ones(2).type("torch.LongTensor"),
        t.BoolTensor([True]),
        t.ones(2).type(t.DoubleTensor), t.ones(2).type(t.int32), t.ByteTensor([1]), t.ones(2).new(2, 3).shape,
        isinstance(t.zeros(2), t.cuda.FloatTensor), str(t.cuda.LongTensor),
        t.ones(2).new([1.0, 2.0]), t.Tensor(2, 3).shape, t.Tensor([1, 2]), t.Tensor().shape, t.tensor(1j).type(),
    ],
    "tensors-in-sequences": lambda t: [
        t.tensor([t.tensor([1]), t.tensor([[2]])]), t.tensor([t.tensor([1.5]), 2]), t.as_tensor([t.tensor([1])]),
        t.tensor([[t.tensor([1]), t.tensor(2)], [3, 4]]), t.FloatTensor([t.tensor([1])]),
    ],
    "attributes": lambda t: [
        (x := t.ones(2, 3)).nelement(), x.ndimension(), x.is_cuda, x.get_device(), x.itemsize, x.stride(), x.nbytes,
        t.ones(3)[1:].storage_offset(), x.t().is_contiguous(), x.is_same_size(x), x.is_sparse, x.element_size(),
        t.ones(3)[1:].untyped_storage().nbytes(), 2 in t.arange(3), 5 in t.arange(3), f"{t.tensor(3.14159):.2f}",
        x.untyped_storage().data_ptr() == x.t().data_ptr(), x.is_set_to(x), x.T.shape, x.H.shape, x.output_nr,
        t.ones(1).apply_(lambda v: v + 1), x.map_(x, lambda a, b: a + b * 2), [0, 1, 2][t.tensor(1)], x.shape.numel(),
        x.storage().tolist(), t.Size([2, 3]) + (4,), t.Size([2, 3])[0:1], str(t.Size([2, 3])), x.is_signed(), x.name,
    ],
    "creation": lambda t: [
        t.zeros(size=(2, 3)), t.full((2,), 3), t.full((2,), True), t.arange(0, 1, 0.25), t.arange(5, 0, -2),
        t.eye(2, 3),
        t.arange(0, 5, 1.5, dtype=t.int64), t.arange(0, 5, 1.5, dtype=t.int32), t.linspace(0, 1, 5),
        t.logspace(0, 2, 3),
        t.tensor([t.tensor(1.0), t.tensor(2.0)]), t.tensor([np.float32(1), 2.0]), t.asarray(np.arange(3)), t.tensor([]),
        t.frombuffer(bytearray(b"abcdefgh"), dtype=t.int32), t.zeros(t.Size([2])), t.ones([]), t.range(0, 3),
        t.zeros(2, out=t.ones(2)), t.tensor([t.tensor(1), 2.5]), t.scalar_tensor(3), t.zeros(2, dtype=float),
    ],
    "powers": lambda t: [
        t.vander(t.tensor([1, 2, 3])), t.vander(t.tensor([1.0, 2.0]), 3, increasing=True), t.vander(t.ones(0)),
        t.vander(t.tensor([2, 3], dtype=t.uint8), N=7), t.vander(t.tensor([True, False])), t.vander(t.ones(2), 0),
        t.vander(t.ones(2), 1),
    ],
    "bytes": bytes_of_storages,
    "names-of-numpy": lambda t: [
        (x := t.arange(6.0).reshape(2, 3)).sum(axis=0), x.sum(1, keepdims=True), t.cat([x, x], axis=1), x.std(axis=0),
        x.max(axis=1)[0], x.argmax(axis=1), t.stack([x, x], axis=1).shape, x.cumsum(axis=0), x.any(axis=1),
    ],
}  # fmt: skip


def flat(result: Any) -> list[Any]:
    if isinstance(result, (list, tuple)) and type(result).__name__ != "Size":
        return [part for one in result for part in flat(one)]
    return [result]


def text(x: Any) -> str:
    if isinstance(x, (tg.Tensor, torch.Tensor)):
        x = (str(x.shape), x.dtype, x.detach().tolist())
    return str(x).replace("tensorgrad.", "torch.")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_same_results(name: str) -> None:
    mine, theirs = (list(map(text, flat(PROGRAMS[name](lib)))) for lib in (tg, torch))
    assert mine == theirs


ERRORS: dict[str, Any] = {
    "negative step": lambda t: t.arange(3)[::-1],
    "index out of range": lambda t: t.arange(3)[3],
    "too many indices": lambda t: t.arange(3)[0, 0],
    "float key": lambda t: t.ones(3)[1.5],
    "text key": lambda t: t.ones(3)["a"],
    "mask of another size": lambda t: t.ones(3)[t.tensor([True, False])],
    "write out of range": lambda t: t.ones(3).__setitem__(5, 1),
    "view of another size": lambda t: t.ones(2, 3).view(5),
    "view without layout": lambda t: t.ones(2, 3).t().view(6),
    "view as larger numbers": lambda t: t.ones(3).view(t.float64),
    "reshape": lambda t: t.ones(2).reshape(3),
    "dim": lambda t: t.ones(2).sum(3),
    "repeated dim": lambda t: t.ones(2, 2).sum((0, 0)),
    "item": lambda t: t.ones(2).item(),
    "int": lambda t: int(t.ones(2)),
    "bool": lambda t: bool(t.ones(2)),
    "numpy with grad": lambda t: t.ones(2).requires_grad_().numpy(),
    "write to leaf": lambda t: t.ones(3).requires_grad_().add_(1),
    "transpose a leaf": lambda t: t.ones(2, 3, requires_grad=True).t_(),
    "write to expanded": lambda t: t.ones(3).expand(2, 3).add_(1),
    "integers require grad": lambda t: t.ones(3).long().requires_grad_(),
    "negative size": lambda t: t.zeros(-1),
    "ragged": lambda t: t.tensor([[1], [1, 2]]),
    "text": lambda t: t.tensor("a"),
    "rows in a sequence": lambda t: t.tensor([t.ones(2), t.ones(2)]),
    "integer rows in a sequence": lambda t: t.tensor([t.arange(2)]),
    "no number in a sequence": lambda t: t.FloatTensor([t.arange(0)]),
    "cat of nothing": lambda t: t.cat([]),
    "stack of two shapes": lambda t: t.stack([t.ones(2), t.ones(3)]),
    "iterate a number": lambda t: iter(t.tensor(1)),
    "length of a number": lambda t: len(t.tensor(1)),
    "gather": lambda t: t.ones(2).gather(0, t.tensor([5])),
    "strides beyond": lambda t: t.ones(3).as_strided((2, 2), (2, 1)),
    "division by zero": lambda t: t.arange(3) // 0,
    "remainder by zero": lambda t: t.arange(3) % t.tensor([1, 0, 2]),
    "step of zero": lambda t: t.arange(0, 3, 0),
    "maximum of nothing": lambda t: t.zeros(0).max(),
    "resize with grad": lambda t: t.ones(2, requires_grad=True).resize_(3),
    "apply with grad": lambda t: t.ones(2, requires_grad=True).apply_(abs),
    "buffer too short": lambda t: t.frombuffer(bytearray(3), dtype=t.int32),
    "layout": lambda t: t.view_as_complex(t.ones(3)),
    "parts that begin in the midst": lambda t: t.view_as_complex(t.ones(9)[1:].reshape(4, 2)),
    "wider elements that begin in the midst": lambda t: t.ones(9)[1:].view(t.float64),
    "complex numbers that begin in the midst": lambda t: t.ones(9)[1:].view(t.complex64),
    "imag of real": lambda t: t.ones(2).imag,
    "gradient of another dtype": lambda t: setattr(t.ones(2), "grad", t.ones(2).half()),
    "gradient of integers": lambda t: setattr(t.ones(2), "grad", t.ones(2).long()),
    "gradient of another shape": lambda t: setattr(t.ones(2), "grad", t.ones(3)),
    "powers of a matrix": lambda t: t.vander(t.ones(2, 2)),
    "fewer powers than none": lambda t: t.vander(t.ones(2), -1),
    "bytes of another storage": lambda t: t.ones(2).untyped_storage().copy_(t.ones(3).untyped_storage()),
    "bytes of a tensor": lambda t: t.ones(2).untyped_storage().copy_(t.ones(2)),
    "row as a slope": lambda t: t.nn.functional.leaky_relu(t.ones(2), t.ones(1)),
    "row as a margin": lambda t: t.nn.functional.margin_ranking_loss(t.ones(2), t.ones(2), t.ones(2), t.ones(2)),
    "row as an alpha": lambda t: t.add(t.ones(2), t.ones(2), alpha=t.ones(2)),
    "row as a value": lambda t: t.addcmul(t.ones(2), t.ones(2), t.ones(2), value=t.ones(2)),
    "row as a scale": lambda t: t.nn.functional.scaled_dot_product_attention(*[t.ones(1, 2)] * 3, scale=t.ones(1)),
    "row as a correction": lambda t: t.std(t.ones(2), correction=t.ones(1)),
    "row as a norm": lambda t: t.renorm(t.ones(2, 2), 2, 0, t.ones(1)),
    "row as a power": lambda t: t.cdist(t.ones(2, 2), t.ones(2, 2), t.ones(1)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_same_errors(name: str) -> None:
    with pytest.raises(Exception) as theirs:  # whatever PyTorch raises is the reference
        ERRORS[name](torch)
    with pytest.raises(type(theirs.value)):
        ERRORS[name](tg)


def test_writing_bytes_is_noticed_by_what_was_saved() -> None:
    w, x = tg.ones(2, requires_grad=True), tg.ones(2)
    y = (w * x).sum()
    x.untyped_storage().fill_(0)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    with pytest.raises(TypeError, match="300 is no byte"):
        x.untyped_storage().fill_(300)


@pytest.mark.parametrize("p", [1, 2, 3, float("inf")])
def test_renorm_of_what_leaves_the_range_of_float32(p: Any) -> None:
    """They are those of float64, values and gradients."""
    for scale in (1e20, 1e-25):
        found = []
        for kind in (tg.float32, tg.float64):
            x = (tg.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=tg.float64) * scale).to(kind).requires_grad_()
            y = tg.renorm(x, p, 0, scale * 1e-3)
            y.backward(tg.tensor([[1.0, 1.0], [0.5, 2.0]], dtype=kind))
            found.append([y.double() / scale, x.grad.double()])
        for mine, exact in zip(*found, strict=True):
            np.testing.assert_allclose(mine.detach().numpy(), exact.detach().numpy(), rtol=1e-5, atol=1e-9)


def test_more_elements_than_can_be_gone_through() -> None:
    x = tg.ones(3).expand(10**15, 3)
    assert x.mean().item() == 1
    assert x.sum(0).tolist() == pytest.approx([1e15] * 3)
    with pytest.raises(RuntimeError, match="too many"):
        x.sum(1)


def test_pinning_needs_a_gpu() -> None:
    if tg.cuda.is_available():
        assert tg.ones(2).pin_memory().is_pinned()
    else:
        with pytest.raises(RuntimeError):
            tg.ones(2).pin_memory()
