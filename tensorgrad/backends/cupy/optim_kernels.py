"""Optimizer steps, clipping and the check of a loss's scale: one launch for all arrays of a bucket.

Where the arrays are is a table in device memory, which is written (by a launch, not by a copy) when they are others
than before. The numbers of a step (rates, counts) are in device memory too, so that a CUDA graph replays a step with
those of the day. How the tables look is said in ``optim.cu``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..generic.optim import OptimKernels
from .kernels import Kernels
from .names import NAMES
from .words import Words, bits, device_words, noted, put_words

__all__ = ["CHUNK", "CupyOptimizers", "adam_numbers", "sgd_numbers"]

CHUNK = 4096  # elements that a block takes at a time: kChunk of optim.cu
_THREADS = 256  # of a block
_MOST_TABLES = 64  # remembered; with ever new arrays all are forgotten from time to time
_FIRST_FLAG, _MAXIMIZE = 1, 2
_NORMS = {2.0: "squares", math.inf: "largest"}

Arrays = list[Any]


def sgd_numbers(hyper: Any) -> tuple[float, ...]:
    """What the kernel reads of lr, momentum, dampening, weight decay, and whether the buffers are fresh."""
    lr, momentum, dampening, decay, first = map(float, hyper)
    return lr, momentum, 1 - dampening, decay, first


def adam_numbers(hyper: Any, *, decoupled: bool, counted: bool = True) -> tuple[float, ...]:
    """What the kernel reads of lr, beta1, beta2, eps, weight decay, step; of what the step decides, where the device
    counts it, what ``countstep`` makes it from."""
    lr, beta1, beta2, eps, decay, step = map(float, hyper)
    rate, root = (lr / (1 - beta1**step), math.sqrt(1 - beta2**step)) if counted else (lr, 0.0)
    return rate, 1 - lr * decay if decoupled else decay, beta1, 1 - beta1, beta2, 1 - beta2, eps, root


class CupyOptimizers(OptimKernels):
    leaves_out: ClassVar[frozenset[str]] = frozenset(("adam_", "grouped_adam_", "grouped_sgd_", "sgd_"))
    _kernels: Kernels
    _tables: dict[Any, Any]

    # --- tables

    def _table(self, lists: Sequence[Arrays], groups: Sequence[int]) -> tuple[Any, int]:
        """(the table, the number of chunks) of dense arrays of one dtype: ``lists[i][k]`` is array k of list i."""
        double = 2 if lists[0][0].dtype.kind == "c" else 1  # real and imaginary parts are numbers of their own
        addresses = [x.data.ptr for one in lists for x in one]
        lengths = [x.size * double for x in lists[0]]
        chunks = 0
        firsts = [0]
        for length in lengths:
            chunks += -(-length // CHUNK)
            firsts.append(chunks)
        words = noted()
        if words is not None:
            return words.fixed(np.array([*addresses, *firsts, *lengths, *groups], np.uint64)), chunks
        cuda = self.xp.cuda
        key = (cuda.runtime.getDevice(), cuda.get_current_stream().ptr, *addresses, *lengths, *groups)
        found = self._tables.get(key)
        if found is None:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            made = np.array([*addresses, *firsts, *lengths, *groups], np.uint64)
            found = self.xp.empty((len(made),), dtype=np.uint64)
            put_words(self._kernels, made, found)
            self._tables[key] = found
        return found, chunks

    def _over(self, name: str, lists: Sequence[Arrays], groups: Sequence[int], *arguments: Any) -> None:
        """Launch a kernel over all arrays."""
        table, chunks = self._table(lists, groups)
        self._kernels.launch(name, chunks * _THREADS, len(lists[0]), table, *arguments)

    def _sorted(
        self, lists: Sequence[Arrays], read: int | None
    ) -> tuple[dict[str, list[int]], list[Arrays], list[int]]:
        """Which places of the lists the kernels take, by dtype; the lists with what is only read (list ``read``) made
        dense; and the places that they leave to the generic kernels."""
        taken: dict[str, list[int]] = {}
        left: list[int] = []
        dense = [list(one) for one in lists]
        for k, column in enumerate(zip(*lists, strict=True)):
            written = [x for i, x in enumerate(column) if i != read]
            straight = all(x.flags.c_contiguous for x in written)
            dtype = column[0].dtype
            kept = dtype.kind in "fc" or NAMES[dtype] == "bfloat16"
            if not kept or not (straight or all(x.flags.f_contiguous for x in written)):
                left.append(k)
                continue
            if read is not None:
                x = column[read]
                # columns' order is as good, where all have it
                as_written = self.xp.ascontiguousarray if straight else self.xp.asfortranarray
                if not (x.flags.c_contiguous if straight else x.flags.f_contiguous):
                    dense[read][k] = as_written(x)
            taken.setdefault(_real_name(dtype), []).append(k)
        return taken, dense, left

    # --- steps

    def _step(
        self, kind: str, generic: Callable[..., None], lists: Sequence[Arrays], read_numbers: Callable[[Any], Any],
        variant: str, *, counts: Sequence[int], hypers: Sequence[Any], scales: Sequence[Any], stop: Any = None,
        done: Any = None, **how: Any,
    ) -> None:  # fmt: skip
        """One step of each group: as few launches as there are dtypes. ``generic`` takes arrays that are not dense.
        ``stop``: a bool on the device, which is not looked at on the host; if set, nothing is done. ``done``: a number
        on the device that counts the steps of the one group, instead of its ``hyper``."""
        flags = _FIRST_FLAG * bool(how.get("nesterov") or how.get("decoupled")) | _MAXIMIZE * bool(how.get("maximize"))
        of = [group for group, count in enumerate(counts) for _ in range(count)]
        taken, dense, left = self._sorted([one for one in lists if one], 1)
        if left and noted() is not None:
            raise RuntimeError(f"{kind}_: arrays that are not dense are updated with numbers of the host")
        if left and stop is not None and bool(stop.get()):
            return
        if left and done is not None:
            hypers = [[*hypers[0][:5], float(done.get()) + 1]]
        for group, (hyper, scale) in enumerate(zip(hypers, scales, strict=True)):
            own = [k for k in left if of[k] == group]
            if own:
                generic(*([one[k] for k in own] if one else [] for one in lists), hyper=hyper, scale=scale, **how)
        if not taken and done is None:
            return
        factors = [None if scale is None else scale.astype(np.float64) for scale in scales]
        flag = 0 if stop is None else stop.data.ptr
        addresses = [np.array([0 if x is None else x.data.ptr, flag], np.uint64) for x in factors]

        def read() -> Words:
            rows = [bits(read_numbers(hyper)) for hyper in hypers]
            return np.concatenate([part for pair in zip(rows, addresses, strict=True) for part in pair])

        width = len(read_numbers(hypers[0])) + 2
        numbers = device_words(self.xp, self._kernels, width * len(hypers), read)
        # no memory is asked for once anything has been written: who catches that there is none may step again
        tables = [
            (dtype, len(places), *self._table([[one[k] for k in places] for one in dense], [of[k] for k in places]))
            for dtype, places in taken.items()
        ]
        if done is not None:
            self._kernels.launch("countstep", 1, numbers, done)
        for dtype, count, table, chunks in tables:
            self._kernels.launch(f"{kind}_{variant}_{dtype}", chunks * _THREADS, count, flags, table, numbers)

    def sgd_(self, *lists: Arrays, hyper: Any, scale: Any = None, **how: Any) -> None:
        """``hyper``: lr, momentum, dampening, weight decay, whether the buffers are fresh; these may be no list. All of
        these take ``stop`` too, see ``_step``."""
        self.grouped_sgd_(*lists, counts=(len(lists[0]),), hypers=[hyper], scales=[scale], **how)

    def grouped_sgd_(self, *lists: Arrays, **how: Any) -> None:
        self._step("sgd", super().sgd_, lists, sgd_numbers, "momentum" if lists[2] else "plain", **how)

    def adam_(self, *lists: Arrays, hyper: Any, scale: Any = None, **how: Any) -> None:
        """``hyper``: lr, beta1, beta2, eps, weight decay, step (from 1). Takes ``done`` too, see ``_step``."""
        self.grouped_adam_(*lists, counts=(len(lists[0]),), hypers=[hyper], scales=[scale], **how)

    def grouped_adam_(self, *lists: Arrays, **how: Any) -> None:
        *moments, largest = lists
        variant, used = ("amsgrad", largest) if how.get("amsgrad") else ("plain", [])
        numbers = partial(adam_numbers, decoupled=bool(how.get("decoupled")), counted=how.get("done") is None)
        self._step("adam", super().adam_, (*moments, used), numbers, variant, **how)

    # --- norms and scaling

    def multi_norm(self, grads: Arrays, *, p: float) -> Any:
        xp = self.xp
        grads = [g for g in grads if g.size]
        odd = any(g.dtype.kind not in "fc" and NAMES[g.dtype] != "bfloat16" for g in grads)
        kind = _NORMS.get(p)
        # the magnitude of a complex number is that of its parts together for squares alone
        if not grads or odd or kind is None or (p != 2 and any(g.dtype.kind == "c" for g in grads)):
            return super().multi_norm(grads, p=p)
        alike: dict[str, Arrays] = {}
        for g in grads:
            one = g if g.flags.c_contiguous or g.flags.f_contiguous else xp.ascontiguousarray(g)
            alike.setdefault(_real_name(g.dtype), []).append(one)
        tables = {name: self._table([some], [0] * len(some)) for name, some in alike.items()}
        count = sum(chunks for _, chunks in tables.values())
        parts, total = xp.empty((count,), dtype=np.float64), xp.empty((), dtype=np.float64)
        at = 0
        for name, (table, chunks) in tables.items():
            self._kernels.launch(f"normparts_{kind}_{name}", chunks * _THREADS, len(alike[name]), table,
                                 parts[at : at + chunks])  # fmt: skip
            at += chunks
        self._kernels.launch(f"normtotal_{kind}", _THREADS, count, parts, total)
        return total

    def multi_scale_(self, grads: Arrays, factor: Any) -> None:
        taken, _, left = self._sorted([grads], None)
        if left:
            super().multi_scale_([grads[k] for k in left], factor)
        exact = factor.astype(np.float64)
        for dtype, places in taken.items():
            self._over(f"scale_{dtype}", [[grads[k] for k in places]], [0] * len(places), exact)

    def amp_unscale_(self, grads: Arrays, scale: Any) -> Any:
        taken, _, left = self._sorted([grads], None)
        found = super().amp_unscale_([grads[k] for k in left], scale) if left else self.xp.zeros((), dtype=np.bool_)
        exact = scale.astype(np.float64)
        for dtype, places in taken.items():
            self._over(f"unscale_{dtype}", [[grads[k] for k in places]], [0] * len(places), exact, found)
        return found

    def _in_a_row(self, numbers: list[Any]) -> Any:
        # stack() of many copies their addresses to the device, which no CUDA graph can hold
        row = self.xp.empty((len(numbers),), dtype=numbers[0].dtype)
        for i, number in enumerate(numbers):
            row[i] = number
        return row


def _real_name(dtype: Any) -> str:
    """The dtype that kernels see: that of the parts of a complex number."""
    return {"complex64": "float32", "complex128": "float64"}.get(NAMES[dtype], NAMES[dtype])
