"""The functions of ``tensorgrad.fft``: PyTorch's arguments turned into the three transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dispatch import recorded
from ..errors import DimError, DTypeError, ShapeError
from ..ops.checks import integer
from ..ops.inplace import deliver
from ..ops.shape_core import cast, one_dim
from ..tensor import Tensor
from .transforms import SWAPPED, fft_c2c, fft_c2r, fft_r2c

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift",
    "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

Dims = int | Sequence[int] | None


# --- arguments


def _norm(name: str, norm: Any) -> str:
    if norm is None:
        return "backward"
    if not isinstance(norm, str) or norm not in SWAPPED:
        raise ShapeError(f"{name}: Invalid normalization mode: {norm!r}; use 'backward', 'ortho' or 'forward'.")
    return str(norm)


def _prepared(name: str, x: Any, kind: str) -> Tensor:
    """``x`` as the complex (``"c"``) or real (``"f"``) numbers that the transform takes; integers become floats."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}.")
    dtype = x.dtype
    if dtype.name in ("float16", "bfloat16"):
        raise DTypeError(f"{name}: Unsupported dtype {dtype}; convert with .float().")
    if kind == "f" and dtype.is_complex:
        raise DTypeError(f"{name} expects a real input tensor, but got {dtype}. Take .real, or use fft.")
    from ..dtypes import BY_NAME, get_default_dtype

    wanted = dtype if dtype.category > 1 else get_default_dtype()
    if wanted.name in ("float16", "bfloat16"):
        wanted = BY_NAME["float32"]
    if kind == "c" and not wanted.is_complex:
        wanted = BY_NAME[{"float32": "complex64", "float64": "complex128"}[wanted.name]]
    return x if dtype is wanted else cast(x, dtype=wanted.np)


def _lengths(name: str, s: Any) -> list[int]:
    return [integer(name, "a length", n) for n in (s if hasattr(s, "__iter__") else (s,))]


def _require_points(name: str, n: Any) -> None:
    """Raises ShapeError for one number that is -1, which leaves a dimension as it is in a list alone."""
    if n is not None and not hasattr(n, "__iter__") and integer(name, "n", n) == -1:
        raise ShapeError(f"{name}: Invalid number of data points (-1) specified.")


def _plan(name: str, x: Tensor, s: Any, dim: Dims) -> tuple[list[int], list[int]]:
    """(dims, sizes) to transform. Raises DimError or ShapeError."""
    shape, ndim = tuple(x.shape), x._data.ndim
    sizes = None if s is None else _lengths(name, s)
    _require_points(name, s)
    if dim is None and name.endswith("2"):
        raise TypeError(f"{name}: dim must be two integers, got None. All dimensions: {name[:-1]}n.")
    if dim is not None:
        dims = [one_dim(name, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
        if ndim == 0 and dims:
            raise DimError(f"{name}: Dimension specified as {dim} but tensor has no dimensions.")
        if len(set(dims)) != len(dims):
            raise ShapeError(f"{name}: FFT dims must be unique, got {dim}.")
        if sizes is not None and len(sizes) != len(dims):
            raise ShapeError(f"{name}: When given, dim and shape arguments must have the same length, got {dim}, {s}.")
    elif sizes is not None:
        if len(sizes) > ndim:
            raise ShapeError(f"{name}: Got shape with {len(sizes)} values but input tensor only has {ndim} dimensions.")
        dims = list(range(ndim - len(sizes), ndim))
    else:
        dims = list(range(ndim))
    full = [shape[d] for d in dims]
    sizes = full if sizes is None else [have if n == -1 else n for n, have in zip(sizes, full, strict=True)]
    for n in sizes:
        if n < 1:
            raise ShapeError(f"{name}: Invalid number of data points ({n}) specified.")
    return dims, sizes


def _resized(x: Tensor, dims: list[int], sizes: list[int]) -> Tensor:
    """``x`` cut or filled up with zeros."""
    shape = tuple(x.shape)
    want = list(shape)
    for d, n in zip(dims, sizes, strict=True):
        want[d] = n
    if tuple(want) == shape:
        return x
    if any(n < have for n, have in zip(want, shape, strict=True)):
        key = tuple([slice(0, min(n, have), 1) for n, have in zip(want, shape, strict=True)])
        x = recorded.slice(x, key=key)
    pads = tuple([(0, n - have) for n, have in zip(want, x.shape, strict=True)])
    if any(after for _, after in pads):
        x = recorded.pad(x, pads=pads, mode="constant", value=0.0)
    return x


# --- the four shapes of a transform


def _complex(name: str, input: Any, s: Any, dim: Dims, norm: Any, inverse: bool, out: Any) -> Tensor:
    x = _prepared(name, input, "c")
    dims, sizes = _plan(name, x, s, dim)
    mode = _norm(name, norm)
    result = fft_c2c(_resized(x, dims, sizes), dims=tuple(dims), inverse=inverse, norm=mode)
    return deliver(name, result, out)


def _to_half(name: str, input: Any, s: Any, dim: Dims, norm: Any, inverse: bool, out: Any) -> Tensor:
    """rfft and its like; ``inverse``: ihfft and its like."""
    x = _prepared(name, input, "f")
    dims, sizes = _plan(name, x, s, dim)
    mode = _norm(name, norm)
    if not dims:
        raise ShapeError(f"{name} must transform at least one axis.")
    x = _resized(x, dims, sizes)
    y = fft_r2c(x, dim=dims[-1], norm=SWAPPED[mode] if inverse else mode)
    if inverse:
        y = recorded.conj(y)
    if len(dims) > 1:
        y = fft_c2c(y, dims=tuple(dims[:-1]), inverse=inverse, norm=mode)
    return deliver(name, y, out)


def _from_half(name: str, input: Any, s: Any, dim: Dims, norm: Any, inverse: bool, out: Any) -> Tensor:
    """irfft and its like; not ``inverse``: hfft and its like."""
    x = _prepared(name, input, "c")
    if s is None:
        dims, sizes = _plan(name, x, None, dim)
        if dims:
            sizes[-1] = 2 * (sizes[-1] - 1)
    else:
        _require_points(name, s)
        s = _lengths(name, s)
        auto = bool(s) and s[-1] == -1
        dims, sizes = _plan(name, x, s, dim)
        if auto:
            sizes[-1] = 2 * (sizes[-1] - 1)
    mode = _norm(name, norm)
    if not dims:
        raise ShapeError(f"{name} must transform at least one axis.")
    if sizes[-1] < 1:
        raise ShapeError(f"{name}: Invalid number of data points ({sizes[-1]}) specified.")
    x = _resized(x, dims, [*sizes[:-1], sizes[-1] // 2 + 1])
    if len(dims) > 1:
        x = fft_c2c(x, dims=tuple(dims[:-1]), inverse=inverse, norm=mode)
    if not inverse:
        x = recorded.conj(x)
    result = fft_c2r(x, dim=dims[-1], size=sizes[-1], norm=mode if inverse else SWAPPED[mode])
    return deliver(name, result, out)


def _one(dim: Any) -> Any:
    return -1 if dim is None else dim


# --- the functions


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The discrete Fourier transform along ``dim``: ``X[k] = sum_j x[j] exp(-2 pi i j k / n)``, complex.

    Args:
        input: real or complex; integers are converted to the default dtype.
        n: cut the dimension, or fill it up with zeros, to this size first.
        norm: where the factor 1/n is: ``"backward"`` (default) on the inverse, ``"forward"`` here, ``"ortho"`` its
            root on both.
    Raises: DTypeError for half precision; DimError for a bad dim; ShapeError for no data points, or another norm.
    Example:
        >>> import tensorgrad as tg
        >>> tg.fft.fft(tg.tensor([1.0, 0.0, 0.0, 0.0])).real.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    return _complex("fft", input, n, _one(dim), norm, False, out)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``fft``, with the factor 1/n by default; arguments and errors as there."""
    return _complex("ifft", input, n, _one(dim), norm, True, out)


def fftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The transform over several dimensions: those in ``dim``, else the last ``len(s)``, else all.

    ``s`` are the sizes to cut or fill the dimensions to, -1 to leave one. The rest is as in ``fft``.
    """
    return _complex("fftn", input, s, dim, norm, False, out)


def ifftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``fftn``."""
    return _complex("ifftn", input, s, dim, norm, True, out)


def fft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Any = None) -> Tensor:
    """``fftn`` over the last two dimensions, or the two in ``dim``."""
    return _complex("fft2", input, s, dim, norm, False, out)


def ifft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``fft2``."""
    return _complex("ifft2", input, s, dim, norm, True, out)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The first n // 2 + 1 values of ``fft`` of a real tensor; the others mirror them, conjugated.

    Raises: DTypeError for complex tensors; otherwise as ``fft``.
    """
    return _to_half("rfft", input, n, _one(dim), norm, False, out)


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``rfft``: n real numbers, by default ``2 * (input.shape[dim] - 1)``; give an odd n."""
    return _from_half("irfft", input, n, _one(dim), norm, True, out)


def rfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None) -> Tensor:
    """``fftn`` of a real tensor, of the last dimension the first half as in ``rfft``."""
    return _to_half("rfftn", input, s, dim, norm, False, out)


def irfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``rfftn``; give ``s`` if the last size is odd."""
    return _from_half("irfftn", input, s, dim, norm, True, out)


def rfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Any = None) -> Tensor:
    """``rfftn`` over the last two dimensions, or the two in ``dim``."""
    return _to_half("rfft2", input, s, dim, norm, False, out)


def irfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``rfft2``."""
    return _from_half("irfft2", input, s, dim, norm, True, out)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The real ``fft`` of n numbers of which the second half mirrors the first, given here, conjugated."""
    return _from_half("hfft", input, n, _one(dim), norm, False, out)


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``hfft``: the first half of ``ifft`` of a real tensor."""
    return _to_half("ihfft", input, n, _one(dim), norm, True, out)


def hfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None) -> Tensor:
    """``hfft`` over the last dimension, ``fft`` over the others of ``dim``."""
    return _from_half("hfftn", input, s, dim, norm, False, out)


def ihfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``hfftn``."""
    return _to_half("ihfftn", input, s, dim, norm, True, out)


def hfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Any = None) -> Tensor:
    """``hfftn`` over the last two dimensions, or the two in ``dim``."""
    return _from_half("hfft2", input, s, dim, norm, False, out)


def ihfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Any = None) -> Tensor:
    """The inverse of ``hfft2``."""
    return _to_half("ihfft2", input, s, dim, norm, True, out)


# --- order and frequencies


def _shift(name: str, input: Tensor, dim: Dims, sign: int) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(input).__name__}.")
    ndim = input._data.ndim
    dims = (
        range(ndim)
        if dim is None
        else [one_dim(name, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    )
    dims = [d for d in dims if d < ndim]
    if not dims:
        return input.clone()
    shifts = [input.shape[d] // 2 if sign > 0 else (input.shape[d] + 1) // 2 for d in dims]
    return input.roll(tuple(shifts), tuple(dims))


def fftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """The transform with frequency 0 moved to the middle, over ``dim`` or all dimensions."""
    return _shift("fftshift", input, dim, 1)


def ifftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """The inverse of ``fftshift``."""
    return _shift("ifftshift", input, dim, -1)


def fftfreq(
    n: int, d: float = 1.0, *, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """The frequencies of ``fft`` of n points ``d`` apart: ``[0, 1, ..., -2, -1] / (n d)``."""
    n = integer("fftfreq", "n", n)
    return _frequencies(
        "fftfreq", n, d, [*range((n + 1) // 2), *range(-(n // 2), 0)], dtype, device, requires_grad, out
    )


def rfftfreq(
    n: int, d: float = 1.0, *, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """The frequencies of ``rfft`` of n points ``d`` apart: ``[0, 1, ..., n // 2] / (n d)``."""
    n = integer("rfftfreq", "n", n)
    return _frequencies("rfftfreq", n, d, [*range(n // 2 + 1)], dtype, device, requires_grad, out)


def _frequencies(
    name: str, n: int, d: float, steps: list[int], dtype: Any, device: Any, requires_grad: bool, out: Any
) -> Tensor:
    from ..dtypes import as_dtype, get_default_dtype
    from ..ops.create import tensor

    wanted = as_dtype(dtype) if dtype is not None else get_default_dtype()
    if wanted.category < 2:
        raise DTypeError(f"{name}: frequencies are not integers; dtype is {wanted}.")
    result = tensor([float(k) for k in steps], dtype=wanted, device=device) * (1.0 / (n * d))
    if out is not None:
        return deliver(name, result, out)
    result.requires_grad = requires_grad
    return result
