"""An LSTM learns the English of the standard library's docstrings, a character at a time, and writes some.

python -m tensorgrad.examples.lstm_text                      train, print text that it writes, save curve and checkpoint
python -m tensorgrad.examples.lstm_text --backend numpy      the same on another backend
python -m tensorgrad.examples.lstm_text --resume --steps N   continue a run, to N steps in all
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import functional as F

from . import common, stdlib_text

__all__ = ["Writer", "main", "parser", "run"]

WIDTH, LAYERS, BATCH, LENGTH, RATE = 192, 2, 32, 48, 4e-3
CHARACTERS = 400_000


class Writer(nn.Module):
    """Embedding, LSTM, and a linear layer back to characters."""

    def __init__(self, characters: int, width: int = WIDTH, layers: int = LAYERS):
        super().__init__()
        self.embedding = nn.Embedding(characters, 64)
        self.lstm = nn.LSTM(64, width, layers, batch_first=True, dropout=0.1)
        self.head = nn.Linear(width, characters)

    def forward(self, tokens: Any, state: Any = None) -> tuple[Any, Any]:
        """Numbers (batch, n) -> scores (batch, n, characters), and the state (h, c) that continues them."""
        y, state = self.lstm(self.embedding(tokens), state)
        return self.head(y), state

    @tg.no_grad()
    def generate(self, tokens: Any, count: int, temperature: float = 0.7) -> Any:
        """(1, n) numbers continued by ``count``, each from the state after the one before."""
        self.eval()
        fresh, state = tokens, None
        for _ in range(count):
            scores, state = self(fresh, state)
            fresh = tg.multinomial((scores[:, -1] / temperature).softmax(-1), 1)
            tokens = tg.cat((tokens, fresh), dim=1)
        self.train()
        return tokens


class Stream:
    """The text as ``size`` readers see it, each in a place of its own, piece after piece, so that states carry over."""

    def __init__(self, data: Any, size: int, length: int):
        self.rows = data[: len(data) // size * size].view(size, -1)
        self.length = length
        self.pieces = (self.rows.shape[1] - 1) // length

    def __call__(self, step: int) -> tuple[Any, Any, bool]:
        """(inputs, targets, whether the text begins anew)."""
        at = step % self.pieces * self.length
        piece = self.rows[:, at : at + self.length + 1]
        return piece[:, :-1], piece[:, 1:], at == 0


def parser() -> argparse.ArgumentParser:
    made = common.parser("lstm_text", __doc__, steps=700, every=50)
    made.add_argument("--prompt", default="Return the ", help="what the text starts with (default %(default)r)")
    made.add_argument("--length", type=int, default=400, help="characters to write (default %(default)s)")
    return made


def run(args: argparse.Namespace, device: str) -> common.Run:
    """Train, write, and save the results."""
    text = stdlib_text.prose(CHARACTERS)
    alphabet = stdlib_text.Alphabet(text)
    stream = Stream(tg.tensor(alphabet.encode(text), device=device), BATCH, LENGTH)
    model = Writer(len(alphabet)).to(device)
    weights = sum(p.numel() for p in model.parameters())
    print(f"{len(text):,} characters, {len(alphabet)} different; {weights:,} parameters")
    optimizer = tg.optim.Adam(model.parameters(), lr=RATE)
    schedule = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.steps, eta_min=RATE / 20)
    memory = _Memory(device)
    state = common.Run(args, {"model": model, "optimizer": optimizer, "schedule": schedule, "memory": memory})

    def advance(step: int) -> dict[str, float]:
        inputs, targets, anew = stream(step)
        scores, memory.state = model(inputs, None if anew else memory.state)
        memory.detach()
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return {"loss": loss.item()}

    state.loop(advance)
    print(f"loss {state.history['loss'][-1]:.4f} nats a character (guessing: {math.log(len(alphabet)):.2f})")
    prompt = tg.tensor(alphabet.encode(args.prompt) if args.prompt else [0], device=device).view(1, -1)
    written = alphabet.decode(model.generate(prompt, args.length)[0].tolist())
    print(f"\n{written}\n")
    common.save_text(written, args.out / "sample.txt")
    common.save_curves(state.history, args.out / "curve.png", "lstm_text: cross-entropy, nats a character")
    return state


class _Memory:
    """The state that is carried from piece to piece: part of the checkpoint, so that a resumed run is the same run."""

    def __init__(self, device: str):
        self.device = device
        self.state: Any = None

    def detach(self) -> None:
        self.state = tuple(part.detach() for part in self.state)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.state is None else {"h": self.state[0], "c": self.state[1]}

    def load_state_dict(self, found: dict[str, Any]) -> None:
        self.state = (found["h"].to(self.device), found["c"].to(self.device)) if found else None


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return common.main(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
