"""tensorgrad.fft, windows, and the short-time transform, beside NumPy's transforms and definitions."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.autograd import gradcheck, gradgradcheck

rng = np.random.default_rng(3)
REAL = rng.standard_normal((3, 5, 6))
COMPLEX = REAL + 1j * rng.standard_normal((3, 5, 6))

# name, input, arguments of ours, arguments of NumPy's
CALLS = [
    ("fft", COMPLEX, {"n": 4, "dim": 1}, {"n": 4, "axis": 1}),
    ("fft", REAL, {}, {}),
    ("ifft", COMPLEX, {"n": 9}, {"n": 9}),
    ("rfft", REAL, {"n": 7, "dim": 0}, {"n": 7, "axis": 0}),
    ("irfft", COMPLEX, {"n": 7}, {"n": 7}),
    ("hfft", COMPLEX, {"n": 6, "dim": 1}, {"n": 6, "axis": 1}),
    ("ihfft", REAL, {"n": 5}, {"n": 5}),
    ("fft2", REAL, {"s": (4, 7)}, {"s": (4, 7)}),
    ("ifft2", COMPLEX, {"dim": (0, 2)}, {"axes": (0, 2)}),
    ("rfft2", REAL, {"s": (2, 9)}, {"s": (2, 9)}),
    ("irfft2", COMPLEX, {"s": (4, 5)}, {"s": (4, 5)}),
    ("fftn", REAL, {}, {}),
    ("ifftn", COMPLEX, {"s": (4,), "dim": (1,)}, {"s": (4,), "axes": (1,)}),
    ("rfftn", REAL, {"dim": (2, 0)}, {"axes": (2, 0)}),
    ("irfftn", COMPLEX, {"s": (3, 5, 9)}, {"s": (3, 5, 9), "axes": (0, 1, 2)}),
]


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("row", range(len(CALLS)))
def test_values_are_numpys(row, norm):
    name, data, mine, numpys = CALLS[row]
    want = getattr(np.fft, name)(data, norm=norm, **numpys)
    got = getattr(tg.fft, name)(tg.tensor(data), norm=norm, **mine)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


def test_single_precision_stays_single():
    x = tg.tensor(REAL, dtype=tg.float32)
    half = tg.fft.rfftn(x)
    assert half.dtype is tg.complex64 and tg.fft.irfftn(half).dtype is tg.float32
    assert tg.fft.fft(x).dtype is tg.complex64 and tg.fft.fft(tg.arange(3)).dtype is tg.complex64


@pytest.mark.parametrize("name", ["hfftn", "ihfftn", "irfftn", "rfftn", "ifftn"])
def test_derivatives_over_several_dimensions(name):
    data = REAL if name in ("ihfftn", "rfftn") else COMPLEX
    x = tg.tensor(data[:2, :3, :4], requires_grad=True)

    def function(x):
        return getattr(tg.fft, name)(x, s=(3, 2, 5), norm="forward")

    gradcheck(function, (x,))
    gradgradcheck(function, (x,))


def test_hermitian_transforms_undo_each_other():
    x = tg.tensor(REAL)
    for s in ((5, 6), (4, 7)):
        back = tg.fft.hfftn(tg.fft.ihfftn(x, s=s), s=s)
        want = tg.nn.functional.pad(x[:, : s[0], : s[1]], (0, max(s[1] - 6, 0), 0, max(s[0] - 5, 0)))
        np.testing.assert_allclose(back.numpy(), want.numpy(), atol=1e-12)


def test_order_and_frequencies():
    for n in (4, 5):
        assert tg.fft.fftfreq(n, 0.5, dtype=tg.float64).tolist() == np.fft.fftfreq(n, 0.5).tolist()
        assert tg.fft.rfftfreq(n, 0.5, dtype=tg.float64).tolist() == np.fft.rfftfreq(n, 0.5).tolist()
        x = tg.arange(n)
        assert tg.fft.fftshift(x).tolist() == np.fft.fftshift(np.arange(n)).tolist()
        assert tg.fft.ifftshift(tg.fft.fftshift(x)).tolist() == x.tolist()


FAILS = [
    (lambda: tg.fft.fft(tg.ones(3), n=0), RuntimeError, "data points"),
    (lambda: tg.fft.fft(tg.ones(3), dim=1), IndexError, "dim"),
    (lambda: tg.fft.fft(tg.ones(3), norm="unit"), RuntimeError, "normalization"),
    (lambda: tg.fft.rfft(tg.ones(3) * 1j), RuntimeError, "real"),
    (lambda: tg.fft.fftn(tg.ones(3, 3), dim=(0, 0)), RuntimeError, "unique"),
    (lambda: tg.fft.fftn(tg.ones(3, 3), s=(2, 2, 2)), RuntimeError, "dimensions"),
    (lambda: tg.fft.fft(tg.ones(3).half()), RuntimeError, "float16"),
    (lambda: tg.fft.irfft(tg.ones(1)), RuntimeError, "data points"),
    (lambda: tg.stft(tg.ones(16), 4), RuntimeError, "return_complex"),
    (lambda: tg.stft(tg.ones(16), 4, window=tg.ones(3), return_complex=True), RuntimeError, "window"),
    (lambda: tg.stft(tg.ones(2), 8, return_complex=True), RuntimeError, "reflect"),
    (lambda: tg.istft(tg.ones(3, 4), 4), RuntimeError, "complex"),
    (lambda: tg.istft(tg.ones(3, 4) * 1j, 4, hop_length=4, window=tg.zeros(4)), RuntimeError, "window overlap add"),
    (lambda: tg.hann_window(-1), RuntimeError, "non-negative"),
    (lambda: tg.hann_window(4, dtype=tg.int64), RuntimeError, "floating"),
]


@pytest.mark.parametrize("case", range(len(FAILS)))
def test_failures_say_why(case):
    call, error, word = FAILS[case]
    with pytest.raises(error, match=word):
        call()


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_short_time_transform_is_undone(complex, center):
    signal = rng.standard_normal((2, 64))
    x = tg.tensor(signal + 1j * signal[::-1] if complex else signal)
    how = {"n_fft": 16, "hop_length": 4, "win_length": 12, "window": tg.hamming_window(12, dtype=tg.float64)}
    if not center:
        how |= {"win_length": 16, "window": tg.hamming_window(16, dtype=tg.float64)}
    spectrum = tg.stft(x, **how, center=center, return_complex=True)
    assert tuple(spectrum.shape) == (2, 16 if complex else 9, 17 if center else 13)
    back = tg.istft(spectrum, **how, center=center, length=64, return_complex=complex)
    np.testing.assert_allclose(back.numpy(), x.numpy(), atol=1e-12)


def test_short_time_transform_by_hand_and_its_derivatives():
    x = tg.tensor(rng.standard_normal(12), requires_grad=True)
    window = tg.tensor(rng.uniform(0.5, 1.5, 4), requires_grad=True)

    def forward(x, window):
        return tg.stft(x, 4, 2, window=window, center=False, return_complex=True)

    frame = x.detach().numpy()[2:6] * window.detach().numpy()
    np.testing.assert_allclose(forward(x, window)[:, 1].detach().numpy(), np.fft.rfft(frame), atol=1e-12)

    def both(x, window):
        return tg.istft(forward(x, window) ** 2, 4, 2, window=window, center=False)

    gradcheck(both, (x, window))
    gradgradcheck(both, (x, window))


def test_windows():
    k = np.arange(6)
    for periodic, last in ((True, 6), (False, 5)):
        turn = 2 * np.pi * k / last
        for name, want in {
            "hann": 0.5 - 0.5 * np.cos(turn), "hamming": 0.54 - 0.46 * np.cos(turn),
            "blackman": 0.42 - 0.5 * np.cos(turn) + 0.08 * np.cos(2 * turn), "bartlett": 1 - abs(2 * k / last - 1),
            "kaiser": np.i0(12 * np.sqrt(1 - (2 * k / last - 1) ** 2)) / np.i0(12.0),
        }.items():  # fmt: skip
            got = getattr(tg, f"{name}_window")(6, periodic, dtype=tg.float64)
            np.testing.assert_allclose(got.numpy(), want, atol=1e-12)
            same = getattr(tg.signal.windows, name)(6, sym=not periodic, dtype=tg.float64)
            np.testing.assert_allclose(same.numpy(), want, atol=1e-12)
    assert tg.hann_window(1).tolist() == [1.0] and tg.hann_window(0).tolist() == []
    at = np.arange(5) - 2.0
    for name, how, want in (
        ("gaussian", {"std": 2.0}, np.exp(-(at**2) / 8)), ("exponential", {"tau": 2.0}, np.exp(-abs(at) / 2)),
        ("cosine", {}, np.cos(np.pi * at / 5)), ("general_hamming", {"alpha": 0.6}, 0.6 + 0.4 * np.cos(np.pi * at / 2)),
    ):  # fmt: skip
        got = getattr(tg.signal.windows, name)(5, dtype=tg.float64, **how)
        np.testing.assert_allclose(got.numpy(), want, atol=1e-12)
