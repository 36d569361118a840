"""nn.utils beside PyTorch's: norms of weights, parametrizations, pruning, fusion, clipping."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

from .beside import close

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


class Double:
    """Parametrizations written once for both libraries."""

    def __init__(self, ns: Any):
        class Symmetric(ns.nn.Module):
            def forward(self, x):
                return x.triu() + x.triu(1).transpose(-1, -2)

            def right_inverse(self, x):
                return x.triu()

        class Product(ns.nn.Module):
            def forward(self, a, b):
                return a * b.exp()

            def right_inverse(self, x):
                return x / 2, ns.full_like(x, 2.0).log()

        class Scale(ns.nn.Module):
            def forward(self, x):
                return 3 * x

        class Wrong(ns.nn.Module):
            def forward(self, x):
                return x[:1]

        self.Symmetric, self.Product, self.Scale, self.Wrong = Symmetric, Product, Scale, Wrong


def utils(ns: Any) -> Any:
    return ns.nn.utils


def symmetric_twice(ns: Any, m: Any) -> None:
    given, add = Double(ns), utils(ns).parametrize.register_parametrization
    add(m, "weight", given.Symmetric())
    add(m, "weight", given.Scale())
    add(m, "bias", given.Product())


# name, layer, its arguments, what is done to it, shape of the input
CASES: list[tuple[str, str, tuple[Any, ...], Any, tuple[int, ...]]] = [
    ("weight_norm", "Linear", (4, 3), lambda ns, m: utils(ns).weight_norm(m), (2, 4)),
    ("weight_norm, conv", "Conv2d", (2, 3, 2), lambda ns, m: utils(ns).weight_norm(m, dim=1), (2, 2, 4, 4)),
    ("weight_norm, whole", "Linear", (4, 3), lambda ns, m: utils(ns).weight_norm(m, dim=None), (2, 4)),
    ("weight_norm, bias", "Linear", (4, 3), lambda ns, m: utils(ns).weight_norm(m, "bias"), (2, 4)),
    ("spectral_norm", "Linear", (4, 3), lambda ns, m: utils(ns).spectral_norm(m), (2, 4)),
    ("spectral_norm, conv", "ConvTranspose2d",
     (2, 3, 2), lambda ns, m: utils(ns).spectral_norm(m, n_power_iterations=2),
     (2, 2, 3, 3)),
    ("new weight_norm", "Conv1d", (2, 3, 2), lambda ns, m: utils(ns).parametrizations.weight_norm(m), (2, 2, 4)),
    ("new weight_norm, whole", "Linear", (4, 3), lambda ns, m: utils(ns).parametrizations.weight_norm(m, dim=None),
     (2, 4)),
    ("new spectral_norm", "Conv2d", (2, 3, 2), lambda ns, m: utils(ns).parametrizations.spectral_norm(m), (2, 2, 3, 3)),
    ("new spectral_norm, vector", "Linear", (4, 3), lambda ns, m: utils(ns).parametrizations.spectral_norm(m, "bias"),
     (2, 4)),
    ("parametrize", "Linear", (3, 3), symmetric_twice, (2, 3)),
    ("recurrent", "LSTM", (3, 2), lambda ns, m: utils(ns).parametrizations.weight_norm(m, "weight_hh_l0"), (4, 2, 3)),
    ("prune", "Linear", (4, 3), lambda ns, m: utils(ns).prune.l1_unstructured(m, "weight", 5), (2, 4)),
    ("prune, structured", "Conv2d", (2, 3, 2), lambda ns, m: utils(ns).prune.ln_structured(m, "weight", 0.5, 2, 0),
     (1, 2, 3, 3)),
]  # fmt: skip


@pytest.fixture
def right_second_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's fused weight norm fails its own gradgradcheck; the same in smaller operations is right."""
    import importlib

    def plain(v: Any, g: Any, dim: int) -> Any:
        return v * (g / torch.norm_except_dim(v, 2, dim)) if v.ndim > 1 else v * (g / v.abs())

    monkeypatch.setattr(torch, "_weight_norm", plain)
    monkeypatch.setattr(importlib.import_module("torch.nn.utils.weight_norm"), "_weight_norm", plain)


@pytest.mark.usefixtures("right_second_gradients")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_layer(case: Any, training: bool) -> None:
    """State dicts both ways, outputs, buffers, first and second gradients."""
    _, layer, args, change, shape = case
    results, state = [], None
    x = np.random.default_rng(0).normal(size=shape)
    for ns in (torch, tg):
        model = getattr(ns.nn, layer)(*args).double()
        if state is None:
            state = {k: v.clone() for k, v in model.state_dict().items()}
        else:
            model.load_state_dict(start)  # noqa: F821 - of the first round
        start = model.state_dict()
        if ns is torch:
            start = {k: v.clone() for k, v in start.items()}
        change(ns, model)
        model.train(training)
        if ns is torch:
            changed = {k: v.clone() for k, v in model.state_dict().items()}
            names, text = list(changed), repr(model)
        else:
            assert list(model.state_dict()) == names and repr(model) == text
            for key, value in model.state_dict().items():  # all but what is drawn is the same already
                if not key.endswith(("_u", "_v")) or "orig" in key:
                    np.testing.assert_allclose(value.numpy(), changed[key].numpy(), atol=1e-12)
            model.load_state_dict(changed)
        inputs = ns.tensor(x, requires_grad=True)
        out = model(inputs)
        out = out[0] if isinstance(out, tuple) else out
        again = model(inputs)
        again = again[0] if isinstance(again, tuple) else again
        leaves = [inputs, *model.parameters()]
        grads = ns.autograd.grad((out.sin() + again).sum(), leaves, create_graph=True)
        second = ns.autograd.grad(sum((g * g).sum() for g in grads), leaves)
        results.append([out, again, *grads, *second, *model.state_dict().values()])
        state = model.state_dict()
    torch_model = getattr(torch.nn, layer)(*args).double()
    change(torch, torch_model)
    torch_model.load_state_dict({k: torch.tensor(v.numpy()) for k, v in state.items()})
    close(results[1], results[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_removal(case: Any) -> None:
    name, layer, args, change, shape = case
    model = getattr(tg.nn, layer)(*args).double().eval()
    before = list(model.state_dict())
    change(tg, model)
    x = tg.tensor(np.random.default_rng(0).normal(size=shape))
    model.double().eval()
    out = model(x)
    which = "bias" if name.endswith(("bias", "vector")) else "weight_hh_l0" if name == "recurrent" else "weight"
    if name.startswith("weight"):
        tg.nn.utils.remove_weight_norm(model, which)
    elif name.startswith("spectral"):
        tg.nn.utils.remove_spectral_norm(model)
    elif name.startswith("prune"):
        assert tg.nn.utils.prune.is_pruned(model)
        tg.nn.utils.prune.remove(model, which)
        assert not tg.nn.utils.prune.is_pruned(model)
    else:
        for tensor in list(model.parametrizations):
            tg.nn.utils.parametrize.remove_parametrizations(model, tensor)
        assert type(model) is getattr(tg.nn, layer)
    assert sorted(model.state_dict()) == sorted(before) and not model._forward_pre_hooks
    assert all(isinstance(p, tg.nn.Parameter) for p in model._parameters.values())
    again = model(x)
    pairs = zip(out if isinstance(out, tuple) else (out,), again if isinstance(again, tuple) else (again,), strict=True)
    a, b = next(iter(pairs))
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9)


def test_parametrize_semantics() -> None:
    seen = []
    for ns in (torch, tg):
        P, given = ns.nn.utils.parametrize, Double(ns)
        row: list[Any] = []
        m = ns.nn.Linear(3, 3)
        with ns.no_grad():
            m.weight.copy_(ns.arange(9.0).reshape(3, 3))
        same = m.weight
        P.register_parametrization(m, "weight", given.Symmetric())
        row += [m.parametrizations.weight.original is same, P.is_parametrized(m), P.is_parametrized(m, "bias")]
        row += [P.type_before_parametrizations(m) is ns.nn.Linear, m.weight.tolist(), same.tolist()]
        m.weight = ns.ones(3, 3)
        row += [m.weight.tolist(), same.tolist(), m.parametrizations.weight.training]
        with P.cached():
            row.append(m.weight is m.weight)
        row.append(m.weight is m.weight)
        twin = copy.deepcopy(m)
        row += [twin.weight.tolist(), twin.parametrizations.weight.original is not same]
        other = P.transfer_parametrizations_and_params(m, ns.nn.Linear(3, 3))
        row += [P.is_parametrized(other, "weight"), other.weight.tolist(), names(other)]
        P.remove_parametrizations(m, "weight", leave_parametrized=False)
        row += [m.weight is same, type(m) is ns.nn.Linear, m.weight.tolist()]
        buffer = ns.nn.BatchNorm1d(2)
        P.register_parametrization(buffer, "running_mean", given.Scale())
        row += [names(buffer), list(buffer.state_dict()), buffer.running_mean.tolist()]
        seen.append(row)
        for call, error in (
            (lambda: P.register_parametrization(m, "nothing", given.Scale()), ValueError),  # noqa: B023
            (lambda: P.register_parametrization(m, "weight", given.Wrong()), ValueError),  # noqa: B023
            (lambda: P.remove_parametrizations(m, "weight"), ValueError),  # noqa: B023
            (lambda: setattr(buffer, "running_mean", ns.zeros(2)), RuntimeError),  # noqa: B023
            (lambda: pickle.dumps(buffer), RuntimeError),  # noqa: B023
        ):
            with pytest.raises(error):
                call()
        product = P.register_parametrization(ns.nn.Linear(2, 2), "weight", given.Product())
        with pytest.raises(ValueError, match="leave_parametrized=False"):
            P.remove_parametrizations(product, "weight", leave_parametrized=False)
        P.register_parametrization(m, "weight", given.Wrong(), unsafe=True)
        assert tuple(m.weight.shape) == (1, 3)
    assert seen[0] == seen[1]


def names(module: Any) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def test_old_weight_norm_loads_into_new() -> None:
    old = tg.nn.utils.weight_norm(tg.nn.Linear(3, 2))
    new = tg.nn.utils.parametrizations.weight_norm(tg.nn.Linear(3, 2))
    new.load_state_dict(old.state_dict())
    np.testing.assert_allclose(new.weight.detach().numpy(), old.weight.detach().numpy(), rtol=1e-6)
    with pytest.raises(RuntimeError, match="two weight_norm hooks"):
        tg.nn.utils.weight_norm(old)
    with pytest.raises(ValueError, match="not found"):
        tg.nn.utils.remove_weight_norm(old, "bias")
    sn = tg.nn.utils.spectral_norm(tg.nn.Linear(3, 2))
    assert sn.state_dict()._metadata[""] == {"version": 1, "spectral_norm": {"weight.version": 1}}
    with pytest.raises(RuntimeError, match="two spectral_norm hooks"):
        tg.nn.utils.spectral_norm(sn)


def test_pruning() -> None:
    """Masks, pruned again and again, by each method that does not draw."""
    seen = []
    weight = np.random.default_rng(0).normal(size=(4, 6))
    for ns in (torch, tg):
        prune = ns.nn.utils.prune
        row: list[Any] = []

        def layer(ns: Any = ns) -> Any:
            made = ns.nn.Linear(6, 4).double()
            with ns.no_grad():
                made.weight.copy_(ns.tensor(weight))
                made.bias.copy_(ns.tensor(weight[:, 0]))
            return made

        m = layer()
        prune.l1_unstructured(m, "weight", 0.3)
        prune.ln_structured(m, "weight", 1, float("inf"), 1)
        prune.l1_unstructured(m, "weight", 2, importance_scores=-ns.tensor(weight))
        prune.custom_from_mask(m, "bias", ns.tensor([1.0, 0.0, 1.0, 1.0]))
        row += [m.weight_mask, m.weight, m.bias, *m.state_dict().values()]
        a, b = layer(), layer()
        prune.l1_unstructured(a, "weight", 4)
        pairs = [(a, "weight"), (b, "bias"), (b, "weight")]
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.5)
        row += [a.weight, b.bias, b.weight]
        one = prune.identity(layer(), "weight")
        row += [one.weight_mask, prune.L1Unstructured(3).prune(ns.tensor(weight))]
        assert len(next(iter(m._forward_pre_hooks.values()))) == 3
        for call, error in (
            (lambda: prune.l1_unstructured(layer(), "weight", 1.5), ValueError),  # noqa: B023
            (lambda: prune.l1_unstructured(layer(), "weight", 100), ValueError),  # noqa: B023
            (lambda: prune.l1_unstructured(layer(), "weight", "x"), TypeError),  # noqa: B023
            (lambda: prune.ln_structured(layer(), "bias", 1, 2, 0), ValueError),  # noqa: B023
            (lambda: prune.ln_structured(layer(), "weight", 1, 2, 5), IndexError),  # noqa: B023
            (lambda: prune.remove(layer(), "weight"), ValueError),  # noqa: B023
            (lambda: prune.global_unstructured(pairs, prune.LnStructured, amount=1, n=2), TypeError),  # noqa: B023
            (lambda: prune.custom_from_mask(layer(), "bias", ns.ones(3)), (AssertionError, RuntimeError)),  # noqa: B023
        ):
            with pytest.raises(error):
                call()
        seen.append(row)
    close(seen[1], seen[0])
    for method in (
        tg.nn.utils.prune.random_unstructured,
        lambda m, n, a: tg.nn.utils.prune.random_structured(m, n, a, 1),
    ):
        m = tg.nn.Linear(8, 4)
        method(m, "weight", 0.5)
        assert int(m.weight_mask.sum()) == 16
    assert m.weight_mask.sum(0).tolist().count(0) == 4


FUSED = [
    ("Conv2d", (3, 4, 2), {}, (2, 3, 4, 4), "BatchNorm2d", {}),
    ("Conv1d", (3, 4, 2), {"bias": False}, (2, 3, 5), "BatchNorm1d", {"affine": False}),
    ("ConvTranspose2d", (3, 4, 2), {}, (2, 3, 4, 4), "BatchNorm2d", {}),
    ("Linear", (3, 4), {"bias": False}, (5, 3), "BatchNorm1d", {}),
]


@pytest.mark.parametrize("row", FUSED, ids=[row[0] for row in FUSED])
def test_fusion(row: Any) -> None:
    kind, args, options, shape, norm, how = row
    layer, bn = getattr(tg.nn, kind)(*args, **options).double(), getattr(tg.nn, norm)(4, **how).double()
    x = tg.tensor(np.random.default_rng(0).normal(size=shape))
    bn(layer(x))  # statistics to fuse
    if bn.weight is not None:
        tg.nn.init.uniform_(bn.weight, 0.5, 2)
    U = tg.nn.utils
    with pytest.raises(AssertionError, match="eval"):
        U.fuse_conv_bn_eval(layer, bn)
    layer.eval(), bn.eval()
    if kind == "Linear":
        fused = U.fuse_linear_bn_eval(layer, bn)
    else:
        fused = U.fuse_conv_bn_eval(layer, bn, transpose="Transpose" in kind)
    np.testing.assert_allclose(fused(x).detach().numpy(), bn(layer(x)).detach().numpy(), rtol=1e-9, atol=1e-12)
    assert type(fused) is type(layer) and fused.weight is not layer.weight


@pytest.mark.parametrize("norm_type", [1, 2.0, 3, 0.5, 0, float("inf"), -float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping(norm_type: float, max_norm: float) -> None:
    arrays = [np.random.default_rng(i).normal(size=s) for i, s in enumerate([(3, 4), (), (5,)])]
    arrays[0][1] = 0
    seen = []
    for ns in (torch, tg):
        row: list[Any] = []
        params = [ns.nn.Parameter(ns.tensor(a)) for a in arrays]
        params.append(ns.nn.Parameter(ns.ones(2)))
        for p, a in zip(params, arrays, strict=False):
            p.grad = ns.tensor(a * 3)
        U = ns.nn.utils
        row.append(U.get_total_norm([p.grad for p in params[:3]], norm_type, foreach=False))
        row.append(U.clip_grad_norm_(params, max_norm, norm_type=norm_type))
        row += [p.grad for p in params[:3]]
        U.clip_grads_with_norm_(params[0], 0.1, row[0])
        U.clip_grad_value_(params, 0.2)
        row += [p.grad for p in params[:3]]
        row.append(U.parameters_to_vector(params[:3]))
        row.append(U.clip_grad_norm_(params[3:], 1.0))
        params[0].grad.fill_(float("nan"))
        with pytest.raises(RuntimeError, match="non-finite"):
            U.clip_grad_norm_(params[:1], 1.0, norm_type=2, error_if_nonfinite=True)
        with pytest.raises(TypeError):
            U.vector_to_parameters(3, params)
        with pytest.warns(UserWarning, match="empty generator"):
            U.clip_grad_norm_((p for p in ()), 1.0)
        seen.append(row)
    close(seen[1], seen[0])


def test_skip_init() -> None:
    for name, args in (("Linear", (5, 2)), ("LSTM", (3, 2)), ("BatchNorm2d", (3,)), ("MultiheadAttention", (4, 2))):
        made = tg.nn.utils.skip_init(getattr(tg.nn, name), *args)
        assert type(made) is getattr(tg.nn, name)
        assert list(made.state_dict()) == list(getattr(torch.nn, name)(*args).state_dict())
    with pytest.raises(RuntimeError, match="'device' arg"):
        tg.nn.utils.skip_init(tg.nn.ReLU)


@pytest.mark.parametrize("path", [
    "clip_grad.clip_grad_norm_", "convert_parameters.parameters_to_vector", "weight_norm.WeightNorm",
    "spectral_norm.SpectralNorm", "rnn.pad_sequence", "fusion.fuse_conv_bn_eval", "parametrize.cached",
    "prune.l1_unstructured", "stateless.functional_call", "init.skip_init",
])  # fmt: skip
def test_paths(path: str) -> None:
    import importlib

    home, _, name = f"nn.utils.{path}".rpartition(".")
    for library in ("torch", "tensorgrad"):
        assert callable(getattr(importlib.import_module(f"{library}.{home}"), name))
    assert callable(tg.nn.utils.weight_norm) and callable(tg.nn.utils.spectral_norm)


MAPS = [("matrix_exp", (4, 4)), ("cayley", (4, 4)), ("householder", (4, 4)), ("householder", (3, 5)),
        ("cayley", (5, 3)), (None, (3, 5)), (None, (4, 4))]  # fmt: skip


@pytest.mark.parametrize("trivial", [True, False])
@pytest.mark.parametrize(("kind", "shape"), MAPS)
def test_orthogonal(kind: str | None, shape: Any, trivial: bool) -> None:
    results, state = [], None
    x = np.random.default_rng(0).normal(size=(2, shape[0]))
    for ns in (torch, tg):
        model = ns.nn.utils.parametrizations.orthogonal(
            ns.nn.Linear(*shape).double(), orthogonal_map=kind, use_trivialization=trivial
        )
        q = model.weight
        gram = q @ q.mT if shape[0] > shape[1] else q.mT @ q
        np.testing.assert_allclose(gram.detach().numpy(), np.eye(min(shape)), atol=1e-9)
        given = np.linalg.qr(np.random.default_rng(1).normal(size=(max(shape), max(shape))))[0][: shape[1], : shape[0]]
        if trivial or kind == "householder" or (kind is None and shape != (4, 4)):
            model.weight = ns.tensor(given)
            np.testing.assert_allclose(model.weight.detach().numpy(), given, atol=1e-9)
        else:
            with pytest.raises(NotImplementedError):
                model.weight = ns.tensor(given)
        if state is None:
            state = {k: v.clone() for k, v in model.state_dict().items()}
            state["parametrizations.weight.original"] += torch.tensor(
                np.random.default_rng(2).normal(size=shape[::-1]) * 0.1
            )
        assert list(model.state_dict()) == list(state)
        model.load_state_dict(state)
        leaves = list(model.parameters())
        out = model(ns.tensor(x))
        grads = ns.autograd.grad(out.sin().sum(), leaves, create_graph=True)
        second = ns.autograd.grad(sum((g * g).sum() for g in grads), leaves, allow_unused=True)
        results.append([out, *grads, *second])
    close(results[1], results[0], rtol=1e-7, atol=1e-9)


def test_orthogonal_errors() -> None:
    for ns in (torch, tg):
        orthogonal = ns.nn.utils.parametrizations.orthogonal
        for layer, args in ((ns.nn.Linear(2, 2), ("nothing",)), (ns.nn.Linear(2, 2), ("bias",)),
                            (ns.nn.Linear(2, 2), ("weight", "rotation"))):  # fmt: skip
            with pytest.raises(ValueError):
                orthogonal(layer, *args)


def test_stateless() -> None:
    layer = tg.nn.Linear(2, 1)
    with pytest.warns(FutureWarning, match="func.functional_call"):
        out = tg.nn.utils.stateless.functional_call(
            layer, {"weight": tg.ones(1, 2), "bias": tg.zeros(1)}, tg.ones(1, 2)
        )
    assert out.item() == 2
