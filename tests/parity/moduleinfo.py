"""PyTorch's own table of modules (``module_db``) run on tensorgrad: one state dict in both, its inputs through both.

``python -m tests.parity.moduleinfo NAME ...`` prints what differs for the modules named (``BatchNorm1d``), or, with
``--all``, for every module of the table and of our own (``layer_table``).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import tensorgrad as tg

from . import translate
from .layer_table import LAYERS, Draw
from .opinfo import Difference, close, gradients, summary
from .translate import Untranslatable, flat, is_tensor, ours, with_torch

# not promised: a fused loss that PyTorch added lately
NOT_PROMISED = ("LinearCrossEntropyLoss",)


def database() -> list[Any]:
    """PyTorch's modules; its optional helpers may be missing, which the caller reports as a skip."""
    with_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    return [info for info in module_db if info.module_cls.__name__ not in NOT_PROMISED]


def _draws(module: Any) -> bool:
    """Whether the module's forward draws random numbers."""
    for part in module.modules():
        kind = type(part).__name__
        p = getattr(part, "p", None) if "Dropout" in kind else getattr(part, "dropout", None)
        if part.training and isinstance(p, (int, float)) and p > 0:
            return True
        if (kind == "RReLU" and part.training) or (kind.startswith("Fractional") and part._random_samples is None):
            return True
    return False


def _apart(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, none of which is another one: the two libraries are to see the same graph."""
    seen: set[int] = set()
    out = []
    for x in args:
        again = is_tensor(x) and id(x) in seen
        seen.add(id(x))
        out.append(x.detach().clone().requires_grad_(x.requires_grad) if again else x)
    return tuple(out)


def _leaves(module: Any, inputs: Any) -> list[Any]:
    return [x for x in (*flat(inputs), *module.parameters()) if is_tensor(x) and x.requires_grad]


def compare(theirs: Any, make: Any, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, training: bool) -> None:
    """Raises Difference unless our module, made by ``make()``, is PyTorch's: its repr, state dict, results, gradients.

    The state dict of PyTorch's is loaded into ours.
    """
    args = _apart(args)
    theirs.train(training)
    try:
        mine = make()
    except Untranslatable:
        raise
    except Exception as error:
        raise Difference(f"construction raises {type(error).__name__}: {error}") from error
    mine.train(training)
    if repr(mine) != repr(theirs):
        raise Difference(f"repr {mine!r}, PyTorch's {theirs!r}")
    if type(theirs).__name__.startswith("Lazy"):  # shapes are known after a first look
        with translate.torch.no_grad():
            theirs(*args, **kwargs)
    _same_keys(mine, theirs, type(theirs).__name__ != type(mine).__name__)
    mine.load_state_dict({key: ours(value) for key, value in theirs.state_dict().items()})
    my_args, my_kwargs = ours(args), ours(kwargs)
    with translate.torch.random.fork_rng():
        want = theirs(*args, **kwargs)
    try:
        got = mine(*my_args, **my_kwargs)
    except Exception as error:
        raise Difference(f"raises {type(error).__name__}: {error}") from error
    if repr(mine) != repr(theirs):
        raise Difference(f"repr after forward {mine!r}, PyTorch's {theirs!r}")
    want_parts, got_parts = flat(want), flat(got)
    if len(want_parts) != len(got_parts):
        raise Difference(f"{len(got_parts)} results, PyTorch has {len(want_parts)}")
    random = _draws(theirs)
    for i, (g, w) in enumerate(zip(got_parts, want_parts, strict=True)):
        close(g, w, f"result {i}", values=not random)
    _same_keys(mine, theirs, False)
    for key, value in theirs.state_dict().items():
        close(mine.state_dict()[key], value, f"state {key}")
    their_leaves, my_leaves = _leaves(theirs, (args, kwargs)), _leaves(mine, (my_args, my_kwargs))
    if len(my_leaves) != len(their_leaves):
        raise Difference(f"{len(my_leaves)} leaves require grad, PyTorch has {len(their_leaves)}")
    if order and not random and their_leaves:
        gradients(got_parts, want_parts, my_leaves, their_leaves, order)


def _same_keys(mine: Any, theirs: Any, lazy: bool) -> None:
    have, want = list(mine.state_dict()), list(theirs.state_dict())
    if have != want and not lazy:
        raise Difference(f"state dict keys {have}, PyTorch's {want}")


def _made(own: Any, args: Any, kwargs: Any, dtype: Any) -> Any:
    return own(*args, **kwargs).to(dtype)


def differences(info: Any, dtypes: list[str], limit: int | None = None) -> Iterator[str]:
    """One line per input of PyTorch's table that differs, in training and in evaluation."""
    torch = with_torch()
    name = info.module_cls.__name__
    own = getattr(tg.nn, name, None)
    if own is None:
        yield f"{name}: missing"
        return
    for dtype_name in dtypes:
        dtype = getattr(torch, dtype_name)
        if dtype not in info.dtypes:
            continue
        order = 2 if info.supports_gradgrad and dtype == torch.float64 else 1
        if name == "CTCLoss" and dtype == torch.float32:
            order = 0  # sums of many logarithms in single precision: both libraries' gradients have errors of 1e-4
        for training in (True, False):
            torch.manual_seed(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cases = list(
                    info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
                )
            if limit is not None and len(cases) > limit:
                cases = cases[:: -(-len(cases) // limit)]
            for k, case in enumerate(cases):
                build, call = case.constructor_input, case.forward_input
                what = f"{name} {dtype_name} {'train' if training else 'eval'} #{k} {_words(build)} of {_words(call)}"
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        theirs = info.module_cls(*build.args, **build.kwargs).to(dtype)
                        arguments, options = ours(tuple(build.args)), ours(dict(build.kwargs))
                        make = partial(_made, own, arguments, options, getattr(tg, dtype_name))
                        compare(theirs, make, call.args, dict(call.kwargs), order, training)
                except Untranslatable:
                    continue
                except Difference as error:
                    yield f"{what}: {error}"


def _words(call: Any) -> str:
    class Call:
        input = call.args[0] if call.args else ()
        args = call.args[1:]
        kwargs = call.kwargs

    return summary(Call)


def error_differences(info: Any) -> Iterator[str]:
    """One line per error input that we accept, or refuse with a class that PyTorch's callers don't catch."""
    torch = with_torch()
    name = info.module_cls.__name__
    own = getattr(tg.nn, name, None)
    if info.module_error_inputs_func is None or own is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = []
        for training in (True, False):
            with contextlib.suppress(TypeError):
                cases += list(
                    info.module_error_inputs_func(
                        info, device="cpu", dtype=torch.float64, requires_grad=False, training=training
                    )
                )
        for k, case in enumerate(cases):
            build, call = case.module_error_input.constructor_input, case.module_error_input.forward_input
            raised: Any = None
            try:
                made = own(*ours(tuple(build.args)), **ours(dict(build.kwargs)))
                if "CONSTRUCTION" not in str(case.error_on):
                    made = made.to(tg.float64) if list(made.parameters()) else made
                    made(*ours(tuple(call.args)), **ours(dict(call.kwargs)))
            except (Untranslatable, AttributeError):
                continue
            except Exception as error:  # noqa: BLE001 - its class is what is tested
                raised = error
            what = f"{name} error #{k} {_words(build)}"
            if raised is None:
                yield f"{what}: accepted, PyTorch raises {case.error_type} {case.error_regex[:80]}"
            elif not isinstance(raised, case.error_type):
                seen = f"{type(raised).__name__} {str(raised)[:60]}"
                yield f"{what}: {seen}, PyTorch raises {case.error_type} {case.error_regex[:60]}"


def layer_differences(row: tuple[Any, ...]) -> Iterator[str]:
    """One line per way in which a row of our own table differs, in training and in evaluation."""
    torch = with_torch()
    name, args, kwargs, inputs = row
    if not hasattr(tg.nn, name):
        yield f"{name}: missing"
        return
    # PyTorch's second derivative forgets how often a row is named
    order = 1 if kwargs.get("scale_grad_by_freq") else 2
    for training in (True, False):
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = getattr(torch.nn, name)(*_built(args, torch.nn), **_built(kwargs, torch.nn)).double()
            given = tuple(x.tensor(torch) if isinstance(x, Draw) else x for x in inputs)
            try:
                compare(
                    theirs, lambda: getattr(tg.nn, name)(*_built(args, tg.nn), **_built(kwargs, tg.nn)).double(),
                    given, {}, order, training,
                )  # fmt: skip
            except Difference as error:
                yield f"{name}{args}{kwargs or ''} {'train' if training else 'eval'}: {error}"


def _built(value: Any, nn: Any) -> Any:
    """Constructor arguments, with what depends on the library made by it."""
    if isinstance(value, Draw):
        return ours(value.tensor(translate.torch)) if nn is tg.nn else value.tensor(translate.torch)
    if isinstance(value, dict):
        return {key: _built(v, nn) for key, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_built(v, nn) for v in value)
    return value(nn) if callable(value) else value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--dtypes", default="float64,float32")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--show", type=int, default=6, help="lines per module")
    options = parser.parse_args()
    jobs: dict[str, list[Any]] = {}
    for info in database():
        how = (info, options.dtypes.split(","), options.limit)
        jobs.setdefault(info.module_cls.__name__, []).append(
            lambda how=how: [*differences(*how), *error_differences(how[0])]
        )
    for row in LAYERS:
        jobs.setdefault(row[0], []).append(lambda row=row: list(layer_differences(row)))
    bad = 0
    chosen = [name for name in jobs if options.all or name in options.names]
    for name in chosen:
        lines: list[str] = []
        for job in jobs[name]:
            try:
                lines += job()
            except Exception:  # noqa: BLE001 - one broken entry must not hide the others
                lines.append(f"{name}: HARNESS {traceback.format_exc(limit=-3)}")
        for line in lines[: options.show]:
            print(line[:700], flush=True)
        if len(lines) > options.show:
            print(f"{name}: ... {len(lines)} in all", flush=True)
        bad += bool(lines)
    print(f"{len(chosen)} modules, {bad} differ")
    sys.exit(bool(bad))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
