"""A program's block: no smaller than what is needed at one time, hardly larger, and nothing in it overlaps."""

import random

import numpy as np
import pytest

import tensorgrad as tg
from benchmarks.memory import peaks
from tensorgrad.backends import registry
from tests.compiler.common import machine_code, within_rounding

pytestmark = pytest.mark.skipif(registry.class_of("cpp").why_not() is not None, reason="needs the extension")


@pytest.fixture(autouse=True)
def on_cpp():
    with tg.backend("cpp"):
        yield


def find_places(*lists, most=1 << 40):
    return registry.on_device("cpu").c.find_places(*lists, most)


def most_at_once(sizes, born, last):
    steps = range(min(born), max(last) + 1)
    return max(sum(s for s, b, e in zip(sizes, born, last, strict=True) if b <= at <= e) for at in steps)


@pytest.mark.parametrize("seed", range(12))
def test_arrays_that_are_needed_together_lie_apart(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 80)
    sizes = [rng.choice([0, 4, 64, 1000, 40_000, 1 << 20]) for _ in range(count)]
    born = [rng.randint(-1, 60) for _ in range(count)]
    last = [b + rng.choice([0, 1, 3, 30]) for b in born]
    offsets, total, at_once = find_places(sizes, born, last)
    rounded = [max(64, -(-s // 64) * 64) for s in sizes]
    assert at_once == most_at_once(rounded, born, last) <= total
    assert total == max(o + s for o, s in zip(offsets, rounded, strict=True))
    for i in range(count):
        assert offsets[i] % 64 == 0
        for k in range(i):
            together = born[i] <= last[k] and born[k] <= last[i]
            apart = offsets[i] + rounded[i] <= offsets[k] or offsets[k] + rounded[k] <= offsets[i]
            assert apart or not together


def test_a_nested_life_fills_the_block():
    """What forward keeps and backward frees in the other order, with a large array in between."""
    layers = 40
    sizes = [1 << 20] * layers + [3 << 20] * layers
    born = [*range(layers), *range(layers, 2 * layers)]
    last = [2 * layers - 1 - i for i in range(layers)] + [layers + i for i in range(layers)]
    _, total, at_once = find_places(sizes, born, last)
    assert total <= at_once * 1.01


def test_arrays_of_whole_pages_start_at_different_places_of_one():
    starts = find_places([1 << 20] * 8, [0] * 8, [1] * 8)[0]
    assert sorted(at % 4096 for at in starts) == [128 * i for i in range(8)]


def test_a_block_that_may_be_no_larger_has_no_gaps():
    lists = [1 << 16] * 8, [0] * 8, [1] * 8
    for most in (0, 8 << 16):
        assert find_places(*lists, most=most)[1] == 8 << 16 < find_places(*lists, most=9 << 16)[1]


def test_a_block_has_as_many_gaps_as_there_is_room_for():
    lists = [1 << 16] * 8 + [64], [0] * 9, [1] * 9
    most = (8 << 16) + 64 + 3 * 128
    offsets, total, _ = find_places(*lists, most=most + 64)
    assert total <= most + 64
    assert sorted({at % 4096 // 128 for at in offsets[:8]}) == [0, 1, 2, 3]
    for i in range(9):
        for k in range(i):
            assert offsets[i] + lists[0][i] <= offsets[k] or offsets[k] + lists[0][k] <= offsets[i]


@pytest.mark.parametrize("seed", range(6))
def test_gaps_leave_arrays_apart(seed):
    rng = random.Random(seed)
    count = rng.randint(10, 80)
    sizes = [rng.choice([64, 4096, 1 << 15, 1 << 16, 3 << 15]) for _ in range(count)]
    born = [rng.randint(0, 60) for _ in range(count)]
    last = [b + rng.choice([0, 1, 3, 30]) for b in born]
    needed = most_at_once(sizes, born, last)
    for more in (0, 128, 640, 2048):
        offsets, total, at_once = find_places(sizes, born, last, most=needed + more)
        assert at_once == needed <= total == max(o + s for o, s in zip(offsets, sizes, strict=True))
        for i in range(count):
            for k in range(i):
                apart = offsets[i] + sizes[i] <= offsets[k] or offsets[k] + sizes[k] <= offsets[i]
                assert apart or born[i] > last[k] or born[k] > last[i]


def test_what_takes_the_place_of_another_fits_its_gap():
    """Of each pair one dies before the next is made, at the page's place of whatever was there."""
    count = 40
    born = [at for at in range(count) for _ in range(2)]
    last = [at + 1 if i % 2 else count for i, at in enumerate(born)]
    _, total, at_once = find_places([1 << 16] * len(born), born, last)
    assert at_once <= total <= at_once * 1.01


@pytest.mark.parametrize("lists", [([1], [0], [-1]), ([-1], [0], [0]), ([1, 2], [0], [0])])
def test_lists_that_make_no_sense_are_refused(lists):
    with pytest.raises(ValueError, match="find_places"):
        find_places(*lists)


def replayed(fn, *args):
    compiled = tg.compile(fn)
    compiled(*args)
    made = compiled(*args)
    assert compiled.stats()["replays"] == 1
    return made, compiled


def in_place(compiled):
    return [call.op.name for call, _ in compiled.programs[0].linked.in_place]


def test_a_formula_whose_operand_dies_takes_its_place():
    def f(x, w):
        h = x @ w
        return (h * 2 + 1).tanh() @ w

    x, w = tg.randn(64, 64), tg.randn(64, 64)
    with tg.no_grad():
        made, compiled = replayed(f, x, w)
        expected = f(x, w)
    assert made.numpy().tobytes() == expected.numpy().tobytes()
    assert len(in_place(compiled)) == 1
    assert "in place of an operand" in compiled.explain()


def test_results_of_one_formula_take_the_places_of_operands():
    def f(x, w):
        h, g = x @ w, w @ x
        a = (h + 1) * g
        return (a * h).sort(0)[0] + a.sort(1)[0]

    args = tg.randn(64, 64), tg.randn(64, 64)
    with tg.no_grad():
        made, compiled = replayed(f, *args)
        assert made.numpy().tobytes() == f(*args).numpy().tobytes()
    linked = compiled.programs[0].linked
    (call,) = {call for call, v in linked.in_place if len(call.results) == 2}
    assert [v for made, v in linked.in_place if made is call] == list(call.results)


def test_what_other_results_still_read_is_not_overwritten():
    """Neither of these leads to the other, and which is made first is up to the kernel."""

    def f(x, w):
        h, g = x @ w, w @ x
        a, b = h.sin() * g, h * 2 + g.cos()
        return a.sort(0)[0] + b.sort(1)[0]

    args = tg.randn(64, 64), tg.randn(64, 64)
    with tg.no_grad():
        made, compiled = replayed(f, *args)
        assert made.numpy().tobytes() == f(*args).numpy().tobytes()
    program = compiled.programs[0]
    assert any(len(call.results) == 2 and call.op.derived for call in program.calls)
    assert all(len(call.results) == 1 for call, _ in program.linked.in_place)


def test_a_kernels_own_arrays_count_as_in_an_eager_run():
    x = tg.randn(128, 128)
    backend = registry.on_device("cpu")
    with tg.no_grad():
        tg.linalg.inv(x)
        before = tg.memory_stats()["in_use"]
        backend.c.trim_memory()  # peaks are counted anew
        tg.linalg.inv(x)
        eager = tg.memory_stats()["peak_in_use"] - before + x.nbytes
        _, compiled = replayed(tg.linalg.inv, x)
    assert compiled.programs[0].linked.nbytes <= eager


def test_an_operand_that_is_read_later_stays():
    def f(x, w):
        h = x @ w
        return (h.exp() @ w) @ h

    with tg.no_grad():
        args = tg.randn(32, 32), tg.randn(32, 32) / 8
        made, compiled = replayed(f, *args)
        assert made.numpy().tobytes() == f(*args).numpy().tobytes()
    assert in_place(compiled) == []


@pytest.mark.parametrize(
    "f",
    [
        lambda h, w: (h + h.t()) @ w,  # the operand is read across
        lambda h, w: (h[:, :8] * 2) @ w[:8],  # a part of an array
        lambda h, w: (h + h[0]) @ w,  # a row of the operand meets every row
        lambda h, w: (h > 0).to(tg.float32) @ w,  # of another size between
        lambda h, w: (h.t() * 3) @ w,
        lambda h, w: tg.where(h > 0, h, h * 0.1) @ w,
        lambda h, w: (h.half() * 2).float() @ w,
        lambda h, w: (h.exp() / (h.exp() + 1)).sum(1),
    ],
)
def test_what_is_read_otherwise_than_element_upon_element_keeps_its_bits(f):
    def whole(x, w):
        return f(x @ w, w)

    x, w = tg.randn(24, 24), tg.randn(24, 24) / 4
    with tg.no_grad():
        with machine_code(False):
            made, _ = replayed(whole, x, w)
            assert made.numpy().tobytes() == whole(x, w).numpy().tobytes()
        within_rounding(replayed(whole, x, w)[0], whole(x, w))


def test_results_and_arguments_are_not_overwritten():
    def f(x, w):
        h = x @ w
        return h, h * 2, x + 1

    x, w = tg.randn(16, 16), tg.randn(16, 16)
    before = x.numpy().copy()
    with tg.no_grad():
        made, _ = replayed(f, x, w)
        for got, expected in zip(made, f(x, w), strict=True):
            assert got.numpy().tobytes() == expected.numpy().tobytes()
    assert np.array_equal(x.numpy(), before)


@pytest.mark.parametrize("name", ["tiny", "mlp", "cnn", "gpt-micro", "chain"])
def test_the_block_is_no_larger_than_what_an_eager_step_has_in_use(name):
    found = peaks(name)
    assert found["arena"] <= found["eager"]


def _products(x):
    w = tg.ones(64, 64)
    return tg.stack([(tg.sin(x * i) @ w).relu().amax(1) for i in range(1, 9)])


def _distances(x):
    w, centers = tg.ones(64, 64), tg.arange(512.0).reshape(8, 64)
    return tg.logsumexp(tg.stack([(((x - c) @ w) ** 2).sum(1) for c in centers], 1), 1)


def _quantiles(x):
    e = x[:64, 0][:, None] - x[:, 0][None]
    return tg.stack([tg.where(e > 0, q * e, (q - 1) * e).mean(1) for q in (np.arange(1, 10) / 10).tolist()])


def _gated(x):
    w = tg.ones(64, 64)
    for i in range(4):
        x = (x @ w).tanh() + x.abs().amax(1, keepdim=True) + (x * i).sum(0)
    return x


def _ahead_of_a_product(x):
    w = tg.ones(64, 64) / 64
    a = x @ w
    c, d = _both(x @ (w * 2), a)
    return (c @ w).sum(0) + d.sum(0) + a.sum(0)


def _both(a, b):
    return a * b, a + b


def _in_parts(x):
    return tg.cdist(x, x[:512]).amax(0)  # its definition makes several arrays as large as the result


@pytest.mark.parametrize("f", [_products, _distances, _quantiles, _gated, _ahead_of_a_product, _in_parts])
def test_what_is_done_together_needs_no_more_than_eager(f):
    x = tg.randn(1024, 64)
    backend = registry.on_device("cpu")
    with tg.no_grad():
        f(x)
        before = tg.memory_stats()["in_use"]
        backend.c.trim_memory()  # peaks are counted anew
        f(x)
        eager = tg.memory_stats()["peak_in_use"] - before + x.nbytes
        got, compiled = replayed(f, x)
        np.testing.assert_allclose(got.numpy(), f(x).numpy(), rtol=1e-5, atol=1e-5)
    assert compiled.programs[0].linked.at_once <= eager


def _differential_equation():
    net = tg.nn.Sequential(tg.nn.Linear(4, 32), tg.nn.Tanh(), tg.nn.Linear(32, 4))

    def f(y):
        for _ in range(8):
            y = y + 0.1 * net(y + 0.05 * net(y))
        return tg.autograd.grad(y.square().mean(), list(net.parameters()))

    return f, (tg.rand(1, 4),)


def _hidden_markov_model():
    steps, seen = tg.rand(16, 16, requires_grad=True), tg.rand(16, 8, requires_grad=True)

    def f(words):
        s, w = steps.softmax(-1), seen.softmax(-1).t()
        x, total = w[words[:, 0]], tg.zeros(())
        for k in range(1, 12):
            z = x.sum(-1, keepdim=True)
            x, total = x / z @ s * w[words[:, k]], total + z.log()
        return tg.autograd.grad((total + x.sum(-1).log()).mean(), [steps, seen])

    return f, (tg.randint(0, 8, (2, 12)),)


def _state_space():
    a, b, c = (tg.rand(64, requires_grad=True) for _ in range(3))

    def f(x):
        h, made = tg.zeros(64), []
        for k in range(9):
            h = a.sigmoid() * h + b * x[:, k]
            made.append((c * h).sum(-1))
        return tg.autograd.grad(tg.stack(made, 1).square().mean(), [a, b, c])

    return f, (tg.rand(2, 9, 64),)


def _mixture():
    experts = tg.nn.ModuleList(tg.nn.Linear(64, 64) for _ in range(8)).requires_grad_(False)

    def f(x):
        shares = experts[0](x).softmax(-1)
        return [sum(shares[:, i : i + 1] * expert(x) for i, expert in enumerate(experts))]

    return f, (tg.rand(1, 64),)


def _graph():
    """To bring its edges together would take more than the messages do."""

    def f(source, target, weights):
        x = tg.ones(500)
        for _ in range(3):
            x = 0.1 + 0.8 * tg.zeros(500).scatter_add(0, target, x[source] * weights)
        return [x]

    return f, (tg.randint(0, 500, (2500,)), tg.randint(0, 500, (2500,)), tg.rand(2500))


@pytest.mark.parametrize("make", [_differential_equation, _hidden_markov_model, _state_space, _mixture, _graph])
def test_many_small_arrays_or_indices_need_no_more_than_eager(make):
    tg.manual_seed(0)
    f, given = make()
    backend = registry.on_device("cpu")
    expected = f(*given)
    before = tg.memory_stats()["in_use"]
    backend.c.trim_memory()  # peaks are counted anew
    f(*given)
    eager = tg.memory_stats()["peak_in_use"] - before + sum(t.nbytes for t in given)
    got, compiled = replayed(f, *given)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=2e-5, atol=1e-6)
    assert compiled.programs[0].linked.nbytes <= eager


def test_an_index_that_repeats_is_read_where_it_lies() -> None:
    def largest(x: tg.Tensor, index: tg.Tensor) -> tg.Tensor:
        (gradient,) = tg.autograd.grad(tg.zeros(50, 16).scatter_reduce(0, index, x, "amax").sum(), x)
        return gradient

    rng = np.random.default_rng(0)
    x = tg.tensor(rng.standard_normal((1000, 16)).astype("float32"), requires_grad=True)
    index = tg.tensor(rng.integers(0, 50, (1000, 1))).expand(1000, 16)
    compiled = tg.compile(largest)
    for one in (index, index.contiguous()):
        for _ in range(3):
            assert compiled(x, one).numpy().tobytes() == largest(x, one).numpy().tobytes()
        # in a block it would be written out, and each element looked up
        assert (compiled.programs[0].linked is None) == (one is index)
