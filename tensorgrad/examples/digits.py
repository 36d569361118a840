"""A convolutional network learns handwritten digits, on a backend of your choice.

python -m tensorgrad.examples.digits                     train, show progress, write pictures and a checkpoint
python -m tensorgrad.examples.digits --backend numpy     the same on another backend
python -m tensorgrad.examples.digits --resume            continue a run that was stopped, to the same bits
python -m tensorgrad.examples.digits --fine-tune         learn 0 to 4, then adapt a few layers to 5 to 9
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.errors import MissingExtra, TensorgradError, require_extra
from tensorgrad.examples.digits_data import augmented, load
from tensorgrad.examples.digits_report import Progress, save_confusion, save_curve
from tensorgrad.io import safetensors
from tensorgrad.utils.data import DataLoader, TensorDataset

BATCH = 64
RATE = 4e-3
WARM_UP, HORIZON = 2, 24  # epochs until the rate is highest, and until it has fallen to a hundredth
WINDOW = 4  # epochs that are averaged to tell whether the loss still falls
COLUMNS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


class Net(nn.Module):
    """Four convolutions with batch norm, two poolings, dropout, and a linear head: 76 thousand parameters."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            self.block(1, 32), self.block(32, 32), nn.MaxPool2d(2), nn.Dropout(0.1),
            self.block(32, 64), self.block(64, 64), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(256, classes))

    @staticmethod
    def block(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Any) -> Any:
        return self.head(self.features(x))


def rate_factor(step: int, steps_per_epoch: int) -> float:
    """The learning rate over the run, relative to the highest: a linear rise, then half a cosine down.

    It does not depend on where the run is told to end, so a run of 3 epochs resumed to 6 is a run of 6.
    """
    epoch = step / steps_per_epoch
    if epoch < WARM_UP:
        return (epoch + 0.1) / (WARM_UP + 0.1)
    part = min(1.0, (epoch - WARM_UP) / (HORIZON - WARM_UP))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2


def has_converged(losses: list[float]) -> bool:
    """Whether the training loss, averaged over a window of epochs, fell by less than 2 % from one to the next.

    The held-out images have no say in it: they are only looked at.
    """
    if len(losses) < 2 * WINDOW:
        return False
    before, now = losses[-2 * WINDOW : -WINDOW], losses[-WINDOW:]
    return sum(now) > 0.98 * sum(before)


class Training:
    """One run: everything that changes while it runs, and the file that holds all of it after each epoch."""

    def __init__(self, model: nn.Module, data: Any, checkpoint: Path, seed: int, device: str = "cpu"):
        self.model = model.to(device)
        self.images, self.labels, self.test_images, self.test_labels = (part.to(device) for part in data)
        self.checkpoint = checkpoint
        self.generator = tg.Generator().manual_seed(seed)  # of the order and the augmentation
        dataset = TensorDataset(self.images, self.labels)
        self.loader: DataLoader[Any] = DataLoader(dataset, batch_size=BATCH, shuffle=True, generator=self.generator)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = tg.optim.AdamW(trained, lr=RATE, weight_decay=0.02)
        steps = len(self.loader)
        self.schedule = tg.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate_factor(step, steps))
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.02)
        self.history: dict[str, list[float]] = {name: [] for name in COLUMNS}
        self.step_losses: list[float] = []

    @property
    def epochs_done(self) -> int:
        return len(self.history["train_loss"])

    def set_training(self) -> None:
        """Training mode, but for the parts that are frozen: their batch norms keep their statistics."""
        self.model.train()
        for module in self.model.modules():
            own = list(module.parameters())
            if own and not any(p.requires_grad for p in own):
                module.eval()

    def step(self, images: Any, labels: Any) -> tuple[float, int]:
        """Forward, error, backward, update. Returns the loss and the number of right answers."""
        scores = self.model(augmented(images, self.generator))
        loss = self.loss(scores, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.step_losses.append(loss.item())
        return self.step_losses[-1], int((scores.argmax(1) == labels).sum())

    def run_epoch(self, progress: Progress | None = None) -> dict[str, float]:
        """Once over the training images, then a look at the held-out ones."""
        self.set_training()
        total, right, seen = 0.0, 0, 0
        for images, labels in self.loader:
            loss, hits = self.step(images, labels)
            seen += len(labels)
            total, right = total + loss * len(labels), right + hits
            if progress is not None:
                progress.batch(self.epochs_done, seen / len(self.labels), loss)
        test_loss, test_accuracy = self.evaluate()
        row = dict(zip(COLUMNS, (total / seen, right / seen, test_loss, test_accuracy), strict=True))
        for name, value in row.items():
            self.history[name].append(value)
        return row

    def guesses(self) -> Any:
        """The network's answers to the held-out images."""
        self.model.eval()
        with tg.no_grad():
            return self.model(self.test_images)

    def evaluate(self) -> tuple[float, float]:
        """Loss and accuracy on the held-out images."""
        scores = self.guesses()
        loss = nn.functional.cross_entropy(scores, self.test_labels).item()
        return loss, (scores.argmax(1) == self.test_labels).float().mean().item()

    def run(self, epochs: int, progress: Progress) -> bool:
        """Train until convergence or ``epochs``; True if it converged."""
        while self.epochs_done < epochs and not has_converged(self.history["train_loss"]):
            start = time.perf_counter()
            row = self.run_epoch(progress)
            self.save()
            progress.epoch(self.epochs_done, row, time.perf_counter() - start)
        return has_converged(self.history["train_loss"])

    def save(self) -> None:
        """Write model, optimizer, schedule, generators and history to the checkpoint, at once or not at all."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, state in optimizer["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        tensors |= {f"history.{name}": tg.tensor(values, dtype=tg.float64) for name, values in self.history.items()}
        tensors["generator.data"] = self.generator.get_state()
        tensors["generator.default"] = tg.random.get_rng_state()
        schedule = {name: value for name, value in self.schedule.state_dict().items() if name != "lr_lambdas"}
        facts = {"optimizer": json.dumps(optimizer["param_groups"]), "schedule": json.dumps(schedule)}
        safetensors.save_file(tensors, self.checkpoint, facts)

    def restore(self) -> None:
        """Continue from the checkpoint. Raises TensorgradError if it is not one of a run like this."""
        tensors = safetensors.load_file(self.checkpoint)
        facts = safetensors.load_metadata(self.checkpoint)
        try:
            groups, schedule = json.loads(facts["optimizer"]), json.loads(facts["schedule"])
            self.model.load_state_dict(_under(tensors, "model."))
            state: dict[int, dict[str, Any]] = {}
            for key, value in _under(tensors, "optimizer.").items():
                number, _, name = key.partition(".")
                state.setdefault(int(number), {})[name] = value
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
            self.schedule.load_state_dict({**schedule, "lr_lambdas": [None] * len(groups)})
            self.history = {name: tensors[f"history.{name}"].tolist() for name in COLUMNS}
            self.generator.set_state(tensors["generator.data"])
            tg.random.set_rng_state(tensors["generator.default"])
        except (KeyError, ValueError) as error:
            raise TensorgradError(f"{self.checkpoint} is not a checkpoint of this run: {error}") from error


def _under(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def train(training: Training, title: str, args: argparse.Namespace) -> None:
    """Run a training, or what is left of it, and say how it went."""
    if args.resume and training.checkpoint.exists():
        training.restore()
        print(f"resumed after epoch {training.epochs_done} from {training.checkpoint}")
    start = time.perf_counter()
    with Progress(title, args.epochs) as progress:
        converged = training.run(args.epochs, progress)
    why = "the loss has converged" if converged else "the last epoch asked for"
    print(
        f"stopped after epoch {training.epochs_done}: {why}. "
        f"Held-out accuracy {training.evaluate()[1]:.2%}, {time.perf_counter() - start:.1f} s"
    )


def write_pictures(training: Training, first: int, name: str, out: Path) -> None:
    save_curve(training.history, out / f"curve{name}.png", "digits")
    labels = np.asarray(training.test_labels.cpu())
    save_confusion(labels, np.asarray(training.guesses().argmax(1).cpu()), first, out / f"confusion{name}.png")
    print(f"wrote {out / f'curve{name}.png'}, {out / f'confusion{name}.png'}, {training.checkpoint}")


def learn_all(args: argparse.Namespace, device: str) -> Training:
    """Train on all ten digits."""
    tg.manual_seed(args.seed)
    training = Training(Net(), load(), args.out / "digits.safetensors", args.seed, device)
    train(training, "digits 0 to 9", args)
    write_pictures(training, 0, "", args.out)
    return training


def fine_tune(args: argparse.Namespace, device: str) -> Training:
    """Train on 0 to 4, then adapt to 5 to 9: a new head, and everything below the last convolution frozen."""
    tg.manual_seed(args.seed)
    model = Net(classes=5)
    first = Training(model, load(range(5)), args.out / "digits-0-4.safetensors", args.seed, device)
    train(first, "digits 0 to 4", args)

    tg.manual_seed(args.seed + 1)
    model.requires_grad_(False)
    model.features[5].requires_grad_(True)
    model.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(256, 5))
    second = Training(model, load(range(5, 10)), args.out / "digits-5-9.safetensors", args.seed + 1, device)
    before = second.evaluate()[1]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    print(f"adapting {trained:,} of {total:,} parameters; accuracy on 5 to 9 before: {before:.2%}")
    train(second, "digits 5 to 9", args)
    write_pictures(second, 5, "-5-9", args.out)
    print(f"accuracy on 0 to 4: {first.history['test_accuracy'][-1]:.2%}; on 5 to 9: {before:.2%} before adapting, "
          f"{second.evaluate()[1]:.2%} after")  # fmt: skip
    return second


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tensorgrad.examples.digits", description=__doc__.partition("\n")[0])
    made.add_argument("--backend", help="who computes: numpy, cpp, cupy, ...; the configured one by default")
    made.add_argument("--epochs", type=int, default=40, help="at most this many (default %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation and dropout")
    made.add_argument("--out", type=Path, default=Path("digits-run"), help="folder of results (default %(default)s)")
    made.add_argument("--resume", action="store_true", help="continue the run whose checkpoint lies in the folder")
    made.add_argument("--fine-tune", action="store_true", help="learn 0 to 4, then adapt to 5 to 9")
    return made


def run(args: argparse.Namespace) -> Training:
    """The example, after its arguments are read. Raises TensorgradError for what can't be done here."""
    for module in ("sklearn", "matplotlib", "rich", "safetensors"):
        require_extra(module, "examples")
    chosen = registry.on_device("cpu") if args.backend is None else registry.get(args.backend)
    device = chosen.device_type
    print(f"backend {chosen.name}: {chosen.describe() or device}")
    args.out.mkdir(parents=True, exist_ok=True)
    with tg.backend(chosen.name) if args.backend is not None else nullcontext():
        return fine_tune(args, device) if args.fine_tune else learn_all(args, device)


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 if all went well, 1 with one line if it can't run, 130 if interrupted."""
    reader = parser()
    args = reader.parse_args(argv)
    if args.epochs < 1:
        reader.error(f"--epochs must be at least 1, got {args.epochs}")
    try:
        run(args)
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


if __name__ == "__main__":
    sys.exit(main())
