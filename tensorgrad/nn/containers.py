"""Modules that hold others: in a row, in a list, by name; and the same for parameters."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..ops.checks import integer
from ..tensor import Tensor
from .hooks import everywhere
from .module import MODULE, Module
from .parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


joined_by: dict[type, dict[type, str]] = {}
"""Layers that compute the layer behind them too, by exact type: ``joined_by[BatchNorm2d][ReLU]`` names the method."""


def _joined(first: Module, second: Module) -> Any:
    """The method of ``first`` that stands for both, or None: nobody may want to see what passes between them."""
    name = joined_by[type(first)].get(type(second))
    if name is None or first._hooks is not None or second._hooks is not None or everywhere:
        return None
    return None if "forward" in first.__dict__ or "forward" in second.__dict__ else getattr(first, name)


def _position(name: str, index: int, count: int) -> int:
    """A non-negative index. Raises IndexError if it is out of range."""
    place = integer(name, "index", index)
    if not -count <= place < count:
        raise IndexError(f"{name}: index {index} is out of range for {count} entries")
    return place % count


class _Numbered(Module):
    """Submodules under the names "0", "1", ..., kept without gaps."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        attributes = self.__dict__
        return iter([attributes[name] for name, kind in self._kinds.items() if kind == MODULE])

    def _set_all(self, modules: Iterable[Module]) -> None:
        new = list(modules)
        self._modules.clear()
        for i, module in enumerate(new):
            self.add_module(str(i), module)

    def _getitem(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)._from(list(self)[index])
        return self._modules[str(_position(type(self).__name__, index, len(self)))]

    @classmethod
    def _from(cls, modules: list[Module]) -> Any:
        raise TypeError(f"{cls.__name__} can't be sliced")

    def __setitem__(self, index: Any, module: Module) -> None:
        place = _position(type(self).__name__, index, len(self))
        setattr(self, list(self._modules)[place], module)

    def __delitem__(self, index: Any) -> None:
        modules = list(self)
        del modules[index if isinstance(index, slice) else _position(type(self).__name__, index, len(self))]
        self._set_all(modules)

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end; returns the container."""
        if not isinstance(modules, Iterable):
            raise TypeError(f"{type(self).__name__}.extend takes an iterable, got {type(modules).__name__}")
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module before position ``index``; returns the container."""
        if not isinstance(module, Module):
            raise TypeError(f"module should be of type Module, got {type(module).__name__}")
        index = integer(type(self).__name__, "index", index)
        if not -len(self) <= index <= len(self):
            raise IndexError(f"Index out of range: {index} for {len(self)} modules")
        modules = list(self)
        modules.insert(index, module)
        self._set_all(modules)
        return self

    def pop(self, index: int | slice = -1) -> Any:
        """Remove the module at ``index`` and return it."""
        found = self._getitem(index)
        del self[index]
        return found

    def __iadd__(self, other: Iterable[Module]) -> Any:
        return self.extend(other)


class Sequential(_Numbered):
    """Modules called one after the other, each on the result of the one before.

    Args:
        args: modules, numbered from "0"; or one dict of names to modules.
    Example:
        >>> import tensorgrad as tg
        >>> tg.nn.Sequential(tg.nn.Linear(4, 3), tg.nn.ReLU())(tg.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, *args: Any):
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(args):
                self.add_module(str(i), module)

    def forward(self, input: Any) -> Any:
        attributes = self.__dict__
        waiting: Any = None  # a module that the next may be joined to
        for name, kind in self._kinds.items():
            if kind != MODULE:  # not by identity: what was unpickled has a text of its own
                continue
            module = attributes[name]
            if waiting is not None:
                joined = _joined(waiting, module)
                input = (waiting if joined is None else joined)(input)
                waiting = None
                if joined is not None:
                    continue
            if type(module) in joined_by:
                waiting = module
            else:
                input = module(input)
        return input if waiting is None else waiting(input)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return list(self)[_position("Sequential", index, len(self))]

    def _getitem(self, index: Any) -> Any:
        return self[index]

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise ValueError(f"add operator supports only objects of Sequential class, got {type(other).__name__}")
        return Sequential(*self, *other)

    def __mul__(self, times: int) -> Sequential:
        if not isinstance(times, int) or times <= 0:
            raise ValueError(f"Sequential can be repeated a positive number of times, got {times!r}")
        return Sequential(*(list(self) * times))

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Sequential:
        if not isinstance(times, int) or times <= 0:
            raise ValueError(f"Sequential can be repeated a positive number of times, got {times!r}")
        return self.extend(list(self) * (times - 1))


class ModuleList(_Numbered):
    """A list whose modules are registered; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @classmethod
    def _from(cls, modules: list[Module]) -> ModuleList:
        return cls(modules)

    def __getitem__(self, index: Any) -> Any:
        return self._getitem(index)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """Modules that print alike stand in one line, as many as there are in a row."""
        texts = [repr(module) for module in self]
        if not texts:
            return f"{self._get_name()}()"
        lines, start = [], 0
        for text, group in itertools.groupby(texts):
            count = len(list(group))
            where = f"({start}): " if count == 1 else f"({start}-{start + count - 1}): {count} x "
            lines.append(where + text.replace("\n", "\n  "))
            start += count
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


class ModuleDict(Module):
    """A dict whose modules are registered; it has no forward of its own."""

    def __init__(self, modules: Any = None):
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        found = self._modules[key]
        assert found is not None
        return found

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def clear(self) -> None:
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Remove the module named ``key`` and return it."""
        found = self[key]
        del self[key]
        return found

    def keys(self) -> Any:
        return self._modules.keys()

    def values(self) -> Any:
        return self._modules.values()

    def items(self) -> Any:
        return self._modules.items()

    def update(self, modules: Any) -> None:
        """Add modules from a dict or from pairs; those of the same name are replaced."""
        if not isinstance(modules, Iterable):
            raise TypeError(f"ModuleDict.update takes a dict or pairs, got {type(modules).__name__}")
        for key, module in _pairs("ModuleDict", modules):
            self[key] = module


def _pairs(name: str, given: Any) -> Iterator[tuple[Any, Any]]:
    """Names and values, from a dict or from pairs. Raises TypeError or ValueError for what is no pair."""
    if hasattr(given, "items"):
        yield from given.items()
        return
    for i, pair in enumerate(given):
        if not isinstance(pair, Iterable):
            raise TypeError(f"{name} update sequence element #{i} should be Iterable; is {type(pair).__name__}")
        found = tuple(pair)
        if len(found) != 2:
            raise ValueError(f"{name} update sequence element #{i} has length {len(found)}; 2 is required")
        yield found


def _as_parameter(value: Any) -> Any:
    """Tensors become parameters; anything else is kept as it is."""
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        return Parameter(value)
    return value


class ParameterList(Module):
    """A list whose tensors are registered as parameters."""

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ParameterList(list(self)[index])
        return getattr(self, str(_position("ParameterList", index, self._size)))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_position("ParameterList", index, self._size)), _as_parameter(value))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(self._size)])

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        return self.extend(values)

    def append(self, value: Any) -> ParameterList:
        """Add a value at the end; returns the list."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add values at the end; returns the list."""
        if not isinstance(values, Iterable) or isinstance(values, Tensor):
            raise TypeError(f"ParameterList.extend takes an iterable, got {type(values).__name__}")
        for value in list(values):
            self.append(value)
        return self

    def extra_repr(self) -> str:
        return "\n".join(
            f"  ({i}): {_described(value, repr(getattr(value, 'dtype', None)))}" for i, value in enumerate(self)
        )


class ParameterDict(Module):
    """A dict whose tensors are registered as parameters."""

    def __init__(self, parameters: Any = None):
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"Index given to ParameterDict cannot be used as a key as it is not a string: {key!r}")
        setattr(self, key, _as_parameter(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def keys(self) -> Any:
        return self._keys.keys()

    def values(self) -> list[Any]:
        return [self[key] for key in self._keys]

    def items(self) -> list[tuple[str, Any]]:
        return [(key, self[key]) for key in self._keys]

    def update(self, parameters: Any) -> None:
        """Add values from a dict or from pairs."""
        if not isinstance(parameters, (Iterable, ParameterDict)):
            raise TypeError(f"ParameterDict.update takes a dict or pairs, got {type(parameters).__name__}")
        for key, value in _pairs("ParameterDict", parameters):
            self[key] = value

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._keys))

    def copy(self) -> ParameterDict:
        """Another ParameterDict of the same values."""
        return ParameterDict(dict(self.items()))

    def clear(self) -> None:
        """Remove all values."""
        for key in list(self._keys):
            del self[key]

    def pop(self, key: str) -> Any:
        """Remove the value named ``key`` and return it. Raises KeyError if there is none."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the value that was added last and return it with its key. Raises KeyError if there is none."""
        if not self._keys:
            raise KeyError("popitem(): the ParameterDict is empty")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value named ``key``, or the default."""
        return self[key] if key in self._keys else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value named ``key``, which is the default from now on if there was none."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A ParameterDict with one value under all keys."""
        return ParameterDict((key, default) for key in keys)

    def __or__(self, other: Any) -> ParameterDict:
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> ParameterDict:
        merged = ParameterDict(other)
        merged.update(self)
        return merged

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def extra_repr(self) -> str:
        return "\n".join(
            f"  ({key}): {_described(value, value.type() if isinstance(value, Tensor) else '')}"
            for key, value in self.items()
        )


def _described(value: Any, kind: str) -> str:
    """One line of a list's or dict's text; PyTorch names the dtype in the one and the class in the other."""
    if not isinstance(value, Tensor):
        return f"Object of type: {type(value).__name__}"
    what = "Parameter" if isinstance(value, Parameter) else "Tensor"
    sizes = "x".join(map(str, value.shape))
    return f"{what} containing: [{kind} of size {sizes}]"
