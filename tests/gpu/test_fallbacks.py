"""What kernels of CUDA leave to the generic ones: rare dtypes, sizes and layouts compute what they do on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.backends.cupy import (
    accumulate_kernels,
    attention_kernels,
    index_kernels,
    launch,
    optim_kernels,
    reduce_kernels,
    summed_rows_kernels,
)
from tensorgrad.backends.cupy.words import CapturedGenerator
from tensorgrad.nn import functional as F
from tests.gpu.beside_cpu import Shown, assert_near, cuda_here


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    with cuda_here():
        yield


def same(run: Callable[[str], Any], rtol: float = 1e-5) -> None:
    """``run(device)`` gives the same results on both."""
    mine, theirs = Shown("cuda"), Shown("cpu")
    for show in (mine, theirs):
        tg.manual_seed(0)
        show(run(show.device))
    assert theirs.seen[0]
    assert_near(mine.seen, theirs.seen, rtol)


def raw(name: str, /, *arrays: Any, **how: Any) -> None:
    """An op's kernel gives the same on both."""
    mine, theirs = registry.get("cupy"), registry.get("numpy")
    # kernels may write to what they are given
    placed = [mine.from_host(x.copy()) if isinstance(x, np.ndarray) else x for x in arrays]
    got, want = getattr(mine.raw, name)(*placed, **how), getattr(theirs.raw, name)(*arrays, **how)
    pair = [x if isinstance(x, tuple) else (x,) for x in (got, want)]
    assert_near([mine.to_host(x) for x in pair[0]], list(pair[1]), 1e-5)


def drawn(*shape: int, dtype: Any = np.float32) -> Any:
    x = np.random.default_rng(0).standard_normal(shape)
    return (x + 1j * x[..., ::-1]).astype(dtype) if np.dtype(dtype).kind == "c" else (8 * x).astype(dtype)


# --- pools


@pytest.mark.parametrize("dtype", [tg.int64, tg.uint8, tg.complex64], ids=str)
def test_pools_of_integers_and_complex_numbers(dtype: Any) -> None:
    def pools(device: str) -> list[Any]:
        x = tg.tensor(np.abs(drawn(2, 3, 12, dtype=np.float64)), device=device).to(dtype)
        if dtype.is_complex:
            x = (x * (1 + 2j)).requires_grad_()
            y = F.avg_pool1d(x, 3, stride=2, padding=1)
            return [y, *tg.autograd.grad(y.abs().sum(), [x])]
        return [
            F.max_pool1d(x, 3, stride=2), F.max_pool1d(x, 2, return_indices=True), F.adaptive_max_pool1d(x, 5),
            F.adaptive_max_pool1d(x, 5, return_indices=True), F.avg_pool1d(x, 3, stride=2),
        ]  # fmt: skip

    same(pools)
    if dtype.is_complex:
        return
    x = drawn(2, 3, 12, dtype=np.int32)
    raw("max_pool_values", x, kernel=(3,), stride=(2,), padding=(1,), dilation=(1,), ceil_mode=False)
    raw("adaptive_max_pool_values", x, output_size=(5,))


def test_the_gradient_of_a_maximum_over_one_long_row_is_sorted() -> None:
    def gradient(device: str) -> Any:
        x = tg.tensor(drawn(1, 1, (1 << 14) + 9), device=device, requires_grad=True)
        return tg.autograd.grad(F.max_pool1d(x, 3, stride=1).cos().sum(), [x])

    same(gradient)


def test_a_pool_of_no_results_has_a_gradient_of_zeros() -> None:
    def gradient(device: str) -> Any:
        x = tg.ones(2, 1, 3, device=device, requires_grad=True)
        return tg.autograd.grad(F.adaptive_avg_pool1d(x, 0).sum(), [x])

    same(gradient)


# --- sums at places, reductions, draws


def test_truths_at_repeated_places_are_added_as_truths() -> None:
    def added(device: str) -> list[Any]:
        at, values = tg.tensor([0, 0, 2], device=device), tg.tensor([True, True, False], device=device)
        zeros = tg.zeros(3, dtype=tg.bool, device=device)
        return [zeros.scatter_add(0, at, values), zeros.index_add(0, at, values),
                zeros.index_put((at,), values, accumulate=True)]  # fmt: skip

    same(added)


def test_more_places_than_are_counted_in_32_bits_and_the_order_of_complex_numbers(monkeypatch: Any) -> None:
    def at_places(device: str) -> list[Any]:
        at, values = tg.tensor([2, 0, 2], device=device), tg.tensor(drawn(3), device=device)
        zeros = tg.zeros(3, device=device)
        return [
            zeros.scatter_add(0, at, values), zeros.scatter_reduce(0, at, values, "prod"), zeros.scatter(0, at, 1.0),
            zeros.index_add(0, at, values), zeros.scatter(0, at, values[[0, 0, 0]]),
            zeros.index_put((at[:2],), values[:2]),  # no position twice: CuPy says not which value stays
        ]  # fmt: skip

    at, values, zeros = np.array([2, 0, 2]), drawn(3, dtype=np.complex64), np.zeros(3, np.complex64)
    for reduce in ("amax", "amin"):  # as NumPy orders them
        raw("scatter_reduce", zeros, at, values, dim=0, reduce=reduce)
    monkeypatch.setattr(accumulate_kernels, "_MOST", 2)
    monkeypatch.setattr(index_kernels, "_MOST", 2)
    same(at_places)
    raw("embedding_backward", drawn(3, 2), at, num_embeddings=3, padding_idx=None)
    monkeypatch.setattr(summed_rows_kernels, "_MOST", 2)
    raw("grouped_rows", at, at, groups=3, negative=False, name="index_add", keeps=True)
    raw("summed_rows", drawn(3, 2), at, np.array([0, 1, 3]), None, None, None)


def test_reductions_of_complex_numbers_and_over_axes_that_alternate_too_often(monkeypatch: Any) -> None:
    def reduced(device: str) -> list[Any]:
        x = tg.tensor(drawn(5, 4, dtype=np.complex64), device=device)
        return [x.std(), x.var(0), tg.linalg.vector_norm(x, dim=1), tg.linalg.vector_norm(x, ord=1)]

    same(reduced)
    x = drawn(2, 3, 4)
    for name in ("amax", "amin", "count_nonzero", "any", "all", "logsumexp", "sum", "mean", "prod"):
        raw(name, x, dim=(1,), keepdim=False)
    monkeypatch.setattr(reduce_kernels, "walk_over", lambda shape, dim: None)  # as of 2^31 elements
    for name in ("amax", "amin", "count_nonzero", "any", "all", "logsumexp", "sum", "mean", "prod"):
        raw(name, x, dim=(1,), keepdim=False)
    for name in ("argmax", "argmin", "max_dim", "min_dim"):
        raw(name, x, dim=1, keepdim=True)
    raw("var", x, dim=(0, 2), correction=1.0, keepdim=True)
    raw("std", x, dim=(0, 2), correction=1.0, keepdim=True)
    raw("vector_norm", x, ord=2.0, dim=(0,), keepdim=False)


def test_draws_of_all_integers_and_dropout_of_complex_numbers() -> None:
    def draws(device: str) -> list[Any]:
        x = tg.ones(40, dtype=tg.complex64, device=device)
        return [tg.randint(-(2**63), 2**63, (9,), device=device), F.dropout(x, 0.5)]

    same(draws)


# --- norms and losses


def test_norms_and_losses_of_nothing() -> None:
    def of_nothing(device: str) -> list[Any]:
        x, w = tg.ones(0, 4, device=device, requires_grad=True), tg.ones(4, device=device, requires_grad=True)
        spread = tg.ones(0, 4, 3, device=device, requires_grad=True)
        target = tg.ones(0, dtype=tg.int64, device=device)
        zeros, ones = tg.zeros(4, device=device), tg.ones(4, device=device)
        results = [
            F.group_norm(spread, 2, w), F.batch_norm(x, None, None, w, None, training=True),
            F.batch_norm(x, zeros, ones, w, None, training=False), F.cross_entropy(x, target, reduction="sum"),
            F.layer_norm(x, (4,), w), F.rms_norm(x, (4,), w),
        ]  # fmt: skip
        return [*results, *tg.autograd.grad(sum(y.sum() for y in results), [x, spread, w])]

    same(of_nothing)


@pytest.mark.parametrize("rows", [0, 5])
def test_gradients_of_another_dtype_than_the_input(rows: int) -> None:
    x, wide, w = drawn(rows, 4), drawn(rows, 4, dtype=np.float64), drawn(4)
    mean, rstd = drawn(4), np.abs(drawn(4))
    if rows:
        raw("batch_norm_backward", wide, x, mean, rstd, w, needs=(True, True, True))
    mean, rstd = drawn(rows, 2), np.abs(drawn(rows, 2))
    raw("group_norm_backward", wide, x, mean, rstd, w, groups=2, needs=(True, True, True))
    target, lse = np.zeros(rows, np.int64), drawn(rows)
    raw("cross_entropy_backward", wide[:, 0], x, target, None, lse, ignore_index=-100, reduction="none",
        label_smoothing=0.0)  # fmt: skip


# --- optimizers


def not_dense(device: str) -> list[Any]:
    made = [tg.tensor(drawn(4, 6), device=device)[:, ::2], tg.tensor(drawn(3, 8), device=device)[1:, 1:6]]
    return [p.detach().requires_grad_() for p in made]


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 2.0, 3.0, float("inf")])
def test_norms_of_every_kind(norm: float) -> None:
    def clipped(device: str) -> list[Any]:
        dense, complex_one = tg.ones(3, device=device), tg.ones(3, dtype=tg.complex64, device=device)
        parameters = [*not_dense(device), dense.requires_grad_()]
        if norm in (1.0, 2.0):
            parameters.append(complex_one.requires_grad_())
        for p in parameters:
            p.grad = p.detach() * 2
            if not p.is_contiguous():
                p.grad = tg.stack((p.grad, p.grad), dim=-1)[..., 0]
        total = nn.utils.clip_grad_norm_(parameters, 1.0, norm_type=norm)
        return [total, [p.grad for p in parameters]]

    same(clipped)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_parameters_that_are_not_dense(kind: str, compiled: bool) -> None:
    def trained(device: str) -> list[Any]:
        parameters = not_dense(device)
        optimizer = getattr(tg.optim, kind)(parameters, lr=0.1)

        def step() -> None:
            optimizer.zero_grad()
            sum((p * p).sum() for p in parameters).backward()
            optimizer.step()

        turn = tg.compile(step) if compiled else step
        for _ in range(4):
            turn()
        return parameters

    same(trained)


# --- what is kept does not grow for ever


def test_remembered_plans_are_forgotten_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (attention_kernels, "_MOST_LAYOUTS"), (optim_kernels, "_MOST_TABLES"), (launch, "_MOST_WALKS"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 2)

    def work(device: str) -> list[Any]:
        shown: list[Any] = []
        for n in range(2, 7):
            x = tg.tensor(drawn(1, 1, n, 4), device=device, requires_grad=True)
            y = F.scaled_dot_product_attention(x, x, x)
            tg.optim.SGD([x], lr=0.1).zero_grad()
            y.sum().backward()
            tg.optim.SGD([x], lr=0.1).step()
            shown += [y, x]
        return shown

    same(work)
    backend: Any = registry.get("cupy")
    assert len(backend._tables) <= 2 and len(backend._attention_layouts) <= 2


# --- attention, formulas, generators


def test_a_gradient_for_the_mask_alone() -> None:
    def gradient(device: str) -> Any:
        q = tg.tensor(drawn(1, 2, 5, 4), device=device)
        mask = tg.tensor(drawn(5, 5), device=device, requires_grad=True)
        return tg.autograd.grad(F.scaled_dot_product_attention(q, q, q, attn_mask=mask).cos().sum(), [mask])

    same(gradient)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_attention_with_dropout(dtype: Any, p: float) -> None:
    """With kernels for it or, in float64, written out: the CPU's masks, and second derivatives."""

    def attended(device: str) -> Any:
        sizes = (2, 4, 7, 8), (2, 2, 5, 8), (2, 2, 5, 3), (4, 1, 5)
        given = [tg.tensor(drawn(*size, dtype=dtype) / 8, device=device, requires_grad=True) for size in sizes]
        q, k, v, mask = given
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, enable_gqa=True)
        drawn_next = tg.rand(3, device=device)
        grads = tg.autograd.grad(y.cos().sum(), given, create_graph=True)
        return [y, drawn_next, *grads, *tg.autograd.grad(sum(x.square().sum() for x in grads), given)]

    same(attended, 2e-5)


def test_attention_with_dropout_in_rare_dtypes_is_defined_by_other_ops() -> None:
    q, k, v = drawn(2, 3, 4, dtype=np.float64), drawn(2, 5, 4, dtype=np.float64), drawn(2, 5, 3, dtype=np.float64)
    how = {"causal": False, "scale": 0.1, "p": 0.3}
    raw("attention_dropout", q, k, v, None, **how, generator=_Again())
    place = np.array([7, 0])
    out, lse, _ = registry.get("numpy").raw.attention_dropout(q, k, v, None, **how, generator=_Again())
    needs = (True, True, True, False)
    raw("attention_dropout_backward", out, q, k, v, None, out, lse, place, **how, needs=needs)


class _Again:
    """A generator whose every draw is the first."""

    def take(self, count: int = 1) -> tuple[int, int]:
        return 7, 0


def test_results_are_converted_to_what_takes_them() -> None:
    backend: Any = registry.get("cupy")
    x = backend.from_host(drawn(4, dtype=np.complex64))
    for dtype in (np.float32, np.complex128):
        out = backend.from_host(np.zeros(4, dtype))
        assert backend.raw.add(x, x, out=out) is out
        want = 2 * drawn(4, dtype=np.complex64)
        np.testing.assert_allclose(backend.to_host(out), want.real if dtype == np.float32 else want, rtol=1e-6)


def test_an_array_of_a_dtype_that_tensors_lack_is_refused() -> None:
    backend: Any = registry.get("cupy")
    with pytest.raises(TypeError, match="uint16"):
        backend.raw.add(backend.from_host(np.ones(2, np.uint16)), 1)


def test_a_captured_generator_is_asked_on_the_device_and_within_the_capture_alone() -> None:
    captured = CapturedGenerator(tg.Generator())
    with pytest.raises(RuntimeError, match="by a kernel that is given their place by the host"):
        captured.take()
    with pytest.raises(RuntimeError, match="outside of the capture"):
        captured.place(3)
