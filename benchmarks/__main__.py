"""``python -m benchmarks [names] [--more] [--peers torch,jax] [--ops [--sizes 1e2,1e4]] [--conv] [--check] ...``."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from dataclasses import asdict
from typing import Any

from benchmarks import accuracy, conv, neighbour, report, rounds, startup
from benchmarks.frameworks import FRAMEWORKS, installed, load
from benchmarks.more_workloads import MORE
from benchmarks.ops import SIZES
from benchmarks.ops import rows as op_rows

NAMES = ("tiny", "mlp", "cnn", "resnet18", "gpt-micro", "gpt", "lstm", "chain")
TOLERANCE = 1e-3
TOLERANCE_DOUBLE = 1e-9


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="tensorgrad beside other frameworks, in turn, on this machine."
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"workloads, all unless told: {', '.join(NAMES)}")
    parser.add_argument("--more", action="store_true", help=f"those nobody tuned for: {', '.join(MORE)}")
    parser.add_argument(
        "--peers", default="torch", help=f"whom to compare with, by commas: {', '.join(list(FRAMEWORKS)[1:])} (torch)"
    )
    parser.add_argument("--us", default="tensorgrad", choices=list(FRAMEWORKS), help="who the ratios are of")
    parser.add_argument("--steps", type=int, help="steps of each framework (as many as fit in a few seconds)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each framework (2)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, with date, machine and versions")
    parser.add_argument("--ops", action="store_true", help="single ops of several sizes, forward and with backward")
    parser.add_argument(
        "--sizes", help="with --ops: numbers of elements, by commas (1e2,1e4,1e6,1e7 and rows of one size)"
    )
    parser.add_argument(
        "--conv", action="store_true", help=f"convolutions, forward and both gradients; names: {', '.join(conv.MODELS)}"
    )
    parser.add_argument("--batches", default="1,16,64", help="with --conv: batch sizes, by commas (1,16,64)")
    parser.add_argument("--overhead", action="store_true", help="what one small recorded op costs")
    parser.add_argument("--startup", action="store_true", help="import time, memory, size on disk")
    parser.add_argument("--accuracy", action="store_true", help="errors in ulp against float64; names: families")
    parser.add_argument("--neighbour", action="store_true", help="how steps slow while another process has one core")
    parser.add_argument(
        "--check", action="store_true", help="compare the first five losses from the same weights instead of timing"
    )
    parser.add_argument(
        "--double",
        action="store_true",
        help="with --check: in float64, to 1e-9. In float32 a ReLU whose input rounds across zero sends deep networks "
        "apart (resnet18: 1e-3 after 4 steps), in PyTorch against itself too",
    )
    args = parser.parse_args(argv)
    if args.double and not args.check:
        parser.error("--double goes with --check: timings are of float32")
    if args.sizes is not None and not args.ops:
        parser.error("--sizes goes with --ops")
    try:
        args.sizes = None if args.sizes is None else [int(float(size)) for size in args.sizes.split(",")]
    except ValueError:
        parser.error(f"--sizes: {args.sizes!r} are not numbers")
    if args.sizes is not None and min(args.sizes) < 16:
        parser.error("--sizes must be at least 16")
    args.peers = [name for name in args.peers.split(",") if name]
    known = (
        [row.name for row in op_rows()] if args.ops
        else list(conv.MODELS) if args.conv
        else list(accuracy.FAMILIES) if args.accuracy
        else [*NAMES, *MORE]
    )  # fmt: skip
    for name in args.names:
        if name not in known:
            parser.error(f"nothing is called {name!r}; there are: {', '.join(known)}")
    if not args.names and not (args.ops or args.conv or args.accuracy):
        args.names = list(MORE if args.more else neighbour.WORKLOADS if args.neighbour else NAMES)
    if args.neighbour and not hasattr(os, "sched_setaffinity"):
        parser.error("--neighbour needs a system where a process can be pinned to a core (Linux)")
    if not all(part.isdigit() and int(part) > 0 for part in args.batches.split(",")):
        parser.error(f"--batches needs numbers of at least 1, by commas, got {args.batches!r}")
    for name in args.peers:
        if name not in FRAMEWORKS:
            parser.error(f"no peer is called {name!r}; there are: {', '.join(list(FRAMEWORKS)[1:])}")
    if args.threads < 1 or (args.steps is not None and args.steps < 1):
        parser.error("--threads and --steps must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    frameworks = []
    for name in dict.fromkeys([args.us, *args.peers]):
        if installed(FRAMEWORKS[name]):
            frameworks.append(name)
        else:
            print(f"{name}: {FRAMEWORKS[name].module} is not installed, left out")
    result: dict[str, Any] = {"environment": report.environment(args.threads)}
    print(f"{result['environment']['cpu']}, {args.threads} threads each; " + versions(result, frameworks))
    ok = True
    if args.check:
        ok = check(args, frameworks, result)
    elif args.ops:
        ok = ops(args, frameworks, result)
    elif args.conv:
        ok = convolutions(args, frameworks, result)
    elif args.accuracy:
        ok = accuracies(args, frameworks, result)
    elif args.neighbour:
        ok = beside_neighbour(args, frameworks, result)
    elif args.overhead or args.startup:
        if args.overhead:
            ok = overhead(args, frameworks, result)
        if args.startup:
            start(result)
    else:
        ok = steps(args, frameworks, result)
    if args.json:
        report.write_json(args.json, result)
    return 0 if ok else 1


def versions(result: dict[str, Any], frameworks: list[str]) -> str:
    modules = dict.fromkeys(FRAMEWORKS[name].module for name in frameworks)
    return ", ".join(f"{module} {result['environment']['versions'][module]}" for module in modules)


def steps(args: argparse.Namespace, frameworks: list[str], result: dict[str, Any]) -> bool:
    """Training steps: medians, how many times faster we are, peak memory, the first step."""
    peers = [name for name in frameworks if name != args.us]
    head = ["workload", *frameworks, *(f"x {name}" for name in peers), *(f"MB {name}" for name in frameworks)]
    head += [f"1st {name}" for name in frameworks]
    table, notes = [], []
    result["workloads"] = {}
    for name in args.names:
        measured = {m.name: m for m in rounds.workload(name, frameworks, args.threads, args.steps)}
        good = {key: m for key, m in measured.items() if m.error is None}
        ratios = {p: rounds.ratio(good[p], good[args.us]) for p in peers if p in good and args.us in good}
        row = [name, *(report.seconds(good[f].median_s) if f in good else "-" for f in frameworks)]
        row += [f"{ratios[peer]:.2f}" if peer in ratios else "-" for peer in peers]
        row += [f"{good[f].peak_mb:.0f}" if f in good else "-" for f in frameworks]
        row += [report.seconds(good[f].first_step_s) if f in good else "-" for f in frameworks]
        table.append(row)
        notes += [f"{name}, {m.name}: {m.error}" for m in measured.values() if m.error]
        medians = ", ".join(f"{f} {cell}" for f, cell in zip(frameworks, row[1:], strict=False))
        print(f"  {name}: {medians}", flush=True)
        result["workloads"][name] = {
            "ratios": ratios,
            "frameworks": {
                m.name: {"error": m.error}
                if m.error
                else {
                    "median_s": m.median_s,
                    "best_s": min(min(block) for block in m.blocks),
                    "steps": sum(map(len, m.blocks)),
                    "first_step_s": m.first_step_s,
                    "peak_mb": m.peak_mb,
                    "import_mb": m.import_mb,
                }
                for m in measured.values()
            },
        }
    report.print_table(head, table, f"Training steps: medians, x = times faster than, peak memory (of {args.us} first)")
    for note in notes:
        print(note)
    return not notes


def check(args: argparse.Namespace, frameworks: list[str], result: dict[str, Any]) -> bool:
    """The first five losses from equal weights, compared with those of the last framework named."""
    ok = True
    result["check"] = {}
    for name, measured in rounds.losses(args.names, frameworks, args.threads, double=args.double).items():
        good = [m for m in measured if m.error is None]
        result["check"][name] = {m.name: m.error or m.losses for m in measured}
        print(f"\n{name}")
        for m in measured:
            if m.error is not None:
                print(f"  {m.name:17} {m.error}")
                ok = False
                continue
            reference = good[-1].losses
            worst = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(m.losses, reference, strict=True))
            fits = worst <= (TOLERANCE_DOUBLE if args.double else TOLERANCE)  # a NaN fits nothing
            ok = ok and fits
            print(f"  {m.name:17} {' '.join(f'{x:.6f}' for x in m.losses)}  {worst:.1e}{'' if fits else '  DIFFERS'}")
    return ok


def ops(args: argparse.Namespace, frameworks: list[str], result: dict[str, Any]) -> bool:
    """Single ops: a line per op and peer, columns of sizes, forward and with backward; then all cells that lose."""
    jax = [name for name in frameworks if FRAMEWORKS[name].module == "jax" or FRAMEWORKS[name].compiled]
    frameworks = [name for name in frameworks if name not in jax]
    if jax:
        print(f"left out of --ops, whose rows are eager and in PyTorch's style: {', '.join(jax)}")
    asked = [row for row in op_rows() if not args.names or row.name in args.names]
    jobs = [
        (row.name, size, backward)
        for row in asked
        for size in ((args.sizes or SIZES) if not row.fixed else (0,) if args.sizes is None or args.names else ())
        for backward in ((False, True) if row.backward else (False,))
    ]
    peers = [name for name in frameworks if name != args.us]
    cells: list[dict[str, Any]] = []
    notes = []
    for (name, size, backward), answers in rounds.in_turn(
        frameworks,
        args.threads,
        jobs,
        lambda p, job: p.ask("prepare_op", name=job[0], size=job[1], backward=job[2]),
    ):
        times = {f: answer["s"] for f, answer in answers.items() if answer.get("s")}
        shapes: list[list[int]] = next((answer["shapes"] for answer in answers.values() if "shapes" in answer), [])
        ratios = {p: rounds.ratio_of_turns(times[p], times[args.us]) for p in peers if p in times and args.us in times}
        cell = {
            "op": name, "size": size, "backward": backward, "shapes": shapes, "ratios": ratios,
            "seconds": {f: statistics.median(turns) for f, turns in times.items()},
        }  # fmt: skip
        cells.append(cell)
        notes += [f"{_cell_name(cell)}, {f}: {answer['error']}" for f, answer in answers.items() if "error" in answer]
        line = "  ".join(f"{f} {report.seconds(s)}" for f, s in cell["seconds"].items())
        print(f"  {_cell_name(cell)}: {line}", flush=True)
    result["ops"] = cells
    for peer in peers:
        _print_ratios(cells, peer)
    for note in notes:
        print(note)
    return not notes


def convolutions(args: argparse.Namespace, frameworks: list[str], result: dict[str, Any]) -> bool:
    """The layers of well-known networks: milliseconds, and GFLOP/s of ours."""
    frameworks = [name for name in frameworks if FRAMEWORKS[name].module != "jax" and not FRAMEWORKS[name].compiled]
    peers = [name for name in frameworks if name != args.us]
    models = args.names or [name for name in conv.MODELS if name != "quick"]
    jobs = conv.jobs(models, [int(part) for part in args.batches.split(",")])
    table, notes = [], []
    result["conv"] = []
    for job, answers in rounds.in_turn(
        frameworks, args.threads, jobs, lambda p, job: p.ask("prepare_conv", **conv.command(job))
    ):
        layer, batch, kind = job
        turns = {f: answer["s"] for f, answer in answers.items() if answer.get("s")}
        times = {f: statistics.median(s) for f, s in turns.items()}
        ratios = {p: rounds.ratio_of_turns(turns[p], turns[args.us]) for p in peers if p in turns and args.us in turns}
        row = [str(layer), str(batch), kind, *(f"{times[f] * 1e3:.3f}" if f in times else "-" for f in frameworks)]
        row += [f"{ratios[p]:.2f}" if p in ratios else "-" for p in peers]
        row.append(f"{layer.flops() * batch / times[args.us] / 1e9:.0f}" if args.us in times else "-")
        table.append(row)
        notes += [f"{layer}, batch {batch}, {kind}, {f}: {a['error']}" for f, a in answers.items() if "error" in a]
        result["conv"].append({"layer": str(layer), "batch": batch, "kind": kind, "seconds": times, "ratios": ratios})
    head = ["layer", "batch", "kind", *(f"{f} ms" for f in frameworks), *(f"x {p}" for p in peers), "GFLOP/s"]
    report.print_table(head, table, "Convolutions: milliseconds, x = times faster than, GFLOP/s of the direct sum")
    for peer in peers:
        behind = [entry for entry in result["conv"] if entry["ratios"].get(peer, 1.0) < 1.0]
        print(f"\n{len(behind)} of {len(jobs)} slower than {peer}")
    for note in notes:
        print(note)
    return not notes


LOSING = 0.9  # slower than a peer by more than 10 %


def _cell_name(cell: dict[str, Any]) -> str:
    """ "sort 1e6 + backward" """
    size = f" {cell['size']:.0e}".replace("e+0", "e") if cell["size"] else ""
    return f"{cell['op']}{size}{' + backward' if cell['backward'] else ''}"


def _print_ratios(cells: list[dict[str, Any]], peer: str) -> None:
    columns = sorted({(cell["size"], cell["backward"]) for cell in cells})
    found = {(cell["op"], cell["size"], cell["backward"]): cell["ratios"].get(peer) for cell in cells}
    head = ["op", *(f"{f'{size:.0e}'.replace('e+0', 'e') if size else 'own'}{' +b' * back}" for size, back in columns)]
    table = []
    for name in dict.fromkeys(cell["op"] for cell in cells):
        ratios = [found.get((name, *column)) for column in columns]
        table.append([name, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
    report.print_table(head, table, f"Single ops: times faster than {peer} (+b: with backward)")
    losers = sorted(
        (cell for cell in cells if cell["ratios"].get(peer, 1.0) < LOSING), key=lambda cell: cell["ratios"][peer]
    )
    print(f"\n{len(losers)} of {sum(peer in cell['ratios'] for cell in cells)} cells below {LOSING}")
    for cell in losers:
        times = ", ".join(f"{f} {report.seconds(s)}" for f, s in cell["seconds"].items())
        print(f"  {cell['ratios'][peer]:.2f}  {_cell_name(cell)}  ({times})")


def overhead(args: argparse.Namespace, frameworks: list[str], result: dict[str, Any]) -> bool:
    """One small recorded op, forward and backward, out of a chain of a thousand additions of eight numbers."""
    frameworks = [name for name in frameworks if FRAMEWORKS[name].module != "jax" and not FRAMEWORKS[name].compiled]
    ((_, answers),) = rounds.in_turn(
        frameworks, args.threads, ["chain"], lambda p, job: p.ask("prepare_op", name=job, size=0, backward=True)
    )
    times = {f: statistics.median(answer["s"]) / 1000 for f, answer in answers.items() if answer.get("s")}
    result["overhead"] = times
    table = [[f, f"{t * 1e6:.2f}"] for f, t in times.items()]
    report.print_table(["framework", "us"], table, "One small recorded op, forward and backward (chain of 1,000 adds)")
    for f, answer in answers.items():
        if "error" in answer:
            print(f"{f}: {answer['error']}")
    return len(times) == len(frameworks)


def accuracies(args: argparse.Namespace, frameworks: list[str], result: dict[str, Any]) -> bool:
    """Errors in ulp against float64, in this one process: nothing is timed."""
    eager = [name for name in frameworks if name in ("tensorgrad", "torch")]
    loaded = {name: load(FRAMEWORKS[name], args.threads) for name in eager}
    reference = loaded.get("torch", loaded[args.us])
    table, notes = [], []
    result["accuracy"] = []
    for row in accuracy.rows():
        if args.names and row.family not in args.names:
            continue
        errors = accuracy.measure(row, loaded, reference)
        behind = [p for p in eager if p != args.us and accuracy.worse(row, errors[args.us], errors[p])]
        cells = [f"{errors[f].most:.3g}" for f in eager] + [f"{errors[f].mean:.3g}" for f in eager]
        table.append([row.family, row.name, *cells, "worse" if behind else ""])
        numbers = {f: {"max": e.most, "mean": e.mean} for f, e in errors.items()}
        result["accuracy"].append({"family": row.family, "name": row.name, "ulp": numbers, "worse_than": behind})
        if behind:
            notes.append(f"{row.family}, {row.name}: less exact than {', '.join(behind)}")
    head = ["family", "row", *(f"max {f}" for f in eager), *(f"mean {f}" for f in eager), ""]
    report.print_table(head, table, "Errors in ulp against float64")
    for note in notes:
        print(note)
    return not notes


def beside_neighbour(args: argparse.Namespace, frameworks: list[str], result: dict[str, Any]) -> bool:
    """Steps while another process spins on one of the cores: how many times longer than without it."""
    table, notes = [], []
    result["neighbour"] = {}
    for name in args.names:
        measured = neighbour.measure(name, frameworks, args.threads)
        good = [m for m in measured if m.error is None]
        notes += [f"{name}, {m.name}: {m.error}" for m in measured if m.error]
        for m in good:
            quiet, busy = statistics.median(m.quiet), statistics.median(m.busy)
            row = [report.seconds(quiet), report.seconds(busy), f"{m.slowdown:.2f}", f"{m.worst:.2f}"]
            table.append([name, m.name, *row])
            print(f"  {name}, {m.name}: {m.slowdown:.2f}", flush=True)
        result["neighbour"][name] = {
            m.name: {
                "quiet_s": statistics.median(m.quiet),
                "busy_s": statistics.median(m.busy),
                "slowdown": m.slowdown,
                "slowdown_95": m.worst,
            }
            for m in good
        }
    head = ["workload", "framework", "alone", "beside", "x", "x, 95th"]
    report.print_table(head, table, "Steps alone and beside a process that spins on one of the cores (medians)")
    for note in notes:
        print(note)
    return not notes


def start(result: dict[str, Any]) -> None:
    measured = startup.measure()
    result["startup"] = [asdict(m) for m in measured]
    table = [[m.module, f"{m.import_s:.3f}", f"{m.peak_mb:.0f}", f"{m.installed_mb:.1f}"] for m in measured]
    report.print_table(["module", "import s", "peak MB", "installed MB"], table, "Before the first step")


if __name__ == "__main__":
    sys.exit(main())
