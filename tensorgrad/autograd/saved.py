"""What the tape saves: hooks that pack it and unpack it when backward needs it, and tensors made of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import AutogradError
from ..tensor import Tensor, wrap
from .grad_mode import no_grad
from .node import Node, extras

__all__ = ["input_of", "save_on_cpu", "saved_tensors_hooks"]


def input_of(node: Node, position: int, array: Any) -> Tensor:
    """What a call saved of an input, as a Tensor that stands where the input stood on the tape."""
    edge = node.edges[position]
    if edge is not None and type(edge) is not Node and edge._data is array:
        return edge
    again = wrap(array)
    if type(edge) is Node:
        again._node, again._tracked = edge, True
        again._slot = node.slots[position] if node.slots else 0
    elif edge is not None:
        # a leaf whose data was set anew, or whose array a hook has packed: the call has read another one than it has
        from ..ops.shape_core import contiguous

        contiguous.record((edge,), [array], {}, (again,), (array,))
    return again


class _Packed:
    """The packed form of a node's saved arrays."""

    def __init__(self, unpack_hook: Callable[[Any], Any], saved: tuple[Any, ...], outputs: tuple[Any, ...]):
        self.unpack_hook = unpack_hook
        self.saved = saved
        self.outputs = outputs

    def unpack(self, node: Node) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(map(self._one, self.saved)), tuple(map(self._one, self.outputs))

    def _one(self, entry: Any) -> Any:
        packed, value = entry
        if not packed:
            return value
        tensor = self.unpack_hook(value)
        if not isinstance(tensor, Tensor):
            raise TypeError(f"saved_tensors_hooks: the unpack hook must return a Tensor, got {type(tensor).__name__}")
        return tensor._data


class saved_tensors_hooks:
    """Within the block, whatever is saved for backward passes ``pack_hook``, and ``unpack_hook`` when it is needed.

    ``pack_hook(tensor)`` returns any object; ``unpack_hook(object)`` must return a tensor with the same content.

    Example:
        >>> import tensorgrad as tg
        >>> x = tg.tensor([2.0], requires_grad=True)
        >>> with tg.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), tg.from_numpy):
        ...     y = x * x
        >>> y.backward()
        >>> x.grad.tolist()
        [4.0]
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]):
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook

    def _pack(self, node: Node) -> None:
        if node.packed is not None:
            return  # an inner block has packed it
        with no_grad():
            saved = tuple(map(self._one, node.saved))
            outputs = tuple(map(self._one, node.saved_outputs))
        if not any(packed for packed, _ in (*saved, *outputs)):
            return
        node.watched = True
        node.packed = _Packed(self.unpack_hook, saved, outputs)
        # what was packed is the hook's to keep safe from now on
        node.saved, node.saved_outputs = (), ()

    def _one(self, value: Any) -> tuple[bool, Any]:
        if hasattr(value, "dtype") and hasattr(type(value), "data"):
            return True, self.pack_hook(wrap(value))
        return False, value

    def __enter__(self) -> saved_tensors_hooks:
        # the innermost block packs first
        extras.on_finish = (self._pack, *extras.on_finish)
        extras.active = True
        return self

    def __exit__(self, *error: Any) -> None:
        hooks = list(extras.on_finish)
        hooks.remove(self._pack)
        extras.on_finish = tuple(hooks)
        extras.active = bool(hooks)


@contextmanager
def save_on_cpu(pin_memory: bool = False) -> Iterator[None]:
    """Within the block, saved tensors wait for backward in host memory.

    Raises AutogradError for ``pin_memory=True``: pinned host memory is not supported yet.
    """
    if pin_memory:
        raise AutogradError("save_on_cpu: pinned memory is not supported; leave pin_memory=False.")

    def pack(tensor: Tensor) -> Any:
        return tensor.device, tensor.cpu()

    def unpack(packed: Any) -> Tensor:
        device, tensor = packed
        return tensor.to(device)

    with saved_tensors_hooks(pack, unpack):
        yield
