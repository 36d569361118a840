"""What the examples share: the command line, the loop with its progress, checkpoint and resume, and pictures."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.errors import MissingExtra, TensorgradError, require_extra
from tensorgrad.io.atomic import write_atomically

__all__ = ["Run", "figure", "main", "parser", "save_curves", "save_figure", "save_text"]


def parser(name: str, doc: str, steps: int, every: int) -> argparse.ArgumentParser:
    """The arguments that every example takes; ``steps`` and ``every`` are their defaults."""
    made = argparse.ArgumentParser(
        prog=f"python -m tensorgrad.examples.{name}", description=doc, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--backend", help="who computes: numpy, cpp, cupy, ...; the configured one by default")
    made.add_argument("--steps", type=int, default=steps, help="how many in all (default %(default)s)")
    made.add_argument(
        "--every", type=int, default=every, help="steps between two lines and two checkpoints (default %(default)s)"
    )
    made.add_argument("--seed", type=int, default=0, help="of weights and of everything drawn")
    made.add_argument("--out", type=Path, default=Path("runs") / name, help="folder of results (default %(default)s)")
    made.add_argument("--resume", action="store_true", help="continue the run whose checkpoint lies in the folder")
    return made


class Run:
    """One run of an example: what it trains, how far it is, what it has seen, and the file that holds all of that.

    Args:
        args: the command line.
        parts: the modules, optimizers and schedules by name; whatever has a ``state_dict``.
    """

    def __init__(self, args: argparse.Namespace, parts: dict[str, Any]):
        self.args, self.parts = args, parts
        self.step = 0
        self.history: dict[str, list[float]] = {}
        self.path = args.out / "checkpoint.pt"
        if args.resume and self.path.exists():
            self.restore()
            print(f"resumed after step {self.step} from {self.path}")

    def loop(self, advance: Callable[[int], dict[str, float]]) -> None:
        """Call ``advance(step)`` until all steps are done; what it returns is averaged, shown and kept."""
        start, shown = time.perf_counter(), self.step
        sums: dict[str, float] = {}
        with _progress(self.args.steps, self.step) as show:
            while self.step < self.args.steps:
                for name, value in advance(self.step).items():
                    sums[name] = sums.get(name, 0.0) + value
                self.step += 1
                if self.step % self.args.every and self.step < self.args.steps:
                    continue
                count = self.step - shown
                means = {name: value / count for name, value in sums.items()}
                for name, value in {"step": float(self.step), **means}.items():
                    self.history.setdefault(name, []).append(value)
                text = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
                show(self.step, text, time.perf_counter() - start)
                shown, sums = self.step, {}
                self.save()
        print(f"{self.step} steps, {time.perf_counter() - start:.1f} s; checkpoint {self.path}")

    def save(self) -> None:
        """Write the checkpoint, at once or not at all."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        tg.save({"step": self.step, "history": self.history, "parts": states, "rng": tg.get_rng_state()}, self.path)

    def restore(self) -> None:
        """Continue from the checkpoint. Raises TensorgradError if it is not one of a run like this."""
        try:
            found = tg.load(self.path)
            for name, part in self.parts.items():
                part.load_state_dict(found["parts"][name])
            self.step, self.history = found["step"], found["history"]
            tg.set_rng_state(found["rng"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TensorgradError(f"{self.path} is not a checkpoint of this run: {error}") from error


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[int, str, float], None]]:
    """A live bar in a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        yield lambda step, text, seconds: print(f"step {step:5d}/{total}  {text}   {seconds:.1f} s", flush=True)
        return
    rich = require_extra("rich.progress", "examples")
    bar = rich.Progress(
        rich.BarColumn(), rich.MofNCompleteColumn(), rich.TextColumn("{task.description}"), rich.TimeElapsedColumn()
    )
    with bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda step, text, seconds: bar.update(task, completed=step, description=text)


def main(reader: argparse.ArgumentParser, run: Callable[[argparse.Namespace, str], Any], argv: Any = None) -> int:
    """Read the command line and call ``run(args, device)``, with the chosen backend computing.

    Returns 0 if all went well, 1 after one line if it can't run, 130 if it was interrupted.
    """
    args = reader.parse_args(argv)
    for name in ("steps", "every"):
        if getattr(args, name) < 1:
            reader.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    try:
        for module in ("matplotlib", "rich"):
            require_extra(module, "examples")
        with chosen_backend(args.backend) as device:
            args.out.mkdir(parents=True, exist_ok=True)
            tg.manual_seed(args.seed)
            run(args, device)
    except MissingExtra as error:
        print(error, file=sys.stderr)
        return 1
    except (TensorgradError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; continue with --resume --out {args.out}", file=sys.stderr)
        return 130
    return 0


@contextmanager
def chosen_backend(name: str | None) -> Iterator[str]:
    """The backend of that name, or the configured one, computes in the block; gives its type of device."""
    chosen = registry.on_device("cpu") if name is None else registry.get(name)
    print(f"backend {chosen.name}: {chosen.describe() or chosen.device_type}")
    if name is None:
        yield chosen.device_type
    else:
        with tg.backend(chosen.name):
            yield chosen.device_type


def figure(width: float, height: float) -> Any:
    """A figure of our own, without pyplot: no window system, no global state."""
    return require_extra("matplotlib.figure", "examples").Figure(figsize=(width, height), layout="constrained")


def save_figure(made: Any, path: Path) -> None:
    """Write a figure as PNG, at once or not at all."""
    content = io.BytesIO()
    made.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())
    print(f"wrote {path}")


def save_curves(history: dict[str, list[float]], path: Path, title: str) -> None:
    """Everything that was seen along the steps, as a picture."""
    made = figure(6.5, 4.2)
    axes = made.subplots()
    for name, values in history.items():
        if name != "step":
            axes.plot(history["step"], values, label=name)
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(made, path)


def save_text(text: str, path: Path) -> None:
    """Write a text, at once or not at all."""
    write_atomically(path, text.encode())
    print(f"wrote {path}")
