"""Programs as files: they compute the same without their source, on every backend, and no file does harm."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.compiler.compiled import Compiled
from tensorgrad.dispatch import OPS
from tensorgrad.errors import AutogradError, CompileError, DTypeError, ShapeError, TensorgradError
from tensorgrad.io.safetensors import FileError
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import inputs_of
from tensorgrad.testing.strict_backend import strict_cuda
from tensorgrad.utils._pytree import tree_flatten

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]


@pytest.fixture(scope="module", autouse=True)
def _own_op():
    """An op of the user's own; other tests look through all that are there."""
    global bump
    bump = tg.elementwise(lambda x, a: tg.exp(-a * x * x) + 0.25, name="saved_bump")
    yield
    del OPS["saved_bump"]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(2, 5, 8))


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(64, 10),
    )  # fmt: skip


def loss_function():
    model = network()
    return lambda x, y: nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)


def structures():
    weight, scale = tg.ones(3), tg.scalar(2.0)

    def function(x, pair, *, how="plain", more=None):
        z = x * weight * scale + pair[0] - pair[1]["c"]
        rest = {"weight": weight, "view": x[1:], "how": how, "inf": float("inf")}
        return {"z": z, "pair": (z.sum(), [x, 3, None]), **rest}

    return function


def penalty():
    """A gradient within the function: its backward pass belongs to the program."""
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def function(x):
        x = x.detach().requires_grad_()
        (slope,) = tg.autograd.grad(net(x).sum(), x)
        return slope

    return function


def attention_penalty():
    """The same through attention: gradients of slices meet in one array, at strides of its own."""
    net = Attention()

    def function(x):
        x = x.detach().requires_grad_()
        (slope,) = tg.autograd.grad(net(x).square().sum(), x)
        return slope

    return function


# name, what makes a function, its arguments; every one is called in and out of inference mode
FUNCTIONS = {
    "network": (network, lambda: ((tg.randn(2, 1, 8, 8),), {})),
    "evaluated": (lambda: network().eval(), lambda: ((tg.randn(2, 1, 8, 8),), {})),
    "attention": (Attention, lambda: ((tg.randn(2, 5, 8),), {})),
    "lstm": (lambda: nn.LSTM(4, 6, batch_first=True), lambda: ((tg.randn(2, 5, 4),), {})),
    "embedding": (lambda: nn.Embedding(7, 3), lambda: ((tg.tensor([[1, 6], [0, 2]]),), {})),
    "loss": (loss_function, lambda: ((tg.randn(2, 1, 8, 8), tg.tensor([3, 7])), {})),
    "formula": (lambda: lambda x: bump(x, 2.0) * bump(x, 0.5), lambda: ((tg.randn(4, 5),), {})),
    "structures": (structures, lambda: ((tg.randn(3), (tg.randn(3), {"c": tg.randn(3)})), {"how": "fine"})),
    "complex": (lambda: lambda x: tg.fft.fft(x) * 1j, lambda: ((tg.randn(8),), {})),
    "penalty": (penalty, lambda: ((tg.randn(4, 3),), {})),
    "attention penalty": (attention_penalty, lambda: ((tg.randn(2, 5, 8),), {})),
    "narrow": (lambda: lambda x: x.to(tg.float16).softmax(0), lambda: ((tg.randn(8),), {})),
    "integers": (lambda: lambda x: (x // 3, x % 2 == 0, x.argsort()), lambda: ((tg.arange(9),), {})),
}


def leaves_of(result):
    return [x._data if isinstance(x, tg.Tensor) else x for x in tg.utils._pytree.tree_flatten(result)[0]]


def same(a, b, exact=True):
    for x, y in zip(leaves_of(a), leaves_of(b), strict=True):
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and x.shape == y.shape
            if exact:
                assert x.tobytes() == y.tobytes()
            else:
                np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)
        else:
            assert type(x) is type(y) and (x == y or x != x)


def saved(name, backend, path, **modes):
    """A function of the table, compiled, called, and saved."""
    make, arguments = FUNCTIONS[name]
    with tg.backend(backend):
        tg.manual_seed(0)
        function = make()
        compiled = tg.compile(function)
        args, kwargs = arguments()
        with tg.inference_mode(modes.get("inference", False)):
            for _ in range(2):
                compiled(*args, **kwargs)
            compiled.save(path)
    return compiled, args, kwargs


@pytest.mark.parametrize("loaded_on", BACKENDS)
@pytest.mark.parametrize("saved_on", BACKENDS)
@pytest.mark.parametrize(
    "name, inference",
    # where nothing is recorded a penalty has no gradient to be of
    [(name, mode) for name in FUNCTIONS for mode in (False, True) if not (name.endswith("penalty") and mode)],
)
def test_a_loaded_program_computes_what_the_saved_one_does(name, saved_on, loaded_on, inference, tmp_path):
    compiled, args, kwargs = saved(name, saved_on, tmp_path / "f.tgp", inference=inference)
    loaded = tg.compiler.load(tmp_path / "f.tgp", backend=loaded_on)
    with tg.no_grad():  # three calls: statistics and generators move on alike
        for _ in range(3):
            with tg.backend(saved_on), tg.inference_mode(inference):
                expected = compiled(*args, **kwargs)
            # without a graph behind it, a program does norms within convolutions; half of a pair, which was saved,
            # doesn't
            exact = saved_on == loaded_on and (inference or name != "evaluated")
            same(loaded(*args, **kwargs), expected, exact=exact)
    assert "program of" in loaded.explain()
    loaded.draw(tmp_path / "f.svg")


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_and_arguments_keep_the_names_of_functions_with_several(backend, tmp_path):
    def largest(x, before):
        return {"top": x.topk(2), "running": tg.cummax(x + before.values, 0)}, tg.sort(before.values)

    with tg.backend(backend):
        compiled = tg.compile(largest)
        x, before = tg.randn(3, 4), tg.max(tg.randn(2, 4), 0)
        for _ in range(2):
            expected = compiled(x, before)
        compiled.save(tmp_path / "f.tgp")
        got = tg.compiler.load(tmp_path / "f.tgp")(x, before)
    same(expected, got)
    assert type(got[0]["top"]) is tg.return_types.topk and got[0]["running"].indices.dtype == tg.int64
    assert type(got[1]) is tg.return_types.sort


def test_state_is_the_programs_own_and_can_be_changed(tmp_path):
    compiled, (x,), _ = saved("network", "numpy", tmp_path / "f.tgp")
    a, b = (tg.compiler.load(tmp_path / "f.tgp", backend="numpy") for _ in range(2))
    assert {"0.weight", "1.running_mean", "6.bias"} <= a.state.keys()
    before = compiled._orig_mod[1].running_mean.clone()
    a(x)
    assert (compiled._orig_mod[1].running_mean == before).all() and (b.state["1.running_mean"] == before).all()
    assert not (a.state["1.running_mean"] == before).all()
    same(a.manual_seed(5)(x), b.manual_seed(5)(x))
    with tg.no_grad():
        for loaded in (a, b):
            loaded.state["6.weight"].zero_()
            loaded.state["6.bias"].fill_(3.0)
    assert (a(x) == 3.0).all()


def test_memory_that_is_shared_is_shared_again(tmp_path):
    base = tg.arange(12.0)
    row, column = base[2:6], base.reshape(3, 4).t()

    def function(x):
        row.add_(x)
        return column.sum(1) + x.sum()

    compiled = Compiled(function)
    compiled(tg.ones(4))
    compiled(tg.ones(4))
    compiled.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    for _ in range(3):
        same(loaded(tg.ones(4)), compiled(tg.ones(4)))


def test_programs_go_from_device_to_device(tmp_path):
    with strict_cuda(), tg.no_grad():
        model = tg.compile(nn.Sequential(nn.Linear(3, 4), nn.GELU()).to("cuda"))
        x = tg.ones(2, 3, device="cuda")
        expected = model(x)
        model.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp", backend="cupy")
        assert loaded(x).tolist() == expected.tolist()
        with pytest.raises(TypeError, match="computes on cupy"):
            loaded(tg.ones(2, 3))
        expected = expected.cpu()
    with tg.backend("numpy"):
        same(tg.compiler.load(tmp_path / "f.tgp")(tg.ones(2, 3)), expected, exact=False)


def test_arguments_that_are_written_to_are_written_to(tmp_path):
    compiled = Compiled(lambda x, y: x.mul_(y).sum())
    for _ in range(2):
        compiled(tg.ones(3), tg.ones(3))
    compiled.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    x = tg.ones(3)
    version = x._version_cell()[0]
    assert loaded(x, tg.full((3,), 2.0)).item() == 6.0 and x.tolist() == [2.0] * 3
    assert x._version_cell()[0] > version
    with pytest.raises(ShapeError, match="contiguous"):
        loaded(tg.ones(6)[::2], tg.ones(3))


def test_what_is_written_to_must_lie_apart_as_it_did(tmp_path):
    held = tg.ones(3)

    def of_arguments(x, y):
        x.add_(1.0)
        return x * y

    def of_state(x):
        held.add_(1.0)
        return x * held

    for function, args in ((of_arguments, (tg.ones(3), tg.ones(3))), (of_state, (tg.ones(3),))):
        compiled = Compiled(function)
        for _ in range(2):
            compiled(*args)
        compiled.save(tmp_path / f"{function.__name__}.tgp")
    of_two, of_one = (tg.compiler.load(tmp_path / f"{f.__name__}.tgp") for f in (of_arguments, of_state))
    x = tg.ones(6)
    for pair in ((x[:3], x[:3]), (x[1:4], x[:3]), (y := tg.ones(3), y), (y, y.detach())):
        with pytest.raises(TypeError, match="lay apart"):
            of_two(*pair)
    assert x.tolist() == [1.0] * 6
    assert of_two(x[:3], x[3:]).tolist() == [2.0] * 3  # in one memory, and apart
    state = of_one.state["held"]
    for x in (state, state.detach(), state[:]):
        with pytest.raises(TypeError, match="with its state"):
            of_one(x)


def test_state_that_a_call_writes_to_is_another_version(tmp_path):
    held = tg.ones(3)
    compiled = Compiled(lambda x: held.add_(x).sum())
    for _ in range(2):
        compiled(tg.ones(3))
    compiled.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    for _ in range(3):
        loss = (tg.ones(3, requires_grad=True) * loaded.state["held"]).sum()
        loaded(tg.ones(3))
        with pytest.raises(RuntimeError, match="in place"):
            loss.backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ x.t() + 1,
        lambda x: x.reshape(-1).mul_(2.0) + x.contiguous().reshape(-1),
        lambda x: (x[1:], x.t().contiguous() * 2, x.sum(0)),
        lambda x: x.add_(1.0).sum(),
    ],
    ids=["product", "copies", "views", "written"],
)
def test_arguments_that_are_not_contiguous_are_saved(function, backend, tmp_path):
    draw = lambda: tg.arange(12.0).reshape(3, 4).t()  # noqa: E731
    with tg.backend(backend):
        compiled = Compiled(function)
        for _ in range(2):
            compiled(draw())
        compiled.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        for given in (draw().contiguous(), draw(), draw().contiguous()):
            if "add_" in function.__code__.co_names and not given.is_contiguous():
                with pytest.raises(ShapeError, match="contiguous"):
                    loaded(given)
                continue
            x = draw()  # the call that was saved, of the same elements
            wanted, got = tree_flatten((function(x), x))[0], tree_flatten((loaded(given), given))[0]
            assert [a.tolist() for a in wanted] == [b.tolist() for b in got]


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_of_a_known_form_are_checked_all_the_same(backend, tmp_path):
    weight = tg.ones(3)
    with tg.backend(backend):
        compiled = Compiled(lambda x, k, *, y: ((x * weight + y) * k, {"sum": y.sum(), "k": k}))
        for _ in range(2):
            compiled(tg.ones(2, 3), 2.0, y=tg.ones(3))
        compiled.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        x, y = tg.arange(6.0).reshape(2, 3), tg.arange(3.0)
        for turn in range(6):
            kept, parts = loaded(x + turn, 2.0, y=y)
            assert kept.tolist() == ((x + turn + y) * 2.0).tolist() and parts["sum"].item() == 3.0 and parts["k"] == 2.0
        loaded.state[next(iter(loaded.state))].mul_(2.0)  # read anew
        assert loaded(x, 2.0, y=y)[0].tolist() == ((x * 2 + y) * 2.0).tolist()
        with tg.inference_mode():
            inside = [loaded(x, 2.0, y=y)[0] for _ in range(3)]
            assert all(t.is_inference() for t in inside)
        assert not loaded(x, 2.0, y=y)[0].is_inference()
        for args, kwargs, error in [
            ((x, 3.0), {"y": y}, TypeError),
            ((x, 2.0, y), {}, TypeError),
            ((x[:1], 2.0), {"y": y}, ShapeError),
            ((x.double(), 2.0), {"y": y}, DTypeError),
            ((x.clone().requires_grad_(), 2.0), {"y": y}, AutogradError),
        ]:
            with pytest.raises(error):
                loaded(*args, **kwargs)
        tg.set_default_dtype(tg.float64)
        try:
            with pytest.raises(DTypeError, match="default dtype"):
                loaded(x, 2.0, y=y)
        finally:
            tg.set_default_dtype(tg.float32)
        with tg.no_grad():
            assert loaded(x.clone().requires_grad_(), 2.0, y=y)[0].tolist() == loaded(x, 2.0, y=y)[0].tolist()


def test_a_loaded_program_is_part_of_another(tmp_path):
    saved("attention", "numpy", tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp", backend="numpy")
    with tg.backend("numpy"), tg.no_grad():
        outer = Compiled(lambda x: loaded(x) * 2)
        for seed in range(3):
            x = tg.randn(2, 5, 8, generator=tg.Generator().manual_seed(seed))
            same(outer(x), loaded(x) * 2)
        assert outer.stats()["replays"] == 2


def test_it_needs_no_source_and_no_other_package(tmp_path):
    compiled, (x,), _ = saved("formula", BACKENDS[-1], tmp_path / "f.tgp")
    np.save(tmp_path / "x.npy", x.numpy())
    script = """
        import sys
        for name in ("safetensors", "torch", "ml_dtypes", "onnx", "scipy"):
            sys.modules[name] = None
        import numpy as np, tensorgrad as tg
        np.save("y.npy", tg.compiler.load("f.tgp")(tg.tensor(np.load("x.npy"))).numpy())
    """
    root = os.path.dirname(os.path.dirname(tg.__file__))
    environment = {**os.environ, "PYTHONPATH": root, "TENSORGRAD_BACKEND": BACKENDS[-1]}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment, check=True)
    with tg.backend(BACKENDS[-1]):
        same(tg.tensor(np.load(tmp_path / "y.npy")), compiled(x))


def test_any_safetensors_tool_shows_the_arrays(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    compiled, _, _ = saved("network", "numpy", tmp_path / "f.tgp")
    arrays = package.load_file(tmp_path / "f.tgp")
    weight = compiled._orig_mod[0].weight.detach().numpy()
    assert (arrays["0.weight"] == weight).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_op_is_saved_and_loaded(backend, tmp_path, monkeypatch):
    """One sample of each op."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # hundreds of small files
    seen = set()
    path = tmp_path / "f.tgp"
    for case in conformance.cases():
        if case.op.name in seen:
            continue
        inputs = inputs_of(case.op.name, case.sample, "float32")
        tensors = [tg.tensor(x.copy()) for x in inputs if isinstance(x, np.ndarray)]
        if not tensors:
            continue
        seen.add(case.op.name)

        def function(*given, case=case, inputs=inputs):
            rest = iter(given)
            return case.op(*[next(rest) if isinstance(x, np.ndarray) else x for x in inputs], **case.sample.attrs)

        with tg.backend(backend), tg.no_grad():
            compiled = Compiled(function)
            try:
                expected = [compiled(*tensors) for _ in range(2)][-1]
            except CompileError:
                continue  # its shape depends on data
            compiled.save(path)
            same(tg.compiler.load(path)(*tensors), expected)
    assert len(seen) > 300


def step():
    model = nn.Linear(3, 1)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

    def function(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return function


def backward_only():
    model = nn.Linear(3, 1)

    def function(x):
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss

    return function


def strided():
    return tg.from_numpy(np.ones((3, 4), np.float32).T)


def with_an_object():
    model = nn.Linear(3, 1)
    return (lambda m, x: m(x)), (model, tg.ones(2, 3))


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: (step(), (tg.ones(4, 3),)), "leaves gradients|optimizer"),
        (lambda: (backward_only(), (tg.ones(4, 3),)), "leaves gradients"),
        (with_an_object, "object of class Linear"),
        (lambda: (lambda x: x.as_strided((2, 2), (1, 3)) + 1, (strided(),)), r"x\.contiguous\(\)"),
    ],
    ids=["step", "backward", "object", "strides"],
)
def test_what_can_not_be_saved_says_what_can(make, complaint, tmp_path):
    function, args = make()
    compiled = Compiled(function)
    for _ in range(4):
        compiled(*args)
    with pytest.raises(CompileError, match=complaint):
        compiled.save(tmp_path / "f.tgp")
    assert not list(tmp_path.iterdir())


def test_programs_that_nobody_calls_are_not_saved(tmp_path):
    compiled = Compiled(lambda x: x * 2)
    with pytest.raises(CompileError, match="no program yet"):
        compiled.save(tmp_path / "f.tgp")
    x = tg.ones(3, requires_grad=True)
    compiled(x)
    compiled.save(tmp_path / "f.tgp")
    with pytest.raises(CompileError, match="backward part"):
        compiled.programs[1].save(tmp_path / "g.tgp")


def test_calls_that_do_not_fit_are_refused(tmp_path):
    _, (x, pair), kwargs = saved("structures", "numpy", tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp", backend="numpy")
    with tg.backend("numpy"):
        loaded(x, pair, **kwargs)
        for args, kw, kind, complaint in (
            ((x,), kwargs, TypeError, "structure"),
            ((x, pair), {}, TypeError, r"structure \(Tensor, .Tensor.*how='fine'.*got \(Tensor, .Tensor.*\)\.$"),
            ((x, pair), {"how": "other"}, TypeError, "saved for the argument 'fine'"),
            ((1.0, pair), kwargs, TypeError, "takes a Tensor"),
            ((tg.randn(4), pair), kwargs, ShapeError, r"shape \(3,\).*got \(4,\)"),
            ((x.double(), pair), kwargs, DTypeError, "float32.*float64"),
            ((x.clone().requires_grad_(), pair), kwargs, AutogradError, "no gradients"),
        ):
            with pytest.raises(kind, match=complaint):
                loaded(*args, **kw)
        with tg.no_grad():
            loaded(x.clone().requires_grad_(), pair, **kwargs)
        same(loaded(tg.cat([x, x]).reshape(3, 2)[:, 0] * 0 + x, pair, **kwargs), loaded(x, pair, **kwargs))
    tg.set_default_dtype(tg.float64)
    try:
        with pytest.raises(DTypeError, match="default dtype float32"):
            loaded(x, pair, **kwargs)
        with pytest.raises(FileError, match="default dtype float32"):
            tg.compiler.load(tmp_path / "f.tgp")
    finally:
        tg.set_default_dtype(tg.float32)


def test_tensors_that_were_one_must_be_one(tmp_path):
    compiled = Compiled(lambda x, y: x * y)
    x = tg.arange(3.0)
    compiled(x, x)
    compiled.save(tmp_path / "f.tgp")
    loaded = tg.compiler.load(tmp_path / "f.tgp")
    same(loaded(x, x), x * x)
    with pytest.raises(TypeError, match="are one"):
        loaded(x, tg.ones(3))


# --- files that lie


def parts(path):
    """(header, bytes of the arrays) of a file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def signed(path, header, data, program=None):
    """Write a file whose checksum is right, whatever it holds."""
    about = header["__metadata__"]
    if program is not None:
        about["program"] = json.dumps(program)
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    digest = hashlib.sha256(about["program"].encode())
    try:
        for key in sorted(entries, key=lambda key: (entries[key]["data_offsets"], key)):
            digest.update(json.dumps([key, entries[key]]).encode())
            begin, end = entries[key]["data_offsets"]
            digest.update(data[begin:end])
    except (TypeError, KeyError, IndexError, ValueError):
        pass  # it lies about places: no checksum is right
    about["checksum"] = digest.hexdigest()
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def change(where, value):
    def lie(header, program):
        target = {"header": header, "program": program}
        *path, last = where
        for key in path:
            target = target[key]
        if value is DELETE:
            del target[last]
        else:
            target[last] = value(target[last]) if callable(value) else value

    return lie


def formula(*nodes):
    return change(
        ("program", "formulas"), [{"name": "f", "inputs": ["x"], "nodes": nodes, "results": [len(nodes) - 1]}]
    )


def typed(*code, result="float32", sums="", **more):
    outputs = [[len(code) - 1, result]]
    made = {"keys": ["float32"], "code": code, "outputs": outputs, "parts": [], "sums": sums, **more}
    return change(("program", "formulas"), [made])


DELETE = object()
P, C = "program", ("program", "calls", 0)
LIES = {
    "version": (change(("header", "__metadata__", "version"), "4"), "version"),
    "format": (change(("header", "__metadata__", "format"), "pickle"), "not a saved program"),
    "no program": (change(("header", "__metadata__", "program"), DELETE), "missing"),
    "array too large": (change(("header", "qkv.weight", "shape"), [1 << 40, 8]), "another number of bytes"),
    "sizes that overflow": (change(("header", "qkv.weight", "shape"), [1 << 47, 1 << 47, 1 << 34]), "number of bytes"),
    "negative size": (change(("header", "qkv.weight", "shape"), [-24, -8]), "whole number"),
    "array outside": (change(("header", "qkv.weight", "data_offsets"), lambda o: [o[0], o[1] + 64]), "bytes|place"),
    "arrays overlap": (change(("header", "qkv.weight", "data_offsets"), lambda o: [o[0] - 32, o[1] - 32]),
                       "overlap|place|whole"),
    "array's dtype": (change(("header", "qkv.weight", "dtype"), "O"), "unknown dtype"),
    "unknown op": (change((*C, "op"), "system"), "no op 'system'"),
    "an optimizer's op": (change((*C, "op"), "sgd_"), "no op 'sgd_'"),
    "a method": (change((*C, "op"), "__class__"), "no op"),
    "a formula as an op": (change((*C, "op"), "exp"), "no op 'exp'"),
    "inputs missing": (change((*C, "inputs"), [{"value": 0}]), "linear"),
    "inputs too many": (change((*C, "inputs"), lambda x: x * 3), "linear"),
    "a value that is not there yet": (change((*C, "inputs", 0), {"value": 10**6}), "whole number"),
    "a negative value": (change((*C, "inputs", 0), {"value": -1}), "whole number"),
    "an unknown form": (change((*C, "inputs", 0), {"call": "os.system"}), "unknown form"),
    "an unknown attribute": (change((*C, "attrs"), {"out_of": 1}), "linear: TypeError"),
    "an attribute's name": (change((*C, "attrs"), {"a b": 1}), "attributes"),
    "a result's shape": (change((*C, "results", 0, "shape"), [2, 5, 25]), "makes float32 of shape"),
    "a result's dtype": (change((*C, "results", 0, "dtype"), "float64"), "makes float32 of shape"),
    "a result too many": (change((*C, "results"), lambda r: r * 2), "1 results"),
    "a result elsewhere": (change((*C, "results", 0, "root"), 3), "doesn't read"),
    "writes": (change((*C, "writes"), [10**6]), "whole number"),
    "writes elsewhere": (change((*C, "writes"), [3]), "doesn't read"),
    "an output": (change((P, "outputs", 0), 10**6), "whole number"),
    "an argument's shape": (change((P, "arguments", 0, "shape"), [2, 5, 9]), "linear"),
    "an argument of all memory": (change((P, "arguments", 0, "shape"), [1 << 40, 5, 8]), "memory"),
    "the arguments": (change((P, "takes"), None), "arguments"),
    "an argument twice": (change((P, "takes", "tuple", 0, "tuple"), [{"tensor": 0}, {"tensor": 0}]), "one argument"),
    "the result": (change((P, "gives"), {"output": 7}), "whole number"),
    "named results of no function": (change((P, "gives"), {"named": ["namedtuple", {"output": 0}]}), "known function"),
    "too few named results": (change((P, "gives"), {"named": ["topk", {"output": 0}]}), "known function"),
    "nameless results": (change((P, "gives"), {"named": [[], {"output": 0}]}), "known function"),
    "the state's array": (change((P, "state", 0, "tensor"), "nothing"), "no array"),
    "the state's offset": (change((P, "state", 0, "offset"), 4), "outside"),
    "the state's odd offset": (change((P, "state", 0, "offset"), 3), "odd"),
    "the state's strides": (change((P, "state", 0, "strides"), [1 << 20, 4]), "strides"),
    "the state's negative strides": (change((P, "state", 0, "strides"), [-32, 4]), "outside"),
    "the state's shape": (change((P, "state", 0, "shape"), [1 << 30, 8]), "outside|memory"),
    "the state's dtype": (change((P, "state", 0, "dtype"), "complex128"), "outside|linear|strides"),
    "the default dtype": (change((P, "default_dtype"), "int64"), "default dtype"),
    "the same tensors": (change((P, "same"), [3]), "tensor's number"),
    "depth": (change((*C, "inputs", 0), json.loads("[" * 100 + "]" * 100)), "deeply"),
    "a large number": (change((*C, "inputs", 0), 1 << 70), "64 bits"),
    "no list of calls": (change((P, "calls"), {}), "a list"),
    "a formula's operation": (formula(["eval", 0]), "unknown operation"),
    "a formula's later operand": (formula(["neg", 0]), "whole number"),
    "a formula's input": (formula(["load", 1]), "whole number"),
    "a formula's constant": (formula(["const", "1"]), "number"),
    "a formula's cast": (formula(["load", 0], ["cast", 0, "object"]), "not possible"),
    "a typed formula's input": (typed(["load", "f32", 1]), "no known form"),
    "a typed formula's load": (typed(["load", "f64", 0]), "no known form"),
    "a typed formula's kinds": (typed(["load", "f32", 0], ["const", "f64", 1.0], ["add", "f32", 0, 1]), "known form"),
    "a typed formula's operation": (typed(["load", "f32", 0], ["free", "f32", 0]), "no known form"),
    "a typed formula's constant": (typed(["const", "i64", 1.0]), "no known form"),
    "a typed formula's result": (typed(["load", "f32", 0], ["neg", "f32", 0], result="bool"), "no known form"),
    "a typed formula's sum": (typed(["load", "f32", 0], sums="x"), "for a result of"),
    "a typed formula's rows": (typed(["load", "f32", 0], sums="s:0"), "axes of rows"),
    "a typed formula's endless rows": (typed(["load", "f32", 0], sums="s:12"), "axes of rows"),
    "a typed formula's columns": (typed(["load", "f32", 0], sums="s:1/0"), "axes of rows"),
    "a typed formula's logarithm of columns": (typed(["load", "f32", 0], sums="l:1/1"), "axes of rows"),
    "a typed formula's rows of nothing": (typed(["load", "f32", 0], sums=":1"), "letter for each|axes of rows"),
    "a typed formula's reduction": (typed(["load", "f32", 0], sums="q:1k"), "for a result of"),
    "a typed formula's shifts": (typed(["load", "f32", 0], rolls=3), "shifts for each input"),
    "a typed formula's shifts of others": (typed(["load", "f32", 0], rolls=[[], []]), "shifts for each input"),
    "a typed formula's half shifts": (typed(["load", "f32", 0], rolls=[[0.5]]), "shift for each axis"),
    "a typed formula's wide shifts": (typed(["load", "f32", 0], rolls=[[1 << 63]]), "shift for each axis"),
    "a typed formula's many shifts": (typed(["load", "f32", 0], rolls=[[0] * 65]), "shift for each axis"),
    "a generator": (change((P, "generators"), [[1 << 64, 0]]), "whole number"),
}  # fmt: skip


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "f.tgp"
    saved("attention", "numpy", path, inference=True)
    return path


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused(name, honest, tmp_path):
    lie, complaint = LIES[name]
    header, data = parts(honest)
    program = json.loads(header["__metadata__"]["program"])
    lie(header, program)
    if "program" in header["__metadata__"]:
        signed(tmp_path / "f.tgp", header, data, program)
    else:
        raw = json.dumps(header).encode()
        (tmp_path / "f.tgp").write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    with pytest.raises(FileError, match=complaint):
        tg.compiler.load(tmp_path / "f.tgp")


def test_strides_reach_no_other_memory(tmp_path):
    compiled = Compiled(lambda x: x.as_strided((2, 2), (1, 1)) + x.unfold(0, 2, 1)[0, 0])
    x = tg.arange(4.0)
    with tg.no_grad():
        compiled(x)
    compiled.save(tmp_path / "f.tgp")
    same(tg.compiler.load(tmp_path / "f.tgp")(x), compiled(x))
    header, data = parts(tmp_path / "f.tgp")
    text = header["__metadata__"]["program"]
    for name, lies in (
        ("as_strided", ({"offset": 3}, {"offset": -1}, {"stride": {"tuple": [2, 2]}}, {"stride": {"tuple": [-1, 1]}},
                        {"within": {"tuple": [8]}}, {"stride": {"tuple": [1]}})),
        ("unfold_dim", ({"size": 5}, {"size": 0}, {"step": 0}, {"dim": 1}, {"dim": -1})),
    ):  # fmt: skip
        for lie in lies:
            program = json.loads(text)
            next(call for call in program["calls"] if call.get("op") == name)["attrs"] |= lie
            signed(tmp_path / "g.tgp", header, data, program)
            with pytest.raises(FileError, match=name):
                tg.compiler.load(tmp_path / "g.tgp")


def test_a_formula_in_a_file_changes_no_op_of_the_process(honest, tmp_path):
    """A wrong formula under a known name stays the file's."""
    header, data = parts(honest)
    program = json.loads(header["__metadata__"]["program"])
    number = next(i for i, call in enumerate(program["calls"]) if call["results"][0] is not None)
    program["formulas"] = [
        {"name": name, "inputs": ["x"], "nodes": [["load", 0], ["neg", 0]], "results": [1]}
        for name in ("exp", "relu_backward0", "sin_backward0", "tanh_backward0")
    ]
    made = program["calls"][number]["results"][0]
    count = len(program["arguments"]) + len(program["state"])
    program["calls"].append(
        {"formula": 3, "inputs": [{"value": count}], "results": [{**made, "name": "mine"}], "part": "forward"}
    )
    signed(tmp_path / "f.tgp", header, data, program)
    tg.compiler.load(tmp_path / "f.tgp")(tg.ones(2, 5, 8))
    x = tg.tensor([0.5], requires_grad=True)
    (x.tanh() + x.exp() + x.sin() + x.relu()).backward()
    np.testing.assert_allclose(x.grad.item(), 1 - np.tanh(0.5) ** 2 + np.exp(0.5) + np.cos(0.5) + 1, rtol=1e-6)


def attempt(path, *args):
    """Load and call what is there: only these errors may come of it."""
    try:
        loaded = tg.compiler.load(path)
    except FileError:
        return False
    try:
        with np.errstate(all="ignore"):
            loaded(*args)
    except (TensorgradError, TypeError, ValueError, IndexError, MemoryError, OverflowError, RuntimeError):
        return False
    return True


def test_changed_bytes_are_noticed(honest, tmp_path):
    raw = honest.read_bytes()
    draw = random.Random(0)
    path = tmp_path / "f.tgp"
    for _ in range(300):
        changed = bytearray(raw)
        kind = draw.randrange(4)
        if kind == 0:
            changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[draw.randrange(len(raw)) :]
        elif kind == 2:
            at = draw.randrange(len(raw))
            changed[at : at + 8] = draw.randbytes(8)
        else:
            changed += draw.randbytes(draw.randrange(1, 99))
        path.write_bytes(changed)
        if bytes(changed) != raw:
            with pytest.raises(FileError):
                tg.compiler.load(path)


STRANGE = (
    None, True, False, 0, 1, -1, 2, 3, 7, 1 << 31, 1 << 40, 1 << 62, -(1 << 63), 1 << 64, 0.5, -0.0, 1e308, "", "x",
    "float32", "int64", "bool", "linear", "max_pool", "embedding", [], [0], [1, 1], [[]], {}, {"value": 0},
    {"value": 1}, {"value": 5}, {"tuple": []}, {"tuple": [1, 1]}, {"tuple": [-1, 2]}, {"float": "nan"},
    {"dtype": "int64"},
    {"slice": [None, None, -1]}, {"complex": [1.0, 2.0]}, {"generator": 0}, {"tensor": 0}, {"scalar": ["uint8", 3]},
)  # fmt: skip


def mutate(tree, draw):
    """Change one place of a JSON tree."""
    spots = []

    def walk(node):
        items = node.items() if type(node) is dict else enumerate(node) if type(node) is list else ()
        for key, child in items:
            spots.append((node, key))
            walk(child)

    walk(tree)
    if not spots:
        return
    holder, key = draw.choice(spots)
    kind = draw.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and type(holder) is list:
        holder.insert(key, copy.deepcopy(holder[draw.randrange(len(holder))]))
    elif kind == 2 and type(holder[key]) is int:
        holder[key] += draw.choice((-1, 1, 2, -holder[key], holder[key], 1 << 20))
    elif kind == 3:
        other, place = draw.choice(spots)
        holder[key] = copy.deepcopy(other[place])
    else:
        holder[key] = copy.deepcopy(draw.choice(STRANGE))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["network", "attention", "lstm", "loss", "formula", "penalty", "structures"])
def test_programs_changed_at_random_do_no_harm(name, backend, tmp_path):
    """With checksums that are right: a reader that trusted anything would crash or fill the memory."""
    _, args, _ = saved(name, backend, tmp_path / "f.tgp")
    header, data = parts(tmp_path / "f.tgp")
    text = header["__metadata__"]["program"]
    draw = random.Random(hash(name) % 1000 if "FUZZ" in os.environ else 1)
    with tg.backend(backend), tg.no_grad():
        for _ in range(int(os.environ.get("FUZZ", 120))):
            program, changed = json.loads(text), copy.deepcopy(header)
            for _ in range(draw.randrange(1, 4)):
                mutate(program if draw.random() < 0.9 else changed, draw)
            if type(changed.get("__metadata__")) is not dict:
                continue
            signed(tmp_path / "g.tgp", changed, data, program)
            attempt(tmp_path / "g.tgp", *args)


def _pick(table, at):
    return tg.cat([table * 2, table, table, table, table]).index_select(0, at) + 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", (4, 300_000), ids=("in a block", "in Python"))
def test_wrong_data_names_the_call_and_its_shapes(backend, rows, tmp_path):
    """In the first replay, in Python's and in C's; the call is the one that explain() shows."""
    with tg.backend(backend), tg.no_grad():
        f = tg.compile(_pick)
        table, good, bad = tg.ones(rows, 3), tg.tensor([0, 1]), tg.tensor([0, 5 * rows])
        f(table, good)
        f.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        (number,) = [i for i, call in enumerate(loaded.program.calls, 1) if call.op.name == "index_select"]
        at = (
            rf"call {number} of {len(loaded.program.calls)}: %\d = index_select\(%\d f32\[{5 * rows},3\], arg1 i64\[2\]"
        )
        for used in range(4):
            with pytest.raises(IndexError, match=rf"in a loaded program, at {at}, dim=0\), from test_save.py:\d+\)$"):
                loaded(table, bad)
            assert loaded.explain().count("index_select(") == 1
            if used:
                assert loaded(table, good).tolist() == f(table, good).tolist()
        for call in loaded.program.calls:  # as of a program whose lines were not known
            call.line = None
        with pytest.raises(tg.errors.IndexOutOfRange, match=rf"{at}, dim=0\)\)$"):
            loaded(table, bad)
        # the function itself knows its lines, whoever runs it
        f(table, good)
        with pytest.raises(IndexError, match=r"in a compiled function, at .*test_save.py:\d+ in _pick: return tg.cat"):
            f(table, bad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_that_are_written_over_numbers_of_another_dtype(backend, tmp_path):
    def run(x, y):
        z = x.exp().add_(y)
        return z, x.half().mul_(y), (x.int() * 2).add_(y > 0), (x * 2).lt_(y), (x + 1).clamp_(y, y + 1)

    path = tmp_path / "f.tgp"
    x, y = tg.randn(5), tg.randn(5).double()
    with tg.backend(backend), tg.no_grad():
        f = tg.compile(run)
        for _ in range(2):
            expected = f(x, y)
        f.save(path)
        for a, b in zip(tg.compiler.load(path)(x, y), expected, strict=True):
            assert a.dtype == b.dtype and tg.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_that_are_written_over_numbers_of_a_lower_kind(backend, tmp_path):
    path = tmp_path / "f.tgp"
    with tg.backend(backend), tg.no_grad():
        f = tg.compile(lambda x, y: (x > 0, x.exp().add_(y)))
        for _ in range(2):
            f(tg.ones(3), tg.ones(3).double())
        f.save(path)
        header, data = parts(path)
        program = json.loads(header["__metadata__"]["program"])
        (call,) = (call for call in program["calls"] if "attrs" in call and "out" in call["attrs"])
        call["attrs"]["out"] = {"value": 2}  # x > 0
        signed(path, header, data, program)
        with pytest.raises(FileError, match="add: `out` is of another shape or dtype"):
            tg.compiler.load(path)


def _singular_values(matrices, at):
    return tg.linalg.svdvals(matrices.index_select(0, at) * 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_python_computes_between_calls_of_c_is_named_too(backend, tmp_path):
    with tg.backend(backend), tg.no_grad():
        f = tg.compile(_singular_values)
        good, at = tg.eye(2).expand(3, 2, 2).contiguous(), tg.tensor([0, 2])
        for _ in range(2):  # tg.linalg is loaded when it is first asked for
            f(good, at)
        f.save(tmp_path / "f.tgp")
        loaded = tg.compiler.load(tmp_path / "f.tgp")
        if backend == "cpp":
            assert [call.op.name for call in loaded.program.linked.python_calls] == ["linalg_svdvals"]
        bad = good * float("nan")
        for _ in range(3):
            with pytest.raises(Exception, match=r"converge.*compiled function, at .*in _singular_values") as error:
                f(bad, at)
            assert str(error.value).count("(in a") == 1
            with pytest.raises(
                Exception, match=r"converge.*loaded program, at call \d of \d: %\d = linalg_svd"
            ) as error:
                loaded(bad, at)
            assert str(error.value).count("(in a") == 1
            with pytest.raises(IndexError, match=r"index_select\(arg0 f32\[3,2,2\], arg1 i64\[2\], dim=0\)"):
                loaded(good, at + 1)
            assert loaded(good, at).tolist() == f(good, at).tolist() == [[2.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_an_op_does_not_take_is_a_fault_of_the_file(backend, tmp_path):
    path = tmp_path / "f.tgp"
    with tg.backend(backend), tg.no_grad():
        f = tg.compile(lambda x: tg.linalg.pinv(x).var(0))
        for _ in range(2):
            f(tg.eye(3))
        f.save(path)
        header, data = parts(path)
        program = json.loads(header["__metadata__"]["program"])
        without, odd = copy.deepcopy(program), copy.deepcopy(program)
        without["calls"][0]["inputs"][1] = None
        signed(path, header, data, without)
        with pytest.raises(FileError, match="linalg_pinv: AttributeError"):
            tg.compiler.load(path)
        odd["calls"][-1]["attrs"]["dim"], odd["calls"][-1]["results"][0]["shape"] = {"tuple": ["a"]}, [3, 3]
        signed(path, header, data, odd)
        with pytest.raises(FileError, match="TypeError"):
            tg.compiler.load(path)(tg.eye(3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_that_an_op_does_not_take_is_an_error_of_one_line(backend, tmp_path):
    """It was NumPy's plain ValueError or OverflowError, or pybind's list of signatures."""
    path = tmp_path / "f.tgp"
    x = tg.arange(24.0).reshape(1, 1, 4, 6)

    def loaded(function, change):
        f = tg.compile(function)
        for _ in range(2):
            f(x)
        f.save(path)
        header, data = parts(path)
        program = json.loads(header["__metadata__"]["program"])
        change(program["calls"][0])
        signed(path, header, data, program)
        return tg.compiler.load(path)(x)

    def attribute(name, value):
        return lambda call: call["attrs"].update({name: value})

    def query(call):
        call["inputs"][0] = [[0.5] * 6] * 4

    with tg.backend(backend), tg.no_grad():
        for function, change in (
            (lambda x: nn.functional.interpolate(x, scale_factor=2.0), attribute("scales", {"tuple": [2.0]})),
            (lambda x: x.roll(1, 3), attribute("shifts", {"tuple": [{"float": "inf"}]})),
            (lambda x: tg.linalg.qr(x)[1], attribute("mode", "a\nb")),
            (lambda x: x.tril(), attribute("diagonal", "x")),
            (lambda x: nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True), query),
        ):
            with pytest.raises(TensorgradError) as error:
                loaded(function, change)
            assert "\n" not in str(error.value)


def test_a_loaded_program_that_can_not_be_explained_says_so(tmp_path):
    """An attribute that the kernel doesn't look at, as the op's definition does."""
    path = tmp_path / "f.tgp"
    with tg.backend("numpy"), tg.no_grad():
        f = tg.compile(lambda x, t: nn.functional.cross_entropy(x, t))
        x, target = tg.ones(2, 3), tg.tensor([0, 1])
        for _ in range(2):
            f(x, target)
        f.save(path)
        header, data = parts(path)
        program = json.loads(header["__metadata__"]["program"])
        (call,) = (call for call in program["calls"] if call.get("op") == "cross_entropy")
        call["attrs"]["ignore_index"] = None
        signed(path, header, data, program)
        loaded = tg.compiler.load(path)
        assert loaded(x, target).item() == f(x, target).item()
        with pytest.raises(FileError, match="does not hold together: TypeError"):
            loaded.explain()


def test_a_program_of_several_ways_says_what_to_choose_by(tmp_path):
    compiled = tg.compile(lambda t: t * 2 if t.sum() > 0 else t - 1, fallback=True)
    for sign in (1, -1, 1, -1):
        compiled(tg.tensor([1.0, -2.0, 3.0]) * sign)
    with pytest.raises(tg.errors.CompileError, match=r"one way of several, .*choose by where\(\) or masked_fill\(\)"):
        compiled.save(tmp_path / "ways.tgp")
