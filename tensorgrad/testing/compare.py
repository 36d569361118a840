"""``torch.testing.assert_close`` and ``make_tensor``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtypes import as_dtype, promote_types
from ..tensor import Tensor

__all__ = ["assert_close", "make_tensor"]

# (rtol, atol) of each dtype, PyTorch's
_TOLERANCES = {
    "float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5), "complex128": (1e-7, 1e-7),
}  # fmt: skip


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raises AssertionError unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Args:
        actual, expected: tensors, arrays, numbers, None, or sequences and mappings of them, of one structure.
        allow_subclasses: whether instances of different classes may be compared.
        rtol, atol: both or neither; by default those of the dtype (1.3e-6 and 1e-5 for float32, 1e-7 for float64).
        equal_nan: whether NaN equals NaN.
        check_device, check_dtype, check_stride: whether these must agree too. There is one layout only.
        msg: the message instead of the one made here, or a function of it.
    Raises: AssertionError; ValueError if only one tolerance is given; TypeError for what can't be compared.
    Example:
        >>> import tensorgrad as tg
        >>> tg.testing.assert_close(tg.ones(2), tg.tensor([1.0, 1.0 + 1e-7]))
    """
    if (rtol is None) != (atol is None):
        raise ValueError("assert_close: give both rtol and atol, or neither.")

    def fail(text: str) -> None:
        raise AssertionError(msg(text) if callable(msg) else text if msg is None else msg)

    def pair(a: Any, b: Any, where: str) -> None:
        if not allow_subclasses and type(a) is not type(b):
            raise TypeError(f"assert_close: {type(a).__name__} and {type(b).__name__} are of different classes{where}.")
        x, y = _tensor(a), _tensor(b)
        if x.shape != y.shape:
            fail(f"The values for attribute 'shape' do not match{where}: {tuple(x.shape)} != {tuple(y.shape)}.")
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        if both and check_device and x.device != y.device:
            fail(f"The values for attribute 'device' do not match{where}: {x.device} != {y.device}.")
        if both and check_dtype and x.dtype is not y.dtype:
            fail(f"The values for attribute 'dtype' do not match{where}: {x.dtype} != {y.dtype}.")
        if both and check_stride and x.stride() != y.stride():
            fail(f"The values for attribute 'stride()' do not match{where}: {x.stride()} != {y.stride()}.")
        relative, absolute = (rtol, atol) if rtol is not None else _tolerance(x, y)
        wide = promote_types(x.dtype, y.dtype)
        kind = "complex128" if wide.is_complex else "float64" if wide.is_floating_point else "int64"
        left, right = x.detach().to(kind).numpy(force=True), y.detach().to(kind).numpy(force=True)
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.abs(left - right)
            close = (left == right) | (np.isfinite(distance) & (distance <= absolute + relative * np.abs(right)))
            if equal_nan and kind != "int64":
                close |= np.isnan(left) & np.isnan(right)
        if not close.all():
            fail(_words(left, right, close, relative, absolute, where))

    _compare(actual, expected, "", pair, fail)


# No closure: one that calls itself is a cycle, in which ``msg`` would wait for the garbage collector.
def _compare(a: Any, b: Any, where: str, pair: Callable[..., None], fail: Callable[[str], None]) -> None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            fail(f"The keys of the mappings do not match{where}: {sorted(map(str, set(a) ^ set(b)))}.")
        for key in b:
            _compare(a[key], b[key], f"{where}[{key!r}]", pair, fail)
    elif _is_sequence(a) and _is_sequence(b):
        if len(a) != len(b):
            fail(f"The length of the sequences mismatch{where}: {len(a)} != {len(b)}.")
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _compare(x, y, f"{where}[{i}]", pair, fail)
    elif a is None or b is None:
        if a is not b:
            fail(f"None mismatch{where}: {a} is not {b}.")
    else:
        pair(a, b, where)


def _is_sequence(x: Any) -> bool:
    return isinstance(x, Sequence) and not isinstance(x, str)


def _tensor(x: Any) -> Tensor:
    from ..ops.create import as_tensor

    if isinstance(x, (Tensor, bool, int, float, complex, np.ndarray, np.generic)):
        return as_tensor(x)
    raise TypeError(f"assert_close: expected tensors, numbers, sequences or mappings, got {type(x).__name__}.")


def _tolerance(x: Tensor, y: Tensor) -> tuple[float, float]:
    pairs = [_TOLERANCES.get(part.dtype.name, (0.0, 0.0)) for part in (x, y)]
    return max(r for r, _ in pairs), max(a for _, a in pairs)


def _words(left: Any, right: Any, close: Any, rtol: Any, atol: Any, where: str) -> str:
    count = int((~close).sum())
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        distance = np.where(close, 0, np.abs(left - right))
        share = distance / np.abs(right)
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(distance), np.inf, distance))), distance.shape)
    far = np.unravel_index(int(np.argmax(np.where(np.isnan(share), -1, share))), share.shape)
    head = "Tensor-likes are not equal" if not (rtol or atol) else "Tensor-likes are not close"
    return (
        f"{head}{where}!\n\n"
        f"Mismatched elements: {count} / {close.size} ({100 * count / close.size:.1f}%)\n"
        f"Greatest absolute difference: {distance[worst]} at index {tuple(map(int, worst))} (up to {atol} allowed)\n"
        f"Greatest relative difference: {share[far]} at index {tuple(map(int, far))} (up to {rtol} allowed)"
    )


def make_tensor(
    *shape: Any,
    dtype: Any,
    device: Any,
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
) -> Tensor:
    """Random elements from [low, high), by default [-9, 9) for floating and complex dtypes, [-9, 10) for integers.

    Args:
        shape: of the tensor, as numbers or one sequence.
        dtype, device: of the tensor.
        requires_grad: for floating and complex dtypes.
        noncontiguous: every second element of a larger tensor.
        exclude_zero: zeros are replaced by a small number of the dtype (1 for integers).
    Raises: ValueError for an empty range.
    """
    import tensorgrad as tg

    sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else tuple(shape)
    kind = as_dtype(dtype)
    floating = kind.is_floating_point or kind.is_complex
    if kind.name == "bool":
        bounds: tuple[float, float] = (0, 2)
    elif floating:
        bounds = (-9.0, 9.0)
    else:
        bounds = (-9 if kind.is_signed else 0, 10)
    low, high = bounds[0] if low is None else low, bounds[1] if high is None else high
    if low >= high:
        raise ValueError(f"make_tensor: the range from {low} to {high} is empty.")
    drawn = (*sizes[:-1], 2 * sizes[-1]) if noncontiguous and sizes else sizes
    if kind.is_complex:
        parts = [tg.rand(drawn, dtype=kind.to_real(), device=device) * (high - low) + low for _ in range(2)]
        result = tg.complex(*parts)
    elif floating:
        result = (tg.rand(drawn, dtype=tg.float64, device=device) * (high - low) + low).to(kind)
    else:
        result = tg.randint(int(low), int(high), drawn, device=device).to(kind)
    if exclude_zero:
        small = float(np.finfo(kind.np).tiny) if kind.np.kind in "fc" else 1
        result = tg.where(result == 0, tg.tensor(small, dtype=kind, device=device), result)
    if noncontiguous and sizes:
        result = result[..., ::2]
    return result.detach().requires_grad_(requires_grad and floating)
