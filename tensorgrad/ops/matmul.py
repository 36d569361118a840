"""Products of matrices: matmul and its relatives, and ``linear`` with its fused backward."""

from __future__ import annotations

from typing import Any

from ..dtypes import promote_types
from ..errors import DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .checks import conjugate, product, require_optional, require_same_dtype, require_tensors, reshaped, shaped, swapped
from .elementwise import broadcast_shape
from .inplace import deliver, deliver_same, write_into
from .record import Spec, op
from .samples import Arg, Sample
from .shape_core import one_dim, permute, reshape
from .storable import check_factor, stored_number

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "dot", "ger", "inner", "kron", "matmul", "mm", "mv", "outer",
    "tensordot", "vdot",
]  # fmt: skip


# --- matmul


def _matmul_infer(a: Any, b: Any) -> Spec:
    left, right = a.shape, b.shape
    if a.dtype is not b.dtype:
        require_same_dtype("matmul", a, other=b)
    if a.dtype.kind == "b":
        raise DTypeError("matmul: not defined for bool; convert with .float() or .long().")
    if len(left) < 2 or len(right) < 2:
        raise ShapeError(f"matmul: expected matrices, got shapes {tuple(left)} and {tuple(right)}.")
    if left[-1] != right[-2]:
        raise ShapeError(
            f"matmul: mat1 and mat2 shapes cannot be multiplied: {tuple(left)} has {left[-1]} columns, "
            f"{tuple(right)} has {right[-2]} rows; they must be equal."
        )
    if len(left) == 2 == len(right):
        return Spec((left[0], right[1]), a.dtype)
    if left[:-2] == right[:-2]:
        return Spec((*left[:-1], right[-1]), a.dtype)
    return Spec((*broadcast_shape("matmul", left[:-2], right[:-2]), left[-2], right[-1]), a.dtype)


def _folds(a: Any, b: Any) -> bool:
    """A batch times one matrix is one product of tall matrices."""
    return b.ndim == 2 and a.ndim > 2


def _lies_turned(x: Any) -> bool:
    """Whether its matrices lie transposed. Gradients are made to lie as their operand does: behind the transposition,
    where they meet others, they are rows again."""
    steps = getattr(getattr(x, "_data", x), "strides", None)  # of one that was not kept there is but the shape
    return steps is not None and steps[-2] < steps[-1]


def _matmul_rule(F: Any, g: Any, a: Any, b: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    to_a = to_b = None
    if needs[0]:
        if _lies_turned(a):
            to_a = swapped(F, F.matmul(conjugate(F, b), swapped(F, g)))
        else:
            to_a = F.matmul(g, swapped(F, conjugate(F, b)))
        if tuple(to_a.shape) != tuple(a.shape):
            to_a = F.sum_to(to_a, shape=tuple(a.shape))
    if needs[1]:
        left, right = a, g
        if _folds(a, b):
            rows, (k, n) = product(a.shape[:-1]), b.shape
            left, right = reshaped(F, a, (rows, k)), reshaped(F, g, (rows, n))
        if _lies_turned(b):
            to_b = swapped(F, F.matmul(swapped(F, right), conjugate(F, left)))
        else:
            to_b = F.matmul(swapped(F, conjugate(F, left)), right)
        if tuple(to_b.shape) != tuple(b.shape):
            to_b = F.sum_to(to_b, shape=tuple(b.shape))
    return to_a, to_b


def _matmul_samples() -> list[Sample]:
    shapes = [
        ("matrices", (3, 4), (4, 2), "C"),
        ("transposed", (3, 4), (4, 2), "T"),
        ("strided", (3, 4), (4, 2), "step"),
        ("batched", (2, 3, 4), (2, 4, 2), "C"),
        ("shared right", (2, 3, 4), (4, 2), "C"),
        ("shared left", (3, 4), (2, 4, 2), "C"),
        ("broadcast", (2, 1, 3, 4), (3, 4, 2), "C"),
        ("no rows", (0, 4), (4, 2), "C"),
        ("no terms", (3, 0), (0, 2), "C"),
        ("no batch", (0, 3, 4), (4, 2), "C"),
    ]
    return [Sample((Arg(a, layout=layout), Arg(b, layout=layout)), name=name) for name, a, b, layout in shapes]


matmul_op = op(
    "matmul",
    infer=_matmul_infer,
    rule=_matmul_rule,
    keeps=("a", "b"),
    reads={"a": ("b",), "b": ("a",)},
    checked=True,
    samples=_matmul_samples,
    doc="The product of (batches of) matrices, batch dimensions broadcast; half precision sums in float32.",
)


# --- linear


def _linear_infer(x: Any, w: Any, b: Any) -> Spec:
    shape, wide = x.shape, w.shape
    if len(wide) != 2:
        raise ShapeError(f"linear: the weight must be a matrix (out, in), got shape {tuple(w.shape)}.")
    if not shape or shape[-1] != wide[1]:
        if not shape:
            raise ShapeError("linear: the input must have at least one dimension.")
        raise ShapeError(
            f"linear: input has {x.shape[-1]} features, weight {tuple(w.shape)} expects {w.shape[1]}. "
            f"Use Linear({x.shape[-1]}, {w.shape[0]}), or reshape the input to (..., {w.shape[1]})."
        )
    dtype = x.dtype
    if w.dtype is not dtype or (b is not None and b.dtype is not dtype):
        require_same_dtype("linear", x, weight=w, bias=b)
    if b is not None and b.shape != wide[:1]:
        raise ShapeError(f"linear: bias has shape {tuple(b.shape)}, weight {tuple(w.shape)} expects ({w.shape[0]},).")
    return Spec(shape[:-1] + wide[:1], dtype)


def _linear_define(F: Any, x: Any, w: Any, b: Any) -> Any:
    n, k = w.shape
    y = F.matmul(reshaped(F, x, (product(x.shape[:-1]), k)), swapped(F, w))
    if b is not None:
        y = F.add(y, b)
    return reshaped(F, y, (*x.shape[:-1], n))


def _linear_rule(F: Any, g: Any, x: Any, w: Any, b: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    if not isinstance(x, Spec):
        return F.linear_backward(g, x, w, needs=needs)
    # a weight without gradient: the input, which may be all that is left of a layer's memory, was not kept
    n, rows = w.shape[0], product(x.shape[:-1])
    flat = reshaped(F, g, (rows, n))
    to_x = reshaped(F, F.matmul(flat, conjugate(F, w)), tuple(x.shape)) if needs[0] else None
    return to_x, None, F.sum(flat, dim=(0,), keepdim=False) if needs[2] else None


def _linear_samples() -> list[Sample]:
    rows = [("rows", (3, 4)), ("vector", (4,)), ("batch", (2, 3, 4)), ("empty", (0, 4))]
    samples = [Sample((Arg(shape), Arg((5, 4)), Arg((5,))), name=name) for name, shape in rows]
    samples.append(Sample((Arg((3, 4), layout="T"), Arg((5, 4), layout="T"), None), name="no bias"))
    return samples


linear_op = op(
    "linear",
    infer=_linear_infer,
    define=_linear_define,
    rule=_linear_rule,
    keeps=("x", "w"),
    reads={"x": ("w",), "w": ("x",)},
    held=("w",),
    checked=True,
    samples=_linear_samples,
    doc="``x @ w.T + b``: x (..., k), w (n, k), b (n,) or None; the result is (..., n).",
)


def _linear_backward_infer(g: Any, x: Any, w: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    n = w.shape[0]
    return (
        Spec(tuple(x.shape), x.dtype) if needs[0] else None,
        Spec(tuple(w.shape), w.dtype) if needs[1] else None,
        Spec((n,), w.dtype) if needs[2] else None,
    )


def _linear_backward_define(F: Any, g: Any, x: Any, w: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    (n, k), rows = w.shape, product(x.shape[:-1])
    g = reshaped(F, g, (rows, n))
    to_x = to_w = to_b = None
    if needs[0]:
        to_x = reshaped(F, F.matmul(g, conjugate(F, w)), tuple(x.shape))
    if needs[1]:
        to_w = F.matmul(swapped(F, g), conjugate(F, reshaped(F, x, (rows, k))))
    if needs[2]:
        to_b = F.sum(g, dim=(0,), keepdim=False)
    return to_x, to_w, to_b


def _linear_backward_samples() -> list[Sample]:
    return [
        Sample((Arg((3, 5)), Arg((3, 4)), Arg((5, 4))), {"needs": (True, True, True)}, name="all"),
        Sample((Arg((2, 3, 5)), Arg((2, 3, 4)), Arg((5, 4))), {"needs": (True, False, True)}, name="batch"),
        Sample((Arg((0, 5)), Arg((0, 4)), Arg((5, 4))), {"needs": (False, True, True)}, name="empty"),
    ]


linear_backward = op(
    "linear_backward",
    infer=_linear_backward_infer,
    define=_linear_backward_define,
    outputs=("gx", "gw", "gb"),
    apart=True,
    samples=_linear_backward_samples,
    doc="The gradients of ``linear``'s inputs that are needed; None for the others.",
)


def _dot_infer(a: Any, b: Any) -> Spec:
    if a.dtype is not b.dtype or a.dtype.kind == "b" or a.shape != b.shape:
        _matmul_infer(Spec((1, *a.shape), a.dtype), Spec((*b.shape, 1), b.dtype))
    return Spec((), a.dtype)


def _dot_rule(F: Any, g: Any, a: Any, b: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    return (
        F.mul(g, conjugate(F, b)) if needs[0] else None,
        F.mul(g, conjugate(F, a)) if needs[1] else None,
    )


dot_op = op(
    "dot",
    infer=_dot_infer,
    define=lambda F, a, b: F.reshape(F.matmul(reshaped(F, a, (1, *a.shape)), reshaped(F, b, (*b.shape, 1))), shape=()),
    rule=_dot_rule,
    keeps=("a", "b"),
    reads={"a": ("b",), "b": ("a",)},
    checked=True,
    samples=lambda: [
        Sample((Arg((5,)), Arg((5,))), name="vectors"),
        Sample((Arg((4,), layout="step"), Arg((4,))), name="strided"),
        Sample((Arg((0,)), Arg((0,))), name="empty"),
    ],
    doc="The sum of the products of two vectors' elements; nothing is conjugated.",
)


def _mv_infer(a: Any, x: Any) -> Spec:
    _matmul_infer(a, Spec((*x.shape, 1), x.dtype))
    return Spec(tuple(a.shape[:1]), a.dtype)


def _mv_rule(F: Any, g: Any, a: Any, x: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    return (
        F.mul(reshaped(F, g, (a.shape[0], 1)), conjugate(F, x)) if needs[0] else None,
        F.mv(swapped(F, conjugate(F, a)), g) if needs[1] else None,
    )


mv_op = op(
    "mv",
    infer=_mv_infer,
    define=lambda F, a, x: F.reshape(F.matmul(a, reshaped(F, x, (*x.shape, 1))), shape=tuple(a.shape[:1])),
    rule=_mv_rule,
    keeps=("a", "x"),
    reads={"a": ("x",), "x": ("a",)},
    checked=True,
    samples=lambda: [
        Sample((Arg((3, 4)), Arg((4,))), name="matrix"),
        Sample((Arg((3, 4), layout="T"), Arg((4,), layout="step")), name="strided"),
        Sample((Arg((0, 4)), Arg((4,))), name="no rows"),
        Sample((Arg((3, 0)), Arg((0,))), name="no terms"),
    ],
    doc="A matrix (n, k) times a vector (k,).",
)


# --- the public functions


@calls(matmul_op, "x2+ x2+")
@calls(dot_op, "x1 x1")
@calls(mv_op, "x2 x1")
def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The matrix product, by the rank of its operands.

    Two vectors give their dot product (0-d); a vector is a row on the left and a column on the right; further leading
    dimensions are batches, and broadcast.

    Args:
        input: (k,), or (..., n, k).
        other: (k,), or (..., k, m), of the same dtype; half precision is summed in float32.
        out: written to instead of a fresh tensor; not recorded.
    Raises: ShapeError if the inner sizes differ, an operand is 0-d, or batches do not broadcast; DTypeError if the
        dtypes differ or are bool.
    Example:
        >>> import tensorgrad as tg
        >>> tg.matmul(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), tg.tensor([1.0, 1.0])).tolist()
        [3.0, 7.0]
    """
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        require_tensors("matmul", input=input, other=other)
    left, right = input._data.ndim, other._data.ndim
    if left >= 2 and right >= 2:
        result = matmul_op(input, other)
    else:
        result = _with_vectors(input, other, left, right)
    return result if out is None else deliver_same("matmul", result, out)


def _with_vectors(a: Tensor, b: Tensor, left: int, right: int) -> Tensor:
    if left == 0 or right == 0:
        raise ShapeError(
            f"matmul: both arguments need at least one dimension, got shapes {tuple(a.shape)} and {tuple(b.shape)}. "
            "Multiply by a 0-d tensor with *."
        )
    inner = b.shape[-2] if right > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ShapeError(
            f"matmul: shapes {tuple(a.shape)} and {tuple(b.shape)} can't be multiplied: {a.shape[-1]} and {inner} "
            "must be equal."
        )
    if left == right == 1:
        return dot_op(a, b)
    if left + right == 3:
        return mv_op(a, b) if left == 2 else mv_op(permute(b, dims=(1, 0)), a)
    rows = shaped(a, (1, a.shape[0])) if left == 1 else a
    columns = shaped(b, (b.shape[0], 1)) if right == 1 else b
    y = matmul_op(rows, columns)
    shape = tuple(y.shape)
    kept = shape[:-2] + (() if left == 1 else shape[-2:-1]) + (() if right == 1 else shape[-1:])
    return shaped(y, kept)


def _ranked(name: str, a: Any, b: Any, left: int, right: int) -> None:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        require_tensors(name, input=a, other=b)
    if a._data.ndim != left or b._data.ndim != right:
        raise ShapeError(
            f"{name}: expected a {left}-d and a {right}-d tensor, got shapes {tuple(a.shape)} and {tuple(b.shape)}."
        )


@calls(matmul_op, "x2 x2")
def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The product of two matrices, without broadcasting."""
    _ranked("mm", input, mat2, 2, 2)
    return matmul(input, mat2, out=out)


@calls(matmul_op, "x3 x3~")
def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The products of two batches (b, n, k) and (b, k, m) of matrices, without broadcasting."""
    _ranked("bmm", input, mat2, 3, 3)
    if input._data.shape[0] != mat2._data.shape[0]:
        raise ShapeError(f"bmm: batches of {input.shape[0]} and {mat2.shape[0]} matrices; they must be equal.")
    return matmul(input, mat2, out=out)


@calls(mv_op, "x2 x1")
def mv(input: Tensor, vec: Tensor, *, out: Tensor | None = None) -> Tensor:
    """A matrix times a vector."""
    _ranked("mv", input, vec, 2, 1)
    return matmul(input, vec, out=out)


@calls(dot_op, "x1 x1")
def dot(input: Tensor, tensor: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The dot product of two vectors of the same length, 0-d; complex ones are not conjugated."""
    _ranked("dot", input, tensor, 1, 1)
    return matmul(input, tensor, out=out)


@calls(dot_op, "x1 x1", alike=True)
def vdot(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The dot product of two vectors, the first conjugated."""
    _ranked("vdot", input, other, 1, 1)
    return matmul(pw.conj(input) if input.dtype.is_complex else input, other, out=out)


def outer(input: Tensor, vec2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The (n, m) matrix of all products of a vector's elements with another's."""
    _ranked("outer", input, vec2, 1, 1)
    result = pw.mul(reshape(input, shape=(input._data.shape[0], 1)), vec2)
    return result if out is None else deliver("outer", result, out)


@calls(dot_op, "x1 x1")
def inner(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Products summed over the last dimension of both; with a 0-d operand, plain multiplication."""
    require_tensors("inner", input=input, other=other)
    if input._data.ndim == 0 or other._data.ndim == 0:
        result = pw.mul(input, other)
    else:
        if input._data.shape[-1] != other._data.shape[-1]:
            raise ShapeError(
                f"inner: the last dimensions must be equal, got shapes {tuple(input.shape)} and {tuple(other.shape)}."
            )
        result = tensordot(input, other, dims=([-1], [-1]))
    return result if out is None else deliver_same("inner", result, out)


def kron(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The Kronecker product: every element of ``input`` times the whole of ``other``."""
    require_tensors("kron", input=input, other=other)
    n = max(input._data.ndim, other._data.ndim)
    left = (1,) * (n - input._data.ndim) + tuple(input.shape)
    right = (1,) * (n - other._data.ndim) + tuple(other.shape)
    a = shaped(input, tuple(size for pair in zip(left, (1,) * n, strict=True) for size in pair))
    b = shaped(other, tuple(size for pair in zip((1,) * n, right, strict=True) for size in pair))
    result = shaped(pw.mul(a, b), tuple(i * j for i, j in zip(left, right, strict=True)))
    return result if out is None else deliver("kron", result, out)


_FACTORS = frozenset((int, float, complex, bool))


def _blend(name: str, input: Any, product_: Any, beta: Any, alpha: Any) -> Any:
    """``beta * input + alpha * product``; with ``beta`` 0 the input is not read, so NaN in it does not spread."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: input must be a Tensor, got {type(input).__name__}.")
    x, product_x = input._data, product_._data
    for label, factor in (("beta", beta), ("alpha", alpha)):
        if type(factor) not in _FACTORS or (type(factor) is complex and product_.dtype.category < 3):
            stored_number(f"{name}: {label}", factor, product_.dtype)
        check_factor(f"{name}: {label}", factor, product_.dtype)
    if beta == 1 == alpha and x.dtype == product_x.dtype and x.ndim and x.shape == product_x.shape[-x.ndim :]:
        return pw.add(product_, input)
    if input.dtype != product_.dtype and product_.dtype.name in ("bfloat16", "float16"):
        from ..amp.casting import lowered

        input = lowered(input)  # within autocast, as the factors were
    if input.dtype != product_.dtype:
        raise DTypeError(f"{name}: expected one dtype, got input of {input.dtype} and a product of {product_.dtype}.")
    if broadcast_shape(name, tuple(product_.shape), tuple(input.shape)) != tuple(product_.shape):
        raise ShapeError(
            f"{name}: input of shape {tuple(input.shape)} does not broadcast to the product's {tuple(product_.shape)}."
        )
    if product_._data.dtype.kind in "iu":  # integers take the whole part of both numbers
        beta, alpha = (stored_number(name, factor, product_.dtype) for factor in (beta, alpha))
    if alpha != 1:
        product_ = pw.mul(product_, alpha)
    if beta == 0:
        # a result of the input's too, though nothing flows back to it
        return pw.where(True, product_, input) if input._tracked else product_
    return pw.add(product_, input) if beta == 1 else pw.add_scaled(product_, input, beta)


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None
) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``."""
    result = _blend("addmm", input, mm(mat1, mat2), beta, alpha)
    return result if out is None else deliver_same("addmm", result, out)


def addmv(
    input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None
) -> Tensor:
    """``beta * input + alpha * (mat @ vec)``."""
    result = _blend("addmv", input, mv(mat, vec), beta, alpha)
    return result if out is None else deliver_same("addmv", result, out)


def addr(
    input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None
) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``, of the dtype that the three promote to.

    Raises: ShapeError if the sizes do not fit; DTypeError for integer tensors and numbers that are not.
    """
    require_tensors("addr", input=input, vec1=vec1, vec2=vec2)
    _ranked("outer", vec1, vec2, 1, 1)
    both = promote_types(input.dtype, promote_types(vec1.dtype, vec2.dtype))
    input, product_ = input.to(both), outer(vec1.to(both), vec2.to(both))
    if broadcast_shape("addr", tuple(input.shape), tuple(product_.shape)) != tuple(product_.shape):
        raise ShapeError(f"addr: input of shape {tuple(input.shape)} does not broadcast to {tuple(product_.shape)}.")
    if both.category == 1 and not (hasattr(beta, "__index__") and hasattr(alpha, "__index__")):
        raise DTypeError(f"addr: integer tensors take integers as beta and alpha, got {beta!r} and {alpha!r}.")
    if both.category == 0:
        for number in (beta, alpha):
            if not isinstance(number, (bool, int)):
                raise DTypeError(f"addr: bool tensors take bools as beta and alpha, got {number!r}.")
        result = pw.logical_or(pw.logical_and(input, bool(beta)), pw.logical_and(product_, bool(alpha)))
    else:
        result = _blend("addr", input, product_, beta, alpha)
    return result if out is None else deliver("addr", result, out)


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None
) -> Tensor:
    """``beta * input + alpha * bmm(batch1, batch2)``."""
    result = _blend("baddbmm", input, bmm(batch1, batch2), beta, alpha)
    return result if out is None else deliver_same("baddbmm", result, out)


def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None
) -> Tensor:
    """``beta * input + alpha * (the sum over the batch of batch1 @ batch2)``."""
    _ranked("addbmm", batch1, batch2, 3, 3)
    if batch1.shape[0] != batch2.shape[0] or batch1.shape[2] != batch2.shape[1]:
        raise ShapeError(f"addbmm: batches of {tuple(batch1.shape)} and {tuple(batch2.shape)} can't be multiplied.")
    result = _blend("addbmm", input, tensordot(batch1, batch2, dims=([0, 2], [0, 1])), beta, alpha)
    return result if out is None else deliver_same("addbmm", result, out)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """Products summed over pairs of dimensions.

    Args:
        dims: the last ``dims`` dimensions of ``a`` against the first of ``b``; or two lists that name the pairs. A
            size of 1 broadcasts against its partner.
    Raises: ShapeError if paired sizes differ or the lists' lengths do; DimError for a dimension out of range.
    """
    require_tensors("tensordot", a=a, b=b)
    left, right = tuple(a.shape), tuple(b.shape)
    if isinstance(dims, int):
        if dims < 0 or dims > min(len(left), len(right)):
            raise ShapeError(f"tensordot: dims={dims} does not fit shapes {left} and {right}.")
        pairs = list(range(len(left) - dims, len(left))), list(range(dims))
    else:
        if not isinstance(dims, (tuple, list)) or len(dims) != 2:
            raise ShapeError(f"tensordot: dims must be a number or two lists of dimensions, got {dims!r}.")
        first, second = (list(d) if isinstance(d, (tuple, list)) else [d] for d in dims)
        if len(first) != len(second):
            raise ShapeError(f"tensordot: {len(first)} dims of a are paired with {len(second)} of b.")
        paired_a = [one_dim("tensordot", d, len(left)) for d in first]
        pairs = paired_a, [one_dim("tensordot", d, len(right)) for d in second]
    for i, j in zip(*pairs, strict=True):
        if left[i] == 1 != right[j]:  # sizes of 1 broadcast
            b = b.sum(j, keepdim=True, dtype=b.dtype)
        elif right[j] == 1 != left[i]:
            a = a.sum(i, keepdim=True, dtype=a.dtype)
        elif left[i] != right[j]:
            raise ShapeError(
                f"tensordot: dim {i} of a has size {left[i]}, its partner, dim {j} of b, {right[j]}; "
                f"shapes {left} and {right}."
            )
    left, right = tuple(a.shape), tuple(b.shape)
    free_a = [i for i in range(len(left)) if i not in pairs[0]]
    free_b = [j for j in range(len(right)) if j not in pairs[1]]
    rows, columns = [left[i] for i in free_a], [right[j] for j in free_b]
    inner_size = product(left[i] for i in pairs[0])
    x = shaped(permute(a, dims=(*free_a, *pairs[0])), (product(rows), inner_size))
    y = shaped(permute(b, dims=(*pairs[1], *free_b)), (inner_size, product(columns)))
    result = shaped(matmul_op(x, y), (*rows, *columns))
    return result if out is None else deliver_same("tensordot", result, out)


ger = outer
for _function in (
    addbmm, addmm, addmv, addr, baddbmm, bmm, dot, inner, kron, matmul, mm, mv, outer, vdot,
):  # fmt: skip
    install(_function)
install(outer, "ger")
install(matmul, "__matmul__")
install(lambda self, other: matmul(other, self), "__rmatmul__")


def _in_place(function: Any) -> Any:
    from .inplace import assign, check_fits_dtype

    def form(self: Tensor, *args: Any, **options: Any) -> Tensor:
        result = function(self, *args, **options)
        check_fits_dtype(f"{function.__name__}_", self, result._data.dtype)
        return write_into(assign, self, (self, result), {})

    form.__doc__ = f"In-place form of ``{function.__name__}``."
    return form


for _function in (addbmm, addmm, addmv, addr, baddbmm):
    install(_in_place(_function), f"{_function.__name__}_")


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``.

    Args:
        input: (..., k).
        weight: (n, k), or (k,) for a single output without its dimension.
        bias: (n,), or 0-d for a 1-d weight; None for none.
    Returns: (..., n), or (...) for a 1-d weight.
    Raises: ShapeError if the sizes do not fit; DTypeError if the dtypes differ.
    """
    if not (isinstance(input, Tensor) and isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))):
        require_tensors("linear", input=input, weight=weight)
        require_optional("linear", bias=bias)
    if weight._data.ndim == 1:
        if bias is not None and bias._data.ndim:
            raise ShapeError(
                f"linear: a weight of shape {tuple(weight.shape)} goes with a 0-d bias, got {tuple(bias.shape)}."
            )
        y = matmul(input, weight)
        return y if bias is None else pw.add(y, bias)
    return linear_op(input, weight, bias)
