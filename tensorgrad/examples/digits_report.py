"""What a training run shows: live progress in a terminal, plain lines elsewhere, and pictures at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.errors import require_extra
from tensorgrad.io.atomic import write_atomically

__all__ = ["Progress", "save_confusion", "save_curve"]


class Progress:
    """Shows the epochs of one run; a context manager."""

    def __init__(self, title: str, epochs: int):
        self.title = title
        self.epochs = epochs
        self.live: Any = None
        if sys.stdout.isatty():
            progress = require_extra("rich.progress", "examples")
            self.live = progress.Progress(
                progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[numbers]}"), progress.TimeElapsedColumn(),
            )  # fmt: skip

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
            self.task = self.live.add_task(self.title, total=self.epochs, numbers="")
        else:
            print(self.title, flush=True)
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.stop()

    def batch(self, epoch: int, part: float, loss: float) -> None:
        """Within an epoch, of which ``part`` is done."""
        if self.live is not None:
            self.live.update(self.task, completed=epoch + part, numbers=f"loss {loss:.4f}")

    def epoch(self, epoch: int, row: dict[str, float], seconds: float) -> None:
        """After an epoch."""
        text = (
            f"train loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:6.2%}   "
            f"held-out loss {row['test_loss']:.4f}  accuracy {row['test_accuracy']:6.2%}"
        )
        if self.live is not None:
            self.live.update(self.task, completed=epoch, numbers=text)
        else:
            print(f"epoch {epoch:3d}/{self.epochs}  {text}   {seconds:.1f} s", flush=True)


def _figure(columns: int) -> Any:
    # a figure of our own, without pyplot: no window system, no global state
    figure = require_extra("matplotlib.figure", "examples").Figure(figsize=(5.5 * columns, 4.2), layout="constrained")
    return figure, figure.subplots(1, columns)


def _save(figure: Any, path: Path) -> None:
    import io

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())


def save_curve(history: dict[str, list[float]], path: Path, title: str) -> None:
    """Loss and accuracy over the epochs, as a picture."""
    figure, (left, right) = _figure(2)
    epochs = np.arange(1, len(history["train_loss"]) + 1)
    for part, label in (("train", "training"), ("test", "held out")):
        left.plot(epochs, history[f"{part}_loss"], label=label)
        right.plot(epochs, [100 * value for value in history[f"{part}_accuracy"]], label=label)
    left.set(title=f"{title}: loss", xlabel="epoch", ylabel="cross-entropy", yscale="log")
    right.set(title=f"{title}: accuracy", xlabel="epoch", ylabel="%", ylim=(80, 100.5))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def save_confusion(labels: np.ndarray[Any, Any], guesses: np.ndarray[Any, Any], first: int, path: Path) -> None:
    """How often each digit (counted from ``first``) was taken for which, as a picture."""
    count = int(max(labels.max(), guesses.max())) + 1
    table = np.zeros((count, count), dtype=int)
    np.add.at(table, (labels, guesses), 1)
    figure, axes = _figure(1)
    axes.imshow(np.log1p(table), cmap="Blues")
    for (row, column), times in np.ndenumerate(table):
        if times:
            axes.text(column, row, str(times), ha="center", va="center",
                      color="white" if row == column else "firebrick")  # fmt: skip
    names = [str(first + i) for i in range(count)]
    axes.set(title="held-out digits", xlabel="taken for", ylabel="digit", xticks=range(count), yticks=range(count),
             xticklabels=names, yticklabels=names)  # fmt: skip
    _save(figure, path)
