"""The kernels written by hand, in ``.cu`` files beside this one: a table that builds them and feeds the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .printer import source_file

__all__ = [
    "ATTENTION_JOINT", "ATTENTION_TYPES", "ATTENTION_WIDTHS", "JOINS", "REDUCERS", "SOURCES", "Kernels", "Source",
]  # fmt: skip

_BLOCK = 256
_MOST_BLOCKS = 1 << 16


@dataclass(frozen=True)
class Source:
    """A ``.cu`` file: what it needs before it, and the kernels in it.

    ``instances``: lines that follow the file's text, with the kernels that each defines. Where there are any, a kernel
    is compiled with its own line only: a program uses few of many.
    """

    file: str
    includes: tuple[str, ...]
    names: tuple[str, ...]
    instances: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def text(self) -> str:
        """The complete translation unit."""
        headers = "#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n"
        files = [source_file(name) for name in (*self.includes, self.file)]
        return headers + "\n".join([*files, *[f"{line}\n" for line, _ in self.instances]])

    def part(self, *names: str) -> Source:
        """What has to be compiled for these kernels."""
        lines = tuple([(line, made) for line, made in self.instances if not set(made).isdisjoint(names)])
        return replace(self, names=tuple([n for _, made in lines for n in made]), instances=lines) if lines else self


_FLOATS = ("float16", "bfloat16", "float32", "float64")
_TYPES = {
    "uint8": "unsigned char", "int8": "signed char", "int16": "short", "int32": "int", "int64": "tg::i64",
    "float16": "__half", "bfloat16": "__nv_bfloat16", "float32": "float", "float64": "double", "complex64": "tg::c64",
    "complex128": "tg::c128",
}  # fmt: skip

_POOLS = ("maxpool", "avgpool", "avgpoolback", "maxpoolback")

# how the kernels of reduce.cu read elements
_ELEMENTS = {
    "float16": "Stored<__half>", "bfloat16": "Stored<__nv_bfloat16>", "float32": "Stored<float>",
    "float64": "Stored<double>", "complex64": "Stored<tg::c64>", "complex128": "Stored<tg::c128>",
    "sizes64": "Sizes<tg::c64>", "sizes128": "Sizes<tg::c128>", "integer": "Integers", "truth": "Truths",
}  # fmt: skip
_STORED = {"float16": "__half", "bfloat16": "__nv_bfloat16", "float32": "float", "float64": "double"}
# kind and variant of an optimizer's step, whether it has the variant's list, and how many lists
_STEPS = (
    ("sgd", "plain", "false", 2), ("sgd", "momentum", "true", 3), ("adam", "plain", "false", 4),
    ("adam", "amsgrad", "true", 5),
)  # fmt: skip
_NORMS = (("squares", "false"), ("largest", "true"))
ATTENTION_TYPES, ATTENTION_WIDTHS = ("float16", "bfloat16", "float32"), (64, 128, 256)
ATTENTION_JOINT = 128  # the widest whose gradients of keys and values are one kernel
REDUCERS = {
    "sum": ("Sum", (*_FLOATS, "complex64", "complex128", "integer")),
    "squares": ("Squares", (*_FLOATS, "complex64", "complex128")),
    "product": ("Product", ("float32", "float64", "complex64", "complex128", "integer")),
    "count": ("Count", ("truth",)),
    "extreme": ("Extreme", (*_FLOATS, "sizes64", "sizes128", "integer")),
    "place": ("Place", (*_FLOATS, "integer")),
    "logsumexp": ("LogSumExp", _FLOATS),
}

JOINS = {"sum": ("Total", True), "prod": ("Factors", True), "amax": ("Highest", False), "amin": ("Lowest", False)}
"""How what meets at one place is joined: the state in accumulate.cu, and whether complex numbers have it."""


def _instances(macro: str, kinds: dict[str, tuple[str, tuple[str, ...]]], walks: tuple[str, ...]) -> dict[str, Any]:
    """Lines ``macro(kind, Function, name, elements)`` and their kernels ``kind_walk_name``, as fields of a Source."""
    lines = [
        (f"{macro}({kind}, {function}, {name}, {_ELEMENTS[name]})", tuple([f"{kind}_{walk}_{name}" for walk in walks]))
        for kind, (function, names) in kinds.items()
        for name in names
    ]
    return {"names": tuple([name for _, made in lines for name in made]), "instances": tuple(lines)}


def _attention() -> dict[str, Any]:
    """The lines of attention.cu, as fields of a Source: forward and backward for each type and width, the same with
    dropout."""
    lines: list[tuple[str, tuple[str, ...]]] = []
    for dtype in ATTENTION_TYPES:
        stored = _STORED[dtype]
        for width in ATTENTION_WIDTHS:
            delta = f"attentiondelta_{dtype}_{width}"
            for prefix, drops in (("attention", "false"), ("dropped", "true")):
                forward, of_queries, of_keys, of_values = (
                    f"{kind}_{dtype}_{width}"
                    for kind in (f"{prefix}forward", f"{prefix}query", f"{prefix}key", f"{prefix}value")
                )
                given = f"{stored}, {width}, {drops}"
                backward = [f"OF_QUERIES({of_queries}, {given})"]
                names = [of_queries, of_keys]
                if drops == "false":
                    backward.append(f"DELTA({delta}, {stored})")
                    names.append(delta)
                if width <= ATTENTION_JOINT:
                    backward.append(f"OF_KEYS({of_keys}, {given}, tg::kBoth)")
                else:
                    backward.append(f"OF_KEYS({of_keys}, {given}, tg::kOfKeys)")
                    backward.append(f"OF_KEYS({of_values}, {given}, tg::kOfValues)")
                    names.append(of_values)
                lines += [(f"FORWARD({forward}, {given})", (forward,)), (" ".join(backward), tuple(names))]
    return {"names": tuple([name for _, made in lines for name in made]), "instances": tuple(lines)}


def _optimizers() -> dict[str, Any]:
    """The lines of optim.cu, as fields of a Source."""
    lines: list[tuple[str, tuple[str, ...]]]
    lines = [(f"TOTAL({kind}, {largest})", (f"normtotal_{kind}",)) for kind, largest in _NORMS]
    lines += [("COUNT()", ("countstep",))]
    for name in _FLOATS:
        stored = _STORED[name]
        lines += [
            (f"STEP({kind}, {variant}, {flag}, {lists}, {name}, {stored})", (f"{kind}_{variant}_{name}",))
            for kind, variant, flag, lists in _STEPS
        ]
        lines += [(f"SCALE({name}, {stored})", (f"scale_{name}", f"unscale_{name}"))]
        lines += [
            (f"NORM({kind}, {largest}, {name}, {stored})", (f"normparts_{kind}_{name}",)) for kind, largest in _NORMS
        ]
    return {"names": tuple([name for _, made in lines for name in made]), "instances": tuple(lines)}


def _by_dtype(*kinds: str) -> dict[str, Any]:
    """Lines ``KIND(name, stored, wide)`` and their kernels ``kind_name``, as fields of a Source."""
    lines = [
        (f"{kind.upper()}({name}, {stored}, {'double' if name == 'float64' else 'float'})", (f"{kind}_{name}",))
        for kind in kinds
        for name, stored in _STORED.items()
    ]
    return {"names": tuple([name for _, made in lines for name in made]), "instances": tuple(lines)}


def _moves() -> tuple[str, ...]:
    return tuple([f"{kind}_{unit}" for unit in (1, 2, 4, 8, 16) for kind in ("take", "gather", "write")])


def _joins() -> dict[str, Any]:
    """The lines of accumulate.cu, as fields of a Source."""
    lines = [
        (f"ACCUMULATE({how}, {join}, {name}, {stored})", (f"{how}tiles_{name}", f"{how}runs_{name}"))
        for how, (join, takes_complex) in JOINS.items()
        for name, stored in _TYPES.items()
        if takes_complex or not name.startswith("complex")
    ]
    return {"names": tuple([name for _, made in lines for name in made]), "instances": tuple(lines)}


SOURCES = (
    Source(
        "random.cu",
        ("core.cuh", "philox.cuh"),
        (
            "words",
            "place",
            "stays",
            *(f"{kind}_{dtype}" for kind in ("uniform", "normal", "dropout") for dtype in _FLOATS),
        ),
    ),
    Source(
        "softmax.cu",
        ("core.cuh", "rows.cuh", "normalizer.cuh"),
        tuple(
            f"{kind}_{group}_{dtype}"
            for kind in ("softmax", "logsoftmax", "softmaxgrad", "logsoftmaxgrad")
            for group in ("warp", "block")
            for dtype in _FLOATS
        ),
    ),
    Source(
        "conv.cu",
        ("core.cuh", "rows.cuh"),
        tuple(
            f"{kind}_{dtype}"
            for kind in ("unfold", "unfoldback", "direct", "directback", "directweight")
            for dtype in _FLOATS
        ),
    ),
    Source(
        "reduce.cu",
        ("core.cuh", "complex.cuh", "rows.cuh", "reducers.cuh"),
        **_instances("REDUCE", REDUCERS, ("rows", "columns")),
    ),
    Source("move.cu", ("core.cuh",), tuple(f"{kind}_{unit}" for unit in (1, 2, 4, 8, 16) for kind in ("move", "turn"))),
    Source("words.cu", ("core.cuh",), ("putwords",)),
    Source("optim.cu", ("core.cuh", "rows.cuh"), **_optimizers()),
    Source(
        "pool.cu",
        ("core.cuh", "rows.cuh"),
        tuple(f"{kind}_{dtype}" for dtype in _FLOATS for kind in _POOLS),
        tuple((f"POOL({d}, {_TYPES[d]})", tuple([f"{kind}_{d}" for kind in _POOLS])) for d in _FLOATS),
    ),
    Source("sort.cu", ("core.cuh",), ("rankedkeys", "rowkeys", "digitcounts", "digitstarts", "digitplaces")),
    Source(
        "accumulate.cu",
        ("core.cuh", "complex.cuh", "rows.cuh", "reducers.cuh", "strided.cuh"),
        **_joins(),
    ),
    Source(
        "summed_rows.cu",
        ("core.cuh", "complex.cuh", "rows.cuh", "reducers.cuh"),
        ("rowgroups", *(f"{kind}_{dtype}" for dtype in ("float32", "float64") for kind in ("rowtiles", "rowruns"))),
    ),
    Source(
        "index.cu",
        ("core.cuh", "strided.cuh"),
        ("rowsat", "outside", "places", "forget", "remember", *_moves()),
    ),
    Source("attention.cu", ("core.cuh", "philox.cuh", "rows.cuh", "tensor_cores.cuh", "tiles.cuh"), **_attention()),
    Source("norm_rows.cu", ("core.cuh", "rows.cuh", "team.cuh"), **_by_dtype("rownorm", "rownormgrad")),
    Source(
        "norm_columns.cu",
        ("core.cuh", "rows.cuh", "team.cuh"),
        **_by_dtype("columnsums", "columnsumsrelu", "columntotals", "columnstats"),
    ),
    Source(
        "norm_channels.cu",
        ("core.cuh", "rows.cuh", "team.cuh"),
        **_by_dtype(
            "channelstats",
            "statistics",
            "channelnorm",
            "channelnormrelu",
            "channelsums",
            "channelsumsrelu",
            "groupsums",
            "channelnormgrad",
            "channelnormgradrelu",
            "givenstats",
            "givennorm",
            "givennormgrad",
        ),
    ),
    Source(
        "cross_entropy.cu",
        ("core.cuh", "rows.cuh", "team.cuh", "normalizer.cuh"),
        **_by_dtype("crossentropy", "lossparts", "losstotal", "crossentropygrad"),
    ),
    Source(
        "recurrent.cu",
        ("core.cuh", "rows.cuh", "team.cuh"),
        **_by_dtype("lstm", "gru", "plain", "lstmback", "gruback", "plainback"),
    ),
)


class Kernels:
    """Finds a kernel by name, compiles its file at first use, launches it over a number of threads."""

    def __init__(self, xp: Any):
        self.xp = xp
        self.found: dict[str, Any] = {}

    def compile(self, source: Source) -> dict[str, Any]:
        """The file's kernels by name, each ``k(grid, block, arguments)``."""
        module = self.xp.RawModule(code=source.text())
        return {name: module.get_function(name) for name in source.names}

    def launch(self, name: str, threads: int, *arguments: Any, block: int = _BLOCK) -> None:
        """Run ``name`` with at least ``threads`` threads (the kernels go round if there are fewer blocks).

        Python ints are passed as 64-bit integers; floats must come as NumPy scalars of the kernel's type, a struct as a
        0-d array of a structured dtype. Raises TypeError for a name that no file defines, e.g. for a dtype without such
        a kernel.
        """
        kernel = self.found.get(name)
        if kernel is None:
            source = next((source for source in SOURCES if name in source.names), None)
            if source is None:
                raise TypeError(f"there is no CUDA kernel {name!r}; the kernels are {', '.join(_names())}")
            self.found.update(self.compile(source.part(name)))
            kernel = self.found[name]
        if threads:
            blocks = min(-(-threads // block), _MOST_BLOCKS)
            kernel((blocks,), (block,), tuple([_word(x) if isinstance(x, int) else x for x in arguments]))


def _names() -> list[str]:
    return [name for source in SOURCES for name in source.names]


def _word(value: int) -> Any:
    return np.int64(value if -(2**63) <= value < 2**63 else (value + 2**63) % 2**64 - 2**63)
