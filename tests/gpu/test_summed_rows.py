"""Rows that are added up where they lie: their kernels on the CPU, against picking and adding by the kernels for that,
and the programs that ``tg.compile`` makes with them on the stand-in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends.cupy.accumulate_kernels import tile_of
from tensorgrad.backends.cupy.index_kernels import CupyIndexing
from tensorgrad.backends.cupy.kernels import SOURCES
from tensorgrad.backends.cupy.summed_rows_kernels import CupySummedRows
from tensorgrad.backends.generic.index import IndexKernels
from tensorgrad.testing.strict_backend import strict_cuda

from .host_kernels import HostKernels


class Host(CupyIndexing, CupySummedRows):
    xp = np

    def __init__(self) -> None:
        sources = [name for s in SOURCES if s.file in ("sort.cu", "summed_rows.cu") for name in s.names]
        self._kernels = HostKernels(*sources, "sumtiles_float32", "sumtiles_float64")

    def _address(self, x: Any) -> int:
        return x.ctypes.data  # type: ignore[no-any-return]

    def check_index(self, name: str, index: Any, size: int, dim: int, negative: bool = False) -> None:
        IndexKernels.check_index(self, name, index, size, dim, negative)


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


def targets(count: int, groups: int) -> Any:
    """Half of them the same, so that a group goes over many tiles; some groups are empty."""
    rng = np.random.default_rng(count)
    return np.where(rng.uniform(size=count) < 0.5, groups // 2, rng.integers(0, groups, count))


# one tile; groups across tiles, by lanes and one column a thread; more keys than are ranked
@pytest.mark.parametrize(
    ("count", "groups", "row"), [(9, 4, (3,)), (150, 7, (2, 3)), (400, 50, (5, 8)), (3000, 700, ())], ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_those_of_rows_that_were_picked_and_added(
    count: int, groups: int, row: tuple[int, ...], dtype: str, host: Host
) -> None:
    rng = np.random.default_rng(0)
    target, source = targets(count, groups), rng.integers(0, 11, count)
    x, base = (rng.normal(size=(n, *row)).astype(dtype) for n in (11, groups))
    negative = np.where(rng.uniform(size=count) < 0.5, target, target - groups)
    rows, ends, positions = host.grouped_rows(
        negative, source, groups=groups, negative=True, name="index_put", keeps=True
    )
    order = target.argsort(kind="stable")
    assert positions.tolist() == order.tolist() and rows.tolist() == source[order].tolist()
    assert ends.tolist() == np.searchsorted(target[order], np.arange(groups + 1)).tolist()
    assert count <= tile_of(count, 1) or tile_of(count, 1) < np.diff(ends).max()
    shapes = [(1,) * len(row), (row[0], *[1] * (len(row) - 1)), row] if row else []
    for weights in (None, *(rng.normal(size=(count, *shape)).astype(dtype) for shape in shapes)):
        picked = x[source] if weights is None else x[source] * weights
        for start in (None, base):
            want = host.index_add_into(np.zeros_like(base) if start is None else start.copy(), target, picked, dim=0)
            for grid in (1, 3):
                host._kernels.grid = grid
                got = host.summed_rows(x, rows, ends, weights, None if weights is None else positions, start)
                assert got.tobytes() == want.tobytes()
    assert start is base and (base != got).any(), "a base is read, and not written to"


def test_what_is_no_row_is_left_out(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As within a CUDA graph, where indices are checked afterwards."""
    x, weights = np.arange(8, dtype=np.float32).reshape(4, 2), np.ones((3, 1), np.float32)
    rows, ends, positions = np.array([1, 9, -1]), np.array([0, 2, 3]), np.array([0, 1, 2])
    assert host.summed_rows(x, rows, ends, None, None, None).tolist() == [[2, 3], [0, 0]]
    assert host.summed_rows(x, rows * 0, ends, weights, positions + 2, None).tolist() == [[0, 1], [0, 0]]
    for lies in ([0, 99, 3], [5, 1, 0], [-7, 2, 99]):
        got = host.summed_rows(x, rows * 0 + 1, np.array(lies), weights, positions, None)
        assert got.shape == (2, 2) and set(got[:, 0].tolist()) <= {0, 2, 4, 6}
    monkeypatch.setattr(Host, "check_index", lambda *unused: None)
    found = host.grouped_rows(np.array([2, 0, -1]), None, groups=2, negative=False, name="index_add", keeps=False)
    assert found[1].tolist() == [0, 1, 1] and found[0][0] == 1 and found[2] is None


def test_messages_along_edges_are_one_graph_and_store_no_rows() -> None:
    def step(x: Any, source: Any, target: Any, weights: Any) -> list[Any]:
        x = x.detach().requires_grad_()
        y = tg.zeros_like(x).index_add(0, target, x[source])
        y = y.index_add(0, target, y.index_select(0, source) * weights[:, None])
        return [y, *tg.autograd.grad(y.square().sum(), [x])]

    with strict_cuda():
        f = tg.compile(step)
        for seed in range(3):
            tg.manual_seed(seed)
            x, weights = tg.randn(30, 5, device="cuda"), tg.randn(200, device="cuda")
            source, target = (tg.randint(0, 30, (200,), device="cuda") for _ in range(2))
            for ours, theirs in zip(f(x, source, target, weights), step(x, source, target, weights), strict=True):
                assert tg.equal(ours, theirs)
        said = f.explain()
        assert said.count("became summed_rows") == 3 and "CUDA graphs: 1," in said and "0 calls run between" in said
        with pytest.raises(IndexError, match=r"index 31 is out of bounds.*\(in a compiled function, at .*_rows.py:\d"):
            f(x, source + 31 - source.max(), target, weights)
        with pytest.raises(IndexError, match=r"index_add: index 30 is out of bounds.*\(in a compiled function"):
            f(x, source, target + 30 - target.max(), weights)
        for narrow in (tg.bfloat16, tg.int64):
            rows = tg.ones(3, 2, dtype=narrow, device="cuda")
            at = tg.tensor([0, 2, 2], device="cuda")
            g = tg.compile(lambda rows, at: rows.new_zeros(3, 2).index_add(0, at, rows[at]))
            for _ in range(2):
                assert g(rows, at)[2].tolist() == [2, 2]
