"""The Tensor itself: conversions, sharing, dtypes and promotion, devices, text."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry


def test_numpy_shares_memory_both_ways():
    array = np.arange(4.0)
    x = tg.from_numpy(array)
    x.numpy()[0] = 7
    array[1] = 8
    assert x.tolist() == [7.0, 8.0, 2.0, 3.0]
    assert np.asarray(x) is not None and np.shares_memory(np.asarray(x), array)
    with pytest.raises(RuntimeError, match=r"detach\(\)\.numpy\(\)"):
        tg.ones(1, requires_grad=True).numpy()


def test_dlpack_is_zero_copy_both_ways():
    array = np.arange(3.0)
    x = tg.from_dlpack(array)
    array[0] = 5
    assert x.tolist() == [5.0, 1.0, 2.0]
    assert np.shares_memory(np.from_dlpack(x), array)
    with pytest.raises(TypeError, match="DLPack"):
        tg.from_dlpack([1.0])
    with pytest.raises(RuntimeError, match="requires grad"):
        np.from_dlpack(tg.ones(2, requires_grad=True))


def test_dlpack_with_pytorch():
    torch = pytest.importorskip("torch")
    x = tg.arange(4.0)
    shared = torch.from_dlpack(x)
    shared[0] = 9
    assert x.tolist() == [9.0, 1.0, 2.0, 3.0]
    y = tg.from_dlpack(torch.arange(3))
    assert y.dtype == tg.int64 and y.tolist() == [0, 1, 2]


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
          "complex64", "complex128"]  # fmt: skip


def test_promotion_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    for a in DTYPES:
        for b in DTYPES:
            if "complex" in a + b and {"float16", "bfloat16"} & {a, b}:
                continue  # docs/differences.md: no complex32
            for rank_a, rank_b in (((2,), (2,)), ((), (2,)), ((), ())):
                mine = tg.result_type(
                    tg.zeros(rank_a, dtype=tg.dtypes.BY_NAME[a]), tg.zeros(rank_b, dtype=tg.dtypes.BY_NAME[b])
                )
                theirs = torch.result_type(
                    torch.zeros(rank_a, dtype=getattr(torch, a)), torch.zeros(rank_b, dtype=getattr(torch, b))
                )
                assert f"torch.{mine.name}" == str(theirs), (a, b, rank_a, rank_b)
        for number in (True, 3, 2.5, 1j):
            if number == 1j and a in ("float16", "bfloat16"):
                continue  # docs/differences.md: no complex32
            mine = tg.result_type(tg.zeros(2, dtype=tg.dtypes.BY_NAME[a]), number)
            assert f"torch.{mine.name}" == str(torch.result_type(torch.zeros(2, dtype=getattr(torch, a)), number))


def test_numbers_replace_nan_and_infinity_in_the_tensors_precision():
    x = tg.tensor([float("nan"), float("inf"), -float("inf"), 1.0], dtype=tg.float64)
    largest = np.finfo(np.float64).max
    for backend in ("numpy", "cpp"):
        with tg.backend(backend):
            assert x.nan_to_num().tolist() == [0.0, largest, -largest, 1.0]
            assert x.nan_to_num(0.1, 0.2, 0.3).tolist() == [0.1, 0.2, 0.3, 1.0]


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_numbers_among_themselves_compute_in_double(backend):
    x, w = np.array([0.3, -1.7, 2.9]), 0.3
    cases = [  # function, its value, its slope
        (lambda t: tg.lerp(t, t * 0, w), x * (1 - w), np.full(3, 1 - w)),
        (lambda t: t.square().pow(w), np.square(x) ** w, 2 * x * w * np.square(x) ** (w - 1)),
        (lambda t: w**t, w**x, w**x * np.log(w)),
        (lambda t: tg.nn.functional.elu(t, w), np.where(x > 0, x, w * np.expm1(x)), np.where(x > 0, 1, w * np.exp(x))),
        (
            lambda t: tg.nn.functional.smooth_l1_loss(t, t.detach() * 0, reduction="none", beta=w),
            np.abs(x) - 0.5 * w, np.sign(x),
        ),
    ]  # fmt: skip
    with tg.backend(backend):
        for function, value, slope in cases:
            t = tg.tensor(x, requires_grad=True)
            y = function(t)
            np.testing.assert_allclose(y.detach().numpy(), value, rtol=1e-14)
            np.testing.assert_allclose(tg.autograd.grad(y.sum(), t)[0].numpy(), slope, rtol=1e-14)
        assert tg.where(tg.tensor([True]), 1.0, w).dtype is tg.float32
        assert tg.tensor(2.0, dtype=tg.bfloat16).xlogy(3).dtype is tg.bfloat16


def test_real_tensors_have_themselves_as_real_part_and_an_angle_without_slope():
    x = tg.tensor([float("nan"), -2.0, 0.0, 3.0], dtype=tg.float64, requires_grad=True)
    assert x.real is x
    angle = x.angle()
    np.testing.assert_array_equal(angle.detach().numpy(), [np.nan, np.pi, 0, 0])
    (g,) = tg.autograd.grad(angle.sum(), x)
    assert g.dtype is tg.float64 and g.tolist() == [0, 0, 0, 0]


def test_shrinking_keeps_nan():
    x = tg.tensor([float("nan"), 0.2, 2.0, -2.0])
    for backend in ("numpy", "cpp"):
        with tg.backend(backend):
            np.testing.assert_array_equal(tg.nn.functional.softshrink(x).numpy(), np.float32([np.nan, 0, 1.5, -1.5]))
            np.testing.assert_array_equal(tg.nn.functional.hardshrink(x).numpy(), np.float32([np.nan, 0, 2, -2]))


def test_zero_to_a_complex_power_is_zero():
    for backend in ("numpy", "cpp"):
        with tg.backend(backend):
            assert (tg.zeros(1, dtype=tg.complex128) ** tg.tensor([0.5 + 1j])).tolist() == [0]


def test_a_python_number_never_widens():
    assert (tg.ones(2, dtype=tg.float16) * 2.5).dtype == tg.float16
    assert (tg.ones(2, dtype=tg.int8) + 1).dtype == tg.int8
    assert (tg.ones(2, dtype=tg.int8) + 1.5).dtype == tg.float32
    assert (tg.ones(2, dtype=tg.uint8) + np.float64(1.5)).dtype == tg.float32


def test_to_item_tolist():
    x = tg.tensor([[1, 2]])
    assert x.to(tg.float64).dtype == tg.float64 and x.to("cpu") is x and x.to(tg.int64) is x
    assert x.to(tg.int64, copy=True) is not x
    assert x.sum().item() == 3 and type(x.sum().item()) is int
    assert x.tolist() == [[1, 2]] and float(tg.tensor(2.5)) == 2.5 and bool(tg.tensor(0)) is False
    with pytest.raises(RuntimeError, match="2 elements"):
        x.item()
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(x)
    y = tg.ones(2, requires_grad=True)
    (y.double() * 2).sum().backward()
    assert y.grad.dtype == tg.float32


def test_bfloat16_rounds_and_computes_in_float32():
    x = tg.tensor([1.0, 2.0, 3.0]).bfloat16()
    assert x.dtype == tg.bfloat16 and (x / 3).float().tolist() == pytest.approx([1 / 3, 2 / 3, 1.0], rel=8e-3)
    assert repr(x) == "tensor([1., 2., 3.], dtype=torch.bfloat16)"


def test_devices():
    assert str(tg.ones(1).device) == "cpu" and tg.device("cuda:1").index == 1
    with pytest.raises(RuntimeError, match=r"not available|does not exist"):
        tg.ones(1).to("cuda:31")
    with pytest.raises(RuntimeError, match="warp"):
        tg.ones(1, device="warp")


def test_copies_and_pickles():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    for again in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert again.tolist() == x.tolist() and again.requires_grad and not np.shares_memory(again._data, x._data)
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(x * 2)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: tg.tensor([1.0, 2.5]), "tensor([1.0000, 2.5000])"),
        (lambda: tg.tensor([[1, 20], [3, 4]]), "tensor([[ 1, 20],\n        [ 3,  4]])"),
        (lambda: tg.tensor(3.0), "tensor(3.)"),
        (lambda: tg.tensor([1e-9, 1.0]), "tensor([1.0000e-09, 1.0000e+00])"),
        (lambda: tg.tensor([True, False]), "tensor([ True, False])"),
        (lambda: tg.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: tg.tensor([1.0], dtype=tg.float64), "tensor([1.], dtype=torch.float64)"),
        (lambda: tg.zeros(0), "tensor([])"),
        (lambda: tg.tensor([float("nan"), 1.0]), "tensor([nan, 1.])"),
    ],
)
def test_text(make, text):
    assert repr(make()) == text


def test_views_share_storage_and_version():
    x = tg.arange(6).reshape(2, 3)
    view = x.t()[1]
    view.add_(10)
    assert x.tolist() == [[0, 11, 2], [3, 14, 5]]
    assert x._version == view._version == 1


def test_the_version_is_read_only():
    x = tg.ones(2)
    for value in (None, [0], 3):
        with pytest.raises(AttributeError):
            x._version = value
    assert x._version == 0 and x.add_(1)._version == 1


def test_user_formula_is_a_first_class_op():
    @tg.elementwise
    def bent(x, slope):
        return tg.where(x > 0, x, slope * (tg.exp(x) - 1))

    x = tg.tensor([-1.0, 0.5], dtype=tg.float64, requires_grad=True)
    assert tg.autograd.gradcheck(bent, (x, 0.7)) and tg.autograd.gradgradcheck(bent, (x, 0.7))
    assert bent(tg.tensor([-1.0, 2.0], dtype=tg.float16), 1.0).dtype == tg.float16
    nested = tg.elementwise(lambda x: bent(x, 2.0) * 3, name="nested_bent")
    assert nested(tg.tensor([1.0])).tolist() == [3.0]
    with pytest.raises(ValueError, match="exists already"):
        tg.elementwise(lambda x: x, name="bent")
    with pytest.raises(TypeError, match="no truth value"):
        tg.elementwise(lambda x: x if x > 0 else -x, name="branching")
    with pytest.raises(TypeError, match="takes 2 arguments"):
        bent(x)


@pytest.mark.parametrize("name", ["numpy", "cpp"])
def test_formulas_follow_a_change_of_the_default_dtype(name):
    if registry.class_of(name).why_not() is not None:
        pytest.skip(f"{name} can't run here")
    x = tg.arange(3)
    with tg.backend(name):
        assert [tg.exp(x).dtype, (x / 2).dtype, (x * 0.5).dtype] == [tg.float32] * 3
        tg.set_default_dtype(tg.float64)
        try:
            assert [tg.exp(x).dtype, (x / 2).dtype, (x * 0.5).dtype] == [tg.float64] * 3
        finally:
            tg.set_default_dtype(tg.float32)
        assert [tg.exp(x).dtype, (x / 2).dtype, (x * 0.5).dtype] == [tg.float32] * 3
