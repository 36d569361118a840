"""The tape's inner loops in C against the same in Python: the same bits, the same errors, nothing left behind."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import core
from tensorgrad.backends import registry

needs_c = pytest.mark.skipif(core.native is None, reason="the tape's module is not built, or switched off")


def _x(*shape: int, seed: int = 0, grad: bool = True, dtype: str = "float32") -> Any:
    values = np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(dtype)
    return tg.tensor(values).requires_grad_(grad)


@cache  # and not at import: the op table counts what is defined by then as the package's
def _product_of_35() -> Any:
    names = [f"x{i}" for i in range(35)]
    return tg.elementwise(eval(f"lambda {', '.join(names)}: {' * '.join(names)}"), name="product_of_35")


def _error(run: Callable[[], Any]) -> tuple[str, str]:
    try:
        run()
    except Exception as error:  # noqa: BLE001 - the words are the result
        return type(error).__name__, str(error)
    return "", "no error"


def formulas() -> Any:
    x, row, number, wide = _x(3, 4), _x(4, seed=1), _x(seed=2), _x(3, 4, seed=3, dtype="float64")
    y = ((x * row + number) / wide - x * 2 + 1.5 * row.tanh()).sqrt().exp() - x.clamp(0.7, 1.2)
    (y * y).sum().backward()
    _product_of_35()(*[row] * 35).sum().backward()
    return y, x.grad, row.grad, number.grad, wide.grad


def records() -> Any:
    x, w, b = _x(3, 4), _x(5, 4, seed=1), _x(5, seed=2)
    y = tg.nn.functional.linear(x, w, b).softmax(-1).cumsum(0)
    values, where = y.max(1)
    (values.sum() + y.std() + (x @ w.t()).mean()).backward()
    return y, where, x.grad, w.grad, b.grad


def views() -> Any:
    x = _x(4, 6)
    y = x * 1
    part = y[1:3].reshape(2, 3, 2).transpose(0, 2)
    part *= 2  # the base's history is rewritten
    a, b = y.unbind(0)[0], y.split(2, 1)[1]
    ((y * y).sum() + (a * 3).sum() + (b * b).sum() + part.sum()).backward()
    with tg.no_grad():
        frozen = y[0]
    return y, part, x.grad, frozen.requires_grad, part.is_leaf, y._version


_VIEWS = (
    "view(4, 6)", "view(-1)", "view(2, -1, 3)", "view((6, 4))", "view(-1, -1)", "view(5)", "view(-2)", "view(0, -1)",
    "view(2**40, 2**40)", "view(True)", "view(2.0)", "view(tg.int32)", "view(*[1] * 62, 24)", "reshape(3, 8)",
    "reshape([4, -1])", "reshape(24, 1, 1)", "reshape(shape=(24,))", "flatten()", "flatten(1)", "flatten(0, 1)",
    "flatten(start_dim=1)", "flatten(2, 1)", "flatten(1, 1)", "flatten(5)", "squeeze()", "squeeze(0)",
    "squeeze(dim=-1)", "squeeze((0, 1))", "squeeze(7)", "unsqueeze(0)", "unsqueeze(-1)", "unsqueeze(dim=1)",
    "unsqueeze(axis=1)", "unsqueeze(9)", "unsqueeze(True)", "permute(2, 0, 1)", "permute((1, 0, 2))",
    "permute(-1, 0, 1)", "permute(0, 0, 1)", "permute(0, 1)", "permute(0, 1, 5)", "transpose(0, 1)",
    "transpose(-1, -2)", "transpose(dim0=0, dim1=1)", "transpose(0, 3)", "transpose(0)", "t()", "T", "mT",
    "expand(2, 3, 4)", "expand(5, -1, -1, -1)", "expand(-1, 3, 4)", "expand(2, 7, 4)", "expand(-1, 2, 3, 4)",
    "expand(2, 3)", "expand((1, 2, 3, 4))", "expand(0, 3, 4)", "select(0, 1)", "select(-1, -1)", "select(0, 4)",
    "select(dim=0, index=0)", "select(3, 0)", "narrow(0, 0, 1)", "narrow(2, 1, 3)", "narrow(1, -1, 1)",
    "narrow(0, 1, 9)", "narrow(0, 0, -1)", "narrow(0, -9, 1)", "split(2)", "split(1, 1)", "split(2, dim=-1)",
    "split(2, axis=1)", "split([1, 2], 1)", "split((1, 1), 1)", "split(0)", "split(-1)", "split(2, 5)", "split(2**70)",
    "chunk(2)", "chunk(2, -1)", "chunk(9, dim=1)", "chunk(0)", "chunk(2, 8)", "unbind()", "unbind(1)",
    "unbind(dim=-1)", "unbind(4)", "__getitem__(0)", "__getitem__(-1)", "__getitem__(5)", "__getitem__(True)",
    "__getitem__(None)", "__getitem__(...)", "__getitem__(slice(1, None))", "__getitem__(slice(5, 1))",
    "__getitem__(slice(None, None, 2))", "__getitem__(slice(None, None, -1))", "__getitem__(slice(None, None, 0))",
    "__getitem__((0, slice(1, 3), -1))", "__getitem__((..., 1))", "__getitem__((None, 0, ..., None))",
    "__getitem__((slice(None), slice(-2, None)))", "__getitem__((..., 0, ...))", "__getitem__((0, 0, 0))",
    "__getitem__((0, 0, 0, 0))", "__getitem__(())", "__getitem__((0, [1]))", "__getitem__(2**70)",
    "__getitem__(slice(-2**70, 2**70))", "__getitem__(0.5)", "__getitem__((slice(9, 9), None))", "swapaxes(0, -1)",
    "swapdims(0, 9)", "movedim(0, 1)", "movedim((0, 1), [-1, 0])", "moveaxis(0, (1,))", "movedim((0, 0), (1, 2))",
    "movedim((0, 1), (1, 1))", "movedim(5, 0)", "movedim((), ())", "movedim(source=0, destination=1)", "ravel()",
    "view_as(tg.ones(4, 6))", "view_as(3)", "reshape_as(tg.ones(24))", "reshape_as(tg.ones(5))",
    "unflatten(0, (1, -1))",
    "unflatten(-1, (-1, -1))", "unflatten(1, [3])", "unflatten(0, (5,))", "unflatten(9, (1,))", "unflatten(1, 3)",
    "expand_as(tg.ones(2, 2, 3, 4))", "expand_as(tg.ones(2))", "broadcast_to((2, 2, 3, 4))", "broadcast_to(3)",
    "broadcast_to((-1, 3, 4))", "tensor_split(2)", "tensor_split(5, 1)", "tensor_split((1, 3), dim=1)",
    "tensor_split([-1, 1], -1)", "tensor_split(0)", "tensor_split(tg.tensor(2))", "tensor_split(2, 9)", "diagonal()",
    "diagonal(1)", "diagonal(-1, 1, 0)", "diagonal(9)", "diagonal(offset=1, dim1=0, dim2=-1)", "diagonal(0, 1, 1)",
    "diagonal(-99)", "unfold(0, 1, 1)", "unfold(-1, 2, 3)", "unfold(1, 9, 1)", "unfold(0, 1, 0)", "unfold(0, 0, 1)",
    "unfold(7, 1, 1)", "unfold(0, 1, 2**40)",
)  # fmt: skip


def _seen_as(x: Any, call: str) -> Any:
    x.grad = None
    try:
        got = eval(call if call.startswith(("x", "tg.")) else f"x.{call}", {"x": x, "tg": tg})
    except (TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:  # what a wrong call may raise
        return type(error).__name__, str(error)
    parts = list(got) if isinstance(got, tuple) else [got]
    facts = [(y.shape, y.stride(), y.storage_offset(), y.requires_grad, y._base is x, str(y.tolist())) for y in parts]
    if parts and parts[0].requires_grad:
        sum([(y * (y.detach() + i)).sum() for i, y in enumerate(parts, 1)]).backward()
    return facts, x.grad


_KEYS = (
    "tg.tensor([1, 0, -1])", "tg.tensor([[1], [0]])", "tg.tensor(1)", "tg.tensor([5])", "tg.tensor([], dtype=tg.int64)",
    "tg.tensor([1, 0], dtype=tg.int32)", "tg.tensor([0.5])", "[1, 0]", "[]", "[True, False]", "[[1], [0]]", "[2**70]",
    "(tg.tensor([1, 0]), 1)", "(tg.tensor([1, 0]), tg.tensor([0, 2]))", "(tg.tensor([1, 0]), tg.tensor([0, 2, 1]))",
    "(slice(None), tg.tensor([1, 0]))", "(slice(0, 1), tg.tensor([1, 0]))", "(0, tg.tensor([1, 0]))", "(..., [1, 0])",
    "(None, [0], slice(None), [1, 1])", "([0], None, [1])", "([0], slice(1, 2), [1])", "([0], [1], [1], [0])",
    "x > 0.9",
    "x[0] > 0.9", "(x[0] > 0.9,)", "(slice(None), x[0] > 0.9)", "x[:, 0] > 0.9", "(x[:, 0] > 0.9, 0)", "x > 9",
    "tg.tensor([True])", "tg.tensor(True)", "tg.tensor([True, False])", "(tg.tensor([True, False]), [1, 0])",
)  # fmt: skip
_F = "tg.nn.functional"
_FUNCTIONS = (
    *(f"x[{key}]" for key in _KEYS), "x.masked_select(x > 0.9)", "x.masked_select(x[0] > 0.9)",
    "x.masked_select(x)", "tg.masked_select(x, mask=x > 1)", "x.masked_select(x > 9)",
    *(f"x.{name}({given})" for name in ("gather", "index_select", "take_along_dim") for given in (
        "0, tg.tensor([[1, 0], [0, 0]])", "1, index=tg.tensor([[1, 0, 1]])", "dim=-1, index=tg.tensor([1])", "0, 1",
        "9, tg.tensor([0])", "0, tg.tensor([-1, 0])", "0, tg.tensor([7])", "tg.tensor([[1, -1, 0]]), 0",
        "0, tg.tensor([1.0])", "tg.zeros(2, 3, dtype=tg.int64), 0", "tg.zeros(2, 3, dtype=tg.int64), dim=9",
    )),
    *(f"x.{name}({given})" for name in ("scatter", "scatter_add", "index_add") for given in (
        "0, tg.tensor([[1, 0, 1]]), x[:1] * 2", "1, tg.tensor([[1, 0], [0, 0]]), x[:2, :2]", "0, tg.tensor([1, 0]), x",
        "0, tg.tensor([[9, 0, 1]]), x[:1]", "0, tg.tensor([[1, 0]]), x", "0, tg.tensor([[1, 0]]), 2.5",
        "0, tg.tensor([0, 1]), x, alpha=2", "0, tg.tensor([-1]), x[:1]", "0, tg.tensor([0]), x[0].double()",
    )),
    *(f"x.scatter_reduce(0, tg.tensor([[1, 0, 1]]), x[:1] * 2, {how!r})" for how in ("amax", "prod", "sum", "no")),
    "x.take(tg.tensor([1, -1]))", "x.take(tg.tensor([[5]]))", "x.t().take(tg.tensor([1]))", "x.take(tg.tensor([99]))",
    *(f"x.index_put({given})" for given in (
        "(tg.tensor([1, 0]),), x[:2] * 2", "(tg.tensor([0, 0]),), x[0], True", "[tg.tensor([1, 0])] * 2, x[0, :2]",
        "(tg.tensor([9]),), x[:1]", "(tg.tensor([1]),), 2.0", "(tg.tensor([1, 0]),), x[:, :2]", "tg.tensor([1]), x",
        "(x > 0.9,), x[0, 0]", "(tg.tensor([0]),) * 9, x", "(None, tg.tensor([1])), x[:, :1], accumulate=True",
        "(tg.tensor([-1]),), values=x[0].double()",
    )),
    *(f"x.{name}({given})" for name in ("flip", "tril", "triu") for given in (
        "0", "0, 1", "(0, -1)", "dims=[1]", "(0, 0)", "5", "()", "", "1.0", "-1", "diagonal=1", "True", "None",
    )),
    *(f"x.roll({given})" for given in (
        "1", "1, 0", "(1, -7), (0, 1)", "shifts=2, dims=-1", "(1, 2), 0", "1, (0, 0)", "(1, 2), (0, 0)", "1, 9",
        "2**70, 0", "0, 0",
    )),
    *(f"{_F}.pad(x, {given})" for given in (
        "(1, 2)", "(1, 2, 3, 0)", "[0, 1], value=2", "(1, 1), 'constant', 0.5", "(-1, 1)", "(1,)", "(1, 1) * 9",
        "(1, 1), 'reflect'", "(2, 1, 1, 0), mode='reflect'", "(9, 9), 'reflect'", "(1, 2, 2, 1), 'replicate'",
        "(1, 2, 1, 1), 'circular'", "(9, 0), 'circular'", "(1, 1), 'no'", "(1, 1), 'reflect', 1.0", "(0, 0)", "()",
 "(1, 1), value=None", "pad=(1, 1), mode='replicate', value=0.0",
    )),
    *(f"{name}({given})" for name in ("tg.cat", "tg.stack") for given in (
        "(x, x * 2), 0", "[x, x], dim=-1", "[x], 1", "(x, x[:1])", "[x, x.double()], 1", "[], 0", "x", "(x, x), 5",
        "[x, tg.ones(0)], 0", "[x, 1.0]", "(x,) * 20", "[x[0, 0], x[0, 0]]", "(x, x), axis=1", "[x, x.t()]",
    )),
    *(f"x.repeat({given})" for given in ("2, 1", "(2, 0)", "1", "2, 1, 2", "-1, 1")), "x.repeat_interleave(2)",
    "x.repeat_interleave(2, dim=1)", "x.repeat_interleave(-1)", "x.repeat_interleave(tg.tensor([1, 2, 0]), 1)",
    *(f"{_F}.unfold(x.reshape(1, 1, *x.shape), {given})" for given in (
        "1", "2", "(2, 1), 1, 1, 2", "2, padding=(1, 0), stride=(1, 2)", "9", "0", "2, dilation=2, padding=1", "2.0",
    )),
    *(f"{_F}.fold(x.reshape(1, *x.shape), {given})" for given in ("(3, 1), (2, 1)", "3, 1", "2, 2", "(4, 1), (2, 1)")),
)  # fmt: skip


_WRITES = (
    *(f"x.__setitem__({key}, {value})" for value in (
        "0", "2.5", "1e39", "True", "x[:1] * 2", "x[0] + 1", "tg.ones(3)", "x", "x.double()", "[1]", "2**60",
    ) for key in (*_KEYS[:6], "[1, 0]", "([0], [1])", "(slice(None), [1, 0])", "(0, [1])", "x > 0.9", "x[0] > 0.9",
        "1", "-1", "9", "slice(0, 1)", "(slice(None), 1)", "...", "None", "(0, 0)", "slice(None, None, 2)", "()",
    )),
    *(f"x.{call}" for call in (
        "fill_(2)", "fill_(2.5)", "fill_(1e39)", "fill_(tg.tensor(1.0))", "fill_(True)", "fill_(x[0])", "zero_()",
        "copy_(x * 2)", "copy_(x[0] + 1)", "copy_(3.0)", "copy_(x)", "copy_(x.flip(0))", "copy_(tg.ones(2, 3))",
        "copy_(tg.ones(7))", "copy_(x.double())", "copy_(x.t())", "fill_('a')", "zero_(1)",
    )),
    *(f"x.{name}({given})" for name in ("scatter_", "scatter_add_", "index_add_") for given in (
        "0, tg.tensor([[1, 0, 1]]), x[:1] * 2", "0, tg.tensor([[1, 0, 1]]), x[:1]",
        "0, tg.tensor([[9, 0, 1]]), x[:1] + 0",
        "1, index=tg.tensor([[1, 0, 2]] * 2), src=x + 1", "0, tg.tensor([0, 1]), x * 2", "0, tg.tensor([0, 0]), x",
        "0, tg.tensor([0, 5]), x * 2", "0, tg.tensor([1]), x[:1].double()", "0, tg.tensor([[0]]), 2.0", "5, x, x",
    )),
    *(f"x.index_put_({given})" for given in (
        "(tg.tensor([1, 0]),), x * 2", "(tg.tensor([0, 0]),), x[0] * 2, True", "[tg.tensor([1, 0])] * 2, x[0, :2] + 1",
        "(tg.tensor([9]),), x[:1] + 1", "(tg.tensor([1]),), 2.0", "(tg.tensor([1, 0]),), x", "(x > 0.9,), x[0, 0] + 0",
    )),
)  # fmt: skip


def writes() -> Any:
    """Writes in place: leaves, what nobody records, and views of it, in memory of all kinds."""

    def once(make: Any, call: str) -> Any:
        x = make()
        seen = _seen_as(x, f"x.detach() if {call} is None else x.detach()")
        return seen, x.detach(), x._version

    both = np.ones((2, 3), "float32")
    makers = (
        lambda: _x(2, 3, grad=False), lambda: _x(3, 2, grad=False).t(), lambda: _x(4, 3, grad=False)[::2], _x,
        lambda: tg.arange(6).reshape(2, 3), lambda: _x(2, 3) * 1, lambda: tg.from_numpy(both[:, ::-1].copy()),
        lambda: _x(1, 3, grad=False).expand(2, 3), lambda: tg.tensor([[True, False, True]] * 2), lambda: _x(2, 3),
    )  # fmt: skip
    return [(call, [once(make, call) for make in makers]) for call in _WRITES]


_FACTORIES = (
    *(f"tg.{name}({given})" for name in ("zeros", "ones", "full", "arange") for given in (
        "", "3", "2, 3", "(2, 3)", "[2], 1.5", "(2,), 3", "(2,), 1e39", "(2,), True", "2, dtype=tg.int64", "-1", "1.5",
        "(2,), float('nan'), dtype=tg.float64", "0", "()", "2, 0", "1, 7, 2", "7, 1, -2", "1, 7, 0", "7, 1", "1, 1, 5",
        "2, requires_grad=True", "size=(2,)", "(2**40, 2**40)", "2, dtype='float64'", "x", "2, dtype=tg.bool",
    )),
    *(f"tg.{name}(x{given})" for name in ("zeros_like", "ones_like", "full_like") for given in (
        "", ", 2.0", ", 2", ", dtype=tg.float64", ", float('inf')", ", 2.0, dtype=tg.int32", ", requires_grad=True",
    )),
    "x.new_zeros(2, 3)", "x.new_ones((2,))", "x.new_zeros(2, dtype=tg.int8)", "x.new_zeros(-1)", "tg.zeros_like(1)",
)  # fmt: skip


_DRAWS = (
    *(f"tg.{name}({given})" for name in ("rand", "randn") for given in (
        "", "7", "2, 3", "(2, 3)", "x.shape", "-1", "1.5", "0", "2, dtype=tg.float64", "2, dtype=tg.bfloat16", "x",
        "2, dtype=tg.complex64", "2, dtype=tg.int64", "2, requires_grad=True", "size=(2,)", "(2**40, 2**40)",
        "2, generator=tg.Generator().manual_seed(1)",
    )),
    *(f"tg.{name}(x{given})" for name in ("rand_like", "randn_like") for given in ("", ", dtype=tg.float64", ", 1")),
    *(f"tg.randint({given})" for given in (
        "9, (5,)", "-3, 4, (2, 3)", "4, 4, (2,)", "0, 3, 2", "2, ()", "2**70, (2,)", "True, (3,)",
        "5", "3, [2]", "0, 2, (-1,)", "5, (2,), dtype=tg.int8",
    )),
    "tg.randperm(7)", "tg.randperm(0)", "tg.randperm(-1)", "tg.randperm(1.5)", "tg.randperm(5, dtype=tg.int32)",
    "tg.bernoulli(x)", "tg.bernoulli(x.sigmoid())", "x.sigmoid().bernoulli()", "tg.bernoulli(x, 0.3)",
    "tg.bernoulli(x / 0)", "tg.bernoulli(x.detach().sigmoid())",
    *(f"{target}.{name}({given})" for name in ("uniform_", "normal_") for given in ("", "0.5, 2.0", "2.0, -1.0")
      for target in ("x", "x.detach()", "x.detach().clone()", "x.clone()", "x.detach().clone().T")),
)  # fmt: skip


def draws() -> Any:
    def once(make: Any, call: str) -> Any:
        tg.manual_seed(5)
        x = make()
        # what is drawn afterwards shows how far the generator moved
        return _seen_as(x, call), x.detach(), x._version, tg.rand(2)

    makers = (
        lambda: _x(2, 3), lambda: _x(3, 2, grad=False).t(), lambda: _x(2, 3, grad=False, dtype="float64"), _x,
        lambda: tg.arange(3), lambda: _x(2).to(tg.bfloat16).detach(), lambda: _x(0, 3),
    )  # fmt: skip
    state = tg.get_rng_state()
    try:
        return [(call, [once(make, call) for make in makers]) for call in _DRAWS]
    finally:
        tg.set_rng_state(state)


def factories() -> Any:
    layouts = (_x(2, 3), tg.arange(3), _x(2).to(tg.bfloat16).detach(), _x(), tg.tensor([True]))
    seen = [(call, [_seen_as(x, call) for x in layouts]) for call in _FACTORIES]
    before = tg.get_default_dtype()
    tg.set_default_dtype(tg.float64)
    try:
        return seen, tg.zeros(2), tg.full((2,), 1e300), [tg.ones(2).dtype.name, tg.arange(2).dtype.name]
    finally:
        tg.set_default_dtype(before)


def functions() -> Any:
    layouts = (
        _x(2, 3), _x(3, 2).detach().t().requires_grad_(), _x(2, 3, dtype="float64", grad=False), _x(0, 3), _x(), _x(4),
        tg.arange(6).reshape(2, 3), tg.tensor([[True, False, True]]), _x(2, 3).to(tg.bfloat16).detach(),
    )  # fmt: skip
    return [(call, [_seen_as(x, call) for x in layouts]) for call in _FUNCTIONS]


def geometry() -> Any:
    base = _x(4, 6, 5).detach()
    layouts = (
        _x(2, 3, 4), _x(4, 3, 2).detach().permute(2, 1, 0).requires_grad_(), base[1:3, ::2, 1:].requires_grad_(),
        base[0, 0, 0].expand(2, 3, 4).requires_grad_(), _x(1, 2, 1, 12, grad=False), _x(0, 3, 4), _x(4, 6), _x(),
        tg.arange(24).reshape(2, 3, 4),
    )  # fmt: skip
    return [(call, [_seen_as(x, call) for x in layouts]) for call in _VIEWS]


_REDUCED = ("sum", "mean", "amax", "any", "logsumexp", "std", "max", "argmin", "median", "norm", "softmax", "cumsum")
_DIRECT = (
    *(f"{name}({given})" for name in _REDUCED for given in (
        "", "1", "-1", "dim=0", "axis=-2", "5", "True", "1.0", "None", "(0, -1)", "[1]", "(0, 0)", "(0, 7)", "()",
        "dim=1, keepdim=True", "0, True", "0, keepdim=1", "0, 1, 2, 3, 4", "dim=0, no=1", "0, dim=0", "tg.tensor(1)",
        "0, out=tg.empty(0)", "2**70", "dim=(1, 2**70)",
    )),
    "sum(dtype=tg.float64)", "var(0)", "var(unbiased=False)", "var(False)", "var(1, correction=0)", "var(1, False)",
    "norm(1)", "norm(3.0, 1)", "norm('fro', 0)", "norm('nuc')", "norm(float('inf'), dim=(0, 1))", "norm(p=2, dim=-1)",
    "sort()", "sort(0, True)", "sort(descending=True, stable=True)", "sort(0, 1)", "argsort(1)", "topk(2)",
    "topk(2, 0, False)", "topk(k=1, dim=1, sorted=False)", "topk(99)", "topk(2.0)", "kthvalue(2)", "kthvalue(9, 0)",
    "kthvalue(k=1, dim=0, keepdim=True)", "cummax(0)", "logcumsumexp(-1)", "count_nonzero()", "count_nonzero((0, 1))",
    "max(x)", "max(other=x)", "prod(0)", "min(1)[1]", "argmax(0, keepdim=True)", "argmax(keepdim=True)",
)  # fmt: skip


def direct() -> Any:
    layouts = (
        _x(2, 3, 4), _x(4, 3).detach().t().requires_grad_(), _x(0, 3), _x(3, 0), _x(), _x(5, dtype="float64"),
        tg.arange(12).reshape(3, 4), tg.tensor([[True, False]]), tg.tensor([[1j, 2.0]]),
    )  # fmt: skip
    return [(call, [_seen_as(x, call) for x in layouts]) for call in _DIRECT]


def several_outputs() -> Any:
    x = _x(5, 3)
    values, index = x.sort(0)
    first, second = values.chunk(2, 0)
    mean_and_variance = tg.var_mean(x, 0)
    q, r = tg.linalg.qr(x)  # the second output enters a formula, a record and a view
    ((r * r).sum() + q.sum() * r.sum() + r.t()[0].sum()).backward(retain_graph=True)
    (first.sum() * second.sum() + mean_and_variance[0].sum()).backward()
    return values, index, x.grad


def higher() -> Any:
    x = _x(4)
    (dx,) = tg.autograd.grad((x**3 * x.sin()).sum(), x, create_graph=True)
    (ddx,) = tg.autograd.grad((dx * dx).sum(), x, create_graph=True)
    ddx.sum().backward()
    return dx, ddx, x.grad


def hooks() -> Any:
    x, seen = _x(3), []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.tolist()) or g * 10)
    x.register_hook(lambda g: g + 1)
    y.retain_grad()
    z = y.exp()
    z.grad_fn.register_hook(lambda grads, outs: seen.append((len(grads), len(outs))))
    z.sum().backward()
    with tg.autograd.graph.saved_tensors_hooks(lambda t: t.numpy() * 2, tg.from_numpy):
        w = (x * x).sum()
    w.backward()
    return seen, x.grad, y.grad


def accumulation() -> Any:
    x, y = _x(3), _x(3, seed=1)
    (x + y).sum().backward()  # one array arrives at two leaves
    shared = x.grad.data_ptr() == y.grad.data_ptr()
    z = (x * x).sum()
    z.backward(retain_graph=True)
    z.backward()
    return shared, x.grad, y.grad


def modes() -> Any:
    x = _x(2)
    with tg.inference_mode():
        inferred = x * 2
    with tg.no_grad():
        plain = x + x
    return inferred.is_inference(), plain.requires_grad, (x > 1).requires_grad, (x * 1).requires_grad


def training() -> Any:
    tg.manual_seed(0)
    nn = tg.nn
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = tg.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(_x(6, 4, grad=False)), tg.arange(6) % 3)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [p.detach() for p in model.parameters()], model[0].weight._version


def errors() -> Any:
    x, y = _x(3), _x(4)
    once = (x * x).sum()
    once.backward()
    changed = x * 1
    product = (changed * changed).sum()
    changed += 1
    with tg.inference_mode():
        inferred = tg.ones(3)
    w = _x(2, 3)
    return [
        _error(run)
        for run in (
            lambda: x + y, lambda: x + "a", lambda: "a" * x, lambda: x.sum(5),
            lambda: tg.nn.functional.linear(x, _x(2, 2)),
            lambda: x & x, lambda: once.backward(), lambda: product.backward(), lambda: x.backward(),
            lambda: x * inferred, lambda: w.softmax(3), lambda: tg.ops.pointwise.add(x),
            lambda: x.detach().sum().backward(), lambda: tg.arange(3) + 2**70,
        )
    ]  # fmt: skip


PROGRAMS = (
    formulas, records, views, geometry, direct, functions, factories, draws, writes, several_outputs, higher, hooks,
    accumulation, modes, training, errors,
)  # fmt: skip


def _bare(value: Any) -> Any:
    if isinstance(value, tg.Tensor):
        array = value.detach().numpy()
        return (array.dtype.name, array.shape, array.tobytes())
    return [_bare(part) for part in value] if isinstance(value, (tuple, list)) else value


def _results() -> dict[str, Any]:
    return {program.__name__: _bare(program()) for program in PROGRAMS}


@pytest.fixture(scope="module")
def in_python() -> dict[str, Any]:
    code = (
        "import pickle, sys; from tests.core import test_tape as t; sys.stdout.buffer.write(pickle.dumps(t._results()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import tests.core.test_tape as t; assert t.core.native is None; {code}"],
        env={**os.environ, "TENSORGRAD_TAPE": "python"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = pickle.loads(done.stdout)
    return found


@needs_c
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_as_in_python(program: Callable[[], Any], in_python: dict[str, Any]) -> None:
    assert _bare(program()) == in_python[program.__name__]


@pytest.mark.parametrize(
    "program",
    [p for p in PROGRAMS if p not in (errors, geometry, direct, functions, factories, draws, writes)],
    ids=lambda program: program.__name__,
)
def test_leaves_nothing_behind(program: Callable[[], Any]) -> None:
    def growth() -> int:
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(40):
            program()
        gc.collect()
        return sys.getallocatedblocks() - before

    assert any(growth() < 40 for _ in range(12))  # forty rounds that each lose an object; caches must fill first


_USUAL = (
    "x.sum(1)", "x.std(0, keepdim=True)", "x.max(1)", "x.max()", "x.argmax()", "x.cumsum(0)", "x.sort()",
    "x.softmax(-1)", "x.norm(1, dim=0)", "x.topk(2)", "x.mm(x)", "x.mv(x[0])", "x.dot(x)", "tg.bmm(x, x)",
    "x.to(tg.float64)", "x.double()", "x.add(x, alpha=2)", "x.add_(1)", "x.mul_(2.0)", "x.lerp(x, 0.5)",
    "x.clamp_(0, 1)", "x.exp()", "x.eq(x)", "x.relu_()", "x.gather(1, i)", "x.take_along_dim(i, 1)",
    "x.scatter(1, i, x)", "x.scatter_add_(1, i, x * 2)", "x.index_select(1, i[0])",
    "x.scatter_reduce(0, i, x, 'amax')", "x.index_put((i[0],), x)", "x.index_put_((i[0], i[1]), x[0] * 2)",
    "x.take(i[0])", "x.index_add_(0, i[0], x * 2)", "x.flip(0, 1)", "x.roll(1, 0)", "x.diagonal()", "x.tril(1)",
    "x.unfold(0, 2, 1)", "tg.cat((x, x), 1)", "tg.stack([x, x])", "F.pad(x, (1, 1))", "F.pad(x, (1, 1), 'reflect')",
    "F.softmax(x, dim=1)", "F.max_pool2d(x, 2)", "F.avg_pool1d(x, 2)", "F.conv1d(x, x, padding=1)", "F.unfold(x, 2)",
    "F.grid_sample(x, x[..., :2])",
)  # fmt: skip


@needs_c
@pytest.mark.skipif(registry.class_of("cpp").why_not() is not None, reason="kernels that write in place are C++'s")
@pytest.mark.parametrize("call", _USUAL)
def test_a_usual_call_enters_no_function(call: str) -> None:
    # each is right for tensors of some rank
    i, entered = tg.tensor([[0, 1, 2]] * 3), []
    for dims in range(1, 5):
        given = {"x": tg.rand(*[3] * dims), "i": i, "tg": tg, "F": tg.nn.functional}
        code = eval(call[: call.index("(")], given).__code__
        frames: list[Any] = []
        sys.setprofile(lambda frame, event, _: frames.append(frame.f_code))  # noqa: B023
        try:
            eval(call, given)
        except (ValueError, TypeError, IndexError, RuntimeError):
            frames.append(code)
        finally:
            sys.setprofile(None)
        entered.append(code in frames)
    assert not all(entered)


def test_a_step_makes_no_cycles() -> None:
    x = _x(3)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            ((x * x).exp() + x[0:1].reshape(1)).sum().backward()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_switches_and_doors_are_each_threads_own() -> None:
    x, seen = _x(2), []

    def other() -> None:
        seen.append(((x * 2).requires_grad, type(tg.dispatch.local.doors).__name__))

    with tg.no_grad(), tg.dispatch.listening(tg.dispatch.Listener()):
        assert not (x * 2).requires_grad
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [(True, "Doors")]


def test_the_users_line_is_named() -> None:
    x = _x(3)
    y = x * 1
    z = (y * y).sum()  # this line
    y += 1
    with pytest.raises(
        tg.errors.AutogradError, match=r"test_tape\.py:\d+ in test_the_users_line_is_named: z = \(y \* y\)"
    ):
        z.backward()


def test_a_deep_graph_is_freed_without_recursion() -> None:
    y = _x(1)
    for _ in range(200_000):
        y = y + 1.0
    del y
