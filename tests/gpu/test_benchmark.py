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
from benchmarks.gpu import card, correctness, kernels, models, place, tables, training
from benchmarks.gpu.kernel_rows import kernel_rows
from benchmarks.gpu.marks import marks
from benchmarks.gpu.models import MODELS
from benchmarks.rounds import Process, WorkerError
from benchmarks.workloads import with_initial_state
from tensorgrad.errors import BackendError
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
def test_training_in_turns_beside_pytorch_eager_and_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of the worker but those of the device's clock; PyTorch and its compiler work on the CPU."""
    frameworks = list(command.COMPILED)
    noted: list[str] = []
    found = training.train(["tiny"], frameworks, TOY, 300, lambda so_far: noted.extend(so_far))
    one = found["tiny"]
    assert noted == ["tiny"]
    assert not [how["error"] for how in one["frameworks"].values() if "error" in how]
    assert one["rounds"] == TOY.rounds and one["losses_apart"] < 1e-4
    assert len(one["times_faster"]) == 4 and one["times_faster"]["tensorgrad-compile than torch-compile"] > 0
    for framework in one["frameworks"].values():
        assert framework["median_ms"] > 0 and framework["steps"] == 3 * TOY.rounds and len(framework["losses"]) == 3
    tables.show("small", {"seconds_taken": 1.0, "result": found})
    assert "tiny, times as fast: tensorgrad than torch" in capsys.readouterr().out


@needs_torch
def test_every_row_runs_in_both_frameworks() -> None:
    found = kernel_rows(["tensorgrad", "torch"], TOY, 300, list(kernels.ROWS))
    assert set(found["ceilings"]) == set(kernels.CEILINGS)
    for name, row in found["rows"].items():
        assert not row["errors"] and set(row["share"]) == {"tensorgrad", "torch"}, (name, row["errors"])


def test_a_process_that_fails_hangs_or_dies_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    said = r"code 1: the places are cuda, stand-in; got 'nowhere'"
    with Process("tensorgrad", 1, training.MODULE, "nowhere") as process, pytest.raises(WorkerError, match=said):
        process.ask("hello")
    with TOY.process("tensorgrad") as process:
        assert process.ask("hello") == {"device": "cuda"}
        with pytest.raises(WorkerError, match=r"KeyError: 'no such workload'"):
            process.ask("build", workload="no such workload")
        with training.limited(process, 60):
            process.ask("build", workload="tiny")
        with pytest.raises(WorkerError, match=r"no answer within 1 s, ended"), training.limited(process, 1.0):
            process.ask("steps", count=1_000_000)
        with pytest.raises(WorkerError, match=r"ended with code -9"):
            process.ask("hello")
    monkeypatch.setitem(kernels.ROWS, "unheard of", kernels.ROWS["copy"])  # but not in the worker
    found = kernel_rows(["tensorgrad"], TOY, 120, ["unheard of", "copy"])
    assert found["rows"]["unheard of"]["errors"] == {"tensorgrad": "KeyError: 'unheard of'"}
    assert found["rows"]["copy"]["seconds"]["tensorgrad"] > 0  # by another process


def test_a_large_network_on_the_stand_in_with_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    found = command._large(["gpt2-bf16"], ["tensorgrad"], TOY, 120)
    ours = found["gpt2-bf16"]["frameworks"]["tensorgrad"]
    assert ours["tokens_s"] == pytest.approx(2 * 16 / ours["median_ms"] * 1e3)
    tables.show("large", {"seconds_taken": 1.0, "result": found})
    assert "tokens/s" in capsys.readouterr().out


def test_what_does_not_fit_in_its_time_is_listed() -> None:
    found = training.train(["tiny"], ["tensorgrad", "tensorgrad-compile"], TOY, 0.05)  # one is built at a time
    assert "its time was over" in found["tiny"]["frameworks"]["tensorgrad"]["error"]
    assert "others took the 0 s for building" in found["tiny"]["frameworks"].pop("tensorgrad-compile")["error"]
    rows = kernel_rows(["tensorgrad"], TOY, 0.0, ["copy"])
    assert rows["rows"]["copy"] == {"error": "not run: its time was over"}
    parts: dict[str, Any] = {
        "small": {"result": found}, "kernels": {"result": rows}, "tests": {"error": "not run: the time was over"},
        "large": {"result": {}, "error": "cut off"}, "sanitizer": {"result": {"over": True, "errors": 0}},
    }  # fmt: skip
    assert tables.not_run(parts) == [
        "tiny by tensorgrad", "kernels copy", "tests (not run: the time was over)", "the rest of large (cut off)",
        "the rest of sanitizer",
    ]  # fmt: skip
    assert not tables.wrong(parts)
    assert tables.wrong({"tests": {"result": {"failed": 1}}}) and tables.wrong({"sanitizer": {"result": {"errors": 2}}})
    assert tables.wrong({"small": {"error": "raised", "raised": "raised"}})


def test_a_part_that_raises_or_is_cut_off_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpu.json"
    written: list[dict[str, Any]] = []

    def half(seconds: float, note: command.Note) -> dict[str, Any]:
        note({"tiny": {"frameworks": {"torch": {"error": "slow"}}, "times_faster": {}, "losses_apart": None}})
        written.append(json.loads(path.read_text()))
        raise ValueError("the other half")

    monkeypatch.setattr(command, "_works", lambda args, found: {"small": half, "sanitizer": lambda s, note: {}})
    monkeypatch.setattr(tables, "show", lambda part, found: print(part))
    assert command.main(["--dry", "--parts", "small,sanitizer", "--minutes", "1", "--json", str(path)]) == 1
    assert written[0]["parts"]["small"]["error"] == "cut off" and "tiny" in written[0]["parts"]["small"]["result"]
    monkeypatch.undo()
    small = json.loads(path.read_text())["parts"]["small"]
    assert small["error"] == "raised ValueError: the other half" and "tiny" in small["result"]
    assert "ValueError: the other half" in capsys.readouterr().err
    tables.show("small", small)
    assert "the other half" in (out := capsys.readouterr().out) and "tiny, torch: slow" in out
    path.write_text(json.dumps(written[0]))
    assert command.main(["--show", str(path)]) == 0
    assert "the rest of small (cut off)" in (out := capsys.readouterr().out) and "MISSED" not in out


def test_marks_are_met_missed_or_not_known() -> None:
    def faster(**ratios: float) -> dict[str, Any]:
        return {"times_faster": {pair.replace("_", "-").replace("--", " than "): x for pair, x in ratios.items()}}

    parts: dict[str, Any] = {
        "tests": {"result": {"passed": 9, "failed": 0, "over": False}},
        "sanitizer": {"error": "not run"},
        "kernels": {"result": {"rows": {
            "copy": {"bytes": 8, "share": {"tensorgrad": 1.0}},
            "add float32": {"bytes": 8, "share": {"tensorgrad": 0.9}},
            "sum float32": {"bytes": 8, "share": {"tensorgrad": 0.8, "torch": 0.9}},
            "matmul float32": {"bytes": 0, "share": {"tensorgrad": 0.1}},
        }}},
        "large": {"result": {
            "gpt2-bf16": faster(tensorgrad_compile__torch_compile=1.04, tensorgrad_compile__torch=1.2),
            "resnet50-bf16": faster(tensorgrad__torch=0.99),
        }},
    }  # fmt: skip
    found = {mark["mark"]: (mark["reached"], mark["met"]) for mark in marks(parts)}
    assert found == {
        "tests on the device": ("9 passed, 0 failed", True),
        "compute-sanitizer": ("not run", None),
        "add float32": ("90%", True),
        "sum float32": ("80%", False),
        "gpt2-bf16: tensorgrad-compile beside torch-compile": ("1.04x", True),
        "gpt2-bf16: tensorgrad-compile beside torch": ("1.20x", False),
        "gpt2-bf16: tensorgrad beside torch": ("not measured", None),
        "resnet50-bf16: tensorgrad beside torch": ("0.99x", False),
        "resnet50-tf32: tensorgrad beside torch": ("not measured", None),
    }
    assert {mark["met"] for mark in marks({})} == {None}
    parts["tests"]["result"] |= {"over": True}
    assert marks(parts)[0]["met"] is None  # the rest may fail
    parts["tests"]["result"] |= {"failed": 1}
    assert marks(parts)[0]["met"] is False


def test_results_lie_under_their_date_and_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ROOT", tmp_path)
    first = tmp_path / "benchmarks" / "results" / "2026-11-27-gpu-h100-80gb-hbm3.json"
    assert command._free_path("2026-11-27T10:00:00+00:00", "NVIDIA H100 80GB HBM3") == str(first)
    first.parent.mkdir(parents=True)
    first.write_text("{}")
    assert command._free_path("2026-11-27T10:00:00+00:00", "NVIDIA H100 80GB HBM3").endswith("hbm3-2.json")


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
    assert result["dry"] and "marks" not in result and result["parts"]["sanitizer"]["result"]["passed"] > 0
    rows = result["parts"]["kernels"]["result"]["rows"]
    assert list(rows) == list(chosen)
    assert [row["errors"] for row in rows.values() if row["errors"]] == []
    assert all(row["seconds"]["tensorgrad"] > 0 for row in rows.values())
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
def test_tests_are_counted_and_stopped_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "_LAST_WORDS", 4)
    path = tmp_path / "test_some.py"
    path.write_text(
        "import time, pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'so it is'\n"
        "def test_broken(): raise RuntimeError('an illegal memory access was encountered')\n"
        "@pytest.mark.skip(reason='no time')\ndef test_skipped(): pass\n"
        "@pytest.mark.parametrize('i', range(1000))\ndef test_slow(i): time.sleep(0.1)\n"
        "def test_hangs(): time.sleep(600)\n"
    )
    unreadable = tmp_path / "test_unreadable.py"
    unreadable.write_text("import no_such_package\n")
    found = correctness.run_tests(120, "not slow and not hangs", [str(path), str(unreadable)], processes=2)
    assert {key: found[key] for key in ("passed", "failed", "skipped", "over")} == {
        "passed": 1, "failed": 3, "skipped": 1, "over": False
    }, found  # fmt: skip
    assert found["why_skipped"] == ["no time"] and "died" not in found
    for said in ("test_bad: AssertionError: so it is", "test_broken: RuntimeError: an illegal", "no_such_package"):
        assert any(said in failure for failure in found["failures"]), found["failures"]
    # between two tests it ends by itself; else it is ended, and what was found before is known
    for select in ("good or slow", "good or hangs"):
        found = correctness.run_tests(3, select, [str(path)], processes=1)
        assert found["over"] and found["seconds"] < 60 and found["failed"] == 0
        assert found["passed"] >= 1 or "no test came to its end" in found["error"]
    found = correctness.run_tests(60, targets=["tests/no_such_file.py"], processes=1)
    assert "no_such_file" in found["error"]


def test_the_sanitizer_is_asked_and_understood(tmp_path: Path) -> None:
    assert "there is no no-such-sanitizer here" in correctness.sanitize(1, tool=("no-such-sanitizer",))["error"]
    few, tool = tmp_path / "test_few.py", tmp_path / "sanitizer"
    few.write_text("def test_value(): pass\n")
    tool.write_text(
        f"#!{sys.executable}\n"
        "import subprocess, sys\n"
        "assert sys.argv[1:3] == ['--tool', 'memcheck'] and 'benchmarks.gpu.without_pool' in sys.argv, sys.argv\n"
        "assert sys.argv[-2:] == ['-k', 'value and (softmax-2x3)'], sys.argv\n"
        "command = sys.argv[sys.argv.index(sys.executable):-1]\n"
        f"subprocess.run([x.replace('tests/gpu/test_ops.py', {str(few)!r}) for x in command] + ['value'])\n"
        "print('========= Invalid __global__ read of size 4 bytes')\nprint('========= ERROR SUMMARY: 3 errors')\n"
    )
    tool.chmod(0o755)
    found = correctness.sanitize(240, tool=(str(tool),), select="softmax-2x3")
    assert (found["errors"], found["over"], found["failed"], found["passed"]) == (3, False, 0, 1), found
    assert found["first"][0].endswith("4 bytes")
    tool.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no device')\n")
    assert "no device" in correctness.sanitize(60, tool=(str(tool),))["error"]


def test_a_card_is_described_by_what_gives_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cupy = pytest.importorskip("cupy")
    runtime = cupy.cuda.runtime
    told = {"name": b"NVIDIA H200", "totalGlobalMem": 1 << 37, "multiProcessorCount": 132, "major": 9, "minor": 0}
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda device: told)
    monkeypatch.setattr(runtime, "driverGetVersion", lambda: 13000)
    monkeypatch.setattr(runtime, "runtimeGetVersion", lambda: 13000)
    monkeypatch.setattr(card, "_smi", lambda: {"driver_version": "580"})
    found = card.describe()
    assert found["name"] == "NVIDIA H200" and found["memory"] == 1 << 37 and found["compute_capability"] == "9.0"
    assert found["cuda_driver"] == 13000 and found["driver_version"] == "580"
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "/nowhere")
    if place.why_not() is not None:
        found = card.describe()
        assert found["name"] == "unknown" and "no answer: " in found["properties"] + found["nvidia-smi"]
    where = {"gpu": found, "date": "today", "versions": {"torch": "2"}}
    command.introduce({"environment": where})
    assert "nvidia-smi no answer" in capsys.readouterr().out


def test_a_table_that_cannot_be_printed_stops_no_other_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        command, "_works", lambda args, found: {"small": lambda s, note: {"a": 1}, "sanitizer": lambda s, note: {}}
    )
    monkeypatch.setattr(correctness, "sanitizer", lambda: None)
    monkeypatch.setattr(tables, "not_run", lambda parts: [])
    result: dict[str, Any] = {"environment": {"gpu": {}}, "parts": {}}
    command.run(command.arguments(["--dry", "--parts", "small,sanitizer"]), result, None, time.monotonic() + 60)
    assert [found["raised"] for found in result["parts"].values()] == [
        "raised TypeError: 'int' object is not subscriptable", "raised KeyError: 'errors'"
    ]  # fmt: skip
    assert tables.wrong({"small": result["parts"]["small"]}) and "not subscriptable" in capsys.readouterr().err


def test_what_is_not_here_has_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(correctness, "sanitizer", lambda: None)
    monkeypatch.setattr(card, "installed", lambda framework: False)

    def nowhere() -> None:
        raise BackendError("cuDNN was not found (no such library); install it.")

    monkeypatch.setattr(card, "load", nowhere)
    lines = card.missing()
    for said in ("cuDNN was not found (no such library)", "compute-sanitizer", "nvcc", "PyTorch"):
        assert sum(said in line for line in lines) == 1, lines


def test_the_plugin_that_turns_the_pool_off_imports_anywhere() -> None:
    import benchmarks.gpu.without_pool  # noqa: F401 - without a GPU it does nothing
