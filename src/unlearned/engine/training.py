"""Ordinary training, as the original model had it: makes reference models, and further originals."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from unlearned.data.fingerprints import of_tensors
from unlearned.data.samples import Samples
from unlearned.engine.adapters import Lora, merged, with_adapter
from unlearned.engine.bank import Making
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, Watch, fit
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.settings import Optimisation
from unlearned.tasks._task import Batch, Bundle, ModelSource, Task


class Training(Optimisation):
    """How the original model was trained; references are trained alike."""

    start: ModelSource | None = Field(None, description="The model that training starts from, if the original was fine-tuned; None: random weights.")


def train(engine: Engine, bundle: Bundle, samples: Samples, how: Training, seed: int, *, title: str = "train", checkpoint: Path | None = None) -> Bundle:
    """A model of the bundle's architecture trained on `samples` by the task's own loss.

    Args:
        engine: computes.
        bundle: gives the architecture and companions; its weights are not used.
        samples: training data.
        how: the training.
        seed: of initial weights and data order.
        title: shown at the progress bar.
        checkpoint: where an interrupted training continues from.

    Raises:
        DivergedError: if it diverges.
        InputError: if the model to start from cannot be loaded, or the architecture cannot be initialised anew.
    """
    with seeded(derive_seed(seed, "weights")):
        started = engine.task.fresh(bundle) if how.start is None else bundle.with_model(engine.task.load(how.start, "training.start").model)

    def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
        del forget
        return engine.task.training_losses(model, retain).mean()

    plan = Plan([Pass("retain", loss)] * how.epochs)
    model = fit(engine, started.model, plan, {"retain": samples}, how, title=title, seed=seed, checkpoint=checkpoint)
    return bundle.with_model(model)


@dataclass(frozen=True)
class Fashion:
    """In what fashion a model is fine-tuned, beside the optimisation."""

    lora: Lora | None = None
    """Train adapters beside the parameters that the optimisation names; None: these themselves."""
    prior: Samples | None = None
    """Samples whose loss is held beside that of the training data (the prior preservation of DreamBooth)."""
    prior_weight: float = 1.0


def relearnt(
    engine: Engine, model: nn.Module, samples: Samples, how: Optimisation, steps: int, *, title: str, watch: Watch, fashion: Fashion | None = None
) -> nn.Module:
    """A copy of the model, trained on for so many steps by the task's own loss.

    All models that are trained under one title meet the same batches, noise and dropout, so that they differ in what they knew alone. What an unlearning with
    the same seed met is unrelated: an attack that drew its noise again would undo it step by step.

    Args:
        engine: computes; its seed and the title decide the order of the samples and all randomness.
        model: not changed.
        samples: training data.
        how: the optimisation, whose epochs are not used.
        steps: how many, going through the samples again and again.
        title: shown at the progress bar; one for each purpose.
        watch: as of `fit`.
        fashion: adapters, prior preservation; None: neither.

    Raises:
        DivergedError: if it diverges.
        InputError: if there is nothing to put an adapter beside.
    """
    fashion = fashion or Fashion()
    seed = derive_seed(engine.seed, title)

    def loss(model: nn.Module, known: Batch, prior: Batch) -> Tensor:
        value = engine.task.losses(model, known).mean()
        return value + fashion.prior_weight * engine.task.losses(model, prior).mean() if prior else value

    # A last batch of one sample joins the batch before it.
    steps_per_pass = max(1, math.ceil(len(samples) / how.batch_size) - 1)
    one = Pass("forget", loss) if fashion.prior is None else Pass("both", loss, paced_by="forget")
    plan = Plan([one] * math.ceil(steps / steps_per_pass), max_steps=steps)
    sets = {"forget": samples} | ({} if fashion.prior is None else {"retain": fashion.prior})
    if fashion.lora is None:
        return fit(engine, copy.deepcopy(model), plan, sets, how, title=title, seed=seed, watch=watch)
    with seeded(derive_seed(engine.seed, title, "adapter")):
        adapted = with_adapter(model, fashion.lora, how.parameters)
    return merged(fit(engine, adapted, plan, sets, how.model_copy(update={"parameters": ".*"}), title=title, seed=seed, watch=watch), model).eval()


@dataclass(frozen=True)
class Trained(Making):
    """A model of a bank that is trained on `samples`: without the forget set it is a reference."""

    samples: Samples
    how: Training
    called: str = "reference"

    @property
    def title(self) -> str:
        return f"{self.called} (seed {self.seed})"

    def decided_by(self, task: Task) -> dict[str, Any]:
        start = None if self.how.start is None else of_tensors(task.load(self.how.start, "training.start").model.state_dict())
        return {"data": self.samples.fingerprint, "training": self.how.model_dump(exclude={"start"}), "start": start}

    def make(self, engine: Engine) -> Bundle:
        return train(engine, self.like, self.samples, self.how, self.seed, title=self.title, checkpoint=engine.checkpoint("train"))
