"""Every promised name is there, under ``tensorgrad`` and under ``torch`` alike, as a function or a method."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import tensorgrad as tg
from tensorgrad.script.check import exists

from .expected import OPERATORS
from .surface import FUNCTIONS, MODULES, TRAINING


def found(name: str) -> bool:
    """Whether ``tensorgrad.name``, ``Tensor.name`` or, for what exists in place alone, ``Tensor.name_`` answers."""
    return any(exists(f"torch.{form}") for form in (name, f"Tensor.{name}", f"Tensor.{name}_"))


@pytest.mark.parametrize("names", (FUNCTIONS, MODULES, TRAINING, OPERATORS), ids=("functions", "nn", "training", "ops"))
def test_all_names_are_there(names: tuple[str, ...]) -> None:
    assert [name for name in names if not found(name)] == []


def test_methods_are_there_where_pytorch_has_them() -> None:
    torch = pytest.importorskip("torch")
    wanted = [n for name in FUNCTIONS if "." not in name for n in (name, f"{name}_") if hasattr(torch.Tensor, n)]
    assert [n for n in wanted if not hasattr(tg.Tensor, n)] == []


def test_modules_have_a_functional_form() -> None:
    """What has no weights is a function too."""
    functional: Any = importlib.import_module("tensorgrad.nn.functional")
    for name in ("celu", "ctc_loss", "fractional_max_pool2d", "gaussian_nll_loss", "lp_pool1d", "max_unpool2d",
                 "multilabel_margin_loss", "pixel_unshuffle", "rrelu",
                 "triplet_margin_with_distance_loss", "upsample"):  # fmt: skip
        assert callable(getattr(functional, name)), name
