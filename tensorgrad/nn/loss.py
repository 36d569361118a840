"""Loss layers: a function of ``nn.functional`` and the settings it is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..ops.checks import legacy_reduction, number
from ..tensor import Tensor
from . import functional as F
from .module import Module

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss", "CrossEntropyLoss", "GaussianNLLLoss",
    "HingeEmbeddingLoss", "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "MarginRankingLoss", "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss", "NLLLoss2d", "PoissonNLLLoss", "SmoothL1Loss",
    "SoftMarginLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss",
]  # fmt: skip


class _Loss(Module):
    """A loss whose settings are the parameters of ``__init__``, kept under the same names.

    ``reduction``: "mean" or "sum" over the batch, or "none" for every element's loss.
    """

    function: Any
    settings: tuple[str, ...] = ("reduction",)

    def __init_subclass__(cls) -> None:
        own = cls.__dict__.get("__init__")
        if own is not None and cls.__module__ == __name__:  # a user's class has settings of its own
            names = tuple(inspect.signature(own).parameters)[1:]
            cls.settings = tuple(name for name in names if name not in ("size_average", "reduce"))

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        self._keep(reduction=legacy_reduction(reduction, size_average, reduce))

    def _keep(self, **settings: Any) -> None:
        super().__init__()
        for name, value in settings.items():
            if name in ("weight", "pos_weight"):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Tensor) -> Tensor:
        own = self.__dict__
        return type(self).function(*inputs, **{name: own[name] for name in self.settings})


class _WeightedLoss(_Loss):
    """A loss with a factor per class, a buffer."""

    settings = ("weight", "reduction")

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        self._keep(weight=weight, reduction=legacy_reduction(reduction, size_average, reduce))


class L1Loss(_Loss):
    """``|input - target|``."""

    function = F.l1_loss


class MSELoss(_Loss):
    """``(input - target) ** 2``."""

    function = F.mse_loss


class SoftMarginLoss(_Loss):
    """``log(1 + exp(-target * input))`` for targets of 1 and -1."""

    function = F.soft_margin_loss


class CrossEntropyLoss(_WeightedLoss):
    """``-log softmax(input)`` at the target's class.

    Args:
        weight: (c,) a factor per class.
        ignore_index: targets of this value count nothing.
        label_smoothing: this share of the target is spread evenly over the classes.
    Shapes: input (n, c) or (n, c, d1, ...), target (n) or (n, d1, ...) of int64; or probabilities in the input's shape.
    """

    function = F.cross_entropy

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
        reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)


class NLLLoss(_WeightedLoss):
    """``-input`` at the target's class, for log-probabilities."""

    function = F.nll_loss

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
        reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(weight=weight, ignore_index=ignore_index, reduction=reduction)


class NLLLoss2d(NLLLoss):
    """``NLLLoss`` under an old name."""


class BCELoss(_WeightedLoss):
    """``-target * log(input) - (1 - target) * log(1 - input)`` for probabilities."""

    function = F.binary_cross_entropy


class BCEWithLogitsLoss(_Loss):
    """``BCELoss`` of the sigmoid of the input, in one stable step; ``pos_weight`` scales the term of positives."""

    function = F.binary_cross_entropy_with_logits

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
        reduction: str = "mean", pos_weight: Tensor | None = None,
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(weight=weight, reduction=reduction, pos_weight=pos_weight)


class SmoothL1Loss(_Loss):
    """Squared below ``beta``, absolute above."""

    function = F.smooth_l1_loss

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(reduction=reduction, beta=beta)


class HuberLoss(_Loss):
    """Squared below ``delta``, ``delta`` times absolute above."""

    function = F.huber_loss

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        if isinstance(delta, bool) or not isinstance(delta, (int, float)):
            raise TypeError(f"HuberLoss: delta must be a float or int, got {type(delta).__name__}")
        self._keep(reduction=reduction, delta=delta)


class KLDivLoss(_Loss):
    """The Kullback-Leibler divergence of a target distribution from log-probabilities."""

    function = F.kl_div

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
        log_target: bool = False,
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(reduction=reduction, log_target=log_target)


class PoissonNLLLoss(_Loss):
    """Minus the log-likelihood of counts under Poisson distributions."""

    function = F.poisson_nll_loss

    def __init__(
        self, log_input: bool = True, full: bool = False, size_average: bool | None = None, eps: float = 1e-8,
        reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(log_input=log_input, full=full, eps=eps, reduction=reduction)


class GaussianNLLLoss(_Loss):
    """Minus the log-likelihood under normal distributions: called with (input, target, var)."""

    function = F.gaussian_nll_loss

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        self._keep(full=full, eps=eps, reduction=reduction)


class HingeEmbeddingLoss(_Loss):
    """``input`` where the target is 1, ``max(0, margin - input)`` where it is -1."""

    function = F.hinge_embedding_loss

    def __init__(
        self, margin: float = 1.0, size_average: bool | None = None, reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(margin=margin, reduction=reduction)


class MarginRankingLoss(_Loss):
    """``max(0, -target * (input1 - input2) + margin)``: called with (input1, input2, target)."""

    function = F.margin_ranking_loss

    def __init__(
        self, margin: float = 0.0, size_average: bool | None = None, reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(margin=margin, reduction=reduction)


class CosineEmbeddingLoss(_Loss):
    """``1 - cos`` where the target is 1, ``max(0, cos - margin)`` where it is -1."""

    function = F.cosine_embedding_loss

    def __init__(
        self, margin: float = 0.0, size_average: bool | None = None, reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        self._keep(margin=margin, reduction=reduction)


class MultiMarginLoss(_WeightedLoss):
    """The hinge loss of classes: by how much others come within ``margin`` of the target's score."""

    function = F.multi_margin_loss

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, size_average: bool | None = None,
        reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        if p not in (1, 2):
            raise ValueError("only p == 1 and p == 2 supported")
        if weight is not None and weight.ndim != 1:
            raise ValueError(f"MultiMarginLoss: weight must be None or have 1 dimension, got {tuple(weight.shape)}.")
        self._keep(p=p, margin=margin, weight=weight, reduction=reduction)


class TripletMarginLoss(_Loss):
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` with p-norm distances."""

    function = F.triplet_margin_loss

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
        size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
    ) -> None:  # fmt: skip
        reduction = legacy_reduction(reduction, size_average, reduce)
        if number("TripletMarginLoss", "margin", margin) <= 0:
            raise ValueError(f"TripletMarginLoss: expected margin to be greater than 0, got {margin} instead")
        self._keep(margin=margin, p=p, eps=eps, swap=swap, reduction=reduction)


class TripletMarginWithDistanceLoss(_Loss):
    """``TripletMarginLoss`` with a distance of your own."""

    function = F.triplet_margin_with_distance_loss

    def __init__(
        self, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
        swap: bool = False, reduction: str = "mean",
    ) -> None:  # fmt: skip
        self._keep(distance_function=distance_function, margin=margin, swap=swap, reduction=reduction)


class MultiLabelMarginLoss(_Loss):
    """The hinge loss of several classes per sample; targets are their numbers, ended by -1."""

    function = F.multilabel_margin_loss


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """Binary cross-entropy of logits for several classes per sample, averaged over the classes."""

    function = F.multilabel_soft_margin_loss

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        self._keep(weight=weight, reduction=legacy_reduction(reduction, size_average, reduce))


class CTCLoss(_Loss):
    """The loss of labels whose places in the input are not known: called with (log_probs, targets, input_lengths,
    target_lengths); see ``nn.functional.ctc_loss``.

    Source: Graves, Fernandez, Gomez, Schmidhuber 2006.
    """

    function = F.ctc_loss

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        self._keep(blank=blank, reduction=reduction, zero_infinity=zero_infinity)

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any) -> Tensor:  # type: ignore[override]
        return F.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity
        )
