"""Every sample of every op: value, bits, shapes, first and second derivative, on every backend that runs here."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.dispatch import OPS
from tensorgrad.testing import conformance

CASES = list(conformance.cases())
OWN = dict(OPS)  # what the package defines, before other tests make ops of their own
BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]
DTYPES = ("float32", "float64", "float16", "bfloat16")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_bits_and_shape(case, backend):
    for dtype in DTYPES:
        if conformance.applies(case, dtype):
            conformance.check_value(case, dtype, backend)
            conformance.check_shapes(case, dtype, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_and_second_derivative(case, backend):
    conformance.check_first_derivative(case, backend)
    conformance.check_second_derivative(case, backend)


ODD = {"i": (1 << 40, -1, 0), "f": (float("nan"), float("inf"), -1e30)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_ops_that_raise_for_some_elements_say_so(backend):
    """What else an op raises follows from shapes and dtypes, which a compiled program rests on."""
    silent = set()
    for case in CASES:
        if case.op.raises or not conformance.applies(case, "float64"):
            continue
        inputs = conformance.inputs_of(case.op.name, case.sample, "float64")
        for at, x in enumerate(inputs):
            for value in ODD.get(x.dtype.kind, ()) if isinstance(x, np.ndarray) and x.size else ():
                changed = [*inputs[:at], np.full_like(x, value), *inputs[at + 1 :]]
                try:
                    with np.errstate(all="ignore"):
                        conformance._run(case.op, changed, case.sample.attrs, backend)
                except (tg.errors.TensorgradError, ValueError, IndexError, ArithmeticError) as error:
                    silent.add(f"{case.op.name}: {error}")
    assert not silent


# Ops that no sample describes, and why; everything else must have samples.
UNSAMPLED = {
    "copy_into": "writes into its argument; test_inplace",
    "slice_add_into": "writes into its argument; tests/autograd/test_tape",
    "full": "takes no array; tests/parity",
    "ramp": "takes no array; test_shape",
    "empty_as": "its elements mean nothing; tests/autograd/test_tape",
    "sgd_": "writes into lists of arrays; tests/optim",
    "adam_": "writes into lists of arrays; tests/optim",
    "grouped_sgd_": "writes into lists of arrays; tests/optim",
    "grouped_adam_": "writes into lists of arrays; tests/optim",
    "adafactor_": "writes into lists of arrays; tests/optim",
    "muon_": "writes into lists of arrays; tests/optim",
    "update_": "writes into lists of arrays; tests/optim",
    "multi_norm": "takes a list of arrays; tests/optim",
    "multi_scale_": "writes into a list of arrays; tests/optim",
    "amp_unscale_": "writes into a list of arrays; tests/amp",
    "amp_update_scale_": "writes into its inputs; tests/amp",
    "move": "needs two devices; tests/gpu",
    "view_scatter": "its attribute is a chain of views; test_inplace",
    "assign": "in-place copy; test_inplace",
    "nonzero": "its shape depends on the elements; test_index",
    "bincount": "its shape depends on the elements; test_index",
    "unique": "its shape depends on the elements; test_sort",
    **{
        f"{name}_into": "writes into its argument; test_index"
        for name in ("index_put", "index_add", "scatter", "scatter_add", "scatter_reduce")
    },
    "attention_dropout": "draws; test_attention",
    "dropout": "draws; test_random",
    "rnn_sequence_backward": "reads what forward kept; test_rnn",
    **dict.fromkeys(("standard_gamma", "poisson", "binomial"), "draws; test_samplers"),
    "standard_gamma_grad": "has no second derivative; test_samplers",
    "random_integers": "draws; test_random",
    "random_normal": "draws; test_random",
    "random_permutation": "draws; test_random",
    "random_place": "draws; test_random",
    "random_uniform": "draws; test_random",
}


def test_every_op_has_samples():
    missing = [
        name for name, op in OWN.items()
        if op.samples is None and not getattr(op, "derived", False) and name not in UNSAMPLED
    ]  # fmt: skip
    assert not missing, f"ops without samples: {missing}"


def test_every_public_function_is_documented():
    undocumented = [
        name for name in dir(tg)
        if not name.startswith("_") and callable(getattr(tg, name)) and not getattr(tg, name).__doc__
    ]  # fmt: skip
    assert not undocumented
