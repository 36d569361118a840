"""Averages of weights (``AveragedModel``) in compiled steps: the count decides, and no program rests on its value."""

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

BACKENDS = [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None]


def network():
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 1))


def averaged(kind, inside, compiled):
    model = network()
    more = {"mean": {}, "ema": {"avg_fn": get_ema_avg_fn(0.9)}, "lists": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}}
    average = AveragedModel(model, use_buffers=kind == "mean", **more[kind])
    optimizer = tg.optim.Adam(model.parameters(), lr=0.1)

    def update():
        average.update_parameters(model)

    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        if inside:
            average.update_parameters(model)
        return loss

    if compiled:
        step, update = tg.compile(step), tg.compile(update)
    return step, update, average, model


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", ["mean", "ema", "lists"])
def test_one_program_averages_weights_in_all_calls_but_the_first(kind, inside, backend):
    with tg.backend(backend):
        found = []
        for compiled in (True, False):
            step, update, average, model = averaged(kind, inside, compiled)
            losses = []
            for i in range(9):
                losses.append(step(tg.arange(15.0).reshape(5, 3) / (i + 1)).item())
                if not inside:
                    update()
            if compiled:
                stats = (step if inside else update).stats()
                assert (stats["captures"], stats["replays"], stats["eager"]) == (2, 7, 0)
            assert average.n_averaged.dtype == tg.int64 and average.n_averaged.item() == 9
            state = {**average.state_dict(), **{f"own.{k}": v for k, v in model.state_dict().items()}}
            found.append((losses, {name: t.tolist() for name, t in state.items()}))
        if backend == "numpy":
            assert found[0] == found[1]
        else:
            assert np.allclose(found[0][0], found[1][0], rtol=1e-5)
            for name, values in found[0][1].items():
                assert np.allclose(values, found[1][1][name], rtol=1e-4, atol=1e-5)


def test_averages_that_begin_again_are_set_anew():
    model = nn.Linear(2, 1)
    average = AveragedModel(model)
    update = tg.compile(average.update_parameters)
    for _ in range(4):
        update(model)
    average.n_averaged.zero_()
    with tg.no_grad():
        model.weight.fill_(7.0)
    update(model)
    assert average.module.weight.tolist() == [[7.0, 7.0]] and average.n_averaged.item() == 1
    assert update.stats()["captures"] == 2


def test_averages_behind_a_step_that_a_scaler_may_leave_out():
    model = nn.Linear(2, 1)
    average, optimizer = AveragedModel(model), tg.optim.Adam(model.parameters())
    scaler = tg.amp.GradScaler("cpu", init_scale=8.0)

    def step(x):
        optimizer.zero_grad()
        scaler.scale(model(x).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        average.update_parameters(model)

    step = tg.compile(step)
    for _ in range(6):
        step(tg.ones(1, 2))
    step(tg.full((1, 2), float("inf")))
    assert average.n_averaged.item() == 7
    assert step.stats()["captures"] == 2


def test_what_an_optimizer_counts_is_not_read_ahead_of_its_step():
    w = nn.Parameter(tg.ones(2))
    optimizer = tg.optim.Adam([w], lr=0.1)

    def step():
        w.grad = tg.ones(2)
        optimizer.step()
        return w.detach() * 2 if optimizer.state[w]["step"] > 4 else w.detach() + 0

    step()  # which makes the state
    step = tg.compile(step, fallback=True)
    for i in range(1, 8):
        assert step().tolist() == (w.detach() * (2 if i >= 4 else 1)).tolist()
