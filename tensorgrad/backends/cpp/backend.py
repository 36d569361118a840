"""The C++ backend: NumPy arrays, kernels from the extension; what it lacks, it inherits.

A kernel of the extension that has an op's name and the op's signature is bound without a wrapper. Kernels that take
some dtypes only are listed with those, and hand the rest to the inherited ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from ...core import native as tape
from ...dispatch import OPS
from ...dtypes import when_default_changes
from ...errors import DivisionByZero
from ...ops.required import KINDS
from ..generic.resize import axis_table, transposed_table
from ..numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from ...ops.elementwise import Elementwise
    from ...ops.record import Op

__all__ = ["CppBackend", "extension"]


@lru_cache(maxsize=1)
def _load() -> tuple[ModuleType | None, str | None]:
    """The extension, or one line that says why there is none."""
    try:
        from ... import _C
    except ImportError as error:
        note = Path(__file__).parents[2] / "_build_note.txt"
        if note.exists():
            return None, f"the extension was not built: {note.read_text().strip()}"
        return None, f"the extension does not load: {error}"
    return _C, None


def extension() -> ModuleType:
    """The loaded extension. Raises ImportError where it is missing."""
    module, reason = _load()
    if module is None:
        raise ImportError(reason)
    return module


# Kernels written for floating point; integers and complex numbers go to the inherited ones.
_FLOATS_ONLY = frozenset((
    "adaptive_avg_pool", "adaptive_avg_pool_backward", "adaptive_max_pool", "adaptive_max_pool_values", "avg_pool",
    "avg_pool_backward", "conv", "conv_norm",
    "conv_input_grad", "conv_weight_grad", "grid_sample", "grid_sample_backward", "linalg_cholesky", "linalg_det",
    "linalg_inv", "linalg_lu_factor", "linalg_slogdet", "linalg_solve", "linalg_solve_triangular", "linear",
    "linear_backward",
    "logcumsumexp", "logsumexp", "max_pool", "max_pool_backward", "max_pool_values", "std", "var", "vector_norm",
))  # fmt: skip

# Those that take every real dtype.
_REAL_ONLY = frozenset(("cumprod", "cumsum"))


class CppBackend(NumpyBackend):
    name = "cpp"
    writes_programs = True
    folds_norms = True
    groups_rows = True
    sums_formulas = True
    rolls_operands = True
    places = frozenset(("attention_backward",))

    def __init__(self) -> None:
        super().__init__()
        self.c = extension()
        self._default_threads = int(self.c.num_threads())
        when_default_changes.append(self.c.forget_formulas)
        from ... import config

        if config.get("num_threads"):
            self.c.set_num_threads(config.get("num_threads"))
        self.c.set_machine_code(config.get("machine_code"))
        config.watch("machine_code", self.c.set_machine_code)

    @classmethod
    def why_not(cls) -> str | None:
        return _load()[1]

    def describe(self) -> str:
        compiles = self.c.isa() != "baseline" and self.c.writes_machine_code()
        formulas = "compiled" if compiles else "as loops"
        return (
            f"C++ kernels for {self.c.isa()}, {self.c.num_threads()} threads, {self.c.blas_info()}, formulas {formulas}"
        )

    def set_num_threads(self, count: int) -> None:
        self.c.set_num_threads(count)

    def num_threads(self) -> int:
        return int(self.c.num_threads())

    def default_threads(self) -> int:
        return self._default_threads

    def memory_stats(self) -> dict[str, int]:
        return dict(self.c.memory_stats())

    def can_be_written(self, kernel: Any) -> bool:
        if isinstance(kernel, FunctionType):
            kernel = getattr(kernel, "native", None)  # checks before a formula, and the choice of a way to sum it
        if isinstance(kernel, MethodType):
            # not a subclass's, nor an inherited one: these may look at elements
            return type(kernel.__self__) is CppBackend and vars(CppBackend).get(kernel.__name__) is kernel.__func__
        if isinstance(kernel, BuiltinFunctionType):
            return getattr(self.c, kernel.__name__, None) is kernel
        return isinstance(kernel, self.c.Formula)

    def formula_kernel(self, op: Elementwise) -> Callable[..., Any]:
        if not hasattr(self.c, "Formula"):
            return super().formula_kernel(op)

        def specialize(keys: tuple[str, ...]) -> tuple[Any, Any]:
            program = op.specialize(keys)
            return program.code, program.outputs

        return self.c.Formula(op.name, specialize, getattr(op, "sums", ""), getattr(op, "rolls", ()))

    def sums_columns(self, formula: Any) -> bool:
        if not hasattr(self.c, "compiles_whole") or any(dtype != "float32" for _, dtype in formula.outputs):
            return False
        return bool(self.c.compiles_whole((formula.code, formula.outputs), formula.inputs))

    def kernel(self, op: Op) -> Callable[..., Any]:
        native = None if op.name in vars(type(self)) else getattr(self.c, op.name, None)
        if op.view and native is None and tape is not None:
            native = getattr(tape, op.name, None)
        if native is None:
            return self._summed(op, super().kernel(op)) if hasattr(op, "summand") else super().kernel(op)
        if op.name in _FLOATS_ONLY or op.name in _REAL_ONLY:
            return self.c.FloatsFirst(native, super().kernel(op), whole=op.name in _REAL_ONLY)
        return native

    def _summed(self, op: Any, defined: Callable[..., Any]) -> Callable[..., Any]:
        """The kernel of a sum or mean of a formula, which is never stored."""
        formula = getattr(self.raw, op.summand.name)
        if not hasattr(self.c, "Formula") or not isinstance(formula, self.c.Formula):
            return defined

        def kernel(*inputs: Any, reduction: str) -> Any:
            found = formula(*inputs, reduction=reduction)
            if found is None and self.c.writing():
                raise self.c.NotWritten("defined")
            return defined(*inputs, reduction=reduction) if found is None else found

        kernel.native = formula  # type: ignore[attr-defined]
        return kernel

    # Methods here hand elements to the extension's kernels alone, or ask ``_inherited`` and ``_defined``: so they may
    # be called while a program is written (compiler/writable.py).

    # --- kernels of the extension whose signature differs from the op's

    def contiguous(self, x: Any) -> Any:
        return x if x.flags.c_contiguous else self.c.contiguous(x)

    def contiguous_copy(self, x: Any) -> Any:
        return self.c.contiguous(x)

    def copy_into(self, target: Any, source: Any) -> Any:
        return (self.c.copy_into if source.dtype == target.dtype else self._inherited("copy_into"))(target, source)

    def refuse_zeros(self, divisor: Any, text: str) -> None:
        self.c.refuse_zeros(divisor, DivisionByZero, text)

    def require_between(self, x: Any, *, low: int, high: int, kind: str, text: str) -> Any:
        if x.dtype.char not in "ilq":
            return self._over_numpy("require_between")(x, low=low, high=high, kind=kind, text=text)
        return self.c.require_between(x, low, high, KINDS[kind], text)

    def slice_add_into(self, x: Any, g: Any, *, key: tuple[Any, ...]) -> Any:
        part = x[(*key, Ellipsis)]
        self.raw.add(part, g, out=part)
        return x

    def unfold_dim_backward(self, g: Any, *, shape: tuple[int, ...], dim: int, size: int, step: int) -> Any:
        out = self.c.zeros_as(g, shape)
        lead, count = (slice(None),) * dim, g.shape[dim]
        for k in range(size):
            part = out[(*lead, slice(k, k + count * step, step))]
            self.raw.add(part, g[..., k], out=part)
        return out

    def sum_to(self, x: Any, *, shape: tuple[int, ...]) -> Any:
        if x.dtype.kind not in "fV":
            return self._inherited("sum_to")(x, shape=shape)
        axes = _broadcast_axes(x.shape, shape)
        out = self.c.sum(x, dim=axes, keepdim=False) if axes else x
        return out if out.shape == shape else out.reshape(shape)

    def resize(self, x: Any, *, sizes: Any, mode: str, scales: Any, align_corners: bool, antialias: bool) -> Any:
        if x.dtype.kind in "iu":
            return self._inherited("resize")(
                x, sizes=sizes, mode=mode, scales=scales, align_corners=align_corners, antialias=antialias
            )
        single = x.dtype.itemsize != 8
        return self.c.resize_by(x, _tables(mode, x.shape[2:], sizes, scales, align_corners, antialias, single))

    def resize_backward(
        self, g: Any, *, sizes: Any, mode: str, scales: Any, align_corners: bool, antialias: bool
    ) -> Any:
        single = g.dtype.itemsize != 8
        tables = _tables(mode, sizes, g.shape[2:], scales, align_corners, antialias, single, transposed_table)
        return self.c.resize_by(g, tables)

    def attention(self, q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float) -> Any:
        heads = _heads(q, k, v, mask)
        if heads is None:
            return self._inherited("attention")(q, k, v, mask, causal=causal, scale=scale)
        out, lse = self.c.attention(*heads, mask, causal=causal, scale=scale)
        return out.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])

    def attention_backward(
        self, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, *, causal: bool, scale: float,
        needs: tuple[bool, ...], into: Any = None,
    ) -> Any:  # fmt: skip
        heads = _heads(q, k, v, mask)
        if into is not None and not (needs == (True, True, True, False) and heads and _take_rows(into, (q, k, v))):
            return NotImplemented
        if heads is None or needs[3]:
            inherited = self._inherited("attention_backward")
            return inherited(g, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=needs)
        wide = heads[0].shape[:-1]
        shape = (*wide, v.shape[-1])
        grads = self.c.attention_backward(
            g.reshape(shape), *heads, mask, out.reshape(shape), lse.reshape(wide), causal=causal, scale=scale,
            into=None if into is None else tuple(into[:3]),
        )  # fmt: skip
        shaped = [
            part.reshape(x.shape) if needed else None
            for part, x, needed in zip(grads, (q, k, v), needs[:3], strict=True)
        ]
        return (*shaped, None)

    def random_uniform(self, *, shape: tuple[int, ...], dtype: Any, generator: Any) -> Any:
        return self.c.random_uniform(shape, dtype, generator._state)

    def random_normal(self, *, shape: tuple[int, ...], dtype: Any, generator: Any) -> Any:
        return self.c.random_normal(shape, dtype, generator._state)

    def random_integers(self, *, shape: tuple[int, ...], low: int, high: int, dtype: Any, generator: Any) -> Any:
        word = 2**64  # a range of as many is 0
        drawn = self.c.random_integers(shape, (high - low) % word, low % word, generator._state)
        return drawn if dtype == drawn.dtype else self.c.cast(drawn, dtype)

    def random_permutation(self, *, n: int, dtype: Any, generator: Any) -> Any:
        if n < 2**16 and dtype.char in "ql":  # more are sorted by all threads
            return self.c.random_permutation(n, generator._state)
        # moved by half the range, 64 bits have the order of int64
        keys = self.c.random_integers((n,), 0, 2**63, generator._state)
        order = self.c.sort(keys, 0, False)[1]
        return order if dtype == order.dtype else self.c.cast(order, dtype)

    def dropout(self, x: Any, *, p: float, generator: Any) -> Any:
        if x.dtype.kind == "c":
            return self._inherited("dropout")(x, p=p, generator=generator)
        return self.c.dropout(x, p, generator._state)

    # --- kernels of the extension that leave some dtypes to the inherited ones

    def products_of_others(self, x: Any) -> Any:
        found = self.c.products_of_others if x.dtype.char in "fd" else self._defined("products_of_others")
        return found(x)

    def linear_recurrence(self, a: Any, b: Any, *, dim: int) -> Any:
        plain = b.dtype.kind in "fV" and a.dtype == b.dtype
        return (self.c.linear_recurrence if plain else self._inherited("linear_recurrence"))(a, b, dim=dim)

    def scatter_reduce(self, x: Any, index: Any, src: Any, *, dim: int, reduce: str) -> Any:
        found = self._defined("scatter_reduce") if x.dtype.kind == "c" else self.c.scatter_reduce
        return found(x, index, src, dim=dim, reduce=reduce)

    def scatter_reduce_into(self, target: Any, index: Any, src: Any, *, dim: int, reduce: str) -> Any:
        found = self._inherited("scatter_reduce_into") if target.dtype.kind == "c" else self.c.scatter_reduce_into
        return found(target, index, src, dim=dim, reduce=reduce)

    def unique(self, rows: Any, *, inverse: bool) -> Any:
        if rows.shape[1] != 1 or rows.dtype.kind == "c":
            return self._inherited("unique")(rows, inverse=inverse)
        return self.c.unique_values(rows, inverse)

    def bag_rows(self, weight: Any, index: Any, ends: Any, *, mean: bool) -> Any:
        found = self.c.bag_rows if weight.dtype.char in "fd" else self._defined("bag_rows")
        return found(weight, index, ends, mean=mean)

    def cdist(self, a: Any, b: Any, *, p: float, product: bool) -> Any:
        if product or a.dtype.char not in "fd":
            return self._defined("cdist")(a, b, p=p, product=product)
        return self.c.cdist(a, b, p)

    def cdist_backward(self, g: Any, a: Any, b: Any, y: Any, *, p: float, product: bool) -> Any:
        if product or a.dtype.char not in "fd":
            return self._defined("cdist_backward")(g, a, b, y, p=p, product=product)
        return self.c.cdist_backward(g, a, b, y, p)

    def summed_rows(self, x: Any, rows: Any, ends: Any, weights: Any, positions: Any, base: Any) -> Any:
        found = self.c.summed_rows if x.dtype.char in "fd" else self._defined("summed_rows")
        return found(x, rows, ends, weights, positions, base)

    def _defined(self, name: str) -> Callable[..., Any]:
        """The op in smaller ops, for what its kernel does not take."""
        define = OPS[name].define
        assert define is not None
        if self.c.writing():
            raise self.c.NotWritten("defined")  # whoever writes takes the definition apart
        return partial(define, self.raw)

    def _over_numpy(self, name: str) -> Callable[..., Any]:
        """The op's own kernel, which computes at once and so can't be written into a program."""
        if self.c.writing():
            raise self.c.NotWritten(f"{name} is computed by NumPy here")
        kernel = OPS[name].kernel
        assert kernel is not None
        return partial(kernel, self.xp)

    def _inherited(self, name: str) -> Callable[..., Any]:
        """NumPy's kernel, which computes at once and so can't be written into a program."""
        if self.c.writing():
            raise self.c.NotWritten(f"{name} is computed by NumPy here")
        found: Callable[..., Any] = getattr(super(), name)
        return found

    def update_(self, params: Any, grads: Any, *states: Any, hyper: Any, formula: Any) -> None:
        if not self.c.plain(params):
            return self._inherited("update_")(params, grads, *states, hyper=hyper, formula=formula)
        # numbers where they lie: a program brings them up to date ahead of each step
        kernel, numbers = getattr(self.raw, formula.name), [hyper[i, ...] for i in range(hyper.size)]
        for p, g, *state in zip(params, grads, *states, strict=True):
            kernel(p, g, *state, *numbers, out=(p, *state) if state else p)
        return None

    def sgd_(self, params: Any, *lists: Any, **how: Any) -> None:
        (self.c.sgd_ if self.c.plain(params, True) else self._inherited("sgd_"))(params, *lists, **how)

    def adam_(self, params: Any, *lists: Any, **how: Any) -> None:
        (self.c.adam_ if self.c.plain(params, True) else self._inherited("adam_"))(params, *lists, **how)

    def grouped_sgd_(self, *lists: Any, **how: Any) -> None:
        (self.c.grouped_sgd_ if self.c.plain(lists[0], True) else self._inherited("grouped_sgd_"))(*lists, **how)

    def grouped_adam_(self, *lists: Any, **how: Any) -> None:
        (self.c.grouped_adam_ if self.c.plain(lists[0], True) else self._inherited("grouped_adam_"))(*lists, **how)

    def adafactor_(self, params: Any, grads: Any, rows: Any, cols: Any, *hyper: Any, **how: Any) -> None:
        plain = self.c.plain([*params, *rows, *(c for c in cols if c is not None)])
        (self.c.adafactor_ if plain else self._inherited("adafactor_"))(params, grads, rows, cols, *hyper, **how)

    def muon_(self, params: Any, *lists: Any, **how: Any) -> None:
        (self.c.muon_ if self.c.plain(params) else self._inherited("muon_"))(params, *lists, **how)

    def multi_norm(self, grads: Any, *, p: float) -> Any:
        return (self.c.multi_norm if self.c.plain(grads, True) else self._inherited("multi_norm"))(grads, p=p)

    def multi_scale_(self, grads: Any, factor: Any) -> None:
        (self.c.multi_scale_ if self.c.plain(grads, True) else self._inherited("multi_scale_"))(grads, factor)

    def amp_unscale_(self, grads: Any, scale: Any) -> Any:
        return (self.c.amp_unscale_ if self.c.plain(grads, True) else self._inherited("amp_unscale_"))(grads, scale)

    def amp_update_scale_(self, *arrays: Any, **how: Any) -> None:
        self.c.amp_update_scale_(*arrays, **how)


@lru_cache(maxsize=256)
def _tables(
    mode: str, sizes: Any, outputs: Any, scales: Any, align_corners: bool, antialias: bool, single: bool,
    table: Any = axis_table,
) -> tuple[Any, ...]:  # fmt: skip
    """The tables of all axes, in the types that the kernel reads."""
    kind = "f" if single else "d"
    made = [
        table(mode, size, count, scale, align_corners, antialias, single)
        for size, count, scale in zip(sizes, outputs, scales, strict=True)
    ]
    return tuple([(index.astype("int64", order="C"), weight.astype(kind, order="C")) for index, weight in made])


@lru_cache(maxsize=1024)
def _broadcast_axes(have: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes along which ``shape`` was broadcast to ``have``."""
    lead = len(have) - len(shape)
    return tuple(i for i, size in enumerate(have) if i < lead or (shape[i - lead] == 1 and size != 1))


def _take_rows(targets: Any, inputs: Any) -> bool:
    """Whether the kernel of attention's gradients can write to these arrays: their rows are contiguous."""
    for array, x in zip(targets[: len(inputs)], inputs, strict=True):
        if x.ndim != 4 or array.shape != x.shape or array.dtype != x.dtype or x.dtype.char not in "fd":
            return False
        if array.strides[3] != array.itemsize or array.strides[2] < array.shape[3] * array.itemsize:
            return False
    return True


def _heads(q: Any, k: Any, v: Any, mask: Any) -> tuple[Any, Any, Any] | None:
    """The three as (batch, heads, length, width), which the kernel takes; None where the mask forbids merging."""
    if q.ndim == 4:
        return q, k, v
    if q.ndim > 4:
        if mask is not None and mask.ndim > 2:
            return None
        return tuple(x.reshape(-1 if x.size else 0, *x.shape[-3:]) for x in (q, k, v))
    ones = (1,) * (4 - q.ndim)
    return tuple(x.reshape(*ones, *x.shape) for x in (q, k, v))
