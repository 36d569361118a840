"""The op table on device ``cuda``: on the GPU where there is one, else on the strict stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.errors import DeviceError
from tensorgrad.testing import conformance
from tensorgrad.testing.strict_backend import strict_cuda

CASES = list(conformance.cases())
DTYPES = ("float32", "float64", "float16", "bfloat16")


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    with registry.backend("numpy"), strict_cuda() if registry.class_of("cupy").why_not() is not None else nullcontext():
        yield


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_bits_and_shape(case: conformance.Case) -> None:
    for dtype in DTYPES:
        if conformance.applies(case, dtype):
            conformance.check_value(case, dtype, "cupy")
            conformance.check_shapes(case, dtype, "cupy")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_and_second_derivative(case: conformance.Case) -> None:
    conformance.check_first_derivative(case, "cupy")
    conformance.check_second_derivative(case, "cupy")


def test_moving_between_devices_carries_the_gradient() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x.to("cuda") * 3
    assert str(y.device) == "cuda:0"
    (y * y).sum().backward()
    assert str(x.grad.device) == "cpu"
    assert x.grad.tolist() == [18.0, 36.0]
    assert x.cuda().cpu().tolist() == [1.0, 2.0]
    with pytest.raises(DeviceError, match="does not exist"):
        x.to("cuda:7")


def test_devices_do_not_mix() -> None:
    with pytest.raises(DeviceError, match="Move one"):
        tg.ones(2) + tg.ones(2, device="cuda")


def test_a_draw_is_the_same_on_every_device() -> None:
    for draw in (tg.rand, tg.randn):
        for dtype in (tg.float32, tg.float64):
            on_device = draw(1000, dtype=dtype, device="cuda", generator=tg.Generator().manual_seed(3))
            on_host = draw(1000, dtype=dtype, generator=tg.Generator().manual_seed(3))
            assert float((on_device.cpu() - on_host).abs().max()) < 1e-6


def test_an_index_out_of_range_raises_and_changes_nothing() -> None:
    x = tg.arange(6.0, device="cuda").reshape(2, 3)
    at = tg.tensor([0, 3], device="cuda")
    for use in (
        lambda: x[at], lambda: x.index_select(0, at), lambda: x.gather(1, at.reshape(1, 2)),
        lambda: x.index_add_(0, at, tg.ones(2, 3, device="cuda")), lambda: x.__setitem__(at, 0.0),
    ):  # fmt: skip
        with pytest.raises(IndexError, match="out of bounds"):
            use()
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_sums_at_repeated_places_are_right_and_the_same_every_time() -> None:
    generator = tg.Generator().manual_seed(0)
    index = tg.randint(0, 5, (3, 200), generator=generator)
    src = tg.randn(3, 200, generator=generator)
    want = tg.zeros(3, 5).scatter_add(1, index, src)
    for dtype in (tg.float32, tg.bfloat16):
        runs = [
            tg.zeros(3, 5, device="cuda", dtype=dtype).scatter_add(1, index.cuda(), src.to(dtype).cuda()).cpu().float()
            for _ in range(3)
        ]
        assert all((run == runs[0]).all() for run in runs)
        digits = 0.05 if dtype is tg.bfloat16 else 1e-5
        assert float((runs[0] - want).abs().max()) <= digits * float(want.abs().max())
