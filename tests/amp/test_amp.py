"""Mixed precision beside PyTorch's on the CPU: which op computes in what, training, scaling, the switches."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.backends.generic.reduce import wide
from tensorgrad.dtypes import numpy_dtype


def both():
    return tg, pytest.importorskip("torch")


LONG = [0, 2, 1]
OPS = {
    "linear": lambda t, F, x, y: F.linear(x, y), "matmul": lambda t, F, x, y: x @ y.t(),
    "mm": lambda t, F, x, y: t.mm(x, y.t()), "addmm": lambda t, F, x, y: t.addmm(t.ones(3, 3), x, y.t()),
    "baddbmm": lambda t, F, x, y: t.baddbmm(t.ones(1, 3, 3), x[None], y.t()[None]),
    "bmm": lambda t, F, x, y: t.bmm(x[None], y.t()[None]),     "einsum": lambda t, F, x, y: t.einsum("ij,kj->ik", x, y),
    "conv1d": lambda t, F, x, y: F.conv1d(x[None], y[:, :, None].transpose(0, 2)[:1].expand(1, 3, 1)),
    "conv2d": lambda t, F, x, y: F.conv2d(x[None, None], y[None, None, :2, :2]),
    "conv_transpose2d": lambda t, F, x, y: F.conv_transpose2d(x[None, None], y[None, None, :2, :2]),
    "attention": lambda t, F, x, y: F.scaled_dot_product_attention(x[None], y[None], y[None]),
    "prelu": lambda t, F, x, y: F.prelu(x, y[0, :1]), "relu": lambda t, F, x, y: F.relu(x),
    "softmax": lambda t, F, x, y: F.softmax(x, -1), "layer_norm": lambda t, F, x, y: F.layer_norm(x, (4,)),
    "add": lambda t, F, x, y: x + y, "sum": lambda t, F, x, y: x.sum(), "exp": lambda t, F, x, y: x.exp(),
    "mse": lambda t, F, x, y: F.mse_loss(x, y), "l1": lambda t, F, x, y: F.l1_loss(x, y),
    "mse_none": lambda t, F, x, y: F.mse_loss(x, y, reduction="none"),
    "smooth_l1": lambda t, F, x, y: F.smooth_l1_loss(x, y), "huber": lambda t, F, x, y: F.huber_loss(x, y),
    "kl": lambda t, F, x, y: F.kl_div(x, y, reduction="batchmean"),
    "bce": lambda t, F, x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid().float()),
    "bce_logits": lambda t, F, x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()),
    "cross_entropy": lambda t, F, x, y: F.cross_entropy(x, t.tensor(LONG)),
    "nll": lambda t, F, x, y: F.nll_loss(x, t.tensor(LONG)),
    "poisson": lambda t, F, x, y: F.poisson_nll_loss(x, y), "prod": lambda t, F, x, y: x.prod(),
    "avg_pool3d": lambda t, F, x, y: F.avg_pool3d(x[None, None], (1, 1, 2)),
    "avg_pool2d": lambda t, F, x, y: F.avg_pool2d(x[None], 2),
    "max_pool2d": lambda t, F, x, y: F.max_pool2d(x[None], 2),
    "reflection_pad": lambda t, F, x, y: F.pad(x[None], (1, 1), mode="reflect"),
    "pad": lambda t, F, x, y: F.pad(x, (1, 1)), "cat": lambda t, F, x, y: t.cat([x, y.float()]),
    "stack": lambda t, F, x, y: t.stack([x, y.float()]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_ops_compute_in_the_dtype_of_pytorch(name):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 4)).astype(np.float32)
    for kinds in (("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("float64", "float64")):
        results = []
        for lib in both():
            x, y = (lib.tensor(v, dtype=getattr(lib, kind)) for v, kind in zip((a, b), kinds, strict=True))
            x.requires_grad_()
            y.requires_grad_()
            try:
                with lib.autocast("cpu"):
                    out = OPS[name](lib, lib.nn.functional, x, y)
                out.float().sum().backward()
                grads = [None if p.grad is None else (str(p.grad.dtype), p.grad.float().tolist()) for p in (x, y)]
                results.append((str(out.dtype).rpartition(".")[2], out.detach().float().tolist(), grads))
            except (RuntimeError, TypeError):
                results.append(None)
        mine, theirs = results
        if theirs is None:  # what PyTorch can't compute there
            continue
        assert mine is not None and mine[0] == theirs[0], f"{kinds}: {mine and mine[0]}, PyTorch has {theirs[0]}"
        np.testing.assert_allclose(mine[1], theirs[1], rtol=0.03, atol=0.03)
        for g, w in zip(mine[2], theirs[2], strict=True):
            assert (g is None) == (w is None)
            if w is not None:
                assert g[0].rpartition(".")[2] == w[0].rpartition(".")[2]
                np.testing.assert_allclose(g[1], w[1], rtol=0.06, atol=0.06)


def models(nn):
    yield nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), (16,)
    yield (
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 4),
        ),
        (1, 8, 8),
    )
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    yield nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Flatten(),
                        nn.Linear(80, 4)), (5, 8)  # fmt: skip


def train(lib, model, x, labels, dtype, steps=8):
    optimizer = lib.optim.Adam(model.parameters(), lr=0.01)
    scaler = lib.amp.GradScaler("cpu", init_scale=256.0, enabled=dtype == "float16")
    x, labels = lib.tensor(x), lib.tensor(labels)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        with lib.autocast("cpu", dtype=getattr(lib, dtype)):
            loss = lib.nn.functional.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_models_train_as_in_pytorch(which, dtype):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs, shape = list(models(torch.nn))[which]
    mine, _ = list(models(tg.nn))[which]
    mine.load_state_dict({k: tg.from_numpy(v.numpy().copy()) for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((12, *shape)).astype(np.float32), rng.integers(0, 4, 12)
    got, want = train(tg, mine, x, labels, dtype), train(torch, theirs, x, labels, dtype)
    np.testing.assert_allclose(got, want, rtol=0.05, atol=0.02)
    assert want[-1] < 0.8 * want[0]
    assert all(p.dtype is tg.float32 and p.grad.dtype is tg.float32 for p in mine.parameters())


def test_regions_nest_and_end():
    layer = tg.nn.Linear(3, 2)
    x = tg.ones(1, 3)
    assert not tg.is_autocast_enabled("cpu") and tg.get_autocast_dtype("cpu") is tg.bfloat16
    with tg.autocast("cpu", dtype=tg.float16):
        assert tg.is_autocast_enabled("cpu") and not tg.is_autocast_enabled("cuda")
        assert layer(x).dtype is tg.float16
        with tg.amp.autocast("cpu", enabled=False):
            assert layer(x).dtype is tg.float32 and not tg.is_autocast_cpu_enabled()
        with tg.autocast(device_type="cpu", dtype=tg.bfloat16):
            assert layer(x).dtype is tg.bfloat16
        assert tg.get_autocast_dtype("cpu") is tg.float16

        @tg.autocast("cpu", enabled=False)
        def plain():
            return layer(x)

        assert plain().dtype is tg.float32
    with pytest.raises(ZeroDivisionError), tg.autocast("cpu"):
        1 / 0  # noqa: B018
    assert layer(x).dtype is tg.float32 and tg.get_autocast_dtype("cpu") is tg.bfloat16
    with pytest.warns(UserWarning, match="target dtype is not supported"):
        region = tg.autocast("cpu", dtype=tg.float64)
    with region:
        assert layer(x).dtype is tg.float32
    with pytest.raises(RuntimeError, match="unsupported autocast device_type"):
        tg.autocast("abacus")
    with pytest.raises(ValueError):
        tg.autocast(3)
    with pytest.raises(TypeError):
        tg.autocast("cpu")(3)


def test_casts_of_parameters_are_kept_and_never_old():
    w = tg.ones(2, 2, requires_grad=True)
    x = tg.ones(1, 2)
    with tg.autocast("cpu"):
        with tg.no_grad():
            x @ w
        y = x @ w + x @ w  # the cast made without recording is not used
        with tg.no_grad():
            w.mul_(3)
        z = x @ w
    assert z.tolist() == [[6.0, 6.0]]
    y.sum().backward()
    assert w.grad.tolist() == [[2.0, 2.0]] * 2


def test_functions_of_ones_own():
    class Product(tg.autograd.Function):
        @staticmethod
        @tg.amp.custom_fwd(device_type="cpu", cast_inputs=tg.float32)
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        @tg.amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            return g @ b.t(), a.t() @ g

    a, b = tg.ones(2, 2, requires_grad=True), tg.ones(2, 2, dtype=tg.bfloat16, requires_grad=True)
    with tg.autocast("cpu"):
        y = Product.apply(a, b)
    assert y.dtype is tg.float32
    y.sum().backward()
    assert a.grad.dtype is tg.float32


def test_scaling_is_that_of_pytorch():
    results = []
    for lib in both():
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        optimizer = lib.optim.SGD([x], lr=0.1)
        scaler = lib.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2, growth_factor=4.0)
        seen = []
        for step in range(7):
            optimizer.zero_grad()
            factor = float("inf") if step == 3 else 1.0
            scaler.scale((x * x * factor).sum()).backward()
            if step % 2:
                scaler.unscale_(optimizer)
                with pytest.raises(RuntimeError):
                    scaler.unscale_(optimizer)
            scaler.step(optimizer)
            with pytest.raises(RuntimeError):
                scaler.step(optimizer)
            scaler.update()
            seen += [scaler.get_scale(), *x.tolist()]
        scaler.update(8.0)
        state = scaler.state_dict()
        again = lib.amp.GradScaler("cpu")
        again.load_state_dict(state)
        scaled = again.scale([lib.ones(1), (lib.ones(1), lib.ones(1))])
        results.append([*seen, *map(float, state.values()), again.get_scale(), float(scaled[1][0])])
        names = list(state)
        off = lib.amp.GradScaler("cpu", enabled=False)
        assert off.scale(x) is x and off.get_scale() == 1.0 and off.state_dict() == {} and not off.is_enabled()
        for bad in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}):
            with pytest.raises(AssertionError):
                lib.amp.GradScaler("cpu", **bad)
        with pytest.raises(AssertionError):
            lib.amp.GradScaler("cpu").step(optimizer)
    assert names == ["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_a_checkpoint_runs_again_as_it_ran():
    from tensorgrad.utils.checkpoint import checkpoint

    layer = tg.nn.Linear(4, 4)
    x = tg.randn(3, 4, requires_grad=True)
    grads = []
    for run in (lambda f, *a: f(*a), checkpoint):
        with tg.autocast("cpu"):
            loss = run(lambda t: layer(layer(t).tanh()).sin(), x).sum()
        loss.backward()
        grads.append([x.grad.tolist(), layer.weight.grad.tolist()])
        x.grad = layer.weight.grad = None
    assert grads[0] == grads[1]


def test_the_older_names():
    if not tg.cuda.is_available():
        with pytest.warns(UserWarning, match="CUDA is not available"):
            assert not tg.cuda.amp.GradScaler().is_enabled()
        with pytest.warns(UserWarning, match="CUDA is not available"), tg.cuda.amp.autocast():
            assert tg.nn.Linear(2, 2)(tg.ones(1, 2)).dtype is tg.float32
    with tg.cpu.amp.autocast():
        assert (tg.ones(2, 2) @ tg.ones(2, 2)).dtype is tg.bfloat16


BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex64"])
def test_gradients_are_unscaled_and_infinite_ones_found(dtype, large, backend):
    kernels = registry.get(backend).raw
    rng = np.random.default_rng(0)
    kind = numpy_dtype(dtype)

    def draw(*shape):
        return rng.normal(size=shape).astype("complex64" if dtype == "complex64" else "float32").astype(kind)

    scale = np.array(24.0, np.float32)
    shapes = [(3, 4), (0,), (), (70_000,), (300, 200)] if large else [(3, 4), (0,), (), (7,)]
    for poison in (None, np.inf, -np.inf, np.nan):
        for which in range(len(shapes)):
            grads = [draw(*shape) for shape in shapes]
            grads[-1] = grads[-1][::-1]  # any strides
            if poison is not None and grads[which].size:
                grads[which][(-1,) * grads[which].ndim] = poison * (1j if dtype == "complex64" and which else 1)
            before = [g.copy() for g in grads]
            found = kernels.amp_unscale_(grads, scale)
            assert found.shape == () and found.dtype == bool
            assert bool(found) == (poison is not None and grads[which].size > 0)
            if poison is None:
                wanted = [(wide(g) * wide(g).real.dtype.type(1 / 24.0)).astype(kind) for g in before]
                assert all(map(np.array_equal, grads, wanted))
    small = np.array(2.0**-10, np.float32)
    assert kernels.amp_unscale_([np.full(3, 3e38, kind)], small) == (dtype != "float64")  # infinite once it is divided
    assert not kernels.amp_unscale_([np.full(3, 3e30, kind)], small)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_scale_follows_what_was_found(backend):
    kernels = registry.get(backend).raw
    scale, tracker = np.array(8.0, np.float32), np.array(0, np.int32)
    seen = []
    for found in ([0], [0], [0, 0], [0, 1], [1], [0], [0, 0, 0], [0]):
        flags = [np.array(bool(x)) for x in found]
        kernels.amp_update_scale_(scale, flags, tracker, growth_factor=3.0, backoff_factor=0.25, growth_interval=2)
        seen.append((float(scale), int(tracker)))
    assert seen == [(8, 1), (24, 0), (24, 1), (6, 0), (1.5, 0), (1.5, 1), (4.5, 0), (4.5, 1)]
    scale[...] = 3e38
    kernels.amp_update_scale_(scale, flags, tracker, growth_factor=3.0, backoff_factor=0.25, growth_interval=2)
    assert scale == np.float32(3e38) and tracker == 0  # it would be infinite


def test_a_scale_of_another_kind_is_refused():
    scale, found, tracker = np.array(8.0, np.float32), [np.array(False)], np.array(0, np.int32)
    how = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2}
    for backend in ("null", *(name for name in BACKENDS if name == "cpp")):
        kernels = registry.get(backend).raw
        for bad in ((scale.astype(np.float64), found, tracker), (scale, [np.zeros(2, bool)], tracker),
                    (scale, found, np.zeros((), np.int64))):  # fmt: skip
            with pytest.raises((TypeError, ValueError, RuntimeError), match="amp_update_scale_"):
                kernels.amp_update_scale_(*bad, **how)


def test_a_gradient_that_several_groups_share_is_unscaled_once():
    x = tg.ones(2, requires_grad=True)
    y = tg.ones(2, requires_grad=True)
    optimizer = tg.optim.SGD([x, y], lr=0.5)
    scaler = tg.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((x + y).sum()).backward()
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [x]})
    scaler.unscale_(optimizer)
    assert x.grad.tolist() == y.grad.tolist() == [1.0, 1.0]
