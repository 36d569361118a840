"""Attention by cuDNN: when it is asked, what it is asked for, and that the real one accepts it.

The stand-in's cuDNN computes from addresses and strides. The real frontend, where it is installed
(``pip install nvidia-cudnn-frontend==1.18.0 nvidia-cudnn-cu13 nvidia-cublas``), plans such graphs for an H200 that is
described by numbers; it asks a driver for little on the way, which a library of stubs answers.
"""

from __future__ import annotations

import ctypes.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad.backends import cuda as switches
from tensorgrad.backends import cudnn as library
from tensorgrad.backends.cupy import cudnn_attention
from tensorgrad.backends.cupy.cudnn import Cudnn, load
from tensorgrad.backends.cupy.cudnn_attention import Attention, why_not
from tensorgrad.backends.generic.attention import AttentionKernels
from tensorgrad.backends.generic.shape import ShapeKernels
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import BackendError
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_cudnn import Frontend, StrictCudnn
from tensorgrad.testing.strict_namespace import xp

from .host_compiler import COMPILER
from .test_cudnn import H200

DIGITS = {"float16": 2e-3, "bfloat16": 1.6e-2}
ALL = (True, True, True, False)


class Host(AttentionKernels, ShapeKernels):
    xp = np


class Asked(StrictCudnn):
    """The emulation; ``what`` it was asked to plan."""

    def __init__(self) -> None:
        super().__init__(xp)
        self.what: list[Attention] = []

    def plan(self, what: Any) -> Any:
        self.what.append(what)
        return super().plan(what)


@pytest.fixture
def backend() -> StrictCupyBackend:
    made = StrictCupyBackend()
    made._cudnn = Asked()
    return made


def asked(backend: StrictCupyBackend) -> list[Attention]:
    return backend._cudnn.what  # type: ignore[union-attr]


def drawn(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(numpy_dtype(dtype))


def inputs(batch: tuple[int, ...], queries: int, keys: int, width: int, dtype: str = "bfloat16", wide: int = 0) -> Any:
    """q, k, v and a slope."""
    shapes = ((queries, width), (keys, width), (keys, wide or width), (queries, wide or width))
    return [StrictArray(drawn((*batch, *shape), dtype, seed)) for seed, shape in enumerate(shapes)]


def close(got: Any, want: Any, digits: float) -> None:
    got, want = got.get().astype(np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= digits * max(1.0, float(np.abs(want).max()))


def check(backend: StrictCupyBackend, q: Any, k: Any, v: Any, g: Any, causal: bool, scale: float = 0.3) -> Any:
    """Compare with attention written out in float64; the results."""
    how, digits = {"causal": causal, "scale": scale}, DIGITS[q.dtype.name]
    wide = [x.get().astype(np.float64) for x in (q, k, v, g)]
    out, lse = backend.raw.attention(q, k, v, None, **how)
    want, want_lse = Host().attention(*wide[:3], None, **how)
    close(out, want, digits)
    close(lse, want_lse, 1e-5)
    assert out.dtype == q.dtype and lse.dtype == np.float32
    *grads, to_mask = backend.raw.attention_backward(g, q, k, v, None, out, lse, **how, needs=ALL)
    slopes = Host().attention_backward(wide[3], *wide[:3], None, want, want_lse, **how, needs=ALL)
    for got, slope in zip(grads, slopes, strict=False):
        close(got, slope, 2 * digits)
        assert got.dtype == q.dtype
    assert to_mask is None
    return out, lse, *grads


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", sorted(DIGITS))
def test_results(dtype: str, causal: bool, backend: StrictCupyBackend) -> None:
    shapes = [((2, 3), 20, 24, 16, 0), ((3,), 130, 128, 8, 24), ((), 5, 3, 24, 8), ((1, 1), 2, 200, 136, 0)]
    for batch, queries, keys, width, wide in shapes:
        check(backend, *inputs(batch, queries, keys, width, dtype, wide), causal)
    assert [what.kind for what in asked(backend)] == ["forward", "backward"] * len(shapes)
    assert all(len(one.shape) == 4 for what in asked(backend) for one in (*what.operands, *what.results))


def test_arrays_stay_where_they_lie_and_results_lie_like_them(backend: StrictCupyBackend) -> None:
    packed = StrictArray(drawn((2, 20, 3, 4, 16), "bfloat16", 0))  # (samples, positions, which, heads, width)
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    g = StrictArray(drawn((2, 20, 4, 16), "bfloat16", 1)).swapaxes(1, 2)
    out, _, *grads = check(backend, q, k, v, g, causal=True)
    forward, backward = asked(backend)
    assert {one.steps for one in forward.operands} == {(20 * 192, 16, 192, 1)}
    assert backward.operands[:3] == forward.operands and backward.operands[4].steps == (20 * 64, 16, 64, 1)
    for made in (out, *grads):  # heads are put together again without a copy
        assert made.swapaxes(1, 2).flags.c_contiguous
    out, _, *grads = check(backend, *inputs((2, 4), 20, 20, 16), causal=True)
    assert all(made.flags.c_contiguous for made in (out, *grads))


def test_arrays_that_lie_otherwise_are_copied(backend: StrictCupyBackend) -> None:
    q, k, v, g = inputs((2, 3), 20, 24, 16)
    dense = [(3 * n * 16, n * 16, 16, 1) for n in (20, 24, 24)]
    room = StrictArray(np.zeros(q.size + 1, q.dtype))
    room[1:] = q.reshape(-1)
    misaligned = room[1:].reshape(q.shape)
    backwards = k[:, :, ::-1]
    broken = StrictArray(np.zeros((2, 3, 24, 20), v.dtype))[..., 1:17]  # rows 40 bytes apart
    broken[...] = v
    shared = xp.broadcast_to(StrictArray(np.ones((1, 1, 1, 1), g.dtype)), g.shape)  # of a sum
    check(backend, misaligned, backwards, broken, shared, causal=False)
    for what in asked(backend):
        assert [one.steps for one in what.operands[:3]] == dense


def test_heads_that_share_keys(backend: StrictCupyBackend) -> None:
    q, _, _, g = inputs((2, 6), 20, 24, 16)
    k, v = inputs((2, 2), 20, 24, 16)[1:3]
    check(backend, q, k, v, g, causal=True)
    assert [what.operands[1].shape for what in asked(backend)] == [(2, 2, 24, 16)] * 2
    assert asked(backend)[1].results[1].shape == (2, 2, 24, 16), "which cuDNN sums"
    check(backend, q[0], k[0], v[0], g[0], causal=False)


@pytest.mark.parametrize("most", [2**15, 2**17, 2**18, 2**40])
def test_large_gradients_are_made_in_pieces(
    most: int, backend: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cudnn_attention, "_MOST_SLOPES", most)  # a head's slopes are 2**15 bytes
    check(backend, *inputs((3, 4), 9, 10, 8), causal=True)  # 9 queries: lse of one head is not at 16 bytes
    pieces = {2**15: 12, 2**17: 3, 2**18: 2, 2**40: 1}[most]
    assert [what.kind for what in asked(backend)] == ["forward"] + ["backward"] * pieces
    q, _, _, g = inputs((3, 4), 9, 10, 8)
    k, v = inputs((3, 2), 9, 10, 8)[1:3]
    check(backend, q, k, v, g, causal=True)


def test_pieces_are_about_as_large_as_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(samples: int, heads: int, fitting: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(cudnn_attention, "_MOST_SLOPES", 7 * fitting)
        found = list(cudnn_attention._pieces(samples, heads, 7))
        seen = np.zeros((samples, heads), int)
        for some, part in found:
            seen[some, part] += 1
        assert (seen == 1).all()
        return [(some.stop - some.start, part.stop - part.start) for some, part in found]

    assert sizes(16, 12, 128) == [(8, 12)] * 2
    assert sizes(16, 12, 1000) == [(16, 12)]
    assert sizes(7, 2, 6) == [(3, 2), (3, 2), (1, 2)]
    assert sizes(2, 12, 9) == [(1, 6)] * 4
    assert sizes(1, 3, 0) == [(1, 1)] * 3


def test_plans_are_made_once(backend: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Attention] = []
    build = Attention.build

    def watched(what: Attention, frontend: Any, **where: Any) -> Any:
        made.append(what)
        return build(what, frontend, **where)

    monkeypatch.setattr(Attention, "build", watched)
    for _ in range(2):
        check(backend, *inputs((2, 3), 20, 24, 16), causal=True)
    assert [what.kind for what in made] == ["forward", "backward"]
    check(backend, *inputs((2, 3), 20, 24, 16), causal=False)
    check(backend, *inputs((2, 3), 20, 24, 16, "float16"), causal=True)
    check(backend, *inputs((2, 3), 20, 24, 16), causal=True, scale=0.5)
    assert len(made) == 8


# --- who is asked


def test_the_decision() -> None:
    q, k, v, _ = inputs((2, 3), 20, 64, 16)
    assert why_not(q, k, v, None) is None
    assert "64 keys more than" in str(why_not(q, k, v, None, backward=True))
    assert why_not(q, k[:, :, :63], v[:, :, :63], None, backward=True) is None
    assert "half precision" in str(why_not(*inputs((2,), 4, 4, 8, "float32")[:3], None))
    assert "masks" in str(why_not(q, k, v, xp.ones((20, 64), dtype=bool)))
    assert "masks" in str(why_not(q, k, v, xp.ones((20, 64), dtype=q.dtype)))
    assert "a single query" in str(why_not(q[:, :, :1], k, v, None))
    assert "nothing" in str(why_not(q[:0], k[:0], v[:0], None))
    assert "one of heads" in str(why_not(*(x[None] for x in (q, k, v)), None))
    for width, wide in ((12, 16), (16, 12), (264, 16)):
        assert "widths" in str(why_not(*inputs((2, 3), 4, 6, width, wide=wide)[:3], None))
    with switches.sdp_kernel(enable_cudnn=False):
        assert "switched off" in str(why_not(q, k, v, None))
    with library.flags(enabled=False):
        assert "switched off" in str(why_not(q, k, v, None))


def test_our_kernels_take_what_cudnn_is_not_asked_for(backend: StrictCupyBackend) -> None:
    for arrays in (inputs((2, 3), 1, 24, 16), inputs((2, 3), 20, 24, 12), inputs((2, 1, 3), 20, 24, 16)):
        check(backend, *arrays, causal=False)
    assert not asked(backend)
    check(backend, *inputs((2, 3), 20, 64, 16), causal=True)
    assert [what.kind for what in asked(backend)] == ["forward"], "our backward goes on from cuDNN's log-sum-exp"


def test_without_cudnn_our_kernels_attend() -> None:
    backend = StrictCupyBackend()
    backend._cudnn = None  # type: ignore[assignment]
    check(backend, *inputs((2, 3), 20, 24, 16), causal=True)


@pytest.mark.parametrize("refused", ["forward", "backward"])
def test_what_cudnn_has_no_plan_for_is_said_once_and_computed_by_our_kernels(refused: str) -> None:
    class Graph(Frontend.pygraph):
        def check_support(self) -> None:
            if len(self.operands) == {"forward": 3, "backward": 6}[refused]:
                raise Frontend.cudnnGraphNotSupportedError("No execution plans support the graph.")
            super().check_support()

    class Without(Frontend):
        pygraph = Graph

    backend = StrictCupyBackend()
    backend._cudnn = Cudnn(xp, Without)
    which = "" if refused == "forward" else "the gradients of "
    told = rf"not used for {which}attention of \(2, 3, 20, 16\), \(2, 3, 24, 16\) and .* in bfloat16: it has no plan"
    with pytest.warns(UserWarning, match=told) as seen:
        for _ in range(2):
            check(backend, *inputs((2, 3), 20, 24, 16), causal=True)
    assert len(seen) == 1


def test_a_failure_says_what_failed(backend: StrictCupyBackend) -> None:
    q, k, v, _ = inputs((2, 3), 20, 24, 16)
    cudnn = StrictCudnn(xp)
    check(backend, *inputs((2, 3), 20, 24, 16), causal=False)
    graph = cudnn.plan(asked(backend)[0])
    assert graph is not None
    out, lse = xp.empty(q.shape, dtype=q.dtype), xp.empty((2, 3, 20, 1), dtype=np.float32)
    cudnn.run(graph, (q, k, v), out, lse)
    with pytest.raises(BackendError, match=r"cuDNN failed in attention into \(2, 3, 20, 16\): .*BAD_PARAM"):
        cudnn.run(graph._replace(names=(1, 2, 3, 4, 9)), (q, k, v), out, lse)


def test_what_the_emulation_refuses(backend: StrictCupyBackend) -> None:
    check(backend, *inputs((2, 3), 20, 24, 16), causal=False)
    for what in asked(backend):
        q, k, *rest = what.operands
        for wrong in (
            q._replace(shape=(2, 3, 20, 12)), q._replace(shape=(2, 4, 20, 16)), q._replace(steps=(960, 320, 1, 20)),
            q._replace(steps=(963, 320, 16, 1)),
        ):  # fmt: skip
            assert what._replace(operands=(wrong, k, *rest)).build(Frontend, handle=0) is None
        assert what.build(Frontend, handle=0) is not None
    for samples, fits in ((10000, True), (11000, False)):  # 96 KiB each; more than a GiB is not given
        many = [
            tuple([one._replace(shape=(samples, *one.shape[1:])) for one in x]) for x in (what.operands, what.results)
        ]
        found = what._replace(operands=many[0], results=many[1]).build(Frontend, handle=0)
        assert (found is not None) == fits


# --- programs


def three(device: str, dtype: Any = tg.bfloat16, width: int = 16) -> list[Any]:
    tg.manual_seed(0)
    arrays = [tg.randn(2, 3, 20, width, dtype=dtype) for _ in range(3)]
    return [x.to(device).requires_grad_() for x in arrays]


def test_scaled_dot_product_attention_beside_the_cpu() -> None:
    def run(device: str) -> list[Any]:
        q, k, v = three(device)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        grads = tg.autograd.grad((y.float() ** 2).sum(), (q, k, v), create_graph=True)
        total = sum((x.float() ** 2).sum() for x in grads)
        return [y, *grads, *tg.autograd.grad(total, (q, k, v))]

    want = run("cpu")
    with strict_cuda() as backend:
        backend._cudnn = Asked()
        got = [x.cpu() for x in run("cuda")]
        kinds = {what.kind for what in asked(backend)}
    assert kinds == {"forward", "backward"}
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert (a.float() - b.float()).abs().max().item() <= 3e-2 * max(1.0, b.float().abs().max().item())


def test_dropout_has_the_cpus_masks_and_asks_nobody() -> None:
    def run(device: str) -> Any:
        q, k, v = three(device)
        tg.manual_seed(5)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)

    want = run("cpu")
    with strict_cuda() as backend:
        backend._cudnn = Asked()
        got = run("cuda").cpu()
        assert not asked(backend)
    assert (got.float() - want.float()).abs().max().item() <= 3e-2


def test_a_compiled_step_captures_it() -> None:
    def loss(q: Any, k: Any, v: Any) -> Any:
        return (F.scaled_dot_product_attention(q, k, v, is_causal=True).float() ** 2).sum()

    with strict_cuda() as backend:
        backend._cudnn = Asked()
        want = loss(*three("cuda"))
        eager = three("cuda")
        loss(*eager).backward()
        compiled = tg.compile(loss)
        for _ in range(4):
            q, k, v = three("cuda")
            got = compiled(q, k, v)
            got.backward()
            assert got.item() == want.item()
            for x, y in zip((q, k, v), eager, strict=True):
                assert x.grad.tolist() == y.grad.tolist()
        assert compiled.explain().count("0 calls run between them") == 2, "forward's graph, and backward's"


# --- the real library, where it is installed


@pytest.fixture(scope="module")
def libcudnn() -> Path:
    try:
        load()
    except BackendError as error:
        pytest.skip(str(error))
    if ctypes.util.find_library("cuda"):
        pytest.skip("there is a driver: attention runs in benchmarks/gpu")
    if COMPILER is None:
        pytest.skip("no C compiler for the driver's stubs")
    from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib

    try:
        load_nvidia_dynamic_lib("nvrtc")  # which compiles its kernels
    except DynamicLibNotFoundError:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    return Path(load_nvidia_dynamic_lib("cudnn").abs_path).parent


def test_there_is_a_plan(libcudnn: Path, tmp_path: Path) -> None:
    class Noted(Asked):
        def plan(self, what: Any) -> Any:
            self.what.append(what)

    cudnn, how = Noted(), {"causal": False, "scale": 0.125}

    def ask(q: Any, k: Any, v: Any, g: Any) -> None:
        lse = xp.zeros(q.shape[:-1], dtype=np.float32)
        for causal in (False, True):
            how["causal"] = causal
            assert cudnn_attention.attend(cudnn, q, k, v, **how) is None  # type: ignore[arg-type]
            assert cudnn_attention.attend_backward(cudnn, g, q, k, v, g, lse, **how) is None  # type: ignore[arg-type]

    stubs(libcudnn, tmp_path)
    for dtype in sorted(DIGITS):
        for width, wide in ((64, 64), (128, 128), (40, 72), (256, 256)):
            for queries, keys in ((128, 128), (77, 100), (2, 300)):
                ask(*inputs((2, 3), queries, keys, width, dtype, wide))
    packed = StrictArray(np.zeros((2, 128, 3, 4, 64), numpy_dtype("bfloat16")))
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    ask(q, k, v, q)
    ask(q, k[:, :2], v[:, :2], q)  # heads that share keys
    ask(*(StrictArray(np.zeros((16, 12, 1024, 64), numpy_dtype("bfloat16"))) for _ in range(4)))  # GPT-2's
    fine = len(cudnn.what)
    ask(*inputs((2, 3), 128, 128, 512))  # too wide for gradients
    workshop = Path(__file__).with_name("plan_attention.py")
    command = [sys.executable, str(workshop), str(tmp_path)]
    given = json.dumps({"device": H200, "asked": cudnn.what})
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrong = json.loads(done.stdout.splitlines()[-1])
    assert wrong[:fine] == [None] * fine
    assert [one is None for one in wrong[fine:]] == [True, False] * 2


def stubs(libcudnn: Path, folder: Path) -> None:
    """A driver and a runtime that answer 0 to everything, and with a Hopper when asked for a device."""
    seen: set[bytes] = set()
    for file in libcudnn.glob("libcudnn_*.so.*"):
        seen.update(re.findall(rb"(?<=\0)cu[A-Z][A-Za-z]+(?:_v[0-9])?(?=\0)", file.read_bytes()))
    driver = "\n".join(f"int {name.decode()}(void) {{ return 0; }}" for name in sorted(seen))
    runtime = """
        #include <string.h>
        int cudaGetDevice(int* device) { *device = 0; return 0; }
        int cudaGetDeviceProperties(void* made, int device) {
          memset(made, 0, 600);
          *(int*)((char*)made + 360) = 9;  /* major */
          return 0;
        }
        const char* cudaGetErrorString(int error) { return "a stub"; }
    """
    for name, text in (("libcuda.so.1", driver), ("libcudart.so.13", runtime)):
        source = folder / f"{name}.c"
        source.write_text(text)
        options = ["-w", "-x", "c", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run([str(COMPILER), *options, str(source)], check=True)
