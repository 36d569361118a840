"""Every op's translation to ONNX, in one table. Formulas need none (``formula.py``), nor do ops that are taken apart by
their definitions; what is left and not here can't be exported, and says so.

A translation gets the graph, then the op's inputs (``Value``s, numbers, None) and attributes, and returns the name of
its result, or several.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import Graph, Value, onnx_type
from .sizes import OnnxExporterError, Size

__all__ = ["TABLE", "translated"]

Translation = Callable[..., Any]
TABLE: dict[str, Translation] = {}

ONLY_IF: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], bool]] = {
    # with a mask a whole row may be hidden: Softmax gives NaN there, the definition 0; MatMul does not share heads
    "attention": lambda inputs, attrs: inputs[3] is None and inputs[0].shape[:-2] == inputs[1].shape[:-2],
}
_END = np.iinfo(np.int64).max


def translated(op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> bool:
    """Whether the table has this call."""
    return op.name in TABLE and (op.name not in ONLY_IF or ONLY_IF[op.name](inputs, attrs))


def translates(*names: str) -> Callable[[Translation], Translation]:
    def enter(function: Translation) -> Translation:
        for name in names:
            TABLE[name] = function
        return function

    return enter


def _fixed(what: str, *sizes: Any) -> tuple[int, ...]:
    if any(isinstance(size, Size) for size in sizes):
        raise OnnxExporterError(f"{what} needs sizes that do not depend on the inputs', got {sizes}.")
    return sizes


# --- shapes


@translates("contiguous", "contiguous_copy")
def _same(g: Graph, x: Value) -> str:
    return x.name


@translates("reshape")
def _reshape(g: Graph, x: Value, *, shape: Any) -> str:
    if tuple(shape) == x.shape:
        return x.name
    return g.node("Reshape", x, g.shape_for_reshape(tuple(shape)), allowzero=1 if 0 in shape else None)


@translates("permute")
def _permute(g: Graph, x: Value, *, dims: Any) -> str:
    return x.name if list(dims) == sorted(dims) else g.node("Transpose", x, perm=list(dims))


@translates("expand")
def _expand(g: Graph, x: Value, *, shape: Any) -> str:
    return x.name if tuple(shape) == x.shape else g.node("Expand", x, g.sizes(shape))


@translates("slice")
def _slice(g: Graph, x: Value, *, key: Any) -> str:
    """Integers and slices along the input's axes, then the new axes of None."""
    name, axis, drop, new, place = x.name, 0, [], [], 0
    starts, ends, axes, steps = [], [], [], []
    for part in key:
        if part is None:
            new.append(place)
            place += 1
            continue
        if isinstance(part, slice):
            step = 1 if part.step is None else part.step
            start = 0 if part.start is None else part.start
            whole = part.stop is None or part.stop == x.shape[axis]
            if not (whole and start == 0 and step == 1):
                starts.append(start)
                ends.append(_END if whole and step > 0 else part.stop)
                axes.append(axis)
                steps.append(step)
            place += 1
        else:
            starts.append(part)
            ends.append(_END if part == -1 else _next(part))
            axes.append(axis)
            steps.append(1)
            drop.append(axis)
        axis += 1
    if axes:
        name = g.node("Slice", name, g.sizes(starts), g.sizes(ends), g.constant(axes), g.sizes(steps))
    if drop:
        name = g.node("Squeeze", name, g.constant(drop))
    return g.node("Unsqueeze", name, g.constant(new)) if new else name


def _next(position: int | Size) -> int | Size:
    if isinstance(position, int):
        return position + 1
    return Size({**position.terms, (): position.terms.get((), 0) + 1})


@translates("zeros_as")
def _zeros_as(g: Graph, x: Value, *, shape: Any) -> str:
    return g.filled(0, tuple(shape), x.dtype)


@translates("full_as")
def _full_as(g: Graph, x: Value, *, value: Any) -> str:
    return g.filled(value, x.shape, x.dtype)


@translates("full")
def _full(g: Graph, *, shape: Any, value: Any, dtype: Any) -> str:
    return g.filled(value, tuple(shape), dtype)


@translates("ramp")
def _ramp(g: Graph, *, first: Any, by: Any, count: Any) -> str:
    return g.counted(count, first, by, np.dtype(np.int64))


@translates("copy_into")
def _copy_into(g: Graph, target: Value, source: Value) -> str:
    name = g.cast(source.name, source.dtype, target.dtype)
    return name if source.shape == target.shape else g.node("Expand", name, g.sizes(target.shape))


@translates("view_write")
def _view_write(g: Graph, base: Value, part: Value, *, view: str, attrs: dict[str, Any]) -> str:
    """``base`` after its view ``part`` was written to."""
    if view == "reshape":
        return _reshape(g, part, shape=base.shape)
    if view == "permute":
        dims = list(attrs["dims"])
        return _moved(g, part.name, [dims.index(d) for d in range(base.ndim)])
    if view != "slice":
        raise OnnxExporterError(f"the model writes through a view made by {view}; write out of place.")
    bounds, axis, place = [], 0, 0
    name = part.name
    for key in attrs["key"]:
        if key is None:
            name = g.node("Squeeze", name, g.constant([place]))
            continue
        if isinstance(key, slice):
            start, stop = key.start or 0, base.shape[axis] if key.stop is None else key.stop
            if key.step not in (None, 1):
                raise OnnxExporterError("the model writes through a slice with steps; write out of place.")
        else:
            start, stop = key, _next(key)
            name = g.node("Unsqueeze", name, g.constant([axis]))
        if start != 0 or stop != base.shape[axis]:
            bounds.append((axis, start, stop))
        place += 1
        axis += 1
    return _placed(g, base.name, name, bounds)


def _placed(g: Graph, base: str, part: str, bounds: list[tuple[int, Any, Any]]) -> str:
    """``base`` with ``part`` where the bounds (axis, start, stop) meet."""
    if not bounds:
        return part
    (axis, start, stop), *others = bounds

    def cut(begin: Any, end: Any) -> str:
        return g.node("Slice", base, g.size(begin), g.size(end), g.constant([axis]))

    inner = _placed(g, cut(start, stop), part, others) if others else part
    return g.node("Concat", cut(0, start), inner, cut(stop, _END), axis=axis)


@translates("cast")
def _cast(g: Graph, x: Value, *, dtype: Any) -> str:
    return g.cast(x.name, x.dtype, np.dtype(dtype))


@translates("cat")
def _cat(g: Graph, *parts: Value, dim: int) -> str:
    return parts[0].name if len(parts) == 1 else g.node("Concat", *parts, axis=dim)


@translates("steps")
def _steps(g: Graph, x: Value) -> tuple[str | None, ...]:
    return tuple(
        g.node("Gather", x, g.constant(i), axis=0) if wanted else None for i, wanted in enumerate(g.wanted)
    )  # fmt: skip


@translates("flip")
def _flip(g: Graph, x: Value, *, dims: Any) -> str:
    if not dims:
        return x.name
    least = [-_END] * len(dims)
    back = g.constant([-1] * len(dims))
    return g.node("Slice", x, back, g.constant(least), g.constant(list(dims)), back)


@translates("roll")
def _roll(g: Graph, x: Value, *, shifts: Any, dims: Any) -> str:
    name = x.name
    for shift, dim in zip(shifts, dims, strict=True):
        (size,) = _fixed("roll along a dimension", x.shape[dim])
        cut = -shift % size if size else 0
        if cut:
            at, axes = g.constant([cut]), g.constant([dim])
            last = g.node("Slice", name, at, g.constant([_END]), axes)
            name = g.node("Concat", last, g.node("Slice", name, g.constant([0]), at, axes), axis=dim)
    return name


@translates("pad")
def _pad(g: Graph, x: Value, *, pads: Any, mode: str, value: Any) -> str:
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode == "circular" and g.opset < 19:
        raise OnnxExporterError("pad: circular padding needs opset 19 or later.")
    ends = g.sizes([before for before, _ in pads] + [after for _, after in pads])
    filler = g.constant(value, x.dtype) if mode == "constant" else None
    return g.node("Pad", x, ends, filler, mode=modes[mode])


def _triangle(upper: int) -> Translation:
    return lambda g, x, *, diagonal: g.node("Trilu", x, g.constant(diagonal), upper=upper)


TABLE["tril"], TABLE["triu"] = _triangle(0), _triangle(1)


# --- products and reductions


@translates("matmul")
def _matmul(g: Graph, a: Value, b: Value) -> str:
    return g.node("MatMul", a, b)


@translates("linear")
def _linear(g: Graph, x: Value, w: Value, b: Value | None) -> str:
    if x.ndim == 2:
        return g.node("Gemm", x, w, b, transB=1)
    product = g.node("MatMul", x, g.node("Transpose", w, perm=[1, 0]))
    return product if b is None else g.node("Add", product, b)


def _reduced(g: Graph, kind: str, x: Any, dim: Any, keepdim: bool) -> str:
    axes, keep = list(dim), int(keepdim)
    if kind == "ReduceSum" or g.opset >= 18:
        return g.node(kind, x, g.constant(axes), keepdims=keep, noop_with_empty_axes=1)
    return g.node(kind, x, axes=axes, keepdims=keep) if axes else g.node("Identity", x)


def _reduction(kind: str) -> Translation:
    def translate(g: Graph, x: Value, *, dim: Any, keepdim: bool) -> str:
        ((_, dtype),) = g.results
        return _reduced(g, kind, g.cast(x.name, x.dtype, dtype), dim, keepdim)

    return translate


for _name, _kind in (("sum", "ReduceSum"), ("prod", "ReduceProd"), ("mean", "ReduceMean"), ("amax", "ReduceMax"),
                     ("amin", "ReduceMin")):  # fmt: skip
    TABLE[_name] = _reduction(_kind)


@translates("sum_to")
def _sum_to(g: Graph, x: Value, *, shape: Any) -> str:
    lead = x.ndim - len(shape)
    dim = [*range(lead), *(lead + i for i, size in enumerate(shape) if size == 1 and x.shape[lead + i] != 1)]
    name = _reduced(g, "ReduceSum", x, dim, True) if dim else x.name
    return g.node("Squeeze", name, g.constant(list(range(lead)))) if lead else name


def _truth(every: bool) -> Translation:
    """Whether all hold (none does not), or any does: by counting, which is right for no elements too."""

    def translate(g: Graph, x: Value, *, dim: Any, keepdim: bool) -> str:
        holds = g.cast(x.name, x.dtype, np.dtype(bool))
        counted = g.node("Cast", g.node("Not", holds) if every else holds, to=7)
        none = g.node("Equal", _reduced(g, "ReduceSum", counted, dim, keepdim), g.constant(0))
        found = none if every else g.node("Not", none)
        return g.cast(found, np.dtype(bool), g.results[0][1])

    return translate


TABLE["any"], TABLE["all"] = _truth(False), _truth(True)


@translates("count_nonzero")
def _count(g: Graph, x: Value, *, dim: Any, keepdim: bool) -> str:
    holds = g.cast(x.name, x.dtype, np.dtype(bool))
    return _reduced(g, "ReduceSum", g.node("Cast", holds, to=7), dim, keepdim)


@translates("var")
def _var(g: Graph, x: Value, *, dim: Any, correction: float, keepdim: bool) -> str:
    away = g.node("Sub", x, _reduced(g, "ReduceMean", x, dim, True))
    total = _reduced(g, "ReduceSum", g.node("Mul", away, away), dim, keepdim)
    count: int | str = 1
    for axis in dim:
        size = x.shape[axis]
        if isinstance(count, int) and isinstance(size, int):
            count *= size
        else:
            left = g.constant([count]) if isinstance(count, int) else count
            count = g.node("Mul", left, g.size(size))
    if isinstance(count, int):
        return g.node("Div", total, g.constant(max(count - correction, 0), x.dtype))
    whole = g.node("Cast", g.node("Squeeze", count, g.constant([0])), to=onnx_type(x.dtype))
    rest = g.node("Sub", whole, g.constant(correction, x.dtype))
    return g.node("Div", total, g.node("Max", rest, g.constant(0, x.dtype)))


def _position(kind: str) -> Translation:
    def translate(g: Graph, x: Value, *, dim: int | None, keepdim: bool = False) -> str:
        if dim is None:
            flat = g.node("Reshape", x, g.constant([-1]))
            found = g.node(kind, flat, axis=0, keepdims=0)
            return g.node("Reshape", found, g.constant([1] * x.ndim)) if keepdim else found
        return g.node(kind, x, axis=dim, keepdims=int(keepdim))

    return translate


TABLE["argmax"], TABLE["argmin"] = _position("ArgMax"), _position("ArgMin")


def _extreme(values: str, where: str) -> Translation:
    def translate(g: Graph, x: Value, *, dim: int, keepdim: bool) -> tuple[str | None, ...]:
        return (
            _reduced(g, values, x, [dim], keepdim) if g.wanted[0] else None,
            g.node(where, x, axis=dim, keepdims=int(keepdim)) if g.wanted[1] else None,
        )

    return translate


TABLE["max_dim"], TABLE["min_dim"] = _extreme("ReduceMax", "ArgMax"), _extreme("ReduceMin", "ArgMin")


@translates("topk")
def _topk(g: Graph, x: Value, *, k: Any, dim: int, largest: bool, sorted: bool) -> Any:
    return g.node("TopK", x, g.size(k), count=2, axis=dim, largest=int(largest), sorted=int(sorted))


@translates("sort")
def _sort(g: Graph, x: Value, *, dim: int, descending: bool, stable: bool) -> Any:
    return g.node("TopK", x, g.size(x.shape[dim]), count=2, axis=dim, largest=int(descending), sorted=1)


@translates("cumsum")
def _cumsum(g: Graph, x: Value, *, dim: int) -> str:
    return g.node("CumSum", g.cast(x.name, x.dtype, g.results[0][1]), g.constant(dim))


# --- indexing


@translates("embedding")
def _embedding(g: Graph, weight: Value, index: Value) -> str:
    return g.node("Gather", weight, index, axis=0)


@translates("index_select")
def _index_select(g: Graph, x: Value, index: Value, *, dim: int) -> str:
    where = index.name if index.ndim else g.node("Reshape", index, g.constant([1]))
    return g.node("Gather", x, where, axis=dim)


@translates("nonzero")
def _nonzero(g: Graph, x: Value) -> str:
    raise OnnxExporterError(
        "the model indexes by a mask (or calls nonzero): how many elements that gives depends on their values. Use "
        "torch.where or masked_fill, which keep the shape."
    )


def _moved(g: Graph, name: str, perm: list[int]) -> str:
    return name if perm == sorted(perm) else g.node("Transpose", name, perm=perm)


def _first_axis(spec: Any) -> int:
    """Where the indices' common axes come in the result: in the indexed ones' place if those are neighbours."""
    return spec[0] if spec[-1] - spec[0] == len(spec) - 1 else 0


def _broadcast(shapes: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def _places(g: Graph, indices: tuple[Value, ...], sizes: tuple[Any, ...]) -> str:
    """The indices as one array (sizes, number of indices), as GatherND and ScatterND take them."""
    wide = [i.name if i.shape == sizes else g.node("Expand", i, g.sizes(sizes)) for i in indices]
    return g.node("Concat", *[g.node("Unsqueeze", i, g.constant([-1])) for i in wide], axis=-1)


@translates("index")
def _index(g: Graph, x: Value, *indices: Value, spec: Any) -> str:
    if len(indices) == 1:
        return g.node("Gather", x, indices[0], axis=spec[0])
    common, first = _broadcast([i.shape for i in indices]), _first_axis(spec)
    name = _moved(g, x.name, [*spec, *(d for d in range(x.ndim) if d not in spec)])
    found = g.node("GatherND", name, _places(g, indices, common))
    lead, rank = len(common), len(common) + x.ndim - len(spec)
    return _moved(g, found, [*range(lead, lead + first), *range(lead), *range(lead + first, rank)])


@translates("index_put", "index_put_into")
def _index_put(g: Graph, x: Value, value: Value, *indices: Value, spec: Any, accumulate: bool) -> str:
    common, first = _broadcast([i.shape for i in indices]), _first_axis(spec)
    order = [*spec, *(d for d in range(x.ndim) if d not in spec)]
    rest = tuple(x.shape[d] for d in order[len(spec) :])
    target = (*rest[:first], *common, *rest[first:])
    name = value.name if value.shape == target else g.node("Expand", value, g.sizes(target))
    lead = len(common)
    name = _moved(g, name, [*range(first, first + lead), *range(first), *range(first + lead, len(target))])
    done = g.node("ScatterND", _moved(g, x.name, order), _places(g, indices, common), name,
                  reduction="add" if accumulate else None)  # fmt: skip
    return _moved(g, done, [order.index(d) for d in range(x.ndim)])


@translates("index_add", "index_add_into")
def _index_add(g: Graph, x: Value, index: Value, source: Value, *, dim: int) -> str:
    column = g.node("Reshape", index, g.constant([-1 if d == dim else 1 for d in range(x.ndim)]))
    places = g.node("Expand", column, g.sizes(source.shape))
    return g.node("ScatterElements", x, places, source, axis=dim, reduction="add")


@translates("unfold_dim")
def _windows(g: Graph, x: Value, *, dim: int, size: int, step: int) -> str:
    (length,) = _fixed("unfold", x.shape[dim])
    starts = np.arange(0, length - size + 1, step)
    found = g.node("Gather", x, g.constant(starts[:, None] + np.arange(size)), axis=dim)
    return _moved(g, found, [*(d for d in range(x.ndim + 1) if d != dim + 1), dim + 1])


@translates("gather")
def _gather(g: Graph, x: Value, index: Value, *, dim: int) -> str:
    inner = [slice(None) if d == dim else slice(0, size) for d, size in enumerate(index.shape)]
    name = _slice(g, x, key=tuple(inner)) if index.shape != x.shape else x.name
    return g.node("GatherElements", name, index, axis=dim)


@translates("one_hot")
def _one_hot(g: Graph, x: Value, *, classes: int) -> str:
    return g.node("OneHot", x, g.sizes([classes]), g.constant([0, 1]))


def _scatter(reduction: str | None) -> Translation:
    def translate(g: Graph, x: Value, index: Value, source: Value, *, dim: int) -> str:
        if source.shape != index.shape:
            source_name = _slice(g, source, key=tuple(slice(0, size) for size in index.shape))
        else:
            source_name = source.name
        return g.node("ScatterElements", x, index, source_name, axis=dim, reduction=reduction)

    return translate


TABLE["scatter"] = TABLE["scatter_into"] = _scatter(None)
TABLE["scatter_add"] = TABLE["scatter_add_into"] = _scatter("add")


# --- layers


@translates("conv")
def _conv(
    g: Graph, x: Value, w: Value, b: Value | None, *, stride: Any, padding: Any, dilation: Any, groups: int
) -> str:
    return g.node("Conv", x, w, b, strides=list(stride), pads=[*padding, *padding], dilations=list(dilation),
                  group=groups)  # fmt: skip


@translates("conv_input_grad")
def _transposed(
    g: Graph, x: Value, w: Value, *, input_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> str:
    wanted, have = _fixed("conv_transpose", *input_shape[2:]), _fixed("conv_transpose", *x.shape[2:])
    extra = [
        size - ((n - 1) * s - 2 * p + d * (k - 1) + 1)
        for size, n, s, p, d, k in zip(wanted, have, stride, padding, dilation, w.shape[2:], strict=True)
    ]
    return g.node("ConvTranspose", x, w, strides=list(stride), pads=[*padding, *padding], dilations=list(dilation),
                  group=groups, output_padding=extra)  # fmt: skip


@translates("max_pool")
def _max_pool(
    g: Graph, x: Value, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[str, None]:
    if g.wanted[1]:
        raise OnnxExporterError("max_pool: the places of the maxima (return_indices=True) can't be exported.")
    name = g.node("MaxPool", x, kernel_shape=list(kernel), strides=list(stride), pads=[*padding, *padding],
                  dilations=list(dilation), ceil_mode=int(ceil_mode))  # fmt: skip
    return name, None


@translates("avg_pool")
def _avg_pool(
    g: Graph, x: Value, *, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> str:  # fmt: skip
    name = g.node("AveragePool", x, kernel_shape=list(kernel), strides=list(stride), pads=[*padding, *padding],
                  ceil_mode=int(ceil_mode),
                  count_include_pad=int(count_include_pad or divisor_override is not None))  # fmt: skip
    if divisor_override is None:
        return name
    if ceil_mode:
        raise OnnxExporterError("avg_pool: divisor_override together with ceil_mode can't be exported.")
    return g.node("Mul", name, g.constant(math.prod(kernel) / divisor_override, x.dtype))


def _adaptive(pool: str, everywhere: str) -> Translation:
    def translate(g: Graph, x: Value, *, output_size: Any) -> str:
        if all(size == 1 for size in output_size):
            return g.node(everywhere, x)
        have = _fixed("adaptive pooling to more than one element", *x.shape[2:])
        if any(n % size for n, size in zip(have, output_size, strict=True)):
            raise OnnxExporterError(
                f"adaptive pooling of {have} to {tuple(output_size)}: windows of unequal sizes can't be exported; "
                "choose an output size that divides the input's."
            )
        kernel = [n // size for n, size in zip(have, output_size, strict=True)]
        return g.node(pool, x, kernel_shape=kernel, strides=kernel)

    return translate


TABLE["adaptive_avg_pool"] = _adaptive("AveragePool", "GlobalAveragePool")


@translates("adaptive_max_pool")
def _adaptive_max(g: Graph, x: Value, *, output_size: Any) -> tuple[str, None]:
    if g.wanted[1]:
        raise OnnxExporterError("adaptive_max_pool: the places of the maxima can't be exported.")
    return _adaptive("MaxPool", "GlobalMaxPool")(g, x, output_size=output_size), None


@translates("layer_norm")
def _layer_norm(g: Graph, x: Value, w: Value | None, b: Value | None, *, ndim: int, eps: float) -> Any:
    if g.wanted[1] or g.wanted[2]:
        raise OnnxExporterError("layer_norm: its statistics can't be exported.")
    scale = w or g.constant(np.ones(_fixed("layer_norm", *x.shape[x.ndim - ndim :])), x.dtype)
    return g.node("LayerNormalization", x, scale, b, axis=-ndim, epsilon=eps), None, None


@translates("batch_norm_eval")
def _batch_norm(
    g: Graph, x: Value, w: Value | None, b: Value | None, mean: Value, var: Value, *, eps: float
) -> str:  # fmt: skip
    one, zero = (g.constant(np.full(mean.shape, value), x.dtype) for value in (1, 0))
    return g.node("BatchNormalization", x, w or one, b or zero, mean, var, epsilon=eps)


def _softmax(kind: str) -> Translation:
    def translate(g: Graph, x: Value, *, dim: int) -> str:
        if x.ndim:
            return g.node(kind, x, axis=dim)
        row = g.node(kind, g.node("Reshape", x, g.constant([1])), axis=0)
        return g.node("Squeeze", row, g.constant([0]))

    return translate


TABLE["softmax"], TABLE["log_softmax"] = _softmax("Softmax"), _softmax("LogSoftmax")


@translates("attention")
def _attention(g: Graph, q: Value, k: Value, v: Value, mask: None, *, causal: bool, scale: float) -> Any:
    if g.wanted[1]:
        raise OnnxExporterError("attention: the sums of its weights can't be exported.")
    swapped = g.node("Transpose", k, perm=[*range(k.ndim - 2), k.ndim - 1, k.ndim - 2])
    scores = g.node("MatMul", g.node("Mul", q, g.constant(scale, q.dtype)), swapped)
    if causal:
        square = g.filled(1.0, (q.shape[-2], k.shape[-2]), np.dtype(np.float32))
        seen = g.node("Cast", g.node("Trilu", square, upper=0), to=9)
        scores = g.node("Where", seen, scores, g.constant(-math.inf, q.dtype))
    return g.node("MatMul", g.node("Softmax", scores, axis=-1), v), None


_MODES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nearest": ("nearest", "asymmetric", {"nearest_mode": "floor"}),
    "nearest-exact": ("nearest", "half_pixel", {"nearest_mode": "round_prefer_ceil"}),
    "linear": ("linear", "half_pixel", {}),
    "cubic": ("cubic", "half_pixel", {"cubic_coeff_a": -0.75}),
}


@translates("resize")
def _resize(g: Graph, x: Value, *, sizes: Any, mode: str, scales: Any, align_corners: bool, antialias: bool) -> str:
    kind, places, attrs = _MODES[mode]
    if antialias:
        if g.opset < 18:
            raise OnnxExporterError("interpolate: antialias needs opset 18 or later.")
        # the filter of PyTorch's, which is that of PIL
        attrs = {**attrs, "antialias": 1, "exclude_outside": 1}
        if mode == "cubic":
            attrs["cubic_coeff_a"] = -0.5
    if any(scale is None for scale in scales) and any(scale is not None for scale in scales):
        raise OnnxExporterError("interpolate: a scale for some axes and none for others can't be exported.")
    if all(scale is not None for scale in scales):
        factors, target = g.constant([1.0, 1.0, *scales], np.float32), None
    else:
        factors, target = None, g.sizes([*x.shape[:2], *sizes])
    return g.node("Resize", x, None, factors, target, mode=kind,
                  coordinate_transformation_mode="align_corners" if align_corners else places, **attrs)  # fmt: skip
