"""The allocator: blocks are reused, what is kept is bounded, and hugely wrong sizes are refused."""

from __future__ import annotations

import resource
import sys

import numpy as np
import pytest

_C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)

FLOAT = np.zeros(1, np.float32)
MB = 1 << 20


def make(megabytes: float) -> np.ndarray:
    return _C.empty(FLOAT, [int(megabytes * MB / 4)])


@pytest.fixture(autouse=True)
def nothing_kept():
    _C.trim_memory()
    yield
    _C.trim_memory()


def test_a_freed_block_serves_the_next_request_of_its_size():
    a = make(5)
    where = a.ctypes.data
    del a
    b = make(5)
    assert b.ctypes.data == where
    del b
    c = make(4.5)  # a little smaller fits too
    assert c.ctypes.data == where


def test_every_block_is_aligned_to_a_cache_line():
    kept = [_C.empty(FLOAT, [n]) for n in (0, 1, 3, 17, 1000, 70_000, 3_000_000)]
    assert all(a.ctypes.data % 64 == 0 for a in kept)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted by Linux here")
def test_a_step_of_large_arrays_repeats_without_page_faults():
    def step():
        kept = [make(16) for _ in range(8)]
        for a in kept:
            a[::1024] = 1.0

    step()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 500, "128 MB touched five times are 164,000 pages"


def test_what_is_kept_unused_is_bounded_by_what_was_in_use():
    before = _C.memory_stats()["in_use"]  # scratch that threads keep
    for size in (64, 80, 96, 112, 128, 160):  # each of a class of its own, one after the other
        a = make(size)
        del a
        stats = _C.memory_stats()
        assert stats["in_use"] == before
        assert stats["cached"] <= 1.5 * (160 * MB + before) * 1.01


def test_trimming_gives_everything_unused_back():
    a, b = make(10), make(20)
    del b
    assert _C.memory_stats()["cached"] >= 20 * MB
    _C.trim_memory()
    stats = _C.memory_stats()
    assert stats["cached"] == 0 and stats["in_use"] >= 10 * MB
    del a


def test_sizes_beyond_the_address_space_are_refused():
    for shape in ([1 << 62], [1 << 40, 1 << 40], [-1]):
        with pytest.raises((MemoryError, ValueError)):
            _C.empty(FLOAT, shape)
