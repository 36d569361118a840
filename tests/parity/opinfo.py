"""PyTorch's own table of operators (``op_db``) run on tensorgrad: its sample inputs, and its error inputs.

``python -m tests.parity.opinfo NAME ...`` prints what differs for the operators named, or, with ``--all``, for every
operator of the surface; ``--dtypes float64,int64`` and ``--limit N`` narrow it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from random import seed as seed_python
from typing import Any, ClassVar

import numpy as np

import tensorgrad as tg

from . import translate
from .translate import Untranslatable, dtype_name, flat, host, is_tensor, ours, seed_pytorch, with_torch

# PyTorch's own float64 values have seven digits here, as SciPy's and mpmath's show (docs/differences.md)
SEVEN_DIGITS = dict.fromkeys([f"special.bessel_{kind}{order}" for kind in "jy" for order in (0, 1)], 1000)
TOLERANCE = {
    "float64": (1e-7, 1e-9), "complex128": (1e-7, 1e-9), "float32": (2e-4, 2e-5), "complex64": (2e-4, 2e-5),
    "bfloat16": (3e-2, 2e-2), "float16": (5e-3, 2e-3),
}  # fmt: skip


def database() -> list[Any]:
    """PyTorch's operators; its optional helpers may be missing, which the caller reports as a skip."""
    with_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_utils
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.opinfo import core
    # both look for a unittest in the source lines of every frame, for each sample: most of the time under pytest
    core.extract_test_fn = common_utils.extract_test_fn = lambda: None
    # theirs calls torch.manual_seed before each sample: most of the rest
    common_utils.set_rng_seed = _seed_all
    return list(op_db)


def _seed_all(seed: int) -> None:
    seed_pytorch(translate.torch, seed)
    seed_python(seed)
    np.random.seed(seed)


def resolve(name: str) -> Callable[..., Any] | None:
    """Our function of that dotted name; a Tensor method where there is no function."""
    for root in (tg, tg.Tensor):
        found: Any = root
        try:
            for part in name.split("."):
                found = getattr(found, part)
        except AttributeError:
            continue
        if callable(found) or isinstance(found, property):
            return found
    return None


def forms(info: Any) -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    """(form, PyTorch's callable, ours) for the function, the method and the in-place method, where PyTorch has them."""
    mine = resolve(info.name)
    if isinstance(info.op, types.FunctionType) and info.op.__module__.startswith("torch.testing"):
        mine = on_ours(info.op)
    if mine is not None:
        yield "function", info.op, mine
    name = info.name.rpartition(".")[2]
    for form, theirs, method in (("method", info.method_variant, name), ("inplace", info.inplace_variant, name + "_")):
        plain = getattr(translate.torch.Tensor, method, None)
        if theirs is None or plain is None or theirs is not plain or theirs is info.op:
            continue
        yield form, theirs, getattr(tg.Tensor, method, _missing(f"Tensor.{method}"))


def _missing(name: str) -> Callable[..., Any]:
    def absent(*args: Any, **kwargs: Any) -> Any:
        raise AttributeError(f"tensorgrad has no {name}")

    return absent


def on_ours(function: types.FunctionType) -> Callable[..., Any]:
    """A helper of PyTorch's table, which calls ``torch`` by name, made to call tensorgrad."""
    names = {**function.__globals__, "torch": tg, "F": tg.nn.functional, "np": np}
    for name in function.__code__.co_names:
        other = names.get(name)
        if isinstance(other, types.FunctionType) and other.__module__ == function.__module__ and other is not function:
            names[name] = on_ours(other)
    cells = tuple(
        types.CellType(on_ours(c.cell_contents) if _is_helper(c.cell_contents) else ours(c.cell_contents))
        for c in function.__closure__ or ()
    )
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, cells)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _is_helper(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and value.__module__.startswith("torch.testing")


class Difference(AssertionError):
    """What one call does otherwise."""


def compare(info: Any, form: str, theirs: Callable[..., Any], mine: Callable[..., Any], sample: Any, dtype: Any,
            order: int) -> None:  # fmt: skip
    """Raises Difference unless the call gives PyTorch's values, gradients and second gradients."""
    args, kwargs = _own_leaves(((sample.input, *sample.args), dict(sample.kwargs)))
    my_args, my_kwargs = ours(args), ours(kwargs)
    seen: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_pytorch(translate.torch, 0)
        their_leaves = [x for x in flat((args, kwargs)) if is_tensor(x) and x.requires_grad]
        my_leaves = [x for x in flat((my_args, my_kwargs)) if is_tensor(x) and x.requires_grad]
        if form == "inplace":
            args = _unleaf(args)
            my_args = _unleaf(my_args)
        try:
            want = theirs(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever PyTorch refuses is not a sample
            seen = error
        if seen is not None or any(is_tensor(w) and not hasattr(tg, dtype_name(w)) for w in flat(want)):
            return  # refused there, or of a dtype that is not here on purpose, as complex32
        try:
            got = mine(*my_args, **my_kwargs)
        except Untranslatable:
            raise
        except Exception as error:
            raise Difference(f"raises {type(error).__name__}: {error}") from error
        if info.output_func_is_set:
            want, got = info.post(want), info.post(got)
        want_parts, got_parts = flat(want), flat(got)
        if len(want_parts) != len(got_parts):
            raise Difference(f"{len(got_parts)} results, PyTorch has {len(want_parts)}")
        if isinstance(want, tuple) and hasattr(want, "_fields") and getattr(got, "_fields", None) != want._fields:
            raise Difference(f"fields {getattr(got, '_fields', None)}, PyTorch has {want._fields}")
        random = not info.deterministic or info.draws(sample)
        shown, wanted = got_parts, want_parts
        if info.name in PICKERS and same_elements(args[0], got_parts[-1], want_parts[-1], kwargs):
            shown, wanted = got_parts[:-1], want_parts[:-1]
        for i, (g, w) in enumerate(zip(shown, wanted, strict=True)):
            close(g, w, f"result {i}", values=not random, loose=SEVEN_DIGITS.get(info.name, 1))
        if not order or random or not my_leaves:
            return
        narrow = dtype == translate.torch.float32
        slack = CANCELLING.get(info.name, 1) if narrow else 1
        gradients(got_parts, want_parts, my_leaves, their_leaves, order, slack)


# Which of several equal elements these name is not promised: their positions are compared through what lies there.
PICKERS = ("sort", "argsort", "topk", "kthvalue", "mode", "median", "nanmedian")


def same_elements(x: Any, got: Any, want: Any, kwargs: Any) -> bool:
    """Whether two tensors of positions along some dimension of ``x`` name equal elements, and each at most once."""
    if not is_tensor(got) or dtype_name(got) != "int64" or kwargs.get("stable"):
        return False
    values, a, b = host(x), host(got), host(want)
    if a.shape != b.shape or not values.ndim or not a.size:
        return False
    for axis, size in enumerate(values.shape):
        rest = values.shape[:axis] + values.shape[axis + 1 :]
        if a.shape == rest:
            first, second = np.expand_dims(a, axis), np.expand_dims(b, axis)
        elif a.ndim == values.ndim and a.shape[:axis] + a.shape[axis + 1 :] == rest:
            first, second = a, b
        else:
            continue
        if (
            max(abs(part).max() for part in (first, second)) >= size
            or (np.diff(np.sort(first, axis), axis=axis) == 0).any()
        ):
            continue
        mine, theirs = (np.take_along_axis(values, part, axis) for part in (first, second))
        if np.array_equal(mine, theirs, equal_nan=mine.dtype.kind in "fc"):
            return True
    return False


def _own_leaves(value: Any) -> Any:
    """``value`` with leaves in place of views that were made without recording: PyTorch gives them no gradient."""
    if isinstance(value, dict):
        return {key: _own_leaves(v) for key, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(_own_leaves, value))
    if is_tensor(value) and value.requires_grad and value.is_leaf and value._is_view():
        return value.detach().requires_grad_()
    return value


# In float32 the digits of this gradient cancel: on PyTorch's samples it is up to 2.4e-3 from float64 in PyTorch, up to
# 2.8e-4 here. float64 is compared at the full tolerance.
CANCELLING = {"logcumsumexp": 40}


def gradients(
    got: list[Any], want: list[Any], my_leaves: list[Any], their_leaves: list[Any], order: int, loose: float = 1
) -> None:
    live = [k for k, w in enumerate(want) if is_tensor(w) and w.requires_grad]
    if not live:
        return
    deaf = [k for k in live if not got[k].requires_grad]
    if deaf:
        raise Difference(f"result {deaf[0]} does not require grad")
    torch = translate.torch
    outs, my_outs = [want[k] for k in live], [got[k] for k in live]
    seeds = [weights(w, k) for k, w in zip(live, outs, strict=True)]
    their_seeds = [torch.tensor(s, dtype=w.dtype, requires_grad=order > 1) for s, w in zip(seeds, outs, strict=True)]
    my_seeds = [tg.tensor(s, dtype=g.dtype, requires_grad=order > 1) for s, g in zip(seeds, my_outs, strict=True)]
    try:
        first = torch.autograd.grad(outs, their_leaves, their_seeds, create_graph=order > 1, allow_unused=True)
    except Exception:  # noqa: BLE001 - PyTorch has no derivative there
        return
    try:
        mine = tg.autograd.grad(my_outs, my_leaves, my_seeds, create_graph=order > 1, allow_unused=True)
    except Exception as error:
        raise Difference(f"gradient raises {type(error).__name__}: {error}") from error
    for i, (g, w) in enumerate(zip(mine, first, strict=True)):
        close_or_zero(g, w, f"gradient {i}", loose=loose)
    if order < 2:
        return
    pairs = [(g, w) for g, w in zip(mine, first, strict=True) if w is not None and w.requires_grad]
    if not pairs:
        return
    again_seeds = [weights(w, 100 + k) for k, (_, w) in enumerate(pairs)]
    theirs_in, mine_in = [*their_leaves, *their_seeds], [*my_leaves, *my_seeds]
    try:
        second = torch.autograd.grad(
            [w for _, w in pairs], theirs_in,
            [torch.tensor(s, dtype=w.dtype) for s, (_, w) in zip(again_seeds, pairs, strict=True)], allow_unused=True,
        )  # fmt: skip
    except Exception:  # noqa: BLE001
        return
    kept = [(g, s) for (g, _), s in zip(pairs, again_seeds, strict=True) if g is not None and g.requires_grad]
    if not kept:
        for i, w in enumerate(second):
            close_or_zero(None, w, f"second gradient {i}")
        return
    try:
        my_second = tg.autograd.grad(
            [g for g, _ in kept], mine_in, [tg.tensor(s, dtype=g.dtype) for g, s in kept], allow_unused=True
        )
    except Exception as error:
        raise Difference(f"second gradient raises {type(error).__name__}: {error}") from error
    for i, (g, w) in enumerate(zip(my_second, second, strict=True)):
        close_or_zero(g, w, f"second gradient {i}", loose=100)


def _unleaf(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with a first one that may be written to: a leaf that requires grad may not."""
    first = args[0]
    if is_tensor(first):
        return (first.clone(), *args[1:])
    return args


def weights(like: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed + sum(like.shape))
    values = rng.standard_normal(tuple(like.shape))
    return values + 1j * rng.standard_normal(tuple(like.shape)) if like.is_complex() else values


def close_or_zero(got: Any, want: Any, what: str, loose: float = 1) -> None:
    if got is None or want is None:
        some = want if got is None else got
        # a rule of PyTorch's may leave rounding where the derivative is zero
        if some is not None and (np.abs(host(some)) > TOLERANCE.get(dtype_name(some), (0, 0))[1] * loose).any():
            raise Difference(f"{what}: {'None' if got is None else 'not None'}, PyTorch has the opposite, not zero")
        return
    close(got, want, what, loose=loose)


def close(got: Any, want: Any, what: str, *, values: bool = True, loose: float = 1) -> None:
    if not is_tensor(want):
        if is_tensor(got):
            raise Difference(f"{what}: a tensor, PyTorch gives {type(want).__name__}")
        if isinstance(want, translate.torch.dtype | translate.torch.Size):
            want, got = str(want).replace("torch.", ""), str(got).replace("tensorgrad.", "").replace("torch.", "")
        same = got == want or (
            isinstance(want, float) and (math.isclose(got, want, rel_tol=1e-5) or got != got != want)
        )
        if values and not same:
            raise Difference(f"{what}: {got!r}, PyTorch gives {want!r}")
        return
    if not is_tensor(got):
        raise Difference(f"{what}: {type(got).__name__}, PyTorch gives a tensor")
    if dtype_name(got) != dtype_name(want):
        raise Difference(f"{what}: {dtype_name(got)}, PyTorch has {dtype_name(want)}")
    if tuple(got.shape) != tuple(want.shape):
        raise Difference(f"{what}: shape {tuple(got.shape)}, PyTorch's {tuple(want.shape)}")
    if not values:
        return
    a, b = host(got), host(want)
    rtol, atol = TOLERANCE.get(dtype_name(want), (0, 0))
    if b.size and dtype_name(want) in ("float32", "complex64"):  # what is left where large terms cancel
        finite = np.abs(b[np.isfinite(b)])
        atol = max(atol, 4e-6 * float(finite.max())) if finite.size else atol
    if not np.allclose(a, b, rtol=rtol * loose, atol=atol * loose, equal_nan=True):
        with np.errstate(all="ignore"):
            worst = np.abs(np.asarray(a, dtype=np.complex128) - b)
        k = int(np.nanargmax(np.where(np.isnan(worst), np.inf, worst)))
        raise Difference(f"{what}: {a.ravel()[k]!r} at {k}, PyTorch has {b.ravel()[k]!r} (shape {a.shape})")


class Entry:
    """An OpInfo with the few facts that the comparison reads."""

    # results that depend on choices no one promises: compared through what they rebuild
    POST: ClassVar[dict[str, Callable[[Any], Any]]] = {
        # vectors beyond the singular values span what is left in any way
        "linalg.svd": lambda r: (r[1], abs(r[0][..., : r[1].shape[-1]]), abs(r[2][..., : r[1].shape[-1], :])),
        "svd": lambda r: (r[1], abs(r[0][..., : r[1].shape[-1]]), abs(r[2][..., : r[1].shape[-1]])),
        "linalg.eig": lambda r: (r[0], abs(r[1])),
        "linalg.eigh": lambda r: (r[0], abs(r[1])),
    }
    RANDOM = ("svd_lowrank", "pca_lowrank", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided",
              "empty_permuted", "rand_like", "randn_like", "randn", "randint", "randint_like", "bernoulli",
              "multinomial", "normal", "uniform",
              "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d", "resize_", "resize_as_",
              "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout", "nn.functional.rrelu", "cauchy",
              "exponential", "geometric", "log_normal", "nn.functional.fractional_max_pool2d")  # fmt: skip

    # samples of operators that are deterministic without dropout
    DRAWS: ClassVar[dict[str, Callable[[Any], bool]]] = {
        "nn.functional.scaled_dot_product_attention": lambda s: s.kwargs.get("dropout_p", 0.0) > 0,
        "nn.functional.multi_head_attention_forward": lambda s: s.args[9] > 0 and s.kwargs.get("training", True),
    }

    def __init__(self, info: Any):
        self.info = info
        self.draws = self.DRAWS.get(info.name, lambda sample: False)
        self.name = info.name
        self.full_name = info.full_name
        self.deterministic = info.name not in self.RANDOM
        self.output_func_is_set = info.name in self.POST
        self.post = self.POST.get(info.name, lambda r: r)
        self.op, self.method_variant, self.inplace_variant = info.op, info.method_variant, info.inplace_variant

    def samples(self, dtype: Any, requires_grad: bool) -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seed_pytorch(translate.torch, 1)
            return list(self.info.sample_inputs("cpu", dtype, requires_grad=requires_grad))


def differences(entry: Entry, dtypes: list[str], limit: int | None = None) -> Iterator[str]:
    """One line per sample that differs."""
    torch = with_torch()
    for name in dtypes:
        dtype = getattr(torch, name)
        if dtype not in entry.info.dtypes:
            continue
        floating = dtype.is_floating_point or dtype.is_complex
        grads = floating and entry.info.supports_autograd and dtype in (torch.float64, torch.complex128, torch.float32)
        order = (
            (2 if entry.info.supports_gradgrad and dtype in (torch.float64, torch.complex128) else 1) if grads else 0
        )
        if not any(True for _ in forms(entry)):
            yield f"{entry.full_name}: missing"
            return
        samples = entry.samples(dtype, bool(grads))
        if limit is not None and len(samples) > limit:
            samples = samples[:: -(-len(samples) // limit)]
        for form, theirs, mine in forms(entry):
            for k, sample in enumerate(samples):
                if form == "inplace" and sample.broadcasts_input:
                    continue  # PyTorch refuses most, and gives some another shape
                try:
                    compare(entry, form, theirs, mine, sample, dtype, order)
                except Untranslatable:
                    continue
                except Difference as error:
                    yield f"{entry.full_name} {form} {name} #{k} {summary(sample)}: {error}"


def error_differences(entry: Entry) -> Iterator[str]:
    """One line per error input that we accept, or refuse with a class that PyTorch's callers don't catch."""
    if entry.info.error_inputs_func is None:
        return
    mine = next((mine for form, _, mine in forms(entry) if form == "function"), None)
    if mine is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, case in enumerate(entry.info.error_inputs("cpu")):
            sample = case.sample_input
            if "same device" in case.error_regex:
                continue  # both tensors lie on the CPU here
            if entry.name == "take" and k == 2:
                continue  # `index` and `out` are two views of a third tensor, and would arrive as two tensors
            try:
                with translate.aliases_kept():
                    args, kwargs = ours((sample.input, *sample.args)), ours(dict(sample.kwargs))
            except (Untranslatable, AttributeError, ValueError):  # NumPy has at most 64 dimensions
                continue
            if not refuses(entry.op, sample):
                continue
            raised: Any = None
            result: Any = None
            try:
                result = mine(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - its class is what is tested
                raised = error
            call = f"{entry.full_name} error #{k} {summary(sample)}"
            if raised is None:
                yield f"{call}: accepted ({str(result)[:40]}), PyTorch raises {case.error_regex[:80]}"
            elif not isinstance(raised, case.error_type):
                seen = f"{type(raised).__name__} {str(raised)[:60]}"
                yield f"{call}: {seen}, PyTorch raises {case.error_type} {case.error_regex[:60]}"


def refuses(theirs: Callable[..., Any], sample: Any) -> bool:
    """Whether PyTorch really raises: the table lists some inputs that only its Python reference refuses."""
    try:
        theirs(sample.input, *sample.args, **sample.kwargs)
    except Exception:  # noqa: BLE001
        return True
    return False


def summary(sample: Any) -> str:
    def word(x: Any) -> str:
        if is_tensor(x):
            return f"{dtype_name(x)}{list(x.shape)}"
        if isinstance(x, (tuple, list)):
            return "(" + ", ".join(word(v) for v in x) + ")"
        return str(x)[:40]

    parts = [word(x) for x in (sample.input, *sample.args)] + [f"{k}={word(v)}" for k, v in sample.kwargs.items()]
    return "(" + ", ".join(parts) + ")"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--dtypes", default="float64,float32,int64,bool,complex128,bfloat16")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--show", type=int, default=6, help="lines per operator")
    parser.add_argument("--trace", action="store_true", help="print the traceback of the first difference")
    options = parser.parse_args()
    total = 0
    bad = 0
    for info in database():
        entry = Entry(info)
        if not (options.all or entry.name in options.names or entry.full_name in options.names):
            continue
        total += 1
        lines = 0
        try:
            for line in [*differences(entry, options.dtypes.split(","), options.limit), *error_differences(entry)]:
                lines += 1
                if lines <= options.show:
                    print(line[:400], flush=True)
        except Exception:  # noqa: BLE001 - one broken entry must not hide the others
            lines += 1
            print(f"{entry.full_name}: HARNESS {traceback.format_exc(limit=-3)}", flush=True)
        if lines > options.show:
            print(f"{entry.full_name}: ... {lines} in all", flush=True)
        bad += bool(lines)
    print(f"{total} operators, {bad} differ")
    sys.exit(bool(bad))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
