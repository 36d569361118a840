"""What one pays before the first step: time to import, memory after it, size on disk."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODULES = ("numpy", "tensorgrad", "torch", "jax")
WITH = {"jax": ("jaxlib",), "tensorgrad": ("scipy_openblas32",)}
_PROGRAM = """
import sys, time
start = time.perf_counter()
__import__(sys.argv[1])
seconds = time.perf_counter() - start
from benchmarks.frameworks import memory_mb
print(seconds, memory_mb("VmHWM"))
"""


@dataclass
class Startup:
    module: str
    import_s: float
    peak_mb: float
    installed_mb: float


def measure(runs: int = 7) -> list[Startup]:
    """The median of ``runs`` fresh processes for each module that is installed; the first of each only warms caches."""
    results = []
    for module in MODULES:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            continue
        lines = [_fresh(module) for _ in range(runs + 1)][1:]
        seconds, peaks = zip(*lines, strict=True)
        results.append(Startup(module, statistics.median(seconds), statistics.median(peaks), installed_mb(module)))
    return results


def _fresh(module: str) -> tuple[float, float]:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, module]
    # Byte code is kept, as it is for whoever installs a package; else we would time Python's compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    output = subprocess.run(
        command, cwd=root, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    return float(output[-2]), float(output[-1])


def installed_mb(module: str) -> float:
    """Megabytes of the module's folder without byte code: what is the same for every way to install it. Counted with
    it are a neighbouring ``<module>.libs`` and the packages that hold its compiled half (``WITH``), not NumPy."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return 0.0
    folder = Path(spec.origin).parent
    folders = [folder, folder.parent / f"{module}.libs"]
    for name in WITH.get(module, ()):
        other = importlib.util.find_spec(name)
        folders += [] if other is None or other.origin is None else [Path(other.origin).parent]
    return sum(_size(path) for path in folders) / 1e6


def _size(folder: Path) -> int:
    total = 0
    for root, inner, files in os.walk(folder):
        if "__pycache__" in inner:
            inner.remove("__pycache__")
        total += sum(os.path.getsize(os.path.join(root, file)) for file in files)
    return total
