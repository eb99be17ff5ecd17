"""Muon: an optimiser with orthogonal steps for hidden convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

RMS_OF_ADAM = 0.2
"""Root mean square of a step at rate 1, so that Adam's rates fit (Liu et al. 2025, arXiv 2502.16982)."""

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan 2024): steep at zero; it ends near one, not at it."""

LEAST_NORM = 1e-7
"""A smaller momentum, such as that of units that are switched off, makes a smaller step."""


class Muon(Optimizer):
    """Momentum whose step is made orthogonal, for hidden convolutions; Adam for all else.

    A convolution's weights are taken as the matrix `(out, in * x * y * z)`. Its momentum is replaced by the
    nearest matrix with all singular values (about) 1, so that rare directions learn as fast as frequent ones
    (Jordan et al. 2024). Biases, and convolutions from or to a single channel, take Adam's step. Steps have
    the size of Adam's, so a rate that suits Adam is a good start. `torch.optim.Muon` is for matrices only.
    With FSDP, which cuts weights into pieces, every piece would take Adam's step: use DDP.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Decays of the momentum and of Adam's mean square.
        eps: Constant added to the denominators.
        weight_decay: Share of a weight, times the rate, that a step removes.

    Raises:
        ValueError: If a setting is out of range.

    >>> weight = torch.nn.Parameter(torch.eye(2))
    >>> (2 * weight).sum().backward()
    >>> Muon([weight], lr=0.1).step()
    >>> bool((weight < torch.eye(2)).all())
    True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"lr {lr}, eps {eps}, weight_decay {weight_decay}: none may be negative")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas}: both must lie in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one step.

        Args:
            closure: Function that computes the loss again; most trainings need none.

        Returns:
            The closure's result.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    direction = _orthogonal_step if is_hidden(parameter) else _adam_step
                    step = direction(parameter.grad, self.state[parameter], group["betas"], group["eps"])
                    parameter.add_(step, alpha=-group["lr"])
        return loss


def is_hidden(weight: Tensor) -> bool:
    """Whether it maps several channels to several: `(out, in, ...)`."""
    return weight.ndim >= 2 and weight.shape[0] > 1 and weight.shape[1] > 1


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest matrix with orthonormal rows (or columns, where it is tall), by Newton-Schulz.

    Singular values end between 0.65 and 1.25 where they were at least a hundredth of the norm.

    Args:
        matrix: Matrix `(rows, columns)`; zero gives zero, a norm below `LEAST_NORM` shorter rows.
        iterations: Number of iterations of the quintic polynomial.

    Returns:
        The same shape.
    """
    linear, cubic, quintic = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    rows = wide / wide.norm().clamp(min=LEAST_NORM)
    for _ in range(iterations):
        gram = rows @ rows.T
        polynomial = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        rows = torch.addmm(rows, polynomial, rows, beta=linear)
    return rows.T if matrix.shape[0] > matrix.shape[1] else rows


def _orthogonal_step(grad: Tensor, state: dict[str, Any], betas: tuple[float, float], eps: float) -> Tensor:
    momentum = state.setdefault("momentum", torch.zeros_like(grad))
    momentum.lerp_(grad, 1 - betas[0])
    step = orthogonalise(grad.lerp(momentum, betas[0]).flatten(1))  # Nesterov's
    return step.mul_(RMS_OF_ADAM * max(step.shape) ** 0.5).view(grad.shape)


def _adam_step(grad: Tensor, state: dict[str, Any], betas: tuple[float, float], eps: float) -> Tensor:
    momentum = state.setdefault("momentum", torch.zeros_like(grad)).lerp_(grad, 1 - betas[0])
    square = state.setdefault("square", torch.zeros_like(grad)).lerp_(grad.square(), 1 - betas[1])
    steps = state["step"] = state.get("step", 0) + 1
    root = (square / (1 - betas[1] ** steps)).sqrt_().add_(eps)
    return momentum / (1 - betas[0] ** steps) / root
