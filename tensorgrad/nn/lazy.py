"""Layers that learn the width of their input from the first one they see."""

from __future__ import annotations

from typing import Any

from .module import Module
from .parameter import is_lazy

__all__ = ["LazyModuleMixin"]


class LazyModuleMixin:
    """Makes a layer of one whose parameters have no shape yet; put it before the layer among the base classes.

    A subclass defines ``initialize_parameters(*args)``, called with the first forward's arguments, which materializes
    them; ``cls_to_become`` is the class that the layer has from then on.

    Example:
        >>> import tensorgrad as tg
        >>> class LazyScale(LazyModuleMixin, tg.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = tg.nn.UninitializedParameter()
        ...     def initialize_parameters(self, x):
        ...         self.weight.materialize((x.shape[-1],))
        ...         tg.nn.init.ones_(self.weight)
        ...     def forward(self, x):
        ...         return x * self.weight
        >>> tuple(LazyScale()(tg.zeros(2, 3)).shape)
        (2, 3)
    """

    cls_to_become: type[Module] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        watched: Any = self
        self._initialize_hook = watched.register_forward_pre_hook(_infer, with_kwargs=True)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Materialize the parameters for these arguments of forward; every subclass defines it."""
        raise NotImplementedError(
            f"initialize_parameters is not implemented for {type(self).__name__}: define it to materialize the "
            "parameters."
        )

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer of the module itself has no shape yet."""
        own: Any = self
        return any(is_lazy(x) for x in (*own._parameters.values(), *own._buffers.values()))


def _infer(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before the first forward: give the parameters their shapes, and the module its class."""
    module.initialize_parameters(*args, **kwargs)
    if module.has_uninitialized_params():
        raise RuntimeError(f"module {module._get_name()} has not been fully initialized by initialize_parameters")
    module._initialize_hook.remove()
    del module._initialize_hook
    if module.cls_to_become is not None:
        module.__class__ = module.cls_to_become
