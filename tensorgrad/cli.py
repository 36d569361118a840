"""The console script ``tensorgrad``; ``tensorgrad info`` says what runs here, what does not, and why."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from .errors import TensorgradError

Row = tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the return value is the exit status: 0, or 1 after an error told in one line."""
    parser = argparse.ArgumentParser(prog="tensorgrad", description="Tensors with automatic differentiation.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _command(commands, "info", info, "print version, backends, processor, threads and every setting with its source")
    running = _command(commands, "run", run, "run a PyTorch program, unmodified: `import torch` finds tensorgrad")
    running.add_argument("-m", dest="module", action="store_true", help="the target is a module, as for python -m")
    running.add_argument("target", help="a script, a folder with a __main__.py, or a module's name")
    running.add_argument("arguments", nargs=argparse.REMAINDER, help="what the program gets as its arguments")
    checking = _command(commands, "check", check, "list the names of torch that a program uses and tensorgrad lacks")
    checking.add_argument("paths", nargs="+", metavar="path", help="a script, or a folder of them")
    warming = _command(commands, "warmup", warmup, "compile a device's kernels ahead, for later programs to load")
    warming.add_argument("device", help="cuda, or cuda:1 for the architecture of another device")
    warming.add_argument(
        "--dtype", dest="dtypes", action="append", default=[], metavar="dtype",
        help="compile formulas for this dtype; may be repeated (default: float32, float16, bfloat16, int64, bool)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        return args.run(args) or 0
    except TensorgradError as error:
        print(f"tensorgrad {args.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `tensorgrad info | head`: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    doc: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=doc, description=doc[0].upper() + doc[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def info(args: argparse.Namespace) -> None:
    """Print the report in sections of aligned columns."""
    print("\n".join(report()))


def run(args: argparse.Namespace) -> None:
    """Run a program with tensorgrad as its ``torch``. What it raises is its own affair and comes out as it is."""
    from .script.run import run as run_program

    run_program(args.target, args.arguments, module=args.module)


def check(args: argparse.Namespace) -> int:
    """Print what is missing, a line each; the exit status is 1 if anything is."""
    from .script.check import check as check_paths

    found = check_paths([Path(path) for path in args.paths])
    for line in found.lines():
        print(line)
    return 1 if found.missing else 0


def warmup(args: argparse.Namespace) -> None:
    """Compile what the device's backend may need, on all processors. Raises DeviceError where there is no device."""
    from .backends import registry
    from .device import as_device
    from .dtypes import as_dtype

    place = as_device(args.device)
    dtypes = tuple(as_dtype(name).name for name in args.dtypes)
    jobs = registry.on_device(place).ahead(dtypes, place.index)
    if not jobs:
        print(f"{place}: its kernels are compiled when the package is built; there is nothing to do.")
        return
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(compile): name for name, compile in jobs}
        try:
            for done in _shown(as_completed(running), len(jobs), f"compiling for {place}"):
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"{place}: {len(jobs)} kernels compiled or found in {time.perf_counter() - start:.1f} s.")


def _shown(steps: Iterable[Any], count: int, what: str) -> Iterator[Any]:
    """The steps as they come, with a bar on the terminal if rich is installed."""
    if importlib.util.find_spec("rich") is None:
        yield from steps
        return
    with importlib.import_module("rich.progress").Progress(transient=True, auto_refresh=False) as bar:
        task = bar.add_task(what, total=count)
        for step in steps:
            bar.update(task, advance=1, refresh=True)
            yield step


def report() -> list[str]:
    """The lines of ``tensorgrad info``. Raises ConfigError for an invalid setting."""
    from . import config
    from .backends import registry

    settings: list[Row] = [("setting", "value", "source", "environment")]
    settings += [(row.name, _plain(row.value), row.source, row.env) for row in config.table()]
    backends: list[Row] = [("backend", "device", "here", "note")]
    backends += [
        (name, device, "yes" if available else "no", note) for name, device, available, note in registry.status()
    ]
    return [*_columns(_machine()), "", *_columns(backends), "", *_columns(settings)]


def _machine() -> Iterable[Row]:
    import numpy

    from . import __version__

    yield "tensorgrad", f"{__version__} ({Path(__file__).parent})"
    yield "python", f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    yield "numpy", numpy.__version__
    yield "system", platform.platform()
    yield from _kernels()
    yield "gpu", _gpu()


def _kernels() -> Iterable[Row]:
    """What the C++ kernels run on; where they are not there, one line with the reason."""
    from .backends.cpp.backend import extension

    try:
        kernels = extension()
    except ImportError as error:
        yield "kernels", f"none: {error}"
        return
    yield "processor", f"{platform.machine()}, {' '.join(importlib.import_module('tensorgrad._cpu').features())}"
    yield "kernels", f"C++ for {kernels.isa()}"
    yield "threads", str(kernels.num_threads())
    yield "blas", kernels.blas_info()


def _gpu() -> str:
    """What the backends of other devices than the CPU say of it."""
    from .backends import registry

    notes = [note for _, device, available, note in registry.status() if device == "cuda" and available]
    return "; ".join(notes) or "none in use (see the backends below)"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _columns(rows: Iterable[Row]) -> list[str]:
    """Rows as lines whose columns start below each other."""
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
