"""PyTorch's values as ours and ours as NumPy's, so that one call can be made on both libraries."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

import tensorgrad as tg

torch: Any = None  # set by `with_torch`: importing it here would slow every collection


def with_torch() -> Any:
    """PyTorch, loaded once; skips the test if it is not installed."""
    global torch
    if torch is None:
        import pytest

        torch = pytest.importorskip("torch")
        # torch.testing._internal, where its tables of cases are, freezes torch.backends for the rest of the process
        torch.backends.disable_global_flags = _keep_global_flags
    return torch


def _keep_global_flags() -> None:
    """Instead of ``torch.backends.disable_global_flags``: tests that come later set these flags as users do."""


def seed_pytorch(torch: Any, seed: int) -> None:
    """``torch.manual_seed``, which writes down the whole stack for each kind of device that is not there: half a
    millisecond to three, in every test and before every sample of PyTorch's tables."""
    if torch.cuda.is_initialized():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


_same: list[dict[int, Any]] = []


@contextlib.contextmanager
def aliases_kept() -> Iterator[None]:
    """Within the block one PyTorch tensor becomes one of ours, however often it is given."""
    _same.append({})
    try:
        yield
    finally:
        _same.pop()


def ours(value: Any) -> Any:
    """``value`` with every PyTorch object in it replaced by tensorgrad's, with strides and requires_grad kept."""
    if _same and isinstance(value, torch.Tensor):
        known = _same.pop()
        try:
            if id(value) not in known:
                known[id(value)] = ours(value)
            return known[id(value)]
        finally:
            _same.append(known)
    if isinstance(value, torch.nn.Parameter):
        return tg.nn.Parameter(_array(value), requires_grad=value.requires_grad)
    if isinstance(value, torch.Tensor):
        mine = _array(value)
        return mine.requires_grad_() if value.requires_grad else mine
    if isinstance(value, torch.nn.Module):
        return _module(value)
    if isinstance(value, torch.Size):
        return tg.Size(value)
    if isinstance(value, torch.dtype):
        return dtype_of(value)
    if isinstance(value, torch.device):
        return tg.device(str(value))
    if isinstance(value, torch.Generator):
        return tg.Generator().manual_seed(value.initial_seed())
    if isinstance(value, (torch.layout, torch.memory_format)):
        return getattr(tg, str(value).rpartition(".")[2])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[ours(v) for v in value])
    if isinstance(value, (tuple, list)):
        return type(value)([ours(v) for v in value])
    if isinstance(value, dict):
        return {key: ours(v) for key, v in value.items()}
    if isinstance(value, slice):
        return slice(ours(value.start), ours(value.stop), ours(value.step))
    if isinstance(value, types.BuiltinFunctionType | types.FunctionType) and getattr(value, "__module__", "") in (
        "torch", "torch._C._nn", "torch.nn.functional", "torch.functional",
    ):  # fmt: skip
        for space in (tg.nn.functional, tg):
            if hasattr(space, value.__name__):
                return getattr(space, value.__name__)
    return value


def _module(module: Any) -> Any:
    """Our module of the same name and settings; those that PyTorch hands around have neither weights nor children."""
    if list(module.parameters()) or list(module.children()):
        raise Untranslatable(type(module).__name__)
    mine = getattr(tg.nn, type(module).__name__)()
    for name, setting in vars(module).items():
        if not name.startswith("_"):
            setattr(mine, name, ours(setting))
    return mine


def dtype_of(dtype: Any) -> Any:
    return getattr(tg, str(dtype).rpartition(".")[2])


def _array(x: Any) -> Any:
    if x.layout != torch.strided:
        raise Untranslatable(f"layout {x.layout}")
    if x.is_quantized or x.device.type != "cpu":
        raise Untranslatable(str(x.device))
    if not hasattr(tg, str(x.dtype).rpartition(".")[2]):
        raise Untranslatable(str(x.dtype))
    x = x.detach().resolve_conj().resolve_neg()
    if x.storage_offset():  # a part of a larger storage stays one
        whole = _array(torch.empty(0, dtype=x.dtype).set_(x.untyped_storage()))
        return whole.as_strided(tuple(x.shape), x.stride(), x.storage_offset())
    zero = 0 in x.stride() and x.numel()
    base = x if zero else x.clone()
    if x.dtype == torch.bfloat16:
        import ml_dtypes

        return tg.from_numpy(base.view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16))
    array = base.numpy()
    if zero:  # an expanded tensor stays one, on memory of its own
        first = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in x.stride())].copy()
        return tg.from_numpy(first).expand(tuple(x.shape))
    return tg.from_numpy(array)


class Untranslatable(Exception):
    """Raised for what tensorgrad does not have on purpose: sparse layouts, quantized and exotic dtypes."""


def host(x: Any) -> np.ndarray[Any, Any]:
    """The values of either library's tensor as an array that NumPy can compare."""
    if isinstance(x, tg.Tensor):
        x = x.detach()
        return x.to(tg.float32).numpy() if x.dtype is tg.bfloat16 else x.numpy()
    x = x.detach().resolve_conj().resolve_neg()
    return x.float().numpy(force=True) if x.dtype == torch.bfloat16 else x.numpy(force=True)


def dtype_name(x: Any) -> str:
    return str(x.dtype).rpartition(".")[2]


def flat(result: Any) -> list[Any]:
    """The leaves of nested tuples, lists and dictionaries."""
    if isinstance(result, dict):
        return [part for key in result for part in flat(result[key])]
    if isinstance(result, (tuple, list)) and type(result).__name__ != "Size":
        return [part for item in result for part in flat(item)]
    return [result]


def is_tensor(x: Any) -> bool:
    return isinstance(x, (tg.Tensor, torch.Tensor))
