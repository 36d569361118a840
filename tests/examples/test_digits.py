"""The digits example: the same run again, on another backend, and after an interruption."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.examples import digits

CPP = registry.class_of("cpp").why_not() is None


def run(tmp_path, *arguments):
    return digits.run(digits.parser().parse_args([*arguments, "--out", str(tmp_path)]))


def weights(training):
    return {name: value.tolist() for name, value in training.model.state_dict().items()}


def test_same_seed_same_bits_and_resume_same_bits(tmp_path):
    whole = run(tmp_path / "whole", "--epochs", "2")
    run(tmp_path / "parts", "--epochs", "1")
    parts = run(tmp_path / "parts", "--epochs", "2", "--resume")
    assert parts.history == whole.history
    assert weights(parts) == weights(whole)
    for name in ("curve.png", "confusion.png", "digits.safetensors"):
        assert (tmp_path / "whole" / name).stat().st_size > 1000


@pytest.mark.skipif(not CPP, reason="the extension is not built; tensorgrad info says why")
def test_the_first_losses_agree_across_backends():
    def losses(backend):
        with tg.backend(backend):
            tg.manual_seed(5)
            model = digits.Net()
            optimizer = tg.optim.AdamW(model.parameters(), lr=1e-3)
            rng = np.random.default_rng(0)
            seen = []
            for _ in range(20):
                x = tg.from_numpy(rng.standard_normal((16, 1, 8, 8)).astype(np.float32))
                y = tg.from_numpy(rng.integers(0, 10, 16))
                optimizer.zero_grad()
                loss = tg.nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                seen.append(loss.item())
            return seen

    np.testing.assert_allclose(losses("cpp"), losses("numpy"), rtol=1e-4)


def test_fine_tune_adapts(tmp_path):
    training = run(tmp_path, "--fine-tune", "--epochs", "1")
    assert training.history


def test_a_missing_backend_is_one_clear_line(tmp_path, capsys):
    if registry.class_of("cupy").why_not() is None:
        pytest.skip("there is a GPU here")
    code = digits.main(["--backend", "cupy", "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert code != 0 and "cupy" in said.out + said.err and "Traceback" not in said.err
