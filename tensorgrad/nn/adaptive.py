"""Adaptive softmax: many classes, of which the frequent ones are cheap."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..ops.checks import integer, number
from ..tensor import Tensor
from . import functional as F
from .containers import ModuleList, Sequential
from .linear import Linear
from .module import Module

__all__ = ["AdaptiveLogSoftmaxWithLoss"]

_ASMoutput = namedtuple("_ASMoutput", ["output", "loss"])


class AdaptiveLogSoftmaxWithLoss(Module):
    """The log-probabilities of targets among many classes, ordered by frequency, and their mean loss.

    The head knows the first classes and one number for each cluster of rarer ones; a cluster has a projection of its
    own, narrower the rarer it is.

    Args:
        in_features: of the input (n, in_features) or (in_features,).
        n_classes: how many there are.
        cutoffs: where the clusters begin, in rising order.
        div_value: by which the width of each further cluster is divided.
        head_bias: whether the head has a bias.
    Returns: (output, loss): the log-probability of each target, and minus their mean.
    Source: Grave, Joulin, Cisse, Grangier, Jegou 2017.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(cutoffs, (tuple, list)):
            raise TypeError(f"cutoffs should be a sequence of integers, got {cutoffs!r}")
        given = [integer("AdaptiveLogSoftmaxWithLoss", "each of cutoffs", cutoff) for cutoff in cutoffs]
        n_classes = integer("AdaptiveLogSoftmaxWithLoss", "n_classes", n_classes)
        in_features = integer("AdaptiveLogSoftmaxWithLoss", "in_features", in_features)
        if not number("AdaptiveLogSoftmaxWithLoss", "div_value", div_value) > 0:
            raise ValueError(f"div_value should be positive, got {div_value}")
        if not given:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        rising = all(given[i] < given[i + 1] for i in range(len(given) - 1))
        if not rising or given[0] <= 0 or given[-1] > n_classes - 1:
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where each "
                "value is between 1 and n_classes-1"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*given, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        like = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **like)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            width = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(Linear(in_features, width, bias=False, **like), Linear(width, size, bias=False, **like))
            )

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        self.head.reset_parameters()
        for layer in self.tail.modules():
            if isinstance(layer, Linear):
                layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> Any:
        """The targets' log-probabilities and loss. Raises ArgumentError for a target that is no class."""
        single = input_._data.ndim == 1
        if target_._data.ndim != input_._data.ndim - 1 or input_._data.ndim not in (1, 2):
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss: got an input {tuple(input_.shape)} and a target {tuple(target_.shape)}; "
                "expected (n, in_features) and (n,), or (in_features,) and ()."
            )
        input: Any = input_.unsqueeze(0) if single else input_
        target: Any = target_.unsqueeze(0) if single else target_
        if input.shape[0] != target.shape[0]:
            raise ShapeError("Input and target should have the same size in the batch dimension.")
        if target._data.size and (int(target.min()) < 0 or int(target.max()) >= self.n_classes):
            raise ArgumentError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range [{int(target.min())}, "
                f"{int(target.max())}] were found."
            )
        head = F.log_softmax(self.head(input), 1)
        in_head: Any = target.clamp(max=self.shortlist_size - 1)
        output: Any = head.gather(1, in_head.unsqueeze(1)).squeeze(1)
        for i, cluster in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            rows = ((target >= low) & (target < high)).nonzero().squeeze(1)
            if not rows._data.size:
                continue
            inside = F.log_softmax(cluster(input.index_select(0, rows)), 1)
            place: Any = target.index_select(0, rows) - low
            known = head.index_select(0, rows)[:, self.shortlist_size + i]
            output = output.index_copy(0, rows, known + inside.gather(1, place.unsqueeze(1)).squeeze(1))
        loss = (-output).mean()
        return _ASMoutput(output.squeeze(0) if single else output, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes: (n, n_classes)."""
        given: Any = input
        return self._all(given, self.head(given))

    def _all(self, input: Any, head: Any) -> Any:
        logs = F.log_softmax(head, 1)
        parts: list[Any] = [logs[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            inside = F.log_softmax(cluster(input), 1)
            parts.append(inside + logs[:, self.shortlist_size + i].unsqueeze(1))
        from ..ops.join import cat

        return cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class of each sample, (n,); clusters are looked into only where one of them leads."""
        given: Any = input
        head = self.head(given)
        best: Any = head.argmax(1)
        rare = (best >= self.shortlist_size).nonzero().squeeze(1)
        if not rare._data.size:
            return best
        every = self._all(given.index_select(0, rare), head.index_select(0, rare))
        return best.index_copy(0, rare, every.argmax(1))
