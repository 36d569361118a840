"""Arguments that can't change are the same where they say the same, though each call makes them anew."""

from __future__ import annotations

import pytest

import tensorgrad as tg


@pytest.mark.parametrize(
    ("function", "one", "other"),
    [
        (lambda x, what: x.reshape(what), lambda: tg.ones(2, 3).shape, lambda: tg.ones(3, 2).shape),
        (lambda x, what: x[what], lambda: slice(1, 3), lambda: slice(0, 3)),
        (lambda x, what: x[what], lambda: slice(0, 1), lambda: slice(False, 1)),
        (lambda x, what: x * sum(what), lambda: range(2, 5), lambda: range(3, 5)),
        (lambda x, what: x * sum(what), lambda: frozenset([2.0, 5.0]), lambda: frozenset([2.0, 4.0])),
    ],
    ids=["shape", "slice", "slice of a truth", "range", "frozenset"],
)
def test_objects_made_anew_with_the_same_value(function, one, other) -> None:
    compiled = tg.compile(function)
    for make in (one, other):
        for i in range(4):
            x = tg.arange(6.0) + i
            assert tg.equal(compiled(x, make()), function(x, make()))
    found = compiled.stats()
    assert (found["captures"], found["replays"]) == (2, 6)


def test_devices_made_anew() -> None:
    compiled = tg.compile(lambda x, where: x.to(where) * 2)
    for _ in range(4):
        assert compiled(tg.ones(2), tg.device("cpu")).tolist() == [2, 2]
    assert compiled.stats()["captures"] == 1


def test_shapes_are_returned(tmp_path) -> None:
    compiled = tg.compile(lambda x: (x * 2, x.shape))
    for x in (tg.ones(2, 3), tg.ones(2, 3), tg.ones(3, 2), tg.ones(3, 2)):
        doubled, shape = compiled(x)
        assert tg.equal(doubled, x * 2) and shape == x.shape and type(shape) is tg.Size
    assert compiled.stats()["replays"] == 2
    with pytest.raises(tg.errors.CompileError, match="class Size"):
        compiled.save(tmp_path / "shape.tgp")


def test_shapes_are_returned_of_any_batch() -> None:
    compiled = tg.compile(lambda x: (x * 2, x.shape, x.shape[0]), dynamic=True)
    for size in (8, 5, 6, 7, 8, 5):
        _, shape, count = compiled(tg.ones(size, 3))
        assert shape == (size, 3) and type(shape) is tg.Size and (type(count), count) == (int, size)
