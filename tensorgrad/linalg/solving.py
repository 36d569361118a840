"""Linear systems and inverses."""

from __future__ import annotations

from typing import Any

from ..backends.generic import linalg as kernels
from ..errors import ShapeError
from ..ops.checks import integer, product, require_tensors, shaped
from ..ops.create import zeros
from ..ops.inplace import deliver, deliver_same
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..ops.shape_core import dims_of, permute
from ..tensor import Tensor
from .algebra import (
    batch_of,
    info_spec,
    mH,
    require_info,
    require_matrix,
    require_same,
    require_square,
    result_tuple,
    write_all,
)

__all__ = ["inv", "inv_ex", "solve", "solve_ex", "solve_triangular", "tensorinv", "tensorsolve"]

InvEx = result_tuple("linalg_inv_ex", "inverse", "info")
SolveEx = result_tuple("linalg_solve_ex", "result", "info")

# far enough from singular that float32 has the digits the tests ask for
WELL = ((2.0, 0.4, -0.3), (0.5, 1.8, 0.2), (-0.2, 0.3, 2.2))
WELL_COMPLEX = ((2.0 + 0.3j, 0.4 - 0.2j, -0.3j), (0.5j, 1.8, 0.2 + 0.1j), (-0.2, 0.3 - 0.4j, 2.2 - 0.1j))


def square_samples(**attrs: Any) -> list[Sample]:
    return [
        Sample((Arg((3, 3), kind="s", values=WELL),), attrs, name="matrix"),
        Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX),), attrs, name="complex"),
        Sample((Arg((2, 3, 3), kind="s", layout="T", values=(WELL, WELL[::-1])),), attrs, name="batched"),
        Sample((Arg((0, 0), kind="s"),), attrs, name="empty"),
        Sample((Arg((0, 2, 2), kind="s"),), attrs, name="no-batch"),
    ]


# --- inverse


def _inv_rule(F: Any, g: Any, a: Any, *, y: Any, needs: Any) -> tuple[Any, ...]:
    h = mH(F, y)
    return (F.neg(F.matmul(F.matmul(h, g[0]), h)),)


inv_op = op(
    "linalg_inv",
    infer=lambda a: (Spec(tuple(a.shape), a.dtype), info_spec(a)),
    rule=_inv_rule,
    keeps=("y",),
    outputs=("y", "info"),
    nondiff=("info",),
    kernel=kernels.inv,
    samples=square_samples,
    doc="The inverses of square matrices, and where a pivot was 0 (LAPACK's info).",
)


def inv_ex(A: Tensor, *, check_errors: bool = False, out: Any = None) -> Any:
    """``(inverse, info)``: the inverses of (..., n, n), and for each the order of a pivot that is 0, or 0.

    Raises: ShapeError for matrices that are not square; DTypeError for integers and half precision; LinAlgError for a
        singular matrix if ``check_errors``.
    """
    require_square("linalg.inv", A)
    result = InvEx(*inv_op(A))
    if check_errors:
        _require_invertible("linalg.inv", result.info)
    return write_all("linalg.inv_ex", result, out)


def inv(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The inverses of the matrices (..., n, n).

    Raises: LinAlgError for a singular matrix; otherwise as ``inv_ex``.
    Example:
        >>> import tensorgrad as tg
        >>> tg.linalg.inv(tg.tensor([[2.0, 0.0], [0.0, 4.0]])).tolist()
        [[0.5, 0.0], [0.0, 0.25]]
    """
    require_square("linalg.inv", A)
    inverse, info = inv_op(A)
    _require_invertible("linalg.inv", info)
    return deliver_same("linalg.inv", inverse, out)


def _require_invertible(name: str, info: Tensor) -> None:
    require_info(name, info, "the matrix is singular (pivot {order} is zero), so it has no inverse and no solution.")


# --- systems


def _solve_infer(a: Any, b: Any) -> tuple[Spec, Spec]:
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"linalg.solve: A of shape {tuple(a.shape)} takes right-hand sides with {a.shape[-1]} rows, got shape "
            f"{tuple(b.shape)}."
        )
    return Spec(tuple(b.shape), b.dtype), info_spec(a)


def _solve_rule(F: Any, g: Any, a: Any, b: Any, *, x: Any, needs: Any) -> tuple[Any, ...]:
    to_b = F.linalg_solve(mH(F, a), g[0])[0]
    to_a = F.neg(F.matmul(to_b, mH(F, x))) if needs[0] else None
    return to_a, to_b


solve_op = op(
    "linalg_solve",
    infer=_solve_infer,
    rule=_solve_rule,
    keeps=("a", "x"),
    outputs=("x", "info"),
    nondiff=("info",),
    kernel=kernels.solve,
    samples=lambda: [
        Sample((Arg((3, 3), kind="s", values=WELL), Arg((3, 2), kind="s")), name="matrix"),
        Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX), Arg((3, 2), kind="c")), name="complex"),
        Sample((Arg((2, 3, 3), kind="s", values=(WELL, WELL[::-1])), Arg((2, 3, 1), kind="s")), name="batched"),
        Sample(
            (Arg((2, 2), kind="s", values=((2.0, 0.5), (0.3, 1.5))), Arg((2, 0), kind="s")), name="nothing to solve"
        ),
    ],
    doc="``x`` with ``a x = b``, of one batch, and where a pivot was 0.",
)


def _is_vector(A: Tensor, B: Tensor) -> bool:
    """Whether ``B`` is a batch of vectors: it has one dimension, or the shape of ``A`` without the last."""
    shape = tuple(B.shape)
    return len(shape) == 1 or (A._data.ndim - 1 == len(shape) and shape == tuple(A.shape[:-1]))


def _solve(name: str, A: Tensor, B: Any, left: bool) -> tuple[Tensor, Tensor]:
    require_square(name, A)
    require_same(name, A, B)
    if B._data.ndim == 0:
        raise ShapeError(f"{name}: B must have at least one dimension.")
    vector = _is_vector(A, B)
    if vector and not left:
        raise ShapeError(f"{name}: left=False takes B of matrices (..., k, n), got the vectors {tuple(B.shape)}.")
    b = B.unsqueeze(-1) if vector else B
    if b.shape[-2 if left else -1] != A.shape[-1]:
        raise ShapeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'}: "
            f"{tuple(A.shape)} and {tuple(B.shape)}."
        )
    a, b = batch_of(name, A, b)
    if left:
        x, info = solve_op(a, b)
    else:
        x, info = solve_op(a.mT, b.mT)
        x = x.mT
    return (x.squeeze(-1) if vector else x), _of_batch(info, tuple(A.shape[:-2]))


def _of_batch(info: Tensor, batch: tuple[int, ...]) -> Tensor:
    """What is said of each matrix of ``batch``, once for all systems that it broadcasts to."""
    if tuple(info.shape) == batch:
        return info
    if not info._data.size:
        return zeros(batch, dtype=info.dtype, device=info.device)
    first = (slice(0, 1) if size == 1 else slice(None) for size in batch)
    found: Tensor = info[(*(0,) * (info._data.ndim - len(batch)), *first)]
    return found


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False, out: Any = None) -> Any:
    """``(result, info)``: ``solve``, and for each matrix the order of a pivot that is 0, or 0."""
    result = SolveEx(*_solve("linalg.solve", A, B, left))
    if check_errors:
        _require_invertible("linalg.solve", result.info)
    return write_all("linalg.solve_ex", result, out)


def solve(A: Tensor, B: Tensor, *, left: bool = True, out: Tensor | None = None) -> Tensor:
    """``X`` with ``A X = B``; with ``left=False``, ``X A = B``.

    Args:
        A: (..., n, n).
        B: (..., n, k), or vectors (n,) or (..., n) with the batch of ``A``; batches broadcast.
    Raises: ShapeError if the sizes do not fit; DTypeError for differing dtypes, integers, half precision; LinAlgError
        for a singular matrix.
    Example:
        >>> import tensorgrad as tg
        >>> tg.linalg.solve(tg.tensor([[2.0, 0.0], [0.0, 4.0]]), tg.tensor([2.0, 2.0])).tolist()
        [1.0, 0.5]
    """
    x, info = _solve("linalg.solve", A, B, left)
    _require_invertible("linalg.solve", info)
    return deliver_same("linalg.solve", x, out)


# --- triangles


def _triangular_infer(a: Any, b: Any, *, upper: bool, unit: bool) -> Spec:
    return Spec(tuple(b.shape), b.dtype)


def _triangular_rule(F: Any, g: Any, a: Any, b: Any, *, x: Any, needs: Any, upper: bool, unit: bool) -> tuple[Any, ...]:
    to_b = F.linalg_solve_triangular(mH(F, a), g, upper=not upper, unit=unit)
    if not needs[0]:
        return None, to_b
    whole = F.neg(F.matmul(to_b, mH(F, x)))
    if upper:
        return F.triu(whole, diagonal=1 if unit else 0), to_b
    return F.tril(whole, diagonal=-1 if unit else 0), to_b


def _triangular_samples() -> list[Sample]:
    samples = []
    for upper in (False, True):
        for unit in (False, True):
            attrs, name = {"upper": upper, "unit": unit}, f"upper{upper}-unit{unit}"
            samples += [
                Sample((Arg((3, 3), kind="s", values=WELL), Arg((3, 2), kind="s")), attrs, name=name),
                Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX), Arg((3, 1), kind="c")), attrs, name=f"{name}-c"),
            ]
    attrs = {"upper": False, "unit": True}
    large = Sample((Arg((2, 20, 20), -0.1, 0.1, kind="s"), Arg((2, 20, 3), kind="s")), attrs, name="blocks")
    empty = Sample((Arg((0, 0), kind="s"), Arg((0, 2), kind="s")), attrs, name="empty")
    return [*samples, large, empty]


triangular_op = op(
    "linalg_solve_triangular",
    infer=_triangular_infer,
    rule=_triangular_rule,
    keeps=("a", "x"),
    outputs=("x",),
    kernel=kernels.solve_triangular,
    samples=_triangular_samples,
    doc="``x`` with ``a x = b`` for triangular ``a``, of one batch.",
)


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False, out: Tensor | None = None
) -> Tensor:
    """``X`` with ``A X = B`` (``X A = B`` for ``left=False``) for triangular ``A``.

    Args:
        A: (..., n, n); only the triangle named by ``upper`` is read.
        B: (..., n, k); (..., k, n) for ``left=False``. Batches broadcast.
        unitriangular: take the diagonal as ones, whatever it holds.
    Raises: ShapeError if the sizes do not fit; DTypeError for differing dtypes, integers, half precision. A zero on
        the diagonal gives infinity or NaN.
    """
    name = "linalg.solve_triangular"
    require_square(name, A)
    require_same(name, A, B)
    require_matrix(name, B, label="B")
    if B.shape[-2 if left else -1] != A.shape[-1]:
        raise ShapeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'}: "
            f"{tuple(A.shape)} and {tuple(B.shape)}."
        )
    a, b = batch_of(name, A, B)
    if left:
        x = triangular_op(a, b, upper=bool(upper), unit=bool(unitriangular))
    else:
        x = triangular_op(a.mT, b.mT, upper=not upper, unit=bool(unitriangular)).mT
    return deliver_same(name, x, out)


# --- systems of tensors


def tensorinv(A: Tensor, ind: int = 2, *, out: Tensor | None = None) -> Tensor:
    """The inverse for ``tensordot(·, ·, ind)``: ``A`` seen as a matrix of its first ``ind`` dimensions by the rest.

    Raises: ShapeError for ``ind`` below 1 or a matrix that is not square; LinAlgError for a singular one.
    """
    require_tensors("linalg.tensorinv", A=A)
    ind = integer("linalg.tensorinv", "ind", ind)
    if ind <= 0:
        raise ShapeError(f"linalg.tensorinv: Expected a strictly positive integer for 'ind', got {ind}.")
    shape = tuple(A.shape)
    first, rest = shape[:ind], shape[ind:]
    if product(first) != product(rest):
        raise ShapeError(
            "linalg.tensorinv: Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {product(rest)} != {product(first)}."
        )
    inverse = inv(shaped(A, (product(first), product(rest))))
    return deliver("linalg.tensorinv", shaped(inverse, (*rest, *first)), out)


def tensorsolve(A: Tensor, B: Tensor, dims: Any = None, *, out: Tensor | None = None) -> Tensor:
    """``X`` with ``tensordot(A, X, X.ndim) = B``.

    Args:
        A: of shape ``B.shape + X.shape``, with as many elements in ``B`` as in ``X``.
        dims: dimensions of ``A`` that are moved to its end first.
    Raises: ShapeError if the sizes do not fit; LinAlgError for a singular system.
    """
    require_tensors("linalg.tensorsolve", A=A, B=B)
    ndim = A._data.ndim
    if dims is not None:
        moved = dims_of("linalg.tensorsolve", dims, ndim) if dims or isinstance(dims, int) else ()
        A = permute(A, dims=(*(d for d in range(ndim) if d not in moved), *moved))
    unknown = tuple(A.shape[B._data.ndim :])
    rows, columns = product(A.shape[: B._data.ndim]), product(unknown)
    if rows != columns:
        raise ShapeError(
            "linalg.tensorsolve: Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {columns} != {rows}."
        )
    x = solve(shaped(A, (rows, columns)), shaped(B, (product(B.shape),)))
    return deliver("linalg.tensorsolve", shaped(x, unknown), out)
