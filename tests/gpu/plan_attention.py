"""Whether the real cuDNN has plans for attention: a process of its own, because the stubs of a driver stay loaded.

The argument is the folder of the stubs. Standard input has the device's numbers and the keys of plans; the last line of
the output lists what is wrong with each, or null.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

from tensorgrad.backends.cupy.cudnn import Operand, choose, load
from tensorgrad.backends.cupy.cudnn_attention import Attention, described, unwanted


def key(given: list[Any]) -> Attention:
    kind, dtype, operands, results, causal, scale = given
    arrays = [tuple([Operand(tuple(shape), tuple(steps)) for shape, steps in x]) for x in (operands, results)]
    return Attention(kind, dtype, arrays[0], arrays[1], causal, scale)


def wrong(frontend: Any, what: Attention, device: Any) -> str | None:
    try:
        graph, _ = described(frontend, what, device_property=device)
        choose(frontend, graph, unwanted(frontend.numerical_note))
    except (frontend.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
        return f"{what}: {error}"[:2000]
    return None


def main() -> None:
    from cuda.pathfinder import load_nvidia_dynamic_lib

    folder, given = Path(sys.argv[1]), json.load(sys.stdin)
    loaded = [ctypes.CDLL(str(folder / name)) for name in ("libcudart.so.13", "libcuda.so.1")]
    load_nvidia_dynamic_lib("nvrtc")
    frontend = load()
    device = frontend.create_device_properties(json.dumps(given["device"]))
    print(json.dumps([wrong(frontend, key(one), device) for one in given["asked"]]))
    assert len(loaded) == 2


if __name__ == "__main__":
    main()
