"""Parametrizations: a tensor of a module is computed from others, by modules, whenever it is read.

The module gets a class of its own whose property computes the tensor; what it is computed from stands in
``module.parametrizations.<name>`` as ``original`` (or ``original0``, ``original1``, ...) and is what gets trained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...autograd.grad_mode import no_grad
from ...errors import TensorgradError
from ...tensor import Tensor
from ..containers import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter

__all__ = [
    "ParametrizationError", "ParametrizationList", "cached", "is_parametrized", "register_parametrization",
    "remove_parametrizations", "transfer_parametrizations_and_params", "type_before_parametrizations",
]  # fmt: skip


class ParametrizationError(TensorgradError, ValueError):
    """Raised when a parametrization does not fit the tensor it is registered on."""


class _Cache:
    """Computed tensors by (module, name), while somebody is inside of ``cached``."""

    depth = 0
    values: dict[tuple[int, str], Tensor] = {}  # noqa: RUF012 - one for the process


@contextmanager
def cached() -> Iterator[None]:
    """Within the block every parametrized tensor is computed once, however often it is read."""
    _Cache.depth += 1
    try:
        yield
    finally:
        _Cache.depth -= 1
        if not _Cache.depth:
            _Cache.values = {}


def _inverse(module: Any, value: Any) -> Any:
    """What ``module`` makes ``value`` of; itself where it has no right_inverse."""
    if not hasattr(module, "right_inverse"):
        return value
    try:
        return module.right_inverse(value)
    except NotImplementedError:
        return value


def _register(module: Module, name: str, value: Any) -> None:
    if isinstance(value, Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _check_same(before: Tensor, after: Any, what: str) -> None:
    if not isinstance(after, Tensor):
        raise ParametrizationError(f"A parametrization must return a tensor. Got {type(after).__name__}.")
    for attribute in ("dtype", "shape"):
        old, new = getattr(before, attribute), getattr(after, attribute)
        if old != new:
            raise ParametrizationError(
                f"{what} may not change the {attribute} of the tensor, unless the `unsafe` flag is enabled.\n"
                f"{attribute} before: {old}\n{attribute} after: {new}"
            )


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and what the first of them starts from.

    Attributes:
        original: the tensor trained; ``original0``, ``original1``, ... if the first ``right_inverse`` gives several.
        unsafe: dtype and shape may change.
    """

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        with no_grad():
            new: Any = original
            for module in reversed(list(self)):
                new = _inverse(module, new)
        if not isinstance(new, Tensor) and not isinstance(new, Sequence):
            raise ParametrizationError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(new).__name__}"
            )
        before = original.detach()  # `original` itself may take on another shape
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        if isinstance(new, Tensor):
            for attribute in ("dtype", "device"):
                if getattr(original, attribute) != getattr(new, attribute):
                    raise ParametrizationError(
                        f"When `right_inverse` outputs one tensor, it may not change the {attribute}.\n"
                        f"original.{attribute}: {getattr(original, attribute)}\n"
                        f"right_inverse(original).{attribute}: {getattr(new, attribute)}"
                    )
            original.data = new  # the same object goes on, so an optimizer that has it keeps working
            _register(self, "original", original)
        else:
            self._register_several(new, original)
        if not self.unsafe:
            _check_same(before, self(), "Registering a parametrization")

    def _register_several(self, parts: Sequence[Any], original: Tensor) -> None:
        for i, part in enumerate(parts):
            if not isinstance(part, Tensor):
                raise ParametrizationError(
                    "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                    f"Got element {i} of the sequence with type {type(part).__name__}."
                )
            member: Any = part.detach()
            if isinstance(original, Parameter):
                member = Parameter(member, original.requires_grad)
            elif original.requires_grad:
                member.requires_grad = True
            _register(self, f"original{i}", member)

    def right_inverse(self, value: Tensor) -> None:
        """Set what is trained so that the tensor becomes ``value``. Raises RuntimeError without right inverses."""
        with no_grad():
            new: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not implement right_inverse.")
                new = module.right_inverse(new)
        if self.is_tensor:
            parts, names = [new], ["original"]
        else:
            if not isinstance(new, Sequence):
                raise ParametrizationError(
                    f"'right_inverse' must return a sequence of tensors. Got {type(new).__name__}."
                )
            parts, names = list(new), [f"original{i}" for i in range(self.ntensors)]
            if len(parts) != len(names):
                raise ParametrizationError(
                    f"'right_inverse' must return a sequence of tensors of length {len(names)}. Got a sequence of "
                    f"length {len(parts)}."
                )
        for name, part in zip(names, parts, strict=True):
            target = getattr(self, name)
            if not isinstance(part, Tensor):
                raise ParametrizationError(f"`right_inverse` should return a tensor. Got {type(part).__name__}")
            if part.dtype != target.dtype:
                raise ParametrizationError(
                    f"The tensor returned by `right_inverse` has dtype {part.dtype} while `{name}` has dtype "
                    f"{target.dtype}"
                )
            target.data = part

    def forward(self) -> Any:
        """The tensor, computed."""
        modules = list(self)
        names = ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]
        x = modules[0](*(getattr(self, name) for name in names))
        for module in modules[1:]:
            x = module(x)
        return x


def _refuse_pickling(self: Any) -> Any:
    raise RuntimeError(
        "Serialization of parametrized modules is only supported through state_dict(): save that, and register the "
        "parametrizations again before loading it."
    )


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    replica = memo.get(id(self))
    if replica is None:
        replica = memo[id(self)] = self.__new__(type(self))
        replica.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return replica


def _inject_class(module: Any) -> None:
    """Give the module a class of its own, where properties can stand."""
    cls = type(module)
    extra: dict[str, Any] = {"__getstate__": _refuse_pickling, "__module__": cls.__module__}
    if not hasattr(cls, "__deepcopy__"):
        extra["__deepcopy__"] = _deepcopy
    module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), extra)


def _inject_property(module: Module, name: str) -> None:
    def read(self: Any) -> Any:
        if not _Cache.depth:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _Cache.values:
            _Cache.values[key] = self.parametrizations[name]()
        return _Cache.values[key]

    def write(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(read, write))


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let ``module.<tensor_name>`` be ``parametrization`` of the tensor that it was.

    Args:
        parametrization: a module of one tensor (or of several, for the first one); its ``right_inverse(tensor)``, if
            there is one, says what to start from, and is used when a value is assigned. Further ones are applied to
            the results of those before.
        unsafe: dtype and shape may change, and nothing is checked.
    Returns: the module.
    Raises: ValueError if there is no such parameter or buffer, or shapes or dtypes change.
    Example:
        >>> import tensorgrad as tg
        >>> class Symmetric(tg.nn.Module):
        ...     def forward(self, x):
        ...         return x.triu() + x.triu(1).transpose(-1, -2)
        >>> layer = register_parametrization(tg.nn.Linear(3, 3), "weight", Symmetric())
        >>> bool((layer.weight == layer.weight.T).all())
        True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        have = module.parametrizations[tensor_name]
        if not unsafe:
            _check_chained(module, tensor_name, parametrization)
        have.append(parametrization)
        have.unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        made = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _inject_class(module)
            module.parametrizations = ModuleDict()
        _inject_property(module, tensor_name)
        module.parametrizations[tensor_name] = made
    else:
        raise ParametrizationError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    return module


def _check_chained(module: Module, name: str, parametrization: Any) -> None:
    now = getattr(module, name)
    result = parametrization(now)
    _check_same(now, result, "Registering a parametrization")
    if hasattr(parametrization, "right_inverse"):
        try:
            back = parametrization.right_inverse(result)
        except NotImplementedError:
            return
        if not isinstance(back, Tensor):
            raise ParametrizationError(
                f"parametrization.right_inverse must return a tensor. Got: {type(back).__name__}"
            )
        _check_same(now, back, "parametrization.right_inverse")


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a tensor of the module, or with None any, is parametrized."""
    found = getattr(module, "parametrizations", None)
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make ``module.<tensor_name>`` an ordinary tensor again.

    Args:
        leave_parametrized: with its present value, rather than what it was computed from.
    Raises: ValueError if it is not parametrized, or computed from several tensors and not to be left so.
    """
    if not is_parametrized(module, tensor_name):
        raise ParametrizationError(f"Module {module} does not have a parametrization on {tensor_name}")
    have = module.parametrizations[tensor_name]
    if have.is_tensor:
        original = have.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name)
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach()) if value.requires_grad else value
    else:
        raise ParametrizationError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The module's class without its parametrizations."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Let ``to_module`` have the parametrizations of ``from_module``, of one tensor or all, and what they start from.

    Returns: ``to_module``.
    """
    if not is_parametrized(from_module):
        return to_module
    for name in list(from_module.parametrizations) if tensor_name is None else [tensor_name]:
        have = from_module.parametrizations[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach()))
        for function in have:
            register_parametrization(to_module, name, function)
        mine = to_module.parametrizations[name]
        for part in ["original"] if have.is_tensor else [f"original{i}" for i in range(have.ntensors)]:
            setattr(mine, part, getattr(have, part))
    return to_module
