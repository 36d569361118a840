"""What a call costs, from shapes and dtypes alone: floating-point operations, and bytes moved.

Products are counted as PyTorch counts them, 2 for each multiplication and addition. A formula costs its arithmetic
instructions for each element, a fused op what its definition costs, any other op one operation for each element of its
largest array; what only moves elements costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dispatch import OPS
from ..dtypes import key_of

__all__ = ["flops", "moved_bytes", "product_flops"]

_MOVES = frozenset((
    "reshape", "contiguous", "contiguous_copy", "permute", "expand", "slice", "slice_backward", "zeros_as", "empty_as",
    "cast", "copy_into", "full", "full_as", "assign", "view_scatter", "index", "index_put", "index_put_into",
    "one_hot", "move", "flip", "roll", "rearrange", "pad", "cat", "stack", "index_select", "diagonal",
    "diagonal_backward", "tril", "triu", "embedding", "padded_embedding", "gather", "scatter", "scatter_into",
    "as_strided", "restride", "real_part", "imag_part", "as_real", "as_complex", "unfold_dim", "unfold_windows",
    "linalg_take_rows", "linalg_order_rows", "max_unpool", "row_numbers", "grouped_rows",
))  # fmt: skip
_PICKS = frozenset(("index", "index_select", "embedding", "padded_embedding", "gather", "pooled_rows"))


def product_flops(name: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...], attrs: dict[str, Any]) -> int | None:
    """Operations of a product of matrices, a convolution, an attention or a recurrence; None for any other op."""
    if name in ("linear", "linear_activation", "matmul", "mv", "dot"):
        return 2 * _size(outputs[0]) * int(inputs[0].shape[-1])
    if name in ("linear_backward", "linear_activation_backward"):
        g, x = inputs[:2]
        products = sum(out is not None for out in outputs[:2])
        return 2 * products * _size(g) * int(x.shape[-1]) + (_size(g) if outputs[2] is not None else 0)
    if name == "conv":
        return 2 * _size(outputs[0]) * _window(inputs[1])
    if name == "conv_input_grad":
        return 2 * _size(inputs[0]) * _window(inputs[1])
    if name == "conv_weight_grad":
        return 2 * _size(inputs[0]) * _window(outputs[0])
    if name in ("attention", "attention_backward", "attention_dropout", "attention_dropout_backward"):
        forward = not name.endswith("_backward")
        q, k, v = inputs[:3] if forward else inputs[1:4]
        products = 2 * _size(q) // max(1, int(q.shape[-1])) * int(k.shape[-2]) * int(q.shape[-1] + v.shape[-1])
        if attrs.get("causal"):
            products //= 2  # what is masked is not computed
        return products if forward else products * 5 // 2
    if name in ("rnn_sequence", "rnn_sequence_backward"):
        x, weights = (inputs[0], inputs[3:8]) if name == "rnn_sequence" else (inputs[3], inputs[6:11])
        steps = _size(x) // max(1, int(x.shape[-1]))
        matrices = sum(_size(w) for w in weights if hasattr(w, "shape") and len(w.shape) == 2)
        return (2 if name == "rnn_sequence" else 4) * steps * matrices
    return None


def flops(op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> int:
    """Operations of a call. Inputs and outputs may be anything with a shape and a dtype."""
    if op.view or op.name in _MOVES or not any(_size(x) for x in _arrays(outputs)):
        return 0
    found = product_flops(op.name, inputs, outputs, attrs)
    if found is not None:
        return found
    if hasattr(op, "specialize"):
        keys = tuple(key_of(x) if not hasattr(x, "shape") else _key(x) for x in inputs)
        steps = sum(name not in ("load", "const", "cast", "wrap") for name, _, _ in op.specialize(keys).code)
        elements = math.prod(np.broadcast_shapes(*(x.shape for x in inputs if hasattr(x, "shape"))))
        return steps * max(elements, *map(_size, _arrays(outputs)))  # what it makes may be sums of its elements
    if op.define is not None:
        door = _Counting()
        op.define(door, *map(_blank, inputs), **{key: _blank(x) for key, x in attrs.items()})
        return door.total
    return max((_size(x) for x in _arrays((*inputs, *outputs))), default=0)


def moved_bytes(op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> int:
    """Bytes that a call reads and writes; none for a view, and of a table only the rows that are picked."""
    if op.view:
        return 0
    made = sum(_nbytes(x) for x in _arrays(outputs))
    read = [_nbytes(x) for x in {id(x): x for x in _arrays((inputs, tuple(attrs.values())))}.values()]
    if op.name in _PICKS and read:
        read[0] = min(read[0], made)
    return sum(read) + made


class _Counting:
    """A door that computes shapes alone, and adds up what its calls cost."""

    def __init__(self) -> None:
        from ..backends import registry

        self.raw = registry.get("null").raw
        self.total = 0

    def __getattr__(self, name: str) -> Any:
        kernel, op = getattr(self.raw, name), OPS[name]

        def counted(*inputs: Any, **attrs: Any) -> Any:
            outputs = kernel(*inputs, **attrs)
            self.total += flops(op, inputs, attrs, outputs if isinstance(outputs, tuple) else (outputs,))
            return outputs

        return counted


def _blank(what: Any) -> Any:
    """An array of that shape and dtype that takes no memory."""
    if type(what) in (list, tuple):
        return type(what)(map(_blank, what))
    if not (hasattr(what, "shape") and hasattr(what, "dtype")):  # a dtype has a shape
        return what
    return np.broadcast_to(np.zeros((), what.dtype), tuple(what.shape))


def _arrays(what: Any) -> Iterator[Any]:
    if type(what) in (list, tuple):
        for part in what:
            yield from _arrays(part)
    elif hasattr(what, "shape") and hasattr(what, "dtype"):
        yield what


def _key(x: Any) -> str:
    from ..dtypes import of_array

    name = of_array(x.dtype).name
    return name if len(x.shape) else name + ":0"


def _size(x: Any) -> int:
    return math.prod(map(int, x.shape)) if hasattr(x, "shape") else 0


def _nbytes(x: Any) -> int:
    return _size(x) * int(x.dtype.itemsize)


def _window(weight: Any) -> int:
    return _size(weight) // max(1, int(weight.shape[0]))
