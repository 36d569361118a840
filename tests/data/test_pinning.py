"""``DataLoader(pin_memory=True)``: batches of every structure in page-locked memory, ahead of who asks for them."""

from __future__ import annotations

import collections
import gc
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.errors import DeviceError
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.utils import data

Point = collections.namedtuple("Point", "x y")


@pytest.fixture
def cuda() -> Iterator[StrictCupyBackend]:
    with registry.backend("numpy"), strict_cuda(devices=2) as backend:
        yield backend


class Samples(data.Dataset):
    def __init__(self, fail_at: int | None = None):
        self.fail_at = fail_at

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        if i == self.fail_at:
            raise KeyError("no such sample")
        return {"x": tg.tensor([float(i)]), "name": str(i), "point": Point(i, [tg.tensor(i), b"raw"])}


class Own:
    """A batch of the user's own."""

    def __init__(self, samples: Any):
        self.x = tg.stack([sample["x"] for sample in samples])
        self.pinned_by: str | None = None

    def pin_memory(self) -> Own:
        self.x, self.pinned_by = self.x.pin_memory(), threading.current_thread().name
        return self


def checked(batch: Any) -> None:
    assert batch["x"].is_pinned() and batch["point"].x.is_pinned() and batch["point"].y[0].is_pinned()
    assert type(batch["point"]) is Point and batch["name"][0].isdigit() and batch["point"].y[1][0] == b"raw"


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}], ids=str)
def test_every_tensor_of_a_batch_is_pinned(options: Any, cuda: StrictCupyBackend) -> None:
    loader = data.DataLoader(Samples(), batch_size=2, pin_memory=True, **options)
    for _ in range(2):
        seen = []
        for batch in loader:
            checked(batch)
            moved = batch["x"].to("cuda", non_blocking=True)
            seen += moved.flatten().tolist()
        assert seen == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    if loader._pool is not None:
        loader._pool.close()


def test_batches_of_a_class_of_its_own_are_asked(cuda: StrictCupyBackend) -> None:
    here = [*data.DataLoader(Samples(), batch_size=3, collate_fn=Own, pin_memory=True)]
    ahead = [*data.DataLoader(Samples(), batch_size=3, collate_fn=Own, pin_memory=True, num_workers=1)]
    assert all(batch.x.is_pinned() for batch in here + ahead)
    assert {b.pinned_by for b in here} == {"MainThread"} and {b.pinned_by for b in ahead} == {"tensorgrad pins batches"}


def test_memory_is_pinned_for_the_device_that_is_named(cuda: StrictCupyBackend, monkeypatch: Any) -> None:
    current: list[int] = []
    pinned = cuda.pinned

    def noted(array: Any) -> Any:
        current.append(cuda.current_device())
        return pinned(array)

    monkeypatch.setattr(cuda, "pinned", noted)
    [*data.DataLoader(tg.ones(2, 1), pin_memory=True, pin_memory_device="cuda:1", num_workers=1)]
    assert current == [1, 1]
    with tg.cuda.device(1):
        [*data.DataLoader(tg.ones(2, 1), pin_memory=True, num_workers=1)]
    assert current == [1] * 4
    with pytest.raises(DeviceError, match="does not exist"):
        iter(data.DataLoader(tg.ones(2, 1), pin_memory=True, pin_memory_device="cuda:7"))


def test_a_failure_is_raised_in_its_place(cuda: StrictCupyBackend) -> None:
    batches = iter(data.DataLoader(Samples(fail_at=3), batch_size=2, pin_memory=True, num_workers=2))
    checked(next(batches))
    with pytest.raises(KeyError, match="no such sample"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("persistent", [False, True])
def test_an_iteration_that_is_dropped_ends_its_thread(persistent: bool, cuda: StrictCupyBackend) -> None:
    loader = data.DataLoader(Samples(), pin_memory=True, num_workers=1, persistent_workers=persistent)
    batches = iter(loader)
    checked(next(batches))
    start = time.monotonic()
    del batches
    gc.collect()
    assert not any(thread.name == "tensorgrad pins batches" for thread in threading.enumerate())
    assert time.monotonic() - start < 5
    assert loader.state_dict()["batches"] == 1
    if loader._pool is not None:
        assert len([*loader]) == 6
        loader._pool.close()


def test_without_a_device_a_warning_says_so_and_nothing_is_pinned() -> None:
    if tg.cuda.is_available():
        pytest.skip("there is a GPU here")
    for workers in (0, 1):
        with pytest.warns(
            UserWarning, match="no accelerator is found, then device pinned memory won't be used"
        ) as told:
            batches = [*data.DataLoader(tg.arange(3), pin_memory=True, num_workers=workers)]
        assert [x.item() for x in batches] == [0, 1, 2] and not any(x.is_pinned() for x in batches)
        assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len([*data.DataLoader(tg.arange(3))]) == 3
