"""Prints typed programs as CUDA C.

A printed kernel is one loop over the elements of the broadcast shape. How an element is found depends on the *layout*:

- every array is dense in C order or a single element (``Layout.ndim == 0``): one running index, and arrays are moved in
  packs of ``vector`` elements, 16 bytes of the widest type;
- anything else: the index is split into ``ndim`` coordinates and each array has its own strides. Sizes and strides are
  kernel parameters, so one kernel serves every shape of its rank.

Python numbers are kernel parameters too: a learning rate that changes never compiles anything. The arithmetic itself is
in ``core.cuh``, ``special.cuh`` and ``complex.cuh``; a unit includes only those its kernels call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ...dtypes import BY_NAME
from ...expr import Program

__all__ = ["Layout", "Operand", "kernel", "most_packed", "numbers", "source_file", "unit"]

# how operands lie in memory
DENSE, SINGLE, STRIDED = "dense", "single", "strided"
Operand = str

C_TYPE = {"bool": "bool", "i64": "tg::i64", "f32": "float", "f64": "double", "c64": "tg::c64", "c128": "tg::c128"}
STORAGE = {
    "bool": "unsigned char",
    "uint8": "unsigned char",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "tg::i64",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "float32": "float",
    "float64": "double",
    "complex64": "tg::c64",
    "complex128": "tg::c128",
}
_LOAD = {
    "bool": "({} != 0)",
    **dict.fromkeys(("uint8", "int8", "int16", "int32"), "(tg::i64){}"),
    "float16": "__half2float({})",
    "bfloat16": "__bfloat162float({})",
}
# the compute type that each storage type is written from, and how
_STORE = {
    "bool": ("bool", "(unsigned char){}"),
    "uint8": ("i64", "(unsigned char){}"),
    "int8": ("i64", "(signed char){}"),
    "int16": ("i64", "(short){}"),
    "int32": ("i64", "(int){}"),
    "int64": ("i64", "{}"),
    "float16": ("f32", "__float2half_rn({})"),
    "bfloat16": ("f32", "__float2bfloat16_rn({})"),
    "float32": ("f32", "{}"),
    "float64": ("f64", "{}"),
    "complex64": ("c64", "{}"),
    "complex128": ("c128", "{}"),
}
_INCOMPLETE = frozenset(("igamma", "igammac"))
_SPECIAL = frozenset(("erfinv", "lgamma", "digamma", "polygamma", "zeta")) | _INCOMPLETE
_LIGHT_ON_COMPLEX = frozenset(
    ("load", "const", "cast", "add", "sub", "mul", "neg", "conj", "complex", "where", "real", "imag")
)
_SHORT = 10  # instructions of a formula that memory alone limits
_RESERVED = frozenset(("and", "or", "xor", "not"))  # spellings of C++ operators


@dataclass(frozen=True)
class Layout:
    """How a kernel walks over its operands.

    Args:
        operands: one per array operand, the program's array inputs, then its outputs: ``"dense"``, ``"single"`` (one
            element for all), ``"strided"``.
        ndim: coordinates that an index is split into; 0 where no operand is strided.
        vector: elements moved at once (only where ``ndim`` is 0).
        wide: 64-bit indices; 32-bit ones are faster and reach 2**31 elements.
    """

    operands: tuple[Operand, ...]
    ndim: int = 0
    vector: int = 1
    wide: bool = False


def array_inputs(program: Program) -> tuple[int, ...]:
    """The inputs that are arrays, not Python numbers."""
    return tuple(i for i, key in enumerate(program.inputs) if not key.startswith("py:"))


def numbers(program: Program) -> tuple[tuple[int, str], ...]:
    """The program's number parameters in order: (input, compute type); a number may be needed in several types."""
    wanted: list[tuple[int, str]] = []
    for op, kind, args in program.code:
        if op == "load" and program.inputs[args[0]].startswith("py:") and (args[0], kind) not in wanted:
            wanted.append((args[0], kind))
    return tuple(wanted)


def most_packed(program: Program) -> int:
    """How many elements a thread may move at once: fewer the more arithmetic there is to hide the memory behind.

    Packs multiply the code, and with it the time to compile: long formulas gain nothing from wide ones.
    """
    for op, kind, _ in program.code:
        if op in _SPECIAL or (kind in ("c64", "c128") and op not in _LIGHT_ON_COMPLEX):
            return 1
    return 8 if len(program.code) <= _SHORT else 4


def storage_of(program: Program, index: int) -> str:
    return program.inputs[index].removesuffix(":0")


def literal(value: Any, kind: str) -> str:
    """A number as C text of exactly that value."""
    if kind == "bool":
        return "true" if value else "false"
    if kind == "i64":
        # the smallest integer has no literal of its own
        return f"(tg::i64)({value + 1}LL - 1)" if value == -(2**63) else f"(tg::i64){value}LL"
    if kind in ("c64", "c128"):
        part = "f32" if kind == "c64" else "f64"
        return f"tg::complex({literal(value.real, part)}, {literal(value.imag, part)})"
    suffix, zero = ("f", "0.0f") if kind == "f32" else ("", "0.0")
    with np.errstate(over="ignore"):
        shown = float(np.float32(value)) if kind == "f32" else float(value)
    if math.isnan(shown):
        return f"tg::quiet_nan({zero})"
    if math.isinf(shown):
        return f"{'-' if shown < 0 else ''}tg::infinity({zero})"
    return repr(shown) + suffix


def _statements(program: Program, inputs: dict[int, str], outputs: Sequence[str]) -> list[str]:
    """The program for one element: ``inputs[i]`` is the C expression of input i, ``outputs`` are lvalues."""
    lines = []
    for index, (op, kind, args) in enumerate(program.code):
        if op == "load":
            k = args[0]
            if program.inputs[k].startswith("py:"):
                value = f"n{k}_{kind}"
            else:
                value = f"tg::to_{kind}({_LOAD.get(storage_of(program, k), '{}').format(inputs[k])})"
        elif op == "const":
            value = literal(args[0], kind)
        elif op == "cast":
            value = f"tg::to_{kind}(v{args[0]})"
        elif op == "wrap":
            value = f"tg::wrap_{args[1]}(v{args[0]})"
        else:
            name = op + "_" if op in _RESERVED else op
            value = f"tg::{name}({', '.join(f'v{arg}' for arg in args)})"
        lines.append(f"const {C_TYPE[kind]} v{index} = {value};")
    for target, (index, name) in zip(outputs, program.outputs, strict=True):
        kind, store = _STORE[name]
        lines.append(f"{target} = {store.format(f'tg::to_{kind}(v{index})')};")
    return lines


def _indented(lines: Iterable[str], depth: int) -> list[str]:
    return ["  " * depth + line for line in lines]


def kernel(program: Program, layout: Layout, name: str) -> str:
    """The text of one kernel, to be put into a ``unit``.

    Its parameters: the number of elements; for strided layouts the sizes of all axes but the first and each strided
    operand's strides in elements, both from the first axis on; one pointer per array input and output; the numbers of
    ``numbers(program)``.
    """
    index = ("tg::i64" if layout.wide else "unsigned int") if not layout.ndim else "tg::i64" if layout.wide else "int"
    arrays = array_inputs(program)
    count = len(arrays)
    strided = [o for o, how in enumerate(layout.operands) if how == STRIDED]
    parameters = [f"const {index} count"]
    parameters += [f"const {index} size{axis}" for axis in range(1, layout.ndim)]
    parameters += [f"const {index} stride{o}_{axis}" for o in strided for axis in range(layout.ndim)]
    parameters += [f"const {STORAGE[storage_of(program, k)]}* p{o}" for o, k in enumerate(arrays)]
    parameters += [f"{STORAGE[dtype]}* p{count + o}" for o, (_, dtype) in enumerate(program.outputs)]
    parameters += [f"const {C_TYPE[kind]} n{k}_{kind}" for k, kind in numbers(program)]
    body = _strided_loop(program, layout, index) if layout.ndim else _dense_loop(program, layout, index)
    signature = ",\n    ".join(parameters)
    return "\n".join([f'extern "C" __global__ void {name}(', f"    {signature}) {{", *_indented(body, 1), "}", ""])


def _dense_loop(program: Program, layout: Layout, index: str) -> list[str]:
    arrays = array_inputs(program)
    count = len(arrays)
    types = [STORAGE[storage_of(program, k)] for k in arrays] + [STORAGE[dtype] for _, dtype in program.outputs]
    singles = [o for o in range(count) if layout.operands[o] == SINGLE]
    dense = [o for o in range(count) if layout.operands[o] != SINGLE]
    outputs = range(count, len(types))
    lines = [f"const {types[o]} x{o} = *p{o};" for o in singles]
    lines += [
        f"const {index} first = blockIdx.x * ({index})blockDim.x + threadIdx.x;",
        f"const {index} step = ({index})gridDim.x * blockDim.x;",
    ]
    start = "first"
    if layout.vector > 1:
        width = layout.vector
        each = {k: f"x{o}" if o in singles else f"x{o}.v[e]" for o, k in enumerate(arrays)}
        lines += [f"const {index} packs = count / {width};", f"for ({index} i = first; i < packs; i += step) {{"]
        packs = {o: f"tg::pack<{types[o]}, {width}>" for o in (*dense, *outputs)}
        lines += [f"  const {packs[o]} x{o} = ((const {packs[o]}*)p{o})[i];" for o in dense]
        lines += [f"  {packs[o]} y{o};" for o in outputs]
        lines += ["#pragma unroll", f"  for (int e = 0; e < {width}; ++e) {{"]
        lines += _indented(_statements(program, each, [f"y{o}.v[e]" for o in outputs]), 2)
        lines += ["  }"]
        lines += [f"  (({packs[o]}*)p{o})[i] = y{o};" for o in outputs]
        lines += ["}"]
        start = f"packs * {width} + first"  # the elements that fill no pack
    one = {k: f"x{o}" if o in singles else f"p{o}[i]" for o, k in enumerate(arrays)}
    lines += [f"for ({index} i = {start}; i < count; i += step) {{"]
    lines += _indented(_statements(program, one, [f"p{o}[i]" for o in outputs]), 1)
    return [*lines, "}"]


def _strided_loop(program: Program, layout: Layout, index: str) -> list[str]:
    # Signed indices: strides of flipped views are negative. `rest` is split unsigned, which divides faster.
    arrays = array_inputs(program)
    unsigned = "unsigned long long" if layout.wide else "unsigned int"
    places = []
    for o, how in enumerate(layout.operands):
        at = {DENSE: "i", SINGLE: "0", STRIDED: f"at{o}"}[how]
        places.append(f"p{o}[{at}]")
    moving = [o for o, how in enumerate(layout.operands) if how == STRIDED]
    lines = [
        f"const {unsigned} step = ({unsigned})gridDim.x * blockDim.x;",
        f"for ({unsigned} i = blockIdx.x * ({unsigned})blockDim.x + threadIdx.x; i < ({unsigned})count; i += step) {{",
    ]
    inner = [f"{unsigned} rest = i;"] if layout.ndim > 1 else [f"const {unsigned} rest = i;"]
    for axis in range(layout.ndim - 1, 0, -1):
        size = f"({unsigned})size{axis}"
        inner.append(f"const {index} c{axis} = ({index})(rest % {size});")
        inner.append(f"rest /= {size};")
    inner.append(f"const {index} c0 = ({index})rest;")
    for o in moving:
        terms = " + ".join(f"c{axis} * stride{o}_{axis}" for axis in range(layout.ndim))
        inner.append(f"const {index} at{o} = {terms};")
    inputs = {k: places[o] for o, k in enumerate(arrays)}
    inner += _statements(program, inputs, places[len(arrays) :])
    return [*lines, *_indented(inner, 1), "}"]


@cache
def source_file(name: str) -> str:
    """The text of a CUDA file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8").replace("#pragma once\n", "")


def unit(programs: Sequence[Program], kernels: Sequence[str]) -> str:
    """A translation unit of these kernels, complete: what NVRTC is given."""
    stored = {storage_of(p, k) for p in programs for k in array_inputs(p)} | {d for p in programs for _, d in p.outputs}
    ops = {op for p in programs for op, _, _ in p.code}
    kinds = {kind for p in programs for _, kind, _ in p.code}
    is_complex = bool(kinds & {"c64", "c128"}) or any(BY_NAME[name].is_complex for name in stored)
    parts = []
    if "float16" in stored:
        parts.append("#include <cuda_fp16.h>\n")
    if "bfloat16" in stored:
        parts.append("#include <cuda_bf16.h>\n")
    parts.append(source_file("core.cuh"))
    if ops & _SPECIAL:
        parts.append(source_file("special.cuh"))
    if ops & _INCOMPLETE:
        parts.append(source_file("gamma.cuh"))
    if is_complex:
        parts.append(source_file("complex.cuh"))
    return "\n".join([*parts, *kernels])
