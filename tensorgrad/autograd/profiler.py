"""``torch.autograd.profiler``: the profiler under its older name and arguments."""

from __future__ import annotations

from typing import Any

from ..profiler.events import EventList, FunctionEvent, FunctionEventAvg
from ..profiler.profile import ProfilerActivity, record_function
from ..profiler.profile import profile as _profile

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "profile", "record_function"]


class profile:
    """See ``tensorgrad.profiler.profile``; ``enabled=False`` measures nothing."""

    def __init__(
        self, enabled: bool = True, *, use_cuda: bool = False, use_device: str | None = None,
        record_shapes: bool = False, with_flops: bool = False, profile_memory: bool = False, with_stack: bool = False,
        with_modules: bool = False, use_cpu: bool = True,
    ):  # fmt: skip
        if not use_cpu:
            raise ValueError("profile: use_cpu=False is not supported; every op is timed on the CPU.")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if use_cuda or use_device == "cuda" else [])]
        self.enabled = enabled
        self._profile = _profile(
            activities=activities, record_shapes=record_shapes, with_flops=with_flops, profile_memory=profile_memory,
            with_stack=with_stack, with_modules=with_modules,
        )  # fmt: skip

    def __enter__(self) -> profile:
        if self.enabled:
            self._profile.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.enabled:
            self._profile.stop()

    @property
    def function_events(self) -> EventList:
        """Every timed call."""
        return self._profile.events()

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> EventList:
        """The calls by name."""
        return self._profile.key_averages(group_by_input_shape, group_by_stack_n)

    def total_average(self) -> FunctionEventAvg:
        """Everything together."""
        return self.function_events.total_average()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of everything."""
        return self.function_events.self_cpu_time_total

    def table(self, *args: Any, **kwargs: Any) -> str:
        """See ``EventList.table``."""
        return self.function_events.table(*args, **kwargs)

    def export_chrome_trace(self, path: str) -> None:
        """Write a trace that chrome://tracing and Perfetto show."""
        self._profile.export_chrome_trace(path)

    def __str__(self) -> str:
        return str(self.function_events)
