"""Rows picked by one index and added up by another: which calls become one, their bits, their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.dispatch import OPS, local
from tensorgrad.ops.summed_rows import ADDS, PICKS
from tests.compiler.common import after, names, same_results, written

F = tg.nn.functional
NODES, EDGES, WIDTH = 30, 200, 11


@pytest.fixture(autouse=True)
def _cpp() -> Any:
    with tg.backend("cpp"):
        yield


def operands(dtype: Any = tg.float32, edges: int = EDGES, width: int = WIDTH) -> list[tg.Tensor]:
    """Nodes, sources, targets, weights, and a gradient."""
    generator = tg.Generator().manual_seed(0)
    source, target = (tg.randint(0, NODES, (edges,), generator=generator) for _ in range(2))
    x, g = (tg.randn(NODES, width, generator=generator).to(dtype) for _ in range(2))
    return [x, source, target, tg.randn(edges, generator=generator).to(dtype), g]


def by_index_add(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.zeros_like(x).index_add(0, t, x[s])


def over_zeros(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.zeros_like(x).index_add_(0, t, x[s])


def by_index_put(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.zeros_like(x).index_put((t - NODES,), x[s - NODES], accumulate=True)


def by_scatter_add(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    rows = F.embedding(s, x) * w[:, None]
    return tg.zeros_like(x).scatter_add(0, t.view(-1, 1).expand(-1, x.shape[1]), rows)


def by_selecting(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return x.index_add(0, t, w.unsqueeze(1) * x.index_select(0, s))


def by_gather(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.zeros_like(x).index_add(0, t, x.gather(0, s[:, None].expand(-1, x.shape[1])))


def of_edges(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    s, t = tg.stack([s, t])
    return tg.zeros_like(x).index_add(0, t, x[s] * w[:, None])


def of_heads(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    heads = tg.cat([x, x], 1).view(NODES, 2, -1)
    rows = heads[s] * tg.stack([w, w * w], 1)[:, :, None]
    return tg.zeros_like(heads).index_add(0, t, rows)[:, 0]


WAYS = [by_index_add, over_zeros, by_index_put, by_scatter_add, by_selecting, by_gather, of_edges, of_heads]


def trained(way: Any) -> Any:
    def function(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
        x = x.detach().requires_grad_()
        y = way(x, s, t, w)
        return [y, *tg.autograd.grad(y, [x], g)]

    return function


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64], ids=str)
def test_forward_and_backward_become_sums_with_the_same_bits(way: Any, dtype: Any) -> None:
    inputs = operands(dtype)
    program = written(trained(way), *inputs)
    made = after("summed_rows", program)
    assert names(made).count("summed_rows") == 2
    same_results(program, made, *inputs)
    play = tg.compile(trained(way))
    for _ in range(3):
        for ours, theirs in zip(play(*inputs), trained(way)(*inputs), strict=True):
            assert ours.dtype == theirs.dtype and ours.detach().numpy().tobytes() == theirs.detach().numpy().tobytes()
    assert "became summed_rows" in play.explain() and "grouped_rows(" in play.explain()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 9, 64, 100])
def test_bits_are_those_of_eager_for_any_width_and_number_of_threads(threads: int, width: int) -> None:
    inputs = operands(edges=70_000 if width < 10 else 5000, width=width)
    count = tg.get_num_threads()
    try:
        tg.set_num_threads(threads)
        found = tg.compile(trained(by_scatter_add))(*inputs)
        tg.set_num_threads(1)
        for ours, theirs in zip(found, trained(by_scatter_add)(*inputs), strict=True):
            assert ours.detach().numpy().tobytes() == theirs.detach().numpy().tobytes()
    finally:
        tg.set_num_threads(count)


def test_without_recording_zeros_written_to_are_not_made() -> None:
    inputs = operands()[:4]
    with tg.no_grad():
        program = written(over_zeros, *inputs)
        made = after("summed_rows", program)
    assert names(program) == ["full", "index", "index_add_into"]
    assert names(made) == ["row_numbers", "index", "grouped_rows", "summed_rows"]
    same_results(program, made, *inputs)


def test_edges_are_brought_together_once_for_all_layers() -> None:
    def layers(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
        x = x.detach().requires_grad_()
        y = by_index_add(by_scatter_add(by_index_add(x, s, t, w), s, t, w).sin(), s, t, w)
        return [y, *tg.autograd.grad(y, [x], g)]

    inputs = operands()
    program = written(layers, *inputs)
    made = after("summed_rows", program)
    assert names(made).count("summed_rows") == 6 and names(made).count("grouped_rows") <= 5
    same_results(program, made, *inputs)

    def alike(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
        return by_index_add(by_index_add(x, s, t, w).sin(), s, t, w) + of_weighted(x, s, t, w)

    def of_weighted(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
        return tg.zeros_like(x).index_add(0, t, x[s] * w[:, None])

    program = written(alike, *inputs[:4])
    made = after("summed_rows", program)
    assert (names(made).count("summed_rows"), names(made).count("grouped_rows")) == (3, 1)
    assert names(made).count("row_numbers") == 1
    same_results(program, made, *inputs[:4])


def ranks(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor, *, times: int) -> tg.Tensor:
    r, base = x[:, 0], x[:, 1]
    for _ in range(times):
        r = base.index_add(0, t, r[s] * w) + tg.zeros_like(r).index_add(0, t, r.index_select(0, s - 0))
    return r


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64], ids=str)
def test_single_numbers_are_brought_together_for_several_sums(dtype: Any, threads: int) -> None:
    x, s, t, w, _ = operands(dtype, edges=40_000)
    few, many = (lambda *inputs, n=n: ranks(*inputs, times=n) for n in (2, 3))
    assert "summed_rows" not in names(after("summed_rows", written(few, x, s, t, w)))
    program = written(many, x, s, t, w)
    made = after("summed_rows", program)
    assert names(made).count("summed_rows") == 3 and names(made).count("grouped_rows") == 1
    same_results(program, made, x, s, t, w)
    count = tg.get_num_threads()
    try:
        tg.set_num_threads(threads)
        found = tg.compile(many)(x, s, t, w)
    finally:
        tg.set_num_threads(count)
    assert found.numpy().tobytes() == many(x, s, t, w).numpy().tobytes()


def test_products_that_were_to_be_added_up_are_not_made_beside_the_gradients_of_the_weights() -> None:
    def function(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = by_scatter_add(x, s, t, w)
        return [y, *tg.autograd.grad(y, [x, w], g)]

    inputs = operands()
    program = written(function, *inputs)
    made = after("summed_rows", program)
    (product,) = [call for call in program.calls if len(call.results) == 2]
    assert product.op.name == "mul_backward01" and "mul_backward01" not in names(made)
    (left,) = [call for call in made.calls if call.results[0] in product.results]
    assert len(left.results) == 1 and names(made).count("summed_rows") == 2
    same_results(program, made, *inputs)


# --- what stays


def index_changes(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    t = t.clone()
    first = by_index_add(x, s, t, w)
    t.fill_(0)
    return first + by_index_add(x, s, t, w)


def rows_change(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    rows = x[s]
    rows[0] = 1.0
    return tg.zeros_like(x).index_add(0, t, rows)


def source_changes(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    x = x.clone()
    rows = x[s]
    x.fill_(2.0)
    return tg.zeros_like(x).index_add(0, t, rows)


def weights_change(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    w = w.clone()
    rows = x[s] * w[:, None]
    w.fill_(2.0)
    return tg.zeros_like(x).index_add(0, t, rows)


def base_is_read_before(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    base = tg.zeros_like(x)
    before = base + 1
    base.index_add_(0, t, x[s])
    return base + before


def base_is_changed_before(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    base = tg.zeros_like(x)
    base[0] = 3.0
    return base.index_add_(0, t, x[s])


def negative_zeros(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.full(tuple(x.shape), -0.0).index_add(0, t, x[s])


def other_dim(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.zeros(x.shape[1], NODES).index_add(1, t, x.T[:, s])


def other_formula(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.zeros_like(x).index_add(0, t, (x[s] * w[:, None]).exp())


def two_indices(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.zeros_like(x).index_add(0, t, x[s, s % WIDTH][:, None].expand(-1, WIDTH))


def an_index_for_each_column(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    places = (t[:, None] + tg.arange(WIDTH)) % NODES
    return tg.zeros_like(x).scatter_add(0, places, x[s])


def integers(x: tg.Tensor, s: tg.Tensor, t: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    x = (x * 10).long()
    return tg.zeros_like(x).index_add(0, t, x[s])


@pytest.mark.parametrize(
    "way",
    [
        index_changes, rows_change, source_changes, weights_change, base_is_read_before, base_is_changed_before,
        negative_zeros, other_dim, other_formula, two_indices, an_index_for_each_column, integers,
    ],
)  # fmt: skip
def test_what_others_touch_or_kernels_do_not_know(way: Any) -> None:
    inputs = operands()[:4]
    with tg.no_grad():
        program = written(way, *inputs)
        made = after("summed_rows", program)
        same_results(program, made, *inputs)
        sums = names(made).count("summed_rows")
    assert sums == {index_changes: 2, negative_zeros: 1}.get(way, 0)
    if way is index_changes:
        assert names(made).count("grouped_rows") == 2


@pytest.mark.parametrize(("edges", "summed"), [(NODES, True), (NODES - 1, False)])
def test_fewer_rows_than_sums_are_not_brought_together(edges: int, summed: bool) -> None:
    inputs = operands(edges=edges)[:4]
    program = written(by_index_add, *inputs)
    made = after("summed_rows", program)
    assert ("summed_rows" in names(made)) == summed
    same_results(program, made, *inputs)


def test_other_backends_and_narrow_floats_stay() -> None:
    for inputs, backend in ((operands(tg.float16), "cpp"), (operands(), "numpy")):
        with tg.backend(backend):
            program = written(trained(by_index_add), *inputs)
            assert after("summed_rows", program) is program


# --- errors


@pytest.mark.parametrize("way", [by_index_add, by_selecting, by_scatter_add, by_gather, by_index_put])
@pytest.mark.parametrize("which", [1, 2], ids=["source", "target"])
@pytest.mark.parametrize("bad", [NODES, -1, -NODES - 1, 3 * NODES])
def test_an_index_that_is_not_there_is_the_same_error(way: Any, which: int, bad: int) -> None:
    inputs = operands()[:4]
    play = tg.compile(way)
    for _ in range(2):
        play(*inputs)
    inputs[which] = inputs[which].clone()
    inputs[which][7] = bad
    words = expected = None
    try:
        expected = way(*inputs)
    except tg.errors.IndexOutOfRange as error:
        words = str(error)
    if words is None:
        assert expected is not None
        assert play(*inputs).numpy().tobytes() == expected.numpy().tobytes()
        return
    with pytest.raises(tg.errors.IndexOutOfRange) as caught:
        play(*inputs)
    told = str(caught.value)
    assert told.startswith(words.split(" (")[0]) and "test_summed_rows.py" in told
    inputs[which][7] = 3
    assert play(*inputs).numpy().tobytes() == way(*inputs).numpy().tobytes()


def test_the_picking_call_is_named_first() -> None:
    inputs = operands()[:4]
    play = tg.compile(by_index_add)
    play(*inputs)
    inputs[1][0] = inputs[2][0] = NODES
    with pytest.raises(tg.errors.IndexOutOfRange, match=r"^index: index 30"):
        play(*inputs)


def test_kernels_refuse_groups_that_are_none() -> None:
    x, index = tg.randn(4, 3), tg.tensor([0, 1, 2, 3])
    ends = tg.tensor([0, 2, 4])
    bad = [
        (tg.tensor([0, 1, 2, 4]), ends), (tg.tensor([-1, 1, 2, 3]), ends),
        (index, tg.tensor([0, 3, 2])), (index, tg.tensor([-1, 2, 4])), (index, tg.tensor([0, 2, 5])),
    ]  # fmt: skip
    door = local.doors[type(x._data)]
    for rows, where in bad:
        with pytest.raises(IndexError, match="not there"):
            door.summed_rows(x._data, rows._data, where._data, None, None, None)
    with pytest.raises(IndexError, match="not there"):
        door.summed_rows(x._data, index._data, ends._data, tg.randn(4, 1)._data, tg.tensor([0, 1, 4, 2])._data, None)
    with pytest.raises(tg.errors.ShapeError, match="weights"):
        OPS["summed_rows"](x, index, ends, tg.randn(4, 2), index, None)
    with pytest.raises(tg.errors.ShapeError, match="base"):
        OPS["summed_rows"](x, index, ends, None, None, tg.randn(3, 3))
    for name, known in (("row_numbers", PICKS), ("grouped_rows", ADDS)):
        given = {"rows": 4} if name == "row_numbers" else {"groups": 4, "keeps": False}
        arrays = (index,) if name == "row_numbers" else (index, None)
        with pytest.raises(tg.errors.ArgumentError, match=f"{known[0]}.*got '__class__'"):
            OPS[name](*arrays, negative=False, name="__class__", **given)
        with pytest.raises(tg.errors.ArgumentError, match="must be a number of rows, got -1"):
            OPS[name](*arrays, negative=False, name=known[0], **{**given, next(iter(given)): -1})


# --- other sizes, files


def test_sizes_that_change() -> None:
    for way in (by_index_add, of_heads):
        play = tg.compile(way, dynamic=True)
        for edges in (200, 300, 250, 0, 1, 277):
            x, s, t, w, _ = operands(edges=edges)
            assert play(x, s, t, w).numpy().tobytes() == way(x, s, t, w).numpy().tobytes()


@pytest.mark.parametrize("way", [by_index_add, by_scatter_add])
def test_a_saved_program_computes_elsewhere(way: Any, tmp_path: Path) -> None:
    inputs = operands()[:4]
    play = tg.compile(way)
    expected = play(*inputs).numpy()
    play(*inputs)
    assert "summed_rows(" in play.explain()
    play.save(tmp_path / "graph.tgp")
    for name in ("cpp", "numpy"):
        with tg.backend(name):
            loaded = tg.compiler.load(tmp_path / "graph.tgp")
            assert np.array_equal(loaded(*inputs).numpy(), expected)
            inputs[2][0] = NODES
            with pytest.raises(tg.errors.IndexOutOfRange, match=f"{NODES}"):
                loaded(*inputs)
            inputs[2][0] = 0
            expected = way(*inputs).numpy()
