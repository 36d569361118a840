"""A policy learns to balance a pole on a cart, from nothing but how long it stays up.

python -m tensorgrad.examples.cartpole                      train, draw an episode, save curve and checkpoint
python -m tensorgrad.examples.cartpole --backend numpy      the same on another backend
python -m tensorgrad.examples.cartpole --resume --steps N   continue a run, to N steps in all

Advantage actor-critic over 32 carts at once. The equations of motion are those of Barto, Sutton and Anderson 1983; an
episode ends when the pole leans by more than 12 degrees, the cart leaves the track, or after 500 moves.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import functional as F

from . import common

__all__ = ["Carts", "main", "parser", "run"]

CARTS, MOVES, LIMIT = 32, 32, 500
RATE, DISCOUNT, ENTROPY = 3e-3, 0.99, 0.01


class Carts:
    """Carts with a pole each: position, speed, angle and its speed, in float32 arrays of NumPy."""

    GRAVITY, CART, POLE, HALF, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02

    def __init__(self, count: int, seed: int):
        self.random = np.random.default_rng(seed)
        self.state = self.fresh(count)
        self.age = np.zeros(count, dtype=np.int64)
        self.finished: list[int] = []

    def fresh(self, count: int) -> np.ndarray[Any, Any]:
        """States (count, 4) at the start of an episode."""
        return self.random.uniform(-0.05, 0.05, (count, 4)).astype(np.float32)

    def move(self, right: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Push each cart to the right or the left for one moment. Returns which episodes ended; those start anew."""
        x, speed, angle, turn = self.state.T
        force = np.where(right, self.FORCE, -self.FORCE)
        sin, cos = np.sin(angle), np.cos(angle)
        mass = self.CART + self.POLE
        push = (force + self.POLE * self.HALF * turn**2 * sin) / mass
        bend = (self.GRAVITY * sin - cos * push) / (self.HALF * (4 / 3 - self.POLE * cos**2 / mass))
        slide = push - self.POLE * self.HALF * bend * cos / mass
        h = self.SECONDS
        self.state = np.stack((x + h * speed, speed + h * slide, angle + h * turn, turn + h * bend), 1).astype(
            np.float32
        )
        self.age += 1
        fell = (np.abs(self.state[:, 0]) > 2.4) | (np.abs(self.state[:, 2]) > math.radians(12))
        ended = fell | (self.age >= LIMIT)
        self.finished += self.age[ended].tolist()
        self.state[ended], self.age[ended] = self.fresh(int(ended.sum())), 0
        return ended

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs, as tensors and numbers."""
        facts = self.random.bit_generator.state
        words = [facts["state"]["state"], facts["state"]["inc"]]
        return {
            "state": tg.tensor(self.state),
            "age": tg.tensor(self.age),
            "finished": self.finished[-50:],
            "random": [*map(str, words), facts["has_uint32"], facts["uinteger"]],
        }

    def load_state_dict(self, found: dict[str, Any]) -> None:
        """Continue from there."""
        self.state, self.age = found["state"].numpy().copy(), found["age"].numpy().copy()
        self.finished = list(found["finished"])
        state, increment, has, word = found["random"]
        facts = {"bit_generator": "PCG64", "state": {"state": int(state), "inc": int(increment)}}
        self.random.bit_generator.state = {**facts, "has_uint32": has, "uinteger": word}


class ActorCritic(nn.Module):
    """Two logits for left and right, and how many more moves the pole is expected to stay up (discounted)."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.actor, self.critic = nn.Linear(width, 2), nn.Linear(width, 1)

    def forward(self, states: Any) -> tuple[Any, Any]:
        """(n, 4) -> logits (n, 2) and values (n,)."""
        y = self.body(states)
        return self.actor(y), self.critic(y).squeeze(-1)


def save_episode(model: ActorCritic, seed: int, device: str, path: Path) -> int:
    """One episode of the best move each time, as curves; returns its length."""
    carts, seen = Carts(1, seed), []
    with tg.no_grad():
        while not carts.finished:
            seen.append(carts.state[0].copy())
            logits, _ = model(tg.tensor(carts.state, device=device))
            carts.move(np.asarray(logits.argmax(-1).cpu()) == 1)
    states = np.array(seen)
    made = common.figure(8, 4.2)
    axes = made.subplots()
    time = Carts.SECONDS * np.arange(len(states))
    axes.plot(time, states[:, 0], label="position of the cart (m)")
    axes.plot(time, np.degrees(states[:, 2]) / 12, label="angle of the pole (12 degrees = 1)")
    axes.axhline(1, color="gray", lw=0.7)
    axes.axhline(-1, color="gray", lw=0.7)
    axes.set(title=f"an episode of {len(states)} moves", xlabel="seconds", ylim=(-2.5, 2.5))
    axes.legend()
    common.save_figure(made, path)
    return len(states)


def parser() -> argparse.ArgumentParser:
    return common.parser("cartpole", __doc__, steps=400, every=25)


def run(args: argparse.Namespace, device: str) -> common.Run:
    """Train, play, and write the results."""
    model = ActorCritic().to(device)
    optimizer = tg.optim.Adam(model.parameters(), lr=RATE)
    carts = Carts(CARTS, args.seed)
    state = common.Run(args, {"model": model, "optimizer": optimizer, "carts": carts})

    def advance(step: int) -> dict[str, float]:
        states, actions, alive = [], [], []
        for _ in range(MOVES):
            now = tg.tensor(carts.state, device=device)
            with tg.no_grad():
                action = tg.multinomial(model(now)[0].softmax(-1), 1).squeeze(-1)
            ended = carts.move(np.asarray(action.cpu()) == 1)
            states.append(now)
            actions.append(action)
            alive.append(tg.tensor(~ended, dtype=tg.float32, device=device))
        with tg.no_grad():
            future = model(tg.tensor(carts.state, device=device))[1]
        returns = []
        for still in reversed(alive):  # the last move of an episode earns a point too, and nothing after it
            future = 1.0 + DISCOUNT * still * future
            returns.append(future)
        logits, values = model(tg.cat(states))
        advantage = tg.cat(returns[::-1]) - values
        log_p = F.log_softmax(logits, dim=-1)
        chosen = log_p.gather(1, tg.cat(actions).unsqueeze(1)).squeeze(1)
        entropy = -(log_p.exp() * log_p).sum(-1).mean()
        gain = advantage.detach()
        gain = (gain - gain.mean()) / (gain.std() + 1e-6)
        loss = -(chosen * gain).mean() + F.smooth_l1_loss(advantage, tg.zeros_like(advantage)) - ENTROPY * entropy
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        recent = carts.finished[-50:]
        return {"episode": float(np.mean(recent)) if recent else 0.0, "entropy": entropy.item()}

    state.loop(advance)
    length = save_episode(model, args.seed + 1, device, args.out / "episode.png")
    print(f"with the best move each time the pole stays up for {length} of {LIMIT} moves")
    common.save_curves({k: v for k, v in state.history.items() if k != "entropy"}, args.out / "curve.png",
                       "cartpole: moves in an episode")  # fmt: skip
    state.history["final"] = [float(length)]
    return state


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return common.main(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
