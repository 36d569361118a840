"""Device ``cuda``: CuPy arrays, formulas printed as CUDA C, a few kernels from ``.cuh`` files beside this one."""
