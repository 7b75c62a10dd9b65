"""How the models of the paper on overparameterised unlearning are trained: SGD in steps, perhaps warmed up, perhaps with weights on the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.bank import Making
from unlearned.engine.batches import mixed
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.settings import Optimisation
from unlearned.tasks._task import Batch, Bundle, Task


def loss_weights(forget: int, retain: int, share: float) -> Tensor:
    """Weights on the losses of a batch, forget samples first: 1/(1+p) and p/(1+p).

    With p = |D_f| / |D_r| the two sets weigh the same in an epoch, however few are to be forgotten.

    Args:
        forget: samples of D_f in the batch.
        retain: samples of D_r in the batch.
        share: p > 0.

    Returns:
        (forget + retain,).
    """
    return torch.cat([torch.full((forget,), 1 / (1 + share)), torch.full((retain,), share / (1 + share))])


@dataclass(frozen=True)
class Taught(Making):
    """A model of a bank trained on D_r ∪ D_f by SGD whose learning rate falls to a tenth after each `decay_every` epochs."""

    retain: Samples
    forget: Samples | None
    """None: a model that never knew."""
    how: Optimisation
    decay_every: int
    warm: Samples | None = None
    """What it is first trained on, without weights. One schedule runs through both phases."""
    warm_epochs: int = 0
    weighted: bool = False
    """Whether `loss_weights` are applied."""

    @property
    def title(self) -> str:
        return f"{'ground truth' if self.forget is None else 'original'} (seed {self.seed})"

    def decided_by(self, task: Task) -> dict[str, Any]:
        sets = [None if samples is None else samples.fingerprint for samples in (self.retain, self.forget, self.warm)]
        return {"task": task.model_dump(), "sets": sets, "how": self.how.model_dump(), "rest": [self.decay_every, self.warm_epochs, self.weighted]}

    def make(self, engine: Engine) -> Bundle:
        with seeded(derive_seed(self.seed, "weights")):
            model = engine.task.fresh(self.like).model
        if self.warm is not None:
            model = self._phase(engine, model, "warm", {"retain": self.warm}, 0, self.warm_epochs)
        sets = {"retain": self.retain} | ({} if self.forget is None else {"forget": self.forget})
        return self.like.with_model(self._phase(engine, model, "main", sets, self.warm_epochs, self.how.epochs))

    def _phase(self, engine: Engine, model: nn.Module, name: str, sets: dict[str, Samples], before: int, epochs: int) -> nn.Module:
        share = len(sets["forget"]) / len(sets["retain"]) if self.weighted and "forget" in sets else None

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            losses = engine.task.losses(model, mixed(forget, retain))  # together: batch normalisation sees both
            if share is None:
                return losses.mean()
            n = len(forget.get("labels", ()))
            return (loss_weights(n, len(losses) - n, share).to(losses) * losses).mean()

        def factor(epoch: int) -> float:
            return 0.1 ** ((before + epoch) // self.decay_every)

        plan = Plan([Pass("union" if "forget" in sets else "retain", loss)] * epochs, lr_factor=factor)
        title, seed = f"{self.title}, {name}", derive_seed(self.seed, name)
        return fit(engine, model, plan, sets, self.how, title=title, seed=seed, checkpoint=engine.checkpoint(name))
