"""The categorical distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..ops.checks import require_tensors
from ..tensor import Size, Tensor
from . import constraints
from .bernoulli import ByProbsOrLogits
from .utils import as_size, eps_of

__all__ = ["Categorical"]


class Categorical(ByProbsOrLogits):
    """The numbers from 0 to n - 1, with the probabilities ``probs`` (..., n), which are normalized, or ``logits``.

    Example:
        >>> import tensorgrad as tg
        >>> tg.distributions.Categorical(tg.tensor([1.0, 3.0])).probs.tolist()
        [0.25, 0.75]
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _is_binary = False

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = self._take(probs, logits)
        require_tensors(type(self).__name__, **{self._form: given})
        if given.dim() < 1:
            raise ValueError(f"`{self._form}` parameter must be at least one-dimensional.")
        if self._form == "probs":
            self.__dict__["probs"] = given / given.sum(-1, keepdim=True)
        else:
            self.__dict__["logits"] = given - given.logsumexp(-1, keepdim=True)
        self._num_events = int(given.shape[-1])
        super().__init__(given.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def param_shape(self) -> Size:
        return self._param.size()

    @property
    def mean(self) -> Tensor:
        return tg.full(self._extended_shape(), float("nan"), dtype=self.probs.dtype, device=self.probs.device)

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(dim=-1)

    @property
    def variance(self) -> Tensor:
        return tg.full(self._extended_shape(), float("nan"), dtype=self.probs.dtype, device=self.probs.device)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            shape = as_size(sample_shape)
            sums = self.probs.reshape(-1, self._num_events).double().cumsum(-1)
            u = tg.rand((sums.shape[0], shape.numel()), dtype=tg.float64, device=sums.device)
            # u < 1, so the first sum above u * total has positive probability
            drawn = tg.searchsorted(sums, u * sums[:, -1:], right=True).clamp(max=self._num_events - 1)
            return drawn.T.reshape(self._extended_shape(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.long().unsqueeze(-1)
        value, logits = tg.broadcast_tensors(value, self.logits)
        return logits.gather(-1, value[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        low = -(2 - eps_of(self.logits)) * 2.0 ** {"float64": 1023, "float16": 15}.get(self.logits.dtype.name, 127)
        logits = self.logits.clamp(min=low)  # an impossible event adds zero times a finite number
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = tg.arange(self._num_events, dtype=tg.int64, device=self._param.device)
        values = values.view((-1, *(1,) * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values
