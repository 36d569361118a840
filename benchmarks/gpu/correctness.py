"""Right before fast: the tests of ops and modules on the device, and compute-sanitizer over those of the kernels."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import outcomes
from benchmarks.rounds import ROOT

__all__ = ["TESTS", "UNSANITIZED", "run_tests", "sanitize", "sanitizer"]

TESTS = (
    "tests/gpu/test_ops.py", "tests/gpu/test_beside_torch.py", "tests/gpu/test_modules.py",
    "tests/gpu/test_who_attends.py", "tests/gpu/test_optimizers.py", "tests/gpu/test_training.py",
)  # fmt: skip
"""On ``cuda`` where there is a GPU: values against float64 on the CPU, derivatives against differences, and PyTorch."""

UNSANITIZED = (sys.executable, "-m", "benchmarks.gpu.unsanitized")
"""In the sanitizer's place in a dry run."""

# ops with kernels of their own in .cu files
_WITH_KERNELS = (
    "softmax", "norm", "cross_entropy", "nll", "dropout", "random", "embedding", "index_add", "scatter", "gather",
    "pool", "conv", "attention", "lstm", "gru", "sum", "mean", "adam", "sgd",
)  # fmt: skip
_SLOWEST = 60  # seconds for one test: what hangs on the device fails alone
_LAST_WORDS = 15  # seconds that a stopped run has to say what it found
# What other packages say of themselves on a machine with a GPU fails no test.
_FOREIGN = ("default::FutureWarning", "default::DeprecationWarning", "ignore::pytest.PytestConfigWarning")


def run_tests(seconds: float, select: str = "", targets: Sequence[str] = TESTS, processes: int = 16) -> dict[str, Any]:
    """Run tests in processes of their own, on as many cores as there are; what passed, failed and was skipped."""
    for module in ("pytest", "torch"):
        if importlib.util.find_spec(module) is None:
            return {"error": f"not run: {module} is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        return _pytest([], targets, select, seconds, min(processes, os.cpu_count() or 1), Path(folder))[0]


def _pytest(
    before: Sequence[str], targets: Sequence[str], select: str, seconds: float, processes: int, folder: Path
) -> tuple[dict[str, Any], str]:
    """Counts of a run of pytest behind the command ``before``, and what was printed."""
    # the project's own options name plugins, which need not be there
    command = [*before, sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.gpu.outcomes", "--continue-on-collection-errors", *targets]
    command += [part for rule in _FOREIGN for part in ("-W", rule)]
    if importlib.util.find_spec("pytest_timeout") is not None:
        command += ["-o", f"timeout={_SLOWEST}", "-o", "timeout_method=thread"]  # a signal waits for the device too
    if importlib.util.find_spec("xdist") is not None and processes > 1:
        command += ["-n", str(processes), "--dist", "worksteal"]
    if before:
        command += ["-p", "benchmarks.gpu.without_pool"]
    if select:
        command += ["-k", select]
    start, path = time.monotonic(), folder / "outcomes"
    own = {"BENCHMARK_OUTCOMES": str(path), "BENCHMARK_UNTIL": str(time.time() + seconds)}
    # processes share the cores: none is to take them all
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TENSORGRAD_NUM_THREADS"), "1")
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    over, code, output = _within(command, seconds, inherited | own | alone)
    found = outcomes.counted(path)
    ended = found.pop("ended")
    found |= {"seconds": time.monotonic() - start, "over": over or ended == 2}
    if ended is None and not over:
        found["died"] = f"pytest ended with code {code}: {_end(output)}"
    if not any(found[kind] for kind in ("passed", "failed", "skipped")):
        found["error"] = found.get("died") or f"no test came to its end: {_end(output)}"
    return found, output


def _end(output: str) -> str:
    return " ".join(output.split())[-500:]


def _within(command: Sequence[str], seconds: float, environment: dict[str, str]) -> tuple[bool, int, str]:
    """(whether it had to be stopped, its exit code, what it printed). It is to end by itself; who does not is
    interrupted some time after, and killed with what it has started."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=environment,
        )  # fmt: skip
        over = False
        for wait, then in ((seconds + _LAST_WORDS / 3, signal.SIGINT), (_LAST_WORDS / 2, signal.SIGKILL)):
            try:
                process.wait(timeout=max(1.0, wait))
                break
            except subprocess.TimeoutExpired:
                over = True
                os.killpg(process.pid, then)
        process.wait()
        with contextlib.suppress(ProcessLookupError):  # what it has left running would be measured with what follows
            os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        return over, process.returncode, output.read()


def sanitizer(tool: str = "compute-sanitizer") -> str | None:
    """Where the tool is, None if it is nowhere."""
    return shutil.which(tool) or shutil.which(tool, path="/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer")


def sanitize(seconds: float, tool: Sequence[str] = ("compute-sanitizer",), select: str | None = None) -> dict[str, Any]:
    """The kernel tests under ``compute-sanitizer --tool memcheck``: reads and writes outside of arrays."""
    found = sanitizer(tool[0])
    if found is None:
        return {"error": f"not run: there is no {tool[0]} here (it comes with the CUDA toolkit)"}
    select = " or ".join(_WITH_KERNELS) if select is None else select
    # Calls that fail are CuPy's to judge: it asks about addresses that are none of the device's.
    before = [found, *tool[1:], "--tool", "memcheck", "--target-processes", "all", "--report-api-errors", "no"]
    with tempfile.TemporaryDirectory() as folder:
        result, output = _pytest(before, ["tests/gpu/test_ops.py"], f"value and ({select})", seconds, 1, Path(folder))
    said = re.findall(r"ERROR SUMMARY: (\d+) error", output)
    lines = [line for line in output.splitlines() if line.startswith("=========") and line.strip("= ")]
    result["errors"] = sum(map(int, said)) if said else None
    result["first"] = lines[:20]
    if not said and "error" not in result:
        result["error"] = f"{tool[0]} gave no summary: {_end(output)}"
    return result
