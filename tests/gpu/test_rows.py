"""Kernels over rows, on the CPU: threads that wait for each other, against the reference."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy.kernels import SOURCES
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.testing.strict_backend import REFERENCES

from .host_compiler import compile_for_host

SOURCE = next(source for source in SOURCES if source.file == "softmax.cu")
DIGITS = {"float32": 4e-7, "float64": 1e-15, "float16": 1e-3, "bfloat16": 8e-3}
# (rows, length): less than a warp, not a multiple of 16 bytes, more rows than groups, packs and more than one of them
SHAPES = [(3, 1), (5, 7), (37, 24), (2, 96), (4, 1024), (3, 1030)]


@pytest.fixture(scope="module")
def kernels() -> dict[str, Any]:
    return dict(zip(SOURCE.names, compile_for_host(SOURCE.text(), *SOURCE.names), strict=True))


def rows_of(shape: tuple[int, int], dtype: str, seed: int) -> Any:
    return (np.random.default_rng(seed).normal(size=shape) * 3).astype(numpy_dtype(dtype))


def run(kernel: Any, name: str, grid: int, *operands: Any) -> tuple[Any, Any]:
    """What the kernel and its reference make of these rows."""
    rows, length = operands[0].shape
    got, expected = np.empty_like(operands[0]), np.empty_like(operands[0])
    kernel((grid,), (64,), (np.int64(rows), np.int64(length), *operands, got))
    wide = [x.astype(np.float64) for x in operands]
    reference = np.empty(got.shape)
    REFERENCES[name](rows, length, *wide, reference)
    expected[...] = reference.astype(expected.dtype)
    return got.astype(np.float64), expected.astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SOURCE.names)
def test_softmax(name: str, shape: tuple[int, int], kernels: dict[str, Any]) -> None:
    kind, _, dtype = name.split("_")
    operands = [rows_of(shape, dtype, seed) for seed in range(2 if kind.endswith("grad") else 1)]
    if kind.endswith("grad"):  # a gradient is given at a result
        forward = name.replace("grad", "")
        REFERENCES[forward](*shape, rows_of(shape, dtype, 2), operands[1])
    got, expected = run(kernels[name], name, 2, *operands)
    assert np.allclose(got, expected, rtol=DIGITS[dtype], atol=DIGITS[dtype] * max(1.0, np.abs(expected).max()))
    again, _ = run(kernels[name], name, 3, *operands)
    assert np.array_equal(got, again), "the bits depend on the grid"


@pytest.mark.parametrize("group", ["warp", "block"])
@pytest.mark.parametrize("kind", ["softmax", "logsoftmax"])
@pytest.mark.parametrize("length", [40, 41])
def test_infinities_and_nan(kind: str, group: str, length: int, kernels: dict[str, Any]) -> None:
    x = rows_of((7, length), "float32", 0)
    x[0, :] = -np.inf  # nothing is seen
    x[1, :30] = -np.inf  # a mask, before and behind
    x[2, 10:] = -np.inf
    x[3, 5] = np.inf
    x[4, 33] = np.nan
    x[5, :] = 1e30
    x[6, ::2] = -1e30
    name = f"{kind}_{group}_float32"
    got, expected = run(kernels[name], name, 1, x)
    assert np.array_equal(np.isnan(got), np.isnan(expected)) and np.isnan(got[[0, 3, 4]]).all()
    assert np.allclose(got, expected, rtol=4e-7, atol=4e-7, equal_nan=True)


@pytest.mark.parametrize("kind", ["softmax", "logsoftmaxgrad"])
def test_bits_do_not_depend_on_where_arrays_begin(kind: str, kernels: dict[str, Any]) -> None:
    operands = []
    for seed in range(2 if kind.endswith("grad") else 1):
        memory = np.zeros(8 * 64 + 1, np.float32)
        x = memory[1:].reshape(8, 64)
        x[...] = rows_of((8, 64), "float32", seed)
        operands.append(x)
    name = f"{kind}_warp_float32"
    got, _ = run(kernels[name], name, 1, *operands)
    aligned, _ = run(kernels[name], name, 1, *[x.copy() for x in operands])
    assert np.array_equal(got, aligned)


def test_a_thread_that_waits_for_one_that_has_ended_stops() -> None:
    text = 'extern "C" __global__ void wrong(int* x) { if (threadIdx.x) __syncthreads(); }'
    program = (
        "import numpy as np; from tests.gpu.host_compiler import compile_for_host;"
        f"k, = compile_for_host({text!r}, 'wrong'); k((1,), (4,), (np.zeros(1, np.int32),))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "wait for others that have ended" in done.stderr
