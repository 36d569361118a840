"""L-BFGS: a quasi-Newton method that remembers a few steps, with an optional line search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..autograd.grad_mode import enable_grad, no_grad
from ..ops.checks import integer
from ..ops.join import cat, stack
from ..ops.public import complex as complex_of
from ..tensor import Tensor
from .optimizer import Optimizer, check_lr, setting

__all__ = ["LBFGS"]


class LBFGS(Optimizer):
    """Steps along the gradient, bent by an estimate of the inverse Hessian from the last ``history_size`` steps.

    All parameters are one group, on one device. ``step`` takes a closure that evaluates the loss anew.

    Args:
        params: tensors, or (name, tensor) pairs.
        lr: the step's length in units of the estimate; a number or a tensor of one element.
        max_iter: iterations in a step.
        max_eval: evaluations of the closure in a step; ``max_iter * 1.25`` by default.
        tolerance_grad: stop when no element of the gradient is larger.
        tolerance_change: stop when no parameter, or the loss, changes by more.
        history_size: remembered steps.
        line_search_fn: "strong_wolfe" looks for a step that meets the strong Wolfe conditions; None takes ``lr``.
        maximize: climb instead of descending.
    State: kept with the first parameter: func_evals, n_iter, d, t, old_dirs, old_stps, ro, H_diag, prev_flat_grad,
        prev_loss, al.
    Example:
        >>> import tensorgrad as tg
        >>> x = tg.tensor([3.0, -2.0], requires_grad=True)
        >>> optimizer = tg.optim.LBFGS([x], line_search_fn="strong_wolfe")
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (x**2).sum()
        ...     loss.backward()
        ...     return loss
        >>> float(optimizer.step(closure))
        13.0
        >>> bool((x.abs() < 1e-4).all())
        True
    Source: Nocedal 1980; Nocedal and Wright 2006, algorithms 7.4, 3.5 and 3.6.
    """

    def __init__(
        self, params: Any, lr: Any = 1, max_iter: int = 20, max_eval: int | None = None, tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9, history_size: int = 100, line_search_fn: str | None = None, *,
        maximize: bool = False,
    ):  # fmt: skip
        check_lr(lr)
        for name, value in (("tolerance_grad", tolerance_grad), ("tolerance_change", tolerance_change)):
            setting(name, value)
        max_iter = integer("LBFGS", "max_iter", max_iter)
        max_eval = None if max_eval is None else integer("LBFGS", "max_eval", max_eval)
        if integer("LBFGS", "history_size", history_size) < 1:
            raise ValueError(f"Invalid history_size value: {history_size}; it must be at least 1.")
        settings = {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn,
        }  # fmt: skip
        if maximize:  # PyTorch 2.13's groups have no such entry, and its state dicts are to fit
            settings["maximize"] = True
        super().__init__(params, settings)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    # --- all parameters as one vector

    def _flat_grad(self) -> Tensor:
        pieces = []
        for p in self._params:
            g = p.new_zeros(p.shape) if p._grad is None else p._grad.detach()
            if g.dtype.is_complex:
                g = stack((g.real, g.imag), -1)
            pieces.append(g.reshape(-1))
        flat = cat(pieces, 0)
        return -flat if self.param_groups[0].get("maximize") else flat

    def _move(self, length: Any, direction: Tensor) -> None:
        start = 0
        for p in self._params:
            size = p.numel() * (2 if p.dtype.is_complex else 1)
            piece = direction[start : start + size] * length
            if p.dtype.is_complex:
                pairs = piece.reshape(-1, 2)
                piece = complex_of(pairs[:, 0], pairs[:, 1])
            p.add_(piece.reshape(p.shape))
            start += size

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[float, Tensor]:
        loss = float(closure())
        return -loss if self.param_groups[0].get("maximize") else loss, self._flat_grad()

    @no_grad()
    def step(self, closure: Any = None) -> Any:
        """Up to ``max_iter`` iterations.

        Args:
            closure: evaluates the loss anew, with gradients.
        Returns: the first loss it returned.
        Raises: TypeError without a closure.
        """
        if closure is None:
            raise TypeError("LBFGS.step() takes a closure that evaluates the loss anew and returns it.")
        closure = enable_grad()(closure)
        group = self.param_groups[0]
        if not self._params:
            return closure()
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError(f"only 'strong_wolfe' is supported, got line_search_fn={group['line_search_fn']!r}")
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first_loss = closure()
        loss = -float(first_loss) if group.get("maximize") else float(first_loss)
        evals = 1
        state["func_evals"] += 1
        g = self._flat_grad()
        if g.abs().max() <= group["tolerance_grad"]:
            return first_loss
        lr = float(group["lr"])
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            d = self._direction(state, g, group["history_size"])
            previous = state.get("prev_flat_grad")
            if previous is None:
                state["prev_flat_grad"] = g.clone()
            else:
                previous.copy_(g)
            state["prev_loss"] = loss
            t: Any = min(1.0, 1.0 / g.abs().sum()) * lr if state["n_iter"] == 1 else lr
            state["d"], state["t"] = d, t
            slope = g.dot(d)
            if slope > -group["tolerance_change"]:
                break
            count = 0
            if group["line_search_fn"] is not None:
                start = [p.clone() for p in self._params]

                def at(t: Any, d: Tensor = d, start: Any = start) -> _Point:
                    self._move(t, d)
                    f, g = self._evaluate(closure)
                    for p, before in zip(self._params, start, strict=True):
                        p.copy_(before)
                    return _Point(t, f, g, g.dot(d))

                found, count = _strong_wolfe(at, t, _Point(0, loss, g, slope), d, group["max_eval"] - evals)
                t, loss, g = found.t, found.f, found.g
                state["t"] = t
                self._move(t, d)
            else:
                self._move(t, d)
                if iteration != group["max_iter"]:  # what the last iteration reached is for the next step to see
                    loss, g = self._evaluate(closure)
                    count = 1
            evals += count
            state["func_evals"] += count
            if (
                evals >= group["max_eval"]
                or g.abs().max() <= group["tolerance_grad"]
                or (d * t).abs().max() <= group["tolerance_change"]
                or abs(loss - state["prev_loss"]) < group["tolerance_change"]
            ):
                break
        return first_loss

    def _direction(self, state: dict[str, Any], g: Tensor, history: int) -> Tensor:
        """Minus the gradient times the estimated inverse Hessian, by the two-loop recursion."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return -g
        dirs, steps, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = g - state["prev_flat_grad"], state["d"] * state["t"]
        ys = y.dot(s)
        if ys > 1e-10:
            if len(dirs) == history:
                for remembered in (dirs, steps, ro):
                    remembered.pop(0)
            dirs.append(y)
            steps.append(s)
            ro.append(1.0 / ys)
            state["H_diag"] = ys / y.dot(y)
        al = state.setdefault("al", [None] * history)
        q = -g
        for i in reversed(range(len(dirs))):
            al[i] = steps[i].dot(q) * ro[i]
            q = q - dirs[i] * al[i]
        r = q * state["H_diag"]
        for i in range(len(dirs)):
            r = r + steps[i] * (al[i] - dirs[i].dot(r) * ro[i])
        return r


class _Point(NamedTuple):
    """A point of the line: where, the loss, the gradient, and the loss's slope along the line."""

    t: Any
    f: float
    g: Tensor
    slope: Any


def _interpolate(a: _Point, b: _Point, bounds: Any = None) -> Any:
    """The minimum, within the bounds, of the cubic with the values and slopes of both points; the middle if it has
    none."""
    low, high = bounds or ((a.t, b.t) if a.t <= b.t else (b.t, a.t))
    mean = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    square = mean**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    if b.t < a.t:
        a, b = b, a
    root = square**0.5
    at = b.t - (b.t - a.t) * ((b.slope + root - mean) / (b.slope - a.slope + 2 * root))
    return min(max(at, low), high)


def _strong_wolfe(
    at: Callable[[Any], _Point], t: Any, origin: _Point, d: Tensor, limit: int, c1: float = 1e-4, c2: float = 0.9,
    tolerance: float = 1e-9,
) -> tuple[_Point, int]:  # fmt: skip
    """(A point that meets the strong Wolfe conditions, or the best one seen in ``limit`` rounds; evaluations)."""

    def too_high(point: _Point) -> bool:
        return bool(point.f > origin.f + c1 * point.t * origin.slope)

    def flat(point: _Point) -> bool:
        return bool(abs(point.slope) <= -c2 * origin.slope)

    width = d.abs().max()
    previous, new = origin, at(t)
    rounds, done = 0, False
    ends: list[_Point] = []
    while rounds < limit:  # until two points bracket what is looked for
        if too_high(new) or (rounds > 1 and new.f >= previous.f):
            ends = [previous, new]
            break
        if flat(new):
            ends, done = [new], True
            break
        if new.slope >= 0:
            ends = [previous, new]
            break
        bounds = (new.t + 0.01 * (new.t - previous.t), new.t * 10)
        previous, new = new, at(_interpolate(previous, new, bounds))
        rounds += 1
    if not ends:
        ends = [origin, new]
    low, high = (0, 1) if ends[0].f <= ends[-1].f else (1, 0)
    if len(ends) == 1:
        low = high = 0
    stuck = False
    while not done and rounds < limit:  # narrow the bracket
        if abs(ends[1].t - ends[0].t) * width < tolerance:
            break
        t = _interpolate(ends[0], ends[1])
        least, most = min(ends[0].t, ends[1].t), max(ends[0].t, ends[1].t)
        margin = 0.1 * (most - least)
        if min(most - t, t - least) < margin:  # close to an end: the second time, go away from it
            if stuck or t >= most or t <= least:
                t = most - margin if abs(t - most) < abs(t - least) else least + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        new = at(t)
        rounds += 1
        if too_high(new) or new.f >= ends[low].f:
            ends[high] = new
            low, high = (0, 1) if ends[0].f <= ends[1].f else (1, 0)
        else:
            if flat(new):
                done = True
            elif new.slope * (ends[high].t - ends[low].t) >= 0:
                ends[high] = ends[low]
            ends[low] = new
    return ends[low], rounds + 1
