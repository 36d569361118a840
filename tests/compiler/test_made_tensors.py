"""Tensors that a compiled function makes: of Python's numbers, constant in its program, or of random numbers, drawn
anew."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg
from tests.compiler.beside import BACKENDS, beside

F = tg.nn.functional
MAKERS: dict[str, Any] = {
    "arange": lambda x: tg.arange(3),
    "arange of floats": lambda x: tg.arange(0.0, 0.3, 0.1),
    "arange by its names": lambda x: tg.arange(start=1, end=6, step=2, dtype=tg.int32),
    "a long arange": lambda x: tg.arange(6000)[:3],
    "range": lambda x: tg.range(0, 2),
    "linspace": lambda x: tg.linspace(0, 1, 3),
    "a long linspace": lambda x: tg.linspace(0, 1, 3000)[-3:],
    "logspace": lambda x: tg.logspace(0, 1, 3),
    "eye": lambda x: tg.eye(3),
    "zeros": lambda x: tg.zeros(3),
    "ones": lambda x: tg.ones(3),
    "full": lambda x: tg.full((3,), 2.5),
    "empty": lambda x: tg.empty(3).fill_(1),
    "empty_strided": lambda x: tg.empty_strided((2, 3), (1, 2)).fill_(1),
    "empty in another order": lambda x: tg.empty(1, 2, 1, 3, memory_format=tg.channels_last).fill_(1),
    "zeros_like": lambda x: tg.zeros_like(x),
    "ones_like": lambda x: tg.ones_like(x),
    "full_like": lambda x: tg.full_like(x, 2),
    "new_zeros": lambda x: x.new_zeros(3),
    "new_tensor": lambda x: x.new_tensor([1.0, 2, 3]),
    "tensor of numbers": lambda x: tg.tensor([1.0, 2, 3]),
    "tensor of a number": lambda x: tg.tensor(2.0),
    "tensor of the shape": lambda x: tg.tensor(x.shape).sum(),
    "written to": lambda x: tg.tensor([1.0, 2, 3]).mul_(2).add_(x),
    "zeros written to": lambda x: tg.zeros(3).add_(x).mul_(x),
    "a slice written to": lambda x: tg.eye(3).index_fill_(0, tg.tensor([1]), 4.0),
    "an element written to": lambda x: tg.zeros(3).index_put_((tg.tensor([1]),), x[:1]),
    "triu_indices": lambda x: tg.triu_indices(2, 2)[0],
    "tril": lambda x: tg.tril(tg.ones(3, 3)),
    "causal mask": lambda x: x.expand(3, 3).masked_fill(tg.triu(tg.ones(3, 3), 1).bool(), -1.0),
    "one_hot": lambda x: F.one_hot(tg.arange(3), 3),
    "meshgrid": lambda x: tg.meshgrid(tg.arange(3), tg.arange(3), indexing="ij")[0].clone(),
    "window": lambda x: tg.hann_window(3),
    "key of a list": lambda x: x[[0, 2, 1]],
    "key of a tensor": lambda x: x[tg.tensor([0, 2, 1])],
    "rand": lambda x: tg.rand(3),
    "randn_like": lambda x: tg.randn_like(x),
    "randint": lambda x: tg.randint(0, 9, (3,)),
    "randperm": lambda x: tg.randperm(3),
    "bernoulli": lambda x: tg.bernoulli(x.sigmoid()),
    "normal": lambda x: tg.normal(0.0, 1.0, (3,)),
    "normal_": lambda x: tg.empty(3).normal_(),
    "multinomial": lambda x: tg.multinomial(x.exp(), 3),
    "rsample": lambda x: tg.distributions.Normal(x, 1.0).rsample(),
    "log_prob": lambda x: tg.distributions.Normal(0.0, 1.0).log_prob(x),
    "categorical": lambda x: tg.distributions.Categorical(logits=x).log_prob(tg.tensor(1)),
    "dropout": lambda x: F.dropout(x, 0.5),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_what_a_function_makes(name: str, backend: str) -> None:
    make = MAKERS[name]

    def script(compiled: Any, show: Any) -> None:
        alone, used = compiled(lambda x: make(x)), compiled(lambda x: (x + make(x), make(x) * 1))
        for i in range(4):
            made = alone(tg.tensor([1.0, 2.0, 3.0 + i]))
            show(made, used(tg.tensor([1.0, 2.0, 3.0 + i])))
            if made.numel() and i == 2:
                made.zero_()  # whoever gets it may write to it

    for one in beside(script, backend, held=True):
        assert one.stats()["replays"] == 3
