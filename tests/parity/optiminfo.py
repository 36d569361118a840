"""PyTorch's own table of optimizers (``optim_db``) run on tensorgrad: every configuration for 20 steps, every error.

``python -m tests.parity.optiminfo [NAME ...]`` prints what differs.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import tensorgrad as tg

from . import translate
from .translate import host, ours, with_torch

STEPS = 20
TOLERANCE = {"float64": 1e-10, "complex128": 1e-10, "float32": 1e-5, "complex64": 1e-5}
BFLOAT16_INSIDE = 2e-2
"""Muon's iterations run in bfloat16, where the order of a sum decides about the last of eight bits."""


def database() -> list[Any]:
    with_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_optimizers import optim_db
    return list(optim_db)


def inputs(info: Any, every: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(description, keyword arguments) of every configuration; ``every`` also with the flags that choose PyTorch's
    implementation, which the first configuration is always tried with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_optimizers import (
            _get_optim_inputs_including_global_cliquey_kwargs as all_inputs,
        )
    for given in all_inputs("cpu", translate.torch.float64, info, skip=("differentiable",)):
        if every or not given.desc.endswith((" foreach", " fused")) or given.desc.startswith("default"):
            yield given.desc, given.kwargs


class Problem:
    """A small regression in either library: the loss of a matrix, a vector and a scale, on fixed numbers."""

    def __init__(self, lib: Any, dtype: str, matrices: bool, named: bool = False):
        rng = np.random.default_rng(0)

        def draw(*shape: int) -> Any:
            values = rng.standard_normal(shape)
            return values + 1j * rng.standard_normal(shape) if "complex" in dtype else values

        self.lib = lib
        kind = getattr(lib, dtype)
        self.w, self.b, self.s = (lib.tensor(draw(*n), dtype=kind, requires_grad=True) for n in ((4, 3), (3,), (4,)))
        self.idle = lib.tensor(draw(2, 2), dtype=kind, requires_grad=True)
        self.x, self.y = lib.tensor(draw(8, 4), dtype=kind), lib.tensor(draw(8, 3), dtype=kind)
        self.params = [self.w, self.idle] if matrices else [self.w, self.b, self.idle, self.s]

    def loss(self, sign: float) -> Any:
        """Convex, so that optimizers end where they must and not where the last bit sends them."""
        error = self.x @ self.w + self.b - self.y
        square = (error * error.conj()).real.mean() if error.is_complex() else (error * error).mean()
        off = self.s - 1
        rest = (off * off.conj()).real.sum() if error.is_complex() else (off * off).sum()
        return sign * (square + 0.1 * rest)

    def train(self, optimizer: Any, steps: int, needs_closure: bool) -> list[float]:
        sign = -1.0 if optimizer.param_groups[0].get("maximize") else 1.0

        def closure() -> Any:
            optimizer.zero_grad()
            loss = self.loss(sign)
            loss.backward()
            return loss

        seen = []
        for _ in range(steps):
            if needs_closure:
                seen.append(optimizer.step(closure).item())
            else:
                seen.append(closure().item())
                optimizer.step()
        return seen


def differences(info: Any, dtypes: tuple[str, ...], every: bool) -> Iterator[str]:
    """What differs, one line per configuration and dtype: parameters, state, settings, and what a state dict of either
    library does in the other."""
    torch = translate.torch
    matrices = info.name == "Muon"
    for desc, kwargs in inputs(info, every):
        for dtype in dtypes:
            if "complex" in dtype and (not info.supports_complex or kwargs.get("fused")):
                continue
            where = f"{info.name} ({desc}) {dtype}"
            theirs, mine = Problem(torch, dtype, matrices), Problem(tg, dtype, matrices)
            make = getattr(tg.optim, info.name)
            their_opt = info.optim_cls(theirs.params, **kwargs)
            my_opt = make(mine.params, **ours(kwargs))
            # LBFGS can maximize from PyTorch 2.14 on
            newer = info.name == "LBFGS" and "maximize" in their_opt.param_groups[0]
            if not newer and list(my_opt.param_groups[0]) != list(their_opt.param_groups[0]):
                yield f"{where}: settings {list(my_opt.param_groups[0])}, PyTorch has {list(their_opt.param_groups[0])}"
            if not newer and repr(my_opt).replace("tensorgrad.", "torch.") != repr(their_opt):
                yield f"{where}: repr {my_opt!r}, PyTorch's {their_opt!r}"
            tolerance = BFLOAT16_INSIDE if matrices else TOLERANCE[dtype]
            half = STEPS // 2
            if matrices:
                half = 3
            if info.name == "LBFGS":  # a step is up to 20 iterations, and ends in rounding errors
                half, tolerance = 2, tolerance * (100 if dtype == "float32" else 10)
            theirs.train(their_opt, half, info.step_requires_closure)
            mine.train(my_opt, half, info.step_requires_closure)
            yield from compare_state(where, my_opt, their_opt, tolerance)
            if info.name != "Muon":  # the state dicts change places: each library goes on with the other's
                crossed = my_opt.state_dict(), their_opt.state_dict()
                my_opt, their_opt = make(mine.params, **ours(kwargs)), info.optim_cls(theirs.params, **kwargs)
                my_opt.load_state_dict(crossed[1])
                their_opt.load_state_dict(to_torch(crossed[0]))
            theirs.train(their_opt, half, info.step_requires_closure)
            mine.train(my_opt, half, info.step_requires_closure)
            for i, (p, q) in enumerate(zip(mine.params, theirs.params, strict=True)):
                error = distance(host(p), host(q))
                if not error <= tolerance:
                    yield f"{where}: parameter {i} differs by {error:.1e} after {STEPS} steps"


def to_torch(value: Any) -> Any:
    """Our tensors in a structure as PyTorch's."""
    if isinstance(value, tg.Tensor):
        return translate.torch.from_numpy(value.detach().numpy().copy())
    if isinstance(value, dict):
        return {key: to_torch(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([to_torch(part) for part in value])
    return value


def compare_state(where: str, my_opt: Any, their_opt: Any, tolerance: float) -> Iterator[str]:
    mine, theirs = my_opt.state_dict()["state"], their_opt.state_dict()["state"]
    theirs = {i: {key: v for key, v in state.items() if v is not None} for i, state in theirs.items()}
    theirs = {i: state for i, state in theirs.items() if state or i in mine}
    if list(mine) != list(theirs):
        yield f"{where}: state of parameters {list(mine)}, PyTorch has {list(theirs)}"
        return
    for i in mine:
        if set(mine[i]) != set(theirs[i]) or ("LBFGS" not in where and list(mine[i]) != list(theirs[i])):
            yield f"{where}: state {list(mine[i])}, PyTorch has {list(theirs[i])}"
            continue
        for key, value in mine[i].items():
            other = theirs[i][key]
            if not isinstance(value, tg.Tensor) or not isinstance(other, translate.torch.Tensor):
                continue
            if str(value.dtype).rpartition(".")[2] != str(other.dtype).rpartition(".")[2]:
                yield f"{where}: state {key} is {value.dtype}, PyTorch's {other.dtype}"
            if "LBFGS" in where:  # at the minimum, what it remembers is the quotient of rounding errors
                continue
            if distance(host(value), host(other)) > tolerance * 10:
                yield f"{where}: state {key} differs by {distance(host(value), host(other)):.1e}"


def distance(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest number."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.max(np.abs(a - b), initial=0.0) / max(1e-30, np.max(np.abs(b), initial=0.0)))


def translated(value: Any, known: dict[int, Any]) -> Any:
    """Parameters in a structure as ours, with their gradients; what was one stays one."""
    if isinstance(value, dict):
        return {key: translated(part, known) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([translated(part, known) for part in value])
    if not translate.is_tensor(value):
        return value
    if id(value) not in known:
        known[id(value)] = ours(value)
        if value.grad is not None:
            known[id(value)].grad = ours(value.grad)
    return known[id(value)]


def error_differences(info: Any) -> Iterator[str]:
    """Errors of PyTorch's table that tensorgrad does not raise, or in another class or other words."""
    torch = translate.torch
    for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = case.optimizer_error_input
        params = given.params
        try:
            if params is None:
                params = [torch.nn.Parameter(torch.randn(2, 3)), torch.nn.Parameter(torch.randn(2, 3))]
            mine = translated(params, {})
        except translate.Untranslatable:
            continue
        seen: Any = None
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                optimizer = getattr(tg.optim, info.name)(mine, **ours(given.kwargs))
                optimizer.step()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
                seen = error
        if not isinstance(seen, case.error_type) or not re.search(case.error_regex, str(seen)):
            yield f"{info.name} ({given.desc}): {type(seen).__name__}({seen}), expected {case.error_type.__name__}"


def main() -> None:
    bad = 0
    for info in database():
        if sys.argv[1:] and info.name not in sys.argv[1:]:
            continue
        lines = list(report(info))
        bad += bool(lines)
        print("\n".join(lines) if lines else f"{info.name}: same")
    sys.exit(bool(bad))


def report(info: Any, every: bool = True) -> Iterator[str]:
    """Everything that differs in an optimizer."""
    if info.name == "SparseAdam":
        return
    yield from differences(info, ("float64", "float32", "complex128"), every)
    yield from error_differences(info)


if __name__ == "__main__":
    main()
