"""Calls of ``nn.functional`` beside PyTorch: functions and arguments that its table of operators lacks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

from .opinfo import close
from .translate import flat, ours, with_torch

_RNG = np.random.default_rng(0)


def _n(*shape: int) -> np.ndarray[Any, Any]:
    return _RNG.standard_normal(shape)


def _grid(value: float) -> np.ndarray[Any, Any]:
    grid = _n(1, 2, 3, 2)
    grid[0, 0, 0, 1] = value
    return grid


IMAGE, VOLUME = _n(2, 3, 7, 8), _n(2, 3, 4, 5, 6)
BAGS = np.array([0, 1, 2, 5, 5, 3])
TABLE = _n(6, 3)
Q, K, V = _n(2, 4, 3, 8), _n(2, 4, 6, 8), _n(2, 4, 6, 5)

CALLS: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
    *(
        ("interpolate", (IMAGE,), {"mode": mode, "antialias": True, "align_corners": corners, **size})
        for mode in ("bilinear", "bicubic")
        for corners in (False, True)
        for size in ({"size": (3, 4)}, {"size": (5, 20)}, {"scale_factor": 0.4}, {"scale_factor": 1.7})
    ),
    ("interpolate", (IMAGE,), {"scale_factor": 1.5, "recompute_scale_factor": True, "mode": "bicubic"}),
    ("interpolate", (VOLUME,), {"scale_factor": [0.5, 1.0, 1.5], "mode": "area"}),
    ("upsample", (IMAGE,), {"scale_factor": 2, "mode": "bilinear"}),
    *(("affine_grid", (_n(2, 2, 3), (2, 3, 4, 5)), {"align_corners": corners}) for corners in (False, True)),
    *(("affine_grid", (_n(2, 3, 4), (2, 3, 4, 1, 2)), {"align_corners": corners}) for corners in (False, True)),
    *(
        ("grid_sample", (VOLUME, _n(2, 2, 3, 4, 3) * 1.5, mode, pad, corners), {})
        for mode in ("bilinear", "nearest")
        for pad in ("zeros", "border", "reflection")
        for corners in (False, True)
    ),
    *(
        ("grid_sample", (_n(1, 2, 5, 6), _grid(value)), {"padding_mode": pad, "mode": mode, "align_corners": False})
        for value in (np.nan, np.inf, 1e30)
        for pad in ("zeros", "border")
        for mode in ("bilinear", "nearest")
    ),
    ("fold", (_n(8, 30), (4, 5), (2, 2)), {"padding": 1}),
    ("unfold", (_n(3, 4, 5), (2, 2)), {"stride": 2}),
    ("max_pool2d_with_indices", (IMAGE, 2), {}),
    ("adaptive_max_pool3d_with_indices", (VOLUME, 2), {}),
    ("adaptive_avg_pool3d", (VOLUME, (2, None, 3)), {}),
    ("lp_pool3d", (abs(VOLUME), 3.0, 2), {"stride": 1}),
    ("fractional_max_pool2d", (IMAGE, (2, 3), (3, 4)),
     {"_random_samples": _RNG.random((2, 3, 2)), "return_indices": True}),
    ("fractional_max_pool3d", (VOLUME, (2, 3, 1), (2, 2, 1)), {"_random_samples": _RNG.random((2, 3, 3))}),
    *(("pad", (IMAGE, pads), {"mode": mode})
      for mode in ("reflect", "replicate", "circular", "constant") for pads in ((1, 2, 0, 1), (2, -1, -1, 0))),
    ("scaled_dot_product_attention", (Q, K, V), {"is_causal": True}),
    ("scaled_dot_product_attention", (K, Q, V[:, :, :3]), {"is_causal": True}),
    ("scaled_dot_product_attention", (Q, K, V), {"attn_mask": np.zeros((3, 6), bool)}),
    ("scaled_dot_product_attention", (Q, K[:, :2], V[:, :2]), {"enable_gqa": True, "scale": 0.3}),
    ("embedding_bag", (BAGS, TABLE, np.array([0, 2, 2, 5])), {"mode": "max", "padding_idx": 5}),
    ("embedding_bag", (BAGS, TABLE, np.array([0, 2, 2, 6])), {"include_last_offset": True}),
    ("embedding_bag", (BAGS.reshape(3, 2), TABLE * 2), {"mode": "sum", "max_norm": 1.0, "norm_type": 1.0}),
    ("embedding_bag", (np.zeros(0, np.int64), TABLE, np.array([0, 0])), {}),
    ("cross_entropy", (_n(3, 4), np.array([0, 1, 2], np.uint8)), {}),
    ("cross_entropy", (_n(3, 4), np.array([0, -100, -100])), {"label_smoothing": 0.1}),
    ("gaussian_nll_loss", (_n(3, 4), _n(3, 4), 0.5), {}),
    ("local_response_norm", (np.arange(40).reshape(2, 5, 4), 3), {}),
    # errors: ours must be one that a handler of PyTorch's catches
    ("affine_grid", (_n(2, 2, 3), (2, 3, 4)), {}),
    ("affine_grid", (_n(2, 2, 3), (2, 3, 4, 0)), {}),
    ("interpolate", (IMAGE,), {}),
    ("interpolate", (IMAGE,), {"size": 3, "scale_factor": 2}),
    ("interpolate", (IMAGE,), {"size": 3, "mode": "linear"}),
    ("interpolate", (IMAGE,), {"size": 3, "mode": "cubic"}),
    ("interpolate", (IMAGE,), {"size": 0}),
    ("interpolate", (IMAGE,), {"size": 3, "align_corners": True}),
    ("interpolate", (IMAGE,), {"size": 3, "antialias": True}),
    ("pad", (IMAGE, (1, 1)), {"mode": "mirror"}),
    ("pad", (IMAGE, (1,)), {}),
    ("scaled_dot_product_attention", (Q, K, V), {"attn_mask": _n(3, 6), "is_causal": True}),
    ("scaled_dot_product_attention", (Q, K[:, :2], V[:, :2]), {}),
    ("embedding_bag", (BAGS, TABLE), {}),
    ("embedding_bag", (BAGS, TABLE, np.array([1, 2])), {}),
    ("embedding_bag", (BAGS.reshape(3, 2), TABLE, np.array([0])), {}),
    ("embedding_bag", (np.array([9]), TABLE, np.array([0])), {}),
    ("cross_entropy", (_n(3, 4), abs(_n(3, 4))), {"ignore_index": 2}),
    ("cross_entropy", (_n(3, 4), np.array([0, 1, 4])), {}),
    ("binary_cross_entropy", (_n(3) + 2, abs(_n(3))), {}),
    ("batch_norm", (_n(4, 3), None, None), {}),
    ("batch_norm", (_n(1, 3), None, None), {"training": True}),
    ("pixel_shuffle", (_n(2, 8, 3, 3), 3), {}),
    ("channel_shuffle", (_n(2, 6, 4), 4), {}),
    ("max_unpool2d", (_n(1, 2, 2, 2), np.full((1, 2, 2, 2), 16), 2), {}),
    ("fractional_max_pool2d", (IMAGE, 3, (7, 4)), {}),
    ("fractional_max_pool3d", (VOLUME, (2, 3, 1), (3, 2, 1)), {}),
    ("gumbel_softmax", (np.arange(3),), {}),
    ("conv2d", (IMAGE, _n(2, 3, 3, 3)), {"padding": "same", "stride": 2}),
)  # fmt: skip


@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS, ids=[f"{row[0]}-{i}" for i, row in enumerate(CALLS)])
def test_call(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    torch = with_torch()

    def theirs(value: Any) -> Any:
        return torch.tensor(value) if isinstance(value, np.ndarray) else value

    given = tuple(theirs(value) for value in args), {key: theirs(value) for key, value in kwargs.items()}
    mine = ours(given[0]), ours(given[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            want = getattr(torch.nn.functional, name)(*given[0], **given[1])
        except Exception as error:  # noqa: BLE001 - its class is what is tested
            with pytest.raises(type(error)):
                getattr(tg.nn.functional, name)(*mine[0], **mine[1])
            return
        got = getattr(tg.nn.functional, name)(*mine[0], **mine[1])
    for i, (g, w) in enumerate(zip(flat(got), flat(want), strict=True)):
        close(g, w, f"result {i}")
