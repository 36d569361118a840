"""Optimizers and schedules beside PyTorch's, step by step; state that goes out and comes back."""

from __future__ import annotations

import copy
import functools
import warnings

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.core import native
from tensorgrad.optim.plan import write_numbers

BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]
SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "maximize": True}),
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    ("AdamW", {"lr": 0.02, "maximize": True}),
    ("Adafactor", {"lr": 0.02, "weight_decay": 0.1}),
]


def losses(lib, name, settings, steps=20):
    rng = np.random.default_rng(0)
    w = lib.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    b = lib.tensor(rng.standard_normal(3), requires_grad=True)
    x = lib.tensor(rng.standard_normal((8, 4)))
    optimizer = getattr(lib.optim, name)([w, b], **settings)
    schedule = lib.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((x @ w + b).tanh() ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen.append(loss.item())
    return seen, optimizer


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, settings", SETTINGS)
def test_twenty_steps_are_those_of_pytorch(name, settings, backend):
    torch = pytest.importorskip("torch")
    with tg.backend(backend):
        mine, _ = losses(tg, name, settings)
    theirs, _ = losses(torch, name, settings)
    np.testing.assert_allclose(mine, theirs, rtol=1e-9)


@pytest.mark.parametrize("name, settings", SETTINGS[1:])
def test_state_dict_continues_the_run(name, settings):
    def make():
        w = tg.tensor([1.0, -2.0], dtype=tg.float64, requires_grad=True)
        return w, getattr(tg.optim, name)([w], **settings)

    def step(w, optimizer):
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()

    w, optimizer = make()
    for _ in range(3):
        step(w, optimizer)
    again, other = make()
    with tg.no_grad():
        again.copy_(w)
    other.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        step(w, optimizer)
        step(again, other)
    assert again.tolist() == w.tolist()


def test_a_step_is_noticed_by_what_was_saved():
    w = tg.tensor([1.0], requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_clipping_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    results = []
    for lib in (tg, torch):
        p = lib.tensor([3.0, 4.0], requires_grad=True)
        (p * p).sum().backward()
        total = lib.nn.utils.clip_grad_norm_([p], 1.0)
        results.append((float(total), p.grad.tolist()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)


CLIPPED = [("SGD", {"momentum": 0.9, "weight_decay": 0.1, "maximize": True}), ("SGD", {}), ("Adam", {"amsgrad": True}),
           ("AdamW", {})]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, settings", CLIPPED)
@pytest.mark.parametrize("size", [1e-3, 10.0, float("inf"), float("nan")])
def test_a_step_that_clips_is_clipping_and_a_step(size, name, settings, backend):
    """Of the gradients of all groups with a limit together; the gradients stay what they are."""

    def run(limit):
        rng = np.random.default_rng(0)
        params = [tg.tensor(rng.standard_normal(s), dtype=tg.float32, requires_grad=True) for s in ((90, 70), (5,), ())]
        params.append(tg.tensor(rng.standard_normal(7), requires_grad=True))  # float64: a bucket of its own
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.01}]
        optimizer = getattr(tg.optim, name)(groups, lr=0.1, **settings, max_grad_norm=limit)
        for _ in range(3):
            for p in params:
                p.grad = tg.tensor(rng.standard_normal(tuple(p.shape)), dtype=p.dtype)
            params[1].grad[2] *= size
            before = [p.grad.tolist() for p in params]
            if limit is None:
                nn.utils.clip_grad_norm_(params, 0.5)
            optimizer.step()
            if limit is not None:
                np.testing.assert_equal([p.grad.tolist() for p in params], before)
        return optimizer, [p.detach().numpy() for p in params]

    with tg.backend(backend):
        optimizer, mine = run(0.5)
        _, theirs = run(None)
    for a, b in zip(mine, theirs, strict=True):  # what is scaled as it is read may be rounded once less
        tiny = 2e-7 if a.dtype == np.float32 else 1e-15
        np.testing.assert_allclose(a, b, rtol=10 * tiny, atol=tiny)
    assert [group["max_grad_norm"] for group in optimizer.state_dict()["param_groups"]] == [0.5, 0.5]


def test_a_group_without_limit_is_neither_clipped_nor_counted():
    a, b = (tg.tensor([3.0, 4.0], requires_grad=True) for _ in range(2))
    optimizer = tg.optim.SGD([{"params": [a], "max_grad_norm": 1.0}, {"params": [b]}], lr=1.0)
    for p in (a, b):
        p.grad = tg.tensor([3.0, 4.0])
    optimizer.step()
    np.testing.assert_allclose(a.tolist(), [2.4, 3.2], rtol=1e-6)
    assert b.tolist() == [0.0, 0.0]
    optimizer.param_groups[0]["differentiable"] = True
    with pytest.raises(ValueError, match="max_grad_norm and differentiable"):
        optimizer.step()


def test_a_replayed_step_clips_by_the_norm_of_its_own_gradients():
    w = tg.tensor([1.0, 2.0], requires_grad=True)
    w.grad = tg.tensor([3.0, 4.0])
    optimizer = tg.optim.AdamW([w], lr=0.1, max_grad_norm=1.0)
    twin = tg.tensor([1.0, 2.0], requires_grad=True)
    other = tg.optim.AdamW([twin], lr=0.1)

    def step():
        optimizer.step()
        return w.detach()

    compiled = tg.compile(step)
    for scale in (1.0, 30.0, 0.01):
        w.grad.copy_(tg.tensor([3.0, 4.0]) * scale)
        compiled()
        twin.grad = tg.tensor([3.0, 4.0]) * scale
        nn.utils.clip_grad_norm_([twin], 1.0)
        other.step()
        np.testing.assert_allclose(w.tolist(), twin.tolist(), rtol=1e-6)


def test_bad_settings_are_refused():
    w = nn.Parameter(tg.ones(2))
    for make in (
        lambda: tg.optim.SGD([w], lr=-1.0),
        lambda: tg.optim.Adam([w], betas=(1.5, 0.9)),
        lambda: tg.optim.AdamW([w], max_grad_norm=0.0),
        lambda: tg.optim.SGD([], lr=0.1),
        lambda: tg.optim.SGD([w * 2], lr=0.1),
        lambda: tg.optim.LBFGS([{"params": [w]}, {"params": [nn.Parameter(tg.ones(2))]}]),
    ):
        with pytest.raises(ValueError):
            make()
    for make in (lambda: tg.optim.SGD(w, lr=0.1), lambda: tg.optim.SGD([{"params": {w}}]), lambda: tg.optim.SGD([3])):
        with pytest.raises(TypeError):
            make()
    for name in ("SGD", "Adafactor", "ASGD", "LBFGS", "Muon"):
        params = [nn.Parameter(tg.ones(2, 2))]
        with pytest.raises(TypeError, match=r"lr must be a number, got '0\.1'"):
            getattr(tg.optim, name)(params, lr="0.1")
        with pytest.raises(ValueError, match="lr is beyond the range of float64"):
            getattr(tg.optim, name)(params, lr=10**400)
    slowed = tg.optim.ASGD([w], lambd=-(2**63))
    w.grad = tg.ones(2)
    with pytest.raises(ValueError, match="no real number with lambd -9223372036854775808"):
        slowed.step()
    for kind in ("Adam", "SGD", "Adagrad"):
        for pair in ({"fused": True, "foreach": True}, {"fused": True, "differentiable": True}):
            with pytest.raises(RuntimeError):
                getattr(tg.optim, kind)([w], **pair)


DIFFERENTIABLE = [
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}), ("SGD", {}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}), ("AdamW", {}), ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adagrad", {"lr_decay": 0.1}), ("Adadelta", {}), ("Adamax", {"maximize": True}), ("NAdam", {}), ("RAdam", {}),
    ("ASGD", {}), ("Rprop", {}),
]  # fmt: skip


@pytest.mark.parametrize("name, settings", DIFFERENTIABLE)
def test_gradients_flow_through_steps(name, settings):
    def trained(start, factor, rate, differentiable=True):
        p = start.clone() if differentiable else start
        optimizer = getattr(tg.optim, name)([p], lr=rate, differentiable=differentiable, **settings)
        for step in range(4):
            p.grad = factor * (1 + 0.1 * step) + 0.1
            optimizer.step()
        return p

    start, factor, rate = (tg.tensor(v, dtype=tg.float64) for v in ([1.0, -2.0, 0.5], [0.5, 1.5, 2.0], 0.1))
    plain = trained(start.clone(), factor, 0.1, differentiable=False)
    np.testing.assert_allclose(trained(start, factor, rate).tolist(), plain.tolist(), rtol=1e-9)
    for x in (start, factor, rate):
        x.requires_grad_(name not in ("Rprop", "ASGD") or x is not rate)  # there the rate is but a start
    assert tg.autograd.gradcheck(trained, (start, factor, rate))


def test_an_optimizer_of_ones_own_with_hooks():
    calls = []

    class Descent(tg.optim.Optimizer):
        def __init__(self, params, lr=tg.optim.optimizer.required):
            super().__init__(params, {"lr": lr})

        @tg.no_grad()
        def step(self, closure=None, scale=1.0):
            loss = None if closure is None else closure()
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if not state:
                        state["step"] = 0
                        state["mean"] = tg.zeros_like(p)
                    state["step"] += 1
                    state["mean"].mul_(0.5).add_(p.grad)
                    p.data.add_(state["mean"], alpha=-group["lr"] * scale)
            return loss

    w, idle = tg.tensor([1.0, 2.0], requires_grad=True), tg.zeros(1, requires_grad=True)
    with pytest.raises(ValueError, match="didn't specify a value of required"):
        Descent([w])
    optimizer = Descent([("w", w), ("idle", idle)], lr=0.5)
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: (args, {**kwargs, "scale": 2.0}))
    handle = tg.optim.optimizer.register_optimizer_step_post_hook(lambda opt, args, kwargs: calls.append(kwargs))
    optimizer.register_state_dict_post_hook(lambda opt, state: {**state, "mark": 1})
    optimizer.register_load_state_dict_pre_hook(lambda opt, state: calls.append(state["mark"]))
    w.grad = tg.ones(2)
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert w.tolist() == [-1.5, -0.5] and calls == [{"scale": 2.0}]
    state = optimizer.state_dict()
    assert state["param_groups"][0] == {"lr": 0.5, "param_names": ["w", "idle"], "params": [0, 1]}
    other = copy.deepcopy(optimizer)
    assert other.param_groups[0]["params"][0] is next(iter(other.state)) and other.param_groups[0]["params"][0] is not w
    other.register_load_state_dict_pre_hook(lambda opt, state: calls.append(state["mark"]))
    other.load_state_dict(state)
    assert calls[1:] == [1] and other.state[other.param_groups[0]["params"][0]]["step"] == 2
    schedule = tg.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def one_step(lib, optimizer, everything, *params):
    for p in everything:
        p.grad = lib.tensor([1.0, -2.0], dtype=lib.float64) if any(p is q for q in params) else None
    optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adafactor"])
def test_what_a_plan_rests_on_may_change(name):
    """Groups, parameters, gradients and state are exchanged between steps, as scripts do."""
    torch = pytest.importorskip("torch")
    results = []
    for lib in (tg, torch):
        a, b, c = (lib.ones(2, dtype=lib.float64, requires_grad=True) for _ in range(3))
        settings = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(lib.optim, name)([a], lr=0.1, **settings)

        step = functools.partial(one_step, lib, optimizer, (a, b, c))
        step(a)
        optimizer.add_param_group({"params": [b], "lr": 0.01})
        step(a, b)
        step(b)
        step(a, b)
        optimizer.param_groups[1]["params"][0] = c
        step(a, c)
        optimizer.state = type(optimizer.state)(dict)
        step(a, b, c)
        optimizer.param_groups = optimizer.param_groups[:1]
        step(a, c)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.add_param_group({"params": [b, b]})
        assert len(caught) == 1 and "duplicate parameters" in str(caught[0].message)
        if name != "SGD":  # PyTorch makes such a parameter two momenta, and keeps one
            step(b)
            step(b)
        results.append([x.tolist() for x in (a, b, c)])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-9)


def test_averages_of_weights():
    torch = pytest.importorskip("torch")
    results = []
    for lib in (tg, torch):
        swa = lib.optim.swa_utils
        model = lib.nn.Sequential(lib.nn.Linear(2, 3), lib.nn.BatchNorm1d(3)).double()
        averages = [
            swa.AveragedModel(model),
            swa.AveragedModel(model, avg_fn=swa.get_ema_avg_fn(0.9)),
            swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9), use_buffers=True),
        ]
        optimizer = lib.optim.SGD(model.parameters(), lr=0.4)
        schedule = swa.SWALR(optimizer, swa_lr=0.1, anneal_epochs=3)
        x = lib.arange(8, dtype=lib.float64).reshape(4, 2)
        rates = []
        for step in range(5):
            with lib.no_grad():
                for i, p in enumerate(model.parameters()):
                    p.fill_(0.5 + i + step**2)
            model(x)
            for average in averages:
                average.update_parameters(model)
            optimizer.step()
            schedule.step()
            rates += schedule.get_last_lr()
        swa.update_bn([x, (x + 1,)], averages[0])
        results.append([rates, *[v.tolist() for a in averages for v in a.state_dict().values()]])
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)


@pytest.mark.parametrize("name", ["RMSprop", "NAdam", "RAdam", "ASGD", "Adafactor", "Adagrad", "Rprop", "Muon"])
def test_a_replayed_step_counts_and_sees_the_present_rate(name):

    def make():
        w = tg.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
        return w, getattr(tg.optim, name)([w], lr=0.1)

    def step(w, optimizer):
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        optimizer.step()
        return loss

    (a, eager), (b, replayed) = make(), make()
    step(a, eager)
    step(b, replayed)  # makes the state, which is no part of a step
    compiled = tg.compile(step)
    for rate in (0.1, 0.05, 0.2, 0.1, 0.3, 0.1, 0.1):
        for optimizer in (eager, replayed):
            optimizer.param_groups[0]["lr"] = rate
        step(a, eager)
        compiled(b, replayed)
        np.testing.assert_allclose(b.tolist(), a.tolist(), rtol=1e-5)


@pytest.mark.parametrize("name, value", [("eps", 10.0), ("ns_steps", 2), ("nesterov", False), ("momentum", 0.5)])
def test_a_replayed_step_of_muon_sees_its_present_settings(name, value):
    seen = []
    for wrap in (tg.compile, copy.copy):
        w = tg.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
        optimizer = tg.optim.Muon([w], lr=0.1)

        def step(w=w, optimizer=optimizer):
            w.grad = None
            (w * w).sum().backward()
            optimizer.step()

        step = wrap(step)
        for k in range(6):
            if k == 3:
                optimizer.param_groups[0][name] = value
            step()
        seen.append(w.tolist())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("how", ["original", "match_rms_adamw", "spectral_unclamped"])
def test_state_dict_continues_a_run_of_muon(how):
    def make():
        w = tg.tensor(np.linspace(-1, 1, 40 * 30, dtype="float32").reshape(40, 30) ** 3, requires_grad=True)
        return w, tg.optim.Muon([w], lr=0.1, adjust_lr_fn=how)

    def step(w, optimizer):
        w.grad = None
        (w * w).sum().backward()
        optimizer.step()

    (w, optimizer), (again, other) = make(), make()
    step(w, optimizer)
    with tg.no_grad():
        again.copy_(w)
    other.load_state_dict(optimizer.state_dict())
    step(w, optimizer)
    step(again, other)
    assert again.tolist() == w.tolist()


def test_numbers_of_a_step_are_written_at_once() -> None:
    array = np.zeros(3)
    write_numbers(array, 1, np.float32(0.5), True)
    assert array.tolist() == [1, 0.5, 1]


@pytest.mark.skipif(native is None, reason="the extension is not built")
@pytest.mark.parametrize(
    "wrong", [(), (np.zeros(3), 1.0), (np.zeros(1, np.float32), 1.0), (np.zeros((1, 1)), 1.0), (np.zeros(1), "x")]
)
def test_numbers_that_do_not_fit_are_refused(wrong) -> None:
    with pytest.raises(TypeError):
        write_numbers(*wrong)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rprop_stands_still_where_a_gradient_is_nan(backend):
    torch = pytest.importorskip("torch")
    nan, inf = float("nan"), float("inf")
    runs = []
    for lib in (torch, tg):
        p = lib.nn.Parameter(lib.tensor([1.0, 2.0, 3.0]))
        optimizer = lib.optim.Rprop([p], lr=0.1)
        for g in ([1.0, 1.0, 1.0], [1.0, nan, -inf], [1.0, 1.0, 1.0], [nan, inf, -1.0], [-1.0, 1.0, 1.0]):
            p.grad = lib.tensor(g)
            with tg.backend(backend):
                optimizer.step()
        runs.append([p.detach().numpy(), *(optimizer.state[p][name].numpy() for name in ("prev", "step_size"))])
    for theirs, mine in zip(*runs, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", ("SGD", "Adam", "RMSprop", "Rprop"))
@pytest.mark.parametrize("rate", ("x", None, 1e50, -1.0, float("nan"), float("inf")), ids=str)
def test_a_rate_set_later_is_taken_where_pytorch_takes_it(name, rate):
    torch = pytest.importorskip("torch")
    runs = []
    for lib in (torch, tg):
        p = lib.nn.Parameter(lib.ones(2))
        optimizer = getattr(lib.optim, name)([p], lr=0.1)
        optimizer.param_groups[0]["lr"] = rate
        p.grad = lib.tensor([1.0, -2.0])
        try:
            optimizer.step()
        except (TypeError, RuntimeError):
            runs.append([])
        else:
            runs.append(p.tolist())
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5)
