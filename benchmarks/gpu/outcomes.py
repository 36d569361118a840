"""A plugin for pytest (``-p benchmarks.gpu.outcomes``): writes down each test's outcome when it is known, and ends the
run between two tests when its time is over.

A run that is cut off, or whose process dies, leaves what it has found, and a tool around it has time for its summary.
``BENCHMARK_OUTCOMES`` names the file, ``BENCHMARK_UNTIL`` is the end in seconds since the epoch.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["counted"]


def _note(**line: Any) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # under xdist every report comes to the process that started the others
        with open(os.environ["BENCHMARK_OUTCOMES"], "a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    if time.time() > float(os.environ["BENCHMARK_UNTIL"]):
        item.session.shouldstop = "its time is over"
    return result


# Errors after which a process can't use the device any more, as CUDA's runtime, its driver and PyTorch word them.
_BROKEN = re.compile(
    "illegal (memory access|address|instruction)|ILLEGAL_ADDRESS|misaligned address|unspecified launch failure|"
    "LAUNCH_FAILED|device-side assert",
    re.IGNORECASE,
)


@pytest.hookimpl(trylast=True)  # xdist has sent the report by then
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and report.failed and _BROKEN.search(str(report.longrepr)):
        os._exit(3)  # or every test behind this one fails too; xdist starts another process
    if report.failed or report.skipped or report.when == "call":
        _note(test=report.nodeid, outcome=report.outcome, why=_why(report))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed or report.skipped:
        _note(test=report.nodeid, outcome=report.outcome, why=_why(report))


def pytest_sessionfinish(exitstatus: int) -> None:
    _note(ended=int(exitstatus))


def _why(report: Any) -> str:
    if report.passed:
        return ""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash is not None else str(report.longrepr)).strip().splitlines()
    if crash is None:  # of an import: a traceback, whose end tells
        lines = [line.removeprefix("E ").strip() for line in lines[-1:]]
    return lines[0][:200] if lines else ""


def counted(path: Path) -> dict[str, Any]:
    """What a run has left in its file. ``ended``: pytest's exit status, None if it did not come to its end."""
    outcome: dict[str, str] = {}  # a test has several reports, and one more if its process died
    why: dict[str, str] = {}
    ended = None
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # cut off in the midst of a line
            continue
        if "ended" in line:
            ended = line["ended"]
        elif outcome.get(line["test"]) != "failed":
            outcome[line["test"]], why[line["test"]] = line["outcome"], line["why"]
    kinds = list(outcome.values())
    return {
        **{kind: kinds.count(kind) for kind in ("passed", "failed", "skipped")},
        "failures": [f"{test}: {why[test]}" for test, kind in outcome.items() if kind == "failed"],
        "why_skipped": sorted({why[test] for test, kind in outcome.items() if kind == "skipped"}),
        "ended": ended,
    }
