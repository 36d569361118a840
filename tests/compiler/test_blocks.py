"""Formulas done in the blocks of the product before them: the same bits, for every way to cut it and any threads."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.compiler.native import Instance
from tensorgrad.nn import functional as F
from tests.compiler.common import after, names, run, same_results, written

# (rows, terms, columns): cut into whole rows; into panels (few rows, a large b); by rows and columns, where whole rows
# leave the caches; summed in several waves; too little to cut; dot products
SIZES = [
    (512, 128, 512), (96, 512, 1200), (600, 64, 20000), (8, 20000, 300), (40, 30, 20), (300, 512, 2), (2, 512, 300),
]  # fmt: skip


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = tg.get_num_threads()
    tg.set_num_threads(request.param)
    yield
    tg.set_num_threads(before)


def behind(compiled):
    """The names of the calls that go by another's blocks, and of those whose blocks they are."""
    (program,) = compiled.programs
    assert Instance(program.linked).blocks == program.linked.blocks  # no place given twice is in the way
    calls = {id(call): call.op.name for call in program.calls}
    return {calls[at]: head for at, head in program.linked.behind.items()}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_behind_a_product(size, dtype, threads):
    m, k, n = size
    tg.manual_seed(0)
    x, w, b = tg.randn(m, k, dtype=dtype), tg.randn(n, k, dtype=dtype), tg.randn(n, dtype=dtype)
    other, scale = tg.randn(m, n, dtype=dtype), tg.rand(n, dtype=dtype)

    def layer():
        return (F.gelu(F.linear(x, w, b)) * scale + other).tanh()

    with tg.backend("cpp"), tg.no_grad():
        fast = Compiled(layer)
        for _ in range(3):
            got = fast().numpy()
        expected = layer().numpy()
    assert np.array_equal(got, expected)
    assert list(behind(fast).values()) == ["linear"]
    assert "in the blocks of linear" in fast.explain()


@pytest.mark.parametrize("shapes", [((40, 64, 48), (40, 48, 56)), ((3, 120, 80), (3, 80, 100)), ((5, 90, 60), (60, 70)),
                                    ((2, 3, 4, 5), (3, 5, 6)), ((5000, 3, 4), (5000, 4, 2)),
                                    ((50, 2, 2), (50, 2, 1))], ids=str)  # fmt: skip
def test_behind_a_batch_of_products(shapes, threads):
    tg.manual_seed(0)
    a, b = (tg.randn(*shape) for shape in shapes)

    def masked():
        y = a @ b
        return tg.where(y > 0, y, 0.1 * y) - 1

    with tg.backend("cpp"), tg.no_grad():
        fast = Compiled(masked)
        for _ in range(3):
            got = fast().numpy()
        expected = masked().numpy()
    assert np.array_equal(got, expected)
    assert list(behind(fast).values()) == ["matmul"]


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("shape", [(512, 128, 512), (24, 40, 48), (700, 96, 384)], ids=str)
def test_a_training_step(shape, approximate, threads):
    m, k, n = shape

    def training(compiled):
        tg.manual_seed(0)
        up, down = tg.nn.Linear(k, n), tg.nn.Linear(n, k)
        x = tg.randn(m, k)
        optimizer = tg.optim.AdamW([*up.parameters(), *down.parameters()], lr=0.01)

        def step(x):
            optimizer.zero_grad()
            y = x + down(F.gelu(up(x), approximate=approximate))
            loss = y.square().mean()
            loss.backward()
            optimizer.step()
            return loss

        step_ = Compiled(step) if compiled else step
        losses = [step_(x).item() for _ in range(6)]
        return losses, [p.detach().numpy() for p in up.parameters()], [p.grad.numpy() for p in down.parameters()], step_

    with tg.backend("cpp"):
        losses, weights, grads, fast = training(True)
        expected = training(False)
    assert losses == expected[0]
    assert all(map(np.array_equal, weights, expected[1])) and all(map(np.array_equal, grads, expected[2]))
    assert "linear_backward" in behind(fast).values() and "linear" in behind(fast).values()


def test_what_else_needs_the_product_is_stored():
    x, w = tg.randn(200, 64), tg.randn(64, 80)

    def both(x):
        y = x @ w
        return y, y.relu(), y.sum(1)

    with tg.backend("cpp"), tg.no_grad():
        fast = Compiled(both)
        for _ in range(3):
            got = [t.numpy() for t in fast(x)]
        expected = [t.numpy() for t in both(x)]
    assert all(map(np.array_equal, got, expected))


def test_an_operand_that_dies_with_the_product_stays_until_all_blocks_are_done():
    w, x = tg.randn(96, 96), tg.randn(600, 96)

    def chain():
        y = x
        for _ in range(4):
            y = (y @ w).tanh()  # the result must not lie where the other rows are still read
        return y

    with tg.backend("cpp"), tg.no_grad():
        fast = Compiled(chain)
        for _ in range(3):
            got = fast().numpy()
        assert np.array_equal(got, chain().numpy())
    assert fast.explain().count("in the blocks of matmul") == 4 and behind(fast)


def test_a_formula_that_writes_what_the_product_reads_waits():
    w = tg.randn(64, 64)

    def step(x):
        y = x @ w
        x.copy_(y.tanh())
        return y + 1

    with tg.backend("cpp"), tg.no_grad():
        a, b = tg.ones(300, 64), tg.ones(300, 64)
        fast = Compiled(step)
        for _ in range(3):
            got, expected = fast(a), step(b)
            assert np.array_equal(got.numpy(), expected.numpy()) and np.array_equal(a.numpy(), b.numpy())


# --- what forward computes ahead of backward


SHARED = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "mish": F.mish}


@pytest.mark.parametrize("name", [*SHARED, "relu", "sigmoid"])
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_slopes_are_computed_where_the_function_is(name, dtype):
    function = SHARED.get(name) or getattr(tg, name)
    w = tg.randn(33, 17, dtype=dtype, requires_grad=True)
    v = tg.randn(17, 33, dtype=dtype)

    def gradient(x):
        y = function(x @ v.T @ v) @ w
        return y, *tg.autograd.grad(y, [w, x], 2 * y)

    x = (3 * tg.randn(41, 33, dtype=dtype)).detach().requires_grad_()
    program = written(gradient, x)
    made = after("ahead", program)
    assert (made is not program) == (name in SHARED)
    assert len(names(made)) == len(names(program))
    if made is not program:
        slope = next(c for c in made.calls if c.part == "backward" and getattr(c.op, "parts", None))
        assert {op for op, _, _ in slope.op.program.code} == {"load", "mul"}
        same_results(made, program, x)


def test_what_others_read_is_not_replaced():
    x = tg.randn(20, 10, requires_grad=True)
    w = tg.randn(10, 10)

    def step(x):
        h = x @ w
        y = F.silu(h)
        (g,) = tg.autograd.grad(y, x, y)
        return g + h

    assert after("ahead", program := written(step, x)) is program


def test_a_formula_whose_first_result_is_a_mask():
    x = tg.randn(20, 10, requires_grad=True)
    w, v = tg.randn(10, 10), tg.randn(10, 10)

    def step(x):
        y = F.gelu(x @ w)
        z = tg.where(y > 0, y, y * 0.5) @ v
        return z, *tg.autograd.grad(z, x, z)

    program = written(step, x)
    program = after("formulas", program)
    assert after("ahead", program) is not program
    same_results(after("ahead", program), program, x)


def test_of_narrow_floats_nothing_is_moved():
    x = tg.randn(20, 10, dtype=tg.bfloat16, requires_grad=True)
    w = tg.randn(10, 10, dtype=tg.bfloat16)

    def step(x):
        y = F.gelu(x @ w)
        return tg.autograd.grad(y, x, y)

    program = written(step, x)
    made = after("ahead", program)
    assert made is program
    run(program, x)


# --- results written to the places that they would be copied to


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64, tg.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_attention_are_written_side_by_side(dtype, causal, threads):
    tg.manual_seed(0)
    qkv = tg.nn.Linear(24, 72, dtype=dtype)

    def step(x):
        qkv.zero_grad()
        n, t, _ = x.shape
        parts = qkv(x).reshape(n, t, 3, 3, 8).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=causal)
        loss = y.square().sum()
        loss.backward()
        return loss

    x = tg.randn(2, 10, 24, dtype=dtype)
    with tg.backend("cpp"):
        fast = Compiled(step)
        for _ in range(3):
            got = fast(x).item(), qkv.weight.grad.float().numpy().copy()
        expected = step(x).item(), qkv.weight.grad.float().numpy()
    assert got[0] == expected[0] and np.array_equal(got[1], expected[1])
    text = fast.explain()
    assert text.count("written there by attention_backward") == (0 if dtype == tg.bfloat16 else 3)


def test_what_somebody_else_reads_is_copied():
    def step(x):
        q, k, v = (part.reshape(2, 1, 5, 4) for part in x.chunk(3))
        y = F.scaled_dot_product_attention(q, k, v)
        gq, gk, gv = tg.autograd.grad(y, [q, k, v], y, retain_graph=True)
        (gx,) = tg.autograd.grad(y, x, y)
        return gx, gq + 1, gk + 1, gv

    x = tg.randn(30, 4, requires_grad=True)
    with tg.backend("cpp"):
        fast = Compiled(step)
        for _ in range(3):
            got = [t.detach().numpy() for t in fast(x)]
        expected = [t.detach().numpy() for t in step(x)]
    assert all(map(np.array_equal, got, expected))


# --- behind a convolution

# (batch, in, out channels, groups, kernel, stride, padding, size): Winograd, with whole rows and parts of them; the
# shared walk; 1x1; by depth, also of few channels; few targets; a product; planes too small to tell of; patches
CONVS = [
    (2, 16, 32, 1, 3, 1, 1, 24), (1, 16, 16, 1, 3, 1, 1, 200), (3, 5, 12, 1, 5, 2, 2, 40),
    (2, 24, 40, 1, 1, 1, 0, 20), (2, 16, 16, 16, 3, 1, 1, 30), (2, 8, 2, 1, 3, 1, 1, 32), (4, 6, 20, 1, 7, 1, 0, 7),
    (2, 3, 6, 3, 5, 1, 2, 40), (2, 16, 32, 1, 3, 1, 1, 6), (2, 3, 16, 1, 16, 16, 0, 64), (2, 12, 24, 3, 3, 1, 2, 21),
    (1, 8, 12, 2, 1, 2, 0, 33),
]  # fmt: skip


@pytest.mark.parametrize("conv", CONVS, ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_behind_a_convolution(conv, dtype, threads):
    batch, cin, cout, groups, kernel, stride, padding, size = conv
    tg.manual_seed(0)
    layer = tg.nn.Conv2d(cin, cout, kernel, stride=stride, padding=padding, groups=groups, dtype=dtype)
    norm = tg.nn.BatchNorm2d(cout, dtype=dtype).eval()
    x, scale = tg.randn(batch, cin, size, size, dtype=dtype), tg.rand(cout, 1, 1, dtype=dtype)

    def plain():
        return F.silu(layer(x)) * scale + 1

    def normed():
        return F.hardswish(norm(layer(x)))

    def up():
        return F.conv_transpose2d(layer(x), layer.weight, groups=groups).sigmoid()

    with tg.backend("cpp"), tg.no_grad():
        for function in (plain, normed, up):
            fast = Compiled(function)
            for _ in range(3):
                got = fast().numpy()
            expected = function().numpy()
            if function is normed:  # what is folded into the convolution rounds in other places
                assert np.allclose(got, expected, rtol=1e-5, atol=1e-5)
            else:
                assert np.array_equal(got, expected)
            if function is not up:
                assert list(behind(fast).values()) == ["conv" if function is plain else "conv_norm"]


def test_training_behind_a_convolution(threads):
    def training(compiled):
        tg.manual_seed(0)
        model = tg.nn.Sequential(
            tg.nn.Conv2d(3, 16, 3, padding=1), tg.nn.ReLU(), tg.nn.Conv2d(16, 32, 3, stride=2), tg.nn.SiLU(),
            tg.nn.Conv2d(32, 8, 1), tg.nn.GELU(), tg.nn.Flatten(), tg.nn.Linear(8 * 81, 10),
        )  # fmt: skip
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, y = tg.randn(4, 3, 20, 20), tg.arange(4)

        def step():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = Compiled(step) if compiled else step
        return [run().item() for _ in range(6)], [p.detach().numpy() for p in model.parameters()], run

    with tg.backend("cpp"):
        losses, weights, fast = training(True)
        expected = training(False)
    assert losses == expected[0] and all(map(np.array_equal, weights, expected[1]))
    assert "conv" in behind(fast).values()


# ---- ahead of a product


def ahead(compiled):
    """The names of the calls that make the rows of a product's left side, and of those products."""
    (program,) = compiled.programs
    assert Instance(program.linked).blocks == program.linked.blocks
    calls = {id(call): call.op.name for call in program.calls}
    return {calls[at]: head for at, head in program.linked.ahead.items()}


def matches(function, *arguments):
    """The function compiled, whose results are the function's to the bit in each of three runs."""
    with tg.backend("cpp"), tg.no_grad():
        fast = Compiled(function)
        runs = [fast(*arguments) for _ in range(3)]
        expected = function(*arguments)
    as_tuple = (lambda r: r) if isinstance(expected, tuple) else (lambda r: (r,))
    for got in runs:
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(as_tuple(got), as_tuple(expected), strict=True))
    return fast


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_a_formula_and_a_norm_ahead_of_a_product(size, dtype, threads):
    m, k, n = size
    tg.manual_seed(0)
    x, other, w, b = (tg.randn(*shape, dtype=dtype) for shape in [(m, k), (m, k), (n, k), (n,)])
    gain, shift = tg.rand(k, dtype=dtype), tg.randn(k, dtype=dtype)

    def layer():
        y = x * 2 + other
        return F.linear(F.layer_norm(y, (k,), gain, shift), w, b).relu(), y

    fast = matches(layer)
    expected = {"layer_norm": "linear"} if m * k >= 8192 else {}
    found = ahead(fast)
    assert {name: head for name, head in found.items() if name == "layer_norm"} == expected
    assert ("ahead of the blocks of linear" in fast.explain()) == bool(expected)
    assert not expected or len(found) == 2  # the formula is ahead of the norm


@pytest.mark.parametrize("name", ["softmax", "gelu", "scaled"])
def test_ahead_of_a_matmul(name, threads):
    x, w = tg.randn(300, 96), tg.randn(96, 80)
    scale = tg.rand(300, 1)
    made = {"softmax": lambda x: x.softmax(-1), "gelu": F.gelu, "scaled": lambda x: (x * scale).tanh()}[name]
    fast = matches(lambda x: made(x) @ w, x)
    assert list(ahead(fast).values()) == ["matmul"]


def test_what_a_product_needs_whole_is_made_before_it():
    square, column = tg.randn(128, 128), tg.randn(64, 128)
    for product in (
        lambda x: x.tanh() @ x,  # beside it the operand itself, which may not be written over
        lambda x: (y := x.tanh()) @ y,  # on both sides
        lambda x: column @ x.tanh(),  # on the right
        lambda x: x.tanh().t() @ x,  # by columns
        lambda x: (x.tanh()[:, ::2]) @ column[:, :].t()[:64],
        lambda x: (x * x.sum(0)) @ column.t(),
        lambda x: F.linear(x.tanh().cumsum(1), column),
    ):
        fast = matches(product, square)
        assert all(head != "sum" for head in ahead(fast).values())
    assert ahead(matches(lambda x: (y := x.tanh()) @ y, square)) == {}
    assert ahead(matches(lambda x: column @ x.tanh(), square)) == {}


def test_the_place_of_what_is_read_ahead_is_not_given_to_the_product(threads):
    # all arrays have one size, so that any may lie where another did
    tg.manual_seed(1)
    x, gain = tg.randn(256, 256), tg.rand(256)
    weights = [tg.randn(256, 256) / 16 for _ in range(6)]

    def tower(x):
        for i, w in enumerate(weights):
            y = (x * 1.5 + 0.1).sin()
            z = F.linear(F.rms_norm(y * 0.5, (256,), gain) if i % 2 else y, w)
            x = z * 0.25 + x if i % 3 else z.tanh()
        return x

    assert set(ahead(matches(tower, x)).values()) == {"linear"}


def test_an_error_ahead_of_a_product_is_told_and_the_next_call_works():
    table, w = tg.randn(400, 64), tg.randn(64, 64)

    def layer(x, i):
        return F.linear((x + table[i]).tanh(), w)

    x, good, bad = tg.randn(400, 64), tg.arange(400), tg.arange(400) + 1
    with tg.backend("cpp"), tg.no_grad():
        fast = Compiled(layer)
        expected = layer(x, good).numpy()
        for _ in range(2):
            assert np.array_equal(fast(x, good).numpy(), expected)
        with pytest.raises(IndexError):
            fast(x, bad)
        assert np.array_equal(fast(x, good).numpy(), expected)


# ---- ahead of a convolution

# (source, out channels, groups, kernel, stride, padding) of sources that are asked for: one tap, in groups too, with
# images that end within a vector; by depth, with several outputs of a channel, with channels that leave half a vector
ASKED = [
    ((8, 64, 56, 56), 32, 1, 1, 1, 0), ((5, 90, 51, 53), 40, 2, 1, 1, 0), ((2, 96, 77, 81), 12, 1, 1, 1, 0),
    ((3, 62, 81, 83), 62, 62, 3, 1, 1), ((1, 40, 170, 170), 80, 40, 5, 2, 2), ((2, 26, 21, 32, 33), 26, 26, 3, 1, 0),
]  # fmt: skip


@pytest.fixture(params=[1, 2, 3, 4])
def up_to_four_threads(request):
    before = tg.get_num_threads()
    tg.set_num_threads(request.param)
    yield
    tg.set_num_threads(before)


@pytest.mark.parametrize("case", ASKED, ids=str)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_ahead_of_a_convolution(case, dtype, up_to_four_threads):
    shape, channels, groups, kernel, stride, padding = case
    tg.manual_seed(0)
    axes = len(shape) - 2
    x, other = tg.randn(*shape, dtype=dtype), tg.randn(*shape, dtype=dtype)
    scale = tg.rand(shape[0], shape[1], *[1] * axes, dtype=dtype)
    w, b = tg.randn(channels, shape[1] // groups, *[kernel] * axes, dtype=dtype), tg.randn(channels, dtype=dtype)
    convolve = F.conv2d if axes == 2 else F.conv3d

    def layer():
        return convolve((x * scale + other).tanh(), w, b, stride, padding, groups=groups)

    fast = matches(layer)
    assert list(ahead(fast).values()) == ["conv"] and "ahead of the blocks of conv" in fast.explain()

    def both():  # read elsewhere too, and followed by a formula
        y = (x * scale).tanh()
        return F.silu(convolve(y, w, b, stride, padding, groups=groups)), y, y.sum(1)

    fast = matches(both)
    assert list(ahead(fast).values()) == ["conv"] and list(behind(fast).values()) == ["conv"]


def test_rows_and_planes_ahead_of_a_convolution(up_to_four_threads):
    tg.manual_seed(0)
    norm, layer = tg.nn.GroupNorm(4, 64), tg.nn.Conv2d(64, 48, 1)
    x, scale = tg.randn(8, 64, 48, 48), tg.rand(8, 64, 1, 1)

    def rows():
        return layer((x * scale).softmax(-1) + 1)

    def rows_and_more():
        return rows(), tg.cat([x] * 4).amax()  # needs more memory than all that is ahead of the blocks

    def groups():  # of several planes: they are whole before an image is
        return layer(F.silu(norm(x)) * scale)

    assert list(ahead(matches(rows_and_more)).values()).count("conv") == 3
    assert list(ahead(matches(rows)).values()).count("conv") < 3  # one by one they need less
    assert list(ahead(matches(groups)).values()) == ["conv"]


@pytest.mark.parametrize("groups", [1, 64])
def test_ahead_of_a_transposed_convolution(groups, up_to_four_threads):
    tg.manual_seed(0)
    x, w = tg.randn(8, 64, 56, 56), tg.randn(64, 64 // groups, *([2, 2] if groups > 1 else [1, 1]))
    fast = matches(lambda: F.conv_transpose2d(F.gelu(x), w, stride=2, groups=groups))
    assert list(ahead(fast).values()) == ["conv_input_grad"]


def test_a_convolution_that_nothing_is_gained_for_reads_what_is_there(threads):
    tg.manual_seed(0)
    for shape, weight, more in (
        ((8, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
        ((1, 64, 160, 160), (16, 64, 1, 1), {}),  # one image: all threads need all of it first
        ((8, 64, 56, 56), (32, 64, 1, 1), {"stride": 2}),
        ((64, 128, 14, 14), (32, 128, 1, 1), {}),
        ((4, 8, 20, 20), (8, 1, 3, 3), {"groups": 8}),
        ((4, 3, 300, 300), (3, 1, 3, 3), {"groups": 3}),  # by row
        ((8, 64, 56, 56), (8, 64, 56, 56), {}),
    ):
        x, w = tg.randn(*shape), tg.randn(*weight)
        assert ahead(matches(lambda x=x, w=w, more=more: F.conv2d(x.tanh(), w, **more))) == {}


def test_a_source_that_something_else_of_the_convolution_reads_is_made_before_it():
    x, y = tg.randn(2048, 1024, 1, 1), tg.randn(4, 1024, 32, 32)
    assert ahead(matches(lambda: F.conv2d(y, x.tanh()[:128]))) == {}  # the weight
    # the first images are read as the filters too
    assert ahead(matches(lambda: F.conv2d((z := y.tanh()), z[0].reshape(1024, 1024, 1, 1)[:64]))) == {}


def test_between_two_convolutions_a_formula_is_behind_the_first(threads):
    first, second = tg.nn.Conv2d(32, 64, 1), tg.nn.Conv2d(64, 64, 3, padding=1, groups=64)
    x = tg.randn(8, 32, 56, 56)
    fast = matches(lambda: second(F.silu(first(x))))
    assert list(behind(fast).values()) == ["conv"] and ahead(fast) == {}


def test_the_place_of_what_is_read_ahead_is_not_given_to_the_convolution(threads):
    # all arrays have one size, so that any may lie where another did
    tg.manual_seed(1)
    source = tg.randn(4, 64, 64, 64)
    point, depth = [tg.randn(64, 64, 1, 1) / 8 for _ in range(3)], [tg.randn(64, 1, 3, 3) / 3 for _ in range(3)]

    def tower():
        x = source
        for i, p in enumerate(point):
            y = (x * 1.5 + 0.1).sin()
            z = F.group_norm(F.conv2d(y, depth[i], padding=1, groups=64), 4)
            x = F.group_norm(F.conv2d(F.silu(z * y), p), 4) + y
        return x

    assert set(ahead(matches(tower)).values()) == {"conv"}


def test_training_ahead_of_a_convolution(threads):
    def training(compiled):
        tg.manual_seed(0)
        model = tg.nn.Sequential(
            tg.nn.Conv2d(24, 96, 1, bias=False), tg.nn.BatchNorm2d(96), tg.nn.SiLU(),
            tg.nn.Conv2d(96, 96, 3, padding=1, groups=96, bias=False), tg.nn.BatchNorm2d(96), tg.nn.SiLU(),
            tg.nn.Conv2d(96, 24, 1), tg.nn.GELU(),
        )  # fmt: skip
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x = tg.randn(4, 24, 56, 56)

        def step():
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = Compiled(step) if compiled else step
        return [run().item() for _ in range(4)], [p.detach().numpy() for p in model.parameters()], run

    with tg.backend("cpp"):
        losses, weights, fast = training(True)
        expected = training(False)
    assert losses == expected[0] and all(map(np.array_equal, weights, expected[1]))
    assert "conv" in ahead(fast).values()


def test_an_error_ahead_of_a_convolution_is_told_and_the_next_call_works(threads):
    table, w, x = tg.randn(96, 56, 56), tg.randn(96, 1, 3, 3), tg.randn(4, 96, 56, 56)

    def layer(i):
        return F.conv2d((x + table[i]).tanh(), w, groups=96)

    good, bad = tg.arange(96), tg.arange(96) + 1
    with tg.backend("cpp"), tg.no_grad():
        fast = Compiled(layer)
        expected = layer(good).numpy()
        for _ in range(2):
            assert np.array_equal(fast(good).numpy(), expected)
        with pytest.raises(IndexError):
            fast(bad)
        assert np.array_equal(fast(good).numpy(), expected)
