"""A base's history that begins after views of it were made: they have it too, as PyTorch's have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.errors import AutogradError


def _base_changed(lib: Any, b: Any, w: Any) -> Any:
    v = b[1:]
    b.mul_(w)
    return v


def _view_of_a_view(lib: Any, b: Any, w: Any) -> Any:
    v = b.view(3, 1)[1:].squeeze(1)
    b.add_(w * w)
    return v


def _through_one_read_through_another(lib: Any, b: Any, w: Any) -> Any:
    first, second = b[:2], b[1:]
    first.mul_(w[:2])
    return second


def _changed_twice(lib: Any, b: Any, w: Any) -> Any:
    v, u = b[1:], b.view(3, 1)
    b.mul_(w)
    assert v.grad_fn is not None  # until it is asked, PyTorch takes it for a leaf
    v.mul_(w[1:])
    return u.squeeze(1)[1:]


def _a_view_made_of_it_since(lib: Any, b: Any, w: Any) -> Any:
    v = b[1:]
    b.mul_(w)
    return v[0:]


def _begun_without_then_with(lib: Any, b: Any, w: Any) -> Any:
    v = b[1:]
    with lib.no_grad():
        b.mul_(w)
    b.mul_(w)
    return v


def _written_into(lib: Any, b: Any, w: Any) -> Any:
    v = b[1:]
    b.copy_(w)
    other = lib.ones(2)
    other.copy_(v)
    other[0] = v[1]
    return other


def _as_strided(lib: Any, b: Any, w: Any) -> Any:
    v = b.as_strided((2,), (2,), 0)
    b.mul_(w)
    return v


def _detached(lib: Any, b: Any, w: Any) -> Any:
    d = b.detach()
    v = d[1:]
    b.mul_(w)
    assert not d.requires_grad and not v.requires_grad and v.is_leaf and d.grad_fn is None
    return b[1:] * v.clone()


def _read_without(lib: Any, b: Any, w: Any) -> Any:
    v = b[1:]
    b.mul_(w)
    with lib.no_grad():
        assert not (v * 2).requires_grad and v.requires_grad and not v.is_leaf
    return v


CASES: list[Callable[[Any, Any, Any], Any]] = [
    _base_changed, _view_of_a_view, _through_one_read_through_another, _changed_twice, _a_view_made_of_it_since,
    _begun_without_then_with, _written_into, _as_strided, _detached, _read_without,
]  # fmt: skip


def _run(lib: Any, case: Callable[[Any, Any, Any], Any]) -> Any:
    w = lib.nn.Parameter(lib.tensor([2.0, 3.0, 5.0]))
    b = lib.ones(3)
    v = case(lib, b, w)
    found = [v.requires_grad, v.is_leaf, v.tolist()]
    first = lib.autograd.grad((v * v * v).sum(), w, create_graph=True)[0]
    second = lib.autograd.grad((first * w).sum(), w)[0]
    return [*found, first.tolist(), second.tolist()]


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("case", CASES, ids=[case.__name__.strip("_") for case in CASES])
def test_a_view_made_before_its_base_has_a_history(case: Any, backend: str) -> None:
    torch = pytest.importorskip("torch")
    with tg.backend(backend):
        assert _run(tg, case) == _run(torch, case)


def _cube(lib: Any, x: Any) -> Any:
    class Cube(lib.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 3 * ctx.saved_tensors[0] * ctx.saved_tensors[0]

    return Cube.apply(x)


def _users(lib: Any) -> dict[str, Callable[[Any, Any], Any]]:
    return {
        "mul": lambda v, w: v * v, "mul after": lambda v, w: w[1:] * v, "cat": lambda v, w: lib.cat([w, v]),
        "matmul": lambda v, w: v @ w[1:], "unbind": lambda v, w: v.unbind(0)[1],
        "function": lambda v, w: _cube(lib, v), "softmax": lambda v, w: v.softmax(0),
    }  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("user", list(_users(tg)))
def test_the_new_history_is_older_than_its_first_user(user: str, tracked: bool, backend: str) -> None:
    torch = pytest.importorskip("torch")

    def found(lib: Any) -> Any:
        w = lib.nn.Parameter(lib.tensor([2.0, 3.0, 5.0], dtype=lib.float64))
        outcome = []
        for create in (False, True):
            b = w * 1.0 if tracked else lib.ones(3, dtype=lib.float64)
            v = b[1:]
            b.mul_(w)
            first = _users(lib)[user](v, w).sum()  # its history begins while this is recorded
            loss = first + (v.sin() * 2).sum() + b.cos().sum()
            g = lib.autograd.grad(loss, w, create_graph=create)[0]
            outcome.append(g.tolist())
        outcome.append(lib.autograd.grad((g * g).sum(), w)[0].tolist())
        return outcome

    with tg.backend(backend):
        for ours, theirs in zip(found(tg), found(torch), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-12)


def test_a_whole_number_view_has_no_history() -> None:
    b = tg.ones(2)
    v = b.view(tg.int32)
    b.mul_(tg.nn.Parameter(tg.tensor([1.0, 2.0])))
    assert not v.requires_grad and v.grad_fn is None and (v + 1).grad_fn is None and not v.requires_grad


def test_a_view_is_no_leaf_from_then_on() -> None:
    b = tg.ones(2)
    v = b[1:]
    b.mul_(tg.nn.Parameter(tg.tensor([1.0, 2.0])))
    with pytest.raises(AutogradError, match="only leaf tensors"):
        v.register_post_accumulate_grad_hook(print)


def test_a_view_made_without_recording_is_refused() -> None:
    w = tg.nn.Parameter(tg.tensor([1.0, 2.0]))
    b = tg.ones(2)
    with tg.no_grad():
        v = b[1:]
        strided = b.as_strided((1,), (1,), 0)
    with pytest.raises(AutogradError, match="made under no_grad is changed in place"):
        v.mul_(w[1:])
    assert b.tolist() == [1.0, 1.0] and not b.requires_grad
    b.mul_(w)
    for view in (v, strided):
        assert view.requires_grad
        with pytest.raises(AutogradError, match="made under no_grad is used after"):
            view * 2
        with tg.no_grad():
            assert (view * 2).requires_grad is False


_WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "mul_": lambda lib, z: z.mul_(2.0), "add_": lambda lib, z: z.add_(lib.ones(2), alpha=2.0),
    "copy_": lambda lib, z: z.copy_(lib.ones(2)), "fill_": lambda lib, z: z.fill_(3.0),
    "zero_": lambda lib, z: z.zero_(),
    "item": lambda lib, z: z.__setitem__(0, 4.0), "items": lambda lib, z: z.__setitem__(slice(None), lib.ones(2)),
    "mask": lambda lib, z: z.__setitem__(z > 0, 1.0), "sin_": lambda lib, z: z.sin_(),
    "index_fill_": lambda lib, z: z.index_fill_(0, lib.tensor([0]), 1.0), "uniform_": lambda lib, z: z.uniform_(),
    "cumsum_": lambda lib, z: z.cumsum_(0), "relu": lambda lib, z: lib.nn.functional.relu(z, inplace=True),
    "a view of it": lambda lib, z: z[:1].mul_(2.0), "out=": lambda lib, z: lib.add(lib.ones(2), 1.0, out=z),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize("leaf", [False, True])
@pytest.mark.parametrize("write", list(_WRITES))
def test_a_view_made_without_recording_is_not_written_past_the_tape(write: str, leaf: bool, backend: str) -> None:
    """What is written has no history, but the base has: its gradients would be those of another program."""
    torch = pytest.importorskip("torch")
    with tg.backend(backend):
        for lib in (tg, torch):
            w = lib.nn.Parameter(lib.tensor([1.0, 2.0, 3.0]))
            b = w if leaf else w * 1.0
            with lib.no_grad():
                z = b[1:]
            with pytest.raises(RuntimeError, match=r"no_grad|leaf|out="):
                _WRITES[write](lib, z)
            assert b.tolist() == [1.0, 2.0, 3.0]
            with lib.no_grad():
                _WRITES["fill_"](lib, z)
            assert b.tolist() == [1.0, 3.0, 3.0]


def test_a_view_made_without_recording_of_what_has_no_history_is_changed() -> None:
    b = tg.ones(3)
    with tg.no_grad():
        z = b[1:]
        whole = tg.nn.Parameter(tg.ones(2)).view(tg.int32)
    z.mul_(2.0)
    z[0] = 5.0
    whole.zero_()
    assert b.tolist() == [1.0, 5.0, 2.0] and whole.tolist() == [0, 0]


def test_a_compiled_function_sees_that_an_argument_has_begun_to_require_grad() -> None:
    f = tg.compile(lambda x: (x * x).sum())
    w = tg.nn.Parameter(tg.tensor([2.0, 3.0]))
    for _ in range(3):
        b = tg.ones(2)
        v = b[1:]
        f(v)
    b.mul_(w)
    f(v).backward()
    assert w.grad is not None and w.grad.tolist() == [0.0, 6.0]


@pytest.mark.parametrize(
    "write",
    (
        lambda lib, v: v.mul_(2), lambda lib, v: v.zero_(), lambda lib, v: v.copy_(lib.ones(2)),
        lambda lib, v: v.__setitem__(0, 1.0), lambda lib, v: v.uniform_(),
        lambda lib, v: v.index_add_(0, lib.tensor([0]), lib.ones(1)), lambda lib, v: lib.add(v, 1, out=v),
    ),
)  # fmt: skip
@pytest.mark.parametrize("through", (lambda b: b[1:], lambda b: b.view(3, 1)[1:, 0]))
def test_a_view_of_what_became_a_leaf_is_not_changed_while_recording(write: Any, through: Any) -> None:
    def run(lib: Any) -> None:
        b = lib.ones(3)
        v = through(b)
        b.requires_grad_()
        with lib.no_grad():
            write(lib, v)
        b.detach()[1:].zero_()
        with pytest.raises(RuntimeError, match="a view of a leaf"):
            write(lib, v)

    run(tg)
    torch = pytest.importorskip("torch")
    if write.__code__.co_names[-1] != "add":  # out= of a view is let pass there
        run(torch)
