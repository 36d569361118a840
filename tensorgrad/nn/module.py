"""``Module``: a tree of parameters, buffers and submodules with a forward function.

A member stands in the instance's own ``__dict__`` like any attribute, so that reading ``self.weight`` costs what any
attribute costs; ``_kinds`` says which names are members, and of which kind, in the order in which they were registered.
``_parameters``, ``_buffers`` and ``_modules`` are live views of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from ..autograd.grad_mode import no_grad
from ..dispatch import grad_was_set
from ..tensor import Tensor
from . import hooks
from .parameter import Buffer, Parameter
from .state import StateMixin

__all__ = ["Module"]

Self = TypeVar("Self", bound="Module")

PARAMETER, BUFFER, MODULE = "parameter", "buffer", "module"
_WANTED = {PARAMETER: "nn.Parameter", BUFFER: "Tensor, nn.Buffer", MODULE: "nn.Module"}


class Members(MutableMapping[str, Any]):
    """The members of one kind of one module, by name; writing here registers."""

    def __init__(self, module: Module, kind: str):
        self._attributes = module.__dict__
        self._kind = kind

    def __getitem__(self, name: str) -> Any:
        if self._attributes["_kinds"].get(name) != self._kind:
            raise KeyError(name)
        return self._attributes[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._attributes["_kinds"][name] = self._kind
        self._attributes[name] = value

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        del self._attributes["_kinds"][name], self._attributes[name]
        self._attributes["_unsaved"].discard(name)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, kind in self._attributes["_kinds"].items() if kind == self._kind])

    def __len__(self) -> int:
        return sum(kind == self._kind for kind in self._attributes["_kinds"].values())

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    # of a dict, which also go backwards, and print as a dict's
    def keys(self) -> Any:
        return dict(self._pairs()).keys()

    def values(self) -> Any:
        return dict(self._pairs()).values()

    def items(self) -> Any:
        return dict(self._pairs()).items()

    def _pairs(self) -> list[tuple[str, Any]]:
        return [(name, self._attributes[name]) for name in self]

    def become(self, members: Mapping[str, Any]) -> None:
        """Hold these members and no others."""
        new = dict(members)
        self.clear()
        self.update(new)

    def copy(self) -> dict[str, Any]:
        return dict(self._pairs())

    def __repr__(self) -> str:
        return repr(self.copy())


class Module(StateMixin):
    """Base of all layers and models: assign parameters and submodules as attributes, define ``forward``.

    Example:
        >>> import tensorgrad as tg
        >>> class Net(tg.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = tg.nn.Linear(3, 2)
        ...     def forward(self, x):
        ...         return self.layer(x).relu()
        >>> [name for name, _ in Net().named_parameters()]
        ['layer.weight', 'layer.bias']
    """

    training: bool
    _kinds: dict[str, str]
    _unsaved: set[str]
    _hooks: hooks.ModuleHooks | None = None  # made when the first hook is registered

    def __init__(self) -> None:
        attributes = self.__dict__
        attributes["training"] = True
        attributes["_kinds"] = {}
        attributes["_unsaved"] = set()

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there; subclasses that look elsewhere call it through super(). Programs ask it for
        # their layers by name, too: in PyTorch these are nowhere else.
        if name in self.__dict__.get("_kinds", ()):
            return self.__dict__[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        # names like "0" can't be written after a dot
        return sorted(name for name in super().__dir__() if not name[0].isdigit())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function: define forward(self, ...).'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None and not hooks.everywhere:
            return self.forward(*args, **kwargs)
        return hooks.call(self, args, kwargs)

    # --- members

    @property
    def _parameters(self) -> MutableMapping[str, Parameter | None]:
        return Members(self, PARAMETER)

    @_parameters.setter
    def _parameters(self, members: Mapping[str, Any]) -> None:
        Members(self, PARAMETER).become(members)

    @property
    def _buffers(self) -> MutableMapping[str, Tensor | None]:
        return Members(self, BUFFER)

    @_buffers.setter
    def _buffers(self, members: Mapping[str, Any]) -> None:
        Members(self, BUFFER).become(members)

    @property
    def _modules(self) -> MutableMapping[str, Module | None]:
        return Members(self, MODULE)

    @_modules.setter
    def _modules(self, members: Mapping[str, Any]) -> None:
        Members(self, MODULE).become(members)

    @property
    def _non_persistent_buffers_set(self) -> set[str]:
        return self._unsaved

    def __setattr__(self, name: str, value: Any) -> None:
        kinds = self.__dict__.get("_kinds")
        kind = None if kinds is None else kinds.get(name)
        if isinstance(value, Parameter):
            self._register(name, value, PARAMETER)
        elif isinstance(value, Module) and kind != PARAMETER:
            self._register(name, value, MODULE)
        elif isinstance(value, Buffer) and kind in (None, BUFFER):
            self.register_buffer(name, value, value.persistent)
        elif kind is None or (kind == BUFFER and isinstance(value, Tensor)):
            object.__setattr__(self, name, value)
        elif value is None:
            self.__dict__[name] = None
        else:
            what = "child module" if kind == MODULE else kind
            raise TypeError(
                f"cannot assign '{type(value).__name__}' as {what} '{name}' ({_WANTED[kind]} or None expected). "
                f"del the {kind} first to reuse its name."
            )

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)  # an AttributeError in words of its own if it is not there
        self._kinds.pop(name, None)
        self._unsaved.discard(name)

    def _register(self, name: str, value: Any, kind: str) -> None:
        attributes = self.__dict__
        kinds = attributes.get("_kinds")
        if kinds is None:
            raise AttributeError(
                f"cannot assign {kind if kind == MODULE else kind + 's'} before Module.__init__() call: call "
                "super().__init__() first."
            )
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        inherited = getattr(type(self), name, None)
        # a plain default of the class gives way to a module; a property would hide it
        if hasattr(type(self), name) and (kind != MODULE or hasattr(type(inherited), "__set__")):
            raise KeyError(f"attribute '{name}' already exists in class {type(self).__name__}; choose another name.")
        if kinds.get(name, kind) != kind:
            del kinds[name]  # a member of another kind: the name goes to the end of its new kind
            attributes["_unsaved"].discard(name)
        for watch in hooks.registrations:
            if watch.when == kind and (value is not None or kind != PARAMETER):
                replaced = watch.function(self, name, value)
                value = value if replaced is None else replaced
        kinds[name] = kind
        attributes[name] = value

    def _check_free(self, name: str, kind: str) -> None:
        if name in self.__dict__ and self._kinds.get(name) != kind:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None stands for one that is absent, like the bias of ``bias=False``.

        Raises TypeError or KeyError for what is no Parameter, or a name that is taken or not usable.
        """
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' (Parameter or None required)"
            )
        if param is not None and param._node is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Wrap its value, Parameter(value.detach()), or "
                "compute it in forward()."
            )
        if "_kinds" in self.__dict__:
            self._check_free(name, PARAMETER)
        self._register(name, param, PARAMETER)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained, e.g. running statistics.

        Args:
            persistent: whether it stands in the state dict.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (Tensor or None required)"
            )
        if "_kinds" in self.__dict__:
            self._check_free(name, BUFFER)
        self._register(name, tensor, BUFFER)
        if persistent:
            self._unsaved.discard(name)
        else:
            self._unsaved.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name; ``register_module`` calls this, so a subclass may override it."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        if "_kinds" in self.__dict__:
            self._check_free(name, MODULE)
        self._register(name, module, MODULE)

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as ``add_module``."""
        self.add_module(name, module)

    def get_submodule(self, target: str) -> Module:
        """The submodule at a dotted path; the module itself for ``""``. Raises AttributeError if there is none."""
        if not isinstance(target, str):
            raise AttributeError(f"a submodule is named by a dotted path, got {target!r}")
        found: Module = self
        for part in target.split(".") if target else ():
            if not hasattr(found, part):
                raise AttributeError(f"{found._get_name()} has no attribute `{part}` (looking for {target!r})")
            inner = getattr(found, part)
            if not isinstance(inner, Module):
                raise AttributeError(f"`{part}` is not an nn.Module (looking for {target!r})")
            found = inner
        return found

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put ``module`` at a dotted path.

        Args:
            strict: replace a module that is there, but make no new name.
        Raises: ValueError for an empty path or what is no Module; AttributeError if the path does not exist.
        """
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module).__name__}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`; with strict it must exist.")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def _get_member(self, target: str, kind: str) -> Any:
        if not isinstance(target, str):
            raise AttributeError(f"a parameter or buffer is named by a dotted path, got {target!r}")
        path, _, name = target.rpartition(".")
        holder = self.get_submodule(path)
        if not hasattr(holder, name):
            raise AttributeError(f"{holder._get_name()} has no attribute `{name}` (looking for {target!r})")
        if holder._kinds.get(name) != kind:
            what = "an nn.Parameter" if kind == PARAMETER else "a buffer"
            raise AttributeError(f"`{name}` is not {what} (looking for {target!r})")
        return holder.__dict__[name]

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError if there is none."""
        return self._get_member(target, PARAMETER)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path. Raises AttributeError if there is none."""
        return self._get_member(target, BUFFER)

    # --- walking the tree

    def _own(self, kind: str) -> Iterator[tuple[str, Any]]:
        attributes = self.__dict__
        return iter([(name, attributes[name]) for name, k in self._kinds.items() if k == kind])

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, submodule) of the direct submodules, each once."""
        seen = set()
        for name, child in self._own(MODULE):
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        for _, child in self.named_children():
            yield child

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(dotted path, module) of the module itself and everything below it; shared ones once."""
        memo = set() if memo is None else memo
        if remove_duplicate:
            if self in memo:
                return
            memo.add(self)
        yield prefix, self
        for name, child in self._own(MODULE):
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """The module itself and everything below it, each once unless ``remove_duplicate=False``."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def _named(self, kind: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen = set()
        tree = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else ((prefix, self),)
        for path, module in tree:
            for name, value in module._own(kind):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) of the module and everything below it; shared ones once."""
        return self._named(PARAMETER, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of the module and everything below it, each once: what an optimizer takes."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer) of the module and everything below it; shared ones once."""
        return self._named(BUFFER, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of the module and everything below it, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    # --- changing the whole tree

    def apply(self: Self, fn: Callable[[Module], None]) -> Self:
        """Call ``fn`` on every submodule, then on the module itself: e.g. to initialize weights."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode (dropout drops, batch norm uses the batch's statistics) or, with False, evaluation mode."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Evaluation mode: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Train all parameters, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for parameter in self.parameters():
            grad = parameter._grad
            if grad is not None:
                if set_to_none:
                    parameter._grad = None
                    grad_was_set(parameter)
                else:
                    zero_in_place(parameter)

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replace every parameter's (and its gradient's) and buffer's storage by that of ``fn(it)``, in place."""
        if recurse:
            for child in self.children():
                child._apply(fn)
        attributes = self.__dict__
        with no_grad():
            for name, kind in self._kinds.items():
                value = attributes[name]
                if value is None or kind == MODULE:
                    continue
                if kind == BUFFER:
                    moved = fn(value)
                    if moved is not value:
                        if isinstance(value, Buffer):
                            moved = Buffer(moved, persistent=value.persistent)
                        attributes[name] = moved
                    continue
                value.data = fn(value)
                if value._grad is not None:
                    value._grad = fn(value._grad)
        return self

    def to(
        self: Self, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False,
        memory_format: Any = None,
    ) -> Self:  # fmt: skip
        """Move parameters and buffers to a device and/or, those that are floating point or complex, to a dtype.

        In place: parameters stay the same objects, so an optimizer keeps working on them. ``memory_format`` is the
        order in memory of those of 4 and 5 dimensions.
        Raises DTypeError for a dtype that is neither floating point nor complex.
        """
        from ..errors import DTypeError
        from ..ops.convert import _parse_to

        place, wanted = _parse_to(args, device, dtype)
        if wanted is not None and wanted.category < 2:
            raise DTypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={wanted}"
            )

        def move(x: Any) -> Tensor:
            kind = wanted if x.dtype.category >= 2 else None
            how = {"memory_format": memory_format} if memory_format is not None and x.ndim in (4, 5) else {}
            return x.to(device=place, dtype=kind, non_blocking=non_blocking, **how)

        return self._apply(move)

    def _cast(self: Self, name: str) -> Self:
        return self._apply(lambda x: getattr(x, name)() if x.dtype.is_floating_point else x)

    def float(self: Self) -> Self:
        """Floating-point parameters and buffers as float32."""
        return self._cast("float")

    def double(self: Self) -> Self:
        """Floating-point parameters and buffers as float64."""
        return self._cast("double")

    def half(self: Self) -> Self:
        """Floating-point parameters and buffers as float16."""
        return self._cast("half")

    def bfloat16(self: Self) -> Self:
        """Floating-point parameters and buffers as bfloat16."""
        return self._cast("bfloat16")

    def type(self: Self, dst_type: Any) -> Self:
        """All parameters and buffers in this dtype."""
        return self._apply(lambda x: x.to(dtype=dst_type))

    def cpu(self: Self) -> Self:
        """Parameters and buffers in host memory."""
        return self.to("cpu")

    def cuda(self: Self, device: Any = None) -> Self:
        """Parameters and buffers on an NVIDIA GPU."""
        return self.to("cuda" if device is None else device)

    def to_empty(self: Self, *, device: Any, recurse: bool = True) -> Self:
        """Parameters and buffers of the same shapes on a device, with no values set."""
        from ..ops.create import empty_like

        return self._apply(lambda x: empty_like(x, device=device), recurse)

    def share_memory(self: Self) -> Self:
        """Parameters and buffers in memory that processes share; see ``Tensor.share_memory_``."""
        return self._apply(lambda x: x.share_memory_())

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Let forward be what ``tensorgrad.compile`` makes of it, with the same arguments."""
        from ..compiler import compile

        compiled = compile(self.forward, *args, **kwargs)
        if compiled != self.forward:
            self.__dict__["forward"] = compiled

    # --- hooks

    @property
    def _forward_pre_hooks(self) -> hooks.HookView:
        return hooks.HookView(self, "before")

    @property
    def _forward_hooks(self) -> hooks.HookView:
        return hooks.HookView(self, "after")

    @property
    def _backward_hooks(self) -> hooks.HookView:
        return hooks.HookView(self, "backward_after")

    @property
    def _backward_pre_hooks(self) -> hooks.HookView:
        return hooks.HookView(self, "backward_before")

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> hooks.Handle:
        """Call ``hook(module, args)`` before forward; what it returns, unless None, takes the arguments' place.

        With ``with_kwargs`` it is ``hook(module, args, kwargs)``, returning None or (args, kwargs).
        """
        return hooks.of(self).add("before", hook, prepend, with_kwargs=with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> hooks.Handle:
        """Call ``hook(module, args, output)`` after forward; what it returns, unless None, takes the output's place.

        With ``with_kwargs`` it is ``hook(module, args, kwargs, output)``; with ``always_call`` it is called (with None)
        even if forward raises.
        """
        return hooks.of(self).add("after", hook, prepend, with_kwargs=with_kwargs, always_call=always_call)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> hooks.Handle:
        """Call ``hook(module, grad_output)`` before the gradients pass the module; it may return others."""
        return hooks.of(self).add("backward_before", hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> hooks.Handle:
        """Call ``hook(module, grad_input, grad_output)`` after the gradients passed the module.

        It may return other gradients for the inputs; those of inputs that are no tensors are None.
        """
        return hooks.of(self).add("backward_after", hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> hooks.Handle:
        """The older name of ``register_full_backward_hook``, and the same here."""
        return self.register_full_backward_hook(hook)

    # --- text

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's line; layers name their settings here."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {_indented(repr(child))}" for name, child in self._own(MODULE)]
        lines = extra.split("\n") if extra else []
        if not children and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return "\n  ".join([f"{self._get_name()}(", *lines, *children]) + "\n)"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def zero_in_place(parameter: Tensor) -> None:
    """Set a gradient to zero without touching anybody who shares its history."""
    grad = parameter._grad
    assert grad is not None
    if grad._tracked:
        grad = parameter._grad = grad.detach()
    grad.zero_()
