"""What an op is: one stateless record, and the call that runs it and writes it on the tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..autograd.node import Node, inside, user_line
from ..core import OpCore, SpecCore, native
from ..dispatch import OPS, local, recorded
from ..errors import ArgumentError, DeviceError, IndexOutOfRange, ShapeError, TensorgradError
from ..tensor import Tensor, view_of, wrap

__all__ = ["Op", "Spec", "op", "specs_of"]

_HELD = 1 << 30  # beside the bits of inputs: kept whoever gets a gradient; as in csrc/tape/record.cpp


class Spec(SpecCore):
    """The shape and NumPy dtype of an array, without the array: what ``infer`` returns and rules see of inputs that
    were not kept."""

    __slots__ = ()

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"Spec({self.shape}, {self.dtype})"


class Op(OpCore):
    """One operation: what it means, how it is differentiated, what backward needs of it.

    Args:
        name: the op's name, and the name of the backend method that makes it fast.
        infer: ``infer(*inputs, **attrs)`` on arrays or Specs returns the output's Spec (or a tuple of them) and raises
            before any kernel runs.
        define: ``define(F, *inputs, **attrs)``, the meaning in smaller ops; None for primitives, which every backend
            inherits as a method of ``backends.base``.
        rule: ``rule(F, g, *inputs, needs, <kept outputs by name>, **attrs)`` returns one gradient (or None) per input.
            ``needs`` says of each input whether it is asked for: it may be fewer than require a gradient. Inputs that
            were not kept arrive as Specs. With several outputs ``g`` is a tuple with None where nothing flows. Without
            a rule, a recorded call runs the definition, whose ops have rules.
        keeps: names of the inputs and outputs that the rule reads; that of ``*rest`` stands for all of them.
        reads: of kept inputs that the rule reads for the gradients of some inputs alone, the names of those. Where none
            of them has a gradient, the input arrives as a Spec and may change before backward.
        held: names of inputs in ``reads`` that arrive as arrays all the same, for kernels that take their shape.
        outputs: names of the outputs.
        nondiff: names of outputs without gradient (indices, masks).
        view: the result shares the input's memory.
        adds: for ops of one input whose gradient is mostly zeros: the name of the kernel ``adds(total, g, **attrs)``
            that adds it to a total that is there already, in the total's memory.
        checked: the extension's kernel refuses all that ``infer`` refuses, which is then asked only for the words.
        sized_by_data: the results' shapes depend on elements, so that a compiled program can't hold the op.
        raises: its kernel raises for some elements of its inputs, an index beyond a table, say: a replay may raise
            where the run that was written down did not.
        demands: it is called for that error alone: a program keeps a call of it whose result nobody reads.
        apart: it makes the gradients of several inputs, those that its attribute ``needs`` asks for; that of the first
            has the same bits with and without those of the others, and they without it: a program asks for what is
            read.
        fixed: in words, the calls that give a result of fixed shape in place of one that is ``sized_by_data``.
        kernel: ``kernel(xp, *inputs, **attrs)`` over an array namespace, for ops of namespaces that are loaded when
            first named; those of the others are methods of ``backends.generic``.
        samples: function returning the sample calls that tests run.
    """

    view = False
    recordable = True
    adds: str | None = None
    checked = False
    sized_by_data = False
    _raises = False
    demands = False
    apart = False
    fixed: str | None = None
    kernel: Callable[..., Any] | None = None

    def __init__(
        self,
        name: str,
        *,
        infer: Callable[..., Any],
        define: Callable[..., Any] | None = None,
        rule: Callable[..., tuple[Any, ...]] | None = None,
        keeps: tuple[str, ...] = (),
        reads: dict[str, tuple[str, ...]] | None = None,
        held: tuple[str, ...] = (),
        outputs: tuple[str, ...] = ("y",),
        nondiff: tuple[str, ...] = (),
        view: bool = False,
        adds: str | None = None,
        checked: bool = False,
        sized_by_data: bool = False,
        raises: bool = False,
        demands: bool = False,
        apart: bool = False,
        fixed: str | None = None,
        kernel: Callable[..., Any] | None = None,
        samples: Callable[[], Any] | None = None,
        doc: str | None = None,
    ):
        self.name = name
        self.infer = infer
        self.define = define
        self.rule = rule
        self.outputs = outputs
        self.nondiff = frozenset(outputs.index(n) for n in nondiff)
        self.view = view
        self.adds = adds
        self.checked = checked
        self.sized_by_data = sized_by_data
        self._raises = raises or demands
        self.demands = demands
        self.apart = apart
        self.fixed = fixed
        self.kernel = kernel
        self.samples = samples
        self.__doc__ = doc
        self.inputs = _input_names(infer)
        rest = _rest_name(infer)
        unknown = set(keeps) - set(self.inputs) - set(outputs) - {rest}
        if unknown:
            raise TensorgradError(f"op {name}: keeps {sorted(unknown)}, which are neither inputs nor outputs")
        self.kept_inputs = bits_of(self.inputs, keeps, reads or {}, held)
        self.keeps_rest = rest in keeps
        self.kept_outputs = tuple((i, n) for i, n in enumerate(outputs) if n in keeps)
        # how many calls above ``user_line`` the user's can be: users call functions around the package's records, and
        # records of their own as they are
        self.entry = entry_of(inside[infer.__code__.co_filename])
        OPS[name] = self

    @property
    def raises(self) -> bool:
        """Whether its kernel raises for some elements."""
        return self._raises

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def call(self, *inputs: Any, **attrs: Any) -> Any:
        """Run on Tensors (inputs may also be None or Python numbers) and record if an input requires grad."""
        track = False
        first: Any = None
        arrays = []
        for x in inputs:
            if isinstance(x, Tensor):
                array = x._data
                if first is None:
                    first = array
                elif type(array) is not type(first):
                    met = on_one_level(self.name, inputs)
                    if met is not inputs:
                        return self(*met, **attrs)
                if x._tracked:
                    track = True
                arrays.append(array)
            else:
                arrays.append(x)
        if track and grad_state.recording:
            if self.rule is None and self.define is not None:
                self.infer(*arrays, **attrs)
                return self.define(recorded, *inputs, **attrs)
        else:
            track = False
        try:
            self.infer(*arrays, **attrs)
            out = getattr(local.doors[type(first)], self.name)(*arrays, **attrs)
        except (TypeError, AttributeError) as error:
            check_devices(self.name, inputs)
            raise error
        except IndexError as error:
            raise as_ours(error) from None
        except ValueError as error:
            if str(error).startswith(("array is too big", "Maximum allowed")):  # NumPy's words
                shapes = [tuple(spec.shape) for spec in specs_of(self.infer(*arrays, **attrs))]
                raise ShapeError(
                    f"{self.name}: a result of shape {shapes[0]} has more elements than can be addressed."
                ) from None
            raise
        except OverflowError as error:
            given = ", ".join(f"{name}={value!r}" for name, value in attrs.items())
            raise ArgumentError(f"{self.name}: a number is out of range in ({given}); {error}.") from None
        if self.view:
            return view_of(self, inputs[0], out, attrs, track)
        if type(out) is tuple:
            results = tuple([None if part is None else wrap(part) for part in out])
            if track:
                self.record(inputs, arrays, attrs, results, out)
            return results
        result = wrap(out)
        if track:
            self.record(inputs, arrays, attrs, (result,), (out,))
        return result

    def record(
        self, inputs: tuple[Any, ...], arrays: list[Any], attrs: dict[str, Any], results: tuple[Any, ...], out: Any
    ) -> Node:
        """Write the call on the tape."""
        node = Node(self, attrs, len(out))
        edges: list[Any] = []
        saved = []
        keeps = self.kept_inputs
        if len(inputs) > len(keeps):
            keeps += (-1 if self.keeps_rest else 0,) * (len(inputs) - len(keeps))
        needs, bit = 0, 1  # bit i: input i gets a gradient
        for x in inputs:
            if isinstance(x, Tensor) and x._tracked:
                needs |= bit
            bit += bit
        for x, array, reads in zip(inputs, arrays, keeps):  # noqa: B905 - of one length; strict costs here
            kept = reads & (needs | _HELD)
            if not isinstance(x, Tensor):
                edges.append(None)
                saved.append(array if kept or not hasattr(array, "shape") else Spec(array.shape, array.dtype))
                continue
            if not x._tracked:
                edges.append(None)
            elif x._base is None and not x._slot:
                edges.append(x if x._node is None else x._node)
            else:
                node.link(edges, x, len(inputs))
            if kept:
                saved.append(array)
                if reads & needs:
                    node.watch(x)
            else:
                saved.append(Spec(array.shape, array.dtype))
        node.edges = edges
        node.saved = tuple(saved)
        if self.kept_outputs:
            for i, _ in self.kept_outputs:
                if results[i] is not None:
                    node.watch(results[i])
            node.saved_outputs = tuple([out[i] for i, _ in self.kept_outputs])
        if node.versions is not None:
            node.line = user_line(self.entry)
        nondiff = self.nondiff
        for i, result in enumerate(results):
            if result is not None and i not in nondiff:
                result._node = node
                result._tracked = True
                if i:
                    result._slot = i
        if grad_state.extras:
            node.finish()
        return node

    def keeps_input(self, position: int, needs: tuple[bool, ...]) -> bool:
        """Whether the derivative with respect to the inputs marked in ``needs`` reads the input at ``position``."""
        if position >= len(self.kept_inputs):
            return self.keeps_rest
        return any(needed and self.kept_inputs[position] >> i & 1 for i, needed in enumerate(needs))

    def differentiate(self, F: Any, node: Node, g: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Any:
        """The inputs' gradients, through the namespace ``F``."""
        rule: Any = self.rule
        if not self.kept_outputs:
            return rule(F, g, *inputs, needs=node.asked, **node.attrs)
        named = {name: value for (_, name), value in zip(self.kept_outputs, outputs, strict=True)}
        return rule(F, g, *inputs, needs=node.asked, **named, **node.attrs)


def bits_of(
    inputs: tuple[str, ...], keeps: tuple[str, ...], reads: dict[str, tuple[str, ...]], held: tuple[str, ...]
) -> tuple[int, ...]:
    """For each input a number whose bit ``i`` says that it is read for the gradient of input ``i``; see ``Op``."""
    return tuple([
        0 if n not in keeps else -1 if n not in reads else
        sum(1 << inputs.index(of) for of in reads[n]) | (_HELD if n in held else 0)
        for n in inputs
    ])  # fmt: skip


def entry_of(ours: bool) -> int:
    """The ``depth`` at which ``user_line`` begins for a record of the package, or of a user."""
    if native is not None:
        return 2  # C calls ``record``, between which and the user's line need be nothing
    return 4 if ours else 3


def _input_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the positional parameters; read off the code, since inspect costs more than the rest of an import."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount]


def as_ours(error: IndexError) -> IndexError:
    """A kernel's plain IndexError as the one that the library promises."""
    return error if isinstance(error, TensorgradError) else IndexOutOfRange(str(error))


def _rest_name(function: Callable[..., Any]) -> str | None:
    """The name of the parameter that takes any number of inputs, if there is one."""
    code = function.__code__
    takes_rest = code.co_flags & 0x04  # CO_VARARGS
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if takes_rest else None


def op(name: str, **facts: Any) -> Op:
    """Declare an op; see ``Op`` for the facts."""
    return Op(name, **facts)


def specs_of(infer_result: Any) -> tuple[Spec, ...]:
    return infer_result if isinstance(infer_result, tuple) else (infer_result,)


def on_one_level(name: str, inputs: tuple[Any, ...], *, numbers: bool = False) -> tuple[Any, ...]:
    """Inputs whose arrays are of several types: those from outside of a ``vmap`` brought to the level of the others,
    and with ``numbers``, for ops that take them, tensors of no dimensions on the CPU to the others' device.

    Raises DeviceError if they live in different places.
    """
    if numbers:
        inputs = _numbers_moved(inputs)
    check_devices(name, inputs)
    inner = max((x for x in inputs if isinstance(x, Tensor)), key=lambda x: getattr(type(x._data), "level", 0))
    level = getattr(type(inner._data), "level", 0)
    if not level:
        return inputs
    from ..func.batched import lifted

    return tuple([lifted(x, inner._data.frame) if isinstance(x, Tensor) else x for x in inputs])


def _numbers_moved(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    places = [x.device for x in inputs if isinstance(x, Tensor) and not _is_host_number(x)]
    if not places or places[0].type == "cpu":
        return inputs
    return tuple([x.to(places[0]) if _is_host_number(x) else x for x in inputs])


def _is_host_number(x: Any) -> bool:
    return isinstance(x, Tensor) and x._data.ndim == 0 and x.device.type == "cpu"


def check_devices(name: str, inputs: tuple[Any, ...]) -> None:
    """Raises DeviceError if the tensors among ``inputs`` live in different places."""
    seen: dict[str, Tensor] = {}
    for x in inputs:
        if isinstance(x, Tensor):
            seen.setdefault(str(x.device), x)
    if len(seen) > 1:
        a, b = list(seen)[:2]
        raise DeviceError(f"{name}: one input lives on {a}, another on {b}. Move one: x = x.to({a!r}).")
