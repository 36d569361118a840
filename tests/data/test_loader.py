"""DataLoader, datasets, samplers and collating beside PyTorch's; workers that fail, die, hang and are interrupted."""

from __future__ import annotations

import collections
import gc
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.utils import data

Point = collections.namedtuple("Point", "x y")


class Squares(data.Dataset):
    def __init__(self, size=23, fail_at=None, action=None):
        self.size, self.fail_at, self.action = size, fail_at, action

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        if i == self.fail_at:
            self.action()
        return tg.tensor([i, i * i]), str(i)


class Count(data.IterableDataset):
    def __iter__(self):
        info = data.get_worker_info()
        return iter(range(20) if info is None else range(info.id, 20, info.num_workers))

    def __len__(self):
        return 20


def plain(batch):
    if hasattr(batch, "tolist"):
        return batch.tolist()
    if isinstance(batch, dict):
        return {k: plain(v) for k, v in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [plain(v) for v in batch]
    return batch


def lists(loader):
    return [plain(batch) for batch in loader]


def no_children():
    """Workers of loaders that nobody holds end; nothing is left running."""
    gc.collect()
    import multiprocessing

    until = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    return not multiprocessing.active_children()


def rows(lib):
    """Loaders that draw nothing, in either library."""
    d, t = lib.utils.data, lib.arange(23).reshape(23, 1)
    sets = d.TensorDataset(t, t * 2)
    yield d.DataLoader(sets, 4)
    yield d.DataLoader(sets, 4, drop_last=True)
    yield d.DataLoader(sets, batch_size=None)
    yield d.DataLoader(range(7), 3)
    yield d.DataLoader([(1, 2.5), (3, 4.0)], 2)
    yield d.DataLoader([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], 2)
    yield d.DataLoader(d.ConcatDataset([sets, d.Subset(sets, [5, 3])]), 10)
    yield d.DataLoader(d.StackDataset(sets, d.Subset(sets, range(23))), 9)
    yield d.DataLoader(d.StackDataset(a=sets, b=list(range(23))), 9)
    yield d.DataLoader(sets, batch_sampler=d.BatchSampler(d.SequentialSampler(sets), 5, True))
    yield d.DataLoader(sets, batch_sampler=[np.array([3, 1]), (0, 22)])
    yield d.DataLoader(sets, 6, sampler=d.DistributedSampler(sets, 3, 1, shuffle=False))
    yield d.DataLoader(sets, 6, sampler=d.DistributedSampler(sets, 5, 4, shuffle=False, drop_last=True))
    yield d.DataLoader(sets, 5, collate_fn=lambda rows: [int(x) for x, _ in rows])
    yield d.DataLoader([np.ones((2, 2)), np.zeros((2, 2))], 2)


def test_batches_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    for mine, theirs in zip(rows(tg), rows(torch), strict=True):
        assert lists(mine) == lists(theirs) and len(mine) == len(theirs)


COLLATED = [
    [np.float32(1), np.float32(2)], [np.arange(3), np.arange(3)], [True, False], [b"a", b"b"],
    [Point(1, 2), Point(3, 4)],
    [[1, 2], [3, 4]], [(1, "a"), (2, "b")], [{"x": [1, 2.0]}, {"x": [3, 4.0]}],
    [collections.defaultdict(int, a=1), collections.defaultdict(int, a=2)], [np.array(1.5), np.array(2.5)], [2, 3],
    [range(2), range(2)], [np.array([True]), np.array([False])],
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(COLLATED)))
def test_collating_is_that_of_pytorch(i):
    torch = pytest.importorskip("torch")
    from torch.utils.data._utils.collate import default_collate as theirs

    from tensorgrad.utils.data._utils.collate import default_collate as mine

    a, b = mine(COLLATED[i]), theirs(COLLATED[i])
    assert type(a).__name__ == type(b).__name__ and plain(a) == plain(b)
    if isinstance(b, torch.Tensor):
        assert str(a.dtype).rpartition(".")[2] == str(b.dtype).rpartition(".")[2]
    a, b = data.default_convert(COLLATED[i]), torch.utils.data.default_convert(COLLATED[i])
    assert type(a).__name__ == type(b).__name__ and plain(a) == plain(b)


def raising(kind, *args):
    def act():
        raise kind(*args)

    return act


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(a)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_batches_of_one_process(context):
    want = lists(data.DataLoader(Squares(), 4))
    loader = data.DataLoader(Squares(), 4, num_workers=2, multiprocessing_context=context, persistent_workers=True)
    assert lists(loader) == want and lists(loader) == want
    pids = {p.pid for p in loader._pool.processes}
    next(iter(loader))  # left early: the same workers serve the next epoch
    assert lists(loader) == want and pids == {p.pid for p in loader._pool.processes}
    older = iter(loader)
    assert lists(loader) == want
    with pytest.raises(RuntimeError, match="another iteration"):
        next(older)
    del older, loader
    assert no_children()


def test_streams_are_shared_among_workers():
    torch = pytest.importorskip("torch")

    class Theirs(torch.utils.data.IterableDataset):
        def __iter__(self):
            info = torch.utils.data.get_worker_info()
            return iter(range(20) if info is None else range(info.id, 20, info.num_workers))

    for size, drop in ((3, False), (3, True), (None, False), (7, False)):
        options = {"batch_size": size, "drop_last": drop, "num_workers": 2}
        mine = data.DataLoader(Count(), persistent_workers=True, **options)
        want = lists(torch.utils.data.DataLoader(Theirs(), **options))
        assert lists(mine) == want and lists(mine) == want
        del mine
    assert lists(data.DataLoader(data.ChainDataset([Count(), Count()]), 15)) == [
        [*range(15)], [*range(15, 20), *range(10)], [*range(10, 20)],
    ]  # fmt: skip
    assert no_children()


@pytest.mark.parametrize(
    "action, kind, text",
    [
        (raising(KeyError, "apple"), KeyError, "Caught KeyError in DataLoader worker process 1"),
        (raising(ValueError, "pear"), ValueError, "ValueError: pear"),
        (raising(Odd, 1, 2), RuntimeError, "Caught Odd"),
        (lambda: os._exit(3), RuntimeError, r"exited unexpectedly with exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), RuntimeError, r"exit code -9"),
        (lambda: time.sleep(60), RuntimeError, "timed out after 1.5 seconds"),
        (lambda: data.default_collate([object()]), TypeError, "Original Traceback"),
    ],
)
def test_failures_of_workers_are_reported(action, kind, text):
    loader = data.DataLoader(Squares(fail_at=5, action=action), 4, num_workers=2, timeout=1.5)
    seen = []
    with pytest.raises(kind, match=text):
        for batch in loader:
            seen.append(batch)
    assert len(seen) == 1
    assert no_children()


def test_workers_are_seeded_and_initialized():
    class Draws(data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            info = data.get_worker_info()
            numbers = [random.random(), float(np.random.rand()), float(tg.rand(()))]
            return info.id, info.num_workers, os.environ.get("INITIALIZED"), numbers

    def init(worker):
        os.environ["INITIALIZED"] = str(worker)

    def run(seed):
        generator = tg.Generator().manual_seed(seed)
        return lists(data.DataLoader(Draws(), num_workers=2, worker_init_fn=init, generator=generator, collate_fn=list))

    first = run(1)
    assert [batch[0][:3] for batch in first] == [[0, 2, "0"], [1, 2, "1"]] * 2
    assert first == run(1) != run(2)
    assert len({n for batch in first for n in batch[0][3]}) == 12
    with pytest.raises(ValueError, match="Caught ValueError"):
        list(data.DataLoader(Draws(), num_workers=1, worker_init_fn=lambda i: raising(ValueError)()))
    assert data.get_worker_info() is None and no_children()


def test_large_batches_come_through_shared_memory():
    class Images(data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return {"image": tg.full((3, 160, 160), float(i)), "half": tg.full((2, 3), i, dtype=tg.bfloat16)}

    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    loader = data.DataLoader(Images(), 2, num_workers=2)
    kept = list(loader)
    assert [b["image"].mean().item() for b in kept] == [0.5, 2.5, 4.5]
    kept[0]["image"].mul_(2)  # it is the receiver's own
    assert kept[2]["half"].tolist() == [[[4.0] * 3] * 2, [[5.0] * 3] * 2]
    next(iter(loader))  # what workers have sent ahead is freed
    assert no_children()
    if before:
        assert not {n for n in set(os.listdir("/dev/shm")) - before if n.startswith("psm_")}


def test_an_interrupt_leaves_no_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time, tensorgrad as tg\n"
        "from tensorgrad.utils.data import DataLoader\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "class Slow:\n"
        "    def __len__(self): return 1000\n"
        "    def __getitem__(self, i):\n"
        "        time.sleep(0.02)\n"
        "        return i\n"
        "loader = DataLoader(Slow(), 4, num_workers=2)\n"
        "for batch in loader:\n"
        "    print('batch', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None and "batch" in process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
            _, errors = process.communicate(timeout=30)
            assert process.returncode != 0 and errors.count("KeyboardInterrupt") == 1, errors
            with pytest.raises(ProcessLookupError):
                for _ in range(100):  # Python's resource tracker ends by itself a little later
                    os.killpg(process.pid, 0)
                    time.sleep(0.1)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def test_samplers_draw_what_they_should():
    r = tg.Generator().manual_seed(0)
    assert sorted(data.RandomSampler(range(9), generator=r)) == list(range(9))
    assert sorted(data.RandomSampler(range(3), num_samples=7, generator=r))[:2] == [0, 0]
    drawn = list(data.RandomSampler(range(3), True, 50, generator=r))
    assert len(drawn) == 50 and set(drawn) == {0, 1, 2}
    weighted = list(data.WeightedRandomSampler([0.0, 1.0, 3.0], 400, generator=r))
    assert 0 not in weighted and 250 < weighted.count(2) < 350
    shares = [list(data.DistributedSampler(range(10), 3, rank, seed=5)) for rank in range(3)]
    assert sorted({i for share in shares for i in share}) == list(range(10)) and {len(s) for s in shares} == {4}
    other = data.DistributedSampler(range(10), 3, 0, seed=5)
    other.set_epoch(1)
    assert list(other) != shares[0]
    a, b, c = data.random_split(range(10), [0.5, 0.3, 0.2], r)
    assert sorted([*a, *b, *c]) == list(range(10)) and [len(x) for x in (a, b, c)] == [5, 3, 2]
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        data.random_split(range(2), [0.9, 0.1])


BAD = [
    (ValueError, lambda d: d.DataLoader(range(3), num_workers=-1)),
    (ValueError, lambda d: d.DataLoader(range(3), prefetch_factor=2)),
    (ValueError, lambda d: d.DataLoader(range(3), persistent_workers=True)),
    (ValueError, lambda d: d.DataLoader(range(3), timeout=-1)),
    (ValueError, lambda d: d.DataLoader(range(3), shuffle=True, sampler=[1])),
    (ValueError, lambda d: d.DataLoader(range(3), 2, batch_sampler=[[1]])),
    (ValueError, lambda d: d.DataLoader(range(3), None, drop_last=True)),
    (ValueError, lambda d: d.DataLoader(range(3), 0)),
    (ValueError, lambda d: d.DataLoader(range(0), shuffle=True)),
    (ValueError, lambda d: d.DataLoader(range(3), num_workers=1, multiprocessing_context="thread")),
    (TypeError, lambda d: d.DataLoader(range(3), num_workers=1, multiprocessing_context=3)),
    (ValueError, lambda d: d.DataLoader(range(3), multiprocessing_context="fork")),
    (ValueError, lambda d: setattr(d.DataLoader(range(3)), "batch_size", 4)),
    (TypeError, lambda d: d.RandomSampler(range(3), replacement=1)),
    (ValueError, lambda d: d.RandomSampler(range(3), num_samples=0)),
    (ValueError, lambda d: d.WeightedRandomSampler([[1.0]], 1)),
    (ValueError, lambda d: d.WeightedRandomSampler([1.0], 0)),
    (ValueError, lambda d: d.BatchSampler(range(3), 0, False)),
    (ValueError, lambda d: d.DistributedSampler(range(3), 2, 2)),
    (ValueError, lambda d: d.random_split(range(3), [1, 1])),
    (ValueError, lambda d: d.StackDataset(range(3), range(4))),
    (ValueError, lambda d: d.StackDataset()),
    (AssertionError, lambda d: d.ConcatDataset([])),
    (ValueError, lambda d: d.ConcatDataset([range(3)])[-4]),
    (TypeError, lambda d: d.default_collate([object()])),
    (RuntimeError, lambda d: d.default_collate([[1], [1, 2]])),
    (NotImplementedError, lambda d: d.Dataset()[0]),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(BAD)))
def test_bad_arguments(i):
    torch = pytest.importorskip("torch")
    kind, make = BAD[i]
    for lib in (tg.utils.data, torch.utils.data):
        with pytest.raises(kind):
            make(lib)
    with pytest.raises(AssertionError):
        data.TensorDataset(tg.ones(2), tg.ones(3))


def test_it_is_seen_that_there_are_too_many_workers():
    with pytest.warns(UserWarning, match="will create 999 worker"):
        data.DataLoader(range(3), num_workers=999)
