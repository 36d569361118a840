"""What a computed mask picks can be changed and put back in a program for any number; else it has one for each."""

from __future__ import annotations

import copy

import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.errors import AutogradError, CompileError, DTypeError
from tensorgrad.utils._pytree import tree_flatten
from tests.compiler.beside import BACKENDS

F = tg.nn.functional


def taken(x, y, mask):
    x[mask] = y[mask]


def changed_and_kept(x, y, mask):
    t = x[mask]
    t -= 1
    x[mask] = t
    t *= 2  # of x no more
    return x + 1


def negated(x, y, mask):
    x[mask] = 1 - -x[mask] * y[mask]


def of_rows(x, y, mask):
    x[mask[:, 0]] += y[0]  # as many dims as a row has


def of_rows_and_a_number(x, y, mask):
    rows = mask.any(1)
    x[rows] *= y[rows] + y.sum()


def twice(x, y, mask):
    x[mask] += 1
    x[~mask] -= 1


def both_ways(x, y, mask):
    old = x.clone()
    x[mask] = y[mask]
    y[mask] = old[mask]
    return old


def of_a_view(x, y, mask):
    x[1][mask[1]] -= 2
    of = mask[:, 0]
    x[:, 1][of] = y[:, 0][of]


def over_itself(x, y, mask):
    rows = mask[1:, 0]
    x[1:][rows] = x[:-1][rows]


def by_equal_masks(x, y, mask):
    x[mask & (x > 0)] = -x[mask & (x > 0)]
    x[(y[:, 0] > 0)] += y[y[:, 0] > 0]


def unused(x, y, mask):
    x[mask]
    return x + 1


FORMS = {f.__name__: f for f in (
    taken, changed_and_kept, negated, of_rows, of_rows_and_a_number, twice, both_ways, of_a_view, over_itself,
    by_equal_masks, unused,
)}  # fmt: skip


def operator(text):
    names = {}
    exec(f"def {'changed'}(x, y, mask):\n    x[mask] {text}", names)
    return names["changed"]


FORMS |= {text: operator(text) for text in (
    "-= 1", "+= 0.5", "*= y[mask]", "/= 3", "//= 2", "%= 3", "**= 2", "/= y.max()", "= abs(x[mask]) % y[mask]",
    "+= y.sum().double()", "*= True",
)}  # fmt: skip
INTEGERS = {text: operator(text) for text in (
    "-= 1", "//= y[mask]", "%= y[mask]", "= 7 // y[mask]", "&= y[mask]", "|= 5", "^= y.max()", "<<= 1", ">>= 1",
    "= ~x[mask]", "= -x[mask] + y.max()", "*= y.sum().int()",
)}  # fmt: skip
MASKS = ("some", "none", "all", "one", "other")


def arguments(form, dtype):
    tg.manual_seed(3)
    x, y = (tg.randint(-9, 9, (5, 3)).to(dtype) for _ in range(2))
    mask = {
        "some": tg.rand(5, 3) > 0.5, "none": tg.zeros(5, 3) > 0, "all": tg.ones(5, 3) > 0,
        "one": tg.arange(15).reshape(5, 3) == 7, "other": y != 0,
    }[form]  # fmt: skip
    if not dtype.is_floating_point:
        y = tg.where(mask, y + (y == 0).to(dtype), 0)  # nobody divides by the zeros
    return x, y, mask


def check(function, dtype, first="some"):
    """Eager and compiled leave the same bits, also in what they write to, in one program."""
    compiled = Compiled(lambda x, y, mask: function(x, y, mask & True))
    for form in (first, *MASKS):
        mine, theirs = arguments(form, dtype), arguments(form, dtype)
        expected, got = function(*theirs), compiled(*mine)
        for a, b in zip((*mine, got), (*theirs, expected), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    assert compiled.captures == 1
    return compiled


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_floats(name, backend):
    with tg.backend(backend):
        check(FORMS[name], tg.float32)
        check(FORMS[name], tg.float16, first="none")


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name):
    check(INTEGERS[name], tg.int64)
    check(INTEGERS[name], tg.uint8, first="none")
    check(INTEGERS[name], tg.int32, first="one")


def rooted(w, x, mask):
    """Whose derivative is infinite where the mask leaves zeros out."""
    y = x * w
    y[mask] **= 0.5
    y[mask] /= w.sum()
    z = w * 2
    z[mask] = y[mask] / x[mask] - w[mask]
    return (y * z).sum()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend, order):
    def step(w, x):
        w = w.detach().requires_grad_()
        (grad,) = tg.autograd.grad(rooted(w, x, x > 0), w, create_graph=order == 2)
        return tg.autograd.grad(grad.square().sum(), w)[0] if order == 2 else grad

    with tg.backend(backend):
        compiled = Compiled(step)
        w = tg.rand(4, 3, dtype=tg.float64) + 1
        for i, x in enumerate((tg.randn(4, 3), tg.zeros(4, 3), tg.rand(4, 3), tg.randn(4, 3).relu())):
            x = x.double()
            expected, got = step(w, x), compiled(w, x)
            assert tg.isfinite(expected).all() and tg.allclose(got, expected, rtol=1e-12), i
        assert compiled.captures == 1 or backend == "numpy"  # whose programs add gradients as an ordinary run does


def test_a_parameter_under_a_mask():
    layer = tg.nn.Linear(3, 3)
    optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)

    def step(layer, optimizer, x):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        with tg.no_grad():
            small = layer.weight.grad.abs() < 0.5
            layer.weight.grad[small] *= 0.25
            layer.weight[small] -= 0.01
        optimizer.step()

    other = copy.deepcopy(layer)
    theirs = tg.optim.SGD(other.parameters(), lr=0.1)
    compiled = Compiled(lambda x: step(layer, optimizer, x))
    for _ in range(4):
        x = tg.randn(2, 3)
        compiled(x)
        step(other, theirs, x)
        assert layer.weight.detach().numpy().tobytes() == other.weight.detach().numpy().tobytes()


def stale(x, mask):
    t = x[mask]
    x += 1
    x[mask] = t


def stale_mask(x, mask):
    t = x[mask]
    mask &= False
    x[mask] = t


def elsewhere(x, mask):
    x[~mask] = x[mask]


def of_another_size(x, mask):
    x[mask] += x[0]


def by_a_mask_of_what_changed(x, mask):
    y = x * 2
    t = y[x > 5]
    x += 1
    y[x > 5] = t


def by_another_draw(x, mask):
    x[tg.rand(4) > 0.5] = x[tg.rand(4) > 0.5]


def in_a_hook(x, mask):
    y = x.clone().requires_grad_()
    z = y * 2
    z[mask] -= 1
    z.register_hook(lambda g: g[mask].mul(2))
    return z.sum().backward()


ASKED = {
    "shape": lambda x, m: x[m].shape[0],
    "len": lambda x, m: len(x[m]),
    "numel": lambda x, m: tg.numel(x[m]),
    "is_empty": lambda x, m: bool(x[m].numel()),
    "for": lambda x, m: [t + 1 for t in x[m]],
    "sum": lambda x, m: tg.sum(x[m]),
    "method": lambda x, m: x[m].mean(),
    "operand": lambda x, m: x[:, 0] + x[m],
    "reflected": lambda x, m: x[:, 0] * (2 * x[m]),
    "compared": lambda x, m: x[m] > 0,
    "returned": lambda x, m: x[m] - 1,
    "in-a-list": lambda x, m: {"a": [x[m]]},
    "zeros_like": lambda x, m: tg.zeros_like(x[m]),
    "expand_as": lambda x, m: x[0, 0].expand_as(x[m]),
    "view_as": lambda x, m: x.view_as(x[m]),
    "new_zeros": lambda x, m: x[m].new_zeros(3),
    "cat": lambda x, m: tg.cat([x[:, 0], x[m]]),
    "out": lambda x, m: tg.add(x[:, 0], 1, out=x[m]),
    "index": lambda x, m: x[x[m].long()],
    "key": lambda x, m: x[x[m]],
    "where": lambda x, m: tg.where(m, x, x[m]),
    "copy_": lambda x, m: x[:, 0].copy_(x[m]),
    "fill": lambda x, m: x.masked_fill(m, x[m]),
    "linear": lambda x, m: F.linear(x, x[m]),
    "stack": lambda x, m: tg.stack([x[m], x[m]]),
    "clamped": lambda x, m: x[m].clamp_(0),
    "grad": lambda x, m: x[m].requires_grad_(),
    "attribute": lambda x, m: x[m].T,
    "put": lambda x, m: x.__setitem__((slice(None), 0), x[m]),
    "accumulated": lambda x, m: x.index_put_((m,), x[m], accumulate=True),
    "stale": stale, "elsewhere": elsewhere, "another-size": of_another_size,
    "hook": in_a_hook, "changed": by_a_mask_of_what_changed, "draw": by_another_draw,
    "written": lambda x, m: x.__setitem__((x > 5).logical_and_(m), x[x > 5]),
}  # fmt: skip


def outcome(function, x, mask):
    """What a call gives and does to its arguments, or its error."""
    tg.manual_seed(7)
    try:
        found = function(x, mask)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other run has to raise it too
        return type(error), str(error).split(" at ")[0]
    return [repr(t.tolist()) if isinstance(t, tg.Tensor) else t for t in (*tree_flatten(found)[0], x)]


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_other_use_asks_how_many_there_are(name, backend):
    """However many there are in the call that is written down: as many as rows, say. The next calls have others."""
    raised = 0
    with tg.backend(backend):
        compiled = Compiled(lambda x, m: ASKED[name](x, m))
        for count in (4, 4, 1, 0, 6, 4, 1, 0):
            x, mask = tg.arange(12.0).reshape(4, 3), tg.arange(12).reshape(4, 3) < count
            expected = outcome(ASKED[name], x.clone(), mask.clone())
            assert outcome(compiled, x, mask) == expected, count
            raised += type(expected) is tuple
    assert raised or (compiled.captures, compiled.eager) <= (5, 0)


REDUCED = {
    "sum": lambda x, w, m: (x * w)[m].sum(),
    "mean": lambda x, w, m: tg.mean((x / w)[m]),
    "tg.sum": lambda x, w, m: tg.sum(x[m] * 2 - w[m] ** 2),
    "square": lambda x, w, m: ((x[m] - w[m]) ** 2).mean(),
    "root": lambda x, w, m: ((w * x)[x > 0] ** 0.5).sum() / m.sum(),
    "rows": lambda x, w, m: (x * w)[m.any(1)].mean(),
    "integers": lambda x, w, m: (x * 4).to(tg.int64)[m].sum() + m[m].sum() + w.sum(),
    "hard": lambda x, w, m: (losses := (x * w - 1) ** 2)[losses > 0.5].mean(),
    "no-grad": lambda x, w, m: x[m].sum() * w.sum(),
    "dims": lambda x, w, m: (x * w)[m].sum(0) + (x * w)[m].mean(dim=0, keepdim=True) + (x * w)[m].sum(dtype=tg.float64),
}


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_and_means(name, backend):
    """Where programs sum in orders of their own anyway, one serves any number of elements; numpy's keep the bits."""
    function = REDUCED[name]

    def step(x, w, mask):
        w = w.detach().requires_grad_()
        y = function(x, w, mask)
        return y.detach(), *tg.autograd.grad(y, w)

    with tg.backend(backend):
        compiled = Compiled(step)
        for count in (5, 0, 12, 5, 1, 5):
            x, w = tg.randn(4, 3), tg.rand(4, 3) + 0.5
            mask = tg.randperm(12).reshape(4, 3) < count
            found, expected = compiled(x, w, mask), step(x, w, mask)
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == other.dtype
                if backend == "numpy":
                    assert repr(one.tolist()) == repr(other.tolist())
                else:
                    tg.testing.assert_close(one, other, equal_nan=True)
    if backend == "cpp" and name != "dims":
        assert compiled.captures == 1


@pytest.mark.parametrize("read", [lambda x, m: f"{x[m]}", lambda x, m: x[m].numpy()])
def test_what_reads_the_elements_is_refused(read):
    with pytest.raises(CompileError, match=r"reads a tensor .*test_selected\.py"):
        Compiled(read)(tg.ones(4, 3), tg.ones(4, 3) > 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_what_is_put_back_and_used_besides(backend):
    def step(w, x, mask):
        w = w.detach().requires_grad_()
        y = w * x
        t = y[mask]
        t *= 1.7
        y[mask] = t
        return tg.autograd.grad((y * w).sum() + (t * t).flip(0).cumsum(0).sum() + w.sin().sum(), w)[0]

    with tg.backend(backend):
        compiled = Compiled(step)
        for _ in range(6):
            w, x, mask = tg.randn(4, 3), tg.randn(4, 3), tg.randperm(12).reshape(4, 3) < 5
            expected, found = step(w, x, mask), compiled(w, x, mask)
            if backend == "numpy":
                assert found.tolist() == expected.tolist()
            else:
                tg.testing.assert_close(found, expected)
    assert compiled.replays >= 5


def test_where_the_mask_has_changed_the_function_runs_as_it_is():
    compiled = Compiled(stale_mask)
    with pytest.warns(UserWarning, match=r"reads what it computes at .*test_selected\.py.*a mask: how many"):
        for count in (0, 0, 0, 0, 0):  # there is nothing to be put anywhere
            x, mask = tg.arange(12.0).reshape(4, 3), tg.arange(12).reshape(4, 3) < count
            assert outcome(compiled, x.clone(), mask.clone()) == outcome(stale_mask, x, mask)
    assert compiled.replays == 0


def test_errors_are_those_of_an_ordinary_run():
    x = tg.arange(4)

    def divided(x):
        x[x > 1] /= 2

    def added(x):
        x[x > 1] += 0.5

    def of_another_dtype(x):
        mask = x > 1
        x[mask] = x.float()[mask]

    def a_leaf(x):
        w = x.float().requires_grad_()
        w[x > 1] *= 2

    for function in (divided, added, of_another_dtype, a_leaf):
        with pytest.raises((DTypeError, AutogradError)) as ordinary:
            function(x.clone())
        with pytest.raises(type(ordinary.value)) as compiled:
            Compiled(function)(x.clone())
        assert str(compiled.value).split(":")[1] == str(ordinary.value).split(":")[1]


def test_where_the_function_may_be_cut_it_is_an_ordinary_tensor():
    def step(x, low):
        y = x * 2
        y[y > low] -= 1  # in a program
        z = y[y > low]
        z -= 1
        z = z * 2
        return y.sum() + z.mean() + z.shape[0], z

    compiled = tg.compile(step, fallback=True)
    for i, x in enumerate((tg.arange(6.0), tg.arange(6.0), -tg.arange(6.0), tg.arange(6.0) + 1)):
        expected, got = step(x, 1.0 - 9 * (i == 2)), compiled(x, 1.0 - 9 * (i == 2))
        assert got[0].tolist() == expected[0].tolist() and got[1].tolist() == expected[1].tolist()
        assert type(got[1]) is tg.Tensor

    def cut_at_the_pick(x):
        t = x[x > 1]
        y = x * 2
        return t.sum() + y

    compiled = tg.compile(cut_at_the_pick, fallback=True)
    for x in (tg.arange(6.0), tg.arange(6.0), -tg.arange(6.0), tg.arange(6.0) + 1):
        assert compiled(x).tolist() == cut_at_the_pick(x).tolist()


def test_what_is_returned_or_left_is_the_tensor_of_each_call():
    """Nobody has asked for its elements when the function ends."""
    left = [None]

    def returned(x):
        return x * 2, x[x > 1]

    def of_an_inner_function(x):
        def inner():
            return x[x > 1] * 2

        return {"picked": inner(), "sum": x.sum()}

    def leaves(x):
        left[0] = x[x > 1]
        return x + 1

    rows = (tg.arange(6.0), tg.arange(6.0) - 2, -tg.arange(6.0), tg.arange(6.0) + 1)
    for function in (returned, of_an_inner_function):
        for grad in (False, True):
            compiled = tg.compile(function, fallback=True)
            for x in rows:
                x = x.clone().requires_grad_(grad)
                expected, got = tree_flatten(function(x))[0], tree_flatten(compiled(x))[0]
                assert [t.tolist() for t in got] == [t.tolist() for t in expected]
    compiled = tg.compile(leaves, fallback=True)
    for x in rows:
        compiled(x)
        assert left[0].tolist() == x[x > 1].tolist() and type(left[0]) is tg.Tensor
