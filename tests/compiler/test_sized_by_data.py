"""Results whose shape depends on elements: of masks there is a program for each number, others are refused."""

from __future__ import annotations

import copy

import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.errors import CompileError
from tests.compiler.beside import BACKENDS

X = tg.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, -1.0]])
N = tg.tensor([1, 0, 2, 1])

COUNTED = {
    "nonzero": lambda x, n: tg.nonzero(x),
    "nonzero-tuple": lambda x, n: tg.nonzero(x, as_tuple=True)[0],
    "nonzero-0d": lambda x, n: tg.nonzero(x.sum()),
    "argwhere": lambda x, n: tg.argwhere(x),
    "where": lambda x, n: tg.where(x > 0)[1],
    "masked_select": lambda x, n: tg.masked_select(x, x > 0),
    "mask": lambda x, n: x[x > 0],
    "mask-of-rows": lambda x, n: x[x.sum(1) > 0].mean(0),
    "mask-of-columns": lambda x, n: x[:, x[0] > 0],
    "two-masks": lambda x, n: x[x > 0].sum() / n[n != 1].sum(),
    "masked_scatter-of-few": lambda x, n: tg.masked_scatter(x, x > 0.7, x.view(-1)[:6]),
    "unique_consecutive": lambda x, n: tg.unique_consecutive(n),
    "put": lambda x, n: put(x.clone(), x > 0),
    "loss": lambda x, n: tg.nn.functional.cross_entropy(x.T[x[0] > -1], (n[:3] % 2)[x[0] > -1]),
}


def put(y, mask):
    y[mask] = y[mask].flip(0)
    return y


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_there_is_a_program_for_each_number_that_a_mask_picks(name, backend):
    function = COUNTED[name]
    with tg.backend(backend):
        compiled = Compiled(function)
        for x, n in ((X, N), (X.flip(0), N), (X * 0 + 1, N), (X.flip(1), N), (X * 0 + 1, N * 0 + 1), (X, N)):
            x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
            expected, got = function(x, n), compiled(y, n)
            assert got.dtype == expected.dtype and repr(got.tolist()) == repr(expected.tolist())
            if expected.requires_grad:
                for z in (expected, got):
                    z.square().sum().backward()
                assert repr(y.grad.tolist()) == repr(x.grad.tolist())
    assert compiled.replays >= 2 and compiled.eager == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_over_masked_positions(backend):
    """The mask is computed of the targets, behind a dropout and statistics that are no part of it."""
    with tg.backend(backend):
        net = tg.nn.Sequential(tg.nn.Linear(3, 5), tg.nn.BatchNorm1d(5), tg.nn.Dropout(0.3), tg.nn.Linear(5, 4))
        nets = net, copy.deepcopy(net)
        optimizers = [tg.optim.AdamW(net.parameters(), 0.05) for net in nets]

        def step(net, optimizer, x, y):
            optimizer.zero_grad()
            known = y >= 0
            loss = tg.nn.functional.cross_entropy(net(x)[known], y[known])
            loss.backward()
            optimizer.step()
            return loss.detach()

        compiled = Compiled(lambda x, y: step(nets[1], optimizers[1], x, y))
        for i in range(12):
            x, y = tg.randn(8, 3), tg.arange(8) % 4
            y[i % 3 :: 2] = -100
            results = []
            for function in (lambda x, y: step(nets[0], optimizers[0], x, y), compiled):
                tg.manual_seed(i)
                results.append(function(x, y))
            tg.testing.assert_close(results[1], results[0])
    for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        tg.testing.assert_close(b, a)
    assert compiled.replays >= 8 and compiled.eager == 0


def test_what_changes_something_before_its_number_is_known_runs_as_it_is():
    def step(x):
        x += 1
        return x[x > 2]

    compiled = Compiled(step)
    with pytest.warns(UserWarning, match=r"changes something, .*test_sized_by_data\.py"):
        for i in range(6):
            x = tg.arange(4.0) - i
            assert compiled(x.clone()).tolist() == step(x.clone()).tolist()
    assert compiled.replays == 0


def test_nobody_pays_for_numbers_that_are_not_asked_for():
    def step(x):
        picked = x[x > 0]
        picked *= 2
        x[x > 0] = picked
        return x[x < 0].sum()

    compiled = Compiled(step)
    rows = [tg.tensor(row) for row in ([1.0, 2.0, -1.0], [1.0, 0.0, -2.0], [0.0, 0.0, -3.0])]
    assert [compiled(x.clone()).item() for x in rows] == [step(x.clone()).item() for x in rows]


def test_positions_are_as_many_as_were_counted():
    from tensorgrad.ops.search import positions_op

    for backend in BACKENDS:
        with tg.backend(backend):
            assert positions_op(X, count=5).tolist() == X.nonzero().tolist()
            with pytest.raises(ValueError, match="4 elements are expected not to be zero, 5 are not"):
                positions_op(X, count=4)


def test_programs_for_several_numbers_ask_once():
    """What the mask is computed of may take long; another state is another question."""
    w = [tg.randn(3, 3)]

    def step(x):
        h = x @ w[0]
        return h[h > 0].prod() + x[x > 0.5].prod()

    compiled = Compiled(step)
    rows = [tg.randn(4, 3) for _ in range(5)]
    for _ in range(2):
        for x in rows:
            tg.testing.assert_close(compiled(x), step(x))
    assert len(compiled.entries) > 1 and len({entry.conditions.run for entry in compiled.entries}) == 1
    w[0] = tg.randn(3, 3)
    for x in rows:
        tg.testing.assert_close(compiled(x), step(x))
    assert len({entry.conditions.run for entry in compiled.entries}) == 2


REFUSED = {
    "unique": lambda x, n: tg.unique(n),
    "bincount": lambda x, n: tg.bincount(n, minlength=9),
}


@pytest.mark.parametrize("name", REFUSED)
def test_shapes_that_depend_on_elements_otherwise_are_refused(name):
    with pytest.raises(CompileError, match=r"test_sized_by_data\.py"):
        Compiled(REFUSED[name])(X, N)


@pytest.mark.parametrize("name", ["nonzero", "mask", "loss"])
def test_with_symbolic_sizes_there_are_no_numbers_besides(name):
    with pytest.raises(CompileError, match=r"test_sized_by_data\.py.* dynamic=True"):
        Compiled(COUNTED[name], dynamic=True)(X, N)


FIXED = {
    "one_hot": lambda x, n: tg.nn.functional.one_hot(n, 5),
    "one_hot-counted": lambda x, n: tg.nn.functional.one_hot(n),  # what this package reads is asked again
    "repeat_interleave-counted": lambda x, n: tg.repeat_interleave(n, n, dim=0),
    "isin": lambda x, n: tg.isin(n, n[:2]),
    "histc": lambda x, n: tg.histc(x, 3),
    "where": lambda x, n: tg.where(x > 0, x, 0.0),
    "masked_fill": lambda x, n: x.masked_fill(x > 0, 2.0),
    "masked_scatter": lambda x, n: tg.masked_scatter(x, x > 0, x * 3),
    "masked_scatter-of-columns": lambda x, n: x.masked_scatter(x[0] > 0, tg.arange(8.0)),
    "repeat_interleave": lambda x, n: tg.repeat_interleave(x, 2, dim=0),
    "set-where": lambda x, n: filled(x, x > 0, 7.0),
    "set-rows": lambda x, n: filled(x, x.sum(1) > 0, x[0, 1]),
}


def filled(x, mask, value):
    y = x.clone()
    y[mask] = value
    return y


@pytest.mark.parametrize("name", FIXED)
def test_those_that_do_not_are_captured(name):
    compiled = Compiled(FIXED[name])
    for x, n in ((X, N), (-X.flip(0), N.flip(0)), (X * 0, N)):
        assert compiled(x, n).tolist() == FIXED[name](x, n).tolist()
    assert compiled.captures == 1


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("options", [{"mode": "sum"}, {}, {"mode": "max"}, {"padding_idx": 2}])
def test_bags_of_every_length_are_one_program(last, options):
    index = tg.tensor([1, 3, 2, 0, 2, 2])
    table = tg.randn(4, 3, requires_grad=True)

    def step(offsets):
        table.grad = None
        y = tg.nn.functional.embedding_bag(index, table, offsets, include_last_offset=last, **options)
        y.square().sum().backward()
        return y.detach()

    compiled = Compiled(step)
    for rows in ([0, 2, 5], [0, 0, 6], [0, 1, 4], [0, 3, 3]):
        offsets = tg.tensor(rows)
        expected = step(offsets)
        grad = table.grad.clone()
        assert compiled(offsets).tolist() == expected.tolist()
        assert table.grad.tolist() == grad.tolist()
    assert compiled.captures == 1


def test_a_mask_that_is_read_after_a_dropout_is_asked_again():
    """The encoder looks whether its mask is the causal one; what was drawn and counted before is no part of that."""
    layer = tg.nn.TransformerEncoderLayer(4, 2, 8, 0.5)
    model = tg.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    norm = tg.nn.BatchNorm1d(2)
    x = tg.randn(3, 2, 4)
    compiled = Compiled(lambda x, mask: model(tg.dropout(norm(x), 0.5, True), mask))
    masks = tg.triu(tg.full((3, 3), float("-inf")), 1), tg.zeros(3, 3)
    for mask in (*masks, *masks):
        before = norm.running_mean.clone()
        tg.manual_seed(1)
        expected, after = compiled.function(x, mask), norm.running_mean.clone()
        with tg.no_grad():
            norm.running_mean.copy_(before)
        tg.manual_seed(1)
        tg.testing.assert_close(compiled(x, mask), expected)
        assert norm.running_mean.tolist() == after.tolist()
    assert (compiled.captures, compiled.eager) == (2, 0)


def test_lengths_of_packed_sequences_are_asked_again():
    """Of many sequences, and in a training step whose backward pass is in the program."""
    rnn = tg.nn.LSTM(3, 5, batch_first=True)
    lengths = tg.arange(20, 0, -1)

    def step(x, lengths):
        rnn.zero_grad()
        packed = tg.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        loss = rnn(packed)[1][0].square().sum()
        loss.backward()
        return loss.detach()

    compiled = Compiled(step)
    for i in range(6):
        x, of = tg.randn(20, 20, 3), lengths if i < 4 else (lengths + 1) // 2
        expected = step(x, of)
        grads = [p.grad.clone() for p in rnn.parameters()]
        tg.testing.assert_close(compiled(x, of), expected)
        for p, g in zip(rnn.parameters(), grads, strict=True):
            tg.testing.assert_close(p.grad, g)
    assert compiled.captures <= 4


def test_what_is_too_long_to_be_asked_again_is_refused():
    pack = tg.nn.utils.rnn.pack_padded_sequence
    with pytest.raises(CompileError, match=r"reads a tensor that .* computes at .*test_sized_by_data\.py"):
        Compiled(lambda x, n: pack(x, n).data)(tg.zeros(1, 600, 1), tg.ones(600, dtype=tg.int64))


# --- of what was there before the run, and is the same in each call


MASK = tg.tensor([True, False, True, True])
TABLE = tg.tensor([[True, False], [True, True], [False, False], [False, True]])

SETTLED = {
    "mask": lambda x, n: x[MASK],
    "view": lambda x, n: x[TABLE[:, 0]] * x[TABLE[:, 1]].sum(),
    "list": lambda x, n: x[[True, False, False, True]],
    "two": lambda x, n: x.unsqueeze(1).expand(4, 2)[TABLE],
    "nonzero": lambda x, n: x[MASK.nonzero()[:, 0]],
    "masked_select": lambda x, n: x.masked_select(MASK),
    "unique": lambda x, n: x[: 4 - TABLE.unique(dim=0).shape[0] + 1],
    "subtracted": lambda x, n: less(x.clone()),
    "assigned": lambda x, n: assigned(x.clone()),
}


def less(y):
    y[MASK] -= 1.0
    return y


def assigned(y):
    y[MASK] = y[MASK] * 2.0
    return y


@pytest.mark.parametrize("name", SETTLED)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("record", [False, True])
def test_masks_of_the_state_are_asked_again(name, backend, record):
    masks = MASK.clone(), TABLE.clone()
    with tg.backend(backend):
        compiled = Compiled(SETTLED[name])
        try:
            for i in range(6):
                if i == 4:  # what is left of it is less
                    MASK[2:] = False
                    TABLE[:, 0] = False
                x = tg.arange(i, i + 4.0).requires_grad_(record)
                y, z = compiled(x, N), SETTLED[name](x, N)
                assert y.tolist() == z.tolist()
                if record:
                    assert tg.autograd.grad(y.square().sum(), x)[0].equal(tg.autograd.grad(z.square().sum(), x)[0])
        finally:
            MASK.copy_(masks[0])
            TABLE.copy_(masks[1])
    assert compiled.replays >= 4 and compiled.captures <= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_classifies_some_nodes_of_a_graph(backend):
    class Graph:
        x, y = tg.randn(4, 3), tg.tensor([0, 1, 1, 0])

    with tg.backend(backend):
        graph, model = Graph(), tg.nn.Linear(3, 2)
        graph.mask = tg.tensor([True, True, False, True])
        optimizer = tg.optim.SGD(model.parameters(), lr=0.0)

        def step(graph):
            optimizer.zero_grad()
            loss = tg.nn.functional.cross_entropy(model(graph.x)[graph.mask], graph.y[graph.mask])
            loss.backward()
            optimizer.step()
            return loss.detach()

        compiled = Compiled(step)
        for i in range(8):
            if i == 4:
                graph.mask[0] = False
            if i == 6:
                graph.mask = tg.tensor([False, True, False, False])
            expected = step(graph), model.weight.grad.clone()
            tg.testing.assert_close((compiled(graph), model.weight.grad), expected)
    assert compiled.captures == 3 and compiled.replays == 5


def test_masks_that_are_others_in_each_call():
    mask = MASK.clone()

    def turned(x):
        mask.logical_not_()
        return x[mask]

    for function in (turned, lambda x: x[~mask], lambda x: x[x > 0], lambda x: x[FLOATS.nonzero()[:, 0]]):
        compiled = Compiled(function)
        for _ in range(2):
            mask.copy_(MASK)
            expected = function(tg.ones(4))
            mask.copy_(MASK)
            assert compiled(tg.ones(4)).tolist() == expected.tolist()
    moved = Compiled(lambda x: (x[mask], mask.logical_not_())[0])
    for _ in range(4):  # changed behind the use: each call finds another one
        expected = tg.arange(4.0)[mask]
        assert moved(tg.arange(4.0)).equal(expected)


FLOATS = tg.tensor([1.0, 0.0, 2.0, 0.0])
