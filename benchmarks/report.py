"""Tables for the terminal and JSON for the record."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.frameworks import FRAMEWORKS, version


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """Columns padded to their widest cell, the first one to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    print(f"\n{title}")
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def environment(threads: int) -> dict[str, Any]:
    """Where and with what a measurement was made: no number without it."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": list(os.getloadavg()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {f.module: version(f) for f in FRAMEWORKS.values()} | {"numpy": _numpy_version()},
    }


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except FileNotFoundError:
        pass
    return platform.processor() or platform.machine()


def _numpy_version() -> str:
    import numpy

    return numpy.__version__


def write_json(path: str, content: dict[str, Any], quiet: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # who is cut off while writing leaves what was there before
    new = Path(f"{path}.new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path)
    if not quiet:
        print(f"\nwritten: {path}")
