"""Rolls that formulas do by reading elsewhere: which, that every bit stays, and that nobody writes where they read."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.compiler.fused import Fused, fused
from tensorgrad.compiler.program import Program
from tensorgrad.io.safetensors import FileError
from tests.compiler.common import after, gradient, machine_code, run, same_results, written
from tests.compiler.test_save import parts, signed


def x(*shape, dtype=tg.float32):
    tg.manual_seed(3)
    return tg.randn(*shape).to(dtype)


def heat(t):
    return t + 0.1 * (t.roll(1, 0) + t.roll(-1, 0) + t.roll(1, 1) + t.roll(-1, 1) - 4 * t)


# (function, argument, names of the calls that are left where formulas roll what they read)
ROLLS = [
    (heat, lambda: x(70, 72), "F"),
    (heat, lambda: x(300, 300, dtype=tg.float64), "F"),
    (lambda t: t.roll(3, 0) * 2, lambda: x(1000), "F"),
    (lambda t: t.roll((1, -2), (0, 2)) * t, lambda: x(5, 6, 70), "F"),
    (lambda t: t.roll((1, 1), (0, 0)) * t, lambda: x(5, 6), "F"),
    (lambda t: (t.roll(1, 0) * t).sum(-1), lambda: x(90, 70), "F"),
    (lambda t: (t.roll(1, 0) * t).sum(), lambda: x(90, 70), "F"),
    (lambda t: t.roll(5, 0) * t[0], lambda: x(5, 70), "slice F"),
    (lambda t: (t.roll(1, 1) * t, t.roll(1, 1).exp().sum(0)), lambda: x(9, 70), "F sum"),
    (lambda t: (t.roll(1, 1) * t, t.roll(1, 1)), lambda: x(9, 70), "F roll"),  # it is stored anyway
    (lambda t: t.roll(1, 0)[0] * t, lambda: x(9, 70), "roll slice F"),  # these are not of the results' shape
    (lambda t: t[0].roll(1, 0) * t, lambda: x(9, 70), "slice roll F"),
    (lambda t: t.t().roll(1, 0) * t.t(), lambda: x(9, 70), "permute roll F"),  # nor in C's order
    (lambda t: t.roll(1, 1) * t, lambda: x(900, 7), "roll F"),  # of rows too short to be worth it
    (lambda t: t.roll(1, 0) * t, lambda: x(900, 7), "F"),
    (lambda t: t.roll(1, 0).roll(1, 1) * t, lambda: x(72, 70), "roll F"),
]


@pytest.mark.parametrize("case", range(len(ROLLS)))
def test_rolls_are_done_by_formulas(case):
    function, make, left = ROLLS[case]
    t = make()
    with tg.backend("cpp"):
        program = after("formulas", after("duplicates", written(function, t.clone())))
        made = after("rolls", after("reductions", program))
        found = ["F" if isinstance(c.op, Fused) or c.op.name == "mul" else c.op.name for c in made.calls]
        assert " ".join(found) == left, program
        same_results(program, made, t)
    with tg.backend("numpy"):  # which rolls them, and then computes
        for a, b in zip(run(made, t), run(program, t), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        assert after("rolls", program) is program


def rolled(t, u, shifts, dims):
    a, b = t.roll(shifts, dims), u.roll(shifts[:1], dims[:1])
    return (a ^ b if t.dtype == tg.bool else a * b + t), a == u


@pytest.mark.parametrize("compiled_formulas", [False, True])
def test_what_is_read_rolled_has_the_bits_of_what_was_rolled(compiled_formulas):
    rng = np.random.default_rng(0)
    with machine_code(compiled_formulas), tg.backend("cpp"), tg.no_grad():
        for _ in range(60):
            shape = [int(n) for n in rng.integers(1, 40, rng.integers(1, 4))]
            shape[-1] = int(rng.choice([1, 7, 33, 64, 255, 256, 300, 1024, 1025, 2500]))
            dims = [int(d) for d in rng.permutation(len(shape))[: rng.integers(1, len(shape) + 1)]]
            shifts = [int(n) for n in rng.integers(-3, 4, len(dims)) * rng.choice([1, 64, 1000])]
            dtype = rng.choice(["float32", "float64", "int32", "bool", "uint8", "complex64"])
            t, u = (tg.tensor((rng.standard_normal(shape) * 9).astype(dtype)) for _ in range(2))

            function = partial(rolled, shifts=shifts, dims=dims)
            program = after("formulas", written(function, t, u))
            same_results(program, after("rolls", program), t, u)


def test_nobody_writes_where_others_read_around_the_end():
    """A result that lay where its operand did would be read as the neighbour of what comes later. So would what another
    formula, done with this one a piece at a time, writes there."""

    def steps(t, u):
        for _ in range(4):
            t = t * 1.5 - 0.5
            t = t.roll(1, 0) * 0.9 + t.roll(1, 1)
            v = u * t
            u = v.roll(-1, 0) + v * 0.5
        return t, u, (u.roll(1, 0) * t).softmax(-1) * 2

    with tg.backend("cpp"), tg.no_grad():
        for shape in ((4, 70), (300, 257), (1030, 1024)):
            t, u = x(*shape), x(*shape) + 1
            compiled = tg.compile(steps)
            for _ in range(3):
                for a, b in zip(compiled(t, u), steps(t, u), strict=True):
                    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5)
            assert "roll(shift" not in compiled.explain()


def test_gradients_through_rolls():
    def loss(t):
        for _ in range(3):
            t = heat(t).tanh()
        return (t * t.roll(2, 1)).square().mean()

    both = gradient(loss)
    with tg.backend("cpp"):
        compiled = tg.compile(both)
        for seed in range(3):
            tg.manual_seed(seed)
            t = tg.randn(72, 70, dtype=tg.float64)
            for a, b in zip(compiled(t), both(t), strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
        assert "gives" not in compiled.explain() and "roll(arg" in compiled.explain()


def test_a_program_of_any_size_rolls():
    with tg.backend("cpp"), tg.no_grad():
        compiled = tg.compile(heat, dynamic=True)
        for shape in ((70, 72), (3, 72), (700, 72), (70, 1)):
            t = x(*shape)
            np.testing.assert_allclose(compiled(t).numpy(), heat(t).numpy(), rtol=1e-5, atol=1e-6)


def test_saved_programs_roll(tmp_path):
    t = x(70, 72)
    with tg.backend("cpp"), tg.no_grad():
        compiled = tg.compile(heat)
        expected = compiled(t)
        path = tmp_path / "heat.tgp"
        compiled.save(path)
        assert tg.compiler.load(path)(t).numpy().tobytes() == expected.numpy().tobytes()
    with tg.backend("numpy"), tg.no_grad():
        np.testing.assert_allclose(tg.compiler.load(path)(tg.tensor(t.numpy())).numpy(), expected.numpy(), rtol=1e-5)


def test_a_formula_that_rolls_and_reduces_is_left_as_it_is_by_a_second_pass():
    """To be saved a program is passed again, without results that backward alone would read."""

    def function(t):
        kept = t.roll(1, 0)
        return (kept * t.roll(2, 0)).sum(1), kept

    t = x(70, 72)
    with tg.backend("cpp"):
        program = written(function, t.clone())
        for name in ("formulas", "reductions", "rolls"):
            program = after(name, program)
        (op,) = (call.op for call in program.calls if isinstance(call.op, Fused))
        assert op.sums == "s:1" and op.rolls == ((), (2, 0))
        cut = Program(program.steps, program.arguments, program.outputs[:1])
        same_results(cut, after("rolls", cut), t)


@pytest.mark.parametrize("by", [[1], [1, 0, 0]])
def test_shifts_of_a_file_are_not_trusted(tmp_path, by):
    t = x(70, 72)
    path = tmp_path / "one.tgp"
    with tg.backend("cpp"), tg.no_grad():
        compiled = tg.compile(lambda t: t.roll(1, 0) * 2 + t.roll(1, 1))
        compiled(t)
        compiled.save(path)
        header, data = parts(path)
        program = json.loads(header["__metadata__"]["program"])
        (entry,) = program["formulas"]
        assert entry["rolls"] == [[1, 0], [0, 1]]
        entry["rolls"] = [[1, 0], by]
        signed(path, header, data, program)
        with pytest.raises(FileError, match="is rolled by"):
            tg.compiler.load(path)


def test_a_formula_refuses_to_roll_what_is_broadcast():
    with tg.backend("cpp"):
        program = after("formulas", written(lambda t, u: t * u + 1, x(4, 5), x(5)))
        (call,) = program.calls
        op = fused(call.op.program, call.op.parts, rolls=((), (0, 1)))
        kernel = op.kernel_on(registry.get("cpp"))
        with pytest.raises(ValueError, match=r"operand 1 is rolled, so it must have the results' shape \(4, 5\)"):
            kernel(x(4, 5)._data, x(5)._data)
        with pytest.raises(ValueError, match="what is of shape"):
            op.infer(x(4, 5)._data, x(5)._data)
        for rolls, complaint in (((1,), "a tuple of shifts for each operand"), (((1.5,),), "an integer is required")):
            with pytest.raises(TypeError, match=complaint):
                registry.get("cpp").c.Formula("f", op.specialize, "", rolls)


def test_source_of_a_formula_that_rolls():
    with tg.backend("cpp"):
        program = after("formulas", written(lambda t: t.roll((2, -1), (0, 1)) * 2 + t.roll(1, 1), x(5, 70)))
        (call,) = after("rolls", program).calls
        assert call.op.formula == "y = (roll(x0, (2, -1), (0, 1)) * 2.0) + roll(x1, 1, 1)"
