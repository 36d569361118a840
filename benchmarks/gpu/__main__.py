"""``python -m benchmarks.gpu [--json FILE] [--parts ...] [--minutes 7.5] [--batch 16] [--context 1024] [--dry]``."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.__main__ import NAMES
from benchmarks.frameworks import FRAMEWORKS, installed
from benchmarks.gpu import card, correctness, kernels, models, tables, training
from benchmarks.gpu.kernel_rows import kernel_rows
from benchmarks.gpu.marks import marks
from benchmarks.gpu.place import why_not
from benchmarks.rounds import ROOT

# part: its share of the time
SHARES = {"tests": 0.24, "large": 0.32, "kernels": 0.10, "small": 0.26, "sanitizer": 0.08}
COMPILED = ("tensorgrad", "tensorgrad-compile", "torch", "torch-compile")
EAGER = ("tensorgrad", "torch")
ENOUGH_FOR_SIXTEEN = 100 << 30  # bytes of the card, for GPT-2's batch

Note = Callable[[dict[str, Any]], None]
Work = Callable[[float, Note], dict[str, Any]]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="tensorgrad on a GPU, beside PyTorch on the same card."
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write all numbers there, while they come (benchmarks/results/DATE-gpu-CARD.json)",
    )
    parser.add_argument("--show", metavar="FILE", help="print the tables of such a file, and measure nothing")
    parser.add_argument("--parts", default=",".join(SHARES), help=f"by commas: {', '.join(SHARES)} (all)")
    parser.add_argument("--minutes", type=float, default=7.5, help="time for all parts together (7.5)")
    parser.add_argument("--batch", type=int, help="of GPT-2 (16; 8 on cards of less than 100 GB)")
    parser.add_argument("--context", type=int, default=1024, help="of GPT-2 (1024)")
    parser.add_argument("--workloads", default=",".join((*models.MODELS, *NAMES)), help="by commas (all)")
    parser.add_argument(
        "--dry", action="store_true", help="toy sizes on a stand-in for the GPU: shows that it runs, and nothing else"
    )
    args = parser.parse_args(argv)
    args.parts, args.workloads = args.parts.split(","), args.workloads.split(",")
    for given, known in ((args.parts, list(SHARES)), (args.workloads, [*models.MODELS, *NAMES])):
        for name in given:
            if name not in known:
                parser.error(f"nothing is called {name!r}; there are: {', '.join(known)}")
    if args.minutes <= 0 or args.context < 1 or (args.batch is not None and args.batch < 1):
        parser.error("--minutes, --batch and --context must be positive")
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.show:
        return show(json.loads(Path(args.show).read_text()))
    reason = why_not()
    if reason is not None and not args.dry:
        print(f"no GPU to measure on: {reason}", file=sys.stderr)
        return 2
    start = time.monotonic()
    found = card.describe() if not args.dry else {"name": "none: a dry run on a stand-in"}
    result: dict[str, Any] = {"environment": report.environment(os.cpu_count() or 1) | {"gpu": found}, "parts": {}}
    result["environment"]["missing"] = card.missing(args.dry)
    result["dry"] = args.dry
    path = args.json or (None if args.dry else _free_path(result["environment"]["date"], found["name"]))
    introduce(result)
    run(args, result, path, start + 60 * args.minutes)
    result["seconds"] = round(time.monotonic() - start, 1)
    try:
        return conclude(result)
    finally:
        if path:
            report.write_json(path, result)


def run(args: argparse.Namespace, result: dict[str, Any], path: str | None, end: float) -> None:
    """Each part in its share of the time; what it has found so far is in ``result`` and at ``path`` whenever the run
    is cut off, and one that raises keeps none of the others from running."""
    waiting = [part for part in SHARES if part in args.parts]
    works = _works(args, result["environment"]["gpu"])
    while waiting:
        part = waiting.pop(0)
        # what earlier parts have left over, later ones have more
        seconds = (end - time.monotonic()) * SHARES[part] / (SHARES[part] + sum(SHARES[other] for other in waiting))
        began = time.monotonic()
        found = result["parts"][part] = {"error": "cut off", "seconds_taken": 0.0}

        def note(so_far: dict[str, Any], found: dict[str, Any] = found) -> None:
            found["result"] = so_far
            if path:
                report.write_json(path, result, quiet=True)

        if seconds < 1:
            found["error"] = "not run: the time was over"
        else:
            found["seconds_given"] = round(seconds, 1)
            with _going_on(found):
                found["result"] = works[part](seconds, note)
                del found["error"]
            found |= {"error": found["raised"]} if "raised" in found else {}
        found["seconds_taken"] = round(time.monotonic() - began, 1)
        with _going_on(found):
            tables.show(part, found)
        sys.stdout.flush()
        if path:
            report.write_json(path, result, quiet=True)


@contextmanager
def _going_on(found: dict[str, Any]) -> Iterator[None]:
    """What raises within the block is printed and makes the run fail; the other parts go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is printed, and the run fails
        traceback.print_exc()
        found["raised"] = f"raised {type(error).__name__}: {error}"


def introduce(result: dict[str, Any]) -> None:
    """What is measured, and what is not here."""
    where = result["environment"]
    print(f"{where['gpu']['name']}, {where['date']}; " + ", ".join(f"{k} {v}" for k, v in where["versions"].items()))
    told = [f"{name} {what}" for name, what in where["gpu"].items() if name != "name"]
    if told:
        print(f"  {', '.join(told)}")
    for line in where.get("missing", ()):
        print(f"  {line}")


def conclude(result: dict[str, Any]) -> int:
    """The marks and what was not run; 1 if something was found to be wrong."""
    found = marks(result["parts"])
    if result.get("dry"):
        tables.show_marks(found, "marks, of toys on a stand-in: they mean nothing")
    else:
        result["marks"] = found
        tables.show_marks(found)
    missing = tables.not_run(result["parts"])
    print(f"\n{result.get('seconds', '?')} s; not run: {'; '.join(missing) if missing else 'nothing'}")
    return 1 if tables.wrong(result["parts"]) else 0


def show(result: dict[str, Any]) -> int:
    """The tables of a run that was written down, whole or cut off."""
    introduce(result)
    for part, found in result["parts"].items():
        tables.show(part, found)
    return conclude(result)


def _free_path(date: str, name: str) -> str:
    """In the folder of results, and nobody's yet."""
    called = re.sub(r"[^a-z0-9]+", "-", name.lower().replace("nvidia", "")).strip("-")
    base = ROOT / "benchmarks" / "results" / f"{date[:10]}-gpu-{called}"
    path, count = Path(f"{base}.json"), 1
    while path.exists():
        count += 1
        path = Path(f"{base}-{count}.json")
    return str(path)


def _works(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, Work]:
    """By part: what does it in so many seconds, and notes what it has so far."""
    batch = args.batch or (16 if found.get("memory", 0) >= ENOUGH_FOR_SIXTEEN else 8)
    size = {} if args.dry else {"batch": batch, "context": args.context}
    cores = os.cpu_count() or 1
    options = training.Options(
        "stand-in" if args.dry else "cuda", toy=args.dry, size=size, threads=max(1, min(4, cores // 4)),
        at_once=max(2, min(8, cores // 2)),
    )  # fmt: skip
    compiled, eager = (
        [name for name in group if installed(FRAMEWORKS[name]) and not (args.dry and name == "torch-compile")]
        for group in (COMPILED, EAGER)
    )  # a dry run has no use for waiting for a compiler
    large = [name for name in args.workloads if name in models.MODELS]
    small = [name for name in args.workloads if name not in models.MODELS]
    select = "exp- or Linear" if args.dry else ""
    return {
        "tests": lambda seconds, note: correctness.run_tests(seconds, select),
        "large": lambda seconds, note: _large(large, compiled, options, seconds, note),
        "kernels": lambda seconds, note: kernel_rows(eager, options, seconds, list(kernels.ROWS), note),
        "small": lambda seconds, note: training.train(small, compiled, options, seconds, note),
        "sanitizer": lambda seconds, note: (
            correctness.sanitize(seconds, correctness.UNSANITIZED, "softmax-rows")
            if args.dry
            else correctness.sanitize(seconds)
        ),
    }


def _large(
    names: list[str], frameworks: list[str], options: training.Options, seconds: float, note: Note | None = None
) -> dict[str, Any]:
    """The large networks, with what a step of GPT-2 amounts to."""

    def rated(measured: dict[str, Any]) -> None:
        for name, one in measured.items():
            for framework in one["frameworks"].values():
                if "median_ms" in framework:
                    framework.update(_rates(name, framework["median_ms"], options))
        if note is not None:
            note(measured)

    return training.train(names, frameworks, options, seconds, rated)


def _rates(name: str, median_ms: float, options: training.Options) -> dict[str, float]:
    _, full, toy = models.MODELS[name]
    what = toy if options.toy else full
    if not name.startswith("gpt2"):
        return {"images_s": what.batch / median_ms * 1e3}
    sized = models.Gpt2(**{**what.__dict__, **options.size})
    return {"tokens_s": sized.batch * sized.context / median_ms * 1e3, "tflops": sized.flops() / median_ms * 1e-9}


if __name__ == "__main__":
    sys.exit(main())
