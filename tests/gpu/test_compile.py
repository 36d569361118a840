"""Every CUDA source that the package can produce, compiled to machine code: no GPU needed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest

import tensorgrad  # noqa: F401 - fills the table of ops
from tensorgrad.backends.cupy.kernels import ATTENTION_TYPES, ATTENTION_WIDTHS, SOURCES, Source
from tensorgrad.backends.cupy.launch import dense_layout
from tensorgrad.backends.cupy.printer import Layout, array_inputs, kernel, unit
from tensorgrad.dtypes import BY_NAME
from tensorgrad.expr import Program, lower, symbol
from tensorgrad.expr import functions as fn

from .nvrtc import compile_for_gpu, headers
from .programs import DTYPES, all_programs

ARCHS = (80, 90, 100)
_KERNELS_PER_UNIT = 32
_KERNELS_PER_PIECE = 16

# Every kernel is hot unless it is listed here, by its name and architecture, with the reason why it may keep registers
# in memory.
MAY_SPILL: dict[tuple[str, int], str] = {}


def strided_layout(program: Program, *, ndim: int = 2, wide: bool = False) -> Layout:
    return Layout((*["strided"] * len(array_inputs(program)), *["dense"] * len(program.outputs)), ndim, 1, wide)


def compiles(programs: list[tuple[str, Program]], layouts: list[Layout], arch: int) -> None:
    named = list(zip(programs, layouts, strict=True))
    sources = []
    for start in range(0, len(named), _KERNELS_PER_UNIT):
        part = named[start : start + _KERNELS_PER_UNIT]
        texts = [kernel(program, layout, f"{name}_{i}") for i, ((name, program), layout) in enumerate(part)]
        sources.append(unit([program for (_, program), _ in part], texts))
    headers()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC compiles without holding Python's lock
        for compiled in pool.map(lambda source: compile_for_gpu(source, arch), sources):
            assert compiled.machine_code
            assert not compiled.spills, compiled.spills


# Layouts differ in the walk around the same arithmetic. So each formula is compiled for every dtype and architecture in
# the strided layout, and with packs, whose code is the longest, on one architecture. COMPILE_ALL_KERNELS=1 takes packs
# on the others too, which is half as much work again.
COMBINATIONS = [
    (dtype, layout, arch)
    for dtype, layout, arch in product(DTYPES, ("dense", "strided"), ARCHS)
    if layout == "strided" or arch == 90 or os.environ.get("COMPILE_ALL_KERNELS")
]


def test_every_formula_is_compiled_for_every_dtype_and_architecture_and_in_every_layout() -> None:
    assert {(dtype, arch) for dtype, _, arch in COMBINATIONS} == set(product(DTYPES, ARCHS))
    assert {(dtype, layout) for dtype, layout, _ in COMBINATIONS} == set(product(DTYPES, ("dense", "strided")))


@pytest.mark.parametrize(("dtype", "layout", "arch"), COMBINATIONS)
def test_every_formula(dtype: str, layout: str, arch: int) -> None:
    programs = list(all_programs(dtype))
    assert len(programs) > 20
    lay_out = dense_layout if layout == "dense" else strided_layout
    compiles(programs, [lay_out(program) for _, program in programs], arch)


def pieces(source: Source) -> list[Source]:
    """A file in parts that take seconds each, so that processes share the work: attention's by types and widths, and
    what other files have many of by the lines that make them. Together they would take minutes on a busy machine."""
    if source.file == "attention.cu":
        units = [f"_{dtype}_{width}" for dtype in ATTENTION_TYPES for width in ATTENTION_WIDTHS]
        return [source.part(*[name for name in source.names if name.endswith(unit)]) for unit in units]
    if len(source.names) <= _KERNELS_PER_PIECE or not source.instances:
        return [source]
    parts = -(-len(source.names) // _KERNELS_PER_PIECE)
    count = -(-len(source.instances) // parts)
    lines = [source.instances[start : start + count] for start in range(0, len(source.instances), count)]
    return [source.part(*[name for _, names in some for name in names]) for some in lines]


PIECES = [piece for source in SOURCES for piece in pieces(source)]


def test_no_kernel_is_left_out() -> None:
    assert sorted(name for piece in PIECES for name in piece.names) == sorted(n for s in SOURCES for n in s.names)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", PIECES, ids=lambda source: f"{source.file}-{source.names[0]}")
def test_every_file(source: Source, arch: int) -> None:
    spills = compile_for_gpu(source.text(), arch).spills
    assert not {(name, arch) for name in spills} - MAY_SPILL.keys(), spills


def test_what_may_spill_does() -> None:
    for name, arch in MAY_SPILL:
        source = next(source for source in SOURCES if name in source.names).part(name)
        assert name in compile_for_gpu(source.text(), arch).spills, "it spills no more"


def test_a_spill_is_found_and_named() -> None:
    # 100 values that are all alive at once do not fit into the 64 registers that each of 1024 threads may have
    text = """
    extern "C" __global__ void calm(float* p) { p[threadIdx.x] *= 2.0f; }
    extern "C" __global__ void __launch_bounds__(1024) crowded(float* p, int n) {
      float v[100];
    #pragma unroll
      for (int i = 0; i < 100; ++i) v[i] = p[i * n];
    #pragma unroll
      for (int i = 0; i < 100; ++i) p[i * n + 1] = v[i] * v[99 - i] + v[(i * 7) % 100];
    }
    """
    for arch in ARCHS:
        spills = compile_for_gpu(text, arch).spills
        assert list(spills) == ["crowded"] and spills["crowded"] >= 4


@pytest.mark.parametrize("arch", ARCHS)
def test_ranks_and_index_widths(arch: int) -> None:
    program = lower([fn.sigmoid(symbol(0)) * symbol(1)], ("float32", "float16"), name="f")
    layouts = [strided_layout(program, ndim=n, wide=wide) for n in range(1, 12) for wide in (False, True)]
    layouts += [Layout(("dense", "single", "dense"), 0, v, wide) for v in (1, 2, 4, 8) for wide in (False, True)]
    layouts += [Layout(("strided", "single", "strided"), 3)]
    compiles([("f", program)] * len(layouts), layouts, arch)


@pytest.mark.parametrize("arch", ARCHS)
def test_python_numbers_of_every_kind_and_every_storage_type(arch: int) -> None:
    numbers = ("py:bool", "py:int", "py:float", "py:complex")
    add = [symbol(0) + symbol(1)]
    programs = [lower(add, (dtype, number), name="f") for dtype in BY_NAME for number in numbers]
    programs += [lower(add, (dtype, f"{other}:0"), name="f") for dtype in BY_NAME for other in BY_NAME]
    programs += [lower([fn.cast(symbol(0), other)], (dtype,), name="f") for dtype in BY_NAME for other in BY_NAME]
    compiles([("f", program) for program in programs], [dense_layout(program) for program in programs], arch)


def test_extreme_constants_compile() -> None:
    inf, nan = float("inf"), float("nan")
    values = (inf, -inf, nan, -0.0, 1e-45, 1e300, -(2**63), 2**63 - 1, complex(inf, nan), True)
    programs = [lower([symbol(0) + value], (dtype,), name="f") for value in values for dtype in ("float32", "float64")]
    programs += [lower([symbol(0) + value], ("int64",), name="f") for value in values if type(value) is int]
    compiles([("f", program) for program in programs], [dense_layout(program) for program in programs], 90)


def test_a_wrong_kernel_is_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match="no_such_function"):
        compile_for_gpu('extern "C" __global__ void f(float* p) { *p = no_such_function(1); }', 90)
