"""Linear algebra, with the names and semantics of ``torch.linalg``.

Matrices are the last two dimensions of a tensor, and everything before them a batch. dtypes are float32, float64,
complex64 and complex128. Derivatives of every order follow PyTorch's convention for complex numbers.

Example:
    >>> import tensorgrad as tg
    >>> A = tg.tensor([[2.0, 1.0], [1.0, 3.0]], requires_grad=True)
    >>> tg.linalg.slogdet(A).logabsdet.backward()
    >>> [[round(x, 4) for x in row] for row in A.grad.tolist()]
    [[0.6, -0.2], [-0.2, 0.4]]
"""

from __future__ import annotations

from ..errors import LinAlgError as LinAlgError
from .determinants import *  # noqa: F403
from .eigen import *  # noqa: F403
from .exponential import *  # noqa: F403
from .lu_factors import *  # noqa: F403
from .norms import *  # noqa: F403
from .orthogonal import householder_product as householder_product
from .orthogonal import qr as qr
from .positive import *  # noqa: F403
from .products import *  # noqa: F403
from .singular import *  # noqa: F403
from .solving import *  # noqa: F403
