"""``out=`` of another dtype than the result: taken, cast to, computed in or refused as PyTorch does, by function."""

from __future__ import annotations

from typing import Any

import pytest

import tensorgrad as tg

torch: Any = pytest.importorskip("torch")

ACROSS = (
    ("float32", "float64"), ("float64", "float32"), ("float32", "float16"), ("float32", "int64"), ("int64", "int32"),
    ("int64", "float32"),
)  # fmt: skip
MATRIX = {
    "mm": lambda t, a, b, o: t.mm(a, b, out=o),
    "matmul": lambda t, a, b, o: t.matmul(a, b, out=o),
    "addmm": lambda t, a, b, o: t.addmm(a, a, b, out=o),
    "inner": lambda t, a, b, o: t.inner(a, b, out=o),
    "tensordot": lambda t, a, b, o: t.tensordot(a, b, dims=1, out=o),
    "multi_dot": lambda t, a, b, o: t.linalg.multi_dot([a, b], out=o),
    "matrix_power": lambda t, a, b, o: t.matrix_power(a, 2, out=o),
    "cross": lambda t, a, b, o: t.linalg.cross(a, b, out=o),
    "inv": lambda t, a, b, o: t.linalg.inv(a, out=o),
    "pinv": lambda t, a, b, o: t.linalg.pinv(a, out=o),
    "solve": lambda t, a, b, o: t.linalg.solve(a, b, out=o),
    "qr": lambda t, a, b, o: t.linalg.qr(a, out=(o, t.zeros_like(o))),
    "sort": lambda t, a, b, o: t.sort(a, 0, out=(o, t.zeros(2, 2, dtype=t.int64))),
    "sort into int32": lambda t, a, b, o: t.sort(a, 0, out=(t.zeros_like(a), t.zeros(2, 2, dtype=t.int32))),
    "msort": lambda t, a, b, o: t.msort(a, out=o),
    "topk": lambda t, a, b, o: t.topk(a, 2, 0, out=(o, t.zeros(2, 2, dtype=t.int64))),
    "cummax": lambda t, a, b, o: t.cummax(a, 0, out=(o, t.zeros(2, 2, dtype=t.int64))),
    "maximum": lambda t, a, b, o: t.maximum(a, b, out=o),
    "max of two": lambda t, a, b, o: t.max(a, b, out=o),
    "cumsum": lambda t, a, b, o: t.cumsum(a, 0, out=o),
    "cumsum in float64": lambda t, a, b, o: t.cumsum(a, 0, dtype=t.float64, out=o),
    "cumprod": lambda t, a, b, o: t.cumprod(a, 0, out=o),
    "logcumsumexp": lambda t, a, b, o: t.logcumsumexp(a, 0, out=o),
    "softmax": lambda t, a, b, o: t.softmax(a, 0, out=o),
    "index_select": lambda t, a, b, o: t.index_select(a, 0, t.tensor([1, 0]), out=o),
    "index_add": lambda t, a, b, o: t.index_add(a, 0, t.tensor([1, 0]), b, out=o),
    "scatter": lambda t, a, b, o: t.scatter(a, 0, t.tensor([[1, 0]]), b, out=o),
    "scatter_add": lambda t, a, b, o: t.scatter_add(a, 0, t.tensor([[1, 0]]), b, out=o),
    "take": lambda t, a, b, o: t.take(a, t.tensor([[1, 0], [2, 3]]), out=o),
    "where": lambda t, a, b, o: t.where(a > 1, a, b, out=o),
    "clamp": lambda t, a, b, o: t.clamp(a, 0, 1, out=o),
    "clamp by tensors": lambda t, a, b, o: t.clamp(a, b, out=o),
    "clamp_min": lambda t, a, b, o: t.clamp_min(a, 0, out=o),
    "tril": lambda t, a, b, o: t.tril(a, out=o),
    "renorm": lambda t, a, b, o: t.renorm(a, 2, 0, 1.0, out=o),
    "heaviside": lambda t, a, b, o: t.heaviside(a, b, out=o),
    "searchsorted": lambda t, a, b, o: t.searchsorted(b, a, out=o),
    "isin": lambda t, a, b, o: t.isin(a, b, out=o),
    "nan_to_num": lambda t, a, b, o: t.nan_to_num(a, out=o),
    "add": lambda t, a, b, o: t.add(a, b, out=o),
    "exp": lambda t, a, b, o: t.exp(a, out=o),
    "outer": lambda t, a, b, o: t.outer(a[0], b[0], out=o),
    "cat": lambda t, a, b, o: t.cat([a[:1], b[:1]], out=o),
    **{name: lambda t, a, b, o, name=name: getattr(t, name)(a, out=o) for name in (
        "abs", "ceil", "floor", "frac", "isposinf", "neg", "round", "sgn", "sign", "signbit", "trunc",
    )},
}  # fmt: skip
ROW = {
    "mv": lambda t, a, b, o: t.mv(a, b[0], out=o),
    "max": lambda t, a, b, o: t.max(a, 0, out=(o, t.zeros(2, dtype=t.int64))),
    "median": lambda t, a, b, o: t.median(a, 0, out=(o, t.zeros(2, dtype=t.int64))),
    "mode": lambda t, a, b, o: t.mode(a, 0, out=(o, t.zeros(2, dtype=t.int64))),
    "amax": lambda t, a, b, o: t.amax(a, 0, out=o),
    "argmax": lambda t, a, b, o: t.argmax(a, 0, out=o),
    "all": lambda t, a, b, o: t.all(a, 0, out=o),
    "sum": lambda t, a, b, o: t.sum(a, 0, out=o),
    "sum in float32": lambda t, a, b, o: t.sum(a, 0, dtype=t.float32, out=o),
    "nansum": lambda t, a, b, o: t.nansum(a, 0, out=o),
    "prod": lambda t, a, b, o: t.prod(a, 0, out=o),
    "mean": lambda t, a, b, o: t.mean(a, 0, out=o),
    "std": lambda t, a, b, o: t.std(a, 0, out=o),
    "quantile": lambda t, a, b, o: t.quantile(a, 0.5, 0, out=o),
    "norm": lambda t, a, b, o: t.linalg.vector_norm(a, dim=0, out=o),
    "diag": lambda t, a, b, o: t.diag(a, out=o),
}


def outcome(t: Any, name: str, dtype: str, out: str) -> Any:
    a = t.tensor([[1.25, 2.5], [3.75, 1.0]]).to(getattr(t, dtype))
    b = t.tensor([[1.0, 2.25], [2.0, 3.5]]).to(getattr(t, dtype))
    o = t.zeros((2, 2) if name in MATRIX else (2,), dtype=getattr(t, out))
    try:
        result = (MATRIX.get(name) or ROW[name])(t, a, b, o)
    except (RuntimeError, TypeError):
        return "refused"
    return [(str(x.dtype), x.tolist()) for x in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("name", (*MATRIX, *ROW))
def test_out_of_another_dtype(name):
    for dtype, out in ACROSS:
        expected, got = outcome(torch, name, dtype, out), outcome(tg, name, dtype, out)
        if "refused" in (expected, got):
            assert got == expected, (dtype, out)
            continue
        for (kind, values), (expected_kind, expected_values) in zip(got, expected, strict=True):
            assert kind == expected_kind, (dtype, out)
            torch.testing.assert_close(torch.tensor(values), torch.tensor(expected_values), rtol=2e-3, atol=1e-3)


def test_sums_into_integers_are_sums_of_integers():
    """As in PyTorch, elements are converted first; NaN has no place among them."""
    x, out = tg.tensor([1.75, 2.75]), tg.zeros((), dtype=tg.int64)
    assert tg.sum(x, 0, out=out).item() == 3
    assert tg.sum(tg.tensor([3, 4]), 0, out=out).item() == 7
    with pytest.raises(RuntimeError, match="nansum: the result is"):
        tg.nansum(tg.tensor([1.0, float("nan")]), 0, out=out)


def test_an_out_within_autocast_keeps_its_dtype():
    """There the region, not the caller, chose what the product is computed in."""
    a, out = tg.ones(2, 2), tg.zeros(2, 2)
    with tg.autocast("cpu"):
        assert tg.mm(a, a, out=out).dtype is tg.float32
    assert out.tolist() == [[2.0, 2.0], [2.0, 2.0]]
