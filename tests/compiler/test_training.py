"""What training code does, eager beside compiled: the same losses, parameters and gradients to the bit."""

from __future__ import annotations

import copy

import pytest

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.backends import registry
from tensorgrad.errors import CompileError
from tensorgrad.nn import functional as F
from tensorgrad.utils.checkpoint import checkpoint

BACKENDS = [n for n in ("numpy", "cpp") if registry.class_of(n).why_not() is None]


def network():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 3))


def batches(count):
    for i in range(count):
        tg.manual_seed(100 + i)
        yield tg.randn(8, 6), tg.randint(0, 3, (8,))


def outcome(build, compiled, count=7):
    """(losses, what the row wants to see afterwards, statistics): ``build(compile)`` gives (step, probe)."""
    tg.manual_seed(0)
    made = []

    def compile(function, **settings):
        if not compiled:
            return function
        made.append(tg.compile(function, **settings))
        return made[-1]

    step, probe = build(compile)
    results = []
    for i, batch in enumerate(batches(count)):
        tg.manual_seed(i)
        found = step(*batch)
        results.append([x.tolist() for x in (found if isinstance(found, tuple) else (found,))])
    return results, [x.tolist() for x in probe()], [one.stats() for one in made]


def plain(settings, make=optim.AdamW):
    def build(compile):
        model = network()
        optimizer = make(model.parameters(), lr=1e-2)

        def step(x, y):
            optimizer.zero_grad(**settings)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return compile(step), model.parameters

    return build


def clipped_by_norm(compile):
    model = network()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return loss, norm

    return compile(step), model.parameters


def clipped_by_value_and_cleared_at_the_end(compile):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True)

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return compile(step), model.parameters


def scheduled(compile):
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = compile(step)

    def both(x, y):
        loss = step(x, y)
        schedule.step()
        return loss

    return both, model.parameters


def scaled(compile):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1e-2)
    scaler = tg.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    def backward(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        return loss

    backward = compile(backward)

    def step(x, y):
        loss = backward(x, y)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step, lambda: [*model.parameters(), tg.tensor(scaler.get_scale())]


def cast(compile):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        with tg.autocast("cpu", dtype=tg.bfloat16):
            loss = F.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        return loss

    return compile(step), model.parameters


def accumulated(compile):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1e-2)

    def backward(x, y):
        loss = F.cross_entropy(model(x), y) / 2
        loss.backward()
        return loss

    backward = compile(backward)
    count = [0]

    def step(x, y):
        loss = backward(x, y)
        count[0] += 1
        if count[0] % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return step, model.parameters


def averaged(compile):
    model = network()
    average = copy.deepcopy(model)
    optimizer = optim.SGD(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with tg.no_grad():
            for p, q in zip(average.parameters(), model.parameters(), strict=True):
                p.mul_(0.9).add_(q, alpha=0.1)
        return loss

    return compile(step), average.parameters


def adversarial(compile):
    one, other = network(), network()
    first, second = optim.Adam(one.parameters()), optim.Adam(other.parameters())

    def step(x, y):
        second.zero_grad()
        guess = other(one(x)[:, :1].expand(-1, 6).detach())
        loss = F.cross_entropy(guess, y)
        loss.backward()
        second.step()
        first.zero_grad()
        against = F.cross_entropy(one(x), y) + other(one(x) @ tg.ones(3, 6)).mean()
        against.backward()
        first.step()
        return loss, against

    return compile(step), lambda: [*one.parameters(), *other.parameters()]


def penalized(compile):
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = optim.Adam(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        x = x.requires_grad_()
        out = model(x)
        (g,) = tg.autograd.grad(out.sum(), x, create_graph=True)
        loss = F.cross_entropy(out, y) + ((g.norm(dim=1) - 1) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return compile(step), model.parameters


def hooked(compile):
    model = network()
    model[0].weight.register_hook(lambda g: g * 2)
    optimizer = optim.SGD(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return compile(step), model.parameters


def checkpointed(compile):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(checkpoint(model, x, use_reentrant=False), y)
        loss.backward()
        optimizer.step()
        return loss

    return compile(step), model.parameters


def a_checkpointed_loss(compile):
    model = network()
    nn.utils.parametrizations.spectral_norm(model[0])
    model[4].weight.register_hook(lambda grad: grad * tg.rand(1))
    loss_of = compile(lambda x, y: F.cross_entropy(checkpoint(model, x, use_reentrant=False), y))

    def step(x, y):
        model.zero_grad()
        loss = loss_of(x, y)
        between = tg.get_rng_state(), *(b.clone() for b in model.buffers())
        loss.backward()
        return loss, *between, tg.get_rng_state(), *(p.grad for p in model.parameters()), *model.buffers()

    return step, model.parameters


def checkpointed_losses_that_wait(compile):
    model = network()
    loss_of = compile(lambda x, y: F.cross_entropy(checkpoint(model, x, use_reentrant=False), y))

    def step(x, y):
        model.zero_grad()
        losses = [loss_of(x * k, y) for k in (1, 2, 3)]  # each with a dropout of its own
        found = []
        for loss in (losses[1], losses[0], losses[2]):
            loss.backward()
            found += [p.grad.clone() for p in model.parameters()]
        return *losses, *found

    return step, model.parameters


def seeded_within(compile):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        with tg.random.fork_rng():
            tg.manual_seed(3)
            noise = tg.randn(8, 6)
        loss = F.cross_entropy(model(x + noise * tg.rand(1)), y)
        loss.backward()
        optimizer.step()
        return loss

    return compile(step), model.parameters


def a_loss_and_a_step(compile):
    model = network()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    loss_of = compile(lambda x, y: F.cross_entropy(model(x), y))
    update = compile(optimizer.step)

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        update()
        return loss

    return step, model.parameters


def a_model(compile):
    model = network()
    compiled = compile(model)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(compiled(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, model.parameters


def results_that_are_kept(compile):
    model = network()
    compiled = compile(model)
    kept = []

    def step(x, y):
        kept.append(compiled(x))
        if len(kept) < 3:
            return kept[-1]
        total = sum(k.square().sum() for k in kept)
        total.backward()
        kept.clear()
        return total

    return step, lambda: [p.grad for p in model.parameters()]


ROWS = {
    "plain": plain({}), "sgd": plain({}, optim.SGD), "zeros in place": plain({"set_to_none": False}),
    **{f.__name__.replace("_", " "): f for f in (
        clipped_by_norm, clipped_by_value_and_cleared_at_the_end, scheduled, scaled, cast, accumulated, averaged,
        adversarial, penalized, hooked, checkpointed, a_checkpointed_loss, checkpointed_losses_that_wait,
        seeded_within, a_loss_and_a_step, a_model, results_that_are_kept,
    )},
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", ROWS)
def test_compiled_training_is_eager_training(row, backend):
    with tg.backend(backend):
        eager, compiled = outcome(ROWS[row], False), outcome(ROWS[row], True)
    assert compiled[0] == eager[0] and compiled[1] == eager[1]
    assert all(one["captures"] <= 3 and one["eager"] == 0 and one["replays"] >= 4 for one in compiled[2]), compiled[2]


def refused(name):
    def build(step_of):
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=1e-2)
        schedule = optim.lr_scheduler.StepLR(optimizer, 2)
        history = []

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            if name == "read":
                loss.item()
            loss.backward()
            optimizer.step()
            if name == "append":
                history.append(loss.detach())
            if name == "schedule":
                schedule.step()
            return loss

        return step_of(step), model.parameters

    return build


@pytest.mark.parametrize("name, words", [
    ("read", "loss.item()"), ("append", "history had"), ("schedule", "schedule.last_epoch was"),
])  # fmt: skip
def test_what_no_replay_repeats_is_refused_in_words(name, words):
    with pytest.raises(CompileError) as caught:
        outcome(refused(name), True)
    assert words in str(caught.value) and "fallback=True" in str(caught.value)
    eager = outcome(refused(name), False)
    step_by_step = outcome(lambda compile: refused(name)(lambda f: compile(f, fallback=True)), True)
    assert step_by_step[:2] == eager[:2]
    stats = step_by_step[2][0]
    assert stats["replays"] and len(stats["python"]) == 2, stats
