"""What card this is: no number without it."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from benchmarks.frameworks import FRAMEWORKS, installed
from benchmarks.gpu import correctness
from tensorgrad.backends.cupy.cudnn import load
from tensorgrad.errors import BackendError

__all__ = ["describe", "missing"]


def describe() -> dict[str, Any]:
    """Name, memory in bytes, driver, clocks and versions of the first card. What gives no answer says so."""
    found: dict[str, Any] = {"name": "unknown"}
    for what, ask in (("properties", _properties), ("versions", _versions), ("nvidia-smi", _smi)):
        try:
            found |= ask()
        except Exception as error:  # noqa: BLE001 - no line of a description is worth the run
            found[what] = f"no answer: {type(error).__name__}: {error}"
    return found


def _properties() -> dict[str, Any]:
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "memory": int(properties["totalGlobalMem"]),
        "multiprocessors": int(properties["multiProcessorCount"]),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
    }


def _versions() -> dict[str, Any]:
    import cupy

    from tensorgrad.backends import cudnn

    runtime = cupy.cuda.runtime
    return {
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "cudnn": cudnn.version(),
    }


def missing(dry: bool = False) -> list[str]:
    """A line for each thing that would be used and is not here. ``dry``: a stand-in is used."""
    lines = []
    try:
        load()
    except BackendError as error:
        lines.append(f"tensorgrad's own kernels compute convolutions and attention: {error}")
    if correctness.sanitizer() is None and not dry:
        lines.append("compute-sanitizer is not here (it comes with the CUDA toolkit): its part is left out")
    if shutil.which("nvcc") is None:
        lines.append("nvcc is not here: nothing needs it, kernels are compiled by NVRTC")
    if not installed(FRAMEWORKS["torch"]):
        lines.append("PyTorch is not installed: nothing is compared, and the tests are left out")
    return lines


def _smi() -> dict[str, str]:
    fields = ("driver_version", "clocks.max.sm", "clocks.max.memory", "power.limit", "temperature.gpu")
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return dict(zip(fields, done.stdout.partition("\n")[0].split(", "), strict=False))
