"""``tensorgrad.special``: special functions under PyTorch's names, elementwise and differentiable.

Example:
    >>> import tensorgrad as tg
    >>> tg.special.expit(tg.tensor([0.0])).tolist()
    [0.5]
"""

from __future__ import annotations

from typing import Any

from .. import ops
from ..ops.public import logit, round
from ..ops.reduce import logsumexp
from ..ops.signatures import publish
from ..ops.softmax import log_softmax, softmax
from ..ops.special_names import i0, igamma, igammac, mvlgamma, polygamma
from . import bessel, gamma, normal

_ELSEWHERE = ("digamma", "erf", "erfc", "erfinv", "exp2", "expm1", "log1p", "sinc", "xlogy")
gammainc, gammaincc, multigammaln = igamma, igammac, mvlgamma

_BESSEL = (
    "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0e", "i1", "i1e", "modified_bessel_k0", "modified_bessel_k1",
    "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "spherical_bessel_j0",
)  # fmt: skip
_NORMAL = ("erfcx", "log_ndtr", "ndtr", "ndtri")
_GAMMA = ("entr", "xlog1py", "zeta")

__all__ = [
    "expit", "gammainc", "gammaincc", "gammaln", "i0", "log_softmax", "logit", "logsumexp", "modified_bessel_i0",
    "modified_bessel_i1", "multigammaln", "polygamma", "psi", "round", "softmax", *_ELSEWHERE, *_BESSEL, *_NORMAL,
    *_GAMMA,
]  # fmt: skip

for _family, _names in ((bessel, _BESSEL), (normal, _NORMAL), (gamma, _GAMMA)):
    for _name in _names:
        globals()[_name] = publish(_name, getattr(_family, _name), method=False)
for _name in _ELSEWHERE:
    globals()[_name] = getattr(ops, _name)
expit: Any = ops.sigmoid  # type: ignore[attr-defined]
gammaln: Any = ops.lgamma  # type: ignore[attr-defined]
psi: Any = ops.digamma  # type: ignore[attr-defined]
modified_bessel_i0: Any = i0
modified_bessel_i1: Any = globals()["i1"]
