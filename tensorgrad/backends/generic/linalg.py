"""Factorizations and solvers over ``xp``: LAPACK's or cuSOLVER's where NumPy's API reaches them, blocks where not.

Plain functions of an array namespace, not a mixin: ``tensorgrad.linalg`` is loaded when first named, and these with it.
Matrices are the last two dimensions. What can fail says so in an ``info`` result, as LAPACK does: 0, or the (1-based)
order of the first pivot or leading minor that is at fault.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import LinAlgError

_BLOCK = 32
_SMALL = 16  # substitution goes row by row below this size, and by halves above


def adjoint(x: Any) -> Any:
    """The conjugate transpose."""
    return x.swapaxes(-1, -2).conj() if x.dtype.kind == "c" else x.swapaxes(-1, -2)


def _columns(x: Any) -> Any:
    """``x`` with a last dimension of size 1."""
    return x.reshape(*x.shape, 1)


def _one_batch(x: Any) -> Any:
    """A C-contiguous copy with the batch as one dimension in front."""
    return x.copy().reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def _no_info(xp: Any, a: Any) -> Any:
    return xp.zeros(a.shape[:-2], dtype=np.int32)


def _converged(name: str, function: Any, *args: Any) -> Any:
    """The results as a tuple. Raises LinAlgError where LAPACK gives up, which it does on NaN and infinities."""
    try:
        return tuple(function(*args))
    except np.linalg.LinAlgError as error:
        raise LinAlgError(f"{name}: {error}; the input may hold NaN or infinity, or be ill-conditioned.") from None


# --- positive definite


def cholesky(xp: Any, a: Any, *, upper: bool) -> tuple[Any, Any]:
    """(L, info), or (U, info); what is read is the triangle that is returned."""
    lower = adjoint(a) if upper else a
    n = a.shape[-1]
    info = _no_info(xp, a)
    if a.size == 0:
        return a.copy(), info
    try:
        y = xp.linalg.cholesky(lower)
    except np.linalg.LinAlgError:
        y, info = _cholesky_by_columns(xp, lower)
    else:
        # cuSOLVER does not raise: it stops at a pivot that is not positive, and leaves it there
        bad = ~(xp.diagonal(y, 0, -2, -1).real > 0)
        info = xp.where(bad.any(axis=-1), xp.argmax(bad, axis=-1) + 1, 0).astype(np.int32)
    columns = xp.arange(n)
    y = xp.where(columns.reshape(n, 1) >= columns, y, xp.zeros((), dtype=y.dtype))
    return (adjoint(y).copy() if upper else y), info


def _cholesky_by_columns(xp: Any, a: Any) -> tuple[Any, Any]:
    """All matrices of a batch at once; one that fails goes on as NaN and leaves the others alone."""
    y = a.copy()
    info = _no_info(xp, a)
    with np.errstate(all="ignore"):
        for j in range(a.shape[-1]):
            row = y[..., j, :j]
            pivot = y[..., j, j].real - (row * row.conj()).real.sum(axis=-1)
            info = xp.where(~(pivot > 0) & (info == 0), j + 1, info).astype(np.int32)
            root = xp.sqrt(pivot)
            y[..., j, j] = root
            below = y[..., j + 1 :, j] - xp.matmul(y[..., j + 1 :, :j], _columns(row.conj()))[..., 0]
            y[..., j + 1 :, j] = below / _columns(root)
    return y, info


# --- triangles


def solve_triangular(xp: Any, a: Any, b: Any, *, upper: bool, unit: bool) -> Any:
    """``x`` with ``a x = b``; only the triangle that is named is read. A zero on the diagonal gives infinity or NaN."""
    x = b.copy()
    with np.errstate(all="ignore"):
        _substitute(xp, a, x, upper, unit)
    return x


def _substitute(xp: Any, a: Any, x: Any, upper: bool, unit: bool) -> None:
    """``b`` in ``x`` replaced by the solution."""
    n = a.shape[-1]
    if n > _SMALL:
        half = n // 2
        parts = (slice(0, half), slice(half, n))
        first, then = parts[::-1] if upper else parts
        _substitute(xp, a[..., first, first], x[..., first, :], upper, unit)
        x[..., then, :] -= xp.matmul(a[..., then, first], x[..., first, :])
        _substitute(xp, a[..., then, then], x[..., then, :], upper, unit)
        return
    for i in range(n - 1, -1, -1) if upper else range(n):
        known = slice(i + 1, n) if upper else slice(0, i)
        row = x[..., i, :]
        if known.stop > known.start:
            row = row - xp.matmul(a[..., i : i + 1, known], x[..., known, :])[..., 0, :]
        x[..., i, :] = row if unit else row / _columns(a[..., i, i])


# --- LU


def lu_factor(xp: Any, a: Any) -> tuple[Any, Any, Any]:
    """(L and U in one matrix, pivots, info), with row exchanges: LAPACK's getrf. Pivots are 1-based, as there.

    Right-looking by blocks of columns: the trailing matrix is updated by products of matrices.
    """
    m, n = a.shape[-2:]
    k = min(m, n)
    batch = a.shape[:-2]
    if a.size == 0:
        pivots = xp.broadcast_to(xp.arange(1, k + 1, dtype=np.int32), (*batch, k)).copy()
        return a.copy(), pivots, _no_info(xp, a)
    lu = _one_batch(a)
    each = xp.arange(lu.shape[0])
    pivots = xp.empty((lu.shape[0], k), dtype=np.int32)
    info = xp.zeros(lu.shape[0], dtype=np.int32)
    with np.errstate(all="ignore"):
        for start in range(0, k, _BLOCK):
            stop = min(start + _BLOCK, k)
            for j in range(start, stop):
                column = lu[:, j:, j]
                size = abs(column.real) + abs(column.imag) if a.dtype.kind == "c" else abs(column)
                at = xp.argmax(size, axis=1) + j
                pivots[:, j] = at + 1
                moved = lu[each, at]
                lu[each, at] = lu[:, j].copy()
                lu[:, j] = moved
                pivot = lu[:, j, j]
                info = xp.where((pivot == 0) & (info == 0), j + 1, info).astype(np.int32)
                lu[:, j + 1 :, j] /= _columns(xp.where(pivot == 0, xp.ones_like(pivot), pivot))
                lu[:, j + 1 :, j + 1 : stop] -= lu[:, j + 1 :, j : j + 1] * lu[:, j : j + 1, j + 1 : stop]
            if stop < n:
                _substitute(xp, lu[:, start:stop, start:stop], lu[:, start:stop, stop:], False, True)
                lu[:, stop:, stop:] -= xp.matmul(lu[:, stop:, start:stop], lu[:, start:stop, stop:])
    return lu.reshape(a.shape), pivots.reshape(*batch, k), info.reshape(batch)


def pivots_to_rows(xp: Any, pivots: Any, *, rows: int) -> Any:
    """The order in which the exchanges leave the rows: ``a[order] = L U``."""
    batch, k = pivots.shape[:-1], pivots.shape[-1]
    flat = pivots.reshape(math.prod(batch), k).astype(np.int64)
    order = xp.broadcast_to(xp.arange(rows, dtype=np.int64), (flat.shape[0], rows)).copy()
    each = xp.arange(flat.shape[0])
    for j in range(k if flat.shape[0] else 0):
        at = flat[:, j] - 1
        moved = order[each, at]
        order[each, at] = order[:, j].copy()
        order[:, j] = moved
    return order.reshape(*batch, rows)


def _solve_by_lu(xp: Any, a: Any, b: Any) -> tuple[Any, Any]:
    lu, pivots, info = lu_factor(xp, a)
    order = pivots_to_rows(xp, pivots, rows=a.shape[-1])
    x = xp.take_along_axis(b, _columns(order), -2)
    with np.errstate(all="ignore"):
        _substitute(xp, lu, x, False, True)
        _substitute(xp, lu, x, True, False)
    return x, info


def _singular(xp: Any, result: Any, *given: Any) -> Any:
    """``info`` where the library does not raise: a zero pivot makes what was finite infinite or NaN."""
    suspect = ~xp.isfinite(result).all(axis=(-2, -1))
    for x in given:
        suspect = suspect & xp.isfinite(x).all(axis=(-2, -1))
    return xp.where(suspect, given[0].shape[-1], 0).astype(np.int32)


def solve(xp: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """(x, info) with ``a x = b``; both have the same batch."""
    if b.size == 0 or a.size == 0:
        return b.copy(), _no_info(xp, a)
    try:
        x = xp.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        return _solve_by_lu(xp, a, b)
    return x, _singular(xp, x, a, b)


def inv(xp: Any, a: Any) -> tuple[Any, Any]:
    """(inverse, info)."""
    if a.size == 0:
        return a.copy(), _no_info(xp, a)
    try:
        x = xp.linalg.inv(a)
    except np.linalg.LinAlgError:
        eye = xp.broadcast_to(xp.eye(a.shape[-1], dtype=a.dtype), a.shape).copy()
        return _solve_by_lu(xp, a, eye)
    return x, _singular(xp, x, a)


# --- determinants


def det(xp: Any, a: Any) -> Any:
    if a.shape[-1] == 0:
        return xp.ones(a.shape[:-2], dtype=a.dtype)
    with np.errstate(all="ignore"):
        return xp.asarray(xp.linalg.det(a)).astype(a.dtype, copy=False)


def slogdet(xp: Any, a: Any) -> tuple[Any, Any]:
    real = a.real.dtype
    if a.shape[-1] == 0:
        return xp.ones(a.shape[:-2], dtype=a.dtype), xp.zeros(a.shape[:-2], dtype=real)
    with np.errstate(all="ignore"):
        sign, size = xp.linalg.slogdet(a)
    return xp.asarray(sign).astype(a.dtype, copy=False), xp.asarray(size).astype(real, copy=False)


def _others(xp: Any, s: Any) -> Any:
    """The product of all elements but one, along the last dimension."""
    one = xp.ones_like(s[..., :1])
    before = xp.cumprod(xp.concatenate((one, s[..., :-1]), axis=-1), axis=-1)
    after = xp.cumprod(xp.concatenate((one, s[..., :0:-1]), axis=-1), axis=-1)[..., ::-1]
    return before * after


def _size(x: Any) -> Any:
    """The root of the sum of squares."""
    return (x * x.conj()).real.sum(axis=(-2, -1)) ** 0.5


def cofactors(xp: Any, a: Any) -> Any:
    """``conj(det a) a^-H``, also where ``a`` is singular: in the basis of its singular vectors it is diagonal.

    The host asks whether there is a matrix of the batch that the inverse does not serve.
    """
    if a.size == 0:
        return a.copy()
    if a.shape[-1] == 2:
        direct = xp.ascontiguousarray(xp.conj(a[..., ::-1, ::-1]))
        direct[..., (0, 1), (1, 0)] *= -1
        return direct
    with np.errstate(all="ignore"):
        inverse = inv(xp, a)[0]
        direct = _columns(_columns(det(xp, a).conj())) * adjoint(inverse)
        bad = ~(_size(a) * _size(inverse) < np.finfo(a.dtype).eps ** -0.5) | ~xp.isfinite(direct).all(axis=(-2, -1))
    if not bool(bad.any()):
        return direct
    rows, n = (
        bad.reshape(-1),
        a.shape[-1],
    )  # the others keep what they have: a batch often has one that is nearly singular
    u, s, vh, blank = _finite_svd(xp, a.reshape(-1, n, n)[rows])
    phase = det(xp, u) * det(xp, vh)
    careful = _columns(_columns(phase.conj())) * xp.matmul(u * _others(xp, s)[..., None, :], vh)
    direct = xp.ascontiguousarray(direct)
    direct.reshape(-1, n, n)[rows] = careful * blank
    return direct


def _finite_svd(xp: Any, a: Any) -> tuple[Any, Any, Any, Any]:
    """(u, s, vh, blank): matrices that hold NaN or infinity are replaced, and have NaN in ``blank``, else 1."""
    finite = _columns(_columns(xp.isfinite(a).all(axis=(-2, -1))))
    one, nothing = xp.ones((), dtype=a.dtype), xp.zeros((), dtype=a.dtype)
    u, s, vh = _converged("det", xp.linalg.svd, xp.where(finite, a, nothing), False)
    return u, s, vh, xp.where(finite, one, one * float("nan"))


def cofactors_backward(xp: Any, g: Any, a: Any) -> Any:
    """The adjoint derivative of ``cofactors``, also where ``a`` is singular.

    In the basis of the singular vectors ``a`` is diagonal, and the second derivative of the determinant there couples
    element (i, i) with (j, j), and (i, j) with (j, i), through the product of all other singular values.
    """
    n = a.shape[-1]
    if a.size == 0 or n == 1:
        return xp.zeros_like(a)
    u, s, vh, blank = _finite_svd(xp, a)
    phase = _columns(_columns(det(xp, u) * det(xp, vh)))
    rest = []
    for i in range(n):
        without = xp.concatenate((s[..., :i], s[..., i + 1 :]), axis=-1)
        row = _others(xp, without)
        rest.append(xp.concatenate((row[..., :i], xp.zeros_like(s[..., :1]), row[..., i:]), axis=-1))
    others = xp.stack(rest, axis=-2)
    inner = xp.matmul(xp.matmul(adjoint(u), g), adjoint(vh)).conj()
    diagonal = xp.matmul(others.astype(a.dtype), _columns(xp.diagonal(inner, 0, -2, -1)))
    result = -others * inner.swapaxes(-1, -2)
    index = xp.arange(n)
    result[..., index, index] += diagonal[..., 0]
    return xp.matmul(xp.matmul(u, result * phase.conj()), vh) * blank


# --- orthogonal factors, eigenvalues


def qr(xp: Any, a: Any, *, mode: str) -> tuple[Any, Any]:
    """(q, r); for mode ``"r"`` q is empty."""
    m, n = a.shape[-2:]
    k = min(m, n)
    batch = a.shape[:-2]
    if mode == "r":
        r = xp.zeros((*batch, k, n), dtype=a.dtype) if a.size == 0 else xp.linalg.qr(a, "r")
        return xp.empty((0,), dtype=a.dtype), r
    if a.size == 0:
        rows = m if mode == "complete" else k
        q = xp.broadcast_to(xp.eye(m, rows, dtype=a.dtype), (*batch, m, rows)).copy()
        return q, xp.zeros((*batch, rows, n), dtype=a.dtype)
    return tuple(xp.linalg.qr(a, mode))


def geqrf(xp: Any, a: Any) -> tuple[Any, Any]:
    """R over the reflectors that make it, and their factors: LAPACK's geqrf."""
    y = a.copy()
    m, n = a.shape[-2:]
    k = min(m, n)
    tau = xp.zeros((*a.shape[:-2], k), dtype=a.dtype)
    with np.errstate(all="ignore"):
        for j in range(k):
            head = y[..., j, j]
            tail = y[..., j + 1 :, j]
            rest = xp.sqrt((tail * tail.conj()).real.sum(axis=-1))
            still = (rest == 0) & (head.imag == 0)  # nothing to reflect
            size = xp.sqrt((head * head.conj()).real + rest * rest)
            beta = xp.where(head.real >= 0, -size, size)
            one = xp.ones_like(head)
            factor = xp.where(still, xp.zeros_like(head), (beta - head) / xp.where(still, one, beta))
            v = tail / _columns(xp.where(still, one, head - beta))
            y[..., j, j] = xp.where(still, head, beta)
            tau[..., j] = factor
            y[..., j + 1 :, j] = v
            if j + 1 < n:
                vector = _columns(xp.concatenate((_columns(one), v), axis=-1))
                right = y[..., j:, j + 1 :]
                applied = xp.matmul(adjoint(vector), right) * _columns(_columns(factor.conj()))
                y[..., j:, j + 1 :] = right - vector * applied
    return y, tau


def svd(xp: Any, a: Any, *, full: bool) -> tuple[Any, Any, Any]:
    return _converged("svd", xp.linalg.svd, a, full)


def svdvals(xp: Any, a: Any) -> Any:
    return _converged("svd", lambda x: (xp.linalg.svd(x, False, False),), a)[0]


def eigh(xp: Any, a: Any, *, upper: bool) -> tuple[Any, Any]:
    return _converged("eigh", xp.linalg.eigh, a, "U" if upper else "L")


def eigvalsh(xp: Any, a: Any, *, upper: bool) -> Any:
    return _converged("eigh", lambda x: (xp.linalg.eigvalsh(x, "U" if upper else "L"),), a)[0]


def _complex_of(dtype: Any) -> Any:
    return np.result_type(dtype, np.complex64)


def eig(xp: Any, a: Any) -> tuple[Any, Any]:
    values, vectors = _converged("eig", xp.linalg.eig, a)
    dtype = _complex_of(a.dtype)
    return values.astype(dtype, copy=False), vectors.astype(dtype, copy=False)


def eigvals(xp: Any, a: Any) -> Any:
    values = _converged("eig", lambda x: (xp.linalg.eigvals(x),), a)[0]
    return values.astype(_complex_of(a.dtype), copy=False)


# --- pseudo-inverse and rank


def pinv(xp: Any, a: Any, atol: Any, rtol: Any, *, hermitian: bool) -> Any:
    """Singular values not above ``max(atol, rtol * largest)`` count as zero."""
    if a.size == 0:
        return xp.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), dtype=a.dtype)
    if hermitian:
        values, v = eigh(xp, a, upper=False)
        s, u, vh = abs(values), v, adjoint(v)
    else:
        u, s, vh = svd(xp, a, full=False)
        values = s
    limit = xp.maximum(_columns(atol), _columns(rtol) * s.max(axis=-1, keepdims=True))
    kept = s > limit
    inverse = xp.where(kept, 1 / xp.where(kept, values, xp.ones_like(values)), xp.zeros_like(values))
    return xp.matmul(adjoint(vh) * inverse[..., None, :].astype(s.dtype), adjoint(u))


# --- the exponential

# the 1-norm up to which the [13/13] approximant is exact to double precision, and its numerator's coefficients
_PADE_REACH = 5.371920351148152
_PADE = [
    math.factorial(26 - k) * math.factorial(13) / (math.factorial(26) * math.factorial(13 - k) * math.factorial(k))
    for k in range(14)
]


def matrix_exp(xp: Any, a: Any) -> Any:
    """Scaling and squaring of the [13/13] Pade approximant. Source: Higham 2005.

    The host reads one number, how often the largest matrix of the batch must be halved.
    """
    n = a.shape[-1]
    if a.size == 0:
        return a.copy()
    if n == 1:
        return xp.exp(a)
    eye = xp.eye(n, dtype=a.dtype)
    size = abs(a).sum(axis=-2).max(axis=-1)
    with np.errstate(all="ignore"):
        halvings = xp.ceil(xp.log2(size / _PADE_REACH))
    halvings = xp.where(xp.isfinite(halvings) & (halvings > 0), halvings, xp.zeros_like(halvings))
    x = a * _columns(_columns(xp.exp2(-halvings).astype(size.dtype)))
    b = _PADE
    x2 = xp.matmul(x, x)
    x4 = xp.matmul(x2, x2)
    x6 = xp.matmul(x4, x2)
    odd = xp.matmul(x6, b[13] * x6 + b[11] * x4 + b[9] * x2) + b[7] * x6 + b[5] * x4 + b[3] * x2 + b[1] * eye
    odd = xp.matmul(x, odd)
    even = xp.matmul(x6, b[12] * x6 + b[10] * x4 + b[8] * x2) + b[6] * x6 + b[4] * x4 + b[2] * x2 + b[0] * eye
    y = solve(xp, even - odd, even + odd)[0]
    steps = halvings.reshape(*halvings.shape, 1, 1)
    for step in range(int(halvings.max())):
        y = xp.where(steps > step, xp.matmul(y, y), y)
    return y
