"""Every layer beside PyTorch's: the same weights give the same results, gradients, state and text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

from .rows import ROWS, name_of

torch = pytest.importorskip("torch")


def flat(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [part for item in result for part in flat(item)]
    return [] if result is None else [result]


def build(row: Any) -> tuple[Any, Any]:
    """The layer twice, with the same weights."""
    name, args, options, _ = row
    if args and name == "MSELoss":
        options, args = {"reduction": args[0]}, ()
    theirs = getattr(torch.nn, name)(*args, **options).double()
    ours = getattr(tg.nn, name)(*args, **options).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_layer_is_pytorchs(row: Any, training: bool) -> None:
    ours, theirs = build(row)
    assert repr(ours) == repr(theirs)
    ours.train(training)
    theirs.train(training)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in row[3]]
    results = []
    for ns, layer in ((tg, ours), (torch, theirs)):
        inputs = [ns.tensor(array, requires_grad=True) for array in arrays]
        for _ in range(2):  # twice: running statistics go on
            outputs = flat(layer(*inputs))
        floats = [y for y in outputs if y.requires_grad]
        total = sum((y * y.cos()).sum() for y in floats)
        total.backward()
        grads = [x.grad for x in inputs] + [p.grad for p in layer.parameters()]
        state = list(layer.state_dict().values())
        results.append([None if x is None else x.detach().numpy() for x in (*outputs, *grads, *state)])
    for got, expected in zip(*results, strict=True):
        if expected is not None:
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("masked", ["float", "bool", "padding"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_masks(masked: str, need_weights: bool) -> None:
    ours, theirs = build(("MultiheadAttention", (6, 2), {}, []))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3, 6))
    mask = np.triu(np.ones((4, 4), dtype=bool), 1)
    padding = np.zeros((3, 4), dtype=bool)
    padding[1, 3:] = True
    results = []
    for ns, layer in ((tg, ours), (torch, theirs)):
        options: dict[str, Any] = {"attn_mask": ns.tensor(np.where(mask, -1e9, 0.0) if masked == "float" else mask)}
        if masked == "padding":
            options = {"key_padding_mask": ns.tensor(padding)}
        q = ns.tensor(x)
        out, weights = layer(q, q, q, need_weights=need_weights, average_attn_weights=False, **options)
        assert (weights is not None) == need_weights
        results.append([part.detach().numpy() for part in (out, weights) if part is not None])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_initial_state(kind: str) -> None:
    ours, theirs = build((kind, (3, 4), {"num_layers": 2}, []))
    rng = np.random.default_rng(0)
    x, h, c = rng.normal(size=(5, 2, 3)), rng.normal(size=(2, 2, 4)), rng.normal(size=(2, 2, 4))
    results = []
    for ns, layer in ((tg, ours), (torch, theirs)):
        state = (ns.tensor(h), ns.tensor(c)) if kind == "LSTM" else ns.tensor(h)
        results.append([part.detach().numpy() for part in flat(layer(ns.tensor(x), state))])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(RuntimeError, match=r"Expected hidden(\[0\])? size \(2, 2, 4\), got \[1, 2, 4\]"):
        ours(tg.tensor(x), (tg.zeros(1, 2, 4), tg.zeros(1, 2, 4)) if kind == "LSTM" else tg.zeros(1, 2, 4))


@pytest.mark.parametrize(
    ("name", "args", "arrays"),
    [
        ("CrossEntropyLoss", {"label_smoothing": 0.1}, ("logits", "classes")),
        ("CrossEntropyLoss", {"weight": True, "ignore_index": 1, "reduction": "sum"}, ("logits", "classes")),
        ("NLLLoss", {"reduction": "none"}, ("logits", "classes")),
        ("BCELoss", {}, ("chances", "chances")),
        ("BCEWithLogitsLoss", {"pos_weight": True}, ("logits", "chances")),
        ("KLDivLoss", {"reduction": "batchmean"}, ("logits", "chances")),
        ("GaussianNLLLoss", {"full": True}, ("logits", "logits2", "chances")),
        ("HingeEmbeddingLoss", {}, ("logits", "signs")),
        ("SoftMarginLoss", {}, ("logits", "signs")),
        ("MultiMarginLoss", {}, ("logits", "classes")),
        ("MarginRankingLoss", {"margin": 0.1}, ("row", "row2", "signs_row")),
        ("CosineEmbeddingLoss", {}, ("logits", "logits2", "signs_row")),
    ],
    ids=lambda value: str(value) if not isinstance(value, tuple) else "",
)
def test_losses_with_targets(name: str, args: dict[str, Any], arrays: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    values = {
        "logits": rng.normal(size=(6, 4)), "logits2": rng.normal(size=(6, 4)), "classes": rng.integers(0, 4, 6),
        "chances": rng.uniform(0.1, 0.9, size=(6, 4)), "signs": rng.choice([-1.0, 1.0], size=(6, 4)),
        "row": rng.normal(size=6), "row2": rng.normal(size=6), "signs_row": rng.choice([-1.0, 1.0], size=6),
    }  # fmt: skip
    results = []
    for ns in (tg, torch):
        options = {
            key: ns.tensor(np.array([0.5, 1.0, 2.0, 0.3])) if value is True and "weight" in key else value
            for key, value in args.items()
        }
        loss = getattr(ns.nn, name)(**options)
        inputs = [ns.tensor(values[key]) for key in arrays]
        inputs[0].requires_grad_(True)
        out = loss(*inputs)
        out.sum().backward()
        results.append((out.detach().numpy(), inputs[0].grad.numpy()))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def test_embedding_is_pytorchs() -> None:
    for options in ({}, {"padding_idx": 1}, {"max_norm": 0.5}):
        theirs = torch.nn.Embedding(5, 3, **options)
        ours = tg.nn.Embedding(5, 3, **options)
        assert repr(ours) == repr(theirs)
        if "padding_idx" in options:
            assert ours.weight[1].tolist() == [0, 0, 0]
        ours.load_state_dict(theirs.state_dict())
        index = np.array([[1, 2, 2], [4, 0, 1]])
        grads = []
        for ns, layer in ((tg, ours), (torch, theirs)):
            (layer(ns.tensor(index)) ** 2).sum().backward()
            grads.append(layer.weight.grad.numpy())
        np.testing.assert_allclose(*grads, rtol=1e-6)
    table = tg.randn(4, 2)
    frozen = tg.nn.Embedding.from_pretrained(table)
    assert not frozen.weight.requires_grad and frozen.weight.data_ptr() == table.data_ptr()


def test_initial_values_have_pytorchs_range() -> None:
    for name, args in (
        ("Linear", (64, 80)),
        ("Conv2d", (8, 16, 3)),
        ("LSTM", (20, 30)),
        ("ConvTranspose2d", (8, 16, 3)),
    ):
        ours, theirs = getattr(tg.nn, name)(*args), getattr(torch.nn, name)(*args)
        for (key, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            a, b = np.asarray(a.detach()), b.detach().numpy()
            assert abs(np.abs(a).max() / np.abs(b).max() - 1) < 0.2, f"{name}.{key}"
            assert abs(a.std() / b.std() - 1) < 0.35, f"{name}.{key}"


def test_dropout_layers_act_in_training_only() -> None:
    x = tg.ones(4, 6, 3, 3)
    for name in ("Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout"):
        layer = getattr(tg.nn, name)(0.5)
        assert repr(layer) == repr(getattr(torch.nn, name)(0.5))
        assert not bool((layer(x) == x).all())
        assert bool((layer.eval()(x) == x).all())
    channels = tg.nn.Dropout2d(0.5)(x).reshape(24, 9)
    assert all(len(set(row)) == 1 for row in channels.tolist())
    with pytest.raises(ValueError, match="between 0 and 1"):
        tg.nn.Dropout(1.5)


@pytest.mark.parametrize(("mode", "share"), (("sum", 1.0), ("mean", 0.5)))
def test_embedding_bag_divides_by_each_row_s_own_frequency(mode, share):
    weight = tg.rand(5, 3, dtype=tg.float64, requires_grad=True)
    bags = tg.tensor([[0, 1], [1, 1], [2, 0], [3, 1]])
    tg.nn.functional.embedding_bag(bags, weight, mode=mode, scale_grad_by_freq=True).sum().backward()
    assert weight.grad.tolist() == [[share] * 3] * 4 + [[0.0] * 3]
