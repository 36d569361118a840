"""Compiles CUDA sources to machine code with NVRTC, which needs no GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import pytest

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'tensorgrad[cuda]'")
pathfinder = pytest.importorskip("cuda.pathfinder", reason="the CUDA parts are not installed: see 'tensorgrad[cuda]'")


@cache
def headers() -> str:
    """The folder of cuda_fp16.h; skips the test where the CUDA runtime's headers are not installed."""
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"NVRTC does not load ({error}): pip install 'tensorgrad[cuda]'")
    found = pathfinder.find_nvidia_header_directory("cudart")
    if found is None:
        pytest.skip("the CUDA runtime's headers are not installed: pip install 'tensorgrad[cuda]'")
    first = cupy.cuda.nvrtc.createProgram("", "first.cu", [], [])
    cupy.cuda.nvrtc.compileProgram(
        first, ("-arch=sm_80",)
    )  # loads the compiler's parts, which threads must not race for
    cupy.cuda.nvrtc.destroyProgram(first)
    return str(found)


@dataclass
class Compiled:
    machine_code: bytes
    log: str

    @property
    def spills(self) -> dict[str, int]:
        """Bytes that each kernel spills from registers to memory, for those that do."""
        found: dict[str, int] = {}
        name = ""
        for line in self.log.splitlines():
            if entry := re.search(r"(?:Compiling entry function|Function properties for) '?(\w+)'?", line):
                name = entry.group(1)
            elif spilled := re.search(r"(\d+) bytes spill stores", line):
                found[name] = found.get(name, 0) + int(spilled.group(1))
        return {name: count for name, count in found.items() if count}


def compile_for_gpu(source: str, arch: int) -> Compiled:
    """SASS of a source for ``sm_{arch}``, under the options that CuPy gives to a RawKernel. Fails with NVRTC's log."""
    options = (
        "-std=c++17", "-ftz=true", "--device-as-default-execution-space", f"-I{headers()}", f"-arch=sm_{arch}",
        "--ptxas-options=-v",
    )  # fmt: skip
    program = cupy.cuda.nvrtc.createProgram(source, "unit.cu", [], [])
    try:
        try:
            cupy.cuda.nvrtc.compileProgram(program, options)
        except cupy.cuda.nvrtc.NVRTCError:
            pytest.fail(f"sm_{arch}: {cupy.cuda.nvrtc.getProgramLog(program)[:4000]}", pytrace=False)
        return Compiled(cupy.cuda.nvrtc.getCUBIN(program), cupy.cuda.nvrtc.getProgramLog(program))
    finally:
        cupy.cuda.nvrtc.destroyProgram(program)
