"""dynamic=True: two sizes of a batch make one program, and further sizes run no Python."""

from __future__ import annotations

import copy

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.nn import functional as F

BACKENDS = [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None]
SIZES = (16, 16, 16, 8, 8, 5, 7, 16, 2, 1, 1, 5, 33)


def network():
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * 36, 5)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_of_any_batch(backend):
    with tg.backend(backend):
        runs = []
        for compiled in (False, True):
            model = network()
            optimizer = tg.optim.Adam(model.parameters(), lr=1e-3)
            count = [0]

            def step(x, y, model=model, optimizer=optimizer):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                return loss

            f = tg.compile(step, dynamic=True) if compiled else step
            losses = []
            for n in SIZES:
                tg.manual_seed(n)
                losses.append(f(tg.randn(n, 1, 8, 8), tg.randint(0, 5, (n,))).item())
            runs.append((losses, [p.tolist() for p in model.parameters()]))
            del count
        assert runs[0] == runs[1]
        stats = f.stats()
        # runs: the optimizer's first step; 16; 8, which shows the family; 5, 2 and 33 beyond; 1 beside it
        assert stats["captures"] == 7 and stats["programs"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_and_its_gradients_of_any_batch(backend):
    with tg.backend(backend):
        model = network()
        other = copy.deepcopy(model)
        compiled = tg.compile(model, dynamic=True)
        for n in (16, 8, 5, 7, 16, 2, 33):
            tg.manual_seed(n)
            x = tg.randn(n, 1, 8, 8)
            tg.manual_seed(n)
            expected = other(x)
            tg.manual_seed(n)
            found = compiled(x)
            assert found.tolist() == expected.tolist()
            found.square().sum().backward()
            expected.square().sum().backward()
            for p, q in zip(model.parameters(), other.parameters(), strict=True):
                assert p.grad.tolist() == q.grad.tolist()
        # 7 lies between two sizes that there were
        assert compiled.stats()["captures"] == 5 and compiled.stats()["programs"] == 1


def test_what_follows_from_the_size_in_another_way_is_captured_for_each():
    f = tg.compile(lambda x: x * x.shape[0] ** 2, dynamic=True)
    for n in (3, 4, 5, 6):
        assert f(tg.ones(n)).tolist() == [float(n * n)] * n
    assert f.stats()["captures"] == 4


def test_without_it_every_size_is_a_program():
    f = tg.compile(lambda x: (x + 1).mean())
    for n in (3, 4, 5, 3, 4, 5):
        assert f(tg.ones(n)).item() == 2.0
    assert f.stats()["captures"] == 3 == f.stats()["programs"]


MEANS = {
    "mse": lambda x: F.mse_loss(x, tg.zeros(x.shape[0], 3)),
    "l1": lambda x: F.l1_loss(x, tg.ones(x.shape[0], 3)),
    "huber": lambda x: F.huber_loss(x, tg.ones(x.shape[0], 3), delta=0.5),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, tg.full((x.shape[0], 3), 0.3)),
    "mean": lambda x: x.square().mean(),
    "of four": lambda x: x.repeat(1, 4).square().mean() * (1 / (4 * x.shape[0])),
    "sum over count": lambda x: x.square().sum() / x.numel(),
    "var": lambda x: x.var(),
    "var by columns": lambda x: x.var(0).sum(),
    "std": lambda x: x.std(),
    "correction of two": lambda x: x.std(correction=2),
    "tokens": lambda x: F.cross_entropy(x.reshape(-1, 1, 3).expand(-1, 4, 3).reshape(-1, 3),
                                        tg.ones(4 * x.shape[0], dtype=tg.int64)),
    "shifted tokens": lambda x: (x.reshape(-1)[1:] * x.reshape(-1)[:-1]).mean(),
    "statistics": lambda x: F.batch_norm(x.reshape(-1, 3, 1).expand(-1, 3, 5), tg.zeros(3), tg.ones(3),
                                         training=True).square().mean(),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
@pytest.mark.parametrize("name", MEANS)
def test_means_over_the_batch_and_over_columns(name, dtype, backend):
    function = MEANS[name]
    with tg.backend(backend):
        compiled = tg.compile(function, dynamic=True)
        for n in (16, 8, 5, 7, 12, 33, 2, 100, 3):
            tg.manual_seed(n)
            values = tg.randn(n, 3, dtype=dtype)
            found = []
            for f in (function, compiled):
                x = values.clone().requires_grad_()
                loss = f(x)
                loss.backward()
                found.append([loss.item(), x.grad.tolist()])
            assert found[0] == found[1]
        assert compiled.stats()["captures"] == 6 and compiled.stats()["programs"] == 1


def test_a_quotient_that_two_sizes_do_not_tell_waits_for_one_that_does():
    """A third divided by 16, or by 8, is rounded as 1 / 48 and 1 / 24 are; divided by 5 it is not."""
    apart = next(n for n in range(5, 99) if 1 / 3 / n != 1 / (3 * n))
    for function in (lambda x: x * (1 / 3 / x.shape[0]), lambda x: x * (1 / (3 * x.shape[0]))):
        compiled = tg.compile(function, dynamic=True)
        for n in (16, 8, 4, apart, 31, 33, 25, 26):
            x = tg.ones(n, dtype=tg.float64)
            assert compiled(x).tolist() == function(x).tolist()
    assert 2 < compiled.stats()["captures"] < 8


def test_a_program_that_can_not_be_of_another_size_is_written_of_a_run():
    """Every second row of 8 and of 7 are 4, of 16 they are 8."""
    compiled = tg.compile(lambda x: x[::2] * 2, dynamic=True)
    for n in (8, 7, 16, 20):
        x = tg.arange(float(n))
        assert compiled(x).tolist() == (x[::2] * 2).tolist()


@pytest.mark.parametrize("dynamic", [False, True])
def test_where_programs_go_before_they_are_of_use_further_forms_run_as_they_are(dynamic):
    compiled = Compiled(lambda x: x * 2 + 1, limit=2, dynamic=dynamic)
    with pytest.warns(UserWarning, match="run as they are.*ever other forms") as told:
        for n in (3, 3, 60, *range(4, 60), *range(4, 60)):
            assert compiled(tg.ones(n)).tolist() == [3.0] * n
    assert [w.filename for w in told] == [__file__]
    found = compiled.stats()
    assert found["evicted"] < 10
    assert found["eager"] > 60
    assert any("ever other forms" in why for why in found["reasons"])
    for _ in range(12):
        compiled(tg.ones(45)), compiled(tg.ones(47))
    assert compiled.stats()["eager"] == found["eager"] + 24
    for _ in range(12):
        compiled(tg.ones(45))
    now = compiled.stats()
    assert (now["evicted"], now["eager"]) == (found["evicted"] + 1, found["eager"] + 26)
    compiled.forget()
    for _ in range(2):
        compiled(tg.ones(9))
    assert compiled.stats()["eager"] == now["eager"]


def test_where_python_reads_ever_other_numbers_calls_run_as_they_are():
    pad, pack = nn.utils.rnn.pad_packed_sequence, nn.utils.rnn.pack_padded_sequence
    compiled = Compiled(lambda x, n: pad(pack(x, n, enforce_sorted=False))[0] * 2, limit=2)
    x = tg.ones(9, 3, 1)
    compiled(x, tg.tensor([9, 1, 1]))
    with pytest.warns(UserWarning, match="run as they are.*ever other forms"):
        for i in range(60):
            n = tg.tensor([9, i % 8 + 1, i // 8 + 1])
            assert compiled(x, n).tolist() == (x * 2 * (tg.arange(9).view(9, 1) < n).unsqueeze(2)).tolist()
    assert compiled.stats()["captures"] < 12


def test_programs_that_serve_are_replaced_as_ever():
    compiled = Compiled(lambda x: x * 2, limit=1)
    for n in range(1, 9):
        for _ in range(6):
            compiled(tg.ones(n))
    assert (compiled.stats()["captures"], compiled.stats()["eager"]) == (8, 0)


def test_gradients_that_were_forgotten_say_nothing_about_sizes():
    model = nn.Linear(3, 2)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

    def train(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    step = tg.compile(train, dynamic=True)
    for size in (8, 5, 3):
        step(tg.ones(size, 3))
    optimizer.zero_grad()
    for size in (10, 4, 9, 7, 4):
        step(tg.ones(size, 3))
    found = step.stats()
    assert (found["captures"], found["replays"], found["programs"]) == (5, 3, 2)


def svm():
    """The op reads a truth: whether all targets are classes."""
    model = nn.Linear(6, 4)
    return model, lambda x, y: F.multi_margin_loss(model(x), y)


def translated():
    """So do layers of attention: whether their mask is the causal one."""
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)
    weight = nn.Parameter(tg.randn(6, 8))
    model.register_parameter("weight", weight)

    def loss(x, y):
        mask = nn.Transformer.generate_square_subsequent_mask(6)
        seen = x[:, :, None] * weight
        return F.cross_entropy(model(seen, seen.tanh(), tgt_mask=mask)[:, -1], y)

    return model, loss


def filtered():
    """Filters of each sample: groups are as many as samples."""
    model = nn.Linear(6, 3 * 2 * 3)

    def loss(x, y):
        n = x.shape[0]
        signal = x[:, None].expand(n, 2, 6).reshape(1, n * 2, 6)
        found = F.conv1d(signal, model(x).reshape(n * 3, 2, 3), groups=n).view(n, 12)
        return F.cross_entropy(found, y)

    return model, loss


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", (svm, translated, filtered))
def test_steps_of_which_python_reads_a_truth_or_that_have_a_group_for_each_row(make, backend):
    with tg.backend(backend):
        runs = []
        for compiled in (False, True):
            tg.manual_seed(0)
            model, loss = make()
            optimizer = tg.optim.Adam(model.parameters(), lr=1e-3)

            def train(x, y, optimizer=optimizer, loss=loss):
                optimizer.zero_grad()
                found = loss(x, y)
                found.backward()
                optimizer.step()
                return found

            step = tg.compile(train, dynamic=True) if compiled else train
            losses = []
            for n in (16, 16, 13, 11, 15, 12, 14, 16):
                tg.manual_seed(n)
                losses.append(step(tg.randn(n, 6), tg.randint(0, 4, (n,))).item())
            runs.append((losses, [p.tolist() for p in model.parameters()]))
        assert runs[0] == runs[1]
        # the optimizer's first step; 16; 13, which shows the family; 11 beyond
        assert step.stats()["captures"] == 4 and step.stats()["programs"] == 1
        if make is svm:
            with pytest.raises(IndexError, match="target"):
                step(tg.randn(14, 6), tg.full((14,), 4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_way_of_python_has_a_program_of_any_batch(backend):
    def two_ways(x):
        if x.sum() > 0:
            return (x * 2).cumsum(0)
        return x.mean(0) - x

    with tg.backend(backend):
        both = tg.compile(two_ways, dynamic=True, fallback=True)
        for n, sign in (
            (16, 1), (8, 1), (16, -1), (8, -1), (12, 1), (9, -1), (15, -1), (11, 1), (20, -1), (18, 1), (18, -1),
            (20, 1),
        ):  # fmt: skip
            x = (tg.randn(n, 3).abs() + 0.1) * sign
            assert both(x).tolist() == two_ways(x).tolist()
        found = both.stats()
        # 16 and 8 of each way, and 20 and 18 beyond them
        assert (found["captures"], found["programs"], found["eager"]) == (7, 2, 0)
