"""A network learns the law of motion of a pendulum with friction from noisy observations, by differentiating a solver.

python -m tensorgrad.examples.neural_ode                      train, plot forecast and flow, save curve and checkpoint
python -m tensorgrad.examples.neural_ode --backend numpy      the same on another backend
python -m tensorgrad.examples.neural_ode --resume --steps N   continue a run, to N steps in all

The network is the right side of ``dy/dt = f(y)`` (Chen et al. 2018); gradients go through every step of a Runge-Kutta
solver.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn

from . import common

__all__ = ["main", "parser", "pendulum", "run", "solve"]

STEP, SEEN, AHEAD = 0.1, 60, 140  # seconds between two observations, how many are seen, how many are forecast
WINDOW, BATCH, RATE = 10, 32, 5e-3


def pendulum(y: Any) -> Any:
    """(n, 2) angle and speed -> their rates of change: gravity and some friction."""
    angle, speed = y[:, :1], y[:, 1:]
    return tg.cat((speed, -2.0 * angle.sin() - 0.15 * speed), dim=1)


def solve(f: Callable[[Any], Any], y: Any, steps: int, h: float = STEP) -> Any:
    """States (steps + 1, n, 2) from ``y`` (n, 2) on, by the classical Runge-Kutta method."""
    states = [y]
    for _ in range(steps):
        a = f(y)
        b = f(y + h / 2 * a)
        c = f(y + h / 2 * b)
        d = f(y + h * c)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
        states.append(y)
    return tg.stack(states)


def save_picture(model: nn.Module, seen: Any, true: Any, path: Path) -> None:
    """The forecast over time beside the truth, and the flow that the network has learnt."""
    with tg.no_grad():
        forecast = np.asarray(solve(model, true[:1], len(true) - 1)[:, 0].cpu())
        side = np.linspace(-2.8, 2.8, 21, dtype=np.float32)
        grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        flow = np.asarray(model(tg.tensor(grid, device=true.device)).cpu()).reshape(21, 21, 2)
    truth, noisy = np.asarray(true.cpu()), np.asarray(seen.cpu())
    made = common.figure(13, 4.6)
    left, right = made.subplots(1, 2, width_ratios=(2, 1))
    time = STEP * np.arange(len(truth))
    for i, name in enumerate(("angle", "speed")):
        (line,) = left.plot(time, truth[:, i], lw=3, alpha=0.3, label=f"{name}, true")
        left.plot(time, forecast[:, i], "--", color=line.get_color(), label=f"{name}, network")
        left.plot(time[: len(noisy)], noisy[:, i], ".", ms=3, color=line.get_color())
    left.axvspan(0, STEP * (len(noisy) - 1), color="gray", alpha=0.12)
    left.set(title="observed (gray), and forecast", xlabel="seconds")
    left.legend(ncols=2)
    right.streamplot(side, side, flow[..., 0], flow[..., 1], density=1.1, linewidth=0.7)
    right.plot(truth[:, 0], truth[:, 1], color="firebrick", lw=2)
    right.set(title="the learnt flow", xlabel="angle", ylabel="speed", xlim=(-2.8, 2.8), ylim=(-2.8, 2.8))
    common.save_figure(made, path)


def parser() -> argparse.ArgumentParser:
    return common.parser("neural_ode", __doc__, steps=1200, every=100)


def run(args: argparse.Namespace, device: str) -> common.Run:
    """Train, forecast, and write the results."""
    starts = tg.tensor([[2.0, 0.0], [0.7, 1.8], [-1.4, -1.2], [2.4, -0.6]], device=device)
    with tg.no_grad():
        true = solve(pendulum, starts, SEEN + AHEAD)
    noise = tg.randn(SEEN, *true.shape[1:], generator=tg.Generator().manual_seed(1)).to(device)
    seen = true[:SEEN] + 0.03 * noise
    model = nn.Sequential(nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 2)).to(device)
    optimizer = tg.optim.Adam(model.parameters(), lr=RATE)
    schedule = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.steps, eta_min=RATE / 50)
    state = common.Run(args, {"model": model, "optimizer": optimizer, "schedule": schedule})
    offsets = tg.arange(WINDOW + 1, device=device).view(-1, 1)

    def advance(step: int) -> dict[str, float]:
        times = tg.randint(0, SEEN - WINDOW, (1, BATCH), device=device)
        which = tg.randint(0, len(starts), (1, BATCH), device=device)
        windows = seen[times + offsets, which]
        loss = (solve(model, windows[0], WINDOW) - windows).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss.item()}

    state.loop(advance)
    with tg.no_grad():
        wrong = (solve(model, true[0], SEEN + AHEAD) - true)[SEEN:].abs().mean().item()
    print(f"mean distance of the forecast, {AHEAD * STEP:.0f} s past the last observation: {wrong:.3f}")
    save_picture(model, seen[:, 0], true[:, 0], args.out / "forecast.png")
    common.save_curves(state.history, args.out / "curve.png", "neural_ode: mean distance in a window")
    state.history["forecast"] = [wrong]
    return state


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return common.main(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
