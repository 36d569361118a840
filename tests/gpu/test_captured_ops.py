"""Each op's kernels while a stream is captured: the graph computes what they compute, whatever lay there before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends import registry
from tensorgrad.backends.cupy.checks import noted_checks
from tensorgrad.random import Generator
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import inputs_of
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_stream import MemoryPool, Stream, using_allocator

# Sorted, searched or factorised by libraries that wait; shapes that depend on the elements; host data copied over.
REFUSED = frozenset((
    "cdist", "cdist_backward", "cholesky_solve", "histc", "kthvalue", "linalg_cholesky", "linalg_cofactors",
    "linalg_cofactors_backward", "linalg_det", "linalg_eig", "linalg_eigh", "linalg_eigvals", "linalg_eigvalsh",
    "linalg_geqrf", "linalg_inv", "linalg_lu_factor", "linalg_matrix_exp", "linalg_order_rows", "linalg_pinv",
    "linalg_qr", "linalg_slogdet", "linalg_solve", "linalg_solve_triangular", "linalg_svd", "linalg_svdvals",
    "median_all", "median_dim", "mode_dim", "nanmedian_all", "nanmedian_dim", "positions", "resize", "resize_backward",
    "restride", "sort", "topk",
))  # fmt: skip


def draws(case: conformance.Case) -> bool:
    return any(isinstance(x, Generator) for x in (*case.sample.inputs, *case.sample.attrs.values()))


CASES = [case for case in conformance.cases() if not draws(case)]


def captured(backend: StrictCupyBackend, work: Callable[[], Any]) -> tuple[Any, Any, Any]:
    stream, pool = Stream(non_blocking=True), MemoryPool()
    backend._cublas.workspace(stream.ptr)  # type: ignore[union-attr]
    with stream, using_allocator(pool.malloc), noted_checks():
        stream.begin_capture()
        try:
            result = work()
        finally:
            graph = stream.end_capture()
    return graph, result, pool


def listed(results: Any) -> list[Any]:
    return [x for x in (results if isinstance(results, (tuple, list)) else (results,)) if isinstance(x, StrictArray)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_graph_computes_what_the_op_computes(case: conformance.Case) -> None:
    with registry.backend("numpy"), strict_cuda() as backend:
        kernel = getattr(backend.raw, case.op.name)
        host = inputs_of(case.op.name, case.sample, "float32")
        mine, theirs = ([backend.from_host(x) if isinstance(x, np.ndarray) else x for x in host] for _ in range(2))
        want = kernel(*theirs, **case.sample.attrs)
        arrays = [x for x in mine if isinstance(x, StrictArray)]
        elements = [x.get() for x in arrays]
        for x in arrays:  # what lies there while the stream is captured must not matter
            x._host[...] = 0
        try:
            graph, got, pool = captured(backend, lambda: kernel(*mine, **case.sample.attrs))
        except (RuntimeError, NotImplementedError) as error:
            assert "captur" in str(error)
            assert case.op.name in REFUSED
            return
        for x, values in zip(arrays, elements, strict=True):
            x._host[...] = values
        graph.launch()
        for a, b in zip([*listed(got), *arrays], [*listed(want), *listed(theirs)], strict=True):
            assert conformance.same_bits(a.get(), b.get())
        del pool


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_said_to_be_refused_is(name: str) -> None:
    def refused(case: conformance.Case) -> bool:
        host = inputs_of(name, case.sample, "float32")
        given = [backend.from_host(x) if isinstance(x, np.ndarray) else x for x in host]
        try:
            captured(backend, lambda: getattr(backend.raw, name)(*given, **case.sample.attrs))
        except (RuntimeError, NotImplementedError) as error:
            return "captur" in str(error)
        return False

    with registry.backend("numpy"), strict_cuda() as backend:
        assert any(refused(case) for case in CASES if case.op.name == name)


def test_a_histogram_of_a_given_range_is_counted_in_a_graph() -> None:
    with registry.backend("numpy"), strict_cuda() as backend:
        elements = np.linspace(-1.0, 4.0, 3000, dtype=np.float32)  # more places than are ranked
        x = backend.from_host(np.zeros_like(elements))
        graph, counts, pool = captured(backend, lambda: backend.raw.histc(x, bins=7, low=0.0, high=3.5))
        x._host[...] = elements
        graph.launch()
        assert np.array_equal(counts.get(), np.histogram(elements, 7, (0.0, 3.5))[0])
        del pool
