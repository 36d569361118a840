"""Activations behind ``linear`` that cuBLASLt's epilogues do: which are, what is asked of it, and the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends.cupy.cublaslt import Epilogue
from tensorgrad.dispatch import OPS
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_cublaslt import StrictCublasLt, emulated_lt
from tensorgrad.testing.strict_namespace import xp
from tests.compiler.common import after, names, written

F = nn.functional
DIGITS = {tg.float32: 1e-5, tg.float16: 4e-3, tg.bfloat16: 4e-2}


@pytest.fixture(autouse=True)
def cuda() -> Iterator[StrictCupyBackend]:
    with strict_cuda() as backend:
        yield backend


@pytest.fixture
def asked(cuda: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch) -> list[Epilogue]:
    """The epilogues of the products that were started."""
    seen: list[Epilogue] = []
    launch = StrictCublasLt.launch

    def watched(self: Any, form: Any, a: Any, b: Any, out: Any, epilogue: Epilogue, *rest: Any) -> bool:
        started = launch(self, form, a, b, out, epilogue, *rest)
        if started:
            seen.append(epilogue)
        return started

    monkeypatch.setattr(StrictCublasLt, "launch", watched)
    return seen


def gelu(x: tg.Tensor) -> tg.Tensor:
    return F.gelu(x, approximate="tanh")


def relu_in_place(x: tg.Tensor) -> tg.Tensor:
    return F.relu(x, inplace=True)


def operands(dtype: Any = tg.float32, batch: tuple[int, ...] = (5,), n: int = 16) -> list[tg.Tensor]:
    generator = tg.Generator().manual_seed(0)
    shapes = (*batch, 6), (n, 6), (n,), (*batch, n)
    return [tg.randn(*shape, generator=generator).to(dtype).to("cuda") for shape in shapes]


def close(found: Any, expected: Any, dtype: Any) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        a, b = (t.detach().to("cpu").double().numpy() for t in (ours, theirs))
        assert np.allclose(a, b, rtol=DIGITS[dtype], atol=4 * DIGITS[dtype])


def trained(activation: Any) -> Any:
    def function(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
        x, w, b = (t.detach().requires_grad_() for t in (x, w, b))
        y = activation(F.linear(x, w, b))
        return [y, *tg.autograd.grad(y, [x, w, b], g)]

    return function


@pytest.mark.parametrize("batch", [(5,), (2, 3), ()], ids=str)
@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize(
    ("activation", "epilogue"),
    [(F.relu, Epilogue.RELU_BIAS), (relu_in_place, Epilogue.RELU_BIAS), (gelu, Epilogue.GELU_BIAS)],
)
def test_inference(activation: Any, epilogue: Epilogue, dtype: Any, batch: Any, asked: list[Epilogue]) -> None:
    def function(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor) -> tg.Tensor:
        return activation(F.linear(x, w, b))

    inputs = operands(dtype, batch)[:3]
    expected = function(*inputs)
    assert asked == [Epilogue.BIAS]
    asked.clear()
    play = tg.compile(function)
    for _ in range(3):
        close([play(*inputs)], [expected], dtype)
    assert epilogue in asked and Epilogue.BIAS not in asked[1:]
    assert "linear_activation(" in play.explain() and "became linear_activation" in play.explain()


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize(
    ("activation", "epilogue"),
    [(F.relu, Epilogue.RELU_BIAS), (relu_in_place, Epilogue.RELU_BIAS), (gelu, Epilogue.GELU_AUX_BIAS)],
)
def test_training(activation: Any, epilogue: Epilogue, dtype: Any, asked: list[Epilogue]) -> None:
    function, inputs = trained(activation), operands(dtype)
    expected = function(*inputs)
    assert epilogue not in asked
    asked.clear()
    play = tg.compile(function)
    for _ in range(3):
        close(play(*inputs), expected, dtype)
    assert epilogue in asked and "became linear_activation" in play.explain()


def test_a_module_s_two_programs_and_autocast(asked: list[Epilogue]) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.GELU("tanh"), nn.Linear(8, 2)).to("cuda")
    x = tg.randn(4, 6).to("cuda")
    for half in (False, True):

        def gradients(run: Any, half: bool = half) -> list[tg.Tensor]:
            model.zero_grad()
            with tg.autocast("cuda", dtype=tg.bfloat16, enabled=half):
                loss = run(x).square().mean()
            loss.backward()
            return [loss, *[p.grad.clone() for p in model.parameters()]]

        expected = gradients(model)
        play = tg.compile(model)
        asked.clear()
        for _ in range(3):
            close(gradients(play), expected, tg.float32 if not half else tg.bfloat16)
        assert {Epilogue.RELU_BIAS, Epilogue.GELU_AUX_BIAS, Epilogue.DGELU} <= set(asked)


# --- backward


def perceptron(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, v: tg.Tensor) -> list[tg.Tensor]:
    """Two layers' gradients, in what requires them."""
    live = [t.detach().requires_grad_() for t in (x, w, b, v)]
    x, w, b, v = live
    y = F.linear(gelu(F.linear(x, w, b)), v, b[:4])
    return [y, *tg.autograd.grad(y.square().mean(), live)]


@pytest.mark.parametrize("batch", [(5,), (2, 3), ()], ids=str)
@pytest.mark.parametrize("dtype", DIGITS, ids=str)
def test_a_gradient_goes_through_the_gelu_in_the_product(dtype: Any, batch: Any, asked: list[Epilogue]) -> None:
    inputs = [*operands(dtype, batch)[:3], operands(dtype, (4,))[3]]
    expected = perceptron(*inputs)
    assert Epilogue.DGELU not in asked
    asked.clear()
    play = tg.compile(perceptron)
    for _ in range(4):
        close(play(*inputs), expected, dtype)
    assert asked.count(Epilogue.DGELU) >= 2  # once captured alone, and in the graph
    assert "linear_activation_backward(" in play.explain() and "gelu_tanh_backward became one" in play.explain()
    assert "CUDA graphs: 1," in play.explain()


def joined(function: Any, *inputs: tg.Tensor) -> int:
    return names(after("linear_activation", written(function, *inputs))).count("linear_activation_backward")


def test_where_the_gradient_of_a_gelu_stays() -> None:
    x, w, b = operands()[:3]
    v = operands(batch=(4,))[3]

    def read_twice(x: tg.Tensor, v: tg.Tensor) -> list[tg.Tensor]:
        h, v = x.detach().requires_grad_(), v.detach().requires_grad_()
        y = gelu(h)
        return list(tg.autograd.grad(F.linear(y, v).square().sum(), [h, v, y]))

    def through(slope: Any) -> Any:
        def function(x: tg.Tensor, v: tg.Tensor) -> list[tg.Tensor]:
            h, v = x.detach().requires_grad_(), v.detach().requires_grad_()
            return list(tg.autograd.grad(F.linear(slope(h), v).square().sum(), [h, v]))

        return function

    def changed(x: tg.Tensor, v: tg.Tensor) -> list[tg.Tensor]:
        h, v = x.detach().requires_grad_(), v.detach().requires_grad_()
        y = gelu(h)
        y.register_hook(lambda g: g * 2)
        return list(tg.autograd.grad(F.linear(y, v).square().sum(), [h, v]))

    hidden = F.linear(x, w, b)
    assert joined(through(gelu), hidden, v) == 1
    for stays in (through(F.relu), through(F.gelu), changed, read_twice):
        assert joined(stays, hidden, v) == 0
    assert joined(through(gelu), hidden[:, :13].contiguous(), v[:, :13].contiguous()) == 0  # rows would be filled up
    assert joined(through(gelu), hidden.double(), v.double()) == 0
    assert joined(through(gelu), hidden.T.contiguous().T, v) == 0


@pytest.mark.parametrize("needs", [(True, True, True), (True, False, False), (False, True, True)], ids=str)
def test_the_kernel_of_the_gradient_does_one_by_one_what_the_library_can_t(
    needs: Any, cuda: StrictCupyBackend, asked: list[Any]
) -> None:
    x, w, _, g = (t._data for t in operands(batch=(3, 8), n=8))
    given = (g, *[xp.concatenate((array, array[..., :2]), axis=-1) for array in (x, w, -x)])
    how = {"activation": "gelu_tanh", "needs": needs}
    found = cuda.raw.linear_activation_backward(*given, **how)
    assert (Epilogue.DGELU in asked) == needs[0]
    cuda._cublaslt = StrictCublasLt(cuda._cublas, emulated_lt(lambda epilogue: epilogue is Epilogue.DGELU))
    others = cuda.raw.linear_activation_backward(*given, **how)
    for ours, theirs, needed in zip(found, others, needs, strict=True):
        assert (ours is not None) == (theirs is not None) == needed
        assert ours is None or np.allclose(ours.get(), theirs.get(), rtol=1e-5, atol=1e-6)


def no_bias(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    return [F.relu(F.linear(x, w))]


def by_erf(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    return [F.gelu(F.linear(x, w, b))]


def of_a_view(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    return [F.relu(F.linear(x, w, b)[:, 1:])]


def of_what_is_transposed(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    return [F.relu(F.linear(x, w, b).T)]


def read_again(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    y = F.linear(x, w, b)
    return [F.relu(y), y]


def read_before(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    y = F.linear(x, w, b)
    before = y.sum()
    return [F.relu(y, inplace=True), before]


def changed_before(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    y = F.linear(x, w, b)
    y[0] = 1.0
    return [F.relu(y)]


def other_activation(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    return [F.silu(F.linear(x, w, b))]


def into_formulas(x: tg.Tensor, w: tg.Tensor, b: tg.Tensor, g: tg.Tensor) -> list[tg.Tensor]:
    y = F.linear(x, w, b)
    return [gelu(y) * g, y]


@pytest.mark.parametrize(
    "function",
    [
        no_bias, by_erf, of_a_view, of_what_is_transposed, read_again, read_before, changed_before, other_activation,
        into_formulas,
    ],
)  # fmt: skip
def test_what_stays(function: Any, asked: list[Epilogue]) -> None:
    inputs = operands()
    program = written(function, *inputs)
    assert after("linear_activation", program) is program
    play = tg.compile(function)
    for _ in range(3):
        close(play(*inputs), function(*inputs), tg.float32)
    assert set(asked) <= {Epilogue.NONE, Epilogue.BIAS}


def test_float64_and_other_backends_stay(cuda: StrictCupyBackend) -> None:
    inputs = operands()
    program = written(trained(F.relu), *[t.double() for t in inputs])
    assert after("linear_activation", program) is program
    for name in ("cpp", "numpy"):
        with tg.backend(name):
            program = written(trained(F.relu), *[t.to("cpu") for t in inputs])
            assert after("linear_activation", program) is program
    cuda._cublaslt = None
    program = written(trained(F.relu), *inputs)
    assert after("linear_activation", program) is program


def test_what_a_gelu_s_gradient_reads_is_the_kernel_s_second_result() -> None:
    program = written(trained(gelu), *operands())
    made = after("linear_activation", program)
    (call,) = [call for call in made.calls if call.op.name == "linear_activation"]
    assert call.attrs == {"activation": "gelu_tanh", "keeps": True} and None not in call.results
    assert "linear" not in names(made) and "gelu_tanh" not in names(made)


def test_rows_that_would_have_to_be_filled_up_stay() -> None:
    program = written(trained(gelu), *operands(n=13))
    assert after("linear_activation", program) is program
    assert "linear_activation" in names(after("linear_activation", written(trained(F.relu), *operands(n=13))))


@pytest.mark.parametrize(("activation", "keeps"), [("relu", False), ("gelu_tanh", False), ("gelu_tanh", True)])
def test_the_kernel_does_one_by_one_what_the_library_can_t(
    activation: str, keeps: bool, cuda: StrictCupyBackend, asked: list[Any]
) -> None:
    def kernel(*inputs: tg.Tensor) -> list[Any]:
        arrays = [t._data for t in inputs]
        return list(cuda.raw.linear_activation(*arrays, activation=activation, keeps=keeps))

    inputs = operands()[:3]
    expected = kernel(*inputs)
    cuda._cublaslt = StrictCublasLt(cuda._cublas, emulated_lt(lambda epilogue: epilogue is not Epilogue.BIAS))
    found = kernel(*inputs)
    assert len(asked) == 2 and asked[0] is not Epilogue.BIAS and asked[1] is Epilogue.BIAS
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or np.allclose(ours.get(), theirs.get(), rtol=1e-5, atol=1e-6)
    assert (found[1] is not None) == keeps


def test_a_saved_program_computes_where_no_kernel_does_both(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.GELU("tanh")).to("cuda")
    x = tg.randn(4, 6)
    play = tg.compile(model)
    with tg.no_grad():
        expected = play(x.to("cuda")).to("cpu")
    assert play.explain().count("linear_activation(") == 2
    play.save(tmp_path / "model.tgp")
    for name in ("numpy", "cpp"):
        with tg.backend(name):
            close([tg.compiler.load(tmp_path / "model.tgp")(x)], [expected], tg.float32)


def test_sizes_that_change(asked: list[Epilogue]) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.GELU("tanh"), nn.Linear(16, 8), nn.ReLU()).to("cuda")
    play = tg.compile(model, dynamic=True)
    for rows in (4, 7, 1, 9):
        x = tg.randn(rows, 6).to("cuda")
        expected = model(x)
        asked.clear()
        for _ in range(2):  # the first of a new size may be a run
            close([play(x)], [expected], tg.float32)
        assert {Epilogue.GELU_AUX_BIAS, Epilogue.RELU_BIAS} <= set(asked)


def test_an_unknown_activation_is_refused() -> None:
    x, w, b, _ = operands()
    with pytest.raises(tg.errors.ArgumentError, match="relu, gelu_tanh, got '__class__'"):
        OPS["linear_activation"](x, w, b, activation="__class__", keeps=False)
    needs = (True, True, True)
    with pytest.raises(tg.errors.ArgumentError, match="activation must be gelu_tanh, got 'relu'"):
        OPS["linear_activation_backward"](x, x, x, x, activation="relu", needs=needs)
    with pytest.raises(tg.errors.ShapeError, match=r"the activation gave .*, and is said to be of"):
        OPS["linear_activation_backward"](x, x, x, w, activation="gelu_tanh", needs=needs)
