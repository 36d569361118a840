"""A variational autoencoder lays handwritten digits out in a plane, and draws a picture of that plane.

python -m tensorgrad.examples.vae_digits                      train, write latent-space picture, curve and checkpoint
python -m tensorgrad.examples.vae_digits --backend numpy      the same on another backend
python -m tensorgrad.examples.vae_digits --resume --steps N   continue a run, to N steps in all

The loss is the negative evidence lower bound of Kingma and Welling 2013: how badly an image is rebuilt from its code,
plus how far the codes are from a standard normal.
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

__all__ = ["VAE", "main", "parser", "run"]

BATCH, RATE, CODE = 64, 2e-3, 2


class VAE(nn.Module):
    """Encoder to mean and log-variance of a code, decoder from a code to the logits of 64 pixels."""

    def __init__(self, code: int = CODE, width: int = 128):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(width, code), nn.Linear(width, code)
        self.decoder = nn.Sequential(
            nn.Linear(code, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64)
        )

    def encode(self, x: Any) -> tuple[Any, Any]:
        """Images (n, 64) in [0, 1] -> mean and log-variance of their codes."""
        y = self.encoder(x)
        return self.mean(y), self.log_variance(y)

    def forward(self, x: Any) -> tuple[Any, Any, Any]:
        """(logits of the pixels rebuilt from a code drawn at random, mean, log-variance)."""
        mean, log_variance = self.encode(x)
        drawn = mean + (0.5 * log_variance).exp() * tg.randn_like(mean)
        return self.decoder(drawn), mean, log_variance


def save_plane(model: VAE, images: Any, labels: np.ndarray[Any, Any], path: Path) -> None:
    """Left the codes of all images, coloured by digit; right what the decoder draws all over the plane."""
    model.eval()
    with tg.no_grad():
        codes = np.asarray(model.encode(images)[0].cpu())
        side = np.linspace(-2.2, 2.2, 15, dtype=np.float32)
        grid = np.stack(np.meshgrid(side, side[::-1]), -1).reshape(-1, 2)
        drawn = np.asarray(model.decoder(tg.tensor(grid, device=images.device)).sigmoid().cpu())
    model.train()
    made = common.figure(12, 5.6)
    left, right = made.subplots(1, 2)
    points = left.scatter(codes[:, 0], codes[:, 1], c=labels, cmap="tab10", s=7, vmin=-0.5, vmax=9.5)
    made.colorbar(points, ax=left, ticks=range(10), label="digit")
    left.set(title="codes of the images", xlabel="first coordinate", ylabel="second coordinate")
    tiles = np.pad(drawn.reshape(15, 15, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    picture = tiles.transpose(0, 2, 1, 3).reshape(150, 150)
    right.imshow(picture, cmap="gray_r", extent=(-2.2, 2.2, -2.2, 2.2))
    right.set(title="what the decoder draws there")
    common.save_figure(made, path)


def parser() -> argparse.ArgumentParser:
    return common.parser("vae_digits", __doc__, steps=4000, every=200)


def run(args: argparse.Namespace, device: str) -> common.Run:
    """Train and write the results."""
    source = require_extra("sklearn.datasets", "examples").load_digits()
    images = tg.tensor((source.data / 16).astype(np.float32), device=device)
    model = VAE().to(device)
    optimizer = tg.optim.Adam(model.parameters(), lr=RATE)
    state = common.Run(args, {"model": model, "optimizer": optimizer})

    def advance(step: int) -> dict[str, float]:
        x = images[tg.randint(0, len(images), (BATCH,), device=device)]
        logits, mean, log_variance = model(x)
        rebuilding = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / BATCH
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / BATCH
        loss = rebuilding + divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item(), "rebuilding": rebuilding.item(), "divergence": divergence.item()}

    state.loop(advance)
    save_plane(model, images, source.target, args.out / "latent.png")
    common.save_curves(state.history, args.out / "curve.png", "vae_digits: nats an image")
    return state


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return common.main(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
