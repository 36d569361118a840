"""Random tensors: uniform, normal, integers, permutations, choices; and the in-place forms.

What is drawn comes through the door, so a recorded program draws anew each time it is replayed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import registry
from ..device import where
from ..dispatch import local, recorded
from ..dtypes import REAL_OF, as_dtype, get_default_dtype
from ..errors import ArgumentError, DTypeError, ShapeError
from ..layout import check_layout, contiguous_format, preserve_format
from ..random import Generator, chosen, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from ..tensor import Tensor, install, wrap
from . import pointwise as pw
from .checks import everywhere, integer, number, require_float, require_tensors
from .create import finish, shape_from, sizes_from
from .elementwise import broadcast_shape
from .inplace import assign, deliver, write_into
from .record import Spec, op
from .reinterpret import view_as_complex
from .storable import check_storable

__all__ = [
    "Generator", "bernoulli", "get_rng_state", "initial_seed", "manual_seed", "multinomial", "normal", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip


def _filled_infer(*, shape: tuple[int, ...], dtype: Any, generator: Any) -> Spec:
    return Spec(shape, dtype)


random_uniform = op("random_uniform", infer=_filled_infer, doc="Uniform numbers in [0, 1).")
random_normal = op("random_normal", infer=_filled_infer, doc="Normal numbers with mean 0 and variance 1.")
random_integers = op(
    "random_integers",
    infer=lambda *, shape, low, high, dtype, generator: Spec(shape, dtype),
    doc="Integers from ``low`` to ``high`` (excluded).",
)
random_permutation = op(
    "random_permutation",
    infer=lambda *, n, dtype, generator: Spec((n,), dtype),
    doc="The numbers from 0 to ``n`` (excluded) in random order.",
)


def _drawn(kind: str, device: Any, generator: Generator | None, **attrs: Any) -> Any:
    """A draw's array on a device, through the door, so that whoever listens hears of it."""
    place = where(device)
    found = registry.on_device(place)
    draw = getattr(local.doors[found.array_type], kind)
    if place.index is None:
        return draw(**attrs, generator=chosen(generator))
    with found.on(place.index):
        return draw(**attrs, generator=chosen(generator))


def _float_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    chosen_dtype = get_default_dtype() if dtype is None else as_dtype(dtype)
    if chosen_dtype.category < 2:
        raise DTypeError(f"{name}: expected a floating-point or complex dtype, got {chosen_dtype}.")
    return chosen_dtype.np


def _draw(kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], device: Any, generator: Generator | None) -> Tensor:
    """Numbers of this kind; complex ones have both parts drawn, those of normal ones with half the variance each."""
    if dtype.kind != "c":
        return wrap(_drawn(kind, device, generator, shape=shape, dtype=dtype))
    parts = np.dtype(REAL_OF[dtype.name])
    pairs = wrap(_drawn(kind, device, generator, shape=(*shape, 2), dtype=parts))
    return wrap(view_as_complex(pairs if kind == "random_uniform" else pw.mul(pairs, 0.5**0.5))._data)


def rand(
    *args: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Uniform numbers in [0, 1): ``rand(2, 3)`` or ``rand((2, 3))``.

    The numbers depend on the generator's seed and how often it was asked before: not on backend or threads.
    """
    check_layout("rand", layout)
    result = _draw("random_uniform", sizes_from("rand", args, size), _float_dtype("rand", dtype), device, generator)
    return _given("rand", result, requires_grad, out, pin_memory)


def randn(
    *args: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Normal numbers with mean 0 and variance 1: ``randn(2, 3)`` or ``randn((2, 3))``."""
    check_layout("randn", layout)
    result = _draw("random_normal", sizes_from("randn", args, size), _float_dtype("randn", dtype), device, generator)
    return _given("randn", result, requires_grad, out, pin_memory)


def _given(name: str, result: Tensor, requires_grad: bool, out: Tensor | None, pin_memory: bool = False) -> Tensor:
    if pin_memory:
        result = result.pin_memory()
    if out is not None:
        result = deliver(name, result, out)
    return finish(result._data, True) if requires_grad and out is None else result


def randint(
    low: Any = None, high: Any = None, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Integers from ``low`` (0 if left out) to ``high`` (excluded): ``randint(10, (3,))``, ``randint(2, 10, (3,))``.

    Raises ArgumentError if the range is empty.
    """
    check_layout("randint", layout)
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    elif low is None:
        low = 0
    if size is None or high is None:
        raise TypeError("randint: expected randint(high, size) or randint(low, high, size).")
    shape = shape_from("randint", (size,))
    kind = as_dtype("int64" if dtype is None else dtype)
    low, high = integer("randint", "low", low), integer("randint", "high", high, 2**63 + 1)  # it is excluded
    result = _integers("randint", low, high, shape, kind.np, device, generator)
    return _given("randint", result, requires_grad, out, pin_memory)


def require_range(name: str, low: int, high: int, dtype: np.dtype[Any]) -> None:
    """Raises ArgumentError unless the dtype holds the integers from ``low`` to ``high`` (excluded), DTypeError for a
    complex one."""
    if dtype.kind == "c":
        raise DTypeError(f"{name}: integers are drawn for real dtypes, got {dtype.name}.")
    if dtype.kind in "iu":
        least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    else:
        least, most = (0, 1) if dtype.kind == "b" else (-65504, 65504) if dtype.name == "float16" else (low, high)
    if low < least or high - 1 > most:
        raise ArgumentError(f"{name}: the range from {low} to {high} does not fit {dtype.name}.")


def _integers(
    name: str, low: int, high: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: Any,
    generator: Generator | None,
) -> Tensor:  # fmt: skip
    if high <= low:
        raise ArgumentError(f"{name}: the range from {low} to {high} (excluded) is empty.")
    if low < -(2**63) or high > 2**63:
        raise ArgumentError(f"{name}: the range from {low} to {high} does not fit int64.")
    require_range(name, low, high, dtype)
    return wrap(_drawn("random_integers", device, generator, shape=shape, low=low, high=high, dtype=dtype))


def randperm(
    n: int, *, generator: Generator | None = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """The numbers from 0 to ``n`` (excluded) in random order."""
    check_layout("randperm", layout)
    n = integer("randperm", "n", n)
    if n < 0:
        raise ArgumentError(f"randperm: n must not be negative, got {n}.")
    kind = as_dtype("int64" if dtype is None else dtype)
    result = wrap(_drawn("random_permutation", device, generator, n=n, dtype=kind.np))
    return _given("randperm", result, requires_grad, out, pin_memory)


def row_major_unless(memory_format: Any) -> Any:
    """The format of a ``*_like`` tensor: row-major where the input's is to be kept."""
    return contiguous_format if memory_format is None or memory_format is preserve_format else memory_format


def rand_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """Uniform numbers in the shape, dtype and device of ``input``."""
    return rand(
        tuple(input.shape), generator=generator, dtype=dtype or input.dtype, layout=layout,
        device=input.device if device is None else device, requires_grad=requires_grad, pin_memory=pin_memory,
    ).contiguous(memory_format=row_major_unless(memory_format))  # fmt: skip


def randn_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """Normal numbers in the shape, dtype and device of ``input``."""
    require_tensors("randn_like", input=input)
    return randn(
        tuple(input.shape), generator=generator, dtype=dtype or input.dtype, layout=layout,
        device=input.device if device is None else device, requires_grad=requires_grad, pin_memory=pin_memory,
    ).contiguous(memory_format=row_major_unless(memory_format))  # fmt: skip


def randint_like(
    input: Tensor, low: Any = None, high: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
    memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """Integers from ``low`` (0 if left out) to ``high`` in the shape, dtype and device of ``input``."""
    require_tensors("randint_like", input=input)
    if low is None and high is None:
        raise TypeError("randint_like: expected randint_like(input, high) or randint_like(input, low, high).")
    return randint(
        low, high, tuple(input.shape), generator=generator, dtype=dtype or input.dtype, layout=layout,
        device=input.device if device is None else device, requires_grad=requires_grad, pin_memory=pin_memory,
    ).contiguous(memory_format=row_major_unless(memory_format))  # fmt: skip


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Normal numbers with the given mean and standard deviation, numbers or tensors that broadcast.

    Args:
        size: the shape, when both are numbers.
    Raises: ArgumentError for a negative ``std``; TypeError if neither a tensor nor a size gives the shape.
    """
    check_layout("normal", layout)
    if size is not None:  # then both are numbers
        mean, std = (x.item() if isinstance(x, Tensor) and x._data.ndim == 0 else x for x in (mean, std))
    tensors = [x for x in (mean, std) if isinstance(x, Tensor)]
    mean, std = (x if isinstance(x, Tensor) else number("normal", "mean and std", x) for x in (mean, std))
    if not isinstance(std, Tensor) and not std >= 0:
        raise ArgumentError(f"normal: std must not be negative, got {std}.")
    if not tensors:
        if size is None:
            raise TypeError("normal: give size when mean and std are numbers.")
        shape = shape_from("normal", (size,))
        kind = _float_dtype("normal", dtype)
        place = device
    else:
        if size is not None:
            raise TypeError(f"normal: size={size!r} is for numbers; the shape is that of the tensors mean and std.")
        shape = broadcast_shape("normal", *(x._data.shape for x in tensors))
        kind = _float_dtype("normal", tensors[0].dtype if dtype is None else dtype)
        place = tensors[0].device if device is None else device
    if isinstance(std, Tensor) and not everywhere(pw.ge(std, 0)):
        raise ArgumentError("normal: no element of std may be negative or NaN.")
    noise = _draw("random_normal", shape, kind, place, generator)
    result = _affine(noise, std, mean).detach()
    if result._data.dtype != kind:  # as PyTorch's, of the dtype of the first tensor
        result = recorded.cast(result, dtype=kind)
    return _given("normal", result, requires_grad, out)


def _affine(noise: Tensor, scale: Any, shift: Any) -> Tensor:
    """``noise * scale + shift``, without the steps that change nothing."""
    if isinstance(scale, Tensor) or scale != 1:
        noise = pw.mul(noise, scale)
    if isinstance(shift, Tensor) or shift != 0:
        noise = pw.add(noise, shift)
    return noise


def _probabilities(name: str, p: Tensor) -> None:
    require_float(name, p._data)
    if not everywhere(pw.bitwise_and(pw.ge(p, 0), pw.le(p, 1))):
        raise ArgumentError(f"{name}: expected probabilities between 0 and 1.")


def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """Ones with the probabilities in ``input`` (or with probability ``p`` everywhere), else zeros.

    Raises ArgumentError for probabilities outside of [0, 1].
    """
    require_tensors("bernoulli", input=input)
    result = _bernoulli("bernoulli", input, input if p is None else p, generator)
    return result if out is None else deliver("bernoulli", result, out)


def _bernoulli(name: str, like: Tensor, p: Any, generator: Generator | None) -> Tensor:
    if isinstance(p, Tensor):
        _probabilities(name, p)
    elif not 0 <= number(name, "p", p) <= 1:
        raise ArgumentError(f"{name}: expected a probability between 0 and 1, got {p}.")
    kind = np.dtype(np.float64 if isinstance(p, Tensor) and p.dtype.name == "float64" else np.float32)
    u = _draw("random_uniform", tuple(like.shape), kind, like.device, generator)
    return pw.lt(u, p.detach() if isinstance(p, Tensor) else float(p)).to(like.dtype)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Indices drawn with the (unnormalized) probabilities in the rows of ``input``.

    Args:
        input: (n,) or (m, n), not negative.
        num_samples: how many to draw of each row.
        replacement: whether an index may be drawn again.
    Returns: int64 (num_samples,) or (m, num_samples).
    Raises: ArgumentError if a row has a negative or infinite weight, no weight at all, or, without replacement, fewer
        than ``num_samples`` positive ones.
    """
    if out is not None:
        if out.dtype.name != "int64":
            raise DTypeError(f"multinomial: multinomial expects Long tensor out, got {out.dtype}.")
        return deliver("multinomial", multinomial(input, num_samples, replacement, generator=generator), out)
    require_tensors("multinomial", input=input)
    require_float("multinomial", input._data)
    if input._data.ndim not in (1, 2):
        raise ShapeError(f"multinomial: expected 1 or 2 dimensions, got shape {tuple(input.shape)}.")
    num_samples = integer("multinomial", "num_samples", num_samples)
    if num_samples <= 0:
        raise ArgumentError(f"multinomial: num_samples must be positive, got {num_samples}.")
    weights: Any = input.detach()
    n = weights.shape[-1]
    if not everywhere(pw.isfinite(weights) & (weights >= 0)):
        raise ArgumentError("multinomial: the weights must be finite and not negative.")
    weights = weights.double()
    if replacement:
        if weights._data.size and not everywhere(weights.sum(-1) > 0):
            raise ArgumentError("multinomial: a row has no positive weight.")
        sums = weights.cumsum(-1)
        shape = (*weights.shape[:-1], num_samples)
        u = _draw("random_uniform", shape, np.dtype(np.float64), input.device, generator)
        # u < 1, so the first sum above u * total has positive weight; counting the others is its index
        return (sums.unsqueeze(-2) <= (u * sums[..., -1:]).unsqueeze(-1)).sum(-1).clamp(max=n - 1)
    if num_samples > n or not everywhere((weights > 0).sum(-1) >= num_samples):
        raise ArgumentError(
            f"multinomial: {num_samples} draws without replacement need as many positive weights in every row of {n}."
        )
    # the smallest of exponential clocks with these rates: Efraimidis and Spirakis 2006
    u = _draw("random_uniform", tuple(weights.shape), np.dtype(np.float64), input.device, generator)
    clocks = pw.where(weights > 0, pw.div(pw.neg(pw.log1p(pw.neg(u))), weights), float("inf"))
    return clocks.topk(num_samples, dim=-1, largest=False)[1]


# --- in place


def _put(self: Tensor, drawn: Tensor) -> Tensor:
    array, fresh = self._data, drawn._data
    plain = not (self._tracked or self._inference or self._base is not None) and type(array) is type(fresh)
    plain = plain and array.dtype == fresh.dtype and array.shape == fresh.shape
    if plain and array.flags.c_contiguous and getattr(array.flags, "writeable", True):
        local.doors[type(array)].copy_into(array, fresh)  # nothing of what ``write_into`` asks is left
        self._bump()
        return self
    return write_into(assign, self, (self, drawn), {})


def _own_float(name: str, self: Tensor, complex_too: bool = False) -> np.dtype[Any]:
    if not (complex_too and self._data.dtype.kind == "c"):
        require_float(name, self._data)
    return self._data.dtype


def _uniform(self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with uniform numbers in [from, to)."""
    require_tensors("uniform_", self=self)
    from_, to = number("uniform_", "from", from_), number("uniform_", "to", to)
    if not from_ <= to:
        raise ArgumentError(f"uniform_: the range from {from_} to {to} is empty.")
    noise = _draw("random_uniform", tuple(self.shape), _own_float("uniform_", self, True), self.device, generator)
    if not to - from_ < float("inf"):
        raise ArgumentError(f"uniform_: the range from {from_} to {to} is out of bounds for {self.dtype}.")
    for bound in (from_, to, to - from_):
        check_storable("uniform_", bound, self.dtype)
    shift = complex(from_, from_) if noise._data.dtype.kind == "c" and from_ else from_
    return _put(self, _affine(noise, to - from_, shift))


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with normal numbers of this mean and standard deviation."""
    require_tensors("normal_", self=self)
    mean, std = number("normal_", "mean", mean), number("normal_", "std", std)
    if not std >= 0:
        raise ArgumentError(f"normal_: std must not be negative, got {std}.")
    noise = _draw("random_normal", tuple(self.shape), _own_float("normal_", self, True), self.device, generator)
    return _put(self, _affine(noise, std, mean))


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with ones of probability ``p`` (a number, or a tensor that broadcasts), else zeros."""
    return _put(self, _bernoulli("bernoulli_", self, p, generator))


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with numbers of density ``lambd * exp(-lambd * x)``."""
    require_tensors("exponential_", self=self)
    lambd = number("exponential_", "lambd", lambd)
    if not lambd > 0:
        raise ArgumentError(f"exponential_: lambd must be positive, got {lambd}.")
    u = _draw("random_uniform", tuple(self.shape), _own_float("exponential_", self), self.device, generator)
    return _put(self, pw.div(pw.neg(pw.log1p(pw.neg(u))), lambd))


def cauchy_(self: Tensor, median: float = 0, sigma: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Fill with numbers of density ``sigma / (pi (sigma^2 + (x - median)^2))``."""
    require_tensors("cauchy_", self=self)
    median, sigma = number("cauchy_", "median", median), number("cauchy_", "sigma", sigma)
    if not sigma > 0:
        raise ArgumentError(f"cauchy_: cauchy_ expects sigma > 0.0, but found sigma={sigma}.")
    u = _open_uniform("cauchy_", self, generator)
    return _put(self, _affine(pw.tan(pw.mul(pw.sub(u, 0.5), np.pi)), sigma, median))


def log_normal_(self: Tensor, mean: float = 1, std: float = 2, *, generator: Generator | None = None) -> Tensor:
    """Fill with numbers whose logarithm is normal with this mean and standard deviation."""
    require_tensors("log_normal_", self=self)
    mean, std = number("log_normal_", "mean", mean), number("log_normal_", "std", std)
    if not std > 0:
        raise ArgumentError(f"log_normal_: log_normal_ expects std > 0.0, but found std={std}.")
    noise = _draw("random_normal", tuple(self.shape), _own_float("log_normal_", self), self.device, generator)
    return _put(self, pw.exp(_affine(noise, std, mean)))


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with the number of trials, of success probability ``p`` each, up to the first success: 1, 2, 3, ..."""
    require_tensors("geometric_", self=self)
    p = number("geometric_", "p", p)
    if not 0 < p < 1:
        raise ArgumentError(f"geometric_: geometric_ expects p to be in (0, 1), but got p={p}.")
    if self._data.dtype.kind in "bc":
        raise DTypeError(f'geometric_: "geometric" is not implemented for {self.dtype}.')
    u = _open_uniform("geometric_", self, generator)
    drawn = pw.ceil(pw.div(pw.log(u), float(np.log1p(-p))))
    return _put(self, drawn if drawn._data.dtype == self._data.dtype else recorded.cast(drawn, dtype=self._data.dtype))


def _open_uniform(name: str, self: Tensor, generator: Generator | None) -> Tensor:
    """Uniform numbers between 0 and 1, neither of which occurs."""
    own = self._data.dtype
    kind = own if own.kind == "f" and own.itemsize > 2 else np.dtype(np.float64 if own.kind in "iu" else np.float32)
    u = _draw("random_uniform", tuple(self.shape), kind, self.device, generator)
    return pw.clamp_min(u, 2.0**-25)


def random_(self: Tensor, from_: int = 0, to: int | None = None, *, generator: Generator | None = None) -> Tensor:
    """Fill with integers from ``from_`` to ``to`` (excluded): ``random_(10)``, ``random_(2, 10)``, ``random_()``.

    Without a bound, all values that the dtype holds exactly and that are not negative.
    """
    dtype = self._data.dtype
    low, high = (0, from_) if to is None and from_ else (from_, to)
    if high is None:
        high = _last_exact(self) + 1
    low, high = integer("random_", "from", low), integer("random_", "to", high, 2**63 + 1)
    require_range("random_", low, high, dtype)
    drawn = _integers("random_", low, high, tuple(self.shape), np.dtype(np.int64), self.device, generator)
    return _put(self, drawn if dtype.name == "int64" else recorded.cast(drawn, dtype=dtype))


def _last_exact(self: Tensor) -> int:
    dtype = self._data.dtype
    if dtype.kind == "b":
        return 1
    if dtype.kind in "iu":
        return min(int(np.iinfo(dtype).max), 2**63 - 1)
    return 2 ** {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype.name]


for _function in (
    bernoulli, bernoulli_, cauchy_, exponential_, geometric_, log_normal_, multinomial, normal_, random_,
):  # fmt: skip
    install(_function)


def _uniform_method(self: Tensor, *bounds: float, generator: Generator | None = None, **named: float) -> Tensor:
    """Fill with uniform numbers in [from, to): ``uniform_(-1, 1)`` or ``uniform_(**{"from": -1, "to": 1})``."""
    if "from" in named:
        named["from_"] = named.pop("from")
    return _uniform(self, *bounds, generator=generator, **named)


install(_uniform_method, "uniform_")
