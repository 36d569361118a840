"""In-place forms that are functions of the package too: ``tensorgrad.exp_(x)`` is ``x.exp_()``."""

from __future__ import annotations

from ..tensor import Tensor
from . import arithmetic, public, selection, special_names

_FAMILIES = (arithmetic, public, selection, special_names)  # they install the methods that are named here
_NAMES = (
    "abs", "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "asin", "asinh", "atan",
    "atanh", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "conj_physical", "cos", "cosh", "deg2rad", "erf",
    "erfc", "exp", "exp2", "expm1", "fix", "floor", "frac", "gcd", "i0", "lcm", "ldexp", "log", "log10", "log1p",
    "log2", "logit", "nan_to_num", "neg", "negative", "rad2deg", "reciprocal", "round", "rsqrt", "sigmoid", "sin",
    "sinc", "sinh", "sqrt", "square", "tan", "tanh", "trunc", "xlogy",
)  # fmt: skip

__all__ = [*(name + "_" for name in _NAMES)]

for _name in __all__:
    globals()[_name] = getattr(Tensor, _name)
