"""Programs of arrays on ``cuda``, here a strict stand-in: as CUDA graphs or by Python, eager's results to the bit.

The stand-in's graphs (``testing/strict_stream.py``) run on the addresses that they were captured with, in memory that
is overwritten when it is freed.
"""

from __future__ import annotations

import gc
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.backends import cuda as permissions
from tensorgrad.backends import cudnn as libraries
from tensorgrad.backends.cupy.cudnn import Convolution
from tensorgrad.backends.cupy.cudnn_attention import Attention
from tensorgrad.nn import functional as F
from tensorgrad.testing import strict_stream
from tensorgrad.testing.strict_array import no_traffic
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda


@pytest.fixture(autouse=True)
def cuda() -> Iterator[StrictCupyBackend]:
    with strict_cuda() as backend:
        yield backend


def told(compiled: Any, program: int = 0) -> str:
    return "\n".join(line for runner in compiled.programs[program].runners for line in runner.told())


def both(make: Callable[[bool], list[Any]]) -> None:
    """What the function computes is the same, compiled and as it is."""
    expected = make(False)
    assert make(True) == expected


def outcome(compiled):
    tg.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 3)
    ).to("cuda")
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step, whole = (tg.compile(step), tg.compile(model)) if compiled else (step, model)
    seen = []
    for i in range(5):
        tg.manual_seed(i)
        seen.append(step(tg.randn(8, 1, 8, 8, device="cuda"), tg.randint(0, 3, (8,), device="cuda")).item())
    for i in range(4):
        tg.manual_seed(i)
        x = tg.randn(8, 1, 8, 8, device="cuda", requires_grad=True)
        whole(x).square().sum().backward()
        seen.append(x.grad.tolist())
    counts = (step.stats()["captures"], whole.stats()["captures"]) if compiled else (2, 1)
    if compiled:
        assert "CUDA graphs: 1," in told(step)
        assert "dropout" not in told(step) and "adam_" not in told(step)
        assert "CUDA graphs: 1," in told(whole, 0) and "CUDA graphs: 1," in told(whole, 1)
        assert whole.explain().count("CUDA graphs: 1,") == 2
    return seen, [p.tolist() for p in model.parameters()], [b.tolist() for b in model.buffers()], counts


def test_a_step_and_a_model():
    both(outcome)


def perceptron(compiled: bool, make: Any, schedule: bool = True, clip: bool = False) -> tuple[Any, Any]:
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)).to("cuda")
    optimizer = make(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return loss

    run = tg.compile(step) if compiled else step
    seen = []
    for i in range(6):
        tg.manual_seed(i)
        if schedule:
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + i)
        seen.append(run(tg.randn(4, 6, device="cuda"), tg.randn(4, 2, device="cuda")).item())
        seen.append([p.grad.tolist() for p in model.parameters()])
    return run, [seen, [p.tolist() for p in model.parameters()]]


MAKERS: list[Any] = [
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), lambda p: optim.Adam(p, lr=0.1),
    lambda p: optim.AdamW(p, lr=0.1, amsgrad=True), lambda p: optim.RMSprop(p, lr=0.1), optim.Adafactor,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS, ids=["sgd", "adam", "adamw", "rmsprop", "adafactor"])
@pytest.mark.parametrize("clip", [False, True])
def test_a_rate_that_changes(make: Any, clip: bool) -> None:
    step, found = perceptron(True, make, clip=clip)
    assert found == perceptron(False, make, clip=clip)[1]
    kernel = make in MAKERS[:3]  # which reads its numbers from device memory
    assert "CUDA graphs: 1, of" in told(step)
    assert ("update_ (" in told(step) or "adafactor_" in told(step)) != kernel
    assert step.stats()["captures"] == 2 and step.stats()["replays"] == 4


def test_draws_of_graphs_go_on_where_the_generator_is() -> None:
    own = tg.Generator().manual_seed(3)

    def noisy(x):
        kept = F.dropout(x, 0.5) + tg.rand(5, 3, device="cuda", generator=own)
        whole = tg.randint(0, 9, (5, 3), device="cuda")
        return F.dropout(kept, 0.25) * whole + tg.randn(5, 3, device="cuda")

    compiled = tg.compile(noisy)
    seen: list[Any] = []
    for function in (noisy, compiled):
        tg.manual_seed(1)
        own.manual_seed(3)
        with tg.no_grad():
            x = tg.ones(5, 3, device="cuda")
            seen.append([[function(x).tolist() for _ in range(4)], tg.rand(2).tolist()])  # the host draws next
    assert seen[0] == seen[1] and seen[0][0][2] != seen[0][0][3]
    assert "CUDA graphs: 1," in told(compiled) and "0 calls run between them" in told(compiled)


@pytest.mark.parametrize("dtype", [tg.float32, tg.bfloat16], ids=str)
def test_attention_drops_other_weights_in_each_replay(dtype: Any) -> None:
    def run(compiled: bool) -> Any:
        tg.manual_seed(0)
        qkv = nn.Linear(8, 24).to("cuda", dtype)
        optimizer = optim.SGD(qkv.parameters(), lr=1e-3)

        def step(x):
            optimizer.zero_grad()
            q, k, v = qkv(x).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4, is_causal=True)
            loss = y.float().square().sum()
            loss.backward()
            optimizer.step()
            return loss

        function = tg.compile(step) if compiled else step
        seen = []
        for i in range(5):
            tg.manual_seed(i // 2)
            x = tg.ones(2, 5, 8, device="cuda", dtype=dtype)
            seen.append([function(x).item(), function(x).item(), tg.rand(2).tolist()])
        assert not compiled or "; 0 calls run between them" in told(function)
        return seen, [p.tolist() for p in qkv.parameters()]

    both(run)


def test_several_groups_with_clipping_in_graphs() -> None:
    def run(compiled: bool) -> Any:
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2)).to("cuda")
        groups = [{"params": list(model[0].parameters()), "lr": 0.3}, {"params": list(model[2].parameters())}]
        optimizer = optim.AdamW(groups, lr=0.1, max_grad_norm=0.5)

        def step(x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        function = tg.compile(step) if compiled else step
        seen = []
        for i in range(5):
            optimizer.param_groups[1]["lr"] = 0.1 / (i + 1)
            seen.append(function(tg.full((3, 4), float(i), device="cuda")).item())
        assert not compiled or "0 calls run between them" in told(function)
        return seen, [p.tolist() for p in model.parameters()]

    both(run)


def test_a_replay_of_graphs_crosses_nowhere() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)).to("cuda")
    infer = tg.compile(model)
    x = tg.randn(4, 6, device="cuda")
    with tg.no_grad():
        for _ in range(2):
            infer(x)
        with no_traffic():
            y = infer(x)
        assert tg.equal(y, model(x))
    assert "CUDA graphs: 1, of" in told(infer) and "0 calls run between them" in told(infer)


def test_results_are_the_users_own() -> None:
    f = tg.compile(lambda x: (x * 2, x.t().exp(), x.sum()))
    kept, expected = [], []
    for i in range(6):
        x = tg.full((2, 3), float(i), device="cuda")
        results = f(x)
        kept.append(results)
        expected.append([r.tolist() for r in ((x * 2), x.t().exp(), x.sum())])
        x.fill_(-1.0)  # what was given is not looked at again
        if i % 2:
            results[0].add_(100.0)  # and what was got is nobody else's
            expected[-1][0] = results[0].tolist()
    assert [[r.tolist() for r in results] for results in kept] == expected
    assert "CUDA graphs: 1," in told(f)


def test_gradients_are_the_users_own() -> None:
    w = tg.ones(3, device="cuda", requires_grad=True)

    @tg.compile
    def step(x):
        w.grad = None
        loss = (w * x).square().sum()
        loss.backward()
        return loss

    grads = []
    for i in range(5):
        step(tg.full((3,), float(i), device="cuda"))
        grads.append(w.grad)
    assert [g.tolist() for g in grads] == [[2.0 * i * i] * 3 for i in range(5)]


def test_programs_take_turns() -> None:
    f, g = tg.compile(lambda x: (x * 2 + 1).relu() @ x.t()), tg.compile(lambda x: (x.exp() @ x.t()).softmax(-1))
    for i in range(6):
        x = tg.randn(5, 4, device="cuda", generator=tg.Generator().manual_seed(i))
        assert tg.equal(f(x), (x * 2 + 1).relu() @ x.t())
        assert tg.equal(g(x), (x.exp() @ x.t()).softmax(-1))
        assert tg.equal(f(g(x)), (g(x) * 2 + 1).relu() @ g(x).t())


def test_another_batch_size() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).to("cuda")
    infer = tg.compile(model.eval())
    with tg.no_grad():
        for size in (4, 4, 4, 3, 3, 4, 3, 4, 7):
            x = tg.randn(size, 6, device="cuda")
            assert tg.equal(infer(x), model(x))
    assert infer.stats()["programs"] == 3


def test_statistics_move_on() -> None:
    def run(compiled: bool) -> list[Any]:
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).to("cuda")
        forward = tg.compile(model) if compiled else model
        with tg.no_grad():
            for i in range(5):
                forward(tg.full((4, 6), float(i), device="cuda") * tg.arange(4.0, device="cuda")[:, None])
        return [b.tolist() for b in model.buffers()]

    both(run)


def test_gradients_that_add_up() -> None:
    def run(compiled: bool) -> list[Any]:
        tg.manual_seed(0)
        model = nn.Linear(6, 2).to("cuda")
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def half(x):
            loss = model(x).square().mean()
            loss.backward()
            return loss

        add = tg.compile(half) if compiled else half
        seen = []
        for i in range(8):
            tg.manual_seed(i)
            seen.append(add(tg.randn(4, 6, device="cuda")).item())
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
        if compiled:
            assert all("CUDA graphs:" in told(add, i) for i in range(len(add.programs)))
        return [seen, [p.tolist() for p in model.parameters()]]

    both(run)


def test_arguments_that_are_written_to() -> None:
    def change(x, y, at):
        x.add_(y.exp())
        x[:, 1].mul_(2)
        y.index_add_(0, at, x)
        x.sub_(y.sum())
        return x, x[0] + y

    f = tg.compile(change)
    at = tg.tensor([1, 0, 1], device="cuda")
    for i in range(5):
        x, y = (tg.randn(3, 2, device="cuda", generator=tg.Generator().manual_seed(i + 9 * j)) for j in range(2))
        ours, theirs = (x.clone(), y.clone()), (x.clone(), y.clone())
        got, expected = f(*ours, at), change(*theirs, at)
        assert got[0] is ours[0] and tg.equal(got[1], expected[1])
        assert tg.equal(ours[0], theirs[0]) and tg.equal(ours[1], theirs[1])
        with pytest.raises(IndexError, match="out of bounds"):
            f(*ours, at + 2)
        assert tg.equal(ours[1], theirs[1])
    assert "CUDA graphs: 1," in told(f)


def test_results_that_are_arguments_or_views_of_them() -> None:
    f = tg.compile(lambda x: (x.exp(), x, x.t(), x[1:].reshape(-1)))
    for i in range(4):
        x = tg.full((2, 3), float(i), device="cuda")
        _, same, turned, row = f(x)
        assert same is x
        x.fill_(7.0)
        assert turned.tolist() == [[7.0] * 2] * 3 and row.tolist() == [7.0] * 3
    model = tg.compile(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).to("cuda"))
    for _ in range(3):
        model(tg.ones(4, 2, 3, device="cuda")).sum().backward()
    assert "CUDA graphs: 1," in told(model, 0) and "CUDA graphs: 1," in told(model, 1)


def test_state_that_is_replaced_or_changed_between_calls() -> None:
    model = nn.Linear(3, 3).to("cuda")
    infer = tg.compile(model)
    x = tg.randn(2, 3, device="cuda")
    with tg.no_grad():
        for i in range(8):
            if i == 4:
                model.weight.mul_(2)
            if i == 6:
                model.weight = nn.Parameter(tg.eye(3, device="cuda"))
            assert tg.equal(infer(x), model(x))


def test_a_scalar_is_read_anew() -> None:
    scale = tg.scalar(1.0, device="cuda")
    f = tg.compile(lambda x: (x * scale).relu())
    for i in range(5):
        scale.set(float(i))
        assert f(tg.ones(2, device="cuda")).tolist() == [float(i)] * 2
    assert f.stats()["captures"] == 1 and "CUDA graphs: 1," in told(f)


def test_arguments_of_any_layout() -> None:
    f = tg.compile(lambda x, y: (x * 2 + y).softmax(0))
    whole = tg.randn(6, 8, device="cuda")
    for x in (whole, whole.t(), whole[::2], whole[:, ::3], whole[1:, 2:5], whole[:1].expand(4, 8), whole[:0]):
        y = x.sum(-1, keepdim=True)
        for _ in range(3):
            expected = (x * 2 + y).softmax(0)
            got = f(x, y)
            assert tg.equal(got, expected) and got.stride() == expected.stride()


def test_results_that_share_memory_still_do() -> None:
    def parts(x):
        y = x * 2
        return y, y[1], y.t(), y[0:1]

    f = tg.compile(parts)
    x = tg.arange(6.0, device="cuda").reshape(2, 3)
    for _ in range(4):
        y, row, turned, first = f(x)
        assert [t.tolist() for t in (y, row, turned, first)] == [t.tolist() for t in parts(x)]
        y._data[...] = 7.0
        assert row.tolist() == [7.0] * 3 and turned.tolist() == [[7.0] * 2] * 3 and first.tolist() == [[7.0] * 3]
    assert "CUDA graphs: 1," in told(f)
    halves = tg.compile(lambda x: (x * 2).chunk(2))
    for _ in range(4):
        assert [t.tolist() for t in halves(x)] == [[[0.0, 2.0, 4.0]], [[6.0, 8.0, 10.0]]]


def test_what_cannot_be_captured_runs_between_graphs() -> None:
    def mixed(x):
        y = (x * 2).exp()
        z, _ = y.sort()
        return (z * 3).relu() @ y.t(), z

    f = tg.compile(mixed)
    for i in range(5):
        x = tg.randn(4, 3, device="cuda", generator=tg.Generator().manual_seed(i))
        for got, expected in zip(f(x), mixed(x), strict=True):
            assert tg.equal(got, expected)
    assert "CUDA graphs: 2," in told(f) and "1 calls run between them" in told(f)
    assert "argsort(): operation not permitted when stream is capturing" in f.explain().replace("\n  ", " ")


def test_without_cublas_products_run_between_graphs(cuda: Any) -> None:
    def product(x):
        return ((x * 2).exp() @ x.t()).relu() + 1

    cuda._cublas = None
    f = tg.compile(product)
    x = tg.randn(3, 4, device="cuda")
    for _ in range(4):
        assert tg.equal(f(x), product(x))
    assert "CUDA graphs: 2," in told(f) and "outside of graphs: matmul (NotImplementedError: matmul: calling" in told(f)


def test_transforms_run_between_graphs() -> None:
    def smooth(x):
        return tg.fft.irfft(tg.fft.rfft(x * 2) * 0.5).exp() + 1

    f = tg.compile(smooth)
    for i in range(4):
        x = tg.randn(8, device="cuda", generator=tg.Generator().manual_seed(i))
        assert tg.equal(f(x), smooth(x))
    assert "outside of graphs: fft_r2c, fft_c2r (cuFFT works in memory that CuPy owns)" in told(f)


def test_indices_are_checked_before_anything_changes() -> None:
    def make() -> Any:
        tg.manual_seed(0)
        return nn.Sequential(nn.Embedding(5, 4), nn.Flatten(0, 1), nn.BatchNorm1d(4), nn.Linear(4, 3)).to("cuda")

    def run(model: Any, compiled: bool) -> tuple[Any, Any]:
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(tokens, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(tokens), y)
            loss.backward()
            optimizer.step()
            return loss

        return tg.compile(step) if compiled else step, optimizer

    models = make(), make()
    (step, _), (plain, _) = run(models[0], True), run(models[1], False)
    for i in range(7):
        tokens = tg.tensor([[i % 5, 1], [2, 3]], device="cuda")
        y = tg.tensor([0, 1, 2, i % 3], device="cuda")
        if i in (4, 5):
            before = [t.tolist() for t in (*models[0].parameters(), *models[0].buffers())]
            bad = (tokens + 4, y) if i == 4 else (tokens, y + 1)
            says = "embedding: index 8 is out of bounds" if i == 4 else "cross_entropy: target 3 is out of bounds"
            with pytest.raises(IndexError, match=rf"{says}.*in a compiled function, at .*test_cuda.py"):
                step(*bad)
            if i == 4:  # the statistics are changed behind the first check, and before the second one
                assert [t.tolist() for t in (*models[0].parameters(), *models[0].buffers())] == before
            else:
                assert [t.tolist() for t in models[0].parameters()] == before[:5]
                for mine, other in zip(models[0].buffers(), models[1].buffers(), strict=True):
                    mine.copy_(other)
        assert step(tokens, y).item() == plain(tokens, y).item()
    assert [p.tolist() for p in models[0].parameters()] == [p.tolist() for p in models[1].parameters()]
    assert "0 calls run between them" in told(step)


def test_a_cache_is_not_written_to_out_of_range() -> None:
    cache = tg.zeros(4, 2, device="cuda")

    @tg.compile
    def put(at, x):
        cache.index_copy_(0, at, (x * 2).exp())
        return cache.sum(0)

    for i in range(4):
        x = tg.full((1, 2), float(i), device="cuda")
        put(tg.tensor([i], device="cuda"), x)
    before = cache.tolist()
    with pytest.raises(IndexError, match=r"out of bounds.*\(in a compiled function, at .*test_cuda.py:\d+"):
        put(tg.tensor([4], device="cuda"), x)
    assert cache.tolist() == before and len({tuple(row) for row in before}) == 4
    assert "it checks indices before it writes to what was there" in told(put)


def test_writes_in_place_to_what_ordinary_calls_make() -> None:
    def changed(x, at):
        y = x[at]
        z = y * 2
        y.add_(z)
        view = y[0]
        view.mul_(3)
        w = y[at]
        w.relu_()
        return y, w.exp() + y, z

    f = tg.compile(changed)
    at = tg.tensor([1, 0], device="cuda")
    for i in range(5):
        x = tg.randn(2, 3, device="cuda", generator=tg.Generator().manual_seed(i))
        for got, expected in zip(f(x, at), changed(x, at), strict=True):
            assert tg.equal(got, expected)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: tg.linalg.qr(x[:4].reshape(2, 2))[1], "none of its calls can be captured|computes nothing"),
        (lambda x: x.unsqueeze(0).sort()[0], "none of its calls can be captured|computes nothing"),
    ],
)
def test_programs_that_python_replays(function: Any, why: str) -> None:
    f = tg.compile(function)
    for i in range(4):
        tg.manual_seed(i)
        x = tg.randn(5, device="cuda")
        y = x.clone()
        tg.manual_seed(i)
        got = f(x)
        tg.manual_seed(i)
        assert tg.equal(got, function(y)) and tg.equal(x, y)
    assert re.search(why, f.explain().replace("\n  ", " "))
    assert "replayed in Python, call by call" in f.explain()


def test_large_arguments_and_little_work_stay_in_python() -> None:
    f = tg.compile(lambda x: x.sum())
    x = tg.ones(1 << 21, device="cuda")
    for _ in range(3):
        assert f(x).item() == 1 << 21
    assert "to copy its arguments and results would take longer" in told(f)


def test_a_capture_that_fails_breaks_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    f = tg.compile(lambda x: (x * 2).relu())
    x = tg.arange(3.0, device="cuda")
    count = 0
    whole = strict_stream.Stream.end_capture

    def failing(self: Any) -> Any:
        nonlocal count
        count += 1
        graph = whole(self)
        if count > len(f.programs[0].calls):  # each call alone could be captured
            raise RuntimeError("cudaErrorStreamCaptureInvalidated: no luck")
        return graph

    monkeypatch.setattr(strict_stream.Stream, "end_capture", failing)
    assert f(x).tolist() == [0.0, 2.0, 4.0]
    with pytest.warns(RuntimeWarning, match="a CUDA graph could not be made: RuntimeError: cudaErrorStreamCaptureInv"):
        assert f(x).tolist() == [0.0, 2.0, 4.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert f(x).tolist() == [0.0, 2.0, 4.0]
    assert "capturing it failed (RuntimeError: cudaErrorStreamCaptureInvalidated: no luck)" in told(f)
    assert gc.isenabled()


def test_another_precision_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    f = tg.compile(lambda x: (x @ x).relu())
    x = tg.ones(2, 2, device="cuda")
    for _ in range(3):
        f(x)
    runner = f.programs[0].runners[0]
    pieces = runner.pieces
    f(x)
    assert runner.pieces is pieces
    monkeypatch.setattr(permissions.matmul, "allow_tf32", True)
    for _ in range(2):
        assert f(x).tolist() == [[2.0, 2.0]] * 2
    assert runner.pieces is not pieces
    pieces = runner.pieces
    for switch in ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
        monkeypatch.setattr(permissions.matmul, switch, False)
        f(x)
        assert runner.pieces is not pieces
        pieces = runner.pieces
    f(x)
    assert runner.pieces is pieces


def test_a_graph_does_nothing_that_was_forbidden_after_it_was_captured(
    cuda: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    assert cuda._cudnn is not None
    plan = cuda._cudnn.plan

    def asking(what: Any) -> Any:
        asked.append(what)
        return plan(what)

    monkeypatch.setattr(cuda._cudnn, "plan", asking)
    convolve = tg.compile(F.conv2d)
    attend = tg.compile(lambda q: F.scaled_dot_product_attention(q, q, q))
    x, w, q = (tg.randn(*shape).to("cuda") for shape in ((1, 2, 5, 5), (3, 2, 3, 3), (1, 2, 4, 8)))
    q = q.half()

    def by_cudnn() -> list[Any]:
        """What a replay has captured anew."""
        asked.clear()
        convolve(x, w), attend(q)
        return [what.tf32 if isinstance(what, Convolution) else type(what) for what in dict.fromkeys(asked)]

    by_cudnn()
    by_cudnn()
    assert by_cudnn() == []
    monkeypatch.setattr(libraries, "allow_tf32", True)
    assert by_cudnn() == [True, Attention] and by_cudnn() == []
    monkeypatch.setattr(libraries, "allow_tf32", False)
    assert by_cudnn() == [False, Attention] and by_cudnn() == []
    with permissions.sdp_kernel(enable_cudnn=False):  # is known while a program is made: there is another for it
        assert by_cudnn() == []
    assert by_cudnn() == []
    monkeypatch.setattr(libraries, "enabled", False)
    runners = [play.programs[0].runners[0] for play in (convolve, attend)]
    before = [runner.pieces for runner in runners]
    assert by_cudnn() == [] and all(r.pieces is not p for r, p in zip(runners, before, strict=True))


def test_replays_wait_for_each_other_on_the_users_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(strict_stream.Event, "record", lambda self, stream=None: seen.append(("record", stream.ptr)))
    monkeypatch.setattr(strict_stream.Stream, "wait_event", lambda self, event: seen.append(("wait", self.ptr)))
    launch = strict_stream.Graph.launch

    def launched(self: Any, stream: Any = None) -> None:
        seen.append(("launch", stream.ptr))
        launch(self, stream)

    monkeypatch.setattr(strict_stream.Graph, "launch", launched)
    f = tg.compile(lambda x: (x * 2).relu())
    x = tg.ones(2, device="cuda")
    for _ in range(2):
        f(x)
    for stream in (strict_stream.Stream.null, strict_stream.Stream(non_blocking=True)):
        seen.clear()
        with stream:
            f(x)
        assert seen == [("wait", stream.ptr), ("launch", stream.ptr), ("record", stream.ptr)]


def test_within_somebody_elses_capture_python_replays() -> None:
    f = tg.compile(lambda x: (x * 2).relu())
    x = tg.ones(2, device="cuda")
    for _ in range(3):
        f(x)
    stream = strict_stream.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        y = f(x)
        graph = stream.end_capture()
    x.fill_(4.0)
    graph.launch()
    assert y.tolist() == [8.0, 8.0]


def test_threads_share_a_program() -> None:
    f = tg.compile(lambda x: (x @ x.t()).softmax(-1))
    xs = [tg.randn(4, 4, device="cuda", generator=tg.Generator().manual_seed(i)) for i in range(4)]
    for _ in range(2):
        f(xs[0])
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not tg.equal(f(xs[i]), (xs[i] @ xs[i].t()).softmax(-1)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_is_reused_within_a_program() -> None:
    def deep(x):
        for _ in range(20):
            x = (x @ x).tanh().softmax(-1).contiguous() + 1
        return x

    f = tg.compile(deep)
    x = tg.randn(64, 64, device="cuda")
    for _ in range(3):
        assert tg.equal(f(x), deep(x))
    room = f.programs[0].runners[0].pieces.room
    assert room.nbytes <= 8 * 64 * 64 * 4, "of eighty results, few are alive at a time"


def test_an_error_that_the_function_handles_finds_all_as_it_was() -> None:
    def counted(total, i, table):
        try:
            found = table[i].sum()
        except IndexError:
            return table.sum() * 0
        total += found
        return found

    def outcomes(wrap):
        table, total = tg.arange(4.0, device="cuda"), tg.zeros((), device="cuda")
        function = wrap(lambda i: counted(total, i, table))
        rows = [tg.tensor(row, device="cuda") for row in ([1, 2], [1, 2], [1, 9], [0, 3], [1, 9])]
        return [(function(row).item(), total.item()) for row in rows]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compile. calls of .* run as they are")
        both(lambda compiled: outcomes(tg.compile if compiled else (lambda function: function)))
