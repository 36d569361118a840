"""Modules as functions of their parameters: ``functional_call`` and ``stack_module_state``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..tensor import Tensor

if TYPE_CHECKING:
    from ..nn import Module

__all__ = ["functional_call", "stack_module_state"]


def functional_call(
    module: Module, parameter_and_buffer_dicts: Any, args: Any = None, kwargs: dict[str, Any] | None = None, *,
    tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """``module(*args, **kwargs)`` with parameters and buffers taken from dicts instead of the module's own.

    Args:
        parameter_and_buffer_dicts: a dict from dotted names to tensors, or a tuple of dicts with distinct keys.
        args: the positional arguments; a tuple, or a single one that is none.
        tie_weights: a tensor given for one name of a shared parameter counts for its other names too.
        strict: raise unless the dicts name all parameters and buffers, and nothing else.
    Raises: RuntimeError for names that are not there (strict) or two values for tied weights; ValueError for a key in
        several dicts.
    Example:
        >>> import tensorgrad as tg
        >>> layer = tg.nn.Linear(2, 1, bias=False)
        >>> tg.func.functional_call(layer, {"weight": tg.ones(1, 2)}, tg.ones(3, 2)).tolist()
        [[2.0], [2.0], [2.0]]
    """
    if isinstance(parameter_and_buffer_dicts, dict):
        given: dict[str, Any] = parameter_and_buffer_dicts
    elif isinstance(parameter_and_buffer_dicts, Sequence):
        if not all(isinstance(d, dict) for d in parameter_and_buffer_dicts):
            raise ValueError("functional_call: Expected all elements of parameter_and_buffer_dicts to be dictionaries")
        given = {}
        for one in parameter_and_buffer_dicts:
            repeated = given.keys() & one.keys()
            if repeated:
                raise ValueError(f"functional_call: {sorted(repeated)} appeared in multiple dictionaries")
            given.update(one)
    else:
        raise ValueError(
            "functional_call: Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
            f"{type(parameter_and_buffer_dicts)}"
        )
    places = _places(module)
    if strict:
        missing, extra = sorted(places.keys() - given.keys()), sorted(given.keys() - places.keys())
        if missing or extra:
            raise RuntimeError(f"functional_call: missing key(s): {missing}; unexpected key(s): {extra}")
    chosen = _tied(places, given) if tie_weights else given
    swapped: list[tuple[str, dict[str, Any], str, Any]] = []
    call_args = () if args is None else args if isinstance(args, tuple) else (args,)
    try:
        for name, value in chosen.items():
            if name not in places:
                if strict or "." not in name:
                    raise KeyError(f"functional_call: {type(module).__name__} has no parameter or buffer {name!r}")
                raise AttributeError(f"functional_call: {type(module).__name__} has no parameter or buffer {name!r}")
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"functional_call: {value} is not an instance of Tensor")
            attributes, key = places[name]
            swapped.append((name, attributes, key, attributes[key]))
            attributes[key] = value
        return module(*call_args, **(kwargs or {}))
    finally:
        for name, attributes, key, own in reversed(swapped):
            if attributes[key] is not chosen[name] and name in parameter_and_buffer_dicts:
                parameter_and_buffer_dicts[name] = attributes[key]  # what forward assigned belongs to the caller
            attributes[key] = own


def _places(module: Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each parameter and buffer stands, by all of its names."""
    found = {}
    for path, holder in module.named_modules(remove_duplicate=False):
        for key, kind in holder._kinds.items():
            if kind in ("parameter", "buffer") and holder.__dict__[key] is not None:
                found[f"{path}.{key}" if path else key] = (holder.__dict__, key)
    return found


def _tied(places: dict[str, tuple[dict[str, Any], str]], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` with values for the other names of shared tensors. Raises RuntimeError if two values are given."""
    by_tensor: dict[int, list[str]] = {}
    for name, (attributes, key) in places.items():
        by_tensor.setdefault(id(attributes[key]), []).append(name)
    full = dict(given)
    for names in by_tensor.values():
        named = [name for name in names if name in given]
        if len(names) < 2 or not named:
            continue
        if any(given[name] is not given[named[0]] for name in named[1:]):
            raise RuntimeError(
                f"functional_call: {', '.join(names)} are tied, but several different values were passed for them"
            )
        full.update(dict.fromkeys(names, given[named[0]]))
    return full


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``(params, buffers)`` of an ensemble: each tensor stacked over the models, for ``vmap`` with ``functional_call``.

    The stacked parameters are leaves that require grad if the models' do.

    Raises: RuntimeError for no models, models of several classes, or some in training mode and some not.
    Example:
        >>> import tensorgrad as tg
        >>> params, _ = tg.func.stack_module_state([tg.nn.Linear(3, 2) for _ in range(4)])
        >>> tuple(params["weight"].shape)
        (4, 2, 3)
    """
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if not (all(m.training for m in models) or all(not m.training for m in models)):
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    first = type(models[0])
    if not all(type(m) is first for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    params = _stacked([dict(m.named_parameters()) for m in models])
    buffers = _stacked([dict(m.named_buffers()) for m in models])
    return params, buffers


def _stacked(dicts: list[dict[str, Any]]) -> dict[str, Any]:
    from ..ops.join import stack

    result = {}
    for key in dicts[0]:
        parts = [d[key] for d in dicts]
        needs = {part.requires_grad for part in parts}
        if len(needs) > 1:
            raise RuntimeError(f"Expected {key} from each model to have the same .requires_grad")
        joined = stack([part.detach() for part in parts])
        joined.requires_grad = needs.pop()
        result[key] = joined
    return result
