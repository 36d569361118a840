"""Two networks of convolutions play against each other until one of them draws handwritten digits.

python -m tensorgrad.examples.dcgan_digits                      train, write a sheet of samples, curve and checkpoint
python -m tensorgrad.examples.dcgan_digits --backend numpy      the same on another backend
python -m tensorgrad.examples.dcgan_digits --resume --steps N   continue a run, to N steps in all

The networks are small ones of the kind of Radford, Metz and Chintala 2015.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import require_extra
from tensorgrad.nn import functional as F

from . import common

__all__ = ["discriminator", "generator", "main", "parser", "run"]

BATCH, RATE, NOISE = 64, 5e-4, 32


def generator() -> nn.Sequential:
    """Noise (n, 32, 1, 1) -> images (n, 1, 8, 8) in [-1, 1]."""
    return nn.Sequential(
        nn.ConvTranspose2d(NOISE, 64, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip


def discriminator() -> nn.Sequential:
    """Images (n, 1, 8, 8) -> logits (n,) of being real."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
        nn.Dropout(0.3), nn.Flatten(), nn.Linear(256, 1), nn.Flatten(0),
    )  # fmt: skip


def initialize(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02), those of batch norms from N(1, 0.02)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def save_sheet(drawer: nn.Module, real: Any, path: Path) -> None:
    """80 drawn digits, and 80 real ones beside them."""
    drawer.eval()
    with tg.no_grad():
        noise = tg.randn(80, NOISE, 1, 1, device=real.device)
        drawn = np.asarray(drawer(noise).cpu())
    drawer.train()
    made = common.figure(11, 4.8)
    for axes, images, title in zip(
        made.subplots(1, 2), (drawn, np.asarray(real[:80].cpu())), ("drawn by the generator", "real"), strict=True
    ):
        sheet = np.pad(images.reshape(8, 10, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
        axes.imshow(sheet.transpose(0, 2, 1, 3).reshape(80, 100), cmap="gray_r", vmin=-1, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
    common.save_figure(made, path)


def parser() -> argparse.ArgumentParser:
    return common.parser("dcgan_digits", __doc__, steps=4000, every=200)


def run(args: argparse.Namespace, device: str) -> common.Run:
    """Train and write the results."""
    source = require_extra("sklearn.datasets", "examples").load_digits()
    images = tg.tensor((source.images[:, None] / 8 - 1).astype(np.float32), device=device)
    drawer, judge = generator().apply(initialize).to(device), discriminator().apply(initialize).to(device)
    draw_optimizer = tg.optim.Adam(drawer.parameters(), lr=RATE, betas=(0.5, 0.999))
    judge_optimizer = tg.optim.Adam(judge.parameters(), lr=RATE, betas=(0.5, 0.999))
    state = common.Run(
        args, {"drawer": drawer, "judge": judge, "draw_optimizer": draw_optimizer, "judge_optimizer": judge_optimizer}
    )
    true, false = tg.full((BATCH,), 0.9, device=device), tg.zeros(BATCH, device=device)

    def advance(step: int) -> dict[str, float]:
        real = images[tg.randint(0, len(images), (BATCH,), device=device)]
        drawn = drawer(tg.randn(BATCH, NOISE, 1, 1, device=device))
        judge_loss = F.binary_cross_entropy_with_logits(judge(real), true) + F.binary_cross_entropy_with_logits(
            judge(drawn.detach()), false
        )
        judge_optimizer.zero_grad()
        judge_loss.backward()
        judge_optimizer.step()
        opinion = judge(drawn)
        draw_loss = F.binary_cross_entropy_with_logits(opinion, tg.ones_like(opinion))
        draw_optimizer.zero_grad()
        draw_loss.backward()
        draw_optimizer.step()
        return {"generator": draw_loss.item(), "discriminator": judge_loss.item()}

    state.loop(advance)
    save_sheet(drawer, images, args.out / "samples.png")
    common.save_curves(state.history, args.out / "curve.png", "dcgan_digits: losses of the two players")
    return state


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return common.main(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
