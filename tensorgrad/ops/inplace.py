"""In-place operations: checks, the write, and what the tape learns of it.

An in-place form runs its op and puts the result where the old value was. On the tape the tensor then *is* the op's
result. If it was a view, its base becomes ``view_scatter(old base, new value)``, and views of the base find their new
place when they are next used; so gradients are those of the out-of-place program.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.grad_mode import no_grad
from ..autograd.grad_mode import state as grad_state
from ..autograd.node import Node
from ..dispatch import local
from ..dtypes import of_array
from ..errors import AutogradError, DTypeError, ShapeError
from ..tensor import Tensor, wrap
from .create import as_operand
from .elementwise import Elementwise
from .record import Op, Spec, as_ours, on_one_level, op

__all__ = ["check_writable", "deliver", "deliver_same", "move_buffer", "write_into"]


def check_writable(name: str, target: Tensor, track: bool) -> None:
    """Raises AutogradError or ShapeError if ``target`` may not be written in place."""
    if target._inference and not grad_state.inference:
        raise AutogradError(f"{name}: an inference tensor is changed in place outside of inference_mode; clone it.")
    base = target if target._base is None else target._base
    # a view made under no_grad, or before its base was made a leaf that requires grad, doesn't require grad, but the
    # base's gradients would leave the change out
    if not track and base._tracked and (target._frozen_view or base._node is None):
        track = target._data.dtype.kind in "fcV"
    if track and grad_state.recording:
        for ear in local.listeners:
            ear.rewrites(base)
        if base._tracked and base._node is None:
            what = "a leaf" if base is target else "a view of a leaf"
            raise AutogradError(
                f"{name}: {what} that requires grad can't be changed in place while recording. "
                "Use `with no_grad():` to update parameters, or the out-of-place operation."
            )
        if target._frozen_view:
            raise AutogradError(
                f"{name}: a view made under no_grad is changed in place while recording; whether its base is to have "
                "that in its history is unknown. Make the view again, or detach() it."
            )
    array = target._data
    flags = getattr(array, "flags", None)
    if not getattr(flags, "c_contiguous", False) and _overlaps_itself(array):
        raise ShapeError(
            f"{name}: several elements of the tensor share one memory location (it was expanded or unfolded), so it "
            "can't be written in place. clone() it first."
        )
    if flags is not None and not getattr(flags, "writeable", True):
        raise ShapeError(
            f"{name}: the tensor's memory is read-only (it came from a read-only array). clone() it first."
        )


def at_level_of(name: str, target: Tensor, inputs: tuple[Any, ...], *, numbers: bool = False) -> tuple[Any, ...]:
    """Inputs of an in-place form, brought to the level of ``vmap`` that the target is at.

    Raises DeviceError if they live elsewhere; VmapError if one is of an inner level: the target has no room for it.
    """
    kind = type(target._data)
    if all(type(x._data) is kind for x in inputs if isinstance(x, Tensor)):
        return inputs
    numbers = numbers and target.device.type != "cpu"  # where the result has to stay
    met = on_one_level(name, (*inputs, target), numbers=numbers)
    level = int(getattr(kind, "level", 0))
    if any(getattr(type(x._data), "level", 0) > level for x in met if isinstance(x, Tensor)):
        from ..func.batched import unmapped_target

        raise unmapped_target(name)
    return met[:-1]


def _overlaps_itself(array: Any) -> bool:
    """Whether two elements lie at one place: a stride is no longer than what the shorter ones reach. Of the views that
    tensorgrad makes this holds for expanded and unfolded ones alone."""
    strides = getattr(array, "strides", None)
    if strides is None:
        return False
    reach = 0
    for stride, size in sorted((abs(s), n) for s, n in zip(strides, array.shape, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def write_into(what: Op, target: Tensor, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Tensor:
    """Write ``what(*inputs, **attrs)`` over ``target`` (which may be among the inputs) and record it as such.

    Raises ShapeError if the result does not have the target's shape, DTypeError if its category is higher than the
    target's, AutogradError for a leaf that requires grad, TypeError for what is no tensor; the target is then
    unchanged.
    """
    name = what.name
    if not isinstance(target, Tensor):
        raise TypeError(f"{name}_: expected a Tensor, got {type(target).__name__}: {target!r}")
    ready = tuple(x if isinstance(x, Tensor) or x is None else as_operand(name, x) for x in inputs)
    # an integer or bool has no gradient, whatever is written into it
    track = target._data.dtype.kind in "fcV" and any(isinstance(x, Tensor) and x._tracked for x in ready)
    record = track and grad_state.recording
    check_writable(f"{name}_", target, track or target._tracked)
    ready = at_level_of(f"{name}_", target, ready, numbers=isinstance(what, Elementwise))
    arrays = [x._data if isinstance(x, Tensor) else x for x in ready]
    spec = what.infer(*arrays, **attrs)
    if isinstance(spec, tuple):
        raise DTypeError(f"{name} has several results and no in-place form.")
    check_fits(f"{name}_", target, spec)
    check_partial_overlap(f"{name}_", target._data, arrays)
    if record and not isinstance(what, Elementwise) and what.rule is None:
        # only the definition knows the derivative: run it recorded, then assign its result
        grad_source = what(*ready, **attrs)
        return write_into(assign, target, (target, grad_source), {})
    old = target
    array = target._data
    door = local.doors[type(array)]
    before = arrays
    if record:
        old = _as_it_was(target)
        ready = tuple(old if x is target else x for x in ready)
        needs = tuple(isinstance(x, Tensor) and x._tracked for x in ready)
        if any(x is old and what.keeps_input(i, needs) for i, x in enumerate(ready)):
            # the rule reads what is about to be overwritten: let it read a copy, of a version of its own
            old._data, old._cell = door.contiguous_copy(array), None
            before = [old._data if x is old else arrays[i] for i, x in enumerate(ready)]
    kernel = getattr(door, name)
    if isinstance(what, Elementwise):
        try:
            kernel(*arrays, out=array)
        except OverflowError as error:
            raise what.explained(error, inputs, arrays) from None
    else:
        try:
            result = kernel(*arrays, **attrs)
        except IndexError as error:
            raise as_ours(error) from None
        door.copy_into(array, result)
    target._bump()
    if record:
        _rewrite(what, target, ready, before, attrs)
    return target


def move_buffer(what: Elementwise, target: Tensor, *others: Any) -> None:
    """``target = what(target, *others)`` in place, unrecorded: for running statistics and counts. A plain buffer beside
    operands of its kind needs none of ``write_into``'s questions."""
    array = target._data
    plain = not (target._tracked or target._inference or target._base is not None)
    operands = [array]
    for x in others:
        if isinstance(x, Tensor):
            other = x._data
            plain = plain and type(other) is type(array) and other.dtype == array.dtype and other.shape == array.shape
            x = other
        operands.append(x)
    if plain and array.flags.c_contiguous and getattr(array.flags, "writeable", True):
        getattr(local.doors[type(array)], what.name)(*operands, out=array)
        target._bump()
        return
    with no_grad():
        write_into(what, target, (target, *others), {})


def deliver(name: str, result: Tensor, out: Tensor | None) -> Tensor:
    """``result``, or ``out`` with the result written into it (an ``out`` of no elements takes its shape).

    Raises AutogradError if a gradient would be needed: ``out=`` is not recorded.
    """
    if out is None:
        return result
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}: out must be a Tensor, got {type(out).__name__}")
    if grad_state.recording and (result._tracked or out._tracked):
        raise AutogradError(f"{name}: out= is not recorded, but an argument requires grad. Leave out= away.")
    check_fits_dtype(name, out, result._data.dtype)
    at_level_of(name, out, (result,))
    if out._data.shape != result._data.shape:
        if out._data.size:
            raise ShapeError(f"{name}: out has shape {tuple(out.shape)}, the result {tuple(result.shape)}.")
        out._data = local.doors[type(result._data)].cast(result._data, dtype=out._data.dtype)
    else:
        check_writable(name, out, False)
        local.doors[type(out._data)].copy_into(out._data, result._data)
    out._bump()
    return out


def deliver_same(name: str, result: Tensor, out: Tensor | None) -> Tensor:
    """As ``deliver``, of functions that PyTorch writes into a tensor of the result's own dtype alone.

    Raises DTypeError for an ``out`` of another; within autocast, which chose the result's, it is cast.
    """
    if isinstance(out, Tensor) and out._data.dtype != result._data.dtype and not grad_state.casting:
        raise DTypeError(
            f"{name}: expected out to have dtype {result.dtype}, got {out.dtype}. Leave out= away and convert the "
            "result."
        )
    return deliver(name, result, out)


def check_fits(name: str, target: Tensor, spec: Spec) -> None:
    if tuple(spec.shape) != target._data.shape:
        raise ShapeError(
            f"{name}: the result has shape {tuple(spec.shape)}, the tensor written to {tuple(target.shape)}; "
            "an in-place operation can't change a shape."
        )
    check_fits_dtype(name, target, spec.dtype)


def check_fits_dtype(name: str, target: Tensor, dtype: Any) -> None:
    if target._data.dtype is dtype:
        return
    have, result = of_array(target._data.dtype), of_array(dtype)
    if result.category > have.category:
        raise DTypeError(
            f"{name}: the result is {result} and can't be stored in a tensor of {have}. "
            "Use the out-of-place operation, or convert the tensor first."
        )


def check_partial_overlap(name: str, target: Any, inputs: list[Any], *, same: bool = False) -> None:
    """Raises ShapeError if an input overlaps the target without being the very same elements, or with ``same`` even
    then: where an element's place in the result is not its own."""
    for x in inputs:
        if x is target and same:
            raise ShapeError(f"{name}: unsupported operation: out is one of the inputs; clone() the input first.")
        # asked of the type, since an array composes its description anew for whoever asks
        kind = type(x)
        on_device = hasattr(kind, "__cuda_array_interface__")
        if x is target or kind is not type(target) or not (on_device or hasattr(kind, "__array_interface__")):
            continue
        if x.ndim == 0 or x.size == 0:
            continue
        if _shares_device_memory(x, target) if on_device else _share_memory(x, target):
            begins = [a.data.ptr if on_device else a.__array_interface__["data"] for a in (x, target)]
            equal = not same and begins[0] == begins[1] and x.strides == target.strides
            if not (equal and x.shape == target.shape):
                raise ShapeError(
                    f"{name}: an input shares part of its memory with the tensor written to, so the result would "
                    "depend on the order of writing. clone() the input first."
                )


def _share_memory(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Whether two arrays have an element in common; in doubt, which takes contrived strides, yes."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


class _Lying:
    """How an array of a device lies, as NumPy asks for it. Its memory is never read."""

    def __init__(self, x: Any):
        self.__array_interface__ = {
            "version": 3, "data": (x.data.ptr, True), "typestr": f"|V{x.itemsize}",
            "shape": x.shape, "strides": x.strides,
        }  # fmt: skip


def _shares_device_memory(a: Any, b: Any) -> bool:
    first, second = a.data.ptr, b.data.ptr  # an address is of one device only
    if a.flags.c_contiguous and b.flags.c_contiguous:
        return bool(first < second + b.nbytes and second < first + a.nbytes)
    return _share_memory(np.asarray(_Lying(a)), np.asarray(_Lying(b)))


def _as_it_was(target: Tensor) -> Tensor:
    """A stand-in for the target before the write: same array, same place on the tape."""
    if target._base is not None and target._generation != target._base._changes:
        target._follow_base()
    old = wrap(target._data)
    old._node, old._slot, old._tracked = target._node, target._slot, target._tracked
    old._cell = target._version_cell()
    return old


def _rewrite(what: Op, target: Tensor, inputs: tuple[Any, ...], arrays: list[Any], attrs: dict[str, Any]) -> None:
    """Tell the tape: the target is now the op's result."""
    new = wrap(target._data)
    new._cell = target._version_cell()
    node = what.record(inputs, arrays, attrs, (new,), (target._data,))
    if node.versions is not None:
        # an input saved by this very call was read before the write: at its new version it is gone
        for i, (cell, seen) in enumerate(node.versions):
            if cell is target._cell and not _is_output(what, node, i):
                node.versions[i] = (cell, seen - 1)
    base = target._base
    if base is None:
        target._node, target._slot, target._tracked = new._node, 0, True
        target._changes += 1
        return
    before = wrap(base._data)
    before._node, before._slot, before._tracked = base._node, base._slot, base._tracked
    scattered = wrap(base._data)
    scatter_node = view_scatter.record(
        (before, new), [base._data, target._data], {"chain": target._chain}, (scattered,), (base._data,)
    )
    base._node, base._slot, base._tracked = scatter_node, 0, True
    base._changes += 1
    target._follow_base()


def _is_output(what: Op, node: Node, position: int) -> bool:
    """Whether the version entry stems from a kept output: outputs are watched after the inputs."""
    assert node.versions is not None
    return position >= len(node.versions) - len(node.saved_outputs)


def _infer_like(x: Any, source: Any) -> Spec:
    from .elementwise import broadcast_shape

    if broadcast_shape("copy_", x.shape, source.shape) != tuple(x.shape):
        raise ShapeError(f"copy_: a value of shape {tuple(source.shape)} does not fit a tensor of {tuple(x.shape)}.")
    return Spec(tuple(x.shape), x.dtype)


def _assign_rule(F: Any, g: Any, x: Any, source: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    if not needs[1]:
        return None, None
    to_source = F.sum_to(g, shape=tuple(source.shape)) if tuple(source.shape) != tuple(g.shape) else g
    return None, to_source if source.dtype == x.dtype else F.cast(to_source, dtype=source.dtype)


assign = op(
    "assign",
    infer=_infer_like,
    define=lambda F, x, source: F.copy_into(F.contiguous_copy(x), source),
    rule=_assign_rule,
    doc="``source`` broadcast and cast to the shape and dtype of ``x``: what ``x.copy_(source)`` writes.",
)


def _scatter_infer(base: Any, source: Any, *, chain: Any) -> Spec:
    return Spec(tuple(base.shape), base.dtype)


def _scatter_define(F: Any, base: Any, source: Any, *, chain: Any) -> Any:
    out = F.contiguous_copy(base)
    region = out
    for view_op, attrs in chain:
        region = getattr(F, view_op.name)(region, **attrs)
    F.copy_into(region, source)
    return out


def _scatter_rule(F: Any, g: Any, base: Any, source: Any, *, needs: tuple[bool, ...], chain: Any) -> tuple[Any, ...]:
    to_base = to_source = None
    region = g
    for view_op, attrs in chain:
        region = getattr(F, view_op.name)(region, **attrs)
    if needs[1]:
        to_source = F.contiguous_copy(region)
    if needs[0]:
        to_base = F.view_scatter(g, F.zeros_as(g, shape=tuple(region.shape)), chain=chain)
    return to_base, to_source


view_scatter = op(
    "view_scatter",
    infer=_scatter_infer,
    define=_scatter_define,
    rule=_scatter_rule,
    doc="``base`` with the elements that a chain of views selects replaced by ``source``.",
)
