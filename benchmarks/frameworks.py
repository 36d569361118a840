"""What can be measured, and how each framework is loaded with a given number of threads."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Framework:
    name: str
    module: str
    environment: dict[str, str] = field(default_factory=dict)
    compiled: bool = False


FRAMEWORKS = {
    framework.name: framework
    for framework in (
        Framework("tensorgrad", "tensorgrad"),
        Framework("tensorgrad-compile", "tensorgrad", compiled=True),
        Framework("tensorgrad-numpy", "tensorgrad", {"TENSORGRAD_BACKEND": "numpy"}),
        Framework("torch", "torch"),
        Framework("torch-compile", "torch", compiled=True),
        Framework("jax", "jax"),
    )
}


def environment(framework: Framework, threads: int) -> dict[str, str]:
    """The environment of a worker. Thread counts must stand there before NumPy, OpenMP or XLA are loaded."""
    count = str(threads)
    return {
        **os.environ,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TENSORGRAD_NUM_THREADS": count,
        "JAX_PLATFORMS": "cpu",
        **framework.environment,
    }


def limit_cores(threads: int) -> None:
    """Keep this process on as many cores as it may have threads: XLA starts a thread for each core it sees."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def load(framework: Framework, threads: int) -> Any:
    """Import the framework, with ``nn`` and ``optim`` where it has them, and set its threads."""
    module = importlib.import_module(framework.module)
    if framework.module == "torch":
        module.set_num_threads(threads)
        module.set_num_interop_threads(1)
    if framework.module == "tensorgrad":
        for part in ("nn", "nn.functional", "optim"):
            importlib.import_module(f"tensorgrad.{part}")
    return module


def version(framework: Framework) -> str:
    try:
        return importlib.metadata.version(framework.module)
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout" if installed(framework) else "not installed"


def installed(framework: Framework) -> bool:
    spec = importlib.util.find_spec(framework.module)
    return spec is not None and spec.origin is not None  # a folder that only has the name has no origin


def memory_mb(kind: str) -> float:
    """``VmHWM`` (the peak) or ``VmRSS`` (now) of this process; elsewhere than on Linux the peak for both.

    Not ru_maxrss on Linux: there a child starts with its parent's.
    """
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(kind + ":"):
                    return int(line.split()[1]) / 1024
    except FileNotFoundError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1024)


def number(value: Any) -> float:
    """A scalar of any framework as a Python float."""
    return float(value.detach() if hasattr(value, "detach") else np.asarray(value))
