"""A saved dynamic program serves any size of a batch, and its sizes are data that is checked."""

from __future__ import annotations

import copy
import json
import os
import random

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.compiler import sizes
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.errors import CompileError, ShapeError
from tensorgrad.io.safetensors import FileError
from tensorgrad.nn import functional as F
from tests.compiler.test_save import STRANGE, attempt, mutate, parts, same, signed

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * 36, 5)
    )


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + F.gelu(self.out(mixed.transpose(1, 2).reshape(x.shape[0], 5, 8)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        return {"y": y, "states": (h, c)}


def loss_function():
    model = network()
    return lambda x, y: F.cross_entropy(model(x), y, label_smoothing=0.1)


def images(n, draw):
    return (tg.tensor(draw.normal(size=(n, 1, 8, 8)).astype(np.float32)),)


def labelled(n, draw):
    return (*images(n, draw), tg.tensor(draw.integers(0, 5, n)))


def rows(*shape):
    return lambda n, draw: (tg.tensor(draw.normal(size=(n, *shape)).astype(np.float32)),)


FUNCTIONS = {
    "network": (network, images),
    "evaluated": (lambda: network().eval(), images),
    "attention": (Attention, rows(5, 8)),
    "lstm": (Recurrent, rows(5, 4)),
    "embedding": (lambda: nn.Embedding(7, 3), lambda n, draw: (tg.tensor(draw.integers(0, 7, (n, 2))),)),
    "loss": (loss_function, labelled),
    "means": (lambda: lambda x: (x.mean(), x.var(0), x.std(), (x / x.shape[0]).sum(1)), rows(3)),
    "flat": (lambda: lambda x: (x.reshape(-1)[1:] * (1 / (4 * x.shape[0])), x.reshape(-1)[:-1].std()), rows(3)),
    "shapes": (lambda: lambda x: (tg.zeros(x.shape[0], 2), x[: x.shape[0] - 1] * 2, x[1:] - x[:-1]), rows(3)),
    "views": (lambda: lambda x: (x * 2, x.reshape(-1, 1), x[: x.shape[0] - 1]), rows(3)),
    "transposed": (lambda: lambda x: x.t() @ x, rows(3)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loaded_program_serves_every_size(name, inference, backend, tmp_path):
    make, arguments = FUNCTIONS[name]
    draw = np.random.default_rng(0)
    with tg.backend(backend):
        tg.manual_seed(0)
        compiled = tg.compile(make(), dynamic=True)
        for n in (16, 8):
            args = arguments(n, draw)
            with tg.inference_mode(inference):
                compiled(*args)
        with tg.inference_mode(inference):
            compiled.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        assert loaded.sizes == 2
        for n in (5, 16, 2, 7, 5, 33, 33):
            args = arguments(n, draw)
            with tg.inference_mode(inference):
                expected = compiled(*args)
            with tg.no_grad():
                # half of a pair, and a run, does no norms within convolutions, and a program alone does
                same(loaded(*args), expected, exact=name != "evaluated")
        assert compiled.stats()["captures"] == 5 and compiled.stats()["programs"] == 1
        assert "any size of the batch from 2 on; this is of 33" in loaded.explain()
        with pytest.raises(ShapeError, match=r"any batch size n from 2 on.*where n is 1"):
            loaded(*arguments(1, draw))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["network", "evaluated", "attention", "lstm"])
def test_a_single_row_is_served_if_it_was_called_with(name, backend, tmp_path):
    make, arguments = FUNCTIONS[name]
    draw = np.random.default_rng(0)
    with tg.backend(backend), tg.inference_mode():
        tg.manual_seed(0)
        compiled = tg.compile(make(), dynamic=True)
        for n in (4, 3, 1):
            compiled(*arguments(n, draw))
        compiled.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        for n in (1, 6, 1):
            args = arguments(n, draw)
            same(loaded(*args), compiled(*args), exact=name != "evaluated" or n == 1)
        assert loaded.sizes == 1


def test_a_single_row_of_another_course_is_a_program_of_its_own(tmp_path):
    f = tg.compile(lambda x: x * 2 if x.shape[0] > 1 else x * 3, dynamic=True)
    for n in (4, 3, 1):
        f(tg.ones(n))
    f.save(tmp_path / "one.tgp")  # what was called last
    loaded = tg.compiler.load(tmp_path / "one.tgp")
    assert loaded.sizes is None and loaded(tg.ones(1)).tolist() == [3.0]
    f(tg.ones(4))
    f.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    assert loaded.sizes == 2 and loaded(tg.ones(2)).tolist() == [2.0] * 2
    with pytest.raises(ShapeError, match="where n is 1"):
        loaded(tg.ones(1))


def test_views_that_are_returned_follow_the_size_in_process_too():
    base = tg.arange(20.0)
    f = tg.compile(lambda x: (x * 2, base[: x.shape[0]], x.reshape(-1, 1)), dynamic=True)
    for n in (6, 8, 5, 12):
        doubled, part, column = f(tg.ones(n))
        assert doubled.shape == (n,) and part.tolist() == list(range(n)) and column.shape == (n, 1)
    assert f.stats()["captures"] == 4 and f.stats()["programs"] == 1


def test_state_and_generators_are_one_for_all_sizes(tmp_path):
    draw = np.random.default_rng(0)
    with tg.backend("numpy"), tg.no_grad():
        compiled = tg.compile(network(), dynamic=True)
        for n in (8, 4):
            compiled(*images(n, draw))
        compiled.save(tmp_path / "f.tgp")
        a, b = (tg.compiler.load(tmp_path / "f.tgp").manual_seed(3) for _ in range(2))
        x, y = images(6, draw), images(3, draw)
        first = a(*x), a(*y)
        assert not (a.state["1.running_mean"] == b.state["1.running_mean"]).all()
        same((b(*x), b(*y)), first)
        assert (a.state["1.running_mean"] == b.state["1.running_mean"]).all()
        a.state["5.weight"].zero_()
        a.state["5.bias"].fill_(3.0)
        assert (a(*x) == 3.0).all() and (a(*images(11, draw)) == 3.0).all()


def test_many_sizes_are_served_and_few_are_kept(tmp_path):
    f = tg.compile(lambda x: (x * x).sum(1), dynamic=True)
    for n in (4, 6):
        f(tg.ones(n, 3))
    f.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    for n in (*range(2, 50), 3, 3, 49, 49):
        assert loaded(tg.ones(n, 3)).tolist() == [3.0] * n
    assert len(loaded._served) == 16


def test_sizes_that_can_not_be_served(tmp_path):
    f = tg.compile(lambda x, y: x[3:] * y, dynamic=True)
    for n in (8, 6):
        f(tg.ones(n, 2), tg.ones(n - 3, 2))
    f.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    assert loaded(tg.ones(5, 2), tg.ones(2, 2)).shape == (2, 2)
    for shapes, complaint in (
        (((5, 2), (3, 2)), r"\(n, 2\) as its tensor 1, got \(3, 2\); n is 2, by its tensor 0"),
        (((5, 3), (2, 2)), r"\(n \+ 3, 2\) as its tensor 0"),
        (((5,), (2, 2)), r"\(n \+ 3, 2\) as its tensor 0"),
        (((), (2, 2)), r"\(n \+ 3, 2\) as its tensor 0, got \(\)"),
        (((3, 2), (0, 2)), "where n is 0"),
    ):
        with pytest.raises(ShapeError, match=complaint):
            loaded(*map(tg.ones, shapes))
    with pytest.raises(TypeError, match="structure"):
        loaded(tg.ones(5, 2))
    with pytest.raises(TypeError, match="takes a Tensor"):
        loaded(5, tg.ones(2, 2))


def test_of_one_size_until_two_were_seen(tmp_path):
    f = tg.compile(lambda x: x * 2, dynamic=True)
    f(tg.ones(3))
    f.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    assert loaded.sizes is None
    with pytest.raises(ShapeError, match=r"takes shape \(3,\)"):
        loaded(tg.ones(4))


def test_what_does_not_show_how_it_follows_is_not_saved(tmp_path, monkeypatch):
    f = tg.compile(lambda x: x * 2, dynamic=True)
    for n in (3, 4):
        f(tg.ones(n))
    monkeypatch.setattr("tensorgrad.compiler.save.merged", _unlike)
    with pytest.raises(CompileError, match=r"sizes 3 and 4.*compile without dynamic"):
        f.save(tmp_path / "f.tgp")
    assert not list(tmp_path.iterdir())


def _unlike(*_):
    raise sizes.Unlike("calls: 3 and 4 of them")


def test_the_older_version_loads(tmp_path):
    f = Compiled(lambda x: x * 2)
    f(tg.ones(3))
    f.save(tmp_path / "f.tgp")
    header, data = parts(tmp_path / "f.tgp")
    assert header["__metadata__"]["version"] == "3"
    for version, known in (("1", True), ("2", True), ("4", False), ("0", False), (3, False)):
        header["__metadata__"]["version"] = version
        signed(tmp_path / "g.tgp", header, data, json.loads(header["__metadata__"]["program"]))
        if known:
            assert tg.compiler.load(tmp_path / "g.tgp")(tg.ones(3)).tolist() == [2.0] * 3
        else:
            with pytest.raises(FileError, match="reads the versions 1, 2, 3"):
                tg.compiler.load(tmp_path / "g.tgp")


# --- the forms of numbers


@pytest.mark.parametrize(
    "number",
    [lambda n: 3 * n, lambda n: -4 * n, lambda n: n - 3, lambda n: n + 70, lambda n: 5 / n, lambda n: n * 6.0,
     lambda n: 3 * n / (3 * n - 1), lambda n: 7, lambda n: 3 * n - 1, lambda n: 5 * n + 2, lambda n: -7 * n + 1,
     lambda n: 1 / (4 * n), lambda n: -1 / (2 * n), lambda n: n - 3.0, lambda n: 3.0 * n - 1,
     lambda n: [n, {"a": 1 / n}]],
)  # fmt: skip
def test_numbers_follow_from_two_sizes(number):
    written = sizes.merged(number(16), number(10), (16, 10))
    for n in (2, 3, 8, 1000):
        found = sizes.at_size(json.loads(json.dumps(written)), n)
        assert found == number(n) and type(found) is type(number(n))


@pytest.mark.parametrize(
    ("number", "has_a_form"),
    [
        (lambda k, n: 1 / (k * n), True),
        (lambda k, n: -1 / (k * n), True),
        (lambda k, n: 2 / (k * n), True),
        (lambda k, n: 1 / k / n, False),
        (lambda k, n: 1 / n / k, False),
    ],
)
def test_quotients_are_known_by_sizes_that_tell_how_they_are_rounded(number, has_a_form):
    told = 0
    for k in (3, 5, 7, 10, 12, 30):
        for pair in ((16, 8), (16, 10), (11, 9), (15, 22), (33, 30), (7, 22), (28, 49)):
            try:
                written = sizes.merged(*(number(k, n) for n in pair), pair)
            except sizes.Unlike:
                continue
            told += 1
            assert all(sizes.at_size(json.loads(json.dumps(written)), n) == number(k, n) for n in range(2, 500))
    assert (told > 0) == has_a_form


def test_numbers_that_do_not_follow():
    for a, b in ((16**2, 10**2), (16 * 15, 10 * 9), (8 * 15, 5 * 9), (256.0, 100.0), (1 / 256, 1 / 100), (45, 27),
                 (True, False), (1, 1.0), ("a", "b"), (0.3, 0.4), ([1], [1, 2]), ({"a": 1}, {"b": 1}),
                 (float("inf"), 1.0), (1e308, 1.0), (None, 0)):  # fmt: skip
        with pytest.raises(sizes.Unlike):
            sizes.merged(a, b, (16, 10))


# --- files that lie


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "f.tgp"
    with tg.backend("numpy"), tg.inference_mode():
        compiled = tg.compile(Attention(), dynamic=True)
        for n in (4, 6):
            compiled(*rows(5, 8)(n, np.random.default_rng(n)))
        compiled.save(path)
    return path


def n(*parts):
    return {"batch size": list(parts)}


LIES = {
    "no batch": (("batch",), None, r"shape was expected|whole number"),
    "no least": (("batch",), {"saved": 4}, "unknown form"),
    "a least of 0": (("batch", "least"), 0, "least batch size"),
    "a least of 3": (("batch", "least"), 3, "least batch size"),
    "a huge size": (("batch", "saved"), 1 << 47, "memory|whole number"),
    "a huger size": (("batch", "saved"), 1 << 60, "whole number"),
    "a size below the least": (("batch", "saved"), 1, "least batch size"),
    "a size that is none": (("batch", "saved"), 4.0, "whole number"),
    "an unknown form": (("arguments", 0, "shape", 0), n("power", 2), "size of a shape|unknown way"),
    "a form of code": (("arguments", 0, "shape", 0), n("__import__('os')", 2), "unknown way"),
    "too many parts": (("arguments", 0, "shape", 0), n("times", 1, 1), "was expected"),
    "no parts": (("arguments", 0, "shape", 0), {"batch size": 3}, "was expected"),
    "two keys": (("arguments", 0, "shape", 0), {**n("times", 1), "a": 1}, "was expected"),
    "a huge factor": (("arguments", 0, "shape", 0), n("times", 1 << 47), "memory|whole number"),
    "a huger factor": (("arguments", 0, "shape", 0), n("times", 1 << 62), "whole number"),
    "a factor of 0": (("arguments", 0, "shape", 0), n("times", 0), "makes float32|layer_norm|shape"),
    "a negative factor": (("arguments", 0, "shape", 0), n("times", -1), "whole number"),
    "a float": (("arguments", 0, "shape", 0), n("times", 1.0), "whole number"),
    "a bool": (("arguments", 0, "shape", 0), n("times", True), "whole number"),
    "a part of one": (("arguments", 0, "shape", 1), n("over", 0.1), "number was expected"),
    "no part": (("arguments", 0, "shape", 1), n("over", 0.0), "number was expected"),
    "half a line": (("arguments", 0, "shape", 0), n("affine", [2]), "two numbers"),
    "a line of texts": (("arguments", 0, "shape", 0), n("affine", ["a", 2]), "two numbers"),
    "a line of no slope": (("arguments", 0, "shape", 0), n("affine", [0, 2]), "makes float32|layer_norm|shape"),
    "a share": (("arguments", 0, "shape", 0), n("share", 4), "size of a shape"),
    "no such variance": (("arguments", 0, "shape", 1), n("unbiased", 0), "no such number"),
    "a negative sum": (("arguments", 0, "shape", 0), n("plus", -9), "whole number"),
    "an infinite number": (("arguments", 0, "shape", 1), n("each", 1e301), "number was expected"),
    "no size at all": (("arguments", 0, "shape", 0), 4, "no argument has a size"),
    "another shape": (("arguments", 0, "shape", 1), n("plus", 2), "whole|makes|expects|reshape|shape"),
    "the state": (("state", 0, "shape", 0), n("times", 2), "whole number"),
    "the state's place": (("state", 0, "offset"), n("times", 0), "whole number"),
    "a generator": (("generators",), [[n("times", 1), 0]], "whole number"),
    "the outputs": (("outputs", 0), n("times", 1), "whole number"),
    "the same tensors": (("same", 0), n("plus", -4), "tensor's number"),
    "an op": (("calls", 0, "op"), n("times", 1), "op's name"),
    "a result": (("calls", 0, "results", 0, "shape", 0), n("plus", 1), "makes float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_sizes_that_lie_are_refused(name, honest, tmp_path):
    where, value, complaint = LIES[name]
    header, data = parts(honest)
    program = json.loads(header["__metadata__"]["program"])
    target = program
    for key in where[:-1]:
        target = target[key]
    if value is None:
        del target[where[-1]]
    else:
        target[where[-1]] = value
    signed(tmp_path / "f.tgp", header, data, program)
    with tg.backend("numpy"), pytest.raises(FileError, match=complaint):
        tg.compiler.load(tmp_path / "f.tgp")


def test_a_lie_about_other_sizes_is_found_when_they_are_asked_for(honest, tmp_path):
    header, data = parts(honest)
    program = json.loads(header["__metadata__"]["program"])
    made = next(r for call in program["calls"] for r in call["results"] if type(r["shape"][0]) is dict)
    made["shape"][0] = 4  # right for the size that is read first
    signed(tmp_path / "f.tgp", header, data, program)
    with tg.backend("numpy"):
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        assert loaded(tg.ones(4, 5, 8)).shape == (4, 5, 8)
        with pytest.raises(ShapeError, match=r"can't be of the batch size 5: call .*makes float32.*saved of"):
            loaded(tg.ones(5, 5, 8))
        assert loaded(tg.ones(4, 5, 8)).shape == (4, 5, 8)


def test_changed_bytes_are_noticed(honest, tmp_path):
    raw = honest.read_bytes()
    draw = random.Random(1)
    path = tmp_path / "f.tgp"
    for turn in range(150):
        changed = bytearray(raw)
        at = draw.randrange(len(raw))
        if turn % 3 == 0:
            changed[at] ^= 1 << draw.randrange(8)
        elif turn % 3 == 1:
            del changed[at:]
        else:
            changed[at : at + 8] = draw.randbytes(8)
        path.write_bytes(changed)
        if bytes(changed) != raw:
            with pytest.raises(FileError):
                tg.compiler.load(path)


_SIZES = tuple(
    n(form, k)
    for form in ("times", "plus", "affine", "share", "over", "each", "unbiased", "other")
    for k in (
        *(0, 1, -1, 2, 7, 1 << 40, 1 << 62, -(1 << 47), 0.5, 1e300),
        *(True, None, "1"),
        [2, -1],
        [0.0, 3.0],
        [1 << 62],
    )
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["network", "attention", "lstm", "loss", "means", "flat", "views"])
def test_sizes_changed_at_random_do_no_harm(name, backend, tmp_path, monkeypatch):
    """With checksums that are right, loaded, and called with sizes that were saved and others."""
    make, arguments = FUNCTIONS[name]
    monkeypatch.setitem(mutate.__globals__, "STRANGE", (*STRANGE, *_SIZES))
    draw = random.Random(os.environ.get("FUZZ", name))
    rng = np.random.default_rng(0)
    with tg.backend(backend), tg.no_grad():
        compiled = tg.compile(make(), dynamic=True)
        for size in (6, 4):
            compiled(*arguments(size, rng))
        compiled.save(tmp_path / "f.tgp")
        assert all(attempt(tmp_path / "f.tgp", *arguments(size, rng)) for size in (6, 5))
        header, data = parts(tmp_path / "f.tgp")
        text = header["__metadata__"]["program"]
        for _ in range(int(os.environ.get("FUZZ", 100))):
            program, changed = json.loads(text), copy.deepcopy(header)
            for _ in range(draw.randrange(1, 3)):
                mutate(program if draw.random() < 0.95 else changed, draw)
            if type(changed.get("__metadata__")) is not dict:
                continue
            signed(tmp_path / "g.tgp", changed, data, program)
            for size in (6, 5):
                attempt(tmp_path / "g.tgp", *arguments(size, rng))
