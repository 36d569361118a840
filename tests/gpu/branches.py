"""Which branches of ``backends/cupy/*.py`` the tests that need no GPU take: all but those listed here.

python -m tests.gpu.branches            runs the tests under coverage.py (pip install coverage; about 10 minutes)
python -m tests.gpu.branches --data F   compares what an earlier run has written to F

It prints each line that is never run and each branch that is never taken without being listed, and what is listed but
is taken, and ends with 1 if there are any. Branches are those of statements (``if``, ``for``, ``while``, ``match``);
coverage.py does not look into conditional expressions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

__all__ = ["LISTED", "SOURCES", "TESTS", "Branch"]

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tensorgrad" / "backends" / "cupy"
# what compiles for minutes (and runs nothing of the backend that others don't) is left out
TESTS = (
    "tests/gpu",
    "--ignore=tests/gpu/test_compile.py",
    "tests/compiler/test_cuda.py",
    "tests/compiler/test_scaled.py",
    "tests/compiler/test_linear_activation.py",
)


class Branch(NamedTuple):
    """A line, as it is written, of a function ("" for the module) of a file; ``to``: the line that it never goes on
    with, None for a line that is never run, "" for the function's end."""

    file: str
    function: str
    line: str
    to: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}: {self.function or 'module'}: "
        return place + (f"never run: {self.line}" if self.to is None else f"{self.line} -> {self.to or 'end'}")


LISTED: dict[Branch, str] = {}
"""The branches that no test without a GPU takes, and what they need: none."""


def missing(data: Path) -> set[Branch]:
    """What a run of coverage.py has not taken."""
    run = import_module("coverage").Coverage(data_file=str(data), branch=True, source=[str(SOURCES)])
    run.load()
    with tempfile.TemporaryDirectory() as folder:
        run.json_report(outfile=f"{folder}/report.json")
        files = json.loads(Path(folder, "report.json").read_text())["files"]
    found: set[Branch] = {Branch(path.name, "", "the whole file") for path in SOURCES.glob("*.py")}
    for name, report in files.items():
        path = Path(name)
        found.discard(Branch(path.name, "", "the whole file"))
        lines = [line.strip() for line in path.read_text().splitlines()]
        for function, part in report["functions"].items():
            unrun = set(part["missing_lines"])
            found |= {Branch(path.name, function, lines[at - 1]) for at in unrun}
            for at, end in part["missing_branches"]:
                if not {at, end} & unrun:  # else the line that is never run tells it
                    found.add(Branch(path.name, function, lines[at - 1], lines[end - 1] if end > 0 else ""))
    return found


def measured(data: Path) -> None:
    command = ["coverage", "run", "--branch", f"--source={SOURCES.relative_to(ROOT)}", f"--data-file={data}"]
    tests = ["pytest", "-n", "0", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run([sys.executable, "-m", *command, "-m", *tests], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit("tests failed: what they take is not known")


def main(argv: list[str] | None = None) -> int:
    reader = argparse.ArgumentParser(prog="python -m tests.gpu.branches", description=str(__doc__).partition("\n")[0])
    reader.add_argument(
        "--data", type=Path, help="what coverage run --branch has written; by default the tests are run"
    )
    given = reader.parse_args(argv).data
    with tempfile.TemporaryDirectory() as folder:
        data = given or Path(folder) / "coverage"
        if given is None:
            measured(data)
        found = missing(data)
    for one in sorted(found - LISTED.keys(), key=str):
        print(one)
    for one in sorted(LISTED.keys() - found, key=str):
        print(f"listed, but taken: {one}")
    print(f"{len(found)} not taken, {len(LISTED)} listed")
    return int(found != LISTED.keys())


if __name__ == "__main__":
    sys.exit(main())
