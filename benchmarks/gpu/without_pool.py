"""A plugin for pytest (``-p benchmarks.gpu.without_pool``): every array is an allocation of the driver's own.

Within a block of CuPy's pool a read behind an array's end would not be found by compute-sanitizer.
"""

from __future__ import annotations

from benchmarks.gpu.place import why_not

if why_not() is None:
    import cupy

    cupy.cuda.set_allocator(None)
