"""What is found once of a value, a call or a program is what it would be found to be now, whatever passes have done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.compiler import passes
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.compiler.passes.formulas import _formula_alone
from tensorgrad.compiler.passes.memory import Memory
from tensorgrad.compiler.program import UNASKED, Action, Call, Program, Unless, Value, values_in
from tensorgrad.compiler.signature import owner
from tensorgrad.random import Generator
from tests.compiler.beside import BACKENDS
from tests.compiler.test_workloads import CUTS, build

EIGHT = [name for name in CUTS if name != "autoencoder"]


def steps_of(steps: Iterable[Call | Action]) -> Iterator[Call]:
    for step in steps:
        if isinstance(step, Call):
            yield step
        if isinstance(step, Unless):
            yield from steps_of(step.steps)


def memory_of(v: Value) -> Any:
    array = v.root.array if v.array is None else v.array
    return v.root if array is None else id(owner(array))


def has_generator(what: Any) -> bool:
    return isinstance(what, Generator) or (isinstance(what, (list, tuple)) and any(map(has_generator, what)))


def draws(call: Call) -> bool:
    if isinstance(call, Unless):
        return any(isinstance(step, Call) and draws(step) for step in call.steps)
    return has_generator([*call.inputs, *call.attrs.values()])


def readers_of(program: Program) -> dict[Value, set[int]]:
    found: dict[Value, set[int]] = {}
    for at, step in [*enumerate(program.steps), (-1, None)]:
        read = program.outputs if step is None else step.reads() if isinstance(step, Call) else ()
        for v in read:
            found.setdefault(v, set()).add(at)
            found.setdefault(v.root, set()).add(at)
    return found


def check(program: Program) -> int:
    """How many things were found before: each is what it is now."""
    count = 0
    values = dict.fromkeys((*program.arguments, *program.outputs))
    for call in steps_of(program.steps):
        read = (*values_in(call.inputs), *values_in(list(call.attrs.values())))
        values.update(dict.fromkeys(v for v in (*read, *call.results, *call.writes) if v is not None))
        if call._reads is not None:
            assert all(a is b for a, b in zip(call._reads, read, strict=True)), call
            count += 1
        if call._draws is not None:
            assert call._draws == draws(call), call
            count += 1
        if call.formula is not UNASKED:
            assert repr(call.formula) == repr(_formula_alone(call)), call
            count += 1
    for v in (*values, *(v.root for v in values)):
        if v._memory is not None:
            assert v._memory is v.root if v.root.array is None and v.array is None else v._memory == memory_of(v), v
            count += 1
        if v._steps is not None:
            found = [s // v.dtype.itemsize if n != 1 else 0 for n, s in zip(v.shape, v.strides, strict=True)]
            assert v._steps == tuple(found), v
            count += 1
        array = v.array
        if array is not None:
            assert (tuple(array.shape), array.dtype, tuple(array.strides)) == (v.shape, v.dtype, v.strides), v
    if program.memory is not None:
        now = Memory(program)
        assert (program.memory.writes, program.memory.actions) == (now.writes, now.actions)
        count += 1
    if program._readers is not None:
        assert program._readers == readers_of(program)
        count += 1
    return count


class Checks:
    """Checks all that is known of a program before a pass and behind it."""

    def __init__(self) -> None:
        self.count = 0
        self.passes: set[str] = set()

    def around(self, name: str, run: Callable[[Program], Program]) -> Callable[[Program], Program]:
        def checked(program: Program) -> Program:
            before = repr(program)
            made = run(program)
            self.count += check(program) + check(made)
            assert repr(program) == before
            self.passes.add(name)
            return made

        return checked


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    found = Checks()
    monkeypatch.setattr(passes, "_RUNS", {name: found.around(name, run) for name, run in passes._RUNS.items()})
    return found


def check_all(checks: Checks, *functions: Any) -> None:
    """What the functions have at the end as well: nobody has changed it since."""
    for one in functions:
        one = getattr(one, "_compiled", one)
        assert isinstance(one, Compiled)
        for entry in one.entries:
            for program in (*entry.raw, *entry.programs):
                checks.count += check(program)
                assert program.memory is None and program._readers is None, "kept although no pass asks any more"
    assert checks.passes == set(passes.PASSES) and checks.count > 100


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EIGHT)
def test_of_a_workload(name: str, backend: str, checks: Checks) -> None:
    with tg.backend(backend):
        job, resizes = build(name)
        batch = job.batches[0]

        def step(*batch: Any) -> Any:
            job.optimizer.zero_grad()
            loss = job.loss(*batch)
            loss.backward()
            job.optimizer.step()
            return loss

        whole, pair = tg.compile(step), tg.compile(lambda *batch: job.loss(*batch))
        part = tg.compile(step, fallback=True)
        for _ in range(2):
            whole(*batch)
            part(*batch)
            pair(*batch).backward()
            with tg.autocast("cpu", dtype=tg.bfloat16):
                pair(*batch).backward()
        job.model.eval()
        with tg.no_grad():
            pair(*batch)
        dynamic = tg.compile(step, dynamic=True)
        most = len(batch[0]) if resizes else 0
        sizes = (2, most, *range(3, min(most, 6))) if resizes else (None,)
        for size in sizes:  # those between the first two are served by their family
            dynamic(*(x[:size] for x in batch))
        check_all(checks, whole, pair, part, dynamic)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_what_a_flag_decides(backend: str, checks: Checks) -> None:
    with tg.backend(backend):
        model = tg.nn.Sequential(tg.nn.Linear(8, 16), tg.nn.GELU(), tg.nn.Dropout(0.5), tg.nn.Linear(16, 1))
        optimizer, scaler = tg.optim.RMSprop(model.parameters()), tg.amp.GradScaler("cpu", init_scale=8.0)

        def step(x: tg.Tensor) -> tg.Tensor:
            optimizer.zero_grad()
            with tg.autocast("cpu", dtype=tg.bfloat16):
                loss = model(x).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        plain, dynamic = tg.compile(step), tg.compile(step, dynamic=True)
        for size in (4, 4, 8, 6):
            plain(tg.ones(size, 8))
            dynamic(tg.ones(size, 8))
        assert any(isinstance(call, Unless) for call in plain.programs[0].calls)
        check_all(checks, plain, dynamic)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_saved_programs_and_parts(backend: str, checks: Checks, tmp_path: Any) -> None:
    with tg.backend(backend):
        model = tg.nn.Sequential(tg.nn.Linear(8, 16), tg.nn.LayerNorm(16), tg.nn.GELU(), tg.nn.Linear(16, 4))
        served = tg.compile(model, dynamic=True)
        with tg.inference_mode():
            for size in (8, 4, 1):
                served(tg.ones(size, 8))
            served.save(tmp_path / "model.tgp")
            loaded = tg.compiler.load(tmp_path / "model.tgp")
            for size in (3, 5):
                assert check(loaded.program)
                assert np.allclose(loaded(tg.ones(size, 8)).numpy(), model(tg.ones(size, 8)).numpy(), atol=1e-5)

        def parts(x: tg.Tensor) -> tg.Tensor:
            y = model(x)
            return y * 2 if float(y.sum()) > -1e9 else y

        partly = tg.compile(parts, fallback=True)
        gradients = tg.compile(lambda x: model(x).sum(0))
        for _ in range(3):
            partly(tg.ones(3, 8)).sum().backward()
            out = gradients(x := tg.ones(3, 8, requires_grad=True))
            tg.autograd.grad(out[0], x, retain_graph=True)
            out[1].backward()
        check_all(checks, served, partly, gradients)
