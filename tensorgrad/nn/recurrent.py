"""Recurrent layers: RNN, LSTM, GRU over whole sequences, and their cells for single steps.

Everything that does not depend on the state, the input's product with its weights, is done for all steps in one
product; a step then is one small product and one fused op for the gates.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError
from ..ops import pointwise as pw
from ..ops.create import empty, zeros
from ..ops.join import cat, stack
from ..ops.matmul import linear
from ..ops.rnn import gru_cell, lstm_cell
from ..ops.steps import steps
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _step(mode: str, x: Any, state: tuple[Any, ...], weight: Any, bias: Any) -> tuple[Any, ...]:
    """The next state: of LSTM (hidden, cell), else (hidden,). ``x`` (n, gates * h): the input's share of the gates."""
    hidden = linear(state[0], weight, bias)
    if mode == "LSTM":
        return tuple(lstm_cell(x + hidden, state[1]))
    if mode == "GRU":
        return (gru_cell(x, hidden, state[0]),)
    total = x + hidden
    return (pw.tanh(total) if mode == "RNN_TANH" else F.relu(total),)


class _Recurrent(Module):
    """What all recurrent layers share.

    Args:
        input_size, hidden_size: widths of an input and of the state.
        num_layers: each layer above the first reads the outputs of the one below.
        bias: whether there are biases.
        batch_first: sequences are (n, t, input_size) instead of (t, n, input_size).
        dropout: between layers, in training.
        bidirectional: a second set of weights reads each sequence backwards; outputs are put side by side.
    Parameters: weight_ih_l{k} (gates * hidden_size, inputs), weight_hh_l{k} (gates * hidden_size, hidden_size),
        bias_ih_l{k}, bias_hh_l{k}; those of the backward direction end in ``_reverse``.
    Initial values: uniform in ``±1/sqrt(hidden_size)``.
    """

    mode: str
    proj_size = 0

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if hidden_size <= 0 or num_layers <= 0:
            raise ValueError(f"{name}: hidden_size and num_layers must be positive, got {hidden_size}, {num_layers}.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout should be a number in range [0, 1], got {dropout}.")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        gates = _GATES[self.mode] * hidden_size
        width = self.proj_size or hidden_size
        for layer in range(num_layers):
            for suffix in self._directions(layer):
                inputs = input_size if layer == 0 else width * (2 if bidirectional else 1)
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, inputs), "weight_hh": (gates, width)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if self.proj_size:
                    shapes["weight_hr"] = (self.proj_size, hidden_size)
                for part, shape in shapes.items():
                    setattr(self, part + suffix, Parameter(empty(shape, dtype=dtype, device=device)))
        self.reset_parameters()

    def _directions(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"] if self.bidirectional else [f"_l{layer}"]

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do: kernels take the weights as they are. Kept so that scripts that call it run."""

    def _widths(self) -> tuple[int, ...]:
        """The widths of the parts of the state."""
        return (self.hidden_size,)

    def _initial(self, given: Any, like: Any, batched: bool) -> tuple[Any, ...]:
        """The parts of the initial state, each (layers * directions, n, width)."""
        count, n = self.num_layers * (2 if self.bidirectional else 1), like.shape[1]
        if given is None:
            return tuple(zeros(count, n, w, dtype=like.dtype, device=like.device) for w in self._widths())
        parts = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if len(parts) != len(self._widths()):
            raise ValueError(f"{type(self).__name__}: the state has {len(self._widths())} parts, got {len(parts)}.")
        ready = tuple(part if batched else part.unsqueeze(1) for part in parts)
        for part, width in zip(ready, self._widths(), strict=True):
            if tuple(part.shape) != (count, n, width):
                expected = (count, n, width) if batched else (count, width)
                got = tuple(part.shape) if batched else (part.shape[0], part.shape[2])
                raise ShapeError(f"{type(self).__name__}: expected an initial state of shape {expected}, got {got}.")
        return ready

    def _sequence(self, input: Any) -> tuple[Any, bool]:
        """((t, n, input_size), whether it came with a batch)."""
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: input must be a Tensor, got {type(input).__name__}.")
        x: Any = input
        if x.ndim not in (2, 3):
            raise ShapeError(f"{name}: expected input to be 2D or 3D, got {x.ndim}D of shape {tuple(x.shape)}.")
        if x.shape[-1] != self.input_size:
            raise ShapeError(f"{name}: input.size(-1) must be {self.input_size}, got {x.shape[-1]}.")
        batched = x.ndim == 3
        x = x.unsqueeze(1) if not batched else x.transpose(0, 1) if self.batch_first else x
        if x.shape[0] == 0:
            raise ShapeError(f"{name}: expected a sequence of at least one step, got shape {tuple(input.shape)}.")
        return x, batched

    def _run(self, input: Any, given: Any) -> tuple[Any, tuple[Any, ...]]:
        x, batched = self._sequence(input)
        initial = self._initial(given, x, batched)
        last: list[tuple[Any, ...]] = []
        for layer in range(self.num_layers):
            outputs = []
            for backward, suffix in enumerate(self._directions(layer)):
                state = tuple(part[len(last)] for part in initial)
                sequence, state = self._direction(x, state, suffix, bool(backward))
                outputs.append(sequence)
                last.append(state)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, 2)
            if self.dropout and layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        final: list[Any] = [stack(parts, 0) for parts in zip(*last, strict=True)]
        if not batched:
            return x.squeeze(1), tuple(part.squeeze(1) for part in final)
        return (x.transpose(0, 1) if self.batch_first else x), tuple(final)

    def _direction(self, x: Any, state: tuple[Any, ...], suffix: str, backward: bool) -> tuple[Any, tuple[Any, ...]]:
        own = self.__dict__
        weight, bias = own["weight_hh" + suffix], own.get("bias_hh" + suffix)
        projection = own.get("weight_hr" + suffix)
        shares = list(steps(linear(x, own["weight_ih" + suffix], own.get("bias_ih" + suffix))))
        hidden = []
        for share in reversed(shares) if backward else shares:
            state = _step(self.mode, share, state, weight, bias)
            if projection is not None:
                state = (linear(state[0], projection), *state[1:])
            hidden.append(state[0])
        return stack(hidden[::-1] if backward else hidden, 0), state

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += f", bias={self.bias}"
        if self.batch_first:
            text += f", batch_first={self.batch_first}"
        if self.dropout:
            text += f", dropout={self.dropout}"
        if self.bidirectional:
            text += f", bidirectional={self.bidirectional}"
        return text


class RNN(_Recurrent):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu; called with (input, h_0), returns (outputs, h_n).

    Shapes: input (t, n, input_size), or without n; states (layers * directions, n, hidden_size); outputs
        (t, n, directions * hidden_size). See ``LSTM`` for the arguments. Source: Elman 1990.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        self.__dict__["mode"] = f"RNN_{nonlinearity.upper()}"
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (hidden,) = self._run(input, hx)
        return outputs, hidden


class GRU(_Recurrent):
    """A gated recurrent unit; called with (input, h_0), returns (outputs, h_n).

    ``r, z = sigmoid(...)``, ``n = tanh(W_in x + b_in + r * (W_hn h + b_hn))``, ``h' = (1 - z) n + z h``; rows of the
    weights stand in the order r, z, n. See ``RNN`` for shapes. Source: Cho et al. 2014.
    """

    mode = "GRU"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (hidden,) = self._run(input, hx)
        return outputs, hidden


class LSTM(_Recurrent):
    """Long short-term memory; called with (input, (h_0, c_0)), returns (outputs, (h_n, c_n)).

    ``c' = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h' = sigmoid(o) tanh(c')``; rows of the weights stand in the order
    i, f, g, o. See ``RNN`` for shapes.

    Args:
        proj_size: if positive, outputs are projected to this width by weight_hr_l{k} (proj_size, hidden_size).
    Source: Hochreiter and Schmidhuber 1997; projections: Sak, Senior, Beaufays 2014.
    """

    mode = "LSTM"

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"LSTM: proj_size must be from 0 to hidden_size - 1, got {proj_size} of {hidden_size}.")
        self.__dict__["proj_size"] = proj_size
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype)

    def _widths(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self._run(input, hx)
        return outputs, state


class _Cell(Module):
    """One step of a recurrent layer on inputs (n, input_size) or (input_size,)."""

    mode: str
    parts = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = _GATES[self.mode] * hidden_size
        make = {"dtype": dtype, "device": device}
        self.weight_ih = Parameter(empty(gates, input_size, **make))
        self.weight_hh = Parameter(empty(gates, hidden_size, **make))
        self.register_parameter("bias_ih", Parameter(empty(gates, **make)) if bias else None)
        self.register_parameter("bias_hh", Parameter(empty(gates, **make)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform in ``±1/sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _next(self, input: Any, given: Any) -> tuple[Any, ...]:
        name = type(self).__name__
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(f"{name}: expected input (n, {self.input_size}), got {tuple(input.shape)}.")
        x = input if input.ndim == 2 else input.unsqueeze(0)
        if given is None:
            zero = zeros(x.shape[0], self.hidden_size, dtype=x.dtype, device=x.device)
            state: tuple[Any, ...] = (zero,) * self.parts
        else:
            state = tuple(given) if isinstance(given, (tuple, list)) else (given,)
            state = state if input.ndim == 2 else tuple(part.unsqueeze(0) for part in state)
        new = _step(self.mode, linear(x, self.weight_ih, self.bias_ih), state, self.weight_hh, self.bias_hh)
        return new if input.ndim == 2 else tuple(part.squeeze(0) for part in new)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else f", bias={self.bias}")


class RNNCell(_Cell):
    """One step of ``RNN``: (input, h) gives h'."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        self.__dict__["mode"] = f"RNN_{nonlinearity.upper()}"
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._next(input, hx)[0]


class GRUCell(_Cell):
    """One step of ``GRU``: (input, h) gives h'."""

    mode = "GRU"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._next(input, hx)[0]


class LSTMCell(_Cell):
    """One step of ``LSTM``: (input, (h, c)) gives (h', c')."""

    mode = "LSTM"
    parts = 2

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        hidden, cell = self._next(input, hx)
        return hidden, cell
