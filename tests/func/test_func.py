"""Transforms beside PyTorch's, on the same inputs; and what mapping refuses."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import func, nn
from tensorgrad.utils import _pytree as pytree

X = np.random.default_rng(0).standard_normal((3, 4))
Y = np.random.default_rng(1).standard_normal((3, 4))
M = np.random.default_rng(2).standard_normal((3, 4, 4))
I = np.array([0, 3, 1])

# each: (library, its func namespace, tensors x, y, m, i) -> tensor or nested container of them
PROGRAMS = {
    "dot": lambda t, f, x, y, m, i: t.vmap(t.dot)(x, y),
    "in_dims": lambda t, f, x, y, m, i: t.vmap(lambda a, b: a * b.sum(), in_dims=(1, None))(x, y),
    "out_dims": lambda t, f, x, y, m, i: t.vmap(lambda a: (a, a.sum()), out_dims=(1, 0))(x),
    "negative dims": lambda t, f, x, y, m, i: t.vmap(lambda a: a.cumsum(0), in_dims=-1, out_dims=-1)(m),
    "nested": lambda t, f, x, y, m, i: t.vmap(t.vmap(lambda a, b: a * b, (0, None)), (0, 0))(x, y[:, 0]),
    "outer of two": lambda t, f, x, y, m, i: t.vmap(lambda a: t.vmap(lambda b: (a * b).sum())(y))(x),
    "containers": lambda t, f, x, y, m, i: t.vmap(lambda d, s: {"u": d["p"][0] * s, "v": (d["q"],)}, (0, None))(
        {"p": [x], "q": m}, y.sum()
    ),
    "dict in_dims": lambda t, f, x, y, m, i: t.vmap(lambda d: d["a"] + d["b"], ({"a": 1, "b": None},))(
        {"a": x, "b": y[:, 0]}
    ),
    "chunks": lambda t, f, x, y, m, i: t.vmap(lambda a: (a.exp(), a.sum()), out_dims=(1, 0), chunk_size=2)(x),
    "kwargs": lambda t, f, x, y, m, i: t.vmap(lambda a, b: a * b)(x, b=y),
    "shared output": lambda t, f, x, y, m, i: t.vmap(lambda a: t.ones(2))(x),
    "matmul of all ranks": lambda t, f, x, y, m, i: t.vmap(lambda a, b: (b @ a, a @ b, a @ a, b @ b, m @ a, x @ b))(
        x, m
    ),
    "einsum": lambda t, f, x, y, m, i: t.vmap(lambda a, b: t.einsum("i,ij,j->i", a, b, a))(x, m),
    "indexed": lambda t, f, x, y, m, i: t.vmap(lambda a, j: (a[j], a[1:3], a[None, ..., -1], x[:, j], a[i]))(x, i),
    "written": lambda t, f, x, y, m, i: t.vmap(written)(x, y),
    "scalars keep dtype": lambda t, f, x, y, m, i: t.vmap(lambda a, b: a * b.float())(x[:, 0], y),
    "sorted": lambda t, f, x, y, m, i: t.vmap(lambda a: (a.sort()[0], a.argmax(), a.topk(2)[0], a.max(0)[0]))(x),
    "where": lambda t, f, x, y, m, i: t.vmap(lambda a, b: t.where(a > 0, a, b).masked_fill(b > 0, 0))(x, y),
    "grad": lambda t, f, x, y, m, i: f.grad(lambda a: (a**3 * y).sum())(x),
    "grad argnums": lambda t, f, x, y, m, i: f.grad(lambda a, b: (a * b.sin()).sum(), argnums=(1, 0))(x, y),
    "grad aux": lambda t, f, x, y, m, i: f.grad(lambda a: (a.sin().sum(), {"k": a * 2}), has_aux=True)(x),
    "grad of dict": lambda t, f, x, y, m, i: f.grad(lambda p: (p["w"] * p["b"][0]).sum())({"w": x, "b": [y]}),
    "grad and value": lambda t, f, x, y, m, i: f.grad_and_value(lambda a: a.sin().sum())(x),
    "grad of unused": lambda t, f, x, y, m, i: f.grad(lambda a, b: a.sum(), argnums=(0, 1))(x, y),
    "third derivative": lambda t, f, x, y, m, i: f.grad(f.grad(f.grad(lambda a: a.sin() * a)))(x[0, 0]),
    "per sample": lambda t, f, x, y, m, i: t.vmap(f.grad(lambda a, b: (a * b).tanh().sum()))(x, y),
    "per sample, shared": lambda t, f, x, y, m, i: t.vmap(
        f.grad(lambda w, a: (w @ a).tanh().sum()), in_dims=(None, 0)
    )(m[0], x),
    "grad of vmap": lambda t, f, x, y, m, i: f.grad(lambda w: t.vmap(lambda a: (a * w).tanh().sum())(x).sum())(y[0]),
    "vjp": lambda t, f, x, y, m, i: f.vjp(lambda a, b: (a * b, a.sum()), x, y)[1]((y, x.sum())),
    "vjp of one": lambda t, f, x, y, m, i: (lambda out, pull: (out, pull(y)))(*f.vjp(t.sin, x)),
    "vmap of vjp": lambda t, f, x, y, m, i: t.vmap(lambda a, v: f.vjp(t.sin, a)[1](v)[0])(x, y),
    "vmapped cotangents": lambda t, f, x, y, m, i: t.vmap(f.vjp(lambda a: (a * y[0]).exp(), x[0])[1])(y),
    "jvp": lambda t, f, x, y, m, i: f.jvp(lambda a, b: (a * b.sin(), b.sum()), (x, y), (y, x)),
    "jvp aux": lambda t, f, x, y, m, i: f.jvp(lambda a: (a.sin(), a * 2), (x,), (y,), has_aux=True),
    "jvp of constant": lambda t, f, x, y, m, i: f.jvp(lambda a: t.ones(2), (x,), (y,)),
    "jvp of jvp": lambda t, f, x, y, m, i: f.jvp(lambda a: f.jvp(t.sin, (a,), (y,))[1], (x,), (y,)),
    "vmap of jvp": lambda t, f, x, y, m, i: t.vmap(lambda v: f.jvp(lambda a: a.tanh() * y[0], (x[0],), (v,))[1])(y),
    "forward over reverse": lambda t, f, x, y, m, i: f.jvp(f.grad(lambda a: (a**3).sum()), (x,), (y,))[1],
    "linearize": lambda t, f, x, y, m, i: (lambda out, push: (out, push(y)))(*f.linearize(lambda a: a.sin() * a, x)),
    "jacrev": lambda t, f, x, y, m, i: f.jacrev(lambda a: (a @ a.mT).sin())(x),
    "jacrev chunks": lambda t, f, x, y, m, i: f.jacrev(lambda a: (a @ a.mT).sin(), chunk_size=2)(x),
    "jacrev argnums": lambda t, f, x, y, m, i: f.jacrev(lambda a, b: (a * b, b.sum(1)), argnums=(0, 1))(x, y),
    "jacrev of dict": lambda t, f, x, y, m, i: f.jacrev(lambda d: {"s": d["a"] * d["b"]})({"a": x[0], "b": y[0]}),
    "jacrev aux": lambda t, f, x, y, m, i: f.jacrev(lambda a: (a.sin(), a), has_aux=True)(x[0]),
    "jacfwd": lambda t, f, x, y, m, i: f.jacfwd(lambda a: (a @ a.mT).sin())(x),
    "jacfwd argnums": lambda t, f, x, y, m, i: f.jacfwd(lambda a, b: (a * b, b.sum(1)), argnums=(0, 1))(x, y),
    "hessian": lambda t, f, x, y, m, i: f.hessian(lambda a: (a.tanh() * y).sum() ** 2)(x),
    "hessian argnums": lambda t, f, x, y, m, i: f.hessian(lambda a, b: (a * b.sin()).sum(), argnums=(0, 1))(x[0], y[0]),
    "jacrev of jacfwd": lambda t, f, x, y, m, i: f.jacrev(f.jacfwd(lambda a: (a.tanh() * y).sum() ** 2))(x),
    "vmap of hessian": lambda t, f, x, y, m, i: t.vmap(f.hessian(lambda a: (a.tanh() ** 2).prod()))(x),
    "grad through hessian": lambda t, f, x, y, m, i: f.grad(
        lambda a: f.hessian(lambda b: (b.sin() * a).sum())(y[0]).sum()
    )(x[0]),
    "softmax loss": lambda t, f, x, y, m, i: t.vmap(
        f.grad(lambda a, j: t.nn.functional.cross_entropy(a.unsqueeze(0), j.unsqueeze(0)))
    )(x, i),
}  # fmt: skip


def written(a, b):
    out = a.clone()
    out[1:3] = 0
    out[0] = b[3]
    out.mul_(b).add_(1)
    view = out[2:]
    view += a[:2]
    return out


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_beside_torch(name):
    torch = pytest.importorskip("torch")
    mine, theirs = (
        PROGRAMS[name](library, library.func, *(library.tensor(a) for a in (X, Y, M, I))) for library in (tg, torch)
    )
    got, want = pytree.tree_leaves(mine), pytree.tree_leaves(theirs)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1]
        assert a.requires_grad == b.requires_grad
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    ["outer of two", "nested", "per sample, shared", "vmap of jvp", "forward over reverse", "hessian", "vjp of one"],
)
def test_results_are_recorded_if_something_outside_is(name):
    torch = pytest.importorskip("torch")
    grads = []
    for library in (tg, torch):
        x, y, m, i = (library.tensor(a) for a in (X, Y, M, I))
        for a in (x, y, m):
            a.requires_grad_()
        total = sum(part.sin().sum() for part in pytree.tree_leaves(PROGRAMS[name](library, library.func, x, y, m, i)))
        total.backward()
        grads.append([np.zeros(1) if a.grad is None else a.grad.numpy() for a in (x, y, m)])
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


IMAGE = (2, 3, 8, 8)
MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (6, 4)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
        ),
        IMAGE,
    ),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, groups=3), nn.GroupNorm(2, 6), nn.AvgPool2d(2), nn.Flatten(), nn.LayerNorm(54)
        ),
        IMAGE,
    ),
    "lstm": (lambda: nn.LSTM(4, 5, batch_first=True), (2, 3, 4)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(5, 4, padding_idx=1), nn.Flatten(), nn.Linear(12, 2)), None),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (2, 5, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_ensembles_and_per_sample_gradients(name):
    make, shape = MODELS[name]
    tg.manual_seed(0)
    models = [make().double().eval() for _ in range(3)]
    x = tg.tensor([[0, 1, 4], [2, 2, 3]]) if shape is None else tg.randn(*shape, dtype=tg.float64)

    def run(params, buffers, x):
        out = func.functional_call(models[0], (params, buffers), (x,))
        return out[0] if isinstance(out, tuple) else out

    params, buffers = func.stack_module_state(models)
    out = tg.vmap(run, in_dims=(0, 0, None))(params, buffers, x)
    alone = [run(dict(m.named_parameters()), dict(m.named_buffers()), x) for m in models]
    close(out, tg.stack(alone))
    out.sin().sum().backward()
    sum(part.sin().sum() for part in alone).backward()
    for key, stacked in params.items():
        close(stacked.grad, tg.stack([dict(m.named_parameters())[key].grad for m in models]))

    own = {key: p.detach() for key, p in models[0].named_parameters()}
    state = dict(models[0].named_buffers())

    def loss(params, x):
        return run(params, state, x.unsqueeze(0)).sin().sum()

    each = tg.vmap(func.grad(loss), in_dims=(None, 0))(own, x)
    for k in range(len(x)):
        one = func.grad(loss)(own, x[k])
        for key in own:
            close(each[key][k], one[key])


def close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-8, atol=1e-11)


def test_functional_call_leaves_the_module_alone():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.BatchNorm1d(2), shared)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weight, mean = tg.eye(2), tg.zeros(2)
    out = func.functional_call(model, {"0.weight": weight, "1.running_mean": mean}, tg.ones(3, 2))
    assert out.shape == (3, 2)
    assert mean.abs().sum() > 0  # written by forward
    for key, value in model.state_dict().items():
        if key not in ("1.running_var", "1.num_batches_tracked"):
            assert bool((value == before[key]).all()), key
    tied = func.functional_call(model[0:1], {"0.weight": weight}, tg.ones(3, 2), tie_weights=True)
    assert tied.shape == (3, 2)
    with pytest.raises(RuntimeError, match="tied"):
        func.functional_call(model, {"0.weight": weight, "2.weight": weight + 1}, tg.ones(3, 2))
    with pytest.raises(RuntimeError, match="missing"):
        func.functional_call(shared, {"weight": weight}, tg.ones(3, 2), strict=True)
    with pytest.raises(ValueError, match="multiple"):
        func.functional_call(shared, ({"weight": weight}, {"weight": weight}), tg.ones(3, 2))
    with pytest.raises(RuntimeError, match="at least one model"):
        func.stack_module_state([])


x = tg.tensor(X)
REFUSED = {
    "item": (RuntimeError, lambda: tg.vmap(lambda a: a.sum().item())(x)),
    "if": (RuntimeError, lambda: tg.vmap(lambda a: a if a.sum() > 0 else -a)(x)),
    "numpy": (RuntimeError, lambda: tg.vmap(lambda a: a.numpy())(x)),
    "nonzero": (RuntimeError, lambda: tg.vmap(lambda a: a.nonzero())(x)),
    "mask": (RuntimeError, lambda: tg.vmap(lambda a: a[a > 0])(x)),
    "write into a shared tensor": (RuntimeError, lambda: tg.vmap(lambda a: tg.zeros(4).add_(a))(x)),
    "copy into a shared tensor": (RuntimeError, lambda: tg.vmap(lambda a: tg.zeros(4).copy_(a))(x)),
    "out of a shared tensor": (RuntimeError, lambda: tg.vmap(lambda a: tg.add(a, 1, out=tg.zeros(4)))(x)),
    "write into an expanded one": (RuntimeError, lambda: tg.vmap(lambda a: a.add_(1))(x[:1].expand(3, 4))),
    "write into a recorded one": (
        RuntimeError, lambda: tg.vmap(lambda a: a.add_(1))(tg.tensor(X, requires_grad=True)),
    ),
    "random": (RuntimeError, lambda: tg.vmap(lambda a: a + tg.rand(4))(x)),
    "dropout": (RuntimeError, lambda: tg.vmap(nn.functional.dropout)(x)),
    "randomness": (RuntimeError, lambda: tg.vmap(lambda a: a, randomness="maybe")),
    "chunk": (ValueError, lambda: tg.vmap(lambda a: a, chunk_size=0)),
    "no inputs": (ValueError, lambda: tg.vmap(lambda: 0)()),
    "in_dims": (ValueError, lambda: tg.vmap(lambda a: a, in_dims=2)(x)),
    "in_dims structure": (ValueError, lambda: tg.vmap(lambda a: a, in_dims=(0, 0))(x)),
    "nothing mapped": (ValueError, lambda: tg.vmap(lambda a: a, in_dims=(None,))(x)),
    "number mapped": (ValueError, lambda: tg.vmap(lambda a: a)(1.0)),
    "sizes": (ValueError, lambda: tg.vmap(lambda a, b: a)(x, tg.ones(4))),
    "returns a number": (ValueError, lambda: tg.vmap(lambda a: 1.0)(x)),
    "out_dims": (IndexError, lambda: tg.vmap(lambda a: a, out_dims=3)(x)),
    "out_dims structure": (ValueError, lambda: tg.vmap(lambda a: a, out_dims=(0, 0))(x)),
    "out_dims None": (ValueError, lambda: tg.vmap(lambda a: a, out_dims=None)(x)),
    "gradient of a vector": (RuntimeError, lambda: func.grad(lambda a: a)(x)),
    "gradient of no tensor": (RuntimeError, lambda: func.grad(lambda a: 1.0)(x)),
    "argnums": (RuntimeError, lambda: func.grad(lambda a: a.sum(), argnums=1)(x)),
    "aux": (RuntimeError, lambda: func.grad(lambda a: a.sum(), has_aux=True)(x)),
    "integers": (RuntimeError, lambda: func.grad(lambda a: a.sum())(tg.tensor(1))),
    "jvp of no tuple": (RuntimeError, lambda: func.jvp(tg.sin, x, x)),
    "tangents": (RuntimeError, lambda: func.jvp(tg.sin, (x,), (x[0],))),
    "strict": (RuntimeError, lambda: func.jvp(lambda a: tg.ones(2), (x,), (x,), strict=True)),
    "cotangents": (RuntimeError, lambda: func.vjp(tg.sin, x)[1](x[0])),
    "cotangent structure": (RuntimeError, lambda: func.vjp(tg.sin, x)[1]((x, x))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    kind, run = REFUSED[name]
    with pytest.raises(kind):
        run()
    assert tg.vmap(lambda a: a.sum())(x).shape == (3,)  # and nothing is left of the failed call


def test_tensors_do_not_leak_out_of_a_map():
    kept = []
    tg.vmap(lambda a: (kept.append(a), a)[1])(x)
    assert "BatchedTensor" in repr(kept[0])
    with pytest.raises(RuntimeError, match="has ended"):
        tg.vmap(lambda a: a + kept[0])(x)


def test_randomness():
    def draw(a):
        return tg.rand(2, dtype=a.dtype) + 0 * a[:2], nn.functional.dropout(tg.ones(8)), tg.randperm(4), a.normal_()

    for mode, same in (("different", False), ("same", True)):
        parts = tg.vmap(draw, randomness=mode)(x.clone())
        assert all(bool((p[0] == p[1]).all()) is same for p in parts[:1])
        assert all(bool((p[0] == p[1]).all() & (p[0] == p[2]).all()) is same for p in parts)
    mixed = tg.vmap(lambda a: tg.vmap(lambda b: tg.rand(()) + 0 * b, randomness="same")(a), randomness="different")(x)
    assert bool((mixed == mixed[:, :1]).all())
    assert not bool((mixed[0] == mixed[1]).any())
    tg.manual_seed(3)
    first = tg.vmap(lambda a: tg.multinomial(a.softmax(0), 2), randomness="different")(x)
    tg.manual_seed(3)
    assert bool((first == tg.vmap(lambda a: tg.multinomial(a.softmax(0), 2), randomness="different")(x)).all())


def test_writes_reach_the_mapped_input():
    a = tg.tensor(X)
    tg.vmap(lambda row: row.mul_(2))(a)
    np.testing.assert_array_equal(a.numpy(), 2 * X)


def test_functions_of_users_are_mapped():
    class Cube(tg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x * x * g

    close(tg.vmap(func.grad(lambda a: Cube.apply(a).sum()))(x), 3 * x * x)
    close(func.jacfwd(lambda a: Cube.apply(a))(x[0]), tg.diag(3 * x[0] ** 2))


def sorting(library):
    class Sort(library.autograd.Function):
        """Leaves for NumPy, so that mapped tensors could not go through."""

        @staticmethod
        def forward(x, dim):
            order = np.argsort(x.detach().numpy(), axis=dim)
            return library.take_along_dim(x, library.tensor(order), dim), library.tensor(order)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.dim = inputs[1]
            ctx.save_for_backward(output[1])
            ctx.mark_non_differentiable(output[1])

        @staticmethod
        def backward(ctx, g, _):
            (order,) = ctx.saved_tensors
            return library.zeros_like(g).scatter(ctx.dim, order, g), None

        @staticmethod
        def vmap(info, in_dims, x, dim):
            assert in_dims == (0, None)
            assert info.batch_size == 3
            return Sort.apply(x, dim + 1), (0, 0)

    return Sort


@pytest.mark.filterwarnings("ignore")
def test_functions_with_a_vmap_method_beside_torch():
    torch = pytest.importorskip("torch")
    results = []
    for library in (tg, torch):
        sort = sorting(library)
        x, y = library.tensor(X, requires_grad=True), library.tensor(Y)
        values, order = library.vmap(lambda a, sort=sort: sort.apply(a, 0))(x)
        (values * y).sum().backward()
        results.append([p.detach().numpy() for p in (values, order, x.grad)])
        inner = library.vmap(library.func.grad(lambda a, b, sort=sort: (sort.apply(a, 0)[0] * b).sum()))
        np.testing.assert_allclose(inner(x.detach(), y).numpy(), x.grad.numpy())
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_maps_on_a_device():
    from contextlib import nullcontext

    from tensorgrad.backends import registry
    from tensorgrad.testing.strict_backend import strict_cuda

    def run(device):
        tg.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)).to(device)
        params = {key: p.detach() for key, p in model.named_parameters()}
        image, label = tg.randn(4, 1, 6, 6).to(device), tg.tensor([0, 2, 1, 1]).to(device)

        def loss(params, a, b):
            out = func.functional_call(model, params, (a.unsqueeze(0),))
            return nn.functional.cross_entropy(out, b.unsqueeze(0))

        grads = tg.vmap(func.grad(loss), in_dims=(None, 0, 0))(params, image, label)
        assert all(g.device.type == device for g in grads.values())
        curve = func.hessian(lambda a: (a.tanh() ** 2).prod())(image[0, 0, 0])
        return [*(g.cpu().numpy() for g in grads.values()), curve.cpu().numpy()]

    with strict_cuda() if registry.class_of("cupy").why_not() is not None else nullcontext():
        got = run("cuda")
    for a, b in zip(got, run("cpu"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_vectorized_jacobians_and_batched_gradients():
    functional = tg.autograd.functional

    def f(a, b):
        return (a * b).sin(), b.sum()

    point = (x[0], x[1])
    slow = pytree.tree_leaves(functional.jacobian(f, point))
    for options in ({}, {"strategy": "forward-mode"}, {"create_graph": True}):
        for a, b in zip(
            slow, pytree.tree_leaves(functional.jacobian(f, point, vectorize=True, **options)), strict=True
        ):
            close(a, b)
    close(
        functional.hessian(lambda a: a.sin().prod(), x[0]),
        functional.hessian(lambda a: a.sin().prod(), x[0], vectorize=True, outer_jacobian_strategy="forward-mode"),
    )
    a = tg.tensor(X[0], requires_grad=True)
    y = a.sin() * a.sum()
    (rows,) = tg.autograd.grad(y, a, tg.eye(4, dtype=tg.float64), is_grads_batched=True)
    close(rows, functional.jacobian(lambda b: b.sin() * b.sum(), x[0]))


def test_recorded_programs_replay_maps():
    compiled = tg.compile(lambda a: tg.vmap(func.grad(lambda v: (v * v).sum()))(a))
    for x in (X, Y):
        close(compiled(tg.tensor(x)), tg.tensor(2 * x))
    assert compiled.captures == 1
