"""ONNX export: whole models in onnxruntime, at other batch sizes than they were exported with, beside ourselves."""

from __future__ import annotations

import gc
import io

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional as F
from tensorgrad.onnx.call import Call

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def exported(model, args, **how):
    file = io.BytesIO()
    tg.onnx.export(model, args, file, **how)
    return runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])


def flat(value):
    if isinstance(value, tg.Tensor):
        return [value]
    return [x for part in value for x in flat(part)]


def agree(session, model, args):
    """onnxruntime and we compute the same from these inputs."""
    names = [one.name for one in session.get_inputs()]
    got = session.run(None, dict(zip(names, [x.detach().numpy() for x in args], strict=True)))
    with tg.no_grad():
        want = flat(model(*args))
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.detach().numpy().dtype
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-4, atol=1e-4)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.b = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.short = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norm_b(self.b(self.relu(self.norm_a(self.a(x)))))
        y += self.short(x)
        return self.relu(y).mean((2, 3))


class Recurrent(nn.Module):
    def __init__(self, kind, **how):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True, **how)
        self.head = nn.Linear(how.get("proj_size", 4) * (2 if how.get("bidirectional") else 1), 2)

    def forward(self, x):
        out, state = self.rnn(x)
        return self.head(out[:, -1]), state


class Block(nn.Module):
    """A block of a GPT as they are written by hand: fused projection, causal attention, an MLP."""

    def __init__(self, width, heads, length, by_hand):
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))
        self.heads, self.by_hand = heads, by_hand
        self.register_buffer("mask", tg.tril(tg.ones(length, length)).view(1, 1, length, length))

    def forward(self, x):
        b, t, c = x.size()
        q, k, v = self.qkv(self.first(x)).split(c, dim=2)
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in (q, k, v))
        if self.by_hand:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
            scores = scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
            y = F.softmax(scores, dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.mlp(self.second(x))


class GPT(nn.Module):
    def __init__(self, by_hand):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Embedding(9, 8)
        self.blocks = nn.ModuleList([Block(8, 2, 9, by_hand) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        t = tokens.shape[1]
        x = self.words(tokens) + self.places(tg.arange(0, t, dtype=tg.long))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def floats(*shape):
    return lambda n: (tg.randn(n, *shape),)


def tokens(*shape):
    return lambda n: (tg.randint(0, 11, (n, *shape)),)


def digits():
    from tensorgrad.examples.digits import Net

    pytest.importorskip("sklearn")
    return Net()


MODELS = {
    "MLP": (lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(),
                                  nn.Linear(8, 3), nn.LogSoftmax(1)), floats(5)),
    "digits CNN": (digits, floats(1, 8, 8)),
    "residual": (lambda: Residual(4), floats(4, 6, 6)),
    "LSTM": (lambda: Recurrent(nn.LSTM, num_layers=2), floats(5, 3)),
    "bidirectional LSTM": (lambda: Recurrent(nn.LSTM, bidirectional=True), floats(5, 3)),
    "GRU": (lambda: Recurrent(nn.GRU), floats(4, 3)),
    "GRU without bias": (lambda: Recurrent(nn.GRU, bidirectional=True, bias=False), floats(4, 3)),
    "RNN": (lambda: Recurrent(nn.RNN), floats(4, 3)),
    "RNN with relu": (lambda: Recurrent(nn.RNN, nonlinearity="relu", bidirectional=True), floats(4, 3)),
    "LSTM, projected": (lambda: Recurrent(nn.LSTM, proj_size=2), floats(5, 3)),
    "GPT": (lambda: GPT(False), tokens(6)),
    "GPT with its mask": (lambda: GPT(True), tokens(6)),
    "attention": (lambda: Attention(), floats(5, 8)),
    "encoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), floats(5, 8)),
    "autoencoder": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.SiLU(),
                                          nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1)),
                    floats(1, 8, 8)),
    # not padded with zeros: onnxruntime 1.23 makes one node of that and MaxPool, which pads with something else
    "pools": (lambda: nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1),
                                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)), floats(2, 9, 9)),
    "norms": (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True), nn.LayerNorm((4, 6)),
                                    nn.RMSNorm(6), nn.BatchNorm1d(4, affine=False)), floats(4, 6)),
    "activations": (lambda: nn.Sequential(*[kind() for kind in (
        nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU,
        nn.ReLU6, nn.SELU, nn.CELU, nn.SiLU, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink)]),
                    floats(7)),
}  # fmt: skip


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)


@pytest.mark.parametrize("name", MODELS)
def test_models_at_several_batch_sizes(name):
    make, inputs = MODELS[name]
    tg.manual_seed(1)
    model = make()
    if name == "residual":
        model.train()
        model(*inputs(16))  # running statistics that are not those of a new layer
    assert model.training
    example = inputs(2)
    session = exported(model, example, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    assert model.training
    assert session.get_inputs()[0].shape[0] == "batch" and session.get_outputs()[0].shape[0] == "batch"
    model.eval()
    for n in (1, 2, 5):
        agree(session, model, inputs(n))


@pytest.mark.parametrize("kind", ("LSTM", "GRU", "RNN"))
def test_a_recurrent_layer_is_one_node_for_any_length(kind):
    layer = getattr(nn, kind)(3, 4).eval()
    axes = {"x": {0: "time", 1: "batch"}, "h": {1: "batch"}}
    start = lambda n: (tg.randn(1, n, 4),) * 2 if kind == "LSTM" else tg.randn(1, n, 4)  # noqa: E731
    names = ["x", "h", "c"] if kind == "LSTM" else ["x", "h"]
    if kind == "LSTM":
        axes["c"] = {1: "batch"}
    program = tg.onnx.export(layer, (tg.randn(5, 2, 3), start(2)), input_names=names, dynamic_axes=axes)
    assert [node.op_type for node in program.model_proto.graph.node].count(kind) == 1
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for steps, n in ((1, 1), (9, 3)):
        x, state = tg.randn(steps, n, 3), start(n)
        given = dict(zip(names, [part.numpy() for part in flat((x, state))], strict=True))
        for a, b in zip(session.run(None, given), flat(layer(x, state)), strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", (17, 18, 21))
def test_opsets(opset):
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.LayerNorm(3)).eval()
    session = exported(model, (tg.randn(3, 2, 7),), opset_version=opset, dynamic_axes={"input": [0]})
    agree(session, model, (tg.randn(4, 2, 7),))
    assert session.get_inputs()[0].shape == ["input_dynamic_axes_1", 2, 7]


def test_an_older_opset_is_raised_with_a_warning():
    with pytest.warns(UserWarning, match="opset 17"):
        program = tg.onnx.export(nn.Linear(2, 2), tg.ones(1, 2), opset_version=11)
    assert program.model_proto.opset_import[0].version == 17


def test_two_dynamic_axes():
    model = GPT(True).eval()
    axes = {0: "batch", 1: "time"}
    for how in ({"dynamic_axes": {"tokens": axes}}, {"dynamic_shapes": {"tokens": axes}}, {"dynamic_shapes": (axes,)}):
        session = exported(model, (tg.randint(0, 11, (2, 6)),), **how)
        assert session.get_outputs()[0].shape == ["batch", "time", 11]
        for shape in ((1, 1), (3, 9), (4, 2)):
            agree(session, model, (tg.randint(0, 11, shape),))


def odd(x, y):
    """Calls that the models above do not make."""
    b, c = x.shape
    top = x.topk(2, dim=1)
    chosen = x[tg.tensor([0, 0]), tg.tensor([1, 2])]
    filled = tg.zeros(b, c)
    filled += 1
    return (
        top.values, top.indices, x.argmax(1), x.max(1).values, x.flip(1).roll(1, 1), x.std(1), x.var(0), x.cumsum(1),
        tg.cat([x, y], 0).sum(), tg.stack([x, y]).amax(0), x.clamp(-0.5, 0.5).round(), x.long().remainder(3),
        tg.where(x > y, x, y * 2), x.sort(1, descending=True).values, (x > 0).any(1), x.logsumexp(1), chosen, filled,
        tg.triu(x.T @ y), x.gather(1, y.argsort(1)), tg.einsum("bc,dc->bd", x, y), x.unsqueeze(-1).expand(b, c, 2),
        x.repeat(2, 1), x[:, 1:-1], x[:, None, ::2], x[0], x[-1], F.one_hot(x.argmax(1), c), x.masked_fill(y > 0, 0.0),
        x.norm(dim=1), F.pad(x, (1, 2), value=3.0), x.chunk(2, 1)[1], x.mean(), x.new_zeros(b, 2), x * b, x.tile(1, 2),
        x.index_select(1, tg.tensor([2, 0])), F.normalize(x), x.bool(), x.reshape(-1), x.exp().log1p().expm1(),
        x // 0.3,
    )  # fmt: skip


def test_many_calls():
    session = exported(odd, (tg.randn(3, 4), tg.randn(3, 4)), dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
    for n in (2, 5):
        agree(session, odd, (tg.randn(n, 4), tg.randn(n, 4)))


def writes(x):
    b = x.shape[0]
    zeros = tg.zeros(b, 4)
    first = zeros + x
    zeros[:, 1:3] = x[:, :2]
    zeros[:, 0] += 5.0
    out = tg.zeros(b, 3, 4)
    for t in range(3):
        out[:, t] = x * t
    y = x.clone()
    y.view(-1)[:2] = 7.0
    y.t()[3].mul_(2.0)
    z = x * 1
    z[tg.tensor([0, 1]), tg.tensor([1, 2])] = -1.0
    z.clamp_(-0.5, 0.5)
    x = F.relu(x, inplace=True)
    return first, zeros, out, y, z, x, x.unfold(1, 2, 1), tg.atan2(y, z), z.index_add(1, tg.tensor([0]), y[:, :1])


def test_writes_and_views():
    session = exported(writes, (tg.randn(3, 4),), dynamic_axes={"x": {0: "n"}})
    for n in (2, 5):
        x = tg.randn(n, 4)
        names = [one.name for one in session.get_inputs()]
        got = session.run(None, {names[0]: x.numpy().copy()})
        for a, b in zip(got, writes(x), strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=1e-5)


@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic"))
def test_resize(mode):
    def model(x):
        return F.interpolate(x, scale_factor=2, mode=mode), F.interpolate(x, (7, 3), mode=mode)

    agree(exported(model, (tg.randn(1, 2, 4, 5),), dynamic_axes={"x": [0]}), model, (tg.randn(3, 2, 4, 5),))


def test_names_state_and_files(tmp_path):
    model = nn.Linear(3, 2)
    program = tg.onnx.export(model, tg.ones(2, 3), tmp_path / "m.onnx", input_names=["in"], output_names=["out"],
                             verify=True)  # fmt: skip
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [x.name for x in graph.initializer] == ["weight", "bias"]
    assert [node.op_type for node in graph.node] == ["Gemm"]
    assert ([x.name for x in graph.input], [x.name for x in graph.output]) == (["in"], ["out"])
    assert "1 nodes" in repr(program) and list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]
    program.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()

    class Two(nn.Module):
        def forward(self, pair, scale=1.0, *, shift):
            return {"sum": pair[0] * scale + pair[1] + shift, "same": pair[0]}

    session = exported(Two(), ((tg.ones(2), tg.ones(2)), 3.0), kwargs={"shift": tg.ones(2)})
    assert [x.name for x in session.get_inputs()] == ["pair_0", "pair_1", "shift"]
    got = session.run(None, {name: np.full(2, i, np.float32) for i, name in enumerate(("pair_0", "pair_1", "shift"))})
    assert [x.tolist() for x in got] == [[3.0, 3.0], [0.0, 0.0]]


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", tg.zeros(3))

    def forward(self, x):
        self.count += 1
        return x + self.count


def through_view(x):
    y = x * 2
    row = y[0]
    y[:, 0] = 1.0
    return row  # a view from before the write: ONNX has no views


def shape_branch(x):
    for i in range(x.shape[0]):
        x = x + x[i]
    return x


def from_numpy(x):
    return x + tg.tensor(np.random.default_rng(x.shape[0]).standard_normal((x.shape[0], 1)).astype("f4"))


REFUSED = {
    "dropout": (nn.Dropout(0.5), floats(3), {"training": tg.onnx.TrainingMode.PRESERVE}, "dropout"),
    "no operator": (lambda x: tg.linalg.inv(x), lambda n: (tg.eye(3) + 1,), {}, "has no translation"),
    "no function": (lambda x: tg.lgamma(x), floats(3), {}, "lgamma"),
    "complex": (lambda x: tg.complex(x, x).abs(), floats(3), {}, "complex"),
    "a buffer that changes": (Buffered(), floats(3), {}, "changes its own"),
    "a write through a view": (through_view, floats(3), {}, "through a view"),
    "a loop over the batch": (shape_branch, floats(3), {"dynamic_axes": {"x": [0]}}, "other steps at other sizes"),
    "content from the size": (from_numpy, floats(3), {"dynamic_axes": {"x": [0]}}, "content depends on the sizes"),
    "half the batch": (lambda x: x[: x.shape[0] // 2], floats(3), {"dynamic_axes": {"x": [0]}}, "no sum of products"),
    "a mask as an index": (lambda x: x[x > 0], floats(3), {}, "masked_fill"),
    "places of maxima": (lambda x: F.max_pool1d(x, 2, return_indices=True), floats(2, 4), {}, "places of the maxima"),
    "an output that is none": (lambda x: "text", floats(3), {}, "returned a str"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_exported_says_why(name):
    model, inputs, how, words = REFUSED[name]
    with pytest.raises(tg.onnx.OnnxExporterError, match=words) as caught:
        tg.onnx.export(model, inputs(4), **how)
    assert isinstance(caught.value, (TensorgradError, RuntimeError))


@pytest.mark.parametrize(("how", "words"), (
    ({"opset_version": 22}, "17 to 21"), ({"export_params": False}, "weights"), ({"training": 2}, "evaluation mode"),
    ({"dynamic_axes": {"nobody": [0]}}, "nobody"), ({"input_names": ["a", "b"]}, "2 input_names"),
    ({"dynamic_axes": {"input": [5]}}, "dynamic axis 5"), ({"output_names": ["input"]}, "name of an input"),
))  # fmt: skip
def test_wrong_options(how, words):
    with pytest.raises(ValueError, match=words):
        tg.onnx.export(nn.Linear(3, 2), (tg.ones(2, 3),), **how)


def test_ranges_follow_the_sizes(tmp_path):
    class Placed(nn.Module):
        def forward(self, x):
            n = x.shape[1]
            return x + tg.arange(n, dtype=tg.float32) + tg.arange(1, 2 * n + 1, 2) + tg.linspace(0, 1, 2).sum()

    model, path = Placed(), tmp_path / "m.onnx"
    tg.onnx.export(model, (tg.ones(2, 3),), path, input_names=["x"], dynamic_axes={"x": {0: "rows", 1: "places"}})
    session = runtime.InferenceSession(path)
    for shape in ((2, 3), (4, 5), (1, 9)):
        x = tg.randn(*shape)
        assert np.allclose(session.run(None, {"x": x.numpy()})[0], model(x).numpy())


def test_a_call_leaves_the_collector_nothing():
    call, arrays = Call(lambda more, x: x + more["y"][0], ({"y": [tg.ones(2)]}, tg.ones(2)), {}, None), [np.ones(2)] * 2
    call(arrays)
    gc.collect()
    gc.disable()
    try:
        call(arrays)
        tg.testing.assert_close([tg.ones(2)], [tg.ones(2)])
        assert gc.collect() == 0
    finally:
        gc.enable()
