"""``torch.backends.cuda``: switches of matrix products and attention on CUDA devices.

``enable_cudnn_sdp`` chooses between cuDNN's attention, where it applies, and kernels of tensorgrad's own; the other
switches of attention report what they are given and do not choose. Products of float32 on CUDA may use TF32 once
``matmul.allow_tf32`` is True, ``matmul.fp32_precision`` is "tf32", or ``set_float32_matmul_precision`` is given another
word than "highest". A product of float16 may be made in parts along its sums, which are added up in float16, unless
``matmul.allow_fp16_reduced_precision_reduction`` is False: then in float32; or (False, False): then cuBLASLt makes no
parts. ``matmul.allow_bf16_reduced_precision_reduction`` says the same of bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..dispatch import is_asked

__all__ = [
    "cudnn_sdp_enabled",
    "enable_cudnn_sdp",
    "enable_flash_sdp",
    "enable_math_sdp",
    "enable_mem_efficient_sdp",
    "flash_sdp_enabled",
    "half_parts",
    "is_built",
    "is_flash_attention_available",
    "math_sdp_enabled",
    "matmul",
    "mem_efficient_sdp_enabled",
    "permitted",
    "preferred_linalg_library",
    "sdp_kernel",
    "tf32_allowed",
]  # fmt: skip


class _Matmul:
    """``backends.cuda.matmul``: permissions for matrix products."""

    __slots__ = (
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_accumulation",
        "allow_fp16_reduced_precision_reduction",
        "allow_tf32",
        "fp32_precision",
    )

    def __init__(self) -> None:
        self.allow_tf32 = False
        self.allow_fp16_reduced_precision_reduction = True
        self.allow_bf16_reduced_precision_reduction = True
        self.allow_fp16_accumulation = False
        self.fp32_precision = "none"


matmul = _Matmul()


def tf32_allowed() -> bool:
    """Whether float32 products may round their factors to TF32."""
    from ..settings import may_round  # programs ask this themselves, so nobody is told

    return bool(matmul.allow_tf32) or matmul.fp32_precision == "tf32" or may_round()


def half_parts(dtype: str) -> tuple[bool, bool]:
    """Whether parts of a product's sums may be added up in ``dtype``, float16 or bfloat16, and whether there may be
    parts."""
    kind = "fp16" if dtype == "float16" else "bf16"
    given: Any = getattr(matmul, f"allow_{kind}_reduced_precision_reduction")
    rounded, parted = given if isinstance(given, tuple) else (given, True)
    return bool(rounded), bool(parted)


def permitted() -> tuple[Any, ...]:
    """What is chosen here of how kernels compute, and of what nobody is told that it was asked."""
    return tf32_allowed(), half_parts("float16"), half_parts("bfloat16")


_attention = {"flash": True, "mem_efficient": True, "math": True, "cudnn": True}


def _permitted(kind: str) -> bool:
    is_asked(f"the permission of {kind} attention", _attention, kind)
    return _attention[kind]


def is_built() -> bool:
    """Whether there is a backend for CUDA devices: always, since it is Python and compiles its kernels on the spot."""
    return True


def is_flash_attention_available() -> bool:
    """Whether attention on CUDA can do without the matrix of scores: yes, with dropout too, but in float64 and for
    heads wider than 256."""
    return True


def flash_sdp_enabled() -> bool:
    """What ``enable_flash_sdp`` was given."""
    return _permitted("flash")


def enable_flash_sdp(enabled: bool) -> None:
    """Permit flash attention."""
    _attention["flash"] = bool(enabled)


def mem_efficient_sdp_enabled() -> bool:
    """What ``enable_mem_efficient_sdp`` was given."""
    return _permitted("mem_efficient")


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Permit memory-efficient attention."""
    _attention["mem_efficient"] = bool(enabled)


def math_sdp_enabled() -> bool:
    """What ``enable_math_sdp`` was given."""
    return _permitted("math")


def enable_math_sdp(enabled: bool) -> None:
    """Permit attention written out in matrix products."""
    _attention["math"] = bool(enabled)


def cudnn_sdp_enabled() -> bool:
    """What ``enable_cudnn_sdp`` was given."""
    return _permitted("cudnn")


def enable_cudnn_sdp(enabled: bool) -> None:
    """Permit cuDNN's attention; it is used where it applies, unless ``backends.cudnn.enabled`` is False."""
    _attention["cudnn"] = bool(enabled)


@contextmanager
def sdp_kernel(
    enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True, enable_cudnn: bool = True
) -> Iterator[None]:
    """The four permissions within the block."""
    before = dict(_attention)
    _attention.update(flash=enable_flash, math=enable_math, mem_efficient=enable_mem_efficient, cudnn=enable_cudnn)
    try:
        yield
    finally:
        _attention.update(before)


def preferred_linalg_library(backend: Any = None) -> str:
    """Who factorises matrices on CUDA: cuSOLVER, through CuPy. Raises ValueError for a wish for another."""
    if backend not in (None, "default", "cusolver"):
        raise ValueError(f"preferred_linalg_library: only 'cusolver' is there, got {backend!r}.")
    return "cusolver"
