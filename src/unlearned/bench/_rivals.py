"""The methods that the suites on coloured images compare, each with the settings that are tried.

The paper's grids, thinned: two or three values for each parameter, one of T_GD; more rates where there is nothing else to choose. Rates are higher than the
paper's, for a smaller network: they were placed so that the best ones for a seed that no suite reports lay inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unlearned.bench._grids import Setting, product
from unlearned.bench._paced import BudgetRetrain, PacedSalUn, PacedScrub
from unlearned.methods import methods
from unlearned.methods._method import Method

NAMES = ("retrain", "minnorm-og", "fine-tune", "gradient-ascent", "neg-grad-plus", "noisy-gd", "ridge", "l1-sparse", "scrub", "npo", "salun")
"""Who takes part, in the order of the paper's tables."""


@dataclass(frozen=True)
class Rival:
    """A method as it takes part."""

    name: str
    """In tables."""
    method: type[Method]
    shared: Setting
    """Settings that are the same in every attempt."""
    grid: tuple[Setting, ...]
    """What is tried."""

    def made(self, setting: Setting, epochs: int, batch_size: int) -> Method:
        """The method with this setting."""
        return self.method(**{**self.shared, **setting, "epochs": epochs, "batch_size": batch_size})


@dataclass(frozen=True)
class Axes:
    """Values that are tried, by the paper's names."""

    fresh_lr: Sequence[float]
    """η of training from fresh weights."""
    only_lr: Sequence[float]
    """η of descent that has no other parameter."""
    lr: Sequence[float]
    """η of what descends on the retain set."""
    slow_lr: Sequence[float]
    """η of what does not, or is pulled to zero with each step."""
    lambda_ga: Sequence[float]
    kappa: Sequence[float]
    """λ_reg of MinNorm-OG."""
    ridge: Sequence[float]
    """λ_reg of ridge."""
    l1: Sequence[float]
    """λ_reg of ℓ1-sparse."""
    beta: Sequence[float]
    """λ_reg of NPO."""
    sigma: Sequence[float]
    gamma: Sequence[float]
    descent_epochs: int
    """T_GD."""


ABLATIONS: dict[str, Setting] = {
    "minnorm-og-batch": {"statistics": "batch"},
    "minnorm-og-stale": {"graph": "stale"},
    "minnorm-og-paper-code": {"statistics": "batch", "graph": "stale", "forget_statistics": True},
    "minnorm-og-n10": {"projection_samples": 10},
}
"""Variants of MinNorm-OG by name: outputs differentiated in train mode; descent through activations of before the projection; both, and statistics of batch
normalisation that see the forget set, as in the authors' code; few samples in a projection."""


def rivals(axes: Axes) -> list[Rival]:
    """Everybody in `NAMES`, then `ABLATIONS`. Where the paper's method is not ours of that name, it is one of `_paced`."""
    adamw = {"optimizer": "adamw", "weight_decay": 0.01}
    paced = adamw | {"paced_by": "forget"}
    descent = {"descent_epochs": axes.descent_epochs}
    minnorm = product(lr=axes.lr, strength=axes.kappa, decay=axes.gamma)
    # Two weights that add up to 1 are the paper's divided by 1 + λ_GA, which makes no difference to AdamW.
    alphas = [round(1 / (1 + value), 4) for value in axes.lambda_ga]
    get = methods.get
    return [
        Rival("retrain", BudgetRetrain, paced, product(lr=axes.fresh_lr)),
        Rival("minnorm-og", get("minnorm-og"), descent, minnorm),
        Rival("fine-tune", get("fine-tune"), paced, product(lr=axes.only_lr)),
        Rival("gradient-ascent", get("gradient-ascent"), adamw, product(lr=axes.slow_lr)),
        Rival("neg-grad-plus", get("neg-grad-plus"), paced, product(lr=axes.lr, alpha=alphas)),
        Rival("noisy-gd", get("noisy-gd"), {}, product(lr=axes.lr, sigma=axes.sigma)),
        Rival("ridge", get("ridge"), {}, product(lr=axes.lr, penalty=axes.ridge, decay=axes.gamma)),
        # The paper's schedule begins with twice the weight that ours does.
        Rival("l1-sparse", get("l1-sparse"), paced, product(lr=axes.slow_lr, alpha=[2 * value for value in axes.l1])),
        Rival("scrub", PacedScrub, descent, product(lr=axes.lr, lambda_ga=axes.lambda_ga)),
        Rival("npo", get("npo"), adamw, product(lr=axes.slow_lr, beta=axes.beta)),
        Rival("salun", PacedSalUn, {}, product(lr=axes.lr, lambda_ga=axes.lambda_ga)),
        *(Rival(name, get("minnorm-og"), {**descent, **changed}, minnorm) for name, changed in ABLATIONS.items()),
    ]
