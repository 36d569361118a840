"""Data sets, samplers and loaders."""

from __future__ import annotations

import pytest

import tensorgrad as tg
from tensorgrad.io import safetensors
from tensorgrad.utils.data import DataLoader, TensorDataset, random_split


def numbers(count=10):
    return TensorDataset(tg.arange(count), tg.arange(count) * 2)


def test_batches_in_order_and_the_last_one():
    batches = [x.tolist() for x, _ in DataLoader(numbers(), batch_size=4)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(DataLoader(numbers(), batch_size=4, drop_last=True)) == 2


def test_shuffling_is_a_permutation_that_a_seed_repeats():
    def order():
        loader = DataLoader(numbers(50), batch_size=5, shuffle=True, generator=tg.Generator().manual_seed(3))
        return [v for x, y in loader for v in x.tolist()]

    first = order()
    assert first == order() and first != sorted(first) and sorted(first) == list(range(50))


def test_workers_give_the_same_batches():
    plain = [y.tolist() for _, y in DataLoader(numbers(), batch_size=3)]
    assert [y.tolist() for _, y in DataLoader(numbers(), batch_size=3, num_workers=1)] == plain


def test_random_split_shares_nothing():
    a, b = random_split(numbers(), [7, 3])
    seen = [a[i][0].item() for i in range(7)] + [b[i][0].item() for i in range(3)]
    assert sorted(seen) == list(range(10))


def test_safetensors_round_trip(tmp_path):
    tensors = {"w": tg.randn(3, 2), "n": tg.arange(4), "half": tg.ones(2).half()}
    path = tmp_path / "state.safetensors"
    safetensors.save_file(tensors, path, metadata={"epoch": "3"})
    back = safetensors.load_file(path)
    assert {k: (v.dtype, v.tolist()) for k, v in back.items()} == {k: (v.dtype, v.tolist()) for k, v in tensors.items()}
    assert list(tmp_path.iterdir()) == [path], "the write is atomic and leaves no temporary file"
    path.write_bytes(b"\xff" * 64)
    # whatever the library of the format raises, it does not crash
    with pytest.raises(Exception, match=r".+"):
        safetensors.load_file(path)
