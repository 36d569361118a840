"""The training examples: a few steps, on two backends, and the same run again after an interruption."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.examples import common

NAMES = ("char_gpt", "lstm_text", "vae_digits", "dcgan_digits", "pinn", "neural_ode", "cartpole")
BACKENDS = [name for name in ("numpy", "cpp") if registry.class_of(name).why_not() is None]


def example(name, tmp_path, *arguments):
    """(exit status, the checkpoint's contents) of a short run."""
    module = importlib.import_module(f"tensorgrad.examples.{name}")
    short = ("--length", "3") if name in ("char_gpt", "lstm_text") else ()
    status = module.main(["--out", str(tmp_path), "--every", "1", *short, *arguments])
    return status, tg.load(tmp_path / "checkpoint.pt") if (tmp_path / "checkpoint.pt").exists() else None


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_continues_to_the_same_bits(name, tmp_path, monkeypatch):
    status, whole = example(name, tmp_path / "whole", "--steps", "3")
    assert status == 0
    assert len(list((tmp_path / "whole").iterdir())) == 3  # checkpoint, curve, and a picture or a text
    assert all(picture.stat().st_size > 5000 for picture in (tmp_path / "whole").glob("*.png"))
    save = common.Run.save

    def save_and_stop(self):
        save(self)
        if self.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(common.Run, "save", save_and_stop)
        assert example(name, tmp_path / "parts", "--steps", "3")[0] == 130
    status, parts = example(name, tmp_path / "parts", "--steps", "3", "--resume")
    assert status == 0 and parts["step"] == 3
    assert parts["history"] == whole["history"]
    for key, state in whole["parts"].items():
        for entry, value in state.items():
            if isinstance(value, tg.Tensor):
                assert tg.equal(value, parts["parts"][key][entry]), (key, entry)


@pytest.mark.parametrize("name", ("vae_digits", "dcgan_digits", "neural_ode", "cartpole"))
def test_backends_agree(name, tmp_path):
    seen = [example(name, tmp_path / b, "--steps", "2", "--backend", b)[1]["history"] for b in BACKENDS]
    for key in seen[0]:
        np.testing.assert_allclose(seen[0][key], seen[-1][key], rtol=1e-3, err_msg=key)


def test_wrong_uses_are_one_line(tmp_path, capsys):
    assert example("pinn", tmp_path, "--backend", "none")[0] == 1
    assert "unknown backend 'none'" in capsys.readouterr().err
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing of the kind")
    module = importlib.import_module("tensorgrad.examples.pinn")
    assert module.main(["--out", str(tmp_path), "--resume"]) == 1
    assert "is not a checkpoint of this run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        module.main(["--steps", "0"])


def test_the_exact_solution_solves_the_equation():
    """Finite differences of the Cole-Hopf integral, and its initial values."""
    from tensorgrad.examples.pinn import VISCOSITY, exact

    x, t, h = np.linspace(-0.9, 0.9, 19), np.full(19, 0.4), 1e-3
    u = exact(x, t)
    u_t = (exact(x, t + h) - exact(x, t - h)) / (2 * h)
    u_x = (exact(x + h, t) - exact(x - h, t)) / (2 * h)
    u_xx = (exact(x + h, t) - 2 * u + exact(x - h, t)) / h**2
    assert np.abs(u_t + u * u_x - VISCOSITY * u_xx).max() < 1e-3
    np.testing.assert_allclose(exact(x, np.full(19, 1e-6)), -np.sin(math.pi * x), atol=1e-4)


def test_a_cache_gives_the_scores_of_the_whole_context():
    from tensorgrad.examples.char_gpt import GPT

    tg.manual_seed(1)
    model = GPT(20, width=16, heads=2, layers=2, context=12)
    tokens = tg.randint(0, 20, (2, 12))
    whole, _ = model(tokens)
    first, cache = model(tokens[:, :5])
    parts = [first]
    for i in range(5, 12):
        scores, cache = model(tokens[:, i : i + 1], cache)
        parts.append(scores)
    tg.testing.assert_close(tg.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
