"""MultiheadAttention and the Transformer beside PyTorch's: outputs, first and second gradients, masks, errors."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.dispatch import listening

from .beside import close, flat

torch = pytest.importorskip("torch")
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402 - there is no such module without torch

CAUSAL = np.triu(np.ones((4, 4), dtype=bool), 1)
PADDING = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool)
MEMORY = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=bool)
SCORES = np.random.default_rng(1).normal(size=(6, 4, 4))


def added(mask: Any) -> Any:
    return np.where(mask, -np.inf, 0.0)


def twins(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    """The layer twice, with the same random weights; a string "nn.X" stands for a layer of that name."""
    made = []
    for ns in (tg, torch):
        given = {k: layer_of(ns, v) for k, v in options.items()}
        made.append(getattr(ns.nn, name)(*args, **given).double())
    ours, theirs = made
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.normal(size=tuple(p.shape)) * 0.5))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    assert repr(ours) == repr(theirs)
    return ours, theirs


def layer_of(ns: Any, value: Any) -> Any:
    return getattr(ns.nn, value[3:])() if isinstance(value, str) and value.startswith("nn.") else value


def run(name: str, args: Any, options: Any, arrays: Any, call: dict[str, Any], training: bool, order: int = 2) -> None:
    results = []
    for ns, layer in zip((tg, torch), twins(name, args, options), strict=True):
        layer.train(training)
        inputs = [ns.tensor(x, requires_grad=True) for x in arrays]
        given = {k: ns.tensor(v) if isinstance(v, np.ndarray) else v for k, v in call.items()}
        with sdpa_kernel(SDPBackend.MATH):  # PyTorch's fused kernels have no second gradient
            values = flat(layer(*inputs, **given))
        leaves = [*inputs, *layer.parameters()]
        total = sum((y * y.cos()).sum() for y in values)
        grads = ns.autograd.grad(total, leaves, create_graph=order > 1, allow_unused=True)
        row = [*values, *grads]
        if order > 1:
            known = [g for g in grads if g is not None and g.requires_grad]
            row += ns.autograd.grad(sum((g * g).sum() for g in known), leaves, allow_unused=True)
        results.append([None if x is None else x for x in row])
    ours, theirs = results
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a is None or b is None:  # a gradient that is nowhere used: None or zero
            some = b if a is None else a
            assert some is None or float(abs(some).max()) < 1e-12, f"result {k}"
            ours[k] = theirs[k] = None
    close(ours, theirs, rtol=1e-7, atol=1e-9)


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape)


# (options, shapes of query, key, value, arguments of the call)
ATTENTION: list[tuple[dict[str, Any], list[tuple[int, ...]], dict[str, Any]]] = [
    ({}, [(4, 3, 6), (5, 3, 6), (5, 3, 6)], {}),
    ({"bias": False}, [(4, 3, 6), (4, 3, 6), (4, 3, 6)], {"attn_mask": CAUSAL}),
    ({}, [(4, 3, 6)] * 3, {"attn_mask": added(CAUSAL), "need_weights": False, "is_causal": True}),
    ({}, [(4, 3, 6)] * 3, {"attn_mask": SCORES, "average_attn_weights": False}),
    ({}, [(4, 3, 6)] * 3, {"attn_mask": CAUSAL, "key_padding_mask": PADDING, "is_causal": True, "need_weights": False}),
    ({"batch_first": True}, [(3, 4, 6)] * 3, {"key_padding_mask": added(PADDING)}),
    ({"kdim": 3, "vdim": 2, "batch_first": True}, [(3, 2, 6), (3, 5, 3), (3, 5, 2)], {"key_padding_mask": MEMORY}),
    ({"add_bias_kv": True}, [(4, 3, 6)] * 3, {"attn_mask": CAUSAL, "key_padding_mask": PADDING}),
    ({"add_zero_attn": True}, [(4, 3, 6)] * 3, {"attn_mask": SCORES, "need_weights": False}),
    ({"add_zero_attn": True, "add_bias_kv": True, "kdim": 3}, [(4, 6), (4, 3), (4, 6)], {"attn_mask": CAUSAL}),
    ({}, [(4, 6)] * 3, {"attn_mask": SCORES[:2], "average_attn_weights": False}),
    ({}, [(4, 6)] * 3, {"key_padding_mask": PADDING[1], "need_weights": False}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "shapes", "call"), ATTENTION, ids=range(len(ATTENTION)))
def test_attention(options: Any, shapes: Any, call: Any) -> None:
    run("MultiheadAttention", (6, 2), options, [normal(*s) for s in shapes], call, True)


class Ops:
    def __init__(self) -> None:
        self.names: list[str] = []

    def after(self, op: Any, inputs: Any, attrs: Any, outputs: Any) -> None:
        self.names.append(op.name)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("which", "products"), [("aaa", 2), ("abb", 3), ("aab", 3), ("aba", 4)])
def test_inputs_that_are_one_tensor_are_projected_in_one_product(which: str, products: int, batch_first: bool) -> None:
    ours, theirs = twins("MultiheadAttention", (6, 2), {"batch_first": batch_first})
    results = []
    for ns, layer in ((tg, ours), (torch, theirs)):
        leaves = {k: ns.tensor(normal(4, 3, 6) + i, requires_grad=True) for i, k in enumerate("ab")}
        with listening(Ops()) as seen, sdpa_kernel(SDPBackend.MATH):
            out = layer(*(leaves[k] for k in which), need_weights=False)[0]
        if ns is tg:
            assert seen.names.count("linear") == products
            assert not batch_first or "contiguous" not in seen.names  # nothing is brought into another order
        grads = ns.autograd.grad((out * out.cos()).sum(), [*leaves.values(), *layer.parameters()], allow_unused=True)
        results.append([out, *(g for g in grads if g is not None)])
    close(*results, rtol=1e-7, atol=1e-9)


ENCODER = {"src_mask": CAUSAL, "src_key_padding_mask": PADDING}
DECODER = {
    "tgt_mask": added(CAUSAL), "memory_mask": np.zeros((4, 5), dtype=bool), "memory_key_padding_mask": MEMORY,
    "tgt_is_causal": True,
}  # fmt: skip
SMALL = {"dim_feedforward": 5, "dropout": 0.0}
BOTH = {"d_model": 6, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 1}
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], list[Any], dict[str, Any]]] = [
    ("TransformerEncoderLayer", (6, 2), {}, [(4, 3, 6)], ENCODER),
    ("TransformerEncoderLayer", (6, 3), {"norm_first": True, "activation": "gelu"}, [(4, 3, 6)], {}),
    ("TransformerEncoderLayer", (6, 2), {"batch_first": True, "bias": False}, [(3, 4, 6)], ENCODER),
    ("TransformerEncoderLayer", (6, 2), {"activation": "nn.SiLU", "layer_norm_eps": 0.1}, [(4, 6)],
     {"src_mask": added(CAUSAL), "is_causal": True}),
    ("TransformerDecoderLayer", (6, 2), {}, [(4, 3, 6), (5, 3, 6)], DECODER),
    ("TransformerDecoderLayer", (6, 2), {"norm_first": True, "bias": False}, [(4, 3, 6), (5, 3, 6)],
     {"tgt_key_padding_mask": PADDING}),
    ("TransformerDecoderLayer", (6, 2), {"batch_first": True, "activation": "gelu"}, [(3, 4, 6), (3, 5, 6)], DECODER),
    ("Transformer", (), BOTH, [(5, 3, 6), (4, 3, 6)], {"tgt_mask": added(CAUSAL)}),
    ("Transformer", (), {**BOTH, "batch_first": True, "norm_first": True}, [(3, 5, 6), (3, 4, 6)],
     {"tgt_mask": CAUSAL, "src_key_padding_mask": MEMORY, "memory_key_padding_mask": MEMORY}),
    ("Transformer", (), {**BOTH, "activation": "gelu", "bias": False}, [(5, 6), (4, 6)], {}),
]  # fmt: skip


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("row", LAYERS, ids=[f"{i}-{row[0]}" for i, row in enumerate(LAYERS)])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested")
def test_transformer(row: Any, training: bool) -> None:
    name, args, options, shapes, call = row
    order = 2 if training and not name.endswith("mer") else 1
    run(name, args, {**SMALL, **options}, [normal(*s) for s in shapes], call, training, order)


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("how", ["nested", "not nested", "padding inside", "mask too"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_padding_that_pytorch_leaves_out(how: str, with_norm: bool) -> None:
    padding = PADDING if how != "padding inside" else PADDING[:, ::-1].copy()
    results = []
    state: Any = None
    for ns in (torch, tg):
        layer = ns.nn.TransformerEncoderLayer(6, 2, 5, batch_first=True)
        norm = ns.nn.LayerNorm(6) if with_norm else None
        encoder = ns.nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=how != "not nested").double().eval()
        state = state or encoder.state_dict()
        encoder.load_state_dict(state)
        mask = ns.tensor(CAUSAL) if how == "mask too" else None
        with ns.no_grad():
            row = [encoder(ns.tensor(normal(3, 4, 6)), mask, src_key_padding_mask=ns.tensor(padding))]
        row.append(encoder(ns.tensor(normal(3, 4, 6)), src_key_padding_mask=ns.tensor(padding)))
        results.append(row)
    close(results[1], results[0])


def test_stacks_are_copies() -> None:
    layer = tg.nn.TransformerDecoderLayer(4, 2, 4)
    stack = tg.nn.TransformerDecoder(layer, 3)
    assert len(stack.layers) == 3 and len(list(stack.parameters())) == 3 * len(list(layer.parameters()))
    mask = tg.nn.Transformer.generate_square_subsequent_mask(3)
    assert mask.tolist() == torch.nn.Transformer.generate_square_subsequent_mask(3).tolist()
    assert tg.nn.Transformer.generate_square_subsequent_mask(2, dtype=tg.float64).dtype == tg.float64


Q = np.zeros((4, 3, 6))
ERRORS: list[tuple[str, Any]] = [
    ("rank", lambda ns, m, q: m(q[0, 0], q[0, 0], q[0, 0])),
    ("ranks", lambda ns, m, q: m(q, q[0], q)),
    ("width", lambda ns, m, q: m(q[..., :4], q[..., :4], q[..., :4])),
    ("key and value", lambda ns, m, q: m(q, q, q[:2])),
    ("mask shape", lambda ns, m, q: m(q, q, q, attn_mask=ns.zeros(3, 3, dtype=ns.float64))),
    ("mask shape, 3-D", lambda ns, m, q: m(q, q, q, attn_mask=ns.zeros(3, 4, 4, dtype=ns.float64))),
    ("mask rank", lambda ns, m, q: m(q, q, q, attn_mask=ns.zeros(4, dtype=ns.float64))),
    ("mask dtype", lambda ns, m, q: m(q, q, q, attn_mask=ns.zeros(4, 4, dtype=ns.int64))),
    ("padding rank", lambda ns, m, q: m(q, q, q, key_padding_mask=ns.zeros(4, dtype=ns.float64))),
    ("padding shape", lambda ns, m, q: m(q, q, q, key_padding_mask=ns.zeros(4, 3, dtype=ns.float64))),
    ("causal without mask", lambda ns, m, q: m(q, q, q, is_causal=True)),
    ("heads", lambda ns, m, q: ns.nn.MultiheadAttention(6, 4)),
    ("no heads", lambda ns, m, q: ns.nn.MultiheadAttention(6, 0)),
    ("activation", lambda ns, m, q: ns.nn.TransformerEncoderLayer(6, 2, activation="tanh")),
    ("batches", lambda ns, m, q: ns.nn.Transformer(6, 2, 1, 1, 4)(q.float(), q[:, :2].float())),
    ("features", lambda ns, m, q: ns.nn.Transformer(8, 2, 1, 1, 4)(q.float(), q.float())),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call"), ERRORS, ids=[name for name, _ in ERRORS])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_errors(name: str, call: Any) -> None:
    seen = []
    for ns in (torch, tg):
        with pytest.raises(Exception) as error:
            call(ns, ns.nn.MultiheadAttention(6, 2).double(), ns.tensor(Q))
        seen.append(error)
    theirs, ours = seen
    assert isinstance(ours.value, theirs.type), (str(theirs.value), str(ours.value))


def test_masks_of_two_kinds_warn() -> None:
    x = tg.zeros(4, 3, 6)
    with pytest.warns(UserWarning, match="mismatched key_padding_mask and attn_mask"):
        tg.nn.MultiheadAttention(6, 2)(x, x, x, tg.tensor(PADDING), attn_mask=tg.zeros(4, 4))
    with contextlib.nullcontext():
        tg.nn.MultiheadAttention(6, 2)(x, x, x, tg.tensor(PADDING), attn_mask=tg.tensor(CAUSAL))
