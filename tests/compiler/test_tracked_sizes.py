"""What Python computes with the size of a batch, and asks of it, is known to dynamic=True, and not guessed."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import statistics
import warnings

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.compiler import tracked_sizes
from tensorgrad.compiler.program import Value
from tensorgrad.compiler.size_conditions import SizeConditions
from tensorgrad.compiler.sizes import Unlike
from tensorgrad.compiler.tracked_sizes import SizesRead, TrackedFloat, TrackedInt, untracked
from tensorgrad.errors import CompileError, IndexOutOfRange
from tensorgrad.nn import functional as F

BACKENDS = [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None]
SIZES = (8, 7, 6, 9, 12, 5, 4, 3, 16, 30, 2, 8, 7, 29)
LIST = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def evens(x):
    return x * sum(1 for i in range(x.shape[0]) if i % 2 == 0)


ASKED = {
    "half": lambda x: x[: x.shape[0] // 2] * 2,
    "half of size()": lambda x: x[: x.size(0) // 2] * 2,
    "half of numel()": lambda x: x[: x.numel() // 2] * 2,
    "half of len()": lambda x: x[: len(x) // 2] * 2,
    "half of an int": lambda x: x * (int(x.shape[0]) // 2),
    "half of a float": lambda x: x[: int(x.shape[0] * 0.5)] * 2,
    "branch": lambda x: x * 2 if x.shape[0] > 8 else x * 3,
    "parity": lambda x: x * 2 if x.shape[0] % 2 else x * 3,
    "least": lambda x: x[: min(x.shape[0], 6)] * 2,
    "square": lambda x: x * (x.shape[0] * x.shape[0]),
    "square by nine": lambda x: x * (x.shape[0] * x.shape[0] / 9),
    "power": lambda x: x * x.shape[0] ** 2,
    "root": lambda x: x * x.shape[0] ** 0.5,
    "bits": lambda x: x * (x.shape[0] & 3),
    "key": lambda x: x * {8: 2.0, 7: 3.0}.get(x.shape[0], 1.0),
    "text": lambda x: x * float(len(f"{x.shape[0]}")),
    "element": lambda x: x * LIST[min(x.shape[0] - 1, 5)],
    "chunk": lambda x: x.chunk(2)[0] * 2,
    "last chunk": lambda x: x.chunk(2)[-1] * 2,
    "every second": lambda x: x[::2] * 2,
    "every third": lambda x: x[::3] * 2,
    "pool": lambda x: F.max_pool1d(x.reshape(1, 1, -1), 2),
    "interpolate": lambda x: F.interpolate(x.reshape(1, 1, -1), scale_factor=0.5),
    "pad": lambda x: F.pad(x, (0, x.shape[0] % 4)),
    "pad up": lambda x: F.pad(x, (0, 32 - x.shape[0])),
    "range": evens,
    "slice of a list": lambda x: x * sum(LIST[: x.shape[0]]),
}  # fmt: skip


# what reads a number past the methods of arithmetic
ASKED |= {
    "gcd": lambda x: x * math.gcd(x.shape[0], 6),
    "mean of sizes": lambda x: x * statistics.mean([x.shape[0], 4]),
    "real": lambda x: x * (x.shape[0].real % 3),
    "bits": lambda x: x * x.shape[0].bit_count(),
    "ratio": lambda x: x * (x.shape[0].as_integer_ratio()[0] % 3),
    "is an integer": lambda x: x * (x.shape[0] / 4).is_integer(),
    "float": lambda x: x * (float(x.shape[0]) % 3),
    "index": lambda x: x * (operator.index(x.shape[0]) % 2),
    "ufunc": lambda x: x * int(np.mod(x.shape[0], 3)),
    "bytes": lambda x: x * (x.nbytes % 16 == 0),
    "stride": lambda x: x * (x[None].stride(0) % 3),
    "stride of a column": lambda x: x * (x[:, None].expand(-1, x.shape[0]).contiguous()[:, 0].stride(0) % 3),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("sizes", [SIZES, (3, 6, 9, 4, 12, 5), (16, 8, 12, 9, 10, 40)], ids=str)
def test_no_size_is_served_by_what_another_would_do(name, sizes):
    function = ASKED[name]
    compiled = tg.compile(function, dynamic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a size that shows more than was known
        for n in sizes:
            x = tg.arange(float(n)) + 1
            assert compiled(x).tolist() == function(x).tolist()


FOLLOWS = {
    "mean": lambda x: x.sum(0) / x.shape[0],
    "rows": lambda x: x.reshape(x.shape[0] * x.shape[1]).sum() / x.numel(),
    "view": lambda x: x.view(x.size(0), -1).mean(1),
    "zeros": lambda x: x + tg.zeros(x.shape) + tg.ones(x.size(0), 1) * tg.zeros(x.size()),
    "last row": lambda x: x[x.shape[0] - 1] + x[-1],
    "checked": lambda x: x * 2 if x.shape[0] > 0 and x.shape == (x * 1).shape and x.shape[1] == 3 else x,
    "expand": lambda x: x.expand(2, *x.shape).sum(0),
    "positions": lambda x: x[tg.arange(x.shape[0]), 1] * tg.arange(1, 2 * x.shape[0] + 1, 2, dtype=tg.float32),
    "causal": lambda x: (x @ x.T).masked_fill(tg.ones(x.shape[0], x.shape[0]).triu(1).bool(), 0),
    "negative": lambda x: x[-x.shape[0] + 1 :] * 2,
    "bytes": lambda x: x.sum() / (x.nbytes // 4 if x.nbytes < 0 else x.nbytes),
    "stride": lambda x: x.reshape(-1).as_strided((x.shape[0], 2), x.stride()).sum(0) / x.stride(0),
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_numbers_that_follow_from_the_size_are_one_program(name):
    function = FOLLOWS[name]
    compiled = tg.compile(function, dynamic=True)
    for n in (40, 12, 3, 7, 31, 4, 39):
        x = tg.arange(3.0 * n).reshape(n, 3) + 1
        assert compiled(x).tolist() == function(x).tolist()
    assert compiled.stats()["captures"] == 3 and compiled.stats()["programs"] == 1


def test_each_way_of_a_condition_has_its_sizes():
    f = tg.compile(lambda x: x * 2 if x.shape[0] > 8 else x * 3, dynamic=True)
    for n in (20, 10, 8, 4, 15, 12, 6, 5, 9):
        assert f(tg.ones(n)).tolist() == [2.0 if n > 8 else 3.0] * n
    # 9 lies beyond 10 to 20
    assert f.stats()["captures"] == 5 and f.stats()["programs"] == 2


def test_a_size_that_refutes_the_programs_says_so():
    f = tg.compile(evens, dynamic=True)
    f(tg.ones(8)), f(tg.ones(7))
    assert f.stats()["programs"] == 1
    with pytest.warns(UserWarning, match="a further size of the batch has shown that <compiled evens"):
        assert f(tg.ones(6)).tolist() == [3.0] * 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (8, 7, 9, 6, 10):
            assert f(tg.ones(n)).tolist() == [float((n + 1) // 2)] * n


def test_a_program_whose_way_depends_on_the_size_is_not_saved(tmp_path):
    f = tg.compile(lambda x: x * 2 if x.shape[0] > 8 else x * 3, dynamic=True)
    for n in (20, 10):
        f(tg.ones(n))
    with pytest.raises(CompileError, match=r"way depends on the size at .*test_tracked_sizes.*without dynamic=True"):
        f.save(tmp_path / "f.tgp")


def test_a_model_that_reads_its_sizes_trains_as_it_is():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(11, 8), nn.Linear(8, 11)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            b, t = x.shape
            h = self.embed(x) + tg.arange(t).view(1, t, 1) * 0.1
            h = self.attention(h, h, h, need_weights=False)[0].reshape(b * t, -1)
            return self.out(h).view(b, t, 11)

    tg.manual_seed(0)
    models = [Net()]
    models.append(copy.deepcopy(models[0]))
    losses = []
    for model, dynamic in zip(models, (None, True), strict=True):
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), x.reshape(-1))
            loss.backward()
            optimizer.step()
            return loss

        run = step if dynamic is None else tg.compile(step, dynamic=True)
        tg.manual_seed(1)
        losses.append([run(tg.randint(0, 11, (n, 5))).item() for n in (16, 16, 8, 12, 9, 16, 3, 11, 5)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    stats = run.stats()
    assert stats["programs"] == 1 and stats["captures"] == 4, stats  # the first step, 16, 8 and 3


def first(found):
    return found[0] if isinstance(found, tuple) else found


MODULES = {
    "grid": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Flatten()), (4, 8, 8)),
    "norms": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(3)), (4, 8, 8)),
    "upsample": (lambda: nn.Sequential(nn.PixelShuffle(2), nn.Upsample(scale_factor=2, mode="bilinear")), (4, 4, 4)),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), (5, 6)),
    "LSTM": (lambda: nn.LSTM(6, 4, batch_first=True), (5, 6)),
    "GRU": (lambda: nn.GRU(6, 4, num_layers=2, batch_first=True), (5, 6)),
    "RNNCell": (lambda: nn.RNNCell(6, 4), (6,)),
    "GRUCell": (lambda: nn.GRUCell(6, 4), (6,)),
    "LSTMCell": (lambda: nn.LSTMCell(6, 4), (6,)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODULES)
def test_modules_of_any_batch_are_one_program(name, backend):
    """What they make sure of (a batch of the state's size, say) is no question."""
    make, shape = MODULES[name]
    with tg.backend(backend):
        tg.manual_seed(0)
        model = make()
        compiled = tg.compile(model, dynamic=True)
        for n in (16, 8, 12, 9):
            x = tg.randn(n, *shape)
            tg.manual_seed(n)
            found = first(compiled(x))
            tg.manual_seed(n)
            assert tg.allclose(found, first(model(x)), atol=1e-5)
            if found.requires_grad:
                found.sum().backward()
        assert compiled.stats()["captures"] == 2 and compiled.stats()["programs"] == 1


# --- the numbers themselves


def reading(*shape):
    read = SizesRead(lambda array: VALUE)
    return read, tg.ones(*shape)


VALUE = Value("x", tg.ones(6, 4)._data)


def conditions(read, sizes=(8, 6)):
    return SizeConditions(read, sizes, lambda value, size: (size, 4))


def test_a_tracked_number_is_a_number():
    read, x = reading(6, 4)
    with read.reading():
        n = x.shape[0]
        assert type(n) is TrackedInt and isinstance(n, int) and n == 6 and hash(n) == 6 and [5, 6, 7][n - 5] == 6
        assert type(n / 4) is TrackedFloat and n / 4 == 1.5 and f"{n:03d}" == "006" and repr(n) == "6" and bool(n)
        assert divmod(n, 4) == (1, 2) and divmod(20, n) == (3, 2) and 2**n == 64 and ~n == -7 and -n == -6
        assert (
            round(n / 4) == 2
            and round(n / 7, 2) == 0.86
            and int(n / 4) == 1
            and n | 1 == 7
            and abs(-n) == 6
            and n != "6"
        )
        assert [0] * n == [0] * 6 and "ab" * n == "ab" * 6 and len(range(n)) == 6 and x.shape.numel() == 24
        with pytest.raises(TypeError):
            n + None
    assert type(x.shape[0]) is int and type(n + 1) is int and type(untracked((n, [n], slice(n)))[1][0]) is int
    assert type(pickle.loads(pickle.dumps(n))) is int and copy.deepcopy(n) == 6


def test_tensors_tell_plain_sizes_to_other_threads_and_afterwards():
    import threading

    read, x = reading(6, 4)
    found = []
    with read.reading():
        thread = threading.Thread(target=lambda: found.append(type(x.shape[0])))
        thread.start()
        thread.join()
        assert type(x.size(0)) is TrackedInt and type(x.numel()) is TrackedInt and type(len(x)) is int
    assert found == [int] and type(x.size(0)) is int and type(x.numel()) is int


QUESTIONS = {
    "more": (lambda n: n > 5, True, {5: False, 7: True}),
    "equal": (lambda n: n == 6, None, {}),
    "always more": (lambda n: n >= 2, True, {2: True, 1000: True}),
    "never": (lambda n: 2 * n == 7, True, {3: True}),
    "of ten": (lambda n: n * 3 - 2 < 100, True, {33: True, 34: False}),
    "share": (lambda n: n / 4 > 1.25, True, {5: False, 7: True}),
    "remainder": (lambda n: n % 2, True, {4: True, 5: False}),
    "in a list": (lambda n: n in (3, 5), True, {3: False, 4: True, 5: False}),
    "divided": (lambda n: 100 // (n - 3) > 10, None, {}),  # the quotient itself is another for 8
    "divided the same": (lambda n: 11 // (n + 3) > 10, True, {-3: False, 7: True, 9: False}),
    "as itself": (lambda n: n + n - n == n, True, {2: True, 99: True}),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_has_the_same_answer_or_the_size_is_another_case(name):
    ask, possible, answers = QUESTIONS[name]
    read, x = reading(6, 4)
    with read.reading():
        ask(x.shape[0])
    if possible is None:
        with pytest.raises(Unlike, match="way depends on the size"):
            conditions(read)
        return
    held = conditions(read)
    assert {size: held.hold(size) for size in answers} == answers


def test_what_holds_for_all_sizes_is_not_asked():
    read, x = reading(6, 4)
    with read.reading():
        b, t = x.shape
        assert b > 0 and t == 4 and x.shape == x.shape and b * t + 1 and t // 2 == 2 and (b - 1) * 2 != b * 2
        _ = (b * t) / 3, 1 / b, -(2 / (b + 1)) * 3, b * 0.5
    assert conditions(read).asked == []


def test_too_many_numbers_are_no_program_for_all_sizes():
    read, x = reading(6, 4)
    with read.reading():
        for _ in range(6000):
            x.shape[0] + 1
    with pytest.raises(Unlike, match="too many"):
        conditions(read)


def test_an_index_beyond_a_smaller_size_is_ours():
    compiled = tg.compile(lambda x: x[3] * 2, dynamic=True)
    for n in (7, 4, 5, 3, 6):
        if n == 3:
            with pytest.raises(IndexOutOfRange, match="index 3 is out of bounds for dimension 0 with size 3"):
                compiled(tg.ones(n, 2))
        else:
            assert compiled(tg.ones(n, 2)).tolist() == [2.0, 2.0]


def test_an_interrupt_leaves_sizes_plain(monkeypatch):
    class Interrupting:
        times = 0

        def __enter__(self):
            pass

        def __exit__(self, *_):
            self.times += 1
            if self.times == 1:
                raise KeyboardInterrupt

    compiled = tg.compile(lambda x: x * x.shape[0], dynamic=True)
    with monkeypatch.context() as patch:
        patch.setattr(tracked_sizes, "_lock", Interrupting())
        with pytest.raises(KeyboardInterrupt):
            compiled(tg.ones(3))
    assert type(tg.ones(3).shape[0]) is int and "_shape" not in str(tg.Tensor.__dict__["shape"].fget)
    assert [compiled(tg.ones(n)).sum().item() for n in (3, 4, 5)] == [9.0, 16.0, 25.0]
