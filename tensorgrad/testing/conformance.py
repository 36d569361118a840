"""The checks of one op on one backend; a third party's backend passes them, or is wrong.

Example:
    >>> from tensorgrad.testing import conformance
    >>> case = next(c for c in conformance.cases() if c.op.name == "exp")
    >>> conformance.check_value(case, "float32", "numpy")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd.check import gradcheck, gradgradcheck
from ..backends import registry
from ..dispatch import OPS
from ..ops import load_all
from ..ops.record import Op, specs_of
from ..ops.samples import Arg, Sample
from ..tensor import Tensor, wrap
from .draw import inputs_of

__all__ = [
    "TOLERANCE", "Case", "cases", "check_first_derivative", "check_second_derivative", "check_shapes", "check_value",
    "same_bits",
]  # fmt: skip

# (relative, absolute) against the float64 reference, per dtype; an op may name its own in LOOSER
TOLERANCE = {"float64": (1e-9, 1e-10), "float32": (2e-5, 2e-6), "float16": (4e-3, 4e-3), "bfloat16": (3e-2, 3e-2)}
# Ops whose condition is worse: a reduction of many terms, cancellation near a zero
LOOSER = {"lgamma": 8.0, "digamma": 8.0, "erfinv": 4.0, "logit": 8.0, "atanh": 4.0, "acosh": 4.0, "tan": 4.0}
# Results that hold vectors of a phase (a sign, if real) that the decomposition leaves open: columns, then rows
VECTORS = {"linalg_eigh": (1, None), "linalg_eig": (1, None), "linalg_svd": (0, 2)}


@dataclass(frozen=True)
class Case:
    """One sample of one op."""

    op: Op
    sample: Sample
    number: int

    def __str__(self) -> str:
        return f"{self.op.name}-{self.sample.name or self.number}"


def cases() -> Iterator[Case]:
    """Every sample of every op that has samples."""
    load_all()
    for op in list(OPS.values()):
        if op.samples is not None:
            for number, sample in enumerate(op.samples()):
                yield Case(op, sample, number)


def same_bits(a: Any, b: Any) -> bool:
    """Whether two host arrays hold the same bits."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _run(op: Op, inputs: list[Any], attrs: dict[str, Any], backend: str) -> list[Any]:
    """The op's results on a backend, as host arrays (None for results that were not asked for)."""
    found = registry.get(backend)
    ready = [found.from_host(x) if isinstance(x, np.ndarray) else x for x in inputs]
    with registry.backend(backend):
        results = op(*[wrap(x) if isinstance(x, found.array_type) else x for x in ready], **attrs)
    many = results if isinstance(results, tuple) else (results,)
    return [None if r is None else found.to_host(r._data) for r in many]


def _has_complex(sample: Sample) -> bool:
    return any(isinstance(arg, Arg) and arg.kind == "c" for arg in sample.inputs)


def applies(case: Case, dtype: str) -> bool:
    """Whether the case exists in this dtype: there is no complex number of two halves."""
    return not (_has_complex(case.sample) and dtype in ("float16", "bfloat16"))


def assert_close(got: Any, want: Any, dtype: str, factor: float = 1.0) -> None:
    """Raises AssertionError unless ``got`` is ``want`` within the tolerance of ``dtype``."""
    rtol, atol = TOLERANCE[dtype]
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    if want.dtype.kind in "biu":
        np.testing.assert_array_equal(got.astype(np.int64), want.astype(np.int64))
        return
    kind = np.complex128 if want.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(got.astype(kind), want.astype(kind), rtol=rtol * factor, atol=atol * factor)


def check_value(case: Case, dtype: str, backend: str) -> None:
    """The op's value against the reference backend in float64 on the very inputs, which it must leave alone."""
    op, sample = case.op, case.sample
    inputs = inputs_of(op.name, sample, dtype)
    before = [x.copy() if isinstance(x, np.ndarray) else x for x in inputs]
    got = _run(op, inputs, sample.attrs, backend)
    for was, now in zip(before, inputs, strict=True):
        if isinstance(was, np.ndarray):
            assert same_bits(was, now), f"{op.name} changed its input"
    again = _run(op, inputs, sample.attrs, backend)
    widened = [_wide(x) for x in before]
    want = _run(op, widened, sample.attrs, "numpy")
    for mine, repeated in zip(got, again, strict=True):
        assert mine is None or same_bits(mine, repeated), f"{op.name} gave other bits the second time"
    for mine, reference in zip(_turned(op.name, got, want), want, strict=True):
        if mine is not None:
            assert_close(mine, reference, dtype, LOOSER.get(op.name, 1.0))


def _turned(name: str, got: list[Any], want: list[Any]) -> list[Any]:
    """``got``, its vectors turned by the phase that they have against those of ``want``."""
    columns, rows = VECTORS.get(name, (None, None))
    if columns is None or got[columns] is None or got[columns].shape != want[columns].shape:
        return got
    along = (want[columns].conj() * got[columns]).sum(axis=-2, keepdims=True)
    phase = along / np.maximum(np.abs(along), np.finfo(np.float64).tiny)
    turned = list(got)
    turned[columns] = got[columns] * phase.conj()
    if rows is not None:
        turned[rows] = got[rows] * np.swapaxes(phase, -1, -2)[..., : got[rows].shape[-2], :]
    return turned


def _wide(x: Any) -> Any:
    if not isinstance(x, np.ndarray) or x.dtype.kind in "biu":
        return x
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def check_shapes(case: Case, dtype: str, backend: str) -> None:
    """What ``infer`` says is what the kernel gives."""
    op, sample = case.op, case.sample
    inputs = inputs_of(op.name, sample, dtype)
    specs = specs_of(op.infer(*inputs, **sample.attrs))
    for spec, result in zip(specs, _run(op, inputs, sample.attrs, backend), strict=True):
        if result is None or spec is None:
            continue
        assert tuple(spec.shape) == result.shape, f"{op.name}: infer says {spec.shape}, the kernel gave {result.shape}"
        assert spec.dtype == result.dtype, f"{op.name}: infer says {spec.dtype}, the kernel gave {result.dtype}"


def _differentiable(case: Case, backend: str) -> tuple[Any, list[Any]] | None:
    op, sample = case.op, case.sample
    if not sample.smooth or (op.define is None and getattr(op, "rule", None) is None and not hasattr(op, "plan")):
        return None
    found = registry.get(backend)
    args: list[Any] = []
    live = False
    for x in inputs_of(op.name, sample, "float64"):
        if isinstance(x, np.ndarray):
            tensor = wrap(found.from_host(x))
            if x.dtype.kind in "fc":
                tensor.requires_grad = True
                live = True
            args.append(tensor)
        else:
            args.append(x)
    if not live:
        return None

    def function(*tensors: Any) -> Any:
        results = op(*tensors, **sample.attrs)
        many = results if isinstance(results, tuple) else (results,)
        kept = tuple(
            r for i, r in enumerate(many) if isinstance(r, Tensor) and i not in op.nondiff and r.dtype.category >= 2
        )
        return kept

    return function, args


def check_first_derivative(case: Case, backend: str) -> None:
    """The derivative rule against central differences, in float64."""
    ready = _differentiable(case, backend)
    if ready is not None:
        with registry.backend(backend):
            gradcheck(ready[0], tuple(ready[1]))


def check_second_derivative(case: Case, backend: str) -> None:
    """The derivative of the derivative, against central differences of the first."""
    ready = _differentiable(case, backend)
    if ready is not None:
        with registry.backend(backend):
            gradgradcheck(ready[0], tuple(ready[1]))
