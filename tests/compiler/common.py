"""Programs to try passes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.compiler.executor import executor
from tensorgrad.compiler.fused import Fused
from tensorgrad.compiler.passes import show
from tensorgrad.compiler.program import Program
from tensorgrad.compiler.trace import Trace
from tensorgrad.dispatch import listening
from tensorgrad.utils._pytree import tree_flatten


def written(function: Any, *tensors: tg.Tensor) -> Program:
    """The program of a run of the function: its arguments are the tensors, its outputs what it returns."""
    trace = Trace([t._data for t in tensors], {})
    with listening(trace):
        result = function(*tensors)
    leaves = tree_flatten(result)[0]
    return trace.program([t._data for t in leaves])


def names(program: Program) -> list[str]:
    return [call.op.name for call in program.calls]


def after(pass_name: str, program: Program) -> Program:
    from importlib import import_module

    made: Program = import_module(f"tensorgrad.compiler.passes.{pass_name}").run(program)
    before, now = show(pass_name, program)
    assert before == repr(program) and (now == before) == (made is program)
    return made


def run(program: Program, *tensors: tg.Tensor) -> list[Any]:
    return [np.array(x) for x in executor(program)([t._data for t in tensors])]


def same_results(first: Program, second: Program, *tensors: tg.Tensor) -> None:
    """Both give the same bits, and leave the same in the arguments that they write to."""
    ours, theirs = [t.clone() for t in tensors], [t.clone() for t in tensors]
    for a, b in zip(run(first, *ours), run(second, *theirs), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    for t, u in zip(ours, theirs, strict=True):
        assert t._data.tobytes() == u._data.tobytes()


def same_for_any_threads(compiled: Any, *given: tg.Tensor) -> list[Any]:
    """The results of replays, which have the same bits in each call, for one thread, two and three."""
    compiled(*given)
    threads = tg.get_num_threads()
    try:
        found = [t.numpy().copy() for t in compiled(*given)]
        for count in (1, 2, 3, 3, 3):
            tg.set_num_threads(count)
            assert [t.numpy().tobytes() for t in compiled(*given)] == [x.tobytes() for x in found]
    finally:
        tg.set_num_threads(threads)
    return found


def within_rounding(made: Any, expected: Any) -> None:
    """The same bits, but for float32: machine code adds up rows of formulas in an order of its own."""
    made, expected = (getattr(t, "detach", lambda t=t: t)() for t in (made, expected))
    a, b = np.asarray(made), np.asarray(expected)
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype != np.float32:
        assert a.tobytes() == b.tobytes()
    elif a.size:
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6 * float(np.abs(b[np.isfinite(b)]).max(initial=0)))


@contextmanager
def machine_code(on: bool) -> Iterator[None]:
    """Formulas are compiled meanwhile, or run loop by loop."""
    c = registry.get("cpp").c
    before = c.writes_machine_code()
    c.set_machine_code(on)
    try:
        yield
    finally:
        c.set_machine_code(before)


def gradient(function: Any) -> Any:
    """A function's value and its gradient."""

    def both(t: tg.Tensor) -> tuple[Any, Any]:
        leaf = t.detach().requires_grad_()
        y = function(leaf)
        y.backward()
        return y.detach(), leaf.grad

    return both


def reduced_by_formulas(function: Any, t: tg.Tensor, left: str, pass_name: str = "reductions") -> None:
    """The calls that are left where formulas reduce what they make, F for one, with the bits of all where loops do it;
    on the backend whose formulas do, and its program on the other."""
    with tg.backend("cpp"):
        program = after("formulas", after("duplicates", after("constants", written(function, t.clone()))))
        made = after("dead", after(pass_name, program))
        assert " ".join("F" if isinstance(c.op, Fused) else c.op.name for c in made.calls) == left, program
        with machine_code(False):
            same_results(program, made, t)
        for a, b in zip(run(made, t), run(program, t), strict=True):
            within_rounding(a, b)
        assert [a.tobytes() for a in run(made, t)] == [a.tobytes() for a in run(made, t)]
    with tg.backend("numpy"):
        for a, b in zip(run(made, t), run(program, t), strict=True):
            assert a.tobytes() == b.tobytes()
        assert after(pass_name, program) is program
