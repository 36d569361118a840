"""The digits example on device ``cuda``: the command, with a part of the images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.examples import digits
from tests.gpu.beside_cpu import cuda_here

for module in ("sklearn", "matplotlib", "rich", "safetensors"):
    pytest.importorskip(module, reason="the example needs pip install 'tensorgrad[examples]'")


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    with cuda_here():
        yield


@pytest.fixture(autouse=True)
def fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    load = digits.load
    monkeypatch.setattr(digits, "load", lambda *which: tuple(part[::6] for part in load(*which)))


def trained(out: Path, backend: str, *options: str) -> Any:
    return digits.run(digits.parser().parse_args(["--backend", backend, "--out", str(out), *options]))


def assert_near(mine: Any, theirs: Any) -> None:
    assert {p.device.type for p in mine.model.parameters()} == {"cuda"}
    assert {p.device.type for p in theirs.model.parameters()} == {"cpu"}
    # the same images, masks and rates: what rounding makes of it grows with the steps
    np.testing.assert_allclose(mine.step_losses[:3], theirs.step_losses[:3], rtol=1e-4)
    np.testing.assert_allclose(mine.step_losses, theirs.step_losses, rtol=1e-2)


def test_it_learns_as_on_the_cpu_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "cupy", "--epochs", "2")
    assert_near(whole, trained(tmp_path / "cpu", "numpy", "--epochs", "2"))
    assert whole.history["train_loss"][1] < whole.history["train_loss"][0]
    for name in ("curve.png", "confusion.png", "digits.safetensors"):
        assert (tmp_path / "whole" / name).stat().st_size > 1000

    trained(tmp_path / "parts", "cupy", "--epochs", "1")
    parts = trained(tmp_path / "parts", "cupy", "--epochs", "2", "--resume")
    assert parts.history == whole.history
    mine, theirs = parts.model.state_dict(), whole.model.state_dict()
    assert {name: value.tolist() for name, value in mine.items()} == {n: value.tolist() for n, value in theirs.items()}


def test_it_adapts_to_other_digits_as_on_the_cpu(tmp_path: Path) -> None:
    mine = trained(tmp_path / "cuda", "cupy", "--fine-tune", "--epochs", "1")
    theirs = trained(tmp_path / "cpu", "numpy", "--fine-tune", "--epochs", "1")
    assert_near(mine, theirs)
