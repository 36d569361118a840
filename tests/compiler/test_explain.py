"""What a program says of itself: calls, costs, formulas, lines, memory, what passes have done."""

from __future__ import annotations

import re

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.compiler.explain import explain, parts_of, scaled
from tensorgrad.dispatch import OPS
from tensorgrad.expr import functions as fn
from tensorgrad.expr import symbol
from tensorgrad.expr.text import readable
from tensorgrad.profiler.cost import flops, moved_bytes
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import inputs_of


def training_step():
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 1))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    compiled = Compiled(step)
    for _ in range(3):
        compiled(tg.ones(8, 16), tg.ones(8, 1))
    return compiled.programs[0]


@pytest.mark.parametrize("backend", [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None])
def test_a_training_step_is_told_call_by_call(backend):
    with tg.backend(backend):
        program = training_step()
    text = program.explain()
    lines = text.splitlines()
    assert all(len(line) <= 120 for line in lines)
    for call in program.calls:
        assert f"{call.op.name}(" in text or f"{call.op.name}:" in text
        for v in call.results:
            assert v is None or f"  {v.name} " in text
    row = next(line for line in lines if "linear(" in line)
    # a product of (8, 16) and (16, 32), and what it reads and writes
    assert row.split()[-3:-1] == ["8.19k", "3.71k"] and re.search(r"test_explain\.py:\d+$", row)
    assert "f32[8,32]" in row and "model.0.weight" in row
    assert any("gelu" in line and "_backward0:" in line for line in lines) and "tanh" in text
    assert re.search(r"program of \d+ calls, [\d.]+ kFLOP, [\d.]+ kB moved", lines[0])
    assert ("arena" in lines[0]) == (backend == "cpp")
    assert [line.split(":")[0] for line in lines if line.endswith("---")] == ["forward", "backward", "optimizer"]
    assert parts_of(program)[-1] == "optimizer"


def test_reductions_of_nothing_are_told():
    compiled = Compiled(lambda x: ((x * 2).logsumexp(0), (x + 1).logsumexp((0, 1)), x.std(0), x.norm()))
    for _ in range(2):
        assert (compiled(tg.zeros(0, 3))[0] == -float("inf")).all()
    assert "logsumexp(" in compiled.explain()


def test_notes_of_passes_and_calls_through_python_are_told():
    program = training_step()
    program.notes = [("dead", "dropped cast, which nobody reads")] * 2 + [("duplicates", "exp is computed once")]

    class Linked:
        nbytes, at_once = 4096, 2048
        in_place = ((program.calls[1], program.calls[1].results[0]),)
        python_calls = program.calls[:1]

    program.linked = Linked()
    text = explain(program)
    assert "dead: 2 x dropped cast, which nobody reads" in text and "duplicates: exp is computed once" in text
    assert f"through Python, one call at a time: 1 {program.calls[0].op.name}" in text and "(Python)" in text
    assert "arena 4.1 kB (2.05 kB of it needed at one time)" in text
    assert f"memory: {program.calls[1].op.name} of" in text and "in place of an operand" in text


def test_formulas_are_written_as_people_do():
    x, y = symbol(0), symbol(1)
    for made, expected in (
        (x - (y - x), ["x - (y - x)"]),
        (x + (y + 1.0), ["x + y + 1"]),
        ((x + y) * 2, ["(x + y) * 2"]),
        (-(x**2.0), ["-x ** 2"]),
        ((x**y) ** 2.0, ["(x ** y) ** 2"]),
        (x * -2.0, ["x * -2"]),
        (x / (y / 2.0), ["x / (y / 2)"]),
        (fn.where(x < y, fn.exp(x), 0.0), ["where(x < y, exp(x), 0)"]),
        ((x * y + 1.0) * (x * y), ["t1 = x * y", "(t1 + 1) * t1"]),
    ):
        assert readable([made], ["x", "y"]) == expected
    deep = x
    for _ in range(200):  # written out it would have 2**200 terms
        deep = deep * deep + 1.0
    assert len(readable([deep], ["x"])) <= 400


def test_numbers_are_short():
    assert [scaled(n) for n in (0, 12, 999, 1000, 12345, 999_600)] == ["0", "12", "999", "1k", "12.3k", "1M"]
    assert scaled(4096, "B") == "4.1 kB" and scaled(3.2e12, "FLOP") == "3.2 TFLOP"


# what small calls cost, by hand
COSTS = (
    ("matmul", [(4, 3), (3, 5)], {}, 2 * 4 * 3 * 5),
    ("mul", [(4, 3), (3,)], {}, 12),
    ("linear", [(4, 3), (5, 3), (5,)], {}, 2 * 4 * 3 * 5),
    ("conv", [(2, 3, 8, 8), (4, 3, 3, 3), None],
     {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}, 2 * 2 * 4 * 8 * 8 * 3 * 9),
    ("attention", [(1, 2, 8, 4), (1, 2, 8, 4), (1, 2, 8, 4), None], {"causal": False, "scale": 1.0}, 4 * 2 * 8 * 8 * 4),
    ("reshape", [(4, 3)], {"shape": (12,)}, 0),
)  # fmt: skip


@pytest.mark.parametrize("name, shapes, attrs, expected", COSTS)
def test_operations_are_counted(name, shapes, attrs, expected):
    op = OPS[name]
    inputs = tuple(None if shape is None else tg.ones(*shape).numpy() for shape in shapes)
    outputs = op.infer(*inputs, **attrs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert flops(op, inputs, attrs, outputs) == expected
    moved = moved_bytes(op, inputs, attrs, outputs)
    assert moved == (0 if op.view else sum(x.nbytes for x in inputs if x is not None) + sum(
        int(tg.ones(*out.shape).numel()) * out.dtype.itemsize for out in outputs))  # fmt: skip


def test_every_op_has_a_cost():
    for case in conformance.cases():
        inputs = tuple(inputs_of(case.op.name, case.sample, "float32"))
        outputs = case.op.infer(*inputs, **case.sample.attrs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert flops(case.op, inputs, case.sample.attrs, outputs) >= 0, case
        assert moved_bytes(case.op, inputs, case.sample.attrs, outputs) >= 0, case
