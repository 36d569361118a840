"""Recurrent layers over whole sequences: RNN, LSTM, GRU. One op computes all steps of a layer in one direction."""

from __future__ import annotations

import itertools
import math
import numbers
import warnings
from typing import TYPE_CHECKING, Any

from ..errors import InputDTypeError, ShapeError
from ..ops.checks import integer, require_tensors
from ..ops.create import empty
from ..ops.index_slices import index_select
from ..ops.join import cat, stack
from ..ops.rnn_sequence import GATES, sequence
from ..ops.steps import steps
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter
from .recurrent_cells import autocast_is_on

if TYPE_CHECKING:
    from .utils.rnn import PackedSequence

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]

_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class RNNBase(Module):
    """What all recurrent layers share.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        input_size, hidden_size: widths of an input and of the state.
        num_layers: each layer above the first reads the outputs of the one below.
        bias: whether there are biases.
        batch_first: sequences are (n, t, input_size) instead of (t, n, input_size).
        dropout: between layers, in training.
        bidirectional: a second set of weights reads each sequence backwards; outputs are put side by side.
        proj_size: of LSTM; see there.
    Parameters: weight_ih_l{k} (gates * hidden_size, inputs), weight_hh_l{k} (gates * hidden_size, hidden_size),
        bias_ih_l{k}, bias_hh_l{k}; those of the backward direction end in ``_reverse``.
    Initial values: uniform in ``±1/sqrt(hidden_size)``.
    """

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_arguments(mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates = GATES[mode] * hidden_size
        width = proj_size or hidden_size
        for layer in range(num_layers):
            for suffix in self._directions(layer):
                inputs = input_size if layer == 0 else width * (2 if bidirectional else 1)
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, inputs), "weight_hh": (gates, width)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
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

    @property
    def _all_weights(self) -> list[list[str]]:
        parts = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.bias else ())]
        parts += ["weight_hr"] if self.proj_size else []
        return [[p + s for p in parts] for k in range(self.num_layers) for s in self._directions(k)]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The weights of each layer and direction: [weight_ih, weight_hh, bias_ih, bias_hh]."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def _widths(self) -> tuple[int, ...]:
        """The widths of the parts of the state."""
        return (self.proj_size or self.hidden_size, self.hidden_size) if self.mode == "LSTM" else (self.hidden_size,)

    def _initial(self, given: Any, like: Any, n: int, batched: bool) -> tuple[Any, ...]:
        """The parts of the initial state, each (layers * directions, n, width); none if it is zero."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        if given is None:
            return ()
        parts = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if len(parts) != len(self._widths()):
            raise ValueError(f"{type(self).__name__}: the state has {len(self._widths())} parts, got {len(parts)}.")
        for part in parts:
            require_tensors(type(self).__name__, hx=part)
        ranks = [part.ndim for part in parts]
        if ranks != [3 if batched else 2] * len(parts):
            kind, rank = ("batched 3-D", "3-D") if batched else ("unbatched 2-D", "2-D")
            what = "hx" if len(parts) == 1 else "hx and cx"
            got = f"{ranks[0]}-D tensor" if len(ranks) == 1 else f"({', '.join(f'{r}-D' for r in ranks)}) tensors"
            raise ShapeError(f"For {kind} input, {what} should also be {rank} but got {got}")
        ready = tuple(part if batched else part.unsqueeze(1) for part in parts)
        for i, (part, width) in enumerate(zip(ready, self._widths(), strict=True)):
            if tuple(part.shape) != (count, n, width):
                which = f"hidden[{i}]" if len(parts) > 1 else "hidden"
                raise ShapeError(f"Expected {which} size {(count, n, width)}, got {list(part.shape)}")
            if part.dtype != like.dtype and not autocast_is_on(like):
                raise InputDTypeError(
                    f"Input and hidden tensors are not the same dtype, found input tensor with {like.dtype} and hidden "
                    f"tensor with {part.dtype}"
                )
        return ready

    def _check_input(self, x: Tensor, rank: int) -> None:
        weight = getattr(self, "weight_ih_l0")  # noqa: B009 - a tensor that a parametrization may compute
        if x.dtype != weight.dtype and not autocast_is_on(x):
            raise InputDTypeError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). Convert input: "
                f"input.to({weight.dtype}), or convert model: model.to({x.dtype})"
            )
        if x.ndim != rank:
            raise ShapeError(f"input must have {rank} dimensions, got {x.ndim}")
        if x.shape[-1] != self.input_size:
            raise ShapeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )

    def _run(self, input: Any, given: Any) -> tuple[Any, tuple[Any, ...]]:
        """(outputs, parts of the final state) for a tensor or a packed sequence."""
        if not isinstance(input, Tensor):
            return self._run_packed(input, given)
        x: Any = input
        if x.ndim not in (2, 3):
            raise ShapeError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {x.ndim}D tensor instead")
        batched = x.ndim == 3
        self._check_input(x, x.ndim)
        x = x.unsqueeze(1) if not batched else x.transpose(0, 1) if self.batch_first else x
        if x.shape[0] == 0:
            raise ShapeError(
                f"Expected sequence length to be larger than 0 in {type(self).__name__}, got shape {tuple(input.shape)}"
            )
        x, final = self._layers(x, self._initial(given, x, x.shape[1], batched), None)
        if not batched:
            return x.squeeze(1), tuple(part.squeeze(1) for part in final)
        return (x.transpose(0, 1) if self.batch_first else x), final

    def _run_packed(self, input: Any, given: Any) -> tuple[Any, tuple[Any, ...]]:
        from .utils.rnn import PackedSequence

        if not isinstance(input, PackedSequence):
            raise TypeError(
                f"{type(self).__name__}: input must be a Tensor or a PackedSequence, got {type(input).__name__}."
            )
        data, batch_sizes, order, back = input
        sizes = tuple(batch_sizes.tolist())
        self._check_input(data, 2)
        if not sizes or sum(sizes) != data.shape[0] or any(a < b for a, b in itertools.pairwise(sizes)):
            raise ShapeError(
                f"{type(self).__name__}: a packed sequence of {data.shape[0]} rows can't have batch_sizes {sizes}; "
                "make one with nn.utils.rnn.pack_padded_sequence."
            )
        state = self._initial(given, data, sizes[0], True)
        if order is not None:
            state = tuple(index_select(part, 1, order) for part in state)
        outputs, final = self._layers(data, state, sizes)
        if back is not None:
            final = tuple(index_select(part, 1, back) for part in final)
        return PackedSequence(outputs, batch_sizes, order, back), final

    def _layers(self, x: Any, initial: tuple[Any, ...], sizes: tuple[int, ...] | None) -> tuple[Any, tuple[Any, ...]]:
        """All layers over (t, n, features), or over packed rows, of which ``sizes`` belong to each step."""
        last: list[tuple[Any, ...]] = []
        # all layers' states by one op: picking one by one would fill a whole gradient for each
        first = [iter(steps(part)) for part in initial]
        for layer in range(self.num_layers):
            outputs = []
            for backward, suffix in enumerate(self._directions(layer)):
                state = (*(next(part) for part in first), None, None)
                weights = tuple(getattr(self, part + suffix, None) for part in _WEIGHTS)
                out, *final = sequence(
                    self.mode, x, state[0], state[1], weights, reverse=bool(backward), sizes=sizes
                )  # fmt: skip
                outputs.append(out)
                last.append(tuple(part for part in final if part is not None))
            x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
            if self.dropout and layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(stack(parts, 0) for parts in zip(*last, strict=True))

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


def _check_arguments(
    mode: Any, input_size: Any, hidden_size: Any, num_layers: Any, bias: Any, batch_first: Any, dropout: Any,
    proj_size: Any,
) -> None:  # fmt: skip
    if mode not in GATES:
        raise ValueError(f"Unrecognized RNN mode: {mode}; known are {', '.join(GATES)}.")
    if not isinstance(dropout, numbers.Real) or isinstance(dropout, bool) or not 0 <= float(dropout) <= 1:
        raise ValueError(
            f"dropout should be a number in range [0, 1], the probability that an element is zeroed; got {dropout!r}"
        )
    for name, value in (("bias", bias), ("batch_first", batch_first)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if not isinstance(value, numbers.Integral):
            raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
        if value <= 0:
            raise ValueError(f"{name} must be greater than zero")
    proj_size = integer(mode, "proj_size", proj_size)
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")
    if dropout and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers "
            f"greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=4,
        )


class RNN(RNNBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu; called with (input, h_0), returns (outputs, h_n).

    Args: those of ``RNNBase`` without ``mode``, and ``nonlinearity``, "tanh" or "relu", after ``num_layers``.
    Shapes: input (t, n, input_size), or without n, or a PackedSequence; states (layers * directions, n, hidden_size);
        outputs (t, n, directions * hidden_size), packed for a packed input.
    Source: Elman 1990.
    Example:
        >>> import tensorgrad as tg
        >>> outputs, hidden = tg.nn.RNN(3, 4)(tg.zeros(5, 2, 3))
        >>> tuple(outputs.shape), tuple(hidden.shape)
        ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        outputs, (hidden,) = self._run(input, hx)
        return outputs, hidden


class GRU(RNNBase):
    """A gated recurrent unit; called with (input, h_0), returns (outputs, h_n).

    ``r, z = sigmoid(...)``, ``n = tanh(W_in x + b_in + r * (W_hn h + b_hn))``, ``h' = (1 - z) n + z h``; rows of the
    weights stand in the order r, z, n. See ``RNN`` for shapes. Source: Cho et al. 2014.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        outputs, (hidden,) = self._run(input, hx)
        return outputs, hidden


class LSTM(RNNBase):
    """Long short-term memory; called with (input, (h_0, c_0)), returns (outputs, (h_n, c_n)).

    ``c' = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h' = sigmoid(o) tanh(c')``; rows of the weights stand in the order
    i, f, g, o. See ``RNN`` for shapes.

    Args:
        proj_size: if positive, outputs are projected to this width by weight_hr_l{k} (proj_size, hidden_size).
    Source: Hochreiter and Schmidhuber 1997; projections: Sak, Senior, Beaufays 2014.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device,
            dtype,
        )  # fmt: skip

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        outputs, (hidden, cell) = self._run(input, hx)
        return outputs, (hidden, cell)
