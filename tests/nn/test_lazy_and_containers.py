"""Layers that learn their width from an input, SyncBatchNorm, and parameters kept in dicts and lists."""

from __future__ import annotations

import copy
import pickle

import pytest

import tensorgrad as tg
from tensorgrad import nn


def test_a_lazy_network_becomes_an_ordinary_one() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    assert net[0].has_uninitialized_params()
    assert net(tg.randn(2, 3, 5, 5)).shape == (2, 2)
    assert [type(layer) for layer in net] == [nn.Conv2d, nn.BatchNorm2d, nn.Flatten, nn.Linear]
    assert (net[0].in_channels, net[1].num_features, net[3].in_features) == (3, 4, 36)
    other = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    other.load_state_dict(net.state_dict())  # the shapes come with the values
    x = tg.randn(2, 3, 5, 5)
    assert tg.equal(other.eval()(x), net.eval()(x))
    assert repr(other) == repr(net)


def test_a_lazy_convolution_refuses_channels_that_its_groups_do_not_divide() -> None:
    with pytest.raises(ValueError, match="divisible"):
        nn.LazyConv1d(4, 1, groups=2)(tg.ones(1, 3, 4))
    with pytest.raises(RuntimeError, match="dimensions"):
        nn.LazyConv1d(4, 1)(tg.ones(3))


def test_batch_norms_become_synchronized_ones_with_the_same_state() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4, affine=False)))
    net(tg.randn(8, 3))
    x = tg.randn(8, 3)
    want = net.eval()(x)
    weight = net[1].weight
    made = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert made is net
    assert type(made[1]) is nn.SyncBatchNorm
    assert type(made[2][0]) is nn.SyncBatchNorm
    assert made[1].weight is weight
    assert tg.equal(made(x), want)
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(3))) is nn.SyncBatchNorm


def test_a_parameter_dict_is_a_dict() -> None:
    d = nn.ParameterDict({"a": tg.ones(2), "b": tg.zeros(3)})
    assert list(d) == ["a", "b"]
    assert list(reversed(d)) == ["b", "a"]
    assert d.get("c") is None
    assert d.setdefault("c", tg.ones(1)).shape == (1,)
    assert list((d | {"e": tg.ones(1)}).keys()) == ["a", "b", "c", "e"]
    assert list(({"e": tg.ones(1)} | d).keys()) == ["e", "a", "b", "c"]
    assert d.popitem()[0] == "c"
    assert d.pop("a").shape == (2,)
    d |= {"f": tg.ones(4)}
    assert [name for name, _ in d.named_parameters()] == ["b", "f"]
    assert list(d.copy().keys()) == ["b", "f"]
    assert list(nn.ParameterDict().fromkeys(["x", "y"], tg.ones(1))) == ["x", "y"]
    d.clear()
    assert len(d) == 0
    assert not list(d.parameters())
    with pytest.raises(KeyError):
        d.popitem()
    with pytest.raises(TypeError):
        d[0] = tg.ones(1)


def test_the_losses_of_old_programs_say_what_replaces_their_arguments() -> None:
    x, t = tg.tensor([1.0, 2.0]), tg.tensor([0.0, 0.0])
    with pytest.warns(UserWarning, match="reduction='sum'"):
        assert nn.functional.mse_loss(x, t, False).item() == 5
    with pytest.warns(UserWarning, match="reduction='none'"):
        assert nn.MSELoss(reduce=False)(x, t).tolist() == [1, 4]


def test_adaptive_softmax_is_a_distribution() -> None:
    layer = nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 7], div_value=2.0).double()
    x = tg.randn(5, 6, dtype=tg.float64)
    logs = layer.log_prob(x)
    assert tg.allclose(logs.exp().sum(1), tg.ones(5, dtype=tg.float64))
    target = tg.tensor([0, 5, 11, 2, 8])
    output, loss = layer(x, target)
    assert tg.allclose(output, logs.gather(1, target.unsqueeze(1)).squeeze(1))
    assert tg.allclose(loss, -output.mean())
    assert tg.equal(layer.predict(x), logs.argmax(1))
    with pytest.raises(RuntimeError, match="Target values"):
        layer(x, target + 4)
    with pytest.raises(ValueError, match="cutoffs"):
        nn.AdaptiveLogSoftmaxWithLoss(6, 12, [7, 3])


def test_functions_of_layers_in_the_main_namespace() -> None:
    x, w, b = tg.randn(2, 4, 3), tg.randn(4), tg.randn(4)
    mean, var = tg.randn(4), tg.rand(4)
    F = nn.functional
    assert tg.equal(
        tg.batch_norm(x, w, b, mean, var, False, 0.1, 1e-5, False), F.batch_norm(x, mean, var, w, b, False, 0.1, 1e-5)
    )
    assert tg.equal(tg.instance_norm(x, w, b, None, None, True, 0.1, 1e-5, False), F.instance_norm(x, None, None, w, b))
    assert tg.equal(tg.layer_norm(x, (3,)), F.layer_norm(x, (3,)))
    assert tg.equal(tg.group_norm(x, 2, w, b), F.group_norm(x, 2, w, b))
    table = tg.randn(5, 2)
    assert tg.equal(tg.embedding(table, tg.tensor([1, 4])), table[tg.tensor([1, 4])])
    assert tg.constant_pad_nd(x, (1, 0), 2.0)[0, 0, 0].item() == 2
    assert tg.pixel_shuffle(tg.randn(1, 4, 2, 2), 2).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize(
    "kind, shape", (("BatchNorm1d", (9, 5)), ("BatchNorm1d", (4, 5, 3)), ("BatchNorm2d", (4, 5, 7, 7)))
)
def test_sequential_joins_batch_norm_and_relu(kind, shape, training):
    """One kernel pair, the numbers of two layers; whoever looks in between gets the two layers."""

    def run(hooked):
        tg.manual_seed(0)
        model = tg.nn.Sequential(getattr(tg.nn, kind)(5), tg.nn.ReLU(), tg.nn.Flatten())
        model.train(training)
        seen = []
        if hooked:
            model[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
        x = tg.randn(*shape, requires_grad=True)
        y = model(x)
        (g,) = tg.autograd.grad((y * y).sum(), x, create_graph=True)
        (g.sin().sum() + y.exp().sum()).backward()
        parts = [y, g, x.grad, *(p.grad for p in model.parameters()), *model.buffers()]
        return parts, y, seen

    joined, y, _ = run(False)
    apart, _, seen = run(True)
    assert seen and bool((seen[0] < 0).any())
    for a, b in zip(joined, apart, strict=True):
        assert tg.allclose(a, b, rtol=1e-5, atol=1e-6)
    if training:
        assert [op for op in _ops_of(y) if "batch_norm" in op] == ["batch_norm_relu"]


def _ops_of(y):
    names, node = [], y.grad_fn
    while getattr(node, "op", None) is not None:
        names.append(node.op.name)
        node = node.edges[0]
    return names


def test_a_container_from_elsewhere_still_runs_its_members():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    x = tg.ones(2, 3)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again(x).tolist() == model(x).tolist() != x.tolist()
