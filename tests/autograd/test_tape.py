"""The tape: accumulation, freeing, depth, hooks, versions, in-place operations on tensors and views."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.autograd import engine
from tensorgrad.autograd.node import user_line
from tensorgrad.nn import functional as F
from tensorgrad.ops.record import Op
from tensorgrad.profiler import profile


def leaf(values, dtype=tg.float64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


def test_gradients_accumulate_and_share_no_memory():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x + y).sum().backward()
    (x + y).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    x.grad.mul_(10)
    assert y.grad.tolist() == [2.0, 2.0], "two leaves that received the same gradient must not share it"


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_gradients_of_slices_are_added_in_place_only_where_nobody_sees_the_sum(backend):
    with tg.backend(backend):
        x = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

        def loss():
            u, v = x * 2.0, x * 3.0
            parts = [u[0], u[1:], v[:, 1], u[:, None, ::2], x[2]]
            shared = u + v  # u and v receive one array, then their slices' gradients
            return (shared * shared).sum() + sum((i + 2.0) * (part * part).sum() for i, part in enumerate(parts))

        (expected,) = tg.autograd.grad(loss(), x, create_graph=True)
        loss().backward()
        assert x.grad.tolist() == expected.tolist()
        x.grad = None
        with profile() as seen:
            sum((i + 1.0) * row.sum() for i, row in enumerate((x * 5.0).unbind(0))).backward()
        assert x.grad.tolist() == [[5.0, 5.0], [10.0, 10.0], [15.0, 15.0]]
        counts = {row.key: row.count for row in seen.key_averages()}
        if engine.native is None:
            assert (counts["slice_backward"], counts["slice_add_into"]) == (1, 2)
        else:  # each is written to its place, and nothing is added
            assert (counts["empty_as"], counts["copy_into"]) == (1, 3)
            assert "slice_backward" not in counts and "slice_add_into" not in counts


# what is done with the rows and columns of a permuted and a plain array; some leave gaps, some overlap
SIDE_BY_SIDE = {
    "all": lambda u, v: [*u.unbind(0), *v.unbind(1)],
    "a gap in the middle": lambda u, v: [u[0], u[3], v[:, :2], v[:, 5:]],
    "a gap at the end": lambda u, v: [u[1], u[0], v[:, 1:4]],
    "one twice": lambda u, v: [u[0], u[1], u[0], v[:, 1:4], v[:, 3:]],
    "two axes": lambda u, v: [u[0], u[:, 1], u[1], v[:, 1:4], v[0]],
    "and the whole": lambda u, v: [u[0], u[1], u, v[:, 1:4], v * 2.0],
    "the whole in between": lambda u, v: [v[:, 4:], v, v[:, 1:4], u[0], u, u[1]],
    "steps and new dims": lambda u, v: [u[0], u[::2], u[None, 1], v[:, 1:4], v[..., 4:]],
}


def gradient_of_slices(name, shape, hooked, create_graph=False, device="cpu"):
    x = tg.arange(float(np.prod(shape)), dtype=tg.float64, device=device).reshape(shape).requires_grad_()
    u, v = (x * 2.0).transpose(1, 2), (x * 3.0).reshape(shape[0] // 2, -1)
    if hooked:
        u.register_hook(lambda g: g * 5.0)
    parts = SIDE_BY_SIDE[name](u, v)
    sum((i + 1.0) * (part * part).sum() for i, part in enumerate(parts)).backward(create_graph=create_graph)
    return x.grad.tolist()


@pytest.mark.parametrize("hooked", (False, True))
@pytest.mark.parametrize("shape", ((4, 3, 6), (4, 40, 60)))
@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_gradients_of_slices_lie_side_by_side(monkeypatch, name, shape, hooked):
    expected = gradient_of_slices(name, shape, hooked, create_graph=True)
    assert gradient_of_slices(name, shape, hooked) == expected
    monkeypatch.setattr(engine, "native", None)
    assert gradient_of_slices(name, shape, hooked) == expected


# what is recorded of three leaves, and how many of their gradients are slices that may stay where they are
KEPT_VIEWS = {
    "cat": (lambda *leaves: tg.cat(leaves) * 2.0, 3),
    "stack": (lambda *leaves: tg.stack(leaves) * 2.0, 3),
    "columns": (lambda *leaves: tg.cat(leaves, 1) * 2.0, 0),
    "a sum beside": (lambda x, y, z: (tg.cat((x, y)) + tg.cat((y, z))) * 2.0, 2),
    "one memory": (lambda x, y, z: (x.reshape(-1) + y.reshape(-1) + z.reshape(-1)) * 2.0, 0),
}


@pytest.mark.parametrize("tape", ("native", "python"))
@pytest.mark.parametrize("name", KEPT_VIEWS)
def test_leaves_keep_slices_of_a_gradient_that_nobody_else_knows(monkeypatch, name, tape):
    if tape == "python":
        monkeypatch.setattr(engine, "native", None)
    call, count = KEPT_VIEWS[name]
    leaves = [tg.full((100, 100), float(i), dtype=tg.float64, requires_grad=True) for i in range(3)]
    loss = (call(*leaves) ** 2).sum()
    expected = tg.autograd.grad(loss, leaves, create_graph=True)
    loss.backward(retain_graph=True)
    arrays = [leaf.grad._data for leaf in leaves]
    assert sum(isinstance(array.base, np.ndarray) for array in arrays) == count
    for _ in range(2):  # in place, and no other leaf sees it
        loss.backward(retain_graph=True)
    for leaf, array, once in zip(leaves, arrays, expected, strict=True):
        assert leaf.grad._data is array and leaf.grad.equal(3.0 * once)
    for i, leaf in enumerate(leaves):
        leaf.grad.fill_(float(i))
    assert [leaf.grad.unique().tolist() for leaf in leaves] == [[0.0], [1.0], [2.0]]

    # known elsewhere: to the caller as the seed, to a hook, to the result that retains it
    seed, seen = tg.ones(300, 100, dtype=tg.float64), []
    joined = tg.cat(leaves) * 1.0
    for leaf in leaves:
        leaf.grad = None
    joined.retain_grad()
    handle = leaves[0].register_hook(seen.append)
    joined.backward(seed, retain_graph=True)
    handle.remove()
    tg.cat(leaves[1:]).backward(seed[100:])
    for leaf in leaves:
        leaf.grad.zero_()
    assert [x.unique().tolist() for x in (seed, joined.grad, *seen)] == [[1.0]] * 3


def test_the_seed_is_not_the_gradient():
    x = leaf([1.0, 2.0])
    seed = tg.ones(2, dtype=tg.float64)
    (x * 1.0).backward(seed)
    x.grad.zero_()
    assert seed.tolist() == [1.0, 1.0]


def test_second_backward_needs_retain_graph():
    x = leaf([2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8.0]
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_a_graph_of_100000_operations_runs_and_dies_without_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1.0
    y = x
    for _ in range(100_000):
        y = y * 1.0
    node = weakref.ref(y.grad_fn)
    del y
    assert node() is None


def test_a_step_leaves_nothing_to_the_garbage_collector():
    x = leaf(np.ones((4, 4)))
    gc.collect()
    gc.disable()
    try:
        y = ((x @ x).exp() + x[1:].sum() * x.mean()).softmax(dim=1)
        inner = weakref.ref(y.grad_fn)
        array = weakref.ref(y)
        loss = y.sum()
        loss.backward()
        del y, loss
        assert inner() is None and array() is None
        gc.set_debug(gc.DEBUG_SAVEALL)
        assert gc.collect() == 0 or not [o for o in gc.garbage if isinstance(o, tg.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_backward_frees_saved_memory_while_the_loss_lives():
    x = leaf(np.ones(10))
    y = x.exp()
    saved = weakref.ref(y)
    loss = (y * y).sum()
    del y
    loss.backward()
    assert saved() is None
    assert loss.grad_fn is not None


def test_create_graph_gives_derivatives_of_any_order():
    x = leaf(0.7)
    y = x.sin()
    orders = []
    for _ in range(4):
        (y,) = tg.autograd.grad(y, x, create_graph=True)
        orders.append(y.item())
    np.testing.assert_allclose(orders, [np.cos(0.7), -np.sin(0.7), -np.cos(0.7), np.sin(0.7)], rtol=1e-12)


def test_backward_with_create_graph_accumulates_differentiable_gradients():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    x.grad.backward()
    # the second pass adds 6x to the 3x^2 that is there
    assert x.grad.item() == pytest.approx(27.0 + 18.0)


def test_backward_into_chosen_inputs_only():
    x, y = leaf(2.0), leaf(3.0)
    middle = x * y
    out = middle * x
    out.backward(inputs=[y, middle])
    assert x.grad is None and y.grad.item() == 4.0 and middle.grad.item() == 2.0


def test_grad_reports_unused_inputs():
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="allow_unused"):
        tg.autograd.grad(x * 2, [x, y])
    assert tg.autograd.grad(x * 2, [x, y], allow_unused=True)[1] is None
    assert tg.autograd.grad(x * 2, [x, y], materialize_grads=True)[1].item() == 0.0


def test_seeds_are_checked():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match="scalar outputs"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="shape"):
        (x * 2).backward(tg.ones(3, dtype=tg.float64))
    with pytest.raises(RuntimeError, match="does not require grad"):
        tg.ones(1).backward()


@pytest.mark.parametrize("switch", [tg.no_grad, tg.inference_mode, lambda: tg.set_grad_enabled(False)])
def test_switches_as_context_managers(switch):
    x = leaf(1.0)
    with switch():
        assert not (x * 2).requires_grad
        assert not tg.is_grad_enabled()
    assert (x * 2).requires_grad


def test_switches_as_decorators_and_on_generators():
    x = leaf(1.0)

    @tg.no_grad()
    def quiet():
        return x * 2

    @tg.no_grad()
    def stream():
        for _ in range(2):
            yield (x * 2).requires_grad

    assert not quiet().requires_grad
    for inside in stream():
        assert inside is False and tg.is_grad_enabled()
    with tg.no_grad(), tg.enable_grad():
        assert (x * 2).requires_grad
    with tg.inference_mode(), tg.enable_grad():
        assert not (x * 2).requires_grad


def test_recording_is_thread_local():
    seen = []
    with tg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_inference_tensors_cannot_be_saved():
    with tg.inference_mode():
        x = tg.ones(2)
    w = tg.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="inference"):
        x * w
    assert (x.clone() * w).requires_grad


def test_a_view_is_an_inference_tensor_where_its_base_is_one():
    x, w = tg.ones(2, 3), tg.ones(3, requires_grad=True)
    with tg.inference_mode():
        views = [x[0], x.t(), x.detach(), x.view(-1), x.as_strided((2,), (1,)), x.view(tg.int32), *x.chunk(2)]
        made = [w * 2, w.exp(), w.sum(), w @ w, x * 2, x.clone(), tg.zeros(2, 3)]
    assert not any(t.is_inference() for t in views) and all(t.is_inference() for t in made)
    y = made[-1]
    later = [y[0], y.t(), y.detach(), y.view(-1), y.as_strided((2,), (1,)), y.view(tg.int32)]
    assert all(t.is_inference() for t in later) and not (y * 1).is_inference()
    views[0].mul_(2)
    assert x.tolist() == [[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]
    with pytest.raises(RuntimeError, match="inference"):
        y[0].mul_(2)


def test_tensor_hooks_replace_and_see_gradients():
    x = leaf([1.0, 2.0])
    y = x * 3
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    y.sum().backward()
    assert seen == [[1.0, 1.0]] and x.grad.tolist() == [31.0, 31.0]
    handle.remove()
    handle.remove()
    (x * 3).sum().backward()
    assert seen == [[1.0, 1.0]]


def test_hook_sees_the_whole_gradient_once():
    x = leaf(2.0)
    y = x * 1.0
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    (y * y + y).backward()
    assert seen == [5.0]


def test_post_accumulate_hook_and_retain_grad():
    x = leaf(2.0)
    done = []
    x.register_post_accumulate_grad_hook(lambda t: done.append(t.grad.item()))
    y = x * 3
    y.retain_grad()
    (y * y).backward()
    assert done == [36.0] and y.grad.item() == 12.0 and y.retains_grad
    with pytest.raises(RuntimeError):
        y.register_post_accumulate_grad_hook(print)


def test_changed_saved_tensor_raises_and_names_op_and_line():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    z = y * y  # the guilty line
    y.add_(1.0)
    with pytest.raises(RuntimeError, match=r"mul saved.*test_tape\.py:\d+.*the guilty line"):
        z.sum().backward()


def test_changes_through_detach_are_noticed_and_through_data_are_not():
    x = leaf([1.0])
    y = x * 1.0
    z = y * y
    y.detach().add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        z.backward()
    y = x * 1.0
    z = y * y
    y.data.add_(1)
    z.backward()
    assert x.grad.item() == 4.0


def test_in_place_on_leaf_and_on_view_of_leaf_raise():
    x = leaf([1.0, 2.0])
    for change in (lambda: x.add_(1), lambda: x[:1].add_(1), lambda: x.__setitem__(0, 5.0)):
        with pytest.raises(RuntimeError, match="leaf"):
            change()
    assert x.tolist() == [1.0, 2.0]
    with tg.no_grad():
        x.add_(1)
    assert x.tolist() == [2.0, 3.0]


def test_in_place_on_a_view_changes_the_history_of_its_base():
    x = leaf([1.0, 2.0, 3.0])
    base = x * 1.0
    view = base[:2]
    view.mul_(3.0)
    (base * base).sum().backward()
    np.testing.assert_allclose(x.grad.tolist(), [18.0, 36.0, 6.0])


def test_in_place_on_the_base_changes_the_history_of_its_views():
    x = leaf([1.0, 2.0, 3.0])
    base = x * 1.0
    view = base[1:]
    base.mul_(2.0)
    (view * view).sum().backward()
    np.testing.assert_allclose(x.grad.tolist(), [0.0, 16.0, 24.0])


def test_what_was_overwritten_gets_no_gradient_even_from_an_infinite_one():
    x = tg.ones(3, requires_grad=True)
    y = x * 1
    y[0] = 5.0
    y[1:2].mul_(2)
    (g,) = tg.autograd.grad(y, x, tg.tensor([float("nan"), float("inf"), 1.0]))
    assert g.tolist() == [0.0, float("inf"), 1.0]


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_the_size_of_a_complex_number_has_a_second_derivative(backend):
    a, b = leaf([0.7, -2.0]), leaf([0.4, 1.5])
    with tg.backend(backend):
        assert tg.autograd.gradgradcheck(lambda a, b: tg.complex(a, b).abs(), (a, b))
        assert tg.autograd.gradgradcheck(lambda a, b: tg.complex(a, b).norm(dim=0), (a, b))
        x = leaf([float("inf"), -2.0, 0.0])
        (g,) = tg.autograd.grad(x.abs().sum(), x, create_graph=True)
        assert g.tolist() == [1, -1, 0]
        assert tg.autograd.grad(g.sum(), x)[0].tolist() == [0, 0, 0]


def test_equal_numbers_have_a_second_derivative_in_logaddexp():
    x, y = leaf([0.7, -1.2]), leaf([0.7, -1.2])
    (g,) = tg.autograd.grad(tg.logaddexp(x, y).sum(), x, create_graph=True)
    assert [h.tolist() for h in tg.autograd.grad(g.sum(), [x, y])] == [[0.25, 0.25], [-0.25, -0.25]]


def test_integers_end_the_tape():
    x = tg.tensor([1.5, -2.5], requires_grad=True)
    for y in (x.long(), x.bool(), x.to(tg.int32), x.type(tg.uint8)):
        assert not y.requires_grad and not (y.double() * 2).requires_grad
    counts = tg.zeros(2, dtype=tg.int64)
    counts.copy_(x)
    counts[0] = x[1]
    assert not counts.requires_grad and counts.tolist() == [-2, -2]


def test_setitem_under_grad():
    x, v = leaf([1.0, 2.0, 3.0]), leaf(10.0)
    y = x * 2
    y[1] = v * v
    y[tg.tensor([0, 2])] = y[tg.tensor([2, 0])] * 3
    (y * tg.tensor([1.0, 2.0, 3.0], dtype=tg.float64)).sum().backward()
    np.testing.assert_allclose(x.grad.tolist(), [18.0, 0.0, 6.0])
    assert v.grad.item() == 40.0


def test_relu_in_place_differentiates_from_its_output():
    x = leaf([-1.0, 2.0])
    y = x * 1.0
    tg.nn.functional.relu(y, inplace=True)
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]


def test_overlapping_writes_are_refused_and_change_nothing():
    x = tg.arange(6, dtype=tg.float64)
    with pytest.raises(RuntimeError, match="shares part of its memory"):
        x[1:].add_(x[:-1])
    with pytest.raises(RuntimeError, match="expanded"):
        tg.zeros(1).expand(3).add_(1)
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_in_place_never_changes_shape_or_category():
    x = tg.arange(3)
    with pytest.raises(RuntimeError, match="can't be stored"):
        x.add_(0.5)
    with pytest.raises(RuntimeError, match="shape"):
        x.add_(tg.ones(2, 3, dtype=tg.int64))
    assert x.tolist() == [0, 1, 2]


def test_requires_grad_rules():
    with pytest.raises(RuntimeError, match="floating point"):
        tg.tensor([1], requires_grad=True)
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="leaf"):
        y.requires_grad = False
    assert not y.detach().requires_grad


def test_null_backend_runs_the_tape_without_arithmetic():
    with tg.backend("null"):
        x = tg.ones(4096, 4096, 64, requires_grad=True)
        loss = ((x * x).sum(dim=1) + x.mean(dim=1)).relu().sum()
        loss.backward()
        assert tuple(x.grad.shape) == (4096, 4096, 64)


def test_no_public_function_is_a_bare_record():
    """The tape finds the user's line above the functions around records; see ``Op.entry``."""
    bare = [
        f"{space.__name__}.{n}" for space in (tg, F, tg.Tensor) for n in dir(space) if isinstance(getattr(space, n), Op)
    ]
    assert bare == []


class _Squared(nn.Module):
    def forward(self, x):
        return x * x  # squared in a module


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda x: x * x, "x * x"),
        (lambda x: x.exp(), "x.exp()"),
        (lambda x: tg.exp(x), "tg.exp(x)"),
        (lambda x: F.softplus(x), "F.softplus(x)"),
        (lambda x: nn.Softplus()(x), "nn.Softplus()(x)"),
        (lambda x: F.softmax(x, dim=0), "F.softmax(x, dim=0)"),
        (lambda x: x.square().prod(dim=0), "x.square()"),
        (lambda x: _Squared()(x), "squared in a module"),
    ],
)
def test_the_error_about_a_changed_tensor_quotes_the_users_line(call, line):
    x = tg.tensor([0.5, 1.5], requires_grad=True)
    y = x + 0.0
    z = call(y)
    with tg.no_grad():
        y.mul_(2.0)
        z.mul_(2.0)  # some save their output
    with pytest.raises(RuntimeError, match="changed in place") as caught:
        z.sum().backward()
    assert line in str(caught.value)


def test_the_error_quotes_the_line_of_a_users_formula():
    @tg.elementwise
    def cubed_for_its_line(x):
        return x * x * x

    test_the_error_about_a_changed_tensor_quotes_the_users_line(
        lambda x: cubed_for_its_line(x), "lambda x: cubed_for_its_line(x)"
    )


def test_the_user_s_line_where_fewer_frames_are_above_than_usual():
    """As where a script calls an op's record itself: with ``tape = "python"`` it looks further up than there is."""
    line = user_line(10_000)
    assert line is not None and line[0].co_name == "test_the_user_s_line_where_fewer_frames_are_above_than_usual"
