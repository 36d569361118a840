"""Functions of functions: ``vmap``, derivatives that compose with it and each other, modules as functions.

Example: per-sample gradients of a module.
    >>> import tensorgrad as tg
    >>> from tensorgrad.func import functional_call, grad, vmap
    >>> model = tg.nn.Linear(3, 1)
    >>> def loss(params, x, y):
    ...     return ((functional_call(model, params, (x,)) - y) ** 2).mean()
    >>> params = {name: p.detach() for name, p in model.named_parameters()}
    >>> per_sample = vmap(grad(loss), in_dims=(None, 0, 0))(params, tg.randn(8, 3), tg.randn(8, 1))
    >>> tuple(per_sample["weight"].shape)
    (8, 1, 3)
"""

from typing import Any

from ..errors import missing_name
from .derivatives import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp
from .mapping import vmap
from .stateless import functional_call, stack_module_state

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
    "stack_module_state", "vjp", "vmap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    raise AttributeError(missing_name(f"torch.func.{name}"))
