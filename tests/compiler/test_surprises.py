"""What people do with compiled functions besides calling them from one loop: threads, odd dtypes, errors on the way,
recursion, iterators, subclasses, copies."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import AutogradError, CompileError, TensorgradError
from tests.compiler.beside import BACKENDS, beside

F = nn.functional


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request: Any) -> Any:
    with tg.backend(request.param):
        yield request.param


def network() -> Any:
    tg.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def draw(i: int, *shape: int) -> Any:
    return tg.tensor(np.random.default_rng(i).normal(size=shape or (4, 3)).astype(np.float32))


def bits(what: Any) -> Any:
    return what.detach().numpy().tobytes()


# --- threads


def in_threads(count: int, run: Callable[[int], Any], backend: str) -> list[Any]:
    """What ``run(i)`` gives in each of several threads, which start together."""
    results: list[Any] = [None] * count
    errors: list[Exception] = []
    start = threading.Barrier(count)

    def one(i: int) -> None:
        start.wait()
        try:
            with tg.backend(backend):
                results[i] = run(i)
        except Exception as error:  # noqa: BLE001 - raised again by whoever started the thread
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results


def test_threads_call_one_function(backend: str) -> None:
    model = network()
    f = tg.compile(lambda x: (model(x) * 2, x.sum()))
    wanted = [[bits(part) for part in (model(draw(i)) * 2, draw(i).sum())] for i in range(40)]
    f(draw(0))

    def run(who: int) -> list[Any]:
        return [[bits(part) for part in f(draw(i))] for i in range(40)]

    for found in in_threads(3, run, backend):
        assert found == wanted
    assert f.stats()["captures"] <= 2


def test_threads_call_one_function_of_large_arrays(backend: str) -> None:
    """Results lie in the program's blocks, which each thread has its own of meanwhile."""
    f = tg.compile(lambda x: ((x * 2).exp() + 1).reshape(64, 64).t() @ x.reshape(64, 64))
    xs = [draw(i, 4096) * 0.1 for i in range(6)]
    wanted = [bits(f.function(x)) for x in xs]

    def run(who: int) -> list[Any]:
        kept = [f(x) for x in (*xs, *xs)]
        return [bits(y) for y in kept]

    for found in in_threads(3, run, backend):
        if backend == "numpy":
            assert found == [*wanted, *wanted]
        else:
            for a, b in zip(found, [*wanted, *wanted], strict=True):
                np.testing.assert_allclose(np.frombuffer(a, np.float32), np.frombuffer(b, np.float32), rtol=1e-5)


def test_threads_make_backward_passes_of_one_function(backend: str) -> None:
    model = network()
    compiled = tg.compile(lambda x: model(x).square().sum())

    def slopes(f: Any, i: int) -> Any:
        x = draw(i).requires_grad_()
        return [bits(g) for g in tg.autograd.grad(f(x), [x, *model.parameters()])]

    wanted = [slopes(compiled.function, i) for i in range(20)]
    slopes(compiled, 0)
    for found in in_threads(3, lambda who: [slopes(compiled, i) for i in range(20)], backend):
        assert found == wanted


def test_threads_make_one_backward_pass(backend: str) -> None:
    """The same node's, again and again: its block serves one pass at a time."""
    weight = draw(0, 48, 48).requires_grad_()
    f = tg.compile(lambda x: (x @ weight).tanh().square().mean())
    for _ in range(2):
        loss = f(draw(1, 48, 48))
    wanted = bits(tg.autograd.grad(loss, weight, retain_graph=True)[0])

    def run(who: int) -> list[Any]:
        return [bits(tg.autograd.grad(loss, weight, retain_graph=True)[0]) for _ in range(30)]

    for found in in_threads(3, run, backend):
        assert set(found) == {wanted}


def test_each_thread_has_a_step_of_its_own(backend: str) -> None:
    models = [network() for _ in range(4)]  # here: the generator that weights are drawn from is everybody's

    def train(compiled: Callable[[Any], Any]) -> list[Any]:
        model = models.pop()
        optimizer = tg.optim.Adam(model.parameters(), lr=0.01)

        @compiled
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        losses = [bits(step(draw(i))) for i in range(25)]
        return [*losses, *map(bits, model.parameters())]

    wanted = train(lambda f: f)
    for found in in_threads(3, lambda who: train(tg.compile), backend):
        assert found == wanted


def test_garbage_is_collected_during_a_replay(backend: str) -> None:
    """Collections run Python (weak references' callbacks) wherever an object is made."""
    model = network()
    optimizer = tg.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    seen: list[int] = []

    class Knot:
        pass

    def rubbish() -> None:
        gc.disable()  # a collection that finds it alive moves it to where the collector seldom looks
        knot = Knot()
        knot.self = knot  # type: ignore[attr-defined]
        weakref.finalize(knot, lambda: seen.append(len(f.entries)))
        del knot
        gc.enable()

    def step(f: Any, x: Any) -> Any:
        optimizer.zero_grad()
        loss = f(x)
        loss.backward()
        optimizer.step()
        return bits(loss)

    f = tg.compile(lambda x: model(x).square().mean())
    start = copy.deepcopy(model.state_dict())
    wanted = [step(f.function, draw(i)) for i in range(20)]
    model.load_state_dict(start)
    optimizer.state.clear()
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        found = []
        for i in range(20):
            rubbish()
            found.append(step(f, draw(i)))
    finally:
        gc.set_threshold(*before)
    assert found == wanted and seen


# --- dtypes


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "complex64", "int64", "int32", "uint8", "bool"])
def test_arguments_of_any_dtype(dtype: str, backend: str) -> None:
    kind = getattr(tg, dtype)

    def script(compiled: Any, show: Any) -> None:
        f = compiled(lambda x, y: (x + y, x * y, tg.where(x == y, x, y), x.reshape(-1)[1:], x.to(tg.float32).sum()))
        g = compiled(lambda x, w: (x * w).sum())
        for i in range(4):
            array = np.random.default_rng(i).integers(0, 3, (2, 3))
            x = tg.tensor(array).to(kind)
            y = tg.tensor(array[::-1].copy()).to(kind)
            show([part.to(tg.complex64 if dtype == "complex64" else tg.float64) for part in f(x, y)])
            show([part.dtype for part in f(x, y)])
            if kind.is_floating_point() if callable(kind.is_floating_point) else kind.is_floating_point:
                w = y.clone().requires_grad_()
                loss = g(x, w)
                loss.backward()
                show(loss.double(), w.grad.double(), w.grad.dtype)

    beside(script, backend)


# --- errors on the way


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("kind", [Interrupted, KeyboardInterrupt, SystemExit])
def test_an_error_of_the_user_leaves_what_it_leaves_eagerly(kind: type[BaseException], backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = network()
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        fails = [False]

        @compiled
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            if fails[0]:
                raise kind("in the middle")
            optimizer.step()
            return loss.detach()

        def fail(i: int) -> None:
            fails[0] = True
            with pytest.raises(kind, match="in the middle"):
                step(draw(i))
            fails[0] = False
            show([p.grad for p in model.parameters()], list(model.parameters()))

        fail(0)  # in what would have been the capture
        for i in range(3):
            show(step(draw(i)), list(model.parameters()))
        fail(3)  # after replays
        for i in range(3):
            show(step(draw(i)), list(model.parameters()))

    [one] = beside(script, backend)
    stats = one.stats()
    assert stats["replays"] >= 3 and stats["eager"] == 0, stats


def test_an_error_in_a_pair(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = network()
        bad = [False]

        @compiled
        def loss_of(x: Any) -> Any:
            y = model(x)
            return y.reshape(5, 7).sum() if bad[0] else y.square().sum()

        for turn in range(6):
            bad[0] = turn in (0, 3)
            model.zero_grad()
            if bad[0]:
                with pytest.raises(TensorgradError):
                    loss_of(draw(turn))
            else:
                loss = loss_of(draw(turn))
                loss.backward()
                show(loss, [p.grad for p in model.parameters()])

    beside(script, backend)


def test_an_index_that_a_replay_finds_out_of_range(backend: str) -> None:
    table = draw(0, 5, 3)
    f = tg.compile(lambda i: F.embedding(i, table).sum(1))
    for i in range(3):
        assert f(tg.tensor([i, 4])).tolist() == table[[i, 4]].sum(1).tolist()
    for _ in range(2):
        with pytest.raises(IndexError):
            f(tg.tensor([0, 5]))
    assert f(tg.tensor([2, 3])).tolist() == table[[2, 3]].sum(1).tolist()


# --- functions in functions


def test_a_function_that_calls_itself(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        @compiled
        def power(x: Any, n: int) -> Any:
            return x if n == 0 else x * power(x, n - 1)

        for i in range(4):
            for n in (0, 1, 4, 2):
                show(power(draw(i), n))

    beside(script, backend)


def test_functions_that_call_each_other(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = network()
        inner = compiled(model)
        half = compiled(lambda x: x * 0.5)
        loss_of = compiled(lambda x: half(inner(x)).square().sum())

        @compiled
        def step(x: Any) -> Any:
            model.zero_grad()
            loss = loss_of(half(x))
            loss.backward()
            return loss.detach()

        for i in range(4):
            show(half(draw(i)))
            show(step(draw(i)), [p.grad for p in model.parameters()])
            model.zero_grad()
            loss = loss_of(draw(i))
            loss.backward()
            show(loss, [p.grad for p in model.parameters()])
            with tg.no_grad():
                show(inner(draw(i)))

    beside(script, backend)


def test_a_function_made_within_another(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        @compiled
        def outer(x: Any) -> Any:
            return tg.compile(lambda y: y + 1)(x) * 2

        for i in range(4):
            show(outer(draw(i)))

    beside(script, backend)


# --- arguments


class Pair(NamedTuple):
    a: Any
    b: Any = 2.0


@dataclass
class Batch:
    x: Any
    scale: float = 1.0


def test_arguments_by_name_by_default_and_in_numbers(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        @compiled
        def f(x: Any, k: float = 2.0, *more: Any, y: Any = None, **rest: Any) -> Any:
            total = x * k
            for one in (*more, *(rest[name] for name in sorted(rest))):
                total = total + one
            return total if y is None else total - y

        for i in range(3):
            x, y = draw(i), draw(i + 9)
            show(f(x), f(x, 3.0), f(x, k=3.0), f(x=x), f(x, 2.0, y, y), f(x, y=y), f(y=y, x=x), f(x, p=y, q=x))
            show(f(x, q=x, p=y), f(x, 1.0, y, y=x, z=y))

    beside(script, backend, options={"limit": 12})  # the order within **rest is another program's


def test_tuples_and_dataclasses_go_in_and_named_tuples_come_out(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        f = compiled(lambda p: Pair(p.a * p.b, {"sum": p.a.sum(), "b": p.b}))
        for i in range(3):
            for p in (Pair(draw(i)), Pair(draw(i), 3.0), Pair(draw(i), draw(i + 5))):
                got = f(p)
                assert type(got) is Pair
                show(got.a, got.b["sum"], got.b["b"])
        batch = Batch(draw(0))
        g = compiled(lambda batch: batch.x * batch.scale)
        for i in range(3):
            batch.x = draw(i)
            show(g(batch))
        batch.scale = 3.0
        for i in range(3):
            show(g(batch), g(Batch(draw(i), 2.0)))

    beside(script, backend)


def test_an_object_that_a_function_makes_is_refused_by_name(backend: str) -> None:
    f = tg.compile(lambda x: Batch(x * 2))
    with pytest.raises(CompileError, match="Batch"):
        f(draw(0))


def test_iterators_are_gone_through_once(backend: str) -> None:
    """A replay would not move them on, so each call must run, or be refused."""

    def script(compiled: Any, show: Any) -> None:
        f = compiled(lambda values: sum(v * 2 for v in values))
        for i in range(4):
            show(f(iter([draw(i), draw(i + 1)])), f(draw(i + k) for k in range(3)))
        endless = (draw(i) for i in range(100))
        g = compiled(lambda it: next(it) + 1)
        for _ in range(5):
            show(g(endless))

    try:
        beside(script, backend)
    except CompileError as error:
        assert "is an iterator" in str(error)


@pytest.mark.filterwarnings("ignore:compile. calls of .* run as they are")
def test_arrays_of_numpy(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        f = compiled(lambda x, y: x * tg.from_numpy(y))
        y = np.ones(3, np.float32)
        for i in range(4):
            y[i % 3] += 1
            show(f(draw(i), y), f(draw(i), np.full(3, i, np.float32)))

    beside(script, backend)
    table = np.ones(3, np.float32)
    with pytest.raises(CompileError, match=r"NumPy array at .*test_surprises\.py"):
        tg.compile(lambda x: x * tg.from_numpy(table))(draw(0))
    with pytest.raises(CompileError, match=r"NumPy array at .*test_surprises\.py"):
        tg.compile(lambda x: x * tg.frombuffer(bytearray(table.tobytes()), dtype=tg.float32))(draw(0))


class Marked(tg.Tensor):
    pass


def test_subclasses_of_tensor(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        f = compiled(lambda x: x * 2 + 1)
        for i in range(3):
            plain = draw(i)
            marked = plain.as_subclass(Marked) if hasattr(plain, "as_subclass") else Marked(plain)
            for x in (plain, marked, nn.Parameter(plain)):
                y = f(x)
                show(y.detach(), y.requires_grad, type(y).__name__)

    beside(script, backend)


# --- lives


def test_models_are_freed_with_what_was_compiled_of_them(backend: str) -> None:
    model = network()
    compiled = tg.compile(model)
    for i in range(3):
        compiled(draw(i)).sum().backward()
    seen = [weakref.ref(model), weakref.ref(model[0].weight), weakref.ref(compiled)]
    del model, compiled
    gc.collect()
    assert [ref() for ref in seen] == [None] * 3


def test_batches_are_freed_after_the_call(backend: str) -> None:
    f = tg.compile(lambda x: (x * 2).sum())
    model = network()
    loss_of = tg.compile(lambda x: model(x).sum())
    for i in range(3):
        x = draw(i)
        ref = weakref.ref(x)
        f(x)
        loss = loss_of(x)
        loss.backward()
        del x
        gc.collect()
        assert ref() is None


def test_a_deep_copy_is_another_model(backend: str) -> None:
    compiled = tg.compile(network())
    before = bits(compiled(draw(0)))
    for again in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert type(again) is type(compiled) and again[0].weight is not compiled[0].weight
        assert bits(again(draw(0))) == before
        with tg.no_grad():
            again[0].weight.mul_(2.0)
        for _ in range(3):
            assert bits(compiled(draw(0))) == before
            assert bits(again(draw(0))) != before
            assert bits(again(draw(0))) == bits(again._orig_mod(draw(0)))


def test_a_compiled_model_is_a_member_of_another(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        outer = nn.Sequential(compiled(network()), nn.Linear(2, 1))
        optimizer = tg.optim.SGD(outer.parameters(), lr=0.1)
        for i in range(5):
            if i == 3:
                outer.eval()
            optimizer.zero_grad()
            loss = outer(draw(i)).square().sum()
            loss.backward()
            optimizer.step()
            show(loss, list(outer.parameters()), outer.training, [m.training for m in outer.modules()][-1])

    beside(script, backend)


def test_hooks_on_what_a_compiled_model_returns(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = network()
        f = compiled(model)
        seen: list[Any] = []
        for i in range(5):
            y = f(draw(i))
            if i % 2:
                y.register_hook(lambda g: seen.append(g.clone()) or g * 2)
            if i == 4:
                y.retain_grad()
            model.zero_grad()
            y.square().sum().backward()
            show([p.grad for p in model.parameters()], y.grad, list(seen))

    beside(script, backend)


def test_hooks_on_what_a_compiled_model_is_given(backend: str) -> None:
    """A gradient goes through the hooks of parameters and arguments once: not in the program, and again behind it."""

    def script(compiled: Any, show: Any) -> None:
        model = network()
        f = compiled(model)
        model[0].weight.register_hook(lambda g: g * 3)
        for i in range(6):
            if i == 3:
                model[0].bias.register_hook(lambda g: g - 1)
            x = draw(i).requires_grad_()
            y = x * 2 if i % 2 else x
            y.register_hook(lambda g: g * 5)
            y.retain_grad()
            model.zero_grad()
            f(y).square().sum().backward()
            show([p.grad for p in model.parameters()], x.grad, y.grad)

    beside(script, backend)


def test_hooks_and_second_derivatives(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = tg.nn.Sequential(tg.nn.Linear(4, 3), tg.nn.Tanh(), tg.nn.Linear(3, 1))
        model[0].weight.register_hook(lambda g: g * 3)
        f = compiled(lambda x: model(x).sum())
        for i in range(3):
            x = draw(i, 2, 4).requires_grad_()
            y = x * 2
            y.register_hook(lambda g: g * 5)
            y.retain_grad()
            (slope,) = tg.autograd.grad(f(y), x, create_graph=True)
            model.zero_grad()
            slope.square().sum().backward()
            show(slope, [p.grad for p in model.parameters()], x.grad, y.grad)

    beside(script, backend)


def test_hooks_that_a_function_registers_on_its_argument(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        def f(x: Any) -> Any:
            x.register_hook(lambda g: g * 3)
            return x.square().sum()

        def step(x: Any) -> None:
            f(x).backward()

        fast, whole = compiled(f), compiled(step)
        for i in range(4):
            x, z = draw(i, 3).requires_grad_(), draw(i, 3).requires_grad_()
            y = x * 2 if i % 2 else x
            fast(y).backward()
            whole(z)
            show(x.grad, z.grad)

    beside(script, backend)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.filterwarnings("ignore:compile. calls of .* run as they are")
def test_hooks_on_arguments_whose_gradient_a_step_makes(first: bool, backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        w = draw(9, 3).requires_grad_()

        @compiled
        def step(x: Any) -> Any:
            w.grad = None
            loss = (x * w).square().sum()
            loss.backward()
            return loss.detach()

        for i in range(8):
            x = draw(i, 3).requires_grad_()
            y = x * 2 if i >= 6 else x
            if bool(i % 2) != first:
                y.register_hook(lambda g: g * 3)
            show(step(y), x.grad, w.grad)

    beside(script, backend)


def test_a_gradient_that_a_step_returns_is_the_parameters_own(backend: str) -> None:
    def script(compiled: Any, show: Any) -> None:
        model = network()
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

        def train(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        @compiled
        def both(x: Any) -> Any:
            loss = train(x)
            return loss, {"grads": [p.grad for p in model.parameters()]}

        @compiled
        def alone(x: Any) -> Any:
            train(x)
            return model[0].weight.grad

        @compiled
        def kept() -> Any:
            return model[0].weight.grad

        for i in range(5):
            loss, found = both(draw(i))
            show(loss, *found["grads"], found["grads"][0] is model[0].weight.grad)
            found["grads"][0].fill_(9.0)
            show(model[0].weight.grad, found["grads"])
            grad = alone(draw(i))
            grad.mul_(2.0)
            show(grad is model[0].weight.grad, grad, list(model.parameters()), kept() is grad)

    beside(script, backend)


def test_a_pass_for_many_gradients_at_once(backend: str) -> None:
    """vmap over backward, as jacrev does it, through what a compiled function has computed."""

    def script(compiled: Any, show: Any) -> None:
        model = network()
        f = compiled(lambda x: model(x))
        for i in range(3):
            x = draw(i, 3)
            f(x)
            show(tg.func.jacrev(f)(x), tg.autograd.functional.jacobian(f, x, vectorize=True))
            x.requires_grad_()
            show(tg.autograd.grad(f(x), x, tg.eye(2), is_grads_batched=True))
            f(x).sum().backward()
            show(x.grad)

    beside(script, backend)


def test_a_pass_for_many_gradients_through_random_numbers_is_refused(backend: str) -> None:
    f = tg.compile(lambda x: x * tg.rand(3))
    for _ in range(2):
        with pytest.raises(CompileError, match="gradients under vmap"):
            tg.func.jacrev(f)(tg.ones(3))


def test_an_argument_with_a_history_that_is_changed_in_place(backend: str) -> None:
    w = tg.ones(3, requires_grad=True)

    def doubled(x: Any) -> Any:
        return x.mul_(2.0).sum()

    def first(x: Any) -> Any:
        x[0] = 5.0
        return x.sum()

    for function in (doubled, first):
        with pytest.raises(CompileError, match=r"argument 0, .* is changed in place at .*test_surprises\.py"):
            tg.compile(function)(w * 3.0)
        f = tg.compile(function, fallback=True)
        for _ in range(3):
            x, y = w * 3.0, w * 3.0
            grads = [tg.autograd.grad(g(t), w)[0].tolist() for g, t in ((f, x), (function, y))]
            assert grads[0] == grads[1] and x.tolist() == y.tolist()
        leaf = tg.ones(3, requires_grad=True)
        with pytest.raises(AutogradError, match="leaf"):
            f(leaf)


def test_an_inference_tensor_that_backward_does_not_read(backend: str) -> None:
    w = draw(0, 3).requires_grad_()
    with tg.inference_mode():
        shift = draw(1, 3)
    f = tg.compile(lambda x, shift: (x * w + shift).sum())
    for i in range(4):
        loss = f(draw(i, 3), shift)
        assert bits(tg.autograd.grad(loss, w)[0]) == bits(draw(i, 3))
    assert f.stats()["replays"] == 3
    with pytest.raises(AutogradError, match="inference tensor"):
        tg.compile(lambda x: x * w)(shift)


def test_what_a_pair_saved_is_guarded(backend: str) -> None:
    """Changing what backward needs is an error, as it is eagerly; a second pass without retain_graph as well."""
    w = draw(0, 3, 3).requires_grad_()
    f = tg.compile(lambda x: (x @ w @ w).square().sum())
    for _ in range(3):
        loss = f(draw(1))
        with tg.no_grad():
            w.mul_(2.0)
        with pytest.raises(AutogradError, match="changed in place"):
            loss.backward()
    x = draw(2)
    loss = f(x)
    x.add_(1.0)
    with pytest.raises(AutogradError, match="changed in place"):
        loss.backward()
    loss = f(draw(1))
    loss.backward()
    with pytest.raises(AutogradError, match="second time"):
        loss.backward()


def test_a_function_that_each_call_captures_anew_says_why(backend: str) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model, self.seen = network(), 0

        def loss(self, x: Any) -> Any:
            return self.model(x).sum() * (1.0 if self.seen else 2.0)

    trainer = Trainer()
    loss = tg.compile(trainer.loss)
    with pytest.warns(UserWarning, match=r"Since the last call: .*seen was 14 and is 15"):
        for i in range(20):
            assert bits(loss(draw(i))) == bits(trainer.loss(draw(i))), i
            trainer.seen += 1


def test_a_learning_rate_that_the_function_changes_is_refused():
    """It may change between calls, so it is no fact; within a call it is what a replay would not repeat."""
    w = tg.nn.Parameter(tg.ones(2))
    optimizer = tg.optim.SGD([w], lr=1.0)

    def step():
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5

    f = tg.compile(step)
    with pytest.raises(CompileError, match=r"param_groups\[0\]\['lr'\] was 0\.\d+ and is 0\.\d+"):
        for _ in range(6):
            f()
    optimizer.param_groups[0]["lr"], cut = 1.0, tg.compile(step, fallback=True)
    for i in range(8):
        before = w.tolist()[0]
        cut()
        assert w.tolist()[0] == pytest.approx(before - 2 * before * 0.5**i)
    assert cut.stats()["replays"] >= 4


def test_the_state_of_a_generator_is_not_returned():
    """All replays fill one array with it."""

    def drawn(x: Any) -> Any:
        state = tg.get_rng_state()
        return x * tg.rand(3), state

    with pytest.raises(CompileError, match="the state of a generator is returned"):
        tg.compile(drawn)(tg.ones(3))
    tg.manual_seed(0)
    as_it_is = tg.compile(drawn, fallback=True)
    states = [as_it_is(tg.ones(3))[1] for _ in range(6)]
    assert len({bits(state) for state in states}) == 6
