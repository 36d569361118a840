"""Arguments that lie where they lay before are read there, and not copied: when, and that nothing else changes."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.compiler.native import Instance
from tests.compiler.common import within_rounding

TIMES = 5  # calls after which arguments at the same addresses are read there


@pytest.fixture
def settled(monkeypatch):
    """How often calls were written to read arguments where they lie."""
    found = []
    beside = Instance.beside
    monkeypatch.setattr(Instance, "beside", lambda self, there: found.append(len(there)) or beside(self, there))
    with tg.backend("cpp"):
        yield found


def big(*shape, seed=0):
    tg.manual_seed(seed)
    return tg.randn(*(shape or (100, 120)))


def work(x, y):
    for _ in range(3):
        y = (x @ y.t()).softmax(-1) @ y + x.exp() * 0.1 - x.sum(0) / (1 + x.amax(-1, keepdim=True).abs())
    return y, (x * y).mean(-1)


def same(made, expected):
    for a, b in zip(made, expected, strict=True):
        within_rounding(a, b)


def test_arguments_are_read_where_they_lie_once_they_stay_there(settled):
    compiled = Compiled(work)
    x, y = big(), big(seed=1)
    with tg.no_grad():
        first = [t.clone() for t in compiled(x, y)]
        for k in range(2 * TIMES):
            same(compiled(x, y), first)
            x.mul_(1.0)  # a new version, at the same place
            assert settled == ([] if k < 3 else [2])
        x.copy_(big(seed=2))  # other elements there
        y[3] = 7.0
        same(compiled(x, y), Compiled(work)(x, y))
        assert settled == [2]


def test_arguments_elsewhere_are_brought_and_come_to_be_read_there(settled):
    compiled = Compiled(work)
    with tg.no_grad():
        here, there = [(big(seed=s), big(seed=s + 1)) for s in (0, 5)]
        expected = [[t.clone() for t in Compiled(work)(*pair)] for pair in (here, there)]
        for _ in range(TIMES):
            same(compiled(*here), expected[0])
        assert settled == [2]
        for _ in range(3):
            same(compiled(*there), expected[1])  # brought
            same(compiled(*here), expected[0])
            same(compiled(here[0], there[1]), Compiled(work)(here[0], there[1]))
        assert settled == [2]
        for _ in range(TIMES):
            same(compiled(*there), expected[1])
        assert settled == [2, 2]
        same(compiled(*here), expected[0])


def test_addresses_that_change_are_given_up(settled):
    compiled = Compiled(work)
    pairs = [(big(seed=s), big(seed=s + 1)) for s in range(8)]
    with tg.no_grad():
        for pair in pairs:
            for _ in range(TIMES):
                same(compiled(*pair), Compiled(work)(*pair))
    assert settled == [2] * 4


def test_memory_that_was_freed_is_not_read(settled):
    """Nothing keeps the arrays alive, and whoever comes to lie at their addresses is read."""
    compiled = Compiled(work)
    with tg.no_grad():
        for k in range(4 * TIMES):
            x, y = big(seed=k), big(seed=k + 1)
            same(compiled(x, y), Compiled(work)(x, y))
            del x, y
            gc.collect()


@pytest.mark.parametrize("shift", [0, 1])
def test_arrays_that_lie_otherwise_are_brought(settled, shift):
    compiled = Compiled(work)
    flat = np.random.default_rng(0).standard_normal(100 * 120 + 1).astype(np.float32)
    x, y = tg.from_numpy(flat[shift : 12000 + shift].reshape(100, 120)), big()
    strided = tg.from_numpy(np.ascontiguousarray(x.numpy().T)).t()
    with tg.no_grad():
        for given in (x, strided):
            for _ in range(2 * TIMES):
                for a, b in zip(compiled(given, y), work(given, y), strict=True):
                    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)
            y.mul_(0.5)
    assert all(count == 2 for count in settled)


def test_what_a_program_writes_to_or_hands_out_is_no_such_argument(settled):
    def writes(x, y):
        x += y
        return x * 2

    def hands_out(x, y):
        return x[1:], (x * y).sum(0), y

    with tg.no_grad():
        compiled, x, y = Compiled(writes), big(), big(seed=1)
        expected = x.clone()
        for _ in range(2 * TIMES):
            np.testing.assert_array_equal(compiled(x, y).numpy(), ((expected := expected + y) * 2).numpy())
        np.testing.assert_array_equal(x.numpy(), expected.numpy())
        assert settled == [1]  # y alone
        compiled = Compiled(hands_out)
        for _ in range(2 * TIMES):
            view, total, back = compiled(x, y)
            assert back is y
            same((view, total), (x[1:], Compiled(lambda x, y: (x * y).sum(0))(x, y)))


def network():
    return tg.nn.Sequential(tg.nn.Linear(120, 64), tg.nn.ReLU(), tg.nn.Dropout(0.2), tg.nn.Linear(64, 10))


def test_a_training_step_reads_its_batch_where_it_lies(settled):
    tg.manual_seed(0)
    one, two = network(), network()
    two.load_state_dict(one.state_dict())

    def step_of(model):
        optimizer = tg.optim.Adam(model.parameters())

        def step(x, target):
            optimizer.zero_grad()
            loss = tg.nn.functional.cross_entropy(model(x), target)
            loss.backward()
            optimizer.step()
            return loss

        return step

    target = tg.randint(0, 10, (100,))
    fast, slow = Compiled(step_of(one)), Compiled(step_of(two))
    x = big()
    for k in range(3 * TIMES):
        batch = big(seed=k)  # mostly elsewhere
        x.copy_(batch)
        tg.manual_seed(k)
        a = fast(x, target)
        tg.manual_seed(k)
        b = slow(batch, target)
        assert a.item() == b.item()
    assert settled.count(1) >= 1
    same(one.parameters(), two.parameters())


def in_threads(function, pairs):
    """Whether three threads get the right results of one compiled function, each for a pair of its own."""
    compiled = Compiled(function)
    with tg.no_grad():
        expected = [[t.clone() for t in Compiled(function)(*pair)] for pair in pairs]
    wrong = []

    def run(k):
        with tg.backend("cpp"), tg.no_grad():
            for _ in range(30):
                made = compiled(*pairs[k])
                try:
                    same(made, expected[k])
                except AssertionError:
                    wrong.append(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return not wrong


def test_threads_have_calls_of_their_own(settled):
    assert in_threads(work, [(big(seed=s), big(seed=s + 1)) for s in range(3)])


def test_results_that_come_back_as_arguments(settled):
    compiled = Compiled(work)
    with tg.no_grad():
        x, y = big(), big(seed=1)
        ours, theirs = y, y
        for _ in range(3 * TIMES):
            ours = compiled(x, ours)[0]
            theirs = work(x, theirs)[0]
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)
            ours, theirs = ours.clamp(-3, 3), theirs.clamp(-3, 3)


# --- arguments that are too large to be brought


LARGE = 2000, 100  # 800 kB of each for a few calls


def little(x, y):
    return x * ((x * x).mean(-1, keepdim=True) + 1e-6).rsqrt(), (x - y).amax(-1)


def in_blocks(compiled):
    """Whether the program has come to run in a block; its bytes."""
    linked = compiled.programs[0].linked
    return None if linked is None else linked.nbytes


def test_large_arguments_are_read_where_they_lie_or_python_runs_the_program(settled):
    compiled = Compiled(little)
    with tg.no_grad():
        here, there = [(big(*LARGE, seed=s), big(*LARGE, seed=s + 1)) for s in (0, 5)]
        expected = [[t.clone() for t in little(*pair)] for pair in (here, there)]
        for k in range(2 * TIMES):
            same(compiled(*here), expected[0])
            assert (in_blocks(compiled) is None) == (k < TIMES - 1)
        assert in_blocks(compiled) < 850_000  # results alone
        for _ in range(2):
            same(compiled(*there), expected[1])
            same(compiled(here[0], there[1]), little(here[0], there[1]))
            same(compiled(*here), expected[0])
        assert settled == []
        here[0].copy_(there[0])
        same(compiled(*here), little(*here))
        for _ in range(TIMES):
            same(compiled(*there), expected[1])
        assert settled == [2]
        strided = tg.from_numpy(np.asfortranarray(there[0].numpy()))
        for _ in range(2 * TIMES):
            for a, b in zip(compiled(strided, there[1]), expected[1], strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


def test_a_block_without_large_arguments_needs_no_more_than_an_eager_run_beside_them(settled):
    def softmax(x):
        e = (x - x.amax(-1, keepdim=True)).exp()
        return e / e.sum(-1, keepdim=True)

    compiled, x = Compiled(softmax), big(2000, 500)
    with tg.no_grad():
        for _ in range(2 * TIMES):
            same((compiled(x),), (softmax(x),))
    assert in_blocks(compiled) <= compiled.programs[0].eager


def test_results_of_large_arguments_that_are_kept_stay_as_they_are(settled):
    compiled = Compiled(little)
    x, y = big(*LARGE), big(*LARGE, seed=1)
    with tg.no_grad():
        kept = []
        for k in range(4 * TIMES):
            x.add_(1.0)
            kept.append((compiled(x, y), [t.clone() for t in little(x, y)]))
            if k % 3 == 2:
                del kept[-2]
        for made, expected in kept:
            same(made, expected)
        assert in_blocks(compiled)


def test_results_of_large_arguments_come_back_as_arguments(settled):
    compiled = Compiled(little)
    x, y = big(*LARGE), big(*LARGE, seed=1)
    with tg.no_grad():
        ours, theirs = x, x
        for _ in range(4 * TIMES):
            ours, theirs = compiled(ours, y)[0], little(theirs, y)[0]
            within_rounding(ours, theirs)


def test_threads_share_large_arguments_that_settle(settled):
    assert in_threads(little, [(big(*LARGE, seed=s), big(*LARGE, seed=s + 1)) for s in range(3)])


def test_an_error_of_large_arguments_says_where(settled):
    def looked_up(table, at):
        return (table[at] * 2).sum(-1)

    compiled = Compiled(looked_up)
    table, at = big(*LARGE), tg.arange(1000)
    with tg.no_grad():
        for _ in range(2 * TIMES):
            within_rounding(compiled(table, at), looked_up(table, at))
        at[7] = 5000
        with pytest.raises(IndexError, match="5000"):
            compiled(table, at)
        at[7] = 3
        within_rounding(compiled(table, at), looked_up(table, at))


def test_a_step_with_large_arguments_has_its_gradients(settled):
    tg.manual_seed(0)
    w = tg.randn(LARGE[1], requires_grad=True)

    def step(x, y):
        w.grad = None
        loss = (x * w - y).square().mean()
        loss.backward()
        with tg.no_grad():
            w.sub_(w.grad)
        return loss

    compiled = Compiled(step)
    x, y = big(*LARGE), big(*LARGE, seed=1)
    ours = []
    for k in range(3 * TIMES):
        given = x if k < 2 * TIMES else x.clone()
        ours.append((compiled(given, y).item(), w.grad.numpy().copy()))
    w.data = (tg.manual_seed(0), tg.randn(LARGE[1]))[1]
    for loss, grad in ours:
        assert abs(step(x, y).item() - loss) <= 1e-6 * abs(loss)
        np.testing.assert_allclose(w.grad.numpy(), grad, rtol=1e-4, atol=1e-7)
    assert in_blocks(compiled)


def test_an_instance_goes_with_its_program(settled):
    compiled = Compiled(work)
    with tg.no_grad():
        x, y = big(), big(seed=1)
        for _ in range(2 * TIMES):
            compiled(x, y)
    assert settled == [2]
    import weakref

    known = weakref.ref(compiled.programs[0])
    del compiled
    gc.collect()
    assert known() is None


def test_small_arguments_that_lie_in_steps_give_the_same_bits_in_each_call():
    """They are read where they lie as long as the program runs in Python, and from a block after that."""

    def sums(x, row, column, shown):
        d = (x - row) * column
        return (d * d).mean(-1), (d * 2 + row).sum(-1), shown

    x, shown = big(40, 50, 36), big(3, 4).t()
    row, column = big(1, 50, 72)[..., ::2], big(40, 1, 72)[..., 1::2]
    compiled = Compiled(sums)
    with tg.no_grad(), tg.backend("cpp"):
        compiled(x, row, column, shown)
        results = [compiled(x, row, column, shown) for _ in range(2 * TIMES)]
        assert len({tuple(t.numpy().tobytes() for t in result) for result in results}) == 1
        assert all(result[2].data_ptr() == shown.data_ptr() for result in results)
        assert in_blocks(compiled) is not None
