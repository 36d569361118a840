"""The thread pool: what it may use, when it rests, forks, user threads, the end of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
import tensorgrad._C as C

LINUX = sys.platform == "linux"
CPUS = len(os.sched_getaffinity(0)) if LINUX else 0


def script(text: str, **env: str) -> str:
    """Runs a program in a process of its own, told nothing about threads but ``env``, and returns what it prints."""
    told = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [sys.executable, "-W", "error", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**told, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


V2 = "35 24 0:30 {root} {mount} rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 {root} {mount} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.mark.skipif(CPUS < 2, reason="a limit below the affinity mask shows only with two CPUs")
@pytest.mark.parametrize(
    ("mountinfo", "root", "cgroup", "files", "expected"),
    [
        ("", "/", "", {}, CPUS),
        (V2, "/", "0::/user/job\n", {"user/job/cpu.max": "max 100000"}, CPUS),
        (V2, "/", "0::/user/job\n", {"user/job/cpu.max": "50000 100000"}, 1),
        (V2, "/", "0::/user/job\n", {"user/job/cpu.max": "max 100000", "user/cpu.max": "100000 100000"}, 1),
        (V2, "/", "0::/user/job\n", {"user/job/cpu.max": "150000 100000"}, 2),
        (V2, "/docker/abc", "0::/docker/abc\n", {"cpu.max": "20000 100000"}, 1),
        (V2, "/docker/abc", "0::/docker/abc/in\n", {"in/cpu.max": "20000 100000"}, 1),
        (V2, "/", "0::/not/visible/here\n", {"cpu.max": "100000 100000"}, 1),
        (V1, "/", "5:memory:/x\n4:cpu,cpuacct:/job\n", {"job/cpu.cfs_quota_us": "-1"}, CPUS),
        (V1, "/", "4:cpu,cpuacct:/job\n", {"job/cpu.cfs_quota_us": "30000", "job/cpu.cfs_period_us": "100000"}, 1),
        (V1, "/", "4:cpuset:/job\n", {"job/cpu.cfs_quota_us": "30000", "job/cpu.cfs_period_us": "100000"}, CPUS),
        (V1, "/", "no such lines", {"cpu.cfs_quota_us": "garbage", "cpu.cfs_period_us": ""}, CPUS),
    ],
)  # fmt: skip
def test_limits_of_control_groups(tmp_path: Path, mountinfo, root, cgroup, files, expected):
    mount = tmp_path / "cgroup"
    for name, content in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(content + "\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(
        "1 0 8:1 / / rw - ext4 /dev/vda rw\n" + mountinfo.format(root=root, mount=mount)
    )
    (tmp_path / "self/cgroup").write_text(cgroup)
    assert C.usable_cpus(str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5,2"}, 5),
        ({"OMP_NUM_THREADS": "3", "TENSORGRAD_NUM_THREADS": "4"}, 4),
    ],
)
def test_environment_names_the_number_of_threads(env, expected):
    program = "import tensorgrad as tg; print(tg.get_num_threads())"
    assert script(program, TENSORGRAD_BACKEND="cpp", **env) == str(expected)


@pytest.mark.skipif(not LINUX, reason="reads the scheduler's mask")
def test_affinity_limits_the_number_of_threads():
    program = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import tensorgrad as tg
print(tg.get_num_threads())
"""
    assert script(program) == "1"


WORK = """
import os, signal, sys, threading, time
import tensorgrad as tg
tg.set_num_threads(4)
x = tg.ones(1 << 20)
total = (x * 2).sum().item()
"""


def test_an_idle_process_uses_no_cpu():
    spent = script(WORK + """
time.sleep(0.05)
start = os.times()
time.sleep(0.5)
end = os.times()
print(end.user - start.user + end.system - start.system)
""")  # fmt: skip
    assert float(spent) <= 0.03  # the clock ticks in hundredths


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_of_fork_has_workers_of_its_own():
    text = (
        WORK.replace("import os", "import warnings; warnings.simplefilter('ignore'); import os")
        + """
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits for the parent's workers would wait for ever
    ok = (x * 2).sum().item() == total and tg.get_num_threads() == 4
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if (x * 3).sum().item() == total * 1.5 else 1)
    os._exit(0 if ok and os.waitpid(grandchild, 0)[1] == 0 else 1)
assert (x * 2).sum().item() == total
print(os.waitpid(child, 0)[1])
"""
    )
    assert script(text) == "0"


def test_the_interpreter_ends_while_threads_compute():
    text = (
        WORK
        + """
def forever():
    while True:
        (x * 2).sum()
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.1)
print("end")
"""
    )
    assert script(text) == "end"


def train(seed: int) -> list[bytes]:
    generator = tg.Generator().manual_seed(seed)
    nn = tg.nn
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 14 * 14, 10))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    optimizer = tg.optim.Adam(model.parameters(), lr=0.01)
    x = tg.randn(32, 3, 16, 16, generator=generator)
    y = tg.arange(32) % 10
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return [p.detach().numpy().tobytes() for p in model.parameters()]


def test_models_trained_at_once_are_the_models_trained_in_turn():
    seeds = (1, 2, 3, 4)
    in_turn = [train(seed) for seed in seeds]
    before = tg.get_num_threads()
    tg.set_num_threads(3)
    at_once: dict[int, list[bytes]] = {}
    threads = [threading.Thread(target=lambda s=seed: at_once.update({s: train(s)})) for seed in seeds]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        tg.set_num_threads(before)
    assert [at_once[seed] for seed in seeds] == in_turn


def test_the_number_of_threads_changes_while_others_compute():
    x = tg.ones(1 << 19)
    stop, wrong = threading.Event(), []

    def compute():
        while not stop.is_set():
            if (x * 2).sum().item() != 1 << 20:
                wrong.append(1)

    before = tg.get_num_threads()
    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for count in (1, 3, 2, 5, 1, 4) * 4:
            tg.set_num_threads(count)
            assert (x * 2).sum().item() == 1 << 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        tg.set_num_threads(before)
    assert not wrong


def test_a_training_run_has_the_same_bits_for_any_number_of_threads():
    workloads = pytest.importorskip("benchmarks.workloads")
    before = tg.get_num_threads()
    seen = []
    try:
        for count in (1, 2, 8, 8):
            tg.set_num_threads(count)
            job = workloads.build("gpt-micro", tg)
            losses = [job.step(i).item() for i in range(3)]
            seen.append([p.detach().numpy().tobytes() for p in job.model.parameters()] + [np.array(losses).tobytes()])
    finally:
        tg.set_num_threads(before)
    assert all(other == seen[0] for other in seen[1:]), "the bits depend on the number of threads"
