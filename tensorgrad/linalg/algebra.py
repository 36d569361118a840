"""What the families of ``linalg`` share: checks of matrices, and the algebra that rules are written in."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from ..dispatch import local, recorded
from ..errors import DTypeError, ShapeError
from ..ops.checks import conjugate, np_dtype, reshaped, swapped
from ..ops.elementwise import broadcast_shape
from ..ops.record import Spec
from ..ops.required import require
from ..tensor import Tensor

REAL = {"complex64": "float32", "complex128": "float64"}
COMPLEX = {"float32": "complex64", "float64": "complex128"}


# --- checks


def require_matrix(name: str, x: Any, *, label: str = "A") -> None:
    """Raises TypeError, ShapeError or DTypeError unless ``x`` is a Tensor of matrices that LAPACK can take."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: {label} must be a Tensor, got {type(x).__name__}.")
    if x._data.ndim < 2:
        raise ShapeError(
            f"{name}: The input tensor {label} must have at least 2 dimensions, got shape {tuple(x.shape)}."
        )
    require_lapack(name, x, label=label)


def require_lapack(name: str, x: Tensor, *, label: str = "A") -> None:
    """Raises DTypeError unless the dtype is float32, float64, complex64 or complex128."""
    if x.dtype.name not in ("float32", "float64", "complex64", "complex128"):
        raise DTypeError(
            f"{name}: expected float32, float64, complex64 or complex128, got {label} of {x.dtype}. "
            "Convert it with .float() or .double()."
        )


def require_square(name: str, x: Any, *, label: str = "A") -> None:
    """``require_matrix``, and raises ShapeError unless the matrices are square."""
    require_matrix(name, x, label=label)
    m, n = x._data.shape[-2:]
    if m != n:
        raise ShapeError(f"{name}: {label} must be batches of square matrices, but they are {m} by {n} matrices.")


def require_same(name: str, a: Tensor, b: Any, *, label: str = "B") -> None:
    """Raises TypeError or DTypeError unless ``b`` is a Tensor of the dtype of ``a``."""
    if not isinstance(b, Tensor):
        raise TypeError(f"{name}: {label} must be a Tensor, got {type(b).__name__}.")
    if a.dtype != b.dtype:
        raise DTypeError(f"{name}: expected one dtype, got {a.dtype} and {label} of {b.dtype}. Convert one with .to().")


def require_info(name: str, info: Tensor, problem: str) -> None:
    """Raises LinAlgError if an element of ``info`` is not 0, with that for {order}. Waits for the device."""
    require(info, 0, 0, "linalg", f"{name}: {{where}}{problem.replace('{order}', '{value}')}")


def to_host(array: Any) -> Any:
    """An array of any backend as NumPy's; of all samples while ``vmap`` runs."""
    while hasattr(array, "mapped"):
        array = array.value
    return local.doors.of(array).backend.to_host(array)


def batch_of(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the batch they broadcast to."""
    batch = broadcast_shape(name, tuple(a.shape[:-2]), tuple(b.shape[:-2]))
    return expanded(a, (*batch, *a.shape[-2:])), expanded(b, (*batch, *b.shape[-2:]))


def expanded(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape) == shape else recorded.expand(x, shape=shape)


def result_tuple(name: str, *fields: str) -> Any:
    """The named tuple that a function with several results returns."""
    return namedtuple(name, fields, module="tensorgrad.linalg")


def write_all(name: str, results: Any, out: Any, *, casts: bool = False) -> Any:
    """A named tuple of results written into the tensors of ``out``, of its dtypes unless the function ``casts``."""
    from ..ops.inplace import deliver, deliver_same

    if out is None:
        return results
    if not isinstance(out, (tuple, list)) or len(out) != len(results) or not all(isinstance(x, Tensor) for x in out):
        raise TypeError(f"{name}: out must be a tuple of {len(results)} Tensors, got {out!r}.")
    write = deliver if casts else deliver_same
    written = [write(name, result, target) for result, target in zip(results, out, strict=True)]
    return tuple(written) if type(results) is tuple else type(results)(*written)


# --- specs


def real_spec(shape: tuple[int, ...], dtype: Any) -> Spec:
    from ..dtypes import numpy_dtype

    return Spec(shape, numpy_dtype(REAL.get(dtype.name, dtype.name)))


def complex_spec(shape: tuple[int, ...], dtype: Any) -> Spec:
    from ..dtypes import numpy_dtype

    return Spec(shape, numpy_dtype(COMPLEX.get(dtype.name, dtype.name)))


def info_spec(x: Any) -> Spec:
    from ..dtypes import numpy_dtype

    return Spec(tuple(x.shape[:-2]), numpy_dtype("int32"))


# --- over F


def mH(F: Any, x: Any) -> Any:
    """The conjugate transpose."""
    return swapped(F, conjugate(F, x))


def mm(F: Any, *factors: Any) -> Any:
    """The product of matrices, from the left."""
    result = factors[0]
    for factor in factors[1:]:
        result = F.matmul(result, factor)
    return result


def diagonal(F: Any, x: Any) -> Any:
    return F.diagonal(x, offset=0, dim1=x.ndim - 2, dim2=x.ndim - 1)


def on_diagonal(F: Any, x: Any) -> Any:
    """Matrices with ``x`` on their diagonal."""
    n = x.shape[-1]
    return F.diagonal_backward(x, shape=(*x.shape, n), offset=0, dim1=x.ndim - 1, dim2=x.ndim)


def column(F: Any, x: Any) -> Any:
    """``x`` with a last dimension of size 1."""
    return reshaped(F, x, (*x.shape, 1))


def row(F: Any, x: Any) -> Any:
    """``x`` with a last but one dimension of size 1."""
    return reshaped(F, x, (*x.shape[:-1], 1, x.shape[-1]))


def real(F: Any, x: Any) -> Any:
    return F.real(x) if np_dtype(x).kind == "c" else x


def part(F: Any, x: Any, rows: slice, columns: slice) -> Any:
    """A block of the matrices."""
    keep = [slice(0, size, 1) for size in x.shape[:-2]]
    bounds = [slice(*s.indices(size)) for s, size in zip((rows, columns), x.shape[-2:], strict=True)]
    return F.slice(x, key=(*keep, *bounds))


def total(F: Any, *terms: Any) -> Any:
    """The sum of the terms that are not None."""
    present = [term for term in terms if term is not None]
    result = present[0]
    for term in present[1:]:
        result = F.add(result, term)
    return result


def check_phase(name: str, imaginary: Any) -> None:
    """Raises AutogradError if a loss depends on the phase of singular vectors or eigenvectors, which is arbitrary.

    ``imaginary``: what flows into the phases; it must vanish. Waits for the device.
    """
    import numpy as np

    from ..errors import AutogradError

    array = imaginary._data if isinstance(imaginary, Tensor) else imaginary
    if not np.allclose(to_host(array), 0.0, rtol=1e-2, atol=1e-2):
        raise AutogradError(
            f"{name}: complex vectors are specified up to multiplication by e^(i phi), and the loss depends on this "
            "phase, so it has no gradient. Make it depend on what the phase does not change, as abs() of the vectors."
        )
