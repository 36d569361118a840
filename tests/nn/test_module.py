"""The Module class beside PyTorch's: the same program is run with both, and what it says is compared."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

torch = pytest.importorskip("torch")


def net(ns: Any) -> Any:
    """A model with shared layers, buffers of both kinds and a nested module."""

    class Inner(ns.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", ns.zeros(2))
            self.register_buffer("scratch", ns.ones(1), persistent=False)
            self.scale = ns.nn.Parameter(ns.ones(3))
            self.register_parameter("absent", None)

        def forward(self, x):
            return x * self.scale

    class Net(ns.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = ns.nn.Linear(3, 3)
            self.inner = Inner()
            self.again = self.first
            self.last = ns.nn.Sequential(ns.nn.Linear(3, 2), ns.nn.ReLU())

        def forward(self, x, shift=0.0):
            return self.last(self.again(self.inner(self.first(x)))) + shift

    return Net()


def words(x: Any) -> str:
    """The text of a result or error, with the names of the two libraries made one."""
    text = re.sub(r"\btensorgrad\b|\btg\b", "torch", x if isinstance(x, str) else repr(x))
    text = re.sub(r"torch\.(Size|nn)\b", r"\1", text)
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def names(pairs: Any) -> list[str]:
    return [name for name, _ in pairs]


def reports(ns: Any, change: Any, **how: Any) -> Any:
    model = net(ns)
    state = model.state_dict()
    change(ns, state)
    return repr(model.load_state_dict(state, **how))


def drop(*keys: str) -> Any:
    return lambda ns, state: [state.pop(key) for key in keys]


def put(**entries: tuple[int, ...]) -> Any:
    return lambda ns, state: state.update({k.replace("__", "."): ns.zeros(*v) for k, v in entries.items()})


# program(ns) returns something whose text is compared; or raises, and class and text are
PROGRAMS: dict[str, Any] = {
    "repr": lambda ns: repr(net(ns)),
    "ParameterList": lambda ns: repr(ns.nn.Sequential(ns.nn.ParameterList([ns.zeros(2, 3), 3]))),
    "ParameterDict": lambda ns: repr(ns.nn.ParameterDict({"a": ns.zeros(2), "b": "text"})),
    "modules": lambda ns: names(net(ns).named_modules()),
    "modules, all": lambda ns: names(net(ns).named_modules(prefix="p", remove_duplicate=False)),
    "parameters": lambda ns: names(net(ns).named_parameters()),
    "parameters, all": lambda ns: names(net(ns).named_parameters("p", remove_duplicate=False)),
    "own parameters": lambda ns: names(net(ns).inner.named_parameters(recurse=False)),
    "buffers": lambda ns: names(net(ns).named_buffers()),
    "children": lambda ns: names(net(ns).named_children()),
    "state dict": lambda ns: list(net(ns).state_dict(prefix="m.")),
    "state dict's metadata": lambda ns: dict(net(ns).state_dict()._metadata),
    "state dict's class": lambda ns: type(net(ns).state_dict()),
    "vars": lambda ns: [net(ns).inner._parameters.keys(), list(net(ns)._modules), list(net(ns).inner._buffers)],
    "dir": lambda ns: [n for n in dir(ns.nn.Sequential(ns.nn.ReLU())) if n[0].isdigit()],
    "load": lambda ns: reports(ns, drop()),
    "load, missing": lambda ns: reports(ns, drop("first.weight", "inner.seen")),
    "load, missing, not strict": lambda ns: reports(ns, drop("first.weight", "last.0.bias"), strict=False),
    "load, unexpected": lambda ns: reports(ns, put(more=(2,), inner__other=(1,), first__weight__x=(1,), last=(1,))),
    "load, unexpected, not strict": lambda ns: reports(ns, put(more=(2,), inner__other=(1,)), strict=False),
    "load, sizes": lambda ns: reports(ns, put(first__weight=(2, 3), inner__seen=(1,), extra=(1,))),
    "load, sizes, not strict": lambda ns: reports(ns, put(first__weight=(2, 3)), strict=False),
    "load, no tensor": lambda ns: net(ns).load_state_dict({"first.weight": 1.5}, strict=False),
    "load, no dict": lambda ns: net(ns).load_state_dict([1]),
    "load, assign": lambda ns: reports(ns, drop(), assign=True),
    "before init": lambda ns: before_init(ns, ns.nn.Parameter(ns.zeros(1))),
    "before init, module": lambda ns: before_init(ns, ns.nn.ReLU()),
    "parameter over tensor": lambda ns: setattr(ns.nn.Linear(2, 2), "weight", 3),
    "tensor over parameter": lambda ns: setattr(ns.nn.Linear(2, 2), "weight", ns.zeros(2)),
    "number over module": lambda ns: setattr(net(ns), "first", 3),
    "number over buffer": lambda ns: setattr(net(ns).inner, "seen", 3),
    "tensor over buffer": lambda ns: after(net(ns).inner, lambda m: setattr(m, "seen", ns.ones(3)), "named_buffers"),
    "None over parameter": lambda ns: after(net(ns).inner, lambda m: setattr(m, "scale", None), "named_parameters"),
    "module over parameter": lambda ns: setattr(net(ns).inner, "scale", ns.nn.ReLU()),
    "del": lambda ns: after(net(ns), lambda m: delattr(m, "first"), "named_parameters"),
    "del nothing": lambda ns: delattr(net(ns), "nothing"),
    "no attribute": lambda ns: net(ns).nothing,
    "register, taken": lambda ns: net(ns).register_buffer("first", ns.zeros(1)),
    "register, dot": lambda ns: net(ns).register_parameter("a.b", None),
    "register, empty": lambda ns: net(ns).add_module("", ns.nn.ReLU()),
    "register, no string": lambda ns: net(ns).register_buffer(3, ns.zeros(1)),
    "register, no parameter": lambda ns: net(ns).register_parameter("x", 3),
    "register, no tensor": lambda ns: net(ns).register_buffer("x", 3),
    "register, no module": lambda ns: net(ns).add_module("x", 3),
    "register, not a leaf": lambda ns: net(ns).register_parameter("x", computed(ns)),
    "submodule": lambda ns: net(ns).get_submodule("last.0"),
    "submodule, missing": lambda ns: net(ns).get_submodule("last.7"),
    "submodule, a tensor": lambda ns: net(ns).get_submodule("first.weight"),
    "get_parameter": lambda ns: net(ns).get_parameter("inner.scale"),
    "get_parameter, a buffer": lambda ns: net(ns).get_parameter("inner.seen"),
    "get_buffer, missing": lambda ns: net(ns).get_buffer("inner.x"),
    "set_submodule": lambda ns: after(net(ns), lambda m: m.set_submodule("last.0", ns.nn.Tanh()), "named_modules"),
    "set_submodule, new": lambda ns: after(net(ns), lambda m: m.set_submodule("last.x", ns.nn.Tanh()), "named_modules"),
    "set_submodule, strict": lambda ns: net(ns).set_submodule("last.x", ns.nn.Tanh(), strict=True),
    "set_submodule, empty": lambda ns: net(ns).set_submodule("", ns.nn.Tanh()),
    "no forward": lambda ns: ns.nn.Module()(3),
    "parameter over module": lambda ns: after(
        net(ns), lambda m: setattr(m, "first", ns.nn.Parameter(ns.zeros(1))), "named_parameters"
    ),
    "module over buffer": lambda ns: after(net(ns).inner, lambda m: setattr(m, "seen", ns.nn.ReLU()), "named_modules"),
    "buffer over module": lambda ns: setattr(net(ns), "first", ns.nn.Buffer(ns.zeros(1))),
    "buffer over attribute": lambda ns: after(
        net(ns).inner, lambda m: (setattr(m, "b", 3), setattr(m, "b", ns.nn.Buffer(ns.zeros(1)))), "named_buffers"
    ),
    "train": lambda ns: net(ns).train("yes"),
    "eval": lambda ns: [m.training for m in net(ns).eval().modules()],
    "to integer": lambda ns: net(ns).to(ns.int64),
    "to channels_last": lambda ns: ns.nn.Conv2d(3, 4, 2).to(memory_format=ns.channels_last).weight.stride(),
    "to double": lambda ns: [str(x.dtype) for x in net(ns).to(ns.float64).state_dict().values()],
    "type": lambda ns: [str(x.dtype) for x in net(ns).type(ns.float64).state_dict().values()],
    "half": lambda ns: [str(x.dtype) for x in net(ns).half().state_dict().values()],
    "to_empty": lambda ns: [tuple(x.shape) for x in net(ns).to_empty(device="cpu").parameters()],
    "requires_grad_": lambda ns: [p.requires_grad for p in net(ns).requires_grad_(False).parameters()],
    "parameter": lambda ns: ns.nn.Parameter(ns.ones(2), requires_grad=False),
    "parameter of integers": lambda ns: ns.nn.Parameter(ns.ones(2, dtype=ns.int64)),
    "extra state": lambda ns: extra(ns),
    "uninitialized": lambda ns: repr(ns.nn.UninitializedParameter()),
    "uninitialized, shape": lambda ns: ns.nn.UninitializedParameter().shape,
    "uninitialized, used": lambda ns: ns.nn.UninitializedParameter() + 1,
}  # fmt: skip


def before_init(ns: Any, value: Any) -> None:
    class Early(ns.nn.Module):
        def __init__(self):
            self.x = value

    Early()


def after(module: Any, change: Any, walk: str) -> list[str]:
    change(module)
    return [*names(getattr(module, walk)()), *module.state_dict()]


def computed(ns: Any) -> Any:
    x = ns.nn.Parameter(ns.ones(1))
    y = x * 2
    y.__class__ = type(x)
    return y


def extra(ns: Any) -> Any:
    class Counting(ns.nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    a, b = ns.nn.Sequential(Counting()), ns.nn.Sequential(Counting())
    a[0].count = 5
    state = a.state_dict()
    report = b.load_state_dict(state)
    return list(state), report, b[0].count, ns.nn.ReLU().load_state_dict(state, strict=False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    seen = []
    for ns in (torch, tg):
        try:
            seen.append(PROGRAMS[name](ns))
        except Exception as error:  # noqa: BLE001 - its class and text are what is compared
            seen.append(error)
    theirs, ours = seen
    if not isinstance(theirs, Exception):
        assert words(ours) == words(theirs)
        return
    assert isinstance(ours, type(theirs)), (repr(theirs), repr(ours))
    if name.startswith("load"):
        assert words(str(ours)) == words(str(theirs))
    else:  # the same beginning: ours may say more
        count = 2 if "over" in name else 3
        assert words(str(ours)).lower().split()[:count] == words(str(theirs)).lower().split()[:count]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_hooks() -> None:
    """Every kind of hook, in the order in which it is called, and what it may change."""
    logs = []
    for ns in (torch, tg):
        log: list[Any] = []
        model = net(ns).double()
        with ns.no_grad():
            for i, p in enumerate(model.parameters()):
                p.fill_(0.1 * (i + 1))

        def note(what: str, given: Any = None, log: list[Any] = log) -> Any:
            def hook(*args: Any, **kwargs: Any) -> Any:
                log.append((what, [shape(x) for x in args[1:]], sorted(kwargs)))
                return given(*args) if given else None

            return hook

        glob = ns.nn.modules.module
        handles = [
            glob.register_module_forward_pre_hook(note("everywhere, before")),
            glob.register_module_forward_hook(note("everywhere, after")),
            glob.register_module_full_backward_pre_hook(note("everywhere, backward before")),
            glob.register_module_full_backward_hook(note("everywhere, backward")),
            model.register_forward_pre_hook(note("before")),
            model.register_forward_pre_hook(note("first before"), prepend=True),
            model.register_forward_pre_hook(
                note("with kwargs", lambda m, a, k: (a, {**k, "shift": 1.0})), with_kwargs=True
            ),
            model.inner.register_forward_hook(note("inner", lambda m, a, out: out * 2)),
            model.register_forward_hook(note("after, kwargs"), with_kwargs=True),
            model.last.register_full_backward_pre_hook(note("last, backward before", lambda m, g: (g[0] * 3,))),
            model.last.register_full_backward_hook(note("last, backward", lambda m, gi, go: (gi[0] * 2,))),
            model.first.register_full_backward_hook(note("first, backward")),
        ]
        assert len(model._forward_pre_hooks) == 3 and len(model.last._backward_hooks) == 1
        out = model(ns.ones(2, 3, dtype=ns.float64))
        out.sum().backward()
        log.append([float(p.grad.sum()) for p in model.parameters()])
        for handle in handles:
            handle.remove()
        log.append(float(model(ns.ones(1, 3, dtype=ns.float64)).sum().detach()))
        logs.append(log)
    theirs, ours = logs
    assert [x for x in ours if isinstance(x, tuple)] == [x for x in theirs if isinstance(x, tuple)]
    np.testing.assert_allclose(ours[-2], theirs[-2], rtol=1e-9)
    np.testing.assert_allclose(ours[-1], theirs[-1], rtol=1e-9)


def shape(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return [shape(part) for part in x]
    return tuple(x.shape) if hasattr(x, "shape") else x


def test_getattr_asked_by_name() -> None:
    net = tg.nn.BatchNorm1d(2)
    net.layer = tg.nn.Linear(1, 1)
    for name in ("weight", "running_mean", "layer"):
        assert net.__getattr__(name) is getattr(net, name)
    for name in ("training", "missing"):
        with pytest.raises(AttributeError, match=name):
            net.__getattr__(name)


def test_hooks_that_raise_and_that_are_always_called() -> None:
    for ns in (torch, tg):
        seen = []

        class Bad(ns.nn.Module):
            def forward(self, x):
                raise KeyError("bad")

        model = Bad()
        model.register_forward_hook(lambda m, a, out: seen.append("never"))  # noqa: B023
        model.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)  # noqa: B023
        with pytest.raises(KeyError):
            model(1)
        assert seen == [None]


def test_state_dict_hooks() -> None:
    logs = []
    for ns in (torch, tg):
        log: list[Any] = []
        model = net(ns)
        model.inner.register_state_dict_pre_hook(lambda m, prefix, keep: log.append(("pre", prefix, keep)))  # noqa: B023
        model.inner.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update({prefix + "more": 1}))
        model.last._register_state_dict_hook(lambda m, state, prefix, meta: meta.update(kind="last"))
        state = model.state_dict(keep_vars=True)
        state.pop("inner.seen")
        log += [list(state), dict(state._metadata), state["first.weight"] is model.first.weight]

        def rename(module: Any, state: Any, prefix: str, *rest: Any) -> None:
            state[prefix + "seen"] = state.pop(prefix + "old")

        state.pop("inner.more")
        model.inner.register_load_state_dict_pre_hook(rename)
        model.first._register_load_state_dict_pre_hook(lambda state, prefix, *rest: log.append(prefix))  # noqa: B023
        model.last.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
        model.register_load_state_dict_post_hook(lambda m, keys: log.append(repr(keys)))  # noqa: B023
        state["inner.old"] = ns.ones(2)
        state.pop("last.0.weight")
        log += [repr(model.load_state_dict(state)), model.inner.seen.tolist()]
        logs.append(log)
    assert words(logs[1]) == words(logs[0])


def test_registration_hooks() -> None:
    logs = []
    for ns in (torch, tg):
        log: list[Any] = []
        glob = ns.nn.modules.module
        handles = [
            glob.register_module_parameter_registration_hook(lambda m, name, p: log.append(("p", name))),  # noqa: B023
            glob.register_module_buffer_registration_hook(lambda m, name, b: log.append(("b", name))),  # noqa: B023
            glob.register_module_module_registration_hook(lambda m, name, c: log.append(("m", name))),  # noqa: B023
        ]
        net(ns)
        for handle in handles:
            handle.remove()
        net(ns)
        logs.append(log)
    assert logs[0] == logs[1]


class Pickled(tg.nn.Module):
    """At the top of a file, where pickle finds it."""

    def __init__(self):
        super().__init__()
        self.layer = tg.nn.Linear(2, 2)
        self.tied = self.layer
        self.register_buffer("kept", tg.ones(1))


def test_copies() -> None:
    model = Pickled()
    model.layer.register_forward_hook(print)
    model.layer.weight.grad = tg.ones(2, 2)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.tied is again.layer and again.layer.weight is not model.layer.weight
        assert again.layer.weight.tolist() == model.layer.weight.tolist()
        assert len(again.layer._forward_hooks) == 1 and list(again.state_dict()) == list(model.state_dict())
    assert copy.deepcopy(model).layer.weight.grad.tolist() == [[1, 1], [1, 1]]
    lazy = copy.deepcopy(tg.nn.UninitializedParameter(dtype=tg.float64))
    assert lazy.dtype == tg.float64 and pickle.loads(pickle.dumps(lazy)).dtype == tg.float64


def test_members_are_dicts() -> None:
    """What scripts do with ``_parameters`` and its like."""
    model = tg.nn.Linear(2, 2)
    weight = model._parameters.pop("weight")
    assert not hasattr(model, "weight") and list(model._parameters) == ["bias"]
    model.weight = weight.detach() * 2
    assert list(model.state_dict()) == ["bias"]
    model = tg.nn.Sequential(tg.nn.ReLU(), tg.nn.Tanh())
    model._modules = OrderedDict((k, model._modules[k]) for k in reversed(model._modules))
    assert repr(model) == "Sequential(\n  (1): Tanh()\n  (0): ReLU()\n)"

    class Elsewhere(tg.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.inner, name)

    assert Elsewhere(tg.nn.Linear(3, 2)).out_features == 2


class LazyScale(tg.nn.modules.lazy.LazyModuleMixin, tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = tg.nn.UninitializedParameter()
        self.shift = tg.nn.UninitializedBuffer()

    def initialize_parameters(self, x):
        self.weight.materialize(x.shape[-1:])
        self.shift.materialize(x.shape[-1:])
        with tg.no_grad():
            self.weight.fill_(2.0)
            self.shift.zero_()

    def forward(self, x):
        return x * self.weight + self.shift


def test_lazy_module() -> None:
    model, fresh = LazyScale().double(), LazyScale()
    assert model.has_uninitialized_params()
    assert model(tg.ones(2, 3, dtype=tg.float64)).tolist() == [[2, 2, 2]] * 2
    assert type(model.weight) is tg.nn.Parameter and model.weight.dtype == tg.float64
    assert not model.has_uninitialized_params() and not model._forward_pre_hooks
    fresh.load_state_dict(model.state_dict())
    assert fresh.weight.tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="no values in the checkpoint"):
        model.load_state_dict(LazyScale().state_dict())


@pytest.mark.parametrize(
    "path",
    [
        "activation.MultiheadAttention", "batchnorm._BatchNorm", "batchnorm.BatchNorm2d", "container.Sequential",
        "conv._ConvNd", "conv.Conv2d", "dropout._DropoutNd", "dropout.Dropout", "flatten.Flatten", "linear.Linear",
        "instancenorm._InstanceNorm", "linear.NonDynamicallyQuantizableLinear", "loss._Loss", "loss._WeightedLoss",
        "module.Module", "loss.CrossEntropyLoss", "module._IncompatibleKeys", "normalization.LayerNorm",
        "padding.ZeroPad2d", "pooling.MaxPool2d", "rnn.RNNBase", "rnn.LSTM", "rnn.RNNCellBase", "sparse.Embedding",
        "distance.CosineSimilarity", "transformer.TransformerEncoder", "transformer._get_clones", "utils._pair",
        "utils._ntuple", "Conv2d", "Module", "utils.consume_prefix_in_state_dict_if_present",
        "module.register_module_forward_hook", "lazy.LazyModuleMixin",
    ],
)  # fmt: skip
def test_paths(path: str) -> None:
    """``from torch.nn.modules.X import Y``, with ours in torch's place."""
    home, _, name = f"nn.modules.{path}".rpartition(".")
    assert hasattr(importlib.import_module(f"torch.{home}"), name)
    found = getattr(importlib.import_module(f"tensorgrad.{home}"), name)
    if hasattr(tg.nn, name):
        assert found is getattr(tg.nn, name)


def test_losses_of_users() -> None:
    """A subclass of a loss takes what arguments it likes."""
    seen = []
    for ns in (torch, tg):

        class Focal(ns.nn.CrossEntropyLoss):
            def __init__(self, gamma, **kwargs):
                super().__init__(reduction="none", **kwargs)
                self.gamma = gamma

            def forward(self, input, target):
                loss = super().forward(input, target)
                return (loss * (1 - (-loss).exp()) ** self.gamma).mean()

        class Weighted(ns.nn.modules.loss._WeightedLoss):
            def forward(self, input, target):
                return (input.sum(1) * self.weight[target]).mean() if self.reduction == "mean" else None

        x, t = ns.tensor([[1.0, 2.0], [3.0, -1.0]]), ns.tensor([0, 1])
        seen.append([Focal(2.0, label_smoothing=0.1)(x, t).item(), Weighted(ns.tensor([1.0, 3.0]))(x, t).item()])
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-6)


def test_paths_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match=r"tensorgrad has no torch\.nn\.modules\.conv\._Nothing"):
        getattr(tg.nn.modules.conv, "_Nothing")  # noqa: B009
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tensorgrad.nn.modules.nothing")
    assert tg.nn.modules.utils._pair(3) == (3, 3) and tg.nn.modules.utils._triple([1, 2, 3]) == (1, 2, 3)
    assert isinstance(tg.nn.BatchNorm1d(2), tg.nn.modules.batchnorm._BatchNorm)
    state = OrderedDict({"module.a": 1, "b": 2})
    tg.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    assert dict(state) == {"a": 1, "b": 2}
