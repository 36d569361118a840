"""Adam, and AdamW with its decoupled weight decay."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .formula import Flags, FormulaOptimizer, Terms, fn
from .fused import check_fused
from .optimizer import Group, check_betas, check_lr, check_settings, clips
from .plan import Bucket, write_numbers

__all__ = ["Adam", "AdamW"]


class Adam(FormulaOptimizer):
    """Steps along the running mean of the gradient, divided by the root of the running mean of its square.

    Args:
        params: tensors, (name, tensor) pairs, or groups.
        lr: the learning rate; a number or a tensor of one element.
        betas: how much of the two means each step keeps.
        eps: added to the root.
        weight_decay: this share of the parameter is added to the gradient (``lr`` times it subtracted from the
            parameter, if ``decoupled_weight_decay``).
        amsgrad: divide by the largest mean square seen.
        maximize: climb instead of descending.
        foreach, capturable, fused: accepted for PyTorch's sake: every step is one fused call that can be captured.
        differentiable: record the step, so that gradients flow through it.
        max_grad_norm: clip: use the gradients as if ``nn.utils.clip_grad_norm_`` had scaled those of all parameters to
            this total norm. They are scaled as the step reads them, and stay what they are; not in PyTorch.
    State: step, exp_avg, exp_avg_sq, and max_exp_avg_sq with amsgrad.
    Source: Kingma and Ba 2015; amsgrad: Reddi, Kale, Kumar 2018.
    """

    op = "adam_"
    numbers = ("rate", "root", "beta1", "beta2", "rest1", "rest2", "eps", "weight_decay", "shrink")

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False, max_grad_norm: float | None = None,
    ):  # fmt: skip
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
        check_lr(lr)
        check_settings(eps=eps)
        check_betas(betas)
        check_settings(weight_decay=weight_decay)
        if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
            raise ValueError("betas must be either both floats or both Tensors")
        for i, beta in enumerate(betas):
            if isinstance(beta, Tensor):
                if foreach and not capturable:
                    raise ValueError(f"betas[{i}] as a Tensor is not supported for capturable=False and foreach=True")
                if beta.numel() != 1:
                    raise ValueError(f"Tensor betas[{i}] must be 1-element")
        super().__init__(params, {
            "lr": lr, "betas": (float(betas[0]), float(betas[1])), "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "differentiable": differentiable, "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
            **clips(max_grad_norm),
        })  # fmt: skip
        check_fused(fused, foreach, differentiable)

    def _layout(self, group: Group) -> tuple[str, ...]:
        return _WITH_MAX if group["amsgrad"] else _MOMENTS

    # the usual step has a kernel of its own

    @property
    def hyper_size(self) -> int:  # type: ignore[override]
        return 6

    def _refresh(self, group: Group, bucket: Bucket) -> None:
        bucket.scalars[0] += 1
        first, second = group["betas"]
        rate, decay = float(group["lr"]), group["weight_decay"]
        write_numbers(bucket.hyper, rate, first, second, group["eps"], decay, bucket.scalars[0])

    def _update(self, door: Any, group: Group, bucket: Bucket, params: list[Any], grads: list[Any]) -> None:
        amsgrad = group["amsgrad"]
        door.adam_(
            params, grads, bucket.state("exp_avg"), bucket.state("exp_avg_sq"),
            bucket.state("max_exp_avg_sq") if amsgrad else [], hyper=bucket.hyper,
            decoupled=group["decoupled_weight_decay"], maximize=group["maximize"], amsgrad=amsgrad,
            **self._keywords(group, bucket),
        )  # fmt: skip

    # the same as a formula, for steps that are recorded

    def _flags(self, group: Group) -> Flags:
        decoupled = group["decoupled_weight_decay"]
        return {"decoupled": decoupled, "amsgrad": group["amsgrad"],
                "decay": group["weight_decay"] != 0 and not decoupled}  # fmt: skip

    def _numbers(self, group: Group, lr: Any, scalars: Any) -> tuple[Any, ...]:
        scalars[0] += 1
        step = float(scalars[0])
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        root = (1 - beta2**step) ** 0.5
        return (lr / (1 - beta1**step), root, beta1, beta2, 1 - beta1, 1 - beta2, group["eps"], decay, 1 - lr * decay)

    @staticmethod
    def formula(terms: Terms, flags: Flags) -> None:
        """As ``adam_``."""
        if flags["decoupled"]:
            terms.p = terms.p * terms.shrink
        terms.exp_avg = terms.exp_avg + terms.rest1 * (terms.g - terms.exp_avg)
        terms.exp_avg_sq = terms.beta2 * terms.exp_avg_sq + terms.rest2 * terms.g * terms.g
        square = terms.exp_avg_sq
        if flags["amsgrad"]:
            square = terms.max_exp_avg_sq = fn.maximum(terms.max_exp_avg_sq, square)
        terms.p = terms.p - terms.rate * terms.exp_avg / (fn.sqrt(square) / terms.root + terms.eps)


class AdamW(Adam):
    """Adam whose weight decay acts on the parameters directly: ``p *= 1 - lr weight_decay``. See ``Adam``.

    Source: Loshchilov and Hutter 2019.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
        max_grad_norm: float | None = None,
    ):  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True, max_grad_norm=max_grad_norm,
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # also where an older state dict says nothing of it
            group["decoupled_weight_decay"] = True


_MOMENTS = ("exp_avg", "exp_avg_sq")
_WITH_MAX = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
