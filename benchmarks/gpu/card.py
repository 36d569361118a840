"""What card this is: no number without it."""

from __future__ import annotations

import subprocess
from typing import Any

__all__ = ["describe"]


def describe() -> dict[str, Any]:
    """Name, memory in bytes, driver, clocks and versions of the first card. Needs a GPU."""
    import cupy

    from tensorgrad.backends import cudnn

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "memory": int(properties["totalGlobalMem"]),
        "multiprocessors": int(properties["multiProcessorCount"]),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "cudnn": cudnn.version(),
        **_smi(),
    }


def _smi() -> dict[str, str]:
    fields = ("driver_version", "clocks.max.sm", "clocks.max.memory", "power.limit", "temperature.gpu")
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"no answer: {error}"}
    return dict(zip(fields, done.stdout.partition("\n")[0].split(", "), strict=False))
