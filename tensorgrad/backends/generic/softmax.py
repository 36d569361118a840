"""Softmax and its kin over ``xp``; half precision is computed in float32."""

from __future__ import annotations

from typing import Any

from .reduce import wide


class SoftmaxKernels:
    xp: Any

    def _shifted(self, x: Any, dim: int) -> Any:
        """``x`` minus its maximum along ``dim``: the exponentials stay in range."""
        x = wide(x)
        if not x.size:
            return x.copy()
        return x - self.xp.asarray(x.max(axis=dim, keepdims=True))

    def softmax(self, x: Any, *, dim: int) -> Any:
        if not x.ndim:
            return self.xp.asarray(x - x + 1)  # NaN and infinities give NaN, as a row of one does
        with self._quiet():
            y = self._shifted(x, dim)
            self.xp.exp(y, out=y)
            y /= y.sum(axis=dim, keepdims=True)
        return y.astype(x.dtype, copy=False)

    def log_softmax(self, x: Any, *, dim: int) -> Any:
        if not x.ndim:
            return self.xp.asarray(x - x)
        with self._quiet():
            y = self._shifted(x, dim)
            y -= self.xp.log(self.xp.exp(y).sum(axis=dim, keepdims=True))
        return y.astype(x.dtype, copy=False)

    def softmax_backward(self, g: Any, y: Any, *, dim: int) -> Any:
        g, weights = wide(g), wide(y)
        out = g * weights
        if out.ndim:
            out -= weights * out.sum(axis=dim, keepdims=True)
        else:
            out = self.xp.asarray(out - out)
        return out.astype(y.dtype, copy=False)

    def log_softmax_backward(self, g: Any, y: Any, *, dim: int) -> Any:
        g, logs = wide(g), wide(y)
        if not g.ndim:
            return self.xp.zeros((), dtype=y.dtype)
        out = g - self.xp.exp(logs) * g.sum(axis=dim, keepdims=True)
        return out.astype(y.dtype, copy=False)

    def _quiet(self) -> Any:
        """Rows of infinities are NaN by definition; NumPy need not warn of it."""
        import numpy as np

        return np.errstate(all="ignore")
