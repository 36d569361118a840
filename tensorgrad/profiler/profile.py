"""``profile``: times what passes the door; ``schedule`` says which steps; ``record_function`` names regions."""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import Any

from ..dispatch import Listener, listening, region
from .cost import product_flops
from .events import EventList, FunctionEvent

__all__ = [
    "ProfilerAction", "ProfilerActivity", "Recorder", "profile", "record_function", "schedule", "supported_activities",
    "tensorboard_trace_handler",
]  # fmt: skip

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class ProfilerActivity(Enum):
    """Whose time is measured."""

    CPU = 0
    XPU = 1
    MTIA = 2
    CUDA = 3


class ProfilerAction(Enum):
    """What the profiler does in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """Those that can be measured here."""
    from .. import cuda

    return {ProfilerActivity.CPU, ProfilerActivity.CUDA} if cuda.is_available() else {ProfilerActivity.CPU}


class Recorder(Listener):
    """Notes when each call and each region begins and ends."""

    def __init__(self, shapes: bool, memory: bool, stack: bool, flops: bool, cuda: bool):
        self.shapes, self.memory, self.stack, self.flops = shapes, memory, stack, flops
        self.synchronize: Callable[[], Any] | None = None
        if cuda:
            from .. import cuda as device

            self.synchronize = device.synchronize
        self.origin = time.perf_counter_ns()
        self.events: list[FunctionEvent] = []
        self.open: list[FunctionEvent] = []
        self.thread = threading.get_ident()

    def _now(self) -> float:
        return (time.perf_counter_ns() - self.origin) / 1e3

    def _begin(self, name: str, is_region: bool) -> FunctionEvent:
        event = FunctionEvent(name, 0.0, len(self.open), self.thread, is_region)
        if self.open:
            event.cpu_parent = self.open[-1]
            self.open[-1].cpu_children.append(event)
        self.events.append(event)
        self.open.append(event)
        if self.stack:
            event.stack = _user_stack()
        event.start = self._now()
        return event

    def _end(self, name: str) -> FunctionEvent | None:
        now = self._now()
        while self.open:  # a call that raised never ends by itself
            event = self.open.pop()
            event.end = now
            if self.open:
                self.open[-1].inner += event.end - event.start
            if event.name == name:
                return event
        return None

    def before(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> None:
        self._begin(op.name, False)

    def after(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        on_device = self.synchronize is not None and any(hasattr(x, "device") and not isinstance(
            getattr(x, "device", "cpu"), str) for x in outputs)  # fmt: skip
        if on_device and self.synchronize is not None:
            self.synchronize()
        event = self._end(op.name)
        if event is None:
            return
        if on_device:
            event.device_time_total = event.cpu_time_total
        if self.shapes:
            event.input_shapes = [_shape(x) for x in inputs]
        if self.memory and not op.view:
            event.cpu_memory_usage = sum(int(x.nbytes) for x in outputs if hasattr(x, "nbytes"))
        if self.flops:
            event.flops = _flops(op.name, inputs, attrs, outputs)

    def enter(self, name: str) -> None:
        self._begin(name, True)

    def leave(self, name: str) -> None:
        self._end(name)


def _shape(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [_shape(part) for part in x]
    return list(x.shape) if hasattr(x, "shape") else []


def _flops(name: str, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> int:
    """Floating-point operations of a call: of products, and of the formulas that PyTorch counts them for."""
    if name in ("add", "mul"):
        return int(getattr(outputs[0], "size", 0))
    return product_flops(name, inputs, outputs, attrs) or 0


def _user_stack() -> list[str]:
    """The calls outside of this package, innermost first."""
    frame: Any = sys._getframe(2)
    lines = []
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            lines.append(f"{code.co_filename}({frame.f_lineno}): {code.co_name}")
        frame = frame.f_back
    return lines


class record_function:
    """Names what runs within the block, or the decorated function, in profiles.

    Example:
        >>> import tensorgrad as tg
        >>> with tg.profiler.profile() as prof, tg.profiler.record_function("mine"):
        ...     y = tg.ones(2) + 1
        >>> [event.name for event in prof.events()][0]
        'mine'
    """

    def __init__(self, name: str, args: str | None = None):
        self.name = name
        self.args = args
        self._region: list[AbstractContextManager[None]] = []

    def __enter__(self) -> record_function:
        inner = region(self.name if self.args is None else f"{self.name}: {self.args}")
        inner.__enter__()
        self._region.append(inner)
        return self

    def __exit__(self, *error: Any) -> None:
        self._region.pop().__exit__(*error)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def named(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return named


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """Which steps are recorded: after ``skip_first``, rounds of ``wait`` idle steps, ``warmup`` steps whose record is
    dropped, and ``active`` recorded ones; ``repeat`` rounds, or 0 for as many as there are.

    With ``skip_first_wait`` the first round does not wait. Raises AssertionError for numbers that make no round.
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active <= 0:
        raise AssertionError(
            f"Invalid profiler schedule arguments. Got wait={wait} (need >= 0), warmup={warmup} (need >= 0), "
            f"active={active} (need > 0), repeat={repeat} (need >= 0), skip_first={skip_first} (need >= 0)."
        )
    if warmup == 0:
        warnings.warn("Profiler won't be using warmup, this can skew profiler results", UserWarning, stacklevel=2)

    def action(step: int) -> ProfilerAction:
        if step < 0:
            raise AssertionError(f"Step must be non-negative. Got {step}.")
        if step < skip_first:
            return ProfilerAction.NONE
        step -= skip_first
        if skip_first_wait:
            step += wait
        length = wait + warmup + active
        if repeat > 0 and step // length >= repeat:
            return ProfilerAction.NONE
        at = step % length
        if at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if at < length - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """For ``on_trace_ready``: writes each trace to a file of its own in the folder."""

    def handler(prof: profile) -> None:
        folder = Path(dir_name)
        folder.mkdir(parents=True, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        path = folder / f"{worker}.{time.time_ns()}.pt.trace.json"
        prof.export_chrome_trace(str(path) + (".gz" if use_gzip else ""))

    return handler


_SAVED = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


class profile:
    """Times every op within the block, in this thread; on the CPU, and on the device if CUDA is among the activities
    (which makes each op wait for the one before).

    Args:
        activities: of ``ProfilerActivity``; all that can be measured here if None.
        schedule: which steps are recorded, as made by ``schedule``; ``step()`` is to be called after each.
        on_trace_ready: called with the profile when a round of the schedule, or the block, ends.
        record_shapes: note the inputs' shapes.
        profile_memory: note the bytes of the results.
        with_stack: note the source lines of the calls.
        with_flops: count the operations of products, convolutions, sums.
        with_modules: accepted for PyTorch's sake, where it concerns TorchScript alone.
    Raises: ValueError for experimental_config and execution_trace_observer, which are not supported.
    Example:
        >>> import tensorgrad as tg
        >>> with tg.profiler.profile(record_shapes=True) as prof:
        ...     y = tg.ones(2, 3) @ tg.ones(3, 2)
        >>> any(row.key == "matmul" for row in prof.key_averages())
        True
    """

    def __init__(
        self, *, activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None, record_shapes: bool = False,
        profile_memory: bool = False, with_stack: bool = False, with_flops: bool = False, with_modules: bool = False,
        experimental_config: Any = None, execution_trace_observer: Any = None, acc_events: bool = False,
        use_cuda: bool | None = None,
    ):  # fmt: skip
        if experimental_config is not None or execution_trace_observer is not None:
            raise ValueError("profile: experimental_config and execution_trace_observer are not supported.")
        chosen = supported_activities() if activities is None else set(activities)
        if use_cuda is not None:
            warnings.warn("use_cuda is deprecated, use activities argument instead", FutureWarning, stacklevel=2)
            chosen = chosen | {ProfilerActivity.CUDA} if use_cuda else chosen - {ProfilerActivity.CUDA}
        if not chosen:
            raise AssertionError("No valid profiler activities found")
        if ProfilerActivity.CUDA in chosen and ProfilerActivity.CUDA not in supported_activities():
            warnings.warn("CUDA is not available, disabling CUDA profiling", UserWarning, stacklevel=2)
            chosen.discard(ProfilerActivity.CUDA)
        self.activities = chosen
        self.schedule = schedule
        self.on_trace_ready = on_trace_ready
        self.acc_events = acc_events
        self.step_num = 0
        self._make = functools.partial(
            Recorder, record_shapes, profile_memory, with_stack, with_flops, ProfilerActivity.CUDA in chosen
        )
        self._recorder: Recorder | None = None
        self._listening: Any = None
        self._step_region: Any = None
        self._kept: list[FunctionEvent] = []

    def _action(self) -> ProfilerAction:
        return ProfilerAction.RECORD if self.schedule is None else self.schedule(self.step_num)

    def start(self) -> None:
        """Begin; the same as entering the block."""
        self.current_action = self._action()
        self._go_on()

    def stop(self) -> None:
        """End; the same as leaving the block."""
        self._leave_step()
        recorded = self._pause()
        if recorded and self.on_trace_ready is not None:
            self.on_trace_ready(self)

    def step(self) -> None:
        """Say that a step of the schedule is over."""
        self._leave_step()
        before = self.current_action
        self.step_num += 1
        self.current_action = self._action()
        if before is ProfilerAction.RECORD_AND_SAVE or (before in _SAVED and self.current_action not in _SAVED):
            self._pause()
            if self.on_trace_ready is not None:
                self.on_trace_ready(self)
        self._go_on()

    def _go_on(self) -> None:
        if self.current_action in _SAVED and self._recorder is None:
            self._recorder = self._make()
            if not self.acc_events:
                self._kept = []
            self._listening = listening(self._recorder)
            self._listening.__enter__()
        if self.schedule is not None and self._recorder is not None:
            self._step_region = region(f"ProfilerStep#{self.step_num}")
            self._step_region.__enter__()

    def _leave_step(self) -> None:
        if self._step_region is not None:
            self._step_region.__exit__(None, None, None)
            self._step_region = None

    def _pause(self) -> bool:
        if self._recorder is None:
            return False
        self._listening.__exit__(None, None, None)
        while self._recorder.open:
            self._recorder._end(self._recorder.open[-1].name)
        self._kept += self._recorder.events
        self._recorder = None
        return True

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def events(self) -> EventList:
        """Every timed call of the last recorded round (of all, with ``acc_events``)."""
        return EventList(self._kept)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> EventList:
        """The calls by name; see ``EventList``."""
        return self.events().key_averages(group_by_input_shape, group_by_stack_n)

    def export_chrome_trace(self, path: str) -> None:
        """Write a trace that chrome://tracing and Perfetto show; compressed if the name ends in .gz."""
        if not str(path).endswith(".gz"):
            self.events().export_chrome_trace(path)
            return
        import gzip
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "trace.json"
            self.events().export_chrome_trace(plain)
            with gzip.open(path, "wb") as file:
                file.write(plain.read_bytes())

    def export_stacks(self, path: str, metric: str = "self_cpu_time_total") -> None:
        """Write one line per source stack with its microseconds, as flame graphs are made of; needs ``with_stack``."""
        if metric not in ("self_cpu_time_total", "self_cuda_time_total"):
            raise ValueError(
                f"export_stacks: metric should be 'self_cpu_time_total' or 'self_cuda_time_total', got {metric!r}."
            )
        totals: dict[str, float] = {}
        for event in self._kept:
            if event.stack:
                line = ";".join(reversed([place.replace(" ", "_") for place in event.stack]))
                totals[line] = totals.get(line, 0.0) + getattr(event, metric)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{line} {int(value)}\n" for line, value in totals.items() if int(value))
