"""Batched arrays: what a tensor holds while ``vmap`` runs a function once for many samples.

A ``Batched`` array shows the shape of *one* sample and holds all of them, the mapped axis first. To the rest of the
library it is one more type of array with a door of its own: ``BatchDoor`` computes an op on all samples by calling
ops of the arrays within. So the tape, rules, views and in-place forms work on it as on any array, derivatives of
mapped functions and maps of derivatives included, and a program that never maps meets none of this.

Each level of nested maps has a class of its own, which is how the level is found: by the type of the array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..dispatch import OPS, local
from ..errors import TensorgradError
from ..tensor import Tensor, wrap

__all__ = ["BatchDoor", "Batched", "Frame", "VmapError", "batched_type", "crossing"]


class VmapError(TensorgradError, RuntimeError):
    """Raised for what can't be done, or must be said otherwise, within ``vmap``."""


class Frame:
    """One running ``vmap``: its level from the outside in, the number of samples, and how it treats randomness."""

    __slots__ = ("array_type", "level", "randomness", "size")

    def __init__(self, level: int, size: int, randomness: str, array_type: type):
        self.level = level
        self.size = size
        self.randomness = randomness
        self.array_type = array_type


class _Flags:
    __slots__ = ("c_contiguous", "writeable")

    def __init__(self, c_contiguous: bool, writeable: bool):
        self.c_contiguous = c_contiguous
        self.writeable = writeable


class Batched:
    """An array for each of a frame's samples, or (not ``mapped``) one for all of them.

    ``value`` is an array of the level below: (samples, *shape) if mapped, else of the shape itself. ``frozen``: its
    memory belongs to a recorded tensor outside, so it may not be written.
    """

    __slots__ = ("dtype", "frame", "frozen", "mapped", "ndim", "shape", "value")
    level: ClassVar[int] = 0
    door: ClassVar[Any] = None
    __array_ufunc__ = None

    def __init__(self, value: Any, frame: Frame, mapped: bool, frozen: bool = False):
        self.value = value
        self.frame = frame
        self.mapped = mapped
        self.frozen = frozen
        self.dtype = value.dtype
        self.shape: tuple[int, ...] = tuple(value.shape[1:]) if mapped else tuple(value.shape)
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def itemsize(self) -> int:
        return int(self.dtype.itemsize)

    @property
    def strides(self) -> tuple[int, ...]:
        given = self.value.strides
        return tuple(given[1:]) if self.mapped else tuple(given)

    @property
    def flags(self) -> _Flags:
        reach, dense = self.dtype.itemsize, True
        for extent, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if extent > 1 and stride != reach:
                dense = False
            reach *= extent
        return _Flags(dense or self.size == 0, not self.frozen and bool(getattr(self.value.flags, "writeable", True)))

    @property
    def data(self) -> Any:
        return self.value.data

    @property
    def base(self) -> Any:
        """Something of this type if the memory may be known to others, as arrays tell it."""
        return self

    def copy(self) -> Batched:
        return type(self)(local.doors[type(self.value)].contiguous_copy(self.value), self.frame, self.mapped)

    def __bool__(self) -> bool:
        raise _not_a_number("bool()")

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise _not_a_number(".numpy()")

    def __repr__(self) -> str:
        return f"BatchedTensor(lvl={self.level}, bdim={0 if self.mapped else None}, value=\n{wrap(self.value)!r}\n)"


def _not_a_number(what: str) -> VmapError:
    return VmapError(
        f"vmap: It looks like you're calling {what} on a Tensor, or using one in data-dependent control flow (bool(), "
        "if, while). A mapped tensor holds a value for each sample, so that is not possible; write it with other "
        "operations, e.g. tensorgrad.where."
    )


class _BatchBackend:
    """What the registry asks of whoever computes on an array."""

    name = "vmap"
    device_type = "vmap"  # no device is called so: the arrays within have one

    def device_of(self, array: Any) -> Any:
        from ..backends import registry

        return registry.device_of(array.value)

    def attends_with_dropout(self, q: Any, k: Any, v: Any) -> bool:
        return False

    def to_host(self, array: Any) -> Any:
        raise _not_a_number(".item() or reading the elements")


_types: dict[int, type[Batched]] = {}


def batched_type(level: int) -> type[Batched]:
    """The class of the arrays of a level, made once."""
    found = _types.get(level)
    if found is None:
        found = type(f"Batched{level}", (Batched,), {"level": level, "__slots__": ()})
        found.door = BatchDoor(found)
        _types[level] = found
    return found


def door_of(values: Any) -> Any:
    """The door for arrays of which some may be batched: that of the innermost level."""
    top: Any = None
    for value in values:
        if hasattr(value, "dtype") and hasattr(type(value), "data"):
            kind = type(value)
            if top is None or getattr(kind, "level", 0) > getattr(top, "level", 0):
                top = kind
    return None if top is None else local.doors[top]


class BatchDoor:
    """The kernels of one level: each computes an op for all samples on the arrays of the level below.

    What an op does is looked up once: a rule of ``rules``, its formula, its definition run through this very door, or
    a loop over the samples.
    """

    backend = _BatchBackend()

    def __init__(self, cls: type[Batched]):
        self.cls = cls
        self.home: Any = None  # type of the arrays below, for ops that take none

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from .rules import RULES, rule_for

        op = OPS.get(name)
        if op is None:
            raise AttributeError(f"there is no op named {name!r}")
        rule = rule_for(op)
        cls = self.cls

        def kernel(*inputs: Any, **attrs: Any) -> Any:
            frame: Any = None
            any_mapped = False
            for x in inputs:
                if type(x) is cls:
                    if frame is None:
                        frame = x.frame
                    elif x.frame is not frame:
                        raise VmapError(
                            f"{name}: a tensor of a vmap that has ended, or of another one, was used within vmap. "
                            "Return tensors from the mapped function instead of storing them."
                        )
                    if x.mapped:
                        any_mapped = True
                elif type(x) in (list, tuple):
                    raise VmapError(f"vmap: {name} takes lists of tensors and can't be mapped.")
            values = [x.value if type(x) is cls else x for x in inputs]
            F = door_of(values)
            if frame is None:  # within a definition or rule, on what no map has touched
                return getattr(F if F is not None else local.doors[self.home], name)(*values, **attrs)
            out = attrs.get("out")
            if not any_mapped:
                if out is not None:
                    attrs["out"] = _storage(name, out, frame, False)
                result = getattr(F, name)(*values, **attrs)
                mapped = False
            else:
                if out is not None:
                    attrs["out"] = _storage(name, out, frame, True)
                mapped = True
                flags = tuple([type(x) is cls and x.mapped for x in inputs])
                result = rule(self, F, frame, values, flags, attrs)
            if out is not None:
                return out
            if op.view:  # one without a rule is copied by the loop over samples, and a write would be lost
                return cls(result, frame, mapped, inputs[0].frozen or (mapped and name not in RULES))
            if type(result) is tuple:
                return tuple([None if part is None else cls(part, frame, mapped) for part in result])
            return cls(result, frame, mapped)

        def write(target: Any, source: Any) -> Any:
            """``copy_into``: the one kernel that writes."""
            frame = (target if type(target) is cls else source).frame
            mapped = type(source) is cls and source.mapped
            value = source.value if type(source) is cls else source
            into = _storage("copy_into", target, frame, mapped)
            if not isinstance(target, cls):
                raise unmapped_target("copy_into")
            F = door_of((into, value))
            if mapped:
                value = aligned(F, value, target.ndim)
            F.copy_into(into, value)
            return target

        made = write if name == "copy_into" else kernel
        self.__dict__[name] = made
        return made


class UnmappedTarget(VmapError):
    """An in-place write of mapped values into a tensor that has one value for all samples."""


def unmapped_target(name: str) -> UnmappedTarget:
    return UnmappedTarget(
        f"vmap: in-place {name} is not possible: the tensor written to is not mapped (it is the same for all samples), "
        "but what is written is mapped. Use the out-of-place operation, or make the tensor from a mapped one, e.g. "
        "with x.new_zeros(...)."
    )


def _storage(name: str, target: Any, frame: Frame, mapped: bool) -> Any:
    """The array within ``target`` that a result may be written into."""
    from ..ops.inplace import _overlaps_itself

    if not isinstance(target, Batched) or target.frame is not frame or (mapped and not target.mapped):
        raise unmapped_target(name)
    if _overlaps_itself(target.value):
        raise VmapError(
            f"vmap: in-place {name}: several samples share one memory location (the mapped tensor was expanded). "
            "clone() it first."
        )
    return target.value


def aligned(F: Any, value: Any, rank: int) -> Any:
    """A mapped value (n, *shape) with ones put in front of its shape, so that it broadcasts as one of ``rank``."""
    missing = rank - (len(value.shape) - 1)
    if missing <= 0:
        return value
    return F.slice(value, key=(slice(None), *(None,) * missing))


def expanded(F: Any, value: Any, size: int) -> Any:
    """A value that is the same for all samples, seen once for each."""
    return F.expand(value, shape=(size, *value.shape))


# --- in and out of a level, on the tape


def signature(array: Any) -> tuple[Frame, ...]:
    """The frames that an array is of, innermost map first."""
    frames = []
    while isinstance(array, Batched):
        frames.append(array.frame)
        array = array.value
    return tuple(frames)


class _Crossing:
    """What the tape calls where an array enters or leaves a level; ``adjoint`` is the way back."""

    nondiff: frozenset[int] = frozenset()
    opaque = True  # it saves nothing
    kept_outputs: tuple[Any, ...] = ()
    rule = None

    def __init__(self, name: str, run: Callable[..., Any]):
        self.name = name
        self.run = run
        self.adjoint: _Crossing

    def __call__(self, x: Tensor, **attrs: Any) -> Tensor:
        from ..autograd.grad_mode import state
        from ..autograd.node import Node

        out = wrap(self.run(x._data, **attrs))
        if x._tracked and state.recording and x._data.dtype.kind in "fcV":
            node = Node(self, attrs, 1)
            edges: list[Any] = []
            node.link(edges, x, 1)
            node.edges = edges
            node.extra = signature(x._data)
            out._node, out._tracked = node, True
        return out

    def differentiate(self, F: Any, node: Any, g: Any, inputs: Any, outputs: Any) -> Any:
        """What arrives may be of maps that the input was not of: it is the same for their samples, and receives the sum
        of what each sends. Those that are running now map the backward pass itself, and stay."""
        live = isinstance(g, Tensor)
        out = self.adjoint(g, **node.attrs) if live else self.adjoint.run(g, **node.attrs)
        whole = signature(out._data if live else out)
        gone = tuple(frame for frame in whole if frame not in node.extra and frame not in local.frames)
        if gone:
            out = crossing.shrink(out, whole=whole, gone=gone) if live else _shrink(out, whole=whole, gone=gone)
        return (out,)


def _enter(array: Any, *, frame: Frame, axis: int) -> Any:
    F = local.doors[type(array)]
    if axis:
        order = (axis, *(d for d in range(len(array.shape)) if d != axis))
        array = F.permute(array, dims=order)
    return batched_type(frame.level)(array, frame, True)


def _leave(array: Any, *, frame: Frame, axis: int) -> Any:
    cls = batched_type(frame.level)
    if type(array) is not cls or array.frame is not frame:
        value = expanded(local.doors[type(array)], array, frame.size)
    elif array.mapped:
        value = array.value
    else:
        value = expanded(local.doors[type(array.value)], array.value, frame.size)
    if axis:
        order = list(range(1, len(value.shape)))
        order.insert(axis, 0)
        value = local.doors[type(value)].permute(value, dims=tuple(order))
    return value


def _lift(array: Any, *, frame: Frame) -> Any:
    return batched_type(frame.level)(array, frame, False)


def _drop(array: Any, *, frame: Frame) -> Any:
    """What reaches a tensor that all samples share: the sum of what each sends."""
    cls = batched_type(frame.level)
    mapped = type(array) is cls and array.mapped
    value = array.value if type(array) is cls else array
    F = local.doors[type(value)]
    if mapped:
        return F.sum(value, dim=(0,), keepdim=False)
    return F.mul(value, frame.size)


def _shrink(array: Any, *, whole: tuple[Frame, ...], gone: tuple[Frame, ...]) -> Any:
    """The sum over the samples of the maps ``gone``, wherever among ``whole`` they are."""
    if not isinstance(array, Batched):
        return array
    if array.frame in gone:
        return _shrink(_drop(array, frame=array.frame), whole=whole[1:], gone=gone)
    return type(array)(_shrink(array.value, whole=whole[1:], gone=gone), array.frame, array.mapped)


def _grow(array: Any, *, whole: tuple[Frame, ...], gone: tuple[Frame, ...]) -> Any:
    """The adjoint of ``_shrink``: the same for all samples of the maps ``gone``."""
    if not whole:
        return array
    if whole[0] in gone:
        return batched_type(whole[0].level)(_grow(array, whole=whole[1:], gone=gone), whole[0], False)
    if isinstance(array, Batched) and array.frame is whole[0]:
        return type(array)(_grow(array.value, whole=whole[1:], gone=gone), array.frame, array.mapped)
    return _grow(array, whole=whole[1:], gone=gone)


class crossing:
    """The ways between levels: ``enter`` (an axis is mapped from here on) and ``leave``; ``lift`` (shared by all) and
    ``drop``; ``grow`` and ``shrink``, which are the latter two anywhere among nested maps."""

    enter = _Crossing("vmap_enter", _enter)
    leave = _Crossing("vmap_leave", _leave)
    lift = _Crossing("vmap_lift", _lift)
    drop = _Crossing("vmap_drop", _drop)
    grow = _Crossing("vmap_grow", _grow)
    shrink = _Crossing("vmap_shrink", _shrink)


for _there, _back in (
    (crossing.enter, crossing.leave), (crossing.lift, crossing.drop), (crossing.grow, crossing.shrink),
):  # fmt: skip
    _there.adjoint, _back.adjoint = _back, _there


def lifted(x: Tensor, frame: Frame) -> Tensor:
    """A tensor from outside as one of the frame's level."""
    return x if getattr(type(x._data), "level", 0) >= frame.level else crossing.lift(x, frame=frame)
