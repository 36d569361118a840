"""Random streams: known answers, reproducibility, moments, the generator's state."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends.generic.random import philox_words
from tensorgrad.errors import DTypeError, ShapeError
from tensorgrad.nn import functional as F
from tensorgrad.random import Generator


def seeded(seed: int = 3) -> Generator:
    return Generator().manual_seed(seed)


def test_philox_gives_its_published_answers():
    zeros = philox_words(np, 0, 0, 0, 1)
    assert [int(w) for w in zeros] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = philox_words(np, 2**64 - 1, 2**64 - 1, 2**64 - 1, 1)
    assert [int(w) for w in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_uniform_is_made_of_the_words_as_documented():
    words = philox_words(np, 3, 0, 0, 2)
    single = tg.rand(7, generator=seeded()).numpy()
    np.testing.assert_array_equal(single, ((words[:7] >> np.uint64(8)) * 2.0**-24).astype(np.float32))
    double = tg.rand(3, generator=seeded(), dtype=tg.float64).numpy()
    high, low = words[0:6:2] >> np.uint64(5), words[1:6:2] >> np.uint64(6)
    np.testing.assert_array_equal(double, (high * 2.0**26 + low) * 2.0**-53)


def test_a_long_draw_begins_with_the_short_one():
    long, short = tg.rand(200_000, generator=seeded()), tg.rand(1001, generator=seeded())
    np.testing.assert_array_equal(long[:1001].numpy(), short.numpy())


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16, tg.float32, tg.float64])
def test_uniform_stays_below_one(dtype):
    x = tg.rand(100_000, dtype=dtype, generator=seeded()).double()
    assert x.min().item() >= 0 and x.max().item() < 1
    assert abs(x.mean().item() - 0.5) < 5e-3


@pytest.mark.parametrize("dtype", [tg.float16, tg.float32, tg.float64])
def test_normal_moments(dtype):
    x = tg.randn(100_001, dtype=dtype, generator=seeded()).double().numpy()
    assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02 and abs((x**4).mean() - 3) < 0.2


def test_every_draw_differs_and_a_seed_repeats_them():
    tg.manual_seed(11)
    first = [tg.rand(4).tolist(), tg.randn(4).tolist(), tg.randperm(5).tolist()]
    assert tg.rand(4).tolist() != first[0]
    tg.manual_seed(11)
    assert [tg.rand(4).tolist(), tg.randn(4).tolist(), tg.randperm(5).tolist()] == first
    assert tg.initial_seed() == 11


def test_state_is_saved_and_restored():
    generator = seeded()
    tg.rand(3, generator=generator)
    state = generator.get_state()
    expected = tg.rand(3, generator=generator).tolist()
    assert tg.rand(3, generator=generator.set_state(state)).tolist() == expected
    assert tg.rand(3, generator=Generator().set_state(state)).tolist() == expected
    with pytest.raises(ShapeError, match="16 bytes"):
        generator.set_state(tg.zeros(3, dtype=tg.uint8))
    with pytest.raises(ValueError, match="64"):
        generator.manual_seed(2**64)


def test_integers():
    x = tg.randint(-3, 4, (5000,), generator=seeded())
    assert x.dtype is tg.int64 and sorted(set(x.tolist())) == list(range(-3, 4))
    assert tg.randint(5, (2, 3)).shape == (2, 3)
    assert sorted(tg.randperm(100, generator=seeded()).tolist()) == list(range(100))
    with pytest.raises(ValueError, match="empty"):
        tg.randint(3, 3, (2,))
    with pytest.raises(ValueError, match="int8"):
        tg.randint(0, 1000, (2,), dtype=tg.int8)
    every = tg.randint(-(2**63), 2**63, (1000,), generator=seeded())  # of all there are
    assert every.min().item() < -(2**61) and every.max().item() > 2**61
    with pytest.raises(ValueError, match="high must fit into 64 bits"):
        tg.randint(0, 2**63 + 1, (2,))


def test_choices_follow_their_weights():
    weights = tg.tensor([0.0, 1.0, 3.0])
    drawn = tg.multinomial(weights, 20_000, replacement=True, generator=seeded()).numpy()
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, [0, 0.25, 0.75], atol=0.02)
    pairs = tg.multinomial(tg.tensor([[0.0, 1.0, 3.0]] * 50), 2, generator=seeded())
    assert all(sorted(pair) == [1, 2] for pair in pairs.tolist())
    with pytest.raises(ValueError, match="positive weights"):
        tg.multinomial(weights, 3)


def test_in_place_draws():
    x = tg.empty(20_000)
    assert x.uniform_(-2, 3, generator=seeded()).min().item() >= -2 and abs(x.mean().item() - 0.5) < 0.05
    assert abs(x.normal_(2.0, 0.5).mean().item() - 2) < 0.05
    assert abs(x.exponential_(4.0).mean().item() - 0.25) < 0.02
    assert abs(x.bernoulli_(0.3).mean().item() - 0.3) < 0.02
    assert set(x.random_(2, 5).tolist()) == {2.0, 3.0, 4.0}
    with pytest.raises(RuntimeError, match="leaf"):
        tg.zeros(3, requires_grad=True).uniform_()
    with pytest.raises(DTypeError, match="floating"):
        tg.zeros(3, dtype=tg.int64).normal_()


def test_dropout_keeps_the_expectation_and_masks_the_gradient():
    x = tg.ones(10_000, requires_grad=True)
    y = F.dropout(x, 0.3, generator=seeded())
    y.sum().backward()
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.7) < 0.02
    np.testing.assert_allclose(y.detach().numpy()[kept], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    np.testing.assert_array_equal(kept, tg.rand(10_000, generator=seeded()).numpy() >= np.float32(0.3))
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 1.0).sum().item() == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.dropout(x, 1.5)


def test_feature_dropout_drops_whole_channels():
    y = F.dropout2d(tg.ones(8, 16, 3, 3), 0.5, generator=seeded()).numpy().reshape(128, 9)
    assert (y == y[:, :1]).all() and set(y[:, 0].tolist()) == {0.0, 2.0}


def test_alpha_dropout_keeps_mean_and_variance():
    x = tg.randn(50_000, generator=seeded())
    y = F.alpha_dropout(x, 0.2, training=True, generator=seeded(4)).numpy()
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02


def test_the_same_numbers_on_every_cpu_backend():
    def draw(name: str) -> list[np.ndarray]:
        with tg.backend(name):
            g = seeded(2**63 + 5)
            return [
                tg.rand(1003, generator=g).numpy(), tg.randn(1003, generator=g).numpy(),
                F.dropout(tg.ones(77, 13), 0.4, generator=g).numpy(), tg.randint(9, (55,), generator=g).numpy(),
                tg.randperm(40, generator=g).numpy(),
            ]  # fmt: skip

    try:
        mine = draw("cpp")
    except RuntimeError:
        pytest.skip("the extension is not built")
    for a, b in zip(mine, draw("numpy"), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-7)


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64, tg.float16, tg.bfloat16])
@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_dropout_does_not_hide_nan(backend, dtype):
    with tg.backend(backend):
        for p in (0.5, 1.0):
            for inplace in (False, True):
                y = tg.nn.functional.dropout(tg.full((40,), float("nan"), dtype=dtype), p, inplace=inplace)
                assert y.isnan().all()
            x = tg.ones(40, dtype=dtype, requires_grad=True)
            tg.nn.functional.dropout(x, p).backward(tg.full((40,), float("inf"), dtype=dtype))
            assert x.grad.isnan().sum().item() > 5 and not x.grad.isfinite().any()
        lost = tg.full((1, 2, 4), float("nan"), dtype=dtype)
        keys = tg.ones(1, 3, 4, dtype=dtype)
        assert tg.nn.functional.scaled_dot_product_attention(lost, keys, keys, dropout_p=1.0).isnan().all()


def test_normal_numbers_are_of_the_dtype_of_the_mean():
    assert tg.normal(tg.zeros(3), tg.ones(3).double()).dtype is tg.float32
    assert tg.normal(tg.zeros(3).half(), tg.ones(3)).dtype is tg.float16
    assert tg.normal(1.0, tg.ones(3).double()).dtype is tg.float64
    assert tg.normal(tg.tensor(2), 0.0, (2, 3)).tolist() == [[2.0] * 3] * 2
