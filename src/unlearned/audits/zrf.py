"""Zero-retrain forgetting (ZRF): does the model answer on the forget set like one that knows nothing?

Paper: Chundawat et al. 2023 (Bad Teacher), arXiv 2205.08096.
Formula: 1 − mean over forget samples of JS(p(·|x), t(·|x)), with the Jensen-Shannon divergence in bits and t the same architecture with random weights. 1: it
answers as the random model does.
Defaults of the authors: none.
Deviations: the divergence in bits, summed over classes, so that the score lies in [0, 1] (code that goes by the paper divides by the number of classes and
takes the Kullback-Leibler divergences the other way round, which brings every score near 1). The paper needs no retrained model; here the score stands beside
that of the references, because a model that never saw a sample knows something of it all the same: as random is not as retrained.
Findings: `zrf` on split `forget`. The random model is drawn once, by the seed.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.errors import InputError
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.distances import jensen_shannon
from unlearned.evidence.statistics import bootstrap
from unlearned.evidence.subject import Subject
from unlearned.records import Finding


def likeness(p: Tensor, q: Tensor) -> Tensor:
    """1 − JS(p, q) of each sample, in [0, 1], of distributions (n, classes)."""
    return 1 - jensen_shannon(p, q)


@audits.register("zrf")
class Zrf(Audit):
    """Likeness to a model with random weights."""

    name: ClassVar[str] = "zrf"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})

    def measure(self, subject: Subject) -> list[Finding]:
        engine, forget = subject.engine, subject.problem.forget
        seed = derive_seed(engine.seed, self.name)
        try:
            with seeded(seed):
                random = engine.task.fresh(subject.problem.original).model
        except InputError as error:
            return [absent(self.name, "zrf", "forget", f"there is no random model: {error.faults[0].what.rstrip('.')}", unit="share")]
        expected = torch.softmax(engine.evaluate(random, forget, engine.task.outputs), dim=-1)

        def measured(logits: Tensor) -> Measured:
            values = likeness(torch.softmax(logits, dim=-1), expected).numpy()
            return Measured(float(values.mean()), bootstrap(lambda x: float(x.mean()), values, seed=seed), len(values))

        numbers = {who: [measured(logits) for logits in several] for who, several in subject.values(engine.task.outputs, "forget").items()}
        return compare(self.name, "zrf", "forget", numbers, unit="share")
