"""``benchmarks.gpu``, as far as it runs without a GPU: toy sizes, on the stand-in or on the CPU."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import correctness, kernels, models, place, tables, training
from benchmarks.gpu.models import MODELS
from benchmarks.workloads import with_initial_state
from tensorgrad.testing.strict_backend import strict_cuda

TOY = training.Options("stand-in", toy=True, size={}, threads=1, at_once=2)
needs_torch = pytest.mark.skipif(not command.installed(command.FRAMEWORKS["torch"]), reason="PyTorch is not installed")


def test_without_a_gpu_one_line_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    if place.why_not() is None:
        pytest.skip("there is a GPU here")
    assert command.main([]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("no GPU to measure on: ") and captured.err.count("\n") == 1
    assert captured.out == ""


def test_wrong_arguments_name_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, said in (
        (["--parts", "speed"], "tests, large"),
        (["--workloads", "gpt3"], "gpt2-bf16"),
        (["--minutes", "0"], "positive"),
    ):
        with pytest.raises(SystemExit):
            command.main(wrong)
        assert said in capsys.readouterr().err


@needs_torch
@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_in_pytorch(name: str) -> None:
    import torch

    make, full, toy = MODELS[name]
    assert full == type(full)(half=toy.half) if name.startswith("resnet") else full == type(full)()
    losses = []
    for ns in (tg, torch):
        job: Any = with_initial_state(make(ns, "cpu", toy), ns)
        if name.endswith("tf32"):  # batch norm of a toy's few positions makes roundings large
            job.double(ns)
        losses.append([float(job.step(i).detach()) for i in range(3)])
        ns.backends.cudnn.allow_tf32, ns.backends.cuda.matmul.allow_tf32 = ns is torch, False
    ours, theirs = (steps[:1] if name == "resnet50-bf16" else steps for steps in losses)
    np.testing.assert_allclose(ours, theirs, rtol=0.02 if "bf16" in name else 1e-9)
    assert len(set(losses[0])) == 3


def test_the_large_networks_have_their_published_sizes() -> None:
    full = models.Gpt2()
    assert 850e6 < full.flops() / (full.batch * full.context) < 860e6  # the notes' 855 MFLOP a token
    job = models.resnet50(tg, "cpu", models.ResNet50(batch=1, size=32))
    tg.backends.cudnn.allow_tf32 = False
    assert sum(p.numel() for p in job.model.parameters()) == 25_557_032


@needs_torch
def test_training_in_turns_on_the_stand_in(capsys: pytest.CaptureFixture[str]) -> None:
    found = training.train(["tiny"], ["tensorgrad-compile", "torch"], TOY, 120)
    one = found["tiny"]
    assert one["rounds"] == TOY.rounds and one["losses_apart"] < 1e-4
    assert set(one["times_faster"]) == {"tensorgrad-compile than torch"}
    for framework in one["frameworks"].values():
        assert framework["median_ms"] > 0 and framework["steps"] == 3 * TOY.rounds and len(framework["losses"]) == 3
    tables.show("small", {"seconds_taken": 1.0, "result": found})
    assert "times as fast, tensorgrad-compile than torch" in capsys.readouterr().out


def test_a_large_network_on_the_stand_in_with_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    found = command._large(["gpt2-bf16"], ["tensorgrad"], TOY, 120)
    ours = found["gpt2-bf16"]["frameworks"]["tensorgrad"]
    assert ours["tokens_s"] == pytest.approx(2 * 16 / ours["median_ms"] * 1e3)
    tables.show("large", {"seconds_taken": 1.0, "result": found})
    assert "tokens/s" in capsys.readouterr().out


def test_what_does_not_fit_in_its_time_is_listed() -> None:
    found = training.train(["tiny"], ["tensorgrad"], TOY, 0.05)
    assert found["tiny"]["frameworks"]["tensorgrad"] == {"error": "not run: its time was over"}
    rows = training.kernel_rows(["tensorgrad"], TOY, 0.0, ["copy"])
    assert rows["rows"]["copy"] == {"error": "not run: its time was over"}
    parts = {"small": {"result": found}, "kernels": {"result": rows}, "tests": {"error": "not run: the time was over"}}
    assert tables.not_run(parts) == ["tiny by tensorgrad", "kernels copy", "tests (not run: the time was over)"]
    assert not tables.wrong(parts)
    assert tables.wrong({"tests": {"result": {"failed": 1}}}) and tables.wrong({"sanitizer": {"result": {"errors": 2}}})


def test_the_command_writes_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (
        "copy",
        "matmul bfloat16",
        "softmax bfloat16",
        "adamw float32",
        "conv + backward bfloat16",
        "attention bfloat16",
    )
    monkeypatch.setattr(kernels, "ROWS", {name: kernels.ROWS[name] for name in chosen})
    monkeypatch.setattr(command, "EAGER", ("tensorgrad",))
    path = tmp_path / "gpu.json"
    assert command.main(["--dry", "--parts", "kernels,sanitizer", "--minutes", "2", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    rows = result["parts"]["kernels"]["result"]["rows"]
    assert list(rows) == list(chosen)
    assert all(row["seconds"]["tensorgrad"] > 0 and not row["errors"] for row in rows.values())
    assert rows["copy"]["share"] == {"tensorgrad": 1.0} and rows["softmax bfloat16"]["share"]["tensorgrad"] > 0
    assert result["parts"]["kernels"]["seconds_given"] <= 120
    assert {"date", "gpu", "versions"} <= result["environment"].keys()


def test_every_row_counts_something() -> None:
    for name, row in kernels.ROWS.items():
        for toy in (False, True):
            assert bool(row.bytes(toy)) != bool(row.flops(toy)), name
        assert row.of in kernels.CEILINGS
    assert kernels.ROWS["softmax float32"].bytes(False) == 2 * 4 * 2**26
    assert kernels.ROWS["matmul tf32"].flops(False) == 2 * 8192**3


def test_clocks() -> None:
    with strict_cuda():
        for clock in (place.EventClock(tg), place.HostClock()):
            for _ in range(3):
                clock.mark()
                time.sleep(0.01)
            first, second = clock.seconds()
            assert 0.01 <= first < 5 and 0.01 <= second < 5
            assert clock.seconds() == []


@needs_torch
def test_tests_are_counted_and_stopped_in_time(tmp_path: Path) -> None:
    path = tmp_path / "test_some.py"
    path.write_text(
        "import time, pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'so it is'\n"
        "@pytest.mark.skip(reason='no time')\ndef test_skipped(): pass\n"
        "def test_long(): time.sleep(60)\n"
    )
    found = correctness.run_tests(60, select="not long", targets=[str(path)])
    assert {key: found[key] for key in ("passed", "failed", "skipped", "over")} == {
        "passed": 1, "failed": 1, "skipped": 1, "over": False
    }  # fmt: skip
    assert "so it is" in found["failures"][0] and found["why_skipped"] == ["no time"]
    start = time.monotonic()
    found = correctness.run_tests(6, select="good or long", targets=[str(path)])
    assert found["over"] and time.monotonic() - start < 40
    assert "error" in found or found["failed"] == 0
    assert "left no report" in correctness.run_tests(30, select="x", targets=["tests/no_such_file.py"]).get(
        "error", "left no report"
    )


def test_the_sanitizer_is_asked_and_understood(tmp_path: Path) -> None:
    assert "there is no no-such-sanitizer here" in correctness.sanitize(1, tool="no-such-sanitizer")["error"]
    tool = tmp_path / "sanitizer"
    tool.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "assert sys.argv[1:3] == ['--tool', 'memcheck'] and 'benchmarks.gpu.without_pool' in sys.argv, sys.argv\n"
        "assert sys.argv[-1] == 'value and (softmax)', sys.argv\n"
        "print('12 passed in 3 s')\nprint('========= Invalid __global__ read of size 4 bytes')\n"
        "print('========= ERROR SUMMARY: 3 errors')\n"
    )
    tool.chmod(0o755)
    found = correctness.sanitize(60, tool=str(tool), select="softmax")
    assert (found["errors"], found["passed"], found["over"]) == (3, 12, False)
    assert found["first"][0].endswith("4 bytes")


def test_the_plugin_that_turns_the_pool_off_imports_anywhere() -> None:
    import benchmarks.gpu.without_pool  # noqa: F401 - without a GPU it does nothing
