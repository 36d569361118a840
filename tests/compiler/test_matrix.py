"""Every module of ``tensorgrad.nn``, as it is and compiled, through the changes that a training script makes."""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.utils._pytree import tree_flatten, tree_map
from tests.compiler.beside import BACKENDS, beside
from tests.nn.rows import ROWS, name_of


def ints(high: int, *shape: int) -> Any:
    return shape, lambda rng, shape: rng.integers(0, high, shape)


def chances(*shape: int) -> Any:
    return shape, lambda rng, shape: rng.uniform(0.1, 0.9, shape).astype(np.float32)


def signs(*shape: int) -> Any:
    return shape, lambda rng, shape: rng.choice([-1.0, 1.0], shape).astype(np.float32)


def always(array: Any) -> Any:
    return (), lambda rng, shape: np.array(array)


def _unpool(d: int) -> Any:
    class Unpooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = getattr(nn, f"MaxPool{d}d")(2, return_indices=True)
            self.unpool = getattr(nn, f"MaxUnpool{d}d")(2)

        def forward(self, x: Any) -> Any:
            return self.unpool(*self.pool(x))

    return Unpooled


class Members(nn.Module):
    """Containers that have no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ModuleList([nn.Linear(3, 3), nn.Tanh()])
        self.dict = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Sequential(nn.ReLU(), nn.Linear(3, 3))})
        self.scales = nn.ParameterList([nn.Parameter(tg.ones(3)), nn.Parameter(tg.ones(3) * 2)])
        self.shifts = nn.ParameterDict({"x": nn.Parameter(tg.zeros(3))})

    def forward(self, x: Any) -> Any:
        for module in self.list:
            x = module(x)
        for key, module in self.dict.items():
            x = module(x) + (self.shifts["x"] if key == "a" else 0.0)
        for scale in self.scales:
            x = x * scale
        return x


class Filled(nn.Module):
    """A module with a subclass of a Base in it: ``nn.Module`` itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(tg.ones(3))
        self.register_buffer("count", tg.zeros(()))

    def forward(self, x: Any) -> Any:
        self.count += 1
        return x * self.weight + self.count


image = (2, 4, 6, 6)
volume = (1, 2, 4, 4, 4)
MORE: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = [
    (Members, (), {}, [(2, 3)]),
    (Filled, (), {}, [(2, 3)]),
    ("Sequential", (nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), {}, [(2, 3)]),
    ("AdaptiveAvgPool3d", (2,), {}, [volume]),
    ("AdaptiveMaxPool1d", (3,), {}, [(2, 3, 7)]),
    ("AdaptiveMaxPool3d", (2,), {}, [volume]),
    ("AdaptiveLogSoftmaxWithLoss", (16, 10, [3, 6]), {}, [(5, 16), ints(10, 5)]),
    ("AlphaDropout", (0.3,), {}, [(4, 6)]),
    ("Dropout", (0.3,), {}, [(4, 6)]),
    ("Dropout1d", (0.3,), {}, [(2, 4, 6)]),
    ("Dropout2d", (0.3,), {}, [image]),
    ("Dropout3d", (0.3,), {}, [volume]),
    ("FeatureAlphaDropout", (0.3,), {}, [image]),
    ("RReLU", (), {}, [(4, 6)]),
    ("BCELoss", (), {}, [chances(4, 3), chances(4, 3)]),
    ("BCEWithLogitsLoss", (), {"pos_weight": tg.tensor([1.0, 2.0, 0.5])}, [(4, 3), chances(4, 3)]),
    ("CTCLoss", (), {}, [(8, 2, 5), always([[1, 2, 3], [2, 4, 1]]), always([8, 7]), always([3, 2])]),
    ("CosineEmbeddingLoss", (), {}, [(4, 3), (4, 3), signs(4)]),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.1}, [(4, 3), ints(3, 4)]),
    ("CrossEntropyLoss", (), {"weight": tg.tensor([1.0, 2.0, 0.5]), "ignore_index": 1}, [(4, 3), ints(3, 4)]),
    ("GaussianNLLLoss", (), {}, [(4, 3), (4, 3), chances(4, 3)]),
    ("HingeEmbeddingLoss", (), {}, [(4, 3), signs(4, 3)]),
    ("KLDivLoss", (), {"reduction": "batchmean"}, [(4, 3), chances(4, 3)]),
    ("MarginRankingLoss", (), {}, [(4,), (4,), signs(4)]),
    ("MultiLabelMarginLoss", (), {}, [(2, 4), always([[3, 0, -1, 1], [0, -1, 1, 1]])]),
    ("MultiLabelSoftMarginLoss", (), {}, [(4, 3), chances(4, 3)]),
    ("MultiMarginLoss", (), {}, [(4, 3), ints(3, 4)]),
    ("NLLLoss", (), {}, [(4, 3), ints(3, 4)]),
    ("NLLLoss2d", (), {}, [(2, 3, 4, 4), ints(3, 2, 4, 4)]),
    ("SoftMarginLoss", (), {}, [(4, 3), signs(4, 3)]),
    ("TripletMarginWithDistanceLoss", (), {}, [(4, 3), (4, 3), (4, 3)]),
    ("ChannelShuffle", (2,), {}, [image]),
    ("CircularPad1d", (1,), {}, [(2, 3, 5)]),
    ("CircularPad2d", (1,), {}, [image]),
    ("CircularPad3d", (1,), {}, [volume]),
    ("ConstantPad2d", (1, 0.5), {}, [image]),
    ("ConstantPad3d", (1, 0.5), {}, [volume]),
    ("ReflectionPad1d", (1,), {}, [(2, 3, 5)]),
    ("ReflectionPad3d", (1,), {}, [volume]),
    ("ReplicationPad2d", (1,), {}, [image]),
    ("ReplicationPad3d", (1,), {}, [volume]),
    ("ZeroPad1d", (1,), {}, [(2, 3, 5)]),
    ("ZeroPad3d", (1,), {}, [volume]),
    ("Embedding", (7, 3), {"padding_idx": 2}, [ints(7, 2, 4)]),
    ("EmbeddingBag", (7, 3), {"mode": "mean"}, [ints(7, 2, 4)]),
    ("EmbeddingBag", (7, 3), {"mode": "sum"}, [ints(7, 6), always([0, 2, 3])]),
    ("Fold", ((4, 5), 2), {}, [(2, 12, 12)]),
    ("Unfold", (2,), {"padding": 1}, [image]),
    ("FractionalMaxPool2d", (2,), {"output_size": 3}, [image]),
    ("FractionalMaxPool3d", (2,), {"output_size": 2}, [volume]),
    ("InstanceNorm3d", (2,), {}, [volume]),
    ("SyncBatchNorm", (4,), {}, [image]),
    ("LPPool1d", (2, 2), {}, [(2, 3, 6)]),
    ("LPPool2d", (2, 2), {}, [image]),
    ("LPPool3d", (2, 2), {}, [volume]),
    ("LazyLinear", (3,), {}, [(2, 4)]),
    ("LazyConv1d", (3, 2), {}, [(2, 3, 6)]),
    ("LazyConv2d", (3, 2), {}, [image]),
    ("LazyConv3d", (3, 2), {}, [volume]),
    ("LazyConvTranspose1d", (3, 2), {}, [(2, 3, 6)]),
    ("LazyConvTranspose2d", (3, 2), {}, [image]),
    ("LazyConvTranspose3d", (3, 2), {}, [volume]),
    ("LazyBatchNorm1d", (), {}, [(4, 3)]),
    ("LazyBatchNorm2d", (), {}, [image]),
    ("LazyBatchNorm3d", (), {}, [volume]),
    ("LazyInstanceNorm1d", (), {}, [(2, 3, 6)]),
    ("LazyInstanceNorm2d", (), {}, [image]),
    ("LazyInstanceNorm3d", (), {}, [volume]),
    (_unpool(1), (), {}, [(2, 3, 6)]),
    (_unpool(2), (), {}, [image]),
    (_unpool(3), (), {}, [volume]),
    ("PixelShuffle", (2,), {}, [image]),
    ("PixelUnshuffle", (2,), {}, [image]),
    ("Transformer", (4, 2, 1, 1, 6), {"batch_first": True}, [(2, 3, 4), (2, 3, 4)]),
    ("TransformerDecoder", (nn.TransformerDecoderLayer(4, 2, 6), 1), {}, [(3, 2, 4), (3, 2, 4)]),
    ("TransformerDecoderLayer", (4, 2, 6), {"norm_first": True}, [(3, 2, 4), (3, 2, 4)]),
    ("TransformerEncoder", (nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2), {}, [(2, 3, 4)]),
    ("TransformerEncoderLayer", (4, 2, 6), {"activation": "gelu"}, [(3, 2, 4)]),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, [image]),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, [image]),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, [image]),
]
EVERY: list[Any] = [*ROWS, *MORE]

NO_ROW = {"Module", "RNNBase", "RNNCellBase"}  # nothing but what others are made of
WITHIN = {"ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"}
BY_DATA = {"AdaptiveLogSoftmaxWithLoss"}  # a program for each number of rows that go to a cluster


def test_every_module_has_a_row() -> None:
    kinds = {n for n, k in vars(nn).items() if inspect.isclass(k) and issubclass(k, nn.Module)}
    assert kinds - {row[0] for row in EVERY if isinstance(row[0], str)} - NO_ROW - WITHIN == set()


def label(row: Any) -> str:
    kind = row[0] if isinstance(row[0], str) else row[0].__name__
    text = name_of((kind, (), {k: v for k, v in row[2].items() if not isinstance(v, tg.Tensor)}, [(len(row[3]),)]))
    return f"{text}-{'-'.join(str(a) for a in row[1] if not isinstance(a, nn.Module))}"


class Case:
    """A module of a row, and inputs for it."""

    def __init__(self, row: Any):
        kind, args, options, self.inputs = row
        if kind == "MSELoss":
            args, options = (), {"reduction": args[0]}
        make = getattr(nn, kind) if isinstance(kind, str) else kind
        self.module = make(*copy.deepcopy(args), **options)
        self.rng = np.random.default_rng(1)

    def draw(self, grow: int = 0, dtype: Any = tg.float32, grad: bool = True) -> list[Any]:
        made = []
        for one in self.inputs:
            shape, draw = one if isinstance(one[-1], type(ints)) else (one, None)
            shape = (shape[0] + grow, *shape[1:]) if shape else shape
            array = self.rng.normal(size=shape).astype(np.float32) if draw is None else draw(self.rng, shape)
            t = tg.tensor(array)
            made.append(t.to(dtype).requires_grad_(grad) if t.is_floating_point() else t)
        return made

    @property
    def grows(self) -> bool:
        shapes = [one[0] if isinstance(one[-1], type(ints)) else one for one in self.inputs]
        return all(len(s) > 1 for s in shapes)

    def state(self) -> list[Any]:
        return [*self.module.parameters(), *self.module.buffers()]

    def grads(self, *inputs: Any) -> list[Any]:
        return [p.grad for p in (*self.module.parameters(), *inputs)]


def total(result: Any) -> Any:
    return sum((y * y.cos()).sum() for y in tree_flatten(result)[0] if isinstance(y, tg.Tensor) and y.requires_grad)


def forget(module: Any) -> None:
    for p in module.parameters():
        p.grad = None


def a_models_life(row: Any, draws: bool) -> Any:
    def script(compiled: Any, show: Any) -> None:
        case = Case(row)
        inner = case.module
        if isinstance(row[0], str) and row[0].startswith("Lazy"):
            inner(*case.draw())  # what is not there yet has no place
        model = compiled(inner)

        def turn(*, grow: int = 0, dtype: Any = tg.float32, grad: bool = True, keep: bool = False) -> None:
            x = case.draw(grow, dtype, grad)
            y = model(*x)
            show(y)
            if tg.is_grad_enabled():
                loss = total(y)
                if isinstance(loss, tg.Tensor) and loss.requires_grad:
                    if not keep:
                        forget(inner)
                    loss.backward()
            show(case.grads(*x), case.state())

        for _ in range(3):
            turn()
        if case.grows:
            turn(grow=1)
            turn(grow=1)
            turn()
        turn(grad=False)
        turn(grad=False)
        for _ in range(3):
            turn(keep=True)  # gradients add up
        inner.zero_grad(set_to_none=False)
        turn(keep=True)
        # two forward passes before a backward pass
        a, b = case.draw(), case.draw()
        ya, yb = model(*a), model(*b)
        both = (total(ya), total(yb))
        forget(inner)
        for loss in both[::-1]:
            if isinstance(loss, tg.Tensor):
                loss.backward(retain_graph=True)
        show(ya, yb, case.grads(*a, *b))
        if isinstance(both[0], tg.Tensor):
            both[0].backward()
        show(case.grads(*a, *b))
        del a, b, ya, yb, both
        inner.eval()
        turn()
        turn()
        with tg.no_grad():
            turn()
            turn()
        with tg.inference_mode():
            turn(grad=False)
            turn(grad=False)
        inner.train()
        turn()
        parameters = list(inner.named_parameters())
        if parameters:
            name, p = parameters[0]
            p.requires_grad_(False)
            turn()
            turn()
            p.requires_grad_(True)
            turn()
            with tg.no_grad():
                p.mul_(0.9)
            turn()
            p.data = p.data * 1.1
            turn()
            turn()
            inner.load_state_dict({key: value * 0.9 for key, value in inner.state_dict().items()})
            turn()
            home, _, last = name.rpartition(".")
            owner = inner.get_submodule(home)
            if (
                isinstance(owner, nn.Module)
                and not isinstance(owner, (nn.ParameterList, nn.ParameterDict))
                and not isinstance(owner, nn.RNNBase)
            ):
                setattr(owner, last, nn.Parameter(p.detach() * 0.8))
                turn()
                turn()
        if not draws and not list(inner.buffers()):
            x = case.draw()
            wanted = [t for t in (*x, *inner.parameters()) if t.requires_grad]
            for _ in range(2):
                loss = total(model(*x))
                if isinstance(loss, tg.Tensor):
                    first = tg.autograd.grad(loss, wanted, create_graph=True, allow_unused=True)
                    show(first, near=True)
                    second = sum((g * g).sum() for g in first if g is not None and g.requires_grad)
                    if isinstance(second, tg.Tensor):
                        forget(inner)
                        second.backward()
                        show(case.grads(*x), near=True)
        inner.double()
        turn(dtype=tg.float64)
        turn(dtype=tg.float64)

    return script


def steps_of_training(row: Any) -> Any:
    """The backward pass is within the compiled function."""

    def script(compiled: Any, show: Any) -> None:
        case = Case(row)
        model = case.module
        if isinstance(row[0], str) and row[0].startswith("Lazy"):
            model(*case.draw())

        @compiled
        def step(*x: Any) -> Any:
            y = model(*x)
            loss = total(y)
            if isinstance(loss, tg.Tensor):
                loss.backward()
                return loss.detach()
            return loss

        @compiled
        def plain(*x: Any) -> Any:
            y = model(*x)
            loss = total(y)
            if isinstance(loss, tg.Tensor):
                loss.backward()
            return loss, y

        @compiled
        def whole(*x: Any) -> Any:
            model.zero_grad()
            return step(*x)

        for f in (step, whole):
            for grow in (0, 0, 0, 1, 1, 0) if case.grows else (0, 0, 0):
                x = case.draw(grow)
                show(f(*x), case.grads(*x), case.state())
            x = case.draw()
            for _ in range(3):  # the gradients of its arguments add up as well
                show(f(*x), case.grads(*x))
            model.eval()
            for _ in range(2):
                x = case.draw()
                show(f(*x), case.grads(*x), case.state())
            model.train()
            x = case.draw(grad=False)
            if list(model.parameters()):
                show(f(*x), case.grads(*x), case.state())
        for _ in range(3):
            x = case.draw()
            result = plain(*x)
            show(tree_map(lambda y: y.detach() if isinstance(y, tg.Tensor) else y, result), case.grads(*x))

    return script


DRAWS = ("Dropout", "Transformer", "RReLU", "FractionalMaxPool")


def ever_new(row: Any) -> Any:
    """Within, a function may be told of that writes a program in each call."""
    if row[0] in BY_DATA:
        warnings.filterwarnings("ignore", message="compile: each of the first .* mask picks another number")
    return row[0] in BY_DATA


def random_in(row: Any) -> bool:
    return isinstance(row[0], str) and any(part in row[0] for part in DRAWS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", EVERY, ids=label)
def test_a_compiled_module_is_the_module(row: Any, backend: str) -> None:
    with warnings.catch_warnings():
        more = ever_new(row)
        found = beside(a_models_life(row, random_in(row)), backend, held=backend == "cpp")
    stats = found[0].stats()
    assert stats["calls"] and (more or stats["eager"] == 0), stats


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", EVERY, ids=label)
def test_a_compiled_step_of_a_module_is_the_step(row: Any, backend: str) -> None:
    found = beside(steps_of_training(row), backend)
    for one in found:
        stats = one.stats()
        assert stats["replays"] or stats["eager"] == stats["calls"] or row[0] in BY_DATA, stats
