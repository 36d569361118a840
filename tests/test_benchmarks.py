"""The benchmarks run, and what they compare computes the same thing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import rounds

ROOT = Path(__file__).resolve().parent.parent
PEER = "torch" if importlib.util.find_spec("torch") else ""


def benchmarks(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_losses_from_equal_weights_agree():
    out = benchmarks("tiny", "mlp", "cnn", "--check", "--peers", PEER)
    assert "DIFFERS" not in out


def test_losses_in_double_agree_beyond_what_single_can_show():
    out = benchmarks("resnet18", "gpt-micro", "lstm", "--check", "--double", "--peers", PEER)
    assert "DIFFERS" not in out


def test_losses_of_other_networks_agree():
    names = ("vae", "encoder", "bilstm", "dlrm-bags", "pinn", "graph")
    out = benchmarks(*names, "--check", "--double", "--peers", PEER)
    assert "DIFFERS" not in out


def test_a_process_that_dies_is_followed_by_another(monkeypatch):
    ask = rounds.Process.ask

    def dying(self, do, **arguments):
        if arguments.get("workload") == "mlp":
            self.kill()
        return ask(self, do, **arguments)

    monkeypatch.setattr(rounds.Process, "ask", dying)
    found = rounds.losses(["mlp", "tiny"], ["tensorgrad"], 1, steps=2)
    assert "the process ended with code" in found["mlp"][0].error
    assert found["tiny"][0].error is None and len(found["tiny"][0].losses) == 2


def test_table_and_json(tmp_path):
    path = tmp_path / "results" / "tiny.json"
    out = benchmarks("tiny", "--steps", "3", "--peers", PEER, "--json", str(path))
    assert "workload" in out
    result = json.loads(path.read_text())
    ours = result["workloads"]["tiny"]["frameworks"]["tensorgrad"]
    assert ours["steps"] == 3
    assert ours["median_s"] > 0
    assert ours["peak_mb"] > ours["import_mb"] / 2
    assert {"date", "cpu", "threads", "versions"} <= result["environment"].keys()


def test_single_ops_and_overhead():
    assert "matmul 64 + backward" in benchmarks("matmul 64", "--ops", "--peers", "")
    out = benchmarks("add", "sort", "--ops", "--sizes", "1e2,1e3", "--peers", PEER)
    assert "sort 1e3 + backward" in out
    assert not PEER or "of 8 cells below 0.9" in out
    assert "tensorgrad" in benchmarks("--overhead", "--peers", "")


def test_an_unknown_name_lists_the_known_ones():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "resnet"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "resnet18" in done.stderr
