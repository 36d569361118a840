"""The one door: every kernel of every backend is reached through here.

A *door* is a namespace ``F`` whose attributes are ops: ``F.softmax(x, dim=1)``. There are three kinds, and a
derivative rule or a definition can't tell which one it was handed:

- ``Raw``: kernels of one backend on its arrays; nothing is recorded. The fast path.
- ``Listened``: the same, telling every listener of each call: profiler, NaN finder, capture.
- ``Recorded`` (``recorded``): ops on Tensors; what runs through it can be differentiated again.

Which backend computes is decided by the type of the first array, per thread. ``dispatch`` holds no branch for
listeners: while somebody listens, the thread's doors *are* listened ones, and otherwise nobody pays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from .core import set_doors
from .errors import BackendError

if TYPE_CHECKING:
    from .backends.base import Backend
    from .ops.record import Op

__all__ = [
    "Listened",
    "Listener",
    "Picking",
    "Raw",
    "Reads",
    "Recorded",
    "doors",
    "grad_is_read",
    "grad_was_set",
    "host",
    "in_private",
    "is_asked",
    "listeners",
    "listening",
    "quiet",
    "recorded",
    "region",
    "unless",
    "was_made",
]  # fmt: skip

Reads = Callable[[], list[Any]]
"""Gives the tensors whose elements an action on the host reads, see ``host``."""


class Picking(Protocol):
    """How a listener deals with what a mask picks, of which nobody may know how much it is; see ``ops.selected``.

    ``exact``: whether gradients are to be added in the order of an ordinary run; ``sums``: whether elements may be
    summed in another.
    """

    exact: bool
    sums: bool

    def beside(self, action: Callable[[], Any]) -> Any:
        """What an action gives that computes what an ordinary run would."""

    def wanted(self, plain: Any) -> None:
        """Called with what was computed so, before anybody has it."""


OPS: dict[str, Op] = {}
"""Every op by name: what a door can be asked for."""

PASSING: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""Ops that live as long as somebody has them, by name: what programs fuse. They keep their kernels themselves."""


class Listener:
    """Who wants to know what passes the door. Override what you need.

    ``inputs`` and ``outputs`` are tuples of arrays of the backend (inputs also hold Python numbers, None, and lists of
    arrays for multi-tensor ops); ``attrs`` are the call's keyword attributes.
    """

    def before(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> None:
        """Called before the kernel runs."""

    def after(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        """Called with the kernel's results."""

    def raised(self, op: Op) -> None:
        """Called in place of ``after`` where the kernel has raised."""

    def host(self, action: Callable[[], Any], reads: Reads | None, counts: tuple[Any, ...]) -> None:
        """Called after an action on the host that belongs to the program, e.g. an optimizer counting its steps; see
        ``host``."""

    def grad(self, tensor: Any) -> None:
        """Called after a tensor's ``.grad`` was set or forgotten."""

    def grad_read(self, tensor: Any) -> None:
        """Called before Python gets a tensor's ``.grad``, or sees that there is none."""

    def read(self, tensor: Any) -> None:
        """Called before Python reads a tensor's elements."""

    def place_read(self, tensor: Any) -> None:
        """Called before Python gets the place of a view in what it is a view of."""

    def size_read(self, tensor: Any) -> None:
        """Called before Python gets the size of the storage that a tensor lies in."""

    def history_read(self, tensor: Any) -> None:
        """Called before Python gets to know whether a tensor is a leaf, or which node has recorded it."""

    def retains(self, tensor: Any) -> None:
        """Called before a tensor is told to keep its gradient, or asked whether it does."""

    def address_read(self, tensor: Any) -> None:
        """Called before Python gets the address of a tensor's elements."""

    def asks(self, path: str, holder: Any, key: Any) -> None:
        """Called before Python gets what lies under a key of a dict (or is an attribute, or the elements of an array,
        without a key), which is no tensor: a switch, a seed, a setting."""

    def copies_settings(self, optimizer: Any) -> None:
        """Called before Python gets all numbers of an optimizer, such as its learning rates."""

    def rewrites(self, tensor: Any) -> None:
        """Called before a change in place of a tensor, or of a view of it, is recorded, or refused for a leaf."""

    def moves(self, tensor: Any, device: Any) -> None:
        """Called before a tensor's elements are copied to another device, through the host."""
        self.read(tensor)

    def keeps(self, index: Any, shown: bool) -> bool:
        """Asked before Python reads an integer tensor of no dimensions in a key: whether it stays a tensor. Then what
        would be a view is a copy. ``shown``: but this run has the view, or picks nothing."""
        return False

    def stands_for(self, array: Any, base: Any, view: Any) -> None:
        """Called after an array was made that is a copy of what would be a view of ``base``; the run has the view in
        its place, unless that is None."""

    def counts(self, x: Any) -> bool:
        """Asked before elements that are not zero are looked for: whether Python is to read first how many there
        are."""
        return False

    def selects(self, mask: Any) -> Picking | None:
        """Asked before a mask picks elements: None, or what to tell of them if nobody may know how many there are."""
        return None

    def selected(self, selection: Any) -> None:
        """Called with what stands for the elements that such a mask picks."""

    def alike(self, mask: Any, other: Any) -> bool:
        """Asked of two masks: whether they are known to be the same, whatever they hold."""
        return False

    def made(self, array: Any, source: Any) -> None:
        """Called after an array was made of Python's numbers or NumPy's arrays, past the door."""

    def filled(self, array: Any) -> None:
        """Called with an array that an action on the host fills, before that is announced."""

    def differentiates(self, roots: Any, inputs: Any, retain: bool, accumulate: bool) -> tuple[Any, Any]:
        """Asked before a backward pass from tensors to its inputs (None: to all leaves): where it goes instead.
        ``retain``: it frees nothing; ``accumulate``: into ``.grad``."""
        return roots, inputs

    def seen_as(self, tensor: Any, dtype: Any) -> None:
        """Called before the memory of a tensor is seen as elements of another dtype, past the door."""

    def unheard(self, what: str) -> None:
        """Called before something runs whose calls are not announced."""

    def enter_unless(self, flag: Any, is_set: bool) -> None:
        """Called before what is done only where ``flag``, a tensor on the device, is not set; now it is or is not."""

    def leave_unless(self) -> None:
        """Called when that is done, or left out."""

    def enter(self, name: str) -> None:
        """Called when a named region of the program begins, e.g. an optimizer's step."""

    def leave(self, name: str) -> None:
        """Called when it ends."""


class Raw:
    """Kernels of one backend, found at first use and kept. ``known``: the same for indices that are known to be right,
    see ``known``."""

    def __init__(self, backend: Backend):
        self.backend = backend
        self.known = backend.trusting(self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = OPS.get(name)
        if op is None:
            passing = PASSING.get(name)
            if passing is None:
                raise AttributeError(f"there is no op named {name!r}")
            kernel: Callable[..., Any] = passing.kernel_on(self.backend)
            return kernel
        kernel = self.backend.kernel(op)
        self.__dict__[name] = kernel
        return kernel


def known(F: Any) -> Any:
    """``F`` for those calls of a derivative rule whose indices forward has looked at, or has found: where looking again
    would wait for a device, kernels don't."""
    return F.known if type(F) is Raw else F


class Listened:
    """A door whose calls are announced to the thread's listeners. The calls inside a definition are not."""

    def __init__(self, raw: Raw):
        self.raw = raw
        self.backend = raw.backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kernel = getattr(self.raw, name)
        op = OPS[name]

        def announced(*inputs: Any, **attrs: Any) -> Any:
            ears = local.listeners
            for ear in ears:
                ear.before(op, inputs, attrs)
            try:
                outputs = kernel(*inputs, **attrs)
            except BaseException:
                for ear in ears:
                    ear.raised(op)
                raise
            for ear in ears:
                ear.after(op, inputs, attrs, outputs if isinstance(outputs, tuple) else (outputs,))
            return outputs

        self.__dict__[name] = announced
        return announced


class Recorded:
    """Ops on Tensors: the door that rules pass under ``create_graph``, and definitions of fused ops."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = OPS.get(name)
        if op is None:
            raise AttributeError(f"there is no op named {name!r}")
        self.__dict__[name] = op
        return op


recorded = Recorded()


class Doors(dict[type, Any]):
    """Array type -> the door of the backend that computes on such arrays."""

    def __missing__(self, array_type: type) -> Any:
        own = getattr(array_type, "door", None)  # arrays made of arrays (``func.batched``) bring their own
        if own is not None:
            self[array_type] = own
            return own
        from .backends import registry

        backend = registry.backend_of(array_type)
        if backend is None:
            raise BackendError(f"no backend computes on {array_type.__name__}; convert with tensorgrad.tensor(...)")
        door = self[array_type] = backend.raw
        return door

    def of(self, array: Any) -> Any:
        return self[type(array)]


class ListenedDoors(Doors):
    def __init__(self, plain: Doors):
        super().__init__()
        self.plain = plain

    def __missing__(self, array_type: type) -> Any:
        # an array's own door calls others, which announce what it does
        door = getattr(array_type, "door", None) or Listened(self.plain[array_type])
        self[array_type] = door
        return door


class MappedDoors(Doors):
    """The doors while ``vmap`` runs: each is wrapped by ``frames[-1].guard``, which sees to random draws."""

    def __init__(self, plain: Doors, guard: Callable[[Any], Any]):
        super().__init__()
        self.plain = plain
        self.guard = guard

    def __missing__(self, array_type: type) -> Any:
        door = getattr(array_type, "door", None) or self.guard(self.plain[array_type])
        self[array_type] = door
        return door


everywhere = Doors()
"""The doors of every thread that has chosen nothing for itself."""


class Local(threading.local):
    """This thread's doors and listeners."""

    doors: Doors = everywhere
    plain: Doors = everywhere
    listeners: tuple[Listener, ...] = ()
    unsettled: Any = None  # the backend that has put off checks of elements in this thread
    frames: tuple[Any, ...] = ()  # the ``vmap`` calls that are running, outermost first

    def refresh(self) -> None:
        doors = ListenedDoors(self.plain) if self.listeners else self.plain
        self.doors = MappedDoors(doors, self.frames[-1].guard) if self.frames else doors
        set_doors(None if self.doors is everywhere else self.doors)


local = Local()


def doors() -> Doors:
    return local.doors


def set_everywhere(backend: Backend) -> None:
    """``backend`` computes on its arrays in every thread that has not chosen otherwise."""
    everywhere[backend.array_type] = backend.raw
    if local.listeners:
        local.refresh()


@contextmanager
def using(backend: Backend) -> Iterator[Backend]:
    """``backend`` computes on its arrays within the block, in this thread."""
    before = local.plain
    chosen = Doors(before)
    chosen[backend.array_type] = backend.raw
    local.plain = chosen
    local.refresh()
    try:
        yield backend
    finally:
        local.plain = before
        local.refresh()


def listeners() -> tuple[Listener, ...]:
    """Who listens in this thread."""
    return local.listeners


@contextmanager
def listening(*who: Any) -> Iterator[Any]:
    """Tell ``who`` of every call that passes the door in this thread, within the block; yields the first of them.

    A listener is any object with some of ``Listener``'s methods.
    """
    before = local.listeners
    local.listeners = before + tuple(_complete(one) for one in who)
    local.refresh()
    try:
        yield who[0] if who else None
    finally:
        local.listeners = before
        local.refresh()


def _complete(listener: Any) -> Listener:
    if isinstance(listener, Listener):
        return listener
    full = Listener()
    for name in ("before", "after", "host", "grad", "grad_read", "read", "moves", "made", "filled", "differentiates",
                 "seen_as", "unheard", "enter_unless", "leave_unless", "enter", "leave"):  # fmt: skip
        if hasattr(listener, name):
            setattr(full, name, getattr(listener, name))
    return full


@contextmanager
def quiet(what: str) -> Iterator[None]:
    """Within the block no call is announced; the thread's listeners are told that there are such."""
    ears, before = local.listeners, local.doors
    for ear in ears:
        ear.unheard(what)
    local.listeners = ()
    local.refresh()
    try:
        yield
    finally:
        local.listeners, local.doors = ears, before  # the very same: a backward pass may be under way that holds them
        set_doors(None if before is everywhere else before)


@contextmanager
def region(name: str) -> Iterator[None]:
    """Tell the thread's listeners that what runs within the block belongs together under this name."""
    ears = local.listeners
    for ear in ears:
        ear.enter(name)
    try:
        yield
    finally:
        for ear in reversed(ears):
            ear.leave(name)


def in_private(action: Callable[[], Any]) -> Any:
    """What an action gives that reads and computes for itself, which is nobody else's affair."""
    ears = local.listeners
    local.listeners = ()
    local.refresh()
    try:
        return action()
    finally:
        local.listeners = ears
        local.refresh()


def host(action: Callable[[], Any], reads: Reads | None = None, counts: tuple[Any, ...] = ()) -> None:
    """Run an action on the host that belongs to the program: a replay must run it again, at the same place.

    Args:
        reads: gives the tensors whose elements the action reads. Given if it touches nothing besides them that calls on
            a device read or write: then a replay may run it before such calls that stand before it, except where one
            of the tensors lies on the device.
        counts: NumPy arrays that the action brings up to date for a call that follows. They become again what they were
            if the action was run early and that call was not reached.
    """
    ears = local.listeners
    if not ears:
        action()
        return
    in_private(action)
    for ear in ears:
        ear.host(action, reads, counts)


def unless(flag: Any, action: Callable[[], Any]) -> Any:
    """What an action gives, or None where a flag, a bool tensor of one element, is set: then it is left out. A program
    asks the flag anew in each replay."""
    ears = local.listeners
    if not ears:
        return None if bool(flag) else action()
    is_set = in_private(lambda: bool(flag))
    for ear in ears:
        ear.enter_unless(flag, is_set)
    try:
        return None if is_set else action()
    finally:
        for ear in reversed(ears):
            ear.leave_unless()


def grad_is_read(tensor: Any) -> None:
    """Tell this thread's listeners that Python asks for a tensor's gradient."""
    for ear in local.listeners:
        ear.grad_read(tensor)


def is_asked(path: str, holder: Any, key: Any = None) -> None:
    """Tell this thread's listeners that Python asks for something that is no tensor; see ``Listener.asks``."""
    for ear in local.listeners:
        ear.asks(path, holder, key)


def grad_was_set(tensor: Any) -> None:
    """Tell this thread's listeners that a tensor's gradient is another now."""
    for ear in local.listeners:
        ear.grad(tensor)


def was_made(array: Any, source: Any) -> None:
    """Tell this thread's listeners that an array was made of ``source``, past the door."""
    for ear in local.listeners:
        ear.made(array, source)
