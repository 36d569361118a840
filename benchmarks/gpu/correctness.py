"""Right before fast: the tests of ops and modules on the device, and compute-sanitizer over those of the kernels."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import ROOT

__all__ = ["TESTS", "run_tests", "sanitize"]

TESTS = ("tests/gpu/test_ops.py", "tests/gpu/test_who_attends.py", "tests/gpu/test_beside_torch.py")
"""On ``cuda`` where there is a GPU: values against float64 on the CPU, derivatives against differences, and PyTorch."""

# ops with kernels of their own in .cu files
_WITH_KERNELS = (
    "softmax", "norm", "cross_entropy", "nll", "dropout", "random", "embedding", "index_add", "scatter", "gather",
    "pool", "conv", "attention", "lstm", "gru", "sum", "mean", "adam", "sgd",
)  # fmt: skip
_LAST_WORDS = 15  # seconds that a stopped run has to say what it found


def run_tests(seconds: float, select: str = "", targets: Sequence[str] = TESTS) -> dict[str, Any]:
    """Run tests in a process of their own, on as many cores as there are; what passed, failed and was skipped."""
    for module in ("pytest", "torch"):
        if importlib.util.find_spec(module) is None:
            return {"error": f"not run: {module} is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "tests.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *targets]
        if importlib.util.find_spec("xdist") is not None:
            command += ["-n", "0" if select else str(min(16, os.cpu_count() or 1))]
        else:
            command += ["-o", "addopts="]
        if importlib.util.find_spec("pytest_timeout") is None:
            command += ["-W", "ignore::pytest.PytestConfigWarning"]
        if select:
            command += ["-k", select]
        start = time.monotonic()
        over, output = _within(command, seconds)
        found: dict[str, Any] = {"seconds": time.monotonic() - start, "over": over}
        if not report.exists():
            return found | {"error": f"pytest left no report: {output[-500:]}"}
        return found | _counts(report)


def _within(command: Sequence[str], seconds: float) -> tuple[bool, str]:
    """(whether the time was over, what the command printed): it is interrupted then, and ended soon after."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        over = False
        try:
            process.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            over = True
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=_LAST_WORDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started
                process.wait()
        output.seek(0)
        return over, output.read()


def _counts(report: Path) -> dict[str, Any]:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed, reasons = [], set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kind = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        if kind is None:
            counts["passed"] += 1
        elif kind.tag == "skipped":
            counts["skipped"] += 1
            reasons.add(kind.get("message") or "")
        else:
            counts["failed"] += 1
            failed.append(f"{name}: {(kind.get('message') or '').partition(chr(10))[0][:200]}")
    return counts | {"failures": failed, "why_skipped": sorted(reasons)}


def sanitize(seconds: float, tool: str = "compute-sanitizer", select: str | None = None) -> dict[str, Any]:
    """The kernel tests under ``compute-sanitizer --tool memcheck``: reads and writes outside of arrays."""
    found = shutil.which(tool) or shutil.which(tool, path="/usr/local/cuda/bin")
    if found is None:
        return {"error": f"not run: there is no {tool} here (it comes with the CUDA toolkit)"}
    select = " or ".join(_WITH_KERNELS) if select is None else select
    start = time.monotonic()
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "benchmarks.gpu.without_pool"]
    if importlib.util.find_spec("xdist") is not None:
        pytest += ["-n", "0"]
    else:
        pytest += ["-o", "addopts="]
    pytest += ["tests/gpu/test_ops.py", "-k", f"value and ({select})"]
    over, output = _within([found, "--tool", "memcheck", *pytest], seconds)
    said = re.findall(r"ERROR SUMMARY: (\d+) error", output)
    passed = re.findall(r"(\d+) passed", output)
    return {
        "seconds": time.monotonic() - start,
        "over": over,
        "errors": sum(map(int, said)) if said else None,
        "passed": int(passed[-1]) if passed else None,
        "first": [line for line in output.splitlines() if line.startswith("=========")][:20],
    }
