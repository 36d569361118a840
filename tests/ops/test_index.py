"""Indexing both ways, gather and scatter beside PyTorch: semantics, derivatives, bounds, what stays unchanged."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import IndexOutOfRange, ShapeError

from .beside_torch import same, same_error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5))
M = RNG.standard_normal((4, 3))


def _long(lib, values):
    return lib.tensor(values, dtype=lib.int64)


# Keys: what may stand between the brackets, given the library and the tensor.
KEYS = {
    "int": lambda lib, x: 1,
    "negative": lambda lib, x: -1,
    "ints": lambda lib, x: (0, -1, 2),
    "slice": lambda lib, x: slice(1, None),
    "steps": lambda lib, x: (slice(None, None, 2), slice(-3, -1), slice(4, 1)),
    "beyond": lambda lib, x: (slice(-9, 99), slice(2, 99, 3)),
    "none": lambda lib, x: (None, 0, None, slice(None), None),
    "ellipsis": lambda lib, x: (Ellipsis, 1),
    "ellipsis-inside": lambda lib, x: (0, Ellipsis, slice(1, 3)),
    "everything": lambda lib, x: Ellipsis,
    "empty-tuple": lambda lib, x: (),
    "list": lambda lib, x: [0, 2, 0],
    "empty-list": lambda lib, x: [],
    "array": lambda lib, x: np.array([2, -1]),
    "tensor": lambda lib, x: _long(lib, [[0, 1], [2, 2]]),
    "int32": lambda lib, x: lib.tensor([0, 2], dtype=lib.int32),
    "0-d-tensor": lambda lib, x: _long(lib, 1),
    "pair": lambda lib, x: (_long(lib, [0, 1, 1]), _long(lib, [3, 0, 0])),
    "broadcast-pair": lambda lib, x: (_long(lib, [[0], [2]]), _long(lib, [3, 0, 1])),
    "apart": lambda lib, x: (_long(lib, [0, 1]), slice(None), _long(lib, [4, 4])),
    "int-and-tensor": lambda lib, x: (0, slice(None), [1, 2]),
    "tensor-and-int": lambda lib, x: ([1, 2], slice(1, 3), 0),
    "slice-and-tensor": lambda lib, x: (slice(1, None), [0, 3, 3]),
    "none-and-tensor": lambda lib, x: (None, [0, 1], None, [2, 2]),
    "ellipsis-and-tensor": lambda lib, x: (Ellipsis, [0, 4]),
    "mask": lambda lib, x: x > 0,
    "mask-of-rows": lambda lib, x: lib.tensor([True, False, True]),
    "mask-of-two": lambda lib, x: x[:, :, 0] > 0,
    "mask-inside": lambda lib, x: (slice(None), lib.tensor([True, False, True, True])),
    "mask-and-list": lambda lib, x: (lib.tensor([True, False, True]), [0, 1]),
    "mask-and-int": lambda lib, x: (1, lib.tensor([False, False, True, True]), slice(0, 2)),
    "empty-mask": lambda lib, x: x > 100,
    "list-of-bools": lambda lib, x: [True, False, True],
    "true": lambda lib, x: True,
    "false": lambda lib, x: False,
    "true-and-slice": lambda lib, x: (slice(1, 2), True),
    "numpy-int": lambda lib, x: np.int64(2),
}


@pytest.mark.parametrize("name", KEYS)
def test_getitem(name):
    same(lambda lib, x: x[KEYS[name](lib, x.detach())], X)


@pytest.mark.parametrize("name", KEYS)
def test_setitem_number(name):
    if name == "false":
        pytest.skip("writes nothing, PyTorch included")

    def call(lib, x):
        y = x * 2
        y[KEYS[name](lib, x.detach())] = 1.5
        return y * y

    same(call, X)


@pytest.mark.parametrize("name", [n for n in KEYS if n not in ("tensor", "list", "pair", "apart", "slice-and-tensor",
                                                             "none-and-tensor")])  # fmt: skip
def test_setitem_tensor(name):
    """Places named twice are left out: which value stays is not defined."""

    def call(lib, x):
        y = x * 2
        key = KEYS[name](lib, x.detach())
        y[key] = (x * x)[key] + 1
        return y * y

    same(call, X)


@pytest.mark.parametrize("shape", ((), (5,), (4, 5), (1, 1, 5), (2, 1, 1), (1, 1, 2, 4, 5)))
def test_setitem_broadcasts(shape):
    def call(lib, x, v):
        y, z = x * 2, x * 3
        y[1:] = v
        z[[0, 2]] = v
        return y * z

    same(call, X, RNG.standard_normal(shape))


def test_setitem_converts_basic_and_refuses_advanced():
    x = tg.zeros(4)
    x[1:3] = tg.tensor([1, 2])
    x[0] = tg.tensor(7.0, dtype=tg.float64)
    assert x.tolist() == [7, 1, 2, 0]
    with pytest.raises(RuntimeError, match="dtype"):
        x[[0, 1]] = tg.tensor([1, 2])
    ints = tg.zeros(2, dtype=tg.int64)
    ints[0] = 2.9
    assert ints.tolist() == [2, 0]
    with pytest.raises(TypeError, match="can't assign a list"):
        x[0:2] = [1.0, 2.0]


def test_setitem_from_itself():
    x = tg.arange(6.0) if hasattr(tg, "arange") else tg.tensor([0.0, 1, 2, 3, 4, 5])
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3, 4]
    x[[0, 1, 2]] = x[[3, 4, 5]]
    x[tg.tensor([5, 4])] = x[:2]
    assert x.tolist() == [2, 3, 4, 2, 3, 2]


def test_leaf_that_requires_grad_is_not_written():
    x = tg.zeros(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        x[0] = 1
    with pytest.raises(RuntimeError, match="leaf"):
        x[[0]] = 1
    with tg.no_grad():
        x[0] = 1
        x[[1]] = 2
    assert x.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    "call",
    (
        lambda lib, x: x[3], lambda lib, x: x[0, -5], lambda lib, x: x[0, 0, 0, 0], lambda lib, x: x[::-1],
        lambda lib, x: x[[0, 3]], lambda lib, x: x[[-4]], lambda lib, x: x["a"],
        lambda lib, x: x[lib.tensor([True, False])], lambda lib, x: x[lib.tensor([0.5])],
        lambda lib, x: x[:, lib.ones((3, 5)).bool()], lambda lib, x: x[lib.tensor([0], dtype=lib.int8)],
        lambda lib, x: x.gather(0, lib.tensor([[[3]]])), lambda lib, x: x.gather(0, lib.tensor([[[-1]]])),
        lambda lib, x: x.gather(0, lib.tensor([0])), lambda lib, x: x.index_select(0, lib.tensor([3])),
        lambda lib, x: x.index_select(3, lib.tensor([0])),
        lambda lib, x: x.take(lib.tensor([60])), lambda lib, x: x.scatter(0, lib.tensor([[[3]]]), 1.0),
        lambda lib, x: x.scatter(0, lib.tensor([[[0]]]), x.float()), lambda lib, x: x.masked_select(x),
        lambda lib, x: x.index_add(0, lib.tensor([0]), x), lambda lib, x: lib.bincount(lib.tensor([-1])),
        lambda lib, x: x.index_put((lib.tensor([0, 9]),), lib.zeros(1).double()),
    ),
)  # fmt: skip
def test_refused(call):
    same_error(call, X)


WRITES = {
    "setitem": lambda x: x.__setitem__(tg.tensor([0, 9]), 1.0),
    "setitem-int": lambda x: x.__setitem__(4, 1.0),
    "index_put_": lambda x: x.index_put_((tg.tensor([0, -5]),), tg.tensor(1.0), accumulate=True),
    "scatter_": lambda x: x.scatter_(0, tg.tensor([0, 1, 4]), 1.0),
    "scatter_add_": lambda x: x.scatter_add_(0, tg.tensor([0, -1]), tg.ones(2)),
    "scatter_reduce_": lambda x: x.scatter_reduce_(0, tg.tensor([0, 7]), tg.ones(2), "amax"),
    "index_add_": lambda x: x.index_add_(0, tg.tensor([0, 4]), tg.ones(2)),
    "index_copy_": lambda x: x.index_copy_(0, tg.tensor([0, 4]), tg.ones(2)),
    "index_fill_": lambda x: x.index_fill_(0, tg.tensor([0, 4]), 1.0),
    "copy_": lambda x: x.copy_(tg.ones(3)),
    "masked_scatter_": lambda x: x.masked_scatter_(x == x, tg.ones(3)),
}


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
@pytest.mark.parametrize("name", WRITES)
def test_nothing_is_written_when_refused(name, backend):
    from tensorgrad.backends import registry

    if registry.class_of(backend).why_not() is not None:
        pytest.skip("not here")
    x = tg.tensor([5.0, 6.0, 7.0, 8.0])
    with tg.backend(backend), pytest.raises((IndexOutOfRange, RuntimeError)):
        WRITES[name](x)
    assert x.tolist() == [5, 6, 7, 8]
    assert x._version == 0


def test_out_of_range_says_what_was_seen():
    with pytest.raises(IndexOutOfRange, match=r"7.*dimension 1.*3"):
        tg.zeros(4, 3)[:, [0, 7]]
    with pytest.raises(IndexOutOfRange, match="index 5 is out of bounds for dimension 0 with size 4"):
        tg.zeros(4, 3)[5]


INDEX = np.array([[0, 1, 1], [2, 0, 1], [1, 1, 1]])
SRC = RNG.standard_normal((3, 3))


def test_gather_and_scatter():
    same(lambda lib, x, i: [x.gather(1, i), x.gather(0, i), lib.gather(x, 1, i[:2, :1]), x.gather(-1, i[:0])],
         M, INDEX)  # fmt: skip
    same(lambda lib, x, i, s: [x.scatter_add(0, i, s), x.scatter_add(1, i[:2], s[:2]), (x * 1).scatter_add_(0, i, s)],
         M, INDEX, SRC)  # fmt: skip
    distinct = np.array([[0, 1, 2], [3, 2, 1]])
    same(lambda lib, x, i, s: [x.scatter(0, i, s[:2]), x.scatter(0, i, 2.5),
                               lib.scatter(x, 0, i, value=1), (x * 1).scatter_(0, i, s[:2] * 2)],
         M, distinct, SRC)  # fmt: skip


@pytest.mark.parametrize("reduce", ("add", "multiply"))
def test_scatter_reducing(reduce):
    same(lambda lib, x, i, s: [x.scatter(0, i, s, reduce=reduce), x.scatter(0, i, 3.0, reduce=reduce)],
         M, INDEX, SRC, order=0)  # fmt: skip


@pytest.mark.parametrize("include_self", (True, False))
@pytest.mark.parametrize("reduce", ("sum", "prod", "mean", "amax", "amin"))
def test_scatter_reduce(reduce, include_self):
    order = 1 if reduce in ("prod", "amax", "amin") else 2  # PyTorch has no second derivative of these
    same(lambda lib, x, i, s: x.scatter_reduce(0, i, s, reduce, include_self=include_self), M, INDEX, SRC, order=order)
    ties = np.array([[1.0, 0.0, 0.0], [1.0, 2.0, 2.0], [2.0, 2.0, 0.0]])
    start = np.zeros((4, 3)) if include_self else np.full((4, 3), 9.0)
    same(lambda lib, x, i, s: x.scatter_reduce(0, i, s, reduce, include_self=include_self), start, INDEX, ties,
         order=1 if reduce != "prod" else 0)  # fmt: skip


@pytest.mark.parametrize("narrow", [(6, 1, 4), (6, 5, 1), (6, 1, 1), (4, 1, 4), (4, 5, 1)])
@pytest.mark.parametrize("include_self", (True, False))
def test_the_mean_counts_once_where_an_index_repeats(narrow, include_self):
    """An axis along which it repeats counts once, unless the tensor is longer there; the same as written out."""
    rng = np.random.default_rng(4)
    x, source = tg.tensor(rng.standard_normal((7, 5, 6))), tg.tensor(rng.standard_normal((6, 5, 4)))
    index = tg.tensor(rng.integers(0, 7, narrow)).expand(narrow[0], 5, 4)
    for at in (x, x[:, :, :4].contiguous()):
        for dtype in (tg.float64, tg.int64):
            start, added = (at * 9).to(dtype), (source * 9).to(dtype)
            got = start.scatter_reduce(0, index, added, "mean", include_self=include_self)
            expected = start.scatter_reduce(0, index.contiguous(), added, "mean", include_self=include_self)
            assert np.array_equal(got.numpy(), expected.numpy())


@pytest.mark.parametrize("shape, dim", [((9, 4), 0), ((7, 3), 0), ((2, 9, 33), 1), ((3, 5, 2), -1), ((40, 64), 0)])
def test_an_index_that_repeats_along_all_other_axes_names_rows(shape, dim):
    """Whole rows are picked and written then; the results are those of the same index written out."""
    rng = np.random.default_rng(3)
    index = np.expand_dims(rng.integers(0, shape[dim], 6), [k for k in range(len(shape)) if k != dim % len(shape)])
    x = rng.standard_normal(shape)
    source = rng.standard_normal([6 if k == dim % len(shape) else n for k, n in enumerate(shape)])

    def rows(lib, x, i, s):
        i = i.expand(s.shape)
        reduced = [x.scatter_reduce(dim, i, s, how) for how in ("prod", "amax", "amin")]
        reduced += [x.scatter_reduce(dim, i, s, "mean", include_self=own) for own in (True, False)]
        written = [x.scatter(dim, i, s), (x * 1).scatter_(dim, i, s)]
        return [x.gather(dim, i), x.scatter_add(dim, i, s), (x * 1).scatter_add_(dim, i, s), *reduced, *written]

    same(rows, x, index, source, order=1)
    source.reshape(-1)[::3] = np.nan
    wide, x, source = tg.tensor(index).expand(source.shape), tg.tensor(x), tg.tensor(source)
    for how in ("sum", "mean", "prod", "amax", "amin"):
        got, expected = x.scatter_reduce(dim, wide, source, how), x.scatter_reduce(dim, wide.contiguous(), source, how)
        assert np.array_equal(got.numpy(), expected.numpy(), equal_nan=True)
    before = x.clone()
    for bad in (-1, shape[dim]):
        changes = (
            lambda i: x.gather(dim, i),
            lambda i: x.scatter_add_(dim, i, source),
            lambda i: x.scatter_(dim, i, source),
        )
        for change in changes:
            with pytest.raises(IndexOutOfRange, match=str(bad)):
                change(tg.full((1,) * len(shape), bad).expand(source.shape))
    assert np.array_equal(x.numpy(), before.numpy())


@pytest.mark.parametrize("first, shapes", [
    (0, [(4, 1), (3,)]), (1, [(3,), (3,)]), (2, [(1, 5, 1), (2, 1, 3)]),
    (1, [(2, 1, 4), (3, 1), ()]), (0, [(0,), (1,)]),
])  # fmt: skip
def test_index_arrays_of_neighbouring_dimensions_name_slices(first, shapes):
    """They are counted as one dimension then; the numbers are those of NumPy, negative ones and repeated ones too."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 4, 5, 6))
    index = [rng.integers(-n, n, shape) for n, shape in zip(x.shape[first:], shapes, strict=False)]
    key = (slice(None),) * first
    picked, wide = x[(*key, *index)], tuple(tg.tensor(i) for i in index)
    assert np.array_equal(tg.tensor(x)[(*key, *wide)].numpy(), picked)
    added, start = x.copy(), tg.tensor(x).requires_grad_()
    np.add.at(added, (*key, *index), np.ones_like(picked))
    start[(*key, *wide)].sum().backward()
    assert np.array_equal(start.grad.numpy(), np.round(added - x))
    for bad in (-x.shape[first + 1] - 1, x.shape[first + 1]):
        with pytest.raises(IndexOutOfRange, match=f"{bad} is out of bounds for dimension {first + 1}"):
            tg.tensor(x)[(*key, wide[0] if wide[0].numel() else tg.tensor([0]), tg.tensor([bad]))]


def test_along_one_dimension():
    i = np.array([2, 0, 2])
    same(lambda lib, x, i: [x.index_select(0, i), x.index_select(1, i), lib.index_select(x, -1, i[:0])], M, i)
    same(lambda lib, x, i, s: [x.index_add(0, i, s), x.index_add(0, i, s, alpha=-2), (x * 1).index_add_(0, i, s)],
         M, i, SRC)  # fmt: skip
    distinct = np.array([2, 0, 3])
    same(lambda lib, x, i, s: [x.index_copy(0, i, s), (x * 1).index_copy_(0, i, s), x.index_fill(0, i, 2.0),
                               (x * 1).index_fill_(1, i[:2], -1), x.index_fill(0, i, s[0, 0])],
         M, distinct, SRC)  # fmt: skip


def test_index_put():
    i, j = np.array([0, 1, 1]), np.array([2, 2, 2])
    v = RNG.standard_normal(3)
    same(lambda lib, x, i, j, v: [x.index_put((i, j), v, accumulate=True), (x * 1).index_put_((i, j), v, True),
                                  x.index_put((i,), v, accumulate=True)], M, i, j, v)  # fmt: skip
    same(lambda lib, x, v: [x.index_put((x > 0,), v[0])], M, v)


def test_flat_positions_and_masks():
    same(lambda lib, x: [x.take(lib.tensor([[0, -1], [5, 5]])), lib.take_along_dim(x, x.detach().argsort(0), 0),
                         lib.take_along_dim(x, lib.tensor([[1]]), 1), lib.take_along_dim(x, lib.tensor([3, 3]))],
         M)  # fmt: skip
    same(lambda lib, x: [x.masked_select(x > 0), x.masked_select(x[0] > 0), x.masked_fill(x > 0, 2.0)], M)
    source = RNG.standard_normal(20)
    same(lambda lib, x, s: [x.masked_scatter(x > 0, s), (x * 1).masked_scatter_(x > 0, s), x.masked_scatter(x > 9, s),
                            x.masked_scatter(x[0] > 0, s), x[0, :1].masked_scatter(x[0, :1] < 9, s),
                            x[0, 0].masked_scatter(x[0, 0] < 9, s), x.masked_scatter(x > 0, s[:11]),
                            x[:0].masked_scatter(x[:0] > 0, s)], M, source)  # fmt: skip


def test_0_d_tensors():
    same(lambda lib, x: [x[...], x[None], x[True], x[x > 9], x.gather(0, lib.tensor(0)),
                         x.gather(0, lib.tensor([0, 0])),
                         x.index_select(0, lib.tensor([0])), x.masked_select(lib.tensor(True)), x.take(lib.tensor(0)),
                         x.scatter(0, lib.tensor(0), 4.0)], np.array(2.5))  # fmt: skip


def test_nonzero_and_where():
    same(lambda lib, x: [lib.nonzero(x > 0), (x > 0).nonzero(as_tuple=True), lib.where(x > 0),
                         lib.argwhere(x > 9),
                         lib.tensor(1.0).nonzero(), lib.tensor(0).nonzero(), x.count_nonzero(0)],
         M, order=0)  # fmt: skip


def test_one_hot_and_counts():
    def one_hot(lib, *args):
        return (lib.one_hot if lib is tg else lib.nn.functional.one_hot)(*args)

    same(lambda lib, i: [one_hot(lib, i), one_hot(lib, i, 7), one_hot(lib, i[:0], 2)], INDEX, order=0)
    same(lambda lib, i: [i.bincount(), lib.bincount(i, minlength=9), lib.bincount(i, lib.ones(9).float() * 0.5),
                         lib.bincount(i[:0])], INDEX.reshape(-1), order=0)  # fmt: skip
    same_error(lambda lib, i: one_hot(lib, i, 2), INDEX)


def test_accumulation_is_in_order():
    values = RNG.standard_normal(1000).astype(np.float32)
    places = RNG.integers(0, 3, 1000)
    expected = np.zeros(3, np.float32)
    for place, value in zip(places, values, strict=True):
        expected[place] += value
    with tg.backend("numpy"):
        got = tg.zeros(3).index_put_((tg.from_numpy(places),), tg.from_numpy(values), accumulate=True)
    assert got.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("compiled", (False, True))
@pytest.mark.parametrize("accumulate", (False, True))
@pytest.mark.parametrize("whole", (0, 1, 2))
@pytest.mark.parametrize("backend", ("cpp", "numpy"))
def test_one_position_makes_no_dimension(backend, whole, accumulate, compiled):
    def written(x, value, *at):
        y = x.index_put((*[None] * whole, *at), value, accumulate)
        (y * y).sum().backward()
        return y

    for position in ((2,), (-1, 1))[: 1 if whole == 2 else 2]:
        key = (*[slice(None)] * whole, *position)
        value = RNG.standard_normal(X[key].shape)
        x, v = tg.tensor(X, requires_grad=True), tg.tensor(value, requires_grad=True)
        step = tg.compile(written) if compiled else written
        with tg.backend(backend):
            for _ in range(3):
                x.grad = v.grad = None
                got = step(x, v, *[_long(tg, i) for i in position])
        expected = X.copy()
        expected[key] = expected[key] + value if accumulate else value
        np.testing.assert_allclose(got.detach().numpy(), expected)
        np.testing.assert_allclose(v.grad.numpy(), 2 * expected[key])


@pytest.mark.parametrize(
    "key", ((INDEX[0], None), (INDEX[0], None, slice(None), None), (None, INDEX[0], None)), ids=str
)
def test_values_with_a_new_dimension_are_written(key):
    value = RNG.standard_normal(X[key].shape)

    def written(lib, x, v):
        y = x * 1
        y[tuple([_long(lib, part.tolist()) if isinstance(part, np.ndarray) else part for part in key])] = v
        return y

    same(written, X[..., None] * np.ones(2), value[..., None] * np.ones(2))


@pytest.mark.parametrize("width", (1, 2, 3, 4, 8))
def test_narrow_rows_are_added_in_order(width):
    places, rows = RNG.integers(0, 7, 3000), RNG.standard_normal((3000, width)).astype(np.float32)
    expected = np.zeros((7, width), np.float32)
    for place, row in zip(places, rows, strict=True):
        expected[place] += row
    got = tg.zeros(7, width).index_put_((tg.from_numpy(places),), tg.from_numpy(rows), accumulate=True)
    assert got.numpy().tobytes() == expected.tobytes()


def test_sorted_accumulation_agrees():
    """What backends without ordered ``add.at`` run."""
    from tensorgrad.backends.numpy.backend import NumpyBackend

    class Sorting(NumpyBackend):
        name = "sorting"
        at_in_order = False

    plain, sorting = NumpyBackend(), Sorting()
    x, src = RNG.standard_normal((4, 3)), RNG.standard_normal((5, 3))
    index = np.array([1, 1, 3, 1, 0])
    deep = np.stack([index % 4] * 3, axis=1)
    for kernel, args, attrs in (
        ("index_add_into", (index, src), {"dim": 0}),
        ("scatter_add_into", (deep, src), {"dim": 0}),
        ("scatter_reduce_into", (deep, src), {"dim": 0, "reduce": "prod"}),
        ("scatter_reduce_into", (deep, src), {"dim": 0, "reduce": "amin"}),
        ("index_put_into", (src[:, 0], index, index % 3 - 3), {"spec": (0, 1), "accumulate": True}),
        ("index_put_into", (src[:, :1], index), {"spec": (0,), "accumulate": True}),
    ):
        results = [getattr(backend, kernel)(x.copy(), *args, **attrs) for backend in (plain, sorting)]
        np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


def test_whole_tensors_are_written():
    same(lambda lib, x: [(x * 1).copy_(x[0]), (x * 1).fill_(3), (x * 1).zero_(), (x * 1).fill_(x[0, 0])], M)
    x = tg.zeros(2, dtype=tg.int32)
    assert x.copy_(tg.tensor([1.9, -1.9])).tolist() == [1, -1]
    for value in (tg.ones(1, 2), tg.ones(1, 1), tg.ones(1, 2, dtype=x.dtype), tg.ones(1, 2, dtype=x.dtype).t().t()):
        with pytest.raises(ShapeError, match="does not fit"):
            x.copy_(value)
    assert 1 in x and 5 not in x
    assert [row.tolist() for row in tg.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]


@pytest.mark.parametrize("shape", ((), (2, 2)), ids=str)
@pytest.mark.parametrize("empty", ((0,), (0, 3, 1)), ids=str)
def test_scatter_by_no_index_of_whatever_dimensions(shape, empty):
    arrays = np.ones(shape), np.zeros(empty), np.zeros(empty, np.int64)
    same(lambda lib, x, s, i: [x.scatter_add(0, i, s), x.scatter(0, i, s), x.scatter(0, i, 1.0)], *arrays, order=1)
    same(lambda lib, x, s, i: [x.scatter_reduce(0, i, s, "amax")], *arrays, order=1)
    x = tg.ones(shape)
    assert x.scatter_add_(0, tg.zeros(empty, dtype=tg.int64), tg.zeros(empty)) is x
    assert x.shape == shape
