"""In place of compute-sanitizer in a dry run: runs the command behind the options, and has found nothing.

``python -m benchmarks.gpu.unsanitized --tool memcheck ... COMMAND``
"""

from __future__ import annotations

import subprocess
import sys


def main(arguments: list[str]) -> int:
    at = 0
    while arguments[at].startswith("--"):
        at += 2  # an option and its value
    code = subprocess.run(arguments[at:], check=False).returncode
    print("========= ERROR SUMMARY: 0 errors")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
