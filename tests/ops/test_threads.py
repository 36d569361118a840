"""The same bits for 1, 2 and 8 threads: every op of the table, forward and backward, on arrays that really split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.ops.samples import Arg, Sample
from tensorgrad.tensor import wrap
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import inputs_of

pytestmark = pytest.mark.skipif(registry.class_of("cpp").why_not() is not None, reason="one backend has threads")

ELEMENTS = 150_000  # of the largest input: more than twice what any kernel leaves to one thread
OPS: dict[str, list[Any]] = {}
for case in conformance.cases():
    OPS.setdefault(case.op.name, []).append(case)
# What the system's libraries compute, on one thread: nothing of ours to split
LIBRARY = ("cholesky", "cofactors", "det", "eig", "inv", "lstsq", "lu", "matrix_exp", "pinv", "qr", "slogdet", "solve",
           "svd", "triangular")  # fmt: skip
# Take a minute on arrays enlarged so; all but zeta, which is elementwise, are below at sizes of their own
SLOW = ("zeta", "rnn_sequence", "ctc_backward", "index_select")


def enlarged(sample: Sample) -> list[Sample]:
    """The sample with every dimension, or only the first one, so many times as long that arrays split."""
    arrays = [arg for arg in sample.inputs if isinstance(arg, Arg)]
    largest = max(arrays, key=lambda arg: np.prod(arg.shape), default=None)
    if largest is None or 0 in largest.shape or max(largest.shape, default=1) == 1:
        return []
    size, long = int(np.prod(largest.shape)), [n for n in largest.shape if n > 1]
    every = int(np.ceil((ELEMENTS / size) ** (1 / len(long))))
    first = largest.shape[0]

    def grown(shape: tuple[int, ...], how: str) -> tuple[int, ...]:
        if how == "every":
            return tuple(n * every if n > 1 else n for n in shape)
        return (shape[0] * -(-ELEMENTS // size), *shape[1:]) if shape and shape[0] == first > 1 else shape

    def large(arg: Any, how: str) -> Any:
        if not isinstance(arg, Arg):
            return arg
        shape = grown(arg.shape, how)
        return replace(arg, shape=shape, values=None if arg.values is None else np.resize(arg.values, shape))

    return [replace(sample, inputs=tuple(large(arg, how) for arg in sample.inputs)) for how in ("first", "every")]


def run(op: Any, inputs: list[Any], attrs: dict[str, Any], smooth: bool) -> list[bytes]:
    """The bytes of results and, where there are derivatives, of gradients."""
    found = registry.get("cpp")
    args = [wrap(found.from_host(x)) if isinstance(x, np.ndarray) else x for x in inputs]
    live = [a for a in args if isinstance(a, tg.Tensor) and a.dtype.is_floating_point and smooth]
    for tensor in live:
        tensor.requires_grad_()
    results = op(*args, **attrs)
    results = [r for r in (results if isinstance(results, tuple) else (results,)) if r is not None]
    recorded = [r for r in results if r.requires_grad]
    if recorded:
        seeds = [tg.ones_like(r) for r in recorded]
        results += [g for g in tg.autograd.grad(recorded, live, seeds, allow_unused=True) if g is not None]
    return [found.to_host(r.detach()._data).tobytes() for r in results]


@pytest.mark.parametrize("name", [name for name in sorted(OPS) if not any(part in name for part in (*LIBRARY, *SLOW))])
def test_same_bits_for_any_number_of_threads(name):
    before, done = tg.get_num_threads(), 0
    for case in OPS[name]:
        for sample in enlarged(case.sample):
            inputs = inputs_of(name, sample, "float32")
            seen = []
            try:
                with registry.backend("cpp"), np.errstate(all="ignore"):
                    for threads in (1, 2, 8):
                        tg.set_num_threads(threads)
                        seen.append(run(case.op, [x.copy() if isinstance(x, np.ndarray) else x for x in inputs],
                                        case.sample.attrs, sample.smooth))  # fmt: skip
            except (ValueError, RuntimeError, IndexError, TypeError):
                continue  # the sample's attributes fit its own shape alone
            finally:
                tg.set_num_threads(before)
            assert all(other == seen[0] for other in seen[1:]), f"{case}: the bits depend on the number of threads"
            done += 1
            break
        if done == 2:
            return
    if not done:
        pytest.skip("no sample of this op can be enlarged")


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers_have_the_same_bits_for_any_number_of_threads(kind):
    before = tg.get_num_threads()
    seen = []
    try:
        with registry.backend("cpp"):
            for threads in (1, 2, 8):
                tg.set_num_threads(threads)
                tg.manual_seed(0)
                layer = getattr(tg.nn, kind)(48, 96, num_layers=2, bidirectional=True, batch_first=True)
                x = tg.randn(33, 12, 48, requires_grad=True)
                y = layer(x)[0]
                y.square().sum().backward()
                seen.append([t.numpy().tobytes() for t in (y.detach(), x.grad, *(p.grad for p in layer.parameters()))])
    finally:
        tg.set_num_threads(before)
    assert seen[1] == seen[0] and seen[2] == seen[0], "the bits depend on the number of threads"


@pytest.mark.parametrize("name", ["ctc", "index_select"])
def test_ops_too_slow_to_enlarge_have_the_same_bits_for_any_number_of_threads(name):
    draw = np.random.default_rng(0)
    scores = draw.standard_normal((60, 16, 40)).astype(np.float32)
    table = draw.standard_normal((3000, 64)).astype(np.float32)
    labels, rows = draw.integers(1, 40, (16, 20)), draw.integers(0, 3000, 9000)
    before, seen = tg.get_num_threads(), []
    try:
        with registry.backend("cpp"):
            for threads in (1, 2, 8):
                tg.set_num_threads(threads)
                x = tg.tensor(scores if name == "ctc" else table, requires_grad=True)
                if name == "ctc":
                    lengths = tg.full((16,), 60), tg.full((16,), 20)
                    y = tg.nn.functional.ctc_loss(x.log_softmax(2), tg.tensor(labels), *lengths, reduction="none")
                else:
                    y = x.index_select(0, tg.tensor(rows))
                y.square().sum().backward()
                seen.append([y.detach().numpy().tobytes(), x.grad.numpy().tobytes()])
    finally:
        tg.set_num_threads(before)
    assert seen[1] == seen[0] and seen[2] == seen[0], "the bits depend on the number of threads"
