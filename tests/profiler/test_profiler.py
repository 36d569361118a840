"""The profiler: real times of ops and regions, averages, the table, the trace, schedules."""

from __future__ import annotations

import gzip
import json
import time

import pytest

import tensorgrad as tg
from tensorgrad.profiler import ProfilerActivity, profile, record_function, schedule


def work():
    x = tg.ones(64, 32, requires_grad=True)
    layer = tg.nn.Linear(32, 16)
    optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)
    with record_function("forward"):
        loss = layer(x).relu().sum()
        time.sleep(0.02)
    loss.backward()
    optimizer.step()


def test_ops_and_regions_are_timed(tmp_path):
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, profile_memory=True, with_stack=True,
                 with_flops=True) as prof:  # fmt: skip
        work()
    rows = {row.key: row for row in prof.key_averages()}
    assert {"linear", "relu", "sum", "forward", "linear_backward", "sgd_", "Optimizer.step#SGD.step"} <= set(rows)
    forward = rows["forward"]
    assert forward.cpu_time_total >= 20_000 and forward.self_cpu_time_total >= 20_000 and forward.count == 1
    assert rows["linear"].flops == 2 * 64 * 32 * 16 and rows["linear"].cpu_memory_usage == 64 * 16 * 4
    (linear,) = [e for e in prof.events() if e.name == "linear"]
    assert linear.input_shapes == [[64, 32], [16, 32], [16]] and linear.cpu_parent.name == "forward"
    assert "test_profiler.py" in linear.stack[0] and 0 < linear.cpu_time < 1e6
    assert linear.time_range.elapsed_us() == linear.cpu_time_total
    whole = sum(e.self_cpu_time_total for e in prof.events())
    roots = sum(e.cpu_time_total for e in prof.events() if e.cpu_parent is None)
    assert whole == pytest.approx(roots)
    table = prof.key_averages(group_by_input_shape=True).table(sort_by="cpu_time_total", row_limit=3)
    lines = table.splitlines()
    assert lines[1].split()[:3] == ["Name", "Self", "CPU"] and "forward" in lines[3] and len(lines) == 8
    assert "Self CPU time total" in table and "[64, 32]" in prof.key_averages(True).table()
    with pytest.raises(ValueError, match="can't sort by"):
        prof.key_averages().table(sort_by="colour")
    for name, opened in (("trace.json", open), ("trace.json.gz", gzip.open)):
        prof.export_chrome_trace(str(tmp_path / name))
        with opened(tmp_path / name, "rt") as file:
            events = json.load(file)["traceEvents"]
        assert len(events) == len(prof.events()) and all(e["dur"] >= 0 for e in events)
    prof.export_stacks(str(tmp_path / "stacks.txt"))
    assert "test_profiler.py" in (tmp_path / "stacks.txt").read_text()


def test_schedules_choose_steps(tmp_path):
    torch = pytest.importorskip("torch")
    for settings in (
        {"wait": 1, "warmup": 1, "active": 2}, {"wait": 0, "warmup": 1, "active": 1, "repeat": 2},
        {"wait": 2, "warmup": 1, "active": 3, "repeat": 1, "skip_first": 2},
        {"wait": 2, "warmup": 1, "active": 1, "skip_first": 1, "skip_first_wait": 1},
    ):  # fmt: skip
        mine, theirs = schedule(**settings), torch.profiler.schedule(**settings)
        assert [mine(i).name for i in range(14)] == [theirs(i).name for i in range(14)]
    seen = []
    handler = tg.profiler.tensorboard_trace_handler(str(tmp_path), "worker")

    def ready(prof):
        seen.append(sorted({e.name for e in prof.events() if e.name.startswith("ProfilerStep")}))
        handler(prof)

    with profile(schedule=schedule(wait=1, warmup=1, active=2, repeat=2), on_trace_ready=ready) as prof:
        for _ in range(10):
            tg.ones(2) + 1
            prof.step()
    assert seen == [["ProfilerStep#2", "ProfilerStep#3"], ["ProfilerStep#6", "ProfilerStep#7"]]
    assert len(list(tmp_path.glob("worker.*.pt.trace.json"))) == 2
    with pytest.raises(AssertionError):
        schedule(wait=0, warmup=1, active=0)


def test_errors_within_and_the_older_name():
    with tg.autograd.profiler.profile() as prof:
        with pytest.raises(RuntimeError):
            tg.ones(2, 3) @ tg.ones(2, 3)

        @record_function("mine")
        def mine():
            return tg.ones(2).exp()

        mine()
    names = [e.name for e in prof.function_events]
    assert "mine" in names and "exp" in names and "Self CPU time total" in prof.table()
    assert prof.total_average().count == len(names)
    with tg.autograd.profiler.profile(enabled=False) as off:
        tg.ones(2).exp()
    assert not off.function_events
    if not tg.cuda.is_available():
        with pytest.warns(UserWarning, match="CUDA is not available"):
            profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    with pytest.raises(ValueError, match="not supported"):
        profile(experimental_config=3)
