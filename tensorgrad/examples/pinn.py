"""A network learns to solve Burgers' equation from the equation alone, and is held against the exact solution.

python -m tensorgrad.examples.pinn                      train, plot solution and error, save curve and checkpoint
python -m tensorgrad.examples.pinn --backend numpy      the same on another backend
python -m tensorgrad.examples.pinn --resume --steps N   continue a run, to N steps in all

``u_t + u u_x = v u_xx`` for x in [-1, 1] and t in [0, 1], with ``u(x, 0) = -sin(pi x)`` and ``u(-1, t) = u(1, t) = 0``
(Raissi, Perdikaris and Karniadakis 2019). The loss holds first and second derivatives of the network, so training takes
third ones. The exact solution is the Cole-Hopf integral.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn

from . import common

__all__ = ["Solution", "exact", "main", "parser", "residual", "run"]

VISCOSITY = 0.05
POINTS, RATE = 512, 5e-3


class Solution(nn.Module):
    """A network of (x, t) that fulfils the initial and the boundary conditions by its form."""

    def __init__(self, width: int = 32, layers: int = 3):
        super().__init__()
        sizes = [2, *[width] * layers]
        hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, 1))

    def forward(self, x: Any, t: Any) -> Any:
        """(n, 1) and (n, 1) -> u (n, 1): the initial values, plus what vanishes at t = 0 and at x = -1 and 1."""
        free = self.net(tg.cat((x, 2 * t - 1), dim=1))
        return -(math.pi * x).sin() + t * (1 - x * x) * free


def residual(model: nn.Module, x: Any, t: Any) -> Any:
    """``u_t + u u_x - v u_xx`` at points (n, 1) and (n, 1): zero for a solution."""
    x, t = x.requires_grad_(), t.requires_grad_()
    u = model(x, t)
    slopes: Any = tg.autograd.grad(u.sum(), (x, t), create_graph=True)
    u_x, u_t = slopes
    bend: Any = tg.autograd.grad(u_x.sum(), x, create_graph=True)
    (u_xx,) = bend
    return u_t + u * u_x - VISCOSITY * u_xx


def exact(x: np.ndarray[Any, Any], t: np.ndarray[Any, Any], order: int = 120) -> np.ndarray[Any, Any]:
    """The solution at (n,) and (n,), t > 0: the Cole-Hopf integral by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite.hermgauss(order)
    shifted = x[:, None] - np.sqrt(4 * VISCOSITY * t)[:, None] * nodes
    density = weights * np.exp(-np.cos(math.pi * shifted) / (2 * math.pi * VISCOSITY))
    return -(np.sin(math.pi * shifted) * density).sum(1) / density.sum(1)


def compare(model: nn.Module, device: str) -> tuple[Any, Any, Any, Any]:
    """(x, t, the network's u, the exact u) on a grid; the last three of shape (times, places)."""
    x, t = np.linspace(-1, 1, 161), np.linspace(0.01, 1, 100)
    grid_t, grid_x = np.meshgrid(t, x, indexing="ij")
    with tg.no_grad():
        columns = [tg.tensor(g.reshape(-1, 1).astype(np.float32), device=device) for g in (grid_x, grid_t)]
        found = np.asarray(model(*columns).cpu()).reshape(grid_x.shape)
    return x, t, found, exact(grid_x.ravel(), grid_t.ravel()).reshape(grid_x.shape)


def save_solution(x: Any, t: Any, found: Any, true: Any, path: Path) -> None:
    """The solution over space and time, its error, and four moments beside the exact curve."""
    made = common.figure(14, 4.2)
    left, middle, right = made.subplots(1, 3)
    extent = (t[0], t[-1], x[0], x[-1])
    for axes, values, title, cmap in (
        (left, found, "u(x, t), the network's", "RdBu_r"),
        (middle, np.abs(found - true), "distance from the exact solution", "viridis"),
    ):
        image = axes.imshow(values.T, origin="lower", extent=extent, aspect="auto", cmap=cmap)
        axes.set(title=title, xlabel="t", ylabel="x")
        made.colorbar(image, ax=axes)
    for i, time in zip((9, 29, 59, 99), ("0.1", "0.3", "0.6", "1"), strict=True):
        (line,) = right.plot(x, true[i], lw=3, alpha=0.35)
        right.plot(x, found[i], "--", color=line.get_color(), label=f"t = {time}")
    right.set(title="network (dashed) and exact", xlabel="x", ylabel="u")
    right.legend()
    right.grid(alpha=0.3)
    common.save_figure(made, path)


def parser() -> argparse.ArgumentParser:
    return common.parser("pinn", __doc__, steps=3000, every=200)


def run(args: argparse.Namespace, device: str) -> common.Run:
    """Train, compare, and write the results."""
    model = Solution().to(device)
    optimizer = tg.optim.Adam(model.parameters(), lr=RATE)
    schedule = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.steps, eta_min=RATE / 100)
    state = common.Run(args, {"model": model, "optimizer": optimizer, "schedule": schedule})

    def advance(step: int) -> dict[str, float]:
        x, t = tg.rand(POINTS, 1, device=device) * 2 - 1, tg.rand(POINTS, 1, device=device)
        loss = residual(model, x, t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss.item()}

    state.loop(advance)
    x, t, found, true = compare(model, device)
    distance = float(np.linalg.norm(found - true) / np.linalg.norm(true))
    print(f"relative distance from the exact solution {distance:.2e}, largest {np.abs(found - true).max():.2e}")
    save_solution(x, t, found, true, args.out / "solution.png")
    common.save_curves(state.history, args.out / "curve.png", "pinn: mean square of the residual")
    state.history["distance"] = [distance]
    return state


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return common.main(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
