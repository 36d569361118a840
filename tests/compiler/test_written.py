"""Every kernel of the C++ backend as a call of a program: it computes in each run, from what its inputs hold then."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.compiler.executor import executor
from tensorgrad.compiler.program import Call, Program, Value
from tensorgrad.compiler.trace import Trace
from tensorgrad.dispatch import OPS, listening, local
from tensorgrad.ops.record import as_ours
from tensorgrad.tensor import wrap
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import Arg, draw, inputs_of

pytestmark = pytest.mark.skipif(registry.class_of("cpp").why_not() is not None, reason="needs the extension")

CASES = list(conformance.cases())
OWN = dict(OPS)  # what the package defines, before other tests make ops of their own
DTYPES = ("float32", "float64", "float16", "bfloat16")

# Ops that Python computes between two stretches of a program, here and there: everything else is native.
PYTHON = {
    **dict.fromkeys((name for name in OWN if name.startswith("linalg_")), "LAPACK is NumPy's"),
    **dict.fromkeys(("frexp", "gcd", "lcm", "mode_dim", "nextafter", "restride"), "rare, and NumPy's"),
    **dict.fromkeys(("igamma", "igammac", "zeta"), "the interpreter of formulas has no such primitives"),
    **dict.fromkeys(("standard_gamma", "standard_gamma_grad", "poisson", "binomial"), "samplers that reject"),
    "update_": "formulas that the C++ backend calls itself",
    **dict.fromkeys(
        ("random_place", "dropout_mask", "attention_dropout", "attention_dropout_backward"),
        "a mask drawn again at its place is for kernels of CUDA",
    ),
    "as_complex": "copies where halves are made wider",
    "logsumexp": "complex numbers", "logcumsumexp": "complex numbers",
    **dict.fromkeys(("cholesky_solve", "linalg_cholesky", "linalg_solve_triangular"), "complex numbers"),
    "nonzero": "its shape depends on the elements", "bincount": "its shape depends on the elements",
    "unique": "its shape depends on the elements",
    "move": "needs two devices", "empty_as": "its elements mean nothing",
}  # fmt: skip


def arrays_in(results):
    return list(results) if isinstance(results, tuple) else [results]


def kernel_of(op):
    return getattr(local.plain[np.ndarray], op.name)


def program_of(op, inputs, attrs, results, *, state):
    """One call as a program, of arrays that are its state, used where they lie, or else its arguments."""
    values = {id(x): Value(f"x{i}", x, fixed=state) for i, x in enumerate(inputs) if isinstance(x, np.ndarray)}
    given = tuple(values.get(id(x), x) for x in inputs)
    made = [Value(f"y{i}", r) if isinstance(r, np.ndarray) and not any(r is x for x in inputs) else None
            for i, r in enumerate(results)]  # fmt: skip
    call = Call(op, np.ndarray, given, attrs, tuple(made), (), None)
    return Program([call], [] if state else list(values.values()), [v for v in made if v is not None])


def other_content(case, dtype, inputs):
    """Other elements for the same arrays, if there are any that the op takes."""
    rng = np.random.default_rng(1)
    others = [
        x if not isinstance(arg, Arg) else x[..., ::-1] if arg.values is not None and x.ndim else draw(arg, dtype, rng)
        for arg, x in zip(case.sample.inputs, inputs, strict=True)
    ]
    try:
        kernel_of(case.op)(*[x.copy() if isinstance(x, np.ndarray) else x for x in others], **case.sample.attrs)
    except (ValueError, IndexError, RuntimeError):
        return inputs
    return others


def shape_alike(a, b):
    return len(a) == len(b) and all(np.shape(x) == np.shape(y) for x, y in zip(a, b, strict=True))


def bits(results):
    return [r if r is None else (r.dtype, r.shape, np.ascontiguousarray(r).tobytes()) for r in results]


def writable_copy(x):
    """The same elements in the same layout, in memory of their own."""
    if not isinstance(x, np.ndarray) or 0 in x.strides:
        return x.copy() if isinstance(x, np.ndarray) else x
    return (
        x.copy(order="K")
        if x.flags.forc
        else np.lib.stride_tricks.as_strided(
            np.zeros(sum((n - 1) * abs(s) for n, s in zip(x.shape, x.strides, strict=True)) // x.itemsize + 1, x.dtype)
            if x.size
            else np.zeros(1, x.dtype),
            x.shape,
            x.strides,
        )
    )


def run_twice(case, dtype, *, state):
    op, attrs = case.op, case.sample.attrs
    kernel = kernel_of(op)
    first = inputs_of(op.name, case.sample, dtype)
    contents = [first, other_content(case, dtype, first)]
    inputs = [writable_copy(x) for x in first]
    for x, y in zip(inputs, first, strict=True):
        if isinstance(x, np.ndarray):
            x[...] = y
    results = arrays_in(kernel(*[x.copy() if isinstance(x, np.ndarray) else x for x in inputs], **attrs))
    named = [not any(r is x for x in inputs) and isinstance(r, np.ndarray) for r in results]
    program = program_of(op, inputs, attrs, results, state=state)
    run = executor(program)
    for content in contents:
        for x, y in zip(inputs, content, strict=True):
            if isinstance(x, np.ndarray):
                x[...] = y
        # arguments are brought to places in order, and some sums depend on the order in memory
        given = [x if state or not isinstance(x, np.ndarray) else x.copy(order="C") for x in inputs]
        expected = arrays_in(kernel(*given, **attrs))
        if not shape_alike(expected, results):
            continue  # shapes that depend on elements are another program's
        got = run([] if state else [x for x in inputs if isinstance(x, np.ndarray)])
        assert bits(got) == bits([r for r, n in zip(expected, named, strict=True) if n])
    return program


@pytest.mark.parametrize("case", CASES, ids=str)
def test_written_calls_compute_in_each_run(case):
    with tg.backend("cpp"):
        for dtype in DTYPES:
            if conformance.applies(case, dtype):
                for state in (True, False)[: 1 + (dtype == "float32")]:
                    program = run_twice(case, dtype, state=state)
                    python = [call.op.name for call in program.linked.python_calls]
                    assert not python or case.op.name in PYTHON


@pytest.mark.parametrize("upper", [False, True])
def test_real_numbers_are_solved_from_a_cholesky_factor_without_python(upper):
    with tg.backend("cpp"):
        op, attrs, inputs = OPS["cholesky_solve"], {"upper": upper}, arrays((2, 3, 1), (2, 3, 3))
        program = program_of(op, inputs, attrs, [kernel_of(op)(*inputs, **attrs)], state=True)
        executor(program)
        assert not program.linked.python_calls


@pytest.mark.parametrize("case", [c for c in CASES if c.sample.smooth], ids=str)
def test_written_gradients_have_the_bits_of_eager_ones(case):
    """An op and its backward pass as one program, run on two contents."""
    op, attrs = case.op, case.sample.attrs
    with tg.backend("cpp"):
        first = inputs_of(op.name, case.sample, "float32")
        contents = [first, other_content(case, "float32", first)]

        def pass_of(inputs):
            tensors = [wrap(x) if isinstance(x, np.ndarray) else x for x in inputs]
            leaves = [t.requires_grad_() for t in tensors if isinstance(t, tg.Tensor) and t.dtype.is_floating_point]
            results = [r for r in arrays_in(op(*tensors, **attrs)) if r is not None and r.requires_grad]
            seeds = [tg.ones_like(r) for r in results]
            grads = tg.autograd.grad(results, leaves, seeds, allow_unused=True) if results and leaves else ()
            return [t._data for t in (*results, *grads) if t is not None]

        def passed(inputs):
            return [x.copy(order="C") if isinstance(x, np.ndarray) else x for x in inputs]

        given = passed(first)
        arrays = [x for x in given if isinstance(x, np.ndarray)]
        trace = Trace(arrays, {})
        with listening(trace):
            outputs = pass_of(given)
        run = executor(trace.program(outputs))
        for content in contents:
            fresh = passed(content)
            got = bits(run([x for x in fresh if isinstance(x, np.ndarray)]))
            expected = pass_of(passed(content))
            if shape_alike(expected, outputs):
                assert got == bits(expected)


def arrays(*shapes, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-2, 2, shape).astype(dtype) for shape in shapes]


def places(low, high, shape, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape)


def shared():
    """Two pieces of one memory, which overlap."""
    memory = np.arange(12, dtype=np.float32)
    return memory[:8], memory[4:]


def scattered(many):
    return lambda s: [*arrays((5, 3), seed=s), places(0, 5, (many, 3), s), *arrays((many, 3), seed=s + 1)]


def put(value, *indices, shape=(5, 3), dtype=np.float32):
    return lambda s: [*arrays(shape, value, seed=s, dtype=dtype), *(places(-n, n, count, s) for n, count in indices)]


# Calls of ops that no sample describes: name, inputs by seed, attributes.
ROWS = {
    "copy_into": (lambda s: arrays((3, 4), (4,), seed=s), {}),
    "copy_into-cast": (lambda s: [np.zeros((3, 4), np.float64), *arrays((3, 1), seed=s)], {}),
    "slice_add_into": (lambda s: arrays((5, 4), (2, 4), seed=s), {"key": (slice(1, 5, 2),)}),
    "full": (lambda s: [], {"shape": (2, 3), "value": 1.5, "dtype": np.dtype("float32")}),
    "ramp": (lambda s: [], {"first": 3, "by": 2, "count": 5}),
    "scatter_into": (scattered(2), {"dim": 0}),
    "scatter_add_into": (scattered(7), {"dim": 0}),
    "scatter_reduce_into": (scattered(7), {"dim": 0, "reduce": "amax"}),
    "index_add_into": (
        lambda s: [*arrays((5, 3), seed=s), places(0, 5, 4, s), *arrays((4, 3), seed=s + 1)], {"dim": 0},
    ),
    "index_put_into": (put((4,), (5, 4), (3, 4)), {"spec": (0, 1), "accumulate": False}),
    "index_put_into-slabs": (put((4, 3), (5, 4)), {"spec": (0,), "accumulate": True}),
    "index_put_into-narrow": (put((4, 3), (5, 4), dtype=np.float16), {"spec": (0,), "accumulate": True}),
    "index_put_into-spread": (put((2, 3, 1), (5, 2), shape=(5, 3, 4)), {"spec": (0,), "accumulate": False}),
    "multi_norm": (lambda s: [arrays((3, 4), (5,), seed=s)], {"p": 2.0}),
    "multi_scale_": (lambda s: [arrays((3, 4), (5,), seed=s), arrays((), seed=s + 1, dtype=np.float64)[0]], {}),
    "amp_unscale_": (lambda s: [arrays((3, 4), (5,), seed=s), arrays((), seed=s + 1)[0]], {}),
    "amp_unscale_-infinite": (lambda s: [[np.array([1.0, np.inf])], np.array(4.0, np.float32)], {}),
    "amp_update_scale_": (
        lambda s: [np.array(8.0, np.float32), [np.array(False), np.array(s % 2 == 1)], np.array(s % 3, np.int32)],
        {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2},
    ),
    "sgd_": (
        lambda s: [*([x] for x in arrays((3, 4), (3, 4), (3, 4), seed=s)), np.array([0.1, 0.9, 0.0, 0.01, 0.0])],
        {"nesterov": True, "maximize": False},
    ),
    "adam_": (
        lambda s: [*([x] for x in arrays((3, 4), (3, 4), (3, 4), seed=s)), [abs(arrays((3, 4), seed=s)[0])], [],
                   np.array([0.1, 0.9, 0.99, 1e-8, 0.01, s + 1.0])],
        {"decoupled": True, "maximize": False, "amsgrad": False},
    ),
    "adafactor_": (
        lambda s: [*(arrays((2, 3, 4), (5,), seed=s + i) for i in range(2)),
                   list(map(abs, arrays((2, 3, 1), (5,), seed=s))), [abs(arrays((2, 1, 4), seed=s)[0]), None],
                   np.array([0.1, 0.5 / (s + 1), 1e-7, 1e-3, 0.99])],
        {"clip": 1.0, "maximize": False},
    ),
    "muon_": (
        lambda s: [*(arrays((3, 4), (5, 2), seed=s + i) for i in range(3)), np.array([0.9, 0.99, 0.1, 0.2 * (s + 1)])],
        {"nesterov": True, "coefficients": (3.4, -4.7, 2.0), "steps": 2, "eps": 1e-7},
    ),
    "grouped_sgd_": (
        lambda s: [*(arrays((3, 4), (5,), (2,), seed=s + i) for i in range(3)),
                   [np.array([0.1, 0.9, 0.0, 0.01, 0.0]), np.array([0.2, 0.5, 0.1, 0.0, 1.0])]],
        {"counts": (1, 2), "scales": [None, 0.5], "nesterov": True, "maximize": False},
    ),
    "grouped_adam_": (
        lambda s: [*(arrays((3, 4), (5,), (2,), seed=s + i) for i in range(3)),
                   list(map(abs, arrays((3, 4), (5,), (2,), seed=s))), [],
                   [np.array([0.1, 0.9, 0.99, 1e-8, 0.01, s + 1.0]), np.array([0.2, 0.8, 0.9, 1e-8, 0.0, s + 3.0])]],
        {"counts": (2, 1), "scales": [None, None], "decoupled": True, "maximize": False, "amsgrad": False},
    ),
}  # fmt: skip


def flat(what):
    return [x for part in what if part is not None for x in (flat(part) if isinstance(part, list) else [part])]


@pytest.mark.parametrize("name", ROWS)
def test_written_calls_that_change_memory(name):
    make, attrs = ROWS[name]
    with tg.backend("cpp"):
        op = OPS[name.partition("-")[0]]
        kernel = kernel_of(op)
        inputs = make(0)
        results = [r for r in arrays_in(kernel(*make(0), **attrs)) if isinstance(r, np.ndarray)]
        owned = {id(x): Value(f"x{i}", x, fixed=True) for i, x in enumerate(flat(inputs))}

        def named(what):
            return list(map(named, what)) if isinstance(what, list) else what if what is None else owned[id(what)]

        fresh = [Value(f"y{i}", r) if not name.endswith(("_", "_into")) and "_into" not in name else None
                 for i, r in enumerate(results or [None])]  # fmt: skip
        call = Call(op, np.ndarray, tuple(map(named, inputs)), attrs, tuple(fresh), (), None)
        program = Program([call], [], [v for v in fresh if v is not None])
        run = executor(program)
        assert not program.linked.python_calls or name == "copy_into-cast"
        for seed in (0, 1):
            direct = make(seed)
            for x, y in zip(flat(inputs), flat(direct), strict=True):
                x[...] = y
            expected = [r for r in arrays_in(kernel(*direct, **attrs)) if isinstance(r, np.ndarray)]
            got = run([])
            assert bits(flat(inputs)) == bits(flat(direct))
            assert not got or bits(got) == bits(expected)


DRAWS = {
    "random_uniform": ({"shape": (3, 5), "dtype": np.dtype("float32")}, ()),
    "random_normal": ({"shape": (7,), "dtype": np.dtype("float64")}, ()),
    "random_integers": ({"shape": (9,), "low": -3, "high": 40, "dtype": np.dtype("int32")}, ()),
    "random_permutation": ({"n": 20, "dtype": np.dtype("int64")}, ()),
    "random_permutation-sorted": ({"n": 70_000, "dtype": np.dtype("int32")}, ()),
    "dropout": ({"p": 0.4}, ((6, 7),)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_calls_draw_anew_as_eager_ones(name):
    attrs, shapes = DRAWS[name]
    inputs = arrays(*shapes)
    with tg.backend("cpp"):
        op = OPS[name.partition("-")[0]]
        kernel = kernel_of(op)
        mine, theirs = tg.Generator().manual_seed(5), tg.Generator().manual_seed(5)
        results = arrays_in(kernel(*inputs, generator=tg.Generator(), **attrs))
        made = tuple(Value(f"y{i}", r) for i, r in enumerate(results))
        given = tuple(Value("x", x, fixed=True) for x in inputs)
        program = Program([Call(op, np.ndarray, given, {"generator": mine, **attrs}, made, (), None)], [], list(made))
        run = executor(program)
        assert mine.get_state().tolist() == theirs.get_state().tolist()  # writing draws nothing
        assert not program.linked.python_calls
        seen = []
        for _ in range(3):
            got = bits(run([]))
            assert got == bits(arrays_in(kernel(*inputs, generator=theirs, **attrs)))
            seen.append(got)
        assert seen[0] != seen[1] != seen[2]
        mine.set_state(tg.Generator().manual_seed(5).get_state())
        assert bits(run([])) == seen[0]
        assert bits(arrays_in(kernel(*inputs, generator=mine, **attrs))) == seen[1]  # one stream for both


def test_every_op_is_tried_or_named():
    tried = {case.op.name for case in CASES} | {name.partition("-")[0] for name in (*ROWS, *DRAWS)}
    left = [
        name for name, op in OWN.items()
        if name not in tried and name not in PYTHON and not getattr(op, "derived", False) and op.define is None
        and op.infer.__module__.startswith("tensorgrad.")
    ]  # fmt: skip
    assert not left


def test_threads_may_change_between_runs():
    inputs = [*arrays((300, 200), (200, 100)), places(0, 300, 5000)]
    with tg.backend("cpp"):
        before = tg.get_num_threads()

        def function(x, w, at):
            y = tg.nn.functional.gelu(x @ w)
            rows = tg.nn.functional.embedding(at, y).log_softmax(1)
            return rows.sum(0), rows.sort(1)[0], tg.zeros(300, 100).index_add(0, at, rows)

        tensors = [wrap(x) for x in inputs]
        trace = Trace(inputs, {})
        with listening(trace):
            outputs = [t._data for t in function(*tensors)]
        run = executor(trace.program(outputs))
        try:
            seen = []
            for count in (1, 2, 8, 3):
                tg.set_num_threads(count)
                seen.append(bits(run(inputs)))
        finally:
            tg.set_num_threads(before)
        assert all(each == bits(outputs) for each in seen)


def test_runs_keep_no_memory():
    """What a kernel needs besides is given back by each run."""
    with tg.backend("cpp") as backend:
        x, w = arrays((8, 4, 20, 20), (6, 4, 3, 3))
        tensors = [wrap(x), wrap(w)]
        trace = Trace([x, w], {})
        with listening(trace):
            y = tg.nn.functional.conv2d(*tensors, padding=1)
            outputs = [y._data, y.flatten(1).sort(1)[0]._data, tg.histc(y, 10)._data]
        run = executor(trace.program(outputs))

        def held():
            run([x, w])
            return backend.memory_stats()["in_use"]

        assert len({held() for _ in range(5)}) == 1


def test_memory_that_overlaps_is_copied_as_eagerly():
    with tg.backend("cpp"):
        kernel = kernel_of(OPS["copy_into"])
        target, source = shared()
        values = Value("x", target, fixed=True), Value("y", source, fixed=True)
        run = executor(Program([Call(OPS["copy_into"], np.ndarray, values, {}, (None,), (), None)], [], []))
        again, other = shared()
        kernel(again, other)
        run([])
        assert bits([target, source]) == bits([again, other])


WRONG = {
    "gather": (lambda bad: [*arrays((4, 3)), np.array([[0, bad, 1]])], {"dim": 0}, 9, IndexError),
    "embedding": (lambda bad: [*arrays((4, 3)), np.array([1, bad])], {}, -1, IndexError),
    "index": (lambda bad: [*arrays((4, 3)), np.array([1, bad])], {"spec": (0,)}, 4, IndexError),
    "index_select": (lambda bad: [*arrays((4, 3)), np.array([1, bad])], {"dim": 0}, 4, IndexError),
    "one_hot": (lambda bad: [np.array([1, bad])], {"classes": 4}, 4, IndexError),
    "floor_divide": (lambda bad: [np.array([4, 5]), np.array([1, 2 - bad])], {}, 2, ZeroDivisionError),
    "nll_loss": (
        lambda bad: [*arrays((2, 3)), np.array([0, bad]), None],
        {"ignore_index": -100, "reduction": "mean"}, 3, IndexError,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_elements_say_is_refused_in_each_run(name):
    make, attrs, bad, kind = WRONG[name]
    with tg.backend("cpp"):
        op = OPS[name]
        kernel = kernel_of(op)
        good, wrong = make(0 if name == "floor_divide" else 1), make(bad)
        results = arrays_in(kernel(*good, **attrs))
        program = program_of(op, good, attrs, results, state=False)
        run = executor(program)
        assert not program.linked.python_calls
        with pytest.raises(kind) as eager:
            kernel(*wrong, **attrs)
        for _ in range(2):
            assert bits(run([x for x in good if isinstance(x, np.ndarray)])) == bits(results)
            with pytest.raises(kind) as compiled:
                run([x for x in wrong if isinstance(x, np.ndarray)])
            # what kernels raise as IndexError, records and programs raise as the library's own
            expected = as_ours(eager.value) if isinstance(eager.value, IndexError) else eager.value
            assert type(compiled.value) is type(expected)
            said = f"{eager.value} (in a compiled function, at call 1 of 1: y0 = {name}("
            assert str(compiled.value).startswith(said)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transforms_and_solvers_and_distances_of_real_matrices_are_native(dtype):
    transforms = ("fft_c2c", "fft_r2c", "fft_c2r")
    wanted = {
        **{name: {} for name in transforms},
        "linalg_cholesky": {}, "linalg_det": {}, "linalg_inv": {}, "linalg_lu_factor": {}, "linalg_slogdet": {},
        "linalg_solve": {}, "linalg_solve_triangular": {},
        "cdist": {}, "cdist_backward": {},
    }  # fmt: skip
    seen = set()
    with tg.backend("cpp"):
        for case in CASES:
            kinds = {arg.kind for arg in case.sample.inputs if isinstance(arg, Arg)}
            name, attrs = case.op.name, case.sample.attrs
            if name in wanted and ("c" not in kinds or name in transforms) and wanted[name].items() <= attrs.items():
                assert not run_twice(case, dtype, state=False).linked.python_calls
                seen.add(name)
    assert seen == set(wanted)
