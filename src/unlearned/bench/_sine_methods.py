"""The unlearning methods of the sine experiment on a stack of networks, in the form in which the paper compares them.

All take full-batch AdamW steps from the poisoned networks; `retrain` starts from fresh ones. With J_r and J_f the mean squared errors on the retained and the
forgotten points, and t = 0 ... T-1 the epoch, they follow the gradient of

    retrain, fine-tune    J_r                                  gradient-ascent    -J_f
    neg-grad-plus         J_r - λ_GA J_f                       noisy-gd           J_r, with noise N(0, σ²) on each entry
    ridge                 J_r + λ γᵗ ‖θ‖²                      l1-sparse          J_r + (2 - 2t/T) λ ‖θ‖₁
    minnorm-og            J_r; before the step, if t < T - T_GD and T_proj divides t:  θ ← θ - κ (θ - P_G θ), κ ← γ κ, with κ = λ at first
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from torch import Tensor

from unlearned.bench._sine_models import Data, Descent, Points, error_signal
from unlearned.bench._sine_networks import forward, gradient, onto_gradients
from unlearned.methods.l1_sparse import l1_weight

Method = Literal["retrain", "minnorm-og", "fine-tune", "gradient-ascent", "neg-grad-plus", "noisy-gd", "ridge", "l1-sparse"]
Budget = Literal[10, 100, 1000]


@dataclass(frozen=True)
class Choice:
    """One point of a grid. What a method does not have is 0."""

    lr: float
    lambda_reg: float = 0
    """λ: strength of MinNorm-OG's first projection, or of the penalty."""
    gamma: float = 0
    """γ: decay of λ."""
    t_gd: int = 0
    """T_GD: last epochs without a projection."""
    t_proj: int = 0
    """T_proj: epochs from one projection to the next."""
    sigma: float = 0
    """σ: standard deviation of the noise."""
    lambda_ga: float = 0
    """λ_GA: weight of the forgotten points."""


HAS: dict[Method, tuple[str, ...]] = {
    "retrain": ("lr",),
    "minnorm-og": ("lr", "lambda_reg", "gamma", "t_gd", "t_proj"),
    "fine-tune": ("lr",),
    "gradient-ascent": ("lr",),
    "neg-grad-plus": ("lr", "lambda_ga"),
    "noisy-gd": ("lr", "sigma"),
    "ridge": ("lr", "lambda_reg", "gamma"),
    "l1-sparse": ("lr", "lambda_reg"),
}
_ALWAYS: dict[str, tuple[float, ...]] = {
    "lambda_reg": (0.1, 1.0, 3.0),
    "gamma": (0.3, 0.6, 0.9),
    "sigma": (0.1, 0.5, 1.0),
    "lambda_ga": (1e-3, 1e-2, 1e-1, 1.0),
}
_BY_BUDGET: dict[Budget, dict[str, tuple[float, ...]]] = {
    10: {"lr": (1e-2, 1e-3, 1e-4), "t_gd": (1, 2, 5), "t_proj": (1, 2, 5)},
    100: {"lr": (1e-3, 5e-4, 1e-4), "t_gd": (25, 50), "t_proj": (1, 2)},
    1000: {"lr": (1e-3, 5e-4, 1e-4), "t_gd": (100, 200, 500), "t_proj": (10, 50, 100)},
}
PUBLISHED: dict[Budget, Choice] = {
    10: Choice(1e-3, lambda_reg=0.1, gamma=0.9, t_gd=2, t_proj=1),
    100: Choice(1e-3, lambda_reg=0.1, gamma=0.9, t_gd=50, t_proj=2),
    1000: Choice(1e-3, lambda_reg=0.1, gamma=0.9, t_gd=500, t_proj=10),
}
"""With these the paper's MinNorm-OG was best."""


def choices(method: Method, budget: Budget) -> list[Choice]:
    """The paper's grid. MinNorm-OG leaves out λ > 1: its λ is a share."""
    values = _ALWAYS | _BY_BUDGET[budget]
    found = [Choice(**dict(zip(HAS[method], point, strict=True))) for point in product(*(values[name] for name in HAS[method]))]  # type: ignore[arg-type]
    return [choice for choice in found if method != "minnorm-og" or choice.lambda_reg <= 1]


def few_choices(method: Method, budget: Budget) -> list[Choice]:
    """One point of the paper's grid: that of `PUBLISHED`, with the smallest σ and λ_GA 0.01."""
    wanted = replace(PUBLISHED[budget], sigma=0.1, lambda_ga=0.01)
    return [choice for choice in choices(method, budget) if all(getattr(choice, name) == getattr(wanted, name) for name in HAS[method])]


def objective_gradient(method: Method, choice: Choice, theta: Tensor, data: Data, epoch: int, budget: int, noise: Callable[[], Tensor]) -> Tensor:
    """Gradient (S, d) of the objective at an epoch; of MinNorm-OG, that of its descent.

    Args:
        method: whose objective.
        choice: its settings.
        theta: parameters (S, d).
        data: the points of each network.
        epoch: t.
        budget: T.
        noise: gives standard normal (S, d); asked by noisy-gd alone.
    """
    if method == "gradient-ascent":
        return -_error_gradient(theta, data.forgotten)
    descent = _error_gradient(theta, data.retained)
    match method:
        case "neg-grad-plus":
            return descent - choice.lambda_ga * _error_gradient(theta, data.forgotten)
        case "noisy-gd":
            return descent.add_(noise(), alpha=choice.sigma)
        case "ridge":
            return descent.add_(theta, alpha=2 * choice.lambda_reg * choice.gamma**epoch)
        case "l1-sparse":
            return descent.add_(theta.sign(), alpha=l1_weight(2 * choice.lambda_reg, epoch, budget, 0))
        case _:
            return descent


def unlearn(method: Method, choice: Choice, start: Tensor, data: Data, budget: int, noise: Callable[[], Tensor]) -> Tensor:
    """Parameters (S, d) after T epochs of any method but MinNorm-OG; arguments as of `objective_gradient`."""
    descent = Descent(start, choice.lr)
    for epoch in range(budget):
        descent.step(objective_gradient(method, choice, descent.theta, data, epoch, budget, noise))
    return descent.theta


def minnorm_og(grid: Sequence[Choice], start: Tensor, retained: Points, budget: int, stale: bool) -> Iterator[tuple[Choice, Tensor]]:
    """Each choice with the parameters (S, d) after T epochs of MinNorm-OG.

    Choices that differ in T_GD alone are the same until the first of them stops projecting. So they share one trunk, from which each branches off.

    Args:
        grid: what to try.
        start: poisoned parameters (S, d).
        retained: the points of each network; the gradients of all of them span G.
        budget: T.
        stale: take the descent's activations and errors from before the projection.

    Yields:
        In another order than that of the grid.
    """
    trunks: dict[Choice, list[Choice]] = {}
    for choice in grid:
        trunks.setdefault(replace(choice, t_gd=0), []).append(choice)
    for trunk, branches in trunks.items():
        descent, kappa = Descent(start, trunk.lr), trunk.lambda_reg
        for choice in sorted(branches, key=lambda branch: -branch.t_gd):
            while descent.epoch < budget - choice.t_gd:
                projecting = descent.epoch % trunk.t_proj == 0
                minnorm_og_step(descent, retained, kappa if projecting else 0, stale)
                kappa *= trunk.gamma if projecting else 1
            branch = copy.deepcopy(descent)
            while branch.epoch < budget:
                minnorm_og_step(branch, retained, 0, stale)
            yield choice, branch.theta


def minnorm_og_step(descent: Descent, retained: Points, kappa: float, stale: bool = False) -> None:
    """θ ← θ - κ (θ - P_G θ), then one step on J_r. κ 0: no projection."""
    passed = forward(descent.theta, retained.x)
    if kappa:
        descent.theta.add_(onto_gradients(descent.theta, retained.x) - descent.theta, alpha=kappa)
        passed = passed if stale else forward(descent.theta, retained.x)
    descent.step(gradient(descent.theta, passed, error_signal(passed.out, retained.y)))


def _error_gradient(theta: Tensor, where: Points) -> Tensor:
    passed = forward(theta, where.x)
    return gradient(theta, passed, error_signal(passed.out, where.y))
