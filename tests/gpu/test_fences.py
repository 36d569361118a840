"""What the kernels' harness finds: copies that nobody waited for, threads that read too early, arrays left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy.kernels import SOURCES
from tensorgrad.backends.cupy.printer import source_file

from .fenced import Fenced, fenced
from .host_compiler import compile_for_host

ROOT = Path(__file__).parents[2]

# each thread brings two quads of numbers to shared memory, and notes what is there at three moments
COPIES = """
extern "C" __global__ void copies(const float* from, float* seen) {
  alignas(16) __shared__ float room[8 * 32];
  float* mine = room + 8 * threadIdx.x;
  tg::copy_16_bytes(mine, from, true);
  tg::end_of_copies();
  tg::copy_16_bytes(mine + 4, from + 4, threadIdx.x != 0);
  tg::end_of_copies();
  float* out = seen + 24 * threadIdx.x;
  for (int i = 0; i < 8; ++i) out[i] = mine[i];
  tg::wait_for_copies<1>();
  for (int i = 0; i < 8; ++i) out[8 + i] = mine[i];
  tg::wait_for_copies<0>();
  for (int i = 0; i < 8; ++i) out[16 + i] = mine[i];
}
"""
# each thread reads what its neighbour writes: rightly, and too early
NEIGHBOURS = """
extern "C" __global__ void neighbours(float* right, float* early) {
  __shared__ float room[64];
  room[threadIdx.x] = -1.0f;
  __syncthreads();
  room[threadIdx.x] = (float)threadIdx.x;
  early[threadIdx.x] = room[(threadIdx.x + 1) % blockDim.x];
  __syncthreads();
  right[threadIdx.x] = room[(threadIdx.x + 1) % blockDim.x];
}
"""


def compiled(text: str, name: str, *defines: str) -> Any:
    includes = next(source for source in SOURCES if source.file == "attention.cu").includes
    return compile_for_host("\n".join(map(source_file, includes)) + text, name, defines=defines)[0]


def test_copies_are_there_when_they_were_waited_for_and_not_before() -> None:
    numbers = np.frombuffer(fenced((8,), np.float32, at_end=True), np.float32)
    numbers[:] = range(8)
    seen = np.zeros((32, 3, 8), np.float32)
    compiled(COPIES + "// __syncthreads", "copies")((1,), (32,), (numbers, seen))
    assert np.isnan(seen[:, 0]).all()
    assert (seen[:, 1, :4] == numbers[:4]).all() and np.isnan(seen[:, 1, 4:]).all()
    assert (seen[1:, 2] == numbers).all()
    assert seen[0, 2].tolist() == [0, 1, 2, 3, 0, 0, 0, 0]


def test_who_reads_before_the_barrier_finds_something_else_backwards() -> None:
    found = []
    for defines in ((), ("TG_BACKWARDS",)):
        right, early = np.zeros(64, np.float32), np.zeros(64, np.float32)
        compiled(NEIGHBOURS, "neighbours", *defines)((1,), (64,), (right, early))
        assert right.tolist() == [(i + 1) % 64 for i in range(64)]
        found.append(early.tolist())
    assert found[0] != found[1]


@pytest.mark.parametrize("at_end", [False, True])
def test_who_leaves_an_array_is_stopped(at_end: bool) -> None:
    x = Fenced(at_end).copy(np.arange(6.0).reshape(2, 3))
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]] and x.flags.writeable
    assert Fenced(at_end).empty((0, 3)).shape == (0, 3)
    program = (
        "import ctypes, sys; import numpy as np; from tests.gpu.fenced import fenced\n"
        f"x = fenced((5, 7), np.int16, {at_end})\n"
        "at = x.ctypes.data + int(sys.argv[1])\n"
        "print(ctypes.c_int16.from_address(at).value)"
    )
    for place, stopped in ((0, False), (68, False), (70 if at_end else -2, True)):
        done = subprocess.run(
            [sys.executable, "-c", program, str(place)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == stopped, done.stderr
        assert done.stdout == ("" if stopped else "0\n")
