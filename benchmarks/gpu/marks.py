"""The marks that the project has set itself on a GPU: met or missed, and by how much."""

from __future__ import annotations

from typing import Any

__all__ = ["marks"]

BANDWIDTH = 0.85  # of a copy's
# workload, whose step, beside whose, at least how many times as fast
FASTER = (
    ("gpt2-bf16", "tensorgrad-compile", "torch-compile", 1.0),
    ("gpt2-bf16", "tensorgrad-compile", "torch", 1.5),
    ("gpt2-bf16", "tensorgrad", "torch", 1.0),
    ("resnet50-bf16", "tensorgrad", "torch", 1.0),
    ("resnet50-tf32", "tensorgrad", "torch", 1.0),
)


def marks(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """By mark: what is wanted, what was reached, ``met`` (None if it was not measured)."""
    found = {part: one.get("result", {}) for part, one in parts.items()}
    return [
        _tests(found.get("tests", {})),
        _sanitizer(found.get("sanitizer", {})),
        *_bandwidth(found.get("kernels", {}).get("rows", {})),
        *(_faster(found.get("large", {}).get(mark[0], {}), *mark) for mark in FASTER),
    ]


def _mark(name: str, wanted: str, reached: str, met: bool | None) -> dict[str, Any]:
    return {"mark": name, "wanted": wanted, "reached": reached, "met": met}


def _tests(result: dict[str, Any]) -> dict[str, Any]:
    if "failed" not in result or "error" in result:
        return _mark("tests on the device", "all pass", "not run", None)
    whole = not result["over"] and "died" not in result
    reached = f"{result['passed']} passed, {result['failed']} failed{'' if whole else ', the rest not run'}"
    return _mark("tests on the device", "all pass", reached, False if result["failed"] else (True if whole else None))


def _sanitizer(result: dict[str, Any]) -> dict[str, Any]:
    if result.get("errors") is None:
        return _mark("compute-sanitizer", "no error", "not run", None)
    reached = f"{result['errors']} errors in {result['passed']} tests"
    return _mark("compute-sanitizer", "no error", reached, result["errors"] == 0 and result["passed"] > 0)


def _bandwidth(rows: dict[str, Any]) -> list[dict[str, Any]]:
    shares = {
        name: row["share"]["tensorgrad"]
        for name, row in rows.items()
        if name != "copy" and row.get("bytes") and "tensorgrad" in row.get("share", {})
    }
    wanted = f"{BANDWIDTH:.0%} of a copy's bandwidth"
    if not shares:
        return [_mark("kernels bound by memory", wanted, "not run", None)]
    return [_mark(name, wanted, f"{share:.0%}", share >= BANDWIDTH) for name, share in shares.items()]


def _faster(result: dict[str, Any], name: str, ours: str, theirs: str, least: float) -> dict[str, Any]:
    ratio = result.get("times_faster", {}).get(f"{ours} than {theirs}")
    reached = "not measured" if ratio is None else f"{ratio:.2f}x"
    return _mark(f"{name}: {ours} beside {theirs}", f"{least:.1f}x", reached, None if ratio is None else ratio >= least)
