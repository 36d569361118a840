"""Optimizers whose step is a formula of one element: compiled to a single pass over parameter, gradient and state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ..expr import functions as fn
from ..expr import symbol
from ..ops.elementwise import Elementwise
from ..tensor import Tensor
from .optimizer import Group
from .plan import Bucket, PlannedOptimizer

__all__ = ["FormulaOptimizer", "Terms", "fn"]

Flags = dict[str, bool]


class Terms:
    """What a formula reads and assigns: ``p``, ``g``, the state tensors and the numbers, each under its name."""

    p: Any
    g: Any

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the formula uses {name!r}, which is neither state nor a number of the optimizer")


class FormulaOptimizer(PlannedOptimizer):
    """An optimizer whose step is ``formula``, a function of scalar expressions.

    A subclass names its ``numbers``, gives them in ``_numbers``, and says in ``_flags`` which form of the formula the
    group's settings ask for.
    """

    numbers: ClassVar[tuple[str, ...]]

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """Assign the new ``terms.p`` and state. ``terms.g`` is the gradient with maximize and weight decay applied."""
        raise NotImplementedError

    def _flags(self, group: Group) -> Flags:
        """Choices that change the formula, by name; numbers do not."""
        return {}

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        """Count a step in ``scalars``; the numbers of this step. ``lr`` is a float, or a Tensor if recorded."""
        raise NotImplementedError

    @property
    def hyper_size(self) -> int:  # type: ignore[override]
        return len(self.numbers)

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        bucket.hyper[:] = self._numbers(group, float(group["lr"]), bucket.scalars)

    def form(self, group: Group) -> tuple[Any, ...]:
        return *super().form(group), self._all_flags(group)

    def _all_flags(self, group: Group) -> tuple[tuple[str, bool], ...]:
        flags = {"maximize": bool(group.get("maximize")), **self._flags(group)}
        if "weight_decay" in group:
            flags.setdefault("decay", group["weight_decay"] != 0)
        return tuple(flags.items())

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        layout = self._layout(group)
        step = _compiled(type(self), self.numbers, layout, self._all_flags(group))
        door.update_(params, grads, *[bucket.state(name) for name in layout], hyper=bucket.hyper, formula=step)

    def _differentiable(
        self, group: Group, p: Tensor, g: Tensor, states: list[Tensor], scalars: Any, fresh: bool
    ) -> tuple[Tensor, ...]:
        lr = group["lr"]
        if isinstance(lr, Tensor):
            lr = lr.reshape(())
        numbers = self._numbers(group, lr, scalars)
        step = _compiled(type(self), self.numbers, self._layout(group), self._all_flags(group))
        after = step(p, g, *states, *numbers)
        return after if isinstance(after, tuple) else (after,)


_known: dict[Any, Elementwise] = {}


def _compiled(
    kind: Any, numbers: tuple[str, ...], layout: tuple[str, ...], flags: tuple[tuple[str, bool], ...]
) -> Elementwise:
    """The op of one form of the formula: (p, g, *state, *numbers) to (p, *state)."""
    key = (kind.formula, numbers, layout, flags)
    found = _known.get(key)
    if found is not None:
        return found
    chosen = dict(flags)
    names = ("p", "g", *layout, *numbers)
    terms = Terms()
    for i, name in enumerate(names):
        setattr(terms, name, symbol(i))
    if chosen["maximize"]:
        terms.g = -terms.g
    if chosen.get("decay"):
        terms.g = terms.g + terms.weight_decay * terms.p
    kind.formula(terms, chosen)
    results = tuple(getattr(terms, name) for name in ("p", *layout))
    word = "_".join(name for name, on in flags if on)
    # numbered: a user's subclass may have the name of its parent and a formula of its own
    step = Elementwise(f"{kind.__name__.lower()}_step{len(_known)}_{word}".rstrip("_"), names, results, derived=True)
    _known[key] = step
    return step
