"""What a profile holds: timed calls, their averages, and the table and the trace made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg"]


class Interval(NamedTuple):
    """When a call began and ended, in microseconds since the profile began."""

    start: float
    end: float

    def elapsed_us(self) -> float:
        """How long it took."""
        return self.end - self.start


class _Times:
    """What calls and averages of calls have in common; all times are microseconds."""

    key: str
    count: int
    cpu_time_total: float
    self_cpu_time_total: float
    device_time_total: float
    cpu_memory_usage: int
    flops: int

    @property
    def cpu_time(self) -> float:
        """The mean time of a call."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def device_time(self) -> float:
        """The mean time of a call on a device other than the CPU."""
        return self.device_time_total / self.count if self.count else 0.0

    cuda_time = device_time

    @property
    def cuda_time_total(self) -> float:
        return self.device_time_total

    self_device_time_total = self_cuda_time_total = cuda_time_total

    cpu_time_str = property(lambda self: spelled(self.cpu_time))
    cpu_time_total_str = property(lambda self: spelled(self.cpu_time_total))
    self_cpu_time_total_str = property(lambda self: spelled(self.self_cpu_time_total))


class FunctionEvent(_Times):
    """One timed call of an op, or one pass through a named region."""

    count = 1

    def __init__(self, name: str, start: float, depth: int, thread: int, is_region: bool):
        self.name = self.key = name
        self.start = start
        self.end = start
        self.depth = depth
        self.thread = thread
        self.is_user_annotation = is_region
        self.inner = 0.0  # time of the calls within
        self.device_time_total = 0.0
        self.input_shapes: list[Any] = []
        self.stack: list[str] = []
        self.cpu_memory_usage = 0
        self.flops = 0
        self.cpu_children: list[FunctionEvent] = []
        self.cpu_parent: FunctionEvent | None = None

    @property
    def time_range(self) -> Interval:
        return Interval(self.start, self.end)

    @property
    def cpu_time_total(self) -> float:  # type: ignore[override]
        return self.end - self.start

    @property
    def self_cpu_time_total(self) -> float:  # type: ignore[override]
        return self.end - self.start - self.inner

    def __repr__(self) -> str:
        return f"<FunctionEvent name={self.name} cpu_time={self.cpu_time_str} input_shapes={self.input_shapes}>"


class FunctionEventAvg(_Times):
    """All calls of one name (and, where asked for, of one set of input shapes or one place in the source)."""

    def __init__(self, key: str, shapes: list[Any], stack: list[str]):
        self.key = key
        self.input_shapes = shapes
        self.stack = stack
        self.count = 0
        self.cpu_time_total = self.self_cpu_time_total = self.device_time_total = 0.0
        self.cpu_memory_usage = self.flops = 0
        self.is_user_annotation = False

    def add(self, other: Any) -> FunctionEventAvg:
        """Take in another call, or average."""
        self.count += other.count
        self.cpu_time_total += other.cpu_time_total
        self.self_cpu_time_total += other.self_cpu_time_total
        self.device_time_total += other.device_time_total
        self.cpu_memory_usage += other.cpu_memory_usage
        self.flops += other.flops
        self.is_user_annotation = other.is_user_annotation
        return self

    def __repr__(self) -> str:
        return (
            f"<FunctionEventAvg key={self.key} self_cpu_time={self.self_cpu_time_total_str} cpu_time="
            f"{self.cpu_time_str} input_shapes={self.input_shapes}>"
        )


def spelled(microseconds: float) -> str:
    """A time with its unit."""
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:.3f}s"
    return f"{microseconds / 1e3:.3f}ms" if microseconds >= 1e3 else f"{microseconds:.3f}us"


_SORTS: dict[str, Callable[[Any], Any]] = {
    "cpu_time": lambda e: e.cpu_time, "cpu_time_total": lambda e: e.cpu_time_total,
    "self_cpu_time_total": lambda e: e.self_cpu_time_total, "count": lambda e: e.count,
    "cpu_memory_usage": lambda e: e.cpu_memory_usage, "self_cpu_memory_usage": lambda e: e.cpu_memory_usage,
    **{f"{prefix}{device}_time{suffix}": lambda e: e.device_time_total for device in ("cuda", "device", "xpu")
       for prefix, suffix in (("", ""), ("", "_total"), ("self_", "_total"))},
}  # fmt: skip


class EventList(list[Any]):
    """Timed calls, or averages of them, as a table or a trace."""

    def self_total(self) -> float:
        """Microseconds that all entries took, nothing counted twice."""
        return sum(event.self_cpu_time_total for event in self)

    @property
    def self_cpu_time_total(self) -> float:
        return self.self_total()

    def total_average(self) -> FunctionEventAvg:
        """Everything together."""
        total = FunctionEventAvg("Total", [], [])
        for event in self:
            total.add(event)
        return total

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> EventList:
        """One entry per name, and per input shapes or per innermost source lines if asked for."""
        found: dict[Any, FunctionEventAvg] = {}
        for event in self:
            shapes = event.input_shapes if group_by_input_shape else []
            stack = event.stack[:group_by_stack_n]
            key = (event.key, str(shapes), tuple(stack))
            if key not in found:
                found[key] = FunctionEventAvg(event.key, shapes, stack)
            found[key].add(event)
        return EventList(found.values())

    def table(
        self, sort_by: str | None = None, row_limit: int = 100, max_src_column_width: int = 75,
        max_name_column_width: int = 55, max_shapes_column_width: int = 80, header: str | None = None,
        top_level_events_only: bool = False,
    ) -> str:  # fmt: skip
        """A table of the entries, the largest first by ``sort_by``: "cpu_time", "cpu_time_total",
        "self_cpu_time_total", "count", "cpu_memory_usage", or one of the devices' times.

        Raises ValueError for another.
        """
        rows: list[Any] = list(self)
        if top_level_events_only:
            rows = [event for event in rows if getattr(event, "cpu_parent", None) is None]
        if sort_by is not None:
            if sort_by not in _SORTS:
                raise ValueError(f"table: can't sort by {sort_by!r}; known are {sorted(_SORTS)}.")
            rows.sort(key=_SORTS[sort_by], reverse=True)
        whole = sum(event.self_cpu_time_total for event in self)
        columns: list[tuple[str, Callable[[Any], str]]] = [
            ("Name", lambda e: _cut(e.key, max_name_column_width)),
            ("Self CPU %", lambda e: _percent(e.self_cpu_time_total, whole)),
            ("Self CPU", lambda e: e.self_cpu_time_total_str),
            ("CPU total %", lambda e: _percent(e.cpu_time_total, whole)),
            ("CPU total", lambda e: e.cpu_time_total_str),
            ("CPU time avg", lambda e: e.cpu_time_str),
        ]
        if any(event.device_time_total for event in self):
            columns.append(("Device total", lambda e: spelled(e.device_time_total)))
        if any(event.cpu_memory_usage for event in self):
            columns.append(("CPU Mem", lambda e: f"{e.cpu_memory_usage / 1024:.2f} Kb"))
        columns.append(("# of Calls", lambda e: str(e.count)))
        if any(event.input_shapes for event in self):
            columns.append(("Input Shapes", lambda e: _cut(str(e.input_shapes), max_shapes_column_width)))
        if any(event.flops for event in self):
            columns.append(("Total MFLOPs", lambda e: f"{e.flops / 1e6:.3f}" if e.flops else "--"))
        if any(event.stack for event in self):
            columns.append(("Source Location", lambda e: _cut(e.stack[0] if e.stack else "", max_src_column_width)))
        cells = [[text(event) for _, text in columns] for event in (rows if row_limit < 0 else rows[:row_limit])]
        widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, (name, _) in enumerate(columns)]
        rule = "  ".join("-" * width for width in widths)
        lines = [] if header is None else [header]
        lines += [rule, "  ".join(name.rjust(w) for (name, _), w in zip(columns, widths, strict=True)), rule]
        lines += ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
        lines += [rule, f"Self CPU time total: {spelled(whole)}", ""]
        return "\n".join(lines)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the calls as a trace that chrome://tracing and Perfetto show."""
        events = [
            {
                "ph": "X", "cat": "user_annotation" if event.is_user_annotation else "cpu_op", "name": event.name,
                "pid": os.getpid(), "tid": event.thread, "ts": event.start, "dur": event.cpu_time_total,
                "args": {"Input Dims": event.input_shapes, "Call stack": ";".join(event.stack)},
            }
            for event in self
        ]  # fmt: skip
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"schemaVersion": 1, "displayTimeUnit": "ms", "traceEvents": events}, file)

    def __str__(self) -> str:
        return self.table()


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "--"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
