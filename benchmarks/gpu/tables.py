"""The results of ``benchmarks.gpu`` as tables for the terminal."""

from __future__ import annotations

from typing import Any

from benchmarks.report import print_table, seconds

__all__ = ["not_run", "show", "show_marks", "wrong"]


_UNITS = (
    ("tokens_s", "tokens/s"), ("images_s", "images/s"), ("tflops", "TFLOP/s"), ("peak_mb", "MB at most"),
    ("first_step_s", "s for the first step"),
)  # fmt: skip


def show(part: str, found: dict[str, Any]) -> None:
    """Print a part as soon as it is done."""
    title = f"{part}: {found['seconds_taken']} s"
    result = found.get("result", found)
    if "error" in found:
        title += f"; {found['error']}"  # and what there was before it
    if "result" not in found or "error" in result:
        print(f"\n{title}" + (f"; {result['error']}" if "result" in found else ""))
    elif part == "tests":
        _tests(title, result)
    elif part == "sanitizer":
        print(f"\n{title}; {result['errors']} errors in {result['passed']} tests{_stopped(result)}")
        for line in result["first"] if result["errors"] else []:
            print(f"  {line}")
    elif part == "kernels":
        _kernels(title, result)
    else:
        _training(title, result)


def _stopped(result: dict[str, Any]) -> str:
    return "; stopped, its time was over" if result["over"] else ""


def _tests(title: str, result: dict[str, Any]) -> None:
    counts = ", ".join(f"{result[kind]} {kind}" for kind in ("passed", "failed", "skipped"))
    print(f"\n{title}; {counts}{_stopped(result)}")
    if "died" in result:
        print(f"  {result['died']}")
    for line in result["failures"][:20]:
        print(f"  {line}")
    for line in result["why_skipped"]:
        print(f"  skipped: {line}")


def _kernels(title: str, result: dict[str, Any]) -> None:
    reached = [
        f"{name} {rate / 1e12:.3g} {'TB/s' if name == 'copy' else 'TFLOP/s'}"
        for name, rate in result["ceilings"].items()
    ]
    frameworks = list(dict.fromkeys(f for row in result["rows"].values() for f in row.get("seconds", ())))
    rows = []
    for name, row in result["rows"].items():
        if not row.get("seconds"):
            continue  # it is among what was not run
        cells = []
        for framework in frameworks:
            spent, share = row.get("seconds", {}).get(framework), row.get("share", {}).get(framework)
            cells += ["" if spent is None else seconds(spent), "" if share is None else f"{100 * share:.0f} %"]
        rows.append([name, *cells])
    head = ["operation", *(cell for f in frameworks for cell in (f, "of ceiling"))]
    print_table(head, rows, f"{title}; ceilings: {', '.join(reached)}")
    for name, row in result["rows"].items():
        for framework, words in row.get("errors", {}).items():
            print(f"  {name}, {framework}: {words}")


def _training(title: str, result: dict[str, Any]) -> None:
    frameworks = list(next(iter(result.values()), {"frameworks": {}})["frameworks"])
    rows, notes = [], []
    for name, one in result.items():
        cells = []
        for framework in frameworks:
            found = one["frameworks"][framework]
            cells.append("" if "error" in found else seconds(found["median_ms"] / 1e3))
            if "error" in found:
                notes.append(f"  {name}, {framework}: {found['error']}")
            if "tokens_s" in found or "images_s" in found:
                told = [f"{_digits(found[key])} {unit}" for key, unit in _UNITS if found.get(key)]
                notes.append(f"  {name}, {framework}: {', '.join(told)}")
        apart = one["losses_apart"]
        rows.append([name, *cells, "" if apart is None else f"{apart:.1e}"])
        if one["times_faster"]:
            ratios = ", ".join(f"{pair} {ratio:.2f}" for pair, ratio in one["times_faster"].items())
            notes.append(f"  {name}, times as fast: {ratios}")
    print_table(["workload", *frameworks, "losses apart"], rows, title)
    for line in notes:
        print(line)


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def show_marks(found: list[dict[str, Any]], title: str = "marks") -> None:
    """Print each mark with its verdict."""
    verdicts = {True: "met", False: "MISSED", None: "not known"}
    rows = [[mark["mark"], mark["wanted"], mark["reached"], verdicts[mark["met"]]] for mark in found]
    print_table(["mark", "wanted", "reached", ""], rows, title)


def not_run(parts: dict[str, Any]) -> list[str]:
    """What of the parts did not fit, or could not be run."""
    missing = []
    for part, found in parts.items():
        result = found.get("result", found)
        if "error" in found and "result" in found:
            missing.append(f"the rest of {part} ({found['error']})")
        if "error" in result:
            missing.append(f"{part} ({result['error']})")
        elif result.get("over") or "died" in result:
            missing.append(f"the rest of {part}")
        elif part == "kernels":
            missing += [f"{part} {name}" for name, row in result["rows"].items() if not row.get("seconds")]
        elif part in ("large", "small"):
            missing += [
                f"{name} by {framework}"
                for name, one in result.items()
                for framework, how in one["frameworks"].items()
                if "error" in how
            ]
    return missing


def wrong(parts: dict[str, Any]) -> bool:
    """Whether anything was found to be wrong, as opposed to slow or left out."""
    results = [found["result"] for found in parts.values() if "result" in found]
    if any("raised" in found for found in parts.values()):
        return True
    return any(result.get("failed") or result.get("errors") for result in results)
