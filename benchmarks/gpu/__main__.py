"""``python -m benchmarks.gpu [--json FILE] [--parts ...] [--minutes 7.5] [--batch 16] [--context 1024] [--dry]``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import report
from benchmarks.__main__ import NAMES
from benchmarks.frameworks import FRAMEWORKS, installed
from benchmarks.gpu import card, correctness, kernels, models, tables, training
from benchmarks.gpu.place import why_not

# part: its share of the time
SHARES = {"tests": 0.28, "large": 0.30, "kernels": 0.12, "small": 0.20, "sanitizer": 0.10}
COMPILED = ("tensorgrad", "tensorgrad-compile", "torch", "torch-compile")
EAGER = ("tensorgrad", "torch")
ENOUGH_FOR_SIXTEEN = 100 << 30  # bytes of the card, for GPT-2's batch


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="tensorgrad on a GPU, beside PyTorch on the same card."
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, after each part")
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
    reason = why_not()
    if reason is not None and not args.dry:
        print(f"no GPU to measure on: {reason}", file=sys.stderr)
        return 2
    found = card.describe() if not args.dry else {"name": "none: a dry run on a stand-in"}
    result: dict[str, Any] = {"environment": report.environment(os.cpu_count() or 1) | {"gpu": found}, "parts": {}}
    print(f"{found['name']}; " + ", ".join(f"{k} {v}" for k, v in result["environment"]["versions"].items()))
    start = time.monotonic()
    end = start + 60 * args.minutes
    waiting = [part for part in SHARES if part in args.parts]
    works = _works(args, found)
    while waiting:
        part = waiting.pop(0)
        # what earlier parts have left over, later ones have more
        seconds = (end - time.monotonic()) * SHARES[part] / (SHARES[part] + sum(SHARES[other] for other in waiting))
        began = time.monotonic()
        if seconds < 1:
            result["parts"][part] = {"error": "not run: the time was over"}
        else:
            result["parts"][part] = {"seconds_given": round(seconds, 1), "result": works[part](seconds)}
        result["parts"][part]["seconds_taken"] = round(time.monotonic() - began, 1)
        tables.show(part, result["parts"][part])
        if args.json:
            report.write_json(args.json, result)
    result["seconds"] = round(time.monotonic() - start, 1)
    if args.json:
        report.write_json(args.json, result)
    missing = tables.not_run(result["parts"])
    print(f"\n{result['seconds']} s; not run: {'; '.join(missing) if missing else 'nothing'}")
    return 1 if tables.wrong(result["parts"]) else 0


def _works(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, Callable[[float], Any]]:
    """By part: what does it in so many seconds."""
    batch = args.batch or (16 if found.get("memory", 0) >= ENOUGH_FOR_SIXTEEN else 8)
    size = {} if args.dry else {"batch": batch, "context": args.context}
    cores = os.cpu_count() or 1
    options = training.Options(
        "stand-in" if args.dry else "cuda", toy=args.dry, size=size, threads=max(1, min(4, cores // 4)),
        at_once=max(1, min(8, cores // 2)),
    )  # fmt: skip
    compiled, eager = (
        [name for name in group if installed(FRAMEWORKS[name]) and not (args.dry and name == "torch-compile")]
        for group in (COMPILED, EAGER)
    )  # a dry run has no use for waiting for a compiler
    large = [name for name in args.workloads if name in models.MODELS]
    small = [name for name in args.workloads if name not in models.MODELS]
    rows = list(kernels.ROWS)
    return {
        "tests": partial(correctness.run_tests, select="exp- or Linear" if args.dry else ""),
        "large": partial(_large, large, compiled, options),
        "kernels": lambda seconds: training.kernel_rows(eager, options, seconds, rows),
        "small": partial(training.train, small, compiled, options),
        "sanitizer": correctness.sanitize,
    }


def _large(names: list[str], frameworks: list[str], options: training.Options, seconds: float) -> dict[str, Any]:
    """The large networks, with what a step of GPT-2 amounts to."""
    measured = training.train(names, frameworks, options, seconds)
    for name, one in measured.items():
        _, full, toy = models.MODELS[name]
        what = toy if options.toy else full
        for framework in one["frameworks"].values():
            if "median_ms" not in framework:
                continue
            if name.startswith("gpt2"):
                sized = models.Gpt2(**{**what.__dict__, **options.size})
                framework["tokens_s"] = sized.batch * sized.context / framework["median_ms"] * 1e3
                framework["tflops"] = sized.flops() / framework["median_ms"] * 1e-9
            else:
                framework["images_s"] = what.batch / framework["median_ms"] * 1e3
    return measured


if __name__ == "__main__":
    sys.exit(main())
