"""Initial values beside PyTorch's: the same where nothing is drawn, else of the same distribution."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

torch = pytest.importorskip("torch")

FIXED: list[tuple[str, tuple[Any, ...], tuple[int, ...]]] = [
    ("constant_", (0.3,), (2, 3)), ("zeros_", (), (4,)), ("ones_", (), (2, 1)), ("eye_", (), (3, 5)),
    ("dirac_", (), (3, 4, 5)), ("dirac_", (2,), (6, 2, 3, 3)), ("dirac_", (), (2, 3, 2, 3, 4)),
]  # fmt: skip

# name, keywords, shape: (mean, standard deviation, lower and upper bound) are compared
DRAWN: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("uniform_", {"a": -2, "b": 3}, (300, 200)),
    ("normal_", {"mean": 1.5, "std": 0.2}, (300, 200)),
    ("xavier_uniform_", {"gain": 2.0}, (300, 200)),
    ("xavier_normal_", {}, (100, 50, 3, 3)),
    ("kaiming_uniform_", {"a": math.sqrt(5)}, (300, 200)),
    ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "relu"}, (100, 50, 3, 3)),
    ("kaiming_normal_", {"nonlinearity": "selu"}, (300, 200)),
    ("trunc_normal_", {"std": 0.02}, (300, 200)),
    ("trunc_normal_", {"mean": 1, "std": 2.0, "a": 0, "b": 3}, (300, 200)),
    ("trunc_normal_", {"a": 1.5, "b": 4.0}, (100, 80)),
    ("trunc_normal_", {"a": -7.0, "b": -5.0}, (100, 80)),
    ("sparse_", {"sparsity": 0.3, "std": 0.5}, (300, 200)),
]


@pytest.mark.parametrize(("name", "args", "shape"), FIXED)
def test_fixed(name: str, args: Any, shape: Any) -> None:
    ours, theirs = tg.nn.Parameter(tg.randn(*shape)), torch.empty(*shape)
    assert getattr(tg.nn.init, name)(ours, *args) is ours and ours.requires_grad and ours.is_leaf
    np.testing.assert_array_equal(ours.detach().numpy(), getattr(torch.nn.init, name)(theirs, *args).numpy())


@pytest.mark.parametrize(("name", "how", "shape"), DRAWN)
@pytest.mark.filterwarnings("ignore:mean is more than 2 std")
def test_drawn(name: str, how: dict[str, Any], shape: Any) -> None:
    values = []
    for ns in (torch, tg):
        x = ns.empty(*shape)
        assert getattr(ns.nn.init, name)(x, **how) is x
        values.append(x.numpy().astype(np.float64))
    theirs, ours = values
    spread = theirs.std()
    few = 3 if ours.size < 10_000 else 1
    assert abs(ours.mean() - theirs.mean()) < 0.03 * spread * few
    assert abs(ours.std() / spread - 1) < 0.02 * few
    grid = np.linspace(0.02, 0.98, 25)
    assert np.abs(np.quantile(ours, grid) - np.quantile(theirs, grid)).max() < 0.1 * spread * few
    if "b" in how:
        assert how["a"] - 1e-5 <= ours.min() and ours.max() <= how["b"] + 1e-5
    elif "uniform" in name:
        assert abs(ours.max() - theirs.max()) < 0.1 * spread and abs(ours.min() - theirs.min()) < 0.1 * spread
    if name == "sparse_":
        assert ((ours == 0).sum(0) == (theirs == 0).sum(0)).all()
    first, second = (getattr(tg.nn.init, name)(tg.empty(4, 3), **how, generator=seeded(7)) for _ in range(2))
    assert first.tolist() == second.tolist()


def seeded(seed: int) -> Any:
    return tg.random.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (4, 4)])
def test_orthogonal(shape: Any) -> None:
    x = tg.nn.init.orthogonal_(tg.empty(*shape), gain=2.0).reshape(shape[0], -1)
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(gram.numpy(), 4 * np.eye(len(gram)), atol=1e-5)


def test_gains_and_fans() -> None:
    for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert tg.nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert tg.nn.init.calculate_gain("leaky_relu", 0.5) == torch.nn.init.calculate_gain("leaky_relu", 0.5)
    for shape in ((4, 3), (4, 3, 2), (4, 3, 5, 5)):
        assert tg.nn.init._calculate_fan_in_and_fan_out(tg.empty(shape)) == (
            torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
        )
        assert tg.nn.init._calculate_correct_fan(tg.empty(shape), "fan_out") == (
            torch.nn.init._calculate_correct_fan(torch.empty(shape), "fan_out")
        )


CALLS: dict[str, Any] = {
    "nonlinearity": lambda ns: ns.nn.init.calculate_gain("softmax"),
    "conv4d": lambda ns: ns.nn.init.calculate_gain("conv4d"),
    "slope": lambda ns: ns.nn.init.calculate_gain("leaky_relu", "x"),
    "mode": lambda ns: ns.nn.init.kaiming_normal_(ns.empty(2, 3), mode="fan"),
    "fans": lambda ns: ns.nn.init.xavier_normal_(ns.empty(3)),
    "eye": lambda ns: ns.nn.init.eye_(ns.empty(3)),
    "dirac": lambda ns: ns.nn.init.dirac_(ns.empty(3, 3)),
    "groups": lambda ns: ns.nn.init.dirac_(ns.empty(3, 3, 3), 2),
    "orthogonal": lambda ns: ns.nn.init.orthogonal_(ns.empty(3)),
    "sparse": lambda ns: ns.nn.init.sparse_(ns.empty(3), 0.5),
    "empty": lambda ns: ns.nn.init.kaiming_normal_(ns.empty(0, 3)),
    "empty, uniform": lambda ns: ns.nn.init.kaiming_uniform_(ns.empty(0, 3)),
    "far": lambda ns: ns.nn.init.trunc_normal_(ns.empty(2), 5.0, 1.0, -2.0, 2.0),
    **{
        f"old {name}": lambda ns, name=name: getattr(ns.nn.init, name)(
            ns.empty(3, 3), *([0.5] if name in ("constant", "sparse") else []))
        for name in ("uniform", "normal", "constant", "eye", "xavier_uniform", "xavier_normal", "kaiming_uniform",
                     "kaiming_normal", "orthogonal", "sparse")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_errors_and_warnings(name: str) -> None:
    seen: list[Any] = []
    for ns in (torch, tg):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                CALLS[name](ns)
                seen.append(None)
            except Exception as error:  # noqa: BLE001 - its class is what is compared
                seen.append(error)
        seen.append([(w.category, str(w.message)) for w in said])
    theirs, their_words, ours, our_words = seen
    assert theirs is None or isinstance(ours, type(theirs)), (theirs, ours)
    assert (theirs is None) == (ours is None)
    assert our_words == their_words
