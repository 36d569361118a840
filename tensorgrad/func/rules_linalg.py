"""Batching rules of decompositions, solvers and transforms: their ops take batches of matrices as they are."""

from __future__ import annotations

from typing import Any

from .rules import RULES, aligned_every, every, rule


def _as_they_are(name: str) -> Any:
    return lambda door, F, n, xs, mapped, **attrs: getattr(F, name)(*every(F, n, xs, mapped), **attrs)


for _name in (
    "linalg_inv", "linalg_solve", "linalg_solve_triangular", "linalg_det", "linalg_cofactors", "linalg_slogdet",
    "linalg_cholesky", "linalg_eigh", "linalg_eigvalsh", "linalg_eig", "linalg_eigvals", "linalg_matrix_exp",
    "linalg_lu_factor", "linalg_pivots_to_rows", "linalg_order_rows", "linalg_take_rows", "linalg_svd",
    "linalg_svdvals", "linalg_geqrf",
):  # fmt: skip
    RULES[_name] = _as_they_are(_name)


@rule("linalg_qr")
def _qr(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, mode: str) -> Any:
    q, r = F.linalg_qr(xs[0], mode=mode)
    return (F.zeros_as(q, shape=(n, 0)) if mode == "r" else q), r


@rule("fft_c2c")
def _complex(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dims: Any, **how: Any) -> Any:
    return F.fft_c2c(xs[0], dims=tuple([d + 1 for d in dims]), **how)


@rule("fft_r2c")
def _from_real(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int, **how: Any) -> Any:
    return F.fft_r2c(xs[0], dim=dim + 1, **how)


@rule("fft_c2r")
def _to_real(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int, **how: Any) -> Any:
    return F.fft_c2r(xs[0], dim=dim + 1, **how)


def _elementwise(name: str) -> Any:
    return lambda door, F, n, xs, mapped: getattr(F, name)(*aligned_every(F, xs, mapped))


for _name in ("gcd", "lcm", "nextafter", "frexp"):  # elementwise, but no formulas
    RULES[_name] = _elementwise(_name)
