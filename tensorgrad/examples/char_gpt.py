"""A small GPT learns to write Python, from the source text of Python's standard library.

python -m tensorgrad.examples.char_gpt                      train, print code that it writes, save curve and checkpoint
python -m tensorgrad.examples.char_gpt --backend numpy      the same on another backend
python -m tensorgrad.examples.char_gpt --resume --steps N   continue a run, to N steps in all
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Any

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import functional as F

from . import common, stdlib_text

__all__ = ["GPT", "main", "parser", "run"]

WIDTH, HEADS, LAYERS, CONTEXT = 128, 4, 3, 128
BATCH, RATE, WARM_UP = 16, 3e-3, 50
CHARACTERS, HELD_OUT = 1_200_000, 60_000

Cache = list[tuple[Any, Any]]


class Attention(nn.Module):
    """Causal self-attention; with a cache it computes keys and values of new positions alone."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Any, past: tuple[Any, Any] | None = None) -> tuple[Any, tuple[Any, Any]]:
        """(batch, new, width) -> the same, and keys and values (batch, heads, all, width / heads) for next time."""
        b, n, width = x.shape
        q, k, v = (part.view(b, n, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        if past is not None:
            k, v = tg.cat((past[0], k), dim=2), tg.cat((past[1], v), dim=2)
        # a single new position may look at everything before it
        y = F.scaled_dot_product_attention(q, k, v, is_causal=n > 1)
        return self.out(y.transpose(1, 2).reshape(b, n, width)), (k, v)


class Block(nn.Module):
    """Attention and a two-layer network, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Any, past: tuple[Any, Any] | None = None) -> tuple[Any, tuple[Any, Any]]:
        y, present = self.attention(self.norm1(x), past)
        x = x + y
        return x + self.mlp(self.norm2(x)), present


class GPT(nn.Module):
    """A decoder-only transformer over characters."""

    def __init__(self, characters: int, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS,
                 context: int = CONTEXT):  # fmt: skip
        super().__init__()
        self.context = context
        self.token, self.place = nn.Embedding(characters, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if deep else 0.02)

    def forward(self, tokens: Any, cache: Cache | None = None) -> tuple[Any, Cache]:
        """Numbers (batch, new) -> scores (batch, new, characters), and the cache that continues them."""
        before = 0 if not cache else cache[0][0].shape[2]
        places = tg.arange(before, before + tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.place(places)
        presents: Cache = []
        for i, block in enumerate(self.blocks):
            x, present = block(x, cache[i] if cache else None)
            presents.append(present)
        return self.head(self.norm(x)), presents

    @tg.no_grad()
    def generate(self, tokens: Any, count: int, temperature: float = 0.8) -> Any:
        """(1, n) numbers continued by ``count``: each new one costs one position, until the context is full."""
        self.eval()
        cache: Cache | None = None
        fresh = tokens[:, -self.context // 2 :]
        for _ in range(count):
            if cache and cache[0][0].shape[2] + fresh.shape[1] > self.context:
                cache, fresh = None, tokens[:, -self.context // 2 :]  # start over from the latest half
            scores, cache = self(fresh, cache)
            fresh = tg.multinomial((scores[:, -1] / temperature).softmax(-1), 1)
            tokens = tg.cat((tokens, fresh), dim=1)
        self.train()
        return tokens


def rate(step: int, steps: int) -> float:
    """The learning rate relative to the highest: a linear rise, then half a cosine down to a tenth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    part = min(1.0, (step - WARM_UP) / max(1, steps - WARM_UP))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * part))


@tg.no_grad()
def held_out_loss(model: GPT, data: Any) -> float:
    """Cross-entropy in nats for each character of text that the model has not seen."""
    pieces = data[: len(data) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)[:32]
    scores, _ = model(pieces[:, :-1])
    return F.cross_entropy(scores.flatten(0, 1), pieces[:, 1:].flatten()).item()


def parser() -> argparse.ArgumentParser:
    made = common.parser("char_gpt", __doc__, steps=800, every=50)
    made.add_argument("--prompt", default="def ", help="what the generated code starts with (default %(default)r)")
    made.add_argument("--length", type=int, default=500, help="characters to generate (default %(default)s)")
    return made


def run(args: argparse.Namespace, device: str) -> common.Run:
    """Train, generate, and write the results."""
    text = stdlib_text.source(CHARACTERS)
    alphabet = stdlib_text.Alphabet(text)
    data = tg.tensor(alphabet.encode(text), device=device)
    train, held_out = data[:-HELD_OUT], data[-HELD_OUT:]
    model = GPT(len(alphabet)).to(device)
    weights = sum(p.numel() for p in model.parameters())
    print(f"{len(text):,} characters, {len(alphabet)} different; {weights:,} parameters")
    optimizer = tg.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = tg.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, args.steps))
    state = common.Run(args, {"model": model, "optimizer": optimizer, "schedule": schedule})

    def advance(step: int) -> dict[str, float]:
        inputs, targets = stdlib_text.batch(train, BATCH, CONTEXT)
        scores, _ = model(inputs)
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return {"loss": loss.item()}

    state.loop(advance)
    print(
        f"held-out loss {held_out_loss(model, held_out):.4f} nats a character (guessing: {math.log(len(alphabet)):.2f})"
    )
    prompt = tg.tensor(alphabet.encode(args.prompt) if args.prompt else [0], device=device).view(1, -1)
    start = time.perf_counter()
    written = alphabet.decode(model.generate(prompt, args.length)[0].tolist())
    seconds = time.perf_counter() - start
    print(f"\n{written}\n\n{args.length} characters in {seconds:.1f} s, {args.length / seconds:.0f} a second")
    common.save_text(written, args.out / "sample.py.txt")
    common.save_curves(state.history, args.out / "curve.png", "char_gpt: cross-entropy, nats a character")
    return state


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return common.main(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
