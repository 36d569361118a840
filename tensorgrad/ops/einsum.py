"""Einstein summation, by reduction to matrix products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..dispatch import recorded
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import product, require_one_dtype, require_optional, require_tensors, shaped
from .matmul import matmul_op
from .precision import widen
from .shape_core import permute, reshape

__all__ = ["bilinear", "einsum"]

Labels = tuple[str, ...]


def einsum(equation: str, *operands: Any) -> Tensor:
    """Products of the operands' elements, summed over the labels that the output does not name.

    Args:
        equation: labels of each operand's dimensions, separated by commas, and after ``->`` those of the output. A
            label twice in one operand is a diagonal; ``...`` stands for dimensions that broadcast. Without ``->`` the
            output has the labels that occur once, in alphabetical order, after ``...``.
        operands: tensors of one dtype (or a single list of them). Also ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.
    Raises: ArgumentError for a malformed equation; ShapeError if sizes of a label differ.
    Example:
        >>> import tensorgrad as tg
        >>> a = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> tg.einsum("ii->i", a).tolist()
        [1.0, 4.0]
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    for i, x in enumerate(operands):
        if not isinstance(x, Tensor):
            require_tensors("einsum", **{f"operand {i}": x})
    if len(operands) == 2 and (plan := _pair(equation, operands[0]._data.shape, operands[1]._data.shape)):
        return plan.run(*operands)
    inputs, output = _parse(equation, tuple([x._data.ndim for x in operands]))
    sizes = _sizes(equation, inputs, operands)
    terms = [_diagonals(x, labels) for x, labels in zip(operands, inputs, strict=True)]
    result, labels = _product(terms, output)
    result, labels = _sum_out(result, labels, set(output))
    missing = [label for label in output if label not in labels]  # broadcast sizes of 1 that were squeezed away
    if missing:
        result, labels = shaped(result, (*result.shape, *(1,) * len(missing))), (*labels, *missing)
    result = permute(result, dims=tuple([labels.index(label) for label in output]))
    shape = tuple([sizes[label] for label in output])
    return result if result._data.shape == shape else recorded.expand(result, shape=shape)


def _from_lists(args: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The form with lists of numbers, as an equation."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def spelled(numbers: Any) -> str:
        for n in numbers:
            if n is not Ellipsis and not 0 <= n < len(letters):
                raise ArgumentError(f"einsum: label {n!r} is not in the valid range [0, {len(letters)}).")
        return "".join("..." if n is Ellipsis else letters[n] for n in numbers)

    operands, lists = args[: len(args) // 2 * 2 : 2], args[1::2]
    equation = ",".join(map(spelled, lists))
    if len(args) % 2:
        equation += "->" + spelled(args[-1])
    return equation, tuple(operands)


@lru_cache(maxsize=256)
def _parse(equation: str, ndims: tuple[int, ...]) -> tuple[tuple[Labels, ...], Labels]:
    """Labels of each operand and of the output; the dimensions under ``...`` are labelled ``.0`` (the last), ``.1``."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ndims):
        raise ArgumentError(f"einsum: {equation!r} names {len(parts)} operands, {len(ndims)} were given.")
    inputs: tuple[Labels, ...] = ()
    hidden = 0
    for part, ndim in zip(parts, ndims, strict=True):
        labels = _labels(equation, part)
        if "..." in labels:
            under = ndim - (len(labels) - 1)
            hidden = max(hidden, under)
            at = labels.index("...")
            labels = (*labels[:at], *(f".{i}" for i in reversed(range(under))), *labels[at + 1 :])
        if len(labels) != ndim:
            raise ShapeError(f"einsum: {part!r} in {equation!r} names {len(labels)} dimensions, not {ndim}.")
        inputs += (labels,)
    dots = tuple(f".{i}" for i in reversed(range(hidden)))
    if not arrow:
        counts = Counter(label for labels in inputs for label in labels)
        return inputs, (*dots, *sorted(label for label, n in counts.items() if n == 1 and label[0] != "."))
    output: list[str] = []
    for label in _labels(equation, right):
        output.extend(dots if label == "..." else (label,))
    known = {label for labels in inputs for label in labels}
    for label in output:
        if label not in known:
            raise ArgumentError(f"einsum: the output of {equation!r} names {label!r}, which no operand has.")
    if len(set(output)) != len(output):
        raise ArgumentError(f"einsum: the output of {equation!r} names a label twice.")
    return inputs, tuple(output)


def _labels(equation: str, part: str) -> Labels:
    before, dots, after = part.partition("...")
    letters = before + after
    if not all(letter.isalpha() for letter in letters):
        raise ArgumentError(f"einsum: {equation!r} must be made of letters, commas, '...' and '->'; got {part!r}.")
    return (*before, "...", *after) if dots else tuple(before)


def _sizes(equation: str, inputs: tuple[Labels, ...], operands: Sequence[Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for labels, x in zip(inputs, operands, strict=True):
        for label, size in zip(labels, x._data.shape, strict=True):
            have = sizes.setdefault(label, size)
            if have == 1:
                sizes[label] = size
            elif size not in (1, have):
                raise ShapeError(f"einsum: label {label!r} of {equation!r} has sizes {have} and {size}.")
    return sizes


class _Arranged(NamedTuple):
    """How an operand becomes matrices: reshaped, its dimensions put in order, reshaped again; None where not."""

    together: tuple[int, ...] | None = None
    dims: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None

    def of(self, x: Tensor) -> Tensor:
        if self.together is not None:
            x = shaped(x, self.together)
        if self.dims is not None:
            x = permute(x, dims=self.dims)
        return x if self.shape is None else shaped(x, self.shape)

    def copies(self) -> bool:
        """Whether an operand that is contiguous is copied."""
        return self.dims is not None and self.shape is not None


def _arranged(labels: Sequence[str], size: dict[str, int], groups: Sequence[Sequence[str]]) -> _Arranged:
    """An operand with one dimension for each group of its labels. Groups whose labels stand together are made first: so
    nothing is copied, and the product reads matrices that lie in another order."""
    sizes = tuple([product(size[label] for label in group) for group in groups])
    given = tuple([size[label] for label in labels])
    places = range(len(groups))
    stand = sorted(places, key=lambda i: labels.index(groups[i][0]) if groups[i] else -1)
    if [label for i in stand for label in groups[i]] == list(labels):
        together = tuple([sizes[i] for i in stand])
        turned = tuple([stand.index(i) for i in places])
        return _Arranged(None if together == given else together, None if turned == tuple(places) else turned)
    order = [label for group in groups for label in group]
    same = sizes == tuple([size[label] for label in order])
    return _Arranged(None, tuple([labels.index(label) for label in order]), None if same else sizes)


class _Pair(NamedTuple):
    """A product of two operands as one of matrices: how each is arranged before, and the result after."""

    left: _Arranged
    right: _Arranged
    after: tuple[Any, Any]
    swapped: bool = False  # the second operand is the left one
    dots: int = 0  # of so many dimensions; 0 where it is no dots

    def run(self, a: Tensor, b: Tensor) -> Tensor:
        shape, dims = self.after
        if self.swapped:
            a, b = b, a
        x, y = self.left.of(a), self.right.of(b)
        made = _dots(x, y, self.dots) if self.dots else matmul_op(x, y)
        if shape is not None:
            made = reshape(made, shape=shape)
        return made if dims is None else permute(made, dims=dims)


def _are_dots(batch: Sequence[int], summed: Sequence[int]) -> bool:
    """Whether products of single rows and columns are better no products of matrices: many short ones, each of which
    takes less than to begin a product does."""
    return product(batch) >= 32 and product(summed) <= 64


def _dots(a: Tensor, b: Tensor, count: int) -> Tensor:
    """The sums of products over the last ``count`` dimensions. A formula and a sum, which a program makes in one pass,
    and the derivative is a formula too."""
    if widen:  # within autocast a product is of its dtype
        from ..amp.casting import lowered

        a, b = lowered(a), lowered(b)
    if a.dtype is not b.dtype or a._data.dtype.itemsize < 4 or a._data.dtype.kind not in "fc":
        shape = a._data.shape  # in half precision a product of matrices rounds once, at the end; errors are its own
        lead, inner = shape[: len(shape) - count], product(shape[len(shape) - count :])
        made = matmul_op(shaped(a, (*lead, 1, inner)), shaped(b, (*lead, inner, 1)))
        return shaped(made, lead)
    made = pw.mul(a, b)
    ndim = made._data.ndim
    return recorded.sum(made, dim=tuple(range(ndim - count, ndim)), keepdim=False)


@lru_cache(maxsize=1024)
def _pair(equation: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> _Pair | None:
    """The plan of an equation of two operands for these shapes; None where it takes more than one product of matrices:
    labels that occur twice in an operand, or in one and not in the output, and sizes of 1 that broadcast."""
    (left, right), output = _parse(equation, (len(shape_a), len(shape_b)))
    size = dict(zip((*left, *right), (*shape_a, *shape_b), strict=True))
    given = [(labels, shape) for labels, shape in ((left, shape_a), (right, shape_b))]
    if any(len(set(labels)) < len(labels) or tuple([size[n] for n in labels]) != shape for labels, shape in given):
        return None
    both = [label for label in left if label in right]
    summed = [label for label in both if label not in output]
    if not summed or any(label not in output for label in (*left, *right) if label not in both):
        return None
    batch = [label for label in both if label in output]
    rows, columns = ([n for n in labels if n not in both] for labels in (left, right))

    made = (*batch, *rows, *columns)
    if not rows and not columns and _are_dots(*[[size[n] for n in labels] for labels in (batch, summed)]):
        beside = [labels.index(n) for labels in (left, right) for n in (*batch, *summed)]
        first, second = tuple(beside[: len(left)]), tuple(beside[len(left) :])
        order = tuple([made.index(label) for label in output])
        plain = tuple(range(len(left)))
        return _Pair(
            _Arranged(None, None if first == plain else first),
            _Arranged(None, None if second == plain else second),
            (None, None if order == plain[: len(order)] else order),
            dots=len(summed),
        )
    lead = [[label] for label in batch]  # a dimension each: of views of one array they need no copy to be one

    def plan(first: Labels, second: Labels, swapped: bool) -> tuple[int, _Pair]:
        """The product with the operands in this order, and how many elements are copied for it or lie turned."""
        rows, columns = ([n for n in labels if n not in both] for labels in (first, second))
        made = (*batch, *rows, *columns)
        flat = tuple([product(size[n] for n in group) for group in (*lead, rows, columns)])
        shape, order = tuple([size[n] for n in made]), tuple([made.index(label) for label in output])
        x, y = _arranged(first, size, (*lead, rows, summed)), _arranged(second, size, (*lead, summed, columns))
        turned = order != tuple(range(len(order)))
        moved = [
            product(size[n] for n in labels)
            for labels, copied in ((first, x.copies()), (second, y.copies()), (made, turned))
            if copied
        ]
        return sum(moved), _Pair(x, y, (None if flat == shape else shape, order if turned else None), swapped)

    (moved, as_given), (other, as_swapped) = plan(left, right, False), plan(right, left, True)
    return as_swapped if other < moved else as_given


def _diagonals(x: Tensor, labels: Labels) -> tuple[Tensor, Labels]:
    """Labels that occur twice taken as diagonals."""
    while len(set(labels)) != len(labels):
        label = next(one for one in labels if labels.count(one) > 1)
        first = labels.index(label)
        second = labels.index(label, first + 1)
        if x.shape[first] != x.shape[second]:
            raise ShapeError(f"einsum: the diagonal {label!r} has sizes {x.shape[first]} and {x.shape[second]}.")
        x = recorded.diagonal(x, offset=0, dim1=first, dim2=second)
        labels = (*(one for i, one in enumerate(labels) if i not in (first, second)), label)
    return x, labels


def _sum_out(x: Tensor, labels: Labels, keep: set[str]) -> tuple[Tensor, Labels]:
    dims = tuple(i for i, label in enumerate(labels) if label not in keep)
    if not dims:
        return x, labels
    return recorded.sum(x, dim=dims, keepdim=False), tuple(label for label in labels if label in keep)


def _without_ones(x: Tensor, labels: Labels, other: Labels, other_shape: Sequence[int]) -> tuple[Tensor, Labels]:
    """Dimensions of size 1 that broadcast against the other operand's are dropped: they only repeat."""
    dropped = {
        i
        for i, (label, size) in enumerate(zip(labels, x._data.shape, strict=True))
        if size == 1 and label in other and other_shape[other.index(label)] != 1
    }
    if not dropped:
        return x, labels
    kept = [i for i in range(len(labels)) if i not in dropped]
    return shaped(x, tuple(x.shape[i] for i in kept)), tuple(labels[i] for i in kept)


def _product(terms: list[tuple[Tensor, Labels]], output: Labels) -> tuple[Tensor, Labels]:
    """The product of all terms, two at a time: first those whose product is smallest beside what it replaces.

    The order depends on shapes alone. Source: the greedy method of Smith and Gray 2018.
    """
    if len(terms) == 2:
        return _contract(*terms[0], *terms[1], set(output), output)
    while len(terms) > 1:
        best: Any = None
        for i in range(len(terms)):
            for j in range(i + 1, len(terms)):
                later = set(output).union(*(labels for k, (_, labels) in enumerate(terms) if k not in (i, j)))
                cost = (*_costs(terms[i], terms[j], later), i, j)
                if best is None or cost < best[0]:
                    best = cost, later
        (*_, i, j), later = best
        (a, left), (b, right) = terms[i], terms[j]
        made = _contract(a, left, b, right, later, output)
        terms = [made, *(term for k, term in enumerate(terms) if k not in (i, j))]
    return terms[0]


def _costs(one: tuple[Tensor, Labels], other: tuple[Tensor, Labels], later: set[str]) -> tuple[int, int]:
    """How many elements the product has more than its factors, and the multiplications it takes."""
    sizes: dict[str, int] = {}
    for x, labels in (one, other):
        for label, size in zip(labels, x.shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    kept = product(size for label, size in sizes.items() if label in later)
    return kept - product(one[0].shape) - product(other[0].shape), product(sizes.values())


def _spread(x: Tensor, labels: Labels, order: Labels) -> Tensor:
    """x with its dimensions in that order, and of size 1 where it has none."""
    size = dict(zip(labels, x._data.shape, strict=True))
    x = permute(x, dims=tuple([labels.index(label) for label in order if label in size]))
    return shaped(x, tuple([size.get(label, 1) for label in order]))


def _contract(
    a: Tensor, left: Labels, b: Tensor, right: Labels, later: set[str], output: Labels
) -> tuple[Tensor, Labels]:
    """The product of two terms, summed over the labels that nothing later names, as one batched matrix product; without
    such labels as a formula, whose result lies in the order of the output."""
    a, left = _sum_out(a, left, later.union(right))
    b, right = _sum_out(b, right, later.union(left))
    shape_a, shape_b = a._data.shape, b._data.shape
    a, left_used = _without_ones(a, left, right, shape_b)
    b, right_used = _without_ones(b, right, left, shape_a)
    both = [label for label in left_used if label in right_used]
    batch = [label for label in both if label in later]
    summed = [label for label in both if label not in later]
    only_a = [label for label in left_used if label not in right_used]
    only_b = [label for label in right_used if label not in left_used]
    # a broadcast label that nothing later names is still to be summed: it stays, and the caller sums it out
    size_a = dict(zip(left_used, a._data.shape, strict=True))
    size_b = dict(zip(right_used, b._data.shape, strict=True))
    if not summed:
        labels = (*batch, *only_a, *only_b)
        labels = tuple(sorted(labels, key=[*output, *(n for n in labels if n not in output)].index))
        return pw.mul(_spread(a, left_used, labels), _spread(b, right_used, labels)), labels
    lead = tuple([size_a[label] for label in batch])
    rows, columns = tuple([size_a[label] for label in only_a]), tuple([size_b[label] for label in only_b])
    labels = (*batch, *only_a, *only_b)
    if not rows and not columns and _are_dots(lead, [size_a[label] for label in summed]):
        x = permute(a, dims=tuple([left_used.index(label) for label in (*batch, *summed)]))
        y = permute(b, dims=tuple([right_used.index(label) for label in (*batch, *summed)]))
        return _dots(x, y, len(summed)), labels
    apart = [[label] for label in batch]
    x = _arranged(left_used, size_a, (*apart, only_a, summed)).of(a)
    y = _arranged(right_used, size_b, (*apart, summed, only_b)).of(b)
    result = matmul_op(x, y)
    return shaped(result, (*lead, *rows, *columns)), labels


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y_k = x1 @ weight_k @ x2 + bias_k``.

    Args:
        input1: (..., in1).
        input2: (..., in2), of the same leading sizes.
        weight: (out, in1, in2).
        bias: (out,) or None.
    Returns: (..., out).
    Raises: ShapeError if sizes do not fit.
    """
    require_tensors("bilinear", input1=input1, input2=input2, weight=weight)
    if tuple(input1.shape[:-1]) != tuple(input2.shape[:-1]) or not input1._data.ndim or not input2._data.ndim:
        raise ShapeError(f"bilinear: inputs {tuple(input1.shape)} and {tuple(input2.shape)} differ before the end.")
    if weight._data.ndim != 3 or tuple(weight.shape[1:]) != (input1.shape[-1], input2.shape[-1]):
        raise ShapeError(
            f"bilinear: inputs of {input1.shape[-1]} and {input2.shape[-1]} features need a weight (out, "
            f"{input1.shape[-1]}, {input2.shape[-1]}), got {tuple(weight.shape)}."
        )
    require_optional("bilinear", bias=bias)
    others = {"input2": input2._data, "weight": weight._data, "bias": None if bias is None else bias._data}
    require_one_dtype("bilinear", input1._data, **others)
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ShapeError(f"bilinear: bias has shape {tuple(bias.shape)}, expected ({weight.shape[0]},).")
    y = einsum("...i,kij,...j->...k", input1, weight, input2)
    return y if bias is None else pw.add(y, bias)
