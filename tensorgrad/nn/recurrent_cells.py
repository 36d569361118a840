"""Recurrent cells: one step of RNN, LSTM, GRU."""

from __future__ import annotations

import math
import sys
from typing import Any

from ..errors import ShapeError
from ..ops.checks import integer, require_tensors
from ..ops.create import empty
from ..ops.rnn_sequence import sequence
from ..tensor import Tensor
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


def autocast_is_on(x: Tensor) -> bool:
    """Whether dtypes may differ, since products of such tensors choose their own. False as long as nobody imported
    ``amp``."""
    amp = sys.modules.get("tensorgrad.amp.autocast_mode")
    return amp is not None and bool(amp.is_autocast_enabled(x.device.type))


class RNNCellBase(Module):
    """One step of a recurrent layer on inputs (n, input_size) or (input_size,)."""

    parts = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = integer(name, "input_size", input_size)
        self.hidden_size = hidden_size = integer(name, "hidden_size", hidden_size)
        self.bias = bias
        gates = num_chunks * hidden_size
        make = {"dtype": dtype, "device": device}
        self.weight_ih = Parameter(empty(gates, input_size, **make))
        self.weight_hh = Parameter(empty(gates, hidden_size, **make))
        self.register_parameter("bias_ih", Parameter(empty(gates, **make)) if bias else None)
        self.register_parameter("bias_hh", Parameter(empty(gates, **make)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform in ``±1/sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _next(self, mode: str, input: Any, given: Any) -> tuple[Any, ...]:
        name = type(self).__name__
        require_tensors(name, input=input)
        if input.ndim not in (1, 2):
            raise ShapeError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        if input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: input has inconsistent input_size: got {input.shape[-1]} expected {self.input_size}"
            )
        batched = input.ndim == 2
        x = input if batched else input.unsqueeze(0)
        state = () if given is None else self._state(given, x.shape[0], batched)
        h0, c0, *_ = *state, None, None
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None)
        _, h, c = sequence(mode, x, h0, c0, weights, sizes=(x.shape[0],))
        new = (h,) if c is None else (h, c)
        return new if batched else tuple(part.squeeze(0) for part in new)

    def _state(self, given: Any, n: int, batched: bool) -> tuple[Any, ...]:
        name = type(self).__name__
        state = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if len(state) != self.parts:
            raise ValueError(f"{name}: the state has {self.parts} parts, got {len(state)}.")
        for i, part in enumerate(state):
            what = f"hx[{i}]" if self.parts > 1 else "hidden"
            if part.ndim not in (1, 2):
                raise ShapeError(f"{name}: Expected {what} to be 1D or 2D, got {part.ndim}D instead")
        state = state if batched else tuple(part.unsqueeze(0) if part.ndim == 1 else part for part in state)
        for i, part in enumerate(state):
            if part.ndim != 2 or part.shape[0] != n:
                raise ShapeError(
                    f"{name}: Input batch size {n} doesn't match hidden{i} batch size {part.shape[0]} (hidden{i} has "
                    f"shape {tuple(part.shape)})"
                )
            if part.shape[1] != self.hidden_size:
                raise ShapeError(
                    f"{name}: hidden{i} has inconsistent hidden_size: got {part.shape[1]}, expected {self.hidden_size}"
                )
        return state

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else f", bias={self.bias}")
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return text if nonlinearity == "tanh" else f"{text}, nonlinearity={nonlinearity}"


class RNNCell(RNNCellBase):
    """One step of ``RNN``: (input, h) gives h'."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._next(f"RNN_{self.nonlinearity.upper()}", input, hx)[0]


class GRUCell(RNNCellBase):
    """One step of ``GRU``: (input, h) gives h'."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._next("GRU", input, hx)[0]


class LSTMCell(RNNCellBase):
    """One step of ``LSTM``: (input, (h, c)) gives (h', c')."""

    parts = 2

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        hidden, cell = self._next("LSTM", input, hx)
        return hidden, cell
