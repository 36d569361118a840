"""Learning-rate schedules beside PyTorch's, step by step: rates, momenta, state dicts, warnings, errors."""

from __future__ import annotations

import warnings

import pytest

import tensorgrad as tg

STEPS = 24


def half(epoch):
    return 0.9**epoch


def measures(step):
    return [3.0, 2.0, 2.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0][step % 12]


ROWS = [
    lambda s, o: s.LambdaLR(o, half),
    lambda s, o: s.LambdaLR(o, [half, lambda e: 1 / (e + 1)]),
    lambda s, o: s.MultiplicativeLR(o, half),
    lambda s, o: s.StepLR(o, 3, 0.5),
    lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], 0.3),
    lambda s, o: s.ConstantLR(o, 0.25, 4),
    lambda s, o: s.LinearLR(o, 0.2, 0.9, 7),
    lambda s, o: s.ExponentialLR(o, 0.8),
    lambda s, o: s.PolynomialLR(o, 9, 1.7),
    lambda s, o: s.CosineAnnealingLR(o, 5, 1e-3),
    lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 1e-3),
    lambda s, o: s.CosineAnnealingWarmRestarts(o, 4),
    lambda s, o: s.CyclicLR(o, 0.01, [0.1, 0.2], 3, 5),
    lambda s, o: s.CyclicLR(o, [0.01, 0.02], 0.1, 3, mode="triangular2", base_momentum=0.7),
    lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, mode="exp_range", gamma=0.95, cycle_momentum=False),
    lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda x: 1 / x, scale_mode="cycle"),
    lambda s, o: s.OneCycleLR(o, 0.5, total_steps=STEPS),
    lambda s, o: s.OneCycleLR(o, [0.5, 0.1], epochs=8, steps_per_epoch=4, anneal_strategy="linear", three_phase=True),
    lambda s, o: s.ReduceLROnPlateau(o, patience=1),
    lambda s, o: s.ReduceLROnPlateau(o, "max", 0.5, 2, 0.1, "abs", 1, [0.01, 0.02]),
    lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9), s.StepLR(o, 2)], [4, 11]),
    lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 5), s.CosineAnnealingLR(o, 10)], [5]),
    lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9), s.StepLR(o, 4)]),
    lambda s, o: s.SequentialLR(
        o, [s.ChainedScheduler([s.LinearLR(o, 0.5), s.ExponentialLR(o, 0.9)], o), s.CosineAnnealingWarmRestarts(o, 4)],
        [6],
    ),
]  # fmt: skip


def optimizer(lib, kind="SGD", tensor_lr=False):
    a, b = (lib.zeros(1, requires_grad=True) for _ in range(2))
    rate = lib.tensor(0.25, dtype=lib.float64) if tensor_lr else 0.25
    settings = {"momentum": 0.9} if kind == "SGD" else {}
    made = getattr(lib.optim, kind)([{"params": [a]}, {"params": [b], "lr": 0.125}], lr=rate, **settings)
    for p in (a, b):
        p.grad = lib.ones(1)
    return made


def run(opt, schedule, steps, first=0):
    seen = []
    for step in range(first, first + steps):
        opt.step()
        if "Plateau" in type(schedule).__name__:
            schedule.step(measures(step))
        else:
            schedule.step()
        momenta = [g["betas"][0] if "betas" in g else g["momentum"] for g in opt.param_groups]
        seen.append([*map(float, schedule.get_last_lr()), *(float(g["lr"]) for g in opt.param_groups), *momenta])
    return seen


@pytest.mark.filterwarnings("ignore:Detected call")  # a chain within a sequence does so, in PyTorch too
@pytest.mark.parametrize("row", range(len(ROWS)))
@pytest.mark.parametrize("kind, tensor_lr", [("SGD", False), ("Adam", True)])
def test_rates_are_those_of_pytorch(row, kind, tensor_lr):
    torch = pytest.importorskip("torch")
    both = []
    for lib in (tg, torch):
        opt = optimizer(lib, kind, tensor_lr)
        schedule = ROWS[row](lib.optim.lr_scheduler, opt)
        both.append((opt, schedule, run(opt, schedule, STEPS // 2)))
    (my_opt, mine, my_rates), (their_opt, theirs, their_rates) = both
    assert my_rates == [pytest.approx(r, rel=1e-9) for r in their_rates]
    if not tensor_lr:
        missing = set(theirs.state_dict()) - set(mine.state_dict())
        assert not missing, f"not in the state dict: {missing}"
        mine.load_state_dict(theirs.state_dict())  # go on with PyTorch's state
    after = run(my_opt, mine, STEPS // 2 - 1, STEPS // 2)
    assert after == [pytest.approx(r, rel=1e-9) for r in run(their_opt, theirs, STEPS // 2 - 1, STEPS // 2)]


@pytest.mark.filterwarnings("ignore:Detected call")
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_state_dict_continues_the_schedule(row):
    make = ROWS[row]
    opt = optimizer(tg)
    schedule = make(tg.optim.lr_scheduler, opt)
    run(opt, schedule, 7)
    other = optimizer(tg)
    again = make(tg.optim.lr_scheduler, other)
    other.load_state_dict(opt.state_dict())
    again.load_state_dict(schedule.state_dict())
    assert run(other, again, 5, 7) == run(opt, schedule, 5, 7)


@pytest.mark.parametrize("row", [3, 4, 5, 6, 7, 8, 9, 10, 11, 0])
def test_the_old_form_with_an_epoch(row):
    torch = pytest.importorskip("torch")
    rates = []
    for lib in (tg, torch):
        opt = optimizer(lib)
        schedule = ROWS[row](lib.optim.lr_scheduler, opt)
        opt.step()
        seen = []
        for epoch in (1, 4, 2, 13):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                schedule.step(epoch)
            seen.append([len(caught), *schedule.get_last_lr()])
        rates.append(seen)
    assert rates[0] == [pytest.approx(r, rel=1e-9) for r in rates[1]]


def test_the_order_of_steps_is_checked():
    s = tg.optim.lr_scheduler
    opt = optimizer(tg)
    schedule = s.StepLR(opt, 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        schedule.step()
    opt = optimizer(tg)
    schedule = s.StepLR(opt, 2)
    opt.step = lambda: None
    with pytest.warns(UserWarning, match="has been overridden"):
        schedule.step()
    with pytest.warns(UserWarning, match="get_last_lr"):
        schedule.get_lr()


def test_a_schedule_of_ones_own():
    class Warmup(tg.optim.lr_scheduler._LRScheduler):
        def __init__(self, optimizer, steps, last_epoch=-1):
            self.steps = steps
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            return [base * min(1, self._step_count / self.steps) for base in self.base_lrs]

    opt = optimizer(tg)
    schedule = Warmup(opt, 4)
    assert [r[0] for r in run(opt, schedule, 4)] == [0.125, 0.1875, 0.25, 0.25]


def overrun(s, o):
    schedule = s.OneCycleLR(o, 0.1, total_steps=2)
    for _ in range(9):
        schedule.step()


ERRORS = [
    (TypeError, lambda s, o: s.StepLR(3, 2)),
    (ValueError, lambda s, o: s.LambdaLR(o, [half])),
    (TypeError, lambda s, o: s.MultiplicativeLR(o, 3)),
    (ValueError, lambda s, o: s.ConstantLR(o, 1.5)),
    (ValueError, lambda s, o: s.LinearLR(o, 0.0)),
    (ValueError, lambda s, o: s.LinearLR(o, end_factor=2)),
    (KeyError, lambda s, o: s.ExponentialLR(o, 0.5, last_epoch=3)),
    (TypeError, lambda s, o: s.ExponentialLR(o, 0.5, verbose=True)),
    (ValueError, lambda s, o: s.CosineAnnealingWarmRestarts(o, 0)),
    (ValueError, lambda s, o: s.CosineAnnealingWarmRestarts(o, 3).step(-1)),
    (ValueError, lambda s, o: s.CyclicLR(o, [0.1], 1.0)),
    (ValueError, lambda s, o: s.CyclicLR(o, 0.1, 1.0, mode="square")),
    (ValueError, lambda s, o: s.OneCycleLR(o, 0.1)),
    (ValueError, lambda s, o: s.OneCycleLR(o, 0.1, total_steps=0)),
    (ValueError, lambda s, o: s.OneCycleLR(o, 0.1, total_steps=9, pct_start=1.5)),
    (ValueError, lambda s, o: s.OneCycleLR(o, 0.1, total_steps=9, anneal_strategy="exp")),
    (ValueError, overrun),
    (ValueError, lambda s, o: s.ReduceLROnPlateau(o, factor=1.0)),
    (ValueError, lambda s, o: s.ReduceLROnPlateau(o, "best")),
    (ValueError, lambda s, o: s.ReduceLROnPlateau(o, min_lr=[1.0])),
    (ValueError, lambda s, o: s.SequentialLR(o, [], [])),
    (ValueError, lambda s, o: s.SequentialLR(o, [s.StepLR(o, 2)], [3])),
    (ValueError, lambda s, o: s.SequentialLR(o, [s.ReduceLROnPlateau(o)], [])),
    (ValueError, lambda s, o: s.ChainedScheduler([])),
]


@pytest.mark.filterwarnings("ignore:Detected call")
@pytest.mark.parametrize("row", range(len(ERRORS)))
def test_bad_arguments(row):
    kind, make = ERRORS[row]
    torch = pytest.importorskip("torch")
    for lib in (tg, torch):
        with pytest.raises(kind):
            make(lib.optim.lr_scheduler, optimizer(lib))
