"""Programs as CUDA graphs where arguments, results and devices are unusual: what eager computes, and what is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler.executor import in_python
from tensorgrad.compiler.program import Program, Value
from tensorgrad.dispatch import OPS, unless
from tensorgrad.errors import CompileError
from tensorgrad.tensor import wrap
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import REFERENCES, StrictCupyBackend, strict_cuda
from tests.compiler.test_made_tensors import MAKERS


@pytest.fixture(autouse=True)
def cuda() -> Iterator[StrictCupyBackend]:
    with strict_cuda(devices=2) as backend:
        yield backend


def told(compiled: Any, program: int = 0) -> str:
    return "\n".join(line for runner in compiled.programs[program].runners for line in runner.told())


def beside_eager(function: Callable[..., Any], *makers: Callable[[], Any]) -> Any:
    """The compiled function, after some calls gave the results and gradients that eager gives."""
    compiled = tg.compile(function)
    for seed in range(4):
        found = []
        for f in (function, compiled):
            tg.manual_seed(seed)
            given = [make() for make in makers]
            results = f(*given)
            results = results if isinstance(results, tuple) else (results,)
            live = [y for y in results if y.requires_grad]
            if live:
                sum((y * y).sum() for y in live).backward()
            found.append([[y.tolist() for y in results], [x.grad.tolist() for x in given if x.grad is not None]])
        assert found[0] == found[1]
    return compiled


def drawn(*shape: int, grad: bool = False) -> Callable[[], Any]:
    return lambda: tg.randn(*shape, device="cuda").requires_grad_(grad)


# --- results that lie in the same memory


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * 2, (x * 2)[0]),
        lambda x: tuple((x * 2).chunk(2)),
        lambda x: tuple(x.exp().unbind(0)),
        lambda x: ((y := x * 2), y[0], y.t()),
    ],
    ids=["twice", "chunks", "rows", "views"],
)
def test_results_with_a_history_that_share_memory(function: Any) -> None:
    assert "CUDA graphs: 1," in told(beside_eager(function, drawn(4, 2, grad=True)))


def test_gradients_that_share_memory() -> None:
    shapes = drawn(6, grad=True), drawn(2, 3, grad=True)
    f = beside_eager(lambda x, y: (x + y.reshape(6)).exp(), *shapes)
    assert "CUDA graphs: 1," in told(f, 1), "the gradients are views of one array, in the backward program"
    beside_eager(lambda x, y: tg.cat((x.reshape(2, 3), y)).exp(), *shapes)


# --- arguments


def test_arguments_of_the_host_beside_those_of_the_device() -> None:
    f = beside_eager(lambda h, x: (h * 2, x * 2), lambda: tg.ones(2), drawn(3))
    assert "CUDA graphs: 1," in told(f) and "outside of graphs: mul (it computes on the host)" in told(f)


def test_the_device_is_that_of_the_state_where_there_are_no_arguments() -> None:
    held = tg.arange(3.0, device="cuda:1")
    f = tg.compile(lambda: (held * 2).exp())
    want = (held * 2).exp().tolist()
    for _ in range(3):
        got = f()
        assert str(got.device) == "cuda:1" and got.tolist() == want
    assert "CUDA graphs: 1," in told(f)
    near = tg.arange(3.0, device="cuda:0")
    beside_eager(lambda: tg.rand(3, device="cuda") + near)
    beside_eager(lambda: tg.rand(3, device="cuda").exp() + 1)


def test_elements_far_from_each_other_are_not_copied_into_a_graph() -> None:
    whole = tg.arange(float((1 << 20) + 2), device="cuda")
    f = beside_eager(lambda x: (x * 2).exp(), lambda: whole[:: 1 << 20])
    assert "replayed in Python, call by call: the elements of argument arg0 lie far from each other" in told(f)


def test_steps_that_are_no_whole_number_of_elements() -> None:
    records = np.zeros(3, dtype=[("a", "f4"), ("b", "i2")])
    records["a"] = 1, 2, 3
    x = wrap(StrictArray(records["a"]))
    f = beside_eager(lambda x: (x * 2).exp(), lambda: x)
    assert "the strides of arg0 are no whole numbers of elements" in told(f)


# --- tensors that a function makes


@pytest.mark.parametrize("name", MAKERS)
def test_what_a_function_makes(name: str) -> None:
    make = MAKERS[name]
    compiled = tg.compile(make)
    with tg.device("cuda"):
        for i in range(4):
            found = []
            for f in (make, compiled):
                tg.manual_seed(i)
                made = f(tg.tensor([1.0, 2.0, 3.0 + i]))
                assert made.device.type == "cuda"
                found.append((made.tolist(), made.stride()))
                made.zero_()  # whoever gets it may write to it
            assert found[0] == found[1]
    assert compiled.stats()["replays"] == 3


def test_an_array_that_was_there_before_is_returned_itself(cuda: StrictCupyBackend) -> None:
    f = tg.compile(lambda x: x * 2)
    x, there = tg.arange(3.0, device="cuda"), tg.ones(2, device="cuda")._data
    for _ in range(2):
        f(x)
    alone = f.programs[0]
    program = Program(alone.steps, alone.arguments, [*alone.outputs, Value("state0", there, fixed=True)])
    runner = cuda.program_runner(program, in_python)
    for _ in range(3):
        doubled, same = runner([x._data])
        assert doubled.get().tolist() == [0.0, 2.0, 4.0] and same is there
    assert "CUDA graphs: 1," in runner.told()[0]


def test_a_copy_to_pinned_memory_is_no_constant() -> None:
    def pinned(x: Any) -> Any:
        return (x * 2).pin_memory()

    with pytest.raises(CompileError, match=r"on cpu is moved to page-locked memory at .*test_graphs\.py"):
        tg.compile(pinned)(tg.ones(2))
    f = tg.compile(pinned, fallback=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it isn't compiled
        for i in range(3):
            assert f(tg.full((2,), float(i))).tolist() == [2.0 * i] * 2


# --- views


def test_an_ordinary_call_that_makes_a_view_of_what_is_written_to(
    cuda: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cuda.raw.slice

    def refusing(*inputs: Any, **attrs: Any) -> Any:
        if cuda.xp.cuda.get_current_stream().is_capturing():
            raise RuntimeError("slice: operation not permitted when stream is capturing")
        return whole(*inputs, **attrs)

    def written(x: Any) -> Any:
        y = x * 2
        view = y[0]
        y.add_(1)
        return (view * 2).exp(), y

    monkeypatch.setitem(cuda.raw.__dict__, "slice", refusing)
    f = beside_eager(written, drawn(3, 2))
    assert "is a view that is made outside of graphs, and what it shows is written to" in told(f)


def test_a_view_that_cannot_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPS["permute"], "view", False)  # as an op that returns a part of its input now and then
    f = beside_eager(lambda x: (x.t(), x * 2), drawn(3, 2))
    assert "shares memory with an argument or another result, and is no simple view" in told(f)


def test_what_views_show_is_read_by_an_ordinary_call() -> None:
    def sorted_too(x: Any) -> Any:
        y = x * 2
        return (*y.chunk(2), y.sort()[0])

    assert "1 calls run between them" in told(beside_eager(sorted_too, drawn(4, 2, grad=True)))


# --- programs without anything to capture


def test_programs_of_which_nothing_can_be_captured() -> None:
    def complex_ones() -> Any:
        return tg.randn(8, dtype=tg.complex64, device="cuda")

    for function, make in ((tg.fft.fft, complex_ones), (lambda x: x.sort()[1], drawn(8))):
        f = beside_eager(function, make)
        assert "replayed in Python, call by call: none of its calls can be captured" in told(f)


def test_what_is_said_before_the_first_replay() -> None:
    f = tg.compile(lambda x: x * 2)
    f(tg.ones(3, device="cuda"))
    assert told(f) == "CUDA graphs: made in the first replay"
    f(tg.ones(3, device="cuda"))
    assert "CUDA graphs: 1," in told(f)


# --- sums at the same places


def sorts(compiled: Any, name: str) -> int:
    """How many sorts of places the graphs of all programs hold."""
    found = [runner.pieces for program in compiled.programs for runner in program.runners if runner.pieces is not None]
    return sum(node[0] is REFERENCES[name] for pieces in found for one in pieces.graphs for node in one.graph.nodes)


def ratings() -> tuple[Any, list[Any]]:
    tg.manual_seed(0)
    tables = [tg.nn.Embedding(7, width).to("cuda") for width in (3, 1)]

    def step(at: Any) -> Any:
        for table in tables:
            table.zero_grad()
        loss = (tables[0](at).square().sum(-1, keepdim=True) * tables[1](at).exp()).sum()
        loss.backward()
        return loss

    return step, [table.weight for table in tables]


def layers() -> tuple[Any, list[Any]]:
    tg.manual_seed(0)
    weights = [tg.randn(7, 2, device="cuda", requires_grad=True) for _ in range(3)]

    def step(at: Any) -> Any:
        for weight in weights:
            weight.grad = None
        loss = sum((weight[at].exp() * (i + 1)).square().sum() for i, weight in enumerate(weights))
        counts = tg.zeros(7, device="cuda").index_add(0, at, tg.ones(len(at), device="cuda"))
        sums = tg.zeros(7, 2, device="cuda").index_add(0, at, weights[0][at].detach().sin())
        loss.backward()
        return loss + (sums / (counts[:, None] + 1)).sum()

    return step, weights


def apart() -> tuple[Any, list[Any]]:
    """Places that differ: one table leaves a row out, and sums go along either dimension."""
    weight = tg.ones(7, 2, device="cuda", requires_grad=True)

    def step(at: Any) -> Any:
        weight.grad = None
        loss = tg.nn.functional.embedding(at, weight, padding_idx=1).square().sum()
        loss = loss + tg.nn.functional.embedding(at, weight).exp().sum()
        square, src = tg.zeros(7, 7, device="cuda"), tg.ones(1, len(at), device="cuda")
        columns = square.scatter_add(1, at[None], src) * tg.arange(7.0, device="cuda")
        rows = square.scatter_add(0, at[None, :7], src[:, :7]) * tg.arange(7.0, device="cuda")[:, None]
        loss.backward()
        return loss + columns.square().sum() + rows.square().sum()

    return step, [weight]


@pytest.mark.parametrize(("make", "wanted"), [(ratings, 1), (layers, 2), (apart, 4)])
@pytest.mark.parametrize("length", [5, 3000])
def test_what_is_added_at_the_same_places_is_sorted_once(make: Any, wanted: int, length: int) -> None:
    """Gradients of tables share a sort, and so do sums at one index."""
    (plain, theirs), (step, ours) = make(), make()
    f = tg.compile(step)
    for i in range(5):
        at = (tg.arange(length, device="cuda") * (i + 3)) % 7
        assert f(at).item() == plain(at).item()
        assert [x.grad.tolist() for x in ours] == [x.grad.tolist() for x in theirs]
    assert sorts(f, "rankedkeys") + sorts(f, "rowkeys") == wanted
    assert any("CUDA graphs: 1," in told(f, i) for i in range(len(f.programs)))


def test_places_that_change_between_sums_are_sorted_again() -> None:
    def moved(at: Any, x: Any) -> Any:
        def summed(*shape: int) -> Any:
            return tg.zeros(*shape, device="cuda").index_add(0, at, x.reshape(3, *[1 for _ in shape[1:]]))

        found = summed(4), summed(4, 1)
        at.add_(1)
        return *found, summed(4), summed(5)

    f = beside_eager(moved, lambda: tg.tensor([2, 0, 2], device="cuda"), drawn(3))
    assert sorts(f, "rankedkeys") == 3  # five rows are others than four


def test_tensors_are_made_on_the_default_device_of_the_day() -> None:
    f = tg.compile(lambda: tg.rand(3).exp())
    for device in ("cpu", "cuda", "cpu", "cuda:0", "cuda:1"):
        for _ in range(3):
            with tg.device(device), tg.cuda.device(1 if device == "cuda:1" else 0):
                assert f().device == tg.zeros(1, device=device).device
    tg.set_default_device("cuda")
    try:
        assert str(f().device) == "cuda:0"
    finally:
        tg.set_default_device(None)
    assert f.stats()["captures"] == 4


# --- where graphs end, and what is left out


def test_much_state_is_written_to_once_checks_have_been_looked_at() -> None:
    table, total = tg.randn(4, 600, device="cuda"), tg.zeros(600, device="cuda")  # more than is put back

    @tg.compile
    def add(at: Any) -> Any:
        total.add_(table[at].sum(0))
        return total * 2

    for i in range(4):
        add(tg.tensor([i], device="cuda"))
    before = total.tolist()
    assert "CUDA graphs: 2," in told(add)
    with pytest.raises(IndexError, match="index 4 is out of bounds"):
        add(tg.tensor([4], device="cuda"))
    assert total.tolist() == before


@pytest.mark.parametrize(("make", "last"), [(tg.optim.SGD, tg.optim.Adam), (tg.optim.Adam, tg.optim.SGD)])
def test_a_check_between_steps_leaves_out_those_behind_it(make: Any, last: Any) -> None:
    weights, table, shift = (tg.nn.Parameter(tg.randn(*shape, device="cuda")) for shape in ((3,), (5, 3), (3,)))
    optimizers = {weights: make([weights], lr=0.1), table: make([table], lr=0.1), shift: last([shift], lr=0.1)}

    @tg.compile
    def step(x: Any, at: Any) -> None:
        weights.grad = table.grad = shift.grad = None
        (weights * x).sum().backward()
        optimizers[weights].step()
        (table[at] * 2 + shift).sum().backward()
        optimizers[table].step()
        optimizers[shift].step()

    def counts() -> list[float]:
        states = [optimizer.state.get(parameter, {}) for parameter, optimizer in optimizers.items()]
        return [float(state["step"]) for state in states if "step" in state]

    x = tg.ones(3, device="cuda")
    for _ in range(3):
        step(x, tg.tensor([1, 2], device="cuda"))
    assert "CUDA graphs: 1," in told(step) and "0 calls run between them" in told(step)
    before, counted = [table.tolist(), shift.tolist()], counts()
    with pytest.raises(IndexError, match="index 7 is out of bounds"):
        step(x, tg.tensor([1, 7], device="cuda"))
    assert [table.tolist(), shift.tolist()] == before
    assert [now - then for now, then in zip(counts(), counted, strict=True)] == (
        [0] if make is tg.optim.SGD else [1, 0]
    )


def test_a_step_that_is_left_out_of_the_first_replay_is_not_counted() -> None:
    def run(compiled: bool) -> tuple[list[Any], Any]:
        parameter = tg.nn.Parameter(tg.ones(3, device="cuda"))
        optimizer = tg.optim.Adam([parameter], lr=0.1)

        def step(x: Any, stop: Any) -> None:
            optimizer.zero_grad()
            (parameter * x).sum().backward()
            unless(stop, optimizer.step)

        f = tg.compile(step) if compiled else step
        for i in range(7):
            f(tg.full((3,), float(i), device="cuda"), tg.tensor(i in (2, 4), device="cuda"))
        return [parameter.tolist(), optimizer.state[parameter]["step"].item()], f

    (found, f), (wanted, _) = run(True), run(False)
    assert found == wanted and found[1] == 5
    assert "CUDA graphs: 1," in told(f) and "0 calls run between them" in told(f)


# --- errors


def test_an_index_out_of_range_names_the_line_if_it_is_known(tmp_path: Path) -> None:
    table = tg.randn(5, 4, device="cuda")
    with tg.no_grad():
        f = tg.compile(lambda at: (table[at] * 2).exp())
        good, bad = tg.tensor([0, 1], device="cuda"), tg.tensor([0, 7], device="cuda")
        for _ in range(3):
            f(good)
        f.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp", backend="cupy")
        for _ in range(3):
            assert loaded(good).tolist() == f(good).tolist()
        with pytest.raises(
            IndexError, match=r"index 7 is out of bounds.*in a compiled function, at .*test_graphs.py:\d"
        ):
            f(bad)
        with pytest.raises(
            IndexError, match=r"index 7 is out of bounds.*in a loaded program, at call 1 of 2: .*_graphs.py:\d"
        ):
            loaded(bad)
        for call in f.programs[0].calls:
            call.line = None
        with pytest.raises(IndexError, match=r"in a compiled function, at call 1 of 2: %1 = index\("):
            f(bad)


def test_an_error_of_the_first_replay_names_the_line_and_spoils_nothing() -> None:
    table = tg.randn(5, 4, device="cuda")

    def picked(at: Any) -> Any:
        return (table[at] * 2).exp()

    f = tg.compile(picked)
    good, bad = tg.tensor([0, 1], device="cuda"), tg.tensor([0, 7], device="cuda")
    f(good)
    with pytest.raises(IndexError, match=r"index 7 is out of bounds.*\(in a compiled function, at .*_graphs.py:\d"):
        f(bad)
    assert told(f) == "CUDA graphs: made in the first replay"
    assert f(good).tolist() == picked(good).tolist() and "CUDA graphs: 1," in told(f)
